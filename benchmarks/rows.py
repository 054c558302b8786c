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
CONDITION: Final = "ours, `a & condition`"
TWO_REALMS: Final = "ours, one requirement for each of two realms, token of the second"
QUERY_STRING: Final = b"page=2&size=50"
QUERY_BARE: Final = "bare route, `?page=2&size=50`"
QUERY: Final = "ours, one requirement, `?page=2&size=50`"
NEW: Final = "ours, one requirement, new tokens"
DECODING: Final = "joserfc `jwt.decode` in a dependency, new tokens"
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
    Row(CONDITION, "ours"),
    Row(TWO_REALMS, "ours"),
    Row(QUERY_BARE, "base", None),
    Row(QUERY, "ours", QUERY_BARE),
    Row(NEW, "ours"),
    Row(DECODING, "base"),
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
class Refusal:
    """One request that ours refuses, and the answer."""

    name: str
    status: int
    unsigned: bool = False
    """It is refused before a signature is checked."""


NO_CREDENTIALS: Final = "no credentials"
TWO_HEADERS: Final = "two Authorization headers"
TWO_PARTS: Final = "`a.b`"
ONLY_A: Final = "16 KB of the letter A"
ALG_NONE: Final = "algorithm `none`"
UNKNOWN_KID: Final = "unknown `kid`, keys loaded less than 5 s ago"
LONG_HEADER: Final = "JWS header of 4 KB, another one each time"
FORGED: Final = "forged signature"
FORGED_LONG: Final = "forged signature, 16 KB"
WRONG_AUDIENCE: Final = "wrong audience"
EXPIRED: Final = "expired"
USER: Final = "token of a user"
REQUIREMENT: Final = "the requirement refuses, known token"

REFUSALS: Final = (
    Refusal(NO_CREDENTIALS, 401, unsigned=True),
    Refusal(TWO_HEADERS, 400, unsigned=True),
    Refusal(TWO_PARTS, 401, unsigned=True),
    Refusal(ONLY_A, 401, unsigned=True),
    Refusal(ALG_NONE, 401, unsigned=True),
    Refusal(UNKNOWN_KID, 401, unsigned=True),
    Refusal(LONG_HEADER, 401, unsigned=True),
    Refusal(FORGED, 401),
    Refusal(FORGED_LONG, 401),
    Refusal(WRONG_AUDIENCE, 401),
    Refusal(EXPIRED, 401),
    Refusal(USER, 403),
    Refusal(REQUIREMENT, 403),
)


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
    Goal("repeated token, one requirement", 1.6, "x the floor"),
    Goal("repeated token, one requirement, the slowest of several Pythons", 1.75, "x the floor"),
    Goal("repeated token, `a & b`", 1.7, "x the floor"),
    Goal("repeated token, one requirement, `?page=2&size=50`", 1.8, "x the floor"),
    *(Goal(below(peer), 10, "x", at_least=True) for peer in PEERS),
    Goal("repeated token, `guard` on plain Starlette", 5.5, "µs over bare"),
    Goal("a token seen for the first time, verifier", 1.2, "x joserfc"),
    Goal("a token seen for the first time, whole route over the bare one", 1.6, "x a route that calls joserfc"),
    Goal("the most expensive refusal", 1, "x an accepted new token"),
    Goal("the most expensive refusal before a signature is checked, but for a header of 4 KB", 1.5, "x the bare route"),
    *(Goal(f"throughput, {stack}", 0.9, "x the floor's", at_least=True) for stack in STACKS),
    Goal("memory of one verified token", 3000, "bytes"),
    Goal("import of `s2s_fastapi` over fastapi and httpx", 15, "% more"),
)
