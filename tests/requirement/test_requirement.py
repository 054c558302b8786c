"""What a route requires: every way to write it is enforced, and every way to miswrite it is an error, never an open route."""

import copy
import functools
import inspect
import operator
import pickle
from collections.abc import Callable
from typing import Annotated, Any, cast

import pytest
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Security, WebSocket
from fastapi.security import SecurityScopes
from pydantic import BaseModel
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser, requires
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import s2s_fastapi
from s2s_fastapi import (
    AuthenticationError,
    AuthorizationError,
    ConfigurationError,
    CurrentPrincipal,
    Principal,
    Requirement,
    read_access,
    require_audience,
    require_caller,
    require_claim,
    require_realm_role,
    require_role,
    require_scope,
    require_service,
    require_that,
    require_user,
)
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.requirement.request_state import SCOPE_KEY
from s2s_fastapi.requirement.requirement import AllOf, AnyOf
from tests.kit.realm import settings
from tests.kit.receiving import App, Client, Headers, Observed

FACTORIES: list[Callable[..., Requirement]] = [
    require_service,
    require_caller,
    require_user,
    require_scope,
    require_role,
    require_realm_role,
    require_audience,
    require_claim,
    require_that,
]


def caller(kind: str = "service", client_id: str = "a", **fields: Any) -> Principal:
    return Principal(
        client_id=client_id,
        kind=cast("Any", kind),
        issuer="i",
        issued_at=1,
        expires_at=2,
        **{"audiences": frozenset({"crm"}), **fields},
    )


@pytest.fixture(params=FACTORIES, ids=lambda factory: factory.__name__)
def factory(request: pytest.FixtureRequest) -> Callable[..., Requirement]:
    return cast("Callable[..., Requirement]", request.param)


_REALM = "realm: str | None = None"


def test_the_signature_of_a_factory_shows_what_one_writes() -> None:
    shown = {
        factory.__name__: [str(each) for each in inspect.signature(factory).parameters.values()]
        for factory in FACTORIES
    }
    assert shown == {
        "require_service": [_REALM],
        "require_caller": ["*client_ids: str", _REALM],
        "require_user": ["*client_ids: str", _REALM],
        "require_scope": ["*scopes: str", _REALM],
        "require_role": ["*roles: str", "client: str | None = None", _REALM],
        "require_realm_role": ["*roles: str", _REALM],
        "require_audience": ["*audiences: str", "only: bool = False", _REALM],
        "require_claim": ["name_or_path: str | tuple[str, ...]", "*values: str | int | float | bool", _REALM],
        "require_that": [
            "name: str",
            "predicate: collections.abc.Callable[[s2s_fastapi.principal.Principal], bool]",
            _REALM,
        ],
    }


class TestAMistakeIsAnErrorWhenItIsWritten:
    def test_depends_on_a_factory_without_parentheses(self, factory: Callable[..., Requirement]) -> None:
        app = FastAPI()
        with pytest.raises(TypeError, match="with its parentheses"):

            @app.get("/")
            async def route(caller: Annotated[Any, Depends(factory)]) -> None: ...

    def test_security_on_a_factory_without_parentheses(self, factory: Callable[..., Requirement]) -> None:
        app = FastAPI()
        with pytest.raises(TypeError, match="with its parentheses"):

            @app.get("/")
            async def route(caller: Annotated[Any, Security(factory, scopes=["x"])]) -> None: ...

    def test_a_factory_without_parentheses_among_the_dependencies(self, factory: Callable[..., Requirement]) -> None:
        app = FastAPI()
        with pytest.raises(TypeError, match="with its parentheses"):
            app.get("/", dependencies=[Depends(factory)])(lambda: None)

    def test_a_factory_without_parentheses_on_a_websocket(self, factory: Callable[..., Requirement]) -> None:
        app = FastAPI()
        with pytest.raises(TypeError, match="with its parentheses"):
            app.websocket("/", dependencies=[Depends(factory)])(lambda websocket: None)

    def test_a_factory_without_parentheses_below_a_users_dependency(self, factory: Callable[..., Requirement]) -> None:
        app = FastAPI()

        async def mine(caller: Any = Depends(factory)) -> None: ...

        with pytest.raises(TypeError, match="with its parentheses"):
            app.get("/", dependencies=[Depends(mine)])(lambda: None)

    def test_a_factory_without_parentheses_in_a_partial(self, factory: Callable[..., Requirement]) -> None:
        app = FastAPI()
        with pytest.raises(TypeError, match="with its parentheses"):
            app.get("/", dependencies=[Depends(functools.partial(factory))])(lambda: None)

    @pytest.mark.parametrize(
        "annotation",
        [
            Principal,
            list[Principal],
            Principal | None,
            dict[str, Principal],
            Annotated[Principal, Query()],
            tuple[Principal, ...],
        ],
        ids=str,
    )
    def test_a_principal_that_would_come_from_the_request(self, annotation: Any) -> None:
        app = FastAPI()

        async def route(caller: Any) -> None: ...

        route.__annotations__["caller"] = annotation
        with pytest.raises(TypeError, match="Principal is not request data"):
            app.post("/")(route)

    def test_a_principal_as_what_a_route_returns(self) -> None:
        app = FastAPI()
        with pytest.raises(TypeError, match="Principal is not request data"):

            @app.get("/")
            async def route(caller: Annotated[Principal, Depends(require_service())]) -> Principal:
                return caller

    def test_a_principal_within_a_model(self) -> None:
        with pytest.raises(TypeError, match="Principal is not request data"):

            class Body(BaseModel):
                caller: Principal

    def test_a_principal_annotated_with_a_requirement_but_no_depends(self) -> None:
        app = FastAPI()
        with pytest.raises(TypeError, match="Principal is not request data"):

            @app.get("/")
            async def route(caller: Annotated[Principal, require_caller("a")]) -> None: ...

    @pytest.mark.parametrize(
        "names", [("",), (["a"],), (" a",), (" ",), ("a\n",), ("a\x00",), (None,), (1,), (b"a",), ("a", "")], ids=repr
    )
    @pytest.mark.parametrize("taking", FACTORIES[1:-2], ids=lambda factory: factory.__name__)
    def test_names_that_are_none(self, taking: Callable[..., Requirement], names: Any) -> None:
        with pytest.raises(ConfigurationError, match=taking.__name__):
            taking(*names)

    @pytest.mark.parametrize(
        "taking", [require_caller, require_scope, require_role, require_realm_role, require_audience]
    )
    def test_no_names_at_all(self, taking: Callable[..., Requirement]) -> None:
        with pytest.raises(ConfigurationError, match=f"{taking.__name__} needs at least one name"):
            taking()

    @pytest.mark.parametrize("client", ["", "a ", ["a"]])
    def test_a_role_of_a_client_that_is_no_name(self, client: Any) -> None:
        with pytest.raises(ConfigurationError, match="require_role"):
            require_role("x", client=client)

    @pytest.mark.parametrize(
        "other",
        [None, True, "a", require_service, Depends(require_service())],
        ids=["None", "True", "text", "a factory", "Depends"],
    )
    def test_joining_a_requirement_with_something_else(self, other: Any) -> None:
        for join in (operator.and_, operator.or_):
            with pytest.raises(ConfigurationError, match="can only be joined with another"):
                join(require_service(), other)

    def test_joining_requirements_with_and_or_or(self) -> None:
        with pytest.raises(ConfigurationError, match=r"Join requirements .*: write require_caller\(\"a\"\) & "):
            Depends(require_caller("a") and require_scope("s"))
        with pytest.raises(ConfigurationError, match="Join requirements"):
            Depends(require_caller("a") or require_scope("s"))

    def test_a_requirement_that_is_called_in_depends(self) -> None:
        called: Any = require_caller("a")
        with pytest.raises(ConfigurationError, match=r"write Depends\(admin\), without parentheses"):
            Depends(called())

    @pytest.mark.parametrize("asking", ["app", "fastapi_app", "fastapi2.routing", "my.fastapi.app", "__main__"])
    def test_whether_a_requirement_is_true(self, asking: str) -> None:
        names = {"__name__": asking, "requirement": require_service()}
        with pytest.raises(ConfigurationError, match="Join requirements"):
            eval("not requirement", names)  # noqa: S307 - stands for a module of that name


