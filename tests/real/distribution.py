"""Keycloak's distribution: fetched once with Maven, unpacked once, built once per set of build options."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["JAVA_OPTIONS", "built_distribution", "cache_directory", "libraries", "obstacle"]

# In place of kc.sh's own. The serial collector needs no second core. Without C2 a start itself would be 4 s faster, but every
# realm makes RSA keys, and C2 makes them five times as fast: with three realms to import it wins by 6 s.
JAVA_OPTIONS = (
    "-Xms128m -Xmx512m -XX:MetaspaceSize=96M -XX:MaxMetaspaceSize=256m -XX:+ExitOnOutOfMemoryError "
    "-XX:+UseSerialGC -Dfile.encoding=UTF-8 -Djava.security.egd=file:/dev/urandom"
)
# A build makes no keys: 16 s instead of 25 s.
_BUILD_JAVA_OPTIONS = f"{JAVA_OPTIONS} -XX:TieredStopAtLevel=1"
_MAVEN_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
_OLDEST_JAVA = 17
_BUILT = "built.json"


def cache_directory() -> Path:
    """Return where distributions are kept: ``S2S_KEYCLOAK_CACHE``, or ``~/.cache/s2s-keycloak``."""
    return Path(os.environ.get("S2S_KEYCLOAK_CACHE") or Path.home() / ".cache" / "s2s-keycloak").absolute()


def obstacle() -> str | None:
    """Say in one sentence why no Keycloak can run here, or return None."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        return "a real Keycloak needs Java, and there is no java here"
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=60)
    version = re.search(r'version "(?:1\.)?(\d+)', shown.stderr + shown.stdout)
    if version is None or int(version[1]) < _OLDEST_JAVA:
        return f"a real Keycloak needs Java {_OLDEST_JAVA} or newer, and java here is {version[1] if version else 'unreadable'}"
    if shutil.which("mvn") is None:
        return "a real Keycloak is fetched with Maven, and there is no mvn here"
    return None


def built_distribution(version: str, options: Mapping[str, str]) -> Path:
    """Return a directory with ``bin``, ``conf`` and a ``lib`` that was built with ``options`` (``KC_*`` variables).

    It is shared and only read: a server's data lives elsewhere. Any number of processes may ask at the same time.
    """
    mark = json.dumps({"version": version, "options": dict(sorted(options.items()))})
    cache = cache_directory()
    tree = cache / f"built-{version}-{hashlib.sha256(mark.encode()).hexdigest()[:12]}"
    with _locked(cache, version) as lock:
        unpacked = _unpacked(cache, version, lock)
        # The built bytecode holds absolute paths, so the tree is built in its place, and complete when its mark says so:
        # a build that was cut short, or a cache that was moved, is built again.
        mark = json.dumps({"tree": str(tree), **json.loads(mark)})
        with contextlib.suppress(OSError):
            if (tree / _BUILT).read_text(encoding="utf-8") == mark:
                return tree
        shutil.rmtree(tree, ignore_errors=True)
        for part in ("bin", "conf", "lib/quarkus"):
            shutil.copytree(unpacked / part, tree / part)
        shutil.copy(unpacked / "lib" / "quarkus-run.jar", tree / "lib")
        (tree / "providers").mkdir()
        for part in ("lib/lib", "lib/app", "themes"):
            (tree / part).symlink_to(unpacked / part)
        _run(
            [str(tree / "bin" / "kc.sh"), "build"], lock=lock, environment={**options, "JAVA_OPTS": _BUILD_JAVA_OPTIONS}
        )
        (tree / _BUILT).write_text(mark, encoding="utf-8")
    return tree


def libraries(version: str) -> Path:
    """Return the directory with the server's jars, which is only read."""
    cache = cache_directory()
    with _locked(cache, version) as lock:
        return _unpacked(cache, version, lock) / "lib"


def _unpacked(cache: Path, version: str, lock: int) -> Path:
    final = cache / f"keycloak-{version}"
    for left in cache.glob(f"fetching-{version}-*"):  # by a run that was killed: we hold the lock, nobody is at it
        shutil.rmtree(left, ignore_errors=True)
    if final.is_dir():
        return final
    # Named only once it is whole: the rename is atomic, and what a killed run leaves behind is never mistaken for it.
    with tempfile.TemporaryDirectory(prefix=f"fetching-{version}-", dir=cache) as scratch:
        artifact = f"org.keycloak:keycloak-quarkus-dist:{version}:tar.gz"
        _run(
            ["mvn", "-q", "-B", _MAVEN_COPY, f"-Dartifact={artifact}", f"-DoutputDirectory={scratch}"],
            lock=lock,
        )
        with tarfile.open(Path(scratch, f"keycloak-quarkus-dist-{version}.tar.gz")) as archive:
            archive.extractall(scratch, filter="data")
        Path(scratch, final.name).rename(final)
    return final


@contextlib.contextmanager
def _locked(cache: Path, version: str) -> Iterator[int]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system drops it with the last process that has it, however that ends
        yield lock.fileno()


def _run(command: list[str], *, lock: int, environment: Mapping[str, str] | None = None) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KC_")}
    done = subprocess.run(
        command,
        env={**inherited, **(environment or {})},
        pass_fds=[lock],  # should we be killed, the lock stays with what is still writing
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=900,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")
