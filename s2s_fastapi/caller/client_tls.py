"""The client certificate towards the services that are called: as a TLS context, and as transports of httpx and httpx2.

A token that is bound to a certificate (RFC 8705 section 3) is accepted only over a connection that shows this certificate. So a renewal
must not mix them up: a token keeps to the connections with its certificate until it expires, and the next token has the new one.
"""

import ssl
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from s2s_fastapi import environment
from s2s_fastapi.backchannel.client_certificate import (
    ClientCertificate,
    ClientTls,
    RenewedContext,
    alert_in,
    ended,
    trusting,
)
from s2s_fastapi.caller.carried import CARRIED
from s2s_fastapi.caller.httpx_compat import environment_proxies
from s2s_fastapi.caller.origins import Pin, within
from s2s_fastapi.errors import ConfigurationError

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["client_tls", "with_certificate"]

_MANY: Final = 4
"""Transports of one client that are not looked through: there are only a few if certificates are not replaced all the time."""
_OWN: Final = ("transport", "cert")
"""Arguments of a client with which it brings its own TLS."""
_OF_TRANSPORT: Final = ("http1", "http2", "limits")


def client_tls(settings: "KeycloakSettings | None" = None, *, ca_file: "str | Path | None" = None) -> ssl.SSLContext:
    """Return a TLS context that shows the client certificate of `settings`, for a client that is no `service_client` (RFC 8705).

    - ``httpx.AsyncClient(verify=client_tls(), auth=...)``, ``aiohttp.TCPConnector(ssl=client_tls())``. Make it once, and keep it.
    - Each new connection shows the certificate that the files hold then. Connections that are open keep theirs.
    - It trusts the system's certificates and those in `ca_file`. ``KEYCLOAK_CA_FILE`` is for Keycloak only. What is set on the context
      afterwards has no effect, except ALPN.
    - It is not pickled, and shows no key.

    Args:
        settings: Instead of the environment.
        ca_file: A PEM file with certificates of servers to trust besides those of the system.

    Raises:
        ConfigurationError: ``KEYCLOAK_CLIENT_CERT_FILE`` is not set, or a file cannot be used.
    """
    given = environment.settings_or_environment(settings)
    certificate = ClientCertificate.of(given)
    if certificate is None:
        raise ConfigurationError(
            given.missing("Set KEYCLOAK_CLIENT_CERT_FILE: client_tls() shows the certificate that is there.")
        )
    trusted = None if ca_file is None else Path(ca_file)
    try:
        return ClientTls.succeeding(certificate, lambda: trusting(trusted, "ca_file="), trusted).context()
    except ConfigurationError as error:
        problem = given.worded(str(error))
    raise ConfigurationError(problem)


def with_certificate(
    options: Mapping[str, Any], kind: Any, settings: "KeycloakSettings", pins: tuple[Pin, ...], *, asynchronous: bool
) -> dict[str, Any]:
    """Return the arguments of a client of class `kind` so that it shows the certificate of `settings` at `pins`; unchanged if there is none.

    - A client that was given a transport, a certificate or a TLS context keeps it. The context of `client_tls` works as if it were made here.
    - ``verify`` may also be the file or the directory with the certificates of servers to trust.
    """
    package, given = sys.modules[_package(kind)], dict(options)
    tls = _tls_of(options, settings, package) if any(pin[0] == "https" for pin in pins) else None
    if tls is None:
        return given
    more = {name: given.pop(name) for name in _OF_TRANSPORT if name in given}
    proxy = given.pop("proxy", None)
    transport = package.AsyncHTTPTransport if asynchronous else package.HTTPTransport

    def through(proxy: Any) -> Any:
        def make(context: ssl.SSLContext) -> Any:
            return transport(verify=context, trust_env=False, proxy=proxy, **more)

        return (_AsyncTransports if asynchronous else _Transports)(tls, make, pins)

    proxies: dict[str, Any] = {} if proxy is None else {"all://": proxy}
    if proxy is None and given.get("trust_env"):
        proxies = environment_proxies(package)  # the client itself reads them only if it makes its transports
    mounts = {pattern: None if one is None else through(one) for pattern, one in proxies.items()}
    return {**given, "transport": through(None), "mounts": mounts | dict(given.get("mounts") or {})}


