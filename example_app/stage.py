"""Start the example services as processes of their own, each with its own environment, as they would run anywhere."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

__all__ = ["Answer", "Service", "Stage"]

_HERE = Path(__file__).parent
_DECISION = re.compile(r"^\w+ s2s_fastapi\.decisions (allowed|refused|failed) (\d{3}): (\w+) ?(.*)$")
_START_SECONDS = 60.0
_LOG_SECONDS = 5.0
_TAIL = 2000


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request, and what the service wrote about it."""

    status: int
    challenge: str
    body: str
    reason: str = ""
    """The reason in the operator's log; empty where the service did not have to decide."""
    log: str = ""
    """The rest of that line: who, which token, and the cure."""


class Service:
    """One example service, run by uvicorn on a free port of this machine."""

    def __init__(self, app: str, environment: Mapping[str, str], *, port: int | None = None) -> None:
        self.app = app
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = dict(environment)
        self._log = Path(tempfile.mkstemp(prefix=f"{app.partition(':')[0]}-", suffix=".log")[1])
        self._process: subprocess.Popen[bytes] | None = None
        self._read = 0

    def start(self) -> None:
        """Start the process; `wait` until it answers."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYCLOAK_")}
        command = ["-m", "uvicorn", self.app, "--port", str(self.port), "--log-config", str(_HERE / "logging.json")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own arguments
                [sys.executable, *command], env={**kept, **self._environment}, stdout=log, stderr=log, cwd=_HERE.parent
            )

    def wait(self) -> None:
        """Return when the service answers.

        Raises:
            RuntimeError: It ended, or did not answer in a minute; the text holds its log.
        """
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until and self.running:
            try:
                httpx.get(f"{self.url}/healthz", timeout=5, trust_env=False)
            except httpx.TransportError:
                time.sleep(0.1)
            else:
                return
        raise RuntimeError(f"{self.app} did not start:\n{self.log}")

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """Everything the service wrote."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def join(self) -> int:
        """Wait for the process to end by itself and return its exit code; -1 if it goes on running."""
        try:
            return self._process.wait(_START_SECONDS) if self._process is not None else -1
        except subprocess.TimeoutExpired:
            return -1

    def stop(self) -> int | None:
        """End the process and return its exit code."""
        if self._process is None:
            return None
        if self.running:
            self._process.terminate()
        try:
            return self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def close(self) -> None:
        """End the process and throw its log away."""
        self.stop()
        self._log.unlink(missing_ok=True)

    def forget(self) -> None:
        """Take the log as read: the next decision is looked for behind it."""
        self._read = self._log.stat().st_size

    def decision(self, *, seconds: float = _LOG_SECONDS, outcome: str = "") -> tuple[str, str]:
        """Return the reason and the rest of the first decision written since `forget`, waiting a moment for it; of one outcome if it is given."""
        until = time.monotonic() + seconds
        while True:
            written = self._log.read_bytes()[self._read :].decode("utf-8", errors="replace")
            for line in written.splitlines():
                if (found := _DECISION.match(line)) and found[1].startswith(outcome):
                    return found[3], found[4]
            if time.monotonic() > until:
                return "", written[-_TAIL:]  # no decision: what it wrote instead is what went wrong
            time.sleep(0.02)

    def ask(
        self,
        method: str,
        path: str,
        token: str | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send one request as a plain HTTP client would, with ``token`` as its bearer token, or with ``headers`` as they are."""
        sent = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.request(
            method, self.url + path, headers={**sent, **(headers or {})}, json=json, timeout=30, trust_env=False
        )


class Stage:
    """Some services that are started together and ended together."""

    def __init__(self) -> None:
        self._services: dict[str, Service] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> Service:
        return self._services[name]

    def add(
        self, name: str, environment: Mapping[str, str], *, app: str | None = None, port: int | None = None
    ) -> Service:
        """Start a service without waiting for it; ``app`` is `example_app.NAME:app` unless given."""
        service = Service(app or f"example_app.{name}:app", environment, port=port)
        self._services[name] = service
        self._stack.callback(service.close)
        service.start()
        return service

    def wait(self) -> None:
        """Return when all services answer."""
        for service in self._services.values():
            service.wait()

    def run(self, module: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a script of the example to its end."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYCLOAK_")}
        return subprocess.run(  # noqa: S603 - our own interpreter, our own arguments
            [sys.executable, "-m", module],
            env={**kept, **environment},
            cwd=_HERE.parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ask(
        self,
        receiver: str,
        method: str,
        path: str,
        token: str | None = None,
        *,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        log_of: str | None = None,
    ) -> Answer:
        """Send one request to ``receiver`` and return the answer, with the decision of ``log_of`` (the receiver unless given)."""
        decider = self[log_of or receiver]
        decider.forget()
        response = self[receiver].ask(method, path, token, json, headers)
        reason, rest = decider.decision()
        return Answer(response.status_code, response.headers.get("WWW-Authenticate", ""), response.text, reason, rest)

    def kept(self, receiver: str) -> dict[str, str]:
        """Return the credentials that a dishonest receiver kept of its last letter."""
        copied: dict[str, str] = self[receiver].ask("GET", "/kept").json()
        return copied

    def use_tool(self, server: str, client: str, token: str, tool: str, *, refused: bool, **arguments: str) -> Answer:
        """Let a client with ``token`` use one tool of ``server``, and return what it sees: the tools that were listed, and the answer."""
        from example_app.tool_client import CLIENTS  # noqa: PLC0415 - only story 4 needs the packages of tool servers

        decider = self[server]
        decider.forget()
        listed, said = CLIENTS[client](decider.url, token, tool, **arguments)
        reason, rest = decider.decision(outcome="refused" if refused else "allowed")
        return Answer(200, "", f"{sorted(listed)} {said}", reason, rest)

    def use_session(self, server: str, opened_by: str, used_by: str, tool: str) -> Answer:
        """Let one client open a session at ``server``, and another one, or the same, use a tool in it."""
        from example_app.tool_client import Session  # noqa: PLC0415 - only story 4 needs the packages of tool servers

        decider = self[server]
        session = Session(decider.url)
        session.open(opened_by)
        decider.forget()
        response = session.call(used_by, tool)
        return Answer(
            response.status_code, response.headers.get("WWW-Authenticate", ""), response.text, *decider.decision()
        )


_GIVEN: set[int] = set()


def free_port() -> int:
    """Return a port of this machine that is free now, and that this process was not given before: its service may not listen yet."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _GIVEN:
            _GIVEN.add(port)
            return port
