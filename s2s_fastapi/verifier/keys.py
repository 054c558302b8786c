"""Keycloak's keys, held ready: which key verifies a token, and when to ask Keycloak again."""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

import httpx

from s2s_fastapi.backchannel.channel import BackChannel, BackChannelError, Reply
from s2s_fastapi.backchannel.client_certificate import ClientCertificate
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.engine.refreshing import Failed, Loaded, Refreshing, State
from s2s_fastapi.engine.reports import report
from s2s_fastapi.engine.workers import KEYS, Workers
from s2s_fastapi.errors import ConfigurationError, KeysUnavailable
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.keycloak.server_cures import answer_cure, said_by, unreachable_cure
from s2s_fastapi.process import watch_forks
from s2s_fastapi.telemetry.attributes import CAUSE, ISSUER, OUTCOME
from s2s_fastapi.telemetry.metrics import KEYS_FETCH, watch_age
from s2s_fastapi.telemetry.spans import background, cause, failed, foreground, span
from s2s_fastapi.text import named
from s2s_fastapi.verifier.jwks import KeySet, VerificationKey

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["KeySource", "SharedSources", "sharing", "unavailable"]

_log = logging.getLogger("s2s_fastapi.keys")

# Keycloak says no-cache for its keys; asking for each token would make it the bottleneck of every service.
_TTL: Final = 600.0
_AHEAD: Final = 0.8 * _TTL
_LAST_GOOD: Final = 3600.0
_OK: Final = 200
_SPACING: Final = 5.0
_TIMEOUT: Final = 3.0
_REALM_PAGE_TIMEOUT: Final = 1.0
_MAX_WAITERS: Final = 10_000
"""Upper bound on requests and probes that wait for the first keys; a waiter costs 50 bytes and need not be authenticated."""
_MAX_ASKING: Final = 100
_MAX_RETURNING: Final = 100
_MAX_ABSENT: Final = 1000
_MAX_TURNED_AWAY: Final = 20_000
_MAX_SKIPPED: Final = 20
_UNKNOWN: Final = Decision(reason=Reason.UNKNOWN_KEY)


