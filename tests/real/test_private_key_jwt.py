"""Signed assertions on real servers: what keygen prints is what Keycloak takes, and each refusal names its cure."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey, RSAKey
from typer.testing import CliRunner

from example_app.realm import Realm, claims_of
from s2s_fastapi import KeycloakSettings, ServiceTokenAuth, TokenRequestError
from s2s_fastapi.caller.client_key import ClientKey
from s2s_fastapi.caller.credentials import PrivateKeyJwt
from s2s_fastapi.cli.commands import command_line
from s2s_fastapi.keycloak.endpoints import Endpoints
from tests.kit.assertions import CLIENTS, ROWS, form_of
from tests.real.server import NEWEST, Keycloak
from tests.real.settings import settings_of

CLIENT = "chat-app-service"


def keygen(*arguments: object, client_id: str = CLIENT) -> dict[str, Any]:
    done = CliRunner().invoke(command_line(), ["keygen", "--client-id", client_id, *map(str, arguments)])
    assert done.exit_code == 0, done.output
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def signing(there: Realm, file: Path, client_id: str = CLIENT, **changes: Any) -> KeycloakSettings:
    given = {"client_secret": None, "client_auth": "private_key_jwt", "client_key_file": file, "client_id": client_id}
    return settings_of(there, CLIENT, **given | changes)


def registered(keycloak: Keycloak, realm: Realm, client: dict[str, Any]) -> None:
    """Put exactly this over the client there is, as an administrator would with kcadm."""
    there = keycloak.admin.client(realm.name, client["clientId"])
    keycloak.admin.request("PUT", f"/{realm.name}/clients/{there['id']}", client)


def refused(settings: KeycloakSettings) -> TokenRequestError:
    with pytest.raises(TokenRequestError) as caught:
        ServiceTokenAuth(settings=settings).token()
    return caught.value


def test_a_client_that_is_changed_to_what_keygen_prints_gets_its_tokens_and_keeps_its_scopes(
    every_keycloak: Keycloak, tmp_path: Path
) -> None:
    with every_keycloak.copy_of("corp") as realm:
        for kty in ("EC", "RSA", "OKP"):
            file = tmp_path / f"{kty}.pem"
            registered(every_keycloak, realm, keygen("--kty", kty, "--out", file))
            token = ServiceTokenAuth(settings=signing(realm, file), audience="crm-api-gateway").token()
            assert claims_of(token)["azp"] == CLIENT, kty
        by_secret = refused(settings_of(realm, CLIENT))

    assert "set KEYCLOAK_CLIENT_AUTH=private_key_jwt and KEYCLOAK_CLIENT_KEY_FILE" in by_secret.cure


def test_a_client_that_is_imported_as_keygen_prints_it_gets_its_tokens(keycloak: Keycloak, tmp_path: Path) -> None:
    client = keygen("--out", tmp_path / "key.pem", client_id="new-service")
    with keycloak.copy_of("corp") as realm:
        keycloak.admin.request("POST", f"/{realm.name}/clients", client)
        token = ServiceTokenAuth(settings=signing(realm, tmp_path / "key.pem", "new-service")).token()

    assert claims_of(token)["azp"] == "new-service"


def test_a_realm_that_is_imported_with_what_keygen_prints_gives_tokens(keycloak: Keycloak, tmp_path: Path) -> None:
    name = f"signed-{time.time_ns()}"
    client = keygen("--out", tmp_path / "key.pem", client_id="new-service")
    keycloak.admin.create_realm({"realm": name, "enabled": True, "clients": [client]})
    settings = signing(keycloak.realm("corp"), tmp_path / "key.pem", "new-service", realm=name)
    try:
        token = ServiceTokenAuth(settings=settings).token()
    finally:
        keycloak.admin.delete_realm(name)

    assert claims_of(token)["client_id"] == "new-service"


def test_a_jwk_signs_with_the_algorithm_and_the_kid_it_names(keycloak: Keycloak, tmp_path: Path) -> None:
    keys: dict[str, RSAKey | ECKey] = dict.fromkeys(
        ("RS384", "RS512", "PS256", "PS384", "PS512"), RSAKey.generate_key(2048)
    )
    keys |= {"ES384": ECKey.generate_key("P-384"), "ES512": ECKey.generate_key("P-521")}
    with keycloak.copy_of("corp") as realm:
        for algorithm, key in keys.items():
            file = tmp_path / f"{algorithm}.json"
            file.write_text(json.dumps({**key.as_dict(private=True), "alg": algorithm, "kid": "of-my-own"}))
            client = keygen("--key", file)
            registered(keycloak, realm, client)
            assert client["attributes"]["token.endpoint.auth.signing.alg"] == algorithm
            assert claims_of(ServiceTokenAuth(settings=signing(realm, file)).token())["azp"] == CLIENT, algorithm


def test_a_key_follows_another_without_a_moment_in_which_none_is_taken(keycloak: Keycloak, tmp_path: Path) -> None:
    old, new, again = (tmp_path / f"{name}.pem" for name in ("old", "new", "again"))
    with keycloak.copy_of("corp") as realm:
        registered(keycloak, realm, keygen("--out", old))
        registered(keycloak, realm, keygen("--out", new, "--key", old))
        both = [ServiceTokenAuth(settings=signing(realm, file)).token() for file in (old, new)]
        registered(keycloak, realm, keygen("--key", new))
        again.write_bytes(old.read_bytes())
        gone = refused(signing(realm, again))

    assert [claims_of(token)["azp"] for token in both] == [CLIENT, CLIENT]
    assert f"keygen --client-id {CLIENT} --key {again}" in gone.cure


def test_a_key_that_was_replaced_in_its_file_is_used_at_once(keycloak: Keycloak, tmp_path: Path) -> None:
    file, new = tmp_path / "key.pem", tmp_path / "new.pem"
    with keycloak.copy_of("corp") as realm:
        keygen("--out", file)
        auth = ServiceTokenAuth(settings=signing(realm, file))
        registered(keycloak, realm, keygen("--out", new))

        with pytest.raises(TokenRequestError, match=r"keygen --client-id chat-app-service --key .*key\.pem"):
            auth.token()
        new.replace(file)
        token = auth.token()

    assert claims_of(token)["azp"] == CLIENT


def test_each_mistake_in_keycloak_or_here_names_its_cure(keycloak: Keycloak, tmp_path: Path) -> None:
    file, other, ec = tmp_path / "key.pem", tmp_path / "other.pem", tmp_path / "ec.pem"
    with keycloak.copy_of("corp") as realm:
        secret = refused(signing(realm, _made(ec)))
        client = keygen("--kty", "RSA", "--out", file)
        registered(keycloak, realm, client)
        keygen("--kty", "RSA", "--out", other)
        unknown_kid = refused(signing(realm, other))
        wrong_key = refused(signing(realm, _with_kid_of(file, other, tmp_path)))
        algorithm = refused(signing(realm, _jwk(file, tmp_path, alg="PS256")))
        elsewhere = refused(signing(realm, file, issuer=f"http://elsewhere.example/realms/{realm.name}"))
        nobody = refused(signing(realm, file, "chat-app-servise"))

    assert '"Client Authenticator" of the client chat-app-service in Keycloak to "Signed Jwt"' in secret.cure
    assert "the public half of the key in" in unknown_kid.cure
    assert "the public half of the key in" in wrong_key.cure
    assert (
        'the "Signature algorithm" of the client chat-app-service in Keycloak (Credentials page) to PS256'
        in algorithm.cure
    )
    assert "Set KEYCLOAK_PUBLIC_URL or KEYCLOAK_ISSUER" in elsewhere.cure
    assert "no enabled client 'chat-app-servise'" in nobody.cure
    assert not any(error.retryable for error in (secret, unknown_kid, wrong_key, algorithm, elsewhere, nobody))


def _made(file: Path) -> Path:
    keygen("--out", file)
    return file


def _jwk(file: Path, folder: Path, **changes: str) -> Path:
    jwk = {**ClientKey.read(file).key.as_dict(private=True), "kid": ClientKey.read(file).kid, **changes}
    written = folder / f"{len(list(folder.iterdir()))}.json"
    written.write_text(json.dumps(jwk))
    return written


def _with_kid_of(named: Path, file: Path, folder: Path) -> Path:
    return _jwk(file, folder, kid=ClientKey.read(named).kid)


def test_each_assertion_is_judged_as_the_embedded_issuer_judges_it(keycloak: Keycloak) -> None:
    name = f"assertions-{time.time_ns()}"
    keycloak.admin.create_realm({"realm": name, "enabled": True, "clients": list(CLIENTS)})
    settings = KeycloakSettings(url=keycloak.url, auth_path=keycloak.auth_path, realm=name)
    wrong = []
    try:
        with httpx.Client(trust_env=False) as client:
            for row in ROWS:
                form = form_of(row, settings.issuer, jti=row.name)
                answer = client.post(Endpoints.of(settings).token, data=form)
                told = (answer.status_code, answer.json().get("error"), answer.json().get("error_description", ""))
                expected = (row.new if keycloak.version == NEWEST else row.old) or (200, None, "")
                if told[:2] != expected[:2] or not told[2].startswith(expected[2]):
                    wrong.append((row.name, told))
    finally:
        keycloak.admin.delete_realm(name)

    assert wrong == []


def test_an_assertion_is_taken_once_and_each_request_brings_its_own(keycloak: Keycloak, tmp_path: Path) -> None:
    with keycloak.copy_of("corp") as realm:
        registered(keycloak, realm, keygen("--out", tmp_path / "key.pem"))
        settings = signing(realm, tmp_path / "key.pem")
        authentication = PrivateKeyJwt(client_id=CLIENT, file=tmp_path / "key.pem", issuer=settings.issuer)

        def ask(form: Any) -> httpx.Response:
            asked = {"grant_type": "client_credentials", **form}
            return httpx.post(Endpoints.of(settings).token, data=asked, trust_env=False)

        proof = authentication.prove()
        answers = [ask(form) for form in (proof.form, proof.form, authentication.prove().form)]

    assert [answer.status_code for answer in answers] == [200, 400, 200]
    assert "Token reuse detected" in answers[1].json()["error_description"]
