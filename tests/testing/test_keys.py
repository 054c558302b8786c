"""Fresh keys, rotation and revocation, seen by our own verifier."""

import pytest

from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.errors import AuthenticationError, ConfigurationError, TokenRequestError
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.keys import RealmKeys
from s2s_fastapi.verifier.keys import KeySource
from s2s_fastapi.verifier.token_verifier import TokenVerifier
from tests.kit.realm import Clock
from tests.testing.asking import GRANT, REALM, body, client, document, get, kids, part, post, token


def verifier(issuer: EmbeddedIssuer) -> TokenVerifier:
    settings = KeycloakSettings(url=issuer.url, realm="corp", client_id="receiver")
    return TokenVerifier(settings, transport=issuer.transport)


def test_each_issuer_has_keys_of_its_own(issuer: EmbeddedIssuer, own: EmbeddedIssuer) -> None:
    assert not kids(issuer) & kids(own)
    assert not kids(issuer, "enc") & kids(own, "enc")


@pytest.mark.parametrize("client_id", ["caller", "signs-ES256", "signs-PS256", "signs-EdDSA", "rfc9068"])
def test_our_verifier_accepts_what_is_issued(issuer: EmbeddedIssuer, client_id: str) -> None:
    principal = verifier(issuer).verify(token(issuer, client_id=client_id))
    assert (principal.client_id, principal.kind) == (client_id, "service")


def test_our_verifier_knows_a_user(issuer: EmbeddedIssuer) -> None:
    settings = KeycloakSettings(url=issuer.url, realm="corp", client_id="receiver")
    principal = TokenVerifier(settings, transport=issuer.transport).verify(
        issuer.user_token("corp", "dora", via="direct")
    )
    assert (principal.client_id, principal.kind) == ("direct", "user")


def test_our_verifier_refuses_a_token_signed_with_a_secret(issuer: EmbeddedIssuer) -> None:
    with pytest.raises(AuthenticationError) as refused:
        verifier(issuer).verify(token(issuer, client_id="signs-HS512"))
    assert refused.value.code == "algorithm_not_allowed"


def test_after_a_rotation_the_new_key_signs_at_once_and_the_old_one_stays_published(own: EmbeddedIssuer) -> None:
    before = token(own)
    old = own.signing_kid("corp")
    new = own.rotate_keys("corp")
    assert kids(own) == {old, new}
    after = token(own)
    assert (part(before, 0)["kid"], part(after, 0)["kid"]) == (old, new)
    for one in (before, after):
        verifier(own).verify(one)


def test_a_rotation_may_remove_the_old_key_at_once(own: EmbeddedIssuer) -> None:
    old = own.signing_kid("corp")
    assert kids(own) == {old}
    assert kids(own) == {old}
    new = own.rotate_keys("corp", keep=False)
    assert kids(own) == {new}


def test_our_key_source_finds_the_key_of_a_rotation_and_forgets_the_removed_one(own: EmbeddedIssuer) -> None:
    clock = Clock()
    settings = KeycloakSettings(url=own.url, realm="corp", client_id="receiver")
    source = KeySource(Endpoints.of(settings), BackChannel(transport=own.transport, timeout=3), clock=clock)
    old = own.signing_kid("corp")
    source.key(old, "RS256")
    new = own.rotate_keys("corp", keep=False)
    clock.advance(6)
    source.key(new, "RS256")
    assert source.get().find(old, "RS256") is None
    assert len(own.requests("certs")) == 2


def test_an_old_key_can_be_removed_later(own: EmbeddedIssuer) -> None:
    old = own.signing_kid("corp")
    new = own.rotate_keys("corp")
    own.remove_key("corp", old)
    assert kids(own) == {new}
    with pytest.raises(ConfigurationError, match="no key"):
        own.remove_key("corp", old)


def test_where_the_last_key_is_removed_a_new_one_signs(own: EmbeddedIssuer) -> None:
    old = own.signing_kid("corp")
    own.remove_key("corp", old)
    assert part(token(own), 0)["kid"] != old


def test_a_rotation_of_one_algorithm_leaves_the_others_alone(own: EmbeddedIssuer) -> None:
    rsa = own.signing_kid("corp")
    first, second = own.rotate_keys("corp", algorithm="ES256"), own.rotate_keys("corp", algorithm="ES256")
    assert kids(own) == {rsa, first, second}
    assert part(token(own), 0)["kid"] == rsa


def test_the_encryption_key_stays(own: EmbeddedIssuer) -> None:
    before = kids(own, "enc")
    own.rotate_keys("corp", keep=False)
    assert len(before) == 1
    assert kids(own, "enc") == before


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="none"):
        RealmKeys().sign({}, algorithm="none")


def test_a_set_not_before_shows_on_the_page_and_in_the_answer_and_revokes(own: EmbeddedIssuer) -> None:
    revoked = token(own)
    moment = own.set_not_before("corp") + 1
    own.set_not_before("corp", moment)
    assert body(get(own, REALM))["tokens-not-before"] == moment
    assert body(post(own, GRANT))["not-before-policy"] == moment
    with pytest.raises(AuthenticationError) as refused:
        verifier(own).verify(revoked)
    assert refused.value.code == "revoked"


def test_the_not_before_of_the_file_holds_from_the_start() -> None:
    issuer = EmbeddedIssuer(document(notBefore=1_700_000_000))
    assert body(get(issuer, REALM))["tokens-not-before"] == 1_700_000_000


def test_the_not_before_of_a_client_is_in_its_answers_only() -> None:
    issuer = EmbeddedIssuer(document(clients=[client("caller", notBefore=1_700_000_000)]))
    assert body(post(issuer, GRANT))["not-before-policy"] == 1_700_000_000
    assert body(get(issuer, REALM))["tokens-not-before"] == 0


def test_tokens_come_without_a_request_too(own: EmbeddedIssuer) -> None:
    verifier(own).verify(own.service_token("corp", "caller"))
    assert [exchange.endpoint for exchange in own.requests()] == ["certs", "realm"]
    with pytest.raises(TokenRequestError, match="invalid_scope") as refused:
        own.service_token("corp", "caller", scope="nope")
    assert (refused.value.http_status, refused.value.error) == (400, "invalid_scope")
    with pytest.raises(TokenRequestError, match="invalid_grant"):
        own.user_token("corp", "nobody", via="ui")
