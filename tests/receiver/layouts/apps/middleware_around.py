"""Other middleware outside and inside of ours, one that catches errors, handlers of the app's own, and CORS outside."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from s2s_fastapi import CurrentPrincipal, Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_ALL, FOR_CHAT, FOR_SERVICES, TRUST, Ask


class AddsHeader(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers["X-Seen"] = "1"
        return response


class Pure:
    def __init__(self, app: Any, *, name: str) -> None:
        self.app, self.name = app, name

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("state", {})["through"] = self.name
        await self.app(scope, receive, send)


app = FastAPI(
    middleware=[
        Middleware(TrustedHostMiddleware, allowed_hosts=["testserver"]),
        Middleware(CORSMiddleware, allow_origins=["https://front.test"], allow_methods=["*"]),
        Middleware(GZipMiddleware, minimum_size=1),
        Middleware(AddsHeader),
        Middleware(ServiceAuthMiddleware, **TRUST),
        Middleware(Pure, name="pure"),
        Middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request)),
    ]
)


@app.exception_handler(HTTPException)
async def in_own_form(request: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"error": {"text": error.detail}}, error.status_code)


@app.middleware("http")
async def outermost(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    return await call_next(request)


@app.get("/chat")
def chat(request: Request, caller: Annotated[Principal, Depends(require_caller("chat-app-service"))]) -> str:
    return f"{request.state.through} {request.user is caller}" * 9


@app.post("/chat/{number}")
def post(number: int, caller: Annotated[Principal, Depends(require_caller("chat-app-service"))]) -> int:
    return number


@app.get("/services")
def services(caller: CurrentPrincipal) -> str:
    return caller.client_id


PREFLIGHT = {"headers": {"Origin": "https://front.test", "Access-Control-Request-Method": "GET"}}
ANSWERS = [
    ("GET /chat", FOR_CHAT),
    ("POST /chat/3", FOR_CHAT),
    ("GET /services", FOR_SERVICES),
    (Ask("OPTIONS /chat", PREFLIGHT), FOR_ALL),
]
