"""Clients without a secret at the embedded issuer: tokens of identity providers, client certificates, and tokens that are bound to them.

What is refused, and in which words, is compared with real servers in ``tests/real/test_secretless_parity.py`` and ``tests/real/test_mtls.py``.
"""

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from example_app.realm import claims_of
from s2s_fastapi import (
    ConfigurationError,
    KeycloakSettings,
    Principal,
    ServiceAuthMiddleware,
    ServiceTokenAuth,
    require_service,
)
from s2s_fastapi.testing import EmbeddedIssuer, client_of
from s2s_fastapi.testing.identities import Caller
from s2s_fastapi.testing.wire import Request
from tests.realm.certified import Authority, Issued
from tests.realm.realms import Representation, realm
from tests.realm.secretless import (
    BOUND,
    NAME,
    POD,
    Provider,
    certificate_answers,
    certified,
    document,
    federated_answers,
    form_of,
    providing,
    send_to,
)

_TOKEN = f"/realms/{NAME}/protocol/openid-connect/token"
_REFUSED = (401, {"error": "invalid_client", "error_description": "Invalid client or Invalid client credentials"})


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with providing() as found:
        yield found


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new("CN=Acme Test CA,O=Acme")


@pytest.fixture(scope="module")
def chat(authority: Authority) -> Issued:
    return authority.issue(certified["chat"])


def asking(token: str, client_id: str | None = None, **members: Any) -> str:
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    return form_of(client_id, client_assertion_type=kind, client_assertion=token, **members)


def described(refusal: Any) -> str:
    return str(refusal[1]["error_description"])


# What is granted, and what is refused


def test_each_question_about_an_assertion_has_its_answer(provider: Provider) -> None:
    issuer = EmbeddedIssuer(document(provider.url, spiffe=True))
    answers = federated_answers(send_to(issuer, {}), provider, issuer.issuer(NAME), spiffe=True)
    granted = {what for what, answer in answers.items() if isinstance(answer, dict)}
    assert granted == {
        *("a pod", "the same assertion again", "a pod that says who it is", "a secret beside it"),
        *("a wrong secret beside it", "no kid", "no kid, with the client's id", "by another key"),
        *(
            "by another key, with the client's id",
            "typ at+jwt",
            "typ at+jwt, with the client's id",
            "aud a list of one",
        ),
        *("without iat", "without nbf", "without jti", "without iat and nbf", "one year", "two hours"),
        *("without iat, 59 minutes", "59 minutes old"),
        *("gh: first", "gh: no iat, 4 minutes", "gh: one hour", "gh: 4 minutes old"),
        *("again: first", "again: the same again", "again: no jti", "again: no iat, 4 minutes", "again: one hour"),
        *("again: 4 minutes old", "unsigned: first", "unsigned: no iat, 4 minutes", "unsigned: one hour"),
        *("unsigned: 4 minutes old", "svid: first", "svid: the same again", "svid: with its id", "svid: with iss"),
        *("svid: with the iss of the provider", "svid: no kid", "svid: one hour", "svid: 4 minutes old"),
    }
    assert described(answers["aud a list of two"]) == "Multiple audiences not allowed"
    assert described(answers["aud the API server"]) == "Invalid token audience"
    assert described(answers["61 minutes old"]) == "Token was issued too far in the past to be used now"
    assert described(answers["gh: the same again"]) == "Token reuse detected"
    assert answers["two clients of one subject, the first"] == _REFUSED


def test_a_certificate_proves_the_client_whose_name_it_has(authority: Authority) -> None:
    issuer = EmbeddedIssuer(document("http://127.0.0.1:1"))
    certificates = {name: authority.issue(subject).der for name, subject in certified.items()}
    answers = certificate_answers(send_to(issuer, certificates), certificates)
    granted = {what.partition(" by ")[0] for what, answer in answers.items() if isinstance(answer, dict)}
    assert granted == {
        *("exact", "spaces", "lower", "semicolons", "quoted", "pattern", "pattern-whole", "authority", "x-bound"),
        *("special", "special-quoted", "special-pattern", "spaced-pattern", "a secret beside it"),
        *("an assertion beside it", "bound", "not bound"),
    }
    assert answers["x-bound by renewed"]["claims"]["cnf"] == {"x5t#S256": "renewed"}
    assert answers["x-bound by renewed"]["token_type"] == "Bearer"
    assert answers["exact by other"] == answers["exact by none"] == answers["a secret in its place"] == _REFUSED
    assert described(answers["bound by none"]) == "Client Certification missing for MTLS HoK Token Binding"
    assert "cnf" not in answers["not bound by chat"]["claims"]