Admin = require_caller("admin-service")


def make_admin() -> Any:
    return require_caller("admin-service")


def give_admin() -> Any:
    return Admin


POLICIES = {"admin": Admin}
RULES = [Admin]


def closing_over(value: Any) -> Callable[[], Any]:
    return lambda: value["admin"] if isinstance(value, dict) else value


def my_factory() -> Requirement:
    return require_caller("a")


def kept(requirement: Requirement) -> Callable[[], Requirement]:
    def get_it() -> Requirement:
        return requirement

    return get_it


class TestAMistakeStopsTheStart:
    def stopped(self, app: FastAPI, client: Client, sentence: str) -> None:
        with pytest.raises(ConfigurationError, match=sentence), client(app):
            pass
        assert client(app).get("/x").status_code == 500

    def test_a_requirement_as_a_plain_default(self, make_app: App, client: Client) -> None:
        app = make_app()

        @app.get("/x")
        async def route(p=require_caller("a")) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001, B008

        self.stopped(
            app, client, r"GET /x \(.*test_requirement.py:\d+\): the parameter p has the requirement .*without Depends"
        )

    def test_a_requirement_as_a_plain_default_below_a_users_dependency(self, make_app: App, client: Client) -> None:
        app = make_app()

        async def mine(p=require_caller("a")) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001, B008

        app.get("/x", dependencies=[Depends(mine)])(lambda: None)
        self.stopped(app, client, r"the parameter p has the requirement require_caller\(\"a\"\)")

    @pytest.mark.parametrize("kind", [Request, str])
    def test_a_requirement_in_annotated_without_depends(self, make_app: App, client: Client, kind: Any) -> None:
        app = make_app()

        async def route(p: Any = None) -> None: ...

        route.__annotations__["p"] = Annotated[kind, require_caller("a")]
        app.get("/x")(route)
        self.stopped(
            app,
            client,
            r"the parameter p has the requirement require_caller\(\"a\"\): FastAPI does not ask a requirement without Depends",
        )

    def test_depends_without_an_argument_on_the_principal(
        self, make_app: App, client: Client, service: Headers
    ) -> None:
        app = make_app()

        @app.post("/x")
        async def route(caller: Annotated[Principal, Depends()]) -> str:
            return caller.client_id

        self.stopped(app, client, r"Depends\(\) on Principal itself")
        forged = "/x?client_id=admin&kind=service&issuer=i&issued_at=1&expires_at=2"
        assert client(app).post(forged, headers=service(), json={}).status_code == 500

    @pytest.mark.parametrize(
        "call", [Requirement, AllOf, my_factory, kept(require_caller("a"))], ids=lambda call: call.__name__
    )
    def test_depends_on_what_only_makes_a_requirement(self, make_app: App, client: Client, call: Any) -> None:
        app = make_app()
        app.post("/x", dependencies=[Depends(call)])(lambda: None)
        self.stopped(app, client, r"makes a requirement and does not ask it: write Depends\(\w+\(\.\.\.\)\)")

    def test_depends_on_a_function_that_calls_any_factory(
        self, make_app: App, client: Client, service: Headers, factory: Callable[..., Requirement]
    ) -> None:
        arguments = {"require_claim": "'a', 'b'", "require_that": "'a', lambda _: True"}.get(factory.__name__, "'a'")
        mine = eval(f"lambda: {factory.__name__}({arguments})", globals())  # noqa: S307 - as somebody would write it
        app = make_app()
        app.post("/x", dependencies=[Depends(mine)])(lambda: None)
        with client(app) as there:
            assert there.post("/x", headers=service()).status_code == 500

    @pytest.mark.parametrize(
        "dependency",
        [
            make_admin,
            give_admin,
            lambda: require_caller("a"),
            functools.partial(make_admin),
            closing_over(require_caller("admin")),
            closing_over({"admin": require_caller("admin")}),
            lambda: POLICIES["admin"],
            lambda: RULES[0],
            lambda: s2s_fastapi.require_caller("admin"),
        ],
    )
    def test_a_dependency_that_returns_a_requirement_unasked(
        self, make_app: App, client: Client, service: Headers, dependency: Any
    ) -> None:
        app = make_app(app=FastAPI(dependencies=[Depends(dependency)]))
        app.get("/x")(lambda: "open")
        with client(app) as there:
            assert there.get("/x", headers=service()).status_code == 500
            assert there.get("/x", headers=service(azp="admin-service", client_id="admin-service")).status_code == 500

    def test_a_dependency_that_checks_by_itself_is_none_of_these(
        self, make_app: App, client: Client, service: Headers
    ) -> None:
        app = make_app()

        def admin(request: Request) -> Principal:
            principal: Principal = request.user
            return Admin.check(principal)

        @app.get("/x")
        async def route(caller: Annotated[Principal, Depends(admin)]) -> str:
            return "closed"

        with client(app) as there:
            assert there.get("/x", headers=service()).status_code == 403

    def test_a_requirement_inside_of_a_union(self, make_app: App, client: Client) -> None:
        app = make_app()

        @app.get("/x")
        async def route(caller: Annotated[Any, Depends(Admin)] | None = None) -> str:
            return "open"

        self.stopped(app, client, "FastAPI does not look inside of a union")

    @pytest.mark.parametrize(
        ("requirement", "sentence"),
        [
            (require_user(), r"accepts only services \(to accept users as well, write users=True"),
            (require_user("ui"), "accepts only services"),
            (require_service() & require_user(), "never both"),
            (require_caller("a") & require_caller("b"), "one caller, and no one is in all of"),
            (require_caller("a") & (require_caller("b") | require_caller("c")), "one caller"),
            (require_caller("a", "b") & require_caller("b", "c") & require_caller("c", "a"), "one caller"),
            (require_audience("other"), "accepts only crm-api-gateway"),
            (require_audience("other") | require_user(), "accepts only crm-api-gateway"),
            (
                require_audience("crm-api-gateway", only=True)
                & require_audience("other", "crm-api-gateway")
                & require_audience("other"),
                "accepts only",
            ),
        ],
        ids=str,
    )
    def test_a_requirement_that_no_token_of_the_app_can_meet(
        self, make_app: App, client: Client, requirement: Requirement, sentence: str
    ) -> None:
        app = make_app()
        app.get("/x", dependencies=[Depends(requirement)])(lambda: None)
        self.stopped(
            app,
            client,
            rf"GET /x \(.*test_requirement\.py:\d+\): no token of this app can meet its requirement: .*{sentence}",
        )

    def test_audiences_that_exclude_each_other(self, make_app: App, client: Client) -> None:
        app = make_app(audience=["a", "b"])
        app.get("/x", dependencies=[Depends(require_audience("a", only=True)), Depends(require_audience("b"))])(
            lambda: None
        )
        self.stopped(app, client, "one audience only, and also for another one")

    def test_dependencies_that_contradict_each_other_on_different_levels(self, make_app: App, client: Client) -> None:
        app = make_app()
        router = APIRouter(dependencies=[Depends(require_caller("a"))])
        router.get("/x", dependencies=[Depends(require_caller("b"))])(lambda: None)
        app.include_router(router)
        self.stopped(app, client, "one caller")

    @pytest.mark.parametrize(
        "requirement",
        [require_role("r"), require_role("r") | require_service(), require_service() & require_role("r")],
        ids=str,
    )
    def test_a_role_of_nobodys_client(self, make_app: App, client: Client, requirement: Requirement) -> None:
        app = make_app(settings=settings(client_id=None, audience="crm-api-gateway"))
        app.get("/x", dependencies=[Depends(requirement)])(lambda: None)
        self.stopped(app, client, "require_role needs client=")

    @pytest.mark.parametrize(
        "requirement",
        [
            require_caller("a") & (require_caller("b") | require_caller("a")),
            require_user() | require_service(),
            require_audience("other", "crm-api-gateway"),
            require_audience("crm-api-gateway", only=True) & require_audience("crm-api-gateway", "other"),
            require_caller("a", "b") & require_caller("b", "c"),
            require_role("r"),
            require_realm_role("r"),
        ],
        ids=str,
    )
    def test_a_requirement_that_some_token_can_meet_starts(
        self, make_app: App, client: Client, requirement: Requirement
    ) -> None:
        app = make_app()
        app.get("/x", dependencies=[Depends(requirement)])(lambda: None)
        with client(app) as there:
            assert there.get("/x").status_code == 401


