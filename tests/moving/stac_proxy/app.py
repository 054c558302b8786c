"""A proxy in front of a STAC catalogue: everybody may search, and who writes needs a scope."""

import httpx
from fastapi import FastAPI, HTTPException, Request, Response

from tests.moving.stac_proxy.auth import Allowed

upstream = httpx.AsyncClient(base_url="http://catalogue:8080")
app = FastAPI(openapi_url=None)


@app.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
async def forward(request: Request, caller: Allowed) -> Response:
    path: bytes = request.scope["raw_path"]
    url = upstream.base_url.copy_with(raw_path=path + b"?" + request.scope["query_string"])
    if url.raw_path.partition(b"?")[0] != path:
        raise HTTPException(404)
    seen = "private = false" if caller is None else f"private = false OR owner = '{caller.subject}'"
    headers = {name: request.headers[name] for name in ("accept", "content-type") if name in request.headers}
    answer = await upstream.request(
        request.method,
        url.copy_merge_params({"filter": seen}),
        headers=headers,
        content=await request.body(),
    )
    shown = {name: answer.headers[name] for name in ("content-type",) if name in answer.headers}
    return Response(answer.content, answer.status_code, {**shown, "vary": "Authorization", "cache-control": "private"})
