"""The replay store in Redis: a real redis-server, and servers that lose answers, hang, or say something else."""

import asyncio
import contextvars
import copy
import gc
import pickle
import re
import selectors
import socket
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis as client
import trio

from s2s_fastapi.errors import ConfigurationError, ReplayStoreUnavailable
from s2s_fastapi.redis import RedisReplayStore
from tests.kit.authority import make_authority
from tests.kit.forks import in_child, needs_fork
from tests.kit.redis_server import Proxy, RedisServer, answering, free_port, needs_redis

PASSWORD = "correct-horse-battery-staple-7"
KEY = bytes(range(32))
DOWN = "redis://127.0.0.1:9"  # the discard port: nobody listens


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def empty(server: RedisServer) -> RedisServer:
    with client.Redis(port=server.port) as asked:
        asked.flushall()
    return server


PATIENT = 2.0
"""Seconds, in tests where time is not the point: other tests run beside them."""


@asynccontextmanager
async def open_store(url: str, **options: Any) -> AsyncIterator[RedisReplayStore]:
    store = RedisReplayStore(url, **options)
    if "timeout" not in options:
        store._timeout = PATIENT
    try:
        yield store
    finally:
        await store.aclose()


async def why_unavailable(url: str, **options: Any) -> str:
    """Return the sentence; nothing that hangs on the error may lead to the frames below."""
    async with open_store(url, **options) as store:
        with pytest.raises(ReplayStoreUnavailable) as raised:
            await store.first_use(KEY, 45)
    assert raised.value.__context__ is None
    assert raised.value.__cause__ is None
    return str(raised.value)


# What is written


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:6379",
        "http://127.0.0.1:6379",
        "valkey://127.0.0.1:6379",
        "redis://",
        "redis:///0",
        "redis://host:6379/zero",
        "redis://host:6379/0/1",
        "redis://host:66666",
        "redis://host?db=one",
        "redis://host#0",
        "unix://",
        "unix://host/path",
        f"redis://user:{PASSWORD}/more@host:6379",
        f"redis://user:{PASSWORD}?more=1@host:6379",
        f"redis://user:{PASSWORD}#more@host:6379",
        f"redis://:12345?{PASSWORD}=1@host:6379",
    ],
)
def test_what_is_no_url_of_a_redis_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is not the URL of a Redis") as raised:
        RedisReplayStore(url)
    assert PASSWORD not in shown(raised.value)


@pytest.mark.parametrize(
    "option",
    [
        "socket_timeout=60",
        "retry_on_timeout=true",
        "protocol=3",
        "max_connections=1",
        f"password={PASSWORD}",
        "ssl_cert_reqs=none",
        "ssl_check_hostname=false",
        "ssl_ca_certs=/ca.pem",  # without TLS
    ],
)
def test_an_option_that_changes_limits_or_trust_is_refused(option: str) -> None:
    with pytest.raises(ConfigurationError, match="option that is not supported") as raised:
        RedisReplayStore(f"redis://host/0?{option}")
    assert PASSWORD not in shown(raised.value)


def shown(error: BaseException) -> str:
    """Return the text of an error and what an error tracker shows of our frames: their locals."""
    ours = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if "/s2s_fastapi/" in frame.f_code.co_filename]
    return f"{error!r} {[frame.f_locals for frame in ours]}"


@pytest.mark.parametrize("timeout", [0, -1, 0.51, 5, float("nan"), float("inf"), True])
def test_a_limit_above_half_a_second_is_refused(timeout: float) -> None:
    with pytest.raises(ConfigurationError, match=r"from 0\.01 to 0\.5"):
        RedisReplayStore(DOWN, timeout=timeout)


@pytest.mark.parametrize("prefix", ["a:b", "crm*", "crm?", "[crm]", "a b", "crm\n", "é", "x" * 101])
def test_a_prefix_that_is_a_pattern_or_no_plain_name_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix="):
        RedisReplayStore(DOWN, prefix=prefix)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        (f"redis://user:{PASSWORD}@redis.internal:6380/3", "redis://redis.internal:6380/3"),
        (f"rediss://:{PASSWORD}@redis.internal?ssl_keyfile=/secret.pem", "rediss://redis.internal"),
        (f"unix://:{PASSWORD}@/run/redis/redis.sock?db=2", "unix:///run/redis/redis.sock"),
        ("redis://[::1]:6379", "redis://[::1]:6379"),
    ],
)
def test_its_repr_names_the_server_and_no_secret(url: str, seen: str) -> None:
    assert repr(RedisReplayStore(url, prefix="crm")) == f"RedisReplayStore('{seen}', prefix='crm')"


