"""Attacks with truly signed tokens: lines 17 to 20 of the list, and 23. The signature holds; the token is still not good here."""

from collections.abc import Sequence
from typing import Any

import pytest

from s2s_fastapi.decision import Reason
from tests.attacks.receiver.stack import FORGER, KEYS, NOW, Stack, broken, claims, stack, token
from tests.kit.missing import MISSING
from tests.kit.realm import SERVER, Realm, SigningKey

ISSUER = f"{SERVER}/realms/corp"
# 17: iss


@pytest.mark.parametrize(
    "issuer",
    [
        *(f"{ISSUER}/", f"{ISSUER}x", ISSUER[:-1], ISSUER[1:], f"x{ISSUER}", f" {ISSUER}", f"{ISSUER} ", ISSUER.upper(), "x"),
        *(f"{SERVER}/realms/CORP", f"{SERVER}/realms/master", f"{SERVER}/realms/corp2", f"{SERVER}/auth/realms/corp"),
        *(ISSUER.replace("http:", "https:"), ISSUER.replace("http:", "HTTP:"), ISSUER.replace("keycloak", "KEYCLOAK")),
        *(f"{SERVER}:80/realms/corp", f"{SERVER}./realms/corp", f"{SERVER}//realms/corp", f"{SERVER}/realms/./corp"),
        *(f"{SERVER}/realms/other/../corp", f"{SERVER}/realms/%63orp", f"{ISSUER}?", f"{ISSUER}#", f"{ISSUER}?x=1"),
        *("http://keycloak.test@evil.example/realms/corp", "http://evil.example/realms/corp", "//keycloak.test/realms/corp"),
        *(f"http://evil.example/{ISSUER}", f"{ISSUER}@evil.example", f"{ISSUER},http://evil.example", "realms/corp", "corp"),
        *(ISSUER.replace("o", "\u043e"), ISSUER.replace("c", "\uff43"), ISSUER.replace("/realms", "\u2215realms"), "*", ".*"),
    ],
)  # fmt: skip
def test_an_issuer_that_only_looks_like_ours_is_another(issuer: str) -> None:
    attacked = stack("RS256")
    attacked.holds(token(attacked.realm), broken(attacked, iss=issuer), Reason.WRONG_ISSUER)


@pytest.mark.parametrize(
    "issuer", [MISSING, None, "", [], [ISSUER], [ISSUER, "x"], {ISSUER: 1}, {}, 0, 1, True], ids=repr
)
def test_an_issuer_is_one_string(issuer: Any) -> None:
    attacked = stack("RS256")
    attacked.holds(token(attacked.realm), broken(attacked, iss=issuer), Reason.MALFORMED_CLAIMS)


# 18: aud

OURS = "crm-api-gateway"


@pytest.mark.parametrize(
    "audience",
    [
        MISSING,
        [],
        *("crm", "crm-api", "crm-api-gatewa", "rm-api-gateway", "crm-api-gateway2", "crm-api-gateway-eu", "x-crm-api-gateway"),
        *("CRM-API-GATEWAY", "Crm-Api-Gateway", " crm-api-gateway", "crm-api-gateway ", "crm-api-gateway\n", "crm-api-gateway/"),
        *("https://crm-api-gateway", "http://crm-api-gateway/", "crm-api-gateway,billing", "crm-api-gateway billing", "*", ".*"),
        *("account", "realm-management", "chat-app-service", "[crm-api-gateway]", '"crm-api-gateway"', "crm\u2010api\u2010gateway"),
        ["account"],
        ["account", "billing"],
        ["crm", "api", "gateway"],
        list("crm-api-gateway"),
        ["crm-api-gateway "],
        [f"a{n}" for n in range(500)],
    ],
    ids=lambda audience: repr(audience)[:40],
)  # fmt: skip
def test_a_token_for_nobody_or_for_somebody_else_is_refused(audience: Any) -> None:
    attacked = stack("RS256")
    attacked.holds(token(attacked.realm), broken(attacked, aud=audience), Reason.WRONG_AUDIENCE)


