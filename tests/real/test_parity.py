"""The realm model against real servers: every token it computes, claim by claim, and every refusal, word by word.

The realms of the stories are asked for every combination of scopes that a client can ask for. Realms made for the purpose exercise
the rules one by one. And what a server exports is read back: from its own words the model must come to the same answers.
"""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from example_app.realm import REALMS, claims_of, filled
from s2s_fastapi import ConfigurationError
from s2s_fastapi.realm.model import Denied, Granted, RealmModel
from tests.real.server import Keycloak
from tests.realm import realms as made

# What only the issuer knows, and what stands for the caller's address.
_ISSUERS = {"exp", "iat", "jti", "iss", "clientHost", "clientAddress"}
_MADE_UP = "(made up)"
# By how many seconds the server may be off: it reads its clock more than once, and between making and signing a token it may have
# to make a key.
_OFF = {"exp - iat": range(-1, 2), "expires_in": range(-20, 1)}


def _plain(value: Any) -> Any:
    """Return a claim so that order does not count: Keycloak's lists are sets."""
    if isinstance(value, list):
        return sorted((_plain(one) for one in value), key=str)
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value


def _claims(claims: Any) -> dict[str, Any]:
    told = {name: _plain(value) for name, value in claims.items() if name not in _ISSUERS}
    if "aud" in told:
        told["aud"] = sorted([told["aud"]] if isinstance(told["aud"], str) else told["aud"])
    told["scope"] = sorted(told["scope"].split())
    for name, shortest in (
        ("sub", 36),
        ("sid", 24),
    ):  # an id of the server's own making, unless a mapper chose a short one
        if name in told and (not told[name] or len(told[name]) >= shortest):
            told[name] = _MADE_UP
    return told


def _answered(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    if answer.status_code != 200:
        return {"status": answer.status_code, **body}
    token = body["access_token"]
    first = token.split(".")[0]
    header = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    claims = claims_of(token)
    return {
        **{f"claim {name}": value for name, value in _claims(claims).items()},
        "exp - iat": claims["exp"] - claims["iat"],
        "scope": sorted(body["scope"].split()),
        "expires_in": body["expires_in"],
        "token_type": body["token_type"],
        "not-before-policy": body["not-before-policy"],
        "algorithm": header["alg"],
        "header": header["typ"],
        "id_token": "id_token" in body,
        "refresh_token": "refresh_token" in body,
        "session_state": "session_state" in body,
    }


def _foreseen(granted: Granted | Denied) -> dict[str, Any]:
    if isinstance(granted, Denied):
        said = {"error_description": granted.description} if granted.description else {}
        return {"status": granted.status, "error": granted.error, **said}
    return {
        **{f"claim {name}": value for name, value in _claims(granted.claims).items()},
        "exp - iat": granted.lifespan,
        "scope": sorted(granted.scope.split()),
        "expires_in": granted.lifespan,
        "token_type": granted.claims["typ"],
        "not-before-policy": granted.not_before,
        "algorithm": granted.algorithm,
        "header": granted.header_type,
        "id_token": granted.openid,
        "refresh_token": granted.refresh,
        "session_state": granted.claims.get("sid") == "",
    }


@dataclass
class Comparison:
    """One realm of one server beside its model."""

    keycloak: Keycloak
    model: RealmModel
    secret: Callable[[str], str | None]
    http: httpx.Client
    requests: int = 0
    lines: int = 0
    """Claims and members that were compared."""
    unknown: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def client_credentials(self, client_id: str, scope: str | None, *, secret: str | None = None) -> None:
        given = self.secret(client_id) if secret is None else secret
        form = {"grant_type": "client_credentials", "client_id": client_id}
        form |= {} if given is None else {"client_secret": given}
        self._compare(
            f"{client_id} {scope!r}", form, scope, self.model.client_credentials(client_id, given, scope=scope)
        )

    def service_token(self, client_id: str, scope: str | None) -> None:
        """For a document without secrets."""
        form = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": self.secret(client_id) or "",
        }
        self._compare(f"{client_id} {scope!r}, exported", form, scope, self.model.service_token(client_id, scope=scope))

    def login(self, username: str, password: str, via: str, scope: str | None) -> None:
        form = {"grant_type": "password", "client_id": via, "username": username, "password": password}
        secret = self.secret(via)
        form |= {} if secret is None else {"client_secret": secret}
        foreseen = self.model.password(username, via=via, scope=scope)
        self._compare(f"{username} through {via} {scope!r}", form, scope, foreseen)

    def _compare(self, what: str, form: dict[str, str], scope: str | None, foreseen: Granted | Denied) -> None:
        url = f"{self.keycloak.url}{self.keycloak.auth_path}/realms/{self.model.name}/protocol/openid-connect/token"
        real = _answered(self.http.post(url, data=form if scope is None else {**form, "scope": scope}))
        model = _foreseen(foreseen)
        self.requests += 1
        self.lines += len(real.keys() | model.keys())
        if isinstance(foreseen, Granted) and foreseen.unknown:
            self.unknown += foreseen.unknown
            return
        for name in sorted(real.keys() | model.keys()):
            there, here = real.get(name, "(absent)"), model.get(name, "(absent)")
            if there != here and not (isinstance(there, int) and there - here in _OFF.get(name, ())):
                self.differences.append(f"{what}: {name} is {there!r}, and the model says {here!r}")

    def concluded(self, *, requests: int, lines: int) -> None:
        assert not self.differences, "\n".join(self.differences[:50])
        assert not self.unknown
        assert self.requests >= requests
        assert self.lines >= lines


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60, trust_env=False) as client:
        yield client


