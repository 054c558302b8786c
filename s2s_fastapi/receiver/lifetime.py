"""A WebSocket does not outlive the token it was opened with."""

import time
from collections.abc import Callable

import anyio
from starlette.types import Message, Receive, Send

__all__ = ["until_expiry"]

_POLICY_VIOLATION = 1008


def until_expiry(
    receive: Receive, send: Send, expires_at: float, clock: Callable[[], float] = time.time
) -> tuple[Receive, Send]:
    """Return ``receive`` and ``send`` for a WebSocket that is closed with 1008 when its token expires (seconds since the epoch)."""
    closed = False

    async def close() -> None:
        nonlocal closed
        if not closed:
            closed = True
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": "The access token expired."})

    async def bounded_receive() -> Message:
        with anyio.move_on_after(max(0.0, expires_at - clock())):
            return await receive()
        await close()
        return {"type": "websocket.disconnect", "code": _POLICY_VIOLATION, "reason": "The access token expired."}

    async def bounded_send(message: Message) -> None:
        nonlocal closed
        if message["type"] == "websocket.send" and (closed or clock() >= expires_at):
            await close()
            raise OSError(
                "the WebSocket was closed: its access token expired"
            )  # what Starlette turns into a disconnect
        if message["type"] == "websocket.close":
            if closed:
                return
            closed = True
        await send(message)

    return bounded_receive, bounded_send
