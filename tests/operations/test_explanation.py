"""Why a call is accepted or refused: asked about a client, about a token, and about the log record of a refusal."""

import json
import logging
import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from s2s_fastapi import (
    Principal,
    require_caller,
    require_claim,
    require_role,
    require_service,
    require_that,
    require_user,
)
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.declared.access_file import AccessFile, AppAccess, RouteEntry, canonical
from s2s_fastapi.operations.declarations import declared_by
from s2s_fastapi.operations.explanation import Explanation, Question, Token, exchanged, explained
from s2s_fastapi.operations.records import read_record
from s2s_fastapi.realm.model import RealmModel
from s2s_fastapi.telemetry import DecisionLog
from tests.cli.command import run
from tests.kit.console import CALLER, FRONT_END, REALM_ROLE, RECEIVER, ROLE, SCOPE
from tests.kit.declaring import caller, receiver, with_users
from tests.kit.diagnosis import Mistake, Receiver
from tests.kit.mistakes import MISTAKES, UNDER_AUTH
from tests.operations.landscape import mapper
from tests.operations.place import HOSTILE, Place
from tests.operations.schemas import valid
from tests.test_docs import DOCS, plain, tables

APP = "tests.operations.receiving_app:app"
SEEN_BY = {
    row[0]: plain(row[3])
    for row in next(each for each in tables(DOCS / "doctor.md") if each[0][0].startswith("the audience"))
}


GATEWAY = "example_app.crm_gateway:app"


@pytest.fixture
def realm_file(tmp_path: Path) -> Path:
    return tmp_path / "realm.json"


class Asking:
    """The command in the environment of the receiver."""

    def __init__(self, place: Place, realm_file: Path) -> None:
        self.place = place
        self.realm_file = realm_file
        place.set(client_id=RECEIVER, client_secret=None)

    def _printed(self, *arguments: object, stdin: str = "") -> dict[str, Any]:
        done = self.place.run("explain", "--json", *arguments, stdin=stdin)
        printed = valid(done.stdout, "explain")
        assert done.exit_code == (0 if printed["accepted"] else 1)
        assert "eyJ" not in done.output
        return printed

    def about(self, *arguments: object, client: str = CALLER, to: str = RECEIVER, app: str = APP) -> dict[str, Any]:
        """Ask about a client, with the realm as it is now."""
        self.realm_file.write_text(json.dumps(self.place.realm))
        asked = [
            *(("--client", client) if client else ()),
            *(("--to", to) if to else ()),
            *(("--app", app) if app else ()),
        ]
        return self._printed(*asked, "--realm-file", self.realm_file, *arguments)

    def of(self, text: str, *arguments: object) -> dict[str, Any]:
        """Ask about what stands on stdin."""
        return self._printed(*arguments, stdin=text)


@pytest.fixture
def asking(place: Place, realm_file: Path) -> Asking:
    return Asking(place, realm_file)


def answer(printed: dict[str, Any], method: str = "GET", path: str = "/tickets") -> dict[str, Any]:
    (found,) = (each for each in printed["routes"] if each["route"] == f"{method} {path}")
    return dict(found)


# A question


def test_a_call_that_is_right_is_accepted_with_the_mappers_that_make_it_so(asking: Asking) -> None:
    printed = asking.about()

    assert {each["route"]: each["reason"] for each in printed["routes"]} == {
        "GET /tickets": "allowed",
        "POST /tickets": "allowed",
        "DELETE /tickets": "allowed",
        "GET /audit": "allowed",
        "GET /only": "allowed",
        "GET /healthz": "public",
        "GET /docs": "public",
        "GET /docs/oauth2-redirect": "public",
        "GET /openapi.json": "public",
        "GET /redoc": "public",
    }
    assert ("crm-audience", [RECEIVER]) in [(each["scope"], each["audiences"]) for each in printed["sources"]]
    assert printed["hints"] == printed["dropped_scopes"] == []


def test_the_prediction_is_the_token_that_the_server_gives(asking: Asking) -> None:
    printed = asking.about()
    asking.place.changes = {}
    real = json.loads(asking.place.run("token", "--json").stdout)
    for name in ("client_id", "kind", "audiences", "scopes", "realm_roles", "client_roles", "lifetime", "subject"):
        assert printed["token"][name] == real["token"][name]


def test_without_a_declaration_the_audience_decides_and_no_route_is_said_to_accept(asking: Asking) -> None:
    printed = asking.about(app="")
    assert [(each["app"], each["route"], each["reason"], each["accepted"]) for each in printed["routes"]] == [
        (RECEIVER, "any route", "routes_unknown", False)
    ]
    assert "The routes of crm-api-gateway are not known: add --access FILE" in printed["routes"][0]["cure"]
    assert not printed["accepted"]
    shown = asking.place.run("explain", "--client", CALLER, "--to", RECEIVER, "--realm-file", asking.realm_file)
    assert shown.exit_code == 1
    assert "unknown" in shown.stdout
    assert "accepted" not in shown.stdout
    assert asking.about(app="", to="billing")["routes"][0]["reason"] == "wrong_audience"


