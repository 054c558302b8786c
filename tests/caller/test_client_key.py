"""The private key of a client: which files are taken, what is said of the others, and what is signed."""

import hashlib
import json
import os
import subprocess
import traceback
import warnings
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from s2s_fastapi.caller.client_key import LIFE, ClientKey
from s2s_fastapi.errors import ConfigurationError

ISSUER: Final = "http://keycloak:8080/realms/corp"
RSA: Final = RSAKey.generate_key(2048)
EC: Final = ECKey.generate_key("P-256")
ED: Final = OKPKey.generate_key("Ed25519")


def pem(key: RSAKey | ECKey | OKPKey) -> bytes:
    return key.as_pem(private=True)


def jwk(key: Key, **changes: Any) -> bytes:
    return json.dumps({**key.as_dict(private=True), **changes}).encode()


def read(folder: Path, content: bytes) -> ClientKey:
    file = folder / "key"
    file.write_bytes(content)
    return ClientKey.read(file, said="KEYCLOAK_CLIENT_KEY_FILE")


def parts(assertion: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    header, claims, signature = assertion.split(".")
    raw = [urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in (header, claims, signature)]
    return json.loads(raw[0]), json.loads(raw[1]), f"{header}.{claims}".encode(), raw[2]


@pytest.mark.parametrize(
    ("content", "algorithm"),
    [
        (pem(RSA), "RS256"),
        (pem(RSA).replace(b"\n", b"\r\n"), "RS256"),
        (b"a remark\n" + pem(RSA), "RS256"),
        (pem(RSA) + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "RS256"),
        (pem(EC), "ES256"),
        (pem(ECKey.generate_key("P-384")), "ES384"),
        (pem(ECKey.generate_key("P-521")), "ES512"),
        (pem(ED), "EdDSA"),
        (jwk(RSA), "RS256"),
        (jwk(RSA, alg="PS256", use="sig", key_ops=["sign"], x5c=["x"]), "PS256"),
        (jwk(EC), "ES256"),
        (jwk(EC, alg="ES256"), "ES256"),
        (jwk(ED, alg="EdDSA"), "EdDSA"),
        (jwk(ED, alg="Ed25519"), "EdDSA"),
    ],
)
def test_a_private_key_signs_what_its_public_half_verifies(tmp_path: Path, content: bytes, algorithm: str) -> None:
    key = read(tmp_path, content)
    header, claims, signed, signature = parts(key.assertion("chat", ISSUER, lambda: 1000.9))
    public = key.public_jwk()

    assert header == {"typ": "JWT", "alg": algorithm, "kid": key.kid}
    assert claims == {
        "iss": "chat",
        "sub": "chat",
        "aud": ISSUER,
        "iat": 1000,
        "exp": 1000 + LIFE,
        "jti": claims["jti"],
    }
    assert (public["kid"], public["alg"], public["use"]) == (key.kid, algorithm, "sig")
    assert "d" not in public
    kinds: dict[str, type[Key]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    assert JWSRegistry.algorithms[algorithm].verify(signed, signature, kinds[public["kty"]].import_key(public))


def test_no_two_assertions_are_the_same(tmp_path: Path) -> None:
    for content in (pem(EC), pem(ED)):
        key = read(tmp_path, content)
        ids = [parts(key.assertion("chat", ISSUER, lambda: 1000.0))[1]["jti"] for _ in range(20)]

        assert len(set(ids)) == 20
        assert all(len(one) >= 22 for one in ids)  # 128 bits: nobody guesses one to use it up


def test_the_kid_is_the_jwks_own_or_else_the_thumbprint(tmp_path: Path) -> None:
    public = EC.as_dict(private=False)
    members = json.dumps({name: public[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))  # RFC 7638
    thumbprint = urlsafe_b64encode(hashlib.sha256(members.encode()).digest()).decode().rstrip("=")

    assert read(tmp_path, jwk(EC, kid="of-my-own")).kid == "of-my-own"
    assert read(tmp_path, jwk(EC)).kid == read(tmp_path, pem(EC)).kid == thumbprint


def openssl(*arguments: str) -> Callable[[], bytes]:
    return lambda: subprocess.run(["openssl", *arguments], capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("make", "algorithm"),
    [
        (openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"), "ES256"),
        (openssl("ecparam", "-name", "prime256v1", "-genkey"), "ES256"),
        (openssl("genpkey", "-algorithm", "ED25519"), "EdDSA"),
        (openssl("genrsa", "-traditional", "2048"), "RS256"),
    ],
)
def test_what_openssl_writes_is_taken(tmp_path: Path, make: Callable[[], bytes], algorithm: str) -> None:
    try:
        content = make()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine has no openssl that knows this")

    assert read(tmp_path, content).algorithm == algorithm


def short() -> RSAKey:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RSAKey.generate_key(1024)


SHORT: Final = short()
REFUSED: Final[dict[str, tuple[bytes, str]]] = {
    "empty": (b"", "is empty"),
    "white": (b" \n", "is empty"),
    "half": (pem(RSA)[:500], "is cut off"),
    "without its last line": (pem(EC).rpartition(b"-----END")[0], "is cut off"),
    "half a JWK": (jwk(RSA)[:300], "is cut off"),
    "damaged": (pem(RSA).replace(pem(RSA)[100:140], b"A" * 40), "damaged"),
    "a JWK that does not fit together": (jwk(RSA, d=RSAKey.generate_key(2048).as_dict(private=True)["d"]), "damaged"),
    "a number in a JWK": (jwk(EC, x=7), "damaged"),
    "public": (RSA.as_pem(private=False), "holds a public key only"),
    "a public JWK": (json.dumps(RSA.as_dict(private=False)).encode(), "holds a public key only"),
    "a certificate": (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "holds a public key only"),
    "encrypted": (RSA.as_pem(private=True, password="p"), "is encrypted"),
    "OpenSSH": (
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        "ssh-keygen -p -N '' -m PKCS8",
    ),
    "two": (pem(RSA) + pem(EC), "more than one private key"),
    "DER": (RSA.as_der(private=True), "convert DER"),
    "text": (b"hello", "neither a private key in PEM nor a JWK"),
    "too large": (pem(RSA) + b"#" * 70_000, "is too large"),
    "short RSA": (pem(SHORT), "less than 2048 bits"),
    "a short RSA JWK": (jwk(SHORT), "less than 2048 bits"),
    "secp256k1": (pem(ECKey.generate_key("secp256k1")), "take RSA, P-256, P-384, P-521 or Ed25519"),
    "Ed448": (pem(OKPKey.generate_key("Ed448")), "take RSA, P-256, P-384, P-521 or Ed25519"),
    "X25519": (pem(OKPKey.generate_key("X25519")), "take RSA, P-256, P-384, P-521 or Ed25519"),
    "symmetric": (json.dumps(OctKey.generate_key(256).as_dict(private=True)).encode(), "holds a symmetric key"),
    "another kty": (b'{"kty": "AKP", "d": "x"}', "take RSA, P-256, P-384, P-521 or Ed25519"),
    "JSON": (b"{}", "neither a private key in PEM nor a JWK"),
    "a member twice": (jwk(EC)[:-1] + b', "d": "x"}', "exactly one reading"),
    "a set": (json.dumps({"keys": [EC.as_dict(private=True)]}).encode(), "holds a set of keys"),
    "for encryption": (jwk(RSA, use="enc"), "not for signing"),
    "for verifying": (jwk(RSA, key_ops=["verify"]), "not for signing"),
    "key_ops that are none": (jwk(RSA, key_ops=5), "not for signing"),
    "an alg of another key": (jwk(RSA, alg="ES256"), "take RS256"),
    "a symmetric alg": (jwk(RSA, alg="HS256"), "take RS256"),
    "an alg of another curve": (jwk(EC, alg="ES512"), "take ES256"),
    "a kid that is none": (jwk(EC, kid=7), "kid or alg is no name"),
    "a kid with a line break": (jwk(EC, kid="a\nb"), "kid or alg is no name"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_any_other_file_is_refused_with_its_cure_and_nothing_of_its_content(tmp_path: Path, name: str) -> None:
    content, sentence = REFUSED[name]

    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, content)

    text = str(caught.value)
    assert text.startswith(f"KEYCLOAK_CLIENT_KEY_FILE: {tmp_path / 'key'} ")
    assert sentence in text
    assert caught.value.__context__ is None
    frames = [
        frame
        for frame in traceback.walk_tb(caught.value.__traceback__)
        if "s2s_fastapi" in frame[0].f_code.co_filename and "tests" not in frame[0].f_code.co_filename
    ]
    shown = " ".join(repr(value) for frame, _ in frames for value in frame.f_locals.values())
    secret = content.decode("latin-1").strip()[40:80]
    assert not secret or (secret not in text and secret not in shown)


@pytest.mark.parametrize("content", [pem(SHORT), jwk(SHORT)])
def test_a_short_key_is_refused_also_where_warnings_are_errors(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigurationError, match="less than 2048 bits"):
        read(tmp_path, content)


def test_a_file_that_is_not_there_and_a_folder_are_named(tmp_path: Path) -> None:
    for file in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            ClientKey.read(file)


def test_the_systems_reason_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.touch()

    with pytest.raises(ConfigurationError, match=r"cannot be read \(Not a directory\)"):
        ClientKey.read(file / "key")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_that_nobody_writes_to_is_refused_and_waited_for_by_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key")

    with pytest.raises(ConfigurationError, match="is a pipe"):
        ClientKey.read(tmp_path / "key")


def test_nothing_of_the_key_is_in_its_repr(tmp_path: Path) -> None:
    key = read(tmp_path, jwk(EC))

    assert str(EC.as_dict(private=True)["d"]) not in f"{key!r} {key}"
    assert repr(key) == f"ClientKey(kid='{key.kid}', algorithm='ES256')"