class KeySource:
    """Find the key that a token names in the realm's JWKS. An unknown ``kid`` is looked for in a new fetch.

    - Keys are renewed in the background after 8 minutes, and in the foreground after 10 minutes. During an outage the last good keys are
      used for an hour.
    - At most one fetch starts in 5 s, whatever tokens come in. An unknown ``kid`` waits for the next fetch.
    - A hundred requests may wait, and a hundred more whose ``kid`` was turned away before: most invented names come once, a new key
      comes again. If a flood that repeats its names takes those places too, a new key is found with the next fetch.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        channel: BackChannel,
        *,
        issuer: str = "",
        worded: Callable[[str], str] = str,
        clock: Callable[[], float] = time.monotonic,
        spacing: float = _SPACING,
        workers: Workers | None = None,
    ) -> None:
        """Take note of the arguments; nothing is fetched yet.

        - ``spacing``: seconds between the beginning of one fetch and the next that a token can cause.
        - ``workers``: the threads that fetch. By default all sources of a server share them.
        """
        self.url = endpoints.jwks
        """Where the keys are published."""
        self._endpoints = endpoints
        self.issuer = issuer or endpoints.realm
        """What telemetry calls the realm."""
        self._channel = channel
        self._worded = worded
        self._clock = clock
        self._spacing = spacing
        self.not_before = 0
        """The realm's ``tokens-not-before``, seconds since the epoch: tokens issued earlier were revoked."""
        self.after_fork()
        self._absent: dict[str, float] = {}
        self._turned_away: set[int] = set()
        self._last = KeySet({})
        self._page_problem = ""
        self._reported_skipped: frozenset[tuple[str, str]] = frozenset()
        self._keys: Refreshing[KeySet] = Refreshing(
            self._load,
            name="keys",
            workers=workers or KEYS.to(endpoints.jwks),
            timeout=_TIMEOUT,
            clock=clock,
            spacing=spacing,
            apart=spacing,
            max_waiters=_MAX_WAITERS,
            foreground=foreground,
            background=background,
            unavailable=KeysUnavailable,
        )
        watch_age(self)
        self.peek = self._keys.peek
        """Return the keys if they are fresh. The hot path calls it, so there is no call of our own in between."""
        self.ready = self._keys.ready
        """Return the keys if nobody has to wait for them. Keys that are not fresh any more are renewed in the background."""

    @classmethod
    def of(
        cls, settings: "KeycloakSettings", transport: Callable[[], httpx.BaseTransport] | None = None
    ) -> "KeySource":
        """Return the source of the keys of the realm that the settings name.

        A process has one source for each realm and way to it. ``transport`` makes the httpx transport for Keycloak; with it the source is
        not shared.
        """
        if transport is None:
            return _in_use.sources.source(settings)
        channel = BackChannel(ca_file=settings.ca_file, transport=transport, timeout=_TIMEOUT)
        return cls(Endpoints.of(settings), channel, issuer=settings.issuer, worded=settings.worded)

    def after_fork(self) -> None:
        """Keep the keys. Forget who waited in the parent, and replace the lock: one of the parent's threads may have held it."""
        # Re-entrant: the garbage collector may run a finalizer while it is held, and that finalizer may ask about a token.
        self._lock = threading.RLock()
        self._waiting = 0

    def start(self) -> None:
        """Begin to load the keys in the background; never waits and never fails."""
        self._keys.start()

    def state(self) -> State:
        """Return the state of the keys: their age, the last error, the next try."""
        return self._keys.state()

    @property
    def count(self) -> int:
        """How many keys the last fetch brought, however long ago."""
        return len(self._last.keys)

    def published(self, kid: str) -> str:
        """Return why a key that was published under this ``kid`` cannot be used; empty if there is no such key."""
        return self._last.why_not(kid)

    def get(self) -> KeySet:
        """Return the keys, waiting for them if there are none.

        Raises:
            KeysUnavailable: There are no keys, or they are too old. ``retry_after`` says when Keycloak is asked again.
        """
        keys = self._keys.peek()
        if keys is None:
            with self._retry_after():
                keys = self._keys.get()
        return keys

    async def aget(self) -> KeySet:
        """Return the keys like `get`, without blocking the event loop."""
        keys = self._keys.peek()
        if keys is None:
            with self._retry_after():
                keys = await self._keys.aget()
        return keys

    def key(self, kid: str, algorithm: str) -> VerificationKey | Decision:
        """Return the key that a token names by its ``kid`` and ``alg``, or the refusal of the token.

        - ``unknown_key``: Keycloak does not publish such a key.
        - ``keys_unavailable``: there are no keys, or Keycloak could not be asked whether this one is new.
        """
        try:
            keys = self.get()
            if keys.find(kid, algorithm) is None:
                with self._place_in_line(kid) as waiting_since, self._retry_after():
                    if waiting_since is None:
                        return _UNKNOWN
                    keys = self._keys.renew(keys, timeout=self._spacing + _TIMEOUT, wait_for_spacing=True)
                    if keys.find(kid, algorithm) is None and self._fetched_before(waiting_since):
                        keys = self._keys.renew(keys, timeout=self._spacing + _TIMEOUT, wait_for_spacing=True)
        except KeysUnavailable as error:
            return unavailable(error)
        return self._answer(keys, kid, algorithm)

    async def akey(self, kid: str, algorithm: str) -> VerificationKey | Decision:
        """Return the key like `key`, without blocking the event loop."""
        try:
            keys = await self.aget()
            if keys.find(kid, algorithm) is None:
                with self._place_in_line(kid) as waiting_since, self._retry_after():
                    if waiting_since is None:
                        return _UNKNOWN
                    keys = await self._keys.arenew(keys, timeout=self._spacing + _TIMEOUT, wait_for_spacing=True)
                    if keys.find(kid, algorithm) is None and self._fetched_before(waiting_since):
                        keys = await self._keys.arenew(keys, timeout=self._spacing + _TIMEOUT, wait_for_spacing=True)
        except KeysUnavailable as error:
            return unavailable(error)
        return self._answer(keys, kid, algorithm)

    @contextlib.contextmanager
    def _place_in_line(self, kid: str) -> Iterator[float | None]:
        """Take a place among those who wait for a fetch, and give the time at which it was taken.

        None: there is no place, or the last fetch has just shown that there is no such key.
        """
        watch_forks(self)
        with self._lock:
            absent_since = self._absent.get(kid)
            just_answered = absent_since is not None and self._clock() - absent_since < self._spacing
            waits = not just_answered and self._has_place(hash(kid))
            self._waiting += waits
        try:
            yield self._clock() if waits else None
        finally:
            with self._lock:
                self._waiting -= waits

    def _fetched_before(self, moment: float) -> bool:
        """Return whether the fetch of the keys had begun before this moment. A newer key may then be missing."""
        age = self._keys.state().age
        return age is not None and self._clock() - age < moment

    def _has_place(self, name: int) -> bool:
        """Return whether one more may wait for a fetch. A ``kid`` that may not wait is remembered. The lock is held."""
        if self._waiting < _MAX_ASKING:
            return True
        if name in self._turned_away:
            return self._waiting < _MAX_ASKING + _MAX_RETURNING
        if len(self._turned_away) >= _MAX_TURNED_AWAY:
            self._turned_away.clear()
        self._turned_away.add(name)
        return False

    @contextlib.contextmanager
    def _retry_after(self) -> Iterator[None]:
        """Set ``Retry-After`` to the second in which Keycloak is asked again: a caller that waits so long is not sent away twice."""
        try:
            yield
        except KeysUnavailable as error:  # this waiter's own
            left = self._keys.state().next_try_in
            # If nothing has failed yet, the load is still running. Its failure will be remembered for up to 1.1 times the spacing.
            error.retry_after = max(1, math.ceil(1.1 * self._spacing if left is None else left))
            error.headers = {"Retry-After": str(error.retry_after)}
            raise

    def _answer(self, keys: KeySet, kid: str, algorithm: str) -> VerificationKey | Decision:
        found = keys.find(kid, algorithm)
        if found is None:
            with self._lock:
                if len(self._absent) >= _MAX_ABSENT:
                    self._absent.clear()  # a flood of invented names is not worth the memory
                self._absent[kid] = self._clock()
            return _UNKNOWN
        return found

    def aged(self) -> tuple[str, float] | None:
        """Return the issuer and how many seconds ago its keys were requested; None while there are no keys."""
        age = self._keys.state().age
        return None if age is None else (self.issuer, age)

    def _load(self) -> Loaded[KeySet] | Failed:
        began = time.monotonic()
        labels: dict[str, str] = {ISSUER: self.issuer, CAUSE: cause()}
        with span("fetch keys", labels) as current:
            outcome = self._fetch()
            labels[OUTCOME] = "loaded" if isinstance(outcome, Loaded) else "failed"
            current.set_attribute(OUTCOME, labels[OUTCOME])
            if isinstance(outcome, Failed):
                failed(current, outcome.error.code, str(outcome.error))
        report(partial(KEYS_FETCH.record, time.monotonic() - began, labels))
        return outcome

    def _fetch(self) -> Loaded[KeySet] | Failed:
        until = time.monotonic() + _TIMEOUT  # the clock of the exchanges, as in the channel
        url = self._endpoints.jwks
        try:
            reply = self._channel.get(url)
            problem = _problem(reply, url)
            keys = KeySet.read({} if problem else reply.json_object())
            self._report_skipped(keys)
            if not keys.keys and not problem:
                problem = "it holds no key that can verify an access token"
        except (BackChannelError, ConfigurationError) as error:  # the latter: KEYCLOAK_CA_FILE cannot be read
            keys, problem = KeySet({}), str(error)
            if isinstance(error, BackChannelError):
                problem = f"{problem}. {unreachable_cure(url, problem, proxied=self._channel.proxied)}"
        if problem:
            problem = self._worded(problem)
            sentence = f"Keycloak's keys could not be loaded from {url}: {problem.rstrip('.')}{'' if problem.endswith('?') else '.'}"
            report(partial(_log.warning, "%s", sentence))
            return Failed(KeysUnavailable(sentence), retry_in=self._spacing)
        self._poll_not_before(min(_REALM_PAGE_TIMEOUT, until - time.monotonic()))
        self._last = keys = keys.keeping(self._last)
        return Loaded(keys, _AHEAD, stale_while_revalidate=_TTL - _AHEAD, stale_if_error=_LAST_GOOD - _AHEAD)

    def _report_skipped(self, keys: KeySet) -> None:
        """Name each published key that is left out, once for as long as it is published."""
        skipped = frozenset(keys.skipped.items())
        new = sorted(skipped - self._reported_skipped)
        self._reported_skipped = skipped
        for kid, problem in new[:_MAX_SKIPPED]:
            sentence = (
                f"The key {named(kid[:64]) if kid else 'without a kid'} at {self.url} cannot be used and is left out: {problem}. "
                "Tokens that it signed are refused."
            )
            report(partial(_log.warning, "%s", sentence))
        if (more := len(new) - _MAX_SKIPPED) > 0:
            report(partial(_log.warning, "%d more keys at %s cannot be used and are left out.", more, self.url))

    def _poll_not_before(self, seconds: float) -> None:
        """Read the realm's ``tokens-not-before``. If the page cannot be read, the last value stays, and the keys are used all the same.

        `seconds` is what is left of the time for both: requests already wait for the keys.
        """
        problem = "the keys came too late to ask for it" if seconds <= 0 else self._read_not_before(seconds)
        if problem and problem != self._page_problem:  # once: if a proxy publishes only the keys, it stays so for years
            sentence = (
                f"The realm's not-before could not be read from {self._endpoints.realm}: {problem.rstrip('.')}."
                " Until it can be read, a revocation in Keycloak has no effect here."
            )
            report(partial(_log.warning, "%s", sentence))
        self._page_problem = problem

    def _read_not_before(self, seconds: float) -> str:
        """Take the value from the realm page; return why there is no value, or an empty text."""
        try:
            reply = self._channel.get(self._endpoints.realm, timeout=seconds)
            if reply.status != _OK:
                return f"Keycloak answers {reply.status}"
            value = reply.json_object().get("tokens-not-before")
        except BackChannelError as error:
            return str(error)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            return "its tokens-not-before is missing or not a time"
        self.not_before = value
        return ""


