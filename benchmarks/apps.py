"""The apps that are measured: one route that does nothing, without a guard and with ours."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from joserfc import jwt as joserfc
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks import rows
from benchmarks.realm import CALLER, RECEIVER, SECOND
from s2s_fastapi import (
    DOCS,
    KeycloakSettings,
    Principal,
    Requirement,
    ServiceAuthMiddleware,
    require_audience,
    require_caller,
    require_that,
)


class _PassThrough:
    """A middleware that does nothing, after a look into ``known`` if there is one."""

    def __init__(self, app: Any, known: dict[bytes, str] | None = None) -> None:
        self.app = app
        self.known = known

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.known is not None:
            self.known.get(b"token")
        await self.app(scope, receive, send)


def bare() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def route() -> str:
        return "ok"

    return app


def pass_through() -> FastAPI:
    app = bare()
    app.add_middleware(_PassThrough)
    return app


def floor() -> FastAPI:
    app = FastAPI()
    app.add_middleware(_PassThrough, known={b"token": "known"})

    async def dependency(connection: HTTPConnection) -> str:
        return connection.scope["type"]

    @app.get("/")
    async def route(caller: Annotated[str, Depends(dependency)]) -> str:
        return "ok"

    return app


def middleware(given: KeycloakSettings) -> FastAPI:
    app = bare()
    app.add_middleware(ServiceAuthMiddleware, given)
    return app


def guarded(
    given: KeycloakSettings | list[KeycloakSettings],
    *requirements: Requirement,
    openapi_url: str | None = "/openapi.json",
    route_class: type[APIRoute] = APIRoute,
    **options: Any,
) -> FastAPI:
    """Return the route behind one requirement, or behind two, each in a ``Depends`` of its own."""
    app = FastAPI(openapi_url=openapi_url)
    app.router.route_class = route_class
    app.add_middleware(ServiceAuthMiddleware, given, **options)
    first, *others = requirements or (require_caller(CALLER),)

    @app.get("/", dependencies=[Depends(other) for other in others])
    async def route(caller: Annotated[Principal, Depends(first)]) -> str:
        return "ok"

    return app


def decoding(key: RSAKey) -> FastAPI:
    """Return the route behind a dependency that does nothing but check the signature with joserfc."""
    app = FastAPI()

    async def claims(connection: HTTPConnection) -> dict[str, Any]:
        token = connection.headers["authorization"].removeprefix("Bearer ")
        return joserfc.decode(token, key, algorithms=["RS256"]).claims

    @app.get("/")
    async def route(caller: Annotated[dict[str, Any], Depends(claims)]) -> str:
        return "ok"

    return app


def of_two_realms(given: list[KeycloakSettings]) -> FastAPI:
    """Return the route for the caller of either realm. The pages of the documentation must say who may see them."""
    either = require_caller(CALLER) | require_caller(CALLER, realm=SECOND)
    return guarded(given, either, public_paths=DOCS)


def sync_bare() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    def route() -> str:
        return "ok"

    return app


def sync_guarded(given: KeycloakSettings) -> FastAPI:
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware, given)

    @app.get("/")
    def route(caller: Annotated[Principal, Depends(require_caller(CALLER))]) -> str:
        return "ok"

    return app


async def _endpoint(request: Request) -> JSONResponse:
    return JSONResponse("ok")


def starlette_bare() -> Starlette:
    return Starlette(routes=[Route("/", _endpoint)])


def starlette_guarded(given: KeycloakSettings) -> Starlette:
    app = Starlette(routes=[Route("/", require_caller(CALLER).guard(_endpoint))])
    app.add_middleware(ServiceAuthMiddleware, given)
    return app


def repeated(given: KeycloakSettings) -> dict[str, Any]:
    """Return the apps that see one token again and again, by row."""
    audience, caller = require_audience(RECEIVER), require_caller(CALLER)
    return {
        rows.BARE: bare(),
        rows.PASS_THROUGH: pass_through(),
        rows.FLOOR: floor(),
        rows.MIDDLEWARE: middleware(given),
        rows.ONE: guarded(given),
        rows.COMBINED: guarded(given, audience & caller),
        rows.TWO: guarded(given, audience, caller),
        rows.CONDITION: guarded(given, caller & require_that("c", lambda each: bool(each.subject))),
        rows.CACHE_OFF: guarded(given, cached_tokens=0),
        rows.SYNC_BARE: sync_bare(),
        rows.SYNC: sync_guarded(given),
        rows.STARLETTE_BARE: starlette_bare(),
        rows.STARLETTE: starlette_guarded(given),
    }
