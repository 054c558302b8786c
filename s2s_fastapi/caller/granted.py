"""The token that Keycloak gave, compared with the wanted one (RFC 6749 section 5.1)."""

import math
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from s2s_fastapi.backchannel.strict_json import json_object
from s2s_fastapi.caller.binding import PROOF, Binding
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.errors import AudienceNotGranted, TokenRequestError
from s2s_fastapi.keycloak.cures import not_granted_cure, wrong_audience
from s2s_fastapi.keycloak.dpop import no_bound_tokens
from s2s_fastapi.text import listed, named, without_tokens

__all__ = ["MAX_LIFE", "MAX_TOKEN", "TOKEN68", "GrantedToken", "claims_of", "granted"]

MAX_LIFE: Final = 86_400.0
"""Longest life of a token in seconds; receivers refuse longer ones."""

MAX_TOKEN: Final = 16_384
"""Longest token in characters: the limit of receivers, ours included."""
_MAX_NAME = 255
# For an opaque token without expires_in (RFC 6749 leaves its life to "other means"): Keycloak's shortest default.
_UNKNOWN_LIFE = 60.0
# RFC 6750 section 2.1: the characters that a Bearer header can carry. Others would fail inside the HTTP client and show the token.
TOKEN68: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")
_KNOWN_TYPES = ("DPoP", "Bearer", "N_A", "mac", "PoP")
_THUMBPRINT: Final = "x5t#S256"
_FAR = 10**12
_DIGITS: Final = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True, eq=False)
class GrantedToken:
    """A token that Keycloak granted. Neither ``repr`` nor ``str`` shows it. Two tokens are equal only if they are one object."""

    value: str = field(repr=False)
    life: float
    """Seconds that it lives, counted from before the request."""
    token_id: str = ""
    """``jti``; joins our log with Keycloak's events."""
    issuer: str = ""
    scopes: frozenset[str] | None = None
    """The granted scopes, as far as the answer names them; None if it names none."""
    binding: Binding | None = field(default=None, repr=False)
    """The key that it is bound to: it is used with no other key. None for a bearer token."""
    certificate: str = field(default="", repr=False)
    """``cnf.x5t#S256``: the client certificate that it is bound to (RFC 8705 section 3.1); empty if it is bound to none."""
    header: str = field(init=False, repr=False)
    header_bytes: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        header = f"{'Bearer' if self.binding is None else PROOF} {self.value}"
        object.__setattr__(self, "header", header)
        object.__setattr__(self, "header_bytes", header.encode("ascii"))


def granted(
    answer: Mapping[str, Any],
    wanted: Wanted,
    *,
    client_id: str,
    holder: str = "",
    binding: Binding | None = None,
    names_client: bool = False,
    certificate: str = "",
) -> GrantedToken:
    """Return the token in Keycloak's `answer`, if it can be used as `wanted`. `holder` has the roles: by default the service account.

    - With `binding`, the token must be bound to its key (RFC 9449 section 5).
    - With `names_client`, it must say that it is `client_id`'s (``azp``): what proved the client was made by others, and may prove another client.
    - `certificate` is the thumbprint of the client certificate that the request showed. A token that is bound to a certificate must be bound
      to this one (RFC 8705 section 3). One that is bound to none is used, too: a certificate may prove only who asks.

    Its payload is read without a check of the signature: it came from Keycloak itself over our own channel, and no caller is accepted
    because of it.

    Raises:
        AudienceNotGranted: A wanted audience is not in ``aud``; the error says what to change in Keycloak.
        TokenRequestError: The answer is not the one RFC 6749 section 5.1 describes, or the token is no bearer token (with `binding`: not
            bound to its key), has expired, is bound to another certificate, or belongs to another client.
    """
    value = answer.get("access_token")
    if not isinstance(value, str) or not value:
        raise _unusable("it has no access_token")
    if len(value) > MAX_TOKEN:
        raise _unusable(
            f"its access_token is longer than {MAX_TOKEN} characters",
            "Take roles or claims out of the client's scopes.",
        )
    if not TOKEN68.fullmatch(value):
        raise _unusable("its access_token has a character no Bearer header can carry")
    claims = claims_of(value)
    kind = answer.get("token_type")
    expected = "Bearer" if binding is None else PROOF
    if not isinstance(kind, str) or kind.lower() != expected.lower():
        found = f"token_type {kind}" if kind in _KNOWN_TYPES else "no known token_type"
        if binding is not None and isinstance(kind, str) and kind.lower() == "bearer":
            raise _unusable(
                "Keycloak ignored the proof: its token_type is Bearer, not DPoP", no_bound_tokens(client_id), claims
            )
        raise _unusable(
            f"it has {found}, not {expected}",
            f'Switch "Require DPoP bound tokens" off for the client {named(client_id)} in Keycloak.'
            if kind == PROOF
            else "Look for what answers in Keycloak's place, or changes its answers: Keycloak always writes token_type.",
            claims,
        )
    if claims is not None and claims.get("azp", client_id) != client_id:
        raise _unusable(
            f"its token belongs to {named(without_tokens(claims['azp'])) if isinstance(claims['azp'], str) else 'no client'} (azp), not to {named(client_id)}",
            f"Take the mapper that writes azp out of the client scopes of {named(client_id)}; if there is none, look for a cache between this"
            " process and Keycloak.",
            claims,
        )
    if names_client and (claims is None or "azp" not in claims):
        raise _unusable(
            f"its token does not say that it belongs to {named(client_id)} (azp)"
            if claims is not None
            else f"its token is not a JWT that can be read, so it is unknown whether it belongs to {named(client_id)}",
            f"Let Keycloak write azp into the access tokens of {named(client_id)}: without it, a token of another client looks the same.",
            claims,
        )
    if binding is not None:
        _check_bound(claims, binding, client_id, certificate)
    bound_to = _bound_to(claims, certificate, client_id)
    life = _life(answer.get("expires_in"), claims)
    scopes = _scopes(answer, claims)
    if wanted.audiences:
        _compare(claims, wanted, scopes, client_id, holder)
    text = claims or {}
    return GrantedToken(
        value=value,
        life=life,
        scopes=scopes,
        token_id=_text(text.get("jti")),
        issuer=_text(text.get("iss")),
        binding=binding,
        certificate=bound_to,
    )


