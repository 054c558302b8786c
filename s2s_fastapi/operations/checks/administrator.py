"""What only an administrator sees: the client, the steps A to D for each call, what else is in its tokens, and when its secret ends."""

import time
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
from s2s_fastapi.verifier.algorithms import ALGORITHMS

__all__ = ["check_admin", "check_client", "check_expiry", "check_granted", "check_steps"]

_NO_TOKEN: Final = "Keycloak gives this service no token."
_NOT_READ: Final = "The realm was not read: see admin."
_SOON: Final = 14 * 24 * 3600
_AUTHENTICATORS: Final = {
    "client_secret_basic": "client-secret",
    "client_secret_post": "client-secret",
    "private_key_jwt": "client-jwt",
}
_SHOWN_AS: Final = {"client-secret": "Client Id and Secret", "client-jwt": "Signed Jwt"}
_OFF: Final = {"": "", "false": ""}
"""Values of a switch that is off."""
_SWITCHES: Final[tuple[tuple[str, str, str, str], ...]] = (
    (
        "client.use.lightweight.access.token.enabled",
        "Advanced, Always use lightweight access token",
        "always gets lightweight tokens",
        "Their claims are left out, and receivers refuse them (wrong_audience, unknown_kind).",
    ),
    (
        "client_credentials.use_refresh_token",
        "Advanced, Open ID Connect Compatibility Modes, Use refresh tokens for client credentials grant",
        "gets refresh tokens for client credentials",
        "Its tokens have a session (sid), and receivers refuse them (unknown_kind).",
    ),
    (
        "dpop.bound.access.tokens",
        "Settings, Capability config, Require DPoP bound tokens",
        "needs a DPoP proof",
        _NO_TOKEN + " This package sends bearer tokens.",
    ),
    (
        "tls.client.certificate.bound.access.tokens",
        "Advanced, OAuth 2.0 Mutual TLS Certificate Bound Access Tokens Enabled",
        "needs a client certificate",
        _NO_TOKEN + " This package sends bearer tokens.",
    ),
)
"""Attributes that must be off: the name, the place in the console, what the client is then, and why that matters."""


def check_admin(facts: Facts) -> Iterator[Result]:
    """Read the realm as an administrator."""
    if facts.admin is None and not facts.admin_problem:
        yield Skipped("No KEYCLOAK_ADMIN_... variable is set, so nothing is known that only an administrator sees.")
        return
    if not facts.settings.client_id:
        yield Skipped("KEYCLOAK_CLIENT_ID is not set: there is no client to look at.")
        return
    found = facts.inspection
    if isinstance(found, Inspection):
        yield Seen(f"The realm was read as {named(found.reader)} (Keycloak {found.snapshot.version}).")
        for note in found.snapshot.notes:
            yield Seen(f"Not looked at: {note}.")
        return
    yield Finding(
        level="problem" if facts.admin_required else "warning",
        seen="The realm cannot be read as an administrator.",
        why="Steps A to D, the end of the secret and the settings of the client are not looked at.",
        cure=found,
    )


def check_client(facts: Facts) -> Iterator[Result]:
    """Look at the client itself: step A, and what makes its tokens unusable."""
    found = facts.inspection
    if not isinstance(found, Inspection):
        yield Skipped(_NOT_READ)
        return
    client, who = found.client, named(found.client_id)
    if client is None:
        yield _no_client(facts, found)
        return
    if client.get("protocol", OIDC) != OIDC:
        yield Finding(
            seen=f"The client {who} is of the protocol {named(str(client['protocol']))}.",
            why=_NO_TOKEN,
            cure="Make a client of the type OpenID Connect under another name, and set KEYCLOAK_CLIENT_ID to it.",
            console="Clients, Create client",
        )
        return
    findings = [*_step_a(facts, found, client), *_unusual(found, client)]
    yield from findings
    if not findings:
        yield Seen(f"The client {who} is enabled, confidential and has a service account.")
    attributes: Mapping[str, str] = client.get("attributes") or {}
    if life := attributes.get("access.token.lifespan"):
        yield Seen(f"Its tokens live {life} s by a setting of its own (access.token.lifespan).")
    policies = [str(each["name"]) for each in found.snapshot.document["clientPolicies"]["policies"]]
    if policies:
        yield Seen(
            f"Client policies in force: {listed(policies)}. They may change the client whenever it is saved, and refuse requests."
        )


