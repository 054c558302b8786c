"""Views as classes: bound methods, a decorator that makes ``self`` a dependency, a base class that registers its methods."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, TypeVar

from fastapi import APIRouter, Depends, FastAPI
from fastapi.params import Depends as DependsParam

from s2s_fastapi import Principal, ServiceAuthMiddleware, require_caller, require_service
from s2s_fastapi.requirement.requirement import Requirement
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST

C = TypeVar("C", bound=type)
CHAT = require_caller("chat-app-service")


class TicketView:
    """Plain: an instance whose bound methods are the endpoints."""

    def __init__(self, store: dict[str, str]) -> None:
        self.store = store

    async def show(self, caller: Annotated[Principal, Depends(CHAT)]) -> dict[str, str]:
        return {**self.store, "by": caller.client_id}

    def owner(self, caller: Annotated[Principal, Depends(CHAT)]) -> str:
        return caller.client_id

    @staticmethod
    async def static(caller: Annotated[Principal, Depends(require_caller("chat-app-service"))]) -> str:
        return caller.client_id

    @classmethod
    def of_class(cls, caller: Annotated[Principal, Depends(CHAT)]) -> str:
        return cls.__name__

    def __call__(self, owner: "Annotated[str, Depends(TicketView.named)]") -> str:
        return owner

    @classmethod
    def named(cls, caller: Annotated[Principal, Depends(CHAT)]) -> str:
        return caller.client_id


def cbv(router: APIRouter) -> Callable[[C], C]:
    """Make the annotated attributes of a class dependencies of each of its routes, as well-known packages do."""

    def decorate(cls: C) -> C:
        fields = {
            name: getattr(cls, name)
            for name in inspect.get_annotations(cls)
            if isinstance(getattr(cls, name, None), DependsParam)
        }

        def __init__(self: Any, **given: Any) -> None:  # noqa: N807 - it becomes the class's own
            vars(self).update(given)

        __init__.__signature__ = inspect.Signature(
            [
                inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY),
                *(
                    inspect.Parameter(
                        name,
                        inspect.Parameter.KEYWORD_ONLY,
                        default=value,
                        annotation=inspect.get_annotations(cls)[name],
                    )
                    for name, value in fields.items()
                ),
            ]
        )
        cls.__init__ = __init__
        for route in router.routes:
            endpoint = route.endpoint
            signature = inspect.signature(endpoint)
            first, *rest = signature.parameters.values()
            endpoint.__signature__ = signature.replace(
                parameters=[
                    first.replace(default=Depends(cls), kind=inspect.Parameter.KEYWORD_ONLY),
                    *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in rest),
                ]
            )
        again, router.routes[:] = [*router.routes], []
        for route in again:
            path = route.path.removeprefix(router.prefix)
            router.add_api_route(path, route.endpoint, methods=[*route.methods])
        return cls

    return decorate


by_decorator = APIRouter(prefix="/decorated")


@cbv(by_decorator)
class Decorated:
    caller: Principal = Depends(CHAT)

    @by_decorator.get("/one")
    def one(self) -> str:
        return self.caller.client_id

    @by_decorator.post("/two")
    def two(self, more: int = 0) -> str:
        return f"{self.caller.client_id} {more}"


class Resource:
    """A base class: each subclass says what its methods require, and registers them."""

    path: ClassVar[str]
    requirement: ClassVar[Requirement] = require_service()

    def __init__(self, app: FastAPI) -> None:
        for method in ("get", "post"):
            if hasattr(self, method):
                app.add_api_route(
                    self.path, getattr(self, method), methods=[method], dependencies=[Depends(self.requirement)]
                )


class Invoices(Resource):
    path = "/invoices"
    requirement = CHAT

    async def get(self) -> list[str]:
        return []

    async def post(self, number: int = 1) -> int:
        return number


class Rates(Resource):
    path = "/rates"

    def get(self) -> list[float]:
        return []


app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, **TRUST)
view = TicketView({"1": "broken"})
app.add_api_route("/tickets", view.show)
app.add_api_route("/owner", view.owner)
app.add_api_route("/static", TicketView.static)
app.add_api_route("/of-class", TicketView.of_class)
app.add_api_route("/called", view)
app.include_router(by_decorator)
Invoices(app)
Rates(app)

ANSWERS = [
    ("GET /tickets", FOR_CHAT),
    ("GET /owner", FOR_CHAT),
    ("GET /static", FOR_CHAT),
    ("GET /of-class", FOR_CHAT),
    ("GET /called", FOR_CHAT),
    ("GET /decorated/one", FOR_CHAT),
    ("POST /decorated/two", FOR_CHAT),
    ("GET /invoices", FOR_CHAT),
    ("POST /invoices", FOR_CHAT),
    ("GET /rates", FOR_SERVICES),
]
