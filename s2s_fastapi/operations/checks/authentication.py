"""How a service without a secret proves itself: its token or its certificate, and what Keycloak compares it with."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from s2s_fastapi.backchannel.client_certificate import ClientCertificate, LoadedCertificate, trusting
from s2s_fastapi.caller.assertion_file import Assertion
from s2s_fastapi.errors import ConfigurationError, TokenRequestError
from s2s_fastapi.keycloak.client_authentication import (
    CERTIFICATE,
    COMPARES_AUTHORITY,
    DN,
    FEDERATED,
    ISSUER_DN,
    REGEX,
    ByFederation,
    any_authority,
    dn_problem,
    same_dn,
    same_subject,
)
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.findings import Finding, Result, Seen, Skipped
from s2s_fastapi.operations.inspection import Inspection
from s2s_fastapi.operations.snapshot import proof_of
from s2s_fastapi.text import named

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["AUTHENTICATORS", "SHOWN_AS", "check_assertion", "check_authentication", "check_certificate"]

AUTHENTICATORS: Final = {
    "client_secret_basic": "client-secret",
    "client_secret_post": "client-secret",
    "private_key_jwt": "client-jwt",
    "federated_jwt": FEDERATED,
    "tls_client_auth": CERTIFICATE,
}
"""Keycloak's client authenticator for each way to log in."""
SHOWN_AS: Final = {
    "client-secret": "Client Id and Secret",
    "client-jwt": "Signed Jwt",
    FEDERATED: "Signed JWT - Federated",
    CERTIFICATE: "X509 Certificate",
}
_NO_TOKEN: Final = "Keycloak gives this service no token."
_SOON: Final = 14 * 24 * 3600


def check_assertion(facts: Facts, file: Path) -> Iterator[Result]:
    """Look at the token that proves this service: which of its audience, its end and its age Keycloak would refuse."""
    found = _assertion(facts, file)
    if isinstance(found, TokenRequestError):
        yield Finding(
            seen=str(found).removesuffix(found.cure).strip(),
            why=f"{_NO_TOKEN} Such a token is not sent.",
            cure=found.cure,
        )
        return
    yield Seen(
        f"The token of {named(found.issuer or 'a SPIFFE trust domain')} is for Keycloak alone; its subject is {named(found.subject)}."
    )


def _assertion(facts: Facts, file: Path) -> Assertion | TokenRequestError:
    settings = facts.settings
    try:
        return Assertion.read(
            file,
            said=settings.worded("KEYCLOAK_CLIENT_ASSERTION_FILE"),
            audience=settings.issuer,
            now=facts.clock,
        )
    except TokenRequestError as error:
        return error


def _readable(facts: Facts) -> Assertion | TokenRequestError | None:
    file = facts.settings.client_assertion_file
    try:
        return None if file is None else _assertion(facts, file)
    except ConfigurationError:  # said by the check of the file
        return None


def check_certificate(facts: Facts) -> Iterator[Result]:
    """Look at the certificate that proves this service, or to which its tokens are bound, and at its key."""
    settings = facts.settings
    found = _certificate(settings)
    if isinstance(found, str):
        yield Finding(
            seen=settings.worded(f"{found.removesuffix('.')}."),
            why="This service cannot show who it is.",
            cure="Write the certificate and its key again, in PEM and without a password. Both may stand in one file.",
        )
        return
    now, end = facts.clock(), found.ends.timestamp()
    if not found.begins.timestamp() <= now <= end:
        began = now >= found.begins.timestamp()
        yield Finding(
            seen=f"The certificate of {named(found.subject)} {'expired on' if began else 'is valid only from'} {_day(found.ends if began else found.begins)}.",
            why="The server ends the connection, in words that look like a fault of the network.",
            cure="Renew the certificate, or correct the clock of this machine.",
        )
    elif end - now < _SOON:
        yield Finding(
            level="warning",
            seen=f"The certificate of {named(found.subject)} expires on {_day(found.ends)}.",
            why="From then on the server ends each connection with it.",
            cure="Renew the certificate: this service reads the files again when they change, and needs no restart.",
        )
    else:
        yield Seen(
            f"The certificate of {named(found.subject)}, signed by {named(found.issuer)}, ends on {_day(found.ends)}."
        )


def _certificate(settings: "KeycloakSettings") -> LoadedCertificate | str:
    certificate = ClientCertificate.of(settings)
    if certificate is None:
        return "KEYCLOAK_CLIENT_CERT_FILE is not set"
    return certificate.load(lambda: trusting(settings.ca_file))


