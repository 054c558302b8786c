"""The rules of `ServiceTokenAuth` for requests of other clients: where the token may go, what a request must not carry, one resend."""

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from s2s_fastapi.caller.acting_user import RequestedToken
from s2s_fastapi.caller.binding import PROOF, Answer, Proven, Remedy
from s2s_fastapi.caller.carried import (
    HELD_BY_URL,
    OWN_AUTHORIZATION,
    OWN_PROOF,
    SHORTEST_TOKEN,
    held_by_header,
    holds,
    is_placeholder,
)
from s2s_fastapi.caller.challenges import UNAUTHORIZED, challenge_error
from s2s_fastapi.caller.granted import GrantedToken
from s2s_fastapi.caller.origins import PORTS, WEBSOCKETS, Pin
from s2s_fastapi.engine.steps import Steps, arun, run
from s2s_fastapi.errors import ConfigurationError, S2SError, TokenWithheld

__all__ = ["AUTHORIZATION", "Attempt", "Rules", "Tokens", "installed", "pin_at", "refuses"]

AUTHORIZATION: Final = "Authorization"


class Tokens(Protocol):
    """What gives the token, and learns that a receiver refused it."""

    def token(self) -> str:
        """Return the token."""

    async def atoken(self) -> str:
        """Return the token without blocking the loop."""

    def refused(self, token: str | None = None) -> None:
        """Take note that a receiver refused `token`."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the adapter of a client asks before it sends, and after a refusal."""

    tokens: Tokens
    pinned: tuple[Pin, ...]
    """The origins of the token."""
    foreign: Callable[[], tuple[bytes, ...]]
    """Returns the digests of the tokens that a request must not hold."""
    elsewhere: Callable[[Pin | None, bool], str]
    """Returns the sentence about a request to another place, or with a user name in its URL."""
    withheld: Callable[[str], TokenWithheld]
    """Logs a sentence, and returns the error."""
    resent: Callable[[], None]
    """Counts a request that is sent once more."""
    shared: Callable[[], RequestedToken]
    """Returns the token itself, for clients that can send a proof with it."""
    min_validity: float = 0.0

    def check_target(self, there: Pin | None, *, user_name: bool = False) -> None:
        """Refuse a target that is none of the origins. None is a target that cannot be known.

        Raises:
            TokenWithheld: It may not get the token.
        """
        if there not in self.pinned or user_name:
            raise self.withheld(self.elsewhere(there, user_name))

    def check_content(self, headers: Iterator[tuple[str, str | bytes]], path: str = "") -> None:
        """Refuse a request that has an Authorization header of its own, or holds the token of the current request.

        `headers` is an iterator, because error trackers record the arguments of each frame: it shows no value.

        Raises:
            TokenWithheld: The sentence names the header, without its value.
        """
        foreign = self.foreign()
        if foreign and len(path) >= SHORTEST_TOKEN and any(holds(path.encode(), each) for each in foreign):
            del path
            raise self.withheld(HELD_BY_URL)
        for name, text in headers:
            value = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
            own = name.lower() == "authorization"
            if own and not is_placeholder(value):
                del (
                    text,
                    value,
                )  # it may be a user's token, and error trackers record the locals of each frame that logs
                raise self.withheld(f"{OWN_AUTHORIZATION}.")
            if not own and foreign and len(value) >= SHORTEST_TOKEN and any(holds(value, each) for each in foreign):
                del text, value
                raise self.withheld(held_by_header(name))

    def header(self) -> str:
        """Return the value of the Authorization header. Callers keep it in no variable, because error trackers record those."""
        return f"Bearer {self.tokens.token()}"

    async def aheader(self) -> str:
        """Do as `header`, without blocking the loop."""
        return f"Bearer {await self.tokens.atoken()}"

    def another(self, refused: str, *, resend: bool) -> str | None:
        """Report that the header value `refused` was refused. Return another one if the request can be sent once more with it, else None."""
        return run(self._another(refused, resend))

    async def aanother(self, refused: str, *, resend: bool) -> str | None:
        """Do as `another`, without blocking the loop."""
        return await arun(self._another(refused, resend))

    def _another(self, refused: str, resend: bool) -> Steps[str | None]:
        try:
            self.tokens.refused(refused)
            if not resend:
                return None
            header: str = yield self.header, self.aheader
        except S2SError:
            return None  # the load has logged why; the caller gets the refusal
        if header == refused:
            return None
        self.resent()
        return header


