"""The CPU time of each row of the receiver."""

import asyncio
from collections.abc import Callable, Iterator

import httpx
import jwt as pyjwt
from joserfc import jwt as joserfc
from joserfc.jwk import RSAKey

from benchmarks import apps, peers, refusals
from benchmarks import rows as names
from benchmarks.asgi import Call, bearer, request
from benchmarks.batches import BATCH, WARM_UP, measured
from benchmarks.figures import Figure
from benchmarks.realm import REALM, SECOND, settings, token, two_realms
from benchmarks.rows import REFUSALS, ROWS
from s2s_fastapi import TokenVerifier
from s2s_fastapi.testing import EmbeddedIssuer


def calls(issuer: EmbeddedIssuer, rounds: int) -> dict[str, Call]:
    """Return what each row does once. Tokens are new to a row that asks for new ones: no two of its calls bring the same."""
    again = token(issuer)
    fresh = [token(issuer) for _ in range(rounds * BATCH + WARM_UP)]
    jwks = httpx.get(f"{issuer.issuer(REALM)}/protocol/openid-connect/certs").raise_for_status().json()["keys"]
    jwk = next(jwk for jwk in jwks if jwk["kid"] == issuer.signing_kid(REALM))
    joserfc_key, pyjwt_key = RSAKey.import_key(jwk), pyjwt.PyJWK(jwk).key

    def new() -> Callable[[], str]:
        tokens: Iterator[str] = iter(fresh)
        return lambda: next(tokens)

    def encoded(tokens: Callable[[], str]) -> Callable[[], bytes]:
        return lambda: tokens().encode()

    def verify(tokens: Callable[[], str]) -> Call:
        verifier = TokenVerifier(settings(issuer))

        async def call() -> None:
            await verifier.averify(tokens())

        return call

    def decode_joserfc() -> Call:
        tokens = new()

        async def call() -> None:
            joserfc.decode(tokens(), joserfc_key, algorithms=["RS256"])

        return call

    def decode_pyjwt() -> Call:
        tokens = new()
        options = {"verify_aud": False, "verify_exp": False, "verify_iat": False, "verify_nbf": False}

        async def call() -> None:
            pyjwt.decode(tokens(), pyjwt_key, algorithms=["RS256"], options=options)

        return call

    routes = {**apps.repeated(settings(issuer)), **peers.apps(issuer)}
    same = bearer(again.encode)
    return {
        **{row: request(app, same) for row, app in routes.items()},
        names.QUERY_BARE: request(apps.bare(), same, query=names.QUERY_STRING),
        names.QUERY: request(apps.guarded(settings(issuer)), same, query=names.QUERY_STRING),
        names.TWO_REALMS: request(apps.of_two_realms(two_realms(issuer)), bearer(token(issuer, SECOND).encode)),
        names.NEW: request(apps.guarded(settings(issuer)), bearer(encoded(new()))),
        names.DECODING: request(apps.decoding(joserfc_key), bearer(encoded(new()))),
        names.VERIFIER: verify(lambda: again),
        names.VERIFIER_NEW: verify(new()),
        names.JOSERFC: decode_joserfc(),
        names.PYJWT: decode_pyjwt(),
        **refusals.calls(issuer),
    }


def measure(issuer: EmbeddedIssuer, rounds: int) -> dict[str, Figure]:
    """Return the figure of each row, in the rows' order."""
    todo = calls(issuer, rounds)
    order = [row.name for row in (*ROWS, *REFUSALS)]
    if todo.keys() != set(order):
        raise RuntimeError("what is measured and what rows.py names differ")
    threads = {row.name for row in ROWS if row.threads}
    figures = asyncio.run(measured(todo, rounds, threads=threads))
    return {name: figures[name] for name in order}
