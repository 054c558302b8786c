"""Around an app without any framework: what was refused inside keeps its challenge, and every end is told once."""

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from fastapi import Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Mount
from starlette.testclient import TestClient, WebSocketDenialResponse

from s2s_fastapi import (
    AuthorizationError,
    NoUserToActFor,
    ServiceAuthMiddleware,
    SessionEnded,
    require_caller,
    require_role,
    require_scope,
    require_service,
)
from s2s_fastapi.accepted import SCOPE_KEY
from s2s_fastapi.requirement.request_state import Authenticated
from tests.kit.realm import Clock, Realm
from tests.kit.receiving import Headers, Options

CHALLENGE = 'Bearer realm="crm-api-gateway", error="insufficient_scope"'
DAY = 1_798_675_200  # 2026-12-31 00:00 UTC


async def ask(app: Any, headers: dict[str, str], kind: str = "http") -> list[dict[str, Any]]:
    """Return what an app sends to a request, or to a handshake that can be denied."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": kind,
        "method": "GET",
        "path": "/x",
        "raw_path": b"/x",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "extensions": {"websocket.http.response": {}},
    }
    if kind == "websocket":
        del scope["method"]
    await app(scope, receive, send)
    return sent


def challenges(sent: list[dict[str, Any]]) -> list[bytes]:
    return [value for name, value in sent[0]["headers"] if name.lower() == b"www-authenticate"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_refusal_has_the_same_bytes_from_the_middleware_and_from_a_dependency(
    options: Options, user: Headers, kind: str
) -> None:
    app = FastAPI(openapi_url=None)

    @app.get("/x", dependencies=[Depends(require_service())])
    async def route() -> None: ...

    @app.websocket("/x", dependencies=[Depends(require_service())])
    async def socket(websocket: WebSocket) -> None: ...

    by_middleware, by_dependency = (
        anyio.run(ask, ServiceAuthMiddleware(app, users=users, **options()), user(), kind) for users in (False, True)
    )
    assert by_dependency[0]["status"] == 403
    assert by_middleware == by_dependency


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_what_nobody_inside_answers_is_answered_and_told_as_refused_alone(
    options: Options, service: Headers, observed: Any, kind: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        Authenticated.of(scope).admit(scope, require_caller("a"))

    sent = anyio.run(ask, ServiceAuthMiddleware(app, **options()), service(), kind)
    assert (sent[0]["status"], challenges(sent)) == (403, [CHALLENGE.encode()])
    assert observed.reasons == ["caller_not_allowed"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_an_app_that_says_nothing_was_let_in_and_that_is_told(
    options: Options, service: Headers, observed: Any, kind: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    assert anyio.run(ask, ServiceAuthMiddleware(app, **options()), service(), kind) == []
    assert observed.reasons == ["allowed"]


@pytest.mark.parametrize("name", [b"www-authenticate", b"WWW-Authenticate"])
def test_a_challenge_that_is_there_already_is_not_sent_twice(options: Options, service: Headers, name: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            Authenticated.of(scope).admit(scope, require_caller("a"))
        except AuthorizationError as error:
            headers = [(name, (error.challenge or "").encode())]
            await send({"type": "http.response.start", "status": error.status_code, "headers": headers})
            await send({"type": "http.response.body", "body": b""})

    sent = anyio.run(ask, ServiceAuthMiddleware(app, **options()), service())
    assert (sent[0]["status"], challenges(sent)) == (403, [CHALLENGE.encode()])


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("error", [SessionEnded, NoUserToActFor])
def test_a_failed_call_on_behalf_of_a_user_names_the_service_in_its_challenge(
    options: Options, service: Headers, observed: Any, error: Any, kind: str
) -> None:
    app = FastAPI(openapi_url=None)

    @app.get("/x")
    async def route() -> None:
        raise error("x")

    @app.websocket("/x")
    async def socket(websocket: WebSocket) -> None:
        raise error("x")

    sent = anyio.run(ask, ServiceAuthMiddleware(app, **options()), service(), kind)
    assert sent[0]["status"] == error("x").status_code
    assert challenges(sent) == [error("x").challenge.replace("Bearer ", 'Bearer realm="crm-api-gateway", ').encode()]
    assert observed.reasons == ["allowed"]


@pytest.mark.parametrize("value", ['Bearer error="insufficient_scope", scope="x"', 'Bearer realm="other"', "Basic"])
def test_a_challenge_of_the_app_stays_as_it_is(options: Options, service: Headers, value: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"www-authenticate", value.encode()), (b"x-mine", b'Bearer error="insufficient_scope"')]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    sent = anyio.run(ask, ServiceAuthMiddleware(app, **options()), service())
    assert dict(sent[0]["headers"])[b"x-mine"] == b'Bearer error="insufficient_scope"'
    assert challenges(sent) == [value.encode()]


def test_a_denial_keeps_its_challenge_past_an_exception_handler_of_the_app(
    make_app: Callable[..., FastAPI], service: Headers
) -> None:
    app = make_app()

    @app.exception_handler(HTTPException)
    async def mine(websocket: WebSocket, error: HTTPException) -> None:
        await websocket.send_denial_response(JSONResponse({"mine": True}, error.status_code, {"X-Mine": "1"}))

    @app.websocket("/ws", dependencies=[Depends(require_caller("a"))])
    async def socket(websocket: WebSocket) -> None: ...

    with (
        pytest.raises(WebSocketDenialResponse) as raised,
        TestClient(app).websocket_connect("/ws", headers=service()),
    ):
        pass
    assert (raised.value.json(), raised.value.headers["X-Mine"]) == ({"mine": True}, "1")
    assert (raised.value.status_code, raised.value.headers["WWW-Authenticate"]) == (403, CHALLENGE)


@pytest.mark.parametrize("wants_allowed", [True, False])
def test_what_is_found_after_the_answer_began_is_told_all_the_same_while_it_is_only_told(
    options: Options, service: Headers, realm: Any, observed: Any, wants_allowed: bool
) -> None:
    observed.wants_allowed = wants_allowed

    async def app(scope: Any, receive: Any, send: Any) -> None:
        Authenticated.of(scope).admit(scope, require_scope("s"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        Authenticated.of(scope).admit(scope, require_caller("a"))
        await send({"type": "http.response.body", "body": b""})

    given = options(clock=Clock(DAY - 3600), insecure_observe_until="2026-12-31")
    sent = anyio.run(ask, ServiceAuthMiddleware(app, **given), service(iat=DAY - 3600, exp=DAY))
    assert sent[0]["status"] == 200
    assert observed.reasons == ["scope_missing", "caller_not_allowed"]
    assert all(decision.observed for decision in observed.decisions)


def test_a_role_of_the_apps_own_client_is_only_told_as_such(options: Options, service: Headers, observed: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        Authenticated.of(scope).admit(scope, require_role("r"))

    given = options(clock=Clock(DAY - 3600), insecure_observe_until="2026-12-31")
    anyio.run(ask, ServiceAuthMiddleware(app, **given), service(iat=DAY - 3600, exp=DAY))
    assert observed.reasons == ["role_missing"]
    assert "crm-api-gateway" in observed.decisions[0].cure


def test_a_handshake_that_the_app_closed_itself_is_not_closed_again(options: Options, service: Headers) -> None:
    sent: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            Authenticated.of(scope).admit(scope, require_caller("a"))
        except AuthorizationError:
            await send({"type": "websocket.close", "code": 1008})
            sent.append("close")
            raise

    async def asked() -> None:
        with pytest.raises(AuthorizationError):
            sent.extend(
                message["type"]
                for message in await ask(ServiceAuthMiddleware(app, **options()), service(), "websocket")
            )

    anyio.run(asked)
    assert sent == ["close"]


def test_what_is_found_twice_is_told_once_and_what_differs_beside_it(
    options: Options, service: Headers, observed: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for scopes in ("s", "s", "t", "s", "t"):
            Authenticated.of(scope).admit(scope, require_scope(scopes))

    given = options(clock=Clock(DAY - 3600), insecure_observe_until="2026-12-31")
    anyio.run(ask, ServiceAuthMiddleware(app, **given), service(iat=DAY - 3600, exp=DAY))
    (decision,) = observed.decisions
    assert [decision.cure.count(f"lacks scope {name}.") for name in ("s", "t")] == [1, 1]


def test_a_refusal_inside_tells_of_the_token_that_was_refused(
    options: Options, realm: Realm, service: Headers, observed: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        Authenticated.of(scope).admit(scope, require_caller("a"))

    anyio.run(ask, ServiceAuthMiddleware(app, **options()), service(jti="trrtcc:1"))
    (decision,) = observed.decisions
    assert (decision.client_id, decision.token_id) == ("chat-app-service", "trrtcc:1")
    assert (decision.issuer, decision.kid) == (realm.issuer, realm.key.kid)


@pytest.mark.parametrize("root_path", ["", "/behind/a/proxy"])
def test_the_route_is_told_with_the_mounts_around_it_and_without_the_proxys_path(
    make_app: Callable[..., FastAPI], service: Headers, observed: Any, root_path: str
) -> None:
    inner, app = FastAPI(openapi_url=None), make_app()
    inner.get("/x/{id}", dependencies=[Depends(require_caller("a"))])(lambda: None)
    app.mount("/inner", inner)
    http = TestClient(app, root_path=root_path)
    assert http.get(f"{root_path}/inner/x/1", headers=service()).status_code == 403
    assert [decision.route for decision in observed.decisions] == ["/inner/x/{id}"]


def test_a_guarded_mount_is_told_once_by_its_path(options: Options, service: Headers, observed: Any) -> None:
    async def opaque(scope: Any, receive: Any, send: Any) -> None: ...

    app = Starlette(routes=[Mount("/opaque", require_caller("a").guard(opaque))])
    app.add_middleware(ServiceAuthMiddleware, **options())
    assert TestClient(app).get("/opaque/y/2", headers=service()).status_code == 403
    (decision,) = observed.decisions
    assert decision.route in {"/opaque/{path}", "/opaque/y/2"}  # not every Starlette tells which mount it was


def test_a_path_without_end_is_told_cut(options: Options, observed: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    assert TestClient(ServiceAuthMiddleware(app, **options())).get("/x" * 5000).status_code == 401
    assert len(observed.decisions[0].route) <= 203


@pytest.mark.parametrize("kind", ["bare", "fastapi", "starlette", "no token"])
def test_a_request_leaves_nothing_for_the_garbage_collector(options: Options, service: Headers, kind: str) -> None:
    """A reference cycle for each request would cost a collection again and again."""
    app: Any
    if kind == "fastapi":
        app = FastAPI(openapi_url=None)
        app.get("/x", dependencies=[Depends(require_caller("chat-app-service"))])(lambda: "x")
    elif kind == "starlette":
        app = Mount("/", require_caller("chat-app-service").guard(JSONResponse("x")))
        app = Starlette(routes=[app])
    else:
        app = JSONResponse("x")
    app = ServiceAuthMiddleware(app, **options())
    headers = {} if kind == "no token" else service()

    async def found() -> int:
        await ask(app, headers)
        gc.freeze()  # a collection looks at what these requests leave, not at all that the suite has loaded
        least = 1_000
        for _ in range(3):  # what other threads leave in the same moment counts, too, but not each time
            gc.collect()
            gc.disable()
            try:
                for _ in range(100):
                    sent = await ask(app, headers)
                    assert sent[0]["status"] == (401 if kind == "no token" else 200)
                least = min(least, gc.collect())
            finally:
                gc.enable()
        return least

    # Of the event loop and the thread pool. Of each request it would be 100 or more.
    try:
        assert anyio.run(found) < 10
    finally:
        gc.unfreeze()


# The token of the request


def keeping(seen: list[bool], *messages: dict[str, Any]) -> Any:
    """Return an app that sends these messages, and notes after each whether the request still has its token."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        seen.append(scope[SCOPE_KEY].credentials is not None)
        for message in messages:
            await send(message)
            seen.append(scope[SCOPE_KEY].credentials is not None)

    return app


