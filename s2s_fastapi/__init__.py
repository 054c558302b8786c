"""Service-to-service authentication for FastAPI and Starlette with Keycloak.

Receive: `ServiceAuthMiddleware`, `ServiceRoute`, the ``require_*`` functions, `Principal`, `TokenVerifier`, `Observer`.
Call: `service_client`, `service_lifespan`, `service_auth`, `ServiceTokenAuth`, `client_tls`.
Both: `auth_ready`, `health`, `KeycloakSettings`, and the errors in `s2s_fastapi.errors`.

Importing the package loads none of these. Each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from s2s_fastapi.process import undisturbed
from s2s_fastapi.version import __version__ as __version__

if TYPE_CHECKING:  # what type checkers and editors read
    from s2s_fastapi.caller.auth import ServiceTokenAuth
    from s2s_fastapi.caller.client_tls import client_tls
    from s2s_fastapi.caller.lifespan import service_lifespan
    from s2s_fastapi.caller.service_client import service_auth, service_client
    from s2s_fastapi.decision import Decision, Reason
    from s2s_fastapi.declared.openapi import openapi_schema
    from s2s_fastapi.declared.public_paths import DOCS
    from s2s_fastapi.declared.routes import read_access
    from s2s_fastapi.errors import (
        AudienceNotGranted,
        AuthenticationError,
        AuthorizationError,
        ConditionFailed,
        ConfigurationError,
        KeysUnavailable,
        NoUserToActFor,
        ReplayStoreUnavailable,
        S2SError,
        SessionEnded,
        TokenRequestError,
        TokenWithheld,
    )
    from s2s_fastapi.principal import Principal
    from s2s_fastapi.proof.replay import InProcessReplayStore, ReplayStore
    from s2s_fastapi.readiness import auth_ready, health
    from s2s_fastapi.receiver.middleware import ServiceAuthMiddleware, observed_refusals
    from s2s_fastapi.requirement.require import (
        CurrentPrincipal,
        OptionalPrincipal,
        require_audience,
        require_bound,
        require_caller,
        require_claim,
        require_realm_role,
        require_role,
        require_scope,
        require_service,
        require_that,
        require_user,
    )
    from s2s_fastapi.requirement.requirement import Requirement
    from s2s_fastapi.requirement.service_route import ServiceRoute
    from s2s_fastapi.settings import KeycloakSettings
    from s2s_fastapi.telemetry.observer import Observer
    from s2s_fastapi.verifier.client_certificate import CertificateHeader
    from s2s_fastapi.verifier.token_verifier import TokenVerifier

__all__ = [
    "DOCS",
    "AudienceNotGranted",
    "AuthenticationError",
    "AuthorizationError",
    "CertificateHeader",
    "ConditionFailed",
    "ConfigurationError",
    "CurrentPrincipal",
    "Decision",
    "InProcessReplayStore",
    "KeycloakSettings",
    "KeysUnavailable",
    "NoUserToActFor",
    "Observer",
    "OptionalPrincipal",
    "Principal",
    "Reason",
    "ReplayStore",
    "ReplayStoreUnavailable",
    "Requirement",
    "S2SError",
    "ServiceAuthMiddleware",
    "ServiceRoute",
    "ServiceTokenAuth",
    "SessionEnded",
    "TokenRequestError",
    "TokenVerifier",
    "TokenWithheld",
    "auth_ready",
    "client_tls",
    "health",
    "observed_refusals",
    "openapi_schema",
    "read_access",
    "require_audience",
    "require_bound",
    "require_caller",
    "require_claim",
    "require_realm_role",
    "require_role",
    "require_scope",
    "require_service",
    "require_that",
    "require_user",
    "service_auth",
    "service_client",
    "service_lifespan",
]

_MODULES: Final = {
    "DOCS": "declared.public_paths",
    "AudienceNotGranted": "errors",
    "AuthenticationError": "errors",
    "AuthorizationError": "errors",
    "CertificateHeader": "verifier.client_certificate",
    "ConditionFailed": "errors",
    "ConfigurationError": "errors",
    "CurrentPrincipal": "requirement.require",
    "Decision": "decision",
    "InProcessReplayStore": "proof.replay",
    "KeycloakSettings": "settings",
    "KeysUnavailable": "errors",
    "NoUserToActFor": "errors",
    "Observer": "telemetry.observer",
    "OptionalPrincipal": "requirement.require",
    "Principal": "principal",
    "Reason": "decision",
    "ReplayStore": "proof.replay",
    "ReplayStoreUnavailable": "errors",
    "Requirement": "requirement.requirement",
    "S2SError": "errors",
    "ServiceAuthMiddleware": "receiver.middleware",
    "ServiceRoute": "requirement.service_route",
    "ServiceTokenAuth": "caller.auth",
    "SessionEnded": "errors",
    "TokenRequestError": "errors",
    "TokenVerifier": "verifier.token_verifier",
    "TokenWithheld": "errors",
    "auth_ready": "readiness",
    "client_tls": "caller.client_tls",
    "health": "readiness",
    "observed_refusals": "receiver.middleware",
    "openapi_schema": "declared.openapi",
    "read_access": "declared.routes",
    "require_audience": "requirement.require",
    "require_caller": "requirement.require",
    "require_bound": "requirement.require",
    "require_claim": "requirement.require",
    "require_realm_role": "requirement.require",
    "require_role": "requirement.require",
    "require_scope": "requirement.require",
    "require_service": "requirement.require",
    "require_that": "requirement.require",
    "require_user": "requirement.require",
    "service_auth": "caller.service_client",
    "service_client": "caller.service_client",
    "service_lifespan": "caller.lifespan",
}
"""Where each public name is. What type checkers read, `__all__` and this table name the same: a test compares them."""

if not TYPE_CHECKING:  # a type checker would read it as: every name exists

    def __getattr__(name: str) -> object:
        """Load a public name, or the room of one (``s2s_fastapi.errors``), at its first use (PEP 562)."""
        if name in _MODULES:
            # Undisturbed: a child that is forked during the import would wait forever for the lock of the module.
            value = getattr(undisturbed(lambda: import_module(f"{__name__}.{_MODULES[name]}")), name)
            globals()[name] = value
            return value
        if any(name == module.partition(".")[0] for module in _MODULES.values()):
            return undisturbed(lambda: import_module(f"{__name__}.{name}"))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=import_module(__name__))

    def __dir__() -> list[str]:
        return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
