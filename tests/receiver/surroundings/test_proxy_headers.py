"""The certificate header behind real uvicorn, which believes X-Forwarded-For unless it is told not to: an address alone proves nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request

from s2s_fastapi import CertificateHeader, CurrentPrincipal
from tests.kit.certificates import Authority
from tests.kit.realm import Realm
from tests.kit.receiving import App, Observed
from tests.receiver.surroundings.servers import UVICORN, Address, served

CA = Authority()
GOOD, OTHER = CA.client("chat-app-service"), CA.client("billing")
SECRET = b"the-secret-of-the-proxy-of-crm-1"
SENT = b"X-Proxy-Secret: " + SECRET
CERTIFICATE = f"Client-Cert: {GOOD.rfc9440}".encode()
BELIEVES: dict[str, Any] = {"proxy_headers": True, "forwarded_allow_ips": "*"}
HONEST: dict[str, Any] = {"proxy_headers": False}


@pytest.fixture
def app(make_app: App, tmp_path: Path) -> FastAPI:
    file = tmp_path / "secret"
    file.write_bytes(SECRET)
    source = CertificateHeader("Client-Cert", "rfc9440", secret_header="X-Proxy-Secret", secret_file=file)
    app = make_app(client_certificate=source)

    @app.get("/x")
    def x(request: Request, caller: CurrentPrincipal) -> str:
        return f"{caller.binding} from {request.client.host if request.client else None}"

    return app


@pytest.fixture
def token(realm: Realm) -> bytes:
    return b"Authorization: Bearer " + realm.token(cnf=GOOD.cnf).encode()


@pytest.fixture(params=UVICORN)
def at(request: Any, app: FastAPI) -> Callable[[dict[str, Any]], Any]:
    return lambda options: served(app, request.param, **options)


ANYBODY = b"X-Forwarded-For: 10.0.0.5"
WITH_PORT = b"X-Forwarded-For: 10.0.0.5:44321"
Serving = Callable[[dict[str, Any]], Any]


def refused(at: Address, observed: Observed, *headers: bytes) -> str:
    """Return why a request was refused."""
    assert at.say(b"/x", *headers).status == 401
    return observed.decisions[-1].cure


class TestAServerThatBelievesProxyHeaders:
    def test_shows_any_address_that_the_caller_writes(self, at: Serving, realm: Realm) -> None:
        """This is why an address is no proof: whoever connects is 10.0.0.5 if he says so."""
        bearer = b"Authorization: Bearer " + realm.token().encode()
        with at(BELIEVES) as address:
            assert b"from 10.0.0.5" in address.say(b"/x", bearer, ANYBODY).body
            assert b"from 10.0.0.5" in address.say(b"/x", bearer, WITH_PORT).body

    def test_gives_nobody_a_certificate_without_the_secret(self, at: Serving, token: bytes, observed: Observed) -> None:
        with at(BELIEVES) as address:
            for said in (ANYBODY, WITH_PORT, b"Forwarded: for=10.0.0.5", b"X-Real-IP: 10.0.0.5"):
                cure = refused(address, observed, token, CERTIFICATE, said)
                assert "secret of the proxy" in cure
                cure = refused(address, observed, token, CERTIFICATE, said, b"X-Proxy-Secret: " + b"x" * 32)
                assert "another value" in cure

    def test_is_refused_with_the_secret_too_and_the_log_says_what_to_change(
        self, at: Serving, token: bytes, observed: Observed
    ) -> None:
        with at(BELIEVES) as address:
            for said in (ANYBODY, WITH_PORT, b"X-Forwarded-For: 203.0.113.9, 10.0.0.5"):
                assert "--no-proxy-headers" in refused(address, observed, token, CERTIFICATE, SENT, said)

    def test_does_no_harm_if_the_proxy_sends_no_such_header(self, at: Serving, token: bytes) -> None:
        with at(BELIEVES) as address:
            assert address.say(b"/x", token, CERTIFICATE, SENT).status == 200


class TestAServerThatBelievesNone:
    def test_accepts_the_certificate_whatever_the_proxy_says_of_the_caller(self, at: Serving, token: bytes) -> None:
        with at(HONEST) as address:
            for said in (ANYBODY, WITH_PORT, b"Forwarded: for=203.0.113.9;by=127.0.0.1", b"X-A: b"):
                answer = address.say(b"/x", token, CERTIFICATE, SENT, said)
                assert (answer.status, answer.body) == (200, b'"certificate from 127.0.0.1"')

    def test_needs_the_secret_all_the_same(self, at: Serving, token: bytes, observed: Observed) -> None:
        with at(HONEST) as address:
            for more in ((), (ANYBODY,), (b"X-Proxy-Secret: ",), (b"X-Proxy-Secret: " + SECRET[:-1],), (SENT, SENT)):
                assert "secret of the proxy" in refused(address, observed, token, CERTIFICATE, *more)

    def test_needs_one_header_with_one_certificate(self, at: Serving, token: bytes, observed: Observed) -> None:
        other = f"Client-Cert: {OTHER.rfc9440}".encode()
        with at(HONEST) as address:
            for given in (
                (CERTIFICATE, CERTIFICATE),
                (CERTIFICATE, other),
                (other, CERTIFICATE.replace(b"Client-Cert", b"client-cert")),
                (f"Client-Cert: {GOOD.rfc9440}, {OTHER.rfc9440}".encode(),),
                (b"Client-Cert: " + GOOD.envoy.encode(),),
            ):
                assert "not exactly one certificate" in refused(address, observed, token, SENT, *given)
            refused(address, observed, token, SENT, other)
            assert observed.reasons[-1] == "wrong_certificate"

    def test_takes_a_caller_on_the_host_of_the_proxy_for_a_rewritten_address(
        self, at: Serving, token: bytes, observed: Observed
    ) -> None:
        """The one false alarm: caller and proxy have one address. The sentence says to let the proxy send neither header."""
        with at(HONEST) as address:
            cure = refused(address, observed, token, CERTIFICATE, SENT, b"X-Forwarded-For: 127.0.0.1")
            assert "let the proxy send neither header" in cure


def test_envoy_s_first_element_is_never_taken(make_app: App, tmp_path: Path, realm: Realm, observed: Observed) -> None:
    """Envoy that appends keeps what the caller wrote in front."""
    file = tmp_path / "secret"
    file.write_bytes(SECRET)
    source = CertificateHeader("X-Forwarded-Client-Cert", "envoy", secret_header="X-Proxy-Secret", secret_file=file)
    app = make_app(client_certificate=source)
    app.get("/x")(lambda: None)
    token = b"Authorization: Bearer " + realm.token(cnf=GOOD.cnf).encode()
    with served(app, **HONEST) as address:
        for value in (f"{GOOD.envoy},{OTHER.envoy}", f"{OTHER.envoy},{GOOD.envoy}"):
            cure = refused(address, observed, token, SENT, f"X-Forwarded-Client-Cert: {value}".encode())
            assert "exactly one element" in cure
        assert address.say(b"/x", token, SENT, f"X-Forwarded-Client-Cert: {GOOD.envoy}".encode()).status == 200
