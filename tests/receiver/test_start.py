"""Nobody is let in before settings and routes were checked, with a lifespan or without one, on any loop and from any thread."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router
from starlette.testclient import TestClient

from s2s_fastapi import ConfigurationError, ServiceAuthMiddleware, require_caller, require_service
from tests.kit.realm import Clock, Realm, SigningKey, settings
from tests.kit.receiving import App, Client, Headers, Options


async def ok(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


async def lifespan_messages(app: Any) -> list[dict[str, Any]]:
    """Return what an app sends in answer to a start, without a shutdown from the server."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, str]:
        if sent:
            await anyio.sleep_forever()
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    with anyio.move_on_after(0.2):
        try:
            await app({"type": "lifespan", "state": {}}, receive, send)
        except ConfigurationError as error:
            sent.append({"raised": str(error)})
    return sent


class TestWithALifespan:
    def test_a_good_app_starts(self, make_app: App) -> None:
        assert anyio.run(lifespan_messages, make_app())[0] == {"type": "lifespan.startup.complete"}

    def test_a_failed_check_ends_the_apps_own_start_and_says_so_once(self, make_app: App) -> None:
        events: list[str] = []

        @asynccontextmanager
        async def lifespan(app: Any) -> AsyncIterator[None]:
            events.append("opened")
            yield
            events.append("closed")

        app = make_app(app=FastAPI(lifespan=lifespan, openapi_url=None), users=True)
        app.get("/x")(lambda: None)
        failed, raised = anyio.run(lifespan_messages, app)
        assert failed["type"] == "lifespan.startup.failed"
        assert failed["message"] == raised["raised"]
        assert "Missing on: GET /x." in failed["message"]
        assert events == ["opened", "closed"]

    def test_routes_that_the_app_adds_while_it_starts_are_checked(self, make_app: App, client: Client) -> None:
        @asynccontextmanager
        async def lifespan(app: Any) -> AsyncIterator[None]:
            app.get("/late")(lambda: None)
            yield

        app = make_app(app=FastAPI(lifespan=lifespan, openapi_url=None), users=True)
        with pytest.raises(ConfigurationError, match="Missing on: GET /late"), client(app):
            pass

    def test_an_error_of_the_apps_own_start_stays_its_own(self, make_app: App, client: Client) -> None:
        @asynccontextmanager
        async def lifespan(app: Any) -> AsyncIterator[None]:
            app.no_such_thing()
            yield

        with pytest.raises(AttributeError, match="no_such_thing"), client(make_app(app=FastAPI(lifespan=lifespan))):
            pass

    def test_an_error_of_the_apps_own_end_stays_its_own(self, make_app: App, client: Client) -> None:
        @asynccontextmanager
        async def lifespan(app: Any) -> AsyncIterator[None]:
            yield
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"), client(make_app(app=FastAPI(lifespan=lifespan))):
            pass

    def test_all_that_is_wrong_with_the_routes_is_said_at_once(self, make_app: App, client: Client) -> None:
        app = make_app(public_paths=["/b"])
        for path, asked in {"/a": require_caller("x") & require_caller("y"), "/b": require_service()}.items():
            app.get(path, dependencies=[Depends(asked)])(lambda: None)
        with (
            pytest.raises(ConfigurationError, match=r"GET /a \(.*\): no token .* GET /b carries a requirement"),
            client(app),
        ):
            pass

    def test_middleware_that_hides_the_app_does_not_hide_its_routes(self, make_app: App, client: Client) -> None:
        class Hiding:
            def __init__(self, app: Any) -> None:
                self.inner = app

            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                await self.inner(scope, receive, send)

        app = FastAPI(openapi_url=None)
        app.add_middleware(Hiding)
        make_app(app=app, users=True)
        app.get("/x")(lambda: None)
        with pytest.raises(ConfigurationError, match="Missing on: GET /x"), client(app):
            pass
        assert client(app).get("/x").status_code == 500

    def test_dependencies_that_are_none_let_nobody_in(self, make_app: App, client: Client, service: Headers) -> None:
        app, router = make_app(), APIRouter()
        router.get("/x")(lambda: None)
        app.include_router(router, dependencies=[require_caller("a")])  # type: ignore[list-item]
        with pytest.raises(AttributeError), client(app):
            pass
        assert client(app).get("/x", headers=service()).status_code == 500


