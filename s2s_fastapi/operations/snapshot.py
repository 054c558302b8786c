"""What a plan needs to know of a realm, in the form of Keycloak's own realm JSON, without any secret.

Only the fields listed here are taken from an answer. So a secret cannot get into a plan, a hash or a log, whatever the name of the field
in which a later Keycloak puts it.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Protocol

from s2s_fastapi.keycloak.client_authentication import ATTRIBUTES as AUTHENTICATION
from s2s_fastapi.keycloak.client_authentication import CERTIFICATE_BOUND, PROVIDER, SUBJECT
from s2s_fastapi.keycloak.dpop import ATTRIBUTE as DPOP
from s2s_fastapi.keycloak.exchange import ATTRIBUTE
from s2s_fastapi.operations.admin import AdminError
from s2s_fastapi.realm.builtins import CLIENT_ID_MAPPERS
from s2s_fastapi.realm.entities import OIDC, Role
from s2s_fastapi.realm.mappers import KNOWN_MAPPERS
from s2s_fastapi.realm.model import RealmModel
from s2s_fastapi.text import named

__all__ = [
    "AUDIENCE_MAPPER",
    "Question",
    "ReadApi",
    "Snapshot",
    "audience_of",
    "binds",
    "binds_to_certificate",
    "every_audience_of",
    "exchanges",
    "proof_of",
    "providers_of",
    "read_snapshot",
]

AUDIENCE_MAPPER: Final = "oidc-audience-mapper"
_AUDIENCES: Final = ("included.client.audience", "included.custom.audience")

_REALM: Final = (
    "accessTokenLifespan",
    "adminPermissionsEnabled",
    "clientOfflineSessionMaxLifespan",
    "clientSessionMaxLifespan",
    "defaultSignatureAlgorithm",
    "enabled",
    "notBefore",
    "offlineSessionMaxLifespan",
    "offlineSessionMaxLifespanEnabled",
    "organizationsEnabled",
    "realm",
    "ssoSessionMaxLifespan",
)
_CLIENT: Final = (
    "bearerOnly",
    "clientAuthenticatorType",
    "clientId",
    "consentRequired",
    "directAccessGrantsEnabled",
    "enabled",
    "fullScopeAllowed",
    "implicitFlowEnabled",
    "notBefore",
    "protocol",
    "publicClient",
    "serviceAccountsEnabled",
    "standardFlowEnabled",
)
_PROVIDER: Final = ("alias", "enabled", "providerId")
_PROVIDER_CONFIG: Final = (
    "bundleEndpoint",
    "issuer",
    "jwksUrl",
    "supportsClientAssertionReuse",
    "supportsClientAssertions",
    "trustDomain",
    "useJwksUrl",
    "validateSignature",
)
"""What decides which tokens of an identity provider count. Its own client secret is not among it."""
_ATTRIBUTES: Final = (
    *AUTHENTICATION,
    "access.token.header.type.rfc9068",
    "access.token.lifespan",
    "access.token.signed.response.alg",
    "acr.loa.map",
    "client.session.max.lifespan",
    "client.use.lightweight.access.token.enabled",
    "client_credentials.use_refresh_token",
    DPOP,
    "oauth2.device.authorization.grant.enabled",
    "oauth2.jwt.authorization.grant.enabled",
    "oidc.ciba.grant.enabled",
    ATTRIBUTE,
    CERTIFICATE_BOUND,
    "token.response.type.bearer.lower-case",
)
_NEW_CLIENTS: Final = "every new client"
"""Who holds the scopes in the two lists of the realm: Keycloak gives them to each client that is made without lists of its own."""
_MOST_ROLES: Final = 500
_STRIDE: Final = 100
"""After how many clients the progress is shown again."""
_OLD: Final = "26.0."
_ROTATION: Final = "secret-rotation"
_VIEW_CLIENTS: Final = "view-clients"
_VIEW_USERS: Final = "view-users"
_VIEW_REALM: Final = "view-realm"
_VIEW_PROVIDERS: Final = "view-identity-providers"


class ReadApi(Protocol):
    """Reads pages of the Admin API: see `s2s_fastapi.operations.admin.AdminApi`."""

    def get(self, *path: str, needs: str, **query: object) -> Any:
        """Return the JSON of a page below the realm."""

    def pages(self, *path: str, needs: str, **query: object) -> Iterable[dict[str, Any]]:
        """Yield the objects of a long list."""

    def lacks(self, right: str, what: str) -> str:
        """Say that the admin client lacks a right."""

    def version(self) -> str:
        """Return the version of the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is read of a realm: the objects that a plan may look at."""

    clients: frozenset[str]
    scopes: frozenset[str] = frozenset()
    audiences: frozenset[str] = frozenset()
    roles: frozenset[Role] = frozenset()
    providers: frozenset[str] = frozenset()
    """The aliases of identity providers that prove clients. If there are none, no identity provider is read."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A part of a realm, as it was read or as a plan will leave it."""

    document: Mapping[str, Any] = field(repr=False)
    """Realm JSON: `RealmModel` reads it, and Keycloak would import it."""
    version: str
    holders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For each scope, the clients outside of the plan that hold it: Keycloak's own too, and those that will be made."""
    rotating: tuple[str, ...] = ()
    """The client policies that give a client a new secret when it is changed."""
    subjects: tuple[tuple[str, str, str], ...] = ()
    """The clients outside of the plan that one of its identity providers proves: alias, subject and client."""
    notes: tuple[str, ...] = ()
    """What may make the prediction wrong, one sentence each."""
    realm_id: str = ""
    ids: Mapping[tuple[str, ...], str] = field(default_factory=dict, repr=False)
    """Keycloak's ids: ``("client", id)``, ``("scope", name)``, ``("account", client)``, ``("role", client, name)``. Not in the hash."""

    @property
    def realm(self) -> str:
        """The name of the realm."""
        return str(self.document["realm"])

    @cached_property
    def hash(self) -> str:
        """A hash of all that was read. Equal if, and only if, nothing changed that a plan looks at."""
        text = json.dumps(
            [self.document, self.holders, self.rotating, self.version, self.realm_id, self.subjects], sort_keys=True
        )
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def model(self) -> RealmModel:
        """The realm model of it, which predicts tokens."""
        return RealmModel.read(self.document, version=self.version)

    def with_document(self, document: Mapping[str, Any]) -> "Snapshot":
        """Return the same realm with another document: as it will be."""
        return replace(self, document=document, rotating=(), notes=(), ids={})

    def client(self, client_id: str) -> Mapping[str, Any] | None:
        """Return a client, or None if the realm has none of this name."""
        return self._clients.get(client_id)

    def provider(self, alias: str) -> Mapping[str, Any] | None:
        """Return an identity provider, or None. They are read only if a client of the plan is proven by one."""
        return next((one for one in self.document.get("identityProviders", ()) if one["alias"] == alias), None)

    def proven(self, alias: str, subject: str) -> tuple[str, ...]:
        """Return the clients, of the plan or not, that a token of this identity provider and subject proves."""
        inside = (name for name, client in self._clients.items() if proof_of(client) == (alias, subject))
        return tuple(sorted({*inside, *(name for *proof, name in self.subjects if proof == [alias, subject])}))

    def naming(self, alias: str) -> tuple[str, ...]:
        """Return the clients, of the plan or not, that this identity provider proves, or would prove if it were there."""
        inside = (name for name, client in self._clients.items() if proof_of(client)[0] == alias)
        return tuple(sorted({*inside, *(name for other, _, name in self.subjects if other == alias)}))

    def scope(self, name: str) -> Mapping[str, Any] | None:
        """Return a client scope, or None."""
        return self._scopes.get(name)

    @property
    def scopes(self) -> Mapping[str, Mapping[str, Any]]:
        """The client scopes that were read, by name."""
        return self._scopes

    def holding(self, scope: str) -> frozenset[str]:
        """Return the clients of the plan that hold a scope, as default or optional."""
        return frozenset(
            name
            for name, client in self._clients.items()
            if scope in client.get("defaultClientScopes", ()) or scope in client.get("optionalClientScopes", ())
        )

    def has_role(self, role: Role) -> bool:
        """Return whether the role is there."""
        declared = self.document.get("roles") or {}
        own = declared.get("client", {}).get(role.client, ()) if role.client else declared.get("realm", ())
        return any(one["name"] == role.name for one in own)

    def inside(self, role: Role) -> frozenset[Role]:
        """Return the roles that a role contains, directly or not."""
        found: set[Role] = set()
        left = [role]
        while left:
            for inner in self._composites.get(left.pop(), ()):
                if inner not in found:
                    found.add(inner)
                    left.append(inner)
        return frozenset(found)

    def granted(self, client_id: str) -> frozenset[Role]:
        """Return the roles that the service account of a client has, by itself or by a group."""
        user: Mapping[str, Any] = next(
            (one for one in self.document.get("users", ()) if one.get("serviceAccountClientId") == client_id), {}
        )
        return frozenset(_named_roles(user.get("realmRoles", ()), user.get("clientRoles", {})))

    def in_effect(self, client_id: str, scope: str) -> bool:
        """Return whether a scope counts for a service: one with role mappings does only if the service has one of the roles."""
        roles, held = self.mapped("clientScope", scope), self.granted(client_id)
        held = held.union(*map(self.inside, held))
        return not roles or not held.isdisjoint(roles.union(*map(self.inside, roles)))

    def mapped(self, kind: str, name: str) -> frozenset[Role]:
        """Return the roles that are mapped to a ``client`` or a ``clientScope``."""
        by_owner = {"": self.document.get("scopeMappings", ()), **self.document.get("clientScopeMappings", {})}
        return frozenset(
            Role(owner, role)
            for owner, mappings in by_owner.items()
            for mapping in mappings
            if mapping.get(kind) == name
            for role in mapping["roles"]
        )

    @cached_property
    def _clients(self) -> Mapping[str, Mapping[str, Any]]:
        return {client["clientId"]: client for client in self.document.get("clients", ())}

    @cached_property
    def _scopes(self) -> Mapping[str, Mapping[str, Any]]:
        return {scope["name"]: scope for scope in self.document.get("clientScopes", ())}

    @cached_property
    def _composites(self) -> Mapping[Role, frozenset[Role]]:
        declared = self.document.get("roles") or {}
        by_owner = {"": declared.get("realm", ()), **declared.get("client", {})}
        return {
            Role(owner, role["name"]): frozenset(
                _named_roles(role["composites"].get("realm", ()), role["composites"].get("client", {}))
            )
            for owner, roles in by_owner.items()
            for role in roles
            if role.get("composites")
        }


