"""A token that is bound to a certificate is accepted only with the certificate of its own request, on a cold and on a warm cache."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, WebSocket
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient, WebSocketDenialResponse

from s2s_fastapi import (
    AuthenticationError,
    CertificateHeader,
    ConfigurationError,
    CurrentPrincipal,
    Reason,
    TokenVerifier,
    require_bound,
    require_service,
)
from s2s_fastapi.operations.relations import binding_problem
from s2s_fastapi.proof.checked import Proof
from s2s_fastapi.verifier.client_certificate import MatchedCertificate
from s2s_fastapi.verifier.verdict import BoundVerdict
from tests.kit.certificates import Authority
from tests.kit.declaring import receiver
from tests.kit.proving import PUBLIC_URL, Owner
from tests.kit.realm import Realm, settings
from tests.kit.receiving import App, Observed

CA = Authority()
GOOD, OTHER = CA.client("chat-app-service"), CA.client("billing")
SECRET = "the secret of the proxy, quite long".replace(" ", "-")
Headers = list[tuple[str, str]]
Serve = Callable[..., TestClient]

PROXY: Headers = [("X-Proxy-Secret", SECRET)]
WITH: Headers = [*PROXY, ("Client-Cert", GOOD.rfc9440)]
WITH_OTHER: Headers = [*PROXY, ("Client-Cert", OTHER.rfc9440)]
INVALID = 'Bearer realm="crm-api-gateway", error="invalid_token"'


@pytest.fixture
def source(tmp_path: Path) -> CertificateHeader:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    return CertificateHeader("Client-Cert", "rfc9440", secret_header="X-Proxy-Secret", secret_file=file)


@pytest.fixture
def serve(make_app: App, source: CertificateHeader) -> Iterator[Serve]:
    running: list[TestClient] = []

    def start(**changes: Any) -> TestClient:
        app = make_app(**{"client_certificate": source, **changes})

        @app.get("/x")
        def x(caller: CurrentPrincipal) -> dict[str, str]:
            return {"client": caller.client_id, "binding": caller.binding}

        if changes.get("client_certificate", source) or changes.get("dpop"):

            @app.get("/bound", dependencies=[Depends(require_service() & require_bound())])
            def bound() -> None: ...

        @app.websocket("/ws")
        async def ws(socket: WebSocket, caller: CurrentPrincipal) -> None:
            await socket.accept()
            await socket.send_text(caller.binding)
            await socket.close()

        client = TestClient(app, raise_server_exceptions=False)
        client.__enter__()
        running.append(client)
        return client

    yield start
    for client in running:
        client.__exit__()


def bearer(token: str, *more: tuple[str, str]) -> Headers:
    return [("Authorization", f"Bearer {token}"), *more]


def test_the_certificate_of_the_token_is_accepted_and_nothing_else_is(
    serve: Serve, realm: Realm, observed: Observed
) -> None:
    client, token = serve(), realm.token(cnf=GOOD.cnf)
    for _ in range(2):  # the second time the token is remembered
        for headers, reason in (
            ([], "certificate_missing"),
            (PROXY, "certificate_missing"),
            (WITH[1:], "certificate_missing"),
            ([("X-Proxy-Secret", "x" * 35), WITH[1]], "certificate_missing"),
            ([*WITH, WITH[1]], "certificate_missing"),
            (WITH_OTHER, "wrong_certificate"),
        ):
            response = client.get("/x", headers=bearer(token, *headers))
            assert (response.status_code, observed.reasons[-1]) == (401, reason)
            assert response.headers["www-authenticate"] == INVALID
            assert (observed.decisions[-1].client_id, observed.decisions[-1].binding) == (
                "chat-app-service",
                "certificate",
            )
        response = client.get("/x", headers=bearer(token, *WITH))
        assert response.json() == {"client": "chat-app-service", "binding": "certificate"}
        assert observed.decisions[-1].binding == "certificate"


def test_a_bearer_token_needs_no_certificate_and_gets_nothing_by_one(serve: Serve, realm: Realm) -> None:
    client, token = serve(), realm.token()
    for headers in ([], WITH, WITH[1:], WITH_OTHER, [("Client-Cert", "garbage")]):
        assert client.get("/x", headers=bearer(token, *headers)).json()["binding"] == ""
        assert client.get("/bound", headers=bearer(token, *headers)).status_code == 401


@pytest.mark.parametrize("dpop", [None, "accepted", "required"])
def test_without_the_option_it_is_refused_as_ever(dpop: Any, serve: Serve, realm: Realm, observed: Observed) -> None:
    client = serve(client_certificate=None, dpop=dpop, public_url=PUBLIC_URL)
    for _ in range(2):
        assert client.get("/x", headers=bearer(realm.token(cnf=GOOD.cnf), *WITH)).status_code == 401
        assert observed.reasons[-1] == "sender_constrained"
    assert "client_certificate=" in observed.decisions[-1].cure


@pytest.mark.parametrize("mode", [None, "accepted", "required"])
@pytest.mark.parametrize("takes", [True, False])
@pytest.mark.parametrize("binding", ["certificate", ""])
def test_the_commands_predict_the_reason_of_a_real_request(  # noqa: PLR0917 - fixtures
    mode: Any, takes: bool, binding: Any, serve: Serve, realm: Realm, observed: Observed
) -> None:
    client = serve(**({} if takes else {"client_certificate": None}), dpop=mode, public_url=PUBLIC_URL)
    token = realm.token(cnf=GOOD.cnf) if binding else realm.token()
    client.get("/x", headers=bearer(token, *WITH))

    app = replace(receiver("crm-api-gateway"), dpop=mode or "", client_certificate=takes)
    predicted = binding_problem("chat-app-service", app, binding=binding)
    assert observed.reasons[-1] == ("allowed" if predicted is None else str(predicted.reason))


def test_keycloak_s_type_of_a_token_with_a_proof_does_not_matter(serve: Serve, realm: Realm) -> None:
    """For a client with both bindings Keycloak 26.7.3 writes the type DPoP, and only the certificate into cnf: cnf decides."""
    client = serve(dpop="accepted", public_url=PUBLIC_URL)
    for typ in ("Bearer", "DPoP"):
        token = realm.token(cnf=GOOD.cnf, typ=typ)
        assert client.get("/x", headers=bearer(token, *WITH)).json()["binding"] == "certificate"
        assert client.get("/x", headers=bearer(token)).status_code == 401
    assert client.get("/x", headers=bearer(realm.token(cnf=GOOD.cnf, typ="ID"), *WITH)).status_code == 401
    assert client.get("/x", headers=bearer(realm.token(typ="DPoP"), *WITH)).status_code == 401


@pytest.mark.parametrize(
    "cnf",
    [
        "text",
        [],
        {},
        GOOD.thumbprint,
        {"x5t#S256": ""},
        {"x5t#S256": None},
        {"x5t#S256": [GOOD.thumbprint]},
        {"x5t#S256": f"{GOOD.thumbprint}="},
        {"x5t#S256": GOOD.thumbprint[:-1]},
        {"X5T#S256": GOOD.thumbprint},
        {"x5t": GOOD.thumbprint},
        {**GOOD.cnf, "jwk": {}},
        {**GOOD.cnf, "kid": "a"},
        {**GOOD.cnf, "jkt": None},
        {**GOOD.cnf, "jkt": "a"},
    ],
    ids=range(15),
)
def test_a_cnf_that_is_not_one_certificate_is_refused(cnf: Any, serve: Serve, realm: Realm, observed: Observed) -> None:
    client = serve(dpop="accepted", public_url=PUBLIC_URL)
    assert client.get("/x", headers=bearer(realm.token(cnf=cnf), *WITH)).status_code == 401
    assert observed.reasons[-1] == "sender_constrained"


def test_members_of_cnf_that_nobody_knows_do_not_matter(serve: Serve, realm: Realm) -> None:
    token = realm.token(cnf={**GOOD.cnf, "kc-x": "y"})
    assert serve().get("/x", headers=bearer(token, *WITH)).status_code == 200


class TestBothBindings:
    """A token that is bound to a key and to a certificate needs both."""

    @pytest.fixture
    def owner(self, realm: Realm) -> Owner:
        return Owner(realm)

    @pytest.fixture
    def token(self, owner: Owner) -> str:
        return owner.token(cnf={"jkt": owner.key.thumbprint, **GOOD.cnf})

    def test_are_both_needed(self, serve: Serve, owner: Owner, token: str, observed: Observed) -> None:
        client = serve(dpop="accepted", public_url=PUBLIC_URL)
        for _ in range(2):
            proof = owner.headers(token, "/x")
            for headers, reason in (
                (proof, "certificate_missing"),
                ([*proof, *WITH_OTHER], "wrong_certificate"),
                ([*proof[:1], *WITH], "proof_missing"),
                ([*proof[:1], *Owner(owner.realm).headers(token, "/x")[1:], *WITH], "invalid_proof"),
                (bearer(token, *WITH), "sender_constrained"),
                (bearer(token, *proof[1:], *WITH), "sender_constrained"),
            ):
                assert client.get("/x", headers=headers).status_code == 401
                assert observed.reasons[-1] == reason
            # The proof was not used up by the refusals for the certificate.
            assert client.get("/x", headers=[*proof, *WITH]).json()["binding"] == "dpop"
            assert client.get("/x", headers=[*proof, *WITH]).status_code == 401
            assert observed.reasons[-1] == "proof_replayed"

    def test_are_refused_if_one_of_them_is_not_checked(
        self, serve: Serve, owner: Owner, token: str, observed: Observed
    ) -> None:
        without = serve(client_certificate=None, dpop="accepted", public_url=PUBLIC_URL)
        assert without.get("/x", headers=[*owner.headers(token, "/x"), *WITH]).status_code == 401
        assert observed.reasons[-1] == "sender_constrained"
        assert serve().get("/x", headers=bearer(token, *WITH)).status_code == 401
        assert observed.reasons[-1] == "sender_constrained"

    def test_a_proof_does_not_take_the_place_of_the_certificate(
        self, serve: Serve, owner: Owner, realm: Realm, observed: Observed
    ) -> None:
        client, token = serve(dpop="accepted", public_url=PUBLIC_URL), realm.token(cnf=GOOD.cnf, typ="DPoP")
        assert client.get("/x", headers=[*owner.headers(token, "/x"), *WITH]).status_code == 401
        assert observed.reasons[-1] == "sender_constrained"
        assert "Bearer" in observed.decisions[-1].cure

    def test_a_certificate_is_not_enough_where_dpop_is_required(
        self, serve: Serve, realm: Realm, observed: Observed
    ) -> None:
        client = serve(dpop="required", public_url=PUBLIC_URL)
        assert client.get("/x", headers=bearer(realm.token(cnf=GOOD.cnf), *WITH)).status_code == 401
        assert observed.reasons[-1] == "bearer_not_accepted"


class TestRequireBound:
    def test_is_met_by_either_binding(self, serve: Serve, realm: Realm, observed: Observed) -> None:
        client, owner = serve(dpop="accepted", public_url=PUBLIC_URL), Owner(realm)
        assert client.get("/bound", headers=bearer(realm.token(cnf=GOOD.cnf), *WITH)).status_code == 200
        assert client.get("/bound", headers=owner.headers(owner.token(), "/bound")).status_code == 200
        assert client.get("/bound", headers=bearer(realm.token(), *WITH)).status_code == 401
        assert observed.reasons[-1] == "not_bound"

    def test_starts_with_certificates_alone(self, serve: Serve, realm: Realm) -> None:
        assert serve().get("/bound", headers=bearer(realm.token(cnf=GOOD.cnf), *WITH)).status_code == 200

    def test_stops_the_start_where_nothing_is_bound(self, make_app: App) -> None:
        app = make_app()
        app.get("/bound", dependencies=[Depends(require_service() & require_bound())])(lambda: None)
        with pytest.raises(ConfigurationError, match="client_certificate="), TestClient(app):
            pass


def test_observe_mode_lets_no_certificate_pass(serve: Serve, realm: Realm, observed: Observed) -> None:
    client = serve(insecure_observe_until=(datetime.now(UTC) + timedelta(days=30)).date().isoformat())
    token = realm.token(cnf=GOOD.cnf, aud="another")
    for headers, reason in (([], "certificate_missing"), (WITH_OTHER, "wrong_certificate")):
        assert client.get("/x", headers=bearer(token, *headers)).status_code == 401
        assert (observed.reasons[-1], observed.decisions[-1].observed) == (reason, False)
    assert client.get("/x", headers=bearer(token, *WITH)).status_code == 200
    assert not Reason.CERTIFICATE_MISSING.observable
    assert not Reason.WRONG_CERTIFICATE.observable


def test_a_websocket_needs_it_in_its_handshake(serve: Serve, realm: Realm) -> None:
    client, token = serve(), realm.token(cnf=GOOD.cnf)
    for headers in ([], WITH[1:], WITH_OTHER):
        with (
            pytest.raises(WebSocketDenialResponse) as refused,
            client.websocket_connect("/ws", headers=dict(bearer(token, *headers))),
        ):
            pass
        assert refused.value.status_code == 401
    with client.websocket_connect("/ws", headers=dict(bearer(token, *WITH))) as socket:
        assert socket.receive_text() == "certificate"


def test_the_tls_extension_of_the_server(make_app: App, realm: Realm, observed: Observed) -> None:
    app = make_app(client_certificate="tls")
    app.get("/x")(lambda: None)
    chain: list[str] = []

    async def with_tls(scope: Any, receive: Any, send: Any) -> None:
        if chain and scope["type"] == "http":
            scope = {**scope, "extensions": {"tls": {"client_cert_chain": tuple(chain)}}}
        await app(scope, receive, send)

    with TestClient(with_tls) as client:
        token = realm.token(cnf=GOOD.cnf)
        assert client.get("/x", headers=bearer(token, *WITH)).status_code == 401
        assert "uvicorn and hypercorn" in observed.decisions[-1].cure
        chain[:] = [OTHER.pem, GOOD.pem]
        assert client.get("/x", headers=bearer(token)).status_code == 401
        assert observed.reasons[-1] == "wrong_certificate"
        chain[:] = [GOOD.pem, CA.own.pem]
        assert client.get("/x", headers=bearer(token)).status_code == 200


def test_the_start_says_where_certificates_come_from(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "s2s_fastapi"):
        serve()
    assert "certificates are read from the header Client-Cert of the proxy" in caplog.text
    assert SECRET not in caplog.text


def test_a_secret_that_is_missing_stops_the_start(make_app: App, source: CertificateHeader) -> None:
    Path(source.secret_file).unlink()
    app = make_app(client_certificate=source)
    app.get("/x")(lambda: None)
    with pytest.raises(ConfigurationError, match=r"secret_file=.*cannot be read"), TestClient(app):
        pass


class TestAuthenticate:
    @pytest.fixture
    def verifier(self, realm: Realm, source: CertificateHeader) -> TokenVerifier:
        return TokenVerifier(settings(), transport=realm.transport, client_certificate=source)

    def authenticated(self, verifier: TokenVerifier, headers: Headers) -> str:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/x",
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
            "client": ("10.0.0.5", 1),
        }
        return asyncio.run(verifier.authenticate(HTTPConnection(scope))).binding

    def test_judges_the_certificate_of_a_request(self, verifier: TokenVerifier, realm: Realm) -> None:
        token = realm.token(cnf=GOOD.cnf)
        for _ in range(2):
            assert self.authenticated(verifier, bearer(token, *WITH)) == "certificate"
            for headers, code in ((WITH[1:], "certificate_missing"), (WITH_OTHER, "wrong_certificate")):
                with pytest.raises(AuthenticationError) as refused:
                    self.authenticated(verifier, bearer(token, *headers))
                assert refused.value.code == code

    def test_refuses_it_where_there_is_no_request(self, verifier: TokenVerifier, realm: Realm) -> None:
        token = realm.token(cnf=GOOD.cnf)
        asks: tuple[Callable[[], object], ...] = (
            lambda: verifier.verify(token),
            lambda: asyncio.run(verifier.averify(token)),
            lambda: asyncio.run(verifier.authenticate(bearer(token, *WITH))),
        )
        for ask in asks:
            with pytest.raises(AuthenticationError, match="no request was given") as refused:
                ask()
            assert refused.value.code == "certificate_missing"

    def test_refuses_without_the_option_what_is_bound(self, realm: Realm) -> None:
        verifier = TokenVerifier(settings(), transport=realm.transport)
        with pytest.raises(AuthenticationError) as refused:
            self.authenticated(verifier, bearer(realm.token(cnf=GOOD.cnf), *WITH))
        assert refused.value.code == "sender_constrained"


class TestTheVerdict:
    """What is remembered of the token is a refusal by its type: only a certificate that was compared makes an acceptance of it."""

    def verdict(self, realm: Realm, cnf: dict[str, str], scheme: str = "Bearer") -> BoundVerdict:
        made = TokenVerifier(
            settings(), transport=realm.transport, client_certificate="tls", dpop="accepted", public_url=PUBLIC_URL
        ).ready()
        credentials = f"{scheme} {realm.token(cnf=cnf)}".encode()
        first, again = made.decide(credentials), made.known(credentials)
        assert first is again
        assert isinstance(first, BoundVerdict)
        assert credentials not in made.realms[0].tokens
        assert (first.accepted, first.principal) == (False, None)
        return first

    def test_needs_the_certificate_that_it_is_bound_to(self, realm: Realm) -> None:
        verdict = self.verdict(realm, GOOD.cnf)
        assert verdict.proven() is verdict
        assert verdict.proven(certificate=MatchedCertificate(OTHER.thumbprint)) is verdict
        assert verdict.proven(_proof()) is verdict
        assert verdict.proven(certificate=MatchedCertificate(GOOD.thumbprint)).accepted

    def test_needs_both_if_it_is_bound_to_both(self, realm: Realm) -> None:
        verdict = self.verdict(realm, {"jkt": "a" * 43, **GOOD.cnf}, "DPoP")
        certificate = MatchedCertificate(GOOD.thumbprint)
        assert verdict.proven(certificate=certificate) is verdict.proven(_proof()) is verdict
        assert verdict.proven(_proof(), certificate).accepted


def _proof() -> Proof:
    return Proof.__new__(Proof)  # what is in it does not matter here
