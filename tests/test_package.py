"""The package as a whole: what it exports, and what importing it does not do."""

import subprocess
import sys

import s2s_fastapi


def test_every_public_name_is_exported_in_order() -> None:
    assert s2s_fastapi.__all__ == sorted(
        s2s_fastapi.__all__, key=lambda name: (name.upper() != name, name[0].islower(), name)
    )
    assert all(hasattr(s2s_fastapi, name) for name in s2s_fastapi.__all__)


def test_importing_reads_no_environment_starts_no_thread_and_loads_no_cryptography() -> None:
    script = """
import sys, threading
import fastapi, httpx, pydantic_settings
before = threading.active_count()
import s2s_fastapi
assert threading.active_count() == before
late = {"joserfc", "cryptography", "authlib", "httpx2"} & set(sys.modules)
assert not late, late
"""
    bad_values = {"KEYCLOAK_URL": "nonsense", "KEYCLOAK_LEEWAY": "-1"}
    done = subprocess.run([sys.executable, "-c", script], env=bad_values, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