class TestEverywhereItCanBeWritten:
    @pytest.fixture
    def check(self, client: Client, service: Headers) -> Callable[[FastAPI], None]:
        def checked(app: FastAPI) -> None:
            with client(app) as there:
                assert there.get("/x", headers=service()).status_code == 200
                refused = there.get("/x", headers=service(azp="eve", client_id="eve"))
                assert refused.status_code == 403
                assert (
                    refused.headers["WWW-Authenticate"] == 'Bearer realm="crm-api-gateway", error="insufficient_scope"'
                )
                assert refused.json() == {"detail": "This caller may not call this."}
                assert there.get("/x").status_code == 401

        return checked

    ASKED = Depends(require_caller("chat-app-service"))

    def test_as_a_parameter_of_the_route(self, make_app: App, check: Callable[[FastAPI], None]) -> None:
        app = make_app()

        @app.get("/x")
        async def route(caller: Annotated[Principal, self.ASKED]) -> str:
            assert isinstance(caller, Principal)
            return caller.client_id

        check(app)

    def test_as_an_old_style_default(self, make_app: App, check: Callable[[FastAPI], None]) -> None:
        app = make_app()

        @app.get("/x")
        def route(caller: Principal = self.ASKED) -> str:
            return caller.client_id

        check(app)

    def test_on_the_route(self, make_app: App, check: Callable[[FastAPI], None]) -> None:
        app = make_app()
        app.get("/x", dependencies=[self.ASKED])(lambda: None)
        check(app)

    def test_on_the_router(self, make_app: App, check: Callable[[FastAPI], None]) -> None:
        app = make_app()
        router = APIRouter(dependencies=[self.ASKED])
        router.get("/x")(lambda: None)
        app.include_router(router)
        check(app)

    def test_where_the_router_is_included(self, make_app: App, check: Callable[[FastAPI], None]) -> None:
        app = make_app()
        router, outer = APIRouter(), APIRouter()
        router.get("/x")(lambda: None)
        outer.include_router(router)
        app.include_router(outer, dependencies=[self.ASKED])
        check(app)

    def test_on_the_app(self, make_app: App, check: Callable[[FastAPI], None]) -> None:
        app = make_app(app=FastAPI(openapi_url=None, dependencies=[self.ASKED]))
        app.get("/x")(lambda: None)
        check(app)

    def test_below_a_users_own_dependency(self, make_app: App, check: Callable[[FastAPI], None]) -> None:
        app = make_app()

        class Tenant:
            def __init__(self, caller: Annotated[Principal, TestEverywhereItCanBeWritten.ASKED]) -> None:
                self.caller = caller

        async def outer(tenant: Annotated[Tenant, Depends()]) -> Tenant:
            return tenant

        @app.get("/x")
        async def route(tenant: Annotated[Tenant, Depends(outer)]) -> str:
            return tenant.caller.client_id

        check(app)

    def test_joined(self, make_app: App, check: Callable[[FastAPI], None]) -> None:
        app = make_app()
        both = require_audience("crm-api-gateway") & require_caller("chat-app-service")
        app.get("/x", dependencies=[Depends(both)])(lambda: None)
        check(app)

    def test_on_a_websocket(self, make_app: App, client: Client, service: Headers) -> None:
        app = make_app()

        @app.websocket("/ws")
        async def socket(websocket: WebSocket, caller: Annotated[Principal, self.ASKED]) -> None:
            await websocket.accept()
            await websocket.send_text(caller.client_id)
            await websocket.close()

        with client(app) as there:
            with there.websocket_connect("/ws", headers=service()) as connected:
                assert connected.receive_text() == "chat-app-service"
            with (
                pytest.raises(WebSocketDisconnect),
                there.websocket_connect("/ws", headers=service(azp="eve", client_id="eve")),
            ):
                pass

    def test_an_override_of_an_equal_requirement_replaces_it_and_not_the_middleware(
        self, make_app: App, client: Client, service: Headers
    ) -> None:
        app = make_app()
        app.get("/x", dependencies=[Depends(require_caller("b", "a"))])(lambda: None)
        app.dependency_overrides[require_caller("a", "b")] = lambda: None
        with client(app) as there:
            assert there.get("/x", headers=service()).status_code == 200
            assert there.get("/x").status_code == 401


