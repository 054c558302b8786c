"""From Keycloak's own realm JSON to values: what a server holds after it has imported the document.

The document may be in the form that ``--import-realm`` and ``POST /admin/realms`` take, or in that of ``partial-export``. The reader adds
what an import adds without any word of it in the file: built-in scopes, clients and roles, and service accounts. ``Rule n`` in a
comment of this folder is the rule that ``tests/realm/test_rules.py`` (from 20 on ``test_importing.py``) states and proves.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import NAMESPACE_URL, uuid5

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.realm import builtins
from s2s_fastapi.realm.entities import (
    OIDC,
    Account,
    Client,
    IdentityProvider,
    Mapper,
    Realm,
    Role,
    Roles,
    Scope,
    acr_levels,
)
from s2s_fastapi.realm.importing import imported, scope_name, with_secrets
from s2s_fastapi.realm.profile import Profile
from s2s_fastapi.realm.references import missing
from s2s_fastapi.realm.representations import convert
from s2s_fastapi.realm.roles import composites, default_role, held, scope_mappings

__all__ = ["read_realm"]

_LIFESPANS: Final = {
    "accessTokenLifespan": 300,
    "ssoSessionIdleTimeout": 1800,
    "ssoSessionMaxLifespan": 36000,
    "clientSessionIdleTimeout": 0,
    "clientSessionMaxLifespan": 0,
    "offlineSessionIdleTimeout": 2592000,
    "offlineSessionMaxLifespan": 5184000,
    "clientOfflineSessionIdleTimeout": 0,
    "clientOfflineSessionMaxLifespan": 0,
}

_Attributes = Mapping[str, tuple[str, ...]]


def read_realm(document: Mapping[str, Any], version: str, *, new_secret: Callable[[str], str] | None = None) -> Realm:
    """Return the realm that a server of ``version`` makes of the document.

    ``new_secret`` makes a secret for each client id that needs one and has none. Without it, such a client has no secret.

    Raises:
        ConfigurationError: This is no realm, or one that Keycloak does not import.
    """
    given: object = document
    name = given.get("realm") if isinstance(given, Mapping) else None
    if not isinstance(name, str) or not name:
        raise ConfigurationError(
            "this is no realm: Keycloak's realm JSON is an object with the member `realm`, its name"
        )
    numbers = re.match(r"\d+(\.\d+)*", version)
    if numbers is None:
        raise ConfigurationError(f"{version!r} is no version of Keycloak: write it as 26.7.3")
    server = tuple(int(number) for number in numbers[0].split("."))
    converted = convert(document, server)
    if converted.wrong_types:
        raise ConfigurationError(f"Keycloak does not import realm {name!r}: {converted.wrong_types[0]}")
    try:
        complete = with_secrets(converted.document, new_secret) if new_secret else converted.document
        return _Reader(complete, server).realm()
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        problem = repr(error)  # a name is missing, or a list has nothing in place of an object
    # Outside of the except block: the error's frames hold the document, and with it the secrets.
    raise ConfigurationError(f"Keycloak does not import realm {name!r}: {problem}")


class _Reader:
    """One document that is being read. Each method answers one question about it."""

    def __init__(self, document: Mapping[str, Any], version: tuple[int, ...]) -> None:
        self.name: str = document["realm"]
        for number, client in enumerate(document.get("clients") or [], start=1):
            if not client.get("clientId"):
                raise ConfigurationError(
                    f"realm {self.name!r}: the client number {number} has no clientId, and Keycloak would make one up"
                )
        self.given = document
        self.document = imported(document, version)
        self.version = version
        self.old = version < (26, 1)
        self.listed = {client["clientId"] for client in self._list("clients")}
        self.default_role = default_role(document)
        self.profile = Profile(document)
        self.groups = dict(self._groups(self._list("groups"), "", frozenset()))
        self.mapped = scope_mappings(document, self.listed)
        self.scopes, self.default, self.optional = self._client_scopes()

    def realm(self) -> Realm:
        accounts = [self._account(user) for user in self._list("users")]
        users = {account.username: account for account, _ in accounts}
        service = {client_id: account for account, client_id in accounts if client_id}
        listed = self._list("clients")
        # A document that lists the client account counts as listing account-console as well.
        there = self.listed | ({"account-console"} if "account" in self.listed else set())
        clients = [*listed, *(client for client in self._own_clients() if client["clientId"] not in there)]
        policies = [
            policy.get("name", "?")
            for policy in (self.document.get("clientPolicies") or {}).get("policies") or []
            if policy.get("enabled", True)
        ]
        for client in listed:
            for name, value in (client.get("attributes") or {}).items():
                if name.endswith((".lifespan", ".idle.timeout")) and str(value or "").strip():
                    int(value)  # seconds, or this is no realm that could issue anything
        for reason in missing(self.given, self.names, self.groups):
            raise ConfigurationError(f"Keycloak does not import realm {self.name!r}: {reason}")
        return Realm(
            name=self.name,
            version=self.version,
            enabled=bool(self.document.get("enabled", False)),
            not_before=int(self.document.get("notBefore") or 0),
            algorithm=self.document.get("defaultSignatureAlgorithm") or "RS256",
            lifespans={
                name: default if self.document.get(name) is None else int(self.document[name])
                for name, default in _LIFESPANS.items()
            }
            | {"offlineSessionMaxLifespanEnabled": int(bool(self.document.get("offlineSessionMaxLifespanEnabled")))},
            clients={client["clientId"]: self._client(client, users, service) for client in clients},
            users=users,
            scopes=self.scopes,
            identity_providers=tuple(map(_identity_provider, self._list("identityProviders"))),
            inside=composites(self.document, self.listed, organizations=not self.old),
            organizations=bool(self.document.get("organizationsEnabled", False)),
            acr_levels=acr_levels(self.document.get("attributes") or {}),
            group_attributes=dict(self._group_attributes(self._list("groups"), "", {})),
            unknown=tuple(f"the client policy {name!r} may refuse a request or change a token" for name in policies),
        )

    def _own_clients(self) -> Iterator[Mapping[str, Any]]:
        yield from builtins.CLIENTS
        if self.document.get("adminPermissionsEnabled"):  # rule 25
            yield builtins.ADMIN_PERMISSIONS

    def _list(self, name: str) -> list[Mapping[str, Any]]:
        found = self.document.get(name) or []
        if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
            raise TypeError(f"{name} must be a list of objects")
        return found

    # Scopes

    def _client_scopes(self) -> tuple[dict[str, Scope], list[str], list[str]]:
        """The realm's scopes by name, and the names that a client gets whose file gives it no list."""
        given = self.document.get("clientScopes")
        if given is None:
            # Without the array all built-ins are there, and the realm's own lists of defaults find nothing to refer to.
            built_in, default, optional = builtins.scopes(service_account=not self.old)
        else:
            # Rule 5: with it, only what it lists.
            built_in = []
            default, optional = (
                list(self.document.get(name) or [])
                for name in ("defaultDefaultClientScopes", "defaultOptionalClientScopes")
            )
        representations = [*self._list("clientScopes"), *built_in]
        # Without the scopes that a migration adds: it comes after everything that refers to a scope.
        before = [*(self.given.get("clientScopes") or []), *built_in]
        self.names = {"offline_access", *map(scope_name, before)}
        scopes = {scope.name: scope for scope in map(self._scope, representations) if scope is not None}
        if "offline_access" not in map(scope_name, representations):
            own = self.mapped.get(("clientScope", "offline_access"), frozenset()) | {Role("", "offline_access")}
            scopes["offline_access"] = Scope(name="offline_access", roles=own)
            default = [name for name in default if name != "offline_access"]  # no such scope when the lists are read
            optional = [*optional, "offline_access"]
        return scopes, default, optional

    def _scope(self, scope: Mapping[str, Any]) -> Scope | None:
        if scope.get("protocol") != OIDC:
            return None
        name = scope_name(scope)
        shown = (scope.get("attributes") or {}).get("include.in.token.scope")
        return Scope(
            name=name,
            mappers=_mappers(scope),
            roles=self.mapped.get(("clientScope", name), frozenset()),
            in_token=shown is None or str(shown).lower() == "true",
        )

    # Accounts

    def _groups(self, groups: Iterable[Mapping[str, Any]], above: str, inherited: Roles) -> Iterator[tuple[str, Roles]]:
        for group in groups:
            path, roles = f"{above}/{group['name']}", inherited | set(held(group))  # rule 8
            yield path, roles
            yield from self._groups(group.get("subGroups") or [], path, roles)

    def _group_attributes(
        self, groups: Iterable[Mapping[str, Any]], above: str, inherited: _Attributes
    ) -> Iterator[tuple[str, _Attributes]]:
        for group in groups:
            own = {name: _values(values) for name, values in (group.get("attributes") or {}).items()}
            path, attributes = f"{above}/{group['name']}", {**inherited, **own}
            yield path, attributes
            yield from self._group_attributes(group.get("subGroups") or [], path, attributes)

    def _member(self, paths: Iterable[str]) -> tuple[tuple[str, ...], Roles]:
        groups = tuple(f"/{path.strip('/')}" for path in paths)
        return groups, frozenset().union(*(self.groups.get(path, frozenset()) for path in groups))

    def _account(self, user: Mapping[str, Any]) -> tuple[Account, str]:
        """A ``users`` entry has what it lists: no default roles, no default groups (rule 4)."""
        groups, roles = self._member(user.get("groups") or [])
        username = str(user["username"]).lower()
        known = {"username": username, "email": str(user.get("email") or "").lower()}
        known |= {"firstName": user.get("firstName") or "", "lastName": user.get("lastName") or ""}
        given = {name: _values(values) for name, values in (user.get("attributes") or {}).items()}
        account = Account(
            username=username,
            id=user.get("id") or self._made_up_id(username),
            enabled=bool(user.get("enabled", False)),
            ready=self.profile.is_complete(user),
            roles=roles | set(held(user)),
            groups=groups,
            attributes=given | {name: (value,) for name, value in known.items() if value},
            email_verified=bool(user.get("emailVerified", False)),
        )
        return account, user.get("serviceAccountClientId") or ""

    def _service_account(self, client: Mapping[str, Any]) -> Account:
        """The account that the server makes for a client if the ``users`` do not list it (rule 4)."""
        client_id = str(client["clientId"])
        username = f"service-account-{client_id.lower()}"
        own = {Role(client_id, "uma_protection")} if client.get("authorizationServicesEnabled") else set()  # rule 21
        groups, roles = self._member(self.document.get("defaultGroups") or [])
        return Account(
            username=username,
            id=self._made_up_id(username),
            roles=roles | own | {self.default_role},
            groups=groups,
            attributes={"username": (username,)},
        )

    def _made_up_id(self, username: str) -> str:
        return str(uuid5(NAMESPACE_URL, f"{self.name}/{username}"))

    # Clients

    def _client(
        self, client: Mapping[str, Any], users: Mapping[str, Account], service: Mapping[str, Account]
    ) -> Client:
        client_id = str(client["clientId"])
        lists = "defaultClientScopes", "optionalClientScopes"
        if any(client.get(name) is not None for name in lists):  # rule 5: one list given, and the other counts as empty
            default, optional = (list(client.get(name) or []) for name in lists)
        elif client_id in self.listed or self.given.get("clientScopes") is None:
            default, optional = list(self.default), list(self.optional)
        else:  # rule 34: Keycloak's own clients are there before the scopes of the file, and get only what a migration adds
            added = set() if client.get("bearerOnly") else self.scopes.keys() - self.names
            default, optional = ([name for name in one if name in added] for one in (self.default, self.optional))
        mappers = _mappers(client)
        account = service.get(client_id)
        if account is None and client.get("serviceAccountsEnabled"):
            account = self._service_account(client)
            if account.username in users:
                raise ConfigurationError(  # rule 16
                    f"Keycloak does not import realm {self.name!r}: the user {account.username} stands in the way of a service "
                    f"account, and has no serviceAccountClientId"
                )
            # Rule 4: if the server makes the account, it also sees to the claim client_id.
            default += ["service_account"] * (not self.old and "service_account" in self.names)
        if self.old and client.get("serviceAccountsEnabled"):  # where the account comes from is all the same to 26.0
            names = {mapper.name for mapper in mappers}
            own = _mappers({"protocolMappers": builtins.CLIENT_ID_MAPPERS})
            mappers += tuple(mapper for mapper in own if mapper.name not in names)
        found = {name: self.scopes[name] for name in default if name in self.scopes}
        consent = bool(client.get("consentRequired", False))
        full = client.get("fullScopeAllowed")
        secret = client.get("secret")
        return Client(
            id=client_id,
            protocol=client.get("protocol") or OIDC,
            enabled=client.get("enabled") is not False,
            secret=None if not secret or set(secret) == {"*"} else secret,  # an export masks it
            authenticator=client.get("clientAuthenticatorType") or "client-secret",
            public=bool(client.get("publicClient", False)),
            bearer_only=bool(client.get("bearerOnly", False)),
            service_accounts=bool(client.get("serviceAccountsEnabled", False)),
            direct_access=bool(client.get("directAccessGrantsEnabled", False)),
            consent=consent,
            full_scope=not consent if full is None else bool(full),  # rule 7
            attributes={
                name: str(value) for name, value in (client.get("attributes") or {}).items() if value is not None
            },
            web_origins=frozenset(one for one in _web_origins(client) if one or self.old),
            redirects=tuple(client.get("redirectUris") or ()),
            not_before=int(client.get("notBefore") or 0),
            own=Scope(name=client_id, mappers=mappers, roles=self.mapped.get(("client", client_id), frozenset())),
            default=found,
            # Rule 5: a name in both lists is a default one.
            optional={name: self.scopes[name] for name in optional if name in self.scopes and name not in found},
            account=account,
        )