def _bound_to(claims: Mapping[str, Any] | None, shown: str, client_id: str) -> str:
    """Return the thumbprint of the certificate that the token is bound to, or "". Without `shown`, a proxy may have shown one for us."""
    cnf = (claims or {}).get("cnf")
    thumbprint = cnf.get(_THUMBPRINT, "") if isinstance(cnf, dict) else ""
    if thumbprint == "" or (thumbprint == shown and isinstance(thumbprint, str)):
        return shown if thumbprint else ""
    if shown or not isinstance(thumbprint, str):
        raise _unusable(
            "its token is bound to another certificate than the one that this service showed (cnf.x5t#S256)",
            "Look for a proxy between this process and Keycloak that opens TLS and shows a certificate of its own, or passes on that of somebody"
            f" else. If there is none, take the mapper that writes cnf out of the client scopes of {named(client_id)}.",
            claims,
        )
    return thumbprint


def _check_bound(claims: Mapping[str, Any] | None, binding: Binding, client_id: str, shown: str) -> None:
    """Compare ``cnf`` with our key. Keycloak writes ``DPoP`` into token_type and typ also if it binds the token to something else.

    A certificate beside our key is good only if this service has `shown` one: `_bound_to` compares them.
    """
    if claims is None:
        raise _unusable(
            "its token is not a JWT that can be read, so it is unknown whether it is bound to the key of this process"
        )
    cnf = claims.get("cnf")
    bound = cnf if isinstance(cnf, dict) else {}
    if _THUMBPRINT in bound and not (shown and "jkt" in bound):
        raise _unusable(
            "its token is bound to a client certificate (cnf.x5t#S256), and this package sends proofs (DPoP)",
            f'Switch "OAuth 2.0 Mutual TLS Certificate Bound Access Tokens Enabled" off for the client {named(client_id)} in Keycloak: it cannot be'
            " used together with DPoP.",
            claims,
        )
    if bound.get("jkt") != binding.key.thumbprint:
        raise _unusable(
            "its token is not bound to the key of this process"
            + (" but to another one" if "jkt" in bound else " (it has no cnf.jkt)"),
            f"Take the mapper that writes cnf out of the client scopes of {named(client_id)}; if there is none, look for a cache between this"
            " process and Keycloak.",
            claims,
        )


def _unusable(what: str, cure: str = "", claims: Mapping[str, Any] | None = None) -> TokenRequestError:
    return TokenRequestError(
        f"Keycloak's answer cannot be used: {what}.", http_status=200, cure=cure, retryable=False, claims=claims
    )


def _text(value: object) -> str:
    return value[:_MAX_NAME] if isinstance(value, str) and value.isprintable() else ""


def claims_of(token: str) -> dict[str, Any] | None:
    """Return the payload of a JWT without a check of its signature, or None for an opaque token. The length was bounded before."""
    parts = token.split(".", 3)
    if len(parts) != 3 or not _BASE64URL.fullmatch(parts[1]):  # noqa: PLR2004 - RFC 7515 section 7.1
        return None
    try:
        return json_object(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return None


def _seconds(value: object) -> float | None:
    """Return a JSON number, or the number in a string of digits (some servers quote it); else None."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return float(min(max(value, -_FAR), _FAR))  # an integer may be too long for a float


def _life(expires_in: object, claims: Mapping[str, Any] | None) -> float:
    """Return the life in seconds: the shorter of ``expires_in`` and ``exp - iat``, never more than a day.

    Only differences count, so a wrong clock does not matter.
    """
    limits = [MAX_LIFE]
    if expires_in is not None:
        number = _seconds(expires_in)
        if number is None:
            raise _unusable("its expires_in is not a number of seconds", claims=claims)
        limits.append(number)
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
    scope = answer.get("scope", (claims or {}).get("scope"))
    return frozenset(scope.split()) if isinstance(scope, str) else None


def _compare(
    claims: Mapping[str, Any] | None, wanted: Wanted, scopes: frozenset[str] | None, client_id: str, holder: str
) -> None:
    audiences = listed(wanted.audiences, " and ")
    if claims is None:
        raise _unusable(f"its token is not a JWT that can be read, so it is unknown whether it is for {audiences}")
    aud = claims.get("aud", ())
    names = (aud,) if isinstance(aud, str) else aud
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise _unusable("the aud of its token is neither a name nor a list of names", claims=claims)
    granted = frozenset(names)
    missing = sorted(wanted.audiences - granted)
    if not missing:
        return
    raise AudienceNotGranted(
        f"{wrong_audience(client_id, map(without_tokens, granted), wanted.audiences, ' and ')}; it was not used.",
        wanted=wanted.audiences,
        granted=granted,
        claims=claims,
        cure=not_granted_cure(
            client_id,
            missing,
            requested=wanted.scopes,
            granted=scopes or (),
            token_id=str(claims.get("jti", "")),
            holder=holder,
        ),
    )
