"""What the issuer keeps and shows is bounded, and what it writes is its owner's."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from example_app.realm import REALMS, Realm
from s2s_fastapi.testing import EmbeddedIssuer, Request, faults


def test_the_record_keeps_no_more_than_sixteen_megabytes() -> None:
    issuer = EmbeddedIssuer.read(REALMS["corp"])
    body = b"x" * 1024 * 1024
    for _ in range(40):
        issuer.answer(Request("POST", "/nowhere", (), body))

    kept = issuer.requests()
    assert sum(len(exchange.request.body) + len(exchange.response.body) for exchange in kept) <= 16 * 1024 * 1024
    assert len(kept) >= 14


@pytest.mark.parametrize("value", ["", None])
def test_a_user_without_a_password_opens_nothing(value: str | None) -> None:
    document = {
        "realm": "r",
        "enabled": True,
        "clients": [{"clientId": "ui", "publicClient": True, "directAccessGrantsEnabled": True}],
        "users": [{"username": "dora", "enabled": True, "credentials": [{"type": "password", "value": value}]}],
    }
    issuer = EmbeddedIssuer(document)
    with issuer.serving():
        realm = Realm("r", issuer.url, issuer.public_url, "", {})
        form = {"grant_type": "password", "client_id": "ui", "username": "dora"}
        answers = [realm.ask(**form), realm.ask(**form, password=""), realm.ask(**form, password="None")]

    assert all(answer.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.UNAUTHORIZED) for answer in answers)


def test_a_faults_body_is_in_no_repr() -> None:
    assert "SECRET" not in repr(faults.answering(200, '{"access_token": "SECRET"}'))


def test_an_env_file_that_was_there_becomes_its_owners_and_a_link_is_not_followed(tmp_path: Path) -> None:
    there, elsewhere, link = tmp_path / "there.env", tmp_path / "elsewhere", tmp_path / "link.env"
    there.write_text("X=1\n")
    there.chmod(0o644)
    link.symlink_to(elsewhere)
    script = "import sys; from pathlib import Path; from s2s_fastapi.cli import _add_to; _add_to(Path(sys.argv[1]), {'A': 'b'})"

    subprocess.run([sys.executable, "-c", script, str(there)], check=True)
    refused = subprocess.run([sys.executable, "-c", script, str(link)], check=False, capture_output=True)

    assert there.stat().st_mode & 0o077 == 0
    assert there.read_text() == "X=1\nA=b\n"
    assert refused.returncode != 0
    assert not elsewhere.exists()


@pytest.mark.skipif(os.chmod not in os.supports_fd, reason="a mode is set by name only")
def test_the_mode_is_set_on_the_env_file_that_was_opened_whatever_has_its_name_by_then(tmp_path: Path) -> None:
    file, another = tmp_path / "own.env", tmp_path / "another"
    another.write_text("another's")
    another.chmod(0o644)
    script = """
import os, sys
from pathlib import Path
from s2s_fastapi.cli import _add_to

file, another = map(Path, sys.argv[1:])

def swap(event, arguments):
    if event == "os.chmod" and not file.is_symlink():
        file.rename(file.with_suffix(".opened"))
        file.symlink_to(another)

sys.addaudithook(swap)
_add_to(file, {"A": "b"})
"""
    subprocess.run([sys.executable, "-c", script, str(file), str(another)], check=True)

    assert file.is_symlink()
    assert another.stat().st_mode & 0o777 == 0o644
    assert another.read_text() == "another's"
    assert (tmp_path / "own.opened").stat().st_mode & 0o777 == 0o600
