"""Where a token may go: origins (RFC 6454) as the developer wrote them."""

from collections.abc import Collection
from typing import Any, TypeAlias

import httpx

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.names import NO_URL_CHARACTER, url_problem

__all__ = ["PORTS", "WEBSOCKETS", "Pin", "base", "pin", "pin_of", "pins", "spelled", "within"]

Pin: TypeAlias = tuple[str, bytes, int | None]
"""Scheme, host and port as httpx normalises them: lower case, IDNA, None for the scheme's own port. Never ``ws`` or ``wss``."""

PORTS = {"http": 80, "https": 443}
WEBSOCKETS = {"ws": "http", "wss": "https"}
"""A WebSocket begins as a request over http or https (RFC 6455 section 3), so it is at the same origin."""


def within(url: Any, pinned: Collection[Pin]) -> bool:
    """Return whether `url`, of httpx or httpx2, is at one of the origins. A URL with a user name never is."""
    return pin_of(url) in pinned and not url.userinfo


def pin_of(url: Any) -> Pin:
    """Return the pin of a URL of httpx or httpx2."""
    return WEBSOCKETS.get(url.scheme, url.scheme), url.raw_host, url.port


def pins(origins: Collection[str]) -> tuple[Pin, ...]:
    """Return the pins of `origins`, each once, in order.

    Raises:
        ConfigurationError: as `pin`; or it is not a collection of texts.
    """
    if isinstance(origins, str):
        return (pin(origins),)
    return tuple(dict.fromkeys(pin(origin) for origin in origins))


def pin(origin: str) -> Pin:
    """Return the pin of one origin, such as ``http://bob:8000``.

    Raises:
        ConfigurationError: It is not ``scheme://host[:port]``. A path would suggest a narrower limit than there is.
    """
    url = base(origin, what="origin")
    if url.path != "/":
        raise ConfigurationError(
            f"The origin {origin!r} has a path: a token goes to a scheme, host and port, so leave the path out."
        )
    return pin_of(url)


def base(text: str, *, what: str = "base_url") -> httpx.URL:
    """Return an absolute http or https URL without userinfo, query or fragment. ``ws`` becomes ``http``, and ``wss`` ``https``.

    Raises:
        ConfigurationError: `text` is something else.
    """
    if not isinstance(text, str):
        raise ConfigurationError(
            f"The {what} must be a text such as http://crm-gateway:8000, not {type(text).__name__}."
        )
    problem = NO_URL_CHARACTER if "*" in text else url_problem(text, {*PORTS, *WEBSOCKETS})
    if not problem:
        try:
            scheme, rest = text.split(":", 1)
            scheme = scheme.lower()  # httpx knows the scheme's own port by its lower case only
            return httpx.URL(f"{WEBSOCKETS.get(scheme, scheme)}:{rest}")
        except httpx.InvalidURL:
            problem = "its host or port cannot be read"
    # Not repeated if it may contain a password.
    shown = f" {text!r}" if "@" not in text else ""
    audience = "" if "/" in text or ":" in text or not shown else f" If it is the audience, write audience={text!r}."
    raise ConfigurationError(f"The {what}{shown} must be a URL such as http://crm-gateway:8000: {problem}.{audience}")


def spelled(pinned: Pin) -> str:
    """Return ``scheme://host:port``, the port always written out."""
    scheme, raw_host, port = pinned
    host = raw_host.decode("ascii")
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port or PORTS[scheme]}"
