"""Attacks through the key set: line 4 of the list. What Keycloak, or whoever answers for it, publishes is not all usable."""

import gzip
import hmac
import json
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from s2s_fastapi.decision import Reason
from tests.attacks.receiver.stack import FORGER, KEYS, Stack, claims, signed, stack, token
from tests.kit.realm import Realm, SigningKey, b64

Sign = Callable[[bytes], bytes]
Entry = tuple[dict[str, Any], Sign]
"""A published key, and a true signature of whoever holds its other half."""

OTHER = "other"


def _as(key: SigningKey, **changes: Any) -> Entry:
    def sign(text: bytes) -> bytes:
        return urlsafe_b64decode(key.sign(text.decode()) + "==")

    entry = {**key.jwk, "kid": OTHER, **changes}
    return {name: value for name, value in entry.items() if value is not None}, sign


def _private(key: SigningKey, **changes: Any) -> Entry:
    return _as(key, **{**key.private.as_dict(private=True), "kid": OTHER, **changes})


def _oct(secret: str, **changes: Any) -> Entry:
    raw = urlsafe_b64decode(secret + "==")
    entry = {"kty": "oct", "k": secret, "kid": OTHER, "use": "sig", "alg": "RS256", **changes}
    return entry, lambda text: hmac.digest(raw, text, "sha256")


