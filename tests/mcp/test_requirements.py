"""Who may use a tool, a resource or a prompt is decided before it runs, by the HTTP request of the message."""

import contextlib
import contextvars
import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from fastmcp.server.context import reset_transport, set_transport

from s2s_fastapi import (
    ConfigurationError,
    Requirement,
    require_caller,
    require_claim,
    require_role,
    require_scope,
    require_service,
    require_user,
)
from s2s_fastapi.accepted import INBOUND, digest
from s2s_fastapi.mcp import allowed, current_principal, current_request
from s2s_fastapi.mcp.message import ClientMessage, Refused
from tests.kit.realm import settings
from tests.kit.receiving import Observed
from tests.mcp.conftest import Start
from tests.mcp.tools import Tools

AGENT = require_caller("agent")
NOT_ALLOWED = "This caller may not call this."
USES: dict[str, tuple[str, dict[str, Any]]] = {
    "tool": ("tools/call", {"name": "guarded", "arguments": {"name": "x"}}),
    "tool with wrong arguments": ("tools/call", {"name": "guarded", "arguments": {}}),
    "prompt": ("prompts/get", {"name": "guarded_prompt"}),
    "resource": ("resources/read", {"uri": "data://guarded"}),
    "template": ("resources/read", {"uri": "data://users/7"}),
}
DECLARED = {
    "tool": "/mcp tools/call guarded",
    "tool with wrong arguments": "/mcp tools/call guarded",
    "prompt": "/mcp prompts/get guarded_prompt",
    "resource": "/mcp resources/read data://guarded",
    "template": "/mcp resources/read data://users/{user}",
}
LISTS = {
    "tools/list": ("tools", "name", "guarded"),
    "prompts/list": ("prompts", "name", "guarded_prompt"),
    "resources/list": ("resources", "uri", "data://guarded"),
    "resources/templates/list": ("resourceTemplates", "uriTemplate", "data://users/{user}"),
}


@pytest.fixture
def ran(tools: Tools) -> list[str]:
    """A server with a guarded one of each kind and an open tool; what ran is in the list."""
    ran: list[str] = []

    def guarded(name: str) -> str:
        ran.append(name)
        return f"done for {current_principal().client_id}"

    def guarded_prompt() -> str:
        ran.append("prompt")
        return "a prompt"

    def guarded_resource() -> str:
        ran.append("resource")
        return "a resource"

    async def guarded_template(user: str) -> str:
        ran.append(user)
        return f"user {user}"

    async def unguarded() -> str:
        ran.append("unguarded")
        return current_principal().client_id

    tools.tool(guarded, AGENT)
    tools.prompt(guarded_prompt, AGENT)
    tools.resource("data://guarded", guarded_resource, AGENT)
    tools.resource("data://users/{user}", guarded_template, AGENT)
    tools.tool(unguarded)
    return ran


@pytest.mark.parametrize("use", USES)
def test_who_may_not_use_it_gets_one_sentence_and_it_does_not_run(
    start: Start, ran: list[str], token_of: Any, observed: Observed, use: str
) -> None:
    method, params = USES[use]
    billing = start()(token_of("billing", jti="the-token")).open()

    answer = billing.ask(method, **params)

    assert answer == {"jsonrpc": "2.0", "id": 1, "error": {"code": -32600, "message": NOT_ALLOWED}}
    assert ran == []
    refusals = [each for each in observed.decisions if each.outcome == "refused"]
    assert [(each.reason, each.route, each.method, each.client_id, each.token_id) for each in refusals] == [
        ("caller_not_allowed", DECLARED[use], "POST", "billing", "the-token")
    ]
    assert "agent" in refusals[0].cure


@pytest.mark.parametrize("use", [use for use in USES if use != "tool with wrong arguments"])
def test_who_may_use_it_can_and_nothing_is_refused(
    start: Start, ran: list[str], token_of: Any, observed: Observed, use: str
) -> None:
    method, params = USES[use]
    answer = start()(token_of("agent")).open().ask(method, **params)

    assert "error" not in answer
    assert len(ran) == 1
    assert {each.outcome for each in observed.decisions} == {"allowed"}


@pytest.mark.parametrize("method", LISTS)
def test_a_list_shows_what_its_caller_may_use_and_reports_no_refusal(
    start: Start, ran: list[str], token_of: Any, observed: Observed, method: str
) -> None:
    key, name, guarded = LISTS[method]
    make = start()

    def listed(client_id: str) -> list[str]:
        return [each[name] for each in make(token_of(client_id)).open().ask(method)["result"][key]]

    assert guarded in listed("agent")
    assert listed("billing") == (["unguarded"] if method == "tools/list" else [])
    assert {each.outcome for each in observed.decisions} == {"allowed"}


def test_what_has_no_requirement_is_for_every_service(start: Start, ran: list[str], token_of: Any) -> None:
    assert start()(token_of("billing")).open().call("unguarded") == "billing"


