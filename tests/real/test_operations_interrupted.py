"""An `apply` on a real server that does not get to its end: the next plan completes it, and nothing that was there is lost."""

import contextlib
import json
import os
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
        total = len(place.plan().steps)
        # At a write that the server has not seen, and at one whose answer nobody hears: the process is dead by then.
        for number, (at, acted) in enumerate([(1, False), (2, True), (3, True), (4, False), (2, True)]):
            plan, folder = tmp_path / f"{number}.json", tmp_path / f"secrets-{number}"
            _run(place.target, proxy, "plan", str(access), "--secrets", str(folder), "--out", str(plan), ends=1)
            left = len(json.loads(plan.read_text())["steps"])
            _run(place.target, proxy, "apply", "--plan", str(plan), "--secrets", str(folder), killed=(at, acted))
            now = place.plan()
            assert len(now.steps) == left - at + acted or acted  # a step may be done although its answer was not heard
            assert len(now.steps) < left or not acted
            place.secrets.note_folder(folder)
        assert 0 < len(place.plan().steps) < total
        place.complete()


def _run(
    target: AdminTarget,
    proxy: CuttingProxy,
    *command: str,
    ends: int | None = None,
    killed: tuple[int, bool] | None = None,
) -> None:
    """Run the command in a process of its own, through the proxy, and kill it at a write if so wished."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KEYCLOAK_", "KC_"))}
    environment |= {**operator_environment(target.server, target.realm), "KEYCLOAK_PROXY": proxy.url}
    grants = [part for grant in GRANTS if command[0] == "plan" for part in ("--grant", grant)]
    process = subprocess.Popen(
        [sys.executable, "-m", "s2s_fastapi.cli", *command, *grants],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if killed is not None:
        at, acted = killed

        def kill() -> None:
            process.kill()
            process.wait(30)

        proxy.cut(at, acted=acted, then=kill)
    said, _ = process.communicate(timeout=120)
    proxy.cut(0, acted=True)
    assert process.returncode == (-9 if killed else ends), said


def test_an_answer_that_is_lost_at_any_write_is_made_good_by_the_next_plan(keycloak: Keycloak, tmp_path: Path) -> None:
    with _place(keycloak, tmp_path) as place:
        number = 0
        while (plan := place.plan()).steps:
            number += 1
            # Each time one more write gets through, and the answer to the last one is lost.
            wire = Watched(lost={1 + number % 3})
            with contextlib.suppress(AdminError):
                place.carry_out(plan, wire)
            assert number <= 20
        assert number > 3
        place.complete()


def test_a_token_that_is_revoked_in_the_middle_is_replaced(newest: Keycloak, tmp_path: Path) -> None:
    with _place(newest, tmp_path) as place:
        plan = place.plan()

        def revoke() -> None:
            until = int(time.time()) + 1  # Keycloak counts in whole seconds
            time.sleep(until - time.time())
            newest.admin.set_not_before(place.target.realm, until)

        wire = Watched(before={4: revoke})
        place.carry_out(plan, wire)

        assert wire.statuses.count(401) == 1
        assert wire.writes >= len(plan.steps) + 1
        newest.admin.set_not_before(place.target.realm, 0)
        place.complete()


def test_an_operator_that_is_locked_out_in_the_middle_is_told_and_the_next_plan_has_the_rest(
    newest: Keycloak, tmp_path: Path
) -> None:
    with _place(newest, tmp_path) as place:
        plan = place.plan()

        def lock_out() -> None:
            newest.admin.update_client(place.target.realm, OPERATOR, enabled=False)

        with pytest.raises(AdminError, match="The admin client cannot log in"):
            place.carry_out(plan, Watched(before={5: lock_out}))
        newest.admin.update_client(place.target.realm, OPERATOR, enabled=True)

        assert len(place.plan().steps) == len(plan.steps) - 4
        place.complete()


def test_what_another_admin_does_in_the_meantime_is_seen(newest: Keycloak, tmp_path: Path) -> None:
    """Between the plan and `apply`: nothing is written. After `apply` has read the realm: the same is taken, another is not."""
    with _place(newest, tmp_path) as place:
        admin, realm = newest.admin, place.target.realm
        plan = place.plan()
        order = [step.do for step in plan.steps]
        first_client, first_role = (1 + order.index(kind) for kind in ("make_client", "make_role"))
        admin.request("POST", f"/{realm}/client-scopes", {"name": "for-the-ledger", "protocol": "openid-connect"})
        wire = Watched()
        with pytest.raises(ConfigurationError, match="The realm has changed since the plan was made"):
            place.carry_out(plan, wire)
        assert wire.writes == 0
        admin.request("DELETE", f"/{realm}/client-scopes/{admin.scope(realm, 'for-the-ledger')['id']}")

        def make_scope() -> None:
            admin.request("POST", f"/{realm}/client-scopes", {"name": "for-the-ledger", "protocol": "openid-connect"})

        with pytest.raises(AdminError, match="It is not what the plan makes: make the plan again"):
            place.carry_out(plan, Watched(before={1 + order.index("make_scope"): make_scope}))

        plan = place.plan()
        order = [step.do for step in plan.steps]
        client = next(step.client for step in plan.steps if step.do == "make_client" and step.secret_file)

        def make_client() -> None:
            admin.request("POST", f"/{realm}/clients", {"clientId": client, "secret": "somebody-elses"})

        at = next(
            number
            for number, step in enumerate(plan.steps, start=1)
            if step.do == "make_client" and step.client == client
        )
        with pytest.raises(AdminError):
            place.carry_out(plan, Watched(before={at: make_client}))
        assert not list(Path(plan.steps[at - 1].secret_file).parent.glob("*.secret"))
        assert (
            admin.get(f"/{realm}/clients/{admin.client(realm, client)['id']}/client-secret")["value"]
            == "somebody-elses"
        )
        admin.request("DELETE", f"/{realm}/clients/{admin.client(realm, client)['id']}")

        plan = place.plan()

        def make_role() -> None:
            ledger = admin.client(realm, "ledger")["id"]
            admin.request("POST", f"/{realm}/clients/{ledger}/roles", {"name": "read"})

        at = next(number for number, step in enumerate(plan.steps, start=1) if step.do == "make_role" and step.owner)
        wire = Watched(before={at: make_role})
        place.carry_out(plan, wire)
        assert wire.statuses.count(409) == 1
        place.complete()
