"""What `s2s-fastapi doctor` finds: each fault is made on purpose, found with its cure, and gone after the cure."""

import json
import os
import stat
import tomllib
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from s2s_fastapi import require_caller
from s2s_fastapi.cli.doctor import _print
from s2s_fastapi.declared.access_file import AccessFile, RouteEntry
from s2s_fastapi.operations.checks.service import check_secret
from s2s_fastapi.operations.checks.table import CHECKS, examined
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.findings import Change, Checked, Finding, Report, Seen, Skipped
from s2s_fastapi.testing.faults import (
    Fault,
    answering,
    disconnecting,
    html,
    redirecting,
    refusing,
    rewritten,
    with_members,
)
from tests.caller.fakes import jwt
from tests.kit.admin_rest import FakeKeycloak
from tests.kit.console import CALLER, RECEIVER, hardcoded
from tests.kit.declaring import caller, receiver
from tests.kit.diagnosis import Mistake
from tests.kit.mistakes import MISTAKES, UNDER_AUTH
from tests.operations.place import HOSTILE, Place
from tests.operations.schemas import valid
from tests.test_docs import DOCS, plain, tables

APP = "tests.operations.calling_app:app"
SCOPED = "tests.operations.calling_app:scoped_app"
ON_BEHALF = "tests.operations.calling_app:on_behalf_app"
HELP = "https://github.com/s2s-fastapi/s2s_fastapi/blob/main/docs/it-does-not-work.md"
PAGE = (DOCS / "doctor.md").read_text(encoding="utf-8")
ADMIN = ["admin", "client", "authentication", "steps", "exchange", "bound", "routes", "granted", "expiry"]
"""The checks that need an administrator's rights, a call on behalf of users, or bound tokens."""
SEEN_BY = {
    row[0]: row[1:]
    for row in next(each for each in tables(DOCS / "doctor.md") if each[0][0].startswith("the audience"))
}


def doctor(place: Place, *arguments: str) -> dict[str, dict[str, Any]]:
    """Return the checks by name, after looking for secrets in the output."""
    done = place.run("doctor", "--json", *arguments)
    printed = valid(done.stdout, "doctor")
    assert done.exit_code == (0 if printed["fine"] else 1)
    assert "eyJ" not in done.output
    assert place.secrets[CALLER] not in done.output
    return {check["name"]: check for check in printed["checks"]}


