"""On what it was measured: figures belong to a machine and to versions."""

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "s2s-fastapi",
    "fastapi",
    "starlette",
    "pydantic",
    "pydantic-settings",
    "httpx",
    "joserfc",
    "cryptography",
    "uvicorn",
    "h11",
    "httptools",
    "uvloop",
    "fastapi-keycloak-middleware",
    "python-keycloak",
    "jwcrypto",
    "keycloak-guard",
    "PyJWT",
)


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the version of every package that has a part in the figures."""
    return {name: metadata.version(name) for name in packages}


def machine() -> dict[str, str]:
    """Return what stands between the code and its figures."""
    return {
        "CPU": _cpu(),
        "cores": str(os.cpu_count()),
        "load when it began": f"{os.getloadavg()[0]:.1f}",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "wrk": _wrk(),
    }


def _cpu() -> str:
    about = Path("/proc/cpuinfo")
    text = about.read_text() if about.exists() else ""
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    family = re.search(r"^cpu family\s*: (.*)$", text, re.MULTILINE)
    if name is None:
        return platform.processor() or platform.machine()
    return name[1] + (f", family {family[1]}" if family else "")


def _wrk() -> str:
    try:
        said = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return "missing"
    return said.partition("\n")[0].partition(" Copyright")[0].removeprefix("wrk ").strip() or "unknown"
