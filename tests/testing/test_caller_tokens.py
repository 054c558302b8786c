"""The tokens of access tests: each meets a requirement with as little as possible, or lacks exactly one thing."""

import dataclasses
from itertools import combinations
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s_fastapi import (
    Requirement,
    require_audience,
    require_bound,
    require_caller,
    require_claim,
    require_realm_role,
    require_role,
    require_scope,
    require_service,
    require_user,
)
from s2s_fastapi.decision import Reason
from s2s_fastapi.declared.asked import ways_of
from s2s_fastapi.requirement.conditions import Condition, only_the_app
from s2s_fastapi.testing.caller_tokens import CallerToken, count_ways, refused_tokens, satisfying_tokens

KINDS: tuple[Literal["service", "user"], ...] = ("service", "user")
APP = require_service() & require_audience("api")
LEAVES = (
    require_service(),
    require_user(),
    require_user("web"),
    require_caller("a", "b"),
    require_caller("b", "c"),
    require_scope("read"),
    require_scope("read", "write"),
    require_role("admin", client="api"),
    require_realm_role("staff"),
    require_audience("api"),
    require_audience("api", "other"),
    require_audience("other", "third", only=True),
    require_claim("tenant", "acme", "umbrella"),
    require_claim("tenant", "umbrella", 1),
    require_claim(("org", "level"), 2),
)
REQUIREMENTS = st.recursive(
    st.sampled_from(LEAVES),
    lambda parts: st.builds(lambda one, other, both: one & other if both else one | other, parts, parts, st.booleans()),
    max_leaves=6,
)


def token(**held: Any) -> CallerToken:
    changes: dict[str, Any] = {
        name: frozenset(value) if isinstance(value, set) else value for name, value in held.items()
    }
    return CallerToken(**{"audiences": frozenset({"api"}), **changes})


def test_one_way_gives_one_token_with_what_is_required_and_nothing_else() -> None:
    requirement = (
        APP
        & require_caller("b", "a")
        & require_scope("read", "write")
        & require_role("admin", client="other")
        & require_realm_role("staff")
    )
    expected = token(client_id="a", scopes={"read", "write"}, roles={("other", "admin")}, realm_roles={"staff"})
    assert satisfying_tokens(requirement) == [expected]


def test_a_caller_must_be_in_every_list() -> None:
    assert satisfying_tokens(APP & require_caller("a", "b") & require_caller("b", "c")) == [token(client_id="b")]


def test_each_branch_of_an_or_gives_a_token() -> None:
    tokens = satisfying_tokens(APP & (require_caller("a") | require_scope("read") | require_realm_role("staff")))
    assert tokens == [token(client_id="a"), token(scopes={"read"}), token(realm_roles={"staff"})]


def test_a_user_and_a_service_are_two_branches() -> None:
    requirement = (
        require_audience("api") & (require_service() | require_user()) & (require_caller("a") | require_user("web"))
    )
    assert satisfying_tokens(requirement) == [token(client_id="a"), token(client_id="web", kind="user")]


@pytest.mark.parametrize(
    "requirement",
    [
        APP & require_user(),
        require_caller("a") & require_caller("b"),
        require_audience("a", only=True) & require_audience("b"),
    ],
    ids=["a service that is a user", "two callers at once", "only one audience, and another"],
)
def test_what_no_token_can_meet_gives_no_token(requirement: Requirement) -> None:
    assert satisfying_tokens(requirement) == []
    assert refused_tokens(requirement) == []


@pytest.mark.parametrize(
    ("requirement", "audiences"),
    [
        (require_audience("a") & require_audience("a", "b"), {"a"}),
        (require_audience("a", "b") & require_audience("b", "c"), {"b"}),
        (require_audience("a") & require_audience("b"), {"a", "b"}),
        (require_audience("a", "b", only=True) & require_audience("b", "c"), {"b"}),
        (require_audience("z", "a"), {"a"}),
    ],
    ids=["inside", "common", "apart", "only", "the first by name"],
)
def test_a_token_has_as_few_audiences_as_will_do(requirement: Requirement, audiences: set[str]) -> None:
    assert [each.audiences for each in satisfying_tokens(requirement)] == [audiences]


