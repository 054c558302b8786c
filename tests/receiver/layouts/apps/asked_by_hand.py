"""Requirements that the app's own dependencies ask: awaited, in a comprehension, in a loop, in a class, behind a decorator."""

import functools
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from starlette.requests import HTTPConnection

from s2s_fastapi import CurrentPrincipal, Principal, ServiceAuthMiddleware, require_caller, require_service
from s2s_fastapi.requirement.requirement import Requirement
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST

CHAT = require_caller("chat-app-service")
RULES = [require_service(), CHAT]
ASKED_BY_HAND = True


async def awaited(request: Request) -> Principal:
    return await CHAT(request)


async def unless_read(request: Request) -> Principal | None:
    return None if request.method == "GET" else await CHAT(request)


def in_a_comprehension(caller: CurrentPrincipal) -> list[Principal]:
    return [rule.check(caller) for rule in RULES]


def in_a_generator(caller: CurrentPrincipal) -> bool:
    return all(rule.check(caller) for rule in RULES)


def in_a_loop(caller: CurrentPrincipal) -> None:
    for rule in RULES:
        rule.check(caller)


def by_map(caller: CurrentPrincipal) -> None:
    list(map(functools.partial(ask, caller), RULES))


def ask(caller: Principal, rule: Requirement) -> None:
    rule.check(caller)


class Policy:
    def __init__(self, *rules: Requirement) -> None:
        self._ask = [rule.check for rule in rules]

    def __call__(self, caller: CurrentPrincipal) -> None:
        for asked in self._ask:
            asked(caller)


def asking(rule: Requirement) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]:
    """Decorate an endpoint that takes the connection: the rule is asked before it runs."""

    def decorate(endpoint: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(endpoint)
        async def wrapper(*args: Any, connection: HTTPConnection, **kwargs: Any) -> Any:
            await rule(connection)
            return await endpoint(*args, connection=connection, **kwargs)

        return wrapper

    return decorate


def own_words(caller: CurrentPrincipal) -> None:
    if caller.client_id != "chat-app-service":
        raise HTTPException(403, headers={"X-Own": "1"})


app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, **TRUST)
DEPENDENCIES: dict[str, Any] = {
    "awaited": awaited,
    "comprehension": in_a_comprehension,
    "generator": in_a_generator,
    "loop": in_a_loop,
    "map": by_map,
    "policy": Policy(*RULES),
    "own": own_words,
}
for name, dependency in DEPENDENCIES.items():
    app.get(f"/{name}", dependencies=[Depends(dependency)])(lambda: "in")


@app.api_route("/conditional", methods=["GET", "POST"])
def conditional(caller: Annotated[Principal | None, Depends(unless_read)]) -> bool:
    return caller is not None


@app.get("/decorated")
@asking(CHAT)
async def decorated(connection: HTTPConnection) -> str:
    return "in"


@app.get("/endpoint")
async def in_the_endpoint(request: Request, caller: CurrentPrincipal) -> str:
    return CHAT.check(caller).client_id


ANSWERS = [
    *((f"GET /{name}", FOR_CHAT) for name in DEPENDENCIES),
    ("GET /conditional", FOR_SERVICES),
    ("POST /conditional", FOR_CHAT),
    ("GET /decorated", FOR_CHAT),
    ("GET /endpoint", FOR_CHAT),
]
