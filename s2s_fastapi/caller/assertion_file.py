"""The token of another issuer that proves this client (RFC 7523 section 2.2): read from its file, and checked before it is sent."""

import os
import re
import stat
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from s2s_fastapi.backchannel.strict_json import json_object
from s2s_fastapi.errors import ConfigurationError, TokenRequestError
from s2s_fastapi.text import listed, names_in

__all__ = ["MAX_AGE", "Assertion"]

MAX_AGE: Final = 3600
"""Seconds after ``iat`` for which Keycloak accepts the token of a Kubernetes service account; those of other issuers 300 s."""

_LARGEST: Final = 16_384
_SHOWN: Final = 3
_FAR: Final = 10**12
_JWT: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_SPIFFE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")  # RFC 7515 section 7.1
_LOOK: Final = "look at the path, at what is mounted there (in Kubernetes, the folder of the projected token), and at who may read it"
_NO_JWT: Final = "holds no token: it must be one signed JWT (header.payload.signature)"


class _Problem(NamedTuple):
    """Why a token is not sent, in words that show nothing of it but its audiences and times."""

    what: str
    cure: str
    retryable: bool = False
    """Whether the file is written anew by itself: then a later request may succeed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """A token as read from its file. Its ``repr`` shows nothing of the text.

    Nobody has verified its signature: only Keycloak does that. What it says is used to find out what is wrong with it.
    """

    text: str = field(repr=False)
    type: str
    """The ``client_assertion_type`` that goes with it."""
    kid: str
    """The id of the key that signed it; empty if it names none."""
    issuer: str
    subject: str

    @classmethod
    def read(cls, file: Path, *, said: str, audience: str, now: Callable[[], float]) -> Self:
        """Return the token that `file` contains now, if it is for `audience` and for nobody else, has not expired, and is at most 3600 s old.

        `said` is the setting that names the file. Links are followed: Kubernetes replaces a token by a link.

        Raises:
            ConfigurationError: The file cannot be read, or holds no signed JWT.
            TokenRequestError: Keycloak would not accept the token, or it is for somebody else. It must not be sent.
        """
        found = _read(file, audience, now)
        if isinstance(found, str):  # here, in a frame without the content: error trackers record the locals
            raise ConfigurationError(f"{said}: {file} {found}.")
        if isinstance(found, _Problem):
            raise TokenRequestError(
                f"{said}: the token in {file} {found.what}, so it was not sent.",
                cure=found.cure,
                retryable=found.retryable,
            )
        text, kid, issuer, subject = found
        return cls(
            text=text,
            type=_SPIFFE if subject.startswith("spiffe://") else _JWT,
            kid=kid,
            issuer=issuer,
            subject=subject,
        )


_Found = tuple[str, str, str, str]


def _read(file: Path, audience: str, now: Callable[[], float]) -> _Found | _Problem | str:
    """Return text, kid, issuer and subject, or what is wrong. No exception from below leaves this module."""
    try:
        # Opening a pipe could wait for ever, on a thread that others need.
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(mode):
                return "is a directory: give the file in it"
            if not stat.S_ISREG(mode):
                return "is not a regular file: a pipe can be read only once. Write a file"
            with open(descriptor, "rb", closefd=False) as opened:
                content = opened.read(_LARGEST + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"cannot be read ({error.strerror or type(error).__name__}): {_LOOK}"
    if len(content) > _LARGEST:
        return "is too large for a token"
    text = content.decode("ascii", errors="replace").rstrip("\r\n")
    if not text.strip():
        return "is empty: look at what writes the token into it"
    if not _COMPACT.fullmatch(text):
        return _NO_JWT
    header, payload, _ = text.split(".")
    members, claims = _object(header), _object(payload)
    if members is None or claims is None:
        return _NO_JWT
    kid, issuer, subject = (_name(value) for value in (members.get("kid"), claims.get("iss"), claims.get("sub")))
    return _problem(claims, audience, now()) or (text, kid, issuer, subject)


def _problem(claims: Mapping[str, Any], audience: str, now: float) -> _Problem | None:
    # Exactly one: whoever else it is for could log in with it as well.
    if claims.get("aud") not in (audience, [audience]):
        found = names_in(claims.get("aud", []))
        more = " and others" if len(found) > _SHOWN else ""
        return _Problem(
            f"is for {listed(found[:_SHOWN], ' and ') + more if found else 'nobody'} (aud), and not for {audience} alone",
            f"Have it made for {audience} and for nobody else. In Kubernetes that is the audience of the projected token. If Keycloak has"
            " another issuer, set KEYCLOAK_PUBLIC_URL or KEYCLOAK_ISSUER to that in its discovery document.",
        )
    if not _name(claims.get("sub")):
        return _Problem("has no subject (sub)", "Have it made for the service: Keycloak finds the client by sub.")
    if not _name(claims.get("iss")) and not claims["sub"].startswith("spiffe://"):
        return _Problem("has no issuer (iss)", "Take a token whose issuer is an identity provider of the realm.")
    until, since = (_seconds(claims.get(name)) for name in ("exp", "iat"))
    if until is None:
        return _Problem("has no time at which it expires (exp)", "Keycloak demands one. Take a token that expires.")
    if until <= now:
        return _Problem(
            f"expired {now - until:.0f} s ago (exp)",
            "Look at what writes the file anew (in Kubernetes, the kubelet does it before a token expires), and at the clock of this machine.",
            retryable=True,
        )
    if since is not None and now - since > MAX_AGE:
        return _Problem(
            f"is {now - since:.0f} s old (iat), and Keycloak accepts none that is older than {MAX_AGE} s",
            f"Have it written anew more often. In Kubernetes set expirationSeconds of the projected token to {MAX_AGE}.",
            retryable=True,
        )
    return None


def _object(part: str) -> dict[str, Any] | None:
    try:
        return json_object(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError:
        return None


def _name(value: object) -> str:
    return value if isinstance(value, str) else ""  # however long: Keycloak decides, and sentences cut it


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(min(max(value, -_FAR), _FAR))  # an integer may be too long for a float
