"""The command ``s2s-fastapi dev``, as a process."""

import json
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from example_app.realm import REALMS
from s2s_fastapi import KeycloakSettings, ServiceTokenAuth
from s2s_fastapi.cli.commands import command_line
from tests.cli.command import dev, run
from tests.realm.secretless import document as secretless
from tests.realm.secretless import providing
from tests.testing.asking import client, document


def grants(variables: dict[str, str]) -> httpx.Response:
    server = variables["KEYCLOAK_URL"] + variables.get("KEYCLOAK_AUTH_PATH", "")
    form = {
        "grant_type": "client_credentials",
        "client_id": variables["KEYCLOAK_CLIENT_ID"],
        "client_secret": variables["KEYCLOAK_CLIENT_SECRET"],
    }
    url = f"{server}/realms/{variables['KEYCLOAK_REALM']}/protocol/openid-connect/token"
    return httpx.post(url, data=form, trust_env=False, timeout=20)


def test_the_realms_of_the_stories_are_served_with_what_is_printed_until_ctrl_c(tmp_path: Path) -> None:
    kept = tmp_path / "values.env"
    kept.write_text("ALICE_SECRET=from-the-file\nBOB_SECRET=from-the-file")
    given = {"BILLING_SECRET": "from the environment", "BOB_SECRET": "environment-wins", "DORA_PASSWORD": ""}
    with dev(REALMS["corp"], REALMS["abc"], "--auth-path", "/auth", "--env-file", kept, clients=9, **given) as running:
        assert running.exports["corp: billing"]["KEYCLOAK_CLIENT_SECRET"] == "'from the environment'"
        assert running.exports["abc: alice"]["KEYCLOAK_CLIENT_SECRET"] == "from-the-file"
        assert running.exports["abc: bob"]["KEYCLOAK_CLIENT_SECRET"] == "environment-wins"
        chat = running.exports["corp: chat-app-service"]
        assert set(chat) == {
            "KEYCLOAK_URL",
            "KEYCLOAK_AUTH_PATH",
            "KEYCLOAK_REALM",
            "KEYCLOAK_CLIENT_ID",
            "KEYCLOAK_CLIENT_SECRET",
        }
        assert chat["KEYCLOAK_URL"].startswith("http://127.0.0.1:")
        assert grants(chat).status_code == 200
        assert grants(running.exports["abc: alice"]).status_code == 200
        code, errors = running.stop()
    assert code == 0
    assert "EMBEDDED ISSUER, FOR DEVELOPMENT ONLY" in errors
    assert "corp: token for chat-app-service: audience " in errors
    assert "Traceback" not in errors
    lines = dict(line.split("=") for line in kept.read_text().splitlines())
    assert lines["ALICE_SECRET"] == "from-the-file"
    assert lines["CHAT_APP_SERVICE_SECRET"] == chat["KEYCLOAK_CLIENT_SECRET"]
    assert len(lines["DORA_PASSWORD"]) >= 32
    assert "BILLING_SECRET" not in lines
    assert chat["KEYCLOAK_CLIENT_SECRET"] not in errors


def test_a_realm_with_an_identity_provider_is_served_and_its_services_are_shown_without_a_secret(
    tmp_path: Path,
) -> None:
    with providing() as provider:
        made = secretless(provider.url)
        kept = ("api", "chat")
        made["clients"] = [each for each in made["clients"] if each["clientId"] in kept]
        made["identityProviders"] = [each for each in made["identityProviders"] if each["alias"] == "k8s"]
        file = tmp_path / "realm.json"
        file.write_text(json.dumps(made))
        with dev(file, clients=2) as running:
            chat = running.exports["secretless: chat"]
            assert chat["KEYCLOAK_CLIENT_AUTH"] == "federated_jwt"
            held = Path(chat["KEYCLOAK_CLIENT_ASSERTION_FILE"])
            assert held.stat().st_mode & 0o077 == 0
            assert "KEYCLOAK_CLIENT_SECRET" not in chat
            issuer = f"{chat['KEYCLOAK_URL']}/realms/secretless"
            kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            form = {"grant_type": "client_credentials", "client_assertion_type": kind}
            for audience, status in ((issuer, 200), ("https://kubernetes.default.svc", 400)):
                token = provider.token(aud=audience)
                url = f"{issuer}/protocol/openid-connect/token"
                answer = httpx.post(url, data={**form, "client_assertion": token}, trust_env=False, timeout=20)
                assert answer.status_code == status
            settings = KeycloakSettings(
                url=chat["KEYCLOAK_URL"],
                realm="secretless",
                client_id="chat",
                client_auth="federated_jwt",
                client_assertion_file=held,
            )
            with httpx.Client(
                auth=ServiceTokenAuth(chat["KEYCLOAK_URL"], audience="api", settings=settings), trust_env=False
            ) as caller:
                assert caller.get(f"{chat['KEYCLOAK_URL']}/realms/secretless").status_code == 200
            assert running.stop()[0] == 0
    assert not held.exists()


def test_a_client_that_needs_a_certificate_gets_no_variables_that_the_settings_refuse(tmp_path: Path) -> None:
    file = tmp_path / "realm.json"
    by_name = {"clientAuthenticatorType": "client-x509", "attributes": {"x509.subjectdn": "CN=x"}}
    file.write_text(json.dumps(document(clients=[client("caller", secret="s"), client("x509", **by_name)])))
    with dev(file, clients=2) as running:
        assert [name for name, variables in running.exports.items() if variables] == ["corp: caller"]
        assert "it needs a client certificate" in running.text
        assert "tls_client_auth" not in running.text


