"""Names for annotations: an alias, a generic alias, a ``TypeAliasType``, and an alias with metadata that FastAPI does not read."""

from typing import Annotated, TypeAlias, TypeVar

from fastapi import Depends, FastAPI, Header, Path
from typing_extensions import Doc, TypeAliasType

from s2s_fastapi import Principal, ServiceAuthMiddleware, require_caller, require_scope
from tests.receiver.layouts.layout import FOR_CHAT, TRUST

T = TypeVar("T")
Chat: TypeAlias = Annotated[Principal, Depends(require_caller("chat-app-service"))]
Writer = TypeAliasType("Writer", Annotated[Principal, Depends(require_scope("tickets:write"))])
Documented = Annotated[Principal, Doc("who calls"), Depends(require_caller("chat-app-service")), "for people"]
Number = Annotated[int, Path(gt=0)]
Optionally = Annotated[T | None, Header()]
AnyNumber = TypeAliasType("AnyNumber", int | float)

app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, **TRUST)


@app.get("/alias/{number}")
def alias(caller: Chat, number: Number, x_trace: Optionally[str] = None) -> str:
    return caller.client_id


@app.get("/type-alias")
def type_alias(caller: Writer, least: AnyNumber = 0) -> str:
    return caller.client_id


@app.get("/documented")
def documented(caller: Documented, other: Chat) -> bool:
    return caller is other


@app.get("/default")
def default(caller: Principal = Depends(require_caller("chat-app-service") & require_scope("tickets:read"))) -> str:
    return caller.client_id


ANSWERS = [
    ("GET /alias/1", FOR_CHAT),
    ("GET /type-alias", FOR_CHAT),
    ("GET /documented", FOR_CHAT),
    ("GET /default", FOR_CHAT),
]
