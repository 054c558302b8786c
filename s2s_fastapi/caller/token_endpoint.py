"""Keycloak's token endpoint, asked as one client: the proof, a secret that was rotated, and failures as values."""

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import httpx

from s2s_fastapi.backchannel.channel import BackChannelError, Reply
from s2s_fastapi.backchannel.client_certificate import ClientCertificate
from s2s_fastapi.caller.binding import NONCE, PROOF, Binding, BoundClient
from s2s_fastapi.caller.credentials import ClientAuthentication, Proof
from s2s_fastapi.caller.granted import GrantedToken, claims_of
from s2s_fastapi.caller.origins import pin_of
from s2s_fastapi.caller.token_errors import (
    RETRY,
    RETRY_CREDENTIALS,
    RETRY_NEW_KEY,
    certificate_refused,
    proof_error,
    retry_after,
    unreachable,
    wrong_credentials,
)
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.engine.loaded import Failed, Loaded
from s2s_fastapi.engine.reports import report
from s2s_fastapi.errors import AudienceNotGranted, S2SError, TokenRequestError
from s2s_fastapi.text import listed, named

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["LOG", "Channel", "Grant", "TokenEndpoint", "remarks"]

LOG: Final = logging.getLogger("s2s_fastapi.caller")

# Tokens of 1 or 2 s are used to their end: ``exp`` has whole seconds, so there is no margin to renew in.
_TOO_SHORT_TO_DIVIDE: Final = 2.0
_OK: Final = 200
_FAR: Final = 10**11
_UNAUTHORIZED: Final = 401
_NEW_KEY: Final = 20.0
"""Seconds for which a key of another issuer is new. Keycloak needs 10 s at most."""


class Channel(Protocol):
    """Sends a form to Keycloak and returns the answer; blocks."""

    def post_form(self, url: str, form: dict[str, str], headers: dict[str, str] | None = None) -> Reply:
        """Return the answer, whatever its status.

        Raises:
            BackChannelError: there is no complete answer.
        """


class Grant(Protocol):
    """One kind of token request (RFC 6749 section 4.4, RFC 8693): what it sends, and how its answer is read."""

    def form(self) -> dict[str, str]:
        """Return the fields of the request, without those that prove who the client is."""

    def granted(self, answer: Mapping[str, Any], binding: Binding | None, certificate: str) -> GrantedToken:
        """Return the token in Keycloak's answer; with `binding`, a token that is bound to its key.

        `certificate` is the thumbprint of the client certificate that the request showed, or "".

        Raises:
            TokenRequestError: It cannot be used.
        """

    def refusal(self, reply: Reply, proof: Proof) -> S2SError:
        """Return the error for an answer without a token."""


