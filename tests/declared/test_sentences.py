"""Each kind of place where FastAPI does not ask a requirement has its own cure, and no object of a developer's breaks the start."""

import dataclasses
import enum
import functools
import logging
import sys
import textwrap
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Generic, NewType, Optional, TypeVar
from unittest.mock import Mock

import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Query, Request, Security
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from typing_extensions import TypeAliasType

from s2s_fastapi import (
    ConfigurationError,
    Principal,
    read_access,
    require_caller,
    require_scope,
    require_service,
    require_user,
)
from tests.kit.receiving import App, Client, Headers

Spelling = Callable[[FastAPI], Any]

CHAT = require_caller("chat-app-service")
BILLING = require_caller("billing")
ANY = require_service()
Chat = Annotated[Principal, Depends(CHAT)]
ChatText = Annotated[str, Depends(CHAT)]
T = TypeVar("T")

LAST = "FastAPI asks only the last Depends of a parameter"
BARE = "FastAPI does not ask a requirement without Depends(...) around it"
INSIDE = "FastAPI does not look inside of a union, a container or an alias"
FIELD = "FastAPI asks no Depends on a field of a model"
ATTRIBUTE = "FastAPI does not read the attributes of a class"
ASSIGNED = "FastAPI takes dependencies only from the arguments of FastAPI(...)"
ELSEWHERE = "FastAPI does not look there: write dependencies=[Depends(...)] on the route"
SIGNATURE = "FastAPI does not read this parameter, because it reads another signature"
STARLETTE = "put the requirement's guard around the endpoint"
LATE = "because the route was added or included earlier"
NOT_COPIED = "an included router makes a new route of the path and the endpoint only"
MIDDLEWARE = "FastAPI reads no Depends of a middleware or an exception handler"
BY_HAND = "if the code does not ask it by hand either"


def nothing() -> None: ...


async def by_hand(request: Request) -> Principal:
    return await CHAT(request)


