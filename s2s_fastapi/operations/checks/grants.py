"""What an administrator sees between two clients: the steps B to D for each declared call, and the audiences that nobody asked for."""

from collections.abc import Iterator, Mapping
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from s2s_fastapi.downstream import Downstream
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.findings import Change, Finding, Result, Seen, Skipped
from s2s_fastapi.operations.inspection import Inspection
from s2s_fastapi.operations.snapshot import AUDIENCE_MAPPER, audience_of
from s2s_fastapi.operations.steps import MakeClient, MakeScope, audience_mapper, new_client, new_scope
from s2s_fastapi.realm.entities import OIDC, Role
from s2s_fastapi.realm.provenance import Dropped
from s2s_fastapi.text import listed, named

__all__ = ["check_granted", "check_steps"]

_NOT_READ: Final = "The realm was not read: see admin."


def check_steps(facts: Facts) -> Iterator[Result]:
    """Look at the steps B to D for each declared call."""
    found = facts.inspection
    if not isinstance(found, Inspection):
        yield Skipped(_NOT_READ)
        return
    if not facts.downstreams:
        yield Skipped("Nothing says whom this service calls: name its access file with --access.")
        return
    for downstream in facts.downstreams:
        for audience in sorted(downstream.audiences):
            yield from _step_b(facts, found, audience)
            yield from _steps_c_and_d(facts, found, downstream, audience)
        yield from _scopes(facts, found, downstream)


def _step_b(facts: Facts, found: Inspection, audience: str) -> Iterator[Finding]:
    receiver = found.snapshot.client(audience)
    name = named(audience)
    if receiver is None and "://" not in audience:
        make = MakeClient(client=audience, caller=False)
        yield Finding(
            level="warning",
            seen=f"The realm has no client {name} (step B).",
            why="Keycloak's Audience mapper offers clients only, and versions from 26.7.5 on leave a client that is missing out of the token.",
            cure=f"Make the client {name}, without any flow; or correct the audience in the code.",
            console=f"Clients, Create client: Client ID {name}; Client authentication on, all flows off",
            changes=(Change("POST", f"{found.root}/clients", new_client(make)),),
            plan=facts.plan(audience),
        )
    elif receiver is not None and not receiver.get("enabled", True):
        uuid = found.snapshot.ids["client", audience]
        body = {
            "clientId": audience,
            "serviceAccountsEnabled": bool(receiver.get("serviceAccountsEnabled")),
            "enabled": True,
        }
        yield Finding(
            level="warning",
            seen=f"The client {name} is disabled (step B).",
            why="Keycloak from 26.7.5 on leaves a disabled client out of the token, so each call to it would be refused.",
            cure=f"Enable the client {name}, unless nobody shall call it any more.",
            console=f"Clients, {name}, the switch at the top",
            changes=(Change("PUT", f"{found.root}/clients/{uuid}", body),),
        )


def _steps_c_and_d(facts: Facts, found: Inspection, downstream: Downstream, audience: str) -> Iterator[Result]:
    token, provenance = found.token(downstream.scopes), found.provenance(downstream.scopes)
    if token is not None and audience in _audiences(token.claims):
        by = sorted(
            f"mapper {named(each.mapper)} of {named(each.scope)}"
            for each in (provenance.sources if provenance is not None else ())
            if audience in each.audiences
        )
        yield Seen(f"{named(audience)} is in the token, by {' and '.join(by)} (steps C and D).")
        return
    carriers = found.carriers(audience)
    if not carriers:
        yield _no_carrier(facts, found, audience)
        return
    if found.client is None:
        yield Skipped(f"Step D for {named(audience)}: first make the client.")
        return
    for dropped in provenance.dropped if provenance is not None else ():
        if dropped.scope in carriers:
            yield _dropped(found, dropped, audience)
            return
    assigned = {*found.client["defaultClientScopes"], *(downstream.scopes & {*found.client["optionalClientScopes"]})}
    if not assigned.isdisjoint(carriers):
        yield Seen(
            f"{named(audience)}: step C is done ({listed(carriers)}), and step D too. The findings of client say why there is no such token."
        )
        return
    yield _not_assigned(facts, found, downstream, audience, carriers)


