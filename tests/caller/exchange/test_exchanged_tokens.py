"""The store of exchanged tokens: who shares an exchange, until when its token counts, and what a failure leaves behind."""

import asyncio
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from s2s_fastapi.backchannel.channel import BackChannelError
from s2s_fastapi.caller.exchange.exchanged_tokens import ExchangedToken, ExchangedTokens
from s2s_fastapi.caller.exchange.subject import Subject
from s2s_fastapi.caller.granted import GrantedToken
from s2s_fastapi.caller.token_source import IN_USE, TokenSource, using
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.engine.steps import Steps, arun, run
from s2s_fastapi.engine.workers import WorkersByServer
from s2s_fastapi.errors import S2SError, SessionEnded, TokenRequestError
from tests.caller.exchange.fakes import NOW, ExchangingKeycloak, Wall, user
from tests.caller.fakes import Clock, settings
from tests.kit.forks import in_child, needs_fork
from tests.kit.reported import reported
from tests.kit.tracing import until

BOB, CHARLES = Wanted.of("bob", "bob-aud"), Wanted.of("charles", "charles-aud")
RESEND = 10.0
"""Seconds in which one token is exchanged once, whatever its receiver says of it."""

WAYS: dict[str, Callable[[Steps[GrantedToken]], GrantedToken]] = {
    "sync": run,
    "asyncio": lambda steps: asyncio.run(arun(steps)),
    "trio": lambda steps: trio.run(arun, steps),
}


def exchanged(tokens: ExchangedTokens, subject: Subject, wanted: Wanted = BOB, **changes: Any) -> str:
    return run(tokens.token(settings(**changes), wanted, subject)).value


def place(tokens: ExchangedTokens, subject: Subject) -> ExchangedToken:
    return tokens.of(settings(), BOB, subject)


def in_background(steps: Steps[GrantedToken], results: list[Any]) -> threading.Thread:
    def job() -> None:
        try:
            results.append(run(steps))
        except S2SError as error:
            results.append(error)

    thread = threading.Thread(target=job)
    thread.start()
    return thread


@pytest.fixture
def gate(keycloak: ExchangingKeycloak) -> Iterator[threading.Event]:
    """Holds back all answers until it is set."""
    gate = keycloak.gate = threading.Event()
    yield gate
    gate.set()


# One exchange


@pytest.mark.parametrize("way", WAYS)
def test_a_token_is_exchanged_once(way: str, tokens: ExchangedTokens, keycloak: ExchangingKeycloak) -> None:
    values = {WAYS[way](tokens.token(settings(), BOB, user())).value for _ in range(3)}

    assert len(values) == len(keycloak.requests) == 1
    assert len(tokens) == 1


def test_threads_and_tasks_of_all_loops_share_one_exchange(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, gate: threading.Event
) -> None:
    client, ann = settings(), user()
    seen: list[str] = []

    async def one() -> None:
        seen.append((await arun(tokens.token(client, BOB, ann))).value)

    async def many() -> None:
        await asyncio.gather(*(one() for _ in range(100)))

    async def many_in_trio() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(one)

    jobs: list[Callable[[], Any]] = [lambda: seen.append(exchanged(tokens, user()))] * 50
    jobs += [lambda: asyncio.run(many()), lambda: trio.run(many_in_trio)]
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    until(lambda: [flight for flight in tokens._flights.values() if len(flight._waiters) == 250])
    gate.set()
    for thread in threads:
        thread.join(10)

    assert len(seen) == 250
    assert len(set(seen)) == len(keycloak.requests) == 1


DIFFERENT: dict[str, tuple[Subject, Wanted, dict[str, Any]]] = {
    "another user": (user("bea"), BOB, {}),
    "another token of the same session": (user(jti="later"), BOB, {}),
    "another audience": (user(), CHARLES, {}),
    "another scope": (user(), Wanted.of("bob", "charles-aud"), {}),
    "another secret": (user(), BOB, {"client_secret": "another"}),
    "another method": (user(), BOB, {"client_auth": "client_secret_post"}),
    "another address": (user(), BOB, {"url": "http://other:8080", "public_url": "http://keycloak:8080"}),
    "another client": (user(aud=["chat-app-service", "shop-api"]), BOB, {"client_id": "shop-api"}),
}


