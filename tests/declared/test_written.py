"""A requirement that stands in the code and that FastAPI does not ask stops the start, whatever way it is spelled; a right app starts."""

import functools
import inspect
import logging
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from fastapi import APIRouter, Body, Cookie, Depends, FastAPI, Form, Header, Query, Request, Security, WebSocket
from pydantic import BaseModel, Field
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from s2s_fastapi import (
    ConfigurationError,
    CurrentPrincipal,
    Principal,
    Requirement,
    require_caller,
    require_scope,
    require_service,
    require_user,
)
from s2s_fastapi.requirement.require import current_principal
from tests.kit.receiving import App, Client, Headers

Spelling = Callable[[FastAPI], None]

CHAT = require_caller("chat-app-service")
ANY = require_service()
SEEN = "FastAPI does not ask these requirements; your code may ask them itself"


def nothing() -> None: ...


class Spellings:
    """The functions of one kind: each spells a requirement on the route ``/x`` of an app."""

    def __init__(self) -> None:
        self.all: list[Spelling] = []

    def __call__(self, spelling: Spelling) -> Spelling:
        self.all.append(spelling)
        return spelling

    def params(self) -> list[Any]:
        return [pytest.param(spelling, id=spelling.__name__) for spelling in self.all]


dropped, doubtful, right = Spellings(), Spellings(), Spellings()

Chat = Annotated[Principal, Depends(CHAT)]


@dropped
def two_depends_in_one_annotated(app: FastAPI) -> None:
    @app.get("/x")
    async def route(caller: Annotated[Principal, Depends(CHAT), Depends(ANY)]) -> None: ...


@dropped
def three_depends_and_the_first_two_lost(app: FastAPI) -> None:
    @app.get("/x")
    async def route(
        caller: Annotated[Principal, Depends(CHAT), Security(ANY, scopes=["a"]), Depends(nothing)],
    ) -> None: ...


@dropped
def an_alias_over_an_alias(app: FastAPI) -> None:
    @app.get("/x")
    async def route(caller: Annotated[Chat, Depends(ANY)]) -> None: ...


@dropped
def a_query_after_a_depends(app: FastAPI) -> None:
    @app.get("/x")
    async def route(caller: Annotated[str, Depends(CHAT), Query()] = "") -> None: ...


@dropped
def the_scopes_of_a_security_before_a_depends(app: FastAPI) -> None:
    @app.get("/x")
    async def route(caller: Annotated[Principal, Security(CHAT, scopes=["write"]), Depends(CHAT)]) -> None: ...


@dropped
def the_scopes_of_the_current_principal(app: FastAPI) -> None:
    @app.get("/x")
    async def route(
        caller: Annotated[Principal, Security(current_principal, scopes=["write"]), Depends(nothing)],
    ) -> None: ...


@dropped
def a_dependency_that_asks_before_another(app: FastAPI) -> None:
    async def chat(caller: Chat) -> Principal:
        return caller

    @app.get("/x")
    async def route(caller: Annotated[Principal, Depends(chat), Depends(nothing)]) -> None: ...


@dropped
def a_factory_without_parentheses_before_another(app: FastAPI) -> None:
    @app.get("/x")
    async def route(caller: Annotated[Principal, Depends(require_service), Depends(nothing)]) -> None: ...


@dropped
def below_a_dependency(app: FastAPI) -> None:
    async def inner(caller: Annotated[Principal, Depends(CHAT), Depends(nothing)]) -> None: ...

    async def outer(it: Annotated[None, Depends(inner)]) -> None: ...

    app.get("/x", dependencies=[Depends(outer)])(nothing)


@dropped
def on_a_websocket(app: FastAPI) -> None:
    @app.websocket("/x")
    async def route(websocket: WebSocket, caller: Annotated[Principal, Depends(CHAT), Depends(nothing)]) -> None: ...


def _list_in_annotated(app: FastAPI, notes: Any) -> None:
    async def route(caller: Any = None) -> None: ...

    route.__annotations__["caller"] = Annotated[Any, notes]
    app.get("/x")(route)


@dropped
def a_list_in_annotated(app: FastAPI) -> None:
    _list_in_annotated(app, [Depends(CHAT)])


@dropped
def a_tuple_in_annotated(app: FastAPI) -> None:
    _list_in_annotated(app, (Depends(CHAT), Depends(nothing)))


@dropped
def a_dict_in_annotated(app: FastAPI) -> None:
    _list_in_annotated(app, {"caller": Security(CHAT, scopes=["a"])})


