"""The app as a protected resource: the URL at which callers reach it, and the document that says so (RFC 9728)."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.proof.algorithms import PROOF_ALGORITHMS
from s2s_fastapi.verifier.public_url import checked_urls

__all__ = ["ProtectedResource", "resource_url"]

_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
_METHODS: Final = "GET, HEAD, OPTIONS"
_KEPT: Final = 3600
"""Seconds for which clients and browsers may keep the document, and the answer to a preflight request."""
_ANY_ORIGIN: Final = {"Access-Control-Allow-Origin": "*"}


def resource_url(public_url: object, resource: object) -> str:
    """Return the URL of an app that is a protected resource, the first of its public ones; nothing if it is none.

    Raises:
        ConfigurationError: as `checked_urls`; or the URL is missing, or was given as ``resource``.
    """
    urls = checked_urls(public_url)
    if not isinstance(resource, bool):
        raise ConfigurationError(
            "resource= takes True or False: write resource=True, and the URL of this app in public_url=."
        )
    if resource and not urls:
        raise ConfigurationError(
            'resource=True needs the URL at which callers reach this app: public_url="https://tools.example.com/mcp".'
        )
    return urls[0] if resource else ""


@dataclass(frozen=True, slots=True)
class ProtectedResource:
    """The document of one app (RFC 9728 section 3). Everybody may read it, so all that is in it comes from the settings."""

    url: str
    """The identifier of the resource: its URL."""
    address: str
    """The URL of the document. ``/.well-known/oauth-protected-resource`` stands between host and path of ``url`` (section 3.1)."""
    path: str
    """The path of ``address``, as servers decode it."""
    document: bytes = field(repr=False)

    @classmethod
    def of(cls, url: str, issuers: Iterable[str], dpop: str = "") -> Self:
        """Return the document of the resource ``url``, whose tokens come from ``issuers``.

        ``dpop`` says whether bound tokens are accepted, beside bearer tokens or alone.
        """
        path = urlsplit(url).path
        origin, path = url.removesuffix(path), path.removesuffix("/") if path == "/" else path
        document = {
            "resource": url,
            "authorization_servers": [*issuers],
            "bearer_methods_supported": ["header"],
            **({"dpop_signing_alg_values_supported": PROOF_ALGORITHMS} if dpop else {}),
            **({"dpop_bound_access_tokens_required": True} if dpop == "required" else {}),
        }
        return cls(url, f"{origin}{_WELL_KNOWN}{path}", unquote(_WELL_KNOWN + path), json.dumps(document).encode())

    def answers(self, scope: Scope) -> bool:
        """Return whether a request is for the document: for its path as the server got it, whatever the root path is.

        Some servers put their root path in front of the path, and others do not.
        """
        path: str = scope["path"]
        return path.endswith(self.path) and path in (self.path, f"{_root_path_of_server(scope)}{self.path}")

    def out_of_reach(self, scope: Scope) -> str:
        """Return a sentence if the app is mounted where no request for the document comes; nothing if one may come."""
        mount = str(scope["root_path"]).removeprefix(_root_path_of_server(scope)) if "app_root_path" in scope else ""
        if not mount or self.path.startswith(f"{mount}/"):
            return ""
        return (
            f"resource=True: the app is mounted at {mount}, so requests for {self.address} do not reach it, and clients learn nothing of its "
            "realm. Add ServiceAuthMiddleware to the outermost app, or let that app or the proxy answer them."
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for the document. A page of any origin may read it: there is nothing in it that is not public."""
        await _response(scope["method"], self.document)(scope, receive, send)


def _response(method: str, document: bytes) -> Response:
    if method in ("GET", "HEAD"):
        headers = {**_ANY_ORIGIN, "Cache-Control": f"public, max-age={_KEPT}", "Content-Length": str(len(document))}
        return Response(document if method == "GET" else b"", 200, headers, "application/json")
    if method == "OPTIONS":
        headers = {
            **_ANY_ORIGIN,
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": "*",
            "Access-Control-Max-Age": str(_KEPT),
            "Allow": _METHODS,
        }
        return Response(None, 204, headers)
    return JSONResponse({"detail": "Method Not Allowed"}, 405, {**_ANY_ORIGIN, "Allow": _METHODS})


def _root_path_of_server(scope: Scope) -> str:
    """Return the root path as the server gave it. A mount puts another one into the scope."""
    return str(scope.get("app_root_path", scope.get("root_path", "")))
