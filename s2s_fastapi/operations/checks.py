"""The checks of `s2s-fastapi doctor`: an ordered table of functions. Each says what it saw, why it matters, and what to change.

A check looks at one thing. The cures are those that the service itself logs: one sentence for one fault everywhere.
"""

import difflib
import math
import os
import platform
import shlex
import ssl
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from s2s_fastapi.backchannel.channel import unused_proxy
from s2s_fastapi.caller.client_key import ClientKey
from s2s_fastapi.caller.granted import MAX_LIFE, claims_of
from s2s_fastapi.caller.token_request import remarks
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.decision import Reason
from s2s_fastapi.downstream import Downstream
from s2s_fastapi.errors import ConfigurationError, S2SError, TokenRequestError
from s2s_fastapi.keycloak.cures import CLOCKS, SMALLER, also_for, issuer_steps, shown
from s2s_fastapi.keycloak.server_cures import answer_cure, said_by, unreachable_cure
from s2s_fastapi.operations.applications import without_middleware
from s2s_fastapi.operations.facts import Answer, Facts
from s2s_fastapi.operations.findings import Checked, Finding, Report, Result, Seen, Skipped
from s2s_fastapi.operations.tokens import described_by, kind_because, requested, verdict_on
from s2s_fastapi.requirement.requirement import Caller
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.text import listed, named

__all__ = ["CHECKS", "examined"]

_OK: Final = 200
_NOT_FOUND: Final = 404
_LONG_LIFE: Final = 3600
_LARGE: Final = 6000
"""Bytes of a token. Servers and proxies commonly take 8 KB of headers."""
_CLOCKS_DIFFER: Final = 5.0
_MOST: Final = 20
_CHANGING: Final = frozenset({"exp", "iat", "nbf", "jti", "auth_time", "sid"})
"""Claims that differ in every token, by their meaning."""
_USUAL_SECRETS: Final = frozenset({"secret", "changeme", "change-me", "password", "keycloak", "admin", "test", "xxx"})
_PACKAGES: Final = ("s2s-fastapi", "fastapi", "starlette", "httpx", "joserfc", "authlib", "pydantic")

_CANNOT_CALL: Final = "This service cannot call any other: it has no token."
_NO_TOKENS: Final = "This service can neither check tokens nor get one."


def examined(facts: Facts) -> Report:
    """Make all checks in their order. A check is skipped if one that it needs found a problem or was skipped."""
    done: dict[str, Checked] = {}
    for name, needs, check in CHECKS:
        in_the_way = next((each for each in needs if done[each].state in ("problem", "skipped")), "")
        if in_the_way:
            why = _skipped_because(done[in_the_way])
            done[name] = Checked(name, (Skipped(why),))
            continue
        try:
            results = tuple(check(facts))
        except ConfigurationError as error:
            results = (
                Finding(
                    seen="The settings are incomplete, or contradict each other.",
                    why="The service does not start.",
                    cure=str(error),
                ),
            )
        done[name] = Checked(name, results)
    return Report(tuple(done.values()))


def _skipped_because(check: Checked) -> str:
    if check.state == "problem":
        return f"First solve the problem of {check.name}."
    return next(result.why for result in check.results if isinstance(result, Skipped))


# What is here: the app, the settings, the files


def _versions(_: Facts) -> Iterator[Result]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    yield Seen(f"{', '.join(found)}, Python {platform.python_version()}, {ssl.OPENSSL_VERSION}")


