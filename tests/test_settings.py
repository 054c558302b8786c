"""One environment, one value: what is derived from it, and the one sentence for each thing that is wrong with it."""

import copy
import json
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import AliasChoices, Field, SecretStr, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.keycloak.endpoints import Endpoints, PublicEndpoints
from s2s_fastapi.settings import KeycloakSettings

SECRET = "hunter2-in-no-message"
BASE = {"url": "https://sso.example.com", "realm": "corp"}
NOT_A_URL = "must be an absolute http or https URL such as https://sso.example.com"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("KEYCLOAK_"):
            monkeypatch.delenv(name)


def built(**values: Any) -> KeycloakSettings:
    """Return settings with these values; an audience that is text stands in the environment, where it may be a list."""
    if not isinstance(values.get("audience"), str):
        return KeycloakSettings(**values)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in values.items():
            environment.setenv(f"KEYCLOAK_{name.upper()}", str(value))
        return KeycloakSettings()


def made(**values: Any) -> KeycloakSettings:
    return built(**{**BASE, **values})


def refused(**values: Any) -> str:
    """Return the sentence, after seeing that nothing hangs on the error that could show what was given."""
    with pytest.raises(ConfigurationError) as caught:
        built(**values)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    assert str(error).endswith(".")
    assert "\n" not in str(error)
    return str(error)


# Derived

TABLE = [
    pytest.param(BASE, "https://sso.example.com/realms/corp", "https://sso.example.com", id="url and realm"),
    pytest.param(
        {**BASE, "url": "https://sso.example.com/"},
        "https://sso.example.com/realms/corp",
        "https://sso.example.com",
        id="a slash at the end",
    ),
    pytest.param({**BASE, "url": "http://kc:8080"}, "http://kc:8080/realms/corp", "http://kc:8080", id="a port"),
    pytest.param({**BASE, "url": "http://[::1]:8080"}, "http://[::1]:8080/realms/corp", "http://[::1]:8080", id="IPv6"),
    pytest.param(
        {**BASE, "auth_path": "/auth"},
        "https://sso.example.com/auth/realms/corp",
        "https://sso.example.com/auth",
        id="auth path",
    ),
    pytest.param(
        {**BASE, "auth_path": "/auth/"},
        "https://sso.example.com/auth/realms/corp",
        "https://sso.example.com/auth",
        id="auth path with a slash",
    ),
    pytest.param(
        {**BASE, "auth_path": ""},
        "https://sso.example.com/realms/corp",
        "https://sso.example.com",
        id="empty auth path",
    ),
    pytest.param(
        {**BASE, "auth_path": "/"}, "https://sso.example.com/realms/corp", "https://sso.example.com", id="auth path /"
    ),
    pytest.param(
        {**BASE, "url": "https://sso.example.com/auth"},
        "https://sso.example.com/auth/realms/corp",
        "https://sso.example.com/auth",
        id="auth path in the URL",
    ),
    pytest.param(
        {"url": "http://keycloak:8080", "public_url": "https://sso.example.com/", "realm": "corp"},
        "https://sso.example.com/realms/corp",
        "http://keycloak:8080",
        id="public url",
    ),
    pytest.param(
        {"url": "http://keycloak:8080", "public_url": "https://sso.example.com", "auth_path": "/auth", "realm": "corp"},
        "https://sso.example.com/auth/realms/corp",
        "http://keycloak:8080/auth",
        id="public url and auth path",
    ),
    pytest.param(
        {"issuer": "https://sso.example.com/realms/corp"},
        "https://sso.example.com/realms/corp",
        "https://sso.example.com",
        id="issuer alone",
    ),
    pytest.param(
        {"issuer": "https://sso.example.com/auth/realms/corp"},
        "https://sso.example.com/auth/realms/corp",
        "https://sso.example.com/auth",
        id="issuer alone with /auth",
    ),
    pytest.param(
        {"issuer": "https://sso.example.com/auth/realms/corp", "auth_path": "/auth"},
        "https://sso.example.com/auth/realms/corp",
        "https://sso.example.com/auth",
        id="issuer alone and auth path",
    ),
    pytest.param(
        {"issuer": "https://sso.example.com/realms/corp", "realm": "corp"},
        "https://sso.example.com/realms/corp",
        "https://sso.example.com",
        id="issuer and its realm",
    ),
    pytest.param(
        {"issuer": "https://sso.example.com/realms/corp", "url": "http://keycloak:8080"},
        "https://sso.example.com/realms/corp",
        "http://keycloak:8080",
        id="issuer and url",
    ),
    pytest.param(
        {"issuer": "https://sso.example.com/realms/corp", "url": "http://keycloak:8080", "auth_path": "/auth"},
        "https://sso.example.com/realms/corp",
        "http://keycloak:8080/auth",
        id="issuer, url and auth path",
    ),
    pytest.param(
        {"issuer": "https://sso.example.com/oidc/", "url": "http://keycloak:8080", "realm": "corp"},
        "https://sso.example.com/oidc/",
        "http://keycloak:8080",
        id="an issuer of another form",
    ),
    pytest.param(
        {
            "issuer": "https://sso.example.com/realms/corp",
            "public_url": "https://other.example",
            "url": "http://keycloak:8080",
        },
        "https://sso.example.com/realms/corp",
        "http://keycloak:8080",
        id="issuer wins over the public url",
    ),
]


@pytest.mark.parametrize(("values", "issuer", "server"), TABLE)
def test_issuer_and_server_follow_from_what_is_given(values: dict[str, Any], issuer: str, server: str) -> None:
    settings = KeycloakSettings(**values)
    assert (settings.issuer, settings.server, settings.realm) == (issuer, server, "corp")
    realm = f"{server}/realms/corp"
    connect = f"{realm}/protocol/openid-connect"
    assert Endpoints.of(settings) == Endpoints(realm=realm, jwks=f"{connect}/certs", token=f"{connect}/token")


@pytest.mark.parametrize(
    ("realm", "written"),
    [
        ("my realm", "my%20realm"),
        ("\u043c\u0438\u0440", "%D0%BC%D0%B8%D1%80"),
        ("a%2Fb", "a%252Fb"),
        ("a.b", "a.b"),
        ("a&b", "a&b"),
        ("it's", "it's"),
        ("a(b)!", "a(b)!"),
        ("a+b=c,d", "a+b=c,d"),
        ("a*$b", "a*$b"),
        ("a@b:c", "a@b:c"),
        ('a"b<c>', "a%22b%3Cc%3E"),
    ],
)
def test_a_realm_is_one_segment_of_the_issuer_as_keycloak_writes_it(realm: str, written: str) -> None:
    settings = made(realm=realm)
    assert settings.issuer == f"https://sso.example.com/realms/{written}"
    assert PublicEndpoints.of(settings).token.startswith(f"{settings.issuer}/")
    # Where it is asked for everything is escaped: Keycloak reads both, and what is in between may not.
    assert Endpoints.of(settings).realm == f"https://sso.example.com/realms/{quote(realm, safe='')}"
    assert KeycloakSettings(issuer=settings.issuer).realm == realm


