"""Keycloak's keys, held ready: which key verifies a token, and when to ask Keycloak again."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from s2s_fastapi.backchannel import BackChannel, BackChannelError, Reply
from s2s_fastapi.decision import Reason
from s2s_fastapi.errors import ConfigurationError, KeysUnavailable
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.lanes import KEYS, watch_forks
from s2s_fastapi.receiver.jwks import KeySet, VerificationKey
from s2s_fastapi.receiver.refusal import Refused
from s2s_fastapi.refreshing import Failed, Loaded, Refreshing, State
from s2s_fastapi.telemetry import trace_alone

__all__ = ["KeySource"]

_log = logging.getLogger("s2s_fastapi.keys")

# Keycloak says no-cache for its keys; asking for each token would make it the bottleneck of every service.
_TTL: Final = 600.0
_AHEAD: Final = 0.8 * _TTL
_LAST_GOOD: Final = 3600.0
_SPACING: Final = 5.0
_TIMEOUT: Final = 3.0
_REALM_PAGE_TIMEOUT: Final = 1.0
_MAX_ASKING: Final = 100
_MAX_ABSENT: Final = 1000


class KeySource:
    """Find the key a token names, in the realm's JWKS as it was fetched last or, for an unknown ``kid``, is fetched now.

    Keys are renewed behind after 8 minutes, asked for in front after 10, and through an outage the last good ones serve for an
    hour. At most one fetch starts in 5 s, whatever tokens come in: an unknown ``kid`` waits for the next one.
    """

    def __init__(
        self, endpoints: Endpoints, channel: BackChannel, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._endpoints = endpoints
        self._channel = channel
        self._clock = clock
        self.not_before = 0
        """The realm's ``tokens-not-before``, seconds since the epoch: tokens issued earlier were revoked."""
        self.after_fork()
        self._absent: dict[str, float] = {}
        self._keys: Refreshing[KeySet] = Refreshing(
            self._load,
            name="keys",
            lane=KEYS,
            timeout=_TIMEOUT,
            clock=clock,
            spacing=_SPACING,
            unavailable=KeysUnavailable,
            in_front=trace_alone,
        )

    def after_fork(self) -> None:
        """Keep the keys; forget who was waiting in the parent, and a lock that one of its threads may have held."""
        self._lock = threading.Lock()
        self._asking = 0

    def start(self) -> None:
        """Begin to load the keys behind; never waits and never fails."""
        self._keys.start()

    def state(self) -> State:
        """Return how the keys are: their age, the last error, the next try."""
        return self._keys.state()

    def peek(self) -> KeySet | None:
        """Return the keys if they are fresh."""
        return self._keys.peek()

    def get(self) -> KeySet:
        """Return the keys, waiting for them if there are none.

        Raises:
            KeysUnavailable: There are none, or too old ones.
        """
        return self._keys.peek() or self._keys.get()

    async def aget(self) -> KeySet:
        """Return the keys like `get`, without blocking the event loop."""
        return self._keys.peek() or await self._keys.aget()

    def key(self, kid: str, algorithm: str) -> VerificationKey:
        """Return the key a token names by its ``kid`` and ``alg``.

        Raises:
            Refused: Keycloak does not publish such a key.
            KeysUnavailable: There are no keys, or Keycloak could not be asked whether this one is new.
        """
        keys = self.get()
        found = keys.find(kid, algorithm)
        if found is None:
            with self._question(kid):
                keys = self._keys.renew(keys, timeout=_SPACING + _TIMEOUT, wait_for_spacing=True)
            found = self._answer(keys, kid, algorithm)
        return found

    async def akey(self, kid: str, algorithm: str) -> VerificationKey:
        """Return the key like `key`, without blocking the event loop."""
        keys = await self.aget()
        found = keys.find(kid, algorithm)
        if found is None:
            with self._question(kid):
                keys = await self._keys.arenew(keys, timeout=_SPACING + _TIMEOUT, wait_for_spacing=True)
            found = self._answer(keys, kid, algorithm)
        return found

    @contextlib.contextmanager
    def _question(self, kid: str) -> Iterator[None]:
        """Take one of the places of those who wait for a fetch, unless the last fetch has just answered the question."""
        watch_forks(self)
        with self._lock:
            asked = self._absent.get(kid)
            just_answered = asked is not None and self._clock() - asked < _SPACING
            if just_answered or self._asking >= _MAX_ASKING:
                raise Refused(Reason.UNKNOWN_KEY)
            self._asking += 1
        try:
            yield
        finally:
            with self._lock:
                self._asking -= 1

    def _answer(self, keys: KeySet, kid: str, algorithm: str) -> VerificationKey:
        found = keys.find(kid, algorithm)
        if found is None:
            with self._lock:
                if (
                    len(self._absent) >= _MAX_ABSENT
                ):  # a flood of invented names: remembering them all is not worth the memory
                    self._absent.clear()
                self._absent[kid] = self._clock()
            raise Refused(Reason.UNKNOWN_KEY)
        return found

    def _load(self) -> Loaded[KeySet] | Failed:
        url = self._endpoints.jwks
        try:
            reply = self._channel.get(url)
            problem = _problem(reply)
            keys = KeySet.read({} if problem else reply.json_object())
            if not keys.keys and not problem:
                problem = "it holds no key that can verify an access token"
        except (BackChannelError, ConfigurationError) as error:  # the latter: KEYCLOAK_CA_FILE cannot be read
            keys, problem = KeySet({}), str(error)
        if problem:
            sentence = f"Keycloak's keys could not be loaded from {url}: {problem.rstrip('.')}."
            _log.warning("%s", sentence)
            return Failed(KeysUnavailable(sentence, retry_after=int(_SPACING)), retry_in=_SPACING)
        self._poll_not_before()
        return Loaded(keys, fresh_for=_AHEAD, usable_for=_TTL, kept_for=_LAST_GOOD)

    def _poll_not_before(self) -> None:
        """Read the realm's ``tokens-not-before``; where the page cannot be read the last value stays, and the keys are as good."""
        with contextlib.suppress(BackChannelError):
            reply = self._channel.get(self._endpoints.realm, timeout=_REALM_PAGE_TIMEOUT)
            value = reply.json_object().get("tokens-not-before") if reply.status == 200 else None  # noqa: PLR2004
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                self.not_before = value


def _problem(reply: Reply) -> str:
    if reply.status == 200:  # noqa: PLR2004 - HTTP's own number; the only status that brings keys
        return ""
    if reply.status == 404:  # noqa: PLR2004
        return "Keycloak answers 404: check KEYCLOAK_REALM, and KEYCLOAK_AUTH_PATH if the server runs under /auth"
    if 300 <= reply.status < 400:  # noqa: PLR2004
        return f"a redirect ({reply.status}) is not followed: set KEYCLOAK_URL to the address that answers"
    return f"Keycloak answers {reply.status}"
