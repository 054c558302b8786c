"""Whether this process can verify and get tokens at present: all details for developers, only numbers for a probe."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Self
from weakref import WeakKeyDictionary

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from s2s_fastapi.caller.shared_token import SharedToken
from s2s_fastapi.caller.token_source import IN_USE
from s2s_fastapi.declared.routes import layers
from s2s_fastapi.errors import ConfigurationError, KeysUnavailable
from s2s_fastapi.fastapi_internals import mounted_app, route_contexts
from s2s_fastapi.receiver.middleware import ServiceAuthMiddleware, middleware_of
from s2s_fastapi.requirement.request_state import VERIFIER_KEY
from s2s_fastapi.verifier.keys import KeySource
from s2s_fastapi.verifier.realms import RealmsVerifier
from s2s_fastapi.verifier.verifier import Verifier

__all__ = ["Health", "KeysHealth", "TokenHealth", "auth_ready", "health"]

_NOT_STARTED: Final = "ServiceAuthMiddleware has not started: it starts with the app, or with the first request."
_ELSEWHERE: Final = (
    "{what} was called for an app without ServiceAuthMiddleware. An app that is mounted in it has the middleware, and only that app has the "
    "keys: {cure}."
)

# Apps that only call, and how many routes they had when we read them: reading takes milliseconds, and probes are not authenticated.
_WITHOUT: Final[WeakKeyDictionary[Starlette, int]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysHealth:
    """The state of the keys of one realm, which verify incoming tokens. Times are in seconds."""

    issuer: str
    """The realm that the keys belong to."""
    url: str
    """The address of the keys."""
    usable: bool
    """Whether tokens can be verified with the keys."""
    fresh: bool
    """Whether the keys need no renewal yet."""
    count: int
    """How many keys can verify a token."""
    age: float | None
    """Since the last load began; None if no keys were ever loaded."""
    left: float | None
    """How long the keys can be used if Keycloak no longer answers."""
    last_error: str | None
    """Why the last load failed, if it did."""
    next_try_in: float | None
    """Until Keycloak is asked again after a failure; None if it is not delayed."""

    @classmethod
    def of(cls, keys: KeySource) -> Self:
        """Return the state of the keys, without loading them."""
        state = keys.state()
        return cls(
            issuer=keys.issuer,
            url=keys.url,
            # Not `state.usable`: keys that are too old are loaded again, and used if that fails.
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
    """The state of one token of this process for other services. Times are in seconds."""

    client_id: str
    """The client that the token belongs to."""
    issuer: str
    """The realm that issues the token."""
    audiences: tuple[str, ...]
    """The wanted audiences; empty if none were named."""
    scopes: tuple[str, ...]
    """The requested scopes."""
    dpop: bool = False
    """Whether the token is bound to a key of this process (RFC 9449)."""
    usable: bool
    """Whether calls get the token without waiting."""
    fresh: bool
    """Whether the token needs no renewal yet."""
    age: float | None
    """Since its request began; None if there never was a token."""
    left: float | None
    """How long the token can be used if Keycloak no longer answers."""
    last_error: str | None
    """Why the last token request failed, if it did."""
    next_try_in: float | None
    """Until Keycloak is asked again after a failure; None if it is not delayed."""

    @classmethod
    def of(cls, token: SharedToken) -> Self:
        """Return the state of the token, without requesting it."""
        state = token.state()
        return cls(
            client_id=token.client_id,
            issuer=token.issuer,
            audiences=tuple(sorted(token.wanted.audiences)),
            scopes=tuple(sorted(token.wanted.scopes)),
            dpop=token.dpop,
            usable=bool(state.left),
            fresh=state.fresh,
            age=state.age,
            left=state.left,
            last_error=None if state.last_error is None else str(state.last_error),
            next_try_in=state.next_try_in,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The result of `health`. It contains no token and no secret, but addresses and names: return it only from a guarded route."""

    ready: bool
    """Whether a token could be verified now; always true for an app that only calls."""
    problem: str | None
    """Why the app has not started, if it has not."""
    keys: KeysHealth | None
    """Those of the first realm; None for an app that only calls, or that has not started."""
    other_realms: tuple[KeysHealth, ...]
    """The keys of further realms. They count for `ready` only if the middleware has their names in ``ready=[...]``."""
    tokens: tuple[TokenHealth, ...]
    """The tokens that this process requests, the least recently used one first."""


