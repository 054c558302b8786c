"""The access file: what apps declare, as JSON that people review and commands read. See docs/access-file.md.

Writing is deterministic: what means the same is written the same, so a difference in the file is a difference in who may call what.
Reading is strict: a version, a member or a kind of requirement that this module does not know is an error, and never skipped.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import unified_diff
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

from s2s_fastapi.backchannel.strict_json import NotAnObjectError, json_object
from s2s_fastapi.declared.asked import leaves_of, plain
from s2s_fastapi.declared.public_paths import OPTIONAL, PublicPaths
from s2s_fastapi.declared.routes import RouteAccess
from s2s_fastapi.declared.start_check import AccessCheck
from s2s_fastapi.downstream import Downstream
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.keycloak.client_authentication import (
    PROVIDER_KINDS,
    ByCertificate,
    ByFederation,
    ClientAuthentication,
    TrustedProvider,
)
from s2s_fastapi.names import name_problem, scope_problem, url_problem
from s2s_fastapi.requirement.conditions import SCALARS, Condition, HasClaim, only_the_app
from s2s_fastapi.requirement.opened import WEBSOCKET
from s2s_fastapi.requirement.require import require_claim
from s2s_fastapi.requirement.requirement import (
    AllOf,
    AnyOf,
    Audience,
    Bound,
    Caller,
    HasRole,
    HasScope,
    InRealm,
    OptionalOf,
    Requirement,
)
from s2s_fastapi.text import named, printable

__all__ = [
    "SCHEMA",
    "VERSION",
    "AccessFile",
    "AppAccess",
    "CallAccess",
    "RouteEntry",
    "calls_of_others",
    "canonical",
    "difference",
    "downstreams_of",
    "in_one_realm",
]

VERSION: Final = 1
"""The version of the format. It grows with every change that an older reader would not understand."""
ON_BEHALF: Final = "on_behalf"
"""The member of a call that is made on behalf of a user."""
DPOP: Final = "dpop"
"""The member of an app that takes bound tokens, and of a call that is made with one (DPoP, RFC 9449)."""
CLIENT_AUTHENTICATION: Final = "client_authentication"
"""The member of an app whose client has no secret. People write it: no code says it, and commands keep it."""
CLIENT_CERTIFICATE: Final = "client_certificate"
"""The member of an app that takes tokens which are bound to a client certificate (RFC 8705)."""
PUBLIC_URLS: Final = "public_urls"
"""The member of an app that takes bound tokens: where callers reach it."""
SCHEMA: Final = Path(__file__).with_name("access_file.schema.json")
"""The JSON schema of the format."""

_WIDTH: Final = 110
_ANY: Final = "any"
_APART: Final = ("apps", "routes", "calls")
"""The lists whose entries have a line of their own, however short they are."""
_OPTIONS: Final = (CLIENT_AUTHENTICATION, OPTIONAL, DPOP, PUBLIC_URLS, CLIENT_CERTIFICATE)
_DPOP_MODES: Final = ("accepted", "required")
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """One route, and what it requires in addition to what the app requires of every request."""

    path: str
    methods: tuple[str, ...] = ()
    """Empty if the route takes any method, or is a WebSocket."""
    host: str = ""
    websocket: bool = False
    opaque: bool = False
    """True for an ASGI app whose routes cannot be read: everything below ``path``."""
    public: tuple[str, ...] = ()
    """The methods that need no token."""
    optional: tuple[str, ...] = ()
    """The methods for which requests without credentials are accepted, ``WEBSOCKET`` for a WebSocket. Those with credentials are judged."""
    requires: Requirement | None = None

    @classmethod
    def of(cls, route: RouteAccess, check: AccessCheck) -> "RouteEntry":
        """Return what one route of an app declares.

        Raises:
            ConfigurationError: Its requirement is of somebody else's kind.
        """
        methods = tuple(sorted(route.methods))
        readable = not (route.opaque or route.websocket)
        public = tuple(method for method in methods or _METHODS if readable and check.opens(method, route.path))
        optional = tuple(
            method
            for method in ((WEBSOCKET,) if route.websocket else methods or _METHODS)
            if not route.opaque and check.opens_without_credentials(method, route.path)
        )
        requires = None if route.requirement is None else canonical(_owned(route.requirement, check))
        return cls(route.path, methods, route.host, route.websocket, route.opaque, public, optional, requires)

    @property
    def name(self) -> str:
        """The route as one writes it: see `RouteAccess.name`."""
        return RouteAccess(self.path, frozenset(self.methods), host=self.host, websocket=self.websocket).name

    @property
    def open(self) -> bool:
        """Whether no request to it needs a token."""
        return not self.opaque and not self.websocket and set(self.public) >= set(self.methods or _METHODS)

    @property
    def order(self) -> tuple[Any, ...]:
        """Where it stands in the file: routes of one path are beside each other, in whatever order the app has them."""
        return self.host, self.path, self.websocket, self.methods, self.opaque


@dataclass(frozen=True, slots=True)
class CallAccess:
    """A service that the app calls, and the token that it requests for it."""

    audiences: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    origins: tuple[str, ...] = field(default=(), compare=False)
    """Not compared: they differ between a developer's machine and production."""
    on_behalf: bool = False
    """Whether the token is exchanged for that of a user, on whose behalf the app calls."""
    dpop: bool = False
    """Whether the token is bound to a key of the app, and each request carries a proof (RFC 9449)."""

    @property
    def order(self) -> tuple[Any, ...]:
        """Where it stands in the file."""
        return self.audiences, self.scopes, self.on_behalf, self.dpop


