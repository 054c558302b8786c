"""What doctor says of a service without a secret: which part of its token or certificate is wrong, and what Keycloak compares it with."""

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s2s_fastapi import KeycloakSettings
from s2s_fastapi.keycloak.client_authentication import (
    ByCertificate,
    ByFederation,
    ClientAuthentication,
    TrustedProvider,
)
from s2s_fastapi.operations.checks.authentication import check_authentication
from s2s_fastapi.operations.checks.client import check_client, check_expiry
from s2s_fastapi.operations.checks.service import check_files, check_secret
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.findings import Finding, Result, Seen, Skipped
from s2s_fastapi.operations.inspection import Inspection
from tests.kit.admin_rest import FakeKeycloak
from tests.kit.authority import issue, make_authority
from tests.kit.declaring import caller

NOW = 1_800_000_000
REALM = "https://keycloak.test/realms/corp"
CLUSTER = "https://kubernetes.default.svc"
SUBJECT = "system:serviceaccount:prod:chat"
CLAIMS = {"iss": CLUSTER, "sub": SUBJECT, "aud": [REALM], "iat": NOW - 60, "exp": NOW + 3000}
FEDERATED = {"jwt.credential.issuer": "k8s", "jwt.credential.sub": SUBJECT}
AUTHORITY = "CN=a company's own"
DN = "CN=chat,OU=svc,O=Acme"
EXACT = {"x509.subjectdn": DN, "x509.casubjectdn": AUTHORITY, "x509.allow.regex.pattern.comparison": "false"}


def token(**claims: Any) -> str:
    parts = ({"alg": "RS256", "kid": "k"}, {**CLAIMS, **claims}, {"signature": "of-the-token"})
    return ".".join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


def facts_of(realm: FakeKeycloak | None = None, *, now: float = NOW, **settings: Any) -> Facts:
    given = {"url": "https://keycloak.test", "realm": "corp", "client_id": "chat"}
    return Facts(
        admin=None if realm is None else realm.api(),
        settings=KeycloakSettings(**{**given, **settings}),
        clock=lambda: now,
    )


@pytest.fixture
def federated(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "token"
    file.write_text(token())
    file.chmod(0o600)
    return {"client_auth": "federated_jwt", "client_assertion_file": file}


def text(results: Iterable[Result]) -> str:
    return "\n".join(
        f"{result.seen} {result.why} {result.cure} {result.console}"
        for result in results
        if isinstance(result, Finding)
    )


def cluster(**changes: Any) -> FakeKeycloak:
    realm = FakeKeycloak()
    realm.providers.append(
        {"alias": "k8s", "providerId": "kubernetes", "enabled": True, "config": {"issuer": CLUSTER}, **changes}
    )
    realm.add_client(
        clientId="chat",
        serviceAccountsEnabled=True,
        fullScopeAllowed=False,
        clientAuthenticatorType="federated-jwt",
        attributes=dict(FEDERATED),
    )
    return realm


# The token


def test_a_good_token_is_seen_with_its_issuer_and_its_subject(federated: dict[str, Any]) -> None:
    facts = facts_of(**federated)
    assert facts.proves_itself
    (seen,) = check_secret(facts)
    assert seen == Seen(f"The token of {CLUSTER} is for Keycloak alone; its subject is {SUBJECT}.")
    (mode,) = check_files(facts)
    assert "CLIENT_ASSERTION_FILE" in str(mode)
    assert "0600" in str(mode)


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        ({"aud": ["https://kubernetes.default.svc"]}, "is for https://kubernetes.default.svc (aud)"),
        ({"aud": [REALM, "https://other.example"]}, "(aud), and not for"),
        ({"exp": NOW - 5}, "expired 5 s ago (exp)"),
        ({"iat": NOW - 3601}, "is 3601 s old (iat)"),
        ({"exp": None}, "has no time at which it expires (exp)"),
    ],
    ids=["aud", "two", "exp", "age", "endless"],
)
def test_a_token_that_keycloak_refuses_is_found_with_the_claim_that_is_wrong(
    claims: dict[str, Any], problem: str, federated: dict[str, Any]
) -> None:
    federated["client_assertion_file"].write_text(token(**claims))
    (found,) = check_secret(facts_of(**federated))
    assert isinstance(found, Finding)
    assert problem in found.seen
    assert found.cure
    assert found.cure not in found.seen
    assert "eyJ" not in repr(found)


