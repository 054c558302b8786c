"""The tokens that were exchanged for users: one store for the whole process, with one exchange for all who wait for the same token.

A `Refreshing` would keep the user's token to renew ahead, and would serve an old value while renewals fail. Here nothing is renewed:
whoever needs a token brings the user's, waits for the exchange, and gets the token or the error.
"""

import contextvars
import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias
from weakref import WeakValueDictionary, ref

from s2s_fastapi.caller.binding import Binding, BoundClients
from s2s_fastapi.caller.exchange.exchange_request import Exchanger, ExchangeRequest, concerns
from s2s_fastapi.caller.exchange.subject import Subject
from s2s_fastapi.caller.granted import GrantedToken
from s2s_fastapi.caller.shared_token import DEADLINE, RENEWAL_SPACING
from s2s_fastapi.caller.token_endpoint import Channel
from s2s_fastapi.caller.token_errors import reach_cure, saying_when
from s2s_fastapi.caller.token_request import TokenKey
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.engine.loaded import Failed, Loaded
from s2s_fastapi.engine.reports import Reports
from s2s_fastapi.engine.single_flight import SingleFlight
from s2s_fastapi.engine.steps import Steps
from s2s_fastapi.engine.workers import EXCHANGES, Workers
from s2s_fastapi.errors import S2SError, SessionEnded, TokenRequestError
from s2s_fastapi.process import watch_forks
from s2s_fastapi.telemetry.metrics import RESENDS, TOKEN_AGE
from s2s_fastapi.telemetry.spans import foreground, span
from s2s_fastapi.text import named

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["ExchangedToken", "ExchangedTokens"]

_MOST_TOKENS: Final = 10_000
_MOST_WAITING: Final = 1_000
"""Exchanges that may wait for a thread. 8 run at a time, in 20 to 100 ms each, and each caller waits 5 s at most."""
_MOST_OF_SESSION: Final = 100
"""Tokens of one session that are kept, and exchanges of one session that may wait. More would be taken from other users."""
_MOST_TARGETS: Final = 1024
_MOST_WAITERS: Final = 10_000
"""Callers that may wait for one exchange."""

_SLOW: Final = (
    "Compare the time of an exchange (the metric s2s_fastapi.token.exchange.duration) with the load of Keycloak, or spread the users over more"
    " processes."
)

_Session: TypeAlias = tuple[str, str]
"""Issuer and session of a user."""


class _Target:
    """One client, and the audience and scopes that it requests on behalf of users."""

    def __init__(self, settings: "KeycloakSettings", client: "_Client", request: ExchangeRequest) -> None:
        self.settings = settings
        self.client = client
        self.request = request
        self.failure: _Failure | None = None  # one that concerns all users


class _Client:
    """One client, whatever it requests."""

    def __init__(self, exchanger: Exchanger, workers: Workers) -> None:
        self.exchanger = exchanger
        self.workers = workers
        self.failure: _Failure | None = None  # one that concerns all users and targets


class _Failure(NamedTuple):
    error: S2SError
    until: float


class _Kept(NamedTuple):
    """An exchanged token: without the texts of headers, which would take three times the memory."""

    value: str
    life: float
    began: float
    until: float  # monotonic
    until_wall: float
    binding: Binding | None = None
    certificate: str = ""

    def lives(self, now: float, wall: float) -> bool:
        return now < self.until and wall < self.until_wall

    def token(self) -> GrantedToken:
        return GrantedToken(value=self.value, life=self.life, binding=self.binding, certificate=self.certificate)


_Key: TypeAlias = tuple[_Target, bytes]


class _Call:
    """A caller that waits: the one place that holds the user's token meanwhile."""

    __slots__ = ("__weakref__", "subject")

    def __init__(self, subject: Subject) -> None:
        self.subject = subject


class _Flight(SingleFlight[Loaded[GrantedToken] | Failed]):
    """One exchange, and the callers that wait for it. It knows the user's token through them only."""

    __slots__ = ("calls", "dropped", "key", "session")

    def __init__(self, session: _Session, key: _Key) -> None:
        super().__init__()
        self.session = session
        self.key = key
        self.calls: list[ref[_Call]] = []
        self.dropped = False  # the session ended meanwhile: the answer is not kept

    def subject(self) -> Subject | None:
        """Return what to exchange; None if nobody waits any more."""
        return next((call.subject for call in (reference() for reference in self.calls) if call is not None), None)


