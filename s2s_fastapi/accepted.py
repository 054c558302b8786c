"""The token of a request that the middleware accepted: what stands for it everywhere, and the one object that holds its text."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from typing import Final, NoReturn, Self

from s2s_fastapi.errors import NoUserToActFor
from s2s_fastapi.principal import Principal

__all__ = ["FURTHER", "INBOUND", "MOST_FURTHER", "SCOPE_KEY", "AcceptedToken", "digest", "length_of"]

SCOPE_KEY: Final = "s2s_fastapi.authenticated"
"""Where the middleware keeps the `AcceptedToken` of a request in its ASGI scope. It removes whatever else is there."""

INBOUND: ContextVar[bytes | None] = ContextVar("s2s_fastapi_inbound", default=None)
"""The `digest` of the current request's token: the one token that the calling side must never send on."""

FURTHER: ContextVar[tuple[bytes, ...]] = ContextVar("s2s_fastapi_further", default=())
"""The digests of tokens that the code itself authenticated in this context, the latest last. They must not be sent on either."""
MOST_FURTHER: Final = 8
"""A consumer may authenticate message after message in one context."""


def digest(token: str | bytes) -> bytes:
    """Return what stands for a token, because the token itself must not be kept: its length in 4 bytes, and its SHA-256.

    With the length, the token can be found in a text, whatever stands beside it: see `length_of`.
    """
    octets = token if isinstance(token, bytes) else token.encode()
    return len(octets).to_bytes(4) + sha256(octets).digest()


def length_of(digest: bytes) -> int:
    """Return the length in bytes of the token that a digest stands for."""
    return int.from_bytes(digest[:4])


@dataclass(slots=True, eq=False)
class AcceptedToken:
    """The token of one request that the middleware accepted, and its caller.

    - The text of the token is here only until the request ends: until the last byte of its answer, or until its WebSocket is closed.
    - It is what was verified, whatever another middleware writes into the request's headers.
    - It is in no repr and in no pickle. A copy is the same object, so the end of the request reaches the copies too.
    """

    principal: Principal
    digest: bytes
    """The `digest` of the token."""
    credentials: bytes | None = field(repr=False)
    """``Bearer <token>``, the very bytes that were verified; None when the request has ended."""

    def token(self) -> str:
        """Return the token.

        Raises:
            NoUserToActFor: The request has ended, or the token here is not the one that was verified.
        """
        if self.credentials is None:
            raise NoUserToActFor(
                "There is no user to act for: the request has ended, and its token was dropped. Nothing was sent. Call before the answer is sent;"
                " a background task calls as this service itself."
            )
        token = self.credentials.partition(b" ")[2]
        # Attack: code between the middleware and the route makes such an object, or writes another token into this one. That token was
        # never verified, its user is not `principal`, and whoever looks for `digest` in a request would not find that it is sent on.
        if not compare_digest(digest(token), self.digest):
            del token  # error trackers record the locals of each frame that raises
            raise NoUserToActFor(
                "There is no user to act for: the token beside the request is not the one that ServiceAuthMiddleware accepted. Nothing was sent."
                f" Look for code that changes {SCOPE_KEY!r} in the request's scope."
            )
        return token.decode("ascii")

    def ended(self) -> None:
        """Drop the token: the request has ended."""
        self.credentials = None

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("The token of a request is not pickled: it is of use only while that request runs.")
