"""What verified tokens keep of the memory. Run in a process of its own: ``python -m benchmarks.memory TOKENS``; it prints JSON."""

import gc
import itertools
import json
import resource
import sys
import tracemalloc
from pathlib import Path

from benchmarks.realm import issuer, settings, token
from s2s_fastapi import TokenVerifier

COUNTED = 2000
"""Fewer than a cache holds: all of them stay."""
_STEPS = 10


def bytes_per_token() -> float:
    """Return the bytes that one more verified token keeps, everything that hangs on it counted."""
    realm = issuer()
    verifier = TokenVerifier(settings(realm), transport=realm.transport)

    def verify(number: int) -> int:
        for _ in range(number):
            verifier.verify(token(realm))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    before = verify(200)
    kept = (verify(COUNTED) - before) / COUNTED
    tracemalloc.stop()
    return kept


def resident() -> float:
    """Return the megabytes of this process that are in memory now."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def growth(tokens: int) -> list[tuple[int, float]]:
    """Return the resident megabytes after each tenth of so many distinct tokens, all good and none seen before.

    Signed with Ed25519, which takes a sixth of the time of RSA.
    """
    realm = issuer("EdDSA")
    verifier = TokenVerifier(settings(realm), transport=realm.transport)
    seen = []
    for step in range(1, _STEPS + 1):
        for _ in itertools.repeat(None, tokens // _STEPS):
            verifier.verify(token(realm))
        gc.collect()
        seen.append((step * (tokens // _STEPS), resident()))
    return seen


if __name__ == "__main__":
    print(json.dumps({"per_token": bytes_per_token(), "growth": growth(int(sys.argv[1]))}))
