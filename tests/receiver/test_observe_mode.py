"""Until the day that is named, good tokens that may not are let in and told; bad ones never, and from that second on nobody."""

import datetime as dt
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import pytest
from fastapi import Depends, FastAPI, Request, WebSocket, WebSocketDisconnect
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse

from s2s_fastapi import (
    ConfigurationError,
    KeycloakSettings,
    ServiceAuthMiddleware,
    require_audience,
    require_caller,
    require_realm_role,
    require_scope,
    require_service,
    require_user,
)
from s2s_fastapi.accepted import INBOUND, digest
from tests.kit.realm import Clock, Realm, SigningKey, settings
from tests.kit.receiving import App, Client, Options

DAY = "2027-01-31"
END = dt.datetime(2027, 1, 31, tzinfo=dt.UTC).timestamp()

GOOD: dict[str, Any] = {"scope": "tickets", "realm_access": {"roles": ["clerk"]}}
ASKED = (
    require_audience("crm-api-gateway", only=True)
    & require_caller("chat-app-service")
    & require_scope("tickets")
    & require_realm_role("clerk")
)

TOLD: dict[str, tuple[dict[str, Any], str]] = {
    "another audience": ({"aud": "bob"}, "wrong_audience"),
    "no audience": ({"aud": None}, "wrong_audience"),
    "one more audience": ({"aud": ["crm-api-gateway", "bob"]}, "audience_not_only"),
    "a user": ({"client_id": None, "sid": "s"}, "not_a_service"),
    "an unknown kind": ({"client_id": None}, "unknown_kind"),
    "another caller": ({"azp": "billing", "client_id": "billing"}, "caller_not_allowed"),
    "no scope": ({"scope": ""}, "scope_missing"),
    "no role": ({"realm_access": {"roles": []}}, "role_missing"),
}

FORGER = SigningKey("RS256")
NOW = int(END) - 1

REFUSED: dict[str, tuple[Callable[[Realm], str | None], int, str]] = {
    "no token": (lambda realm: None, 401, "no_credentials"),
    "two words": (lambda realm: "a b", 400, "invalid_request"),
    "no JWT": (lambda realm: "abc", 401, "malformed_token"),
    "no signature": (lambda realm: realm.token(**FRESH, header={"alg": "none"}), 401, "algorithm_not_allowed"),
    "a key nobody has": (lambda realm: realm.token(**FRESH, header={"kid": "x"}), 401, "unknown_key"),
    "another's signature": (
        lambda realm: realm.token(**FRESH, key=FORGER, header={"kid": realm.key.kid}),
        401,
        "invalid_signature",
    ),
    "no azp": (lambda realm: realm.token(**FRESH, azp=None), 401, "malformed_claims"),
    "another issuer": (lambda realm: realm.token(**FRESH, iss=f"{realm.issuer}2"), 401, "wrong_issuer"),
    "an ID token": (lambda realm: realm.token(**FRESH, typ="ID"), 401, "wrong_type"),
    "a bound token": (lambda realm: realm.token(**FRESH, cnf={"jkt": "x"}), 401, "sender_constrained"),
    "expired": (lambda realm: realm.token(**{**FRESH, "exp": NOW - 31, "iat": NOW - 300}), 401, "expired"),
    "not yet valid": (lambda realm: realm.token(**FRESH, nbf=NOW + 60), 401, "not_yet_valid"),
    "25 hours": (lambda realm: realm.token(**{**FRESH, "exp": NOW + 25 * 3600}), 401, "lifetime_too_long"),
    "revoked": (lambda realm: realm.token(**{**FRESH, "iat": NOW - 100}), 401, "revoked"),
}
FRESH: dict[str, Any] = {"iat": NOW, "exp": NOW + 300}


@dataclass
class There:
    """An app that observes until `DAY`, one second before."""

    clock: Clock
    realm: Realm
    observed: Any
    client: TestClient

    def headers(self, **changes: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.realm.token(**{**FRESH, **GOOD, **changes})}"}

    def get(self, path: str = "/x", **changes: Any) -> Any:
        return self.client.get(path, headers=self.headers(**changes))

    def connect(self, headers: dict[str, str], path: str = "/x") -> Any:
        """Return what a WebSocket is answered, or its denial."""
        try:
            with self.client.websocket_connect(path, headers=headers) as socket:
                return socket.receive_json()
        except WebSocketDenialResponse as denial:
            return denial

    def at(self, now: float) -> Self:
        self.clock.now = now
        return self