def check_authentication(facts: Facts) -> Iterator[Result]:
    """Compare what proves this service with what Keycloak knows of it. Keycloak answers each difference in the same few words."""
    found, method = facts.inspection, facts.settings.client_auth
    yield from _declared(facts)
    if method not in ("federated_jwt", "tls_client_auth"):
        yield Skipped("This service logs in with a secret or a key of its own.")
        return
    if not isinstance(found, Inspection):
        yield Skipped("The realm was not read: see admin.")
        return
    client = found.client
    if client is None or str(client.get("clientAuthenticatorType")) != AUTHENTICATORS[method]:
        yield Skipped("First solve the problem of client.")
        return
    results = (
        _of_federation(facts, found, client) if method == "federated_jwt" else _of_certificate(facts, found, client)
    )
    yield from results


def _declared(facts: Facts) -> Iterator[Finding]:
    """Compare how this service logs in with what its access file says: a plan goes by that."""
    for how in filter(None, (app.client_authentication for app in facts.own_apps)):
        said = "federated_jwt" if isinstance(how, ByFederation) else "tls_client_auth"
        if said != facts.settings.client_auth:
            yield Finding(
                level="warning",
                seen=f"The access file of this service says {said}, and it logs in by {facts.settings.client_auth}.",
                why="`plan` makes a client that logs in as the access file says.",
                cure=f"Set KEYCLOAK_CLIENT_AUTH={said}, or correct client_authentication in the access file.",
            )


# Federation


def _of_federation(facts: Facts, found: Inspection, client: Mapping[str, Any]) -> Iterator[Result]:
    who, token = named(found.client_id), _readable(facts)
    alias, subject = proof_of(client)
    page = f"Clients, {who}, Credentials"
    if not alias or not subject:
        yield Finding(
            seen=f"The client {who} names no {'identity provider' if not alias else 'subject'} (jwt.credential.{'issuer' if not alias else 'sub'}).",
            why=_NO_TOKEN,
            cure="Write the alias of the identity provider as jwt.credential.issuer, and the subject of the token as jwt.credential.sub.",
            console=page,
        )
        return
    if found.same_subject:
        yield Finding(
            seen=f"Of {who}: {same_subject(alias, subject, found.same_subject)}.",
            why=f"If Keycloak picks the other client, {who} refuses the token that it gets, because azp is not {who}.",
            cure=f"Change jwt.credential.sub of {who} or of the other client.",
            console=page,
        )
    if isinstance(token, Assertion) and token.subject != subject:
        yield Finding(
            seen=f"The token of this service has the subject {named(token.subject)}, and the client {who} the subject {named(subject)}.",
            why=f"{_NO_TOKEN} Keycloak says only that the client or its credentials are invalid.",
            cure=f"Give this service the token of its own subject, or write {named(token.subject)} as jwt.credential.sub of {who}.",
            console=page,
        )
    yield from _of_provider(found, alias, token)


def _of_provider(found: Inspection, alias: str, token: Assertion | TokenRequestError | None) -> Iterator[Result]:
    provider, place = found.provider, f"Identity providers, {named(alias)}"
    if found.provider_problem:
        yield Seen(f"The identity provider {named(alias)} was not looked at: {found.provider_problem}")
        return
    if provider is None:
        yield Finding(
            seen=f"The realm has no identity provider {named(alias)}.",
            why=_NO_TOKEN,
            cure="Make it: `s2s-fastapi federate` prints it. Or correct jwt.credential.issuer of the client.",
            console="Identity providers",
        )
        return
    config: Mapping[str, Any] = provider.get("config") or {}
    kind, issuer = str(provider.get("providerId")), str(config.get("issuer") or "")
    if not provider.get("enabled", True):
        yield Finding(
            seen=f"The identity provider {named(alias)} is disabled.",
            why=_NO_TOKEN,
            cure="Enable it, unless somebody switched it off on purpose.",
            console=place,
        )
    if kind == "oidc" and config.get("supportsClientAssertions") != "true":
        yield Finding(
            seen=f"The identity provider {named(alias)} does not prove clients (supportsClientAssertions).",
            why=_NO_TOKEN,
            cure="Switch “Supports client assertions” on.",
            console=f"{place}, Supports client assertions",
        )
    elif kind == "oidc" and config.get("supportsClientAssertionReuse") != "true":
        yield Finding(
            seen=f"The identity provider {named(alias)} takes each token once (supportsClientAssertionReuse).",
            why="This service sends the token in its file until another one is written there: from the second time on Keycloak refuses it.",
            cure="Switch “Allows client assertions to be re-used” on.",
            console=f"{place}, Allows client assertions to be re-used",
        )
    if kind != "spiffe" and isinstance(token, Assertion) and token.issuer != issuer:
        yield Finding(
            seen=f"The token of this service is of the issuer {named(token.issuer)}, and the identity provider {named(alias)} has {named(issuer)}.",
            why=f"{_NO_TOKEN} Keycloak says only that the client or its credentials are invalid.",
            cure="Name the identity provider of the token's issuer as jwt.credential.issuer of the client, or correct the issuer of this one.",
            console=place,
        )
        return
    yield Seen(f"The identity provider {named(alias)} ({kind}) is there.")


