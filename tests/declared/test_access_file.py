"""The access file: what means the same is written the same, what is unknown is refused, and the schema says what the reader says."""

import copy
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fastapi import Depends, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Host, Mount, Route, WebSocketRoute

from example_app import chat_app, crm_gateway, notification_service_by_scope
from s2s_fastapi import (
    DOCS,
    ConfigurationError,
    Principal,
    Requirement,
    read_access,
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
    service_client,
)
from s2s_fastapi.declared.access_file import SCHEMA, AccessFile, AppAccess, CallAccess, canonical, difference
from s2s_fastapi.declared.asked import leaves_of
from s2s_fastapi.declared.public_paths import PublicPaths
from s2s_fastapi.declared.start_check import AccessCheck, RealmAccess
from s2s_fastapi.downstream import Downstream
from s2s_fastapi.requirement.conditions import Condition

PARTNERS = "https://sso.partner.test/realms/shops"
LEAVES = (
    require_service(),
    require_caller("a", "b"),
    require_caller("b"),
    require_user(),
    require_user("web"),
    require_scope("read", "write"),
    require_role("admin"),
    require_role("admin", client="other"),
    require_realm_role("admin"),
    require_audience("api"),
    require_audience("api", "other", only=True),
    require_claim("tenant", "acme", 1, True, 1.0, "1"),
    require_claim(("org", "level"), 2),
    require_that("partner of level 2", lambda principal: principal.client_id == "a"),
    require_bound(),
    require_bound(realm=PARTNERS),
    require_caller("a", realm=PARTNERS),
    require_audience("api", realm=PARTNERS),
    require_role("admin", client="other", realm=PARTNERS),
)
REQUIREMENTS = st.recursive(
    st.sampled_from(LEAVES),
    lambda parts: st.builds(lambda one, other, both: one & other if both else one | other, parts, parts, st.booleans()),
    max_leaves=8,
)
PRINCIPALS = st.builds(
    Principal,
    kind=st.sampled_from(["service", "user", "unknown"]),
    client_id=st.sampled_from(["a", "b", "web"]),
    subject=st.just("s"),
    issuer=st.sampled_from(["i", PARTNERS]),
    other_realm=st.sampled_from(["", "shops"]),
    binding=st.sampled_from(["", "dpop"]),
    audiences=st.sets(st.sampled_from(["api", "other"])).map(frozenset),
    scopes=st.sets(st.sampled_from(["read", "write"])).map(frozenset),
    realm_roles=st.sets(st.just("admin")).map(frozenset),
    client_roles=st.just({"other": frozenset({"admin"})}) | st.just({}),
)


def declared(app: Any, client_id: str = "api", *, middleware: bool = True, **changes: Any) -> AppAccess:
    given: dict[str, Any] = {"audiences": frozenset({client_id}), "users": False, "skip_audience": False, **changes}
    public = PublicPaths(given.pop("public_paths", ()))
    check = AccessCheck(access=read_access(app), public=public, client_id=client_id, **given)
    return AppAccess.of(check, middleware=middleware)


def with_route(requirement: Requirement) -> AppAccess:
    app = Starlette(routes=[Route("/x", requirement.guard(endpoint))])
    return declared(app)


async def endpoint(request: Any) -> Any: ...


async def opaque(scope: Any, receive: Any, send: Any) -> None: ...


EXAMPLES: dict[str, Callable[[], AppAccess]] = {
    "crm-api-gateway": lambda: declared(crm_gateway.app, "crm-api-gateway", public_paths=["/healthz", "/docs"]),
    "notification-service": lambda: declared(notification_service_by_scope.app, "notification-service", users=True),
    "chat-app-service": lambda: declared(chat_app.app, "chat-app-service", middleware=False),
}


def test_the_file_of_three_services_is_read_back_as_it_was_written() -> None:
    file = AccessFile(())
    for make in EXAMPLES.values():
        file = file.with_app(make())
    assert [app.client_id for app in file.apps] == sorted(EXAMPLES)
    again = AccessFile.parse(file.text.encode())
    assert again == file
    assert again.text == file.text


