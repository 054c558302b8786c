"""A Keycloak with nothing but the Admin API, in this process: for tests of what plans and applies.

It holds a realm as Keycloak answers it, and does what Keycloak does that one would not expect:

- a scope that is in one list of a client is not moved by a PUT to the other: 204, and nothing happens;
- 26.0 makes the service account anew, without its roles, at a PUT of a client without ``serviceAccountsEnabled``;
- a PUT of a client without ``authorizationServicesEnabled`` deletes its authorization settings;
- a search for a client finds one whose id differs in case, as some databases compare;
- a client that may only query is answered 200 with an empty list.
"""

import copy
import json
import re
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qs, unquote

import httpx

from s2s_fastapi.operations.admin import AdminApi, AdminTarget
from s2s_fastapi.realm import builtins

__all__ = ["FakeKeycloak", "target_of"]

Object = dict[str, Any]
VIEW = frozenset({"view-clients", "view-users", "view-realm"})
PROVIDERS = frozenset({"view-identity-providers", "manage-identity-providers"})
MANAGE = frozenset({*VIEW, *PROVIDERS, "manage-clients", "manage-users", "manage-realm"})


def target_of(realm: str = "corp") -> AdminTarget:
    return AdminTarget.of(
        {
            "KEYCLOAK_URL": "http://keycloak.test",
            "KEYCLOAK_REALM": realm,
            "KEYCLOAK_ADMIN_CLIENT_ID": "planner",
            "KEYCLOAK_ADMIN_CLIENT_SECRET": "the-planners-secret",
        }
    )


