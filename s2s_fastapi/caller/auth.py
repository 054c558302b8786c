"""The httpx auth class: one object for httpx and httpx2, sync and async, pinned to its origins."""

import itertools
import logging
from collections.abc import AsyncGenerator, Collection, Generator
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NoReturn
from weakref import ReferenceType, ref

import httpx
from starlette.requests import HTTPConnection

from s2s_fastapi import environment
from s2s_fastapi.accepted import digest
from s2s_fastapi.caller.acting_user import ActingUser, RequestedToken, UsersToken
from s2s_fastapi.caller.binding import PROOF
from s2s_fastapi.caller.carried import (
    CARRIED,
    HELD_BY_URL,
    OWN_AUTHORIZATION,
    OWN_PROOF,
    PLACEHOLDER,
    SHORTEST_TOKEN,
    foreign_tokens,
    held_by_header,
    holds,
    is_placeholder,
    propagate,
    prove,
    proven,
    refuses,
    remedy,
)
from s2s_fastapi.caller.challenges import UNAUTHORIZED
from s2s_fastapi.caller.clients.rules import Rules, installed
from s2s_fastapi.caller.granted import GrantedToken
from s2s_fastapi.caller.httpx_compat import HttpxAuth
from s2s_fastapi.caller.origins import PORTS, Pin, pin_of, pins, spelled, within
from s2s_fastapi.caller.resend import discarding, replayable
from s2s_fastapi.caller.shared_token import SharedToken
from s2s_fastapi.caller.token_source import IN_USE, TokenSource
from s2s_fastapi.caller.wanted import Names, Wanted, seconds, written_in_code
from s2s_fastapi.downstream import Downstream
from s2s_fastapi.engine.steps import Steps, arun, run
from s2s_fastapi.errors import ConfigurationError, S2SError, TokenWithheld

if TYPE_CHECKING:  # loaded when they are asked for: a service needs none of these packages
    from s2s_fastapi.caller.clients.aiohttp_middleware import ServiceMiddleware
    from s2s_fastapi.caller.clients.grpc_channels import GrpcChannels
    from s2s_fastapi.caller.clients.requests_session import ServiceSession

__all__ = ["ServiceTokenAuth"]

LOG: Final = logging.getLogger("s2s_fastapi.caller")

_BOUND: Final = (
    "The tokens of this ServiceTokenAuth are bound to a key (dpop), and work only with a proof for each request, so {what} has none to give."
    " Write auth.headers_for(method, url), which returns both headers, or dpop=False for a receiver that takes bearer tokens."
)

_GIVEN: "ContextVar[tuple[ReferenceType[ServiceTokenAuth], bytes] | None]" = ContextVar(
    "s2s_fastapi_given", default=None
)
"""Who gave a token to this thread or task last, and its digest: what `ServiceTokenAuth.refused` means without an argument."""


class _Environment:
    """The settings of one auth object and of all that `asking` derived from it. Read once, at the first use."""

    __slots__ = ("dpop", "given", "resolved", "warned")

    def __init__(self, given: "environment.KeycloakSettings | None", dpop: bool | None = None) -> None:
        self.given = given
        self.dpop = dpop
        """What code says instead of the setting; None if it says nothing."""
        self.warned: frozenset[str] = frozenset()
        self.resolved: tuple[TokenSource, environment.KeycloakSettings] | None = None

    def settings(self, source: TokenSource) -> "environment.KeycloakSettings":
        resolved = self.resolved
        if resolved is None or resolved[0] is not source:
            settings = source.settings(self.given)
            if self.dpop is not None and self.dpop != settings.dpop:
                settings = settings.model_copy(update={"dpop": self.dpop})
            self.resolved = resolved = source, settings
        return resolved[1]

    def bound(self) -> bool:
        """Return whether tokens are bound to a key. Settings that are incomplete say no, as long as they are."""
        if self.dpop is not None:
            return self.dpop
        try:
            return IN_USE.source.settings(self.given).dpop
        except ConfigurationError:
            return False

    def warn(self, sentence: str, level: int = logging.WARNING) -> None:
        """Log a sentence once."""
        if sentence not in self.warned and len(self.warned) < 16:  # noqa: PLR2004 - a bound, not a meaning
            self.warned |= {sentence}
            LOG.log(level, "%s", sentence)

    def withheld(self, sentence: str) -> TokenWithheld:
        """Return the error, and log it: in a route it becomes a 500 whose body gives no reason."""
        self.warn(sentence, logging.ERROR)
        return TokenWithheld(sentence)


