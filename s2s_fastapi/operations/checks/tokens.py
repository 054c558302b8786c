"""The credentials, and the tokens that they bring."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from s2s_fastapi.caller.granted import MAX_LIFE, claims_of
from s2s_fastapi.caller.token_endpoint import remarks
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.decision import Reason
from s2s_fastapi.downstream import Downstream
from s2s_fastapi.errors import AudienceNotGranted, S2SError, TokenRequestError
from s2s_fastapi.keycloak.cures import SMALLER, also_for, shown
from s2s_fastapi.operations.checks.client import NAME_ITS_APP, check_client
from s2s_fastapi.operations.checks.grants import on_the_way
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.findings import Finding, Result, Seen, Skipped
from s2s_fastapi.operations.inspection import Inspection
from s2s_fastapi.operations.tokens import described_by, kind_because, requested, verdict_on
from s2s_fastapi.requirement.requirement import Caller
from s2s_fastapi.text import listed, named

__all__ = [
    "check_credentials",
    "check_downstreams",
    "check_kind",
    "check_lifetime",
    "check_origins",
    "check_size",
    "check_token",
    "check_varying",
    "one_downstream",
]

_LONG_LIFE: Final = 3600
_LARGE: Final = 6000
"""Bytes of a token. Servers and proxies commonly take 8 KB of headers."""
_MOST: Final = 20
_CHANGING: Final = frozenset({"exp", "iat", "nbf", "jti", "auth_time", "sid", "cnf"})
"""Claims that differ in every token, by their meaning."""

_CANNOT_CALL: Final = "This service cannot call any other: it has no token."
_IF_IT_CALLS: Final = "If this service calls others as itself, it cannot: it has no token."
_UNDECLARED: Final = "A call is declared if a dependency of a route or service_lifespan(...) makes it: try any other with s2s-fastapi token."


def check_credentials(facts: Facts) -> Iterator[Result]:
    """Look whether Keycloak gives this client a token."""
    found = facts.token(Wanted())
    if not isinstance(found, S2SError):
        yield Seen(f"Keycloak gives {named(facts.settings.client_id)} a token ({facts.settings.client_auth}).")
        return
    who = named(facts.settings.client_id)
    if not _no_service_account(found):
        yield _of_error(found, _IF_IT_CALLS if facts.declares_no_call else _CANNOT_CALL)
    elif facts.only_for_users or facts.declares_no_call:
        yield Seen(f"Keycloak accepts the credentials of {who} ({facts.settings.client_auth}).")
        yield Skipped(
            f"{who} has no service account, and needs none: this service calls only on behalf of users, so it has no token of its own."
            if facts.only_for_users
            else f"{who} has no service account, and no declared call needs one: a service that is only called has none. {_UNDECLARED}"
        )
    else:
        finding = _of_error(found, _CANNOT_CALL)
        if facts.downstreams:
            yield finding
            return
        # It may be a receiver, whose client is right.
        yield replace(finding, level="warning", why=_IF_IT_CALLS, cure=f"{finding.cure} {NAME_ITS_APP}")
        yield Skipped("There is no token to look at: see credentials.")


def _no_service_account(error: S2SError) -> bool:
    """Return whether the credentials are right and only the service account is missing: Keycloak says so after it has checked them."""
    if not isinstance(error, TokenRequestError) or error.error != "unauthorized_client":
        return False
    return "client not enabled to retrieve service account" in error.error_description.lower()


def _of_error(error: S2SError, why: str) -> Finding:
    cure = error.cure if isinstance(error, TokenRequestError) else ""
    text = str(error)
    if not cure:
        return Finding(seen="No token was requested, or none was given.", why=why, cure=text)
    return Finding(seen=text.removesuffix(cure).strip(), why=why, cure=cure)


def check_token(facts: Facts) -> Iterator[Result]:
    """Verify the token as a receiver does."""
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


def check_kind(facts: Facts) -> Iterator[Result]:
    """Look whether the token says that a service is calling."""
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


def check_lifetime(facts: Facts) -> Iterator[Result]:
    """Look how long the token lives."""
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


def check_size(facts: Facts) -> Iterator[Result]:
    """Look how large the token is."""
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


def check_varying(facts: Facts) -> Iterator[Result]:
    """Compare two tokens."""
    other = requested(facts.settings, Wanted(), dpop=facts.binds)
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


def check_origins(facts: Facts) -> Iterator[Result]:
    """Look whether the token has the claim ``allowed-origins``."""
    origins = facts.own_claims.get("allowed-origins")
    if not origins:
        yield Seen("The token has no allowed-origins.")
        return
    shown_origins = listed(map(str, origins[:_MOST])) if isinstance(origins, list) else shown(origins)
    yield Finding(
        level="warning",
        seen=f"The token has the claim allowed-origins: {shown_origins}.",
        why="It comes from “Web origins” of the client. It makes each token larger, and a receiver with an adapter of Keycloak answers"
        " browsers from these origins.",
        cure="Remove the Web origins of the client, unless a browser logs in with it. Then make another client for this service.",
        console=f"Clients, {named(facts.settings.client_id)}, Settings, Access settings, Web origins",
    )


def check_downstreams(facts: Facts) -> Iterator[Result]:
    """Request the token for each declared call."""
    if not facts.app_name and not facts.files:
        yield Skipped(
            "Nothing says whom this service calls: name its app (--app module:app) or its access file (--access)."
        )
        return
    if not facts.app_name and not facts.own_apps:
        yield Finding(
            level="warning",
            seen=f"No access file has an app with the client id {named(facts.settings.client_id) if facts.settings.client_id else 'of this service'}.",
            why="Nothing says whom this service calls.",
            cure=f"Name its access file, or correct {facts.settings.worded('KEYCLOAK_CLIENT_ID')}.",
        )
        return
    if facts.declares_no_call:
        yield Skipped(f"No declared call needs a token of {named(facts.settings.client_id)}. {_UNDECLARED}")
        return
    if not facts.downstreams:
        yield Skipped("Whom the app calls is not known: see app.")
        return
    for downstream in facts.downstreams:
        yield from one_downstream(facts, downstream)


def one_downstream(facts: Facts, downstream: Downstream) -> Iterator[Result]:
    """Request the token for one call."""
    if downstream.on_behalf:
        yield Seen(
            f"Calls to {downstream.target} on behalf of users: see exchange. There is no user here whose token could be exchanged."
        )
        return
    wanted = Wanted(downstream.audiences, downstream.scopes)
    target = downstream.target
    if not wanted.audiences:
        yield Finding(
            level="warning",
            seen=f"A call to {listed(downstream.origins) or 'any origin'} names no audience.",
            why="Nobody checks that the token is for the called service, before the service refuses it.",
            cure='Write audience="..." in service_client(...).',
        )
    found = facts.token(wanted, dpop=downstream.dpop)
    if isinstance(found, S2SError):
        finding = _of_error(found, f"Calls to {target} are not sent.")
        lacks = isinstance(found, AudienceNotGranted) or getattr(found, "code", "") == "invalid_scope"
        if lacks and (check := _known_by(facts, downstream)):
            yield Skipped(f"No such token for {target} is granted: see {check}.")
        elif lacks and not _is_lightweight(found):  # no plan changes the kind of the tokens
            yield replace(finding, plan=facts.plan(min(wanted.audiences, default="")))
        else:
            yield finding
        return
    yield Seen(
        f"A {'bound ' if downstream.dpop else ''}token for {target}{f' with scope {listed(wanted.scopes)}' if wanted.scopes else ''} is granted."
    )
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


def _known_by(facts: Facts, downstream: Downstream) -> str:
    """Return the check that sees as an administrator why a token is not granted: one fault is one finding."""
    found = facts.inspection
    if not isinstance(found, Inspection):
        return ""
    checks = {"steps": on_the_way(facts, found, downstream), "client": check_client(facts)}
    return next(
        (
            name
            for name, results in checks.items()
            if any(isinstance(each, Finding) and each.level == "problem" for each in results)
        ),
        "",
    )


def _is_lightweight(error: S2SError) -> bool:
    """Return whether the token that was given is one, as Keycloak 26.7 marks it."""
    claims = error.claims if isinstance(error, AudienceNotGranted) else {}
    return str(claims.get("jti", ""))[2:4] == "lt"