@pytest.mark.parametrize(
    ("values", "audiences"),
    [
        ({}, set()),
        ({"client_id": "crm"}, {"crm"}),
        ({"client_id": "crm", "audience": "a"}, {"a"}),
        ({"audience": "a,b"}, {"a", "b"}),
        ({"audience": " a , b , a "}, {"a", "b"}),
        ({"audience": "https://crm.example/api"}, {"https://crm.example/api"}),
        ({"audience": ["a", "b"]}, {"a", "b"}),
        ({"audience": ("a",)}, {"a"}),
        ({"audience": {"a"}}, {"a"}),
        ({"client_id": "account", "audience": "crm"}, {"crm"}),
        ({"audience": '["a","b"]'}, {"a", "b"}),
        ({"audience": '["Acme,Inc", "crm"]'}, {"Acme,Inc", "crm"}),
        ({"audience": '["\\u043c,\u0438"]'}, {"\u043c,\u0438"}),
        ({"audience": ["Acme,Inc"]}, {"Acme,Inc"}),
    ],
)
def test_the_audience_is_a_comma_list_or_the_client_id(values: dict[str, Any], audiences: set[str]) -> None:
    assert made(**values).audiences == audiences


@pytest.mark.parametrize("name", ["Acme,Inc", "Acme, Inc", "a,b", '["a"]', "[x]", 'a"b'])
def test_an_audience_that_is_text_in_code_is_one_name(name: str) -> None:
    assert KeycloakSettings(**BASE, audience=name).audiences == {name}
    assert KeycloakSettings.model_validate({**BASE, "audience": name}).audiences == {name}
    assert KeycloakSettings(**BASE, client_id="crm").model_copy(update={"audience": name}).audiences == {name}


@pytest.mark.parametrize(
    ("field", "value", "shown", "why"),
    [
        ("audience", [" a"], "' a'", "it has a blank at one end"),
        ("audience", ["a", ""], "''", "it is empty"),
        ("audience", "a,,b", "''", "it is empty"),
        ("audience", ["a\u200fb"], "'a\\u200fb'", "it has the character U+200F, which cannot be printed"),
        ("audience", '["a", 1]', "1", "it is not text"),
        ("audience", ["x" * 256], "xxx...", "it is longer than 255 characters"),
        ("realm", " a", "", "it has a blank at one end"),
        ("realm", "a/b", "", "it cannot be one segment of a path"),
        ("realm", "a\u2028b", "", "it has the character U+2028, which cannot be printed"),
        ("client_id", "x" * 256, "", "it is longer than 255 characters"),
    ],
)
def test_what_is_no_name_is_shown_with_the_reason(field: str, value: Any, shown: str, why: str) -> None:
    said = refused(**{**BASE, field: value})
    assert said.endswith(f"{shown}{' is not one' if shown else ''}: {why}.")
    assert len(said) < 250


def test_the_defaults_are_those_of_the_design() -> None:
    settings = made()
    assert (settings.leeway, settings.client_auth, settings.auth_path) == (30.0, "client_secret_basic", "")
    assert settings.client_secret is None
    assert settings.ca_file is None


@pytest.mark.parametrize("leeway", [0, 60, "0", "60", 0.5])
def test_the_leeway_lies_between_nothing_and_a_minute(leeway: Any) -> None:
    assert made(leeway=leeway).leeway == float(leeway)


# Wrong


@pytest.mark.parametrize("name", ["url", "public_url", "issuer"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "is set but empty: give a URL or remove it"),
        ("sso.example.com", "it does not start with http"),
        ("/realms/corp", "it does not start with http"),
        ("//sso.example.com", "it does not start with http"),
        ("ftp://sso.example.com", "it does not start with http"),
        ("file:///etc/passwd", "it does not start with http"),
        ("javascript:alert(1)", "it does not start with http"),
        ("https:sso.example.com", "it has no host"),
        ("https://", "it has no host"),
        ("https:///realms/corp", "it has no host"),
        ("https://:8443", "it has no host"),
        ("https://sso.example.com:0", "it has no host"),
        ("https://sso.example.com:99999", "its host or port cannot be read"),
        ("https://sso.example.com:port", "its host or port cannot be read"),
        ("https://[::1", "its host or port cannot be read"),
        (f"https://admin:{SECRET}@sso.example.com", "a user name or password does not belong in it"),
        ("https://admin@sso.example.com", "a user name or password does not belong in it"),
        ("https://@sso.example.com", "a user name or password does not belong in it"),
        (f"https://sso.example.com?token={SECRET}", "a query or fragment does not belong in it"),
        ("https://sso.example.com?", "a query or fragment does not belong in it"),
        ("https://sso.example.com#top", "a query or fragment does not belong in it"),
        ("https://sso.example.com#", "a query or fragment does not belong in it"),
        ("https://sso.example.com//auth", "Keycloak refuses paths with //"),
        ("https://sso.example.com/a/../b", "Keycloak refuses paths with //"),
        ("https://sso.example.com/a;b=c", "Keycloak refuses paths with //"),
        ("https://sso.example.com/a b", "it has a character no URL can have"),
        (" https://sso.example.com", "it has a character no URL can have"),
        ("https://sso.example.com\n", "it has a character no URL can have"),
        ("https://sso.example.com\\@evil.example", "it has a character no URL can have"),
        ("https://sso.\u0435xample.com", "it has a character no URL can have"),
        ('"https://sso.example.com"', "it has a character no URL can have"),
        ("<https://sso.example.com>", "it has a character no URL can have"),
        ("https://sso.example.com/\x7f", "it has a character no URL can have"),
    ],
)
def test_a_url_is_absolute_and_nothing_but_an_address(name: str, value: str, problem: str) -> None:
    sentence = refused(**{**BASE, name: value})
    assert sentence.startswith(f"KEYCLOAK_{name.upper()} ")
    assert problem in sentence
    assert (NOT_A_URL in sentence) is bool(value)
    assert SECRET not in sentence


