"""Requests per second of uvicorn under wrk: the guarded route and the bare one, in short alternating runs."""

import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx

from benchmarks.figures import Throughput
from benchmarks.realm import REALM, RECEIVER, ROOT, token
from benchmarks.rows import STACKS
from s2s_fastapi.testing import EmbeddedIssuer

CONNECTIONS = 16
MISSING = "wrk is not installed (Debian: apt-get install wrk)"
_APPS = ("bare", "floor", "guarded")


@contextmanager
def _served(app: str, http: str, loop: str, environment: dict[str, str]) -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--factory", f"benchmarks.served:{app}", "--host", "127.0.0.1", "--port"]
        + [str(port), "--http", http, "--loop", loop, "--log-level", "warning", "--no-access-log"],
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    _pin(server.pid, 0)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()


def _pin(pid: int, core: int) -> None:
    """Keep a process on one core where there are two, so that wrk and the server do not take turns on one."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) > 1:
        os.sched_setaffinity(pid, {cores[core]})


def _until_served(url: str, headers: dict[str, str]) -> None:
    for _ in range(100):
        try:
            if httpx.get(url, headers=headers).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the benchmark's server does not serve")


def _wrk(url: str, seconds: int, headers: dict[str, str]) -> float:
    given = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    wrk = subprocess.Popen(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", *given, url], stdout=subprocess.PIPE, text=True
    )
    _pin(wrk.pid, 1)
    said, _ = wrk.communicate()
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if rate is None or "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"wrk was not served: {said}")
    return float(rate[1])


def measure(issuer: EmbeddedIssuer, rounds: int, seconds: int) -> dict[str, Throughput]:
    """Return what each kind of uvicorn serves; in every round each app once, in an order of its own."""
    environment = {name: value for name, value in issuer.environment(REALM, RECEIVER).items() if "SECRET" not in name}
    headers = {"Authorization": f"Bearer {token(issuer)}", "User-Agent": "python-httpx/0.28.1", "Accept": "*/*"}
    measured = {}
    for stack, (http, loop) in STACKS.items():
        with ExitStack() as running:
            urls = {app: running.enter_context(_served(app, http, loop, environment)) for app in _APPS}
            for url in urls.values():
                _until_served(url, headers)
                _wrk(url, 1, headers)
            runs = [
                {app: _wrk(urls[app], seconds, headers) for app in random.sample(_APPS, len(_APPS))}
                for _ in range(rounds)
            ]
        measured[stack] = _summed(runs)
    return measured


def _summed(runs: list[dict[str, float]]) -> Throughput:
    def keeps(app: str) -> tuple[float, float, float]:
        shares = [100 * run[app] / run["bare"] for run in runs]
        return statistics.median(shares), min(shares), max(shares)

    bare, floor, guarded = (statistics.median(run[app] for run in runs) for app in _APPS)
    return Throughput(bare, floor, guarded, keeps("floor"), keeps("guarded"))


def missing() -> str:
    """Say why it cannot be measured here; empty where it can."""
    return "" if shutil.which("wrk") else MISSING
