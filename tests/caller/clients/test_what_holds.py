"""The table of docs/other-clients.md: each cell is measured on sockets, or says why there is nothing to measure."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from s2s_fastapi import ServiceTokenAuth, TokenWithheld
from tests.caller.fakes import Clock, Receiver, receiver
from tests.kit.other_clients import GrpcReceiver, by_aiohttp, by_call_credentials, by_grpc, by_requests, grpc_receiver
from tests.test_docs import DOCS, tables

pytestmark = pytest.mark.usefixtures("source")

PAGE = DOCS / "other-clients.md"
INBOUND_HEADER = "x-forwarded-access-token"
Ask = Callable[..., int]
AnyReceiver = Receiver | GrpcReceiver


def by_httpx(auth: ServiceTokenAuth, url: str, headers: Any = None, body: Any = b"text", **options: Any) -> int:
    with httpx.Client(auth=auth, follow_redirects=True, trust_env=options.get("trust_env", True)) as client:
        return client.post(url, content=body, headers=headers).status_code


def by_function(auth: ServiceTokenAuth, url: str, headers: Any = None, body: Any = b"text") -> int:
    """What an SDK does that got ``auth.token``."""
    with httpx.Client(headers={"Authorization": f"Bearer {auth.token()}"}, trust_env=False) as client:
        return client.post(url, content=body, headers=headers).status_code


WAYS: dict[str, Ask] = {
    "httpx": by_httpx,
    "requests": by_requests,
    "aiohttp": by_aiohttp,
    "gRPC channel": by_grpc,
    "gRPC call credentials": by_call_credentials,
    "a function": by_function,
}


@pytest.fixture
def there(way: str) -> Iterator[AnyReceiver]:
    """The receiver of a way."""
    if way.startswith("gRPC"):
        with grpc_receiver("https" if way == "gRPC call credentials" else "http") as grpc_bob:
            yield grpc_bob
    else:
        with receiver() as bob:
            yield bob


def outcome(ask: Ask, auth: ServiceTokenAuth, *args: Any, **options: Any) -> int:
    """Return the status, 0 if our error said that nothing was sent."""
    try:
        return ask(auth, *args, **options)
    except TokenWithheld:
        return 0


class Probe:
    """What is asked of each way."""

    def __init__(
        self, ask: Ask, there: AnyReceiver, clock: Clock, *, inbound: str, charles: Receiver, environment: Any
    ) -> None:
        self.ask = ask
        self.there = there
        self.clock = clock
        self.inbound = inbound
        self.charles = charles
        self.environment = environment
        self.auth = ServiceTokenAuth(there.url)

    def sent(self) -> bool:
        return bool(self.there.tokens)

    def another_origin_gets_no_token(self) -> bool:
        outcome(self.ask, self.auth.asking(origins=["https://another.example"]), self.there.url)
        return not self.sent()

    def a_redirect_to_another_origin_takes_no_token_along(self) -> bool:
        assert isinstance(self.there, Receiver)
        self.there.answers = [(307, {"Location": self.charles.url}, b"")]
        outcome(self.ask, self.auth, self.there.url)
        assert self.sent()
        return not any(self.charles.tokens)

    def such_a_redirect_raises(self) -> bool:
        assert isinstance(self.there, Receiver)
        self.there.answers = [(307, {"Location": self.charles.url}, b"")]
        return outcome(self.ask, self.auth, self.there.url) == 0

    def no_proxy_of_the_environment_is_used(self) -> bool:
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            self.environment.setenv(name, self.charles.url)
        outcome(self.ask, self.auth, self.there.url)
        return self.sent()

    def an_authorization_of_your_own_raises(self) -> bool:
        return outcome(self.ask, self.auth, self.there.url, {"authorization": "Bearer theirs"}) == 0

    def the_token_of_the_current_request_is_found(self) -> bool:
        outcome(self.ask, self.auth, self.there.url, {INBOUND_HEADER: self.inbound})
        return not self.sent()

    def a_refused_request_is_sent_once_more(self) -> bool:
        self.auth.token()
        self.clock.now += 10
        self.there.refuse()
        return outcome(self.ask, self.auth, self.there.url) == 200

    def after_a_refusal_the_next_call_has_another_token(self) -> bool:
        self.auth.token()
        self.clock.now += 10
        self.there.refuse()
        outcome(self.ask, self.auth, self.there.url)
        outcome(self.ask, self.auth, self.there.url)
        return self.there.tokens[0] != self.there.tokens[-1]

    def a_body_that_can_be_read_once_is_sent_once(self) -> bool:
        def body() -> Iterator[bytes]:
            yield b"text"

        async def chunks() -> Any:
            yield b"text"

        self.auth.token()
        self.clock.now += 10
        self.there.refuse()
        status = outcome(self.ask, self.auth, self.there.url, body=chunks() if self.ask is by_aiohttp else body())
        return (status, len(self.there.tokens)) == (401, 1)


ROWS: dict[str, str] = {
    name.replace("_", " "): name for name in vars(Probe) if not name.startswith("_") and name != "sent"
}


def cells() -> dict[tuple[str, str], str]:
    """Return the cells of the table, by row and column."""
    found = next(table for table in tables(PAGE) if len(table[0]) == len(WAYS) + 1)
    return {(row[0].lower(), way): cell for row in found for way, cell in zip(WAYS, row[1:], strict=True)}


GRPC = [way for way in WAYS if way.startswith("gRPC")]
NOTHING_TO_MEASURE = {
    *((row, way) for row in ROWS if "redirect" in row for way in (*GRPC, "a function")),
    *((row, way) for row in ROWS if "body" in row for way in GRPC),
    *((row, way) for row in ROWS if "proxy" in row for way in ("gRPC call credentials", "a function")),
    ("an authorization of your own raises", "a function"),
}
MEASURED = [(row, way) for row in ROWS for way in WAYS if (row, way) not in NOTHING_TO_MEASURE]


@pytest.fixture
def probe(way: str, there: AnyReceiver, clock: Clock, inbound: str, charles: Receiver, environment: Any) -> Probe:  # noqa: PLR0917 - fixtures
    return Probe(WAYS[way], there, clock, inbound=inbound, charles=charles, environment=environment)


@pytest.mark.parametrize(("row", "way"), MEASURED)
def test_each_cell_says_what_was_measured(row: str, way: str, probe: Probe) -> None:
    assert cells()[row, way] == ("yes" if getattr(probe, ROWS[row])() else "no")


def test_the_table_has_these_rows_and_says_where_there_is_nothing_to_measure() -> None:
    assert {row for row, _ in cells()} == set(ROWS)
    assert {key for key, cell in cells().items() if cell == "–"} == NOTHING_TO_MEASURE
