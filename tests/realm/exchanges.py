"""A realm whose clients exchange tokens, and every question that is worth asking: of the embedded issuer, and of a real server.

Every secret is "s", and every password "p".
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

from example_app.realm import claims_of
from s2s_fastapi.realm.exchange import ACCESS_TOKEN, GRANT_TYPE, ID_TOKEN, REFRESH_TOKEN
from s2s_fastapi.testing import EmbeddedIssuer, Request
from tests.realm.realms import (
    BASIC,
    ROLES,
    SERVICE_ACCOUNT,
    Representation,
    audience,
    caller,
    claim,
    mapper,
    realm,
    role_claim,
    scope,
    user,
)

__all__ = [
    "NAME",
    "Administrator",
    "IssuerAdministrator",
    "Post",
    "answers",
    "document",
    "exchange_form",
    "login_form",
    "post_to",
    "service_form",
]

NAME = "exchanging"
_ON = {"standard.token.exchange.enabled": "true"}
_REFRESH = {"standard.token.exchange.enableRefreshRequestedTokenType": "SAME_SESSION"}
_LIGHT = {"client.use.lightweight.access.token.enabled": "true"}
_BASIC = {"defaultClientScopes": ["basic"]}
_OWN = {"defaultClientScopes": ["basic", "service_account"]}
_JWT = ACCESS_TOKEN.replace("access_token", "jwt")
_SAML = ACCESS_TOKEN.replace("access_token", "saml2")

Post = Callable[[str], tuple[int, dict[str, Any]]]
"""Sends a form to the token endpoint, and returns the status and the members of the answer."""


class Administrator(Protocol):
    """Changes the realm while it answers."""

    def logout(self, username: str) -> object:
        """End the sessions of an account."""

    def change_user(self, username: str, *, enabled: bool) -> None:
        """Enable or disable a user."""

    def change_client(self, client_id: str, *, enabled: bool) -> None:
        """Enable or disable a client."""


def _requester(client_id: str, **members: Any) -> Representation:
    attributes = {**_ON, **members.pop("attributes", {})}
    scopes = {"optionalClientScopes": ["bob-aud"], **_BASIC}
    return caller(client_id, **{"attributes": attributes, **scopes, **members})


def _front(client_id: str, *audiences: str, **members: Any) -> Representation:
    """A public client through which users log in. Its tokens are for these services."""
    mappers = [*map(audience, audiences), *members.pop("mappers", [])]
    public = {"publicClient": True, "secret": None, "directAccessGrantsEnabled": True, "serviceAccountsEnabled": False}
    return caller(client_id, **{**public, "protocolMappers": mappers, **_BASIC, **members})


_REQUESTERS = ("alice", "roles", "narrow", "consenting", "light", "public", "bound", "mtls", "refreshing", "no-scopes")


def document() -> Representation:
    profile = scope("profile", mapper("usermodel-attribute", "name", user_attribute="username", claim_name="name"))
    carriers = [scope(f"{name}-aud", audience(name)) for name in ("bob", "charles", "chain")]
    gated = scope("gated", audience("bob"))
    many = ["bob-aud", "charles-aud", "chain-aud", "profile", "url-aud", "gated", "offline_access"]
    narrow = [role_claim("client", "myroles"), role_claim("client", "resource_access.${client_id}.roles")]
    narrow += [mapper("audience-resolve", "resolve"), audience("bob"), audience(None, "custom")]
    target = {"serviceAccountsEnabled": False}
    return realm(
        NAME,
        accessTokenLifespan=300,
        roles={
            "realm": [{"name": "boss"}],
            "client": {"bob": [{"name": "reader"}], "charles": [{"name": "writer"}], "alice": [{"name": "own"}]},
        },
        clientScopes=[
            BASIC,
            ROLES,
            SERVICE_ACCOUNT,
            profile,
            *carriers,
            gated,
            scope("url-aud", audience(None, "u:x")),
        ],
        clientScopeMappings={"bob": [{"clientScope": "gated", "roles": ["reader"]}]},
        clients=[
            *(caller(name, **target) for name in ("bob", "charles")),
            caller("off", enabled=False),
            _front("front", *_REQUESTERS, "disabled", defaultClientScopes=["basic", "profile"]),
            _front("front-offline", "alice", "refreshing", optionalClientScopes=["offline_access"]),
            _front("front-light", "alice", attributes=_LIGHT),
            _front("front-no-sub", "alice", defaultClientScopes=["profile"]),
            _front("front-sub", "alice", mappers=[claim("sub", "someone")], defaultClientScopes=[]),
            _front("front-sid", "alice", mappers=[claim("sid", "someone")]),
            _front("front-azp", "alice", mappers=[claim("azp", "alice")]),
            _front("front-late", "alice"),
            _requester("alice", fullScopeAllowed=False, optionalClientScopes=many, **_OWN),
            _requester("chain", optionalClientScopes=["charles-aud"], **_OWN),
            _requester(
                "roles", defaultClientScopes=["basic", "roles", "profile"], attributes={"access.token.lifespan": "3600"}
            ),
            _requester("narrow", protocolMappers=narrow),
            _requester("direct", directAccessGrantsEnabled=True),
            _requester("no-scopes", attributes=_REFRESH, defaultClientScopes=[], optionalClientScopes=[]),
            _requester("consenting", consentRequired=True),
            _requester("light", attributes=_LIGHT),
            _requester("refreshing", attributes=_REFRESH, optionalClientScopes=["bob-aud", "offline_access"]),
            _requester("bound", attributes={"dpop.bound.access.tokens": "true"}),
            _requester("mtls", attributes={"tls.client.certificate.bound.access.tokens": "true"}),
            {**_requester("public", publicClient=True, serviceAccountsEnabled=False), "secret": None},
            caller("disabled", **_BASIC),
            caller("svc", protocolMappers=[audience("alice"), audience("refreshing")], **_OWN),
            caller(
                "svc-session",
                protocolMappers=[audience("alice")],
                attributes={"client_credentials.use_refresh_token": "true"},
                **_OWN,
            ),
            caller("svc-light", protocolMappers=[audience("alice")], attributes=_LIGHT, **_OWN),
            caller("svc-off", protocolMappers=[audience("alice")], **_OWN),
        ],
        users=[
            user(
                "ann",
                realmRoles=["boss", "offline_access"],
                clientRoles={"bob": ["reader"], "charles": ["writer"], "alice": ["own"]},
            ),
            user("ben"),
        ],
    )


def login_form(via: str = "front", username: str = "ann", **members: str) -> str:
    form = {"grant_type": "password", "client_id": via, "client_secret": "s", "username": username, "password": "p"}
    return urlencode(form | members)


def exchange_form(subject: str | None, client_id: str = "alice", /, **members: Any) -> str:
    """Return the form. A member that is None is left out, one that is a list is repeated."""
    form = {
        "grant_type": GRANT_TYPE,
        "client_id": client_id,
        "client_secret": None if client_id == "public" else "s",
        "subject_token": subject,
        "subject_token_type": ACCESS_TOKEN,
        **members,
    }
    return urlencode({name: value for name, value in form.items() if value is not None}, doseq=True)


def service_form(client_id: str) -> str:
    return urlencode({"grant_type": "client_credentials", "client_id": client_id, "client_secret": "s"})


_OF_USER: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a scope": {"scope": "bob-aud"},
    "the type of an access token": {"scope": "bob-aud", "requested_token_type": ACCESS_TOKEN},
    "two scopes and one audience": {"scope": "bob-aud charles-aud", "audience": "bob"},
    "two audiences": {"scope": "bob-aud charles-aud", "audience": ["bob", "charles"]},
    "one audience twice": {"scope": "bob-aud", "audience": ["bob", "bob"]},
    "openid": {"scope": "openid bob-aud"},
    "an ID token": {"scope": "openid bob-aud", "requested_token_type": ID_TOKEN},
    "an ID token without openid": {"scope": "bob-aud", "requested_token_type": ID_TOKEN},
    "a custom audience": {"scope": "url-aud"},
    "a custom audience by name": {"scope": "url-aud", "audience": "u:x"},
    "a scope for holders of a role": {"scope": "gated"},
    "profile": {"scope": "profile"},
    "offline_access": {"scope": "offline_access bob-aud"},
    "an audience that no mapper gives": {"audience": "bob"},
    "two audiences, one is not there": {"scope": "bob-aud", "audience": ["bob", "charles"]},
    "itself": {"audience": "alice"},
    "an unknown audience": {"audience": "nobody", "scope": "nope"},
    "an empty audience": {"audience": ""},
    "a disabled audience": {"audience": "off"},
    "an unknown scope": {"scope": "nope"},
    "an empty scope": {"scope": ""},
    "no subject": {"subject_token": None, "subject_token_type": None},
    "no type": {"subject_token_type": None},
    "the type of a JWT": {"subject_token_type": _JWT},
    "an empty subject": {"subject_token": ""},
    "garbage": {"subject_token": "abc", "requested_token_type": _JWT},
    "a wrong secret": {"client_secret": "wrong"},
    "an unknown client": {"client_id": "nobody"},
    "a JWT": {"requested_token_type": _JWT},
    "a refresh token": {"requested_token_type": REFRESH_TOKEN},
    "a SAML assertion": {"requested_token_type": _SAML, "scope": "nope"},
    "a SAML assertion and nothing else": {"requested_token_type": _SAML},
    "an empty type": {"requested_token_type": ""},
    "another subject": {"requested_subject": "ben"},
    "another issuer": {"requested_issuer": "x"},
    "a subject of another issuer": {"subject_issuer": "x"},
    "resources": {"resource": ["https://a.example", "https://b.example"]},
    "an actor": {"actor_token": "x", "actor_token_type": ACCESS_TOKEN},
    "a scope twice": {"scope": ["bob-aud", "bob-aud"]},
    "client disabled": {"client_id": "disabled"},
    "client disabled, another subject, no subject": {
        "client_id": "disabled",
        "requested_subject": "x",
        "subject_token": None,
    },
    "chain, not in aud": {"client_id": "chain", "scope": "nope"},
    "chain, not in aud, unknown audience": {"client_id": "chain", "audience": "nobody"},
    "chain, not in aud, disabled audience": {"client_id": "chain", "audience": "off"},
    "chain, not in aud, a JWT": {"client_id": "chain", "requested_token_type": _JWT},
    "chain, not in aud, a SAML assertion": {"client_id": "chain", "requested_token_type": _SAML},
    "public": {"client_id": "public", "client_secret": None, "scope": "nope", "audience": "off"},
    "public, garbage": {"client_id": "public", "client_secret": None, "subject_token": "abc"},
    "roles": {"client_id": "roles"},
    "roles, one audience": {"client_id": "roles", "audience": "charles"},
    "narrow": {"client_id": "narrow"},
    "narrow, one audience": {"client_id": "narrow", "audience": "bob"},
    "consenting": {"client_id": "consenting", "scope": "bob-aud", "audience": "charles"},
    "consenting, unknown scope": {"client_id": "consenting", "scope": "nope"},
    "light": {"client_id": "light", "scope": "bob-aud"},
    "light, an audience": {"client_id": "light", "scope": "bob-aud", "audience": "bob"},
    "bound": {"client_id": "bound", "subject_token": None},
    "mtls": {"client_id": "mtls", "scope": "bob-aud"},
    "no-scopes": {"client_id": "no-scopes"},
    "no-scopes, an ID token": {"client_id": "no-scopes", "requested_token_type": ID_TOKEN},
    "no-scopes, a refresh token": {"client_id": "no-scopes", "requested_token_type": REFRESH_TOKEN},
    "refreshing": {"client_id": "refreshing", "scope": "bob-aud"},
    "refreshing, offline_access and a refresh token": {
        "client_id": "refreshing",
        "scope": "offline_access",
        "requested_token_type": REFRESH_TOKEN,
    },
    "refreshing, a refresh token": {
        "client_id": "refreshing",
        "scope": "openid bob-aud",
        "requested_token_type": REFRESH_TOKEN,
    },
}
"""What is asked about ann's token, by what is unusual about the request."""

