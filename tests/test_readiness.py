"""Ready is who can verify a token now; what is told in public is numbers, and what is told to developers holds no secret."""

import asyncio
import dataclasses
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import httpx2
import pytest
import trio
from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, Router
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from s2s_fastapi import (
    AudienceNotGranted,
    ConfigurationError,
    ServiceAuthMiddleware,
    ServiceTokenAuth,
    TokenRequestError,
    auth_ready,
    health,
    require_service,
    service_auth,
    service_lifespan,
)
from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.readiness import Health, KeysHealth, TokenHealth
from s2s_fastapi.receiver.middleware import middleware_of
from s2s_fastapi.requirement.request_state import VERIFIER_KEY
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.faults import answering, disconnecting
from s2s_fastapi.verifier.keys import KeySource
from tests.caller.fakes import SECRET, Keycloak, jwt, refusal
from tests.caller.fakes import settings as caller_settings
from tests.kit.realm import Clock, Realm, key_source, settings
from tests.receiver.surroundings.servers import served
from tests.test_docs import DOCS, plain, tables

READY = ["/readyz"]
NO_TOKENS = {"usable": 0, "failing": 0, "idle": 0}


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def realm() -> Realm:
    return Realm()


@pytest.fixture
def keycloak() -> Keycloak:
    return Keycloak()


@pytest.fixture(autouse=True)
def source(keycloak: Keycloak, clock: Clock) -> Iterator[TokenSource]:
    with using(TokenSource(channel=keycloak, clock=clock)) as source:
        yield source


def fastapi_app(**options: Any) -> FastAPI:
    app = FastAPI(openapi_url=None, **options)
    app.get("/readyz")(auth_ready)
    return app


def starlette_app(**options: Any) -> Starlette:
    return Starlette(routes=[Route("/readyz", auth_ready)], **options)


def fastapi_with_plain_route(**options: Any) -> FastAPI:
    app = FastAPI(openapi_url=None, **options)
    app.add_route("/readyz", auth_ready)
    return app


def fastapi_with_router(**options: Any) -> FastAPI:
    app, router = FastAPI(openapi_url=None, **options), APIRouter()
    router.get("/readyz")(auth_ready)
    app.include_router(router)
    return app


APPS = [fastapi_app, starlette_app, fastapi_with_plain_route, fastapi_with_router]


@dataclasses.dataclass
class Service:
    """An app behind the middleware, started, whose keys are on a clock of the test's own."""

    app: Any
    keys: KeySource
    client: TestClient
    verifier: Any

    def ready(self) -> Any:
        return self.client.get("/readyz")

    def settle(self) -> None:
        """Wait for a load behind, if one is under way."""
        while self.keys.state().loading:
            time.sleep(0.001)


def started(app: Any, keys: KeySource, **options: Any) -> Service:
    given = {"settings": settings(), "public_paths": READY, "warm_up": False, **options}
    app.add_middleware(ServiceAuthMiddleware, **given)
    app.middleware_stack = app.build_middleware_stack()
    door = middleware_of(app)
    assert isinstance(door, ServiceAuthMiddleware)
    verifier = door._start.run({"type": "http", "app": app}).verifier
    verifier.keys = keys
    return Service(app, keys, TestClient(app), verifier)


@pytest.fixture
def service(realm: Realm, clock: Clock) -> Service:
    return started(fastapi_app(), key_source(realm, clock))


