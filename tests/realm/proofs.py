"""A realm whose clients bind tokens by DPoP, and every question that is worth asking: of the embedded issuer, and of a real server.

Every secret is "s", and every password "p". A proof is made by the plainest code there is, so that each of its parts can be wrong.
"""

import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from example_app.realm import claims_of
from s2s_fastapi.realm.exchange import ACCESS_TOKEN, GRANT_TYPE
from s2s_fastapi.testing import EmbeddedIssuer, Request
from s2s_fastapi.text import base64url
from tests.realm.realms import BASIC, SERVICE_ACCOUNT, Representation, audience, caller, mapper, realm, scope, user

__all__ = ["NAME", "Post", "answers", "document", "form_of", "post_to", "proof"]

NAME = "proving"

Post = Callable[[str, Sequence[tuple[str, str]]], tuple[int, dict[str, Any]]]
"""Sends a form with further headers to the token endpoint, and returns the status and the members of the answer."""

KEYS: Mapping[str, tuple[str, Key]] = {
    "ES256": ("ES256", ECKey.generate_key("P-256")),
    "another": ("ES256", ECKey.generate_key("P-256")),
    "ES384": ("ES384", ECKey.generate_key("P-384")),
    "ES512": ("ES512", ECKey.generate_key("P-521")),
    "RS256": ("RS256", RSAKey.generate_key(2048)),
    "PS256": ("PS256", RSAKey.generate_key(2048)),
    "EdDSA": ("EdDSA", OKPKey.generate_key("Ed25519")),
}
_SECRET = OctKey.generate_key(256)
_FORCED = {"dpop.bound.access.tokens": "true"}
_EXCHANGES = {"standard.token.exchange.enabled": "true"}


def document() -> Representation:
    scopes = {"defaultClientScopes": ["basic", "service_account"], "optionalClientScopes": ["api-aud"]}
    front = {"publicClient": True, "secret": None, "directAccessGrantsEnabled": True, "serviceAccountsEnabled": False}
    return realm(
        NAME,
        accessTokenLifespan=300,
        clientScopes=[BASIC, SERVICE_ACCOUNT, scope("api-aud", audience("api"))],
        clients=[
            caller("api", serviceAccountsEnabled=False),
            caller("free", protocolMappers=[audience("api"), audience("requester")], **scopes),
            caller("other", **scopes),
            caller("forced", attributes=_FORCED, protocolMappers=[audience("api")], **scopes),
            caller("forced-off", attributes=_FORCED, serviceAccountsEnabled=False, **scopes),
            caller("forced-public", attributes=_FORCED, **{**front, "defaultClientScopes": ["basic"]}),
            caller("light", attributes={"client.use.lightweight.access.token.enabled": "true"}, **scopes),
            caller("typed", attributes={"access.token.header.type.rfc9068": "true"}, **scopes),
            caller("lower", attributes={"token.response.type.bearer.lower-case": "true"}, **scopes),
            caller("session", attributes={"client_credentials.use_refresh_token": "true"}, **scopes),
            caller(
                "mapped",
                protocolMappers=[
                    mapper("hardcoded-claim", "typ", claim_name="typ", claim_value="X", access_token_claim="true")
                ],
                **scopes,
            ),
            caller("mtls", attributes={"tls.client.certificate.bound.access.tokens": "true"}, **scopes),
            caller("requester", attributes=_EXCHANGES, **scopes),
            caller("forced-requester", attributes={**_EXCHANGES, **_FORCED}, **scopes),
            caller("no-requester", attributes=_FORCED, **scopes),
            caller(
                "front",
                protocolMappers=[audience("requester"), audience("forced-requester")],
                **{**front, "defaultClientScopes": ["basic"]},
            ),
            caller("no-flows", serviceAccountsEnabled=False, **scopes),
        ],
        users=[user("ann")],
    )


def form_of(client_id: str = "free", /, **members: Any) -> str:
    """Return the form of a service's own request. A member that is None is left out, one that is a list is repeated."""
    form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": "s", **members}
    return urlencode({name: value for name, value in form.items() if value is not None}, doseq=True)


def _login(client_id: str = "front", /, **members: Any) -> str:
    return form_of(
        client_id, **{"grant_type": "password", "client_secret": None, "username": "ann", "password": "p", **members}
    )


def _exchange(subject: str, client_id: str = "requester", /, **members: Any) -> str:
    given = {"grant_type": GRANT_TYPE, "subject_token": subject, "subject_token_type": ACCESS_TOKEN}
    return form_of(client_id, **{**given, "scope": "api-aud", **members})


def _part(value: object) -> str:
    return base64url(value.encode() if isinstance(value, str) else json.dumps(value).encode())


