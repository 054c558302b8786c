"""Lines 36 to 38 of the list: whose token it is."""

import asyncio
import threading
from typing import Any

import pytest

from s2s_fastapi import ConfigurationError, KeycloakSettings, ServiceTokenAuth, TokenRequestError
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.faults import slow
from tests.attacks.caller.stack import asked, claims, realm, settings
from tests.caller.fakes import Clock
from tests.testing.asking import ODD_ID, ODD_SECRET, SECRET

pytestmark = pytest.mark.usefixtures("source")


def variants(issuer: EmbeddedIssuer) -> list[ServiceTokenAuth]:
    """Return objects that differ from the first in one thing each."""
    base: dict[str, Any] = {"url": issuer.url, "realm": "corp", "client_id": "caller", "client_secret": SECRET}

    def auth(audience: Any = "receiver", scope: Any = None, **changes: Any) -> ServiceTokenAuth:
        given = {name: value for name, value in (base | changes).items() if value is not None}
        return ServiceTokenAuth(audience=audience, scope=scope, settings=KeycloakSettings(**given))

    return [
        auth(),
        auth(issuer="http://elsewhere.example/realms/corp"),
        auth(url=issuer.url.replace("127.0.0.1", "localhost"), issuer=f"{issuer.url}/realms/corp"),
        auth(realm="tenant"),
        auth(client_id="another", client_secret=f"{SECRET}-of-another"),
        auth(client_id=ODD_ID, client_secret=ODD_SECRET),
        auth(client_auth="client_secret_post"),
        auth(audience=None),
        auth(scope="extra"),
    ]


def test_what_differs_in_one_thing_never_shares_also_when_all_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEYCLOAK_CLIENT_SECRET", raising=False)
    extra = {"name": "extra", "protocol": "openid-connect", "attributes": {"include.in.token.scope": "true"}}
    issuer = EmbeddedIssuer(realm(clientScopes=[extra], defaultOptionalClientScopes=["extra"]), realm(name="tenant"))
    with issuer.serving():
        issuer.faults.add("token", slow(0.1), times=4)
        auths = variants(issuer)
        found: list[list[str]] = [[] for _ in auths]

        def ask(number: int, auth: ServiceTokenAuth) -> None:
            async def main() -> None:
                found[number].extend(await asyncio.gather(*(auth.atoken() for _ in range(20))))

            asyncio.run(main())

        threads = [threading.Thread(target=ask, args=pair) for pair in enumerate(auths) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert [len(tokens) for tokens in found] == [40] * len(auths)
    assert [len(set(tokens)) for tokens in found] == [1] * len(auths)
    assert len({tokens[0] for tokens in found}) == len(auths)
    assert len(asked(issuer)) == len(auths)
    assert [claims(tokens[0])["azp"] for tokens in found[3:6]] == ["caller", "another", ODD_ID]
    assert claims(found[3][0])["iss"].endswith("/realms/tenant")


def test_one_secret_or_another_never_share(issuer: EmbeddedIssuer) -> None:
    right = ServiceTokenAuth(audience="receiver", settings=settings(issuer))
    wrong = ServiceTokenAuth(audience="receiver", settings=settings(issuer, client_secret=f"{SECRET} "))
    assert right.token()
    with pytest.raises(TokenRequestError):
        wrong.token()
    assert right.token()
    assert [exchange.status for exchange in asked(issuer)] == [200, 401]


@pytest.mark.parametrize(
    "one_and_other",
    [
        ({"scope": ("profile", "email")}, {"scope": ["email", "profile", "email"]}),
        ({"audience": "receiver"}, {"audience": ["receiver"]}),
        ({"audience": {"receiver"}}, {"audience": ("receiver", "receiver")}),
    ],
)
def test_order_repetition_and_kind_of_collection_are_no_difference(
    one_and_other: tuple[dict[str, Any], dict[str, Any]], issuer: EmbeddedIssuer
) -> None:
    one, other = (ServiceTokenAuth("http://bob:8000", **asked_for) for asked_for in one_and_other)
    assert one == other
    assert one._wanted == other._wanted
    assert hash(one) == hash(other)
    assert asked(issuer) == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"scope": "Profile"}, {"scope": "profile"}),
        ({"audience": "Receiver"}, {"audience": "receiver"}),
        ({"scope": ("a", "b")}, {"scope": "a,b"}),
        ({"scope": ("a", "b")}, {"scope": "a|b"}),
        ({"scope": ("ab", "c")}, {"scope": ("a", "bc")}),
        ({"scope": "a", "audience": "b"}, {"scope": "b", "audience": "a"}),
        ({"scope": "a"}, {"audience": "a"}),
        ({"scope": "a\N{LATIN SMALL LETTER E WITH ACUTE}"}, {"scope": "ae\N{COMBINING ACUTE ACCENT}"}),
        ({"scope": "a\N{CYRILLIC SMALL LETTER A}"}, {"scope": "aa"}),
    ],
)
def test_case_separators_and_look_alikes_are_a_difference(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert ServiceTokenAuth("http://bob:8000", **one) != ServiceTokenAuth("http://bob:8000", **other)


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\N{NO-BREAK SPACE}b", " a", "a ", "", "a\0b"])
@pytest.mark.parametrize("what", ["scope", "audience"])
def test_no_name_can_hold_what_separates_names(what: str, name: str) -> None:
    given: dict[str, Any] = {what: name}
    with pytest.raises(ConfigurationError):
        ServiceTokenAuth("http://bob:8000", **given)


def test_a_thousand_and_more_keys_are_bounded_and_whoever_holds_one_keeps_it(
    issuer: EmbeddedIssuer, clock: Clock
) -> None:
    held = ServiceTokenAuth(audience="receiver")
    first = held.token()
    for number in range(1100):  # none of them is asked for: a key is made at the first use
        ServiceTokenAuth(audience=f"receiver-{number}", settings=settings(issuer))._shared()
    assert held.token() == first
    assert len(asked(issuer)) == 1
