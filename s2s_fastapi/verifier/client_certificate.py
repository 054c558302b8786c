"""The client certificate of a request, for tokens that are bound to one (RFC 8705 section 3).

It comes from the server that ends TLS itself (the ASGI TLS extension), or in a header of the proxy that does. Anybody can write a header, and
an address proves nothing behind a server that believes ``X-Forwarded-For``. So the header counts only beside a secret of the proxy.
"""

import hmac
import ipaddress
import os
import re
from base64 import urlsafe_b64encode
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, Self

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.keycloak.cures import (
    ADDRESS_REWRITTEN,
    NO_CERTIFICATE,
    NO_TLS_EXTENSION,
    UNVERIFIED_CERTIFICATE,
    certificate_header_cure,
    other_certificate_cure,
    proxy_secret_cure,
)
from s2s_fastapi.text import printable

__all__ = ["CertificateHeader", "CertificateSource", "ClientCertificates", "MatchedCertificate", "checked_source"]

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""The name of a header (RFC 9110 section 5.1)."""
_TAKEN: Final = frozenset(
    {
        *("authorization", "dpop", "cookie", "user-agent", "accept", "origin", "referer", "date", "range"),
        *("host", "forwarded", "via", "x-real-ip", "x-request-id", "traceparent", "tracestate"),
        *(f"x-forwarded-{each}" for each in ("for", "host", "proto", "port", "prefix", "server", "by", "scheme")),
        *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"),
        *("proxy-authenticate", "proxy-authorization", "proxy-connection"),
        *("content-length", "content-type", "content-encoding"),
    }
)
"""Headers that callers write, that mean something else, or that end at the next hop."""
_LEAST_SECRET: Final = 32
"""Bytes of a secret, at least."""
_MOST_SECRET: Final = 4096
"""Bytes of the file with the secret, at most."""
_SECRET: Final = re.compile(rb"[\x21-\x7e]+")
_MOST_CERTIFICATE: Final = 64 * 1024
"""Bytes of a header with a certificate, at most."""
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END CERTIFICATE-----\s*")
_PERCENT: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_BAD_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ELEMENT: Final = re.compile(rb'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^",;]*)(;|\Z)')
"""One pair of an element of Envoy's header. A comma outside quotes begins the next element, so it fits nowhere here."""
_HASH: Final = re.compile(rb"[0-9A-Fa-f]{64}")
_MOST_ADDRESSES: Final = 100
"""Addresses in ``X-Forwarded-For`` and ``Forwarded`` together that are compared, at most: callers write them."""
_FOR: Final = re.compile(r'(?i)for\s*=\s*("(?:[^"\\]|\\.)*"|[^;,\s]*)')

Form = Literal["rfc9440", "envoy", "nginx", "traefik"]


@dataclass(frozen=True, slots=True)
class MatchedCertificate:
    """The certificate of one request, which is the one that a token is bound to."""

    thumbprint: str
    """SHA-256 of its DER in base64url, as in ``cnf["x5t#S256"]`` (RFC 8705 section 3.1)."""


