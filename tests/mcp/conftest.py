"""Tool servers of both SDKs behind the middleware, and their callers."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

import pytest
from starlette.testclient import TestClient

from s2s_fastapi import ServiceAuthMiddleware
from s2s_fastapi.mcp import tool_server
from tests.kit.realm import Realm
from tests.kit.receiving import nothing_to_report_at_exit, observed, options, realm, service, user
from tests.mcp.tools import KINDS, LOOPBACK, Caller, Tools

__all__ = ["nothing_to_report_at_exit", "observed", "options", "realm", "service", "user"]

collect_ignore = [] if find_spec("mcp.server.mcpserver") else ["test_moved.py"]  # its programs are for mcp 2.x

Start = Callable[..., Callable[[str], Caller]]


@pytest.fixture(autouse=True)
def no_handlers_of_the_sdks() -> Iterator[None]:
    """Both SDKs add handlers to loggers when a server is made."""
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in ("mcp", "fastmcp", "FastMCP"))]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture(params=KINDS)
def tools(request: Any) -> Tools:
    return Tools(request.param)


@pytest.fixture
def start(tools: Tools, options: Callable[..., dict[str, Any]]) -> Iterator[Start]:
    """Start the server behind a middleware, and return what makes a caller of a token."""
    with ExitStack() as stack:

        def started(**changes: Any) -> Callable[[str], Caller]:
            app = tool_server(tools.server)
            app.add_middleware(ServiceAuthMiddleware, **options(**changes))
            client = TestClient(app, LOOPBACK, raise_server_exceptions=False)
            stack.enter_context(client)
            return lambda token: Caller(client, token)

        yield started


@pytest.fixture
def token_of(realm: Realm) -> Callable[..., str]:
    """Make the token of a service, by its name."""
    return lambda name, **changes: realm.token(azp=name, client_id=name, **{"sub": f"sub-of-{name}", **changes})


@pytest.fixture
def user_token(realm: Realm) -> Callable[..., str]:
    """Make the token of a user, by its subject."""
    return lambda subject, **changes: realm.user_token(sub=subject, **changes)