def broken(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


class TestWithTheKeys:
    @pytest.mark.parametrize("make", APPS)
    def test_a_service_that_can_verify_a_token_is_ready(
        self, make: Callable[[], Any], realm: Realm, clock: Clock
    ) -> None:
        response = started(make(), key_source(realm, clock)).ready()

        assert response.status_code == 200
        assert response.json() == {"ready": True, "keys": {"count": 1, "age": 0}, "tokens": NO_TOKENS}
        assert response.headers["Cache-Control"] == "no-store"
        assert "Retry-After" not in response.headers

    @pytest.mark.parametrize("make", APPS)
    def test_one_that_never_had_keys_is_not_ready_and_says_when_to_come_again(
        self, make: Callable[[], Any], realm: Realm, clock: Clock
    ) -> None:
        realm.answer = broken
        service = started(make(), key_source(realm, clock))
        response = service.ready()
        left = service.keys.state().next_try_in

        assert response.status_code == 503
        assert response.json() == {"ready": False, "keys": {"count": 0, "age": None}, "tokens": NO_TOKENS}
        assert response.headers["Cache-Control"] == "no-store"
        assert left is not None
        assert response.headers["Retry-After"] == str(math.ceil(left))

    def test_retry_after_is_true_and_probes_alone_bring_it_up(
        self, service: Service, realm: Realm, clock: Clock
    ) -> None:
        realm.answer = broken
        retry_after = int(service.ready().headers["Retry-After"])
        realm.answer = lambda request: None
        clock.advance(4.9)
        assert service.ready().status_code == 503
        assert realm.fetches == 1
        clock.advance(retry_after - 4.9)

        assert service.ready().status_code == 200
        assert realm.fetches == 2

    def test_keycloak_down_with_good_keys_is_ready(self, service: Service, realm: Realm, clock: Clock) -> None:
        assert service.ready().json()["ready"]
        realm.answer = broken
        for _ in range(60):
            clock.advance(59)
            response = service.ready()
            service.settle()
            assert response.status_code == 200
        assert response.json()["keys"] == {"count": 1, "age": 3540}

    def test_the_last_good_keys_make_ready_up_to_the_hour_and_not_beyond(
        self, service: Service, realm: Realm, clock: Clock
    ) -> None:
        assert service.ready().status_code == 200
        realm.answer = broken
        clock.advance(3599.9)
        assert service.ready().status_code == 200
        clock.advance(0.1)
        response = service.ready()

        assert response.status_code == 503
        assert response.json()["keys"] == {"count": 1, "age": 3600}
        assert int(response.headers["Retry-After"]) in range(1, 7)

    def test_probes_keep_the_keys_of_an_idle_service_fresh(self, service: Service, realm: Realm, clock: Clock) -> None:
        for _ in range(240):
            assert service.ready().status_code == 200
            service.settle()
            assert service.keys.state().fresh
            clock.advance(10)

        assert realm.fetches in {5, 6}  # in 40 minutes; after 7.2 to 8 of them each, with the next probe

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_a_thousand_probes_are_one_fetch_in_five_seconds(
        self, backend: str, service: Service, realm: Realm, clock: Clock
    ) -> None:
        realm.answer = broken
        statuses: list[int] = []

        async def probe() -> None:
            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])

            await service.app(http_scope("/readyz"), never, send)

        async def storm() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(1000):
                    group.start_soon(probe)

        anyio.run(storm, backend=backend)
        clock.advance(4.9)
        anyio.run(storm, backend=backend)
        assert realm.fetches == 1
        assert statuses == [503] * 2000

        clock.advance(1.0)
        anyio.run(storm, backend=backend)
        assert realm.fetches == 2

    def test_thousands_of_probes_at_a_start_leave_a_place_for_a_request(
        self, realm: Realm, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("s2s_fastapi.verifier.keys._TIMEOUT", 60.0)  # a busy machine may need more than 3 s
        service = started(fastapi_app(), key_source(realm, clock))
        late = threading.Event()

        def answer(request: httpx.Request) -> None:
            assert late.wait(60)

        realm.answer = answer
        statuses: list[int] = []

        async def ask(path: str, *headers: tuple[bytes, bytes]) -> None:
            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])

            await service.app({**http_scope(path), "headers": list(headers)}, never, send)

        async def probe() -> None:
            """Probe without the app in between, which would take some seconds for two thousand."""
            response = await auth_ready(Request({"type": "http", VERIFIER_KEY: service.verifier}))
            statuses.append(response.status_code)

        token = realm.token().encode()

        async def start() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(1950):
                    group.start_soon(probe)
                for _ in range(50):
                    group.start_soon(ask, "/readyz")
                group.start_soon(ask, "/nothing", (b"authorization", b"Bearer " + token))
                await anyio.lowlevel.checkpoint()  # now all of them wait
                assert statuses == []  # all of them wait
                late.set()

        anyio.run(start)
        assert sorted(statuses) == [200] * 2000 + [404]

    def test_head_is_answered_like_get(self, realm: Realm, clock: Clock) -> None:
        for answer, status in ((None, 200), (broken, 503)):
            realm.answer = answer or (lambda request: None)
            with served(started(starlette_app(), key_source(realm, clock)).app) as address:
                said = httpx.head(f"http://{address}/readyz")

            assert said.status_code == status
            assert said.content == b""
            assert said.headers["Cache-Control"] == "no-store"
            assert ("Retry-After" in said.headers) is (status == 503)

    def test_where_keycloak_does_not_answer_the_probe_does(self, service: Service, realm: Realm, clock: Clock) -> None:
        late = threading.Event()
        realm.answer = lambda request: None if late.wait(60) else httpx.Response(500)
        try:
            response = service.ready()
        finally:
            late.set()
        service.settle()

        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) in range(5, 7)
        clock.advance(6)
        assert service.ready().status_code == 200

    def test_the_public_body_holds_numbers_alone(self, realm: Realm, clock: Clock, keycloak: Keycloak) -> None:
        realm.answer, keycloak.always = broken, refusal(401, "unauthorized_client", "Invalid client secret")
        with pytest.raises(TokenRequestError):
            ServiceTokenAuth(audience="bob", scope="tell-bob", settings=caller_settings()).token()
        response = started(fastapi_app(), key_source(realm, clock)).ready()

        assert response.status_code == 503
        for member in (response.json()["keys"], response.json()["tokens"]):
            assert all(value is None or type(value) is int for value in member.values())
        for hidden in ("keycloak", "corp", "bob", "chat-app", "crm", "http", "secret", "client", "refused"):
            assert hidden not in response.text


