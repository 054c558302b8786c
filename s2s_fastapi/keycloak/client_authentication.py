"""How a client without a secret proves itself to Keycloak: by a token of another issuer, or by a certificate. Names, values and cures.

The access file, the plan and the operator's tools use the same words. Nothing here is a secret.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from s2s_fastapi.names import name_problem, url_problem
from s2s_fastapi.text import listed, named

__all__ = [
    "ATTRIBUTES",
    "CERTIFICATE",
    "CERTIFICATE_BOUND",
    "COMPARES_AUTHORITY",
    "CONSOLE",
    "FEDERATED",
    "PROVIDER",
    "PROVIDER_KINDS",
    "SINCE",
    "SUBJECT",
    "ByCertificate",
    "ByFederation",
    "ClientAuthentication",
    "ProviderKind",
    "TrustedProvider",
    "accept_certificate_first",
    "alias_in_use",
    "any_authority",
    "bind_to_certificate_first",
    "client_fields",
    "dn_parts",
    "dn_problem",
    "needs_certificate",
    "same_dn",
    "same_subject",
]

FEDERATED: Final = "federated-jwt"
"""Keycloak's client authenticator for the tokens of other issuers."""
CERTIFICATE: Final = "client-x509"
"""Keycloak's client authenticator for certificates."""
PROVIDER: Final = "jwt.credential.issuer"
"""The attribute of a client with the alias of its identity provider."""
SUBJECT: Final = "jwt.credential.sub"
"""The attribute of a client with the subject of its tokens there."""
DN: Final = "x509.subjectdn"
ISSUER_DN: Final = "x509.casubjectdn"
REGEX: Final = "x509.allow.regex.pattern.comparison"
"""Absent, Keycloak compares the DN as a regular expression: only "false" compares it as a name."""
ATTRIBUTES: Final = (PROVIDER, SUBJECT, DN, ISSUER_DN, REGEX)
"""All attributes of a client that say how it authenticates itself."""
SINCE: Final = (26, 6)
"""The version from which on Keycloak takes the tokens of other issuers without a feature being switched on."""
COMPARES_AUTHORITY: Final = (26, 7)
"""The version from which on Keycloak compares the authority of a certificate (``x509.casubjectdn``). Older ones ignore that attribute."""
CERTIFICATE_BOUND: Final = "tls.client.certificate.bound.access.tokens"
"""The attribute of a client that gets only tokens which are bound to its certificate: Keycloak refuses its requests without one."""
CONSOLE: Final = "Advanced, OAuth 2.0 Mutual TLS Certificate Bound Access Tokens Enabled"
"""Where that switch is, on the page of the client."""

