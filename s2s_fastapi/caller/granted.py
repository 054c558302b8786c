"""What Keycloak gave, compared with what was asked (RFC 6749 section 5.1)."""

import math
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from s2s_fastapi.backchannel.strict_json import json_object
from s2s_fastapi.caller.wanted import Asked
from s2s_fastapi.errors import AudienceNotGranted, TokenRequestError
from s2s_fastapi.keycloak.cures import not_granted_cure, wrong_audience
from s2s_fastapi.principal import digest
from s2s_fastapi.text import listed, named

__all__ = ["MAX_LIFE", "Token", "granted"]

MAX_LIFE: Final = 86_400.0
"""Seconds for which a token is believed at most; receivers refuse longer ones."""

_MAX_TOKEN = 16_384  # what receivers read, ours included
_MAX_NAME = 255
# For an opaque token without expires_in (RFC 6749 leaves its life to "other means"): Keycloak's shortest default.
_UNKNOWN_LIFE = 60.0
# RFC 6750 section 2.1: all that a Bearer header can carry. Anything else would fail deep inside the HTTP client, with the token shown.
_TOKEN68: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")
_OTHER_TYPES = ("DPoP", "N_A", "mac", "PoP")
_FAR = 10**12
_DIGITS: Final = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A token that was granted. Neither ``repr`` nor ``str`` shows it; two are the same only if they are one object."""

    value: str = field(repr=False)
    life: float
    """Seconds it lives, from before it was asked for."""
    token_id: str = ""
    """``jti``; joins our log with Keycloak's events."""
    issuer: str = ""
    scopes: frozenset[str] | None = None
    """The scopes that were granted, as far as they show; None where nothing was said."""
    header: str = field(init=False, repr=False)
    header_bytes: bytes = field(init=False, repr=False)
    digest: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        header = f"Bearer {self.value}"
        object.__setattr__(self, "header", header)
        object.__setattr__(self, "header_bytes", header.encode("ascii"))
        object.__setattr__(self, "digest", digest(self.value))


def granted(answer: Mapping[str, Any], asked: Asked, *, client_id: str) -> Token:
    """Return the token in Keycloak's `answer`, if it is one that can be used for what was `asked`.

    Its payload is read without a look at the signature: it came from Keycloak itself, over our own channel, and nobody is let in
    because of it.

    Raises:
        AudienceNotGranted: An asked audience is not in ``aud``; the error names what Keycloak needs.
        TokenRequestError: The answer is not the one RFC 6749 section 5.1 describes, or the token is no bearer token, has expired, or
            belongs to another client.
    """
    value = answer.get("access_token")
    if not isinstance(value, str) or not value:
        raise _unusable("it has no access_token")
    if len(value) > _MAX_TOKEN:
        raise _unusable(
            f"its access_token is longer than {_MAX_TOKEN} characters",
            "Take roles or claims out of the client's scopes.",
        )
    if not _TOKEN68.fullmatch(value):
        raise _unusable("its access_token has a character no Bearer header can carry")
    claims = _claims(value)
    kind = answer.get("token_type")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        told = f"token_type {kind}" if kind in _OTHER_TYPES else "no token_type that is known"
        raise _unusable(
            f"it has {told}, not Bearer",
            f'Switch "Require DPoP bound tokens" off for the client {named(client_id)} in Keycloak.'
            if kind == "DPoP"
            else "Look for what answers in Keycloak's place, or changes its answers: Keycloak always writes token_type.",
            claims,
        )
    if claims is not None and claims.get("azp", client_id) != client_id:
        raise _unusable(
            f"its token belongs to {named(claims['azp']) if isinstance(claims['azp'], str) else 'no client'} (azp), not to {named(client_id)}",
            f"Take the mapper that writes azp out of the client scopes of {named(client_id)}; if there is none, look for a cache between this"
            " process and Keycloak.",
            claims,
        )
    life = _life(answer.get("expires_in"), claims)
    scopes = _scopes(answer, claims)
    if asked.audiences:
        _compare(claims, asked, scopes, client_id)
    text = claims or {}
    return Token(value=value, life=life, scopes=scopes, token_id=_text(text.get("jti")), issuer=_text(text.get("iss")))


def _unusable(what: str, cure: str = "", claims: Mapping[str, Any] | None = None) -> TokenRequestError:
    return TokenRequestError(
        f"Keycloak's answer cannot be used: {what}.", http_status=200, cure=cure, retryable=False, claims=claims
    )


def _text(value: object) -> str:
    return value[:_MAX_NAME] if isinstance(value, str) and value.isprintable() else ""


def _claims(token: str) -> dict[str, Any] | None:
    """Return the payload of a JWT, or None for an opaque token. The length was bounded before."""
    parts = token.split(".", 3)
    if len(parts) != 3 or not _BASE64URL.fullmatch(parts[1]):  # noqa: PLR2004 - RFC 7515 section 7.1
        return None
    try:
        return json_object(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return None


def _seconds(value: object) -> float | None:
    """Return a JSON number that is one; also the digits some servers put in quotes."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return float(min(max(value, -_FAR), _FAR))  # an integer may be too long for a float


def _life(expires_in: object, claims: Mapping[str, Any] | None) -> float:
    """Return the life in seconds: the shorter of ``expires_in`` and ``exp - iat``, never more than a day.

    Only differences count, so a clock that is off does not matter.
    """
    limits = [MAX_LIFE]
    if expires_in is not None:
        told = _seconds(expires_in)
        if told is None:
            raise _unusable("its expires_in is not a number of seconds", claims=claims)
        limits.append(told)
    if claims is not None:
        until, since = _seconds(claims.get("exp")), _seconds(claims.get("iat"))
        if until is not None and since is not None:
            limits.append(until - since)
    if len(limits) == 1:
        limits.append(_UNKNOWN_LIFE)
    life = min(limits)
    if life <= 0:
        raise _unusable(
            "its token has expired already",
            "Look at the access token lifespan of the client and of the realm.",
            claims,
        )
    return life


def _scopes(answer: Mapping[str, Any], claims: Mapping[str, Any] | None) -> frozenset[str] | None:
    told = answer.get("scope", (claims or {}).get("scope"))
    return frozenset(told.split()) if isinstance(told, str) else None


def _compare(claims: Mapping[str, Any] | None, asked: Asked, scopes: frozenset[str] | None, client_id: str) -> None:
    wanted = listed(asked.audiences, " and ")
    if claims is None:
        raise _unusable(f"its token is not a JWT that can be read, so there is no telling whether it is for {wanted}")
    aud = claims.get("aud", ())
    names = (aud,) if isinstance(aud, str) else aud
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise _unusable("the aud of its token is neither a name nor a list of names", claims=claims)
    granted = frozenset(names)
    missing = sorted(asked.audiences - granted)
    if not missing:
        return
    raise AudienceNotGranted(
        f"{wrong_audience(client_id, granted, asked.audiences, ' and ')}; it was not used.",
        asked=asked.audiences,
        granted=granted,
        claims=claims,
        cure=not_granted_cure(
            client_id,
            missing,
            requested=asked.scopes,
            granted=scopes or (),
            token_id=str(claims.get("jti", "")),
        ),
    )
