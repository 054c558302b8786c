"""What is measured of the caller, by name, and what was aimed at: its tables in docs/speed.md have these rows and no others."""

from dataclasses import dataclass
from typing import Final

from benchmarks.rows import Goal, Group

NO_TOKEN: Final = "no token: `Auth()` alone"
STATIC: Final = "static header"
OURS: Final = "ours"
INSIDE: Final = "ours, inside a request"
HTTPX_AUTH: Final = "httpx-auth"
AUTHLIB: Final = "Authlib `AsyncOAuth2Client`"
BY_HAND: Final = "by hand, no lock"

HTTPX: Final = "httpx.Client"
ASYNC_HTTPX: Final = "httpx.AsyncClient"
HTTPX2: Final = "httpx2.Client"
ASYNC_HTTPX2: Final = "httpx2.AsyncClient"
CLIENTS: Final = (HTTPX, ASYNC_HTTPX, HTTPX2, ASYNC_HTTPX2)


@dataclass(frozen=True)
class Attach:
    """One way to put a token on a request of one kind of client."""

    name: str
    client: str
    group: Group

    @property
    def static(self) -> "Attach":
        """What it is compared with."""
        return Attach(STATIC, self.client, "base")


ATTACH: Final = (
    *(Attach(NO_TOKEN, client, "base") for client in CLIENTS),
    *(Attach(STATIC, client, "base") for client in CLIENTS),
    *(Attach(OURS, client, "ours") for client in CLIENTS),
    *(Attach(INSIDE, client, "ours") for client in CLIENTS),
    Attach(HTTPX_AUTH, HTTPX, "peer"),
    Attach(HTTPX_AUTH, ASYNC_HTTPX, "peer"),
    Attach(AUTHLIB, ASYNC_HTTPX2, "peer"),
    Attach(BY_HAND, HTTPX, "peer"),
    Attach(BY_HAND, ASYNC_HTTPX, "peer"),
)

THREADS: Final = "threads"
TASKS: Final = "tasks on one loop"
MIXED: Final = "half threads, half tasks on 4 loops"


@dataclass(frozen=True)
class Burst:
    """So many callers at once, none of whom finds a token."""

    name: str
    callers: str
    size: int


_SIZES: Final = {THREADS: (1, 100, 2000), TASKS: (1, 100, 2000), MIXED: (100, 2000)}
_WAYS: Final = {
    OURS: (THREADS, TASKS, MIXED),
    HTTPX_AUTH: (THREADS, TASKS, MIXED),
    AUTHLIB: (TASKS,),
    BY_HAND: (THREADS, TASKS, MIXED),
}
BURSTS: Final = tuple(
    Burst(name, callers, size) for name, several in _WAYS.items() for callers in several for size in _SIZES[callers]
)


@dataclass(frozen=True)
class Outage:
    """Callers who go on while Keycloak does not answer, with a token that holds until it is back."""

    name: str
    callers: str


OUTAGES: Final = tuple(Outage(name, callers) for name, several in _WAYS.items() for callers in several[:2])

GOALS: Final = (
    *(
        Goal(f"attaching a cached token, {row.name}, `{row.client}`", 2, "µs over a static header")
        for row in ATTACH
        if row.group == "ours"
    ),
    *(Goal(f"cold burst of up to 2000 callers, {callers}", 1, "token request") for callers in _WAYS[OURS]),
    Goal("callers without a token in all of these bursts", 0, "callers"),
    Goal("callers without a token in an outage of 60 s", 0, "calls"),
)
