"""Dependencies that name a requirement, a factory or one of our types and ask nothing, on routes that are guarded elsewhere."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request

from s2s_fastapi import (
    CurrentPrincipal,
    Principal,
    ServiceAuthMiddleware,
    require_caller,
    require_service,
    require_user,
)
from s2s_fastapi.requirement.requirement import Requirement
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST

CHAT = require_caller("chat-app-service")
ASKED_BY_HAND = True


def told() -> dict[str, str]:
    return {"policy": repr(CHAT)}


def factory_name() -> str:
    return require_user.__name__


def is_ours(caller: CurrentPrincipal) -> bool:
    return isinstance(CHAT, Requirement) and not isinstance(caller, Requirement)


def number_of_rules(
    rules: Annotated[tuple[str, ...], Depends(lambda: tuple(map(repr, (CHAT, require_service()))))],
) -> int:
    return len(rules)


def documented(request: Request) -> Any:
    """Say who may call: ``require_caller("chat-app-service")``."""
    return request.app.openapi()["paths"]


router = APIRouter(dependencies=[Depends(CHAT)])


@router.get("/told")
def show_told(policy: Annotated[dict[str, str], Depends(told)]) -> dict[str, str]:
    return policy


@router.get("/name")
def show_name(name: Annotated[str, Depends(factory_name)], ours: Annotated[bool, Depends(is_ours)]) -> str:
    return f"{name} {ours}"


@router.get("/number")
def show_number(number: Annotated[int, Depends(number_of_rules)]) -> int:
    return number


@router.get("/paths")
def show_paths(paths: Annotated[Any, Depends(documented)]) -> list[str]:
    return list(paths)


app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, **TRUST)
app.include_router(router)


@app.get("/anybody")
def anybody(caller: CurrentPrincipal) -> dict[str, bool]:
    """Tell a caller what it may do: the requirement is judged, and not enforced, because the author wants to know."""
    return {"may_write": CHAT.judge(caller).reason == "allowed"}


@app.get("/kind")
def kind(caller: CurrentPrincipal) -> bool:
    return isinstance(caller, Principal)


ANSWERS = [
    *((f"GET /{name}", FOR_CHAT) for name in ("told", "name", "number", "paths")),
    ("GET /anybody", FOR_SERVICES),
    ("GET /kind", FOR_SERVICES),
]