def _app(facts: Facts) -> Iterator[Result]:
    if not facts.app_name:
        yield Skipped("No app was named: --app module:app reads what it declares and whom it calls.")
        return
    if facts.start_problem:
        yield Finding(
            seen=f"The app {named(facts.app_name)} would not start.",
            why="A server with this app ends, and what the app declares is not known.",
            cure=facts.start_problem,
        )
        return
    documentation, downstreams = facts.documentation, facts.downstreams
    if documentation is None:
        yield _unprotected(facts)
    else:
        check = documentation.check
        names = check.audiences or check.declared
        yield Seen(f"The app accepts tokens for {listed(names, ' or ') if names else 'any service'}.")
        for sentence in check.warnings():
            yield Finding(
                level="warning",
                seen=sentence,
                why="The app logs this at each start.",
                cure="Change the code as the sentence says.",
            )
    targets = [listed(each.audiences, " and ") or "a service without an audience" for each in downstreams]
    yield Seen(f"The app calls {', '.join(dict.fromkeys(targets)) or 'no service that it declares'}.")


def _unprotected(facts: Facts) -> Finding:
    routes = () if facts.access is None else facts.access.routes
    requiring = [route.name for route in routes if route.requirement is not None]
    return Finding(
        level="problem" if requiring else "warning",
        seen=without_middleware(requiring),
        why="No request to these routes succeeds, whoever calls." if requiring else "Everybody may call it.",
        cure=f"Add it: app.add_middleware(ServiceAuthMiddleware){'' if requiring else ', unless everybody may call this app'}.",
    )


def _settings(facts: Facts) -> Iterator[Result]:
    settings = facts.settings
    yield Seen(
        f"Realm {named(settings.realm)} at {settings.server}, expected issuer {settings.issuer}, client {named(settings.client_id) if settings.client_id else 'none'}."
    )
    prefix = settings.worded("KEYCLOAK_")
    known = {f"{prefix}{name.upper()}" for name in KeycloakSettings.model_fields}
    for variable in sorted(facts.environment):
        if (
            variable.startswith(prefix)
            and variable not in known
            and (near := difflib.get_close_matches(variable, known, 1, 0.85))
        ):
            yield Finding(
                level="warning",
                seen=f"{named(variable)} is set, and no setting has this name.",
                why="Its value has no effect.",
                cure=f"If {near[0]} is meant, rename it.",
            )


def _files(facts: Facts) -> Iterator[Result]:
    settings = facts.settings
    files = {
        "CLIENT_SECRET_FILE": settings.client_secret_file,
        "CLIENT_KEY_FILE": settings.client_key_file,
        "CA_FILE": settings.ca_file,
    }
    named_files = {settings.worded(f"KEYCLOAK_{name}"): file for name, file in files.items() if file is not None}
    if not named_files:
        yield Skipped("No setting names a file.")
        return
    for variable, file in named_files.items():
        yield from _permissions(variable, file, secret=not variable.endswith("CA_FILE"))


def _permissions(variable: str, file: Path, *, secret: bool) -> Iterator[Result]:
    shown_file = shown(str(file))
    try:
        mode = file.stat().st_mode  # of what the link leads to, as Kubernetes mounts it
    except OSError as error:
        yield Finding(
            seen=f"{variable}: {shown_file} cannot be read ({error.strerror}).",
            why=_CANNOT_CALL if secret else _NO_TOKENS,
            cure=f"Correct {variable}, or let this process read the file.",
        )
        return
    if os.name == "nt":
        yield Skipped("Windows has no permissions of this kind.")
        return
    others = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP if secret else stat.S_IWOTH | stat.S_IWGRP
    if not mode & others:
        yield Seen(f"{variable}: {shown_file} has the mode {stat.S_IMODE(mode):04o}.")
        return
    yield Finding(
        level="warning",
        seen=f"{variable}: {shown_file} has the mode {stat.S_IMODE(mode):04o}.",
        why="Every user of this machine can read it, or somebody else can replace it."
        if secret
        else "Somebody else can add a certificate that this service then trusts.",
        cure=f"chmod {'600' if secret else '644'} {shlex.quote(str(file)) if str(file).isprintable() else shown_file} (in Kubernetes: defaultMode of the volume).",
    )