def exchanges(client: Mapping[str, Any]) -> bool:
    """Return whether a client may exchange tokens."""
    return (client.get("attributes") or {}).get(ATTRIBUTE) == "true"


def proof_of(client: Mapping[str, Any]) -> tuple[str, str]:
    """Return the identity provider and the subject that prove a client; both are empty if it has none."""
    attributes = client.get("attributes") or {}
    return str(attributes.get(PROVIDER) or ""), str(attributes.get(SUBJECT) or "")


def binds(client: Mapping[str, Any]) -> bool:
    """Return whether Keycloak gives a client bound tokens only (DPoP)."""
    return (client.get("attributes") or {}).get(DPOP) == "true"


def binds_to_certificate(client: Mapping[str, Any]) -> bool:
    """Return whether Keycloak gives a client only tokens that are bound to its certificate (RFC 8705)."""
    return (client.get("attributes") or {}).get(CERTIFICATE_BOUND) == "true"


def audience_of(mapper: Mapping[str, Any]) -> str | None:
    """Return what a protocol mapper adds to ``aud`` of access tokens; None if it is no Audience mapper, "" if it adds nothing."""
    if mapper.get("protocolMapper") != AUDIENCE_MAPPER:
        return None
    config = mapper.get("config") or {}
    audience = config.get("included.client.audience") or config.get("included.custom.audience") or ""
    return str(audience) if config.get("access.token.claim") == "true" else ""


