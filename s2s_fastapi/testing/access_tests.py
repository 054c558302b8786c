"""One test for each route of an app and each kind of caller: who must be refused is refused, and who may call gets in.

``test_access = access_tests(app, expect="access.json")`` in a test module is all of it. See docs/testing-access.md.
"""

import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from s2s_fastapi.caller.wanted import Names
from s2s_fastapi.decision import Reason
from s2s_fastapi.declared.access_file import AccessFile, AppAccess, RouteEntry, difference
from s2s_fastapi.declared.public_paths import PublicPaths
from s2s_fastapi.declared.routes import read_access
from s2s_fastapi.declared.start_check import AccessCheck
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.receiver.middleware import ServiceAuthMiddleware
from s2s_fastapi.testing.access_cases import AccessCase, access_cases
from s2s_fastapi.testing.access_run import AccessOutcome, AccessRun
from s2s_fastapi.testing.attack.asgi import BASE_URL, AsgiSender, Outgoing
from s2s_fastapi.testing.attack.own import places_below
from s2s_fastapi.testing.found import find
from s2s_fastapi.testing.issuer import EmbeddedIssuer
from s2s_fastapi.testing.marked_endpoints import marked_endpoints
from s2s_fastapi.testing.trust import MADE_UP, Trusted
from s2s_fastapi.testing.unread import CURE, unread_apps

__all__ = ["UPDATE_OPTION", "AccessSuite", "access_tests", "check_access"]

UPDATE_OPTION: Final = "--s2s-update"
"""The option of pytest that writes the access file."""
_NOWHERE: Final = "/s2s-fastapi/no-such-path"
_THE_APP: Final = "the app can be tested"
_NO_ROUTE: Final = (
    "This app has no route to try. If it adds its routes when it starts, add them where you make it: its lifespan does not run here. Or "
    "pass a function that makes the whole app: access_tests(make)."
)


def access_tests(
    app: Any,
    *,
    expect: str | Path | None = None,
    client_id: str | None = None,
    audience: Names = None,
    headers: Mapping[str, str] | None = None,
    base_url: str = BASE_URL,
) -> Callable[..., None]:
    """Return a test for pytest with one item for each route and kind of caller.

    Assign it to a name that pytest collects: ``test_access = access_tests(app)``.

    - ``app`` is the app as it is in production, or a function without parameters that makes it.
    - ``expect`` is the reviewed access file, relative to the file that calls. It must equal what the app declares.
    - ``client_id``: the client that the app is, if its settings do not say it. It need not be given if the access file has one app, or
      if the routes name one audience.
    - ``audience``: what ``KEYCLOAK_AUDIENCE`` says in production, if that is not the client.
    - ``headers`` are sent with every request.
    - ``base_url``: the scheme and the host of every request, for an app that insists on them: ``"https://api.example.com"``.
    - Of the app's own code only middleware, exception handlers, route classes and overrides run: see `marked_endpoints`.
    """
    import pytest  # noqa: PLC0415 - it is only there if tests run

    suite = AccessSuite(app, _beside_the_caller(expect), client_id, headers or {}, base_url=base_url, audience=audience)

    @pytest.mark.parametrize("case", suite.names)
    def test_access(case: str, pytestconfig: pytest.Config) -> None:
        outcome = suite.outcome(case, update=bool(pytestconfig.getoption(UPDATE_OPTION, default=False)))
        if outcome.result == "not tried":
            pytest.skip(outcome.text)
        if outcome.result == "failed":
            pytest.fail(outcome.text, pytrace=False)

    return test_access


