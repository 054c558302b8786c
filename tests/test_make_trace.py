"""`make trace` without a docker engine: what it would start, what it sends, and what it says where something is missing."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.kit.compose import BUILT, FILE, PROFILE, SECRETS, SWITCHES, services

ROOT = FILE.parent
DASHBOARD = json.loads((ROOT / "docs" / "operate" / "dashboard.json").read_text(encoding="utf-8"))
OURS = sorted(name for name, service in services(SECRETS).items() if service["image"] == BUILT)


class Docker:
    """A docker that writes down how it was called, and fails where it is told to."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.calls = directory / "calls"
        script = f'#!/bin/sh\n{sys.executable} -c "{_CALLED}" {self.calls} "$@"\n[ "$*" != "$FAILS" ]\n'
        (directory / "docker").write_text(script, encoding="utf-8")
        (directory / "docker").chmod(0o755)

    def told(self) -> list[tuple[str, dict[str, str]]]:
        """Return each command that was to start something, with its environment."""
        calls = [json.loads(line) for line in self.calls.read_text(encoding="utf-8").splitlines()]
        return [(" ".join(arguments), environment) for arguments, environment in calls if "up" in arguments]


_CALLED = (
    "import json, os, sys; print(json.dumps([sys.argv[2:], dict(os.environ)]), file=open(sys.argv[1], 'a'), flush=True)"
)


@contextmanager
def answering(status: int) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Stand in for the services: the address, and each request's path and traceparent."""
    seen: list[tuple[str, str]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append((self.path, self.headers["traceparent"]))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()


def make_trace(directory: Path, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the target on a copy, with nothing on the PATH but ``path``; what it installs is installed already."""
    shutil.copytree(ROOT / "example_app", directory / "example_app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Makefile", directory)
    make = shutil.which("make")
    assert make is not None
    return subprocess.run(
        [make, "trace", f"VENV={sys.prefix}", f"PYTHON={sys.executable}", "-o", f"{sys.prefix}/.installed"],
        cwd=directory,
        env={"PATH": str(path), "HOME": str(directory), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_trace_starts_everything_and_says_where_the_traces_are(tmp_path: Path) -> None:
    docker = Docker(tmp_path / "bin")

    with answering(200) as (url, seen):
        done = make_trace(tmp_path, tmp_path / "bin", SHOP_URL=url, CHAT_URL=url)

    assert done.returncode == 0, done.stderr
    (everything, environment), (anew, same) = docker.told()
    assert everything == "compose --profile observability up --build --wait"
    assert anew.startswith("compose up --wait --no-deps --force-recreate ")
    assert set(anew.split()[5:]) == {"shop-api", "notification-service"} <= set(OURS)
    assert {name: environment[name] for name in SWITCHES} == {name: same[name] for name in SWITCHES}
    assert (tmp_path / ".env").exists()
    assert [path for path, _ in seen] == ["/checkout", "/escalate"]
    pages = [urlsplit(line.strip()) for line in done.stdout.splitlines() if "/explore?" in line]
    assert {f"{page.scheme}://{page.netloc}" for page in pages} == {"http://localhost:3000"}
    shown = [json.loads(parse_qs(page.query)["panes"][0])["trace"]["queries"][0]["query"] for page in pages]
    assert f"http://localhost:3000/d/{DASHBOARD['uid']}" in done.stdout
    assert shown == [re.fullmatch(r"00-([0-9a-f]{32})-[0-9a-f]{16}-01", sent)[1] for _, sent in seen]  # type: ignore[index]


def test_what_make_trace_sets_makes_keycloak_and_the_services_export_to_the_backend(tmp_path: Path) -> None:
    docker = Docker(tmp_path / "bin")
    with answering(200) as (url, _):
        make_trace(tmp_path, tmp_path / "bin", SHOP_URL=url, CHAT_URL=url)
    declared = services({**docker.told()[0][1], **SECRETS}, PROFILE)

    endpoint = declared["shop-api"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    host, _, port = endpoint.removeprefix("http://").partition(":")
    assert any(published.endswith(f":{port}") for published in declared[host]["ports"])
    assert {declared[name]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] for name in OURS} == {endpoint}
    keycloak = declared["keycloak"]["environment"]
    assert {name: value for name, value in keycloak.items() if name.startswith("KC_TRACING_")} == {
        "KC_TRACING_ENABLED": "true",
        "KC_TRACING_ENDPOINT": endpoint,
        "KC_TRACING_PROTOCOL": "http/protobuf",
        "KC_TRACING_JDBC_ENABLED": "false",
    }
    for name in ("shop-api", "notification-service"):
        module = declared[name]["command"][1].partition(":")[0]
        assert module.startswith("example_app.observability.")
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()


@pytest.mark.parametrize(
    ("fails", "missing"),
    [("compose version", "this docker has no compose"), ("info", "the docker engine does not answer")],
)
def test_make_trace_says_in_a_sentence_what_docker_lacks(tmp_path: Path, fails: str, missing: str) -> None:
    docker = Docker(tmp_path / "bin")

    done = make_trace(tmp_path, tmp_path / "bin", FAILS=fails)

    assert done.returncode == 2
    assert done.stderr.startswith(f"make trace needs docker compose: {missing}\n")
    assert "Traceback" not in done.stderr
    assert docker.told() == []


def test_make_trace_says_in_a_sentence_that_there_is_no_docker(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    done = make_trace(tmp_path, tmp_path / "empty")

    assert done.returncode == 2
    assert done.stderr.startswith("make trace needs docker compose: there is no docker here\n")


def test_make_trace_fails_where_compose_or_a_service_does(tmp_path: Path) -> None:
    for name in ("compose", "service"):
        (tmp_path / name).mkdir()
        Docker(tmp_path / name / "bin")
    with answering(502) as (url, seen):
        fails = "compose --profile observability up --build --wait"
        done = make_trace(tmp_path / "compose", tmp_path / "compose" / "bin", FAILS=fails, SHOP_URL=url, CHAT_URL=url)
        assert (done.returncode, seen) == (2, [])

        done = make_trace(tmp_path / "service", tmp_path / "service" / "bin", SHOP_URL=url, CHAT_URL=url)

    assert done.returncode == 2
    assert len(seen) == 2
    assert "502" in done.stdout
