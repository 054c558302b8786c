"""Access tests: right apps pass them, broken apps fail them, and no code of the app's own runs."""

import functools
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from operator import or_
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.convertors import CONVERTOR_TYPES, Convertor
from starlette.middleware import Middleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from s2s_fastapi import (
    AuthorizationError,
    CurrentPrincipal,
    KeycloakSettings,
    ServiceAuthMiddleware,
    require_audience,
    require_bound,
    require_caller,
    require_claim,
    require_realm_role,
    require_role,
    require_scope,
    require_service,
    require_that,
    require_user,
)
from s2s_fastapi.declared.access_file import AppAccess, RouteEntry
from s2s_fastapi.testing import AccessOutcome, check_access
from s2s_fastapi.testing.access_cases import access_cases
from s2s_fastapi.testing.access_tests import AccessSuite
from tests.receiver.layouts.layout import assert_right

CRM = require_audience("crm") & require_caller("chat-app-service")
EXAMPLES = (
    "crm_gateway",
    "notification_service",
    "notification_service_by_scope",
    "bob",
    "charles",
    "gullible",
)
LAYOUTS = sorted(path.stem for path in (Path(__file__).parents[1] / "receiver/layouts/apps").glob("*.py"))


def ran() -> Any:
    raise AssertionError("the app's own code ran")


async def endpoint(request: Request) -> Any:
    ran()


async def socket(websocket: WebSocket) -> None:
    ran()


async def opaque(scope: Scope, receive: Receive, send: Send) -> None:
    ran()


def make(*, requirement: Any = CRM, **options: Any) -> FastAPI:
    """Return an app with one guarded route."""
    app = FastAPI(openapi_url=None)
    app.post("/tickets", dependencies=[Depends(requirement)])(ran)
    app.add_middleware(ServiceAuthMiddleware, **options)
    return app


def bad(app: Any, **options: Any) -> dict[str, AccessOutcome]:
    """Return the outcomes that did not hold, by name."""
    return {each.name: each for each in check_access(app, **options) if each.result != "held"}


def names(app: Any, **options: Any) -> list[str]:
    return [each.name for each in check_access(app, **options)]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_services_pass_and_everything_is_tried(name: str) -> None:
    app = importlib.import_module(f"example_app.{name}").app
    assert bad(app) == {}
    assert len(names(app)) > 5


@pytest.mark.parametrize("name", LAYOUTS)
def test_apps_that_are_right_and_unusual_pass_and_are_as_before_afterwards(name: str) -> None:
    module = importlib.import_module(f"tests.receiver.layouts.apps.{name}")
    assert bad(module.app) == {}
    assert_right(module)


def test_each_kind_of_caller_is_a_case_of_its_own() -> None:
    requirement = CRM & require_scope("write") & require_role("agent") & require_realm_role("staff")
    assert bad(make(requirement=requirement)) == {}
    assert names(make(requirement=requirement)) == [
        "POST /tickets: the right caller",
        "POST /tickets: no token",
        "POST /tickets: a user's token",
        "POST /tickets: another service",
        "POST /tickets: a wrong audience",
        "POST /tickets: without scope write",
        "POST /tickets: without role agent of crm",
        "POST /tickets: without realm role staff",
        "POST /tickets: an expired token",
    ]


def test_an_optional_path_is_open_without_credentials_and_closed_to_bad_ones() -> None:
    app = FastAPI(openapi_url=None)
    app.get("/search", dependencies=[Depends(CRM.optional())])(ran)
    app.add_middleware(ServiceAuthMiddleware, optional_paths=["/search"])
    assert bad(app) == {}
    assert names(app) == [
        "GET /search: the right caller",
        "GET /search: open without credentials",
        "GET /search: a user's token",
        "GET /search: another service",
        "GET /search: a wrong audience",
        "GET /search: an expired token",
    ]


PROVEN = {"dpop": "required", "public_url": "https://crm.example.com/api"}


