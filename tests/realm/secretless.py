"""Clients without a secret, and every question that is worth asking about them: of the embedded issuer, and of a real server.

An assertion is made by the plainest code there is, so that each of its parts can be wrong. The issuer of the assertions is a loopback server
in the place of a cluster's API server.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from joserfc.jwk import ECKey, Key, RSAKey
from joserfc.jws import JWSRegistry

from example_app.realm import claims_of
from s2s_fastapi.testing import EmbeddedIssuer, Request
from s2s_fastapi.text import base64url
from tests.realm.realms import BASIC, SERVICE_ACCOUNT, Representation, audience, caller, realm

__all__ = [
    "NAME",
    "Provider",
    "Send",
    "certificate_answers",
    "certified",
    "document",
    "federated_answers",
    "form_of",
    "plain",
    "providing",
    "send_to",
]

NAME = "secretless"
POD = "system:serviceaccount:prod:chat"
_SVID = "spiffe://acme.test/ns/prod/sa/chat"
_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"

Send = Callable[[str, str], tuple[int, dict[str, Any]]]
"""Sends a form to the token endpoint over a connection with the named client certificate, and returns the status and the answer."""


class Provider:
    """A loopback server in the place of an identity provider: it publishes its keys, and signs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys: dict[str, tuple[str, Key]] = {
            "k1": ("RS256", RSAKey.generate_key(2048)),
            "e1": ("ES256", ECKey.generate_key("P-256")),
        }
        self.hidden: dict[str, tuple[str, Key]] = {"k1": ("RS256", RSAKey.generate_key(2048))}
        self.asked: list[str] = []

    def page(self, path: str) -> Mapping[str, Any]:
        """Return what is published at a path."""
        self.asked.append(path)
        if path.endswith("/.well-known/openid-configuration"):
            issuer = self.url + path.removesuffix("/.well-known/openid-configuration")
            return {"issuer": issuer, "jwks_uri": f"{self.url}/keys"}
        use = "jwt-svid" if path == "/bundle" else "sig"
        return {
            "keys": [
                {**key.as_dict(private=False), "kid": kid, "use": use, "alg": algorithm}
                for kid, (algorithm, key) in self.keys.items()
            ],
            **({"spiffe_sequence": 1, "spiffe_refresh_hint": 60} if path == "/bundle" else {}),
        }

    def token(
        self,
        *,
        key: str = "k1",
        hidden: bool = False,
        ago: int = 0,
        life: int | None = 600,
        header: Mapping[str, Any] | None = None,
        without: Sequence[str] = (),
        **claims: Any,
    ) -> str:
        """Return an assertion: a good one of a pod, unless something is unusual about it."""
        algorithm, private = (self.hidden if hidden else self.keys)[key]
        now = int(time.time()) - ago
        said = {"iss": self.url, "sub": POD, "iat": now, "nbf": now, "jti": str(uuid4()), **claims}
        if life is not None:
            said["exp"] = now + life
        said = {name: value for name, value in said.items() if name not in without}
        shown = {"alg": algorithm, "kid": key, **(header or {})}
        shown = {name: value for name, value in shown.items() if value is not None}
        first = f"{_part(shown)}.{_part(said)}"
        return f"{first}.{base64url(JWSRegistry.algorithms[algorithm].sign(first.encode(), private))}"


