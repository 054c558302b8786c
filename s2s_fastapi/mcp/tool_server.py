"""A tool server behind `ServiceAuthMiddleware`: its SDK knows the caller, and each message is judged."""

import importlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from starlette.applications import Starlette
from starlette.authentication import AuthCredentials
from starlette.types import ASGIApp, Receive, Scope, Send

from s2s_fastapi.accepted import INBOUND
from s2s_fastapi.declared.asked import leaves_of, plain
from s2s_fastapi.declared.start_check import bounded
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.fastapi_internals import added_middleware
from s2s_fastapi.mcp.allowed import requirement_on
from s2s_fastapi.mcp.failures import ours, sentence
from s2s_fastapi.mcp.message import CALLS, MESSAGE, ClientMessage, Refused, field_of, says_who
from s2s_fastapi.mcp.resumption import separate_sessions
from s2s_fastapi.mcp.servers import ToolServer, endpoint_of, failure_for_client, refusal_for_client, tool_server_of
from s2s_fastapi.principal import Principal
from s2s_fastapi.receiver.event_stream import stream_until_expiry
from s2s_fastapi.receiver.middleware import ServiceAuthMiddleware
from s2s_fastapi.requirement.guard import GUARD_MARK
from s2s_fastapi.requirement.request_state import VERIFIER_KEY, Authenticated
from s2s_fastapi.requirement.require import require_service, require_user
from s2s_fastapi.requirement.requirement import Caller, Requirement

__all__ = ["access_token_of", "tool_server"]

_log = logging.getLogger("s2s_fastapi")

_CREDENTIALS: Final = frozenset({b"authorization", b"dpop"})
_LISTS: Final = {
    "tools/list": ("tools", "name"),
    "prompts/list": ("prompts", "name"),
    "resources/list": ("resources", "uri"),
    "resources/templates/list": ("resourceTemplates", "uriTemplate"),
}
"""The methods that list, each with the names of the list and of what names an entry."""
_USE_NOTHING: Final = {
    *_LISTS,
    "initialize",
    "logging/setLevel",
    "notifications/cancelled",
    "notifications/initialized",
    "notifications/progress",
    "notifications/roots/list_changed",
    "ping",
    "server/discover",
}
"""The methods of the protocol that every accepted caller needs. Every other one uses something, such as what an extension adds."""
_PYTHON_NAMES: Final = {"resourceTemplates": "resource_templates", "uriTemplate": "uri_template"}
_MARK: Final = "__s2s_tool_server__"
_UNCOVERED: Final = (
    "users=True accepts users as well as services, so everything that a tool server offers must say who may use it: "
    "allowed(require_service()), allowed(require_caller(...)), allowed(require_user(...)), or allowed(require_service() | require_user()). "
    "Missing on: {}."
)


def tool_server(server: Any, app: Starlette | None = None) -> Starlette:
    """Return the app of an MCP server, for `ServiceAuthMiddleware` to be added to it, or to an app that it is mounted in.

    - ``server``: a server of the official SDK (package ``mcp``) or of FastMCP (package ``fastmcp``), with all that it offers.
    - ``app``: the app that the server made, if it needs options: ``mcp.streamable_http_app(...)`` of the official SDK, ``mcp.http_app(...)``
      of FastMCP. It is changed and returned. Without one, the server makes one without options.
    - A session belongs to the caller who opened it: issuer, client and subject. For everybody else it does not exist: 404.
    - A stream of events ends when the token of its request expires or is revoked.
    - `allowed` decides about each tool, resource and prompt. What has no requirement is for services of the first realm. With
      ``users=True`` everything must say who may use it, or the app does not start.
    - A request that no `ServiceAuthMiddleware` has accepted is answered 500, whoever calls.
    - If you mount the app, join its lifespan: ``FastAPI(lifespan=tools.router.lifespan_context)``.

    Raises:
        ConfigurationError: The server or the app is of another kind, or the server verifies tokens itself.
    """
    kind = tool_server_of(server)
    app = kind.http_app() if app is None else app
    route = endpoint_of(app)
    guard: _Guard | None = getattr(server, _MARK, None)
    if guard is None:  # once, also if the server makes several apps
        guard = _Guard(kind)
        kind.install(guard)
        setattr(server, _MARK, guard)
    endpoint: Any = route.endpoint
    if endpoint.session_manager is not None:  # FastMCP makes its own when it starts
        separate_sessions(endpoint.session_manager)
    route.endpoint = route.app = _Endpoint(route.app, guard)
    app.router.lifespan_context = _checked(app.router.lifespan_context, guard)
    return app