ACCOUNT = 'cannot be "account": nearly every token of a realm carries'
NAMES = "KEYCLOAK_AUDIENCE must be one or more names"
WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "Set KEYCLOAK_URL and KEYCLOAK_REALM (or KEYCLOAK_ISSUER alone): it is unknown where Keycloak is."),
    ({"realm": "corp"}, "Set KEYCLOAK_URL (or KEYCLOAK_ISSUER alone): it is unknown where Keycloak is."),
    ({"url": BASE["url"]}, "Set KEYCLOAK_REALM: the name of the realm this service belongs to."),
    ({"url": BASE["url"], "issuer": "https://sso.example.com/oidc"}, "Set KEYCLOAK_REALM: "),
    ({"public_url": BASE["url"], "realm": "corp"}, "Set KEYCLOAK_URL (or KEYCLOAK_ISSUER alone)"),
    (
        {"issuer": "https://sso.example.com/oidc"},
        "KEYCLOAK_ISSUER does not end in /realms/NAME: set KEYCLOAK_URL and KEYCLOAK_REALM",
    ),
    ({"issuer": "https://sso.example.com/realms/corp/"}, "KEYCLOAK_ISSUER does not end in /realms/NAME"),
    ({"issuer": "https://sso.example.com/realms/"}, "KEYCLOAK_ISSUER does not end in /realms/NAME"),
    *[
        ({"issuer": f"https://sso.example.com/realms/{segment}"}, "KEYCLOAK_ISSUER does not end in /realms/NAME")
        for segment in ("a/b", "a%2Fb", "%2e%2e", "%2E", "a%5cb", "a%3Fb", "a%23b")
    ],
    (
        {"issuer": "https://x.example/realms/corp", "realm": "other"},
        "KEYCLOAK_REALM is 'other', but KEYCLOAK_ISSUER names the realm 'corp'",
    ),
    (
        {**BASE, "issuer": "https://x.example/realms/Corp"},
        "KEYCLOAK_REALM is 'corp', but KEYCLOAK_ISSUER names the realm 'Corp'",
    ),
    (
        {**BASE, "url": "https://sso.example.com/realms/corp"},
        "KEYCLOAK_URL is the address of the server: leave /realms/... out",
    ),
    ({**BASE, "public_url": "https://sso.example.com/realms"}, "KEYCLOAK_PUBLIC_URL is the address of the server"),
    (
        {**BASE, "url": "https://x.example/auth", "auth_path": "/auth"},
        "KEYCLOAK_URL already ends in /auth: give it there or in KEYCLOAK_AUTH_PATH",
    ),
    (
        {**BASE, "public_url": "https://x.example/auth", "auth_path": "/auth"},
        "KEYCLOAK_PUBLIC_URL already ends in /auth",
    ),
    *[
        ({**BASE, "auth_path": path}, "KEYCLOAK_AUTH_PATH must be a path such as /auth, or empty.")
        for path in (
            "auth",
            "https://x/auth",
            "//auth",
            "/a//b",
            "/../auth",
            "/auth?",
            "/auth#",
            "/auth;x",
            "/auth\\",
            "/a b",
            "/a\nb",
            "/\u00e9",
            "@x",
            ":80/auth",
        )
    ],
    *[
        ({**BASE, "realm": realm}, "KEYCLOAK_REALM must be a name")
        for realm in (
            "a/b",
            "/corp",
            "corp/",
            "..",
            ".",
            "a\\b",
            "a?b",
            "a#b",
            " corp",
            "corp ",
            "corp\n",
            "a\x00b",
            "a\u2028b",
            " ",
        )
    ],
    ({**BASE, "realm": ""}, "KEYCLOAK_REALM is set but empty."),
    ({**BASE, "client_id": ""}, "KEYCLOAK_CLIENT_ID is set but empty."),
    ({**BASE, "client_id": " crm"}, "KEYCLOAK_CLIENT_ID must be a name"),
    ({**BASE, "client_id": "crm\n"}, "KEYCLOAK_CLIENT_ID must be a name"),
    ({**BASE, "client_id": "account"}, f"KEYCLOAK_CLIENT_ID {ACCOUNT}"),
    ({**BASE, "audience": "account"}, f"KEYCLOAK_AUDIENCE {ACCOUNT}"),
    ({**BASE, "audience": "crm, account"}, f"KEYCLOAK_AUDIENCE {ACCOUNT}"),
    ({**BASE, "client_id": "crm", "audience": ["account"]}, f"KEYCLOAK_AUDIENCE {ACCOUNT}"),
    *[
        ({**BASE, "audience": audience}, NAMES)
        for audience in (
            *(
                "",
                " ",
                ",",
                "a,",
                ",a",
                "a,,b",
                "a\tb",
                "a\nb",
                '"a","b"',
                "[crm]",
                '["a"',
                "[]",
                '[""]',
                "[1]",
                '[["a"]]',
                '["a", null]',
                "[" * 9999,
            ),
            *(
                (),
                [],
                [""],
                ["a", ""],
                [" "],
                [" a"],
                ["a\x00"],
                [1],
                [None],
                [["a"]],
                None,
                5,
                True,
                {},
                {"a": 1},
                b"a",
                object(),
            ),
        )
    ],
    ({**BASE, "client_secret": SECRET}, "Set KEYCLOAK_CLIENT_ID: there is a client secret, but no client."),
    (
        {**BASE, "client_secret_file": "/run/secrets/crm"},
        "Set KEYCLOAK_CLIENT_ID: there is a client secret, but no client.",
    ),
    ({**BASE, "client_id": "crm", "client_secret": ""}, "KEYCLOAK_CLIENT_SECRET is set but empty."),
    ({**BASE, "client_id": "crm", "client_secret_file": ""}, "KEYCLOAK_CLIENT_SECRET_FILE is set but empty."),
    ({**BASE, "ca_file": ""}, "KEYCLOAK_CA_FILE is set but empty."),
    (
        {**BASE, "client_id": "crm", "client_secret": SECRET, "client_secret_file": "/run/secrets/crm"},
        "KEYCLOAK_CLIENT_SECRET and KEYCLOAK_CLIENT_SECRET_FILE are both set: keep one.",
    ),
    ({**BASE, "client_id": "crm", "client_secret": [SECRET]}, "KEYCLOAK_CLIENT_SECRET: "),
    ({**BASE, "client_id": "crm", "client_secret": SECRET.encode() + b"\xff"}, "KEYCLOAK_CLIENT_SECRET: "),
    ({**BASE, "client_id": "crm", "client_secret": {"value": SECRET}}, "KEYCLOAK_CLIENT_SECRET: "),
    ({**BASE, "client_key_file": "/run/key"}, "Set KEYCLOAK_CLIENT_ID: there is a key of a client, but no client."),
    ({**BASE, "client_id": "crm", "client_key_file": ""}, "KEYCLOAK_CLIENT_KEY_FILE is set but empty."),
    (
        {**BASE, "client_id": "crm", "client_key_file": "/run/key"},
        "Set KEYCLOAK_CLIENT_AUTH=private_key_jwt: KEYCLOAK_CLIENT_KEY_FILE is used by nothing else.",
    ),
    (
        {**BASE, "client_id": "crm", "client_auth": "private_key_jwt"},
        "Set KEYCLOAK_CLIENT_KEY_FILE: KEYCLOAK_CLIENT_AUTH is private_key_jwt, which signs with the key there.",
    ),
    *[
        (
            {**BASE, "client_id": "crm", "client_auth": "private_key_jwt", "client_key_file": "/run/key", **secret},
            "KEYCLOAK_CLIENT_AUTH is private_key_jwt, and there is a client secret: remove the one that is not meant.",
        )
        for secret in ({"client_secret": SECRET}, {"client_secret_file": "/run/secrets/crm"})
    ],
    (
        {**BASE, "client_assertion_file": "/run/t"},
        "Set KEYCLOAK_CLIENT_ID: there is a token that proves a client, but no client.",
    ),
    (
        {**BASE, "client_cert_file": "/run/c"},
        "Set KEYCLOAK_CLIENT_ID: there is a certificate of a client, but no client.",
    ),
    *[
        ({**BASE, "client_id": "crm", name: ""}, f"KEYCLOAK_{name.upper()} is set but empty.")
        for name in ("client_assertion_file", "client_cert_file", "client_cert_key_file")
    ],
    (
        {**BASE, "client_id": "crm", "client_assertion_file": "/run/t"},
        "Set KEYCLOAK_CLIENT_AUTH=federated_jwt: KEYCLOAK_CLIENT_ASSERTION_FILE is used by nothing else.",
    ),
    (
        {**BASE, "client_id": "crm", "client_auth": "federated_jwt"},
        "Set KEYCLOAK_CLIENT_ASSERTION_FILE: KEYCLOAK_CLIENT_AUTH is federated_jwt, which sends the token there.",
    ),
    (
        {**BASE, "client_id": "crm", "client_auth": "tls_client_auth"},
        "Set KEYCLOAK_CLIENT_CERT_FILE: KEYCLOAK_CLIENT_AUTH is tls_client_auth, which shows the certificate there.",
    ),
    (
        {**BASE, "client_id": "crm", "client_cert_key_file": "/run/k"},
        "Set KEYCLOAK_CLIENT_CERT_FILE: KEYCLOAK_CLIENT_CERT_KEY_FILE is only the key of a certificate.",
    ),
    *[
        (
            {**BASE, "client_id": "crm", "client_auth": method, needed: "/run/x", **secret},
            f"KEYCLOAK_CLIENT_AUTH is {method}, and there is a client secret: remove the one that is not meant.",
        )
        for method, needed in (("federated_jwt", "client_assertion_file"), ("tls_client_auth", "client_cert_file"))
        for secret in ({"client_secret": SECRET}, {"client_secret_file": "/run/secrets/crm"})
    ],
    *[
        (
            {**BASE, "client_id": "crm", "client_auth": method, needed: "/run/x", other: "/run/y"},
            f"KEYCLOAK_CLIENT_AUTH is {method}, and KEYCLOAK_{other.upper()} is for {its}: remove the one that is not meant.",
        )
        for method, needed, other, its in (
            ("private_key_jwt", "client_key_file", "client_assertion_file", "federated_jwt"),
            ("federated_jwt", "client_assertion_file", "client_key_file", "private_key_jwt"),
            ("tls_client_auth", "client_cert_file", "client_key_file", "private_key_jwt"),
            ("tls_client_auth", "client_cert_file", "client_assertion_file", "federated_jwt"),
        )
    ],
    (
        {
            "url": "http://sso.example.com",
            "realm": "corp",
            "client_id": "crm",
            "client_auth": "tls_client_auth",
            "client_cert_file": "/c",
        },
        "KEYCLOAK_URL is http, and KEYCLOAK_CLIENT_AUTH is tls_client_auth: a certificate is shown only over TLS. Give an https URL.",
    ),
    (
        {
            "issuer": "http://sso.example.com/realms/corp",
            "client_id": "crm",
            "client_auth": "tls_client_auth",
            "client_cert_file": "/c",
        },
        "KEYCLOAK_ISSUER is http, and KEYCLOAK_CLIENT_AUTH is tls_client_auth: a certificate is shown only over TLS. Give an https URL.",
    ),
    ({**BASE, "client_auth": "none"}, "KEYCLOAK_CLIENT_AUTH: "),
    ({**BASE, "client_auth": "CLIENT_SECRET_BASIC"}, "KEYCLOAK_CLIENT_AUTH: "),
    *[
        ({**BASE, "leeway": leeway}, "KEYCLOAK_LEEWAY: ")
        for leeway in (-0.001, 60.001, "61", "-1", "nan", "inf", "-inf", "1m", "", None, [30], float("nan"))
    ],
    ({**BASE, "client_secrt": SECRET}, "There is no setting 'client_secrt'."),
    ({**BASE, "secret": SECRET}, "There is no setting 'secret'."),
    ({**BASE, "insecure_skip_audience": True}, "There is no setting 'insecure_skip_audience'."),
    ({**BASE, "url": 5}, "KEYCLOAK_URL: "),
    ({**BASE, "issuer": None}, "KEYCLOAK_ISSUER: "),
]


