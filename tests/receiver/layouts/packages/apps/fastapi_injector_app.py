"""fastapi-injector and svcs: services that are found in the request's scope."""

from typing import Annotated

import svcs
from fastapi import Depends, FastAPI
from fastapi_injector import Injected, InjectorMiddleware, RequestScopeOptions, attach_injector
from injector import Injector

from s2s_fastapi import CurrentPrincipal, Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST

CHAT = require_caller("chat-app-service")


class Greeter:
    def greet(self, caller: Principal) -> str:
        return f"hello {caller.client_id}"


@svcs.fastapi.lifespan
async def lifespan(app: FastAPI, registry: svcs.Registry):
    registry.register_factory(Greeter, Greeter)
    yield


injector = Injector()
app = FastAPI(lifespan=lifespan)
app.add_middleware(InjectorMiddleware, injector=injector)
app.add_middleware(ServiceAuthMiddleware, **TRUST)
attach_injector(app, injector, RequestScopeOptions(enable_cleanup=True))


@app.get("/injected")
def injected(caller: Annotated[Principal, Depends(CHAT)], greeter: Greeter = Injected(Greeter)) -> str:
    return greeter.greet(caller)


@app.get("/svcs", dependencies=[Depends(CHAT)])
async def from_svcs(services: svcs.fastapi.DepContainer, caller: CurrentPrincipal) -> str:
    return (await services.aget(Greeter)).greet(caller)


@app.get("/services")
def services(caller: CurrentPrincipal, greeter: Greeter = Injected(Greeter)) -> str:
    return greeter.greet(caller)


ANSWERS = [("GET /injected", FOR_CHAT), ("GET /svcs", FOR_CHAT), ("GET /services", FOR_SERVICES)]
