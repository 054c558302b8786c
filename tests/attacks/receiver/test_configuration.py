"""Settings that would verify nothing: line 6 of the list. Such an app does not start, and answers nobody but with 500."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

from s2s_fastapi import (
    ConfigurationError,
    KeycloakSettings,
    ServiceAuthMiddleware,
    TokenVerifier,
    require_audience,
    require_caller,
)
from s2s_fastapi.decision import Reason
from tests.attacks.receiver.stack import Observed, Stack, stack, token, whoami
from tests.kit.realm import SERVER, Realm, settings

ENVIRONMENT = {"KEYCLOAK_URL": SERVER, "KEYCLOAK_REALM": "corp", "KEYCLOAK_CLIENT_ID": "crm-api-gateway"}


def closed(**options: Any) -> None:
    """Prove that an app with these options refuses a good token, before and after its start was tried."""
    realm, observed, app = Realm(), Observed(), FastAPI(openapi_url=None)
    app.get("/x")(whoami)
    app.add_middleware(ServiceAuthMiddleware, transport=realm.transport, observer=observed, **options)
    client = TestClient(app, raise_server_exceptions=False)
    headers = {"Authorization": f"Bearer {realm.token()}"}
    for _ in range(2):
        response = client.get("/x", headers=headers)
        assert (response.status_code, response.json()) == (500, {"detail": "Internal Server Error"})
        with pytest.raises(ConfigurationError), client:
            raise AssertionError("started")
    assert {decision.reason for decision in observed.decisions} == {Reason.NOT_STARTED}
    assert realm.requests == []


@pytest.mark.parametrize(
    "audience",
    ["", " ", [], (), set(), {}, [""], ["crm-api-gateway", ""], [None], "account", ["a", "account"], 0, False, b"crm"],
    ids=repr,
)
def test_an_audience_that_nobody_or_everybody_has_does_not_start(audience: Any) -> None:
    closed(settings=settings(), audience=audience)


def test_an_app_that_knows_no_audience_at_all_does_not_start() -> None:
    closed(settings=settings(client_id=None))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("KEYCLOAK_LEEWAY", value) for value in ("nan", "inf", "-inf", "-1", "1e400", "61", "", "None", "30s")],
        *[("KEYCLOAK_AUDIENCE", value) for value in ("", ",", "account", "crm-api-gateway,", "crm-api-gateway,account")],
        *[("KEYCLOAK_ISSUER", value) for value in ("", "*", "corp", "file:///etc/passwd", "//keycloak.test/realms/corp")],
        *[("KEYCLOAK_REALM", value) for value in ("", "a/b", "..")],
        ("KEYCLOAK_URL", "http://user:password@keycloak.test"),
    ],
)  # fmt: skip
def test_a_setting_that_would_weaken_the_check_does_not_start(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, given in {**ENVIRONMENT, name: value}.items():
        monkeypatch.setenv(variable, given)
    closed()


@pytest.mark.parametrize("leeway", [float("nan"), float("inf"), -float("inf"), -1, 60.5, None, "x", [], {}], ids=repr)
def test_a_leeway_that_would_never_end_is_refused_at_construction(leeway: Any) -> None:
    with pytest.raises(ConfigurationError):
        KeycloakSettings(url=SERVER, realm="corp", client_id="crm-api-gateway", leeway=leeway)


@pytest.mark.parametrize("name", ["algorithms", "alg", "key", "keys", "jwks_uri", "verify", "options", "issuer"])
@pytest.mark.parametrize("make", [TokenVerifier, lambda **given: ServiceAuthMiddleware(FastAPI(), **given)])
def test_there_is_no_option_that_could_name_an_algorithm_or_a_key(make: Callable[..., Any], name: str) -> None:
    with pytest.raises(TypeError):
        make(**{name: "RS256"})


def test_no_two_apps_and_no_two_requests_share_settings_that_one_of_them_could_change() -> None:
    one, other = stack("RS256"), stack("RS256", audience="billing")
    good = token(one.realm)
    one.accepts(good)
    other.refuses(good, Reason.WRONG_AUDIENCE, outbound=1)
    one.accepts(good)
    with pytest.raises((AttributeError, TypeError, ValueError)):
        settings().leeway = 10**9


def test_a_collection_that_its_owner_changes_later_changes_nothing() -> None:
    names = {"crm-api-gateway"}
    attacked = stack("RS256", audience=names)
    names.add("billing")
    for_billing = token(attacked.realm, aud="billing")
    attacked.holds(token(attacked.realm), for_billing, Reason.WRONG_AUDIENCE)


def test_a_route_may_narrow_the_audience_and_never_widen_it() -> None:
    app = FastAPI(openapi_url=None)
    app.get("/y", dependencies=[Depends(require_caller("chat-app-service") & require_audience("crm-api-gateway"))])(whoami)  # fmt: skip
    realm = Realm()
    attacked = Stack(realm, app=app)
    attacked.holds(token(realm), token(realm, aud="billing"), Reason.WRONG_AUDIENCE, path="/y")
