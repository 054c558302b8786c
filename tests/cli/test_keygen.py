"""The command ``s2s-fastapi keygen``: a key nobody else may read, and the client as Keycloak takes it."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from s2s_fastapi.caller.client_key import ClientKey
from s2s_fastapi.cli.commands import command_line


def keygen(*arguments: object) -> Any:
    return CliRunner().invoke(command_line(), ["keygen", *map(str, arguments)])


def printed(*arguments: object) -> dict[str, Any]:
    done = keygen("--client-id", "chat", *arguments)
    assert done.exit_code == 0, done.output
    client: dict[str, Any] = json.loads(done.stdout)
    return client


def keys_of(client: dict[str, Any]) -> list[dict[str, Any]]:
    keys: list[dict[str, Any]] = json.loads(client["attributes"]["jwks.string"])["keys"]
    return keys


@pytest.mark.parametrize(("kty", "algorithm"), [("EC", "ES256"), ("RSA", "RS256"), ("OKP", "EdDSA")])
def test_a_key_is_written_for_its_owner_alone_and_its_public_half_printed(
    tmp_path: Path, kty: str, algorithm: str
) -> None:
    file = tmp_path / "key.pem"
    client = printed("--kty", kty, "--out", file)
    key = ClientKey.read(file)

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (client["clientId"], client["clientAuthenticatorType"], client["publicClient"]) == (
        "chat",
        "client-jwt",
        False,
    )
    assert client["serviceAccountsEnabled"] is True
    assert client["attributes"]["token.endpoint.auth.signing.alg"] == algorithm
    assert keys_of(client) == [key.public_jwk()]
    private = {"d", "p", "q", "dp", "dq", "qi", "k"}
    assert not private & keys_of(client)[0].keys()


def test_the_default_is_a_key_on_a_curve(tmp_path: Path) -> None:
    assert keys_of(printed("--out", tmp_path / "key.pem"))[0]["crv"] == "P-256"


def test_a_file_is_never_overwritten_nor_written_through_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "key.pem", tmp_path / "link.pem"
    file.write_text("precious")
    link.symlink_to(tmp_path / "elsewhere.pem")

    for taken in (file, link):
        done = keygen("--client-id", "chat", "--out", taken)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "exists, and a key is never overwritten" in done.stderr
        assert "print the client for the existing key with --key" in done.stderr
    assert file.read_text() == "precious"
    assert not (tmp_path / "elsewhere.pem").exists()


def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        printed("--out", tmp_path / "key.pem")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


def test_a_new_key_and_one_that_exists_are_printed_together(tmp_path: Path) -> None:
    old, new = tmp_path / "old.pem", tmp_path / "new.pem"
    first = printed("--kty", "RSA", "--out", old)
    both = printed("--out", new, "--key", old)

    assert [key["kid"] for key in keys_of(both)] == [ClientKey.read(new).kid, ClientKey.read(old).kid]
    assert keys_of(first) == keys_of(both)[1:]
    assert both["attributes"]["token.endpoint.auth.signing.alg"] == ""  # of two kinds: any
    assert keys_of(printed("--key", new)) == keys_of(both)[:1]


def test_the_variables_to_start_with_are_printed_beside_the_json(tmp_path: Path) -> None:
    done = keygen("--client-id", "chat app", "--out", tmp_path / "a key.pem")

    assert "export KEYCLOAK_CLIENT_ID='chat app'\nexport KEYCLOAK_CLIENT_AUTH=private_key_jwt\n" in done.stderr
    assert f"export KEYCLOAK_CLIENT_KEY_FILE='{tmp_path / 'a key.pem'}'\n" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Write --out FILE for a new key, or --key FILE for an existing key."),
        (("--out", "{folder}/none/key.pem"), "cannot be written: no such file or directory"),
        (("--key", "{folder}/none.pem"), "none.pem cannot be read"),
        (("--key", "{folder}/text"), "holds neither a private key in PEM nor a JWK"),
        (("--out", "{folder}/new.pem", "--key", "{folder}/none.pem"), "none.pem cannot be read"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_leaves_no_key_behind(
    tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "text").write_text("hello")

    done = keygen("--client-id", "chat", *(one.format(folder=tmp_path) for one in arguments))

    assert (done.exit_code, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["text"]


def test_a_client_without_a_name_is_refused(tmp_path: Path) -> None:
    assert keygen("--client-id", " ", "--out", tmp_path / "key.pem").exit_code == 2
    assert list(tmp_path.iterdir()) == []


_SMALL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
from s2s_fastapi.cli import main
sys.argv = ["s2s-fastapi", "keygen", "--client-id", "chat", "--out", "key.pem"]
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit for the size of a file")
def test_half_a_key_is_not_left_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-c", _SMALL], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (2, "key.pem cannot be written: file too large.\n")
    assert list(tmp_path.iterdir()) == []
