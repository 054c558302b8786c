"""Channels of gRPC that attach the token, for threads and for event loops, and call credentials for channels made elsewhere."""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import grpc
import grpc.aio

from s2s_fastapi.caller.challenges import challenge_error
from s2s_fastapi.caller.clients.rules import Rules, pin_at
from s2s_fastapi.caller.origins import Pin
from s2s_fastapi.errors import ConfigurationError, S2SError
from s2s_fastapi.telemetry.spans import propagated

__all__ = ["GrpcChannels"]

_AUTHORIZATION: Final = "authorization"
_SCHEMES: Final = {
    "": "http",
    "InsecureChannelCredentials": "http",
    "LocalChannelCredentials": "http",
    "SSLChannelCredentials": "https",
    "ALTSChannelCredentials": "https",
}
"""The classes of channel credentials, "" for none. Those of xDS may be in clear, as its server says."""
_WITH_CALL_CREDENTIALS: Final = {"CompositeChannelCredentials", "ComputeEngineChannelCredentials"}
_OTHER_RESOLVERS: Final = {"unix", "unix-abstract", "vsock", "xds", "google-c2p", "ipv4", "ipv6"}
"""What gRPC takes for a resolver and not for a host. A host of that name is written ``dns:///unix:443``."""
_PORT: Final = re.compile(r":[0-9]+\Z")
_IPV6: Final = re.compile(r"\[[^][]+\]:[0-9]+")
"""urlsplit drops what stands around the brackets."""
_NO_PROXY: Final = ("grpc.enable_http_proxy", 0)
_OWN_CREDENTIALS: Final = (
    "have call credentials, which would send a second Authorization header; nothing was sent. Leave them out, or use for_grpc().call_credentials()"
    " alone."
)
Options = Sequence[tuple[str, Any]] | None


