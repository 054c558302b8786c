"""From a realm as it is to one in which every declared call works: an ordered list of steps, and the tokens before and after.

Pure: the same realm and the same access files give the same plan. It can be saved, and is carried out only where it was made.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.operations.forbidden import forbidden_role, forbidden_scope
from s2s_fastapi.operations.snapshot import Question, Snapshot, audience_of
from s2s_fastapi.operations.steps import (
    ORDER,
    AddAudience,
    AssignScope,
    EnableServiceAccount,
    GrantRole,
    MakeClient,
    MakeRole,
    MakeScope,
    MapRole,
    Step,
    step_from_json,
    step_json,
)
from s2s_fastapi.operations.wanted import (
    RealmFinding,
    Severity,
    Wanted,
    WantedCall,
    WantedRole,
    WantedScope,
    granting,
)
from s2s_fastapi.realm.entities import OIDC, Role
from s2s_fastapi.realm.model import Denied
from s2s_fastapi.text import listed, named
from s2s_fastapi.version import __version__

__all__ = ["VERSION", "Plan", "Predicted", "make_plan", "question_of", "read_plan"]

VERSION: Final = 1
"""The version of a saved plan. It grows with every change that an older reader would not understand."""
_KIND: Final = "s2s-fastapi plan"
_CLAIMS: Final = ("aud", "client_id", "scope", "realm_access", "resource_access")
_FLOWS: Final = {
    "standardFlowEnabled": "Standard flow",
    "implicitFlowEnabled": "Implicit flow",
    "directAccessGrantsEnabled": "Direct access grants",
}
_LISTS: Final = ("defaultClientScopes", "optionalClientScopes")
_MOST_NAMES: Final = 20
_LARGEST: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """One token that a caller requests: its claims before and after the plan. Empty: Keycloak refuses the request."""

    caller: str
    request: str | None
    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be changed, where, and in which state of the realm."""

    server: str
    """Empty if the realm is kept in a file. No such plan is applied."""
    realm: str
    realm_id: str
    issuer: str
    keycloak: str
    """The version of the server."""
    question: Question
    """What was read of the realm."""
    hash: str
    """The hash of what was read."""
    steps: tuple[Step, ...] = ()
    findings: tuple[RealmFinding, ...] = ()
    tokens: tuple[Predicted, ...] = ()
    made_by: str = field(default=__version__)

    @property
    def forbidden(self) -> bool:
        """Whether something was asked that no plan does."""
        return any(finding.level is Severity.FORBIDDEN for finding in self.findings)

    @property
    def open(self) -> bool:
        """Whether the realm differs from what is declared: there are steps, or findings."""
        return bool(self.steps) or any(finding.level is not Severity.NOTE for finding in self.findings)

    @property
    def restarts(self) -> tuple[str, ...]:
        """The services that get a new secret, and must be started with it."""
        return tuple(step.client for step in self.steps if isinstance(step, MakeClient) and step.secret_file)

    def as_json(self) -> dict[str, Any]:
        """Return the plan as it is saved. It holds no secret."""
        question = self.question
        return {
            "kind": _KIND,
            "version": VERSION,
            "made_by": self.made_by,
            "server": self.server,
            "realm": self.realm,
            "realm_id": self.realm_id,
            "issuer": self.issuer,
            "keycloak": self.keycloak,
            "read": {
                "clients": sorted(question.clients),
                "scopes": sorted(question.scopes),
                "audiences": sorted(question.audiences),
                "roles": [list(role) for role in sorted(question.roles)],
            },
            "hash": self.hash,
            "steps": [step_json(step) for step in self.steps],
            "findings": [{"level": str(finding.level), "text": finding.text} for finding in self.findings],
            "tokens": [
                {"caller": one.caller, "scope": one.request, "before": dict(one.before), "after": dict(one.after)}
                for one in self.tokens
            ],
        }


