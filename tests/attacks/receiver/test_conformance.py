"""The attack cases that users try on their own apps (docs/conformance), where more can be seen: the log, the answer, and what was fetched."""

from typing import Any

import pytest
from joserfc.jws import JWSRegistry

from s2s_fastapi.decision import Reason
from s2s_fastapi.testing.attack.cases import Case, all_cases
from s2s_fastapi.testing.attack.keyring import FORGER, Keyring
from s2s_fastapi.testing.attack.recipe import forged
from s2s_fastapi.testing.keys import RealmKeys
from tests.attacks.receiver.stack import KEYS, NOW, Stack, stack, token

TOKENS = [
    case
    for case in all_cases()
    if case.start == "caller" and not (case.before or case.request or case.where == "proofs" or case.by_a_further_realm)
]
"""The cases that change the token and nothing else, for an app of one realm."""


class KeysOfTheStack(RealmKeys):
    """The keys of the attacked stack, as the recipes name them."""

    def kid(self, algorithm: str = "RS256") -> str:
        return KEYS[algorithm].kid

    def published(self) -> list[dict[str, Any]]:
        return [key.jwk for key in KEYS.values()]

    def signature(self, signing_input: bytes, algorithm: str = "RS256") -> bytes:
        return JWSRegistry.algorithms[algorithm].sign(signing_input, KEYS[algorithm].private)


@pytest.fixture(scope="module")
def attacked() -> Stack:
    return stack("RS256", "ES256")


@pytest.mark.parametrize("case", TOKENS, ids=lambda case: case.id)
def test_a_case_of_the_data_is_refused_for_its_reason_and_shows_nothing(attacked: Stack, case: Case) -> None:
    keys = Keyring(KeysOfTheStack())
    good = token(attacked.realm)
    variables = {
        "issuer": attacked.realm.issuer,
        "audience": "crm-api-gateway",
        "client_id": "chat-app-service",
        "now": int(NOW()),
        "leeway": 30,
        "kid": keys.kid("trusted", "RS256"),
        "kid_es256": keys.kid("trusted", "ES256"),
        "kid_foreign": FORGER.kid(),
        "jwks_foreign": "https://attacker.example/jwks.json",
        "jwk_foreign": dict(keys.jwk("foreign", "RS256")),
        "good": good,
        "good_signature": good.rpartition(".")[2],
    }
    reason = {str(each): each for each in Reason}[case.expected.reason]

    attacked.holds(good, forged(good, case.token, keys, variables), reason, outbound=reason is Reason.UNKNOWN_KEY)
