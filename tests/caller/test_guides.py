"""The tables of the guides for callers are what the code does."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

import httpx
import httpx2
import pytest
from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

from s2s_fastapi import ServiceTokenAuth, TokenRequestError, service_client, service_lifespan
from s2s_fastapi.backchannel.channel import BackChannelError
from s2s_fastapi.caller.granted import GrantedToken
from s2s_fastapi.caller.shared_token import RENEWAL_SPACING
from s2s_fastapi.caller.token_endpoint import _kept
from s2s_fastapi.engine.loaded import Held
from tests.caller.fakes import Clock, Keycloak, Receiver, wait_until_idle

DOCS = Path(__file__).resolve().parents[2] / "docs"


def table(page: str, first_column: str) -> list[list[str]]:
    """Return the rows of a page's table by the title of its first column."""
    path = DOCS / page
    if not path.exists():
        pytest.skip("the documentation is not part of this installation")
    lines = path.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first_column} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_the_arithmetic_of_many_workers_is_the_codes() -> None:
    for row in table("many-workers.md", "tokens live"):
        life = float(row[0].removesuffix(" s"))
        loaded = _kept(GrantedToken(value="t", life=life))
        earliest, latest = (Held.of(loaded, 0.0, jitter).fresh_until for jitter in (1.0, 0.0))
        spread = latest - earliest

        assert row == [
            f"{life:.0f} s",
            f"{earliest:.0f} to {latest:.0f} s",
            f"{loaded.usable_for:.0f} s",
            f"{loaded.usable_for - latest:.0f} s",
            f"{1000 / ((earliest + latest) / 2):.2g}",
            f"{1000 / spread:.{0 if spread < 100 else 1}f} per second for {spread:.0f} s",
        ]


@pytest.mark.usefixtures("source")
def test_an_app_that_calls_two_services_has_a_token_for_each(
    bob: Receiver, charles: Receiver, keycloak: Keycloak
) -> None:
    keycloak.aud = ["bob", "charles"]
    to_bob = service_client(bob.url, audience="bob")
    to_charles = service_client(lambda: charles.url, audience="charles", client_class=httpx2.AsyncClient, timeout=20.0)
    app = FastAPI(lifespan=service_lifespan(to_bob, to_charles))

    @app.get("/")
    async def both(
        one: Annotated[httpx.AsyncClient, Depends(to_bob)], other: Annotated[httpx2.AsyncClient, Depends(to_charles)]
    ) -> list[int]:
        return [(await one.get("/")).status_code, (await other.get("/")).status_code]

    with TestClient(app) as client:
        assert [client.get("/").json() for _ in range(3)] == [[200, 200]] * 3
    assert len(keycloak.requests) == 2
    assert len(set(bob.tokens)) == len(set(charles.tokens)) == 1
    assert bob.tokens[0] != charles.tokens[0]


async def chunks() -> AsyncIterator[bytes]:
    yield b"text"


BODIES: dict[str, list[Callable[[], dict[str, Any]]]] = {
    "none": [dict],
    "`content=` bytes or text": [lambda: {"content": b"text"}, lambda: {"content": "text"}],
    "`json=`": [lambda: {"json": {"a": 1}}],
    "`data=` a form": [lambda: {"data": {"a": "1"}}],
    "`files=`": [lambda: {"files": {"f": ("name", b"text")}}],
    "`content=` an open file": [
        lambda: {"content": io.BytesIO(b"text")},
        lambda: {"content": io.BufferedReader(io.FileIO(__file__))},
    ],
    "`content=` a list or an iterator of bytes": [lambda: {"content": [b"text"]}, lambda: {"content": iter([b"text"])}],
    "`content=` an async iterator, such as the `stream()` of the current request": [lambda: {"content": chunks()}],
}


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("package", [httpx, httpx2])
def test_the_table_of_bodies_says_which_are_sent_again(package: Any, bob: Receiver, clock: Clock) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    rows = {body: answer == "yes" for body, answer in table("call-another-service.md", "body")}
    assert rows.keys() == BODIES.keys()

    async def post(given: dict[str, Any]) -> int:
        async with package.AsyncClient(auth=auth, trust_env=False) as client:
            status: int = (await client.post(bob.url, **given)).status_code
            return status

    def send(given: dict[str, Any], body: str) -> int:
        if "async" in body:
            return asyncio.run(post(given))
        with package.Client(auth=auth, trust_env=False) as client:
            status: int = client.post(bob.url, **given).status_code
            return status

    for body, again in rows.items():
        for make in BODIES[body]:
            clock.now += RENEWAL_SPACING + 1
            bob.seen.clear()
            bob.refuse()
            given = make()
            status = send(given, body)
            content: Any = given.get("content")
            if isinstance(content, io.IOBase):
                content.close()
            assert (status, len(bob.seen)) == ((200, 2) if again else (401, 1)), body
            bob.answers.clear()


@pytest.mark.usefixtures("source")
class TestTheTableOfAnOutageSaysWhatACallDoes:
    """Its rows, for tokens of 300 s: Keycloak goes as soon as the token is there."""

    @pytest.fixture
    def auth(self, bob: Receiver, keycloak: Keycloak) -> ServiceTokenAuth:
        auth = ServiceTokenAuth(bob.url)
        auth.token()
        keycloak.always = BackChannelError("the connection was refused")
        return auth

    def call(self, auth: ServiceTokenAuth, bob: Receiver) -> int:
        """Call, and let a load in the background end."""
        with httpx.Client(auth=auth, trust_env=False) as client:
            status = client.get(bob.url).status_code
        wait_until_idle()
        return status

    def test_with_a_fresh_token(self, auth: ServiceTokenAuth, bob: Receiver, keycloak: Keycloak, clock: Clock) -> None:
        clock.now += 215.9

        assert self.call(auth, bob) == 200
        assert len(keycloak.requests) == 1

    def test_with_one_that_is_to_be_renewed(
        self, auth: ServiceTokenAuth, bob: Receiver, keycloak: Keycloak, clock: Clock
    ) -> None:
        clock.now += 240
        assert self.call(auth, bob) == 200
        clock.now += 4.9
        assert self.call(auth, bob) == 200
        assert len(keycloak.requests) == 2

        clock.now += 0.7
        assert self.call(auth, bob) == 200
        assert len(keycloak.requests) == 3

    def test_with_one_that_is_over_and_after_the_outage(
        self, auth: ServiceTokenAuth, bob: Receiver, keycloak: Keycloak, clock: Clock
    ) -> None:
        clock.now += 290
        for _ in range(2):
            with pytest.raises(TokenRequestError) as failed:
                self.call(auth, bob)
            assert failed.value.retryable
            clock.now += 4.9
        assert (len(bob.seen), len(keycloak.requests)) == (0, 2)

        keycloak.always = None
        clock.now += 0.7
        assert self.call(auth, bob) == 200

    def test_with_one_that_is_refused(
        self, auth: ServiceTokenAuth, bob: Receiver, keycloak: Keycloak, clock: Clock
    ) -> None:
        clock.now += 10
        bob.refuse(3)
        assert self.call(auth, bob) == 401
        clock.now += 9.9
        assert self.call(auth, bob) == 401
        assert len(keycloak.requests) == 2

        clock.now += 0.2
        assert self.call(auth, bob) == 401
        assert (len(bob.seen), len(keycloak.requests)) == (3, 3)

    def test_at_the_times_it_names(self) -> None:
        fresh, due, *_ = (row[0] for row in table("when-keycloak-fails.md", "the token"))

        assert "216 to 240 s" in fresh
        assert "up to 290 s" in due
