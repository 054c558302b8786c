"""What is measured of bound tokens, by name: their table in docs/speed.md has these rows and no others."""

from dataclasses import dataclass
from typing import Final

from benchmarks.caller.rows import ASYNC_HTTPX, HTTPX

VERIFICATION: Final = "ES256 verification"
SIGNATURE: Final = "ES256 signature"

BEARER_IN: Final = "guarded route, repeated bearer token"
BEARER_IN_NEW: Final = "guarded route, new bearer tokens"
BEARER_OUT: Final = "attached bearer token"


@dataclass(frozen=True)
class Bound:
    """A request with a bound token and a new proof, beside the same request with a bearer token."""

    name: str
    bearer: str
    physical: str
    """The one operation with a key that nobody can leave out."""


IN: Final = Bound("guarded route, repeated token, proofs in this process", BEARER_IN, VERIFICATION)
IN_NEW: Final = Bound("guarded route, new tokens, proofs in this process", BEARER_IN_NEW, VERIFICATION)
IN_REDIS: Final = Bound("guarded route, repeated token, proofs in Redis", BEARER_IN, VERIFICATION)
OUT: Final = Bound(f"attached token, `{HTTPX}`", f"{BEARER_OUT}, `{HTTPX}`", SIGNATURE)
ASYNC_OUT: Final = Bound(f"attached token, `{ASYNC_HTTPX}`", f"{BEARER_OUT}, `{ASYNC_HTTPX}`", SIGNATURE)
BOUND: Final = (IN, IN_NEW, IN_REDIS, OUT, ASYNC_OUT)

NEEDED: Final = {*(row.name for row in BOUND), *(row.bearer for row in BOUND), VERIFICATION, SIGNATURE}
"""All that is called."""