def every_audience_of(mapper: Mapping[str, Any]) -> frozenset[str]:
    """Return what an Audience mapper can add to a token of any kind: also to a lightweight one, and to the answer of an introspection."""
    config = mapper.get("config") or {} if mapper.get("protocolMapper") == AUDIENCE_MAPPER else {}
    return frozenset(str(config[name]) for name in _AUDIENCES if config.get(name))


def _named_roles(realm: Iterable[str], by_client: Mapping[str, Iterable[str]]) -> Iterable[Role]:
    yield from (Role("", name) for name in realm)
    yield from (Role(client, name) for client, names in by_client.items() for name in names)


# Reading


def read_snapshot(api: ReadApi, question: Question, *, progress: Callable[[str], object] = str) -> Snapshot:
    """Read what ``question`` asks about. ``progress`` is called with what is being read.

    Raises:
        AdminForbidden: A right is missing; the sentence names it.
        AdminError: There is no such realm, or Keycloak does not answer.
    """
    problem = ""
    try:
        return _Reading(api, question, progress).snapshot()
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        problem = type(error).__name__
    # Outside of the except block: the error carries an answer, and with it secrets.
    raise AdminError(f"Keycloak answered with something else than its Admin API does ({problem}): check KEYCLOAK_URL.")


def providers_of(api: ReadApi) -> list[dict[str, Any]]:
    """Return the identity providers of a realm, without their secrets."""
    found = api.get("identity-provider", "instances", needs=_VIEW_PROVIDERS)
    return sorted(map(_identity_provider, found), key=lambda provider: str(provider["alias"]))