class Rows:
    """The spellings of one kind, each with the cure that its sentence has."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def __call__(self, cure: str = "") -> Callable[[Spelling], Spelling]:
        def add(spelling: Spelling) -> Spelling:
            self.all.append(pytest.param(spelling, cure, id=spelling.__name__))
            return spelling

        return add


certain, doubtful, right = Rows(), Rows(), Rows()


def _annotated(name: str, annotation: Any, cure: str, rows: Rows = certain) -> None:
    def spelling(app: FastAPI) -> None:
        def route(caller: Any = "") -> None: ...

        route.__annotations__["caller"] = annotation
        app.get("/x")(route)

    spelling.__name__ = name
    rows(cure)(spelling)


def _default(name: str, default: Any, cure: str, rows: Rows = certain) -> None:
    def spelling(app: FastAPI) -> None:
        def route(caller: Any = default) -> None: ...

        app.get("/x")(route)

    spelling.__name__ = name
    rows(cure)(spelling)


def _model(name: str, model: Any, rows: Rows, cure: str = "") -> None:
    def spelling(app: FastAPI) -> None:
        def route(given: Any = None) -> None: ...

        route.__annotations__["given"] = Annotated[model, Body()]
        app.get("/x")(route)

    spelling.__name__ = name
    rows(cure)(spelling)


Generic_ = TypeAliasType("Generic_", Annotated[T, Depends(CHAT)], type_params=(T,))
New = NewType("New", ChatText)
Bound = TypeVar("Bound", bound=ChatText)

_annotated("two in one Annotated", Annotated[Any, Depends(CHAT), Depends(nothing)], LAST)
_annotated("quotes in Annotated", Annotated["Chat", Depends(nothing)], INSIDE)
_annotated("quotes in Optional", Optional["ChatText"], INSIDE)
_annotated("quotes in a list", Annotated[list["ChatText"], Query()], INSIDE)
_annotated("an alias with parameters", Generic_[str], INSIDE)
_annotated("an alias with parameters in Annotated", Annotated[Generic_[str], Depends(nothing)], INSIDE)
_annotated("a NewType", New, INSIDE)
_annotated("the bound of a TypeVar", Bound, INSIDE)
_annotated("the arguments of a Callable", Annotated[Any, Query()] | Callable[[Chat], None], INSIDE)
_annotated(
    "a dropped partial of a requirement", Annotated[Any, Depends(functools.partial(CHAT)), Depends(nothing)], LAST
)
_annotated("a dropped bound __call__", Annotated[Any, Depends(CHAT.__call__), Depends(nothing)], LAST)
_annotated("the scopes of a dropped Security", Annotated[Any, Security(nothing, scopes=["a"]), Depends(nothing)], LAST)
_default("bare", CHAT, BARE)
_default("a Depends in a list", [Depends(CHAT)], ELSEWHERE)
_default("a Depends in the subclass of a dict", type("Own", (dict,), {"values": None})(a=Depends(CHAT)), ELSEWHERE)


class Foreign:
    """What another library calls Depends."""

    def __init__(self, dependency: Any) -> None:
        self.dependency = dependency


class Slotted:
    __slots__ = ("dependency",)

    def __init__(self, dependency: Any) -> None:
        self.dependency = dependency


class Member(enum.Enum):
    CHAT = Foreign(Depends(CHAT))


async def dropped(request: Request) -> None: ...


_annotated("another library's Depends in Annotated", Annotated[Any, Foreign(CHAT)], BY_HAND, doubtful)
_annotated("a validator", Annotated[str, AfterValidator(CHAT.check)], BY_HAND, doubtful)
_annotated("a function in Annotated", Annotated[Any, lambda: Depends(CHAT)], BY_HAND, doubtful)
_annotated("a dropped dependency that asks by hand", Annotated[Any, Depends(by_hand), Depends(nothing)], LAST, doubtful)
_default("another library's Depends", Foreign(CHAT), "", doubtful)
_default("an object with slots", Slotted(CHAT), "", doubtful)
_default("a member of an enum", Foreign(Depends(CHAT)), LAST, doubtful)
_default("a factory of a default", Query(default_factory=lambda: Depends(CHAT)), BY_HAND, doubtful)
_default("a dependency that asks by hand in a list", [Depends(by_hand)], ELSEWHERE, doubtful)


class Private(BaseModel):
    _caller: Any = PrivateAttr(default=Depends(CHAT))


class OfTheClass(BaseModel):
    caller: ClassVar[Any] = Depends(CHAT)


class Made(BaseModel):
    caller: Any = Field(default_factory=lambda: Depends(CHAT))


class Configured(BaseModel):
    model_config = ConfigDict(json_schema_extra={"dependencies": [Depends(CHAT)]})


class Later(BaseModel):
    caller: "Forward" = ""


Forward = Annotated[str, Depends(CHAT)]


class OwnInit(BaseModel):
    def __init__(self, caller: Any = Depends(CHAT), **values: Any) -> None: ...


class OfAnAlias(BaseModel):
    caller: Generic_[str] = ""


@dataclasses.dataclass
class Noted:
    caller: Any = dataclasses.field(default=None, metadata={"depends": Depends(CHAT)})


@dataclasses.dataclass
class MadeData:
    caller: Any = dataclasses.field(default_factory=lambda: Depends(CHAT))


for _type in (OfTheClass, Configured):
    _model(f"a model: {_type.__name__}", _type, certain, FIELD)
for _inner in (Later, OfAnAlias):
    _model(f"a model: {_inner.__name__}", _inner, certain, FIELD)
for _made in (Private, Made, OwnInit, Noted, MadeData):
    _model(f"a model: {_made.__name__}", _made, doubtful)


@certain(INSIDE)
def a_depends_as_the_annotation_of_what_is_returned(app: FastAPI) -> None:
    def made() -> Any: ...

    made.__annotations__["return"] = Depends(CHAT)
    app.get("/x", dependencies=[Depends(made)])(nothing)


@doubtful(SIGNATURE)
def a_decorator_without_wraps(app: FastAPI) -> None:
    def decorated(function: Any) -> Any:
        def wrapper() -> Any:
            return function()

        return wrapper

    @app.get("/x")
    @decorated
    def route(caller: Annotated[Any, Depends(CHAT)] = None) -> None: ...


@doubtful(SIGNATURE)
def a_decorator_that_is_a_class(app: FastAPI) -> None:
    class Decorated:
        def __init__(self, function: Any) -> None:
            self.function = function

        def __call__(self) -> None: ...

    @app.get("/x")
    @Decorated
    def route(caller: Annotated[Any, Depends(CHAT)] = None) -> None: ...


@certain(SIGNATURE)
def an_inherited_call(app: FastAPI) -> None:
    class Base:
        def __call__(self, caller: Any = Depends(CHAT)) -> None: ...

    class Wrapper(Base):
        def __init__(self, function: Any) -> None:
            functools.update_wrapper(self, function)

    app.get("/x")(Wrapper(nothing))


@certain(SIGNATURE)
def an_argument_of_a_partial(app: FastAPI) -> None:
    def route(caller: Any) -> None: ...

    app.get("/x")(functools.partial(route, Depends(CHAT)))


@certain(STARLETTE)
def a_plain_route(app: FastAPI) -> None:
    def route(request: Request, caller: Any = Depends(CHAT)) -> PlainTextResponse:
        return PlainTextResponse("")

    app.add_route("/x", route)


@certain(STARLETTE)
def an_inherited_method_of_an_endpoint(app: FastAPI) -> None:
    class Base(HTTPEndpoint):
        def get(self, request: Request, caller: Any = Depends(CHAT)) -> None: ...

    class Page(Base): ...

    app.router.routes.append(Route("/x", Page))


@certain(STARLETTE)
def a_static_method_of_an_endpoint(app: FastAPI) -> None:
    class Page(HTTPEndpoint):
        @staticmethod
        def get(request: Request, caller: Any = Depends(CHAT)) -> None: ...

    app.router.routes.append(Route("/x", Page))


@certain(STARLETTE)
def an_asgi_app(app: FastAPI) -> None:
    class Page:
        async def __call__(self, scope: Any, receive: Any, send: Any, caller: Any = Depends(CHAT)) -> None: ...

    app.mount("/x", Page())


@certain(ASSIGNED)
def dependencies_that_are_appended_to_a_route(app: FastAPI) -> None:
    app.get("/x")(nothing)
    app.routes[-1].dependencies.append(Depends(CHAT))  # type: ignore[attr-defined]


@certain(ASSIGNED)
def an_attribute_of_the_app(app: FastAPI) -> None:
    app.get("/x")(nothing)
    app.dependencies = [Depends(CHAT)]  # type: ignore[attr-defined]


@certain(ELSEWHERE)
def the_state_of_the_app(app: FastAPI) -> None:
    app.get("/x")(nothing)
    app.state.dependencies = [Depends(CHAT)]


@certain(ELSEWHERE)
def an_attribute_of_a_router(app: FastAPI) -> None:
    router = APIRouter()
    router.requirement = Depends(CHAT)  # type: ignore[attr-defined]
    router.get("/x")(nothing)
    app.include_router(router)


@certain(ASSIGNED)
def an_attribute_of_a_router_class(app: FastAPI) -> None:
    class Guarded(APIRouter):
        dependencies = [Depends(CHAT)]  # noqa: RUF012 - as somebody writes it

    router = Guarded()
    router.get("/x")(nothing)
    app.include_router(router)


@certain(ASSIGNED)
def an_attribute_of_a_route_class(app: FastAPI) -> None:
    class Guarded(APIRoute):
        dependencies = [Depends(CHAT)]  # noqa: RUF012 - as somebody writes it

    app.router.route_class = Guarded
    app.get("/x")(nothing)


@certain(SIGNATURE)
def a_parameter_of_a_route_handler(app: FastAPI) -> None:
    class Guarded(APIRoute):
        def get_route_handler(self) -> Any:
            inner = super().get_route_handler()

            async def handler(request: Request, caller: Any = Depends(CHAT)) -> Any:
                return await inner(request)

            return handler

    app.router.route_class = Guarded
    app.get("/x")(nothing)


@certain(LATE)
def dependencies_of_a_router_that_come_late(app: FastAPI) -> None:
    app.get("/x")(nothing)
    app.router.dependencies.append(Depends(CHAT))


@doubtful(LATE)
def a_dependency_of_a_router_that_asks_by_hand_and_comes_late(app: FastAPI) -> None:
    app.get("/x")(nothing)
    app.router.dependencies.append(Depends(by_hand))


def _page(request: Request) -> PlainTextResponse:
    return PlainTextResponse("")


@certain(NOT_COPIED)
def a_guard_on_the_app_of_an_included_plain_route(app: FastAPI) -> None:
    router, route = APIRouter(), Route("/x", _page)
    route.app = CHAT.guard(route.app)
    router.routes.append(route)
    app.include_router(router)


@certain(NOT_COPIED)
def a_guard_on_the_app_of_an_included_route(app: FastAPI) -> None:
    router = APIRouter()
    router.get("/x")(nothing)
    router.routes[0].app = CHAT.guard(router.routes[0].app)  # type: ignore[attr-defined]
    app.include_router(router)


@certain(NOT_COPIED)
def a_guard_in_the_middleware_of_an_included_route(app: FastAPI) -> None:
    class Guarding:
        def __init__(self, app: Any) -> None:
            self.app = CHAT.guard(app)

        async def __call__(self, *args: Any) -> None:
            await self.app(*args)

    router = APIRouter()
    router.routes.append(Route("/x", _page, middleware=[Middleware(Guarding)]))
    app.include_router(router)


@doubtful(NOT_COPIED)
def the_handle_of_an_included_route(app: FastAPI) -> None:
    class Asking(Route):
        async def handle(self, scope: Any, receive: Any, send: Any) -> None: ...

    router = APIRouter()
    router.routes.append(Asking("/x", _page))
    app.include_router(router)


class TestTheHandleOfAnIncludedWebSocketRoute:
    def test_is_a_warning(self, make_app: App, client: Client, caplog: pytest.LogCaptureFixture) -> None:
        class Asking(WebSocketRoute):
            async def handle(self, scope: Any, receive: Any, send: Any) -> None: ...

        async def route(websocket: Any) -> None: ...

        app, router = make_app(), APIRouter()
        router.routes.append(Asking("/x", route))
        app.include_router(router)
        with client(app):
            pass
        assert NOT_COPIED in _warning(caplog)


@doubtful(MIDDLEWARE)
def a_parameter_of_a_middleware_function(app: FastAPI) -> None:
    @app.middleware("http")
    async def through(request: Request, call_next: Any, caller: Any = Depends(CHAT)) -> Any:
        return await call_next(request)

    app.get("/x")(nothing)


@doubtful(MIDDLEWARE)
def a_parameter_of_dispatch(app: FastAPI) -> None:
    class Through(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any, caller: Any = Depends(CHAT)) -> Any:
            return await call_next(request)

    app.add_middleware(Through)
    app.get("/x")(nothing)


@doubtful(MIDDLEWARE)
def an_option_of_a_middleware(app: FastAPI) -> None:
    class Through:
        def __init__(self, app: Any, dependencies: Any) -> None:
            self.app = app

        async def __call__(self, *args: Any) -> None:
            await self.app(*args)

    app.add_middleware(Through, dependencies=[Depends(CHAT)])
    app.get("/x")(nothing)


@doubtful(MIDDLEWARE)
def a_parameter_of_an_exception_handler(app: FastAPI) -> None:
    @app.exception_handler(404)
    async def missing(request: Request, error: Any, caller: Any = Depends(CHAT)) -> Any:
        return PlainTextResponse("")

    app.get("/x")(nothing)


class Kit:
    chat, billing = Depends(CHAT), Depends(BILLING)

    def now(self) -> int:
        return 1


@doubtful(ATTRIBUTE)
def a_method_of_a_kit_of_dependencies(app: FastAPI) -> None:
    app.get("/x", dependencies=[Depends(Kit().now)])(nothing)


@doubtful()
def a_function_in_a_method(app: FastAPI) -> None:
    class Pages:
        caller = Depends(CHAT)

        def __init__(self) -> None:
            @app.get("/x")
            def show() -> str:
                return str(self)

    Pages()


@certain(ELSEWHERE)
def an_object_with_slots_as_a_view(app: FastAPI) -> None:
    @dataclasses.dataclass(slots=True)
    class Pages:
        caller: Any = Depends(CHAT)

        def show(self) -> None: ...

    app.get("/x")(Pages().show)


@certain(ATTRIBUTE)
def an_attribute_with_underscores(app: FastAPI) -> None:
    class Pages:
        __dependencies__ = (Depends(CHAT),)

        def show(self) -> None: ...

    app.get("/x")(Pages().show)


class StaticPages:
    caller = Depends(CHAT)

    @staticmethod
    def show() -> None: ...


@certain(ATTRIBUTE)
def the_class_of_a_static_method(app: FastAPI) -> None:
    app.get("/x")(StaticPages.show)


@doubtful("write Depends(require_scope")
def scopes_that_nothing_reads(app: FastAPI) -> None:
    app.get("/x", dependencies=[Security(nothing, scopes=["write"])])(nothing)


def _warning(caplog: pytest.LogCaptureFixture) -> str:
    (sentence,) = _warnings(caplog)
    return sentence


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [record for record in caplog.records if record.name == "s2s_fastapi"]
    return [record.message for record in records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(("spelling", "cure"), certain.all)
def test_what_nobody_can_ask_stops_the_start_with_the_cure_of_its_place(
    make_app: App, client: Client, spelling: Spelling, cure: str
) -> None:
    app = make_app()
    spelling(app)
    with pytest.raises(ConfigurationError) as raised, client(app):
        pass
    assert "/x" in str(raised.value)
    assert cure in str(raised.value)


@pytest.mark.parametrize(("spelling", "cure"), doubtful.all)
def test_what_the_code_may_ask_is_one_warning_with_the_cure_of_its_place(
    make_app: App, client: Client, caplog: pytest.LogCaptureFixture, spelling: Spelling, cure: str
) -> None:
    app = make_app()
    spelling(app)
    with client(app):
        pass
    sentence = _warning(caplog)
    assert cure in sentence
    assert any(
        each in sentence
        for each in ('require_caller("chat-app-service")', 'require_scope("write")', "code that does not run")
    )


class Overriding(Kit):
    chat, billing = Depends(CHAT), None


@right()
def an_attribute_that_a_subclass_overrides(app: FastAPI) -> None:
    app.get("/x", dependencies=[Overriding.chat])(Overriding().now)


@right()
def a_parameter_that_a_partial_fills(app: FastAPI) -> None:
    def show(caller: Annotated[Any, Depends(BILLING)], number: int = 1) -> None: ...

    app.get("/x", dependencies=[Depends(CHAT)])(functools.partial(show, "system"))


@right()
def what_the_middleware_asks_anyway(app: FastAPI) -> None:
    def route(caller: Annotated[Any, Depends(ANY), Depends(nothing)]) -> None: ...

    app.get("/x", dependencies=[Depends(CHAT)])(nothing)
    app.get("/y")(route)


@right()
def scopes_in_two_dependencies(app: FastAPI) -> None:
    def route(caller: Annotated[Any, Depends(require_scope("a", "b")), Depends(nothing)]) -> None: ...

    app.get("/x", dependencies=[Depends(CHAT)])(nothing)
    app.get("/y", dependencies=[Depends(require_scope("a")), Depends(require_scope("b"))])(route)


@right()
def callers_that_are_joined(app: FastAPI) -> None:
    both = require_caller("chat-app-service", "crm")

    def route(caller: Annotated[Any, Depends(both), Depends(nothing)]) -> None: ...

    app.get("/x", dependencies=[Depends(CHAT | CHAT & require_scope("a"))])(nothing)
    app.get("/y", dependencies=[Depends(require_caller("chat-app-service") | require_caller("crm"))])(route)


@right()
def a_shorter_way_of_the_same(app: FastAPI) -> None:
    @app.get("/x", dependencies=[Depends(CHAT & require_scope("nope") | CHAT)])
    def route(caller: Annotated[Any, Depends(CHAT), Depends(nothing)]) -> None: ...


Json = TypeAliasType("Json", "dict[str, Json] | list[Json] | str | None")


class WithJson(BaseModel):
    value: Json = None


@right()
def a_type_that_names_itself(app: FastAPI) -> None:
    def made() -> Json: ...

    @app.get("/x", dependencies=[Depends(CHAT)])
    def route(value: Annotated[Any, Depends(made)], body: Annotated[WithJson | None, Body()] = None) -> None: ...


class Unready:
    """A proxy of settings that are not there yet."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("not configured")