class TestScopesOfSecurity:
    @pytest.fixture
    def check(self, client: Client, service: Headers) -> Callable[[FastAPI], None]:
        def checked(app: FastAPI) -> None:
            with client(app) as there:
                refused = there.get("/x", headers=service())
                assert refused.status_code == 403
                assert refused.headers["WWW-Authenticate"].endswith('error="insufficient_scope", scope="tickets:write"')
                assert there.get("/x", headers=service(scope="a tickets:write")).status_code == 200

        return checked

    def test_around_a_requirement_are_enforced(self, make_app: App, check: Callable[[FastAPI], None]) -> None:
        app = make_app()
        app.get("/x", dependencies=[Security(require_service(), scopes=["tickets:write"])])(lambda: None)
        check(app)

    def test_around_a_dependency_that_asks_the_requirement_are_enforced(
        self, make_app: App, check: Callable[[FastAPI], None]
    ) -> None:
        app = make_app()

        async def mine(caller: Annotated[Principal, Depends(require_service())]) -> Principal:
            return caller

        app.get("/x", dependencies=[Security(mine, scopes=["tickets:write"])])(lambda: None)
        check(app)

    def test_around_a_dependency_on_the_current_principal_are_enforced(
        self, make_app: App, check: Callable[[FastAPI], None]
    ) -> None:
        app = make_app()

        async def mine(caller: CurrentPrincipal, scopes: SecurityScopes) -> Principal:
            return caller

        app.get("/x", dependencies=[Security(mine, scopes=["tickets:write"])])(lambda: None)
        check(app)

    def test_are_required_all_of_them(self, make_app: App, client: Client, service: Headers) -> None:
        app = make_app()

        async def mine(caller: CurrentPrincipal) -> Principal:
            return caller

        app.get("/x", dependencies=[Security(require_service(), scopes=["a", "b"])])(lambda: None)
        app.get("/y", dependencies=[Security(mine, scopes=["a", "b"])])(lambda: None)
        with client(app) as there:
            for path in ("/x", "/y"):
                for scope in ("a", "b", "ab", "a,b"):
                    refused = there.get(path, headers=service(scope=scope))
                    assert refused.status_code == 403
                    assert refused.headers["WWW-Authenticate"].endswith('error="insufficient_scope", scope="a b"')
                assert there.get(path, headers=service(scope="b a")).status_code == 200

    def test_hold_besides_the_requirement_itself(self, make_app: App, client: Client, service: Headers) -> None:
        app = make_app()
        app.get("/x", dependencies=[Security(require_caller("b") | require_caller("c"), scopes=["s"])])(lambda: None)
        with client(app) as there:
            assert there.get("/x", headers=service(scope="s")).json() == {"detail": "This caller may not call this."}
            assert there.get("/x", headers=service(azp="c", client_id="c", scope="s")).status_code == 200
            assert there.get("/x", headers=service(azp="c", client_id="c", scope="t")).status_code == 403


