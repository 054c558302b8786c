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

# Both halves in one interpreter: what slows one down slows the other down too.
_TIMED = """
import json, time
began = time.process_time_ns()
import fastapi, httpx
between = time.process_time_ns()
import s2s_fastapi
print(json.dumps([(between - began) / 1e6, (time.process_time_ns() - between) / 1e6]))
"""
_LISTED = "import fastapi, httpx; import s2s_fastapi"
_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \| +(\S+)")
_LARGEST = 8


def measure(rounds: int) -> Imports:
    """Time so many fresh interpreters, and list in some more what comes in."""
    _python("-c", _TIMED)
    pairs = [json.loads(_python("-c", _TIMED).stdout) for _ in range(rounds)]
    shares = sorted(100 * ours / before for before, ours in pairs)
    listed = [_listed(_python("-X", "importtime", "-c", _LISTED).stderr) for _ in range(max(3, rounds // 5))]
    modules = {module for modules in listed for module in modules}
    packages: Counter[str] = Counter()
    for module in modules:
        packages[module.partition(".")[0]] += min(modules.get(module, 0) for modules in listed)
    return Imports(
        before=statistics.median(before for before, _ in pairs),
        ours=statistics.median(ours for _, ours in pairs),
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