@contextmanager
def providing() -> Iterator[Provider]:
    """Publish keys on a loopback socket."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(provider.page(self.path)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    provider = Provider(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _part(value: object) -> str:
    return base64url(json.dumps(value).encode())


def document(provider: str, *, spiffe: bool = False, kubernetes: bool = True) -> Representation:
    """Return a realm whose clients have an identity provider or a certificate in the place of a secret."""
    keys: dict[str, Any] = {"useJwksUrl": "true", "validateSignature": "true", "jwksUrl": f"{provider}/keys"}
    asserts = {**keys, "supportsClientAssertions": "true"}

    def known(alias: str, kind: str, *, enabled: bool = True, **config: str) -> Representation:
        return {"alias": alias, "providerId": kind, "enabled": enabled, "config": config}

    providers = [
        known("gh", "oidc", issuer=f"{provider}/o", **asserts),
        known("off", "oidc", issuer=f"{provider}/n", **keys),
        known("again", "oidc", issuer=f"{provider}/r", **asserts, supportsClientAssertionReuse="true"),
        known(
            "unsigned",
            "oidc",
            issuer=f"{provider}/u",
            supportsClientAssertions="true",
            useJwksUrl="true",
            jwksUrl=f"{provider}/keys",
        ),
    ]
    if kubernetes:
        providers.append(known("k8s", "kubernetes", issuer=provider))
        providers.append(known("shut", "kubernetes", enabled=False, issuer=f"{provider}/d"))
    if spiffe:
        providers.append(
            known("spire", "spiffe", trustDomain="spiffe://acme.test", bundleEndpoint=f"{provider}/bundle")
        )
    scopes = {"defaultClientScopes": ["basic", "service_account"], "optionalClientScopes": []}

    def federated(client_id: str, alias: str, sub: str, **members: Any) -> Representation:
        attributes = {"jwt.credential.issuer": alias, "jwt.credential.sub": sub, **members.pop("attributes", {})}
        common: dict[str, Any] = {"clientAuthenticatorType": "federated-jwt", "secret": None, "attributes": attributes}
        return caller(client_id, protocolMappers=[audience("api")], **common, **scopes, **members)

    def by_name(client_id: str, subject: str | None, **attributes: str) -> Representation:
        named = {} if subject is None else {"x509.subjectdn": subject}
        return caller(
            client_id,
            clientAuthenticatorType="client-x509",
            secret=None,
            protocolMappers=[audience("api")],
            attributes={**named, **attributes},
            **scopes,
        )

    exact, bound = {"x509.allow.regex.pattern.comparison": "false"}, {BOUND: "true"}
    return realm(
        NAME,
        sslRequired="none",
        accessTokenLifespan=300,
        identityProviders=providers,
        clientScopes=[BASIC, SERVICE_ACCOUNT],
        clients=[
            caller("api", serviceAccountsEnabled=False),
            caller("secret", protocolMappers=[audience("api")], **scopes),
            federated("chat", "k8s", POD),
            federated("gone", "k8s", "gone", enabled=False),
            federated("public", "k8s", "public", publicClient=True, serviceAccountsEnabled=False),
            federated("no-flows", "k8s", "no-flows", serviceAccountsEnabled=False),
            federated("first", "k8s", "twice"),
            federated("second", "k8s", "twice"),
            federated("nowhere", "nowhere", "s"),
            federated("shut", "shut", "s"),
            federated("gh", "gh", "s"),
            federated("off", "off", "s"),
            federated("again", "again", "s"),
            federated("unsigned", "unsigned", "s"),
            federated("spiffe", "spire", _SVID),
            federated("fed-bound", "k8s", "bound", attributes=bound),
            by_name("exact", _NAME, **exact),
            by_name("spaces", "CN=chat-app-service, OU=svc, O=Acme", **exact),
            by_name("lower", "cn=chat-app-service,ou=svc,o=Acme", **exact),
            by_name("upper", "CN=CHAT-APP-SERVICE,OU=svc,O=Acme", **exact),
            by_name("reversed", "O=Acme,OU=svc,CN=chat-app-service", **exact),
            by_name("part", "CN=chat-app-service", **exact),
            by_name("semicolons", "CN=chat-app-service;OU=svc;O=Acme", **exact),
            by_name("quoted", 'CN="chat-app-service",OU=svc,O=Acme', **exact),
            by_name("no-name", "nonsense", **exact),
            by_name("none", None, **exact),
            by_name("absent", _NAME),
            by_name("absent-part", "CN=chat-app-service"),
            by_name("pattern", "(.*?)CN=chat-app-service(.*?)", **{"x509.allow.regex.pattern.comparison": "true"}),
            by_name("pattern-whole", "CN=chat.*", **{"x509.allow.regex.pattern.comparison": "true"}),
            by_name("pattern-part", "CN=chat", **{"x509.allow.regex.pattern.comparison": "true"}),
            by_name("pattern-broken", "CN=(", **{"x509.allow.regex.pattern.comparison": "true"}),
            by_name("authority", _NAME, **exact, **{"x509.casubjectdn": "CN=Acme Test CA,O=Acme"}),
            by_name("other-authority", _NAME, **exact, **{"x509.casubjectdn": "CN=Other,O=Acme"}),
            by_name("x-bound", _NAME, **exact, **bound),
            by_name("x-gone", _NAME, **exact) | {"enabled": False},
            by_name("x-no-flows", _NAME, **exact) | {"serviceAccountsEnabled": False},
            by_name("special", "CN=a\\,b,OU=x,O=Acme \\+ Sons", **exact),
            by_name("special-quoted", 'CN="a,b",OU=x,O="Acme + Sons"', **exact),
            by_name("special-pattern", ".*b.*", **{"x509.allow.regex.pattern.comparison": "true"}),
            by_name("spaced-pattern", "CN=chat-app-service, OU=svc, O=Acme"),
            caller("bound", attributes=bound, protocolMappers=[audience("api")], **scopes),
            caller("bound-no-flows", attributes=bound, serviceAccountsEnabled=False, **scopes),
        ],
    )


BOUND = "tls.client.certificate.bound.access.tokens"
_NAME = "CN=chat-app-service,OU=svc,O=Acme"
certified = {
    "chat": _NAME,
    "renewed": _NAME,
    "other": "CN=other-service,OU=svc,O=Acme",
    "special": "CN=a\\,b,OU=x,O=Acme \\+ Sons",
}
"""The names in the certificates that the questions need, by what a question calls them."""


def form_of(client_id: str | None = None, /, **members: Any) -> str:
    """Return the form of a service's own request. A member that is None is left out, one that is a list is repeated."""
    form = {"grant_type": "client_credentials", "client_id": client_id, **members}
    return urlencode({name: value for name, value in form.items() if value is not None}, doseq=True)


