"""A public key verifies with one algorithm, and its thumbprint is that of RFC 7638."""

import pytest

from s2s_fastapi.jose.keys import UnusableKeyError, public_members, signature_check, thumbprint
from tests.proof.broken import b64, ec_key, ed_key, rsa_key

EXAMPLE = {  # RFC 7638 section 3.1
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-"
    "5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt"
    "-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}


def test_the_thumbprint_of_the_example_is_that_of_rfc_7638() -> None:
    members = public_members("RS256", EXAMPLE)
    assert members.keys() == {"kty", "n", "e"}
    assert thumbprint(members) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize(
    "key", [ec_key(), ec_key("ES384"), ec_key("ES512"), rsa_key(), ed_key()], ids=lambda key: key.algorithm
)
def test_a_key_verifies_what_it_signed_and_nothing_else(key: object) -> None:
    assert isinstance(key, type(ec_key()))
    check = signature_check(key.algorithm, public_members(key.algorithm, key.jwk))
    assert check(b"this", key.sign(b"this"))
    assert not check(b"that", key.sign(b"this"))
    assert thumbprint(public_members(key.algorithm, key.jwk)) == key.thumbprint


def test_a_key_that_accepts_a_signature_of_nobody_is_no_key() -> None:
    neutral_element = {"kty": "OKP", "crv": "Ed25519", "x": b64(b"\1" + bytes(31))}
    with pytest.raises(UnusableKeyError):
        signature_check("EdDSA", neutral_element)
