"""GraphQL with Strawberry: a router with a requirement around it, and a context that takes the caller."""

from typing import Annotated, Any

import strawberry
from fastapi import Depends, FastAPI
from strawberry.fastapi import BaseContext, GraphQLRouter

from s2s_fastapi import CurrentPrincipal, Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST, Ask

CHAT = require_caller("chat-app-service")


class Context(BaseContext):
    def __init__(self, caller: Principal) -> None:
        super().__init__()
        self.caller = caller


def context(caller: CurrentPrincipal) -> Context:
    return Context(caller)


async def for_chat(caller: Annotated[Principal, Depends(CHAT)]) -> dict[str, Any]:
    return {"caller": caller}


@strawberry.type
class Query:
    @strawberry.field
    def caller(self, info: strawberry.Info) -> str:
        context = info.context
        return (context["caller"] if isinstance(context, dict) else context.caller).client_id


schema = strawberry.Schema(Query)
app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, **TRUST)
app.include_router(GraphQLRouter(schema, context_getter=context), prefix="/open")
app.include_router(GraphQLRouter(schema, context_getter=for_chat), prefix="/by-context")
app.include_router(GraphQLRouter(schema, context_getter=context), prefix="/by-router", dependencies=[Depends(CHAT)])

QUERY = {"json": {"query": "{ caller }"}}
ANSWERS = [
    (Ask("POST /open", QUERY), FOR_SERVICES),
    (Ask("POST /by-context", QUERY), FOR_CHAT),
    (Ask("POST /by-router", QUERY), FOR_CHAT),
    ("GET /by-router?query={caller}", FOR_CHAT),
]