def _asserting(token: str | None, client_id: str | None = None, /, kind: str | None = _BEARER, **members: Any) -> str:
    return form_of(client_id, client_assertion_type=kind, client_assertion=token, **members)


def plain(status: int, body: Mapping[str, Any], thumbprints: Mapping[str, str]) -> Any:
    """Return an answer without what differs from one server to the next: a certificate is shown by its name."""
    if status != 200:
        return status, dict(body)
    claims = claims_of(body["access_token"])
    shown = {name: value for name, value in claims.items() if name not in {"iss", "iat", "exp", "sub"}}
    shown["jti"] = shown["jti"].rpartition(":")[0]
    shown["scope"] = sorted(shown["scope"].split())
    if "cnf" in shown:
        shown["cnf"] = {name: thumbprints.get(value, value) for name, value in shown["cnf"].items()}
    for name in ("clientAddress", "clientHost"):
        shown.pop(name, None)
    members = sorted(name for name in body if name != "not-before-policy")
    return {"members": members, "token_type": body["token_type"], "claims": shown}


def federated_answers(send: Send, provider: Provider, issuer: str, *, spiffe: bool = False) -> dict[str, Any]:
    """Return every answer about assertions by its question. ``issuer`` is the claim ``iss`` of the realm's own tokens."""
    return {what: plain(*send(form, ""), {}) for what, form in _federated(provider, issuer, spiffe=spiffe)}


