"""``plan`` and ``apply`` as commands: what they print, how they end, and when they change nothing."""

import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from s2s_fastapi import require_caller, require_role, require_scope, require_service
from s2s_fastapi.cli.commands import command_line
from s2s_fastapi.cli.mistake import in_one_sentence
from s2s_fastapi.declared.access_file import AccessFile, AppAccess
from tests.kit.admin_rest import FakeKeycloak
from tests.kit.declaring import caller, receiver
from tests.operations.place import HOSTILE
from tests.operations.schemas import valid

CRM = receiver("crm", require_caller("chat") & require_role("write"))
CHAT = caller("chat", "crm")


def run(environment: dict[str, str], *arguments: object) -> Result:
    return CliRunner().invoke(command_line(), list(map(str, arguments)), env=environment, catch_exceptions=False)


def written(folder: Path, *apps: AppAccess) -> list[Path]:
    files = []
    for number, app in enumerate(apps):
        files.append(folder / f"{number}.json")
        files[-1].write_text(AccessFile((app,)).text, encoding="utf-8")
    return files


def test_plan_shows_the_steps_and_the_tokens_and_changes_nothing(tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.serving() as environment:
        done = run(environment, "plan", *written(tmp_path, CRM, CHAT), "--secrets", tmp_path / "secrets")

    assert done.exit_code == 1
    assert "1. Make the client scope crm-audience with an Audience mapper for crm." in done.stdout
    assert "before: no token" in done.stdout
    assert "after:  aud [crm], scope [crm-audience], roles of crm [write]" in done.stdout
    assert f"its new secret is written to {tmp_path / 'secrets' / 'chat.secret'}" in done.stdout
    secret = f"  chat: KEYCLOAK_CLIENT_SECRET_FILE={tmp_path / 'secrets' / 'chat.secret'}\n"
    assert done.stdout.endswith(f"Start with their new secret:\n{secret}")
    assert server.writes() == []
    assert not (tmp_path / "secrets").exists()


def test_plan_is_of_one_realm_and_a_note_names_the_others(tmp_path: Path) -> None:
    shops = "https://sso.partner.test/realms/shops"
    crm = receiver("crm", require_caller("chat") | require_caller("shop", realm=shops))
    with FakeKeycloak().serving() as environment:
        done = run(environment, "plan", *written(tmp_path, crm, CHAT), "--json")
        plan = json.loads(done.stdout)

    notes = [finding["text"] for finding in plan["findings"] if finding["level"] == "note"]
    assert f"crm also accepts callers of {shops}: plan that realm by itself. Nothing here is granted for them." in notes
    assert '"shop"' not in json.dumps(plan["steps"])
    here = AccessFile((crm,)).apps[0]
    assert here.within("https://another.test/realms/x").routes[0].requires == require_caller("chat")
    assert here.within(shops).routes[0].requires == require_caller("shop")


def test_apply_with_yes_does_it_and_then_plan_ends_with_0(tmp_path: Path) -> None:
    server, files = FakeKeycloak(), written(tmp_path, CRM, CHAT)
    with server.serving() as environment:
        done = run(environment, "apply", *files, "--yes", "--secrets", tmp_path / "secrets")
        after = run(environment, "plan", *files)

    assert done.exit_code == 0
    assert "Steps: 6" in done.stdout  # the plan in full, before it is carried out
    assert (tmp_path / "secrets" / "chat.secret").read_text() not in done.output
    assert after.exit_code == 0
    assert "Steps: none." in after.stdout


def test_a_saved_plan_is_carried_out_without_a_question_and_once_only(tmp_path: Path) -> None:
    server, saved = FakeKeycloak(), tmp_path / "plan.json"
    with server.serving() as environment:
        run(environment, "plan", *written(tmp_path, CRM, CHAT), "--out", saved, "--secrets", tmp_path / "secrets")
        first = run(environment, "apply", "--plan", saved, "--secrets", tmp_path / "secrets")
        again = run(environment, "apply", "--plan", saved, "--secrets", tmp_path / "secrets")

    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert valid(saved.read_text(), "plan")["made_from"]["grants"] == []

    assert first.exit_code == 0
    assert server.client_id("chat")
    assert [line[:11] for line in first.stderr.splitlines() if line.startswith("Done")][:2] == [
        "Done 1 of 6",
        "Done 2 of 6",
    ]
    secret = tmp_path / "secrets" / "chat.secret"
    assert first.stdout.endswith(f"Start with their new secret:\n  chat: KEYCLOAK_CLIENT_SECRET_FILE={secret}\n")
    assert again.exit_code == 2
    assert "The realm has changed since the plan was made" in again.stderr
    assert again.stdout == ""  # it is out of date: nobody shall read it


def _added(step: dict[str, object]) -> Callable[[Any], None]:
    return lambda plan: plan["steps"].append(step)


def _assigned(client: str, scope: str, *, optional: bool = False) -> Callable[[Any], None]:
    return _added({"do": "assign_scope", "client": client, "scope": scope, "optional": optional})


def _of(plan: Any, kind: str) -> Any:
    return next(step for step in plan["steps"] if step["do"] == kind)


def _secret(plan: Any) -> None:
    for step in plan["steps"]:
        if step.get("secret_file"):
            step["secret_file"] = "/tmp/elsewhere"  # noqa: S108 - nothing is written there


BY_HAND: dict[str, Callable[[Any], None]] = {
    "a client outside of the plan": _assigned("outside", "crm-audience"),
    "a service account of a client outside": _added({"do": "enable_service_account", "client": "outside"}),
    "a scope that nobody read": _assigned("crm", "payroll-audience"),
    "a scope more": _assigned("crm", "crm-audience"),
    "the other list": lambda plan: _of(plan, "make_client").update(optional=["crm-audience"], default=[]),
    "a step whose effect holds already": _assigned("chat", "basic"),
    "a mapper in a scope": _added({"do": "add_audience", "scope": "crm-audience", "audience": "chat", "custom": False}),
    "a secret elsewhere": _secret,
    "a step less": lambda plan: plan["steps"].pop(),
    "a finding less": lambda plan: plan["findings"].clear(),
    "another caller in the access file": lambda plan: plan["made_from"]["grants"].append("chat:other"),
    "no access file": lambda plan: plan["made_from"]["access"].clear(),
    "nothing that it was made from": lambda plan: plan.pop("made_from"),
}


@pytest.mark.parametrize("what", BY_HAND)
def test_a_saved_plan_that_somebody_changed_is_not_carried_out(what: str, tmp_path: Path) -> None:
    server, saved = FakeKeycloak(), tmp_path / "plan.json"
    server.add_client(clientId="outside")
    server.add_scope("payroll-audience", "payroll")
    with server.serving() as environment:
        files = written(tmp_path, CRM, CHAT, caller("x", "nobody"))
        run(environment, "plan", *files, "--out", saved, "--secrets", tmp_path / "secrets")
        content = json.loads(saved.read_text())
        BY_HAND[what](content)
        saved.write_text(json.dumps(content))
        done = run(environment, "apply", "--plan", saved, "--secrets", tmp_path / "secrets")

    assert done.exit_code == 2
    assert "Nothing was changed." in done.stderr or "does not say what it was made from" in done.stderr
    assert server.writes() == []


def test_a_saved_plan_writes_its_secrets_only_where_the_one_who_applies_it_says(tmp_path: Path) -> None:
    server, saved = FakeKeycloak(), tmp_path / "plan.json"
    with server.serving() as environment:
        run(environment, "plan", *written(tmp_path, CRM, CHAT), "--out", saved, "--secrets", tmp_path / "secrets")
        done = run(environment, "apply", "--plan", saved, "--secrets", tmp_path / "other")

    assert done.exit_code == 2
    assert (
        f"Its secrets go to {tmp_path / 'secrets'}, and here they would go to {tmp_path / 'other'}: was it made in"
        in done.stderr
    )
    assert server.writes() == []


def test_a_plan_is_saved_in_a_new_file_only(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("planted")
    with FakeKeycloak().serving() as environment:
        done = run(environment, "plan", *written(tmp_path, CRM, CHAT), "--out", tmp_path / "plan.json")

    assert done.exit_code == 2
    assert "exists, and is not overwritten: remove it, or write another name, such as plan-2.json." in done.stderr
    assert (tmp_path / "plan.json").read_text() == "planted"


def test_where_nobody_can_be_asked_apply_changes_nothing(tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.serving() as environment:
        done = run(environment, "apply", *written(tmp_path, CRM, CHAT))

    assert done.exit_code == 2
    assert "write --yes, or carry out a saved plan with --plan FILE. Nothing was changed." in done.stderr
    assert server.writes() == []


@pytest.mark.parametrize("command", [("plan",), ("apply", "--yes"), ("apply", "--plan")])
def test_something_forbidden_ends_with_2_and_nothing_is_written(command: tuple[str, ...], tmp_path: Path) -> None:
    server = FakeKeycloak()
    files = written(
        tmp_path,
        receiver("crm", require_caller("chat") & require_role("manage-users", client="realm-management")),
        CHAT,
    )
    with server.serving() as environment:
        if "--plan" in command:
            run(environment, "plan", *files, "--out", tmp_path / "plan.json", "--grant", "chat:manage-users")
            done = run(environment, *command, tmp_path / "plan.json")
        else:
            done = run(environment, *command, *files, "--grant", "chat:manage-users")

    assert done.exit_code == 2
    assert "realm-management is a client of Keycloak itself" in done.stdout
    assert server.writes() == []


def test_the_json_of_a_plan_is_that_of_its_schema_and_holds_no_secret(tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.serving() as environment:
        done = run(environment, "plan", *written(tmp_path, CRM, CHAT, caller("x", "nobody")), "--json")
        applied = run(environment, "apply", *written(tmp_path, CRM, CHAT), "--yes", "--json", "--secrets", tmp_path)

    assert valid(done.stdout, "plan")["realm"] == "corp"
    assert valid(applied.stdout, "plan")["steps"]
    assert "the-planners-secret" not in done.output + applied.output
    assert "made-by-keycloak" not in done.output + applied.output


def test_plan_imports_no_code_and_says_which_command_does(tmp_path: Path) -> None:
    with FakeKeycloak().serving() as environment:
        done = run(environment, "plan", "crm_gateway:app")

    assert done.exit_code == 2
    assert (
        "plan and apply import no code: first write the file with s2s-fastapi access crm_gateway:app --out access.json."
        in done.stderr
    )


def test_a_saved_plan_beside_access_files_or_grants_is_refused(tmp_path: Path) -> None:
    files = written(tmp_path, CRM)
    for arguments in (
        ("apply",),
        ("apply", *files, "--plan", files[0]),
        ("apply", "--plan", files[0], "--grant", "a:b"),
    ):
        done = run({}, *arguments)
        assert done.exit_code == 2
        assert "--plan" in done.stderr or "--grant" in done.stderr


def test_the_right_that_is_missing_is_a_sentence_and_2(tmp_path: Path) -> None:
    with FakeKeycloak(rights=frozenset({"view-clients"})).serving() as environment:
        done = run(environment, "plan", *written(tmp_path, CRM, CHAT))

    assert done.exit_code == 2
    assert "the role view-realm of the client realm-management" in done.stderr
    assert "Traceback" not in done.output


def test_hostile_names_are_text(tmp_path: Path) -> None:
    names = [name for name in HOSTILE if name.isprintable()]
    apps = [receiver("crm", *(require_caller(name) for name in names), require_service() & require_role("[red]x"))]
    apps += [caller(name, "crm") for name in names]
    server = FakeKeycloak()
    with server.serving() as environment:
        done = run(environment, "apply", *written(tmp_path, *apps), "--yes", "--secrets", tmp_path / "secrets")

    for name in names:
        assert name.replace('"', '\\"') in done.stdout
        assert server.client_id(name)
    assert 'role "[red]x" of crm' in done.stdout
    assert len(list((tmp_path / "secrets").iterdir())) == len(names)
    assert all(file.parent == tmp_path / "secrets" for file in tmp_path.rglob("*.secret"))


def test_a_secret_file_of_an_interrupted_apply_is_left_and_another_name_taken(tmp_path: Path) -> None:
    (tmp_path / "chat.secret").write_text("old")
    server = FakeKeycloak()
    with server.serving() as environment:
        run(environment, "apply", *written(tmp_path, CRM, CHAT), "--yes", "--secrets", tmp_path)

    assert (tmp_path / "chat.secret").read_text() == "old"
    assert server.client("chat")["secret"] == (tmp_path / "chat~2.secret").read_text()


def test_a_file_that_is_no_access_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"version": 99, "apps": []}))
    with FakeKeycloak().serving() as environment:
        for file in ("a.json", "missing.json"):
            done = run(environment, "plan", tmp_path / file)
            assert done.exit_code == 2
            assert file in done.stderr


@pytest.mark.parametrize("command", [("plan",), ("apply", "--yes")], ids=["plan", "apply"])
def test_a_file_that_fails_is_one_sentence_and_the_rest_is_shown_and_nothing_is_applied(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "damaged.json").write_text("{")
    broken = (tmp_path / "damaged.json", tmp_path / "missing.json", "payroll:app")
    server = FakeKeycloak()
    with server.serving() as environment:
        done = run(environment, *command, *written(tmp_path, CRM, CHAT), *broken, "--secrets", tmp_path / "secrets")

    assert done.exit_code == 2
    assert "Make the client scope crm-audience with an Audience mapper for crm." in done.stdout
    for file in map(str, broken):
        assert done.stdout.count(file) >= 1
    assert done.stdout.count("What its app requires is not known, so nothing is applied.") == 3
    assert server.writes() == []


def test_two_apps_with_one_client_id_are_one_sentence_and_the_rest_is_shown(tmp_path: Path) -> None:
    server = FakeKeycloak()
    twice = (receiver("twice", require_caller("chat")), receiver("twice", require_caller("other")))
    with server.serving() as environment:
        done = run(
            environment, "apply", "--yes", *written(tmp_path, CRM, CHAT, *twice), "--secrets", tmp_path / "secrets"
        )

    assert done.exit_code == 2
    assert done.stdout.count("2 apps that declare different things have the client id twice") == 1
    assert "Make the client chat" in done.stdout
    assert server.writes() == []


def test_a_client_id_of_any_length_and_form_has_a_secret_file_of_its_own(tmp_path: Path) -> None:
    names = [
        "team:a",
        "team/a",
        "team_a",
        "a",
        "a.2",
        "a~2",
        "\N{CYRILLIC SMALL LETTER BE}" * 130,
        "x" * 250,
        "x" * 251,
    ]
    crm = receiver("crm", *(require_caller(name) for name in names))
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "a.secret").write_text("of before")
    server = FakeKeycloak()
    with server.serving() as environment:
        done = run(
            environment,
            "apply",
            *written(tmp_path, crm, *(caller(name, "crm") for name in names)),
            "--yes",
            "--secrets",
            secrets,
        )

    assert done.exit_code == 0
    files = {file.name: file.read_text() for file in secrets.iterdir()}
    assert files.pop("a.secret") == "of before"
    assert len(files) == len(names)
    assert {server.client(name)["secret"] for name in names} == {*files.values()}
    assert files["team_a.secret"] == server.client("team_a")["secret"]
    assert files["a~2.secret"] == server.client("a")["secret"]
    assert files["a.2.secret"] == server.client("a.2")["secret"]


