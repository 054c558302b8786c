"""The changes that a plan can contain, as values: each says whether the realm already is so, and what the realm is like afterwards.

Nothing here deletes or narrows. (A scope that moves from optional to default is taken from the one list before it gets into the other.)
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import chain, count
from typing import Any, ClassVar, Final, TypeAlias

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.keycloak.client_authentication import CERTIFICATE_BOUND, PROVIDER_KINDS, TrustedProvider, client_fields
from s2s_fastapi.keycloak.dpop import ATTRIBUTE as DPOP
from s2s_fastapi.keycloak.exchange import ATTRIBUTE
from s2s_fastapi.operations.snapshot import (
    AUDIENCE_MAPPER,
    Snapshot,
    audience_of,
    binds,
    binds_to_certificate,
    exchanges,
)
from s2s_fastapi.realm.entities import OIDC, Role
from s2s_fastapi.text import listed, named, printable

__all__ = [
    "ORDER",
    "AddAudience",
    "AssignScope",
    "EnableExchange",
    "EnableServiceAccount",
    "GrantRole",
    "MakeClient",
    "MakeProvider",
    "MakeRole",
    "MakeScope",
    "MapRole",
    "RequireBinding",
    "SetAuthentication",
    "Step",
    "added_mapper",
    "audience_mapper",
    "new_client",
    "new_scope",
    "step_from_json",
    "step_json",
]

_Json = dict[str, Any]
_CERTIFICATE_SWITCH: Final = "OAuth 2.0 Mutual TLS Certificate Bound Access Tokens Enabled"
_LONGEST_PATH: Final = 4096
_LONGEST_NAME: Final = 255
_LONGEST_CUT: Final = 240
_DIGITS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeProvider:
    """Make an identity provider whose tokens prove clients. No user can log in through it."""

    do: ClassVar = "make_provider"
    alias: str
    kind: str
    issuer: str
    keys: str = ""

    @property
    def provider(self) -> TrustedProvider:
        """The identity provider."""
        kind = next((kind for kind in PROVIDER_KINDS if kind == self.kind), None)
        if kind is None:
            raise ConfigurationError(
                f"The plan has an identity provider of a type that no plan makes: {named(self.kind)}."
            )
        return TrustedProvider(alias=self.alias, kind=kind, issuer=self.issuer, keys=self.keys)

    def holds(self, realm: Snapshot) -> bool:
        """Return whether the realm already is so."""
        found = realm.provider(self.alias)
        return found is not None and not self.provider.difference(found)

    def on(self, document: _Json) -> None:
        """Change the document as Keycloak will."""
        document["identityProviders"] = [*(document.get("identityProviders") or ()), self.provider.representation]

    def __str__(self) -> str:
        keys = f", keys at {printable(self.keys, _LONGEST_PATH)}" if self.keys else ""
        return (
            f"Make the identity provider {named(self.alias)} ({self.kind}) for the tokens of {printable(self.issuer, _LONGEST_PATH)}{keys}: it"
            " proves clients, and no user can log in through it."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeScope:
    """Make a client scope, with an Audience mapper for each audience."""

    do: ClassVar = "make_scope"
    scope: str
    audiences: tuple[str, ...] = ()
    custom: tuple[str, ...] = ()
    """Those of the audiences that are no clients, such as URLs."""

    def holds(self, realm: Snapshot) -> bool:
        """Return whether the realm already is so."""
        found = realm.scope(self.scope)
        return found is not None and {*self.audiences} <= _audiences(found)

    def on(self, document: _Json) -> None:
        """Change the document as Keycloak will."""
        document["clientScopes"].append(new_scope(self))

    def __str__(self) -> str:
        what = f" with an Audience mapper for {listed(self.audiences)}" if self.audiences else ""
        return f"Make the client scope {named(self.scope)}{what}."


@dataclass(frozen=True, slots=True, kw_only=True)
class AddAudience:
    """Add an Audience mapper to a client scope."""

    do: ClassVar = "add_audience"
    scope: str
    audience: str
    custom: bool = False

    def holds(self, realm: Snapshot) -> bool:
        """Return whether the realm already is so."""
        found = realm.scope(self.scope)
        return found is not None and self.audience in _audiences(found)

    def on(self, document: _Json) -> None:
        """Change the document as Keycloak will."""
        scope = next(one for one in document["clientScopes"] if one["name"] == self.scope)
        scope["protocolMappers"].append(added_mapper(self, scope))

    def __str__(self) -> str:
        return f"Add an Audience mapper for {named(self.audience)} to the client scope {named(self.scope)}."


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeClient:
    """Make a confidential client without login flows and with its scopes."""

    do: ClassVar = "make_client"
    client: str
    caller: bool
    default: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    exchange: bool = False
    """Whether it exchanges the tokens of users."""
    bound: bool = False
    """Whether it gets bound tokens only (DPoP)."""
    certificate_bound: bool = False
    """Whether it gets only tokens that are bound to its certificate (RFC 8705)."""
    provider: str = ""
    """The alias of the identity provider whose tokens prove it."""
    subject: str = ""
    subject_dn: str = ""
    """The subject of the certificate that proves it, and below that of the CA."""
    issuer_dn: str = ""
    secret_file: str = ""
    """Where its new secret is written; empty for a client that never logs in, or has no secret."""

    @property
    def authentication(self) -> _Json:
        """The fields that say how it proves itself; empty for a client with a secret."""
        return _authentication(self)

    def holds(self, realm: Snapshot) -> bool:
        """Return whether the realm already is so."""
        found = realm.client(self.client)
        return (
            found is not None
            and found.get("serviceAccountsEnabled", False) is self.caller
            and {*self.default} <= {*found["defaultClientScopes"]}
            and {*self.optional} <= {*found["optionalClientScopes"]}
            and (exchanges(found) or not self.exchange)
            and (binds(found) or not self.bound)
            and (binds_to_certificate(found) or not self.certificate_bound)
            and _has(found, self.authentication)
        )

    def on(self, document: _Json) -> None:
        """Change the document as Keycloak will."""
        document["clients"] = [one for one in document["clients"] if one["clientId"] != self.client]
        document["clients"].append({**new_client(self), "protocolMappers": []})
        if self.caller:
            document["users"].append(_new_account(document, self.client))

    def __str__(self) -> str:
        kind = "that calls others (service account on)" if self.caller else "that only receives"
        scopes = f", default scopes {listed(self.default)}" if self.default else ""
        scopes += f", optional scopes {listed(self.optional)}" if self.optional else ""
        scopes += ", Standard Token Exchange on" if self.exchange else ""
        scopes += ", Require DPoP bound tokens on" if self.bound else ""
        scopes += f", {_CERTIFICATE_SWITCH} on" if self.certificate_bound else ""
        scopes += f", which logs in by {_login(self)}" if self.authentication else ""
        secret = (
            f"; its new secret is written to {printable(self.secret_file, _LONGEST_PATH)}" if self.secret_file else ""
        )
        return (
            f"Make the client {named(self.client)} {kind}, without login flows, Full scope allowed off{scopes}{secret}."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnableServiceAccount:
    """Switch the service account of a client on."""

    do: ClassVar = "enable_service_account"
    client: str

    def holds(self, realm: Snapshot) -> bool:
        """Return whether the realm already is so."""
        found = realm.client(self.client)
        return found is not None and found.get("serviceAccountsEnabled") is True

    def on(self, document: _Json) -> None:
        """Change the document as Keycloak will."""
        client = _client_in(document, self.client)
        client["serviceAccountsEnabled"] = True
        if all(one.get("serviceAccountClientId") != self.client for one in document["users"]):
            document["users"].append(_new_account(document, self.client))

    def __str__(self) -> str:
        return f"Switch “Service account roles” of the client {named(self.client)} on."


@dataclass(frozen=True, slots=True, kw_only=True)
class EnableExchange:
    """Let a client exchange the tokens of users."""

    do: ClassVar = "enable_exchange"
    client: str

    def holds(self, realm: Snapshot) -> bool:
        """Return whether the realm already is so."""
        return exchanges(realm.client(self.client) or {})

    def on(self, document: _Json) -> None:
        """Change the document as Keycloak will."""
        _switch_on(_client_in(document, self.client), ATTRIBUTE)

    def __str__(self) -> str:
        return f"Switch “Standard Token Exchange” of the client {named(self.client)} on."


@dataclass(frozen=True, slots=True, kw_only=True)
class RequireBinding:
    """Let a client get bound tokens only: Keycloak then refuses its requests without a proof (DPoP, RFC 9449), or without a certificate."""

    do: ClassVar = "require_binding"
    client: str
    certificate: bool = False
    """Whether they are bound to its certificate (RFC 8705), and not to the key of a proof."""

    @property
    def attribute(self) -> str:
        """The attribute of the client that is switched on."""
        return CERTIFICATE_BOUND if self.certificate else DPOP

    def holds(self, realm: Snapshot) -> bool:
        """Return whether the realm already is so."""
        client = realm.client(self.client) or {}
        return binds_to_certificate(client) if self.certificate else binds(client)

    def on(self, document: _Json) -> None:
        """Change the document as Keycloak will."""
        _switch_on(_client_in(document, self.client), self.attribute)

    def __str__(self) -> str:
        switch = f"“{_CERTIFICATE_SWITCH}”" if self.certificate else "“Require DPoP bound tokens”"
        return f"Switch {switch} of the client {named(self.client)} on."


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAuthentication:
    """Let a client that is there log in by a token of an identity provider, or by a certificate, and no more by what it had."""

    do: ClassVar = "set_authentication"
    client: str
    provider: str = ""
    subject: str = ""
    subject_dn: str = ""
    issuer_dn: str = ""

    @property
    def authentication(self) -> _Json:
        """The fields that say how it proves itself."""
        return _authentication(self)

    def holds(self, realm: Snapshot) -> bool:
        """Return whether the realm already is so."""
        return _has(realm.client(self.client) or {}, self.authentication)

    def on(self, document: _Json) -> None:
        """Change the document as Keycloak will."""
        client = _client_in(document, self.client)
        fields = self.authentication
        client |= {**fields, "attributes": {**(client.get("attributes") or {}), **fields["attributes"]}}

    def __str__(self) -> str:
        return f"Let the client {named(self.client)} log in by {_login(self)}, and by nothing else."


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignScope:
    """Give a client scope to a client, as default or as optional."""

    do: ClassVar = "assign_scope"
    client: str
    scope: str
    optional: bool = False

    def holds(self, realm: Snapshot) -> bool:
        """Return whether the realm already is so."""
        found = realm.client(self.client)
        mine, other = ("optionalClientScopes", "defaultClientScopes")[:: 1 if self.optional else -1]
        return found is not None and self.scope in found[mine] and self.scope not in found[other]

    def on(self, document: _Json) -> None:
        """Change the document as Keycloak will."""
        client = _client_in(document, self.client)
        mine, other = ("optionalClientScopes", "defaultClientScopes")[:: 1 if self.optional else -1]
        client[other] = [name for name in client[other] if name != self.scope]
        client[mine] = sorted({*client[mine], self.scope})

    def __str__(self) -> str:
        return f"Assign the client scope {named(self.scope)} to {named(self.client)} as {'Optional' if self.optional else 'Default'}."


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeRole:
    """Make a role of a client, or of the realm if ``owner`` is empty."""

    do: ClassVar = "make_role"
    owner: str
    role: str

    def holds(self, realm: Snapshot) -> bool:
        """Return whether the realm already is so."""
        return realm.has_role(Role(self.owner, self.role))

    def on(self, document: _Json) -> None:
        """Change the document as Keycloak will."""
        roles = document["roles"]
        own = roles["client"].setdefault(self.owner, []) if self.owner else roles["realm"]
        own.append({"name": self.role})

    def __str__(self) -> str:
        return f"Make the {_of(self.owner, self.role)}."


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRole:
    """Let a role into the tokens of a client (its dedicated scope): Full scope allowed is off there."""

    do: ClassVar = "map_role"
    client: str
    owner: str
    role: str

    def holds(self, realm: Snapshot) -> bool:
        """Return whether the realm already is so."""
        return Role(self.owner, self.role) in realm.mapped("client", self.client)

    def on(self, document: _Json) -> None:
        """Change the document as Keycloak will."""
        mappings = document["clientScopeMappings"]
        own = mappings.setdefault(self.owner, []) if self.owner else document["scopeMappings"]
        own.append({"client": self.client, "roles": [self.role]})

    def __str__(self) -> str:
        client, scope = named(self.client), named(f"{self.client}-dedicated")
        return f"Let the {_of(self.owner, self.role)} into the tokens of {client} (Clients, {client}, Client scopes, {scope}, Scope)."


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRole:
    """Give a role to the service account of a client."""

    do: ClassVar = "grant_role"
    client: str
    owner: str
    role: str

    def holds(self, realm: Snapshot) -> bool:
        """Return whether the realm already is so."""
        return Role(self.owner, self.role) in realm.granted(self.client)

    def on(self, document: _Json) -> None:
        """Change the document as Keycloak will."""
        user = next(one for one in document["users"] if one.get("serviceAccountClientId") == self.client)
        own = user["clientRoles"].setdefault(self.owner, []) if self.owner else user["realmRoles"]
        own.append(self.role)

    def __str__(self) -> str:
        return f"Give the {_of(self.owner, self.role)} to the service account of {named(self.client)}."


Step: TypeAlias = (
    MakeScope
    | AddAudience
    | MakeClient
    | EnableServiceAccount
    | EnableExchange
    | AssignScope
    | MakeRole
    | MapRole
    | GrantRole
    | RequireBinding
    | MakeProvider
    | SetAuthentication
)
ORDER: Final[tuple[type[Step], ...]] = (
    MakeProvider,
    MakeScope,
    AddAudience,
    MakeClient,
    EnableServiceAccount,
    EnableExchange,
    AssignScope,
    MakeRole,
    MapRole,
    GrantRole,
    RequireBinding,
    SetAuthentication,
)
"""In which order the steps of a plan are carried out."""


def step_json(step: Step) -> _Json:
    """Return a step as JSON."""
    return {"do": step.do, **asdict(step)}


def step_from_json(content: object) -> Step:
    """Return the step of this JSON.

    Raises:
        ConfigurationError: It is none.
    """
    if isinstance(content, Mapping):
        members = dict(content)
        name = members.pop("do", None)
        kind = next((one for one in ORDER if one.do == name), None)
        if kind is not None and members.keys() == {one.name for one in fields(kind)}:
            values = {name: _value(value) for name, value in members.items()}
            default = {one.name: one.type for one in fields(kind)}
            if all(_fits(values[name], str(default[name])) for name in values):
                return kind(**values)
    raise ConfigurationError("The plan has a step that this s2s-fastapi does not know: make the plan again.")


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _fits(value: object, annotation: str) -> bool:
    if "tuple" in annotation:
        return isinstance(value, tuple) and all(isinstance(one, str) for one in value)
    return isinstance(value, bool if "bool" in annotation else str)


# What Keycloak is sent


def audience_mapper(audience: str, *, custom: bool, taken: Collection[str] = ()) -> _Json:
    """Return an Audience mapper. ``taken`` are the names of the mappers beside it: Keycloak refuses a second one of the same name."""
    names = (_mapper_name(audience, suffix) for suffix in chain(("",), (f" {number}" for number in count(2))))
    return {
        "name": next(name for name in names if name not in taken),
        "protocol": OIDC,
        "protocolMapper": AUDIENCE_MAPPER,
        "config": {
            f"included.{'custom' if custom else 'client'}.audience": audience,
            "access.token.claim": "true",
            "id.token.claim": "false",
            "introspection.token.claim": "true",
        },
    }


def added_mapper(step: AddAudience, scope: Mapping[str, Any]) -> _Json:
    """Return the Audience mapper that a step adds to a client scope."""
    taken = {str(mapper["name"]) for mapper in scope["protocolMappers"]}
    return audience_mapper(step.audience, custom=step.custom, taken=taken)


def _mapper_name(audience: str, suffix: str) -> str:
    """Return a name of the mapper for an audience. Keycloak's column has 255 characters."""
    name = f"audience {audience}{suffix}"
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_CUT]} {hashlib.sha256(f'{audience}{suffix}'.encode()).hexdigest()[:_DIGITS]}"


