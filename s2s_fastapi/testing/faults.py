"""What can go wrong between a service and its Keycloak, as values that can be joined and queued.

issuer.faults.add("token", slow(0.5) & answering(503), times=3)
issuer.faults.add("certs", disconnecting(), times=None)     # until `clear`
"""

import gzip
import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal

from s2s_fastapi.testing.wire import Delivery, Response

__all__ = [
    "ENDPOINTS",
    "LEFT_OUT",
    "NONE",
    "Endpoint",
    "Fault",
    "Faults",
    "answering",
    "disconnecting",
    "dripping",
    "endless",
    "html",
    "huge",
    "redirecting",
    "refusing",
    "rewritten",
    "slow",
    "typed",
    "with_members",
    "zipped",
]

Endpoint = Literal["token", "certs", "discovery", "realm"]
ENDPOINTS: Final[tuple[Endpoint, ...]] = ("token", "certs", "discovery", "realm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What differs from the true answer. A field that is None stays true. ``one & other`` joins two faults; `other` wins."""

    status: int | None = None
    body: bytes | None = field(default=None, repr=False)  # it may hold a token
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] | None = None
    """Added to the answer, such as ``Retry-After``."""
    delay: float | None = None
    drip: float | None = None
    disconnect: Literal["before", "within"] | None = None
    repeat: int | None = None
    """How many times the body is sent in a row."""
    rewrite: Callable[[bytes], bytes] | None = None
    """A function from the true body to the body that is sent."""

    def __and__(self, other: "Fault") -> "Fault":
        changes = {one.name: getattr(other, one.name) for one in fields(other)}
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    def on(self, response: Response) -> Response:
        """Return what is sent instead of the true answer."""
        headers = response.headers
        if self.content_type is not None:
            headers = tuple(pair for pair in headers if pair[0].lower() != "content-type")
            headers += (("Content-Type", self.content_type),)
        body = response.body if self.body is None else self.body
        return Response(
            status=response.status if self.status is None else self.status,
            headers=headers + (self.headers or ()),
            body=body if self.rewrite is None else self.rewrite(body),
            delivery=Delivery(
                delay=self.delay or 0.0,
                drip=self.drip or 0.0,
                disconnect=self.disconnect or "",
                repeat=1 if self.repeat is None else self.repeat,
            ),
        )


NONE: Final = Fault()
"""The true answer: ``add("token", NONE, times=2)`` lets two requests through before the next fault."""


def answering(status: int, body: bytes | str = b"", *, headers: dict[str, str] | None = None) -> Fault:
    """Answer with the test's own status, body and headers."""
    content = body.encode() if isinstance(body, str) else body
    return Fault(status=status, body=content, headers=tuple(headers.items()) if headers else None)


def refusing(status: int, error: str, description: str = "") -> Fault:
    """Refuse as a token endpoint does (RFC 6749 section 5.2): ``refusing(401, "unauthorized_client")``."""
    body = {"error": error, "error_description": description} if description else {"error": error}
    return replace(answering(status, json.dumps(body)), content_type="application/json")


def redirecting(location: str, status: int = 307) -> Fault:
    """Redirect the request to another address."""
    return answering(status, headers={"Location": location})


LEFT_OUT: Final[Any] = type("_LeftOut", (), {"__repr__": lambda _: "LEFT_OUT"})()
"""For `with_members`: the member is missing, which differs from None."""


def with_members(**members: Any) -> Fault:
    """Change members of the true JSON answer: ``with_members(expires_in="soon", token_type=LEFT_OUT)``."""

    def rewrite(body: bytes) -> bytes:
        changed = json.loads(body) | members
        return json.dumps({name: value for name, value in changed.items() if value is not LEFT_OUT}).encode()

    return Fault(rewrite=rewrite)


def rewritten(rewrite: Callable[[bytes], bytes]) -> Fault:
    """Send what `rewrite` makes of the true body: ``rewritten(lambda body: body.decode().encode("utf-16"))``."""
    return Fault(rewrite=rewrite)


def html(status: int = 502) -> Fault:
    """Answer with a page, as a proxy or a gateway in between does."""
    return Fault(
        status=status, body=b"<html><body><h1>Bad Gateway</h1></body></html>", content_type="text/html; charset=utf-8"
    )


def huge(size: int = 1_000_000) -> Fault:
    """Answer 200 with a JSON object of about `size` bytes."""
    return Fault(status=200, body=b'{"padding":"' + b"x" * size + b'"}')


def endless() -> Fault:
    """Answer 200 with a body of a terabyte, as fast as it is read."""
    return Fault(status=200, body=b" " * 65_536, repeat=2**24)


def zipped(size: int = 10_000_000) -> Fault:
    """Answer 200 with a JSON object of about `size` bytes, compressed to a thousandth, even if the client did not accept that."""
    return replace(
        answering(200, gzip.compress(b'{"padding":"' + b"x" * size + b'"}'), headers={"Content-Encoding": "gzip"}),
        content_type="application/json",
    )


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
        """Forget all faults; answers are true from now on."""
        with self._lock:
            for queue in self._queues.values():
                queue.clear()

    def take(self, endpoint: Endpoint) -> Fault:
        """Return the fault for the current request, or `NONE` if none is queued."""
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
