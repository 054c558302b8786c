"""What Keycloak must grant so that the apps can do what they declare: a pure function of their access files.

The rule "to whom": a caller cannot grant itself anything, and no app opens another one. An audience that is the client id of an app is
granted if the file of that app accepts the caller; any other one, if every app that accepts the audience accepts the caller. For calls on
behalf of users, a file accepts the caller if it lets users in through it: ``require_user("caller")``. A scope or a role is granted if one
declaration of another app names both it and the caller, and every other app that requires it does so too. For everything else an operator
writes ``--grant``; otherwise it is a finding.
"""

import json
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, TypeAlias

from s2s_fastapi.declared.access_file import AppAccess, CallAccess, RouteEntry
from s2s_fastapi.declared.asked import leaves_of, ways_of
from s2s_fastapi.keycloak.client_authentication import ByFederation, ClientAuthentication
from s2s_fastapi.operations.forbidden import forbidden_audience, forbidden_client, forbidden_role, forbidden_scope
from s2s_fastapi.realm.entities import Role
from s2s_fastapi.requirement.conditions import Condition, HasClaim
from s2s_fastapi.requirement.requirement import AllOf, AnyOf, Audience, Bound, Caller, HasRole, HasScope, Requirement
from s2s_fastapi.text import listed, named

__all__ = [
    "RealmFinding",
    "Severity",
    "Wanted",
    "WantedCall",
    "WantedExchange",
    "WantedRole",
    "WantedScope",
    "accepted_audiences",
    "granting",
    "replacing",
    "wanted",
]

_MOST_WAYS: Final = 5_000
_MOST_WAYS_OF_AN_APP: Final = 10_000
_MOST_NAMED: Final = 3
_AUTHENTICATION: Final = "client_authentication"
"""What one grants so that a client which is there logs in as its access file says."""
_Thing: TypeAlias = str | Role
"""What a route requires: a scope (text) or a role."""


class Severity(StrEnum):
    """How bad a finding is."""

    FORBIDDEN = "forbidden"
    """No plan does this. The command ends with 2, and nothing is applied."""
    OPEN = "open"
    """Something is not granted, or not as declared. The command ends with 1."""
    NOTE = "note"
    """Worth knowing. The command ends as if it were not there."""


@dataclass(frozen=True, slots=True, order=True)
class RealmFinding:
    """One sentence about what a plan does not do, or does."""

    level: Severity
    text: str


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class WantedCall:
    """One kind of token that a caller requests, as far as it is granted."""

    caller: str
    audiences: tuple[str, ...] = ()
    """What the token must be for."""
    carriers: tuple[str, ...] = ()
    """The scopes that the code requests and that may bring the audiences: no route requires them."""
    scopes: tuple[str, ...] = ()
    """The scopes that the code requests and that a route requires, or that an operator granted."""
    on_behalf: bool = False
    """Whether the token is exchanged for that of a user."""
    dpop: bool = False
    """Whether the token is bound to a key of the caller (RFC 9449)."""

    @property
    def exchanged_for(self) -> tuple[str, ...]:
        """The audiences for which the token of a user is exchanged; empty for a token of the caller's own."""
        return self.audiences if self.on_behalf else ()

    @property
    def request(self) -> str | None:
        """The parameter ``scope`` of the token request."""
        return " ".join(sorted({*self.carriers, *self.scopes})) or None


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class WantedScope:
    """A scope that a caller must be able to have."""

    caller: str
    scope: str
    optional: bool
    """Whether the code requests it. Otherwise every token has it."""
    by_hand: bool = False
    """Whether an operator granted it."""


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class WantedRole:
    """A role that the service account of a caller must have."""

    caller: str
    role: Role
    by_hand: bool = False


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class WantedExchange:
    """That a caller exchanges the tokens of users."""

    caller: str
    alone: bool
    """Whether it requests no token of its own."""
    through: tuple[str, ...] = ()
    """The clients that the caller's own routes name in ``require_user``: users call it through them."""
    roles: tuple[Role, ...] = ()
    """The roles that users must have for the routes which name the caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the realm must contain."""

    clients: Mapping[str, bool] = field(default_factory=dict)
    """Each client that must exist, and whether it calls others."""
    calls: tuple[WantedCall, ...] = ()
    scopes: tuple[WantedScope, ...] = ()
    roles: tuple[WantedRole, ...] = ()
    gates: frozenset[str] = frozenset()
    """The scopes that any route requires: they never bring an audience."""
    gate_roles: frozenset[Role] = frozenset()
    """The roles that any route requires."""
    reach: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """For each caller, all audiences that it is granted."""
    by_hand: frozenset[tuple[str, str]] = frozenset()
    """Each caller and audience that an operator granted."""
    given: frozenset[str] = frozenset()
    """The client ids of all apps whose files were read."""
    exchanges: Mapping[str, WantedExchange] = field(default_factory=dict)
    """Each caller that exchanges the tokens of users."""
    bound: frozenset[str] = frozenset()
    """The callers of which every declared call is made with a bound token."""
    certified: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For each caller, the called apps with a route that only a token bound to a client certificate opens."""
    uncertified: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For each caller, the called apps that refuse such tokens, and the audiences of which no app is known."""
    unbound: frozenset[str] = frozenset()
    """The callers with a declared call that is made with a bearer token."""
    authentication: Mapping[str, ClientAuthentication] = field(default_factory=dict)
    """How each caller without a secret proves itself."""
    conflicting: frozenset[str] = frozenset()
    """The callers whose access files contradict another one in that: nothing is planned for them."""
    replaced: frozenset[str] = frozenset()
    """The callers that are there, and that an operator lets log in so from now on."""


