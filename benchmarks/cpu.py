"""CPU time of each row, in small shuffled batches of one run.

Wall clock in whole rounds drowned in noise. CPU time in batches, read at a low percentile, does not: what comes on top of it in a busier
batch is the machine's, not the code's.
"""

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable, Iterator

import httpx
import jwt as pyjwt
from joserfc import jwt as joserfc
from joserfc.jwk import RSAKey

from benchmarks import apps, peers
from benchmarks import rows as names
from benchmarks.asgi import Call, request
from benchmarks.figures import Figure
from benchmarks.realm import REALM, settings, token
from benchmarks.rows import ROWS
from s2s_fastapi import TokenVerifier
from s2s_fastapi.testing import EmbeddedIssuer

BATCH, WARM_UP, BLOCKS = 50, 100, 5
LOW, HIGH = 0.2, 0.8


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


def figure(values: list[float]) -> Figure:
    size = len(values) // BLOCKS
    parts = [values[start : start + size] for start in range(0, size * BLOCKS, size)]
    return Figure(_percentile(values, LOW), _percentile(values, HIGH), tuple(_percentile(part, LOW) for part in parts))


def calls(issuer: EmbeddedIssuer, rounds: int) -> dict[str, Call]:
    """Return what each row does once. Tokens are new to a row that asks for new ones: no two of its calls bring the same."""
    again = token(issuer).encode()
    fresh = [token(issuer) for _ in range(rounds * BATCH + WARM_UP)]
    jwks = httpx.get(f"{issuer.issuer(REALM)}/protocol/openid-connect/certs").raise_for_status().json()["keys"]
    jwk = next(jwk for jwk in jwks if jwk["kid"] == issuer.signing_kid(REALM))
    joserfc_key, pyjwt_key = RSAKey.import_key(jwk), pyjwt.PyJWK(jwk).key

    def next_token(tokens: Iterator[str]) -> Callable[[], bytes]:
        return lambda: next(tokens).encode()

    def verify(tokens: Callable[[], str]) -> Call:
        verifier = TokenVerifier(settings(issuer))

        async def call() -> None:
            await verifier.averify(tokens())

        return call

    def decode_joserfc() -> Call:
        tokens = iter(fresh)

        async def call() -> None:
            joserfc.decode(next(tokens), joserfc_key, algorithms=["RS256"])

        return call

    def decode_pyjwt() -> Call:
        tokens = iter(fresh)
        options = {"verify_aud": False, "verify_exp": False, "verify_iat": False, "verify_nbf": False}

        async def call() -> None:
            pyjwt.decode(next(tokens), pyjwt_key, algorithms=["RS256"], options=options)

        return call

    text, unseen = again.decode(), iter(fresh)
    asked = {**apps.repeated(settings(issuer)), **peers.apps(issuer)}
    return {
        **{row: request(app, lambda: again) for row, app in asked.items()},
        names.NEW: request(apps.guarded(settings(issuer)), next_token(iter(fresh))),
        names.VERIFIER: verify(lambda: text),
        names.VERIFIER_NEW: verify(lambda: next(unseen)),
        names.JOSERFC: decode_joserfc(),
        names.PYJWT: decode_pyjwt(),
    }


async def batch(call: Callable[[], Awaitable[None]], clock: Callable[[], int]) -> float:
    """Return the microseconds of one call, by that clock."""
    began = clock()
    for _ in range(BATCH):
        await call()
    return (clock() - began) / BATCH / 1000


async def _measured(todo: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    clocks = {row.name: time.process_time_ns if row.threads else time.thread_time_ns for row in ROWS}
    samples: dict[str, list[float]] = {row.name: [] for row in ROWS}
    for call in todo.values():
        for _ in range(WARM_UP):
            await call()
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        for name in random.sample(sorted(todo), len(todo)):
            samples[name].append(await batch(todo[name], clocks[name]))
    return samples


def measure(issuer: EmbeddedIssuer, rounds: int) -> dict[str, Figure]:
    """Return the figure of each row, in the rows' order."""
    todo = calls(issuer, rounds)
    if todo.keys() != {row.name for row in ROWS}:
        raise RuntimeError("what is measured and what rows.py names differ")
    return {name: figure(values) for name, values in asyncio.run(_measured(todo, rounds)).items()}
