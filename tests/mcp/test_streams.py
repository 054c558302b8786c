"""A stream of a tool server ends with the token of the request that opened it."""

import time
from typing import Any

import pytest

from s2s_fastapi import ServiceAuthMiddleware
from s2s_fastapi.mcp import current_principal
from s2s_fastapi.receiver.middleware import middleware_of
from tests.mcp.conftest import Start
from tests.mcp.tools import Tools, spoken


def test_the_stream_of_a_session_ends_when_its_token_expires_and_the_session_goes_on(
    start: Start, tools: Tools, token_of: Any
) -> None:
    now = int(time.time())
    make = start(clock=lambda: now + 329.95)  # 50 ms before the token and its leeway are over
    agent = make(token_of("agent", iat=now, exp=now + 300)).open()

    stream = agent.stream()  # returns when the stream has ended

    assert (stream.status_code, stream.headers["content-type"].split(";")[0]) == (200, "text/event-stream")
    agent.token = token_of("agent", iat=now, exp=now + 900)
    assert agent.ask("tools/list")["result"]["tools"] == []


@pytest.mark.parametrize("end", ["expired", "revoked"])
def test_the_answer_of_a_tool_does_not_go_out_after_the_token_is_over(
    start: Start, tools: Tools, token_of: Any, end: str
) -> None:
    now = [time.time()]
    keys: list[Any] = []

    async def slow() -> str:
        if end == "expired":
            now[0] += 400
        else:
            keys[0].not_before = int(now[0]) + 60
        return f"a secret of {current_principal().client_id}"

    tools.tool(slow)
    make = start(clock=lambda: now[0])
    agent = make(token_of("agent")).open()
    door = middleware_of(agent.client.app)
    assert isinstance(door, ServiceAuthMiddleware)
    keys.append(door.keys)

    answer = agent.send("tools/call", name="slow", arguments={})

    assert answer.status_code == 200
    assert "a secret" not in answer.text


def test_a_tool_that_is_fast_enough_answers(start: Start, tools: Tools, token_of: Any) -> None:
    def fast() -> str:
        return "done"

    tools.tool(fast)
    answer = start()(token_of("agent")).open().send("tools/call", name="fast", arguments={})

    assert spoken(answer)[-1]["result"]["content"][0]["text"] == "done"