@pytest.mark.parametrize(("values", "sentence"), WRONG, ids=[repr(values)[:70] for values, _ in WRONG])
def test_each_wrong_value_is_one_sentence_that_names_the_variable(values: dict[str, Any], sentence: str) -> None:
    said = refused(**values)
    assert said.startswith(sentence)
    assert SECRET not in said


def test_all_wrong_values_are_named_together() -> None:
    said = refused(url="nowhere", realm="a/b", audience="account", leeway=99)
    for name in ("KEYCLOAK_URL", "KEYCLOAK_REALM", "KEYCLOAK_AUDIENCE", "KEYCLOAK_LEEWAY"):
        assert name in said


# The environment


def test_every_field_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "URL": "http://keycloak:8080",
        "PUBLIC_URL": "https://sso.example.com",
        "AUTH_PATH": "/auth",
        "REALM": "corp",
        "ISSUER": "https://sso.example.com/auth/realms/corp",
        "CLIENT_ID": "crm",
        "CLIENT_SECRET": SECRET,
        "CLIENT_AUTH": "client_secret_post",
        "AUDIENCE": "a, b",
        "CA_FILE": "/etc/ca.pem",
        "PROXY": "http://proxy:3128",
        "LEEWAY": "7.5",
        "SOMETHING_ELSE": "is somebody else's",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"KEYCLOAK_{name}", value)
    settings = KeycloakSettings()
    assert (settings.url, settings.public_url, settings.auth_path) == (
        "http://keycloak:8080",
        "https://sso.example.com",
        "/auth",
    )
    assert (settings.realm, settings.client_id, settings.client_auth) == ("corp", "crm", "client_secret_post")
    assert (settings.audience, settings.ca_file, settings.leeway) == (("a", "b"), Path("/etc/ca.pem"), 7.5)
    assert settings.secret() == SECRET
    assert settings.issuer == given["ISSUER"]