@pytest.mark.parametrize("how", ["required", "on the route"])
def test_bound_tokens_are_tried_without_their_proof_and_with_that_of_a_thief(how: str) -> None:
    app = (
        make(**PROVEN)
        if how == "required"
        else make(requirement=CRM & require_bound(), **{**PROVEN, "dpop": "accepted"})
    )
    app.websocket("/live", dependencies=[Depends(CRM if how == "required" else CRM & require_bound())])(socket)
    outcomes = check_access(app)
    assert {each.result for each in outcomes} == {"held"}
    for route in ("POST /tickets", "WEBSOCKET /live"):
        for what in (
            "the right caller",
            "no token",
            "a wrong audience",
            "the same token without a proof",
            "the same token with a proof of another key",
            "a token that is bound to no key",
        ):
            assert f"{route}: {what}" in [each.name for each in outcomes]


class BelievesTheBinding(ServiceAuthMiddleware):
    """Lets everybody in who sends a bound token, with whatever proof."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        if headers.get(b"authorization", b"").startswith(b"DPoP ") and scope["path"] == "/tickets":
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def test_an_app_that_looks_at_no_proof_fails() -> None:
    app = FastAPI(openapi_url=None)
    app.post("/tickets")(ran)
    app.add_middleware(BelievesTheBinding, audience="crm", dpop="required", public_url="https://crm.example.com")
    found = bad(app, client_id="crm")
    assert {
        "POST /tickets: the same token without a proof",
        "POST /tickets: the same token with a proof of another key",
    } <= found.keys()
    text = found["POST /tickets: the same token without a proof"].text
    assert "POST with a token of service any-service, aud crm, bound, without a proof reached the endpoint" in text
    assert "401 proof_missing" in text


def test_an_app_that_still_accepts_bearer_tokens_is_tried_with_them_and_passes() -> None:
    assert bad(make(**{**PROVEN, "dpop": "accepted"})) == {}
    assert "POST /tickets: a token that is bound to no key" not in names(make(**{**PROVEN, "dpop": "accepted"}))


def test_a_claim_is_tried_and_a_condition_is_named_as_not_tried() -> None:
    tenant = require_claim("tenant", "acme") & require_claim(("org", "level"), 2)
    app = make(requirement=CRM & tenant)
    assert bad(app) == {}
    assert "POST /tickets: another value in claim tenant" in names(app)
    assert "POST /tickets: without claim org > level" in names(app)
    partner = require_that("partner of level 2", lambda caller: caller.client_id == "billing")
    found = bad(make(requirement=CRM & (tenant | partner)))
    assert list(found) == ['POST /tickets: not tried: condition "partner of level 2"']
    (outcome,) = found.values()
    assert outcome.result == "not tried"
    assert "Only the app can tell" in outcome.text
    assert list(bad(make(requirement=CRM & partner))) == list(found)


def test_every_branch_of_an_or_is_accepted_once() -> None:
    app = make(
        requirement=require_caller("a") | (require_service() & require_scope("read")) | require_user("web"),
        users=True,
        audience="crm",
    )
    assert bad(app) == {}
    found = names(app)
    assert [name for name in found if "the right caller" in name] == [
        "POST /tickets: the right caller",
        "POST /tickets: the right caller (2)",
        "POST /tickets: the right caller (3)",
    ]
    assert "POST /tickets: a user of another client" in found


def test_starlette_routes_mounts_hosts_sockets_and_opaque_apps_are_tried() -> None:
    app = Starlette(
        routes=[
            Route("/function", CRM.guard(endpoint), methods=["GET", "DELETE"]),
            Route("/number/{number:int}/{rest:path}", CRM.guard(endpoint)),
            WebSocketRoute("/socket", CRM.guard(socket)),
            Mount("/sub/{tenant}", app=Starlette(routes=[Route("/x", CRM.guard(endpoint))])),
            Mount("/files", app=CRM.guard(opaque)),
            Host("api.example.com", app=Starlette(routes=[Route("/hosted", CRM.guard(endpoint))])),
        ],
        middleware=[Middleware(ServiceAuthMiddleware)],
    )
    assert bad(app) == {}
    tried = {name.partition(":")[0] for name in names(app) if "no token" in name}
    assert tried == {
        "DELETE/GET /function",
        "/files",
        "WEBSOCKET /socket",
        "GET /sub/{tenant}/x",
        "GET //api.example.com/hosted",
    } | {
        "GET /number/{number"  # its own colon
    }


def test_a_middleware_around_an_app_is_found() -> None:
    app = ServiceAuthMiddleware(Starlette(routes=[Route("/x", CRM.guard(endpoint))]), public_paths=["/health"])
    found = bad(app)
    assert list(found) == ["GET /health: open without a token"]
    assert "No route that can be read answers it" in found["GET /health: open without a token"].text
    assert len(names(app)) == 7


def test_an_app_that_a_layer_hides_is_tested_and_nothing_of_it_runs() -> None:
    app = make()

    async def hidden(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    assert bad(hidden) == {}
    assert names(hidden) == names(app)

    class Hides:
        def __init__(self, app: Any) -> None:
            self.inner = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.inner(scope, receive, send)

    below = FastAPI(openapi_url=None)
    below.post("/tickets", dependencies=[Depends(CRM)])(ran)
    below.add_middleware(Hides)
    below.add_middleware(ServiceAuthMiddleware)
    assert bad(below) == {}
    assert names(below) == names(app)


def test_an_app_to_which_no_readable_route_leads_fails() -> None:
    class Dispatcher:
        def __init__(self) -> None:
            self.app = make()
            self.admin = FastAPI(openapi_url=None)
            self.admin.get("/admin/export")(ran)

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            chosen = self.admin if scope["path"].startswith("/admin") else self.app
            await chosen(scope, receive, send)

    failed = bad(Dispatcher())

    assert {name: outcome.result for name, outcome in failed.items()} == {"app with GET /admin/export": "failed"}
    assert "Mount it, or test it by itself." in failed["app with GET /admin/export"].text


def test_a_factory_is_called_once() -> None:
    made: list[FastAPI] = []

    def create_app() -> FastAPI:
        made.append(make())
        return made[-1]

    assert bad(create_app) == {}
    assert len(made) == 1


def test_public_paths_and_pages_are_cases() -> None:
    app = make(public_paths=["/healthz", "POST /hooks/{name}", "/static/logo.png"])
    app.get("/healthz")(ran)
    app.post("/hooks/{name}")(ran)
    app.mount("/static", opaque)
    assert bad(app) == {}
    assert [name for name in names(app) if "open" in name] == [
        "GET /healthz: open without a token",
        "POST /hooks/{name}: open without a token",
        "GET /static/logo.png: open without a token",
    ]


def test_the_client_and_the_audience_of_an_app_are_those_of_production() -> None:
    requirement = require_audience("tickets") & require_caller("a")
    assert bad(make(requirement=requirement), client_id="crm", audience="tickets") == {}
    (found,) = bad(make(requirement=requirement), client_id="crm").values()
    assert "no token of this app can meet its requirement" in found.text


def test_an_app_that_served_before_serves_the_same_afterwards() -> None:
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware, public_paths=["/open"])
    app.get("/open")(lambda: "as before")
    client = TestClient(app, raise_server_exceptions=False)
    before = client.get("/open").status_code
    assert bad(app, client_id="crm") == {}
    assert client.get("/open").status_code == before


# Broken apps


class LetsInBelow(ServiceAuthMiddleware):
    """Lets everybody in below one path."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path", "").startswith("/internal"):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def outside(kind: str) -> tuple[FastAPI | Starlette, str]:
    """Return an app with a path that goes round the middleware, and the name of the case that must find it."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(LetsInBelow)
    app.post("/tickets", dependencies=[Depends(CRM)])(ran)
    if kind == "route":
        app.add_route("/internal/x", endpoint)
        return app, "GET /internal/x: no token"
    if kind == "mount":
        app.mount("/internal", opaque)
        return app, "/internal: no token"

    @app.websocket("/internal/x")
    async def unguarded(websocket: WebSocket) -> None:
        ran()

    return app, "WEBSOCKET /internal/x: no token"


@pytest.mark.parametrize("kind", ["route", "mount", "websocket"])
def test_a_path_that_goes_round_the_middleware_is_found(kind: str) -> None:
    app, expected = outside(kind)
    found = bad(app)
    assert "without a token reached the endpoint" in found[expected].text
    assert "the route is outside of it" in found[expected].text
    # The right caller is let in without a decision, which proves nothing either.
    assert {each.result for each in found.values()} == {"failed"}
    assert sorted(found) == sorted(name for name in names(app) if "/internal" in name)


def test_a_method_that_goes_round_is_found_beside_a_method_that_an_earlier_route_answers() -> None:
    class LetsInDelete(ServiceAuthMiddleware):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope.get("method") == "DELETE":
                await self.app(scope, receive, send)
            else:
                await super().__call__(scope, receive, send)

    app = Starlette(
        routes=[Route("/x", endpoint), Route("/x", endpoint, methods=["GET", "DELETE"])],
        middleware=[Middleware(LetsInDelete, audience="crm")],
    )
    found = bad(app)
    assert {name.partition(":")[0] for name in found} == {"DELETE/GET /x"}
    assert found["DELETE/GET /x: no token"].result == "failed"


@pytest.mark.parametrize("method", ["HEAD", "DELETE"])
def test_a_method_that_goes_round_the_middleware_is_found(method: str) -> None:
    class LetsInMethod(ServiceAuthMiddleware):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope.get("method") == method:
                await self.app(scope, receive, send)
            else:
                await super().__call__(scope, receive, send)

    app = Starlette(
        routes=[Route("/x", endpoint, methods=["GET", "DELETE"])],
        middleware=[Middleware(LetsInMethod, audience="crm")],
    )
    text = bad(app)["DELETE/GET /x: no token"].text
    assert text.startswith(
        f"{method} without a token reached the endpoint. Expected was a refusal with 401 no_credentials"
    )
    assert len(text.splitlines()) == 1  # the other methods are right


def test_an_override_that_was_left_in_place_is_found() -> None:
    app = make()
    app.dependency_overrides[CRM] = lambda: None
    found = bad(app)
    assert list(found) == ["POST /tickets: another service"]
    text = found["POST /tickets: another service"].text
    assert "POST with a token of service another-service, aud crm reached the endpoint" in text
    assert "Expected was a refusal with 403 caller_not_allowed" in text


class Refuses:
    """Answers every request itself."""

    def __init__(self, app: Any, status: int) -> None:
        self.app = app
        self._status = status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("no", self._status)(scope, receive, send)


@pytest.mark.parametrize("status", [401, 404, 422, 500])
def test_an_app_that_refuses_everybody_proves_nothing(status: int) -> None:
    app = make(public_paths=["/healthz"])
    app.get("/healthz")(ran)
    app.add_middleware(Refuses, status=status)
    found = bad(app)
    assert sorted(found) == sorted(names(app))
    assert {each.result for each in found.values()} == {"failed"}
    assert "something else answered before" in found["POST /tickets: the right caller"].text
    assert "a refusal proves nothing here, because nobody gets in" in found["POST /tickets: no token"].text


def test_to_be_accepted_by_the_middleware_alone_is_not_to_get_in() -> None:
    app = FastAPI(openapi_url=None)
    app.post("/tickets", dependencies=[Depends(CRM)])(ran)
    app.add_middleware(Refuses, status=404)
    app.add_middleware(ServiceAuthMiddleware)
    found = bad(app)
    assert sorted(found) == sorted(names(app))
    assert "the decision was allowed; the answer was 404" in found["POST /tickets: the right caller"].text


def test_a_redirect_is_no_way_in() -> None:
    class Redirects:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await RedirectResponse("https://elsewhere.example.com")(scope, receive, send)

    app = make()
    app.add_middleware(Redirects)
    assert "the answer was 307" in bad(app)["POST /tickets: the right caller"].text


def test_a_refusal_that_is_answered_with_200_is_found() -> None:
    app = make()

    @app.exception_handler(AuthorizationError)
    async def sorry(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "sorry"}, status_code=200)

    found = bad(app)
    assert list(found) == ["POST /tickets: another service"]
    assert "was stopped in another way" in found["POST /tickets: another service"].text


def test_a_refusal_by_somebody_else_is_no_proof() -> None:
    """The app's own code refuses the caller today. The requirement that is declared is not asked."""

    def only_the_chat_app(caller: CurrentPrincipal) -> None:
        if caller.client_id != "chat-app-service":
            raise HTTPException(403)

    app = make()
    app.dependency_overrides[CRM] = only_the_chat_app
    found = bad(app)
    assert list(found) == ["POST /tickets: another service"]
    assert "the decision was allowed; the answer was 403" in found["POST /tickets: another service"].text