class Attempt:
    """One request, or one hop of a redirect, of a client that shows its method and URL: what it carries, and whether it is sent once more.

    It writes into the headers of the client's own request, and keeps them in no local, because error trackers show those.
    """

    __slots__ = ("_headers", "_method", "_origin", "_proven", "_rules", "_token", "_tried", "_url")

    def __init__(
        self, rules: Rules, headers: MutableMapping[str, str], *, method: str, url: str, origin: Pin | None
    ) -> None:
        self._rules = rules
        self._headers = headers
        self._method = method
        self._url = url
        self._origin = origin
        self._token: GrantedToken | None = None
        self._proven: Proven | None = None
        self._tried: set[str] = set()

    def attach(self) -> None:
        """Write the token and its proof.

        Raises:
            TokenWithheld: The request has a proof already.
            S2SError: There is no token.
        """
        run(self._attach())

    async def aattach(self) -> None:
        """Do as `attach`, without blocking the loop."""
        await arun(self._attach())

    def again(self, answer: Answer, *, resend: bool) -> bool:
        """Return whether the request was refused, and can be sent once more with what was written into its headers now."""
        return run(self._again(answer, resend))

    async def aagain(self, answer: Answer, *, resend: bool) -> bool:
        """Do as `again`, without blocking the loop."""
        return await arun(self._again(answer, resend))

    def _attach(self) -> Steps[None]:
        shared, needed = self._rules.shared(), self._rules.min_validity
        token = shared.fresh(needed)
        if token is None:
            token = yield partial(shared.get, needed), partial(shared.aget, needed)
        if token.binding is not None and PROOF in self._headers:
            raise self._rules.withheld(OWN_PROOF)
        self._write(token)

    def _write(self, token: GrantedToken) -> None:
        self._token = token
        self._headers[AUTHORIZATION] = token.header
        if token.binding is not None and self._origin is not None:
            self._proven = token.binding.prove(self._method, self._url, self._origin, token.value)
            self._headers[PROOF] = self._proven.header

    def _again(self, answer: Answer, resend: bool) -> Steps[bool]:
        token, needed = self._token, self._needed(answer)
        if token is None or not needed or needed in self._tried:
            return False
        self._tried.add(needed)
        shared, another = self._rules.shared(), token
        if needed == "token":
            shared.refuse(token)
        if not resend:
            return False
        if needed == "token":
            try:
                another = yield from shared.renewing(token)
            except S2SError:
                return False  # the load has logged why; the caller gets the refusal
            if another.value == token.value:
                return False
        self._rules.resent()
        self._write(another)
        return True

    def _needed(self, answer: Answer) -> Remedy:
        if self._token is not None and self._token.binding is not None and self._proven is not None:
            return self._token.binding.remedy(self._proven, answer, self._tried)
        return "token" if refuses(answer.status, answer.challenges) else ""


def pin_at(scheme: str, host: str | None, port: int | None) -> Pin | None:
    """Return the pin of a place as another URL parser names it, or None if that is no place for a token."""
    scheme = WEBSOCKETS.get(scheme.lower(), scheme.lower())
    if scheme not in PORTS or not host or not host.isascii():
        return None
    return scheme, host.lower().encode(), None if port == PORTS[scheme] else port


def refuses(status: int, challenges: Iterable[str]) -> bool:
    """Return whether an answer says that the token is refused (RFC 6750 section 3.1)."""
    return status == UNAUTHORIZED and challenge_error(challenges) == "invalid_token"


@contextmanager
def installed(method: str, package: str) -> Iterator[None]:
    """Turn a missing or old package into one sentence.

    Raises:
        ConfigurationError: `package` is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(f"{method} needs {package}: pip install '{package}'.") from error
