"""The certificate with which this service shows in TLS who it is (RFC 8705), and the TLS contexts that show it.

The two files may be replaced at any time, one after the other. Until they fit together again, the pair before stays in use.
"""

import os
import re
import ssl
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self
from weakref import WeakValueDictionary

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.process import undisturbed, watch_forks
from s2s_fastapi.text import printable

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = [
    "ClientCertificate",
    "ClientTls",
    "LoadedCertificate",
    "RenewedContext",
    "alert_in",
    "chain",
    "ended",
    "trusting",
]

_LARGEST: Final = 262_144
_LOOK: Final = "look at the path, at what is mounted there, and at who may read it"
_KEPT: Final = 4
"""Certificates that are kept: a token that is bound to one of them lives on, and needs it."""
_MOST_LAST: Final = 16
"""Upper bound on the kinds of trust for which certificates outlive the clients that showed them."""
_ATTEMPTS: Final = 3
_MAX_NAME: Final = 300
_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"
_ALERTS: Final = re.compile(
    "ALERT_(.*_)?CERTIFICATE(_.*)?|.*ALERT_(UNKNOWN_CA|ACCESS_DENIED|NO_CERTIFICATE|HANDSHAKE_FAILURE|DECRYPT_ERROR)"
)
"""How OpenSSL names what a server says of a certificate (RFC 8446 section 6.2), version by version."""
_CERT: Final = "KEYCLOAK_CLIENT_CERT_FILE"
_KEY: Final = "KEYCLOAK_CLIENT_CERT_KEY_FILE"


