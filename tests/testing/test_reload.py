"""The realms of an issuer are replaced, and what belongs to a running server stays."""

import pytest

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.testing import EmbeddedIssuer
from tests.testing.asking import GRANT, client, document, kids, post


def test_a_realm_keeps_its_keys_its_made_secrets_and_its_revocation() -> None:
    issuer = EmbeddedIssuer(document(clients=[client("caller", secret=None)]), values={"A": "a"})
    secret, signing, moment = issuer.secrets("corp")["caller"], kids(issuer), issuer.set_not_before("corp")
    issuer.reload(document(clients=[client("caller", secret=None), client("new")]), document("other"))
    assert issuer.realms == ("corp", "other")
    assert issuer.secrets("corp")["caller"] == secret != issuer.secrets("corp")["new"]
    assert kids(issuer) == signing
    token = issuer.service_token("other", "caller")
    assert token
    answer = post(issuer, {**GRANT, "client_secret": secret})
    assert f'"not-before-policy":{moment}' in answer.body.decode()
    assert issuer.values == {"A": "a"}


def test_a_later_revocation_in_the_file_counts() -> None:
    issuer = EmbeddedIssuer(document(notBefore=5))
    issuer.reload(document(notBefore=7))
    assert b'"not-before-policy":7' in post(issuer, GRANT).body


@pytest.mark.parametrize(
    "documents", [(), (document(), document()), ({"realm": ""},), (document(clients=[client("c"), client("c")]),)]
)
def test_realms_that_are_wrong_change_nothing(documents: tuple[dict[str, object], ...]) -> None:
    issuer = EmbeddedIssuer(document())
    with pytest.raises(ConfigurationError):
        issuer.reload(*documents)
    assert issuer.realms == ("corp",)
    assert post(issuer, GRANT).status == 200
