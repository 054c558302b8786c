"""What is measured, by name, and what was aimed at: the tables of docs/speed.md have these rows and no others."""

from dataclasses import dataclass
from typing import Final, Literal

Group = Literal["base", "ours", "peer", "alone"]

BARE: Final = "bare route"
PASS_THROUGH: Final = "pass-through middleware"
FLOOR: Final = "floor: pass-through, one dict hit, one async `Depends`"
MIDDLEWARE: Final = "ours, middleware alone"
ONE: Final = "ours, one requirement"
COMBINED: Final = "ours, `a & b`"
TWO: Final = "ours, two requirements in two `Depends`"
NEW: Final = "ours, one requirement, new tokens"
CACHE_OFF: Final = "ours, one requirement, cache off"
SYNC_BARE: Final = "bare route, `def` endpoint"
SYNC: Final = "ours, one requirement, `def` endpoint"
STARLETTE_BARE: Final = "bare route, plain Starlette"
STARLETTE: Final = "ours, `guard` on plain Starlette"
MIDDLEWARE_PEER: Final = "fastapi-keycloak-middleware"
GUARD_PEER: Final = "keycloak-guard"
PYJWT_ASYNC: Final = "PyJWT by hand, `async def` dependency"
PYJWT_SYNC: Final = "PyJWT by hand, `def` dependency"
VERIFIER: Final = "`TokenVerifier.averify`, repeated token"
VERIFIER_NEW: Final = "`TokenVerifier.averify`, new tokens"
JOSERFC: Final = "joserfc `jwt.decode`"
PYJWT: Final = "PyJWT `jwt.decode`"


@dataclass(frozen=True)
class Row:
    """One thing whose CPU time is taken; ``base`` is what it is compared with: the same route without a guard."""

    name: str
    group: Group
    base: str | None = BARE
    threads: bool = False
    """It works in other threads too: theirs is counted with it."""


ROWS: Final = (
    Row(BARE, "base", None),
    Row(PASS_THROUGH, "base"),
    Row(FLOOR, "base"),
    Row(MIDDLEWARE, "ours"),
    Row(ONE, "ours"),
    Row(COMBINED, "ours"),
    Row(TWO, "ours"),
    Row(NEW, "ours"),
    Row(CACHE_OFF, "ours"),
    Row(SYNC_BARE, "base", None, threads=True),
    Row(SYNC, "ours", SYNC_BARE, threads=True),
    Row(STARLETTE_BARE, "base", None),
    Row(STARLETTE, "ours", STARLETTE_BARE),
    Row(MIDDLEWARE_PEER, "peer"),
    Row(GUARD_PEER, "peer"),
    Row(PYJWT_ASYNC, "peer"),
    Row(PYJWT_SYNC, "peer", threads=True),
    Row(VERIFIER, "alone", None),
    Row(VERIFIER_NEW, "alone", None),
    Row(JOSERFC, "alone", None),
    Row(PYJWT, "alone", None),
)

PEERS: Final = tuple(row.name for row in ROWS if row.group == "peer")
STACKS: Final = {
    "uvicorn, h11 and asyncio": ("h11", "asyncio"),
    "uvicorn, httptools and uvloop": ("httptools", "uvloop"),
}


@dataclass(frozen=True)
class Goal:
    """What was aimed at: at most ``limit``, or at least."""

    what: str
    limit: float
    unit: str
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Say whether a figure reaches it."""
        return value >= self.limit if self.at_least else value <= self.limit

    @property
    def aim(self) -> str:
        """The goal in words."""
        return f"at {'least' if self.at_least else 'most'} {self.limit:g} {self.unit}"


def below(peer: str) -> str:
    """Name the goal about one peer."""
    return f"{peer}, over ours with one requirement"


GOALS: Final = (
    Goal("repeated token, one requirement", 1.3, "x the floor"),
    Goal("repeated token, `a & b`", 1.3, "x the floor"),
    *(Goal(below(peer), 10, "x", at_least=True) for peer in PEERS),
    Goal("a token seen for the first time, verifier", 1.6, "x joserfc"),
    Goal("a token seen for the first time, whole route over the bare one", 1.6, "x joserfc"),
    *(Goal(f"throughput, {stack}", 95, "%", at_least=True) for stack in STACKS),
    Goal("import of `s2s_fastapi` over fastapi and httpx", 15, "% more"),
)
