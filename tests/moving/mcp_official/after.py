from mcp.server.mcpserver import MCPServer

from s2s_fastapi import ServiceAuthMiddleware, require_scope, require_service, require_user
from s2s_fastapi.mcp import allowed, current_principal, tool_server

anybody = require_user() | require_service()
server = MCPServer("projects")


@server.tool()
@allowed(anybody)
async def whoami() -> str:
    return current_principal().client_id


@server.tool()
@allowed(anybody & require_scope("projects:write"))
async def delete_project(name: str) -> str:
    return f"{name} is deleted"


app = tool_server(server, server.streamable_http_app(json_response=True))
app.add_middleware(ServiceAuthMiddleware, public_url="https://tools.example.com/mcp", resource=True, users=True)