class _Reading:
    """One reading of a realm."""

    def __init__(self, api: ReadApi, question: Question, progress: Callable[[str], object]) -> None:
        self.api = api
        self.progress = progress
        self.question = question
        self.ids: dict[tuple[str, ...], str] = {}
        self.notes: list[str] = []
        self.roles: dict[Role, tuple[Role, ...]] = {}
        self.groups: dict[str, frozenset[Role]] = {}
        self.uuids: dict[str, str] = {}
        self.subjects: list[tuple[str, str, str]] = []
        self.version = api.version()

    def snapshot(self) -> Snapshot:
        realm = self.api.get(needs=_VIEW_REALM)
        if "accessTokenLifespan" not in realm:  # Keycloak answers 200 with five fields instead of 403
            raise AdminError(self.api.lacks(_VIEW_REALM, "read the settings of the realm"))
        # A client with only query-clients is answered 200 with an empty list: every realm has clients of Keycloak's own.
        if not self.api.get("clients", needs=_VIEW_CLIENTS, clientId="account"):
            raise AdminError(self.api.lacks(_VIEW_CLIENTS, "see all clients: Keycloak answers with an empty list"))
        document: dict[str, Any] = {name: realm[name] for name in _REALM if name in realm}
        default_role = realm.get("defaultRole") or {}
        document["defaultRole"] = {"name": str(default_role.get("name", ""))}
        clients, held = self._clients()
        held[_NEW_CLIENTS] = held.get(_NEW_CLIENTS, frozenset()) | self._of_new_clients()
        scopes = self._scopes(clients)
        document["clientScopes"] = scopes
        holders = {
            scope["name"]: tuple(sorted(name for name, names in held.items() if scope["name"] in names))
            for scope in scopes
        }
        mapped: dict[tuple[str, str], set[Role]] = {}
        for number, scope in enumerate(scopes, start=1):
            self.progress(f"client scope {number} of {len(scopes)}")
            found = self.api.get(
                "client-scopes", self.ids["scope", scope["name"]], "scope-mappings", needs=_VIEW_CLIENTS
            )
            mapped["clientScope", scope["name"]] = set(self._mappings(found))
        users = []
        for number, client in enumerate(clients, start=1):
            self.progress(f"service {number} of {len(clients)}")
            uuid = self.ids["client", client["clientId"]]
            found = self.api.get("clients", uuid, "scope-mappings", needs=_VIEW_CLIENTS)
            mapped["client", client["clientId"]] = set(self._mappings(found))
            if client.get("serviceAccountsEnabled"):
                users.append(self._account(client["clientId"], uuid))
        for owner in sorted({role.client for role in self.question.roles}):
            self._declared(owner)
        default = Role("", document["defaultRole"]["name"])
        if default.name:
            self.roles.setdefault(default, ())
            self.ids["role", *default] = str(default_role.get("id", ""))
        self._follow()
        document["users"] = users
        document |= _mappings_json(mapped)
        document |= self._roles_json()
        listed = {client["clientId"] for client in clients}
        mentioned = {
            role.client for role in (*self.roles, *(role for roles in mapped.values() for role in roles)) if role.client
        }
        mentioned |= {*self.question.audiences, *(role.client for role in self.question.roles)} & self.uuids.keys()
        stubs = [{"clientId": name, "enabled": True} for name in sorted((mentioned | {"account"}) - listed)]
        document["clients"] = [*clients, *stubs]
        if self.question.providers:
            # All of them: the issuer of each counts, because Keycloak refuses a second one with the same.
            document["identityProviders"] = providers_of(self.api)
        policies, rotating = self._policies()
        document["clientPolicies"] = {"policies": policies}
        return Snapshot(
            document=document,
            version=self.version,
            holders={name: names for name, names in holders.items() if names},
            rotating=rotating,
            subjects=tuple(sorted(self.subjects)),
            notes=tuple(self.notes),
            realm_id=str(realm.get("id", "")),
            ids=self.ids,
        )

    def _clients(self) -> tuple[list[dict[str, Any]], dict[str, frozenset[str]]]:
        """Return the clients of the plan, and the scopes of all others. One page is in memory at a time."""
        found, held = [], {}
        for number, client in enumerate(self.api.pages("clients", needs=_VIEW_CLIENTS), start=1):
            if number % _STRIDE == 0:
                self.progress(f"{number} clients")
            client_id = str(client["clientId"])
            self.uuids[client_id] = str(client["id"])
            if client_id in self.question.clients:
                self.ids["client", client_id] = str(client["id"])
                found.append(_client(client, old=self.version.startswith(_OLD)))
            else:
                alias, subject = proof_of(client)
                if alias in self.question.providers:
                    self.subjects.append((alias, subject, client_id))
                names = (*(client.get("defaultClientScopes") or ()), *(client.get("optionalClientScopes") or ()))
                held[client_id] = frozenset(map(sys.intern, names))  # thousands of clients hold the same few scopes
        for owner in {role.client for role in self.question.roles} & self.uuids.keys():
            self.ids["client", owner] = self.uuids[owner]
        return sorted(found, key=lambda client: str(client["clientId"])), held

    def _of_new_clients(self) -> frozenset[str]:
        lists = (self.api.get(f"default-{kind}-client-scopes", needs=_VIEW_CLIENTS) for kind in ("default", "optional"))
        return frozenset(str(scope["name"]) for scopes in lists for scope in scopes)

    def _scopes(self, clients: Collection[Mapping[str, Any]]) -> list[dict[str, Any]]:
        held = {
            name for client in clients for name in (*client["defaultClientScopes"], *client["optionalClientScopes"])
        }
        wanted = held | self.question.scopes | {"basic", "roles", "service_account"}
        found = []
        for scope in self.api.get("client-scopes", needs=_VIEW_CLIENTS):
            audiences = {audience_of(mapper) for mapper in scope.get("protocolMappers") or ()}
            if scope["name"] in wanted or audiences & self.question.audiences:
                self.ids["scope", scope["name"]] = str(scope["id"])
                found.append(_scope(scope))
        return sorted(found, key=lambda scope: str(scope["name"]))

    def _mappings(self, found: Mapping[str, Any]) -> Iterable[Role]:
        for role in found.get("realmMappings") or ():
            yield self._noted("", role)
        for mapping in (found.get("clientMappings") or {}).values():
            for role in mapping.get("mappings") or ():
                yield self._noted(str(mapping["client"]), role)

    def _noted(self, owner: str, role: Mapping[str, Any]) -> Role:
        noted = Role(owner, str(role["name"]))
        self.roles.setdefault(noted, ())
        self.ids["role", *noted] = str(role["id"])
        return noted

    def _account(self, client_id: str, uuid: str) -> dict[str, Any]:
        account = self.api.get("clients", uuid, "service-account-user", needs=_VIEW_CLIENTS)
        self.ids["account", client_id] = str(account["id"])
        roles = set(self._mappings(self.api.get("users", str(account["id"]), "role-mappings", needs=_VIEW_USERS)))
        for group in self.api.get("users", str(account["id"]), "groups", needs=_VIEW_USERS):
            roles |= self._of_group(str(group["id"]))
        by_client: dict[str, list[str]] = {}
        for role in roles:
            by_client.setdefault(role.client, []).append(role.name)
        return {
            "username": str(account["username"]),
            "enabled": bool(account.get("enabled", True)),
            "serviceAccountClientId": client_id,
            "realmRoles": sorted(by_client.pop("", [])),
            "clientRoles": {client: sorted(names) for client, names in sorted(by_client.items())},
        }

    def _of_group(self, uuid: str) -> frozenset[Role]:
        """Return the roles of a group, and of the groups that it is in: whoever is in it has them all."""
        if uuid not in self.groups:
            self.groups[uuid] = frozenset()  # should two groups be in each other
            roles = set(self._mappings(self.api.get("groups", uuid, "role-mappings", needs=_VIEW_USERS)))
            if above := self.api.get("groups", uuid, needs=_VIEW_USERS).get("parentId"):
                roles |= self._of_group(str(above))
            self.groups[uuid] = frozenset(roles)
        return self.groups[uuid]

    def _declared(self, owner: str) -> None:
        """Note the roles of a client, or of the realm, that the question names."""
        names = {role.name for role in self.question.roles if role.client == owner}
        if owner and owner not in self.uuids:
            return
        path = ("clients", self.uuids[owner], "roles") if owner else ("roles",)
        for role in self.api.pages(*path, needs=_VIEW_CLIENTS if owner else _VIEW_REALM):
            if role["name"] in names:
                self._noted(owner, role)

    def _follow(self) -> None:
        """Read what the roles contain, and what those contain."""
        left = list(self.roles)
        seen: set[Role] = set()
        by_uuid = {uuid: name for name, uuid in self.uuids.items()}
        while left:
            role = left.pop()
            if role in seen:
                continue
            seen.add(role)
            if len(seen) > _MOST_ROLES:
                raise AdminError(
                    f"The roles of these services contain more than {_MOST_ROLES} others: they are not followed further."
                )
            inner = []
            for one in self.api.get("roles-by-id", self.ids["role", *role], "composites", needs=_VIEW_REALM):
                owner = by_uuid.get(str(one.get("containerId"))) if one.get("clientRole") else ""
                if owner is None:
                    raise AdminError(
                        f"The role {named(role.name)} contains {named(str(one['name']))}, a role of a client that Keycloak does not list:"
                        " read the realm again, with an admin client that sees all clients."
                    )
                inner.append(self._noted(owner, one))
            self.roles[role] = tuple(sorted(inner))
            left += inner

    def _roles_json(self) -> dict[str, Any]:
        realm: list[dict[str, Any]] = []
        by_client: dict[str, list[dict[str, Any]]] = {}
        for role, inner in sorted(self.roles.items()):
            composites: dict[str, Any] = {}
            for one in inner:
                if one.client:
                    composites.setdefault("client", {}).setdefault(one.client, []).append(one.name)
                else:
                    composites.setdefault("realm", []).append(one.name)
            entry = {"name": role.name, **({"composites": composites} if inner else {})}
            (by_client.setdefault(role.client, []) if role.client else realm).append(entry)
        return {"roles": {"realm": realm, "client": by_client}}

    def _policies(self) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
        """Return the policies in force, and the names of those that rotate secrets."""
        found = self.api.get("client-policies", "policies", needs=_VIEW_REALM)
        policies = [policy for policy in found.get("policies") or () if policy.get("enabled", True)]
        if not policies:
            return [], ()
        profiles = self.api.get("client-policies", "profiles", needs=_VIEW_REALM).get("profiles") or ()
        rotating = {
            profile.get("name")
            for profile in profiles
            if any(executor.get("executor") == _ROTATION for executor in profile.get("executors") or ())
        }
        names = sorted(str(policy.get("name", "")) for policy in policies)
        those = (
            str(policy.get("name", "")) for policy in policies if rotating.intersection(policy.get("profiles") or ())
        )
        return [{"name": name, "enabled": True} for name in names], tuple(sorted(those))