class TestWhereItStands:
    @pytest.mark.parametrize("make", APPS)
    def test_an_app_that_only_calls_is_ready(self, make: Callable[[], Any]) -> None:
        response = TestClient(make()).get("/readyz")

        assert response.status_code == 200
        assert response.json() == {"ready": True, "keys": None, "tokens": NO_TOKENS}

    def test_that_an_app_only_calls_is_read_from_its_routes_once(self) -> None:
        asked: list[str] = []

        class Sub:
            @property
            def app(self) -> None:
                asked.append("what is it around?")

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                raise AssertionError

        client = TestClient(Starlette(routes=[Route("/readyz", auth_ready), Mount("/sub", Sub())]))
        assert client.get("/readyz").json()["ready"]
        assert asked
        asked.clear()
        assert client.get("/readyz").json()["ready"]
        assert asked == []

    def test_what_is_mounted_after_the_first_probe_is_seen_by_the_next(self) -> None:
        inner = FastAPI(openapi_url=None)
        inner.add_middleware(ServiceAuthMiddleware, settings())
        outer = Starlette(routes=[Route("/readyz", auth_ready)])
        client = TestClient(outer)
        assert client.get("/readyz").json()["keys"] is None
        outer.mount("/api", inner)

        with pytest.raises(ConfigurationError, match="auth_ready was called for an app without"):
            client.get("/readyz")

    def test_a_router_without_an_app_is_ready(self) -> None:
        assert TestClient(Router(routes=[Route("/readyz", auth_ready)])).get("/readyz").json()["keys"] is None

    def test_on_a_guarded_path_it_takes_a_token(self, realm: Realm, clock: Clock) -> None:
        client = started(fastapi_app(), key_source(realm, clock), public_paths=[]).client
        refused = client.get("/readyz")

        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == 'Bearer realm="crm-api-gateway"'
        let_in = client.get("/readyz", headers={"Authorization": f"Bearer {realm.token()}"})
        assert let_in.status_code == 200
        assert let_in.json()["keys"] == {"count": 1, "age": 0}

    @pytest.mark.parametrize("make", APPS)
    @pytest.mark.parametrize("check", [{"users": True}, {"insecure_skip_audience": True}])
    def test_the_start_check_asks_no_requirement_of_it_where_it_is_public(
        self, make: Callable[[], Any], check: dict[str, Any], realm: Realm
    ) -> None:
        given = {"settings": settings(), "transport": realm.transport, "warm_up": False, **check}
        public, guarded = make(), make()
        public.add_middleware(ServiceAuthMiddleware, public_paths=READY, **given)
        guarded.add_middleware(ServiceAuthMiddleware, **given)
        with TestClient(public) as client:
            assert client.get("/readyz").status_code == 200

        with pytest.raises(ConfigurationError, match=r"Missing on: GET /readyz\."), TestClient(guarded):
            pass

    def test_what_stood_in_the_scope_before_is_not_believed(self, service: Service, realm: Realm, clock: Clock) -> None:
        realm.answer = broken
        other = key_source(Realm(), clock)
        other.get()

        async def outside(scope: Scope, receive: Receive, send: Send) -> None:
            await service.app({**scope, VERIFIER_KEY: other}, receive, send)

        assert TestClient(outside).get("/readyz").status_code == 503

    @pytest.mark.parametrize("put", ["keys", 1, None, {"usable": True}])
    def test_what_is_no_key_source_is_none(self, put: object) -> None:
        app = fastapi_app()

        async def outside(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, VERIFIER_KEY: put}, receive, send)

        assert TestClient(outside).get("/readyz").json()["keys"] is None

    def test_in_a_mounted_app_without_one_it_asks_the_keys_of_the_app_around(self, realm: Realm, clock: Clock) -> None:
        outer = Starlette(routes=[Mount("/api", starlette_app())])
        service = started(outer, key_source(realm, clock), public_paths=["/api/readyz"])

        assert service.client.get("/api/readyz").json()["keys"] == {"count": 1, "age": 0}
        realm.answer = broken
        clock.advance(3600)
        assert service.client.get("/api/readyz").status_code == 503

    def test_in_a_mounted_app_with_its_own_it_asks_those_keys_and_not_the_outer_ones(self, clock: Clock) -> None:
        near, far = Realm(), Realm()
        far.answer = broken
        inner = started(fastapi_app(), key_source(near, clock))
        outer = started(
            Starlette(routes=[Mount("/api", inner.app), Route("/readyz", auth_ready)]),
            key_source(far, clock),
            public_paths=["/readyz", "/api/readyz"],
        )

        assert outer.client.get("/api/readyz").json()["keys"] == {"count": 1, "age": 0}
        assert outer.client.get("/readyz").status_code == 503

    @pytest.mark.parametrize(
        "around",
        [
            lambda inner: Mount("/api", inner),
            lambda inner: Mount("/deep", Starlette(routes=[Mount("/er", inner)])),
            lambda inner: Mount(
                "/api",
                routes=[Route("/x", auth_ready)],
                middleware=[Middleware(ServiceAuthMiddleware, settings(), public_paths=["/api/x"])],
            ),
        ],
    )
    def test_outside_of_the_middleware_it_fails_instead_of_saying_ready(self, around: Callable[[Any], Mount]) -> None:
        inner = FastAPI(openapi_url=None)
        inner.add_middleware(ServiceAuthMiddleware, settings())
        for outer in (
            Starlette(routes=[Route("/readyz", auth_ready), around(inner)]),
            FastAPI(routes=[Route("/readyz", auth_ready), around(inner)]),
        ):
            assert TestClient(outer, raise_server_exceptions=False).get("/readyz").status_code == 500
            with pytest.raises(
                ConfigurationError, match=r"auth_ready was called for an app without .* put it into that"
            ):
                TestClient(outer).get("/readyz")
            with pytest.raises(ConfigurationError, match=r"health was called for an app without .*: pass that app"):
                health(outer)

    def test_behind_a_root_path(self, realm: Realm, clock: Clock) -> None:
        service = started(fastapi_app(), key_source(realm, clock))
        with served(service.app, root_path="/api") as address:
            assert httpx.get(f"http://{address}/readyz").json()["keys"] == {"count": 1, "age": 0}