def _secret(facts: Facts) -> Iterator[Result]:
    settings = facts.settings
    if not facts.calls:
        if facts.downstreams:
            calls = f"The app calls {listed(name for each in facts.downstreams for name in each.audiences) or 'others'}, and has neither a secret nor a key."
            error = facts.token(Wanted())
            yield Finding(seen=calls, why=_CANNOT_CALL, cure=str(error))
            return
        yield Skipped("This service has neither a secret nor a key, so it calls no other service.")
        return
    if settings.client_key_file is not None:
        key = ClientKey.read(settings.client_key_file, said=settings.worded("KEYCLOAK_CLIENT_KEY_FILE"))
        yield Seen(f"A private key for {key.algorithm}, kid {named(key.kid)}.")
        return
    yield from _quality(settings)


def _quality(settings: KeycloakSettings) -> Iterator[Result]:
    secret = settings.secret()
    where = settings.worded("KEYCLOAK_CLIENT_SECRET_FILE" if settings.client_secret_file else "KEYCLOAK_CLIENT_SECRET")
    blank, guessed = secret != secret.strip(), secret.strip().lower() in _USUAL_SECRETS | {settings.client_id.lower()}
    odd = not secret.isascii() or not secret.isprintable()
    del secret  # error trackers record the locals
    if blank:
        yield Finding(
            level="warning",
            seen=f"The secret in {where} begins or ends with a blank.",
            why="Keycloak makes no such secrets: the blank was probably copied along, and then each token request is refused.",
            cure=f"Remove the blank in {where}.",
        )
    if odd:
        yield Finding(
            level="warning",
            seen=f"The secret in {where} has a character that is not printable ASCII.",
            why="Keycloak makes no such secrets: the text was probably damaged on its way.",
            cure=f"Copy the secret again into {where}. It is on the Credentials page of the client {named(settings.client_id)} in Keycloak.",
        )
    if guessed:
        yield Finding(
            level="warning",
            seen=f"The secret in {where} is a common word or the name of the client.",
            why="Whoever guesses it gets tokens of this service.",
            cure=f"Make a new secret in Keycloak: Clients, {named(settings.client_id)}, Credentials, Regenerate.",
        )
    if not (blank or guessed or odd):
        yield Seen(f"A secret in {where}, without blanks, quotes or placeholders.")


# The way to Keycloak


def _tls(facts: Facts) -> Iterator[Result]:
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


def _proxy(facts: Facts) -> Iterator[Result]:
    settings = facts.settings
    if settings.proxy is not None:
        yield Seen(f"All requests to Keycloak go through {settings.proxy} ({settings.worded('KEYCLOAK_PROXY')}).")
        return
    unused = unused_proxy(settings.url)
    yield Seen(f"No proxy.{f' {unused} is set and is not used for Keycloak.' if unused else ''}")


def _reachable(facts: Facts) -> Iterator[Result]:
    answer = facts.certs
    if answer.reply is not None:
        yield Seen(f"{answer.url} answers.")
        return
    settings = facts.settings
    cure = settings.worded(unreachable_cure(answer.url, answer.problem, proxied=settings.proxy is not None))
    yield Finding(seen=f"{answer.url}: {answer.problem}.", why=_NO_TOKENS, cure=cure)


def _realm(facts: Facts) -> Iterator[Result]:
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


def _issuer(facts: Facts) -> Iterator[Result]:
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


def _keys(facts: Facts) -> Iterator[Result]:
    keys, url = facts.keys, facts.certs.url
    if not keys.keys:
        yield Finding(
            seen=f"{url} holds no key that can verify an access token.",
            why="Every request is answered 503 (keys_unavailable).",
            cure="Give the realm an active key provider for RS256 (Realm settings, Keys).",
        )
    else:
        yield Seen(f"{len(keys.keys)} usable: {listed({algorithm for _, algorithm in keys.keys})}.")
    for kid, problem in list(keys.skipped.items())[:_MOST]:
        yield Finding(
            level="warning",
            seen=f"The key {named(kid[:64]) if kid else 'without a kid'} at {url} cannot be used and is left out: {problem}.",
            why="Tokens that it signed are refused.",
            cure="Change that key provider (Realm settings, Keys), if it signs access tokens.",
        )


