"""What doctor, token and explain say of bound tokens: each fault is made on purpose, and gone after the cure."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from s2s_fastapi import KeycloakSettings, ServiceAuthMiddleware, require_bound, require_caller
from s2s_fastapi.backchannel.channel import Reply
from s2s_fastapi.caller.granted import GrantedToken
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.decision import Reason
from s2s_fastapi.declared.access_file import AccessFile, AppAccess
from s2s_fastapi.errors import TokenRequestError
from s2s_fastapi.keycloak.dpop import ABOUT_PROOFS, SUPPORTED
from s2s_fastapi.operations.checks import bound as bound_checks
from s2s_fastapi.operations.checks.bound import check_bound
from s2s_fastapi.operations.checks.client import check_client
from s2s_fastapi.operations.checks.table import examined
from s2s_fastapi.operations.facts import Answer, Facts
from s2s_fastapi.operations.findings import Change, Finding, Result, Seen, Skipped
from s2s_fastapi.operations.inspection import Inspection
from s2s_fastapi.operations.steps import RequireBinding
from s2s_fastapi.testing import EmbeddedIssuer
from tests.kit.admin_rest import FakeKeycloak
from tests.kit.console import CALLER, RECEIVER, Paper
from tests.kit.declaring import bound, caller, receiver
from tests.operations.place import OTHER_REALM, Place
from tests.operations.schemas import valid

APP = "tests.operations.calling_app:app"
URL = "https://crm.example.com"
FORCED = {"dpop.bound.access.tokens": "true"}
NOW = 1_800_000_000
LEDGER = replace(receiver("ledger", require_caller("reporter")), dpop="accepted")


def doctor(place: Place, *arguments: object) -> dict[str, Any]:
    done = place.run("doctor", "--json", *arguments)
    assert "eyJ" not in done.output
    return {check["name"]: check for check in valid(done.stdout, "doctor")["checks"]}


def problems(checks: dict[str, Any]) -> dict[str, str]:
    return {
        name: " ".join(finding["seen"] + " " + finding["cure"] for finding in check["findings"])
        for name, check in checks.items()
        if check["findings"]
    }


# doctor, in the environment of a service


def test_a_service_that_binds_its_tokens_is_fine_and_is_told_what_remains_of_the_window(place: Place) -> None:
    place.set(dpop="true")
    checks = doctor(place, "--app", APP)

    assert problems(checks) == {}
    assert checks["downstreams"]["seen"] == [f"A bound token for {RECEIVER} is granted."]
    first, second, *_, clocks = checks["bound"]["seen"]
    assert first == "This Keycloak binds tokens to the key of a proof (DPoP)."
    assert second == f"Whether it gives {CALLER} bearer tokens too, only an administrator sees."
    assert "Keycloak accepts a proof that is at most 25 s old and 15 s ahead." in clocks
    assert "s of it remain." in clocks


def test_a_client_that_must_bind_its_tokens_and_does_not_is_found_and_cured_by_the_variable(place: Place) -> None:
    place.client(CALLER, attributes=FORCED)
    found = problems(doctor(place, "--app", APP))
    assert list(found) == ["credentials"]
    assert "KEYCLOAK_DPOP" in found["credentials"]

    place.set(dpop="true")
    assert problems(doctor(place, "--app", APP)) == {}


@pytest.fixture(scope="module")
def old() -> Iterator[EmbeddedIssuer]:
    issuer = EmbeddedIssuer(Paper().realm, OTHER_REALM, version="26.0.8")
    with issuer.serving():
        yield issuer


def test_a_keycloak_that_binds_no_tokens_is_found_with_the_version_that_does(old: EmbeddedIssuer, place: Place) -> None:
    there = Place(old)
    there.set(dpop="true")
    found = problems(doctor(there, "--app", APP))

    assert set(found) == {"credentials", "bound"}
    assert "Keycloak ignored the proof" in found["credentials"]
    assert found["bound"].startswith("This Keycloak binds no tokens. Bound tokens need Keycloak 26.4 or newer")
    there.set(dpop=None)
    assert problems(doctor(there, "--app", APP)) == {}


# doctor, by the access files


def clocks_apart(seconds: float) -> Answer:
    """Return an answer of Keycloak, whose clock is ahead of this host's."""
    date = formatdate(NOW + seconds, usegmt=True)
    return Answer("http://keycloak.test", Reply(200, httpx.Headers({"Date": date}), b"{}"), "", NOW + 0.5)