class Odd(list[Any]):
    def __iter__(self) -> Any:
        raise ValueError("ambiguous")


class Uncomparable:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")


class AnyAttribute:
    def __getattr__(self, name: str) -> Any:
        return self


GLOBALS = Unready(), Odd([1]), {"a": Uncomparable()}, Mock(), AnyAttribute()
GRID = [[[0] * 100 for _ in range(100)] for _ in range(100)]


@right()
def objects_that_answer_nothing(app: FastAPI) -> None:
    unready = Unready()

    @app.get("/x", dependencies=[Depends(CHAT)])
    def route() -> int:
        return len(GLOBALS) + len(GRID) + len(str(type(unready)))


@right()
def a_bound_call_of_a_requirement(app: FastAPI) -> None:
    app.get("/x", dependencies=[Depends(CHAT.__call__)])(nothing)


@right()
def a_partial_of_a_requirement(app: FastAPI) -> None:
    app.get("/x", dependencies=[Depends(functools.partial(CHAT))])(nothing)


@right()
def a_generic_model(app: FastAPI) -> None:
    class Page(BaseModel, Generic[T]):
        items: list[T]

    @app.get("/x", dependencies=[Depends(CHAT)])
    def route(given: Annotated[Page[int] | None, Body()] = None) -> None: ...


