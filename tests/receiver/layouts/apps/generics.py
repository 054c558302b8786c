"""A generic CRUD router: one class makes the routes of every model, with a requirement for reading and one for writing."""

from typing import Annotated, Any, Generic, Protocol, TypeVar

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from pydantic import BaseModel

from s2s_fastapi import Principal, ServiceAuthMiddleware, require_caller, require_scope, require_service
from s2s_fastapi.requirement.requirement import Requirement
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST, Ask


class Model(BaseModel):
    id: int = 1


class Ticket(Model):
    subject: str = "broken"


class Invoice(Model):
    amount: int = 0


M = TypeVar("M", bound=Model)


class Repository(Protocol[M]):
    def all(self) -> list[M]: ...


class InMemory(Generic[M]):
    def __init__(self) -> None:
        self._kept: dict[int, M] = {}

    def all(self) -> list[M]:
        return [*self._kept.values()]

    def put(self, item: M) -> M:
        self._kept[item.id] = item
        return item


class Page(BaseModel, Generic[M]):
    items: list[M]
    by: str


class Crud(APIRouter, Generic[M]):
    def __init__(self, model: type[M], *, read: Requirement, write: Requirement, **options: Any) -> None:
        super().__init__(prefix=f"/{model.__name__.lower()}s", **options)
        repository = InMemory[M]()

        @self.get("", response_model=Page[model])
        def list_all(
            caller: Annotated[Principal, Depends(read)], source: Annotated[InMemory[M], Depends(lambda: repository)]
        ) -> Page[M]:
            return Page[M](items=source.all(), by=caller.client_id)

        @self.put("/{number}", response_model=model, dependencies=[Depends(write)])
        def put(number: int, item: model) -> M:
            if number != item.id:
                raise HTTPException(409)
            return repository.put(item)


app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, **TRUST)
CHAT = require_caller("chat-app-service")
app.include_router(Crud(Ticket, read=require_service(), write=CHAT & require_scope("tickets:write")))
app.include_router(Crud[Invoice](Invoice, read=CHAT, write=CHAT))

ANSWERS = [
    ("GET /tickets", FOR_SERVICES),
    (Ask("PUT /tickets/1", {"json": {"id": 1}}), FOR_CHAT),
    ("GET /invoices", FOR_CHAT),
    (Ask("PUT /invoices/1", {"json": {"amount": 2}}), FOR_CHAT),
]
