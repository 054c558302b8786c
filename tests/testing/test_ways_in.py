"""In process, as ASGI application and on a socket the issuer gives the same answers."""

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import httpx2
import pytest
import trio
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.faults import disconnecting, dripping, slow
from s2s_fastapi.testing.server import LoopbackServer
from tests.testing.asking import CERTS, DISCOVERY, GRANT, REALM, TOKEN, document, kids, part

Runner = Callable[..., object]
runners = pytest.mark.parametrize("run", [asyncio.run, trio.run])


def run_in(run: Runner, main: Callable[[], object]) -> None:
    run(main() if run is asyncio.run else main)


@runners
def test_as_an_asgi_application_under_either_event_loop(own: EmbeddedIssuer, run: Runner) -> None:
    async def main() -> None:
        transport = httpx.ASGITransport(own.app)
        async with httpx.AsyncClient(transport=transport, base_url=own.url) as client:
            granted = await client.post(TOKEN, data=GRANT)
            assert part(granted.json()["access_token"], 1)["azp"] == "caller"
            assert (await client.get(CERTS)).json()["keys"]
            assert (await client.get("/realms//corp")).json()["error"] == "missingNormalization"
            assert (await client.get(f"{REALM}?a=1")).json()["realm"] == "corp"
            own.faults.add("certs", slow(0.01) & dripping(0.000001))
            assert (await client.get(CERTS)).json()["keys"]

    run_in(run, main)


@runners
def test_an_asgi_application_breaks_off_with_an_error(own: EmbeddedIssuer, run: Runner) -> None:
    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(own.app), base_url=own.url) as client:
            for fault in (disconnecting(), disconnecting(within=True)):
                own.faults.add("certs", fault)
                with pytest.raises(ConnectionResetError):
                    await client.get(CERTS)

    run_in(run, main)


def test_as_an_asgi_application_mounted_below_another() -> None:
    issuer = EmbeddedIssuer(document(), url="http://host/keycloak")

    async def main() -> None:
        transport = httpx.ASGITransport(Starlette(routes=[Mount("/keycloak", issuer.app)]))
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
            page = (await client.get(f"/keycloak{DISCOVERY}")).json()
            assert page["issuer"] == "http://host/keycloak/realms/corp"
            assert (await client.post(page["token_endpoint"], data=GRANT)).status_code == 200

    asyncio.run(main())


def test_uvicorn_starts_serves_and_stops_the_application(issuer: EmbeddedIssuer) -> None:
    server = uvicorn.Server(uvicorn.Config(issuer.app, port=0, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    assert httpx.get(f"http://127.0.0.1:{port}{REALM}", trust_env=False).json()["realm"] == "corp"
    assert httpx.get(f"http://127.0.0.1:{port}/realms//corp", trust_env=False).status_code == 400
    server.should_exit = True
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_both_httpx_generations_are_served_on_a_socket(own: EmbeddedIssuer, library: type[httpx]) -> None:  # type: ignore[valid-type]
    with own.serving() as server, library.Client(trust_env=False) as client:  # type: ignore[attr-defined]
        assert own.url == server.url
        granted = client.post(f"{own.url}{TOKEN}", data=GRANT)
        assert granted.headers["Cache-Control"] == "no-store"
        assert part(granted.json()["access_token"], 1)["iss"] == own.issuer("corp")
        assert own.issuer("corp").startswith(f"http://127.0.0.1:{server.port}/")
        assert client.get(f"{own.url}{CERTS}").json()["keys"]
        assert client.head(f"{own.url}{CERTS}").content == b""
        assert client.get(f"{own.url}/realms//corp").status_code == 400
        assert client.request("PATCH", f"{own.url}{TOKEN}").status_code == 405


def test_leading_slashes_arrive_as_they_were_sent(own: EmbeddedIssuer) -> None:
    with own.serving() as server, socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET //realms/corp HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"missingNormalization" in b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_body_may_come_in_chunks(own: EmbeddedIssuer) -> None:
    form = "&".join(f"{name}={value}" for name, value in GRANT.items()).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    with own.serving():
        pieces = iter([form[:10], form[10:]])
        answer = httpx.post(f"{own.url}{TOKEN}", content=pieces, headers=headers, trust_env=False)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 99999999",
        b"Content-Length: -1",
        b"Transfer-Encoding: chunked\r\n\r\nzz",
        b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n",
    ],
)
def test_a_body_without_measure_is_refused_and_the_connection_closed(own: EmbeddedIssuer, head: bytes) -> None:
    with own.serving() as server, socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"POST " + TOKEN.encode() + b" HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert own.requests() == ()


