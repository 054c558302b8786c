"""What comes is compared with what was asked before anybody may use it: nothing that is wrong is kept, or sent."""

from typing import Any

import pytest

from s2s_fastapi import KeycloakSettings, ServiceTokenAuth, TokenRequestError
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.testing import EmbeddedIssuer
from tests.attacks.caller.stack import idle
from tests.caller.fakes import Clock, Keycloak, jwt, reply, settings, wait_until_idle
from tests.testing.asking import SECRET, client, document


def grant(token: str, **changes: Any) -> Any:
    return reply(200, {"access_token": token, "token_type": "Bearer", "expires_in": 300} | changes)


def asking(**changes: Any) -> ServiceTokenAuth:
    return ServiceTokenAuth(audience="bob", settings=settings(**changes))


@pytest.mark.parametrize(
    ("answer", "cure"),
    [
        (grant(jwt(aud="account", azp="chat-app-service")), "(D) that scope"),
        (grant(jwt(aud="bob", azp="billing")), "Take the mapper that writes azp out"),
        (grant(jwt(aud="bob"), token_type="DPoP"), '"Require DPoP bound tokens" off'),
        (grant(jwt(aud="bob"), expires_in=0), "the access token lifespan"),
        (grant(jwt(aud="bob", iat=100, exp=100)), "the access token lifespan"),
    ],
)
def test_what_is_not_what_was_asked_is_never_kept_and_says_what_to_change_in_keycloak(
    source: TokenSource, keycloak: Keycloak, clock: Clock, answer: Any, cure: str
) -> None:
    keycloak.answers = [answer]
    auth = asking()

    for _ in range(2):
        with pytest.raises(TokenRequestError) as caught:
            auth.token()
        assert cure in caught.value.cure
        assert caught.value.claims
    assert len(keycloak.requests) == 1

    clock.now += 61  # once it is mended in Keycloak
    assert auth.token()


def test_a_good_token_outlives_a_renewal_that_brought_another_clients(
    source: TokenSource, keycloak: Keycloak, clock: Clock
) -> None:
    auth = asking()
    good = auth.token()
    keycloak.always = grant(jwt(aud="bob", azp="billing"))
    clock.now += 260

    assert auth.token() == good
    idle()  # the renewal went on in the background
    assert len(keycloak.requests) == 2
    assert [auth.token() for _ in range(3)] == [good] * 3


@pytest.mark.parametrize(
    ("life", "warned"), [(29, ["lives 29 s, less than the 30 s by which clocks may differ"]), (30, []), (300, [])]
)
def test_a_life_that_is_shorter_than_the_leeway_is_a_warning_with_the_setting(
    source: TokenSource, keycloak: Keycloak, caplog: pytest.LogCaptureFixture, life: int, warned: list[str]
) -> None:
    keycloak.life = life

    assert asking().token()
    wait_until_idle()

    said = [record.getMessage() for record in caplog.records if " lives " in record.getMessage()]
    assert len(said) == len(warned)
    assert all(
        sentence in text and "raise the access token lifespan" in text
        for sentence, text in zip(warned, said, strict=True)
    )


def test_a_realm_whose_mapper_writes_azp_is_found_out() -> None:
    mapper = {
        "name": "another azp",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-hardcoded-claim-mapper",
        "config": {
            "claim.name": "azp",
            "claim.value": "billing",
            "jsonType.label": "String",
            "access.token.claim": "true",
        },
    }
    issuer = EmbeddedIssuer(document(clients=[client("caller", protocolMappers=[mapper])]))
    with issuer.serving(), using(TokenSource()):
        given = KeycloakSettings(url=issuer.url, realm="corp", client_id="caller", client_secret=SECRET)
        with pytest.raises(TokenRequestError, match=r"belongs to billing \(azp\), not to caller") as caught:
            ServiceTokenAuth(settings=given).token()

    assert caught.value.claims["azp"] == "billing"