def _client(client: Mapping[str, Any], *, old: bool) -> dict[str, Any]:
    attributes, mappers = client.get("attributes") or {}, _mappers(client)
    if old and client.get("serviceAccountsEnabled"):
        # 26.0 itself adds these when a service logs in that has none of them. They count as there: a log-in does not change a realm.
        names = {mapper["name"] for mapper in mappers}
        mappers = _in_order([*mappers, *(own for own in CLIENT_ID_MAPPERS if own["name"] not in names)])
    return {
        **{name: client[name] for name in _CLIENT if name in client},
        "attributes": {name: str(attributes[name]) for name in _ATTRIBUTES if name in attributes},
        "protocolMappers": mappers,
        "defaultClientScopes": sorted(client.get("defaultClientScopes") or ()),
        "optionalClientScopes": sorted(client.get("optionalClientScopes") or ()),
    }


def _identity_provider(found: Mapping[str, Any]) -> dict[str, Any]:
    config = found.get("config") or {}
    return {
        **{name: found[name] for name in _PROVIDER if name in found},
        "config": {name: str(config[name]) for name in _PROVIDER_CONFIG if name in config},
    }


def _scope(scope: Mapping[str, Any]) -> dict[str, Any]:
    shown = (scope.get("attributes") or {}).get("include.in.token.scope")
    return {
        "name": str(scope["name"]),
        "protocol": str(scope.get("protocol") or OIDC),
        "attributes": {} if shown is None else {"include.in.token.scope": str(shown)},
        "protocolMappers": _mappers(scope),
    }