def test_a_file_that_is_given_twice_is_refused_with_what_may_be_meant(tmp_path: Path) -> None:
    (file, _) = written(tmp_path, CRM, CHAT)
    done = run({}, "plan", file, tmp_path / "." / file.name)

    assert done.exit_code == 2
    assert "0.json is given twice. Is the file of the other app missing?" in done.stderr


def test_a_plan_with_findings_and_without_steps_does_not_say_that_all_is_there(tmp_path: Path) -> None:
    with FakeKeycloak().serving() as environment:
        run(environment, "apply", *written(tmp_path, CRM, CHAT), "--yes", "--secrets", tmp_path / "secrets")
        fine = run(environment, "plan", *written(tmp_path, CRM, CHAT))
        alone = run(environment, "plan", *written(tmp_path, CHAT))

    assert "Steps: none. The realm has all that the plan would make.\n" in fine.stdout
    assert "Steps: none.\n" in alone.stdout
    assert alone.exit_code == 1


def test_a_step_is_shown_in_full_however_long_it_is(tmp_path: Path) -> None:
    names = [f"{number:03}{'x' * 240}" for number in range(40)]
    crm = receiver("crm", require_caller("chat") & require_scope(*names))
    with FakeKeycloak().serving() as environment:
        done = run(environment, "plan", *written(tmp_path, crm, CHAT))

    (step,) = [line for line in done.stdout.splitlines() if "Make the client chat" in line]
    assert len(step) > 9_000
    assert all(name in step for name in names)


