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
from s2s_fastapi.decision import Reason
from s2s_fastapi.engine.refreshing import Failed, Loaded, Refreshing, State
from s2s_fastapi.engine.reports import report
from s2s_fastapi.engine.workers import KEYS
from s2s_fastapi.errors import ConfigurationError, KeysUnavailable
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.keycloak.server_cures import answer_cure, unreachable_cure
from s2s_fastapi.process import watch_forks
from s2s_fastapi.telemetry.attributes import CAUSE, ISSUER, OUTCOME
from s2s_fastapi.telemetry.metrics import KEYS_FETCH, watch_age
from s2s_fastapi.telemetry.spans import background, cause, failed, foreground, span
from s2s_fastapi.text import named
from s2s_fastapi.verifier.jwks import KeySet, VerificationKey
from s2s_fastapi.verifier.refusal import Refused

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["KeySource", "SharedSources", "sharing"]

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


class KeySource:
    """Find the key a token names, in the realm's JWKS as it was fetched last or, for an unknown ``kid``, is fetched now.

    Keys are renewed in the background after 8 minutes, in the foreground after 10, and through an outage the last good ones serve for an
    hour. At most one fetch starts in 5 s, whatever tokens come in: an unknown ``kid`` waits for the next one.

    A hundred may wait, and a hundred more whose ``kid`` was turned away before: invented names mostly come once, a new key comes
    again. A flood that repeats its names takes those places too; then a new key is let in with the next fetch, which brings it.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        channel: BackChannel,
        *,
        issuer: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = endpoints.jwks
        """Where the keys are published."""
        self._endpoints = endpoints
        self._issuer = issuer or endpoints.realm  # what telemetry calls the realm
        self._channel = channel
        self._clock = clock
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
            workers=KEYS.to(endpoints.jwks),
            timeout=_TIMEOUT,
            clock=clock,
            spacing=_SPACING,
            apart=_SPACING,
            max_waiters=_MAX_WAITERS,
            foreground=foreground,
            background=background,
            unavailable=KeysUnavailable,
        )
        watch_age(self)
        self.peek = self._keys.peek
        """Return the keys if they are fresh. Asked at each request, so there is no call of our own in between."""

    @classmethod
    def of(
        cls, settings: "KeycloakSettings", transport: Callable[[], httpx.BaseTransport] | None = None
    ) -> "KeySource":
        """Return the source of the realm's keys that the settings name.

        All of this process share one source for each realm and way to it. ``transport`` makes the httpx transport for Keycloak; whoever
        gives one gets a source of its own.
        """
        if transport is None:
            return _in_use.sources.source(settings)
        channel = BackChannel(ca_file=settings.ca_file, transport=transport, timeout=_TIMEOUT)
        return cls(Endpoints.of(settings), channel, issuer=settings.issuer)

    def after_fork(self) -> None:
        """Keep the keys; forget who was waiting in the parent, and a lock that one of its threads may have held."""
        # Re-entrant: the garbage collector may run a finalizer in here, and that one may ask about a token.
        self._lock = threading.RLock()
        self._asking = 0

    def start(self) -> None:
        """Begin to load the keys in the background; never waits and never fails."""
        self._keys.start()

    def state(self) -> State:
        """Return how the keys are: their age, the last error, the next try."""
        return self._keys.state()

    @property
    def count(self) -> int:
        """How many keys were fetched last, however long ago."""
        return len(self._last.keys)

    def published(self, kid: str) -> str:
        """Return why a key that was published under this ``kid`` is of no use; return nothing if none was published."""
        return self._last.why_not(kid)

    def get(self) -> KeySet:
        """Return the keys, waiting for them if there are none.

        Raises:
            KeysUnavailable: There are none, or too old ones; ``retry_after`` tells when Keycloak is asked again.
        """
        keys = self._keys.peek()
        if keys is None:
            with self._telling_when():
                keys = self._keys.get()
        return keys

    async def aget(self) -> KeySet:
        """Return the keys like `get`, without blocking the event loop."""
        keys = self._keys.peek()
        if keys is None:
            with self._telling_when():
                keys = await self._keys.aget()
        return keys

    def key(self, kid: str, algorithm: str) -> VerificationKey:
        """Return the key a token names by its ``kid`` and ``alg``.

        Raises:
            Refused: Keycloak does not publish such a key.
            KeysUnavailable: There are no keys, or Keycloak could not be asked whether this one is new.
        """
        keys = self.get()
        found = keys.find(kid, algorithm)
        if found is None:
            with self._question(kid) as asked, self._telling_when():
                keys = self._keys.renew(keys, timeout=_SPACING + _TIMEOUT, wait_for_spacing=True)
                if keys.find(kid, algorithm) is None and self._fetched_before(asked):
                    keys = self._keys.renew(keys, timeout=_SPACING + _TIMEOUT, wait_for_spacing=True)
            found = self._answer(keys, kid, algorithm)
        return found

    async def akey(self, kid: str, algorithm: str) -> VerificationKey:
        """Return the key like `key`, without blocking the event loop."""
        keys = await self.aget()
        found = keys.find(kid, algorithm)
        if found is None:
            with self._question(kid) as asked, self._telling_when():
                keys = await self._keys.arenew(keys, timeout=_SPACING + _TIMEOUT, wait_for_spacing=True)
                if keys.find(kid, algorithm) is None and self._fetched_before(asked):
                    keys = await self._keys.arenew(keys, timeout=_SPACING + _TIMEOUT, wait_for_spacing=True)
            found = self._answer(keys, kid, algorithm)
        return found

    @contextlib.contextmanager
    def _question(self, kid: str) -> Iterator[float]:
        """Take one of the places of those who wait for a fetch, unless the last fetch has just answered the question.

        Gives the time at which it was asked.
        """
        watch_forks(self)
        with self._lock:
            asked = self._absent.get(kid)
            just_answered = asked is not None and self._clock() - asked < _SPACING
            if just_answered or not self._has_place(hash(kid)):
                raise Refused(Reason.UNKNOWN_KEY)
            self._asking += 1
        try:
            yield self._clock()
        finally:
            with self._lock:
                self._asking -= 1

    def _fetched_before(self, asked: float) -> bool:
        """Tell whether the keys were on their way already when this was asked: then a newer key cannot be among them."""
        age = self._keys.state().age
        return age is not None and self._clock() - age < asked

    def _has_place(self, name: int) -> bool:
        """Tell whether one more may wait for a fetch; who may not is known when it comes again. The lock is held."""
        if self._asking < _MAX_ASKING:
            return True
        if name in self._turned_away:
            return self._asking < _MAX_ASKING + _MAX_RETURNING
        if len(self._turned_away) >= _MAX_TURNED_AWAY:
            self._turned_away.clear()
        self._turned_away.add(name)
        return False

    @contextlib.contextmanager
    def _telling_when(self) -> Iterator[None]:
        """Let ``Retry-After`` be the second from which on Keycloak is asked again: a caller that keeps to it is not sent away twice."""
        try:
            yield
        except KeysUnavailable as error:  # this waiter's own
            left = self._keys.state().next_try_in
            # Without a failure yet the load is still on its way, and will be remembered for up to a tenth more than the spacing.
            error.retry_after = math.ceil(1.1 * _SPACING) if left is None else max(1, math.ceil(left))
            error.headers = {"Retry-After": str(error.retry_after)}
            raise

    def _answer(self, keys: KeySet, kid: str, algorithm: str) -> VerificationKey:
        found = keys.find(kid, algorithm)
        if found is None:
            with self._lock:
                if len(self._absent) >= _MAX_ABSENT:
                    self._absent.clear()  # a flood of invented names: remembering them all is not worth the memory
                self._absent[kid] = self._clock()
            raise Refused(Reason.UNKNOWN_KEY)
        return found

    def aged(self) -> tuple[str, float] | None:
        """Return the issuer and how many seconds ago its keys were asked for; None while there are none."""
        age = self._keys.state().age
        return None if age is None else (self._issuer, age)

    def _load(self) -> Loaded[KeySet] | Failed:
        began = time.monotonic()
        told: dict[str, str] = {ISSUER: self._issuer, CAUSE: cause()}
        with span("fetch keys", told) as current:
            outcome = self._fetch()
            told[OUTCOME] = "loaded" if isinstance(outcome, Loaded) else "failed"
            current.set_attribute(OUTCOME, told[OUTCOME])
            if isinstance(outcome, Failed):
                failed(current, outcome.error.code, str(outcome.error))
        report(partial(KEYS_FETCH.record, time.monotonic() - began, told))
        return outcome

    def _fetch(self) -> Loaded[KeySet] | Failed:
        until = time.monotonic() + _TIMEOUT  # the exchanges' own clock, as in the channel
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
            sentence = f"Keycloak's keys could not be loaded from {url}: {problem.rstrip('.')}{'' if problem.endswith('?') else '.'}"
            report(partial(_log.warning, "%s", sentence))
            return Failed(KeysUnavailable(sentence), retry_in=_SPACING)
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
        """Read the realm's ``tokens-not-before``; where the page cannot be read the last value stays, and the keys are as good.

        They are here, and somebody waits for them: `seconds` is what is left of the time for both.
        """
        problem = "the keys came too late to ask for it" if seconds <= 0 else self._read_not_before(seconds)
        if (
            problem and problem != self._page_problem
        ):  # once: it may be so for years, where a proxy shows the keys alone
            sentence = (
                f"The realm's not-before could not be read from {self._endpoints.realm}: {problem.rstrip('.')}."
                " Revocation in Keycloak is not felt here as long as that is so."
            )
            report(partial(_log.warning, "%s", sentence))
        self._page_problem = problem

    def _read_not_before(self, seconds: float) -> str:
        """Take over what the realm page says; return why it says nothing, or nothing."""
        try:
            reply = self._channel.get(self._endpoints.realm, timeout=seconds)
            if reply.status != _OK:
                return f"Keycloak answers {reply.status}"
            value = reply.json_object().get("tokens-not-before")
        except BackChannelError as error:
            return str(error)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            return "its tokens-not-before is missing or no moment"
        self.not_before = value
        return ""


class SharedSources:
    """One `KeySource` for each realm and way to it, for as long as somebody holds it.

    Without it a hundred apps of one realm would queue for a hundred loads of the same keys. `clock` is monotonic. Tests put sources of
    their own in place with `sharing`.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sources: WeakValueDictionary[tuple[Hashable, ...], KeySource] = WeakValueDictionary()
        self.after_fork()

    def after_fork(self) -> None:
        """Keep the sources, replace the lock: another thread of the parent may have held it."""
        self._lock = threading.RLock()

    def source(self, settings: "KeycloakSettings") -> KeySource:
        """Return the source for these settings; no network yet."""
        watch_forks(self)
        endpoints = Endpoints.of(settings)
        # All that makes the keys, the way to them or what is told of them another one.
        key = (endpoints, settings.issuer, settings.ca_file, settings.proxy)
        with self._lock:
            source = self._sources.get(key)
            if source is None:
                channel = BackChannel.shared(settings.ca_file, _TIMEOUT, settings.proxy)
                source = KeySource(endpoints, channel, issuer=settings.issuer, clock=self._clock)
                self._sources[key] = source
            return source


class _InUse:
    __slots__ = ("sources",)

    def __init__(self) -> None:
        self.sources = SharedSources()


_in_use: Final = _InUse()


@contextlib.contextmanager
def sharing(sources: SharedSources) -> Iterator[SharedSources]:
    """Let whoever asks for keys in this process from now on share `sources` for a while. Who has a source already keeps it."""
    before, _in_use.sources = _in_use.sources, sources
    try:
        yield sources
    finally:
        _in_use.sources = before


def _problem(reply: Reply, url: str) -> str:
    if reply.status == _OK:
        return ""
    return f"Keycloak answers {reply.status}. {answer_cure(url, reply.status, _said(reply))}".strip()


def _said(reply: Reply) -> str:
    """Return the server's own error in lower case, to be compared and never repeated."""
    try:
        body = reply.json_object()
    except BackChannelError:
        return ""
    return " ".join(str(body.get(name, "")) for name in ("error", "error_description")).strip().lower()
