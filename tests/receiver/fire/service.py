"""A guarded app under fire, and a count of everything that came of it."""

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

from fastapi import Depends, FastAPI

from s2s_fastapi import KeycloakSettings, ServiceAuthMiddleware, require_service
from s2s_fastapi.decision import Decision
from s2s_fastapi.verifier.keys import KeySource
from tests.kit.realm import SigningKey, b64
from tests.testing.asking import part

__all__ = ["ATTACKER", "HOUR", "SPACING", "TTL", "Answer", "Service", "Tally", "Time", "parts", "signed"]

TTL, HOUR, SPACING = 600.0, 3600.0, 5.0
ATTACKER = SigningKey("RS256")


class Time:
    """One time for the issuer, the app and its keys. It runs as it does for everybody, and can be moved ahead.

    Where the issuer is a real server, which nobody moves, only the keys' age is moved: the time of day is ``everybodys``.
    """

    def __init__(self, *, everybodys: bool = False) -> None:
        self._everybodys = everybodys
        self._ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead

    def wall(self) -> float:
        return time.time() + (0.0 if self._everybodys else self._ahead)

    def advance(self, seconds: float) -> None:
        self._ahead += seconds


@dataclass(frozen=True)
class Answer:
    """What came back for one request."""

    status: int
    headers: dict[str, str]

    @property
    def retry_after(self) -> int:
        """What a 503 promises; it must have said so, and must not tell a caller to throw its token away."""
        assert self.status == 503
        assert "www-authenticate" not in self.headers
        assert int(self.headers["retry-after"]) > 0
        return int(self.headers["retry-after"])


@dataclass
class Tally:
    """What happened in one scene."""

    valid: int = 0
    """Requests with a token that Keycloak stands by."""
    refused: int = 0
    """Of these, answered 401."""
    unavailable: int = 0
    """Of these, answered 503."""
    others: list[int] = field(default_factory=list)
    """Of these, any other answer than 200, 401 and 503."""
    forged: int = 0
    """Requests with a token that Keycloak does not stand by: forged, or of a key that it has withdrawn and we know it."""
    let_in: int = 0
    fetches: list[float] = field(default_factory=list)
    """When the keys were asked for, by the clock of who was asked."""

    @property
    def least_distance(self) -> float:
        return min((later - earlier for earlier, later in pairwise(self.fetches)), default=float("inf"))


class Service:
    """A service whose keys come from somewhere. ``unseen`` fetches do not arrive there, and are counted where they begin."""

    def __init__(self, *, unseen: bool = False, real: bool = False) -> None:
        self.time = Time(everybodys=real)
        self.tally = Tally()
        self.decisions: list[Decision] = []
        self._unseen = unseen
        self._stack = ExitStack()
        self._door: ServiceAuthMiddleware | None = None

    def __enter__(self) -> Self:
        self._loop = self._stack.enter_context(asyncio.Runner())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def token(self) -> str:
        """Return a new token of Keycloak's."""
        raise NotImplementedError

    def starts(self, settings: KeycloakSettings) -> None:
        """Start the app and load its keys."""
        app = FastAPI(openapi_url=None)

        @app.get("/", dependencies=[Depends(require_service())])
        async def route() -> str:
            return "let in"

        self._door = ServiceAuthMiddleware(app, settings, observer=self, clock=self.time.wall, warm_up=False)
        self._door._start.run(None)
        # The keys' own clock is nobody's option: nothing has been loaded by it yet.
        self.keys._clock = self.keys._keys._clock = self.time.monotonic
        self.keys.start()
        self.settle()

    @property
    def keys(self) -> KeySource:
        assert self._door is not None
        assert self._door.keys is not None
        return self._door.keys

    def decided(self, decision: Decision) -> None:
        self.decisions.append(decision)

    def settle(self) -> None:
        """Wait for a load that runs behind."""
        until = time.monotonic() + 60
        while self.keys.state().loading:
            assert time.monotonic() < until
            time.sleep(0.001)
        self._note()

    def _note(self) -> None:
        if self._unseen:
            new = self.keys.state().loads - len(self.tally.fetches)
            self.tally.fetches += [self.time.monotonic()] * new

    def pass_time(self, seconds: float) -> None:
        """Let a load that runs behind end, then let time go on."""
        self.settle()
        self.time.advance(seconds)

    # Requests

    async def asked(self, token: str) -> Answer:
        """Send one request through the whole app."""
        started: dict[str, Any] = {}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                started.update(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"service"), (b"authorization", b"Bearer " + token.encode())],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        assert self._door is not None
        await self._door(scope, receive, send)
        return Answer(started["status"], {name.decode(): value.decode() for name, value in started["headers"]})

    def ask(self, token: str) -> Answer:
        """Send one request, and count nothing."""
        answer = self._loop.run(self.asked(token))
        self._note()
        return answer

    def run(self, play: Callable[[], Any]) -> Any:
        """Play something on the app's event loop."""
        return self._loop.run(play())

    def counted(self, answer: Answer) -> Answer:
        """Count the answer to a valid request."""
        self.tally.valid += 1
        if answer.status == 503:
            assert answer.retry_after
            self.tally.unavailable += 1
        elif answer.status == 401:
            self.tally.refused += 1
        elif answer.status != 200:
            self.tally.others.append(answer.status)
        return answer

    def valid(self, *tokens: str) -> Answer:
        """Send valid requests, one with a new token unless given, and count the answers."""
        for token in tokens or (self.token(),):
            answer = self.counted(self.ask(token))
        return answer

    def forged(self, *tokens: str) -> None:
        """Send requests that must not be let in: the usual forgeries of a new token unless given."""
        for token in tokens or forgeries(self.token()):
            self.tally.forged += 1
            self.tally.let_in += self.ask(token).status not in (400, 401, 503)

    def invented(self) -> str:
        """Return a token of the attacker's under a name that nobody published: it makes the service ask for keys."""
        return signed(self.token(), kid=ATTACKER.kid)


def parts(token: str) -> tuple[str, str, str]:
    """Return header, payload and signature as they are written."""
    header, payload, signature = token.split(".")
    return header, payload, signature


def signed(token: str, **header: str) -> str:
    """Return the claims of a token under the attacker's signature and a header of the attacker's."""
    _, payload, _ = parts(token)
    signing_input = f"{b64({'alg': 'RS256', 'typ': 'JWT', **header})}.{payload}"
    return f"{signing_input}.{ATTACKER.sign(signing_input)}"


def forgeries(token: str) -> list[str]:
    """Return what an attacker makes of a token, all under the key that Keycloak publishes, so that nothing is asked for."""
    header, payload, signature = parts(token)
    kid = part(token, 0)["kid"]
    return [
        signed(token, kid=kid),
        f"{b64({'alg': 'none', 'typ': 'JWT', 'kid': kid})}.{payload}.",
        f"{header}.{b64({'client_id': 'caller', 'azp': 'caller', 'jti': str(uuid.uuid4())})}.{signature}",
    ]