def _small_rsa(bits: int) -> Entry:
    key = rsa.generate_private_key(65537, bits)
    modulus = key.public_key().public_numbers().n
    entry = {**FORGER["RS256"].jwk, "kid": OTHER, "n": b64(modulus.to_bytes((bits + 7) // 8))}
    return entry, lambda text: key.sign(text, padding.PKCS1v15(), hashes.SHA256())


def _exponent_1() -> Entry:
    def sign(text: bytes) -> bytes:
        digest = hashes.Hash(hashes.SHA256())
        digest.update(text)
        info = bytes.fromhex("3031300d060960864801650304020105000420") + digest.finalize()
        return b"\0\1" + b"\xff" * (253 - len(info)) + b"\0" + info  # to the power of 1 it is what it should be

    return _as(FORGER["RS256"], e="AQ")[0], sign


def _koblitz(**changes: Any) -> Entry:
    key = ec.generate_private_key(ec.SECP256K1())
    numbers = key.public_key().public_numbers()

    def sign(text: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(text, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)

    point = {"x": b64(numbers.x.to_bytes(32)), "y": b64(numbers.y.to_bytes(32))}
    return {"kty": "EC", "crv": "secp256k1", "kid": OTHER, "use": "sig", "alg": "ES256", **point, **changes}, sign


ES256, RS256 = FORGER["ES256"], FORGER["RS256"]

ENTRIES: dict[str, Entry] = {
    "a symmetric key that says RS256": _oct("c2VjcmV0"),
    "an empty symmetric key": _oct(""),
    "a symmetric key without alg": _oct("c2VjcmV0", alg=None),
    "an encryption key": _as(RS256, use="enc"),
    "an encryption key as Keycloak has one": _as(RS256, use="enc", alg="RSA-OAEP"),
    "a key without a use": _as(RS256, use=None),
    "key_ops encrypt": _as(RS256, key_ops=["encrypt"]),
    "key_ops sign": _as(RS256, key_ops=["sign"]),
    "a published private RSA key": _private(RS256),
    "a published private EC key": _private(ES256),
    "a private part of another key": _private(ES256, d=KEYS["ES256"].private.as_dict(private=True)["d"]),
    "RSA with 1024 bits": _small_rsa(1024),
    "RSA with 2047 bits": _small_rsa(2047),
    "RSA with e = 1": _exponent_1(),
    "a point that is not on the curve": _as(ES256, y=ES256.jwk["x"]),
    "the point 0, 0": _as(ES256, x=b64(bytes(32)), y=b64(bytes(32))),
    "secp256k1": _koblitz(),
    "secp256k1 that says P-256": _koblitz(crv="P-256"),
    "secp256k1 under its other name": _koblitz(crv="P-256K"),
    "a P-256 key that says P-384": _as(ES256, crv="P-384"),
    "an unknown type": _as(RS256, kty="AKP"),
    "a type in lower case": _as(RS256, kty="rsa"),
    "a key without a kid": _as(RS256, kid=None),
    "an empty kid": _as(RS256, kid=""),
    "a list of kids": _as(RS256, kid=[OTHER]),
    "certificates alone": _as(RS256, n=None, e=None, x5c=["MIIB"], x5u="https://evil.example/key.pem"),
}


@pytest.mark.filterwarnings("ignore")  # as in service, where what a library says of a short key is only a warning
@pytest.mark.parametrize(("entry", "sign"), ENTRIES.values(), ids=ENTRIES)
def test_a_published_key_that_cannot_safely_verify_verifies_nothing_and_spoils_nothing(
    entry: dict[str, Any], sign: Sign
) -> None:
    attacked = stack("PS256")
    attacked.realm.published[:0] = [entry]
    alg = "ES256" if entry.get("kty") == "EC" else "RS256"
    forged = signed({"alg": alg, "kid": OTHER}, claims(attacked.realm), sign)
    attacked.holds(token(attacked.realm), forged, Reason.UNKNOWN_KEY, outbound=1)


def test_without_that_fault_the_same_published_key_would_have_verified() -> None:
    for key in FORGER.values():
        attacked = stack("PS256")
        entry, sign = _as(key)
        attacked.realm.published.append(entry)
        attacked.accepts(signed({"alg": key.algorithm, "kid": OTHER}, claims(attacked.realm), sign))


@pytest.mark.parametrize("secret", ["c2VjcmV0", ""], ids=["a secret", "nothing"])
def test_a_published_symmetric_key_is_no_key_under_its_own_algorithm_either(secret: str) -> None:
    attacked = stack("RS256")
    entry, sign = _oct(secret, alg="HS256")
    attacked.realm.published.append(entry)
    forged = signed({"alg": "HS256", "kid": OTHER}, claims(attacked.realm), sign)
    attacked.holds(token(attacked.realm), forged, Reason.ALGORITHM_NOT_ALLOWED)


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_keys_under_one_kid_neither_is_believed_whichever_comes_first(first: int) -> None:
    attacked = stack("PS256")
    twins = [_as(RS256), _as(KEYS["RS256"])]
    attacked.realm.published += [twins[first][0], twins[1 - first][0]]
    for _, sign in twins:
        forged = signed({"alg": "RS256", "kid": OTHER}, claims(attacked.realm), sign)
        attacked.holds(token(attacked.realm), forged, Reason.UNKNOWN_KEY, outbound=1)


def test_a_token_without_a_kid_is_never_tried_with_every_key() -> None:
    attacked = stack("RS256")
    attacked.realm.published = [KEYS["RS256"].jwk]
    good = token(attacked.realm)
    attacked.holds(good, attacked.realm.sign(claims(attacked.realm), header={"kid": None}), Reason.MALFORMED_TOKEN)


# Answers that are no key set, or too much of one


def _set(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(entries)}).encode()


def _page(body: bytes, headers: dict[str, str] | None = None, *, status: int = 200) -> Callable[[], httpx.Response]:
    return lambda: httpx.Response(status, content=body, headers=headers)


EVIL = FORGER["RS256"].jwk
GOOD = KEYS["RS256"].jwk
BAD_SETS: dict[str, Callable[[], httpx.Response]] = {
    "10 000 keys": _page(_set(*[{**EVIL, "kid": str(n)} for n in range(10_000)], GOOD, EVIL)),
    "50 MB": _page(_set(GOOD, EVIL)[:-1] + b" " * 50_000_000 + b"}"),
    "HTML": _page(b"<!DOCTYPE html><html><body>200 OK</body></html>"),
    "a gzip bomb": _page(gzip.compress(_set(GOOD, EVIL)[:-1] + b" " * 50_000_000 + b"}"), {"Content-Encoding": "gzip"}),
    "an honest gzip": _page(gzip.compress(_set(GOOD, EVIL)), {"Content-Encoding": "gzip"}),
    "trailing garbage": _page(_set(GOOD, EVIL) + b"garbage"),
    "a second document": _page(_set(GOOD) + _set(EVIL)),
    "a member that stands twice": _page(b'{"keys": [' + json.dumps(GOOD).encode() + b'], "keys": [' + json.dumps(EVIL).encode() + b"]}"),
    "a byte order mark": _page(b"\xef\xbb\xbf" + _set(GOOD, EVIL)),
    "UTF-16": _page(_set(GOOD, EVIL).decode().encode("utf-16")),
    "a list": _page(json.dumps([GOOD, EVIL]).encode()),
    "one key, not a set": _page(json.dumps(EVIL).encode()),
    "an object of keys": _page(json.dumps({"keys": {"0": EVIL}}).encode()),
    "no keys": _page(_set()),
    "null": _page(b'{"keys": null}'),
    "nothing": _page(b""),
    "nesting without end": _page(b'{"keys": ' + b"[" * 100_000),
    "a redirect": _page(_set(GOOD, EVIL), {"Location": "https://evil.example/certs"}, status=302),
    "an error with keys": _page(_set(GOOD, EVIL), status=500),
    "204": _page(b"", status=204),
    "206": _page(_set(GOOD, EVIL), status=206),
    "203, from somebody in between": _page(_set(GOOD, EVIL), status=203),
}  # fmt: skip


def _answering(page: Callable[[], httpx.Response]) -> Callable[[httpx.Request], httpx.Response | None]:
    return lambda request: page() if request.url.path.endswith("/certs") else None


@pytest.mark.parametrize("page", BAD_SETS.values(), ids=BAD_SETS)
def test_a_bad_key_set_never_brings_a_key_and_never_takes_one_away(page: Callable[[], httpx.Response]) -> None:
    attacked = stack("RS256")
    good = token(attacked.realm)
    attacked.accepts(good)
    attacked.realm.answer = _answering(page)
    forged = attacked.realm.sign(claims(attacked.realm), key=FORGER["RS256"])

    attacked.monotonic.advance(5)
    before = len(attacked.realm.requests)
    response = attacked.bearer(forged)

    # Nobody can say whether this key is one: that is our trouble, not the token's, and no reason to let it in.
    attacked.shows_nothing(response, Reason.KEYS_UNAVAILABLE)
    assert attacked.realm.requests[before:] == ["/realms/corp/protocol/openid-connect/certs"]
    attacked.accepts(good)
    attacked.monotonic.advance(595)  # too old to be fresh; the last good ones serve
    attacked.accepts(good)


@pytest.mark.parametrize("page", BAD_SETS.values(), ids=BAD_SETS)
def test_whoever_starts_with_a_bad_key_set_lets_nobody_in(page: Callable[[], httpx.Response]) -> None:
    realm = Realm(key=KEYS["RS256"])
    realm.answer = _answering(page)
    attacked = Stack(realm)
    for signer in (KEYS["RS256"], FORGER["RS256"]):
        attacked.shows_nothing(attacked.bearer(realm.sign(claims(realm), key=signer)), Reason.KEYS_UNAVAILABLE)
    assert realm.fetches == 1
