"""What the issuer keeps and shows is bounded."""

import httpx
import pytest

from example_app.realm import REALMS, Realm
from s2s_fastapi.testing import EmbeddedIssuer, Request, faults


def test_the_record_keeps_no_more_than_sixteen_megabytes() -> None:
    issuer = EmbeddedIssuer.read(REALMS["corp"])
    body = b"x" * 1024 * 1024
    for _ in range(40):
        issuer.answer(Request("POST", "/nowhere", (), body))

    kept = issuer.requests()
    assert sum(len(exchange.request.body) + len(exchange.response.body) for exchange in kept) <= 16 * 1024 * 1024
    assert len(kept) >= 14


@pytest.mark.parametrize("value", ["", None])
def test_a_user_without_a_password_opens_nothing(value: str | None) -> None:
    document = {
        "realm": "r",
        "enabled": True,
        "clients": [{"clientId": "ui", "publicClient": True, "directAccessGrantsEnabled": True}],
        "users": [{"username": "dora", "enabled": True, "credentials": [{"type": "password", "value": value}]}],
    }
    issuer = EmbeddedIssuer(document)
    with issuer.serving():
        realm = Realm("r", issuer.url, issuer.public_url, "", {})
        form = {"grant_type": "password", "client_id": "ui", "username": "dora"}
        answers = [realm.ask(**form), realm.ask(**form, password=""), realm.ask(**form, password="None")]

    assert all(answer.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.UNAUTHORIZED) for answer in answers)


def test_a_faults_body_is_in_no_repr() -> None:
    assert "SECRET" not in repr(faults.answering(200, '{"access_token": "SECRET"}'))
