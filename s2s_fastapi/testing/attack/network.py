"""Attacks over a URL on this machine: an app in a process of its own, that was started with the issuer of the suite."""

import http.client
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.testing.attack.asgi import Answer, Outgoing
from s2s_fastapi.testing.attack.ground import AttackedRoute, Ground, Shot
from s2s_fastapi.testing.attack.own import OwnApp
from s2s_fastapi.testing.attack.realm import AttackedRealm
from s2s_fastapi.testing.attack.runner import good_headers
from s2s_fastapi.testing.issuer import EmbeddedIssuer

__all__ = ["HttpSender", "ServedApp", "loopback"]

_SAFE: Final = frozenset({"GET", "HEAD"})
_PATIENCE: Final = 10.0
_MOST: Final = 3
"""How many routes are tried on an app of which nobody knows yet that it trusts our issuer."""
_ATTEMPTS: Final = 15
"""How many seconds an app has to fetch the keys of our issuer."""


def loopback(url: str) -> tuple[str, int]:
    """Return the address and the port of an app on this machine.

    Raises:
        ConfigurationError: It is anything but ``http://``, a loopback address as a number, and a port. A name is none: it may lead elsewhere.
    """
    try:
        parts = urlsplit(url)
        address, port = ipaddress.ip_address(parts.hostname or ""), parts.port
    except ValueError:
        address, port = ipaddress.ip_address("0.0.0.0"), None  # noqa: S104 - not bound: an address that is refused below
    exact = f"http://[{address}]:{port}" if address.version == 6 else f"http://{address}:{port}"  # noqa: PLR2004 - IPv6
    if not address.is_loopback or port is None or url.rstrip("/") != exact:
        raise ConfigurationError(
            f"Only an app on this machine can be attacked, by its address as a number: http://127.0.0.1:8000, not {url!r}."
        )
    return str(address), port


@dataclass(frozen=True, slots=True)
class HttpSender:
    """Sends over one connection for each request: without redirects and without proxies."""

    host: str
    port: int
    patience: float = _PATIENCE
    """Seconds for one answer, up to the end of its headers: its body may have no end."""

    def send(self, request: Outgoing) -> Answer:
        """Return the app's answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.patience)
        late, ended = None, threading.Event()
        try:
            connection.connect()
            late = threading.Timer(self.patience, _end, (connection.sock, ended))
            late.daemon = True
            late.start()
            target = f"{request.path}?{request.query}" if request.query else request.path
            connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
            if not any(name.lower() == "host" for name, _ in request.headers):
                connection.putheader("host", f"{self.host}:{self.port}")
            for name, value in (*request.headers, ("content-length", str(len(request.body)))):
                connection.putheader(name, value.encode("latin-1", "replace"))
            connection.endheaders(request.body)
            response = connection.getresponse()
            if ended.is_set():  # what there was of the headers
                raise TimeoutError
            return Answer(
                status=response.status, headers=tuple((name.lower(), value) for name, value in response.getheaders())
            )
        except (OSError, ValueError, http.client.HTTPException) as error:
            return Answer(status=500, problem=type(error).__name__)
        finally:
            if late is not None:
                late.cancel()
            connection.close()


def _end(sock: socket.socket, ended: threading.Event) -> None:
    """End a connection whose answer takes too long: what waits for it fails."""
    ended.set()
    with suppress(OSError):  # closed already
        sock.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedApp:
    """An app that a server runs on this machine, and the same app as an object, from which its routes are read.

    - ``issuer`` is served, and the app was started with the variables of this issuer.
    - Other methods than GET and HEAD are left out unless ``unsafe_methods``: the code of the app runs.
    - ``other_guard``: whether the server runs another guard than ours. Then ``app`` only describes its routes.
    """

    app: OwnApp
    url: str
    issuer: EmbeddedIssuer
    unsafe_methods: bool = False
    other_guard: bool = False
    wait: Callable[[float], None] = time.sleep

    @contextmanager
    def __call__(self, prepare: Callable[[AttackedRealm], None] | None = None) -> Iterator[Ground]:
        """Open the app, if it accepts a good token of the issuer. The app is not started anew, so nothing can be prepared.

        Raises:
            ConfigurationError: The URL does not lead to this machine, or no GET accepts a token of our own issuer.
        """
        sender = HttpSender(*loopback(self.url))
        with ExitStack() as stack:
            read = stack.enter_context(self.app())
            routes, public = tuple(self._route(route) for route in read.routes), read.public
        ground = Ground(
            routes=routes,
            realm=AttackedRealm(self.issuer),
            sender=sender,
            public=public,
            now=self.issuer.time.now,
            fresh=False,
            own=not self.other_guard,
        )
        if prepare is None:
            self._accepts_ours(ground)
        yield ground

    def _route(self, route: AttackedRoute) -> AttackedRoute:
        if route.method in _SAFE or (self.unsafe_methods and route.method != "WEBSOCKET"):
            return route
        why = "WebSockets are not tried over a URL" if route.method == "WEBSOCKET" else "--unsafe-methods would try it"
        return replace(route, left_out=why)

    def _accepts_ours(self, ground: Ground) -> None:
        """Make sure that this is an app under test: no other app accepts a token of this issuer."""
        tried = [route for route in ground.routes if route.method == "GET" and not (route.public or route.left_out)]
        tried = sorted(tried, key=lambda route: "{" in route.path)[:_MOST]
        for _ in range(_ATTEMPTS):
            shots = [self._with_and_without(ground, route) for route in tried]
            accepted = any(with_ours.reached and not without.reached for with_ours, without in shots)
            if accepted and self.issuer.requests("certs", realm=ground.realm.name):
                return
            if accepted:
                raise ConfigurationError(
                    f"{self.url} accepts a token, but never fetched the keys of the issuer of this suite, so it trusts anybody, or it is "
                    f"not under test. Nothing else was sent. Start the app with KEYCLOAK_URL={self.issuer.url}."
                )
            if not any(with_ours.answer.status == HTTPStatus.SERVICE_UNAVAILABLE for with_ours, _ in shots):
                break
            self.wait(1.0)  # it started before the issuer was there, and fetches the keys again in a few seconds
        raise ConfigurationError(
            f"No GET of {self.url} accepts a good token of the issuer of this suite ({len(tried)} tried), so nothing else was sent. Start "
            f"the app with KEYCLOAK_URL={self.issuer.url} and KEYCLOAK_REALM={ground.realm.name}."
        )

    def _with_and_without(self, ground: Ground, route: AttackedRoute) -> tuple[Shot, Shot]:
        """Send a good token, and then none."""
        return ground.shoot(route, headers=good_headers(ground, route)), ground.shoot(route)