START = {"type": "http.response.start", "status": 200, "headers": []}
DENIAL = {"type": "websocket.http.response.start", "status": 403, "headers": []}


@pytest.mark.parametrize(
    ("kind", "messages", "there"),
    [
        ("http", [START, {"type": "http.response.body", "body": b"x"}], [True, True, False]),
        (
            "http",
            [
                START,
                {"type": "http.response.body", "body": b"x", "more_body": True},
                {"type": "http.response.body", "body": b"", "more_body": False},
            ],
            [True, True, True, False],
        ),
        ("http", [START, {"type": "http.response.pathsend", "path": "/x"}], [True, True, False]),
        ("websocket", [DENIAL, {"type": "websocket.http.response.body", "body": b""}], [True, True, False]),
        (
            "websocket",
            [
                {"type": "websocket.accept"},
                {"type": "websocket.send", "text": "x"},
                {"type": "websocket.close", "code": 1000},
            ],
            [True, True, True, False],
        ),
    ],
    ids=["an answer", "a stream", "a file of the server", "a denied handshake", "a WebSocket"],
)
def test_a_request_has_its_token_until_the_last_byte_of_its_answer(
    kind: str, messages: list[dict[str, Any]], there: list[bool], options: Options, service: Headers
) -> None:
    seen: list[bool] = []
    anyio.run(ask, ServiceAuthMiddleware(keeping(seen, *messages), **options()), service(), kind)
    assert seen == there


def test_a_request_whose_app_raises_has_no_token_afterwards(options: Options, service: Headers) -> None:
    states: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        states.append(scope[SCOPE_KEY])
        raise RuntimeError

    with pytest.raises(RuntimeError):
        anyio.run(ask, ServiceAuthMiddleware(app, **options()), service())
    with pytest.raises(NoUserToActFor, match="the request has ended"):
        states[0].token()


def test_the_token_of_a_request_is_what_was_verified_and_is_shown_nowhere(options: Options, service: Headers) -> None:
    headers = service()
    token = headers["Authorization"].removeprefix("Bearer ")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        state = scope[SCOPE_KEY]
        scope["headers"] = [(b"authorization", b"Bearer other")]
        assert state.token() == token
        assert token not in repr(state)
        assert copy.deepcopy(state) is copy.copy(state) is state  # a copy would outlive the request
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(state)
        await send(START)

    # However the header spells the scheme: what is kept is one spelling.
    anyio.run(ask, ServiceAuthMiddleware(app, **options()), {"Authorization": f"bearer  {token}"})