def found(checks: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the checks with findings, each with all that they say."""
    return {
        name: " ".join(finding[part] for finding in check["findings"] for part in ("level", "seen", "why", "cure"))
        for name, check in checks.items()
        if check["findings"]
    }


def test_nothing_is_found_if_everything_is_right(place: Place) -> None:
    for app in (APP, SCOPED, "tests.operations.calling_app:made()"):
        checks = doctor(place, "--app", app)
        assert found(checks) == {}
        assert [name for name, check in checks.items() if check["state"] == "skipped"] == ["files", "others", *ADMIN]
    assert checks["downstreams"]["seen"] == [f"A token for {RECEIVER} is granted."]


def test_nothing_is_found_under_a_path(under_auth: Place) -> None:
    assert found(doctor(under_auth, "--app", APP)) == {}


def test_a_service_that_calls_nobody_needs_no_secret(place: Place) -> None:
    place.set(client_id=RECEIVER, client_secret=None)
    checks = doctor(place)
    assert found(checks) == {}
    assert checks["credentials"]["skipped"] == [
        "This service has nothing that proves who it is, so it calls no other service."
    ]


RECEIVERS = ["example_app.crm_gateway:app", "tests.operations.calling_app:of_two_realms()", "in its access file"]


def only_called(place: Place) -> None:
    """Run as the receiver of step B: it has a secret, and its client has every flow off."""
    secret = "".join(reversed(place.secrets[CALLER]))
    place.client(RECEIVER, secret=secret)
    place.set(client_id=RECEIVER, client_secret=secret)


@pytest.mark.parametrize("app", RECEIVERS)
def test_a_service_that_is_only_called_needs_no_service_account(place: Place, access: str, app: str) -> None:
    only_called(place)
    checks = doctor(place, *(("--access", access) if " " in app else ("--app", app)))
    assert found(checks) == {}
    assert checks["credentials"]["seen"] == [f"Keycloak accepts the credentials of {RECEIVER} (client_secret_basic)."]
    (why,) = checks["credentials"]["skipped"]
    assert why.startswith(
        f"{RECEIVER} has no service account, and no declared call needs one: a service that is only called has none."
    )
    for name in ("token", "kind", "lifetime", "size", "varying", "origins", "downstreams"):
        assert checks[name]["skipped"] == [why]


@pytest.mark.parametrize("app", RECEIVERS)
def test_a_wrong_secret_of_a_service_that_is_only_called_is_a_problem(place: Place, access: str, app: str) -> None:
    only_called(place)
    place.set(client_secret=f"{place.secrets[CALLER][:-4]}wX9q")
    seen = found(doctor(place, *(("--access", access) if " " in app else ("--app", app))))["credentials"]
    assert seen.startswith("problem ")
    assert "If this service calls others as itself, it cannot" in seen


UNDECLARED = [
    f"tests.operations.calling_app:{name}()" for name in ("asking_by_itself", "opened_in_a_route", "made_at_the_start")
]


@pytest.mark.parametrize("app", UNDECLARED)
def test_the_token_of_an_app_that_calls_without_declaring_it_is_looked_at(place: Place, app: str) -> None:
    checks = doctor(place, "--app", app)
    assert found(checks) == {}
    assert {checks[name]["state"] for name in ("credentials", "clock", "token", "kind")} == {"fine"}
    (why,) = checks["downstreams"]["skipped"]
    assert why.startswith(f"No declared call needs a token of {CALLER}.")


@pytest.mark.parametrize("app", UNDECLARED)
def test_a_wrong_secret_of_an_app_that_calls_without_declaring_it_is_a_problem(place: Place, app: str) -> None:
    place.set(client_secret=f"{place.secrets[CALLER][:-4]}wX9q")
    assert found(doctor(place, "--app", app))["credentials"].startswith("problem ")


@pytest.mark.parametrize(
    "app",
    [
        APP,
        ON_BEHALF,
        "tests.operations.calling_app:caller_of_two_realms()",
        "tests.operations.calling_app:calling_somebody()",
        "in its access file",
    ],
)
def test_the_credentials_of_an_app_that_calls_are_looked_at(place: Place, access: str, app: str) -> None:
    place.issuer.faults.add("token", answering(503), times=None)
    checks = doctor(place, *(("--access", access) if " " in app else ("--app", app)))
    assert checks["credentials"]["state"] == "problem"


@pytest.mark.parametrize("mistake", [each for each in MISTAKES if each.on_paper or "DPoP" in each.name], ids=str)
def test_a_mistake_of_the_diagnosis_page_is_found_by_the_check_that_the_page_names(
    place: Place, mistake: Mistake
) -> None:
    _prove(place, mistake)


@pytest.mark.parametrize("mistake", UNDER_AUTH, ids=str)
def test_a_mistake_about_the_path_and_the_public_address_is_found(under_auth: Place, mistake: Mistake) -> None:
    _prove(under_auth, mistake)


def _prove(place: Place, mistake: Mistake) -> None:
    # The others need an administrator: tests/real/test_diagnosis.py.
    expected = plain(SEEN_BY[mistake.name][1].partition(",")[0])
    app = SCOPED if mistake.reason == "scope_missing" else APP

    mistake.wrong(place)
    place.set(**mistake.settings(place))
    if mistake.name.startswith(("the receiver's clock", "the caller keeps")):
        report = examined(Facts(settings=place.settings(), clock=mistake.clock))
        seen = {
            check.name: check.findings[0].seen + check.findings[0].cure for check in report.checks if check.findings
        }
    else:
        seen = found(doctor(place, "--app", app))

    if expected == "-":
        assert seen == {}
        return
    assert expected in seen, seen
    assert len(seen) == 1 or mistake.name.startswith(("the tokens are lightweight", "the token is for account")), seen

    mistake.cure(place)
    place.changes = {}
    if mistake.cure is not Mistake.cure:
        assert found(doctor(place, "--app", app)) == {}


def test_the_page_says_of_each_mistake_who_sees_it() -> None:
    assert list(SEEN_BY) == [mistake.name for mistake in (*MISTAKES, *UNDER_AUTH)]
    assert all(any(cell != "-" for cell in map(plain, row)) for row in SEEN_BY.values())


# Faults of the way to Keycloak


@pytest.mark.parametrize(
    ("endpoint", "fault", "check", "words"),
    [
        ("certs", disconnecting(), "reachable", ["Is Keycloak up at", "neither check tokens nor get one"]),
        ("certs", answering(503), "realm", ["answered 503", "Look into the log of Keycloak"]),
        ("certs", html(502), "realm", ["answered 502"]),
        ("certs", html(200), "realm", ["the answer is HTML or XML instead of JSON"]),
        (
            "certs",
            redirecting("https://elsewhere.example"),
            "realm",
            ["Set KEYCLOAK_URL to the address that it redirects"],
        ),
        ("certs", refusing(403, "https required", "HTTPS required"), "realm", ["Use https in KEYCLOAK_URL"]),
        ("certs", with_members(keys=[]), "keys", ["holds no key that can verify", "keys_unavailable"]),
        ("realm", answering(404), "revocation", ["A revocation in Keycloak has no effect here"]),
        ("token", answering(503), "credentials", ["answered 503"]),
        (
            "token",
            refusing(401, "unauthorized_client", "Invalid client secret"),
            "credentials",
            ["Correct KEYCLOAK_CLIENT_SECRET. It is on the Credentials page"],
        ),
        (
            "token",
            refusing(401, "unauthorized_client", "Client not enabled to retrieve service account"),
            "credentials",
            ["Service account roles"],
        ),
        ("token", with_members(token_type="DPoP"), "credentials", ["Require DPoP bound tokens"]),
        (
            "discovery",
            with_members(issuer="https://other.example/realms/corp"),
            "issuer",
            [
                "Keycloak's issuer is https://other.example/realms/corp, the settings expect http://127.0.0.1",
                "Set KEYCLOAK_PUBLIC_URL",
            ],
        ),
    ],
)
def test_a_fault_of_the_server_is_found_by_its_check(
    place: Place, endpoint: Any, fault: Fault, check: str, words: list[str]
) -> None:
    place.issuer.faults.add(endpoint, fault, times=None)
    checks = doctor(place)
    seen = found(checks)
    assert list(seen) == [check]
    assert [word for word in words if word not in seen[check]] == []
    place.issuer.faults.clear()
    assert found(doctor(place)) == {}


def test_what_cannot_be_looked_at_says_which_problem_comes_first(place: Place) -> None:
    place.issuer.faults.add("certs", disconnecting(), times=None)
    checks = doctor(place)
    assert checks["realm"]["skipped"] == ["First solve the problem of reachable."]
    assert checks["kind"]["skipped"] == ["First solve the problem of reachable."]


def test_the_path_under_which_the_realm_was_found_is_named(place: Place, under_auth: Place) -> None:
    place.set(auth_path="/auth")
    under_auth.set(auth_path=None)
    for wrong in (place, under_auth):
        assert " has the keys." in found(doctor(wrong))["realm"]


def test_a_server_that_is_not_there_is_found(place: Place) -> None:
    place.set(url="http://127.0.0.1:9")
    seen = found(doctor(place))
    assert list(seen) == ["reachable"]
    assert "connection refused" in seen["reachable"]


def test_a_proxy_that_is_not_there_is_found_and_its_password_is_not_shown(place: Place) -> None:
    place.set(proxy="http://user:hunter2@127.0.0.1:9")
    checks = doctor(place)
    assert list(found(checks)) == ["reachable"]
    assert "through the proxy http://127.0.0.1:9 (KEYCLOAK_PROXY)" in found(checks)["reachable"]
    assert "hunter2" not in json.dumps(checks)


def test_a_proxy_in_the_environment_that_is_not_used_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    assert doctor(place)["proxy"]["seen"] == ["No proxy. HTTP_PROXY is set and is not used for Keycloak."]


def test_plain_http_to_another_machine_is_a_warning(place: Place) -> None:
    place.set(url="http://keycloak.invalid:8080")
    checks = doctor(place)
    assert checks["tls"]["state"] == "warning"
    assert "Everybody on the way can read the secret" in found(checks)["tls"]


def test_https_on_a_port_that_speaks_http_is_found(place: Place) -> None:
    place.set(url=place.issuer.url.replace("http:", "https:"))
    seen = found(doctor(place))
    assert "The port answers in plain http: write http:// in KEYCLOAK_URL" in seen["reachable"]


def test_a_certificate_file_that_is_none_is_found(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("nothing")
    place.set(url="https://127.0.0.1:9", ca_file=str(file))
    assert f"KEYCLOAK_CA_FILE: cannot read certificates from {file}" in found(doctor(place))["reachable"]


@pytest.mark.parametrize(
    ("seconds", "state", "words"),
    [
        (-2, "fine", ""),
        (12, "warning", "12 s ahead"),
        (-12, "warning", "12 s behind"),
        (90, "problem", "not_yet_valid"),
        (-90, "problem", "expired too early"),
    ],
)
def test_clocks_that_differ_are_found_by_the_date_of_the_answer(
    place: Place, seconds: int, state: str, words: str
) -> None:
    now = 1_800_000_000.0
    date = formatdate(now + seconds, usegmt=True)
    place.issuer.faults.add("certs", Fault(headers=(("Date", date),)), times=None)
    report = examined(Facts(settings=place.settings(), clock=lambda: now))
    (clock,) = (check for check in report.checks if check.name == "clock")
    assert clock.state == state
    assert words in str(clock.results[0])
    if state != "fine":
        assert "Compare the clocks of this host and of Keycloak (NTP)." in str(clock.results[0])


@pytest.mark.parametrize("date", ["nonsense", "", "Thu, 99 Foo 9999 99:99:99 GMT"])
def test_a_date_that_is_none_is_not_believed(place: Place, date: str) -> None:
    place.issuer.faults.add("certs", Fault(headers=(("Date", date),)), times=None)
    assert doctor(place)["clock"]["state"] == "fine"


def test_a_key_that_is_left_out_is_named_with_the_reason(place: Place) -> None:
    def with_short_key(body: bytes) -> bytes:
        published = json.loads(body)
        published["keys"].append({**published["keys"][0], "kid": "short", "alg": "HS256"})
        return json.dumps(published).encode()

    place.issuer.faults.add("certs", rewritten(with_short_key), times=None)
    checks = doctor(place)
    assert checks["keys"]["state"] == "warning"
    assert "The key short at " in found(checks)["keys"]
    assert "its algorithm HS256 is not accepted here" in found(checks)["keys"]


# Settings, secrets, files


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"realm": None}, "Set KEYCLOAK_REALM"),
        ({"client_secret": "${SECRET}"}, "is a placeholder that was not replaced"),
        ({"client_secret": '"quoted"'}, "is in quotes: remove them"),
        ({"client_secret": "line\n"}, "ends in a line break"),
        ({"url": "sso.example.com"}, "must be an absolute http or https URL"),
        ({"client_id": None}, "Set KEYCLOAK_CLIENT_ID"),
        ({"leeway": "many"}, "KEYCLOAK_LEEWAY"),
    ],
)
def test_settings_that_are_wrong_are_one_finding(place: Place, settings: dict[str, Any], words: str) -> None:
    place.set(**settings)
    checks = doctor(place)
    assert list(found(checks)) == ["settings"]
    assert words in found(checks)["settings"]
    assert checks["reachable"]["skipped"] == ["First solve the problem of settings."]


def test_a_variable_with_a_mistyped_name_is_named(place: Place) -> None:
    place.changes["KEYCLOAK_CLIENTID"] = "x"
    place.changes["KEYCLOAK_VERSION"] = "26"
    seen = found(doctor(place))
    assert list(seen) == ["settings"]
    assert "KEYCLOAK_CLIENTID is set, and no setting has this name." in seen["settings"]
    assert "If KEYCLOAK_CLIENT_ID is meant, rename it." in seen["settings"]
    assert "KEYCLOAK_VERSION" not in seen["settings"]


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        (" {}", "begins or ends with a blank"),
        ("{}\u00a0", "begins or ends with a blank"),
        ("{}\u200b", "a character that is not printable ASCII"),
        ("changeme", "is a common word"),
        ("KEYCLOAK_CLIENT_SECRET={}", "looks like a whole line VARIABLE=value"),
        ("<the secret>", "looks like a placeholder"),
        ("c2VjcmV0LW9mLXRoaXMtc2VydmljZQ==", "looks like base64 of another text"),
        (CALLER.capitalize(), "the name of the client"),  # not upper: another test has a client of that name
    ],
)
def test_a_secret_that_was_damaged_or_can_be_guessed_is_found(place: Place, secret: str, words: str) -> None:
    place.set(client_secret=secret.format(place.secrets[CALLER]))
    checks = doctor(place)
    assert words in found(checks)["secret"]
    assert "Correct KEYCLOAK_CLIENT_SECRET" in found(checks)["credentials"]


def test_a_secret_that_code_gives_is_not_said_to_be_in_a_variable(place: Place) -> None:
    (result,) = check_secret(Facts(settings=place.settings(), environment={}))
    assert result == Seen("A secret in the code (client_secret), without blanks, quotes or placeholders.")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permissions of this kind")
@pytest.mark.parametrize(
    ("mode", "fine"), [(0o600, True), (0o640, True), (0o644, False), (0o660, False), (0o606, False)]
)
def test_a_secret_file_that_others_can_read_is_a_warning(
    place: Place, tmp_path: Path, mode: int, *, fine: bool
) -> None:
    file = tmp_path / "the secret"
    file.write_text(f"{place.secrets[CALLER]}\n")
    file.chmod(mode)
    place.set(client_secret=None, client_secret_file=str(file))
    seen = found(doctor(place))
    assert list(seen) == ([] if fine else ["files"])
    if not fine:
        assert f"has the mode {stat.S_IMODE(mode):04o}" in seen["files"]
        assert f"chmod 600 '{file}'" in seen["files"]


def test_a_secret_file_that_is_not_there_is_found(place: Place, tmp_path: Path) -> None:
    place.set(client_secret=None, client_secret_file=str(tmp_path / "nothing"))
    seen = found(doctor(place))
    assert list(seen) == ["files", "secret"]
    assert "cannot be read" in seen["secret"]


def test_a_directory_in_the_place_of_a_secret_is_found(place: Place, tmp_path: Path) -> None:
    place.set(client_secret=None, client_secret_file=str(tmp_path))
    seen = found(doctor(place))
    assert f"{tmp_path} is a directory. This service cannot call any other" in seen["files"]
    assert "chmod" not in seen["files"]


def test_a_certificate_file_that_others_can_write_is_a_warning(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("x")
    place.set(ca_file=str(file))
    for mode, fine in ((0o644, True), (0o664, False)):
        file.chmod(mode)
        assert ("files" not in found(doctor(place))) is fine


def test_a_key_file_that_is_damaged_is_found(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text("-----BEGIN PRIVATE KEY-----\n")
    file.chmod(0o600)
    place.set(client_secret=None, client_auth="private_key_jwt", client_key_file=str(file))
    seen = found(doctor(place))
    assert list(seen) == ["secret"]
    assert f"KEYCLOAK_CLIENT_KEY_FILE: {file} is cut off" in seen["secret"]


def test_an_app_that_calls_needs_a_secret(place: Place) -> None:
    place.set(client_secret=None)
    seen = found(doctor(place, "--app", APP))
    assert list(seen) == ["secret"]
    assert f"The app calls {RECEIVER}, and has nothing that proves who it is." in seen["secret"]
    assert "Set KEYCLOAK_CLIENT_SECRET or KEYCLOAK_CLIENT_SECRET_FILE" in seen["secret"]


def test_a_service_that_calls_only_on_behalf_of_users_needs_no_service_account(place: Place) -> None:
    place.client(CALLER, serviceAccountsEnabled=False)
    checks = doctor(place, "--app", ON_BEHALF)
    assert found(checks) == {}
    assert checks["credentials"]["seen"] == [f"Keycloak accepts the credentials of {CALLER} (client_secret_basic)."]
    (why,) = checks["credentials"]["skipped"]
    assert f"{CALLER} has no service account, and needs none" in why
    for name in ("token", "kind", "lifetime", "size", "varying", "origins"):
        assert checks[name]["skipped"] == [why]


def test_a_wrong_secret_is_found_without_a_service_account_too(place: Place) -> None:
    place.client(CALLER, serviceAccountsEnabled=False)
    place.set(client_secret=f"{place.secrets[CALLER][:-4]}wX9q")
    assert "unauthorized_client" in found(doctor(place, "--app", ON_BEHALF))["credentials"]


@pytest.mark.parametrize(("app", "asked"), [((), True), (("--app", APP), False)], ids=["no app", "an app"])
def test_a_missing_service_account_is_found_and_without_an_app_it_is_a_warning_that_says_who_needs_none(
    place: Place, app: tuple[str, ...], asked: bool
) -> None:
    place.client(CALLER, serviceAccountsEnabled=False)
    checks = doctor(place, *app)
    assert checks["credentials"]["state"] == ("warning" if asked else "problem")
    assert checks["kind"]["state"] == "skipped"
    seen = found(checks)["credentials"]
    assert "Service account roles" in seen
    assert ("or only on behalf of users, it needs no service account: name its app" in seen) is asked


# Tokens


@pytest.mark.parametrize(
    ("seconds", "state", "words"),
    [
        (20, "warning", "lives 20 s, less than the 30 s"),
        (300, "fine", ""),
        (3600, "fine", ""),
        (7200, "warning", "lives 2.0 h"),
    ],
)
def test_a_life_that_is_short_or_long_is_a_warning(place: Place, seconds: int, state: str, words: str) -> None:
    place.lifespan(seconds)
    checks = doctor(place)
    assert checks["lifetime"]["state"] == state
    assert words in found(checks).get("lifetime", "")


def test_claims_that_differ_between_two_tokens_are_named(place: Place) -> None:
    claims = {"azp": CALLER, "client_id": CALLER, "iss": "i", "iat": 1, "exp": 301, "aud": ["b", "a"], "scope": "x y"}
    answers = [jwt(**claims), jwt(**claims | {"aud": ["a", "b"], "scope": "y x", "now": "other", "jti": "2", "iat": 2})]
    for token in answers:
        place.issuer.faults.add("token", with_members(access_token=token))
    place.issuer.faults.add("certs", Fault(headers=(("Date", formatdate(usegmt=True)),)), times=None)
    seen = found(doctor(place))
    assert "Two tokens, requested one after the other, differ in now." in seen["varying"]


def test_a_large_token_is_a_warning(place: Place) -> None:
    place.realm["clients"][0]["protocolMappers"] = []
    place._changed("clients", "clientId", CALLER)["protocolMappers"] = [
        hardcoded(f"claim-{number}", "x" * 200) for number in range(30)
    ]
    seen = found(doctor(place))
    assert list(seen) == ["size"]
    assert "Switch off “Full scope allowed”" in seen["size"]


def test_a_call_without_an_audience_is_a_warning(place: Place) -> None:
    seen = found(doctor(place, "--app", "tests.operations.calling_app:anybody"))
    assert list(seen) == ["downstreams"]
    assert 'Write audience="..." in service_client(...).' in seen["downstreams"]


# The app


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("nope:app", "there is no module nope"),
        ("tests.operations.calling_app:nope", "tests.operations.calling_app has no nope."),
        ("tests.operations.calling_app:mistaken()", "cannot be imported: KEYCLOAK_URL must"),
        ("tests.operations.calling_app:mistaken()", "tests/operations/calling_app.py:"),
        ("tests.operations.calling_app:broken()", "RuntimeError at "),
        ("tests.operations.calling_app:RECEIVER", "calling_app:RECEIVER is no app: it is of the type str."),
        ("example_app.crm_gateway:app", 'Take require_audience("crm-api-gateway") out'),
    ],
)
def test_an_app_that_does_not_start_is_a_finding_and_the_rest_is_looked_at(place: Place, app: str, words: str) -> None:
    checks = doctor(place, "--app", app)
    assert list(found(checks)) == ["app"]
    assert words in found(checks)["app"]
    assert "hunter2" not in json.dumps(checks)
    assert checks["kind"]["state"] == "fine"


def with_partner(place: Place) -> str:
    """Give the service a client of another realm too, and return that realm's issuer."""
    theirs = place.issuer.environment("techstore", CALLER)
    place.changes |= {name.replace("KEYCLOAK_", "PARTNERS_"): value for name, value in theirs.items()}
    return f"{theirs['KEYCLOAK_URL']}/realms/techstore"


def test_the_token_of_a_call_with_settings_of_its_own_is_requested_with_them(place: Place) -> None:
    issuer = with_partner(place)
    place.set(client_secret="".join(reversed(place.secrets[CALLER])))  # not that of the call
    checks = doctor(place, "--app", "tests.operations.calling_app:calling_both()")
    assert set(found(checks)) == {"app", "credentials"}
    assert checks["others"]["seen"][-1] == f"{CALLER} of {issuer}: A token for {RECEIVER} is granted."

    place.set(client_secret=place.secrets[CALLER])
    place.changes["PARTNERS_CLIENT_SECRET"] = "".join(reversed(str(place.changes["PARTNERS_CLIENT_SECRET"])))
    checks = doctor(place, "--app", "tests.operations.calling_app:calling_both()")
    assert set(found(checks)) == {"app", "others"}
    assert found(checks)["others"].startswith(f"problem {CALLER} of {issuer}: ")
    assert "Correct PARTNERS_CLIENT_SECRET" in found(checks)["others"]


def test_an_app_whose_calls_all_have_settings_needs_no_environment(place: Place) -> None:
    issuer = with_partner(place)
    place.changes |= dict.fromkeys(place.environment().keys() & {"KEYCLOAK_CLIENT_ID", "KEYCLOAK_CLIENT_SECRET"})
    place.changes |= dict.fromkeys(("KEYCLOAK_URL", "KEYCLOAK_REALM"))
    checks = doctor(place, "--app", "tests.operations.calling_app:calling_partner()")
    assert set(found(checks)) == {"app"}
    assert f"expected issuer {issuer}, client {CALLER}" in checks["settings"]["seen"][0]
    assert checks["downstreams"]["seen"] == [f"A token for {RECEIVER} is granted."]


def test_a_further_realm_is_looked_at_and_one_that_is_not_there_is_found(place: Place) -> None:
    place.set(client_id=RECEIVER, client_secret=None)
    checks = doctor(place, "--app", "tests.operations.calling_app:of_two_realms()")
    assert found(checks) == {}
    assert any(": The realm techstore is there." in seen for seen in checks["others"]["seen"])

    checks = doctor(place, "--app", "tests.operations.calling_app:of_dead_partner()")
    assert list(found(checks)) == ["others"]
    assert "/realms/nobody: " in found(checks)["others"]


def test_an_access_file_names_the_further_realms_that_are_not_looked_at(place: Place, tmp_path: Path) -> None:
    place.set(client_id=RECEIVER, client_secret=None)
    partner = "https://partner.example/realms/techstore"
    file = tmp_path / "access.json"
    file.write_text(AccessFile((receiver(RECEIVER, require_caller("shop-api", realm=partner)),)).text)
    assert doctor(place, "--access", str(file))["others"]["skipped"] == [
        f"Not looked at, because an access file has no settings of them: {partner}."
    ]


def test_the_receiving_app_is_read_with_its_audience(place: Place) -> None:
    place.set(client_id=RECEIVER, client_secret=None)
    checks = doctor(place, "--app", "example_app.crm_gateway:app")
    assert found(checks) == {}
    assert checks["app"]["seen"][0] == f"The app accepts tokens for {RECEIVER}."


def test_an_app_without_the_middleware_is_a_warning_because_everybody_may_call_it(place: Place) -> None:
    checks = doctor(place, "--app", "tests.operations.calling_app:open_app")
    assert checks["app"]["state"] == "warning"
    assert (
        "it accepts requests without a token. Everybody may call it. Add it: app.add_middleware" in found(checks)["app"]
    )


def test_a_requirement_without_the_middleware_is_a_problem_because_the_route_answers_500(place: Place) -> None:
    checks = doctor(place, "--app", "tests.operations.calling_app:unprotected")
    assert checks["app"]["state"] == "problem"
    assert 'these routes, which require a caller, answer 500: "GET /tickets".' in found(checks)["app"]
    assert "app.add_middleware(ServiceAuthMiddleware)" in found(checks)["app"]


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("nope", "is no app: write module:app"),
        ("a:b; rm", "is no app"),
        ("a:b()()", "is no app"),
        ("tests.operations.calling_app:made", "made is a function. If it makes the app and does nothing else, write"),
        ("tests.operations.calling_app:made_for", "made_for is a function with arguments"),
    ],
)
def test_a_name_that_is_no_app_is_a_mistake_of_whoever_calls(place: Place, app: str, words: str) -> None:
    done = place.run("doctor", "--app", app)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


