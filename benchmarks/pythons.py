"""The repeated token on another Python: ``PYTHON -m benchmarks.pythons ROUNDS`` prints JSON.

That Python needs the package and FastAPI, and nothing else that the benchmarks need: the environment of the tests will do.
"""

import asyncio
import json
import platform
import subprocess
import sys
from collections.abc import Iterable

from benchmarks import apps, rows
from benchmarks.asgi import bearer, request
from benchmarks.batches import measured
from benchmarks.figures import OtherPython
from benchmarks.realm import ROOT, issuer, settings, token


def measure(interpreters: Iterable[str], rounds: int) -> tuple[OtherPython, ...]:
    """Return what each of these interpreters says."""
    return tuple(OtherPython(**_child(python, rounds)) for python in interpreters)


def _child(python: str, rounds: int) -> dict[str, str | float]:
    child = [python, "-m", "benchmarks.pythons", str(rounds)]
    said: dict[str, str | float] = json.loads(
        subprocess.run(child, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    )
    return said


def main() -> None:
    realm = issuer()
    with realm.serving():
        again = bearer(token(realm).encode)
        routes = {rows.BARE: apps.bare(), rows.FLOOR: apps.floor(), rows.ONE: apps.guarded(settings(realm))}
        todo = {name: request(app, again) for name, app in routes.items()}
        figures = asyncio.run(measured(todo, int(sys.argv[1])))
    about = {
        "version": f"{platform.python_implementation()} {platform.python_version()}",
        "bare": figures[rows.BARE].low,
        "floor": figures[rows.FLOOR].low,
        "ours": figures[rows.ONE].low,
    }
    print(json.dumps(about))


if __name__ == "__main__":
    main()
