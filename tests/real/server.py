"""A real Keycloak on loopback ports, with a directory of its own for everything it writes."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

import httpx

from example_app.realm import REALMS, Realm, filled, fresh_secrets
from tests.real.admin import Admin
from tests.real.distribution import JAVA_OPTIONS, built_distribution

__all__ = ["NEWEST", "VERSIONS", "Keycloak"]

NEWEST = "26.7.3"
VERSIONS = (NEWEST, "26.0.8")  # the newest to be had, and the oldest this package promises to work with

_START_SECONDS = 180.0
_STOP_SECONDS = 20.0

# Read when the distribution is built, ignored by a start with --optimized.
_BUILD_OPTIONS = frozenset(
    {
        "KC_FEATURES",
        "KC_FEATURES_DISABLED",
        "KC_METRICS_ENABLED",
        "KC_TRACING_ENABLED",
        "KC_TRACING_JDBC_ENABLED",
        "KC_TRACING_SAMPLER_TYPE",
        "KC_DB",
        "KC_CACHE",
        "KC_HTTPS_CLIENT_AUTH",
        "KC_HTTP_MANAGEMENT_SCHEME",
    }
)

# Every server can trace, and does where a caller says that it is tracing: so no test needs a build of its own. Whoever
# wants to see the spans gives the address in KC_TRACING_ENDPOINT; nothing is sent as long as nobody traces.
_TRACING = {
    "KC_TRACING_ENABLED": "true",
    "KC_TRACING_JDBC_ENABLED": "false",
    "KC_TRACING_SAMPLER_TYPE": "parentbased_always_off",
}
_PREVIEW = {"KC_FEATURES": "opentelemetry"}

# The server must not outlive us, however we end: when our end of the pipe on its standard input closes, its whole group
# is stopped.
_WATCHED = 'exec 3<&0; (cat <&3 >/dev/null; kill -TERM 0) & exec "$0" "$@" </dev/null 3<&-'


class Keycloak:
    """One server with the realms of the stories, imported as ``--import-realm`` does.

    ``auth_path`` is ``""`` or ``"/auth"``. ``public_url`` is the address that stands in ``iss``, without that path; unless
    given it is the address on which the server is reached. It may hold ``{port}``. ``environment`` adds ``KC_*`` variables
    (tracing, features). Without ``imports`` it has no realm but those that `copy_of` makes, and starts sooner.
    Stopped and started again it keeps its ports, keys, realms and whatever a test changed; `close` throws them away.
    """

    def __init__(
        self,
        version: str,
        *,
        port: int | None = None,
        auth_path: str = "",
        public_url: str | None = None,
        environment: Mapping[str, str] | None = None,
        imports: bool = True,
    ) -> None:
        self.version = version
        self.auth_path = auth_path
        first, self._health_port = _free_ports()
        self.port = port or first
        self.url = f"http://127.0.0.1:{self.port}"
        self.public_url = (public_url or self.url).format(port=self.port)
        self.values = fresh_secrets()
        self._password = secrets.token_urlsafe(24)
        self._environment = dict(environment or {})
        self._imports = imports
        self._home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.admin = Admin(self.url + auth_path, self._password)

    def __repr__(self) -> str:
        return f"Keycloak({self.version!r}, url={self.url + self.auth_path!r}, public_url={self.public_url!r})"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def realm(self, name: str) -> Realm:
        """Return one of the imported realms: ``corp``, ``techstore``, ``abc``, ``workshop`` or ``vault``."""
        new = not self.version.startswith("26.0.")
        return Realm(name, self.url, self.public_url, self.auth_path, self.values, exchanges=new, binds=new)

    @contextlib.contextmanager
    def copy_of(self, realm: str) -> Iterator[Realm]:
        """Lend a realm of a test's own to change, made by ``POST /admin/realms`` and deleted afterwards."""
        name, values = f"{realm}-{secrets.token_hex(3)}", fresh_secrets()
        self.admin.create_realm({**filled(realm, values), "realm": name})
        try:
            yield replace(self.realm(realm), name=name, values=values)
        finally:
            self.admin.delete_realm(name)

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            RuntimeError: It ended or was not ready in time; the text ends with its log.
        """
        if self._process is not None:
            raise RuntimeError("this Keycloak is running")
        home = self._home or self._make_home()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("KC_", "KEYCLOAK_"))}
        options = [
            "--optimized",
            "--import-realm",
            "--http-enabled=true",
            "--http-host=127.0.0.1",
            f"--http-port={self.port}",
        ]
        options += [f"--http-management-port={self._health_port}", f"--hostname={self.public_url}{self.auth_path}"]
        if self.public_url != self.url:
            options.append("--hostname-backchannel-dynamic=true")
        with (home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHED, str(home / "bin" / "kc.sh"), "start", *options],
                env={
                    **inherited,
                    **self._environment,
                    **self.values,
                    "JAVA_OPTS": JAVA_OPTIONS,
                    "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
                    "KC_BOOTSTRAP_ADMIN_PASSWORD": self._password,
                },
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a process group of its own, so that stop() ends it and nothing else
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        self.admin.forget_login()

    @property
    def running(self) -> bool:
        """Whether the server was started and not ended since."""
        return self._process is not None

    def stop(self) -> None:
        """Stop the server; what it stored stays for the next `start`."""
        self._end(signal.SIGTERM, signal.SIGKILL)

    def kill(self) -> None:
        """End the server in the middle of whatever it does; what it had stored stays for the next `start`."""
        self._end(signal.SIGKILL)

    def _end(self, *endings: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for ending in endings:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, ending)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the watcher of _WATCHED, should it be left
        if process.stdin is not None:
            process.stdin.close()

    def close(self) -> None:
        """Stop the server and remove everything it wrote."""
        self.stop()
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def log_tail(self, lines: int = 40) -> str:
        """Return the end of the server's log."""
        if self._home is None:
            return ""
        return "\n".join(
            (self._home / "server.log").read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        )

    def _make_home(self) -> Path:
        build = {
            "KC_DB": "dev-file",  # survives a restart
            "KC_CACHE": "local",  # no cluster: nothing is sent to the network
            "KC_HEALTH_ENABLED": "true",
            "KC_HTTP_RELATIVE_PATH": self.auth_path or "/",
            "KC_HTTP_MANAGEMENT_RELATIVE_PATH": "/",
            **_TRACING,
            **(_PREVIEW if self.version.startswith("26.0.") else {}),
        }
        built = built_distribution(
            self.version,
            {**build, **{name: value for name, value in self._environment.items() if name in _BUILD_OPTIONS}},
        )
        self._home = home = Path(tempfile.mkdtemp(prefix=f"keycloak-{self.version}-"))
        # kc.sh takes the directory above itself for the server's home, where it writes: so it is copied, the rest linked.
        shutil.copytree(built / "bin", home / "bin")
        shutil.copytree(built / "conf", home / "conf")
        (home / "lib").symlink_to(built / "lib")
        (home / "themes").symlink_to(built / "themes")
        (home / "providers").mkdir()
        (home / "data" / "import").mkdir(parents=True)
        for path in REALMS.values() if self._imports else ():
            shutil.copy(path, home / "data" / "import")
        return home

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        # 26.0 speaks TLS on its management port too, if it has a certificate.
        secure = "KC_HTTPS_CERTIFICATE_FILE" in self._environment and self.version.startswith("26.0.")
        health = f"{'https' if secure else 'http'}://127.0.0.1:{self._health_port}/health/ready"
        with httpx.Client(timeout=5, trust_env=False, verify=not secure) as client:
            while time.monotonic() < deadline:
                if self._process is None or self._process.poll() is not None:
                    raise RuntimeError(
                        f"Keycloak {self.version} ended while it started. Its log ends with:\n{self.log_tail()}"
                    )
                with contextlib.suppress(httpx.TransportError):
                    if client.get(health).status_code == httpx.codes.OK:
                        return
                time.sleep(0.5)  # each question is a line in its log, and work for a machine that is busy starting it
        raise RuntimeError(
            f"Keycloak {self.version} was not ready in {_START_SECONDS:.0f} s. Its log ends with:\n{self.log_tail()}"
        )


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]
