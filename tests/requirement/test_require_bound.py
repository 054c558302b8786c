"""A route may require a bound token although the app accepts bearer tokens too: it says how, and never who."""

import copy
import pickle
from typing import Any

import pytest
from fastapi import Depends
from starlette.testclient import TestClient

from s2s_fastapi import (
    ConfigurationError,
    Principal,
    Reason,
    Requirement,
    require_audience,
    require_bound,
    require_caller,
    require_service,
)
from tests.kit.proving import PUBLIC_URL, Owner
from tests.kit.realm import Clock, Realm
from tests.kit.receiving import App, Observed


def caller(**fields: Any) -> Principal:
    given: dict[str, Any] = {"client_id": "a", "kind": "service", "issuer": "i", "issued_at": 1, "expires_at": 2}
    return Principal(**{**given, **fields})


BOUND = caller(binding="dpop")
UNBOUND = caller()


def test_it_asks_what_the_request_proved_and_not_what_a_claim_says() -> None:
    assert require_bound().judge(BOUND).reason is Reason.ALLOWED
    assert require_bound().judge(caller(binding="certificate")).reason is Reason.ALLOWED
    assert require_bound().judge(UNBOUND).reason is Reason.NOT_BOUND
    assert require_bound().judge(caller(claims={"cnf": {"jkt": "x"}, "typ": "DPoP"})).reason is Reason.NOT_BOUND


def test_the_cure_names_both_bindings_because_either_may_be_the_one_that_the_app_takes() -> None:
    """With the one for DPoP alone, an app that takes certificates would send its caller from one 401 into the next."""
    cure = require_bound().judge(UNBOUND).cure
    assert "client_certificate=" in cure.split("KEYCLOAK_CLIENT_CERT_FILE")[0]
    assert "tls.client.certificate.bound.access.tokens" in cure.split("KEYCLOAK_CLIENT_CERT_FILE")[0]
    assert "dpop=" in cure.split("KEYCLOAK_DPOP=true")[0]
    assert "key" not in Reason.NOT_BOUND.detail  # it may be a certificate


@pytest.mark.parametrize(
    ("requirement", "principal", "reason"),
    [
        (require_caller("a") & require_bound(), BOUND, Reason.ALLOWED),
        (require_caller("a") & require_bound(), UNBOUND, Reason.NOT_BOUND),
        (require_bound() & require_caller("b"), BOUND, Reason.CALLER_NOT_ALLOWED),
        (require_caller("b") & require_bound(), UNBOUND, Reason.NOT_BOUND),
        (require_audience("x") & require_bound(), UNBOUND, Reason.WRONG_AUDIENCE),
        (require_caller("b") | require_bound(), BOUND, Reason.ALLOWED),
        (require_caller("a") | require_bound(), UNBOUND, Reason.ALLOWED),
        (require_bound(), caller(binding="dpop", other_realm="partners", realm="partners"), Reason.OTHER_REALM),
        (
            require_bound(realm="partners"),
            caller(binding="dpop", other_realm="partners", realm="partners"),
            Reason.ALLOWED,
        ),
        (require_bound(realm="partners"), caller(other_realm="partners", realm="partners"), Reason.NOT_BOUND),
        (require_bound(realm="partners"), BOUND, Reason.OTHER_REALM),
    ],
    ids=str,
)
def test_it_joins_as_every_other_requirement(requirement: Requirement, principal: Principal, reason: Reason) -> None:
    assert requirement.judge(principal).reason is reason
    assert requirement.optional().judge(principal).reason is reason


def test_it_is_a_value() -> None:
    assert require_bound() == require_bound() != require_service()
    assert require_bound() != require_bound(realm="partners")
    assert copy.deepcopy(require_bound()) == require_bound()
    assert pickle.loads(pickle.dumps(require_bound())) == require_bound()  # noqa: S301 - our own
    assert str(require_caller("a") & require_bound()) == 'require_caller("a") & require_bound()'
    assert str(require_bound(realm="partners")) == 'require_bound(realm="partners")'


def test_it_takes_no_names() -> None:
    with pytest.raises(TypeError):
        require_bound("a")  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="realm="):
        require_bound(realm="")


def test_observe_mode_enforces_it(make_app: App, realm: Realm, observed: Observed) -> None:
    clock = Clock()
    app = make_app(dpop="accepted", public_url=PUBLIC_URL, insecure_observe_until="2027-02-01", clock=clock)
    app.get("/x", dependencies=[Depends(require_bound() & require_caller("billing"))])(lambda: None)
    owner, life = Owner(realm, clock=clock), {"iat": int(clock.now), "exp": int(clock.now) + 300}
    with TestClient(app) as client:
        bearer = realm.sign(realm.claims(**life))
        response = client.get("/x", headers={"Authorization": f"Bearer {bearer}"})
        assert (response.status_code, observed.reasons) == (401, ["not_bound"])
        assert response.headers["www-authenticate"].startswith('DPoP realm="crm-api-gateway", error="invalid_token"')
        token = owner.token(**life)
        assert client.get("/x", headers=owner.headers(token, "/x")).status_code == 200
        assert (observed.reasons[1:], observed.decisions[1].observed) == (["caller_not_allowed"], True)


def test_an_app_that_takes_no_bound_tokens_does_not_start_with_it(make_app: App) -> None:
    app = make_app()
    app.get("/x", dependencies=[Depends(require_bound())])(lambda: None)
    with (
        pytest.raises(ConfigurationError, match=r"GET /x: require_bound\(\) needs an app that accepts bound tokens"),
        TestClient(app),
    ):
        pass
