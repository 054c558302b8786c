"""The receiver on real servers: what the stories do not tell."""

import threading
import time
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Request
from starlette.testclient import TestClient

from example_app.stage import Stage
from s2s_fastapi import (
    AuthenticationError,
    KeysUnavailable,
    Principal,
    ServiceAuthMiddleware,
    TokenVerifier,
    require_caller,
)
from tests.real.server import Keycloak
from tests.real.settings import settings_of


def test_a_key_rotation_refuses_no_request_and_the_new_key_works_at_once(keycloak: Keycloak) -> None:
    with keycloak.copy_of("corp") as realm, Stage() as stage:
        stage.add("crm_gateway", realm.environment("crm-api-gateway"))
        stage.wait()
        gateway = stage["crm_gateway"]
        before = realm.service_token("chat-app-service")
        statuses: list[int] = []
        stopping = threading.Event()

        def traffic() -> None:
            while not stopping.is_set():
                statuses.append(gateway.ask("GET", "/tickets", before).status_code)

        caller = threading.Thread(target=traffic)
        caller.start()
        try:
            time.sleep(0.5)
            old_kid = keycloak.admin.signing_kid(realm.name)
            new_kid = keycloak.admin.rotate_keys(realm.name)
            after = realm.service_token("chat-app-service")
            first_with_new_key = gateway.ask("GET", "/tickets", after)
            time.sleep(0.5)
        finally:
            stopping.set()
            caller.join()

        assert new_kid != old_kid
        assert first_with_new_key.status_code == 200
        assert statuses
        assert set(statuses) == {200}


def test_a_service_starts_without_keycloak_answers_503_and_recovers_by_itself(keycloak: Keycloak) -> None:
    realm = keycloak.realm("corp")
    token = realm.service_token("chat-app-service")
    with Stage() as stage:
        keycloak.stop()
        try:
            stage.add("crm_gateway", realm.environment("crm-api-gateway"))
            stage.wait()
            down = stage.ask("crm_gateway", "GET", "/tickets", token)
            retry_after = stage["crm_gateway"].ask("GET", "/tickets", token).headers.get("Retry-After", "")
        finally:
            keycloak.start()  # everybody's server
        until = time.monotonic() + 15
        while (
            up := stage["crm_gateway"].ask("GET", "/tickets", token)
        ).status_code == 503 and time.monotonic() < until:
            time.sleep(0.2)

        assert (down.status, down.reason, down.challenge) == (503, "keys_unavailable", "")
        assert f"cannot connect to {keycloak.url}" in down.log
        assert 0 < int(retry_after) <= 6
        assert up.status_code == 200
        assert "Traceback" not in stage["crm_gateway"].log


def test_a_realm_that_does_not_exist_is_named_with_its_variable(keycloak: Keycloak) -> None:
    realm = keycloak.realm("corp")
    verifier = TokenVerifier(settings_of(realm, "crm-api-gateway", realm="corpp"))

    with pytest.raises(
        KeysUnavailable,
        match=r"404\. Set KEYCLOAK_REALM to the realm's name, letter by letter: there is no realm corpp",
    ):
        verifier.verify(realm.service_token("chat-app-service"))


def test_a_token_is_refused_when_it_has_expired(keycloak: Keycloak) -> None:
    with keycloak.copy_of("corp") as realm:
        keycloak.admin.update_client(realm.name, "chat-app-service", attributes={"access.token.lifespan": "2"})
        verifier = TokenVerifier(settings_of(realm, "crm-api-gateway", leeway="0"))
        token = realm.service_token("chat-app-service")
        verifier.verify(token)
        time.sleep(2.5)

        with pytest.raises(AuthenticationError) as refused:
            verifier.verify(token)

    assert refused.value.code == "expired"
    assert refused.value.challenge == 'Bearer error="invalid_token", error_description="The access token expired."'


