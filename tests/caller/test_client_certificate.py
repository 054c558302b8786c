"""Calls with a client certificate: how Keycloak's answer is judged, what goes downstream, and that a renewal costs no call."""

import asyncio
import shutil
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import requests
from requests.adapters import HTTPAdapter

from s2s_fastapi import AudienceNotGranted, ServiceTokenAuth, TokenRequestError, client_tls, service_client
from s2s_fastapi.backchannel.channel import BackChannelError
from s2s_fastapi.backchannel.client_certificate import ClientCertificate
from s2s_fastapi.caller.binding import Binding
from s2s_fastapi.caller.client_tls import with_certificate
from s2s_fastapi.caller.credentials import TlsClientAuth, client_authentication
from s2s_fastapi.caller.granted import claims_of, granted
from s2s_fastapi.caller.origins import pin
from s2s_fastapi.caller.servers import Servers
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.proof.key import ProofKey
from s2s_fastapi.settings import KeycloakSettings
from tests.caller.fakes import Clock, Keycloak, jwt, refusal, settings
from tests.kit.authority import issue, make_authority, thumbprint
from tests.kit.mtls import Answer, Came, TlsServer
from tests.kit.mtls import keycloak as binding_keycloak
from tests.kit.mtls import receiver as binding_receiver

OURS, ANOTHER = "o" * 43, "a" * 43


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def file(authority: Path, tmp_path: Path) -> Path:
    return issue(authority, tmp_path)


def issued(claims: dict[str, Any]) -> str:
    return jwt(iss="https://127.0.0.1/realms/corp", jti="t", typ="Bearer", **claims)


def read(token: str) -> dict[str, Any]:
    return claims_of(token) or {}


def showing(file: Path, **changes: Any) -> KeycloakSettings:
    given = {
        "url": "https://keycloak:8443",
        "client_secret": None,
        "client_auth": "tls_client_auth",
        "client_cert_file": file,
        "client_cert_key_file": file.with_suffix(".key"),
    }
    return settings(**given | changes)


def renew(authority: Path, file: Path, folder: Path) -> str:
    new = issue(authority, folder)
    for source, target in ((new, file), (new.with_suffix(".key"), file.with_suffix(".key"))):
        beside = target.with_name(f"{target.name}.new")
        shutil.copy(source, beside)
        beside.replace(target)
    return thumbprint(new)


def failure(auth: ServiceTokenAuth) -> TokenRequestError:
    with pytest.raises(TokenRequestError) as caught:
        auth.token()
    return caught.value


# What is sent to Keycloak.


def test_a_token_request_with_a_certificate_sends_the_client_id_and_no_secret(
    source: TokenSource, keycloak: Keycloak, file: Path
) -> None:
    keycloak.claims = {"azp": "chat-app-service"}
    ServiceTokenAuth(settings=showing(file)).token()

    (asked,) = keycloak.requests
    assert asked.headers == {}
    assert asked.form == {"grant_type": "client_credentials", "client_id": "chat-app-service"}


def test_equal_files_prove_the_same_client_and_another_certificate_has_tokens_of_its_own(
    source: TokenSource, keycloak: Keycloak, authority: Path, file: Path, tmp_path: Path
) -> None:
    assert client_authentication(showing(file)) == client_authentication(showing(file))
    proof = client_authentication(showing(file))
    assert isinstance(proof, TlsClientAuth)
    assert proof.certificate == ClientCertificate(file, file.with_suffix(".key"))
    other = issue(authority, tmp_path / "other")
    with_secret: dict[str, Any] = {"client_auth": "client_secret_basic", "client_secret": "s"}
    for one in (file, other, file):
        ServiceTokenAuth(settings=showing(one, **with_secret)).token()
    assert len(keycloak.requests) == 2


@pytest.mark.parametrize("claims", [{}, {"azp": "another-service"}])
def test_a_token_that_is_not_this_clients_is_not_used(
    source: TokenSource, keycloak: Keycloak, file: Path, claims: dict[str, Any]
) -> None:
    keycloak.claims = claims
    assert "azp" in str(failure(ServiceTokenAuth(settings=showing(file))))


