"""How many token requests a cold burst makes: threads, and tasks on several loops, all at once, against a real socket."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from benchmarks.realm import CALLER, REALM, RECEIVER, issuer
from s2s_fastapi import KeycloakSettings, ServiceTokenAuth
from s2s_fastapi.testing import faults

THREADS, LOOPS, TASKS = 500, 4, 500
_ANSWER_SECONDS = 0.3


def measure() -> int:
    """Return the token requests of a burst at a client that has no token yet; the issuer takes its time, so that all of them wait."""
    realm = issuer()
    realm.faults.add("token", faults.slow(_ANSWER_SECONDS), times=None)
    with realm.serving():
        secret = realm.secrets(REALM)[CALLER]
        given = KeycloakSettings(url=realm.url, realm=REALM, client_id=CALLER, client_secret=secret)
        auth = ServiceTokenAuth(f"http://{RECEIVER}:8000", audience=RECEIVER, settings=given)
        tokens = _burst(auth)
    if len(set(tokens)) != 1:
        raise RuntimeError("a burst got more than one token")
    return len(realm.requests("token"))


def _burst(auth: ServiceTokenAuth) -> list[str]:
    async def gather() -> list[str]:
        return list(await asyncio.gather(*(auth.atoken() for _ in range(TASKS // LOOPS))))

    with ThreadPoolExecutor(THREADS + LOOPS) as pool:
        threads = [pool.submit(auth.token) for _ in range(THREADS)]
        loops = [pool.submit(asyncio.run, gather()) for _ in range(LOOPS)]
        return [future.result() for future in threads] + [token for future in loops for token in future.result()]
