"""The requests that the issuer received, and its answers: tests read them."""

import threading
from collections import deque
from dataclasses import dataclass

from s2s_fastapi.testing.faults import Endpoint, Fault
from s2s_fastapi.testing.wire import Malformed, Request, Response, basic

__all__ = ["Exchange", "Record"]

_KEPT = 1000
_KEPT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what came of it. Its ``repr`` shows no secret and no token."""

    realm: str
    """Empty if the path names none."""
    endpoint: Endpoint | None
    """None if the issuer has no such path."""
    request: Request
    response: Response
    fault: Fault
    at: float
    """Seconds since the epoch."""

    @property
    def status(self) -> int:
        """The status that was sent; 0 if the connection was closed instead."""
        return 0 if self.response.delivery.disconnect == "before" else self.response.status

    @property
    def form(self) -> dict[str, str]:
        """The fields of the request as they came, secrets included; empty if they cannot be read."""
        try:
            return dict(self.request.form.fields)
        except Malformed:
            return {}

    @property
    def client_id(self) -> str:
        """The client that the request names; empty if it names none."""
        if "client_id" in self.form:
            return self.form["client_id"]
        try:
            found = basic(self.request.header("authorization"), strict=True)
        except Malformed:
            found = None
        return found.client_id if found is not None else ""


class Record:
    """The last 1000 exchanges, and at most 16 MiB of them, oldest first. Safe to use from threads."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._lock = threading.Lock()
        self._kept = kept
        self._bytes = 0
        self._exchanges: deque[Exchange] = deque()

    def add(self, exchange: Exchange) -> None:
        """Keep one more exchange, and drop the oldest if there are too many."""
        with self._lock:
            self._exchanges.append(exchange)
            self._bytes += _size(exchange)
            while len(self._exchanges) > self._kept or (self._bytes > _KEPT_BYTES and len(self._exchanges) > 1):
                self._bytes -= _size(self._exchanges.popleft())

    def __call__(self, endpoint: Endpoint | None = None, *, realm: str | None = None) -> tuple[Exchange, ...]:
        """Return the exchanges so far: all of them, or those of one endpoint or one realm."""
        with self._lock:
            found = tuple(self._exchanges)
        return tuple(one for one in found if endpoint in (None, one.endpoint) and realm in (None, one.realm))

    def clear(self) -> None:
        """Forget them all."""
        with self._lock:
            self._exchanges.clear()
            self._bytes = 0


def _size(exchange: Exchange) -> int:
    return len(exchange.request.body) + len(exchange.response.body)