def whoami(connection: Any) -> list[str]:
    return [connection.user.client_id, connection.user.kind, *sorted(connection.user.audiences)]


def fastapi(**options: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, **options)

    @app.get("/x", dependencies=[Depends(ASKED)])
    async def x(request: Request) -> list[str]:
        return whoami(request)

    @app.websocket("/x", dependencies=[Depends(ASKED)])
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(whoami(websocket))
        await websocket.close()

    return app


def starlette(**options: Any) -> Starlette:
    @ASKED.guard
    async def x(request: Request) -> Response:
        return JSONResponse(whoami(request))

    @ASKED.guard
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(whoami(websocket))
        await websocket.close()

    routes = [Route("/x", x), WebSocketRoute("/x", socket)]
    return Starlette(routes=routes, middleware=[Middleware(ServiceAuthMiddleware, **options)])


@pytest.fixture
def clock() -> Clock:
    return Clock(END - 1)


Around = Callable[[Any], There]


@pytest.fixture
def around(realm: Realm, observed: Any, clock: Clock) -> Around:
    def around(app: Any) -> There:
        return There(clock, realm, observed, TestClient(app, raise_server_exceptions=False))

    return around


@pytest.fixture
def observing(options: Options, clock: Clock) -> Options:
    """Keyword arguments of a middleware that observes until `DAY`."""
    return lambda **changes: options(**{"insecure_observe_until": DAY, "clock": clock, **changes})


@pytest.fixture(params=[fastapi, starlette], ids=["FastAPI", "Starlette"])
def there(request: pytest.FixtureRequest, around: Around, observing: Options) -> There:
    return around(request.param(**observing()))


class TestOnlyTold:
    @pytest.mark.parametrize(("changes", "reason"), TOLD.values(), ids=TOLD)
    def test_a_good_token_that_may_not_is_let_in_until_the_day(
        self, there: There, changes: dict[str, Any], reason: str
    ) -> None:
        response = there.get(**changes)
        assert response.status_code == 200
        (decision,) = there.observed.decisions
        assert (decision.outcome, str(decision.reason), decision.method, decision.route) == (
            "observed",
            reason,
            "GET",
            "/x",
        )
        assert decision.cure
        assert there.at(END).get(**changes).status_code == decision.status
        assert there.observed.decisions[-1].outcome == "refused"
        assert there.observed.reasons == [reason, reason]

    @pytest.mark.parametrize(("changes", "reason"), TOLD.values(), ids=TOLD)
    def test_so_is_its_websocket(self, there: There, changes: dict[str, Any], reason: str) -> None:
        headers = there.headers(**changes)
        assert there.connect(headers)[0] == changes.get("azp", "chat-app-service")
        (decision,) = there.observed.decisions
        assert (decision.outcome, str(decision.reason), decision.method, decision.route) == (
            "observed",
            reason,
            "WEBSOCKET",
            "/x",
        )
        assert there.at(END).connect(headers).status_code == decision.status

    def test_the_principal_is_the_true_one(self, there: There) -> None:
        user: dict[str, Any] = {"client_id": None, "sid": "s", "azp": "crm-ui", "aud": ["bob", "account"]}
        assert there.get(**user).json() == ["crm-ui", "user", "account", "bob"]
        assert there.connect(there.headers(**user)) == ["crm-ui", "user", "account", "bob"]

    def test_all_reasons_are_told_each_once_for_a_request(self, there: There) -> None:
        there.get(azp="eve", client_id="eve", aud=["bob"], scope="", realm_access={})
        assert there.observed.reasons == ["wrong_audience", "caller_not_allowed", "scope_missing", "role_missing"]
        assert {decision.client_id for decision in there.observed.decisions} == {"eve"}
        assert {decision.outcome for decision in there.observed.decisions} == {"observed"}

    def test_what_is_wrong_with_the_token_itself_is_reported_reason_by_reason(
        self, observing: Options, around: Around
    ) -> None:
        app = FastAPI(openapi_url=None)
        app.add_middleware(ServiceAuthMiddleware, **observing())
        app.get("/x")(lambda: None)
        there = around(app)

        assert there.get(client_id=None, sid="s", aud="bob").status_code == 200
        assert there.observed.reasons == ["wrong_audience", "not_a_service"]
        assert there.at(END).get(client_id=None, sid="s", aud="bob").status_code == 401
        assert there.observed.reasons == ["wrong_audience", "not_a_service", "wrong_audience"]

    def test_its_token_is_known_as_one_that_must_not_go_on(self, observing: Options, around: Around) -> None:
        app, seen = FastAPI(openapi_url=None), list[bytes | None]()
        app.add_middleware(ServiceAuthMiddleware, **observing())
        app.get("/x")(lambda: seen.append(INBOUND.get()))
        there = around(app)
        headers = there.headers(aud="bob")

        assert there.client.get("/x", headers=headers).status_code == 200
        assert seen == [digest(headers["Authorization"].removeprefix("Bearer "))]

    def test_a_request_that_is_allowed_is_told_as_that_and_nothing_else(self, there: There) -> None:
        assert there.get().status_code == 200
        assert [decision.outcome for decision in there.observed.decisions] == ["allowed"]


