"""What must be true of an app before it serves. If a mistake would leave a route unprotected, the app does not start.

The check walks in this order: `routes` reads the routes; `written` finds the requirements in their code; `asked` finds those that
FastAPI asks; `compare` takes the difference; `sentences` words it. This module compares the whole app with its settings.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from starlette.convertors import FloatConvertor, IntegerConvertor, StringConvertor, UUIDConvertor
from starlette.routing import compile_path

from s2s_fastapi.declared.asked import covers, leaves_of, plain, ways_of
from s2s_fastapi.declared.callables import line_of
from s2s_fastapi.declared.late_routes import FailingRoute
from s2s_fastapi.declared.public_paths import DOCS, OPTIONAL, PublicPath, PublicPaths, Unanswered, unanswered
from s2s_fastapi.declared.routes import Access, RouteAccess
from s2s_fastapi.declared.sentences import Mistake
from s2s_fastapi.fastapi_internals import path_pattern
from s2s_fastapi.requirement.opened import WEBSOCKET
from s2s_fastapi.requirement.requirement import (
    AllOf,
    Audience,
    Bound,
    Caller,
    HasRole,
    HasScope,
    InRealm,
    OptionalOf,
    Requirement,
)
from s2s_fastapi.text import listed

__all__ = ["AccessCheck", "RealmAccess", "bounded"]

_MOST: Final = 20
"""Routes that a sentence names."""
_NONE: Final = PublicPaths()
_WHO: Final = (Caller,)
_WHO_OR_WHAT: Final = (Caller, HasRole, HasScope)
_ONE_SEGMENT: Final = (StringConvertor, IntegerConvertor, FloatConvertor, UUIDConvertor)


@dataclass(frozen=True, slots=True, kw_only=True)
class RealmAccess:
    """A realm whose tokens an app accepts."""

    name: str
    """What ``realm=`` calls it."""
    issuer: str
    audiences: frozenset[str]
    client_id: str
    """The app's own client in this realm; it may have none."""