# The keys of a provider


def test_an_unknown_key_is_fetched_once_in_ten_seconds(provider: Provider) -> None:
    now = 1_000_000.0
    issuer = EmbeddedIssuer(document(provider.url), clock=lambda: now)
    send = send_to(issuer, {})

    def asked(key: str) -> int:
        token = provider.token(
            aud=issuer.issuer(NAME), key=key, iat=int(now), nbf=int(now), exp=int(now) + 60, life=None
        )
        return send(asking(token), "")[0]

    before = len(provider.asked)
    assert asked("k1") == 200
    assert len(provider.asked) - before == 2  # its metadata and its keys
    provider.keys["k2"] = provider.keys["e1"]
    try:
        now += 9
        assert asked("k2") == 401
        now += 2
        assert asked("k2") == 200
    finally:
        del provider.keys["k2"]


def test_keys_that_were_given_are_used_and_nothing_is_fetched(provider: Provider) -> None:
    issuer = EmbeddedIssuer(document(provider.url))
    send, before = send_to(issuer, {}), len(provider.asked)
    _, key = provider.keys["k1"]
    issuer.set_provider_keys(NAME, "k8s", {"keys": [{**key.as_dict(private=False), "kid": "k1"}]})
    assert send(asking(provider.token(aud=issuer.issuer(NAME))), "")[0] == 200
    issuer.set_provider_keys(NAME, "k8s", {"keys": []})
    assert send(asking(provider.token(aud=issuer.issuer(NAME))), "")[0] == 401
    assert len(provider.asked) == before
    with pytest.raises(ConfigurationError, match="The keys of the identity provider k8s"):
        issuer.set_provider_keys(NAME, "k8s", {"key": 1})


@pytest.mark.parametrize("answer", [b"no JSON", b"[]", b"{}", b'{"keys": 1}', b'{"jwks_uri": 7}'])
def test_a_provider_that_publishes_nonsense_has_no_keys(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    issuer = EmbeddedIssuer(document("http://127.0.0.1:1"))
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=answer))
    real = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **options: real(transport=transport, **options))
    provider = Provider("http://127.0.0.1:1")
    assert send_to(issuer, {})(asking(provider.token(aud=issuer.issuer(NAME))), "") == _REFUSED


def test_a_provider_that_nobody_reaches_has_no_keys() -> None:
    issuer = EmbeddedIssuer(document("http://127.0.0.1:1"))
    provider = Provider("http://127.0.0.1:1")
    assert send_to(issuer, {})(asking(provider.token(aud=issuer.issuer(NAME))), "") == _REFUSED


# What a test needs


def test_the_issuer_makes_the_token_of_a_provider_for_a_test() -> None:
    issuer = EmbeddedIssuer(document("http://127.0.0.1:1"))
    send = send_to(issuer, {})
    token = issuer.assertion("chat")
    assert claims_of(token)["sub"] == POD
    assert send(asking(token), "")[0] == 200
    refusals = [issuer.assertion("chat", expires_in=-5), issuer.assertion("chat", aud="x")]
    assert [described(send(asking(each), "")) for each in refusals] == ["Token is not active", "Invalid token audience"]
    for client_id in ("secret", "nobody"):
        with pytest.raises(ConfigurationError, match=f"no client {client_id} that proves itself by the token"):
            issuer.assertion(client_id)


def test_an_app_gets_its_tokens_by_the_token_in_its_file(tmp_path: Path) -> None:
    issuer = EmbeddedIssuer(document("http://127.0.0.1:1"))
    file = tmp_path / "token"
    settings = KeycloakSettings(
        realm=NAME, url="https://x.example", client_id="chat", client_auth="federated_jwt", client_assertion_file=file
    )
    auth = ServiceTokenAuth(audience="api", settings=settings)
    with issuer.trusted_by(auth):
        file.write_text(issuer.assertion("chat"))
        assert claims_of(auth.token())["azp"] == "chat"