def test_the_file_says_of_a_route_what_a_reviewer_asks() -> None:
    app = declared(crm_gateway.app, "crm-api-gateway", public_paths=["/healthz"])
    assert json.loads(AccessFile((app,)).text)["apps"][0] == {
        "client_id": "crm-api-gateway",
        "requires": {"and": [{"audience": ["crm-api-gateway"]}, {"service": "any"}]},
        "public_paths": ["/healthz"],
        "routes": [
            {"path": "/docs", "methods": ["GET", "HEAD"]},
            {"path": "/docs/oauth2-redirect", "methods": ["GET", "HEAD"]},
            {"path": "/healthz", "methods": ["GET"], "public": ["GET"]},
            {"path": "/openapi.json", "methods": ["GET", "HEAD"]},
            {"path": "/redoc", "methods": ["GET", "HEAD"]},
            {"path": "/tickets", "methods": ["GET"], "requires": {"caller": ["billing", "chat-app-service"]}},
            {
                "path": "/tickets",
                "methods": ["POST"],
                "requires": {"and": [{"audience": ["crm-api-gateway"]}, {"caller": ["chat-app-service"]}]},
            },
        ],
        "calls": [],
    }


def test_mounts_hosts_sockets_and_opaque_apps_are_in_the_file() -> None:
    app = Starlette(
        routes=[
            WebSocketRoute("/feed", require_user("web").guard(endpoint)),
            Mount("/files", app=require_caller("billing").guard(opaque)),
            Host("api.example.com", app=Starlette(routes=[Route("/x", endpoint, methods=["POST"])])),
        ]
    )
    assert json.loads(AccessFile((declared(app, users=True),)).text)["apps"][0]["routes"] == [
        {"path": "/feed", "websocket": True, "requires": {"user": ["web"]}},
        {"path": "/files", "opaque": True, "requires": {"caller": ["billing"]}},
        {"path": "/x", "methods": ["POST"], "host": "api.example.com"},
    ]


def test_a_socket_and_an_app_that_cannot_be_read_are_never_public() -> None:
    app = Starlette(routes=[WebSocketRoute("/feed", endpoint), Mount("/files", app=opaque), Route("/open", endpoint)])
    routes = declared(app, public_paths=["/feed", "/files", "/open", "DELETE /open"]).routes
    assert {route.path: route.public for route in routes} == {"/feed": (), "/files": (), "/open": ("GET", "HEAD")}


def test_the_app_says_what_its_middleware_requires_of_every_request() -> None:
    app = FastAPI(openapi_url=None)
    assert declared(app).requires == require_audience("api") & require_service()
    users = declared(app, users=True).requires
    assert users == require_audience("api") & (require_service() | require_user())
    assert declared(app, skip_audience=True).requires == require_service()
    assert declared(app, middleware=False).requires is None


def test_audiences_that_only_the_routes_name_are_what_the_middleware_requires() -> None:
    app = FastAPI(openapi_url=None)
    app.get("/x", dependencies=[Depends(require_audience("b", "a"))])(endpoint)
    assert declared(app, audiences=frozenset()).requires == require_audience("a", "b") & require_service()


def test_a_call_says_which_token_is_requested_and_its_origins_are_not_compared() -> None:
    def calling(url: str) -> AppAccess:
        crm = service_client(url, audience="crm", scope="tickets")
        app = FastAPI(openapi_url=None)
        app.get("/x", dependencies=[Depends(crm)])(endpoint)
        return declared(app)

    here, there = calling("http://localhost:8001"), calling("https://crm.example.com")
    assert here.calls == (CallAccess(("crm",), ("tickets",)),)
    assert here.calls[0].origins == ("http://localhost:8001",)
    assert here == there
    assert there.with_origins_of(here).calls[0].origins == ("http://localhost:8001",)


class OnBehalf:
    """What a route depends on to call on behalf of its user: it says so of its call."""

    downstream = Downstream(origins=("http://localhost:8001",), audiences=frozenset({"crm"}), on_behalf=True)

    async def __call__(self) -> None: ...


