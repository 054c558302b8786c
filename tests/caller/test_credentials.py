"""How this service proves who it is."""

import copy
import os
from base64 import b64decode
from pathlib import Path
from urllib.parse import unquote_plus

import pytest

from s2s_fastapi.caller.credentials import ClientSecretBasic, ClientSecretPost, client_authentication
from s2s_fastapi.errors import ConfigurationError
from tests.caller.fakes import SECRET, settings

AWKWARD = ["100%", "a+b", "a:b", "a b", "é", "секрет", "a&b=c", "100%25", "~-._", 'half "quoted"']


@pytest.mark.parametrize("secret", AWKWARD)
def test_basic_arrives_as_it_was_written_when_decoded_as_rfc_6749_says(secret: str) -> None:
    proof = client_authentication(settings(client_id="chat:app", client_secret=secret)).prove()

    scheme, _, encoded = proof.headers["Authorization"].partition(" ")
    client_id, _, password = b64decode(encoded).decode("ascii").partition(":")

    assert (scheme, unquote_plus(client_id), unquote_plus(password)) == ("Basic", "chat:app", secret)
    assert proof.form == {}


def test_bytes_of_the_environment_that_are_not_utf_8_reach_keycloak_unchanged() -> None:
    secret = b"\xff\xfe".decode("utf-8", "surrogateescape")
    proof = ClientSecretBasic(client_id="a", secret=Path("x"), read=lambda: secret).prove()

    assert b64decode(proof.headers["Authorization"][6:]) == b"a:%FF%FE"


@pytest.mark.parametrize("secret", AWKWARD)
def test_post_sends_id_and_secret_as_form_fields(secret: str) -> None:
    proof = client_authentication(settings(client_secret=secret, client_auth="client_secret_post")).prove()

    assert proof.form == {"client_id": "chat-app-service", "client_secret": secret}
    assert proof.headers == {}


def test_the_file_is_read_anew_for_each_proof(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("first\n")
    authentication = client_authentication(settings(client_secret=None, client_secret_file=file))

    first = authentication.prove()
    file.write_text("second\n")

    assert (first.material, authentication.prove().material) == ("first", "second")


def test_the_stamp_changes_with_the_file_and_not_without(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("first")
    authentication = client_authentication(settings(client_secret=None, client_secret_file=file))
    before = authentication.stamp()

    assert authentication.stamp() == before

    file.write_text("another")

    assert authentication.stamp() != before
    file.unlink()
    assert authentication.stamp() is None


def test_a_missing_file_is_a_configuration_error_that_names_it(tmp_path: Path) -> None:
    authentication = client_authentication(settings(client_secret=None, client_secret_file=tmp_path / "nowhere"))

    with pytest.raises(ConfigurationError, match=r"KEYCLOAK_CLIENT_SECRET_FILE: .*nowhere"):
        authentication.prove()


@pytest.mark.parametrize(
    ("changes", "variable"),
    [
        ({"client_id": None, "client_secret": None}, "KEYCLOAK_CLIENT_ID"),
        ({"client_secret": None}, "KEYCLOAK_CLIENT_SECRET"),
    ],
)
def test_what_is_missing_is_named(changes: dict[str, None], variable: str) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        client_authentication(settings(**changes))


def test_equal_values_prove_the_same_and_nothing_else_is_equal(tmp_path: Path) -> None:
    one = client_authentication(settings())

    assert one == client_authentication(settings(leeway=1.0))
    assert hash(one) == hash(client_authentication(settings()))
    others = [
        client_authentication(settings(client_secret="another")),
        client_authentication(settings(client_id="another")),
        client_authentication(settings(client_auth="client_secret_post")),
        client_authentication(settings(client_secret=None, client_secret_file=tmp_path / SECRET)),
        client_authentication(settings(client_secret=None, client_secret_file=Path(SECRET))),
    ]
    assert len({one, *others}) == 6


def test_a_secret_that_is_rewritten_in_place_with_its_size_and_time_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("one")
    authentication = client_authentication(settings(client_secret=None, client_secret_file=file))
    before, seen = authentication.stamp(), file.stat()
    while file.stat().st_ctime_ns == seen.st_ctime_ns:  # the clock of a file system has steps
        file.write_text("two")
        os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))

    assert authentication.stamp() != before


@pytest.mark.parametrize("kind", [ClientSecretBasic, ClientSecretPost])
def test_the_secret_is_in_no_repr(kind: type[ClientSecretBasic]) -> None:
    authentication = kind(client_id="a", secret=Path("file"), read=lambda: SECRET)
    proof = authentication.prove()

    assert SECRET not in f"{authentication!r} {authentication} {proof!r} {proof} {copy.copy(proof)!r}"


@pytest.mark.parametrize(
    "text", [SECRET, f"bad secret {SECRET}!", "x c2VjcmV0OiUyNQ== x", "the secret %25", "the secret %"]
)
def test_an_echo_of_the_secret_is_recognised(text: str) -> None:
    secret = "%" if "%" in text or "c2V" in text else SECRET
    proof = client_authentication(settings(client_id="secret", client_secret=secret)).prove()

    assert proof.echoed_in(text)
    assert not proof.echoed_in("Invalid client or Invalid client credentials")