ProviderKind: TypeAlias = Literal["kubernetes", "oidc", "spiffe"]
PROVIDER_KINDS: Final[tuple[ProviderKind, ...]] = ("kubernetes", "oidc", "spiffe")
_ALIAS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_TRUST_DOMAIN: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}")
_PART: Final = re.compile(r"""\s*([A-Za-z][\w.-]*|\d+(?:\.\d+)+)\s*=\s*("(?:[^"\\]|\\.)*"|(?:[^",;\\]|\\.)*)\s*""")
_ESCAPED: Final = re.compile(r"((?:\\[0-9A-Fa-f]{2})+)|\\(.)")
_OIDS: Final = MappingProxyType(
    {
        "SERIALNUMBER": "2.5.4.5",
        "BUSINESSCATEGORY": "2.5.4.15",
        "JURISDICTIONCOUNTRYNAME": "1.3.6.1.4.1.311.60.2.1.3",
        "EMAILADDRESS": "1.2.840.113549.1.9.1",
    }
)
"""The names of parts that Keycloak knows beside Java's own: it compares them as object identifiers."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_NARROW: Final = frozenset({"CN", "UID", "SERIALNUMBER"})
"""The parts of a DN that name the one that the certificate is for."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class TrustedProvider:
    """An identity provider of the realm whose tokens prove clients."""

    alias: str
    kind: ProviderKind
    issuer: str
    """The ``iss`` of its tokens; for SPIFFE the trust domain."""
    keys: str = ""
    """Where its keys are, for ``oidc`` and ``spiffe``. Those of ``kubernetes`` are found by its issuer."""

    @property
    def problem(self) -> str:
        """What is wrong with it, for people; "" if it can be made."""
        if _ALIAS.fullmatch(self.alias) is None:
            return f"{named(self.alias)} is no alias: letters, digits, “.”, “_” and “-”"
        if self.kind == "spiffe":
            if _TRUST_DOMAIN.fullmatch(self.issuer) is None:
                return f"{named(self.issuer)} is no trust domain: write spiffe://example.org"
        elif problem := url_problem(self.issuer):
            return f"{named(self.issuer)} is no issuer: {problem}"
        if self.kind == "kubernetes":
            return "Keycloak finds the keys of kubernetes by its issuer: leave keys out" if self.keys else ""
        return f"keys is no URL: {problem}" if (problem := url_problem(self.keys)) else ""

    @property
    def caution(self) -> str:
        """What to look at before it is made, for people; "" if nothing."""
        # An issuer is a name for Keycloak, but that of a cluster is also where its keys are looked for.
        fetched = self.issuer if self.kind == "kubernetes" else self.keys
        parts = urlsplit(fetched)
        if parts.scheme != "http" or parts.hostname in _LOOPBACK:
            return ""
        return (
            f"Keycloak fetches the keys of the identity provider {named(self.alias)} without TLS ({named(fetched)}): whoever is on the way can log in"
            " as each client that it proves. Use https"
        )

    @property
    def config(self) -> dict[str, str]:
        """Its settings in Keycloak that decide which tokens count."""
        match self.kind:
            case "kubernetes":
                return {"issuer": self.issuer}
            case "spiffe":
                return {"trustDomain": self.issuer, "bundleEndpoint": self.keys}
            case "oidc":
                return {
                    "issuer": self.issuer,
                    "jwksUrl": self.keys,
                    # A service sends the token in its file until another one is written there.
                    "supportsClientAssertionReuse": "true",
                    "supportsClientAssertions": "true",
                    "useJwksUrl": "true",
                    "validateSignature": "true",
                }

    @property
    def representation(self) -> dict[str, Any]:
        """The identity provider as Keycloak takes it. No user can log in through it: it proves clients only."""
        hidden = {"hideOnLogin": True, "linkOnly": True}
        return {"alias": self.alias, "providerId": self.kind, "enabled": True, **hidden, "config": self.config}

    def difference(self, found: Mapping[str, Any]) -> str:
        """Return in what an identity provider of the same alias differs, for people; "" if its tokens count the same."""
        config: Mapping[str, Any] = found.get("config") or {}
        if found.get("providerId") != self.kind:
            return f"its type is {named(str(found.get('providerId')))}"
        if not found.get("enabled", True):
            return "it is disabled"
        return next(
            (
                f"its {name} is {named(str(config.get(name) or ''))}, and the access file says {named(value)}"
                for name, value in self.config.items()
                if str(config.get(name) or "") != value
            ),
            "",
        )


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ByFederation:
    """A client proves itself by a token of an identity provider (KEYCLOAK_CLIENT_AUTH=federated_jwt)."""

    provider: TrustedProvider
    subject: str
    """The ``sub`` of the token, such as ``system:serviceaccount:prod:chat``."""

    @property
    def problem(self) -> str:
        """What is wrong with it, for people; "" if nothing is."""
        if self.provider.problem:
            return self.provider.problem
        if problem := name_problem(self.subject):
            return f"{named(self.subject)} is no subject: {problem}"
        if self.provider.kind == "spiffe" and not self.subject.startswith(f"{self.provider.issuer}/"):
            return f"{named(self.subject)} is no SPIFFE ID of {named(self.provider.issuer)}"
        return ""

    def __str__(self) -> str:
        return f"tokens of the identity provider {named(self.provider.alias)} with the subject {named(self.subject)}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ByCertificate:
    """A client proves itself by a certificate (KEYCLOAK_CLIENT_AUTH=tls_client_auth, RFC 8705 section 2.1)."""

    subject_dn: str
    issuer_dn: str
    """The subject of the CA that signs the certificate."""

    @property
    def problem(self) -> str:
        """What is wrong with it, for people; "" if nothing is."""
        return dn_problem(self.subject_dn) or dn_problem(self.issuer_dn)

    def __str__(self) -> str:
        return f"certificates of {named(self.subject_dn)} signed by {named(self.issuer_dn)}"


ClientAuthentication: TypeAlias = ByFederation | ByCertificate


def client_fields(
    *, provider: str = "", subject: str = "", subject_dn: str = "", issuer_dn: str = ""
) -> dict[str, Any]:
    """Return the fields of a client that proves itself by a token of ``provider``, or by a certificate; none for one with a secret."""
    if provider:
        return {"clientAuthenticatorType": FEDERATED, "attributes": {PROVIDER: provider, SUBJECT: subject}}
    if subject_dn:
        # Without "false" the dots of a name are wildcards, and a right name without spaces fails.
        names = {DN: subject_dn, ISSUER_DN: issuer_dn, REGEX: "false"}
        return {"clientAuthenticatorType": CERTIFICATE, "attributes": names}
    return {}


