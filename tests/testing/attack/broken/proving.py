"""A guard that accepts tokens bound to a key by DPoP (RFC 9449), as people would write it by hand, and right; and guards that each forget one thing of it."""

import json
from base64 import urlsafe_b64decode
from collections.abc import Callable
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from joserfc.jwk import ECKey, Key, OctKey, RSAKey
from joserfc.jws import JWSRegistry

from s2s_fastapi.testing.attack import Target
from s2s_fastapi.text import base64url
from tests.testing.attack.broken.apps import app_behind
from tests.testing.attack.broken.guard import (
    AUDIENCE,
    CALLER,
    PUBLIC,
    TOKEN68,
    Guard,
    Refused,
    Scope,
    Send,
    refuse_unless,
)

PUBLIC_URL = "https://orders.example.com/api"


class Proving(Guard):
    """Accepts bound tokens only. Every step of the proof is a method, so that a broken guard replaces one."""

    used: dict[str, float]

    def check(self, scope: Scope) -> None:
        scheme, token = self.credentials(scope)
        claims = self.verified(token)
        self.check_claims(claims)
        if self.needs_proof(scheme, claims):
            self.check_proof(scope, token, claims)
        self.check_caller(claims)

    def credentials(self, scope: Scope) -> tuple[str, str]:
        values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
        refuse_unless(values)
        refuse_unless(len(values) == 1, 400)
        scheme, _, token = values[0].partition(" ")
        refuse_unless(scheme.lower() in self.schemes())
        refuse_unless(token and token.replace("=", "").translate(TOKEN68) == "", 400)
        refuse_unless(b"access_token=" not in scope["query_string"], 400)
        refuse_unless(len(token) <= 16384, 400)
        return scheme.lower(), token

    def schemes(self) -> tuple[str, ...]:
        return ("dpop",)

    def needs_proof(self, scheme: str, claims: dict[str, Any]) -> bool:
        return True

    async def answer(self, status: int, scope: Scope, send: Send) -> None:
        async def with_scheme(message: Any) -> None:
            if message.get("headers"):
                message["headers"] = [(b"www-authenticate", b'DPoP algs="ES256"')]
            await send(message)

        await super().answer(status, scope, with_scheme)

    # The token

    def check_claims(self, claims: dict[str, Any]) -> None:
        self.check_binding(claims)
        super().check_claims({name: value for name, value in claims.items() if name != "cnf"})

    def check_type(self, claims: dict[str, Any]) -> None:
        refuse_unless(claims.get("typ") == "DPoP")

    def check_binding(self, claims: dict[str, Any]) -> None:
        refuse_unless(isinstance(claims.get("cnf"), dict) and isinstance(claims["cnf"].get("jkt"), str))

    # The proof

    def check_proof(self, scope: Scope, token: str, claims: dict[str, Any]) -> None:
        proof = self.proof(scope)
        parts = proof.split(".")
        refuse_unless(len(parts) == 3 and len(proof) <= 4096)
        header = self.read(parts[0])
        refuse_unless(isinstance(header, dict))
        self.check_proof_type(header)
        self.check_proof_header(header)
        key = self.proof_key(header)
        self.check_proof_signature(header, f"{parts[0]}.{parts[1]}".encode(), parts[2], key)
        self.check_thumbprint(key, claims)
        said = self.read(parts[1])
        refuse_unless(isinstance(said, dict))
        self.check_proof_claims(said, scope, token)

    def proof(self, scope: Scope) -> str:
        values: list[str] = [value.decode("latin-1") for name, value in scope["headers"] if name == b"dpop"]
        refuse_unless(len(values) == 1)
        return values[0]

    def check_proof_type(self, header: dict[str, Any]) -> None:
        refuse_unless(header.get("typ") == "dpop+jwt")

    def check_proof_header(self, header: dict[str, Any]) -> None:
        refuse_unless(header.keys() == {"typ", "alg", "jwk"})
        refuse_unless(header["alg"] == "ES256")
        refuse_unless(isinstance(header["jwk"], dict) and header["jwk"].keys() == {"kty", "crv", "x", "y"})

    def proof_key(self, header: dict[str, Any]) -> Key:
        try:
            return ECKey.import_key(header["jwk"])
        except Exception:  # noqa: BLE001 - any error of a library that reads what a client wrote into a header
            raise Refused from None

    def check_proof_signature(self, header: dict[str, Any], signing_input: bytes, signature: str, key: Key) -> None:
        raw = self.decoded(signature)
        refuse_unless(JWSRegistry.algorithms[header["alg"]].verify(signing_input, raw, key))

    def check_thumbprint(self, key: Key, claims: dict[str, Any]) -> None:
        refuse_unless(key.thumbprint() == claims["cnf"]["jkt"])

    def check_proof_claims(self, said: dict[str, Any], scope: Scope, token: str) -> None:
        refuse_unless(all(isinstance(said.get(name), str) and said[name] for name in self.texts()))
        self.check_proof_time(said)
        self.check_method(said, "GET" if scope["type"] == "websocket" else scope["method"])
        self.check_url(said, scope)
        self.check_token_of_proof(said, token)
        self.check_used(said)

    def texts(self) -> tuple[str, ...]:
        return "jti", "htm", "htu", "ath"

    def check_proof_time(self, said: dict[str, Any]) -> None:
        iat = said.get("iat")
        refuse_unless(type(iat) is int and self.too_old() < iat - self.trusted.clock() <= 10)

    def too_old(self) -> float:
        return -30

    def check_method(self, said: dict[str, Any], method: str) -> None:
        refuse_unless(said["htm"] == method)

    def check_url(self, said: dict[str, Any], scope: Scope) -> None:
        refuse_unless(said["htu"] == self.url(scope))

    def url(self, scope: Scope) -> str:
        return PUBLIC_URL + str(scope["raw_path"].decode())

    def check_token_of_proof(self, said: dict[str, Any], token: str) -> None:
        refuse_unless(said["ath"] == base64url(sha256(token.encode()).digest()))

    def check_used(self, said: dict[str, Any]) -> None:
        self.used = getattr(self, "used", {})
        refuse_unless(said["jti"] not in self.used)
        self.used[said["jti"]] = self.trusted.clock()