@dataclass(frozen=True, slots=True)
class AppAccess:
    """What one app declares."""

    client_id: str
    requires: Requirement | None
    """What the middleware requires of every request that is not public; None if there is no middleware, and nobody is asked for a token."""
    routes: tuple[RouteEntry, ...] = ()
    public_paths: tuple[str, ...] = ()
    """The option of the middleware: also paths that no route answers which can be read."""
    optional_paths: tuple[str, ...] = ()
    """The other option: paths on which requests without credentials are accepted."""
    calls: tuple[CallAccess, ...] = ()
    dpop: Literal["", "accepted", "required"] = ""
    """The option of the middleware: whether bound tokens are accepted or required. Empty: they are refused."""
    client_certificate: bool = False
    """Whether it takes tokens that are bound to a client certificate: the option of the middleware is set, to whichever source."""
    public_urls: tuple[str, ...] = field(default=(), compare=False)
    """Where callers reach the app: the other option. Not compared, as the origins of calls."""
    client_authentication: ClientAuthentication | None = field(default=None, compare=False)
    """How its client proves itself to Keycloak without a secret. Not compared: it differs between environments, and no code says it."""

    @classmethod
    def of(cls, check: AccessCheck, *, middleware: bool = True, issuer: str = "") -> "AppAccess":
        """Return what an app declares, without the calls of `calls_of_others`.

        ``middleware`` is false for an app that only calls others. ``issuer`` is the realm of such an app, if somebody knows it.

        Raises:
            ConfigurationError: Somebody else's kind of requirement is among them, or the function for a base URL failed.
        """
        requires: Requirement | None = None
        if middleware:
            requires = Caller("service") | Caller("user") if check.users else Caller("service")
            audiences = frozenset[str]() if check.skip_audience else check.audiences or check.declared
            requires = requires & Audience(audiences) if audiences else requires
            for realm in check.realms[1:]:
                parts = (Audience(realm.audiences),) if realm.audiences else ()
                kinds = (Caller("service"), Caller("user")) if check.users else (Caller("service"),)
                for kind in kinds:
                    requires = requires | AllOf(tuple(InRealm(realm.issuer, part) for part in (kind, *parts)))
        routes = (RouteEntry.of(route, check) for route in check.access.routes)
        return cls(
            client_id=check.client_id,
            requires=None if requires is None else canonical(requires),
            routes=tuple(sorted(routes, key=lambda route: route.order)),
            public_paths=tuple(sorted({entry.text for entry in check.public.entries})),
            optional_paths=tuple(sorted({entry.text for entry in check.optional.entries})),
            calls=_calls(check, issuer),
            dpop=check.dpop if middleware else "",
            client_certificate=check.certificate and middleware,
            public_urls=tuple(sorted(check.public_urls)) if middleware else (),
        )

    @property
    def further_realms(self) -> tuple[str, ...]:
        """The issuers of the realms, besides the first one, whose callers the app accepts."""
        every = (self.requires, *(route.requires for route in self.routes))
        leaves = (leaf for requirement in every for leaf in leaves_of(requirement))
        return tuple(sorted({leaf.realm for leaf in leaves if isinstance(leaf, InRealm)}))

    def beside(self, issuer: str) -> str:
        """Return whose callers `within` leaves out, for people; empty if it leaves nobody out."""
        further = self.further_realms
        first = ("its first realm",) if issuer in further else ()
        return ", ".join(printable(each, 512) for each in (*first, *further) if each != issuer)

    def within(self, issuer: str) -> "AppAccess":
        """Return what the app declares for callers of one realm: of its first one, unless the issuer is one of the further realms.

        Requirements of other realms are left out, and so are routes that no caller of the realm can meet.
        """
        further = self.further_realms
        if not further:
            return self
        realm = issuer if issuer in further else ""
        requires = None if self.requires is None else _within(self.requires, realm)
        routes = (
            replace(route, requires=None if route.requires is None else _within(route.requires, realm))
            for route in self.routes
            if route.requires is None or _within(route.requires, realm) is not None
        )
        return replace(self, requires=requires, routes=tuple(routes))

    def with_origins_of(self, other: "AppAccess") -> "AppAccess":
        """Return the same with the public URLs of ``other``, and the origins that it has for equal calls."""
        origins = {call: call.origins for call in other.calls}
        calls = tuple(replace(call, origins=origins.get(call, call.origins)) for call in self.calls)
        return replace(
            self,
            calls=calls,
            public_urls=other.public_urls if self.dpop and other.dpop else self.public_urls,
            client_authentication=self.client_authentication or other.client_authentication,
        )