class TestAlwaysRefused:
    @pytest.mark.parametrize(("token", "status", "reason"), REFUSED.values(), ids=REFUSED)
    def test_a_bad_token_is_refused_while_others_are_only_told(
        self, there: There, token: Callable[[Realm], str | None], status: int, reason: str
    ) -> None:
        there.realm.not_before = NOW - 50 if reason == "revoked" else 0
        text = token(there.realm)
        headers = {} if text is None else {"Authorization": f"Bearer {text}"}
        response = there.client.get("/x", headers=headers)
        assert (response.status_code, there.observed.reasons) == (status, [reason])
        assert response.headers["WWW-Authenticate"].startswith('Bearer realm="crm-api-gateway"')
        assert there.connect(headers).status_code == status
        assert [decision.outcome for decision in there.observed.decisions] == ["refused"] * 2

    def test_a_token_that_expires_is_refused_though_it_was_let_in(self, there: There) -> None:
        headers = there.headers(aud="bob", exp=NOW - 30 + 1, iat=NOW - 300)
        there.at(NOW)
        assert there.client.get("/x", headers=headers).status_code == 200
        response = there.at(NOW + 1 - 0.01).client.get("/x", headers=headers)
        assert response.status_code == 200
        there.clock.now = NOW + 1
        assert there.client.get("/x", headers=headers).status_code == 401
        assert there.observed.reasons[-1] == "expired"

    def test_no_keys_stay_no_keys(self, there: There) -> None:
        there.realm.published = []
        assert there.get().status_code == 503


class TestTheAnswer:
    def test_is_exactly_what_the_app_sends(self, observing: Options, realm: Realm) -> None:
        def sending(status: int, **headers: str) -> Any:
            async def endpoint(request: Request) -> Response:
                return Response(b"mine", status, headers)

            return require_caller("nobody").guard(endpoint)

        routes = [
            Route("/200", sending(200, **{"X-Mine": "1"})),
            Route("/401", sending(401)),
            Route("/403", sending(403, **{"WWW-Authenticate": "Mine"})),
            Route("/304", sending(304)),
        ]
        app = ServiceAuthMiddleware(Starlette(routes=routes), **observing())
        there = TestClient(app)
        headers = {"Authorization": f"Bearer {realm.token(**FRESH, aud='bob')}"}
        for path, sent in {
            "/200": [("x-mine", "1"), ("content-length", "4")],
            "/401": [("content-length", "4")],
            "/403": [("www-authenticate", "Mine"), ("content-length", "4")],
            "/304": [],
        }.items():
            response = there.get(path, headers=headers)
            assert response.status_code == int(path[1:])
            assert response.headers.multi_items() == sent

    def test_of_an_error_in_the_app_is_the_apps(self, observing: Options, around: Around) -> None:
        async def broken(request: Request) -> Response:
            raise LookupError("mine")

        app = Starlette(
            routes=[Route("/x", require_caller("nobody").guard(broken))],
            middleware=[Middleware(ServiceAuthMiddleware, **observing())],
        )
        response = around(app).get()
        assert (response.status_code, response.text) == (500, "Internal Server Error")
        assert "WWW-Authenticate" not in response.headers