def facts_of(
    *apps: AppAccess, server: FakeKeycloak | None = None, apart: float = 0.0, able: bool = True, **settings: Any
) -> Facts:
    given = {"url": "http://keycloak.test", "realm": "corp", "client_id": "reporter", "client_secret": "the-services"}
    facts = Facts(
        apps=apps,
        files=("access.json",),
        admin=None if server is None else server.api(),
        settings=KeycloakSettings(**{**given, **settings}),
        clock=lambda: NOW,
    )
    page = json.dumps({SUPPORTED: ["ES256"]} if able else {}).encode()
    vars(facts).update(
        certs=clocks_apart(apart), discovery=Answer("http://keycloak.test", Reply(200, httpx.Headers(), page), "", NOW)
    )
    return facts


def seen_of(*apps: AppAccess, **more: Any) -> list[Result]:
    return list(check_bound(facts_of(*apps, **more)))


def findings(results: list[Result]) -> list[Finding]:
    return [each for each in results if isinstance(each, Finding)]


def test_nothing_is_said_if_nobody_binds_tokens() -> None:
    plain = receiver("ledger", require_caller("reporter"))
    assert seen_of(caller("reporter", "ledger"), plain) == [
        Skipped("This service sends no bound tokens and accepts none (dpop).")
    ]


def test_a_setting_for_calls_counts_for_an_app_that_declares_none_only_if_it_gets_a_token() -> None:
    plain = receiver("ledger", require_caller("reporter"))
    facts = facts_of(plain, client_id="ledger", dpop=True, able=False)
    answers: dict[Any, Any] = vars(facts)["_tokens"]
    answers[Wanted(), True] = TokenRequestError("no service account")
    assert list(check_bound(facts)) == [Skipped("This service sends no bound tokens and accepts none (dpop).")]

    answers[Wanted(), True] = GrantedToken("eyJ", 300)
    (finding,) = findings(list(check_bound(facts)))
    assert finding.seen == "This Keycloak binds no tokens."


def test_a_receiver_that_would_refuse_bound_tokens_is_a_problem_with_the_order_of_the_changes() -> None:
    (finding,) = findings(seen_of(bound("reporter", "ledger"), receiver("ledger", require_caller("reporter"))))

    assert (finding.level, finding.seen) == (
        "problem",
        "ledger refuses bound tokens, and calls to it are made with bound tokens.",
    )
    assert finding.why == "ledger answers 401 (no_credentials)."
    assert finding.cure.startswith('Write dpop="accepted" and public_url=... in ServiceAuthMiddleware of ledger')
    assert finding.cure.index("on receivers") < finding.cure.index("on callers")
    assert findings(seen_of(bound("reporter", "ledger"), LEDGER)) == []


def test_a_receiver_that_requires_bound_tokens_is_a_problem_for_a_caller_without_them() -> None:
    strict = replace(LEDGER, dpop="required")
    (finding,) = findings(seen_of(caller("reporter", "ledger"), strict))

    assert finding.why == "ledger answers 401 (bearer_not_accepted)."
    assert "Write dpop=True in the call of reporter, or set its KEYCLOAK_DPOP=true" in finding.cure
    assert findings(seen_of(bound("reporter", "ledger"), strict)) == []


def test_a_route_that_requires_a_bound_token_is_a_warning_for_a_caller_without_one() -> None:
    both = replace(
        receiver("ledger", require_caller("reporter"), require_caller("reporter") & require_bound()), dpop="accepted"
    )
    (finding,) = findings(seen_of(caller("reporter", "ledger"), both))

    assert finding.level == "warning"
    assert finding.seen == "POST /1 of ledger requires a bound token, and calls to it are made with bearer tokens."
    either = replace(receiver("ledger", require_caller("reporter") | require_bound()), dpop="accepted")
    assert findings(seen_of(caller("reporter", "ledger"), either)) == []


CERTIFICATE_BOUND = {"tls.client.certificate.bound.access.tokens": "true"}


def certified(**attributes: str) -> FakeKeycloak:
    server = FakeKeycloak()
    server.add_client(clientId="reporter", serviceAccountsEnabled=True, attributes=attributes)
    return server


