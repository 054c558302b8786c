"""What is searched for is found in every form, and innocent text is let go."""

from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from joserfc.jwk import ECKey
from pydantic import SecretStr

from s2s_fastapi.caller.credentials import ClientSecretBasic, PrivateKeyJwt
from s2s_fastapi.caller.granted import GrantedToken
from tests.kit.collector import learn
from tests.kit.realm import Realm
from tests.kit.search import Search

TOKEN = Realm().token()
HEADER, PAYLOAD, SIGNATURE = TOKEN.split(".")
INNOCENT = [
    "",
    "eyJ",
    "eyJhbGciOi",
    "uYrFVtGbeyJ8_qA-0Zk3vTnW5xLhPmRd2CsGfKjQo91",  # the name of a key
    "kid 8mqoP1Xn6oLkZ1uEYDrPBCJfsR1OP2mXv3eL1d_yQhU",
    "trrtcc:4f5e6d7c-8b9a-4c3d-9e2f-1a0b9c8d7e6f",
    'Bearer realm="crm-api-gateway", error="invalid_token"',
    "Basic authentication is what RFC 7617 says",
    "audience [account], expected crm-api-gateway: give it a client scope with an Audience mapper",
    "-----BEGIN PUBLIC KEY-----",
]


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"x{TOKEN}x",
        HEADER,
        PAYLOAD,
        f"Bearer {TOKEN}"[:80],
        f"Bearer {SIGNATURE[:40]}1",
        f"authorization: basic {b64encode(b'chat-app-service:a secret').decode()}",
        "-----BEGIN EC PRIVATE KEY-----",
        repr(ECKey.generate_key("P-256").as_dict(private=True)),
    ],
    ids=["token", "token in a word", "header", "payload", "cut token", "cut signature", "basic", "PEM", "private JWK"],
)
def test_what_looks_like_a_token_or_a_key_is_found_in_a_text_unheard_of(text: str) -> None:
    search = Search()
    assert list(search.find(text))
    assert list(search.find(f"before {text} after"))


@pytest.mark.parametrize("text", INNOCENT)
def test_innocent_text_is_let_go(text: str) -> None:
    search = Search()
    search.learn("s3cret", "one that is too short to look for")
    search.learn("a longer secret", "a secret")
    assert list(search.find(text)) == []
    assert search.hidden(text) == text


@pytest.fixture
def learned() -> Iterator[Search]:
    search = Search()
    with ExitStack() as stack:
        learn(stack, search)
        yield search


def names(search: Search, text: str) -> set[str]:
    return {what for what, _, _ in search.find(f"x={text}&")}


def test_a_client_secret_is_known_in_each_form_in_which_it_is_sent(learned: Search) -> None:
    secret = "p+ss wörd/1"
    proof = ClientSecretBasic(client_id="chat", secret=SecretStr(secret), read=lambda: secret).prove()

    for form in (secret, "p%2Bss%20w%C3%B6rd%2F1", "p%2Bss+w%C3%B6rd%2F1", b64encode(secret.encode()).decode()):
        assert names(learned, form)
    assert names(learned, repr(secret.encode()))
    assert names(learned, proof.headers["Authorization"].removeprefix("Basic ").rstrip("="))


def test_a_secret_is_known_as_soon_as_it_is_one(learned: Search) -> None:
    SecretStr("only in the settings")
    assert names(learned, "only in the settings") == {"a SecretStr"}


def test_a_token_that_was_granted_is_known_even_if_it_looks_like_none(learned: Search) -> None:
    GrantedToken(value="opaque-0123456789", life=60.0)
    assert names(learned, "opaque-0123456789") == {"an access token"}


def test_every_signature_is_known(learned: Search) -> None:
    assert "a signature" in names(learned, Realm().token().rpartition(".")[2])


def test_an_assertion_and_the_key_that_signed_it_are_known(learned: Search, tmp_path: Path) -> None:
    key, file = ECKey.generate_key("P-256"), tmp_path / "key.pem"
    file.write_bytes(key.as_pem(private=True))

    proof = PrivateKeyJwt(client_id="chat", file=file, issuer="http://keycloak.test/realms/corp").prove()

    assert names(learned, proof.form["client_assertion"].rpartition(".")[2])
    assert names(learned, file.read_text().splitlines()[1]) == {"a client's key"}


def test_nothing_is_learned_once_the_run_is_over(learned: Search) -> None:
    search = Search()
    with ExitStack() as stack:
        learn(stack, search)
    SecretStr("made after the run")
    assert not names(search, "made after the run")
