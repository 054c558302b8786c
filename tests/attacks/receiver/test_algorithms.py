"""Attacks on the choice of algorithm and key: lines 1 to 3 of the list."""

import hmac
import json
from base64 import b64encode, urlsafe_b64decode
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from s2s_fastapi.decision import Reason
from tests.attacks.receiver.stack import FORGER, KEYS, Break, claims, signed, stack, token

RSA_KEY: Any = KEYS["RS256"].private
RSA_PUBLIC = RSA_KEY.public_key


# 1: no algorithm


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "NONE", "", None, " none", "none\u0000"], ids=repr)
@pytest.mark.parametrize("signature", ["the true one", "any", "empty", "left out"])
def test_a_token_that_asks_not_to_be_verified_is_refused(alg: str | None, signature: str) -> None:
    attacked = stack("RS256")
    good = token(attacked.realm)
    header, payload, true = attacked.realm.sign(claims(attacked.realm), header={"alg": alg}).split(".")
    last = {"the true one": f".{true}", "any": ".AA", "empty": ".", "left out": ""}[signature]
    # Two parts are no token at all; of three the header is read first.
    reason = Reason.MALFORMED_TOKEN if signature == "left out" else Reason.ALGORITHM_NOT_ALLOWED
    attacked.holds(good, f"{header}.{payload}{last}", reason)


@pytest.mark.parametrize(
    "change", [lambda h, p, s: f"{h}.{p}.", lambda h, p, s: f"{h}.{p}.AA"], ids=["empty", "a byte"]
)
@pytest.mark.parametrize("name", ["RS256", "ES256", "EdDSA"])
def test_a_token_whose_signature_was_taken_away_is_refused(name: str, change: Break) -> None:
    attacked = stack(name)
    good = token(attacked.realm)
    broken = change(*good.split("."))
    attacked.holds(good, broken, Reason.MALFORMED_TOKEN if broken.endswith(".") else Reason.INVALID_SIGNATURE)


# 2: the public key as the secret of an HMAC


def _pem(encoding: serialization.Encoding, form: serialization.PublicFormat) -> bytes:
    return bytes(RSA_PUBLIC.public_bytes(encoding, form))


