"""The callers of a test: what their tokens have, with a realm file and without."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from joserfc.jwk import RSAKey

from example_app.realm import REALMS, claims_of
from s2s_fastapi import (
    ConfigurationError,
    CurrentPrincipal,
    KeycloakSettings,
    ServiceAuthMiddleware,
    TokenRequestError,
    require_audience,
    require_caller,
    require_role,
    require_user,
    service_client,
)
from s2s_fastapi.testing import EmbeddedIssuer, assert_refused, client_of
from s2s_fastapi.testing.named_realm import Named, realm_document

CORP = REALMS["corp"]


@pytest.fixture
def issuer() -> EmbeddedIssuer:
    return EmbeddedIssuer.for_tests()


def make_app(**options: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, **options)

    @app.get("/x", dependencies=[Depends(require_audience("x") & (require_caller("a") | require_user("a")))])
    async def x() -> None: ...

    return app


def test_a_service_has_what_it_was_named_with_and_nothing_else(issuer: EmbeddedIssuer) -> None:
    plain = claims_of(issuer.as_service("a", audience="x").token)
    assert (plain["azp"], plain["aud"], plain["scope"], plain.get("realm_access")) == ("a", "x", "profile email", None)
    rich = claims_of(
        issuer.as_service(
            "a", audience=["x", "y"], scope=["read", "write"], roles={"x": "writer"}, realm_roles=["boss"]
        ).token
    )
    assert (sorted(rich["aud"]), rich["scope"]) == (["x", "y"], "profile email read write")
    assert rich["resource_access"] == {"x": {"roles": ["writer"]}}
    assert rich["realm_access"] == {"roles": ["boss"]}


def test_a_user_logs_in_through_a_client(issuer: EmbeddedIssuer) -> None:
    claims = claims_of(issuer.as_user("ann", via="front-end", audience="x", roles={"x": "reader"}).token)
    assert (claims["azp"], claims["preferred_username"], claims["aud"]) == ("front-end", "ann", "x")
    assert claims["resource_access"] == {"x": {"roles": ["reader"]}}
    with client_of(make_app(users=True), issuer=issuer) as client:
        assert client.get("/x", auth=issuer.as_user("ann", via="a")).status_code == 200
        assert_refused(client.get("/x", auth=issuer.as_user("ann", via="b")), 403, "caller_not_allowed")


def test_each_option_has_the_refusal_that_it_is_for(issuer: EmbeddedIssuer) -> None:
    own = RSAKey.generate_key(2048)
    with client_of(make_app(), issuer=issuer) as client:
        for options, reason in (
            ({"audience": "y"}, "wrong_audience"),
            ({"expires_in": -60}, "expired"),
            ({"issuer": "http://keycloak.test/realms/other"}, "wrong_issuer"),
            ({"key": "foreign"}, "unknown_key"),
            ({"key": "forged"}, "invalid_signature"),
            ({"key": own}, "unknown_key"),
            ({"claims": {"iat": None}}, "malformed_claims"),
            ({"claims": {"typ": "ID"}}, "wrong_type"),
            ({"claims": {"cnf": {"jkt": "x"}}}, "sender_constrained"),
            ({"claims": {"nbf": int(time.time()) + 600}}, "not_yet_valid"),
        ):
            given: Any = options
            assert_refused(client.get("/x", auth=issuer.as_service("a", **given)), 401, reason)
        bound = issuer.as_service("a", dpop=True)
        assert_refused(client.get("/x", headers={"Authorization": f"Bearer {bound.token}"}), 401, "sender_constrained")
        assert client.get("/x", auth=issuer.as_service("a")).status_code == 200


def test_the_time_of_a_token_is_as_given(issuer: EmbeddedIssuer) -> None:
    claims = claims_of(issuer.as_service("a", audience="x", expires_in=10).token)
    assert claims["exp"] - claims["iat"] == 10
    past = claims_of(issuer.as_service("a", audience="x", expires_in=-60).token)
    assert past["exp"] - past["iat"] == 300
    assert past["exp"] < time.time() - 50


def test_a_key_of_another_name_is_an_error(issuer: EmbeddedIssuer) -> None:
    wrong: Any = "stolen"
    with pytest.raises(ConfigurationError, match='key= is "realm"'):
        issuer.as_service("a", key=wrong)


def test_with_a_realm_file_only_what_it_grants_is_granted(issuer: EmbeddedIssuer) -> None:
    issuer.load(CORP)
    assert claims_of(issuer.as_service("chat-app-service").token)["aud"] == "crm-api-gateway"
    assert claims_of(issuer.as_service("chat-app-unassigned").token)["aud"] == "account"
    with pytest.raises(
        ConfigurationError, match=r"has no client nobody\. Its clients with a service account: billing, chat"
    ):
        issuer.as_service("nobody").token  # noqa: B018 - it is made when it is read
    with pytest.raises(ConfigurationError, match=r"has no client nobody\. Its clients: account, .*chat-app-service"):
        issuer.as_user("ann", via="nobody").token  # noqa: B018
    with pytest.raises(ConfigurationError, match="grants chat-app-service no token for bob"):
        issuer.as_service("chat-app-service", audience="bob").token  # noqa: B018
    with pytest.raises(ConfigurationError, match="roles= has no effect with a realm file"):
        issuer.as_service("chat-app-service", roles="x").token  # noqa: B018
    with pytest.raises(TokenRequestError, match="invalid_scope"):
        issuer.as_service("chat-app-service", scope="nope").token  # noqa: B018
    with pytest.raises(ConfigurationError, match="has no user ann"):
        issuer.as_user("ann", via="chat-app-service").token  # noqa: B018


def test_a_caller_that_the_realm_file_does_not_have_is_an_error_that_lists_the_known_ones(
    issuer: EmbeddedIssuer,
) -> None:
    from example_app import chat_app

    issuer.load(CORP)
    with (
        pytest.raises(ConfigurationError, match="has no client chat with a secret, only billing, chat-app-service"),
        client_of(chat_app.app, issuer=issuer, client_id="chat"),
    ):
        pass
    with client_of(chat_app.app, issuer=issuer, client_id="chat-app-service") as client:
        assert client.get("/healthz").status_code == 200


def test_an_issuer_with_several_realms_is_asked_for_one(issuer: EmbeddedIssuer, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(
        json.dumps({"realm": "other", "enabled": True, "clients": [{"clientId": "a", "serviceAccountsEnabled": True}]})
    )
    issuer.load(CORP, other)
    with pytest.raises(ConfigurationError, match=r"several realms, corp, other: write trusted_by\(app, realm="):
        issuer.trusted_by(make_app()).__enter__()
    with client_of(make_app(), issuer=issuer, realm="other") as client:
        assert client.get("/x", auth=issuer.as_service("a", claims={"aud": "x"})).status_code == 200


def test_each_realm_has_keys_of_its_own_which_are_made_once(issuer: EmbeddedIssuer) -> None:
    other = EmbeddedIssuer.for_tests()
    assert issuer.signing_kid("test") == other.signing_kid("test")
    assert issuer.rotate_keys("test") == other.rotate_keys("test") != EmbeddedIssuer.for_tests().signing_kid("test")
    issuer.load(CORP)
    assert issuer.signing_kid("corp") != EmbeddedIssuer.for_tests().signing_kid("test")


def test_nothing_shows_a_token(issuer: EmbeddedIssuer) -> None:
    service, user = issuer.as_service("a", key=RSAKey.generate_key(2048)), issuer.as_user("ann", via="ui")
    assert (repr(service), repr(user)) == ("as_service('a')", "as_user('ann', via='ui')")


def test_a_realm_without_a_file_grows_by_what_is_asked_over_a_socket_too(issuer: EmbeddedIssuer) -> None:
    import httpx

    with issuer.serving():
        variables = issuer.service_environment("script", audience="crm", scope="tickets")
        assert variables["KEYCLOAK_URL"] == issuer.url
        answer = httpx.post(
            f"{variables['KEYCLOAK_URL']}/realms/test/protocol/openid-connect/token",
            data={"grant_type": "client_credentials", "scope": "tickets"},
            auth=(variables["KEYCLOAK_CLIENT_ID"], variables["KEYCLOAK_CLIENT_SECRET"]),
            trust_env=False,
        )
    claims = claims_of(answer.json()["access_token"])
    assert (claims["aud"], claims["scope"], claims["iss"]) == (
        "crm",
        "profile email tickets",
        "http://keycloak.test/realms/test",
    )


def test_the_environment_of_a_process_has_nothing_of_the_shell(
    issuer: EmbeddedIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYCLOAK_AUDIENCE", "nonsense")
    monkeypatch.setenv("OTHER", "kept")
    variables = issuer.service_environment("script")
    assert (variables.get("KEYCLOAK_AUDIENCE"), variables["OTHER"]) == (None, "kept")


def test_a_token_for_nobody_is_an_error_that_says_what_to_do_first(issuer: EmbeddedIssuer) -> None:
    caller = issuer.as_service("a")
    for read in (lambda: caller.token, lambda: caller.headers):
        with pytest.raises(ConfigurationError, match=r"call client_of\(app\) first, or say with audience="):
            read()
    assert claims_of(issuer.as_service("a", claims={"aud": "y"}).token)["aud"] == "y"
    with client_of(make_app(), issuer=issuer) as client:
        assert client.get("/x", headers=caller.headers).status_code == 200


def test_slips_of_a_newcomer_are_errors_that_say_what_to_write(issuer: EmbeddedIssuer) -> None:
    wrong: Any = {"scopes": "a"}
    with pytest.raises(TypeError, match=r"as_service has no scopes=\. It has audience=, scope=, roles="):
        issuer.as_service("x", **wrong)
    with pytest.raises(TypeError, match="as_user has no scopes="):
        issuer.as_user("ann", via="ui", **wrong)
    with pytest.raises(ConfigurationError, match="Say with via= through which client the user logged in"):
        issuer.as_user("ann")
    headers: Any = issuer.as_service("x")
    with (
        client_of(make_app(), issuer=issuer) as client,
        pytest.raises(TypeError, match=r"write auth=as_service\('x'\), or headers=as_service\('x'\)\.headers"),
    ):
        client.get("/x", headers=headers)


def several(*settings: KeycloakSettings) -> FastAPI:
    """Return an app of several realms. Each of its routes says in the path which one may call it."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, settings=settings)
    for each in settings:
        who = require_caller("a", realm=each.name)

        @app.get(f"/{each.name}", dependencies=[Depends(who)])
        async def x(caller: CurrentPrincipal) -> list[str]:
            return [caller.realm, caller.issuer, *sorted(caller.audiences)]

        @app.get(f"/{each.name}/role", dependencies=[Depends(who & require_role("reader", realm=each.name))])
        async def reader() -> None: ...

    return app


