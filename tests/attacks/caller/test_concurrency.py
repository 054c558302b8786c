"""Lines 8 to 19 of the list: many who want one token at once, from wherever, and whatever becomes of them."""

import asyncio
import contextlib
import contextvars
import gc
import os
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import trio
from opentelemetry import context

from s2s_fastapi import ServiceTokenAuth, TokenRequestError, service_client
from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.engine.single_flight import running_trio
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.faults import answering, slow
from tests.attacks.caller.stack import SECONDS, TLS, asked, idle, in_asyncio, in_trio, settings
from tests.caller.fakes import Clock, Receiver, jwt, reply
from tests.testing.asking import SECRET

pytestmark = pytest.mark.usefixtures("source")


@contextlib.contextmanager
def threads(*works: Callable[[], Any]) -> Iterator[list[BaseException]]:
    """Run all at once; what one of them raises is collected."""
    failures: list[BaseException] = []
    start = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> None:
        try:
            start.wait(SECONDS)
            work()
        except BaseException as error:  # noqa: BLE001 - a thread would only print it
            failures.append(error)

    running = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in running:
        thread.start()
    yield failures
    for thread in running:
        thread.join(SECONDS)
    assert not any(thread.is_alive() for thread in running), "somebody waits for ever"


def many(auth: ServiceTokenAuth, count: int, found: list[str]) -> Callable[[], Any]:
    async def main() -> None:
        found.extend(await asyncio.gather(*(auth.atoken() for _ in range(count))))

    return lambda: asyncio.run(main())


def many_trio(auth: ServiceTokenAuth, count: int, found: list[str]) -> Callable[[], Any]:
    async def one() -> None:
        found.append(await auth.atoken())

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(one)

    return lambda: trio.run(main)


@pytest.mark.parametrize(
    ("in_threads", "in_tasks", "loops", "in_trio_tasks"), [(400, 0, 0, 0), (0, 900, 1, 0), (200, 200, 3, 100)]
)
def test_a_cold_burst_of_any_kind_makes_one_request(
    in_threads: int, in_tasks: int, loops: int, in_trio_tasks: int, issuer: EmbeddedIssuer
) -> None:
    issuer.faults.add("token", slow(0.5))
    auth = ServiceTokenAuth(audience="receiver")
    found: list[str] = []
    works: list[Callable[[], Any]] = [lambda: found.append(auth.token()) for _ in range(in_threads)]
    works += [many(auth, in_tasks, found) for _ in range(loops)]
    if in_trio_tasks:
        works.append(many_trio(auth, in_trio_tasks, found))
    with threads(*works) as failures:
        pass

    assert failures == []
    assert len(found) == in_threads + in_tasks * loops + in_trio_tasks
    assert (len(set(found)), len(asked(issuer))) == (1, 1)


