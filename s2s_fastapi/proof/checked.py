"""The check of a proof (RFC 9449 section 4.3), from the cheapest question to the dearest. The token was verified before."""

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from s2s_fastapi.backchannel.strict_json import json_object
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.jose.base64url import decoded
from s2s_fastapi.jose.keys import signature_check
from s2s_fastapi.proof.header import ProofHeader, read_header
from s2s_fastapi.proof.urls import normalised
from s2s_fastapi.text import base64url, listed, named

__all__ = ["AHEAD", "MAX_PROOF_BYTES", "OLDEST", "Proof", "check_proof"]

MAX_PROOF_BYTES: Final = 4096
OLDEST: Final = 30
"""Seconds that a proof may be old (RFC 9449 section 11.1)."""
AHEAD: Final = 10
"""Seconds that the caller's clock may be ahead."""
_SPARE: Final = 5
"""Seconds that a proof is remembered longer: the clocks of two receivers with one store differ."""
_JTI: Final = range(8, 256 + 1)
_PARTS: Final = 3
_SHOWN: Final = 1e15

_MISSING: Final = Decision(
    reason=Reason.PROOF_MISSING,
    cure="the request has a bound token and no DPoP header. The caller must send a proof with every request (in ServiceTokenAuth:"
    " dpop=True, or KEYCLOAK_DPOP=true), and a proxy in between must pass the header on.",
)
_NO_URL: Final = (
    "no URL has the path of the request, so no proof can name it: it has a segment `.` or `..` or a `#`, or does not begin with `/`. HTTP clients send no"
    " such path"
)


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that was checked, but for one thing: whether it was used before. Accept it only after a replay store said that it was not."""

    jti: str
    issued_at: float
    """Its ``iat``, in seconds since 1970."""
    key_id: str
    """The thumbprint of its key (RFC 7638)."""
    url: str
    """Its ``htu``, normalised."""

    def replay_key(self, issuer: str) -> bytes:
        """Return what a replay store remembers: 32 bytes, different if the issuer, the key, ``htu`` or ``jti`` is different.

        With ``jti`` alone, a caller could use up the ``jti`` of another.
        """
        parts = (each.encode() for each in (issuer, self.key_id, self.url, self.jti))
        return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()

    def remember_for(self, now: float) -> float:
        """Return the seconds for which it must be remembered: until no receiver accepts it, and at least 1."""
        return max(1.0, self.issued_at + OLDEST + AHEAD + _SPARE - now)


def check_proof(
    values: Sequence[bytes], *, thumbprint: str, method: str, urls: Collection[str], token: bytes, now: float
) -> Proof | Decision:
    """Check the proof of a request with a bound token. Its signature was checked, and `thumbprint` is its ``cnf.jkt``.

    - `values` are the values of all DPoP headers of the request. `urls` are the URLs of the request, normalised.
    - In this order: one value of at most 4 KB; a strict compact JWS; ``typ``, ``alg`` and the key in the header; the thumbprint of the key;
      the signature; the claims; ``iat``; ``htm``; ``htu``; ``ath``. So nobody orders a signature check with a key that the token does
      not name, and no proof orders more than two: the second is for a key that is seen for the first time.
    - ``iat`` is at most 30 s behind and at most 10 s ahead of `now`. ``jti`` has 8 to 256 characters; this package sends 22.
    - Claims that are not named here are ignored, ``nonce`` too: this package demands no nonce of callers.
    - Nothing in a proof leads to I/O. No value raises.
    - The cure shows values of the proof only after its signature was checked.
    """
    if not values:
        return _MISSING
    value = values[0].strip(b" \t")
    if len(values) > 1 or b"," in value:
        return _refused("the request has more than one proof")
    if len(value) > MAX_PROOF_BYTES:
        return _refused(f"the proof has {len(value)} bytes, more than the {MAX_PROOF_BYTES} that are read")
    parts = value.split(b".", _PARTS)
    if len(parts) != _PARTS:
        return _refused("the proof is not a compact JWS")
    try:
        header, payload, signature = read_header(parts[0]), decoded(parts[1]), decoded(parts[2])
    except (ValueError, RecursionError):
        return _refused("the proof is not a compact JWS whose header has exactly one reading")
    if isinstance(header, str):
        return _refused(f"the proof is not accepted: {header}")
    if header.thumbprint != thumbprint:
        return _refused("the proof is of another key than the one that the token is bound to (cnf.jkt)")
    try:
        holds = _loaded(header)(value[: len(parts[0]) + 1 + len(parts[1])], signature)
    except Exception:  # noqa: BLE001 - whatever the library says about a key, such as a point that is not on the curve
        return _refused("the key in the proof is not a usable public key")
    if not holds:
        return _refused("the signature of the proof is wrong")
    try:
        claims = json_object(payload)
    except (ValueError, RecursionError):
        return _refused("the claims of the proof are not a JSON object with exactly one reading")
    return _claimed(claims, header.thumbprint, method=method, urls=urls, token=token, now=now)


def _refused(cure: str) -> Decision:
    return Decision(reason=Reason.INVALID_PROOF, cure=f"{cure}.")


@lru_cache(maxsize=512)
def _loaded(header: ProofHeader) -> Callable[[bytes, bytes], bool]:
    """Return the function that checks a signature of this key. It is remembered like the header; a key that cannot be used is not."""
    return signature_check(header.algorithm, header.members)


def _claimed(
    claims: dict[str, Any], thumbprint: str, *, method: str, urls: Collection[str], token: bytes, now: float
) -> Proof | Decision:
    """Compare the claims of a proof whose signature was checked with the request."""
    jti, htm, htu, ath = (claims.get(name) for name in ("jti", "htm", "htu", "ath"))
    issued_at = claims.get("iat")
    if not (isinstance(jti, str) and isinstance(htm, str) and isinstance(htu, str) and isinstance(ath, str)):
        return _refused("the proof needs jti, htm, htu and ath as texts")
    if not isinstance(issued_at, int | float) or isinstance(issued_at, bool):
        return _refused("the proof needs iat as a number")
    if len(jti) not in _JTI:
        return _refused(f"the jti of the proof has {len(jti)} characters, not {_JTI[0]} to {_JTI[-1]}")
    if not now - OLDEST <= issued_at <= now + AHEAD:
        return _refused(_untimely(issued_at, now))
    if htm != method:
        return _refused(f"the proof is for the method {named(htm)} (htm), and the request has {named(method)}")
    if not urls:
        return _refused(_NO_URL)
    try:
        url = htu if htu in urls else normalised(htu)
    except ValueError:
        return _refused("the htu of the proof is not an absolute URL of a server")
    if url not in urls:
        return _refused(
            f"the proof is for {named(url)} (htu), and the request is for {listed(urls, ' or ')}. If this is the same place, public_url of"
            " this service is not the URL that callers use"
        )
    if ath != base64url(hashlib.sha256(token).digest()):
        return _refused("the proof is for another token than the one in the request (ath)")
    return Proof(jti, float(issued_at), thumbprint, url)


def _untimely(issued_at: float, now: float) -> str:
    offset = max(-_SHOWN, min(issued_at, _SHOWN)) - now  # a huge integer has no float
    where, limit = ("ahead of", f"{AHEAD} s ahead") if offset > 0 else ("behind", f"{OLDEST} s behind")
    return (
        f"the iat of the proof is {abs(offset):.0f} s {where} the clock of this machine, and may be at most {limit}: set the clocks of both machines by"
        " NTP, and make a proof for each request when it is sent"
    )