class ServiceTokenAuth(HttpxAuth):
    """Attach this service's own token to requests to `origins`, and to nothing else.

    An auth object for every client of httpx and httpx2: ``httpx.AsyncClient(auth=ServiceTokenAuth("http://bob:8000",
    audience="bob"))``.

    - Equal objects share one token in this process. Nothing is read and no connection is made before the first use.
    - A request that must not carry the token raises `TokenWithheld` and is not sent. Without a token nothing is sent either.
    - A request that holds the token of the current request, in a header or in its URL, is not sent either. Bodies are not searched,
      nor requests from a thread without the current request's context (``run_in_executor``).
    - With `dpop` the token is bound to a key that only this process has, and each request carries a proof made with it (RFC 9449): a
      service that gets the token cannot use it elsewhere.
    - After a 401 with ``error="invalid_token"`` the token is renewed (RFC 6750 section 3.1). The request is sent once more if its body
      can be repeated exactly. Otherwise the 401 is returned, and the next request has another token.

    Args:
        origins: ``scheme://host[:port]``, as in the requests. Plain http is used only for an origin written with http. Without
            origins only `token` and `atoken` work.
        audience: The service the token is for, or several; compared with ``aud`` before the token is used.
        scope: A client scope to ask for, or several.
        settings: Instead of the environment.
        insecure_any_origin: Attach the token to every request that uses this object. Logged at the first use.
        dpop: Whether to bind the token to a key. None: as the settings say (``KEYCLOAK_DPOP``).

    Raises:
        ConfigurationError: An origin or a name is malformed.
    """

    _elsewhere_cure: str = "If that is the same service, add its origin: ServiceTokenAuth(origin, another origin, ...)."

    @written_in_code
    def __init__(
        self,
        *origins: str,
        audience: Names = None,
        scope: Names = None,
        settings: "environment.KeycloakSettings | None" = None,
        insecure_any_origin: bool = False,
        dpop: bool | None = None,
    ) -> None:
        if origins and insecure_any_origin:
            raise ConfigurationError(
                "Give origins or insecure_any_origin=True, not both: with insecure_any_origin=True the origins have no effect."
            )
        self._setup(
            pins(origins), Wanted.of(audience, scope), _Environment(settings, dpop), any_origin=insecure_any_origin
        )

    def _setup(
        self,
        pinned: tuple[Pin, ...],
        wanted: Wanted,
        environment: _Environment,
        *,
        any_origin: bool,
        min_validity: float = 0.0,
    ) -> None:
        self._pins = pinned
        self._wanted = wanted
        self._environment = environment
        self._any_origin = any_origin
        self._min_validity = min_validity
        self._warned = False
        self._bound: tuple[TokenSource | None, RequestedToken | None] = (None, None)

    def asking(
        self,
        *,
        audience: Names = None,
        scope: Names = None,
        origins: Collection[str] | None = None,
        min_validity: float | None = None,
    ) -> "ServiceTokenAuth":
        """Return an auth object for another audience or scope, for a single call. Arguments that are left out stay as they are here.

        - It shares the settings of this object, and its token with all objects of the same audience and scope.
        - `min_validity`: the least number of seconds that the token of each request must still live; see `token`.

        Raises:
            ConfigurationError: An origin or a name is malformed, or `min_validity` is not a number of seconds.
        """
        given = Wanted.of(audience, scope)
        wanted = Wanted(given.audiences or self._wanted.audiences, given.scopes or self._wanted.scopes)
        return self._alike(
            self._pins if origins is None else pins(origins),
            wanted,
            any_origin=self._any_origin and origins is None,
            min_validity=self._needed(min_validity),
        )

    def _alike(
        self, pinned: tuple[Pin, ...], wanted: Wanted, *, any_origin: bool, min_validity: float
    ) -> "ServiceTokenAuth":
        other = ServiceTokenAuth()
        other._setup(pinned, wanted, self._environment, any_origin=any_origin, min_validity=min_validity)
        return other

    def on_behalf_of(self, user: str | HTTPConnection) -> "ServiceTokenAuth":
        """Return an auth object whose requests carry a token of one user: the user's token, exchanged for this object's audience (RFC 8693).

        - It has the origins, settings and rules of this object: ``client.get(url, auth=crm.auth.on_behalf_of(request))``.
        - A token is exchanged at the first call, and remembered for all calls of this user to this audience until one of the two tokens
          expires. Keycloak 26.2 or newer exchanges it, if the client has "Standard Token Exchange" switched on.
        - The user's token goes to Keycloak and nowhere else. This service's own token is never sent in its place.
        - After the answer to `user`'s request was sent, nothing more is exchanged. A token that is remembered can still be used.
        - `min_validity` of this object has no meaning for it: a user's token is not renewed before it ends.

        Args:
            user: The `Request` or `WebSocket` that `ServiceAuthMiddleware` accepted, or the text of a user's access token that you verified.

        Raises:
            NoUserToActFor: There is no user: the caller is a service, of another realm or nobody, or the request has ended. Requests raise
                it too.
            SessionEnded: The user is no longer logged in. Requests raise it too.
            TokenRequestError: The user's token is not for this service. Requests raise it for every other reason why Keycloak exchanges none.
            ConfigurationError: The settings are missing or contradictory, or `user` is something else.
        """
        try:
            acting = ActingUser.of(user)
        finally:
            del user  # error trackers record the locals of each frame that raises
        return _OnBehalf(
            acting,
            self._elsewhere_cure,
            self._pins,
            self._wanted,
            self._environment,
            any_origin=self._any_origin,
            min_validity=0.0,
        )

    @property
    def downstream(self) -> Downstream:
        """Origins, audiences and scopes of the services that this object calls."""
        given = self._environment.given
        return Downstream(
            origins=tuple(map(spelled, self._pins)),
            audiences=self._wanted.audiences,
            scopes=self._wanted.scopes,
            dpop=self._environment.bound(),
            settings=given if given is None else self.settings_if_complete() or given,
        )

    def token(self, *, min_validity: float | None = None) -> str:
        """Return the access token for clients other than httpx: gRPC metadata, a message, Celery. Blocks at most 5 s.

        Not for signal handlers: it may wait for a lock that the interrupted code holds.

        `min_validity`: the least number of seconds that the token must still live, if it is used later. A token with less time left is
        renewed first, for all who share it, at most once in 10 s. The value must be at least 10 s below the token lifetime.

        Raises:
            TokenRequestError: Keycloak gave no token (`AudienceNotGranted`: no token for the wanted audience), or none that lives for
                `min_validity` seconds.
            ConfigurationError: The settings are missing or contradictory, or `min_validity` is not a number of seconds. Or the token is bound
                to a key (`dpop`), and useless without a proof: use `headers_for`.
        """
        shared = self._unbound("token()")
        needed = self._needed(min_validity)
        return self._give(shared.fresh(needed) or shared.get(needed)).value

    async def atoken(self, *, min_validity: float | None = None) -> str:
        """Do as `token`, without blocking the running asyncio or trio loop."""
        shared = self._unbound("atoken()")
        needed = self._needed(min_validity)
        return self._give(shared.fresh(needed) or await shared.aget(needed)).value

    def headers_for(self, method: str, url: str) -> dict[str, str]:
        """Return the headers for one request of a client that is none of httpx, requests and aiohttp, such as a WebSocket client.

        - ``Authorization``; with `dpop` also ``DPoP``: a proof for exactly this request, good for half a minute and for one use. Take new
          headers for each request, each redirect and each retry.
        - `url` is the URL as it is called. That of a WebSocket may begin with ``ws`` or ``wss``, and its method is ``GET``.
        - Blocks at most 5 s, as `token`. If the receiver answers ``invalid_token``, call `refused`.

        Raises:
            TokenWithheld: `url` is at none of the origins, or holds the token of the current request.
            TokenRequestError: as `token`.
            ConfigurationError: as `token`, but a bound token is no error.
        """
        called = self._called(url)
        return self._both(self._ready(), method, called)

    async def aheaders_for(self, method: str, url: str) -> dict[str, str]:
        """Do as `headers_for`, without blocking the running asyncio or trio loop."""
        called = self._called(url)
        return self._both(await self._aready(), method, called)

    def _ready(self) -> GrantedToken:
        shared, needed = self._shared(), self._min_validity
        return shared.fresh(needed) or shared.get(needed)

    async def _aready(self) -> GrantedToken:
        shared, needed = self._shared(), self._min_validity
        return shared.fresh(needed) or await shared.aget(needed)

    def _called(self, url: str) -> httpx.URL:
        """Return `url` if it may get the token.

        Raises:
            TokenWithheld: It may not.
        """
        try:
            called = httpx.URL(url)
        except (httpx.InvalidURL, TypeError):
            called = httpx.URL("")
        self._check_url(called)
        if pin_of(called)[0] not in PORTS:  # with insecure_any_origin
            raise self._environment.withheld(self._elsewhere(None, with_user=False))
        return called

    def _both(self, token: GrantedToken, method: str, url: httpx.URL) -> dict[str, str]:
        headers = {"Authorization": self._give(token).header}
        if token.binding is not None:
            plain = url.copy_with(userinfo=b"")
            headers[PROOF] = token.binding.prove(method.upper(), str(plain), pin_of(plain), token.value).header
        return headers

    def _unbound(self, what: str) -> RequestedToken:
        """Return the token that needs no proof.

        Raises:
            ConfigurationError: It is bound to a key.
        """
        shared = self._shared()
        if self._environment.settings(IN_USE.source).dpop:
            raise ConfigurationError(_BOUND.format(what=what))
        return shared

    def _give(self, token: GrantedToken) -> GrantedToken:
        _GIVEN.set((ref(self), digest(token.value)))
        return token

    def _needed(self, min_validity: float | None) -> float:
        return self._min_validity if min_validity is None else seconds(min_validity)

    def refused(self, token: str | None = None) -> None:
        """Report that a receiver answered 401 ``invalid_token`` to `token`: the next call requests another one from Keycloak.

        - Only for clients other than httpx and those of `for_requests`, `for_aiohttp` and `for_grpc`: with these it happens by itself.
          Never blocks.
        - Only the current token can be marked, so a late call changes nothing.
        - Keycloak is asked at most once in 10 s. While it gives no other token, the refused one is used until it expires. A user's token,
          of `on_behalf_of`, is not: the next call then fails.

        Args:
            token: What `token` or `atoken` returned, or the value of the Authorization header (``Bearer ...``, ``DPoP ...``). None: the token that this object
                gave last to this thread or task; if it gave none here, the current token.

        Raises:
            ConfigurationError: The settings are missing or contradictory.
        """
        shared = self._shared()
        current = shared.current()
        if current is not None and (self._gave(current) if token is None else token in {current.value, current.header}):
            shared.refuse(current)

    def _gave(self, current: GrantedToken) -> bool:
        """Return whether `current` is what this thread or task got last, as far as that is known."""
        given = _GIVEN.get()
        return given is None or given[0]() is not self or given[1] == digest(current.value)

    @property
    def placeholder(self) -> str:
        """The API key for SDKs that insist on one, beside an httpx client with this object as ``auth``: the token takes its place.

        It is no secret, and the same text everywhere. Only ``Bearer <placeholder>``, character by character, is replaced. A request to
        another origin raises `TokenWithheld`, as always.
        """
        return PLACEHOLDER

    def for_requests(self) -> "ServiceSession":
        """Return a new ``requests.Session`` whose requests carry the token, with the rules of this object.

        - A redirect to another origin raises `TokenWithheld`: write ``allow_redirects=False``, and follow it with another session.
        - Bytes, text, JSON and forms are sent once more after a refusal. Of files and generators the 401 is returned.
        - It reads no proxy and no ``.netrc`` from the environment, and keeps no cookies. Close it as any session.

        Raises:
            ConfigurationError: requests is not installed, or this object has `insecure_any_origin`.
        """
        with installed("for_requests()", "requests>=2.32"):
            from s2s_fastapi.caller.clients.requests_session import ServiceSession  # noqa: PLC0415 - an optional package
        return ServiceSession(self._rules())

    def for_aiohttp(self) -> "ServiceMiddleware":
        """Return a middleware for ``aiohttp.ClientSession(middlewares=[...])``, with the rules of this object. Put it last.

        - A redirect to another origin raises `TokenWithheld`: write ``allow_redirects=False``, and follow it with another session.
        - Bytes, text, JSON and urlencoded forms are sent once more after a refusal. Of every other body the 401 is returned.
        - ``ws_connect`` works, too. Proxies, ``.netrc`` and cookies are the session's: leave out ``trust_env=True``, and give it
          ``cookie_jar=aiohttp.DummyCookieJar()`` if it serves several users.

        Raises:
            ConfigurationError: aiohttp 3.12 or newer is not installed, or this object has `insecure_any_origin`.
        """
        with installed("for_aiohttp()", "aiohttp>=3.12"):
            from s2s_fastapi.caller.clients.aiohttp_middleware import ServiceMiddleware  # noqa: PLC0415 - an optional package
        return ServiceMiddleware(self._rules())

    def for_grpc(self) -> "GrpcChannels":
        """Return what makes gRPC channels whose calls carry the token: ``.channel(target)`` and ``.aio_channel(target)``.

        - `target` is compared with the origins when the channel is made. In clear only if the origin was written with http.
        - ``.call_credentials()`` is for a TLS channel that another library makes, with fewer guarantees.

        Raises:
            ConfigurationError: grpcio is not installed, or this object has `insecure_any_origin` or `dpop`: a call of gRPC has no proof.
        """
        if self._environment.bound():
            raise ConfigurationError(_BOUND.format(what="for_grpc()"))
        with installed("for_grpc()", "grpcio>=1.60"):
            from s2s_fastapi.caller.clients.grpc_channels import GrpcChannels  # noqa: PLC0415 - an optional package
        return GrpcChannels(self._rules())

    def _rules(self) -> Rules:
        if (
            self._any_origin
        ):  # these clients follow redirects by themselves, and show us each hop as if it were a request of its own
            raise ConfigurationError(
                "Clients other than httpx need origins: write ServiceTokenAuth(origin, ...) instead of insecure_any_origin=True. Otherwise"
                " a redirect could take the token to any host."
            )
        return Rules(
            tokens=self,
            pinned=self._pins,
            foreign=self._foreign_tokens,
            elsewhere=self._elsewhere,
            withheld=self._environment.withheld,
            resent=lambda: self._shared().resent(),
            shared=self._shared,
            min_validity=self._min_validity,
        )

    def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Do as `sync_auth_flow`; httpx itself never calls it."""
        return self.sync_auth_flow(request)

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Attach the token; if it is refused, attach another token once."""
        shared, needed = self._admit(request), self._min_validity
        token = (shared.fresh(needed) if needed else shared.peek()) or shared.get(needed)
        self._attach(request, token, shared)
        response = yield request
        if token.binding is not None:
            tried: set[str] = set()
            while (again := run(self._after_proof(response, shared, tried))) is not None:
                response = yield again
        elif response.history or response.status_code == UNAUTHORIZED:
            again = run(self._after(response, token, shared))
            if again is not None:
                yield again

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Do as `sync_auth_flow`, for async clients on asyncio and trio."""
        shared, needed = self._admit(request), self._min_validity
        token = (shared.fresh(needed) if needed else shared.peek()) or await shared.aget(needed)
        self._attach(request, token, shared)
        response = yield request
        if token.binding is not None:
            tried: set[str] = set()
            while (again := await arun(self._after_proof(response, shared, tried))) is not None:
                response = yield again
        elif response.history or response.status_code == UNAUTHORIZED:
            again = await arun(self._after(response, token, shared))
            if again is not None:
                yield again

    def _after(self, response: Any, token: GrantedToken, shared: RequestedToken) -> Steps[Any]:
        """Return the request to send once more with another token, or None."""
        if response.history:
            self._look_at_redirects(response)
        if not refuses(response):
            return None
        shared.refuse(token)
        if not replayable(response.request):
            return None
        try:
            another = yield from shared.renewing(token)
        except S2SError:
            return None  # the load has logged why; the caller gets the 401
        if another.value == token.value:
            return None
        yield from discarding(response)
        shared.resent()
        self._attach(response.request, another, shared)
        return response.request

    def _after_proof(self, response: Any, shared: RequestedToken, tried: set[str]) -> Steps[Any]:
        """Return the request to send once more with another token or another proof, or None. Each remedy is tried once."""
        if response.history:
            self._look_at_redirects(response)
        needed = remedy(response, tried)
        if not needed or needed in tried:
            return None
        tried.add(needed)
        request = response.request
        token = request.extensions[CARRIED][0]
        if needed == "token":
            shared.refuse(token)
        if not replayable(request):
            return None
        if needed == "token":
            try:
                another = yield from shared.renewing(token)
            except S2SError:
                return None  # the load has logged why; the caller gets the 401
            if another.value == token.value:
                return None
            token = another
        yield from discarding(response)
        shared.resent()
        self._attach(request, token, shared)
        return request

    @property
    def pins(self) -> tuple[Pin, ...]:
        """Where the token may be sent."""
        return self._pins

    def settings_if_complete(self) -> "environment.KeycloakSettings | None":
        """Return the settings, or None if they are not complete: a request for the token says what is missing."""
        try:
            return self._environment.settings(IN_USE.source)
        except ConfigurationError:
            return None

    def _own(self, source: TokenSource) -> SharedToken:
        """Return this service's own token; no network yet."""
        return source.token(self._environment.settings(source), self._wanted)

    def _requested(self, source: TokenSource) -> RequestedToken:
        return self._own(source)

    def _shared(self) -> RequestedToken:
        source, shared = self._bound
        if shared is None or source is not IN_USE.source:
            source = IN_USE.source
            shared = self._requested(source)
            self._bound = source, shared
            if self._any_origin and not self._warned:
                self._warned = True
                LOG.warning(
                    "insecure_any_origin: a token with %s is sent to any host that a request names", self._wanted
                )
        return shared

    def _check_url(self, url: Any) -> None:
        """Refuse a URL that must not get our token.

        Raises:
            TokenWithheld: It is at none of the origins, or holds the token of the current request.
        """
        if not self._any_origin and not within(url, self._pins):
            there = pin_of(url)
            raise self._environment.withheld(self._elsewhere(there if there[0] in PORTS else None, bool(url.userinfo)))
        if any(holds(url.raw_path, each) for each in self._foreign_tokens()):
            raise self._environment.withheld(HELD_BY_URL)

    def _admit(self, request: Any) -> RequestedToken:
        """Refuse a request that must not carry our token, before a token is requested or the request is sent."""
        url = request.url
        # `within`, written out: on this hot path a call costs as much as the comparison. Only the URL of a WebSocket takes the call.
        if not self._any_origin and ((url.scheme, url.raw_host, url.port) not in self._pins or url.userinfo):
            self._check_url(url)
        foreign = self._foreign_tokens()
        if foreign and len(url.raw_path) >= SHORTEST_TOKEN and any(holds(url.raw_path, each) for each in foreign):
            raise self._environment.withheld(HELD_BY_URL)
        for name, value in request.headers.raw:
            if len(name) == 13 and name.lower() == b"authorization":  # noqa: PLR2004 - its length: other headers need not be lowered
                carried = request.extensions.get(CARRIED)
                # The same Request, sent again, carries our own earlier token.
                ours = carried is not None and value == carried[0].header_bytes
                if not ours and not is_placeholder(value):
                    del value  # it may be a user's token, and error trackers record the locals of each frame that logs
                    raise self._environment.withheld(f"{OWN_AUTHORIZATION}, or write auth=None for this request.")
            elif foreign and len(value) >= SHORTEST_TOKEN and any(holds(value, each) for each in foreign):
                del value
                raise self._environment.withheld(held_by_header(name.decode("ascii", "replace")))
        source, shared = self._bound
        return shared if shared is not None and source is IN_USE.source else self._shared()

    def _foreign_tokens(self) -> tuple[bytes, ...]:
        """Return the digests of the tokens that a request of this object must not hold."""
        return foreign_tokens()

    def _attach(self, request: Any, token: GrantedToken, shared: RequestedToken) -> None:
        if token.binding is not None:
            self._prove(request, token)
        # If the current request carries this same token, its caller is this service itself: no other caller's token is forwarded.
        request.headers["Authorization"] = token.header
        request.extensions[CARRIED] = token, None if self._any_origin else self._pins, shared, self._environment
        shared.used(token)
        propagate(request)

    def _prove(self, request: Any, token: GrantedToken) -> None:
        made, there = proven(request), request.headers.get(PROOF)
        # The same Request, sent again, carries our own earlier proof.
        if there is not None and (made is None or there != made.header):
            raise self._environment.withheld(OWN_PROOF)
        prove(request, token)

    def _look_at_redirects(self, response: Any) -> None:
        """Warn, once for each pair of origins, of a redirect that dropped the token."""
        for before, after in itertools.pairwise([answer.request for answer in (*response.history, response)]):
            there = pin_of(after.url)
            if before is after:
                continue  # no redirect: sent once more
            if PROOF in before.headers and before.headers[PROOF] == after.headers.get(PROOF):
                self._environment.warn(
                    f"a redirect led from {spelled(pin_of(before.url))} to {spelled(there)}, and httpx sent the proof (DPoP) of the first"
                    " request there, which no other request may use: call the address that it leads to, or use service_client, whose"
                    " requests get a proof for each hop"
                )
            if "Authorization" not in before.headers or "Authorization" in after.headers:
                continue
            cure = (
                "httpx removes it if a redirect leads to another origin, even one that may get the token: call that address"
                if self._any_origin or there in self._pins
                else "if it is the same service, call that address"
            )
            self._environment.warn(
                f"a redirect led from {spelled(pin_of(before.url))} to {spelled(there)}, and the request was sent there without the token:"
                f" {cure}"
            )

    def _elsewhere(self, pinned: Pin | None, with_user: bool) -> str:
        there = (
            "an address that is neither http nor https, or has no host and port" if pinned is None else spelled(pinned)
        )
        if not self._pins:
            return f"This ServiceTokenAuth has no origin, so its token is sent to no service: write ServiceTokenAuth({there!r}, ...). Nothing was sent."
        if with_user:
            return f"The URL of a request to {there} contains a user name: the token was withheld and nothing was sent. Leave the user name out."
        here = ", ".join(map(spelled, self._pins))
        return f"The token for {here} is not sent to {there}: nothing was sent. {self._elsewhere_cure}"

    def _value(self) -> tuple[object, ...]:
        given = self._environment
        return frozenset(self._pins), self._wanted, given.given, given.dpop, self._any_origin, self._min_validity

    def __eq__(self, other: object) -> bool:
        return self._value() == other._value() if isinstance(other, ServiceTokenAuth) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value())

    def __repr__(self) -> str:
        parts = [repr(spelled(pinned)) for pinned in self._pins]
        for what, names in (("audience", self._wanted.audiences), ("scope", self._wanted.scopes)):
            if names:
                parts.append(f"{what}={sorted(names)!r}")
        if self._any_origin:
            parts.append("insecure_any_origin=True")
        if self._environment.dpop is not None:
            parts.append(f"dpop={self._environment.dpop}")
        if self._min_validity:
            parts.append(f"min_validity={self._min_validity:g}")
        return f"ServiceTokenAuth({', '.join(parts)})"

    def __copy__(self) -> "ServiceTokenAuth":
        return self  # immutable

    def __deepcopy__(self, memo: object) -> "ServiceTokenAuth":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        names = sorted(self._wanted.audiences) or None, sorted(self._wanted.scopes) or None
        flags = self._any_origin, self._min_validity, self._environment.dpop
        return _rebuild, (tuple(map(spelled, self._pins)), *names, self._environment.given, *flags)


