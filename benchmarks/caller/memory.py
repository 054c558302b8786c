"""What the tokens of many keys keep of the memory. In a process of its own: ``python -m benchmarks.caller.memory KEYS`` prints JSON."""

import gc
import json
import subprocess
import sys
import tracemalloc

from benchmarks.caller.figures import Kept
from benchmarks.caller.ways import Client, ours
from benchmarks.memory import resident
from benchmarks.realm import CALLER, REALM, ROOT, issuer

_FIRST = 20
"""Keys before anything is counted: the first token loads half of the packages."""


def kept(keys: int) -> tuple[float, float]:
    """Return what each of so many keys keeps, asked for over a real socket: bytes of Python's objects, and of the process."""
    scopes = [f"scope-{number}" for number in range(_FIRST + keys)]
    realm = issuer(scopes=scopes)
    realm.service_token(REALM, CALLER)
    with realm.serving():
        auth = ours(Client.of(realm, CALLER))

        def ask(names: list[str]) -> tuple[int, float]:
            for scope in names:
                auth.asking(scope=scope).token()
            realm.requests.clear()
            gc.collect()
            return tracemalloc.get_traced_memory()[0], resident()

        tracemalloc.start()
        traced, process = ask(scopes[:_FIRST])
        # Its own share: what tracemalloc notes of each object would count as the process's.
        noted = tracemalloc.get_tracemalloc_memory()
        more, larger = ask(scopes[_FIRST:])
        noted = tracemalloc.get_tracemalloc_memory() - noted
    return (more - traced) / keys, max(0.0, ((larger - process) * 1e6 - noted) / keys)


def measure(keys: int) -> Kept:
    child = [sys.executable, "-m", "benchmarks.caller.memory", str(keys)]
    traced, process = json.loads(subprocess.run(child, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    return Kept(keys, traced, process)


if __name__ == "__main__":
    print(json.dumps(kept(int(sys.argv[1]))))