def test_an_access_file_is_read_as_the_app_that_wrote_it(asking: Asking, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in asking.place.environment().items():
            patch.setenv(name, value)
        (app,) = declared_by([], APP)
    file = tmp_path / "access.json"
    file.write_text(AccessFile((app,)).text)

    assert asking.about("--access", file, app="")["routes"] == asking.about()["routes"]
    assert asking.about("--access", file, app="", to="")["routes"] == asking.about()["routes"]


def test_a_service_that_nobody_declares_is_asked_by_its_audience_alone(asking: Asking) -> None:
    (only,) = asking.about(to="billing")["routes"]
    assert (only["app"], only["route"], only["reason"]) == ("billing", "any route", "wrong_audience")


def test_an_audience_with_nearly_the_right_name_is_asked_about_first(asking: Asking) -> None:
    (scope,) = (each for each in asking.place.realm["clientScopes"] if each["name"] == "crm-audience")
    config = scope["protocolMappers"][0]["config"]
    config.pop("included.client.audience")
    asking.place.give_role(on=False)  # it would bring the audience too
    config["included.custom.audience"] = "crm-api-gatwy"
    said = (
        "The token is for crm-api-gatwy, and crm-api-gateway accepts crm-api-gateway: is one of the two names mistyped?"
    )
    assert asking.about()["hints"][0] == said
    config["included.custom.audience"] = "billing"
    assert not any("mistyped" in hint for hint in asking.about()["hints"])


def test_what_the_app_and_the_route_both_require_is_said_once(asking: Asking) -> None:
    done = asking.place.run("explain", "--json", "--client", CALLER, "--to", RECEIVER, "--app", GATEWAY)
    hints = [hint for hint in json.loads(done.stdout)["hints"] if " requires " in hint]
    assert {hint.count(f'require_audience("{RECEIVER}")') for hint in hints} == {1}


def _delete_audience_scope(place: Place) -> None:
    place.unassign(CALLER, "crm-audience")
    place.unassign(FRONT_END, "crm-audience")
    place.realm["clientScopes"] = [each for each in place.realm["clientScopes"] if each["name"] != "crm-audience"]


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (
            lambda place: (place.unassign(CALLER, "crm-audience"), place.assign(CALLER, "crm-audience", optional=True)),
            f"The optional scope crm-audience has an Audience mapper for {RECEIVER} and was not requested: request it (scope=crm-audience).",
        ),
        (
            lambda place: place.unassign(CALLER, "crm-audience"),
            f"Of the steps A to D in the README, the realm has A, B, C (crm-audience) for {RECEIVER}. Missing: D.",
        ),
        (
            _delete_audience_scope,
            f"Of the steps A to D in the README, the realm has A, B for {RECEIVER}. Missing: C, D.",
        ),
        (
            lambda place: (place.unassign(CALLER, "crm-audience"), place.assign(RECEIVER, "crm-audience")),
            f"The scope crm-audience has an Audience mapper for {RECEIVER} and is not assigned to {CALLER}: assign it",
        ),
        (
            lambda place: place.map_role("crm-audience"),
            f"The scope crm-audience dropped out, and with it the audience {RECEIVER}: it has role mappings, and the service",
        ),
        (
            lambda place: place.map_role("crm-audience"),
            f"has A, B, C (crm-audience), D for {RECEIVER}. D is done, and the scope crm-audience drops out.",
        ),
    ],
    ids=["optional", "at nobody", "nowhere", "at another", "dropped", "dropped is not missing"],
)
def test_a_refusal_says_what_in_the_realm_explains_it(asking: Asking, wrong: Any, hint: str) -> None:
    wrong(asking.place)
    asking.place.give_role(on=False)
    # In this realm only the receiver's and the front end's scopes are left.
    asking.place._changed("clients", "clientId", FRONT_END)["defaultClientScopes"] = []

    printed = asking.about()

    assert answer(printed)["reason"] == "wrong_audience"
    assert any(hint in each for each in printed["hints"]), printed["hints"]


def test_a_scope_that_is_requested_counts(asking: Asking) -> None:
    asking.place.unassign(CALLER, "crm-audience")
    asking.place.give_role(on=False)
    asking.place.assign(CALLER, "crm-audience", optional=True)
    assert not asking.about()["accepted"]
    assert answer(asking.about("--scope", "crm-audience"))["accepted"]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"enabled": False}, f"Enable the client {CALLER}."),
        ({"serviceAccountsEnabled": False}, '"Service account roles" on'),
        ({"publicClient": True}, 'Switch "Client authentication"'),
        ({"attributes": {"dpop.bound.access.tokens": "true"}}, '"Require DPoP bound tokens" off'),
    ],
)
def test_a_client_that_gets_no_token_is_said_with_the_cure(asking: Asking, members: dict[str, Any], words: str) -> None:
    asking.place.client(CALLER, **members)
    if "serviceAccountsEnabled" in members or "publicClient" in members:
        asking.place.realm["users"] = asking.place.realm["users"][1:]
    printed = asking.about()
    assert words in printed["cure"]
    assert printed["token"] is None
    assert {each["accepted"] for each in printed["routes"] if each["reason"] != "public"} == {False}


def test_the_cure_for_the_token_itself_is_printed_once_and_not_for_each_route(asking: Asking) -> None:
    asking.realm_file.write_text(json.dumps(asking.place.realm))
    done = asking.place.run("explain", "--client", "nobody", "--realm-file", asking.realm_file, "--app", APP)
    assert done.exit_code == 1
    assert done.stdout.count("Make a client nobody") == 1
    assert done.stdout.count("no_credentials") > 2  # the row of the token, and those of the routes


