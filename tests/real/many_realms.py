"""The same questions to a real server and to the embedded issuer, for a realm file and for the server's own export of this realm.

Everything that a token endpoint answers is compared: the claims of the token and its header, the other members of the answer, and the
words of a refusal. Only what cannot be equal is left out: times, ids and signatures.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final
from urllib.parse import quote

import httpx
from joserfc.jwk import RSAKey

from s2s_fastapi import ConfigurationError
from s2s_fastapi.realm.model import Denied, RealmModel
from s2s_fastapi.testing import EmbeddedIssuer
from tests.real.server import Keycloak
from tests.realm.many import RealmFile

__all__ = ["Compared", "Figure", "compared"]

_OWN_CLIENTS: Final = {
    "account",
    "account-console",
    "admin-cli",
    "broker",
    "realm-management",
    "security-admin-console",
}
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# By how many seconds the server may be off: it reads its clock more than once, and may have to make a key in between.
_OFF: Final = {"life": range(-1, 2), "expires_in": range(-20, 1), "refresh_expires_in": range(-20, 1)}
_KEY_PROVIDER: Final = "org.keycloak.keys.KeyProvider"
_SECRETS: Final = {"access_token", "refresh_token", "id_token", "session_state"}

_Document = Mapping[str, Any]
_Form = dict[str, str]


@dataclass
class Figure:
    """How many questions one form of a realm was asked, and what came of them."""

    asked: int = 0
    equal: int = 0
    announced: list[tuple[str, str]] = field(default_factory=list)
    """The differences that a notice announces, each with what announces it."""
    silent: list[str] = field(default_factory=list)
    """The differences that nothing announces."""

    def __str__(self) -> str:
        return f"{self.equal} of {self.asked}"


@dataclass
class Compared:
    """What a server and the issuer make of one realm file."""

    file: RealmFile
    imported: bool
    """Whether the server imported it."""
    wrong: str = ""
    """What is wrong as a whole: one of the two refuses the file and the other does not, or a notice is missing."""
    of_file: Figure = field(default_factory=Figure)
    of_export: Figure = field(default_factory=Figure)

    @property
    def right(self) -> bool:
        """Whether all is equal or announced."""
        return not (self.wrong or self.of_file.silent or self.of_export.silent)


def compared(keycloak: Keycloak, file: RealmFile) -> Compared:
    """Import the file, ask both, export the realm, and ask both again. The realm stays on the server."""
    refusal = _refusal(file.document, keycloak.version)
    try:
        keycloak.admin.create_realm(with_keys(file.document))
    except RuntimeError as error:
        wrong = "" if refusal else f"the server refuses it, and the issuer does not: {error}"
        return Compared(file, imported=False, wrong=wrong)
    if refusal:
        return Compared(file, imported=True, wrong=f"the issuer refuses it, and the server does not: {refusal}")
    name = file.document["realm"]
    exported = keycloak.admin.export_realm(name)
    secrets = _secrets(keycloak, name)
    return Compared(
        file,
        imported=True,
        wrong=_missing(file, keycloak.version),
        of_file=_Questions(keycloak, file, file.document, secrets).ask(exported, users=True),
        of_export=_Questions(keycloak, file, exported, secrets).ask(exported, users=False),
    )


def with_keys(document: _Document) -> dict[str, Any]:
    """Return the document with ready-made keys, unless it has keys. Otherwise most of the time of an import goes into new ones."""
    components = document.get("components") or {}
    return {**document, "components": {_KEY_PROVIDER: _keys(), **components}}


@cache
def _keys() -> list[dict[str, Any]]:
    key = RSAKey.generate_key(2048).as_pem(private=True).decode("ascii")
    providers: dict[str, dict[str, list[str]]] = {
        "rsa": {"privateKey": [key]},
        "hmac-generated": {"algorithm": ["HS512"]},
        "aes-generated": {},
    }
    return [
        {"name": kind, "providerId": kind, "config": {"priority": ["100"], **config}}
        for kind, config in providers.items()
    ]


def _refusal(document: _Document, version: str) -> str:
    """Return why Keycloak does not import the document, as the issuer says it."""
    try:
        notices = EmbeddedIssuer(document, version=version).notices
    except ConfigurationError as error:
        return str(error)
    return next((str(notice) for notice in notices if notice.refused), "")


def _missing(file: RealmFile, version: str) -> str:
    notices = " ".join(map(str, EmbeddedIssuer(file.document, version=version).notices))
    return "; ".join(f"no notice says {part!r}" for part in file.said if part not in notices)


def _secrets(keycloak: Keycloak, realm: str) -> dict[str, str]:
    """Return the secrets that the server holds, also those that it made."""
    clients = keycloak.admin.get(f"/{quote(realm)}/clients")
    return {client["clientId"]: client["secret"] for client in clients if client.get("secret")}


class _Questions:
    """The questions about one form of a realm: its file, or the export."""

    def __init__(self, keycloak: Keycloak, file: RealmFile, document: _Document, secrets: Mapping[str, str]) -> None:
        self.keycloak, self.file, self.document, self.secrets = keycloak, file, document, secrets
        self.issuer = EmbeddedIssuer(document, url=keycloak.url, auth_path=keycloak.auth_path, version=keycloak.version)
        self.model = RealmModel.read(document, version=keycloak.version)
        self.own_secrets = self.issuer.secrets(document["realm"])
        self.ids = {user["id"] for user in document.get("users") or () if user.get("id")}
        base = f"{keycloak.url}{keycloak.auth_path}/realms/{quote(document['realm'])}"
        self.url = f"{base}/protocol/openid-connect/token"
        self.figure = Figure()

    def ask(self, exported: _Document, *, users: bool) -> Figure:
        """Ask about each client of the server's export, and about each user of the file."""
        real = httpx.Client(timeout=60, trust_env=False)
        with real, httpx.Client(transport=self.issuer.transport()) as made:
            asked: set[str] = set()  # the lists of scopes that a client before had
            for client in exported["clients"]:
                lists = f"{_optional(client)} {client.get('defaultClientScopes')}"
                for scope in _scopes(client, exported, self.model, all_of_them=lists not in asked):
                    self._service(real, made, client["clientId"], scope)
                if client.get("serviceAccountsEnabled"):
                    asked.add(lists)
            self._service(real, made, "nobody-at-all", None)
            if users:
                for via, username, password, scope in self._logins(exported):
                    self._login(real, made, via, username, password, scope)
        return self.figure

    def _logins(self, exported: _Document) -> Iterator[tuple[str, str, str, str | None]]:
        users = [user["username"] for user in self.document.get("users") or () if user.get("credentials")]
        through = [client for client in exported["clients"] if client.get("directAccessGrantsEnabled")]
        others = [client for client in exported["clients"] if not client.get("directAccessGrantsEnabled")]
        for number, client in enumerate(through):
            together = " ".join(_optional(client)) or "openid"
            every = (None, "openid", *_optional(client), "nope") if number == 0 else (None, together)
            for scope in every:
                yield from ((client["clientId"], username, "p", scope) for username in users[:1])
            for username in users[1:2]:
                yield client["clientId"], username, "p", together
            for username in users[1:] if number == 0 else []:
                yield client["clientId"], username, "p", None
        for client in (*through[:1], *others[:2]):
            for username, password in ((name, word) for name in users[:1] for word in ("p", "wrong")):
                yield client["clientId"], username, password, None
            yield client["clientId"], "nobody", "p", None
        for client in through[:1]:
            for username in users:
                yield client["clientId"], username.swapcase(), "p", None
                yield client["clientId"], f"{username}@example.org", "p", None
            for username in users:  # last, because a server may lock a user after a wrong password
                yield client["clientId"], username, "wrong", None

    def _service(self, real: httpx.Client, made: httpx.Client, client_id: str, scope: str | None) -> None:
        form = {"grant_type": "client_credentials", "client_id": client_id}
        foreseen = self.model.service_token(client_id, scope=scope)
        unknown = () if isinstance(foreseen, Denied) else foreseen.unknown
        self._compare(real, made, form, scope, unknown)

    def _login(  # noqa: PLR0917 - a login has these parts
        self, real: httpx.Client, made: httpx.Client, via: str, username: str, password: str, scope: str | None
    ) -> None:
        form = {"grant_type": "password", "client_id": via, "username": username, "password": password}
        foreseen = self.model.password(username, via=via, scope=scope)
        unknown = () if isinstance(foreseen, Denied) else foreseen.unknown
        self._compare(real, made, form, scope, unknown)

    def _compare(
        self, real: httpx.Client, made: httpx.Client, form: _Form, scope: str | None, unknown: tuple[str, ...]
    ) -> None:
        asked = form if scope is None else {**form, "scope": scope}
        client_id = form["client_id"]
        both = client_id in self.secrets and client_id in self.own_secrets
        there = _answer(real.post(self.url, data=_with(asked, self.secrets[client_id] if both else None)))
        here = _answer(made.post(self.url, data=_with(asked, self.own_secrets[client_id] if both else None)))
        for name, value in here.items():  # ids that the file does not have
            if _UUID.fullmatch(str(value)) and _UUID.fullmatch(str(there.get(name))) and value not in self.ids:
                here[name] = there[name]
        if ("error" in there) != ("error" in here):
            there, here = ({"answer": one.get("error_description", "a token")} for one in (there, here))
        differences = [
            f"{name} is {there.get(name, '(absent)')!r}, and the issuer says {here.get(name, '(absent)')!r}"
            for name in sorted(there.keys() | here.keys())
            if not _same(name, there.get(name), here.get(name))
        ]
        self.figure.asked += 1
        if not differences:
            self.figure.equal += 1
            return
        who = " ".join(asked[key] for key in ("client_id", "username") if key in asked)
        line = f"{who} {scope!r}: {'; '.join(differences)}"
        announced = "; ".join(unknown or self.file.said)
        if announced:
            self.figure.announced.append((line, announced))
        else:
            self.figure.silent.append(line)


