"""What the app raises stays the app's: its handlers, its challenges, its groups of exceptions."""

from typing import Any

import anyio
import httpx
import pytest
from fastapi import Depends, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Route

from s2s_fastapi import AuthorizationError, ServiceAuthMiddleware, require_caller, require_scope
from tests.kit.receiving import App, Client, Headers, Options

OTHER = {"WWW-Authenticate": 'Digest realm="mine"'}


async def raising(request: Request, error: BaseException) -> None:
    raise error


class TestChallenges:
    @pytest.mark.parametrize("status", [401, 403])
    def test_of_the_app_stay_as_it_wrote_them(
        self, make_app: App, client: Client, service: Headers, observed: Any, status: int
    ) -> None:
        app = make_app()

        @app.get("/x", dependencies=[Depends(require_caller("chat-app-service"))])
        async def route() -> None:
            raise HTTPException(status, "mine", OTHER)

        answer = client(app).get("/x", headers=service())
        assert (answer.status_code, answer.json()) == (status, {"detail": "mine"})
        assert answer.headers.get_list("WWW-Authenticate") == ['Digest realm="mine"']
        assert observed.reasons == ["allowed"]

    def test_of_an_inner_proxy_are_not_joined_with_ours(self, make_app: App, client: Client, service: Headers) -> None:
        """A 401 that comes from the service behind is about its token, not about ours."""
        app = make_app()

        @app.get("/x")
        async def route() -> JSONResponse:
            return JSONResponse({}, 401, {"WWW-Authenticate": 'Bearer realm="behind", error="invalid_token"'})

        answer = client(app).get("/x", headers=service())
        assert answer.headers.get_list("WWW-Authenticate") == ['Bearer realm="behind", error="invalid_token"']

    def test_of_a_dependency_that_fails_after_a_requirement_was_refused_and_caught(
        self, make_app: App, client: Client, service: Headers, observed: Any
    ) -> None:
        """Whoever asks a requirement by hand and goes on has decided; only a 403 of theirs would still get the challenge."""
        app = make_app()

        @app.get("/x")
        async def route(request: Request) -> str:
            try:
                require_scope("write").check(request.user)
            except AuthorizationError:
                return "read only"
            return "all"

        answer = client(app).get("/x", headers=service())
        assert (answer.status_code, answer.json(), observed.reasons) == (200, "read only", ["allowed"])


class TestHandlers:
    def test_for_everything_see_what_the_app_raised_and_nothing_of_ours(
        self, make_app: App, client: Client, service: Headers
    ) -> None:
        app, seen = make_app(), list[BaseException]()

        @app.exception_handler(ExceptionGroup)
        async def handle(request: Request, error: ExceptionGroup[Any]) -> JSONResponse:
            seen.append(error)
            return JSONResponse({"errors": len(error.exceptions)}, 409)

        @app.get("/x")
        async def route(request: Request) -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(raising, request, ValueError("one"))
                group.start_soon(raising, request, KeyError("two"))

        answer = client(app).get("/x", headers=service())
        assert answer.status_code == 409
        assert [type(error) for error in seen] == [ExceptionGroup]
        assert client(app).get("/x").status_code == 401

    def test_that_render_every_http_error_keep_our_status_and_challenge(
        self, make_app: App, client: Client, service: Headers
    ) -> None:
        app = make_app()

        @app.exception_handler(HTTPException)
        async def handle(request: Request, error: HTTPException) -> JSONResponse:
            return JSONResponse({"problem": error.status_code}, error.status_code)

        app.get("/x", dependencies=[Depends(require_scope("write"))])(lambda: None)
        answer = client(app).get("/x", headers=service())
        assert answer.status_code == 403
        assert (
            answer.headers["WWW-Authenticate"]
            == 'Bearer realm="crm-api-gateway", error="insufficient_scope", scope="write"'
        )

    def test_of_errors_500_are_asked_for_the_apps_errors_only(
        self, make_app: App, client: Client, service: Headers
    ) -> None:
        app, seen = make_app(), list[str]()

        @app.exception_handler(Exception)
        async def handle(request: Request, error: Exception) -> JSONResponse:
            seen.append(type(error).__name__)
            return JSONResponse({}, 500)

        @app.get("/x", dependencies=[Depends(require_scope("write"))])
        async def guarded() -> None: ...

        @app.get("/y")
        async def failing() -> None:
            raise LookupError("mine")

        assert client(app).get("/x", headers=service()).status_code == 403
        assert seen == []
        assert client(app).get("/y", headers=service()).status_code == 500
        assert seen == ["LookupError"]


class TestGroupsOfExceptions:
    @pytest.mark.anyio
    @pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
    async def test_come_out_as_they_were_raised(self, options: Options, service: Headers, inside: bool) -> None:
        group = ExceptionGroup("of the app", [ValueError("one"), KeyError("two")])

        async def route(request: Any) -> None:
            raise group

        async def dispatch(request: Any, call_next: Any) -> Any:
            return await call_next(request)

        app: Any = Starlette(routes=[Route("/x", route)])
        if inside:
            app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
        app.add_middleware(ServiceAuthMiddleware, **options())
        if not inside:
            app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as there:
            with pytest.raises(ExceptionGroup) as raised:
                await there.get("/x", headers=service())
            assert raised.value.message == "of the app"
            assert [type(error) for error in raised.value.exceptions] == [ValueError, KeyError]
            assert (await there.get("/x")).status_code == 401

    @pytest.mark.anyio
    @pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
    async def test_do_not_hide_a_refusal(self, options: Options, service: Headers, inside: bool) -> None:
        """Starlette's base middleware runs the app in a task group: a refusal comes out of it as itself."""

        async def dispatch(request: Any, call_next: Any) -> Any:
            return await call_next(request)

        async def route(request: Any) -> None: ...

        app: Any = Starlette(routes=[Route("/x", require_scope("write").guard(route))])
        if inside:
            app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
        app.add_middleware(ServiceAuthMiddleware, **options())
        if not inside:
            app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as there:
            answer = await there.get("/x", headers=service())
        assert answer.status_code == 403
        assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]

    @pytest.mark.anyio
    async def test_that_wrap_a_refusal_are_the_apps_own_error(self, make_app: App, service: Headers) -> None:
        app = make_app()

        @app.get("/x")
        async def route(request: Request) -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(raising, request, HTTPException(403))

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as there:
            with pytest.raises(ExceptionGroup):
                await there.get("/x", headers=service())
