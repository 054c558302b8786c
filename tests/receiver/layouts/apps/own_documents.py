"""OpenAPI of the app's own making, webhooks and callbacks with dependencies, documentation pages that are for services only."""

from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.security import APIKeyHeader, OAuth2PasswordBearer
from starlette.responses import HTMLResponse

from s2s_fastapi import ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST, Ask

CHAT = require_caller("chat-app-service")
key = APIKeyHeader(name="X-Key")
callbacks = APIRouter()


@callbacks.post("{$request.body.url}")
def called_back(body: dict[str, Any]) -> None: ...


app = FastAPI(docs_url=None, redoc_url=None, openapi_url="/schema.json", swagger_ui_oauth2_redirect_url=None)
app.add_middleware(ServiceAuthMiddleware, **TRUST)


@app.webhooks.post("ticket-closed", dependencies=[Depends(CHAT)])
def ticket_closed(body: dict[str, Any]) -> None: ...


@app.get("/docs", include_in_schema=False, dependencies=[Depends(CHAT)])
def docs() -> HTMLResponse:
    return get_swagger_ui_html(openapi_url="/schema.json", title="docs")


@app.post(
    "/subscribe",
    callbacks=callbacks.routes,
    dependencies=[Depends(CHAT)],
    openapi_extra={"x-policy": {"who": repr(CHAT)}},
    responses={403: {"description": "not you"}},
)
def subscribe() -> str:
    return "subscribed"


@app.get("/key", dependencies=[Depends(key), Depends(CHAT), Depends(OAuth2PasswordBearer("token", auto_error=False))])
def with_a_key() -> str:
    return "key"


def custom() -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = get_openapi(title="own", version="1", routes=app.routes, webhooks=app.webhooks.routes)
        app.openapi_schema["info"]["x-logo"] = {"url": "/logo.png"}
    return app.openapi_schema


app.openapi = custom

ANSWERS = [
    ("GET /schema.json", FOR_SERVICES),
    ("GET /docs", FOR_CHAT),
    ("POST /subscribe", FOR_CHAT),
    (Ask("GET /key", {"headers": {"X-Key": "k"}}), FOR_CHAT),
]
