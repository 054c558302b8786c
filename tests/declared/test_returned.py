"""A dependency that returns a requirement instead of asking it lets nobody in, and one whose value is asked by hand works."""

import functools
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from typing import Annotated, Any, Protocol
from unittest.mock import Mock

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Security, WebSocket
from fastapi.security.base import SecurityBase

from s2s_fastapi import ConfigurationError, CurrentPrincipal, Principal, Requirement, require_caller, require_service
from tests.kit.receiving import App, Client, Headers

CHAT = require_caller("chat-app-service")


def helper(name: str) -> Any:
    return {"chat": CHAT}[name]


def function():  # type: ignore[no-untyped-def]  # noqa: ANN201
    return helper("chat")


def annotated_as_anything() -> Any:
    return helper("chat")


def annotated_as_an_object() -> object:
    return helper("chat")


async def coroutine():  # type: ignore[no-untyped-def]  # noqa: ANN201
    return helper("chat")


def generator() -> Iterator[Any]:
    yield helper("chat")


async def async_generator() -> AsyncIterator[Any]:
    yield helper("chat")


async def with_a_request(request: Request):  # type: ignore[no-untyped-def]  # noqa: ANN201
    return helper(request.query_params.get("policy", "chat"))


def with_parameters(policy: str = "chat"):  # type: ignore[no-untyped-def]  # noqa: ANN201
    return helper(policy)


class CallableObject:
    def __call__(self):  # type: ignore[no-untyped-def]  # noqa: ANN204
        return helper("chat")


class AsyncCallable:
    async def __call__(self):  # type: ignore[no-untyped-def]  # noqa: ANN204
        return helper("chat")

    async def method(self):  # type: ignore[no-untyped-def]  # noqa: ANN201
        return helper("chat")


class MadeByNew:
    def __new__(cls) -> Any:
        return helper("chat")


class Scheme(SecurityBase):
    async def __call__(self) -> Any:
        return helper("chat")


class Policy(Protocol):
    def check(self, principal: Principal) -> Principal: ...


def timed(call: Any) -> Any:
    @functools.wraps(call)
    def around(*arguments: Any, **options: Any) -> Any:
        return call(*arguments, **options)

    return around


class TimedCall:
    @timed
    async def __call__(self) -> Any:
        return helper("chat")


class TimedGenerator:
    @timed
    def __call__(self) -> Iterator[Any]:
        yield helper("chat")


def annotated(annotation: Any) -> Any:
    def returns() -> Any:
        return helper("chat")

    returns.__annotations__["return"] = annotation
    returns.__name__ = f"annotated as {annotation}"
    return returns


RETURNING = [
    function,
    annotated_as_anything,
    annotated_as_an_object,
    coroutine,
    generator,
    async_generator,
    with_a_request,
    with_parameters,
    CallableObject(),
    AsyncCallable(),
    AsyncCallable().method,
    functools.partial(with_parameters, policy="chat"),
    functools.partial(coroutine),
    lambda: helper("chat"),
    MadeByNew,
    Scheme(),
    timed(coroutine),
    timed(generator),
    TimedCall(),
    TimedGenerator(),
    *map(annotated, (SecurityBase, Callable, Hashable, Policy, Principal, None, list, list[str])),
]
returning = pytest.mark.parametrize(
    "dependency", RETURNING, ids=lambda each: getattr(each, "__name__", type(each).__name__)
)


@returning
def test_a_value_that_is_thrown_away_is_500_before_the_endpoint_runs(
    make_app: App, client: Client, service: Headers, dependency: Any
) -> None:
    app, ran = make_app(), list[str]()
    app.get("/x", dependencies=[Depends(dependency)])(lambda: ran.append("x"))
    with client(app) as there:
        assert there.get("/x", headers=service()).status_code == 500
    assert ran == []


@returning
def test_a_value_that_nobody_asks_is_500(make_app: App, client: Client, service: Headers, dependency: Any) -> None:
    app = make_app()

    @app.get("/x")
    async def route(caller: Annotated[Any, Depends(dependency)]) -> str:
        return "in"

    with client(app) as there:
        assert there.get("/x", headers=service()).status_code == 500