# The client that it proves


def test_a_client_that_the_token_proves_is_fine(federated: dict[str, Any]) -> None:
    facts = facts_of(cluster(), **federated)
    assert list(check_authentication(facts)) == [Seen("The identity provider k8s (kubernetes) is there.")]
    assert text(check_client(facts)) == ""
    assert list(check_expiry(facts)) == [Skipped("This service has no secret in Keycloak, or needs none.")]


def test_a_second_client_with_the_same_subject_is_found(federated: dict[str, Any]) -> None:
    realm = cluster()
    realm.add_client(clientId="older", attributes=FEDERATED)
    realm.add_client(clientId="another", attributes={**FEDERATED, "jwt.credential.issuer": "k9s"})
    found = text(check_authentication(facts_of(realm, **federated)))
    assert f"the subject {SUBJECT} of the identity provider k8s already proves older. Keycloak refuses all" in found
    assert "another" not in found.partition(". Keycloak")[0]


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        (
            {"jwt.credential.sub": "system:serviceaccount:prod:other"},
            f"The token of this service has the subject {SUBJECT}",
        ),
        ({"jwt.credential.sub": ""}, "names no subject (jwt.credential.sub)"),
        ({"jwt.credential.issuer": ""}, "names no identity provider (jwt.credential.issuer)"),
        ({"jwt.credential.issuer": "k9s"}, "has no identity provider k9s"),
    ],
    ids=["sub", "no sub", "no alias", "alias"],
)
def test_a_client_that_expects_another_token_is_found(
    attributes: dict[str, str], problem: str, federated: dict[str, Any]
) -> None:
    realm = cluster()
    realm.client("chat")["attributes"] |= attributes
    assert problem in text(check_authentication(facts_of(realm, **federated)))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"enabled": False}, "The identity provider k8s is disabled."),
        ({"config": {"issuer": "https://other.example"}}, f"The token of this service is of the issuer {CLUSTER}"),
        ({"providerId": "oidc"}, "does not prove clients (supportsClientAssertions)"),
        (
            {"providerId": "oidc", "config": {"issuer": CLUSTER, "supportsClientAssertions": "true"}},
            "takes each token once (supportsClientAssertionReuse)",
        ),
    ],
    ids=["disabled", "issuer", "assertions", "reuse"],
)
def test_an_identity_provider_that_does_not_prove_the_client_is_found(
    changes: dict[str, Any], problem: str, federated: dict[str, Any]
) -> None:
    assert problem in text(check_authentication(facts_of(cluster(**changes), **federated)))


def test_a_reader_who_may_not_see_identity_providers_still_sees_the_rest(federated: dict[str, Any]) -> None:
    realm = cluster()
    realm.rights = frozenset({"view-clients", "view-users", "view-realm"})
    realm.add_client(clientId="older", attributes=FEDERATED)
    results = list(check_authentication(facts_of(realm, **federated)))
    assert "already proves older" in text(results)
    assert any(isinstance(each, Seen) and "view-identity-providers" in each.text for each in results)


def test_of_a_spiffe_provider_only_the_subject_is_compared(federated: dict[str, Any]) -> None:
    subject = "spiffe://example.org/chat"
    federated["client_assertion_file"].write_text(token(sub=subject))  # it may have any iss, or none
    realm = cluster(providerId="spiffe", config={"trustDomain": "spiffe://example.org"})
    realm.client("chat")["attributes"]["jwt.credential.sub"] = subject
    results = list(check_authentication(facts_of(realm, **federated)))
    assert results == [Seen("The identity provider k8s (spiffe) is there.")]


def test_a_token_file_that_cannot_be_read_ends_no_check_of_the_realm(federated: dict[str, Any]) -> None:
    facts = facts_of(cluster(), **federated)
    federated["client_assertion_file"].unlink()
    assert list(check_authentication(facts)) == [Seen("The identity provider k8s (kubernetes) is there.")]


