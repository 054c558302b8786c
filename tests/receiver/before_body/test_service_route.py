"""`ServiceRoute` on its own: what is read of a body, what runs, and what happens if it cannot ask first."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Request, WebSocket, routing
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from s2s_fastapi import (
    Principal,
    Requirement,
    ServiceRoute,
    require_caller,
    require_role,
    require_service,
    require_that,
)
from s2s_fastapi.requirement.request_state import SCOPE_KEY
from s2s_fastapi.testing.marked_endpoints import MARKED_HEADER, marked_endpoints
from tests.kit.receiving import App, Client, Headers, Observed
from tests.receiver.test_uvicorn import served

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of uvicorn's WebSockets

HUNDRED_MB = 100_000_000
ALLOWED = require_caller("chat-app-service")
OTHERS = require_caller("billing")


def routed(*dependencies: Any, **options: Any) -> FastAPI:
    app = FastAPI(openapi_url=None, dependencies=[Depends(each) for each in dependencies], **options)
    app.router.route_class = ServiceRoute
    return app


def counted(asked: list[str]) -> Requirement:
    """Return a condition that notes of whom it was asked."""

    def condition(principal: Principal) -> bool:
        asked.append(str(principal.client_id))
        return True

    return require_that("counted", condition)


class Counting:
    """Around an app: counts the bytes of bodies that the app asks for."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.asked = 0
        self.bytes = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def counted() -> Any:
            self.asked += 1
            message = await receive()
            self.bytes += len(message.get("body", b""))
            return message

        await self.app(scope, counted if scope["type"] == "http" else receive, send)


