"""The recipe language: one thing is changed, everything else stays as it is."""

import hmac
import json
from base64 import urlsafe_b64decode
from typing import Any

import pytest
from joserfc.jwk import import_key
from joserfc.jws import JWSRegistry

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.testing.attack.keyring import FORGER, Keyring
from s2s_fastapi.testing.attack.recipe import forged, read_parts
from s2s_fastapi.testing.attack.templates import filled
from s2s_fastapi.testing.keys import RealmKeys, once_in_a_process

REALM = RealmKeys(once_in_a_process("test of recipes"))
KEYS = Keyring(REALM)
CLAIMS = {"iss": "http://k/realms/r", "aud": "orders", "azp": "shop"}
GOOD = REALM.sign(CLAIMS)
VARIABLES = {"issuer": "http://k/realms/r", "now": 1000, "leeway": 30.0, "audience": "orders", "good": GOOD}


def made(**recipe: Any) -> str:
    return forged(GOOD, recipe, KEYS, VARIABLES)


def holds(token: str, keys: RealmKeys = REALM, algorithm: str = "RS256") -> bool:
    """Return whether a key of that algorithm made the signature."""
    signing_input, _, signature = token.rpartition(".")
    key = import_key(next(entry for entry in keys.published() if entry["alg"] == algorithm))
    return JWSRegistry.algorithms[algorithm].verify(signing_input.encode(), raw(signature), key)


def raw(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_a_recipe_without_a_member_is_the_good_token() -> None:
    assert made() == GOOD


def test_a_claim_is_changed_and_the_token_is_signed_again() -> None:
    token = made(claims={"aud": "x${audience}"})

    assert read_parts(token) == (read_parts(GOOD)[0], {**CLAIMS, "aud": "xorders"})
    assert holds(token)


def test_a_member_is_left_out() -> None:
    token = made(without_claims=["aud"], without_header=["typ"])

    assert read_parts(token)[1] == {"iss": CLAIMS["iss"], "azp": "shop"}
    assert "typ" not in read_parts(token)[0]
    assert holds(token)


def test_another_algorithm_brings_its_kid_and_its_key() -> None:
    token = made(algorithm="ES256")

    assert read_parts(token)[0] == {"alg": "ES256", "typ": "JWT", "kid": REALM.kid("ES256")}
    assert holds(token, algorithm="ES256")


def test_the_header_may_lie_about_the_algorithm_that_signs() -> None:
    token = made(header={"alg": "none"}, signed_as="RS256")

    assert read_parts(token)[0]["alg"] == "none"
    assert holds(token)


def test_a_foreign_key_signs_what_the_realm_did_not() -> None:
    token = made(signed_by="foreign")

    assert read_parts(token) == read_parts(GOOD)
    assert not holds(token)
    assert holds(token, FORGER)


def test_a_public_key_is_the_secret_of_an_hmac() -> None:
    token = made(header={"alg": "HS256"}, signed_as="HS256", secret="jwk")

    signing_input, _, signature = token.rpartition(".")
    secret = json.dumps(KEYS.jwk("trusted", "RS256")).encode()
    assert raw(signature) == hmac.digest(secret, signing_input.encode(), "sha256")


def test_the_text_of_a_part_is_written_as_the_recipe_says() -> None:
    token = made(claims_text='{"aud":"x",${members}}')

    assert raw(token.split(".")[1]).decode() == '{"aud":"x",' + json.dumps(CLAIMS, separators=(",", ":"))[1:]
    assert holds(token)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_part_may_have_another_encoding(encoding: str) -> None:
    token = made(claims_encoding=encoding)

    assert json.loads(raw(token.split(".")[1]).decode(encoding)) == CLAIMS
    assert holds(token)


@pytest.mark.parametrize(
    "spelling", ["empty", "padded", "with the other alphabet", "with spare bits", "with one bit changed", "cut off"]
)
def test_a_part_is_changed_after_the_signature(spelling: str) -> None:
    token = made(signature_part=spelling)

    assert token.rpartition(".")[0] == GOOD.rpartition(".")[0]
    assert token != GOOD


def test_spare_bits_change_the_spelling_and_not_the_bytes() -> None:
    spelt, good = made(signature_part="with spare bits").rpartition(".")[2], GOOD.rpartition(".")[2]

    assert spelt != good
    assert raw(spelt) == raw(good)


def test_the_parts_are_joined_as_the_recipe_says() -> None:
    assert made(compact="${header}.${claims}") == GOOD.rpartition(".")[0]


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"claim": {}}, "A recipe has no member claim"),
        ({"claims": {"a": "${nothing}"}}, "A case uses \\$\\{nothing\\}"),
        ({"claims": {"a": {"$nothing": 1}}}, "A case uses \\$nothing"),
        ({"signature_part": "eaten"}, "A part cannot be 'eaten'"),
        ({"signed_by": "nobody"}, "the key of nobody"),
        ({"secret": "x", "signed_as": "HS256"}, "the secret x"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(recipe: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        made(**recipe)


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("${now}", 1000),
        ("at ${now}", "at 1000"),
        ({"$now": 300}, 1300),
        ({"$past": 31}, 939),
        ({"$future": 31}, 1061),
        ({"$string": {"$now": 0}}, "1000"),
        ({"$repeat": ["ab", 3]}, "ababab"),
        ({"$slice": ["orders", 0, -1]}, "order"),
        ({"$slice": ["orders", 1, None]}, "rders"),
        ({"$replace": ["http://x", "http:", "https:"]}, "https://x"),
        ({"$upper": "x"}, "X"),
        ({"$join": ["a", "${audience}"]}, "aorders"),
        ([{"a": "${audience}"}, None], [{"a": "orders"}, None]),
        ({"${audience}": True}, {"orders": True}),
    ],
)
def test_variables_and_functions_are_replaced_at_any_depth(value: Any, result: Any) -> None:
    assert filled(value, VARIABLES) == result


def test_no_key_shows_itself() -> None:
    assert repr(KEYS) == "Keyring()"