def unavailable(error: KeysUnavailable) -> Decision:
    """Return the refusal of a request that came while there are no keys."""
    return Decision(reason=Reason.KEYS_UNAVAILABLE, cure=str(error), retry_after=error.retry_after)


class SharedSources:
    """One `KeySource` for each realm and way to it, as long as an app uses it.

    Without it, a hundred apps of one realm would load the same keys a hundred times. `clock` is monotonic. Tests use other sources with
    `sharing`.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sources: WeakValueDictionary[tuple[Hashable, ...], KeySource] = WeakValueDictionary()
        self.after_fork()

    def after_fork(self) -> None:
        """Keep the sources and replace the lock: another thread of the parent may have held it."""
        self._lock = threading.RLock()

    def source(self, settings: "KeycloakSettings") -> KeySource:
        """Return the source for these settings, without using the network."""
        watch_forks(self)
        endpoints = Endpoints.of(settings)
        # Everything that decides which keys they are, how they are reached, and what is reported of them.
        certificate = ClientCertificate.of(settings)
        key = (
            endpoints,
            settings.issuer,
            settings.ca_file,
            settings.proxy,
            certificate,
            settings.worded("KEYCLOAK_"),
        )
        with self._lock:
            source = self._sources.get(key)
            if source is None:
                channel = BackChannel.shared(settings.ca_file, _TIMEOUT, settings.proxy, certificate)
                source = KeySource(
                    endpoints, channel, issuer=settings.issuer, worded=settings.worded, clock=self._clock
                )
                self._sources[key] = source
            return source


class _InUse:
    __slots__ = ("sources",)

    def __init__(self) -> None:
        self.sources = SharedSources()


_in_use: Final = _InUse()


@contextlib.contextmanager
def sharing(sources: SharedSources) -> Iterator[SharedSources]:
    """Use `sources` in this process for a while. Verifiers that already have a source keep it."""
    before, _in_use.sources = _in_use.sources, sources
    try:
        yield sources
    finally:
        _in_use.sources = before


def _problem(reply: Reply, url: str) -> str:
    if reply.status == _OK:
        return ""
    return f"Keycloak answers {reply.status}. {answer_cure(url, reply.status, said_by(reply))}".strip()