class _Guard:
    """What every message of a server passes."""

    def __init__(self, server: ToolServer) -> None:
        self._server = server
        self._listed = False

    async def __call__(self, message: ClientMessage, answer: Callable[[], Awaitable[Any]]) -> Any:
        """Answer a message if its sender may use what it names. Lists are cut down to what the sender may use."""
        # On mcp 1.x a tool runs in the context of the request that opened the session.
        reset, before = MESSAGE.set(message), INBOUND.set(None)
        try:
            INBOUND.set(message.inbound)
            if message.method in CALLS:
                for component in await self._server.wanted(message):
                    message.admit(component.requirement, component.name)
            elif message.method not in _USE_NOTHING:
                message.admit(requirement_on(message.handler), "")
            result = await answer()
            hidden = self._hidden(message)
        except Refused as refused:
            raise refusal_for_client(str(refused)) from None
        except Exception as raised:
            if (instead := _instead_of(raised, message)) is not None:
                raise instead from None
            raise
        finally:
            MESSAGE.reset(reset)
            INBOUND.reset(before)
            message.over = True
        if (
            message.method in CALLS
            and _failed(result)
            and (instead := _instead_of(message.raised, message)) is not None
        ):
            raise instead
        return _without(result, message.method, hidden) if hidden else result

    async def check(self, *, users: bool) -> None:
        """Read what the server offers, and say once what has no requirement.

        Raises:
            ConfigurationError: Users may come in, and something does not say who may use it.
        """
        try:
            components = await self._server.components()
        except Exception:  # noqa: BLE001 - a server may ask others what they offer; each message is judged all the same
            _log.warning(
                "what the tool server offers could not be read, so nobody checks at the start who may use it.",
                exc_info=True,
            )
            return
        if users and (uncovered := [each for each in components if not says_who(each.requirement)]):
            raise ConfigurationError(_UNCOVERED.format(bounded(map(str, uncovered))))
        bare = [each for each in components if each.requirement is None]
        if bare and not self._listed:
            self._listed = True
            _log.info(
                "any service that the middleware accepts may use, since no requirement stands on it: %s",
                bounded(map(str, bare)),
            )

    def _hidden(self, message: ClientMessage) -> frozenset[str]:
        """Return the names that a list must not show to the sender."""
        if message.method not in _LISTS:
            return frozenset()
        return frozenset(each.name for each in self._server.shown(message.method) if not message.may(each.requirement))