def test_headers_are_sent_with_every_request() -> None:
    app = make()
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["crm.example.com"])
    assert set(bad(app)) == set(names(app))
    assert bad(app, headers={"Host": "crm.example.com"}) == {}


def test_the_base_url_is_the_scheme_and_the_host_of_every_request() -> None:
    app = make()
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["crm.example.com"])
    app.add_middleware(HTTPSRedirectMiddleware)

    assert bad(app)
    assert bad(app, base_url="https://crm.example.com") == {}


def test_what_is_only_observed_is_no_refusal() -> None:
    found = bad(make(insecure_observe_until=str(datetime.now(UTC).date() + timedelta(days=30))))
    assert sorted(found) == [
        "POST /tickets: a user's token",
        "POST /tickets: a wrong audience",
        "POST /tickets: another service",
    ]
    assert "(only observed)" in found["POST /tickets: another service"].text


def test_an_app_without_a_middleware_fails_in_one_sentence() -> None:
    app = FastAPI()
    app.get("/x", dependencies=[Depends(require_caller("a"))])(ran)
    (found,) = check_access(app)
    assert found.result == "failed"
    assert "The app 'FastAPI' has no ServiceAuthMiddleware and calls no service. Add it: " in found.text


def test_an_app_that_does_not_start_fails_in_one_sentence() -> None:
    app = make(users=True)
    app.get("/x")(ran)
    (found,) = check_access(app)
    assert (found.name, found.result) == ("the app can be tested", "failed")
    assert "users=True accepts users as well as services" in found.text