_OTHER_LOGINS = ("front-light", "front-no-sub", "front-sub", "front-sid", "front-azp")
_SERVICES = ("svc", "svc-session", "svc-light", "alice")


def answers(post: Post, administrator: Administrator) -> dict[str, Any]:
    """Return every answer by its question, without what differs from one server to the next."""
    return dict(_answers(post, administrator))


def _answers(post: Post, administrator: Administrator) -> Iterator[tuple[str, Any]]:
    def token(form: str) -> str:
        status, body = post(form)
        assert status == 200, body
        text: str = body["access_token"]
        return text

    def asked(what: str, subject: str, client_id: str = "alice", /, **members: Any) -> tuple[str, Any]:
        return what, _plain(*post(exchange_form(subject, client_id, **members)), subject)

    user_token = token(login_form())
    for what, changes in _OF_USER.items():
        yield asked(what, user_token, changes.get("client_id", "alice"), **changes)
    yield asked("ben has no role", token(login_form(username="ben")), scope="gated")
    direct = token(login_form("direct"))
    yield asked("a user who logged in through the requester", direct, "direct", scope="bob-aud")
    for via in _OTHER_LOGINS:
        yield asked(f"a user through {via}", token(login_form(via)), scope="bob-aud")
    offline = token(login_form("front-offline", scope="offline_access"))
    yield asked("an offline session", offline, scope="bob-aud")
    yield asked("an offline session, a refresh token", offline, "refreshing", requested_token_type=REFRESH_TOKEN)
    for client_id in _SERVICES:
        yield asked(f"the service {client_id}", token(service_form(client_id)), scope="openid bob-aud")
    service = token(service_form("svc"))
    yield asked("the service svc, a refresh token", service, "refreshing", requested_token_type=REFRESH_TOKEN)
    for who, subject in (("user", user_token), ("service", service)):
        first = token(exchange_form(subject, scope="chain-aud"))
        yield asked(f"a {who}'s token in a chain", first, "chain", scope="charles-aud")
        yield asked(f"a {who}'s exchanged token again", first, scope="bob-aud")
    identity = token(exchange_form(user_token, requested_token_type=ID_TOKEN))
    yield asked("an ID token as the subject", identity)
    refresh = post(login_form())[1]["refresh_token"]
    yield asked("a refresh token as the subject", refresh)
    late, off = token(login_form("front-late")), token(service_form("svc-off"))
    for enabled in (False, True):
        administrator.change_client("front-late", enabled=enabled)
        administrator.change_client("svc-off", enabled=enabled)
        administrator.change_user("ann", enabled=enabled)
        yield asked(f"the user is enabled: {enabled}", user_token, scope="bob-aud")
        administrator.change_user("ann", enabled=True)
        yield asked(f"the client of the log-in is enabled: {enabled}", late, scope="bob-aud")
        yield asked(f"the client of the service is enabled: {enabled}", off, scope="bob-aud")
    exchanged = token(exchange_form(user_token, scope="bob-aud"))
    administrator.logout("ann")
    for what, subject in (("token", user_token), ("exchanged token", exchanged), ("offline token", offline)):
        yield asked(f"the user's {what} after a log-out", subject, scope="bob-aud")
    yield asked("after a log-out, without exchange", user_token, "disabled")
    yield asked("a new token after a log-out", token(login_form()), scope="bob-aud")