def _revocation(facts: Facts) -> Iterator[Result]:
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


# The credentials, and what they bring


def _credentials(facts: Facts) -> Iterator[Result]:
    found = facts.token(Wanted())
    if not isinstance(found, S2SError):
        yield Seen(f"Keycloak gives {named(facts.settings.client_id)} a token ({facts.settings.client_auth}).")
        return
    yield _of_error(found, _CANNOT_CALL)


def _of_error(error: S2SError, why: str) -> Finding:
    cure = error.cure if isinstance(error, TokenRequestError) else ""
    text = str(error)
    if not cure:
        return Finding(seen="No token was requested, or none was given.", why=why, cure=text)
    return Finding(seen=text.removesuffix(cure).strip(), why=why, cure=cure)


def _clock(facts: Facts) -> Iterator[Result]:
    offset, source = _offset(facts.certs), "the Date of its answer"
    if offset is None and facts.calls and not isinstance(facts.token(Wanted()), S2SError):
        issued_at = facts.own_claims.get("iat")
        if isinstance(issued_at, int):
            offset, source = issued_at + 0.5 - facts.clock(), "iat of its token"
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


def _offset(answer: Answer) -> float | None:
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


def _token(facts: Facts) -> Iterator[Result]:
    verdict = verdict_on(facts.settings, facts.own_token.value, ())
    decision = verdict.decision
    if decision.reason is Reason.ALLOWED:
        yield Seen("Its signature, issuer and dates are those that a receiver accepts.")
        return
    yield Finding(
        seen=f"A service with the same settings refuses the token: {decision.reason}.",
        why=f"Every call of this service is answered {decision.status}.",
        cure=decision.cure,
    )


def _kind(facts: Facts) -> Iterator[Result]:
    principal = described_by(facts.own_claims)
    if principal is None:
        yield Skipped("The claims of the token cannot be read.")
        return
    decision = Caller("service").judge(principal)
    if decision.reason is Reason.ALLOWED:
        yield Seen(f"service: {kind_because(principal)}")
        return
    yield Finding(
        seen="The token does not say that a service is calling.",
        why=f"Receivers refuse it ({decision.reason}).",
        cure=decision.cure,
    )


def _lifetime(facts: Facts) -> Iterator[Result]:
    token, settings = facts.own_token, facts.settings
    short = next((each for each in remarks(token, Wanted(), settings) if " lives " in each), "")
    if short:
        yield Finding(
            level="warning",
            seen=f"{short.partition(': ')[0]}.",
            why="A token of so short a life is not renewed ahead: calls wait for Keycloak.",
            cure="Raise the access token lifespan of the client or of the realm.",
        )
    elif _LONG_LIFE < token.life < MAX_LIFE:  # a longer one is refused: see `_token`
        yield Finding(
            level="warning",
            seen=f"The token lives {token.life / 3600:.1f} h.",
            why="A caller keeps it so long: until then a role that is taken away, or a client that is disabled, still counts.",
            cure="Shorten “Access Token Lifespan” of the client (Advanced) or the realm (Realm settings, Tokens).",
        )
    else:
        yield Seen(
            f"{token.life:g} s. Receivers accept a token for {settings.leeway:g} s longer; this service renews it before its end."
        )


def _size(facts: Facts) -> Iterator[Result]:
    size = len(facts.own_token.value)
    if size <= _LARGE:
        yield Seen(f"The token has {size} bytes.")
        return
    yield Finding(
        level="warning",
        seen=f"The token has {size} bytes.",
        why="Many servers and proxies take 8 KB of headers, and this package takes 16 KB of token.",
        cure=SMALLER,
    )


