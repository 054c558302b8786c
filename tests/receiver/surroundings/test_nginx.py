"""A real nginx ends mTLS in front of uvicorn, with the configuration that the documentation shows."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import Depends, FastAPI

from s2s_fastapi import CertificateHeader, CurrentPrincipal, require_bound, require_service
from tests.kit.certificates import Authority, client_context
from tests.kit.nginx import needs_nginx, nginx
from tests.kit.realm import Realm
from tests.kit.receiving import App, Observed
from tests.receiver.surroundings.servers import Address, served

pytestmark = needs_nginx

PAGE = Path(__file__).parents[3] / "docs" / "certificate-bound-tokens.md"
SECRET = "the-secret-of-the-proxy-of-crm-1"
CA, FOREIGN, SERVER = Authority(), Authority(), Authority("the server's CA")
GOOD, OTHER = CA.client("chat-app-service"), CA.client("billing")
STRANGER = FOREIGN.client("chat-app-service")


class Site:
    """A service behind nginx: where both listen, and how to call them."""

    def __init__(self, folder: Path, port: int, behind: Address) -> None:
        self.folder = folder
        self.behind = behind
        self.url = f"https://127.0.0.1:{port}"

    def get(self, path: str, token: str, *headers: tuple[str, str], certificate: str | None = "good") -> httpx.Response:
        files = (
            None if certificate is None else (self.folder / f"{certificate}.pem", self.folder / f"{certificate}.key")
        )
        with httpx.Client(verify=client_context(self.folder / "server-ca.pem", files), trust_env=False) as client:
            return client.get(f"{self.url}{path}", headers=[("Authorization", f"Bearer {token}"), *headers])

    def past_the_proxy(self, token: str, *headers: str) -> int:
        lines = [f"Authorization: Bearer {token}".encode(), *(header.encode() for header in headers)]
        return self.behind.say(b"/x", *lines).status


@pytest.fixture
def app(make_app: App, tmp_path: Path) -> FastAPI:
    (tmp_path / "secret").write_text(SECRET)
    source = CertificateHeader("Client-Cert", "nginx", secret_header="X-Proxy-Secret", secret_file=tmp_path / "secret")
    app = make_app(client_certificate=source)

    @app.get("/x")
    def x(caller: CurrentPrincipal) -> str:
        return caller.binding

    @app.get("/bound", dependencies=[Depends(require_service() & require_bound())])
    def bound() -> None: ...

    return app


@pytest.fixture
def site(app: FastAPI, tmp_path: Path) -> Iterator[Site]:
    for name, certificate in (("good", GOOD), ("other", OTHER), ("foreign", STRANGER), ("ca", CA.own)):
        certificate.files(tmp_path, name)
    SERVER.own.files(tmp_path, "server-ca")
    SERVER.client("127.0.0.1").files(tmp_path, "server")
    (tmp_path / "secret.conf").write_text(f'proxy_set_header X-Proxy-Secret "{SECRET}";\n')
    server = re.search(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert server is not None
    with served(app) as behind:  # uvicorn believes proxy headers from 127.0.0.1, as it does by default
        changes = {
            "/etc/nginx/crm.pem": f"{tmp_path}/server.pem",
            "/etc/nginx/crm.key": f"{tmp_path}/server.key",
            "/etc/nginx/callers-ca.pem": f"{tmp_path}/ca.pem",
            "/etc/nginx/crm-secret.conf": f"{tmp_path}/secret.conf",
            "127.0.0.1:8000": str(behind),
        }
        with nginx(tmp_path / "nginx", server[1], changes) as port:
            yield Site(tmp_path, port, behind)


def test_the_owner_s_certificate_is_accepted_with_the_token(site: Site, realm: Realm) -> None:
    token = realm.token(cnf=GOOD.cnf)
    for path in ("/x", "/bound", "/x"):
        assert site.get(path, token).status_code == 200
    assert site.get("/x", token).json() == "certificate"


def test_a_stolen_token_is_of_no_use_with_another_certificate_or_none(
    site: Site, realm: Realm, observed: Observed
) -> None:
    token = realm.token(cnf=GOOD.cnf)
    for _ in range(2):
        assert site.get("/x", token, certificate="other").status_code == 401
        assert observed.reasons[-1] == "wrong_certificate"
        assert site.get("/x", token, certificate=None).status_code == 401
        assert observed.reasons[-1] == "certificate_missing"
        assert site.get("/x", token).status_code == 200


def test_a_certificate_of_a_foreign_authority_ends_at_nginx(site: Site, realm: Realm, observed: Observed) -> None:
    """Also for the token of that certificate: nginx does not pass on what it did not verify."""
    for cnf in (GOOD.cnf, STRANGER.cnf):
        assert site.get("/x", realm.token(cnf=cnf), certificate="foreign").status_code == 400
    assert observed.decisions == []


def test_headers_that_a_caller_writes_do_not_arrive(site: Site, realm: Realm, observed: Observed) -> None:
    token = realm.token(cnf=GOOD.cnf)
    forged = ("Client-Cert", GOOD.nginx)
    for certificate, reason in ((None, "certificate_missing"), ("other", "wrong_certificate")):
        for headers in (
            [forged],
            [("client-cert", GOOD.nginx), forged],
            [("Client_Cert", GOOD.nginx)],
            [forged, ("X-Proxy-Secret", SECRET)],
            [forged, ("X-Forwarded-For", "10.0.0.5")],
        ):
            assert site.get("/x", token, *headers, certificate=certificate).status_code == 401
            assert observed.reasons[-1] == reason


def test_what_the_owner_writes_beside_does_no_harm(site: Site, realm: Realm) -> None:
    token = realm.token(cnf=GOOD.cnf)
    for header in (
        ("Client-Cert", OTHER.nginx),
        ("X-Proxy-Secret", "x"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1"),
    ):
        assert site.get("/x", token, header).status_code == 200


def test_past_the_proxy_the_header_counts_only_with_the_secret(site: Site, realm: Realm, observed: Observed) -> None:
    token, certificate = realm.token(cnf=GOOD.cnf), f"Client-Cert: {GOOD.nginx}"
    for headers in ([], ["X-Proxy-Secret: " + "x" * 32], ["X-Forwarded-For: 10.0.0.5"], ["X-Real-IP: 127.0.0.1"]):
        assert site.past_the_proxy(token, certificate, *headers) == 401
        assert observed.reasons[-1] == "certificate_missing"
        assert "past the proxy" in observed.decisions[-1].cure
    # The right application beside them: it is the secret that makes the difference.
    assert site.past_the_proxy(token, certificate, f"X-Proxy-Secret: {SECRET}") == 200


def test_a_bearer_token_passes_without_a_certificate(site: Site, realm: Realm) -> None:
    for certificate in (None, "good"):
        assert site.get("/x", realm.token(), certificate=certificate).json() == ""
        assert site.get("/bound", realm.token(), certificate=certificate).status_code == 401