def test_an_env_file_is_made_for_its_owner_only_and_keeps_the_secrets(tmp_path: Path) -> None:
    realm = tmp_path / "realm.json"
    realm.write_text(json.dumps(document(clients=[client("caller", secret="${CALLER_SECRET}")])))
    made = tmp_path / "new.env"
    secrets = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with dev(realm, "--env-file", made, clients=1) as running:
            secrets.append(running.exports["corp: caller"]["KEYCLOAK_CLIENT_SECRET"])
            assert running.stop(number)[0] == 0
    assert secrets[0] == secrets[1]
    assert made.stat().st_mode & 0o077 == 0
    assert made.read_text() == f"CALLER_SECRET={secrets[0]}\n"


def test_what_is_printed_is_a_shell_script_whatever_the_secrets_are(tmp_path: Path) -> None:
    odd = "it's :key: [bold]$HOME[/bold] \\" + "x" * 200
    realm = tmp_path / "realm.json"
    clients = [client("evil\ntouch pwned", secret="harmless"), client("caller", secret=odd)]
    realm.write_text(json.dumps(document(clients=clients)))
    with dev(realm, clients=2) as running:
        script = f'{running.text}\nprintf %s "$KEYCLOAK_CLIENT_SECRET"'
        done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == odd
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("content", "arguments", "sentence"),
    [
        (None, (), "realm.json cannot be read: no such file or directory."),
        ("{", (), "realm.json is not JSON: expecting property name enclosed in double quotes at line 1."),
        ("[]", (), "An embedded issuer needs realm documents, each with a name of its own."),
        ("{}", (), 'realm.json is no realm: Keycloak\'s realm files are objects with a "realm" name.'),
        ('{"realm": "corp"}', ("--auth-path", "auth"), "start with a slash, as /auth, not 'auth'."),
        ('{"realm": "corp"}', ("--env-file", "."), ". cannot be read: is a directory."),
        ('{"realm": "corp", "a": "${A}"}', ("--env-file", "nowhere/x"), "nowhere/x cannot be written: no such file"),
    ],
)
def test_what_is_broken_is_one_sentence_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, arguments: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("realm.json").write_text(content)
    done = CliRunner().invoke(command_line(), ["dev", "realm.json", "--port", "0", *arguments])
    assert (done.exit_code, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_one_sentence_and_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("dev", REALMS["corp"], "--port", str(port))
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == f"The issuer cannot listen on 127.0.0.1:{port}: address already in use. --port takes another port.\n"
    )


def test_what_keycloak_would_refuse_or_do_otherwise_is_printed_and_strict_does_not_start(tmp_path: Path) -> None:
    realm = tmp_path / "realm.json"
    content = document(clients=[client("caller", secret="hunter2")], sslRequired="all", foo=1)
    realm.write_text(json.dumps(content))
    refused = "realm corp: Keycloak does not import this file: it does not know the field `foo`."
    differs = "realm corp: Keycloak may answer in another way: `sslRequired` is all"
    with dev(realm, clients=1) as running:
        errors = running.stop()[1]
    assert refused in errors
    assert differs in errors
    assert "hunter2" not in errors
    strict = run("dev", realm, "--port", "0", "--strict")
    assert (strict.returncode, strict.stdout) == (2, "")
    assert [
        line[: len(expected)] for line, expected in zip(strict.stderr.splitlines(), (refused, differs), strict=True)
    ] == [
        refused,
        differs,
    ]


def test_of_many_notices_the_first_are_printed_with_the_number_of_the_others(tmp_path: Path) -> None:
    realm = tmp_path / "realm.json"
    realm.write_text(json.dumps(document(clients=[client("caller")]) | {f"foo{n}": n for n in range(12)}))
    with dev(realm, clients=1) as running:
        errors = running.stop()[1]
    assert errors.count("it does not know the field") == 10
    assert "There are 2 more such notices. Start with --strict to see all." in errors


def test_a_realm_that_is_right_starts_strictly_without_a_notice(tmp_path: Path) -> None:
    realm = tmp_path / "realm.json"
    realm.write_text(json.dumps(document(clients=[client("caller")])))
    with dev(realm, "--strict", clients=1) as running:
        assert "realm corp" not in running.stop()[1]


def test_a_realm_file_that_changes_is_read_again_and_keys_and_secrets_stay(tmp_path: Path) -> None:
    realm = tmp_path / "realm.json"
    made = client("made", secret=None)
    realm.write_text(json.dumps(document(clients=[client("caller", secret="${CALLER_SECRET}"), made])))
    with dev(realm, clients=2) as running:
        before = running.exports["corp: caller"]
        certs = f"{before['KEYCLOAK_URL']}/realms/corp/protocol/openid-connect/certs"
        keys = httpx.get(certs, trust_env=False).json()
        realm.write_text('{"realm": ')
        assert "The realms stay as they were." in running.until("The realms stay")
        assert grants(before).status_code == 200
        clients = [client("caller", secret="${CALLER_SECRET}"), made, client("added", secret="new")]
        realm.write_text(json.dumps(document(clients=clients, foo=1)))
        assert "The realm files were read again." in running.until("it does not know the field `foo`")
        assert grants({**before, "KEYCLOAK_CLIENT_ID": "added", "KEYCLOAK_CLIENT_SECRET": "new"}).status_code == 200
        assert grants(before).status_code == grants(running.exports["corp: made"]).status_code == 200
        assert httpx.get(certs, trust_env=False).json() == keys
        assert running.process.poll() is None