EU = KeycloakSettings(url="https://eu.test", realm="acme", name="eu", client_id="crm-eu")
US = KeycloakSettings(url="https://us.test", realm="acme", name="us", client_id="crm-us")


def test_each_realm_of_an_app_has_a_realm_of_its_own_even_if_keycloak_calls_them_the_same(
    issuer: EmbeddedIssuer,
) -> None:
    with client_of(several(EU, US), issuer=issuer) as client:
        ours, named, theirs = (issuer.as_service("a", realm=realm) for realm in ("", "eu", "us"))
        for caller in (ours, named):
            assert client.get("/eu", auth=caller).json() == ["eu", "http://keycloak.test/realms/test", "crm-eu"]
            assert_refused(client.get("/us", auth=caller), 403, "other_realm")
        assert client.get("/us", auth=theirs).json() == ["us", "https://us.test/realms/acme", "crm-us"]
        assert_refused(client.get("/eu", auth=theirs), 403, "other_realm")
        assert issuer.signing_kid("us") != issuer.signing_kid("test")
        # A plain role is one of the app's own client in the realm of the caller.
        assert client.get("/us/role", auth=issuer.as_service("a", realm="us", roles="reader")).status_code == 200
        foreign = issuer.as_service("a", realm="us", audience="crm-eu")
        assert_refused(client.get("/us", auth=foreign), 401, "wrong_audience")
        with pytest.raises(ConfigurationError, match="no realm asia, only eu, us"):
            client.get("/us", auth=issuer.as_service("a", realm="asia"))


