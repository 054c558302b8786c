"""Class-based views of fastapi-utils: the requirement is an attribute of the class, or a parameter of a method."""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI
from fastapi_utils import Api, Resource
from fastapi_utils.cbv import cbv

from s2s_fastapi import Principal, ServiceAuthMiddleware, require_caller, require_scope
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST

CHAT = require_caller("chat-app-service")
guarded, open_ = APIRouter(), APIRouter()


@cbv(guarded)
class Guarded:
    caller: Principal = Depends(CHAT)

    @guarded.get("/one")
    def one(self) -> str:
        return self.caller.client_id

    @guarded.post("/two", dependencies=[Depends(require_scope("tickets:write"))])
    def two(self) -> str:
        return self.caller.client_id


@cbv(open_)
class Open:
    @open_.get("/by-method")
    def by_method(self, caller: Annotated[Principal, Depends(CHAT)]) -> str:
        return caller.client_id

    @open_.get("/open")
    def open(self) -> str:
        return "open"


class Tickets(Resource):
    def get(self, caller: Annotated[Principal, Depends(CHAT)]) -> str:
        return caller.client_id


app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, **TRUST)
app.include_router(guarded)
app.include_router(open_)

Api(app).add_resource(Tickets(), "/tickets")

ANSWERS = [
    ("GET /tickets", FOR_CHAT),
    ("GET /one", FOR_CHAT),
    ("POST /two", FOR_CHAT),
    ("GET /by-method", FOR_CHAT),
    ("GET /open", FOR_SERVICES),
]
