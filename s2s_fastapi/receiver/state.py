"""What the middleware knows about a request, kept where nobody outside can put it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from starlette.types import Scope

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.principal import Principal
from s2s_fastapi.receiver.answers import error_within
from s2s_fastapi.receiver.verdict import Verdict
from s2s_fastapi.telemetry import Observer

__all__ = ["SCOPE_KEY", "Authenticated", "Judge", "Service", "located"]

SCOPE_KEY: Final = "s2s_fastapi.authenticated"


class Judge(Protocol):
    """Whatever can decide about a principal: a requirement."""

    def judge(self, principal: Principal, client_id: str = "") -> Decision:
        """Decide; ``client_id`` is the receiving app's own."""


@dataclass(frozen=True, slots=True)
class Service:
    """The receiving app: what decisions about its requests need to know of it."""

    client_id: str
    realm: str
    """The protection space named in challenges (RFC 7235 section 2.2)."""
    observer: Observer
    observing: Callable[[], bool]
    """Whether refusals are only told, not made: see ``insecure_observe_until``."""


@dataclass(slots=True)
class Authenticated:
    """One request that the middleware let in, for the requirements behind it.

    It is not Starlette's ``scope["user"]``, which any inner middleware may replace.
    """

    verdict: Verdict
    principal: Principal
    service: Service
    refusal: Decision | None = None
    """Set when a requirement refused: the middleware sees that the answer keeps its challenge."""
    answered: bool = False

    @classmethod
    def of(cls, scope: Scope) -> "Authenticated":
        """Return the state of a request.

        Raises:
            ConfigurationError: No `ServiceAuthMiddleware` authenticated it: nothing is let through, whoever calls.
        """
        state = scope.get(SCOPE_KEY)
        if not isinstance(state, cls):
            raise ConfigurationError(
                "A requirement was asked on a request that nothing authenticated: add ServiceAuthMiddleware to the app "
                "(app.add_middleware(ServiceAuthMiddleware)), and take the path out of its public_paths."
            )
        return state

    def admit(self, scope: Scope, requirement: Judge) -> Principal:
        """Return the caller if ``requirement`` allows it; otherwise tell the observer and raise what Starlette answers."""
        service = self.service
        decision = requirement.judge(self.principal, service.client_id)
        if decision.reason is Reason.ALLOWED:
            return self.principal
        known = self.verdict.decision
        decision = replace(
            decision,
            observed=service.observing(),
            client_id=known.client_id,
            token_id=known.token_id,
            issuer=known.issuer,
            kid=known.kid,
        )
        service.observer.decided(located(decision, scope))
        if decision.observed:
            return self.principal
        self.refusal = decision
        raise error_within(scope, decision, service.realm)


def located(decision: Decision, scope: Scope) -> Decision:
    """Return the decision with the method and the route it was made on; the route as declared, or the path where none was matched yet."""
    route = scope.get("route")
    included = (scope.get("fastapi") or {}).get("effective_route_context")  # the same route, with its routers' prefixes
    if route is not None and getattr(included, "original_route", None) is route:
        route = included
    path = getattr(route, "path_format", None) or getattr(route, "path", None) or scope["path"]
    printable = "".join(character for character in str(path) if character.isprintable())[:200]
    return replace(decision, method=scope.get("method", "WEBSOCKET"), route=printable)
