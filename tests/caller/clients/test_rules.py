"""What all adapters share: optional packages, the places they compare, and the traces they pass on."""

import sys
from typing import Any

import pytest
from opentelemetry import trace

from s2s_fastapi import ConfigurationError, ServiceTokenAuth
from s2s_fastapi.caller.clients.rules import pin_at
from tests.caller.fakes import Receiver
from tests.kit.other_clients import GRPC, HTTP, GrpcReceiver
from tests.kit.tracing import context_of

ADAPTERS = {
    "requests": ("requests_session", ServiceTokenAuth.for_requests),
    "aiohttp": ("aiohttp_middleware", ServiceTokenAuth.for_aiohttp),
    "grpc": ("grpc_channels", ServiceTokenAuth.for_grpc),
}


@pytest.mark.parametrize("package", ADAPTERS)
def test_a_package_that_is_missing_is_one_sentence_that_names_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, method = ADAPTERS[package]
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"s2s_fastapi.caller.clients.{module}", raising=False)

    with pytest.raises(ConfigurationError, match=rf"for_{package}\(\) needs {package}.*: pip install '{package}"):
        method(ServiceTokenAuth("http://bob:8000"))


@pytest.mark.parametrize("package", ADAPTERS)
def test_no_adapter_sends_the_token_to_any_host_that_a_redirect_may_name(package: str) -> None:
    _, method = ADAPTERS[package]

    with pytest.raises(ConfigurationError, match="need origins"):
        method(ServiceTokenAuth(insecure_any_origin=True))


@pytest.mark.parametrize(
    ("scheme", "host", "port", "pin"),
    [
        ("HTTP", "Bob", 80, ("http", b"bob", None)),
        ("https", "bob", 443, ("https", b"bob", None)),
        ("https", "bob", None, ("https", b"bob", None)),
        ("https", "bob", 80, ("https", b"bob", 80)),
        ("wss", "::1", 8443, ("https", b"::1", 8443)),
        ("ftp", "bob", 21, None),
        ("", "bob", 80, None),
        ("http", None, None, None),
        ("http", "", 80, None),
        ("http", "bücher", 80, None),
    ],
)
def test_a_place_is_one_of_the_origins_in_each_spelling_or_none(
    scheme: str, host: str | None, port: int | None, pin: Any
) -> None:
    assert pin_at(scheme, host, port) == pin


@pytest.mark.usefixtures("source")
def test_each_client_passes_the_trace_on(bob: Receiver, grpc_bob: GrpcReceiver) -> None:
    auth = ServiceTokenAuth(bob.url, grpc_bob.url)
    with trace.get_tracer("tests").start_as_current_span("route") as span:
        for ask in HTTP.values():
            assert ask(auth, bob.url) == 200
        for ask in GRPC.values():
            assert ask(auth, grpc_bob.url, {"x-mine": "1"}) == 200

    wanted = format(context_of(span).trace_id, "032x")
    sent: list[dict[str, str]] = [
        dict(headers) for headers in (*(each.items() for each in bob.headers), *grpc_bob.metadata)
    ]
    assert [headers["traceparent"].split("-")[1] for headers in sent] == [wanted] * 4
