"""A refusal tells its caller a status, a challenge and one fixed sentence, on every kind of connection."""

from typing import Any, Literal

import anyio
import pytest
from fastapi import WebSocketException

from s2s_fastapi.answers import ProtectionSpace, answer, challenges, error_of, error_within, headers_of, placed
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import AuthenticationError, AuthorizationError, KeysUnavailable

DENIAL: dict[str, Any] = {"websocket.http.response": {}}
SPACE = ProtectionSpace("r")


def challenge(decision: Decision, space: ProtectionSpace) -> str:
    """Return the challenge of an app that accepts bearer tokens only: one, or none."""
    return "\n".join(challenges(decision, space))


async def receive() -> Any:
    raise NotImplementedError


def sent(scope: dict[str, Any], decision: Decision, space: ProtectionSpace = SPACE) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        messages.append(dict(message))

    anyio.run(answer(scope, decision, space), scope, receive, send)
    return messages


@pytest.mark.parametrize("reason", Reason)
def test_the_status_decides_whether_there_is_a_challenge(reason: Reason) -> None:
    value = challenge(Decision(reason=reason), SPACE)
    assert value.startswith('Bearer realm="r"') if reason.status in {400, 401, 403} else value == ""


@pytest.mark.parametrize(
    ("decision", "realm", "value"),
    [
        (Decision(reason=Reason.NO_CREDENTIALS), "r", 'Bearer realm="r"'),
        (Decision(reason=Reason.NO_CREDENTIALS), "", "Bearer"),
        (Decision(reason=Reason.REVOKED), "r", 'Bearer realm="r", error="invalid_token"'),
        (Decision(reason=Reason.REVOKED), "", 'Bearer error="invalid_token"'),
        (
            Decision(reason=Reason.EXPIRED),
            "r",
            'Bearer realm="r", error="invalid_token", error_description="The access token expired."',
        ),
        (
            Decision(reason=Reason.SCOPE_MISSING, scope="a b"),
            "r",
            'Bearer realm="r", error="insufficient_scope", scope="a b"',
        ),
        (Decision(reason=Reason.ROLE_MISSING), "r", 'Bearer realm="r", error="insufficient_scope"'),
        (Decision(reason=Reason.SCOPE_MISSING, scope='a"\n b é'), "", 'Bearer error="insufficient_scope", scope="b"'),
        (Decision(reason=Reason.SCOPE_MISSING, scope="é"), "", 'Bearer error="insufficient_scope"'),
    ],
)
def test_a_challenge_is_one_line_of_quoted_parameters(decision: Decision, realm: str, value: str) -> None:
    assert challenge(decision, ProtectionSpace(realm)) == value


@pytest.mark.parametrize("realm", ["a\\b", 'a"b', "日 本", "café", "a\r\nX: y", "a\tb", "a\x7fb"])
def test_a_challenge_leaves_the_realm_out_if_it_would_lose_a_character(realm: str) -> None:
    assert challenge(Decision(reason=Reason.NO_CREDENTIALS), ProtectionSpace(realm)) == "Bearer"
    assert challenge(Decision(reason=Reason.REVOKED), ProtectionSpace(realm)) == 'Bearer error="invalid_token"'


@pytest.mark.parametrize("realm", ["a b", "a, b=c", "it's", "~!", "a;b"])
def test_a_challenge_says_every_realm_that_quotes_can_hold(realm: str) -> None:
    assert challenge(Decision(reason=Reason.NO_CREDENTIALS), ProtectionSpace(realm)) == f'Bearer realm="{realm}"'


@pytest.mark.parametrize("reason", Reason)
def test_every_challenge_names_the_document_about_the_resource(reason: Reason) -> None:
    address = "https://tools.example.com/.well-known/oauth-protected-resource/mcp"
    value = challenge(Decision(reason=reason), ProtectionSpace("r", address))
    expected = f'Bearer realm="r", resource_metadata="{address}"'
    assert value.startswith(expected) if reason.status in {400, 401, 403} else value == ""


def test_all_reasons_before_the_signature_holds_share_one_sentence() -> None:
    early = [
        Reason.MALFORMED_TOKEN,
        Reason.UNSUPPORTED_HEADER,
        Reason.ALGORITHM_NOT_ALLOWED,
        Reason.UNKNOWN_KEY,
        Reason.INVALID_SIGNATURE,
    ]
    assert {(reason.status, reason.error, reason.detail) for reason in early} == {
        (401, "invalid_token", "The access token was not accepted.")
    }


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (Reason.INVALID_REQUEST, AuthenticationError),
        (Reason.WRONG_AUDIENCE, AuthenticationError),
        (Reason.NOT_A_SERVICE, AuthorizationError),
        (Reason.KEYS_UNAVAILABLE, KeysUnavailable),
    ],
)
def test_an_error_says_the_same_as_the_answer(reason: Reason, kind: type[Any]) -> None:
    decision = Decision(reason=reason, cure="the cure", retry_after=7)
    error: Any = error_of(decision, SPACE)
    assert type(error) is kind
    assert (error.status_code, error.detail, error.headers) == (
        reason.status,
        reason.detail,
        headers_of(decision, SPACE),
    )
    assert "the cure" in str(error)
    assert "the cure" not in error.detail


def test_only_missing_keys_say_when_to_come_again() -> None:
    assert headers_of(Decision(reason=Reason.KEYS_UNAVAILABLE, retry_after=7), SPACE) == {"Retry-After": "7"}
    assert headers_of(Decision(reason=Reason.NOT_STARTED, retry_after=7), SPACE) == {}


