"""The pytest plugin of s2s_fastapi: fixtures to test a service as it is, without a Keycloak. See docs/testing.md.

It stands outside of the package and imports nothing of it, no web framework and no HTTP client, before a test asks for a fixture.
``-p no:s2s_fastapi`` turns it off.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from s2s_fastapi.testing import EmbeddedIssuer
    from s2s_fastapi.testing.clients import TrustingAsyncClient, TrustingClient

_REALM_FILES = "s2s_realm_files"
_MISSING = "it is unknown where Keycloak is"
_NOTE = (
    "In a test, give the app a test issuer instead: `client = client_of(app)`, with the fixture client_of. If the code has a TokenVerifier, name"
    " it as well: `client_of(app, verifier)`. No environment variable is needed."
)
_NOT_STARTED = "not_started"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting for realm files, and the option that writes access files."""
    parser.addini(
        _REALM_FILES,
        "Keycloak realm files of the test issuer, relative to this file. Without them a client exists as soon as a test names it.",
        type="paths",
        default=[],
    )
    parser.getgroup("s2s_fastapi").addoption(
        "--s2s-update",
        action="store_true",
        help="Write the access files of access_tests as the apps declare it, instead of comparing. Refused where CI is set.",
    )


@pytest.fixture
def keycloak_issuer(pytestconfig: pytest.Config) -> "EmbeddedIssuer":
    """Return the test issuer, a new one for each test. It reads nothing of the environment."""
    from s2s_fastapi.testing import EmbeddedIssuer  # noqa: PLC0415 - the point of this module

    issuer = EmbeddedIssuer.for_tests()
    files = pytestconfig.getini(_REALM_FILES)
    if files:
        issuer.load(*files)
    return issuer


@pytest.fixture
def client_of(keycloak_issuer: "EmbeddedIssuer") -> "Iterator[Callable[..., TrustingClient]]":
    """Return `s2s_fastapi.testing.client_of` for the issuer of the test; the clients are closed at its end."""
    from s2s_fastapi.testing import client_of as opened  # noqa: PLC0415 - as above

    with ExitStack() as stack:

        def client_of(app: Any, *also: Any, **options: Any) -> "TrustingClient":
            return stack.enter_context(opened(app, *also, **{"issuer": keycloak_issuer, **options}))

        yield client_of


@pytest.fixture
def async_client_of(
    keycloak_issuer: "EmbeddedIssuer",
) -> "Callable[..., AbstractAsyncContextManager[TrustingAsyncClient]]":
    """Return `s2s_fastapi.testing.async_client_of` for the issuer of the test.

    ``async with async_client_of(app) as client: ...``
    """
    from s2s_fastapi.testing import async_client_of as opened  # noqa: PLC0415 - as above

    def async_client_of(app: Any, *also: Any, **options: Any) -> "AbstractAsyncContextManager[TrustingAsyncClient]":
        return opened(app, *also, **{"issuer": keycloak_issuer, **options})

    return async_client_of


@pytest.fixture
def as_service(keycloak_issuer: "EmbeddedIssuer") -> "Callable[..., Any]":
    """Return `EmbeddedIssuer.as_service` of the issuer of the test."""
    return keycloak_issuer.as_service


@pytest.fixture
def as_user(keycloak_issuer: "EmbeddedIssuer") -> "Callable[..., Any]":
    """Return `EmbeddedIssuer.as_user` of the issuer of the test."""
    return keycloak_issuer.as_user


@pytest.fixture
def service_environment(keycloak_issuer: "EmbeddedIssuer") -> "Iterator[Callable[..., dict[str, str]]]":
    """Return `EmbeddedIssuer.service_environment`, while the issuer of the test is on a loopback socket: for services in processes."""
    with keycloak_issuer.serving():
        yield keycloak_issuer.service_environment


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(call: "pytest.CallInfo[None]") -> None:
    """Say at a missing setting what a test does instead of setting it."""
    for error in _chain(call.excinfo.value if call.excinfo is not None else None):
        if (
            type(error).__module__ == "s2s_fastapi.errors"
            and type(error).__name__ == "ConfigurationError"
            and _MISSING in str(error)
            and _NOTE not in getattr(error, "__notes__", ())
        ):
            error.add_note(_NOTE)


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """Say why requests of failed tests were answered 500 if their app had not started: the answer itself does not say it."""
    failed = [
        report.nodeid
        for outcome in ("failed", "error")
        for report in terminalreporter.getreports(outcome)
        if any(f"failed 500: {_NOT_STARTED}" in text for _, text in getattr(report, "sections", ()))
    ]
    if failed:
        terminalreporter.section("apps that had not started (s2s_fastapi)")
        for nodeid in failed:
            terminalreporter.line(nodeid)
        terminalreporter.line(f"Their captured log says which setting is missing or wrong. {_NOTE}")


def _chain(error: BaseException | None) -> "Iterator[BaseException]":
    """Yield an exception, its causes and its members."""
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting += [
            found.__cause__,
            found.__context__,
            *(found.exceptions if isinstance(found, BaseExceptionGroup) else ()),
        ]