def late(tools: Tools, requirement: Requirement | None = None) -> None:
    """Add a tool after the start, when nobody checks any more."""

    def late_tool() -> str:
        return "ran"

    tools.tool(late_tool, requirement)


@pytest.mark.parametrize("requirement", [None, require_scope("profile")], ids=["nothing", "a scope alone"])
def test_a_late_tool_that_does_not_say_who_may_call_is_for_services(
    request: pytest.FixtureRequest, tools: Tools, requirement: Requirement | None
) -> None:
    start, token_of, user_token, observed = map(
        request.getfixturevalue, ("start", "token_of", "user_token", "observed")
    )
    make = start(users=True)
    ann, agent = make(user_token("ann")).open(), make(token_of("agent")).open()
    late(tools, requirement)

    assert ann.call("late_tool") == "Only services may call this."
    assert agent.call("late_tool") == "ran"
    assert ann.ask("tools/list")["result"]["tools"] == []
    assert [each["name"] for each in agent.ask("tools/list")["result"]["tools"]] == ["late_tool"]
    assert [each.reason for each in observed.decisions if each.outcome == "refused"] == ["not_a_service"]


def test_a_late_tool_for_users_is_for_users(start: Start, tools: Tools, token_of: Any, user_token: Any) -> None:
    make = start(users=True)
    late(tools, require_user())

    assert make(user_token("ann")).open().call("late_tool") == "ran"
    assert make(token_of("agent")).open().call("late_tool") == "Only users may call this."


def test_an_argument_is_completed_only_for_who_may_use_what_it_is_for(
    start: Start, tools: Tools, ran: list[str], token_of: Any
) -> None:
    async def complete(ref: Any, argument: Any, context: Any) -> Any:
        ran.append("complete")

    asked: dict[str, Any] = {
        "ref": {"type": "ref/prompt", "name": "guarded_prompt"},
        "argument": {"name": "x", "value": "a"},
    }
    decorate = getattr(tools.server, "completion", None)
    if decorate is None:  # FastMCP 3
        assert "Method not found" in start()(token_of("agent")).open().send("completion/complete", **asked).text
        return
    (decorate() if tools.kind == "official" else decorate)(complete)
    make = start()

    refused = make(token_of("billing")).open().ask("completion/complete", **asked)
    assert ran == []
    assert refused.get("error", {}).get("message", NOT_ALLOWED) == NOT_ALLOWED
    make(token_of("agent")).open().ask("completion/complete", **asked)
    assert ran == ["complete"]


class TestInOneSession:
    """On mcp 1.x the context variables of a tool are those of the request that opened the session."""

    @pytest.fixture(autouse=True)
    def digests(self, tools: Tools) -> list[bytes | None]:
        """The digest of the token that must not be sent on, as the tool finds it at each call."""
        digests: list[bytes | None] = []

        def write() -> str:
            digests.append(INBOUND.get())
            return current_principal().token_id

        tools.tool(write, require_scope("projects:write"))
        return digests

    def test_each_message_is_judged_by_its_own_token(
        self, start: Start, token_of: Any, digests: list[bytes | None]
    ) -> None:
        agent = start()(first := token_of("agent", scope="projects:write", jti="first")).open()
        assert agent.call("write") == "first"

        agent.token = token_of("agent", scope="profile")
        assert agent.call("write") == "The access token lacks a scope."
        assert agent.ask("tools/list")["result"]["tools"] == []

        agent.token = token_of("agent", scope="projects:write", jti="third")
        assert agent.call("write") == "third"
        assert digests == [digest(first), digest(agent.token)]

    def test_a_token_without_the_scope_does_not_hold_back_a_later_one(self, start: Start, token_of: Any) -> None:
        agent = start()(token_of("agent", scope="profile")).open()
        agent.token = token_of("agent", scope="projects:write", jti="second")

        assert agent.call("write") == "second"