SETTINGS: dict[str, tuple[dict[str, str], dict[str, Any], str]] = {
    "nothing": ({}, {}, "Set KEYCLOAK_URL and KEYCLOAK_REALM"),
    "no realm": ({"URL": "http://k"}, {}, "Set KEYCLOAK_REALM"),
    "a relative URL": ({"URL": "k", "REALM": "r"}, {}, "KEYCLOAK_URL must be an absolute"),
    "a password": ({"URL": "http://a:b@k", "REALM": "r"}, {}, "does not belong in it"),
    "a realm with a slash": ({"URL": "http://k", "REALM": "a/b"}, {}, "KEYCLOAK_REALM must be a name"),
    "audience account": ({"URL": "http://k", "REALM": "r", "AUDIENCE": "account"}, {}, 'cannot be "account"'),
    "an empty audience": ({"URL": "http://k", "REALM": "r", "AUDIENCE": ""}, {}, "KEYCLOAK_AUDIENCE"),
    "no audience": ({"URL": "http://k", "REALM": "r"}, {}, "KEYCLOAK_CLIENT_ID or KEYCLOAK_AUDIENCE"),
    "audience= empty": ({"URL": "http://k", "REALM": "r"}, {"audience": []}, "audience= is an empty list"),
    "audience= account": ({"URL": "http://k", "REALM": "r"}, {"audience": "account"}, 'cannot be "account"'),
    "a long leeway": ({"URL": "http://k", "REALM": "r", "LEEWAY": "61"}, {}, "KEYCLOAK_LEEWAY"),
    "a public path": (
        {"URL": "http://k", "REALM": "r", "CLIENT_ID": "c"},
        {"public_paths": ["x"]},
        "public_paths: 'x'",
    ),
    "public paths as one text": (
        {"URL": "http://k", "REALM": "r", "CLIENT_ID": "c"},
        {"public_paths": "/x"},
        "write \\['/x'\\]",
    ),
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    for name in os.environ:
        if name.startswith("KEYCLOAK_"):
            monkeypatch.delenv(name)

    def put(values: dict[str, str]) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"KEYCLOAK_{name}", value)

    return put


class TestSettings:
    @pytest.mark.parametrize(("given", "arguments", "sentence"), SETTINGS.values(), ids=SETTINGS)
    def test_that_are_wrong_stop_the_start_and_not_the_constructor(
        self, environment: Any, given: dict[str, str], arguments: dict[str, Any], sentence: str
    ) -> None:
        environment(given)
        app = ServiceAuthMiddleware(Starlette(routes=[Route("/x", ok)]), **arguments)
        with pytest.raises(ConfigurationError, match=sentence), TestClient(app):
            pass
        assert TestClient(app).get("/x").status_code == 500

    def test_are_not_read_at_import_nor_by_a_constructor(self) -> None:
        code = "import s2s_fastapi as s; s.ServiceAuthMiddleware(None, public_paths=1, audience=[]); s.TokenVerifier(); print('fine')"
        environment = {**os.environ, "KEYCLOAK_URL": "no url", "KEYCLOAK_LEEWAY": "soon"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.stdout, done.stderr) == ("fine\n", "")

    def test_of_the_environment_are_read_at_the_start(self, environment: Any, realm: Realm) -> None:
        app = ServiceAuthMiddleware(Starlette(routes=[Route("/x", ok)]), transport=realm.transport)
        environment({"URL": "http://keycloak.test", "REALM": "corp", "CLIENT_ID": "crm-api-gateway"})
        with TestClient(app) as there:
            assert there.get("/x", headers={"Authorization": f"Bearer {realm.token()}"}).status_code == 200

    def test_given_an_audience_accept_that_one(self, make_app: App, client: Client, service: Headers) -> None:
        app = make_app(audience="other")
        app.get("/x")(lambda: None)
        assert client(app).get("/x", headers=service(aud="other")).status_code == 200
        assert client(app).get("/x", headers=service()).status_code == 401


