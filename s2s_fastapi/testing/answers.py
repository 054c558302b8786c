"""Keycloak's answers: statuses, bodies, and the headers for browsers. What clients read is equal byte for byte."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from s2s_fastapi.testing.wire import Response

__all__ = [
    "FAILED",
    "INVALID_CHARACTER",
    "INVALID_ORIGIN",
    "METHOD_NOT_ALLOWED",
    "NOT_FOUND",
    "NOT_NORMAL",
    "NO_PROTOCOL",
    "NO_REALM",
    "NO_RESOURCE",
    "NO_STORE",
    "OUTSIDE",
    "TOO_LARGE",
    "json_response",
    "preflight",
    "with_origin",
]

NO_STORE: Final = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))
"""The headers of everything the token endpoint says."""

_JSON: Final = (("Content-Type", "application/json"),)
_JSON_UTF8: Final = (("Content-Type", "application/json; charset=UTF-8"),)
_ALLOWED_HEADERS: Final = (
    "Origin, Accept, X-Requested-With, Access-Control-Request-Method, Access-Control-Request-Headers, DPoP, "
    "Content-Type, Authorization"
)


def json_response(status: int, body: Mapping[str, Any], headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return a JSON answer."""
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    typed = () if any(name == "Content-Type" for name, _ in headers) else _JSON
    return Response(status, typed + headers, content)


def with_origin(response: Response, origin: str | None, *, exposed: bool = False) -> Response:
    """Return an answer that a page of `origin` may read."""
    if not origin:
        return response
    headers = [("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true")]
    if exposed:
        headers.append(("Access-Control-Expose-Headers", "Access-Control-Allow-Methods"))
    return replace(response, headers=(*response.headers, *headers))


def preflight(origin: str | None, methods: str) -> Response:
    """Return the answer to OPTIONS: every origin may send the real request."""
    if not origin:
        return Response(200)
    headers = (
        ("Access-Control-Allow-Methods", methods),
        ("Access-Control-Allow-Headers", _ALLOWED_HEADERS),
        ("Access-Control-Max-Age", "3600"),
    )
    return with_origin(Response(200, headers), origin)


FAILED: Final = json_response(
    500, {"error": "unknown_error", "error_description": "For more on this error consult the server log."}
)
TOO_LARGE: Final = json_response(413, {"error": "HTTP 413 Request Entity Too Large"})
INVALID_ORIGIN: Final = json_response(403, {"error": "Invalid origin"}, NO_STORE)
METHOD_NOT_ALLOWED: Final = json_response(405, {"error": "HTTP 405 Method Not Allowed"})
NOT_FOUND: Final = json_response(404, {"error": "HTTP 404 Not Found"})
NO_REALM: Final = json_response(404, {"error": "Realm does not exist"})
NO_PROTOCOL: Final = json_response(404, {"error": "Protocol not found"})
NO_RESOURCE: Final = json_response(404, {"error": "Unable to find matching target resource method"})
NOT_NORMAL: Final = json_response(
    400, {"error": "missingNormalization", "error_description": "Request path not normalized"}, _JSON_UTF8
)
INVALID_CHARACTER: Final = json_response(
    400,
    {"error": "invalidCharacter", "error_description": "Request path contains invalid character ';'"},
    _JSON_UTF8,
)
OUTSIDE: Final = Response(
    404,
    (("Content-Type", "text/html; charset=utf-8"),),
    b"<html><body><h1>Resource not found</h1></body></html>",
)
