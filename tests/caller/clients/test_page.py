"""Each example of docs/other-clients.md runs, and its receiver gets the token."""

import asyncio
from typing import Any

import aiohttp
import grpc
import httpx
import pytest
import websockets.sync.client

from s2s_fastapi import ServiceTokenAuth
from tests.caller.clients.test_aiohttp_middleware import websocket_server
from tests.caller.clients.test_sdks import Sdk
from tests.caller.fakes import Receiver
from tests.kit.other_clients import SAY, GrpcReceiver
from tests.test_docs import DOCS, blocks

pytestmark = pytest.mark.usefixtures("source")

FUNCTIONS = "".join(block.text for block in blocks(DOCS / "other-clients.md", "python") if "def by_" in block.text)


def example(name: str, address: str) -> Any:
    """Return a function of the page, for a receiver at another address than ``bob:8000``."""
    written = FUNCTIONS.replace("bob:8000", address).replace("/bob.Tickets/List", SAY)
    namespace: dict[str, Any] = {
        "bob": ServiceTokenAuth(f"http://{address}", audience="bob"),
        "aiohttp": aiohttp,
        "grpc": grpc,
        "websockets": websockets,
        "OpenAI": Sdk,
        "DefaultHttpxClient": httpx.Client,
    }
    exec(compile(written, "other-clients.md", "exec"), namespace)  # noqa: S102 - our own documentation
    return namespace[name]


@pytest.fixture
def token() -> str:
    return f"Bearer {ServiceTokenAuth(audience='bob').token()}"


def test_the_examples_over_http_run(bob: Receiver, token: str) -> None:
    address = bob.url.removeprefix("http://")
    assert example("by_requests", address)() == 200
    assert asyncio.run(example("by_aiohttp", address)()) == 200
    for name in ("by_sdk", "by_function"):
        sdk = example(name, address)()
        assert sdk.chat() == "ok"
        sdk.close()
    assert bob.tokens == [token] * 4
    assert [seen.path for seen in bob.seen] == ["/tickets", "/tickets", "/v1/chat", "/v1/chat"]


def test_the_example_over_grpc_runs(grpc_bob: GrpcReceiver, token: str) -> None:
    assert example("by_grpc", grpc_bob.target)() == b"ok"
    assert grpc_bob.tokens == [token]


def test_the_example_over_websockets_runs(token: str) -> None:
    with websocket_server() as (url, seen):
        assert example("by_websockets", url.removeprefix("ws://"))() == "hello"
    assert seen == [token]