def test_a_receiver_that_refuses_certificate_bound_tokens_is_a_problem_if_those_of_this_service_are_bound_so() -> None:
    calls, plain = caller("reporter", "ledger"), receiver("ledger", require_caller("reporter"))
    (finding,) = findings(seen_of(calls, plain, server=certified(**CERTIFICATE_BOUND)))

    assert (finding.level, finding.why) == ("problem", "ledger answers 401 (sender_constrained).")
    assert (
        finding.seen
        == "ledger refuses tokens that are bound to a client certificate, and calls to it are made with such tokens."
    )
    assert finding.cure.startswith("Write client_certificate=... in ServiceAuthMiddleware of ledger")
    assert seen_of(calls, replace(plain, client_certificate=True), server=certified(**CERTIFICATE_BOUND)) == [
        Seen("ledger accepts tokens that are bound to a client certificate.")
    ]
    assert findings(seen_of(calls, plain, server=certified())) == []


def test_a_route_that_requires_a_bound_token_has_the_cure_that_its_service_takes() -> None:
    paid = replace(receiver("ledger", require_caller("reporter") & require_bound()), client_certificate=True)
    (finding,) = findings(seen_of(caller("reporter", "ledger"), paid, server=certified()))

    assert finding.level == "warning"
    assert "KEYCLOAK_CLIENT_CERT_FILE" in finding.cure
    assert "DPOP" not in finding.cure
    assert findings(seen_of(caller("reporter", "ledger"), paid, server=certified(**CERTIFICATE_BOUND))) == []


def test_a_plan_that_binds_tokens_to_a_certificate_is_no_advice_to_ask_for_proofs() -> None:
    step = RequireBinding(client="reporter", certificate=True)
    facts = facts_of(caller("reporter", "ledger"), server=certified(), dpop="true")
    assert isinstance(facts.inspection, Inspection)
    facts.inspection = replace(facts.inspection, steps=(step,))
    assert findings(list(check_bound(facts))) == []
    (change,) = facts.inspection.requests((step,))
    assert change.body["attributes"] == CERTIFICATE_BOUND


def test_a_receiver_whose_file_was_not_given_is_said() -> None:
    results = seen_of(bound("reporter", "ledger"))
    assert (
        Seen("Whether ledger accepts bound tokens was not looked at: its access file was not given (--access).")
        in results
    )


@pytest.mark.parametrize(
    ("apart", "level", "words"),
    [
        (0.0, "", "agree (to 1 s). Keycloak accepts a proof that is at most 25 s old and 15 s ahead."),
        (
            12.0,
            "",
            "is 12 s ahead of this host's. Keycloak accepts a proof that is at most 25 s old and 15 s ahead. 13 s of it remain.",
        ),
        (
            -12.0,
            "",
            "is 12 s behind this host's. Keycloak accepts a proof that is at most 25 s old and 15 s ahead. 3 s of it remain.",
        ),
        (24.0, "", "1 s of it remain."),
        (26.0, "warning", "is 26 s ahead of this host's."),
        (-14.0, "", "1 s of it remain."),
        (-16.0, "warning", "is 16 s behind this host's."),
        (599.0, "warning", "is 599 s ahead of this host's."),
        (601.0, "problem", "is 601 s ahead of this host's."),
        (-601.0, "problem", "is 601 s behind this host's."),
    ],
)
def test_the_clocks_of_a_caller_are_compared_in_seconds(apart: float, level: str, words: str) -> None:
    results = seen_of(bound("reporter", "ledger"), LEDGER, apart=apart)

    assert [finding.level for finding in findings(results)] == [level] * bool(level)
    assert any(words in str(each) for each in results), results
    if level:
        assert findings(results)[0].cure.startswith("Compare the clocks")


@pytest.mark.parametrize(
    ("offset", "level"), [(24.0, ""), (26.0, "problem"), (-14.0, ""), (-16.0, "problem"), (-601.0, "problem")], ids=str
)
def test_a_clock_that_no_date_corrects_is_a_problem_for_the_first_token(
    offset: float, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bound_checks, "clock_offset", lambda facts: (offset, "iat of its token"))
    found = findings(seen_of(bound("reporter", "ledger"), LEDGER))

    assert [finding.level for finding in found] == [level] * bool(level)
    if level and abs(offset) < 600:
        assert found[0].why == (
            "Keycloak's answers have no Date, so the first token request with a proof is refused (DPoP proof is not active)."
        )


