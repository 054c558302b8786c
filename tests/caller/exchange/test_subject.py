"""The user's token before it is exchanged: what is read from it, and what is refused without asking Keycloak."""

import copy
import pickle
from typing import Any

import pytest

from s2s_fastapi.caller.exchange.subject import Subject
from s2s_fastapi.errors import NoUserToActFor, S2SError, SessionEnded, TokenRequestError
from tests.caller.exchange.fakes import CLIENT, ISSUER, NOW, claims_of_user, user
from tests.caller.fakes import jwt, settings

READ: dict[str, dict[str, Any]] = {
    "as Keycloak writes it": {},
    "one audience as text": {"aud": CLIENT},
    "several audiences": {"aud": ["account", CLIENT]},
    "in lower case, as an older profile has it": {"typ": "bearer"},
    "exchanged by another service before": {"azp": "shop-api", "jti": "ntrtte:1"},
    "a fraction of a second": {"exp": NOW + 290.5},
}


@pytest.mark.parametrize("changes", READ.values(), ids=READ)
def test_a_users_access_token_is_read(changes: dict[str, Any]) -> None:
    subject = user(**changes)

    assert (subject.issuer, subject.subject, subject.session) == (ISSUER, "id-of-ann", "session-of-ann")
    assert subject.client_id == changes.get("azp", "front-end")
    assert subject.expires_at == NOW + 290
    assert CLIENT in subject.audiences
    subject.check(settings(), NOW)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a service": ({"client_id": "billing", "azp": "billing", "sid": None}, "belongs to a service"),
    "a service with a session": ({"client_id": "front-end"}, "belongs to a service"),
    "no session": ({"sid": None}, "no session of a user"),
    "an empty session": ({"sid": ""}, "no session of a user"),
    "a session that is no text": ({"sid": 7}, "no session of a user"),
    "a UMA ticket": ({"authorization": {"permissions": []}}, "no session of a user"),
    "bound by DPoP": ({"cnf": {"jkt": "x"}}, "sender-constrained user token (DPoP or mTLS) cannot be exchanged"),
    "bound by nothing": ({"cnf": None, "typ": "ID"}, "typ is not Bearer"),
    "no typ": ({"typ": None}, "typ is not Bearer"),
    "no issuer": ({"iss": None}, "claim iss"),
    "no client": ({"azp": None}, "claim azp"),
    "no user": ({"sub": None}, "claim sub"),
    "a user with a line break": ({"sub": "ann\nroot"}, "claim sub"),
    "no end": ({"exp": None}, "claim exp"),
    "an end that is true": ({"exp": True}, "claim exp"),
    "an end beyond all clocks": ({"exp": 10**12}, "claim exp"),
}


@pytest.mark.parametrize(("changes", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_bearer_token_of_a_user_is_no_subject(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(NoUserToActFor) as refused:
        user(**changes)

    assert said in str(refused.value)
    assert refused.value.status_code == 403


@pytest.mark.parametrize(
    "text", ["", "opaque", "a.b.c", "a" * 20_000, jwt(), f"{jwt(**claims_of_user())}\n", "e30.e30"]
)
def test_what_is_no_token_is_no_subject(text: str) -> None:
    with pytest.raises(NoUserToActFor, match="not an access token of Keycloak that can be read"):
        Subject.of(text)


def test_a_binding_that_is_null_is_a_binding_too() -> None:
    claims = claims_of_user() | {"cnf": None}

    with pytest.raises(NoUserToActFor, match="sender-constrained"):
        Subject.of(jwt(**claims))


NOT_FOR_US: dict[str, tuple[dict[str, Any], float, type[S2SError], str]] = {
    "another realm": ({"iss": "http://keycloak:8080/realms/partner"}, NOW, NoUserToActFor, "issued by"),
    "another address of the realm": ({"iss": f"{ISSUER}/"}, NOW, NoUserToActFor, "The slash at the end counts"),
    "expired": ({}, NOW + 290, SessionEnded, "expired 0 s ago"),
    "not for this client": (
        {"aud": ["shop-api"]},
        NOW,
        TokenRequestError,
        "add an Audience mapper for chat-app-service",
    ),
    "for nobody": ({"aud": None}, NOW, TokenRequestError, "Lightweight tokens have no audience"),
}


@pytest.mark.parametrize(("changes", "now", "error", "said"), NOT_FOR_US.values(), ids=NOT_FOR_US)
def test_what_keycloak_would_not_exchange_for_this_client_is_refused_before_it_is_asked(
    changes: dict[str, Any], now: float, error: type[S2SError], said: str
) -> None:
    with pytest.raises(error, match=said) as refused:
        user(**changes).check(settings(), now)

    assert "front-end" in str(refused.value) or error is not TokenRequestError


def test_the_clients_own_token_needs_no_audience() -> None:
    user(azp=CLIENT, aud=None).check(settings(), NOW)


def test_a_subject_shows_its_token_nowhere_and_is_not_pickled() -> None:
    subject = user()

    assert subject.text not in repr(subject) + str(subject) + f"{subject!r:>1}"
    assert copy.copy(subject) is copy.deepcopy(subject) is subject
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(subject)


def test_no_frame_of_a_refusal_shows_the_token() -> None:
    token = jwt(**claims_of_user(sid=None))
    try:
        Subject.of(token)
    except NoUserToActFor as error:
        trace = error.__traceback__
    assert trace is not None
    shown = []
    while (trace := trace.tb_next) is not None:
        shown.append(repr(trace.tb_frame.f_locals))

    assert shown
    assert token not in "".join(shown)
