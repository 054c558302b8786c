"""The mistakes of somebody who is new to the package: each is one sentence that says where it stands and what to write."""

import logging
import re
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from s2s_fastapi import (
    DOCS,
    ConfigurationError,
    CurrentPrincipal,
    Principal,
    Requirement,
    require_audience,
    require_caller,
    require_scope,
    require_service,
    require_user,
)
from s2s_fastapi.declared.public_paths import PublicPaths
from s2s_fastapi.fastapi_internals import attributes_of
from tests.kit.receiving import App, Client, Headers

ADMIN = require_caller("admin-app")
AT = r" \((?:[^()]*/)?test_newcomers\.py:\d+\)"
WAY_OUT = (
    'Only if this check is wrong about a route: ServiceAuthMiddleware(..., insecure_unchecked=["GET /x"]) starts the app in spite of it, '
    "and each start logs a warning."
)


def nothing() -> None: ...


@pytest.fixture
def refused(client: Client) -> Callable[[FastAPI], str]:
    """What the start of an app says, with the file and line of this module as AT."""

    def start(app: FastAPI) -> str:
        with pytest.raises(ConfigurationError) as raised, client(app):
            pass
        return re.sub(AT, " (AT)", str(raised.value))

    return start


class TestARequirementInDependenciesWithoutDepends:
    @pytest.mark.parametrize("requirement", [ADMIN, ADMIN & require_scope("write"), ADMIN | require_user()], ids=str)
    @pytest.mark.parametrize(
        "write",
        [
            lambda given: FastAPI().get("/x", dependencies=given)(nothing),
            lambda given: APIRouter(dependencies=given).get("/x")(nothing),
            lambda given: FastAPI(dependencies=given).get("/x")(nothing),
        ],
        ids=["route", "router", "app"],
    )
    def test_is_refused_at_its_line(self, write: Any, requirement: Requirement) -> None:
        said = (
            f"{requirement} stands in dependencies=[...] without Depends: write dependencies=[Depends({requirement})]."
        )
        with pytest.raises(AttributeError, match=re.escape(said)):
            write([requirement])

    def test_is_no_attribute_to_whoever_only_looks(self) -> None:
        assert not hasattr(ADMIN, "dependency")
        assert "dependency" not in attributes_of(ADMIN)


class TestARequirementThatNoTokenCanMeet:
    @pytest.mark.parametrize(
        ("requirement", "said"),
        [
            (
                require_caller("a") & require_caller("b"),
                (
                    "a token has one caller, and no one is in all of [a], [b]. To accept each of them, write one "
                    'Depends(require_caller("a", "b")).'
                ),
            ),
            (
                require_service() & require_user(),
                (
                    "a token is a service's or a user's, never both. To accept either, write one "
                    "Depends(require_service() | require_user())."
                ),
            ),
            (
                require_audience("billing"),
                (
                    "it asks for a token for billing, and this app accepts only crm-api-gateway. Take "
                    'require_audience("billing") out, or add the audience to KEYCLOAK_AUDIENCE or audience=[...].'
                ),
            ),
            (
                require_user(),
                "the middleware accepts only services (to accept users as well, write users=True in ServiceAuthMiddleware(...)).",
            ),
        ],
        ids=str,
    )
    def test_is_said_with_its_line_and_its_cure(
        self, make_app: App, refused: Any, requirement: Requirement, said: str
    ) -> None:
        app = make_app()
        app.get("/x", dependencies=[Depends(requirement)])(nothing)
        assert refused(app) == f"GET /x (AT): no token of this app can meet its requirement: {said}"

    def test_may_stand_in_two_places(self, make_app: App, refused: Any) -> None:
        app, router = make_app(), APIRouter(dependencies=[Depends(require_caller("a"))])
        router.get("/x", dependencies=[Depends(require_caller("b"))])(nothing)
        app.include_router(router)
        assert refused(app).endswith('write one Depends(require_caller("a", "b")).')

    def test_is_not_started_by_insecure_unchecked(self, make_app: App, refused: Any) -> None:
        app = make_app(insecure_unchecked=["GET /x"])
        app.get("/x", dependencies=[Depends(require_user())])(nothing)
        assert "no token of this app can meet its requirement" in refused(app)