@pytest.mark.parametrize("variable", ["KEYCLOAK_ADMIN_CLIENT_SECRET", "KC_BOOTSTRAP_ADMIN_PASSWORD"])
def test_no_app_is_imported_beside_credentials_of_an_administrator(place: Place, variable: str) -> None:
    place.changes[variable] = "hunter2"
    done = place.run("doctor", "--app", APP)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Unset {variable}: the code of the app runs")
    assert place.run("doctor").exit_code == 0


# Access files, and an administrator


def test_an_access_file_without_a_middleware_and_with_a_route_is_a_warning(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "access.json"
    app = replace(caller(CALLER, RECEIVER), routes=(RouteEntry("/escalate", ("POST",)),))
    file.write_text(AccessFile((app, receiver(RECEIVER, require_caller(CALLER)))).text)
    checks = doctor(place, "--access", str(file))
    assert list(found(checks)) == ["app"]
    assert "it accepts requests without a token. Everybody may call it." in found(checks)["app"]
    assert checks["app"]["seen"] == [f"The app calls {RECEIVER}."]


@pytest.fixture
def access(tmp_path: Path) -> str:
    """Give the access file of the calling app and of the called one."""
    file = tmp_path / "access.json"
    file.write_text(AccessFile((caller(CALLER, RECEIVER), receiver(RECEIVER, require_caller(CALLER)))).text)
    return str(file)


def test_an_access_file_says_whom_the_service_calls_and_the_plan_is_named(place: Place, access: str) -> None:
    checks = doctor(place, "--access", access)
    assert found(checks) == {}
    assert checks["app"]["seen"] == ["The app has no route that anybody could call.", f"The app calls {RECEIVER}."]
    assert checks["downstreams"]["seen"] == [f"A token for {RECEIVER} is granted."]
    place.unassign(CALLER, "crm-audience")
    place.give_role(on=False)
    (finding,) = doctor(place, "--access", access)["downstreams"]["findings"]
    assert finding["plan"] == f"s2s-fastapi plan {access}"
    (finding,) = doctor(place, "--app", APP)["downstreams"]["findings"]
    assert finding["plan"] == f"s2s-fastapi plan {CALLER}.json {RECEIVER}.json"


def test_the_receivers_access_file_says_what_it_accepts(place: Place, access: str) -> None:
    place.set(client_id=RECEIVER, client_secret=None)
    checks = doctor(place, "--access", access)
    assert found(checks) == {}
    assert checks["app"]["seen"] == [
        f"The app accepts tokens for {RECEIVER}.",
        "The app calls no service that it declares.",
    ]


def test_a_lightweight_token_is_no_matter_of_a_plan(place: Place) -> None:
    place.client(CALLER, attributes={"client.use.lightweight.access.token.enabled": "true"})
    (finding,) = doctor(place, "--app", APP)["downstreams"]["findings"]
    assert "switch off “Always use lightweight access token”" in finding["cure"]
    assert "mapper" not in finding["cure"]
    assert finding["plan"] == ""


def test_a_wrong_client_id_is_asked_for_before_the_code_is_blamed(place: Place) -> None:
    cure = doctor(place, "--app", "example_app.crm_gateway:app")["app"]["findings"][0]["cure"]
    assert cure.startswith(f"Is KEYCLOAK_CLIENT_ID={CALLER} right for this app? If it is: ")


def test_an_access_file_of_another_service_is_a_warning(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(AccessFile((caller("other", RECEIVER),)).text)
    assert (
        f"No access file has an app with the client id {CALLER}"
        in found(doctor(place, "--access", str(file)))["downstreams"]
    )


def test_an_app_and_an_access_file_are_not_mixed(place: Place, access: str) -> None:
    for option in (("--access", access), ("--admin",)):
        done = place.run("doctor", "--app", APP, *option)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "--app imports code" in done.stderr


@pytest.mark.parametrize("scope", [(), "tickets:write"], ids=["audience", "scope"])
def test_a_fault_that_an_administrator_sees_is_one_finding(place: Place, scope: Any) -> None:
    place.unassign(CALLER, "crm-audience")
    place.give_role(on=False)
    realm = FakeKeycloak()
    realm.add_client(clientId=RECEIVER)
    realm.add_scope("crm-audience", RECEIVER)
    lists = {"defaultClientScopes": ["basic", "service_account", *["crm-audience"] * bool(scope)]}
    realm.add_client(clientId=CALLER, serviceAccountsEnabled=True, fullScopeAllowed=False, **lists)
    apps = (caller(CALLER, RECEIVER, scope=scope), receiver(RECEIVER, require_caller(CALLER)))
    with realm.api() as api:
        report = examined(Facts(apps=apps, files=("access.json",), settings=place.settings(), admin=api))
    checks = {check.name: check for check in report.checks}
    assert checks["downstreams"].results == (Skipped(f"No such token for {RECEIVER} is granted: see steps."),)
    assert [name for name, check in checks.items() if check.state == "problem"] == ["steps"]
    assert report.count("problem") == 1


def test_a_token_that_an_administrator_would_expect_and_that_is_not_granted_stays_a_finding(place: Place) -> None:
    place.unassign(CALLER, "crm-audience")
    place.give_role(on=False)
    realm = FakeKeycloak()
    realm.add_client(clientId=RECEIVER)
    realm.add_scope("crm-audience", RECEIVER)
    lists = {"defaultClientScopes": ["basic", "service_account", "crm-audience"]}
    realm.add_client(clientId=CALLER, serviceAccountsEnabled=True, fullScopeAllowed=False, **lists)
    apps = (caller(CALLER, RECEIVER), receiver(RECEIVER, require_caller(CALLER)))
    with realm.api() as api:
        report = examined(Facts(apps=apps, files=("access.json",), settings=place.settings(), admin=api))
    assert [check.name for check in report.checks if check.state == "problem"] == ["downstreams"]


def test_the_variables_of_an_administrator_are_needed_if_they_were_asked_for(place: Place) -> None:
    done = place.run("doctor", "--admin")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Set KEYCLOAK_ADMIN_CLIENT_ID" in done.stderr
    place.changes["KEYCLOAK_ADMIN_CLIENT_ID"] = "planner"
    checks = doctor(place)
    assert list(found(checks)) == ["admin"]
    assert checks["admin"]["state"] == "warning"
    assert "KEYCLOAK_ADMIN_CLIENT_SECRET_FILE" in found(checks)["admin"]


@pytest.mark.parametrize(("options", "state"), [((), "warning"), (("--admin",), "problem")])
def test_an_administrator_who_cannot_log_in_is_a_finding_and_the_rest_is_looked_at(
    place: Place, options: tuple[str, ...], state: str
) -> None:
    place.changes |= {"KEYCLOAK_ADMIN_CLIENT_ID": "planner", "KEYCLOAK_ADMIN_CLIENT_SECRET": "hunter2hunter2"}
    checks = doctor(place, *options)
    assert checks["admin"]["state"] == state
    assert "The admin client cannot log in." in found(checks)["admin"]
    assert "hunter2" not in json.dumps(checks)
    assert checks["steps"]["state"] == "skipped"
    assert checks["kind"]["state"] == "fine"


def test_console_requests_and_plan_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    change = Change("PUT", "/admin/realms/corp/clients/1", {"clientId": "[/team]\u200f", "enabled": True})
    finding = Finding(
        seen="a.", why="b.", cure="c.", console="Clients, x", changes=(change,), plan="s2s-fastapi plan a.json"
    )
    report = Report((Checked("client", (finding,)),))
    _print(report)
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "problem client a.",
        "Why: b.",
        "Cure: c.",
        "Console: Clients, x",
        'Admin API: PUT /admin/realms/corp/clients/1 {"clientId": "[/team]\\u200f", "enabled": true}',
        "Plan, with the access files of both services: s2s-fastapi plan a.json",
        "1 problem, 0 warnings.",
    ]
    valid(json.dumps(report.as_json()), "doctor")


def test_checks_that_are_skipped_for_one_reason_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    same = [Checked(name, (Skipped("No such variable."),)) for name in ("client", "steps", "expiry")]
    _print(Report((same[0], Checked("kind", (Skipped("Another."),)), *same[1:], Checked("tls", (Seen("https."),)))))
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "skipped 3 checks client, steps, expiry: No such variable.",
        "skipped kind Another.",
        "fine tls https.",
        "0 problems, 0 warnings.",
    ]