# Keycloak's answer.


def grant(cnf: Any, shown: str) -> Any:
    claims = {"azp": "me", "aud": "bob", "exp": 400, "iat": 100} | ({} if cnf is None else {"cnf": cnf})
    answer = {"access_token": jwt(**claims), "token_type": "Bearer", "expires_in": 300}
    return granted(answer, Wanted.of("bob", None), client_id="me", certificate=shown)


@pytest.mark.parametrize(
    ("cnf", "shown", "bound_to"),
    [
        ({"x5t#S256": OURS}, OURS, OURS),
        ({"x5t#S256": OURS, "kc-more": "x"}, OURS, OURS),
        (None, OURS, ""),  # the certificate only proves who asks
        (None, "", ""),
        ({"x5t#S256": ANOTHER}, "", ANOTHER),  # a proxy of ours shows its certificate, here and to the receiver
    ],
)
def test_a_token_that_is_bound_to_the_shown_certificate_or_to_none_is_used(cnf: Any, shown: str, bound_to: str) -> None:
    token = grant(cnf, shown)
    assert token.certificate == bound_to
    assert OURS not in repr(token)
    assert ANOTHER not in repr(token)


@pytest.mark.parametrize("thumbprint", [ANOTHER, OURS[:-1], OURS + "=", OURS.upper(), 7, [OURS], None])
def test_a_token_that_is_bound_to_another_certificate_is_not_used(thumbprint: Any) -> None:
    with pytest.raises(TokenRequestError, match="bound to another certificate") as caught:
        grant({"x5t#S256": thumbprint}, OURS)
    assert not isinstance(caught.value, AudienceNotGranted)
    assert not caught.value.retryable


@pytest.mark.parametrize(("shown", "bound_to"), [(OURS, OURS), (ANOTHER, None), ("", None)])
def test_a_token_that_is_bound_to_our_key_as_well_needs_the_certificate_that_we_showed(
    shown: str, bound_to: str | None
) -> None:
    binding = Binding(ProofKey(), Servers())
    cnf = {"jkt": binding.key.thumbprint, "x5t#S256": OURS}
    answer = {"access_token": jwt(azp="me", aud="bob", exp=400, iat=100, cnf=cnf), "token_type": "DPoP"}
    if bound_to is not None:
        assert granted(answer, Wanted(), client_id="me", binding=binding, certificate=shown).certificate == bound_to
        return
    with pytest.raises(TokenRequestError, match="certificate"):
        granted(answer, Wanted(), client_id="me", binding=binding, certificate=shown)


CERTIFICATE = BackChannelError("the server does not accept the client certificate CN=x", certificate=True)


def test_a_certificate_that_is_refused_is_not_tried_again_every_5_s_and_at_once_if_its_file_changes(  # noqa: PLR0917 - fixtures
    source: TokenSource, keycloak: Keycloak, clock: Clock, authority: Path, file: Path, tmp_path: Path
) -> None:
    keycloak.always, keycloak.claims = CERTIFICATE, {"azp": "chat-app-service"}
    auth = ServiceTokenAuth(settings=showing(file))
    error = failure(auth)
    assert not error.retryable
    assert "--truststore-paths" in error.cure
    for _ in range(4):
        clock.now += 6
        failure(auth)
    assert len(keycloak.requests) == 1

    keycloak.always = None
    renew(authority, file, tmp_path / "new")
    assert auth.token()


def test_a_certificate_that_worked_and_is_refused_is_tried_again_soon_once(
    source: TokenSource, keycloak: Keycloak, clock: Clock, file: Path
) -> None:
    keycloak.claims = {"azp": "chat-app-service"}
    auth = ServiceTokenAuth(settings=showing(file))
    auth.token()
    keycloak.always = CERTIFICATE
    clock.now += 400
    assert failure(auth).retryable
    clock.now += 6
    assert not failure(auth).retryable


