"""Attacks on an app that only observes: what nobody may forge is refused all the same, and what was let in ends with the day."""

import datetime as dt
from typing import Any

import pytest

from s2s_fastapi.decision import Reason
from tests.attacks.receiver.stack import FORGER, KEYS, NOW, Stack, claims, stack, token
from tests.kit.realm import Clock

IAT = int(NOW())
DAY = "2027-01-31"
ENDS = dt.datetime(2027, 1, 31, tzinfo=dt.UTC).timestamp()


def observing(clock: Clock | None = None) -> Stack:
    return stack("RS256", insecure_observe_until=DAY, **({"clock": clock} if clock else {}))


ENFORCED: dict[str, tuple[dict[str, Any], Reason]] = {
    "another issuer": ({"iss": "http://evil.example/realms/corp"}, Reason.WRONG_ISSUER),
    "an ID token": ({"typ": "ID"}, Reason.WRONG_TYPE),
    "expired": ({"exp": IAT - 31, "iat": IAT - 331}, Reason.EXPIRED),
    "not yet valid": ({"nbf": IAT + 31}, Reason.NOT_YET_VALID),
    "a life of two days": ({"exp": IAT + 2 * 86_400}, Reason.LIFETIME_TOO_LONG),
    "bound to a key": ({"cnf": {"jkt": "a"}}, Reason.SENDER_CONSTRAINED),
    "no caller": ({"azp": None}, Reason.MALFORMED_CLAIMS),
    "an audience of the wrong type": ({"aud": [["crm-api-gateway"]]}, Reason.MALFORMED_CLAIMS),
}


@pytest.mark.parametrize(("changes", "reason"), ENFORCED.values(), ids=ENFORCED)
@pytest.mark.parametrize("audience", ["ours", "another's"])
def test_what_a_token_is_stays_enforced(changes: dict[str, Any], reason: Reason, audience: str) -> None:
    attacked = observing()
    if audience == "another's" and "aud" not in changes:
        changes = {"aud": "billing", **changes}
    decision = attacked.holds(token(attacked.realm), token(attacked.realm, **changes), reason)
    assert not decision.observed


def test_no_forged_token_is_let_in() -> None:
    attacked = observing()
    good = token(attacked.realm, aud="billing")
    header, payload, signature = good.split(".")
    forged = attacked.realm.sign(claims(attacked.realm), key=FORGER["RS256"], header={"kid": KEYS["RS256"].kid})
    assert attacked.bearer(good).status_code == 200
    attacked.refuses(forged, Reason.INVALID_SIGNATURE)
    attacked.refuses(f"{header}.{payload}.{signature[:-8]}AAAAAAAA", Reason.INVALID_SIGNATURE)
    unsigned = attacked.realm.sign(claims(attacked.realm), header={"alg": "none"})
    attacked.refuses(unsigned, Reason.ALGORITHM_NOT_ALLOWED)
    attacked.shows_nothing(attacked.send(), Reason.NO_CREDENTIALS)


@pytest.mark.parametrize("seen", ["before", "never"])
def test_a_token_that_was_only_observed_is_refused_from_the_first_moment_of_the_day(seen: str) -> None:
    clock = Clock(ENDS - 100)
    attacked = observing(clock)
    start = int(ENDS) - 100
    good, other = (
        token(attacked.realm, iat=start, exp=start + 3600, aud=aud) for aud in ("crm-api-gateway", "billing")
    )
    attacked.accepts(good)
    if seen == "before":
        assert attacked.bearer(other).status_code == 200
    clock.now = ENDS - 0.001
    if seen == "before":
        assert attacked.bearer(other).status_code == 200
    clock.now = ENDS
    assert not attacked.refuses(other, Reason.WRONG_AUDIENCE).observed
    attacked.accepts(good)
    clock.now = ENDS - 50  # a clock that goes back observes again
    assert attacked.bearer(other).status_code == 200
    clock.now = ENDS
    attacked.refuses(other, Reason.WRONG_AUDIENCE)
