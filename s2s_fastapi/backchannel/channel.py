"""HTTP requests to Keycloak, limited in time and size. Redirects are not followed, and no secret is logged.

A request blocks, and runs on worker threads. Whatever the other side does, it ends by its deadline with a `Reply`, or with one
sentence that is safe for the log.
"""

import re
import ssl
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import httpx

from s2s_fastapi.backchannel.strict_json import AmbiguousJsonError, NotAnObjectError, json_object
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.process import undisturbed
from s2s_fastapi.telemetry.foreign import held_back
from s2s_fastapi.telemetry.spans import Span, answered, failed, propagated, span_of_request

if TYPE_CHECKING:
    from s2s_fastapi.backchannel.deadline import Deadline
    from s2s_fastapi.settings import ProxyUrl

__all__ = ["BackChannel", "BackChannelError", "Reply", "unused_proxy"]

_HEADERS: Final = {
    "Accept": "application/json",
    # A few bytes of gzip become gigabytes: the limit counts bytes on the wire, so nothing may be decompressed after it.
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "s2s-fastapi",
}


class BackChannelError(Exception):
    """Keycloak gave no answer, or no readable one. The text names the reason, and never shows what was sent.

    ``connected`` says that a connection stood: then another request may well get an answer.
    """

    def __init__(self, sentence: str, *, connected: bool = False) -> None:
        super().__init__(sentence)
        self.connected = connected


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer, whatever its status. Body and headers may contain a token, so the ``repr`` shows neither."""

    status: int
    headers: httpx.Headers = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def sentence(self) -> str:
        """The status in words for the log: ``answered 302 (redirects are not followed)``."""
        return f"answered {self.status}" + (" (redirects are not followed)" if 300 <= self.status < 400 else "")  # noqa: PLR2004

    def json_object(self) -> dict[str, Any]:
        """Return the body as a JSON object that has exactly one reading: see `s2s_fastapi.backchannel.strict_json`.

        Raises:
            BackChannelError: for anything else; the text shows none of the body.
        """
        problem = "the answer is not JSON"
        if not self.body.strip():
            problem = "the answer is empty"
        elif self.body.startswith(b"\xef\xbb\xbf"):
            problem = "the answer starts with a byte order mark"
        elif self.body.lstrip().startswith(b"<"):
            problem = "the answer is HTML or XML instead of JSON: the address is wrong, or a proxy answered"
        else:
            try:
                return json_object(self.body)
            except AmbiguousJsonError as error:
                problem = f"the answer has {error}"
            except NotAnObjectError:
                problem = "the answer is JSON, but not an object"
            except ValueError:  # not UTF-8, not JSON, numbers of thousands of digits
                pass
        # Outside the except block: a JSONDecodeError carries the whole document.
        raise BackChannelError(problem, connected=True)


@dataclass(frozen=True, slots=True)
class _Question:
    """A request to send. A custom transport may log while it sends, and error trackers record the locals of all frames above."""

    method: str
    url: str
    headers: Mapping[str, str] | None = field(repr=False)
    form: Mapping[str, str] | None = field(repr=False)

    def request(self, timeout: float) -> httpx.Request:
        """Return the httpx request; its ``repr`` shows neither headers nor body."""
        request = httpx.Request(
            self.method,
            self.url,
            headers={**_HEADERS, **(self.headers or {})},
            data=self.form,
            extensions={"timeout": httpx.Timeout(timeout).as_dict()},
        )
        propagated(request.headers)
        return request


class _Body:
    """The bytes of an answer, hidden from error trackers: it may be a token."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes)

    def __bytes__(self) -> bytes:
        return bytes(self._bytes)

    def add(self, chunk: bytes) -> None:
        self._bytes += chunk