@dropped
def bare_in_annotated(app: FastAPI) -> None:
    _list_in_annotated(app, CHAT)


def _default(app: FastAPI, default: Any) -> None:
    async def route(dependencies: Any = default) -> None: ...

    app.get("/x")(route)


@dropped
def a_list_as_default(app: FastAPI) -> None:
    _default(app, [Depends(CHAT)])


@dropped
def a_tuple_as_default(app: FastAPI) -> None:
    _default(app, (Depends(CHAT),))


@dropped
def a_dict_as_default(app: FastAPI) -> None:
    _default(app, {"caller": Depends(CHAT)})


@dropped
def a_list_in_a_list_as_default(app: FastAPI) -> None:
    _default(app, [[Depends(CHAT)]])


@dropped
def a_bare_default(app: FastAPI) -> None:
    _default(app, CHAT)


@dropped
def the_default_of_a_query(app: FastAPI) -> None:
    _default(app, Query(default=Depends(CHAT)))


@dropped
def openapi_extra(app: FastAPI) -> None:
    app.get("/x", openapi_extra={"dependencies": [Depends(CHAT)]})(nothing)


@dropped
def openapi_extra_of_an_included_route(app: FastAPI) -> None:
    router = APIRouter()
    router.get("/x", openapi_extra={"x-auth": Depends(CHAT)})(nothing)
    app.include_router(router)


@dropped
def the_annotation_of_what_is_returned(app: FastAPI) -> None:
    @app.get("/x", response_model=None)
    async def route() -> Annotated[Any, Depends(CHAT)]: ...


@dropped
def a_union(app: FastAPI) -> None:
    @app.get("/x")
    async def route(caller: Annotated[Any, Depends(CHAT)] | None = None) -> None: ...


@dropped
def quotes_inside_of_a_union(app: FastAPI) -> None:
    async def route(caller: Any = None) -> None: ...

    route.__annotations__["caller"] = Annotated[Any, Query()] | list["Annotated[Any, Depends(CHAT)]"]
    app.get("/x")(route)


class View:
    caller = Depends(CHAT)

    async def show(self) -> None: ...


class Inherited(View): ...


class Annotating:
    caller: Annotated[Principal, Depends(CHAT)]


class Initialised:
    def __init__(self) -> None:
        self.caller = Depends(CHAT)

    async def show(self) -> None: ...

    async def __call__(self) -> None: ...


@dropped
def a_class_attribute(app: FastAPI) -> None:
    app.get("/x")(View().show)


@dropped
def a_class_attribute_of_a_base_class(app: FastAPI) -> None:
    app.get("/x")(Inherited().show)


@dropped
def a_class_attribute_of_a_dependency(app: FastAPI) -> None:
    app.get("/x", dependencies=[Depends(View)])(nothing)


@dropped
def an_annotation_of_a_class(app: FastAPI) -> None:
    app.get("/x", dependencies=[Depends(Annotating)])(nothing)


@dropped
def an_attribute_of_an_object(app: FastAPI) -> None:
    app.get("/x")(Initialised().show)


@dropped
def an_attribute_of_a_callable_object(app: FastAPI) -> None:
    app.get("/x")(Initialised())


class Model(BaseModel):
    caller: Annotated[Any, Depends(CHAT)] = None


class Defaulting(BaseModel):
    caller: Any = Field(default=Depends(CHAT))


class Outer(BaseModel):
    inner: Model | None = None


@dataclass
class Data:
    caller: Annotated[Any, Depends(CHAT)] = None


class Typed(TypedDict):
    caller: Annotated[str, Depends(CHAT)]


class Named(NamedTuple):
    caller: Annotated[str, Depends(CHAT)] = ""


def _model(kind: Any, model: Any) -> Spelling:
    def spelling(app: FastAPI) -> None:
        async def route(given: Any) -> None: ...

        route.__annotations__["given"] = Annotated[model, kind]
        app.post("/x")(route)

    spelling.__name__ = f"a field of {model.__name__} in {type(kind).__name__}"
    return spelling


for _kind in (Query(), Header(), Cookie(), Form(), Body()):
    dropped(_model(_kind, Model))
for _type in (Defaulting, Outer, Data, Typed, Named):
    dropped(_model(Body(), _type))