class TestTheAlgebra:
    A, B, S = require_caller("a"), require_caller("b"), require_scope("s")

    @pytest.mark.parametrize(
        ("requirement", "principal", "reason"),
        [
            (require_service(), caller(), "allowed"),
            (require_service(), caller("user"), "not_a_service"),
            (require_service(), caller("unknown"), "unknown_kind"),
            (require_user(), caller("unknown"), "unknown_kind"),
            (require_user(), caller(), "not_a_user"),
            (require_user("ui"), caller("user", "ui"), "allowed"),
            (require_user("ui"), caller("user", "other-ui"), "caller_not_allowed"),
            (A, caller(), "allowed"),
            (A, caller(client_id="A"), "caller_not_allowed"),
            (A, caller("user"), "not_a_service"),
            (A, caller("unknown"), "unknown_kind"),
            (require_caller("a", "b"), caller(client_id="b"), "allowed"),
            (S, caller(scopes=frozenset({"s", "t"})), "allowed"),
            (S, caller(scopes=frozenset({"s:sub", "S"})), "scope_missing"),
            (require_scope("s", "t"), caller(scopes=frozenset({"s"})), "scope_missing"),
            (require_realm_role("r"), caller(realm_roles=frozenset({"r"})), "allowed"),
            (require_realm_role("r"), caller(client_roles={"crm": frozenset({"r"})}), "role_missing"),
            (require_role("r"), caller(client_roles={"crm": frozenset({"r"})}), "allowed"),
            (
                require_role("r"),
                caller(client_roles={"other": frozenset({"r"})}, realm_roles=frozenset({"r"})),
                "role_missing",
            ),
            (require_role("r", client="other"), caller(client_roles={"other": frozenset({"r"})}), "allowed"),
            (require_role("r", client="other"), caller(client_roles={"crm": frozenset({"r"})}), "role_missing"),
            (require_role("r", "q"), caller(client_roles={"crm": frozenset({"r"})}), "role_missing"),
            (require_audience("crm"), caller(), "allowed"),
            (require_audience("x", "crm"), caller(), "allowed"),
            (require_audience("crm"), caller(audiences=frozenset({"crm", "bob"})), "allowed"),
            (require_audience("x"), caller(), "wrong_audience"),
            (require_audience("crm", only=True), caller(), "allowed"),
            (require_audience("crm", only=True), caller(audiences=frozenset({"crm", "bob"})), "audience_not_only"),
            (require_audience("crm", "bob", only=True), caller(audiences=frozenset({"crm", "bob"})), "allowed"),
            (A & S, caller(), "scope_missing"),
            (A & S, caller(scopes=frozenset({"s"})), "allowed"),
            (A & S, caller(client_id="x"), "caller_not_allowed"),
            (A & require_audience("x"), caller(client_id="x"), "wrong_audience"),
            (A | B, caller(client_id="b"), "allowed"),
            (A | B, caller(client_id="x"), "caller_not_allowed"),
            (A | require_audience("x"), caller(client_id="x"), "caller_not_allowed"),
            (require_audience("x") | require_audience("y"), caller(), "wrong_audience"),
            ((A | B) & S, caller(client_id="b"), "scope_missing"),
            ((A & S) | B, caller(client_id="b"), "allowed"),
            ((A & S) | B, caller(), "scope_missing"),
            (A & (S | require_realm_role("r")), caller(realm_roles=frozenset({"r"})), "allowed"),
            (require_service() | require_user(), caller("unknown"), "unknown_kind"),
        ],
        ids=lambda value: value.kind if isinstance(value, Principal) else str(value),
    )
    def test_every_combination_decides_as_it_reads(
        self, requirement: Requirement, principal: Principal, reason: str
    ) -> None:
        assert str(requirement.judge(principal, "crm").reason) == reason

    def test_equal_requirements_are_one_value(self) -> None:
        assert {require_caller("a", "b"), require_caller("b", "a", "a")} == {require_caller("a", "b")}
        assert require_service() & require_scope("s") == require_service() & require_scope("s")

    @pytest.mark.parametrize(
        "other",
        [
            require_caller("b"),
            require_user("a"),
            require_scope("a"),
            require_role("a"),
            require_realm_role("a"),
            require_audience("a"),
            require_service(),
        ],
        ids=str,
    )
    def test_requirements_that_differ_are_not_equal(self, other: Requirement) -> None:
        assert other != require_caller("a")
        assert require_role("a") != require_role("a", client="x")
        assert require_audience("a") != require_audience("a", only=True)
        assert (require_scope("a") & require_scope("b")) != (require_scope("a") | require_scope("b"))

    def test_chains_of_one_operator_are_flat(self) -> None:
        a, b, c = require_scope("a"), require_scope("b"), require_scope("c")
        assert (a & b) & c == a & (b & c) == AllOf((a, b, c))
        assert (a | b) | c == a | (b | c) == AnyOf((a, b, c))
        assert (a | b) & c == AllOf((AnyOf((a, b)), c))

    def test_a_combination_is_shown_with_parentheses_around_the_other_operator_alone(self) -> None:
        a, b, c = require_scope("a"), require_scope("b"), require_scope("c")
        assert str((a & b) | c) == f"({a} & {b}) | {c}"
        assert str((a | b) & c) == f"({a} | {b}) & {c}"

    @pytest.mark.parametrize(
        "requirement",
        [
            require_caller("a", "b") & (require_scope("s") | require_role("r")),
            require_audience("a", only=True),
            require_realm_role("r"),
            require_service(),
        ],
        ids=str,
    )
    def test_a_copy_of_a_requirement_is_the_same_value(self, requirement: Requirement) -> None:
        for other in (pickle.loads(pickle.dumps(requirement)), copy.deepcopy(requirement)):  # noqa: S301 - our own bytes
            assert (other, hash(other), str(other)) == (requirement, hash(requirement), str(requirement))
            assert other.judge(caller(), "crm") == requirement.judge(caller(), "crm")

    def test_what_would_have_to_change_is_told_of_what_is_not_met_alone(self) -> None:
        a, b, s, t = require_caller("a"), require_caller("b"), require_scope("s"), require_scope("t")
        assert [refusal.reason for refusal in ((a | b) & s).refusals(caller())] == [Reason.SCOPE_MISSING]
        assert [refusal.reason for refusal in (b & s & t).refusals(caller())] == [
            Reason.CALLER_NOT_ALLOWED,
            Reason.SCOPE_MISSING,
            Reason.SCOPE_MISSING,
        ]
        assert (a | s).refusals(caller()) == ()
        assert [refusal.reason for refusal in (b & require_role("r") | s).refusals(caller(), "crm")] == [
            Reason.SCOPE_MISSING
        ]

    def test_of_two_reasons_that_weigh_the_same_the_first_is_answered(self) -> None:
        assert (require_scope("s") & require_scope("a")).judge(caller()).scope == "s"
        assert (require_scope("s") | require_scope("a")).judge(caller()).scope == "s"

    def test_a_role_of_the_apps_own_client_is_told_by_its_name_in_every_combination(self) -> None:
        role, other = require_role("r"), require_role("q")
        for requirement in (role, role & require_service(), role | require_scope("s"), (role | other) & other):
            assert requirement.refusals(caller(), "crm")
            assert requirement.judge(caller(), "crm").reason is not Reason.ALLOWED
            met = caller(client_roles={"crm": frozenset({"r", "q"})})
            assert requirement.judge(met, "crm").reason is Reason.ALLOWED
            assert requirement.refusals(met, "crm") == ()

    def test_a_role_of_the_realm_is_nobodys_clients(self) -> None:
        cures = {require_realm_role("r").judge(caller(), client_id).cure for client_id in ("", "crm")}
        assert len(cures) == 1
        assert "crm" not in cures.pop()

    def test_what_somebody_elses_requirement_allows_is_allowed_in_a_combination(self) -> None:
        class Mine(Requirement):
            def judge(self, principal: Principal, client_id: str = "") -> Decision:
                return Decision(reason=Reason.ALLOWED)

        assert (Mine() & require_service()).judge(caller()).reason is Reason.ALLOWED
        assert (Mine() & require_scope("s")).judge(caller()).reason is Reason.SCOPE_MISSING
        assert (Mine() | require_scope("s")).judge(caller()).reason is Reason.ALLOWED

    def test_a_requirement_cannot_be_changed(self) -> None:
        with pytest.raises(AttributeError):
            require_caller("a").client_ids = frozenset()  # type: ignore[attr-defined]

    def test_the_challenge_names_all_scopes_that_would_do(self) -> None:
        decision = require_scope("b", "a").judge(caller(scopes=frozenset({"a"})))
        assert decision.scope == "a b"
        assert "lacks scope b. " in decision.cure

    def test_a_plain_requirement_decides_nothing(self) -> None:
        with pytest.raises(NotImplementedError):
            Requirement().judge(caller())

    @pytest.mark.parametrize(
        "requirement",
        [
            require_caller("a") & require_scope("s", "t"),
            (require_caller("a") | require_user("ui")) & require_scope("s"),
            (require_caller("a") & require_scope("s")) | require_service(),
            require_role("r", client="crm") & require_realm_role("r"),
            require_role("r") | require_realm_role("r"),
            require_audience("crm") & require_audience("crm", only=True),
        ],
        ids=str,
    )
    def test_its_text_is_what_one_writes_to_get_it(self, requirement: Requirement) -> None:
        written = {name: getattr(s2s_fastapi, name) for name in s2s_fastapi.__all__ if name.startswith("require_")}
        assert eval(str(requirement), written) == requirement  # noqa: S307 - our own text