def _scopes(client: _Document, exported: _Document, model: RealmModel, *, all_of_them: bool) -> list[str | None]:
    """Return what is worth requesting: nothing, each optional scope, all at once, and scopes that are not there.

    Without `all_of_them`, the scopes are requested at once only.
    """
    client_id = client["clientId"]
    if client_id in _OWN_CLIENTS and not client.get("serviceAccountsEnabled"):
        return [None]
    if not client.get("serviceAccountsEnabled"):
        return [None, "nope"]
    own = dict.fromkeys([*_optional(client), *model.optional_scopes(client_id)])
    default = client.get("defaultClientScopes") or []
    foreign = [one["name"] for one in exported["clientScopes"] if one["name"] not in {*own, *default}]
    if not all_of_them:
        return [None, "nope", " ".join(["openid", *own])]
    together = [" ".join(own), f"openid {' '.join(own)}"] if len(own) > 1 else []
    return [None, "openid", "nope", *own, *together, *foreign[:2], *(["organization:acme"] * ("organization" in own))]


def _optional(client: _Document) -> list[str]:
    return list(client.get("optionalClientScopes") or [])


def _with(form: _Form, secret: str | None) -> _Form:
    return form if secret is None else {**form, "client_secret": secret}


def _same(name: str, there: Any, here: Any) -> bool:
    if isinstance(there, int) and isinstance(here, int) and name in _OFF:
        return there - here in _OFF[name]
    return bool(there == here)