@returning
def test_a_value_that_another_dependency_asks_decides(
    make_app: App, client: Client, service: Headers, dependency: Any
) -> None:
    app = make_app()

    async def asked(request: Request, rule: Annotated[Any, Depends(dependency)]) -> Principal:
        caller: Principal = await rule(request)
        return caller

    app.get("/x", dependencies=[Depends(asked)])(lambda: "in")
    with client(app) as there:
        assert there.get("/x", headers=service()).status_code == 200
        assert there.get("/x", headers=service(azp="eve", client_id="eve")).status_code == 403


@pytest.mark.parametrize(
    "ask",
    [
        lambda rule, caller: rule.check(caller),
        lambda rule, caller: (CHAT & rule).check(caller),
        lambda rule, caller: (rule | require_caller("nobody")).check(caller),
        lambda rule, caller: [each.check(caller) for each in (rule, CHAT)],
    ],
    ids=["check", "and", "or", "comprehension"],
)
def test_a_value_that_the_endpoint_checks_decides(make_app: App, client: Client, service: Headers, ask: Any) -> None:
    app = make_app()

    @app.get("/x")
    def route(rule: Annotated[Any, Depends(function)], caller: CurrentPrincipal) -> str:
        ask(rule, caller)
        return "in"

    with client(app) as there:
        assert there.get("/x", headers=service()).status_code == 200
        assert there.get("/x", headers=service(azp="eve", client_id="eve")).status_code == 403


def test_an_error_before_it_is_asked_keeps_its_status(make_app: App, client: Client, service: Headers) -> None:
    app = make_app()

    @app.get("/x/{number}")
    def route(number: int, rule: Annotated[Any, Depends(function)], caller: CurrentPrincipal) -> str:
        return str(rule.check(caller))

    with client(app) as there:
        assert there.get("/x/no-number", headers=service()).status_code == 422


def test_a_websocket_is_not_accepted_before_it_is_asked(make_app: App, client: Client, service: Headers) -> None:
    app = make_app()

    @app.websocket("/x")
    async def route(websocket: WebSocket, rule: Annotated[Any, Depends(function)]) -> None:
        await websocket.accept()

    # Starlette's test client raises what the app raised.
    with (
        client(app) as there,
        pytest.raises(ConfigurationError, match="nothing asked it"),
        there.websocket_connect("/x", headers=service()),
    ):
        pass


def test_a_value_of_another_kind_and_its_cleanup_are_as_without_us(
    make_app: App, client: Client, service: Headers
) -> None:
    app, done = make_app(), list[str]()

    def session():  # type: ignore[no-untyped-def]  # noqa: ANN202
        try:
            yield "session"
        except KeyError:
            done.append("rolled back")
            raise
        finally:
            done.append("closed")

    @app.get("/x")
    async def route(it: Annotated[str, Depends(session)], *, fail: bool = False) -> str:
        if fail:
            raise KeyError
        return it

    with client(app) as there:
        assert there.get("/x", headers=service()).json() == "session"
        assert there.get("/x?fail=1", headers=service()).status_code == 500
    assert done == ["closed", "rolled back", "closed"]


def test_dependency_overrides_still_find_it(make_app: App, client: Client, service: Headers) -> None:
    app = make_app()

    @app.get("/x")
    async def route(it: Annotated[str, Depends(with_parameters)]) -> str:
        return it

    with client(app) as there:
        app.dependency_overrides[with_parameters] = lambda: "another"
        assert there.get("/x", headers=service()).json() == "another"
        app.dependency_overrides = {nothing: nothing}
        assert there.get("/x", headers=service()).status_code == 500


def nothing() -> None: ...


def test_its_parameters_stay_in_the_document_and_ours_is_not_there(make_app: App, client: Client) -> None:
    app = make_app(app=FastAPI(), public_paths=["/openapi.json"])
    app.get("/x", dependencies=[Depends(with_parameters)])(nothing)
    with client(app) as there:
        (parameter,) = there.get("/openapi.json").json()["paths"]["/x"]["get"]["parameters"]
    assert parameter["name"] == "policy"