@pytest.mark.parametrize(("kind", "prefix"), [("http", "http"), ("websocket", "websocket.http")])
def test_an_answer_is_json_with_the_challenge(kind: str, prefix: str) -> None:
    start, body = sent({"type": kind, "extensions": DENIAL}, Decision(reason=Reason.NO_CREDENTIALS))
    text = b'{"detail":"This service needs a bearer access token."}'
    assert start == {
        "type": f"{prefix}.response.start",
        "status": 401,
        "headers": [
            (b"www-authenticate", b'Bearer realm="r"'),
            (b"content-length", str(len(text)).encode()),
            (b"content-type", b"application/json"),
        ],
    }
    assert body == {"type": f"{prefix}.response.body", "body": text}


@pytest.mark.parametrize(
    "extensions", [{}, {"extensions": None}, {"extensions": {}}, {"extensions": {"x": {}}}], ids=str
)
@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.NO_CREDENTIALS, 1008),
        (Reason.ROLE_MISSING, 1008),
        (Reason.KEYS_UNAVAILABLE, 1013),
        (Reason.NOT_STARTED, 1013),
    ],
)
def test_a_websocket_that_cannot_be_denied_is_closed(extensions: Any, reason: Reason, code: int) -> None:
    scope = {"type": "websocket", **extensions}
    assert sent(scope, Decision(reason=reason)) == [{"type": "websocket.close", "code": code, "reason": reason.detail}]
    error = error_within(scope, Decision(reason=reason), SPACE)
    assert isinstance(error, WebSocketException)
    assert (error.code, error.reason) == (code, reason.detail)


@pytest.mark.parametrize("scope", [{"type": "http"}, {"type": "websocket", "extensions": DENIAL}], ids=str)
def test_within_the_app_starlette_gets_an_error_it_answers(scope: Any) -> None:
    assert isinstance(error_within(scope, Decision(reason=Reason.ROLE_MISSING), SPACE), AuthorizationError)


@pytest.mark.parametrize("reason", Reason)
def test_a_close_reason_fits_its_frame(reason: Reason) -> None:
    assert len(reason.detail.encode()) <= 123


ALGORITHMS = ("ES256", "RS256")
BEARER, DPOP = 'Bearer realm="r"', 'DPoP realm="r", algs="ES256 RS256"'


def space(mode: Literal["", "accepted", "required"], *, dpop: bool) -> ProtectionSpace:
    made = ProtectionSpace("r", dpop=mode, algorithms=ALGORITHMS if mode else ())
    return made.under_dpop() if dpop else made


@pytest.mark.parametrize(
    ("reason", "mode", "dpop", "expected"),
    [
        (Reason.NO_CREDENTIALS, "", False, [BEARER]),
        (Reason.NO_CREDENTIALS, "accepted", False, [BEARER, DPOP]),
        (Reason.NO_CREDENTIALS, "required", False, [DPOP]),
        (Reason.SENDER_CONSTRAINED, "", False, ['Bearer realm="r", error="invalid_token"']),
        (Reason.SENDER_CONSTRAINED, "accepted", False, ['Bearer realm="r", error="invalid_token"', DPOP]),
        (Reason.SENDER_CONSTRAINED, "required", False, ['DPoP realm="r", error="invalid_token", algs="ES256 RS256"']),
        (Reason.SENDER_CONSTRAINED, "accepted", True, ['DPoP realm="r", error="invalid_token", algs="ES256 RS256"']),
        (
            Reason.EXPIRED,
            "accepted",
            False,
            ['Bearer realm="r", error="invalid_token", error_description="The access token expired."'],
        ),
        (Reason.REVOKED, "accepted", True, ['DPoP realm="r", error="invalid_token", algs="ES256 RS256"']),
        (Reason.NOT_BOUND, "accepted", False, ['DPoP realm="r", error="invalid_token", algs="ES256 RS256"']),
        (Reason.NOT_BOUND, "", False, ['Bearer realm="r", error="invalid_token"']),
        (Reason.BEARER_NOT_ACCEPTED, "required", False, ['DPoP realm="r", error="invalid_token", algs="ES256 RS256"']),
        (Reason.PROOF_MISSING, "accepted", True, ['DPoP realm="r", error="invalid_dpop_proof", algs="ES256 RS256"']),
        (Reason.REPLAY_STORE_UNAVAILABLE, "accepted", True, []),
    ],
)
def test_errors_are_told_under_the_scheme_of_the_request(
    reason: Reason, mode: Literal["", "accepted", "required"], dpop: bool, expected: list[str]
) -> None:
    found = space(mode, dpop=dpop)
    assert list(challenges(Decision(reason=reason), found)) == expected
    (start, _) = sent({"type": "http"}, Decision(reason=reason), found)
    fields = [value.decode() for name, value in start["headers"] if name == b"www-authenticate"]
    assert fields == expected  # each in a header field of its own


def test_an_error_has_the_first_challenge_and_the_headers_of_all() -> None:
    error = error_of(Decision(reason=Reason.NO_CREDENTIALS), space("accepted", dpop=False))
    assert isinstance(error, AuthenticationError)
    assert error.challenge == BEARER
    assert error.headers == {"WWW-Authenticate": BEARER, "www-authenticate": DPOP}


def test_a_challenge_that_a_route_raised_is_placed_under_the_scheme_of_the_request() -> None:
    raised = 'Bearer error="invalid_token"'
    assert placed(raised, space("accepted", dpop=False)) == 'Bearer realm="r", error="invalid_token"'
    assert placed(raised, space("accepted", dpop=True)) == 'DPoP realm="r", error="invalid_token", algs="ES256 RS256"'
