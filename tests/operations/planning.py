"""A plan for a `FakeKeycloak`, and the same carried out."""

from s2s_fastapi.declared.access_file import AppAccess
from s2s_fastapi.operations.admin import AdminApi
from s2s_fastapi.operations.apply import apply_plan
from s2s_fastapi.operations.plan import Plan, make_plan, question_of
from s2s_fastapi.operations.snapshot import read_snapshot
from s2s_fastapi.operations.wanted import wanted

__all__ = ["applied", "plan_for", "steps_of"]


def plan_for(api: AdminApi, *apps: AppAccess, grant: tuple[str, ...] = (), secrets: str = "/nowhere") -> Plan:
    found, findings = wanted(apps, grant, realm=api.target.realm)
    snapshot = read_snapshot(api, question_of(found))
    target = api.target
    return make_plan(
        snapshot,
        found,
        findings,
        server=target.server,
        issuer=target.issuer,
        secret_file=lambda name: f"{secrets}/{name}.secret",
    )


def applied(api: AdminApi, *apps: AppAccess, secrets: str, grant: tuple[str, ...] = ()) -> Plan:
    plan = plan_for(api, *apps, grant=grant, secrets=secrets)
    apply_plan(plan, api)
    return plan


def steps_of(plan: Plan) -> list[str]:
    return [str(step).partition("; its new secret")[0].removesuffix(".") for step in plan.steps]