class TestCheck:
    def test_returns_the_principal_that_meets_it(self) -> None:
        principal = caller()
        assert require_caller("a").check(principal) is principal

    def test_raises_403_for_another_caller(self) -> None:
        with pytest.raises(AuthorizationError) as raised:
            require_caller("b").check(caller())
        assert (raised.value.status_code, raised.value.code) == (403, "caller_not_allowed")
        assert raised.value.challenge == 'Bearer error="insufficient_scope"'

    def test_raises_401_for_another_audience(self) -> None:
        with pytest.raises(AuthenticationError) as raised:
            require_audience("b").check(caller())
        assert (raised.value.status_code, raised.value.code) == (401, "wrong_audience")

    def test_cannot_tell_whose_role_it_is_outside_of_an_app(self) -> None:
        with pytest.raises(ConfigurationError, match="say whose role it is with client="):
            require_role("r").check(caller())
        principal = caller(client_roles={"x": frozenset({"r"})})
        assert require_role("r", client="x").check(principal) is principal


class TestRolesOverHttp:
    @pytest.mark.parametrize(
        ("requirement", "claims", "status"),
        [
            (require_role("send"), {"resource_access": {"crm-api-gateway": {"roles": ["send"]}}}, 200),
            (require_role("send"), {"resource_access": {"other": {"roles": ["send"]}}}, 403),
            (require_role("send", client="other"), {"resource_access": {"other": {"roles": ["send"]}}}, 200),
            (require_realm_role("send"), {"realm_access": {"roles": ["send"]}}, 200),
            (require_realm_role("send"), {"resource_access": {"crm-api-gateway": {"roles": ["send"]}}}, 403),
            (require_audience("crm-api-gateway", only=True), {"aud": ["crm-api-gateway", "bob"]}, 401),
            (require_audience("crm-api-gateway", only=True), {"aud": ["crm-api-gateway"]}, 200),
        ],
        ids=str,
    )
    def test_are_read_from_the_token(
        self, make_app: App, service: Headers, requirement: Requirement, claims: Any, status: int
    ) -> None:
        app = make_app()
        app.get("/x", dependencies=[Depends(requirement)])(lambda: None)
        assert TestClient(app).get("/x", headers=service(**claims)).status_code == status


