"""The OpenAPI document says who may call what, with which token, and what everybody else is answered; what the user wrote stays."""

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Annotated, Any, Final, cast

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Security, WebSocket
from fastapi.openapi.utils import get_openapi
from fastapi.security import APIKeyHeader, HTTPBasic, SecurityScopes
from fastapi.security.base import SecurityBase
from openapi_spec_validator import validate
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Host, Mount
from starlette.testclient import TestClient

from s2s_fastapi import (
    DOCS,
    ConfigurationError,
    CurrentPrincipal,
    Requirement,
    ServiceAuthMiddleware,
    openapi_schema,
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
from tests.kit.realm import Realm, settings
from tests.kit.receiving import App, Headers

Document = dict[str, Any]

TOKEN_URL = "http://keycloak.test/realms/corp/protocol/openid-connect/token"
STATUSES = ("400", "401", "403", "503")


@pytest.fixture
def make_app(make_app: App) -> App:
    """A FastAPI app with documentation that anybody may read, behind our middleware."""

    def make(*, app: FastAPI | None = None, public_paths: tuple[str, ...] = (), **changes: Any) -> FastAPI:
        return make_app(app=app or FastAPI(), public_paths=[*public_paths, *DOCS], **changes)

    return make


def route(app: FastAPI | APIRouter, path: str, *dependencies: Any, method: str = "get", **options: Any) -> None:
    def endpoint(**_: str) -> str:
        return "ok"

    names = re.findall(r"{(\w+)", path)
    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=str) for name in names]
    endpoint.__signature__ = inspect.Signature(parameters, return_annotation=str)  # type: ignore[attr-defined]
    getattr(app, method)(path, dependencies=[Depends(each) for each in dependencies], **options)(endpoint)


def served(app: Any, path: str = "/openapi.json") -> Document:
    """Return the document as a client gets it from a started app; it is always a valid one."""
    with TestClient(app) as client:
        response = client.get(path)
    assert response.status_code == 200, response.text
    document = cast("Document", response.json())
    validate(document)
    return document


