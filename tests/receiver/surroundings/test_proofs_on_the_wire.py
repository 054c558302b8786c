"""The URL that a proof must name, as real servers pass it on: raw paths, root paths, methods, and two challenges in two header fields."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from s2s_fastapi import CurrentPrincipal
from tests.kit.proving import PUBLIC_URL, Owner
from tests.kit.realm import Realm
from tests.kit.receiving import App
from tests.receiver.surroundings.servers import SERVERS, UVICORN, Address, served


@pytest.fixture
def app(make_app: App) -> FastAPI:
    app = make_app(dpop="accepted", public_url=f"{PUBLIC_URL}/api")

    @app.api_route("/{rest:path}", methods=["GET", "POST", "HEAD"])
    def x(rest: str, caller: CurrentPrincipal) -> str:
        return caller.binding

    return app


@pytest.fixture(params=SERVERS)
def at(request: Any, app: FastAPI) -> Iterator[Address]:
    with served(app, request.param) as address:
        yield address


def sent(owner: Owner, url: str, method: str = "GET") -> list[bytes]:
    token = owner.token()
    return [f"{name}: {value}".encode() for name, value in owner.headers(token, "", method, url)]


def test_each_server_passes_on_what_a_proof_names(at: Address, realm: Realm) -> None:
    owner, base = Owner(realm), f"{PUBLIC_URL}/api"
    for target, url, method in (
        (b"/x", f"{base}/x", "GET"),
        (b"/x", f"{base}/x", "POST"),
        (b"/x", f"{base}/x", "HEAD"),
        (b"/x?a=b", f"{base}/x", "GET"),
        (b"/a%2Fb", f"{base}/a%2Fb", "GET"),
        (b"/%7Eann", f"{base}/~ann", "GET"),
        (b"/%C3%A9%20b", f"{base}/%c3%a9%20b", "GET"),
        (b"/api/x", f"{base}/x", "GET"),
    ):
        assert at.say(target, *sent(owner, url, method), method=method.encode()).status == 200, (target, url)
    for target, url, method in (
        (b"/a%2Fb", f"{base}/a/b", "GET"),
        (b"/a/b", f"{base}/a%2Fb", "GET"),
        (b"/x", f"{base}/y", "GET"),
        (b"/x", f"{base}/x", "POST"),
        (b"/x", "http://service.test/x", "GET"),
        (b"http://service.test/x", f"{base}/y", "GET"),
        (b"http://evil.example/x", "http://evil.example/x", "GET"),
    ):
        assert at.say(target, *sent(owner, url, method)).status in (400, 401, 404), (target, url)


@pytest.mark.parametrize("server", SERVERS)
def test_each_server_s_root_path_is_taken_off(server: str, app: FastAPI, realm: Realm) -> None:
    owner = Owner(realm)
    with served(app, server, root_path="/api") as at:
        assert at.say(b"/x", *sent(owner, f"{PUBLIC_URL}/api/x")).status == 200
        assert at.say(b"/x", *sent(owner, f"{PUBLIC_URL}/x")).status == 401


@pytest.mark.parametrize("server", UVICORN)
def test_each_challenge_has_a_header_field_of_its_own(server: str, app: FastAPI) -> None:
    with served(app, server) as at, at.wire() as wire:
        assert isinstance(wire, socket.socket)
        wire.sendall(b"GET /x HTTP/1.1\r\nHost: service.test\r\nConnection: close\r\n\r\n")
        answer = b""
        while received := wire.recv(65_536):
            answer += received
    fields = [line for line in answer.split(b"\r\n") if line.lower().startswith(b"www-authenticate:")]
    assert [line.split()[1] for line in fields] == [b"Bearer", b"DPoP"]


@pytest.mark.parametrize("server", UVICORN)
def test_a_copied_proof_and_a_second_one_are_refused(server: str, app: FastAPI, realm: Realm) -> None:
    owner = Owner(realm)
    with served(app, server) as at:
        headers = sent(owner, f"{PUBLIC_URL}/api/x")
        assert at.say(b"/x", *headers).status == 200
        assert at.say(b"/x", *headers).status == 401
        again = sent(owner, f"{PUBLIC_URL}/api/x")
        assert at.say(b"/x", *again, again[1]).status == 401
        assert at.say(b"/x", *again, b"dpop: x").status == 401
        assert at.say(b"/x", *again, again[0]).status == 400
        assert at.say(b"/x", *again).status == 200
