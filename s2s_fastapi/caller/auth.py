"""The httpx auth class: one object for httpx and httpx2, sync and async, pinned to its origins."""

import itertools
import logging
from collections.abc import AsyncGenerator, Collection, Generator
from typing import Any, Final

from s2s_fastapi.caller.carried import CARRIED, SHORTEST_TOKEN, holds, refuses
from s2s_fastapi.caller.given import GivenSettings, Names
from s2s_fastapi.caller.granted import Token
from s2s_fastapi.caller.httpx_compat import HttpxAuth, join_httpx2
from s2s_fastapi.caller.min_validity import LongEnough, lasting, seconds
from s2s_fastapi.caller.origins import Pin, pin_of, pins, spelled, within
from s2s_fastapi.caller.propagation import propagate
from s2s_fastapi.caller.resend import adiscard, discard, replayable
from s2s_fastapi.caller.shared_token import SharedToken
from s2s_fastapi.caller.token_errors import saying_when
from s2s_fastapi.caller.token_source import IN_USE, TokenSource
from s2s_fastapi.caller.wanted import Asked
from s2s_fastapi.downstream import Downstream
from s2s_fastapi.errors import ConfigurationError, S2SError, TokenWithheld
from s2s_fastapi.principal import INBOUND
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.text import named

__all__ = ["ServiceTokenAuth"]

LOG: Final = logging.getLogger("s2s_fastapi.caller")


class _Environment:
    """The settings of one auth object and all that were derived from it by `asking`: resolved once, at the first use."""

    __slots__ = ("given", "resolved", "warned")

    def __init__(self, given: KeycloakSettings | None) -> None:
        self.given = given
        self.warned: frozenset[str] = frozenset()
        self.resolved: tuple[TokenSource, KeycloakSettings] | None = None

    def settings(self, source: TokenSource) -> KeycloakSettings:
        resolved = self.resolved
        if resolved is None or resolved[0] is not source:
            self.resolved = resolved = source, source.settings(self.given)
        return resolved[1]

    def warn(self, sentence: str, level: int = logging.WARNING) -> None:
        """Log a sentence, once."""
        if sentence not in self.warned and len(self.warned) < 16:  # noqa: PLR2004 - a bound, not a meaning
            self.warned |= {sentence}
            LOG.log(level, "%s", sentence)

    def withheld(self, sentence: str) -> TokenWithheld:
        """Return the error, and log it: in a route it becomes an answer 500 that says nothing."""
        self.warn(sentence, logging.ERROR)
        return TokenWithheld(sentence)