def test_a_route_that_came_after_the_first_lifespan_is_checked_by_the_second(make_app: App) -> None:
    app = make_app(users=True)
    app.get("/x", dependencies=[Depends(require_service())])(lambda: "x")
    with TestClient(app) as there:
        assert there.get("/x").status_code == 401
    app.get("/late")(lambda: "open to users")

    with pytest.raises(ConfigurationError, match="GET /late"), TestClient(app):
        pass


class TestWithoutALifespan:
    def test_nobody_is_let_in_before_the_check_passes_and_then_it_is_not_asked_again(
        self, environment: Any, realm: Realm, observed: Any, service: Headers
    ) -> None:
        clock = Clock(time.time())
        app = ServiceAuthMiddleware(
            Starlette(routes=[Route("/x", ok), Route("/open", ok)]),
            public_paths=["/open"],
            transport=realm.transport,
            observer=observed,
            clock=clock,
        )
        there = TestClient(app)
        for path in ("/x", "/open"):
            refused = there.get(path, headers=service())
            assert (refused.status_code, refused.json()) == (500, {"detail": "Internal Server Error"})
        assert observed.reasons == ["not_started"] * 2
        assert "Set KEYCLOAK_URL and KEYCLOAK_REALM" in observed.decisions[0].cure
        assert "KEYCLOAK" not in refused.text
        environment({"URL": "http://keycloak.test", "REALM": "corp", "CLIENT_ID": "crm-api-gateway"})
        assert there.get("/x", headers=service()).status_code == 500  # a failed check stands for a second
        clock.advance(1)
        assert there.get("/x", headers=service()).status_code == 200
        environment({"URL": "nonsense"})
        assert there.get("/x", headers=service()).status_code == 200

    def test_a_websocket_is_not_accepted_either(self, make_app: App, service: Headers) -> None:
        app = make_app(users=True)

        @app.websocket("/ws")
        async def socket(websocket: Any) -> None:
            await websocket.accept()

        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": []}
        anyio.run(app, scope, receive, send)
        assert sent == [{"type": "websocket.close", "code": 1013, "reason": "Internal Server Error"}]

    def test_a_mounted_sub_app_checks_itself(self, make_app: App, client: Client, service: Headers) -> None:
        wrong = make_app(users=True)
        wrong.get("/x")(lambda: None)
        right = make_app()
        right.get("/x")(lambda: None)
        app = FastAPI(openapi_url=None)
        app.mount("/wrong", wrong)
        app.mount("/right", right)
        with client(app) as there:
            assert there.get("/wrong/x", headers=service()).status_code == 500
            assert there.get("/right/x", headers=service()).status_code == 200
            assert there.get("/right/x").status_code == 401

    def test_an_app_that_knows_no_lifespan_is_checked_before_the_first_request(
        self, options: Options, service: Headers
    ) -> None:
        async def http_only(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                raise NotImplementedError
            await PlainTextResponse("in")(scope, receive, send)

        open_, closed = (
            ServiceAuthMiddleware(http_only, **options()),
            ServiceAuthMiddleware(http_only, **options(users=True)),
        )
        assert TestClient(open_).get("/", headers=service()).text == "in"
        assert TestClient(closed).get("/", headers=service()).status_code == 500

    @pytest.mark.parametrize("users", [False, True])
    def test_no_thread_gets_past_a_check_that_is_still_running(
        self, options: Options, service: Headers, users: bool
    ) -> None:
        checking, go_on, reads = threading.Event(), threading.Event(), []

        class Slow(Router):
            @property
            def routes(self) -> list[Any]:
                reads.append(threading.get_ident())
                checking.set()
                go_on.wait(10)
                return [Route("/x", ok)]

            @routes.setter
            def routes(self, given: list[Any]) -> None: ...

            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                entered.append(go_on.is_set())
                await PlainTextResponse("in")(scope, receive, send)

        entered: list[bool] = []
        app = ServiceAuthMiddleware(Slow(), **options(users=users))
        headers = service()

        def ask() -> int:
            return TestClient(app).get("/x", headers=headers).status_code

        with ThreadPoolExecutor(8) as threads:
            answers = [threads.submit(ask) for _ in range(8)]
            assert checking.wait(5)
            time.sleep(0.1)
            assert entered == []
            go_on.set()
            assert {answer.result() for answer in answers} == {500 if users else 200}
        assert entered == ([] if users else [True] * 8)
        assert len(set(reads)) == 1  # by whoever came first: nobody can order more of that work


@pytest.mark.anyio
async def test_it_runs_on_asyncio_and_on_trio(make_app: App, service: Headers) -> None:
    app = make_app()
    app.get("/x", dependencies=[Depends(require_service())])(lambda: "ok")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as there:
        assert (await there.get("/x")).status_code == 401
        answers: list[int] = []

        async def ask() -> None:
            answers.append((await there.get("/x", headers=service())).status_code)

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(ask)
    assert answers == [200] * 20


def test_one_app_serves_several_loops_one_after_the_other_and_at_once(
    make_app: App, realm: Realm, service: Headers
) -> None:
    app = make_app()
    app.get("/x")(lambda: "ok")

    async def ask() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as there:
            return (await there.get("/x", headers=service())).status_code

    assert [anyio.run(ask, backend=backend) for backend in ("asyncio", "trio", "asyncio")] == [200] * 3
    with ThreadPoolExecutor(6) as threads:
        backends = ("asyncio", "trio") * 3
        assert list(threads.map(lambda backend: anyio.run(ask, backend=backend), backends)) == [200] * 6
    assert realm.fetches == 1


def test_two_apps_of_two_realms_live_in_one_process(client: Client, options: Options) -> None:
    realms = [Realm("corp", key=SigningKey("ES256")), Realm("partner", key=SigningKey("ES256"))]
    subs = []
    for realm in realms:
        sub = FastAPI(openapi_url=None)
        given = settings(realm=realm.issuer.rpartition("/")[2])
        sub.add_middleware(ServiceAuthMiddleware, **options(settings=given, transport=realm.transport))
        sub.get("/x", dependencies=[Depends(require_service())])(lambda: None)
        subs.append(sub)
    both = Starlette(routes=[Mount("/0", subs[0]), Mount("/1", subs[1])])
    for number, realm in enumerate(realms):
        headers = {"Authorization": f"Bearer {realm.token()}"}
        assert client(both).get(f"/{number}/x", headers=headers).status_code == 200
    # The other realm's key is unknown here, and its issuer would be wrong.
    forged = realms[0].sign(realms[1].claims())
    assert (
        client(both).get("/0/x", headers={"Authorization": f"Bearer {forged}"}).json()["detail"]
        == "The access token is from another issuer."
    )


class TestKeys:
    def test_are_loaded_at_the_start_before_anybody_asks(self, make_app: App, client: Client, realm: Realm) -> None:
        with client(make_app()):
            until = time.monotonic() + 5
            while not realm.fetches and time.monotonic() < until:
                time.sleep(0.01)
        assert realm.fetches == 1

    def test_are_loaded_at_the_first_request_without_warm_up(
        self, make_app: App, client: Client, realm: Realm, service: Headers
    ) -> None:
        app = make_app(warm_up=False)
        app.get("/x")(lambda: None)
        with client(app) as there:
            assert there.get("/x").status_code == 401
            time.sleep(0.1)
            assert realm.requests == []
            assert there.get("/x", headers=service()).status_code == 200
        assert realm.fetches == 1

    def test_that_are_not_there_at_the_start_are_waited_for_and_come_by_themselves(
        self, make_app: App, client: Client, realm: Realm, service: Headers
    ) -> None:
        realm.answer = lambda request: httpx.Response(502)
        app = make_app(public_paths=["/healthz"])
        app.get("/x")(lambda: None)
        app.get("/healthz")(lambda: None)
        headers = service()
        with client(app) as there:
            assert there.get("/healthz").status_code == 200
            assert there.get("/x").status_code == 401
            down = there.get("/x", headers=headers)
            assert down.status_code == 503
            assert down.headers["Retry-After"] in {"5", "6"}  # 5 s, up to a tenth more, rounded up
            assert "WWW-Authenticate" not in down.headers
            realm.answer = lambda request: None
            until = time.monotonic() + 8
            while (answer := there.get("/x", headers=headers).status_code) == 503 and time.monotonic() < until:
                time.sleep(0.2)
        assert answer == 200