def test_another_client_authenticator_is_found_by_its_name_in_the_console(federated: dict[str, Any]) -> None:
    realm = cluster()
    realm.client("chat")["clientAuthenticatorType"] = "client-secret"
    facts = facts_of(realm, **federated)
    assert "Choose Signed JWT - Federated as Client Authenticator of chat" in text(check_client(facts))
    assert list(check_authentication(facts)) == [Skipped("First solve the problem of client.")]


def test_a_service_with_a_secret_is_not_looked_at() -> None:
    (skipped,) = check_authentication(facts_of(cluster(), client_secret="of-the-service"))
    assert skipped == Skipped("This service logs in with a secret or a key of its own.")


@pytest.mark.parametrize(("declared", "found"), [("federated_jwt", 0), ("tls_client_auth", 1)])
def test_an_access_file_that_says_another_way_to_log_in_is_found(
    declared: str, found: int, federated: dict[str, Any]
) -> None:
    provider = TrustedProvider(alias="k8s", kind="kubernetes", issuer=CLUSTER)
    ways: dict[str, ClientAuthentication] = {
        "federated_jwt": ByFederation(provider=provider, subject=SUBJECT),
        "tls_client_auth": ByCertificate(subject_dn=DN, issuer_dn=AUTHORITY),
    }
    app = replace(caller("chat", "crm"), client_authentication=ways[declared])
    facts = facts_of(**federated)
    facts.apps = (app,)
    results = [each for each in check_authentication(facts) if isinstance(each, Finding)]
    assert len(results) == found
    assert all("says tls_client_auth, and it logs in by federated_jwt" in each.seen for each in results)


# The certificate


def by_certificate(tmp_path: Path, *, hours: float = 24 * 30) -> dict[str, Any]:
    file = issue(make_authority(tmp_path / "ca"), tmp_path, "chat", hours=hours)
    return {
        "client_auth": "tls_client_auth",
        "client_cert_file": file,
        "client_cert_key_file": file.with_suffix(".key"),
    }


def with_certificate(**changes: str) -> FakeKeycloak:
    realm = FakeKeycloak()
    names = {
        "x509.subjectdn": "subject",
        "x509.casubjectdn": "authority",
        "x509.allow.regex.pattern.comparison": "regex",
    }
    attributes = {name: changes.get(key, EXACT[name]) for name, key in names.items()}
    realm.add_client(
        clientId="chat",
        serviceAccountsEnabled=True,
        fullScopeAllowed=False,
        clientAuthenticatorType="client-x509",
        attributes={name: value for name, value in attributes.items() if value},
    )
    return realm


def test_a_certificate_that_keycloak_expects_is_fine(tmp_path: Path) -> None:
    facts = facts_of(with_certificate(), now=time.time(), **by_certificate(tmp_path))
    assert facts.proves_itself
    (seen,) = check_secret(facts)
    assert isinstance(seen, Seen)
    assert f"The certificate of {DN}" in seen.text.replace('"', "")
    assert text(check_authentication(facts)) == ""
    assert text(check_client(facts)) == ""


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"subject": ""}, "names no certificate (x509.subjectdn)"),
        ({"regex": ""}, "compares the Subject DN of chat as a regular expression"),
        ({"regex": "true"}, "compares the Subject DN of chat as a regular expression"),
        ({"authority": ""}, "names no authority (x509.casubjectdn)"),
        ({"subject": "O=Acme,OU=svc,CN=chat"}, "has the order of openssl"),
        ({"subject": "CN=mail,OU=svc,O=Acme"}, "and the certificate of this service has"),
        ({"authority": "CN=Another CA"}, "Certificate Authority subject DN of the client chat is"),
    ],
    ids=["none", "absent", "on", "authority", "order", "another", "other authority"],
)
def test_each_trap_of_a_distinguished_name_is_found_with_its_field(
    changes: dict[str, str], problem: str, tmp_path: Path
) -> None:
    facts = facts_of(with_certificate(**changes), now=time.time(), **by_certificate(tmp_path))
    results = list(check_authentication(facts))
    assert len(results) == 1
    assert problem in text(results)
    assert "Clients, chat, Credentials, " in text(results)


@pytest.mark.parametrize("subject", ["O=.*,CN=chat", "CN=.*,OU=svc,O=Acme"], ids=["order", "wildcard"])
def test_a_subject_that_is_meant_as_a_regular_expression_is_not_compared_as_a_name(
    subject: str, tmp_path: Path
) -> None:
    facts = facts_of(with_certificate(subject=subject, regex="true"), now=time.time(), **by_certificate(tmp_path))
    (found,) = check_authentication(facts)
    assert "as a regular expression" in text([found])


