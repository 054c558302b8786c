"""A pytest plugin that puts a middleware into every FastAPI app of somebody else's tests.

``--in-front=middleware`` puts in `ServiceAuthMiddleware`, which trusts an embedded issuer. ``--in-front=undocumented`` puts in the
same middleware, but leaves the OpenAPI documents as FastAPI makes them. ``--in-front=nothing`` puts in one that only passes through.

The tests know nothing of tokens, and some send an ``Authorization`` header that their own app reads. So each app gets three layers,
as its innermost middleware. The first keeps the test's headers aside and sends a valid token. The second is the middleware. The third
puts the test's headers back, so that the app sees what the test sent.

``--results=FILE`` writes for each test its outcome, its error, how many requests came through the three layers, and how often it read
an OpenAPI document that the middleware had added to.
"""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from s2s_fastapi import KeycloakSettings, ServiceAuthMiddleware, TokenVerifier
from s2s_fastapi.declared.openapi import Documentation, _Documented
from s2s_fastapi.receiver.start import CheckedApp, Options, Start
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.verifier.keys import KeySource

_REALM: Final = Path(__file__).parents[2] / "example_app/realms/corp.json"
_KEPT: Final = "in_front.headers"
_COUNTS: Final = "in_front.counts"


class Issuer:
    """An embedded issuer, one token of it for the whole run, and its keys.

    Both are there before the first test, as in a service that has answered before: one of the tests counts the calls of
    ``json.dumps``, and others count which tasks wait for what.
    """

    def __init__(self) -> None:
        issuer = EmbeddedIssuer({**json.loads(_REALM.read_text()), "accessTokenLifespan": 7200})
        self.transport = issuer.transport
        self.settings = KeycloakSettings(url=issuer.url, realm="corp", client_id="crm-api-gateway")
        self.token = issuer.service_token("corp", "chat-app-service")
        verifier = TokenVerifier(self.settings, transport=self.transport)
        verifier.verify(self.token)
        self.keys = verifier.ready().keys


class Counts:
    """What the running test did so far."""

    requests = 0
    documents = 0


class SendsToken:
    """The first layer: it replaces the test's ``Authorization`` header by one with a valid token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app = app
        self._header = (b"authorization", f"Bearer {token}".encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            headers = scope[_KEPT] = scope["headers"]
            scope["headers"] = [*(header for header in headers if header[0].lower() != b"authorization"), self._header]
        await self.app(scope, receive, send)


class PassesThrough:
    """The second layer of the run that ours is compared with."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class RestoresHeaders:
    """The third layer: it puts the test's headers back, and counts the request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            scope["headers"] = scope.pop(_KEPT)  # in place: some tests keep the scope and look at it later
            Counts.requests += 1
        await self.app(scope, receive, send)


class InFront(ServiceAuthMiddleware):
    """The second layer: ours, with the keys of the issuer that it trusts."""

    def __init__(self, app: ASGIApp, issuer: Issuer, *, documented: bool) -> None:
        super().__init__(app, issuer.settings, transport=issuer.transport)
        self._start = _Start(self, app, self._start.options, issuer.keys, documented=documented)


class _Start(Start):
    def __init__(
        self, middleware: InFront, app: ASGIApp, options: Options, keys: KeySource, *, documented: bool
    ) -> None:
        super().__init__(middleware, app, options)
        self._keys = keys
        self._documented = documented

    def documentation(self, app: Any = None) -> Documentation:
        made = super().documentation(app)
        return made if self._documented else _NotInstalled(made.below, made.check, made.settings, made.root)

    def _checked(self, documentation: Documentation) -> CheckedApp:
        checked = super()._checked(documentation)
        checked.verifier.keys = self._keys
        return checked


class _NotInstalled(Documentation):
    def install(self) -> None:
        pass


def _second_layer(name: str, issuer: Issuer) -> Middleware:
    if name == "nothing":
        return Middleware(PassesThrough)
    return Middleware(InFront, issuer=issuer, documented=name == "middleware")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--in-front", choices=["middleware", "undocumented", "nothing"], required=True)
    parser.addoption("--results", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    patch = pytest.MonkeyPatch()
    issuer, name, build = Issuer(), config.getoption("--in-front"), FastAPI.build_middleware_stack

    def build_with_layers(app: FastAPI) -> ASGIApp:
        app.user_middleware += [
            Middleware(SendsToken, token=issuer.token),
            _second_layer(name, issuer),
            Middleware(RestoresHeaders),
        ]
        return build(app)

    documented = _Documented.__call__

    def count_and_document(self: _Documented) -> dict[str, Any]:
        Counts.documents += 1
        return documented(self)

    patch.setattr(_Documented, "__call__", count_and_document)
    patch.setattr(FastAPI, "build_middleware_stack", build_with_layers)
    config.add_cleanup(patch.undo)
    if not hasattr(config, "workerinput"):  # the process that hears of every test, with several workers too
        config.pluginmanager.register(_Results(config.getoption("--results")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    Counts.requests = Counts.documents = 0
    try:
        yield
    finally:
        item.user_properties.append((_COUNTS, [Counts.requests, Counts.documents]))


class _Results:
    """What became of each test."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._tests: dict[str, dict[str, Any]] = {}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._tests[report.nodeid] = _result(report, (0, 0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self._tests[report.nodeid] = _result(report, dict(report.user_properties).get(_COUNTS, (0, 0)))

    def pytest_sessionfinish(self) -> None:
        self._file.write_text(json.dumps(self._tests))


def _result(report: pytest.CollectReport | pytest.TestReport, counts: Any) -> dict[str, Any]:
    error = report.longreprtext if report.failed else ""
    return {"outcome": report.outcome, "error": error, "requests": counts[0], "documents": counts[1]}