@pytest.mark.parametrize(
    "audience",
    [None, "", 0, 1, True, {}, {OURS: True}, [OURS, 1], [OURS, None], [OURS, ""], [[OURS]], [OURS, [OURS]], [{OURS: 1}], 1.5],
    ids=repr,
)  # fmt: skip
def test_an_audience_of_the_wrong_type_is_none_even_if_ours_is_in_it(audience: Any) -> None:
    attacked = stack("RS256")
    attacked.holds(token(attacked.realm), broken(attacked, aud=audience), Reason.MALFORMED_CLAIMS)


@pytest.mark.parametrize("audience", [[OURS], [OURS, "account"], ["account", "x", OURS], [OURS, OURS]], ids=repr)
def test_an_audience_may_be_one_of_several(audience: Any) -> None:
    attacked = stack("RS256")
    attacked.accepts(broken(attacked, aud=audience))


# 19: time


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"exp": -31, "iat": -331}, Reason.EXPIRED, id="expired by leeway + 1"),
        pytest.param({"exp": -30, "iat": -330}, Reason.EXPIRED, id="expired by leeway"),
        pytest.param({"exp": -(10**9), "iat": -(10**9) - 300}, Reason.EXPIRED, id="expired for 30 years"),
        pytest.param({"nbf": 31}, Reason.NOT_YET_VALID, id="nbf beyond the leeway"),
        pytest.param({"nbf": 10**9}, Reason.NOT_YET_VALID, id="nbf in 30 years"),
        pytest.param({"iat": 31, "exp": 331}, Reason.NOT_YET_VALID, id="iat beyond the leeway"),
        pytest.param({"iat": 10**9, "exp": 10**9 + 300}, Reason.NOT_YET_VALID, id="iat in 30 years"),
        pytest.param({"iat": 0, "exp": 24 * 3600 + 1}, Reason.LIFETIME_TOO_LONG, id="a second more than a day"),
        pytest.param({"iat": 0, "exp": 10 * 365 * 24 * 3600}, Reason.LIFETIME_TOO_LONG, id="ten years"),
        pytest.param({"iat": -(10**9), "exp": 300}, Reason.LIFETIME_TOO_LONG, id="issued long ago"),
    ],
)
def test_a_token_out_of_its_time_is_refused(changes: dict[str, int], reason: Reason) -> None:
    attacked = stack("RS256")
    dates = {name: int(NOW()) + seconds for name, seconds in changes.items()}
    attacked.holds(token(attacked.realm), broken(attacked, **dates), reason)


@pytest.mark.parametrize(
    "changes", [{"exp": -29, "iat": -329}, {"nbf": 30}, {"iat": 30, "exp": 330}, {"iat": 0, "exp": 24 * 3600}]
)
def test_a_second_earlier_or_later_it_would_have_been_accepted(changes: dict[str, int]) -> None:
    attacked = stack("RS256")
    attacked.accepts(broken(attacked, **{name: int(NOW()) + seconds for name, seconds in changes.items()}))


# 20: other tokens of the same realm, signed with the same key


