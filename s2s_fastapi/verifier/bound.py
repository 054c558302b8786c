"""Bound tokens: one becomes an acceptance only by the proof (DPoP, RFC 9449) or the client certificate (RFC 8705) of the same request.

The token is verified first, as every other one (`s2s_fastapi.verifier.verifier`), then the certificate, if it is bound to one
(`s2s_fastapi.verifier.client_certificate`), and then the proof (`s2s_fastapi.proof.checked`). The proof is remembered last, so that what
is refused takes no place in the store.
"""

import logging
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Self

import anyio

from s2s_fastapi.answers import ProtectionSpace
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import ConfigurationError, ReplayStoreUnavailable
from s2s_fastapi.keycloak.cures import PROOF_USED, STORE_UNCLEAR, store_cure
from s2s_fastapi.proof.algorithms import PROOF_ALGORITHMS
from s2s_fastapi.proof.checked import Proof, check_proof
from s2s_fastapi.proof.replay import InProcessReplayStore, ReplayStore, Sender, quota_of
from s2s_fastapi.text import listed
from s2s_fastapi.verifier.bearer import proofs_in, token_in
from s2s_fastapi.verifier.client_certificate import ClientCertificates, MatchedCertificate
from s2s_fastapi.verifier.public_url import PublicUrls, checked_urls
from s2s_fastapi.verifier.realms import RealmsVerifier
from s2s_fastapi.verifier.verdict import BoundVerdict, Verdict
from s2s_fastapi.verifier.verifier import Verifier

__all__ = ["BoundTokens", "DpopOptions", "certified"]

_STORE_SECONDS: Final = 0.6
"""Seconds for which a store may look for a proof, all in all."""
_RETRY_AFTER: Final = 5
_NOT_SHARED: Final = (
    'dpop="required" without replay_store=: proofs are remembered in this process only, so a copied proof is accepted once more by each '
    "other process and machine that serves this app. If there are several, share one store: replay_store=RedisReplayStore(...)."
)
_USED: Final = "s2s_fastapi.used_proof"
_MODES: Final[tuple[object, ...]] = ("accepted", "required")


@dataclass(frozen=True, slots=True, eq=False)
class _Used:
    """In the scope of a request: the proof that this request has used. Only this module makes one, so nothing that is sent can pass for it."""

    store: ReplayStore = field(repr=False)
    token: bytes = field(repr=False)
    """The digest of its token."""
    key: bytes = field(repr=False)

    def same(self, other: object) -> bool:
        """Return whether ``other`` is the same proof of the same token in the same store."""
        return (
            isinstance(other, _Used)
            and (self.token, self.key) == (other.token, other.key)
            and self.store is other.store  # a store may say that it equals everything
        )


@dataclass(frozen=True, slots=True)
class DpopOptions:
    """How a service accepts bound tokens: what `ServiceAuthMiddleware` or `TokenVerifier` was told, checked."""

    mode: Literal["", "accepted", "required"] = ""
    urls: tuple[str, ...] = ()
    store: ReplayStore | None = None

    @classmethod
    def of(
        cls, dpop: Literal["accepted", "required"] | None, public_url: object, replay_store: ReplayStore | None
    ) -> Self:
        """Check the options.

        Raises:
            ConfigurationError: One is wrong, or lacks another one.
        """
        urls = checked_urls(public_url)
        if dpop is None:
            if replay_store is not None:
                raise ConfigurationError(
                    'replay_store= is of use only with dpop=: write dpop="accepted" to accept bound tokens beside bearer tokens, or remove it.'
                )
            return cls(urls=urls)
        if dpop not in _MODES:
            raise ConfigurationError(
                'dpop= takes "accepted" (bound tokens and bearer tokens) or "required" (bound tokens only), not '
                f"{dpop!r}. Leave it out to accept bearer tokens only."
            )
        if not urls:
            raise ConfigurationError(
                f'dpop="{dpop}" needs the URL at which callers reach this app, because a proof names the URL of its request, and the headers of a'
                ' request may lie about it: public_url="https://crm.example.com".'
            )
        if replay_store is not None and not callable(getattr(replay_store, "first_use", None)):
            raise ConfigurationError(
                "replay_store= takes an object with `async def first_use(self, key: bytes, seconds: float) -> bool`, such as"
                f" RedisReplayStore, not {type(replay_store).__name__}."
            )
        return cls(dpop, urls, replay_store)

    @property
    def said(self) -> tuple[tuple[int, str], ...]:
        """What a start logs, each with its level: which tokens are accepted, and where their proofs are remembered."""
        if not self.mode:
            return ()
        accepted = "required" if self.mode == "required" else "accepted beside bearer tokens"
        urls = listed(self.urls, " or ")
        said = (
            logging.INFO,
            f"tokens that are bound to a key (DPoP) are {accepted}, for requests to {urls}. {_of_store(self.store)}",
        )
        return (said, (logging.WARNING, _NOT_SHARED)) if self.mode == "required" and self.store is None else (said,)

    def placed(self, space: ProtectionSpace) -> ProtectionSpace:
        """Return what challenges say of the service, with the schemes that it accepts."""
        return replace(space, dpop=self.mode, algorithms=PROOF_ALGORITHMS) if self.mode else space