def wanted(
    apps: Iterable[AppAccess], grants: Iterable[str] = (), *, realm: str
) -> tuple[Wanted, tuple[RealmFinding, ...]]:
    """Return what the apps need of the realm, and what they declare and do not get.

    ``grants`` are ``CALLER:audience=NAME``, ``CALLER:scope=NAME``, ``CALLER:role=OWNER/NAME`` and ``CALLER:realm-role=NAME``, of what a file
    declares. ``CALLER:NAME`` is enough if the name fits one of them only. ``CALLER:client_authentication`` lets a client that is there
    log in as its access file says.
    """
    return _Wanting(apps, grants, realm).result()


def replacing(client: str) -> str:
    """Return the option that lets a client which is there log in as its access file says."""
    return f"--grant {shlex.quote(f'{client}:{_AUTHENTICATION}')}"


def granting(caller: str, what: _Thing | None = None, *, audience: str = "") -> str:
    """Return the option that grants exactly this, as one writes it in a shell: a scope (text), a role, or an audience."""
    if isinstance(what, Role):
        form = f"role={what.client}/{what.name}" if what.client else f"realm-role={what.name}"
    else:
        form = f"audience={audience}" if what is None else f"scope={what}"
    return f"--grant {shlex.quote(f'{caller}:{form}')}"


@dataclass(frozen=True, slots=True)
class _Way:
    """One way in which a service, or a user, may call a route: everything in it must hold."""

    route: str
    callers: frozenset[str] | None
    """None: any service, or users through any client."""
    audiences: frozenset[str]
    scopes: frozenset[str]
    roles: frozenset[Role]
    bound: bool = False
    """Whether the token must be bound."""
    users: bool = False
    """Whether it is a way for users, and `callers` are the clients through which they call."""

    def names(self, caller: str) -> bool:
        return self.callers is not None and caller in self.callers


@dataclass(frozen=True, slots=True)
class _Receiver:
    client_id: str
    audiences: frozenset[str]
    ways: tuple[_Way, ...]
    """Those of services."""
    ways_of_users: tuple[_Way, ...]
    certificates: bool = False
    """Whether it takes tokens that are bound to a client certificate."""
    certificates_only: bool = False
    """Whether it takes no other bound tokens."""

    @classmethod
    def of(cls, app: AppAccess, ways: Iterable[_Way]) -> "_Receiver":
        every = tuple(ways)
        services, users = (tuple(way for way in every if way.users is kind) for kind in (False, True))
        certificates = app.client_certificate
        return cls(app.client_id, accepted_audiences(app), services, users, certificates, certificates and not app.dpop)

    def only_bound(self, caller: str) -> bool:
        """Return whether a route that names this service takes bound tokens only, or each route that lets it in does."""
        ways = [way for way in self.ways if way.callers is None or caller in way.callers]
        unbound = {way.route for way in ways if not way.bound}
        return any(way.route not in unbound for way in ways if way.names(caller) or not unbound)

    def asks(self, what: _Thing, *, users: bool = False) -> tuple[_Way, ...]:
        """Return the ways that require it. With `users`, also the ways of users."""
        ways = (*self.ways, *(self.ways_of_users if users else ()))
        return tuple(way for way in ways if what in (way.roles if isinstance(what, Role) else way.scopes))


