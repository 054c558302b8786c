"""Whatever an app and a server say to each other is said as it is, known to us or not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.middleware.base import BaseHTTPMiddleware

from s2s_fastapi import ServiceAuthMiddleware
from s2s_fastapi.declared.late_routes import WATCH_KEY
from s2s_fastapi.requirement.opened import OPENED_KEY
from s2s_fastapi.requirement.request_state import SCOPE_KEY, VERIFIER_KEY
from tests.kit.receiving import App, Headers, Options
from tests.receiver.surroundings.servers import SERVERS, served


@pytest.fixture(params=SERVERS)
def server(request: Any) -> str:
    return str(request.param)


class TestMessages:
    OUT = (
        {"type": "http.response.debug", "info": {"template": "x"}},
        {"type": "http.response.early_hint", "links": [b"</a>"]},
        {"type": "http.response.push", "path": "/a", "headers": [(b"x", b"1")]},
        {"type": "http.response.start", "status": 206, "headers": [[b"x", b"1"], [b"x", b"2"]], "trailers": True},
        {"type": "http.response.body", "body": b"a", "more_body": True},
        {"type": "http.response.zerocopysend", "file": 7, "more_body": True},
        {"type": "http.response.pathsend", "path": "/srv/a"},
        {"type": "http.response.body"},
        {"type": "http.response.trailers", "headers": [(b"y", b"1")], "more_trailers": False},
        {"type": "http.of.tomorrow", "x": 1},
    )
    IN = (
        {"type": "http.request", "body": b"a", "more_body": True, "of_tomorrow": 1},
        {"type": "http.request"},
        {"type": "http.disconnect"},
    )

    @pytest.mark.anyio
    @pytest.mark.parametrize("path", ["/public", "/closed"])
    async def test_of_http_pass_as_they_are(self, options: Options, service: Headers, path: str) -> None:
        heard, said, scopes = [], [], []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scopes.append(scope)
            heard.extend([await receive() for _ in self.IN])
            for message in self.OUT:
                await send(message)

        scope = self.scope(service, path)
        coming = iter(self.IN)

        async def receive() -> Any:
            return next(coming)

        async def send(message: Any) -> None:
            said.append(message)

        await ServiceAuthMiddleware(app, **options(public_paths=["/public"]))(dict(scope), receive, send)
        assert all(one is other for one, other in zip(heard, self.IN, strict=True))
        assert all(one is other for one, other in zip(said, self.OUT, strict=True))
        added = {"user", "auth", VERIFIER_KEY, WATCH_KEY} | {OPENED_KEY if path == "/public" else SCOPE_KEY}
        assert {name: value for name, value in scopes[0].items() if name not in added} == scope
        assert added <= set(scopes[0])

    @staticmethod
    def scope(service: Headers, path: str) -> dict[str, Any]:
        return {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"a=1",
            "root_path": "",
            "headers": [(b"authorization", service()["Authorization"].encode()), (b"x", b"1"), (b"x", b"2")],
            "client": ("192.0.2.1", 1),
            "state": {"pool": []},
            "extensions": {"http.response.pathsend": {}, "of.tomorrow": {}},
            "of_tomorrow": 1,
        }


class TestWhatTheAppSets:
    def test_the_state_of_the_lifespan_and_of_the_request(self, make_app: App, server: str, service: Headers) -> None:
        @asynccontextmanager
        async def lifespan(app: Any) -> AsyncIterator[dict[str, list[str]]]:
            yield {"pool": ["open"]}

        app = make_app(app=FastAPI(lifespan=lifespan, openapi_url=None))

        async def outer(request: Request, call_next: Any) -> Any:
            request.state.outer = "outer"
            return await call_next(request)

        app.add_middleware(BaseHTTPMiddleware, dispatch=outer)
        app.get("/x")(read_state)
        with served(app, server) as address:
            said = address.say(b"/x", b"Authorization: " + service()["Authorization"].encode())
        assert said.body == b'["open","outer"]'

    @pytest.mark.anyio
    async def test_context_variables_reach_the_route_and_come_back(self, options: Options, service: Headers) -> None:
        seen: list[str] = []

        async def inner(scope: Any, receive: Any, send: Any) -> None:
            seen.append(tenant.get())
            tenant.set("of the app")
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        guarded = ServiceAuthMiddleware(inner, **options())

        async def outer(scope: Any, receive: Any, send: Any) -> None:
            tenant.set("of the outside")
            await guarded(scope, receive, send)
            seen.append(tenant.get())

        tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://x") as there:
            assert (await there.get("/", headers=service())).status_code == 204
        assert seen == ["of the outside", "of the app"]


async def read_state(request: Request) -> list[str]:
    return [request.state.pool[0], request.state.outer]
