"""Keys that are there, new, gone, out of reach or broken: when Keycloak is asked, and what is believed meanwhile."""

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import KeysUnavailable
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.verifier.jwks import KeySet, VerificationKey
from s2s_fastapi.verifier.keys import KeySource
from tests.kit.forks import in_child, needs_fork
from tests.kit.realm import Clock, Realm, SigningKey, judged, key_source, settings, token_verifier
from tests.kit.reported import reported

FIRST, SECOND, THIRD = (SigningKey("ES256", kid=f"key-{number}") for number in (1, 2, 3))
HOUR, TTL, SPACING = 3600, 600, 5
AT_ONCE = SPACING - 1
"""Seconds: less than the wait for the next fetch takes, and enough for a busy machine."""
RETRY = 6  # the longest rest after a failure, jitter included, is 5.5 s


def settle(condition: Callable[[], bool]) -> None:
    """Wait for what runs behind."""
    until = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


def kid_of(found: VerificationKey | Decision) -> str:
    assert isinstance(found, VerificationKey)
    return found.kid


def unknown(found: VerificationKey | Decision) -> bool:
    return found == Decision(reason=Reason.UNKNOWN_KEY)


class Scene:
    """A realm with one key, and a key source on a clock that stands still."""

    def __init__(self, *, loaded: bool = True) -> None:
        self.clock = Clock(1000.0)
        self.realm = Realm(key=FIRST)
        self.realm.published = [FIRST.jwk]
        self.source = key_source(self.realm, self.clock)
        if loaded:
            assert self.finds(FIRST)
            assert self.realm.fetches == 1

    def finds(self, key: SigningKey) -> bool:
        """Tell whether the keys that are served hold this one, without asking for it by name."""
        return self.source.get().find(key.kid, key.algorithm) is not None

    def ask(self, key: SigningKey | str) -> VerificationKey | Reason:
        kid = key if isinstance(key, str) else key.kid
        found = self.source.key(kid, "ES256")
        return found.reason if isinstance(found, Decision) else found

    def breaks(self, answer: httpx.Response | Exception, path: str = "/certs") -> None:
        """Let Keycloak answer like this from now on."""

        def respond(request: httpx.Request) -> httpx.Response | None:
            if not request.url.path.endswith(path):
                return None
            if isinstance(answer, Exception):
                raise answer
            # A response is used up by reading it.
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

        self.realm.answer = respond

    def hangs(self, gate: threading.Event) -> None:
        """Let Keycloak answer only when the gate is open."""

        def respond(request: httpx.Request) -> None:
            assert gate.wait(5)

        self.realm.answer = respond

    def recovers(self) -> None:
        self.realm.answer = lambda request: None

    def idle(self) -> None:
        settle(lambda: not self.source.state().loading)

    def fails(self, times: int) -> None:
        """Wait for that many failures, and for the last one's end: it takes the time of its rest from the clock."""
        settle(lambda: self.source.state().failures == times and not self.source.state().loading)


BROKEN = [
    pytest.param(httpx.Response(500), id="500"),
    pytest.param(httpx.Response(503, headers={"Retry-After": "3600"}), id="503"),
    pytest.param(httpx.Response(404), id="404"),
    pytest.param(httpx.Response(401), id="401"),
    pytest.param(httpx.Response(204), id="204"),
    pytest.param(httpx.Response(201, json={"keys": [THIRD.jwk]}), id="201 with keys"),
    pytest.param(httpx.Response(203, json={"keys": [THIRD.jwk]}), id="203 with a proxy's keys"),
    pytest.param(httpx.Response(500, json={"keys": [THIRD.jwk]}), id="500 with keys"),
    pytest.param(
        httpx.Response(302, headers={"Location": "http://evil.example/certs"}, json={"keys": [THIRD.jwk]}),
        id="a redirect",
    ),
    pytest.param(httpx.Response(307, headers={"Location": "/elsewhere"}), id="a redirect on the same host"),
    pytest.param(httpx.Response(200, content=b""), id="nothing"),
    pytest.param(httpx.Response(200, html="<html>Sign in</html>"), id="HTML"),
    pytest.param(httpx.Response(200, json={}), id="an object without keys"),
    pytest.param(httpx.Response(200, json={"keys": []}), id="no keys"),
    pytest.param(httpx.Response(200, json={"keys": None}), id="null for keys"),
    pytest.param(httpx.Response(200, json=[THIRD.jwk]), id="a list of keys"),
    pytest.param(httpx.Response(200, json={"keys": [{**THIRD.jwk, "use": "enc"}]}), id="no key to verify with"),
    pytest.param(httpx.Response(200, content=b'{"keys": [], "keys": []}'), id="members twice"),
    pytest.param(httpx.Response(200, json={"keys": [THIRD.jwk]}, headers={"Content-Encoding": "br"}), id="compressed"),
    pytest.param(httpx.Response(200, content=b'{"keys": ['), id="cut off"),
    pytest.param(httpx.Response(200, json={"keys": [THIRD.jwk], "x": "x" * 262_144}), id="too large"),
    pytest.param(httpx.Response(200, content=b"\xef\xbb\xbf{}"), id="a byte order mark"),
    pytest.param(httpx.Response(200, content=b"[" * 100_000), id="nesting without end"),
    pytest.param(httpx.ConnectError("refused"), id="no connection"),
    pytest.param(httpx.ReadTimeout("slow"), id="a timeout"),
    pytest.param(httpx.RemoteProtocolError("no HTTP"), id="no HTTP"),
    pytest.param(MemoryError("odd"), id="an error nobody foresaw"),
]