@pytest.mark.parametrize("beside_a_secret", [False, True], ids=["in its place", "beside a secret"])
def test_an_app_gets_bound_tokens_by_the_certificate_in_its_file(
    tmp_path: Path, chat: Issued, *, beside_a_secret: bool
) -> None:
    issuer = EmbeddedIssuer(document("http://127.0.0.1:1"))
    file = tmp_path / "both.pem"
    file.write_bytes(chat.key_pem + chat.pem)
    settings = KeycloakSettings(
        realm=NAME,
        url="https://x.example",
        client_id="bound" if beside_a_secret else "x-bound",
        client_cert_file=file,
        **({"client_secret": "s"} if beside_a_secret else {"client_auth": "tls_client_auth"}),
    )
    auth = ServiceTokenAuth(audience="api", settings=settings)
    with issuer.trusted_by(auth):
        assert list(claims_of(auth.token())["cnf"]) == ["x5t#S256"]


def test_the_environment_of_a_service_without_a_secret_has_none() -> None:
    issuer = EmbeddedIssuer(document("http://127.0.0.1:1"))
    assert issuer.environment(NAME, "chat")["KEYCLOAK_CLIENT_AUTH"] == "federated_jwt"
    assert issuer.environment(NAME, "exact")["KEYCLOAK_CLIENT_AUTH"] == "tls_client_auth"
    assert "KEYCLOAK_CLIENT_SECRET" not in issuer.environment(NAME, "chat") | issuer.environment(NAME, "exact")
    assert not {"chat", "exact"} & issuer.secrets(NAME).keys()


def test_the_transport_takes_one_certificate_only() -> None:
    with pytest.raises(ValueError, match="PEM"):
        EmbeddedIssuer(document("http://127.0.0.1:1")).transport(certificate=b"no certificate")


# Over TLS