class TestUsers:
    @pytest.fixture
    def there(self, make_app: App, client: Client) -> TestClient:
        app = make_app(users=True)
        for path, requirement in {
            "/user": require_user(),
            "/ui": require_user("crm-ui"),
            "/service": require_service(),
            "/both": require_service() | require_user(),
        }.items():
            app.get(path, dependencies=[Depends(requirement)])(lambda: None)
        return client(app)

    def test_are_let_in_where_the_route_says_so(self, there: TestClient, user: Headers) -> None:
        assert [there.get(path, headers=user()).status_code for path in ("/user", "/ui", "/service", "/both")] == [
            200,
            200,
            403,
            200,
        ]

    def test_of_another_front_end_are_not(self, there: TestClient, user: Headers) -> None:
        assert there.get("/ui", headers=user(azp="evil-ui")).status_code == 403

    def test_are_not_services(self, there: TestClient, service: Headers) -> None:
        assert [there.get(path, headers=service()).status_code for path in ("/user", "/service", "/both")] == [
            403,
            200,
            200,
        ]

    def test_of_unknown_kind_come_nowhere_not_even_to_a_404(self, there: TestClient, service: Headers) -> None:
        for path in ("/user", "/ui", "/service", "/both", "/nowhere"):
            refused = there.get(path, headers=service(client_id=None))
            assert refused.status_code == 403
            assert refused.json() == {"detail": Reason.UNKNOWN_KIND.detail}

    def test_do_not_pass_without_users_true(self, make_app: App, client: Client, user: Headers) -> None:
        app = make_app()
        app.get("/x")(lambda: None)
        refused = client(app).get("/x", headers=user())
        assert (refused.status_code, refused.json()) == (403, {"detail": "Only services may call this."})

    @pytest.mark.parametrize(
        "requirement",
        [
            None,
            require_scope("s"),
            require_audience("crm-api-gateway"),
            require_service() | require_scope("s"),
            require_realm_role("r"),
        ],
        ids=str,
    )
    def test_make_every_route_say_who(self, make_app: App, client: Client, requirement: Requirement | None) -> None:
        app = make_app(users=True)
        app.get("/x", dependencies=[] if requirement is None else [Depends(requirement)])(lambda: None)
        with pytest.raises(ConfigurationError, match=r"users=True .* Missing on: GET /x\."), client(app):
            pass

    def test_leave_public_routes_alone(self, make_app: App, client: Client) -> None:
        app = make_app(users=True, public_paths=["/x", "/y/{id:int}", "POST /z/{name}"])
        app.get("/x")(lambda: None)
        app.get("/y/{id:int}")(lambda: None)
        app.post("/z/{name}")(lambda: None)
        with client(app) as there:
            assert [there.get("/x").status_code, there.get("/y/1").status_code, there.post("/z/a").status_code] == [
                200
            ] * 3