def test_a_call_on_behalf_of_users_is_another_call_than_one_of_the_service() -> None:
    app = FastAPI(openapi_url=None)
    own = service_client("http://localhost:8001", audience="crm")
    app.get("/users", dependencies=[Depends(OnBehalf())])(endpoint)
    app.get("/own", dependencies=[Depends(own)])(endpoint)
    found = declared(app)

    assert found.calls == (CallAccess(("crm",)), CallAccess(("crm",), on_behalf=True))
    text = AccessFile((found,)).text
    assert text.count("on_behalf") == 1
    assert '{"audiences": ["crm"], "scopes": [], "origins": ["http://localhost:8001"], "on_behalf": true}' in text
    assert AccessFile.parse(text.encode()).apps == (found,)
    jsonschema.validate(json.loads(text), json.loads(SCHEMA.read_text()))
    only_own = replace(found, calls=found.calls[:1])
    assert (
        '-        {"audiences": ["crm"], "scopes": [], "origins": ["http://localhost:8001"], "on_behalf": true}'
        in difference(found, only_own, name="x")
    )


def test_a_call_with_a_bound_token_is_another_call_than_one_with_a_bearer_token() -> None:
    app = FastAPI(openapi_url=None)
    app.get("/a", dependencies=[Depends(service_client("http://localhost:8001", audience="crm", dpop=True))])(endpoint)
    app.get("/b", dependencies=[Depends(service_client("http://localhost:8001", audience="crm", dpop=False))])(endpoint)
    found = declared(app)

    assert found.calls == (CallAccess(("crm",)), CallAccess(("crm",), dpop=True))
    text = AccessFile((found,)).text
    assert text.count("dpop") == 1
    assert '{"audiences": ["crm"], "scopes": [], "origins": ["http://localhost:8001"], "dpop": true}' in text
    assert AccessFile.parse(text.encode()).apps == (found,)
    jsonschema.validate(json.loads(text), json.loads(SCHEMA.read_text()))