@pytest.mark.parametrize(("subject", "wanted", "changes"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_differs_in_one_thing_has_a_token_of_its_own(
    subject: Subject, wanted: Wanted, changes: dict[str, Any], tokens: ExchangedTokens, keycloak: ExchangingKeycloak
) -> None:
    keycloak.aud, keycloak.claims = ["bob", "charles"], {"azp": changes.get("client_id", "chat-app-service")}
    other = exchanged(tokens, subject, wanted, **changes)
    keycloak.claims = {}

    assert exchanged(tokens, user()) != other
    assert exchanged(tokens, subject, wanted, **changes) == other
    assert len(keycloak.requests) == 2


def test_the_source_in_use_has_the_store(keycloak: ExchangingKeycloak, clock: Clock, wall: Wall) -> None:
    with using(TokenSource(channel=keycloak, clock=clock, wall=wall)) as source:
        exchanged(IN_USE.source.exchanged, user())

        assert len(source.exchanged) == 1


# Until when a token counts

ENDS: dict[str, tuple[dict[str, Any], float]] = {
    "its own margin": ({"exp": NOW + 3600}, 290.0),
    "the user's end, before its own": ({"exp": NOW + 20}, 20.0),
}


@pytest.mark.parametrize("moved", ["monotonic", "wall"])
@pytest.mark.parametrize(("changes", "end"), ENDS.values(), ids=ENDS)
def test_a_token_counts_until_the_first_end_by_either_clock(
    changes: dict[str, Any],
    end: float,
    moved: str,
    keycloak: ExchangingKeycloak,
) -> None:
    subject, clock, wall = user(**changes), Clock(), Wall()
    tokens = ExchangedTokens(channel=keycloak, clock=clock, wall=wall)
    exchanged(tokens, subject)
    moving = clock if moved == "monotonic" else wall

    moving.now += end - 0.1
    assert place(tokens, subject).peek() is not None
    there = place(tokens, subject)
    moving.now += 0.1

    assert there.peek() is None
    assert len(keycloak.requests) == 1, "nothing is renewed ahead"


def test_a_wall_clock_that_is_set_back_makes_no_token_live_longer(
    tokens: ExchangedTokens, clock: Clock, wall: Wall
) -> None:
    subject = user()
    there = place(tokens, subject)
    exchanged(tokens, subject)

    clock.now += 290
    wall.now -= 3600

    assert there.peek() is None


def test_a_users_token_that_has_expired_is_not_exchanged_and_its_token_is_not_used(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, wall: Wall
) -> None:
    subject = user(exp=NOW + 20)
    exchanged(tokens, subject)
    wall.now += 20

    with pytest.raises(SessionEnded):
        exchanged(tokens, subject)

    assert len(keycloak.requests) == 1


def test_no_failure_leaves_an_ended_token_in_use(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, clock: Clock
) -> None:
    exchanged(tokens, user())
    clock.now += 290
    keycloak.always = BackChannelError("cannot connect")

    for _ in range(2):
        with pytest.raises(TokenRequestError, match="cannot connect"):
            exchanged(tokens, user())


# A session that is over


def test_an_invalid_token_drops_every_token_of_that_session_and_no_other(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak
) -> None:
    keycloak.aud = ["bob", "charles"]
    later = user(jti="later")
    for subject in (user(), later, user("bea")):
        exchanged(tokens, subject)
    keycloak.logged_out = {"session-of-ann"}

    with pytest.raises(SessionEnded):
        exchanged(tokens, user(), CHARLES)

    assert place(tokens, user()).peek() is None
    assert place(tokens, later).peek() is None
    assert place(tokens, user("bea")).peek() is not None
    with pytest.raises(SessionEnded):
        exchanged(tokens, later)
    assert len(keycloak.requests) == 5


def test_the_fifth_user_in_a_row_loses_the_tokens_of_the_session_too(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak
) -> None:
    exchanged(tokens, user("emil"))
    names = ("ann", "bea", "carl", "dora", "emil")
    keycloak.logged_out = {f"session-of-{name}" for name in names}
    for name in names:
        with pytest.raises(S2SError) as caught:
            exchanged(tokens, user(name), CHARLES)

    assert isinstance(caught.value, TokenRequestError)
    assert place(tokens, user("emil")).peek() is None


def test_an_answer_that_arrives_after_the_session_ended_is_not_kept(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, gate: threading.Event
) -> None:
    results: list[Any] = []
    asked = in_background(tokens.token(settings(), BOB, user()), results)
    until(lambda: keycloak.requests)
    (flight,) = tokens._flights.values()
    keycloak.gate, keycloak.logged_out = None, {"session-of-ann"}
    with pytest.raises(SessionEnded):
        exchanged(tokens, user(), CHARLES)

    keycloak.logged_out = set()
    gate.set()
    asked.join(10)

    assert isinstance(results[0], GrantedToken)
    assert flight.dropped
    assert place(tokens, user()).peek() is None


# A token that a receiver refused


@pytest.mark.parametrize("way", WAYS)
def test_a_refused_token_is_exchanged_once_more_for_all(
    way: str, tokens: ExchangedTokens, keycloak: ExchangingKeycloak, clock: Clock
) -> None:
    there = place(tokens, user())
    seen = run(there.getting(user()))
    clock.now += RESEND

    there.refuse(seen)
    assert there.peek() is None
    another = WAYS[way](there.renewing(user(), seen))
    clock.now += RESEND
    there.refuse(seen)

    assert another.value != seen.value
    kept = there.peek()
    assert kept is not None
    assert kept.value == another.value
    assert run(there.renewing(user(), seen)).value == another.value, "it was refused before it was there"
    assert len(keycloak.requests) == 2


def test_a_receiver_that_always_refuses_costs_one_exchange_in_10_s(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, clock: Clock
) -> None:
    there = place(tokens, user())

    for _ in range(30):
        token = run(there.getting(user()))
        there.refuse(token)
        run(there.renewing(user(), token))
        clock.now += 1

    assert len(keycloak.requests) == 3


def test_a_refused_token_is_not_used_again_if_no_other_comes(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, clock: Clock
) -> None:
    there = place(tokens, user())
    seen = run(there.getting(user()))
    clock.now += RESEND
    there.refuse(seen)
    keycloak.logged_out = {"session-of-ann"}

    for steps in (there.renewing(user(), seen), there.getting(user())):
        with pytest.raises(SessionEnded):
            run(steps)
    assert there.peek() is None


# Bounds


def test_users_beyond_the_bound_are_told_when_to_come_again_and_a_service_token_is_not_delayed(
    keycloak: ExchangingKeycloak, gate: threading.Event, wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    source = TokenSource(
        channel=lambda given: keycloak,
        exchange_workers=WorkersByServer("exchanges", threads=8).to,
        wall=wall,
    )
    tokens, client = source.exchanged, settings()
    results: list[Any] = []

    async def one(number: int) -> None:
        try:
            results.append(await arun(tokens.token(client, BOB, user(f"user-{number}"))))
        except TokenRequestError as error:
            results.append(error)

    async def all_of_them() -> None:
        await asyncio.gather(*(one(number) for number in range(1_100)))

    thread = threading.Thread(target=lambda: asyncio.run(all_of_them()))
    thread.start()
    until(lambda: len(results) == 92)
    (said,) = set(map(str, results))
    assert "chat-app-service: 1000 exchanges for users are waiting already. Compare the time of an exchange" in said
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [said]
    assert {error.headers["Retry-After"] for error in results} == {"6"}
    assert keycloak.running == 8
    keycloak.gate = None
    source.token(settings(), BOB).get()
    assert keycloak.running == 8, "it did not wait for theirs"

    gate.set()
    thread.join(10)

    assert sum(isinstance(result, GrantedToken) for result in results) == 1_008
    assert keycloak.most_at_a_time <= 9, "eight users, and the service"


def test_the_store_has_a_bound_and_drops_the_session_that_was_unused_for_longest(
    keycloak: ExchangingKeycloak, clock: Clock, wall: Wall
) -> None:
    tokens = ExchangedTokens(channel=keycloak, clock=clock, wall=wall, capacity=3)
    for name in ("ann", "bea", "carl"):
        exchanged(tokens, user(name))
    place(tokens, user("ann")).peek()

    exchanged(tokens, user("dora"))

    kept = {name: place(tokens, user(name)).peek() is not None for name in ("ann", "bea", "carl", "dora")}
    assert kept == {"ann": True, "bea": False, "carl": True, "dora": True}
    assert len(tokens) == 3


def test_one_session_takes_no_more_than_the_bound_and_its_ended_tokens_leave(
    keycloak: ExchangingKeycloak, clock: Clock, wall: Wall
) -> None:
    tokens = ExchangedTokens(channel=keycloak, clock=clock, wall=wall, capacity=3)
    for number in range(3):
        exchanged(tokens, user(jti=f"t{number}", exp=NOW + 20))
    clock.now += 20

    exchanged(tokens, user(exp=NOW + 200))
    assert len(tokens) == 1
    for number in range(10):
        assert exchanged(tokens, user(jti=f"u{number}"))
    assert len(tokens) <= 3


def test_one_session_takes_no_more_than_its_share_of_the_store_and_of_the_places(
    keycloak: ExchangingKeycloak, gate: threading.Event, clock: Clock, wall: Wall
) -> None:
    tokens = ExchangedTokens(channel=keycloak, clock=clock, wall=wall, capacity=150, waiting=150)
    results: list[Any] = []
    gate.set()
    for number in range(20):
        exchanged(tokens, user(f"user-{number}"))
    gate.clear()

    async def one(number: int) -> None:
        try:
            results.append(await arun(tokens.token(settings(), BOB, user("eve", jti=str(number)))))
        except TokenRequestError as error:
            results.append(error)

    async def many() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(180):
                group.create_task(one(number))
            await asyncio.to_thread(until, lambda: len(results) == 80)
            group.create_task(arun(tokens.token(settings(), BOB, user("ann"))))
            await asyncio.to_thread(until, lambda: len(tokens._flights) == 101)
            gate.set()

    asyncio.run(many())

    (said,) = {str(result) for result in results if isinstance(result, TokenRequestError)}
    assert "100 exchanges of this user's session are under way already" in said
    for number in range(180, 230):
        exchanged(tokens, user("eve", jti=str(number)))
    assert len(tokens) == 121
    assert place(tokens, user("eve", jti="229")).peek()
    assert all(place(tokens, user(f"user-{number}")).peek() for number in range(20))


def test_what_has_ended_leaves_as_others_come(keycloak: ExchangingKeycloak, clock: Clock, wall: Wall) -> None:
    tokens = ExchangedTokens(channel=keycloak, clock=clock, wall=wall)
    for number in range(15):
        exchanged(tokens, user(f"user-{number}"))
    clock.now += 1000

    for name in ("ann", "bea"):
        exchanged(tokens, user(name))

    assert len(tokens) == 2


def test_an_exchange_under_way_is_not_evicted(
    keycloak: ExchangingKeycloak, gate: threading.Event, clock: Clock, wall: Wall
) -> None:
    tokens = ExchangedTokens(channel=keycloak, clock=clock, wall=wall, capacity=1)
    results: list[Any] = []
    asked = in_background(tokens.token(settings(), BOB, user()), results)
    until(lambda: keycloak.requests)
    keycloak.gate = None
    for name in ("bea", "carl"):
        exchanged(tokens, user(name))
    gate.set()
    asked.join(10)

    assert place(tokens, user()).peek() is not None
    assert [read.form["subject_token"] for read in keycloak.requests].count(user().text) == 1


def test_a_thousand_users_do_not_ask_a_thousand_times_what_has_nothing_to_do_with_them(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, gate: threading.Event
) -> None:
    keycloak.always = BackChannelError("cannot connect")
    client = settings()
    errors: list[S2SError] = []

    async def one(number: int) -> None:
        try:
            await arun(tokens.token(client, BOB, user(f"user-{number}")))
        except S2SError as error:
            errors.append(error)

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(one(number))
            await asyncio.to_thread(until, lambda: len(tokens._flights) == 200)
            gate.set()

    asyncio.run(all_of_them())

    assert len(errors) == len(set(map(id, errors))) == 200, "each has an error of its own"
    assert {str(error).partition(" Is Keycloak")[0].rpartition(": ")[2] for error in errors} == {"cannot connect."}
    assert len(keycloak.requests) <= 8
    assert len(tokens) == 0


# Waiters, forks, and who holds the user's token


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_a_cancelled_waiter_hurts_nobody(
    library: str, tokens: ExchangedTokens, keycloak: ExchangingKeycloak, gate: threading.Event
) -> None:
    results: list[Any] = []

    async def in_asyncio() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await arun(tokens.token(settings(), BOB, user()))

    async def in_trio() -> None:
        with trio.move_on_after(0.02) as scope:
            await arun(tokens.token(settings(), BOB, user()))
        assert scope.cancelled_caught

    if library == "asyncio":
        asyncio.run(in_asyncio())
    else:
        trio.run(in_trio)
    other = in_background(tokens.token(settings(), BOB, user()), results)
    until(lambda: any(flight._waiters for flight in tokens._flights.values()))
    gate.set()
    other.join(10)

    assert isinstance(results[0], GrantedToken)
    assert len(keycloak.requests) == 1


def test_each_waiter_raises_an_error_of_its_own(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, gate: threading.Event
) -> None:
    results: list[Any] = []
    keycloak.logged_out = {"session-of-ann"}
    threads = [in_background(tokens.token(settings(), BOB, user()), results) for _ in range(3)]
    until(lambda: [flight for flight in tokens._flights.values() if len(flight._waiters) == 3])
    gate.set()
    for thread in threads:
        thread.join(10)

    assert [type(error) for error in results] == [SessionEnded] * 3
    assert len(set(map(id, results))) == 3
    assert all(error.__context__ is error.__cause__ is None for error in results)


def test_what_nobody_waits_for_any_more_is_not_sent(
    keycloak: ExchangingKeycloak, gate: threading.Event, clock: Clock, wall: Wall
) -> None:
    one = WorkersByServer("exchanges", threads=1).to
    tokens = ExchangedTokens(channel=keycloak, workers=one, clock=clock, wall=wall)
    results: list[Any] = []
    first = in_background(tokens.token(settings(), BOB, user()), results)
    until(lambda: keycloak.requests)

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await arun(tokens.token(settings(), BOB, user("bea")))

    asyncio.run(impatient())
    gate.set()
    first.join(10)
    until(lambda: not tokens._flights)

    assert [asked.form["subject_token"] for asked in keycloak.requests] == [user().text]


@pytest.mark.parametrize("ends", ["granted", "over"])
def test_after_its_exchange_nothing_holds_the_users_token(
    ends: str, tokens: ExchangedTokens, keycloak: ExchangingKeycloak
) -> None:
    subject = user()
    keycloak.logged_out = {"session-of-ann"} if ends == "over" else set()
    there = place(tokens, subject)
    try:
        run(there.getting(subject))
    except SessionEnded as error:
        error.__traceback__ = None
    keycloak.requests.clear()
    reported()
    gc.collect()

    assert [type(held) for held in gc.get_referrers(subject)] == []
    assert holders(tokens, subject.text) == []


def holders(root: object, text: str) -> list[str]:
    """Return what in the reach of `root` has `text` in it, code and modules aside."""
    found, seen, todo = [], set(), [root]
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, type | type(gc) | type(run)):
            continue
        seen.add(id(one))
        if isinstance(one, str | bytes):
            found += [type(one).__name__] if (text in one if isinstance(one, str) else text.encode() in one) else []
        todo += gc.get_referents(one)
    return found


@needs_fork
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12: fork beside threads
def test_a_forked_child_keeps_the_tokens_and_waits_for_no_exchange_of_its_parent(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, gate: threading.Event
) -> None:
    keycloak.gate = None
    kept = exchanged(tokens, user())
    keycloak.gate = gate
    results: list[Any] = []
    asked = in_background(tokens.token(settings(), BOB, user("bea")), results)
    until(lambda: len(keycloak.requests) == 2)

    def child() -> None:
        keycloak.gate, keycloak.lock = None, threading.Lock()
        assert exchanged(tokens, user()) == kept
        assert len(tokens) == 1
        assert exchanged(tokens, user("bea"))

    status = in_child(child)
    gate.set()
    asked.join(10)

    assert status == 0
    assert isinstance(results[0], GrantedToken)


def test_an_exchange_that_ends_in_an_unexpected_exception_is_an_error_that_names_its_type(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak
) -> None:
    def broken(asked: Any) -> Any:
        raise ZeroDivisionError(asked.form["subject_token"])

    keycloak.answers = [broken]

    with pytest.raises(TokenRequestError, match="ended with ZeroDivisionError") as error:
        exchanged(tokens, user())
    assert error.value.__context__ is None
    assert exchanged(tokens, user())
