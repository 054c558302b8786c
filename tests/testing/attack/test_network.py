"""Attacks over a URL: on this machine only, on an app that trusts our issuer only, and with methods that change nothing."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import uvicorn
from fastapi import Depends, FastAPI

from s2s_fastapi import KeycloakSettings, ServiceAuthMiddleware, require_caller
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.attack.asgi import Outgoing
from s2s_fastapi.testing.attack.network import HttpSender, ServedApp, loopback
from s2s_fastapi.testing.attack.own import OwnApp
from s2s_fastapi.testing.attack.realm import attacking_issuer
from s2s_fastapi.testing.attack.runner import run

ran: list[str] = []
CASES = ["no-token", "signature-changed", "foreign-key-under-our-kid", "two-headers", "audience-other"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://127.8.0.1:8000/", "http://[::1]:8000"])
def test_a_loopback_address_is_this_machine(url: str) -> None:
    host, port = loopback(url)
    assert port == 8000
    assert host in url


@pytest.mark.parametrize(
    "url",
    [
        *("http://localhost:8000", "http://10.0.0.5:8000", "http://0.0.0.0:8000", "https://127.0.0.1:8000", "127.0.0.1:8000"),
        *("http://127.0.0.1", "http://127.0.0.1:8000/orders", "http://a@127.0.0.1:8000", "http://127.0.0.1.evil.example:8000"),
        *("http://2130706433:8000", "http://127.1:8000", "http://[::ffff:10.0.0.5]:8000", "http://127.0.0.1:x", ""),
    ],
)  # fmt: skip
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="Only an app on this machine can be attacked"):
        loopback(url)


def app_for(issuer_url: str, *, middleware: Any = ServiceAuthMiddleware, **options: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)
    settings = KeycloakSettings(url=issuer_url, realm="attacked", client_id="orders")
    app.add_middleware(middleware, settings=settings, **options)

    def note(method: str) -> Any:
        def endpoint() -> str:
            ran.append(method)
            return "ok"

        return endpoint

    for method in ("GET", "DELETE"):
        app.add_api_route("/orders", note(method), methods=[method], dependencies=[Depends(require_caller("shop"))])
    return app


@contextmanager
def served(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def issuer() -> Iterator[EmbeddedIssuer]:
    made = attacking_issuer()
    with made.serving():
        yield made


@pytest.mark.parametrize("unsafe", [False, True])
def test_a_served_app_is_attacked_by_get_unless_more_is_asked_for(issuer: EmbeddedIssuer, unsafe: bool) -> None:
    ran.clear()
    with served(app_for(issuer.url)) as url:
        opening = ServedApp(app=OwnApp(app=app_for(issuer.url)), url=url, issuer=issuer, unsafe_methods=unsafe)
        report = run(opening, strict=False, only=CASES)

    routes = {route.route: route for route in report.routes}
    assert {result.outcome for result in routes["GET /orders"].results} == {"held"}
    assert routes["DELETE /orders"].problem == ("" if unsafe else "--unsafe-methods would try it")
    assert ("DELETE" in ran) == unsafe
    assert report.exit_code == 0


@pytest.mark.parametrize("store", ["ours", "forgets"])
def test_an_app_that_accepts_only_bound_tokens_is_attacked_with_proofs_for_its_public_url(
    issuer: EmbeddedIssuer, store: str
) -> None:
    class Forgets:
        async def first_use(self, key: bytes, seconds: float) -> bool:
            return True

    given: dict[str, Any] = {"dpop": "required", "public_url": "https://orders.example.com/api"}
    running = app_for(issuer.url, **given, replay_store=None if store == "ours" else Forgets())
    with served(running) as url:
        opening = ServedApp(app=OwnApp(app=app_for(issuer.url, **given)), url=url, issuer=issuer)
        report = run(opening, strict=False, only=["proof", "audience-other"])

    (route,) = [route for route in report.routes if route.route == "GET /orders"]
    by_outcome = {result.case.id: result.outcome for result in route.results if result.outcome != "held"}
    untried = {"proof-used-before": "not_tried", "proof-expired-meanwhile": "not_tried"}  # nobody can turn its clock
    assert by_outcome == untried | ({} if store == "ours" else {"proof-used": "accepted"})
    assert report.exit_code == (0 if store == "ours" else 1)


class TokenOfTheFirstCaller(ServiceAuthMiddleware):
    """Judges the first token that it saw, and not the one of the request."""

    first = b""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        others = [pair for pair in scope["headers"] if pair[0] != b"authorization"]
        if len(others) < len(scope["headers"]):
            self.first = self.first or dict(scope["headers"])[b"authorization"]
            scope["headers"] = [*others, (b"authorization", self.first)]
        await super().__call__(scope, receive, send)


def test_a_hole_of_a_served_app_is_found(issuer: EmbeddedIssuer) -> None:
    with served(app_for(issuer.url, middleware=TokenOfTheFirstCaller)) as url:
        opening = ServedApp(app=OwnApp(app=app_for(issuer.url)), url=url, issuer=issuer)
        report = run(opening, strict=False, only=CASES)

    found = {result.case.entry for result in report.holes}
    assert found == {"signature-changed", "foreign-key-under-our-kid", "audience-other", "two-headers"}


class Open(ServiceAuthMiddleware):
    """Takes the first of two headers. Who sends two headers has a good token, so only this package promises to refuse them."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and len([name for name, _ in scope["headers"] if name == b"authorization"]) > 1:
            scope["headers"] = [pair for pair in scope["headers"] if b"Bearer" in pair[1]][:1]
        await super().__call__(scope, receive, send)


