"""Paths as bytes on a socket: whatever a server makes of them, without a token nothing runs but what was written as public."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Router

from s2s_fastapi import DOCS, ServiceAuthMiddleware, require_service
from tests.kit.realm import Realm, settings
from tests.receiver.surroundings.servers import HYPERCORN, UVICORN, Address, Said, served

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]


class Service:
    """An app on a real server, a token for it, and which of its routes ran."""

    def __init__(self, address: Address, token: bytes, ran: list[str]) -> None:
        self.address = address
        self.bearer = b"Authorization: Bearer " + token
        self.ran = ran

    def say(self, target: bytes, *headers: bytes, method: bytes = b"GET") -> Said:
        self.ran.clear()
        length = [b"Content-Length: 0"] if method == b"POST" else []
        return self.address.say(target, *headers, *length, method=method)


@pytest.fixture(scope="module", params=[*UVICORN, HYPERCORN[0]])
def server(request: Any) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["", "/api"], ids=["no root path", "a root path"])
def root_path(request: Any) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def service(server: str, root_path: str) -> Iterator[Service]:
    realm, app, ran = Realm(), FastAPI(), list[str]()
    app.add_middleware(
        ServiceAuthMiddleware,
        settings(),
        transport=realm.transport,
        public_paths=["/healthz", "/files/logo.png", "POST /hooks/{provider}", *DOCS],
    )
    inner = APIRouter(prefix="/inner", dependencies=[Depends(require_service())])

    def named(name: str) -> Any:
        def endpoint() -> str:
            ran.append(name)
            return name

        return endpoint

    app.get("/healthz")(named("public"))
    app.get("/files/logo.png")(named("public"))
    app.post("/hooks/{provider}")(named("public"))
    app.get("/admin")(named("secret"))
    inner.get("/healthz")(named("secret"))
    app.include_router(inner)
    app.router.routes.append(Host("admin.test", Router(default=everything_else(ran))))
    app.api_route("/{rest:path}", methods=METHODS, include_in_schema=False)(named("secret"))
    token = realm.token(exp=realm.claims()["iat"] + 3600).encode()
    with served(app, server, root_path=root_path) as address:
        yield Service(address, token, ran)


def everything_else(ran: list[str]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        ran.append("secret")
        await PlainTextResponse("secret")(scope, receive, send)

    return app


def test_public_paths_are_open_as_written(service: Service) -> None:
    for target in (b"/healthz", b"/healthz?x=/admin", b"/files/logo.png", b"/health%7a", b"/%68ealthz"):
        assert (service.say(target).status, service.ran) == (200, ["public"])
    assert service.say(b"/hooks/stripe", method=b"POST").status == 200
    assert service.say(b"/openapi.json").status == 200
    assert service.say(b"/healthz", method=b"HEAD").status == 405  # FastAPI's GET routes take no HEAD


def test_with_a_token_everything_is_reached(service: Service) -> None:
    assert service.say(b"/admin", service.bearer).status == 200
    assert service.say(b"/inner/healthz", service.bearer).status == 200
    assert service.ran == ["secret"]


TRICKS = [
    b"//healthz",
    b"///healthz",
    b"/healthz/",
    b"/healthz//",
    b"/healthz/.",
    b"/./healthz",
    b"/healthz/..",
    b"/healthz/../admin",
    b"/healthz/../../admin",
    b"/healthz/%2e%2e/admin",
    b"/healthz/%2E%2E/admin",
    b"/healthz/.%2e/admin",
    b"/healthz%2f",
    b"/healthz%2F",
    b"/healthz%2f..%2fadmin",
    b"/healthz%5c..%5cadmin",
    b"/healthz\\..\\admin",
    b"/%2fhealthz",
    b"/%2e/healthz",
    b"/%2e%2e/healthz",
    b"/admin/../healthz",
    b"/admin/%2e%2e/healthz",
    b"/admin%2f..%2fhealthz",
    b"/admin;/../healthz",
    b"/healthz;x",
    b"/healthz;/admin",
    b"/healthz;/../admin",
    b"/admin;/healthz",
    b"/healthz%3b",
    b"/;/healthz",
    b"/healthz%00",
    b"/healthz%00/../admin",
    b"/healthz%0a",
    b"/healthz%0d%0a",
    b"/healthz%20",
    b"/healthz%09",
    b"/healthz%c2%a0",
    b"/%20healthz",
    b"/healthz%3f",
    b"/healthz%3f/admin",
    b"/healthz%23",
    b"/admin%3f/healthz",
    b"/admin?/healthz",
    b"/admin?path=/healthz",
    b"/admin#/healthz",
    b"/healthz%252f",
    b"/health%257a",
    b"/HEALTHZ",
    b"/Healthz",
    b"/%48ealthz",
    b"/healthz.json",
    b"/healthzx",
    b"/healthz%ef%bc%8f",  # a full-width solidus
    b"/%ef%bd%88ealthz",  # a full-width h
    b"/h%d0%b5althz",  # a Cyrillic e
    b"/health\xc5\xbe",  # not even escaped
    b"/healthz%cc%81",  # a combining accent
    b"/%c0%afhealthz",  # an overlong solidus
    b"/healthz%c0%ae%c0%ae/admin",
    b"/files",
    b"/files/",
    b"/files/logo.png/",
    b"/files/../files/logo.png",
    b"/files//logo.png",
    b"/files/LOGO.PNG",
    b"/files/logo%2epng/x",
    b"/files/other.png",
    b"/inner/healthz",
    b"/inner//healthz",
    b"/inner/../healthz",
    b"/docs/",
    b"/docs/../admin",
    b"/docs/x",
    b"/openapi.json/",
    b"/openapi",
    b"/hooks/stripe",
    b"*",
    b"healthz",
    b"http://service.test/admin?/healthz",
    b"http://healthz/admin",
    b"/healthz/api",
]


@pytest.mark.parametrize("target", TRICKS)
def test_what_only_looks_like_a_public_path_is_closed(service: Service, target: bytes) -> None:
    said = service.say(target)
    assert service.ran == []
    assert said.status in {401, 400, 0}  # ours, or the server's own refusal of what is no request
    if said.status == 401:
        assert said.challenge == 'Bearer realm="crm-api-gateway"'


@pytest.mark.parametrize(
    "target",
    [
        b"/api/healthz",
        b"/api//healthz",
        b"/api/admin",
        b"/api/api/healthz",
        b"/apihealthz",
        b"/API/healthz",
        b"/api%2fhealthz",
        b"/ap/healthz",
        b"/api/../healthz",
        b"http://service.test/healthz",
    ],
)
def test_a_prefix_opens_at_most_what_the_router_then_serves_as_public(service: Service, target: bytes) -> None:
    """Servers differ in what they do to a root path; the router and we read the same of it."""
    said = service.say(target)
    assert service.ran in ([], ["public"])
    assert (said.status == 200) is (service.ran == ["public"])


@pytest.mark.parametrize(
    "host", [b"healthz", b"x/healthz", b"x?/healthz", b"x#/healthz", b"x@healthz", b"admin.test", b""]
)
def test_the_host_header_moves_no_path(service: Service, host: bytes) -> None:
    said = service.say(b"/admin", b"Host: " + host)
    assert service.ran == []
    assert said.status in {401, 400}


def test_a_public_path_is_public_on_every_host_that_has_no_app_of_its_own(service: Service) -> None:
    assert service.say(b"/healthz", b"Host: other.test").status == 200
    assert service.ran == ["public"]


@pytest.mark.parametrize(
    "header",
    [
        b"X-Original-URL: /healthz",
        b"X-Rewrite-URL: /healthz",
        b"X-Forwarded-Path: /healthz",
        b"X-Forwarded-Prefix: /admin",
        b"X-Forwarded-Uri: /healthz",
        b"X-Script-Name: /admin",
        b"X-HTTP-Method-Override: POST",
        b"X-HTTP-Method: POST",
        b"X-Method-Override: POST",
        b"Forwarded: for=127.0.0.1;host=healthz",
        b"X-Real-IP: 127.0.0.1",
    ],
)
def test_no_header_moves_the_path_or_the_method(service: Service, header: bytes) -> None:
    for target in (b"/admin", b"/hooks/stripe", b"/hooks/stripe?_method=POST"):
        assert service.say(target, header).status == 401
        assert service.ran == []


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"PROPFIND"])
def test_a_public_path_is_open_for_reading_only(service: Service, method: bytes) -> None:
    for header in (b"X-HTTP-Method-Override: GET", b"X-Nothing: 1"):
        said = service.say(b"/healthz", header, method=method)
        assert service.ran == []
        assert said.status in {401, 400}


@pytest.mark.parametrize("method", [b"get", b"Get"])
def test_a_method_in_other_letters_is_another_method_unless_the_server_writes_it_anew(
    service: Service, server: str, method: bytes
) -> None:
    said = service.say(b"/healthz", method=method)
    if server in HYPERCORN:
        assert (said.status, service.ran) == (200, ["public"])
    else:
        assert said.status in {401, 400}
        assert service.ran == []
    assert service.say(b"/admin", method=method).status in {401, 400}


@pytest.mark.parametrize(
    "target",
    [
        b"/hooks",
        b"/hooks/",
        b"/hooks/a/b",
        b"/hooks/a%2fb",
        b"/hooks/..%2fadmin",
        b"/hooks/%2e%2e%2fadmin",
        b"/hooks/../admin",
        b"/hooks/a/../../admin",
        b"/hooks//a",
        b"/hooks/a/",
        b"/hooks/a%0a",
        b"/hooks/a%00",
        b"/HOOKS/a",
        b"/admin",
    ],
)
def test_a_public_template_is_one_segment(service: Service, target: bytes) -> None:
    said = service.say(target, method=b"POST")
    assert service.ran == []
    assert said.status in {401, 400}