def test_routes_that_need_a_token_stand_first_and_the_same_cure_once(asking: Asking) -> None:
    asking.place.unassign(CALLER, "crm-audience")
    asking.place.give_role(on=False)
    asking.realm_file.write_text(json.dumps(asking.place.realm))
    done = asking.place.run("explain", "--client", CALLER, "--realm-file", asking.realm_file, "--app", APP)

    rows = [line.split()[0] for line in done.stdout.splitlines() if line.startswith(("refused", "accepted"))]
    assert rows == sorted(rows, reverse=True)
    assert done.stdout.count("token of chat-app-service has no aud") == 1
    assert "GET /only: wrong_audience. as above" in " ".join(done.stdout.split())


def test_a_client_that_is_not_there_and_a_scope_that_is_not_assigned_are_said(asking: Asking) -> None:
    assert "Make a client nobody (step A of the README)" in asking.about(client="nobody")["cure"]
    assert f"Assign payments to the client {CALLER}" in asking.about("--scope", "payments")["cure"]


# The mistakes of the diagnosis page


@pytest.mark.parametrize("mistake", [each for each in MISTAKES if SEEN_BY[each.name] == "question"], ids=str)
def test_a_mistake_in_a_realm_is_explained_from_the_realm_file(asking: Asking, mistake: Mistake) -> None:
    mistake.wrong(asking.place)

    found = answer(asking.about(), *mistake.to)

    if mistake.on_paper:
        assert found["reason"] == mistake.reason
        assert [word for word in mistake.words if word not in found["cure"]] == []
    else:  # bound by DPoP: it gets no token at all
        assert (found["reason"], "DPoP" in found["cure"]) == ("no_credentials", True)
    mistake.cure(asking.place)
    if mistake.cure is not Mistake.cure:
        assert answer(asking.about(), *mistake.to)["accepted"]


@pytest.mark.parametrize(
    "mistake", [each for each in (*MISTAKES, *UNDER_AUTH) if SEEN_BY[each.name] == "token"], ids=str
)
def test_a_token_that_was_sent_by_mistake_is_explained(
    place: Place, under_auth: Place, realm_file: Path, mistake: Mistake
) -> None:
    asking = Asking(under_auth if mistake in UNDER_AUTH else place, realm_file)
    mistake.wrong(asking.place)
    token = mistake.send(asking.place)
    asking.place.set(**mistake.settings(asking.place))
    if mistake.reason == "revoked":  # a matter of the realm
        realm_file.write_text(json.dumps({**asking.place.realm, "notBefore": int(time.time()) + 1}))

    printed = asking.of(token, "--app", APP, *(("--realm-file", realm_file) if realm_file.exists() else ()))

    assert answer(printed, *mistake.to)["reason"] == mistake.reason
    assert answer(printed, *mistake.to)["cure"]


def test_every_mistake_says_whether_it_can_be_explained() -> None:
    assert set(SEEN_BY.values()) == {"question", "token", "-"}


# A token


def test_a_token_is_judged_with_the_keys_of_the_environment(asking: Asking) -> None:
    token = asking.place.issuer.service_token("corp", CALLER)
    for text in (token, f"Authorization: Bearer {token}\n", f"Bearer {token}"):
        printed = asking.of(text, "--app", APP)
        assert printed["source"] == "given; its signature holds"
        assert answer(printed)["accepted"]


def test_a_forged_token_is_not_believed(asking: Asking) -> None:
    head, payload, signature = asking.place.issuer.service_token("corp", CALLER).split(".")
    forged = f"{head}.{payload}.{signature[:-8]}AAAAAAAA"
    printed = asking.of(forged, "--app", APP)
    assert (printed["reason"], printed["token"]) == ("invalid_signature", None)
    assert CALLER not in json.dumps(printed["routes"])
    assert not printed["accepted"]


def test_a_refusal_ends_with_the_page_for_what_does_not_work_and_an_accepted_call_does_not(asking: Asking) -> None:
    asking.about()  # writes the realm file
    page = "/docs/it-does-not-work.md\n"
    asked = ("explain", "--to", RECEIVER, "--realm-file", asking.realm_file, "--app", APP, "--client")
    assert asking.place.run(*asked, CALLER).stderr == ""
    assert asking.place.run(*asked, "nobody").stderr.endswith(page)
    assert page not in asking.place.run(*asked, "nobody", "--json").output


def test_without_settings_a_token_is_shown_and_said_to_be_unchecked(asking: Asking) -> None:
    token = asking.place.issuer.service_token("corp", CALLER)
    asking.place.changes = dict.fromkeys(asking.place.environment())
    printed = asking.of(token, "--to", RECEIVER)
    assert "its signature was not checked" in printed["source"]
    assert printed["token"]["client_id"] == CALLER
    assert printed["routes"][0]["reason"] == "routes_unknown"
    assert asking.of(token, "--to", "billing")["routes"][0]["reason"] == "wrong_audience"


def test_the_realm_file_says_where_the_contents_of_a_token_come_from(asking: Asking) -> None:
    asking.place.unassign(CALLER, "crm-audience")
    asking.place.give_role(on=False)
    asking.place.assign(CALLER, "crm-audience", optional=True)
    token = asking.place.issuer.service_token("corp", CALLER, scope="crm-audience")
    asking.realm_file.write_text(json.dumps(asking.place.realm))
    printed = asking.of(token, "--realm-file", asking.realm_file)
    assert ("crm-audience", [RECEIVER]) in [(each["scope"], each["audiences"]) for each in printed["sources"]]


