"""An MCP server with two tools: one for everybody with a token, one for those with a scope."""

from fastapi import FastAPI
from fastmcp import FastMCP

from s2s_fastapi import require_scope
from s2s_fastapi.mcp import allowed, current_principal, tool_server
from tests.moving.mcp_server.auth import anybody, protect

tools = FastMCP("tools")


@tools.tool(auth=allowed(anybody))
async def whoami() -> str:
    return current_principal().client_id


@tools.tool(auth=allowed(anybody & require_scope("projects:write")))
async def delete_project(name: str) -> str:
    return f"{name} is deleted"


served = tool_server(tools, tools.http_app(path="/mcp", stateless_http=True, json_response=True))
app = FastAPI(lifespan=served.router.lifespan_context, openapi_url=None)


@app.get("/health")
async def health() -> str:
    return "ok"


app.mount("/", served)
protect(app, "https://tools.example.com/mcp")
