"""What a path names: a place in a realm, or an answer that Keycloak gives before it looks for a realm."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from s2s_fastapi.testing.answers import INVALID_CHARACTER, NO_RESOURCE, NOT_NORMAL, OUTSIDE
from s2s_fastapi.testing.faults import Endpoint
from s2s_fastapi.testing.wire import Response

__all__ = ["Place", "place_of"]

_ENDPOINTS: Final[dict[str, Endpoint]] = {
    "": "realm",
    "protocol/openid-connect/token": "token",
    "protocol/openid-connect/certs": "certs",
    ".well-known/openid-configuration": "discovery",
    ".well-known/oauth-authorization-server": "discovery",
}
_ESCAPED: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_WELCOME: Final = Response(
    200,
    (("Content-Type", "text/plain"),),
    b"This is the embedded issuer of s2s-fastapi, for development only. It is no Keycloak.\n",
)


@dataclass(frozen=True, slots=True)
class Place:
    """A path below a realm, whether there is such a realm or not."""

    realm: str
    below: str

    @property
    def endpoint(self) -> Endpoint | None:
        """What answers there, or None."""
        return _ENDPOINTS.get(self.below)

    @property
    def of_another_protocol(self) -> bool:
        """Whether it is ``protocol/X/...`` with an X that is not OpenID Connect."""
        first, _, rest = self.below.partition("/")
        return first == "protocol" and "/" in rest and not rest.startswith("openid-connect/")


def place_of(target: str, *, auth_path: str, strict: bool) -> Place | Response:
    """Return what a request target names. `strict` is for releases that refuse a path that others normalize."""
    path = _path(target)
    if not strict:
        path = _normalized(path)
    elif ";" in path:
        return INVALID_CHARACTER
    elif not _normal(path):
        return NOT_NORMAL
    if auth_path and not f"{path}/".startswith(f"{auth_path}/"):
        return OUTSIDE
    match path.removeprefix(auth_path).split("/"):
        case [""] | ["", ""]:
            return _WELCOME
        case ["", "realms", name, *rest] if name:
            return Place(unquote(name), "/".join(rest).removesuffix("/"))
        case _:
            return NO_RESOURCE


def _path(target: str) -> str:
    """Return the path of a request target, which may be a whole URL (RFC 9112 section 3.2.2)."""
    if not target.startswith("/"):
        target = "/" + target.partition("://")[2].partition("/")[2]
    return target.partition("?")[0]


def _normal(path: str) -> bool:
    """Return whether a path is as Keycloak wants it: no empty or dot segments, and nothing escaped that needs no escape."""
    escaped = {unquote(found) for found in _ESCAPED.findall(path)}
    unreserved = any(one.isascii() and (one.isalnum() or one in "-._~") for one in escaped)
    return "//" not in path and not unreserved and not {".", ".."} & set(path.split("/"))


def _normalized(path: str) -> str:
    """Return a path as the older releases read it (RFC 3986 section 5.2.4), without ``;`` parameters."""
    kept: list[str] = []
    for segment in path.split("/"):
        name = unquote(segment.partition(";")[0])
        if name == "..":
            kept = kept[:-1]
        elif name not in ("", "."):
            kept.append(quote(name, safe=""))
    return "/" + "/".join(kept)
