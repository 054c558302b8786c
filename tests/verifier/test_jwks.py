"""Which published keys may verify, with which algorithm; and that one bad key never spoils the good ones."""

import json
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import RSAKey

from s2s_fastapi.decision import Reason
from s2s_fastapi.jose.algorithms import ALGORITHMS
from s2s_fastapi.verifier.jwks import KeySet, VerificationKey, bound_key
from tests.kit.realm import Clock, Realm, SigningKey, b64, judged, token_verifier

KEYS = {algorithm: SigningKey(algorithm, kid=f"key-{algorithm}") for algorithm in sorted(ALGORITHMS)}
GOOD = KEYS["RS256"]
MESSAGE = b"header.payload"


def read(*entries: Any) -> KeySet:
    return KeySet.read({"keys": list(entries)})


def only(entry: Any) -> VerificationKey | None:
    """Return the key that an entry gives, after seeing that the good key beside it on either side is still there."""
    for entries in ([entry, GOOD.jwk], [GOOD.jwk, entry], [entry, GOOD.jwk, entry]):
        found = read(*entries)
        assert found.find(GOOD.kid, "RS256") is not None
        others = [key for (kid, _), key in found.keys.items() if kid != GOOD.kid]
    return others[0] if others else None


def rsa_jwk(bits: int, exponent: int = 65537) -> dict[str, Any]:
    numbers = rsa.generate_private_key(exponent, bits).public_key().public_numbers()
    return {
        "kty": "RSA",
        "kid": f"rsa-{bits}",
        "use": "sig",
        "alg": "RS256",
        "n": b64(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8)),
        "e": b64(numbers.e.to_bytes(3)),
    }


def jwk(algorithm: str = "RS256", **changes: Any) -> dict[str, Any]:
    """Return a usable public key under a kid of its own; a change to None leaves the member out."""
    entry = {**KEYS[algorithm].jwk, "kid": "another", **changes}
    return {name: value for name, value in entry.items() if value is not None}


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_each_of_the_ten_algorithms_has_its_key(algorithm: str) -> None:
    key = only(jwk(algorithm))
    assert key is not None
    assert (key.kid, key.algorithm) == ("another", algorithm)
    signature = KEYS[algorithm].sign(MESSAGE.decode())
    raw = urlsafe_b64decode(signature + "==")
    assert key.verify(MESSAGE, raw)
    assert not key.verify(MESSAGE + b"x", raw)
    assert not key.verify(MESSAGE, raw[:-1] + bytes([raw[-1] ^ 1]))


def private(algorithm: str) -> dict[str, Any]:
    return {**KEYS[algorithm].private.as_dict(private=True), "kid": "another", "use": "sig", "alg": algorithm}


def point_of(curve: ec.EllipticCurve) -> dict[str, str]:
    numbers = ec.generate_private_key(curve).public_key().public_numbers()
    size = (curve.key_size + 7) // 8
    return {"x": b64(numbers.x.to_bytes(size)), "y": b64(numbers.y.to_bytes(size))}