def test_clocks_that_nothing_compares_are_said_with_what_the_first_token_request_needs() -> None:
    facts = facts_of(bound("reporter", "ledger"), LEDGER, client_secret=None)
    vars(facts).update(certs=Answer("http://keycloak.test", Reply(200, httpx.Headers(), b"{}"), "", NOW))
    assert any(
        "a clock that is at most 15 s ahead of Keycloak's or 25 s behind it" in str(each) for each in check_bound(facts)
    )


@pytest.mark.parametrize(("apart", "found"), [(9.0, False), (11.0, True), (-29.0, False), (-31.0, True)], ids=str)
def test_the_clocks_of_a_receiver_are_compared_with_those_by_which_callers_make_proofs(
    apart: float, found: bool
) -> None:
    own = replace(receiver("reporter", require_caller("billing")), dpop="required")
    results = seen_of(own, apart=apart)

    assert [finding.why for finding in findings(results)] == ["Good proofs are refused (invalid_proof)."] * found
    assert found or any("1 s of it remain for proofs that are made by Keycloak's." in str(each) for each in results)


def test_an_answer_without_a_date_is_said() -> None:
    facts = facts_of(replace(LEDGER, client_id="reporter"), client_secret=None)
    vars(facts).update(certs=Answer("http://keycloak.test", Reply(200, httpx.Headers(), b"{}"), "", NOW))
    assert Seen(
        "The clocks were not compared: Keycloak's answer has no Date, and there is no token to compare."
    ) in list(check_bound(facts))


# doctor, with an administrator's rights


def keycloak(**reporter: Any) -> FakeKeycloak:
    server = FakeKeycloak(old=reporter.pop("old", False))
    server.add_client(clientId="ledger", fullScopeAllowed=False)
    server.add_scope("for-the-ledger", "ledger")
    lists = {"defaultClientScopes": ["basic", "service_account", "for-the-ledger"]}
    server.add_client(
        **{"clientId": "reporter", "serviceAccountsEnabled": True, "fullScopeAllowed": False, **lists, **reporter}
    )
    return server


def test_a_client_that_also_gets_bearer_tokens_is_a_warning_and_the_change_cures_it() -> None:
    server, apps = keycloak(attributes={"access.token.lifespan": "60"}), (bound("reporter", "ledger"), LEDGER)
    (finding,) = findings(seen_of(*apps, server=server))

    assert (finding.level, finding.seen) == ("warning", "Keycloak also gives reporter bearer tokens.")
    assert finding.console == "Clients, reporter, Settings, Capability config, Require DPoP bound tokens"
    assert finding.plan == "s2s-fastapi plan access.json"
    (change,) = finding.changes
    assert change == Change(
        "PUT",
        f"/admin/realms/corp/clients/{server.client_id('reporter')}",
        {
            "clientId": "reporter",
            "serviceAccountsEnabled": True,
            "authorizationServicesEnabled": False,
            "attributes": FORCED,
        },
    )
    answer = server.answer(
        httpx.Request("PUT", f"http://keycloak.test{change.path}", content=json.dumps(change.body).encode())
    )
    assert answer.is_success
    results = seen_of(*apps, server=server)
    assert findings(results) == []
    assert Seen("Keycloak gives reporter bound tokens only.") in results


def test_a_client_that_gets_bound_tokens_only_is_right_if_the_service_asks_for_them_and_a_problem_if_not() -> None:
    server = keycloak(attributes=FORCED)

    assert findings(list(check_client(facts_of(bound("reporter", "ledger"), LEDGER, server=server)))) == []
    (finding,) = findings(list(check_client(facts_of(caller("reporter", "ledger"), LEDGER, server=server))))
    assert finding.seen == "The client reporter needs a DPoP proof (dpop.bound.access.tokens)."
    assert finding.cure.startswith("Set KEYCLOAK_DPOP=true for the service reporter, or switch")
    assert findings(list(check_client(facts_of(server=server, dpop=True)))) == []