@dataclass(frozen=True, slots=True)
class ExchangedToken:
    """The place of one user's token for one audience in the store. It holds no token, so an auth flow may keep it beside a request."""

    _store: "ExchangedTokens" = field(repr=False)
    _target: _Target = field(repr=False)
    _session: _Session = field(repr=False)
    _digest: bytes = field(repr=False)

    def peek(self) -> GrantedToken | None:
        """Return the token if there is one that lives; start nothing."""
        kept = self._store.kept(self._target, self._session, self._digest)
        return None if kept is None else kept.token()

    def getting(self, subject: Subject) -> Steps[GrantedToken]:
        """Return the body that gives the token. If there is none, it waits for one exchange, at most 5 s, with all other callers.

        Raises:
            SessionEnded: The user's session is over, or the user's token has expired.
            TokenRequestError: Keycloak exchanged no token (`AudienceNotGranted`: none for the wanted audience), or too many exchanges wait.
            ConfigurationError: The secret cannot be read.
        """
        return self._reading(subject, None)

    def renewing(self, subject: Subject, seen: GrantedToken) -> Steps[GrantedToken]:
        """Return the body that gives another token than `seen`, which a receiver refused. Within 10 s of its exchange, it gives `seen` again.

        Raises:
            SessionEnded, TokenRequestError, ConfigurationError: as `getting`; then `seen` is not used again.
        """
        return self._reading(subject, seen)

    def refuse(self, seen: GrantedToken) -> None:
        """Remember that a receiver refused `seen`: the next call waits for another exchange. Never blocks or raises.

        - Nothing happens if `seen` is no longer the current token.
        - Within 10 s of its exchange, `seen` is used until those 10 s are over.
        """
        self._store.refuse(self._target, self._session, self._digest, seen)

    def used(self, token: GrantedToken) -> None:
        """Record the age of `token` at the moment when a request carries it."""
        age = self._store.age(self._target, self._session, self._digest, token)
        if age is not None:
            TOKEN_AGE.record(age, self._target.request.labels)

    def resent(self) -> None:
        """Count a request that is sent once more, with another token."""
        RESENDS.add(1, self._target.request.labels)

    def _reading(self, subject: Subject, seen: GrantedToken | None) -> Steps[GrantedToken]:
        return self._store.reading(self._target, self._session, subject, seen)


