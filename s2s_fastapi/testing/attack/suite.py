"""The ways to start the attacks from Python: a report, or the items of a pytest file."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import Any

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.testing.attack.asgi import BASE_URL
from s2s_fastapi.testing.attack.own import OwnApp
from s2s_fastapi.testing.attack.report import Report, Result, RouteReport
from s2s_fastapi.testing.attack.runner import Opening, Planned, attack_routes, plan, run
from s2s_fastapi.testing.attack.target import Target

__all__ = ["attack", "attack_tests"]


def attack(
    app: Any,
    *,
    client_id: str | None = None,
    public: Collection[str] = (),
    only: Collection[str] = (),
    without: Collection[str] = (),
    base_url: str = "",
) -> Report:
    """Attack an app in this process, and return the results.

    - ``app`` is guarded by `ServiceAuthMiddleware`, or is a `Target` for an app that is guarded by something else.
    - ``client_id``: the client that the app is, unless its settings name one.
    - ``public``: routes that anybody may call on purpose, besides ``public_paths``: ``"GET /health"``, or ``"/health"``.
    - ``only``, ``without``: kinds of cases or cases.
    - ``base_url``: the scheme and the host of every request, for an app that insists on them: ``"https://api.example.com"``.
    - No code of the app's endpoints and dependencies runs: markers stand in their place. Of a `Target` only the endpoints are replaced.

    Raises:
        ConfigurationError: The app cannot be attacked; the text says why.
    """
    opening, strict = _opening(app, client_id, public, base_url)
    return run(opening, strict=strict, only=only, without=without)


def attack_tests(
    app: Any,
    *,
    client_id: str | None = None,
    public: Collection[str] = (),
    only: Collection[str] = (),
    without: Collection[str] = (),
    base_url: str = "",
) -> Callable[[str, str], None]:
    """Return a test for pytest, with one item for each case on each route. The ids are stable.

    Write ``test_attacks = attack_tests(app)``.

    - The arguments are those of `attack`.
    - An attack that is let in fails, and so does a refusal for another reason than the expected one.
    - A case that proves nothing is skipped, and says why.
    - One item more for each route, ``good-token``, fails if the route does not accept a good token before and after the attacks.
    - The item ``somebody-gets-in`` fails if no route accepts a good token: then no refusal proves anything.

    Raises:
        ConfigurationError: The app cannot be attacked; the text says why.
    """
    import pytest  # noqa: PLC0415 - only a test run needs it

    opening, strict = _opening(app, client_id, public, base_url)
    planned = _by_name(plan(opening, only=only, without=without))

    @cache
    def reported(route: str) -> RouteReport:
        (report,) = attack_routes(opening, [planned[route]])
        return report

    def test(route: str, case: str) -> None:
        __tracebackhide__ = True
        if case == _SOMEBODY:
            reports = tuple(reported(name) for name in planned)
            if Report(reports).nobody_gets_in:
                pytest.fail(_nobody(reports), pytrace=False)
            return
        if case == _GOOD:
            report = reported(route)
            if report.left_out:
                pytest.skip(report.problem)
            if report.problem:
                pytest.fail(f"{route}: {report.problem}", pytrace=False)
            return
        result = _result(reported(route), case)
        if result.outcome in ("not_tried", "not_applicable", "lenient"):
            pytest.skip(f"{result.outcome}: {result.detail}")
        if result in Report((reported(route),), strict=strict).findings:
            pytest.fail(f"{result}\nSources: {', '.join(result.case.source)}", pytrace=False)

    items = [pytest.param("", _SOMEBODY, id=_SOMEBODY), *_items(planned)]
    return pytest.mark.parametrize(("route", "case"), items)(test)


_SOMEBODY = "somebody-gets-in"
_GOOD = "good-token"


def _by_name(planned: Iterable[Planned]) -> dict[str, Planned]:
    """Return what is tried on each route by its name. Routes that are declared twice have a number."""
    seen = Counter[str]()
    named: dict[str, Planned] = {}
    for each in planned:
        name = each.route.name
        seen[name] += 1
        named[name if seen[name] == 1 else f"{name} ({seen[name]})"] = each
    return named


def _items(planned: Mapping[str, Planned]) -> list[Any]:
    import pytest  # noqa: PLC0415 - as above

    return [
        pytest.param(name, case, id=f"{name} {case}")
        for name, each in planned.items()
        if not each.route.public
        for case in (_GOOD, *(case.id for case in each.cases))
    ]


def _result(report: RouteReport, case: str) -> Result:
    return next(result for result in report.results if result.case.id == case)


def _nobody(reports: Collection[RouteReport]) -> str:
    problems = "\n".join(f"{report.route}: {report.problem}" for report in reports if report.problem)
    return f"Nobody gets in: no route accepted a good token, so no refusal proves anything.\n{problems}"


def _opening(app: Any, client_id: str | None, public: Collection[str], base_url: str) -> tuple[Opening, bool]:
    """Return how the app is opened, and whether each refusal must have the expected reason.

    Raises:
        ConfigurationError: A Target says all this itself.
    """
    if not isinstance(app, Target):
        return OwnApp(app=app, client_id=client_id, public=public, base_url=base_url or BASE_URL), True
    if client_id is not None or public or base_url:
        raise ConfigurationError("A Target says by itself who may call it: write public= and base_url= there.")
    return app, False
