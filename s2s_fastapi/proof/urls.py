"""One spelling of each URL, so that the ``htu`` of a proof can be compared with the request (RFC 9449 section 4.3, RFC 3986 section 6.2)."""

import re
from ipaddress import IPv6Address
from typing import Final

__all__ = ["normalised", "respelled"]

_SCHEMES: Final = {"http": ("http", 80), "ws": ("http", 80), "https": ("https", 443), "wss": ("https", 443)}
_URL: Final = re.compile(r"(?P<scheme>[A-Za-z]+)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)", re.DOTALL)
_HOST_AND_PORT: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]+)(?::(?P<port>[0-9]*))?")
_NORMAL: Final = re.compile(
    r"https?://[a-z0-9-]+(?:\.[a-z0-9-]+)*(?:/|(?:/[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]*)+/?)"
)
"""What most URLs look like: nothing in them can be spelled in another way."""
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPED: Final = re.compile(r"%([0-9A-Fa-f]{2})|([^A-Za-z0-9._~!$&'()*+,;=:@/-])")
_LONGEST_HOST: Final = 253
_LARGEST_PORT: Final = 65_535


def normalised(url: str) -> str:
    """Return the one spelling of an absolute ``http`` or ``https`` URL, without query and fragment.

    - Scheme and host are in lower case, an international host is in its ASCII form (IDNA), the default port is left out, an empty path is
      ``/`` (RFC 3986 section 6.2.3).
    - An escaped character that needs no escape is written as it is, other escapes are in upper case, what must be escaped is, and dot
      segments are resolved (section 6.2.2). An escaped slash stays escaped.
    - ``ws`` becomes ``http`` and ``wss`` becomes ``https``: a WebSocket begins as a GET request (RFC 6455 section 4.1).
    - What is normalised does not change when it is normalised again.

    Raises:
        ValueError: It is not such a URL, has user information, or contains control characters. The text does not show it.
    """
    if _NORMAL.fullmatch(url):
        return url
    found = _URL.match(url)
    if found is None or not url.isprintable():
        raise ValueError("not an absolute URL")
    scheme, standard = _SCHEMES.get(found["scheme"].lower(), ("", 0))
    if not scheme:
        raise ValueError("not a URL of http or https")
    parts = _HOST_AND_PORT.fullmatch(found["authority"])
    if parts is None:
        raise ValueError("not a host with or without a port")
    port = int(parts["port"] or standard) if len(parts["port"] or "") <= len(str(_LARGEST_PORT)) else 0
    if not 0 < port <= _LARGEST_PORT:
        raise ValueError("not a port")
    place = _host(parts["host"]) if port == standard else f"{_host(parts['host'])}:{port}"
    return f"{scheme}://{place}{_without_dots(respelled(found['path']))}"


def respelled(path: str) -> str:
    """Return a path whose percent signs are spelled as in `normalised`. Its dot segments stay."""
    return _ESCAPED.sub(_spelled, path)


def _host(host: str) -> str:
    if host.startswith("["):
        address = IPv6Address(host[1:-1])  # AddressValueError is a ValueError
        if address.scope_id is not None:
            raise ValueError("an address with a zone")
        return f"[{address.compressed}]"
    if "%" in host:
        host = _unescaped(host)
    if not host.isascii():
        host = _ascii(host)
    host = host.lower()
    if not _HOST.fullmatch(host):
        raise ValueError("not the name of a host")
    return host


_HOST: Final = re.compile(
    r"[a-z0-9._~!$&'()*+,;=-]+"
)  # RFC 3986 section 3.2.2; an underscore is usual inside of clusters


def _ascii(host: str) -> str:
    import idna  # noqa: PLC0415 - its tables take 5 ms to load, and hardly any URL needs them

    if len(host) > _LONGEST_HOST:
        raise ValueError("not the name of a host")
    return idna.encode(host, uts46=True).decode("ascii")  # IDNAError is a ValueError


def _unescaped(host: str) -> str:
    def read(match: re.Match[str]) -> str:
        return "".join(chr(int(each, 16)) for each in match[0].split("%")[1:])

    return re.sub(r"(?:%[0-9A-Fa-f]{2})+", lambda match: read(match).encode("latin-1").decode("utf-8"), host)


def _spelled(match: re.Match[str]) -> str:
    code, other = match.groups()
    if code is None:
        return "".join(f"%{byte:02X}" for byte in other.encode("utf-8"))
    byte = int(code, 16)
    return chr(byte) if byte in _UNRESERVED else f"%{byte:02X}"


def _without_dots(path: str) -> str:
    """Return `path` with its dot segments resolved (RFC 3986 section 5.2.4), as it is if it has none."""
    if not path:
        return "/"
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            kept[-1:] = []
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
