"""Attacks on calls on behalf of users: whose token is kept for whom, what a lying answer does, and where the user's token goes."""

import asyncio
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from s2s_fastapi.backchannel.channel import Reply
from s2s_fastapi.caller.exchange.exchanged_tokens import ExchangedTokens
from s2s_fastapi.caller.exchange.subject import Subject
from s2s_fastapi.caller.token_source import TokenSource
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.engine.steps import arun, run
from s2s_fastapi.errors import NoUserToActFor, S2SError, SessionEnded, TokenRequestError
from tests.caller.exchange.fakes import ACCESS_TOKEN, CLIENT, NOW, ExchangingKeycloak, Wall, claims_of_user, read, user
from tests.caller.fakes import Asked, Clock, Receiver, jwt, reply, settings
from tests.caller.test_frames import Tracker, tracker
from tests.kit.reported import reported

__all__ = ["tracker"]

BOB, CHARLES = Wanted.of("bob", "bob-aud"), Wanted.of("charles", "charles-aud")


@pytest.fixture
def exchanging() -> ExchangingKeycloak:
    return ExchangingKeycloak(aud=["bob", "charles"])


@pytest.fixture
def tokens(exchanging: ExchangingKeycloak, clock: Clock) -> ExchangedTokens:
    return ExchangedTokens(channel=exchanging, clock=clock, wall=Wall())


def test_users_and_audiences_that_come_all_at_once_never_get_each_others_token(
    tokens: ExchangedTokens, exchanging: ExchangingKeycloak
) -> None:
    seen: dict[tuple[str, Wanted], set[str]] = {}

    async def one(name: str, wanted: Wanted) -> None:
        token = await arun(tokens.token(settings(), wanted, user(name)))
        assert (read(token.value)["sub"], read(token.value)["sid"]) == (f"id-of-{name}", f"session-of-{name}")
        seen.setdefault((name, wanted), set()).add(token.value)

    async def everybody() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                for name in map(str, range(50)):
                    for wanted in (BOB, CHARLES):
                        group.create_task(one(name, wanted))

    asyncio.run(everybody())

    assert len(seen) == len(exchanging.requests) == 100
    assert len(set().union(*seen.values())) == 100


def test_an_answer_that_a_cache_gives_to_everybody_is_used_for_one_user_only(
    tokens: ExchangedTokens, exchanging: ExchangingKeycloak
) -> None:
    first = exchanging.exchange(Asked("", {"grant_type": "exchange", "subject_token": user("ann").text}, {}), 1)
    exchanging.always = first

    assert run(tokens.token(settings(), BOB, user("ann"))).value
    for name in ("bea", "carl"):
        with pytest.raises(TokenRequestError, match="the sub of its token is not"):
            run(tokens.token(settings(), BOB, user(name)))
    with pytest.raises(TokenRequestError, match="the sid of its token is not"):
        run(tokens.token(settings(), BOB, user("ann", sid="a later session", jti="later")))


TWISTED: dict[str, dict[str, Any]] = {
    "sub": {"claims": {"sub": "id-of-mallory"}},
    "sid": {"claims": {"sid": "session-of-mallory"}},
    "azp": {"claims": {"azp": "mallory"}},
    "iss": {"claims": {"iss": "http://keycloak:8080/realms/mallory"}},
    "typ": {"claims": {"typ": "ID"}},
    "cnf": {"claims": {"cnf": {"jkt": "x"}}},
    "aud": {"aud": ["account"]},
    "token_type": {"body": {"token_type": "N_A"}},
    "issued_token_type": {"body": {"issued_token_type": "urn:ietf:params:oauth:token-type:id_token"}},
}


@pytest.mark.parametrize("twisted", TWISTED)
def test_an_answer_that_lies_in_one_thing_is_neither_used_nor_kept(
    twisted: str, tokens: ExchangedTokens, exchanging: ExchangingKeycloak
) -> None:
    good = vars(exchanging).copy()
    vars(exchanging).update(TWISTED[twisted])
    with pytest.raises(TokenRequestError):
        run(tokens.token(settings(), BOB, user()))

    vars(exchanging).update(good)
    with pytest.raises(TokenRequestError):
        run(tokens.token(settings(), BOB, user()))  # remembered for this user
    assert tokens.of(settings(), BOB, user()).peek() is None
    assert run(tokens.token(settings(), BOB, user("bea"))).value  # and for nobody else


