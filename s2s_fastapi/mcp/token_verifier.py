"""What the two SDKs ask about a token, for servers to which no middleware can be added."""

import importlib
from typing import Any

from s2s_fastapi.accepted import digest
from s2s_fastapi.errors import AuthenticationError, AuthorizationError
from s2s_fastapi.mcp.tool_server import access_token_of
from s2s_fastapi.requirement.require import require_service
from s2s_fastapi.requirement.requirement import Requirement
from s2s_fastapi.verifier.token_verifier import TokenVerifier

__all__ = ["SdkTokenVerifier", "fastmcp_token_verifier"]


class SdkTokenVerifier:
    """The ``token_verifier=`` of the official SDK, if you cannot add `ServiceAuthMiddleware`: `tool_server` is better in every way.

    - A session belongs to the caller who opened it, because issuer, client and subject are in what it returns.
    - It knows the token only. So it cannot see a second Authorization header, it cannot answer 403 or name the realm, and the log has no
      method and no route. A caller that does not meet ``requirement`` is answered 401.
    - Streams do not end with their token, and `allowed` refuses everybody.
    - If there are no keys to check the token with, it raises: the SDK answers 500, not 503. It never says that a good token is bad.
    """

    def __init__(
        self, verifier: TokenVerifier, *, requirement: Requirement | None = None, resource: str | None = None
    ) -> None:
        """Take what verifies the tokens.

        - ``requirement``: who may call any tool. Without one, every service.
        - ``resource``: the URL of the server, which the SDK compares if it has ``validate_token_resource``. Say it only if ``verifier`` accepts
          no audience but that URL.
        """
        self._verifier = verifier
        self._requirement = require_service() if requirement is None else requirement
        self._resource = resource

    async def verify_token(self, token: str) -> Any:
        """Return what the SDK keeps of the caller, without the token; None if it is refused.

        Raises:
            KeysUnavailable: There are no keys of Keycloak to check the token with.
            ConfigurationError: The settings are missing or wrong.
        """
        presented = [("authorization", f"Bearer {token}")]
        try:
            principal = await self._verifier.authenticate(presented, self._requirement)
        except (AuthenticationError, AuthorizationError):
            return None
        return access_token_of(principal, digest(token), self._resource)


def fastmcp_token_verifier(
    verifier: TokenVerifier, *, requirement: Requirement | None = None, resource: str | None = None, **options: Any
) -> Any:
    """Return the ``auth=`` of FastMCP, if you cannot add `ServiceAuthMiddleware`. It does what `SdkTokenVerifier` does, and no more.

    ``options`` are those of ``fastmcp.server.auth.TokenVerifier``: ``base_url`` for example.
    """
    auth: Any = importlib.import_module("fastmcp.server.auth")
    ours = SdkTokenVerifier(verifier, requirement=requirement, resource=resource)

    async def verify_token(_: Any, token: str) -> Any:
        found = await ours.verify_token(token)
        return None if found is None else auth.AccessToken(**found.model_dump())

    # Its base is only known now.
    return type("KeycloakTokenVerifier", (auth.TokenVerifier,), {"verify_token": verify_token})(**options)
