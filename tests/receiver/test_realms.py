"""An app that accepts tokens of two realms: who may call which route, what the app says of it, and what is never observed."""

import logging
from dataclasses import replace
from typing import Annotated, Any

import anyio
import httpx
import pytest
from fastapi import Depends, FastAPI, Security, WebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from s2s_fastapi import (
    AuthorizationError,
    ConfigurationError,
    Principal,
    ServiceAuthMiddleware,
    TokenVerifier,
    auth_ready,
    health,
    observed_refusals,
    openapi_schema,
    require_audience,
    require_bound,
    require_caller,
    require_claim,
    require_role,
    require_scope,
    require_service,
    require_that,
    require_user,
)
from s2s_fastapi.decision import Reason
from s2s_fastapi.requirement.require import FACTORIES
from tests.kit.realm import Clock, Realm
from tests.kit.realms import corp_and_partners, settings_of, transport_to
from tests.kit.receiving import Observed

OURS = require_caller("chat-app-service")
THEIRS = require_caller("chat-app-service", realm="partners")


class Bench:
    """An app of two realms, whose callers have the same client id in both."""

    def __init__(self, **options: Any) -> None:
        self.corp, self.partners = corp_and_partners()
        self.observed = Observed()
        self.app = FastAPI(openapi_url=None)
        changes = options.pop("changes", {})
        given: dict[str, Any] = {
            "settings": settings_of(self.corp, self.partners, **changes),
            "transport": transport_to(self.corp, self.partners),
            "observer": self.observed,
        }
        self.app.add_middleware(ServiceAuthMiddleware, **{**given, **options})
        self.client = TestClient(self.app, raise_server_exceptions=False)

    def route(self, requirement: Any, path: str = "/x") -> None:
        @self.app.get(path, dependencies=[Depends(requirement)])
        def endpoint() -> str:
            return "in"

    def asked(self, realm: Realm, path: str = "/x", **claims: Any) -> str:
        """Return ``in``, or why the caller was refused."""
        answer = self.client.get(path, headers={"Authorization": f"Bearer {realm.token(**claims)}"})
        return "in" if answer.status_code == 200 else str(self.observed.decisions[-1].reason)

    def outcomes(self, path: str = "/x", **claims: Any) -> list[str]:
        return [self.asked(realm, path, **claims) for realm in (self.corp, self.partners)]