def test_it_is_not_pickled_and_a_copy_is_itself() -> None:
    store = RedisReplayStore(f"redis://:{PASSWORD}@host")

    with pytest.raises(TypeError, match="not pickled") as raised:
        pickle.dumps(store)
    assert PASSWORD not in shown(raised.value)
    assert copy.copy(store) is copy.deepcopy(store) is store


def test_on_trio_one_sentence_says_what_it_needs() -> None:
    store = RedisReplayStore(DOWN)

    for use in (lambda: store.first_use(KEY, 45), store.problems_at_start):
        with pytest.raises(ConfigurationError, match="needs asyncio") as raised:
            trio.run(use)
        assert raised.value.__context__ is None


def test_without_the_extra_one_sentence_says_what_to_install() -> None:
    code = "import sys; sys.modules['redis'] = None\nimport s2s_fastapi.redis"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (
        's2s_fastapi.errors.ConfigurationError: RedisReplayStore needs the extra "redis": pip install' in ended.stderr
    )


# One use


@needs_redis
@pytest.mark.anyio
async def test_a_key_is_used_once(empty: RedisServer) -> None:
    async with open_store(empty.url) as store, open_store(empty.url) as elsewhere:
        assert await store.first_use(KEY, 45) is True
        assert await store.first_use(KEY, 45) is False
        assert await elsewhere.first_use(KEY, 45) is False
        assert await elsewhere.first_use(KEY[:-1], 45) is True


@needs_redis
@pytest.mark.anyio
@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(45, 45_000), (1.2345, 1235), (0.001, 1000), (0, 1000), (-7, 1000)]
)
async def test_it_is_remembered_for_these_seconds_and_never_less_than_one(
    empty: RedisServer, seconds: float, milliseconds: int
) -> None:
    proxy = Proxy(empty.port, lambda _: "pass")
    async with proxy.listening() as url, open_store(url, prefix="crm") as store:
        await store.first_use(KEY, seconds)

    (command,) = [command for command in proxy.commands if command[0] == b"SET"]
    assert command[1] == b"s2s:dpop:crm:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert re.fullmatch(rb"[0-9a-f]{32}", command[2])
    assert command[3:] == [b"PX", b"%d" % milliseconds, b"NX"]


@needs_redis
@pytest.mark.anyio
async def test_fifty_at_once_use_a_key_once(empty: RedisServer) -> None:
    async with open_store(empty.url) as store:
        assert sum(await asyncio.gather(*(store.first_use(KEY, 45) for _ in range(50)))) == 1
    with client.Redis(port=empty.port) as asked:
        assert asked.info("clients")["connected_clients"] <= 10 + 1


LOOPS = """
import asyncio, threading
from s2s_fastapi.redis import RedisReplayStore
store = RedisReplayStore({url!r})
uses = []
def use():
    uses.append(asyncio.run(store.first_use(b"one", 45)))
for _ in range(3):
    use()
assert len(store._here) == 1, "it keeps loops that were closed"
threads = [threading.Thread(target=use) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*uses)
"""


@needs_redis
def test_one_store_serves_one_event_loop_after_another_and_several_at_once(empty: RedisServer) -> None:
    """And nobody has to close it: the process says nothing and ends."""
    code = LOOPS.format(url=empty.url)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split() == ["True", *5 * ["False"]]


@needs_redis
@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork_the_child_has_connections_of_its_own(empty: RedisServer) -> None:
    store = RedisReplayStore(empty.url)

    def child() -> None:
        async def use() -> None:
            assert not await store.first_use(KEY, 45)
            assert await store.first_use(b"of the child", 45)
            await store.aclose()

        asyncio.run(use())

    def in_thread(ended: list[int]) -> None:  # a process whose loop runs forks from another thread
        ended.append(in_child(child))

    async def parent() -> None:
        assert await store.first_use(KEY, 45)
        ended: list[int] = []
        forking = threading.Thread(target=in_thread, args=(ended,))
        forking.start()
        while forking.is_alive():
            assert not await store.first_use(KEY, 45)
        assert ended == [0]
        assert not await store.first_use(b"of the child", 45)
        await store.aclose()

    asyncio.run(parent())


