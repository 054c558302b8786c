"""The text of our errors says how Keycloak is configured: the log gets it, and the caller one fixed sentence."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest

from s2s_fastapi import ConfigurationError, S2SError, SessionEnded, TokenRequestError
from tests.mcp.conftest import Start
from tests.mcp.tools import OFFICIAL, Tools

USES: dict[str, tuple[str, dict[str, Any]]] = {
    "tool": ("tools/call", {"name": "tool", "arguments": {}}),
    "prompt": ("prompts/get", {"name": "prompt"}),
    "resource": ("resources/read", {"uri": "data://one"}),
    "template": ("resources/read", {"uri": "data://users/7"}),
}
ERRORS: dict[str, tuple[Callable[[], S2SError], str]] = {
    "token": (
        lambda: TokenRequestError("Keycloak refused the secret of 'tools'.", cure="Look at http://kc.internal."),
        "A service this one depends on cannot be called at the moment.",
    ),
    "session": (
        lambda: SessionEnded("kc.internal says that the session of ann is over."),
        "The session of the user has ended, or the access token has expired.",
    ),
    "configuration": (lambda: ConfigurationError("Set KEYCLOAK_URL to http://kc.internal."), "Internal Server Error"),
}


def offer(tools: Tools, error: Callable[[], Exception]) -> None:
    """Offer one of each kind, which raises."""

    def tool() -> str:
        raise error()

    async def prompt() -> str:
        raise error()

    def template(user: str) -> str:
        raise error()

    tools.tool(tool)
    tools.prompt(prompt)
    tools.resource("data://one", prompt)
    tools.resource("data://users/{user}", template)


@pytest.mark.parametrize(
    ("use", "error"), [*((use, "token") for use in USES), ("tool", "session"), ("tool", "configuration")]
)
def test_the_caller_gets_a_fixed_sentence_and_the_log_the_cure(
    start: Start, tools: Tools, token_of: Any, caplog: pytest.LogCaptureFixture, *, use: str, error: str
) -> None:
    method, params = USES[use]
    make, said = ERRORS[error]
    offer(tools, make)

    answer = start()(token_of("agent")).open().ask(method, **params)

    assert answer["error"] == {"code": -32603, "message": said}
    logged = [each.getMessage() for each in caplog.records if each.name == "s2s_fastapi"]
    assert f"{method} failed: {type(make()).__name__}: {make()}" in logged


def test_what_the_app_says_about_it_is_for_the_caller(start: Start, tools: Tools, token_of: Any) -> None:
    package = "fastmcp" if tools.kind == "fastmcp" else OFFICIAL.__module__.removesuffix(".server")
    of_the_sdk = importlib.import_module(f"{package}.exceptions").ToolError

    def sorry() -> Exception:
        error: Exception = of_the_sdk("the CRM cannot be asked")
        error.__cause__ = ERRORS["token"][0]()
        return error

    offer(tools, sorry)

    assert start()(token_of("agent")).open().call("tool").endswith("the CRM cannot be asked")


def test_a_failure_that_a_tool_deals_with_is_none(start: Start, tools: Tools, token_of: Any) -> None:
    def tool() -> str:
        try:
            error = ERRORS["token"][0]()
            raise error
        except TokenRequestError:
            return "later"

    tools.tool(tool)

    assert start()(token_of("agent")).open().call("tool") == "later"