JUNK_ENTRIES: list[Any] = [None, True, 0, "key", [], [[]], {}, ["kty"]]
RSA_N = jwk()["n"]
EVEN = b64((int.from_bytes(urlsafe_b64decode(RSA_N + "==")) + 1).to_bytes(256))


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(
            {"kty": "oct", "k": "c2VjcmV0", "kid": "another", "use": "sig", "alg": "HS256"}, id="a symmetric key"
        ),
        pytest.param(
            {"kty": "oct", "k": "c2VjcmV0", "kid": "another", "use": "sig", "alg": "RS256"},
            id="a symmetric key that says RS256",
        ),
        pytest.param(
            {"kty": "oct", "k": "", "kid": "another", "use": "sig", "alg": "none"}, id="an empty symmetric key"
        ),
        pytest.param(jwk(k=""), id="an RSA key with a symmetric part"),
        *[
            pytest.param(private(algorithm), id=f"a private {algorithm} key")
            for algorithm in ("RS256", "ES256", "EdDSA")
        ],
        *[
            pytest.param(jwk(**{part: "AQAB"}), id=f"a private part: {part}")
            for part in ("d", "p", "q", "dp", "dq", "qi")
        ],
        pytest.param(jwk(d=None) | {"d": None}, id="a private part: d is null"),
        pytest.param(jwk(oth=[]), id="a private part: oth"),
        pytest.param(
            jwk("ES256") | {"d": private("ES384")["d"]}, id="a private part that does not belong to the public one"
        ),
        pytest.param(jwk(use="enc"), id="an encryption key"),
        pytest.param(jwk(use="enc", alg="RSA-OAEP"), id="Keycloak's encryption key"),
        pytest.param(jwk(use=None), id="no use"),
        pytest.param(jwk(use="SIG"), id="a use in upper case"),
        pytest.param(jwk(use=["sig"]), id="a list of uses"),
        pytest.param(jwk(key_ops=["encrypt"]), id="key_ops: encrypt"),
        pytest.param(jwk(key_ops=["sign"]), id="key_ops: sign"),
        pytest.param(jwk(key_ops=["sign", "verify"]), id="key_ops: sign and verify"),
        pytest.param(jwk(key_ops=[]), id="key_ops: nothing"),
        pytest.param(jwk(key_ops="verify"), id="key_ops: a string"),
        pytest.param(jwk() | {"key_ops": None}, id="key_ops: null"),
        pytest.param(rsa_jwk(1024), id="RSA with 1024 bits"),
        pytest.param(rsa_jwk(2047), id="RSA with 2047 bits"),
        pytest.param(jwk(e="AQ"), id="RSA with e = 1"),
        pytest.param(jwk(e="Ag"), id="RSA with e = 2"),
        pytest.param(jwk(e="AA"), id="RSA with e = 0"),
        pytest.param(jwk(e="BAAAAAAAAAAB"), id="RSA with an exponent of 67 bits"),
        pytest.param(jwk(n=EVEN), id="RSA with an even modulus"),
        pytest.param(jwk(n=b64(((1 << 16_384) + 1).to_bytes(2049))), id="RSA with 16385 bits"),
        pytest.param(jwk(n=RSA_N + "=="), id="RSA with a padded modulus"),
        pytest.param(jwk(n=None), id="RSA without a modulus"),
        pytest.param(jwk(e=None), id="RSA without an exponent"),
        pytest.param(jwk("ES256") | {"y": KEYS["ES256"].jwk["x"]}, id="a point that is not on the curve"),
        pytest.param(jwk("ES256") | {"x": b64(b"\0" * 32), "y": b64(b"\0" * 32)}, id="the point 0, 0"),
        pytest.param(jwk("ES256") | {"x": ""}, id="no x"),
        pytest.param(jwk("ES256", y=None), id="EC without y"),
        pytest.param(jwk("ES256", crv="P-384"), id="a P-256 point that says P-384"),
        pytest.param(jwk("ES384", alg="ES256"), id="a P-384 key for ES256"),
        pytest.param(jwk("ES256", alg="ES384"), id="a P-256 key for ES384"),
        pytest.param(jwk("ES256") | point_of(ec.SECP256K1()), id="a secp256k1 point that says P-256"),
        pytest.param(jwk("ES256", crv="secp256k1") | point_of(ec.SECP256K1()), id="secp256k1 for ES256"),
        pytest.param(jwk("ES256", crv="secp256k1", alg="ES256K") | point_of(ec.SECP256K1()), id="secp256k1 for ES256K"),
        pytest.param(jwk("ES256", crv="BP-256"), id="an unknown curve"),
        pytest.param(jwk("ES256", crv=["P-256"]), id="a list of curves"),
        pytest.param(
            jwk("EdDSA", crv="X25519", x=b64(x25519.X25519PrivateKey.generate().public_key().public_bytes_raw())),
            id="a key agreement key",
        ),
        pytest.param(
            jwk("EdDSA", crv="Ed448", x=b64(ed448.Ed448PrivateKey.generate().public_key().public_bytes_raw())),
            id="Ed448",
        ),
        pytest.param(jwk("EdDSA", x=b64(b"\1" * 31)), id="an Ed25519 key that is too short"),
        pytest.param(jwk("EdDSA", alg="RS256"), id="an Ed25519 key for RS256"),
        pytest.param(jwk("ES256", alg="RS256"), id="an EC key for RS256"),
        pytest.param(jwk("ES256", alg="EdDSA"), id="an EC key for EdDSA"),
        pytest.param(jwk(alg="ES256"), id="an RSA key for ES256"),
        pytest.param(jwk(alg="EdDSA"), id="an RSA key for EdDSA"),
        pytest.param(jwk(alg="HS256"), id="an RSA key for HS256"),
        pytest.param(jwk(alg="none"), id="an RSA key for none"),
        pytest.param(jwk(alg="rs256"), id="an algorithm in lower case"),
        pytest.param(jwk(alg=None), id="no algorithm, which would be the header's"),
        pytest.param(jwk() | {"alg": None}, id="null for an algorithm"),
        pytest.param(jwk(alg=["RS256"]), id="a list of algorithms"),
        pytest.param(jwk(kid=None), id="no kid"),
        pytest.param(jwk(kid=""), id="an empty kid"),
        pytest.param(jwk() | {"kid": None}, id="null for a kid"),
        pytest.param(jwk(kid=7), id="a number for a kid"),
        pytest.param(jwk(kid=["another"]), id="a list of kids"),
        pytest.param(jwk(kty=None), id="no type"),
        pytest.param(jwk(kty="rsa"), id="a type in lower case"),
        pytest.param(jwk(kty=["RSA"]), id="a list of types"),
        pytest.param(jwk(kty="AKP", alg="ML-DSA-44"), id="a type of the future"),
        *[pytest.param(junk, id=f"no object: {junk}") for junk in JUNK_ENTRIES],
    ],
)
def test_a_key_that_cannot_safely_verify_is_left_out(entry: Any) -> None:
    assert only(entry) is None