def test_web_origins_in_the_token_are_a_warning(place: Place) -> None:
    place.client(CALLER, webOrigins=["https://ui.example"])
    place._changed("clients", "clientId", CALLER)["protocolMappers"] = [
        {
            "name": "o",
            "protocol": "openid-connect",
            "protocolMapper": "oidc-allowed-origins-mapper",
            "config": {"access.token.claim": "true"},
        }
    ]
    seen = found(doctor(place))
    assert list(seen) == ["origins"]
    assert "allowed-origins: https://ui.example" in seen["origins"]


def test_independent_faults_are_all_found_at_once(place: Place) -> None:
    place.set(public_url="http://elsewhere.example", client_secret="changeme")
    place.changes["KEYCLOAK_SECRET_FILE"] = "x"
    place.issuer.faults.add("realm", answering(404), times=None)
    checks = doctor(place)
    assert list(found(checks)) == ["settings", "secret", "issuer", "revocation", "credentials"]
    assert checks["kind"]["skipped"] == ["First solve the problem of credentials."]
    assert checks["keys"]["state"] == "fine"


# What is printed


def test_each_finding_is_printed_with_why_and_cure(place: Place) -> None:
    place.unassign(CALLER, "crm-audience")
    place.give_role(on=False)
    done = place.run("doctor", "--app", APP)
    text = " ".join(done.stdout.split())
    assert done.exit_code == 1
    assert "problem downstreams token of chat-app-service has no aud" in text
    assert f"Why: Calls to {RECEIVER} are not sent." in text
    assert "Cure: Keycloak needs, of the steps A to D" in text
    assert text.endswith("1 problem, 0 warnings.")
    assert done.stderr.endswith(f"More help: {HELP}\n")
    assert "More help" not in place.run("doctor", "--json", "--app", APP).output