@pytest.mark.parametrize("spelling", [pytest.param(row.values[0], id=row.id) for row in right.all])
def test_a_right_app_starts_without_a_warning(
    make_app: App, client: Client, service: Headers, caplog: pytest.LogCaptureFixture, spelling: Spelling
) -> None:
    app = make_app()
    spelling(app)
    with client(app) as there:
        assert there.get("/x", headers=service()).status_code == 200
        assert there.get("/x", headers=service(azp="eve", client_id="eve")).status_code == 403
    assert _warnings(caplog) == []


@pytest.mark.parametrize("asking", [CHAT.__call__, functools.partial(CHAT)], ids=["__call__", "partial"])
def test_a_requirement_that_is_called_in_another_way_says_who_may_call(
    make_app: App, client: Client, asking: Any
) -> None:
    app = make_app(users=True)
    app.get("/x", dependencies=[Depends(asking)])(nothing)
    with client(app):
        pass


def test_code_that_cannot_be_read_is_one_warning(
    make_app: App, client: Client, service: Headers, caplog: pytest.LogCaptureFixture
) -> None:
    def route(number: int = 1) -> None: ...

    app = make_app()
    app.get("/x", dependencies=[Depends(CHAT)])(route)
    route.__annotations__["number"] = Unready()  # FastAPI read it before
    with client(app) as there:
        assert there.get("/x", headers=service()).status_code == 200
    assert "its code has something that the start check cannot read: reading it raised RuntimeError" in _warning(caplog)


