"""One app, several apps, several hosts, several loops: whoever serves them, each request is judged by the app it is for."""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import hypercorn.asyncio
import hypercorn.trio
import pytest
import trio
from fastapi import Depends, FastAPI, Request
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount
from starlette.staticfiles import StaticFiles

from s2s_fastapi import ServiceAuthMiddleware, require_caller, require_service
from tests.kit.realm import Realm, SigningKey, settings
from tests.kit.receiving import App, Headers, Options
from tests.receiver.surroundings.servers import SERVERS, UVICORN, Address, Said, served

BEARER = 'Bearer realm="crm-api-gateway"'
BILLING = [Depends(require_caller("billing"))]


@pytest.fixture(params=SERVERS)
def server(request: Any) -> str:
    return str(request.param)


def ask(address: Address, path: str, headers: dict[str, str], *more: bytes, method: str = "GET") -> Said:
    lines = [f"{name}: {value}".encode() for name, value in headers.items()]
    return address.say(path.encode(), *lines, *more, method=method.encode())


async def opaque(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse(f"opaque {scope['path']}")(scope, receive, send)


class TestMounts:
    def test_are_behind_the_door_of_the_app_around_them(
        self, make_app: App, server: str, service: Headers, tmp_path: Path
    ) -> None:
        (tmp_path / "logo.png").write_bytes(b"logo")
        app, sub = make_app(public_paths=["/static/logo.png"]), FastAPI(openapi_url=None)
        sub.get("/x")(lambda: "sub")
        app.mount("/sub", sub)
        app.mount("/opaque", opaque)
        app.mount("/guarded", require_caller("billing").guard(opaque))
        app.mount("/static", StaticFiles(directory=tmp_path))
        (tmp_path / "secret.png").write_bytes(b"secret")
        with served(app, server) as address:
            for path in ("/sub/x", "/opaque/a/b", "/guarded/a", "/static/secret.png", "/sub", "/nowhere"):
                refused = ask(address, path, {})
                assert (refused.status, refused.challenge) == (401, BEARER), path
            assert ask(address, "/static/logo.png", {}).body == b"logo"
            assert ask(address, "/static/../static/secret.png", {}).status == 401
            let_in = {path: ask(address, path, service()).status for path in ("/sub/x", "/opaque/a/b", "/guarded/a")}
            assert let_in == {"/sub/x": 200, "/opaque/a/b": 200, "/guarded/a": 403}
            assert ask(address, "/guarded/a", service(azp="billing", client_id="billing")).status == 200

    def test_with_a_door_of_their_own_know_their_own_realm(self, options: Options, server: str) -> None:
        key = SigningKey("ES256")  # one kid in both: nothing but the issuer tells them apart
        realms = [Realm("corp", key=key), Realm("partner", key=key)]
        both = Starlette(routes=[Mount(f"/{number}", door(options, realm)) for number, realm in enumerate(realms)])
        with served(both, server) as address:
            answers = [
                ask(address, f"/{number}/x", {"Authorization": f"Bearer {realm.token()}"}).status
                for number in range(2)
                for realm in realms
            ]
            assert ask(address, "/0/x", {}).challenge == BEARER
        assert answers == [200, 401, 401, 200]


def door(options: Options, realm: Realm) -> FastAPI:
    app = FastAPI(openapi_url=None)
    given = settings(realm=realm.issuer.rpartition("/")[2])
    app.add_middleware(ServiceAuthMiddleware, **options(settings=given, transport=realm.transport))
    app.get("/x", dependencies=[Depends(require_service())])(lambda: "in")
    return app


class TestHosts:
    def test_choose_the_app_and_never_open_it(self, make_app: App, server: str, service: Headers) -> None:
        app, tenant = make_app(public_paths=["/healthz"]), FastAPI(openapi_url=None)
        tenant.get("/x", dependencies=BILLING)(lambda: "tenant")
        app.router.routes.append(Host("{name}.tenants.test", tenant))
        app.get("/healthz")(lambda: "ok")
        app.get("/x")(lambda: "main")
        billing = service(azp="billing", client_id="billing")
        with served(app, server) as address:
            for host in (b"a.tenants.test", b"main.test", b"healthz"):
                assert ask(address, "/x", {}, b"Host: " + host).status == 401
            assert ask(address, "/x", service(), b"Host: main.test").body == b'"main"'
            assert ask(address, "/x", service(), b"Host: a.tenants.test").status == 403
            assert ask(address, "/x", billing, b"Host: a.tenants.test").body == b'"tenant"'

    def test_with_doors_of_their_own_know_their_own_realm(self, options: Options, server: str) -> None:
        key = SigningKey("ES256")
        realms = {name: Realm(name, key=key) for name in ("corp", "partner")}
        both = Starlette(routes=[Host(f"{name}.test", door(options, realm)) for name, realm in realms.items()])
        with served(both, server) as address:
            answers = [
                ask(address, "/x", {"Authorization": f"Bearer {realm.token()}"}, f"Host: {name}.test".encode()).status
                for name in realms
                for realm in realms.values()
            ]
        assert answers == [200, 401, 401, 200]


class TestARootPathOfTheApp:
    def test_that_is_set_below_the_door_is_part_of_no_public_path(
        self, options: Options, server: str, service: Headers
    ) -> None:
        inner = FastAPI(openapi_url=None)
        inner.root_path = "/api"  # as FastAPI(root_path=...), which the newest release calls deprecated
        for path in ("/healthz", "/api/open", "/open"):
            inner.get(path)(lambda: "in")
        with served(ServiceAuthMiddleware(inner, **options(public_paths=["/healthz", "/api/open"])), server) as address:
            asked = {path: ask(address, path, {}).status for path in ("/healthz", "/api/healthz", "/api/open", "/open")}
            assert asked == {"/healthz": 200, "/api/healthz": 200, "/api/open": 401, "/open": 401}
            assert ask(address, "/api/open", service()).status == 200


@pytest.mark.skipif(not hasattr(FastAPI, "frontend"), reason="this FastAPI has no frontend()")
class TestAFrontend:
    def test_is_behind_the_door_and_asks_what_the_app_asks(
        self, make_app: App, server: str, service: Headers, tmp_path: Path
    ) -> None:
        (tmp_path / "index.html").write_text("page")
        app = make_app(app=FastAPI(openapi_url=None, dependencies=BILLING))
        app.frontend("/ui", directory=tmp_path)
        app.get("/x")(lambda: "x")
        billing = service(azp="billing", client_id="billing")
        with served(app, server) as address:
            for path in ("/ui/", "/ui/index.html", "/ui/../ui/index.html", "/ui/nothing", "/x"):
                assert ask(address, path, {}).status == 401, path
            assert ask(address, "/ui/index.html", service()).status == 403
            assert ask(address, "/ui/index.html", billing).body == b"page"


class TestOptionsAndHead:
    @pytest.fixture
    def app(self, make_app: App) -> FastAPI:
        app = make_app()
        app.api_route("/x", methods=["GET", "HEAD", "OPTIONS"], dependencies=BILLING)(lambda: "xx")
        return app

    def test_need_a_token_like_all_methods(self, app: FastAPI, server: str, service: Headers) -> None:
        billing = service(azp="billing", client_id="billing")
        with served(app, server) as address:
            for method in ("GET", "HEAD", "OPTIONS"):
                refused = ask(address, "/x", {}, method=method)
                assert (refused.status, refused.challenge) == (401, BEARER)
                assert ask(address, "/x", service(), method=method).status == 403
                let_in = ask(address, "/x", billing, method=method)
                assert (let_in.status, let_in.headers["content-length"]) == (200, "4")
                assert let_in.body == (b"" if method == "HEAD" else b'"xx"')
            assert ask(address, "/x", {}, b"Content-Length: 0", method="DELETE").status == 401

    def test_leave_no_bytes_of_a_refusal_on_the_connection(self, app: FastAPI, server: str, service: Headers) -> None:
        billing = service(azp="billing", client_id="billing")
        with served(app, server) as address, httpx.Client(base_url=f"http://{address}", trust_env=False) as there:
            for _ in range(3):
                assert there.head("/x").status_code == 401
                assert there.get("/x", headers=billing).json() == "xx"

    def test_of_a_browser_are_answered_by_cors_outside(self, app: FastAPI, server: str, service: Headers) -> None:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=["https://ui.test"],
            allow_headers=["Authorization"],
            expose_headers=["WWW-Authenticate", "Retry-After"],
        )
        origin = b"Origin: https://ui.test"
        wanted = [b"Access-Control-Request-Method: GET", b"Access-Control-Request-Headers: authorization"]
        with served(app, server) as address:
            preflight = ask(address, "/x", {}, origin, *wanted, method="OPTIONS")
            assert preflight.status == 200
            assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
            for headers, status in (({}, 401), (service(), 403), (service(azp="billing", client_id="billing"), 200)):
                answer = ask(address, "/x", headers, origin)
                assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, "https://ui.test")
                assert "WWW-Authenticate" in answer.headers["access-control-expose-headers"]
            foreign = ask(address, "/x", {}, b"Origin: https://evil.test", *wanted, method="OPTIONS")
            assert (foreign.status, "access-control-allow-origin" in foreign.headers) == (400, False)
            assert ask(address, "/x", {}, method="OPTIONS").status == 401  # without the headers it is no preflight


