"""The commands of the README and of the first steps do what the pages say, in an empty folder, with the wheel and no checkout."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement

from example_app.realm import claims_of
from example_app.stage import free_port
from s2s_fastapi.cli.examples import Example, realm_of
from s2s_fastapi.testing import EmbeddedIssuer

ROOT: Final = Path(__file__).resolve().parents[1]
README: Final = ROOT / "README.md"
FIRST_STEPS: Final = ROOT / "docs" / "first-steps.md"
OURS: Final = "s2s-fastapi"
STARTED: Final = {"s2s-fastapi dev": "--env-file FILE", "uvicorn": "Application startup complete"}
"""The commands that keep running, and what they say when they are ready."""
SECONDS: Final = 90.0
FENCE: Final = re.compile(r"^```(sh|python)\b(.*)\n(?s:(.*?))^```$", re.MULTILINE)


@dataclass(frozen=True)
class Environment:
    """A virtual environment that sees of the packages of this one only those that it asked pip for, with what they need."""

    folder: Path
    wheels: Path

    @property
    def variables(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("SYSTEMROOT", "PYTHONPYCACHEPREFIX") if name in os.environ}
        found = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        path = os.pathsep.join((str(self.folder / "bin"), os.environ["PATH"]))
        return kept | found | {"PATH": path, "HOME": str(self.folder), "NO_PROXY": "*"}

    def offer(self, command: str) -> None:
        """Let pip find what the command names and what that needs, without a network; ourselves only in the wheel."""
        wanted = [Requirement(word.strip('"')) for word in command.split()[2:]]
        seen: set[tuple[str, str]] = set()
        while wanted:
            one = wanted.pop()
            for extra in ("", *one.extras):
                if (one.name, extra) in seen:
                    continue
                seen.add((one.name, extra))
                needed = (Requirement(text) for text in distribution(one.name).requires or ())
                wanted += [each for each in needed if each.marker is None or each.marker.evaluate({"extra": extra})]
        for name in {name for name, _ in seen} - {OURS}:
            self._link(name)

    def _link(self, name: str) -> None:
        files = distribution(name).files or ()
        for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
            place, link = Path(str(distribution(name).locate_file(top))), self._packages / top
            if place.exists() and not link.exists():
                link.symlink_to(place)
        for point in distribution(name).entry_points:
            if point.group == "console_scripts":
                script = self.folder / "bin" / point.name
                called = f"import sys; from {point.module} import {point.attr} as run; sys.exit(run())"
                script.write_text(f"#!/bin/sh\nexec '{self.folder}/bin/python' -c '{called}' \"$@\"\n")
                script.chmod(0o755)

    @property
    def _packages(self) -> Path:
        (folder,) = self.folder.glob("lib/python*/site-packages")
        return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the built wheel: the one that these tests run on, or one that is built for them."""
    if list(ROOT.glob("*.whl")):
        return ROOT
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    return Environment(folder, wheel)


@dataclass(frozen=True)
class Reader:
    """Somebody who does what a page says, in an empty folder. Only the ports are others, because some may be taken."""

    environment: Environment
    folder: Path
    ports: Mapping[str, str]
    servers: ExitStack

    def follow(self, text: str) -> dict[str, str]:
        """Save the programs of a page, run its commands, and return what each printed."""
        printed: dict[str, str] = {}
        for language, words, fenced in FENCE.findall(text):
            if language == "python":
                named = re.search(r"\S+\.py", f"{words}\n{fenced}")
                assert named
                (self.folder / Path(named[0]).name).write_text(self._with_ports(fenced))
                continue
            for command in fenced.splitlines():
                printed[command] = self.run(command)
        return printed

    def log(self, command: str) -> str:
        return self._log(command).read_text()

    def _log(self, command: str) -> Path:
        return self.environment.folder / f"{self.folder.name}-{re.sub(r'[^a-z]+', '-', command)}.log"

    def run(self, command: str) -> str:
        """Run a command, or start a server, and return what it printed."""
        if command.startswith("pip install "):
            self.environment.offer(command)
        typed = self._with_ports(command)
        ready = next((words for start, words in STARTED.items() if command.startswith(start)), "")
        if ready:
            self.servers.enter_context(self._served(f"exec {typed}", self._log(command), ready))
            return ""
        done = subprocess.run(
            ["/bin/sh", "-c", typed],
            cwd=self.folder,
            env=self.environment.variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    @contextmanager
    def _served(self, typed: str, log: Path, ready: str) -> Iterator[None]:
        with log.open("wb") as opened:
            server = subprocess.Popen(
                ["/bin/sh", "-c", typed], cwd=self.folder, env=self.environment.variables, stdout=opened, stderr=opened
            )
        try:
            until = time.monotonic() + SECONDS
            while ready not in log.read_text():
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.05)
            yield
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)

    def _with_ports(self, text: str) -> str:
        for shown, free in self.ports.items():
            text = text.replace(shown, free)
        return text


