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
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.figures import Throughput
from benchmarks.realm import REALM, RECEIVER, ROOT, token
from benchmarks.rows import STACKS
from s2s_fastapi.testing import EmbeddedIssuer

CONNECTIONS = 16
MISSING = "wrk is not installed (Debian: apt-get install wrk)"
_APPS = ("bare", "floor", "guarded")


@dataclass(frozen=True)
class _Server:
    url: str
    pid: int

    def cpu(self) -> float:
        """Return the seconds of CPU it has used; 0 where the system does not tell."""
        about = Path(f"/proc/{self.pid}/stat")
        fields = about.read_text().rpartition(")")[2].split() if about.exists() else ()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class _Run:
    rate: float
    """Requests per second."""
    cpu: float
    """Microseconds of the server's CPU for each."""


@contextmanager
def _served(app: str, http: str, loop: str, environment: dict[str, str]) -> Iterator[_Server]:
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
        yield _Server(f"http://127.0.0.1:{port}/", server.pid)
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


def _wrk(server: _Server, seconds: int, headers: dict[str, str]) -> _Run:
    given = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    before = server.cpu()
    wrk = subprocess.Popen(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", *given, server.url], stdout=subprocess.PIPE, text=True
    )
    _pin(wrk.pid, 1)
    said, _ = wrk.communicate()
    used = server.cpu() - before
    rate, served = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"(\d+) requests in", said)
    if rate is None or served is None or "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"wrk was not served: {said}")
    return _Run(float(rate[1]), used / int(served[1]) * 1e6)


def measure(issuer: EmbeddedIssuer, rounds: int, seconds: int) -> dict[str, Throughput]:
    """Return what each kind of uvicorn serves; in every round each app once, in an order of its own."""
    environment = {name: value for name, value in issuer.environment(REALM, RECEIVER).items() if "SECRET" not in name}
    headers = {"Authorization": f"Bearer {token(issuer)}", "User-Agent": "python-httpx/0.28.1", "Accept": "*/*"}
    measured = {}
    for stack, (http, loop) in STACKS.items():
        with ExitStack() as running:
            servers = {app: running.enter_context(_served(app, http, loop, environment)) for app in _APPS}
            for server in servers.values():
                _until_served(server.url, headers)
                _wrk(server, 1, headers)
            runs = [
                {app: _wrk(servers[app], seconds, headers) for app in random.sample(_APPS, len(_APPS))}
                for _ in range(rounds)
            ]
        measured[stack] = _summed(runs)
    return measured


def _summed(runs: list[dict[str, _Run]]) -> Throughput:
    def keeps(app: str) -> tuple[float, float, float]:
        return _spread([100 * run[app].rate / run["bare"].rate for run in runs])

    return Throughput(
        rates=tuple(statistics.median(run[app].rate for run in runs) for app in _APPS),
        cpu=tuple(statistics.median(run[app].cpu for run in runs) for app in _APPS),
        floor_keeps=keeps("floor"),
        guarded_keeps=keeps("guarded"),
        over_floor=_spread([run["guarded"].rate / run["floor"].rate for run in runs]),
    )


def _spread(values: list[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def missing() -> str:
    """Say why it cannot be measured here; empty where it can."""
    return "" if shutil.which("wrk") else MISSING