def test_a_requirement_that_nobody_can_judge_is_a_mistake_that_only_the_log_names(
    start: Start, tools: Tools, token_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def edit() -> str:
        return "ran"

    tools.tool(edit, require_role("editor"))
    without_client = settings(client_id=None, audience="crm-api-gateway")
    agent = start(settings=without_client)(token_of("agent")).open()

    assert agent.call("edit") == "Internal Server Error"
    assert "say whose role it is" in caplog.text


def test_until_the_day_refusals_are_only_logged(
    start: Start, ran: list[str], token_of: Any, observed: Observed
) -> None:
    day = (dt.datetime.now(dt.UTC) + dt.timedelta(days=7)).date().isoformat()
    billing = start(insecure_observe_until=day)(token_of("billing")).open()

    assert billing.call("guarded", name="x") == "done for billing"
    assert "guarded" in [each["name"] for each in billing.ask("tools/list")["result"]["tools"]]
    assert [(each.outcome, each.route) for each in observed.decisions if each.outcome != "allowed"] == [
        ("observed", "/mcp tools/call guarded")
    ]


def test_what_a_route_refuses_while_refusals_are_only_logged_a_tool_refuses_too(
    start: Start, tools: Tools, token_of: Any, observed: Observed
) -> None:
    def of_acme() -> str:
        return "ran"

    tools.tool(of_acme, AGENT & require_claim("tenant", "acme"))
    day = (dt.datetime.now(dt.UTC) + dt.timedelta(days=7)).date().isoformat()
    billing = start(insecure_observe_until=day)(token_of("billing")).open()

    assert billing.call("of_acme") == "The access token lacks a claim, or its value."
    assert [(each.outcome, each.reason) for each in observed.decisions if each.outcome != "allowed"] == [
        ("refused", "claim_missing")
    ]


class TestWithoutARequest:
    @pytest.fixture
    def kept(self, start: Start, tools: Tools, token_of: Any) -> list[contextvars.Context]:
        """The context of a tool whose message was answered."""
        kept: list[contextvars.Context] = []

        def keep() -> str:
            kept.append(contextvars.copy_context())
            return current_principal().client_id

        tools.tool(keep, AGENT)
        assert start()(token_of("agent")).open().call("keep") == "agent"
        return kept

    @pytest.mark.parametrize("ask", [current_principal, current_request])
    def test_a_task_that_outlived_its_message_acts_for_nobody(
        self, kept: list[contextvars.Context], ask: Callable[[], Any]
    ) -> None:
        with pytest.raises(Refused, match="needs a bearer access token"):
            kept[0].run(ask)

    def test_the_function_below_a_requirement_does_not_run(self, kept: list[contextvars.Context]) -> None:
        guarded = allowed(AGENT)(lambda: "ran")

        for run in (lambda call: call(), kept[0].run):
            with pytest.raises(Refused):
                run(guarded)

    def test_whoever_speaks_over_stdio_or_in_memory_uses_nothing_that_has_a_requirement(
        self, tools: Tools, ran: list[str], start: Start
    ) -> None:
        start()
        guard = tools.server.__s2s_tool_server__

        async def answer() -> str:
            return "answered"

        def use(tool: str) -> Any:
            return anyio.run(guard, ClientMessage(None, "tools/call", {"name": tool}), answer)

        assert use("unguarded") == "answered"
        with in_stdio(), pytest.raises(Exception, match="This service needs a bearer access token"):
            use("guarded")


@contextlib.contextmanager
def in_stdio() -> Iterator[None]:
    """Let FastMCP believe that it speaks over stdio, where it skips all checks."""
    token = set_transport("stdio")
    try:
        yield
    finally:
        reset_transport(token)


@pytest.mark.parametrize(
    "given", ["agent", None, require_service().optional(), lambda: None], ids=["text", "None", "optional", "function"]
)
def test_what_is_no_requirement_is_refused_when_it_is_written(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="allowed takes a requirement"):
        allowed(given)


def test_two_requirements_on_one_function_are_both_asked(start: Start, tools: Tools, token_of: Any) -> None:
    def both() -> str:
        return "ran"

    if tools.kind == "official":
        tools.server.tool()(allowed(AGENT)(allowed(require_scope("x"))(both)))
    else:
        tools.server.tool(auth=[allowed(AGENT), allowed(require_scope("x"))])(both)
    make = start()

    assert make(token_of("agent", scope="x")).open().call("both") == "ran"
    assert make(token_of("agent")).open().call("both") == "The access token lacks a scope."
    assert make(token_of("billing", scope="x")).open().call("both") == NOT_ALLOWED


@pytest.mark.parametrize("order", ["above", "below"])
def test_the_order_of_the_two_decorators_does_not_matter(
    start: Start, tools: Tools, token_of: Any, user_token: Any, order: str
) -> None:
    def ordered() -> str:
        return "ran"

    if order == "above":
        tools.server.tool()(ordered)
        allowed(AGENT)(ordered)
    else:
        tools.server.tool()(allowed(AGENT)(ordered))
    make = start(users=True)
    billing = make(token_of("billing")).open()

    assert make(token_of("agent")).open().call("ordered") == "ran"
    assert billing.call("ordered") == NOT_ALLOWED
    assert billing.ask("tools/list")["result"]["tools"] == []


def test_one_function_has_another_requirement_under_another_name(start: Start, tools: Tools, token_of: Any) -> None:
    def shared() -> str:
        return "ran"

    tools.server.tool(name="first")(allowed(AGENT)(shared))
    tools.server.tool(name="second")(allowed(require_caller("billing"))(shared))
    make = start()

    assert make(token_of("agent")).open().call("first") == "ran"
    assert make(token_of("billing")).open().call("second") == "ran"
    assert make(token_of("billing")).open().call("first") == NOT_ALLOWED