def test_rsa_with_2048_bits_and_more_is_taken() -> None:
    assert only(rsa_jwk(2048)) is not None
    assert only(jwk(e="Aw")) is not None
    assert only(jwk(n=b64(((1 << 16_383) + 1).to_bytes(2048)))) is not None
    assert only(rsa_jwk(3072)) is not None


def test_key_ops_may_say_verify() -> None:
    assert only(jwk(key_ops=["verify"])) is not None


def test_members_that_say_nothing_about_the_key_do_not_matter() -> None:
    assert only(jwk(x5c=["not a certificate"], x5t=5, x5u=[], ext="x", nbf=1, key_ops=["verify"])) is not None


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"keys": None},
        {"keys": {}},
        {"keys": "keys"},
        {"keys": 1},
        {"keys": []},
        {"keys": [[]]},
        pytest.param({"key": [GOOD.jwk]}, id="the name of the list is wrong"),
        pytest.param(GOOD.jwk, id="a key alone"),
    ],
    ids=lambda document: json.dumps(document)[:20],
)
def test_a_document_without_a_list_of_keys_has_none(document: dict[str, Any]) -> None:
    assert KeySet.read(document).keys == {}


def test_two_keys_that_share_kid_and_alg_are_both_left_out_in_whatever_order_and_number() -> None:
    first, second = jwk(), {**rsa_jwk(2048), "kid": "another"}
    for entries in ([first, second], [second, first], [first, second, first], [first, first, second]):
        found = read(*entries, GOOD.jwk)
        assert found.find("another", "RS256") is None
        assert found.find(GOOD.kid, "RS256") is not None


def test_a_key_that_is_published_twice_is_one_key() -> None:
    assert read(jwk(), jwk()).find("another", "RS256") is not None


def test_a_bad_key_under_the_kid_of_a_good_one_does_not_clash_with_it() -> None:
    assert read(jwk(use="enc"), jwk(), jwk(n="!!")).find("another", "RS256") is not None


def test_two_algorithms_under_one_kid_are_two_keys() -> None:
    found = read(jwk(), jwk("ES256"))
    rs256, es256 = found.find("another", "RS256"), found.find("another", "ES256")
    assert rs256 is not None
    assert es256 is not None
    assert rs256.thumbprint != es256.thumbprint