def any_authority(client_id: str, version: str) -> str:
    """Return what a server means that does not compare the authority of a certificate."""
    since = ".".join(map(str, COMPARES_AUTHORITY))
    return (
        f"Keycloak {version} does not compare who signed the certificate of {named(client_id)} ({ISSUER_DN} has an effect from {since} on): any authority that"
        " Keycloak trusts can issue one with the same subject. Trust one authority for clients only, or use a newer Keycloak."
    )


def accept_certificate_first(receivers: Iterable[str], caller: str) -> str:
    """Return the cure if Keycloak binds the tokens of a caller to its certificate, and a receiver refuses such tokens."""
    return (
        f"Write client_certificate=... in ServiceAuthMiddleware of {listed(receivers)}, and deploy that before Keycloak binds the tokens of"
        f" {named(caller)} (attribute {CERTIFICATE_BOUND}); or switch that off for {named(caller)}."
    )


def bind_to_certificate_first(receivers: Iterable[str], caller: str) -> str:
    """Return the cure if a receiver requires tokens that are bound to a certificate, and those of a caller are not."""
    return (
        f"{listed(receivers)} takes tokens that are bound to a client certificate: give {named(caller)} one (KEYCLOAK_CLIENT_CERT_FILE), and then let Keycloak"
        f" bind its tokens ({CERTIFICATE_BOUND} of its client; in the console: {CONSOLE})."
    )


def needs_certificate(client_id: str) -> str:
    """Return what a client needs to get a token if Keycloak binds its tokens to its certificate."""
    who = named(client_id)
    return (
        f"Keycloak gives {who} only tokens that are bound to its client certificate, and none without one: set KEYCLOAK_CLIENT_CERT_FILE for the service"
        f" {who}, or switch “OAuth 2.0 Mutual TLS Certificate Bound Access Tokens Enabled” off for its client ({CERTIFICATE_BOUND})."
    )


def same_subject(alias: str, subject: str, clients: Iterable[str]) -> str:
    """Return what is wrong if other clients have the same subject at the same identity provider."""
    return (
        f"the subject {named(subject)} of the identity provider {named(alias)} already proves {listed(clients)}. Keycloak refuses all of"
        " several clients, or goes on with the one that it knows. Give each client a subject of its own"
    )


def alias_in_use(alias: str, clients: Iterable[str]) -> str:
    """Return what is wrong if other clients name an identity provider that is not there: whoever makes it could log in as them."""
    return (
        f"the identity provider {named(alias)} is not there, and the realm already has clients that name it: {listed(clients)}. Whoever makes"
        " tokens for a new one of this alias could log in as them. Name another alias, make the identity provider by hand, or give their access files, too, and"
        " --grant CLIENT:client_authentication for each"
    )


def dn_parts(name: str) -> tuple[tuple[str, str], ...]:
    """Return the parts of a distinguished name (RFC 4514) as Keycloak compares them, the most specific first.

    - Keys are in capitals. The four names that Keycloak adds are object identifiers, as other tools write them.
    - Values are without quotes and escapes: an escaped C3 BC is one letter in UTF-8.

    Raises:
        ValueError: It is no distinguished name.
    """
    return tuple((_OIDS.get(key, key), _ESCAPED.sub(_unescaped, value)) for key, value in _written_parts(name))


def same_dn(one: str, other: str) -> bool:
    """Return whether two texts are the same distinguished name for Keycloak."""
    try:
        return dn_parts(one) == dn_parts(other)
    except ValueError:
        return False


def _written_parts(name: str) -> list[tuple[str, str]]:
    """Return the parts as they are written, with their escapes, but without quotes."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(name) or not found:
        part = _PART.match(name, at)
        if part is None or (part.end() < len(name) and name[part.end()] not in ",;+"):
            raise ValueError("it is no distinguished name")
        value = part[2][1:-1] if part[2].startswith('"') else part[2].strip()
        found.append((part[1].upper(), value))
        at = part.end() + 1
    return found


def _unescaped(found: re.Match[str]) -> str:
    return bytes.fromhex(found[1].replace("\\", "")).decode(errors="replace") if found[1] else found[2]


def dn_problem(name: str) -> str:
    """Return what is wrong with a distinguished name, for people; "" if Keycloak can compare it."""
    if problem := name_problem(name):
        return f"{named(name)} is no distinguished name: {problem}"
    try:
        parts = _written_parts(name)
    except ValueError:
        parts = []
    if not parts or not all(value for _, value in parts):
        return f"{named(name)} is no distinguished name such as CN=chat,OU=services,O=Example"
    if len(parts) > 1 and parts[-1][0] in _NARROW and parts[0][0] not in _NARROW:
        turned = ",".join(f"{key}={value}" for key, value in reversed(parts))
        return f"{named(name)} has the order of openssl, and Keycloak compares the most specific part first: write {named(turned)}"
    return ""
