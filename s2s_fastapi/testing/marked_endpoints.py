"""A marker in the place of every endpoint of an app: a test sees that a request got there, and runs nothing of the app's own.

What still runs, because requests pass it on the way:

- the middleware of the app, of its mounts and of its routes, custom route classes of FastAPI, and exception handlers;
- every requirement of ours, asked by FastAPI as a dependency or by a guard, as in production;
- what ``app.dependency_overrides`` puts in the place of a requirement.

What does not run: endpoints, mounted apps whose routes cannot be read, decorators around Starlette endpoints, the app's own
dependencies, and the validation of parameters and bodies.
"""

import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from fastapi import Security
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Router
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.declared.asked import asked_by
from s2s_fastapi.declared.compare import guards_around
from s2s_fastapi.declared.late_routes import behind
from s2s_fastapi.declared.routes import OWN_AUTHENTICATION, RouteAccess, layers, read_access, router_below
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.fastapi_internals import gives, original_route, unwatched
from s2s_fastapi.requirement.guard import Guarded
from s2s_fastapi.requirement.request_state import SCOPE_KEY, Authenticated
from s2s_fastapi.requirement.require import current_principal
from s2s_fastapi.requirement.requirement import Requirement
from s2s_fastapi.telemetry.located import located
from s2s_fastapi.telemetry.spans import INVALID_SPAN

__all__ = ["MARKED_HEADER", "Marker", "Reached", "marked_endpoints"]

MARKED_HEADER: Final = "x-s2s-marked"
"""On the answer of the marker. A test goes by `Marker.reached` all the same: an app may drop or fake a header."""
_Note = Callable[[Scope], None]
_TWICE: Final = (
    "The endpoints of this app are marked already: leave the first marked_endpoints block before you enter another one."
)
_MARK: Final = "__s2s_marked__"
_PARAMETERS: Final = ("path_params", "query_params", "header_params", "cookie_params", "body_params")


@dataclass(frozen=True, slots=True)
class Reached:
    """A request that came to the place of an endpoint."""

    method: str
    """``WEBSOCKET`` for one."""
    route: str
    """The declared path of the route, with the mounts above it, as a `Decision` names it."""
    path: str
    client_id: str = ""
    """Who was calling; empty if no middleware of ours accepted a token for the request."""
    entry: Any = field(default=None, compare=False, repr=False)
    """What runs the route: the ``entry`` of its `RouteAccess`."""


@dataclass(slots=True)
class Marker:
    """What is in the place of the endpoints while `marked_endpoints` is open."""

    marked: list[RouteAccess] = field(default_factory=list)
    unmarked: list[RouteAccess] = field(default_factory=list)
    """The routes that could not be marked: a request there may run the app's own code, so do not send one."""
    reached: list[Reached] = field(default_factory=list)
    """Every request that came through, in order."""

    def note(self, entry: Any, scope: Scope) -> None:
        """Note that a request came through to ``entry``."""
        state = scope.get(SCOPE_KEY)
        client_id = state.principal.client_id if isinstance(state, Authenticated) else ""
        where = located(Decision(reason=Reason.ALLOWED), scope, INVALID_SPAN)
        self.reached.append(Reached(where.method, where.route, scope["path"], client_id, entry))


@contextmanager
def marked_endpoints(app: Any, *, run_dependencies: bool = False) -> Iterator[Marker]:
    """Put a marker in the place of every endpoint of ``app``, and take all of them out again whatever happens.

    Use it inside of ``issuer.trusted_by(app)``, after the app has started. While it is open, nothing of the app works.

    - The marker answers 200. `Marker.reached` says which requests came to it.
    - ``run_dependencies=True`` runs the app's own dependencies of FastAPI: for an app whose dependencies authenticate.

    Raises:
        ConfigurationError: The app is marked already.
    """
    marker = Marker()
    with ExitStack() as undo:
        routes = undo.enter_context(_claimed(app))
        exchange = _Exchange(undo)
        for route in routes:
            note = partial(marker.note, route.entry)
            marked = _mark(route, app, note, exchange, run_dependencies=run_dependencies)
            (marker.marked if marked else marker.unmarked).append(route)
        yield marker