@pytest.mark.parametrize(("other_guard", "outcome", "code"), [(False, "accepted", 1), (True, "lenient", 0)])
def test_a_served_app_is_held_to_every_case_unless_another_guard_runs_there(
    issuer: EmbeddedIssuer, other_guard: bool, outcome: str, code: int
) -> None:
    with served(app_for(issuer.url, middleware=Open)) as url:
        own = OwnApp(app=app_for(issuer.url))
        report = run(
            ServedApp(app=own, url=url, issuer=issuer, other_guard=other_guard), strict=False, only=["two-headers"]
        )

    assert {result.case.id for result in report.results if result.outcome == outcome} == {
        "two-headers.good-first",
        "two-headers.good-twice",
        "two-headers.basic-first",
    }
    assert report.exit_code == code


def test_an_app_that_does_not_trust_our_issuer_gets_no_attack(issuer: EmbeddedIssuer) -> None:
    ran.clear()
    with served(app_for("http://127.0.0.1:9")) as url:
        opening = ServedApp(app=OwnApp(app=app_for(issuer.url)), url=url, issuer=issuer)
        with pytest.raises(ConfigurationError, match="accepts a good token of the issuer of this suite \\(1 tried\\)"):
            run(opening, strict=False, only=CASES)

    assert ran == []


def test_an_app_that_lets_everybody_in_shows_no_trust_in_our_issuer(issuer: EmbeddedIssuer) -> None:
    open_app = FastAPI(openapi_url=None)
    open_app.add_api_route("/orders", lambda: "ok")
    with served(open_app) as url:
        opening = ServedApp(app=OwnApp(app=app_for(issuer.url)), url=url, issuer=issuer)
        with pytest.raises(ConfigurationError, match="nothing else was sent"):
            run(opening, strict=False, only=CASES)


class StartedFirst(ServiceAuthMiddleware):
    """Has no keys for the first two requests, as an app that started before the issuer."""

    left = 2

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.left -= 1
        if self.left >= 0:
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await super().__call__(scope, receive, send)


def test_an_app_that_started_before_the_issuer_has_time_to_fetch_the_keys(issuer: EmbeddedIssuer) -> None:
    waited: list[float] = []
    with served(app_for(issuer.url, middleware=StartedFirst)) as url:
        own = OwnApp(app=app_for(issuer.url))
        report = run(ServedApp(app=own, url=url, issuer=issuer, wait=waited.append), strict=False, only=["no-token"])

    assert waited == [1.0]
    assert report.exit_code == 0


def test_an_app_that_accepts_any_token_without_our_keys_gets_no_attack(issuer: EmbeddedIssuer) -> None:
    asked: list[str] = []

    async def any_header(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        status = 200 if b"authorization" in dict(scope["headers"]) else 401
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app = app_for(issuer.url)
    for number in range(9):
        app.add_api_route(f"/orders-{number}", lambda: "ok")
    with served(any_header) as url:
        opening = ServedApp(app=OwnApp(app=app), url=url, issuer=issuer)
        with pytest.raises(ConfigurationError, match="never fetched the keys of the issuer of this suite"):
            run(opening, strict=False, only=CASES)

    assert len(set(asked)) == 3


@contextmanager
def dripping(before: bytes) -> Iterator[int]:
    """Serve one connection: what comes before, and then a byte at a time without an end."""
    over = threading.Event()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            connection.sendall(before)
            while not over.wait(0.01):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            over.set()
            thread.join()


def test_an_answer_without_an_end_is_judged_by_its_status() -> None:
    with dripping(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n") as port:
        answer = HttpSender("127.0.0.1", port).send(Outgoing(method="GET", path="/"))

    assert (answer.status, answer.header("content-type")) == (200, "text/event-stream")


def test_headers_without_an_end_are_an_app_that_fails() -> None:
    with dripping(b"HTTP/1.1 200 OK\r\nx: ") as port:
        answer = HttpSender("127.0.0.1", port, patience=0.1).send(Outgoing(method="GET", path="/"))

    assert answer.status == 500
    assert answer.problem
