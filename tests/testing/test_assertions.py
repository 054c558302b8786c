"""Assertions at the embedded issuer: its answers are Keycloak's (tests/real plays the same rows on real servers)."""

import json
from collections.abc import Mapping
from urllib.parse import urlencode

import pytest

from s2s_fastapi.testing import EmbeddedIssuer, Request, Response
from tests.kit.assertions import CLIENTS, ROWS, Row, form_of
from tests.testing.asking import TOKEN, document

VERSIONS = ("26.7.3", "26.0.8")


@pytest.fixture(scope="module", params=VERSIONS)
def signed(request: pytest.FixtureRequest) -> EmbeddedIssuer:
    return EmbeddedIssuer(document(clients=list(CLIENTS)), version=request.param)


def post(issuer: EmbeddedIssuer, form: Mapping[str, str]) -> Response:
    headers = (("Content-Type", "application/x-www-form-urlencoded"),)
    return issuer.answer(Request("POST", TOKEN, headers, urlencode(form).encode()))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_assertion_is_judged_as_keycloak_judges_it(signed: EmbeddedIssuer, row: Row) -> None:
    answer = post(signed, form_of(row, signed.issuer("corp"), jti=row.name))

    expected = row.new if signed.version == VERSIONS[0] else row.old
    body = json.loads(answer.body)
    if expected is None:
        assert (answer.status, "access_token" in body) == (200, True), body
    else:
        assert (answer.status, body["error"]) == expected[:2], body
        assert body["error_description"].startswith(expected[2])


def test_an_assertion_is_taken_once_by_whichever_client(signed: EmbeddedIssuer) -> None:
    form = form_of(ROWS[0], signed.issuer("corp"), jti="once")
    again = form_of(Row(name="", client="signs-too", new=None, old=None), signed.issuer("corp"), jti="once")

    answers = [post(signed, one) for one in (form, form, again)]

    assert [answer.status for answer in answers] == [200, 400, 400]
    assert all(json.loads(answer.body)["error_description"].endswith("Token reuse detected") for answer in answers[1:])


def test_an_id_that_was_refused_is_not_used_up(signed: EmbeddedIssuer) -> None:
    wrong = Row(name="", claims={"aud": "x"}, new=None, old=None)

    answers = [post(signed, form_of(row, signed.issuer("corp"), jti="refused first")) for row in (wrong, ROWS[0])]

    assert [answer.status for answer in answers] == [400, 200]


def test_an_id_is_free_again_when_its_assertion_has_ended() -> None:
    now = 1_000_000.0
    issuer = EmbeddedIssuer(document(clients=list(CLIENTS)), clock=lambda: now)
    mint = issuer._realm("corp").assertions

    assert mint.add("a", now + 60, now)
    assert not mint.add("a", now + 60, now + 60)
    assert mint.add("a", now + 120, now + 61)


def test_a_client_that_signs_has_no_secret() -> None:
    issuer = EmbeddedIssuer(document(clients=list(CLIENTS)), url="http://127.0.0.1:8180")

    assert set(issuer.secrets("corp")) == {"secret"}
    assert issuer.environment("corp", "signs") == {
        "KEYCLOAK_URL": "http://127.0.0.1:8180",
        "KEYCLOAK_REALM": "corp",
        "KEYCLOAK_CLIENT_ID": "signs",
        "KEYCLOAK_CLIENT_AUTH": "private_key_jwt",
    }