class BackChannel:
    """Requests to Keycloak, each on its own connection: no cookie is kept, and no socket is shared across a fork.

    - `timeout`: seconds for a whole request and its answer, even if the answer arrives byte by byte (only DNS may take longer).
    - `limit`: largest body in bytes.
    - Redirects are not followed. The environment's proxies and other settings are not read; if `proxy` is given, it is always used.
    - TLS trusts the system's certificates and those in `ca_file`, which is read again after a failed connection.
    - `transport` makes one httpx transport for each request, instead of the network.
    """

    def __init__(
        self,
        *,
        ca_file: Path | None = None,
        proxy: "ProxyUrl | None" = None,
        transport: Callable[[], httpx.BaseTransport] | None = None,
        timeout: float,
        limit: int = 262_144,
    ) -> None:
        self._ca_file = ca_file
        self._proxy = proxy
        self._transport = transport
        self._timeout = timeout
        self._limit = limit
        self._tls: ssl.SSLContext | None = None

    @property
    def proxied(self) -> bool:
        """Whether all requests go through a proxy."""
        return self._proxy is not None

    @classmethod
    def shared(cls, ca_file: Path | None, timeout: float, proxy: "ProxyUrl | None" = None) -> "BackChannel":
        """Return the one channel of this process with the same certificates, timeout and proxy.

        The trusted certificates take 0.9 MB and 25 ms to read, so apps and tokens share them.
        """
        return _shared(ca_file, timeout, proxy)

    def get(self, url: str, headers: Mapping[str, str] | None = None, *, timeout: float | None = None) -> Reply:
        """Return the answer to a GET; `timeout` replaces the channel's own.

        Raises:
            BackChannelError: there is no complete answer.
            ConfigurationError: ``KEYCLOAK_CA_FILE`` cannot be read.
        """
        return self._request(_Question("GET", url, headers, None), timeout or self._timeout)

    def post_form(self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Reply:
        """Return the answer to a POST of `form`, as ``application/x-www-form-urlencoded``.

        Raises:
            BackChannelError: there is no complete answer.
            ConfigurationError: ``KEYCLOAK_CA_FILE`` cannot be read.
        """
        question = _Question("POST", url, headers, form)
        del form, headers  # this frame is above httpx's frames too
        return self._request(question, self._timeout)

    def _request(self, question: _Question, timeout: float) -> Reply:
        with span_of_request(question.method, question.url) as current:
            with held_back():
                outcome = self._outcome(question, timeout, current)
            if not isinstance(outcome, Reply):
                failed(current, *outcome[:2])
        if isinstance(outcome, Reply):
            return outcome
        # Outside all except blocks: then even the hidden context does not lead to the frames below. Outside the span too: it would
        # record this error's type instead of the cause.
        raise BackChannelError(outcome[1], connected=outcome[2])

    def _outcome(self, question: _Question, timeout: float, current: Span) -> Reply | tuple[str, str, bool]:
        """Return the answer, or the kind of failure, its sentence, and whether a connection stood."""
        connected = False
        try:
            return self._converse(question, timeout, current)
        except ConfigurationError:
            raise
        except BackChannelError as error:
            kind, sentence, connected = "unusable_answer", str(error), True
        except httpx.TimeoutException as error:
            connected = not isinstance(error, httpx.ConnectTimeout)
            kind, sentence = "timeout", f"no complete answer within {timeout:g} s"
        except httpx.ConnectError as error:
            kind, sentence = (
                "connection",
                f"cannot connect to {_origin(question.url)}{self._through()}: {_reason(error)}",
            )
            if self._ca_file is not None:  # the file may be replaced while we run: read it again at the next try
                self._tls = None
        except httpx.NetworkError as error:
            kind, sentence, connected = "connection", f"the connection broke: {_reason(error)}", True
        except httpx.ProxyError as error:
            kind, sentence = (
                "proxy",
                f"no connection to {_origin(question.url)}{self._through()}, which {_answered(error)}",
            )
        except httpx.RemoteProtocolError:
            kind, sentence = "protocol", "the answer is not HTTP, or the connection was closed too early"
            connected = True
        except Exception as error:  # noqa: BLE001 - only the type is named: text and frames may contain the secret
            kind, sentence = type(error).__name__, f"the request could not be made: {type(error).__name__}"
        return kind, sentence, connected

    def _converse(self, question: _Question, timeout: float, current: Span) -> Reply:
        # httpcore takes as long to import as this whole package: it is loaded for the first request, on a worker thread.
        from s2s_fastapi.backchannel.deadline import Deadline  # noqa: PLC0415

        deadline = Deadline(timeout)
        # No httpx.Client: it would log before the result is published, and a log handler may need our token.
        request = question.request(timeout)
        with (
            self._transport() if self._transport else self._wire(request.url, deadline) as transport,
            closing(transport.handle_request(request)) as response,
        ):
            answered(current, response.status_code)
            if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
                raise BackChannelError("the answer is compressed, although the request forbids it")
            body = _Body()
            # Nothing is compressed here, so these are the bytes on the wire. (A transport in memory has no raw bytes.)
            for chunk in response.iter_bytes():
                body.add(chunk)
                del chunk
                if len(body) > self._limit:
                    raise BackChannelError(f"the answer is larger than {self._limit} bytes")
                deadline.left()
            return Reply(response.status_code, response.headers, bytes(body))

    def _wire(self, url: httpx.URL, deadline: "Deadline") -> httpx.BaseTransport:
        from s2s_fastapi.backchannel.deadline import DeadlineTransport  # noqa: PLC0415 - as above

        proxy = None if self._proxy is None else httpx.Proxy(self._proxy.get_secret_value())
        secure = url.scheme == "https" or (proxy is not None and proxy.url.scheme == "https")
        return DeadlineTransport(self._trusting() if secure else None, deadline, proxy)

    def _through(self) -> str:
        return "" if self._proxy is None else f" through the proxy {self._proxy} (KEYCLOAK_PROXY)"

    def _trusting(self) -> ssl.SSLContext:
        # Takes 20 to 35 ms, so it is built once, when it is needed. If two threads build one, one of them is kept. Not cached_property:
        # in Python 3.11 it has one lock for all channels, and a fork may happen while a thread is about to take it.
        context = self._tls
        if context is None:
            context = self._tls = undisturbed(self._trust)
        return context

    def _trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._ca_file is None:
            return context
        try:
            context.load_verify_locations(self._ca_file)
        except OSError as error:  # ssl.SSLError is one
            reason = error.strerror or type(error).__name__
        else:
            return context
        raise ConfigurationError(f"KEYCLOAK_CA_FILE: cannot read certificates from {self._ca_file}: {reason}.")


def unused_proxy(url: str) -> str:
    """Return the environment variable that names a proxy for `url`, or "". No request to Keycloak uses it.

    The value of the variable is not shown: it may contain a password.
    """
    parts = urlsplit(url)
    proxies = getproxies_environment()
    scheme = next((name for name in (parts.scheme, "all") if proxies.get(name)), "")
    if not scheme or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return ""
    return f"{scheme}_proxy".upper()


def _answered(error: httpx.ProxyError) -> str:
    """Return what a proxy answered to CONNECT: only the status, since the rest is untrusted text."""
    status = str(error).partition(" ")[0]
    if status == "407":
        return "wants another user name or password: put them into KEYCLOAK_PROXY"
    return f"answered {status}" if re.fullmatch("[0-9]{3}", status) else "did not answer as a proxy does"


@lru_cache(maxsize=16)
def _shared(ca_file: Path | None, timeout: float, proxy: "ProxyUrl | None") -> BackChannel:
    return BackChannel(ca_file=ca_file, proxy=proxy, timeout=timeout)


def _origin(url: str) -> str:
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"


def _reason(error: BaseException) -> str:
    """Return the reason that the operating system or TLS gave at the end of the chain."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    return "no reason given"