def test_the_thumbprint_follows_the_key_and_not_its_name() -> None:
    here, there = only(jwk()), only(jwk(kid="elsewhere"))
    other = only(rsa_jwk(2048))
    assert here is not None
    assert there is not None
    assert other is not None
    assert here.thumbprint == there.thumbprint != other.thumbprint
    assert isinstance(KEYS["RS256"].private, RSAKey)
    assert here.thumbprint == KEYS["RS256"].private.thumbprint()


@pytest.mark.parametrize("place", [0, 99, 100, 101, 9_999])
def test_a_good_key_is_read_whatever_its_place(place: int) -> None:
    bad = [{"kty": "oct", "k": "AA", "kid": str(number), "use": "sig", "alg": "HS256"} for number in range(10_000)]
    bad[place] = GOOD.jwk
    assert list(read(*bad).keys) == [(GOOD.kid, "RS256")]


def test_as_many_keys_are_read_as_the_bytes_of_an_answer_hold() -> None:
    entries = [jwk("ES256", kid=str(number)) for number in range(1000)]
    assert len(json.dumps({"keys": entries})) < 262_144
    assert len(read(*entries).keys) == 1000


@pytest.mark.parametrize("error", [UnsupportedAlgorithm("FIPS"), RuntimeError("odd"), RecursionError(), MemoryError()])
def test_a_key_that_the_library_cannot_use_is_left_out_alone_and_named(error: Exception) -> None:
    def bind(kid: str, algorithm: str, members: Mapping[str, Any]) -> VerificationKey:
        if algorithm == "EdDSA":
            raise error
        return bound_key(kid, algorithm, members)

    entries = [jwk("EdDSA", kid="key-\n-of-theirs"), GOOD.jwk, KEYS["ES256"].jwk]
    found = KeySet.read({"keys": entries}, bind=bind)
    assert set(found.keys) == {(GOOD.kid, "RS256"), ("key-ES256", "ES256")}
    why = f"EdDSA: the cryptography library does not take it ({type(error).__name__})"
    assert found.skipped == {"key-\n-of-theirs": why}


SKIPPED: list[tuple[dict[str, Any], str]] = [
    (jwk("EdDSA", crv="Ed448"), "EdDSA is not accepted with OKP Ed448: choose Ed25519 in the key provider"),
    (jwk("ES256", crv="secp256k1"), "ES256 is not accepted with EC secp256k1: choose P-256 in the key provider"),
    (jwk("ES256", alg="RS256"), "RS256 is not accepted with EC P-256: choose RSA in the key provider"),
    (jwk(kty=None), "RS256 is not accepted with a key without kty: choose RSA in the key provider"),
    (jwk(use=None), "it has no use, which must be sig"),
    (jwk(use="tls\n"), 'its use is "tls\N{REPLACEMENT CHARACTER}", not sig'),
    (jwk(alg=None), "it has no alg"),
    (jwk(alg="ML-DSA-65"), "its algorithm ML-DSA-65 is not accepted here: choose "),
    (jwk(key_ops=["sign"]), "its key_ops are not verify alone"),
    (jwk(d="AA"), "its secret part is published: replace it, and publish public keys only"),
    (jwk(n=b64(b"\xff" * 128)), "RSA of 1024 bits, and only 2048 to 16384 are accepted"),
    (jwk(e=b64(b"\1")), "its RSA numbers are not those of a key: replace it"),
    (jwk("EdDSA", x=b64(b"\1" + bytes(31))), "it accepts a signature that nobody made: replace it"),
    (jwk(n=None), "RS256: the cryptography library does not take it (KeyError)"),
]


@pytest.mark.parametrize(("entry", "why"), SKIPPED, ids=[why for _, why in SKIPPED])
def test_a_key_that_is_left_out_says_why_under_its_kid(entry: dict[str, Any], why: str) -> None:
    entry = {**{name: value for name, value in entry.items() if value is not None}, "kid": "theirs"}
    found = KeySet.read({"keys": [entry, GOOD.jwk]})
    assert set(found.keys) == {(GOOD.kid, "RS256")}
    assert list(found.skipped) == ["theirs"]
    assert found.skipped["theirs"].startswith(why)
    assert found.why_not("theirs") == found.skipped["theirs"]
    assert KeySet({}).keeping(found).why_not("theirs") == ""
    assert found.keeping(KeySet({})).why_not("theirs") == found.skipped["theirs"]