def test_the_variable_says_of_calls_what_the_code_leaves_open(monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI(openapi_url=None)
    app.get("/a", dependencies=[Depends(service_client("http://localhost:8001", audience="crm"))])(endpoint)
    for name, value in {"URL": "http://localhost", "REALM": "corp", "DPOP": "true"}.items():
        monkeypatch.setenv(f"KEYCLOAK_{name}", value)
    assert declared(app).calls == (CallAccess(("crm",), dpop=True),)


@pytest.mark.parametrize("mode", ["accepted", "required"])
def test_an_app_says_whether_it_accepts_bound_tokens_and_its_urls_are_not_compared(mode: Any) -> None:
    app = FastAPI(openapi_url=None)
    app.get("/x", dependencies=[Depends(require_bound())])(endpoint)
    found = declared(app, dpop=mode, public_urls=("https://b.example", "https://a.example"))
    there = declared(app, dpop=mode, public_urls=("https://c.example",))

    (entry,) = json.loads(text := AccessFile((found,)).text)["apps"]
    assert (entry["dpop"], entry["public_urls"]) == (mode, ["https://a.example", "https://b.example"])
    assert entry["routes"][0]["requires"] == {"bound": True}
    assert AccessFile.parse(text.encode()).apps == (found,)
    assert AccessFile.parse(text.encode()).apps[0].public_urls == found.public_urls
    jsonschema.validate(json.loads(text), json.loads(SCHEMA.read_text()))
    assert found == there
    assert difference(found, there, name="x") == ""
    assert there.with_origins_of(found).public_urls == found.public_urls


def test_an_app_that_no_longer_requires_bound_tokens_differs_by_one_line() -> None:
    app = FastAPI(openapi_url=None)
    before, after = (declared(app, dpop=mode, public_urls=("https://a.example",)) for mode in ("required", "accepted"))
    changed = [line for line in difference(before, after, name="x").splitlines() if line[:2] in ("- ", "+ ")]
    assert changed == ['-      "dpop": "required",', '+      "dpop": "accepted",']


def test_an_app_that_refuses_bound_tokens_says_nothing_of_them() -> None:
    text = AccessFile((declared(FastAPI(openapi_url=None), public_urls=("https://a.example",)),)).text
    assert "dpop" not in text
    assert "public_urls" not in text
    calling = declared(FastAPI(openapi_url=None), middleware=False, dpop="accepted", public_urls=("https://a.example",))
    assert calling.dpop == ""
    assert AccessFile.parse(AccessFile((calling,)).text.encode()).apps == (calling,)


def test_an_app_that_takes_certificate_bound_tokens_says_so_and_no_other_one_does() -> None:
    app = FastAPI(openapi_url=None)
    app.get("/x", dependencies=[Depends(require_bound())])(endpoint)
    found, without = declared(app, certificate=True), declared(app)

    (entry,) = json.loads(text := AccessFile((found,)).text)["apps"]
    assert entry["client_certificate"] is True
    assert AccessFile.parse(text.encode()).apps == (found,)
    jsonschema.validate(json.loads(text), json.loads(SCHEMA.read_text()))
    changed = [line for line in difference(found, without, name="x").splitlines() if line[:2] in ("- ", "+ ")]
    assert changed == ['-      "client_certificate": true,']
    assert "client_certificate" not in AccessFile((declared(app, middleware=False, certificate=True),)).text


def test_a_base_url_that_cannot_be_found_out_is_an_error_in_one_sentence() -> None:
    app = FastAPI(openapi_url=None)
    app.get("/x", dependencies=[Depends(service_client(lambda: str(1 / 0), audience="crm"))])(endpoint)
    with pytest.raises(ConfigurationError, match="failed with ZeroDivisionError"):
        declared(app)


def test_a_base_url_that_is_none_is_said_as_it_is_without_an_access_file() -> None:
    app = FastAPI(openapi_url=None)
    app.get("/x", dependencies=[Depends(service_client(lambda: "crm", audience="crm"))])(endpoint)
    with pytest.raises(ConfigurationError, match="http"):
        declared(app)


def test_a_role_without_a_client_is_written_with_the_apps_own() -> None:
    assert with_route(require_role("w")).routes == with_route(require_role("w", client="api")).routes
    assert with_route(require_role("w")).routes != with_route(require_role("w", client="other")).routes


@given(REQUIREMENTS)
def test_every_requirement_is_read_back_as_it_was_written(requirement: Requirement) -> None:
    app = with_route(requirement)
    assert AccessFile.parse(AccessFile((app,)).text.encode()).apps == (app,)


@given(REQUIREMENTS, PRINCIPALS)
def test_the_form_that_is_written_lets_the_same_callers_in(requirement: Requirement, principal: Principal) -> None:
    reasons = [each.judge(principal, "api").reason for each in (requirement, canonical(requirement))]
    if any(isinstance(leaf, Condition) for leaf in leaves_of(requirement)):
        # By its name alone a condition lets nobody in.
        assert reasons[1] != "allowed" or reasons[0] == "allowed"
        assert (reasons[0] == "allowed") <= (reasons[1] in ("allowed", "condition_not_met"))
    else:
        assert (reasons[0] == "allowed") == (reasons[1] == "allowed")


def test_a_condition_is_known_by_its_name_only_and_says_that_only_the_app_can_tell() -> None:
    mine = require_that("partner of level 2", lambda _: True)
    other = require_that("partner of level 2", lambda _: False)
    assert with_route(mine) == with_route(other) != with_route(require_that("another", lambda _: True))
    (app,) = AccessFile.parse(AccessFile((with_route(require_caller("a") & mine),)).text.encode()).apps
    requirement = app.routes[0].requires
    assert requirement is not None
    principal = Principal(client_id="a", kind="service", issuer="i", issued_at=1, expires_at=2)
    decision = requirement.judge(principal)
    assert decision.reason == "condition_not_met"
    assert 'Only the app can tell whether a meets the condition "partner of level 2"' in decision.cure
    assert requirement.judge(dataclasses.replace(principal, client_id="b")).reason == "caller_not_allowed"


@given(REQUIREMENTS, REQUIREMENTS)
def test_the_order_in_the_code_does_not_change_the_file(one: Requirement, other: Requirement) -> None:
    assert with_route(one & other) == with_route(other & one)
    assert with_route(one | other) == with_route(other | one)
    assert with_route(one & one & other) == with_route(other & one)


def test_routes_are_in_one_order_whatever_order_the_app_has_them_in() -> None:
    paths = ["/b", "/a", "/c"]
    apps = [declared(Starlette(routes=[Route(path, endpoint) for path in order])) for order in (paths, sorted(paths))]
    assert apps[0] == apps[1]


def test_a_requirement_of_somebody_elses_kind_cannot_be_written() -> None:
    class Own(Requirement):
        def judge(self, principal: Principal, client_id: str = "") -> Any: ...

    with pytest.raises(ConfigurationError, match="no form for Own"):
        with_route(Own())


def test_a_caller_who_is_added_is_one_line_of_the_difference() -> None:
    reviewed, now = with_route(require_caller("a")), with_route(require_caller("a", "b"))
    lines = difference(reviewed, now, name="access.json").splitlines()
    assert lines[:2] == ["--- access.json (reviewed)", "+++ declared by the app"]
    changed = [line for line in lines[2:] if line[0] in "+-"]
    assert len(changed) == 2
    assert changed[1].strip("+ ,") == '{"path": "/x", "methods": ["GET", "HEAD"], "requires": {"caller": ["a", "b"]}}'
    assert not difference(reviewed, reviewed, name="access.json")


def test_of_a_long_list_one_line_changes_too() -> None:
    names = [f"service-{number:03}" for number in range(40)]
    reviewed, now = (with_route(require_caller(*each)) for each in (names, [*names, "service-0205"]))
    lines = difference(reviewed, now, name="f").splitlines()[2:]
    assert [line.strip("+ ,") for line in lines if line[0] in "+-"] == ['"service-0205"']


RIGHT: dict[str, Any] = json.loads(AccessFile((EXAMPLES["crm-api-gateway"](),)).text)
ROUTE = "apps[0].routes[5]"


def changed(change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> dict[str, Any]:
    content = copy.deepcopy(RIGHT)
    change(content, content["apps"][0]["routes"][5])
    return content


def requiring(requirement: Any) -> dict[str, Any]:
    return changed(lambda _, route: route.update(requires=requirement))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a newer version": (changed(lambda file, _: file.update(version=2)), "version: it is 2, .* update s2s-fastapi"),
    "no version": (changed(lambda file, _: file.pop("version")), "version: it is null"),
    "true for the version": (changed(lambda file, _: file.update(version=True)), "version: it is true"),
    "an unknown member of the file": (changed(lambda file, _: file.update(more=1)), '"more" is unknown here'),
    "no apps": (changed(lambda file, _: file.update(apps=[])), "apps: it is empty"),
    "an app that is no object": (changed(lambda file, _: file.update(apps=[1])), r"apps\[0\]: it is not an object"),
    "a missing member": (
        changed(lambda file, _: file["apps"][0].pop("requires")),
        r'apps\[0\]: .*"requires" is missing',
    ),
    "an empty client id": (changed(lambda file, _: file["apps"][0].update(client_id="")), "client_id: it is no name"),
    "an unknown member": (
        changed(lambda _, route: route.update(tags=[])),
        r'routes\[5\]: the member "tags" is unknown',
    ),
    "false for a flag": (changed(lambda _, route: route.update(opaque=False)), "opaque: it is true or left out"),
    "a path without a slash": (changed(lambda _, route: route.update(path="tickets")), "path: it does not begin"),
    "methods that are text": (changed(lambda _, route: route.update(methods="GET")), "methods: it is not a list"),
    "a method twice": (
        changed(lambda _, route: route.update(methods=["GET", "GET"])),
        "methods: an entry is there twice",
    ),
    "a number as an origin": (
        changed(lambda file, _: file["apps"][0].update(calls=[{"audiences": [], "scopes": [], "origins": [1]}])),
        r"origins\[0\]: it is not text",
    ),
    "false for a call on behalf of users": (
        changed(
            lambda file, _: file["apps"][0].update(
                calls=[{"audiences": [], "scopes": [], "origins": [], "on_behalf": False}]
            )
        ),
        r"calls\[0\]\.on_behalf: it is true or left out",
    ),
    "false for a call with a bound token": (
        changed(
            lambda file, _: file["apps"][0].update(
                calls=[{"audiences": [], "scopes": [], "origins": [], "dpop": False}]
            )
        ),
        r"calls\[0\]\.dpop: it is true or left out",
    ),
    "bound tokens that are refused": (
        changed(lambda file, _: file["apps"][0].update(dpop="refused")),
        r'apps\[0\]\.dpop: it is "accepted" or "required", or left out',
    ),
    "false for certificates": (
        changed(lambda file, _: file["apps"][0].update(client_certificate=False)),
        r"apps\[0\]\.client_certificate: it is true or left out",
    ),
    "certificates without a middleware": (
        changed(lambda file, _: file["apps"][0].update(client_certificate=True, requires=None)),
        r"apps\[0\]\.client_certificate: an app without a middleware takes no tokens",
    ),
    "true for bound tokens": (changed(lambda file, _: file["apps"][0].update(dpop=True)), r"apps\[0\]\.dpop: it is"),
    "bound tokens without a middleware": (
        changed(lambda file, _: file["apps"][0].update(dpop="accepted", requires=None)),
        r"apps\[0\]\.dpop: an app without a middleware takes no tokens",
    ),
    "public URLs without bound tokens": (
        changed(lambda file, _: file["apps"][0].update(public_urls=["https://a.example"])),
        r"apps\[0\]\.public_urls: it stands beside dpop",
    ),
    "a number as a public URL": (
        changed(lambda file, _: file["apps"][0].update(dpop="accepted", public_urls=[1])),
        r"public_urls\[0\]: it is not text",
    ),
    "a token that is not bound": (requiring({"bound": False}), "bound: it is true"),
    "an unknown requirement": (requiring({"tenant": ["a"]}), r'requires: "tenant" is no requirement .*\(audience, '),
    "an unknown one inside": (
        requiring({"and": [{"caller": ["a"]}, {"or": [{"scope": ["a"]}, {"dpop": True}]}]}),
        r'requires\.and\[1\]\.or\[1\]: "dpop" is no requirement',
    ),
    "an empty requirement": (requiring({}), "requires: a requirement is an object"),
    "a list as requirement": (requiring([{"caller": ["a"]}]), "requires: a requirement is an object"),
    "two kinds at once": (requiring({"caller": ["a"], "scope": ["b"]}), r'"scope" is unknown here \(known: caller\)'),
    "a join of one": (requiring({"or": [{"caller": ["a"]}]}), "or: it joins at least two"),
    "a join of none": (requiring({"and": []}), "and: it joins at least two"),
    "a join with an option": (requiring({"and": [{"caller": ["a"]}] * 2, "client": "x"}), '"client" is unknown here'),
    "a caller without a name": (requiring({"caller": []}), "caller: it is empty"),
    "a caller who is anybody": (requiring({"caller": "any"}), "caller: it is not a list"),
    "a service by name": (requiring({"service": ["a"]}), 'service: it is "any"'),
    "a user of no client": (requiring({"user": []}), "user: it is empty"),
    "a scope with a space": (requiring({"scope": ["a b"]}), r"scope\[0\]: it is no name: it has a space"),
    "a name twice": (requiring({"caller": ["a", "a"]}), "caller: a name is there twice"),
    "a role of a number": (requiring({"role": ["a"], "client": 1}), r"client: it is no name"),
    "an audience with an unknown option": (requiring({"audience": ["a"], "just": True}), '"just" is unknown'),
    "an audience that is not only": (requiring({"audience": ["a"], "only": False}), "only: it is true or left out"),
    "a claim without a value": (requiring({"claim": ["a"], "values": []}), "needs at least one value"),
    "a claim without a path": (requiring({"claim": [], "values": ["a"]}), "a tuple of names for a path"),
    "a claim by text": (requiring({"claim": "a", "values": ["a"]}), "claim: it is not a list"),
    "a claim that is an object": (
        requiring({"claim": ["a"], "values": [{}]}),
        "values: a value is there twice, or is no",
    ),
    "a claim that is null": (requiring({"claim": ["a"], "values": [None]}), "values: a value is there twice, or is no"),
    "a condition with a function": (requiring({"condition": "a", "predicate": "x"}), '"predicate" is unknown here'),
    "a condition without a name": (requiring({"condition": ""}), "condition: it is no name"),
    "a realm beside a join": (
        requiring({"and": [{"caller": ["a"]}] * 2, "realm": PARTNERS}),
        '"realm" is unknown here',
    ),
    "a realm by its name": (requiring({"caller": ["a"], "realm": "partners"}), "realm: it is no issuer"),
    "a realm that is a number": (requiring({"caller": ["a"], "realm": 1}), "realm: it is not text"),
    "a realm alone": (requiring({"realm": PARTNERS}), "realm: it stands beside a plain requirement"),
    "a binding that is no binding": (requiring({"bound": False}), "it is true"),
    "a binding with a name": (requiring({"bound": True, "client": "x"}), '"client" is unknown here'),
    "a realm role with a client": (requiring({"realm_role": ["a"], "client": "x"}), '"client" is unknown here'),
}
READER_ONLY: dict[str, tuple[dict[str, Any], str]] = {
    "two apps of one client": (
        changed(lambda file, _: file["apps"].append(file["apps"][0])),
        r"apps\[1\].client_id: .* is there twice",
    ),
    "a public method that the route has not": (
        changed(lambda _, route: route.update(public=["DELETE"])),
        "public: DELETE is no method of the route",
    ),
    "a claim that has a requirement of its own": (
        requiring({"claim": ["aud"], "values": ["a"]}),
        r"requires: require_claim: do not compare the claim \"aud\"",
    ),
    "a value twice": (requiring({"claim": ["a"], "values": [1, 1]}), "values: a value is there twice"),
    "a public WebSocket": (
        changed(lambda _, route: (route.pop("methods"), route.update(websocket=True, public=["GET"]))),
        "a WebSocket has no methods",
    ),
    "a pattern as a public path": (
        changed(lambda file, _: file["apps"][0].update(public_paths=["/static/*"])),
        "is a pattern",
    ),
}
"""What a JSON schema cannot say, or not in a form that anybody can read."""


@pytest.mark.parametrize("name", [*WRONG, *READER_ONLY])
def test_what_is_not_right_is_refused_and_the_error_says_where(name: str) -> None:
    content, said = {**WRONG, **READER_ONLY}[name]
    with pytest.raises(ConfigurationError, match=said) as error:
        AccessFile.parse(json.dumps(content).encode(), source="access.json")
    assert str(error.value).startswith("access.json: ")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"version": 1, "version": 1, "apps": []}', "duplicate members"),
        (b'{"version": 1, "apps": ', "not JSON"),
        (b"\xff\xfe", "not JSON"),
    ],
    ids=["nothing", "a list", "a member twice", "half of it", "not UTF-8"],
)
def test_a_file_that_is_no_json_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        AccessFile.parse(raw)