def proof(
    url: str,
    key: str = "ES256",
    *,
    header: Mapping[str, Any] | None = None,
    claims: Mapping[str, Any] | None = None,
    without: Sequence[str] = (),
    offset: int = 0,
    signed_as: str = "",
    change: Callable[[list[str]], list[str]] = lambda parts: parts,
    header_text: str = "",
    claims_text: str = "",
) -> str:
    """Return a proof for a POST to ``url``: a good one, unless something is wrong with it."""
    algorithm, private = KEYS[key]
    public = {name: value for name, value in private.as_dict(private=False).items() if name != "kid"}
    shown = {"typ": "dpop+jwt", "alg": algorithm, "jwk": public, **(header or {})}
    said = {"htm": "POST", "htu": url, "iat": int(time.time()) + offset, "jti": str(uuid4()), **(claims or {})}
    shown, said = ({name: value for name, value in each.items() if name not in without} for each in (shown, said))
    first = f"{_part(header_text or shown)}.{_part(claims_text or said)}"
    signing: Key = _SECRET if signed_as.startswith("HS") else private
    signature = JWSRegistry.algorithms[signed_as or algorithm].sign(first.encode(), signing)
    return ".".join(change([*first.split("."), base64url(signature)]))


def _flipped(parts: list[str]) -> list[str]:
    raw = bytearray(urlsafe_b64decode(parts[2] + "=="))
    raw[len(raw) // 2] ^= 1
    return [*parts[:2], base64url(bytes(raw))]


def _private(key: str) -> dict[str, Any]:
    return {name: value for name, value in KEYS[key][1].as_dict(private=True).items() if name != "kid"}


def _wrong(url: str) -> Iterator[tuple[str, str]]:
    """Yield proofs of which one thing is unusual."""
    yield from ((f"key {name}", proof(url, name)) for name in KEYS)
    yield from _wrong_headers(url)
    yield from _wrong_claims(url)
    yield from _wrong_forms(url)


def _wrong_headers(url: str) -> Iterator[tuple[str, str]]:
    jwk = {name: value for name, value in KEYS["ES256"][1].as_dict(private=False).items() if name != "kid"}
    for typ in ("JWT", "DPOP+JWT", "dpop+JWT", "", "application/dpop+jwt", "at+jwt"):
        yield f"typ {typ!r}", proof(url, header={"typ": typ})
    for alg in ("none", "HS256", "XX256", "ES256K", "Ed25519", "es256", ""):
        yield f"alg {alg!r}", proof(url, header={"alg": alg})
    yield "alg HS256, signed with a secret", proof(url, header={"alg": "HS256"}, signed_as="HS256")
    yield "alg none, no signature", proof(url, header={"alg": "none"}, change=lambda parts: [*parts[:2], ""])
    yield "alg of another curve", proof(url, header={"alg": "ES384"})
    yield "alg of another kind", proof(url, header={"alg": "RS256"})
    yield "alg EdDSA of another kind", proof(url, header={"alg": "EdDSA"})
    yield "alg of the same kind", proof(url, "RS256", header={"alg": "PS256"})
    for name in ("ES256", "RS256", "EdDSA"):
        yield f"private key {name}", proof(url, name, header={"jwk": _private(name)})
    yield "jwk of another key", proof(url, header={"jwk": {**jwk, "x": jwk["y"], "y": jwk["x"]}})
    yield "jwk of a stranger", proof(url, "another", header={"jwk": jwk})
    yield "jwk empty", proof(url, header={"jwk": {}})
    yield "jwk null", proof(url, header={"jwk": None})
    yield "jwk text", proof(url, header={"jwk": "x"})
    yield "jwk of a secret", proof(url, header={"jwk": {"kty": "oct", "k": "AAAA"}})
    yield "jwk of an unknown kind", proof(url, header={"jwk": {**jwk, "kty": "XX"}})
    yield "jwk without a curve", proof(url, header={"jwk": {name: jwk[name] for name in ("kty", "x", "y")}})
    yield "jwk with more members", proof(url, header={"jwk": {**jwk, "kid": "k", "use": "sig", "alg": "ES256"}})
    yield "jwk of another alg", proof(url, header={"jwk": {**jwk, "alg": "RS256"}})
    yield "jwk to encrypt", proof(url, header={"jwk": {**jwk, "use": "enc"}})
    yield "header with more members", proof(url, header={"kid": "k", "x": 1, "crit": ["x"]})


def _wrong_claims(url: str) -> Iterator[tuple[str, str]]:
    host = url.split("/")[2]
    yield from ((f"iat {offset}", proof(url, offset=offset)) for offset in (-60, -27, -23, -10, 0, 10, 14, 17, 60))
    for name in ("typ", "alg", "jwk", "iat", "jti", "htm", "htu"):
        yield f"without {name}", proof(url, without=[name])
    for name, value in (
        ("jti", ""),
        ("jti", "   "),
        ("jti", 7),
        ("htm", ""),
        ("htu", ""),
        ("iat", "now"),
        ("iat", None),
    ):
        yield f"{name} {value!r}", proof(url, claims={name: value})
    yield "iat in a text", proof(url, claims={"iat": str(int(time.time()))})
    yield "iat with a fraction", proof(url, claims={"iat": time.time()})
    yield "htm GET", proof(url, claims={"htm": "GET"})
    yield "htm post", proof(url, claims={"htm": "post"})
    yield "htm and htu", proof(url, claims={"htm": "GET", "htu": url + "x"})
    yield "htm and iat", proof(url, claims={"htm": "GET"}, offset=-60)
    yield "no jti and htu", proof(url, claims={"htu": url + "x"}, without=["jti"])
    yield "signature and no jti", proof(url, without=["jti"], change=_flipped)
    for what, htu in {
        "query": f"{url}?x=1",
        "fragment": f"{url}#y",
        "slash": f"{url}/",
        "https": url.replace("http://", "https://"),
        "upper case scheme": url.replace("http://", "HTTP://"),
        "host": url.replace(host, "evil.example"),
        "port": url.replace(host, host.split(":")[0] + ":1"),
        "path": url.replace("/token", "/token/introspect"),
        "dots": url.replace("/token", "/x/../token"),
        "escaped": url.replace("/token", "/%74oken"),
        "upper case path": url.replace("/token", "/TOKEN"),
        "user": url.replace("http://", "http://u:p@"),
        "no scheme": url.removeprefix("http:"),
        "path only": "/" + url.split("/", 3)[3],
        "no URL": "http://[",
        "spaces": "a b",
    }.items():
        yield f"htu {what}", proof(url, claims={"htu": htu})
    yield "nonce", proof(url, claims={"nonce": "n"})
    yield "ath", proof(url, claims={"ath": "x"})
    yield "exp passed, nbf to come", proof(url, claims={"exp": 1, "nbf": int(time.time()) + 900})


def _wrong_forms(url: str) -> Iterator[tuple[str, str]]:
    yield "one bit of the signature", proof(url, change=_flipped)
    yield "no signature", proof(url, change=lambda parts: [*parts[:2], ""])
    yield "two parts", proof(url, change=lambda parts: parts[:2])
    yield "four parts", proof(url, change=lambda parts: [*parts, parts[2]])
    yield "padding", proof(url, change=lambda parts: [parts[0], parts[1], parts[2] + "=="])
    yield "garbage", "abc"
    yield "empty", ""
    yield "comma", f"{proof(url)}, {proof(url)}"
    yield "claims no JSON", proof(url, claims_text="{")
    yield "claims a list", proof(url, claims_text="[]")
    yield "header no JSON", proof(url, header_text="{")
    yield "header a list", proof(url, header_text="[]")
    yield "a JSON proof", json.dumps({"payload": "e30", "signatures": []})


def answers(post: Post, url: str) -> dict[str, Any]:
    """Return every answer by its question, without what differs from one server to the next. ``url`` is that of the token endpoint."""
    return dict(_answers(post, url))


def _answers(post: Post, url: str) -> Iterator[tuple[str, Any]]:
    def asked(what: str, form: str, *proofs: str) -> tuple[str, Any]:
        return what, _plain(*post(form, [("DPoP", each) for each in proofs]))

    def token(form: str, *proofs: str) -> str:
        status, body = post(form, [("DPoP", each) for each in proofs])
        assert status == 200, body
        text: str = body["access_token"]
        return text

    for what, each in _wrong(url):
        yield asked(what, form_of(), each)
    yield "two headers", _plain(*post(form_of(), [("DPoP", proof(url)), ("DPoP", proof(url))]))
    yield asked("free, no proof", form_of())
    for client_id in ("forced", "forced-off", "light", "typed", "lower", "session", "mapped", "mtls", "no-flows"):
        yield asked(f"{client_id}, no proof", form_of(client_id))
        yield asked(f"{client_id}, a proof", form_of(client_id), proof(url))
        yield asked(f"{client_id}, a bad proof", form_of(client_id), "abc")
        yield asked(f"{client_id}, an empty proof", form_of(client_id), "")
    for what, form in {
        "a wrong secret": form_of(client_secret="x"),
        "an unknown client": form_of("nobody"),
        "an unknown scope": form_of(scope="nope"),
        "a parameter twice": form_of(scope=["api-aud", "api-aud"]),
        "an unknown grant": form_of(grant_type="nope"),
        "a public client": form_of("front", client_secret=None),
        "openid": form_of(scope="openid api-aud"),
        "a login": _login(),
        "a login with a wrong password": _login(password="x"),
        "a forced login": _login("forced-public"),
    }.items():
        yield asked(f"{what}, no proof", form)
        yield asked(f"{what}, a proof", form, proof(url))
        yield asked(f"{what}, a bad proof", form, "abc")
    used = proof(url, claims={"jti": f"used-{uuid4()}"})
    again = claims_of(used)["jti"]
    yield asked("a jti, first", form_of(), used)
    yield asked("the same proof", form_of(), used)
    yield asked("the same jti, another client", form_of("other"), proof(url, claims={"jti": again}))
    yield asked("the same jti, another key", form_of(), proof(url, "another", claims={"jti": again}))
    yield asked(
        "the same jti, another spelling of htu", form_of(), proof(url, claims={"jti": again, "htu": f"{url}?x"})
    )
    burned = proof(url)
    yield asked("a proof of somebody who is refused later", form_of(scope="nope"), burned)
    yield asked("the same proof after that", form_of(), burned)
    kept = proof(url)
    yield asked("a proof of somebody who is refused before", form_of(client_secret="x"), kept)
    yield asked("that proof after that", form_of(), kept)
    yield from _exchanges(asked, token, url)


def _exchanges(asked: Callable[..., tuple[str, Any]], token: Callable[..., str], url: str) -> Iterator[tuple[str, Any]]:
    bearer, bound = token(_login()), token(_login(), proof(url))
    own, own_bearer = token(form_of("requester"), proof(url)), token(form_of("requester"))
    service = token(form_of(), proof(url))
    subjects = {"bearer": bearer, "bound": bound, "own bound": own, "own bearer": own_bearer, "service bound": service}
    for what, subject in subjects.items():
        yield asked(f"exchange {what}, no proof", _exchange(subject))
        yield asked(f"exchange {what}, a proof", _exchange(subject), proof(url))
        yield asked(f"exchange {what}, a proof by another key", _exchange(subject), proof(url, "another"))
        yield asked(f"exchange {what}, a bad proof", _exchange(subject), "abc")
    yield asked("exchange, the requester must prove, no proof", _exchange(bearer, "forced-requester"))
    yield asked("exchange, the requester must prove", _exchange(bearer, "forced-requester"), proof(url))
    yield asked("exchange, not enabled, no proof", _exchange(bearer, "no-requester"))
    yield asked("exchange, not enabled", _exchange(bearer, "no-requester"), proof(url))
    yield asked("exchange, garbage and a bad proof", _exchange("x"), "abc")
    missing = {"subject_token": None, "requested_subject": "x"}
    yield asked("exchange, nothing right, no proof", _exchange("", "forced-requester", **missing))
    yield asked("exchange, no subject, a bad proof", _exchange("", **missing), "abc")


def _plain(status: int, body: Mapping[str, Any]) -> Any:
    if status != 200:
        return status, dict(body)
    token = body["access_token"]
    header = json.loads(urlsafe_b64decode(token.split(".")[0] + "=="))
    claims = claims_of(token)
    keys = {key.thumbprint(): name for name, (_, key) in KEYS.items()}
    shown = {name: value for name, value in claims.items() if name not in {"iss", "iat", "exp", "sub", "sid"}}
    shown["jti"] = shown["jti"].rpartition(":")[0]
    if "cnf" in shown:
        shown["cnf"] = {**shown["cnf"], "jkt": keys[shown["cnf"]["jkt"]]}
    for name in ("aud", "scope"):
        if name in shown:
            shown[name] = sorted(shown[name] if isinstance(shown[name], list) else shown[name].split())
    shown.pop("clientAddress", None)
    shown.pop("clientHost", None)
    answered = {name: body[name] for name in ("token_type", "issued_token_type") if name in body}
    members = sorted(name for name in body if name != "not-before-policy")
    refresh = claims_of(body["refresh_token"]) if "refresh_token" in body else {}
    return {
        "header": header["typ"],
        "members": members,
        **answered,
        "claims": shown,
        "refresh": keys.get(refresh.get("cnf", {}).get("jkt"), "") if refresh else None,
    }


def post_to(issuer: EmbeddedIssuer, realm_name: str = NAME) -> Post:
    """Return what sends forms to the token endpoint of an embedded issuer."""
    path = f"/realms/{realm_name}/protocol/openid-connect/token"
    typed = ("Content-Type", "application/x-www-form-urlencoded")

    def post(form: str, headers: Sequence[tuple[str, str]]) -> tuple[int, dict[str, Any]]:
        answer = issuer.answer(Request("POST", path, (typed, *headers), form.encode()))
        return answer.status, json.loads(answer.body)

    return post