def new_scope(step: MakeScope) -> _Json:
    """Return the client scope that a step makes."""
    return {
        "name": step.scope,
        "protocol": OIDC,
        "attributes": {"include.in.token.scope": "true", "display.on.consent.screen": "false"},
        "protocolMappers": [audience_mapper(name, custom=name in step.custom) for name in step.audiences],
    }


def new_client(step: MakeClient) -> _Json:
    """Return the client that a step makes, without its secret."""
    proof = step.authentication
    attributes = {
        **({ATTRIBUTE: "true"} if step.exchange else {}),
        **({DPOP: "true"} if step.bound else {}),
        **({CERTIFICATE_BOUND: "true"} if step.certificate_bound else {}),
        **proof.get("attributes", {}),
    }
    return {
        "clientId": step.client,
        "protocol": OIDC,
        "enabled": True,
        "publicClient": False,
        "clientAuthenticatorType": proof.get("clientAuthenticatorType", "client-secret"),
        "standardFlowEnabled": False,
        "implicitFlowEnabled": False,
        "directAccessGrantsEnabled": False,
        "serviceAccountsEnabled": step.caller,
        "fullScopeAllowed": False,
        "defaultClientScopes": list(step.default),
        "optionalClientScopes": list(step.optional),
        **({"attributes": attributes} if attributes else {}),
    }