@needs_redis
@needs_fork
def test_a_child_that_goes_on_with_the_loop_of_its_parent_does_not_read_its_answers(empty: RedisServer) -> None:
    store = RedisReplayStore(empty.url)

    def connected() -> int:
        with client.Redis(port=empty.port) as asked:
            return int(asked.info("clients")["connected_clients"]) - 1

    def child() -> None:
        assert not loop.run_until_complete(store.first_use(KEY, 45))
        assert connected() == 2, "its own and the parent's"

    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    try:
        assert loop.run_until_complete(store.first_use(KEY, 45))
        assert connected() == 1
        assert in_child(child) == 0
        assert not loop.run_until_complete(store.first_use(KEY, 45))
        loop.run_until_complete(store.aclose())
    finally:
        loop.close()


@needs_redis
@pytest.mark.anyio
async def test_a_connection_keeps_nothing_of_the_request_that_opened_it(empty: RedisServer) -> None:
    class Token:
        pass

    held = contextvars.ContextVar[Token]("held")

    async with open_store(empty.url) as store:

        async def request() -> weakref.ref[Token]:
            token = Token()
            held.set(token)
            assert await store.first_use(KEY, 45)
            return weakref.ref(token)

        gone = await asyncio.create_task(request())
        await asyncio.sleep(0)  # the loop forgets its timers
        gc.collect()
        assert gone() is None


# Ways to reach it


@needs_redis
@pytest.mark.anyio
async def test_tls_is_verified(tmp_path: Path) -> None:
    ca, other = make_authority(tmp_path / "ours"), make_authority(tmp_path / "theirs")
    port = free_port()
    tls = "--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"
    files = "--tls-cert-file", str(ca), "--tls-key-file", str(ca.parent / "key.pem"), "--tls-ca-cert-file", str(ca)

    with RedisServer(tmp_path / "data", *tls, *files, port=port):
        async with open_store(f"rediss://127.0.0.1:{port}?ssl_ca_certs={ca}") as store:
            assert await store.first_use(KEY, 45)
            assert not await store.first_use(KEY, 45)
        for url in (
            f"rediss://127.0.0.1:{port}?ssl_ca_certs={other}",
            f"rediss://127.0.0.1:{port}",
            f"rediss://localhost:{port}?ssl_ca_certs={ca}",  # the certificate names 127.0.0.1
        ):
            assert "certificate verify failed" in (await why_unavailable(url)).lower()
        assert "the connection failed" in await why_unavailable(f"redis://127.0.0.1:{port}")


@needs_redis
@pytest.mark.anyio
async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with RedisServer(tmp_path / "data", "--unixsocket", str(path)):
        async with open_store(f"unix://{path}?db=1") as store:
            assert await store.first_use(KEY, 45)
            assert not await store.first_use(KEY, 45)


@needs_redis
@pytest.mark.anyio
async def test_a_user_who_may_do_no_more_than_it_needs(tmp_path: Path) -> None:
    rule = "--user", "crm", "on", f">{PASSWORD}", "resetkeys", "~s2s:dpop:crm:*", "+set", "+get"
    with RedisServer(tmp_path, *rule) as running:
        url = f"redis://crm:{PASSWORD}@127.0.0.1:{running.port}"
        async with open_store(url, prefix="crm") as store:
            assert await store.first_use(KEY, 45)
            assert not await store.first_use(KEY, 45)
            assert "Allow `+set +get +info`" in await store.problems_at_start()
        assert "Allow `+set +get +info`" in await why_unavailable(url, prefix="billing")


# What is unavailable