class _Endpoint:
    """The endpoint of the server, between `ServiceAuthMiddleware` and the SDK."""

    def __init__(self, app: ASGIApp, guard: _Guard) -> None:
        self._app: ASGIApp = importlib.import_module("mcp.server.auth.middleware.auth_context").AuthContextMiddleware(
            app
        )
        self._guard = guard
        self._checked: bool | None = None
        """Whether users may come in, as the check took it; None before the check."""
        self._problem = ""
        # Whoever the middleware accepts gets here, and what the server offers says more. The start check reads it.
        setattr(self, GUARD_MARK, require_service() | require_user())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the SDK for an accepted caller, whom it then knows."""
        state = Authenticated.of(scope)
        _take_token_out(scope)  # before the check, which asks FastMCP's proxies
        verifier = scope[VERIFIER_KEY]
        users = _accepts_users(verifier.checks.accepts)
        if self._checked is not users:
            problem = ""
            try:
                await self._guard.check(users=users)
            except ConfigurationError as error:
                problem = str(error)
            self._checked, self._problem = users, problem  # last: no request passes while the check is still running
        if self._problem:
            raise ConfigurationError(self._problem)
        user = _user_of(state.principal, state.verdict.digest)
        app = stream_until_expiry(self._app, state.principal, verifier.of(state.principal))
        await app({**scope, "user": user, "auth": AuthCredentials(user.scopes)}, receive, send)


def _checked(lifespan: Any, guard: _Guard) -> Any:
    """Return the lifespan of the app that a server made, which also checks what the server offers."""

    @asynccontextmanager
    async def checked(app: Any) -> AsyncIterator[Any]:
        problem = ""
        async with lifespan(app) as state:  # a server may know only then what it offers
            # If the middleware stands around the app, the first request tells whether users may come in.
            added = (entry for entry in added_middleware(app) if entry.cls is ServiceAuthMiddleware)
            try:
                await guard.check(users=any(entry.kwargs.get("users") is True for entry in added))
            except ConfigurationError as error:
                problem = str(error)
            else:
                yield state
        if problem:  # not raised before, because the SDK's tasks would make a group of it
            raise ConfigurationError(problem)

    return checked


def _take_token_out(scope: Scope) -> None:
    """Take the token and its proof out of the headers of a request, because the proxies of FastMCP send them on to other servers.

    The list itself is changed: FastMCP has kept the scope of an outer layer, which holds the same list.
    """
    kept = [(name, value) for name, value in scope["headers"] if name.lower() not in _CREDENTIALS]
    if isinstance(scope["headers"], list):
        scope["headers"][:] = kept
    else:
        scope["headers"] = kept


def _accepts_users(accepts: object) -> bool:
    leaves = leaves_of(accepts if isinstance(accepts, Requirement) else None)
    return any(isinstance(leaf := plain(each), Caller) and leaf.kind == "user" for each in leaves)


def _user_of(principal: Principal, digest: bytes) -> Any:
    """Return the caller as the SDK knows one. It compares issuer, client and subject with those of whoever opened a session."""
    user: Any = importlib.import_module("mcp.server.auth.middleware.bearer_auth").AuthenticatedUser
    return user(access_token_of(principal, digest))


def access_token_of(principal: Principal, digest: bytes, resource: str | None = None) -> Any:
    """Return what the SDK keeps of a caller. Instead of the token it has the digest, so that no tool can send the token on.

    FastMCP tells callers apart by the text of the token, for example in `ResponseCachingMiddleware`. So it must differ with each token.
    If the realm leaves `sub` out of its tokens, the subject of a user is the log-in (`sid`), so that two users of one client stay apart.
    """
    login = principal.claims.get("sid") if principal.kind != "service" else None
    subject = principal.subject or (f"sid:{login}" if isinstance(login, str) and login else None)
    token: Any = importlib.import_module("mcp.server.auth.provider").AccessToken
    return token(
        token=f"digest:{digest.hex()}",
        client_id=principal.client_id,
        scopes=sorted(principal.scopes),
        expires_at=principal.expires_at,
        resource=resource,
        subject=subject,
        claims={"iss": principal.issuer},
    )


def _instead_of(raised: Exception | None, message: ClientMessage) -> Exception | None:
    """Return the fixed sentence that the caller gets instead of what a tool raised; None if the caller may read that."""
    if message.refusal is not None:
        return refusal_for_client(message.refusal.reason.detail)
    error = None if raised is None else ours(raised)
    if error is None:
        return None
    _log.error("%s failed: %s: %s", message.method, type(error).__name__, error)
    return failure_for_client(sentence(error))


def _failed(result: Any) -> bool:
    """Return whether an answer says that it is an error of a tool. mcp 2.x gives JSON, mcp 1.x an object in a ``root``."""
    found = getattr(result, "root", result)
    return bool(field_of(found, "isError") or field_of(found, "is_error"))


def _without(result: Any, method: str, hidden: frozenset[str]) -> Any:
    """Return the answer to a list without what its sender may not use."""
    entries, name = _LISTS[method]
    listing = getattr(result, "root", result)
    kept = [each for each in _entry(listing, entries) or () if str(_entry(each, name)) not in hidden]
    if isinstance(listing, Mapping):
        return {**listing, entries: kept}
    spelled = entries if hasattr(listing, entries) else _PYTHON_NAMES[entries]
    changed = listing.model_copy(update={spelled: kept})
    return changed if listing is result else type(result)(changed)


def _entry(value: Any, name: str) -> Any:
    found = field_of(value, name)
    return field_of(value, _PYTHON_NAMES[name]) if found is None and name in _PYTHON_NAMES else found
