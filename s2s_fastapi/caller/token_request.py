"""One token request of a service for itself: the form, the check of the answer, and what is logged and measured."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2s_fastapi.backchannel.channel import Reply
from s2s_fastapi.backchannel.client_certificate import ClientCertificate
from s2s_fastapi.caller.binding import Binding, BoundClient, BoundClients
from s2s_fastapi.caller.credentials import BY_OTHERS, ClientAuthentication, Proof, client_authentication
from s2s_fastapi.caller.granted import GrantedToken, granted
from s2s_fastapi.caller.token_endpoint import LOG, Channel, TokenEndpoint, remarks
from s2s_fastapi.caller.token_errors import error_type, refusal
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.engine.loaded import Failed, Loaded
from s2s_fastapi.engine.reports import report
from s2s_fastapi.errors import S2SError
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.telemetry.attributes import AUDIENCE, CAUSE, CLIENT_ID, ERROR_TYPE, ISSUER, OUTCOME, SCOPE, TOKEN_ID
from s2s_fastapi.telemetry.metrics import TOKEN_REQUEST, audience_label
from s2s_fastapi.telemetry.spans import cause, failed, span
from s2s_fastapi.text import listed

if TYPE_CHECKING:  # loaded when settings are first made
    from opentelemetry.metrics import Histogram

    from s2s_fastapi.settings import KeycloakSettings, ProxyUrl

__all__ = ["Recording", "TokenKey", "TokenRequest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """All that decides which token it is. Compared field by field, so no crafted name can imitate another key."""

    issuer: str
    token_url: str
    ca_file: Path | None
    proxy: "ProxyUrl | None"
    certificate: ClientCertificate | None
    authentication: ClientAuthentication = field(repr=False)
    """Client, method, and the secret or its file."""
    wanted: Wanted
    dpop: bool = False
    """Whether it is bound to a key of this process (RFC 9449)."""

    @classmethod
    def of(cls, settings: "KeycloakSettings", wanted: Wanted) -> "TokenKey":
        """Return the key for `wanted` as the client of `settings`.

        Raises:
            ConfigurationError: Client id or secret is not set.
        """
        return cls(
            issuer=settings.issuer,
            token_url=Endpoints.of(settings).token,
            ca_file=settings.ca_file,
            proxy=settings.proxy,
            certificate=ClientCertificate.of(settings),
            authentication=client_authentication(settings),
            wanted=wanted,
            dpop=settings.dpop,
        )

    def bound(self, clients: BoundClients) -> BoundClient | None:
        """Return whose key the token is bound to, whatever audience and scope it has; None for a bearer token."""
        return clients.of((self.issuer, self.authentication)) if self.dpop else None


class Recording:
    """What the token requests of `key` leave in metrics and traces."""

    def __init__(self, span_name: str, key: TokenKey, duration: "Histogram") -> None:
        audience, scope = listed(key.wanted.audiences, " "), listed(key.wanted.scopes, " ")
        client_id = key.authentication.client_id
        self.labels = {CLIENT_ID: client_id, AUDIENCE: audience_label(audience)}
        """Their labels in metrics."""
        self.attributes = {CLIENT_ID: client_id} | ({AUDIENCE: audience} if audience else {})
        """Their attributes in spans."""
        self._span_name = span_name
        self._more = {ISSUER: key.issuer} | ({SCOPE: scope} if scope else {})
        self._duration = duration

    def of(self, ask: Callable[[], Loaded[GrantedToken] | Failed]) -> Loaded[GrantedToken] | Failed:
        """Return what `ask()` returns, and record it in the metrics and in a span."""
        began, why = time.monotonic(), cause()
        labels = {**self.labels, CAUSE: why}
        with span(self._span_name, {**self.attributes, CAUSE: why, **self._more}) as current:
            outcome = ask()
            if isinstance(outcome, Loaded):
                labels[OUTCOME] = "granted"
                current.set_attributes({OUTCOME: "granted", TOKEN_ID: outcome.value.token_id})
            else:
                labels[OUTCOME], labels[ERROR_TYPE] = "failed", error_type(outcome.error)
                current.set_attribute(OUTCOME, "failed")
                failed(current, labels[ERROR_TYPE], str(outcome.error))
        report(partial(self._duration.record, time.monotonic() - began, labels))
        return outcome


class TokenRequest:
    """Request the token of one key from Keycloak, once for each call; blocks.

    The result is a value: the token and how long it counts, or why there is none and when to try again.
    """

    def __init__(
        self,
        key: TokenKey,
        settings: "KeycloakSettings",
        channel: Channel,
        clock: Callable[[], float],
        *,
        clients: BoundClients | None = None,
    ) -> None:
        self._grant = _ClientCredentials(key.wanted, settings)
        bound = key.bound(clients or BoundClients(clock=clock))
        self._endpoint = TokenEndpoint(key.token_url, key.authentication, settings, channel, clock, bound=bound)
        self._recording = Recording("request token", key, TOKEN_REQUEST)
        self.labels = self._recording.labels
        """Its labels in metrics."""
        self.attributes = self._recording.attributes
        """Its attributes in spans."""
        self.another_secret = self._endpoint.another_secret

    def __call__(self) -> Loaded[GrantedToken] | Failed:
        """Request the token, and record the result in log, trace and metrics; never raises."""
        return self._recording.of(self._outcome)

    def _outcome(self) -> Loaded[GrantedToken] | Failed:
        outcome = self._endpoint.ask(self._grant)
        if isinstance(outcome, Failed):
            report(partial(LOG.warning, "%s", outcome.error))
        else:
            # Not in the frame that holds the answer: error trackers record the locals of each frame that logs.
            for sentence in remarks(outcome.value, self._grant.wanted, self._grant.settings):
                self._endpoint.warn(sentence)
        return outcome


@dataclass(frozen=True, slots=True)
class _ClientCredentials:
    """A token for the service itself (RFC 6749 section 4.4)."""

    wanted: Wanted
    settings: "KeycloakSettings"

    def form(self) -> dict[str, str]:
        return self.wanted.form()

    def granted(self, answer: Mapping[str, Any], binding: Binding | None, certificate: str) -> GrantedToken:
        settings = self.settings
        return granted(
            answer,
            self.wanted,
            client_id=settings.client_id,
            binding=binding,
            names_client=settings.client_auth in BY_OTHERS,
            certificate=certificate,
        )

    def refusal(self, reply: Reply, proof: Proof) -> S2SError:
        return refusal(reply, self.settings, self.wanted, proof)