class TestTheDay:
    @pytest.mark.parametrize("cached", [10_000, 0], ids=["remembered", "not remembered"])
    @pytest.mark.parametrize("changes", [{"aud": "bob"}, {"azp": "eve", "client_id": "eve"}], ids=["aud", "caller"])
    def test_begins_in_the_same_second_for_a_token_that_was_let_in_before(
        self, observing: Options, around: Around, changes: dict[str, Any], cached: int
    ) -> None:
        app = fastapi(**observing(cached_tokens=cached))
        there = around(app)
        headers = there.headers(**changes)

        def get(now: float) -> int:
            return there.at(now).client.get("/x", headers=headers).status_code

        refused = 401 if "aud" in changes else 403
        assert [get(END - 1), get(END - 1), get(END - 0.001), get(END), get(END + 1)] == [200] * 3 + [refused] * 2
        assert get(END - 1) == 200  # a clock that was set back

    def test_leaves_a_websocket_open_that_was_let_in_before(self, observing: Options, around: Around) -> None:
        app = FastAPI(openapi_url=None)
        app.add_middleware(ServiceAuthMiddleware, **observing())

        @app.websocket("/echo", dependencies=[Depends(require_service())])
        async def echo(websocket: WebSocket) -> None:
            await websocket.accept()
            with suppress(WebSocketDisconnect):  # the client leaves when it has seen enough
                while True:
                    await websocket.send_text(await websocket.receive_text())

        there = around(app)
        with there.client.websocket_connect("/echo", headers=there.headers(aud="bob")) as socket:
            there.at(END + 1)
            socket.send_text("still")
            assert socket.receive_text() == "still"

    @pytest.mark.parametrize(
        "day",
        [
            "",
            "tomorrow",
            "2027-1-31",
            "20270131",
            "2027-W04-7",
            "2027-02-31",
            "2027-01-31T00:00",
            " 2027-01-31",
            "2027-01-31\n",
            "２０２７-01-31",
            20270131,
            True,
            dt.date(2027, 1, 31),
        ],
        ids=repr,
    )
    def test_must_be_written_as_a_day(self, make_app: App, client: Client, clock: Clock, day: Any) -> None:
        with (
            pytest.raises(ConfigurationError, match='takes a day such as "2027-01-31", not'),
            client(make_app(insecure_observe_until=day, clock=clock)),
        ):
            pass

    def test_may_be_366_days_ahead_and_no_further(self, make_app: App, client: Client, clock: Clock) -> None:
        clock.now = END - 366 * 86400
        with client(make_app(insecure_observe_until=DAY, clock=clock)):
            pass
        clock.now -= 1
        with (
            pytest.raises(ConfigurationError, match=f"insecure_observe_until is {DAY}, more than 366 days ahead"),
            client(make_app(insecure_observe_until=DAY, clock=clock)),
        ):
            pass

    @pytest.mark.parametrize("after", [0, 86400.0])
    def test_that_is_over_refuses_from_the_start_and_says_that_the_option_can_go(
        self, observing: Options, around: Around, clock: Clock, caplog: pytest.LogCaptureFixture, after: float
    ) -> None:
        clock.now = END + after
        app = fastapi(**observing())
        fresh: dict[str, Any] = {"iat": int(END + after), "exp": int(END + after) + 300}
        there = around(app)
        with there.client:
            assert there.get(**fresh, aud="bob").status_code == 401
            assert there.get(**fresh).status_code == 200
        (record,) = [record for record in caplog.records if record.name == "s2s_fastapi"]
        assert record.levelno == logging.WARNING
        assert f"insecure_observe_until is over since {DAY} 00:00 UTC" in record.message
        assert "Remove the option." in record.message

    def test_that_is_to_come_is_said_at_the_start(
        self, make_app: App, client: Client, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        with client(make_app(insecure_observe_until=DAY, clock=clock)):
            (record,) = [record for record in caplog.records if record.name == "s2s_fastapi"]
        assert record.levelno == logging.WARNING
        assert f"insecure_observe_until is on: before {DAY} 00:00 UTC" in record.message

    @pytest.mark.parametrize(
        "name",
        [
            f"{prefix}{name}"
            for prefix in ("KEYCLOAK_", "S2S_", "")
            for name in ("INSECURE_OBSERVE_UNTIL", "OBSERVE_UNTIL", "OBSERVING")
        ],
    )
    def test_is_not_read_from_the_environment(
        self, observing: Options, around: Around, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv(name, DAY)
        app = fastapi(**observing(insecure_observe_until=None))
        assert around(app).get(aud="bob").status_code == 401
        assert not [field for field in KeycloakSettings.model_fields if "observ" in field or "insecure" in field]


class TestWithOtherOptions:
    @pytest.fixture
    def make(self, observing: Options, around: Around) -> Callable[..., There]:
        def make(asked: Any, **changes: Any) -> There:
            app = FastAPI(openapi_url=None)
            app.add_middleware(ServiceAuthMiddleware, **observing(**changes))
            app.get("/x", dependencies=[Depends(asked)])(lambda: "ok")
            return around(app)

        return make

    def test_a_skipped_audience_is_not_told(self, make: Callable[..., There]) -> None:
        there = make(require_caller("chat-app-service"), insecure_skip_audience=True)
        assert there.get(aud="bob").status_code == 200
        assert there.get(aud="bob", azp="eve", client_id="eve").status_code == 200
        assert there.observed.reasons == ["allowed", "caller_not_allowed"]

    def test_users_are_told_only_where_they_may_not(self, make: Callable[..., There]) -> None:
        there = make(require_user("crm-ui"), users=True)
        user = {"client_id": None, "sid": "s", "azp": "crm-ui"}
        for changes in (user, {**user, "azp": "other-ui"}, {}, {"client_id": None}):
            assert there.get(**changes).status_code == 200
        assert there.observed.reasons == ["allowed", "caller_not_allowed", "not_a_user", "unknown_kind"]

    def test_the_audiences_that_the_routes_declare_are_told(self, make: Callable[..., There]) -> None:
        there = make(require_audience("crm"), settings=settings(client_id=None))
        assert there.get(aud="bob").status_code == 200
        assert there.observed.reasons == ["wrong_audience"]
        assert "expected crm" in there.observed.decisions[0].cure
        assert there.at(END).get(aud="bob").status_code == 401

    def test_a_start_that_would_fail_fails(self, make: Callable[..., There]) -> None:
        there = make(require_user(), users=False)
        with pytest.raises(ConfigurationError, match="no token of this app can meet"), there.client:
            pass

    @pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
    def test_an_app_below_a_mount_decides_for_itself(self, observing: Options, around: Around, inside: bool) -> None:
        inner, outer = FastAPI(openapi_url=None), FastAPI(openapi_url=None)
        inner.add_middleware(ServiceAuthMiddleware, **observing(insecure_observe_until=DAY if inside else None))
        inner.get("/x", dependencies=[Depends(require_service())])(lambda: "in")
        outer.get("/x", dependencies=[Depends(require_service())])(lambda: "out")
        outer.mount("/inner", inner)
        if not inside:
            outer.add_middleware(ServiceAuthMiddleware, **observing())
        there = around(outer)
        assert there.get("/inner/x", aud="bob").status_code == (200 if inside else 401)
        assert there.observed.reasons[0] == "wrong_audience"
        # Without a middleware a requirement is a programming error: nobody observes there.
        assert there.get("/x", aud="bob").status_code == (500 if inside else 200)

    def test_an_app_inside_that_observes_opens_nothing_outside(self, observing: Options, around: Around) -> None:
        inner, outer = FastAPI(openapi_url=None), FastAPI(openapi_url=None)
        inner.add_middleware(ServiceAuthMiddleware, **observing())
        inner.get("/x")(lambda: "in")
        outer.mount("/inner", inner)
        outer.add_middleware(ServiceAuthMiddleware, **observing(insecure_observe_until=None))
        there = around(outer)
        assert there.get("/inner/x", aud="bob").status_code == 401
        assert there.get("/inner/x").status_code == 200