@pytest.mark.parametrize(
    "text",
    ["nonsense", "a.b.c", "Bearer", "Bearer nonsense", "> Authorization: Bearer a.b.c", "eyJhbGciOiJub25lIn0.e30.x"],
)
def test_what_is_no_token_is_said(asking: Asking, text: str) -> None:
    done = asking.place.run("explain", stdin=text)
    assert done.exit_code == 1
    assert "access_token of Keycloak's answer, unchanged" in " ".join(done.stdout.split())


def test_without_a_question_the_three_ways_to_ask_are_named(asking: Asking) -> None:
    done = asking.place.run("explain", stdin="\n")
    assert (done.exit_code, done.stdout) == (2, "")
    for words in (
        "stdin has nothing",
        "--client ID --to ID --realm-file",
        "token --raw | s2s-fastapi explain",
        "record.json",
    ):
        assert words in done.stderr


@pytest.mark.parametrize(("text", "words"), [("x" * 70_000, "stdin has more than 65536")])
def test_stdin_is_bounded(asking: Asking, text: str, words: str) -> None:
    done = asking.place.run("explain", stdin=text)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


# What stands in the way after the first reason


def test_everything_that_stands_in_the_way_is_said_one_after_the_other(asking: Asking) -> None:
    place = asking.place
    place.unassign(CALLER, SCOPE)
    place.unassign(CALLER, "crm-audience")
    place.give_role(on=False)
    place.hardcode("sid", "a-session")
    place.lifespan(25 * 3600)

    found = answer(asking.about(), "POST")

    assert found["reason"] == "lifetime_too_long"
    assert [each["reason"] for each in found["then"]] == ["wrong_audience", "unknown_kind", "scope_missing"]
    assert answer(asking.about(), "GET", "/healthz")["then"] == []


def test_what_would_follow_is_said_even_if_keycloak_gives_no_token_yet(asking: Asking) -> None:
    asking.place.client(CALLER, enabled=False)
    asking.place.unassign(CALLER, SCOPE)
    found = answer(asking.about("--scope", "nope"), "POST")
    assert (found["reason"], "Enable the client" in found["cure"]) == ("no_credentials", True)
    assert [each["reason"] for each in found["then"]] == ["no_credentials", "scope_missing"]
    assert "Make nope, a client scope that the realm does not have" in found["then"][0]["cure"]


def test_a_users_token_is_to_be_replaced_and_not_to_be_mended(asking: Asking) -> None:
    printed = asking.of(str(asking.place.user()["access_token"]), "--app", APP)
    found = answer(printed, "DELETE")
    assert (found["reason"], found["then"]) == ("not_a_service", [])


# What the code has to do with it


def declarations(folder: Path, *apps: AppAccess) -> list[str]:
    words = []
    for number, app in enumerate(apps):
        file = folder / f"{number} of them.json"
        file.write_text(AccessFile((app,)).text)
        words += ["--access", str(file)]
    return words


def without_audience(asking: Asking) -> None:
    asking.place.unassign(CALLER, "crm-audience")
    asking.place.give_role(on=False)


CRM = receiver(RECEIVER, require_caller(CALLER))


def test_a_realm_file_gets_a_plan_if_both_sides_declare_the_call_and_the_realm_does_not_grant_it(
    asking: Asking, tmp_path: Path
) -> None:
    without_audience(asking)
    given = declarations(tmp_path, CRM, caller(CALLER, RECEIVER))
    hints = " ".join(asking.about(*given, app="")["hints"])
    (planned,) = re.findall(r"s2s-fastapi plan .* --realm-json NEW.json", hints)
    realm_file = str(asking.realm_file)
    expected = ["s2s-fastapi", "plan", given[1], given[3], "--realm-file", realm_file, "--realm-json", "NEW.json"]
    assert shlex.split(planned) == expected
    assert "apply" not in hints  # there is no server: the plan is for the file


def test_two_files_of_one_client_are_refused(asking: Asking, tmp_path: Path) -> None:
    opened = receiver(RECEIVER, require_service())
    asking.realm_file.write_text(json.dumps(asking.place.realm))
    given = declarations(tmp_path, CRM, opened)
    done = asking.place.run("explain", "--client", CALLER, "--realm-file", asking.realm_file, *given)

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Several apps have the client id {RECEIVER}")
    same = asking.about(*declarations(tmp_path, CRM, CRM), app="")
    assert len(same["routes"]) == len(CRM.routes)


@pytest.mark.parametrize(
    ("apps", "words"),
    [
        (
            (CRM, caller(CALLER, "billing")),
            f'declares no call to {RECEIVER}. If it may call, write service_client(..., audience="{RECEIVER}")',
        ),
        (
            (receiver(RECEIVER, require_caller("billing")),),
            f'its code must say service_client(..., audience="{RECEIVER}"), and the code of {RECEIVER} require_caller("{CALLER}")',
        ),
        ((receiver(RECEIVER, require_caller("billing")), caller(CALLER, RECEIVER)), ""),
        ((CRM,), ""),
    ],
    ids=["not by the caller", "by nobody", "not by the receiver", "the caller's code is unknown"],
)
def test_for_a_call_that_is_not_declared_there_is_code_and_never_a_command(
    asking: Asking, tmp_path: Path, apps: tuple[AppAccess, ...], words: str
) -> None:
    without_audience(asking)
    hints = " ".join(asking.about(*declarations(tmp_path, *apps), app="")["hints"])
    assert words in hints
    assert "s2s-fastapi" not in hints


