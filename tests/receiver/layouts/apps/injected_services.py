"""Layers by hand: a container of factories, use cases, units of work, a current caller in a context variable, and overrides."""

from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Request

from s2s_fastapi import CurrentPrincipal, Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST

T = TypeVar("T")
Chat = Annotated[Principal, Depends(require_caller("chat-app-service"))]
current: ContextVar[Principal | None] = ContextVar("current", default=None)


@dataclass(frozen=True)
class Config:
    limit: int = 1


@lru_cache
def get_config() -> Config:
    return Config()


@dataclass
class UnitOfWork:
    caller: Principal
    limit: int


async def unit_of_work(caller: Chat, config: Annotated[Config, Depends(get_config)]) -> AsyncIterator[UnitOfWork]:
    token = current.set(caller)
    try:
        yield UnitOfWork(caller, config.limit)
    finally:
        current.reset(token)


class OpenTicket:
    def __init__(self, work: Annotated[UnitOfWork, Depends(unit_of_work)]) -> None:
        self.work = work

    def __call__(self) -> str:
        return f"{self.work.caller.client_id} {self.work.limit}"


class Container:
    """Factories by type, kept in the app's state; `provided` makes a dependency of one."""

    def __init__(self) -> None:
        self.factories: dict[type, Callable[[], Any]] = {Config: get_config, dict: lambda: {"a": 1}}


def provided(kind: type[T]) -> Any:
    def of_request(request: Request, caller: CurrentPrincipal) -> T:
        made: T = request.app.state.container.factories[kind]()
        return made

    return Depends(of_request)


app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, **TRUST)
app.state.container = Container()
app.dependency_overrides[get_config] = lambda: Config(limit=2)


@app.post("/tickets")
def open_ticket(use_case: Annotated[OpenTicket, Depends()]) -> str:
    return use_case()


@app.get("/current")
async def show_current(work: Annotated[UnitOfWork, Depends(unit_of_work)]) -> bool:
    return current.get() is work.caller


@app.get("/config")
def config(config: Annotated[Config, provided(Config)], more: Annotated[Any, provided(dict)]) -> int:
    return config.limit


ANSWERS = [("POST /tickets", FOR_CHAT), ("GET /current", FOR_CHAT), ("GET /config", FOR_SERVICES)]
