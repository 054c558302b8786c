"""Whether this process can verify and obtain tokens at present: all of it for its developers, numbers alone for a probe."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Self
from weakref import WeakKeyDictionary

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from s2s_fastapi.caller.shared_token import SharedToken
from s2s_fastapi.caller.token_source import IN_USE
from s2s_fastapi.declared.routes import layers
from s2s_fastapi.errors import ConfigurationError, KeysUnavailable
from s2s_fastapi.fastapi_internals import mounted_app, route_contexts
from s2s_fastapi.receiver.middleware import ServiceAuthMiddleware, middleware_of
from s2s_fastapi.requirement.request_state import KEYS_KEY
from s2s_fastapi.verifier.keys import KeySource

__all__ = ["Health", "KeysHealth", "TokenHealth", "auth_ready", "health"]

_NOT_STARTED: Final = "ServiceAuthMiddleware has not started: it does when the app does, or with the first request."
_ELSEWHERE: Final = (
    "{what} was asked of an app without ServiceAuthMiddleware in which another one is mounted that has it, and would know nothing of its "
    "keys: {cure}."
)

# Apps that only call, and how many routes they had when those were read: that takes milliseconds, and anybody may ask.
_WITHOUT: Final[WeakKeyDictionary[Starlette, int]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysHealth:
    """Keycloak's keys, with which incoming tokens are verified. Times are in seconds."""

    url: str
    """Where they are published."""
    usable: bool
    """Whether tokens can be verified with them."""
    fresh: bool
    """Whether they serve without a renewal on its way."""
    count: int
    """How many there are that can verify a token."""
    age: float | None
    """Since they were asked for; None where there never were any."""
    left: float | None
    """For how long they serve if Keycloak answers no more."""
    last_error: str | None
    """Why the last load failed, if it did."""
    next_try_in: float | None
    """Until Keycloak is asked again, if it is left alone after a failure."""

    @classmethod
    def of(cls, keys: KeySource) -> Self:
        """Return how the keys are, without asking for them."""
        state = keys.state()
        return cls(
            url=keys.url,
            # Not the state's own: what is too old to be served at once is asked for, and served if that fails.
            usable=bool(state.left),
            fresh=state.fresh,
            count=keys.count,
            age=state.age,
            left=state.left,
            last_error=None if state.last_error is None else str(state.last_error),
            next_try_in=state.next_try_in,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenHealth:
    """One token of this process, for the services it calls. Times are in seconds."""

    client_id: str
    """Whose it is."""
    issuer: str
    """The realm that gives it."""
    audiences: tuple[str, ...]
    """For whom it is asked; empty where that was not said."""
    scopes: tuple[str, ...]
    """The scopes that are asked for."""
    usable: bool
    """Whether calls get it without waiting."""
    fresh: bool
    """Whether it serves without a renewal on its way."""
    age: float | None
    """Since it was asked for; None where there never was one."""
    left: float | None
    """For how long it serves if Keycloak answers no more."""
    last_error: str | None
    """Why the last request for it failed, if it did."""
    next_try_in: float | None
    """Until Keycloak is asked again, if it is left alone after a failure."""

    @classmethod
    def of(cls, token: SharedToken) -> Self:
        """Return how the token is, without asking for it."""
        state = token.state()
        return cls(
            client_id=token.client_id,
            issuer=token.issuer,
            audiences=tuple(sorted(token.asked.audiences)),
            scopes=tuple(sorted(token.asked.scopes)),
            usable=bool(state.left),
            fresh=state.fresh,
            age=state.age,
            left=state.left,
            last_error=None if state.last_error is None else str(state.last_error),
            next_try_in=state.next_try_in,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What `health` saw. It holds no token and no secret, but addresses and names: return it from a guarded route only."""

    ready: bool
    """Whether a token could be verified now; always true of an app that only calls."""
    problem: str | None
    """Why the app has not started, if it has not."""
    keys: KeysHealth | None
    """None of an app that only calls, or has not started."""
    tokens: tuple[TokenHealth, ...]
    """Each token this process asks for, the one that was used longest ago first."""


def health(app: Any) -> Health:
    """Return how the keys and the tokens of a running app are: a look at what is there, which never waits and never asks Keycloak.

    ``app`` is the one that `ServiceAuthMiddleware` was added to, the middleware itself, or what is wrapped around it. Tokens belong
    to the process, so all its apps have the same.

    Raises:
        ConfigurationError: ``app`` has no middleware, but one that is mounted in it has.
    """
    door = middleware_of(app)
    problem, keys = None, None
    if isinstance(door, ServiceAuthMiddleware):
        keys = door.keys
        problem = None if keys is not None else door.problem or _NOT_STARTED
    elif door is not None:
        problem = _NOT_STARTED
    elif _is_below(app):
        raise ConfigurationError(_ELSEWHERE.format(what="health", cure="give it that app"))
    known = None if keys is None else KeysHealth.of(keys)
    return Health(
        ready=problem is None and (known is None or known.usable),
        problem=problem,
        keys=known,
        tokens=tuple(map(TokenHealth.of, IN_USE.source.tokens())),
    )


async def auth_ready(request: Request) -> Response:
    """Answer 200 if a token could be verified now, else 503 with ``Retry-After`` (RFC 9110 section 10.2.3).

    An endpoint for FastAPI and Starlette: ``app.add_route("/readyz", auth_ready)``, listed in ``public_paths``. It asks for the keys
    as a request with a token would, so probes bring up a service that has none yet and keep those of an idle one new, and none of
    them takes longer than 3 s. A Keycloak that is down does not count as long as the last keys may serve. Tokens for other services
    are told and do not count. The body holds numbers alone.

    Raises:
        ConfigurationError: It is outside of the middleware whose keys it should ask for.
    """
    keys, retry_after = request.scope.get(KEYS_KEY), None
    if isinstance(keys, KeySource):
        try:
            await keys.aget()
        except KeysUnavailable as error:
            retry_after = error.retry_after
    elif _is_below(request.scope.get("app") or request.scope.get("router")):
        raise ConfigurationError(
            _ELSEWHERE.format(what="auth_ready", cure="put it into that app, and into its public_paths")
        )
    else:
        keys = None
    return JSONResponse(
        {"ready": retry_after is None, "keys": _numbers_of_keys(keys), "tokens": _numbers_of_tokens()},
        status_code=200 if retry_after is None else 503,
        headers={"Cache-Control": "no-store"} | ({} if retry_after is None else {"Retry-After": str(retry_after)}),
    )


def _numbers_of_keys(keys: KeySource | None) -> dict[str, Any] | None:
    if keys is None:
        return None
    age = keys.state().age
    return {"count": keys.count, "age": None if age is None else math.floor(age)}


def _numbers_of_tokens() -> dict[str, int]:
    """Count what can be used, what cannot although it was asked for, and what nobody asked for since it ended."""
    numbers = {"usable": 0, "failing": 0, "idle": 0}
    for token in IN_USE.source.tokens():
        state = token.state()
        numbers["usable" if state.left else "failing" if state.last_error is not None else "idle"] += 1
    return numbers


def _is_below(app: Any) -> bool:
    """Tell whether an app has no middleware of ours, and something that is mounted in it has."""
    routes = len(app.routes) if isinstance(app, Starlette) else None  # a Router cannot be kept
    if routes is not None and _WITHOUT.get(app) == routes:
        return False
    if any(middleware_of(inner) is not None or _is_below(inner) for inner in _inside(app)):
        return True
    if routes is not None:
        _WITHOUT[app] = routes
    return False


def _inside(app: Any) -> Iterator[Any]:
    """Yield the apps that the routes of an app lead to."""
    for layer in layers(app):
        for entry in getattr(getattr(layer, "router", layer), "routes", None) or ():
            for context in route_contexts(entry):
                yield from (
                    inner for inner in (getattr(context, "app", None), mounted_app(context)) if inner is not None
                )
