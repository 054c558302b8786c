"""A small realm, and ways to ask an embedded issuer without any HTTP."""

import json
from base64 import b64encode, urlsafe_b64decode
from typing import Any
from urllib.parse import quote_plus, urlencode

from s2s_fastapi.testing import EmbeddedIssuer, Request, Response

SECRET = "s3cret-of-the-caller"
ODD_ID, ODD_SECRET = "odd:client", "p%41+: ä&=\N{SNOWMAN}"
PASSWORD = "dora's pass+word"
ORIGIN = "http://localhost:3000"


def _audience(target: str) -> dict[str, Any]:
    config = {"included.client.audience": target, "access.token.claim": "true"}
    return {
        "name": f"aud {target}",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "config": config,
    }


def client(client_id: str, **changes: Any) -> dict[str, Any]:
    """Return a confidential client with a service account, whose tokens are for ``receiver``."""
    return {
        "clientId": client_id,
        "enabled": True,
        "protocol": "openid-connect",
        "publicClient": False,
        "clientAuthenticatorType": "client-secret",
        "secret": SECRET,
        "directAccessGrantsEnabled": False,
        "serviceAccountsEnabled": True,
        "fullScopeAllowed": False,
        "protocolMappers": [_audience("receiver")],
        **changes,
    }


def signing(algorithm: str) -> dict[str, Any]:
    return client(f"signs-{algorithm}", attributes={"access.token.signed.response.alg": algorithm})


def document(name: str = "corp", **changes: Any) -> dict[str, Any]:
    return {
        "realm": name,
        "enabled": True,
        "accessTokenLifespan": 300,
        "clients": [
            client("caller"),
            client("receiver", serviceAccountsEnabled=False),
            client(ODD_ID, secret=ODD_SECRET),
            client("ui", publicClient=True, secret=None, serviceAccountsEnabled=False, directAccessGrantsEnabled=True)
            | {"redirectUris": [f"{ORIGIN}/*"], "webOrigins": ["+"]},
            client("direct", directAccessGrantsEnabled=True, webOrigins=["https://app.example"]),
            client("off", enabled=False),
            *(signing(algorithm) for algorithm in ("ES256", "PS256", "EdDSA", "HS512")),
            client("rfc9068", attributes={"access.token.header.type.rfc9068": "true"}),
            client("light", attributes={"client.use.lightweight.access.token.enabled": "true"}),
        ],
        "users": [
            {
                "username": "dora",
                "enabled": True,
                "email": "dora@corp.example",
                "emailVerified": True,
                "firstName": "Dora",
                "lastName": "D",
                "credentials": [{"type": "password", "value": PASSWORD}],
            }
        ],
        **changes,
    }


TOKEN = "/realms/corp/protocol/openid-connect/token"
CERTS = "/realms/corp/protocol/openid-connect/certs"
DISCOVERY = "/realms/corp/.well-known/openid-configuration"
REALM = "/realms/corp"
GRANT = {"grant_type": "client_credentials", "client_id": "caller", "client_secret": SECRET}
LOGIN = {"grant_type": "password", "client_id": "ui", "username": "dora", "password": PASSWORD}


def get(issuer: EmbeddedIssuer, path: str, method: str = "GET", **headers: str) -> Response:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return issuer.answer(Request(method, path, named))


def post(
    issuer: EmbeddedIssuer,
    form: dict[str, str] | str,
    *,
    path: str = TOKEN,
    content_type: str = "application/x-www-form-urlencoded",
    authorization: str | None = None,
    origin: str | None = None,
) -> Response:
    headers = [("Content-Type", content_type)]
    headers += [("authorization", authorization)] if authorization is not None else []
    headers += [("Origin", origin)] if origin is not None else []
    body = form if isinstance(form, str) else urlencode(form)
    return issuer.answer(Request("POST", path, tuple(headers), body.encode()))


def basic(client_id: str, secret: str, *, encoded: bool = True) -> str:
    pair = ":".join(quote_plus(part) if encoded else part for part in (client_id, secret))
    return f"Basic {b64encode(pair.encode()).decode()}"


def body(response: Response) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(response.body)
    return found


def refusal(response: Response) -> tuple[int, str, str]:
    members = body(response)
    return response.status, members["error"], members.get("error_description", "")


def part(token: str, number: int) -> dict[str, Any]:
    text = token.split(".")[number]
    found: dict[str, Any] = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found


def token(issuer: EmbeddedIssuer, **form: str) -> str:
    answer = post(issuer, GRANT | form)
    assert answer.status == 200, answer.body
    value: str = body(answer)["access_token"]
    return value


def kids(issuer: EmbeddedIssuer, use: str = "sig") -> set[str]:
    return {key["kid"] for key in body(get(issuer, CERTS))["keys"] if key["use"] == use}
