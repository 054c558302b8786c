"""Apps with our middleware: the examples hold, planted holes are found, and nothing of the app runs or stays behind."""

import importlib
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.testclient import TestClient

from s2s_fastapi import KeycloakSettings, ServiceAuthMiddleware, require_caller, require_claim, require_that
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.testing.attack import attack
from tests.testing.attack import hosts
from tests.testing.attack.broken import ours

EXAMPLES = ("crm_gateway", "notification_service", "notification_service_by_scope", "charles", "bob")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_service_lets_no_attack_in(name: str) -> None:
    app = importlib.import_module(f"example_app.{name}").app

    report = attack(app)

    assert report.exit_code == 0
    assert {result.outcome for result in report.results} <= {"held", "not_applicable"}
    assert sum(route.full for route in report.routes) == 1


@pytest.mark.parametrize("name", sorted(ours.HOLES))
def test_a_hole_beside_our_middleware_is_found(name: str) -> None:
    make, route, case = ours.HOLES[name]

    report = attack(make(), only=[case, "signature-changed"])

    assert (route, case) in {(result.route, result.case.id) for result in report.holes}
    assert report.exit_code == 1


@pytest.mark.parametrize("name", sorted(ours.RIGHT))
def test_a_right_app_raises_no_alarm(name: str) -> None:
    report = attack(ours.RIGHT[name]())

    assert [str(result) for result in report.findings] == []
    assert [route.problem for route in report.routes if route.problem] == []


def test_a_claim_is_attacked_and_a_condition_that_a_made_up_caller_does_not_meet_is_left_out() -> None:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, audience="orders")
    conditions = {
        "/claim": require_claim(("org", "tenant"), "acme"),
        "/met": require_that("a service", lambda caller: caller.kind == "service"),
        "/unmet": require_caller("billing") & require_that("nobody", lambda _: False),
        "/broken": require_that("a tenant", lambda caller: bool(caller.claims["tenant"])),
        "/two values": require_claim("tenant", "acme", "umbrella") & require_claim("tenant", "stark", "umbrella"),
        "/either": require_that("nobody", lambda _: False) | require_caller("billing"),
    }
    for path, requirement in conditions.items():
        app.add_api_route(path, ours_ran, dependencies=[Depends(requirement)])

    report = attack(app, only=["audience-other", "stranger"])

    assert report.exit_code == 0
    assert {route.route for route in report.routes if route.left_out} == {"GET /unmet", "GET /broken"}
    assert all("Its condition (require_that) is not met" in route.problem for route in report.routes if route.left_out)
    outcomes = {result.route for result in report.results if result.outcome == "held"}
    assert outcomes == {"GET /claim", "GET /met", "GET /two values", "GET /either"}


def ours_ran() -> None:
    raise AssertionError("the app's own code ran")


def test_an_app_of_several_realms_is_attacked_in_the_first_one_and_by_the_others() -> None:
    ours = KeycloakSettings(url="https://sso.corp.test", realm="corp", client_id="crm")
    partners = KeycloakSettings(url="https://sso.techstore.test", realm="corp", name="partners", client_id="there")
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, settings=[ours, partners])
    theirs = require_caller("shop", realm="partners")
    app.add_api_route("/ours", ours_ran, dependencies=[Depends(require_caller("billing", realm="corp"))])
    app.add_api_route("/both", ours_ran, dependencies=[Depends(require_caller("billing") | theirs)])
    app.add_api_route("/theirs", ours_ran, dependencies=[Depends(theirs)])

    report = attack(app)

    assert report.exit_code == 0
    outcomes = {route.route: {each.outcome for each in route.results} for route in report.routes}
    assert outcomes == {"GET /ours": {"held"}, "GET /both": {"held"}, "GET /theirs": {"not_tried"}}
    assert next(route.problem for route in report.routes if route.left_out).startswith(
        "Only callers of a further realm"
    )
    by_the_partner = {each.case.id for each in report.results if each.case.by_a_further_realm}
    assert len(by_the_partner) == 2


