"""Tokens of several realms: each realm decides with its own keys about its own tokens, and no realm about those of another.

Nothing that a token says chooses the realm. Each realm that publishes a key with the token's ``kid`` is tried: its key must have made
the signature, and ``iss`` must be its issuer. So a realm whose operator is hostile can sign tokens of its own issuer only.
"""

import queue
import threading
import time
from collections.abc import Collection
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Final

import anyio

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import KeysUnavailable
from s2s_fastapi.keycloak.cures import shown
from s2s_fastapi.principal import Principal
from s2s_fastapi.telemetry.spans import span
from s2s_fastapi.verifier.bearer import token_in
from s2s_fastapi.verifier.jwks import VerificationKey
from s2s_fastapi.verifier.jws import Jws, parse
from s2s_fastapi.verifier.keys import KeySource, unavailable
from s2s_fastapi.verifier.verdict import Verdict
from s2s_fastapi.verifier.verifier import Verifier, reported

__all__ = ["RealmsVerifier"]

_UNSIGNED: Final = (Reason.KEYS_UNAVAILABLE, Reason.INVALID_SIGNATURE, Reason.UNKNOWN_KEY)
"""Reasons for which a realm's keys say nothing about the token, those first that say most."""


class RealmsVerifier:
    """Decide about tokens of several realms, with the methods of `Verifier`.

    - Each realm has its own keys, checks and accepted tokens. What a realm publishes, and how many tokens it signs, has no effect on the
      tokens of another.
    - A realm has at most one key for a ``kid`` and an algorithm. So a token costs at most as many signature checks as there are realms.
    - If no realm that has keys accepts the token, the others are asked at the same time for a key of this ``kid``. The first realm that
      accepts the token decides, and nobody waits for the others.
    - A realm without keys may be the token's. So the answer is 503 if no other realm accepts the token.
    """

    def __init__(self, realms: tuple[Verifier, ...], *, ready: Collection[str] = ()) -> None:
        """Take the realms, the first one first. ``ready``: the names of further realms without whose keys this service is not ready."""
        self.realms = realms
        self.keys: KeySource = realms[0].keys
        """The keys of the first realm."""
        self.checks = realms[0].checks
        """The values that the first realm compares tokens with."""
        self.tokens = _Remembered(realms)
        self.ready = (realms[0], *(realm for realm in realms[1:] if realm.checks.realm in ready))
        self._by_issuer = {realm.checks.issuer: realm for realm in realms}

    def of(self, principal: Principal) -> Verifier:
        """Return the realm that decided about a caller."""
        return self._by_issuer[principal.issuer]

    def known(self, credentials: bytes) -> Verdict | None:
        """Return the verdict on a token that was accepted before and still would be: by its own realm's keys and not-before alone."""
        for realm in self.realms:
            if (verdict := realm.known(credentials)) is not None:
                return verdict
        return None

    def decide(self, credentials: bytes) -> Verdict:
        """Return the verdict on a token, waiting for keys if need be."""
        for realm in self.realms:
            if realm.remembers(credentials):
                try:
                    verdict = realm.hit(credentials, realm.keys.get())
                except KeysUnavailable as error:
                    return Verdict((unavailable(error),))
                if verdict is not None:
                    return verdict
        began = time.perf_counter()
        with span("verify token") as current:
            found = self._found(credentials)
            if isinstance(found, _Search):
                if found.verdict is None:
                    _ask(found)
                found = found.result()
            return reported(found, current, began)

    async def adecide(self, credentials: bytes) -> Verdict:
        """Return the verdict like `decide`, without blocking the event loop."""
        for realm in self.realms:
            if realm.remembers(credentials):
                try:
                    verdict = realm.hit(credentials, await realm.keys.aget())
                except KeysUnavailable as error:
                    return Verdict((unavailable(error),))
                if verdict is not None:
                    return verdict
        began = time.perf_counter()
        with span("verify token") as current:
            found = self._found(credentials)
            if isinstance(found, _Search):
                if found.verdict is None:
                    await _aask(found)
                found = found.result()
            return reported(found, current, began)

    def _found(self, credentials: bytes) -> "_Search | Verdict":
        """Parse a token and try the realms that have its key at hand."""
        jws = parse(token_in(credentials))
        if isinstance(jws, Decision):
            return self.realms[0].judged(credentials, jws, jws)
        search = _Search(credentials, jws, frozenset(self._by_issuer))
        for realm in self.realms:
            keys = realm.keys.ready()
            key = None if keys is None else keys.find(jws.kid, jws.algorithm)
            if key is None:
                search.others.append(realm)
            elif search.tries(realm, key):
                break
        return search


