"""One exchange of a user's token at Keycloak (RFC 8693): the form, the check of the answer, and what is logged and measured."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from s2s_fastapi.backchannel.channel import Reply
from s2s_fastapi.caller.binding import PROOF, Binding, BoundClients
from s2s_fastapi.caller.credentials import Proof
from s2s_fastapi.caller.exchange.subject import Subject
from s2s_fastapi.caller.granted import GrantedToken, claims_of, granted
from s2s_fastapi.caller.token_endpoint import LOG, Channel, TokenEndpoint, remarks
from s2s_fastapi.caller.token_errors import refusal, wrong_credentials
from s2s_fastapi.caller.token_request import Recording, TokenKey
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.engine.loaded import Failed, Loaded
from s2s_fastapi.engine.reports import report
from s2s_fastapi.errors import ConfigurationError, S2SError, SessionEnded, TokenRequestError
from s2s_fastapi.keycloak.exchange import ACCESS_TOKEN, GRANT_TYPE, SESSION_OVER, foreign_issuer, unasked
from s2s_fastapi.telemetry.metrics import TOKEN_EXCHANGE
from s2s_fastapi.text import listed, named, names_in

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["ExchangeRequest", "Exchanger", "concerns"]

_USERS_IN_A_ROW: Final = 5
"""Different users whose exchanges fail in the same way without one success in between: then it is not the users' fault."""
_TOO_MANY: Final = 429
_OK: Final = 200


class Exchanger:
    """What all exchanges of one client have in common: its credentials, and how many users in a row Keycloak refused.

    Its 8 threads share it, and its `TokenEndpoint`, without a lock: each state is replaced in one step. At worst a sentence is logged twice, or
    a rotated secret is tried twice.
    """

    def __init__(
        self,
        key: TokenKey,
        settings: "KeycloakSettings",
        channel: Channel,
        clock: Callable[[], float],
        wall: Callable[[], float],
        *,
        clients: BoundClients | None = None,
    ) -> None:
        bound = key.bound(clients or BoundClients(clock=clock, wall=wall))
        self.endpoint = TokenEndpoint(key.token_url, key.authentication, settings, channel, clock, bound=bound)
        self.settings = settings
        self.wall = wall
        # The users since the last success; at most _USERS_IN_A_ROW each.
        self._refused: set[str] = set()
        self._unanswered: set[str] = set()

    def succeeded(self) -> None:
        """Remember that Keycloak still accepts users' tokens."""
        self._refused.clear()
        self._unanswered.clear()

    def unanswered(self, failed: Failed, subject: Subject) -> Failed:
        """Return what it means that there is no readable answer: it is this user's (one with too many groups), or Keycloak hangs."""
        if len(self._unanswered) < _USERS_IN_A_ROW:
            self._unanswered.add(subject.subject)
        return replace(failed, connected=len(self._unanswered) < _USERS_IN_A_ROW)

    def invalid(self, subject: Subject) -> S2SError:
        """Return what an "Invalid token" means, and log it: the session of this user is over, or Keycloak refuses everybody's tokens."""
        settings = self.settings
        before = len(self._refused)
        if before < _USERS_IN_A_ROW:
            self._refused.add(subject.subject)
        if len(self._refused) < _USERS_IN_A_ROW:
            sentence = f"Keycloak exchanged no token of the user {named(subject.subject)} for {named(settings.client_id)}: {SESSION_OVER}."
            report(partial(LOG.info, "%s", sentence))
            return SessionEnded(sentence)
        error = TokenRequestError(
            f'Keycloak said "Invalid token" of {_USERS_IN_A_ROW} users in a row, and exchanged no token for {named(settings.client_id)} since.',
            error="invalid_request",
            error_description="Invalid token",
            http_status=400,
            cure=settings.worded(foreign_issuer(settings.issuer)),
        )
        if before < _USERS_IN_A_ROW:
            report(partial(LOG.warning, "%s", error))
        return error


