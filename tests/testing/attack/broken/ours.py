"""Apps with our own middleware, used in a wrong way or in a right and unusual one."""

import importlib
import json
from base64 import urlsafe_b64decode
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from s2s_fastapi import (
    AuthorizationError,
    KeycloakSettings,
    ServiceAuthMiddleware,
    require_audience,
    require_bound,
    require_caller,
    require_role,
    require_scope,
    require_service,
    require_user,
)
from s2s_fastapi.declared.routes import layers


async def runs() -> None:
    raise AssertionError("code of the app ran")


async def page(request: Request) -> PlainTextResponse:
    raise AssertionError("code of the app ran")


CALLER = (Depends(require_caller("shop")),)


def orders(middleware: Any = ServiceAuthMiddleware, *, requires: Any = CALLER, **options: Any) -> FastAPI:
    """Return an app. If its routes require nothing, only the middleware protects them."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(middleware, public_paths=["/health"], audience="orders", **options)
    app.add_api_route("/health", runs)
    for method, path in (("GET", "/orders"), ("DELETE", "/orders"), ("GET", "/orders/{number}")):
        app.add_api_route(path, runs, methods=[method], dependencies=requires)

    @app.websocket("/live", dependencies=requires)
    async def live(websocket: WebSocket) -> None:
        raise AssertionError("code of the app ran")

    return app


class _Opening(ServiceAuthMiddleware):
    """Lets some requests pass without a look at them."""

    def opens(self, scope: Scope) -> bool:
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and self.opens(scope):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class OpensDelete(_Opening):
    def opens(self, scope: Scope) -> bool:
        return bool(scope.get("method") == "DELETE")


class OpensWebSockets(_Opening):
    def opens(self, scope: Scope) -> bool:
        return bool(scope["type"] == "websocket")


class OpensByPath(_Opening):
    def opens(self, scope: Scope) -> bool:
        return "health" in scope["path"]


class SwallowsErrors(ServiceAuthMiddleware):
    """Answers a refusal of ours by running the app all the same."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] == "/health":
            await super().__call__(scope, receive, send)
            return
        refused = False

        async def look(message: Any) -> None:
            nonlocal refused
            refused = refused or message.get("status") == 401

        await super().__call__(scope, receive, look)
        await self.app(scope, receive, send)


def of_two_realms() -> FastAPI:
    """Return an app that lets in whatever a further realm signs."""
    ours = KeycloakSettings(url="https://sso.corp.test", realm="corp", client_id="orders")
    partners = KeycloakSettings(url="https://sso.techstore.test", realm="techstore", client_id="orders")
    who = require_caller("shop")
    app = orders(SwallowsErrors, requires=[Depends(who)], settings=[ours, partners])
    app.dependency_overrides[who] = lambda: None
    return app


def outside_of_the_guarded_app() -> Any:
    inner = FastAPI()
    inner.add_middleware(ServiceAuthMiddleware)
    inner.add_api_route("/orders", runs, dependencies=[Depends(require_caller("shop"))])
    return Starlette(routes=[Mount("/api", inner), Route("/forgotten", page)])


