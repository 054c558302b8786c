"""An `apply` on a real server that does not get to its end: the next plan completes it, and nothing that was there is lost."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from s2s_fastapi import require_caller, require_realm_role, require_role, require_scope
from s2s_fastapi.declared.access_file import AccessFile
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.operations.admin import AdminError, AdminTarget
from s2s_fastapi.operations.plan import Plan
from s2s_fastapi.operations.steps import AssignScope, MakeClient, MakeRole
from tests.kit.declaring import caller, receiver
from tests.real.cutting import CuttingProxy
from tests.real.operating import (
    OPERATOR,
    RIGHTS,
    Secrets,
    Watched,
    applied,
    carried_out,
    empty_realm,
    issued,
    operator_environment,
    plan_for,
    predicted,
)
from tests.real.server import NEWEST, Keycloak

APPS = (
    receiver(
        "ledger",
        require_caller("reporter") & require_role("read") & require_scope("ledger:read"),
        require_caller("reporter", "auditor", "archive"),
        require_caller("auditor") & require_realm_role("partner"),
    ),
    caller("reporter", "ledger"),
    caller("auditor", "ledger", scope="for-the-ledger"),
    caller("archive", "ledger"),
)
IMPLIED = (AssignScope(client="reporter", scope="service_account"),)
"""What newer servers give together with the service account."""
GRANTS = ("auditor:realm-role=partner",)
SECRET = "the-secret-of-the-archive"
THERE: dict[str, Any] = {
    "clients": [
        {
            "clientId": "archive",
            "secret": SECRET,
            "serviceAccountsEnabled": True,
            "standardFlowEnabled": False,
            "fullScopeAllowed": False,
            "authorizationServicesEnabled": True,
            "defaultClientScopes": ["basic", "roles"],
            "optionalClientScopes": ["phone"],
        },
        # Its service account has to be switched on, by a PUT.
        {
            "clientId": "reporter",
            "secret": SECRET,
            "serviceAccountsEnabled": False,
            "standardFlowEnabled": False,
            "fullScopeAllowed": False,
            "redirectUris": ["https://reporter.example/back"],
            "attributes": {"owner": "the reporting team"},
        },
    ],
    "users": [
        {
            "username": "service-account-archive",
            "enabled": True,
            "serviceAccountClientId": "archive",
            "clientRoles": {"archive": ["keep"]},
        }
    ],
    "roles": {"client": {"archive": [{"name": "keep"}]}},
}
KNOWN = {"archive": SECRET, "reporter": SECRET}


@pytest.fixture(scope="module")
def proxy() -> Iterator[CuttingProxy]:
    with CuttingProxy().listening() as listening:
        yield listening


@pytest.fixture(scope="module")
def newest(keycloaks: Callable[[str], Keycloak]) -> Keycloak:
    return keycloaks(NEWEST)


class _Place:
    """A realm in which something was there before, and the apps that are declared."""

    def __init__(self, keycloak: Keycloak, target: AdminTarget, folder: Path) -> None:
        self.keycloak, self.target = keycloak, target
        self.secrets = Secrets(folder, KNOWN)
        self.declared: Any = {"grants": GRANTS, "secrets": self.secrets}
        self.before = self._exported()

    def plan(self) -> Plan:
        return plan_for(self.target, *APPS, **self.declared)

    def carry_out(self, plan: Plan, wire: Watched | None = None) -> None:
        carried_out(plan, self.target, self.secrets, wire)

    def complete(self) -> None:
        """Carry out what is left, and look at everything."""
        plan = applied(self.target, *APPS, **self.declared)
        again = self.plan()
        assert again.steps == ()
        assert not again.open
        tokens = predicted(plan)
        assert tokens == issued(self.target, tokens, self.secrets)
        assert tokens["reporter", None]["resource_access"] == {"ledger": {"roles": ["read"]}}
        assert tokens["auditor", "for-the-ledger"]["realm_access"] == {"roles": ["partner"]}
        assert lost(self.before, self._exported()) == []

    def _exported(self) -> Any:
        exported: dict[str, Any] = self.keycloak.admin.export_realm(self.target.realm)
        for client in exported["clients"]:  # what the plan is there to change
            if client["clientId"] == "reporter":
                del client["serviceAccountsEnabled"]
        return exported


@contextlib.contextmanager
def _place(keycloak: Keycloak, folder: Path) -> Iterator[_Place]:
    with empty_realm(keycloak, rights=(*RIGHTS, "manage-realm"), more=THERE) as target:
        yield _Place(keycloak, target, folder)


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """Return what was there and is not any more, or is another."""
    if isinstance(before, dict) and isinstance(after, dict):
        gone = [f"{path}/{name}" for name in before.keys() - after.keys()]
        return gone + [
            one for name in before.keys() & after.keys() for one in lost(before[name], after[name], f"{path}/{name}")
        ]
    if isinstance(before, list) and isinstance(after, list):
        there = {_key(one): one for one in after}
        return [
            line
            for one in before
            for line in (
                lost(one, there[_key(one)], f"{path}/{_key(one)}") if _key(one) in there else [f"{path}/{_key(one)}"]
            )
        ]
    return [] if before == after else [f"{path}: {before} is {after}"]


def _key(entry: Any) -> str:
    if isinstance(entry, dict):
        names = ("id", "clientId", "name", "username", "alias", "client", "clientScope")
        return next((str(entry[name]) for name in names if entry.get(name)), json.dumps(entry, sort_keys=True))
    return str(entry)


def test_what_is_lost_is_seen() -> None:
    before = {"clients": [{"clientId": "a", "roles": ["x", "y"], "enabled": True}]}
    assert lost(before, {"clients": [{"clientId": "b"}, {"clientId": "a", "roles": ["y", "x"], "enabled": True}]}) == []
    assert lost(before, {"clients": [{"clientId": "a", "roles": ["x"], "enabled": False}]}) != []
    assert lost(before, {"clients": []}) == ["/clients/a"]


def test_an_apply_that_is_killed_again_and_again_is_completed_by_the_next_plan(
    newest: Keycloak, proxy: CuttingProxy, tmp_path: Path
) -> None:
    with _place(newest, tmp_path) as place:
        access = tmp_path / "access.json"
        access.write_text(AccessFile(APPS).text, encoding="utf-8")
        # At a write that the server has not seen, and at two whose answers nobody hears: the process is dead by then.
        for number, (at, acted) in enumerate([(3, False), (2, True), (4, True)]):
            plan, folder = place.plan(), tmp_path / f"secrets-{number}"
            _kill_an_apply(place.target, proxy, access, folder, at=at, acted=acted)
            place.secrets.note_folder(folder)
            assert _left(place.plan()) == _left(plan, at if acted else at - 1) != []
        place.complete()


def _left(plan: Plan, done: int = 0) -> list[str]:
    """Return what is left after so many steps, without what newer servers do by themselves.

    Which scope brings an audience may be another one: the next plan takes a scope that is there by now.
    """
    return [step.do for step in plan.steps[done:] if step not in IMPLIED]


def _kill_an_apply(
    target: AdminTarget, proxy: CuttingProxy, access: Path, folder: Path, *, at: int, acted: bool
) -> None:
    """Run the command in a process of its own, through the proxy, and kill it at a write."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KEYCLOAK_", "KC_"))}
    grants = [part for grant in GRANTS for part in ("--grant", grant)]
    process = subprocess.Popen(
        [sys.executable, "-m", "s2s_fastapi.cli", "apply", str(access), "--yes", "--secrets", str(folder), *grants],
        env={**environment, **operator_environment(target.server, target.realm), "KEYCLOAK_PROXY": proxy.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def kill() -> None:
        process.kill()
        process.wait(30)

    with proxy.cutting(at, acted=acted, then=kill):
        said, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, said


def test_an_answer_that_is_lost_at_any_write_is_made_good_by_the_next_plan(keycloak: Keycloak, tmp_path: Path) -> None:
    with _place(keycloak, tmp_path) as place:
        number = 0
        while (plan := place.plan()).steps:
            number += 1
            # Each time one more write gets through, and the answer to the last one is lost.
            wire = Watched(lost={1 + number})
            with contextlib.suppress(AdminError):
                place.carry_out(plan, wire)
            assert number < 10
        assert number > 1
        place.complete()


def test_a_token_that_expires_in_the_middle_is_replaced_and_a_log_in_that_is_taken_away_is_said(
    newest: Keycloak, tmp_path: Path
) -> None:
    with _place(newest, tmp_path) as place:
        realm = place.target.realm
        newest.admin.update_client(realm, OPERATOR, attributes={"access.token.lifespan": "2"})
        plan = place.plan()

        def take_away() -> None:
            newest.admin.update_client(realm, OPERATOR, enabled=False)

        expired = Watched(before={3: lambda: time.sleep(2.1), 6: take_away})
        with pytest.raises(AdminError, match=r"refuses the token|cannot log in"):
            place.carry_out(plan, expired)
        assert expired.done >= 4  # the one at which it expired got through
        newest.admin.update_client(realm, OPERATOR, enabled=True, attributes={"access.token.lifespan": "60"})
        left = place.plan()
        assert _left(left) == _left(plan, expired.done)

        def revoke() -> None:
            newest.admin.set_not_before(realm, int(time.time()) + 1)
            time.sleep(1.1)

        revoked = Watched(before={2: revoke})
        try:
            place.carry_out(left, revoked)
        except AdminError as error:  # unless the token was older than the 10 s within which no other one is requested
            assert str(error).endswith("run the command again.")  # noqa: PT017 - both may happen
            assert revoked.done == 1
        assert 401 in revoked.statuses
        newest.admin.set_not_before(realm, 0)
        place.complete()


def test_what_another_admin_does_in_the_meantime_is_seen(newest: Keycloak, tmp_path: Path) -> None:
    """Between the plan and `apply`: nothing is written. After `apply` has read the realm: the same is taken, another is not."""
    with _place(newest, tmp_path) as place:
        admin, realm = newest.admin, place.target.realm
        plan = place.plan()
        admin.request("POST", f"/{realm}/client-scopes", {"name": "for-the-ledger", "protocol": "openid-connect"})
        wire = Watched()
        with pytest.raises(ConfigurationError, match="The realm has changed since the plan was made"):
            place.carry_out(plan, wire)
        assert wire.writes == 0
        admin.request("DELETE", f"/{realm}/client-scopes/{admin.scope(realm, 'for-the-ledger')['id']}")

        def make_scope() -> None:
            admin.request("POST", f"/{realm}/client-scopes", {"name": "for-the-ledger", "protocol": "openid-connect"})

        with pytest.raises(AdminError, match="It is not what the plan makes: make the plan again"):
            place.carry_out(plan, Watched(before={1: make_scope}))
        admin.request("DELETE", f"/{realm}/client-scopes/{admin.scope(realm, 'for-the-ledger')['id']}")

        plan = place.plan()
        at, made = next(
            (number, step)
            for number, step in enumerate(plan.steps, start=1)
            if isinstance(step, MakeClient) and step.secret_file
        )
        client = made.client

        def make_client() -> None:
            admin.request("POST", f"/{realm}/clients", {"clientId": client, "secret": "somebody-elses"})

        with pytest.raises(AdminError):
            place.carry_out(plan, Watched(before={at: make_client}))
        assert not list(Path(made.secret_file).parent.glob("*.secret"))
        assert (
            admin.get(f"/{realm}/clients/{admin.client(realm, client)['id']}/client-secret")["value"]
            == "somebody-elses"
        )
        admin.request("DELETE", f"/{realm}/clients/{admin.client(realm, client)['id']}")

        plan = place.plan()

        def make_role() -> None:
            ledger = admin.client(realm, "ledger")["id"]
            admin.request("POST", f"/{realm}/clients/{ledger}/roles", {"name": "read"})

        at = next(
            number for number, step in enumerate(plan.steps, start=1) if isinstance(step, MakeRole) and step.owner
        )
        wire = Watched(before={at: make_role})
        place.carry_out(plan, wire)
        assert wire.statuses.count(409) == 1
        place.complete()