def test_an_app_that_is_a_resource_is_attacked_with_tokens_for_its_url() -> None:
    app = FastAPI(openapi_url=None)
    given = KeycloakSettings(url="http://x", realm="corp", client_id="tools")
    url = "https://tools.example.com/mcp"
    app.add_middleware(ServiceAuthMiddleware, settings=given, public_url=url, resource=True)
    app.get("/mcp", dependencies=[Depends(require_caller("agent"))])(lambda: None)

    report = attack(app, only=["audience", "path", "caller"])

    assert report.exit_code == 0
    assert [route.route for route in report.routes] == ["GET /mcp"]
    assert {result.outcome for result in report.results} <= {"held", "not_applicable"}


def test_an_app_of_one_realm_may_name_it() -> None:
    app = FastAPI(openapi_url=None)
    settings = KeycloakSettings(url="https://sso.corp.test", realm="corp", client_id="crm")
    app.add_middleware(ServiceAuthMiddleware, settings=settings)
    app.add_api_route("/ours", ours_ran, dependencies=[Depends(require_caller("billing", realm="corp"))])

    report = attack(app, only=["no-token"])

    assert {str(each.outcome) for each in report.results} == {"held"}


def test_each_middleware_gets_the_full_list_on_one_route() -> None:
    report = attack(ours.two_services(), only=["audience"])

    assert [(route.route, route.full) for route in report.routes] == [
        ("GET /crm/crm/{number}", True),
        ("GET /billing/billing/{number}", True),
    ]


def test_the_middleware_of_a_mount_or_of_a_router_is_attacked_under_its_path() -> None:
    report = attack(hosts.mounts_with_middleware(), only=["no-token", "stranger"])

    assert report.exit_code == 0
    assert {(route.route, route.full) for route in report.routes if route.route.startswith("GET")} == {
        (f"GET {path}/s", True) for path in ("", "/a/b/c/mount", "/router")
    }
    assert {str(each.outcome) for each in report.results} == {"held"}


def test_a_case_of_each_kind_is_tried_on_every_route() -> None:
    report = attack(ours.thirty_routes())

    kinds = {result.case.kind for result in report.results}
    for route in report.routes:
        assert {result.case.kind for result in route.results} >= kinds - {"no-keys"}
    assert report.exit_code == 0


def test_whoever_may_not_call_by_the_requirement_is_the_stranger_and_whoever_may_is_not_tried() -> None:
    report = attack(ours.many_requirements(), only=["stranger", "user"])

    outcomes = {(result.route, result.case.id): result.outcome for result in report.results}
    assert outcomes[("GET /1", "stranger")] == "held"
    assert outcomes[("GET /0", "stranger")] == "not_applicable"
    assert outcomes[("GET /1", "user")] == "held"
    assert outcomes[("GET /3", "user")] == "not_applicable"


def test_a_public_route_is_listed_and_not_attacked() -> None:
    report = attack(ours.orders(), only=["no-token"])

    health = report.routes[0]
    assert (health.route, health.public, health.results) == ("GET /health", True, ())


def test_a_route_outside_may_be_called_public() -> None:
    report = attack(ours.outside_of_the_guarded_app(), only=["no-token"], public=["GET /forgotten", "HEAD /forgotten"])

    assert report.exit_code == 0


def test_afterwards_the_app_is_as_before_and_trusts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware)
    app.add_api_route("/orders", lambda: "ran")
    document = app.openapi()

    attack(app, only=["no-token"])

    assert app.openapi() == document
    assert app.middleware_stack is None
    for name, value in {"URL": "http://k:8080", "REALM": "corp", "CLIENT_ID": "crm"}.items():
        monkeypatch.setenv(f"KEYCLOAK_{name}", value)
    response = TestClient(app).get("/orders")
    assert response.status_code == 401
    assert 'realm="crm"' in response.headers["WWW-Authenticate"]