@pytest.mark.parametrize(
    ("requirement", "outcomes"),
    [
        pytest.param(OURS, ["in", "other_realm"], id="the first realm"),
        pytest.param(require_caller("chat-app-service", realm="corp"), ["in", "other_realm"], id="the first by name"),
        pytest.param(THEIRS, ["other_realm", "in"], id="the second realm"),
        pytest.param(
            require_caller("chat-app-service", realm="http://keycloak.test/realms/partners"),
            ["other_realm", "in"],
            id="the second by its issuer",
        ),
        pytest.param(OURS | THEIRS, ["in", "in"], id="both"),
        pytest.param(require_service(), ["in", "other_realm"], id="any service"),
        pytest.param(require_service(realm="partners"), ["other_realm", "in"], id="any service of the second"),
        pytest.param(
            OURS | require_caller("b", realm="partners"), ["in", "caller_not_allowed"], id="another caller of the second"
        ),
        pytest.param(OURS & require_scope("profile"), ["in", "other_realm"], id="a scope"),
        pytest.param(THEIRS & require_scope("profile", realm="partners"), ["other_realm", "in"], id="a scope there"),
        pytest.param(
            THEIRS & require_scope("gold", realm="partners"), ["other_realm", "scope_missing"], id="no such scope there"
        ),
        pytest.param(
            THEIRS & require_audience("crm-api-gateway", realm="partners"), ["other_realm", "in"], id="an audience there"
        ),
        pytest.param(
            THEIRS & require_that("always", lambda _: True, realm="partners"), ["other_realm", "in"], id="a condition there"
        ),
        pytest.param(
            OURS | (THEIRS & require_that("never", lambda _: False, realm="partners")),
            ["in", "condition_not_met"],
            id="a condition that is not met",
        ),
    ],
)  # fmt: skip
def test_a_requirement_speaks_of_the_first_realm_unless_it_names_another(requirement: Any, outcomes: list[str]) -> None:
    bench = Bench()
    bench.route(requirement)
    assert bench.outcomes() == outcomes
    if "other_realm" in outcomes:
        decision = next(each for each in bench.observed.decisions if each.reason is Reason.OTHER_REALM)
        assert decision.status == 403
        assert "chat-app-service of the realm" in decision.cure


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: factory.__name__)
def test_every_kind_of_requirement_refuses_callers_of_another_realm_and_takes_a_realm(factory: Any) -> None:
    said: dict[Any, tuple[Any, ...]] = {
        require_service: (),
        require_bound: (),
        require_role: ("reader",),
        require_claim: ("tenant", "acme"),
        require_that: ("always", lambda _: True),
    }
    more = {"client": "crm"} if factory is require_role else {}
    theirs = Principal(
        client_id="a",
        kind="user" if factory is require_user else "service",
        issuer="https://partner.test/realms/p",
        issued_at=1,
        expires_at=2,
        audiences=frozenset({"a"}),
        scopes=frozenset({"a"}),
        realm_roles=frozenset({"a"}),
        client_roles={"crm": frozenset({"reader"})},
        claims={"tenant": "acme"},
        realm="partners",
        other_realm="partners",
        binding="dpop",
    )
    ours = replace(theirs, issuer="https://corp.test/realms/c", realm="corp", other_realm="")
    arguments = said.get(factory, ("a",))
    plain, named = factory(*arguments, **more), factory(*arguments, **more, realm="partners")
    assert [plain.judge(each).reason for each in (ours, theirs)] == [Reason.ALLOWED, Reason.OTHER_REALM]
    assert [named.judge(each).reason for each in (ours, theirs)] == [Reason.OTHER_REALM, Reason.ALLOWED]
    assert 'realm="partners")' in str(named)
    assert named != plain
    with pytest.raises(ConfigurationError, match="realm= takes the name"):
        factory(*arguments, **more, realm="")


def test_a_role_without_a_client_is_one_of_the_apps_own_client_in_that_realm() -> None:
    bench = Bench()
    bench.app.user_middleware.clear()
    ours, theirs = settings_of(bench.corp, bench.partners)
    theirs = theirs.model_copy(update={"client_id": "crm-at-the-partner", "audience": ("crm-api-gateway",)})
    bench.app.add_middleware(
        ServiceAuthMiddleware,
        settings=[ours, theirs],
        transport=transport_to(bench.corp, bench.partners),
        observer=bench.observed,
    )
    bench.route(THEIRS & require_role("reader", realm="partners"))
    role = {"roles": ["reader"]}
    assert bench.asked(bench.partners, resource_access={"crm-at-the-partner": role}) == "in"
    assert bench.asked(bench.partners, resource_access={"crm-api-gateway": role}) == "role_missing"
    assert bench.observed.decisions[-1].receiver == ""  # `explain` would ask our own realm about the partner's client


def test_authenticate_judges_the_realm_and_takes_its_own_client_there() -> None:
    corp, partners = corp_and_partners()
    ours, theirs = settings_of(corp, partners)
    theirs = theirs.model_copy(update={"client_id": "crm-at-the-partner", "audience": ("crm-api-gateway",)})
    verifier = TokenVerifier([ours, theirs], transport=transport_to(corp, partners))
    reader = THEIRS & require_role("reader", realm="partners")

    def asked(requirement: Any, owner: str) -> Any:
        token = partners.token(resource_access={owner: {"roles": ["reader"]}})
        return anyio.run(verifier.authenticate, [("authorization", f"Bearer {token}")], requirement)

    assert asked(reader, "crm-at-the-partner").realm == "partners"
    for requirement, owner in ((reader, "crm-api-gateway"), (OURS, "crm-at-the-partner")):
        with pytest.raises(AuthorizationError):
            asked(requirement, owner)


