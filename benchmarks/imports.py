"""What importing s2s_fastapi costs on top of fastapi and httpx: CPU time in fresh interpreters."""

import json
import os
import re
import statistics
import subprocess
import sys
from collections import Counter

from benchmarks.figures import Imports
from benchmarks.realm import ROOT

# All parts in one interpreter: what slows one down slows the others down too. Without the garbage collector: a full collection takes
# 17 ms, and by the number of objects it falls into one part or another.
_TIMED = """
import gc, json, time
gc.disable()
times = [time.process_time_ns()]
import fastapi, httpx
times.append(time.process_time_ns())
import s2s_fastapi
times.append(time.process_time_ns())
from s2s_fastapi import Principal, ServiceAuthMiddleware, require_caller
times.append(time.process_time_ns())
from s2s_fastapi import service_client, service_lifespan
times.append(time.process_time_ns())
print(json.dumps([(end - begin) / 1e6 for begin, end in zip(times, times[1:])]))
"""
_LISTED = "import fastapi, httpx; import s2s_fastapi"
_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \| +(\S+)")
_LARGEST = 8


def measure(rounds: int) -> Imports:
    """Time so many fresh interpreters, and list in some more what comes in."""
    _python("-c", _TIMED)
    runs = [json.loads(_python("-c", _TIMED).stdout) for _ in range(rounds)]
    shares = sorted(100 * ours / before for before, ours, *_ in runs)
    before, ours, receiver, caller = (statistics.median(part) for part in zip(*runs, strict=True))
    listed = [_listed(_python("-X", "importtime", "-c", _LISTED).stderr) for _ in range(max(3, rounds // 5))]
    modules = {module for modules in listed for module in modules}
    packages: Counter[str] = Counter()
    for module in modules:
        packages[module.partition(".")[0]] += min(modules.get(module, 0) for modules in listed)
    return Imports(
        before=before,
        ours=ours,
        receiver=receiver,
        caller=caller,
        more=(statistics.median(shares), shares[rounds // 5], shares[-1 - rounds // 5]),
        modules=len(modules),
        parts=tuple((name, micros / 1000) for name, micros in packages.most_common(_LARGEST)),
    )


def _listed(text: str) -> dict[str, int]:
    """Return each module's own microseconds, of those that came after the last of fastapi and httpx."""
    lines = [(module, int(micros)) for micros, module in _LINE.findall(text)]
    last = max(number for number, (module, _) in enumerate(lines) if module in {"fastapi", "httpx"})
    return dict(lines[last + 1 :])


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Compiled once and kept, as installed code is: else the compiler would be timed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