@dataclass(frozen=True, slots=True)
class CertificateHeader:
    """A header in which a proxy that ends TLS passes the caller's certificate on, and the secret by which the proxy is known.

    - ``name``: the header, such as ``"Client-Cert"``. The proxy must overwrite it in each request, also if there is no certificate.
    - ``form``: ``"rfc9440"`` (``:<base64 of the DER>:``, RFC 9440 section 2.1), ``"envoy"`` (``X-Forwarded-Client-Cert`` with one element that
      has ``Cert`` or ``Hash``), ``"nginx"`` (``$ssl_client_escaped_cert``: PEM, percent-encoded) or ``"traefik"`` (base64 of the DER alone).
    - ``secret_header`` and ``secret_file``: the proxy sends the secret in that header, and it stands in that file: at least 32 bytes of
      visible ASCII. Several lines are several secrets, so that a new one can be rolled out beside the old one. The file is read again when
      it changes. While it cannot be read, no certificate counts.
    - A request without the secret, with two such headers, or with more than one certificate brings none. Neither does a request whose address
      in ``scope["client"]`` also stands in ``X-Forwarded-For`` or ``Forwarded``: the server believes these headers then. With more than
      100 addresses there, or with a ``scope["client"]`` that is no address beside them, it brings none either.

    Raises:
        ConfigurationError: A name is not that of a header, or the form is unknown.
    """

    name: str
    form: Form
    secret_header: str
    secret_file: str | os.PathLike[str]

    def __post_init__(self) -> None:
        headers: tuple[tuple[str, object], ...] = (("name", self.name), ("secret_header", self.secret_header))
        for argument, header in headers:
            if not isinstance(header, str) or not _TOKEN.fullmatch(header) or header.lower() in _TAKEN:
                raise ConfigurationError(
                    f'CertificateHeader({argument}=) takes the name of a header that the proxy alone writes, such as "Client-Cert", not'
                    f" {header!r}."
                )
        if self.name.lower() == self.secret_header.lower():
            raise ConfigurationError(
                "CertificateHeader: the certificate and the secret need a header each, but name and secret_header are the same."
            )
        if self.form not in _FORMS:
            raise ConfigurationError(
                f'CertificateHeader(form=) takes "rfc9440", "envoy", "nginx" or "traefik", not {self.form!r}.'
            )
        file: object = self.secret_file
        if not isinstance(file, str | os.PathLike) or not os.fspath(file):
            raise ConfigurationError(
                "CertificateHeader(secret_file=) takes the path of the file with the secret that the proxy sends in"
                f" {self.secret_header}, not {file!r}."
            )


CertificateSource = Literal["tls"] | CertificateHeader


def checked_source(source: object) -> CertificateSource | None:
    """Return where client certificates come from.

    Raises:
        ConfigurationError: It is something else.
    """
    if source is None or isinstance(source, CertificateHeader):
        return source
    if source == "tls" and isinstance(source, str):
        return "tls"
    raise ConfigurationError(
        'client_certificate= takes "tls" (the server ends TLS and has the ASGI TLS extension) or a CertificateHeader(...) of the proxy that'
        f" ends TLS, not {type(source).__name__}. Leave it out to refuse tokens that are bound to a certificate."
    )


class ClientCertificates:
    """Find the client certificate of a request, and compare it with the one that the request's token is bound to."""

    def __init__(self, source: CertificateSource) -> None:
        """Take where certificates come from. The file with the secret is read.

        Raises:
            ConfigurationError: The file cannot be read, or has no secret of at least 32 bytes.
        """
        self._header = source if isinstance(source, CertificateHeader) else None
        self._secrets = _Secrets(Path(source.secret_file)) if isinstance(source, CertificateHeader) else None
        if self._secrets is not None and (problem := self._secrets.read()):
            raise ConfigurationError(f"CertificateHeader(secret_file=): {problem}.")

    @classmethod
    def of(cls, source: object) -> Self | None:
        """Return the certificates of an app; None if it takes none.

        Raises:
            ConfigurationError: See `checked_source` and the constructor.
        """
        found = checked_source(source)
        return None if found is None else cls(found)

    @property
    def described(self) -> str:
        """Where certificates come from, for the log."""
        header = self._header
        return "the TLS connection (ASGI TLS extension)" if header is None else f"the header {header.name} of the proxy"

    def matched(self, scope: MutableMapping[str, Any], thumbprint: str) -> MatchedCertificate | Decision:
        """Return the certificate of a request or of a WebSocket's handshake if it is the one with this thumbprint; otherwise the refusal."""
        found = _of_connection(scope) if self._header is None else self._of_proxy(self._header, scope)
        if isinstance(found, Decision):
            return found
        if found != thumbprint:
            return Decision(reason=Reason.WRONG_CERTIFICATE, cure=other_certificate_cure(found, thumbprint))
        return MatchedCertificate(thumbprint)

    def _of_proxy(self, header: CertificateHeader, scope: MutableMapping[str, Any]) -> str | Decision:
        values: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            values.setdefault(name.lower(), []).append(value)
        assert self._secrets is not None  # noqa: S101 - made beside the header
        if cure := self._secrets.problem(header.secret_header, values.get(header.secret_header.lower().encode(), [])):
            return _missing(cure)
        if _rewritten(scope.get("client"), values):
            return _missing(ADDRESS_REWRITTEN)
        given = values.get(header.name.lower().encode(), [])
        if not given or given == [b""]:
            return _missing(NO_CERTIFICATE)
        problem = f"{len(given)} fields of that name" if len(given) > 1 else ""
        if len(given[0]) > _MOST_CERTIFICATE:
            problem = "it is longer than 64 KB"
        if problem:
            return _missing(certificate_header_cure(header.name, header.form, problem))
        try:
            return _FORMS[header.form](given[0])
        except ValueError as error:
            return _missing(certificate_header_cure(header.name, header.form, str(error)))