@pytest.mark.parametrize("answer", BROKEN)
def test_a_broken_answer_never_replaces_good_keys(answer: httpx.Response | Exception) -> None:
    scene = Scene()
    urls: set[str] = set()
    scene.breaks(answer)
    broken = scene.realm.answer

    def noted(request: httpx.Request) -> httpx.Response | None:
        urls.add(str(request.url))
        return broken(request)

    scene.realm.answer = noted
    scene.clock.advance(TTL - 1)  # stale: renewed behind
    assert scene.finds(FIRST)
    scene.fails(1)
    assert scene.finds(FIRST)
    assert not scene.finds(THIRD)
    scene.clock.advance(RETRY)  # dead: asked for in front, and kept
    assert scene.finds(FIRST)
    scene.fails(2)
    assert not scene.finds(THIRD)
    assert urls == {f"{scene.realm.issuer}/protocol/openid-connect/certs"}


@pytest.mark.parametrize("answer", BROKEN)
def test_a_broken_first_answer_is_503_in_a_sentence_and_never_a_key(
    answer: httpx.Response | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(loaded=False)
    scene.breaks(answer)
    refusal = scene.source.key(THIRD.kid, "ES256")
    with pytest.raises(KeysUnavailable) as caught:
        scene.source.get()
    error = caught.value
    assert refusal == Decision(reason=Reason.KEYS_UNAVAILABLE, cure=str(error), retry_after=error.retry_after)
    assert (error.code, error.status_code) == ("keys_unavailable", 503)
    next_try_in = scene.source.state().next_try_in
    assert next_try_in is not None
    assert error.headers == {"Retry-After": str(ceil(next_try_in))}
    assert error.detail == "The service cannot check tokens at the moment."
    assert error.__cause__ is None
    assert error.__context__ is None
    assert THIRD.jwk["x"] not in str(error)
    certs = f"{scene.realm.issuer}/protocol/openid-connect/certs"
    assert str(error).startswith(f"Keycloak's keys could not be loaded from {certs}: ")
    reported()
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(logging.WARNING, str(error))]


@pytest.mark.parametrize(
    ("answer", "cure"),
    [
        (
            httpx.Response(404),
            "404. Set KEYCLOAK_AUTH_PATH=/auth if the server runs under /auth. If that is right, KEYCLOAK_URL",
        ),
        (
            httpx.Response(301, headers={"Location": "https://keycloak.test/"}),
            "Set KEYCLOAK_URL to the address that it redirects to",
        ),
        (httpx.Response(200, json={"keys": []}), "it holds no key that can verify an access token"),
        (httpx.Response(502), "Keycloak answers 502"),
    ],
)
def test_the_sentence_says_what_to_change(answer: httpx.Response, cure: str) -> None:
    scene = Scene(loaded=False)
    scene.breaks(answer)
    with pytest.raises(KeysUnavailable, match=cure):
        scene.source.get()


def test_a_certificate_file_that_cannot_be_read_is_named() -> None:
    channel = BackChannel(ca_file=Path("/nowhere/ca.pem"), timeout=3.0)
    source = KeySource(Endpoints.of(settings(url="https://127.0.0.1:9")), channel)
    with pytest.raises(KeysUnavailable, match=r"KEYCLOAK_CA_FILE: cannot read certificates from /nowhere/ca\.pem: "):
        source.get()