def test_after_a_logout_the_first_exchange_that_fails_ends_every_token_of_the_session(
    tokens: ExchangedTokens, exchanging: ExchangingKeycloak
) -> None:
    run(tokens.token(settings(), BOB, user()))
    exchanging.logged_out = {"session-of-ann"}

    assert run(tokens.token(settings(), BOB, user())).value, (
        "what was exchanged before counts until then, as documented"
    )
    with pytest.raises(SessionEnded):
        run(tokens.token(settings(), CHARLES, user()))
    with pytest.raises(SessionEnded):
        run(tokens.token(settings(), BOB, user()))


NOBODY: dict[str, dict[str, Any]] = {
    "a service": {"client_id": "billing", "azp": "billing", "sid": None, "sub": "id-of-its-account"},
    "exchanged from a service": {"sid": None, "jti": "trrtte:1"},
    "another realm": {"iss": "http://keycloak:8080/realms/partner"},
    "bound to a key": {"cnf": {"jkt": "thumbprint"}},
    "an ID token": {"typ": "ID"},
}


@pytest.mark.parametrize("changes", NOBODY.values(), ids=NOBODY)
def test_who_is_no_user_of_this_realm_is_posted_nowhere_and_gets_no_token_of_the_service(
    changes: dict[str, Any], exchanging: ExchangingKeycloak
) -> None:
    source = TokenSource(channel=exchanging, wall=Wall())

    with pytest.raises(NoUserToActFor):
        run(source.exchanged.token(settings(), BOB, user(**changes)))

    assert exchanging.requests == []
    assert source.tokens() == ()


@pytest.mark.parametrize("jti", ["ntrtte:1", "trrtte:1", "trrtcc:1", "anything", ""])
def test_the_mark_in_jti_decides_nothing(jti: str, tokens: ExchangedTokens, exchanging: ExchangingKeycloak) -> None:
    exchanging.claims = {"jti": jti}

    assert run(tokens.token(settings(), BOB, user(jti=jti))).life == 300


def answer_of(subject: Subject, **changes: Any) -> dict[str, Any]:
    claims = claims_of_user(azp=CLIENT, aud=["bob"], sub=subject.subject, sid=subject.session, iat=NOW, exp=NOW + 300)
    return {
        "access_token": jwt(**claims | changes),
        "expires_in": 300,
        "token_type": "Bearer",
        "issued_token_type": ACCESS_TOKEN,
    }


SOCKET: dict[str, Callable[[Subject], tuple[int, Any]]] = {
    "granted": lambda subject: (200, answer_of(subject)),
    "somebody else's": lambda subject: (200, answer_of(subject, sub="mallory")),
    "over": lambda subject: (400, {"error": "invalid_request", "error_description": "Invalid token"}),
    "an echo": lambda subject: (400, {"error": subject.text, "error_description": subject.text}),
    "a page": lambda subject: (500, f"<b>{subject.text}</b>"),
}


@pytest.mark.parametrize("answer", SOCKET)
def test_the_users_token_is_in_the_body_of_one_request_and_in_no_other_place(
    answer: str, bob: Receiver, tracker: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    given = settings(url=bob.url, public_url="http://keycloak:8080")
    subject = user()
    status, body = SOCKET[answer](subject)
    bob.always = status, {}, body.encode() if isinstance(body, str) else json.dumps(body).encode()
    source, error = TokenSource(wall=Wall()), None
    try:
        run(source.exchanged.token(given, BOB, subject))
    except S2SError as raised:
        error = raised
    reported()

    (seen,) = bob.seen
    assert seen.path == "/realms/corp/protocol/openid-connect/token"
    assert subject.text in seen.body.decode()
    assert subject.text not in f"{seen.authorization}{seen.path}"
    assert (error is None) == (answer == "granted")
    assert "httpcore.http11" in tracker.names
    assert tracker.leaks(subject.text) == []
    shown = [caplog.text, repr(source.exchanged), repr(subject)]
    if error is not None:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next  # without this test's own frame
        shown += ["".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())]
        shown += [repr(pickle.dumps(error)), repr(vars(error))]
    assert subject.text not in "".join(shown)


def test_a_flood_of_users_whose_sessions_are_over_leaves_the_others_their_tokens(
    tokens: ExchangedTokens, exchanging: ExchangingKeycloak
) -> None:
    kept = run(tokens.token(settings(), BOB, user("ann")))

    def over(asked: Asked) -> Reply:
        return reply(400, {"error": "invalid_request", "error_description": "Invalid token"})

    for number in range(20):
        exchanging.answers = [over]
        with pytest.raises((SessionEnded, TokenRequestError)):
            run(tokens.token(settings(), BOB, user(f"mallory-{number}")))

    assert run(tokens.token(settings(), BOB, user("ann"))).value == kept.value
    assert run(tokens.token(settings(), BOB, user("bea"))).value