class _Secrets:
    """The secrets in a file. It is read again when it changes, and no other place has them."""

    __slots__ = ("_path", "_seen", "_values", "failure")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._values: tuple[bytes, ...] = ()
        self.failure = ""
        """Why the file gave no secret, when it was read last."""

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        """Leave the secrets out of a pickle: the copy reads the file."""
        return type(self), (self._path,)

    def read(self) -> str:
        """Read the file if it is not the one that was read last. Return what is wrong with it, or nothing."""
        try:
            now = self._path.stat()  # follows links: an orchestrator swaps them
            seen = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
            if seen != self._seen:
                self._seen, self._values = (), ()
                self._values, self.failure = self._secrets()
                self._seen = seen
        except OSError as error:
            self._seen, self._values = (), ()
            self.failure = f"{self._path} cannot be read ({error.strerror or type(error).__name__})"
        return self.failure

    def problem(self, header: str, given: list[bytes]) -> str:
        """Return why a request does not come from the proxy, by the values of its header; nothing if it does."""
        if failure := self.read():
            return proxy_secret_cure(header, failure)
        if not given:
            return proxy_secret_cure(header, "the request has none")
        if len(given) > 1:
            return proxy_secret_cure(header, f"the request has {len(given)}")
        # All are compared, so that the time says nothing about which one it was.
        held = [hmac.compare_digest(given[0], value) for value in self._values]
        return "" if any(held) else proxy_secret_cure(header, "the request has another value")

    def _secrets(self) -> tuple[tuple[bytes, ...], str]:
        if not self._path.is_file():
            return (), f"{self._path} is not a file"
        with self._path.open("rb") as file:
            content = file.read(_MOST_SECRET + 1)
        lines = tuple(line for each in content.split(b"\n") if (line := each.strip(b" \t\r")))
        if len(content) > _MOST_SECRET:
            return (), f"{self._path} is longer than {_MOST_SECRET} bytes"
        if not lines or any(len(line) < _LEAST_SECRET or not _SECRET.fullmatch(line) for line in lines):
            return (), (
                f"{self._path} must hold a secret of at least {_LEAST_SECRET} visible ASCII characters on each line, as `openssl rand -hex 32`"
                " makes one"
            )
        return lines, ""


def _of_connection(scope: Mapping[str, Any]) -> str | Decision:
    """Return the thumbprint of the certificate that the server saw (ASGI TLS extension: the client's own is the first of the chain)."""
    extensions = scope.get("extensions")
    tls = extensions.get("tls") if isinstance(extensions, Mapping) else None
    if not isinstance(tls, Mapping):
        return _missing(NO_TLS_EXTENSION)
    if tls.get("client_cert_error"):
        return _missing(f"{UNVERIFIED_CERTIFICATE} The server says: {printable(str(tls['client_cert_error']), 200)}.")
    chain = tls.get("client_cert_chain")
    if isinstance(chain, Iterator) and isinstance(tls, MutableMapping):
        chain = tls["client_cert_chain"] = tuple(chain)  # it can be read once, and a mounted app reads it again
    first = next(iter(chain), None) if isinstance(chain, Iterable) and not isinstance(chain, str | Mapping) else None
    if not isinstance(first, str):
        return _missing(NO_CERTIFICATE)
    try:
        return _thumbprint(_from_pem(first.encode("ascii")))
    except ValueError as error:
        return _missing(f"the first certificate of the ASGI TLS extension is no PEM certificate: {error}.")


def _missing(cure: str) -> Decision:
    return Decision(reason=Reason.CERTIFICATE_MISSING, cure=cure)


