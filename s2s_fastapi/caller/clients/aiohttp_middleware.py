"""The middleware of aiohttp's client that attaches the token. It runs for each hop of a redirect, and for WebSockets."""

from typing import Final

from aiohttp import BytesPayload, ClientHandlerType, ClientRequest, ClientResponse, JsonPayload, StringPayload, hdrs

from s2s_fastapi.caller.binding import NONCE, PROOF, Answer
from s2s_fastapi.caller.clients.rules import AUTHORIZATION, Attempt, Rules, pin_at
from s2s_fastapi.caller.resend import short
from s2s_fastapi.telemetry.spans import propagated

__all__ = ["ServiceMiddleware"]

_EXACT: Final = {type(None), bytes, BytesPayload, StringPayload, JsonPayload}
"""The bodies that can be sent a second time exactly. A generator would be empty the second time, without an error."""


class ServiceMiddleware:
    """A client middleware whose requests carry the token of one `ServiceTokenAuth`: this service's own, or a user's. Made by `ServiceTokenAuth.for_aiohttp`."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send `request` with the token; if it is refused, with another token once."""
        url = request.url
        origin = pin_at(url.scheme, url.raw_host, url.port)
        # aiohttp has already made an Authorization header of a user name in the URL.
        self._rules.check_target(origin)
        self._rules.check_content(iter(request.headers.items()), url.raw_path_qs)
        attempt = Attempt(self._rules, request.headers, method=request.method, url=str(url), origin=origin)
        await attempt.aattach()
        written = AUTHORIZATION, PROOF, *propagated(request.headers)
        try:
            return await self._send(request, handler, attempt)
        finally:  # a middleware around this one may send the same request again
            for name in written:
                request.headers.pop(name, None)

    async def _send(self, request: ClientRequest, handler: ClientHandlerType, attempt: Attempt) -> ClientResponse:
        response = await handler(request)
        while await attempt.aagain(_answer(response), resend=type(request.body) in _EXACT):
            if short(response.headers):
                await response.read()  # the connection is kept
            response.close()
            response = await handler(request)
        return response


def _answer(response: ClientResponse) -> Answer:
    headers = response.headers
    return Answer(
        response.status, headers.getall(hdrs.WWW_AUTHENTICATE, ()), headers.get(NONCE), headers.get(hdrs.DATE)
    )
