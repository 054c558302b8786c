"""Holes that were planted are found, each by the cases that are for it; a guard without a hole has none."""

import re
from dataclasses import replace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from s2s_fastapi.testing.attack import TrustedIssuer, all_cases
from s2s_fastapi.testing.attack.runner import run
from tests.testing.attack.broken.apps import behind_a_dependency, page, target
from tests.testing.attack.broken.guard import AUDIENCE, Guard, Receive, Refused, Scope, Send, refuse_unless
from tests.testing.attack.broken.holes import (
    GUARDS,
    AnyScheme,
    AnySpelling,
    BindingIgnored,
    CritIgnored,
    FirstHeaderCounts,
    LastMemberCounts,
    NotBeforeIgnored,
    TokenInTheUrl,
    TypeIgnored,
)

pytestmark = pytest.mark.tells_secrets("only our middleware keeps a token in the URL out of spans", "span GET")

FOUND_BY = {
    "AudienceIgnored": "audience-other",
    "AudienceBySubstring": "audience-like-ours.longer",
    "AudienceByPrefix": "audience-like-ours.longer",
    "MissingAudiencePasses": "audience-missing",
    "IssuerByPrefix": "issuer-like-ours.longer",
    "IssuerByHost": "issuer-like-ours.other-realm",
    "IssuerIgnored": "issuer-other",
    "SecretIsThePublicKey": "hs256-with-the-public-key.pem",
    "NoneIsAnAlgorithm": "alg-none.lower",
    "SignatureIgnored": "signature-changed",
    "EmptySignaturePasses": "signature-empty",
    "TypeIgnored": "type-of-another-token.id",
    "UserIsAService": "user",
    "ServiceByUserName": "user-named-like-a-service",
    "AnyService": "stranger",
    "CachedAfterItsEnd": "cached-after-its-end",
    "CachedByJti": "cache-by-jti",
    "CachedByPrefix": "cache-by-prefix",
    "KidIgnored": "kid-unknown",
    "KeyOfTheToken": "jwk-embedded",
    "KeysForEver": "cached-after-its-key",
    "CritIgnored": "crit.unknown",
    "LastMemberCounts": "claim-twice.aud-last",
    "AnySpelling": "spelling-of-the-signature.spare-bits",
    "ExpiryIgnored": "expired-an-hour-ago",
    "NotBeforeIgnored": "not-yet-for-an-hour",
    "BindingIgnored": "bound-to-a-key.dpop",
    "FirstHeaderCounts": "two-headers.good-first",
    "AnyScheme": "another-scheme.basic",
    "TokenInTheUrl": "token-in-the-query.access_token",
    "ExceptionPasses": "audience-missing",
    "NoKeysPass": "forged-without-keys-unavailable",
    "BadTokenIsAnonymous": "no-token",
    "PathByAPart": "parameter-named-like-a-public-page",
    "QueryCounts": "query-of-a-public-page.value",
    "HeaderNamesThePath": "headers-about-the-path.x-original-url",
    "ProxyIsBelieved": "claims-of-a-proxy.x-forwarded-user",
    "WebSocketOpen": "no-token",
    "HeadOpen": "no-token",
    "DeleteOpen": "no-token",
    "MountOpen": "no-token",
    "RefusalWithoutAnEnd": "no-token",
    "KeyWhereTheTokenSays": "key-elsewhere.jku-that-answers",
    "NoKeyIsAnyKey": "forged-without-keys-none",
    "UpgradesAreOpen": "looks-like-a-probe.upgrade",
    "LocalhostIsOpen": "looks-like-a-probe.localhost",
    "ProbesAreOpen": "looks-like-a-probe.kube-probe",
    "FilesAreOpen": "parameter-named-like-a-file.css",
    "PathOfAHeaderIsServed": "private-path-in-a-header.x-original-url",
}
"""The hole, and one of the cases that find it."""

LENIENT = {"LastMemberCounts", "AnySpelling", "FirstHeaderCounts", "AnyScheme", "TokenInTheUrl"}
"""Guards that are lenient and not open: only this package promises to refuse what they accept."""