class TokenEndpoint:
    """Ask the token endpoint at `url` as one client, once for each call; blocks.

    The result is a value: the token and how long it counts, or why there is none and when to try again.
    """

    def __init__(
        self,
        url: str,
        authentication: ClientAuthentication,
        settings: "KeycloakSettings",
        channel: Channel,
        clock: Callable[[], float],
        *,
        bound: BoundClient | None = None,
    ) -> None:
        self._url = url
        self._authentication = authentication
        self._settings = settings
        self._channel = channel
        self._clock = clock
        self._bound = bound
        self._certificate = ClientCertificate.of(settings)
        self._origin = pin_of(httpx.URL(url))
        self._refused: list[object] = []  # the stamp of the secret or certificate that was refused, if one was
        self._worked: list[object] = []  # the stamp of those that brought a token, if any did
        self._refused_since = math.inf  # since when the secret that worked is refused
        self._forgotten_at = -math.inf
        self._kid = ("", -math.inf)  # the key that signed the last assertion of another issuer, and since when
        self._warned: set[str] = set()

    def another_secret(self) -> bool:
        """Return once True if the secret that Keycloak refused was replaced in its file, so another request may succeed."""
        if self._refused and self._refused != [self._stamp()]:
            now = self._clock()
            if (
                now >= self._forgotten_at + RETRY
            ):  # a file that is rewritten all the time must not cause a request each time
                self._refused, self._forgotten_at = [], now
                return True
        return False

    def ask(self, grant: Grant) -> Loaded[GrantedToken] | Failed:
        """Request a token; never raises an error of this package."""
        try:
            outcome = self._ask(grant)
        except AudienceNotGranted as error:
            outcome = Failed(self._worded(error), RETRY_CREDENTIALS)
        except S2SError as error:
            outcome = Failed(self._worded(error), RETRY)
        if isinstance(outcome, Loaded):
            self._refused = []
        return outcome

    def warn(self, sentence: str) -> None:
        """Log a sentence once."""
        sentence = self._settings.worded(sentence)
        if sentence not in self._warned and len(self._warned) < 16:  # noqa: PLR2004 - a bound, not a meaning
            self._warned.add(sentence)
            report(partial(LOG.warning, "%s", sentence))

    def _worded(self, error: S2SError) -> S2SError:
        """Return an equal error that was never raised, with the names of the variables that these settings were read from."""
        again = error.again()
        again.args = (self._settings.worded(str(error)), *error.args[1:])
        if isinstance(again, TokenRequestError):
            again.cure = self._settings.worded(again.cure)
        return again

    def _ask(self, grant: Grant) -> Loaded[GrantedToken] | Failed:
        authentication, began = self._authentication, self._clock()
        stamp, proof = self._stamp(), self._seen(authentication.prove())
        outcome = self._post(grant, proof, began)
        if _refused_credentials(outcome) is not None:
            again = authentication.prove()
            if again.material != proof.material:  # the secret was rotated while we held the old one
                stamp, proof = self._stamp(), self._seen(again)
                outcome = self._post(grant, proof, began)
        if isinstance(outcome, Loaded):
            self._worked, self._refused_since = [stamp], math.inf
        elif (error := _refused_credentials(outcome)) is not None:
            return self._credentials_refused(error, stamp, proof)
        return outcome

    def _stamp(self) -> object:
        """Return a value that changes if a file of the secret, key or certificate is replaced."""
        certificate = self._certificate
        return self._authentication.stamp(), None if certificate is None else certificate.stamp()

    def _seen(self, proof: Proof) -> Proof:
        """Remember since when there is the key that signed an assertion of another issuer."""
        if proof.assertion is not None and proof.kid != self._kid[0]:
            self._kid = (proof.kid, self._clock())
        return proof

    def _new_key(self, proof: Proof) -> bool:
        """Return whether that key is so new here that Keycloak may not have fetched it yet."""
        kid, since = self._kid
        return proof.assertion is not None and proof.kid == kid and self._clock() - since < _NEW_KEY

    def _credentials_refused(self, error: TokenRequestError, stamp: object, proof: Proof) -> Failed:
        """Return how long Keycloak is not asked after it refused client, secret or key.

        Keycloak fetches the keys of another issuer at most every 10 s, and refuses a new key until then: that is over soon.

        One node of a cluster may be out of date and refuse credentials that worked before. So a caller without a token asks once more
        at once, and all others after 5 s. A refusal 5 s later counts as final.
        """
        self._refused = [stamp]
        if error.http_status == _UNAUTHORIZED and self._new_key(proof):
            error.retryable = True
            return Failed(error, RETRY_NEW_KEY)
        if error.retryable and proof.assertion is not None:  # a clock that is behind
            return Failed(error, RETRY)
        if self._worked != [stamp]:
            return Failed(error, RETRY_CREDENTIALS)
        now, first = self._clock(), self._refused_since == math.inf
        if first:
            self._refused_since = now
        error.retryable = now - self._refused_since < RETRY
        return Failed(error, RETRY if error.retryable else RETRY_CREDENTIALS, doubtful=first)

    def _post(self, grant: Grant, proof: Proof, began: float) -> Loaded[GrantedToken] | Failed:
        """Send one request, and return the token, or why there is none.

        Raises:
            TokenRequestError: The answer has a token that cannot be used.
        """
        binding = None if self._bound is None else self._bound.binding()
        try:
            reply, again = self._send(grant, proof, binding)
            if again:  # with Keycloak's nonce or time; an assertion is accepted only once
                proof = self._authentication.prove()
                reply, _ = self._send(grant, proof, binding)
            answer = reply.json_object() if reply.status == _OK else None
        except BackChannelError as error:
            if error.certificate:
                return Failed(certificate_refused(str(error), self._settings), RETRY_CREDENTIALS)
            return Failed(unreachable(str(error), self._settings), RETRY, connected=error.connected)
        if answer is None or "error" in answer:
            return Failed(grant.refusal(reply, proof), retry_after(reply))
        if proof.signed_in(_told(answer)):
            raise TokenRequestError(
                "Keycloak's answer cannot be used: it repeats a part of the assertion that proved who asks.",
                http_status=_OK,
                cure="Look for what answers in Keycloak's place: Keycloak never does that.",
                retryable=False,
            )
        token = grant.granted(answer, binding, reply.certificate)
        if binding is not None and "Date" not in reply.headers:  # Keycloak itself sends none
            issued = (claims_of(token.value) or {}).get("iat")
            if type(issued) is int:
                binding.servers.showed(self._origin, min(issued, _FAR), began, issuer=True)
        loaded = _kept(token)
        if self._clock() - began >= loaded.usable_for:
            raise TokenRequestError(
                f"Keycloak took longer to answer than its token for {named(self._settings.client_id)} lives ({token.life:g} s).",
                http_status=_OK,
                cure="Check the load of Keycloak, and the access token lifespan of the client and of the realm.",
            )
        return loaded

    def _send(self, grant: Grant, proof: Proof, binding: Binding | None) -> tuple[Reply, bool]:
        """Return the answer, and whether the same request with another proof may get a better one.

        Raises:
            BackChannelError: There is no complete answer.
        """
        # Form and headers are in no local of this frame: error trackers record those of all frames above a record.
        if binding is None:
            return self._channel.post_form(self._url, {**grant.form(), **proof.form}, dict(proof.headers)), False
        servers = binding.servers
        proven = binding.prove("POST", self._url, self._origin)
        reply = self._channel.post_form(
            self._url, {**grant.form(), **proof.form}, {**proof.headers, PROOF: proven.header}
        )
        servers.gave_nonce(self._origin, reply.headers.get(NONCE))
        servers.showed_time(self._origin, reply.headers.get("Date"), proven.at, issuer=True)
        return reply, bool(binding.explained(proof_error(reply), proven))


