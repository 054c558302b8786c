"""Limits of SlowAPI: a decorator around the endpoints, a middleware, and a key that is the caller."""

from typing import Annotated

from fastapi import Depends, FastAPI, Request
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from slowapi.middleware import SlowAPIASGIMiddleware

from s2s_fastapi import Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST


def caller_of(request: Request) -> str:
    return str(request.user.client_id)


limiter = Limiter(key_func=caller_of, default_limits=["1000/minute"])
app = FastAPI()
app.state.limiter = limiter
app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)
app.add_middleware(SlowAPIASGIMiddleware)
app.add_middleware(ServiceAuthMiddleware, **TRUST)


@app.get("/chat")
@limiter.limit("1000/minute")
async def chat(request: Request, caller: Annotated[Principal, Depends(require_caller("chat-app-service"))]) -> str:
    return caller.client_id


@app.get("/threads")
@limiter.shared_limit("1000/minute", scope="threads")
def threads(request: Request, caller: Annotated[Principal, Depends(require_caller("chat-app-service"))]) -> str:
    return caller.client_id


@app.get("/services")
@limiter.exempt
def services(request: Request) -> str:
    return "services"


ANSWERS = [("GET /chat", FOR_CHAT), ("GET /threads", FOR_CHAT), ("GET /services", FOR_SERVICES)]