# The realms of the stories: everything that can be asked.

_LEAST = {"corp": (30, 200), "techstore": (40, 250), "abc": (200, 1300), "workshop": (70, 400), "vault": (30, 30)}


@pytest.mark.parametrize("name", REALMS)
def test_every_client_of_the_stories_gets_the_token_that_the_model_computes(
    every_keycloak: Keycloak, http: httpx.Client, name: str
) -> None:
    document = filled(name, every_keycloak.values)
    secrets = {client["clientId"]: client.get("secret") for client in document["clients"]}
    passwords = {
        user["username"]: user["credentials"][0]["value"] for user in document.get("users", []) if "credentials" in user
    }
    model = RealmModel.read(document, version=every_keycloak.version)
    assertions = {
        one["clientId"] for one in document["clients"] if one.get("clientAuthenticatorType") == "federated-jwt"
    }
    asked = Comparison(every_keycloak, model, secrets.get, http)
    for client_id in secrets:
        defaults = " ".join(model.default_scopes(client_id))
        for scope in (*model.scope_requests(client_id), defaults, f"openid {defaults}", "nope", f"{defaults} nope"):
            asked.client_credentials(client_id, scope)
        asked.client_credentials(client_id, None, secret="wrong")
        if client_id in assertions:
            continue  # a login needs its assertion, too
        for username, password in (*passwords.items(), ("nobody", "x")):
            for scope in (*model.scope_requests(client_id), "openid", "nope"):
                asked.login(username, password, client_id, scope)
    asked.client_credentials("nobody", None, secret="x")
    asked.concluded(requests=_LEAST[name][0], lines=_LEAST[name][1])


@pytest.mark.parametrize("name", REALMS)
def test_an_export_of_a_story_is_read_as_its_file_is(keycloak: Keycloak, http: httpx.Client, name: str) -> None:
    document = filled(name, keycloak.values)
    secrets = {client["clientId"]: client.get("secret") for client in document["clients"]}
    exported = RealmModel.read(keycloak.admin.export_realm(name), version=keycloak.version)
    asked = Comparison(keycloak, exported, secrets.get, http)
    for client in document["clients"]:
        if client.get("clientAuthenticatorType", "client-secret") == "client-secret":
            for scope in exported.scope_requests(client["clientId"]):
                asked.service_token(client["clientId"], scope)
    asked.concluded(requests=4, lines=20)
    assert isinstance(exported.client_credentials("alice" if name == "abc" else next(iter(secrets)), "s"), Denied)