def test_what_is_not_left_out_has_no_reason() -> None:
    found = KeySet.read({"keys": [GOOD.jwk, jwk(use="enc", alg="RSA-OAEP", kid="enc"), 7, jwk(kid=None)]})
    assert found.why_not("enc") == ""  # every realm of Keycloak has one
    assert found.why_not("nobody") == ""
    assert found.why_not(GOOD.kid) == "it is published for RS256, and the token names another algorithm"
    assert list(found.skipped) == [""]


def test_two_keys_under_one_kid_are_both_left_out_and_say_so() -> None:
    found = KeySet.read({"keys": [jwk("ES256", kid="k"), {**SigningKey("ES256").jwk, "kid": "k"}, GOOD.jwk]})
    assert found.why_not("k") == "another key for ES256 is published under the same kid"
    assert ("k", "ES256") not in found.keys


def test_a_key_that_verifies_nobodys_signature_is_left_out() -> None:
    neutral = b64(b"\1" + bytes(31))  # the neutral element of the curve: with it as a key, S = 0 fits every message
    assert only(jwk("EdDSA", x=neutral)) is None


NOT_A_NUMBER: list[Any] = [
    None,
    5,
    1.5,
    True,
    [],
    [[]],
    [300],
    {},
    {"n": 1},
    "",
    "\u00e9",
    "\ud800",
    "!!",
    "A",
    "AA==",
    "A" * 100_000,
]


@pytest.mark.parametrize("algorithm", ["RS256", "PS512", "ES256", "ES384", "ES512", "EdDSA"])
@pytest.mark.parametrize("member", ["n", "e", "x", "y", "crv", "kty"])
def test_a_member_that_is_no_number_spoils_its_own_key_only(algorithm: str, member: str) -> None:
    if member in jwk(algorithm):
        for value in NOT_A_NUMBER:
            assert only(jwk(algorithm) | {member: value}) is None


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["sig", "RSA", "EC", "P-256", "AQAB"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MEMBERS = ["kty", "kid", "use", "alg", "n", "e", "crv", "x", "y", "key_ops", "x5c", "x5t", "oth"]


@settings(deadline=None)
@given(
    algorithm=st.sampled_from(sorted(ALGORITHMS)),
    changes=st.dictionaries(st.sampled_from(MEMBERS), JUNK, min_size=1, max_size=3),
)
def test_whatever_a_key_looks_like_the_good_one_beside_it_is_read(algorithm: str, changes: dict[str, Any]) -> None:
    entry = {**KEYS[algorithm].jwk, "kid": "another", **changes}
    key = only(entry)
    if key is not None:
        assert key.algorithm == entry["alg"]
        assert key.verify(MESSAGE, b"\1" * 256) is False


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(jwk(use="enc"), id="encryption key"),
        pytest.param(jwk(alg="RS384"), id="another algorithm"),
        pytest.param(jwk(alg=None), id="no algorithm"),
        pytest.param(private("RS256"), id="private key"),
    ],
)
def test_a_token_signed_with_a_key_that_was_left_out_is_refused_and_another_is_not(fault: dict[str, Any]) -> None:
    realm, clock = Realm(), Clock()
    realm.published.insert(0, fault)
    verifier = token_verifier(realm, monotonic=clock)
    assert judged(verifier, realm.token()).decision.reason is Reason.ALLOWED
    clock.advance(5)
    signed = realm.token(key=KEYS["RS256"], header={"kid": "another"})
    assert judged(verifier, signed).decision.reason is Reason.UNKNOWN_KEY


ANYTHING = JUNK | st.dictionaries(st.sampled_from([*MEMBERS, "k", "d"]), JUNK)


@settings(deadline=None)
@given(entries=st.lists(ANYTHING, max_size=4) | JUNK)
def test_no_document_makes_the_reading_raise(entries: Any) -> None:
    assert KeySet.read({"keys": entries}).keys == {}
