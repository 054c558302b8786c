"""What the tests of plans share: a realm to plan for, plans made and carried out there, and what the server then issues."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from example_app.realm import claims_of
from s2s_fastapi.declared.access_file import AppAccess
from s2s_fastapi.operations.admin import AdminApi, AdminTarget
from s2s_fastapi.operations.apply import apply_plan
from s2s_fastapi.operations.plan import Plan, make_plan, question_of
from s2s_fastapi.operations.snapshot import read_snapshot
from s2s_fastapi.operations.steps import MakeClient
from s2s_fastapi.operations.wanted import wanted
from tests.real.admin import PLAIN
from tests.real.server import Keycloak

__all__ = [
    "KEYS",
    "OPERATOR",
    "RIGHTS",
    "Secrets",
    "Watched",
    "applied",
    "carried_out",
    "comparable",
    "empty_realm",
    "environment_of",
    "issued",
    "operator_environment",
    "plan_for",
    "predicted",
    "target_in",
]

RIGHTS = ("view-clients", "view-users", "view-realm", "manage-clients", "manage-users")
OPERATOR = "operator"
_SECRET = "the-operators-secret"
KEYS = {
    "org.keycloak.keys.KeyProvider": [
        {"name": "rsa", "providerId": "rsa-generated", "config": {"priority": ["100"]}},
        {"name": "hmac", "providerId": "hmac-generated", "config": {"priority": ["100"], "algorithm": ["HS512"]}},
        {"name": "aes", "providerId": "aes-generated", "config": {"priority": ["100"]}},
    ]
}
"""The components of a realm with one key that signs, instead of four that sign and encrypt: it is made in a third of the time."""
_CLAIMS = ("aud", "client_id", "scope", "realm_access", "resource_access")


class Secrets:
    """The secret files of one realm: each plan names new ones, and the one that is carried out counts."""

    def __init__(self, folder: Path, known: Mapping[str, str] | None = None) -> None:
        """Take a folder, and the secrets of clients that are there."""
        self._folder = folder
        self._plans = 0
        self._known = dict(known or {})
        self._files: dict[str, Path] = {}

    def next(self) -> Path:
        """Return a folder for the files of the next plan."""
        self._plans += 1
        return self._folder / str(self._plans)

    def note(self, plan: Plan) -> None:
        """Take the files of a plan that is about to be carried out."""
        for step in plan.steps:
            if isinstance(step, MakeClient) and step.secret_file:
                self._files[step.client] = Path(step.secret_file)

    def note_folder(self, folder: Path) -> None:
        """Take the files that a command wrote."""
        self._files |= {file.name.removesuffix(".secret"): file for file in folder.glob("*.secret")}

    def of(self, client_id: str) -> str:
        """Return the secret of a client; "" if it never logs in."""
        file = self._files.get(client_id)
        return self._known.get(client_id, "") if file is None else file.read_text(encoding="ascii")


class Watched(httpx.BaseTransport):
    """The network of an `AdminApi`, with what happens before and after a request that writes. It counts from 1."""

    def __init__(self, *, before: Mapping[int, Callable[[], object]] | None = None, lost: Collection[int] = ()) -> None:
        """Take what is done before a write reaches the server, and whose answers get lost on their way back."""
        self.calls = 0
        self.writes = 0
        self.done = 0
        """How many of them succeeded."""
        self.statuses: list[int] = []
        self._before = dict(before or {})
        self._lost = lost
        self._inner = httpx.HTTPTransport(verify=PLAIN)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        self.calls += 1
        writes = request.method != "GET"
        if writes:
            self.writes += 1
            self._before.pop(self.writes, lambda: None)()
        answer = self._inner.handle_request(request)
        self.statuses.append(answer.status_code)
        self.done += writes and answer.is_success
        if writes and self.writes in self._lost:
            answer.read()  # the server is done
            answer.close()
            raise httpx.ReadError("the connection is lost", request=request)
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


@contextmanager
def empty_realm(
    keycloak: Keycloak, *, rights: tuple[str, ...] = RIGHTS, more: Mapping[str, Any] | None = None
) -> Iterator[AdminTarget]:
    """Lend a realm with nothing in it but the client of the operator, and what ``more`` says."""
    name = f"operations-{time.time_ns()}"
    operator = {"clientId": OPERATOR, "secret": _SECRET, "serviceAccountsEnabled": True, "fullScopeAllowed": True}
    account = {"username": f"service-account-{OPERATOR}", "enabled": True, "serviceAccountClientId": OPERATOR}
    roles = {"clientRoles": {"realm-management": list(rights)}}
    given = dict(more or {})
    realm = {
        **given,
        "realm": name,
        "enabled": True,
        "components": KEYS,
        "clients": [operator, *given.get("clients", ())],
        "users": [{**account, **roles}, *given.get("users", ())],
    }
    keycloak.admin.create_realm(realm)
    try:
        yield target_in(keycloak, name)
    finally:
        keycloak.admin.delete_realm(name)


def target_in(keycloak: Keycloak, realm: str, *, client_id: str = OPERATOR, secret: str = _SECRET) -> AdminTarget:
    """Return the target of plans for a realm of a server."""
    return AdminTarget.of(operator_environment(keycloak.url, realm, client_id=client_id, secret=secret))


def operator_environment(url: str, realm: str, *, client_id: str = OPERATOR, secret: str = _SECRET) -> dict[str, str]:
    """Return the variables with which an operator runs `plan` and `apply`."""
    return {
        "KEYCLOAK_URL": url,
        "KEYCLOAK_REALM": realm,
        "KEYCLOAK_ADMIN_CLIENT_ID": client_id,
        "KEYCLOAK_ADMIN_CLIENT_SECRET": secret,
    }


def plan_for(
    target: AdminTarget,
    *apps: AppAccess,
    secrets: Secrets,
    grants: tuple[str, ...] = (),
    transport: httpx.BaseTransport | None = None,
) -> Plan:
    """Read the realm and return the plan."""
    needed, findings = wanted(apps, grants, realm=target.realm)
    with AdminApi(target, transport=transport or Watched()) as api:
        snapshot = read_snapshot(api, question_of(needed))
    where = {"server": target.server, "issuer": target.issuer}
    folder = secrets.next()
    return make_plan(snapshot, needed, findings, **where, secret_file=lambda client: str(folder / f"{client}.secret"))


def carried_out(
    plan: Plan, target: AdminTarget, secrets: Secrets, transport: httpx.BaseTransport | None = None
) -> None:
    """Apply a plan."""
    secrets.note(plan)
    with AdminApi(target, transport=transport or Watched()) as api:
        apply_plan(plan, api)


def applied(
    target: AdminTarget,
    *apps: AppAccess,
    secrets: Secrets,
    grants: tuple[str, ...] = (),
) -> Plan:
    """Make a plan and apply it."""
    plan = plan_for(target, *apps, secrets=secrets, grants=grants)
    carried_out(plan, target, secrets)
    return plan


def environment_of(target: AdminTarget, client_id: str, secrets: Secrets) -> dict[str, str]:
    """Return the variables of a service."""
    given = {"KEYCLOAK_URL": target.server, "KEYCLOAK_REALM": target.realm, "KEYCLOAK_CLIENT_ID": client_id}
    secret = secrets.of(client_id)
    return {**given, "KEYCLOAK_CLIENT_SECRET": secret} if secret else given


def issued(
    target: AdminTarget, requests: Iterable[tuple[str, str | None]], secrets: Secrets
) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Return for each caller and scope the claims of a token that the server issues, of those that a plan predicts; none if it refuses the scope."""
    with httpx.Client(timeout=30, trust_env=False, verify=PLAIN) as http:
        return {request: comparable(_issued(http, target, *request, secrets=secrets)) for request in requests}