def read_plan(file: Path) -> Plan:
    """Read a saved plan.

    Raises:
        ConfigurationError: It cannot be read, or is no plan of this version.
    """
    problem = ""
    try:
        if file.stat().st_size > _LARGEST:
            problem = "is larger than any plan"
        else:
            content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except ValueError:
        problem = "is not JSON"
    if problem:
        raise ConfigurationError(f"The plan {file} {problem}.")
    if not isinstance(content, dict) or content.get("kind") != _KIND or content.get("version") != VERSION:
        raise ConfigurationError(
            f"{file} is no plan that this s2s-fastapi reads (version {VERSION}): make it again with --out."
        )
    try:
        return _from_json(content)
    except (KeyError, TypeError, ValueError):
        pass
    raise ConfigurationError(f"The plan {file} is damaged: make it again with --out.")


def _from_json(content: Mapping[str, Any]) -> Plan:
    read = content["read"]
    texts = {name: content[name] for name in ("server", "realm", "realm_id", "issuer", "keycloak", "hash", "made_by")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError
    return Plan(
        **texts,
        question=Question(
            clients=frozenset(read["clients"]),
            scopes=frozenset(read["scopes"]),
            audiences=frozenset(read["audiences"]),
            roles=frozenset(Role(owner, name) for owner, name in read["roles"]),
        ),
        steps=tuple(step_from_json(step) for step in content["steps"]),
        findings=tuple(RealmFinding(Severity(one["level"]), str(one["text"])) for one in content["findings"]),
        tokens=tuple(
            Predicted(caller=one["caller"], request=one["scope"], before=one["before"], after=one["after"])
            for one in content["tokens"]
        ),
    )


def question_of(wanted: Wanted) -> Question:
    """Return what must be read of a realm to plan for this."""
    audiences = frozenset(name for names in wanted.reach.values() for name in names)
    return Question(
        clients=frozenset(wanted.clients),
        scopes=frozenset(
            (
                *(name for call in wanted.calls for name in (*call.carriers, *call.scopes)),
                *(each.scope for each in wanted.scopes),
                *(name for audience in audiences for name in _scope_names(audience)),
            )
        ),
        audiences=audiences,
        roles=frozenset(each.role for each in wanted.roles),
    )


def make_plan(
    snapshot: Snapshot,
    wanted: Wanted,
    findings: Iterable[RealmFinding] = (),
    *,
    server: str,
    issuer: str,
    secret_file: Callable[[str], str] = lambda client: f"{client}.secret",
) -> Plan:
    """Return the plan. ``secret_file`` returns the file for the new secret of a client."""
    planning = _Planning(snapshot, wanted, findings)
    planning.run()
    steps = tuple(
        replace(step, secret_file=secret_file(step.client)) if isinstance(step, MakeClient) and step.caller else step
        for step in planning.ordered()
    )
    return Plan(
        server=server,
        realm=snapshot.realm,
        realm_id=snapshot.realm_id,
        issuer=issuer,
        keycloak=snapshot.version,
        question=question_of(wanted),
        hash=snapshot.hash,
        steps=steps,
        findings=tuple(sorted(planning.findings)),
        tokens=planning.tokens(),
    )


class _Planning:
    """The work of one call of `make_plan`. ``now`` is the realm with all steps that were found so far."""

    def __init__(self, snapshot: Snapshot, wanted: Wanted, findings: Iterable[RealmFinding]) -> None:
        self.before = snapshot
        # Copied once. Each step changes it, and `now` is made anew, because a snapshot remembers what it looked up.
        self.document = deepcopy(dict(snapshot.document))
        self.now = snapshot.with_document(self.document)
        self.findings: dict[RealmFinding, None] = dict.fromkeys(findings)
        self.wanted = self._without_claims(wanted)
        self.steps: list[Step] = []
        self.usable: set[str] = set()
        """The clients that exist, or will, and are what a plan may work with."""

    def run(self) -> None:
        wanted = self.wanted
        policies = (
            f"the client policy {named(one['name'])} may change tokens"
            for one in self.before.document["clientPolicies"]["policies"]
        )
        for note in (*self.before.notes, *policies):
            self._say(Severity.NOTE, f"The predicted tokens may be wrong: {note}.")
        for client_id, calls in wanted.clients.items():
            self._client(client_id, calls=calls)
        self._held()
        for each in wanted.scopes:
            if each.caller in self.usable:
                self._scope(each)
        for role in wanted.roles:
            if role.caller in self.usable:
                self._role(role)
        for call in wanted.calls:
            if call.caller in self.usable:
                self._call(call)
        self._built_in_scopes()
        self._rotated()
        self._unmet()

    def ordered(self) -> list[Step]:
        """Return the steps in the order in which they are carried out. A new client is made with all of its scopes."""
        made = {step.client for step in self.steps if isinstance(step, MakeClient)}
        steps: list[Step] = []
        for step in self.steps:
            if isinstance(step, AssignScope) and step.client in made:
                continue
            if isinstance(step, MakeClient):
                client = self.now.client(step.client) or {}
                lists = {name: tuple(sorted(client.get(name, ()))) for name in _LISTS}
                steps.append(replace(step, default=lists[_LISTS[0]], optional=lists[_LISTS[1]]))
            else:
                steps.append(step)
        return sorted(steps, key=lambda step: ORDER.index(type(step)))

    def tokens(self) -> tuple[Predicted, ...]:
        """Return the tokens of all calls, before and after."""
        requests = {(call.caller, call.request): None for call in self.wanted.calls if call.caller in self.usable}
        return tuple(
            Predicted(
                caller=caller,
                request=request,
                before=_claims(self.before, caller, request),
                after=_claims(self.now, caller, request),
            )
            for caller, request in sorted(requests, key=lambda one: (one[0], one[1] or ""))
        )

    def _say(self, level: Severity, text: str) -> None:
        self.findings[RealmFinding(level, text)] = None

    def _do(self, step: Step) -> None:
        if not step.holds(self.now):
            self.steps.append(step)
            step.on(self.document)
            self.now = self.before.with_document(self.document)

    # What only the realm shows

    def _without_claims(self, wanted: Wanted) -> Wanted:
        """Return what is wanted without the audiences that are a client of the realm whose app is not given: no other app speaks for it."""
        claimed = {
            (caller, audience)
            for caller, audiences in wanted.reach.items()
            for audience in audiences
            if audience not in wanted.given
            and (caller, audience) not in wanted.by_hand
            and self.before.client(audience) is not None
        }
        for caller, audience in claimed:
            self._say(
                Severity.OPEN,
                f"{named(caller)} calls {named(audience)}, which is a client of the realm, and another app says that it is this audience. Give"
                f" the access file of {named(audience)}; or {granting(caller, audience=audience)} grants the audience.",
            )
        calls = (
            (call, tuple(name for name in call.audiences if (call.caller, name) not in claimed))
            for call in wanted.calls
        )
        return replace(
            wanted,
            calls=tuple(
                replace(call, audiences=left, carriers=call.carriers if left else ())
                for call, left in calls
                if left or call.scopes
            ),
            reach={
                caller: frozenset(name for name in audiences if (caller, name) not in claimed)
                for caller, audiences in wanted.reach.items()
            },
        )

    def _held(self) -> None:
        """Say which callers hold what a route requires although nobody names them for it."""
        for client_id in sorted(self.wanted.clients):
            client = self.before.client(client_id)
            if client is None:
                continue
            scopes = self._scopes_of(client_id) & self.wanted.gates
            scopes -= {each.scope for each in self.wanted.scopes if each.caller == client_id}
            roles = self._roles_of(client_id) & self.wanted.gate_roles
            roles -= {each.role for each in self.wanted.roles if each.caller == client_id}
            things: list[tuple[str, str | Role]] = [
                *((f"the client scope {named(name)}", name) for name in sorted(scopes) if not forbidden_scope(name)),
                *((f"the role {named(role.name)}", role) for role in sorted(roles)),
            ]
            for shown, what in things:
                self._say(
                    Severity.OPEN,
                    f"{named(client_id)} has {shown}, which a route requires, and no declaration names it for that. Take it away, or"
                    f" {granting(client_id, what)} says that it is right.",
                )

    def _scopes_of(self, client_id: str) -> frozenset[str]:
        client = self.before.client(client_id) or {}
        return frozenset(name for kind in _LISTS for name in client.get(kind, ()))

    def _roles_of(self, client_id: str) -> frozenset[Role]:
        held = self.before.granted(client_id)
        return held.union(*map(self.before.inside, held))

    # Clients

    def _client(self, client_id: str, *, calls: bool) -> None:
        who, client = named(client_id), self.now.client(client_id)
        if client is None:
            self._do(MakeClient(client=client_id, caller=calls, default=self._there("basic")))
            self.usable.add(client_id)
            return
        if client.get("protocol", OIDC) != OIDC:
            self._say(Severity.OPEN, f"The client {who} is not for OpenID Connect, so its tokens cannot be planned.")
            return
        if client.get("enabled") is False:
            self._say(Severity.OPEN, f"The client {who} is disabled: it gets no token. It is not changed.")
            return
        flows = [name for flag, name in _FLOWS.items() if client.get(flag)]
        if flows:
            self._say(
                Severity.NOTE,
                f"The client {who} has login flows on ({', '.join(flows)}): a service needs none. They are not changed.",
            )
        if not calls:
            self.usable.add(client_id)
            return
        if client.get("publicClient") or client.get("bearerOnly"):
            kind = "public (“Client authentication” is off)" if client.get("publicClient") else "bearer-only"
            self._say(
                Severity.OPEN,
                f"The client {who} is {kind}, so it cannot have a service account: nothing is planned for it.",
            )
            return
        if client.get("fullScopeAllowed", True):
            self._say(
                Severity.NOTE,
                f"“Full scope allowed” of the client {who} is on: its tokens hold every role of its service account, and more audiences"
                " by Audience Resolve. It is not changed.",
            )
        needed = self.wanted.reach.get(client_id, frozenset())
        by_hand = needed and all((client_id, audience) in self.wanted.by_hand for audience in needed)
        if flows and not client.get("serviceAccountsEnabled") and not by_hand:
            grants = " ".join(granting(client_id, audience=audience) for audience in sorted(needed or {"NAME"}))
            self._say(
                Severity.OPEN,
                f"The client {who} logs users in and has no service account, so perhaps it is no service: nothing is planned for it."
                f" {grants} switches the account on.",
            )
            return
        self.usable.add(client_id)
        if not client.get("serviceAccountsEnabled"):
            self._do(EnableServiceAccount(client=client_id))

    def _there(self, *names: str) -> tuple[str, ...]:
        return tuple(name for name in names if self.now.scope(name) is not None)

    def _built_in_scopes(self) -> None:
        """Give each caller the scopes from which its token has ``sub`` and ``client_id``, and the roles that it needs."""
        with_roles = {each.caller for each in self.wanted.roles}
        for client_id, calls in self.wanted.clients.items():
            client = self.now.client(client_id)
            if not calls or client_id not in self.usable or client is None:
                continue
            for name in self._there("basic", "service_account", *["roles"] * (client_id in with_roles)):
                if name not in client["defaultClientScopes"]:
                    self._do(AssignScope(client=client_id, scope=name))

    def _rotated(self) -> None:
        """Say which services lose their secret: Keycloak's rotation of secrets takes every change of a client as the occasion."""
        changed = [step.client for step in self.steps if isinstance(step, EnableServiceAccount)]
        if changed and self.before.rotating:
            self._say(
                Severity.NOTE,
                f"The client policy {listed(self.before.rotating)} may give {listed(changed)} a new secret when it is changed: start these"
                " services with the secret on the page Credentials of their client.",
            )

    # Scopes that routes require

    def _scope(self, each: WantedScope) -> None:
        scope = self.now.scope(each.scope)
        if scope is None:
            self._do(MakeScope(scope=each.scope))
        elif problem := self._more(scope, self.wanted.reach.get(each.caller, frozenset()), by_hand=each.by_hand):
            self._say(
                Severity.OPEN,
                f"{named(each.caller)} shall have the client scope {named(each.scope)}, which {problem}: it is not assigned."
                f" {granting(each.caller, each.scope)} assigns it.",
            )
            return
        elif others := self._strangers(each):
            self._say(
                Severity.OPEN,
                f"{named(each.caller)} shall have the client scope {named(each.scope)}, which the realm has and others hold"
                f" ({listed(others[:_MOST_NAMES])}), so it may be required somewhere else: it is not assigned."
                f" {granting(each.caller, each.scope)} assigns it.",
            )
            return
        elif not each.by_hand and not self.before.holding(each.scope) and self.before.scope(each.scope) is not None:
            self._say(
                Severity.NOTE,
                f"CHECK THIS: the client scope {named(each.scope)} was there, and nobody held it. An app whose file is not given may require it.",
            )
        self._assign(each.caller, each.scope, optional=each.optional)

    def _strangers(self, each: WantedScope) -> list[str]:
        """Return who else holds the scope although no declaration names it for that; nobody if the caller holds it itself."""
        if each.by_hand or each.scope in self._scopes_of(each.caller):
            return []
        declared = {one.caller for one in self.wanted.scopes if one.scope == each.scope and not one.by_hand}
        return sorted({*self.before.holders.get(each.scope, ()), *self.before.holding(each.scope)} - declared)

    def _assign(self, client_id: str, scope: str, *, optional: bool) -> None:
        client = self.now.client(client_id) or {}
        if optional and scope in client["defaultClientScopes"]:
            self._say(
                Severity.NOTE,
                f"The client scope {named(scope)} is a Default one of {named(client_id)}, so all of its tokens have it. The code requests"
                " it: Optional is enough. It is not changed.",
            )
            return
        self._do(AssignScope(client=client_id, scope=scope, optional=optional))

    def _more(self, scope: Mapping[str, Any], allowed: frozenset[str], *, by_hand: bool) -> str:
        """Return what else a scope gives to whom it is assigned, as the end of a sentence; "" if nothing."""
        if scope.get("protocol") != OIDC:
            return "is not for OpenID Connect"
        if by_hand:
            return ""
        audiences = {audience_of(mapper) for mapper in scope["protocolMappers"]}
        if None in audiences:
            kinds = sorted(
                {str(mapper["protocolMapper"]) for mapper in scope["protocolMappers"] if audience_of(mapper) is None}
            )
            return f"also has mappers of other kinds ({listed(kinds)})"
        if others := {name for name in audiences if name} - allowed:
            return f"also brings the audience {listed(others)}"
        return ""

    # Roles

    def _role(self, each: WantedRole) -> None:
        role, who = each.role, named(each.caller)
        if role.client and self.now.client(role.client) is None:
            self._say(
                Severity.OPEN,
                f"{who} shall have the role {named(role.name)} of {named(role.client)}, and the realm has no such client.",
            )
            return
        if role.client and (self.now.client(role.client) or {}).get("enabled") is False:
            return  # said of the client
        inside = self.now.inside(role)
        if problem := forbidden_role(role, self.now.realm, inside):
            self._say(Severity.FORBIDDEN, f"{who} shall have a role that no plan grants: {problem}.")
            return
        if (
            not role.client
            and not each.by_hand
            and self.before.has_role(role)
            and role not in self._roles_of(each.caller)
        ):
            self._say(
                Severity.OPEN,
                f"{who} shall have the realm role {named(role.name)}, which the realm has: every app may require it, so it is not granted."
                f" {granting(each.caller, role)} grants it.",
            )
            return
        if inside and not each.by_hand:
            names = listed(f"{inner.client}:{inner.name}" if inner.client else inner.name for inner in inside)
            self._say(
                Severity.OPEN,
                f"{who} shall have the role {named(role.name)}, which contains other roles ({names}): it is not granted."
                f" {granting(each.caller, role)} grants it with them.",
            )
            return
        self._do(MakeRole(owner=role.client, role=role.name))
        client = self.now.client(each.caller) or {}
        if not client.get("fullScopeAllowed", True) and role.client != each.caller:
            self._do(MapRole(client=each.caller, owner=role.client, role=role.name))
        self._do(GrantRole(client=each.caller, owner=role.client, role=role.name))

    # Audiences

    def _call(self, call: WantedCall) -> None:
        shares = self._shares(call)
        if not all(self._by_carrier(call, name, shares[name]) for name in call.carriers):
            return
        for audience in call.audiences:
            if not self._brought(call, audience):
                self._by_default(call.caller, audience)

    def _brought(self, call: WantedCall, audience: str) -> bool:
        """Return whether an Audience mapper brings the audience. That Audience Resolve brings it too, by a role, does not count."""
        client = self.now.client(call.caller) or {}
        if audience in _of_scope(client):
            return True
        requested = {*call.carriers, *call.scopes}.intersection(client["optionalClientScopes"])
        return any(
            (scope := self.now.scope(name)) is not None
            and audience in _of_scope(scope)
            and self._in_effect(call.caller, name)
            for name in (*client["defaultClientScopes"], *requested)
        )

    def _in_effect(self, caller: str, scope: str) -> bool:
        roles, held = self.now.mapped("clientScope", scope), self.now.granted(caller)
        return not roles or not roles.isdisjoint(held.union(*map(self.now.inside, held)))

    def _shares(self, call: WantedCall) -> dict[str, list[str]]:
        """Return which scope that the code requests shall bring which audience that none of them brings yet."""
        scopes = {name: self.now.scope(name) for name in call.carriers}
        brought = {audience for scope in scopes.values() if scope is not None for audience in _of_scope(scope)}
        takers = [name for name, scope in scopes.items() if scope is None] or list(scopes)
        shares: dict[str, list[str]] = {name: [] for name in scopes}
        for audience in call.audiences if takers else ():
            if audience not in brought:
                shares[next((name for name in takers if audience in name), takers[0])].append(audience)
        return shares

    def _by_carrier(self, call: WantedCall, name: str, share: list[str]) -> bool:
        """See to it that the caller can request the scope, and that it brings these audiences too. Return whether that is planned."""
        caller, scope = call.caller, self.now.scope(name)
        client = self.now.client(caller) or {}
        problem = ""
        if scope is not None:
            problem = self._more(scope, frozenset(call.audiences), by_hand=False) or self._conditional(name)
            held = name in client["defaultClientScopes"] or name in client["optionalClientScopes"]
            if not problem and not held and _of_scope(scope).isdisjoint(call.audiences):
                # An app whose file is not given may require it: it is not given away because somebody requests it.
                problem = "brings none of these audiences, and may be required somewhere"
            there = self.before.scope(name) is not None
            if not problem and there and not held and self._unanswered(caller, _of_scope(scope)):
                problem = "brings an audience whose app is not given, and may be required there"
        elif not share:
            problem = "would bring none of these audiences, and may be required somewhere"
        if problem:
            self._say(
                Severity.OPEN,
                f"{named(caller)} requests the client scope {named(name)} for {listed(call.audiences)}. It {problem}, so it is not"
                f" assigned. Request another one; or {granting(caller, name)} assigns it.",
            )
            return False
        if scope is None:
            custom = tuple(filter(self._is_custom, share))
            self._do(MakeScope(scope=name, audiences=tuple(share), custom=custom))
            self._say(
                Severity.NOTE,
                f"CHECK THIS: only {named(caller)} names the new client scope {named(name)}. An app whose file is not given may require it.",
            )
        elif share and not self._extend(name, share):
            return False
        self._assign(caller, name, optional=True)
        return True

    def _extend(self, name: str, audiences: Iterable[str]) -> bool:
        """Add audiences to a scope, if everybody who holds it may have them."""
        audiences = list(audiences)
        outside = self.now.holders.get(name, ())
        inside = sorted(
            holder
            for holder in self.now.holding(name)
            if not all(self._may_have(holder, audience) for audience in audiences)
        )
        if holders := [*outside, *inside]:
            self._say(
                Severity.OPEN,
                f"The client scope {named(name)} does not bring the audience {listed(audiences)}, and is not extended:"
                f" {listed(holders[:_MOST_NAMES])} would get it too. Request another scope.",
            )
            return False
        for audience in audiences:
            self._do(AddAudience(scope=name, audience=audience, custom=self._is_custom(audience)))
        return True

    def _by_default(self, caller: str, audience: str) -> None:
        """Give the caller a default scope that brings the audience: one that is there, else a new one."""
        allowed = self.wanted.reach.get(caller, frozenset())
        held = self.now.client(caller) or {}
        if not self._may_have(caller, audience):
            self._say(
                Severity.OPEN,
                f"The client {named(caller)} logs users in, and each of their tokens would get the audience {named(audience)}: it is not assigned."
                f" {granting(caller, audience=audience)} assigns it.",
            )
            return
        usual, mine = _scope_names(audience), self._scopes_of(caller)
        fitting = [
            name
            for name, scope in self.now.scopes.items()
            if audience in _of_scope(scope)
            and not forbidden_scope(name)
            and name not in self.wanted.gates
            and not self._more(scope, allowed, by_hand=False)
            and not self._conditional(name)
            and (name in mine or not self._unanswered(caller, [audience]))
        ]
        if fitting:
            name = min(fitting, key=lambda one: (one not in held["optionalClientScopes"], one))
        else:
            name = next((one for one in usual if self._is_free(one, audience)), "")
            if not name:
                self._say(
                    Severity.OPEN,
                    f"There is no name left for a client scope that brings the audience {named(audience)}: {listed(usual)} are taken.",
                )
                return
            if self.now.scope(name) is None:
                custom = (audience,) if self._is_custom(audience) else ()
                self._do(MakeScope(scope=name, audiences=(audience,), custom=custom))
            else:
                self._do(AddAudience(scope=name, audience=audience, custom=self._is_custom(audience)))
        self._do(AssignScope(client=caller, scope=name))

    def _may_have(self, caller: str, audience: str) -> bool:
        """Return whether all tokens of a caller may be for the audience: also those of users, if it logs users in."""
        flows = any((self.now.client(caller) or {}).get(flag) for flag in _FLOWS)
        granted = (caller, audience) in self.wanted.by_hand
        return granted or (not flows and audience in self.wanted.reach.get(caller, frozenset()))

    def _unanswered(self, caller: str, audiences: Iterable[str]) -> bool:
        """Return whether an operator granted one of the audiences, and the app that it names is not given."""
        return any(name not in self.wanted.given and (caller, name) in self.wanted.by_hand for name in audiences)

    def _is_free(self, name: str, audience: str) -> bool:
        """Return whether a scope of this name can be made, or extended without giving anything to anybody else."""
        if forbidden_scope(name) or name in self.wanted.gates:
            return False
        scope = self.now.scope(name)
        if scope is None:
            return True
        return (
            not self._more(scope, frozenset({audience}), by_hand=False)
            and not self._conditional(name)
            and not self.now.holders.get(name)
            and all(self._may_have(holder, audience) for holder in self.now.holding(name))
        )

    def _conditional(self, scope: str) -> str:
        roles = self.now.mapped("clientScope", scope)
        return "counts only for callers with certain roles" if roles else ""

    def _is_custom(self, audience: str) -> bool:
        return self.now.client(audience) is None

    # The result

    def _unmet(self) -> None:
        """Say where a token would still lack something: the realm has a setting that no step of a plan changes."""
        for call in self.wanted.calls:
            if call.caller not in self.usable:
                continue
            claims = _claims(self.now, call.caller, call.request)
            lacking = sorted({*call.audiences} - _audiences(claims))
            if not claims:
                problem = "Keycloak would refuse its token request"
            elif lacking:
                problem = f"its token would lack the audience {listed(lacking)}"
            elif claims.get("client_id") != call.caller:
                problem = "its token would lack client_id, so no receiver accepts it as a service's"
            else:
                continue
            request = f" with the scope {named(call.request)}" if call.request else ""
            self._say(
                Severity.OPEN,
                f"After all steps {named(call.caller)} still cannot call {listed(call.audiences)}{request}: {problem}.",
            )


def _claims(realm: Snapshot, caller: str, request: str | None) -> dict[str, Any]:
    granted = realm.model.service_token(caller, scope=request)
    if isinstance(granted, Denied):
        return {}
    return {name: granted.claims[name] for name in _CLAIMS if name in granted.claims}


def _audiences(claims: Mapping[str, Any]) -> frozenset[str]:
    found = claims.get("aud", ())
    return frozenset((found,) if isinstance(found, str) else found)


def _of_scope(scope: Mapping[str, Any]) -> frozenset[str]:
    """Return the audiences that the mappers of a scope, or of a client itself, bring."""
    return frozenset(audience for mapper in scope["protocolMappers"] if (audience := audience_of(mapper)))


def _scope_names(audience: str) -> tuple[str, ...]:
    """Return the names of a new scope for an audience, in the order in which they are tried. A scope's name is ASCII without spaces."""
    plain = "".join(char if "!" <= char <= "~" and char not in '"\\' else "_" for char in audience)
    return tuple(f"{plain}-audience{suffix}" for suffix in ("", "-2", "-3"))