@needs_redis
@pytest.mark.anyio
async def test_a_wrong_password_or_none_is_unavailable(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--requirepass", PASSWORD) as running:
        at = f"127.0.0.1:{running.port}"
        async with open_store(f"redis://:{PASSWORD}@{at}/1") as store:
            assert await store.first_use(KEY, 45)
        for user in ("", ":wrong-password-1@", "nobody:wrong-password-1@"):
            sentence = await why_unavailable(f"redis://{user}{at}")
            assert sentence == (
                f"The replay store redis://{at} cannot be used: it refuses the user name or the password. Write the right ones into the URL."
            )


@needs_redis
@pytest.mark.anyio
async def test_a_full_store_refuses_and_forgets_nothing(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--maxmemory-policy", "noeviction") as running:
        async with open_store(running.url) as store:
            assert await store.first_use(KEY, 45)
            with client.Redis(port=running.port) as asked:
                asked.config_set("maxmemory", 1)
            with pytest.raises(ReplayStoreUnavailable, match="its memory is full"):
                await store.first_use(b"another", 45)
            with client.Redis(port=running.port) as asked:
                asked.config_set("maxmemory", 0)
            assert not await store.first_use(KEY, 45)
            assert await store.first_use(b"another", 45)


@needs_redis
@pytest.mark.anyio
async def test_a_replica_is_unavailable_and_asked_again_once_it_is_the_primary(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--replicaof", f"127.0.0.1 {free_port()}") as running:
        async with open_store(running.url) as store:
            with pytest.raises(ReplayStoreUnavailable, match="it is a replica"):
                await store.first_use(KEY, 45)
            assert "it is a replica" in await store.problems_at_start()
            with client.Redis(port=running.port) as asked:
                asked.replicaof("NO", "ONE")
            assert await store.first_use(KEY, 45)
            assert await store.problems_at_start() == ""


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", "it is still loading its data"),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", "it is a node of a cluster"),
        (b"-ASK 3999 127.0.0.1:6381\r\n", "it is a node of a cluster"),
        (b"-CLUSTERDOWN The cluster is down\r\n", "its cluster is down"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", "it has no primary"),
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "its memory is full"),
        (b"-READONLY You can't write against a read only replica.\r\n", "it is a replica"),
        (b"-NOAUTH Authentication required.\r\n", "it refuses the user name or the password"),
        (b"-NOPERM this user has no permissions\r\n", "the user may not do this"),
        (b"-MISCONF Redis is configured to save RDB snapshots\r\n", "it answers an error (MISCONF). See its log."),
        (b"-NOREPLICAS Not enough good replicas to write.\r\n", "it answers an error (NOREPLICAS)."),
        (b"-ERR max number of clients reached\r\n", "the connection failed"),
        (b"-" + PASSWORD.encode() + b" s2s:dpop:\r\n", "it answers an error. See its log."),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "the connection failed"),
        (b"+QUEUED\r\n", "it answered what no Redis answers"),
        (b":1\r\n", "it answered what no Redis answers"),
        (b"$0\r\n\r\n", "it answered what no Redis answers"),
        (b"*0\r\n", "it answered what no Redis answers"),
        (b"+ok\r\n", "it answered what no Redis answers"),
    ],
)
async def test_every_other_answer_is_unavailable_and_never_a_first_use(answer: bytes, sentence: str) -> None:
    async with answering(answer) as url:
        said = await why_unavailable(url)
    assert sentence in said
    assert PASSWORD not in said


@pytest.mark.anyio
async def test_a_server_that_repeats_the_password_in_its_error_is_not_quoted() -> None:
    """Redis names the arguments of a command that it does not know, and AUTH may be renamed."""
    echo = f"-ERR unknown command 'AUTH', with args beginning with: '{PASSWORD}' \r\n".encode()
    async with answering(echo) as url:
        said = await why_unavailable(url.replace("//", f"//:{PASSWORD}@"))
    assert "it answers an error. See its log." in said
    assert PASSWORD not in said


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (DOWN, "the connection failed (Connect call failed"),
        ("redis://name.invalid:6379", "the connection failed ("),
        ("unix:///nowhere/redis.sock", "the connection failed (No such file or directory)"),
        ("rediss://127.0.0.1:9?ssl_ca_certs=/nowhere/ca.pem", "the connection failed (No such file or directory)"),
    ],
)
async def test_a_server_that_is_not_there_is_unavailable_and_the_check_says_so(url: str, sentence: str) -> None:
    assert sentence in await why_unavailable(url)
    async with open_store(url) as store:
        assert sentence in await store.problems_at_start()


