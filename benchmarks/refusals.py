"""Requests that ours refuses. Everybody can send most of them, so none may order more work than a good token does."""

import itertools
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from benchmarks import apps, rows
from benchmarks.asgi import Call, Credentials, bearer, request
from benchmarks.realm import CALLER, REALM, UNASSIGNED, USER, settings, token
from s2s_fastapi import require_caller
from s2s_fastapi.testing import EmbeddedIssuer

_MOST_BYTES = 16_384
_LONGEST_HEADER = 4096
_DIFFERENT_HEADERS = 500
"""More than any cache of headers keeps."""
_A_DAY = 86_400


def _part(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _header(**members: str) -> str:
    return _part(json.dumps({"alg": "RS256", "typ": "JWT", **members}).encode())


def _long_headers(kid: str) -> list[bytes]:
    """Return tokens with headers of nearly 4 KB, each with another member."""
    left = _LONGEST_HEADER * 3 // 4 - len(urlsafe_b64decode(_header(kid=kid, pad="") + "==")) - 4
    return [f"{_header(kid=kid, pad=f'{number:0{left}}')}.e30.e30".encode() for number in range(_DIFFERENT_HEADERS)]


def calls(issuer: EmbeddedIssuer) -> dict[str, Call]:
    """Return the request of each row."""
    good, kid = token(issuer), issuer.signing_kid(REALM)
    header, payload, signature = good.split(".")
    foreign = token(issuer).rpartition(".")[2]
    filled = _part(b"{" + b" " * ((_MOST_BYTES - len(header) - len(foreign) - 2) * 3 // 4 - 2) + b"}")
    long_headers = itertools.cycle(_long_headers(kid))
    user = issuer.user_token(REALM, USER, via=CALLER)

    def sent(text: str) -> Credentials:
        return bearer(text.encode)

    def two_headers() -> Any:
        return sent(good)() + sent(good)()

    credentials: dict[str, Credentials] = {
        rows.NO_CREDENTIALS: tuple,
        rows.TWO_HEADERS: two_headers,
        rows.TWO_PARTS: sent("a.b"),
        rows.ONLY_A: sent("A" * _MOST_BYTES),
        rows.ALG_NONE: sent(f"{_header(alg='none', kid=kid)}.{payload}."),
        rows.UNKNOWN_KID: sent(f"{_header(kid='unknown')}.{payload}.{signature}"),
        rows.LONG_HEADER: bearer(long_headers.__next__),
        rows.FORGED: sent(f"{header}.{payload}.{foreign}"),
        rows.FORGED_LONG: sent(f"{header}.{filled}.{foreign}"),
        rows.WRONG_AUDIENCE: sent(issuer.service_token(REALM, UNASSIGNED)),
        rows.EXPIRED: sent(good),
        rows.USER: sent(user),
        rows.REQUIREMENT: sent(good),
    }
    given = settings(issuer)
    guarded = apps.guarded(given)
    others = {
        rows.EXPIRED: apps.guarded(given, clock=lambda: time.time() + _A_DAY),
        rows.REQUIREMENT: apps.guarded(given, require_caller("billing")),
    }
    return {
        row.name: request(others.get(row.name, guarded), credentials[row.name], expected=row.status)
        for row in rows.REFUSALS
    }
