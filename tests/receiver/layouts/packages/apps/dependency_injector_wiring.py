"""Dependency Injector: ``@inject`` around endpoints whose defaults are providers."""

from typing import Annotated

from dependency_injector import containers, providers
from dependency_injector.wiring import Provide, inject
from fastapi import Depends, FastAPI

from s2s_fastapi import CurrentPrincipal, Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST

CHAT = require_caller("chat-app-service")


class Greeter:
    def __init__(self, word: str) -> None:
        self.word = word

    def greet(self, caller: Principal) -> str:
        return f"{self.word} {caller.client_id}"


class Container(containers.DeclarativeContainer):
    greeter = providers.Factory(Greeter, word="hello")


app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, **TRUST)


@inject
def greeting(
    caller: Annotated[Principal, Depends(CHAT)], greeter: Annotated[Greeter, Depends(Provide[Container.greeter])]
) -> str:
    return greeter.greet(caller)


@app.get("/chat")
@inject
async def chat(
    caller: Annotated[Principal, Depends(CHAT)], greeter: Annotated[Greeter, Depends(Provide[Container.greeter])]
) -> str:
    return greeter.greet(caller)


@app.get("/below")
def below(text: Annotated[str, Depends(greeting)]) -> str:
    return text


@app.get("/services")
@inject
def services(caller: CurrentPrincipal, greeter: Greeter = Depends(Provide[Container.greeter])) -> str:
    return greeter.greet(caller)


container = Container()
container.wire(modules=[__name__])

ANSWERS = [("GET /chat", FOR_CHAT), ("GET /below", FOR_CHAT), ("GET /services", FOR_SERVICES)]