def test_no_plan_is_named_for_what_a_plan_does_not_change(asking: Asking, tmp_path: Path) -> None:
    asking.place.client(CALLER, attributes={"client.use.lightweight.access.token.enabled": "true"})
    printed = asking.about(*declarations(tmp_path, CRM, caller(CALLER, RECEIVER)), app="")
    assert answer(printed, "POST", "/0")["reason"] == "wrong_audience"
    hints = " ".join(printed["hints"])
    assert "s2s-fastapi plan" not in hints
    assert "switch “Always use lightweight access token” off" in hints
    assert "Add to lightweight" not in hints  # that would lead to unknown_kind


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (lambda place: place.unassign(CALLER, SCOPE), f"The scope {SCOPE} is not assigned to {CALLER}: assign it"),
        (
            lambda place: (place.unassign(CALLER, SCOPE), place.assign(CALLER, SCOPE, optional=True)),
            "was not requested: request it",
        ),
        (
            lambda place: place.scope_attribute(SCOPE, "include.in.token.scope", "false"),
            "switch on “Include in token scope”",
        ),
        (lambda place: place.map_role(SCOPE), f"The scope {SCOPE} dropped out"),
    ],
    ids=["not assigned", "optional", "not in the token", "dropped"],
)
def test_a_missing_scope_says_which_of_its_causes_it_is(asking: Asking, wrong: Any, hint: str) -> None:
    wrong(asking.place)
    asking.place.give_role(on=False)
    assert [each for each in asking.about()["hints"] if hint in each]


def test_without_a_realm_the_routes_say_what_they_require(asking: Asking) -> None:
    printed = asking._printed("--client", CALLER, "--to", RECEIVER, "--app", APP)
    assert printed["source"].startswith("not known, because neither a realm file nor a server was given")
    assert {
        answer(printed, *each)["reason"] for each in (("GET", "/tickets"), ("POST", "/tickets"), ("GET", "/audit"))
    } == {"allowed"}
    assert [
        each for each in printed["hints"] if each.startswith("POST /tickets") and f'require_scope("{SCOPE}")' in each
    ]
    other = asking._printed("--client", "billing", "--to", RECEIVER, "--app", APP)
    assert answer(other)["reason"] == "caller_not_allowed"


@pytest.mark.parametrize("variable", ["KC_DB_PASSWORD", "kc_bootstrap_admin_password", "KEYCLOAK_ADMIN"])
def test_no_app_is_imported_beside_variables_of_keycloak_itself(asking: Asking, variable: str) -> None:
    asking.place.changes[variable] = "hunter2"
    done = asking.place.run("explain", "--client", CALLER, "--app", APP)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"Unset {variable}" in done.stderr


# A log record