def test_the_scopes_of_security_are_those_of_the_callers_own_realm() -> None:
    bench = Bench()

    @bench.app.get("/x")
    def endpoint(caller: Annotated[Principal, Security(OURS | THEIRS, scopes=["profile"])]) -> str:
        return caller.realm

    @bench.app.get("/y")
    def other(caller: Annotated[Principal, Security(THEIRS, scopes=["gold"])]) -> str:
        return caller.realm

    assert bench.outcomes() == ["in", "in"]
    assert bench.outcomes("/y") == ["other_realm", "scope_missing"]


def test_a_guard_and_a_check_judge_the_realm_too() -> None:
    corp, partners = corp_and_partners()
    seen: list[Principal] = []

    def endpoint(request: Request) -> JSONResponse:
        seen.append(request.user)
        return JSONResponse({})

    app = Starlette(routes=[Route("/x", THEIRS.guard(endpoint)), Route("/y", OURS.guard(endpoint))])
    app.add_middleware(
        ServiceAuthMiddleware, settings=settings_of(corp, partners), transport=transport_to(corp, partners)
    )
    client = TestClient(app)
    headers = {"Authorization": f"Bearer {partners.token()}"}
    assert [client.get(path, headers=headers).status_code for path in ("/x", "/y")] == [200, 403]
    assert THEIRS.check(seen[0]) is seen[0]
    with pytest.raises(Exception, match="other_realm"):
        OURS.check(seen[0])