def _plain(status: int, body: Mapping[str, Any], subject: str) -> Any:
    if status != 200:
        return status, dict(body)
    shown: dict[str, Any] = {
        "members": [name for name in body if name != "not-before-policy"],
        **{name: body[name] for name in ("token_type", "issued_token_type")},
        **{name: _about(body[name]) for name in ("expires_in", "refresh_expires_in")},
        "scope": sorted(body["scope"].split()),
    }
    for name in ("access_token", "id_token"):
        if name in body:
            shown[name] = _plain_claims(claims_of(body[name]), claims_of(subject))
    shown["session"] = body.get("session_state") == claims_of(body["access_token"]).get("sid")
    return shown


def _about(seconds: int) -> int:
    """Return a time of life without the seconds that a busy server needs between reading its clock and answering."""
    return -(-(seconds - 1) // 30) * 30


def _plain_claims(claims: dict[str, Any], subject: dict[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in claims.items() if name not in {"iss", "iat", "exp", "auth_time"}}
    shown["jti"] = shown["jti"].rpartition(":")[0]
    shown["life"] = _about(claims["exp"] - claims["iat"])
    for name in ("sub", "sid"):
        if name in shown and len(shown[name]) > 20:
            shown[name] = "the subject's" if shown[name] == subject.get(name) else "made"
    if isinstance(shown.get("aud"), list):
        shown["aud"] = sorted(shown["aud"])
    if "scope" in shown:
        shown["scope"] = sorted(shown["scope"].split())
    if "myroles" in shown:
        shown["myroles"] = sorted(shown["myroles"])
    shown.pop("at_hash", None)
    return shown


class IssuerAdministrator:
    """Changes the realm of an embedded issuer as an administrator changes that of a server."""

    def __init__(self, issuer: EmbeddedIssuer) -> None:
        self._issuer = issuer
        self._disabled: set[str] = set()

    def logout(self, username: str) -> object:
        return self._issuer.logout(username)

    def change_user(self, username: str, *, enabled: bool) -> None:
        self._change(username, enabled=enabled)

    def change_client(self, client_id: str, *, enabled: bool) -> None:
        self._change(client_id, enabled=enabled)

    def _change(self, name: str, *, enabled: bool) -> None:
        (self._disabled.discard if enabled else self._disabled.add)(name)
        changed = document()
        for one in (*changed["users"], *changed["clients"]):
            if not self._disabled.isdisjoint({one.get("username"), one.get("clientId")}):
                one["enabled"] = False
        self._issuer.reload(changed)


def post_to(issuer: EmbeddedIssuer, realm_name: str = NAME) -> Post:
    """Return what sends forms to the token endpoint of an embedded issuer."""
    path = f"/realms/{realm_name}/protocol/openid-connect/token"
    headers = (("Content-Type", "application/x-www-form-urlencoded"),)

    def post(form: str) -> tuple[int, dict[str, Any]]:
        answer = issuer.answer(Request("POST", path, headers, form.encode()))
        return answer.status, json.loads(answer.body)

    return post
