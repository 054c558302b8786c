"""What the tokens of one client are bound to: its key in this process (RFC 9449 section 5), and how a proof with it is made."""

import threading
import time
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NoReturn, Self, TypeAlias
from weakref import WeakValueDictionary

from s2s_fastapi.caller.challenges import UNAUTHORIZED, challenge_error
from s2s_fastapi.caller.origins import Pin
from s2s_fastapi.caller.servers import Servers
from s2s_fastapi.process import undisturbed, watch_forks
from s2s_fastapi.proof.key import ProofKey

__all__ = ["NONCE", "PROOF", "Answer", "Binding", "BoundClient", "BoundClients", "Proven", "Remedy"]

PROOF: Final = "DPoP"
"""The header of a proof, and the scheme of ``Authorization`` beside it."""
NONCE: Final = "DPoP-Nonce"
_EXPLAINS: Final = 5.0
"""Seconds by which the time of a refused proof must have been wrong before another one is made."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer says of the token and the proof of its request."""

    status: int
    challenges: Sequence[str] = ()
    """The values of all fields ``WWW-Authenticate``."""
    nonce: str | None = field(default=None, repr=False)
    date: str | None = None


Remedy: TypeAlias = Literal["", "token", "nonce", "time", "proof"]
"""What a refused request needs to be accepted: another token, a proof with another nonce or time, or just a new proof; "" if nothing is known."""


@dataclass(frozen=True, slots=True, eq=False)
class Proven:
    """One request and its proof, which is in no ``repr``."""

    header: str = field(repr=False)
    method: str
    url: str = field(repr=False)
    origin: Pin
    nonce: str = field(repr=False)
    time: float
    """What the proof says when it was made, in seconds since the epoch."""
    at: float
    """When it was made, by the monotonic clock."""


@dataclass(frozen=True, slots=True, eq=False)
class Binding:
    """One key, and what is known of the servers that get its proofs. Neither ``repr`` nor a pickle shows the key."""

    key: ProofKey = field(repr=False)
    servers: Servers = field(repr=False)

    def prove(self, method: str, url: str, origin: Pin, token: str = "") -> Proven:
        """Return a fresh proof for one request to `url`, which is at `origin`; with `token`, for a request that carries it."""
        servers = self.servers
        now, at, nonce = servers.time(origin), servers.clock(), servers.nonce(origin)
        proof = self.key.proof(method, url, now=now, token=token, nonce=nonce)
        return Proven(proof, method, url, origin, nonce, now, at)

    def explained(self, error: str, proven: Proven) -> Remedy:
        """Return why a server refused a proof, if what it has said meanwhile explains that."""
        servers, origin = self.servers, proven.origin
        if error == "use_dpop_nonce" and servers.nonce(origin) not in ("", proven.nonce):
            return "nonce"
        if error == "invalid_dpop_proof":
            should_have_been = servers.time(origin) - (servers.clock() - proven.at)
            return "time" if abs(should_have_been - proven.time) > _EXPLAINS else ""
        return ""

    def remedy(self, proven: Proven, answer: Answer, tried: Collection[str] = ()) -> Remedy:
        """Take note of what a receiver said to a proof; return what the request needs if it was refused (RFC 9449 sections 7.1 and 9).

        `tried` are the remedies that this request had already.
        """
        self.servers.gave_nonce(proven.origin, answer.nonce)
        if answer.status != UNAUTHORIZED:
            return ""
        error = challenge_error(answer.challenges, PROOF)
        if error == "invalid_dpop_proof":
            self.servers.showed_time(proven.origin, answer.date, proven.at)
            return self.explained(error, proven) or self._new_proof(proven.origin, tried)
        return "token" if error == "invalid_token" else self.explained(error, proven)

    def _new_proof(self, origin: Pin, tried: Collection[str]) -> Remedy:
        """Return whether a new proof may help: a retry below the auth object, which it cannot see, has used the refused one up."""
        if "proof" in tried:
            self.servers.refused_new_proof(origin)
            return ""
        return "proof" if self.servers.worth_new_proof(origin) else ""

    def __reduce__(self) -> NoReturn:
        raise TypeError("A key of proofs is not pickled: each process has its own.")

    def __copy__(self) -> Self:
        return self  # immutable

    def __deepcopy__(self, memo: object) -> Self:
        return self


class BoundClient:
    """One client of one realm: its key is made when it is first needed, and again in each forked child."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self._binding: Binding | None = None
        self._lock = threading.RLock()
        watch_forks(self)

    def after_fork(self) -> None:
        """Forget the key of the parent: two processes with one key could not be told apart."""
        self._lock = threading.RLock()
        self._binding = None

    def binding(self) -> Binding:
        """Return the key for the next token."""
        with self._lock:
            if self._binding is None or not self._binding.key.usable:
                self._binding = Binding(undisturbed(ProofKey), self.servers)
            return self._binding


class BoundClients:
    """The keys of this process: one for each client, realm and way to authenticate, whatever audience or scope is asked for."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._servers = Servers(clock=clock, wall=wall)
        self._clients: WeakValueDictionary[Hashable, BoundClient] = WeakValueDictionary()
        self.after_fork()

    def after_fork(self) -> None:
        """Replace the lock: another thread of the parent may have held it."""
        self._lock = threading.RLock()

    def of(self, credential: Hashable) -> BoundClient:
        """Return the client of `credential`: all that says who asks whom, and nothing of what is asked for."""
        watch_forks(self)
        watch_forks(self._servers)
        with self._lock:
            client = self._clients.get(credential)
            if client is None:
                client = self._clients[credential] = BoundClient(self._servers)
            return client