@dataclass(slots=True)
class _Search:
    """One token whose realm is looked for."""

    credentials: bytes = field(repr=False)
    jws: Jws = field(repr=False)
    issuers: frozenset[str]
    others: list[Verifier] = field(default_factory=list)
    """Realms that have no such key at hand."""
    verdict: Verdict | None = None
    """What the token's own realm decided."""
    _refusals: list[tuple[Verifier, Verdict]] = field(default_factory=list)
    """What is wrong with the token for each realm that it is not of."""

    def tries(self, realm: Verifier, key: VerificationKey | Decision) -> bool:
        """Let one realm decide with its key, and return whether that is the end: it is the token's realm, or no realm is."""
        verdict = realm.judged(self.credentials, self.jws, key)
        if verdict.decision.reason in _UNSIGNED and not verdict.accepted:
            self._refusals.append((realm, verdict))
            return False
        issuer = self._issuer(verdict)
        if issuer != realm.checks.issuer and issuer in self.issuers:
            self._refusals.append((realm, verdict))
            return False
        # Not even the first one that decides is overwritten: another thread, or a task that was cancelled too late, may come second.
        self.verdict = self.verdict or verdict
        return True

    def _issuer(self, verdict: Verdict) -> str:
        """Return the issuer in a token whose signature holds for one realm."""
        if verdict.principal is not None:
            return verdict.principal.issuer
        claims = self.jws.claims()
        issuer = "" if isinstance(claims, Decision) else claims.get("iss", "")
        return issuer if isinstance(issuer, str) else ""

    def result(self) -> Verdict:
        """Return what the token's realm decided; otherwise the refusal that says most, with what each realm says."""
        if self.verdict is not None:
            return self.verdict
        refusals = [(realm, verdict.decision) for realm, verdict in self._refusals]
        signed = [(realm, decision) for realm, decision in refusals if decision.reason not in _UNSIGNED]
        keyless = {realm.checks.issuer for realm, decision in refusals if decision.reason is Reason.KEYS_UNAVAILABLE}
        if keyless:
            reason = Reason.KEYS_UNAVAILABLE
        elif signed:
            return Verdict((signed[0][1],))
        else:
            reason = min((decision.reason for _, decision in refusals), key=_UNSIGNED.index)
        same = [(realm, decision) for realm, decision in refusals if decision.reason is reason]
        return Verdict(
            (
                Decision(
                    reason=reason,
                    cure=" ".join(f"{realm.checks.issuer}: {decision.cure}" for realm, decision in same),
                    unverified_kid="" if keyless else shown(self.jws.kid)[:64],
                    retry_after=min(decision.retry_after for _, decision in same),
                ),
            )
        )


def _ask(search: _Search) -> None:
    """Ask the other realms for the key, all at the same time, until one of them decides."""
    kid, algorithm = search.jws.kid, search.jws.algorithm
    if len(search.others) == 1:
        realm = search.others[0]
        search.tries(realm, realm.keys.key(kid, algorithm))
        return
    answers: queue.SimpleQueue[tuple[Verifier, VerificationKey | Decision | BaseException]] = queue.SimpleQueue()

    def ask(realm: Verifier) -> None:
        try:
            answers.put((realm, realm.keys.key(kid, algorithm)))
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits
            answers.put((realm, error))

    for realm in search.others:
        # Its own thread, because nobody waits for a realm that hangs: it ends with the deadline of its keys.
        context = copy_context()
        try:
            threading.Thread(target=context.run, args=(ask, realm), name="s2s_fastapi realm", daemon=True).start()
        except RuntimeError:  # there is no thread
            ask(realm)
    for _ in search.others:
        realm, answer = answers.get()
        if isinstance(answer, BaseException):
            raise answer
        if search.tries(realm, answer):
            return


async def _aask(search: _Search) -> None:
    """Do as `_ask`, without blocking the event loop."""
    kid, algorithm = search.jws.kid, search.jws.algorithm
    if len(search.others) == 1:
        realm = search.others[0]
        search.tries(realm, await realm.keys.akey(kid, algorithm))
        return

    async def ask(realm: Verifier) -> None:
        if search.tries(realm, await realm.keys.akey(kid, algorithm)):
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for realm in search.others:
            group.start_soon(ask, realm)


class _Remembered:
    """The accepted tokens of all realms, as far as the header of a request is compared with them."""

    def __init__(self, realms: tuple[Verifier, ...]) -> None:
        self._realms = realms

    @property
    def recent(self) -> "_Remembered":
        """See `AcceptedTokens.recent`."""
        return self

    def __contains__(self, credentials: object) -> bool:
        return any(credentials in realm.tokens.recent for realm in self._realms)