def _authentication(step: MakeClient | SetAuthentication) -> _Json:
    return client_fields(
        provider=step.provider, subject=step.subject, subject_dn=step.subject_dn, issuer_dn=step.issuer_dn
    )


def _has(client: Mapping[str, Any], authentication: _Json) -> bool:
    """Return whether a client authenticates itself so. Without any, it may do so as it likes."""
    attributes = client.get("attributes") or {}
    kind = authentication.get("clientAuthenticatorType")
    return kind is None or (
        client.get("clientAuthenticatorType") == kind
        and all(attributes.get(name) == value for name, value in authentication["attributes"].items())
    )


def _login(step: MakeClient | SetAuthentication) -> str:
    if step.provider:
        return f"tokens of the identity provider {named(step.provider)} with the subject {named(step.subject)}"
    return f"certificates of {named(step.subject_dn)} signed by {named(step.issuer_dn)}"


def _client_in(document: _Json, client_id: str) -> _Json:
    found: _Json = next(one for one in document["clients"] if one["clientId"] == client_id)
    return found


def _switch_on(client: _Json, attribute: str) -> None:
    client["attributes"] = {**(client.get("attributes") or {}), attribute: "true"}


def _new_account(document: _Json, client_id: str) -> _Json:
    return {
        "username": f"service-account-{client_id.lower()}",
        "enabled": True,
        "serviceAccountClientId": client_id,
        "realmRoles": [document["defaultRole"]["name"]] if document["defaultRole"]["name"] else [],
        "clientRoles": {},
    }


def _audiences(scope: Mapping[str, Any]) -> set[str]:
    return {audience for mapper in scope["protocolMappers"] if (audience := audience_of(mapper))}


def _of(owner: str, role: str) -> str:
    return f"role {named(role)} of the client {named(owner)}" if owner else f"realm role {named(role)}"
