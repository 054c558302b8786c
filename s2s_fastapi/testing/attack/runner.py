"""Tries the cases on the routes. A refusal counts only beside a good token that the same route accepts."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from s2s_fastapi.decision import Reason
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.testing.attack.cases import Case, all_cases
from s2s_fastapi.testing.attack.ground import AttackedRoute, Ground, Shot
from s2s_fastapi.testing.attack.prover import PROVER, binding, good_proof, proof_variables
from s2s_fastapi.testing.attack.realm import AttackedRealm
from s2s_fastapi.testing.attack.recipe import forged, read_parts
from s2s_fastapi.testing.attack.report import Outcome, Report, Result, RouteReport
from s2s_fastapi.testing.attack.templates import filled
from s2s_fastapi.verifier.bearer import brings_credentials

__all__ = ["Opening", "Planned", "attack_routes", "good_headers", "plan", "run"]

_REFUSALS: Final = (400, 401, 403)
_PUBLIC: Final = 200
"""What is expected of a case that asks for a public page, and may get it, but not the attacked route."""
_NO_CLOCK: Final = "the clock of this app cannot be turned"
_STRANGER: Final = "a-service-that-may-not-call"
_EVEN_SO: Final = ("no-token", "foreign-key-under-our-kid", "stranger")
"""The cases that are tried on a route which refuses a good token: it may accept everybody else."""


class Opening(Protocol):
    """Opens an app to be attacked. Only one may be open at a time."""

    def __call__(self, prepare: Callable[[AttackedRealm], None] | None = None) -> AbstractContextManager[Ground]:
        """Open the app, with a realm of its own. ``prepare`` changes the realm before the app reads anything of it."""
        ...


@dataclass(frozen=True, slots=True)
class Planned:
    """What will be tried on one route."""

    route: AttackedRoute
    cases: tuple[Case, ...]
    full: bool = False


def run(opening: Opening, *, strict: bool = True, only: Collection[str] = (), without: Collection[str] = ()) -> Report:
    """Try everything, and return the report: see `plan` for ``only`` and ``without``."""
    return Report(attack_routes(opening, plan(opening, only=only, without=without)), strict=strict)


def plan(opening: Opening, *, only: Collection[str] = (), without: Collection[str] = ()) -> tuple[Planned, ...]:
    """Return what to try: the full list on one route of each guard, one case of each kind on every other route.

    Cases about bound tokens are left out if the app accepts none, and those about bearer tokens if the route accepts none. ``only`` and ``without`` name kinds of cases, entries or cases.

    Raises:
        ConfigurationError: There is no such kind, entry or case.
    """
    names = {name for case in all_cases() for name in _names(case)}
    if unknown := {*only, *without} - names:
        raise ConfigurationError(f"There is no case and no kind of cases named {', '.join(sorted(unknown))}.")
    cases = tuple(
        case
        for case in all_cases()
        if (not only or not _names(case).isdisjoint(only)) and _names(case).isdisjoint(without)
    )
    some = tuple(case for case in cases if case.every_route)
    with opening() as ground:
        full = {id(route) for route in _chosen(ground)}
        return tuple(
            Planned(route, tuple(_fitting(route, cases if id(route) in full else some)), id(route) in full)
            for route in ground.routes
        )


def _fitting(route: AttackedRoute, cases: Iterable[Case]) -> Iterator[Case]:
    """Yield the cases that have a meaning on a route."""
    if route.public or route.unread:
        return
    wrong = {"" if route.dpop else "proofs", "no proofs" if route.dpop else "", "bearer" if route.bound else ""} - {""}
    yield from (case for case in cases if case.where not in wrong)


def _names(case: Case) -> frozenset[str]:
    return frozenset((case.id, case.entry, case.kind))


def _chosen(ground: Ground) -> Iterator[AttackedRoute]:
    """Yield for each guard the route on which most cases can be tried: a good token is accepted, and not of everybody."""
    for guard in dict.fromkeys(route.guard for route in ground.routes):
        routes = [route for route in ground.routes if route.guard == guard and not route.public and not route.left_out]
        routes.sort(
            key=lambda route: (not _claims(route, "stranger"), route.method != "GET", route.method == "WEBSOCKET")
        )
        accepted = next((route for route in routes if _control(ground, route).reached), None)
        if accepted is not None:
            yield accepted


def attack_routes(opening: Opening, planned: Iterable[Planned]) -> tuple[RouteReport, ...]:
    """Try the planned cases on the routes. Those that change the realm or the time come last, each on an app that is opened for it."""
    with opening() as ground:
        reports = [(each, _attacked(ground, each)) for each in planned]
    return tuple(report if report.problem else _with_apart(opening, each, report) for each, report in reports)


def _attacked(ground: Ground, planned: Planned) -> RouteReport:
    """Try the cases on one route, between two requests with a good token."""
    route = planned.route
    if route.public:
        return RouteReport(route.name, public=True)
    if route.left_out:
        return replace(_untried(planned, route.left_out), left_out=not route.unread, unread=route.unread)
    first = _control(ground, route)
    if first.elsewhere:
        return replace(_untried(planned, f"an earlier route answers its path: {first.elsewhere}"), left_out=True)
    if not first.reached:
        return _refused(ground, planned, f"a good token was not accepted: {_told(first)}")
    results = [_tried(ground, route, case) for case in planned.cases if not case.apart]
    last = _control(ground, route)
    lost = ""
    if not last.reached:
        lost = f"after the attacks a good token was not accepted any more: {_told(last)}"
        results = [
            replace(each, outcome="not_tried", detail=lost) if each.outcome == "held" else each for each in results
        ]
    return RouteReport(route.name, tuple(results), problem=lost, full=planned.full)


def _refused(ground: Ground, planned: Planned, why: str) -> RouteReport:
    """Try on a route that refuses a good token only whether it accepts a bad one: a refusal would prove nothing."""
    report = _untried(planned, why)
    cases = [case for case in planned.cases if case.id in _EVEN_SO]
    holes = {
        result.case.id: result
        for result in (_tried(ground, planned.route, case) for case in cases)
        if result.outcome == "accepted"
    }
    return replace(report, results=tuple(holes.get(result.case.id, result) for result in report.results))


def _with_apart(opening: Opening, planned: Planned, report: RouteReport) -> RouteReport:
    apart = tuple(_tried_apart(opening, planned.route, case) for case in planned.cases if case.apart)
    return replace(report, results=(*report.results, *apart))


def _untried(planned: Planned, why: str) -> RouteReport:
    name = planned.route.name
    return RouteReport(name, tuple(Result(name, case, "not_tried", why) for case in planned.cases), problem=why)


def _control(ground: Ground, route: AttackedRoute) -> Shot:
    return ground.shoot(route, headers=good_headers(ground, route))


def good_headers(ground: Ground, route: AttackedRoute) -> tuple[tuple[str, str], ...]:
    """Return the credentials of a caller that may: a good token, and a new proof if the token must be bound."""
    token = _good(ground, route)
    if not route.bound:
        return (("authorization", f"Bearer {token}"),)
    return (("authorization", f"DPoP {token}"), ("dpop", _proof(ground, route, token, route.sample.path)))


def _good(ground: Ground, route: AttackedRoute, *, bound: bool = False) -> str:
    claims = {**route.permits.claims, **(binding() if bound else {})}
    return ground.realm.token(claims, user=route.permits.user, now=int(ground.now()))


def _proof(ground: Ground, route: AttackedRoute, token: str, path: str) -> str:
    return good_proof(token, method=_method(route), url=route.proof_url(path), now=int(ground.now()))


def _method(route: AttackedRoute) -> str:
    """Return the method on the wire: a WebSocket begins as a GET."""
    return "GET" if route.method == "WEBSOCKET" else route.method


def _claims(route: AttackedRoute, start: str) -> dict[str, Any] | None:
    """Return the claims of somebody who may not call; None if he may."""
    claims = dict(route.permits.claims)
    if start == "stranger":
        claims |= {"azp": _STRANGER, **({} if route.permits.user else {"client_id": _STRANGER})}
    else:
        claims.pop("client_id", None)
        claims["sid"] = "a-session"
    return claims if route.permits.refused(claims) else None


def _tried(ground: Ground, route: AttackedRoute, case: Case) -> Result:
    if case.by_a_further_realm and not route.further:
        return Result(route.name, case, "not_applicable", "the app accepts tokens of one realm")
    if case.start != "caller" and (route.permits.user or _claims(route, case.start) is None):
        return Result(route.name, case, "not_applicable", "the route permits this caller")
    token, request = _request(ground, route, case)
    if route.anonymous and not _brings_credentials(request):
        return Result(route.name, case, "not_applicable", "the route accepts requests without credentials")
    if case.before.get("sent"):
        before = ground.shoot(route, **request)
        if not before.reached:
            return Result(route.name, case, "not_tried", f"the first request was not accepted: {_told(before)}")
    return _judged(ground, route, case, token, ground.shoot(route, **request))


def _tried_apart(opening: Opening, route: AttackedRoute, case: Case) -> Result:
    """Try a case that changes the realm or the time."""
    keys, seconds = case.before.get("keys", ""), case.before.get("seconds", 0)
    if not seconds:
        with opening(lambda realm: realm.hide_keys(keys)) as ground:
            if not ground.fresh:
                return Result(route.name, case, "not_tried", "an app that runs already has keys")
            return _tried(ground, route, case)
    with opening() as ground:
        if ground.turn is None:
            return Result(route.name, case, "not_tried", _NO_CLOCK)
        if keys == "lost":
            return _tried_without_keys(ground, route, case, seconds)
        token, request = _request(ground, route, case)
        before = ground.shoot(route, **request)
        if not before.reached:
            return Result(route.name, case, "not_tried", f"the token was not accepted before: {_told(before)}")
        if keys == "withdrawn":
            ground.realm.withdraw_keys()
        elif keys == "revoked":
            ground.realm.revoke(int(ground.now()) + 1)
        ground.turn(seconds)
        if case.where != "proofs":
            request = _request(ground, route, case, token)[1]  # the same token; a proof would be too old
        fresh = _control(ground, route)  # a good token of now: with it an app sees what changed
        shot = ground.shoot(route, **request)
        if not (fresh.reached or shot.reached or shot.allowed):
            return Result(route.name, case, "not_tried", f"afterwards a good token was not accepted: {_told(fresh)}")
        return _judged(ground, route, case, token, shot)


def _tried_without_keys(ground: Ground, route: AttackedRoute, case: Case, seconds: float) -> Result:
    """Try a case after the keys were there, and then could not be fetched for so long."""
    before = _control(ground, route)
    if not before.reached:
        return Result(route.name, case, "not_tried", f"a good token was not accepted before: {_told(before)}")
    if ground.turn is None:
        return Result(route.name, case, "not_tried", _NO_CLOCK)
    ground.realm.hide_keys("unavailable")
    ground.turn(seconds)
    return _tried(ground, route, case)


def _request(ground: Ground, route: AttackedRoute, case: Case, again: str = "") -> tuple[str, dict[str, Any]]:
    """Return the token of the case, and what is sent: a good request of which the case changes one thing.

    ``again``: the token of the case, if it was sent before.
    """
    now = int(ground.now())
    realm = ground.realm
    bound = route.bound or case.where == "proofs"
    good = _good(ground, route, bound=bound)
    user = route.permits.user or case.start == "user"
    begin = good if case.start == "caller" else realm.token(_claims(route, case.start) or {}, user=user, now=now)
    claims = read_parts(good)[1]
    variables = {
        **realm.variables(now),
        "leeway": route.leeway,
        "audience": route.permits.claims["aud"],
        "client_id": claims.get("azp", ""),
        "good": good,
        "good_signature": good.rpartition(".")[2],
        "path": route.sample.path,
        "path_of_public": route.path_with(ground.public.strip("/")),
        "path_of_style": route.path_with("1.css"),
        "path_of_script": route.path_with("1.js"),
        "public": ground.public,
    }
    keyring = realm.keyring_with(route.further)
    variables |= {"kid_further": keyring.kid("further", "RS256")} if route.further else {}
    proofs = _proof_variables(route, "") if case.where == "proofs" else {}
    token = again or forged(begin, case.token, keyring, {**variables, **proofs})
    variables["token"] = token
    if bound:
        path = str(filled(case.request.get("path", route.sample.path), variables))
        variables["good_proof"] = _proof(ground, route, token, path)
        if case.where == "proofs":
            variables |= _proof_variables(route, path)
        variables["proof"] = forged(variables["good_proof"], case.proof, PROVER, variables)
    asked = filled(dict(case.request), variables)
    values = asked.get("authorization", [f"{'DPoP' if bound else 'Bearer'} {token}"])
    if bound and case.where != "proofs":
        values = [value.replace("Bearer", "DPoP") for value in values]
    headers = [("authorization", value) for value in values]
    headers += [("dpop", value) for value in asked.get("proofs", [variables["proof"]])] if bound and values else []
    return token, {
        "headers": (*headers, *((name, value) for name, value in asked.get("headers", ()))),
        **{name: asked[name] for name in ("path", "query") if name in asked},
    }


def _proof_variables(route: AttackedRoute, path: str) -> dict[str, Any]:
    url = route.proof_url(path or route.sample.path)
    return proof_variables(method=_method(route), url=url, another_token="another token")


def _brings_credentials(request: Mapping[str, Any]) -> bool:
    headers = [(name.encode(), value.encode()) for name, value in request["headers"]]
    return brings_credentials(headers, str(request.get("query", "")).encode())


def _judged(ground: Ground, route: AttackedRoute, case: Case, token: str, shot: Shot) -> Result:
    # A route may have a reason of its own to refuse a good token of somebody else.
    own = route.permits.refused(read_parts(token)[1]) if case.start != "caller" else ""
    outcome, detail = _outcome(ground, route, case, shot, {case.expected.reason, own})
    return Result(route.name, case, outcome, detail)


def _outcome(
    ground: Ground, route: AttackedRoute, case: Case, shot: Shot, expected_reasons: Collection[str]
) -> tuple[Outcome, str]:
    expected, told, recorded = case.expected, _told(shot), ground.decisions is not None
    if expected.status == _PUBLIC:
        if ground.reached is None:
            return "not_tried", "which route answered cannot be seen"
        return ("accepted" if shot.reached or shot.trespassed else "held"), told
    if shot.elsewhere and not shot.trespassed:
        return "not_tried", f"a public route answered: {shot.elsewhere}"
    # A good token of somebody else is allowed by the middleware first, and refused when the route is found.
    if shot.served or (shot.allowed and case.start == "caller"):
        return "lenient" if case.only_here and not ground.own else "accepted", told
    status = shot.answer.status
    if status not in (*_REFUSALS, expected.status):
        return "not_tried", told
    if recorded and not shot.decisions:
        return "not_tried", f"{told}, from something in front of ServiceAuthMiddleware"
    if recorded:
        # Of two middlewares one may allow somebody else whom the other refuses.
        reasons = [str(decision.reason) for decision in shot.decisions if not decision.accepted]
        right = len(reasons) == 1 and reasons[0] in expected_reasons
        return ("held", told) if right else ("otherwise", f"{told}, expected {expected.reason}")
    if route.method == "WEBSOCKET":
        return "held", told  # a server answers 403 to whatever the app refuses
    schemes = ("bearer", "dpop") if route.dpop else ("bearer",)
    challenge = shot.answer.header("www-authenticate").lower()
    challenged = expected.status != Reason.NO_CREDENTIALS.status or any(scheme in challenge for scheme in schemes)
    if status == expected.status and challenged:
        return "held", told
    return "otherwise", f"{told}, expected {expected.status}{'' if challenged else ' with a Bearer challenge'}"


def _told(shot: Shot) -> str:
    answer = shot.answer
    reasons = ", ".join(decision.reason for decision in shot.decisions)
    where = "reached the route" if shot.reached else "reached " + shot.elsewhere if shot.elsewhere else ""
    words = (str(answer.status), answer.problem, reasons, where)
    return " ".join(word for word in words if word)
