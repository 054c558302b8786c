"""Client certificates made by openssl, on real servers: who gets a token, what each refusal says, and renewals under load."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from example_app.realm import Realm, claims_of
from s2s_fastapi import KeycloakSettings, ServiceTokenAuth, TokenRequestError, require_caller, service_client
from s2s_fastapi.caller.granted import GrantedToken
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.keycloak.client_authentication import ByCertificate
from s2s_fastapi.operations.admin import AdminApi
from s2s_fastapi.operations.checks.table import examined
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.tokens import requested
from s2s_fastapi.testing import EmbeddedIssuer
from tests.kit.authority import thumbprint
from tests.kit.declaring import caller as caller_app
from tests.kit.declaring import receiver as receiver_app
from tests.kit.mtls import TlsServer, receiver
from tests.real.conftest import Servers
from tests.real.many_realms import with_keys
from tests.real.operating import Secrets, Watched, applied, empty_realm, plan_for
from tests.real.server import NEWEST, VERSIONS, Keycloak
from tests.real.settings import settings_of
from tests.realm.certified import Authority
from tests.realm.secretless import (
    NAME,
    certificate_answers,
    certified,
    document,
    federated_answers,
    providing,
    send_to,
)

CLIENT = "chat-app-service"
DN = "CN=chat-app-service,OU=svc,O=Acme"
CA_DN = "CN=Acme Test CA,O=Acme"
BOUND = {"tls.client.certificate.bound.access.tokens": "true"}


def openssl(*arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Pki:
    """An authority and what it issues, made with openssl as an operator would."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "Pki":
        folder.mkdir(parents=True)
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 2),
            *("-keyout", folder / "ca.key", "-out", folder / "ca.pem", "-subj", "/O=Acme/CN=Acme Test CA"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
        return cls(folder)

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def issue(self, name: str, subject: str = f"/O=Acme/OU=svc/CN={CLIENT}", *, server: bool = False) -> Path:
        """Return the certificate of that name; its key lies beside it."""
        file, key, more = (self.folder / f"{name}.{ending}" for ending in ("pem", "key", "ext"))
        use = "serverAuth\nsubjectAltName=DNS:localhost,IP:127.0.0.1" if server else "clientAuth"
        more.write_text(f"extendedKeyUsage={use}\nauthorityKeyIdentifier=keyid\n")
        request = file.with_suffix(".csr")
        openssl(
            *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", key, "-out", request, "-subj", subject),
        )
        openssl(
            *("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.folder / "ca.key", "-CAcreateserial"),
            *("-days", 1, "-out", file, "-extfile", more),
        )
        return file


@dataclass(frozen=True)
class There:
    """A server that asks for certificates, and one realm of it that a test may change."""

    keycloak: Keycloak
    realm: Realm
    https: str
    pki: Pki

    def client(self, client_id: str = CLIENT, **attributes: str) -> None:
        """Let this client show who it is with the certificate of `DN`."""
        given = {
            "x509.subjectdn": DN,
            "x509.casubjectdn": CA_DN,
            "x509.allow.regex.pattern.comparison": "false",
            **attributes,
        }
        self.keycloak.admin.update_client(
            self.realm.name, client_id, clientAuthenticatorType="client-x509", attributes=given
        )

    def settings(self, file: Path | None, **changes: Any) -> KeycloakSettings:
        shown = {"client_cert_file": file, "client_cert_key_file": file and file.with_suffix(".key")}
        by_certificate = {"client_secret": None, "client_auth": "tls_client_auth"}
        there = {"url": self.https, "public_url": self.realm.public_url, "ca_file": self.pki.ca}
        return settings_of(self.realm, CLIENT, **there | shown | by_certificate | changes)

    def with_secret(self, file: Path | None) -> KeycloakSettings:
        secret = self.realm.secret(CLIENT)
        return self.settings(file, client_auth="client_secret_basic", client_secret=secret)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    made = Pki.make(tmp_path_factory.mktemp("pki") / "acme")
    made.issue("server", "/CN=localhost", server=True)
    made.issue("chat")
    return made


@pytest.fixture(scope="module", params=VERSIONS)
def server(keycloaks: Servers, pki: Pki, request: pytest.FixtureRequest) -> Iterator[tuple[Keycloak, str]]:
    """Give a server with https: the shared ones have none, and `keycloaks` skips the test if none can run here."""
    port = free_port()
    environment = {
        "KC_HTTPS_PORT": str(port),
        "KC_HTTPS_CERTIFICATE_FILE": str(pki.folder / "server.pem"),
        "KC_HTTPS_CERTIFICATE_KEY_FILE": str(pki.folder / "server.key"),
        "KC_HTTPS_CLIENT_AUTH": "request",
        "KC_HTTP_MANAGEMENT_SCHEME": "http",
        "KC_TRUSTSTORE_PATHS": str(pki.ca),
    }
    if request.param.startswith("26.0."):
        del environment["KC_HTTP_MANAGEMENT_SCHEME"]  # unknown there
    else:
        environment["KC_FEATURES"] = "spiffe"  # a preview
    with Keycloak(request.param, environment=environment, imports=False) as keycloak:
        yield keycloak, f"https://127.0.0.1:{port}"


@pytest.fixture
def there(server: tuple[Keycloak, str], pki: Pki) -> Iterator[There]:
    keycloak, https = server
    with keycloak.copy_of("corp") as realm, using(TokenSource()):
        yield There(keycloak, realm, https, pki)


def refused(settings: KeycloakSettings) -> TokenRequestError:
    with pytest.raises(TokenRequestError) as caught:
        ServiceTokenAuth(settings=settings).token()
    return caught.value


def put(new: Path, over: Path) -> None:
    beside = over.with_name(f"{over.name}.new")
    shutil.copy(new, beside)
    beside.replace(over)


def test_a_certificate_gets_the_tokens_of_its_client_and_a_new_one_of_the_same_name_too(there: There) -> None:
    there.client()
    for name in ("chat", "renewed"):
        file = there.pki.issue(name)
        token = ServiceTokenAuth(settings=there.settings(file), audience="crm-api-gateway").token()
        assert claims_of(token)["azp"] == CLIENT
        assert "cnf" not in claims_of(token)


@pytest.mark.parametrize("dn", ["CN=chat-app-service, OU=svc, O=Acme", "cn=chat-app-service,ou=svc,o=Acme"])
def test_spaces_and_case_of_the_keys_in_the_subject_do_not_matter(there: There, dn: str) -> None:
    there.client(**{"x509.subjectdn": dn})
    assert ServiceTokenAuth(settings=there.settings(there.pki.folder / "chat.pem")).token()


def test_another_subject_and_the_order_of_openssl_are_refused_with_what_to_write(there: There) -> None:
    chat = there.pki.folder / "chat.pem"
    there.client(**{"x509.subjectdn": "O=Acme,OU=svc,CN=chat-app-service"})
    in_the_wrong_order = refused(there.settings(chat))
    there.client()
    of_another = refused(there.settings(there.pki.issue("other", "/O=Acme/OU=svc/CN=other-service")))
    there.client(**{"x509.casubjectdn": "CN=Other,O=Acme"})
    of_another_authority = refused(there.settings(chat))

    for error in (in_the_wrong_order, of_another, of_another_authority):
        assert error.http_status == 401
        assert not error.retryable
    assert f"must be exactly `{DN}`" in in_the_wrong_order.cure
    assert "must be exactly `CN=other-service,OU=svc,O=Acme`" in of_another.cure
    assert f"if it is set, `{CA_DN}`" in of_another_authority.cure


def test_a_certificate_of_an_authority_that_keycloak_does_not_trust_is_no_network_fault(
    there: There, tmp_path: Path
) -> None:
    there.client()
    error = refused(there.settings(Pki.make(tmp_path / "foreign").issue("chat")))

    assert (error.http_status, error.retryable) == (0, False)
    assert f"does not accept the client certificate {DN}, issued by {CA_DN}" in str(error)
    assert "--truststore-paths" in error.cure


def test_bound_tokens_are_bound_to_the_certificate_that_was_shown_whatever_proves_the_client(there: There) -> None:
    chat = there.pki.folder / "chat.pem"
    there.keycloak.admin.update_client(there.realm.name, CLIENT, attributes=BOUND)
    with_secret = ServiceTokenAuth(settings=there.with_secret(chat)).token()
    without = refused(there.with_secret(None))
    there.client(**BOUND)
    by_certificate = ServiceTokenAuth(settings=there.settings(chat)).token()

    for token in (with_secret, by_certificate):
        assert claims_of(token)["cnf"] == {"x5t#S256": thumbprint(chat)}
    assert "Set KEYCLOAK_CLIENT_CERT_FILE" in without.cure


@pytest.mark.parametrize("way", ["one file after the other", "a link that is swapped"])
def test_no_call_fails_while_the_certificate_is_renewed_under_load(there: There, tmp_path: Path, way: str) -> None:
    there.client(**BOUND, **{"access.token.lifespan": "3"})
    pairs = [there.pki.issue(f"load-{number}") for number in range(3)]
    for number, pair in enumerate(pairs):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        for ending in (".pem", ".key"):
            shutil.copy(pair.with_suffix(ending), folder / f"tls{ending}")
    (tmp_path / "..data").symlink_to("..0")
    file = (tmp_path / "..data" if way == "a link that is swapped" else tmp_path / "..0") / "tls.pem"

    def renew(number: int) -> None:
        if way == "a link that is swapped":
            (tmp_path / "..tmp").symlink_to(f"..{number}")
            (tmp_path / "..tmp").replace(tmp_path / "..data")
        else:
            put(pairs[number], file)
            time.sleep(0.3)  # as long as a tool may take between its two files
            put(pairs[number].with_suffix(".key"), file.with_suffix(".key"))

    settings, failures, stop, tokens = there.settings(file), list[str](), threading.Event(), list[str]()

    def ask() -> None:
        answer = requested(settings, Wanted.of("crm-api-gateway", None))
        if isinstance(answer, Exception):
            raise answer
        tokens.append(answer.certificate)

    with TlsServer(there.pki.folder / "server.pem", receiver(claims_of), trusted=there.pki.ca) as bob:
        crm = service_client(
            bob.url, audience="crm-api-gateway", settings=settings, timeout=30, verify=str(there.pki.ca)
        )
        with crm as client:

            def call() -> None:
                answer = client.get("/")
                assert answer.status_code == 200, answer.text

            def load(job: Callable[[], None]) -> None:
                while not stop.is_set():
                    try:
                        job()
                    except Exception as error:  # noqa: BLE001 - any is a failed call
                        failures.append(repr(error))
                        stop.set()

            threads = [threading.Thread(target=load, args=(job,)) for job in (ask, call, call)]
            for thread in threads:
                thread.start()
            for number in range(3):
                until = time.monotonic() + 60
                if number:  # before that, both have made calls
                    renew(number)
                expected = thumbprint(pairs[number])
                while not stop.is_set() and time.monotonic() < until:
                    if expected in tokens and any(came.thumbprint == expected for came in bob.came[-50:]):
                        break
                    stop.wait(0.05)
            stop.set()
            for thread in threads:
                thread.join(60)

    assert failures == []
    assert [thumbprint(pair) in tokens for pair in pairs] == [True] * 3
    assert {came.thumbprint for came in bob.came} == {thumbprint(pair) for pair in pairs}
    assert len(bob.came) > len(pairs)


def test_without_a_certificate_everybody_else_still_gets_in(there: There) -> None:
    """The server only asks for certificates: keys are fetched, and secrets are taken, without one."""
    plain = replace(there.realm, url=there.https)
    assert httpx.get(plain.jwks_url, verify=False, trust_env=False).status_code == 200  # noqa: S501 - a public page
    assert ServiceTokenAuth(settings=there.with_secret(None)).token()


def test_the_embedded_issuer_judges_certificates_and_svids_as_keycloak_does(
    server: tuple[Keycloak, str], pki: Pki
) -> None:
    keycloak, https = server
    new = keycloak.version == NEWEST
    acme = Authority.read(pki.ca, pki.folder / "ca.key")
    issued = {name: acme.issue(subject) for name, subject in certified.items()}
    certificates = {name: each.der for name, each in issued.items()}
    with providing() as provider, ExitStack() as stack:
        made = document(provider.url, spiffe=new, kubernetes=new)
        keycloak.admin.create_realm(with_keys(made))
        stack.callback(keycloak.admin.delete_realm, NAME)
        clients = {
            name: stack.enter_context(httpx.Client(verify=each.context(acme), timeout=60, trust_env=False))
            for name, each in issued.items()
        }
        clients[""] = stack.enter_context(httpx.Client(verify=acme.context(), timeout=60, trust_env=False))

        def send(form: str, certificate: str) -> tuple[int, dict[str, Any]]:
            url = f"{https}/realms/{NAME}/protocol/openid-connect/token"
            typed = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = clients[certificate].post(url, content=form, headers=typed)
            return answer.status_code, answer.json()

        issuer = EmbeddedIssuer(made, version=keycloak.version)
        embedded = send_to(issuer, certificates)
        real = certificate_answers(send, certificates)
        assert certificate_answers(embedded, certificates) == real
        assert real["x-bound by renewed"]["claims"]["cnf"] == {"x5t#S256": "renewed"}
        if new:
            svids = federated_answers(send, provider, keycloak.realm(NAME).issuer, spiffe=True)
            assert federated_answers(embedded, provider, issuer.issuer(NAME), spiffe=True) == svids
            assert isinstance(svids["svid: first"], dict)


def test_a_planned_client_gets_its_token_with_its_certificate_and_with_no_other(
    server: tuple[Keycloak, str], pki: Pki, tmp_path: Path
) -> None:
    keycloak, https = server
    how = ByCertificate(subject_dn=DN, issuer_dn=CA_DN)
    apps = (
        receiver_app("crm", require_caller(CLIENT)),
        replace(caller_app(CLIENT, "crm"), client_authentication=how),
    )
    with empty_realm(keycloak) as target:
        secrets = Secrets(tmp_path)
        applied(target, *apps, secrets=secrets)
        assert plan_for(target, *apps, secrets=secrets).steps == ()
        assert secrets.of(CLIENT) == ""
        file = pki.folder / "chat.pem"
        settings = KeycloakSettings(
            url=https,
            public_url=keycloak.public_url,
            realm=target.realm,
            ca_file=pki.ca,
            client_id=CLIENT,
            client_auth="tls_client_auth",
            client_cert_file=file,
            client_cert_key_file=file.with_suffix(".key"),
        )
        granted = requested(settings, Wanted())
        assert isinstance(granted, GrantedToken)
        assert claims_of(granted.value)["azp"] == CLIENT

        # Its dots are no wildcards: the comparison is by name.
        other = pki.issue("other", f"/O=Acme/OU=svc/CN={CLIENT.replace('-', 'x')}")
        shown = {"client_cert_file": other, "client_cert_key_file": other.with_suffix(".key")}
        refused = requested(settings.model_copy(update=shown), Wanted())
        assert isinstance(refused, TokenRequestError)
        assert refused.error == "invalid_client"

        with AdminApi(target, transport=Watched()) as admin:
            report = {each.name: each for each in examined(Facts(admin=admin, settings=settings)).checks}
        # 26.0 does not compare who signed the certificate, and doctor says so.
        said = [] if keycloak.version == NEWEST else ["warning"]
        assert [each.level for each in report["authentication"].findings] == said
        assert report["client"].findings == ()
        with AdminApi(target, transport=Watched()) as admin:
            facts = Facts(admin=admin, settings=settings.model_copy(update=shown))
            found = {each.name: each for each in examined(facts).checks}["authentication"].findings
        assert [each.level for each in found if "and the certificate of this service has" in each.seen] == ["problem"]
        assert len(found) == 1 + len(said)