def test_an_app_whose_first_request_fails_fails_in_one_sentence() -> None:
    found = bad(make(insecure_observe_until="2999-01-01"))
    assert set(found) == set(names(make(insecure_observe_until="2999-01-01")))
    assert {each.result for each in found.values()} == {"failed"}
    assert all("name an earlier day" in each.text for each in found.values())


class Day(Convertor[str]):
    regex = "[0-9]{4}-[0-9]{2}-[0-9]{2}"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


def test_what_cannot_be_computed_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that started has no requirement that nobody can meet; a file may have one."""
    monkeypatch.setitem(CONVERTOR_TYPES, "day", Day())
    many = require_caller("a") & functools.reduce(or_, (require_scope(f"s{number}") for number in range(51)))
    routes = [
        RouteEntry("/odd/{day:day}", ("GET",)),
        RouteEntry("/many", ("GET",), requires=many),
        RouteEntry("/nobody", ("GET",), requires=require_user()),
    ]
    cases = access_cases(AppAccess("crm", require_service(), tuple(routes)))
    assert [(case.route.path, case.not_tried) for case in cases] == [
        ("/odd/{day:day}", "No value for the parameters of its path is known."),
        ("/many", "Its requirement can be met in more than 50 ways."),
        ("/nobody", "No token can meet its requirement."),
    ]


def test_a_route_that_an_earlier_one_hides_is_not_tried() -> None:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware)
    app.get("/items/{item}", dependencies=[Depends(CRM)])(ran)
    app.get("/items/1", dependencies=[Depends(CRM)])(ran)
    found = bad(app)
    assert {name.partition(":")[0] for name in found} == {"GET /items/1"}
    assert {each.result for each in found.values()} == {"not tried"}
    assert "An earlier route answers its path: GET /items/{item}" in found["GET /items/1: no token"].text


def test_an_app_below_with_a_middleware_of_its_own_is_named() -> None:
    app = make()
    app.mount("/sub", make())
    (found,) = bad(app).values()
    assert found.result == "not tried"
    assert "write access_tests for that app" in found.text


def test_a_middleware_of_an_app_below_does_not_count_for_the_app_above() -> None:
    app = Starlette(routes=[Mount("/sub", app=make()), Route("/open", endpoint)])
    (found,) = check_access(app)
    assert "so every route of its own is open" in found.text
    assert "Apps below it have one" in found.text


def test_the_middleware_of_a_mount_or_of_a_router_is_not_the_one_of_the_app() -> None:
    guard = [Middleware(ServiceAuthMiddleware, audience="crm")]
    mounted, routed = (Route("/s", CRM.guard(endpoint)) for _ in range(2))
    mount, router = Mount("/mount", routes=[mounted], middleware=guard), Router([routed], middleware=guard)
    app = make()
    app.router.routes.append(mount)
    app.mount("/router", router)
    app.get("/own", dependencies=[Depends(CRM)])(ran)
    found = check_access(app)
    assert {each.name.partition(":")[0] for each in found if each.result == "held"} == {"POST /tickets", "GET /own"}
    assert [each.result for each in found if each.result != "held"] == ["not tried", "not tried"]
    for below in (mount.app, router):
        assert {each.result for each in check_access(below, client_id="crm")} == {"held"}


def test_an_app_above_without_a_route_of_its_own_is_not_open() -> None:
    app = Starlette(routes=[Mount("/sub", app=make()), Host("api.x.test", app=make())])
    found = check_access(app)
    assert [each.result for each in found] == ["not tried", "not tried"]
    assert all("write access_tests for that app" in each.text for each in found)


@pytest.mark.parametrize("openapi_url", [None, "/openapi.json"])
def test_an_app_whose_routes_are_not_there_yet_fails(tmp_path: Path, openapi_url: str | None) -> None:
    app = FastAPI(openapi_url=openapi_url)
    app.add_middleware(ServiceAuthMiddleware, audience="crm")
    (found,) = check_access(app)
    assert (found.result, found.text.partition(".")[0]) == ("failed", "This app has no route to try")
    path = reviewed(tmp_path, app, client_id="crm")
    assert found.name in bad(app, expect=path)


def test_code_in_front_of_routes_is_named_and_no_request_is_sent_there() -> None:
    class Own(Starlette):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            ran()

    app = make()
    app.mount("/own", Own(routes=[Route("/x", endpoint)]))
    found = bad(app)
    assert {each.result for name, each in found.items() if name.startswith("/own")} == {"not tried"}


# The access file


def reviewed(tmp_path: Path, app: Any, **options: Any) -> Path:
    """Return the access file of an app."""
    path = tmp_path / "access.json"
    suite = AccessSuite(app, path, options.get("client_id"), {})
    assert suite.outcome("access.json", update=True).result == "not tried"
    return path


def outside_the_guarded_router() -> FastAPI:
    app = make()
    router = APIRouter(dependencies=[Depends(CRM)])
    router.get("/inside")(ran)
    app.include_router(router)
    app.get("/outside")(ran)
    return app


@pytest.fixture(autouse=True)
def not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)


def test_a_reviewed_file_that_equals_the_app_holds(tmp_path: Path) -> None:
    path = reviewed(tmp_path, make())
    assert bad(make(), expect=path) == {}
    assert names(make(), expect=path)[0] == "access.json"


@pytest.mark.parametrize(
    "app",
    [
        lambda: make(requirement=require_audience("crm") & require_caller("billing")),
        lambda: make(requirement=CRM & require_scope("write")),
        lambda: make(requirement=CRM | require_user(), users=True),
        lambda: make(insecure_skip_audience=True),
        lambda: make(public_paths=["/health"]),
        outside_the_guarded_router,
    ],
    ids=["another caller", "one more scope", "users too", "any audience", "a public path", "a route outside"],
)
def test_a_file_that_does_not_equal_the_app_fails_and_shows_the_difference(
    app: Callable[[], FastAPI], tmp_path: Path
) -> None:
    path = reviewed(tmp_path, make())
    before = path.read_text()
    found = bad(app(), expect=path, client_id="crm")["access.json"]
    assert found.result == "failed"
    assert "\n--- access.json (reviewed)\n+++ declared by the app\n" in found.text
    assert any(line.startswith("+ ") for line in found.text.splitlines())
    assert path.read_text() == before


def test_a_missing_file_fails_and_names_the_option_that_writes_it(tmp_path: Path) -> None:
    found = bad(make(), expect=tmp_path / "access.json")
    assert list(found) == ["access.json"]
    assert "`pytest --s2s-update`" in found["access.json"].text
    assert not (tmp_path / "access.json").exists()


def test_the_file_is_not_written_where_ci_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    path = tmp_path / "access.json"
    found = AccessSuite(make(), path, None, {}).outcome("access.json", update=True)
    assert found.result == "failed"
    assert "writes nothing where CI is set" in found.text
    assert not path.exists()


def test_writing_changes_only_the_own_app_of_a_file_with_several(tmp_path: Path) -> None:
    path = reviewed(tmp_path, make())
    other = make(requirement=require_audience("other") & require_caller("a"))
    assert "has no app other, only crm" in bad(other, expect=path, client_id="other")["access.json"].text
    suite = AccessSuite(other, path, "other", {})
    assert suite.outcome("access.json", update=True).result == "not tried"
    assert [app["client_id"] for app in json.loads(path.read_text())["apps"]] == ["crm", "other"]
    assert bad(make(), expect=path) == {}
    assert bad(other, expect=path) == {}


def test_the_file_of_an_app_that_cannot_be_tested_fails_too(tmp_path: Path) -> None:
    app = make(users=True)
    app.get("/x")(ran)
    found = bad(app, expect=tmp_path / "access.json", client_id="crm")
    assert list(found) == ["access.json", "the app can be tested"]
    assert "users=True accepts users" in found["access.json"].text


def test_a_file_that_cannot_be_read_fails_and_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    path.write_text('{"version": 9}')
    found = AccessSuite(make(), path, None, {}).outcome("access.json", update=True)
    assert "version: it is 9" in found.text
    assert path.read_text() == '{"version": 9}'


def test_the_client_of_the_file_is_the_client_of_the_app(tmp_path: Path) -> None:
    """As for an app whose client id comes from the environment in production."""
    app = make(requirement=require_caller("a") & require_role("agent"))
    path = reviewed(tmp_path, app, client_id="crm")
    assert bad(app, expect=path) == {}
    assert "POST /tickets: without role agent of crm" in names(app, expect=path)


def test_a_client_that_was_made_up_is_not_written_into_a_file(tmp_path: Path) -> None:
    app = make(requirement=require_caller("a"))
    path = tmp_path / "access.json"
    found = AccessSuite(app, path, None, {}).outcome("access.json", update=True)
    assert found.result == "failed"
    assert "client_id=" in found.text
    assert not path.exists()


def test_an_app_that_only_calls_is_open_and_must_be_reviewed(tmp_path: Path) -> None:
    app = importlib.import_module("example_app.chat_app").app
    (found,) = check_access(app)
    assert "so every route of its own is open" in found.text
    path = reviewed(tmp_path, app, client_id="chat-app-service")
    assert bad(app, expect=path) == {}
    assert "POST /escalate: open to everybody" in names(app, expect=path)


# In pytest

TEST_FILE = """
from fastapi import Depends, FastAPI
from s2s_fastapi import ServiceAuthMiddleware, require_audience, require_caller
from s2s_fastapi.testing import access_tests

