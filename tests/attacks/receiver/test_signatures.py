"""Attacks with forged numbers: line 5 of the list, and RSA and Ed25519 forgeries that nobody listed."""

from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from s2s_fastapi.decision import Reason
from tests.attacks.receiver.stack import KEYS, claims, signed, stack, token
from tests.kit.realm import b64

RSA_KEY: Any = KEYS["RS256"].private
RSA_NUMBERS = RSA_KEY.private_key.private_numbers()
MODULUS: int = RSA_NUMBERS.public_numbers.n
SECRET: int = RSA_NUMBERS.d

# 5: elliptic curves

ORDER = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    "ES512": (1 << 521) - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
}
SIZE = {"ES256": 32, "ES384": 48, "ES512": 66}


def _numbers(signature: str, name: str) -> tuple[int, int]:
    raw = urlsafe_b64decode(signature + "==")
    return int.from_bytes(raw[: SIZE[name]]), int.from_bytes(raw[SIZE[name] :])


def _joined(r: int, s: int, size: int) -> bytes:
    return r.to_bytes(size) + s.to_bytes(size)


EC_FORGERIES: dict[str, Callable[[int, int, int, int], bytes]] = {
    "r = s = 0": lambda r, s, n, size: _joined(0, 0, size),
    "r = 0": lambda r, s, n, size: _joined(0, s, size),
    "s = 0": lambda r, s, n, size: _joined(r, 0, size),
    "r = n": lambda r, s, n, size: _joined(n, s, size),
    "s = n": lambda r, s, n, size: _joined(r, n, size),
    "r = s = n": lambda r, s, n, size: _joined(n, n, size),
    "r = s = 1": lambda r, s, n, size: _joined(1, 1, size),
    "all ones": lambda r, s, n, size: b"\xff" * 2 * size,
    "exchanged": lambda r, s, n, size: _joined(s, r, size),
    "DER": lambda r, s, n, size: encode_dss_signature(r, s),
    "a byte short": lambda r, s, n, size: _joined(r, s, size)[:-1],
    "a byte long": lambda r, s, n, size: _joined(r, s, size) + b"\0",
    "a zero in front of both": lambda r, s, n, size: _joined(r, s, size + 1),
    "one number": lambda r, s, n, size: r.to_bytes(size),
    "three numbers": lambda r, s, n, size: _joined(r, s, size) + s.to_bytes(size),
    "twice": lambda r, s, n, size: _joined(r, s, size) * 2,
    "six kilobytes": lambda r, s, n, size: _joined(r, s, size) + b"\0" * 6000,
}


@pytest.mark.parametrize("forge", EC_FORGERIES.values(), ids=EC_FORGERIES)
@pytest.mark.parametrize("name", ORDER)
def test_an_ecdsa_signature_is_two_numbers_between_nothing_and_the_order(
    name: str, forge: Callable[[int, int, int, int], bytes]
) -> None:
    attacked = stack(name)
    good = token(attacked.realm)
    header, payload, signature = good.split(".")
    forged = forge(*_numbers(signature, name), ORDER[name], SIZE[name])
    attacked.holds(good, f"{header}.{payload}.{b64(forged)}", Reason.INVALID_SIGNATURE)


@pytest.mark.parametrize("signs", ["ES384", "ES512"])
def test_a_signature_of_a_larger_curve_is_none_of_es256(signs: str) -> None:
    attacked = stack("ES256", signs)
    header = {"alg": "ES256", "kid": KEYS["ES256"].kid}
    forged = attacked.realm.sign(claims(attacked.realm), key=KEYS[signs], header=header)
    attacked.holds(token(attacked.realm), forged, Reason.INVALID_SIGNATURE)


def test_es256_over_another_hash_is_none() -> None:
    attacked = stack("ES256")
    key: Any = KEYS["ES256"].private

    def sign(text: bytes) -> bytes:
        return _joined(*decode_dss_signature(bytes(key.private_key.sign(text, ec.ECDSA(hashes.SHA384())))), 32)

    forged = signed({"alg": "ES256", "kid": KEYS["ES256"].kid}, claims(attacked.realm), sign)
    attacked.holds(token(attacked.realm), forged, Reason.INVALID_SIGNATURE)


def test_the_twin_of_an_ecdsa_signature_says_the_same_and_no_more() -> None:
    # (r, n - s) verifies wherever (r, s) does, and RFC 7518 does not forbid it: nothing here may hang on a token's spelling.
    attacked = stack("ES256")
    good = token(attacked.realm)
    header, payload, signature = good.split(".")
    r, s = _numbers(signature, "ES256")
    twin = f"{header}.{payload}.{b64(_joined(r, ORDER['ES256'] - s, 32))}"
    attacked.accepts(good)
    attacked.accepts(twin)
    attacked.realm.not_before = int(claims(attacked.realm)["iat"]) + 1
    attacked.monotonic.advance(600)
    attacked.refuses(good, Reason.REVOKED, outbound=1)
    attacked.refuses(twin, Reason.REVOKED)


# Numbers that verify under a careless RSA or Ed25519


def _pkcs1(hashed: bytes, *, prefix: str = "3031300d060960864801650304020105000420", block: bytes = b"\0\1") -> bytes:
    info = bytes.fromhex(prefix) + hashed
    return block + b"\xff" * (256 - 3 - len(info)) + b"\0" + info