@dropped
def the_parameter_of_a_decorators_function(app: FastAPI) -> None:
    def decorated(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(*args: Any, caller: Any = Depends(CHAT), **kwargs: Any) -> Any: ...

        return wrapper

    @app.get("/x")
    @decorated
    async def route() -> None: ...


@dropped
def a_signature_that_leaves_it_out(app: FastAPI) -> None:
    async def route(caller: Any = Depends(CHAT)) -> None: ...

    route.__signature__ = inspect.Signature()  # type: ignore[attr-defined]
    app.get("/x")(route)


@dropped
def a_plain_route_of_starlette(app: FastAPI) -> None:
    async def route(request: Request, caller: Any = Depends(CHAT)) -> PlainTextResponse:
        return PlainTextResponse("")

    app.add_route("/x", route)


@dropped
def a_method_of_an_endpoint_class(app: FastAPI) -> None:
    class Page(HTTPEndpoint):
        async def get(self, request: Request, caller: Any = Depends(CHAT)) -> None: ...

    app.router.routes.append(Route("/x", Page))


@dropped
def dependencies_of_the_app_that_come_late(app: FastAPI) -> None:
    app.get("/x")(nothing)
    app.router.dependencies.append(Depends(CHAT))


@dropped
def dependencies_of_a_router_that_come_late(app: FastAPI) -> None:
    router = APIRouter()
    router.get("/x")(nothing)
    router.dependencies.append(Depends(CHAT))
    app.include_router(router)


@dropped
def dependencies_of_an_outer_router_that_come_after_the_inner(app: FastAPI) -> None:
    outer, inner = APIRouter(), APIRouter()
    inner.get("/x")(nothing)
    outer.include_router(inner)
    outer.dependencies.append(Depends(CHAT))
    app.include_router(outer)


@dropped
def dependencies_of_the_app_that_come_after_a_router(app: FastAPI) -> None:
    router = APIRouter()
    router.get("/x")(nothing)
    app.include_router(router)
    app.router.dependencies += [Depends(CHAT)]


@dropped
def a_route_that_is_moved_into_a_router_with_dependencies(app: FastAPI) -> None:
    aside = APIRouter()
    aside.get("/x")(nothing)
    router = APIRouter(dependencies=[Depends(CHAT)])
    router.routes.extend(aside.routes)
    app.include_router(router)


def _module(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "somebodys_app"}
    exec(compile(textwrap.dedent(source), "somebodys_app.py", "exec", dont_inherit=True), names)  # noqa: S102 - a module of its own
    return names


_TEXT = """
    from __future__ import annotations
    from typing import TYPE_CHECKING, Annotated
    from fastapi import Depends, Security, WebSocket
    from s2s_fastapi import require_caller
    CHAT = require_caller("chat-app-service")
    if TYPE_CHECKING:
        from s2s_fastapi import Principal
        from somewhere import Thing
"""


def _text(name: str, source: str, spellings: Spellings) -> None:
    def spelling(app: FastAPI) -> None:
        _module(textwrap.dedent(_TEXT) + textwrap.dedent(source))["add"](app)

    spelling.__name__ = name
    spellings(spelling)


_text(
    "a name only for the type checker",
    """
    def add(app):
        @app.get("/x")
        async def route(caller: Annotated[Principal, Depends(CHAT)]): ...
    """,
    dropped,
)
_text(
    "a name only for the type checker, with a default",
    """
    def add(app):
        @app.get("/x")
        async def route(caller: Annotated[Principal | None, Depends(CHAT)] = None): ...
    """,
    dropped,
)
_text(
    "a name only for the type checker, below a dependency",
    """
    async def mine(caller: Annotated[Principal | None, Depends(CHAT)] = None): ...
    def add(app):
        app.get("/x", dependencies=[Depends(mine)])(lambda: None)
    """,
    dropped,
)
_text(
    "a name local to an app factory",
    """
    def add(app):
        from s2s_fastapi import Principal
        Chat = Annotated[Principal, Depends(CHAT)]
        @app.get("/x")
        async def route(caller: Chat = None): ...
    """,
    dropped,
)
_text(
    "a name only for the type checker, on a websocket",
    """
    def add(app):
        @app.websocket("/x")
        async def route(websocket: WebSocket, caller: Annotated[Principal | None, Depends(CHAT)] = None): ...
    """,
    dropped,
)
_text(
    "text with a Depends beside a Depends as default",
    """
    def add(app):
        @app.get("/x")
        async def route(caller: Annotated[Thing, Depends(CHAT)] = Depends(lambda: None)): ...
    """,
    dropped,
)


@pytest.mark.parametrize("spelling", dropped.params())
def test_a_requirement_that_fastapi_does_not_ask_stops_the_start(
    make_app: App, client: Client, service: Headers, spelling: Spelling
) -> None:
    app = make_app()
    spelling(app)
    with pytest.raises(ConfigurationError) as raised, client(app):
        pass
    assert "/x" in str(raised.value)
    assert 'insecure_unchecked=["' in str(raised.value)
    assert client(app).get("/x", headers=service(azp="eve", client_id="eve")).status_code == 500


@pytest.mark.parametrize("spelling", dropped.params())
def test_it_does_not_stop_the_start_if_the_route_asks_the_same_elsewhere(
    make_app: App, client: Client, spelling: Spelling
) -> None:
    app = make_app(app=FastAPI(openapi_url=None, dependencies=[Depends(CHAT & ANY & require_scope("write", "a"))]))
    spelling(app)
    said = ""
    try:
        with client(app):
            pass
    except ConfigurationError as error:
        said = str(error)
    # Text that nobody can read and a factory say nothing that could be compared, and an app's dependencies reach no plain route.
    unread = ("cannot be evaluated", "parentheses", "quotes")
    plain = "starlette" in spelling.__name__ or "endpoint" in spelling.__name__
    assert not said or plain or any(word in said for word in unread)


@doubtful
def a_global_that_the_code_names(app: FastAPI) -> None:
    async def by_hand(request: Request) -> Principal:
        return await CHAT(request)

    app.get("/x", dependencies=[Depends(by_hand)])(nothing)


RULES = [ANY, CHAT]
POLICIES = {"/x": CHAT}


@doubtful
def a_list_in_a_comprehension(app: FastAPI) -> None:
    def every(caller: CurrentPrincipal) -> list[Principal]:
        return [rule.check(caller) for rule in RULES]

    app.get("/x", dependencies=[Depends(every)])(nothing)


@doubtful
def a_table_of_policies(app: FastAPI) -> None:
    def by_path(request: Request, caller: CurrentPrincipal) -> Principal:
        return POLICIES[request.url.path].check(caller)

    app.get("/x", dependencies=[Depends(by_path)])(nothing)


@doubtful
def a_variable_around_it(app: FastAPI) -> None:
    def asking(requirement: Requirement) -> Any:
        async def asked(request: Request) -> Principal:
            return await requirement(request)

        return asked

    app.get("/x", dependencies=[Depends(asking(CHAT))])(nothing)


class ByHand:
    rule = CHAT

    def __init__(self) -> None:
        self.rules = (CHAT,)

    async def __call__(self, request: Request) -> Principal:
        await self.rule(request)
        return self.rules[0].check(request.user)


@doubtful
def an_attribute_that_is_asked_by_hand(app: FastAPI) -> None:
    app.get("/x", dependencies=[Depends(ByHand())])(nothing)


@doubtful
def a_default_with_a_list_of_requirements(app: FastAPI) -> None:
    def every(caller: CurrentPrincipal, rules: Annotated[Any, Depends(lambda: RULES)]) -> None:
        for rule in RULES:
            rule.check(caller)

    app.get("/x", dependencies=[Depends(every)])(nothing)


@right
def a_helper_that_asks(app: FastAPI) -> None:
    def allow(path: str, caller: Principal) -> Principal:
        return POLICIES[path].check(caller)

    def by_path(request: Request, caller: CurrentPrincipal) -> Principal:
        return allow(request.url.path, caller)

    app.get("/x", dependencies=[Depends(by_path)])(nothing)


@right
def a_dependency_that_only_names_it(app: FastAPI) -> None:
    def told() -> dict[str, str]:
        return {"policy": str(CHAT)}

    @app.get("/x", dependencies=[Depends(CHAT)])
    def route(policy: Annotated[dict[str, str], Depends(told)]) -> dict[str, str]:
        return policy


@doubtful
def a_dependency_that_returns_what_another_asks(app: FastAPI) -> None:
    def policy(request: Request):  # type: ignore[no-untyped-def]  # noqa: ANN202
        return POLICIES[request.url.path]

    async def enforced(request: Request, rule: Annotated[Requirement, Depends(policy)]) -> Principal:
        return await rule(request)

    app.get("/x", dependencies=[Depends(enforced)])(nothing)


@doubtful
def a_dependency_that_yields_what_the_route_checks(app: FastAPI) -> None:
    async def policy():  # type: ignore[no-untyped-def]  # noqa: ANN202
        yield POLICIES["/x"]

    @app.get("/x")
    def route(rule: Annotated[Requirement, Depends(policy)], caller: CurrentPrincipal) -> str:
        return (rule | require_caller("nobody")).check(caller).client_id


@right
def a_class_whose_signature_asks(app: FastAPI) -> None:
    class Asking:
        caller: Annotated[Principal, Depends(CHAT)]

        def __init__(self, caller: Annotated[Principal, Depends(CHAT)]) -> None:
            self.caller = caller

    app.get("/x", dependencies=[Depends(Asking)])(nothing)


@right
def a_dataclass_as_a_dependency(app: FastAPI) -> None:
    app.get("/x", dependencies=[Depends(Data)])(nothing)


@right
def a_model_as_a_dependency(app: FastAPI) -> None:
    @app.get("/x")
    def route(params: Annotated[Model, Depends()]) -> None: ...


@right
def a_class_attribute_that_is_the_default_of_a_method(app: FastAPI) -> None:
    class Pages:
        chat = Depends(CHAT)

        async def show(self, caller: Any = chat) -> None: ...

        async def other(self) -> None: ...

    app.get("/x")(Pages().show)
    app.get("/y")(Pages().other)


@right
def a_default_below_text_that_cannot_be_evaluated(app: FastAPI) -> None:
    source = """
    def add(app):
        @app.get("/x")
        async def route(thing: Thing = Depends(lambda: None), caller: Principal = Depends(CHAT)): ...
    """
    _module(textwrap.dedent(_TEXT) + textwrap.dedent(source))["add"](app)


@right
def a_router_that_is_included_twice(app: FastAPI) -> None:
    router = APIRouter()
    router.get("/x")(nothing)
    app.include_router(router, dependencies=[Depends(CHAT)])
    app.include_router(router, prefix="/v2")


@right
def a_literal_that_reads_like_a_requirement(app: FastAPI) -> None:
    def route(caller: Chat, kind: list[Literal["Depends", "Annotated"]] | None = None) -> None: ...

    app.get("/x")(route)


@right
def a_route_of_a_wrapped_function(app: FastAPI) -> None:
    def timed(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        return wrapper

    @app.get("/x")
    @timed
    async def route(caller: Chat) -> str:
        return caller.client_id


def _records(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.message
        for record in caplog.records
        if record.name == "s2s_fastapi" and record.levelno >= logging.WARNING
    ]


@pytest.mark.parametrize("spelling", doubtful.params())
def test_a_requirement_that_may_be_asked_by_hand_is_one_warning_and_the_app_starts(
    make_app: App, client: Client, service: Headers, caplog: pytest.LogCaptureFixture, spelling: Spelling
) -> None:
    app = make_app()
    spelling(app)
    with client(app) as there:
        assert there.get("/x", headers=service()).status_code == 200
        assert there.get("/x", headers=service(azp="eve", client_id="eve")).status_code == 403
    (sentence,) = _records(caplog)
    assert sentence.startswith(f"{SEEN}: GET /x (")


@pytest.mark.parametrize("spelling", right.params())
def test_a_right_app_starts_without_a_warning(
    make_app: App, client: Client, service: Headers, caplog: pytest.LogCaptureFixture, spelling: Spelling
) -> None:
    app = make_app()
    spelling(app)
    with client(app) as there:
        assert there.get("/x", headers=service()).status_code == 200
        assert there.get("/x", headers=service(azp="eve", client_id="eve")).status_code == 403
        assert there.get("/x").status_code == 401
    assert _records(caplog) == []


class TestAnAnnotationThatCannotBeEvaluated:
    SOURCE = """
    def add(app):
        @app.get("/x")
        async def route(caller: Annotated[Principal | None, Depends(CHAT)] = None): ...
    """

    def test_is_a_warning_on_a_public_route(
        self, make_app: App, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = make_app(public_paths=["/x"])
        _module(textwrap.dedent(_TEXT) + textwrap.dedent(self.SOURCE))["add"](app)
        with client(app) as there:
            assert there.get("/x").status_code == 200
        (sentence,) = _records(caplog)
        assert "GET /x (somebodys_app.py:" in sentence


class TestAllMistakes:
    def test_are_said_at_once_with_file_and_line(self, make_app: App, client: Client) -> None:
        app = make_app()

        @app.get("/a")
        async def a(caller: Annotated[Principal, Depends(CHAT), Depends(nothing)]) -> None: ...

        @app.get("/b")
        async def b(p=CHAT) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001

        with pytest.raises(ConfigurationError) as raised, client(app):
            pass
        for function in (a, b):
            line = inspect.unwrap(function).__code__.co_firstlineno
            assert f"GET /{function.__name__} (tests/declared/test_written.py:{line}): " in str(raised.value)
        assert 'insecure_unchecked=["GET /a", "GET /b"]' in str(raised.value)

    def test_on_a_route_that_is_named_do_not_stop_the_start_and_each_start_logs_it(
        self, make_app: App, client: Client, service: Headers, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = make_app(insecure_unchecked=["GET /x", "GET /gone"])
        two_depends_in_one_annotated(app)
        with client(app) as there:
            assert there.get("/x", headers=service(azp="eve", client_id="eve")).status_code == 200
        (sentence,) = _records(caplog)
        assert sentence.startswith("insecure_unchecked is on: mistakes on GET /gone, GET /x do not stop the start")
        assert "No route has the name GET /gone." in sentence

    def test_on_other_routes_still_stop_it(self, make_app: App, client: Client) -> None:
        app = make_app(insecure_unchecked=["GET /y"])
        two_depends_in_one_annotated(app)
        with pytest.raises(ConfigurationError, match="GET /x"), client(app):
            pass

    @pytest.mark.parametrize("given", ["GET /x", [1], [("GET", "/x")]], ids=str)
    def test_are_named_as_routes_are_written(self, make_app: App, client: Client, given: Any) -> None:
        app = make_app(insecure_unchecked=given)
        with pytest.raises(ConfigurationError, match="insecure_unchecked"), client(app):
            pass


class TestAnOverride:
    @pytest.mark.parametrize("overridden", [CHAT, require_caller("chat-app-service")], ids=["it", "an equal one"])
    def test_that_takes_a_requirement_away_is_a_warning(
        self, make_app: App, client: Client, service: Headers, caplog: pytest.LogCaptureFixture, overridden: Any
    ) -> None:
        app = make_app()
        app.get("/x", dependencies=[Depends(CHAT)])(nothing)
        app.dependency_overrides[overridden] = nothing
        with client(app) as there:
            assert there.get("/x", headers=service(azp="eve", client_id="eve")).status_code == 200
        (sentence,) = _records(caplog)
        assert 'dependency_overrides replaces the requirement require_caller("chat-app-service")' in sentence

    def test_of_a_dependency_that_asks_is_seen_too(
        self, make_app: App, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def mine(caller: Chat) -> None: ...

        app = make_app()
        app.get("/x", dependencies=[Depends(mine)])(nothing)
        app.dependency_overrides[mine] = nothing
        with client(app):
            pass
        assert "dependency_overrides replaces" in _records(caplog)[0]

    def test_that_asks_the_same_is_none(self, make_app: App, client: Client, caplog: pytest.LogCaptureFixture) -> None:
        async def mine(caller: Chat) -> None: ...

        app = make_app()
        app.get("/x", dependencies=[Depends(CHAT)])(nothing)
        app.dependency_overrides[CHAT] = mine
        with client(app):
            pass
        assert _records(caplog) == []

    def test_that_is_no_requirement_stops_an_app_that_lets_users_in(self, make_app: App, client: Client) -> None:
        app = make_app(users=True)
        app.get("/x", dependencies=[Depends(CHAT)])(nothing)
        app.dependency_overrides[CHAT] = nothing
        with pytest.raises(ConfigurationError, match=r"GET /x .*dependency_overrides replaces"), client(app):
            pass

    def test_by_another_requirement_is_a_warning_there(
        self, make_app: App, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = make_app(users=True)
        app.get("/x", dependencies=[Depends(CHAT)])(nothing)
        app.dependency_overrides[CHAT] = require_user()
        with client(app):
            pass
        assert "dependency_overrides replaces" in _records(caplog)[0]


def test_one_line_names_the_routes_without_a_requirement_of_their_own(
    make_app: App, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(public_paths=["/open"])
    app.get("/open")(nothing)
    app.get("/guarded", dependencies=[Depends(CHAT)])(nothing)
    for number in range(32):
        app.get(f"/{number}")(nothing)
    with caplog.at_level(logging.INFO, "s2s_fastapi"), client(app):
        pass
    (line,) = [record.message for record in caplog.records if "no requirement" in record.message]
    assert "GET /0, GET /1, " in line
    assert line.endswith("GET /19, and 12 more")
    assert "guarded" not in line
    assert "open" not in line