def test_of_every_thing_that_is_required_one_refused_token_lacks_it() -> None:
    requirement = APP & require_caller("a") & require_scope("read", "write") & require_role("admin", client="api")
    assert {each.what: each.reason for each in refused_tokens(requirement)} == {
        "a user's token": Reason.NOT_A_SERVICE,
        "another service": Reason.CALLER_NOT_ALLOWED,
        "a wrong audience": Reason.WRONG_AUDIENCE,
        "without scope read": Reason.SCOPE_MISSING,
        "without scope write": Reason.SCOPE_MISSING,
        "without role admin of api": Reason.ROLE_MISSING,
        "an expired token": Reason.EXPIRED,
    }


def test_a_claim_is_refused_without_it_and_with_another_value() -> None:
    requirement = APP & require_claim("tenant", "acme") & require_claim(("org", "level"), 2)
    (whole,) = satisfying_tokens(requirement)
    assert {name: whole.claims[name] for name in ("tenant", "org")} == {"tenant": "acme", "org": {"level": 2}}
    assert {each.what: each.reason for each in refused_tokens(requirement)} == {
        "a user's token": Reason.NOT_A_SERVICE,
        "a wrong audience": Reason.WRONG_AUDIENCE,
        "without claim tenant": Reason.CLAIM_MISSING,
        "another value in claim tenant": Reason.CLAIM_MISSING,
        "without claim org > level": Reason.CLAIM_MISSING,
        "another value in claim org > level": Reason.CLAIM_MISSING,
        "an expired token": Reason.EXPIRED,
    }


def test_a_token_that_only_a_condition_decides_about_is_neither_right_nor_refused() -> None:
    only = Condition("c", only_the_app)
    assert satisfying_tokens(APP & only) == []
    assert refused_tokens(APP & only) == []
    either = APP & (require_caller("a") | only)
    assert satisfying_tokens(either) == [token(client_id="a")]
    assert "another service" not in {each.what for each in refused_tokens(either)}


def test_where_any_service_may_call_another_one_is_no_case() -> None:
    assert [each.what for each in refused_tokens(APP)] == ["a user's token", "a wrong audience", "an expired token"]


def test_one_audience_more_is_a_case_only_if_there_must_be_no_other() -> None:
    requirement = require_service() & require_audience("api", only=True)
    reasons = {each.what: each.reason for each in refused_tokens(requirement)}
    assert reasons["one more audience"] is Reason.AUDIENCE_NOT_ONLY


def test_what_meets_another_branch_is_no_refused_token() -> None:
    requirement = APP & (require_caller("a") | require_service())
    assert "another service" not in {each.what for each in refused_tokens(requirement)}
    requirement = APP & (require_caller("a") | require_scope("read"))
    whats = [(each.what, str(each.token)) for each in refused_tokens(requirement)]
    assert ("another service", "service another-service, aud api") in whats
    assert ("without scope read", "service any-service, aud api") in whats
    assert ("another service", "service another-service, aud api, scope read") not in whats


@given(REQUIREMENTS)
def test_every_way_that_a_token_can_meet_has_a_token(requirement: Requirement) -> None:
    """Found the slow way: of all tokens that are made of the names in the way, one meets it if ours does not."""
    ours = satisfying_tokens(requirement)
    assert all(each.reason(requirement) is Reason.ALLOWED for each in ours)
    for way in ways_of(requirement):
        if not any(all(each.reason(leaf) is Reason.ALLOWED for leaf in way) for each in ours):
            assert not any(all(each.reason(leaf) is Reason.ALLOWED for leaf in way) for each in every_token())