def test_an_app_without_our_middleware_is_refused_in_a_sentence() -> None:
    with pytest.raises(ConfigurationError, match="has no ServiceAuthMiddleware"):
        attack(FastAPI())


def test_an_app_that_does_not_start_cannot_be_attacked() -> None:
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware, public_paths=["/nowhere/*"])

    with pytest.raises(ConfigurationError, match="is a pattern"):
        attack(app)


@pytest.mark.parametrize("names", [["no-such-case"], ["audience", "no-such-case"]])
@pytest.mark.parametrize("option", ["only", "without"])
def test_a_case_that_does_not_exist_is_named(option: str, names: list[str]) -> None:
    options: dict[str, Any] = {option: names}
    with pytest.raises(ConfigurationError, match="no case and no kind of cases named no-such-case"):
        attack(ours.orders(), **options)


def test_what_is_left_out_is_not_in_the_report() -> None:
    report = attack(ours.without_audience(), without=["audience", "cache-by-jti-for-another-audience"])

    assert report.exit_code == 0
    assert "audience-other" not in {result.case.id for result in report.results}


def test_a_refusal_for_another_reason_is_a_finding() -> None:
    report = attack(ours.wrong_reason(), only=["audience-other"])

    assert {(result.outcome, result.detail) for result in report.results} == {
        ("otherwise", "401 malformed_token, expected wrong_audience")
    }
    assert report.exit_code == 1


def test_an_attack_that_our_middleware_accepts_is_a_hole_whatever_the_app_answers_then() -> None:
    report = attack(ours.observed_and_lost(), only=["audience-other"])

    assert [(result.outcome, result.detail) for result in report.results] == [("accepted", "404 wrong_audience")]


def test_no_code_of_an_endpoint_runs() -> None:
    report = attack(ours.orders())

    assert {result.outcome for result in report.results} <= {"held", "not_applicable"}  # the endpoints raise


def test_an_app_to_which_no_readable_route_leads_is_a_finding() -> None:
    report = attack(ours.dispatched(), only=["no-token"])

    assert [route.route for route in report.routes if route.unread] == ["APP with GET /admin/export"]
    assert (report.exit_code, report.holes) == (1, ())


@pytest.mark.tells_secrets("the limit answers in front of our middleware, which keeps a token out of spans", "span GET")
def test_an_app_that_stops_to_answer_is_not_green() -> None:
    report = attack(ours.behind(ours.Limit))

    assert report.holes == ()
    assert "GET /orders" in {route.route for route in report.unproven}
    assert report.exit_code == 2


@pytest.mark.parametrize(
    ("layer", "options"),
    [(TrustedHostMiddleware, {"allowed_hosts": ["api.example.com"]}), (HTTPSRedirectMiddleware, {})],
)
def test_an_app_that_insists_on_its_host_or_on_https_is_tried_under_its_base_url(layer: Any, options: Any) -> None:
    app = ours.orders()
    app.add_middleware(layer, **options)

    assert attack(app, only=["no-token"]).exit_code == 2
    report = attack(app, only=["no-token"], base_url="https://api.example.com")

    assert report.exit_code == 0
    assert {result.outcome for result in report.results} == {"held"}


@pytest.mark.parametrize("url", ["api.example.com", "ftp://api.example.com", "https://", "https://x:y"])
def test_a_base_url_that_is_none_is_refused_in_a_sentence(url: str) -> None:
    with pytest.raises(ConfigurationError, match="Write the base URL as https://"):
        attack(ours.orders(), base_url=url)


def test_a_public_page_that_answers_in_the_place_of_the_attacked_route_is_no_hole() -> None:
    report = attack(ours.catches_all(), only=["parameter-named-like-a-public-page"])

    (result,) = (result for result in report.results if result.route.startswith("GET"))
    assert (result.outcome, result.detail) == ("not_tried", "a public route answered: GET /health")
    assert report.exit_code == 0