def _mappers(holder: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the mappers. The settings of a kind that the realm model does not know are left out: nobody knows what is in them."""
    found = [
        {
            "name": str(mapper.get("name", "")),
            "protocol": OIDC,
            "protocolMapper": str(mapper.get("protocolMapper", "")),
            "config": dict(mapper.get("config") or {}) if mapper.get("protocolMapper") in KNOWN_MAPPERS else {},
        }
        for mapper in holder.get("protocolMappers") or ()
        if (mapper.get("protocol") or OIDC) == OIDC
    ]
    return _in_order(found)


def _in_order(mappers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return sorted(map(dict, mappers), key=lambda mapper: (str(mapper["name"]), str(mapper["protocolMapper"])))


def _mappings_json(mapped: Mapping[tuple[str, str], Collection[Role]]) -> dict[str, Any]:
    realm: list[dict[str, Any]] = []
    by_owner: dict[str, list[dict[str, Any]]] = {}
    for (kind, name), roles in sorted(mapped.items()):
        owners: dict[str, list[str]] = {}
        for role in sorted(roles):
            owners.setdefault(role.client, []).append(role.name)
        for owner, names in owners.items():
            (by_owner.setdefault(owner, []) if owner else realm).append({kind: name, "roles": names})
    return {"scopeMappings": realm, "clientScopeMappings": by_owner}