class TestTheTokensOfTheProcess:
    def test_they_are_counted_and_do_not_make_the_service_unready(self, service: Service, keycloak: Keycloak) -> None:
        ServiceTokenAuth(audience="bob", settings=caller_settings()).token()
        with pytest.raises(AudienceNotGranted):
            ServiceTokenAuth(audience="charles", settings=caller_settings()).token()
        ServiceTokenAuth("http://dora", audience="dora", settings=caller_settings())._shared()
        response = service.ready()

        assert response.status_code == 200
        assert response.json()["tokens"] == {"usable": 1, "failing": 1, "idle": 1}

    def test_one_that_ended_is_idle_and_one_whose_renewal_fails_serves_to_its_end(
        self, service: Service, keycloak: Keycloak, clock: Clock
    ) -> None:
        auth = ServiceTokenAuth(audience="bob", settings=caller_settings())
        auth.token()
        keycloak.always = refusal(503, "busy")
        clock.advance(289.9)
        auth.token()
        while (state := health(service.app).tokens[0]).last_error is None:
            time.sleep(0.001)
        assert state.usable
        assert service.ready().json()["tokens"] == {"usable": 1, "failing": 0, "idle": 0}
        clock.advance(0.2)
        assert service.ready().json()["tokens"] == {"usable": 0, "failing": 1, "idle": 0}

    def test_each_is_reported_with_whose_it_is_and_for_whom(self, service: Service, clock: Clock) -> None:
        ServiceTokenAuth(audience="bob", settings=caller_settings()).token()
        with pytest.raises(AudienceNotGranted) as not_granted:
            ServiceTokenAuth(audience=["dora", "bob"], scope=["y", "x"], settings=caller_settings()).token()
        clock.advance(12)
        good, bad = health(service.app).tokens

        assert good == TokenHealth(
            client_id="chat-app-service",
            issuer="http://keycloak:8080/realms/corp",
            audiences=("bob",),
            scopes=(),
            usable=True,
            fresh=True,
            age=12.0,
            left=278.0,
            last_error=None,
            next_try_in=None,
        )
        assert (bad.audiences, bad.scopes) == (("bob", "dora"), ("x", "y"))
        assert (bad.usable, bad.fresh, bad.age, bad.left) == (False, False, None, None)
        assert bad.last_error == str(not_granted.value)
        assert bad.next_try_in is not None
        assert 18 <= bad.next_try_in <= 21.1

    def test_equal_ones_are_one(self, service: Service) -> None:
        for origin in ("http://a", "http://b"):
            ServiceTokenAuth(origin, audience="bob", settings=caller_settings()).token()

        assert len(health(service.app).tokens) == 1

    def test_an_app_that_only_calls_shows_what_its_lifespan_asked_for(self) -> None:
        bob = service_auth("http://bob:8000", audience="bob", settings=caller_settings())
        app = fastapi_app(lifespan=service_lifespan(bob))
        with TestClient(app) as client:
            assert client.get("/readyz").json() == {
                "ready": True,
                "keys": None,
                "tokens": {"usable": 1, "failing": 0, "idle": 0},
            }
            seen = health(app)

        assert (seen.ready, seen.problem, seen.keys) == (True, None, None)
        assert [token.audiences for token in seen.tokens] == [("bob",)]