def _answer(answer: httpx.Response) -> dict[str, Any]:
    """Return all parts of an answer that can be equal, by name, in an order that does not count."""
    try:
        body = answer.json()
    except ValueError:
        return {"status": answer.status_code, "text": answer.text}
    if answer.status_code != httpx.codes.OK or "access_token" not in body:
        return {"status": answer.status_code, **body}
    token = str(body["access_token"])
    header, claims = (json.loads(base64.urlsafe_b64decode(f"{part}===")) for part in token.split(".")[:2])
    life = claims.pop("exp") - claims.pop("iat")
    shown = {f"claim {name}": _plain(value) for name, value in claims.items()}
    shown["claim jti"] = str(claims.get("jti")).rpartition(":")[0]
    for name in ("sid", "session_state"):
        if len(str(claims.get(name, ""))) > len("a short one"):  # otherwise a mapper chose it
            shown[f"claim {name}"] = "(made up)"
    for name in ("claim aud", "claim scope"):
        if name in shown:
            shown[name] = sorted(shown[name].split() if isinstance(shown[name], str) else shown[name], key=str)
    members = {name: "(there)" if name in _SECRETS else _plain(value) for name, value in body.items()}
    members["scope"] = sorted(str(body.get("scope")).split())
    return {**shown, **members, "life": life, "alg": header["alg"], "typ": header.get("typ")}


def _plain(value: Any) -> Any:
    """Return a claim so that order does not count: Keycloak's lists are sets."""
    if isinstance(value, list):
        return sorted((_plain(one) for one in value), key=str)
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value