@dataclass
class FakeKeycloak:
    realm: str = "corp"
    old: bool = False
    """Whether it is 26.0."""
    rights: frozenset[str] = MANAGE
    settings: dict[str, Any] = field(default_factory=dict)
    """More settings of the realm."""
    clients: dict[str, Object] = field(default_factory=dict)
    """By id, as the other objects."""
    scopes: dict[str, Object] = field(default_factory=dict)
    roles: dict[str, Object] = field(default_factory=dict)
    accounts: dict[str, str] = field(default_factory=dict)
    """The client of each service account."""
    granted: dict[str, set[str]] = field(default_factory=dict)
    """The roles of each service account."""
    mapped: dict[str, set[str]] = field(default_factory=dict)
    """The roles that are mapped to each client and scope."""
    inside: dict[str, set[str]] = field(default_factory=dict)
    groups: dict[str, Object] = field(default_factory=dict)
    """By id, each with the group that it is in as ``parentId``. The roles of a group are in ``granted``, as those of an account."""
    members: dict[str, list[str]] = field(default_factory=dict)
    """The groups of each service account."""
    example: Object = field(default_factory=dict)
    """The example token that the server makes for any client."""
    providers: list[Object] = field(default_factory=list)
    """The identity providers."""
    policies: list[Object] = field(default_factory=list)
    profiles: list[Object] = field(default_factory=list)
    of_new_clients: dict[str, list[str]] = field(default_factory=dict)
    """The scopes of clients that are made without any: ``default`` and ``optional``."""
    largest_page: int = 1_000
    """How many entries a page has at most, whatever is asked."""
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    before: Callable[[str, str], httpx.Response | None] = lambda method, path: None
    """Answers in the place of the server, if it returns something."""
    _numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        # Copied: a test changes what is in this realm.
        every, default, optional = copy.deepcopy(builtins.scopes(service_account=not self.old))
        for scope in every:
            self._new(self.scopes, {**scope})
        self._new(self.scopes, {"name": "offline_access", "protocol": "openid-connect"})
        self.default_role = self.add_role("", f"default-roles-{self.realm}")
        self.of_new_clients = {"default": list(default), "optional": list(optional)}
        for client in copy.deepcopy(builtins.CLIENTS):
            self.add_client(**{**client, "defaultClientScopes": default, "optionalClientScopes": optional})
        for name in ("manage-users", "realm-admin"):
            self.add_role("realm-management", name)
        self.calls.clear()

    # What a test makes and changes

    def add_client(self, **client: Any) -> str:
        made = {
            "enabled": True,
            "protocol": "openid-connect",
            "publicClient": False,
            "fullScopeAllowed": True,
            **client,
        }
        lists = {
            name: [one for one in made.get(name, ()) if self.scope_id(one)]
            for name in ("defaultClientScopes", "optionalClientScopes")
        }
        made = {"secret": "made-by-keycloak", **made, **lists}
        uuid = self._new(self.clients, made)
        if made.get("serviceAccountsEnabled"):
            self._new_account(uuid)
        return uuid

    def add_role(self, client: str, name: str) -> str:
        return self._new(self.roles, {"name": name, "owner": self.client_id(client) if client else ""})

    def add_scope(self, name: str, *audiences: str, **more: Any) -> str:
        mappers = [
            {
                "id": f"mapper-{name}-{audience}",
                "name": f"audience {audience}",
                "protocolMapper": "oidc-audience-mapper",
                "config": {"included.client.audience": audience, "access.token.claim": "true"},
            }
            for audience in audiences
        ]
        return self._new(self.scopes, {"name": name, "protocol": "openid-connect", "protocolMappers": mappers, **more})

    def add_group(self, name: str, *roles: str, inside: str = "") -> str:
        group = self._new(self.groups, {"name": name, **({"parentId": inside} if inside else {})})
        self.granted[group] = set(roles)
        return group

    def account_of(self, client_id: str) -> str:
        return next(account for account, client in self.accounts.items() if client == self.client_id(client_id))

    def client(self, client_id: str) -> Object:
        return self.clients[self.client_id(client_id)]

    def client_id(self, name: str) -> str:
        return next((uuid for uuid, client in self.clients.items() if client["clientId"] == name), "")

    def scope(self, name: str) -> Object:
        return self.scopes[self.scope_id(name)]

    def scope_id(self, name: str) -> str:
        return next((uuid for uuid, scope in self.scopes.items() if scope["name"] == name), "")

    def roles_of(self, client_id: str) -> set[tuple[str, str]]:
        """Return the roles of a client's service account, each with its client."""
        return {(self._owner(role), self.roles[role]["name"]) for role in self.granted[self.account_of(client_id)]}

    def delete_role(self, name: str) -> None:
        uuid = next(uuid for uuid, role in self.roles.items() if role["name"] == name)
        del self.roles[uuid]
        for holders in (self.granted, self.mapped, self.inside):
            for roles in holders.values():
                roles.discard(uuid)

    def delete_scope(self, name: str) -> None:
        del self.scopes[self.scope_id(name)]
        for client in self.clients.values():
            for lists in ("defaultClientScopes", "optionalClientScopes"):
                client[lists] = [one for one in client[lists] if one != name]

    def writes(self) -> list[str]:
        """Return what was sent that changes something."""
        return [f"{method} {path}" for method, path, _ in self.calls if method != "GET"]

    @contextmanager
    def serving(self) -> Iterator[dict[str, str]]:
        """Answer on a loopback socket, log-in included, and give the environment of a command."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path.endswith("/openid-connect/token"):
                    given = httpx.Response(
                        200, json={"access_token": _token(), "expires_in": 300, "token_type": "Bearer"}
                    )
                else:
                    url = f"http://{self.headers['Host']}{self.path}"
                    given = fake.answer(httpx.Request(self.command, url, content=content))
                self.send_response(given.status_code)
                for name in ("Location", "Content-Type"):
                    if name in given.headers:
                        self.send_header(name, given.headers[name])
                self.send_header("Content-Length", str(len(given.content)))
                self.end_headers()
                self.wfile.write(given.content)

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the names of http.server

            def log_message(self, *_: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield {
                    "KEYCLOAK_URL": f"http://127.0.0.1:{server.server_address[1]}",
                    "KEYCLOAK_REALM": self.realm,
                    "KEYCLOAK_ADMIN_CLIENT_ID": "planner",
                    "KEYCLOAK_ADMIN_CLIENT_SECRET": "the-planners-secret",
                }
            finally:
                server.shutdown()
                thread.join()

    def api(self, token: str = "a-token") -> AdminApi:
        return AdminApi(target_of(self.realm), token=lambda: token, transport=httpx.MockTransport(self.answer))

    # What it answers

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().partition("?")[0]
        query = {name: values[0] for name, values in parse_qs(request.url.query.decode()).items()}
        body = json.loads(request.content) if request.content else None
        self.calls.append((request.method, path, body))
        if (given := self.before(request.method, path)) is not None:
            return given
        if path == "/admin/serverinfo":
            features = [] if self.old else ["TOKEN_EXCHANGE_STANDARD_V2"]
            return httpx.Response(200, json={"profileInfo": {"disabledFeatures": ["SCRIPTS", *features]}})
        root = f"/admin/realms/{self.realm}"
        if path != root and not path.startswith(f"{root}/"):
            return httpx.Response(404, json={"error": "Realm not found."})
        parts = [unquote(part) for part in path.removeprefix(root).split("/")[1:]]
        for method, pattern, right, handler in _ROUTES:
            found = re.fullmatch(pattern, "/".join(parts))
            if method == request.method and found:
                if right and right not in self.rights:
                    return httpx.Response(403, json={"error": "HTTP 403 Forbidden"})
                answer: httpx.Response = handler(self, *found.groups(), query=query, body=body)
                return answer
        return httpx.Response(405, json={"error": f"{request.method} {parts}"})

    def _new(self, into: dict[str, Object], one: Object) -> str:
        uuid = str(one.get("id") or f"id-{next(self._numbers)}")  # Keycloak takes an id that is sent
        into[uuid] = {**one, "id": uuid}
        return uuid

    def _new_account(self, client: str) -> None:
        account = f"account-{next(self._numbers)}"
        self.accounts[account] = client
        self.granted[account] = {self.default_role}
        if not self.old and "service_account" not in self.clients[client]["defaultClientScopes"]:
            self.clients[client]["defaultClientScopes"].append("service_account")

    def _page(self, found: list[Object], query: dict[str, str]) -> httpx.Response:
        first = int(query.get("first", 0))
        return _ok(
            found[first : first + min(int(query["max"]), self.largest_page)] if "max" in query else found[first:]
        )

    def _owner(self, role: str) -> str:
        owner = self.roles[role]["owner"]
        return self.clients[owner]["clientId"] if owner else ""

    def _role_json(self, role: str) -> Object:
        owner = self.roles[role]["owner"]
        return {
            "id": role,
            "name": self.roles[role]["name"],
            "clientRole": bool(owner),
            "containerId": owner or self.realm,
        }

    def _mappings(self, roles: set[str]) -> Object:
        realm = [self._role_json(role) for role in sorted(roles) if not self.roles[role]["owner"]]
        by_client: dict[str, Object] = {}
        for role in sorted(roles):
            if owner := self._owner(role):
                entry = by_client.setdefault(owner, {"client": owner, "mappings": []})
                entry["mappings"].append(self._role_json(role))
        return {"realmMappings": realm, "clientMappings": by_client}


def _token() -> str:
    claims = {"azp": "planner", "iss": "x", "iat": int(time.time()), "exp": int(time.time()) + 300}
    parts = ({"alg": "RS256", "typ": "JWT"}, claims)
    return ".".join([*(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), "c2ln"])


def _ok(content: Any = None) -> httpx.Response:
    return httpx.Response(204) if content is None else httpx.Response(200, json=content)


def _created(uuid: str) -> httpx.Response:
    return httpx.Response(201, headers={"Location": f"http://keycloak.test/admin/{uuid}"})


def _conflict(text: str) -> httpx.Response:
    return httpx.Response(409, json={"errorMessage": text})


def _realm(server: FakeKeycloak, **_: Any) -> httpx.Response:
    few = {"id": "the-realms-id", "realm": server.realm, "enabled": True}
    more = {
        "accessTokenLifespan": 300,
        "smtpServer": {"password": "smtp-secret"},
        "defaultRole": {"id": server.default_role, "name": f"default-roles-{server.realm}"},
        **server.settings,
    }
    return _ok({**few, **(more if "view-realm" in server.rights else {})})


def _clients(server: FakeKeycloak, query: dict[str, str], **_: Any) -> httpx.Response:
    if "view-clients" not in server.rights:
        return _ok([])
    found = sorted(server.clients.values(), key=lambda client: str(client["clientId"]))
    name = query.get("clientId")
    return server._page(
        [client for client in found if name is None or client["clientId"].lower() == name.lower()], query
    )


def _make_client(server: FakeKeycloak, body: Object, **_: Any) -> httpx.Response:
    if server.client_id(body["clientId"]):
        return _conflict(f"Client {body['clientId']} already exists")
    return _created(server.add_client(**body))


def _put_client(server: FakeKeycloak, uuid: str, body: Object, **_: Any) -> httpx.Response:
    client = server.clients[uuid]
    account = next((one for one, owner in server.accounts.items() if owner == uuid), None)
    on = body.get("serviceAccountsEnabled", not server.old and client.get("serviceAccountsEnabled", False))
    if account and (not on or (server.old and "serviceAccountsEnabled" not in body)):
        del server.accounts[account], server.granted[account]
        account = None
    if not body.get("authorizationServicesEnabled"):
        client.pop("authorizationSettings", None)
    attributes = {**client.get("attributes", {}), **body.get("attributes", {})}
    client |= {name: value for name, value in body.items() if not name.endswith("ClientScopes")}
    client |= {"attributes": attributes} if attributes else {}
    if client.get("serviceAccountsEnabled") and account is None:
        server._new_account(uuid)
    return _ok()


def _make_provider(server: FakeKeycloak, body: Object, **_: Any) -> httpx.Response:
    if body["alias"] in [provider["alias"] for provider in server.providers]:
        return _conflict(f"Identity Provider {body['alias']} already exists")
    server.providers.append(body)
    return _created(body["alias"])


def _link(server: FakeKeycloak, uuid: str, kind: str, scope: str, **_: Any) -> httpx.Response:
    client, name = server.clients[uuid], server.scopes[scope]["name"]
    if name not in (*client["defaultClientScopes"], *client["optionalClientScopes"]):
        client[f"{kind}ClientScopes"].append(name)
    return _ok()


def _unlink(server: FakeKeycloak, uuid: str, kind: str, scope: str, **_: Any) -> httpx.Response:
    client = server.clients[uuid]
    client[f"{kind}ClientScopes"] = [
        one for one in client[f"{kind}ClientScopes"] if one != server.scopes[scope]["name"]
    ]
    return _ok()


def _make_scope(server: FakeKeycloak, body: Object, **_: Any) -> httpx.Response:
    if server.scope_id(body["name"]):
        return _conflict(f"Client Scope {body['name']} already exists")
    return _created(server._new(server.scopes, body))


def _add_mapper(server: FakeKeycloak, uuid: str, body: Object, **_: Any) -> httpx.Response:
    mappers = server.scopes[uuid].setdefault("protocolMappers", [])
    if body["name"] in [mapper["name"] for mapper in mappers]:
        return _conflict("Protocol mapper exists with same name")
    mappers.append(body)
    return _created("mapper")


def _roles(server: FakeKeycloak, uuid: str = "", *, query: dict[str, str], **_: Any) -> httpx.Response:
    return server._page([server._role_json(role) for role, it in server.roles.items() if it["owner"] == uuid], query)


def _make_role(server: FakeKeycloak, uuid: str = "", *, body: Object, **_: Any) -> httpx.Response:
    if any(it["owner"] == uuid and it["name"] == body["name"] for it in server.roles.values()):
        return _conflict(f"Role with name {body['name']} already exists")
    return _created(server._new(server.roles, {"name": body["name"], "owner": uuid}))


def _account(server: FakeKeycloak, uuid: str, **_: Any) -> httpx.Response:
    account = next((one for one, owner in server.accounts.items() if owner == uuid), None)
    if account is None:
        return httpx.Response(404, json={"error": "Service account not enabled"})
    return _ok({"id": account, "username": f"service-account-{server.clients[uuid]['clientId']}", "enabled": True})


def _mapped(server: FakeKeycloak, uuid: str, **_: Any) -> httpx.Response:
    return _ok(server._mappings(server.mapped.get(uuid, set())))


def _map(server: FakeKeycloak, uuid: str, body: list[Object], **_: Any) -> httpx.Response:
    server.mapped.setdefault(uuid, set()).update(role["id"] for role in body)
    return _ok()


def _grant(server: FakeKeycloak, account: str, body: list[Object], **_: Any) -> httpx.Response:
    server.granted[account].update(role["id"] for role in body)
    return _ok()


_LINK = r"clients/([^/]+)/(default|optional)-client-scopes/([^/]+)"
_ROUTES: list[tuple[str, str, str, Callable[..., httpx.Response]]] = [
    ("GET", "", "", _realm),
    ("GET", "clients", "", _clients),
    ("POST", "clients", "manage-clients", _make_client),
    ("GET", "clients/([^/]+)", "view-clients", lambda server, uuid, **_: _ok(server.clients[uuid])),
    ("PUT", "clients/([^/]+)", "manage-clients", _put_client),
    ("PUT", _LINK, "manage-clients", _link),
    ("DELETE", _LINK, "manage-clients", _unlink),
    ("GET", "client-scopes", "view-clients", lambda server, **_: _ok(list(server.scopes.values()))),
    (
        "GET",
        "default-(default|optional)-client-scopes",
        "view-clients",
        lambda server, kind, **_: _ok(
            [server.scope(name) for name in server.of_new_clients[kind] if server.scope_id(name)]
        ),
    ),
    ("POST", "client-scopes", "manage-clients", _make_scope),
    ("POST", "client-scopes/([^/]+)/protocol-mappers/models", "manage-clients", _add_mapper),
    ("GET", "client-scopes/([^/]+)/scope-mappings", "view-clients", _mapped),
    ("GET", "clients/([^/]+)/scope-mappings", "view-clients", _mapped),
    ("POST", "clients/([^/]+)/scope-mappings/(?:realm|clients/[^/]+)", "manage-clients", _map),
    ("GET", "clients/([^/]+)/service-account-user", "view-clients", _account),
    ("GET", "clients/([^/]+)/roles", "view-clients", _roles),
    ("POST", "clients/([^/]+)/roles", "manage-clients", _make_role),
    ("GET", "roles", "view-realm", _roles),
    ("POST", "roles", "manage-realm", _make_role),
    (
        "GET",
        "roles-by-id/([^/]+)/composites",
        "view-realm",
        lambda server, role, **_: _ok([server._role_json(one) for one in sorted(server.inside.get(role, ()))]),
    ),
    (
        "GET",
        "(?:users|groups)/([^/]+)/role-mappings",
        "view-users",
        lambda server, user, **_: _ok(server._mappings(server.granted[user])),
    ),
    (
        "GET",
        "users/([^/]+)/groups",
        "view-users",
        lambda server, user, **_: _ok([server.groups[group] for group in server.members.get(user, ())]),
    ),
    ("GET", "groups/([^/]+)", "view-users", lambda server, group, **_: _ok(server.groups[group])),
    (
        "GET",
        "clients/[^/]+/evaluate-scopes/generate-example-access-token",
        "view-clients",
        lambda server, **_: _ok(server.example),
    ),
    ("POST", "users/([^/]+)/role-mappings/(?:realm|clients/[^/]+)", "manage-users", _grant),
    (
        "GET",
        "identity-provider/instances",
        "view-identity-providers",
        lambda server, **_: _ok(server.providers),
    ),
    ("POST", "identity-provider/instances", "manage-identity-providers", _make_provider),
    ("GET", "client-policies/policies", "view-realm", lambda server, **_: _ok({"policies": server.policies})),
    ("GET", "client-policies/profiles", "view-realm", lambda server, **_: _ok({"profiles": server.profiles})),
]
