"""Sessions, a context for each request and correlation ids: middleware of other packages on both sides of ours."""

from typing import Annotated

from asgi_correlation_id import CorrelationIdMiddleware, correlation_id
from fastapi import Depends, FastAPI, Form, Request, UploadFile
from starlette.middleware.sessions import SessionMiddleware
from starlette_context import context, plugins
from starlette_context.middleware import RawContextMiddleware

from s2s_fastapi import Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, TRUST, Ask

Chat = Annotated[Principal, Depends(require_caller("chat-app-service"))]

app = FastAPI()
app.add_middleware(RawContextMiddleware, plugins=(plugins.RequestIdPlugin(), plugins.UserAgentPlugin()))
app.add_middleware(SessionMiddleware, secret_key="only for tests")
app.add_middleware(ServiceAuthMiddleware, **TRUST)
app.add_middleware(CorrelationIdMiddleware)


@app.get("/context")
def show(caller: Chat, request: Request) -> dict[str, str | None]:
    request.session["caller"] = caller.client_id
    return {"request": context["X-Request-ID"], "correlation": correlation_id.get()}


@app.post("/upload")
async def upload(caller: Chat, file: UploadFile, name: Annotated[str, Form()] = "file") -> int:
    return len(await file.read()) + len(name)


ANSWERS = [("GET /context", FOR_CHAT), (Ask("POST /upload", {"files": {"file": b"12345"}}), FOR_CHAT)]