@pytest.mark.parametrize("expects", [False, True])
def test_a_caller_who_may_not_is_refused_before_one_byte_of_its_100_mb_is_read(
    make_app: App, service: Headers, expects: bool
) -> None:
    app = routed(OTHERS)

    @app.post("/x")
    async def upload(item: Annotated[dict[str, str], Body()]) -> str:
        raise AssertionError("the endpoint ran")

    counting = Counting(make_app(app=app))
    with (
        served(counting, lifespan="off") as address,
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as connection,
    ):
        head = {"Host": address, "Content-Type": "application/json", "Content-Length": str(HUNDRED_MB), **service()}
        head |= {"Expect": "100-continue"} if expects else {}
        lines = ["POST /x HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        connection.sendall("\r\n".join(lines).encode())
        if not expects:
            connection.sendall(b'{"a": "' + b"x" * 10_000)  # and 99,99 MB that nobody waits for
        answer = connection.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 403")
    assert b'error="insufficient_scope"' in answer
    assert (counting.asked, counting.bytes) == (0, 0)


def test_the_same_body_is_read_for_a_caller_who_may(make_app: App, service: Headers) -> None:
    app = routed(ALLOWED)

    @app.post("/x")
    async def upload(item: Annotated[dict[str, str], Body()]) -> int:
        return len(item["a"])

    counting = Counting(make_app(app=app))
    with served(counting, lifespan="off") as address:
        answer = httpx.post(f"http://{address}/x", json={"a": "x" * 300_000}, headers=service(), trust_env=False)
    assert answer.json() == 300_000
    assert counting.bytes > 300_000


@pytest.mark.parametrize("body", [b"{", b'{"size": "no number"}', b""])
def test_403_comes_before_422(make_app: App, client: Client, service: Headers, body: bytes) -> None:
    app = routed()

    @app.post("/x", dependencies=[Depends(OTHERS)])
    async def route(size: Annotated[int, Body(embed=True)]) -> None: ...

    answer = client(make_app(app=app)).post(
        "/x", content=body, headers={**service(), "Content-Type": "application/json"}
    )
    assert answer.status_code == 403


def test_nothing_else_runs_for_a_caller_who_may_not(make_app: App, client: Client, service: Headers) -> None:
    ran: list[str] = []

    async def database() -> Any:
        ran.append("database")
        yield

    app = routed(database)

    @app.get("/x")
    async def route(caller: Annotated[Principal, Depends(OTHERS)]) -> None:
        ran.append("endpoint")

    assert client(make_app(app=app)).get("/x", headers=service()).status_code == 403
    assert ran == []


def test_an_endpoint_gets_its_caller_and_asks_nothing_twice(make_app: App, client: Client, service: Headers) -> None:
    asked: list[str] = []
    condition = counted(asked)

    async def below(caller: Annotated[Principal, Depends(condition)]) -> str:
        return str(caller.client_id)

    app = routed(ALLOWED)

    @app.get("/x")
    def route(caller: Annotated[Principal, Depends(condition)], name: Annotated[str, Depends(below)]) -> list[str]:
        return [str(caller.client_id), name]

    answer = client(make_app(app=app)).get("/x", headers=service())
    assert answer.json() == ["chat-app-service", "chat-app-service"]
    assert asked == ["chat-app-service"]


def test_each_use_cache_false_asks_once_more(make_app: App, client: Client, service: Headers) -> None:
    asked: list[str] = []
    condition = counted(asked)
    counts = []
    for route_class in (ServiceRoute, APIRoute):
        app = FastAPI(openapi_url=None, dependencies=[Depends(ALLOWED), Depends(condition)])
        app.router.route_class = route_class

        @app.get("/x")  # FastAPI reads use_cache of a parameter only
        async def route(caller: Annotated[Principal, Depends(condition, use_cache=False)]) -> str:
            return "ok"

        assert client(make_app(app=app)).get("/x", headers=service()).status_code == 200
        counts.append(len(asked))
        asked.clear()
    assert counts == [2, 2]


def test_each_use_cache_false_below_another_dependency_asks_once_more(
    make_app: App, client: Client, service: Headers
) -> None:
    asked: list[str] = []
    condition = counted(asked)

    async def below(caller: Annotated[Principal, Depends(condition, use_cache=False)]) -> None: ...

    app = routed(ALLOWED, condition, below)
    app.get("/x")(lambda: "ok")
    assert client(make_app(app=app)).get("/x", headers=service()).status_code == 200
    assert len(asked) == 2


def test_an_optional_path_gives_none_to_a_caller_without_credentials(
    make_app: App, client: Client, service: Headers
) -> None:
    app = routed()

    @app.get("/x")
    async def route(caller: Annotated[Principal | None, Depends(OTHERS.optional())]) -> str:
        return str(caller)

    reader = client(make_app(app=app, optional_paths=["/x"]))
    assert reader.get("/x").json() == "None"
    assert reader.get("/x", headers=service()).status_code == 403


def test_an_endpoint_without_every_requirement_asked_does_not_run(
    make_app: App, client: Client, service: Headers
) -> None:
    """Some code behind ours forgets what was asked: only the check around the endpoint is left."""

    async def forgets(request: Request) -> None:
        request.scope[SCOPE_KEY].asked.clear()

    app = routed(ALLOWED, forgets)
    app.get("/x")(lambda: "ran")
    assert client(make_app(app=app)).get("/x", headers=service()).status_code == 500


def test_without_a_middleware_nobody_gets_in(client: Client, service: Headers) -> None:
    app = routed(require_service())
    app.get("/x")(lambda: "ran")
    assert client(app).get("/x", headers=service()).status_code == 500


def test_a_websocket_is_asked_by_fastapi(make_app: App, client: Client, service: Headers) -> None:
    router = APIRouter(route_class=ServiceRoute, dependencies=[Depends(OTHERS)])

    @router.websocket("/ws")
    async def talk(websocket: WebSocket) -> None:
        raise AssertionError("the endpoint ran")

    app = FastAPI(openapi_url=None)
    app.include_router(router)
    with (
        pytest.raises(Exception, match=r"403|1008|denied|") as refused,
        client(make_app(app=app)).websocket_connect("/ws", headers=service()),
    ):
        pass
    assert not isinstance(refused.value, AssertionError)


def test_a_subclass_that_makes_its_own_handler_leaves_all_to_fastapi(
    make_app: App, client: Client, service: Headers
) -> None:
    class Own(ServiceRoute):
        def get_route_handler(self) -> Callable[[Request], Any]:
            return APIRoute.get_route_handler(self)

    app = routed(OTHERS)
    app.router.route_class = Own
    app.get("/x")(lambda: "ran")
    assert client(make_app(app=app)).get("/x", headers=service()).status_code == 403


def test_the_routers_own_dependencies_and_those_of_each_include_are_asked(
    make_app: App, client: Client, service: Headers, observed: Observed
) -> None:
    router = APIRouter(route_class=ServiceRoute)
    router.post("/x")(lambda size: "ran")
    app = FastAPI(openapi_url=None, dependencies=[Depends(ALLOWED)])
    app.include_router(router, prefix="/closed", dependencies=[Depends(require_role("r"))])
    app.include_router(router, prefix="/open")
    reader = client(make_app(app=app))
    assert [reader.post(f"/{each}/x?size=1", headers=service()).status_code for each in ("closed", "open")] == [
        403,
        200,
    ]
    assert observed.reasons == ["role_missing", "allowed"]


def test_requests_at_the_same_time_keep_their_callers_apart(make_app: App, service: Headers) -> None:
    app = routed()

    @app.get("/x")
    async def route(caller: Annotated[Principal, Depends(require_service())]) -> str:
        await asyncio.sleep(0)
        return str(caller.client_id)

    app = make_app(app=app)
    headers = {name: service(client_id=name, azp=name)["Authorization"].encode() for name in ("a", "b", "c")}

    async def get(name: str) -> bytes:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "http_version": "1.1", "method": "GET", "path": "/x", "raw_path": b"/x", "root_path": "", "scheme": "http",
            "query_string": b"", "headers": [(b"authorization", headers[name])], "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2),
        }  # fmt: skip
        await app(scope, receive, send)
        return bytes(sent[-1]["body"] or sent[-2]["body"])

    async def all_at_once() -> list[bytes]:
        await get("a")
        return await asyncio.gather(*(get(name) for name in ("a", "b", "c") * 20))

    assert asyncio.run(all_at_once()) == [b'"a"', b'"b"', b'"c"'] * 20