def test_loop_after_loop_on_one_thread_serves_one_client_object(
    bob: Receiver, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    client = service_client(bob.url, audience="receiver")

    async def main() -> None:
        async with client as opened:
            if running_trio():
                async with trio.open_nursery() as nursery:
                    for _ in range(10):
                        nursery.start_soon(opened.get, "/")
            else:
                await asyncio.gather(*(opened.get("/") for _ in range(10)))

    for run in (in_asyncio, in_asyncio, in_trio, in_asyncio):
        run(main)
        clock.now += 400
    assert len(bob.seen) == 40
    assert len(asked(issuer)) == 4


@pytest.mark.parametrize("steps", range(8))
def test_the_first_who_asked_may_be_cancelled_at_any_step(steps: int, bob: Receiver, issuer: EmbeddedIssuer) -> None:
    issuer.faults.add("token", slow(0.1))
    auth = ServiceTokenAuth(bob.url, audience="receiver")

    async def main() -> list[Any]:
        async with httpx.AsyncClient(auth=auth, verify=TLS) as client:
            first = asyncio.create_task(client.get(bob.url))
            for _ in range(steps):
                await asyncio.sleep(0)
            others = [asyncio.create_task(client.get(bob.url)) for _ in range(5)]
            first.cancel()
            found = await asyncio.gather(*others, return_exceptions=True)
            with contextlib.suppress(asyncio.CancelledError):
                await first
            return found

    assert [getattr(one, "status_code", one) for one in asyncio.run(main())] == [200] * 5
    assert len(asked(issuer)) == 1


@pytest.mark.parametrize("steps", range(4))
def test_so_may_a_trio_task(steps: int, bob: Receiver, issuer: EmbeddedIssuer) -> None:
    issuer.faults.add("token", slow(0.1))
    auth = ServiceTokenAuth(bob.url, audience="receiver")
    found: list[int] = []

    async def one(client: httpx.AsyncClient) -> None:
        found.append((await client.get(bob.url)).status_code)

    async def main() -> None:
        async with httpx.AsyncClient(auth=auth, verify=TLS) as client, trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(one, client)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
                await one(client)
            for _ in range(4):
                nursery.start_soon(one, client)

    trio.run(main)
    assert found == [200] * 5
    assert len(asked(issuer)) == 1


def test_a_call_that_gives_up_before_the_token_comes_leaves_it_for_the_next(
    bob: Receiver, issuer: EmbeddedIssuer
) -> None:
    issuer.faults.add("token", slow(0.3))
    auth = ServiceTokenAuth(bob.url, audience="receiver")

    async def main() -> int:
        async with httpx.AsyncClient(auth=auth, verify=TLS) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.get(bob.url)
            return (await client.get(bob.url)).status_code

    assert asyncio.run(main()) == 200
    assert (len(bob.seen), len(asked(issuer))) == (1, 1)


def test_each_of_those_who_waited_gets_an_error_of_its_own_and_the_next_try_comes(
    issuer: EmbeddedIssuer, clock: Clock
) -> None:
    issuer.faults.add("token", slow(0.2) & answering(503))
    auth = ServiceTokenAuth(audience="receiver")
    with threads(*[auth.token] * 50) as failures:
        pass

    assert {type(error) for error in failures} == {TokenRequestError}
    assert len({id(error) for error in failures}) == 50
    assert max(len(traceback.extract_tb(error.__traceback__)) for error in failures) < 15
    assert all(error.__cause__ is error.__context__ is None for error in failures)
    assert len(asked(issuer)) == 1
    clock.now += 6
    assert auth.token()


def test_a_loop_that_ended_while_the_token_was_under_way_keeps_nobody_waiting(issuer: EmbeddedIssuer) -> None:
    issuer.faults.add("token", slow(0.4))
    auth = ServiceTokenAuth(audience="receiver")

    async def give_up() -> None:
        task = asyncio.create_task(auth.atoken())
        await asyncio.sleep(0.05)
        assert not task.done()

    asyncio.run(give_up())  # its end cancels the task that asked first
    assert auth.token()
    assert len(asked(issuer)) == 1


def test_a_blocking_call_on_the_loop_while_a_task_of_it_waits_for_the_same_comes_back(issuer: EmbeddedIssuer) -> None:
    issuer.faults.add("token", slow(0.3))
    auth = ServiceTokenAuth(audience="receiver")

    async def main() -> tuple[str, str]:
        task = asyncio.create_task(auth.atoken())
        await asyncio.sleep(0.05)
        blocking = auth.token()
        return blocking, await task

    one, other = asyncio.run(main())
    assert one == other
    assert len(asked(issuer)) == 1


# Line 16

POOL = """
import os, sys, threading, time
from s2s_fastapi import ServiceTokenAuth
from s2s_fastapi.caller import shared_token, token_source

# Four children import the same at once. On a busy machine that takes longer than the 5 s that each waits for its token.
shared_token.DEADLINE = token_source.DEADLINE = 60.0
auth = ServiceTokenAuth("http://bob:8000", audience="receiver")
first = auth.token() if {preload!r} == "with a token" else None
if {preload!r} == "with a load under way":
    threading.Thread(target=auth.token, daemon=True).start()
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        try:
            token = auth.token()
            os._exit(0 if first in (None, token) and auth.token() == token else 3)
        finally:
            os._exit(4)
    children.append(child)
    if {preload!r} == "with a load under way":
        time.sleep(0.03)  # the load begins with imports, then it is on its way
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
assert auth.token() == auth.token()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize(
    ("preload", "requests"), [("nothing", [5]), ("with a token", [1]), ("with a load under way", [1, 2, 3, 4, 5])]
)
def test_workers_that_were_forked_from_a_preloaded_app_have_its_token_or_ask_for_one_each(
    preload: str, requests: list[int], issuer: EmbeddedIssuer
) -> None:
    if preload == "with a load under way":
        issuer.faults.add("token", slow(0.5))
    # The last of them forks while threads run: that is what it is about, and what Python warns of.
    script(POOL.format(preload=preload), "-W", "ignore::DeprecationWarning")

    assert len(asked(issuer)) in requests
    assert {exchange.status for exchange in asked(issuer)} == {200}


def script(text: str, *options: str) -> str:
    """Run a script in an interpreter of its own; it must end by itself and complain of nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", text], capture_output=True, text=True, timeout=180, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


SPAWN = """
import multiprocessing, pickle
from s2s_fastapi import ServiceTokenAuth

auth = ServiceTokenAuth("http://bob:8000", audience="receiver")

if __name__ == "__main__":
    auth.token()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        both = pool.map(ServiceTokenAuth.token, [auth, auth.asking(min_validity=30)], chunksize=1)
    assert all(both)
"""


def test_a_spawned_worker_gets_the_object_and_asks_for_its_own_token(issuer: EmbeddedIssuer, tmp_path: Any) -> None:
    (tmp_path / "main.py").write_text(SPAWN)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(tmp_path / "main.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert 2 <= len(asked(issuer)) <= 3


# Line 17


def test_objects_that_are_collected_while_their_token_is_under_way_leave_nothing_behind(issuer: EmbeddedIssuer) -> None:
    issuer.faults.add("token", slow(0.3))
    gone = weakref.ref(_left_behind())
    idle()
    gc.collect()

    assert gone() is None
    assert len(asked(issuer)) == 1


def _left_behind() -> TokenSource:
    """Return a source whose token is under way, and for which nobody waits any more."""
    source = TokenSource()

    async def give_up() -> None:
        with using(source), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await ServiceTokenAuth(audience="receiver").atoken()

    asyncio.run(give_up())
    return source


LAST_WORDS = """
import atexit, threading, time
from s2s_fastapi import ServiceTokenAuth

auth = ServiceTokenAuth("http://bob:8000", audience="receiver")
{body}
"""


@pytest.mark.parametrize(
    "body",
    [
        "threading.Thread(target=auth.token, daemon=True).start(); time.sleep(0.2)",
        "atexit.register(lambda: print(bool(auth.token())))",
        "import _thread; _thread.start_new_thread(auth.token, ()); time.sleep(0.1)",
    ],
    ids=["a load under way", "a token wanted at the exit", "a thread nobody knows of"],
)
def test_the_interpreter_ends_and_says_nothing(body: str, issuer: EmbeddedIssuer) -> None:
    if "atexit" not in body:
        issuer.faults.add("token", slow(60))
    out = script(LAST_WORDS.format(body=body))

    assert out == ("True\n" if "atexit" in body else "")


@pytest.mark.parametrize("run", [in_asyncio, in_trio])
def test_a_client_that_is_closed_while_its_token_is_under_way_hurts_no_other(
    run: Any, bob: Receiver, issuer: EmbeddedIssuer
) -> None:
    issuer.faults.add("token", slow(0.3))
    auth = ServiceTokenAuth(bob.url, audience="receiver")

    async def main() -> int:
        client = httpx.AsyncClient(auth=auth, verify=TLS)
        with trio.move_on_after(0.05) if running_trio() else contextlib.suppress(TimeoutError):
            if running_trio():
                await client.get(bob.url)
            async with asyncio.timeout(0.05):
                await client.get(bob.url)
        await client.aclose()
        async with httpx.AsyncClient(auth=auth, verify=TLS) as other:
            return (await other.get(bob.url)).status_code

    assert run(main) == 200
    assert len(asked(issuer)) == 1


# Line 18


class Held:
    """A way to Keycloak that one client's requests do not come out of before they are let go."""

    def __init__(self) -> None:
        self.inside, self.go = threading.Event(), threading.Event()
        self._way = BackChannel(timeout=SECONDS)

    def post_form(self, url: str, form: dict[str, str], headers: dict[str, str] | None = None) -> Any:
        if form.get("client_id") == "another":
            self.inside.set()
            assert self.go.wait(SECONDS)
        return self._way.post_form(url, form, headers)


def test_a_token_that_takes_its_time_holds_up_no_other(issuer: EmbeddedIssuer, clock: Clock) -> None:
    way = Held()
    given = settings(issuer, "another", client_secret=f"{SECRET}-of-another", client_auth="client_secret_post")
    slow_one = ServiceTokenAuth(audience="receiver", settings=given)
    with using(TokenSource(channel=lambda _: way, clock=clock)):
        with threads(slow_one.token):
            assert way.inside.wait(SECONDS)
            quick = ServiceTokenAuth(audience="receiver")
            assert len({quick.token() for _ in range(100)}) == 1
            assert not way.go.is_set()
            way.go.set()
        assert slow_one.token() != quick.token()
    assert len(asked(issuer)) == 2


# Line 19


def test_a_renewal_behind_knows_nothing_of_the_request_that_caused_it(clock: Clock) -> None:
    theirs: contextvars.ContextVar[str] = contextvars.ContextVar("theirs", default="nobody")
    seen: list[tuple[str, set[str], int]] = []

    class Looking:
        def post_form(self, url: str, form: dict[str, str], headers: dict[str, str] | None = None) -> Any:
            names = {variable.name for variable in contextvars.copy_context()}
            seen.append((theirs.get(), names, len(context.get_current())))
            token = jwt(aud="receiver", iat=0, exp=300, number=len(seen))
            return reply(200, {"access_token": token, "token_type": "Bearer", "expires_in": 300})

    with using(TokenSource(channel=lambda _: Looking(), clock=clock)):
        auth = ServiceTokenAuth(audience="receiver")
        theirs.set("alice")
        auth.token()

        async def main() -> None:
            clock.now += 241
            async with asyncio.timeout(SECONDS):
                await auth.atoken()

        asyncio.run(main())
        idle()
    assert [who for who, _, _ in seen] == ["nobody", "nobody"]
    # Where somebody traces there is the span of the renewal itself, and what it says it was caused by; never more.
    assert seen[1][1] <= {"current_context", "s2s_fastapi.links", "s2s_fastapi.cause", "s2s_fastapi.reports"}
    assert seen[1][2] <= 1