class TestTheSnapshot:
    def test_it_never_asks_keycloak(self, service: Service, realm: Realm) -> None:
        seen = health(service.app)

        assert realm.requests == []
        assert not service.keys.state().loading
        assert (seen.ready, seen.problem) == (False, None)
        assert seen.other_realms == ()
        assert seen.keys == KeysHealth(
            issuer=realm.issuer,
            url="http://keycloak.test/realms/corp/protocol/openid-connect/certs",
            usable=False,
            fresh=False,
            count=0,
            age=None,
            left=None,
            last_error=None,
            next_try_in=None,
        )

    def test_loaded_keys_are_ready_with_their_age(self, service: Service, clock: Clock) -> None:
        service.ready()
        clock.advance(30)
        seen = health(service.app)

        assert seen.ready
        assert seen.keys is not None
        assert (seen.keys.usable, seen.keys.fresh, seen.keys.count) == (True, True, 1)
        assert (seen.keys.age, seen.keys.left) == (30.0, 3570.0)

    def test_a_failure_is_reported_with_the_next_try_beside_keys_that_serve(
        self, service: Service, realm: Realm, clock: Clock
    ) -> None:
        service.ready()
        realm.answer = lambda request: httpx.Response(502)
        clock.advance(601)
        service.ready()
        service.settle()
        seen = health(service.app)

        assert seen.ready
        assert seen.keys is not None
        assert (seen.keys.usable, seen.keys.fresh) == (True, False)
        assert seen.keys.last_error is not None
        assert seen.keys.last_error.endswith("certs: Keycloak answers 502.")
        assert seen.keys.next_try_in is not None
        assert 0 < seen.keys.next_try_in <= 5.5

    def test_keys_that_nobody_asked_for_a_while_are_as_good_as_the_answer_a_probe_gets(
        self, service: Service, realm: Realm, clock: Clock
    ) -> None:
        service.ready()
        realm.answer = broken
        for age, ready in ((3599.9, True), (3600.0, False)):
            clock.now = 1000.0 + age
            seen = health(service.app)

            assert seen.ready is ready
            assert (service.ready().status_code == 200) is ready
            assert (seen.keys is not None and seen.keys.usable) is ready

    def test_before_the_start_it_says_so(self, realm: Realm) -> None:
        app = fastapi_app()
        app.add_middleware(ServiceAuthMiddleware, settings(), public_paths=READY, transport=realm.transport)
        seen = health(app)

        assert (seen.ready, seen.keys) == (False, None)
        assert seen.problem == (
            "ServiceAuthMiddleware has not started: it starts with the app, or with the first request."
        )
        with TestClient(app) as client:
            assert client.get("/readyz").status_code == 200
            assert health(app).ready
            assert health(app).problem is None

    def test_a_start_check_that_failed_is_the_problem(self, realm: Realm) -> None:
        app = fastapi_app()
        app.add_middleware(ServiceAuthMiddleware, settings(), users=True, transport=realm.transport)
        assert TestClient(app).get("/readyz").status_code == 500
        seen = health(app)

        assert (seen.ready, seen.keys) == (False, None)
        assert seen.problem is not None
        assert seen.problem.endswith("Missing on: GET /readyz.")

    @pytest.mark.parametrize("kind", [FastAPI, Starlette])
    def test_the_middleware_itself_and_what_is_around_it_are_taken_too(self, kind: type[Any], realm: Realm) -> None:
        class Around:
            def __init__(self, app: ASGIApp) -> None:
                self.app = app

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                await self.app(scope, receive, send)

        inner = kind(routes=[Route("/readyz", auth_ready)])
        given: dict[str, Any] = {"settings": settings(), "transport": realm.transport}
        door = ServiceAuthMiddleware(inner, public_paths=READY, **given)
        assert health(door).problem is not None
        TestClient(door).get("/readyz")
        assert health(door).ready
        assert health(Around(door)).ready

        around_routes = Router(
            [Route("/readyz", auth_ready)],
            middleware=[Middleware(ServiceAuthMiddleware, public_paths=READY, **given)],
        )
        TestClient(around_routes).get("/readyz")
        assert health(around_routes).ready

        added = kind(routes=[Route("/readyz", auth_ready)])
        added.add_middleware(ServiceAuthMiddleware, public_paths=READY, **given)
        assert health(Around(added)).problem is not None
        TestClient(added).get("/readyz")
        assert health(Around(added)).ready

    def test_a_guarded_route_can_return_it(self, realm: Realm, clock: Clock, keycloak: Keycloak) -> None:
        app = fastapi_app()

        @app.get("/internal/health", dependencies=[Depends(require_service())])
        async def internal_health(request: Request) -> Health:
            return health(request.app)

        ServiceTokenAuth(audience="bob", settings=caller_settings()).token()
        service = started(app, key_source(realm, clock))
        assert service.client.get("/internal/health").status_code == 401
        headers = {"Authorization": f"Bearer {realm.token()}"}
        answered = service.client.get("/internal/health", headers=headers).json()

        assert answered == json.loads(json.dumps(dataclasses.asdict(health(app))))
        assert answered["ready"] is True
        assert answered["keys"]["count"] == 1
        assert answered["tokens"][0]["audiences"] == ["bob"]

    def test_starlette_returns_it_as_a_dict(self, realm: Realm, clock: Clock) -> None:
        async def internal_health(request: Request) -> JSONResponse:
            return JSONResponse(dataclasses.asdict(health(request.app)))

        app = Starlette(routes=[Route("/internal/health", internal_health), Route("/readyz", auth_ready)])
        service = started(app, key_source(realm, clock), public_paths=[*READY, "/internal/health"])

        assert service.client.get("/internal/health").json()["ready"] is False

    def test_no_token_and_no_secret_is_in_any_form_of_it(
        self, service: Service, realm: Realm, keycloak: Keycloak
    ) -> None:
        token = ServiceTokenAuth(audience="bob", settings=caller_settings()).token()
        keycloak.always = refusal(401, "unauthorized_client", f"wrong: {SECRET} {jwt(sub='x')}")
        with pytest.raises(TokenRequestError):
            ServiceTokenAuth(audience="charles", settings=caller_settings()).token()
        realm.answer = lambda request: httpx.Response(500, text=SECRET)
        service.ready()
        seen = health(service.app)
        assert [one.last_error is None for one in seen.tokens] == [True, False]

        forms = [repr(seen), str(seen), json.dumps(dataclasses.asdict(seen)), repr(dataclasses.astuple(seen))]
        for secret in (SECRET, token, jwt(sub="x"), str(realm.key.private.as_dict(private=True)["d"])):
            assert not [form for form in forms if secret in form]

    def test_nobody_can_change_it(self, service: Service) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            health(service.app).ready = True  # type: ignore[misc]


