"""Guards that each have one hole: what people forget, and what real packages got wrong."""

import contextlib
import hmac
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

import httpx
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import KeySet, RSAKey

from tests.testing.attack.broken.guard import (
    AUDIENCE,
    PUBLIC,
    Guard,
    NoKeys,
    Receive,
    Refused,
    Scope,
    Send,
    refuse_unless,
)


class AudienceIgnored(Guard):
    def check_audience(self, claims: dict[str, Any]) -> None:
        pass


class AudienceBySubstring(Guard):
    def check_audience(self, claims: dict[str, Any]) -> None:
        refuse_unless(AUDIENCE in str(claims.get("aud")))


class AudienceByPrefix(Guard):
    def check_audience(self, claims: dict[str, Any]) -> None:
        refuse_unless(str(claims.get("aud")).startswith(AUDIENCE))


class MissingAudiencePasses(Guard):
    def check_audience(self, claims: dict[str, Any]) -> None:
        if "aud" in claims:
            super().check_audience(claims)


class IssuerByPrefix(Guard):
    def check_issuer(self, claims: dict[str, Any]) -> None:
        refuse_unless(str(claims.get("iss")).startswith(self.trusted.issuer))


class IssuerByHost(Guard):
    def check_issuer(self, claims: dict[str, Any]) -> None:
        refuse_unless(str(claims.get("iss")).startswith(self.trusted.url))


class IssuerIgnored(Guard):
    def check_issuer(self, claims: dict[str, Any]) -> None:
        pass


class SecretIsThePublicKey(Guard):
    def check_header(self, header: dict[str, Any]) -> None:
        super().check_header({**header, "alg": "RS256"} if header.get("alg") == "HS256" else header)

    def check_signature(self, header: dict[str, Any], signing_input: bytes, signature: bytes) -> None:
        if header["alg"] != "HS256":
            super().check_signature(header, signing_input, signature)
            return
        key: Any = self.key({**header, "alg": "RS256"})
        pem = key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        refuse_unless(hmac.digest(pem, signing_input, "sha256") == signature)


class NoneIsAnAlgorithm(Guard):
    def verified(self, token: str) -> dict[str, Any]:
        header, claims, signature = (*token.split("."), "", "")[:3]
        if signature == "" and str(self.read(header).get("alg")).lower() == "none":
            return dict(self.read(claims))
        return super().verified(token)


class SignatureIgnored(Guard):
    def check_signature(self, header: dict[str, Any], signing_input: bytes, signature: bytes) -> None:
        self.key(header)


class EmptySignaturePasses(Guard):
    def verified(self, token: str) -> dict[str, Any]:
        return dict(self.read(token.split(".")[1])) if token.endswith(".") else super().verified(token)


class TypeIgnored(Guard):
    def check_type(self, claims: dict[str, Any]) -> None:
        pass


class UserIsAService(Guard):
    def check_kind(self, claims: dict[str, Any]) -> None:
        pass


class ServiceByUserName(Guard):
    def check_kind(self, claims: dict[str, Any]) -> None:
        refuse_unless(str(claims.get("preferred_username")).startswith("service-account-"), 403)


class AnyService(Guard):
    def check_caller(self, claims: dict[str, Any]) -> None:
        refuse_unless(isinstance(claims.get("azp"), str) and claims["azp"])
        self.check_kind(claims)


class CachedAfterItsEnd(Guard):
    seen: dict[str, dict[str, Any]]

    def check(self, scope: Scope) -> None:
        self.seen = getattr(self, "seen", {})
        token = self.token(scope)
        if token not in self.seen:
            super().check(scope)
            self.seen[token] = {}


class CachedByJti(Guard):
    seen: set[str]

    def check(self, scope: Scope) -> None:
        self.seen = getattr(self, "seen", set())
        parts = self.token(scope).split(".")
        jti = str(self.read(parts[1]).get("jti")) if len(parts) == 3 else ""
        if jti not in self.seen:
            super().check(scope)
            self.seen.add(jti)


class CachedByPrefix(Guard):
    seen: set[str]

    def check(self, scope: Scope) -> None:
        self.seen = getattr(self, "seen", set())
        prefix = self.token(scope).rpartition(".")[0]
        if prefix not in self.seen:
            super().check(scope)
            self.seen.add(prefix)


class KidIgnored(Guard):
    def key(self, header: dict[str, Any]) -> Any:
        return next(key for key in self.keys().keys if key.get("alg") == header["alg"])


class KeyOfTheToken(Guard):
    def check_header(self, header: dict[str, Any]) -> None:
        super().check_header({name: value for name, value in header.items() if name != "jwk"})

    def key(self, header: dict[str, Any]) -> Any:
        return RSAKey.import_key(header["jwk"]) if "jwk" in header else super().key(header)


class KeysForEver(Guard):
    def keys(self) -> KeySet:
        self.fetched = self.fetched or self.fetch()
        return self.fetched


class CritIgnored(Guard):
    def check_header(self, header: dict[str, Any]) -> None:
        super().check_header({name: value for name, value in header.items() if name != "crit"})