class _Wanting:
    """The work of one call of `wanted`."""

    def __init__(self, apps: Iterable[AppAccess], grants: Iterable[str], realm: str) -> None:
        self.realm = realm
        self.found: dict[RealmFinding, None] = {}
        every = tuple(apps)
        self.given = frozenset(app.client_id for app in every)
        self.requiring = _requiring(every)
        """Who requires it, on whatever route: also if no service can take that way, and also if nothing is planned for the app."""
        self.apps = self._unique(every)
        self.receivers = tuple(
            _Receiver.of(app, self._ways(app)) for app in self.apps.values() if app.requires is not None
        )
        self.audiences: set[tuple[str, str]] = set()
        """What an operator grants: each caller and audience."""
        self.by_hand: set[tuple[str, _Thing]] = set()
        """The same for scopes and roles."""
        self.replaced: set[str] = set()
        """The clients that may log in in another way from now on."""
        self._take(grants)

    def result(self) -> tuple[Wanted, tuple[RealmFinding, ...]]:
        calls = [call for app in self.apps.values() for call in self._calls(app)]
        reach: dict[str, frozenset[str]] = {}
        for call in calls:
            reach[call.caller] = reach.get(call.caller, frozenset()) | frozenset(call.audiences)
        for caller, name in sorted(self.audiences):  # an audience that no call declares
            if name not in reach.get(caller, frozenset()) and self._audience(caller, name, on_behalf=False):
                reach[caller] = reach.get(caller, frozenset()) | {name}
                calls.append(WantedCall(caller=caller, audiences=(name,)))
        own = {
            caller: frozenset(
                name for call in calls if call.caller == caller and not call.on_behalf for name in call.audiences
            )
            for caller in reach
        }
        scopes = tuple(sorted(set(self._scopes(calls, reach, own))))
        allowed = {(each.caller, each.scope) for each in scopes}
        calls = [
            replace(call, scopes=tuple(name for name in call.scopes if (call.caller, name) in allowed))
            for call in calls
        ]
        roles = tuple(sorted(set(self._roles(own))))
        self._unnamed(scopes, roles)
        exchanging = {call.caller for call in calls if call.on_behalf}
        callers = {*reach, *(each.caller for each in scopes), *(each.caller for each in roles)}
        authentication, conflicting = self._authentication(callers)
        return Wanted(
            clients={
                name: name in callers or bool(app.calls)
                for name, app in sorted(self.apps.items())
                if app.calls or app.requires is not None
            },
            calls=tuple(sorted(set(calls))),
            scopes=scopes,
            roles=roles,
            gates=self._scopes_asked(),
            gate_roles=self._roles_asked(),
            reach=reach,
            by_hand=frozenset(self.audiences),
            given=self.given,
            exchanges={
                name: self._exchange(
                    name, calls, alone=not own.get(name) and all(role.caller != name for role in roles)
                )
                for name in sorted(exchanging)
            },
            bound=frozenset(
                name for name, app in self.apps.items() if app.calls and all(call.dpop for call in app.calls)
            ),
            certified=self._certified(calls),
            uncertified=self._uncertified(calls),
            unbound=frozenset(name for name, app in self.apps.items() if any(not call.dpop for call in app.calls)),
            authentication=authentication,
            conflicting=conflicting,
            replaced=frozenset(self.replaced),
        ), tuple(sorted(self.found))

    def _certified(self, calls: Iterable[WantedCall]) -> dict[str, tuple[str, ...]]:
        found: dict[str, set[str]] = {}
        for call in calls:
            if call.on_behalf or call.dpop:  # Keycloak binds no exchanged token to a certificate
                continue
            for receiver in self._called_by(call.audiences):
                if receiver.certificates_only and receiver.only_bound(call.caller):
                    found.setdefault(call.caller, set()).add(receiver.client_id)
        return {caller: tuple(sorted(names)) for caller, names in found.items()}

    def _uncertified(self, calls: Iterable[WantedCall]) -> dict[str, tuple[str, ...]]:
        found: dict[str, set[str]] = {}
        for call in calls:
            if call.on_behalf:
                continue
            refusing = {each.client_id for each in self._called_by(call.audiences) if not each.certificates}
            unknown = {name for name in call.audiences if not self._called_by([name])}
            found.setdefault(call.caller, set()).update(refusing | unknown)
        return {caller: tuple(sorted(names)) for caller, names in found.items() if names}

    def _say(self, level: Severity, text: str) -> None:
        self.found[RealmFinding(level, text)] = None

    def _unique(self, apps: Iterable[AppAccess]) -> dict[str, AppAccess]:
        by_client: dict[str, list[AppAccess]] = {}
        for app in apps:
            same = by_client.setdefault(app.client_id, [])
            if all(app != one or app.client_authentication != one.client_authentication for one in same):
                same.append(app)
        for client_id, same in by_client.items():
            if problem := forbidden_client(client_id, self.realm):
                self._say(
                    Severity.FORBIDDEN,
                    f"An app has the client id {named(client_id)}, and no plan touches it: {problem}.",
                )
            elif len(same) > 1:
                self._say(
                    Severity.FORBIDDEN,
                    f"{len(same)} apps that declare different things have the client id {named(client_id)}: one of them would decide"
                    " who may call the other, so nothing is planned for them. Give each app a client of its own.",
                )
        return {
            client_id: same[0]
            for client_id, same in sorted(by_client.items())
            if len(same) == 1 and not forbidden_client(client_id, self.realm)
        }

    # Clients without a secret

    def _authentication(self, callers: Collection[str]) -> tuple[dict[str, ClientAuthentication], frozenset[str]]:
        """Return how callers prove themselves, and which of them contradict each other: of these nothing is planned."""
        found: dict[str, ClientAuthentication] = {}
        for name, app in self.apps.items():
            if (how := app.client_authentication) is None:
                continue
            if app.calls or name in callers:
                found[name] = how
            else:
                self._say(
                    Severity.NOTE,
                    f"{named(name)} calls nobody, so its client does not log in: client_authentication is not planned.",
                )
        federated = {name: how for name, how in found.items() if isinstance(how, ByFederation)}
        conflicting: set[str] = set()
        for name, how in federated.items():
            for other, its in federated.items():
                mine, theirs = how.provider, its.provider
                if name >= other:
                    continue
                if mine.alias == theirs.alias and mine != theirs:
                    problem = f"describe the identity provider {named(mine.alias)} differently: one of them would decide who proves the other"
                elif mine.alias != theirs.alias and mine.issuer == theirs.issuer:
                    problem = f"have two identity providers for one issuer ({named(mine.alias)}, {named(theirs.alias)}), and Keycloak refuses the second: name the same one"
                elif mine.alias == theirs.alias and how.subject == its.subject:
                    problem = f"have the same subject {named(how.subject)} of {named(mine.alias)}, and Keycloak refuses both, or goes on with the one that it knows"
                else:
                    continue
                conflicting |= {name, other}
                self._say(
                    Severity.FORBIDDEN, f"{named(name)} and {named(other)} {problem}. Nothing is planned for them."
                )
        return {name: how for name, how in found.items() if name not in conflicting}, frozenset(conflicting)

    # The receivers

    def _ways(self, app: AppAccess) -> Iterator[_Way]:
        left = _MOST_WAYS_OF_AN_APP
        for route in app.routes:
            if route.open:
                continue
            parts = tuple(part for part in (app.requires, route.requires) if part is not None)
            requirement = AllOf(parts)
            number = _count(requirement)
            if number > min(left, _MOST_WAYS):
                most = f"more than {_MOST_WAYS} ways" if number > _MOST_WAYS else f"{number} ways"
                beside = (
                    ""
                    if number > _MOST_WAYS
                    else f", which are more than {_MOST_WAYS_OF_AN_APP} with those of the routes before it"
                )
                self._say(
                    Severity.OPEN,
                    f"{named(route.name)} of {named(app.client_id)} can be called in {most}{beside}: nothing is granted for it.",
                )
                continue
            left -= number
            problems = (
                [_contradiction(leaves) for leaves in ways_of(route.requires)] if route.requires is not None else []
            )
            if problems and all(problems):
                self._say(
                    Severity.OPEN,
                    f"Nothing in Keycloak can meet what {named(route.name)} of {named(app.client_id)} requires: {problems[0]}.",
                )
                continue
            for leaves in ways_of(requirement):
                if (way := _way(route, leaves, app.client_id)) is not None:
                    if not way.users:
                        self._beside(way, leaves, app)
                    yield way

    def _beside(self, way: _Way, leaves: Iterable[Requirement], app: AppAccess) -> None:
        """Note what a way requires that no plan can give: claims, and what only the app decides."""
        place = f"{way.route} of {named(app.client_id)}"
        for leaf in leaves:
            if isinstance(leaf, HasClaim):
                values = " or ".join(json.dumps(value, ensure_ascii=False) for value in leaf.values)
                self._say(
                    Severity.NOTE,
                    f"{place} requires the claim {' > '.join(map(named, leaf.path))} with {values}, and no plan writes it: add a mapper to a"
                    " client scope of the caller, or to its own. For a service account that is “Hardcoded claim”.",
                )
            elif isinstance(leaf, Condition):
                name = json.dumps(leaf.name, ensure_ascii=False)
                self._say(Severity.NOTE, f"{place} has the condition {name}, which only its code decides.")

    def _audiences(self) -> frozenset[str]:
        of_calls = (name for app in self.apps.values() for call in app.calls for name in call.audiences)
        return frozenset(of_calls).union(*(receiver.audiences for receiver in self.receivers))

    def _scopes_asked(self) -> frozenset[str]:
        return frozenset(what for what in self.requiring if isinstance(what, str))

    def _called_by(self, reach: Iterable[str]) -> tuple[_Receiver, ...]:
        """Return the receivers that answer to one of the audiences. To the client id of an app that is given, only that app does."""
        return tuple(
            receiver
            for receiver in self.receivers
            if any(
                name in receiver.audiences and (name == receiver.client_id or name not in self.given) for name in reach
            )
        )

    # What an operator grants

    def _take(self, grants: Iterable[str]) -> None:
        of_calls = {name for app in self.apps.values() for call in app.calls for name in call.scopes}
        things: list[_Thing] = [*sorted(self._scopes_asked() | of_calls), *sorted(self._roles_asked())]
        for grant in dict.fromkeys(grants):
            pairs = [(grant[:at], grant[at + 1 :]) for at, char in enumerate(grant) if char == ":"]
            known = [pair for pair in pairs if pair[0] in self.apps]
            if not known:
                self._say(
                    Severity.OPEN,
                    f"--grant {shlex.quote(grant)} names no caller: write CALLER:NAME, with an app whose access file is given.",
                )
                continue
            audiences = [(caller, name) for caller, _ in known for name in sorted(self._audiences())]
            others = [(caller, what) for caller, _ in known for what in things]
            option = f"--grant {shlex.quote(grant)}"
            if replaced := [caller for caller, name in known if name == _AUTHENTICATION]:
                self.replaced.update(name for name in replaced if self.apps[name].client_authentication is not None)
                for name in replaced:
                    if self.apps[name].client_authentication is None:
                        self._say(
                            Severity.OPEN, f"{option}: the access file of {named(name)} has no client_authentication."
                        )
                continue
            exact_audiences = [one for one in audiences if granting(one[0], audience=one[1]) == option]
            exact_others = [one for one in others if granting(*one) == option]
            if not exact_audiences and not exact_others:
                exact_audiences = [one for one in audiences if one in known]
                exact_others = [one for one in others if (one[0], _name(one[1])) in known]
            if len(exact_audiences) + len(exact_others) == 1:
                self.audiences.update(exact_audiences)
                self.by_hand.update(exact_others)
                continue
            forms = [granting(caller, audience=name) for caller, name in exact_audiences]
            forms += [granting(*one) for one in exact_others]
            if forms:
                problem = f"fits more than one thing, so it grants nothing. Write {' or '.join(forms)}"
                self._say(Severity.OPEN, f"{option} {problem}.")
            for _, name in known if not forms else ():
                self._say(
                    Severity.OPEN, f"{option}: no access file declares an audience, a scope or a role {named(name)}."
                )

    def _roles_asked(self) -> frozenset[Role]:
        return frozenset(what for what in self.requiring if isinstance(what, Role))

    # The calls

    def _calls(self, app: AppAccess) -> Iterator[WantedCall]:
        for call in app.calls:
            audiences = tuple(
                name for name in call.audiences if self._audience(app.client_id, name, on_behalf=call.on_behalf)
            )
            if call.on_behalf and not audiences:
                if not call.audiences:  # else the audience has its finding
                    self._say(
                        Severity.OPEN,
                        f"{named(app.client_id)} calls on behalf of users, and names no audience for it: Keycloak would give it tokens that are"
                        " for nobody. Write audience=... in its code.",
                    )
                continue
            gates = [name for name in call.scopes if name in self.requiring or (app.client_id, name) in self.by_hand]
            others = [name for name in call.scopes if name not in gates]
            carriers = tuple(name for name in others if self._carrier(app.client_id, name, call, audiences))
            if audiences or gates or carriers:
                yield WantedCall(
                    caller=app.client_id,
                    audiences=audiences,
                    carriers=carriers,
                    scopes=tuple(gates),
                    on_behalf=call.on_behalf,
                    dpop=call.dpop,
                )

    def _exchange(self, caller: str, calls: Iterable[WantedCall], *, alone: bool) -> WantedExchange:
        own = next((receiver for receiver in self.receivers if receiver.client_id == caller), None)
        audiences = {name for call in calls if call.on_behalf and call.caller == caller for name in call.audiences}
        through = (way.callers or frozenset[str]() for way in (own.ways_of_users if own is not None else ()))
        roles = {
            role
            for receiver in self._called_by(audiences)
            for way in receiver.ways_of_users
            if way.names(caller)
            for role in way.roles
        }
        return WantedExchange(
            caller=caller,
            alone=alone and all(call.on_behalf for call in self.apps[caller].calls),
            through=tuple(sorted(frozenset[str]().union(*through))),
            roles=tuple(sorted(roles)),
        )

    def _audience(self, caller: str, audience: str, *, on_behalf: bool) -> bool:
        who, what = named(caller), named(audience)
        calls = f"calls {what} on behalf of users" if on_behalf else f"calls {what}"
        if problem := forbidden_audience(audience, self.realm):
            self._say(Severity.FORBIDDEN, f"{who} {calls}, and no plan grants that audience: {problem}.")
            return False
        if (caller, audience) in self.audiences:
            self._say(Severity.NOTE, f"{who} gets the audience {what}, because --grant says so.")
            return True
        # An app speaks for its own client id. For another audience it does not let itself in.
        receivers = [one for one in self._called_by([audience]) if audience == one.client_id or one.client_id != caller]
        ways = [self._ways_in(receiver, caller, audience, on_behalf=on_behalf) for receiver in receivers]
        if ways and all(ways):
            if open_ways := [way for each in ways if not any(way.names(caller) for way in each) for way in each]:
                self._say(
                    Severity.NOTE,
                    f"{'ANY USER, THROUGH ANY SERVICE,' if on_behalf else 'ANY SERVICE'} may call {what}: its file names no"
                    f" {'client' if on_behalf else 'caller'} on {_some(way.route for way in open_ways)}. So {who} gets the audience.",
                )
            if audience not in self.given:
                self._say(
                    Severity.NOTE,
                    f"CHECK THIS: no app that is given has the client id {what}, and {listed(one.client_id for one in receivers)} says that it is"
                    f" that audience. So {who} gets it. If another app answers to it, give its access file too.",
                )
            return True
        closed = listed(one.client_id for one, each in zip(receivers, ways, strict=True) if not each)
        refusing = (
            f"no route of {closed} accepts users through {who}. If it may call on their behalf, add it to require_user(...) there; or"
            if on_behalf
            else f"no route of {closed} accepts {who}. If it may call, add it to require_caller(...) there; or"
        )
        why = (
            refusing
            if receivers
            else f"{what} accepts no token with this audience;"
            if audience in self.apps
            else f"no access file of the app that is {what} is given. Give it; or"
        )
        self._say(Severity.OPEN, f"{who} {calls}, and {why} {granting(caller, audience=audience)} grants the audience.")
        return False

    def _ways_in(self, receiver: _Receiver, caller: str, audience: str, *, on_behalf: bool) -> tuple[_Way, ...]:
        """Return the ways for which a token with this audience is of use to the caller."""
        return tuple(
            way
            for way in (receiver.ways_of_users if on_behalf else receiver.ways)
            if audience in way.audiences and (way.names(caller) or self._any_service(way, caller))
        )

    def _any_service(self, way: _Way, caller: str) -> bool:
        """Return whether the way names no caller and requires nothing else, unless an operator granted it to this caller.

        The roles of users are their own, and no plan grants them.
        """
        needed = way.scopes if way.users else (*way.scopes, *way.roles)
        return way.callers is None and all((caller, what) in self.by_hand for what in needed)

    def _carrier(self, caller: str, scope: str, call: CallAccess, audiences: Collection[str]) -> bool:
        """Return whether a scope that the code requests, and that no route requires, may bring the audiences of the call."""
        who, what = named(caller), named(scope)
        if problem := forbidden_scope(scope):
            self._say(Severity.FORBIDDEN, f"{who} requests the scope {what}, and no plan grants it: {problem}.")
            return False
        if audiences:
            return True
        if not call.audiences:  # else the audience has its finding
            self._say(
                Severity.OPEN,
                f"{who} requests the scope {what}, and names no audience for it: {granting(caller, scope)} grants the scope.",
            )
        return False

    # Scopes and roles that routes require

    def _scopes(
        self, calls: Sequence[WantedCall], reach: Mapping[str, frozenset[str]], own: Mapping[str, frozenset[str]]
    ) -> Iterator[WantedScope]:
        requested = {(call.caller, name) for call in calls for name in call.scopes}
        named_with = {
            (caller, name)
            for caller, audiences in own.items()
            for receiver in self._called_by(audiences)
            for way in receiver.ways
            if way.names(caller)
            for name in way.scopes
        }
        on_behalf = {(call.caller, name) for call in calls if call.on_behalf for name in call.scopes}
        by_hand = {(caller, what) for caller, what in self.by_hand if isinstance(what, str)}
        for caller, name in sorted(requested | named_with | by_hand):
            who, what = named(caller), named(name)
            hand = (caller, name) in by_hand
            if problem := forbidden_scope(name):
                self._say(Severity.FORBIDDEN, f"{who} shall have the scope {what}, and no plan grants it: {problem}.")
            elif hand or self._named_everywhere(caller, name, reach, users=(caller, name) in on_behalf):
                if hand:
                    self._say(Severity.NOTE, f"{who} gets the scope {what}, because --grant says so.")
                yield WantedScope(caller=caller, scope=name, optional=(caller, name) in requested, by_hand=hand)
            else:
                wants = "requests" if (caller, name) in requested else "is named for"
                self._say(
                    Severity.OPEN,
                    f"{who} {wants} the scope {what}, and no declaration names both in each other app that requires it"
                    f" ({listed(self.requiring[name])}): write require_caller(...) & require_scope(...) there; or {granting(caller, name)}"
                    " grants the scope.",
                )

    def _named_everywhere(
        self, caller: str, what: _Thing, reach: Mapping[str, frozenset[str]], *, users: bool = False
    ) -> bool:
        """Return whether every other app that requires this names the caller beside it, and the caller can call one of them.

        With `users`, an app that lets in users through the caller names it too.
        """
        others = (one for one in self.receivers if one.client_id != caller)
        naming = {one.client_id for one in others if any(way.names(caller) for way in one.asks(what, users=users))}
        called = {one.client_id for one in self._called_by(reach.get(caller, frozenset()))}
        return not naming.isdisjoint(called) and self.requiring[what] - {caller} <= naming

    def _roles(self, reach: Mapping[str, frozenset[str]]) -> Iterator[WantedRole]:
        asked = {
            (caller, role, receiver.client_id)
            for caller, audiences in reach.items()
            for receiver in self._called_by(audiences)
            for way in receiver.ways
            if way.names(caller)
            for role in way.roles
        }
        by_hand = {(caller, what) for caller, what in self.by_hand if isinstance(what, Role)}
        for caller, role in sorted({(caller, role) for caller, role, _ in asked} | by_hand):
            naming = {receiver for who, what, receiver in asked if (who, what) == (caller, role)}
            owned = not role.client or role.client in naming - {caller}
            who, what = named(caller), _shown(role)
            hand = (caller, role) in by_hand
            if problem := forbidden_role(role, self.realm):
                self._say(Severity.FORBIDDEN, f"{who} shall have {what}, and no plan grants it: {problem}.")
            elif hand or (owned and self._named_everywhere(caller, role, reach)):
                if hand:
                    self._say(Severity.NOTE, f"{who} gets {what}, because --grant says so.")
                yield WantedRole(caller=caller, role=role, by_hand=hand)
            else:
                self._say(
                    Severity.OPEN,
                    f"{listed(naming)} names {who} for {what}, which another app owns or also requires without naming {who}, or for which"
                    f" only the file of {who} names it: {granting(caller, role)} grants the role.",
                )

    def _unnamed(self, scopes: Iterable[WantedScope], roles: Iterable[WantedRole]) -> None:
        """Say which scopes and roles a route requires without naming a caller for them, if nobody is granted them."""
        given: set[str | Role] = {*(each.scope for each in scopes), *(each.role for each in roles)}
        asked: dict[str | Role, dict[str, None]] = {}
        for receiver in self.receivers:
            for way in receiver.ways:
                every: list[str | Role] = [*sorted(way.scopes), *sorted(way.roles)]
                for what in every:
                    if way.callers is None:
                        asked.setdefault(what, {})[f"{way.route} of {named(receiver.client_id)}"] = None
        for what, routes in asked.items():
            if what in given:
                continue
            shown = _shown(what) if isinstance(what, Role) else f"the scope {named(what)}"
            problem = forbidden_role(what, self.realm) if isinstance(what, Role) else forbidden_scope(what)
            if problem:
                self._say(Severity.FORBIDDEN, f"{_some(routes)} requires {shown}, and no plan grants it: {problem}.")
            else:
                self._say(
                    Severity.OPEN,
                    f"{_some(routes)} requires {shown}, and no declaration names a caller beside it: {granting('CALLER', what)} grants it.",
                )