@pytest.mark.parametrize(
    ("name", "url", "named"),
    [
        ("HTTP_PROXY", "http://127.0.0.1:9", True),
        ("ALL_PROXY", "http://127.0.0.1:9", True),
        ("HTTPS_PROXY", "http://127.0.0.1:9", False),
    ],
)
def test_a_proxy_of_the_environment_that_is_not_used_is_named(
    name: str, url: str, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://user:hunter2@proxy")
    monkeypatch.setenv("NO_PROXY", "")
    for given, said in ((settings(url=url), named), (settings(url=url, proxy="http://u:hunter2@127.0.0.1:9"), False)):
        with pytest.raises(KeysUnavailable) as caught:
            KeySource.of(given).get()
        assert (f"{name} is set, but it is not used: " in str(caught.value)) is said
        assert "hunter2" not in str(caught.value)


# Age


def test_fresh_keys_are_served_without_asking() -> None:
    scene = Scene()
    scene.clock.advance(0.9 * 0.8 * TTL - 1)  # renewed at 80 %, less up to a tenth of that
    assert scene.finds(FIRST)
    assert scene.source.peek() is not None
    assert scene.realm.fetches == 1


def test_stale_keys_are_served_while_they_are_renewed_behind() -> None:
    scene = Scene()
    scene.clock.advance(0.8 * TTL)
    scene.realm.published = [SECOND.jwk]
    assert scene.source.peek() is None
    assert scene.finds(FIRST)
    settle(lambda: scene.realm.fetches == 2)
    scene.idle()
    assert scene.finds(SECOND)
    assert not scene.finds(FIRST)


def test_keys_older_than_the_ttl_are_not_served_without_asking() -> None:
    scene = Scene()
    scene.clock.advance(TTL - 0.001)
    gate = threading.Event()
    scene.hangs(gate)
    assert scene.finds(FIRST)  # a moment before, they are served though the renewal hangs
    assert scene.source.state().loading
    gate.set()
    scene = Scene()
    scene.clock.advance(TTL)
    scene.realm.published = [SECOND.jwk]
    assert scene.finds(SECOND)
    assert not scene.finds(FIRST)
    assert scene.realm.fetches == 2


def test_a_key_that_is_withdrawn_is_refused_within_the_ttl_though_no_unknown_kid_appears() -> None:
    clock = Clock(1000.0)
    realm = Realm(key=FIRST)
    verifier = token_verifier(realm, monotonic=clock)
    token = realm.token()
    assert judged(verifier, token).decision.reason is Reason.ALLOWED
    realm.published = [SECOND.jwk]
    clock.advance(TTL)
    verifier.ready().keys.get()
    clock.advance(SPACING)
    assert judged(verifier, token).decision.reason is Reason.UNKNOWN_KEY
    assert judged(verifier, realm.token(key=SECOND)).decision.reason is Reason.ALLOWED


def test_a_key_that_is_published_again_is_the_same_object_however_often_somebody_orders_a_fetch() -> None:
    # Each accepted token holds its key and the set that had it last: otherwise invented names would fill the memory.
    scene = Scene()
    scene.realm.published = [FIRST.jwk, SECOND.jwk]
    sets = []
    for number in range(3):
        scene.clock.advance(SPACING + 1)
        assert scene.ask(f"invented-{number}") is Reason.UNKNOWN_KEY
        sets.append(scene.source.get())
    assert len({id(keys) for keys in sets}) == scene.realm.fetches - 1 == 3
    assert len({id(key) for keys in sets for key in keys.keys.values()}) == 2


def test_another_key_under_a_known_kid_takes_its_place() -> None:
    clock = Clock(1000.0)
    realm = Realm(key=SigningKey("ES256", kid="same"))
    verifier = token_verifier(realm, monotonic=clock)
    token = realm.token()
    assert judged(verifier, token).decision.reason is Reason.ALLOWED
    realm.published = [SigningKey("ES256", kid="same").jwk]
    clock.advance(TTL)
    assert judged(verifier, token).decision.reason is Reason.INVALID_SIGNATURE


def test_the_last_good_keys_serve_an_hour_through_an_outage_and_then_nothing_does() -> None:
    scene = Scene()
    scene.breaks(httpx.ConnectError("down"))
    failures = 0
    while scene.clock.now < 1000 + HOUR - RETRY:
        scene.clock.advance(RETRY)
        assert scene.finds(FIRST)
        scene.idle()
    failures = scene.source.state().failures
    assert failures > 100
    scene.clock.now = 1000 + HOUR - 0.001
    assert scene.finds(FIRST)
    scene.clock.now = 1000 + HOUR
    with pytest.raises(KeysUnavailable):
        scene.source.get()
    scene.recovers()
    scene.clock.advance(2 * RETRY)
    assert scene.finds(FIRST)


def test_after_an_idle_time_the_last_good_keys_serve_only_when_asking_has_failed() -> None:
    scene = Scene()
    scene.breaks(httpx.ConnectError("down"))
    scene.clock.advance(HOUR - 1)
    assert scene.finds(FIRST)
    assert scene.realm.fetches == 2
    scene.clock.advance(1 + RETRY)
    with pytest.raises(KeysUnavailable):
        scene.source.get()
    with pytest.raises(KeysUnavailable):
        trio.run(scene.source.aget)


def test_an_outage_asks_once_in_five_seconds() -> None:
    scene = Scene(loaded=False)
    scene.breaks(httpx.Response(503))
    for _ in range(100):
        with pytest.raises(KeysUnavailable):
            scene.source.get()
    assert scene.realm.fetches == 1
    scene.clock.advance(SPACING - 0.001)
    with pytest.raises(KeysUnavailable):
        scene.source.get()
    assert scene.realm.fetches == 1
    scene.clock.advance(RETRY - SPACING)
    with pytest.raises(KeysUnavailable):
        scene.source.get()
    assert scene.realm.fetches == 2


def test_each_who_waits_gets_an_error_of_its_own() -> None:
    scene = Scene(loaded=False)
    scene.breaks(httpx.Response(503))
    errors = []
    for _ in range(2):
        with pytest.raises(KeysUnavailable) as caught:
            scene.source.get()
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert str(errors[0]) == str(errors[1])


def test_a_service_starts_before_keycloak_and_works_when_it_comes() -> None:
    scene = Scene(loaded=False)
    scene.breaks(httpx.ConnectError("not yet"))
    scene.source.start()
    scene.fails(1)
    assert scene.ask(FIRST) is Reason.KEYS_UNAVAILABLE
    scene.recovers()
    scene.clock.advance(RETRY)
    assert isinstance(scene.ask(FIRST), VerificationKey)


def test_a_start_loads_behind_and_the_first_request_waits_for_that_load() -> None:
    scene = Scene(loaded=False)
    gate = threading.Event()
    scene.hangs(gate)
    scene.source.start()
    scene.source.start()
    threading.Timer(0.05, gate.set).start()
    assert scene.finds(FIRST)
    assert scene.realm.fetches == 1


@pytest.mark.parametrize("status", [500, 200])
def test_who_keeps_to_retry_after_finds_a_keycloak_that_was_asked_again(status: int) -> None:
    scene = Scene(loaded=False)
    for _ in range(20):  # each rest is drawn by lot
        scene.breaks(httpx.Response(status))
        with pytest.raises(KeysUnavailable) as caught:
            scene.source.get()
        told = caught.value.retry_after
        scene.clock.advance(1)
        with pytest.raises(KeysUnavailable) as caught:
            scene.source.get()
        assert caught.value.retry_after == told - 1
        fetches = scene.realm.fetches
        scene.clock.advance(told - 1)
        with pytest.raises(KeysUnavailable):
            trio.run(scene.source.aget)
        assert scene.realm.fetches == fetches + 1
        scene.clock.advance(SPACING * 2)
    scene.recovers()
    assert scene.finds(FIRST)


def test_who_waits_in_vain_is_told_to_come_back_when_the_failure_that_follows_is_forgotten() -> None:
    scene = Scene(loaded=False)
    gate = threading.Event()
    scene.hangs(gate)
    with pytest.raises(KeysUnavailable) as caught:
        scene.source.get()
    gate.set()
    assert scene.source.state().next_try_in is None
    assert caught.value.retry_after == math.ceil(1.1 * SPACING)
    assert caught.value.headers == {"Retry-After": "6"}
    scene.idle()


def test_a_load_that_waits_for_its_time_is_not_hastened_when_the_last_good_keys_grow_too_old() -> None:
    scene = Scene()
    scene.breaks(httpx.ConnectError("down"))
    scene.clock.now = 1000 + HOUR - 2
    assert scene.finds(FIRST)  # asked for in front, in vain, and kept
    assert scene.realm.fetches == 2

    def ask() -> None:
        with contextlib.suppress(KeysUnavailable):
            scene.ask(SECOND)

    asking = threading.Thread(target=ask)
    asking.start()  # an unknown kid: waits for the end of the spacing
    settle(lambda: scene.source.state().loading)
    scene.clock.advance(2)
    with pytest.raises(KeysUnavailable):
        scene.source.get()
    assert scene.realm.fetches == 2
    asking.join(10)


# Unknown keys


def test_an_unknown_kid_is_one_fetch_and_refused() -> None:
    scene = Scene()
    scene.clock.advance(SPACING)
    assert scene.ask("invented") is Reason.UNKNOWN_KEY
    assert scene.realm.fetches == 2
    assert isinstance(scene.ask(FIRST), VerificationKey)
    assert scene.realm.fetches == 2


def test_a_finalizer_that_runs_within_a_question_may_ask_too() -> None:
    scene = Scene()
    scene.clock.advance(SPACING)
    told: list[object] = []

    def interrupted() -> None:
        with scene.source._lock:  # where the garbage collector came
            told.append(scene.ask("invented"))

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(20)
    assert told == [Reason.UNKNOWN_KEY]


def test_the_keys_of_two_servers_that_hang_do_not_delay_those_of_a_third() -> None:
    gate, hung = threading.Event(), []

    def hangs(_: httpx.Request) -> httpx.Response:
        gate.wait(10)
        return httpx.Response(503)

    def source_at(url: str, transport: Callable[[], httpx.BaseTransport]) -> KeySource:
        return KeySource(Endpoints.of(settings(url=url)), BackChannel(transport=transport, timeout=3.0))

    for number in range(20):
        hung.append(source_at(f"http://hangs-{number % 2}", lambda: httpx.MockTransport(hangs)))
        hung[-1].start()
    assert source_at("http://healthy", Realm().transport).get().keys
    assert all(source.state().loading for source in hung)
    assert sum(thread.name == "s2s_fastapi-keys" for thread in threading.enumerate()) <= 2 * 4 + 1
    gate.set()


def test_a_request_just_after_a_failed_fetch_at_the_start_makes_no_fetch_within_5_s() -> None:
    scene = Scene(loaded=False)
    scene.breaks(httpx.Response(503))
    scene.source.start()
    while not scene.source.state().failures:
        time.sleep(0.001)
    scene.clock.advance(SPACING - 0.001)
    for _ in range(10):
        with pytest.raises(KeysUnavailable):
            scene.source.get()
    assert scene.realm.fetches == 1
    scene.clock.advance(0.002)
    with pytest.raises(KeysUnavailable):
        scene.source.get()
    assert scene.realm.fetches == 2


def test_300_apps_of_one_process_get_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2s_fastapi.verifier.keys._TIMEOUT", 60.0)  # a busy machine may need more than 3 s
    realm = Realm(key=FIRST)
    realm.published = [FIRST.jwk]
    sources = [key_source(realm) for _ in range(300)]

    async def main() -> list[KeySet]:
        return await asyncio.gather(*(source.aget() for source in sources))

    assert all(keys.find(FIRST.kid, "ES256") for keys in asyncio.run(main()))


def test_a_known_kid_with_another_algorithm_is_an_unknown_key() -> None:
    scene = Scene()
    scene.clock.advance(SPACING)
    assert unknown(scene.source.key(FIRST.kid, "RS256"))
    assert isinstance(scene.ask(FIRST), VerificationKey)  # and does no harm to the right one


def test_a_new_key_works_at_once_in_quiet_times() -> None:
    scene = Scene()
    scene.realm.published = [FIRST.jwk, SECOND.jwk]
    scene.clock.advance(SPACING)
    began = time.monotonic()
    assert isinstance(scene.ask(SECOND), VerificationKey)
    assert time.monotonic() - began < AT_ONCE
    assert scene.realm.fetches == 2


@pytest.mark.parametrize("run", [asyncio.run, lambda task: trio.run(lambda: task)], ids=["asyncio", "trio"])
def test_a_new_key_works_at_once_on_every_event_loop(run: Callable[[Any], VerificationKey | Decision]) -> None:
    scene = Scene()
    scene.realm.published = [FIRST.jwk, SECOND.jwk]
    scene.clock.advance(SPACING)
    assert kid_of(run(scene.source.akey(SECOND.kid, "ES256"))) == SECOND.kid
    assert scene.realm.fetches == 2


@pytest.mark.parametrize("loaded", [False, True], ids=["the first keys", "a new key"])
def test_an_event_loop_goes_on_while_keys_are_on_their_way(loaded: bool) -> None:
    async def in_asyncio(scene: Scene, gate: threading.Event) -> VerificationKey | Decision:
        waiter = asyncio.create_task(scene.source.akey(SECOND.kid, "ES256"))
        await asyncio.sleep(0.02)
        assert not waiter.done()
        gate.set()
        return await waiter

    async def in_trio(scene: Scene, gate: threading.Event) -> VerificationKey | Decision:
        found: list[VerificationKey | Decision] = []

        async def wait() -> None:
            found.append(await scene.source.akey(SECOND.kid, "ES256"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(0.02)
            assert not found
            gate.set()
        return found[0]

    loops: list[Callable[[Scene, threading.Event], VerificationKey | Decision]] = [
        lambda scene, gate: asyncio.run(in_asyncio(scene, gate)),
        lambda scene, gate: trio.run(in_trio, scene, gate),
    ]
    for run in loops:
        scene, gate = Scene(loaded=loaded), threading.Event()
        scene.realm.published = [SECOND.jwk]
        scene.clock.advance(SPACING)
        scene.hangs(gate)
        assert kid_of(run(scene, gate)) == SECOND.kid


def test_a_fetch_for_one_kid_brings_every_new_key() -> None:
    scene = Scene()
    scene.realm.published = [FIRST.jwk, SECOND.jwk, THIRD.jwk]
    scene.clock.advance(SPACING)
    assert scene.ask("invented") is Reason.UNKNOWN_KEY
    assert isinstance(scene.ask(SECOND), VerificationKey)
    assert isinstance(scene.ask(THIRD), VerificationKey)
    assert scene.realm.fetches == 2


def test_within_the_spacing_an_unknown_kid_waits_for_the_next_fetch() -> None:
    scene = Scene()
    scene.realm.published = [FIRST.jwk, SECOND.jwk]
    scene.clock.advance(SPACING - 0.5)
    began = time.monotonic()
    assert isinstance(scene.ask(SECOND), VerificationKey)
    assert time.monotonic() - began >= 0.45
    assert scene.realm.fetches == 2


in_each_way = pytest.mark.parametrize(
    "run", [None, asyncio.run, lambda task: trio.run(lambda: task)], ids=["plain", "asyncio", "trio"]
)


@in_each_way
def test_who_comes_soon_after_a_fetch_waits_for_longer_than_a_fetch_may_take(
    run: Callable[[Any], VerificationKey | Decision] | None,
) -> None:
    scene = Scene()
    scene.realm.published = [FIRST.jwk, SECOND.jwk]
    scene.clock.advance(SPACING - 3.3)
    found = scene.source.key(SECOND.kid, "ES256") if run is None else run(scene.source.akey(SECOND.kid, "ES256"))
    assert kid_of(found) == SECOND.kid
    assert scene.realm.fetches == 2


@in_each_way
def test_a_key_that_is_published_while_a_fetch_is_under_way_comes_with_the_next_one(
    run: Callable[[Any], VerificationKey | Decision] | None,
) -> None:
    scene = Scene()
    gate = threading.Event()

    def hang(request: httpx.Request) -> None:
        if not request.url.path.endswith("/certs"):
            assert gate.wait(5)

    scene.realm.answer = hang
    scene.clock.advance(SPACING)
    first = threading.Thread(target=lambda: scene.ask("invented"))
    first.start()
    settle(lambda: scene.realm.fetches == 2 and scene.realm.requests[-1].endswith("/corp"))
    scene.realm.published = [FIRST.jwk, SECOND.jwk]  # too late for the answer that is already here
    scene.clock.advance(SPACING - 0.3)
    threading.Timer(0.1, gate.set).start()
    found = scene.source.key(SECOND.kid, "ES256") if run is None else run(scene.source.akey(SECOND.kid, "ES256"))
    assert kid_of(found) == SECOND.kid
    first.join(10)
    assert scene.realm.fetches == 3


@in_each_way
def test_a_key_that_a_fetch_under_way_brings_orders_no_other(
    run: Callable[[Any], VerificationKey | Decision] | None,
) -> None:
    scene = Scene()
    gate = threading.Event()

    def hang(request: httpx.Request) -> None:
        if not request.url.path.endswith("/certs"):
            assert gate.wait(5)

    scene.realm.answer = hang
    scene.realm.published = [FIRST.jwk, SECOND.jwk]
    scene.clock.advance(SPACING)
    first = threading.Thread(target=lambda: scene.ask("invented"))
    first.start()
    settle(lambda: scene.realm.requests[-1].endswith("/corp") and scene.realm.fetches == 2)
    scene.clock.advance(1)  # the key is on its way already, and the fetch older than the question
    threading.Timer(0.1, gate.set).start()
    found = scene.source.key(SECOND.kid, "ES256") if run is None else run(scene.source.akey(SECOND.kid, "ES256"))
    assert kid_of(found) == SECOND.kid
    first.join(10)
    assert scene.realm.fetches == 2


def test_a_kid_that_a_fetch_did_not_bring_may_ask_again_after_five_seconds_and_not_before() -> None:
    scene = Scene()
    scene.clock.advance(SPACING)
    assert scene.ask(SECOND) is Reason.UNKNOWN_KEY  # a node that lags behind
    scene.realm.published = [FIRST.jwk, SECOND.jwk]
    scene.clock.advance(SPACING - 0.001)
    began = time.monotonic()
    assert scene.ask(SECOND) is Reason.UNKNOWN_KEY
    assert time.monotonic() - began < AT_ONCE
    assert scene.realm.fetches == 2
    scene.clock.advance(0.001)
    assert isinstance(scene.ask(SECOND), VerificationKey)
    assert scene.realm.fetches == 3


@pytest.mark.parametrize(
    "answer", [httpx.Response(500), httpx.ConnectError("down"), httpx.Response(200, json={"keys": []})], ids=repr
)
def test_an_unknown_kid_while_keycloak_is_down_is_nobodys_fault_and_known_ones_go_on(
    answer: httpx.Response | Exception,
) -> None:
    scene = Scene()
    scene.breaks(answer)
    scene.clock.advance(SPACING)
    assert scene.ask(SECOND) is Reason.KEYS_UNAVAILABLE
    assert isinstance(scene.ask(FIRST), VerificationKey)
    scene.recovers()
    scene.realm.published = [FIRST.jwk, SECOND.jwk]
    scene.clock.advance(SPACING)
    assert isinstance(scene.ask(SECOND), VerificationKey)


def test_a_hundred_may_wait_and_the_next_is_refused_at_once_while_known_keys_go_on() -> None:
    scene = Scene()
    scene.clock.advance(SPACING - 2.5)
    seen: list[VerificationKey | Reason] = []
    threads = [threading.Thread(target=lambda kid=f"kid-{n}": seen.append(scene.ask(kid))) for n in range(100)]
    for thread in threads:
        thread.start()
    settle(lambda: scene.source._waiting == 100)
    assert scene.ask("one too many") is Reason.UNKNOWN_KEY
    assert isinstance(scene.ask(FIRST), VerificationKey)
    assert scene.source._waiting == 100  # they still wait
    assert scene.realm.fetches == 1
    for thread in threads:
        thread.join(10)
    assert seen == [Reason.UNKNOWN_KEY] * 100
    assert scene.realm.fetches == 2
    assert scene.source._waiting == 0
    scene.clock.advance(SPACING)
    scene.realm.published = [FIRST.jwk, SECOND.jwk]
    assert isinstance(scene.ask(SECOND), VerificationKey)


def test_a_kid_that_was_turned_away_gets_a_place_when_it_comes_again_and_invented_ones_do_not() -> None:
    scene = Scene()
    scene.clock.advance(SPACING - 3)
    scene.realm.published = [FIRST.jwk, SECOND.jwk]

    async def in_asyncio() -> None:
        flood = [asyncio.create_task(scene.source.akey(f"kid-{n}", "ES256")) for n in range(100)]
        await asyncio.sleep(0.05)
        assert unknown(await scene.source.akey(SECOND.kid, "ES256"))  # nothing tells it from the others
        for n in range(1000):
            assert unknown(await scene.source.akey(f"invented-{n}", "ES256"))
        again = [asyncio.create_task(scene.source.akey(SECOND.kid, "ES256")) for _ in range(100)]
        await asyncio.sleep(0.05)
        assert scene.source._waiting == 200
        assert unknown(await scene.source.akey(SECOND.kid, "ES256"))  # these places are counted, too
        assert {kid_of(key) for key in await asyncio.gather(*again)} == {SECOND.kid}
        assert all(map(unknown, await asyncio.gather(*flood)))

    asyncio.run(in_asyncio())
    assert scene.realm.fetches == 2
    assert scene.source._waiting == 0


def test_the_memory_for_kids_that_were_turned_away_is_bounded() -> None:
    scene = Scene()
    scene.source._waiting = 100
    for n in range(20_100):
        assert scene.ask(f"kid-{n}") is Reason.UNKNOWN_KEY
        assert len(scene.source._turned_away) <= 20_000


def test_who_stops_waiting_gives_the_place_back() -> None:
    scene = Scene()
    scene.clock.advance(SPACING - 3)

    async def in_asyncio() -> None:
        tasks = [asyncio.create_task(scene.source.akey(f"kid-{n}", "ES256")) for n in range(50)]
        await asyncio.sleep(0.05)
        assert scene.source._waiting == 50
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def in_trio() -> None:
        with trio.move_on_after(0.05):
            async with trio.open_nursery() as nursery:
                for n in range(50):
                    nursery.start_soon(scene.source.akey, f"kid-{n}", "ES256")

    asyncio.run(in_asyncio())
    assert scene.source._waiting == 0
    trio.run(in_trio)
    assert scene.source._waiting == 0


def test_a_forked_child_forgets_who_waited_in_the_parent() -> None:
    scene = Scene()
    scene.clock.advance(SPACING - 2.5)
    threads = [threading.Thread(target=scene.ask, args=(f"kid-{n}",)) for n in range(100)]
    for thread in threads:
        thread.start()
    settle(lambda: scene.source._waiting == 100)
    scene.source.after_fork()  # what the fork hook calls in the child; a fork beside a hundred threads would warn
    assert scene.source._waiting == 0
    scene.realm.published = [FIRST.jwk, SECOND.jwk]
    assert isinstance(scene.ask(SECOND), VerificationKey)
    for thread in threads:
        thread.join(10)


@needs_fork
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12: fork beside threads
def test_a_child_forked_while_a_hundred_wait_finds_a_new_key() -> None:
    scene = Scene()
    scene.clock.advance(SPACING)
    assert scene.ask("invented") is Reason.UNKNOWN_KEY
    scene.idle()
    scene.clock.advance(SPACING)
    scene.realm.published = [FIRST.jwk, SECOND.jwk]
    scene.source._waiting = 100

    def child() -> None:
        assert isinstance(scene.ask(SECOND), VerificationKey)

    with scene.source._lock:
        status = in_child(child)
    assert status == 0


def test_the_memory_for_invented_names_is_bounded() -> None:
    scene = Scene()
    for n in range(1100):
        scene.clock.advance(SPACING)
        assert scene.ask(f"kid-{n}") is Reason.UNKNOWN_KEY
        assert len(scene.source._absent) <= 1000
    scene.idle()


def test_a_flood_of_invented_names_from_threads_and_loops_is_one_fetch_in_five_seconds() -> None:
    realm = Realm(key=FIRST)
    fetched: list[float] = []

    def note(request: httpx.Request) -> None:
        if request.url.path.endswith("/certs"):
            fetched.append(time.monotonic())

    realm.answer = note
    source = key_source(realm)
    source.get()
    served: list[float] = []
    stop = threading.Event()

    def ask(kid: str) -> None:
        assert unknown(source.key(kid, "ES256"))

    async def in_asyncio() -> None:
        assert all(map(unknown, await asyncio.gather(*[source.akey(f"asyncio-{n}", "ES256") for n in range(40)])))

    async def refused_in_trio(kid: str) -> None:
        assert unknown(await source.akey(kid, "ES256"))

    async def in_trio() -> None:
        async with trio.open_nursery() as nursery:
            for n in range(40):
                nursery.start_soon(refused_in_trio, f"trio-{n}")

    def good_traffic() -> None:
        while not stop.is_set():
            began = time.monotonic()
            source.key(FIRST.kid, "ES256")
            served.append(time.monotonic() - began)
            time.sleep(0.01)

    good = threading.Thread(target=good_traffic)
    good.start()
    threads = [
        threading.Thread(target=lambda: asyncio.run(in_asyncio())),
        threading.Thread(target=lambda: trio.run(in_trio)),
        *[threading.Thread(target=ask, args=(f"kid-{n}",)) for n in range(1000)],
    ]
    for thread in threads:
        thread.start()
        if thread is threads[1]:
            settle(lambda: source._waiting == 80)
    for thread in threads:
        thread.join(15)
    stop.set()
    good.join()
    assert 2 <= len(fetched) <= 3
    assert all(later - earlier >= SPACING - 0.01 for earlier, later in pairwise(fetched))
    assert len(served) > 50
    assert sorted(served)[len(served) // 2] < 0.1
    source.key(FIRST.kid, "ES256")


# The realm page


WRONG_MOMENTS: list[Any] = [None, "99", "", True, False, -1, 99.0, 1.5, [], [99], {}]
PAGES = [
    pytest.param(httpx.Response(500), id="500"),
    pytest.param(httpx.Response(404), id="404"),
    pytest.param(
        httpx.Response(302, headers={"Location": "http://evil.example/"}, json={"tokens-not-before": 99}),
        id="a redirect",
    ),
    pytest.param(httpx.Response(500, json={"tokens-not-before": 99}), id="500 with a value"),
    pytest.param(httpx.Response(203, json={"tokens-not-before": 99}), id="203 with a proxy's value"),
    pytest.param(httpx.Response(200, html="<html>"), id="HTML"),
    pytest.param(httpx.Response(200, content=b""), id="nothing"),
    pytest.param(httpx.Response(200, json=[99]), id="a list"),
    pytest.param(httpx.ConnectError("down"), id="no connection"),
    pytest.param(httpx.ReadTimeout("slow"), id="a timeout"),
    *[
        pytest.param(httpx.Response(200, json={"tokens-not-before": value}), id=f"tokens-not-before: {value!r}")
        for value in WRONG_MOMENTS
    ],
    pytest.param(httpx.Response(200, json={"realm": "corp"}), id="no tokens-not-before"),
]


@pytest.mark.parametrize("page", PAGES)
def test_a_realm_page_that_cannot_be_read_hurts_no_key_and_keeps_the_last_value(
    page: httpx.Response | Exception,
) -> None:
    scene = Scene(loaded=False)
    scene.realm.not_before = 77
    assert scene.finds(FIRST)
    assert scene.source.not_before == 77
    scene.breaks(page, path="/realms/corp")
    scene.realm.published = [FIRST.jwk, SECOND.jwk]
    scene.clock.advance(SPACING)
    assert isinstance(scene.ask(SECOND), VerificationKey)
    assert scene.source.not_before == 77
    assert scene.source.state().failures == 0
    first = Scene(loaded=False)
    first.breaks(page, path="/realms/corp")
    assert first.finds(FIRST)
    assert first.source.not_before == 0


def test_a_realm_page_that_cannot_be_read_is_told_once_and_again_after_it_could_be(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Where a proxy shows the keys and not the realm, "Revocation" does nothing, and nobody would know.
    scene = Scene()
    for page in (
        httpx.Response(403),
        httpx.Response(403),
        httpx.Response(200, json={"tokens-not-before": 5}),
        httpx.Response(403),
    ):
        scene.breaks(page, path="/realms/corp")
        scene.clock.advance(SPACING + 1)
        assert scene.ask(f"invented-{scene.clock.now}") is Reason.UNKNOWN_KEY
    sentence = (
        "The realm's not-before could not be read from http://keycloak.test/realms/corp: Keycloak answers 403. "
        "Until it can be read, a revocation in Keycloak has no effect here."
    )
    reported()
    told = [(record.name, record.levelno, record.getMessage()) for record in caplog.records]
    assert told == [("s2s_fastapi.keys", logging.WARNING, sentence)] * 2
    assert scene.source.not_before == 5


@pytest.mark.parametrize("page", PAGES)
def test_a_realm_page_that_says_nothing_is_told_without_a_word_of_it(
    page: httpx.Response | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(loaded=False)
    scene.breaks(page, path="/realms/corp")
    assert scene.finds(FIRST)
    reported()
    [record] = caplog.records
    assert record.name == "s2s_fastapi.keys"
    assert record.getMessage().startswith(
        "The realm's not-before could not be read from http://keycloak.test/realms/corp: "
    )
    assert not any(word in record.getMessage() for word in ("99", "evil", "<html>"))


def test_the_realm_page_is_read_with_each_fetch_of_keys_and_never_alone() -> None:
    scene = Scene()
    assert scene.realm.requests == ["/realms/corp/protocol/openid-connect/certs", "/realms/corp"]
    scene.breaks(httpx.Response(500))
    scene.clock.advance(TTL)
    assert scene.finds(FIRST)
    assert scene.realm.requests[2:] == ["/realms/corp/protocol/openid-connect/certs"]


def test_revoke_all_works_within_the_ttl_and_can_be_taken_back() -> None:
    clock = Clock(1000.0)
    realm = Realm(key=FIRST)
    verifier = token_verifier(realm, monotonic=clock)
    token = realm.token()
    assert judged(verifier, token).decision.reason is Reason.ALLOWED
    realm.not_before = int(time.time()) + 1
    clock.advance(TTL)
    decision = judged(verifier, token).decision
    assert (decision.reason, decision.status) == (Reason.REVOKED, 401)
    realm.not_before = 0
    clock.advance(TTL)
    assert judged(verifier, token).decision.reason is Reason.ALLOWED


def test_keys_that_came_late_are_not_kept_waiting_for_the_realm_page() -> None:
    scene = Scene(loaded=False)
    patience: list[float] = []

    def respond(request: httpx.Request) -> None:
        if request.url.path.endswith("/certs"):
            time.sleep(2.3)
        else:
            patience.append(request.extensions["timeout"]["read"])

    assert scene.finds(FIRST)
    scene.realm.answer = respond
    scene.clock.advance(SPACING)
    assert scene.ask("invented") is Reason.UNKNOWN_KEY
    assert len(patience) == 1
    assert patience[0] <= 0.7  # of 3 s for both, and never more than 1


def test_the_realm_page_is_waited_for_a_second_at_most() -> None:
    scene = Scene(loaded=False)
    patience: list[float] = []

    def respond(request: httpx.Request) -> None:
        if not request.url.path.endswith("/certs"):
            patience.append(request.extensions["timeout"]["read"])

    scene.realm.answer = respond
    assert scene.finds(FIRST)
    assert len(patience) == 1
    assert patience[0] <= 1


def test_a_load_in_front_carries_the_span_and_nothing_else_of_the_request() -> None:
    from opentelemetry import baggage, context, trace

    scene = Scene(loaded=False)
    theirs: ContextVar[str] = ContextVar("theirs", default="")
    theirs.set("alice")
    seen: list[tuple[Any, ...]] = []

    def look(request: httpx.Request) -> None:
        names = {variable.name for variable in copy_context()} - {"current_context"}  # the last is OpenTelemetry's own
        trace_id = trace.get_current_span().get_span_context().trace_id
        seen.append((theirs.get(), baggage.get_baggage("user"), trace_id, names))

    scene.realm.answer = look
    span = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
    attached = context.attach(baggage.set_baggage("user", "alice", trace.set_span_in_context(span)))
    try:
        assert scene.finds(FIRST)
    finally:
        context.detach(attached)
    ours = {f"s2s_fastapi.{name}" for name in ("cause", "links", "reports", "foreign")}
    assert seen == [("", None, 1, ours)] * 2


def test_a_published_key_that_is_left_out_is_named_once_for_as_long_as_it_is_published(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene(loaded=False)
    odd = {**SECOND.jwk, "use": "tls"}
    scene.realm.published = [FIRST.jwk, odd]
    assert scene.finds(FIRST)
    for published in ([FIRST.jwk, odd], [FIRST.jwk, odd], [odd], [odd], [FIRST.jwk], [FIRST.jwk, odd]):
        scene.realm.published = published
        scene.clock.advance(SPACING + 1)
        scene.ask(f"invented-{scene.clock.now}")
    reported()
    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    url = "http://keycloak.test/realms/corp/protocol/openid-connect/certs"
    sentence = f"The key {SECOND.kid} at {url} cannot be used and is left out: its use is tls, not sig. Tokens that it signed are refused."
    assert told == [sentence] * 2


def test_three_hundred_keys_that_are_left_out_are_twenty_lines_and_a_number(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(loaded=False)
    scene.realm.published = [FIRST.jwk, *({"kid": f"{number}\n" + "k" * 300} for number in range(300))]
    assert scene.finds(FIRST)
    reported()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 21
    assert told[-1].startswith("280 more keys at ")
    assert all(len(line) < 300 and line.isprintable() for line in told)
