"""The store of exchanged tokens with many users: what one failure ends, what a late answer leaves alone, and how much is remembered."""

from collections.abc import Callable
from typing import Any

import pytest

from s2s_fastapi.caller.exchange.exchanged_tokens import ExchangedTokens
from s2s_fastapi.caller.exchange.subject import Subject
from s2s_fastapi.caller.granted import GrantedToken
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.engine.steps import run
from s2s_fastapi.errors import SessionEnded, TokenRequestError
from tests.caller.exchange.fakes import ExchangingKeycloak, Wall, user
from tests.caller.fakes import Clock, refusal, settings

BOB, CHARLES = Wanted.of("bob", "bob-aud"), Wanted.of("charles", "charles-aud")
MOST_TARGETS = 1024


def exchanged(tokens: ExchangedTokens, subject: Subject, wanted: Wanted = BOB) -> GrantedToken:
    return run(tokens.of(settings(), wanted, subject).getting(subject))


def test_an_invalid_token_drops_the_session_also_if_it_is_no_longer_the_users_fault(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak
) -> None:
    keycloak.aud = ["bob", "charles"]
    users = [user(f"user-{number}") for number in range(6)]
    for each in users:
        exchanged(tokens, each)
    keycloak.logged_out = {f"session-of-user-{number}" for number in range(5)}

    for each in users[:4]:
        with pytest.raises(SessionEnded):
            exchanged(tokens, each, CHARLES)
    with pytest.raises(TokenRequestError, match="of 5 users in a row"):
        exchanged(tokens, users[4], CHARLES)

    kept = [tokens.of(settings(), BOB, each).peek() is not None for each in users]
    assert kept == [False] * 5 + [True]


class Held:
    """Workers whose jobs the test runs."""

    waiting = 0

    def __init__(self) -> None:
        self.jobs: list[Callable[[], object]] = []

    def submit(self, job: Callable[[], object], **_: Any) -> bool:
        self.jobs.append(job)
        return True


class Lock:
    """The lock of the store; as soon as it is free and `when` is true, `then` is called once."""

    def __init__(self, lock: Any, when: Callable[[], bool], then: Callable[[], object]) -> None:
        self.lock, self.when, self.then = lock, when, [then]

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()
        if self.then and self.when():
            self.then.pop()()


class Waiting:
    """A caller that waits on no thread: it has begun, and ends when the test says so."""

    def __init__(self, tokens: ExchangedTokens) -> None:
        self.steps = tokens.of(settings(), BOB, user()).getting(user())
        self.wait, _ = next(self.steps)

    def end(self) -> str:
        with pytest.raises(StopIteration) as returned:
            self.steps.send(self.wait())
        value: str = returned.value.value.value
        return value


def test_an_exchange_that_nobody_wanted_any_more_leaves_its_successor_to_those_who_wait_for_it(
    keycloak: ExchangingKeycloak, clock: Clock, wall: Wall
) -> None:
    workers: Any = Held()
    tokens = ExchangedTokens(channel=keycloak, workers=lambda url: workers, clock=clock, wall=wall)
    waiting: list[Waiting] = []
    Waiting(tokens).steps.close()  # a caller that gave up
    tokens._lock = Lock(tokens._lock, lambda: not tokens._flights, lambda: waiting.append(Waiting(tokens)))  # type: ignore[assignment]  # a lock too

    workers.jobs[0]()  # finds nobody; the second caller comes before it has ended
    assert len(workers.jobs) == 2
    waiting.append(Waiting(tokens))
    for job in workers.jobs[1:]:
        job()

    assert len({caller.end() for caller in waiting}) == len(keycloak.requests) == 1
    assert len(workers.jobs) == 2, "the third caller waits for the exchange of the second"


def test_of_1024_audiences_and_scopes_the_one_that_was_unused_for_longest_is_forgotten(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak
) -> None:
    ann = user()
    client = settings()
    keycloak.always = refusal(400, "invalid_scope", "Invalid scopes: bob-aud")

    def others(number: int) -> None:
        for each in range(number):
            tokens.of(client, Wanted.of("bob", f"scope-{each}"), ann)

    def requests() -> int:
        with pytest.raises(TokenRequestError, match="invalid_scope"):
            exchanged(tokens, ann)
        return len(keycloak.requests)

    assert requests() == 1
    others(MOST_TARGETS - 1)
    assert requests() == 1, "its failure is remembered, and it was used just now"
    others(MOST_TARGETS)
    assert requests() == 2
