"""End a stream of server-sent events when the token of its request expires or is revoked."""

from typing import Final

import anyio
import anyio.lowlevel
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message

from s2s_fastapi.principal import Principal
from s2s_fastapi.receiver.websocket import Lifetime, revocation, within
from s2s_fastapi.verifier.verifier import Verifier

__all__ = ["stream_until_expiry"]

_EVENTS: Final = "text/event-stream"
_NO_MORE: Final = {"type": "http.response.body", "body": b"", "more_body": False}


def stream_until_expiry(app: ASGIApp, principal: Principal, verifier: Verifier) -> ASGIApp:
    """Return ``app`` for one HTTP request whose event stream ends when the token of the caller expires or is revoked.

    - Every other answer is untouched, also if it comes after the token expired.
    - The client sees the end of the response. The app sees a client that went away: a disconnect, or an `OSError` if it only sends.
    - ``verifier`` is the one that accepted the caller. Its clock and its leeway count, as for a WebSocket.
    """
    ends, revoked = verifier.checks.ends(principal), revocation(verifier.keys, principal.issued_at)
    return within(app, lambda receive, send: _StreamLifetime(receive, send, ends, verifier.clock, revoked))


class _StreamLifetime(Lifetime):
    async def receive(self) -> Message:
        """Receive the request, then whether the client has gone."""
        while not (self._began.is_set() and self._over()):
            if (message := await self._listen()) is not None:
                self._gone = self._gone or message["type"] == "http.disconnect"
                return message
        await self._close()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send the answer. No event is sent after the token expired."""
        if message["type"] == "http.response.body" and self._began.is_set() and (self._closed or self._over()):
            await self._close()
            if not self._listening:
                raise OSError("the response was ended: its access token expired")
            for scope in tuple(self._listening):
                scope.cancel()
            await anyio.lowlevel.checkpoint()  # let what listens hear it, also if the app only sends
            return
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._closed = True
        await self._send(message)
        if message["type"] == "http.response.start":
            kind = Headers(raw=[(bytes(name), bytes(value)) for name, value in message.get("headers", ())])
            if kind.get("content-type", "").partition(";")[0].strip().lower() == _EVENTS:
                self._began.set()

    async def _end(self) -> None:
        await self._send(dict(_NO_MORE))