class ServiceTokenAuth(HttpxAuth):
    """Attach this service's own token to requests to `origins`, and to nothing else.

    An auth object for every client of httpx and httpx2: ``httpx.AsyncClient(auth=ServiceTokenAuth("http://bob:8000",
    audience="bob"))``. Equal objects ask for the same, and share one token with all of this process. Nothing is read and no
    connection made before the first use. A request that must not carry the token raises `TokenWithheld` and is not sent; without a
    token nothing is sent either. The same goes for a request with the token of the current request in a header or in its URL;
    bodies are not looked at, nor requests from a thread without the current request's context (``run_in_executor``).

    After a 401 with ``error="invalid_token"`` the token is renewed (RFC 6750 section 3.1). The request is sent once more if its body
    can be sent again exactly; otherwise the 401 is returned, and the next request has another token.

    Args:
        origins: ``scheme://host[:port]``, as they stand in the requests; plain http only where http is written. Without any, only
            `token` and `atoken` work.
        audience: The service the token is for, or several; compared with ``aud`` before the token is used.
        scope: A client scope to ask for, or several.
        settings: Instead of the environment.
        insecure_any_origin: Attach the token to whatever request uses this object. Logged at the first use.

    Raises:
        ConfigurationError: An origin or a name is malformed.
    """

    def __init__(
        self,
        *origins: str,
        audience: Names = None,
        scope: Names = None,
        settings: GivenSettings = None,
        insecure_any_origin: bool = False,
    ) -> None:
        if origins and insecure_any_origin:
            raise ConfigurationError(
                "Give origins or insecure_any_origin=True, not both: with the latter the origins would mean nothing."
            )
        join_httpx2()
        self._setup(pins(origins), Asked.of(audience, scope), _Environment(settings), any_origin=insecure_any_origin)

    def _setup(
        self,
        pinned: tuple[Pin, ...],
        asked: Asked,
        environment: _Environment,
        *,
        any_origin: bool,
        min_validity: float = 0.0,
    ) -> None:
        self._pins = pinned
        self._asked = asked
        self._environment = environment
        self._any_origin = any_origin
        self._min_validity = min_validity
        self._warned = False
        self._bound: tuple[TokenSource | None, SharedToken | LongEnough | None] = (None, None)

    def asking(
        self,
        *,
        audience: Names = None,
        scope: Names = None,
        origins: Collection[str] | None = None,
        min_validity: float | None = None,
    ) -> "ServiceTokenAuth":
        """Return one that asks for something else, for a single call; what is not given stays as it is here.

        It shares settings and tokens with this one and with all that ask for the same. `min_validity`: seconds that the token of each
        request has to live at least, counted from before it was asked for; see `token`.

        Raises:
            ConfigurationError: An origin or a name is malformed, or `min_validity` is no number of seconds.
        """
        given = Asked.of(audience, scope)
        asked = Asked(given.audiences or self._asked.audiences, given.scopes or self._asked.scopes)
        other = object.__new__(ServiceTokenAuth)
        pinned = self._pins if origins is None else pins(origins)
        other._setup(
            pinned,
            asked,
            self._environment,
            any_origin=self._any_origin and origins is None,
            min_validity=self._min_validity if min_validity is None else seconds(min_validity),
        )
        return other

    @property
    def downstream(self) -> Downstream:
        """Whom this calls, as a value."""
        return Downstream(
            origins=tuple(map(spelled, self._pins)), audiences=self._asked.audiences, scopes=self._asked.scopes
        )

    def token(self, *, min_validity: float | None = None) -> str:
        """Return the access token, for what is not httpx: gRPC metadata, a message, Celery. Blocks at most 5 s.

        `min_validity`: seconds it has to live at least, where it is used later than now. One with less left is renewed first, for all
        who share it, by one request and at most once in 10 s; so it can be 10 s less than the tokens live.

        Raises:
            TokenRequestError: Keycloak gave none (`AudienceNotGranted`: none that is for the asked audience), or none that lives for
                `min_validity` seconds.
            ConfigurationError: The settings are missing or contradictory, or `min_validity` is no number of seconds.
        """
        shared = lasting(self._shared(), min_validity)
        return (shared.peek() or _got(shared)).value

    async def atoken(self, *, min_validity: float | None = None) -> str:
        """Do as `token`, without blocking the running asyncio or trio loop."""
        shared = lasting(self._shared(), min_validity)
        return (shared.peek() or await _agot(shared)).value

    def refused(self, token: str) -> None:
        """Say that a receiver answered 401 ``invalid_token`` to `token`: the next call asks Keycloak for another one.

        For clients other than httpx, which does it by itself. Never blocks. Whichever call comes late changes nothing: only the token
        that is current now can be marked. Keycloak is asked at most once in 10 s. While it gives no other token, the refused one is
        used as long as it lives.

        Args:
            token: What `token` or `atoken` returned, or the header that was made of it (``Bearer ...``).

        Raises:
            ConfigurationError: The settings are missing or contradictory.
        """
        shared = self._shared()
        current = shared.current()
        if current is not None and token in {current.value, current.header}:
            shared.refuse(current)

    def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Do as `sync_auth_flow`; httpx itself never calls it."""
        return self.sync_auth_flow(request)

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Attach the token, and once another one if the first was refused."""
        shared = self._admit(request)
        token = shared.peek() or _got(shared)
        self._attach(request, token, shared)
        response = yield request
        if response.history:
            self._look_at_redirects(response)
        if refuses(response):
            shared.refuse(token)
            if not replayable(response.request):
                return
            try:
                another = shared.renew(token)
            except S2SError:
                return  # the load has said why; the caller gets the 401
            if another.value != token.value:
                discard(response)
                shared.resent()
                self._attach(response.request, another, shared)
                yield response.request

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Do as `sync_auth_flow`, for async clients on asyncio and trio."""
        shared = self._admit(request)
        token = shared.peek() or await _agot(shared)
        self._attach(request, token, shared)
        response = yield request
        if response.history:
            self._look_at_redirects(response)
        if refuses(response):
            shared.refuse(token)
            if not replayable(response.request):
                return
            try:
                another = await shared.arenew(token)
            except S2SError:
                return
            if another.value != token.value:
                await adiscard(response)
                shared.resent()
                self._attach(response.request, another, shared)
                yield response.request

    def _shared(self) -> SharedToken | LongEnough:
        source, shared = self._bound
        if shared is None or source is not IN_USE.source:
            source = IN_USE.source
            shared = lasting(source.token(self._environment.settings(source), self._asked), self._min_validity)
            self._bound = source, shared
            if self._any_origin and not self._warned:
                self._warned = True
                LOG.warning("insecure_any_origin: a token with %s goes to any host a request names", self._asked)
        return shared

    def _admit(self, request: Any) -> SharedToken | LongEnough:
        """Refuse a request that must not carry our token, before anything is asked or sent."""
        url = request.url
        # `within`, written out: this is the hot path, a call costs as much as the comparison. The URL of a WebSocket takes the call.
        if (
            not self._any_origin
            and ((url.scheme, url.raw_host, url.port) not in self._pins or url.userinfo)
            and not within(url, self._pins)
        ):
            raise self._environment.withheld(self._elsewhere(url))
        inbound = INBOUND.get()
        if inbound is not None and holds(url.raw_path, inbound):
            raise self._environment.withheld(
                "The URL holds the token the current request came with; nothing was sent."
                " That token was given to this service, not to those it calls."
            )
        for name, value in request.headers.raw:
            if len(name) == 13 and name.lower() == b"authorization":  # noqa: PLR2004 - its length; spares lowering all the others
                carried = request.extensions.get(CARRIED)
                if (
                    carried is None or value != carried[0].header_bytes
                ):  # the same Request, sent again, has our own old one
                    del value  # a user's token, perhaps, and error trackers record the locals of each frame that logs
                    raise self._environment.withheld(
                        "The request already has an Authorization header, so it does not get this service's token as well, and was not"
                        " sent. A user's token is never passed on; leave the header out, or write auth=None for this request."
                    )
            elif inbound is not None and len(value) >= SHORTEST_TOKEN and holds(value, inbound):
                del value
                raise self._environment.withheld(
                    f"The header {named(name.decode('ascii', 'replace'))} holds the token the current request came with; nothing was sent."
                    " That token was given to this service, not to those it calls."
                )
        source, shared = self._bound
        return shared if shared is not None and source is IN_USE.source else self._shared()

    def _attach(self, request: Any, token: Token, shared: SharedToken | LongEnough) -> None:
        # If the current request came with this very token, its caller is this service itself: nobody else's token is sent on.
        request.headers["Authorization"] = token.header
        request.extensions[CARRIED] = token, None if self._any_origin else self._pins, shared, self._environment
        shared.used(token)
        propagate(request)

    def _look_at_redirects(self, response: Any) -> None:
        """Warn, once for each pair of origins, of a redirect that left the token behind."""
        for before, after in itertools.pairwise([answer.request for answer in (*response.history, response)]):
            if "Authorization" not in before.headers or "Authorization" in after.headers:
                continue
            there = pin_of(after.url)
            cure = (
                "httpx takes it off where a redirect leads to another origin, also if it may go there: call that address"
                if self._any_origin or there in self._pins
                else "if it is the same service, call that address"
            )
            self._environment.warn(
                f"a redirect led from {spelled(pin_of(before.url))} to {spelled(there)}, and the request was sent there without the token:"
                f" {cure}"
            )

    def _elsewhere(self, url: Any) -> str:
        try:
            there = spelled(pin_of(url))
        except KeyError:
            there = "a URL that is neither http nor https"
        if not self._pins:
            return f"This ServiceTokenAuth has no origin, so its token goes nowhere: write ServiceTokenAuth({there!r}, ...). Nothing was sent."
        if url.userinfo:
            return (
                f"The URL of a request to {there} has a user name in it: its token was withheld and nothing was sent."
            )
        here = ", ".join(map(spelled, self._pins))
        return (
            f"The token for {here} does not go to {there}: nothing was sent. Add that origin if it is the same service."
        )

    def _value(self) -> tuple[object, ...]:
        return frozenset(self._pins), self._asked, self._environment.given, self._any_origin, self._min_validity

    def __eq__(self, other: object) -> bool:
        return self._value() == other._value() if isinstance(other, ServiceTokenAuth) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value())

    def __repr__(self) -> str:
        parts = [repr(spelled(pinned)) for pinned in self._pins]
        for what, names in (("audience", self._asked.audiences), ("scope", self._asked.scopes)):
            if names:
                parts.append(f"{what}={sorted(names)!r}")
        if self._any_origin:
            parts.append("insecure_any_origin=True")
        if self._min_validity:
            parts.append(f"min_validity={self._min_validity:g}")
        return f"ServiceTokenAuth({', '.join(parts)})"

    def __copy__(self) -> "ServiceTokenAuth":
        return self  # immutable

    def __deepcopy__(self, memo: object) -> "ServiceTokenAuth":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        names = sorted(self._asked.audiences) or None, sorted(self._asked.scopes) or None
        flags = self._any_origin, self._min_validity
        return _rebuild, (tuple(map(spelled, self._pins)), *names, self._environment.given, *flags)


def _got(shared: SharedToken | LongEnough) -> Token:
    with saying_when(shared.state):
        return shared.get()


async def _agot(shared: SharedToken | LongEnough) -> Token:
    with saying_when(shared.state):
        return await shared.aget()


def _rebuild(  # noqa: PLR0917 - what was written, for pickle
    origins: tuple[str, ...],
    audience: Names,
    scope: Names,
    settings: KeycloakSettings | None,
    any_origin: bool,
    min_validity: float,
) -> ServiceTokenAuth:
    auth = ServiceTokenAuth(*origins, audience=audience, scope=scope, settings=settings, insecure_any_origin=any_origin)
    return auth.asking(min_validity=min_validity) if min_validity else auth
