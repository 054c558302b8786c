"""The command ``s2s-fastapi dev``, as a process."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from dotenv import dotenv_values
from typer.testing import CliRunner

from example_app.realm import REALMS
from s2s_fastapi import KeycloakSettings, ServiceTokenAuth
from s2s_fastapi.cli.commands import command_line
from s2s_fastapi.cli.dev import Services, _Files, _reload
from s2s_fastapi.testing import EmbeddedIssuer
from tests.cli.command import dev, run, started
from tests.realm.realms import Representation
from tests.realm.secretless import document as secretless
from tests.realm.secretless import providing
from tests.testing.asking import client, document


def in_a_cluster(provider_url: str) -> Representation:
    """Return a realm in which chat proves itself by the token of a cluster."""
    made = secretless(provider_url)
    made["clients"] = [each for each in made["clients"] if each["clientId"] in ("api", "chat")]
    made["identityProviders"] = [each for each in made["identityProviders"] if each["alias"] == "k8s"]
    return made


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
    kept.write_text("ALICE_SECRET=from-the-file\nALICE_WITHOUT_ROLE_SECRET=from-the-file")
    given = {
        "BILLING_SECRET": "from the environment",
        "ALICE_WITHOUT_ROLE_SECRET": "environment-wins",
        "DORA_PASSWORD": "",
    }
    with dev(REALMS["corp"], REALMS["abc"], "--auth-path", "/auth", "--env-file", kept, clients=9, **given) as running:
        assert running.exports["corp: billing"]["KEYCLOAK_CLIENT_SECRET"] == "'from the environment'"
        assert running.exports["abc: alice"]["KEYCLOAK_CLIENT_SECRET"] == "from-the-file"
        assert running.exports["abc: alice-without-role"]["KEYCLOAK_CLIENT_SECRET"] == "environment-wins"
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
        made = in_a_cluster(provider.url)
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


def test_the_file_with_the_token_of_a_service_is_written_again(tmp_path: Path) -> None:
    with providing() as provider:
        made = in_a_cluster(provider.url)
        file = tmp_path / "realm.json"
        file.write_text(json.dumps(made))
        often = "from s2s_fastapi.cli import dev, main; dev._RENEWAL = 0; main()"
        with dev(file, clients=2, program=(sys.executable, "-c", often)) as running:
            held = Path(running.exports["secretless: chat"]["KEYCLOAK_CLIENT_ASSERTION_FILE"])
            for _ in range(2):
                before, until = held.stat().st_mtime_ns, time.monotonic() + 10
                while held.stat().st_mtime_ns == before:
                    assert time.monotonic() < until, "the file was not written again"
                    time.sleep(0.1)
            assert running.stop()[0] == 0


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


def test_the_example_needs_no_file_and_each_service_starts_with_the_file_that_is_written_for_it(tmp_path: Path) -> None:
    with started("--example", "corp", "--env-dir", tmp_path) as dev:
        assert dev.stderr is not None
        said = next(line for line in dev.stderr if "--env-file FILE" in line)
        assert "set -a; . FILE; set +a" in next(dev.stderr)
        files = {path.stem: path for path in tmp_path.glob("*.env")}
        chat = {name: str(value) for name, value in dotenv_values(files["chat-app-service"]).items()}
        answer = grants(chat)
        dev.send_signal(signal.SIGINT)
        printed, _ = dev.communicate(timeout=20)
    assert answer.status_code == 200
    assert set(files) == {"crm-api-gateway", "chat-app-service", "chat-app-unassigned", "billing"}
    assert all(str(file) in said for file in files.values())
    assert "KEYCLOAK_CLIENT_SECRET" not in dotenv_values(files["crm-api-gateway"])
    assert {file.stat().st_mode & 0o077 for file in files.values()} == {0}
    assert printed == ""


def test_the_file_of_a_service_without_a_secret_names_what_it_brings_and_none_is_written_that_settings_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with providing() as provider:
        made = in_a_cluster(provider.url)
        by_name = {"clientAuthenticatorType": "client-x509", "attributes": {"x509.subjectdn": "CN=x"}}
        signing = client("signing", clientAuthenticatorType="client-jwt")
        made["clients"] += [client("x509", **by_name), signing]
        issuer = EmbeddedIssuer(made)
        with issuer.serving(), Services(issuer, tmp_path) as services:
            services.show()
            told = capsys.readouterr().err
            services.show()
            again = capsys.readouterr().err
            settings = {path.stem: dotenv_values(path) for path in tmp_path.glob("*.env")}
            held = Path(str(settings["chat"]["KEYCLOAK_CLIENT_ASSERTION_FILE"]))
            assert held.stat().st_mode & 0o077 == 0
            assert held.read_text().count(".") == 2
    assert not held.exists()
    assert set(settings) == {"api", "chat", "signing"}
    assert settings["chat"]["KEYCLOAK_CLIENT_AUTH"] == "federated_jwt"
    assert "x509 of secretless gets no file: it needs a client certificate" in told
    assert f"{tmp_path / 'signing.env'} does not set KEYCLOAK_CLIENT_KEY_FILE: set it, too." in told
    assert again == ""


def test_a_service_is_printed_once_and_a_user_too(capsys: pytest.CaptureFixture[str]) -> None:
    user = {"username": "alice", "enabled": True, "credentials": [{"type": "password", "value": "alices"}]}
    issuer = EmbeddedIssuer(document(clients=[client("caller", secret="s")], users=[user]))
    with issuer.serving(), Services(issuer, None) as services:
        services.show()
        first = capsys.readouterr().out
        services.show()
    assert "export KEYCLOAK_CLIENT_ID=caller" in first
    assert "# corp: the user alice has the password alices" in first
    assert capsys.readouterr().out == ""


def test_a_client_whose_name_is_no_file_name_gets_no_file_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("../evil", "a/b", ".hidden", "Caller", "caller", "good.one")
    issuer = EmbeddedIssuer(document(clients=[client(name, secret="it's \\ #1") for name in names]))
    with issuer.serving(), Services(issuer, tmp_path) as services:
        services.show()
    assert {path.name for path in tmp_path.rglob("*")} == {"Caller.env", "good.one.env"}
    assert dotenv_values(tmp_path / "good.one.env")["KEYCLOAK_CLIENT_SECRET"] == "it's \\ #1"
    told = capsys.readouterr().err
    assert [name in told for name in names[:3]] == [True, True, True]
    assert told.count("its name cannot be the name of a file. Start without --env-dir to see its settings.") == 3
    assert (
        "caller of corp gets no file: on some systems, caller.env and Caller.env of another client are one file. Start without --env-dir"
        in told
    )
    assert told.count("gets no file") == 4


@pytest.mark.parametrize(("version", "variable"), [("26.4.0", "true"), ("26.3.9", None)])
def test_a_service_that_gets_bound_tokens_only_starts_with_a_key_of_its_own(
    tmp_path: Path, version: str, variable: str | None
) -> None:
    bound = client("bound", attributes={"dpop.bound.access.tokens": "true"})
    with Services(EmbeddedIssuer(document(clients=[bound, client("caller")]), version=version), tmp_path) as services:
        services.show()

    assert dotenv_values(tmp_path / "bound.env").get("KEYCLOAK_DPOP") == variable
    assert "KEYCLOAK_DPOP" not in dotenv_values(tmp_path / "caller.env")


FLOWS = ("standardFlowEnabled", "implicitFlowEnabled", "directAccessGrantsEnabled", "serviceAccountsEnabled")


@pytest.mark.parametrize(
    "on",
    [
        *({name: True} for name in FLOWS),
        {"attributes": {"standard.token.exchange.enabled": "true"}},
        {"attributes": {"oauth2.device.authorization.grant.enabled": "true"}},
        {},
    ],
    ids=str,
)
def test_a_service_gets_the_secret_of_its_client_unless_every_flow_is_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], on: dict[str, object]
) -> None:
    issuer = EmbeddedIssuer(document(clients=[client("crm", **(dict.fromkeys(FLOWS, False) | on))]))
    for folder in (None, tmp_path):
        with Services(issuer, folder) as services:
            services.show()
    written = (tmp_path / "crm.env").read_text()

    for text in (capsys.readouterr().out, written):
        assert ("KEYCLOAK_CLIENT_SECRET=" in text) == bool(on)
        assert ("# No secret: every flow of this client is off" in text) != bool(on)
    assert dotenv_values(tmp_path / "crm.env")["KEYCLOAK_CLIENT_ID"] == "crm"


def realms(folder: Path, **clients: Sequence[str]) -> list[Path]:
    """Write a realm file for each name, with these clients."""
    files = [folder / f"{name}.json" for name in clients]
    for file, ids in zip(files, clients.values(), strict=True):
        made = document(file.stem, clients=[client(client_id, secret=f"of {client_id}") for client_id in ids], users=[])
        whole = file.with_suffix(".new")  # the command never reads a part of it
        whole.write_text(json.dumps(made))
        whole.replace(file)
    return files


def test_a_change_of_the_realms_is_shown_once_and_a_file_of_another_program_does_not_end_the_issuer(
    tmp_path: Path,
) -> None:
    envs = tmp_path / "envs"
    with started(*realms(tmp_path, a=["x", "y"], b=["x"]), "--env-dir", envs) as dev:
        assert dev.stderr is not None
        next(line for line in dev.stderr if "set -a" in line)
        assert sorted(file.name for file in envs.glob("*.env")) == ["a.x.env", "a.y.env", "b.x.env"]
        (envs / "a.foreign.env").write_text("MY=1\n")
        realms(tmp_path, a=["foreign", "new", "x"])
        told = [next(dev.stderr) for _ in range(4)]
        answer = grants({name: str(value) for name, value in dotenv_values(envs / "a.new.env").items()})
        dev.send_signal(signal.SIGINT)
        rest = dev.communicate(timeout=20)[1]
    assert (answer.status_code, dev.returncode) == (200, 0)
    assert told == [
        "The realm files were read again.\n",
        f"New: {envs / 'a.new.env'}\n",
        f"{envs / 'a.y.env'} is of no client any more: delete it.\n",
        f"{envs / 'a.foreign.env'} is not overwritten, because another program wrote it. Move it, or name another folder.\n",
    ]
    assert (envs / "a.foreign.env").read_text() == "MY=1\n"
    assert rest.splitlines()[-1] == "The embedded issuer has stopped."


def test_at_the_start_a_file_of_another_program_ends_the_command_and_the_others_are_written(tmp_path: Path) -> None:
    (file,) = realms(tmp_path, a=["x", "y"])
    (tmp_path / "x.env").write_text("MY=1\n")
    done = run("dev", file, "--port", "0", "--env-dir", tmp_path)

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"{tmp_path / 'x.env'} is not overwritten")
    assert "set -a" not in done.stderr
    assert (tmp_path / "y.env").is_file()


def test_of_a_change_only_the_new_services_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    issuer = EmbeddedIssuer(document(clients=[client("caller")]))
    with issuer.serving(), Services(issuer, None) as services:
        services.show()
        for names in (["caller", "added"], ["caller", "added", "third"]):
            issuer.reload(document(clients=[client(name) for name in names]))
            capsys.readouterr()
            services.show()
            assert re.findall("export KEYCLOAK_CLIENT_ID=(.*)", capsys.readouterr().out) == names[-1:]


def test_a_token_that_cannot_be_written_again_is_told_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with providing() as provider:
        made = in_a_cluster(provider.url)
        issuer = EmbeddedIssuer(made)
        with issuer.serving(), Services(issuer, tmp_path) as services:
            services.show()
            held = Path(str(dotenv_values(tmp_path / "chat.env")["KEYCLOAK_CLIENT_ASSERTION_FILE"]))
            held.unlink()
            held.parent.rmdir()
            capsys.readouterr()
            services.renew()
            told = capsys.readouterr().err
            held.parent.mkdir()
    assert told == f"The token of chat in {held} is not renewed: no such file or directory.\n"


def test_without_a_realm_file_the_command_names_the_example() -> None:
    done = CliRunner().invoke(command_line(), ["dev"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "Name a realm file, or take the one that comes with the package: --example corp\n"


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
        ("[]", (), "An embedded issuer needs a realm document."),
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


@pytest.mark.parametrize("name", [None, "kept.env"])
def test_a_secret_that_was_generated_after_a_change_stays_the_same_after_the_next_one(
    tmp_path: Path, name: str | None
) -> None:
    realm, kept = tmp_path / "realm.json", tmp_path / name if name else None
    realm.write_text(json.dumps(document(clients=[])))
    files = _Files((realm,), kept)
    issuer = EmbeddedIssuer(*files.read().realms)
    realm.write_text(json.dumps(document(clients=[client("added", secret="${ADDED_SECRET}")])))
    with issuer.serving(), Services(issuer, None) as services:
        _reload(files, issuer, services)
    generated = files.read().values["ADDED_SECRET"]

    assert files.read().values["ADDED_SECRET"] == generated
    assert kept is None or dotenv_values(kept) == {"ADDED_SECRET": generated}
