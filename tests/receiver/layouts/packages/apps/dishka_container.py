"""Dishka: a route class that injects into every endpoint of a router."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from dishka import Provider, Scope, make_async_container, provide
from dishka.integrations.fastapi import DishkaRoute, FastapiProvider, FromDishka, inject, setup_dishka
from fastapi import APIRouter, Depends, FastAPI, Request

from s2s_fastapi import Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST

CHAT = require_caller("chat-app-service")


class Greeter:
    def __init__(self, path: str) -> None:
        self.path = path


class Services(Provider):
    @provide(scope=Scope.REQUEST)
    def greeter(self, request: Request) -> Greeter:
        return Greeter(f"{request.url.path} {request.user.client_id}")


container = make_async_container(Services(), FastapiProvider())


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await container.close()


router = APIRouter(route_class=DishkaRoute)
app = FastAPI(lifespan=lifespan)
app.add_middleware(ServiceAuthMiddleware, **TRUST)


@router.get("/routed")
async def routed(caller: Annotated[Principal, Depends(CHAT)], greeter: FromDishka[Greeter]) -> str:
    return f"{greeter.path} {caller.client_id}"


@app.get("/injected", dependencies=[Depends(CHAT)])
@inject
async def injected(greeter: FromDishka[Greeter]) -> str:
    return greeter.path


@router.get("/services")
async def services(greeter: FromDishka[Greeter]) -> str:
    return greeter.path


app.include_router(router)
setup_dishka(container, app)

ANSWERS = [("GET /routed", FOR_CHAT), ("GET /injected", FOR_CHAT), ("GET /services", FOR_SERVICES)]
