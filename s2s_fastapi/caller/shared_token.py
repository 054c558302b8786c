"""One token, shared by all who ask for the same: how it is asked for, kept and renewed."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from s2s_fastapi.backchannel import BackChannelError, Reply
from s2s_fastapi.caller.asked import Asked
from s2s_fastapi.caller.credentials import ClientAuthentication, Proof, client_authentication
from s2s_fastapi.caller.grant import Token, granted
from s2s_fastapi.caller.token_errors import (
    RETRY,
    RETRY_CREDENTIALS,
    refusal,
    retry_after,
    unreachable,
    wrong_credentials,
)
from s2s_fastapi.errors import AudienceNotGranted, S2SError, TokenRequestError
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.lanes import Lane
from s2s_fastapi.refreshing import Failed, Loaded, Refreshing, State
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.telemetry import trace_alone

__all__ = ["DEADLINE", "RENEWAL_SPACING", "Channel", "SharedToken", "TokenKey"]

LOG: Final = logging.getLogger("s2s_fastapi.caller")

DEADLINE: Final = 5.0
"""Seconds anybody waits for a token."""
RENEWAL_SPACING: Final = 10.0
"""Seconds between the beginning of a request and that of one that is forced."""
_MAX_WAITERS: Final = 10_000
"""Callers who wait for one token at a time. They are there anyway; one more seat is 50 bytes."""
# ``exp`` counts whole seconds, so of one or two of them no part can be kept back; renewing ahead would only ask more often than once
# in a life.
_TOO_SHORT_TO_DIVIDE: Final = 2.0
_OK: Final = 200


class Channel(Protocol):
    """Whoever carries a form to Keycloak and brings the answer; blocks."""

    def post_form(self, url: str, form: dict[str, str], headers: dict[str, str] | None = None) -> Reply:
        """Return the answer, whatever its status.

        Raises:
            BackChannelError: there is no complete answer.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """All that makes a token another token. Compared field by field, so no crafted name can imitate another key."""

    issuer: str
    token_url: str
    ca_file: Path | None
    authentication: ClientAuthentication = field(repr=False)
    """Client, method, and the secret or where it stands."""
    asked: Asked

    @classmethod
    def of(cls, settings: KeycloakSettings, asked: Asked) -> "TokenKey":
        """Return the key for `asked` as the client of `settings`.

        Raises:
            ConfigurationError: Client id or secret is not set.
        """
        return cls(
            issuer=settings.issuer,
            token_url=Endpoints.of(settings).token,
            ca_file=settings.ca_file,
            authentication=client_authentication(settings),
            asked=asked,
        )