_LOCK: Final = threading.Lock()
_CLAIMED: Final[dict[int, Any]] = {}
"""What runs the routes that are marked now, in whatever thread, by identity."""


@contextmanager
def _claimed(app: Any) -> Iterator[tuple[RouteAccess, ...]]:
    """Return the routes of an app, which nobody else marks inside of the block: two threads would put back each other's markers.

    Raises:
        ConfigurationError: Somebody marks one of them.
    """
    with _LOCK:
        routes = read_access(app).routes
        claims = {id(entry): entry for entry in (app if route.entry is None else route.entry for route in routes)}
        if not claims.keys().isdisjoint(_CLAIMED):
            raise ConfigurationError(_TWICE)
        _CLAIMED.update(claims)
    try:
        yield routes
    finally:
        with _LOCK:
            for claim in claims:
                del _CLAIMED[claim]


def _mark(route: RouteAccess, app: Any, note: _Note, exchange: "_Exchange", *, run_dependencies: bool) -> bool:
    """Put the marker into one route; return whether that was possible."""
    entry = route.entry
    if route.opaque:
        return _mark_opaque(entry, app, note, exchange)
    dependant = getattr(entry, "dependant", None)
    if dependant is not None:
        if not run_dependencies:
            _skip_dependencies(dependant, exchange)
        trees = getattr(original_route(entry), "routes", None)  # FastAPI's frontend()
        if trees is not None:
            for tree in trees:
                exchange(tree, "app", _Files(tree.app, note))
            return True
        _replace_call(dependant, note, exchange, websocket=route.websocket)
        return True
    endpoint, holder = entry.endpoint, entry
    while holder.app is not endpoint and type(holder.app) is not Guarded and hasattr(holder.app, "app"):
        holder = holder.app  # a middleware of the route
    exchange(holder, "app", _behind(tuple(guards_around(endpoint)), _Place(holder.app, note)))
    return True


def _mark_opaque(entry: Any, app: Any, note: _Note, exchange: "_Exchange") -> bool:
    """Put the marker in the place of an app whose routes cannot be read, inside of the guards around it."""
    if isinstance(entry, Router):
        guards = tuple(guards_around(behind(entry.default)))
        exchange(entry, "default", _behind(guards, _Place(behind(entry.default), note)))
        return True
    top = app if entry is None else entry.app
    if router_below(top) is not None:
        return False  # code in front of routes that can be read: the marker would hide the routes
    holder, base = entry, getattr(entry, "_base_app", None)
    for layer in layers(top):
        inner = getattr(layer, "app", None)
        if type(layer) is Guarded or getattr(layer, OWN_AUTHENTICATION, False) or (inner is not None and inner is base):
            holder = layer
    if holder is None:
        return False
    exchange(holder, "app", _Place(holder.app, note))
    return True


def _behind(guards: tuple[Requirement, ...], place: "_Place") -> Any:
    """Return the marker behind guards, the first of them outermost. Each is made by our own code, as the guard that it replaces."""
    guarded: Any = place
    for requirement in reversed(guards):
        guarded = Guarded(guarded, requirement)
    if guards:
        setattr(guarded, _MARK, True)
    return guarded


def _skip_dependencies(dependant: Any, exchange: "_Exchange") -> None:
    for dependency in dependant.dependencies:
        _skip_dependencies(dependency, exchange)
        call = unwatched(dependency.call)
        if asked_by(call) is None and call is not current_principal:
            _clear(dependency, exchange)
            exchange(dependency, "call", _Nothing(dependency.dependencies))


def _replace_call(dependant: Any, note: _Note, exchange: "_Exchange", *, websocket: bool) -> None:
    _clear(dependant, exchange)
    exchange(dependant, "websocket_param_name" if websocket else "request_param_name", "connection")
    exchange(dependant, "call", _websocket_call(note) if websocket else _CALLS[gives(dependant.call)](note))