def added_to_the_outer_app_only_by_path() -> Any:
    """Return an app in front of which somebody sends one path past the middleware."""
    app = orders(requires=())

    async def past(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/orders/"):
            inside = next(layer for layer in layers(app.middleware_stack) if isinstance(layer, ServiceAuthMiddleware))
            await inside.app(scope, receive, send)
        else:
            await app(scope, receive, send)

    return Around(past, app)


class Around:
    """A layer around an app that keeps it as ``app``."""

    def __init__(self, call: Callable[..., Any], app: Any) -> None:
        self._call = call
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._call(scope, receive, send)


class Remembers:
    """A cache in front of everything: what one caller was given, everybody is."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self._kept: dict[str, list[Any]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "GET":
            await self.app(scope, receive, send)
            return
        sent = self._kept.get(scope["path"], [])
        if not sent:
            await self.app(scope, receive, _into(sent))
            if sent[0]["status"] == 200:
                self._kept[scope["path"]] = sent
        for message in sent:
            await send(message)


class AnswersForTheRefused:
    """Turns a refusal into an answer of its own."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent: list[Any] = []
        await self.app(scope, receive, _into(sent))
        if sent[0]["status"] == 401:
            await PlainTextResponse("of somebody else")(scope, receive, send)
            return
        for message in sent:
            await send(message)


def _into(sent: list[Any]) -> Send:
    async def keep(message: Any) -> None:
        sent.append(message)

    return keep


def behind(layer: Any) -> FastAPI:
    app = orders()
    app.add_middleware(layer)
    return app


class CatchesRefusals(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()

        async def answer(request: Request) -> Any:
            try:
                return await handler(request)
            except AuthorizationError:
                return JSONResponse("secret")

        return answer


def refusals_are_caught() -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.router.route_class = CatchesRefusals
    app.add_middleware(ServiceAuthMiddleware, audience="orders")
    app.add_api_route("/orders", runs, dependencies=CALLER)
    return app


def refusals_are_handled() -> FastAPI:
    app = orders()
    app.add_exception_handler(AuthorizationError, lambda _request, _error: JSONResponse("secret"))
    return app


class Dispatcher:
    """Two apps, chosen by the path: only the first one is where everybody looks."""

    def __init__(self, app: Any, admin: Any) -> None:
        self.app = app
        self.admin = admin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        chosen = self.admin if scope.get("path", "").startswith("/admin") else self.app
        await chosen(scope, receive, send)


def dispatched() -> Any:
    admin = FastAPI(openapi_url=None)
    admin.add_api_route("/admin/export", runs)
    return Dispatcher(orders(), admin)


class Inverted(ServiceAuthMiddleware):
    """Refuses whom it should accept, on one path, and accepts everybody else there."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "DELETE":
            await super().__call__(scope, receive, send)
        elif b"authorization" in dict(scope["headers"]):
            await PlainTextResponse("", 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class Limit:
    """Answers 429 after some requests."""

    def __init__(self, app: Any, left: int = 40) -> None:
        self.app = app
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._left -= 1
        if scope["type"] == "http" and self._left < 0:
            await PlainTextResponse("slow", 429)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def catches_all() -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, audience="orders", public_paths=["/health"])
    app.add_api_route("/health", runs)
    app.add_api_route("/{rest:path}", runs, dependencies=CALLER)
    return app


def observed() -> FastAPI:
    return orders(insecure_observe_until=str(date.today() + timedelta(days=100)))  # noqa: DTZ011 - a day on either side


def without_audience() -> FastAPI:
    return orders(insecure_skip_audience=True)


HOLES: dict[str, tuple[Callable[[], Any], str, str]] = {
    "delete open": (lambda: orders(OpensDelete, requires=()), "DELETE /orders", "no-token"),
    "websocket open": (lambda: orders(OpensWebSockets, requires=()), "WEBSOCKET /live", "no-token"),
    "path by a part": (
        lambda: orders(OpensByPath, requires=()),
        "GET /orders/{number}",
        "parameter-named-like-a-public-page",
    ),
    "refusal swallowed": (lambda: orders(SwallowsErrors, requires=()), "GET /orders", "audience-other"),
    "route outside": (outside_of_the_guarded_app, "GET /forgotten", "no-token"),
    "past the middleware": (added_to_the_outer_app_only_by_path, "GET /orders/{number}", "no-token"),
    "cache in front": (lambda: behind(Remembers), "GET /orders", "no-token"),
    "refusal answered": (lambda: behind(AnswersForTheRefused), "GET /orders", "no-token"),
    "refusal caught": (refusals_are_caught, "GET /orders", "stranger"),
    "refusal handled": (refusals_are_handled, "GET /orders", "stranger"),
    "condition inverted": (lambda: orders(Inverted, requires=()), "DELETE /orders", "no-token"),
    "observed only": (observed, "GET /orders", "audience-other"),
    "further realm believed": (of_two_realms, "GET /orders", "key-of-a-further-realm-for-our-issuer"),
    "further realm under our kid": (of_two_realms, "GET /orders", "key-of-a-further-realm-under-our-kid"),
    "audience skipped": (without_audience, "GET /orders", "audience-other"),
    "proof not asked": (
        lambda: orders(ProofNotAsked, requires=(), dpop="required", public_url="https://orders.example.com"),
        "GET /orders",
        "proof-missing",
    ),
}
"""What was built, and a route and a case that show its hole."""


def two_services() -> Any:
    """Return two apps, each with a middleware and settings of its own, mounted beside each other."""
    apps = []
    for name in ("crm", "billing"):
        app = FastAPI(openapi_url=None)
        app.add_middleware(ServiceAuthMiddleware, KeycloakSettings(url="http://k:8080", realm="corp", client_id=name))
        app.add_api_route(f"/{name}/{{number}}", runs, dependencies=[Depends(require_caller("shop"))])
        apps.append(Mount(f"/{name}", app))
    return Starlette(routes=apps)


def many_requirements() -> Any:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, audience=["crm", "crm-admin"], users=True)
    for number, requirement in enumerate(
        (
            require_service() & require_scope("orders:read") & require_role("writer", client="crm"),
            require_audience("crm-admin", only=True) & require_caller("shop"),
            require_user("front-end"),
            require_user() | require_caller("shop"),
        )
    ):
        app.add_api_route(f"/{number}", runs, dependencies=[Depends(requirement)])
    return app


def thirty_routes() -> Any:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware)
    router = APIRouter(prefix="/v1")
    for number in range(30):
        router.add_api_route(f"/orders-{number}", runs, dependencies=[Depends(require_caller("shop"))])
    app.include_router(router)
    return app


def plain_starlette() -> Any:
    async def answer(request: Request) -> JSONResponse:
        raise AssertionError("code of the app ran")

    app = Starlette(routes=[Route("/orders", require_caller("shop").guard(answer), methods=["GET", "POST"])])
    app.add_middleware(ServiceAuthMiddleware)
    return app


def optional_credentials() -> Any:
    return importlib.import_module("tests.receiver.layouts.apps.optional_credentials").app


PUBLIC_URL = "https://orders.example.com/api"


def bound(mode: str) -> Callable[[], Any]:
    return lambda: orders(dpop=mode, public_url=[PUBLIC_URL, "https://orders.internal.example"])


def bound_on_one_route() -> FastAPI:
    app = orders(dpop="accepted", public_url=PUBLIC_URL)
    both = [Depends(require_bound() & require_caller("shop"))]
    app.add_api_route("/payouts/{number}", runs, methods=["POST"], dependencies=both)
    return app


def bound_and_mounted() -> Any:
    outer = FastAPI(openapi_url=None)
    outer.mount("/v1", orders(dpop="required", public_url=f"{PUBLIC_URL}/v1"))
    return outer


class ProofNotAsked(ServiceAuthMiddleware):
    """Lets in who sends the scheme DPoP, with whatever behind it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if dict(scope.get("headers", ())).get(b"authorization", b"").startswith(b"DPoP ey"):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


RIGHT: dict[str, Callable[[], Any]] = {
    "bound tokens accepted": bound("accepted"),
    "bound tokens required": bound("required"),
    "bound on one route": bound_on_one_route,
    "bound and mounted": bound_and_mounted,
    "orders": orders,
    "two services": two_services,
    "many requirements": many_requirements,
    "plain Starlette": plain_starlette,
    "catches all": catches_all,
    "optional credentials": optional_credentials,
}


class RefusesEverybody(ServiceAuthMiddleware):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            scope["headers"] = [(b"authorization", b"Bearer x")]
        await super().__call__(scope, receive, send)


def refuses_everybody() -> FastAPI:
    return orders(RefusesEverybody)


class WrongReason(ServiceAuthMiddleware):
    """Refuses a token for another service as if it were no token at all."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        parts = headers.get(b"authorization", b"").decode("latin-1").split(".")
        if len(parts) == 3 and json.loads(urlsafe_b64decode(f"{parts[1]}===")).get("aud") != "orders":
            scope["headers"] = [(b"authorization", b"Bearer x")]
        await super().__call__(scope, receive, send)


def wrong_reason() -> FastAPI:
    return orders(WrongReason)


class LosesStrangeTokens:
    """Answers 404 to a token for another service: it does not know the page."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = dict(scope.get("headers", ())).get(b"authorization", b"").decode("latin-1").split(".")
        if len(token) == 3 and json.loads(urlsafe_b64decode(f"{token[1]}===")).get("aud") != "orders":
            await PlainTextResponse("lost", 404)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def observed_and_lost() -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_middleware(LosesStrangeTokens)
    until = str(date.today() + timedelta(days=100))  # noqa: DTZ011 - a day on either side
    app.add_middleware(ServiceAuthMiddleware, audience="orders", insecure_observe_until=until)
    app.add_api_route("/orders", runs)
    return app