class SharedToken:
    """One token, for everybody in this process who asks for the same: fresh, renewed ahead, kept through failures."""

    def __init__(
        self, key: TokenKey, settings: KeycloakSettings, channel: Channel, lane: Lane, clock: Callable[[], float]
    ) -> None:
        self._key = key
        self._settings = settings
        self._channel = channel
        self._clock = clock
        self._refused: list[object] = []  # the stamp of the secret that was refused, if one was
        self._warned: set[str] = set()
        self._value = Refreshing[Token](
            self._load,
            name=f"the token of {settings.client_id}",
            lane=lane,
            timeout=DEADLINE,
            clock=clock,
            spacing=RENEWAL_SPACING,
            max_waiters=_MAX_WAITERS,
            unavailable=_unavailable,
            unanswered=self._unanswered,
            in_front=trace_alone,
        )
        self.peek = self._value.peek  # the hot path: no call in between

    def get(self) -> Token:
        """Return the token; wait for at most 5 s, with all others for one request, where there is none.

        Raises:
            TokenRequestError: Keycloak gave none (`AudienceNotGranted`: none that is for the asked audience).
            ConfigurationError: The secret cannot be read.
        """
        self._pardon()
        return self._value.get()

    async def aget(self) -> Token:
        """Do as `get`, without blocking the running asyncio or trio loop."""
        self._pardon()
        return await self._value.aget()

    def renew(self, seen: Token) -> Token:
        """Return another token than `seen`, which a receiver refused; `seen` again within 10 s of the last request.

        Raises:
            TokenRequestError: as `get`; the current token stays.
        """
        return self._value.renew(seen)

    async def arenew(self, seen: Token) -> Token:
        """Do as `renew`, without blocking the running asyncio or trio loop."""
        return await self._value.arenew(seen)

    @property
    def client_id(self) -> str:
        """Whose token it is."""
        return self._settings.client_id

    @property
    def issuer(self) -> str:
        """Which realm gives it."""
        return self._key.issuer

    @property
    def asked(self) -> Asked:
        """What it is asked for."""
        return self._key.asked

    def state(self) -> State:
        """Return how the token is: its age, the last error, the next try."""
        return self._value.state()

    def age(self, token: Token) -> float:
        """Return how many seconds ago `token` was asked for; infinity where another one has taken its place."""
        return self._value.age(token)

    def resting(self) -> S2SError | None:
        """Return the failure because of which Keycloak is left alone at present, if it is: an error that was never raised."""
        state = self._value.state()
        return state.last_error if state.next_try_in is not None and not state.loading else None

    def last_error(self) -> S2SError | None:
        """Return what the last request failed with, if it did: an error that was never raised."""
        return self._value.state().last_error

    def _pardon(self) -> None:
        """Forget that the secret was refused once its file has another one."""
        if self._refused and self._refused != [self._key.authentication.stamp()]:
            self._refused = []
            self._value.forgive()

    def _unanswered(self, sentence: str) -> S2SError:
        return TokenRequestError(
            f"{sentence}.", cure=f"Is Keycloak up, and is KEYCLOAK_URL ({self._settings.url}) right for this process?"
        )

    def _load(self) -> Loaded[Token] | Failed:
        failed: Failed | None = None
        try:
            loaded = self._ask()
        except AudienceNotGranted as error:
            failed = Failed(error.again(), RETRY_CREDENTIALS)
        except _RefusedError as refused:
            failed = Failed(refused.error, refused.retry_in)
        except S2SError as error:
            failed = Failed(error.again(), RETRY)
        if failed is None:
            self._refused = []
            return loaded
        LOG.warning("%s", failed.error)
        return failed

    def _ask(self) -> Loaded[Token]:
        began = self._clock()
        stamp = self._key.authentication.stamp()
        proof = self._key.authentication.prove()
        reply = self._post(proof)
        if reply.status != _OK:
            refused = refusal(reply, self._settings, self._key.asked, proof)
            again = self._key.authentication.prove() if wrong_credentials(refused) else proof
            if again.material != proof.material:  # the secret was rotated while we held the old one
                stamp, proof = self._key.authentication.stamp(), again
                reply = self._post(proof)
                refused = refusal(reply, self._settings, self._key.asked, proof)
            if reply.status != _OK:
                if wrong_credentials(refused):
                    self._refused = [stamp]
                    raise _RefusedError(refused, RETRY_CREDENTIALS)
                raise _RefusedError(refused, retry_after(reply))
        loaded = self._accept(reply, proof, began)
        # Not in the frame of `_accept`, which holds the answer: error trackers record the locals of every frame that logs.
        self._look(loaded.value)
        return loaded

    def _post(self, proof: Proof) -> Reply:
        problem = ""
        try:
            return self._channel.post_form(
                self._key.token_url, {**self._key.asked.form(), **proof.form}, dict(proof.headers)
            )
        except BackChannelError as error:
            problem = str(error)
        raise unreachable(BackChannelError(problem), self._settings)

    def _accept(self, reply: Reply, proof: Proof, began: float) -> Loaded[Token]:
        problem = ""
        try:
            answer = reply.json_object()
        except BackChannelError as error:
            problem = str(error)
        if problem:
            raise unreachable(BackChannelError(problem), self._settings)
        if "error" in answer:
            raise refusal(reply, self._settings, self._key.asked, proof)
        token = granted(answer, self._key.asked, client_id=self._settings.client_id)
        fresh_for, usable_for = _spans(token.life)
        if self._clock() - began >= usable_for:
            raise TokenRequestError(
                f"Keycloak took longer to answer than the token it gave to {self._settings.client_id} lives ({token.life:g} s).",
                http_status=_OK,
                cure="Look at Keycloak's load, and at the access token lifespan of the client and of the realm.",
            )
        return Loaded(token, fresh_for, usable_for)

    def _look(self, token: Token) -> None:
        """Warn, once, of what is odd but may be meant."""
        missing = sorted(self._key.asked.scopes - token.scopes) if token.scopes is not None else []
        client = self._settings.client_id
        if missing:
            self._warn(
                f"the token of {client} does not show the asked scope {', '.join(missing)}: its client scope may hide its name"
                ' ("Include in token scope" is off), or it dropped out because the service account has none of its roles'
            )
        if token.life < self._settings.leeway:
            self._warn(
                f"the token of {client} lives {token.life:g} s, less than the {self._settings.leeway:g} s by which clocks may differ, and as"
                " often Keycloak is asked for another: raise the access token lifespan of the client or of the realm"
            )
        if token.issuer and token.issuer != self._key.issuer:
            self._warn(
                f"the token of {client} has iss {token.issuer}, the settings say {self._key.issuer}: services that expect the latter"
                " will refuse it; set KEYCLOAK_PUBLIC_URL to what stands in iss, and KC_HOSTNAME in Keycloak so that it stays the same"
            )

    def _warn(self, sentence: str) -> None:
        if sentence not in self._warned and len(self._warned) < 16:  # noqa: PLR2004 - a bound, not a meaning
            self._warned.add(sentence)
            LOG.warning("%s", sentence)


def _spans(life: float) -> tuple[float, float]:
    """Return for how many seconds a token of this life is fresh, and for how many usable."""
    if life <= _TOO_SHORT_TO_DIVIDE:
        return math.inf, life
    return max(life - 60, 0.7 * life), life - min(10, 0.1 * life)


def _unavailable(sentence: str) -> S2SError:
    return TokenRequestError(f"{sentence}.")


class _RefusedError(Exception):
    """Keycloak said no; `retry_in` seconds until it is worth another try."""

    def __init__(self, error: TokenRequestError, retry_in: float) -> None:
        super().__init__()
        self.error = error
        self.retry_in = retry_in
