"""Extensions of ASGI that only some servers have, over HTTP/2: hints before an answer, pushes, trailers."""

from typing import Any

import pytest

from s2s_fastapi import ServiceAuthMiddleware
from tests.kit.receiving import Headers, Options
from tests.receiver.surroundings.http2 import ask
from tests.receiver.surroundings.servers import HYPERCORN, Address, served


async def live(receive: Any, send: Any) -> None:
    for phase in ("startup", "shutdown"):
        assert await receive() == {"type": f"lifespan.{phase}"}
        await send({"type": f"lifespan.{phase}.complete"})


@pytest.mark.parametrize("server", HYPERCORN)
class TestHttp2:
    @pytest.fixture
    def address(self, options: Options, server: str) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await live(receive, send)
                return
            plain = [(b"content-type", b"text/plain")]
            if scope["path"] == "/hints":
                await send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]})
            if scope["path"] == "/pushes":
                await send({"type": "http.response.push", "path": "/style.css", "headers": []})
            trailers = scope["path"] == "/trailers"
            await send({"type": "http.response.start", "status": 200, "headers": plain, "trailers": trailers})
            await send({"type": "http.response.body", "body": b"in"})
            if trailers:
                await send({"type": "http.response.trailers", "headers": [(b"x-checksum", b"7")]})

        guarded = ServiceAuthMiddleware(app, **options())
        with served(guarded, server) as address:
            yield address

    def test_carries_hints_before_the_answer(self, address: Address, service: Headers) -> None:
        heard = ask(address, "/hints", self.bearer(service))
        assert (heard.status, heard.body, heard.hints) == (200, b"in", [b"</style.css>; rel=preload"])

    def test_carries_trailers_behind_it(self, address: Address, service: Headers) -> None:
        heard = ask(address, "/trailers", [*self.bearer(service), ("te", "trailers")])
        assert (heard.status, heard.body, heard.trailers) == (200, b"in", {b"x-checksum": b"7"})

    def test_pushes_what_needs_no_token_of_its_own(self, address: Address, service: Headers) -> None:
        heard = ask(address, "/pushes", self.bearer(service))
        assert (heard.status, heard.body) == (200, b"in")
        # A pushed resource is a request that the server makes up, without credentials: only public ones can be pushed.
        assert heard.pushed == {b"/style.css": 401}

    def test_is_refused_like_any_other(self, address: Address) -> None:
        for path in ("/hints", "/trailers", "/pushes"):
            heard = ask(address, path, [("te", "trailers")])
            assert (heard.status, heard.hints, heard.pushed, heard.trailers) == (401, [], {}, {})

    def test_with_two_headers_of_credentials_is_a_bad_request(self, address: Address, service: Headers) -> None:
        bearer = self.bearer(service)
        assert ask(address, "/hints", bearer * 2).status == 400
        assert ask(address, "/hints", [*bearer, ("authorization", "Basic dXNlcjpwYXNz")]).status == 400
        assert ask(address, "/hints?access%5Ftoken=x", bearer).status == 400

    @staticmethod
    def bearer(service: Headers) -> list[tuple[str, str]]:
        return [("authorization", service()["Authorization"])]