def _rewritten(client: object, headers: Mapping[bytes, list[bytes]]) -> bool:
    """Return whether the server may have taken the address of the connection from a header: then it also stands there."""
    said = ",".join(value.decode("latin-1") for value in headers.get(b"x-forwarded-for", []))
    forwarded = ",".join(value.decode("latin-1") for value in headers.get(b"forwarded", []))
    if not (said or forwarded) or not isinstance(client, list | tuple) or not client or not client[0]:
        return False  # a Unix socket has no address
    if said.count(",") + forwarded.count("=") > _MOST_ADDRESSES:
        return True  # to read them all would stop the event loop
    address = _address(str(client[0]))
    if address is None:
        return True  # no connection has such an address
    return any(_address(each) == address for each in (*said.split(","), *_FOR.findall(forwarded)))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address in a text, without quotes, spaces, brackets, port and zone; None if it has none.

    What a server cuts out of the text has the same address: cutting again changes nothing.
    """
    bare = "".join(text.replace('"', "").split()).lstrip("[").partition("]")[0]
    if bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        found = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _thumbprint(der: bytes) -> str:
    # One ASN.1 sequence from the first byte to the last, so that nothing comes before or after the certificate.
    # Its length takes two bytes, or one byte if it is below 256.
    digits = {b"\x30\x81": 1, b"\x30\x82": 2}.get(der[:2], 0)
    if not digits or int.from_bytes(der[2 : 2 + digits]) != len(der) - 2 - digits:
        raise ValueError("it is not one certificate in DER")
    return urlsafe_b64encode(sha256(der).digest()).rstrip(b"=").decode()


def _decoded(text: bytes) -> bytes:
    try:
        return a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise ValueError("it is not base64") from error


def _from_pem(text: bytes) -> bytes:
    found = _PEM.fullmatch(text)
    if found is None:
        raise ValueError("it is not one certificate in PEM")
    return _decoded(found[1].translate(None, b"\r\n"))


def _unescaped(value: bytes) -> bytes:
    if _BAD_PERCENT.search(value):
        raise ValueError("it is not percent-encoded")
    return _PERCENT.sub(lambda found: bytes((int(found[1], 16),)), value)


def _rfc9440(value: bytes) -> str:
    text = value.strip(b" ")
    if len(text) < 2 or text[:1] != b":" or text[-1:] != b":":  # noqa: PLR2004 - two colons
        raise ValueError("it is not one byte sequence between colons")
    return _thumbprint(_decoded(text[1:-1]))


def _nginx(value: bytes) -> str:
    return _thumbprint(_from_pem(_unescaped(value)))


def _traefik(value: bytes) -> str:
    if b"," in value:
        raise ValueError("it has several certificates")
    return _thumbprint(_decoded(value))


def _envoy(value: bytes) -> str:
    found: dict[bytes, list[bytes]] = {}
    at = 0
    while at < len(value):
        pair = _ELEMENT.match(value, at)
        if pair is None:
            raise ValueError("it is not exactly one element: set forward_client_cert_details to SANITIZE_SET")
        content = pair[2][1:-1] if pair[2][:1] == b'"' else pair[2]
        found.setdefault(pair[1].lower(), []).append(content)
        at = pair.end()
    certificates, hashes = found.get(b"cert", []), found.get(b"hash", [])
    if value.endswith(b";") or len(certificates) > 1 or len(hashes) > 1 or not (certificates or hashes):
        raise ValueError("it has not exactly one Cert or Hash")
    said = [_thumbprint(_from_pem(_unescaped(each))) for each in certificates]
    for each in hashes:
        if not _HASH.fullmatch(each):
            raise ValueError("its Hash is not that of SHA-256")
        said.append(urlsafe_b64encode(bytes.fromhex(each.decode())).rstrip(b"=").decode())
    if len(set(said)) != 1:
        raise ValueError("its Cert and its Hash are of two certificates")
    return said[0]


_FORMS: Final[Mapping[str, Callable[[bytes], str]]] = MappingProxyType(
    {"rfc9440": _rfc9440, "envoy": _envoy, "nginx": _nginx, "traefik": _traefik}
)
"""How a proxy writes one certificate: each returns its thumbprint, or raises `ValueError` with what is wrong."""