@dataclass(frozen=True, slots=True)
class LoadedCertificate:
    """A certificate with its key, read from their files, in a TLS context that nobody changes. Its ``repr`` shows nothing of the key."""

    context: ssl.SSLContext = field(repr=False)
    thumbprint: str
    """``x5t#S256``: the SHA-256 of the certificate's DER in base64url (RFC 8705 section 3.1)."""
    subject: str
    """The subject as RFC 4514 writes it, the most specific part first: as Keycloak compares it."""
    issuer: str
    begins: datetime
    ends: datetime

    def lasts(self) -> bool:
        """Return whether it is valid now, by the clock of this machine."""
        return self.begins <= datetime.now(UTC) <= self.ends


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The two files of a certificate and its private key. Equal values are one certificate, whatever the files hold now."""

    cert_file: Path
    """PEM: the certificate, then those of the authorities between it and the one that servers know."""
    key_file: Path | None = None
    """PEM: the private key, without a password. None if it is in `cert_file`."""

    @classmethod
    def of(cls, settings: "KeycloakSettings") -> Self | None:
        """Return the certificate of `settings`, or None if there is none."""
        if settings.client_cert_file is None:
            return None
        return cls(settings.client_cert_file, settings.client_cert_key_file)

    @property
    def named(self) -> str:
        """The files and their settings, for a sentence."""
        key = f", {self.key_file} ({_KEY})" if self.key_file is not None else ""
        return f"{self.cert_file} ({_CERT}){key}"

    def names(self) -> tuple[str, str]:
        """Return the subject and the issuer that the file holds now, as RFC 4514 writes them; two empty texts if it cannot be read."""
        described = "" if _unreadable(self.cert_file) else _described(self.cert_file)
        return ("", "") if isinstance(described, str) else (described["subject"], described["issuer"])

    def stamp(self) -> object:
        """Return a value that changes if a file is replaced, also by a symbolic link. It needs one ``stat`` for each, and reads no file."""
        return tuple(_stamp(file) for file in (self.cert_file, self.key_file) if file is not None)

    def load(self, trust: Callable[[], ssl.SSLContext]) -> LoadedCertificate | str:
        """Return the pair that the files hold now, in a context that `trust` makes; or what is wrong with it, in a sentence.

        No exception from below leaves this method: it could carry the content of a file.

        Raises:
            ConfigurationError: `trust` raised it.
        """
        key_file = self.key_file or self.cert_file
        for said, file in ((_CERT, self.cert_file), (_KEY, key_file)):
            if problem := _unreadable(file):
                return f"{said}: {file} {problem}"
        described = _described(self.cert_file)
        if isinstance(described, str):
            return f"{_CERT}: {self.cert_file} {described}"
        context = trust()
        problem = _load_pair(context, self.cert_file, key_file)
        if problem:
            return f"{_KEY if self.key_file is not None else _CERT}: {key_file} {problem.format(certificate=self.cert_file)}"
        return LoadedCertificate(context, **described)


@dataclass(frozen=True, slots=True)
class _State:
    stamp: object = None
    kept: tuple[LoadedCertificate, ...] = ()  # the newest is the last
    problem: str = ""


class ClientTls:
    """The TLS contexts that show one `ClientCertificate`; made when they are first needed, and anew if a file changes.

    - `trust` makes a context that knows which servers to trust.
    - A pair that cannot be used (a file is missing or half written, or the key belongs to another certificate) changes nothing: the one
      before stays. It is read again when a file changes.
    - The last 4 certificates are kept, because a token that is bound to one of them can be used only with it.
    - All that show one `ClientCertificate` load together: a token that came over the connection of one is used over those of another.
    """

    def __init__(self, certificate: ClientCertificate, trust: Callable[[], ssl.SSLContext]) -> None:
        self.certificate = certificate
        self.trust = trust
        self._state = _State()
        self._loading = _loading_of(certificate)
        self._loading.add(self)

    @classmethod
    def succeeding(
        cls, certificate: ClientCertificate, trust: Callable[[], ssl.SSLContext], trusts: Hashable
    ) -> "ClientTls":
        """Return a new one, which has the certificates of the one before with equal `trusts`: those for which `trust` makes equal contexts.

        So an HTTP client that is opened after a renewal knows the certificate of a token that this process still uses.
        """
        made = cls(certificate, trust)
        made._loading.succeed(made, trusts)
        return made

    @classmethod
    def shared(cls, certificate: ClientCertificate, ca_file: Path | None) -> "ClientTls":
        """Return the one of this process that shows `certificate` to servers of the system's authorities and of those in `ca_file`."""
        return _shared(certificate, ca_file)

    @property
    def kept(self) -> tuple[LoadedCertificate, ...]:
        """The last certificates, the newest at the end. Reads no file."""
        return self._state.kept

    @property
    def problem(self) -> str:
        """Why the files cannot be used as they are now; "" if they can. Then the certificate before is in use, if there was one."""
        return self._state.problem

    def now(self) -> LoadedCertificate:
        """Return the current certificate. It needs two ``stat``, and 25 ms more if a file has changed.

        Raises:
            ConfigurationError: There is none that can be used; the sentence names the file and the cure.
        """
        state = self._state
        if self._outdated(state):
            with self._loading.lock:
                if self._outdated(self._state):  # else another thread loaded it meanwhile
                    undisturbed(self._load)
                state = self._state
        if not state.kept:
            raise ConfigurationError(f"{state.problem}.")
        return state.kept[-1]

    def showing(self, thumbprint: str) -> LoadedCertificate:
        """Return the certificate that a token is bound to; the current one if it is not kept, or if the token is bound to none.

        Raises:
            ConfigurationError: as `now`.
        """
        current = self.now()
        if not thumbprint or thumbprint == current.thumbprint:
            return current
        return next((one for one in self._state.kept if one.thumbprint == thumbprint), current)

    def forget(self) -> None:
        """Read everything again at the next use, also what `trust` reads."""
        with self._loading.lock:
            self._state = _State(kept=self._state.kept)

    def context(self) -> ssl.SSLContext:
        """Return a context whose connections show the certificate that is current when they are made. It may be kept for ever.

        Raises:
            ConfigurationError: as `now`.
        """
        self.now()
        return RenewedContext(self)

    def _outdated(self, state: _State) -> bool:
        return state.stamp is None or state.stamp != self.certificate.stamp()

    def _load(self) -> None:
        """Load the pair, here and in all others that show the same certificate. The caller holds the lock."""
        for _ in range(_ATTEMPTS):
            stamp = self.certificate.stamp()
            own = self.certificate.load(self.trust)
            others = [(tls, tls.beside(stamp)) for tls in self._loading.others(self)]
            # Else a file was replaced meanwhile, and the two may be of different pairs.
            if stamp == self.certificate.stamp():
                break
        else:
            self._state = _State(None, self._state.kept, f"{self.certificate.named}: the files are being replaced")
            return
        for tls, loaded in ((self, own), *others):
            tls.take(stamp, loaded)

    def beside(self, stamp: object) -> LoadedCertificate | str | None:
        """Load what another one loads; return None if it is here already, or if this one cannot: it says why at its own next use."""
        if self._state.stamp == stamp:
            return None
        try:
            return self.certificate.load(self.trust)
        except Exception:  # noqa: BLE001 - `trust` may be of an HTTP client, and its failure must not be that of the other one
            return None

    def begin_with(self, kept: tuple[LoadedCertificate, ...]) -> None:
        """Keep certificates that another one loaded."""
        self._state = _State(kept=kept)

    def take(self, stamp: object, loaded: LoadedCertificate | str | None) -> None:
        """Use what was loaded from files with this stamp."""
        kept = self._state.kept
        if isinstance(loaded, str):
            self._state = _State(stamp, kept, loaded)
        elif loaded is not None:
            others = (one for one in kept if one.thumbprint != loaded.thumbprint)
            self._state = _State(stamp, (*others, loaded)[-_KEPT:])

    def __reduce__(self) -> NoReturn:
        raise TypeError("A TLS context with a private key is not pickled: each process reads the files itself.")