class BothSchemes(Proving):
    """Also accepts bearer tokens that are bound to nothing, and is right, too."""

    def schemes(self) -> tuple[str, ...]:
        return "dpop", "bearer"

    def needs_proof(self, scheme: str, claims: dict[str, Any]) -> bool:
        refuse_unless((scheme == "dpop") == ("cnf" in claims))
        return scheme == "dpop"

    def check_type(self, claims: dict[str, Any]) -> None:
        refuse_unless(claims.get("typ") == "DPoP" if self.is_bound else claims.get("typ") == "Bearer")

    is_bound = False

    def check_binding(self, claims: dict[str, Any]) -> None:
        self.is_bound = "cnf" in claims
        if self.is_bound:
            super().check_binding(claims)


# What people forget


class ProofOptional(Proving):
    """Checks a proof if there is one."""

    def check_proof(self, scope: Scope, token: str, claims: dict[str, Any]) -> None:
        if any(name == b"dpop" for name, _ in scope["headers"]):
            super().check_proof(scope, token, claims)


class BearerDowngrade(BothSchemes):
    """Takes a bound token under the scheme Bearer for a bearer token."""

    def needs_proof(self, scheme: str, claims: dict[str, Any]) -> bool:
        return scheme == "dpop"


class ProofByItsPresence(BothSchemes):
    """Asks for a proof of whoever sends one."""

    def needs_proof(self, scheme: str, claims: dict[str, Any]) -> bool:
        return scheme == "dpop"

    def check_binding(self, claims: dict[str, Any]) -> None:
        self.is_bound = "cnf" in claims

    def check_thumbprint(self, key: Key, claims: dict[str, Any]) -> None:
        if self.is_bound:
            super().check_thumbprint(key, claims)


class ThumbprintIgnored(Proving):
    def check_thumbprint(self, key: Key, claims: dict[str, Any]) -> None:
        pass


class ProofSignatureIgnored(Proving):
    def check_proof_signature(self, header: dict[str, Any], signing_input: bytes, signature: str, key: Key) -> None:
        pass


class EmptyProofSignature(Proving):
    def check_proof_signature(self, header: dict[str, Any], signing_input: bytes, signature: str, key: Key) -> None:
        if signature:
            super().check_proof_signature(header, signing_input, signature, key)


class ProofOfNothing(Proving):
    """Believes alg none."""

    def check_proof_header(self, header: dict[str, Any]) -> None:
        super().check_proof_header({**header, "alg": "ES256"} if header.get("alg") == "none" else header)

    def check_proof_signature(self, header: dict[str, Any], signing_input: bytes, signature: str, key: Key) -> None:
        if header["alg"] != "none":
            super().check_proof_signature(header, signing_input, signature, key)