def _varying(facts: Facts) -> Iterator[Result]:
    other = requested(facts.settings, Wanted())
    if isinstance(other, S2SError):
        yield _of_error(other, "Keycloak gave a token just before.")
        return
    one, two = _comparable(facts.own_claims), _comparable(claims_of(other.value) or {})
    differing = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    if not differing:
        yield Seen("Two tokens differ in nothing but their dates and ids.")
        return
    yield Finding(
        level="warning",
        seen=f"Two tokens, requested one after the other, differ in {listed(differing[:_MOST])}.",
        why="A receiver cannot rely on such a claim, and a rule on it holds for one token and not for the next.",
        cure=f"Look for the mappers that write {listed(differing[:_MOST])} into tokens of {named(facts.settings.client_id)}, and remove them if no service needs them.",
    )


def _comparable(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims that should be equal in two tokens, without the order of names."""
    kept = {name: value for name, value in claims.items() if name not in _CHANGING}
    if isinstance(kept.get("aud"), list):
        kept["aud"] = sorted(map(str, kept["aud"]))
    if isinstance(kept.get("scope"), str):
        kept["scope"] = sorted(kept["scope"].split())
    return kept


def _downstreams(facts: Facts) -> Iterator[Result]:
    if not facts.app_name:
        yield Skipped("No app was named: --app module:app says whom it calls.")
        return
    if not facts.downstreams:
        yield Skipped("The app declares no call. A call of ServiceTokenAuth(...) in the code is not a declaration.")
        return
    for downstream in facts.downstreams:
        yield from _one_downstream(facts, downstream)


def _one_downstream(facts: Facts, downstream: Downstream) -> Iterator[Result]:
    wanted = Wanted(downstream.audiences, downstream.scopes)
    target = listed(wanted.audiences, " and ") or "a service without an audience"
    if not wanted.audiences:
        yield Finding(
            level="warning",
            seen=f"A call to {listed(downstream.origins) or 'any origin'} names no audience.",
            why="Nobody checks that the token is for the called service, before the service refuses it.",
            cure='Write audience="..." in service_client(...).',
        )
    found = facts.token(wanted)
    if isinstance(found, S2SError):
        yield _of_error(found, f"Calls to {target} are not sent.")
        return
    yield Seen(f"A token for {target}{f' with scope {listed(wanted.scopes)}' if wanted.scopes else ''} is granted.")
    for sentence in remarks(found, wanted, facts.settings):
        if "requested scope" in sentence:
            yield Finding(
                level="warning",
                seen=f"{sentence.partition(': ')[0]}.",
                why=f"{target} refuses the call if it requires that scope (scope_missing).",
                cure=f"{sentence.partition(': ')[2]}.",
            )
    principal = described_by(claims_of(found.value) or {})
    others = principal.audiences - wanted.audiences if principal is not None and wanted.audiences else frozenset()
    if principal is not None and others:
        said, _, cure = also_for(principal, others).partition(". ")
        yield Finding(
            level="warning",
            seen=f"{said}.",
            why=f"A route of {target} with only=True refuses it (audience_not_only).",
            cure=cure,
        )


CHECKS: Final[tuple[tuple[str, Collection[str], Callable[[Facts], Iterator[Result]]], ...]] = (
    ("versions", (), _versions),
    ("settings", (), _settings),
    ("app", ("settings",), _app),
    ("files", ("settings",), _files),
    ("secret", ("settings",), _secret),
    ("tls", ("settings",), _tls),
    ("proxy", ("settings",), _proxy),
    ("reachable", ("settings",), _reachable),
    ("realm", ("reachable",), _realm),
    ("issuer", ("realm",), _issuer),
    ("keys", ("realm",), _keys),
    ("revocation", ("realm",), _revocation),
    ("credentials", ("realm", "secret"), _credentials),
    ("clock", ("realm",), _clock),
    ("token", ("credentials", "issuer", "keys", "clock"), _token),
    ("kind", ("credentials",), _kind),
    ("lifetime", ("credentials",), _lifetime),
    ("size", ("credentials",), _size),
    ("varying", ("credentials",), _varying),
    ("downstreams", ("credentials",), _downstreams),
)
"""All checks in their order: the name, the checks that it needs, the function."""