def _no_carrier(facts: Facts, found: Inspection, audience: str) -> Finding:
    name, who = f"{audience}-audience", named(found.client_id)
    custom = found.snapshot.client(audience) is None and "://" in audience
    if custom:
        name = f"{audience.rpartition('://')[2].rstrip('/').replace('/', '-')}-audience"
    scope, kind = found.snapshot.scope(name), "Custom" if custom else "Client"
    if scope is None:
        # The id is ours, so that the second request can name what the first one makes.
        identity = str(uuid5(NAMESPACE_URL, f"{found.snapshot.realm_id}/client-scopes/{name}"))
        make = MakeScope(scope=name, audiences=(audience,), custom=(audience,) if custom else ())
        changes = [Change("POST", f"{found.root}/client-scopes", {"id": identity, **new_scope(make)})]
        if found.client is not None:
            assignment = found.assign(name)
            changes.append(Change("PUT", f"{assignment.path.rpartition('/')[0]}/{identity}"))
    else:
        add = f"{found.scope_path(name)}/protocol-mappers/models"
        changes = [Change("POST", add, audience_mapper(audience, custom=custom))]
        held = found.client or {"defaultClientScopes": ()}
        if found.client is not None and name not in held["defaultClientScopes"]:
            changes.append(found.assign(name))
    silent = sorted(
        each
        for each, its in found.snapshot.scopes.items()
        if any(
            mapper["protocolMapper"] == AUDIENCE_MAPPER
            and audience in mapper["config"].values()
            and not audience_of(mapper)
            for mapper in its["protocolMappers"]
        )
    )
    if silent:
        return Finding(
            seen=f"The Audience mapper for {named(audience)} in the client scope {listed(silent)} does not add it to access tokens (step C).",
            why=f"Calls to {named(audience)} are not sent.",
            cure="Switch “Add to access token” on.",
            console=f"Client scopes, {named(silent[0])}, Mappers, the Audience mapper, Add to access token",
        )
    return Finding(
        seen=f"No client scope has an Audience mapper for {named(audience)} (step C).",
        why=f"Calls to {named(audience)} are not sent: the token would be refused (wrong_audience).",
        cure=f"Make a client scope {named(name)} with an Audience mapper for {named(audience)}, and assign it to {who} as Default (step D).",
        console=f"Client scopes, Create client scope {named(name)}, Mappers, Configure a new mapper, Audience: Included {kind} Audience"
        f" {named(audience)}, Add to access token on; then Clients, {who}, Client scopes, Add client scope, Default",
        changes=tuple(changes),
        plan=facts.plan(audience),
    )


def _not_assigned(
    facts: Facts, found: Inspection, downstream: Downstream, audience: str, carriers: tuple[str, ...]
) -> Finding:
    who, client = named(found.client_id), found.client or {}
    optional = sorted({*carriers} & {*client["optionalClientScopes"]})
    if optional:
        one = optional[0]
        taken = found.assign(one, optional=True)
        return Finding(
            seen=f"The client scope {named(one)} brings {named(audience)}. It is Optional for {who}, and the code does not request it (step D).",
            why=f"Calls to {named(audience)} are not sent: the token would be refused (wrong_audience).",
            cure=f"Request it in the code (scope={named(one)}), or make it Default for {who}.",
            console=f"Clients, {who}, Client scopes, {named(one)}, Assigned type: Default",
            changes=(Change("DELETE", taken.path), found.assign(one)),
            plan=facts.plan(audience),
        )
    one = next((name for name in carriers if name in downstream.scopes), carriers[0])
    requested = one in downstream.scopes
    kind = "Optional" if requested else "Default"
    return Finding(
        seen=f"The client scope {named(one)} brings {named(audience)}, and it is not assigned to {who} (step D).",
        why=f"Calls to {named(audience)} are not sent: the token would be refused (wrong_audience).",
        cure=f"Assign the client scope {named(one)} to {who} as {kind}.",
        console=f"Clients, {who}, Client scopes, Add client scope, {named(one)}, Add: {kind}",
        changes=(found.assign(one, optional=requested),),
        plan=facts.plan(audience),
    )


def _dropped(found: Inspection, dropped: Dropped, audience: str = "") -> Finding:
    who, roles = named(found.client_id), sorted(dropped.roles)
    changes = tuple(
        change for role in roles[:1] if (change := _grant(found, role)) is not None
    )  # one of them is enough
    target = f"Calls to {named(audience)} are not sent" if audience else "Routes that require it refuse the call"
    return Finding(
        seen=f"Keycloak leaves the client scope {named(dropped.scope)} out (step D): it has role mappings, and the service account of"
        f" {who} has none of {listed(map(_role, roles))}.",
        why=f"{target} ({'wrong_audience' if audience else 'scope_missing'}).",
        cure=f"Give the service account of {who} one of these roles, or remove the role mappings from the scope.",
        console=f"Clients, {who}, Service accounts roles, Assign role (or Client scopes, {named(dropped.scope)}, Scope)",
        changes=changes,
    )