def test_an_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYCLOAK_URL", "https://environment.example")
    monkeypatch.setenv("KEYCLOAK_REALM", "environment")
    monkeypatch.setenv("KEYCLOAK_LEEWAY", "99")
    settings = KeycloakSettings(client_id="argument", leeway=5)
    assert (settings.url, settings.realm) == ("https://environment.example", "environment")
    assert (settings.client_id, settings.leeway) == ("argument", 5)


CORP = {
    "URL": "http://keycloak:8080",
    "PUBLIC_URL": "https://sso.corp.example",
    "AUTH_PATH": "/auth",
    "REALM": "corp",
    "ISSUER": "https://sso.corp.example/auth/realms/corp",
    "CLIENT_ID": "crm",
    "CLIENT_SECRET": SECRET,
    "AUDIENCE": "crm,crm-api",
    "CA_FILE": "/etc/corp.pem",
    "PROXY": "http://proxy.corp.example:3128",
    "LEEWAY": "7",
}


@pytest.fixture
def corp(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CORP.items():
        monkeypatch.setenv(f"KEYCLOAK_{name}", value)


class Partner(KeycloakSettings):
    url: str = "https://sso.partner.example"
    realm: str = "corp"


@pytest.mark.usefixtures("corp")
@pytest.mark.parametrize(
    "make",
    [
        lambda: KeycloakSettings(url="https://sso.partner.example", realm="corp"),
        lambda: KeycloakSettings(issuer="https://sso.partner.example/realms/corp"),
        lambda: KeycloakSettings.model_validate({"url": "https://sso.partner.example", "realm": "corp"}),
        lambda: KeycloakSettings(_env_prefix="KEYCLOAK_", url="https://sso.partner.example", realm="corp"),
        lambda: KeycloakSettings().model_copy(update={"url": "https://sso.partner.example", "realm": "corp"}),
        Partner,
    ],
    ids=["url and realm", "issuer", "validated", "with a prefix", "a copy", "defaults of a subclass"],
)
def test_settings_that_name_a_realm_in_code_take_nothing_from_the_environment(
    make: Callable[[], KeycloakSettings],
) -> None:
    partner = make()
    assert (partner.issuer, partner.server) == (
        "https://sso.partner.example/realms/corp",
        "https://sso.partner.example",
    )
    assert (partner.client_id, partner.client_secret, partner.ca_file, partner.proxy) == ("", None, None, None)
    assert (partner.audiences, partner.leeway) == (frozenset(), 30.0)
    with pytest.raises(
        ConfigurationError, match="nothing is taken from the environment: set the other values in code too"
    ):
        partner.secret()


PARTNER: dict[str, Any] = {"url": "https://sso.partner.example", "realm": "corp"}


class ByFactory(KeycloakSettings):
    url: str = Field(default_factory=lambda: PARTNER["url"])


class BeforeAll(KeycloakSettings):
    @model_validator(mode="before")
    @classmethod
    def elsewhere(cls, values: Any) -> Any:
        return {**values, **PARTNER}


class AroundAll(KeycloakSettings):
    @model_validator(mode="wrap")
    @classmethod
    def elsewhere(cls, values: Any, handler: Any) -> Any:
        values.update(PARTNER)
        return handler(values)


class OfAField(KeycloakSettings):
    @field_validator("url", mode="before")
    @classmethod
    def elsewhere(cls, value: Any) -> Any:
        return PARTNER["url"] or value


class OwnSources(KeycloakSettings):
    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, *sources: Any, **named: Any) -> Any:
        return (*sources, *named.values())


class AnotherName(OwnSources):
    model_config = SettingsConfigDict(populate_by_name=True)

    url: str = Field(default="", validation_alias=AliasChoices("url", "PARTNER_URL"))