def _way(route: RouteEntry, leaves: Sequence[Requirement], client_id: str) -> _Way | None:
    """Return the way of these plain requirements, or None if nobody can take it."""
    kinds = {leaf.kind for leaf in leaves if isinstance(leaf, Caller)}
    callers: frozenset[str] | None = None
    audiences: frozenset[str] | None = None
    scopes: set[str] = set()
    roles: set[Role] = set()
    for leaf in leaves:
        if isinstance(leaf, Caller):
            if leaf.client_ids:
                callers = leaf.client_ids if callers is None else callers & leaf.client_ids
        elif isinstance(leaf, Audience):
            # One token must meet all of them: what is in each is enough, else it takes several.
            both = leaf.audiences if audiences is None else audiences & leaf.audiences
            audiences = both or (audiences or frozenset()) | leaf.audiences
        elif isinstance(leaf, HasScope):
            scopes |= leaf.scopes
        elif isinstance(leaf, HasRole):
            roles |= {Role("" if leaf.realm else leaf.client or client_id, name) for name in leaf.roles}
        elif not isinstance(leaf, HasClaim | Condition | Bound):
            return None  # a kind that this version does not know: nothing is granted for it
    if (callers is not None and not callers) or len(kinds) > 1:
        return None
    return _Way(
        named(route.name),
        callers,
        audiences or frozenset(),
        frozenset(scopes),
        frozenset(roles),
        bound=any(isinstance(leaf, Bound) for leaf in leaves),
        users="user" in kinds,
    )


