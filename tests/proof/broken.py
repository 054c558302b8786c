"""Proofs that must be refused: each is a good one with one property broken, and signed again with the right key.

Nothing here uses our own code to make a proof. `BROKEN` is the table: a name, the key that the token is bound to, the values of the DPoP
headers, and what the refusal says. Tests try it on `check_proof` and over sockets.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from s2s_fastapi.decision import Reason

__all__ = ["BROKEN", "Asked", "Broken", "Key", "ec_key", "ed_key", "rsa_key"]

_HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVES: dict[str, tuple[type[ec.EllipticCurve], str, int]] = {
    "ES256": (ec.SECP256R1, "P-256", 32),
    "ES384": (ec.SECP384R1, "P-384", 48),
    "ES512": (ec.SECP521R1, "P-521", 66),
}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value: int, size: int = 0) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def as_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Asked:
    """One request with a bound token."""

    method: str
    url: str
    """As the client calls it: absolute, without query."""
    token: str
    now: float


@dataclass(frozen=True)
class Key:
    """A private key, as the sender of proofs has it. `jwk` is what it shows of it."""

    algorithm: str
    jwk: Mapping[str, Any]
    sign: Callable[[bytes], bytes] = field(repr=False)

    @property
    def thumbprint(self) -> str:
        required = {name: self.jwk[name] for name in ("crv", "e", "kty", "n", "x", "y") if name in self.jwk}
        return b64(hashlib.sha256(as_json(required)).digest())

    def header(self, **changes: Any) -> dict[str, Any]:
        return changed({"typ": "dpop+jwt", "alg": self.algorithm, "jwk": dict(self.jwk)}, changes)

    def claims(self, asked: Asked, **changes: Any) -> dict[str, Any]:
        good = {
            "jti": secrets.token_urlsafe(16),
            "htm": asked.method,
            "htu": asked.url,
            "iat": int(asked.now),
            "ath": b64(hashlib.sha256(asked.token.encode()).digest()),
        }
        return changed(good, changes)

    def signed(self, header: bytes, payload: bytes) -> bytes:
        """Return a compact JWS of these bytes, whatever they are."""
        signing_input = f"{b64(header)}.{b64(payload)}".encode()
        return signing_input + b"." + b64(self.sign(signing_input)).encode()

    def proof(
        self, asked: Asked, *, header: Mapping[str, Any] | None = None, claims: Mapping[str, Any] | None = None
    ) -> bytes:
        """Return a good proof, with these changes. A change to `LEFT_OUT` takes the member away."""
        return self.signed(as_json(self.header(**(header or {}))), as_json(self.claims(asked, **(claims or {}))))


LEFT_OUT = object()


def changed(good: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**good, **changes}.items() if value is not LEFT_OUT}


@lru_cache
def ec_key(algorithm: str = "ES256", which: int = 0) -> Key:
    curve, name, size = _CURVES[algorithm]
    private = ec.generate_private_key(curve())
    public = private.public_key().public_numbers()
    hashed = ec.ECDSA(_HASHES[algorithm[2:]])

    def sign(message: bytes) -> bytes:
        r, s = decode_dss_signature(private.sign(message, hashed))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    return Key(algorithm, {"kty": "EC", "crv": name, "x": number(public.x, size), "y": number(public.y, size)}, sign)


@lru_cache
def rsa_key(algorithm: str = "RS256", bits: int = 2048, exponent: int = 65537) -> Key:
    private = _rsa(bits, exponent)
    hashed = _HASHES[algorithm[2:]]
    padded = (
        padding.PKCS1v15()
        if algorithm.startswith("RS")
        else padding.PSS(mgf=padding.MGF1(hashed), salt_length=hashed.digest_size)
    )
    public = private.public_key().public_numbers()
    return Key(
        algorithm,
        {"kty": "RSA", "n": number(public.n), "e": number(public.e)},
        lambda message: private.sign(message, padded, hashed),
    )


@lru_cache
def _rsa(bits: int, exponent: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(exponent, bits)


@lru_cache
def ed_key() -> Key:
    private = ed25519.Ed25519PrivateKey.generate()
    return Key(
        "EdDSA", {"kty": "OKP", "crv": "Ed25519", "x": b64(private.public_key().public_bytes_raw())}, private.sign
    )


Values = Callable[[Key, Asked], list[bytes]]


@dataclass(frozen=True)
class Broken:
    """One way in which a proof is broken."""

    values: Values
    """The values of the DPoP headers of a request."""
    says: str
    """Words of the cure."""
    key: Callable[[], Key] = ec_key
    """The key whose thumbprint is the ``cnf.jkt`` of the token."""
    reason: Reason = Reason.INVALID_PROOF


def header(says: str, key: Callable[[], Key] = ec_key, **changes: Any) -> Broken:
    return Broken(lambda key, asked: [key.proof(asked, header=changes)], says, key)


def claims(says: str, **changes: Any) -> Broken:
    return Broken(lambda key, asked: [key.proof(asked, claims=changes)], says)


def jwk(says: str, key: Callable[[], Key] = ec_key, **changes: Any) -> Broken:
    """The key in the header is changed; the token stays bound to the good one."""
    return Broken(lambda key, asked: [key.proof(asked, header={"jwk": changed(dict(key.jwk), changes)})], says, key)


def bound_to(says: str, key: Callable[[], Key]) -> Broken:
    """The proof is good, and the token is bound to this key, which nobody should have."""
    return Broken(lambda key, asked: [key.proof(asked)], says, key)


def at(says: str, offset: float) -> Broken:
    return Broken(lambda key, asked: [key.proof(asked, claims={"iat": int(asked.now) + offset})], says)


def url(says: str, change: Callable[[str], Any]) -> Broken:
    return Broken(lambda key, asked: [key.proof(asked, claims={"htu": change(asked.url)})], says)


def ath(change: Callable[[bytes], str], says: str = "for another token") -> Broken:
    return Broken(lambda key, asked: [key.proof(asked, claims={"ath": change(asked.token.encode())})], says)


def raw(says: str, change: Callable[[bytes], bytes]) -> Broken:
    """The text of a good proof is changed after it was signed."""
    return Broken(lambda key, asked: [change(key.proof(asked))], says)


def header_bytes(says: str, change: Callable[[bytes], bytes]) -> Broken:
    return Broken(lambda key, asked: [key.signed(change(as_json(key.header())), as_json(key.claims(asked)))], says)


def payload_bytes(says: str, change: Callable[[bytes], bytes]) -> Broken:
    return Broken(lambda key, asked: [key.signed(as_json(key.header()), change(as_json(key.claims(asked))))], says)


def signature(says: str, change: Callable[[bytes], bytes], key: Callable[[], Key] = ec_key) -> Broken:
    """The header and the claims are good."""

    def values(key: Key, asked: Asked) -> list[bytes]:
        signing_input, _, last = key.proof(asked).rpartition(b".")
        made = base64.urlsafe_b64decode(last + b"==")
        return [signing_input + b"." + b64(change(made)).encode()]

    return Broken(values, says, key)


def _parts(proof: bytes, index: int, change: Callable[[bytes], bytes]) -> bytes:
    parts = proof.split(b".")
    parts[index] = change(parts[index])
    return b".".join(parts)


def _spare_bits(segment: bytes) -> bytes:
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return segment[:-1] + alphabet[alphabet.index(segment[-1]) + 1 :][:1]


def _standard_alphabet(key: Key, asked: Asked) -> list[bytes]:
    while True:
        start, _, last = key.proof(asked).rpartition(b".")
        if b"-" in last or b"_" in last:
            return [start + b"." + last.replace(b"-", b"+").replace(b"_", b"/")]


def _json_form(key: Key, asked: Asked) -> list[bytes]:
    protected, payload, made = key.proof(asked).decode().split(".")
    return [as_json({"protected": protected, "payload": payload, "signature": made}).replace(b",", b" ,")]


def _hmac_with_the_public_key(key: Key, asked: Asked) -> list[bytes]:
    secret = as_json(dict(key.jwk))
    forged = replace(key, algorithm="HS256", sign=lambda message: hmac.digest(secret, message, "sha256"))
    return [forged.proof(asked)]


def _der(made: bytes) -> bytes:
    return encode_dss_signature(int.from_bytes(made[:32], "big"), int.from_bytes(made[32:], "big"))


def _not_on_the_curve() -> Key:
    good = ec_key()
    y = base64.urlsafe_b64decode(good.jwk["y"] + "==")
    return replace(good, jwk={**good.jwk, "y": b64(y[:-1] + bytes([y[-1] ^ 1]))})


def _zeros() -> Key:
    good = ec_key()
    return replace(good, jwk={**good.jwk, "x": b64(bytes(32)), "y": b64(bytes(32))})


def _neutral_element() -> Key:
    """A key with which a signature that nobody made is valid for every message."""
    return Key("EdDSA", {"kty": "OKP", "crv": "Ed25519", "x": b64(b"\1" + bytes(31))}, lambda _: b"\1" + bytes(63))


def _rsa_number(n: int, e: int = 65537) -> Callable[[], Key]:
    return lambda: Key("RS256", {"kty": "RSA", "n": number(n), "e": number(e)}, lambda _: bytes(256))


def _rsa_leading_zero() -> Key:
    good = rsa_key()
    return replace(good, jwk={**good.jwk, "n": b64(b"\0" + base64.urlsafe_b64decode(good.jwk["n"] + "=="))})


def _pss_under_the_name_of_pkcs1() -> Key:
    return replace(rsa_key("PS256"), algorithm="RS256")


def _resized(name: str, resize: Callable[[bytes], bytes]) -> Callable[[], Key]:
    """A good key with one coordinate of another length: RFC 7518 section 6.2.1.2 wants all bytes, also those that are zero."""
    good = ec_key()
    return lambda: replace(good, jwk={**good.jwk, name: b64(resize(base64.urlsafe_b64decode(good.jwk[name] + "==")))})


def other_key() -> Key:
    return ec_key("ES256", 1)


_COMPACT = "not a compact JWS."
_READING = "exactly one reading"
_OTHER_MEMBERS = "other members than typ, alg and jwk"
_JWK_MEMBERS = "members that are not allowed"
_NO_KEY_FOR = "not a key for ES256"
_SIZE = "2048 to 4096 bits and the exponent 65537"
_TEXTS = "needs jti, htm, htu and ath as texts"
_WRONG = "signature of the proof is wrong"

BROKEN: Mapping[str, Broken] = {
    # How many there are, and what they look like.
    "none": Broken(lambda key, asked: [], "no header DPoP", reason=Reason.PROOF_MISSING),
    "two headers": Broken(lambda key, asked: [key.proof(asked), key.proof(asked)], "more than one proof"),
    "the same header twice": Broken(lambda key, asked: [key.proof(asked)] * 2, "more than one proof"),
    "a good one and an empty one": Broken(lambda key, asked: [key.proof(asked), b""], "more than one proof"),
    "two in one value": Broken(lambda key, asked: [key.proof(asked) + b", " + key.proof(asked)], "more than one proof"),
    "a comma after it": raw("more than one proof", lambda proof: proof + b","),
    "empty": raw(_COMPACT, lambda _: b""),
    "a word": raw(_COMPACT, lambda _: b"proof"),
    "bytes that are no text": raw(_READING, lambda _: b"\xff\xfe.\x80.\x81"),
    "without its signature": raw(_COMPACT, lambda proof: proof.rpartition(b".")[0]),
    "an empty signature": raw(_READING, lambda proof: proof.rpartition(b".")[0] + b"."),
    "four parts": raw(_COMPACT, lambda proof: proof + b".AAAA"),
    "five parts, like an encrypted one": raw(_COMPACT, lambda proof: proof + b".AAAA.AAAA"),
    "in the JSON form": Broken(_json_form, "proof"),
    "more than 4 KB": Broken(lambda key, asked: [key.proof(asked, claims={"more": "m" * 4096})], "more than the 4096"),
    "the scheme before it": raw(_READING, lambda proof: b"DPoP " + proof),
    "in quotes": raw(_READING, lambda proof: b'"' + proof + b'"'),
    # Base64url with a second spelling.
    "padding in the header": raw(_READING, lambda proof: _parts(proof, 0, lambda part: part + b"=")),
    "padding in the claims": raw(_READING, lambda proof: _parts(proof, 1, lambda part: part + b"=")),
    "padding in the signature": raw(_READING, lambda proof: proof + b"=="),
    "the alphabet of base64": Broken(_standard_alphabet, _READING),
    "bits left over in the signature": raw(_READING, lambda proof: _parts(proof, 2, _spare_bits)),
    "a space in the claims": raw(_READING, lambda proof: _parts(proof, 1, lambda part: part[:8] + b" " + part[8:])),
    # The header is JSON with one reading.
    "a header that is no JSON": header_bytes(_READING, lambda _: b"not JSON"),
    "a header that is a list": header_bytes(_READING, lambda text: b"[" + text + b"]"),
    "a header with alg twice": header_bytes(_READING, lambda text: text[:-1] + b',"alg":"ES256"}'),
    "a header with jwk twice": header_bytes(
        _READING, lambda text: text[:-1] + b',"jwk":' + as_json(dict(ec_key().jwk)) + b"}"
    ),
    "a key with x twice": header_bytes(_READING, lambda text: text.replace(b'"x":', b'"x":"AAAA","x":')),
    "a header with a byte order mark": header_bytes(_READING, lambda text: b"\xef\xbb\xbf" + text),
    "a header in UTF-16": header_bytes(_READING, lambda text: text.decode().encode("utf-16")),
    "a header of 100 levels": header_bytes(
        _READING, lambda text: text[:-1] + b',"a":' + b"[" * 100 + b"]" * 100 + b"}"
    ),
    "a header followed by another": header_bytes(_READING, lambda text: text + text),
    # typ.
    "no typ": header("its typ", typ=LEFT_OUT),
    "typ JWT": header("its typ", typ="JWT"),
    "typ at+jwt": header("its typ", typ="at+jwt"),
    "typ in upper case": header("its typ", typ="DPOP+JWT"),
    "typ as a media type": header("its typ", typ="application/dpop+jwt"),
    "typ in a list": header("its typ", typ=["dpop+jwt"]),
    # alg.
    "no alg": header(_OTHER_MEMBERS, alg=LEFT_OUT),
    "alg none": header("its alg", alg="none"),
    "alg none without a signature": Broken(
        lambda key, asked: [key.proof(asked, header={"alg": "none"}).rpartition(b".")[0] + b"."], _READING
    ),
    "alg HS256 with the public key as secret": Broken(_hmac_with_the_public_key, "its alg"),
    "alg in lower case": header("its alg", alg="es256"),
    "alg ES256K": header("its alg", alg="ES256K"),
    "alg in a list": header("its alg", alg=["ES256"]),
    "alg RS256 with a key of P-256": header("not a key for RS256", alg="RS256"),
    "alg ES384 with a key of P-256": header("not a key for ES384", alg="ES384"),
    "alg EdDSA with a key of P-256": header("not a key for EdDSA", alg="EdDSA"),
    "alg ES256 with a key of RSA": header(_NO_KEY_FOR, rsa_key, alg="ES256"),
    "alg ES256 with a key of P-384": header(_NO_KEY_FOR, lambda: ec_key("ES384"), alg="ES256"),
    "alg ES256 with a key of Ed25519": header(_NO_KEY_FOR, ed_key, alg="ES256"),
    # Other members of the header: another key, a URL, other rules.
    "a kid": header(_OTHER_MEMBERS, kid="a"),
    "a jku": header(_OTHER_MEMBERS, jku="https://attacker.example/keys"),
    "an x5u": header(_OTHER_MEMBERS, x5u="https://attacker.example/chain"),
    "an x5c": header(_OTHER_MEMBERS, x5c=["AAAA"]),
    "an x5t": header(_OTHER_MEMBERS, x5t="AAAA"),
    "a crit": header(_OTHER_MEMBERS, crit=["exp"], exp=1),
    "an empty crit": header(_OTHER_MEMBERS, crit=[]),
    "b64 false": header(_OTHER_MEMBERS, b64=False),
    "a zip": header(_OTHER_MEMBERS, zip="DEF"),
    "a cty": header(_OTHER_MEMBERS, cty="JWT"),
    "a nonce in the header": header(_OTHER_MEMBERS, nonce="n"),
    "claims in the header": header(_OTHER_MEMBERS, ath="AAAA"),
    # jwk.
    "no jwk": header(_OTHER_MEMBERS, jwk=LEFT_OUT),
    "a jwk that is null": header("not an object", jwk=None),
    "a jwk that is a text": header("not an object", jwk="{}"),
    "a jwk that is a list": header("not an object", jwk=[dict(ec_key().jwk)]),
    "an empty jwk": header(_NO_KEY_FOR, jwk={}),
    "a key set in place of the key": header(_NO_KEY_FOR, jwk={"keys": [dict(ec_key().jwk)]}),
    "the private key": jwk("private key", d=b64(bytes(range(32)))),
    "an empty private key": jwk("private key", d=""),
    "the primes of RSA": jwk("private key", rsa_key, p="AQAB", q="AQAB"),
    "a symmetric key": jwk("private key", kty="oct", k="AAAA"),
    "a key of another kty": jwk(_NO_KEY_FOR, kty="RSA"),
    "a kty in lower case": jwk(_NO_KEY_FOR, kty="ec"),
    "no kty": jwk(_NO_KEY_FOR, kty=LEFT_OUT),
    "a key of another curve": jwk(_NO_KEY_FOR, crv="P-384"),
    "the curve secp256k1": jwk(_NO_KEY_FOR, crv="secp256k1"),
    "the curve Ed448": jwk("not a key for EdDSA", ed_key, crv="Ed448"),
    "the curve X25519": jwk("not a key for EdDSA", ed_key, crv="X25519"),
    "no y": jwk("lacks a number", y=LEFT_OUT),
    "an x that is a number": jwk("lacks a number", x=7),
    "an x with padding": jwk(_READING, x=ec_key().jwk["x"] + "="),
    "an x that is no base64url": jwk(_READING, x="\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 43),
    "an empty x": jwk(_READING, x=""),
    "an x5u in the key": jwk(_JWK_MEMBERS, x5u="https://attacker.example/chain"),
    "an x5c in the key": jwk(_JWK_MEMBERS, x5c=["AAAA"]),
    "a key to encrypt with": jwk(_JWK_MEMBERS, use="enc"),
    "a key to sign with": jwk(_JWK_MEMBERS, key_ops=["sign"]),
    "a key for another alg": jwk(_JWK_MEMBERS, alg="ES384"),
    "the numbers of another kty too": jwk(_JWK_MEMBERS, n="AQAB", e="AQAB"),
    "a crv in a key of RSA": jwk(_JWK_MEMBERS, rsa_key, crv="P-256"),
    "a key that may not be exported": jwk(_JWK_MEMBERS, ext=False),
    "a kid that is no text": jwk(_JWK_MEMBERS, kid={"a": 1}),
    # Keys that must not be used, with tokens that are bound to them.
    "an x of 31 bytes": bound_to("wrong length", _resized("x", lambda x: x[1:])),
    "an x of 33 bytes": bound_to("wrong length", _resized("x", lambda x: b"\0" + x)),
    "a y of 31 bytes": bound_to("wrong length", _resized("y", lambda y: y[1:])),
    "a y of 33 bytes": bound_to("wrong length", _resized("y", lambda y: b"\0" + y)),
    "a point that is not on the curve": bound_to("not a usable public key", _not_on_the_curve),
    "a point of zeros": bound_to("not a usable public key", _zeros),
    "the neutral element of Ed25519": bound_to("not a usable public key", _neutral_element),
    "RSA of 1024 bits": bound_to(_SIZE, lambda: rsa_key(bits=1024)),
    "RSA of 2047 bits": bound_to(_SIZE, _rsa_number((1 << 2046) + 1)),
    "RSA of 4097 bits": bound_to(_SIZE, _rsa_number((1 << 4096) + 1)),
    "RSA of 12288 bits": bound_to(_SIZE, _rsa_number((1 << 12287) + 1)),
    "RSA with the exponent 3": bound_to(_SIZE, lambda: rsa_key(exponent=3)),
    "RSA with the exponent 1": bound_to(_SIZE, _rsa_number((1 << 2047) + 1, 1)),
    "RSA with a huge exponent": bound_to(_SIZE, _rsa_number((1 << 2047) + 1, (1 << 2046) + 1)),
    "RSA with an even modulus": bound_to("numbers are not those of a key", _rsa_number(1 << 2047)),
    "RSA with a zero byte before its modulus": bound_to("numbers are not those of a key", _rsa_leading_zero),
    # The key of the token.
    "another key": Broken(lambda key, asked: [other_key().proof(asked)], "another key"),
    "the key of the token, signed with another": Broken(
        lambda key, asked: [replace(other_key(), jwk=key.jwk).proof(asked)], _WRONG
    ),
    # The signature.
    "a signature of other claims": Broken(
        lambda key, asked: [key.proof(asked).rpartition(b".")[0] + b"." + key.proof(asked).rpartition(b".")[2]], _WRONG
    ),
    "a signature with one bit changed": signature(_WRONG, lambda made: made[:-1] + bytes([made[-1] ^ 1])),
    "a signature in DER": signature(_WRONG, _der),
    "a signature one byte short": signature(_WRONG, lambda made: made[:-1]),
    "a signature one byte long": signature(_WRONG, lambda made: made + b"\0"),
    "a signature with zeros before its halves": signature(_WRONG, lambda made: b"\0" + made[:32] + b"\0" + made[32:]),
    "a signature of zeros": signature(_WRONG, lambda made: bytes(64)),
    "a signature of ones": signature(_WRONG, lambda made: b"\xff" * 64),
    "a signature with its halves swapped": signature(_WRONG, lambda made: made[32:] + made[:32]),
    "a signature of EdDSA one byte short": signature(_WRONG, lambda made: made[:-1], ed_key),
    "a signature of RSA one byte short": signature(_WRONG, lambda made: made[:-1], rsa_key),
    "a signature of RSA with a zero before it": signature(_WRONG, lambda made: b"\0" + made, rsa_key),
    "PSS under the name RS256": bound_to(_WRONG, _pss_under_the_name_of_pkcs1),
    "PKCS 1 under the name PS256": bound_to(_WRONG, lambda: replace(rsa_key(), algorithm="PS256")),
    "SHA-384 under the name RS256": bound_to(_WRONG, lambda: replace(rsa_key("RS384"), algorithm="RS256")),
    # The claims are JSON with one reading.
    "claims that are no JSON": payload_bytes(_READING, lambda _: b"not JSON"),
    "claims that are a list": payload_bytes(_READING, lambda text: b"[" + text + b"]"),
    "claims with htu twice": payload_bytes(_READING, lambda text: text[:-1] + b',"htu":"https://attacker.example/"}'),
    "claims with jti twice": payload_bytes(_READING, lambda text: text[:-1] + b',"jti":"another-random-text"}'),
    "claims with a lone surrogate": payload_bytes(_READING, lambda text: text[:-1] + b',"a":"\\ud800"}'),
    "claims with NaN": payload_bytes(_READING, lambda text: text[:-1] + b',"a":NaN}'),
    "no claims": payload_bytes(_TEXTS, lambda _: b"{}"),
    # jti.
    "no jti": claims(_TEXTS, jti=LEFT_OUT),
    "a jti that is a number": claims(_TEXTS, jti=1234567890),
    "an empty jti": claims("the jti", jti=""),
    "a jti of 7 characters": claims("the jti", jti="abcdefg"),
    "a jti of 257 characters": claims("the jti", jti="j" * 257),
    # iat.
    "no iat": claims("iat as a number", iat=LEFT_OUT),
    "an iat that is a text": Broken(
        lambda key, asked: [key.proof(asked, claims={"iat": str(int(asked.now))})], "iat as a number"
    ),
    "an iat that is true": claims("iat as a number", iat=True),
    "an iat in a list": claims("iat as a number", iat=[0]),
    "an iat of a minute ago": at("behind the clock", -60),
    "an iat of a minute ahead": at("ahead of the clock", 60),
    "an iat in milliseconds": Broken(
        lambda key, asked: [key.proof(asked, claims={"iat": int(asked.now * 1000)})], "ahead of the clock"
    ),
    "an iat of 1e999": payload_bytes(_READING, lambda text: text.replace(b'"iat":', b'"iat":1e999,"was":')),
    "an iat of 400 digits": payload_bytes(
        "ahead of the clock", lambda text: text.replace(b'"iat":', b'"iat":' + b"9" * 400 + b',"was":')
    ),
    "an iat of 0": claims("behind the clock", iat=0),
    "an exp in place of iat": Broken(
        lambda key, asked: [key.proof(asked, claims={"iat": LEFT_OUT, "exp": int(asked.now) + 30})], "iat as a number"
    ),
    # htm.
    "no htm": claims(_TEXTS, htm=LEFT_OUT),
    "another method": claims("for the method", htm="PATCH"),
    "the method in lower case": Broken(
        lambda key, asked: [key.proof(asked, claims={"htm": asked.method.lower()})], "for the method"
    ),
    "the method with a space": Broken(
        lambda key, asked: [key.proof(asked, claims={"htm": f"{asked.method} "})], "for the method"
    ),
    "an empty method": claims("for the method", htm=""),
    "methods in a list": Broken(lambda key, asked: [key.proof(asked, claims={"htm": [asked.method]})], _TEXTS),
    # htu.
    "no htu": claims(_TEXTS, htu=LEFT_OUT),
    "another host": url("for https://attacker.example", lambda _: "https://attacker.example/"),
    "another path": url("(htu)", lambda url: f"{url}x"),
    "a slash at the end": url("(htu)", lambda url: f"{url}/"),
    "a path in upper case": url("(htu)", lambda url: url[: -len("things")] + "THINGS"),
    "another scheme": url(
        "(htu)", lambda url: url.replace("https:", "http:") if "https:" in url else url.replace("http:", "https:")
    ),
    "another port": url("(htu)", lambda url: re.sub(r"(//[^/:]*)(:[0-9]+)?/", r"\1:9/", url, count=1)),
    "an escaped slash": url("(htu)", lambda url: "%2F".join(url.rsplit("/", 1))),
    "only the origin": url("(htu)", lambda url: url[: url.index("/", 9)]),
    "only the path": url("not an absolute URL", lambda url: url[url.index("/", 9) :]),
    "without its scheme": url("not an absolute URL", lambda url: url[url.index("//") :]),
    "a user name": url("not an absolute URL", lambda url: url.replace("://", "://user@")),
    "a user name that is a host": url(
        "not an absolute URL", lambda url: f"{url[: url.index('/', 9)]}@attacker.example/v1/things"
    ),
    "a control character": url("not an absolute URL", lambda url: f"{url}\n"),
    "an empty htu": claims("not an absolute URL", htu=""),
    "a star": claims("not an absolute URL", htu="*"),
    "a file": claims("not an absolute URL", htu="file:///v1/things"),
    "htu in a list": Broken(lambda key, asked: [key.proof(asked, claims={"htu": [asked.url]})], _TEXTS),
    # ath.
    "no ath": claims(_TEXTS, ath=LEFT_OUT),
    "an empty ath": ath(lambda _: ""),
    "the ath of another token": ath(lambda token: b64(hashlib.sha256(token + b"A").digest())),
    "the ath of the token with its scheme": ath(lambda token: b64(hashlib.sha256(b"DPoP " + token).digest())),
    "an ath in hexadecimal": ath(lambda token: hashlib.sha256(token).hexdigest()),
    "an ath with padding": ath(lambda token: base64.urlsafe_b64encode(hashlib.sha256(token).digest()).decode()),
    "an ath of SHA-512": ath(lambda token: b64(hashlib.sha512(token).digest())),
    "half an ath": ath(lambda token: b64(hashlib.sha256(token).digest()[:16])),
    "the token as ath": ath(lambda token: token.decode()),
}
"""The URL of a request that tries them ends in ``/v1/things``, so that its parts can be changed."""