def check_access(
    app: Any,
    *,
    expect: str | Path | None = None,
    client_id: str | None = None,
    audience: Names = None,
    headers: Mapping[str, str] | None = None,
    base_url: str = BASE_URL,
) -> tuple[AccessOutcome, ...]:
    """Return the outcome of every case of `access_tests`, for unittest and scripts."""
    suite = AccessSuite(app, _beside_the_caller(expect), client_id, headers or {}, base_url=base_url, audience=audience)
    return tuple(suite.outcome(name) for name in suite.names)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What there is to try; read from the app before any request."""

    declared: AppAccess | None = None
    cases: tuple[AccessCase, ...] = ()
    elsewhere: tuple[AccessOutcome, ...] = ()
    """What is not tried, and why; and the apps that cannot be read, which fail."""
    problem: str = ""
    """Why nothing can be tried."""


@dataclass(frozen=True, slots=True)
class _Read:
    check: AccessCheck
    below: Any
    """What the routes were read from."""
    middleware: ServiceAuthMiddleware | None = None
    """The middleware on the app, or around it."""


class AccessSuite:
    """The access tests of one app. Requests are sent when the first outcome is asked for, all in one block."""

    def __init__(
        self,
        app: Any,
        expect: Path | None,
        client_id: str | None,
        headers: Mapping[str, str],
        *,
        base_url: str = BASE_URL,
        audience: Names = None,
    ) -> None:
        self._given = app
        self._expect = expect
        self._client_id = client_id
        self._audience = audience
        self._headers = headers
        self._base_url = base_url

    @cached_property
    def names(self) -> list[str]:
        """The names of the cases: the same in every process, and each one once."""
        plan = self._plan
        file = [self._expect.name] if self._expect is not None else []
        if plan.problem:
            return [*file, _THE_APP]
        return [*file, *(case.name for case in plan.cases), *(each.name for each in plan.elsewhere)]

    def outcome(self, name: str, *, update: bool = False) -> AccessOutcome:
        """Return how one case ended. With ``update``, the access file is written instead of compared."""
        if self._expect is not None and name == self._expect.name:
            return self._file(self._expect, update=update)
        if self._plan.problem:
            return AccessOutcome(name, "failed", self._plan.problem)
        return self._outcomes[name]

    @cached_property
    def _app(self) -> Any:
        app = self._given
        parameters = inspect.signature(app).parameters.values() if inspect.isfunction(app) else None
        made = parameters is not None and all(each.default is not each.empty for each in parameters)
        return app() if made else app

    @cached_property
    def _named(self) -> str | None:
        """The client that the app is, as far as the test or the access file says it."""
        if self._client_id is None and self._expect is not None and self._expect.exists():
            try:
                apps = AccessFile.read(self._expect).apps
            except ConfigurationError:
                return None  # said by the case of the file
            return apps[0].client_id if len(apps) == 1 else None
        return self._client_id

    @cached_property
    def _plan(self) -> _Plan:
        try:
            with self._trusted() as (_, trusted):
                read = self._read(trusted.client_id)
                middleware = read.middleware
                declared = AppAccess.of(read.check, middleware=middleware is not None)
                elsewhere = tuple(
                    AccessOutcome(
                        f"a middleware of its own ({number})",
                        "not tried",
                        "An app or a router below has a ServiceAuthMiddleware of its own: write access_tests for that app or "
                        "router, too. That of a Mount is its `app`.",
                    )
                    for number, other in enumerate(trusted.middlewares, 1)
                    if other is not middleware
                )
                unread = tuple(self._unread(read))
                bound = middleware is not None and middleware._start.options.dpop == "required"  # noqa: SLF001 - what the app was given
                own = [route for route in read.check.access.routes if not route.documentation]
        except ConfigurationError as error:
            return _Plan(problem=str(error))
        if not (own or elsewhere or unread):
            return _Plan(declared, problem=_NO_ROUTE)
        if middleware is None and self._expect is None and declared.routes:
            below = " Apps below it have one: write access_tests for each of them." if elsewhere else ""
            return _Plan(
                declared,
                problem="There is no ServiceAuthMiddleware on this app, so every route of its own is open. Add one: "
                f"app.add_middleware(ServiceAuthMiddleware).{below} If that is meant, review it: "
                'access_tests(app, expect="access.json").',
            )
        return _Plan(declared, tuple(_with_own_names(access_cases(declared, bound=bound))), (*elsewhere, *unread))

    @cached_property
    def _outcomes(self) -> dict[str, AccessOutcome]:
        """Every case, tried in one block: what of the app is exchanged is back before the next test of the session."""
        plan = self._plan
        with self._trusted() as (issuer, trusted), AsgiSender(self._app, base_url=self._base_url) as sender:
            read = self._read()
            routes = [(RouteEntry.of(route, read.check), route.entry) for route in read.check.access.routes]
            sender.send(Outgoing(method="GET", path=_NOWHERE))  # starts the middleware, before anything is marked
            failed = [each.cure for each in trusted.decisions if each.reason is Reason.NOT_STARTED]
            if failed:
                outcomes = (AccessOutcome(case.name, "failed", failed[0]) for case in plan.cases)
                return {each.name: each for each in (*outcomes, *plan.elsewhere)}
            with marked_endpoints(read.below) as marker:
                marked = {id(route.entry) for route in marker.marked}
                run = AccessRun(
                    issuer=issuer,
                    decisions=trusted.decisions,
                    sender=sender,
                    marker=marker,
                    entries=dict(reversed(routes)),  # of two equal ones the first one answers
                    unmarked=frozenset(route for route, entry in routes if id(entry) not in marked),
                    headers=self._headers,
                )
                outcomes = (run.outcome(case) for case in plan.cases)
                return {each.name: each for each in (*outcomes, *plan.elsewhere)}

    @contextmanager
    def _trusted(self) -> Iterator[tuple[EmbeddedIssuer, Trusted]]:
        issuer = EmbeddedIssuer.for_tests()
        with (
            _without_decisions(),
            issuer.trusted_by(self._app, client_id=self._named, audience=self._audience) as trusted,
        ):
            yield issuer, trusted

    def _read(self, client_id: str = "") -> _Read:
        """Read what the app declares. ``client_id`` is the app's own, if there is no middleware whose settings say it."""
        found = find(self._app)
        outermost = next(iter(found.outermost), None)
        for middleware, owner in found.middlewares:
            if id(middleware) not in found.below and (owner is None or owner is outermost):
                read = middleware.documentation(owner)
                return _Read(read.check, middleware if read.below is middleware.app else read.below, middleware)
        check = AccessCheck(
            access=read_access(self._app),
            public=PublicPaths(()),
            audiences=frozenset(),
            client_id=client_id,
            users=False,
            skip_audience=False,
        )
        return _Read(check, self._app)

    def _unread(self, read: _Read) -> Iterable[AccessOutcome]:
        """Return a failure for each app that requests may go to although no route leads there that can be read."""
        own = [place.app for place in places_below(self._app)][1:]  # each has a middleware and tests of its own
        readings = [read.check.access, read_access(self._app)]
        names = unread_apps(self._app, readings, opened=own)
        return [AccessOutcome(f"app {name}", "failed", CURE) for name in names]

    def _file(self, path: Path, *, update: bool) -> AccessOutcome:
        """Compare the access file with what the app declares, or write it."""
        declared = self._plan.declared
        if declared is None:
            return AccessOutcome(path.name, "failed", self._plan.problem)
        try:
            file = AccessFile.read(path) if path.exists() else None
        except ConfigurationError as error:
            return AccessOutcome(path.name, "failed", str(error))
        if declared.client_id == MADE_UP:
            text = (
                "Nothing says which client of Keycloak this app is: write access_tests(app, expect=..., client_id=...)."
            )
            return AccessOutcome(path.name, "failed", text)
        reviewed = None if file is None else file.app(declared.client_id)
        if reviewed == declared:
            return AccessOutcome(path.name, "held")
        if update:
            return _written(path, file, declared if reviewed is None else declared.with_origins_of(reviewed))
        cure = f"Look at what the app declares, then write the file with `pytest {UPDATE_OPTION}`, and review it."
        if file is None:
            return AccessOutcome(path.name, "failed", f"There is no access file {path}. {cure}")
        if reviewed is None:
            known = ", ".join(app.client_id for app in file.apps)
            text = f"{path} has no app {declared.client_id}, only {known}. Say with client_id= which one it is. {cure}"
            return AccessOutcome(path.name, "failed", text)
        lines = difference(reviewed, declared, name=path.name)
        text = f"{path} is not what the app declares. If the app is right, write the file with `pytest {UPDATE_OPTION}`, and review it.\n{lines}"
        return AccessOutcome(path.name, "failed", text)