def _digest(text: bytes, algorithm: hashes.HashAlgorithm | None = None) -> bytes:
    digest = hashes.Hash(algorithm or hashes.SHA256())
    digest.update(text)
    return digest.finalize()


def _encrypted(message: bytes) -> bytes:
    signed_number: int = pow(int.from_bytes(message), SECRET, MODULUS)
    return signed_number.to_bytes(256)


def _rotated(text: bytes) -> bytes:
    info = bytes.fromhex("3031300d060960864801650304020105000420") + _digest(text)
    return _encrypted(b"\0\1" + b"\xff" * 8 + b"\0" + info + b"\0" * (256 - 11 - len(info)))


RSA_FORGERIES: dict[str, Callable[[bytes], bytes]] = {
    "0": lambda text: b"\0" * 256,
    "1": lambda text: (1).to_bytes(256),
    "n - 1": lambda text: (MODULUS - 1).to_bytes(256),
    "n": lambda text: MODULUS.to_bytes(256),
    "all ones": lambda text: b"\xff" * 256,
    "the message itself, as for e = 1": lambda text: _pkcs1(_digest(text)),
    "the hash alone": lambda text: _encrypted(_digest(text)),
    "block type 0": lambda text: _encrypted(_pkcs1(_digest(text), block=b"\0\0")),
    "block type 2": lambda text: _encrypted(_pkcs1(_digest(text), block=b"\0\2")),
    "a short padding and rubbish behind": _rotated,
    "SHA-1": lambda text: _encrypted(
        _pkcs1(_digest(text, hashes.SHA1()), prefix="3021300906052b0e03021a05000414")  # noqa: S303
    ),
    "the name of another hash": lambda text: _encrypted(
        _pkcs1(_digest(text), prefix="3031300d060960864801650304020205000420")
    ),
    "a zero in front": lambda text: b"\0" + _encrypted(_pkcs1(_digest(text))),
    "a zero behind": lambda text: _encrypted(_pkcs1(_digest(text))) + b"\0",
    "a byte short": lambda text: _encrypted(_pkcs1(_digest(text)))[1:],
    "the modulus added": lambda text: (int.from_bytes(_encrypted(_pkcs1(_digest(text)))) + MODULUS).to_bytes(257),
}


@pytest.mark.parametrize("forge", RSA_FORGERIES.values(), ids=RSA_FORGERIES)
def test_an_rsa_signature_is_one_number_below_the_modulus(forge: Callable[[bytes], bytes]) -> None:
    attacked = stack("RS256")
    head = {"alg": "RS256", "kid": KEYS["RS256"].kid}
    good = signed(head, claims(attacked.realm), lambda text: _encrypted(_pkcs1(_digest(text))))
    attacked.holds(good, signed(head, claims(attacked.realm), forge), Reason.INVALID_SIGNATURE)


def test_a_cube_root_is_no_signature_of_a_key_with_exponent_3() -> None:
    # Bleichenbacher 2006: the padding is cut short, and what stands behind it makes the number a cube, nearly.
    attacked = stack("RS256")
    small = rsa.generate_private_key(3, 2048)
    numbers = small.public_key().public_numbers()
    entry = {**KEYS["RS256"].jwk, "kid": "small", "n": b64(numbers.n.to_bytes(256)), "e": b64(b"\3")}
    attacked.realm.published.append(entry)

    def forge(text: bytes) -> bytes:
        info = bytes.fromhex("3031300d060960864801650304020105000420") + _digest(text)
        wanted = b"\0\1" + b"\xff" * 8 + b"\0" + info
        target = int.from_bytes(wanted + b"\xff" * (256 - len(wanted)))
        low, high = 0, 1 << 700
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**3 <= target else (low, middle - 1)
        assert (low**3).to_bytes(256).startswith(wanted)
        return low.to_bytes(256)

    head = {"alg": "RS256", "kid": "small"}
    good = signed(head, claims(attacked.realm), lambda text: small.sign(text, padding.PKCS1v15(), hashes.SHA256()))
    attacked.holds(good, signed(head, claims(attacked.realm), forge), Reason.INVALID_SIGNATURE)


ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493
ED25519_FORGERIES: dict[str, Callable[[bytes], bytes]] = {
    "nothing but zeros": lambda raw: bytes(64),
    "the neutral point and 0": lambda raw: b"\1" + bytes(63),
    "the order added to S": lambda raw: (
        raw[:32] + (int.from_bytes(raw[32:], "little") + ED25519_ORDER).to_bytes(32, "little")
    ),
    "the sign of R turned": lambda raw: raw[:31] + bytes([raw[31] ^ 0x80]) + raw[32:],
    "R above the prime": lambda raw: b"\xff" * 31 + b"\x7f" + raw[32:],
    "a byte short": lambda raw: raw[:-1],
    "a byte long": lambda raw: raw + b"\0",
    "R alone": lambda raw: raw[:32],
}


@pytest.mark.parametrize("forge", ED25519_FORGERIES.values(), ids=ED25519_FORGERIES)
def test_an_ed25519_signature_has_no_twin(forge: Callable[[bytes], bytes]) -> None:
    attacked = stack("EdDSA")
    good = token(attacked.realm)
    header, payload, signature = good.split(".")
    forged = forge(urlsafe_b64decode(signature + "=="))
    attacked.holds(good, f"{header}.{payload}.{b64(forged)}", Reason.INVALID_SIGNATURE)