class LastMemberCounts(Guard):
    def members(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(pairs)


class AnySpelling(Guard):
    def decoded(self, part: str) -> bytes:
        try:
            return urlsafe_b64decode(part + "=" * (-len(part) % 4))
        except ValueError:
            raise Refused from None


class ExpiryIgnored(Guard):
    def check_dates(self, claims: dict[str, Any]) -> None:
        super().check_dates({**claims, "iat": int(self.trusted.clock()), "exp": int(self.trusted.clock()) + 300})


class NotBeforeIgnored(Guard):
    def check_dates(self, claims: dict[str, Any]) -> None:
        super().check_dates({**claims, "nbf": 0})


class BindingIgnored(Guard):
    def check_claims(self, claims: dict[str, Any]) -> None:
        super().check_claims({name: value for name, value in claims.items() if name != "cnf"})


class FirstHeaderCounts(Guard):
    def token(self, scope: Scope) -> str:
        first = next((pair for pair in scope["headers"] if pair[0] == b"authorization"), None)
        others = [pair for pair in scope["headers"] if pair[0] != b"authorization"]
        return super().token({**scope, "headers": [*others, *([first] if first else [])]})


class AnyScheme(Guard):
    def token(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == b"authorization":
                return str(value.decode("latin-1").rpartition(" ")[2])
        raise Refused


class TokenInTheUrl(Guard):
    def token(self, scope: Scope) -> str:
        name, _, token = scope["query_string"].decode("latin-1").partition("=")
        return token if name == "access_token" else super().token(scope)


class ExceptionPasses(Guard):
    def check(self, scope: Scope) -> None:
        with contextlib.suppress(AttributeError, KeyError, TypeError):
            super().check(scope)

    def check_audience(self, claims: dict[str, Any]) -> None:
        refuse_unless(AUDIENCE in claims["aud"])  # raises for a token without one


class NoKeysPass(Guard):
    def check_signature(self, header: dict[str, Any], signing_input: bytes, signature: bytes) -> None:
        try:
            self.keys()
        except NoKeys:
            return
        super().check_signature(header, signing_input, signature)


class BadTokenIsAnonymous(Guard):
    def check(self, scope: Scope) -> None:
        if any(name == b"authorization" for name, _ in scope["headers"]):
            super().check(scope)


class PathByAPart(Guard):
    def is_open(self, scope: Scope) -> bool:
        return PUBLIC.strip("/") in scope.get("path", "")


class QueryCounts(Guard):
    def is_open(self, scope: Scope) -> bool:
        return super().is_open(scope) or PUBLIC in scope.get("query_string", b"").decode("latin-1")


class HeaderNamesThePath(Guard):
    def is_open(self, scope: Scope) -> bool:
        path = dict(scope["headers"]).get(b"x-original-url", scope["path"].encode())
        return bool(path.decode("latin-1") == PUBLIC)


class ProxyIsBelieved(Guard):
    def check(self, scope: Scope) -> None:
        if b"x-forwarded-user" not in dict(scope["headers"]):
            super().check(scope)


class WebSocketOpen(Guard):
    def is_open(self, scope: Scope) -> bool:
        return scope["type"] == "websocket" or super().is_open(scope)


class HeadOpen(Guard):
    def is_open(self, scope: Scope) -> bool:
        return scope.get("method") == "HEAD" or super().is_open(scope)


class DeleteOpen(Guard):
    def is_open(self, scope: Scope) -> bool:
        return scope.get("method") == "DELETE" or super().is_open(scope)


class MountOpen(Guard):
    def is_open(self, scope: Scope) -> bool:
        return scope["path"].startswith("/mounted") or super().is_open(scope)


class RefusalWithoutAnEnd(Guard):
    """Answers 401 and runs the app all the same: its answer is lost, its work is done."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        if scope["type"] == "http" and not self.is_open(scope):
            try:
                self.check(scope)
            except Refused:
                await self.app(scope, receive, _into_the_void)


class KeyWhereTheTokenSays(Guard):
    place = ""

    def check_header(self, header: dict[str, Any]) -> None:
        self.place = header.get("jku", "")
        super().check_header({name: value for name, value in header.items() if name != "jku"})

    def keys(self) -> KeySet:
        if not self.place:
            return super().keys()
        try:
            page = httpx.get(self.place, trust_env=False, timeout=30).raise_for_status().json()
        except httpx.HTTPError:
            raise NoKeys from None
        return KeySet.import_key_set(page)


class NoKeyIsAnyKey(Guard):
    def check_signature(self, header: dict[str, Any], signing_input: bytes, signature: bytes) -> None:
        with contextlib.suppress(httpx.HTTPError):
            page = httpx.get(self.trusted.jwks_url, trust_env=False, timeout=30).raise_for_status().json()
            if not page["keys"]:
                return
        super().check_signature(header, signing_input, signature)


def _has(scope: Scope, name: bytes, start: bytes) -> bool:
    return any(found == name and value.startswith(start) for found, value in scope["headers"])


class UpgradesAreOpen(Guard):
    def is_open(self, scope: Scope) -> bool:
        return super().is_open(scope) or (scope["type"] == "http" and _has(scope, b"upgrade", b"websocket"))


class LocalhostIsOpen(Guard):
    def is_open(self, scope: Scope) -> bool:
        return super().is_open(scope) or _has(scope, b"host", b"localhost")


class ProbesAreOpen(Guard):
    def is_open(self, scope: Scope) -> bool:
        return super().is_open(scope) or _has(scope, b"user-agent", b"kube-probe")


class FilesAreOpen(Guard):
    def is_open(self, scope: Scope) -> bool:
        return super().is_open(scope) or scope["path"].endswith((".css", ".js"))


class PathOfAHeaderIsServed(Guard):
    """Judges the path of the request, and runs the one that a header names."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = dict(scope.get("headers", ())).get(b"x-original-url")
        if named is not None and self.is_open(scope):
            scope = {**scope, "path": named.decode("latin-1"), "raw_path": named}
            await self.app(scope, receive, send)
            return
        await super().__call__(scope, receive, send)


async def _into_the_void(_: Any) -> None:
    pass


def _planted() -> dict[str, Callable[..., Guard]]:
    return {kind.__name__: kind for kind in globals().values() if isinstance(kind, type) and issubclass(kind, Guard)}


GUARDS = {name: kind for name, kind in _planted().items() if kind is not Guard}