def test_no_connection_at_all_is_still_a_fault_that_passes(source: TokenSource, keycloak: Keycloak, file: Path) -> None:
    keycloak.always = BackChannelError("cannot connect to https://keycloak:8443: connection refused")
    assert failure(ServiceTokenAuth(settings=showing(file))).retryable


def test_a_refusal_names_the_subject_as_it_must_stand_in_keycloak(
    source: TokenSource, keycloak: Keycloak, file: Path
) -> None:
    keycloak.always = refusal(401, "invalid_client", "Invalid client or Invalid client credentials")
    cure = failure(ServiceTokenAuth(settings=showing(file))).cure
    assert "(x509.subjectdn) must be exactly `CN=chat-app-service,OU=svc,O=Acme`" in cure
    assert "(x509.casubjectdn), if it is set, `CN=a company's own`" in cure
    assert "--https-client-auth=request" in cure


@pytest.mark.parametrize(
    ("changes", "cure"),
    [
        ({"client_cert_file": None, "client_cert_key_file": None}, "Set KEYCLOAK_CLIENT_CERT_FILE"),
        ({"url": "http://keycloak:8080"}, "Write https:// in KEYCLOAK_URL"),
        ({}, "--spi-x509cert-lookup--provider="),
    ],
)
def test_a_client_whose_tokens_are_bound_without_a_certificate_is_told_why(
    source: TokenSource, keycloak: Keycloak, file: Path, changes: dict[str, Any], cure: str
) -> None:
    keycloak.always = refusal(400, "invalid_request", "Client Certification missing for MTLS HoK Token Binding")
    with_secret = {"client_auth": "client_secret_basic", "client_secret": "a-secret-of-the-app"}
    assert cure in failure(ServiceTokenAuth(settings=showing(file, **with_secret | changes))).cure