# Certificates


def _of_certificate(facts: Facts, found: Inspection, client: Mapping[str, Any]) -> Iterator[Result]:
    who, page = named(found.client_id), f"Clients, {named(found.client_id)}, Credentials"
    attributes: Mapping[str, str] = client.get("attributes") or {}
    wanted, authority = attributes.get(DN, ""), attributes.get(ISSUER_DN, "")
    exact = attributes.get(REGEX, "") == "false"
    own = _certificate(facts.settings)
    results: list[Finding] = []
    if not wanted:
        results.append(
            Finding(
                seen=f"The client {who} names no certificate ({DN}).",
                why=_NO_TOKEN,
                cure=f"Write the subject of its certificate{_shown_subject(own)}, the most specific part first.",
                console=f"{page}, Subject DN",
            )
        )
    if not exact:
        results.append(
            Finding(
                level="warning",
                seen=f"Keycloak compares the Subject DN of {who} as a regular expression ({REGEX} is not false).",
                why="Its dots match any character, so another certificate may pass. And an exact DN without blanks after its commas fails.",
                cure="Switch “Allow regex pattern comparison” off, so that the attribute is there and is false.",
                console=f"{page}, Allow regex pattern comparison",
            )
        )
    if not authority:
        results.append(
            Finding(
                level="warning",
                seen=f"The client {who} names no authority ({ISSUER_DN}).",
                why="A certificate with the same subject of any authority that Keycloak trusts passes.",
                cure=f"Write the subject of the authority{_shown_issuer(own)}, the most specific part first.",
                console=f"{page}, Certificate Authority subject DN",
            )
        )
    elif found.snapshot.model.version < COMPARES_AUTHORITY:
        results.append(
            Finding(
                level="warning",
                seen=f"This Keycloak is {found.snapshot.version}, and does not compare who signed the certificate ({ISSUER_DN}).",
                why=any_authority(found.client_id, found.snapshot.version),
                cure="Keep one authority alone in Keycloak's truststore, or use a newer Keycloak.",
                console=f"{page}, Certificate Authority subject DN",
            )
        )
    for place, name in (("Subject DN", wanted if exact else ""), ("Certificate Authority subject DN", authority)):
        if name and (problem := dn_problem(name)):
            results.append(
                Finding(
                    seen=f"{place} of the client {who}: {problem.partition(': write ')[0]}.",
                    why=f"{_NO_TOKEN} Keycloak says only that the client or its credentials are invalid.",
                    cure=f"Write {problem.partition(': write ')[2] or 'the name as `openssl x509 -noout -subject -nameopt RFC2253,-esc_msb,utf8` shows it'}.",
                    console=f"{page}, {place}",
                )
            )
    if not isinstance(own, str) and not any(result.level == "problem" for result in results):
        results += _differences(who, page, own, wanted if exact else "", authority)
    yield from results
    if not results:
        yield Seen(f"Keycloak compares certificates with the subject {named(wanted)}, signed by {named(authority)}.")


def _differences(who: str, page: str, own: LoadedCertificate, wanted: str, authority: str) -> Iterator[Finding]:
    for place, mine, its in (
        ("Subject DN", own.subject, wanted),
        ("Certificate Authority subject DN", own.issuer, authority),
    ):
        if its and not same_dn(mine, its):
            yield Finding(
                seen=f"{place} of the client {who} is {named(its)}, and the certificate of this service has {named(mine)}.",
                why=f"{_NO_TOKEN} Keycloak says only that the client or its credentials are invalid.",
                cure=f"Write {named(mine)}, or give this service its own certificate.",
                console=f"{page}, {place}",
            )


def _shown_subject(own: LoadedCertificate | str) -> str:
    return "" if isinstance(own, str) else f" ({named(own.subject)})"


def _shown_issuer(own: LoadedCertificate | str) -> str:
    return "" if isinstance(own, str) else f" ({named(own.issuer)})"


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