class TestLifespans:
    @pytest.mark.parametrize("lifespan", ["auto", "on", "off"])
    @pytest.mark.parametrize("http", UVICORN)
    def test_of_every_kind_end_in_the_same_answers(
        self, make_app: App, service: Headers, http: str, lifespan: str
    ) -> None:
        app = make_app(public_paths=["/healthz"])
        app.get("/healthz")(lambda: "ok")
        app.get("/x")(lambda: "x")
        with served(app, http, lifespan=lifespan) as address:
            assert ask(address, "/healthz", {}).status == 200
            assert ask(address, "/x", {}).status == 401
            assert ask(address, "/x", service()).status == 200

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_that_the_check_ends_end_hypercorn_too(self, make_app: App, backend: str) -> None:
        app: Any = make_app(users=True)
        app.get("/open")(lambda: "let in")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = Config()
        config.errorlog = None
        config.bind = [f"127.0.0.1:{port}"]
        run: dict[str, Callable[[], Any]] = {
            "asyncio": lambda: asyncio.run(hypercorn.asyncio.serve(app, config)),
            "trio": lambda: trio.run(hypercorn.trio.serve, app, config),
        }
        with pytest.raises((LifespanFailureError, ExceptionGroup)) as raised:
            run[backend]()
        failure = raised.value
        while isinstance(failure, ExceptionGroup):
            failure = failure.exceptions[0]
        assert "Missing on: GET /open." in str(failure)


class TestLoops:
    def test_of_several_servers_share_one_app_and_one_set_of_keys(
        self, make_app: App, realm: Realm, service: Headers
    ) -> None:
        app = make_app()
        app.get("/x", dependencies=[Depends(require_service())])(who)
        headers = service()
        with ExitStack() as stack, ThreadPoolExecutor(16) as threads:
            addresses = [stack.enter_context(served(app, server)) for server in SERVERS * 2]
            asked = list(threads.map(lambda address: ask(address, "/x", headers).status, addresses * 10))
            refused = list(threads.map(lambda address: ask(address, "/x", {}).status, addresses))
        assert set(asked) == {200}
        assert set(refused) == {401}
        assert realm.fetches == 1

    def test_that_end_leave_the_app_to_the_next(self, make_app: App, realm: Realm, service: Headers) -> None:
        app = make_app()
        app.get("/x", dependencies=[Depends(require_service())])(who)
        for server in SERVERS * 2:
            with served(app, server) as address:
                assert ask(address, "/x", service()).body == b'"chat-app-service"'
        assert realm.fetches == 1


async def who(request: Request) -> str:
    return str(request.user.client_id)
