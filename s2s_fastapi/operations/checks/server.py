"""The way to Keycloak, its keys and its clock."""

import math
from collections.abc import Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from s2s_fastapi.backchannel.channel import unused_proxy
from s2s_fastapi.keycloak.cures import CLOCKS, issuer_steps, shown
from s2s_fastapi.keycloak.server_cures import answer_cure, said_by, unreachable_cure
from s2s_fastapi.operations.facts import Answer, Facts
from s2s_fastapi.operations.findings import Finding, Result, Seen, Skipped
from s2s_fastapi.text import listed, named

__all__ = [
    "BY_DATE",
    "check_clock",
    "check_issuer",
    "check_keys",
    "check_proxy",
    "check_reachable",
    "check_realm",
    "check_revocation",
    "check_tls",
    "clock_offset",
]

_OK: Final = 200
_NOT_FOUND: Final = 404
_CLOCKS_DIFFER: Final = 5.0
_MOST: Final = 20

_NO_TOKENS: Final = "This service can neither check tokens nor get one."


def check_tls(facts: Facts) -> Iterator[Result]:
    """Look whether the way to Keycloak is encrypted."""
    settings = facts.settings
    parts = urlsplit(settings.url)
    if parts.scheme == "https":
        trusted = (
            f"the system's certificates{f' and those in {shown(str(settings.ca_file))}' if settings.ca_file else ''}"
        )
        yield Seen(f"https; trusted are {trusted}.")
    elif parts.hostname in ("localhost", "127.0.0.1", "::1"):
        yield Seen("Plain http on this machine.")
    else:
        yield Finding(
            level="warning",
            seen=f"{settings.worded('KEYCLOAK_URL')} is plain http: {settings.url}.",
            why="Everybody on the way can read the secret and the tokens, and can send keys of his own.",
            cure=f"Write https:// in {settings.worded('KEYCLOAK_URL')}, unless the way is inside of one host or one encrypted network.",
        )


def check_proxy(facts: Facts) -> Iterator[Result]:
    """Name the proxy in use."""
    settings = facts.settings
    if settings.proxy is not None:
        yield Seen(f"All requests to Keycloak go through {settings.proxy} ({settings.worded('KEYCLOAK_PROXY')}).")
        return
    unused = unused_proxy(settings.url)
    yield Seen(f"No proxy.{f' {unused} is set and is not used for Keycloak.' if unused else ''}")


def check_reachable(facts: Facts) -> Iterator[Result]:
    """Look whether Keycloak answers."""
    answer = facts.certs
    if answer.reply is not None:
        yield Seen(f"{answer.url} answers.")
        return
    settings = facts.settings
    cure = settings.worded(unreachable_cure(answer.url, answer.problem, proxied=settings.proxy is not None))
    yield Finding(seen=f"{answer.url}: {answer.problem}.", why=_NO_TOKENS, cure=cure)


def check_realm(facts: Facts) -> Iterator[Result]:
    """Look whether the realm is there, at this path."""
    answer = facts.certs
    reply, unreadable = answer.reply, answer.unreadable
    if unreadable:
        cure = unreachable_cure(answer.url, unreadable, proxied=facts.settings.proxy is not None)
        yield Finding(seen=f"{answer.url}: {unreadable}.", why=_NO_TOKENS, cure=facts.settings.worded(cure))
        return
    if reply is None or reply.status == _OK:
        yield Seen(f"The realm {named(facts.settings.realm)} is there.")
        return
    settings = facts.settings
    elsewhere = _other_path(facts) if reply.status == _NOT_FOUND else ""
    seen = f"{answer.url} {reply.sentence}."
    cure = (
        answer_cure(answer.url, reply.status, said_by(reply))
        or "Look into the log of Keycloak, or of the proxy in front of it."
    )
    yield Finding(seen=f"{seen}{elsewhere}", why=_NO_TOKENS, cure=settings.worded(cure))


def _other_path(facts: Facts) -> str:
    """Say so if the realm is found with ``/auth`` in the path, or without the path of the settings."""
    settings = facts.settings
    parts = urlsplit(settings.server)
    origin = f"{parts.scheme}://{parts.netloc}"
    other = origin if parts.path else f"{origin}/auth"
    page = facts.answer(facts.endpoints.jwks.replace(settings.server, other, 1))
    return f" {page.url} has the keys." if page.content else ""


