"""Pages of sqladmin below their own mount, behind the middleware of the app around them."""

from typing import Annotated

from fastapi import Depends, FastAPI
from sqladmin import Admin, ModelView
from sqlalchemy.pool import StaticPool
from sqlmodel import Field, Session, SQLModel, create_engine, select

from s2s_fastapi import Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST


class Customer(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = ""


class CustomerAdmin(ModelView, model=Customer):
    column_list = [Customer.name]  # noqa: RUF012 - as its documentation says


engine = create_engine("sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool)
SQLModel.metadata.create_all(engine)


def session():
    with Session(engine) as opened:
        yield opened


app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, **TRUST)


@app.get("/customers")
def customers(
    caller: Annotated[Principal, Depends(require_caller("chat-app-service"))],
    session: Annotated[Session, Depends(session)],
) -> list[Customer]:
    return [*session.exec(select(Customer))]


@app.post("/customers", dependencies=[Depends(require_caller("chat-app-service"))])
def add(customer: Customer, session: Annotated[Session, Depends(session)]) -> Customer:
    session.add(customer)
    session.commit()
    session.refresh(customer)
    return customer


Admin(app, engine).add_view(CustomerAdmin)

ANSWERS = [
    ("GET /customers", FOR_CHAT),
    ("GET /admin/", FOR_SERVICES),
    ("GET /admin/customer/list", FOR_SERVICES),
]
