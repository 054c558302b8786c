"""A guard as people write it by hand, and right: the broken ones each drop one thing of it."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httpx
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from s2s_fastapi.testing.attack.target import TrustedIssuer

AUDIENCE = "orders-api"
CALLER = "shop"
PUBLIC = "/health"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Refused(Exception):
    """The request is answered with this status."""

    def __init__(self, status: int = 401) -> None:
        self.status = status


class NoKeys(Exception):
    """The keys cannot be fetched."""


def refuse_unless(condition: object, status: int = 401) -> None:
    if not condition:
        raise Refused(status)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    refuse_unless(len(members) == len(pairs))
    return members


def never(_: str) -> Any:
    raise Refused


class Guard:
    """Every step is a method, so that a broken guard replaces one."""

    def __init__(self, app: Any, trusted: TrustedIssuer) -> None:
        self.app = app
        self.trusted = trusted
        self.fetched: KeySet | None = None
        self.fetched_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self.is_open(scope):
            await self.app(scope, receive, send)
            return
        try:
            self.check(scope)
        except Refused as refused:
            await self.answer(refused.status, scope, send)
            return
        await self.app(scope, receive, send)

    async def answer(self, status: int, scope: Scope, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        challenge = [(b"www-authenticate", b"Bearer")] if status == 401 else []
        await send({"type": "http.response.start", "status": status, "headers": challenge})
        await send({"type": "http.response.body", "body": b""})

    def is_open(self, scope: Scope) -> bool:
        return bool(scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == PUBLIC)

    # The request

    def check(self, scope: Scope) -> None:
        token = self.token(scope)
        claims = self.verified(token)
        self.check_claims(claims)
        self.check_caller(claims)

    def token(self, scope: Scope) -> str:
        values: list[str] = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
        refuse_unless(values)
        refuse_unless(len(values) == 1, 400)
        scheme, _, token = values[0].partition(" ")
        refuse_unless(scheme.lower() == "bearer")
        refuse_unless(token and token.replace("=", "").translate(TOKEN68) == "", 400)
        refuse_unless(b"access_token=" not in scope["query_string"], 400)
        refuse_unless(len(token) <= 16384, 400)
        return token

    # The token

    def verified(self, token: str) -> dict[str, Any]:
        parts = token.split(".")
        refuse_unless(len(parts) == 3)
        header = self.read(parts[0])
        refuse_unless(isinstance(header, dict))
        self.check_header(header)
        signing_input = f"{parts[0]}.{parts[1]}".encode()
        self.check_signature(header, signing_input, self.decoded(parts[2]))
        claims = self.read(parts[1])
        refuse_unless(isinstance(claims, dict))
        return dict(claims)

    def decoded(self, part: str) -> bytes:
        try:
            raw = urlsafe_b64decode(part + "=" * (-len(part) % 4))
        except ValueError:
            raise Refused from None
        refuse_unless(raw and urlsafe_b64encode(raw).rstrip(b"=").decode() == part)
        return raw

    def read(self, part: str) -> Any:
        try:
            text = self.decoded(part).decode("utf-8")
            refuse_unless(not text.startswith("\ufeff"))
            return json.loads(text, object_pairs_hook=self.members, parse_constant=never, parse_float=finite)
        except (ValueError, RecursionError):
            raise Refused from None

    def members(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return unique(pairs)

    def check_header(self, header: dict[str, Any]) -> None:
        refuse_unless(not header.keys() & {"crit", "b64", "zip", "cty", "enc", "jwk", "jku", "x5u", "x5c"})
        refuse_unless(str(header.get("typ")).lower() in ("jwt", "at+jwt"))
        refuse_unless(header.get("alg") in ("RS256", "ES256"))
        refuse_unless(isinstance(header.get("kid"), str) and len(header["kid"]) < 500)

    def check_signature(self, header: dict[str, Any], signing_input: bytes, signature: bytes) -> None:
        key = self.key(header)
        refuse_unless(JWSRegistry.algorithms[header["alg"]].verify(signing_input, signature, key))

    def key(self, header: dict[str, Any]) -> Any:
        try:
            keys = self.keys()
        except NoKeys:
            raise Refused(503) from None
        found = [key for key in keys.keys if key.kid == header["kid"] and key.get("alg") == header["alg"]]
        refuse_unless(len(found) == 1)
        return found[0]

    def keys(self) -> KeySet:
        if self.fetched is None or self.trusted.clock() > self.fetched_at + 300:
            self.fetched = self.fetch()
            self.fetched_at = self.trusted.clock()
        return self.fetched

    def fetch(self) -> KeySet:
        try:
            page = httpx.get(self.trusted.jwks_url, trust_env=False, timeout=30).raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            raise NoKeys from None
        keys = [entry for entry in page["keys"] if entry["use"] == "sig"]
        if not keys:
            raise NoKeys
        return KeySet.import_key_set({"keys": keys})

    # The claims

    def check_claims(self, claims: dict[str, Any]) -> None:
        refuse_unless("cnf" not in claims)
        self.check_type(claims)
        self.check_issuer(claims)
        self.check_dates(claims)
        self.check_audience(claims)
        for access in ("realm_access", "resource_access"):
            refuse_unless(isinstance(claims.get(access, {}), dict))
        roles = claims.get("realm_access", {}).get("roles", [])
        refuse_unless(isinstance(roles, list) and all(isinstance(role, str) for role in roles))
        refuse_unless(isinstance(claims.get("scope", ""), str))

    def check_type(self, claims: dict[str, Any]) -> None:
        refuse_unless(claims.get("typ") == "Bearer")

    def check_issuer(self, claims: dict[str, Any]) -> None:
        refuse_unless(claims.get("iss") == self.trusted.issuer)

    def check_dates(self, claims: dict[str, Any]) -> None:
        now = self.trusted.clock()
        exp, iat, nbf = claims.get("exp"), claims.get("iat"), claims.get("nbf", 0)
        for date in (exp, iat, nbf):
            refuse_unless(type(date) is int and 0 <= date < 2**53)
        refuse_unless(now < exp and iat <= now + 5 and nbf <= now + 5 and exp - iat < 86400)  # type: ignore[operator]  # ints: just checked

    def check_audience(self, claims: dict[str, Any]) -> None:
        audience = claims.get("aud", [])
        several = audience if isinstance(audience, list) else [audience]
        refuse_unless(all(isinstance(name, str) and name for name in several))
        refuse_unless(AUDIENCE in several)

    def check_caller(self, claims: dict[str, Any]) -> None:
        refuse_unless(isinstance(claims.get("azp"), str) and claims["azp"])
        self.check_kind(claims)
        refuse_unless(claims["azp"] == CALLER, 403)

    def check_kind(self, claims: dict[str, Any]) -> None:
        refuse_unless("sid" not in claims and claims.get("client_id") == claims["azp"], 403)


TOKEN68 = {ord(letter): None for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"}


def finite(text: str) -> float:
    number = float(text)
    refuse_unless(abs(number) != float("inf"))
    return number