HOLDING = {
    "Depends": lambda: Depends(CHAT),
    "Security": lambda: Security(CHAT, scopes=["a"]),
    "its method check": lambda: CHAT.check,
    "its method __call__": lambda: CHAT.__call__,
    "partial": lambda: functools.partial(CHAT),
    "list": lambda: [CHAT],
    "tuple": lambda: (CHAT,),
    "set": lambda: {CHAT},
    "dict": lambda: {"chat": CHAT},
    "list of Depends": lambda: [Depends(CHAT)],
}


@pytest.mark.parametrize("make", HOLDING.values(), ids=HOLDING)
def test_a_value_that_only_holds_it_and_is_thrown_away_is_500(
    make_app: App, client: Client, service: Headers, make: Any
) -> None:
    app, ran = make_app(), list[str]()
    app.get("/x", dependencies=[Depends(make)])(lambda: ran.append("x"))
    with client(app) as there:
        assert there.get("/x", headers=service()).status_code == 500
    assert ran == []


def test_a_depends_that_is_handed_over_is_500(make_app: App, client: Client, service: Headers) -> None:
    app = make_app()

    @app.get("/x")
    async def route(rule: Annotated[Any, Depends(HOLDING["Depends"])]) -> str:
        return "in"

    with client(app) as there:
        assert there.get("/x", headers=service()).status_code == 500


def test_a_table_of_policies_from_which_the_code_chooses_works(make_app: App, client: Client, service: Headers) -> None:
    app = make_app()

    @app.get("/x")
    async def route(rules: Annotated[Any, Depends(HOLDING["dict"])], caller: CurrentPrincipal) -> str:
        rules["chat"].check(caller)
        return "in"

    with client(app) as there:
        assert there.get("/x", headers=service()).status_code == 200
        assert there.get("/x", headers=service(azp="eve", client_id="eve")).status_code == 403


def by_the_route(app: FastAPI, returned: Any) -> None:
    app.get("/x", dependencies=[returned, Depends(CHAT)])(nothing)


def by_more_than_it(app: FastAPI, returned: Any) -> None:
    app.get("/x", dependencies=[Depends(CHAT & require_service()), returned])(nothing)


def by_a_parameter(app: FastAPI, returned: Any) -> None:
    @app.get("/x", dependencies=[returned])
    async def route(caller: Annotated[Principal, Depends(CHAT)]) -> None: ...


def by_the_app(app: FastAPI, returned: Any) -> None:
    router = APIRouter()
    router.get("/x", dependencies=[returned])(nothing)
    app.include_router(router, dependencies=[Depends(CHAT)])


def by_hand_in_a_dependency_before(app: FastAPI, returned: Any) -> None:
    async def asks(request: Request) -> None:
        await CHAT(request)

    app.get("/x", dependencies=[Depends(asks), returned])(nothing)


@pytest.mark.parametrize(
    "asked", [by_the_route, by_more_than_it, by_a_parameter, by_the_app, by_hand_in_a_dependency_before]
)
def test_a_value_that_is_asked_anyway_is_no_error(
    make_app: App, client: Client, service: Headers, asked: Callable[[FastAPI, Any], None]
) -> None:
    app = make_app()
    asked(app, Depends(function))
    with client(app) as there:
        assert there.get("/x", headers=service()).status_code == 200
        assert there.get("/x", headers=service(azp="eve", client_id="eve")).status_code == 403


@pytest.mark.parametrize("asks", [True, False])
def test_a_value_that_is_also_in_the_state_of_the_request_may_be_asked_later(
    make_app: App, client: Client, service: Headers, *, asks: bool
) -> None:
    app = make_app()

    async def policy(request: Request) -> Any:
        request.state.policy = helper("chat")
        return request.state.policy

    @app.get("/x", dependencies=[Depends(policy)])
    async def route(request: Request) -> None:
        if asks:
            await request.state.policy(request)

    with client(app) as there:
        assert there.get("/x", headers=service()).status_code == (200 if asks else 500)
        assert there.get("/x", headers=service(azp="eve", client_id="eve")).status_code == (403 if asks else 500)