def _clear(dependant: Any, exchange: "_Exchange") -> None:
    for name in _PARAMETERS:
        exchange(dependant, name, [])


class _Nothing:
    """In the place of a dependency of the app's own. It needs the same dependencies, because a requirement may be among them.

    If an app has ``dependency_overrides``, FastAPI reads the signature of every dependency anew at each request.
    """

    __s2s_marked__ = True

    def __init__(self, dependencies: Iterable[Any]) -> None:
        keyword = inspect.Parameter.KEYWORD_ONLY
        self.__signature__ = inspect.Signature(
            [
                inspect.Parameter(
                    each.name or f"dependency_{number}",
                    keyword,
                    default=Security(each.call, scopes=each.own_oauth_scopes or (), use_cache=each.use_cache),
                )
                for number, each in enumerate(dependencies)
            ]
        )

    async def __call__(self, **_: Any) -> None:
        """Do nothing."""


class _Exchange:
    """Attributes that are set now, and set back when the block ends."""

    def __init__(self, undo: ExitStack) -> None:
        self._undo = undo
        self._ours: set[tuple[int, str]] = set()

    def __call__(self, holder: Any, name: str, value: Any) -> None:
        before = getattr(holder, name)
        if getattr(before, _MARK, False) and (id(holder), name) not in self._ours:
            raise ConfigurationError(_TWICE)
        self._ours.add((id(holder), name))
        own = name in getattr(holder, "__dict__", (name,))
        self._undo.callback(*((setattr, holder, name, before) if own else (delattr, holder, name)))
        setattr(holder, name, value)


class _Place:
    """An ASGI app in the place of another one, which it keeps: the reading of late routes sees what it stands for."""

    __s2s_marked__ = True

    def __init__(self, app: Any, note: _Note) -> None:
        self.app = app
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._note(scope)
        if scope["type"] == "websocket":
            await _accept(WebSocket(scope, receive, send))
        else:
            await _answer()(scope, receive, send)


class _Files:
    """In the place of the files of FastAPI's ``frontend()``."""

    __s2s_marked__ = True

    def __init__(self, app: Any, note: _Note) -> None:
        self.app = app
        self._note = note

    async def get_response_for_scope(self, scope: Scope) -> Response:
        self._note(scope)
        return _answer()


def _answer() -> Response:
    return PlainTextResponse("", headers={MARKED_HEADER: "1"})


async def _accept(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


# FastAPI decides when it reads a route how to call its endpoint, so there is one marker for each way.


def _websocket_call(note: _Note) -> Callable[..., Any]:
    async def marked(connection: WebSocket, **_: Any) -> None:
        note(connection.scope)
        await _accept(connection)

    return _marked(marked)


def _coroutine_call(note: _Note) -> Callable[..., Any]:
    async def marked(connection: Request, **_: Any) -> Response:
        note(connection.scope)
        return _answer()

    return _marked(marked)


def _function_call(note: _Note) -> Callable[..., Any]:
    def marked(connection: Request, **_: Any) -> Response:
        note(connection.scope)
        return _answer()

    return _marked(marked)


def _generator_call(note: _Note) -> Callable[..., Any]:
    def marked(connection: Request, **_: Any) -> Iterator[Any]:
        note(connection.scope)
        yield from ()

    return _marked(marked)


def _async_generator_call(note: _Note) -> Callable[..., Any]:
    async def marked(connection: Request, **_: Any) -> AsyncIterator[Any]:
        note(connection.scope)
        for never in tuple[Any, ...]():
            yield never

    return _marked(marked)


def _marked(call: Callable[..., Any]) -> Callable[..., Any]:
    setattr(call, _MARK, True)
    return call


_CALLS: Final[dict[str, Callable[[_Note], Callable[..., Any]]]] = {
    "coroutine": _coroutine_call,
    "function": _function_call,
    "generator": _generator_call,
    "async generator": _async_generator_call,
}