class JsonLines(logging.Handler):
    """A formatter of JSON lines, as services have one."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        plain = {name: value for name, value in vars(record).items() if isinstance(value, str | int | bool)}
        self.lines.append(json.dumps({"message": record.getMessage(), "extra": plain}))
        self.messages.append(record.getMessage())


def refused(place: Place, token: str, method: str = "GET", path: str = "/tickets") -> JsonLines:
    lines = JsonLines()
    there = Receiver(place)
    there.records = []
    logging.getLogger(f"tests.kit.diagnosis.{id(there)}").addHandler(lines)
    there.send(token, method, path)
    assert len(lines.lines) == 1
    return lines


def test_a_record_alone_repeats_its_reason_and_cure(asking: Asking) -> None:
    asking.place.unassign(CALLER, SCOPE)
    lines = refused(asking.place, asking.place.issuer.service_token("corp", CALLER), "POST")
    printed = asking.of(lines.lines[0])
    assert printed["question"] == {
        "client": CALLER,
        "scopes": [],
        "to": RECEIVER,
        "on_behalf": False,
        "dpop": False,
        "method": "POST",
        "route": "/tickets",
    }
    (route,) = printed["routes"]
    assert (route["route"], route["reason"]) == ("POST /tickets", "scope_missing")
    assert route["cure"].startswith(f"token of {CALLER} lacks scope {SCOPE}")


def test_a_record_is_explained_by_the_realm_file_for_its_route(asking: Asking) -> None:
    asking.place.unassign(CALLER, SCOPE)
    lines = refused(asking.place, asking.place.issuer.service_token("corp", CALLER), "POST")
    asking.realm_file.write_text(json.dumps(asking.place.realm))
    printed = asking.of(lines.lines[0], "--realm-file", asking.realm_file, "--app", APP)
    assert [(each["route"], each["reason"]) for each in printed["routes"]] == [("POST /tickets", "scope_missing")]
    asking.place.assign(CALLER, SCOPE)
    asking.realm_file.write_text(json.dumps(asking.place.realm))
    printed = asking.of(lines.lines[0], "--realm-file", asking.realm_file, "--app", APP)
    assert printed["accepted"]
    assert printed["hints"][0].startswith("The log says scope_missing, and the predicted token would be accepted")


def test_a_record_of_a_user_is_not_explained_by_the_token_of_the_service_that_called_for_it(asking: Asking) -> None:
    asking.realm_file.write_text(json.dumps(asking.place.realm))
    cure = f"{CALLER} is not allowed here (allowed: web). It seems to be a user's token that the service {CALLER} exchanged"
    record = {
        "reason": "caller_not_allowed",
        "client_id": CALLER,
        "user": "ann",
        "cure": cure,
        "method": "POST",
        "route": "/tickets",
    }

    printed = asking.of(json.dumps(record), "--realm-file", asking.realm_file, "--app", APP)

    (route,) = printed["routes"]
    assert (route["reason"], route["cure"]) == ("caller_not_allowed", cure)
    assert not printed["accepted"]
    assert not any("predicted token" in hint for hint in printed["hints"])


def test_a_record_of_a_route_that_is_not_known_is_not_denied(asking: Asking) -> None:
    asking.place.unassign(CALLER, SCOPE)
    lines = refused(asking.place, asking.place.issuer.service_token("corp", CALLER), "POST")
    asking.realm_file.write_text(json.dumps(asking.place.realm))

    printed = asking.of(lines.lines[0], "--realm-file", asking.realm_file)

    (route,) = printed["routes"]
    assert (route["route"], route["reason"], printed["accepted"]) == ("POST /tickets", "scope_missing", False)
    assert "add --access FILE" in printed["hints"][0]
    assert not [each for each in printed["hints"] if "would be accepted" in each]


@pytest.mark.parametrize("form", ["lines", "messages"])
def test_of_a_whole_log_the_last_record_is_explained_and_their_number_is_said(asking: Asking, form: str) -> None:
    token = asking.place.issuer.service_token("corp", CALLER)
    asking.place.unassign(CALLER, SCOPE)
    first = refused(asking.place, token.replace(token[-8:], "AAAAAAAA"))
    last = refused(asking.place, asking.place.issuer.service_token("corp", CALLER), "POST")
    other = '{"message": "GET /healthz 200"}' if form == "lines" else "INFO: GET /healthz 200"
    log = "\n".join([*getattr(first, form), other, *getattr(last, form), other])

    printed = asking.of(log)

    assert printed["routes"][0]["route"] == "POST /tickets"
    assert printed["hints"][0] == "stdin has 2 records: the last one is explained."


FORMATTERS: dict[str, Any] = {
    "plain": lambda message: message,
    "with a head": lambda message: f"2026-11-29 10:00:00,123 WARNING [crm:17] s2s_fastapi.decisions: {message}",
    "with a tail": lambda message: f"<12>1 {message} [trace_id=4bf92f]",
    "logfmt": lambda message: f'level=warning logger=s2s_fastapi.decisions msg="{message}"',
    "JSON with the message alone": lambda message: json.dumps({"level": "WARNING", "message": message}),
    "JSON over several lines": lambda message: json.dumps({"event": message}, indent=2),
    "docker": lambda message: json.dumps({"log": json.dumps({"message": message}) + "\n", "stream": "stderr"}),
    "OpenTelemetry": lambda message: json.dumps({"logRecords": [{"body": {"stringValue": message}}]}),
}


@pytest.mark.parametrize("written", FORMATTERS.values(), ids=FORMATTERS)
def test_a_record_is_read_however_it_was_written(asking: Asking, written: Any) -> None:
    asking.place.unassign(CALLER, SCOPE)
    lines = refused(asking.place, asking.place.issuer.service_token("corp", CALLER), "POST")
    printed = asking.of(written(lines.messages[0]))
    assert {name: printed["question"][name] for name in ("client", "to", "method", "route")} == {
        "client": CALLER,
        "to": RECEIVER,
        "method": "POST",
        "route": "/tickets",
    }
    assert printed["routes"][0]["cure"].startswith(f"token of {CALLER} lacks scope {SCOPE}")


def test_a_record_that_was_cut_off_says_what_is_left_of_it(asking: Asking) -> None:
    asking.place.unassign(CALLER, SCOPE)
    (message,) = refused(asking.place, asking.place.issuer.service_token("corp", CALLER), "POST").messages
    for end in range(message.index(" method="), len(message)):
        record = read_record(message[:end])
        assert str(record.reason) == "scope_missing"
        assert record.question.client_id in ("", CALLER)
        assert record.question.route in ("", "/tickets")


def test_a_route_cannot_imitate_another_field_of_a_record(asking: Asking) -> None:
    route = "/x' client_id='billing' cure=\"all is well\" explain: s2s-fastapi explain --client billing --to billing"
    lines = logging.getLogger("tests.records")
    written = JsonLines()
    lines.addHandler(written)
    DecisionLog(lines).decided(
        Decision(reason=Reason.SCOPE_MISSING, method="GET", route=route, client_id=CALLER, receiver=RECEIVER, cure="c")
    )
    record = read_record(written.messages[0])
    assert record.question == Question(client_id=CALLER, to=RECEIVER, method="GET", route=route)
    assert record.cure == "c"


def test_a_record_without_a_signature_names_no_caller(asking: Asking) -> None:
    head, payload, signature = asking.place.issuer.service_token("corp", CALLER).split(".")
    lines = refused(asking.place, f"{head}.{payload}.{signature[:-8]}AAAAAAAA")
    printed = asking.of(lines.lines[0], "--app", APP)
    assert "no signature held" in printed["source"]
    assert printed["question"]["client"] == ""
    assert "explain" not in lines.messages[0]


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        '{"reason": "other"}',
        '{"reason": 5}',
        '{"reason": ["allowed"]}',
        "{nonsense",
        '{"a": ' * 40,
        "hello world",
        'INFO:     127.0.0.1:33000 - "GET /tickets HTTP/1.1" 401 Unauthorized',
    ],
)
def test_what_is_no_record_is_one_sentence(asking: Asking, line: str) -> None:
    done = asking.place.run("explain", stdin=line)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("This is neither a token nor a log record of the logger s2s_fastapi.decisions")


def test_the_command_at_the_end_of_a_record_runs_as_it_is(asking: Asking) -> None:
    asking.place.unassign(CALLER, "crm-audience")
    asking.place.give_role(on=False)
    (message,) = refused(asking.place, asking.place.issuer.service_token("corp", CALLER)).messages
    command = re.search(r" explain: s2s-fastapi (explain .*)\Z", message)
    assert command is not None
    asking.realm_file.write_text(json.dumps(asking.place.realm))
    printed = asking._printed(*shlex.split(command[1])[1:], "--realm-file", asking.realm_file)
    assert printed["routes"][0]["reason"] == "wrong_audience"


# What is printed


def test_the_rows_say_where_each_audience_and_role_comes_from(asking: Asking) -> None:
    asking.realm_file.write_text(json.dumps(asking.place.realm))
    done = asking.place.run("explain", "--client", CALLER, "--realm-file", asking.realm_file, "--app", APP)
    text = " ".join(done.stdout.split())
    assert f'from scope crm-audience, mapper "audience {RECEIVER}": audience {RECEIVER}' in text
    assert f"role {ROLE} of {RECEIVER}" in text
    assert f"role {REALM_ROLE} of the realm" in text
    assert f"accepted {RECEIVER} GET /tickets" in text
    assert f"accepted {RECEIVER} GET /healthz: public" in text


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_is_text_whatever_is_in_it(asking: Asking, name: str) -> None:
    place = asking.place
    scope = {
        "name": name,
        "protocol": "openid-connect",
        "protocolMappers": [
            {
                "name": name,
                "protocol": "openid-connect",
                "protocolMapper": "oidc-audience-mapper",
                "config": {"included.custom.audience": name, "access.token.claim": "true"},
            }
        ],
    }
    place.realm["clientScopes"].append(scope)
    place.assign(CALLER, name)
    asking.realm_file.write_text(json.dumps(place.realm))

    printed = asking.about(to=name, app="")
    shown = place.run("explain", "--client", CALLER, "--to", name, "--realm-file", asking.realm_file)

    assert printed["routes"][0]["reason"] == "routes_unknown"
    assert shown.exit_code == 1
    joined = "".join(shown.stdout.split())
    assert joined.count(name.replace("\u200f", "\ufffd").replace('"', '\\"')) >= 4
    assert "\u200f" not in shown.output


@pytest.mark.parametrize(
    ("content", "words"),
    [("[]", "it is not one JSON object"), ("{", "it is not one JSON object"), (None, "no such file"), ("{}", "")],
)
def test_a_realm_file_that_is_none_is_one_sentence(
    asking: Asking, tmp_path: Path, content: str | None, words: str
) -> None:
    file = tmp_path / "other.json"
    if content is not None:
        file.write_text(content)
    done = asking.place.run("explain", "--client", CALLER, "--realm-file", file)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_question_needs_a_realm_file_and_no_administrator(asking: Asking) -> None:
    done = asking.place.run("explain", "--client", CALLER)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Add --realm-file REALM.json" in done.stderr
    assert "set KEYCLOAK_ADMIN_CLIENT_ID" in done.stderr
    asking.place.changes["KEYCLOAK_ADMIN_CLIENT_SECRET"] = "hunter2"
    assert "Unset KEYCLOAK_ADMIN_CLIENT_SECRET" in asking.place.run("explain", "--client", CALLER, "--app", APP).stderr
    asking.place.changes.pop("KEYCLOAK_ADMIN_CLIENT_SECRET")
    done = asking.place.run("explain", "--app", "tests.operations.calling_app:open_app", stdin="x")
    assert "has no ServiceAuthMiddleware, so it judges no token" in done.stderr


def test_the_example_of_the_page_prints_what_the_page_shows(tmp_path: Path) -> None:
    page = (DOCS / "doctor.md").read_text(encoding="utf-8").partition("## Explain a call")[2]
    (commands, shown), *_ = re.findall(r"```sh\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL)
    (realm,) = re.findall(r"```json\n(.*?)```", (DOCS / "first-steps.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "corp.json").write_text(realm)
    for command in commands.replace("crm.json", str(tmp_path / "crm.json")).splitlines():
        words = shlex.split(command.replace("corp.json", str(tmp_path / "corp.json")))[1:]
        done = run(*words, PYTHONPATH=str(DOCS.parent / "example_app"))
        assert done.returncode == 0, done.stderr
    assert done.stdout == shown


def test_a_claim_is_judged_on_the_token_and_a_condition_is_named_as_what_only_the_app_can_tell() -> None:
    partner = require_that("partner of level 2", lambda _: False)
    routes = {
        "/claim": require_claim("tenant", "acme"),
        "/other": require_claim("tenant", "umbrella"),
        "/both": require_claim("tenant", "acme") & partner,
        "/not": require_claim("tenant", "umbrella") & partner,
    }
    called = AppAccess(
        client_id=RECEIVER,
        requires=require_service(),
        routes=tuple(
            RouteEntry(path=path, methods=("GET",), requires=canonical(each)) for path, each in routes.items()
        ),
    )
    principal = Principal(
        client_id=CALLER, kind="service", issuer="i", issued_at=1, expires_at=2, claims={"tenant": "acme"}
    )
    token = Token(source="given", decision=Decision(reason=Reason.ALLOWED), principal=principal)
    answers = explained(Question(to=RECEIVER), token, [called]).routes

    assert [(each.accepted, each.reason) for each in answers] == [
        (True, "allowed"),
        (False, "claim_missing"),
        (True, "condition_unknown"),
        (False, "claim_missing"),
    ]
    assert 'meets the condition "partner of level 2"; all else holds.' in answers[2].cure


def test_a_route_that_refuses_a_token_and_needs_none_says_so() -> None:
    search = RouteEntry("/search", ("GET", "POST"), optional=("GET",), requires=require_caller("crawler"))
    app = AppAccess("crm", require_service(), (search, RouteEntry("/x", ("GET",), requires=require_caller("crawler"))))
    caller = Principal(client_id="chat", kind="service", issuer="", issued_at=0, expires_at=1)
    token = Token(source="given", decision=Decision(reason=Reason.ALLOWED), principal=caller)

    found = explained(Question(client_id="chat"), token, [app])

    [hint] = [each for each in found.hints if "without any credentials" in each]
    assert hint.startswith("GET/POST /search (for GET) of crm accepts a request without any credentials.")


@pytest.mark.parametrize(
    ("issuer", "accepted", "others"),
    [
        ("https://keycloak.invalid/realms/corp", "GET /ours", "https://sso.partner.test/realms/shops"),
        ("https://sso.partner.test/realms/shops", "GET /theirs", "its first realm"),
    ],
)
def test_a_token_is_judged_by_what_is_required_of_callers_of_its_realm(issuer: str, accepted: str, others: str) -> None:
    """The same client has the same token in both realms."""
    theirs = require_caller("chat", realm="https://sso.partner.test/realms/shops")
    routes = [
        RouteEntry("/ours", ("GET",), requires=require_caller("chat")),
        RouteEntry("/theirs", ("GET",), requires=theirs),
    ]
    service = require_service() | require_service(realm="https://sso.partner.test/realms/shops")
    caller = Principal(client_id="chat", kind="service", issuer=issuer, issued_at=0, expires_at=1)
    token = Token(source="given", decision=Decision(reason=Reason.ALLOWED), principal=caller)

    found = explained(Question(client_id="chat"), token, [AppAccess("crm", canonical(service), tuple(routes))])

    assert [(each.route, each.accepted) for each in found.routes] == [(accepted, True)]
    assert f"crm also accepts callers of {others}: they are not looked at here." in found.hints


# Calls on behalf of users

OF_USERS = with_users(receiver("crm", require_user("shop-api"), require_user("shop-api") & require_role("clerk")))


def shop(**changes: Any) -> dict[str, Any]:
    """Return a realm in which shop-api may call crm on behalf of users."""
    client = {
        "clientId": "shop-api",
        "secret": "x",
        "serviceAccountsEnabled": True,
        "attributes": {"standard.token.exchange.enabled": "true"},
        "protocolMappers": [mapper("crm")],
        **changes,
    }
    return {"realm": "corp", "enabled": True, "clients": [client, {"clientId": "crm"}]}


def on_behalf_of(document: dict[str, Any], *scopes: str, version: str = "26.7.3") -> Explanation:
    question = Question(client_id="shop-api", to="crm", scopes=scopes, on_behalf=True)
    return explained(question, exchanged(RealmModel.read(document, version=version), question), [OF_USERS])


def test_a_call_on_behalf_of_a_user_is_judged_with_a_users_token() -> None:
    found = on_behalf_of(shop())

    assert found.token.principal is not None
    assert (found.token.principal.kind, found.token.principal.client_id) == ("user", "shop-api")
    assert [(each.route, each.reason) for each in found.routes] == [("POST /0", "allowed"), ("POST /1", "role_missing")]
    assert "Give it to the user" in found.routes[1].cure
    assert any("without any role" in note for note in found.token.notes)


@pytest.mark.parametrize(
    ("changes", "version", "cure"),
    [
        ({"attributes": {}}, "26.7.3", 'Switch "Standard Token Exchange" on for the client shop-api'),
        ({"publicClient": True}, "26.7.3", 'Switch "Client authentication" on for the client shop-api'),
        ({"enabled": False}, "26.7.3", "Enable the client shop-api"),
        ({"clientId": "another"}, "26.7.3", "Make a client shop-api"),
        ({}, "26.0.8", "Calls on behalf of a user need Keycloak 26.2 or newer"),
    ],
    ids=["not enabled", "public", "disabled", "no client", "an old server"],
)
def test_why_keycloak_exchanges_no_token_is_said_by_name(changes: dict[str, Any], version: str, cure: str) -> None:
    found = on_behalf_of(shop(**changes), version=version)

    assert not found.accepted
    assert found.token.decision.cure.startswith("Keycloak would exchange no token for shop-api: ")
    assert cure in found.token.decision.cure


def test_a_scope_that_is_not_assigned_and_an_audience_that_nobody_brings_are_said_for_users_too() -> None:
    assert (
        "Assign crm:write to the client shop-api as optional" in on_behalf_of(shop(), "crm:write").token.decision.cure
    )
    assert on_behalf_of(shop(protocolMappers=[])).routes[0].reason == "wrong_audience"


def test_the_command_asks_about_a_call_on_behalf_of_a_user(asking: Asking) -> None:
    printed = asking.about("--on-behalf", client=CALLER)
    assert printed["question"]["on_behalf"] is True
    assert 'Switch "Standard Token Exchange" on' in printed["cure"]
    without = asking.place.run("explain", "--on-behalf", "--client", CALLER)
    assert without.exit_code == 2
    assert "--on-behalf is a question about a client" in without.output
