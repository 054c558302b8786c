"""The record tells a test everything, and a log nothing that is secret."""

import pytest

from s2s_fastapi.testing import EmbeddedIssuer, Request
from s2s_fastapi.testing.faults import answering, disconnecting
from s2s_fastapi.testing.record import Record
from tests.testing.asking import CERTS, GRANT, LOGIN, PASSWORD, SECRET, basic, body, get, post


def test_exchanges_are_kept_in_order_with_form_client_and_status(own: EmbeddedIssuer) -> None:
    post(own, GRANT | {"scope": "openid"})
    post(own, {"grant_type": "client_credentials"}, authorization=basic("caller", "wrong"))
    get(own, CERTS)
    get(own, "/nope")
    first, second, third, fourth = own.requests()
    assert (first.realm, first.endpoint, first.status, first.client_id) == ("corp", "token", 200, "caller")
    assert first.form == GRANT | {"scope": "openid"}
    assert (second.status, second.client_id) == (401, "caller")
    assert (third.endpoint, third.client_id, third.form) == ("certs", "", {})
    assert (fourth.realm, fourth.endpoint, fourth.status) == ("", None, 404)
    assert own.requests("token") == (first, second)
    assert own.requests(realm="corp") == (first, second, third)
    assert own.requests("certs", realm="nope") == ()
    own.requests.clear()
    assert own.requests() == ()


def test_a_fault_is_recorded_with_what_was_sent(own: EmbeddedIssuer) -> None:
    own.faults.add("token", answering(503))
    own.faults.add("token", disconnecting())
    post(own, GRANT)
    post(own, GRANT)
    assert [exchange.status for exchange in own.requests()] == [503, 0]
    assert own.requests()[0].fault == answering(503)


def test_the_record_is_bounded(own: EmbeddedIssuer) -> None:
    own.requests = Record(kept=3)
    for number in range(5):
        get(own, f"/nope/{number}")
    assert [exchange.request.path for exchange in own.requests()] == ["/nope/2", "/nope/3", "/nope/4"]


@pytest.mark.parametrize(
    ("form", "authorization"),
    [
        (GRANT, None),
        ({"grant_type": "client_credentials"}, basic("caller", SECRET)),
        (LOGIN, None),
        (GRANT | {"client_assertion": f"header.{SECRET}.signature", "refresh_token": PASSWORD, "code": SECRET}, None),
        (f"client_secret={SECRET}&broken=%zz", None),
        (f"{SECRET}={SECRET}", None),
    ],
)
def test_no_secret_password_or_token_is_in_a_repr(
    own: EmbeddedIssuer, form: dict[str, str] | str, authorization: str | None
) -> None:
    answer = post(own, form, authorization=authorization)
    shown = repr([own.requests(), answer])
    hidden = [PASSWORD, (authorization or "Basic x").partition(" ")[2] if authorization else SECRET]
    if answer.status == 200:
        hidden.append(body(answer)["access_token"])
    if not (isinstance(form, str) and form.startswith(SECRET)):
        hidden.append(SECRET)
        assert not [secret for secret in hidden if secret in shown]
    assert f"={SECRET}" not in shown


def test_a_repr_names_the_harmless_fields(own: EmbeddedIssuer) -> None:
    post(own, GRANT | {"scope": "openid"})
    shown = repr(own.requests())
    for harmless in ("client_credentials", "caller", "openid", "'client_secret': '<redacted>'"):
        assert harmless in shown


def test_a_query_is_in_no_repr() -> None:
    assert SECRET not in repr(Request("GET", f"/realms/corp?client_secret={SECRET}"))
