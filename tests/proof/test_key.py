"""A proof is what RFC 9449 section 4.2 says, and its key never leaves the process."""

import base64
import copy
import gc
import hashlib
import json
import logging
import pickle
import threading
import traceback
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from s2s_fastapi.proof.key import ProofKey
from tests.kit.forks import in_child, needs_fork

NOW = 1_800_000_000.9


def raw(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def read(proof: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = proof.split(".")
    return json.loads(raw(header)), json.loads(raw(claims))


def test_a_proof_has_exactly_the_members_of_rfc_9449() -> None:
    key = ProofKey()
    header, claims = read(key.proof("GET", "https://api.example/a", now=NOW, token="a.b.c"))
    assert header.keys() == {"typ", "alg", "jwk"}
    assert header["typ"] == "dpop+jwt"
    assert header["alg"] == "ES256"
    assert header["jwk"].keys() == {"kty", "crv", "x", "y"}
    assert claims.keys() == {"jti", "htm", "htu", "iat", "ath"}
    assert claims["htm"] == "GET"
    assert claims["iat"] == 1_800_000_000
    assert isinstance(claims["iat"], int)
    assert claims["ath"] == base64.urlsafe_b64encode(hashlib.sha256(b"a.b.c").digest()).rstrip(b"=").decode()


def test_the_signature_is_that_of_the_key_in_the_header() -> None:
    proof = ProofKey().proof("GET", "https://api.example/a", now=NOW)
    signing_input, _, made = proof.rpartition(".")
    jwk = read(proof)[0]["jwk"]
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(raw(jwk["x"]), "big"), int.from_bytes(raw(jwk["y"]), "big"), ec.SECP256R1()
    )
    assert len(raw(made)) == 64
    der = encode_dss_signature(int.from_bytes(raw(made)[:32], "big"), int.from_bytes(raw(made)[32:], "big"))
    numbers.public_key().verify(der, signing_input.encode(), ec.ECDSA(hashes.SHA256()))


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    key = ProofKey()
    jwk = read(key.proof("GET", "https://api.example/a", now=NOW))[0]["jwk"]
    text = f'{{"crv":"P-256","kty":"EC","x":"{jwk["x"]}","y":"{jwk["y"]}"}}'
    assert raw(key.thumbprint) == hashlib.sha256(text.encode()).digest()
    assert len(key.thumbprint) == 43


def test_at_the_token_endpoint_there_is_no_token_to_name() -> None:
    assert "ath" not in read(ProofKey().proof("POST", "https://sso.example/token", now=NOW))[1]


def test_a_nonce_is_there_if_a_server_gave_one() -> None:
    assert read(ProofKey().proof("GET", "https://api.example/a", now=NOW, nonce="n-1"))[1]["nonce"] == "n-1"


def test_no_two_proofs_have_the_same_jti_and_each_has_128_bits() -> None:
    key = ProofKey()
    jtis = {read(key.proof("GET", "https://api.example/a", now=NOW))[1]["jti"] for _ in range(200)}
    assert len(jtis) == 200
    assert {len(raw(jti)) for jti in jtis} == {16}


@pytest.mark.parametrize(
    ("called", "htu"),
    [
        ("https://api.example/a", "https://api.example/a"),
        ("https://API.example:8443/%61/../b", "https://API.example:8443/%61/../b"),  # as it is called
        ("https://api.example/a?password=x#top", "https://api.example/a"),
        ("https://api.example/a#top?b", "https://api.example/a"),
        ("https://api.example/a@b", "https://api.example/a@b"),
        ("https://api.example?a@b", "https://api.example/"),
        ("wss://api.example/a", "https://api.example/a"),
        ("WS://api.example/a", "http://api.example/a"),
        ("http://[::1]:8000/a", "http://[::1]:8000/a"),
    ],
)
def test_htu_is_the_url_as_it_is_called_without_query_and_fragment(called: str, htu: str) -> None:
    assert read(ProofKey().proof("GET", called, now=NOW))[1]["htu"] == htu


def test_a_url_with_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="user name or password") as error:
        ProofKey().proof("GET", "https://user:hunter2@api.example/a", now=NOW)
    assert "hunter2" not in str(error.value)


def test_two_keys_are_two() -> None:
    one, other = ProofKey(), ProofKey()
    assert one.thumbprint != other.thumbprint
    assert one != other


def test_a_copy_is_the_same_key() -> None:
    key = ProofKey()
    assert copy.copy(key) is key
    assert copy.deepcopy({"a": key})["a"] is key


def test_a_key_cannot_be_pickled() -> None:
    with pytest.raises(TypeError, match="stays in its process"):
        pickle.dumps(ProofKey())


def test_a_key_has_no_dict_and_shows_its_thumbprint_alone() -> None:
    key = ProofKey()
    assert repr(key) == str(key) == f"ProofKey({key.thumbprint})"
    with pytest.raises(TypeError):
        vars(key)


def test_the_private_number_is_in_no_text_log_or_frame(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = ProofKey()
    texts = [repr(key), f"{key!s}", key.proof("GET", "https://api.example/a", now=NOW)]
    try:
        key.proof("GET", "https://u@api.example/a", now=NOW)
    except ValueError as error:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        texts.append("".join(shown.format()))
    texts.append(caplog.text)
    assert len(texts) == 5
    number = key._private.raw_value.private_numbers().private_value  # after the frames were shown: it is a local here
    d = number.to_bytes(32, "big")
    secrets = [base64.urlsafe_b64encode(d).rstrip(b"=").decode(), d.hex(), str(number), repr(d)]
    assert [secret for secret in secrets for text in texts if secret in text] == []


@needs_fork
def test_a_key_is_dead_in_a_forked_child_and_alive_in_its_parent() -> None:
    key = ProofKey()

    def child() -> None:
        assert not key.usable
        assert key._private is None
        with pytest.raises(RuntimeError, match="forked"):
            key.proof("GET", "https://api.example/a", now=NOW)
        new = ProofKey()
        assert new.usable
        assert new.proof("GET", "https://api.example/a", now=NOW)
        assert new.thumbprint != key.thumbprint

    assert in_child(child) == 0
    assert key.usable
    assert key.proof("GET", "https://api.example/a", now=NOW)


def test_threads_may_share_a_key() -> None:
    key = ProofKey()
    made: list[str] = []

    def work() -> None:
        made.extend(key.proof("GET", "https://api.example/a", now=NOW) for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({read(proof)[1]["jti"] for proof in made}) == 200


def test_a_key_that_nobody_holds_is_gone() -> None:
    def alive() -> int:
        gc.collect()
        return sum(type(each) is ProofKey for each in gc.get_objects())

    before = alive()
    keys = [ProofKey() for _ in range(5)]
    assert alive() == before + 5
    keys.clear()
    assert alive() == before