DOCUMENT = {
    "realm": "corp",
    "enabled": True,
    "clients": [
        {
            "clientId": "chat-app-service",
            "secret": SECRET,
            "serviceAccountsEnabled": True,
            "publicClient": False,
            "protocolMappers": [
                {
                    "name": "for the gateway",
                    "protocol": "openid-connect",
                    "protocolMapper": "oidc-audience-mapper",
                    "config": {"included.custom.audience": "crm-api-gateway", "access.token.claim": "true"},
                }
            ],
        }
    ],
}


@pytest.fixture(scope="module")
def issuer() -> Iterator[EmbeddedIssuer]:
    issuer = EmbeddedIssuer(DOCUMENT)
    with issuer.serving():
        yield issuer


class TestOnSockets:
    @pytest.fixture(autouse=True)
    def sound(self, issuer: EmbeddedIssuer) -> Iterator[None]:
        yield
        issuer.faults.clear()
        issuer.requests.clear()

    @staticmethod
    @contextmanager
    def gateway(issuer: EmbeddedIssuer, clock: Clock, server: str = "uvicorn on h11") -> Iterator[str]:
        given = KeycloakSettings(url=issuer.url, realm="corp", client_id="crm-api-gateway")
        app = fastapi_with_plain_route()
        app.add_api_route("/tickets", lambda: "let in", dependencies=[Depends(require_service())])
        keys = KeySource(Endpoints.of(given), BackChannel(timeout=3.0), clock=clock)
        with served(started(app, keys, settings=given).app, server) as address:
            yield f"http://{address}"

    @pytest.mark.parametrize("server", ["uvicorn on h11", "uvicorn on httptools", "hypercorn on trio"])
    @pytest.mark.parametrize("fault", [disconnecting(), answering(503)])
    def test_keycloak_down_at_the_start_and_back_again_through_probes_alone(
        self, issuer: EmbeddedIssuer, clock: Clock, server: str, fault: Any
    ) -> None:
        issuer.faults.add("certs", fault, times=None)
        with self.gateway(issuer, clock, server) as url:
            first = httpx.get(f"{url}/readyz")
            again = httpx.get(f"{url}/readyz")
            issuer.faults.clear()
            clock.advance(int(first.headers["Retry-After"]))
            up = httpx.get(f"{url}/readyz")

            assert [first.status_code, again.status_code, up.status_code] == [503, 503, 200]
            assert up.json()["keys"]["count"] >= 1
            assert len(issuer.requests("certs")) == 2
            token = issuer.service_token("corp", "chat-app-service")
            answer = httpx.get(f"{url}/tickets", headers={"Authorization": f"Bearer {token}"})
            assert answer.json() == "let in"
            assert len(issuer.requests("certs")) == 2  # the probe's keys serve the request

    def test_an_outage_with_good_keys(self, issuer: EmbeddedIssuer, clock: Clock) -> None:
        with self.gateway(issuer, clock) as url:
            assert httpx.get(f"{url}/readyz").status_code == 200
            issuer.faults.add("certs", disconnecting(), times=None)
            clock.advance(3599)
            assert httpx.get(f"{url}/readyz").status_code == 200
            clock.advance(1)
            dead = httpx.get(f"{url}/readyz")
            assert dead.status_code == 503
            issuer.faults.clear()
            clock.advance(int(dead.headers["Retry-After"]))
            assert httpx.get(f"{url}/readyz").status_code == 200

    @pytest.mark.parametrize("package", [httpx, httpx2])
    def test_whichever_client_asks(self, issuer: EmbeddedIssuer, clock: Clock, package: Any) -> None:
        async def ask(url: str) -> tuple[int, Any]:
            async with package.AsyncClient() as client:
                response = await client.get(url)
                return response.status_code, response.json()

        expected = 200, {"ready": True, "keys": {"count": 1, "age": 0}, "tokens": NO_TOKENS}
        with self.gateway(issuer, clock) as url:
            assert asyncio.run(ask(f"{url}/readyz")) == expected
            assert trio.run(ask, f"{url}/readyz") == expected
            with package.Client() as client:
                assert client.get(f"{url}/readyz").json() == expected[1]


def http_scope(path: str) -> Scope:
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        "root_path": "",
    }


async def never() -> Any:
    await anyio.sleep_forever()


class TestThePage:
    def test_its_tables_are_the_fields(self) -> None:
        described = [[plain(row[0]) for row in table] for table in tables(DOCS / "health.md")]

        assert described[-3:] == [
            [field.name for field in dataclasses.fields(kind)] for kind in (Health, KeysHealth, TokenHealth)
        ]
