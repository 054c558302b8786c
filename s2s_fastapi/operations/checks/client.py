"""What an administrator sees of the client itself: step A, what makes its tokens unusable, and when its secret ends."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from s2s_fastapi.jose.algorithms import ALGORITHMS
from s2s_fastapi.keycloak.client_authentication import CERTIFICATE_BOUND
from s2s_fastapi.keycloak.client_authentication import CONSOLE as CERTIFICATE_CONSOLE
from s2s_fastapi.keycloak.dpop import ATTRIBUTE as DPOP
from s2s_fastapi.keycloak.dpop import CONSOLE, bind_or_switch_off
from s2s_fastapi.operations.checks.authentication import AUTHENTICATORS, SHOWN_AS
from s2s_fastapi.operations.checks.grants import disabled_receiver, no_receiver
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.findings import Finding, Result, Seen, Skipped
from s2s_fastapi.operations.forbidden import forbidden_client
from s2s_fastapi.operations.inspection import Inspection
from s2s_fastapi.realm.entities import OIDC
from s2s_fastapi.text import listed, named

__all__ = ["NAME_ITS_APP", "check_admin", "check_client", "check_expiry"]

NAME_ITS_APP: Final = (
    "If this service calls nobody, or only on behalf of users, it needs no service account: name its app (--app module:app) or its access file"
    " (--access)."
)
"""What follows the cure of a missing service account if nothing says whom the service calls: a receiver has none, by step B."""

_NO_TOKEN: Final = "Keycloak gives this service no token."
_NOT_READ: Final = "The realm was not read: see admin."
_SOON: Final = 14 * 24 * 3600
_OFF: Final = {"": "", "false": ""}
"""Values of a switch that is off."""
_SWITCHES: Final[tuple[tuple[str, str, str, str], ...]] = (
    (
        "client.use.lightweight.access.token.enabled",
        "Advanced, Always use lightweight access token",
        "always gets lightweight tokens",
        "Their claims are left out, and receivers refuse them (wrong_audience, unknown_kind).",
    ),
    (
        "client_credentials.use_refresh_token",
        "Advanced, OpenID Connect Compatibility Modes, Use refresh tokens for client credentials grant",
        "gets refresh tokens for client credentials",
        "Its tokens have a session (sid), and receivers refuse them (unknown_kind).",
    ),
    (
        DPOP,
        CONSOLE,
        "needs a DPoP proof",
        _NO_TOKEN + " It requests bearer tokens.",
    ),
    (
        CERTIFICATE_BOUND,
        CERTIFICATE_CONSOLE,
        "needs a client certificate",
        _NO_TOKEN + " This service shows none (KEYCLOAK_CLIENT_CERT_FILE).",
    ),
)
"""Attributes that must be off: the name, the place in the console, what the client is then, and why that matters."""


def check_admin(facts: Facts) -> Iterator[Result]:
    """Read the realm as an administrator."""
    if facts.admin is None and not facts.admin_problem:
        yield Skipped("No KEYCLOAK_ADMIN_... variable is set, so nothing is known that only an administrator sees.")
        return
    if not facts.settings.client_id:
        yield Skipped("KEYCLOAK_CLIENT_ID is not set: there is no client to look at.")
        return
    found = facts.inspection
    if isinstance(found, Inspection):
        yield Seen(f"The realm was read as {named(found.reader)} (Keycloak {found.snapshot.version}).")
        for note in found.snapshot.notes:
            yield Seen(f"Not looked at: {note}.")
        return
    yield Finding(
        level="problem" if facts.admin_required else "warning",
        seen="The realm cannot be read as an administrator.",
        why="Steps A to D, the end of the secret and the settings of the client are not looked at.",
        cure=found,
    )


def check_client(facts: Facts) -> Iterator[Result]:
    """Look at the client itself: step A, and what makes its tokens unusable."""
    found = facts.inspection
    if not isinstance(found, Inspection):
        yield Skipped(_NOT_READ)
        return
    client, who = found.client, named(found.client_id)
    if problem := forbidden_client(found.client_id, found.snapshot.realm):
        yield Finding(
            seen=f"KEYCLOAK_CLIENT_ID names a client that no service may use: {problem}.",
            why="Whoever has its secret may have rights in Keycloak.",
            cure="Make a client for this service alone, and set KEYCLOAK_CLIENT_ID to it.",
            console="Clients, Create client",
        )
        return
    if client is None:
        yield (
            _no_client(facts, found)
            if _gets_tokens(facts, {})
            else no_receiver(facts, found, found.client_id, similar=found.similar)
        )
        return
    if client.get("protocol", OIDC) != OIDC:
        yield Finding(
            seen=f"The client {who} is of the protocol {named(str(client['protocol']))}.",
            why=_NO_TOKEN,
            cure="Make a client of the type OpenID Connect under another name, and set KEYCLOAK_CLIENT_ID to it.",
            console="Clients, Create client",
        )
        return
    findings = [*_step_a(facts, found, client), *_unusual(facts, found, client)]
    yield from findings
    if not findings:
        yield Seen(
            f"The client {who} is enabled and confidential. This service calls only on behalf of users, so it needs no service account."
            if facts.proves_itself and facts.only_for_users and not client.get("serviceAccountsEnabled")
            else f"The client {who} is enabled, confidential and has a service account."
            if _gets_tokens(facts, client)
            else f"The client {who} is there and enabled. A service that is only called needs no service account."
        )
    attributes: Mapping[str, str] = client.get("attributes") or {}
    if life := attributes.get("access.token.lifespan"):
        yield Seen(f"Its tokens live {life} s by a setting of its own (access.token.lifespan).")
    policies = [str(each["name"]) for each in found.snapshot.document["clientPolicies"]["policies"]]
    if policies:
        yield Seen(
            f"Client policies in force: {listed(policies)}. They may change the client whenever it is saved, and refuse requests."
        )


def _gets_tokens(facts: Facts, client: Mapping[str, Any]) -> bool:
    """Return whether this service is to get tokens: it has credentials, and declares a call, does not say, or has a service account."""
    return facts.proves_itself and (not facts.declares_no_call or bool(client.get("serviceAccountsEnabled")))


def _no_client(facts: Facts, found: Inspection) -> Finding:
    who = named(found.client_id)
    similar = f" It has {listed(found.similar)}." if found.similar else ""
    return Finding(
        seen=f"The realm {named(found.snapshot.realm)} has no client {who} (step A).{similar}",
        why=_NO_TOKEN,
        cure=f"Set KEYCLOAK_CLIENT_ID to {listed(found.similar, ' or ')}: upper and lower case count."
        if found.similar
        else f"Make the client {who}, and copy its secret to this service; or correct KEYCLOAK_CLIENT_ID or KEYCLOAK_REALM.",
        console=f"Clients, Create client: Client ID {who}; Client authentication on, Service account roles on, all other flows off",
        changes=() if found.similar else found.requests(found.making(found.client_id)),
        plan=facts.plan() if facts.downstreams and not found.similar else "",
    )


def _step_a(facts: Facts, found: Inspection, client: Mapping[str, Any]) -> Iterator[Finding]:
    who, page = named(found.client_id), f"Clients, {named(found.client_id)}"
    calls = _gets_tokens(facts, client)
    if not client.get("enabled", True) and not calls:
        yield disabled_receiver(found.client_id)
    elif not client.get("enabled", True):
        yield Finding(
            seen=f"The client {who} is disabled (step A).",
            why=_NO_TOKEN,
            cure=f"Enable the client {who}, unless somebody switched it off on purpose.",
            console=f"{page}, the switch at the top",
        )
    if not calls:
        return
    if client.get("publicClient") or client.get("bearerOnly"):
        kind = "public" if client.get("publicClient") else "bearer-only"
        yield Finding(
            seen=f"The client {who} is {kind} (step A).",
            why=f"{_NO_TOKEN} Such a client cannot log in with a secret or a key.",
            cure=f'Switch "Client authentication" and "Service account roles" on for the client {who}. It then has a secret: copy it to this'
            " service. If a browser logs in with this client, make another one for this service.",
            console=f"{page}, Settings, Capability config",
        )
    elif not client.get("serviceAccountsEnabled") and not facts.only_for_users:
        yield Finding(
            level="problem" if facts.downstreams else "warning",  # it may be a receiver, whose client is right
            seen=f"The client {who} has no service account (step A).",
            why=_NO_TOKEN,
            cure=f'Switch "Service account roles" on for the client {who}.{"" if facts.downstreams else f" {NAME_ITS_APP}"}',
            console=f"{page}, Settings, Capability config",
            changes=found.requests(found.enabling()),
            plan=facts.plan() if facts.downstreams else "",
        )
    for user in found.snapshot.document.get("users", ()):
        if user.get("serviceAccountClientId") == found.client_id and not user.get("enabled", True):
            yield Finding(
                seen=f"The service account of {who} is disabled.",
                why=_NO_TOKEN,
                cure="Enable this user.",
                console=f"Users, {named(str(user['username']))}, the switch at the top",
            )
    expected = AUTHENTICATORS[facts.settings.client_auth]
    authenticator = str(client.get("clientAuthenticatorType") or "client-secret")
    if authenticator != expected:
        yield Finding(
            seen=f"The client {who} logs in by {SHOWN_AS.get(authenticator, named(authenticator))}, and this service by {facts.settings.client_auth}.",
            why=_NO_TOKEN,
            cure=f"Choose {SHOWN_AS[expected]} as Client Authenticator of {who}, or change KEYCLOAK_CLIENT_AUTH.",
            console=f"{page}, Credentials, Client Authenticator",
        )


def _unusual(facts: Facts, found: Inspection, client: Mapping[str, Any]) -> Iterator[Finding]:
    who, page = named(found.client_id), f"Clients, {named(found.client_id)}"
    attributes: Mapping[str, str] = client.get("attributes") or {}
    if not client.get("serviceAccountsEnabled"):
        return
    for attribute, place, what, why in _SWITCHES:
        if attribute == DPOP and facts.binds:
            continue
        if attribute == CERTIFICATE_BOUND and facts.settings.client_cert_file is not None:
            continue
        if attributes.get(attribute, "") not in _OFF:
            yield Finding(
                seen=f"The client {who} {what} ({attribute}).",
                why=why,
                cure=bind_or_switch_off(found.client_id)
                if attribute == DPOP
                else f"Switch {attribute} off for the client {who}.",
                console=f"{page}, {place}",
            )
    algorithm = attributes.get("access.token.signed.response.alg", "")
    if algorithm and algorithm not in ALGORITHMS:
        yield Finding(
            seen=f"The access tokens of {who} are signed with {named(algorithm)}.",
            why="Receivers refuse them (algorithm_not_allowed).",
            cure=f"Choose RS256 as access token signature algorithm of {who}.",
            console=f"{page}, Advanced, Fine grain OpenID Connect configuration, Access token signature algorithm",
        )
    if client.get("fullScopeAllowed"):
        yield Finding(
            level="warning",
            seen=f"“Full scope allowed” is on for the client {who}.",
            why="Each role that its account gets is in all its tokens. A client role also makes the token valid for that client, if a scope"
            " with an Audience Resolve mapper is assigned.",
            cure="Switch it off, after the roles that receivers require are assigned in the same place.",
            console=f"{page}, Client scopes, {named(found.client_id + '-dedicated')}, Scope, Full scope allowed",
        )


def check_expiry(facts: Facts) -> Iterator[Result]:
    """Look when Keycloak refuses the secret."""
    found = facts.inspection
    if not isinstance(found, Inspection):
        yield Skipped(_NOT_READ)
        return
    if (
        found.client is None
        or not _gets_tokens(facts, found.client)
        or not facts.settings.client_auth.startswith("client_secret")
    ):
        yield Skipped("This service has no secret in Keycloak, or needs none.")
        return
    now, who = facts.clock(), named(found.client_id)
    where = facts.settings.worded(
        "KEYCLOAK_CLIENT_SECRET_FILE" if facts.settings.client_secret_file else "KEYCLOAK_CLIENT_SECRET"
    )
    expires, former = found.secret_expires, found.former_expires
    if expires is not None and expires - now < _SOON:
        over = expires <= now
        yield Finding(
            level="problem" if over else "warning",
            seen=f"The secret of {who} {'expired' if over else 'expires'} on {_day(expires)}.",
            why="Keycloak refuses it from then on, in the same words as a wrong secret, and makes no new one by itself.",
            cure=f"Make a new secret, and write it to {where}. Keycloak accepts the old one beside it for as long as its policy says.",
            console=f"Clients, {who}, Credentials, Client Secret, Regenerate",
        )
    elif expires is not None:
        yield Seen(f"The secret of {who} expires on {_day(expires)}.")
    else:
        yield Seen(f"The secret of {who} does not expire.")
    if former is not None and former > now:
        yield Finding(
            level="warning",
            seen=f"{who} has a new secret, and Keycloak accepts the former one until {_day(former)}.",
            why="If this service still has the former one, it gets no token from then on.",
            cure=f"Copy the present secret from Keycloak to {where}.",
            console=f"Clients, {who}, Credentials",
        )
    if found.snapshot.rotating:
        yield Finding(
            level="warning",
            seen=f"The client policy {listed(found.snapshot.rotating)} rotates secrets.",
            why="If it is meant for this client, each change of the client by an administrator gives it another secret once the time is over.",
            cure=f"Plan who writes the new secret to {where}. Or use private_key_jwt, which has no secret (docs: private-key-jwt).",
            console="Realm settings, Client policies",
        )


def _day(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s after 1970"