@dataclass(frozen=True, slots=True)
class AccessFile:
    """What one app or several declare."""

    apps: tuple[AppAccess, ...]

    @classmethod
    def read(cls, path: Path) -> "AccessFile":
        """Read a file.

        Raises:
            ConfigurationError: It cannot be read, or is no access file of a version that is known. The text says where.
        """
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"The access file {path} cannot be read: {error.strerror}.") from None
        return cls.parse(raw, source=str(path))

    @classmethod
    def parse(cls, raw: bytes, *, source: str = "the access file") -> "AccessFile":
        """Read the content of a file; errors name ``source``.

        Raises:
            ConfigurationError: As for `read`.
        """
        try:
            content = json_object(raw)
        except NotAnObjectError:
            _fail(source, "", "it is not a JSON object")
        except ValueError as error:
            _fail(source, "", f"it is not JSON with one reading ({error})")
        return _Reader(source).file(content)

    def app(self, client_id: str) -> AppAccess | None:
        """Return the app with this client id, if it is in the file."""
        return next((app for app in self.apps if app.client_id == client_id), None)

    def with_app(self, app: AppAccess) -> "AccessFile":
        """Return the file with this app, in the place of the one with the same client id. How that one authenticates its client stays."""
        if (former := self.app(app.client_id)) is not None and app.client_authentication is None:
            app = replace(app, client_authentication=former.client_authentication)
        others = (each for each in self.apps if each.client_id != app.client_id)
        return AccessFile(tuple(sorted((*others, app), key=lambda each: each.client_id)))

    @property
    def text(self) -> str:
        """The content as it is written: always the same for what means the same."""
        apps = sorted(self.apps, key=lambda each: each.client_id)
        return _text({"version": VERSION, "apps": [_app_json(app) for app in apps]}) + "\n"


def in_one_realm(apps: Iterable[AppAccess], issuer: str = "") -> tuple[tuple[AppAccess, ...], tuple[str, ...]]:
    """Return what apps declare for callers of one realm, and a sentence for each app that also accepts callers of others.

    It is the first realm of each app, unless the issuer is one of its further realms.
    """
    every = tuple(apps)
    notes = (
        f"{named(app.client_id)} also accepts callers of {others}: they are not looked at here."
        for app in every
        if (others := app.beside(issuer))
    )
    return tuple(app.within(issuer) for app in every), tuple(notes)


def calls_of_others(check: AccessCheck, issuer: str = "") -> tuple[str, ...]:
    """Return a sentence for each call whose settings name another realm or client than the app's.

    No access file has such a call: a plan would grant it to the wrong client.

    Raises:
        ConfigurationError: The function for a base URL failed.
    """
    notes = {
        f"{named(check.client_id)} calls {each.target} with settings of its own,"
        f" as the client {named(each.settings.client_id)} of {printable(each.settings.issuer, 512)}: this call is not in the access file,"
        " and no plan grants it."
        for each in downstreams_of(check)
        if each.settings is not None and not _is_own(each, check, issuer)
    }
    return tuple(sorted(notes))


def difference(reviewed: AppAccess, declared: AppAccess, *, name: str) -> str:
    """Return the lines of the file that would change, as ``diff -u`` shows them; empty if both declare the same."""
    if reviewed == declared:
        return ""
    before, after = (AccessFile((app,)).text.splitlines() for app in (reviewed, declared.with_origins_of(reviewed)))
    return "\n".join(unified_diff(before, after, f"{name} (reviewed)", "declared by the app", lineterm="", n=2))