def test_a_pair_that_does_not_fit_is_said_with_the_prefix_of_its_settings(
    file: Path, authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = issue(authority, tmp_path / "other").with_suffix(".key")
    for name, value in {
        "URL": "https://127.0.0.1:1",
        "REALM": "corp",
        "CLIENT_ID": "me",
        "CLIENT_AUTH": "tls_client_auth",
        "CLIENT_CERT_FILE": str(file),
        "CLIENT_CERT_KEY_FILE": str(other),
    }.items():
        monkeypatch.setenv(f"PARTNERS_{name}", value)
    partners = KeycloakSettings.from_environment(prefix="PARTNERS_")
    with using(TokenSource()), pytest.raises(ConfigurationError) as caught:
        ServiceTokenAuth(settings=partners).token()
    assert str(caught.value).startswith(f"PARTNERS_CLIENT_CERT_KEY_FILE: {other} holds a key that does not belong")
    with pytest.raises(ConfigurationError, match=r"^PARTNERS_CLIENT_CERT_KEY_FILE"):
        client_tls(partners)


# Downstream.


@pytest.fixture
def there(authority: Path) -> Iterator[tuple[TlsServer, TlsServer]]:
    """A Keycloak that binds tokens of 2 s, and a service that accepts each only with its certificate."""
    with (
        TlsServer(authority, binding_keycloak(issued, life=2)) as issuer,
        TlsServer(authority, binding_receiver(read)) as service,
        using(TokenSource()),
    ):
        yield issuer, service


def calling(issuer: TlsServer, authority: Path, file: Path, **changes: Any) -> KeycloakSettings:
    return showing(file, url=issuer.url, ca_file=authority, **changes)


def trusting(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let httpx and httpx2 trust the authority as if it were a public one."""
    for package in (httpx, httpx2):
        monkeypatch.setattr(
            package, "create_ssl_context", lambda **_: ssl.create_default_context(cafile=str(authority)), raising=True
        )


@pytest.fixture(autouse=True)
def _public(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusting(authority, monkeypatch)


def test_a_bound_token_goes_over_a_connection_with_its_certificate(
    there: tuple[TlsServer, TlsServer], authority: Path, file: Path
) -> None:
    issuer, service = there
    given = calling(issuer, authority, file)
    with service_client(service.url, audience="bob", settings=given) as client:
        assert client.get("/").json() == {"thumbprint": thumbprint(file)}
        assert client.get("/").status_code == 200
    assert service.connections == 1  # they are kept as ever


@pytest.mark.anyio
@pytest.mark.parametrize("package", [httpx, httpx2])
async def test_an_async_client_of_either_package_shows_it_too(
    there: tuple[TlsServer, TlsServer], authority: Path, file: Path, package: Any
) -> None:
    issuer, service = there
    crm = service_client(
        service.url, audience="bob", settings=calling(issuer, authority, file), client_class=package.AsyncClient
    )
    async with crm as client:
        assert (await client.post("/", json={})).json() == {"thumbprint": thumbprint(file)}


def test_no_call_fails_while_the_certificate_is_renewed_under_load(
    there: tuple[TlsServer, TlsServer], authority: Path, file: Path, tmp_path: Path
) -> None:
    issuer, service = there
    crm = service_client(service.url, audience="bob", settings=calling(issuer, authority, file), timeout=20)
    failures, stop, new = list[Any](), threading.Event(), list[str]()

    def call() -> None:
        with crm as client:
            while not stop.is_set():
                try:
                    answer = client.get("/")
                except Exception as error:  # noqa: BLE001 - any is a failed call
                    failures.append(repr(error))
                else:
                    if answer.status_code != 200:
                        failures.append(answer.status_code)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(2):
        seen = len(service.came)
        while len(service.came) < seen + 20 and not failures:
            stop.wait(0.005)
        new.append(renew(authority, file, tmp_path / str(number)))
        while not failures and all(came.thumbprint != new[-1] for came in service.came[seen:]):
            stop.wait(0.005)
    stop.set()
    for thread in threads:
        thread.join(30)

    assert failures == []
    assert len({came.thumbprint for came in service.came}) == 3
    assert service.came  # and none was refused and sent again
    assert all(
        read(came.authorization.partition(" ")[2])["cnf"]["x5t#S256"] == came.thumbprint for came in service.came
    )


@pytest.mark.parametrize("options", [{}, {"trust_env": True}, {"mounts": {"http://elsewhere": None}}])
def test_a_redirect_to_another_origin_shows_no_certificate(
    there: tuple[TlsServer, TlsServer], authority: Path, file: Path, options: dict[str, Any]
) -> None:
    issuer, _ = there

    def anybody(came: Came) -> Answer:
        return 200, {}, {"thumbprint": came.thumbprint, "authorization": came.authorization}

    with TlsServer(authority, anybody) as other:

        def to_other(came: Came) -> Answer:
            return 307, {"Location": f"{other.url}/"}, {}

        with TlsServer(authority, to_other) as bob:
            crm = service_client(
                bob.url, audience="bob", settings=calling(issuer, authority, file), follow_redirects=True, **options
            )
            with crm as client:
                assert client.get("/").json() == {"thumbprint": "", "authorization": ""}
        assert bob.came[0].thumbprint == thumbprint(file)


def test_a_client_that_brings_its_own_tls_or_transport_keeps_it(
    there: tuple[TlsServer, TlsServer], authority: Path, file: Path
) -> None:
    issuer, service = there
    own = ssl.create_default_context(cafile=str(authority))
    mocked = httpx.MockTransport(lambda request: httpx.Response(200, json={"thumbprint": "of the transport"}))
    for options, shown in (({"verify": own}, None), ({"transport": mocked}, "of the transport")):
        crm = service_client(service.url, audience="bob", settings=calling(issuer, authority, file), **options)
        with crm as client:
            answer = client.get("/")
        assert answer.json().get("thumbprint") == shown


@pytest.mark.parametrize("way", ["file", "client_tls"])
def test_services_of_an_own_authority_are_trusted_by_a_file_or_a_context(
    authority: Path, file: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.undo()  # nothing trusts the authority by itself
    with (
        TlsServer(authority, binding_keycloak(issued)) as issuer,
        TlsServer(authority, binding_receiver(read)) as service,
        using(TokenSource()),
    ):
        given = calling(issuer, authority, file)
        verify: Any = str(authority) if way == "file" else client_tls(given, ca_file=authority)
        with service_client(service.url, audience="bob", settings=given, verify=verify) as client:
            assert client.get("/").json() == {"thumbprint": thumbprint(file)}
            assert type(client._transport) is not httpx.HTTPTransport
        with service_client(service.url, audience="bob", settings=given) as client, pytest.raises(httpx.ConnectError):
            client.get("/")


@pytest.mark.parametrize("options", [{"mounts": {"http://elsewhere": None}}, {"trust_env": True}])
def test_a_client_with_mounts_or_the_environment_sends_each_token_over_a_connection_with_its_certificate(
    authority: Path, file: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    with (
        TlsServer(authority, binding_keycloak(issued, life=300)) as issuer,
        TlsServer(authority, binding_receiver(read)) as service,
        using(TokenSource()),
    ):
        none_kept = httpx.Limits(max_keepalive_connections=0)
        crm = service_client(
            service.url, audience="bob", settings=calling(issuer, authority, file), limits=none_kept, **options
        )
        old = thumbprint(file)
        with crm as client:
            assert client.get("/").json() == {"thumbprint": old}
            renew(authority, file, tmp_path / "new")
            assert client.post("/", content=iter([b"a"])).json() == {"thumbprint": old}


class Mounted(httpx.MockTransport):
    def __init__(self) -> None:
        super().__init__(lambda request: httpx.Response(200, text="mounted"))


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("package", [httpx, httpx2])
def test_proxies_of_the_environment_and_mounts_stay_where_they_were(
    file: Path, package: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "near.example")
    mocked = Mounted()
    options = {"trust_env": True, "mounts": {"https://mine.example": mocked}}
    client_class = package.AsyncClient if kind == "async" else package.Client
    plain = client_class(**options)
    made = client_class(
        **with_certificate(
            options, client_class, showing(file), (pin("https://far.example"),), asynchronous=kind == "async"
        )
    )

    assert [pattern.pattern for pattern in made._mounts] == [pattern.pattern for pattern in plain._mounts]
    for url in ("https://far.example", "https://near.example", "https://mine.example", "http://far.example"):
        there, here = (client._transport_for_url(package.URL(url)) for client in (plain, made))
        assert (there is plain._transport) == (here is made._transport)
        assert (there is mocked) == (here is mocked)
    only_one = with_certificate(
        {"proxy": "http://proxy.example:1"},
        client_class,
        showing(file),
        (pin("https://far.example"),),
        asynchronous=False,
    )
    assert list(only_one["mounts"]) == ["all://"]


def test_a_client_that_is_opened_after_a_renewal_knows_the_certificate_of_the_token_in_use(
    authority: Path, file: Path, tmp_path: Path
) -> None:
    with (
        TlsServer(authority, binding_keycloak(issued, life=300)) as issuer,
        TlsServer(authority, binding_receiver(read)) as service,
        using(TokenSource()),
    ):
        given, old = calling(issuer, authority, file), thumbprint(file)

        def opened(**options: Any) -> str:
            with service_client(service.url, audience="bob", settings=given, **options) as client:
                return str(client.post("/", content=iter([b"a"])).json().get("thumbprint"))

        def by_context() -> str:
            return opened(verify=client_tls(given, ca_file=authority))

        assert [opened(), by_context()] == [old, old]
        renew(authority, file, tmp_path / "new")
        assert [opened(), by_context()] == [old, old]
    assert len(issuer.came) == 1


def test_a_client_knows_the_certificate_that_there_was_when_it_was_opened(
    authority: Path, file: Path, tmp_path: Path
) -> None:
    with (
        TlsServer(authority, binding_keycloak(issued, life=300)) as issuer,
        TlsServer(authority, binding_receiver(read)) as service,
        using(TokenSource()),
    ):
        crm = service_client(service.url, audience="bob", settings=calling(issuer, authority, file))
        crm.auth.token()
        with crm as client:
            old = thumbprint(file)
            renew(authority, file, tmp_path / "new")
            assert client.post("/", content=iter([b"a"])).json() == {"thumbprint": old}


def test_an_own_authority_is_trusted_for_new_connections_as_its_file_is_now(
    authority: Path, file: Path, tmp_path: Path
) -> None:
    trusted = tmp_path / "trusted.pem"
    with (
        TlsServer(authority, binding_keycloak(issued)) as issuer,
        TlsServer(authority, binding_receiver(read)) as service,
        using(TokenSource()),
    ):
        crm = service_client(
            service.url, audience="bob", settings=calling(issuer, authority, file), verify=str(trusted)
        )
        shutil.copy(make_authority(tmp_path / "foreign"), trusted)
        with crm as client, pytest.raises(httpx.ConnectError):
            client.get("/")
        shutil.copy(authority, trusted)
        with crm as client:
            assert client.get("/").status_code == 200


def test_a_receiver_that_does_not_trust_the_certificate_is_told_from_a_network_fault(
    there: tuple[TlsServer, TlsServer], authority: Path, file: Path, tmp_path: Path
) -> None:
    issuer, _ = there
    foreign = make_authority(tmp_path / "foreign")
    with TlsServer(authority, lambda came: (200, {}, {}), trusted=foreign, mode=ssl.CERT_REQUIRED) as strict:
        strict_crm = service_client(strict.url, audience="bob", settings=calling(issuer, authority, file))
        with strict_crm as client, pytest.raises(httpx.TransportError) as caught:
            client.get("/")
    assert "does not accept" in caught.value.__notes__[0]
    assert "client certificate CN=chat-app-service,OU=svc,O=Acme" in caught.value.__notes__[0]


def test_a_service_without_a_certificate_makes_its_client_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    with service_client("https://bob:1", audience="bob", settings=settings()) as client:
        assert type(client._transport) is httpx.HTTPTransport


# Other clients.


def by_httpx(url: str, context: ssl.SSLContext) -> str:
    return str(httpx.post(url, verify=context, trust_env=False).json()["thumbprint"])


def by_requests(url: str, context: ssl.SSLContext) -> str:
    class WithCertificate(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, **options, ssl_context=context)

    with requests.Session() as session:
        session.mount("https://", WithCertificate())
        return str(session.post(url).json()["thumbprint"])


def by_aiohttp(url: str, context: ssl.SSLContext) -> str:
    async def post() -> str:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
            session.post(url) as answer,
        ):
            return str((await answer.json(content_type=None))["thumbprint"])

    return asyncio.run(post())


@pytest.mark.parametrize("post", [by_httpx, by_requests, by_aiohttp])
def test_client_tls_shows_the_current_certificate_in_other_clients(
    authority: Path, file: Path, tmp_path: Path, post: Callable[[str, ssl.SSLContext], str]
) -> None:
    context = client_tls(showing(file), ca_file=authority)
    with TlsServer(authority, lambda came: (200, {}, {"thumbprint": came.thumbprint})) as service:
        assert post(service.url, context) == thumbprint(file)
        new = renew(authority, file, tmp_path / "new")
        assert post(service.url, context) == new


@pytest.mark.usefixtures("environment")
def test_client_tls_without_a_certificate_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match="Set KEYCLOAK_CLIENT_CERT_FILE"):
        client_tls()


def test_client_tls_does_not_trust_what_is_trusted_for_keycloak(authority: Path, file: Path) -> None:
    context = client_tls(showing(file, ca_file=authority))
    with TlsServer(authority, lambda came: (200, {}, {})) as service, pytest.raises(httpx.ConnectError):
        by_httpx(service.url, context)
    assert service.came == []
    with pytest.raises(ConfigurationError, match=r"^ca_file=: cannot read certificates"):
        client_tls(showing(file), ca_file=file.with_name("nothing.pem"))