def operations(document: Document) -> Iterator[tuple[str, Document]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


class Closed:
    """A middleware that keeps what is below to itself."""

    def __init__(self, app: Any) -> None:
        async def run(scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)

        self.run = run

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.run(scope, receive, send)


class TestTheScheme:
    def test_it_is_the_client_credentials_grant_at_the_public_token_url_with_the_scopes_of_the_routes(
        self, make_app: App
    ) -> None:
        app = make_app()
        route(app, "/a", require_scope("read", "write"))
        route(app, "/b", require_scope("read"))
        scheme = served(app)["components"]["securitySchemes"]
        assert scheme == {
            "ServiceToken": {
                "type": "oauth2",
                "description": "Access token of a service, for the audience of this one (OAuth 2.0 client credentials).",
                "flows": {
                    "clientCredentials": {
                        "tokenUrl": TOKEN_URL,
                        "scopes": {"read": "Required by GET /a, GET /b", "write": "Required by GET /a"},
                    }
                },
            }
        }

    @pytest.mark.parametrize(
        ("names", "more"), [("abc", ""), ("abcd", " and 1 more"), ("abcde", " and 2 more")], ids=len
    )
    def test_a_scope_of_many_routes_names_the_first_three(self, make_app: App, names: str, more: str) -> None:
        app = make_app()
        for name in names:
            route(app, f"/{name}", require_scope("read"))
        flow = served(app)["components"]["securitySchemes"]["ServiceToken"]["flows"]["clientCredentials"]
        assert flow["scopes"] == {"read": f"Required by GET /a, GET /b, GET /c{more}"}

    @pytest.mark.parametrize(
        ("given", "url"),
        [
            ({"public_url": "https://sso.example.com"}, "https://sso.example.com/realms/corp"),
            (
                {"public_url": "https://sso.example.com", "auth_path": "/auth"},
                "https://sso.example.com/auth/realms/corp",
            ),
            ({"issuer": "https://sso.example.com/realms/corp"}, "https://sso.example.com/realms/corp"),
            ({"issuer": "https://sso.example.com/realms/corp/"}, "https://sso.example.com/realms/corp"),
            ({"issuer": "https://id.example.com"}, "http://keycloak.test/realms/corp"),
            (
                {"issuer": "https://id.example.com", "public_url": "https://sso.example.com"},
                "https://sso.example.com/realms/corp",
            ),
            ({"realm": "my corp"}, "http://keycloak.test/realms/my%20corp"),
        ],
    )
    def test_the_url_is_the_one_that_clients_outside_reach(
        self, make_app: App, given: dict[str, str], url: str
    ) -> None:
        app = make_app(settings=settings(**given))
        route(app, "/a")
        flow = openapi_schema(app)["components"]["securitySchemes"]["ServiceToken"]["flows"]["clientCredentials"]
        assert flow["tokenUrl"] == f"{url}/protocol/openid-connect/token"

    def test_users_get_their_token_through_a_front_end(self, make_app: App) -> None:
        app = make_app(users=True)
        route(app, "/both", require_service() | require_user("crm-ui"))
        route(app, "/user", require_user() & require_scope("read"))
        document = served(app)
        assert document["paths"]["/both"]["get"]["security"] == [{"ServiceToken": []}, {"UserToken": []}]
        assert document["paths"]["/user"]["get"]["security"] == [{"UserToken": ["read"]}]
        flows = {name: scheme["flows"] for name, scheme in document["components"]["securitySchemes"].items()}
        assert flows["ServiceToken"] == {"clientCredentials": {"tokenUrl": TOKEN_URL, "scopes": {}}}
        assert flows["UserToken"] == {
            "authorizationCode": {
                "authorizationUrl": "http://keycloak.test/realms/corp/protocol/openid-connect/auth",
                "tokenUrl": TOKEN_URL,
                "scopes": {"read": "Required by GET /user"},
            }
        }


class TestWhoMayCall:
    @pytest.mark.parametrize(
        ("requirement", "security", "note"),
        [
            (
                require_service(),
                [{"ServiceToken": []}],
                ["any service, token for crm-api-gateway"],
            ),
            (
                require_audience("crm-api-gateway") & require_caller("chat-app-service", "billing"),
                [{"ServiceToken": []}],
                ["service billing or chat-app-service, token for crm-api-gateway"],
            ),
            (
                require_scope("b", "a") & require_scope("c"),
                [{"ServiceToken": ["a", "b", "c"]}],
                ["any service, token for crm-api-gateway, scope a, scope b, scope c"],
            ),
            (
                require_scope("a") | require_scope("b"),
                [{"ServiceToken": ["a"]}, {"ServiceToken": ["b"]}],
                [
                    "any service, token for crm-api-gateway, scope a",
                    "any service, token for crm-api-gateway, scope b",
                ],
            ),
            (
                require_caller("billing") & (require_scope("a") | require_role("writer")),
                [{"ServiceToken": ["a"]}, {"ServiceToken": []}],
                [
                    "service billing, token for crm-api-gateway, scope a",
                    "service billing, token for crm-api-gateway, role writer of crm-api-gateway",
                ],
            ),
            (
                require_caller("a", "b") & require_caller("b", "c"),
                [{"ServiceToken": []}],
                ["service b, token for crm-api-gateway"],
            ),
            (
                require_realm_role("auditor") & require_role("reader", client="archive"),
                [{"ServiceToken": []}],
                ["any service, token for crm-api-gateway, realm role auditor, role reader of archive"],
            ),
            (
                require_claim(("org", "level"), 2, True) & require_that("partner of level 2", lambda _: True),
                [{"ServiceToken": []}],
                [
                    'any service, token for crm-api-gateway, claim org > level true or 2, condition "partner of level 2"',
                ],
            ),
            (
                require_caller("a") | require_caller("b"),
                [{"ServiceToken": []}],
                ["service a, token for crm-api-gateway", "service b, token for crm-api-gateway"],
            ),
            (
                require_audience("crm-api-gateway", only=True),
                [{"ServiceToken": []}],
                ["any service, token for crm-api-gateway and nobody else"],
            ),
            (  # said twice
                require_service() | require_audience("crm-api-gateway"),
                [{"ServiceToken": []}],
                ["any service, token for crm-api-gateway"],
            ),
            (  # users do not come in here, so that is no way in
                require_service() | require_user(),
                [{"ServiceToken": []}],
                ["any service, token for crm-api-gateway"],
            ),
        ],
    )
    def test_an_operation_has_the_alternatives_of_its_requirement(
        self, make_app: App, requirement: Requirement, security: list[Any], note: list[str]
    ) -> None:
        app = make_app()
        route(app, "/a", requirement)
        operation = served(app)["paths"]["/a"]["get"]
        assert operation["security"] == security
        assert operation["x-service-auth"] == note
        assert operation["responses"]["403"]["description"] == (
            f"The access token does not allow this. Required: {'; or '.join(note)}."
        )

    def test_a_route_without_a_requirement_is_open_to_services_and_to_nobody_else(self, make_app: App) -> None:
        app = make_app()
        route(app, "/a")
        operation = served(app)["paths"]["/a"]["get"]
        assert operation["security"] == [{"ServiceToken": []}]
        assert operation["x-service-auth"] == ["any service, token for crm-api-gateway"]
        assert set(STATUSES) < set(operation["responses"])

    def test_a_public_operation_has_nothing(self, make_app: App) -> None:
        app = make_app(public_paths=("/healthz", "POST /hooks/{provider}"))
        route(app, "/healthz")
        route(app, "/hooks/{provider}", method="post")
        route(app, "/healthz", method="post")  # a public path opens reading only
        route(app, "/hooks/{provider}")
        guarded = {name for name, operation in operations(served(app)) if "security" in operation}
        assert guarded == {"POST /healthz", "GET /hooks/{provider}"}
        for name, operation in operations(served(app)):
            assert (name in guarded) == ("401" in operation["responses"]) == ("x-service-auth" in operation)

    def test_requirements_of_the_app_the_router_and_the_route_come_together(self, make_app: App) -> None:
        app = make_app(app=FastAPI(dependencies=[Depends(require_caller("billing"))]))
        inner, outer = (
            APIRouter(prefix="/inner", dependencies=[Depends(require_scope("a"))]),
            APIRouter(prefix="/outer"),
        )
        route(inner, "/{name:path}", require_scope("b"))
        outer.include_router(inner)
        app.include_router(outer, prefix="/v1", dependencies=[Depends(require_scope("c"))])
        operation = served(app)["paths"]["/v1/outer/inner/{name}"]["get"]
        assert operation["security"] == [{"ServiceToken": ["a", "b", "c"]}]
        assert operation["x-service-auth"] == [
            "service billing, token for crm-api-gateway, scope a, scope b, scope c",
        ]

    def test_scopes_of_security_and_requirements_in_dependencies_count(self, make_app: App) -> None:
        app = make_app()

        def nested(caller: Annotated[Any, Depends(require_caller("billing"))]) -> None: ...

        @app.get("/a", dependencies=[Security(require_service(), scopes=["read"]), Depends(nested)])
        async def a() -> None: ...

        @app.get("/b")
        async def b(caller: CurrentPrincipal) -> None: ...

        paths = served(app)["paths"]
        assert paths["/a"]["get"]["x-service-auth"] == ["service billing, token for crm-api-gateway, scope read"]
        assert paths["/b"]["get"]["x-service-auth"] == ["any service, token for crm-api-gateway"]

    def test_several_audiences_are_said_and_narrowed(self, make_app: App) -> None:
        app = make_app(audience=["crm", "legacy"])
        route(app, "/any")
        route(app, "/one", require_audience("legacy"))
        paths = served(app)["paths"]
        assert paths["/any"]["get"]["x-service-auth"] == ["any service, token for crm or legacy"]
        assert paths["/one"]["get"]["x-service-auth"] == ["any service, token for legacy"]

    def test_audiences_that_only_the_routes_declare_are_said(self, make_app: App) -> None:
        app = make_app(settings=settings(client_id=None))
        route(app, "/a", require_audience("crm"))
        route(app, "/b", require_audience("legacy"))
        paths = served(app)["paths"]
        assert paths["/a"]["get"]["x-service-auth"] == ["any service, token for crm"]
        assert paths["/b"]["get"]["x-service-auth"] == ["any service, token for legacy"]

    def test_an_app_that_skips_the_audience_does_not_claim_one(self, make_app: App) -> None:
        app = make_app(insecure_skip_audience=True)
        app.router.routes.clear()  # documentation counts as uncovered here
        route(app, "/a", require_caller("billing"))
        route(app, "/b", require_caller("billing") & require_audience("crm"))
        paths = openapi_schema(app)["paths"]
        assert paths["/a"]["get"]["x-service-auth"] == ["service billing"]
        assert paths["/b"]["get"]["x-service-auth"] == ["service billing, token for crm"]

    def test_websockets_do_not_appear(self, make_app: App) -> None:
        app = make_app()

        @app.websocket("/chat", dependencies=[Depends(require_service())])
        async def chat(websocket: WebSocket) -> None: ...

        route(app, "/a")
        assert list(served(app)["paths"]) == ["/a"]


class TestWhatIsAnswered:
    def test_real_refusals_are_what_the_document_says(self, make_app: App, service: Headers) -> None:
        app = make_app()
        route(app, "/a", require_scope("write"))
        document = served(app)
        responses = document["paths"]["/a"]["get"]["responses"]
        client = TestClient(app, raise_server_exceptions=False)
        answers = [
            client.get("/a"),
            client.get("/a", headers={"Authorization": "Bearer a b"}),
            client.get("/a", headers=service(aud="other")),
            client.get("/a", headers=service(scope="read")),
        ]
        assert [answer.status_code for answer in answers] == [401, 400, 401, 403]
        for answer in answers:
            self.check(document, responses, answer)
        assert answers[0].json() == responses["401"]["content"]["application/json"]["example"]
        assert answers[0].headers["WWW-Authenticate"] == responses["401"]["headers"]["WWW-Authenticate"]["example"]
        assert answers[1].headers["WWW-Authenticate"] == responses["400"]["headers"]["WWW-Authenticate"]["example"]
        assert answers[3].json() == responses["403"]["content"]["application/json"]["example"]
        assert answers[3].headers["WWW-Authenticate"] == responses["403"]["headers"]["WWW-Authenticate"]["example"]

    def test_a_keycloak_that_is_down_is_what_the_document_says(
        self, make_app: App, service: Headers, realm: Realm
    ) -> None:
        realm.answer = lambda request: httpx.Response(500)
        app = make_app(warm_up=False)
        route(app, "/a")
        document = served(app)
        answer = TestClient(app).get("/a", headers=service())
        assert answer.status_code == 503
        self.check(document, document["paths"]["/a"]["get"]["responses"], answer)

    @staticmethod
    def check(document: Document, responses: Document, answer: Any) -> None:
        said = responses[str(answer.status_code)]
        assert set(said["headers"]) == {"WWW-Authenticate", "Retry-After"} & {
            name.title().replace("Www", "WWW") for name in answer.headers
        }
        assert answer.headers["content-type"] in said["content"]
        assert said["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ServiceAuthError"}
        schema = document["components"]["schemas"]["ServiceAuthError"]
        assert schema["required"] == list(schema["properties"]) == list(answer.json())
        assert schema["properties"]["detail"]["type"] == "string"
        assert isinstance(answer.json()["detail"], str)

    def test_one_schema_of_the_body_serves_all_operations(self, make_app: App) -> None:
        app = make_app()
        route(app, "/a")
        route(app, "/b")
        document = served(app)
        assert list(document["components"]["schemas"]) == ["ServiceAuthError"]
        for _, operation in operations(document):
            for status in STATUSES:
                content = operation["responses"][status]["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/ServiceAuthError"}

    def test_a_schema_of_the_users_own_of_that_name_is_not_touched(self, make_app: App) -> None:
        class ServiceAuthError(BaseModel):
            mine: int

        app = make_app()
        route(app, "/a", response_model=ServiceAuthError)
        document = served(app)
        assert list(document["components"]["schemas"]["ServiceAuthError"]["properties"]) == ["mine"]
        content = document["paths"]["/a"]["get"]["responses"]["401"]["content"]["application/json"]
        assert content["schema"] == {"$ref": "#/components/schemas/ServiceAuthError_"}


class TestSubApps:
    def test_a_mounted_app_has_its_own_document_behind_the_same_middleware(self, make_app: App) -> None:
        sub = FastAPI(dependencies=[Depends(require_scope("sub"))])
        route(sub, "/items/{number}")
        route(sub, "/ping")
        app = make_app(public_paths=("/v2/openapi.json",))
        app.mount("/v2", sub)
        route(app, "/a")
        assert list(served(app)["paths"]) == ["/a"]
        document = served(app, "/v2/openapi.json")
        assert document["paths"]["/items/{number}"]["get"]["security"] == [{"ServiceToken": ["sub"]}]
        flow = document["components"]["securitySchemes"]["ServiceToken"]["flows"]["clientCredentials"]
        assert flow["scopes"] == {"sub": "Required by GET /items/{number}, GET /ping"}

    def test_public_paths_and_guards_are_those_of_the_mount(self, make_app: App) -> None:
        sub = FastAPI()
        route(sub, "/ping")
        route(sub, "/items")
        other = FastAPI()
        route(other, "/items")
        app = make_app(public_paths=("/v2/ping",))
        app.mount("/v2", sub)
        app.mount("/{tenant}/other", require_caller("billing").guard(other))
        openapi_schema(app)
        served(app)
        assert {name for name, operation in operations(sub.openapi()) if "security" in operation} == {"GET /items"}
        assert other.openapi()["paths"]["/items"]["get"]["x-service-auth"] == [
            "service billing, token for crm-api-gateway"
        ]

    def test_a_sub_app_with_a_middleware_of_its_own_is_described_by_that(self, make_app: App) -> None:
        sub = make_app(settings=settings(client_id="archive"))
        route(sub, "/items", require_scope("archive"))
        app = make_app(public_paths=("/archive/openapi.json",))
        app.mount("/archive", sub)
        for _ in range(2):  # whichever starts last
            document = served(app, "/archive/openapi.json")
            assert document["paths"]["/items"]["get"]["x-service-auth"] == [
                "any service, token for archive, scope archive"
            ]
        with pytest.raises(ConfigurationError, match="with a ServiceAuthMiddleware of its own"):
            openapi_schema(app, sub)
        del document["servers"]
        assert openapi_schema(sub) == document

    def test_apps_below_starlette_and_hosts_are_described(self, options: Callable[..., dict[str, Any]]) -> None:
        one, two = FastAPI(), FastAPI()
        route(one, "/items", require_scope("one"))
        route(two, "/items", require_scope("two"))
        app = Starlette(routes=[Host("one.example.com", one), Mount("/two", two, middleware=[])])
        app.add_middleware(ServiceAuthMiddleware, **options())
        with TestClient(app):
            assert one.openapi()["paths"]["/items"]["get"]["security"] == [{"ServiceToken": ["one"]}]
            assert two.openapi()["paths"]["/items"]["get"]["security"] == [{"ServiceToken": ["two"]}]
        assert openapi_schema(app, two) == two.openapi()
        with pytest.raises(ConfigurationError, match="no such FastAPI app"):
            openapi_schema(app)

    def test_an_app_that_is_mounted_twice_is_described_where_it_is_mounted_first(self, make_app: App) -> None:
        sub = FastAPI()
        route(sub, "/items")
        app = make_app()
        app.mount("/one", require_caller("billing").guard(sub))
        app.mount("/two", sub)
        served(app)
        assert sub.openapi()["paths"]["/items"]["get"]["x-service-auth"] == [
            "service billing, token for crm-api-gateway"
        ]

    def test_the_document_of_a_mounted_app_can_be_had_offline(self, make_app: App) -> None:
        sub = FastAPI()
        route(sub, "/items", require_scope("sub"))
        app = make_app(public_paths=("/v2/openapi.json",))
        app.mount("/v2", sub)
        offline = openapi_schema(app, sub)
        document = served(app, "/v2/openapi.json")
        assert document.pop("servers") == [{"url": "/v2"}]  # FastAPI's, from the request
        assert offline == document


class TestWhatTheUserWrote:
    def test_answers_of_the_users_own_stay(self, make_app: App) -> None:
        mine = {"description": "The ticket is closed.", "headers": {"X-Mine": {"schema": {"type": "string"}}}}
        app = make_app()
        route(app, "/one", responses={403: mine})
        route(app, "/class", responses={"4XX": {"description": "Mine"}})
        route(app, "/rest", responses={"default": {"description": "Mine"}})
        paths = served(app)["paths"]
        assert paths["/one"]["get"]["responses"]["403"] == mine
        assert set(paths["/one"]["get"]["responses"]) == {"200", *STATUSES}
        assert set(paths["/class"]["get"]["responses"]) == {"200", "4XX", "503"}
        assert set(paths["/rest"]["get"]["responses"]) == {"200", "default"}

    def test_extensions_descriptions_and_ids_stay(self, make_app: App) -> None:
        app = make_app()
        route(
            app,
            "/a",
            require_service(),
            operation_id="mine",
            description="Mine.",
            openapi_extra={"x-service-auth": "mine", "x-other": 1},
        )
        operation = served(app)["paths"]["/a"]["get"]
        assert operation["x-service-auth"] == "mine"
        assert operation["x-other"] == 1
        assert (operation["operationId"], operation["description"]) == ("mine", "Mine.")
        assert operation["security"] == [{"ServiceToken": []}]

    @pytest.mark.parametrize("security", [[{"Mine": ["x"]}], []])
    def test_security_in_openapi_extra_stays(self, make_app: App, security: list[Any]) -> None:
        app = make_app()
        route(app, "/a", openapi_extra={"security": security})
        document = openapi_schema(app)
        assert document["paths"]["/a"]["get"]["security"] == security

    def test_security_in_openapi_extra_replaces_what_the_requirement_says(self, make_app: App) -> None:
        app = make_app()
        route(app, "/a", require_scope("x"), openapi_extra={"security": [{"Mine": []}]})
        assert openapi_schema(app)["paths"]["/a"]["get"]["security"] == [{"Mine": []}]

    def test_another_scheme_of_the_route_is_needed_together_with_ours(self, make_app: App) -> None:
        def nested(key: Annotated[str, Depends(APIKeyHeader(name="X-Key"))]) -> None: ...

        app = make_app()
        route(app, "/key", nested, require_scope("a") | require_scope("b"))
        route(app, "/two", APIKeyHeader(name="X-Key"), HTTPBasic())
        document = served(app)
        assert document["paths"]["/key"]["get"]["security"] == [
            {"APIKeyHeader": [], "ServiceToken": ["a"]},
            {"APIKeyHeader": [], "ServiceToken": ["b"]},
        ]
        # FastAPI itself takes two schemes for alternatives.
        assert document["paths"]["/two"]["get"]["security"] == [
            {"APIKeyHeader": [], "ServiceToken": []},
            {"HTTPBasic": [], "ServiceToken": []},
        ]
        assert set(document["components"]["securitySchemes"]) == {"APIKeyHeader", "HTTPBasic", "ServiceToken"}

    def test_a_document_of_the_users_own_is_taken_and_kept(self, make_app: App) -> None:
        app = make_app(app=FastAPI(title="theirs"))
        route(app, "/a", require_scope("read"))
        route(app, "/b")
        calls: list[Document] = []

        def openapi() -> Document:
            if app.openapi_schema is None:
                document = get_openapi(title="mine", version="7", routes=app.routes)
                document["info"]["x-logo"] = {"url": "logo.png"}
                document["components"]["securitySchemes"]["ServiceToken"] = {"type": "http", "scheme": "bearer"}
                document["paths"]["/b"]["get"]["security"] = [{"Other": []}]
                document["paths"]["/elsewhere"] = {"get": {"responses": {"200": {"description": "ok"}}}}
                calls.append(document)
                app.openapi_schema = document
            return app.openapi_schema

        app.openapi = openapi  # type: ignore[method-assign]
        document = served(app)
        assert document["info"] == {"title": "mine", "version": "7", "x-logo": {"url": "logo.png"}}
        assert document["components"]["securitySchemes"] == {"ServiceToken": {"type": "http", "scheme": "bearer"}}
        assert document["paths"]["/a"]["get"]["security"] == [{"ServiceToken": ["read"]}]
        assert document["paths"]["/b"]["get"]["security"] == [{"Other": []}]
        assert document["paths"]["/elsewhere"] == {"get": {"responses": {"200": {"description": "ok"}}}}
        assert "401" not in calls[0]["paths"]["/a"]["get"]["responses"]  # theirs was copied, not written in
        assert served(app) == document
        assert len(calls) == 1

    def test_security_for_the_whole_document_stays_the_security_of_operations_without_one(self, make_app: App) -> None:
        app = make_app()
        route(app, "/a")
        document = deepcopy(app.openapi())
        document["security"] = [{"Mine": []}]
        app.openapi = lambda: document  # type: ignore[method-assign]
        made = openapi_schema(app)
        assert made["security"] == [{"Mine": []}]
        assert "security" not in made["paths"]["/a"]["get"]
        assert "401" in made["paths"]["/a"]["get"]["responses"]

    def test_an_openapi_method_of_a_subclass_is_taken(self, make_app: App) -> None:
        class Mine(FastAPI):
            def openapi(self) -> Document:
                return {**super().openapi(), "x-mine": True}

        app = make_app(app=Mine())
        route(app, "/a")
        for _ in range(2):
            document = served(app)
            assert document["x-mine"] is True
            assert document["paths"]["/a"]["get"]["security"] == [{"ServiceToken": []}]

    def test_a_document_that_the_user_keeps_elsewhere_is_added_to_once_and_again_when_it_changes(
        self, make_app: App
    ) -> None:
        # Anybody may ask for it: reading all routes for each who does would be work that strangers order.
        said = ["one"]

        class Mine(FastAPI):
            def openapi(self) -> Document:
                return {**super().openapi(), "x-mine": [*said]}

        app = make_app(app=Mine())
        route(app, "/a")
        document = served(app)
        assert app.openapi() is app.openapi()
        assert served(app) == app.openapi() == document
        said.append("two")
        assert served(app) == {**document, "x-mine": ["one", "two"]}

    def test_a_document_of_the_users_own_that_changes_in_place_is_told_as_it_is(self, make_app: App) -> None:
        app = make_app()
        route(app, "/a")
        mine = get_openapi(title="mine", version="7", routes=app.routes)
        app.openapi = lambda: mine  # type: ignore[method-assign]
        assert served(app)["info"]["title"] == "mine"
        mine["info"]["title"] = "changed"
        document = served(app)
        assert document["info"]["title"] == "changed"
        assert document["paths"]["/a"]["get"]["security"] == [{"ServiceToken": []}]

    def test_callbacks_and_webhooks_are_calls_to_others_and_stay(self, make_app: App) -> None:
        calls = APIRouter()
        route(calls, "{$request.body.url}", method="post")
        app = make_app()
        route(app, "/a", callbacks=calls.routes)
        route(app.webhooks, "hooked", method="post")
        plain = FastAPI()
        route(plain, "/a", callbacks=calls.routes)
        route(plain.webhooks, "hooked", method="post")
        document, before = served(app), plain.openapi()
        assert document["webhooks"] == before["webhooks"]
        assert document["paths"]["/a"]["get"]["callbacks"] == before["paths"]["/a"]["get"]["callbacks"]


class TestTheCache:
    def test_the_document_is_made_once_and_kept_where_fastapi_keeps_it(self, make_app: App) -> None:
        app = make_app()
        route(app, "/a")
        served(app)
        assert app.openapi() is app.openapi() is app.openapi_schema
        assert app.openapi()["paths"]["/a"]["get"]["security"] == [{"ServiceToken": []}]
        app.openapi()["info"]["title"] = "changed in place"
        assert served(app)["info"]["title"] == "changed in place"

    def test_a_cache_that_is_emptied_is_filled_again(self, make_app: App) -> None:
        app = make_app()
        route(app, "/a")
        served(app)
        app.title, app.openapi_schema = "renamed", None
        document = served(app)
        assert document["info"]["title"] == "renamed"
        assert document["paths"]["/a"]["get"]["security"] == [{"ServiceToken": []}]

    def test_a_document_made_before_the_start_does_not_hide_the_whole_one(self, make_app: App) -> None:
        app = make_app()
        route(app, "/a", require_scope("read"))
        before = app.openapi()
        assert before["components"]["securitySchemes"]["ServiceToken"]["type"] == "http"
        document = served(app)
        assert document["components"]["securitySchemes"]["ServiceToken"]["type"] == "oauth2"
        assert before["components"]["securitySchemes"]["ServiceToken"]["type"] == "http"

    def test_a_route_that_is_added_after_the_start_is_described(self, make_app: App) -> None:
        app = make_app()
        route(app, "/a")
        served(app)
        route(app, "/late", require_scope("late"))
        app.openapi_schema = None
        assert served(app)["paths"]["/late"]["get"]["security"] == [{"ServiceToken": ["late"]}]

    def test_two_middlewares_around_one_app_do_not_pile_up(
        self, options: Callable[..., dict[str, Any]], make_app: App
    ) -> None:
        app = FastAPI()
        route(app, "/a", require_scope("x"))
        public = [*DOCS]
        served(ServiceAuthMiddleware(app, **options(public_paths=public)))
        other = ServiceAuthMiddleware(app, **options(public_paths=public, settings=settings(client_id="other")))
        assert openapi_schema(other)["paths"]["/a"]["get"]["x-service-auth"] == [
            "any service, token for other, scope x"
        ]
        document = served(other)
        assert document["paths"]["/a"]["get"]["x-service-auth"] == ["any service, token for other, scope x"]
        assert document["paths"]["/a"]["get"]["responses"]["403"]["description"].endswith("token for other, scope x.")


class TestAnAppOfNobodys:
    @staticmethod
    def filled(app: FastAPI) -> FastAPI:
        class Item(BaseModel):
            name: str

        @app.post("/items/{number}", response_model=Item, responses={404: {"description": "None"}})
        def item(number: int, item: Item, key: Annotated[str, Depends(APIKeyHeader(name="X-Key"))]) -> Any: ...

        return app

    def test_without_the_middleware_a_document_is_the_same_to_the_last_byte(self) -> None:
        app = self.filled(FastAPI())
        before = json.dumps(self.filled(FastAPI()).openapi())
        with TestClient(app) as client:
            assert client.get("/openapi.json").json() == json.loads(before)
        assert json.dumps(app.openapi()) == before
        assert "openapi" not in vars(app)

    def test_with_public_operations_only_it_is_the_same_too(self, make_app: App) -> None:
        app = self.filled(make_app(public_paths=("POST /items/{number}",)))
        before = json.dumps(self.filled(FastAPI()).openapi())
        served(app)
        assert json.dumps(app.openapi()) == before

    def test_what_is_added_is_the_only_difference(self, make_app: App) -> None:
        document = served(self.filled(make_app()))
        operation = document["paths"]["/items/{number}"]["post"]
        del operation["x-service-auth"]
        for status in STATUSES:
            del operation["responses"][status]
        assert operation["security"] == [{"APIKeyHeader": [], "ServiceToken": []}]
        operation["security"] = [{"APIKeyHeader": []}]
        del document["components"]["schemas"]["ServiceAuthError"]
        del document["components"]["securitySchemes"]["ServiceToken"]
        assert document == self.filled(FastAPI()).openapi()

    def test_the_older_form_of_the_document_is_valid_as_well(self, make_app: App) -> None:
        app = self.filled(make_app())
        app.openapi_version = "3.0.2"
        route(app, "/a", require_scope("a") | require_caller("b"))
        assert served(app)["openapi"] == "3.0.2"


class TestTheStart:
    def test_it_is_added_without_a_lifespan_too(self, make_app: App) -> None:
        app = make_app()
        route(app, "/a")
        document = TestClient(app).get("/openapi.json").json()  # without `with`: no lifespan
        assert document["paths"]["/a"]["get"]["security"] == [{"ServiceToken": []}]

    def test_a_middleware_in_between_or_around_hides_nothing(
        self, make_app: App, options: Callable[..., dict[str, Any]]
    ) -> None:
        app = FastAPI()
        app.add_middleware(GZipMiddleware)
        app.add_middleware(Closed)
        app = make_app(app=app)
        app.add_middleware(Closed)
        app.add_middleware(CORSMiddleware)
        route(app, "/a")
        assert served(app)["paths"]["/a"]["get"]["security"] == [{"ServiceToken": []}]
        assert openapi_schema(app) == app.openapi()

    @pytest.mark.parametrize("hidden", [False, True])
    def test_an_app_around_a_mount_is_none_of_our_business(
        self, options: Callable[..., dict[str, Any]], hidden: bool
    ) -> None:
        app, sub = FastAPI(), FastAPI()
        route(app, "/a")
        route(sub, "/a")
        below = Closed(sub) if hidden else sub
        app.mount("/sub", ServiceAuthMiddleware(below, **options(public_paths=["/openapi.json"])))
        assert ("security" in served(app, "/sub/openapi.json")["paths"]["/a"]["get"]) is not hidden
        assert "security" not in served(app)["paths"]["/a"]["get"]
        assert "openapi" not in vars(app)


class TestOffline:
    SCRIPT: Final = """
import json, socket, sys, threading
def no(*_, **__): raise SystemExit("the network was asked")
socket.socket.connect = socket.getaddrinfo = no
from typing import Annotated
from fastapi import Depends, FastAPI
from s2s_fastapi import ServiceAuthMiddleware, openapi_schema, require_scope
app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, public_paths=["/healthz"])
@app.get("/a", dependencies=[Depends(require_scope("read"))])
async def a() -> None: ...
print(json.dumps(openapi_schema(app)))
assert threading.active_count() == 1
assert not {"joserfc", "cryptography"} & set(sys.modules)
"""
    ENVIRONMENT: Final = {"KEYCLOAK_URL": "http://keycloak.test", "KEYCLOAK_REALM": "corp", "KEYCLOAK_CLIENT_ID": "crm"}

    def run(self, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        path = {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
        return subprocess.run(
            [sys.executable, "-c", self.SCRIPT],
            env={**path, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def test_a_script_prints_it_with_no_network_no_secret_no_thread_and_no_cryptography(self) -> None:
        done = self.run(self.ENVIRONMENT)
        assert done.stderr == ""
        document = json.loads(done.stdout)
        validate(document)
        assert document["paths"]["/a"]["get"]["x-service-auth"] == ["any service, token for crm, scope read"]

    def test_a_secret_that_is_there_is_not_in_it(self, tmp_path: Any) -> None:
        missing = {"KEYCLOAK_CLIENT_SECRET_FILE": str(tmp_path / "none")}
        assert self.run({**self.ENVIRONMENT, **missing}).returncode == 0
        assert "hush" not in self.run({**self.ENVIRONMENT, "KEYCLOAK_CLIENT_SECRET": "hush"}).stdout

    @pytest.mark.parametrize(
        ("left_out", "names"),
        [
            ("KEYCLOAK_URL", ["KEYCLOAK_URL"]),
            ("KEYCLOAK_REALM", ["KEYCLOAK_REALM"]),
            ("KEYCLOAK_CLIENT_ID", ["KEYCLOAK_CLIENT_ID", "KEYCLOAK_AUDIENCE"]),
        ],
    )
    def test_a_setting_that_is_missing_is_named(self, left_out: str, names: list[str]) -> None:
        environment = {name: value for name, value in self.ENVIRONMENT.items() if name != left_out}
        done = self.run(environment)
        assert done.returncode == 1
        assert done.stdout == ""
        last = done.stderr.splitlines()[-1]
        assert "ConfigurationError" in last
        assert all(name in last for name in names)

    def test_it_is_what_the_started_app_serves(self, make_app: App) -> None:
        app = make_app(public_paths=("/healthz",))
        route(app, "/a", require_scope("a") | require_caller("b"))
        route(app, "/healthz")
        offline = openapi_schema(app)
        assert served(app) == offline
        assert openapi_schema(app) == offline

    def test_it_leaves_the_app_as_it_was(self, make_app: App, realm: Realm) -> None:
        app = make_app()
        route(app, "/a", require_scope("a"))
        before = deepcopy(app.openapi())
        document = openapi_schema(app)
        assert app.openapi() == before != document
        assert "openapi" not in vars(app)
        assert app.middleware_stack is None
        assert realm.requests == []
        document["paths"].clear()
        assert openapi_schema(app)["paths"]

    def test_it_takes_an_app_that_is_wrapped_from_outside(self, options: Callable[..., dict[str, Any]]) -> None:
        app = FastAPI()
        route(app, "/a")
        wrapped = CORSMiddleware(ServiceAuthMiddleware(app, **options()))
        assert openapi_schema(wrapped)["paths"]["/a"]["get"]["security"] == [{"ServiceToken": []}]

    def test_it_takes_a_subclass_of_the_middleware(self) -> None:
        class Ours(ServiceAuthMiddleware):
            def __init__(self, app: Any) -> None:
                super().__init__(app, settings(client_id="ours"), public_paths=["/open"])

        app = FastAPI()
        app.add_middleware(Ours)
        route(app, "/a")
        route(app, "/open")
        document = openapi_schema(app)
        assert {name for name, operation in operations(document) if "security" in operation} == {"GET /a"}

    def test_without_the_middleware_it_says_so(self) -> None:
        with pytest.raises(ConfigurationError, match="finds no ServiceAuthMiddleware"):
            openapi_schema(FastAPI())

    def test_an_app_that_would_not_start_has_no_document(self, make_app: App) -> None:
        app = make_app(public_paths=("/a",))
        route(app, "/a", require_service())
        with pytest.raises(ConfigurationError, match="public_paths opens GET /a"):
            openapi_schema(app)


class TestARequirementIsASecurityScheme:
    def test_fastapi_takes_it_for_one_even_where_nothing_is_known_of_the_realm(self) -> None:
        app = FastAPI()
        route(app, "/a", require_scope("a"))
        app.get("/b", dependencies=[Security(require_service(), scopes=["b"])])(lambda: None)
        document = app.openapi()
        assert document["components"]["securitySchemes"] == {
            "ServiceToken": {
                "type": "http",
                "description": "An access token of Keycloak (RFC 6750).",
                "scheme": "bearer",
                "bearerFormat": "JWT",
            }
        }
        assert document["paths"]["/a"]["get"]["security"] == [{"ServiceToken": []}]
        assert document["paths"]["/b"]["get"]["security"] == [{"ServiceToken": ["b"]}]
        validate(cast("Any", document))

    def test_that_changes_neither_its_equality_nor_its_text(self) -> None:
        requirement = require_caller("a") & require_scope("b")
        assert isinstance(requirement, SecurityBase)
        assert requirement == require_caller("a") & require_scope("b")
        assert hash(requirement) == hash(require_caller("a") & require_scope("b"))
        assert "model" not in repr(requirement)
        assert "scheme_name" not in repr(requirement)
        assert SecurityScopes in requirement.__call__.__annotations__.values()


class TestBoundTokens:
    def serving(self, make_app: App, mode: str) -> Document:
        app = make_app(dpop=mode, public_url="https://crm.example.com")
        route(app, "/any")
        route(app, "/bound", require_caller("a") & require_bound())
        return served(app)

    def test_beside_bearer_tokens_are_a_second_alternative(self, make_app: App) -> None:
        document = self.serving(make_app, "accepted")
        scheme = document["components"]["securitySchemes"]["DPoP"]
        assert (scheme["type"], scheme["scheme"]) == ("http", "dpop")
        assert document["paths"]["/any"]["get"]["security"] == [{"ServiceToken": []}, {"ServiceToken": [], "DPoP": []}]
        assert document["paths"]["/bound"]["get"]["security"] == [{"ServiceToken": [], "DPoP": []}]
        assert document["paths"]["/bound"]["get"]["x-service-auth"] == [
            "service a, token for crm-api-gateway, bound token"
        ]

    def test_alone_are_the_only_one(self, make_app: App) -> None:
        document = self.serving(make_app, "required")
        for path in ("/any", "/bound"):
            assert document["paths"][path]["get"]["security"] == [{"ServiceToken": [], "DPoP": []}]

    @pytest.mark.parametrize(
        ("mode", "begins"), [("accepted", 'Bearer realm="crm-api-gateway", DPoP realm='), ("required", "DPoP realm=")]
    )
    def test_the_answer_shows_every_challenge(self, mode: str, begins: str, make_app: App) -> None:
        answer = self.serving(make_app, mode)["paths"]["/any"]["get"]["responses"]["401"]
        assert list(answer["headers"]) == ["WWW-Authenticate"]
        assert answer["headers"]["WWW-Authenticate"]["example"].startswith(begins)
        assert "new proof" in answer["description"]

    def test_are_not_mentioned_by_an_app_that_takes_none(self, make_app: App) -> None:
        app = make_app()
        route(app, "/any")
        assert "dpop" not in json.dumps(served(app)).lower()


class TestCertificates:
    def test_are_an_alternative_of_their_own(self, make_app: App) -> None:
        app = make_app(client_certificate="tls")
        route(app, "/any")
        route(app, "/bound", require_caller("a") & require_bound())
        document = served(app)
        assert document["components"]["securitySchemes"]["ClientCertificate"]["type"] == "mutualTLS"
        with_certificate: dict[str, list[str]] = {"ServiceToken": [], "ClientCertificate": []}
        assert document["paths"]["/any"]["get"]["security"] == [{"ServiceToken": []}, with_certificate]
        assert document["paths"]["/bound"]["get"]["security"] == [with_certificate]
        validate(cast("Any", document))

    def test_stand_beside_proofs_unless_these_are_required(self, make_app: App) -> None:
        for mode, names in (("accepted", ["DPoP", "ClientCertificate"]), ("required", ["DPoP"])):
            app = make_app(client_certificate="tls", dpop=mode, public_url="https://crm.example.com")
            route(app, "/bound", require_caller("a") & require_bound())
            document = served(app)
            assert [list(entry)[1] for entry in document["paths"]["/bound"]["get"]["security"]] == names
            assert set(names) == {"DPoP", "ClientCertificate"} & set(document["components"]["securitySchemes"])
