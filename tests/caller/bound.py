"""A Keycloak that binds tokens to the key of a proof, and proofs as a receiver reads them."""

import json
import time
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey

from s2s_fastapi.backchannel.channel import Reply
from tests.caller.exchange.fakes import ExchangingKeycloak
from tests.caller.fakes import Keycloak, Receiver, jwt, refusal, reply

TOKEN_URL = "http://keycloak:8080/realms/corp/protocol/openid-connect/token"
INVALID_TOKEN = {"WWW-Authenticate": 'DPoP realm="bob", error="invalid_token", algs="ES256"'}
INVALID_PROOF = {"WWW-Authenticate": 'DPoP realm="bob", error="invalid_dpop_proof", algs="ES256"'}
NONCE_WANTED = {"WWW-Authenticate": 'DPoP realm="bob", error="use_dpop_nonce", algs="ES256"'}


@dataclass(frozen=True)
class Proof:
    """A proof whose signature holds."""

    text: str
    header: dict[str, Any]
    claims: dict[str, Any]
    thumbprint: str

    @classmethod
    def read(cls, text: str) -> "Proof":
        header, payload, _ = (json.loads(urlsafe_b64decode(part + "==")) for part in (*text.split(".")[:2], "e30"))
        key = ECKey.import_key(header["jwk"])
        jws.deserialize_compact(text, key, algorithms=["ES256"])
        return cls(text, header, payload, key.thumbprint())


class Pairs(dict[str, str]):
    """Headers of an answer, among them several of one name."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        super().__init__(pairs)
        self.pairs = pairs

    def items(self) -> Any:
        return self.pairs


def proofs(receiver: Receiver) -> list[Proof | None]:
    """Return the proof of each request that a receiver got; a request with two of them is an error."""
    found = [headers.get_all("DPoP") or [] for headers in receiver.headers]
    assert all(len(values) <= 1 for values in found)
    return [Proof.read(values[0]) if values else None for values in found]


def thumbprint_in(authorization: str | None) -> Any:
    """Return what the token of an Authorization header is bound to."""
    scheme, _, token = (authorization or "").partition(" ")
    assert scheme == "DPoP"
    return json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))["cnf"]["jkt"]


@dataclass
class Binds:
    """Binds each token to the key of the request's proof. Its clock is `ahead` seconds ahead of this machine's."""

    answers: list[Any] = field(default_factory=list)
    claims: dict[str, Any] = field(default_factory=dict)
    ahead: float = 0.0
    body: dict[str, Any] = field(default_factory=dict)
    shown: list[Proof] = field(default_factory=list)
    dated: bool = True
    """Whether its answers have a ``Date``: Keycloak itself sends none."""
    both: bool = False
    """Whether the token is bound to a certificate too."""
    nonce: str = ""
    """The nonce that a proof must have."""

    def post_form(self, url: str, form: dict[str, str], headers: dict[str, str] | None = None) -> Reply:
        beside: Any = super()
        answer: Reply = beside.post_form(url, form, headers)
        now = time.time() + self.ahead
        if self.dated:
            answer.headers["Date"] = formatdate(now, usegmt=True)
        proof = (headers or {}).get("DPoP")
        if answer.status != 200 or proof is None or self.answers:
            return answer
        self.shown.append(read := Proof.read(proof))
        if self.nonce and read.claims.get("nonce") != self.nonce:
            refused = refusal(400, "use_dpop_nonce", "a nonce is needed")
            refused.headers["DPoP-Nonce"] = self.nonce
            return refused
        if not -24 <= read.claims["iat"] - now <= 14:
            refused = refusal(400, "invalid_request", "DPoP proof is not active")
            refused.headers.update({name: value for name, value in answer.headers.items() if name == "date"})
            return refused
        given = answer.json_object()
        claims = json.loads(urlsafe_b64decode(given["access_token"].split(".")[1] + "=="))
        bound: dict[str, Any] = {"typ": "DPoP", "cnf": {"jkt": read.thumbprint, "kc-jkt-type": "DPoP"}}
        if self.both:
            bound["cnf"] = {"x5t#S256": "x", "jkt": read.thumbprint}
        body = {**given, "access_token": jwt(**{**claims, **bound, **self.claims}), "token_type": "DPoP", **self.body}
        return reply(200, body, answer.headers)


@dataclass
class BindingKeycloak(Binds, Keycloak):
    """Grants bound tokens to a service."""


@dataclass
class BindingExchange(Binds, ExchangingKeycloak):
    """Exchanges users' tokens for bound ones."""