def _no_client(facts: Facts, found: Inspection) -> Finding:
    who = named(found.client_id)
    similar = f" It has {listed(found.similar)}." if found.similar else ""
    default = [name for name in ("basic", "roles", "service_account") if found.snapshot.scope(name)]
    carriers = {
        name for each in facts.downstreams for audience in each.audiences for name in _carriers(found, audience)
    }
    requested = {name for each in facts.downstreams for name in each.scopes}
    make = MakeClient(
        client=found.client_id,
        caller=facts.calls or bool(facts.downstreams),
        default=(*default, *sorted(carriers - requested)),
        optional=tuple(sorted(name for name in requested if found.snapshot.scope(name))),
    )
    return Finding(
        seen=f"The realm {named(found.snapshot.realm)} has no client {who} (step A).{similar}",
        why=_NO_TOKEN if make.caller else "No Audience mapper can name it as a receiver.",
        cure=f"Set KEYCLOAK_CLIENT_ID to {listed(found.similar, ' or ')}: upper and lower case count."
        if found.similar
        else f"Make the client {who}, and copy its secret to this service; or correct KEYCLOAK_CLIENT_ID or KEYCLOAK_REALM.",
        console=f"Clients, Create client: Client ID {who}; Client authentication on, Service account roles on, all other flows off",
        changes=() if found.similar else (Change("POST", f"{found.root}/clients", new_client(make)),),
        plan=facts.plan() if facts.downstreams and not found.similar else "",
    )


def _step_a(facts: Facts, found: Inspection, client: Mapping[str, Any]) -> Iterator[Finding]:
    who, page = named(found.client_id), f"Clients, {named(found.client_id)}"
    if not client.get("enabled", True):
        yield Finding(
            seen=f"The client {who} is disabled (step A).",
            why=_NO_TOKEN,
            cure=f"Enable the client {who}, unless somebody switched it off on purpose.",
            console=f"{page}, the switch at the top",
            changes=(found.change_client(enabled=True),),
        )
    if not facts.calls:
        return
    if client.get("publicClient") or client.get("bearerOnly"):
        kind = "public" if client.get("publicClient") else "bearer-only"
        yield Finding(
            seen=f"The client {who} is {kind} (step A).",
            why=f"{_NO_TOKEN} Such a client cannot log in with a secret or a key.",
            cure=f'Switch "Client authentication" and "Service account roles" on for the client {who}. It then has a secret: copy it to this'
            " service. If a browser logs in with this client, make another one for this service.",
            console=f"{page}, Settings, Capability config",
            changes=(found.change_client(publicClient=False, bearerOnly=False, serviceAccountsEnabled=True),),
        )
    elif not client.get("serviceAccountsEnabled"):
        yield Finding(
            seen=f"The client {who} has no service account (step A).",
            why=_NO_TOKEN,
            cure=f'Switch "Service account roles" on for the client {who}.',
            console=f"{page}, Settings, Capability config",
            changes=(found.change_client(serviceAccountsEnabled=True),),
            plan=facts.plan() if facts.downstreams else "",
        )
    for user in found.snapshot.document.get("users", ()):
        if user.get("serviceAccountClientId") == found.client_id and not user.get("enabled", True):
            account = found.snapshot.ids["account", found.client_id]
            yield Finding(
                seen=f"The service account of {who} is disabled.",
                why=_NO_TOKEN,
                cure="Enable this user.",
                console=f"Users, {named(str(user['username']))}, the switch at the top",
                changes=(Change("PUT", f"{found.root}/users/{account}", {"enabled": True}),),
            )
    expected = _AUTHENTICATORS[facts.settings.client_auth]
    authenticator = str(client.get("clientAuthenticatorType") or "client-secret")
    if authenticator != expected:
        yield Finding(
            seen=f"The client {who} logs in by {_SHOWN_AS.get(authenticator, named(authenticator))}, and this service by {facts.settings.client_auth}.",
            why=_NO_TOKEN,
            cure=f"Choose {_SHOWN_AS[expected]} as Client Authenticator of {who}, or change KEYCLOAK_CLIENT_AUTH.",
            console=f"{page}, Credentials, Client Authenticator",
            changes=(found.change_client(clientAuthenticatorType=expected),),
        )