@pytest.mark.parametrize(
    ("options", "requirement", "sentence"),
    [
        pytest.param({}, None, "settings=[...] accepts tokens of several realms", id="no requirement"),
        pytest.param({}, require_scope("profile"), "must say who may call it", id="a scope alone"),
        pytest.param({}, require_scope("profile", realm="partners"), "must say who", id="a scope of the second alone"),
        pytest.param({}, OURS | require_scope("profile", realm="partners"), "must say who", id="one half says it"),
        pytest.param({}, require_caller("a", realm="partner"), "have the name partner (known: corp, partners)", id="unknown"),
        pytest.param({}, OURS | require_caller("a", realm="x"), "have the name x", id="unknown in one half"),
        pytest.param({}, OURS & THEIRS, "a token is of one realm", id="two realms at once"),
        pytest.param({"settings": []}, OURS, "names no realm", id="no settings"),
        pytest.param({"ready": ["partner"]}, OURS, "ready= takes", id="an unknown name in ready"),
        pytest.param({"ready": "partners"}, OURS, "ready= takes", id="a text in ready"),
        pytest.param({"users": True}, require_scope("profile"), "users=True accepts", id="with users"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_realms_stops_the_start(options: Any, requirement: Any, sentence: str) -> None:
    bench = Bench(**options)
    if requirement is None:
        bench.app.get("/x")(lambda: "in")
    else:
        bench.route(requirement)
    with pytest.raises(ConfigurationError) as caught, TestClient(bench.app):
        pass
    assert sentence in str(caught.value)


def test_a_realm_without_an_audience_stops_the_start() -> None:
    corp, partners = corp_and_partners()
    ours, theirs = settings_of(corp, partners)
    theirs = type(theirs)(url=theirs.url, realm=theirs.realm)
    app = FastAPI(dependencies=[Depends(OURS)])
    app.add_middleware(ServiceAuthMiddleware, settings=[ours, theirs], transport=transport_to(corp, partners))
    with pytest.raises(ConfigurationError, match="AUDIENCE"), TestClient(app):
        pass


def test_a_realm_is_never_observed_and_what_is_observed_is_within_one_realm() -> None:
    clock = Clock()
    bench = Bench(insecure_observe_until="2027-06-01", clock=clock)
    bench.route(OURS)
    bench.route(OURS | THEIRS, "/both")
    now: dict[str, Any] = {"iat": int(clock()), "exp": int(clock()) + 300}
    assert bench.outcomes(**now) == ["in", "other_realm"]
    assert bench.outcomes("/both", azp="b", client_id="b", **now) == ["in", "in"]
    rows = observed_refusals(bench.app).rows
    assert [(row.client_id, row.reason, row.issuer) for row in rows] == [
        ("b", "caller_not_allowed", bench.corp.issuer),
        ("b", "caller_not_allowed", bench.partners.issuer),
    ]


def test_users_of_the_second_realm_call_only_what_names_them() -> None:
    bench = Bench(users=True)
    bench.route(require_user("crm-ui", realm="partners"))
    bench.route(require_user("crm-ui"), "/y")
    headers = {"Authorization": f"Bearer {bench.partners.user_token()}"}
    assert [bench.client.get(path, headers=headers).status_code for path in ("/x", "/y")] == [200, 403]


def test_without_users_a_user_of_the_second_realm_is_refused() -> None:
    bench = Bench()
    bench.route(THEIRS)
    bench.client.get("/x", headers={"Authorization": f"Bearer {bench.partners.user_token()}"})
    assert bench.observed.reasons == ["not_a_service"]


def test_a_revocation_by_one_realm_closes_only_its_own_websockets() -> None:
    bench = Bench()

    @bench.app.websocket("/ws")
    async def talk(socket: WebSocket, _: Annotated[Principal, Depends(OURS | THEIRS)]) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text)

    headers = [{"Authorization": f"Bearer {realm.token()}"} for realm in (bench.corp, bench.partners)]
    with bench.client as client:
        for each in headers:
            with client.websocket_connect("/ws", headers=each) as socket:
                socket.send_text("x")
                assert socket.receive_text() == "x"
        stack: Any = bench.app.middleware_stack
        while not isinstance(stack, ServiceAuthMiddleware):
            stack = stack.app
        assert stack.verifier is not None
        stack.verifier.realms[1].keys.not_before = 2**40
        with client.websocket_connect("/ws", headers=headers[0]) as socket:
            socket.send_text("x")
            assert socket.receive_text() == "x"
        assert bench.asked(bench.partners, "/ws") == "revoked"


def test_readiness_follows_the_first_realm_and_shows_the_other() -> None:
    for ready, status in (([], 200), (["partners"], 503), (["corp"], 200)):
        bench = Bench(public_paths=["/readyz"], ready=ready)
        bench.app.add_api_route("/readyz", auth_ready)
        bench.partners.answer = lambda _: httpx.Response(500)
        with bench.client as client:
            answer = client.get("/readyz")
            assert answer.status_code == status
            assert answer.json()["keys"]["count"] == 1
            assert answer.json()["other_realms"] == [{"count": 0, "age": None}]
            found = health(bench.app)
        assert found.ready is (status == 200)
        assert found.keys is not None
        assert [each.issuer for each in (found.keys, *found.other_realms)] == [bench.corp.issuer, bench.partners.issuer]


def test_the_start_says_which_realms_are_accepted(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.route(OURS)
    with caplog.at_level(logging.INFO, logger="s2s_fastapi"), bench.client:
        pass
    assert (
        f"tokens of 2 realms are accepted: corp ({bench.corp.issuer}), partners ({bench.partners.issuer}). A requirement that names no "
        "realm speaks of corp."
    ) in caplog.messages


def test_the_openapi_document_has_a_scheme_for_each_realm() -> None:
    corp, partners = corp_and_partners()
    app = FastAPI()
    app.add_middleware(
        ServiceAuthMiddleware,
        settings=settings_of(corp, partners),
        transport=transport_to(corp, partners),
        public_paths=["/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"],
    )

    @app.get("/x", dependencies=[Depends(OURS | (THEIRS & require_scope("gold", realm="partners")))])
    def endpoint() -> str:
        return "in"

    document = openapi_schema(app)
    operation, schemes = document["paths"]["/x"]["get"], document["components"]["securitySchemes"]
    ours, theirs = (next(iter(entry)) for entry in operation["security"])
    assert ours == "ServiceToken"
    assert theirs.startswith("ServiceToken.keycloak.test-realms-partners-")
    assert operation["security"][1] == {theirs: ["gold"]}
    urls = [schemes[name]["flows"]["clientCredentials"]["tokenUrl"] for name in (ours, theirs)]
    assert urls == [f"{realm.issuer}/protocol/openid-connect/token" for realm in (corp, partners)]
    assert operation["x-service-auth"][1].endswith(f"of {partners.issuer}")
