"""The session of requests that attaches the token. The checks are below its hooks and redirects, directly above the connection."""

from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from requests import PreparedRequest, RequestException, Response, Session
from requests.adapters import BaseAdapter

from s2s_fastapi.caller.binding import NONCE, Answer
from s2s_fastapi.caller.clients.rules import Attempt, Rules, pin_at
from s2s_fastapi.caller.resend import short
from s2s_fastapi.telemetry.spans import propagated

__all__ = ["ServiceSession"]

_EXACT: Final = {type(None), bytes, str}
"""The bodies that can be sent a second time exactly: text, JSON, forms, and multipart forms, which requests makes into bytes first."""
_NO_COOKIES: Final = DefaultCookiePolicy(allowed_domains=())


class ServiceSession(Session):
    """A ``requests.Session`` whose requests carry the token of one `ServiceTokenAuth`: this service's own, or a user's. Made by `ServiceTokenAuth.for_requests`."""

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self._rules = rules
        self.trust_env = False  # no proxy and no netrc
        self.cookies.set_policy(_NO_COOKIES)  # requests of many users share a session

    def get_adapter(self, url: str) -> BaseAdapter:
        """Return the adapter for `url`, with the rules in front of it: it sends each request, and each hop of a redirect."""
        return _Carrying(super().get_adapter(url), self._rules)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A session of for_requests() is not pickled or copied: pass the ServiceTokenAuth on, and call for_requests() there."
        )


class _Carrying(BaseAdapter):
    def __init__(self, adapter: BaseAdapter, rules: Rules) -> None:
        super().__init__()
        self._adapter = adapter
        self._rules = rules

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        """Send a copy with the token. The request stays without it, so that requests passes no old token on, to nobody."""
        url = urlsplit(str(request.url))  # as requests itself takes it apart
        origin = pin_at(url.scheme, url.hostname, url.port)
        self._rules.check_target(origin, user_name="@" in url.netloc)
        self._rules.check_content(iter(request.headers.items()), request.path_url)
        carrying: Any = request.copy()
        # Its headers are in no local of this frame: error trackers record those, and they show the token.
        attempt = Attempt(
            self._rules, carrying.headers, method=str(request.method), url=str(request.url), origin=origin
        )
        attempt.attach()
        propagated(carrying.headers)
        try:
            response = self._adapter.send(carrying, *args, **options)
            while attempt.again(_answer(response), resend=type(request.body) in _EXACT):
                if short(response.headers):
                    response.content  # noqa: B018 - it is read, and the connection is kept
                response.close()
                response = self._adapter.send(carrying, *args, **options)
        except RequestException as error:
            error.request = request  # as of an answer: without the token
            raise
        response.request = request
        return response

    def close(self) -> None:
        """Leave the adapter open: the session closes it."""


def _answer(response: Response) -> Answer:
    headers = response.headers
    return Answer(response.status_code, [headers.get("WWW-Authenticate", "")], headers.get(NONCE), headers.get("Date"))
