"""An MCP server with two tools: one for everybody with a token, one for those with a scope."""

from fastapi import FastAPI
from fastmcp import FastMCP

from s2s_fastapi import require_scope
from tests.moving.mcp_server.auth import caller, protect

tools = FastMCP("tools")
served = tools.http_app(path="/mcp", stateless_http=True, json_response=True)
app = FastAPI(lifespan=served.lifespan, openapi_url=None)


@tools.tool
async def whoami() -> str:
    return (await caller()).client_id


@tools.tool
async def delete_project(name: str) -> str:
    await caller(require_scope("projects:write"))
    return f"{name} is deleted"


@app.get("/health")
async def health() -> str:
    return "ok"


protect(app, served, resource="http://testserver", issuer="https://sso.example.com/realms/corp")