def _identity_provider(provider: Mapping[str, Any]) -> IdentityProvider:
    return IdentityProvider(
        alias=str(provider.get("alias") or ""),
        kind=str(provider.get("providerId") or ""),
        enabled=provider.get("enabled") is not False,
        config={name: str(value) for name, value in (provider.get("config") or {}).items() if value is not None},
    )


def _values(given: Any) -> tuple[str, ...]:
    return tuple(str(value) for value in given) if isinstance(given, list) else (str(given),)


def _mappers(holder: Mapping[str, Any]) -> tuple[Mapper, ...]:
    return tuple(
        Mapper(
            name=str(mapper.get("name")),
            kind=str(mapper.get("protocolMapper")),
            # Rule 10: an empty string counts as absent.
            config={
                name: str(value) for name, value in (mapper.get("config") or {}).items() if value not in {None, ""}
            },
        )
        for mapper in holder.get("protocolMappers") or []
        if mapper.get("protocol") == OIDC
    )


def _web_origins(client: Mapping[str, Any]) -> Iterator[str]:
    redirects = list(client.get("redirectUris") or [])
    given = client.get("webOrigins")
    absolute = [uri for uri in redirects if uri.startswith(("http://", "https://"))]
    if given is None:
        yield from map(_origin, absolute)
        return
    yield from (origin for origin in given if origin != "+")
    if "+" in given:
        yield from map(_origin, absolute)
        if client.get("rootUrl") and len(absolute) < len(redirects):
            yield _origin(client["rootUrl"])


def _origin(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}"
