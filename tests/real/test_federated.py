"""Services without a secret on real servers: the token of a cluster is their credential, and each refusal names its cure."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from example_app.realm import claims_of
from s2s_fastapi import KeycloakSettings, ServiceTokenAuth, TokenRequestError, service_client
from s2s_fastapi.caller.token_source import TokenSource, using
from tests.caller.fakes import receiver
from tests.real.conftest import Servers
from tests.real.federation import Cluster, Projection, federated_client
from tests.real.server import NEWEST, VERSIONS, Keycloak

CHAT, BILLING = "system:serviceaccount:prod:chat", "system:serviceaccount:prod:billing"
HOUR = 3600


@pytest.fixture
def newest(keycloaks: Servers) -> Keycloak:
    return keycloaks(NEWEST)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def projection(tmp_path: Path) -> Projection:
    return Projection(tmp_path)


@contextmanager
def realm(keycloak: Keycloak, cluster: Cluster, **changes: Any) -> Iterator[str]:
    """Lend a realm that trusts the cluster, and its issuer for tokens of pipelines at ``<cluster>/ci``."""
    name = f"federated-{time.time_ns()}"
    pipelines = {
        "issuer": f"{cluster.url}/ci",
        "useJwksUrl": "true",
        "validateSignature": "true",
        "jwksUrl": f"{cluster.url}/openid/v1/jwks",
        "supportsClientAssertions": "true",
        **changes,
    }
    crm = {
        "name": "crm",
        "protocol": "openid-connect",
        "config": {"included.custom.audience": "crm", "access.token.claim": "true"},
        "protocolMapper": "oidc-audience-mapper",
    }
    document = {
        "realm": name,
        "enabled": True,
        "identityProviders": [
            {"alias": "k8s", "providerId": "kubernetes", "enabled": True, "config": {"issuer": cluster.url}},
            {"alias": "ci", "providerId": "oidc", "enabled": True, "config": pipelines},
        ],
        "clients": [
            federated_client("chat", "k8s", CHAT, protocolMappers=[crm]),
            federated_client("billing", "k8s", BILLING),
            federated_client("deploy", "ci", "repo:acme/shop"),
            {**federated_client("by-secret", "k8s", "x"), "clientAuthenticatorType": "client-secret", "secret": "x"},
        ],
    }
    if keycloak.version != NEWEST:
        del document["identityProviders"]  # an unknown type: the import answers 500
    keycloak.admin.create_realm(document)
    try:
        yield name
    finally:
        keycloak.admin.delete_realm(name)


def settings_of(keycloak: Keycloak, name: str, file: Path, client_id: str = "chat", **changes: Any) -> KeycloakSettings:
    given = {"client_auth": "federated_jwt", "client_assertion_file": file, "client_id": client_id, **changes}
    return KeycloakSettings(url=keycloak.url, auth_path=keycloak.auth_path, realm=name, **given)


def refused(settings: KeycloakSettings) -> TokenRequestError:
    with using(TokenSource()), pytest.raises(TokenRequestError) as caught:
        ServiceTokenAuth(settings=settings).token()
    return caught.value


def test_the_token_of_a_service_account_is_the_whole_credential(
    newest: Keycloak, cluster: Cluster, projection: Projection
) -> None:
    with realm(newest, cluster) as name, using(TokenSource()):
        settings = settings_of(newest, name, projection.file)
        projection.write(cluster.token(settings.issuer, sub=CHAT))
        first = ServiceTokenAuth(settings=settings, audience="crm").token()
        another = ServiceTokenAuth(settings=settings, scope="profile").token()  # with the same token of the cluster
        headers = ServiceTokenAuth("http://crm.test", settings=settings, audience="crm", dpop=True).headers_for(
            "GET", "http://crm.test/"
        )

    assert {claims_of(token)["azp"] for token in (first, another)} == {"chat"}
    assert "jkt" in claims_of(headers["Authorization"].removeprefix("DPoP "))["cnf"]


def test_what_must_not_be_sent_is_not_and_what_is_old_but_good_is(
    newest: Keycloak, cluster: Cluster, projection: Projection
) -> None:
    with realm(newest, cluster) as name:
        settings = settings_of(newest, name, projection.file)

        def said(audience: str = settings.issuer, **claims: Any) -> str:
            projection.write(cluster.token(audience, sub=CHAT, **claims))
            before = cluster.fetched
            error = refused(settings)
            assert (error.http_status, cluster.fetched) == (0, before)
            return str(error)

        assert "is for https://kubernetes.default.svc (aud)" in said("https://kubernetes.default.svc")
        assert "(aud), and not for" in said(aud=[settings.issuer, "https://kubernetes.default.svc"])
        assert "expired" in said(age=120, life=60)
        assert "is 36" in said(age=HOUR + 30, life=10 * HOUR)
        with using(TokenSource()):  # far from the limit, so that a slow machine does not pass it
            projection.write(cluster.token(settings.issuer, sub=CHAT, age=HOUR - 60, life=365 * 24 * HOUR))
            assert ServiceTokenAuth(settings=settings).token()


def test_each_refusal_names_its_cure(newest: Keycloak, cluster: Cluster, projection: Projection) -> None:
    with realm(newest, cluster) as name:
        settings = settings_of(newest, name, projection.file)
        issuer = settings.issuer

        def said(client_id: str = "chat", **claims: Any) -> TokenRequestError:
            projection.write(cluster.token(issuer, **claims))
            return refused(settings_of(newest, name, projection.file, client_id))

        another_pod = said(sub=BILLING)
        unknown = said(sub="system:serviceaccount:prod:nobody")
        foreign = said(sub=CHAT, key=cluster.rotate(shown=False))
        by_secret = said("by-secret", sub=CHAT)
        ahead = said(sub=CHAT, age=-30)
        elsewhere = f"http://elsewhere.example/realms/{name}"
        projection.write(cluster.token(elsewhere, sub=CHAT))
        audience = refused(settings_of(newest, name, projection.file, issuer=elsewhere))

        def of_pipeline(**claims: Any) -> TokenRequestError:
            return said("deploy", sub="repo:acme/shop", iss=f"{cluster.url}/ci", **claims)

        old, bare = of_pipeline(age=330), of_pipeline(jti=None)
        once = cluster.token(issuer, sub="repo:acme/shop", iss=f"{cluster.url}/ci")
        projection.write(once)
        deploy = settings_of(newest, name, projection.file, "deploy")
        with using(TokenSource()):
            assert ServiceTokenAuth(settings=deploy).token()
        twice = refused(deploy)

    assert f"Its subject is {BILLING}, and another client has that" in another_pod.cure
    assert "jwt.credential.sub must be system:serviceaccount:prod:nobody" in unknown.cure
    assert "must know the key of the token" in foreign.cure
    assert "clientAuthenticatorType must be federated-jwt" in by_secret.cure
    assert f"Compare the clocks of Keycloak and of {cluster.url}" in ahead.cure
    assert audience.error_description == "Invalid token audience"
    assert "Set KEYCLOAK_PUBLIC_URL or KEYCLOAK_ISSUER to the issuer that Keycloak names" in audience.cure
    assert "one of another type for 300 s" in old.cure
    assert all('Set supportsClientAssertionReuse to "true"' in error.cure for error in (bare, twice))
    assert [error.http_status for error in (another_pod, unknown, foreign, by_secret)] == [400, 401, 401, 401]
    assert ahead.retryable
    assert not any(error.retryable for error in (another_pod, old, bare, twice))


def test_a_provider_that_allows_reuse_serves_a_file_until_it_is_written_anew(
    newest: Keycloak, cluster: Cluster, projection: Projection
) -> None:
    with realm(newest, cluster, supportsClientAssertionReuse="true") as name:
        settings = settings_of(newest, name, projection.file, "deploy")
        projection.write(cluster.token(settings.issuer, sub="repo:acme/shop", iss=f"{cluster.url}/ci", jti=None))
        for _ in range(2):
            with using(TokenSource()):
                assert ServiceTokenAuth(settings=settings).token()


def test_no_call_fails_while_the_cluster_replaces_its_key_and_the_kubelet_its_file(
    newest: Keycloak, cluster: Cluster, projection: Projection
) -> None:
    skipped = 0.0
    failed, done, stop = [], [0], threading.Event()
    source = TokenSource(clock=lambda: time.monotonic() + skipped)
    with realm(newest, cluster) as name, receiver() as crm, using(source):
        settings = settings_of(newest, name, projection.file)
        projection.write(cluster.token(settings.issuer, sub=CHAT))

        def load() -> None:
            with service_client(crm.url, audience="crm", settings=settings) as client:
                while not stop.is_set():
                    try:
                        client.get("/").raise_for_status()
                        done[0] += 1
                    except Exception as error:  # noqa: BLE001 - whatever fails is the result
                        failed.append(str(error))
                        return
                    stop.wait(0.01)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        _until(lambda: len(crm.seen) > 20)
        # Keycloak has just asked for an unknown key, so it refuses the next one for 10 s.
        unknown = settings_of(newest, name, projection.file.parent / "unknown", "billing")
        (projection.file.parent / "unknown").write_text(
            cluster.token(settings.issuer, sub=BILLING, key=cluster.rotate(shown=False))
        )
        before = cluster.fetched
        while cluster.fetched == before:
            with pytest.raises(TokenRequestError):
                ServiceTokenAuth(settings=unknown, scope=f"s{time.time_ns()}").token()
            time.sleep(1)
        cluster.rotate()
        projection.write(cluster.token(settings.issuer, sub=CHAT))
        old, began = set(crm.tokens), time.monotonic()
        skipped = 241.0  # of a token's 300 s: its renewal is due, and it is used for 49 s more
        _until(lambda: bool(set(crm.tokens) - old) or bool(failed))
        took = time.monotonic() - began
        stop.set()
        for thread in threads:
            thread.join()

    print(f"{done[0]} calls, {len(failed)} failed, another token after {took:.1f} s")  # noqa: T201 - a figure
    assert failed == []
    assert took > 1  # the first renewals were refused: without that, this shows nothing


def _until(reached: Any, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_an_older_keycloak_says_no_and_the_error_says_why(
    keycloaks: Servers, cluster: Cluster, projection: Projection
) -> None:
    oldest = keycloaks(VERSIONS[-1])
    with realm(oldest, cluster) as name:
        settings = settings_of(oldest, name, projection.file)
        projection.write(cluster.token(settings.issuer, sub=CHAT))
        errors = [
            refused(settings),
            refused(settings_of(oldest, name, projection.file, "by-secret")),
            refused(settings_of(oldest, name, projection.file, "nobody")),
        ]

    assert [error.http_status for error in errors] == [401, 401, 401]
    assert all("Keycloak 26.0 has no such clients" in error.cure for error in errors)