def check_issuer(facts: Facts) -> Iterator[Result]:
    """Compare Keycloak's issuer with the expected one."""
    found, expected = facts.discovery.content.get("issuer"), facts.settings.issuer
    if not isinstance(found, str):
        yield Seen(f"{facts.discovery.url} names no issuer; the token below shows it.")
    elif found == expected:
        yield Seen(f"Keycloak names itself {expected}, as the settings do.")
    else:
        yield Finding(
            seen=f"Keycloak's issuer is {named(found)}, the settings expect {expected}.",
            why="Tokens with another iss are refused (wrong_issuer).",
            cure=facts.settings.worded(issuer_steps(found, expected)),
        )


def check_keys(facts: Facts) -> Iterator[Result]:
    """Count the published keys that can be used."""
    keys, url = facts.keys, facts.certs.url
    if not keys.keys:
        yield Finding(
            seen=f"{url} holds no key that can verify an access token.",
            why="Every request is answered 503 (keys_unavailable).",
            cure="Give the realm an active key provider for RS256 (Realm settings, Keys, Providers).",
        )
    else:
        yield Seen(f"{len(keys.keys)} usable: {listed({algorithm for _, algorithm in keys.keys})}.")
    for kid, problem in list(keys.skipped.items())[:_MOST]:
        yield Finding(
            level="warning",
            seen=f"The key {named(kid[:64]) if kid else 'without a kid'} at {url} cannot be used and is left out: {problem}.",
            why="Tokens that it signed are refused.",
            cure="Change that key provider (Realm settings, Keys, Providers), if it signs access tokens.",
        )


def check_revocation(facts: Facts) -> Iterator[Result]:
    """Look whether a revocation counts here."""
    value = facts.realm_page.content.get("tokens-not-before")
    if isinstance(value, int) and not isinstance(value, bool):
        yield Seen("The realm's not-before can be read.")
        return
    yield Finding(
        level="warning",
        seen=f"The realm's not-before could not be read from {facts.realm_page.url}.",
        why="A revocation in Keycloak has no effect here.",
        cure="Let the proxy in front of Keycloak publish this page too.",
    )


def check_clock(facts: Facts) -> Iterator[Result]:
    """Compare Keycloak's clock with this host's."""
    offset, source = clock_offset(facts)
    if offset is None:
        yield Skipped("Keycloak's answer has no Date, and there is no token to compare.")
        return
    leeway, size = facts.settings.leeway, abs(offset)
    said = f"Keycloak's clock is {size:.0f} s {'ahead of' if offset > 0 else 'behind'} this host's ({source})"
    if size <= _CLOCKS_DIFFER:
        yield Seen(f"Keycloak's clock and this host's differ by less than {_CLOCKS_DIFFER:g} s.")
    elif size <= leeway:
        yield Finding(
            level="warning", seen=f"{said}.", why=f"{leeway:g} s are tolerated, by both sides together.", cure=CLOCKS
        )
    else:
        result = "not_yet_valid" if offset > 0 else "expired too early"
        yield Finding(
            seen=f"{said}, more than the {leeway:g} s that are tolerated.",
            why=f"Tokens are refused ({result}).",
            cure=CLOCKS,
        )


BY_DATE: Final = "the Date of its answer"


def clock_offset(facts: Facts) -> tuple[float | None, str]:
    """Return how many seconds Keycloak's clock is ahead of this host's, and what shows it; None if nothing does."""
    offset, source = _by_date(facts.certs), BY_DATE
    if offset is None and facts.gets_token:
        issued_at = facts.own_claims.get("iat")
        if isinstance(issued_at, int):
            offset, source = issued_at + 0.5 - facts.own_token_at, "iat of its token"
    return offset, source


def _by_date(answer: Answer) -> float | None:
    """Return how many seconds the server's clock is ahead, by the header Date (RFC 9110 section 6.6.1)."""
    text = "" if answer.reply is None else answer.reply.headers.get("Date", "")
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError, TypeError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    offset = date.timestamp() + 0.5 - answer.at  # whole seconds: in the middle, half a second is missing
    return offset if math.isfinite(offset) else None