class _Loading:
    """The one load of a certificate that a process makes at a time, and who takes part in it.

    Without the lock, a slow thread could put what it began with over what another one loaded meanwhile, and lose a certificate. Each
    certificate has a lock of its own: a file system that hangs stops no other certificate.
    """

    def __init__(self) -> None:
        # Reentrant, because a signal handler may make a request on the thread that loads.
        self.lock = threading.RLock()
        self._all: WeakValueDictionary[int, ClientTls] = WeakValueDictionary()
        self._last: dict[Hashable, ClientTls] = {}
        watch_forks(self)

    def add(self, tls: ClientTls) -> None:
        self._all[id(tls)] = tls

    def succeed(self, tls: ClientTls, trusts: Hashable) -> None:
        """Let `tls` begin with what the last one with equal `trusts` had. It loads with all others as long as the process lives."""
        with self.lock:
            before = self._last.pop(trusts, None)
            if before is not None:
                tls.begin_with(before.kept)
            elif len(self._last) >= _MOST_LAST:
                del self._last[next(iter(self._last))]
            self._last[trusts] = tls

    def others(self, tls: ClientTls) -> list[ClientTls]:
        """Return all others that show the certificate."""
        alive = [reference() for reference in self._all.valuerefs()]
        return [each for each in alive if each is not None and each is not tls]

    def after_fork(self) -> None:
        self.lock = threading.RLock()


_loadings: Final[dict[ClientCertificate, _Loading]] = {}


def _loading_of(certificate: ClientCertificate) -> _Loading:
    # Threads may come here together: the first one counts for all.
    return _loadings.get(certificate) or _loadings.setdefault(certificate, _Loading())


class RenewedContext(ssl.SSLContext):
    """A context that makes each connection with the current certificate.

    Not by `load_cert_chain` on a context that is in use: OpenSSL forbids to change one while another thread makes a connection with it,
    and between certificate and key it would have half a pair. So each certificate has a context of its own. What is set here afterwards
    has no effect on them, except ALPN, which HTTP clients set for each connection.
    """

    tls: ClientTls
    _protocols: Sequence[str]

    def __new__(cls, tls: ClientTls) -> Self:
        """Make a context of its own, which itself makes no connection."""
        made = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        made.tls, made._protocols = tls, ()
        return made

    def set_alpn_protocols(self, alpn_protocols: Any) -> None:
        """Offer these protocols in the next connections."""
        super().set_alpn_protocols(alpn_protocols)
        self._protocols = tuple(alpn_protocols)

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        """Make a connection on a socket, with the current certificate."""
        return self._current().wrap_socket(*args, **options)

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Make a connection without a socket (asyncio, trio), with the current certificate."""
        return self._current().wrap_bio(*args, **options)

    def _current(self) -> ssl.SSLContext:
        context = self.tls.now().context
        if self._protocols:
            context.set_alpn_protocols(list(self._protocols))
        return context


def trusting(ca_file: Path | None, said: str = "KEYCLOAK_CA_FILE") -> ssl.SSLContext:
    """Return a context that trusts the system's certificates and those in `ca_file`, which the setting `said` names.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    context = ssl.create_default_context()
    if ca_file is None:
        return context
    try:
        context.load_verify_locations(ca_file)
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or type(error).__name__
    else:
        return context
    raise ConfigurationError(f"{said}: cannot read certificates from {ca_file}: {reason}.")


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def alert_in(error: BaseException) -> str:
    """Return the name of the TLS alert with which a server refused our certificate; "" if it sent none."""
    reasons = (str(cause.reason) for cause in chain(error) if isinstance(cause, ssl.SSLError))
    return next((reason for reason in reasons if _ALERTS.search(reason)), "")