WHERE = {
    "WebSocketOpen": "WEBSOCKET /live",
    "HeadOpen": "HEAD /page",
    "DeleteOpen": "DELETE /orders/{number}",
    "MountOpen": "GET /mounted/inner",
    "PathByAPart": "GET /orders/{number}",
    "FilesAreOpen": "GET /orders/{number}",
}


def test_each_planted_hole_has_its_row() -> None:
    assert sorted(FOUND_BY) == sorted(GUARDS)
    assert len(GUARDS) - len(LENIENT) >= 15


@pytest.mark.parametrize("name", sorted(GUARDS))
def test_a_planted_hole_is_found_and_only_by_what_leads_through_it(name: str) -> None:
    report = run(target(GUARDS[name]), strict=False, only=[FOUND_BY[name], "signature-of-another-length.zeros"])

    outcome = "lenient" if name in LENIENT else "accepted"
    found = {(result.route, result.case.id) for result in report.results if result.outcome == outcome}
    assert (WHERE.get(name, "GET /orders"), FOUND_BY[name]) in found
    assert report.exit_code == (0 if name in LENIENT else 1)
    if name in WHERE:  # not on every route, as behind a guard that checks nothing
        assert "GET /orders" not in {route for route, _ in found}


def test_a_guard_without_a_hole_has_none() -> None:
    report = run(target(), strict=False)

    assert report.findings == ()
    assert report.exit_code == 0
    assert {result.case.id for result in report.results} == {case.id for case in all_cases() if case.where != "proofs"}
    lenient = {result.case.entry for result in report.results if result.outcome == "lenient"}
    assert lenient <= {"deep-claims", "deep-header", "cached-after-its-revocation"}
    assert {result.case.id for result in report.results if result.outcome == "otherwise"} == {
        "padding-within",
        "malformed.a-tab",
    }


class AnyRequestWithAGoodToken(
    AnyScheme,
    AnySpelling,
    BindingIgnored,
    CritIgnored,
    FirstHeaderCounts,
    LastMemberCounts,
    NotBeforeIgnored,
    TokenInTheUrl,
    TypeIgnored,
):
    """Asks only whether the realm signed the token, for this service and for a caller that may call, and whether it expired."""

    def check_header(self, header: dict[str, Any]) -> None:
        refuse_unless(header.get("alg") in ("RS256", "ES256") and isinstance(header.get("kid"), str))

    def check_audience(self, claims: dict[str, Any]) -> None:
        refuse_unless(claims.get("aud") == AUDIENCE or (isinstance(claims["aud"], list) and AUDIENCE in claims["aud"]))


def test_what_a_good_token_may_do_is_a_hole_only_if_a_specification_forbids_it() -> None:
    report = run(target(AnyRequestWithAGoodToken), strict=False, without=["no-keys"])

    let_in = [result.case for result in report.results if result.outcome in ("accepted", "lenient")]
    assert {case.kind for case in let_in} >= {
        "binding",
        "credentials",
        "header",
        "parsing",
        "time",
        "two-headers",
        "type",
    }
    assert [case.id for case in let_in if not (case.only_here or case.forbidden_by)] == []


class Open(Guard):
    def check(self, scope: Scope) -> None:
        pass


def test_every_case_finds_a_guard_that_lets_everybody_in() -> None:
    report = run(target(Open), strict=False)

    full = next(route for route in report.routes if route.full)
    missed = {
        result.case.id: result.detail
        for result in full.results
        if result.outcome not in ("accepted", "lenient") and not result.case.by_a_further_realm  # this app has none
    }
    assert {case.partition(".")[0] for case in missed} == {
        "path-of-a-public-page",  # no route has such a path
        "private-path-in-a-header",  # the public page answers
    }
    assert all(detail in ("307", "404", "405", "200 reached GET /health") for detail in missed.values())


class Closed(Guard):
    def check(self, scope: Scope) -> None:
        raise Refused