def test_an_old_server_is_known_by_its_version() -> None:
    (finding,) = findings(seen_of(bound("reporter", "ledger"), LEDGER, server=keycloak(old=True), able=True))
    assert finding.seen == "This Keycloak binds no tokens."
    (finding,) = findings(seen_of(bound("reporter", "ledger"), LEDGER, able=False))
    assert finding.why == "Calls with bound tokens are not sent."


# token


def receiving(place: Place) -> FastAPI:
    app = FastAPI(openapi_url=None)
    settings = place.settings(client_id=RECEIVER, client_secret=None)
    app.add_middleware(ServiceAuthMiddleware, settings=settings, dpop="required", public_url=URL)
    app.get("/tickets")(lambda: "ok")
    app.get("/others")(lambda: "ok")
    return app


def headers_in(text: str) -> dict[str, str]:
    """Return the headers as a shell and curl read them."""
    words = shlex.split(text)
    assert words[::2] == ["-H", "-H"]
    return dict(word.split(": ", 1) for word in words[1::2])


def test_the_printed_headers_are_good_for_one_request_to_the_url(place: Place) -> None:
    done = place.run("token", "--for", RECEIVER, "--dpop", "GET", f"{URL}/tickets?page=2")
    assert done.exit_code == 0, done.output
    assert done.stderr == (
        f"The proof is good for one GET request to {URL}/tickets?page=2 within 30 s. Make another one for each further request.\n"
    )
    headers = headers_in(done.stdout)
    assert list(headers) == ["Authorization", "DPoP"]
    with TestClient(receiving(place), base_url="http://testserver") as client:
        assert client.get("/others", headers=headers).status_code == 401
        assert client.get("/tickets", headers={"Authorization": headers["Authorization"]}).status_code == 401
        assert client.get("/tickets?page=2", headers=headers).status_code == 200
        assert client.get("/tickets?page=2", headers=headers).status_code == 401


