"""Clients other than httpx, each on a real socket, as one function; and a receiver that speaks gRPC."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import grpc
import grpc.aio

from s2s_fastapi import ServiceTokenAuth
from tests.kit.authority import make_authority

__all__ = [
    "COUNT",
    "GATHER",
    "GRPC",
    "HTTP",
    "SAY",
    "TALK",
    "Ask",
    "GrpcReceiver",
    "by_aiohttp",
    "by_call_credentials",
    "by_grpc",
    "by_grpc_aio",
    "by_requests",
    "grpc_receiver",
    "tls",
]

SAY = "/bob.Bob/Say"
COUNT = "/bob.Bob/Count"
GATHER = "/bob.Bob/Gather"
TALK = "/bob.Bob/Talk"

Ask = Callable[..., int]
"""Sends one request with the token, and returns the status as HTTP has it."""


def by_requests(
    auth: ServiceTokenAuth, url: str, headers: Mapping[str, str] | None = None, body: Any = b"text", **options: Any
) -> int:
    with auth.for_requests() as session:
        return session.post(url, data=body, headers=headers, timeout=20, **options).status_code


def by_aiohttp(
    auth: ServiceTokenAuth, url: str, headers: Mapping[str, str] | None = None, body: Any = b"text", **options: Any
) -> int:
    async def main() -> int:
        connector = aiohttp.TCPConnector()
        session = aiohttp.ClientSession(connector=connector, middlewares=[auth.for_aiohttp()])
        try:
            async with session.post(url, data=body, headers=headers, **options) as response:
                return response.status
        finally:
            await connector.close(abort_ssl=True)
            await session.close()
            await asyncio.sleep(0.05)  # or the loop may end before TLS has said goodbye, and leave an open socket

    return asyncio.run(main())


HTTP: dict[str, Ask] = {"requests": by_requests, "aiohttp": by_aiohttp}


class GrpcReceiver:
    """What `tests.caller.fakes.Receiver` is for HTTP: it reads what was really sent, and refuses as often as it shall."""

    def __init__(self, port: int, scheme: str) -> None:
        self.target = f"127.0.0.1:{port}"
        self.url = f"{scheme}://{self.target}"
        self.metadata: list[list[tuple[str, str]]] = []
        self.refusals: list[tuple[tuple[str, str], ...]] = []
        self.answering = threading.Event()
        """Calls wait while it is not set."""
        self.answering.set()

    def refuse(self, times: int = 1, trailing: tuple[tuple[str, str], ...] = ()) -> None:
        self.refusals += [trailing] * times

    @property
    def tokens(self) -> list[str | None]:
        return [", ".join(value for name, value in sent if name == "authorization") or None for sent in self.metadata]

    def answer(self, context: Any) -> None:
        self.metadata.append([(name, value) for name, value in context.invocation_metadata() if name != "user-agent"])
        assert self.answering.wait(20)
        if self.refusals:
            context.set_trailing_metadata(self.refusals.pop(0))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "The token is not valid.")


@contextmanager
def grpc_receiver(scheme: str = "http", credentials: grpc.ServerCredentials | None = None) -> Iterator[GrpcReceiver]:
    """Serve one method of each kind."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            def one(request: Any, context: Any) -> bytes:
                there.answer(context)
                return b"ok"

            def many(request: Any, context: Any) -> Iterator[bytes]:
                there.answer(context)
                yield b"1"
                yield b"2"

            kinds: dict[str, Any] = {
                SAY: grpc.unary_unary_rpc_method_handler(one),
                COUNT: grpc.unary_stream_rpc_method_handler(many),
                GATHER: grpc.stream_unary_rpc_method_handler(one),
                TALK: grpc.stream_stream_rpc_method_handler(many),
            }
            return kinds.get(handler_call_details.method)

    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Handler(),))
    if scheme == "https":
        credentials = grpc.ssl_server_credentials([certificate()])
    host = "127.0.0.1:0"
    port = server.add_secure_port(host, credentials) if credentials else server.add_insecure_port(host)
    there = GrpcReceiver(port, scheme)
    server.start()
    try:
        yield there
    finally:
        server.stop(0).wait()


@cache
def certificate() -> tuple[bytes, bytes]:
    """Return the key and the certificate of 127.0.0.1."""
    with TemporaryDirectory() as folder:
        authority = make_authority(Path(folder))
        return authority.with_name("key.pem").read_bytes(), authority.read_bytes()


def tls() -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(certificate()[1])


def _credentials(url: str) -> grpc.ChannelCredentials | None:
    return tls() if url.startswith("https") else None


def status(error: Any) -> int:
    """Return the HTTP status that a gRPC status corresponds to."""
    code = error.code()
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return 401
    assert code is grpc.StatusCode.UNAVAILABLE, (code, error.details())
    return 503


def by_grpc(auth: ServiceTokenAuth, url: str, headers: Mapping[str, str] | None = None) -> int:
    with auth.for_grpc().channel(urlsplit(url).netloc, _credentials(url)) as opened:
        say: Any = opened.unary_unary(SAY)
        try:
            say(b"hello", metadata=list((headers or {}).items()), timeout=20)
        except grpc.RpcError as error:
            return status(error)
        return 200


def by_grpc_aio(auth: ServiceTokenAuth, url: str, headers: Mapping[str, str] | None = None) -> int:
    async def main() -> int:
        async with auth.for_grpc().aio_channel(urlsplit(url).netloc, _credentials(url)) as opened:
            say: Any = opened.unary_unary(SAY)
            try:
                await say(b"hello", metadata=list((headers or {}).items()), timeout=20)
            except grpc.RpcError as error:
                return status(error)
            return 200

    return asyncio.run(main())


def by_call_credentials(auth: ServiceTokenAuth, url: str, headers: Mapping[str, str] | None = None) -> int:
    """Call through a channel that was made without us, with our call credentials on it."""
    kind = tls() if url.startswith("https") else grpc.local_channel_credentials()
    both = grpc.composite_channel_credentials(kind, auth.for_grpc().call_credentials())
    with grpc.secure_channel(urlsplit(url).netloc, both) as opened:
        say: Any = opened.unary_unary(SAY)
        try:
            say(b"hello", metadata=list((headers or {}).items()), timeout=20)
        except grpc.RpcError as error:
            return status(error)
        return 200


GRPC: dict[str, Ask] = {"gRPC": by_grpc, "gRPC on an event loop": by_grpc_aio}
