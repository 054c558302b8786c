"""A caller who resumes a stream of its session gets the events of that session, and no others."""

import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mcp.server.streamable_http import EventMessage, EventStore
from starlette.testclient import TestClient

from s2s_fastapi import ServiceAuthMiddleware
from s2s_fastapi.mcp import current_principal, tool_server
from tests.mcp.tools import LOOPBACK, OFFICIAL, Caller, Tools


class Store(EventStore):
    """Like the one in the examples of the SDK: it replays what came later in the stream of an event."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        self.events.append((stream_id, message))
        return str(len(self.events) - 1)

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str:
        last = int(last_event_id)
        for number, (stream, message) in enumerate(self.events):
            if number > last and stream == self.events[last][0] and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return self.events[last][0]


@pytest.fixture
def now() -> list[float]:
    return [float(int(time.time()))]


@pytest.fixture
def make(tools: Tools, options: Callable[..., dict[str, Any]], now: list[float]) -> Iterator[Callable[[str], Caller]]:
    store: Any = Store()
    in_app = {"event_store": store}
    if tools.kind == "official" and "event_store" in inspect.signature(OFFICIAL).parameters:  # mcp 1.x
        tools.server, in_app = OFFICIAL("tools", event_store=store), {}
    times = [0]

    def secret() -> str:
        times[0] += 1
        return f"secret {times[0]} of {current_principal().client_id}"

    tools.tool(secret)
    make_app = tools.server.streamable_http_app if tools.kind == "official" else tools.server.http_app
    app = tool_server(tools.server, make_app(**in_app))
    app.add_middleware(ServiceAuthMiddleware, **options(clock=lambda: now[0]))
    with TestClient(app, LOOPBACK, raise_server_exceptions=False) as client:
        yield lambda token: Caller(client, token).open()


def resumed(caller: Caller, after: int, now: list[float]) -> str:
    """Return what a caller gets who resumes a stream, until its token is over."""
    now[0] += 329.95  # 50 ms before the token and its leeway are over
    return str(caller.client.get("/mcp", headers={**caller.headers, "Last-Event-ID": str(after)}).text)


def test_it_gets_the_events_of_its_own_session(make: Any, token_of: Any, now: list[float]) -> None:
    token = token_of("agent", iat=now[0], exp=now[0] + 300)
    first, second = make(token), make(token)
    said = [caller.call("secret") for caller in (first, second, first)]

    text = resumed(first, 0, now)

    assert said == ["secret 1 of agent", "secret 2 of agent", "secret 3 of agent"]
    assert "secret 1" in text
    assert "secret 3" in text
    assert "secret 2" not in text


def test_an_event_of_another_session_resumes_nothing(make: Any, token_of: Any, now: list[float]) -> None:
    owner = make(token_of("agent", iat=now[0], exp=now[0] + 300))
    thief = make(token_of("billing", iat=now[0], exp=now[0] + 300))
    assert owner.call("secret") == "secret 1 of agent"

    assert "secret" not in resumed(thief, 0, now)