def _contradiction(leaves: Iterable[Requirement]) -> str:
    """Return why no token meets all of these plain requirements, as the end of a sentence; "" if one can."""
    every = tuple(leaves)
    callers = [leaf for leaf in every if isinstance(leaf, Caller)]
    if len({leaf.kind for leaf in callers}) > 1:
        return "a token is a service's or a user's, never both"
    named_callers = [leaf.client_ids for leaf in callers if leaf.client_ids]
    if named_callers and not frozenset.intersection(*named_callers):
        return f"a token has one caller, and no one is in all of {', '.join(f'[{listed(names)}]' for names in named_callers)}"
    audiences = [leaf for leaf in every if isinstance(leaf, Audience)]
    if any(leaf.only and leaf.audiences.isdisjoint(other.audiences) for leaf in audiences for other in audiences):
        return "its token must be for one audience only, and also for another one"
    return ""


def accepted_audiences(app: AppAccess) -> frozenset[str]:
    """Return the audiences that an app or one of its routes accepts; none if it receives nothing."""
    if app.requires is None:
        return frozenset()
    every = (app.requires, *(route.requires for route in app.routes if route.requires is not None))
    leaves = (leaf for requirement in every for leaf in leaves_of(requirement))
    return frozenset(name for leaf in leaves if isinstance(leaf, Audience) for name in leaf.audiences)