def test_a_realm_is_written_as_its_issuer_and_the_first_one_as_nothing() -> None:
    app = FastAPI(openapi_url=None)
    app.get("/both", dependencies=[Depends(require_caller("a", realm="corp") | require_caller("a", realm="shops"))])(
        lambda: "in"
    )
    app.get("/theirs", dependencies=[Depends(require_role("reader", realm="shops"))])(lambda: "in")
    corp = RealmAccess(name="corp", issuer="https://corp.test", audiences=frozenset({"api"}), client_id="api")
    shops = RealmAccess(name="shops", issuer=PARTNERS, audiences=frozenset({"crm"}), client_id="api-at-the-shops")
    found = declared(app, realms=(corp, shops))
    text = AccessFile((found,)).text
    assert AccessFile.parse(text.encode()).apps == (found,)
    both, theirs = (route["requires"] for route in json.loads(text)["apps"][0]["routes"])
    assert both == {"or": [{"caller": ["a"]}, {"caller": ["a"], "realm": PARTNERS}]}
    assert theirs == {"role": ["reader"], "client": "api-at-the-shops", "realm": PARTNERS}
    assert [found.within(issuer).requires for issuer in ("https://corp.test", PARTNERS)] == [
        canonical(require_service() & require_audience(name)) for name in ("api", "crm")
    ]
    assert [[route.path for route in found.within(issuer).routes] for issuer in ("https://corp.test", PARTNERS)] == [
        ["/both"],
        ["/both", "/theirs"],
    ]
    assert {found.within(issuer).routes[0].requires for issuer in ("https://corp.test", PARTNERS)} == {
        require_caller("a")
    }
    assert found.further_realms == (PARTNERS,)


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.json cannot be read: No such file"):
        AccessFile.read(tmp_path / "none.json")