def _federated(provider: Provider, realm_issuer: str, *, spiffe: bool) -> Iterator[tuple[str, str]]:
    def token(**changes: Any) -> str:
        return provider.token(**{"aud": realm_issuer, **changes})

    pod = token()
    yield "a pod", _asserting(pod)
    yield "the same assertion again", _asserting(pod)
    yield "a pod that says who it is", _asserting(token(), "chat")
    yield "another client's id", _asserting(token(), "gh")
    yield "another client's id, expired", _asserting(token(life=60, ago=70), "gh")
    yield "another client's id, and another signature", _asserting(token(hidden=True), "gh")
    yield "the type of SPIFFE, without the id", _asserting(token(), kind=_SPIFFE)
    yield "an unknown client's id", _asserting(token(), "nobody")
    yield "the id of a client with a secret", _asserting(token(), "secret")
    yield "a secret beside it", _asserting(token(), "secret", client_secret="s")
    yield "a wrong secret beside it", _asserting(token(), "chat", client_secret="x")
    yield "only the secret of a client without one", form_of("chat", client_secret="s")
    yield "nothing", form_of("chat")
    yield "no type", _asserting(token(), "chat", kind=None)
    yield "no type and no id", _asserting(token(), kind=None)
    yield "an unknown type", _asserting(token(), "chat", kind="x")
    if spiffe:  # a Keycloak without that feature knows no such type: 401
        yield "the type of SPIFFE", _asserting(token(), "chat", kind=_SPIFFE)
    yield "no assertion", _asserting(None, "chat")
    yield "an empty assertion", _asserting("", "chat")
    yield "an unknown scope", _asserting(token(), "chat", scope="nope")
    yield "a parameter twice", _asserting(token(), "chat", scope=["basic", "basic"])
    yield from _forms(token, provider)
    yield from _claims(token, realm_issuer)
    for client_id in ("gone", "public", "no-flows", "bound"):
        yield f"a client: {client_id}", _asserting(token(sub=client_id))
    yield "two clients of one subject", _asserting(token(sub="twice"))
    yield "two clients of one subject, the first", _asserting(token(sub="twice"), "first")
    yield "two clients of one subject, the second", _asserting(token(sub="twice"), "second")
    yield "a provider that is disabled", _asserting(token(iss=f"{provider.url}/d", sub="s"))
    yield from _of_oidc(token, provider, realm_issuer)
    if spiffe:
        yield from _of_spiffe(token)


def _forms(token: Callable[..., str], provider: Provider) -> Iterator[tuple[str, str]]:
    good = token()
    head, body, signature = good.split(".")
    for what, text in {
        "garbage": "abc",
        "two parts": f"{head}.{body}",
        "four parts": f"{good}.x",
        "no signature": f"{head}.{body}.",
        "a list of claims": f"{head}.{_part([])}.{signature}",
        "another signature": f"{head}.{body}.{token().split('.')[2]}",
        "by a key that nobody publishes": token(hidden=True),
        "no kid": token(header={"kid": None}),
        "no kid, by a key that nobody publishes": token(hidden=True, header={"kid": None}),
        "by another key": token(key="e1"),
        "alg none": token(header={"alg": "none"}),
        "alg none of nobody": token(header={"alg": "none"}, sub="nobody"),
        "alg unknown": token(header={"alg": "XX256"}),
        "no alg": token(header={"alg": None}),
        "by a key that nobody publishes, for somebody else": token(hidden=True, aud="x"),
        "alg of another kind": token(header={"alg": "ES256"}),
        "alg HS256": token(header={"alg": "HS256"}),
        "typ at+jwt": token(header={"typ": "at+jwt"}),
        "the claims of the client itself": token(iss="chat", sub="chat"),
        "iss and sub the same, nobody": token(iss="nobody", sub="nobody"),
        "iss and sub the provider": token(sub=provider.url),
    }.items():
        yield what, _asserting(text)
        yield f"{what}, with the client's id", _asserting(text, "chat")