# Realms made for the rules

_ENOUGH = {
    "builtin": (300, 4000),
    "listed": (350, 4000),
    "bare": (100, 450),
    "own": (90, 450),
    "lives": (100, 600),
    "offline": (100, 600),
}


@pytest.mark.parametrize("name", made.REALMS)
def test_the_rules_hold_on_a_real_server(keycloak: Keycloak, http: httpx.Client, name: str) -> None:
    document = made.REALMS[name]()
    model = RealmModel.read(document, version=keycloak.version)
    asked = Comparison(keycloak, model, lambda _client_id: "s", http)
    keycloak.admin.create_realm(document)
    try:
        for client_id in model.client_ids:
            for scope in _worth_asking(model, client_id, every_pair=name != "builtin"):
                asked.client_credentials(client_id, scope)
        for client_id in ("made", "off", "bearer", "public", "saml", "jwt", "secret-jwt", "x509", "nosuch"):
            asked.client_credentials(client_id, None, secret="wrong")
        for scope in made.ODD_SCOPES:
            for client_id in ("made", "listed", "no-lists", "no-scopes", "empty-lists-listed", "bearer"):
                asked.client_credentials(client_id, scope)
        users = [username for username in model.usernames if not username.startswith("service-account-")]
        for via in (one for one in model.client_ids if one.startswith("login") or one == "made"):
            for username in (*users, "nobody") if via == "login" else users[:1]:
                for scope in (None, "openid", "nope", "offline_access"):
                    asked.login(username, "p", via, scope)
        for via in ("bearer", "off", "public", "account"):
            asked.login("dora", "p", via, "nope")
        exported = RealmModel.read(keycloak.admin.export_realm(document["realm"]), version=keycloak.version)
        read_back = Comparison(keycloak, exported, lambda _client_id: "s", http)
        for client in document["clients"]:
            if client.get("clientAuthenticatorType", "client-secret") == "client-secret":
                for scope in _worth_asking(exported, client["clientId"], every_pair=False):
                    read_back.service_token(client["clientId"], scope)
    finally:
        keycloak.admin.delete_realm(document["realm"])
    asked.concluded(requests=_ENOUGH[name][0], lines=_ENOUGH[name][1])
    read_back.concluded(requests=len(document["clients"]), lines=10 * len(document["clients"]))


def _worth_asking(model: RealmModel, client_id: str, *, every_pair: bool) -> list[str | None]:
    optional = model.optional_scopes(client_id)
    if every_pair:
        return [*model.scope_requests(client_id), "openid"]
    return [None, *([" ".join(optional)] if optional else [])]


@pytest.mark.parametrize("reason", made.REFUSED)
def test_what_the_model_does_not_read_keycloak_does_not_import(keycloak: Keycloak, reason: str) -> None:
    document = made.REFUSED[reason]
    with pytest.raises(ConfigurationError):
        RealmModel.read(document, version=keycloak.version)
    with pytest.raises(RuntimeError, match=r": (409|500) "):
        keycloak.admin.create_realm(document)


@pytest.mark.parametrize("enabled", [False, None])
def test_a_realm_that_is_not_enabled_answers_nobody(
    keycloak: Keycloak, http: httpx.Client, enabled: bool | None
) -> None:
    document = {**made.realm("dark", clients=[made.caller("made")]), "enabled": enabled}
    asked = Comparison(keycloak, RealmModel.read(document, version=keycloak.version), lambda _client_id: "s", http)
    keycloak.admin.create_realm(document)
    try:
        asked.client_credentials("made", None)
        asked.client_credentials("nobody", None)
        asked.login("nobody", "x", "made", "nope")
    finally:
        keycloak.admin.delete_realm("dark")
    asked.concluded(requests=3, lines=9)
