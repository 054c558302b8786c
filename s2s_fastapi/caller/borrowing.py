"""HTTP clients for one request each, on the connections of a client that all requests share.

They are copies, so everything that the developer gave to the shared client holds for them, and no request passes through two clients:
event hooks, logs and instrumentations see it once. What can be changed in a client is each copy's own. A new client is as expensive as a
copy (25 microseconds), and would have connections of its own.
"""

import copy
from collections.abc import Mapping
from http.cookiejar import CookieJar
from typing import Any

__all__ = ["Template"]


class Template:
    """What clients are copied from: a client of httpx or httpx2 as it was when it was made. Nobody else gets it, so nobody changes it."""

    def __init__(self, client: Any, cookies: Any) -> None:
        """Take a new client, and the ``cookies`` that it was given."""
        self._cookies = _initial_cookies(cookies)
        self._kept: Any = copy.copy(client)
        self._kept.__class__ = _borrowing(type(client))
        self._dropped: tuple[str, ...] = ()
        self._detach(self._kept, client)
        # Setting headers adds those that httpx sends by default. A derived class may have removed them.
        self._dropped = tuple(name for name in self._kept.headers if name not in client.headers)

    def client(self, auth: Any, lender: Any) -> Any:
        """Return a client for one request: with its ``auth``, on the connections of the open client ``lender``."""
        made = copy.copy(self._kept)
        self._detach(made, self._kept)
        made.auth = auth
        made.lender = lender
        return made

    def _detach(self, made: Any, like: Any) -> None:
        """Give a copy its own of everything that can be changed in place."""
        made.headers = like.headers
        for name in self._dropped:
            del made.headers[name]
        made.event_hooks = like.event_hooks
        made.timeout = like.timeout
        made.cookies = self._cookies


def _initial_cookies(cookies: Any) -> Any:
    """Return the cookies that each copy starts with. A jar is shared with the client that it was given to, so copies do not read it."""
    if cookies is None or isinstance(cookies, CookieJar):
        return None
    return dict(cookies) if isinstance(cookies, Mapping) else list(cookies)


def _borrowing(kind: Any) -> Any:
    """Return a class derived from `kind`, whose clients do not close the connections, because these belong to another client."""

    def is_closed(client: Any) -> bool:
        return bool(client.lender.is_closed)

    def check(client: Any) -> None:
        if client.lender.is_closed:
            raise RuntimeError("Cannot send a request, as the client has been closed.")

    def send(client: Any, request: Any, **options: Any) -> Any:
        check(client)
        return kind.send(client, request, **options)

    async def asend(client: Any, request: Any, **options: Any) -> Any:
        check(client)
        return await kind.send(client, request, **options)

    def return_client(client: Any) -> Any:
        return client

    async def areturn_client(client: Any) -> Any:
        return client

    def keep_open(client: Any, *_: object) -> None:
        pass

    async def akeep_open(client: Any, *_: object) -> None:
        pass

    sync = {"send": send, "close": keep_open, "__enter__": return_client, "__exit__": keep_open}
    asynchronous = {"send": asend, "aclose": akeep_open, "__aenter__": areturn_client, "__aexit__": akeep_open}
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    own = asynchronous if hasattr(kind, "aclose") else sync
    return type(kind.__name__, (kind,), {**names, "is_closed": property(is_closed), **own})
