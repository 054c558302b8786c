"""The span `verify token`: for what is verified, and with nothing in it that nobody vouches for."""

from typing import Any

import httpx
import pytest
from opentelemetry.trace import SpanKind, StatusCode

from tests.kit.realm import DECIDING, Clock, Decide, Realm, SigningKey, as_if_fetches_took_5_seconds, token_verifier
from tests.kit.tracing import Traces, Tree, request


@pytest.fixture(params=DECIDING)
def decide(request: pytest.FixtureRequest) -> Decide:
    return DECIDING[request.param]


def told(traces: Traces) -> dict[str, Any]:
    """Return the attributes of the one verification, without the name of the package in front."""
    attributes = traces.one("verify token").attributes or {}
    return {name.removeprefix("s2s_fastapi."): value for name, value in attributes.items()}


def test_a_new_token_is_verified_in_a_span_of_the_request(realm: Realm, traces: Traces, decide: Decide) -> None:
    with request() as server:
        decide(token_verifier(realm), realm.token())

    keys: Tree = ("fetch keys", [("GET", []), ("GET", [])])
    assert traces.below(server) == [("verify token", [keys])]
    assert traces.one("verify token").kind is SpanKind.INTERNAL


def test_a_token_that_is_known_has_no_span(realm: Realm, traces: Traces, decide: Decide) -> None:
    verifier, token = token_verifier(realm), realm.token()
    for _ in range(3):
        decide(verifier, token)

    assert traces.names.count("verify token") == 1


def test_a_known_token_has_no_span_while_the_keys_are_stale(realm: Realm, traces: Traces, decide: Decide) -> None:
    monotonic = Clock(1000.0)
    verifier, token = token_verifier(realm, monotonic=monotonic), realm.token()
    decide(verifier, token)
    monotonic.advance(500)
    decide(verifier, token)

    assert traces.names.count("verify token") == 1


def test_a_known_token_that_waits_for_keys_shows_the_wait_and_no_verification(
    realm: Realm, traces: Traces, decide: Decide
) -> None:
    monotonic = Clock(1000.0)
    verifier, token = token_verifier(realm, monotonic=monotonic), realm.token()
    decide(verifier, token)
    monotonic.advance(4000)
    with request() as server:
        decide(verifier, token)

    assert traces.below(server) == [("fetch keys", [("GET", []), ("GET", [])])]


def test_an_accepted_token_is_recorded_with_caller_key_and_audience(
    realm: Realm, traces: Traces, decide: Decide
) -> None:
    decide(token_verifier(realm), realm.token(jti="trrtcc:1", aud=["crm-api-gateway", "billing"]))

    assert told(traces) == {
        "outcome": "allowed",
        "reason": "allowed",
        "caller": "chat-app-service",
        "token_id": "trrtcc:1",
        "kid": realm.key.kid,
        "issuer": realm.issuer,
        "audience": "billing crm-api-gateway",
    }
    assert traces.one("verify token").status.status_code is StatusCode.UNSET


def test_a_token_refused_after_its_signature_is_recorded_with_its_caller(
    realm: Realm, traces: Traces, decide: Decide
) -> None:
    decide(token_verifier(realm), realm.token(jti="trrtcc:1", exp=1_000_000, iat=999_900))

    assert told(traces) == {
        "outcome": "refused",
        "reason": "expired",
        "caller": "chat-app-service",
        "token_id": "trrtcc:1",
        "kid": realm.key.kid,
        "issuer": realm.issuer,
        "audience": "crm-api-gateway",
    }


def test_a_refusal_is_no_error_of_the_service(realm: Realm, traces: Traces) -> None:
    token_verifier(realm).decide(realm.token(aud="billing"))

    assert traces.one("verify token").status.status_code is StatusCode.UNSET
    assert "error.type" not in told(traces)


@pytest.mark.parametrize("forged", ["signature", "key"])
def test_of_a_token_that_nobody_signed_only_the_kid_is_recorded_and_as_unverified(
    realm: Realm, traces: Traces, decide: Decide, forged: str
) -> None:
    other = SigningKey("RS256", kid=realm.key.kid if forged == "signature" else "another")
    verifier = token_verifier(realm, monotonic=as_if_fetches_took_5_seconds(realm))
    decide(verifier, realm.token(key=other, jti="of-the-forger", client_id="of-the-forger"))

    assert told(traces) == {
        "outcome": "refused",
        "reason": "invalid_signature" if forged == "signature" else "unknown_key",
        "unverified_kid": other.kid,
    }


def test_of_what_is_no_token_nothing_is_recorded(realm: Realm, traces: Traces, decide: Decide) -> None:
    decide(token_verifier(realm), "eyJhbGciOiJub25lIn0.e30.")

    assert set(told(traces)) == {"outcome", "reason"}


def test_a_span_that_had_no_keys_is_an_error(realm: Realm, traces: Traces, decide: Decide) -> None:
    realm.answer = lambda _: httpx.Response(500)
    decide(token_verifier(realm), realm.token())

    span = traces.one("verify token")
    assert told(traces) == {"outcome": "failed", "reason": "keys_unavailable", "error.type": "keys_unavailable"}
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is not None
    assert span.status.description.startswith("Keycloak's keys could not be loaded")
    assert not span.events


def test_a_kid_of_the_forgers_choice_is_printable_and_short(realm: Realm, traces: Traces) -> None:
    kid = "\r\n\x1b[31m\u202e" + "k" * 150
    verifier = token_verifier(realm, monotonic=as_if_fetches_took_5_seconds(realm))
    verifier.decide(realm.token(key=SigningKey("ES256", kid=kid)))

    shown = told(traces)["unverified_kid"]
    assert shown.isprintable()
    assert 0 < len(shown) <= 64


@pytest.mark.parametrize("claim", ["client_id", "jti"])
def test_what_a_registered_client_chose_is_printable_and_short(realm: Realm, traces: Traces, claim: str) -> None:
    value = "\r\n\x1b[31m\u202e" + "x" * 5000
    claims: dict[str, Any] = {claim: value, **({"azp": value} if claim == "client_id" else {})}
    token_verifier(realm).decide(realm.token(**claims))

    for shown in told(traces).values():
        assert shown.isprintable()
        assert len(shown) <= 256


def test_many_audiences_are_recorded_as_sixteen_short_ones(realm: Realm, traces: Traces) -> None:
    many = [f"{number:04}\n" + "a" * 300 for number in range(30)]
    verdict = token_verifier(realm).decide(realm.token(aud=["crm-api-gateway", *many]))

    assert verdict.principal is not None
    shown = told(traces)["audience"].split(" ")
    assert len(shown) == 16
    assert all(text.isprintable() and len(text) <= 256 for text in shown)


def test_a_request_whose_trace_is_not_recorded_is_decided_all_the_same(realm: Realm) -> None:
    from opentelemetry import context, trace

    unsampled = trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=True, trace_flags=trace.TraceFlags(0)))
    attached = context.attach(trace.set_span_in_context(unsampled))
    try:
        assert token_verifier(realm).decide(realm.token()).accepted
    finally:
        context.detach(attached)
