"""A stream of server-sent events does not outlive the token of its request. Every other answer may."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from starlette.responses import StreamingResponse

from s2s_fastapi.receiver.event_stream import stream_until_expiry

pytestmark = pytest.mark.anyio

EVENTS = [(b"content-type", b"Text/Event-Stream; charset=utf-8")]
JSON = [(b"content-type", b"application/json")]
END = {"type": "http.response.body", "body": b"", "more_body": False}


def start(headers: Any = EVENTS) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": headers}


def part(body: bytes = b"x", *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


class Wire:
    """The server's side of one request, with a clock of its own; its token expires at 1010."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.not_before = 0
        self.sent: list[dict[str, Any]] = []
        self.incoming = [{"type": "http.request", "body": b"", "more_body": False}]
        self.verifier: Any = SimpleNamespace(
            checks=SimpleNamespace(ends=lambda principal: principal.expires_at),
            keys=self,
            clock=lambda: self.now,
        )

    def peek(self) -> object:
        return self

    async def receive(self) -> dict[str, Any]:
        if not self.incoming:
            await anyio.sleep_forever()
        return self.incoming.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))

    async def run(self, app: Callable[[Any, Any], Any]) -> None:
        async def whole(scope: Any, receive: Any, send: Any) -> None:
            await app(receive, send)

        caller: Any = SimpleNamespace(expires_at=1010.0, issued_at=900)
        with anyio.fail_after(5):
            await stream_until_expiry(whole, caller, self.verifier)({"type": "http"}, self.receive, self.send)


async def test_it_ends_when_the_token_expires_and_the_app_that_listens_sees_that_the_client_left() -> None:
    wire = Wire()
    wire.now = 1009.95

    async def app(receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        await send(start())
        await send(part())
        assert await receive() == {"type": "http.disconnect"}

    await wire.run(app)

    assert wire.sent == [start(), part(), END]


async def test_an_app_that_was_listening_before_the_stream_began_is_woken() -> None:
    wire = Wire()
    wire.now, wire.incoming = 1009.95, []
    heard: list[Any] = []

    async def app(receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as group:

            async def listen() -> None:
                heard.append(await receive())
                group.cancel_scope.cancel()

            group.start_soon(listen)
            await anyio.lowlevel.checkpoint()
            await send(start())
            await anyio.sleep_forever()

    await wire.run(app)

    assert heard == [{"type": "http.disconnect"}]
    assert wire.sent == [start(), END]


async def test_an_app_that_only_sends_is_stopped_by_an_error_and_no_event_goes_out() -> None:
    wire = Wire()

    async def app(receive: Any, send: Any) -> None:
        await send(start())
        await send(part(b"in time"))
        wire.now = 1010.0
        with pytest.raises(OSError, match="expired"):
            await send(part(b"too late"))
        with pytest.raises(OSError, match="expired"):
            await send(part(b"too late", more=False))

    await wire.run(app)

    assert wire.sent == [start(), part(b"in time"), END]


async def test_a_revocation_ends_it_at_the_next_event() -> None:
    wire = Wire()

    async def app(receive: Any, send: Any) -> None:
        await send(start())
        wire.not_before = 901
        with pytest.raises(OSError, match="expired"):
            await send(part())

    await wire.run(app)

    assert wire.sent == [start(), END]


async def test_every_other_answer_is_untouched_also_after_the_token_expired() -> None:
    wire = Wire()

    async def app(receive: Any, send: Any) -> None:
        wire.now = 2000.0
        assert (await receive())["type"] == "http.request"
        await send(start(JSON))
        await send(part())
        await send(part(more=False))

    await wire.run(app)

    assert wire.sent == [start(JSON), part(), part(more=False)]


async def test_a_stream_that_ends_in_time_ends_once() -> None:
    wire = Wire()

    async def app(receive: Any, send: Any) -> None:
        await send(start())
        await send(part(more=False))
        wire.now = 2000.0

    await wire.run(app)

    assert wire.sent == [start(), part(more=False)]


async def test_a_response_of_starlette_that_goes_on_for_ever_ends() -> None:
    wire = Wire()

    async def events() -> AsyncGenerator[bytes]:
        while True:
            # It never waits, so no timeout would end it.
            assert wire.now < 1020, "the response still takes events from an app that only sends"
            yield b"data: x\n\n"
            wire.now += 1

    async def app(receive: Any, send: Any) -> None:
        scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
        async with aclosing(events()) as stream:
            await StreamingResponse(stream, media_type="text/event-stream")(scope, receive, send)

    await wire.run(app)

    assert len(wire.sent) == 12
    assert wire.sent[-1] == END


async def test_a_client_that_has_gone_is_sent_no_end() -> None:
    wire = Wire()
    wire.incoming.append({"type": "http.disconnect"})

    async def app(receive: Any, send: Any) -> None:
        await send(start())
        assert [(await receive())["type"] for _ in range(2)] == ["http.request", "http.disconnect"]
        wire.now = 2000.0
        assert await receive() == {"type": "http.disconnect"}

    await wire.run(app)

    assert wire.sent == [start()]


async def test_a_stream_that_the_app_has_ended_is_not_ended_again_while_it_goes_on_listening() -> None:
    wire = Wire()

    async def app(receive: Any, send: Any) -> None:
        await send(start())
        await send(part(more=False))
        wire.now = 2000.0
        assert (await receive())["type"] == "http.disconnect"

    await wire.run(app)

    assert wire.sent == [start(), part(more=False)]