def test_realm_files_stand_for_realms_that_keycloak_calls_the_same_by_the_names_in_the_app(
    issuer: EmbeddedIssuer, tmp_path: Path
) -> None:
    named = {name: Named(client_id="a", audiences=frozenset({f"crm-{name}"})) for name in ("eu", "us")}
    for name, caller in named.items():
        (tmp_path / f"{name}.json").write_text(
            json.dumps(realm_document(name, [caller, Named(client_id=f"crm-{name}")])), "utf-8"
        )
    issuer.load(tmp_path / "eu.json", tmp_path / "us.json")
    with client_of(several(EU, US), issuer=issuer) as client:
        answers = [client.get(f"/{name}", auth=issuer.as_service("a", realm=name)).json() for name in named]
    assert answers == [[name, f"http://keycloak.test/realms/{name}", f"crm-{name}"] for name in named]


def test_an_app_calls_with_a_token_of_the_realm_that_it_names(issuer: EmbeddedIssuer) -> None:
    ours, theirs = (service_client(f"http://{each.name}", audience=each.name, settings=each) for each in (EU, US))
    with client_of(several(EU, US), ours, theirs, issuer=issuer):
        played = [issuer.downstream(ours), issuer.downstream(theirs)]
        with ours as one, theirs as other:
            one.get("/x")
            other.get("/x")
    claims = [claims_of(service.calls[0].token) for service in played]
    assert [each["iss"] for each in claims] == ["http://keycloak.test/realms/test", "https://us.test/realms/acme"]
    assert [(each["azp"], each["aud"]) for each in claims] == [("crm-eu", "eu"), ("crm-us", "us")]
