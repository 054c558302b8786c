"""A token as the called service will judge it: the claims, the reason, the cure; and the token itself only if it is asked for."""

import json
import re
import shlex
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from s2s_fastapi import TokenVerifier
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.cli.commands import command_line
from s2s_fastapi.operations.tokens import requested_and_judged
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.faults import answering, disconnecting
from tests.kit.console import CALLER, RECEIVER, ROLE, SCOPE
from tests.kit.mistakes import LIGHTWEIGHT
from tests.operations.place import HOSTILE, Place
from tests.operations.schemas import valid

FIRST_STEPS = (Path(__file__).resolve().parents[2] / "docs" / "first-steps.md").read_text(encoding="utf-8")


def line(text: str, name: str) -> str:
    """Return a row as it reads without the breaks of its lines."""
    rows: list[str] = []
    for printed in text.splitlines():
        if printed.startswith(" ") and rows:
            rows[-1] += f" {printed.strip()}"
        else:
            rows.append(printed.strip())
    return next(row.removeprefix(name).strip() for row in rows if row.startswith(f"{name} "))


def test_the_claims_are_shown_as_a_receiver_judges_them(place: Place) -> None:
    done = place.run("token", "--for", RECEIVER)

    assert done.exit_code == 0, done.output
    assert line(done.stdout, "kind").startswith("service. client_id is there and equals azp")
    assert line(done.stdout, "audiences") == RECEIVER
    assert line(done.stdout, "lifetime") == "300 s"
    assert f"of {RECEIVER}: {ROLE}" in line(done.stdout, "roles")
    assert line(done.stdout, "accepted").startswith(f"by {RECEIVER}")


def test_the_json_has_the_same_and_its_schema_takes_it(place: Place) -> None:
    printed = valid(place.run("token", "--for", RECEIVER, "--json").stdout, "token")

    assert (printed["accepted"], printed["reason"], printed["verified"]) == (True, "allowed", True)
    assert (printed["token"]["kind"], printed["token"]["lifetime"]) == ("service", 300)
    assert printed["token"]["audiences"] == [RECEIVER]
    assert printed["token"]["client_roles"] == {RECEIVER: [ROLE]}
    assert SCOPE in printed["token"]["scopes"]
    assert printed["claims"]["azp"] == CALLER


def test_the_token_alone_is_one_that_the_called_service_accepts(place: Place) -> None:
    done = place.run("token", "--for", RECEIVER, "--raw")

    principal = TokenVerifier(place.settings(), audience=RECEIVER).verify(done.stdout.strip())
    assert (principal.client_id, done.exit_code, done.stdout.count("\n")) == (CALLER, 0, 1)


def test_the_header_is_the_line_that_curl_reads(place: Place) -> None:
    raw = place.run("token", "--for", RECEIVER, "--header").stdout

    name, _, value = raw.strip().partition(": ")
    request = httpx.Request("GET", "https://crm.example", headers={name: value})
    assert request.headers["authorization"].startswith("Bearer ey")
    assert raw.count("\n") == 1


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_the_token_and_the_secret_are_never_in_the_claims(place: Place, form: list[str]) -> None:
    for audience in (RECEIVER, "another"):
        done = place.run("token", "--for", audience, *form)
        assert "eyJ" not in done.output
        assert place.secrets[CALLER] not in done.output


def test_an_audience_that_was_not_granted_is_refused_with_the_cure_of_the_caller(place: Place) -> None:
    done = place.run("token", "--for", "billing")

    assert done.exit_code == 1
    refused = line(done.stdout, "refused")
    assert refused.startswith(f"by billing: wrong_audience. token of {CALLER} has aud [{RECEIVER}], expected billing")
    assert "(C) a client scope with an Audience mapper for billing" in refused
    assert line(done.stdout, "audiences") == RECEIVER
    assert not valid(place.run("token", "--for", "billing", "--json").stdout, "token")["verified"]


@pytest.mark.parametrize("form", ["--raw", "--header"])
def test_a_token_that_would_be_refused_is_not_printed(place: Place, form: str) -> None:
    done = place.run("token", "--for", "billing", form)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Keycloak needs, of the steps A to D" in done.stderr


def test_a_refused_token_is_printed_to_be_looked_at_if_no_service_is_named(place: Place) -> None:
    place.audience_in_lightweight()
    place.client(CALLER, attributes={LIGHTWEIGHT: "true"})

    done = place.run("token", "--raw")

    assert done.exit_code == 1
    assert done.stdout.count(".") == 2
    assert "lightweight" in done.stderr
    assert place.run("token", "--header").stdout == place.run("token", "--raw", "--for", RECEIVER).stdout == ""
    explained = place.run("explain", "--to", RECEIVER, stdin=done.stdout)
    assert "unknown_kind" in explained.stdout


def test_a_mistyped_audience_is_asked_about_before_any_step(place: Place) -> None:
    done = place.run("token", "--for", "crm-api-gatway")

    assert line(done.stdout, "refused").startswith(
        f"by crm-api-gatway: wrong_audience. The token is for {RECEIVER}: is crm-api-gatway mistyped? If not: token of"
    )


