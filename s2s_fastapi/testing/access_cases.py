"""What access tests try on each route of an app: computed from what the app declares, before any request is sent."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from s2s_fastapi.decision import Reason
from s2s_fastapi.declared.access_file import AppAccess, RouteEntry
from s2s_fastapi.fastapi_internals import path_pattern
from s2s_fastapi.requirement.requirement import Requirement
from s2s_fastapi.testing.attack.samples import with_path_parameters
from s2s_fastapi.testing.caller_tokens import (
    CallerToken,
    count_ways,
    refused_tokens,
    satisfying_tokens,
    undecided_conditions,
)

__all__ = ["AccessCase", "access_cases", "path_to"]

T = TypeVar("T")

_MOST_WAYS: Final = 50
_ANY_METHOD: Final = ("GET", "POST")
"""What is tried on a route that takes every method."""
_BELOW: Final = "s2s-example"
"""What is asked for below an app whose routes cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessCase:
    """One kind of request to one route."""

    route: RouteEntry
    what: str
    """Who asks, as it stands in the name of the test."""
    methods: tuple[str, ...] = ()
    """``WEBSOCKET`` for a WebSocket."""
    token: CallerToken | None = None
    """None for a request without one."""
    reason: Reason = Reason.ALLOWED
    """What must be decided."""
    beside: CallerToken | None = None
    """The token of a caller who may; None if the request needs no token."""
    not_tried: str = ""
    """Why no request is sent."""

    @property
    def name(self) -> str:
        """The name of the test, the same in every process."""
        return f"{self.route.name}: {self.what}"


def access_cases(app: AppAccess, *, bound: bool = False) -> list[AccessCase]:
    """Return the cases of an app, each with a name of its own. ``bound``: it accepts only tokens that are bound to a key."""
    cases = [case for route in app.routes for case in _of_route(route, app.requires, bound=bound)]
    return [*cases, *_public_paths_elsewhere(app)]


def _of_route(route: RouteEntry, around: Requirement | None, *, bound: bool) -> Iterator[AccessCase]:
    if path_to(route) is None:
        yield AccessCase(route=route, what="not tried", not_tried="No value for the parameters of its path is known.")
        return
    methods = ("WEBSOCKET",) if route.websocket else route.methods or (() if route.opaque else _ANY_METHOD) or ("GET",)
    public = tuple(method for method in methods if method in route.public)
    guarded = tuple(method for method in methods if method not in route.public)
    if around is None:
        yield AccessCase(route=route, what="open to everybody", methods=methods)
        return
    if public:
        yield AccessCase(route=route, what="open without a token", methods=public)
    if not guarded:
        return
    whole = around if route.requires is None else around & route.requires
    if count_ways(whole) > _MOST_WAYS:
        problem = f"Its requirement can be met in more than {_MOST_WAYS} ways."
        yield AccessCase(route=route, what="not tried", not_tried=problem)
        return
    tokens = satisfying_tokens(whole, bound=bound)
    conditions = undecided_conditions(whole)
    for name in conditions:
        problem = (
            f'Only the app can tell whether a caller meets the condition "{name}": test it with requests of your own.'
        )
        yield AccessCase(route=route, what=f'not tried: condition "{name}"', not_tried=problem)
    if not tokens and conditions:
        return
    if not tokens:
        yield AccessCase(route=route, what="not tried", not_tried="No token can meet its requirement.")
        return
    for what, token in _numbered(("the right caller", token) for token in tokens):
        yield AccessCase(route=route, what=what, methods=guarded, token=token, beside=token)
    optional = tuple(method for method in guarded if method in route.optional)
    if optional:
        yield AccessCase(route=route, what="open without credentials", methods=optional)
    closed = tuple(method for method in guarded if method not in route.optional)
    if closed:
        yield AccessCase(route=route, what="no token", methods=closed, reason=Reason.NO_CREDENTIALS, beside=tokens[0])
    for what, each in _numbered((each.what, each) for each in refused_tokens(whole, bound=bound)):
        yield AccessCase(
            route=route, what=what, methods=guarded, token=each.token, reason=each.reason, beside=each.beside
        )


def _public_paths_elsewhere(app: AppAccess) -> Iterator[AccessCase]:
    """Yield the public paths that no route answers which can be read: below a mount, or of a middleware."""
    for text in app.public_paths:
        method, _, path = text.rpartition(" ")
        methods = (method,) if method else ("GET",)
        if not any(route.path == path and route.public for route in app.routes):
            entry = RouteEntry(path=path, methods=methods, public=methods)
            yield AccessCase(route=entry, what="open without a token", methods=methods)


def path_to(route: RouteEntry) -> str | None:
    """Return a path that leads to a route; None if no value for one of its parameters is known."""
    path = with_path_parameters(route.path) or "/"
    if route.opaque:
        return f"{path.rstrip('/')}/{_BELOW}"
    return path if path_pattern(route.path or "/").fullmatch(path) else None


def _numbered(named: Iterable[tuple[str, T]]) -> Iterator[tuple[str, T]]:
    """Yield the same, with a number after each name that was there before."""
    seen: dict[str, int] = {}
    for name, value in named:
        seen[name] = number = seen.get(name, 0) + 1
        yield (name if number == 1 else f"{name} ({number})"), value
