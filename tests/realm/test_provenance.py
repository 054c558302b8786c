"""Where the audiences and roles of a predicted token come from, compared with the token itself."""

from typing import Any

import pytest

from s2s_fastapi.realm.entities import Role
from s2s_fastapi.realm.model import Granted, RealmModel
from s2s_fastapi.realm.provenance import Dropped, Offer, Provenance
from tests.kit.console import CALLER, RECEIVER, ROLE, SCOPE, Paper, hardcoded


def of(paper: Paper, client: str = CALLER, scope: str | None = None) -> Provenance:
    found = RealmModel.read(paper.realm).provenance(client, scope=scope)
    assert found is not None
    return found


def claims(paper: Paper, scope: str | None = None) -> Any:
    granted = RealmModel.read(paper.realm).service_token(CALLER, scope=scope)
    assert isinstance(granted, Granted)
    return granted.claims


def test_each_audience_and_role_of_the_token_has_its_mapper() -> None:
    paper = Paper()
    found = of(paper)

    assert {(each.scope, tuple(each.audiences)) for each in found.sources if each.audiences} == {
        ("crm-audience", (RECEIVER,)),
        ("roles", (RECEIVER,)),
    }
    assert {each.scope for each in found.sources if Role(RECEIVER, ROLE) in each.roles} == {"roles"}
    assert found.dropped == ()
    assert found.not_assigned == ()


def test_all_sources_together_are_the_token() -> None:
    paper = Paper()
    paper.give_default_roles()
    paper._changed("clients", "clientId", CALLER)["protocolMappers"] = [hardcoded("aud", "hard")]

    found, token = of(paper), claims(paper)

    audiences = {token["aud"]} if isinstance(token["aud"], str) else set(token["aud"])
    assert {name for each in found.sources for name in each.audiences} >= audiences - {"hard"}
    roles = {Role("", name) for name in token["realm_access"]["roles"]}
    roles |= {Role(client, name) for client, its in token["resource_access"].items() for name in its["roles"]}
    assert {role for each in found.sources for role in each.roles} == roles
    assert f"{CALLER}-dedicated" in {each.scope for each in found.sources}


def test_a_hardcoded_role_counts_for_the_mapper_that_writes_it() -> None:
    paper = Paper()
    mapper = {
        "name": "extra",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-hardcoded-role-mapper",
        "config": {"role": f"{RECEIVER}.chief"},
    }
    paper._changed("clients", "clientId", CALLER)["protocolMappers"] = [mapper]
    assert {each.scope for each in of(paper).sources if Role(RECEIVER, "chief") in each.roles} == {"roles"}


def test_a_scope_that_dropped_out_says_which_roles_are_missing() -> None:
    paper = Paper()
    paper.map_role("crm-audience")
    paper.give_role(on=False)

    found = of(paper)

    roles = frozenset({Role(RECEIVER, ROLE)})
    assert found.dropped == (Dropped(scope="crm-audience", roles=roles, audiences=frozenset({RECEIVER})),)
    assert not any(each.audiences for each in found.sources)
    paper.give_role()
    assert of(paper).dropped == ()


@pytest.mark.parametrize("assigned", [True, False])
def test_a_scope_that_would_bring_an_audience_is_offered(*, assigned: bool) -> None:
    paper = Paper()
    paper.unassign(CALLER, "crm-audience")
    if assigned:
        paper.assign(CALLER, "crm-audience", optional=True)

    offers = of(paper).offers

    assert offers == (Offer(scope="crm-audience", audiences=frozenset({RECEIVER}), assigned=assigned),)
    if assigned:
        assert of(paper, scope="crm-audience").offers == ()
        assert {each.scope for each in of(paper, scope="openid crm-audience").sources} >= {"crm-audience"}


def test_a_scope_that_is_not_assigned_is_named() -> None:
    paper = Paper()
    found = of(paper, scope=f"{SCOPE} payments openid")
    assert found.not_assigned == ("payments",)
    assert found.sources


def test_a_client_without_a_service_account_has_no_token_to_explain() -> None:
    model = RealmModel.read(Paper().realm)
    assert model.provenance(RECEIVER) is None
    assert model.provenance("nobody") is None