SPKI = _pem(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
PKCS1 = _pem(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
SPKI_DER = _pem(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
PKCS1_DER = _pem(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
OPENSSH = _pem(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
JWK = KEYS["RS256"].jwk

PUBLIC_AS_SECRET = {
    "PEM, SPKI": SPKI,
    "PEM, SPKI, without the last line feed": SPKI.rstrip(b"\n"),
    "PEM, PKCS1": PKCS1,
    "PEM behind a byte order mark": b"\xef\xbb\xbf" + SPKI,
    "PEM with CR alone": SPKI.replace(b"\n", b"\r"),
    "PEM with CR LF": SPKI.replace(b"\n", b"\r\n"),
    "PEM, indented": b"  " + SPKI.replace(b"\n", b"\n  "),
    "PEM on one line": SPKI.replace(b"\n", b""),
    "PEM on one line, with spaces": SPKI.replace(b"\n", b" "),
    "PEM behind a comment": b"# the realm's key\n" + SPKI,
    "PEM behind empty lines": b"\n\n\n" + SPKI,
    "PEM without its frame": b"".join(SPKI.splitlines()[1:-1]),
    "PEM in UTF-16": SPKI.decode().encode("utf-16"),
    "DER, SPKI": SPKI_DER,
    "DER, PKCS1": PKCS1_DER,
    "DER in base64": b64encode(SPKI_DER),
    "OpenSSH": OPENSSH,
    "JWK": json.dumps(JWK).encode(),
    "JWK without spaces": json.dumps(JWK, separators=(",", ":")).encode(),
    "JWK, its required members": json.dumps(
        {name: JWK[name] for name in ("e", "kty", "n")}, separators=(",", ":")
    ).encode(),
    "JWK Set": json.dumps({"keys": [JWK]}).encode(),
    "JWK Set without spaces": json.dumps({"keys": [JWK]}, separators=(",", ":")).encode(),
    "the modulus": urlsafe_b64decode(JWK["n"] + "=="),
    "the modulus in base64url": JWK["n"].encode(),
    "the thumbprint": RSA_KEY.thumbprint().encode(),
    "the kid": JWK["kid"].encode(),
    "nothing": b"",
    "a zero byte": b"\0",
    "None": b"None",
}


@pytest.mark.parametrize("secret", PUBLIC_AS_SECRET.values(), ids=PUBLIC_AS_SECRET)
@pytest.mark.parametrize("name", ["HS256", "HS384", "HS512"])
def test_what_everybody_knows_is_never_the_secret_of_a_signature(name: str, secret: bytes) -> None:
    attacked = stack("RS256")
    hashed = name.replace("HS", "sha")
    forged = signed(
        {"alg": name, "kid": JWK["kid"]}, claims(attacked.realm), lambda text: hmac.digest(secret, text, hashed)
    )
    attacked.holds(token(attacked.realm), forged, Reason.ALGORITHM_NOT_ALLOWED)


@pytest.mark.parametrize("says", ["RS256", "ES256"])
def test_an_hmac_under_an_allowed_name_is_no_signature(says: str) -> None:
    attacked = stack(says)
    head = {"alg": says, "kid": KEYS[says].kid}
    forged = signed(head, claims(attacked.realm), lambda text: hmac.digest(SPKI, text, "sha256"))
    attacked.holds(token(attacked.realm), forged, Reason.INVALID_SIGNATURE)


@pytest.mark.parametrize(
    "alg",
    [
        *("hs256", "rs256", "RS256 ", " RS256", "RS256\u0000", "RS256,HS256", "RS-256", "\uff32S256", "RS1", "RS2048"),
        *("RSA-OAEP", "RSA1_5", "dir", "ES256K", "ESB256", "Ed25519", "Ed448", "eddsa", "ECDSA", "SHA256withRSA", "*"),
        *(["RS256"], {"RS256": 1}, 256, True, 0.5),
    ],
    ids=repr,
)
def test_only_the_ten_names_of_algorithms_are_algorithms(alg: Any) -> None:
    attacked = stack("RS256")
    forged = attacked.realm.sign(claims(attacked.realm), header={"alg": alg})
    attacked.holds(token(attacked.realm), forged, Reason.ALGORITHM_NOT_ALLOWED)


# 3: one key's algorithm with another's


@pytest.mark.parametrize(
    ("signs", "alg", "kid", "reason"),
    [
        pytest.param("RS256", "RS256", "ES256", Reason.UNKNOWN_KEY, id="RS256 with the kid of the EC key"),
        pytest.param("ES256", "ES256", "RS256", Reason.UNKNOWN_KEY, id="ES256 with the kid of the RSA key"),
        pytest.param("RS256", "ES256", "ES256", Reason.INVALID_SIGNATURE, id="RS256 that says it is the EC key's"),
        pytest.param("ES256", "RS256", "RS256", Reason.INVALID_SIGNATURE, id="ES256 that says it is the RSA key's"),
        pytest.param("RS256", "PS256", "RS256", Reason.UNKNOWN_KEY, id="RS256 under the name PS256"),
        pytest.param("RS256", "RS512", "RS256", Reason.UNKNOWN_KEY, id="RS256 under the name RS512"),
        pytest.param("EdDSA", "ES256", "ES256", Reason.INVALID_SIGNATURE, id="EdDSA that says it is the EC key's"),
        pytest.param("ES256", "EdDSA", "EdDSA", Reason.INVALID_SIGNATURE, id="ES256 that says it is the Ed25519 key's"),
        pytest.param("EdDSA", "EdDSA", "ES256", Reason.UNKNOWN_KEY, id="EdDSA with the kid of the EC key"),
    ],
)
def test_a_key_is_for_its_own_kid_and_algorithm(signs: str, alg: str, kid: str, reason: Reason) -> None:
    attacked = stack("RS256", "ES256", "EdDSA")
    header = {"alg": alg, "kid": KEYS[kid].kid}
    forged = attacked.realm.sign(claims(attacked.realm), key=KEYS[signs], header=header)
    attacked.holds(token(attacked.realm), forged, reason, outbound=reason is Reason.UNKNOWN_KEY)


@pytest.mark.parametrize(
    ("alg", "scheme"),
    [
        pytest.param("RS256", padding.PSS(padding.MGF1(hashes.SHA256()), 32), id="PSS under RS256"),
        pytest.param("PS256", padding.PKCS1v15(), id="PKCS1 under PS256"),
        pytest.param("PS256", padding.PSS(padding.MGF1(hashes.SHA256()), 0), id="PSS without a salt"),
        pytest.param("PS256", padding.PSS(padding.MGF1(hashes.SHA256()), 31), id="PSS with a short salt"),
        pytest.param(
            "PS256",
            padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH),
            id="PSS with the longest salt",
        ),
        pytest.param("PS256", padding.PSS(padding.MGF1(hashes.SHA1()), 32), id="PSS with SHA-1 in its mask"),  # noqa: S303
    ],
)
def test_rsa_has_one_padding_for_each_algorithm(alg: str, scheme: Any) -> None:
    attacked = stack(alg)
    key: Any = KEYS[alg].private
    forged = signed(
        {"alg": alg, "kid": KEYS[alg].kid},
        claims(attacked.realm),
        lambda text: bytes(key.private_key.sign(text, scheme, hashes.SHA256())),
    )
    attacked.holds(token(attacked.realm), forged, Reason.INVALID_SIGNATURE)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"alg": None}, id="without alg, so that the token's would count"),
        pytest.param({"alg": "ES256"}, id="with another alg than the token"),
        pytest.param({"alg": "PS256"}, id="with another padding than the token"),
        pytest.param({"alg": ["ES256"]}, id="with a list of algs"),
        pytest.param({"alg": "none"}, id="with alg none"),
        pytest.param({"alg": "HS256"}, id="with alg HS256"),
    ],
)
@pytest.mark.parametrize("name", ["RS256", "ES256"])
def test_a_key_without_this_algorithm_of_its_own_verifies_nothing(name: str, changes: dict[str, Any]) -> None:
    attacked = stack("EdDSA")
    key = FORGER[name]
    entry = {**key.jwk, **changes}
    if entry["alg"] == name:
        entry["alg"] = "RS512"
    attacked.realm.published.append({member: value for member, value in entry.items() if value is not None})
    forged = attacked.realm.sign(claims(attacked.realm), key=key)
    attacked.holds(token(attacked.realm), forged, Reason.UNKNOWN_KEY, outbound=1)
