from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import FastAPI
from fastmcp.exceptions import ToolError
from fastmcp.server.dependencies import get_http_request
from starlette.datastructures import MutableHeaders

from s2s_fastapi import Principal, Requirement, S2SError, ServiceAuthMiddleware, require_service, require_user

METADATA: Final = "/.well-known/oauth-protected-resource"
anybody = require_user() | require_service()


class PointToMetadata:
    """Tell an MCP client in each challenge where it finds the authorization server (RFC 9728 section 5.1)."""

    def __init__(self, app: Any, resource: str) -> None:
        self.app, self.parameter = app, f'resource_metadata="{resource}{METADATA}"'

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        async def pointed(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                headers = MutableHeaders(scope=message)
                headers["www-authenticate"] = f"{headers['www-authenticate']}, {self.parameter}"
            await send(message)

        await self.app(scope, receive, pointed)


def protect(app: FastAPI, served: Any, *, resource: str, issuer: str) -> None:
    """Require a user or a service for the tools, and say where tokens come from."""
    app.add_middleware(ServiceAuthMiddleware, users=True, public_paths=["/health", METADATA])
    app.add_middleware(PointToMetadata, resource=resource)

    @app.get(METADATA)
    async def metadata() -> dict[str, object]:
        return {"resource": resource, "authorization_servers": [issuer]}

    app.mount("/", anybody.guard(served))


async def caller(requirement: Requirement = anybody) -> Principal:
    """Return who calls the tool that is running, or refuse it: the log gets the cure, the model one safe sentence."""
    try:
        return await requirement(get_http_request())
    except S2SError as refusal:
        raise ToolError(getattr(refusal, "detail", "refused")) from None
