"""HTTP requests to Keycloak, limited in time and size. Redirects are not followed, and no secret is logged.

A request blocks, and runs on worker threads. Whatever the other side does, it ends by its deadline with a `Reply`, or with one
sentence that is safe for the log.
"""

import re
import ssl
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import httpx

from s2s_fastapi.backchannel.client_certificate import (
    ClientCertificate,
    ClientTls,
    LoadedCertificate,
    alert_in,
    chain,
    ended,
    trusting,
)
from s2s_fastapi.backchannel.strict_json import AmbiguousJsonError, NotAnObjectError, json_object
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.process import undisturbed
from s2s_fastapi.telemetry.foreign import held_back
from s2s_fastapi.telemetry.spans import Span, answered, failed, propagated, span_of_request

if TYPE_CHECKING:
    from s2s_fastapi.backchannel.deadline import Deadline
    from s2s_fastapi.settings import ProxyUrl

__all__ = ["CLIENT_CERTIFICATE", "BackChannel", "BackChannelError", "Reply", "unused_proxy"]

CLIENT_CERTIFICATE: Final = "client certificate"
"""Stands in the sentence of a failure that is due to our certificate, and in no other."""
_WANTED: Final = "TLSV13_ALERT_CERTIFICATE_REQUIRED"

_HEADERS: Final = {
    "Accept": "application/json",
    # A few bytes of gzip become gigabytes: the limit counts bytes on the wire, so nothing may be decompressed after it.
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "s2s-fastapi",
}


