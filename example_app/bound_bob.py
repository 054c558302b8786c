"""Story 5, a receiver that keeps what it gets: two workers that share what proofs they have seen, and a copy of the last credentials."""

import os
from typing import Annotated, Final

from fastapi import Depends, FastAPI, Request
from starlette.types import Receive, Scope, Send

from s2s_fastapi import InProcessReplayStore, Principal, ServiceAuthMiddleware, require_service

PUBLIC_URL = os.environ.get("BOB_URL", "http://localhost:8005")

_kept: dict[str, str] = {}


def worker(store: InProcessReplayStore) -> FastAPI:
    """Return Bob's app, as each worker runs it."""
    app = FastAPI(title="Bob")
    # Alice's tokens are bound, Dora's are not yet: both may call.
    app.add_middleware(
        ServiceAuthMiddleware,
        dpop="accepted",
        public_url=PUBLIC_URL,
        replay_store=store,
        public_paths=["/healthz", "/kept"],
    )

    @app.get("/healthz")
    async def healthz() -> str:
        """Answer whoever asks."""
        return "ok"

    @app.post("/letters")
    async def receive(request: Request, caller: Annotated[Principal, Depends(require_service())]) -> dict[str, str]:
        """Take a letter, and do what no honest service does: keep a copy of the credentials."""
        _kept.clear()
        _kept.update({name: request.headers[name] for name in ("authorization", "dpop") if name in request.headers})
        return {"for": "bob", "from": caller.client_id, "binding": caller.binding}

    @app.get("/kept")
    async def kept() -> dict[str, str]:
        """Hand the copy to whoever asks: from here on the credentials are stolen."""
        return _kept

    return app


# Two workers of one machine. Workers that are processes of their own, or on other machines, share a RedisReplayStore.
_STORE: Final = InProcessReplayStore()
_WORKERS: Final = (worker(_STORE), worker(_STORE))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Give a request to one of the workers, as a load balancer does. The header `X-Worker` says to which one, so that the story can choose."""
    second = (b"x-worker", b"2") in scope.get("headers", ())
    await _WORKERS[second](scope, receive, send)