def _unusual(found: Inspection, client: Mapping[str, Any]) -> Iterator[Finding]:
    who, page = named(found.client_id), f"Clients, {named(found.client_id)}"
    attributes: Mapping[str, str] = client.get("attributes") or {}
    if not client.get("serviceAccountsEnabled"):
        return
    for attribute, place, what, why in _SWITCHES:
        if attributes.get(attribute, "") not in _OFF:
            yield Finding(
                seen=f"The client {who} {what} ({attribute}).",
                why=why,
                cure=f"Switch {attribute} off for the client {who}.",
                console=f"{page}, {place}",
                changes=(found.change_client(attributes={attribute: "false"}),),
            )
    algorithm = attributes.get("access.token.signed.response.alg", "")
    if algorithm and algorithm not in ALGORITHMS:
        yield Finding(
            seen=f"The access tokens of {who} are signed with {named(algorithm)}.",
            why="Receivers refuse them (algorithm_not_allowed).",
            cure=f"Choose RS256 as access token signature algorithm of {who}.",
            console=f"{page}, Advanced, Fine grain OpenID Connect configuration, Access token signature algorithm",
            changes=(found.change_client(attributes={"access.token.signed.response.alg": "RS256"}),),
        )
    if client.get("fullScopeAllowed"):
        yield Finding(
            level="warning",
            seen=f"“Full scope allowed” is on for the client {who}.",
            why="Each role that its account gets is in all its tokens. A client role also makes the token valid for that client, if a scope"
            " with an Audience Resolve mapper is assigned.",
            cure="Switch it off, after the roles that receivers require are assigned in the same place.",
            console=f"{page}, Client scopes, {named(found.client_id + '-dedicated')}, Scope, Full scope allowed",
            changes=(found.change_client(fullScopeAllowed=False),),
        )


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


def _carriers(found: Inspection, audience: str) -> tuple[str, ...]:
    """Return the client scopes with an Audience mapper for an audience."""
    return tuple(
        sorted(
            name
            for name, scope in found.snapshot.scopes.items()
            if any(audience_of(mapper) == audience for mapper in scope["protocolMappers"])
        )
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
    carriers = _carriers(found, audience)
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
    carriers = {name for audience in downstream.audiences for name in _carriers(found, audience)}
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
        by_role = bool(its) and not {*_carriers(found, audience)}.intersection(
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


def check_expiry(facts: Facts) -> Iterator[Result]:
    """Look when Keycloak refuses the secret."""
    found = facts.inspection
    if not isinstance(found, Inspection):
        yield Skipped(_NOT_READ)
        return
    if found.client is None or not facts.calls or facts.settings.client_auth == "private_key_jwt":
        yield Skipped("This service has no secret in Keycloak.")
        return
    now, who = facts.clock(), named(found.client_id)
    renew: dict[str, Any] = {
        "console": f"Clients, {who}, Credentials, Client Secret, Regenerate",
        "changes": (found.new_secret(),),
    }
    where = facts.settings.worded(
        "KEYCLOAK_CLIENT_SECRET_FILE" if facts.settings.client_secret_file else "KEYCLOAK_CLIENT_SECRET"
    )
    expires, former = found.secret_expires, found.former_expires
    if expires is not None and expires - now < _SOON:
        over = expires <= now
        yield Finding(
            level="problem" if over else "warning",
            seen=f"The secret of {who} {'expired' if over else 'expires'} on {_day(expires)}.",
            why="Keycloak refuses it from then on, in the same words as a wrong secret, and makes no new one by itself.",
            cure=f"Make a new secret, and write it to {where}. Keycloak accepts the old one beside it for as long as its policy says.",
            **renew,
        )
    elif expires is not None:
        yield Seen(f"The secret of {who} expires on {_day(expires)}.")
    else:
        yield Seen(f"The secret of {who} does not expire.")
    if former is not None and former > now:
        yield Finding(
            level="warning",
            seen=f"{who} has a new secret, and Keycloak accepts the former one until {_day(former)}.",
            why="If this service still has the former one, it gets no token from then on.",
            cure=f"Copy the present secret from Keycloak to {where}.",
            console=f"Clients, {who}, Credentials",
        )
    if found.snapshot.rotating:
        yield Finding(
            level="warning",
            seen=f"The client policy {listed(found.snapshot.rotating)} rotates secrets.",
            why="If it is meant for this client, each change of the client by an administrator gives it another secret once the time is over.",
            cure=f"Plan who writes the new secret to {where}. Or use private_key_jwt, which has no secret (docs: private-key-jwt).",
            console="Realm settings, Client policies",
        )


def _audiences(claims: Mapping[str, Any]) -> frozenset[str]:
    found = claims.get("aud", ())
    return frozenset((found,) if isinstance(found, str) else map(str, found))


def _role(role: Role) -> str:
    return f"{role.client}: {role.name}" if role.client else role.name


def _day(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s after 1970"