class TestADependsThatFastAPIDoesNotAsk:
    def test_on_a_field_of_a_model(self, make_app: App, refused: Any) -> None:
        class Filter(BaseModel):
            caller: Annotated[str, Depends(ADMIN)] = ""

        class Narrow(Filter):
            limit: int = 10

        app = make_app()

        @app.get("/x")
        def route(wanted: Annotated[Narrow, Depends()]) -> None: ...

        @app.post("/x")
        def other(wanted: Narrow) -> None: ...

        assert f"POST /x (AT): the field Filter.caller has the requirement {ADMIN}: FastAPI asks no Depends on a field of a model: write it on a parameter of the route, or dependencies=[Depends(...)] on the route." in refused(app)  # fmt: skip
        assert refused(app).count("the field ") == 1

    def test_in_quotes_that_cannot_be_evaluated(self, make_app: App, refused: Any) -> None:
        def look_up() -> str:
            return ""

        class Filter:
            limit: int = 0

        look_up.__annotations__["return"] = Filter.__annotations__["limit"] = "Annotated[str, Depends(Gone)]"
        app = make_app()

        @app.get("/x", dependencies=[Depends(look_up)])
        def route(wanted: Annotated[Filter, Depends()]) -> None: ...

        first, second = refused(app).split("GET /x (AT): ")[1:]
        assert "its annotation stands in quotes, where FastAPI does not read it: write it without them" in first
        assert "Filter.limit has a requirement that FastAPI cannot see: FastAPI does not read the attributes" in second

    def test_on_an_attribute_of_a_class(self, make_app: App, refused: Any) -> None:
        class View:
            caller: Annotated[Principal, Depends(ADMIN)]

        app = make_app()

        @app.get("/x")
        def route(view: Annotated[View, Depends()]) -> None: ...

        said = (
            f"GET /x (AT): the class attribute View.caller has the requirement {ADMIN}: FastAPI does not read the attributes of a class: "
            "write Depends(...) on a parameter of its `__init__` or of the route, or dependencies=[Depends(...)] on the route."
        )
        assert refused(app) == f"{said} {WAY_OUT}"

    def test_because_it_came_too_late_is_one_line_for_all_routes(self, make_app: App, refused: Any) -> None:
        app = make_app()
        app.get("/x")(nothing)
        app.get("/y")(nothing)
        app.router.dependencies.append(Depends(ADMIN))
        said = (
            f"GET /x (AT), GET /y (AT): the list of dependencies of a router around it has the requirement {ADMIN}: FastAPI does not ask "
            "it here, because the route was added or included earlier: write dependencies=[Depends(...)] in FastAPI(...), APIRouter(...) "
            "or include_router(...)."
        )
        assert refused(app).startswith(said)

    def test_because_it_was_assigned(self, make_app: App, refused: Any) -> None:
        app = make_app()
        app.get("/x")(nothing)
        app.dependencies = [Depends(ADMIN)]  # type: ignore[attr-defined]
        said = (
            f"GET /x (AT): the attribute dependencies of the app or router has the requirement {ADMIN}: FastAPI takes dependencies only "
            "from the arguments of FastAPI(...), APIRouter(...), include_router(...) and the decorator of a route: write "
            "dependencies=[Depends(...)] there."
        )
        assert refused(app) == f"{said} {WAY_OUT}"

    def test_because_it_is_only_a_global(self, make_app: App, client: Client, caplog: pytest.LogCaptureFixture) -> None:
        app = make_app()
        app.get("/x")(lambda: str(ADMIN))
        with client(app):
            pass
        (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert re.sub(AT, " (AT)", warning) == (
            "FastAPI does not ask these requirements; your code may ask them itself: GET /x (AT): the global ADMIN has the requirement "
            f"{ADMIN}: FastAPI does not ask it there: if the code does not ask it by hand either, as with `await requirement(request)`, "
            "write Depends(...)."
        )

    def test_because_a_dependency_returns_it(self, make_app: App, client: Client, service: Headers) -> None:
        def make_admin():  # type: ignore[no-untyped-def]  # noqa: ANN202
            return ADMIN

        app = make_app()
        app.get("/x", dependencies=[Depends(make_admin)])(nothing)
        with client(app) as there, pytest.raises(ConfigurationError) as raised:
            TestClient(there.app).get("/x", headers=service())
        assert re.sub(AT, " (AT)", str(raised.value)) == (
            f"The dependency make_admin (AT) returns {ADMIN}, and nothing asked it: write Depends({ADMIN}) instead, or ask it in the "
            "code: await requirement(request)."
        )


class TestAPrincipal:
    @pytest.mark.parametrize("annotation", [Principal, Annotated[Principal, ADMIN]], ids=["alone", "no Depends"])
    def test_without_depends_and_as_an_answer_is_one_sentence(self, annotation: Any) -> None:
        def takes(caller: Any) -> None: ...

        def gives(caller: CurrentPrincipal) -> Principal:
            return caller

        takes.__annotations__["caller"] = annotation
        for route in (takes, gives):
            with pytest.raises(TypeError) as raised:
                FastAPI().get("/x")(route)
            assert (
                "put your requirement into Depends(...), as in `caller: Annotated[Principal, Depends(admin)]`"
                in str(raised.value)
            )
            assert "A route cannot return a Principal either: return the fields you need" in str(raised.value)


def test_a_requirement_without_the_middleware_says_where_to_add_it() -> None:
    app = FastAPI()
    app.get("/x", dependencies=[Depends(ADMIN)])(nothing)
    with pytest.raises(ConfigurationError) as raised:
        TestClient(app).get("/x")
    assert str(raised.value) == (
        "The route has a requirement, but no ServiceAuthMiddleware authenticated the request. If the app has none, add "
        "ServiceAuthMiddleware to it: app.add_middleware(ServiceAuthMiddleware). If the path is one of its public_paths, take it out there."
    )


class TestARefusalOfOneOfSeveralRequirements:
    def cure(self, requirement: Requirement, kind: Any = "service") -> str:
        eve = Principal(client_id="eve", kind=kind, issuer="i", issued_at=1, expires_at=2)
        return requirement.judge(eve).cure

    def test_says_either_or(self) -> None:
        one, other = require_caller("a"), require_scope("write")
        assert self.cure(one | other) == f"one of these is enough. Either: {self.cure(one)} Or: {self.cure(other)}"

    def test_says_what_is_the_same_once(self) -> None:
        assert self.cure(require_service() | require_user(), "unknown") == self.cure(require_service(), "unknown")

    @pytest.mark.parametrize(("kind", "part"), [("service", require_caller("a")), ("user", require_user("ui"))])
    def test_advises_no_service_to_be_a_user_and_no_user_to_be_a_service(self, kind: Any, part: Requirement) -> None:
        assert self.cure(require_caller("a") | require_user("ui"), kind) == self.cure(part, kind)


class TestAPublicPath:
    @pytest.mark.parametrize(
        ("text", "meant"),
        [
            ("healthz", '"/healthz"'),
            ("get /healthz", '"GET /healthz"'),
            ("Post /hooks/{provider}", '"POST /hooks/{provider}"'),
            ("GET/healthz", '"GET /healthz"'),
            ("GET healthz", '"GET /healthz"'),
            ("POST  /x", '"POST /x"'),
            (" /healthz ", '"/healthz"'),
            ("GET,HEAD /x", '"GET /x", "HEAD /x"'),
            ("get, post /x", '"GET /x", "POST /x"'),
            ("http://localhost:8000/healthz", '"/healthz"'),
            ("GET https://api.example.com/healthz", '"GET /healthz"'),
            ("/healthz?full=1", '"/healthz"'),
            ("/healthz#top", '"/healthz"'),
        ],
    )
    def test_in_another_spelling_is_said_as_it_is_written(self, text: str, meant: str) -> None:
        with pytest.raises(ConfigurationError, match=f": write {re.escape(meant)}\\.$"):
            PublicPaths([text])

    @pytest.mark.parametrize("text", ["", "/x y/z", "^/healthz$", "*", "G3T /x", " "], ids=repr)
    def test_that_nobody_can_guess_is_only_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match=r'nor a method and a path as in "POST /hooks/x"\.$'):
            PublicPaths([text])

    @pytest.mark.parametrize("text", ["/static/*", "/static/{path:path}"])
    def test_for_a_whole_tree_says_that_each_is_written_out(self, text: str) -> None:
        with pytest.raises(
            ConfigurationError, match=r'Write the full path of each public file, as in "/static/logo\.png"\.$'
        ):
            PublicPaths([text])

    @pytest.mark.parametrize("given", [[DOCS], ["/healthz", DOCS], [["/healthz"]]], ids=["docs", "after", "list"])
    def test_that_is_several_says_the_star(self, given: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"write a star in front of it, as in \[\.\.\., \*DOCS\]"):
            PublicPaths(given)

    def test_that_is_no_text_at_all_says_no_star(self) -> None:
        with pytest.raises(ConfigurationError, match=r'takes texts such as "/healthz", not int\.$'):
            PublicPaths([1])  # type: ignore[list-item]

    def test_may_be_the_documentation_alone(self) -> None:
        assert PublicPaths(DOCS).open("GET", "/docs")

    @pytest.mark.parametrize("given", [None, True, 1], ids=repr)
    def test_that_is_no_list_says_what_to_write(self, given: Any) -> None:
        with pytest.raises(ConfigurationError, match=rf'takes a list, not {given}: write public_paths=\["/healthz"\]'):
            PublicPaths(given)

    @pytest.mark.parametrize("public", ["/sub", "/sub/"])
    def test_of_a_mount_says_that_it_opens_nothing_below(
        self, make_app: App, client: Client, caplog: pytest.LogCaptureFixture, public: str
    ) -> None:
        app = make_app(public_paths=[public])
        app.mount("/sub", Starlette(routes=[Route("/page", nothing)]))
        with client(app):
            pass
        (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert warning == (
            f"public_paths: no route answers {public}. It opens nothing, unless a middleware answers it. A public path is one path, and "
            'nothing below it: write each path out, as in "/sub/page".'
        )

    def test_of_the_root_is_no_mount_of_everything(
        self, make_app: App, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = make_app(public_paths=["/"])
        app.get("/page")(nothing)
        with client(app):
            pass
        (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert warning == "public_paths: no route answers /. It opens nothing, unless a middleware answers it."

    def test_that_opens_other_routes_is_one_line(self, make_app: App, refused: Any) -> None:
        app = make_app(public_paths=["/{page}"])
        for path in ("/a", "/b", "/{page}"):
            app.get(path)(nothing)
        assert refused(app).endswith("GET /a, GET /b: write the public paths out one by one.")
        assert refused(app).count("public_paths opens") == 1
