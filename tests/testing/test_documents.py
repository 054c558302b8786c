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


def test_a_placeholder_has_its_value_or_its_default_or_a_generated_value(tmp_path: Path) -> None:
    text = '{"realm": "corp", "a": "${GIVEN}", "b": "${UNSET:x y}", "c": "${NEW}", "d": "${NEW}", "life": ${LIFE:300}}'
    found = read_documents([write(tmp_path / "r.json", text)], {"GIVEN": 'quo"te\\', "NEW": "", "OTHER": "unused"})
    (realm,) = found.realms
    assert (realm["a"], realm["b"], realm["life"]) == ('quo"te\\', "x y", 300)
    assert realm["c"] == realm["d"] == found.values["NEW"]
    assert len(realm["c"]) >= 32
    assert found.generated == {"NEW"}
    assert set(found.values) == {"GIVEN", "UNSET", "NEW", "LIFE"}
    assert found.values["NEW"] not in repr(found)


PLACEHOLDERS = {
    "pre-${SET}-post": "pre-value-post",
    "${SET}${SET}": "valuevalue",
    "${SET:dflt}": "value",
    "${UNSET:dflt}": "dflt",
    "${UNSET:a:b}": "a:b",
    "${UNSET:}": "",
    "${EMPTY:dflt}": "",
    "${lower}": "small",
    "${lower_unset}": "${lower_unset}",
    "${lower_unset:dflt}": "dflt",
    "${_UNDER}": "under",
    "${_UNDER_UNSET}": "${_UNDER_UNSET}",
    "${UNSET,SET}": "value",
    "${SET,lower}": "value",
    "${UNSET,UNSET_TOO:dflt}": "dflt",
    "$${SET}": "$${SET}",
    "$(env:SET)": "$(env:SET)",
    "${PH-DASH}": "${PH-DASH}",
    "${env.SET}": "${env.SET}",
}
ENVIRONMENT = {"SET": "value", "EMPTY": "", "lower": "small", "_UNDER": "under", "PH-DASH": "never"}


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_a_placeholder_is_replaced_as_keycloak_replaces_it(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "r.json", {"realm": "corp", "text": text})
    assert read_documents([path], ENVIRONMENT).realms[0]["text"] == PLACEHOLDERS[text]


def test_a_default_counts_also_after_the_same_name_without_one(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", {"realm": "corp", "texts": ["${X}", "${X:dflt}", "${X}"]})
    found = read_documents([path], {})
    made, default, again = found.realms[0]["texts"]
    assert default == "dflt"
    assert made == again == found.values["X"] != "dflt"


def test_a_name_has_one_value_in_all_files_and_another_one_next_time(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.json", {"realm": name, "secret": "${SHARED}"}) for name in ("a", "b")]
    first, second = read_documents(paths, {}), read_documents(paths, {})
    assert first.realms[0]["secret"] == first.realms[1]["secret"] != second.realms[0]["secret"]


def test_what_is_keycloaks_own_stays(tmp_path: Path) -> None:
    texts = ["resource_access.${client_id}.roles", "${role_default-roles}", "$5", "${}"]
    path = write(tmp_path / "r.json", {"realm": "corp", "texts": texts})
    assert read_documents([path], {"role_default-roles": "never"}).realms[0]["texts"] == texts


def test_a_file_may_hold_several_realms(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", [{"realm": "a"}, {"realm": "b"}])
    assert [realm["realm"] for realm in read_documents([path], {}).realms] == ["a", "b"]


REALM = {"realm": "corp", "enabled": True, "clients": [client("caller")]}
ACCOUNT = {"username": "service-account-caller", "enabled": True, "serviceAccountClientId": "caller"}


def test_users_may_be_in_files_of_their_own(tmp_path: Path) -> None:
    realm = write(tmp_path / "corp-realm.json", REALM)
    users = [
        write(tmp_path / f"corp-users-{n}.json", {"realm": "corp", "users": [{**ACCOUNT, "username": f"u{n}"}]})
        for n in (0, 1)
    ]
    for paths in ([realm, *users], [*users, realm], [tmp_path]):
        found = read_documents(paths, {})
        assert [user["username"] for user in found.realms[0]["users"]] == ["u0", "u1"]
        assert (len(found.realms), found.notices) == (1, ())


def test_users_that_were_not_read_are_named(tmp_path: Path) -> None:
    realm = write(tmp_path / "corp-realm.json", REALM)
    write(tmp_path / "other-users-0.json", {"realm": "other", "users": [ACCOUNT]})
    assert read_documents([realm], {}).notices == ()
    write(tmp_path / "corp-users-0.json", {"realm": "corp", "users": [ACCOUNT]})
    (notice,) = EmbeddedIssuer.read(realm).notices
    assert "realm corp: " in str(notice)
    assert "the export has its users in corp-users-0.json, which were not read" in str(notice)


def test_one_of_several_users_files_that_was_not_read_is_named(tmp_path: Path) -> None:
    realm = write(tmp_path / "corp-realm.json", REALM)
    first, _ = (
        write(tmp_path / f"corp-users-{n}.json", {"realm": "corp", "users": [{**ACCOUNT, "username": f"u{n}"}]})
        for n in (0, 1)
    )
    (notice,) = read_documents([realm, first], {}).notices
    assert "its users in corp-users-1.json, which" in notice.sentence


def test_brackets_in_the_name_of_a_file_are_no_pattern(tmp_path: Path) -> None:
    realm = write(tmp_path / "co[r]p-realm.json", REALM)
    write(tmp_path / "corp-users-0.json", {"realm": "corp", "users": [ACCOUNT]})
    assert read_documents([realm], {}).notices == ()
    write(tmp_path / "co[r]p-users-0.json", {"realm": "corp", "users": [ACCOUNT]})
    assert "co[r]p-users-0.json" in read_documents([realm], {}).notices[0].sentence


def test_the_export_of_a_server_that_has_no_users_names_the_files_they_may_be_in(tmp_path: Path) -> None:
    exported = write(tmp_path / "corp-realm.json", {**REALM, "keycloakVersion": "26.7.3"})
    assert "files such as corp-users-0.json" in str(read_documents([exported], {}).notices[0])
    complete = write(tmp_path / "corp-realm.json", {**REALM, "keycloakVersion": "26.7.3", "users": [ACCOUNT]})
    assert read_documents([complete], {}).notices == ()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("corp-users-0.json", "has only users of the realm corp. Name the realm's file too."),
        ("realm.yaml", "is YAML, and Keycloak imports JSON only."),
        ("realm.yml", "is YAML"),
        ("empty", "is a directory without a JSON file."),
    ],
)
def test_what_cannot_be_read_alone_is_one_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "empty").mkdir()
    if "." in name:
        write(tmp_path / name, {"realm": "corp", "users": [ACCOUNT]})
    with pytest.raises(ConfigurationError, match=sentence):
        read_documents([tmp_path / name], {})


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


def test_a_realm_that_is_in_two_files_is_named_with_both(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text('{"realm": "corp"}')

    with pytest.raises(ConfigurationError) as error:
        read_documents([tmp_path], {})

    assert str(error.value) == (
        f"The realm corp is in {tmp_path / 'a.json'} and in {tmp_path / 'b.json'}. Leave one of them out."
    )


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