def _claims(token: Callable[..., str], issuer: str) -> Iterator[tuple[str, str]]:
    host = issuer.split("/")[2]
    audiences: dict[str, Any] = {
        "a list of one": [issuer],
        "a list of two": [issuer, "https://kubernetes.default.svc"],
        "the issuer twice": [issuer, issuer],
        "an empty list": [],
        "the API server": ["https://kubernetes.default.svc"],
        "the token endpoint": f"{issuer}/protocol/openid-connect/token",
        "another host": issuer.replace(host, "keycloak.example"),
        "a slash at the end": f"{issuer}/",
        "empty": "",
        "null": None,
    }
    for what, value in audiences.items():
        yield f"aud {what}", _asserting(token(aud=value))
    for name in ("iss", "sub", "aud", "exp", "iat", "nbf", "jti"):
        yield f"without {name}", _asserting(token(without=[name]))
    yield "without iat and nbf", _asserting(token(without=["iat", "nbf"]))
    others: list[tuple[str, Any]] = [
        ("sub", ""),
        ("sub", "nobody"),
        ("sub", 7),
        ("iss", "https://other.example"),
        ("iss", ""),
    ]
    for name, other in others:
        yield f"{name} {other!r}", _asserting(token(**{name: other}))
    yield "sub nobody, with the client's id", _asserting(token(sub="nobody"), "chat")
    times: dict[str, dict[str, Any]] = {
        "one year": {"life": 31_536_000},
        "two hours": {"life": 7200},
        "no end": {"life": None},
        "expired": {"life": 60, "ago": 70},
        "issued in 60 s": {"ago": -60},
        "issued in 5 s": {"ago": -5},
        "nbf in 60 s": {"nbf": int(time.time()) + 60},
        "nbf in 5 s": {"nbf": int(time.time()) + 5},
        "iat in 60 s": {"iat": int(time.time()) + 60},
        "iat in 5 s": {"iat": int(time.time()) + 5},
        "without iat, 59 minutes": {"life": 3540, "without": ["iat"]},
        "without iat, 61 minutes": {"life": 3660, "without": ["iat"]},
        "59 minutes old": {"life": 7200, "ago": 3540},
        "61 minutes old": {"life": 7200, "ago": 3660},
        "a text as exp": {"exp": "soon", "life": None},
        "exp and aud wrong": {"life": 60, "ago": 70, "aud": "x"},
    }
    for what, changes in times.items():
        yield what, _asserting(token(**changes))


def _of_oidc(token: Callable[..., str], provider: Provider, realm_issuer: str) -> Iterator[tuple[str, str]]:
    for client_id, path in {"gh": "/o", "off": "/n", "again": "/r", "unsigned": "/u"}.items():
        said: dict[str, Any] = {"iss": provider.url + path, "sub": "s"}
        once = token(**said)
        yield f"{client_id}: first", _asserting(once)
        yield f"{client_id}: the same again", _asserting(once)
        unusual: dict[str, dict[str, Any]] = {
            "by a key that nobody publishes": {"hidden": True},
            "no jti": {"without": ["jti"]},
            "no iat": {"without": ["iat"]},
            "no iat, 4 minutes": {"without": ["iat"], "life": 240},
            "no exp": {"life": None},
            "two audiences, one is right": {"aud": [realm_issuer, "y"]},
            "two audiences": {"aud": ["x", "y"]},
            "another audience": {"aud": "x"},
            "one hour": {"life": 3600},
            "4 minutes old": {"life": 3600, "ago": 240},
            "6 minutes old": {"life": 3600, "ago": 360},
            "expired": {"life": 60, "ago": 70},
            "in 5 s": {"ago": -5},
            "in 60 s": {"ago": -60},
        }
        for what, changes in unusual.items():
            yield f"{client_id}: {what}", _asserting(token(**{**said, **changes}))