class ExchangedTokens:
    """The tokens that this process exchanged for users, by the digest of the user's token and all that is in a `TokenKey`.

    - A token counts until the end of its own life or of the user's token, by the wall clock and by the monotonic clock. It is never
      renewed in the background.
    - The user's token is held by the calls that wait for its exchange. The store keeps its digest.
    - "Invalid token" drops all tokens of that user's session.
    - A failure that has nothing to do with the user is remembered once for the client: 30 s for credentials, 5 s for most others.
    - At most `capacity` tokens are kept; those of the session that was unused for longest are dropped first. At most `waiting` exchanges
      wait for a thread of the server. One session has at most 100 of each.
    - `channel`, `workers`, `clock` and `wall` are as in `TokenSource`; `wall` returns seconds since the epoch.
    """

    def __init__(
        self,
        *,
        channel: "Callable[[KeycloakSettings], Channel]",
        workers: Callable[[str], Workers] = EXCHANGES.to,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        capacity: int = _MOST_TOKENS,
        waiting: int = _MOST_WAITING,
        clients: BoundClients | None = None,
    ) -> None:
        self._channel = channel
        self._workers = workers
        self._clock = clock
        self._wall = wall
        self._bound_clients = clients
        self._capacity = capacity
        self._most_waiting = waiting
        self._targets: dict[TokenKey, _Target] = {}
        self._clients: WeakValueDictionary[TokenKey, _Client] = WeakValueDictionary()
        # The least recently used first. A session that is in use is never out of it: others look without the lock.
        self._sessions: OrderedDict[_Session, dict[_Key, _Kept | _Failure]] = OrderedDict()
        self.after_fork()

    def after_fork(self) -> None:
        """Keep the bearer tokens; drop the bound ones, and the exchanges under way and the lock, which belong to threads of the parent."""
        # Held only to look and decide. Re-entrant: the garbage collector may run a finalizer that asks for a token.
        self._lock = threading.RLock()
        self._flights: dict[_Key, _Flight] = {}
        for session, tokens in list(self._sessions.items()):
            left = {key: kept for key, kept in tokens.items() if not (isinstance(kept, _Kept) and kept.binding)}
            if left:
                self._sessions[session] = left
            else:
                del self._sessions[session]
        self._size = sum(map(len, self._sessions.values()))  # a thread of the parent may have been counting

    def __len__(self) -> int:
        return self._size

    def token(self, settings: "KeycloakSettings", wanted: Wanted, subject: Subject) -> Steps[GrantedToken]:
        """Return the body that gives a token for `wanted` as the client of `settings`, on behalf of `subject`.

        Raises:
            NoUserToActFor: The user's token cannot be exchanged, whatever Keycloak is set to.
            SessionEnded, TokenRequestError, ConfigurationError: as `ExchangedToken.getting`.
        """
        place = self.of(settings, wanted, subject)
        token = place.peek()
        return token if token is not None else (yield from place.getting(subject))

    def of(self, settings: "KeycloakSettings", wanted: Wanted, subject: Subject) -> ExchangedToken:
        """Return the place of the token for `wanted` on behalf of `subject`; no network yet.

        Raises:
            NoUserToActFor, SessionEnded, TokenRequestError: The user's token cannot be exchanged by this client.
            ConfigurationError: Client id or secret is not set, no audience is given, or the scope is ``openid``.
        """
        target = self._target(settings, wanted)
        try:
            subject.check(settings, self._wall())
        except TokenRequestError as error:  # Keycloak is not asked, so nothing else would tell the operator
            target.client.exchanger.endpoint.warn(
                f"tokens of users that {named(subject.client_id)} requests are not for {named(settings.client_id)}, so Keycloak would not"
                f" exchange them. {error.cure}"
            )
            raise
        return ExchangedToken(self, target, (subject.issuer, subject.session), subject.digest)

    def kept(self, target: _Target, session: _Session, digest: bytes) -> _Kept | None:
        """Return the token that lives, if there is one."""
        with self._lock:
            found = self._found(session, (target, digest))
        return found if isinstance(found, _Kept) and found.lives(self._clock(), self._wall()) else None

    def refuse(self, target: _Target, session: _Session, digest: bytes, seen: GrantedToken) -> None:
        """Let `seen` end, if it is the current token: now, or 10 s after its exchange."""
        key = target, digest
        with self._lock:
            found = self._sessions.get(session, {}).get(key)
            if isinstance(found, _Kept) and found.value == seen.value:
                until = min(found.until, max(self._clock(), found.began + RENEWAL_SPACING))
                self._sessions[session][key] = found._replace(until=until)

    def age(self, target: _Target, session: _Session, digest: bytes, token: GrantedToken) -> float | None:
        """Return how many seconds ago the exchange of `token` began; None if it is no longer the current one."""
        found = self._sessions.get(session, {}).get((target, digest))
        return self._clock() - found.began if isinstance(found, _Kept) and found.value == token.value else None

    def reading(
        self, target: _Target, session: _Session, subject: Subject, seen: GrantedToken | None
    ) -> Steps[GrantedToken]:
        """Return the body of `ExchangedToken.getting` and `renewing`."""
        call = _Call(subject)
        with saying_when(partial(self._next_try_in, target, session, subject.digest)):
            with span("wait for token", target.request.attributes):
                joined = self._join(target, session, call, None if seen is None else seen.value)
                if isinstance(joined, _Kept):
                    return joined.token()
                flight, waiter = joined
                result: Loaded[GrantedToken] | Failed | None = yield (
                    partial(flight.wait, waiter, DEADLINE),
                    partial(flight.wait_async, waiter, DEADLINE),
                )
            if isinstance(result, Loaded):
                return result.value
            raise self._unanswered(target, flight) if result is None else result.error.again()

    def _target(self, settings: "KeycloakSettings", wanted: Wanted) -> _Target:
        key = TokenKey.of(settings, wanted)
        watch_forks(self)
        with self._lock:
            target = self._targets.pop(key, None)
            if target is None:
                client = self._client(settings)
                target = _Target(settings, client, ExchangeRequest(key, client.exchanger))
                while len(self._targets) >= _MOST_TARGETS:
                    del self._targets[next(iter(self._targets))]
            self._targets[key] = target  # at the end: the order is the order of last use
            return target

    def _client(self, settings: "KeycloakSettings") -> _Client:
        key = TokenKey.of(settings, Wanted())
        client = self._clients.get(key)
        if client is None:
            exchanger = Exchanger(
                key, settings, self._channel(settings), self._clock, self._wall, clients=self._bound_clients
            )
            client = self._clients[key] = _Client(exchanger, self._workers(key.token_url))
        return client

    def _found(self, session: _Session, key: _Key) -> _Kept | _Failure | None:
        """Return what is kept, and make its session the last one to be dropped. The lock is held."""
        kept = self._sessions.get(session)
        if kept is None:
            return None
        self._sessions.move_to_end(session)
        return kept.get(key)

    def _join(
        self, target: _Target, session: _Session, call: _Call, seen: str | None
    ) -> "_Kept | tuple[_Flight, threading.Lock]":
        """Return the token, or a place to wait for the exchange that brings it."""
        key = target, call.subject.digest
        client = target.client
        if client.failure is not None and client.exchanger.endpoint.another_secret():
            client.failure = None
        context, waiter, too_many = None, None, ""
        with self._lock:
            now = self._clock()
            found = self._found(session, key)
            if (
                isinstance(found, _Kept)
                and found.lives(now, self._wall())
                and (found.value != seen or now < found.began + RENEWAL_SPACING)
            ):
                return found
            flight = self._flights.get(key)
            if flight is None:
                failure = found if isinstance(found, _Failure) else None
                for remembered in (failure, target.failure, client.failure):
                    if remembered is not None and now < remembered.until:
                        raise remembered.error.again()
                of_session = sum(each.session == session for each in self._flights.values())
                if of_session >= _MOST_OF_SESSION:
                    too_many = f"{_MOST_OF_SESSION} exchanges of this user's session are under way already"
                elif client.workers.waiting >= self._most_waiting:
                    too_many = f"{self._most_waiting} exchanges for users are waiting already"
                else:
                    context = foreground("needed" if seen is None else "forced")
                    flight = self._flights[key] = _Flight(session, key)
            if flight is not None:
                flight.calls.append(ref(call))
                waiter = flight.join(_MOST_WAITERS)
        if flight is None:
            error = self._unavailable(target, too_many, cure=_SLOW)
            client.exchanger.endpoint.warn(str(error))
            raise error
        if waiter is None:
            raise self._unavailable(target, f"{_MOST_WAITERS} callers are waiting already")
        if context is not None:
            self._begin(target, flight, context)
        return flight, waiter

    def _begin(self, target: _Target, flight: _Flight, context: contextvars.Context) -> None:
        reports, begun = Reports(), False
        try:
            run = partial(self._run, target, flight, context, reports)
            begun = target.client.workers.submit(run, afterwards=reports.deliver)
        finally:
            if not begun:  # or Ctrl-C: nobody else would ever begin it
                self._finish(target, flight, Failed(self._unavailable(target, "no thread could be started"), 0.0))

    def _run(self, target: _Target, flight: _Flight, context: contextvars.Context, reports: Reports) -> None:
        """Exchange, keep the token, and wake those who wait."""
        flight.thread = threading.get_ident()
        began, wall = self._clock(), self._wall()
        result: object = None
        ended = ""
        try:
            result = context.run(reports.collect, partial(self._exchange, target, flight))
        except BaseException as error:  # noqa: BLE001 - SystemExit and MemoryError too: callers are waiting
            ended = type(error).__name__
        # Outside the except block: otherwise the error is chained to an exception whose frames hold the user's token.
        if not isinstance(result, Loaded | Failed):
            result = Failed(self._unavailable(target, f"the exchange ended with {ended}"), 0.0)
        self._finish(target, flight, result, began, wall)

    def _exchange(self, target: _Target, flight: _Flight) -> Loaded[GrantedToken] | Failed:
        now = self._clock()
        for remembered in (target.failure, target.client.failure):
            if remembered is not None and now < remembered.until:  # others have just asked
                return Failed(remembered.error, 0.0)
        with self._lock:  # nobody can join between the look and the end
            subject = flight.subject()
            if subject is None:
                self._leave(flight)
        if subject is None:
            return Failed(self._unavailable(target, "nobody waits for it any more"), 0.0)
        return target.request(subject)

    def _finish(
        self,
        target: _Target,
        flight: _Flight,
        result: Loaded[GrantedToken] | Failed,
        began: float = 0.0,
        wall: float = 0.0,
    ) -> None:
        try:
            with self._lock:
                if isinstance(result, Loaded):
                    if not flight.dropped:
                        token, usable = result.value, result.usable_for
                        self._keep(
                            flight,
                            _Kept(
                                token.value,
                                token.life,
                                began,
                                began + usable,
                                wall + usable,
                                token.binding,
                                token.certificate,
                            ),
                        )
                else:
                    self._remember(target, flight, result)
        finally:  # whatever happened: callers are waiting
            self._leave(flight)
            flight.finish(result)

    def _leave(self, flight: _Flight) -> None:
        """Let nobody join `flight` any more. Another one may have taken its place."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    def _remember(self, target: _Target, flight: _Flight, failed: Failed) -> None:
        """Remember a failure for those whom it concerns. The lock is held."""
        if isinstance(failed.error, SessionEnded) or _invalid(failed.error):
            self._drop(flight.session)
        if not failed.retry_in or failed.doubtful:
            return
        failure = _Failure(failed.error, self._clock() + failed.retry_in)
        whom = concerns(failed)
        if whom == "client":
            target.client.failure = failure
        elif whom == "wanted":
            target.failure = failure
        else:
            self._keep(flight, failure)

    def _drop(self, session: _Session) -> None:
        self._size -= len(self._sessions.pop(session, ()))
        for flight in list(self._flights.values()):
            flight.dropped = flight.dropped or flight.session == session

    def _keep(self, flight: _Flight, value: _Kept | _Failure) -> None:
        now, wall = self._clock(), self._wall()
        before = self._sessions.get(flight.session, {})
        after = {key: kept for key, kept in before.items() if key != flight.key and _counts(kept, now, wall)}
        while len(after) >= _MOST_OF_SESSION:
            del after[next(iter(after))]
        after[flight.key] = value
        self._sessions[flight.session] = after
        self._sessions.move_to_end(flight.session)
        self._size += len(after) - len(before)
        for oldest, kept in list(itertools.islice(self._sessions.items(), 10)):
            if self._size <= self._capacity and any(_counts(each, now, wall) for each in kept.values()):
                break
            self._size -= len(self._sessions.pop(oldest))

    def _next_try_in(self, target: _Target, session: _Session, digest: bytes) -> float | None:
        now = self._clock()
        found = self._sessions.get(session, {}).get((target, digest))
        failures = (found if isinstance(found, _Failure) else None, target.failure, target.client.failure)
        left = [failure.until - now for failure in failures if failure is not None and now < failure.until]
        return max(left) if left else None

    def _unanswered(self, target: _Target, flight: _Flight) -> S2SError:
        if flight.thread is None:
            return self._unavailable(
                target,
                f"it did not begin within {DEADLINE:g} s, because all threads are busy with other users' exchanges",
            )
        return self._unavailable(target, f"no answer within {DEADLINE:g} s", cure=reach_cure(target.settings))

    @staticmethod
    def _unavailable(target: _Target, why: str, *, cure: str = "") -> TokenRequestError:
        return TokenRequestError(
            f"the exchange of a user's token for {named(target.settings.client_id)}: {why}.", cure=cure
        )


def _invalid(error: S2SError) -> bool:
    """Return whether Keycloak said "Invalid token", whatever became of it."""
    return isinstance(error, TokenRequestError) and error.error_description == "Invalid token"


def _counts(kept: _Kept | _Failure, now: float, wall: float) -> bool:
    return kept.lives(now, wall) if isinstance(kept, _Kept) else now < kept.until