@pytest.fixture
def reader(environment: Environment, tmp_path: Path) -> Iterator[Reader]:
    ports = {"8000": str(free_port()), "8001": str(free_port())}
    with ExitStack() as servers:
        yield Reader(
            environment, tmp_path, ports | {"s2s-fastapi dev": f"s2s-fastapi dev --port {free_port()}"}, servers
        )


def answer_of(printed: str) -> tuple[str, object]:
    """Return the status line and the JSON of what ``curl -i`` printed."""
    head, _, body = printed.replace("\r", "").partition("\n\n")
    return head.splitlines()[0], json.loads(body)


@pytest.mark.skipif(
    os.environ.get("CI") != "true" and shutil.which("curl") is None,
    reason="The pages call with curl, which is not here.",
)
@pytest.mark.parametrize("page", [README, FIRST_STEPS], ids=lambda page: page.stem)
def test_what_a_page_says_first_ends_in_a_call_that_is_accepted(page: Path, reader: Reader) -> None:
    text = page.read_text(encoding="utf-8").partition("\n## Keycloak, in four steps")[0]

    printed = reader.follow(text)

    (escalated,) = (command for command in printed if "/escalate" in command)
    status, ticket = answer_of(printed[escalated])
    assert status == "HTTP/1.1 201 Created"
    assert json.dumps(ticket, separators=(",", ":")) in text
    assert "201 Created" in text
    if page == FIRST_STEPS:
        refused = [answer_of(printed[command])[0] for command in printed if "/tickets" in command]
        assert refused == ["HTTP/1.1 401 Unauthorized"] * 2
        gateway = reader.log(next(command for command in printed if "crm_gateway:app" in command))
        shown = re.findall(r"^refused .*?(?=\.\.\.)", text, re.MULTILINE)
        assert len(shown) == 2
        assert [line in gateway for line in shown] == [True, True]
        assert "2 passed" in printed["pytest"]
        see = FIRST_STEPS.read_text(encoding="utf-8").partition("\n## See the token\n")[2].partition("\n## ")[0]
        load, *commands = (fenced for language, _, fenced in FENCE.findall(see) if language == "sh")
        (shown,) = re.findall(r"^```text\n(.*?)^```$", see, re.MULTILINE | re.DOTALL)
        served = re.search("KEYCLOAK_URL=(.*)", (reader.folder / ".dev" / "chat-app-service.env").read_text())
        assert served
        assert reader.run("".join((load, *commands))) == shown.replace("https://sso.example.com", served[1])


def test_the_readme_and_the_first_steps_have_the_same_programs() -> None:
    readme, first_steps = (
        [fenced for language, _, fenced in FENCE.findall(page.read_text(encoding="utf-8")) if language == "python"]
        for page in (README, FIRST_STEPS)
    )

    assert len(readme) == 2
    assert readme == first_steps[:2]


def test_the_realm_of_the_page_and_the_one_of_the_package_give_the_caller_the_same_token() -> None:
    (realm,) = re.findall(r"^```json\n(.*?)^```$", FIRST_STEPS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    issuers = EmbeddedIssuer(json.loads(realm)), EmbeddedIssuer.read(realm_of(Example.CORP))
    tokens = [claims_of(issuer.as_service("chat-app-service").token) for issuer in issuers]
    held = [{name: each.get(name) for name in ("aud", "scope", "realm_access", "resource_access")} for each in tokens]

    assert (
        held == [{"aud": "crm-api-gateway", "scope": "crm-audience", "realm_access": None, "resource_access": None}] * 2
    )


def test_every_command_of_the_readme_is_run() -> None:
    before, _, after = README.read_text(encoding="utf-8").partition("\n## Keycloak, in four steps")

    assert len([fence for fence in FENCE.findall(before) if fence[0] == "sh"]) == 2
    assert "```" not in after