def _grant(found: Inspection, role: Role) -> Change | None:
    ids = found.snapshot.ids
    account, uuid = ids.get(("account", found.client_id)), ids.get(("role", *role))
    owner = f"clients/{ids[('client', role.client)]}" if ("client", role.client) in ids else ""
    if account is None or uuid is None or (role.client and not owner):
        return None
    path = f"{found.root}/users/{account}/role-mappings/{owner or 'realm'}"
    return Change("POST", path, [{"id": uuid, "name": role.name}])


def _scopes(facts: Facts, found: Inspection, downstream: Downstream) -> Iterator[Result]:
    """Look at the scopes that the code requests."""
    client, who = found.client, named(found.client_id)
    if client is None:
        return
    provenance = found.provenance(downstream.scopes)
    dropped = {each.scope: each for each in (provenance.dropped if provenance is not None else ())}
    carriers = {name for audience in downstream.audiences for name in found.carriers(audience)}
    for name in sorted(downstream.scopes):
        scope = found.snapshot.scope(name)
        held = name in client["defaultClientScopes"] or name in client["optionalClientScopes"]
        if not held and name not in carriers:
            make = Change("POST", f"{found.root}/client-scopes", new_scope(MakeScope(scope=name)))
            yield Finding(
                seen=f"The client scope {named(name)}, which the code requests, is not assigned to {who}."
                if scope is not None
                else f"The code requests the scope {named(name)}, and the realm has no such client scope.",
                why="Keycloak refuses the token request (invalid_scope).",
                cure=f"{'Assign' if scope is not None else 'Make'} the client scope {named(name)}{'' if scope is not None else ', and assign it'} to {who} as Optional.",
                console=f"Clients, {who}, Client scopes, Add client scope, {named(name)}, Add: Optional"
                if scope is not None
                else f"Client scopes, Create client scope {named(name)}; then Clients, {who}, Client scopes, Add client scope, Optional",
                changes=(found.assign(name, optional=True),) if scope is not None else (make,),
                plan=facts.plan(next(iter(sorted(downstream.audiences)), "")),
            )
        elif name in dropped and name not in carriers:
            yield _dropped(found, dropped[name])
        elif scope is not None and (scope["attributes"].get("include.in.token.scope") or "true") == "false":
            body = {"name": name, "protocol": OIDC, "attributes": {"include.in.token.scope": "true"}}
            yield Finding(
                level="warning",
                seen=f"The name of the client scope {named(name)} is not written into tokens.",
                why="A route that requires this scope refuses the call (scope_missing).",
                cure="Switch “Include in token scope” on.",
                console=f"Client scopes, {named(name)}, Settings, Include in token scope",
                changes=(Change("PUT", found.scope_path(name), body),),
            )


def check_granted(facts: Facts) -> Iterator[Result]:
    """Name the audiences that nobody asked for, and which mapper or role brings them."""
    found = facts.inspection
    if not isinstance(found, Inspection):
        yield Skipped(_NOT_READ)
        return
    token, provenance = found.token(), found.provenance()
    if token is None or provenance is None:
        yield Skipped("The client gets no token: see client.")
        return
    wanted = {name for each in facts.downstreams for name in each.audiences}
    roles = {role for each in provenance.sources for role in each.roles}
    extra = sorted(_audiences(token.claims) - wanted)
    if not extra:
        yield Seen(
            "No audience is in its tokens that no declared call asks for." if wanted else "Its token has no audience."
        )
    for audience in extra:
        by = [each for each in provenance.sources if audience in each.audiences]
        places = " and ".join(sorted(f"mapper {named(each.mapper)} of {named(each.scope)}" for each in by))
        its = sorted(role.name for role in roles if role.client == audience)
        resolved = (
            f" The account has the role{'s' if len(its) > 1 else ''} {listed(its)} of {named(audience)}." if its else ""
        )
        said = f"Each token of this service is for {named(audience)} too, by {places}.{resolved}"
        if not wanted:
            yield Seen(said)
            continue
        by_role = bool(its) and not {*found.carriers(audience)}.intersection(
            found.client["defaultClientScopes"] if found.client else ()
        )
        yield Finding(
            level="warning",
            seen=said,
            why=f"{named(audience)} accepts tokens that this service sends to others, and routes with only=True refuse them (audience_not_only).",
            cure=f"Take the role{'s' if len(its) > 1 else ''} {listed(its)} from the service account, or from the scope of the client, unless"
            " the service needs them."
            if by_role
            else "Take that client scope from the client, or make it Optional and request it for the calls that need it.",
            console=f"Clients, {named(found.client_id)}, {'Service accounts roles' if by_role else 'Client scopes'}",
        )


def _audiences(claims: Mapping[str, Any]) -> frozenset[str]:
    found = claims.get("aud", ())
    return frozenset((found,) if isinstance(found, str) else map(str, found))


def _role(role: Role) -> str:
    return f"{role.client}: {role.name}" if role.client else role.name