class GrpcChannels:
    """Channels whose calls carry the token of one `ServiceTokenAuth`: this service's own, or a user's. Made by `ServiceTokenAuth.for_grpc`."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def channel(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None = None,
        *,
        options: Options = None,
        compression: grpc.Compression | None = None,
    ) -> grpc.Channel:
        """Return a channel for threads. Without `credentials` it is in clear, and the origin must be written with http.

        - `target` is ``host:port``, also ``dns:///host:port``, and is compared with the origins here, once.
        - A unary call that is refused with ``UNAUTHENTICATED`` is sent once more with another token. Streams and ``future()`` are not:
          the next call has another token.
        - No proxy of the environment is used, unless `options` says so.

        Raises:
            TokenWithheld: `target` is none of the origins.
            ConfigurationError: `credentials` contain call credentials, or it cannot be known whether they encrypt.
        """
        self._check(target, credentials)
        options = _NO_PROXY, *(options or ())
        if credentials is None:
            made = grpc.insecure_channel(target, options=options, compression=compression)
        else:
            made = grpc.secure_channel(target, credentials, options=options, compression=compression)
        return grpc.intercept_channel(made, _Interceptor(self._rules))

    def aio_channel(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None = None,
        *,
        options: Options = None,
        compression: grpc.Compression | None = None,
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    ) -> grpc.aio.Channel:
        """Do as `channel`, for the running event loop. `interceptors` see each call before the token is attached."""
        self._check(target, credentials)
        options = _NO_PROXY, *(options or ())
        all_interceptors = [*interceptors, *(kind(self._rules) for kind in _AIO)]
        if credentials is None:
            return grpc.aio.insecure_channel(target, options, compression, all_interceptors)
        return grpc.aio.secure_channel(target, credentials, options, compression, all_interceptors)

    def call_credentials(self) -> grpc.CallCredentials:
        """Return call credentials for a TLS channel that another library makes; gRPC refuses them on other channels.

        - Each call's service URL is compared with the origins. If it is none of them, the call ends with ``UNAVAILABLE``, and nothing is sent.
        - They cannot see the call: an ``authorization`` of one's own is sent beside the token, the token of the current request is not
          found, and nothing is sent again. Use `channel` if you can, and never both.
        """
        return grpc.metadata_call_credentials(_Plugin(self._rules), name="s2s_fastapi")

    def _check(self, target: str, credentials: grpc.ChannelCredentials | None) -> None:
        # gRPC says it nowhere else. If it says it no more, the class is unknown, never "none".
        kind = "" if credentials is None else type(getattr(credentials, "_credentials", None)).__name__
        if kind in _WITH_CALL_CREDENTIALS:
            raise ConfigurationError(f"The channel's credentials {_OWN_CREDENTIALS}")
        scheme = _SCHEMES.get(kind)
        if scheme is None:
            raise ConfigurationError(
                "It cannot be known whether a channel with these credentials is encrypted: use grpc.ssl_channel_credentials(), or make the"
                " channel yourself with for_grpc().call_credentials()."
            )
        # Without a port, gRPC takes 443 also in clear: no origin says that.
        there = _pin_of(target, scheme) if _PORT.search(target) else None
        if there is None:
            raise self._rules.withheld(
                "The target of a gRPC channel must be host:port or dns:///host:port, as in the origin: no channel was made."
            )
        self._rules.check_target(there)


def _pin_of(target: str, scheme: str) -> Pin | None:
    """Return where a target leads, or None if that is no host with a port."""
    if target.partition(":")[0].lower() in _OTHER_RESOLVERS:
        return None
    host = (
        target.removeprefix("dns:").removeprefix("///") if target.startswith("dns:///") else target.removeprefix("dns:")
    )
    try:
        url = urlsplit(f"//{host}")
        if url.netloc != host or "@" in host or ("[" in host and not _IPV6.fullmatch(host)):
            return None
        return pin_at(scheme, url.hostname, url.port)
    except ValueError:
        return None


class _Call(NamedTuple):
    """The details of a call with our metadata: gRPC reads these names."""

    method: Any
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


def _checked(rules: Rules, call: Any) -> dict[str, str]:
    """Check a call, and return the trace that it is to carry."""
    if call.credentials is not None:
        raise rules.withheld(f"The arguments of the call {_OWN_CREDENTIALS}")
    rules.check_content(iter(call.metadata or ()))
    trace = {name.lower(): "" for name, _ in call.metadata or ()}
    return {name.lower(): trace[name] for name in propagated(trace)}


def _carrying(call: Any, header: str, trace: dict[str, str], kind: Callable[..., Any]) -> _Call:
    # A placeholder is replaced.
    rest = [(name, value) for name, value in call.metadata or () if name.lower() != _AUTHORIZATION]
    metadata = kind(*rest, *trace.items(), (_AUTHORIZATION, header))
    compression = getattr(call, "compression", None)
    return _Call(call.method, call.timeout, metadata, call.credentials, call.wait_for_ready, compression)


def _plain(*pairs: tuple[str, Any]) -> tuple[tuple[str, Any], ...]:
    return pairs


def _sent(details: _Call) -> str:
    """Return the header that a call carried: kept in no variable, because error trackers record those."""
    return str(list(details.metadata)[-1][1])


def _refuses(code: Any, trailing: Iterable[Any] | None) -> bool:
    """Return whether a call ended because its token was refused. A gateway may say in a challenge that it was for another reason."""
    if code is not grpc.StatusCode.UNAUTHENTICATED:
        return False
    challenges = [value for name, value in trailing or () if name == "www-authenticate" and isinstance(value, str)]
    return not challenges or challenge_error(challenges) == "invalid_token"


class _Interceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """The innermost interceptor of a channel for threads."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        trace = _checked(self._rules, client_call_details)
        details = _carrying(client_call_details, self._rules.header(), trace, _plain)
        call = continuation(details, request)
        if not call.done():  # of future(): to look at its outcome would wait for it
            return self._noting(call, details)
        if _refuses(call.code(), call.trailing_metadata()):
            header = self._rules.another(_sent(details), resend=True)
            if header is not None:
                return continuation(_carrying(client_call_details, header, trace, _plain), request)
        return call

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._stream(continuation, client_call_details, request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return self._stream(continuation, client_call_details, request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return self._stream(continuation, client_call_details, request_iterator)

    def _stream(self, continuation: Any, call: Any, request: Any) -> Any:
        trace = _checked(self._rules, call)
        details = _carrying(call, self._rules.header(), trace, _plain)
        return self._noting(continuation(details, request), details)

    def _noting(self, call: Any, details: _Call) -> Any:
        """Let a call go on, and mark its token when the call ends in a refusal."""

        def note() -> None:
            if _refuses(call.code(), call.trailing_metadata()):
                self._rules.tokens.refused(_sent(details))

        if (isinstance(call, grpc.Future) and call.done()) or not call.add_callback(note):
            note()
        return call


class _AioInterceptor:
    """What the innermost interceptors of a channel for an event loop share. gRPC takes one object for each kind of call."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._noting: set[asyncio.Task[None]] = set()  # the loop keeps only weak references

    async def _send(self, continuation: Any, call: Any, request: Any) -> tuple[Any, _Call, dict[str, str]]:
        trace = _checked(self._rules, call)
        details = _carrying(call, await self._rules.aheader(), trace, grpc.aio.Metadata)
        return await continuation(details, request), details, trace

    async def _stream(self, continuation: Any, given: Any, request: Any) -> Any:
        call, details, _ = await self._send(continuation, given, request)

        def ended(_: Any) -> None:
            task = asyncio.create_task(self._note(call, details))
            self._noting.add(task)
            task.add_done_callback(self._noting.discard)

        call.add_done_callback(ended)
        return call

    async def _note(self, call: Any, details: _Call) -> None:
        if _refuses(await call.code(), await call.trailing_metadata()):
            self._rules.tokens.refused(_sent(details))


class _AioUnaryUnary(_AioInterceptor, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        call, details, trace = await self._send(continuation, client_call_details, request)
        if _refuses(await call.code(), await call.trailing_metadata()):
            header = await self._rules.aanother(_sent(details), resend=True)
            if header is not None:
                return await continuation(_carrying(client_call_details, header, trace, grpc.aio.Metadata), request)
        return call


class _AioUnaryStream(_AioInterceptor, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._stream(continuation, client_call_details, request)


class _AioStreamUnary(_AioInterceptor, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._stream(continuation, client_call_details, request_iterator)


class _AioStreamStream(_AioInterceptor, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._stream(continuation, client_call_details, request_iterator)


_AIO: Final = _AioUnaryUnary, _AioUnaryStream, _AioStreamUnary, _AioStreamStream


class _Plugin(grpc.AuthMetadataPlugin):
    """What call credentials ask for each call, on a thread of gRPC's."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        """Give the token for a call to ``context.service_url``, or an error."""
        scheme, _, rest = context.service_url.partition("://")  # no scheme: local credentials, so in clear
        try:
            self._rules.check_target(_pin_of(rest.partition("/")[0], scheme or "http"))
            callback(((_AUTHORIZATION, self._rules.header()),), None)
        except S2SError as error:
            callback((), error)
