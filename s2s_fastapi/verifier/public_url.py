"""The URLs at which callers reach an app, and the URL of one request: what a DPoP proof must name (``htu``, RFC 9449 section 4.2)."""

import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Self
from urllib.parse import quote, unquote_to_bytes, urlsplit

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.names import name_problem, url_problem
from s2s_fastapi.proof.urls import normalised, respelled

__all__ = ["PublicUrls", "checked_url", "checked_urls", "outermost_root"]

_RAW: Final = "".join(map(chr, range(0x21, 0x7F)))
"""What a path on the wire keeps. Other bytes are written with percent signs, as clients write them."""
_NO_URL: Final = re.compile(r"[^/]|.*?(?:#|/(?:\.|%2[eE]){1,2}(?:/|$))", re.DOTALL)
"""A path on the wire that no URL has. Clients resolve dot segments and keep the fragment to themselves, and routers do neither: a proof for
``/b`` would open ``/admin/../b`` and ``/b#x/7``. What does not begin with a slash could change the host: ``GET .evil.example/x``."""
_REMEMBERED: Final = 256
"""Bytes of a path whose normal form is remembered."""
_DECODED: Final = "/:@!$&'()*+,;=-._~"
"""What stands for itself in a path (RFC 3986 section 3.3)."""


def checked_url(public_url: object) -> str:
    """Return the URL at which callers reach an app, exactly as it was written: it is compared, never completed or corrected.

    Raises:
        ConfigurationError: It is not an https URL, or not one that a header can quote. On a loopback address http is accepted, too.
    """
    if problem := _problem(public_url):
        raise ConfigurationError(
            f'public_url= takes the URL at which callers reach this app, such as "https://tools.example.com/mcp": {problem}.'
        )
    return str(public_url)


def checked_urls(public_url: object) -> tuple[str, ...]:
    """Return the URLs of an app that is reached at one or at several, in their order; none if ``public_url`` is None.

    Raises:
        ConfigurationError: as `checked_url`, or the list is empty.
    """
    if public_url is None:
        return ()
    if isinstance(public_url, str | bytes | Mapping) or not isinstance(public_url, Collection):
        return (checked_url(public_url),)
    if not public_url:
        raise ConfigurationError("public_url= is an empty list: name at least one URL, or leave public_url= out.")
    return tuple(map(checked_url, public_url))


@dataclass(frozen=True, slots=True)
class PublicUrls:
    """The public URLs of one app, ready to be put in front of the path of a request. No header of a request changes them."""

    prefixes: tuple[tuple[str, str], ...]
    """Of each URL the origin, and the path without a slash at its end; both normalised."""

    @classmethod
    def of(cls, urls: Collection[str]) -> Self:
        """Take URLs that `checked_urls` returned."""
        parts = ((url, urlsplit(url).path) for url in map(normalised, urls))
        return cls(tuple((url.removesuffix(path), path.rstrip("/")) for url, path in parts))

    def of_request(self, scope: MutableMapping[str, Any], root_path: str | None = None) -> frozenset[str]:
        """Return the URLs that callers may have used for a request, normalised: one for each public URL, or none at all.

        - The path is the one on the wire, behind the root path, with its percent signs.
        - If it has a dot segment or ``#``, or does not begin with a slash, no URL has it. Nothing is resolved here, because the router
          below resolves nothing.
        - Without a root path, a proxy may have left the prefix of the public URL in place: it is not put in front twice.
        - If the path of a public URL begins with the root path, the rest of it is in the path of the request: the URL is root path and path.
        - ``root_path`` is the one that the app below will set, if it is not in the scope yet.
        """
        raw = scope.get("raw_path")
        if not isinstance(raw, bytes) or not raw:
            raw = quote(str(scope.get("path", "")), safe=_DECODED).encode()  # some servers leave it out
        root = str(scope.get("root_path") or "") if root_path is None else root_path
        # What is long is not remembered, so that the memory stays small.
        paths = (_path if len(raw) <= _REMEMBERED else _path.__wrapped__)(raw, root.rstrip("/"))
        return frozenset() if paths is None else frozenset(self._joined(*paths, rooted=bool(root)))

    def _joined(self, root: str, path: str, *, rooted: bool) -> Iterator[str]:
        for origin, public in self.prefixes:
            # What stands behind the root path in a public URL stands in the path, too: /ai/mcp for a route /mcp below /ai.
            prefix = root if root and public.startswith(f"{root}/") else public
            if not rooted and prefix and (path == prefix or path.startswith(f"{prefix}/")):
                yield origin + path
                continue
            if path in ("", "/"):
                # The root of the app: a proxy makes "/" of both spellings.
                yield origin + (prefix or "/")
                yield f"{origin}{prefix}/"
                continue
            yield origin + prefix + path


def outermost_root(scope: MutableMapping[str, Any]) -> str:
    """Return the root path with which a request came in. A mount below has added its own path since, which callers do use in their URL."""
    return str(scope.get("app_root_path", scope.get("root_path")) or "")


def unquoted(path: str) -> str:
    """Return a path as servers decode it."""
    return unquote_to_bytes(path).decode("utf-8", "replace")


@lru_cache(maxsize=512)
def _path(raw: bytes, root: str) -> tuple[str, str] | None:
    """Return ``root`` and what is behind it in a request line, normalised; None if no URL has that path. Some servers leave the query in it."""
    whole = quote(raw.partition(b"?")[0], safe=_RAW)
    if _NO_URL.match(whole):
        return None
    path = _behind(whole, root)
    above = whole.removesuffix(path) if path != whole else quote(root.encode("utf-8", "surrogatepass"), safe=_DECODED)
    return respelled(above), respelled(path)


def _behind(raw: str, root: str) -> str:
    """Return what is behind ``root`` in a raw path; all of it if it is not below ``root``, because some servers take it off themselves."""
    if not root:
        return raw
    # A character of the root path has up to three characters for each of its bytes in the raw path.
    longest = min(len(raw), 3 * len(root.encode("utf-8", "surrogatepass")))
    for end in range(len(root), longest + 1):
        if (end == len(raw) or raw[end] == "/") and unquoted(raw[:end]) == root:
            return raw[end:]
    return raw


def _problem(url: Any) -> str:
    """Return why ``url`` is not the public URL of an app, such as "it has no host"; nothing if it is one."""
    if problem := name_problem(url):
        return problem
    if not url.isascii():
        return "it has a character that is not ASCII. Write its host in Punycode (xn--...), and its path with percent signs"
    if problem := url_problem(url):
        return problem
    try:
        normalised(url)
    except ValueError as error:
        return f"no proof can name it ({error})"
    parts = urlsplit(url)
    if parts.scheme == "http" and not _loopback(str(parts.hostname)):
        return "http is accepted on loopback addresses only, so write https"
    return ""


def _loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 section 6.3
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