app = FastAPI(openapi_url=None)
app.add_middleware(ServiceAuthMiddleware)


@app.get("/tickets", dependencies=[Depends(require_audience("crm") & require_caller("chat-app-service"))])
def tickets() -> None:
    raise AssertionError


test_access = access_tests(app, expect="access.json")
"""


def pytest_in(folder: Path, **environment: str) -> list[str]:
    """Run pytest with ``--s2s-update`` in a folder, with our plugin alone, and return what it prints."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "s2s_fastapi_pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        "-rs",
        "--s2s-update",
    ]
    root = str(Path(__file__).parents[2])
    known = {"PATH": "", "PYTHONPATH": root, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment}
    return subprocess.run(
        command, cwd=folder, env=known, capture_output=True, text=True, check=False
    ).stdout.splitlines()


def test_in_pytest_each_case_is_an_item_and_the_option_writes_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_tickets.py").write_text(TEST_FILE)
    in_ci = pytest_in(tmp_path, CI="1")
    assert in_ci[-1].startswith("1 failed, 6 passed")
    assert any(line.startswith("--s2s-update writes nothing where CI is set") for line in in_ci)
    assert not (folder / "access.json").exists()
    here = pytest_in(tmp_path)
    assert here[-1].startswith("6 passed, 1 skipped")
    assert any("was written. Review it" in line for line in here)
    assert json.loads((folder / "access.json").read_text())["apps"][0]["client_id"] == "crm"