def every_token() -> list[CallerToken]:
    """Return all combinations that could make a difference to the leaves of these tests."""
    audiences = [frozenset(chosen) for size in (1, 2, 3) for chosen in combinations(("api", "other", "third"), size)]
    return [
        CallerToken(
            kind=kind,
            client_id=client_id,
            audiences=aud,
            scopes=frozenset({"read", "write"}),
            roles=frozenset({("api", "admin")}),
            realm_roles=frozenset({"staff"}),
            values=frozenset({(("tenant",), str, "umbrella"), (("org", "level"), int, 2)}),
        )
        for kind in KINDS
        for client_id in ("a", "b", "c", "web")
        for aud in audiences
    ]


@given(REQUIREMENTS)
def test_nothing_of_a_token_is_superfluous(requirement: Requirement) -> None:
    """Without one of its scopes, roles or audiences, it no longer meets the way that it was made for."""
    for way in ways_of(requirement):
        whole = require_all(way)
        for made in satisfying_tokens(whole):
            for name in ("scopes", "roles", "realm_roles", "audiences", "values"):
                held = getattr(made, name)
                for one in held:
                    less = dataclasses.replace(made, **{name: held - {one}})
                    assert less.reason(whole) is not Reason.ALLOWED


def require_all(way: tuple[Requirement, ...]) -> Requirement:
    whole = way[0]
    for each in way[1:]:
        whole = whole & each
    return whole


@given(REQUIREMENTS)
def test_a_refused_token_differs_in_one_thing_from_one_that_is_allowed(requirement: Requirement) -> None:
    for each in refused_tokens(requirement):
        assert each.token.reason(requirement) is each.reason is not Reason.ALLOWED
        assert each.beside.reason(requirement) is Reason.ALLOWED
        fields = [field.name for field in dataclasses.fields(CallerToken)]
        assert sum(getattr(each.token, name) != getattr(each.beside, name) for name in fields) == 1


@given(REQUIREMENTS)
def test_the_number_of_ways_is_known_before_they_are_made(requirement: Requirement) -> None:
    assert count_ways(requirement) == len(ways_of(requirement))


def test_the_claims_say_exactly_what_the_token_has() -> None:
    full = token(scopes={"b", "a"}, roles={("x", "r"), ("x", "q")}, realm_roles={"staff"})
    assert full.claims == {
        "aud": ["api"],
        "scope": "a b",
        "realm_access": {"roles": ["staff"]},
        "resource_access": {"x": {"roles": ["q", "r"]}},
    }
    assert set(CallerToken().claims.values()) == {None}


def test_a_bound_token_is_also_tried_without_its_proof_and_without_its_binding() -> None:
    requirement = APP & require_bound()
    whole = token(bound=True)
    assert satisfying_tokens(requirement) == [whole]
    assert {each.what: str(each.reason) for each in refused_tokens(requirement)} == {
        "a user's token": "not_a_service",
        "a wrong audience": "wrong_audience",
        "an expired token": "expired",
        "the same token without a proof": "proof_missing",
        "the same token with a proof of another key": "invalid_proof",
        "a token that is bound to no key": "not_bound",
    }
    assert str(whole) == "service any-service, aud api, bound"
    assert {str(each.token) for each in refused_tokens(requirement)} >= {
        f"{whole}, without a proof",
        f"{whole}, a proof of another key",
    }


def test_if_the_app_accepts_bound_tokens_only_every_token_is_bound_and_another_is_refused_first() -> None:
    requirement = APP & require_caller("a")
    assert satisfying_tokens(requirement, bound=True) == [token(client_id="a", bound=True)]
    reasons = {each.what: str(each.reason) for each in refused_tokens(requirement, bound=True)}
    assert reasons["a token that is bound to no key"] == "bearer_not_accepted"
    assert reasons["another service"] == "caller_not_allowed"
    assert all(
        each.token.bound for each in refused_tokens(requirement, bound=True) if each.reason != "bearer_not_accepted"
    )


def test_a_way_that_needs_no_binding_takes_bound_tokens_too() -> None:
    requirement = APP & (require_bound() | require_caller("a"))
    assert satisfying_tokens(requirement) == [token(bound=True), token(client_id="a")]
    whats = {each.what for each in refused_tokens(requirement)}
    assert "a token that is bound to no key" in whats  # of any service
    assert "the same token without a proof" in whats