@pytest.mark.parametrize(
    "kind",
    [
        *(MISSING, None, "", 0, True, [], ["Bearer"], {"Bearer": 1}),
        *("ID", "Refresh", "Offline", "Logout", "Backchannel-Logout", "Serialized-ID", "DPoP", "JWT", "at+jwt", "Bearer ", " Bearer"),
        *("RegistrationAccessToken", "InitialAccessToken", "AuthReqId", "permission-ticket", "verify-email", "execute-actions"),
        *("Bearer,ID", "Bearer\u0000", "B\u0435arer", "bearertoken", "urn:ietf:params:oauth:token-type:access_token"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_token_that_is_not_a_bearer_token_by_its_own_word_is_refused(kind: Any) -> None:
    attacked = stack("RS256")
    attacked.holds(token(attacked.realm), broken(attacked, typ=kind), Reason.WRONG_TYPE)


@pytest.mark.parametrize("kind", ["bearer", "BEARER", "Bearer"])
def test_bearer_may_be_written_in_any_case(kind: str) -> None:
    attacked = stack("RS256")
    attacked.accepts(broken(attacked, typ=kind))


STRANGERS: dict[str, dict[str, Any]] = {
    "an ID token for our own client": {"typ": "ID", "azp": OURS, "client_id": MISSING, "sid": "s", "nonce": "n"},
    "an ID token of a service": {"typ": "ID", "at_hash": "h"},
    "a logout token": {"typ": "Logout", "events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
    "an authorization response (JARM)": {"typ": MISSING, "code": "c", "state": "s", "azp": MISSING},
    "signed user information": {"typ": MISSING, "azp": MISSING, "exp": MISSING, "email": "root@corp.example"},
    "an introspection response": {"typ": MISSING, "active": True, "token_introspection": {"active": True}},
    "a security event": {"typ": MISSING, "exp": MISSING, "events": {"revoked": {}}},
    "a refresh token": {"typ": "Refresh", "aud": ISSUER},
    "an offline token": {"typ": "Offline", "aud": ISSUER},
    "a permission ticket": {"typ": MISSING, "permissions": [{"rsid": "r"}]},
    "an action token": {"typ": "verify-email", "nonce": "n", "asid": "s"},
    "a client assertion": {"typ": MISSING, "iss": OURS, "sub": OURS, "aud": ISSUER},
}


@pytest.mark.parametrize("changes", STRANGERS.values(), ids=STRANGERS)
def test_everything_else_that_keycloak_signs_is_no_access_token(changes: dict[str, Any]) -> None:
    attacked = stack("RS256")
    attacked.holds(token(attacked.realm), broken(attacked, **changes), Reason.WRONG_TYPE)


# 23: two issuers


@pytest.mark.parametrize("kid", ["one", "another"])
def test_a_token_is_verified_with_the_keys_of_its_receiver_s_issuer_alone(kid: str) -> None:
    ours, theirs = (Realm(name, key=SigningKey("ES256", kid=kid)) for name in ("corp", "partner"))
    if kid == "another":
        theirs.key = SigningKey("ES256", kid="theirs")
    for realm in (ours, theirs):
        realm.published = [realm.key.jwk]
    here, there = Stack(ours), Stack(theirs)
    reason = Reason.INVALID_SIGNATURE if kid == "one" else Reason.UNKNOWN_KEY
    asked = int(reason is Reason.UNKNOWN_KEY)
    forged = theirs.sign(claims(ours))  # says that we issued it, signed by them
    here.holds(token(ours), forged, reason, outbound=asked)
    here.holds(token(ours), token(theirs), reason, outbound=asked)
    there.holds(token(theirs), ours.sign(claims(theirs)), reason, outbound=asked)
    there.holds(token(theirs), forged, Reason.WRONG_ISSUER)


def test_a_key_that_two_realms_share_makes_no_token_of_the_one_good_for_the_other() -> None:
    ours, theirs = Realm("corp", key=KEYS["RS256"]), Realm("partner", key=KEYS["RS256"])
    Stack(theirs).accepts(token(theirs))
    Stack(ours).holds(token(ours), token(theirs), Reason.WRONG_ISSUER)


def test_a_realm_that_publishes_another_realm_s_key_lets_nobody_pass_for_the_other() -> None:
    ours, theirs = Realm("corp", key=KEYS["RS256"]), Realm("partner", key=FORGER["RS256"])
    theirs.published = [KEYS["RS256"].jwk, FORGER["RS256"].jwk]
    here = Stack(ours)
    forged: Sequence[str] = [theirs.sign(claims(ours), header={"kid": KEYS["RS256"].kid}), token(theirs)]
    here.holds(token(ours), forged[0], Reason.INVALID_SIGNATURE)
    here.holds(token(ours), forged[1], Reason.UNKNOWN_KEY, outbound=1)