def _requiring(apps: Iterable[AppAccess]) -> Mapping[_Thing, frozenset[str]]:
    """Return which scopes and roles are required, and by which apps."""
    found: dict[_Thing, frozenset[str]] = {}
    for app in apps:
        for requirement in (app.requires, *(route.requires for route in app.routes)):
            for leaf in leaves_of(requirement):
                for what in _things(leaf, app.client_id):
                    found[what] = found.get(what, frozenset()) | {app.client_id}
    return found


def _things(leaf: Requirement, client_id: str) -> frozenset[_Thing]:
    if isinstance(leaf, HasScope):
        return frozenset(leaf.scopes)
    if isinstance(leaf, HasRole):
        return frozenset(Role("" if leaf.realm else leaf.client or client_id, name) for name in leaf.roles)
    return frozenset()


def _name(what: _Thing) -> str:
    return what.name if isinstance(what, Role) else what


def _count(requirement: Requirement) -> int:
    """Return in how many ways a requirement can be met. A file from elsewhere may join thousands."""
    if isinstance(requirement, AnyOf):
        return sum(map(_count, requirement.parts))
    if isinstance(requirement, AllOf):
        product = 1
        for part in requirement.parts:
            product = min(product * _count(part), _MOST_WAYS + 1)
        return product
    return 1


def _shown(role: Role) -> str:
    return (
        f"the role {named(role.name)} of {named(role.client)}" if role.client else f"the realm role {named(role.name)}"
    )


def _some(names: Iterable[str]) -> str:
    every = list(dict.fromkeys(names))
    more = f" and {len(every) - _MOST_NAMED} more" if len(every) > _MOST_NAMED else ""
    return ", ".join(every[:_MOST_NAMED]) + more
