"""Tool servers (MCP): an inner layer between `ServiceAuthMiddleware` and the official SDK or FastMCP, and requirements on single tools.

Nothing of the two SDKs is imported before it is used.
"""

from s2s_fastapi.mcp.allowed import allowed
from s2s_fastapi.mcp.message import current_principal, current_request
from s2s_fastapi.mcp.token_verifier import SdkTokenVerifier, fastmcp_token_verifier
from s2s_fastapi.mcp.tool_server import tool_server

__all__ = [
    "SdkTokenVerifier",
    "allowed",
    "current_principal",
    "current_request",
    "fastmcp_token_verifier",
    "tool_server",
]