def test_an_app_that_refuses_everybody_proves_nothing() -> None:
    report = run(target(Closed), strict=False)

    assert report.nobody_gets_in
    assert report.exit_code == 2
    assert {result.outcome for result in report.results} == {"not_tried"}
    assert report.routes[1].problem == "a good token was not accepted: 401"


class Exhausted(Guard):
    left = 30

    def check(self, scope: Scope) -> None:
        super().check(scope)
        self.left -= 1
        if self.left < 0:
            raise Refused

    async def answer(self, status: int, scope: Scope, send: Send) -> None:
        self.left -= 1
        await super().answer(status, scope, send)


def test_refusals_of_an_app_that_stops_to_accept_good_tokens_do_not_count() -> None:
    report = run(target(Exhausted), strict=False, only=["audience", "issuer"])

    full = next(route for route in report.routes if route.full)
    assert {result.outcome for result in full.results if not result.case.by_a_further_realm} == {"not_tried"}
    assert "after the attacks a good token was not accepted any more: 401" in full.results[0].detail


class Failing(Guard):
    def check_audience(self, claims: dict[str, Any]) -> None:
        if claims.get("aud") != "orders-api":
            raise RuntimeError


@pytest.mark.parametrize("status", [404, 405, 422, 307, 500])
def test_an_answer_that_is_neither_yes_nor_no_counts_as_not_tried(status: int) -> None:
    class Odd(Guard):
        def check_audience(self, claims: dict[str, Any]) -> None:
            if claims.get("aud") != "orders-api":
                raise Refused(status)

    report = run(target(Odd), strict=False, only=["audience-other"])

    assert {(result.outcome, result.detail) for result in report.results if "live" not in result.route} == {
        ("not_tried", str(status))
    }


def test_an_exception_of_the_app_counts_as_not_tried_and_its_text_is_not_shown() -> None:
    report = run(target(Failing), strict=False, only=["audience-other"])

    assert {(result.outcome, result.detail) for result in report.results} == {("not_tried", "500 RuntimeError")}


class WithoutChallenge(Guard):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def bare(message: Any) -> None:
            await send({name: value for name, value in message.items() if name != "headers"})

        await super().__call__(scope, receive, bare)


def test_a_refusal_without_its_challenge_is_no_expected_refusal() -> None:
    report = run(target(WithoutChallenge), strict=False, only=["audience-other"])

    assert report.results[0].outcome == "otherwise"
    assert report.results[0].detail == "401, expected 401 with a Bearer challenge"


def test_time_is_not_tried_if_nobody_can_turn_the_clock() -> None:
    report = run(replace(target(), turns_clock=False), strict=False, only=["cached-after-its-end"])

    assert [(result.outcome, result.detail) for result in report.results] == [
        ("not_tried", "the clock of this app cannot be turned")
    ]


def test_a_guard_in_a_dependency_is_tried_and_a_route_outside_of_it_found() -> None:
    report = run(replace(target(), make=behind_a_dependency), strict=False)

    assert {result.route for result in report.holes} == {"GET /forgotten"}
    assert [route.problem for route in report.routes if route.problem] == []
    held = {result.case.kind for result in report.results if result.route == "GET /orders" and result.outcome == "held"}
    assert held >= {"algorithm", "audience", "cache", "credentials", "no-keys", "time"}


def test_an_open_route_behind_a_guarded_one_is_found_and_named() -> None:
    def make(trusted: TrustedIssuer) -> Starlette:
        guarded = Route("/items/{number:int}", page, middleware=[Middleware(Guard, trusted=trusted)])
        return Starlette(routes=[guarded, Route("/items/{name}", page)])

    report = run(replace(target(), make=make, public=()), strict=False, only=["parameter-named-like-a-public-page"])

    # An old Starlette does not say which route it matched, so there the path stands in its place.
    assert re.search(r"reached GET /items/(\{name\}|health)", report.holes[0].detail)
    assert report.exit_code == 1