@pytest.mark.usefixtures("corp")
@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")
@pytest.mark.parametrize(
    "make",
    [
        BeforeAll,
        AroundAll,
        OfAField,
        ByFactory,
        lambda: OwnSources(**PARTNER),
        lambda: OwnSources(issuer="https://sso.partner.example/realms/corp"),
        lambda: AnotherName.model_validate({"PARTNER_URL": PARTNER["url"]}),
        lambda: KeycloakSettings().copy(update={"url": PARTNER["url"]}),
    ],
    ids=["before", "wrap", "field", "factory", "own sources", "issuer", "alias", "copy"],
)
def test_no_secret_of_the_environment_goes_with_a_realm_that_code_names_in_any_way(
    make: Callable[[], KeycloakSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ISSUER", "PUBLIC_URL", "AUTH_PATH"):
        monkeypatch.delenv(f"KEYCLOAK_{name}")
    with pytest.raises(
        ConfigurationError, match="nothing is taken from the environment: set the other values in code too"
    ) as caught:
        make()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.usefixtures("corp")
@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")
def test_what_code_names_as_a_whole_or_takes_from_one_place_as_a_whole_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ISSUER", "PUBLIC_URL", "AUTH_PATH"):
        monkeypatch.delenv(f"KEYCLOAK_{name}")
    given = OwnSources(**PARTNER, client_id="crm", client_secret=SecretStr("given"))
    assert (given.server, given.secret()) == (PARTNER["url"], "given")
    monkeypatch.setenv("KEYCLOAK_URL", "HTTP://keycloak:8080/")
    assert OwnSources().secret() == SECRET
    assert KeycloakSettings().copy(update={"leeway": 5}).leeway == 5
    assert KeycloakSettings().copy() == KeycloakSettings()
    partner = KeycloakSettings().copy(update=PARTNER)
    assert (partner.server, partner.client_secret) == (PARTNER["url"], None)
    with pytest.raises(ConfigurationError, match="copied as a whole"):
        KeycloakSettings().copy(include={"url"})
    with pytest.raises(ConfigurationError, match="copied as a whole"):
        KeycloakSettings().copy(exclude={"client_secret"})


@pytest.mark.usefixtures("corp")
@pytest.mark.parametrize("name", ["url", "realm", "issuer"])
def test_a_subclass_that_makes_a_place_required_reads_it_from_the_environment(name: str) -> None:
    required = type("Required", (KeycloakSettings,), {"__annotations__": {name: str}, "__module__": __name__})
    assert getattr(required(), name) == CORP[name.upper()]
    assert required().secret() == SECRET


@pytest.mark.usefixtures("corp")
@pytest.mark.parametrize(
    "values",
    [
        {"realm": "partners"},
        {"url": "https://sso.partner.example"},
        {"url": "https://sso.partner.example", "realm": "corp", "client_secret": "given"},
    ],
)
def test_what_is_then_missing_is_not_said_to_be_missing_in_the_environment(values: dict[str, Any]) -> None:
    said = refused(**values)
    assert said.endswith(
        "If code sets url, issuer or realm, nothing is taken from the environment: set the other values in code too."
    )
    with pytest.raises(ConfigurationError) as caught:
        KeycloakSettings().model_copy(update=values)
    assert str(caught.value) == said


@pytest.mark.usefixtures("corp")
def test_a_second_realm_is_read_from_variables_with_a_prefix_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KeycloakSettings.from_environment() == KeycloakSettings()
    wrong: Any
    for wrong in ("", "PARTNERS", "1_", "A-B_", 5, None, " A_"):
        with pytest.raises(ConfigurationError, match="prefix= must end with an underscore"):
            KeycloakSettings.from_environment(prefix=wrong)
    with pytest.raises(ConfigurationError, match=r"^Set PARTNERS_URL and PARTNERS_REALM"):
        KeycloakSettings.from_environment(prefix="PARTNERS_")
    monkeypatch.setenv("PARTNERS_ISSUER", "https://sso.partner.example/realms/partners")
    partner = KeycloakSettings.from_environment(prefix="PARTNERS_")
    assert (partner.server, partner.realm, partner.client_id) == ("https://sso.partner.example", "partners", "")
    assert partner.client_secret is None
    with pytest.raises(ConfigurationError, match=r"^Set PARTNERS_CLIENT_SECRET or PARTNERS_CLIENT_SECRET_FILE"):
        partner.secret()
    monkeypatch.setenv("PARTNERS_LEEWAY", "soon")
    with pytest.raises(ConfigurationError, match=r"^PARTNERS_LEEWAY: "):
        KeycloakSettings.from_environment(prefix="partners_")


def test_a_copy_names_the_same_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTNERS_ISSUER", "https://sso.partner.example/realms/partners")
    monkeypatch.setenv("PARTNERS_CLIENT_ID", "crm")
    monkeypatch.setenv("PARTNERS_CLIENT_SECRET_FILE", "/nowhere")
    partner = KeycloakSettings.from_environment(prefix="PARTNERS_")
    for twin in (
        partner,
        partner.model_copy(),
        partner.model_copy(deep=True),
        partner.model_copy(update={"leeway": 1}),
    ):
        assert twin.worded("KEYCLOAK_URL") == "PARTNERS_URL"
        assert twin.missing("Set KEYCLOAK_URL.") == "Set PARTNERS_URL."
        with pytest.raises(ConfigurationError, match=r"^PARTNERS_CLIENT_SECRET_FILE: "):
            twin.secret()
    with pytest.raises(ConfigurationError, match=r"^PARTNERS_LEEWAY: "):
        partner.model_copy(update={"leeway": 99})
    for code in (KeycloakSettings(**BASE), partner.model_copy(update=BASE)):
        for twin in (code, code.model_copy(update={"leeway": 1})):
            assert "nothing is taken from the environment" in twin.missing("Set KEYCLOAK_URL.")
    assert partner == partner.model_copy(update={"leeway": partner.leeway})


def warnings_of(caplog: pytest.LogCaptureFixture, audience: Any) -> list[str]:
    caplog.clear()
    made(audience=audience)
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_space_beside_a_comma_of_the_audience_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    for text, parts in [("Acme, Inc1", "'Acme', 'Inc1'"), ("a ,b1", "'a', 'b1'"), ("a,\tb2", "'a', 'b2'")]:
        said = warnings_of(caplog, text)
        assert len(said) == 1
        assert f"read as several names: {parts}." in said[0]
        assert json.dumps([text]) in said[0]
        assert warnings_of(caplog, text) == []
    for right in ("a,b", "Acme", " Acme", "Acme ", '["Acme,Inc", "b"]', ["a", "b"]):
        assert warnings_of(caplog, right) == []


PROXY = "must be the URL of an http or https proxy such as http://proxy.example.com:3128"


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://proxy:3128/", "http://proxy:3128/"),
        ("https://proxy", "https://proxy"),
        (f"http://user:{SECRET}@proxy:3128", "http://proxy:3128"),
        (f"http://{SECRET}@proxy:3128", "http://proxy:3128"),
        (f"http://user:{SECRET}%40%2F@[::1]:3128", "http://[::1]:3128"),
    ],
)
def test_a_proxy_is_shown_without_user_name_and_password(proxy: str, shown: str) -> None:
    settings = made(proxy=proxy)
    assert settings.proxy is not None
    assert settings.proxy.get_secret_value() == proxy
    assert str(settings.proxy) == shown
    for text in (
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        repr(settings.model_dump()),
        repr(vars(settings)),
    ):
        assert shown in text
        assert SECRET not in text
    assert hash(settings) == hash(made(proxy=proxy))
    if "@" in proxy:
        with pytest.raises(TypeError, match="the password of a proxy"):
            pickle.dumps(settings)
    else:
        assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - our own


@pytest.mark.parametrize(
    "proxy",
    [
        "proxy:3128",
        "socks5://proxy:1080",
        f"http://user:{SECRET}/x@proxy:3128",  # parsers take user for the host
        f"http://user:{SECRET}@x@proxy:3128",
        f"http://user:{SECRET}#@proxy:3128",
        f"http://user:{SECRET}%zz@proxy:3128",
        "http://proxy:3128/path",
        "http://",
        "http://proxy:0",
        "http://proxy:3128?x",
        "http://pro xy",
        f"http://user:{SECRET}\n@proxy",
    ],
)
def test_what_is_no_url_of_a_proxy_is_refused_and_not_repeated(proxy: str) -> None:
    said = refused(**BASE, proxy=proxy)
    assert said.startswith(f"KEYCLOAK_PROXY {PROXY}: ")
    assert SECRET not in said