def health(app: Any) -> Health:
    """Return the state of the keys and tokens of a running app. It never waits and never contacts Keycloak.

    - `app` is the app with `ServiceAuthMiddleware`, the middleware itself, or an ASGI app wrapped around it.
    - Tokens belong to the process, so all its apps have the same tokens.

    Raises:
        ConfigurationError: `app` has no middleware, but an app that is mounted in it has one.
    """
    middleware = middleware_of(app)
    problem, verifier = None, None
    if isinstance(middleware, ServiceAuthMiddleware):
        verifier = middleware.verifier
        problem = None if verifier is not None else middleware.problem or _NOT_STARTED
    elif middleware is not None:
        problem = _NOT_STARTED
    elif _is_below(app):
        raise ConfigurationError(_ELSEWHERE.format(what="health", cure="pass that app"))
    realms = () if verifier is None else verifier.realms
    known = {realm: KeysHealth.of(realm.keys) for realm in realms}
    counting = () if verifier is None else verifier.ready
    return Health(
        ready=problem is None and all(known[realm].usable for realm in counting),
        problem=problem,
        keys=known[realms[0]] if realms else None,
        other_realms=tuple(known[realm] for realm in realms[1:]),
        tokens=tuple(map(TokenHealth.of, IN_USE.source.tokens())),
    )


async def auth_ready(request: Request) -> Response:
    """Answer 200 if a token could be verified now, else 503 with ``Retry-After`` (RFC 9110 section 10.2.3).

    An endpoint for FastAPI and Starlette: ``app.add_route("/readyz", auth_ready)``, listed in ``public_paths``.

    - It gets the keys as a request with a token would. So probes load the first keys of a service, and renew those of an idle one.
    - It answers within 3 s. The keys of further realms are in the body; they change the status only if the middleware has their names in
      ``ready=[...]``.
    - If Keycloak is down, the answer stays 200 while the last keys can be used.
    - Tokens for other services are counted in the body, but do not change the status. The body has only numbers.

    Raises:
        ConfigurationError: It is outside the middleware whose keys it needs.
    """
    verifier, retry_after = request.scope.get(VERIFIER_KEY), None
    keys: tuple[KeySource, ...] = ()
    if isinstance(verifier, Verifier | RealmsVerifier):
        keys = tuple(realm.keys for realm in verifier.realms)
        retry_after = await _retry_after([realm.keys for realm in verifier.ready])
        for other in keys[1:]:
            if other.ready() is None:
                other.start()  # for the next probe
    elif _is_below(request.scope.get("app") or request.scope.get("router")):
        raise ConfigurationError(
            _ELSEWHERE.format(what="auth_ready", cure="put it into that app, and into its public_paths")
        )
    others = {"other_realms": [_numbers_of_keys(each) for each in keys[1:]]} if keys[1:] else {}
    return JSONResponse(
        {
            "ready": retry_after is None,
            "keys": _numbers_of_keys(keys[0]) if keys else None,
            **others,
            "tokens": _numbers_of_tokens(),
        },
        status_code=200 if retry_after is None else 503,
        headers={"Cache-Control": "no-store"} | ({} if retry_after is None else {"Retry-After": str(retry_after)}),
    )


async def _retry_after(sources: list[KeySource]) -> int | None:
    """Wait for the keys of all these realms at the same time; return when to ask again if one has none."""
    failed: list[int] = []

    async def wait(keys: KeySource) -> None:
        try:
            await keys.aget()
        except KeysUnavailable as error:
            failed.append(error.retry_after)

    if len(sources) == 1:
        await wait(sources[0])
    else:
        async with anyio.create_task_group() as group:
            for keys in sources:
                group.start_soon(wait, keys)
    return max(failed, default=None)


def _numbers_of_keys(keys: KeySource) -> dict[str, Any]:
    age = keys.state().age
    return {"count": keys.count, "age": None if age is None else math.floor(age)}


def _numbers_of_tokens() -> dict[str, int]:
    """Count tokens that can be used, tokens whose request failed, and expired tokens that were not requested again."""
    numbers = {"usable": 0, "failing": 0, "idle": 0}
    for token in IN_USE.source.tokens():
        state = token.state()
        numbers["usable" if state.left else "failing" if state.last_error is not None else "idle"] += 1
    return numbers


def _is_below(app: Any) -> bool:
    """Return whether an app has no middleware of ours, but an app that is mounted in it has one."""
    routes = len(app.routes) if isinstance(app, Starlette) else None  # a Router cannot be kept
    if routes is not None and _WITHOUT.get(app) == routes:
        return False
    if any(middleware_of(inner) is not None or _is_below(inner) for inner in _inside(app)):
        return True
    if routes is not None:
        _WITHOUT[app] = routes
    return False


def _inside(app: Any) -> Iterator[Any]:
    """Yield the apps that are mounted in an app."""
    for layer in layers(app):
        for entry in getattr(getattr(layer, "router", layer), "routes", None) or ():
            for context in route_contexts(entry):
                yield from (
                    inner for inner in (getattr(context, "app", None), mounted_app(context)) if inner is not None
                )
