"""What can go wrong between a service and its Keycloak, as values that can be joined and queued.

issuer.faults.add("token", slow(0.5) & answering(503), times=3)
issuer.faults.add("certs", disconnecting(), times=None)     # until `clear`
"""

import threading
from collections import deque
from dataclasses import dataclass, field, fields, replace
from typing import Final, Literal

from s2s_fastapi.testing.wire import Delivery, Response

__all__ = [
    "ENDPOINTS",
    "NONE",
    "Endpoint",
    "Fault",
    "Faults",
    "answering",
    "disconnecting",
    "dripping",
    "html",
    "huge",
    "slow",
    "typed",
]

Endpoint = Literal["token", "certs", "discovery", "realm"]
ENDPOINTS: Final[tuple[Endpoint, ...]] = ("token", "certs", "discovery", "realm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What differs from the true answer; what is None stays true. ``one & other`` is both, `other` wins."""

    status: int | None = None
    body: bytes | None = field(default=None, repr=False)  # it may hold a token
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] | None = None
    """Added to the answer, such as ``Retry-After``."""
    delay: float | None = None
    drip: float | None = None
    disconnect: Literal["before", "within"] | None = None

    def __and__(self, other: "Fault") -> "Fault":
        given = {one.name: getattr(other, one.name) for one in fields(other)}
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def on(self, response: Response) -> Response:
        """Return what is sent instead of the true answer."""
        headers = response.headers
        if self.content_type is not None:
            headers = tuple(pair for pair in headers if pair[0].lower() != "content-type")
            headers += (("Content-Type", self.content_type),)
        return Response(
            status=response.status if self.status is None else self.status,
            headers=headers + (self.headers or ()),
            body=response.body if self.body is None else self.body,
            delivery=Delivery(delay=self.delay or 0.0, drip=self.drip or 0.0, disconnect=self.disconnect or ""),
        )


NONE: Final = Fault()
"""The true answer: ``add("token", NONE, times=2)`` lets two requests through before the next fault."""


def answering(status: int, body: bytes | str = b"", *, headers: dict[str, str] | None = None) -> Fault:
    """Answer with a status, a body and further headers of the test's own."""
    content = body.encode() if isinstance(body, str) else body
    return Fault(status=status, body=content, headers=tuple(headers.items()) if headers else None)


def html(status: int = 502) -> Fault:
    """Answer with a page, as a proxy or a gateway in between does."""
    return Fault(
        status=status, body=b"<html><body><h1>Bad Gateway</h1></body></html>", content_type="text/html; charset=utf-8"
    )


def huge(size: int = 1_000_000) -> Fault:
    """Answer 200 with a JSON object of about `size` bytes."""
    return Fault(status=200, body=b'{"padding":"' + b"x" * size + b'"}')


def typed(content_type: str) -> Fault:
    """Declare the true answer as something else."""
    return Fault(content_type=content_type)


def slow(seconds: float) -> Fault:
    """Wait before the first byte of the true answer."""
    return Fault(delay=seconds)


def dripping(seconds: float) -> Fault:
    """Wait between each byte of the true body and the next."""
    return Fault(drip=seconds)


def disconnecting(*, within: bool = False) -> Fault:
    """Close the connection without an answer, or in the middle of its body."""
    return Fault(disconnect="within" if within else "before")


class Faults:
    """A queue of faults for each endpoint; requests take them in order, then answers are true again. Safe to use from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[Endpoint, deque[tuple[Fault, int | None]]] = {name: deque() for name in ENDPOINTS}

    def add(self, endpoint: Endpoint, fault: Fault, *, times: int | None = 1) -> None:
        """Queue `fault` for the next requests to `endpoint`: that many, or with None all until `clear`.

        Raises:
            ValueError: There is no such endpoint, or ``times`` is less than one.
        """
        if endpoint not in self._queues:
            raise ValueError(f"there is no endpoint {endpoint!r}: take one of {', '.join(ENDPOINTS)}")
        if times is not None and times < 1:
            raise ValueError("times must be at least 1, or None for all requests until clear()")
        with self._lock:
            self._queues[endpoint].append((fault, times))

    def clear(self) -> None:
        """Forget all faults; answers are true from here on."""
        with self._lock:
            for queue in self._queues.values():
                queue.clear()

    def take(self, endpoint: Endpoint) -> Fault:
        """Return the fault for the request that is there now; `NONE` where none is queued."""
        with self._lock:
            queue = self._queues[endpoint]
            if not queue:
                return NONE
            fault, times = queue[0]
            if times is not None:
                queue.popleft()
                if times > 1:
                    queue.appendleft((fault, times - 1))
            return fault