def canonical(requirement: Requirement) -> Requirement:
    """Return an equal requirement in the one form in which it is written: flat, without repetitions, in a fixed order.

    Of a condition only the name is written.

    Raises:
        ConfigurationError: A part of it is of somebody else's kind.
    """
    kind = type(requirement)
    if isinstance(requirement, OptionalOf):  # the route says whether requests without credentials are accepted
        return canonical(requirement.requirement)
    if not isinstance(requirement, AllOf | AnyOf):
        _requirement_json(requirement)  # whether it can be written
        if isinstance(requirement, InRealm):
            return InRealm(requirement.realm, canonical(requirement.requirement))
        return Condition(requirement.name, only_the_app) if isinstance(requirement, Condition) else requirement
    parts: dict[Requirement, None] = {}
    for part in map(canonical, requirement.parts):
        parts.update(dict.fromkeys(part.parts if isinstance(part, AllOf | AnyOf) and type(part) is kind else (part,)))
    ordered = tuple(sorted(parts, key=_order))
    return ordered[0] if len(ordered) == 1 else type(requirement)(ordered)


def _order(requirement: Requirement) -> tuple[int, str, str]:
    ranks: list[type[Requirement]] = [Audience, Bound, Caller, HasScope, HasRole, HasClaim, Condition]
    kind = type(plain(requirement))
    rank = ranks.index(kind) if kind in ranks else len(ranks)
    realm = requirement.realm if isinstance(requirement, InRealm) else ""
    return rank, realm, json.dumps(_requirement_json(requirement), sort_keys=True)


def _within(requirement: Requirement, realm: str) -> Requirement | None:
    """Return what a requirement asks of callers of one realm, the first one if it is empty; None if they cannot meet it."""
    if not isinstance(requirement, AllOf | AnyOf):
        own = requirement.realm if isinstance(requirement, InRealm) else ""
        return plain(requirement) if own == realm else None
    parts = [_within(part, realm) for part in requirement.parts]
    met = tuple(part for part in parts if part is not None)
    if not met or (isinstance(requirement, AllOf) and len(met) < len(parts)):
        return None
    return canonical(type(requirement)(met))


def _owned(requirement: Requirement, check: AccessCheck) -> Requirement:
    """Return the requirement with the app's own client wherever a role is without one, and with the issuer of a realm instead of its name."""
    if isinstance(requirement, OptionalOf):
        return OptionalOf(_owned(requirement.requirement, check))
    if isinstance(requirement, AllOf | AnyOf):
        return type(requirement)(tuple(_owned(part, check) for part in requirement.parts))
    realm, (plain_one,) = check.in_realm((requirement,))
    if realm is None and isinstance(requirement, InRealm):
        return requirement
    requirement = plain_one
    client_id = check.client_id if realm is None else realm.client_id
    if isinstance(requirement, HasRole) and not requirement.realm and requirement.client is None and client_id:
        requirement = replace(requirement, client=client_id)
    return requirement if realm is None or realm in check.realms[:1] else InRealm(realm.issuer, requirement)


def _is_own(downstream: Downstream, check: AccessCheck, issuer: str) -> bool:
    return downstream.is_of(check.client_id, check.realms[0].issuer if check.realms else issuer)


def downstreams_of(check: AccessCheck) -> frozenset[Downstream]:
    """Return whom an app calls.

    Raises:
        ConfigurationError: The function for a base URL failed.
    """
    try:
        return check.access.downstreams
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - the function is the app's own code, and may raise anything
        raise ConfigurationError(
            f"A base URL is a function, and it failed with {type(error).__name__}: the access file cannot name the service that is called."
        ) from None


def _calls(check: AccessCheck, issuer: str) -> tuple[CallAccess, ...]:
    by_token: dict[CallAccess, set[str]] = {}
    for each in downstreams_of(check):
        if _is_own(each, check, issuer):
            by_token.setdefault(_call(each), set()).update(each.origins)
    calls = (replace(call, origins=tuple(sorted(origins))) for call, origins in by_token.items())
    return tuple(sorted(calls, key=lambda call: call.order))


def _call(downstream: Downstream) -> CallAccess:
    return CallAccess(
        tuple(sorted(downstream.audiences)),
        tuple(sorted(downstream.scopes)),
        on_behalf=downstream.on_behalf,
        dpop=downstream.dpop,
    )


# Writing


def _app_json(app: AppAccess) -> dict[str, Any]:
    return {
        "client_id": app.client_id,
        **(
            {CLIENT_AUTHENTICATION: _authentication_json(app.client_authentication)}
            if app.client_authentication is not None
            else {}
        ),
        "requires": None if app.requires is None else _requirement_json(app.requires),
        "public_paths": list(app.public_paths),
        **({"optional_paths": list(app.optional_paths)} if app.optional_paths else {}),
        **({DPOP: app.dpop, PUBLIC_URLS: list(app.public_urls)} if app.dpop else {}),
        **({CLIENT_CERTIFICATE: True} if app.client_certificate else {}),
        "routes": [_route_json(route) for route in app.routes],
        "calls": [_call_json(call) for call in app.calls],
    }