def test_a_kind_that_nobody_can_tell_is_refused_with_its_reason(place: Place) -> None:
    place.audience_in_lightweight()
    place.client(CALLER, attributes={LIGHTWEIGHT: "true"})

    done = place.run("token", "--for", RECEIVER)

    assert done.exit_code == 1
    assert line(done.stdout, "refused").startswith(f"by {RECEIVER}: unknown_kind. ")
    assert "switch off “Always use lightweight access token”" in line(done.stdout, "kind")


def test_a_scope_that_is_not_assigned_is_named_with_its_cure(place: Place) -> None:
    done = place.run("token", "--for", RECEIVER, "--scope", "payments")

    assert (done.exit_code, done.stdout) == (1, "")
    assert f"Assign payments to the client {CALLER} in Keycloak" in done.stderr
    printed = valid(place.run("token", "--for", RECEIVER, "--scope", "payments", "--json").stdout, "token")
    assert (printed["accepted"], printed["reason"], printed["token"]) == (False, "token_request", None)
    assert "Assign payments" in printed["cure"]


def test_what_is_unusual_is_a_note(place: Place) -> None:
    place.lifespan(10)
    assert "lives 10 s, less than the 30 s" in line(place.run("token").stdout, "note")


@pytest.mark.parametrize(
    ("fault", "words"),
    [(answering(503), "answered 503"), (disconnecting(), "Is Keycloak up at")],
    ids=["503", "disconnected"],
)
def test_no_answer_is_one_sentence(place: Place, fault: object, words: str) -> None:
    place.issuer.faults.add("token", fault, times=None)  # type: ignore[arg-type]
    done = place.run("token", "--for", RECEIVER)
    assert (done.exit_code, done.stdout) == (1, "")
    assert words in done.stderr


def test_settings_that_are_missing_are_a_mistake_of_whoever_calls(place: Place) -> None:
    place.changes = {"KEYCLOAK_CLIENT_SECRET": None}
    done = place.run("token", "--for", RECEIVER)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("Set KEYCLOAK_CLIENT_SECRET or KEYCLOAK_CLIENT_SECRET_FILE")
    assert place.run("token", "--raw", "--json").exit_code == 2


def test_a_token_that_is_signed_in_a_way_that_no_service_takes_is_refused(place: Place) -> None:
    place.client(CALLER, attributes={"access.token.signed.response.alg": "HS512"})
    done = place.run("token", "--for", RECEIVER)
    assert done.exit_code == 1
    assert line(done.stdout, "refused").startswith(f"by {RECEIVER}: algorithm_not_allowed. ")
    assert not valid(place.run("token", "--for", RECEIVER, "--json").stdout, "token")["verified"]
    for form in ("--raw", "--header"):
        done = place.run("token", "--for", RECEIVER, form)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "choose RS256" in done.stderr


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_is_text_whatever_is_in_it(place: Place, name: str) -> None:
    place.realm["clients"].append({"clientId": name, "publicClient": False, "standardFlowEnabled": False})
    place.hardcode("given", name)
    place.realm["roles"]["client"][name] = [{"name": name}]
    place.realm["users"][0]["clientRoles"][name] = [name]

    shown = place.run("token", "--for", RECEIVER)
    printed = place.run("token", "--for", RECEIVER, "--json")

    assert name.replace("\u200f", "\ufffd").replace('"', '\\"') in "".join(shown.stdout.split())
    assert valid(printed.stdout, "token")["token"]["client_roles"][name] == [name]
    assert "\u200f" not in shown.output + printed.output


def test_the_first_steps_show_the_rows_that_the_command_prints(place: Place) -> None:
    (shown,) = re.findall(r"```sh\ns2s-fastapi (token .*)\n```\n\n```text\n((?:.*\n)+?)```", FIRST_STEPS)
    done = place.run(*shlex.split(shown[0]))

    names = [row.split()[0] for row in shown[1].splitlines()]
    assert names == [row.split()[0] for row in done.stdout.splitlines() if row[:1].strip()]
    for name in ("client", "kind", "audiences", "lifetime", "accepted"):
        assert line(shown[1], name) == line(done.stdout, name)


def test_a_report_shows_no_token(place: Place) -> None:
    report = requested_and_judged(place.settings(), Wanted.of(RECEIVER, None))
    assert report.granted is not None
    assert report.granted.value not in repr(report)


def test_the_first_steps_show_what_the_command_prints_for_its_realm_file() -> None:
    (realm,) = re.findall(r"```json\n(.*?)```", FIRST_STEPS, re.DOTALL)
    (shown,) = re.findall(r"```text\n(client .*?)```", FIRST_STEPS, re.DOTALL)
    issuer = EmbeddedIssuer(json.loads(re.sub(r"\$\{(\w+)\}", r"the-value-of-\1", realm)))
    with issuer.serving():
        printed = CliRunner().invoke(
            command_line(), ["token", "--for", "crm-api-gateway"], env=issuer.environment("corp", "chat-app-service")
        )
    assert printed.stdout == shown.replace("https://sso.example.com", issuer.url)