def test_a_hundred_threads_get_their_own_answers_from_one_socket(own: EmbeddedIssuer) -> None:
    """2000 tokens, keys rotated meanwhile: nothing is lost, doubled or given to another."""
    own.signing_kid("corp")
    tls = ssl.create_default_context()  # one for all: it takes longer than twenty tokens

    def ask(number: int) -> list[str]:
        client_id = ("caller", "rfc9068")[number % 2]
        with httpx.Client(trust_env=False, timeout=30, verify=tls) as client:
            answers = [client.post(f"{own.url}{TOKEN}", data=GRANT | {"client_id": client_id}) for _ in range(20)]
        claims = [part(answer.raise_for_status().json()["access_token"], 1) for answer in answers]
        assert {one["azp"] for one in claims} == {client_id}
        return [one["jti"] for one in claims]

    with own.serving(), ThreadPoolExecutor(100) as pool:
        made = [pool.submit(ask, number) for number in range(100)]
        own.rotate_keys("corp")
        ids = {jti for future in made for jti in future.result()}
    assert len(ids) == 2000
    assert len(own.requests()) == 1000


def test_threads_that_ask_in_process_see_one_key(own: EmbeddedIssuer) -> None:
    with ThreadPoolExecutor(16) as pool:
        seen = set(pool.map(lambda _: own.signing_kid("corp"), range(64)))
    assert len(seen) == 1
    assert kids(own) == seen


def test_the_socket_is_bound_to_loopback_and_to_nothing_else(own: EmbeddedIssuer) -> None:
    with own.serving() as server:
        assert server._server.server_address[0] == "127.0.0.1"
        assert server.url == f"http://127.0.0.1:{server.port}"


def test_served_again_on_its_port_it_has_the_same_keys(own: EmbeddedIssuer) -> None:
    with own.serving() as server:
        before = httpx.get(f"{own.url}{CERTS}", trust_env=False).json()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{own.url}{CERTS}", trust_env=False)
    with own.serving(server.port):
        assert httpx.get(f"{own.url}{CERTS}", trust_env=False).json() == before


def test_a_port_that_is_taken_is_an_error(own: EmbeddedIssuer) -> None:
    with own.serving() as server, pytest.raises(OSError, match="in use"):
        LoopbackServer(own.answer, port=server.port)


def test_stopping_ends_connections_that_are_kept_alive(own: EmbeddedIssuer) -> None:
    before = threading.active_count()
    with httpx.Client(trust_env=False) as client:
        with own.serving():
            client.get(f"{own.url}{REALM}")
            began = time.monotonic()
        assert time.monotonic() - began < 2
        with pytest.raises(httpx.TransportError):
            client.get(f"{own.url}{REALM}")
    deadline = time.monotonic() + 5
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_public_address_may_name_the_port(own: EmbeddedIssuer) -> None:
    issuer = EmbeddedIssuer(document(), public_url="http://auth.corp.example:{port}", auth_path="/auth")
    with issuer.serving() as server:
        assert issuer.issuer("corp") == f"http://auth.corp.example:{server.port}/auth/realms/corp"
        page = httpx.get(f"{issuer.url}/auth{DISCOVERY}", trust_env=False).json()
        assert page["issuer"] == issuer.issuer("corp")
        assert page["jwks_uri"] == f"{server.url}/auth{CERTS}"


def test_a_mistake_of_ours_is_a_500_and_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: object) -> object:
        raise LookupError("a mistake of ours")

    with LoopbackServer(broken) as server, caplog.at_level(logging.ERROR):  # type: ignore[arg-type]
        answer = httpx.post(f"{server.url}{TOKEN}", data=GRANT, trust_env=False)
    assert answer.status_code == 500
    assert "a mistake of ours" in caplog.text
    assert GRANT["client_secret"] not in caplog.text