def test_an_app_that_does_not_start_fails_each_case_and_names_what_is_not_tried() -> None:
    inner = FastAPI()
    inner.add_middleware(ServiceAuthMiddleware, audience="inner")
    inner.get("/")(lambda: "in")
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, audience="x", insecure_observe_until="not a day")
    app.get("/", dependencies=[Depends(require_service())])(lambda: "in")
    app.mount("/inner", inner)
    outcomes = check_access(app)

    assert {each.result for each in outcomes if each.name.startswith("GET /:")} <= {"failed"}
    assert any("insecure_observe_until" in each.text for each in outcomes)
    assert len({each.name for each in outcomes}) == len(outcomes)


PARTNERS = KeycloakSettings(url="https://sso.techstore.test", realm="corp", name="partners", client_id="crm-there")
"""Keycloak gives this realm the name of ours, and its callers may have the names of ours too."""
OURS = require_caller("chat-app-service")
THEIRS = require_caller("chat-app-service", realm="partners") & require_role("agent", realm=PARTNERS.issuer)


def of_two_realms(requirement: Any = THEIRS) -> FastAPI:
    ours = KeycloakSettings(url="https://sso.corp.test", realm="corp", client_id="crm")
    app = FastAPI(openapi_url=None)
    app.get("/ours", dependencies=[Depends(OURS)])(ran)
    app.get("/theirs", dependencies=[Depends(requirement)])(ran)
    app.get("/both", dependencies=[Depends(OURS | requirement)])(ran)
    app.add_middleware(ServiceAuthMiddleware, settings=[ours, PARTNERS])
    return app


def test_routes_of_several_realms_are_tried_with_callers_of_each(tmp_path: Path) -> None:
    path = reviewed(tmp_path, of_two_realms())
    assert PARTNERS.issuer in path.read_text()
    assert bad(of_two_realms(), expect=path) == {}
    tried = names(of_two_realms())
    assert [name for name in tried if "another realm" in name] == [
        "GET /both: a caller of another realm",
        "GET /ours: a caller of another realm",
        "GET /theirs: a caller of another realm",
    ]
    assert "GET /both: the right caller (2)" in tried
    assert "GET /theirs: without role agent of crm-there" in tried


def test_a_route_that_a_caller_of_the_wrong_realm_gets_into_is_found() -> None:
    app = of_two_realms()
    app.dependency_overrides[OURS] = OURS | require_caller("chat-app-service", realm="partners")
    found = bad(app)
    assert list(found) == ["GET /ours: a caller of another realm"]
    text = found["GET /ours: a caller of another realm"].text
    assert f"service chat-app-service of the realm {PARTNERS.issuer}, aud crm-there reached the endpoint" in text
    assert "Expected was a refusal with 403 other_realm" in text
