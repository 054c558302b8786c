"""The command ``s2s-fastapi`` as a process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Running", "dev", "environment", "run", "started"]

COMMAND = [sys.executable, "-m", "s2s_fastapi.cli"]
_KEPT = ("PATH", "HOME", "SYSTEMROOT", "COVERAGE_PROCESS_START")


def environment(**values: str) -> dict[str, str]:
    return {name: os.environ[name] for name in _KEPT if name in os.environ} | values


@dataclass
class Running:
    process: subprocess.Popen[str]
    exports: dict[str, dict[str, str]]
    """What is printed for each client, by "realm: client"."""
    text: str

    def until(self, words: str) -> str:
        """Return what is written to stderr up to the line with these words."""
        assert self.process.stderr is not None
        text = ""
        for line in self.process.stderr:
            text += line
            if words in line:
                break
        return text

    def stop(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


def _read(process: subprocess.Popen[str], clients: int) -> Running:
    """Read what is printed for so many clients."""
    assert process.stdout is not None
    exports: dict[str, dict[str, str]] = {}
    text = ""
    for line in process.stdout:
        text += line
        if line.startswith("# No secret: "):
            continue
        if line.startswith("# "):
            current = exports[line[2:].strip()] = {}
        elif line.startswith("export "):
            name, _, value = line.removeprefix("export ").strip().partition("=")
            current[name] = value
        elif not line.strip() and len(exports) == clients:  # a blank line ends each of them
            return Running(process, exports, text)
    raise AssertionError(f"it ended:\n{text}\n{process.communicate()[1]}")


@contextmanager
def started(*arguments: str | Path, program: Sequence[str] = COMMAND, **values: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``s2s-fastapi dev`` until the end of the block, whatever happens in it."""
    command = [*program, "dev", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(
        command, env=environment(**values), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def dev(*arguments: str | Path, clients: int, program: Sequence[str] = COMMAND, **values: str) -> Iterator[Running]:
    with started(*arguments, program=program, **values) as process:
        yield _read(process, clients)


def run(*arguments: str | Path, **values: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, env=environment(**values), capture_output=True, text=True, timeout=60, check=False)
