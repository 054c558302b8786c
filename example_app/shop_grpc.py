"""Story 2 over gRPC, the caller: an interceptor adds this service's token to every call."""

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import grpc.aio

from s2s_fastapi import ServiceTokenAuth

notifications = ServiceTokenAuth(audience="notification-service")  # no origin: the channel is where the token goes


class _Call(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class WithToken(grpc.UnaryUnaryClientInterceptor):
    """For a channel of threads."""

    def __init__(self, auth: ServiceTokenAuth) -> None:
        self._auth = auth

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], client_call_details: Any, request: Any
    ) -> Any:
        """Ask for the token at each call: it comes from the cache while it is good."""
        call = client_call_details
        metadata = (*(call.metadata or ()), ("authorization", f"Bearer {self._auth.token()}"))
        call = _Call(call.method, call.timeout, metadata, call.credentials, call.wait_for_ready, call.compression)
        return continuation(call, request)


class WithTokenAsync(grpc.aio.UnaryUnaryClientInterceptor):
    """For a channel of an event loop."""

    def __init__(self, auth: ServiceTokenAuth) -> None:
        self._auth = auth

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Do the same without blocking the loop."""
        call = client_call_details
        metadata = grpc.aio.Metadata(*(call.metadata or ()), ("authorization", f"Bearer {await self._auth.atoken()}"))
        return await continuation(call._replace(metadata=metadata), request)


def channel(target: str, auth: ServiceTokenAuth = notifications) -> grpc.Channel:
    """Return a channel to the notification service: in clear here; across machines use ``grpc.secure_channel``."""
    return grpc.intercept_channel(grpc.insecure_channel(target), WithToken(auth))


def async_channel(target: str, auth: ServiceTokenAuth = notifications) -> grpc.aio.Channel:
    """Return one for the running event loop."""
    return grpc.aio.insecure_channel(target, interceptors=[WithTokenAsync(auth)])