@needs_redis
@pytest.mark.anyio
async def test_a_server_that_hangs_is_given_up_in_time_by_all_and_used_again_when_it_answers(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as running:
        async with open_store(running.url) as store:
            assert await store.first_use(KEY, 45)
            store._timeout = 0.1
            running.freeze()
            asked = [store.first_use(b"%d" % n, 45) for n in range(30)]
            async with asyncio.timeout(10):
                answers = await asyncio.gather(*asked, return_exceptions=True)
            running.thaw()
            assert {type(answer) for answer in answers} == {ReplayStoreUnavailable}
            assert "it did not answer within 0.1 s" in str(answers[0])
            store._timeout = PATIENT
            assert await eventually(store, KEY) is False
            assert await eventually(store, b"fresh") is True


async def eventually(store: RedisReplayStore, key: bytes) -> bool:
    """Ask until the store answers."""
    until = time.monotonic() + 20
    while True:
        try:
            return await store.first_use(key, 45)
        except ReplayStoreUnavailable:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)


class _NameServerHangs(asyncio.SelectorEventLoop):
    """A loop on which no name is ever found."""

    asked = 0

    async def getaddrinfo(self, *_: object, **__: object) -> Any:
        self.asked += 1
        await asyncio.Event().wait()


def test_a_name_server_that_hangs_holds_no_request_and_is_asked_by_one_at_a_time() -> None:
    async def use() -> list[Any]:
        async with open_store("redis://redis.internal", timeout=0.05) as store, asyncio.timeout(10):
            uses = [store.first_use(b"%d" % n, 45) for n in range(30)]
            answers = await asyncio.gather(*uses, return_exceptions=True)
            await asyncio.sleep(2.1)  # by then the attempt to connect has ended, and the look-up has not
            return [*answers, *await asyncio.gather(store.first_use(b"31", 45), return_exceptions=True)]

    with asyncio.Runner(loop_factory=_NameServerHangs) as runner:
        answers = runner.run(use())
        loop = runner.get_loop()

    assert {type(answer) for answer in answers} == {ReplayStoreUnavailable}
    assert isinstance(loop, _NameServerHangs)
    assert loop.asked == 1


# Answers that get lost


@needs_redis
@pytest.mark.anyio
@pytest.mark.parametrize("fate", ["keep", "cut"])
async def test_a_lost_answer_refuses_no_fresh_proof_and_accepts_no_replay(empty: RedisServer, fate: str) -> None:
    lost: list[bytes] = []

    def lose(command: bytes) -> str:
        if command == b"SET" and not lost:
            lost.append(command)
            return fate
        return "pass"

    proxy = Proxy(empty.port, lose)
    async with proxy.listening() as url, open_store(url) as store:
        assert await store.first_use(KEY, 45) is True
        assert lost, "the proxy lost nothing"
        assert await store.first_use(KEY, 45) is False
    first, second, *_ = [command for command in proxy.commands if command[0] == b"SET"]
    assert first == second, "the second try has the same random value"


@needs_redis
@pytest.mark.anyio
async def test_a_replay_whose_answer_gets_lost_is_refused(empty: RedisServer) -> None:
    lost: list[bytes] = []

    def lose(command: bytes) -> str:
        if command == b"CLIENT":  # redis-py introduces itself
            return "pass"
        lost.append(command)
        return "cut" if lost == [b"SET"] else "pass"

    async with open_store(empty.url) as elsewhere, Proxy(empty.port, lose).listening() as url, open_store(url) as store:
        assert await elsewhere.first_use(KEY, 45)
        assert await store.first_use(KEY, 45) is False
    assert lost == [b"SET", b"SET", b"GET"]


@needs_redis
@pytest.mark.anyio
async def test_it_tries_twice_and_no_more(empty: RedisServer) -> None:
    proxy = Proxy(empty.port, lambda command: "cut" if command == b"SET" else "pass")
    async with proxy.listening() as url:
        assert "the connection failed" in await why_unavailable(url)
    assert [command[0] for command in proxy.commands].count(b"SET") == 2