def _of_store(store: ReplayStore | None) -> str:
    if store is None or isinstance(store, InProcessReplayStore):
        return (
            "Proofs are remembered in this process only: another process or machine that serves the app accepts a copied proof once more. To "
            "share one store, write replay_store=RedisReplayStore(...)."
        )
    return f"Proofs are remembered in {type(store).__name__}."


class BoundTokens:
    """Decide about requests with a token under the scheme DPoP."""

    def __init__(
        self,
        verifier: Verifier | RealmsVerifier,
        options: DpopOptions,
        certificates: ClientCertificates | None = None,
    ) -> None:
        """Take the verifier of the service, and where the client certificates of tokens come from that are bound in both ways.

        Without a store in the options, proofs are remembered in the store that all apps and verifiers of this process share.
        """
        self._tokens = verifier
        self._certificates = certificates
        self._clock: Callable[[], float] = verifier.realms[0].clock
        self._several = len(verifier.realms) > 1
        self._urls = PublicUrls.of(options.urls)
        self._proofs = quota_of(options.store)

    async def decide(
        self, credentials: bytes, scope: MutableMapping[str, Any], root_path: str | None = None
    ) -> Verdict:
        """Return the verdict on a request, or on the handshake of a WebSocket, whose credentials are ``DPoP <token>``.

        ``root_path`` is the one that the app below will set, if it is not in the scope yet.
        """
        verdict = self._tokens.known(credentials) or await self._tokens.adecide(credentials)
        if not isinstance(verdict, BoundVerdict):
            return verdict
        certificate = _certificate(verdict, self._certificates, scope)
        if isinstance(certificate, Decision):
            return verdict.refused(certificate)
        now = self._clock()
        proof = check_proof(
            proofs_in(scope["headers"]),
            thumbprint=verdict.thumbprint,
            method="GET" if scope["type"] == "websocket" else scope["method"],
            urls=self._urls.of_request(scope, root_path),
            token=token_in(credentials),
            now=now,
        )
        if isinstance(proof, Decision):
            return verdict.refused(proof)
        refusal = await self._used(verdict, proof, now, scope)
        return verdict.proven(proof, certificate) if refusal is None else verdict.refused(refusal)

    async def unasked(self, credentials: bytes, cure: str) -> Verdict:
        """Return the refusal of a token whose proof cannot be checked, because nobody knows the request that it came with."""
        verdict = self._tokens.known(credentials) or await self._tokens.adecide(credentials)
        if not isinstance(verdict, BoundVerdict):
            return verdict
        return verdict.refused(Decision(reason=Reason.INVALID_PROOF, cure=cure))

    async def _used(
        self, verdict: BoundVerdict, proof: Proof, now: float, scope: MutableMapping[str, Any]
    ) -> Decision | None:
        """Remember a proof; return the refusal if it came before, or if nobody can tell. Only True says that it is new.

        It is also new for the very request that used it: a middleware of a mounted app, or a second dependency, asks once more.
        """
        owner = verdict.owner
        using = _Used(self._proofs.store, verdict.of_token.digest, proof.replay_key(owner.issuer))
        if using.same(scope.get(_USED)):
            return None
        user = owner.subject if owner.kind == "user" else ""
        sender = Sender(owner.issuer, owner.client_id, user, self._several, bool(owner.other_realm))
        try:
            with anyio.fail_after(_STORE_SECONDS):
                new: object = await self._proofs.first_use(sender, using.key, proof.remember_for(now))
        except Exception as error:  # noqa: BLE001 - whatever a store raises, a proof that may have been used lets nobody in
            wait = error.retry_after if isinstance(error, ReplayStoreUnavailable) else _RETRY_AFTER
            return Decision(reason=Reason.REPLAY_STORE_UNAVAILABLE, cure=store_cure(error), retry_after=wait)
        if new is True:
            scope[_USED] = using
            return None
        if new is False:
            return Decision(reason=Reason.PROOF_REPLAYED, cure=PROOF_USED)
        return Decision(reason=Reason.REPLAY_STORE_UNAVAILABLE, cure=STORE_UNCLEAR, retry_after=_RETRY_AFTER)


def certified(
    verdict: BoundVerdict, certificates: ClientCertificates | None, scope: MutableMapping[str, Any]
) -> Verdict:
    """Return the verdict on a request, or on the handshake of a WebSocket, with a token under Bearer that is bound to a certificate."""
    certificate = _certificate(verdict, certificates, scope)
    return (
        verdict.refused(certificate) if isinstance(certificate, Decision) else verdict.proven(certificate=certificate)
    )


def _certificate(
    verdict: BoundVerdict, certificates: ClientCertificates | None, scope: MutableMapping[str, Any]
) -> MatchedCertificate | Decision | None:
    """Return the certificate of the request if the token is bound to it, or the refusal; None if the token needs none."""
    if not verdict.certificate or certificates is None:
        return None  # `BoundVerdict.proven` refuses a token that needs one
    return certificates.matched(scope, verdict.certificate)