@pytest.mark.parametrize(
    "name",
    [
        *("URL", "PUBLIC_URL", "ISSUER", "REALM", "CLIENT_ID", "CLIENT_SECRET", "CLIENT_SECRET_FILE", "CA_FILE"),
        "AUDIENCE",
        "PROXY",
    ],
)
def test_a_variable_that_is_set_but_empty_is_a_mistake_and_not_a_default(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in {"URL": "https://sso.example.com", "REALM": "corp", "CLIENT_ID": "crm", name: ""}.items():
        monkeypatch.setenv(f"KEYCLOAK_{variable}", value)
    assert refused().startswith(f"KEYCLOAK_{name} ")


def test_a_variable_is_named_the_same_whether_it_came_from_the_environment_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {**BASE, "leeway": "soon"}.items():
        monkeypatch.setenv(f"KEYCLOAK_{name.upper()}", value)
    assert refused() == refused(**BASE, leeway="soon")


def test_nothing_insecure_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INSECURE_SKIP_AUDIENCE", "INSECURE_OBSERVE_UNTIL", "INSECURE_ANY_ORIGIN"):
        monkeypatch.setenv(f"KEYCLOAK_{name}", "true")
    assert not [name for name in made().model_dump() if "insecure" in name]


def test_a_dotenv_file_is_the_servers_business(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("KEYCLOAK_URL=https://dotenv.example\nKEYCLOAK_REALM=corp\n")
    monkeypatch.chdir(tmp_path)
    assert refused().startswith("Set KEYCLOAK_URL and KEYCLOAK_REALM")


def test_an_import_reads_no_environment() -> None:
    script = """
import os
import fastapi, httpx, joserfc, pydantic_settings

class Spy(dict):
    seen = []
    def __getitem__(self, name): self.seen.append(name); return super().__getitem__(name)
    def __contains__(self, name): self.seen.append(name); return super().__contains__(name)
    def __iter__(self): self.seen.append("all"); return super().__iter__()

os.environ._data = Spy(os.environ._data)
import s2s_fastapi
print([name for name in Spy.seen if name == "all" or b"KEYCLOAK" in name.upper()])
Spy.seen.clear()
try:
    s2s_fastapi.KeycloakSettings()
except s2s_fastapi.ConfigurationError as error:
    print(bool(Spy.seen), error)
"""
    wrong = {**os.environ, "KEYCLOAK_LEEWAY": "99"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=wrong, check=False)
    assert done.stderr == ""
    assert done.stdout == "[]\nTrue KEYCLOAK_LEEWAY: Input should be less than or equal to 60.\n"


# Secrets


def test_a_secret_is_in_no_repr_dump_or_text() -> None:
    settings = made(client_id="crm", client_secret=SECRET)
    for text in (
        repr(settings),
        str(settings),
        f"{settings}",
        settings.model_dump_json(),
        repr(settings.model_dump()),
        repr(vars(settings)),
    ):
        assert SECRET not in text
    assert settings.secret() == SECRET


@pytest.mark.parametrize(
    "values",
    [
        {**BASE, "client_id": "crm", "client_secret": SECRET, "leeway": 99},
        {**BASE, "client_id": "crm", "client_secret": [SECRET]},
        {**BASE, "client_secret": SECRET},
        {"client_id": "crm", "client_secret": SECRET},
        {**BASE, "client_id": "crm", "client_secret": SECRET, "client_secret_file": "/x"},
        {**BASE, "client_secret_typo": SECRET},
        {**BASE, "url": f"https://a:{SECRET}@b.example"},
    ],
    ids=[
        "another field",
        "of the wrong type",
        "without a client",
        "without a server",
        "with a file",
        "misspelt",
        "in the URL",
    ],
)
@pytest.mark.parametrize("way", ["arguments", "environment"])
def test_a_secret_is_in_no_error_and_in_no_traceback(
    values: dict[str, Any], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = values
    if way == "environment":
        given = {}
        for name, value in values.items():
            monkeypatch.setenv(f"KEYCLOAK_{name.upper()}", str(value))
    try:
        KeycloakSettings(**given)
    except ConfigurationError as error:
        assert SECRET not in "".join(traceback.format_exception(error))  # noqa: PT017 - the frames of this very handler
        assert SECRET not in repr(error) + repr(vars(error))  # noqa: PT017


def test_a_secret_is_in_no_error_of_pydantics_own() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(KeycloakSettings).validate_python([SECRET])
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigurationError) as told:
        KeycloakSettings.model_validate({**BASE, "client_secret": SECRET})
    assert SECRET not in "".join(traceback.format_exception(told.value))


def test_a_secret_file_is_read_each_time_and_without_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    settings = made(client_id="crm", client_secret_file=file)
    for written, read in [
        (f"{SECRET}\n", SECRET),
        ("two\r\n", "two"),
        (" three ", " three "),
        ("fo\u00fcr", "fo\u00fcr"),
        ("a\nb\n\n", "a\nb"),
    ]:
        file.write_bytes(written.encode())
        assert settings.secret() == read
        assert SECRET not in repr(settings) + repr(vars(settings))


NO_SECRETS = [
    (f'"{SECRET}"', "is in quotes: remove them"),
    (f"'{SECRET}'", "is in quotes: remove them"),
    (f"`{SECRET}`", "is in quotes: remove them"),
    (f"\ufeff{SECRET}", "starts with a byte order mark"),
    (f"\xef\xbb\xbf{SECRET}", "starts with a byte order mark"),
    ("${CRM_SECRET}", "is a placeholder that was not replaced"),
    ("${crm.secret:default}", "is a placeholder that was not replaced"),
    ("$${CRM_SECRET}", "is a placeholder that was not replaced"),
    ("$(CRM_SECRET)", "is a placeholder that was not replaced"),
    *[
        (text, "is a placeholder that was not replaced")
        for text in (
            "${A}${B}",
            " ${A} ",
            "${A} $(B)",
            "{{ CRM_SECRET }}",
            "{{CRM_SECRET}}",
            "{{ A }}{{ B }}",
            "\t${A}",
        )
    ],
    ("$(env:CRM_SECRET)", "is a placeholder that was not replaced"),
]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        *NO_SECRETS,
        (f"{SECRET}\n", "ends in a line break: leave it out"),
        (f"{SECRET}\r\n", "ends in a line break: leave it out"),
        (f"{SECRET}\r", "ends in a line break: leave it out"),
        ("\n", "ends in a line break: leave it out"),
    ],
)
def test_what_cannot_be_meant_as_a_secret_is_refused(text: str, problem: str) -> None:
    for value in (text, SecretStr(text)):
        said = refused(**BASE, client_id="crm", client_secret=value)
        assert said.startswith(f"KEYCLOAK_CLIENT_SECRET {problem}")
        assert SECRET not in said


