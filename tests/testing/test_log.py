"""The log of the issuer: a line for each token, with what helps, and without a secret."""

import logging

import pytest

from s2s_fastapi.testing import EmbeddedIssuer
from tests.testing.asking import GRANT, LOGIN, ORIGIN, document, post

_UNKNOWN = "Invalid client or Invalid client credentials"


@pytest.fixture
def issuer(caplog: pytest.LogCaptureFixture) -> EmbeddedIssuer:
    caplog.set_level(logging.INFO, "s2s_fastapi.testing")
    return EmbeddedIssuer(document())


@pytest.mark.parametrize(
    ("form", "line"),
    [
        (GRANT, "corp: token for caller: audience receiver, scope profile email, 300 s"),
        (LOGIN, "corp: token for ui and the user dora: audience receiver, scope profile email, 300 s"),
        (
            {**GRANT, "client_secret": "wrong"},
            f"corp: no token for caller: 401 unauthorized_client: {_UNKNOWN}",
        ),
        ({**GRANT, "scope": "nope"}, "corp: no token for caller: 400 invalid_scope: Invalid scopes: nope"),
        ({}, "corp: no token for a client without an id: 400 invalid_request: Missing form parameter: grant_type"),
        (
            {**GRANT, "client_id": "x\n12:00 corp"},
            f'corp: no token for "x\N{REPLACEMENT CHARACTER}12:00 corp": 401 invalid_client: {_UNKNOWN}',
        ),
    ],
    ids=["service", "user", "wrong secret", "wrong scope", "empty form", "odd id"],
)
def test_a_token_and_a_refusal_are_a_line_each(
    issuer: EmbeddedIssuer, caplog: pytest.LogCaptureFixture, form: dict[str, str], line: str
) -> None:
    post(issuer, form)
    assert caplog.messages == [line]


def test_a_page_of_another_origin_is_named_with_what_to_change(
    issuer: EmbeddedIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    post(issuer, LOGIN, origin=ORIGIN)
    caplog.clear()
    post(issuer, LOGIN, origin="https://evil.example")
    assert caplog.messages == [
        "corp: the page https://evil.example may not read a token of ui: add this origin to the client's webOrigins if it may"
    ]


def test_a_token_in_the_wrong_field_is_not_logged(issuer: EmbeddedIssuer, caplog: pytest.LogCaptureFixture) -> None:
    token = issuer.service_token("corp", "caller")
    post(issuer, {**GRANT, "scope": token})
    post(issuer, {**GRANT, "client_id": token})
    assert token[:40] not in caplog.text
    assert len(caplog.messages) == 2


def test_nothing_is_logged_unless_somebody_asks_for_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    post(EmbeddedIssuer(document()), GRANT)
    assert [record for record in caplog.records if record.name == "s2s_fastapi.testing"] == []