class TestAShadowedRoute:
    @pytest.mark.parametrize("earlier", ["/items/{name}", "/items/admin", "/{rest:path}"])
    def test_is_a_warning(self, make_app: App, client: Client, caplog: pytest.LogCaptureFixture, earlier: str) -> None:
        app = make_app()
        app.get(earlier)(nothing)
        app.get("/items/admin", dependencies=[Depends(CHAT)])(nothing)
        with client(app):
            pass
        assert f"GET /items/admin by GET {earlier}." in _warning(caplog)

    @pytest.mark.parametrize("earlier", ["/items/{number:int}", "/items/{name}/more", "/other/{name}"])
    def test_is_none_if_the_other_takes_other_paths(
        self, make_app: App, client: Client, caplog: pytest.LogCaptureFixture, earlier: str
    ) -> None:
        app = make_app()
        app.get(earlier)(nothing)
        app.get("/items/admin", dependencies=[Depends(CHAT)])(nothing)
        with client(app):
            pass
        assert _warnings(caplog) == []

    def test_is_none_if_the_other_asks_the_same_or_takes_another_method(
        self, make_app: App, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = make_app()
        app.get("/items/{name}", dependencies=[Depends(CHAT)])(nothing)
        app.post("/items/{name}")(nothing)
        app.get("/items/admin", dependencies=[Depends(CHAT)])(nothing)
        with client(app):
            pass
        assert _warnings(caplog) == []


TABLE = {"/a": CHAT, "/b": CHAT}


def test_a_table_that_many_routes_name_is_said_once(
    make_app: App, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()

    def allowed(request: Request) -> str:
        return str(TABLE[request.url.path])

    for path in TABLE:
        app.get(path, dependencies=[Depends(allowed)])(nothing)
    with client(app):
        pass
    assert _warning(caplog).count("the global TABLE") == 1


def test_an_attribute_beside_one_that_is_asked_is_a_warning(
    make_app: App, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()
    app.get("/x", dependencies=[Kit.chat])(Kit().now)
    with client(app):
        pass
    assert "Kit.billing" in _warning(caplog)


_LOCAL = """
    from __future__ import annotations
    from fastapi import Depends
    from s2s_fastapi import require_caller
    def add(app, dependencies):
        Limit = int
        @app.get("/x", dependencies=dependencies)
        def route(limit: Limit = 3): ...
"""


class TestANameThatOnlyAFunctionKnows:
    def _add(self, app: FastAPI, dependencies: list[Any]) -> None:
        names: dict[str, Any] = {"__name__": "somebodys_app"}
        exec(textwrap.dedent(_LOCAL), names)  # noqa: S102 - a module of its own
        names["add"](app, dependencies)

    def test_is_a_warning_if_the_route_has_a_requirement(
        self, make_app: App, client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = make_app()
        self._add(app, [Depends(CHAT)])
        with client(app):
            pass
        assert "cannot see whether it has a Depends" in _warning(caplog)

    def test_stops_the_start_if_it_has_none(self, make_app: App, client: Client) -> None:
        app = make_app()
        self._add(app, [])
        with pytest.raises(ConfigurationError, match="cannot see whether it has a Depends"), client(app):
            pass


def test_a_guard_on_an_included_mount_is_kept(make_app: App, client: Client, service: Headers) -> None:
    app, router = make_app(), APIRouter()
    mount = Mount("/m", routes=[Route("/x", _page)])
    mount.app = CHAT.guard(mount.app)
    router.routes.append(mount)
    app.include_router(router)
    with client(app) as there:
        assert there.get("/m/x", headers=service()).status_code == 200
        assert there.get("/m/x", headers=service(azp="eve", client_id="eve")).status_code == 403


def test_users_are_not_asked_for_by_the_middleware(make_app: App, client: Client) -> None:
    app = make_app(users=True)

    @app.get("/x", dependencies=[Depends(require_user())])
    def route(caller: Annotated[Any, Depends(ANY), Depends(nothing)]) -> None: ...

    with pytest.raises(ConfigurationError, match="only the last Depends"), client(app):
        pass


def test_a_large_global_that_many_routes_name_is_read_once() -> None:
    app, looked, before = FastAPI(openapi_url=None), [0], sys.getprofile()
    for number in range(20):
        app.get(f"/{number}", dependencies=[Depends(CHAT)])(lambda: len(GRID))

    def count(frame: Any, event: str, _: Any) -> None:
        looked[0] += event == "call" and frame.f_code.co_name == "_in_part"

    sys.setprofile(count)
    try:
        read_access(app)
    finally:
        sys.setprofile(before)
    assert 2000 <= looked[0] < 10_000