def ended(error: BaseException) -> bool:
    """Return whether a failure of httpx or httpx2 means that the server ended a connection that stood, before it answered."""
    kind = type(error).__name__
    if kind == "RemoteProtocolError":
        return "disconnected" in str(error)  # else it wrote something that is not HTTP
    return kind != "ConnectError" and any(
        isinstance(cause, ConnectionResetError | BrokenPipeError | ssl.SSLEOFError) for cause in chain(error)
    )


def _stamp(file: Path) -> object:
    try:
        seen = file.stat()  # follows the link by which Kubernetes replaces a mounted secret
    except OSError as error:
        return error.errno
    return seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size


def _unreadable(file: Path) -> str:
    """Return why a file cannot be read; "" if it can."""
    try:
        if file.is_fifo():  # opening it could wait for ever, on a thread that others need
            return "is a pipe, which can be read only once: write a file"
        size = file.stat().st_size
        if not os.access(file, os.R_OK):
            return f"cannot be read (Permission denied): {_LOOK}"
    except OSError as error:
        return f"cannot be read ({error.strerror or type(error).__name__}): {_LOOK}"
    if file.is_dir():
        return "is a directory: give the file in it"
    if not size:
        return "is empty"
    return "is too large for a certificate or a key" if size > _LARGEST else ""


def _described(file: Path) -> dict[str, Any] | str:
    """Return what the first certificate of a file says of itself, or why that is unknown. The file may hold the key too."""
    # Takes 20 ms to import, and only services with a certificate need it.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    try:
        first = _first_certificate(file)
    except OSError as error:
        return f"cannot be read ({error.strerror or type(error).__name__})"
    if not first:
        return "holds no complete certificate in PEM: it begins with -----BEGIN CERTIFICATE----- (convert DER with `openssl x509 -inform DER`)"
    try:
        certificate = x509.load_pem_x509_certificate(first)
        der = certificate.public_bytes(Encoding.DER)
        return {
            "thumbprint": urlsafe_b64encode(sha256(der).digest()).decode("ascii").rstrip("="),
            "subject": printable(certificate.subject.rfc4514_string(), _MAX_NAME),
            "issuer": printable(certificate.issuer.rfc4514_string(), _MAX_NAME),
            "begins": certificate.not_valid_before_utc,
            "ends": certificate.not_valid_after_utc,
        }
    except Exception:  # noqa: BLE001 - the parser may raise anything for a damaged certificate
        return "holds a certificate that is damaged: write it again"


def _first_certificate(file: Path) -> bytes:
    """Return the first certificate of a file in PEM, or nothing; no object that outlives this call holds the rest of the file."""
    with file.open("rb") as opened:
        content = opened.read(_LARGEST)
    # No regular expression: it would look for the end anew from each of many beginnings, and stop the process for half a minute.
    begin = content.find(_BEGIN)
    end = content.find(_END, begin)
    return b"" if begin < 0 or end < 0 else content[begin : end + len(_END)]


def _load_pair(context: ssl.SSLContext, cert_file: Path, key_file: Path) -> str:
    """Let `context` show this pair; return what is wrong with it, or "". OpenSSL reads the key, so no object of ours holds it."""
    asked: list[None] = []

    def no_password() -> str:  # without it OpenSSL would ask the terminal, and wait
        asked.append(None)
        return ""

    reason = ""
    try:
        context.load_cert_chain(cert_file, key_file, no_password)
    except ssl.SSLError as error:
        reason = error.reason or "not PEM"
    except (OSError, ValueError) as error:
        reason = type(error).__name__
    if asked:
        return (
            "holds a key that is encrypted: write it without its password (`openssl pkey -in FILE -out key.pem`), readable by this service"
            " alone"
        )
    if not reason:
        return ""
    if (
        reason in {"KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"} or "TYPE_MISMATCH" in reason
    ):  # the second: RSA and EC
        return (
            "holds a key that does not belong to the certificate in {certificate}: write both files of one renewal, and the service's"
            " own certificate before those of authorities"
        )
    if reason in {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}:
        return f"belongs to a certificate that is too weak for TLS ({reason})"
    return f"holds no private key in PEM ({printable(reason, _MAX_NAME)}): set {_KEY} to the file of the key"


@lru_cache(maxsize=16)
def _shared(certificate: ClientCertificate, ca_file: Path | None) -> ClientTls:
    return ClientTls(certificate, lambda: trusting(ca_file))
