"""A dependency that returns a requirement instead of asking it lets nobody in, and one whose value is asked by hand works."""

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from starlette.testclient import TestClient

from s2s_fastapi import ConfigurationError, CurrentPrincipal, Principal, require_caller

App = Callable[..., FastAPI]
Client = Callable[[Any], TestClient]
Headers = Callable[..., dict[str, str]]

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