class _OnBehalf(ServiceTokenAuth):
    """The auth object of one user's calls: its token is exchanged for the user's. See `ServiceTokenAuth.on_behalf_of`."""

    def __init__(
        self,
        user: ActingUser,
        elsewhere_cure: str,
        pinned: tuple[Pin, ...],
        wanted: Wanted,
        environment: _Environment,
        *,
        any_origin: bool,
        min_validity: float,
    ) -> None:
        self._setup(pinned, wanted, environment, any_origin=any_origin, min_validity=min_validity)
        self._elsewhere_cure = elsewhere_cure
        self._user = user
        # Now, while the request runs: what cannot be exchanged is refused here, and what is remembered is found later.
        self._shared().fresh(min_validity)

    @property
    def downstream(self) -> Downstream:
        return replace(super().downstream, on_behalf=True)

    def _alike(
        self, pinned: tuple[Pin, ...], wanted: Wanted, *, any_origin: bool, min_validity: float
    ) -> ServiceTokenAuth:
        return _OnBehalf(
            self._user,
            self._elsewhere_cure,
            pinned,
            wanted,
            self._environment,
            any_origin=any_origin,
            min_validity=min_validity,
        )

    def _requested(self, source: TokenSource) -> RequestedToken:
        settings = self._environment.settings(source)
        return UsersToken(source.token_for(self._user.subject(), settings, self._wanted), self._user)

    def _foreign_tokens(self) -> tuple[bytes, ...]:
        # In a thread or a worker without the context of the user's request, nobody else knows that the user's token must not be sent on.
        return *super()._foreign_tokens(), self._user.digest

    def _value(self) -> tuple[object, ...]:
        return *super()._value(), self._user.digest

    def __repr__(self) -> str:
        return f"{super().__repr__()}.on_behalf_of(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A user's token is not pickled: it belongs to the request that brought it.")


def _rebuild(  # noqa: PLR0917 - the arguments, for pickle
    origins: tuple[str, ...],
    audience: Names,
    scope: Names,
    settings: "environment.KeycloakSettings | None",
    any_origin: bool,
    min_validity: float,
    dpop: bool | None = None,  # not in a pickle of an earlier version
) -> ServiceTokenAuth:
    auth = ServiceTokenAuth(
        *origins, audience=audience, scope=scope, settings=settings, insecure_any_origin=any_origin, dpop=dpop
    )
    return auth.asking(min_validity=min_validity) if min_validity else auth
