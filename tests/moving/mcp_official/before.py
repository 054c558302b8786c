import os

import anyio
import jwt
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

ISSUER = os.environ["KEYCLOAK_ISSUER"]
RESOURCE = "https://tools.example.com/mcp"
keys = jwt.PyJWKClient(
    f"{os.environ['KEYCLOAK_URL']}/realms/{os.environ['KEYCLOAK_REALM']}/protocol/openid-connect/certs"
)


class KeycloakTokenVerifier:
    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            key = await anyio.to_thread.run_sync(keys.get_signing_key_from_jwt, token)
            claims = jwt.decode(
                token,
                key.key,
                algorithms=["RS256"],
                issuer=ISSUER,
                audience=RESOURCE,
                leeway=30,
                options={"require": ["exp", "iss", "aud", "azp"]},
            )
        except jwt.PyJWTError:
            return None
        return AccessToken(
            token=token,
            client_id=claims["azp"],
            scopes=claims.get("scope", "").split(),
            expires_at=claims["exp"],
            resource=RESOURCE,
            subject=claims.get("sub"),
            claims=claims,
        )


def caller(*scopes: str) -> AccessToken:
    token = get_access_token()
    if token is None or not set(scopes) <= set(token.scopes):
        raise ToolError("The access token lacks a scope.")
    return token


server = MCPServer(
    "projects",
    token_verifier=KeycloakTokenVerifier(),
    auth=AuthSettings(issuer_url=ISSUER, resource_server_url=RESOURCE, validate_token_resource=True),
)


@server.tool()
async def whoami() -> str:
    return caller().client_id


@server.tool()
async def delete_project(name: str) -> str:
    caller("projects:write")
    return f"{name} is deleted"


app = server.streamable_http_app(json_response=True)