def _told(answer: Mapping[str, Any]) -> str:
    """Return all of an answer that our sentences, logs and spans may show: its members, and the claims of its token."""
    token = answer.get("access_token")
    claims = claims_of(token) if isinstance(token, str) else None
    return json.dumps([claims, {name: value for name, value in answer.items() if name != "access_token"}])


def remarks(token: GrantedToken, wanted: Wanted, settings: "KeycloakSettings") -> Iterator[str]:
    """Yield a sentence for each thing about a token that is unusual but may be intended."""
    missing = sorted(wanted.scopes - token.scopes) if token.scopes is not None else []
    client = named(settings.client_id)
    if missing:
        yield (
            f"the token of {client} does not name the requested scope {listed(missing)}: its client scope may hide its name"
            ' ("Include in token scope" is off), or Keycloak dropped it because the service account has none of its roles'
        )
    if token.life < settings.leeway:
        yield (
            f"the token of {client} lives {token.life:g} s, less than the {settings.leeway:g} s by which clocks may differ, so"
            " Keycloak is asked very often: raise the access token lifespan of the client or of the realm"
        )
    if token.issuer and token.issuer != settings.issuer:
        yield (
            f"the token of {client} has iss {token.issuer}, the settings say {settings.issuer}: services that expect the issuer of"
            " the settings will refuse it; set KEYCLOAK_PUBLIC_URL to the address in iss, and KC_HOSTNAME in Keycloak so that it stays the same"
        )


def _kept(token: GrantedToken) -> Loaded[GrantedToken]:
    """Return for how many seconds a token is fresh, and for how many more it is used while another one is requested."""
    life = token.life
    if life <= _TOO_SHORT_TO_DIVIDE:
        return Loaded(token, life, 0.0)
    fresh_for = max(life - 60, 0.7 * life)
    return Loaded(token, fresh_for, life - min(10, 0.1 * life) - fresh_for)


def _refused_credentials(outcome: Loaded[GrantedToken] | Failed) -> TokenRequestError | None:
    error = outcome.error if isinstance(outcome, Failed) else None
    return error if isinstance(error, TokenRequestError) and wrong_credentials(error) else None