def _written(path: Path, file: AccessFile | None, declared: AppAccess) -> AccessOutcome:
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        text = f"{UPDATE_OPTION} writes nothing where CI is set: write {path} on your machine, and commit it after a review."
        return AccessOutcome(path.name, "failed", text)
    path.write_text((file or AccessFile(())).with_app(declared).text, encoding="utf-8")
    return AccessOutcome(path.name, "not tried", f"{path} was written. Review it, commit it, and run the tests again.")


@contextmanager
def _without_decisions() -> Iterator[None]:
    """Keep refusals out of the log: there are hundreds, they are wanted, and the outcome of a case says what happened."""

    def drop(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    loggers = [logging.getLogger(name) for name in ("s2s_fastapi.decisions", "s2s_fastapi.testing")]
    for logger in loggers:
        logger.addFilter(drop)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(drop)


def _with_own_names(cases: list[AccessCase]) -> Iterator[AccessCase]:
    """Yield each case once: routes that are declared twice have the same cases, unless they require something else."""
    seen: dict[str, int] = {}
    for case in dict.fromkeys(cases):
        seen[case.name] = number = seen.get(case.name, 0) + 1
        yield case if number == 1 else replace(case, what=f"{case.what} (declared {number} times)")


def _beside_the_caller(expect: str | Path | None) -> Path | None:
    """Return the path of the access file, relative to the file in which a public function of this module was called."""
    if expect is None:
        return None
    file = sys._getframe(2).f_globals.get("__file__")  # noqa: SLF001 - the one way to know
    return (Path(file).parent if file else Path()) / expect