def test_access_tests_can_put_a_marker_in_the_place_of_an_endpoint_and_take_it_out(
    make_app: App, client: Client, service: Headers
) -> None:
    app = routed(ALLOWED)

    @app.post("/x")
    async def route(size: Annotated[int, Body(embed=True)], caller: Annotated[Principal, Depends(ALLOWED)]) -> str:
        return f"{caller.client_id} {size}"

    reader = client(make_app(app=app))

    def posted(**changes: Any) -> Any:
        return reader.post("/x", json={"size": 1}, headers=service(**changes))

    assert posted().json() == "chat-app-service 1"
    with marked_endpoints(app):
        assert MARKED_HEADER in posted().headers
        assert posted(client_id="billing", azp="billing").status_code == 403
    assert posted().json() == "chat-app-service 1"


def test_the_start_says_which_routes_ask_first(
    make_app: App, client: Client, service: Headers, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI(openapi_url=None, dependencies=[Depends(ALLOWED)])
    router = APIRouter(route_class=ServiceRoute)
    router.get("/x")(lambda: "ok")
    app.include_router(router, prefix="/first")
    app.get("/later")(lambda: "ok")
    with caplog.at_level(logging.INFO, "s2s_fastapi"):
        client(make_app(app=app)).get("/first/x", headers=service())
    said = [record.getMessage() for record in caplog.records if "ServiceRoute" in record.getMessage()]
    assert said == ["ServiceRoute asks the requirements before the body is read on: GET /first/x"]


def test_an_error_of_validation_names_the_endpoint_and_its_file(
    make_app: App, client: Client, service: Headers
) -> None:
    # FastAPI remembers files by the id of the endpoint, also of one that is gone and whose id another one has now.
    routing._endpoint_context_cache.clear()
    app = routed(ALLOWED)
    seen: list[str] = []

    @app.get("/x")
    async def route(size: int) -> None: ...

    @app.exception_handler(RequestValidationError)
    async def handled(request: Request, error: RequestValidationError) -> JSONResponse:
        seen.append(str(error))
        return JSONResponse({}, 422)

    client(make_app(app=app)).get("/x", headers=service())
    assert __file__ in seen[0]
    assert "in route" in seen[0]
