"""An app factory that keeps its requirement, its aliases and its routes in local names."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI

from s2s_fastapi import DOCS, Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_ALL, FOR_CHAT, TRUST


def users_router(*allowed: str) -> APIRouter:
    caller_of_router = require_caller(*allowed)
    caller_type = Annotated[Principal, Depends(caller_of_router)]
    router = APIRouter(prefix="/users")

    @router.get("/")
    async def list_users(caller: caller_type) -> list[str]:
        return [caller.client_id]

    return router


def create_app(*, title: str, plugins: tuple[Callable[[FastAPI], None], ...] = ()) -> FastAPI:
    app = FastAPI(title=title)
    app.add_middleware(ServiceAuthMiddleware, public_paths=DOCS, **TRUST)
    app.include_router(users_router("chat-app-service", "shop-api"))
    for plugin in plugins:
        plugin(app)
    return app


def add_version(app: FastAPI) -> None:
    @app.get("/version", dependencies=[Depends(require_caller("chat-app-service"))])
    def version() -> str:
        return app.title


app = create_app(title="made", plugins=(add_version,))

ANSWERS = [
    ("GET /users/", FOR_CHAT),
    ("GET /version", FOR_CHAT),
    ("GET /openapi.json", FOR_ALL),
    ("GET /docs", FOR_ALL),
]
