"""Service-to-service authentication for FastAPI and Starlette with Keycloak.

Receive: `ServiceAuthMiddleware`, the ``require_*`` functions, `Principal`, `TokenVerifier`.
Call: `service_client`, `service_lifespan`, `service_auth`, `ServiceTokenAuth`.
Both: `auth_ready`, `health`, `KeycloakSettings`, and the errors in `s2s_fastapi.errors`.
"""

from s2s_fastapi.caller.auth import ServiceTokenAuth
from s2s_fastapi.caller.lifespan import service_lifespan
from s2s_fastapi.caller.service_client import service_auth, service_client
from s2s_fastapi.declared.openapi import openapi_schema
from s2s_fastapi.declared.public_paths import DOCS
from s2s_fastapi.declared.routes import read_access
from s2s_fastapi.errors import (
    AudienceNotGranted,
    AuthenticationError,
    AuthorizationError,
    ConfigurationError,
    KeysUnavailable,
    S2SError,
    TokenRequestError,
    TokenWithheld,
)
from s2s_fastapi.health import Health, KeysHealth, TokenHealth, auth_ready, health
from s2s_fastapi.principal import Principal
from s2s_fastapi.receiver.middleware import ServiceAuthMiddleware, observed_refusals
from s2s_fastapi.receiver.observe_mode import ObservedRefusal, ObservedRefusals
from s2s_fastapi.requirement.require import (
    CurrentPrincipal,
    require_audience,
    require_caller,
    require_realm_role,
    require_role,
    require_scope,
    require_service,
    require_user,
)
from s2s_fastapi.requirement.requirement import Requirement
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.verifier.token_verifier import TokenVerifier
from s2s_fastapi.version import __version__ as __version__

__all__ = [
    "DOCS",
    "AudienceNotGranted",
    "AuthenticationError",
    "AuthorizationError",
    "ConfigurationError",
    "CurrentPrincipal",
    "Health",
    "KeycloakSettings",
    "KeysHealth",
    "KeysUnavailable",
    "ObservedRefusal",
    "ObservedRefusals",
    "Principal",
    "Requirement",
    "S2SError",
    "ServiceAuthMiddleware",
    "ServiceTokenAuth",
    "TokenHealth",
    "TokenRequestError",
    "TokenVerifier",
    "TokenWithheld",
    "auth_ready",
    "health",
    "observed_refusals",
    "openapi_schema",
    "read_access",
    "require_audience",
    "require_caller",
    "require_realm_role",
    "require_role",
    "require_scope",
    "require_service",
    "require_user",
    "service_auth",
    "service_client",
    "service_lifespan",
]