def test_the_headers_are_printed_as_lines_or_as_json_too(place: Place) -> None:
    lines = place.run("token", "--for", RECEIVER, "--dpop", "GET", f"{URL}/tickets", "--header").stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["Authorization", "DPoP"]
    assert lines[0].startswith("Authorization: DPoP eyJ")

    printed = valid(
        place.run("token", "--for", RECEIVER, "--dpop", "GET", f"{URL}/tickets", "--json").stdout, "token-dpop"
    )
    assert (printed["method"], printed["url"], printed["seconds"]) == ("GET", f"{URL}/tickets", 30)
    assert list(printed["headers"]) == ["Authorization", "DPoP"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["GET", "crm.example.com"], "is no URL to call: it does not start with http:// or https://"),
        (["GET", "https://u:p@crm.example.com/"], "a user name or password does not belong in it"),
        (["get it", f"{URL}/"], "is no method of HTTP"),
        (["GET", f"{URL}/", "--raw"], "leave --raw out"),
        (["GET", f"{URL}/", "--header", "--json"], "Choose one of"),
    ],
)
def test_a_wrong_question_is_one_sentence_and_nothing_is_requested(
    place: Place, arguments: list[str], words: str
) -> None:
    before = len(place.issuer.requests("token"))
    done = place.run("token", "--for", RECEIVER, "--dpop", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert len(place.issuer.requests("token")) == before


def test_a_token_that_keycloak_does_not_grant_prints_its_cure_alone(old: EmbeddedIssuer, place: Place) -> None:
    done = place.run("token", "--for", "billing", "--dpop", "GET", f"{URL}/")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "expected billing" in done.stderr
    printed = place.run("token", "--for", "billing", "--dpop", "GET", f"{URL}/", "--json")
    assert valid(printed.stdout, "token")["accepted"] is False

    there = Place(old)
    done = there.run("token", "--for", RECEIVER, "--dpop", "GET", f"{URL}/")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Keycloak ignored the proof" in done.stderr


# explain


def written(tmp_path: Path, *apps: AppAccess) -> list[object]:
    found: list[object] = []
    for app in apps:
        file = tmp_path / f"{app.client_id}.json"
        file.write_text(AccessFile((app,)).text)
        found += ["--access", file]
    return found


def explained(place: Place, *arguments: object, stdin: str = "") -> dict[str, Any]:
    done = place.run("explain", "--json", *arguments, stdin=stdin)
    assert "eyJ" not in done.output
    return valid(done.stdout, "explain")


CRM = replace(receiver(RECEIVER, require_caller(CALLER), require_caller(CALLER) & require_bound()), dpop="accepted")


def reasons(printed: dict[str, Any]) -> list[str]:
    return [route["reason"] for route in printed["routes"]]


def test_a_question_about_a_bound_token_is_answered_for_one(place: Place, tmp_path: Path) -> None:
    realm = tmp_path / "realm.json"
    realm.write_text(json.dumps(place.realm))
    asked = ["--client", CALLER, "--to", RECEIVER, "--realm-file", realm]

    assert reasons(explained(place, *asked, *written(tmp_path, CRM))) == ["allowed", "not_bound"]
    printed = explained(place, *asked, "--dpop", *written(tmp_path, CRM))
    assert (reasons(printed), printed["question"]["dpop"], printed["token"]["binding"]) == (
        ["allowed"] * 2,
        True,
        "dpop",
    )
    # The caller's access file says it too.
    assert reasons(explained(place, *asked, *written(tmp_path, CRM, bound(CALLER, RECEIVER)))) == ["allowed"] * 2
    refusing = replace(CRM, dpop="")
    assert reasons(explained(place, *asked, "--dpop", *written(tmp_path, refusing))) == ["no_credentials"] * 2
    requiring = replace(CRM, dpop="required")
    assert reasons(explained(place, *asked, *written(tmp_path, requiring))) == ["bearer_not_accepted"] * 2


def test_a_client_that_must_bind_its_tokens_gets_none_without_a_proof(place: Place, tmp_path: Path) -> None:
    place.client(CALLER, attributes=FORCED)
    realm = tmp_path / "realm.json"
    realm.write_text(json.dumps(place.realm))
    asked = ["--client", CALLER, "--to", RECEIVER, "--realm-file", realm, *written(tmp_path, CRM)]

    printed = explained(place, *asked)
    assert printed["reason"] == "no_credentials"
    assert "Set KEYCLOAK_DPOP=true" in printed["cure"]
    assert "With --dpop" in printed["cure"]
    assert explained(place, *asked, "--dpop")["reason"] == "allowed"


def test_a_bound_token_on_stdin_is_judged_as_one(place: Place, tmp_path: Path) -> None:
    shown = place.run("token", "--for", RECEIVER, "--dpop", "GET", f"{URL}/", "--header")
    token = shown.stdout.splitlines()[0]

    printed = explained(place, "--to", RECEIVER, *written(tmp_path, CRM), stdin=token)
    assert (printed["reason"], reasons(printed)) == ("allowed", ["allowed"] * 2)
    assert "its signature holds" in printed["source"]
    refusing = explained(place, "--to", RECEIVER, *written(tmp_path, replace(CRM, dpop="")), stdin=token)
    assert reasons(refusing) == ["no_credentials"] * 2
    assert 'dpop="accepted"' in refusing["routes"][0]["cure"]


@pytest.mark.parametrize("reason", sorted(ABOUT_PROOFS))
def test_a_record_about_a_proof_is_explained_by_what_stands_in_no_realm(
    place: Place, tmp_path: Path, reason: str
) -> None:
    realm = tmp_path / "realm.json"
    realm.write_text(json.dumps(place.realm))
    binding = "" if reason in ("not_bound", "bearer_not_accepted") else "dpop"
    record = json.dumps(
        {"reason": reason, "client_id": CALLER, "method": "POST", "route": "/0", "cure": "the cure", "binding": binding}
    )
    for arguments in ([], ["--to", RECEIVER, "--realm-file", realm, *written(tmp_path, CRM)]):
        printed = explained(place, *arguments, stdin=record)
        assert printed["hints"][0] == ABOUT_PROOFS[reason]
        assert [(route["reason"], route["cure"]) for route in printed["routes"]] == [(reason, "the cure")]
        assert not printed["accepted"]


def test_every_reason_about_a_proof_has_its_words() -> None:

    proofs = {str(reason) for reason in Reason if reason.error == "invalid_dpop_proof"}
    assert proofs | {"not_bound", "bearer_not_accepted", "replay_store_unavailable"} == ABOUT_PROOFS.keys()


def test_doctor_as_a_whole_makes_the_check() -> None:
    assert "bound" in [check.name for check in examined(facts_of(LEDGER)).checks]
