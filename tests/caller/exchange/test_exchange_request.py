"""One exchange: what is sent to Keycloak, which answers are believed, and what its errors mean."""

import logging
import time
from dataclasses import replace
from typing import Any

import pytest

from s2s_fastapi.backchannel.channel import BackChannelError, Reply
from s2s_fastapi.caller.exchange.exchanged_tokens import ExchangedTokens
from s2s_fastapi.caller.granted import GrantedToken
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.engine.steps import run
from s2s_fastapi.errors import AudienceNotGranted, ConfigurationError, S2SError, SessionEnded, TokenRequestError
from tests.caller.exchange.fakes import ACCESS_TOKEN, CLIENT, INVALID_TOKEN, ISSUER, NOW, ExchangingKeycloak, Wall, user
from tests.caller.fakes import SECRET, refusal, reply, settings
from tests.caller.federated import federated, token
from tests.kit.reported import reported

BOB = Wanted.of("bob", "bob-aud")


def exchanged(tokens: ExchangedTokens, name: str = "ann", wanted: Wanted = BOB, **changes: Any) -> GrantedToken:
    return run(tokens.token(settings(), wanted, user(name, **changes)))


def refused(tokens: ExchangedTokens, name: str = "ann") -> S2SError:
    with pytest.raises(S2SError) as error:
        exchanged(tokens, name)
    return error.value


def test_the_request_is_that_of_rfc_8693(tokens: ExchangedTokens, keycloak: ExchangingKeycloak) -> None:
    token = exchanged(tokens)

    (asked,) = keycloak.requests
    assert asked.url == "http://keycloak:8080/realms/corp/protocol/openid-connect/token"
    assert asked.form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "scope": "bob-aud",
        "subject_token": user().text,
        "subject_token_type": ACCESS_TOKEN,
        "requested_token_type": ACCESS_TOKEN,
    }
    assert set(asked.headers) == {"Authorization"}
    assert token.value != user().text


BELIEVED: dict[str, dict[str, Any]] = {
    "the type in any case": {"body": {"token_type": "bEARER"}},
    "one audience as text": {"claims": {"aud": "bob"}},
    "no word of the scope": {"body": {"scope": None}},
    "a life that is said once": {"body": {"expires_in": None}},
}