def _tls_of(options: Mapping[str, Any], settings: "KeycloakSettings", package: Any) -> ClientTls | None:
    """Return what shows the certificate in a client with these options, or None if it shows none of ours."""
    verify, trust_env = options.get("verify", True), bool(options.get("trust_env"))
    if any(options.get(name) is not None for name in _OWN):
        return None
    if isinstance(verify, ssl.SSLContext):
        return verify.tls if isinstance(verify, RenewedContext) else None
    certificate = ClientCertificate.of(settings)
    if certificate is None:
        return None

    def trust() -> ssl.SSLContext:
        if isinstance(verify, str | Path):  # as httpx does, which warns of it
            folder = Path(verify).is_dir()
            return ssl.create_default_context(capath=verify if folder else None, cafile=None if folder else verify)
        made: ssl.SSLContext = package.create_ssl_context(verify=verify, trust_env=trust_env)
        return made

    tls = ClientTls.succeeding(certificate, trust, (package.__name__, str(verify), trust_env))
    with suppress(ConfigurationError):  # each request says it
        tls.now()  # else it would not know the certificate of a token that is requested before the first call, and used after a renewal
    return tls


def _package(kind: Any) -> str:
    """Return the package of a client class: httpx or httpx2, also of a derived one."""
    names: list[str] = [
        ancestor.__module__.partition(".")[0] for ancestor in kind.__mro__ if "Client" in ancestor.__name__
    ]
    return next(name for name in reversed(names) if name in {"httpx", "httpx2"})


class _ByCertificate:
    """Transports of one client: one for each certificate, and one without for other origins, to which a redirect may lead."""

    def __init__(
        self,
        tls: ClientTls,
        make: Callable[[ssl.SSLContext], Any],
        pins: tuple[Pin, ...],
    ) -> None:
        self._tls = tls
        self._make = make
        self._pins = pins
        self._transports: dict[ssl.SSLContext | None, Any] = {}

    def _for(self, request: Any) -> Any:
        """Return the transport whose connections show the certificate that the token of `request` is bound to."""
        context = None
        if within(request.url, self._pins):
            token = request.extensions.get(CARRIED, (None,))[0]
            context = self._tls.showing("" if token is None else token.certificate).context
        found = self._transports.get(context)
        if found is None:
            # Threads may come here together: the first one counts for all.
            found = self._transports.setdefault(context, self._make(context or self._tls.trust()))
        return found

    def _left(self) -> list[Any]:
        """Take out the transports of certificates that were replaced so often that no token needs them."""
        if len(self._transports) <= _MANY:
            return []
        needed = {None, *(one.context for one in self._tls.kept)}
        left = [self._transports.pop(context, None) for context in list(self._transports) if context not in needed]
        return [transport for transport in left if transport is not None]  # another thread may have taken it out

    def _noted(self, request: Any, error: Exception) -> None:
        """Add to a failure that it may be due to the certificate: to httpx it looks like a broken connection."""
        alert = alert_in(error)
        if within(request.url, self._pins) and (alert or ended(error)):
            certificate = self._tls.now()
            error.add_note(
                f"The server {f'does not accept ({alert})' if alert else 'may not accept'} the client certificate {certificate.subject} in"
                f" {self._tls.certificate.named}: it must trust {certificate.issuer}, which issued it. It is valid until"
                f" {certificate.ends:%Y-%m-%dT%H:%M:%SZ}."
            )


class _Transports(_ByCertificate):
    def handle_request(self, request: Any) -> Any:
        transport = self._for(request)
        for old in self._left():
            old.close()
        try:
            return transport.handle_request(request)
        except Exception as error:
            self._noted(request, error)
            raise

    def close(self) -> None:
        while self._transports:
            self._transports.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _AsyncTransports(_ByCertificate):
    async def handle_async_request(self, request: Any) -> Any:
        transport = self._for(request)
        for old in self._left():
            await old.aclose()
        try:
            return await transport.handle_async_request(request)
        except Exception as error:
            self._noted(request, error)
            raise

    async def aclose(self) -> None:
        while self._transports:
            await self._transports.popitem()[1].aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
