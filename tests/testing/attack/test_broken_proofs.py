"""Holes in the check of DPoP proofs are found, each by the cases that are for it; a guard without a hole has none (RFC 9449)."""

import pytest

from s2s_fastapi.testing.attack import all_cases
from s2s_fastapi.testing.attack.runner import run
from tests.testing.attack.broken.apps import target
from tests.testing.attack.broken.guard import Guard, Scope
from tests.testing.attack.broken.proving import FOUND_BY, BothSchemes, Proving, proving_target

pytestmark = pytest.mark.tells_secrets("only our middleware keeps a token in the URL out of spans", "span GET")

PROOFS = [case for case in all_cases() if case.where == "proofs"]
OPENED = {case.id for case in PROOFS if not case.only_here}


@pytest.mark.parametrize("guard", FOUND_BY, ids=lambda guard: guard.__name__)
def test_a_planted_hole_is_found(guard: type[Proving]) -> None:
    report = run(proving_target(guard), strict=False, only=[FOUND_BY[guard], "proof-changed"])

    found = {(result.route, result.case.id) for result in report.holes}
    assert ("GET /orders", FOUND_BY[guard]) in found
    assert report.unproven == ()


@pytest.mark.parametrize("guard", [Proving, BothSchemes])
def test_a_guard_without_a_hole_has_none(guard: type[Proving]) -> None:
    report = run(proving_target(guard), strict=False, only=() if guard is Proving else ["proof", "binding", "type"])

    assert report.findings == ()
    assert report.unproven == ()
    full = next(route for route in report.routes if route.full)
    held = {result.case.id for result in full.results if result.outcome == "held"}
    assert held >= OPENED
    elsewhere = [route for route in report.routes if not (route.full or route.public)]
    every = {case.id for case in PROOFS if case.every_route}
    assert every == {"proof-missing", "proof-of-another-key", "bound-token-forged"}
    assert len(elsewhere) > 5
    for route in elsewhere:  # also a DELETE, a HEAD and a WebSocket
        assert every <= {result.case.id for result in route.results if result.outcome == "held"}, route.route


class Open(Guard):
    def check(self, scope: Scope) -> None:
        pass


def test_every_case_finds_a_guard_that_lets_everybody_in() -> None:
    report = run(proving_target(Open), strict=False, only=["proof"])

    full = next(route for route in report.routes if route.full)
    assert {result.outcome for result in full.results} == {"accepted", "lenient"}


def test_a_guard_that_accepts_no_bound_tokens_is_not_asked_about_proofs() -> None:
    report = run(target(), strict=False, only=["proof", "no-token"])

    assert {result.case.id for result in report.results} == {"no-token"}


def test_who_says_that_bound_tokens_are_accepted_and_accepts_none_proves_nothing() -> None:
    class Refusing(Proving):
        def check_used(self, said: dict[str, object]) -> None:
            super().check_used({"jti": "always the same"})

    report = run(proving_target(Refusing), strict=False, only=["proof"])

    assert report.nobody_gets_in
    assert report.exit_code == 2