class TestWhoIsCalling:
    def test_is_the_current_principal_and_starlettes_user(
        self, make_app: App, client: Client, service: Headers
    ) -> None:
        app = make_app()

        @app.get("/x")
        async def route(request: Request, caller: CurrentPrincipal) -> dict[str, Any]:
            assert request.user is caller
            return {
                "name": request.user.display_name,
                "scopes": request.auth.scopes,
                "in": request.user.is_authenticated,
            }

        answer = client(app).get("/x", headers=service(scope="b a"))
        assert answer.json() == {"name": "chat-app-service", "scopes": ["a", "b"], "in": True}

    def test_is_asked_by_requires_which_is_no_requirement(
        self, make_app: App, client: Client, service: Headers
    ) -> None:
        app = make_app()

        @app.get("/x")
        @requires("s")
        async def route(request: Request) -> None: ...

        assert client(app).get("/x", headers=service(scope="s")).status_code == 200
        assert client(app).get("/x", headers=service()).status_code == 403
        assert [route.requirement for route in read_access(app).routes] == [None]

    def test_cannot_be_put_there_from_outside(self, make_app: App, client: Client, service: Headers) -> None:
        app = make_app()
        app.get("/x", dependencies=[Depends(require_caller("admin"))])(lambda: None)
        app.get("/open")(lambda: None)
        seen: list[Any] = []

        async def spoofing(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                scope[SCOPE_KEY] = seen[-1] if seen else {"principal": caller(client_id="admin")}
                scope["user"], scope["auth"] = caller(client_id="admin"), AuthCredentials(["admin"])
            await app(scope, receive, send)

        there = client(spoofing)
        assert there.get("/x").status_code == 401
        assert there.get("/x", headers=service()).status_code == 403

    def test_cannot_be_kept_from_another_request(self, make_app: App, client: Client, service: Headers) -> None:
        app = make_app(public_paths=["/public"])
        kept: list[Any] = []

        @app.get("/x")
        async def route(
            request: Request, caller: Annotated[Principal, Depends(require_caller("chat-app-service"))]
        ) -> None:
            kept.append(request.scope[SCOPE_KEY])

        @app.get("/public")
        async def public(request: Request) -> dict[str, Any]:
            return {
                "state": SCOPE_KEY in request.scope,
                "in": request.user.is_authenticated,
                "scopes": request.auth.scopes,
            }

        async def replaying(scope: Any, receive: Any, send: Any) -> None:
            if kept:
                scope[SCOPE_KEY] = kept[0]
            await app(scope, receive, send)

        there = client(replaying)
        assert there.get("/x", headers=service()).status_code == 200
        assert there.get("/x").status_code == 401
        assert there.get("/public").json() == {"state": False, "in": False, "scopes": []}

    def test_is_not_what_an_inner_authentication_middleware_says(
        self, make_app: App, client: Client, service: Headers
    ) -> None:
        class Admin(AuthenticationBackend):
            async def authenticate(self, conn: Any) -> tuple[AuthCredentials, SimpleUser]:
                return AuthCredentials(["admin"]), SimpleUser("admin")

        app = FastAPI(openapi_url=None)
        app.add_middleware(AuthenticationMiddleware, backend=Admin())
        make_app(app=app)

        @app.get("/x")
        async def route(request: Request, caller: Annotated[Principal, Depends(require_service())]) -> list[str]:
            return [request.user.display_name, caller.client_id]

        app.get("/admin", dependencies=[Depends(require_caller("admin") | require_scope("admin"))])(lambda: None)
        assert client(app).get("/x", headers=service()).json() == ["admin", "chat-app-service"]
        assert client(app).get("/admin", headers=service()).status_code == 403

    def test_holds_scopes_that_one_request_cannot_leave_to_the_next(
        self, make_app: App, client: Client, realm: Any
    ) -> None:
        app = make_app()

        @app.get("/x")
        async def route(request: Request) -> list[str]:
            before = list(request.auth.scopes)
            request.auth.scopes.append("admin")
            return before

        headers = {"Authorization": f"Bearer {realm.token(scope='a')}"}
        assert [client(app).get("/x", headers=headers).json() for _ in range(2)] == [["a"], ["a"]]

    def test_holds_claims_that_nobody_can_change(self, make_app: App, client: Client, service: Headers) -> None:
        app = make_app()

        @app.get("/x")
        async def route(caller: CurrentPrincipal) -> None:
            for change in (
                lambda: caller.claims["realm_access"]["roles"].append("admin"),
                lambda: caller.claims.update(azp="admin"),  # type: ignore[attr-defined]
                lambda: setattr(caller, "client_id", "admin"),
                lambda: caller.client_roles.clear(),  # type: ignore[attr-defined]  # noqa: PLW0108 - there is no such method
            ):
                with pytest.raises((AttributeError, TypeError)):
                    change()

        assert client(app).get("/x", headers=service(realm_access={"roles": ["a"]})).status_code == 200


class TestWithoutTheMiddleware:
    @pytest.mark.parametrize("dependency", [require_service(), require_service() | require_user()], ids=str)
    def test_a_requirement_lets_nobody_through(self, client: Client, service: Headers, dependency: Any) -> None:
        app = FastAPI()
        app.get("/x", dependencies=[Depends(dependency)])(lambda: None)
        assert client(app).get("/x", headers=service()).status_code == 500
        with pytest.raises(ConfigurationError, match="add ServiceAuthMiddleware"):
            TestClient(app).get("/x")

    def test_whatever_else_stands_in_its_place_lets_nobody_through(self, client: Client) -> None:
        class Lenient:
            principal = caller()

            def admit(self, scope: Any, requirement: Any) -> Principal:
                return self.principal

        app = FastAPI()
        app.get("/x", dependencies=[Depends(require_service())])(lambda: None)

        async def pretending(scope: Any, receive: Any, send: Any) -> None:
            scope[SCOPE_KEY] = Lenient()
            await app(scope, receive, send)

        assert client(pretending).get("/x").status_code == 500

    def test_the_current_principal_lets_nobody_through(self, client: Client) -> None:
        app = FastAPI()

        @app.get("/x")
        async def route(caller: CurrentPrincipal) -> None: ...

        assert client(app).get("/x").status_code == 500

    def test_a_websocket_is_not_accepted(self, client: Client) -> None:
        app = FastAPI()

        @app.websocket("/ws", dependencies=[Depends(require_service())])
        async def socket(websocket: WebSocket) -> None:
            await websocket.accept()

        with pytest.raises(ConfigurationError), client(app).websocket_connect("/ws"):
            pass


def test_a_requirement_that_is_asked_by_hand_without_await_refuses_all_the_same(
    make_app: App, client: Client, service: Headers, observed: Observed
) -> None:
    app = make_app()

    @app.get("/x")
    async def route(request: Request, caller: CurrentPrincipal) -> str:
        Admin(request)
        return caller.client_id

    answer = client(app).get("/x", headers=service(azp="another", client_id="another"))
    assert (answer.status_code, observed.reasons) == (403, ["caller_not_allowed"])


def test_every_reason_a_requirement_can_give_has_its_place() -> None:
    from s2s_fastapi.requirement.requirement import _PRECEDENCE

    assert {reason for reason in Reason if reason.status == 403} <= set(_PRECEDENCE)
    assert len(set(_PRECEDENCE)) == len(_PRECEDENCE)
