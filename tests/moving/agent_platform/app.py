"""A platform for agents: users on a list, its own services, terms of use, and a chat on a WebSocket."""

import asyncio
from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket

from s2s_fastapi import DOCS, AuthenticationError, AuthorizationError, KeysUnavailable, Principal, ServiceAuthMiddleware
from tests.moving.agent_platform.auth import Admitted, Known, agent, known, verifier

PATIENCE = 10.0  # seconds for the first message
app = FastAPI()
app.add_middleware(
    ServiceAuthMiddleware, users=True, max_lifetime=3600, public_paths=DOCS, optional_paths=["WEBSOCKET /chat"]
)


@app.get("/terms")
async def terms(caller: Known) -> str:
    return caller.subject


@app.get("/agents")
async def agents(caller: Admitted) -> dict[str, object]:
    return {"uid": caller.subject, "username": caller.username}


@app.post("/evaluations", dependencies=[Depends(agent)])
async def evaluate(caller: Known) -> str:
    return caller.client_id


@app.websocket("/chat")
async def chat(socket: WebSocket, caller: Annotated[Principal | None, Depends(known.optional())]) -> None:
    await socket.accept()
    if caller is None:  # a browser cannot set a header here: it sends the token as its first message
        try:
            async with asyncio.timeout(PATIENCE):
                token = await socket.receive_text()
            caller = await verifier.authenticate({"authorization": f"Bearer {token}"}, known)
        except (TimeoutError, AuthenticationError, AuthorizationError, KeysUnavailable):
            await socket.close(1008)
            return
    await socket.send_text(f"hello {caller.username}")
    await socket.close()