@pytest.mark.parametrize("answer", BELIEVED.values(), ids=BELIEVED)
def test_a_right_answer_is_believed(
    answer: dict[str, Any], tokens: ExchangedTokens, keycloak: ExchangingKeycloak
) -> None:
    vars(keycloak).update(answer)

    assert exchanged(tokens).life == 300


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "another user": ({"claims": {"sub": "id-of-bea"}}, "the sub of its token is not id-of-ann"),
    "no user": ({"claims": {"sub": None}}, "the sub"),
    "another session": ({"claims": {"sid": "session-of-bea"}}, "the sid of its token is not session-of-ann"),
    "no session": ({"claims": {"sid": None}}, "the sid"),
    "another client": ({"claims": {"azp": "front-end"}}, "belongs to front-end"),
    "another issuer": ({"claims": {"iss": f"{ISSUER}-of-mallory"}}, f"the iss of its token is not {ISSUER}"),
    "a token of another kind": ({"claims": {"typ": "ID"}}, "no bearer access token"),
    "a token of no kind": ({"claims": {"typ": None}}, "no bearer access token"),
    "a token for the holder of a key": ({"claims": {"cnf": {"jkt": "x"}}}, "no bearer access token"),
    "no client": ({"claims": {"azp": None}}, "the azp of its token is not chat-app-service"),
    "an ID token": ({"body": {"token_type": "N_A"}}, "token_type N_A, not Bearer"),
    "bound to a key": ({"body": {"token_type": "DPoP"}}, "token_type DPoP"),
    "no type": ({"body": {"token_type": None}}, "no known token_type"),
    "a refresh token": (
        {"body": {"issued_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}},
        "issued_token_type is not",
    ),
    "no issued type": ({"body": {"issued_token_type": None}}, "issued_token_type is not"),
    "an issued type that is no text": ({"body": {"issued_token_type": [ACCESS_TOKEN]}}, "issued_token_type is not"),
    "dead already": ({"life": 0}, "expired already"),
    "opaque": ({"body": {"access_token": "opaque"}}, "not a JWT that can be read"),
    "none": ({"body": {"access_token": None}}, "no access_token"),
}


@pytest.mark.parametrize(("answer", "said"), LIES.values(), ids=LIES)
def test_an_answer_that_is_not_the_users_token_for_us_is_not_used(
    answer: dict[str, Any], said: str, tokens: ExchangedTokens, keycloak: ExchangingKeycloak
) -> None:
    vars(keycloak).update(answer)

    error = refused(tokens)

    assert isinstance(error, TokenRequestError)
    assert said in str(error)
    assert error.status_code == 503
    assert not error.retryable
    assert len(keycloak.requests) == 1
    keycloak.claims, keycloak.body, keycloak.life = {}, {}, 300
    assert exchanged(tokens, "carl").life == 300, "another user's exchange is not refused for it"


@pytest.mark.parametrize("aud", [None, "account", ["account", "charles"]])
def test_a_token_that_is_not_for_whom_it_was_asked_for_is_not_used(
    aud: Any, tokens: ExchangedTokens, keycloak: ExchangingKeycloak
) -> None:
    keycloak.aud = aud

    error = refused(tokens)

    assert isinstance(error, AudienceNotGranted)
    assert "add one (Client scopes, the scope, Mappers)" in error.cure
    assert error.wanted == {"bob"}


def test_an_exchange_without_a_scope_names_what_to_ask_for(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak
) -> None:
    keycloak.aud = None

    with pytest.raises(AudienceNotGranted, match="No scope was requested: for an Optional scope write its name"):
        exchanged(tokens, wanted=Wanted.of("bob", None))


def test_the_roles_that_count_are_the_users(tokens: ExchangedTokens, keycloak: ExchangingKeycloak) -> None:
    keycloak.aud, keycloak.body = None, {"scope": "profile"}

    assert "if the user has none of those roles" in str(refused(tokens))


def test_audiences_that_nobody_asked_for_are_one_warning_with_the_scopes_to_look_at(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, caplog: pytest.LogCaptureFixture
) -> None:
    keycloak.aud = ["bob", "charles", "dora"]

    exchanged(tokens, "ann")
    exchanged(tokens, "bea")

    reported()
    (warned,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "is also for charles, dora, which nobody asked for" in warned
    assert "the scope bob-aud and of the default client scopes of chat-app-service" in warned


@pytest.mark.parametrize(
    ("wanted", "said"),
    [(Wanted.of("bob", ["openid", "bob-aud"]), "ID token"), (Wanted.of(None, "bob-aud"), "needs audience=")],
)
def test_what_no_service_would_accept_is_not_asked_for(
    wanted: Wanted, said: str, tokens: ExchangedTokens, keycloak: ExchangingKeycloak
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        exchanged(tokens, wanted=wanted)

    assert keycloak.requests == []


ENABLED = "Standard token exchange is not enabled for the requested client"
ERRORS: dict[str, tuple[Reply | BackChannelError, str, str]] = {
    "not enabled": (
        refusal(400, "invalid_request", ENABLED),
        'Switch "Standard Token Exchange" on for the client chat-app-service',
        "client",
    ),
    "public": (
        refusal(400, "invalid_client", "Public client is not allowed to exchange token"),
        'Switch "Client authentication" on',
        "client",
    ),
    "wrong secret": (
        refusal(401, "unauthorized_client", "Invalid client or Invalid client credentials"),
        "Correct KEYCLOAK_CLIENT_SECRET",
        "client",
    ),
    "unknown client": (refusal(401, "invalid_client", "Invalid client"), "Set KEYCLOAK_CLIENT_ID", "client"),
    "Keycloak 26.0": (
        refusal(400, "unsupported_grant_type", "Unsupported grant_type"),
        "need Keycloak 26.2 or newer",
        "client",
    ),
    "unreachable": (BackChannelError("cannot connect"), "Is Keycloak up", "client"),
    "too large": (BackChannelError("the answer is larger than 262144 bytes", connected=True), "", "user"),
    "not JSON": (reply(200, b"{"), "", "user"),
    "a proxy's page": (reply(502, b"<html>"), "", "client"),
    "overloaded": (reply(503, b"", {"Retry-After": "20"}), "", "client"),
    "an unknown scope": (
        refusal(400, "invalid_scope", "Invalid scopes: bob-aud"),
        "Assign bob-aud to the client chat-app-service",
        "wanted",
    ),
    "no consent": (
        refusal(400, "invalid_scope", "Missing consents for Token Exchange in client chat-app-service"),
        'Switch "Consent required" off',
        "user",
    ),
    "not in the audience": (
        refusal(403, "access_denied", "Client is not within the token audience"),
        "add an Audience mapper for chat-app-service to a client scope of the front end",
        "user",
    ),
    "sender-constrained": (
        refusal(400, "invalid_request", "Sender-constrained token exchange rejected as the token was not issued"),
        "A sender-constrained user token (DPoP or mTLS) cannot be exchanged",
        "user",
    ),
    "DPoP wanted": (
        refusal(400, "invalid_request", "DPoP proof is missing"),
        "Set KEYCLOAK_DPOP=true",
        "user",
    ),
    "a mapper that broke": (refusal(500, "unknown_error", "For more on this error consult the server log"), "", "user"),
    "what nobody foresaw": (refusal(400, "invalid_request", "Something new"), "", "user"),
}


@pytest.mark.parametrize(("answer", "cure", "concerned"), ERRORS.values(), ids=ERRORS)
def test_each_of_keycloaks_errors_has_its_cure_and_is_remembered_for_those_whom_it_concerns(
    answer: Reply | BackChannelError, cure: str, concerned: str, tokens: ExchangedTokens, keycloak: ExchangingKeycloak
) -> None:
    keycloak.answers = [answer]

    error = refused(tokens, "ann")

    assert isinstance(error, TokenRequestError)
    assert cure in error.cure
    assert str(refused(tokens, "ann")) == str(error)
    assert len(keycloak.requests) == 1, "the same user does not ask again at once"
    charles = Wanted.of("charles", "charles-aud")
    keycloak.aud = ["bob", "charles"]
    for name, wanted in (("bea", BOB), ("bea", charles)):
        reaches = concerned == "user" or (concerned == "wanted" and wanted is charles)
        before = len(keycloak.requests)
        if reaches:
            exchanged(tokens, name, wanted)
        else:
            with pytest.raises(TokenRequestError):
                exchanged(tokens, name, wanted)
        assert len(keycloak.requests) == before + reaches


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (ERRORS["wrong secret"][0], 30),
        (ERRORS["unreachable"][0], 5),
        (ERRORS["not enabled"][0], 5),
        (ERRORS["overloaded"][0], 20),
    ],
    ids=["wrong secret", "unreachable", "not enabled", "overloaded"],
)
def test_a_failure_that_concerns_everybody_is_asked_about_again_after_its_time(
    answer: Any, seconds: float, tokens: ExchangedTokens, keycloak: ExchangingKeycloak, clock: Any
) -> None:
    keycloak.answers = [answer]
    first = refused(tokens)

    clock.now += seconds - 0.1
    refused(tokens, "bea")
    assert len(keycloak.requests) == 1
    clock.now += 0.1
    exchanged(tokens, "bea")

    assert isinstance(first, TokenRequestError)
    assert first.retry_after == (seconds if first.retryable else None)


def test_after_five_users_in_a_row_without_an_answer_it_is_keycloak_that_hangs(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, clock: Any
) -> None:
    silent = BackChannelError("no complete answer within 5 s", connected=True)
    keycloak.answers = [silent] * 4
    for name in ("ann", "bea", "carl", "dora"):
        refused(tokens, name)
    exchanged(tokens, "emil")
    keycloak.answers = [silent] * 5

    for name in ("ann", "bea", "carl", "dora"):
        clock.now += 6
        refused(tokens, name)
    exchange_is_tried = len(keycloak.requests)
    refused(tokens, "fay")
    assert len(keycloak.requests) == exchange_is_tried + 1
    refused(tokens, "gus")
    assert len(keycloak.requests) == exchange_is_tried + 1, "nobody else waits for it"

    clock.now += 6
    exchanged(tokens, "gus")


def test_a_session_that_is_over_is_a_401_to_the_user(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keycloak.logged_out = {"session-of-ann"}

    error = refused(tokens)

    assert isinstance(error, SessionEnded)
    assert (error.status_code, error.headers) == (401, {"WWW-Authenticate": 'Bearer error="invalid_token"'})
    reported()
    (said,) = [record.getMessage() for record in caplog.records]
    assert "the user id-of-ann for chat-app-service" in said


def test_an_echo_of_the_users_token_or_of_the_secret_is_left_out(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak
) -> None:
    signature = user().text.rpartition(".")[2]
    echoes = {"ann": user("ann").text, "bea": f"bad signature {signature}", "carl": f"bad secret {SECRET}"}
    for name, echo in echoes.items():
        keycloak.answers = [refusal(400, "invalid_request", echo)]
        error = refused(tokens, name)
        assert isinstance(error, TokenRequestError)
        assert not any(secret in str(error) + error.error_description for secret in (echo, signature, SECRET))


def test_the_log_says_user_and_service_and_never_a_token(
    tokens: ExchangedTokens, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    token = exchanged(tokens)

    reported()
    (said,) = [record.getMessage() for record in caplog.records if record.name == "s2s_fastapi.caller"]
    assert said == (
        "exchanged a token of the user id-of-ann (session of front-end) for chat-app-service, which calls bob: token ntrtte:1"
    )
    assert token.value not in caplog.text
    assert user().text not in caplog.text


def test_after_five_users_in_a_row_it_is_keycloaks_issuer_and_no_users_fault(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, caplog: pytest.LogCaptureFixture
) -> None:
    kept = exchanged(tokens, "kept")
    keycloak.always = INVALID_TOKEN

    assert [type(refused(tokens, f"user-{number}")) for number in range(4)] == [SessionEnded] * 4
    fifth, sixth = refused(tokens, "user-4"), refused(tokens, "user-5")

    for error in (fifth, sixth):
        assert isinstance(error, TokenRequestError)
        assert error.status_code == 503
        assert error.headers == {"Retry-After": "5"}
        assert "KC_HOSTNAME" in error.cure
        assert "KEYCLOAK_PUBLIC_URL" in error.cure
        assert "http://keycloak:8080/realms/corp" in error.cure
    reported()
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [str(fifth)]
    assert exchanged(tokens, "kept").value == kept.value, "another user's token is not refused for it"
    keycloak.always = None
    exchanged(tokens, "user-6")
    keycloak.always = INVALID_TOKEN
    assert isinstance(refused(tokens, "user-7"), SessionEnded)


def test_one_user_who_tries_again_and_again_is_one_user(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, clock: Any
) -> None:
    keycloak.always = INVALID_TOKEN

    for _ in range(7):
        clock.now += 10
        assert isinstance(refused(tokens, "ann"), SessionEnded)
    assert len(keycloak.requests) == 7


def test_a_token_that_expired_while_it_was_exchanged_is_not_used(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, wall: Wall
) -> None:
    def slowly(asked: Any) -> Reply:
        wall.now = NOW + 290.0
        return keycloak.exchange(asked, 1)

    keycloak.answers = [slowly]

    assert isinstance(refused(tokens), SessionEnded)


def test_a_secret_that_was_rotated_in_its_file_is_read_again(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, clock: Any, tmp_path: Any
) -> None:
    file = tmp_path / "secret"
    file.write_text("old")
    given = settings(client_secret=None, client_secret_file=file)
    keycloak.answers = [refusal(401, "unauthorized_client")] * 2

    with pytest.raises(TokenRequestError, match="Correct the secret"):
        run(tokens.token(given, BOB, user()))
    file.write_text("another secret")
    with pytest.raises(TokenRequestError, match="Correct the secret"):
        run(tokens.token(given, BOB, user("bea")))
    file.write_text("a third secret")
    clock.now += 5

    assert run(tokens.token(given, BOB, user("carl"))).life == 300
    assert len(keycloak.requests) == 3


def test_the_token_of_a_platform_proves_the_client_of_an_exchange_and_a_new_key_of_it_is_tried_again_after_3_s(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, clock: Any, tmp_path: Any
) -> None:
    file = tmp_path / "token"
    file.write_text(token(iat=time.time(), exp=time.time() + 3600))
    given = federated(file)
    keycloak.answers = [refusal(401, "invalid_client", "Invalid client or Invalid client credentials")]

    for name, later in (("ann", 0.0), ("bea", 2.9)):
        clock.now += later
        with pytest.raises(TokenRequestError, match="must know the key of the token"):
            run(tokens.token(given, BOB, user(name)))
    assert len(keycloak.requests) == 1
    clock.now += 0.5

    assert run(tokens.token(given, BOB, user("carl"))).life == 300
    form = keycloak.requests[-1].form
    assert (form["client_id"], form["client_assertion"]) == ("chat-app-service", file.read_text())
    assert form["subject_token"] != form["client_assertion"]

    file.write_text(token(aud="x"))
    clock.now += 400
    with pytest.raises(TokenRequestError, match="so it was not sent"):
        run(tokens.token(given, BOB, user("dan")))
    assert len(keycloak.requests) == 2


def test_a_secret_that_is_rotated_while_the_exchange_is_under_way_is_sent_in_the_same_exchange(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, tmp_path: Any
) -> None:
    file = tmp_path / "secret"
    file.write_text("old")

    def rotating(asked: Any) -> Reply:
        file.write_text("new")
        return refusal(401, "unauthorized_client")

    keycloak.answers = [rotating]

    run(tokens.token(settings(client_secret=None, client_secret_file=file), BOB, user()))

    assert len({asked.headers["Authorization"] for asked in keycloak.requests}) == 2


def test_a_secret_that_worked_before_is_tried_once_more_by_the_next_user(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak
) -> None:
    exchanged(tokens, "ann")
    keycloak.answers = [refusal(401, "unauthorized_client")]  # of a node that is out of date

    refused(tokens, "bea")

    assert exchanged(tokens, "carl").value
    keycloak.always = refusal(401, "unauthorized_client")
    for name in ("dora", "emil", "fay"):
        refused(tokens, name)
    assert len(keycloak.requests) == 5, "one more, and then no other user asks"


def test_our_own_client_is_named(tokens: ExchangedTokens, keycloak: ExchangingKeycloak) -> None:
    keycloak.answers = [refusal(400, "invalid_request", ENABLED)]

    assert f"Keycloak gave {CLIENT} no token" in str(refused(tokens))


CERTIFICATE = "o" * 43


@pytest.mark.parametrize(
    ("cnf", "shown", "used"),
    [
        ({"x5t#S256": CERTIFICATE}, CERTIFICATE, True),
        (None, CERTIFICATE, True),
        ({"x5t#S256": "a" * 43}, CERTIFICATE, False),
        ({"x5t#S256": CERTIFICATE}, "", False),
        ({"jkt": "x"}, CERTIFICATE, False),
    ],
)
def test_an_exchanged_token_is_bound_to_the_certificate_that_was_shown_or_to_nothing(
    cnf: Any, shown: str, used: bool, tokens: ExchangedTokens, keycloak: ExchangingKeycloak
) -> None:
    keycloak.claims = {} if cnf is None else {"cnf": cnf}
    keycloak.answers = [lambda asked: replace(keycloak.exchange(asked, 1), certificate=shown)]

    if used:
        assert exchanged(tokens).certificate == (CERTIFICATE if cnf else "")
        assert exchanged(tokens).certificate == (CERTIFICATE if cnf else ""), "also when it is remembered"
        assert len(keycloak.requests) == 1
    else:
        assert isinstance(refused(tokens), TokenRequestError)


def test_a_certificate_that_is_refused_concerns_every_user(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak
) -> None:
    keycloak.always = BackChannelError("the server does not accept the client certificate CN=x", certificate=True)
    for name in ("ann", "bea"):
        error = refused(tokens, name)
        assert isinstance(error, TokenRequestError)
        assert not error.retryable
    assert len(keycloak.requests) == 1