@pytest.mark.parametrize(("text", "problem"), NO_SECRETS)
def test_a_file_holds_no_such_secret_either(text: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    for end in ("", "\n"):
        file.write_text(text + end, encoding="utf-8")
        with pytest.raises(ConfigurationError) as caught:
            made(client_id="crm", client_secret_file=file).secret()
        assert str(caught.value).startswith(f"KEYCLOAK_CLIENT_SECRET_FILE: {file}: the secret in the file {problem}")
        ours = [frame for frame, _ in traceback.walk_tb(caught.tb) if "s2s_fastapi" in frame.f_globals["__name__"]]
        assert ours
        assert SECRET not in repr([frame.f_locals for frame in ours])


@pytest.mark.parametrize(
    "secret",
    [
        "{{a}}b",
        "a{{b}}",
        "{{a}",
        "${A}-${B}",
        '"',
        "it's",
        "'a",
        'a"',
        "$x",
        "${a}b",
        "a${b}",
        "$",
        "{a}",
        " a ",
        "a\nb",
        "\u00e9\ufeff",
    ],
)
def test_an_odd_secret_is_one(secret: str, tmp_path: Path) -> None:
    assert made(client_id="crm", client_secret=secret).secret() == secret
    (tmp_path / "secret").write_text(secret + "\n", encoding="utf-8")
    assert made(client_id="crm", client_secret_file=tmp_path / "secret").secret() == secret


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", ": the secret in the file is empty"),
        (b"\n", ": the secret in the file is empty"),
        (b"\xff\xfe", " cannot be read (not UTF-8 text)"),
        (None, " cannot be read (No such file or directory)"),
    ],
)
def test_a_secret_file_that_gives_no_secret_is_named(content: bytes | None, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    settings = made(client_id="crm", client_secret_file=file)  # at start the file may not be there yet
    with pytest.raises(ConfigurationError) as caught:
        settings.secret()
    assert str(caught.value) == f"KEYCLOAK_CLIENT_SECRET_FILE: {file}{problem}."
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_directory_is_no_secret_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read \(Is a directory\)"):
        made(client_id="crm", client_secret_file=tmp_path).secret()


def test_a_service_that_only_receives_needs_no_secret_and_says_so_where_it_calls() -> None:
    with pytest.raises(ConfigurationError, match="Set KEYCLOAK_CLIENT_SECRET or KEYCLOAK_CLIENT_SECRET_FILE"):
        made(client_id="crm").secret()


@pytest.mark.parametrize("way", ["arguments", "environment"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_settings_that_hold_a_secret_are_not_pickled(way: str, protocol: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {**BASE, "client_id": "crm", "client_secret": SECRET}
    if way == "environment":
        for name, value in values.items():
            monkeypatch.setenv(f"KEYCLOAK_{name.upper()}", value)
        values = {}
    with pytest.raises(
        TypeError, match=r"Settings with a client secret are not pickled.*KEYCLOAK_CLIENT_SECRET_FILE"
    ) as caught:
        pickle.dumps([KeycloakSettings(**values)], protocol)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_settings_without_a_secret_in_them_are_pickled_and_all_are_copied(tmp_path: Path) -> None:
    for settings in (made(client_id="crm"), made(client_id="crm", client_secret_file=tmp_path / "secret")):
        assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - our own
    holding = made(client_id="crm", client_secret=SECRET)
    for twin in (copy.copy(holding), copy.deepcopy(holding), holding.model_copy(), holding.model_copy(deep=True)):
        assert twin == holding
        assert twin.secret() == SECRET
    assert holding.model_copy(update={"leeway": 1.0}).leeway == 1
    assert holding.model_copy(update={"leeway": 1.0}).secret() == SECRET
    with pytest.raises(ConfigurationError, match="KEYCLOAK_LEEWAY"):
        holding.model_copy(update={"leeway": 99})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_proxy_with_a_password_is_not_pickled_by_itself_either(protocol: int) -> None:
    settings = made(proxy=f"http://me:{SECRET}@proxy:3128")
    for held in (settings.proxy, dict(settings), [settings.proxy], settings.model_dump(), vars(settings)):
        with pytest.raises(TypeError, match="The URL of a proxy") as caught:
            pickle.dumps(held, protocol)
        assert SECRET not in str(caught.value)
    for twin in (copy.copy(settings.proxy), copy.deepcopy(settings.proxy), settings.model_copy(deep=True).proxy):
        assert twin == settings.proxy
    plain = made(proxy="http://proxy:3128").proxy
    assert pickle.loads(pickle.dumps(plain, protocol)) == plain  # noqa: S301 - our own


# A value


def test_settings_are_frozen_hashable_and_equal_by_what_they_say() -> None:
    one, same, other = (
        made(client_id="crm", client_secret=secret, audience="a,b") for secret in (SECRET, SECRET, "other")
    )
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    for name in KeycloakSettings.model_fields:
        with pytest.raises(AttributeError, match="frozen") as caught:
            setattr(one, name, SECRET)
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert isinstance(one.audience, tuple)
    assert isinstance(one.audiences, frozenset)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_that_nobody_writes_to_is_refused_and_waited_for_by_nobody(tmp_path: Path) -> None:
    pipe = tmp_path / "secret"
    os.mkfifo(pipe)
    given = KeycloakSettings(url="https://sso.example.com", realm="corp", client_id="crm", client_secret_file=pipe)
    with pytest.raises(ConfigurationError, match="is a pipe"):
        given.secret()


def test_the_name_of_a_realm_is_its_own_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KeycloakSettings(url="https://sso.test", realm="corp").name == "corp"
    assert KeycloakSettings(issuer="https://sso.test/realms/corp").name == "corp"
    assert KeycloakSettings(url="https://sso.test", realm="corp", name="partners").name == "partners"
    for name, value in {"URL": "https://sso.test", "REALM": "corp", "NAME": "partners"}.items():
        monkeypatch.setenv(f"PARTNERS_{name}", value)
    assert KeycloakSettings.from_environment(prefix="PARTNERS_").name == "partners"
    with pytest.raises(ConfigurationError, match="KEYCLOAK_NAME"):
        KeycloakSettings(url="https://sso.test", realm="corp", name="")


def test_an_issuer_at_another_host_than_the_keys_is_refused_unless_both_were_given_together() -> None:
    class Partner(KeycloakSettings):
        url: str = "https://sso.partner.test"
        realm: str = "corp"

    with pytest.raises(ConfigurationError, match="could sign tokens of this issuer"):
        Partner(issuer="https://sso.corp.test/realms/corp")
    together = Partner(url="https://keys.corp.test", issuer="https://sso.corp.test/realms/corp")
    assert together.url == "https://keys.corp.test"
    public = Partner(issuer="https://sso.corp.test/realms/corp", public_url="https://sso.corp.test")
    assert public.issuer == "https://sso.corp.test/realms/corp"
    assert Partner(issuer="https://sso.partner.test/realms/corp").url == "https://sso.partner.test"
