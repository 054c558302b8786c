"""A tool server: its audience is its URL, in place of its client id."""

from fastapi import Depends, FastAPI

from s2s_fastapi import ServiceAuthMiddleware, require_caller

URL = "https://tools.example.com/mcp"

app = FastAPI(openapi_url=None)
app.add_middleware(ServiceAuthMiddleware, public_url=URL, resource=True)


@app.post("/mcp", dependencies=[Depends(require_caller("agent"))])
async def mcp() -> None: ...