def test_over_https_a_certificate_of_the_authority_gets_a_token_and_another_ends_the_handshake(
    tmp_path: Path, authority: Authority, chat: Issued
) -> None:
    issuer = EmbeddedIssuer(document("http://127.0.0.1:1"))
    stranger = Authority.new("CN=Acme Test CA,O=Acme").issue(certified["chat"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load(server, authority.issue("CN=localhost", address="127.0.0.1"), tmp_path)
    server.verify_mode = ssl.CERT_OPTIONAL
    server.load_verify_locations(cadata=authority.issued.pem.decode())

    def asked(held: Issued | None) -> httpx.Response:
        context = authority.context()
        if held is not None:
            load(context, held, tmp_path)
        with httpx.Client(verify=context, trust_env=False) as client:
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            return client.post(issuer.url + _TOKEN, content=form_of("x-bound"), headers=form)

    with issuer.serving(tls=server):
        assert issuer.url.startswith("https://127.0.0.1:")
        assert "x5t#S256" in claims_of(asked(chat).json()["access_token"])["cnf"]
        assert asked(None).status_code == 401
        with pytest.raises(httpx.TransportError):
            asked(stranger)


def load(context: ssl.SSLContext, held: Issued, folder: Path) -> None:
    file = folder / "pair.pem"
    file.write_bytes(held.key_pem + held.pem)
    context.load_cert_chain(file)


@pytest.mark.anyio
async def test_the_asgi_app_believes_the_certificate_that_its_server_has_verified(chat: Issued) -> None:
    issuer = EmbeddedIssuer(document("http://127.0.0.1:1"))

    async def status(tls: dict[str, Any]) -> int:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await issuer.app({**scope, "extensions": {"tls": tls}}, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://issuer") as client:
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            return (await client.post(_TOKEN, content=form_of("exact"), headers=form)).status_code

    assert await status({"client_cert_chain": [chat.pem.decode()]}) == 200
    assert await status({"client_cert_chain": [chat.pem.decode()], "client_cert_error": "expired"}) == 401
    assert await status({"client_cert_chain": []}) == 401


def test_the_request_shows_no_assertion(provider: Provider) -> None:
    token = provider.token()
    form = (("Content-Type", "application/x-www-form-urlencoded"),)
    assert token not in repr(Request("POST", _TOKEN, form, asking(token).encode()))


# What the issuer says of a file


def noticed(version: str = "26.7.3", **members: Any) -> list[str]:
    return [str(notice) for notice in EmbeddedIssuer(realm(**members), version=version).notices]


def federated(client_id: str, sub: str) -> Representation:
    attributes = {"jwt.credential.issuer": "k", "jwt.credential.sub": sub}
    return {"clientId": client_id, "clientAuthenticatorType": "federated-jwt", "attributes": attributes}


def test_two_clients_of_one_subject_are_named() -> None:
    assert noticed(clients=[federated("a", "s"), federated("b", "t")]) == []
    (said,) = noticed(clients=[federated("a", "s"), federated("b", "s")])
    assert "a, b have one subject, s of the identity provider k" in said


def test_clients_that_need_a_certificate_are_named() -> None:
    (said,) = noticed(clients=[{"clientId": "a", "attributes": {BOUND: "true"}}])
    assert "a client certificate from a, and can get one over https only" in said


@pytest.mark.parametrize(
    ("version", "kind", "config", "said"),
    [
        ("26.0.8", "kubernetes", {}, "k has the type kubernetes, which needs Keycloak 26.6"),
        ("26.0.8", "spiffe", {}, "k has the type spiffe, which needs Keycloak 26.6"),
        ("26.7.3", "spiffe", {}, "only with `--features=spiffe`, a preview"),
        (
            "26.7.3",
            "oidc",
            {"supportsClientAssertions": "true"},
            "k takes client assertions, and has no key to verify them",
        ),
    ],
)
def test_a_provider_that_keycloak_does_not_take_is_named(
    version: str, kind: str, config: dict[str, str], said: str
) -> None:
    providers = [{"alias": "k", "providerId": kind, "config": config}]
    assert any(said in notice for notice in noticed(version, identityProviders=providers))


def test_json_of_a_provider_without_an_alias_is_read() -> None:
    assert json.dumps(noticed(identityProviders=[{"providerId": "kubernetes"}])) == "[]"


# Callers with a certificate


def protected(**options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware, audience="crm", **options)

    @app.get("/")
    async def binding(caller: Annotated[Principal, Depends(require_service())]) -> str:
        return caller.binding

    return app


def test_a_caller_with_a_certificate_shows_it_and_another_one_cannot_use_its_token() -> None:
    issuer = EmbeddedIssuer.for_tests()
    chat, thief = issuer.as_service("chat", certificate=True), issuer.as_service("thief", certificate=True)
    with client_of(protected(client_certificate="tls"), issuer=issuer) as client:
        assert client.get("/", auth=chat).json() == "certificate"
        assert client.get("/", auth=issuer.as_service("chat")).json() == ""
        stolen = chat.token
        assert client.get("/", headers={"Authorization": f"Bearer {stolen}"}).status_code == 401
        assert latest_reason(client) == "certificate_missing"
        assert client.get("/", auth=Carrying(thief, stolen)).status_code == 401
        assert latest_reason(client) == "wrong_certificate"
        assert client.get("/", auth=chat).status_code == 200


def test_an_app_that_reads_no_certificates_refuses_the_caller() -> None:
    issuer = EmbeddedIssuer.for_tests()
    with client_of(protected(), issuer=issuer) as client:
        assert client.get("/", auth=issuer.as_service("chat", certificate=True)).status_code == 401
        assert latest_reason(client) == "sender_constrained"


def latest_reason(client: Any) -> str:
    return str(client.trusted.decisions[-1].reason)


class Carrying:
    """Sends somebody else's token over its own connection."""

    def __init__(self, caller: Caller, token: str) -> None:
        self._caller, self._token = caller, token

    def __call__(self, request: Any) -> Any:
        for prepared in self._caller.auth_flow(request):
            prepared.headers["Authorization"] = f"Bearer {self._token}"
            return prepared
        return request