def _authentication_json(authentication: ClientAuthentication) -> dict[str, Any]:
    if isinstance(authentication, ByCertificate):
        names = {"subject_dn": authentication.subject_dn, "issuer_dn": authentication.issuer_dn}
        return {"method": "tls_client_auth", **names}
    provider = authentication.provider
    return {
        "method": "federated_jwt",
        "provider": provider.alias,
        "type": provider.kind,
        "issuer": provider.issuer,
        **({"keys": provider.keys} if provider.keys else {}),
        "subject": authentication.subject,
    }


def _call_json(call: CallAccess) -> dict[str, Any]:
    lists = {"audiences": list(call.audiences), "scopes": list(call.scopes), "origins": list(call.origins)}
    return {**lists, **({ON_BEHALF: True} if call.on_behalf else {}), **({DPOP: True} if call.dpop else {})}


def _route_json(route: RouteEntry) -> dict[str, Any]:
    members: dict[str, Any] = {
        "path": route.path,
        "methods": list(route.methods),
        "host": route.host,
        "websocket": route.websocket,
        "opaque": route.opaque,
        "public": list(route.public),
        "optional": list(route.optional),
        "requires": None if route.requires is None else _requirement_json(route.requires),
    }
    return {name: value for name, value in members.items() if value}


def _requirement_json(requirement: Requirement) -> dict[str, Any]:
    kind = type(requirement)
    if isinstance(requirement, InRealm):
        return {**_requirement_json(requirement.requirement), "realm": requirement.realm}
    if isinstance(requirement, AllOf | AnyOf) and kind in (AllOf, AnyOf):
        return {"and" if kind is AllOf else "or": [_requirement_json(part) for part in requirement.parts]}
    if isinstance(requirement, Caller) and kind is Caller:
        name = "user" if requirement.kind == "user" else "caller" if requirement.client_ids else "service"
        return {name: sorted(requirement.client_ids) or _ANY}
    if isinstance(requirement, HasScope) and kind is HasScope:
        return {"scope": sorted(requirement.scopes)}
    if isinstance(requirement, HasRole) and kind is HasRole:
        owner = {} if requirement.realm or requirement.client is None else {"client": requirement.client}
        return {"realm_role" if requirement.realm else "role": sorted(requirement.roles), **owner}
    if isinstance(requirement, Audience) and kind is Audience:
        return {"audience": sorted(requirement.audiences), **({"only": True} if requirement.only else {})}
    if isinstance(requirement, Bound) and kind is Bound:
        return {"bound": True}
    if isinstance(requirement, HasClaim) and kind is HasClaim:
        return {"claim": list(requirement.path), "values": list(requirement.values)}
    if isinstance(requirement, Condition) and kind is Condition:
        return {"condition": requirement.name}
    raise ConfigurationError(
        f"The access file has no form for {kind.__name__}, a requirement of your own: write the route with require_...(...), or leave the app out."
    )


def _text(value: Any, indent: str = "", used: int = 0, name: str = "") -> str:
    """Return JSON in which each route, and each entry of a list that is too long for a line, has a line of its own.

    So a route or a caller that is added changes one line.
    """
    line = json.dumps(value, ensure_ascii=False)
    apart = name in _APART or (isinstance(value, dict) and "routes" in value)
    whole = not value or not isinstance(value, (dict, list, tuple))  # a long name is no list of characters
    if whole or (len(indent) + used + len(line) <= _WIDTH and not apart):
        return line
    inner = f"{indent}  "
    if isinstance(value, dict):
        named = ((f"{json.dumps(key)}: ", key, member) for key, member in value.items())
        members = [inner + key + _text(member, inner, len(key) + 1, name) for key, name, member in named]
        return "{\n" + ",\n".join(members) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _text(member, inner, 1) for member in value) + f"\n{indent}]"


# Reading


def _fail(source: str, where: str, problem: str) -> NoReturn:
    raise ConfigurationError(f"{source}: {f'{where}: ' if where else ''}{problem}.")


