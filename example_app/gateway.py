"""A gateway: one catch-all route, and rules by method and pattern that say who may call what behind it."""

import os
import re
from dataclasses import dataclass
from typing import Annotated, Final

import httpx
from fastapi import Depends, FastAPI, HTTPException, Request, Response

from s2s_fastapi import Requirement, TokenVerifier, require_caller, require_scope, require_service, service_client

# What two programs may read differently: bytes that no URL has, a slash, a dot, a backslash or a percent sign that is encoded, empty and dot segments.
UNSAFE: Final = re.compile(
    rb"//|/\.{1,2}(/|$)|[\\;]|[^!-~]|#|%(c[01]|2f|2e|5c|3b|25|0.|1.|7f)|%(?![0-9a-f]{2})", re.IGNORECASE
)


@dataclass(frozen=True)
class Rule:
    """Who may send requests with this method to paths of this form."""

    method: str
    path: bytes
    who: Requirement

    def fits(self, method: str, path: bytes) -> bool:
        """Compare the path as it came, byte by byte: it is sent on like that."""
        return method == self.method and re.fullmatch(self.path, path) is not None


RULES: Final = (
    Rule("GET", rb"/collections(/[^/]+)?", require_service().optional()),
    Rule("POST", rb"/collections", require_service() & require_scope("collections:write")),
    Rule("DELETE", rb"/collections/[^/]+", require_caller("curator") & require_scope("collections:write")),
)
upstream = service_client(lambda: os.environ.get("CATALOGUE_URL", "http://localhost:8007"), audience="catalogue")
verifier = TokenVerifier()
app = FastAPI(openapi_url=None)


async def allowed(request: Request) -> bytes:
    """Return the path to ask for behind the gateway; what no rule allows is not there."""
    path: bytes = request.scope["raw_path"]
    rule = next((rule for rule in RULES if rule.fits(request.method, path)), None)
    if rule is None or UNSAFE.search(path) or re.search(rb"[^!-~]|#", request.scope["query_string"]):
        raise HTTPException(404)
    if rule.who.needs_credentials:
        await verifier.authenticate(request, rule.who)
    else:
        await verifier.authenticate_optional(request, rule.who)
    return path


@app.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
async def forward(
    request: Request,
    path: Annotated[bytes, Depends(allowed)],
    client: Annotated[httpx.AsyncClient, Depends(upstream)],
) -> Response:
    """Send the request on with the gateway's own token."""
    query = request.scope["query_string"]
    url = client.base_url.copy_with(raw_path=path + (b"?" + query if query else b""))
    if url.raw_path.partition(b"?")[0] != path:  # the client would write it in another way than it was compared
        raise HTTPException(404)
    kept = {name: request.headers[name] for name in ("accept", "content-type") if name in request.headers}
    answer = await client.request(request.method, url, headers=kept, content=await request.body())
    shown = {name: answer.headers[name] for name in ("content-type",) if name in answer.headers}
    return Response(answer.content, answer.status_code, {**shown, "vary": "Authorization", "cache-control": "private"})
