"""Realm files are read as Keycloak imports them."""

import json
from pathlib import Path

import pytest

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.testing import EmbeddedIssuer, read_documents
from tests.testing.asking import SECRET, client, document


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_placeholders_are_filled_from_what_is_given_or_their_default_or_generated(tmp_path: Path) -> None:
    text = '{"realm": "corp", "a": "${GIVEN}", "b": "${EMPTY:x y}", "c": "${NEW}", "d": "${NEW}", "life": ${LIFE:300}}'
    found = read_documents([write(tmp_path / "r.json", text)], {"GIVEN": 'quo"te\\', "EMPTY": "", "OTHER": "unused"})
    (realm,) = found.realms
    assert (realm["a"], realm["b"], realm["life"]) == ('quo"te\\', "x y", 300)
    assert realm["c"] == realm["d"] == found.values["NEW"]
    assert len(realm["c"]) >= 32
    assert found.generated == {"NEW"}
    assert set(found.values) == {"GIVEN", "EMPTY", "NEW", "LIFE"}
    assert found.values["NEW"] not in repr(found)


def test_a_name_has_one_value_in_all_files_and_another_one_next_time(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.json", {"realm": name, "secret": "${SHARED}"}) for name in ("a", "b")]
    first, second = read_documents(paths, {}), read_documents(paths, {})
    assert first.realms[0]["secret"] == first.realms[1]["secret"] != second.realms[0]["secret"]


def test_what_is_keycloaks_own_stays(tmp_path: Path) -> None:
    texts = ["resource_access.${client_id}.roles", "${role_default-roles}", "$5", "${}"]
    path = write(tmp_path / "r.json", {"realm": "corp", "texts": texts})
    assert read_documents([path], {"client_id": "never"}).realms[0]["texts"] == texts


def test_a_file_may_hold_several_realms(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", [{"realm": "a"}, {"realm": "b"}])
    assert [realm["realm"] for realm in read_documents([path], {}).realms] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"realm": "corp", "secret": "hunter2",}', "is not JSON: .* line 1"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "is no realm"),
        ('{"id": "corp"}', "is no realm"),
        ('{"realm": ""}', "is no realm"),
        ('"corp"', "is no realm"),
    ],
)
def test_a_file_that_is_no_realm_is_named_in_one_sentence_without_its_content(
    tmp_path: Path, content: str, sentence: str
) -> None:
    path = write(tmp_path / "r.json", content)
    with pytest.raises(ConfigurationError, match=rf"r\.json {sentence}") as refused:
        read_documents([path], {})
    assert refused.value.__context__ is None
    assert "hunter2" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.json cannot be read: no such file"):
        read_documents([tmp_path / "none.json"], {})
    (tmp_path / "latin.json").write_bytes(b'{"realm": "\xe9"}')
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_documents([tmp_path / "latin.json"], {})


@pytest.mark.parametrize("secret", [None, "", "**********"])
def test_a_confidential_client_without_a_secret_gets_one(secret: str | None) -> None:
    issuer = EmbeddedIssuer(document(clients=[client("caller", secret=secret), client("other")]))
    made = issuer.secrets("corp")["caller"]
    assert len(made) >= 32
    assert issuer.secrets("corp")["other"] == SECRET
    assert issuer.environment("corp", "caller")["KEYCLOAK_CLIENT_SECRET"] == made


def test_a_public_client_has_none() -> None:
    assert "ui" not in EmbeddedIssuer(document()).secrets("corp")


def test_an_environment_has_what_the_settings_need() -> None:
    plain = EmbeddedIssuer(document()).environment("corp", "caller")
    assert plain == {
        "KEYCLOAK_URL": "http://keycloak.test",
        "KEYCLOAK_REALM": "corp",
        "KEYCLOAK_CLIENT_ID": "caller",
        "KEYCLOAK_CLIENT_SECRET": SECRET,
    }
    apart = EmbeddedIssuer(document(), public_url="https://sso.example", auth_path="/auth/")
    more = apart.environment("corp", "caller").items() - plain.items()
    assert dict(more) == {"KEYCLOAK_PUBLIC_URL": "https://sso.example", "KEYCLOAK_AUTH_PATH": "/auth"}


def test_secrets_are_in_no_repr() -> None:
    issuer = EmbeddedIssuer(document(), values={"CALLER_SECRET": SECRET})
    assert SECRET not in repr([issuer, issuer.requests, issuer.faults])
