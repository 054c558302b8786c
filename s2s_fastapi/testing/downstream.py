"""The services that an app calls, played by a test: who called, with which token, and what they answer."""

import json as json_
import logging
import os
import sys
import threading
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, wraps
from typing import Any, Final

from s2s_fastapi.caller.origins import Pin, pin_of, pins, spelled
from s2s_fastapi.testing import calling
from s2s_fastapi.text import names_in

__all__ = ["Call", "PlayedService", "playing"]


@dataclass(frozen=True, slots=True)
class Call:
    """A request that an app sent to a service."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def token(self) -> str:
        """The access token; empty if there is none."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token if scheme.lower() in ("bearer", "dpop") else ""

    @property
    def claims(self) -> dict[str, Any]:
        """What the token says. Nobody has verified it."""
        return _claims_of(self.token)

    @property
    def proof(self) -> dict[str, Any]:
        """What the DPoP proof says (RFC 9449 section 4.2): ``htm``, ``htu`` and others; empty if there is none. Nobody has verified it."""
        return _claims_of(self.headers.get("dpop", ""))

    @property
    def client_id(self) -> str:
        """The client whose token it is; empty without a token."""
        return str(self.claims.get("azp", ""))

    @property
    def audiences(self) -> frozenset[str]:
        """For whom the token is."""
        return frozenset(names_in(self.claims.get("aud")))

    def json(self) -> Any:
        """Return the body as JSON."""
        return json_.loads(self.body)


def _claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1] if token.count(".") == 2 else ""  # noqa: PLR2004 - header, payload, signature
    claims: dict[str, Any] = json_.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4))) if part else {}
    return claims


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class PlayedService:
    """Plays one service. Without a script it answers 200 with ``{}``."""

    def __init__(self, *origins: str) -> None:
        """Play the service at these origins (``http://crm:8001``).

        Raises:
            ConfigurationError: An origin is malformed.
        """
        self.pins: tuple[Pin, ...] = pins(origins)
        self.calls: list[Call] = []
        """What came in, in its order."""
        self._answers: list[_Answer] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"PlayedService({', '.join(map(spelled, self.pins))})"

    def answer(
        self, status: int = 200, *, json: Any = None, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> "PlayedService":
        """Answer the next request so, and all later ones too, unless there is another answer for them."""
        typed = {} if json is None else {"content-type": "application/json"}
        content = body if json is None else json_.dumps(json).encode()
        with self._lock:
            self._answers.append(_Answer(status, {**typed, **(headers or {})}, content))
        return self

    def forget(self) -> None:
        """Forget calls and answers."""
        with self._lock:
            self.calls.clear()
            self._answers.clear()

    def answered(self, call: Call) -> _Answer:
        """Record a call and return its answer."""
        with self._lock:
            self.calls.append(call)
            if not self._answers:
                return _Answer(200, {"content-type": "application/json"}, b"{}")
            return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


_log: Final = logging.getLogger("s2s_fastapi.testing")
_TRUST: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""The variables of the environment from which httpx makes a TLS context."""
_lock: Final = threading.RLock()
_open: Final[list[list[PlayedService]]] = []
_kept: Final[list[tuple[Any, str, Any]]] = []
_warned: Final[set[tuple[str, Pin]]] = set()
"""The apps and origins of which a warning was logged."""


@contextmanager
def playing(services: list[PlayedService]) -> Iterator[None]:
    """Let these services answer inside the block, whatever httpx client asks. Services may be added to the list.

    Clients that an app makes itself have no seam of ours. So the transports of httpx and httpx2 are exchanged as long as a block is
    open. A request to an origin that nobody plays goes out as before; if an app sends it, that is one WARNING for each origin.
    """
    with _lock:
        _open.append(services)
        if len(_open) == 1:
            _exchange()
    try:
        yield
    finally:
        with _lock:
            _open.remove(services)
            if not _open:
                _warned.clear()
                while _kept:
                    kind, name, method = _kept.pop()
                    setattr(kind, name, method)


def _exchange() -> None:
    for package in (sys.modules.get("httpx"), sys.modules.get("httpx2")):
        if package is not None:
            for kind, name, make in (
                (package.HTTPTransport, "handle_request", _sync),
                (package.AsyncHTTPTransport, "handle_async_request", _async),
                (package.HTTPTransport, "__init__", _sharing_trust),
                (package.AsyncHTTPTransport, "__init__", _sharing_trust),
            ):
                method = vars(kind)[name]
                if (kind, name) not in [known[:2] for known in _kept]:  # under httpx2.alias_httpx() they are the same
                    _kept.append((kind, name, method))
                    setattr(kind, name, make(package, method))


def _sync(package: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def handle_request(self: Any, request: Any) -> Any:
        service = _service(request)
        if service is not None:
            request.read()
            return _response(package, service, request)
        _warn(request)
        try:
            return original(self, request)
        except package.ConnectError as error:
            raise _nobody(package, error, request) from error

    return handle_request


def _async(package: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    async def handle_async_request(self: Any, request: Any) -> Any:
        service = _service(request)
        if service is not None:
            await request.aread()
            return _response(package, service, request)
        _warn(request)
        try:
            return await original(self, request)
        except package.ConnectError as error:
            raise _nobody(package, error, request) from error

    return handle_async_request


def _sharing_trust(package: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    """Let new clients share one TLS context of the default kind: to make one takes longer than all the rest of a test."""

    @wraps(original)
    def init(self: Any, verify: Any = True, *arguments: Any, **options: Any) -> None:
        if verify is True and not arguments and not options.get("cert"):
            verify = _context(package, options.get("trust_env", True), *map(os.environ.get, _TRUST))
        original(self, verify, *arguments, **options)

    return init


@cache
def _context(package: Any, trust_env: bool, *_: str | None) -> Any:
    return package.create_ssl_context(trust_env=trust_env)


def _services() -> list[PlayedService]:
    return [service for services in list(_open) for service in services]


def _service(request: Any) -> PlayedService | None:
    """Return who plays the service that a request goes to; the one that was named last wins."""
    there = pin_of(request.url)
    return next((service for service in reversed(_services()) if there in service.pins), None)


def _warn(request: Any) -> None:
    """Log once that an app asks an origin that nobody plays. What the test itself asks is its own affair."""
    asking = calling.name()
    origin = pin_of(request.url)
    if asking and (asking, origin) not in _warned:
        _warned.add((asking, origin))
        _log.warning(
            "The app %r calls %s over the network, since nobody plays it. To play it: issuer.downstream(%r).",
            asking,
            spelled(origin),
            spelled(origin),
        )


def _response(package: Any, service: PlayedService, request: Any) -> Any:
    call = Call(request.method, str(request.url), dict(request.headers.items()), request.content)
    answer = service.answered(call)
    return package.Response(answer.status, headers=answer.headers, content=answer.body, request=request)


def _nobody(package: Any, error: Exception, request: Any) -> Exception:
    played = ", ".join(spelled(pin) for service in _services() for pin in service.pins) or "no service"
    failure: Exception = package.ConnectError(
        f"{error}: nobody plays {spelled(pin_of(request.url))} in this test: issuer.downstream(...) plays {played}.",
        request=request,
    )
    return failure