@pytest.mark.parametrize(("version", "found"), [("26.0.8", 1), ("26.6.3", 1), ("26.7.0", 0), ("27.0.0", 0)])
def test_a_keycloak_that_does_not_compare_the_authority_is_found(version: str, found: int, tmp_path: Path) -> None:
    facts = facts_of(with_certificate(), now=time.time(), **by_certificate(tmp_path))
    assert isinstance(facts.inspection, Inspection)
    snapshot = replace(facts.inspection.snapshot, version=version)
    facts.inspection = replace(facts.inspection, snapshot=snapshot)
    results = [each for each in check_authentication(facts) if isinstance(each, Finding)]
    assert [each.level for each in results] == ["warning"] * found
    assert all("does not compare who signed the certificate" in each.seen for each in results)


@pytest.mark.parametrize("name", ["cn=chat, ou=svc, o=Acme", "CN=chat , OU=svc,O=Acme", 'CN=ch\\61t,OU=svc,O="Acme"'])
def test_blanks_and_the_case_of_keys_make_no_difference(name: str, tmp_path: Path) -> None:
    facts = facts_of(with_certificate(subject=name), now=time.time(), **by_certificate(tmp_path))
    assert text(check_authentication(facts)) == ""


@pytest.mark.parametrize(
    ("hours", "level", "problem"),
    [(-1, "problem", "expired on"), (24 * 13, "warning", "expires on")],
    ids=["expired", "soon"],
)
def test_a_certificate_that_ends_is_found_with_its_day(hours: float, level: str, problem: str, tmp_path: Path) -> None:
    (found,) = check_secret(facts_of(now=time.time(), **by_certificate(tmp_path, hours=hours)))
    assert isinstance(found, Finding)
    assert (found.level, problem in found.seen) == (level, True)


def test_a_certificate_that_is_not_valid_yet_is_found_with_its_day(tmp_path: Path) -> None:
    settings = by_certificate(tmp_path)
    (found,) = check_secret(facts_of(now=time.time() - 49 * 3600, **settings))
    assert isinstance(found, Finding)
    assert (found.level, "is valid only from" in found.seen) == ("problem", True)


def test_a_key_of_another_certificate_is_found_and_not_shown(tmp_path: Path) -> None:
    settings = by_certificate(tmp_path)
    other = issue(tmp_path / "ca" / "ca.pem", tmp_path / "other", "chat").with_suffix(".key")
    settings["client_cert_key_file"].write_bytes(other.read_bytes())
    (found,) = check_secret(facts_of(now=time.time(), **settings))
    assert isinstance(found, Finding)
    assert "does not belong to the certificate" in found.seen
    assert found.seen.endswith(".")
    assert not found.seen.endswith("..")
    assert "PRIVATE KEY" not in repr(found)


def test_a_key_that_others_can_read_is_found_and_a_certificate_alone_is_public(tmp_path: Path) -> None:
    settings = by_certificate(tmp_path)
    settings["client_cert_file"].chmod(0o644)
    settings["client_cert_key_file"].chmod(0o644)
    found = text(check_files(facts_of(**settings)))
    assert "KEYCLOAK_CLIENT_CERT_KEY_FILE" in found
    assert "KEYCLOAK_CLIENT_CERT_FILE:" not in found
    together = issue(tmp_path / "ca" / "ca.pem", tmp_path / "both", "chat", together=True)
    together.chmod(0o644)
    found = text(check_files(facts_of(client_auth="tls_client_auth", client_cert_file=together)))
    assert "KEYCLOAK_CLIENT_CERT_FILE:" in found


def test_a_client_that_gets_certificate_bound_tokens_is_right_for_a_service_with_a_certificate(tmp_path: Path) -> None:
    realm = with_certificate()
    realm.client("chat")["attributes"]["tls.client.certificate.bound.access.tokens"] = "true"
    assert text(check_client(facts_of(realm, **by_certificate(tmp_path)))) == ""
    found = text(check_client(facts_of(realm, client_secret="of-the-service")))
    assert "needs a client certificate" in found
