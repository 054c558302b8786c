"""The settings in the environment, loaded at their first use."""

import os
import subprocess
import sys

import pytest

from s2s_fastapi.environment import settings_or_environment
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.settings import KeycloakSettings


def test_settings_that_code_passes_are_taken_as_they_are() -> None:
    given = KeycloakSettings(url="http://keycloak:8080", realm="corp")
    assert settings_or_environment(given) is given


def test_none_means_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KEYCLOAK_")]:
        monkeypatch.delenv(name)
    with pytest.raises(ConfigurationError, match="Set KEYCLOAK_URL and KEYCLOAK_REALM"):
        settings_or_environment(None)
    monkeypatch.setenv("KEYCLOAK_ISSUER", "http://keycloak:8080/realms/corp")
    assert settings_or_environment(None).url == "http://keycloak:8080"


SLOW_IMPORT = """
import logging  # its own hooks must not come while the fork waits
import os, signal, sys, threading, time
from s2s_fastapi.environment import settings_or_environment

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "pydantic_settings":
            begun.set()
            time.sleep(0.3)

begun = threading.Event()
sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=settings_or_environment, args=(None,))
thread.start()
begun.wait()
if (child := os.fork()) == 0:
    signal.alarm(60)  # half a module would keep its lock for ever
    os._exit(0 if settings_or_environment(None).realm == "corp" else 1)
thread.join()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_waits_while_another_thread_loads_them() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", SLOW_IMPORT],
        env=os.environ | {"KEYCLOAK_ISSUER": "http://keycloak:8080/realms/corp"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