_Leaf = Callable[["_Reader", str, Mapping[str, Any]], Requirement]


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one file, and says where something is wrong."""

    source: str

    def file(self, content: Mapping[str, Any]) -> AccessFile:
        version = content.get("version")
        if version != VERSION or isinstance(version, bool):
            newer = isinstance(version, int) and version > VERSION
            cure = "update s2s-fastapi" if newer else "it is no access file, or not one of this package"
            _fail(self.source, "version", f"it is {json.dumps(version)}, and this s2s-fastapi reads {VERSION}: {cure}")
        self._members("", content, required=("version", "apps"))
        apps = tuple(self._app(where, each) for where, each in self._list("apps", content["apps"]))
        if not apps:
            _fail(self.source, "apps", "it is empty")
        seen: set[str] = set()
        for index, app in enumerate(apps):
            if app.client_id in seen:
                _fail(self.source, f"apps[{index}].client_id", f"{json.dumps(app.client_id)} is there twice")
            seen.add(app.client_id)
        return AccessFile(apps)

    def _app(self, where: str, content: Any) -> AppAccess:
        required = ("client_id", "requires", "public_paths", "routes", "calls")
        self._members(where, content, required=required, optional=_OPTIONS)
        dpop = self._dpop(where, content)
        routes = [self._route(at, each) for at, each in self._list(f"{where}.routes", content["routes"])]
        calls = [self._call(at, each) for at, each in self._list(f"{where}.calls", content["calls"])]
        return AppAccess(
            client_id=self._name(f"{where}.client_id", content["client_id"]),
            requires=self._requires(f"{where}.requires", content["requires"]),
            public_paths=self._paths(where, content, "public_paths"),
            optional_paths=self._paths(where, content, OPTIONAL),
            routes=tuple(sorted(routes, key=lambda route: route.order)),
            calls=tuple(sorted(calls, key=lambda call: call.order)),
            dpop=dpop,
            client_certificate=self._client_certificate(where, content),
            public_urls=tuple(sorted(self._texts(f"{where}.{PUBLIC_URLS}", content.get(PUBLIC_URLS, [])))),
            client_authentication=self._authentication(f"{where}.{CLIENT_AUTHENTICATION}", content),
        )

    def _authentication(self, where: str, content: Mapping[str, Any]) -> ClientAuthentication | None:
        if CLIENT_AUTHENTICATION not in content:
            return None
        found = content[CLIENT_AUTHENTICATION]
        made: ClientAuthentication
        match found.get("method") if isinstance(found, dict) else None:
            case "federated_jwt":
                required = ("method", "provider", "type", "issuer", "subject")
                self._members(where, found, required=required, optional=("keys",))
                kind = next((kind for kind in PROVIDER_KINDS if kind == found["type"]), None)
                if kind is None:
                    _fail(self.source, f"{where}.type", f"it is one of {', '.join(PROVIDER_KINDS)}")
                provider = TrustedProvider(
                    alias=self._name(f"{where}.provider", found["provider"]),
                    kind=kind,
                    issuer=self._text(f"{where}.issuer", found["issuer"]),
                    keys=self._text(f"{where}.keys", found.get("keys", "")),
                )
                made = ByFederation(provider=provider, subject=self._name(f"{where}.subject", found["subject"]))
            case "tls_client_auth":
                self._members(where, found, required=("method", "subject_dn", "issuer_dn"))
                made = ByCertificate(
                    subject_dn=self._name(f"{where}.subject_dn", found["subject_dn"]),
                    issuer_dn=self._name(f"{where}.issuer_dn", found["issuer_dn"]),
                )
            case _:
                _fail(
                    self.source,
                    where,
                    'its method is "federated_jwt" or "tls_client_auth"; a client with a secret has none',
                )
        if made.problem:
            _fail(self.source, where, made.problem)
        return made

    def _dpop(self, where: str, content: Mapping[str, Any]) -> Literal["", "accepted", "required"]:
        if DPOP not in content:
            if PUBLIC_URLS in content:
                _fail(self.source, f"{where}.{PUBLIC_URLS}", f"it stands beside {DPOP}")
            return ""
        if content["requires"] is None:
            _fail(self.source, f"{where}.{DPOP}", "an app without a middleware takes no tokens")
        for mode in _DPOP_MODES:
            if content[DPOP] == mode:
                return mode
        _fail(self.source, f"{where}.{DPOP}", 'it is "accepted" or "required", or left out')

    def _client_certificate(self, where: str, content: Mapping[str, Any]) -> bool:
        if CLIENT_CERTIFICATE not in content:
            return False
        if content[CLIENT_CERTIFICATE] is not True:
            _fail(self.source, f"{where}.{CLIENT_CERTIFICATE}", "it is true or left out")
        if content["requires"] is None:
            _fail(self.source, f"{where}.{CLIENT_CERTIFICATE}", "an app without a middleware takes no tokens")
        return True

    def _paths(self, where: str, content: Mapping[str, Any], option: str) -> tuple[str, ...]:
        paths = self._texts(f"{where}.{option}", content.get(option, []))
        try:
            PublicPaths(paths, option)
        except ConfigurationError as error:
            _fail(self.source, f"{where}.{option}", str(error).removesuffix("."))
        return tuple(sorted(set(paths)))

    def _route(self, where: str, content: Any) -> RouteEntry:
        members = ("methods", "host", "websocket", "opaque", "public", "optional", "requires")
        self._members(where, content, required=("path",), optional=members)
        for flag in ("websocket", "opaque"):
            if flag in content and content[flag] is not True:
                _fail(self.source, f"{where}.{flag}", "it is true or left out")
        methods = self._texts(f"{where}.methods", content.get("methods", []))
        public = self._texts(f"{where}.public", content.get("public", []))
        optional = self._texts(f"{where}.optional", content.get("optional", []))
        if (public or methods) and "websocket" in content:
            _fail(self.source, where, "a WebSocket has no methods, and is never public")
        every = (WEBSOCKET,) if "websocket" in content else tuple(sorted(methods)) or _METHODS
        for name, those in (("public", public), ("optional", optional)):
            if lost := sorted(set(those) - set(every)):
                _fail(self.source, f"{where}.{name}", f"{lost[0]} is no method of the route")
        if both := sorted(set(public) & set(optional)):
            _fail(self.source, where, f"{both[0]} is public and optional, and a method is one of them at most")
        path = self._text(f"{where}.path", content["path"])
        if path[:1] not in ("", "/"):
            _fail(self.source, f"{where}.path", "it does not begin with a slash")
        return RouteEntry(
            path=path,
            methods=tuple(sorted(methods)),
            host=self._text(f"{where}.host", content.get("host", "")),
            websocket="websocket" in content,
            opaque="opaque" in content,
            public=tuple(method for method in every if method in public),
            optional=tuple(method for method in every if method in optional),
            requires=self._requires(f"{where}.requires", content.get("requires")),
        )

    def _call(self, where: str, content: Any) -> CallAccess:
        self._members(where, content, required=("audiences", "scopes", "origins"), optional=(ON_BEHALF, DPOP))
        for flag in (ON_BEHALF, DPOP):
            if flag in content and content[flag] is not True:
                _fail(self.source, f"{where}.{flag}", "it is true or left out")
        return CallAccess(
            audiences=tuple(sorted(self._names(f"{where}.audiences", content["audiences"], least=0))),
            scopes=tuple(sorted(self._names(f"{where}.scopes", content["scopes"], scope_problem, least=0))),
            origins=tuple(sorted(self._texts(f"{where}.origins", content["origins"]))),
            on_behalf=ON_BEHALF in content,
            dpop=DPOP in content,
        )

    def _requires(self, where: str, content: Any) -> Requirement | None:
        return None if content is None else canonical(self.requirement(where, content))

    def requirement(self, where: str, content: Any) -> Requirement:
        """Read one requirement, and those that it joins."""
        if not isinstance(content, dict) or not content:
            _fail(self.source, where, 'a requirement is an object such as {"caller": ["billing"]}')
        kind = next(iter(content))
        if kind in ("and", "or"):
            self._members(where, content, required=(kind,))
            parts = tuple(self.requirement(at, each) for at, each in self._list(f"{where}.{kind}", content[kind]))
            if len(parts) < 2:  # noqa: PLR2004 - one is no choice, and nothing would be met by everybody or nobody
                _fail(self.source, f"{where}.{kind}", "it joins at least two requirements")
            return AllOf(parts) if kind == "and" else AnyOf(parts)
        if "realm" in content:
            within = {name: value for name, value in content.items() if name != "realm"}
            if not within or next(iter(within)) in ("and", "or"):
                _fail(self.source, f"{where}.realm", "it stands beside a plain requirement")
            return InRealm(self._issuer(f"{where}.realm", content["realm"]), self.requirement(where, within))
        leaf = next((_LEAVES[name] for name in content if name in _LEAVES), None)
        if leaf is None:
            known = ", ".join((*_LEAVES, "and", "or"))
            _fail(self.source, where, f"{json.dumps(kind)} is no requirement that this s2s-fastapi knows ({known})")
        return leaf(self, where, content)

    def _issuer(self, where: str, content: Any) -> str:
        if (problem := url_problem(content)) if isinstance(content, str) else "it is not text":
            _fail(self.source, where, f"it is no issuer: {problem}" if isinstance(content, str) else "it is not text")
        return str(content)

    def caller(self, where: str, content: Mapping[str, Any]) -> Requirement:
        self._members(where, content, required=("caller",))
        return Caller("service", self._names(f"{where}.caller", content["caller"]))

    def service(self, where: str, content: Mapping[str, Any]) -> Requirement:
        self._members(where, content, required=("service",))
        if content["service"] != _ANY:
            _fail(self.source, f"{where}.service", f'it is "{_ANY}": for services by name write caller')
        return Caller("service")

    def user(self, where: str, content: Mapping[str, Any]) -> Requirement:
        self._members(where, content, required=("user",))
        clients = content["user"]
        return Caller("user", frozenset() if clients == _ANY else self._names(f"{where}.user", clients))

    def scope(self, where: str, content: Mapping[str, Any]) -> Requirement:
        self._members(where, content, required=("scope",))
        return HasScope(self._names(f"{where}.scope", content["scope"], scope_problem))

    def role(self, where: str, content: Mapping[str, Any]) -> Requirement:
        self._members(where, content, required=("role",), optional=("client",))
        client = self._name(f"{where}.client", content["client"]) if "client" in content else None
        return HasRole(self._names(f"{where}.role", content["role"]), client)

    def realm_role(self, where: str, content: Mapping[str, Any]) -> Requirement:
        self._members(where, content, required=("realm_role",))
        return HasRole(self._names(f"{where}.realm_role", content["realm_role"]), realm=True)

    def audience(self, where: str, content: Mapping[str, Any]) -> Requirement:
        self._members(where, content, required=("audience",), optional=("only",))
        if "only" in content and content["only"] is not True:
            _fail(self.source, f"{where}.only", "it is true or left out")
        return Audience(self._names(f"{where}.audience", content["audience"]), "only" in content)

    def bound(self, where: str, content: Mapping[str, Any]) -> Requirement:
        self._members(where, content, required=("bound",))
        if content["bound"] is not True:
            _fail(self.source, f"{where}.bound", "it is true: leave the requirement out if the token need not be bound")
        return Bound()

    def claim(self, where: str, content: Mapping[str, Any]) -> Requirement:
        self._members(where, content, required=("claim", "values"))
        path = [self._name(at, each) for at, each in self._list(f"{where}.claim", content["claim"])]
        values = [each for _, each in self._list(f"{where}.values", content["values"])]
        if len({(type(each), each) for each in values if type(each) in SCALARS}) != len(values):
            _fail(self.source, f"{where}.values", "a value is there twice, or is no text, number, true or false")
        try:
            return require_claim(tuple(path), *values)
        except ConfigurationError as error:
            return _fail(self.source, where, str(error).removesuffix("."))

    def condition(self, where: str, content: Mapping[str, Any]) -> Requirement:
        self._members(where, content, required=("condition",))
        return Condition(self._name(f"{where}.condition", content["condition"]), only_the_app)

    def _members(self, where: str, content: Any, *, required: Iterable[str], optional: Iterable[str] = ()) -> None:
        if not isinstance(content, dict):
            _fail(self.source, where, "it is not an object")
        required = tuple(required)
        known = (*required, *optional)
        for name in content:
            if name not in known:
                _fail(self.source, where, f"the member {json.dumps(name)} is unknown here (known: {', '.join(known)})")
        for name in required:
            if name not in content:
                _fail(self.source, where, f"the member {json.dumps(name)} is missing")

    def _list(self, where: str, content: Any) -> Iterator[tuple[str, Any]]:
        if not isinstance(content, list):
            _fail(self.source, where, "it is not a list")
        yield from ((f"{where}[{index}]", each) for index, each in enumerate(content))

    def _text(self, where: str, content: Any) -> str:
        if not isinstance(content, str):
            _fail(self.source, where, "it is not text")
        return content

    def _texts(self, where: str, content: Any) -> list[str]:
        texts = [self._text(at, each) for at, each in self._list(where, content)]
        if len(set(texts)) != len(texts):
            _fail(self.source, where, "an entry is there twice")
        return texts

    def _name(self, where: str, content: Any, problem: Callable[[object], str] = name_problem) -> str:
        if found := problem(content):
            _fail(self.source, where, f"it is no name: {found}")
        return str(content)

    def _names(
        self, where: str, content: Any, problem: Callable[[object], str] = name_problem, *, least: int = 1
    ) -> frozenset[str]:
        names = [self._name(at, each, problem) for at, each in self._list(where, content)]
        if len(names) < least:
            _fail(self.source, where, "it is empty: without a name it could mean nobody or everybody")
        if len(set(names)) != len(names):
            _fail(self.source, where, "a name is there twice")
        return frozenset(names)


_LEAVES: Final[Mapping[str, _Leaf]] = {
    "audience": _Reader.audience,
    "service": _Reader.service,
    "caller": _Reader.caller,
    "user": _Reader.user,
    "scope": _Reader.scope,
    "role": _Reader.role,
    "realm_role": _Reader.realm_role,
    "bound": _Reader.bound,
    "claim": _Reader.claim,
    "condition": _Reader.condition,
}
"""Every kind of requirement and what reads it.

One that is added here also needs a place in `_requirement_json`, `_order`, the schema and, after a release, a new version; in ``testing/caller_tokens.py`` and
``testing/attack/permits.py`` (which token meets it); in ``declared/asked.py``, ``declared/openapi_operation.py``, ``operations/wanted.py`` and
``operations/relations.py``.
"""
