"""Close a WebSocket when the token that opened it expires or is revoked."""

import contextlib
import time
from collections.abc import Callable
from typing import Final

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from s2s_fastapi.verifier.keys import KeySource

__all__ = ["Lifetime", "revocation", "until_expiry", "within"]

_CLOSE: Final = {
    "type": "websocket.close",
    "code": 1008,
    "reason": "The access token expired.",
}  # RFC 6455 section 7.4.1
_DISCONNECT: Final = {**_CLOSE, "type": "websocket.disconnect"}
_CLOSING: Final = 10.0
"""Seconds to wait for a client that does not read, not even the close."""
_LOOKING: Final = 30.0
"""Seconds after which the watch looks at the clock again: the machine may have slept, or the clock may have been set."""


def until_expiry(
    app: ASGIApp,
    expires_at: float,
    clock: Callable[[], float] = time.time,
    *,
    revoked: Callable[[], bool] = lambda: False,
) -> ASGIApp:
    """Return ``app`` for one WebSocket that is closed with 1008 when its token expires, whatever the app is doing.

    - ``expires_at`` is in seconds since the epoch.
    - If ``revoked`` returns true, the WebSocket is closed at the next message, or within 30 s.
    - The app is not cancelled. As after a client went away, its next ``receive`` is a disconnect, its next ``send`` an `OSError`.
    - If the token expires during the handshake, the WebSocket is closed right after the handshake.
    """
    return within(app, lambda receive, send: _WebSocketLifetime(receive, send, expires_at, clock, revoked))


def revocation(keys: KeySource, issued_at: int) -> Callable[[], bool]:
    """Return what says whether a token of that second was revoked. Asking it also renews the keys of an app that gets no requests."""

    def revoked() -> bool:
        if keys.peek() is None:
            keys.start()
        return issued_at < keys.not_before

    return revoked


def within(app: ASGIApp, lifetime_of: "Callable[[Receive, Send], Lifetime]") -> ASGIApp:
    """Return ``app`` so that it runs between a `Lifetime` and the server. What the app raises is raised."""

    async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
        lifetime = lifetime_of(receive, send)
        failure: BaseException | None = None
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(lifetime.watch)
                try:
                    await app(scope, lifetime.receive, lifetime.send)
                except anyio.get_cancelled_exc_class():
                    raise
                except BaseException as error:  # noqa: BLE001 - raised below: the group would put it into an ExceptionGroup
                    failure = error
                if not lifetime.expired:
                    group.cancel_scope.cancel()
        except (anyio.get_cancelled_exc_class(), Exception):
            # Leaving the group takes a moment. If we are cancelled in it, what the app raised before still counts, as without the group.
            if failure is None:
                raise
        try:
            if failure is not None:
                raise failure
        finally:
            del failure  # its traceback holds this frame

    return bounded


class Lifetime:
    """One connection between the server and the app, for as long as its token is valid."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        expires_at: float,
        clock: Callable[[], float],
        revoked: Callable[[], bool],
    ) -> None:
        self._receive = receive
        self._send = send
        self._expires_at = expires_at
        self._clock = clock
        self._revoked = revoked
        self._began = anyio.Event()
        self._closed = False
        self._cut = False
        self._gone = False
        self._listening: set[anyio.CancelScope] = set()
        self.expired = False

    async def watch(self) -> None:
        """Close the connection when its token has expired, then wake the app if it is receiving."""
        await self._began.wait()
        until = anyio.current_time() + self._expires_at - self._clock()
        while not self._over() and (left := until - anyio.current_time()) > 0:  # noqa: ASYNC110 - a clock wakes nobody
            await anyio.sleep(min(left, _LOOKING))
        self.expired = True
        await self._close()
        for scope in tuple(self._listening):  # not every server reports a close that we sent
            scope.cancel()

    async def receive(self) -> Message:
        """Receive from the client while the token is valid."""
        raise NotImplementedError

    async def send(self, message: Message) -> None:
        """Send to the client while the token is valid."""
        raise NotImplementedError

    async def _listen(self) -> Message | None:
        """Receive a message from the client; None if the token ended meanwhile."""
        with anyio.CancelScope() as scope:
            self._listening.add(scope)
            try:
                return await self._receive()
            finally:
                self._listening.discard(scope)
        return None

    def _over(self) -> bool:
        return self.expired or self._clock() >= self._expires_at or self._revoked()

    async def _close(self) -> None:
        if not (self._closed or self._gone):
            self._closed = self._cut = True
            # If the client has gone, servers raise different errors.
            with anyio.move_on_after(_CLOSING), contextlib.suppress(OSError, RuntimeError):
                await self._end()

    async def _end(self) -> None:
        """Tell the client that it is over."""
        raise NotImplementedError


class _WebSocketLifetime(Lifetime):
    async def receive(self) -> Message:
        """Receive from the client while the token is valid."""
        if not self._began.is_set():
            return await self._receive()
        if not self._over() and (message := await self._listen()) is not None:
            # After our close some servers report a disconnect with a code of their own.
            if message["type"] == "websocket.disconnect" and not self._cut:
                self._gone = True
                return message
            if not self._over():
                return message
        await self._close()
        return dict(_DISCONNECT)

    async def send(self, message: Message) -> None:
        """Send to the client while the token is valid."""
        if message["type"] == "websocket.send" and self._over():
            await self._close()
            raise OSError("the WebSocket was closed: its access token expired")  # which Starlette makes a disconnect
        if message["type"] == "websocket.close":
            if self._closed:
                return
            self._closed = True
        await self._send(message)
        if message["type"] == "websocket.accept":
            self._began.set()

    async def _end(self) -> None:
        await self._send(dict(_CLOSE))