class ProofOfASecret(Proving):
    """Believes a proof that is signed with an empty secret."""

    def check_proof_header(self, header: dict[str, Any]) -> None:
        super().check_proof_header({**header, "alg": "ES256"} if str(header.get("alg")).startswith("HS") else header)

    def check_proof_signature(self, header: dict[str, Any], signing_input: bytes, signature: str, key: Key) -> None:
        if header["alg"].startswith("HS"):
            secret = OctKey.import_key(b"\0" * 32)  # an HMAC with it is that of the empty secret
            refuse_unless(JWSRegistry.algorithms[header["alg"]].verify(signing_input, self.decoded(signature), secret))
        else:
            super().check_proof_signature(header, signing_input, signature, key)


class ProofTypeIgnored(Proving):
    def check_proof_type(self, header: dict[str, Any]) -> None:
        pass

    def check_proof_header(self, header: dict[str, Any]) -> None:
        super().check_proof_header({**header, "typ": "dpop+jwt"})


class PrivateKeyAccepted(Proving):
    def check_proof_header(self, header: dict[str, Any]) -> None:
        jwk = header.get("jwk")
        public = {name: value for name, value in jwk.items() if name != "d"} if isinstance(jwk, dict) else jwk
        super().check_proof_header({**header, "jwk": public})


class ProofCritIgnored(Proving):
    def check_proof_header(self, header: dict[str, Any]) -> None:
        super().check_proof_header({name: header[name] for name in ("typ", "alg", "jwk") if name in header})


class ProofsForEver(Proving):
    def too_old(self) -> float:
        return float("-inf")


class FutureProofs(Proving):
    def check_proof_time(self, said: dict[str, Any]) -> None:
        iat = said.get("iat")
        refuse_unless(type(iat) is int and iat > self.trusted.clock() - 30)


class ProofTimeOptional(Proving):
    def check_proof_time(self, said: dict[str, Any]) -> None:
        if "iat" in said:
            super().check_proof_time(said)


class AnyMethod(Proving):
    def check_method(self, said: dict[str, Any], method: str) -> None:
        pass


class AnyUrl(Proving):
    def check_url(self, said: dict[str, Any], scope: Scope) -> None:
        pass


class UrlByItsPath(Proving):
    def check_url(self, said: dict[str, Any], scope: Scope) -> None:
        refuse_unless(urlsplit(said["htu"]).path == urlsplit(self.url(scope)).path)


class UrlByItsEnd(Proving):
    def check_url(self, said: dict[str, Any], scope: Scope) -> None:
        refuse_unless(said["htu"].endswith(self.url(scope)))


class UrlByItsStart(Proving):
    def check_url(self, said: dict[str, Any], scope: Scope) -> None:
        refuse_unless(said["htu"].startswith(self.url(scope)))


class AnyPathOfTheHost(Proving):
    def check_url(self, said: dict[str, Any], scope: Scope) -> None:
        refuse_unless(urlsplit(said["htu"])[:2] == urlsplit(PUBLIC_URL)[:2])


class SchemeIgnored(Proving):
    def check_url(self, said: dict[str, Any], scope: Scope) -> None:
        refuse_unless(urlunsplit(("https", *urlsplit(said["htu"])[1:])) == self.url(scope))


class AnyToken(Proving):
    def check_token_of_proof(self, said: dict[str, Any], token: str) -> None:
        pass


class TokenHashOptional(Proving):
    def texts(self) -> tuple[str, ...]:
        return "jti", "htm", "htu"

    def check_token_of_proof(self, said: dict[str, Any], token: str) -> None:
        if "ath" in said:
            super().check_token_of_proof(said, token)


class ProofsAgain(Proving):
    def check_used(self, said: dict[str, Any]) -> None:
        pass


class ForgetsProofs(Proving):
    """Remembers a proof for 10 seconds, and accepts it for 30."""

    def check_used(self, said: dict[str, Any]) -> None:
        self.used = {jti: at for jti, at in getattr(self, "used", {}).items() if at > self.trusted.clock() - 10}
        super().check_used(said)


class JtiOptional(Proving):
    def texts(self) -> tuple[str, ...]:
        return "htm", "htu", "ath"

    def check_used(self, said: dict[str, Any]) -> None:
        if "jti" in said:
            super().check_used(said)


class FirstProofCounts(Proving):
    def proof(self, scope: Scope) -> str:
        return str(next((value.decode("latin-1") for name, value in scope["headers"] if name == b"dpop"), ""))


