"""A service that calls another one with requests, before and after the move, in the situations of the guide."""

import runpy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.errors import S2SError
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.faults import slow
from tests.attacks.caller.stack import realm
from tests.caller.fakes import INVALID_TOKEN, Clock, Receiver, wait_until_idle
from tests.kit.calling import bob, charles
from tests.moving.test_moving import GUIDE, code_of
from tests.test_docs import tables
from tests.testing.asking import SECRET

__all__ = ["bob", "charles"]

HERE = Path(__file__).parent / "requests_service"


@pytest.fixture(scope="module")
def served() -> Iterator[EmbeddedIssuer]:
    with (issuer := EmbeddedIssuer(realm())).serving():
        yield issuer


@pytest.fixture
def situation(
    served: EmbeddedIssuer, bob: Receiver, charles: Receiver, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SimpleNamespace]:
    named = {"URL": served.url, "REALM": "corp", "CLIENT_ID": "caller", "CLIENT_SECRET": SECRET}
    for name, value in named.items():
        monkeypatch.setenv(f"KEYCLOAK_{name}", value)
    monkeypatch.setenv("CRM_URL", bob.url)
    monkeypatch.setenv("CRM_AUDIENCE", "receiver")
    served.requests.clear()
    yield SimpleNamespace(issuer=served, bob=bob, charles=charles, environment=monkeypatch, clock=Clock())
    wait_until_idle()


def call(module: dict[str, Any]) -> str:
    """Call the other service, and return what came of it as the guide writes it."""
    try:
        return str(module["tickets"]().status_code)
    except S2SError as error:
        return f"`{type(error).__name__}`"


def refused(there: SimpleNamespace, load: Callable[[], dict[str, Any]]) -> str:
    module = load()
    call(module)
    there.clock.now += 10  # we ask for another token at most once in 10 s
    there.bob.seen.clear()
    there.bob.answers = [(401, INVALID_TOKEN, b"")]
    return f"{call(module)}, {_times(len(there.bob.seen))}"


def unauthorized_by_the_business(there: SimpleNamespace, load: Callable[[], dict[str, Any]]) -> str:
    module = load()
    there.bob.answers = [(401, {}, b"")] * 2
    return f"{call(module)}, {_times(len(there.bob.seen))}"


def without_audience(there: SimpleNamespace, load: Callable[[], dict[str, Any]]) -> str:
    there.environment.setenv("CRM_AUDIENCE", "crm-api-gateway")
    return f"{call(load())}, {_times(len(there.bob.seen))}"


def redirected(there: SimpleNamespace, load: Callable[[], dict[str, Any]]) -> str:
    there.bob.answers = [(307, {"Location": there.charles.url}, b"")]
    came = call(load())
    return f"{came}, {_times(len(there.charles.seen))} there"


def proxied(there: SimpleNamespace, load: Callable[[], dict[str, Any]]) -> str:
    module = load()
    call(module)
    there.environment.setenv("http_proxy", there.charles.url)
    call(module)
    return "the proxy reads the token" if any(there.charles.tokens) else "not used"


def cold(there: SimpleNamespace, load: Callable[[], dict[str, Any]]) -> str:
    module = load()
    there.issuer.faults.add("token", slow(0.2), times=None)  # long enough that all ten find no token
    with ThreadPoolExecutor(10) as threads:
        list(threads.map(lambda _: call(module), range(10)))
    there.issuer.faults.clear()
    return "one token request" if len(there.issuer.requests("token")) == 1 else "up to ten token requests"


def _times(number: int) -> str:
    return {0: "no request", 1: "1 request"}.get(number, f"{number} requests")


SITUATIONS = {
    "The token is refused": refused,
    "A 401 without a challenge, as an answer of the business": unauthorized_by_the_business,
    "Keycloak leaves the audience out": without_audience,
    "A redirect to another origin": redirected,
    "`http_proxy` in the environment": proxied,
    "Ten threads at once, without a token": cold,
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_guide_says_what_comes_of_each_situation_before_and_after(name: str, situation: SimpleNamespace) -> None:
    row = next(row for table in tables(GUIDE) for row in table if row[0] == name)
    for file, cell in zip(("before", "after"), row[1:], strict=True):
        with using(TokenSource(clock=situation.clock)):
            assert SITUATIONS[name](situation, partial(runpy.run_path, str(HERE / f"{file}.py"))) == cell
        situation.bob.seen.clear()
        situation.charles.seen.clear()
        situation.bob.answers.clear()
        situation.issuer.requests.clear()
        situation.environment.delenv("http_proxy", raising=False)


def test_the_guide_counts_the_lines_of_both_programs_right() -> None:
    page = GUIDE.read_text(encoding="utf-8")
    for file in ("before", "after"):
        assert f"(../tests/moving/requests_service/{file}.py) | {len(code_of(HERE / f'{file}.py'))} |" in page