def test_on_a_terminal_what_is_asked_about_was_shown_also_beside_json_and_lines_break_between_words(
    tmp_path: Path,
) -> None:
    server, files = FakeKeycloak(), written(tmp_path, CRM, CHAT)
    with server.serving() as environment:
        primary, secondary = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "s2s_fastapi.cli", "apply", *files, "--json", "--secrets", tmp_path / "secrets"],
            env={**os.environ, **environment, "TERM": "dumb"},
            stdin=secondary,
            stdout=subprocess.PIPE,
            stderr=secondary,
        ) as process:
            shown = ""
            while "Type yes: " not in shown:
                shown += os.read(primary, 4096).decode()
            os.write(primary, b"no\n")
            assert process.wait() == 2
        os.close(primary)
        os.close(secondary)

    lines = shown.splitlines()
    at = lines.index("   2. Make the client chat that calls others (service account on), without login")
    assert lines[at + 1].startswith("      flows, Full scope allowed off")
    assert f"  chat: KEYCLOAK_CLIENT_SECRET_FILE={tmp_path / 'secrets' / 'chat.secret'}" in lines
    assert "Carry out these 6 steps?" in shown
    assert server.writes() == []


def test_a_mistake_of_ours_ends_with_2_and_tells_no_content() -> None:
    @in_one_sentence
    def wrong() -> None:
        raise KeyError("hush-hush")

    with pytest.raises(SystemExit) as ended:
        wrong()
    assert ended.value.code == 2


def test_plain_http_to_another_machine_is_said_before_the_log_in(tmp_path: Path) -> None:
    place = {"KEYCLOAK_URL": "http://keycloak.invalid", "KEYCLOAK_REALM": "corp"}
    login = {"KEYCLOAK_ADMIN_CLIENT_ID": "planner", "KEYCLOAK_ADMIN_CLIENT_SECRET": "a-secret-of-the-planner"}
    for command in (("plan",), ("apply", "--yes")):
        done = run({**place, **login}, *command, *written(tmp_path, CRM, CHAT))
        assert done.exit_code == 2
        assert done.stderr.startswith("http://keycloak.invalid is plain http: everybody on the way can read the secret")