@dataclass(frozen=True, slots=True)
class AccessCheck:
    """The declarations of one app against the settings of its middleware."""

    access: Access
    public: PublicPaths
    audiences: frozenset[str]
    """The audiences of the settings. If it is empty, the routes must declare them."""
    client_id: str
    users: bool
    skip_audience: bool
    optional: PublicPaths = _NONE
    """The paths on which requests without credentials are accepted."""
    realms: tuple[RealmAccess, ...] = ()
    """All realms, the first one first; empty if nobody said which."""
    unchecked: frozenset[str] = frozenset()
    """Names of routes whose mistakes do not stop the start: see ``insecure_unchecked``."""
    dpop: Literal["", "accepted", "required"] = ""
    """Whether bound tokens are accepted, beside bearer tokens or alone."""
    public_urls: tuple[str, ...] = ()
    """Where callers reach the app."""
    certificate: bool = False
    """Whether tokens that are bound to a client certificate are accepted."""

    @property
    def declared(self) -> frozenset[str]:
        """The audiences that the routes declare."""
        every = (leaf for route in self.access.routes for leaf in leaves_of(route.requirement))
        leaves = (
            plain(leaf) for leaf in every if not isinstance(leaf, InRealm) or self._realm(leaf.realm) in self.realms[:1]
        )
        return frozenset(name for leaf in leaves if isinstance(leaf, Audience) for name in leaf.audiences)

    def opens(self, method: str, path: str) -> bool:
        """Return whether every request for ``path``, as a route declares it, is public."""
        return self.public.open_whole(method, path)

    def opens_without_credentials(self, method: str, path: str) -> bool:
        """Return whether every request for ``path`` without credentials is accepted, and one with credentials is judged."""
        return self.optional.open_whole(method, path)

    def ways(self, requirement: Requirement | None) -> list[tuple[Requirement, ...]]:
        """Return every way in which a token of this app can meet a requirement. Each way is plain requirements that must all be met."""
        return [way for way in ways_of(requirement) if not self._contradiction(way)]

    def in_realm(self, way: Iterable[Requirement]) -> tuple[RealmAccess | None, tuple[Requirement, ...]]:
        """Return of which realm a token that meets all of these is, and what is required of it there.

        The realm is None if the requirements are of several realms, of an unknown one, or if no realm is known at all.
        """
        way = tuple(way)
        named = {leaf.realm if isinstance(leaf, InRealm) else "" for leaf in way}
        found = {self._realm(name) for name in named}
        return (found.pop() if len(found) == 1 else None if found else self._realm("")), tuple(map(plain, way))

    def _realm(self, name: str) -> RealmAccess | None:
        if not name:
            return next(iter(self.realms), None)
        return next((realm for realm in self.realms if name in (realm.name, realm.issuer)), None)

    def issuer_of(self, name: str) -> str:
        """Return the issuer of the realm that a requirement names; empty for the first one."""
        realm = self._realm(name)
        return "" if realm is None or realm in self.realms[:1] else realm.issuer

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each mistake that would accept a caller the code does not allow, or refuse every caller."""
        guarded = [route for route in self.access.routes if not self._is_public(route)]
        yield from _sentences(
            (route, mistake)
            for route in self.access.routes
            for mistake in (
                *(mistake for mistake in self._mistakes(route) if self._stops(route, mistake)),
                *self._impossible(route),
            )
        )
        yield from self._public_problems()
        yield from self._optional_problems()
        yield from self._unknown_realms()
        yield from self._never_bound()
        if len(self.realms) > 1 and not self.users:
            yield from _uncovered(
                guarded,
                _WHO,
                "settings=[...] accepts tokens of several realms, so every route that is not public must say who may call it: "
                f'require_caller(...) speaks of the first realm, require_caller(..., realm="{self.realms[1].name}") of another. Missing on',
            )
        if self.users:
            yield from _uncovered(
                guarded,
                _WHO,
                "users=True accepts users as well as services, so every route that is not public must say who may call it: "
                "require_service(), require_caller(...), require_user(...), or require_service() | require_user(). Missing on",
            )
        if self.skip_audience:
            yield from _uncovered(
                guarded,
                _WHO_OR_WHAT,
                "insecure_skip_audience accepts tokens meant for other services, so every route that is not public must require a "
                "caller, a scope or a role. Missing on",
            )
        elif not self.audiences:
            yield from _uncovered(
                guarded,
                (Audience,),
                "Set KEYCLOAK_CLIENT_ID or KEYCLOAK_AUDIENCE, or give every route that is not public a require_audience(...). Missing on",
            )

    def _unknown_realms(self) -> Iterator[str]:
        if not self.realms:
            return
        found: dict[str, list[str]] = {}
        for route in self.access.routes:
            for leaf in leaves_of(route.requirement):
                if isinstance(leaf, InRealm) and self._realm(leaf.realm) is None:
                    found.setdefault(leaf.realm, []).append(route.name)
        for name, routes in found.items():
            known = listed(realm.name for realm in self.realms)
            yield (
                f"{bounded(routes)}: no settings of this service have the name {listed([name])} (known: {known}). Write another realm=, or give the "
                f"settings of that realm this name: KeycloakSettings(name={json.dumps(name)})."
            )

    def _never_bound(self) -> Iterator[str]:
        """Yield a problem if a route requires a bound token and the app accepts none: every caller would be refused."""
        routes = [
            route.name
            for route in self.access.routes
            if not (self.dpop or self.certificate)
            and any(isinstance(plain(leaf), Bound) for leaf in leaves_of(route.requirement))
        ]
        if routes:
            yield (
                f"{bounded(routes)}: require_bound() needs an app that accepts bound tokens. Write "
                'ServiceAuthMiddleware(dpop="accepted", public_url="https://...") with the URL at which callers reach this app,'
                " or client_certificate=... if callers use client certificates."
            )

    def way_out(self) -> Iterator[str]:
        """Yield a sentence that says how to start anyway, if mistakes on routes stop the start."""
        stopped = dict.fromkeys(
            route.name
            for route in self.access.routes
            for mistake in self._mistakes(route)
            if self._stops(route, mistake)
        )
        if stopped:
            names = ", ".join(json.dumps(name) for name in stopped)
            yield (
                f"Only if this check is wrong about a route: ServiceAuthMiddleware(..., insecure_unchecked=[{names}]) starts the app in "
                "spite of it, and each start logs a warning."
            )

    def open_routes(self) -> Iterator[str]:
        """Yield the name of each route that is not public and has no requirement of its own."""
        yield from dict.fromkeys(
            route.name for route in self.access.routes if route.requirement is None and not self._is_public(route)
        )

    def optional_routes(self) -> Iterator[str]:
        """Yield the name of each route that accepts requests without credentials."""
        yield from dict.fromkeys(
            route.name
            for entry in self.optional.entries
            for method in entry.methods
            for route in self._reached(entry, method)
        )

    def failing(self) -> Iterator[FailingRoute]:
        """Yield each route that by itself would stop the start."""
        for route in self.access.routes:
            alone = replace(route, mistakes=tuple(self._mistakes(route)))
            problems = list(replace(self, access=Access((alone,))).problems())
            if problems:
                yield FailingRoute(route.name, route.entry, " ".join(problems))

    def _mistakes(self, route: RouteAccess) -> Iterator[Mistake]:
        """Yield the mistakes on a route, except attributes of a class that FastAPI asks on another route of the class."""
        if not route.mistakes:
            return
        asked = frozenset(key for each in self.access.routes for key in each.shared)
        kits = frozenset(holder for holder, _ in asked)
        for mistake in route.mistakes:
            if mistake.shared in asked or (mistake.requirement is not None and self._asks_anyway(mistake.requirement)):
                continue
            # A class with an attribute that is asked somewhere holds the others for routes that this app may not have.
            kit = mistake.shared is not None and mistake.shared[0] in kits
            yield replace(mistake, certain=False) if kit else mistake

    def _stops(self, route: RouteAccess, mistake: Mistake) -> bool:
        if not mistake.certain or route.name in self.unchecked or (mistake.unless_public and self._is_public(route)):
            return False
        return self.users or not mistake.override

    def warnings(self) -> Iterator[str]:
        """Yield a warning for everything that works as written but may not be meant."""
        yield from self._warnings_of_mistakes()
        shadowed = [f"{route.name} by {earlier.name}" for route, earlier in self._shadowed()]
        if shadowed:
            yield (
                "The first route that fits a path answers it, so these requirements are never checked. Add the route with the narrower path first: "
                f"{bounded(shadowed)}."
            )
        names = [
            route.name
            for route in self.access.routes
            if route.missed is not None
            and route.requirement is None
            and not self._is_public(route)
            and not self._asks_anyway(route.missed)
        ]
        yield from map(str, self.unanswered())
        yield from self._never_optional()
        if names:
            yield (
                "FastAPI asks the dependencies of an app or a router on its own routes only, not on what is mounted nor on plain "
                "Starlette routes. Any caller that the middleware accepts may call, unless a guard or a dependency of its own is put "
                f"on each: {', '.join(dict.fromkeys(names))}."
            )

    def _shadowed(self) -> Iterator[tuple[RouteAccess, RouteAccess]]:
        """Yield each route with a requirement that an earlier route hides, with that earlier route, if it requires less."""
        plain: dict[str, list[RouteAccess]] = {}
        templates: list[tuple[re.Pattern[str], RouteAccess]] = []
        for route in self.access.routes:
            if route.requirement is not None and not route.opaque:
                earlier = [
                    *plain.get(route.path, ()),
                    *(one for pattern, one in templates if pattern.fullmatch(route.path)),
                ]
                first = next((one for one in earlier if _takes_from(one, route)), None)
                asked = () if first is None or first.requirement is None else (first.requirement,)
                if first is not None and not covers(asked, route.requirement):
                    yield route, first
            plain.setdefault(route.path, []).append(route)
            if "{" in route.path and not route.opaque:
                templates.append((path_pattern(route.path), route))

    def _warnings_of_mistakes(self) -> Iterator[str]:
        # What many routes share, such as a table of policies, is reported once.
        doubtful = {
            mistake.everywhere or (route.name, mistake): f"{_located(route, mistake)}: {mistake.text}"
            for route in reversed(self.access.routes)
            for mistake in reversed(tuple(self._mistakes(route)))
            if not self._stops(route, mistake) and route.name not in self.unchecked
        }
        if doubtful:
            yield f"FastAPI does not ask these requirements; your code may ask them itself: {bounded(reversed(doubtful.values()), '; ')}."
        known = {route.name for route in self.access.routes}
        if self.unchecked:
            lost = sorted(self.unchecked - known)
            yield (
                f"insecure_unchecked is on: mistakes on {', '.join(sorted(self.unchecked))} do not stop the start, and the requirements "
                "written there may not be asked." + (f" No route has the name {', '.join(lost)}." if lost else "")
            )

    def _never_optional(self) -> Iterator[str]:
        """Yield a warning if ``.optional()`` is written, and no path is optional for it."""
        standing: dict[OptionalOf, list[RouteAccess]] = {}
        for route in self.access.routes:
            for part in _parts(route):
                if isinstance(part, OptionalOf):
                    standing.setdefault(part, []).append(route)
        used = set(self.optional_routes())
        for requirement, routes in standing.items():
            if used.isdisjoint(route.name for route in routes):
                yield (
                    f"{requirement} stands on {bounded(route.name for route in routes)}, and none of them is in optional_paths, so it is the "
                    f'plain requirement: add "{_entry_for(routes[0])}" to optional_paths, or leave .optional() out.'
                )

    def unanswered(self) -> Iterator[Unanswered]:
        """Yield the public and the optional paths that no route answers and that are worth a warning."""
        for paths, opens in ((self.public, self.opens), (self.optional, self.opens_without_credentials)):
            for entry in paths.entries:
                if not any(True for method in entry.methods for _ in self._reached(entry, method)):
                    found = unanswered(entry, self.access.routes, opens)
                    if found is not None:
                        yield found

    def _asks_anyway(self, requirement: Requirement) -> bool:
        return any(all(self._anyway(leaf) for leaf in way) for way in ways_of(requirement))

    def _anyway(self, leaf: Requirement) -> bool:
        """Return whether the middleware accepts only callers that meet ``leaf``."""
        if isinstance(leaf, Caller):
            return leaf.kind == "service" and not leaf.client_ids and not self.users
        if isinstance(leaf, Audience):
            accepted = self.audiences or self.declared
            return not leaf.only and not self.skip_audience and accepted <= leaf.audiences
        return isinstance(leaf, Bound) and self.dpop == "required"

    def _is_public(self, route: RouteAccess) -> bool:
        methods = route.methods or {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
        return not route.opaque and not route.websocket and all(self.opens(method, route.path) for method in methods)

    def _public_problems(self) -> Iterator[str]:
        for entry in self.public.entries:
            opened = self._opened(entry)
            requiring = [route for route in opened if route.requirement is not None and not route.guarded_above]
            yield from _others(entry, opened, requiring)
            for route in opened:
                if route.optional_principal:
                    yield (
                        f"public_paths opens {opened[route]}, but {route.name} takes OptionalPrincipal, and on a public path nobody looks who "
                        "is calling: write the path in optional_paths instead."
                    )
            for route in requiring:
                yield (
                    f"public_paths opens {opened[route]}, but {route.name} carries a requirement, its own or that of a "
                    "router or app around it: remove one of the two. A requirement of all other routes stands on a router without this one."
                )

    def _optional_problems(self) -> Iterator[str]:
        optional: set[RouteAccess] = set()
        for entry in self.optional.entries:
            if any(self.opens(method, entry.path) for method in entry.methods):
                yield f"{entry.text} stands in public_paths and in optional_paths: remove one of the two."
                continue
            opened = self._opened(entry)
            optional |= opened.keys()
            # Behind a template, another route may come first for some paths. If it requires a caller, it stays closed.
            closed = [route for route in opened if not _is_optional(route)]
            yield from _others(entry, opened, closed)
            for route in (route for route in closed if entry.template is None or route.path == entry.path):
                plain_ones = [part for part in _parts(route) if not isinstance(part, OptionalOf)]
                whole = plain_ones[0] if len(plain_ones) == 1 else AllOf(tuple(plain_ones))
                who = f"the requirement {whole}" if plain_ones else "CurrentPrincipal"
                cure = str(whole.optional()) if plain_ones else "OptionalPrincipal"
                yield (
                    f"optional_paths has {opened[route]}, but {route.name} has {who}, its own or that of a router or app around it, "
                    f"and no request without credentials meets it: write {cure}, or remove the path."
                )
        for route in self.access.routes:
            if route.optional_principal and route not in optional:
                yield (
                    f"{route.name} takes OptionalPrincipal, but is not in optional_paths, so the principal is never None: add "
                    f'"{_entry_for(route)}" to optional_paths, or take CurrentPrincipal.'
                )

    def _opened(self, entry: PublicPath) -> dict[RouteAccess, str]:
        """Return the routes that requests for an entry can reach, each with a method and a path that reach it."""
        opened: dict[RouteAccess, str] = {}
        for method in sorted(entry.methods):
            for route in self._reached(entry, method):
                opened.setdefault(route, f"{method} {entry.path}")
        return opened

    def _reached(self, entry: PublicPath, method: str) -> Iterator[RouteAccess]:
        """Yield the routes that a public request, or one without credentials, can reach.

        The router takes the first one that fits. A template fits many paths, and up to the route it was copied from each may have
        another first one.
        """
        for route in self.access.routes:
            if _meet(entry, method, route):
                yield route
                if not (route.host or route.opaque) and (entry.template is None or route.path == entry.path):
                    return

    def _impossible(self, route: RouteAccess) -> Iterator[Mistake]:
        """Yield what is wrong with a route if no token can meet its requirement, or no user can call it although it calls on behalf of one."""
        at = line_of(getattr(route.entry, "endpoint", None))
        if route.acts_for_user and (problem := self._without_user(route)):
            yield Mistake(f"it calls on behalf of the user who called it (on_behalf), and {problem}", at)
        ways = [] if route.requirement is None else ways_of(route.requirement)
        problems = [self._contradiction(way) for way in ways]
        owners = {
            self.client_id if realm is None else realm.client_id
            for realm, leaves in map(self.in_realm, ways)
            if any(map(_own_role, leaves))
        }
        if "" in owners:
            problems = ["require_role needs client=... or KEYCLOAK_CLIENT_ID to know whose role it is"]
        if problems and "" not in problems:
            yield Mistake(f"no token of this app can meet its requirement: {problems[0]}", at)

    def _without_user(self, route: RouteAccess) -> str:
        """Return why no user can call a route, and what to write instead; nothing if one can."""
        if not self.users:
            return "the middleware accepts only services (to accept users as well, write users=True in ServiceAuthMiddleware(...))"
        if self._is_public(route):
            return "it is public, so nobody knows the user: take it out of public_paths"
        if all(
            any(isinstance(leaf, Caller) and leaf.kind == "service" for leaf in map(plain, way))
            for way in ways_of(route.requirement)
        ):
            return (
                f"its requirement {route.requirement} accepts only services (to accept users, write require_user(...); a service calls as itself,"
                " with the client without on_behalf)"
            )
        return ""

    def _contradiction(self, way: Collection[Requirement]) -> str:
        """Return why no token can meet all of these plain requirements, and what to write instead; nothing if one can."""
        realm, leaves = self.in_realm(way)
        unknown = [leaf.realm for leaf in way if isinstance(leaf, InRealm) and self._realm(leaf.realm) is None]
        if unknown:
            return f"nobody knows the realm {listed(unknown)} here"
        if realm is None and any(isinstance(leaf, InRealm) for leaf in way):
            either = " | ".join(dict.fromkeys(map(str, way)))
            return f"a token is of one realm, and these are of several: {either}. Name the same realm= in all of them, or join them with |"
        if realm is not None and realm not in self.realms[:1]:
            return replace(self, audiences=realm.audiences, client_id=realm.client_id)._contradiction_in_realm(leaves)  # noqa: SLF001 - itself
        return self._contradiction_in_realm(leaves)

    def _contradiction_in_realm(self, way: Collection[Requirement]) -> str:
        callers = [leaf for leaf in way if isinstance(leaf, Caller)]
        kinds = {leaf.kind for leaf in callers}
        if len(kinds) > 1:
            either = " | ".join(dict.fromkeys(map(str, callers)))
            return f"a token is a service's or a user's, never both. To accept either, write one Depends({either})"
        if "user" in kinds and not self.users:
            return "the middleware accepts only services (to accept users as well, write users=True in ServiceAuthMiddleware(...))"
        named = [leaf.client_ids for leaf in callers if leaf.client_ids]
        if named and not frozenset.intersection(*named):
            any_of_them = Caller(callers[0].kind, frozenset[str]().union(*named))
            return (
                f"a token has one caller, and no one is in all of {', '.join(f'[{listed(names)}]' for names in named)}. To accept each of "
                f"them, write one Depends({any_of_them})"
            )
        audiences = [leaf for leaf in way if isinstance(leaf, Audience)]
        for leaf in audiences:
            if self.audiences and self.audiences.isdisjoint(leaf.audiences):
                return (
                    f"it asks for a token for {listed(leaf.audiences, ' or ')}, and this app accepts only {listed(self.audiences)}. Take "
                    f"{leaf} out, or add the audience to KEYCLOAK_AUDIENCE or audience=[...]"
                )
        for leaf in audiences:
            if leaf.only and any(leaf.audiences.isdisjoint(other.audiences) for other in audiences):
                return "its token must be for one audience only, and also for another one. Take only=True or the other audience out"
        return ""


def _own_role(leaf: Requirement) -> bool:
    return isinstance(leaf, HasRole) and not leaf.realm and not leaf.client


def _takes_from(earlier: RouteAccess, later: RouteAccess) -> bool:
    """Return whether a route takes requests that a later one is for, if both fit the path."""
    methods = (earlier.methods & later.methods) - {"HEAD"} or not (earlier.methods and later.methods)
    return bool(methods) and earlier.websocket == later.websocket and earlier.host in ("", later.host)


def _sentences(found: Iterable[tuple[RouteAccess, Mistake]]) -> Iterator[str]:
    """Yield a sentence for each mistake, with all routes that have it."""
    routes: dict[str, list[str]] = {}
    for route, mistake in found:
        routes.setdefault(mistake.text, []).append(_located(route, mistake))
    for text, names in routes.items():
        yield f"{bounded(names)}: {text}."


def _located(route: RouteAccess, mistake: Mistake) -> str:
    return f"{route.name} ({mistake.at})" if mistake.at else route.name


def bounded(names: Iterable[str], joint: str = ", ", most: int = _MOST) -> str:
    """Return names as one text, and how many more there are after the first ``most``."""
    names = list(dict.fromkeys(names))
    return joint.join([*names[:most], *([f"and {len(names) - most} more"] if len(names) > most else [])])


def _uncovered(routes: Collection[RouteAccess], kinds: tuple[type[Requirement], ...], sentence: str) -> Iterator[str]:
    """Yield ``sentence`` with the routes that some caller can reach without a requirement of one of ``kinds``."""
    bare = [
        route
        for route in routes
        if not all(any(isinstance(plain(leaf), kinds) for leaf in way) for way in ways_of(route.requirement))
    ]
    names = [
        route.name
        + (
            " (an app whose routes cannot be read: mount a requirement's .guard(app) instead of the app)"
            if route.opaque
            else ""
        )
        for route in bare
    ]
    pages = (
        " FastAPI's documentation is among them: write public_paths=[*DOCS] to publish it, or FastAPI(openapi_url=None) to switch it off."
        if any(route.path in DOCS for route in bare)
        else ""
    )
    if names:
        yield f"{sentence}: {', '.join(names)}.{pages}"


def _meet(entry: PublicPath, method: str, route: RouteAccess) -> bool:
    """Return whether one request could be for both an entry and a route as declared."""
    if route.websocket is not (method == WEBSOCKET) and not route.opaque:
        return False
    if route.methods and method not in route.methods:
        return False
    declared = route.path.rstrip("/") + "/{path:path}" if route.opaque else route.path
    if entry.template is None:
        return path_pattern(declared).fullmatch(entry.path) is not None
    return declared == entry.path or _overlap(declared, entry.path)


def _others(entry: PublicPath, opened: Mapping[RouteAccess, str], requiring: Collection[RouteAccess]) -> Iterator[str]:
    """Yield what is wrong with a template that opens more than the route it was copied from."""
    others = [route for route in opened if route.path != entry.path and route not in requiring]
    if others and entry.template is not None:
        names, kind = bounded(route.name for route in others), "optional" if entry.option == OPTIONAL else "public"
        yield f"{entry.option} opens {opened[others[0]]}, and with it {names}: write the {kind} paths out one by one."


def _is_optional(route: RouteAccess) -> bool:
    """Return whether a route asks nothing of a request without credentials."""
    return not route.current_principal and all(isinstance(part, OptionalOf) for part in _parts(route))


def _parts(route: RouteAccess) -> tuple[Requirement, ...]:
    """Return everything that is required on a route, one by one."""
    required = route.requirement
    return required.parts if isinstance(required, AllOf) else () if required is None else (required,)


def _entry_for(route: RouteAccess) -> str:
    """Return how a route is written in `optional_paths`."""
    method = WEBSOCKET if route.websocket else min(route.methods - {"HEAD"}, default="GET")
    return route.path if method == "GET" else f"{method} {route.path}"


def _overlap(one: str, other: str) -> bool:
    """Return whether some path fits both templates; true if that cannot be excluded."""
    left, right = one.split("/"), other.split("/")
    for each, its in zip(left, right, strict=False):
        if _takes_slashes(each) or _takes_slashes(its):
            return True
        literal, template = sorted((each, its), key=lambda segment: "{" in segment)
        if "{" not in literal and compile_path(f"/{template}")[0].fullmatch(f"/{literal}") is None:
            return False
    return len(left) == len(right)


def _takes_slashes(segment: str) -> bool:
    return any(not isinstance(convertor, _ONE_SEGMENT) for convertor in compile_path(f"/{segment}")[2].values())