def _of_spiffe(token: Callable[..., str]) -> Iterator[tuple[str, str]]:
    said: dict[str, Any] = {"key": "e1", "sub": _SVID, "without": ["iss", "jti"]}
    once = token(**said)
    yield "svid: first", _asserting(once, kind=_SPIFFE)
    yield "svid: the same again", _asserting(once, kind=_SPIFFE)
    yield "svid: with its id", _asserting(token(**said), "spiffe", kind=_SPIFFE)
    yield "svid: another's id", _asserting(token(**said), "chat", kind=_SPIFFE)
    yield "svid: type jwt-bearer", _asserting(token(**said))
    yield "svid: type jwt-bearer with its id", _asserting(token(**said), "spiffe")
    unusual: dict[str, dict[str, Any]] = {
        "with iss": {"without": ["jti"]},
        "with the iss of the provider": {"without": []},
        "another trust domain": {"sub": "spiffe://evil.test/ns/prod/sa/chat"},
        "a longer trust domain": {"sub": "spiffe://acme.test.evil/x"},
        "the trust domain alone": {"sub": "spiffe://acme.test"},
        "an unknown workload": {"sub": "spiffe://acme.test/x"},
        "no SPIFFE id": {"sub": "x"},
        "by a key that nobody publishes": {"hidden": True, "key": "k1"},
        "no kid": {"header": {"kid": None}},
        "two audiences": {"aud": ["x", "y"]},
        "another audience": {"aud": "x"},
        "no iat": {"without": ["iss", "jti", "iat"]},
        "no exp": {"life": None},
        "one hour": {"life": 3600},
        "4 minutes old": {"life": 3600, "ago": 240},
        "6 minutes old": {"life": 3600, "ago": 360},
        "expired": {"life": 60, "ago": 70},
        "in 5 s": {"ago": -5},
    }
    for what, changes in unusual.items():
        yield f"svid: {what}", _asserting(token(**{**said, **changes}), kind=_SPIFFE)


def certificate_answers(send: Send, certificates: Mapping[str, bytes]) -> dict[str, Any]:
    """Return every answer about certificates by its question. ``certificates`` are those (DER) that the questions name."""
    names = {base64url(hashlib.sha256(der).digest()): name for name, der in certificates.items()}
    return {what: plain(*send(form, certificate), names) for what, form, certificate in _certified()}


def _certified() -> Iterator[tuple[str, str, str]]:
    by_name = [
        *("exact", "spaces", "lower", "upper", "reversed", "part", "semicolons", "quoted", "no-name", "none"),
        *("absent", "absent-part", "pattern", "pattern-whole", "pattern-part", "pattern-broken"),
        *(
            "authority",
            "other-authority",
            "x-bound",
            "x-gone",
            "x-no-flows",
            "special",
            "special-quoted",
            "special-pattern",
        ),
        "spaced-pattern",
    ]
    for client_id in by_name:
        for certificate in ("chat", "renewed", "other", "special", ""):
            yield f"{client_id} by {certificate or 'none'}", form_of(client_id), certificate
    yield "no id", form_of(), "chat"
    yield "an unknown client", form_of("nobody"), "chat"
    yield "a secret beside it", form_of("exact", client_secret="s"), "chat"
    yield "a secret in its place", form_of("exact", client_secret="s"), ""
    yield "an assertion beside it", _asserting("abc", "exact"), "chat"
    yield "an unknown scope", form_of("exact", scope="nope"), "chat"
    for certificate in ("chat", "other", ""):
        what = certificate or "none"
        yield f"bound by {what}", form_of("bound", client_secret="s"), certificate
        yield f"bound, a wrong secret, by {what}", form_of("bound", client_secret="x"), certificate
        yield f"bound, an unknown scope, by {what}", form_of("bound", client_secret="s", scope="nope"), certificate
        yield f"bound, no flows, by {what}", form_of("bound-no-flows", client_secret="s"), certificate
        yield f"not bound by {what}", form_of("secret", client_secret="s"), certificate


def send_to(issuer: EmbeddedIssuer, certificates: Mapping[str, bytes]) -> Send:
    """Return what sends forms to the token endpoint of an embedded issuer, with the client certificates (DER) of these names."""
    path = f"/realms/{NAME}/protocol/openid-connect/token"
    typed = (("Content-Type", "application/x-www-form-urlencoded"),)

    def send(form: str, certificate: str) -> tuple[int, dict[str, Any]]:
        held = certificates[certificate] if certificate else b""
        answer = issuer.answer(Request("POST", path, typed, form.encode(), certificate=held))
        return answer.status, json.loads(answer.body)

    return send