def test_the_page_that_a_failing_doctor_names_is_there() -> None:
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder, _, page = HELP.rpartition("/")
    assert project["urls"]["Documentation"] == f"{folder}/index.md"
    assert (DOCS / page).is_file()


def test_what_is_piped_has_one_line_for_each_sentence_however_long_it_is(place: Place) -> None:
    place.unassign(CALLER, "crm-audience")
    place.give_role(on=False)
    lines = place.run("doctor", "--app", APP).stdout.splitlines()
    (cure,) = (line.strip() for line in lines if "Cure:" in line)
    (finding,) = doctor(place, "--app", APP)["downstreams"]["findings"]
    assert cure == f"Cure: {finding['cure']}"
    assert len(cure) > 80
    assert not [line for line in lines if line != line.rstrip()]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_is_text_whatever_is_in_it(place: Place, name: str) -> None:
    place.hardcode("nbf", name)
    place.issuer.faults.add("discovery", with_members(issuer=name), times=None)
    place.issuer.faults.add("certs", rewritten(lambda body: _with_kid(body, name)), times=None)
    shown = place.run("doctor")
    printed = place.run("doctor", "--json")
    for text in (shown.stdout, printed.stdout):
        assert "\u200f" not in text
    joined = "".join(shown.stdout.split())
    assert name.replace("\u200f", "\ufffd").replace('"', '\\"') in joined
    checks = {check["name"]: check for check in valid(printed.stdout, "doctor")["checks"]}
    assert checks["issuer"]["state"] == "problem"
    assert checks["keys"]["state"] == "warning"


def _with_kid(body: bytes, kid: str) -> bytes:
    published = json.loads(body)
    published["keys"].append({**published["keys"][0], "kid": kid, "use": kid})
    return json.dumps(published).encode()


def test_every_check_is_on_the_page_in_its_order() -> None:
    listed = [
        plain(row[0]) for row in next(each for each in tables(DOCS / "doctor.md") if plain(each[0][0]) == "versions")
    ]
    assert listed == [name for name, _, _ in CHECKS]


def test_a_check_needs_only_checks_before_it() -> None:
    before: set[str] = set()
    for name, needs, _ in CHECKS:
        assert set(needs) <= before
        before.add(name)
