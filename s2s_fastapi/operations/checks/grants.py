"""What an administrator sees between two clients: the steps B to D for each declared call, and the audiences that nobody asked for."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from s2s_fastapi.decision import Decision
from s2s_fastapi.declared.access_file import AppAccess
from s2s_fastapi.declared.asked import leaves_of
from s2s_fastapi.downstream import Downstream
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.findings import Finding, Result, Seen, Skipped
from s2s_fastapi.operations.forbidden import forbidden_audience, forbidden_client, forbidden_scope
from s2s_fastapi.operations.inspection import Inspection
from s2s_fastapi.operations.relations import judged, with_accepted_binding
from s2s_fastapi.operations.snapshot import AUDIENCE_MAPPER, audience_of
from s2s_fastapi.operations.steps import Step
from s2s_fastapi.realm.entities import Role
from s2s_fastapi.realm.provenance import Dropped
from s2s_fastapi.requirement.requirement import Caller
from s2s_fastapi.text import listed, named, names_in
from s2s_fastapi.verifier.predicted import predicted_principal

__all__ = ["check_granted", "check_routes", "check_steps", "on_the_way"]

_NOT_READ: Final = "The realm was not read: see admin."
_MOST: Final = 20


def check_steps(facts: Facts) -> Iterator[Result]:
    """Look at the steps B to D for each declared call."""
    found = facts.inspection
    if not isinstance(found, Inspection):
        yield Skipped(_NOT_READ)
        return
    if not facts.downstreams:
        yield Skipped(
            "This service declares no call."
            if facts.own_apps
            else "Nothing says whom this service calls: name its access file with --access."
        )
        return
    if forbidden_client(found.client_id, found.snapshot.realm):
        yield Skipped("No step is for a client of Keycloak itself: see client.")
        return
    for downstream in facts.downstreams:
        yield from on_the_way(facts, found, downstream)


def on_the_way(facts: Facts, found: Inspection, downstream: Downstream) -> Iterator[Result]:
    """Look at the steps B to D for one declared call."""
    for audience in sorted(downstream.audiences):
        if problem := forbidden_audience(audience, found.snapshot.realm):
            yield Finding(
                seen=f"A call is for the audience {named(audience)}, and no plan grants it: {problem}.",
                why="Whoever has such a token may have rights in Keycloak.",
                cure="Correct the audience in the code: it is the client id of the called service.",
            )
            continue
        yield from _step_b(facts, found, audience)
        yield from _steps_c_and_d(facts, found, downstream, audience)
    yield from _scopes(facts, found, downstream)


def _cure(steps: Iterable[Step], otherwise: str) -> str:
    """Return steps of the plan as a cure. What is not among them is never a cure: it would give more than the called app allows."""
    return " ".join(map(str, steps)) or otherwise


def _by_plan(facts: Facts, audience: str) -> str:
    """Say who decides, if there is no step."""
    return (
        f"Make the plan: it says why {named(audience)} is not granted."
        if facts.planned
        else f"Make the plan, with the access files of both services: that of {named(audience)} says who may call it."
    )


def _step_b(facts: Facts, found: Inspection, audience: str) -> Iterator[Finding]:
    receiver = found.snapshot.client(audience)
    if receiver is None and "://" not in audience:
        yield no_receiver(facts, found, audience)
    elif receiver is not None and not receiver.get("enabled", True):
        yield disabled_receiver(audience)


def no_receiver(facts: Facts, found: Inspection, audience: str, *, similar: Iterable[str] = ()) -> Finding:
    """Say that the client of a called service is missing (step B)."""
    name, similar = named(audience), tuple(similar)
    if similar:
        cure = f"Set KEYCLOAK_CLIENT_ID to {listed(similar, ' or ')}: upper and lower case count."
    else:
        cure = f"Make the client {name}, without any flow; or correct the audience in the code."
    return Finding(
        level="warning",
        seen=f"The realm has no client {name} (step B).{f' It has {listed(similar)}.' if similar else ''}",
        why="Keycloak's Audience mapper offers clients only, and versions from 26.7.5 on leave a client that is missing out of the token.",
        cure=cure,
        console=f"Clients, Create client: Client ID {name}; Client authentication on, all flows off",
        changes=() if similar else found.requests(found.making(audience)),
        plan="" if similar else facts.plan(audience),
    )


def disabled_receiver(audience: str) -> Finding:
    """Say that the client of a called service is disabled (step B)."""
    name = named(audience)
    return Finding(
        level="warning",
        seen=f"The client {name} is disabled (step B).",
        why="Keycloak from 26.7.5 on leaves a disabled client out of the token, so each call to it would be refused.",
        cure=f"Enable the client {name}, unless nobody shall call it any more.",
        console=f"Clients, {name}, the switch at the top",
    )


def _steps_c_and_d(facts: Facts, found: Inspection, downstream: Downstream, audience: str) -> Iterator[Result]:
    token, provenance = found.token(downstream.scopes), found.provenance(downstream.scopes)
    if downstream.on_behalf and audience in _audiences(found.exchanged(downstream.scopes)):
        yield Seen(f"{named(audience)} is in the tokens that are exchanged for those of users (steps C and D).")
        return
    if token is not None and audience in _audiences(token.claims):
        by = sorted(
            f"mapper {named(each.mapper)} of {named(each.scope)}"
            for each in (provenance.sources if provenance is not None else ())
            if audience in each.audiences
        )
        yield Seen(f"{named(audience)} is in the token, by {' and '.join(by)} (steps C and D).")
        return
    if found.client is None:
        yield Skipped(f"Steps C and D for {named(audience)}: first make the client.")
        return
    carriers = found.carriers(audience)
    if not carriers:
        yield _no_carrier(facts, found, audience)
        return
    for dropped in provenance.dropped if provenance is not None else ():
        if dropped.scope in carriers:
            yield _dropped(facts, found, dropped, audience)
            return
    assigned = {*found.client["defaultClientScopes"], *(downstream.scopes & {*found.client["optionalClientScopes"]})}
    if not assigned.isdisjoint(carriers):
        yield Seen(
            f"{named(audience)}: step C is done ({listed(carriers)}), and step D too. The findings of client say why there is no such token."
        )
        return
    yield _not_assigned(facts, found, audience, carriers)


def _no_carrier(facts: Facts, found: Inspection, audience: str) -> Finding:
    who = named(found.client_id)
    silent = sorted(
        each
        for each, its in found.snapshot.scopes.items()
        if not forbidden_scope(each)
        and any(
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
    steps = found.granting(audience)
    kind = "Custom" if found.snapshot.client(audience) is None else "Client"
    return Finding(
        seen=f"No client scope has an Audience mapper for {named(audience)} (step C).",
        why=f"Calls to {named(audience)} are not sent: the token would be refused (wrong_audience).",
        cure=_cure(steps, _by_plan(facts, audience)),
        console=f"Client scopes, Create client scope, Mappers, Configure a new mapper, Audience: Included {kind} Audience"
        f" {named(audience)}, Add to access token on; then Clients, {who}, Client scopes, Add client scope, Default"
        if steps
        else "",
        changes=found.requests(steps),
        plan=facts.plan(audience),
    )


def _not_assigned(facts: Facts, found: Inspection, audience: str, carriers: tuple[str, ...]) -> Finding:
    who, client = named(found.client_id), found.client or {}
    steps = found.granting(audience)
    optional = sorted({*carriers} & {*client["optionalClientScopes"]})
    if optional:
        one = optional[0]
        return Finding(
            seen=f"The client scope {named(one)} brings {named(audience)}. It is Optional for {who}, and the code does not request it (step D).",
            why=f"Calls to {named(audience)} are not sent: the token would be refused (wrong_audience).",
            cure=f"Request it in the code (scope={named(one)}).{' Or: ' if steps else ''}{_cure(steps, '')}",
            console=f"Clients, {who}, Client scopes" if steps else "",
            changes=found.requests(steps),
            plan=facts.plan(audience),
        )
    single = len(carriers) == 1
    return Finding(
        seen=f"The client scope{'' if single else 's'} {listed(carriers, ' and ')} bring{'s' if single else ''} {named(audience)}, and"
        f" {'it is not' if single else 'none of them is'} assigned to {who} (step D).",
        why=f"Calls to {named(audience)} are not sent: the token would be refused (wrong_audience).",
        cure=_cure(steps, _by_plan(facts, audience)),
        console=f"Clients, {who}, Client scopes, Add client scope" if steps else "",
        changes=found.requests(steps),
        plan=facts.plan(audience),
    )


def _dropped(facts: Facts, found: Inspection, dropped: Dropped, audience: str = "") -> Finding:
    who = named(found.client_id)
    steps = (found.granting(audience) if audience else ()) or found.giving(dropped.roles)
    target = f"Calls to {named(audience)} are not sent" if audience else "Routes that require it refuse the call"
    return Finding(
        seen=f"Keycloak leaves the client scope {named(dropped.scope)} out (step D): it has role mappings, and the service account of"
        f" {who} has none of {listed(map(_role, sorted(dropped.roles)))}.",
        why=f"{target} ({'wrong_audience' if audience else 'scope_missing'}).",
        cure=_cure(
            steps,
            _by_plan(facts, audience)
            if audience
            else "Request another scope; or ask whoever manages this one for a role that counts.",
        ),
        console=f"Client scopes, {named(dropped.scope)}, Scope, shows the role mappings",
        changes=found.requests(steps),
        plan=facts.plan(audience) if steps or audience else "",
    )


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
        if not held and (problem := forbidden_scope(name)):
            yield Finding(
                seen=f"The code requests the scope {named(name)}, and no plan assigns it: {problem}.",
                why="Keycloak refuses the token request (invalid_scope).",
                cure="Take it out of scope= in the code, or request another scope.",
            )
        elif not held and name not in carriers:
            steps = found.assigning(name)
            audience = min(downstream.audiences, default="")
            yield Finding(
                seen=f"The client scope {named(name)}, which the code requests, is not assigned to {who}."
                if scope is not None
                else f"The code requests the scope {named(name)}, and the realm has no such client scope.",
                why="Keycloak refuses the token request (invalid_scope).",
                cure=_cure(steps, _by_plan(facts, audience) if audience else "Take it out of scope= in the code."),
                console=f"Clients, {who}, Client scopes, Add client scope, {named(name)}, Add: Optional"
                if steps
                else "",
                changes=found.requests(steps),
                plan=facts.plan(audience),
            )
        elif name in dropped and name not in carriers:
            yield _dropped(facts, found, dropped[name])
        elif scope is not None and (scope["attributes"].get("include.in.token.scope") or "true") == "false":
            yield Finding(
                level="warning",
                seen=f"The name of the client scope {named(name)} is not written into tokens.",
                why="A route that requires this scope refuses the call (scope_missing).",
                cure="Let the route require another scope: this one is Keycloak's own."
                if forbidden_scope(name)
                else "Switch “Include in token scope” on.",
                console=""
                if forbidden_scope(name)
                else f"Client scopes, {named(name)}, Settings, Include in token scope",
            )


def check_routes(facts: Facts) -> Iterator[Result]:
    """Look which routes of the called services name this caller, and refuse its tokens."""
    found = facts.inspection
    if not isinstance(found, Inspection):
        yield Skipped(_NOT_READ)
        return
    called = {
        app.client_id: app
        for each in facts.downstreams
        if not each.on_behalf  # what a user may do is decided by that user's roles
        for name in each.audiences
        for app in facts.receivers(name)
    }
    if not called:
        yield Skipped("The access file of no called service was given: see --access.")
        return
    for app in called.values():
        yield from _of_receiver(facts, found, app.within(facts.settings.issuer))


def _of_receiver(facts: Facts, found: Inspection, app: AppAccess) -> Iterator[Result]:
    """Judge the token of each declared call. A route counts as open for the caller if it accepts one of them."""
    naming = {route.name for route in app.routes if not route.open and found.client_id in _callers(route.requires)}
    refused: dict[str, str] | None = None
    for each in facts.downstreams:
        token = None if each.on_behalf else found.token(each.scopes)
        audiences = {
            name for name in each.audiences if app.client_id in (one.client_id for one in facts.receivers(name))
        }
        principal = None if token is None else predicted_principal(token.claims)
        if principal is None or isinstance(principal, Decision) or principal.kind != "service":
            continue  # client says why
        if audiences.isdisjoint(principal.audiences):
            continue  # steps says why
        answers = judged(with_accepted_binding(principal, app), app)  # about the binding, see bound
        reasons = {one.route: one.reason for one in answers if not one.accepted and one.route in naming}
        refused = reasons if refused is None else {name: why for name, why in refused.items() if name in reasons}
    who = named(app.client_id)
    if refused is None:
        yield Skipped(f"There is no usable token for {who}: see client and steps.")
    elif refused:
        shown = [f"{name} ({why})" for name, why in sorted(refused.items())[:_MOST]]
        verb = "refuses" if len(refused) == 1 else "refuse"
        yield Finding(
            level="warning",
            seen=f"{len(refused)} of {len(naming)} routes of {who} that name this caller {verb} it: {', '.join(shown)}.",
            why="The app means this caller, and Keycloak grants it too little, or the code does not request it.",
            cure="Make the plan: it grants what these routes require. A scope that is Optional must be requested in the code (scope=...)."
            if found.steps
            else "s2s-fastapi explain, with the same access files, says what each of them lacks.",
            plan=facts.plan() if found.steps else "",
        )
    elif naming:
        yield Seen(f"No route of {who} that names this caller refuses it.")
    else:
        yield Seen(f"No route of {who} names this caller.")


def _callers(requires: Any) -> frozenset[str]:
    leaves = (leaf for leaf in leaves_of(requires) if isinstance(leaf, Caller) and leaf.kind == "service")
    return frozenset(name for leaf in leaves for name in leaf.client_ids)


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
            console=f"Clients, {named(found.client_id)}, {'Service account roles' if by_role else 'Client scopes'}",
        )


def _audiences(claims: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(names_in(claims.get("aud")))


def _role(role: Role) -> str:
    return f"{role.client}: {role.name}" if role.client else role.name