class LastProofCounts(Proving):
    def proof(self, scope: Scope) -> str:
        return str([value.decode("latin-1") for name, value in scope["headers"] if name == b"dpop"][-1])


class FirstOfTheList(Proving):
    def proof(self, scope: Scope) -> str:
        return super().proof(scope).split(",")[0]


class NoProofNoCheck(Proving):
    """Lets a request in whose proof cannot be read."""

    def check_proof(self, scope: Scope, token: str, claims: dict[str, Any]) -> None:
        try:
            for part in self.proof(scope).split(".")[:2]:
                json.loads(urlsafe_b64decode(f"{part}==="))
        except ValueError:
            return
        super().check_proof(scope, token, claims)


class KeyOfTheProofForAll(Proving):
    """Takes any key in the header: RSA, too, without a look at its algorithm."""

    def check_proof_header(self, header: dict[str, Any]) -> None:
        refuse_unless({"typ", "alg", "jwk"} <= header.keys())

    def proof_key(self, header: dict[str, Any]) -> Key:
        try:
            return (RSAKey if header["jwk"]["kty"] == "RSA" else ECKey).import_key(header["jwk"])
        except Exception:  # noqa: BLE001 - see above
            raise Refused from None

    def check_proof_signature(self, header: dict[str, Any], signing_input: bytes, signature: str, key: Key) -> None:
        super().check_proof_signature({**header, "alg": "ES256"}, signing_input, signature, key)


class TokenSignatureIgnored(Proving):
    """Trusts the proof, and whatever token it is for."""

    def check_signature(self, header: dict[str, Any], signing_input: bytes, signature: bytes) -> None:
        self.key(header)


class CertificateIsABinding(Proving):
    def check_binding(self, claims: dict[str, Any]) -> None:
        refuse_unless(isinstance(claims.get("cnf"), dict))

    def check_thumbprint(self, key: Key, claims: dict[str, Any]) -> None:
        if "jkt" in claims["cnf"]:
            super().check_thumbprint(key, claims)


FOUND_BY: dict[type[Proving], str] = {
    ProofOptional: "proof-missing",
    BearerDowngrade: "bound-token-as-bearer.alone",
    ProofByItsPresence: "unbound-token-with-a-proof",
    ThumbprintIgnored: "proof-of-another-key",
    ProofSignatureIgnored: "proof-signed-by-another-key",
    EmptyProofSignature: "proof-signature.empty",
    ProofOfNothing: "proof-alg-none.lower",
    ProofOfASecret: "proof-alg-symmetric.hs256",
    ProofTypeIgnored: "proof-typ.jwt",
    PrivateKeyAccepted: "proof-jwk-private",
    ProofCritIgnored: "proof-crit",
    ProofsForEver: "proof-expired.an-hour",
    FutureProofs: "proof-of-the-future.an-hour",
    ProofTimeOptional: "proof-without.iat",
    AnyMethod: "proof-for-another-method.another",
    AnyUrl: "proof-for-another-url.text",
    UrlByItsPath: "proof-for-another-url.host",
    UrlByItsEnd: "proof-for-another-url.host-in-the-query",
    UrlByItsStart: "proof-for-another-url.longer-path",
    AnyPathOfTheHost: "proof-for-another-url.path",
    SchemeIgnored: "proof-for-another-url.scheme",
    AnyToken: "proof-for-another-token.another",
    TokenHashOptional: "proof-without.ath",
    ProofsAgain: "proof-used",
    ForgetsProofs: "proof-used-before",
    JtiOptional: "proof-without.jti",
    FirstProofCounts: "two-proofs.good-first",
    LastProofCounts: "two-proofs.good-last",
    FirstOfTheList: "two-proofs.comma",
    NoProofNoCheck: "no-proof-at-all.word",
    KeyOfTheProofForAll: "proof-alg-of-another-key.rs256",
    TokenSignatureIgnored: "bound-token-forged",
    CertificateIsABinding: "bound-token-and-a-certificate",
}
"""The broken guards, and one of the cases that find each."""


def proving_target(guard: Callable[..., Any] = Proving) -> Target:
    """Return a guard as a target; one that also accepts bearer tokens says so."""
    both = isinstance(guard, type) and issubclass(guard, BothSchemes)
    return Target(
        make=app_behind(guard),
        audience=AUDIENCE,
        callers=[CALLER],
        public=[f"GET {PUBLIC}"],
        turns_clock=True,
        dpop="accepted" if both else "required",
        public_url=PUBLIC_URL,
    )