class ExchangeRequest:
    """Exchange users' tokens for those of one key, one for each call; blocks.

    It holds no user's token: that is given to each call. The result is a value, as that of `TokenRequest`.
    """

    def __init__(self, key: TokenKey, exchanger: Exchanger) -> None:
        if "openid" in key.wanted.scopes:
            raise ConfigurationError(
                "scope=openid cannot be requested on behalf of a user: it only adds an ID token to Keycloak's answer, which no service accepts."
            )
        if not key.wanted.audiences:
            raise ConfigurationError(
                "A call on behalf of a user needs audience=: Keycloak exchanges a user's token also without one, and then no service"
                " accepts it."
            )
        self.exchanger = exchanger
        self._wanted = key.wanted
        self._recording = Recording("exchange token", key, TOKEN_EXCHANGE)
        self.labels = self._recording.labels
        """Its labels in metrics."""
        self.attributes = self._recording.attributes
        """Its attributes in spans."""

    def __call__(self, subject: Subject) -> Loaded[GrantedToken] | Failed:
        """Exchange the token of `subject`, and record the result in log, trace and metrics; never raises an error of this package."""
        return self._recording.of(partial(self._outcome, subject))

    def _outcome(self, subject: Subject) -> Loaded[GrantedToken] | Failed:
        exchanger, settings = self.exchanger, self.exchanger.settings
        began = exchanger.wall()
        outcome = exchanger.endpoint.ask(_Exchange(subject, self._wanted, settings))
        who, client = named(subject.subject), named(settings.client_id)
        if isinstance(outcome, Failed):
            if isinstance(outcome.error, SessionEnded):
                return replace(outcome, error=exchanger.invalid(subject))
            if outcome.connected:
                outcome = exchanger.unanswered(outcome, subject)
            said = f"on behalf of the user {who}: " if concerns(outcome) == "user" else ""
            report(partial(LOG.warning, "%s%s", said, outcome.error))
            return outcome
        exchanger.succeeded()
        token = outcome.value
        # By both clocks: the monotonic one may stand still while the machine sleeps, the other one may be set.
        left = subject.expires_at - began
        if exchanger.wall() >= subject.expires_at:
            error = SessionEnded(f"The token of the user {who} expired while it was exchanged for {client}.")
            return Failed(error, 0.0)
        for sentence in (*remarks(token, self._wanted, settings), *self._unasked(token)):
            exchanger.endpoint.warn(sentence)
        report(
            partial(
                LOG.info,
                "exchanged a token of the user %s (session of %s) for %s, which calls %s: token %s",
                who,
                named(subject.client_id),
                client,
                listed(self._wanted.audiences),
                named(token.token_id),
            )
        )
        return Loaded(token, min(outcome.usable_for, left), 0.0)

    def _unasked(self, token: GrantedToken) -> Iterator[str]:
        more = set(names_in((claims_of(token.value) or {}).get("aud"))) - self._wanted.audiences
        if more:
            yield unasked(more, self._wanted.scopes, self.exchanger.settings.client_id)


def concerns(failed: Failed) -> Literal["client", "wanted", "user"]:
    """Return whom a failure concerns: every exchange of the client, those for the same audience and scope, or only this user's.

    A failure that may have to do with the user is never remembered for others.
    """
    error = failed.error
    if isinstance(error, ConfigurationError):
        return "client"  # the secret cannot be read
    if failed.connected or not isinstance(error, TokenRequestError) or error.http_status == _OK:
        return "user"
    if wrong_credentials(error) or error.error == "unsupported_grant_type" or "not enabled" in error.error_description:
        return "client"
    if error.error == "invalid_scope" and "consent" not in error.error_description.lower():
        return "wanted"
    # No answer, or one that is not Keycloak's own.
    return "client" if not error.error or error.http_status == _TOO_MANY else "user"


@dataclass(frozen=True, slots=True)
class _Exchange:
    """An access token for an access token (RFC 8693 section 2.1)."""

    subject: Subject
    wanted: Wanted
    settings: "KeycloakSettings"

    def form(self) -> dict[str, str]:
        # No audience=: Keycloak knows only clients by it, and would refuse the URL of a custom audience.
        return {
            **self.wanted.form(GRANT_TYPE),
            "subject_token": self.subject.text,
            "subject_token_type": ACCESS_TOKEN,
            "requested_token_type": ACCESS_TOKEN,
        }

    def granted(self, answer: Mapping[str, Any], binding: Binding | None, certificate: str) -> GrantedToken:
        """Return the token in the answer (RFC 8693 section 2.2.1), if it is the same user's, and ours."""
        client = self.settings.client_id
        token = granted(
            answer, self.wanted, client_id=client, holder="the user", binding=binding, certificate=certificate
        )
        claims, kind = claims_of(token.value) or {}, "bearer" if binding is None else PROOF
        if answer.get("issued_token_type") != ACCESS_TOKEN:
            raise _unusable(f"its issued_token_type is not {ACCESS_TOKEN}", claims)
        if token.value == self.subject.text:
            raise _unusable("its token is the user's own", claims)
        # `granted` has compared ``cnf`` of a bound token with our key or certificate.
        bound = binding is not None or (certificate != "" and token.certificate == certificate)
        if str(claims.get("typ")).lower() != kind.lower() or (not bound and "cnf" in claims):
            raise _unusable(f"its token is no {kind} access token", claims)
        subject = self.subject
        for name, expected in (
            ("iss", subject.issuer),
            ("sub", subject.subject),
            ("sid", subject.session),
            ("azp", client),
        ):
            if claims.get(name) != expected:
                raise _unusable(f"the {name} of its token is not {named(expected)}", claims)
        return token

    def refusal(self, reply: Reply, proof: Proof) -> S2SError:
        error = refusal(
            reply,
            self.settings,
            self.wanted,
            replace(proof, form={**proof.form, "subject_token": self.subject.text}),
            exchange=True,
        )
        if error.error == "invalid_request" and error.error_description.lower() == "invalid token":
            return SessionEnded(SESSION_OVER)
        return error


def _unusable(what: str, claims: Mapping[str, Any]) -> TokenRequestError:
    return TokenRequestError(
        f"Keycloak's answer to an exchange cannot be used: {what}. Nothing was sent.",
        http_status=_OK,
        cure="Look for a mapper that overwrites this claim, and for what answers in Keycloak's place or keeps its answers.",
        retryable=False,
        claims=claims,
    )