def checked_by_the_schema(folder: Path, contents: dict[str, Any]) -> set[str]:
    """Return the names of the contents that the schema refuses."""
    for number, content in enumerate(contents.values()):
        (folder / f"{number}.json").write_text(json.dumps(content))
    files = [str(folder / f"{number}.json") for number in range(len(contents))]
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(SCHEMA), "-o", "json", *files]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.stdout, found.stderr
    refused = {Path(each["filename"]).stem for each in json.loads(found.stdout)["errors"]}
    return {name for number, name in enumerate(contents) if str(number) in refused}


def test_the_schema_takes_what_is_written_and_refuses_what_the_reader_refuses(tmp_path: Path) -> None:
    right: dict[str, Any] = {name: json.loads(AccessFile((make(),)).text) for name, make in EXAMPLES.items()}
    for number, leaf in enumerate((*LEAVES, LEAVES[1] & (LEAVES[5] | LEAVES[6]))):
        right[f"leaf {number}"] = json.loads(AccessFile((with_route(leaf),)).text)
    wrong = {name: content for name, (content, _) in WRONG.items()}
    assert checked_by_the_schema(tmp_path, right | wrong) == set(wrong)


def test_the_schema_has_every_kind_of_requirement_and_this_version() -> None:
    from s2s_fastapi.declared.access_file import _LEAVES, VERSION

    schema = json.loads(SCHEMA.read_text())
    kinds = {each["$ref"].rpartition("/")[2] for each in schema["$defs"]["requirement"]["oneOf"]}
    assert kinds == {*_LEAVES, "and", "or"}
    assert schema["properties"]["version"] == {"const": VERSION}
    assert schema["$id"].endswith(f":{VERSION}")


def test_the_page_shows_the_file_of_two_examples_as_it_is_written() -> None:
    page = (Path(__file__).parents[2] / "docs/access-file.md").read_text(encoding="utf-8")
    shown = page.partition("```json\n")[2].partition("```")[0]
    crm = declared(crm_gateway.app, "crm-api-gateway", public_paths=["/healthz", *DOCS])
    chat = declared(chat_app.app, "chat-app-service", middleware=False)
    assert shown == AccessFile((crm, chat)).text


def test_the_page_has_every_kind_of_requirement_with_the_code_that_makes_it() -> None:
    page = (Path(__file__).parents[2] / "docs/access-file.md").read_text(encoding="utf-8")
    table = page.partition("| Requirement |")[2].partition("\n\n")[0]
    for leaf in (leaf for leaf in LEAVES if leaf != require_role("admin")):
        kind = next(iter(json.loads(AccessFile((with_route(leaf),)).text)["apps"][0]["routes"][0]["requires"]))
        assert f'{{"{kind}":' in table
        assert f"`{str(leaf).partition('(')[0]}(" in table