@needs_redis
@pytest.mark.anyio
async def test_a_use_that_was_cancelled_gives_its_answer_to_nobody_else(empty: RedisServer) -> None:
    kept: list[bytes] = []

    def lose(command: bytes) -> str:
        kept.append(command)
        return "pass"

    async with Proxy(empty.port, lose).listening() as url, open_store(url) as store:
        assert await store.first_use(KEY, 45)
        for n in range(20):
            use = asyncio.create_task(store.first_use(b"%d" % n, 45))
            for _ in range(n % 5 + 1):
                await asyncio.sleep(0)
            use.cancel()
            assert await store.first_use(KEY, 45) is False
            await asyncio.wait({use})
        assert sum(await asyncio.gather(*(store.first_use(b"fresh %d" % n, 45) for n in range(20)))) == 20


# Killed and back


@needs_redis
@pytest.mark.anyio
@pytest.mark.parametrize("persistent", [True, False])
async def test_a_store_that_is_killed_and_comes_back_under_load(tmp_path: Path, persistent: bool) -> None:
    kept = "--appendonly", "yes" if persistent else "no", "--appendfsync", "always"
    answered: dict[bytes, list[bool]] = {}
    unavailable: list[str] = []

    async def load(store: RedisReplayStore, stop: asyncio.Event, name: int) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            key = b"%d %d" % (name, n)
            for _ in range(2):  # each is shown twice
                try:
                    answered.setdefault(key, []).append(await store.first_use(key, 45))
                except ReplayStoreUnavailable as error:
                    unavailable.append(str(error))
                    await asyncio.sleep(0.002)

    stop = asyncio.Event()
    with RedisServer(tmp_path, *kept) as running:
        async with open_store(running.url) as store:
            loads = [asyncio.create_task(load(store, stop, name)) for name in range(8)]
            await until(lambda: len(answered) > 50)
            running.kill()
            await until(lambda: len(unavailable) > 20)
            before = dict(answered)
            running.start()
            assert await eventually(store, b"back")
            since = len(answered)
            await until(lambda: len(answered) > since + 50)
            stop.set()
            await asyncio.gather(*loads)

            assert all(uses.count(True) <= 1 for uses in answered.values())
            assert not {uses[0] for key, uses in answered.items() if key not in before} - {True}
            again = [await store.first_use(key, 45) for key, uses in list(before.items())[:20] if True in uses]
    # Without persistence Redis has forgotten what it knew: the documentation says so.
    assert set(again) == {not persistent}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - it is about what other tasks counted
            await asyncio.sleep(0.002)


# What the start says


@needs_redis
@pytest.mark.anyio
async def test_the_check_finds_nothing_on_a_server_that_forgets_nothing(empty: RedisServer) -> None:
    async with open_store(empty.url) as store:
        assert await store.problems_at_start() == ""


@needs_redis
@pytest.mark.anyio
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--maxmemory-policy", "allkeys-lru"], "it may forget proofs when its memory is full"),
        (["--maxmemory-policy", "volatile-ttl"], "(maxmemory-policy volatile-ttl). Set `maxmemory-policy noeviction`."),
        (["--cluster-enabled", "yes"], "it is a node of a cluster, which is not supported."),
    ],
    ids=["allkeys-lru", "volatile-ttl", "cluster"],
)
async def test_the_check_names_a_server_that_forgets(tmp_path: Path, options: list[str], sentence: str) -> None:
    with RedisServer(tmp_path, *options) as running:
        async with open_store(running.url) as store:
            said = await store.problems_at_start()
    assert said.startswith(f"RedisReplayStore('{running.url}'): it ")
    assert said.endswith(sentence) or sentence in said
    assert said.count(": it ") == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("info", "sentence"),
    [
        (b"redis_mode:sentinel\r\nmaxmemory_policy:noeviction\r\n", "it is a Sentinel and keeps no keys."),
        (b"redis_mode:standalone\r\n", "it does not say what it does when its memory is full."),
        (b"", "it does not say what it does when its memory is full."),
    ],
    ids=["sentinel", "no policy", "nothing"],
)
async def test_the_check_names_what_is_no_store(info: bytes, sentence: str) -> None:
    async with answering(b"$%d\r\n%s\r\n" % (len(info), info)) as url, open_store(url) as store:
        assert sentence in await store.problems_at_start()


@pytest.mark.anyio
async def test_a_check_of_a_server_that_hangs_ends() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        async with open_store(f"redis://127.0.0.1:{silent.getsockname()[1]}") as store, asyncio.timeout(20):
            assert "it did not answer within 2 s" in await store.problems_at_start()