def test_revoke_all_in_keycloak_refuses_the_tokens_issued_before(keycloak: Keycloak) -> None:
    with keycloak.copy_of("corp") as realm:
        token = realm.service_token("chat-app-service")
        time.sleep(1.1)
        keycloak.admin.set_not_before(realm.name, int(time.time()))

        with pytest.raises(AuthenticationError) as refused:
            TokenVerifier(settings_of(realm, "crm-api-gateway")).verify(token)
        time.sleep(1.1)
        again = TokenVerifier(settings_of(realm, "crm-api-gateway")).verify(realm.service_token("chat-app-service"))

    assert refused.value.code == "revoked"
    assert again.client_id == "chat-app-service"


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "PS256"])
def test_tokens_of_every_asymmetric_kind_are_accepted(keycloak: Keycloak, algorithm: str) -> None:
    with keycloak.copy_of("corp") as realm:
        verifier = TokenVerifier(settings_of(realm, "crm-api-gateway"))
        verifier.verify(realm.service_token("chat-app-service"))
        attributes = {"access.token.signed.response.alg": algorithm}
        keycloak.admin.update_client(realm.name, "chat-app-service", attributes=attributes)

        # Keycloak makes the key when it is first used: its kid is new to us, and must work at once.
        assert verifier.verify(realm.service_token("chat-app-service")).client_id == "chat-app-service"


def test_a_token_signed_with_a_shared_secret_is_refused(keycloak: Keycloak) -> None:
    with keycloak.copy_of("corp") as realm:
        attributes = {"access.token.signed.response.alg": "HS512"}
        keycloak.admin.update_client(realm.name, "chat-app-service", attributes=attributes)

        with pytest.raises(AuthenticationError) as refused:
            TokenVerifier(settings_of(realm, "crm-api-gateway")).verify(realm.service_token("chat-app-service"))

    assert refused.value.code == "algorithm_not_allowed"


def test_an_id_token_and_a_refresh_token_are_no_access_tokens(keycloak: Keycloak) -> None:
    realm = keycloak.realm("techstore")
    answer = realm.ask(
        grant_type="password",
        client_id="shop-ui",
        username="customer",
        password=realm.password("customer"),
        scope="openid",
    ).json()
    verifier = TokenVerifier(settings_of(realm, "notification-service", audience="shop-ui,notification-service"))

    codes = []
    for kind in ("id_token", "refresh_token"):
        with pytest.raises(AuthenticationError) as refused:
            verifier.verify(answer[kind])
        codes.append(refused.value.code)

    assert codes == ["wrong_type", "algorithm_not_allowed"]


def test_without_the_audience_check_a_callers_name_is_still_enforced(every_keycloak: Keycloak) -> None:
    realm = every_keycloak.realm("techstore")
    with Stage() as stage:
        environment = realm.environment("notification-service")
        stage.add("first_form", environment, app="tests.real.first_form:app")
        stage.wait()
        service = stage["first_form"]

        seen = [
            stage.ask("first_form", "POST", "/notifications", token)
            for token in (
                realm.service_token("shop-api"),
                realm.service_token("inventory-service"),
                realm.user_token("customer", via="shop-api"),
                None,
            )
        ]

        assert [(answer.status, answer.reason) for answer in seen] == [
            (202, "allowed"),
            (403, "caller_not_allowed"),
            (403, "not_a_service"),
            (401, "no_credentials"),
        ]
        assert "insecure_skip_audience is on" in service.log


def test_optional_paths_and_authenticate_know_real_tokens_from_none(keycloak: Keycloak) -> None:
    realm = keycloak.realm("corp")
    settings = settings_of(realm, "crm-api-gateway")
    chat = require_caller("chat-app-service")
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, settings=settings, optional_paths=["/search"])

    @app.get("/search")
    async def search(caller: Annotated[Principal | None, Depends(chat.optional())]) -> str:
        return "nobody" if caller is None else caller.client_id

    verifier, gate = TokenVerifier(settings), FastAPI(openapi_url=None)

    @gate.get("/search")
    async def authenticated(request: Request) -> str:
        caller = await verifier.authenticate_optional(request, chat)
        return "nobody" if caller is None else caller.client_id

    token = realm.service_token("chat-app-service")
    head, payload, signature = token.split(".")
    sent = {"": 200, f"Bearer {token}": 200, f"Bearer {head}.{payload}.{signature[::-1]}": 401, f"DPoP {token}": 401}
    for each in (app, gate):
        with TestClient(each) as client:
            answers = {
                value: client.get("/search", headers={"Authorization": value} if value else {}) for value in sent
            }
        assert {value: answer.status_code for value, answer in answers.items()} == sent
        assert [answer.json() for answer in answers.values()][:2] == ["nobody", "chat-app-service"]