def test_a_parameter_with_the_name_of_ours_stays_the_developers(
    make_app: App, client: Client, service: Headers
) -> None:
    app = make_app()

    def echo(s2s_fastapi_connection: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
        return s2s_fastapi_connection

    @app.get("/x")
    async def route(it: Annotated[Any, Depends(echo)]) -> Any:
        return it

    with client(app) as there:
        assert there.get("/x?s2s_fastapi_connection=a", headers=service()).json() == "a"


def test_a_mock_of_a_requirement_is_none(make_app: App, client: Client, service: Headers) -> None:
    app = make_app()
    app.get("/x", dependencies=[Depends(lambda: Mock(spec=Requirement))])(lambda: "in")
    with client(app) as there:
        assert there.get("/x", headers=service()).json() == "in"


def test_less_than_it_is_not_enough(make_app: App, client: Client, service: Headers) -> None:
    app = make_app()
    app.get("/x", dependencies=[Depends(require_service()), Depends(function)])(nothing)
    with client(app) as there:
        assert there.get("/x", headers=service()).status_code == 500


def test_the_same_requirement_that_is_asked_by_hand_in_the_endpoint_is_no_error(
    make_app: App, client: Client, service: Headers
) -> None:
    app = make_app()

    @app.get("/x")
    async def route(request: Request, shown: Annotated[Any, Depends(function)]) -> str:
        await helper("chat")(request)
        return str(shown)

    with client(app) as there:
        assert there.get("/x", headers=service()).status_code == 200
        assert there.get("/x", headers=service(azp="eve", client_id="eve")).status_code == 403


@pytest.mark.parametrize("discarded", [True, False])
def test_a_public_path_may_show_it(make_app: App, client: Client, *, discarded: bool) -> None:
    app = make_app(public_paths=["/x"])
    if discarded:
        app.get("/x", dependencies=[Depends(function)])(lambda: "open")
    else:
        app.get("/x")(lambda rule=Depends(function): str(rule) and "open")
    with client(app) as there:
        assert there.get("/x").json() == "open"


def test_a_route_that_insecure_unchecked_names_is_not_looked_at(
    make_app: App, client: Client, service: Headers
) -> None:
    app = make_app(insecure_unchecked=["GET /x"])
    app.get("/x", dependencies=[Depends(function)])(nothing)
    app.get("/y", dependencies=[Depends(function)])(nothing)
    with client(app) as there:
        assert there.get("/x", headers=service()).status_code == 200
        assert there.get("/y", headers=service()).status_code == 500


def test_an_app_without_our_middleware_that_has_the_same_routes_answers(
    make_app: App, client: Client, service: Headers
) -> None:
    ours, other = make_app(), FastAPI(openapi_url=None)
    ours.get("/x", dependencies=[Depends(function)])(nothing)
    other.router.routes = ours.router.routes
    with client(ours) as there:
        assert there.get("/x", headers=service()).status_code == 500
    assert client(other).get("/x").status_code == 200


def add_and_take_away(router: APIRouter, inner: APIRouter) -> None:
    router.get("/other")(nothing)
    router.routes.pop()


def add_to_a_router_in_it(router: APIRouter, inner: APIRouter) -> None:
    inner.get("/other")(nothing)


def add_by_hand_and_to_a_router_in_it(router: APIRouter, inner: APIRouter) -> None:
    router.routes.reverse()
    inner.add_api_route("/other", nothing)


def include_another(router: APIRouter, inner: APIRouter) -> None:
    inner.include_router(APIRouter())


def include_it_again(router: APIRouter, inner: APIRouter) -> None:
    router.include_router(inner, prefix="/again")


@pytest.mark.parametrize(
    "change",
    [add_and_take_away, add_to_a_router_in_it, add_by_hand_and_to_a_router_in_it, include_another, include_it_again],
)
def test_it_is_looked_at_in_routes_that_fastapi_builds_again(
    make_app: App, client: Client, service: Headers, change: Callable[[APIRouter, APIRouter], None]
) -> None:
    app, router, inner = make_app(), APIRouter(), APIRouter()
    router.get("/x", dependencies=[Depends(function)])(nothing)
    inner.get("/y", dependencies=[Depends(function)])(nothing)
    router.include_router(inner)
    app.include_router(router)
    with client(app) as there:
        for path in ("/x", "/y"):
            assert there.get(path, headers=service()).status_code == 500
        change(router, inner)
        for path in ("/x", "/y"):
            assert there.get(path, headers=service()).status_code == 500