class BackChannelError(Exception):
    """Keycloak gave no answer, or no readable one. The text names the reason, and never shows what was sent.

    - ``connected`` says that a connection stood: then another request may well get an answer.
    - ``certificate`` says that the server did not accept our client certificate, or wants one: the same request will not get an answer.
    """

    def __init__(self, sentence: str, *, connected: bool = False, certificate: bool = False) -> None:
        super().__init__(sentence)
        self.connected = connected
        self.certificate = certificate


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer, whatever its status. Body and headers may contain a token, so the ``repr`` shows neither."""

    status: int
    headers: httpx.Headers = field(repr=False)
    body: bytes = field(repr=False)
    certificate: str = field(default="", repr=False)
    """``x5t#S256`` of the client certificate that the request showed; empty if it showed none."""

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
    - `certificate` is shown to Keycloak over https, never to a proxy. A POST needs it. A GET, which asks for what everybody may know, goes
      without it if it cannot be used or has expired: then services still get the keys.
    - `transport` makes one httpx transport for each request, instead of the network.
    """

    def __init__(
        self,
        *,
        ca_file: Path | None = None,
        proxy: "ProxyUrl | None" = None,
        certificate: ClientCertificate | None = None,
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
        self._client = None if certificate is None else ClientTls.shared(certificate, ca_file)

    @property
    def proxied(self) -> bool:
        """Whether all requests go through a proxy."""
        return self._proxy is not None

    @classmethod
    def shared(
        cls,
        ca_file: Path | None,
        timeout: float,
        proxy: "ProxyUrl | None" = None,
        certificate: ClientCertificate | None = None,
    ) -> "BackChannel":
        """Return the one channel of this process with the same certificates, timeout and proxy.

        The trusted certificates take 0.9 MB and 25 ms to read, so apps and tokens share them.
        """
        return _shared(ca_file, timeout, proxy, certificate)

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
            ConfigurationError: ``KEYCLOAK_CA_FILE`` or the client certificate cannot be used.
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
        raise BackChannelError(outcome[1], connected=outcome[2], certificate=outcome[0] == "certificate")

    def _outcome(self, question: _Question, timeout: float, current: Span) -> Reply | tuple[str, str, bool]:
        """Return the answer, or the kind of failure, its sentence, and whether a connection stood."""
        connected, shown, begun = False, None, list[int]()
        try:
            shown = self._shown(question)
            return self._converse(question, timeout, current, shown, begun)
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
                if self._client is not None:
                    self._client.forget()
            kind, sentence = self._certificate_refused(error, shown, begun) or (kind, sentence)
        except httpx.NetworkError as error:
            kind, sentence, connected = "connection", f"the connection broke: {_reason(error)}", True
            kind, sentence = self._certificate_refused(error, shown, begun) or (kind, sentence)
        except httpx.ProxyError as error:
            kind, sentence = (
                "proxy",
                f"no connection to {_origin(question.url)}{self._through()}, which {_answered(error)}",
            )
        except httpx.RemoteProtocolError as error:
            kind, sentence = "protocol", "the answer is not HTTP, or the connection was closed too early"
            connected = True
            kind, sentence = self._certificate_refused(error, shown, begun) or (kind, sentence)
        except Exception as error:  # noqa: BLE001 - only the type is named: text and frames may contain the secret
            kind, sentence = type(error).__name__, f"the request could not be made: {type(error).__name__}"
        return kind, sentence, connected

    def _shown(self, question: _Question) -> LoadedCertificate | None:
        """Return the certificate that a request shows, or None.

        Raises:
            ConfigurationError: It needs one, and there is none that can be used.
        """
        if self._client is None or self._transport is not None or not question.url.lower().startswith("https:"):
            return None
        if question.method != "GET":
            return self._client.now()
        try:
            current = self._client.now()
        except ConfigurationError:
            return None
        return current if current.lasts() else None

    def _certificate_refused(
        self, error: BaseException, shown: LoadedCertificate | None, begun: list[int]
    ) -> tuple[str, str] | None:
        """Return the kind and the sentence of a failure that is due to the client certificate, or None if it is due to something else.

        `begun` has the status of an answer that had begun.
        """
        alert = alert_in(error)
        if shown is None or self._client is None:
            if alert == _WANTED:
                return "certificate", f"the server wants a {CLIENT_CERTIFICATE}, and this request showed none ({alert})"
            return None
        # In TLS 1.3 the server looks at the certificate after our handshake is complete, and some end the connection without a word.
        if not alert and (begun or not ended(error)):
            return None
        now, files = datetime.now(UTC), self._client.certificate.named
        said = (
            f"the server does not accept the {CLIENT_CERTIFICATE} {shown.subject}"
            if alert
            else (
                f"the server ended the connection without an answer, as if it did not accept the {CLIENT_CERTIFICATE} {shown.subject}"
            )
        )
        more = f" ({alert})" if alert else ""
        if now > shown.ends:
            more += f", which expired at {shown.ends:%Y-%m-%dT%H:%M:%SZ}"
        elif now < shown.begins:
            more += f", which is valid from {shown.begins:%Y-%m-%dT%H:%M:%SZ} on"
        if self._client.problem:
            more += f"; it was read before its files changed, and now {self._client.problem}"
        return "certificate", f"{said}, issued by {shown.issuer}, in {files}{more}"

    def _converse(
        self,
        question: _Question,
        timeout: float,
        current: Span,
        shown: LoadedCertificate | None,
        begun: list[int],
    ) -> Reply:
        # httpcore takes as long to import as this whole package: it is loaded for the first request, on a worker thread.
        from s2s_fastapi.backchannel.deadline import Deadline  # noqa: PLC0415

        deadline = Deadline(timeout)
        # No httpx.Client: it would log before the result is published, and a log handler may need our token.
        request = question.request(timeout)
        with (
            self._transport() if self._transport else self._wire(request.url, deadline, shown) as transport,
            closing(transport.handle_request(request)) as response,
        ):
            begun.append(response.status_code)
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
            return Reply(response.status_code, response.headers, bytes(body), shown.thumbprint if shown else "")

    def _wire(self, url: httpx.URL, deadline: "Deadline", shown: LoadedCertificate | None) -> httpx.BaseTransport:
        from s2s_fastapi.backchannel.deadline import DeadlineTransport  # noqa: PLC0415 - as above

        proxy = None if self._proxy is None else httpx.Proxy(self._proxy.get_secret_value())
        secure_proxy = proxy is not None and proxy.url.scheme == "https"
        plain = self._trusting() if secure_proxy or (url.scheme == "https" and shown is None) else None
        return DeadlineTransport(plain if shown is None else shown.context, deadline, proxy, plain)

    def _through(self) -> str:
        return "" if self._proxy is None else f" through the proxy {self._proxy} (KEYCLOAK_PROXY)"

    def _trusting(self) -> ssl.SSLContext:
        # Takes 20 to 35 ms, so it is built once, when it is needed. If two threads build one, one of them is kept. Not cached_property:
        # in Python 3.11 it has one lock for all channels, and a fork may happen while a thread is about to take it.
        context = self._tls
        if context is None:
            context = self._tls = undisturbed(lambda: trusting(self._ca_file))
        return context


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
def _shared(
    ca_file: Path | None, timeout: float, proxy: "ProxyUrl | None", certificate: ClientCertificate | None
) -> BackChannel:
    return BackChannel(ca_file=ca_file, proxy=proxy, timeout=timeout, certificate=certificate)


def _origin(url: str) -> str:
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"


def _reason(error: BaseException) -> str:
    """Return the reason that the operating system or TLS gave at the end of the chain."""
    for cause in chain(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
    return "no reason given"