def _issued(
    http: httpx.Client, target: AdminTarget, client_id: str, scope: str | None, secrets: Secrets
) -> dict[str, Any]:
    form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secrets.of(client_id)}
    answer = http.post(
        f"{target.issuer}/protocol/openid-connect/token", data=form if scope is None else {**form, "scope": scope}
    )
    if answer.status_code == httpx.codes.BAD_REQUEST:
        assert answer.json()["error"] == "invalid_scope"
        return {}
    assert answer.is_success, f"{client_id}: {answer.status_code} {answer.text[:300]}"
    claims = claims_of(answer.json()["access_token"])
    return {name: claims[name] for name in _CLAIMS if name in claims}


def predicted(plan: Plan, *, before: bool = False) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Return the tokens after a plan, or before it, for each caller and each of its requests."""
    return {(token.caller, token.request): comparable(token.before if before else token.after) for token in plan.tokens}


def comparable(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims with their lists in order."""
    audience = claims.get("aud", [])
    found = {
        **claims,
        "aud": sorted([audience] if isinstance(audience, str) else audience),
        "scope": sorted(claims.get("scope", "").split()),
    }
    if "realm_access" in found:
        found["realm_access"] = {"roles": sorted(found["realm_access"]["roles"])}
    if "resource_access" in found:
        found["resource_access"] = {
            owner: {"roles": sorted(access["roles"])} for owner, access in found["resource_access"].items()
        }
    return found
