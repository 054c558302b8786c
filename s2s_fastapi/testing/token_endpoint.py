"""The token endpoint: Keycloak's refusals in its order, from 26.0.8 and 26.7.3 (RFC 6749 sections 4.3, 4.4, 5.2; RFC 7523; RFC 8693)."""

import hmac
from dataclasses import replace
from typing import Final, NamedTuple

from s2s_fastapi.realm.exchange import ACCESS_TOKEN, GRANT_TYPE
from s2s_fastapi.realm.model import Denied, Granted
from s2s_fastapi.testing import log
from s2s_fastapi.testing.answers import FAILED, INVALID_ORIGIN, NO_STORE, TOO_LARGE, json_response, with_origin
from s2s_fastapi.testing.assertions import ASSERTION_TYPE, Assertion, AssertionRules
from s2s_fastapi.testing.client_certificates import ClientCertificate
from s2s_fastapi.testing.federated import SPIFFE_TYPE, FederationRules, federated
from s2s_fastapi.testing.issued import IssuedToken
from s2s_fastapi.testing.minting import Grant, Mint
from s2s_fastapi.testing.proofs import ProofRules, proved
from s2s_fastapi.testing.wire import Credentials, Form, Malformed, Request, Response, basic

__all__ = ["answer_token_request"]

_LONGEST_FIELD: Final = 131_072
_MOST_FIELDS: Final = 1000
_LONGEST_READ: Final = 4000

_NO_GRANT: Final = Denied(status=400, error="invalid_request", description="Missing form parameter: grant_type")
_UNKNOWN_GRANT: Final = Denied(status=400, error="unsupported_grant_type", description="Unsupported grant_type")
_REPEATED: Final = Denied(status=400, error="invalid_request", description="duplicated parameter")
_BROKEN_BASIC: Final = Denied(
    status=400, error="unauthorized_client", description="Unexpected error when authenticating client"
)
_UNKNOWN_CLIENT: Final = Denied(
    status=401, error="invalid_client", description="Invalid client or Invalid client credentials"
)
_NO_CLIENT_ID: Final = "Missing client_id parameter"
_SIGNED: Final = "Client authentication with signed JWT failed: "
_ASSERTION_PATHS: Final = ("token", "token/introspect", "ext/par/request", "ext/ciba/auth")
_NO_USERNAME: Final = Denied(status=401, error="invalid_request", description="Missing parameter: username")
_GRANTS: Final[dict[str, Grant]] = {
    "client_credentials": "client_credentials",
    "password": "password",
    GRANT_TYPE: "token_exchange",
}
_MAY_REPEAT: Final = frozenset({"audience", "resource"})
_NOT_SUPPORTED: Final = ("requested_subject", "requested_issuer", "subject_issuer")
_SUBJECT: Final = ("subject_token", "subject_token_type")


def answer_token_request(request: Request, mint: Mint, url: str) -> Response:
    """Return the answer to a POST: a token, or the refusal that comes first.

    ``url`` is the URL of the request as the server sees it, without its query: DPoP proofs must name it.
    """
    try:
        form = request.form
    except Malformed:
        return FAILED
    if any(len(value) > _LONGEST_FIELD for _, value in form.fields):
        return TOO_LARGE
    if len(form.fields) > _MOST_FIELDS:
        return FAILED
    client_id, grant, outcome, subject = _outcome(form, request, mint, url)
    origin = request.header("origin")
    if isinstance(outcome, Denied):
        log.refused(mint.realm.name, client_id, outcome)
        body = {"error": outcome.error}
        body |= {"error_description": outcome.description} if outcome.description else {}
        return with_origin(json_response(outcome.status, body, NO_STORE), origin, exposed=True)
    if origin and not mint.realm.permits_origin(client_id, origin):
        log.refused_origin(mint.realm.name, client_id, origin)
        if mint.wire.strict:
            return INVALID_ORIGIN
        origin = None
    log.granted(mint.realm.name, client_id, outcome)
    if subject is not None:
        mint = replace(mint, subject=subject, named=subject.named)
    return with_origin(json_response(200, mint.answer(outcome, grant), NO_STORE), origin, exposed=True)


class _Outcome(NamedTuple):
    client_id: str
    grant: Grant
    answer: Granted | Denied
    subject: IssuedToken | None = None
    """The token that is exchanged."""


def _outcome(form: Form, request: Request, mint: Mint, url: str) -> _Outcome:
    read = Form(tuple(pair for pair in form.fields if len(pair[1]) <= _LONGEST_READ)) if mint.wire.strict else form
    named = read.get("grant_type")
    if named is None:
        return _Outcome("", "client_credentials", _NO_GRANT)
    grant = _GRANTS.get(named)
    if grant is None or (grant == "token_exchange" and not mint.wire.exchanges):
        return _Outcome("", "client_credentials", _UNKNOWN_GRANT)
    try:
        client = _credentials(read, request, strict=mint.wire.strict)
    except Malformed:
        return _Outcome("", grant, _BROKEN_BASIC)
    certificate = ClientCertificate(request.certificate)
    client_id, denied = _authenticated(client, read, mint, certificate)
    if denied is None and form.repeated - (_MAY_REPEAT if grant == "token_exchange" else frozenset()):
        denied = _REPEATED
    if denied is not None:
        return _Outcome(client_id, grant, denied)
    jkt = _proved(request, client_id, mint, url)
    if isinstance(jkt, Denied):
        return _Outcome(client_id, grant, jkt)
    if grant == "password":
        return _Outcome(client_id, grant, _of_user(read, client_id, mint, jkt, certificate.thumbprint))
    if grant == "token_exchange":
        return _exchange(read, client_id, mint, jkt)
    x5t = certificate.thumbprint
    token = mint.realm.model.service_token(client_id, scope=read.get("scope"), peer=mint.client, jkt=jkt, x5t=x5t)
    return _Outcome(client_id, grant, token)


def _proved(request: Request, client_id: str, mint: Mint, url: str) -> str | Denied:
    """Return the thumbprint of the key of the request's DPoP proof (RFC 9449 section 5); empty if it has no proof and needs none."""
    headers = request.every_header("dpop") if mint.realm.model.binds else []
    if not headers:
        return mint.realm.model.proof_missing(client_id) or ""
    rules = ProofRules(url=url, method=request.method, now=mint.now, seen=mint.realm.proofs)
    return proved(",".join(headers), rules)


def _authenticated(
    client: Credentials, form: Form, mint: Mint, certificate: ClientCertificate
) -> tuple[str, Denied | None]:
    """Return the client, and why it is not authenticated. It proves itself by what it is set to; without that, by its secret."""
    if (proved := _without_secret(client.client_id, form, mint, certificate)) is not None:
        return proved
    named, text = form.get("client_id"), form.get("client_assertion") or ""
    signed = Assertion.read(text) if form.get("client_assertion_type") == ASSERTION_TYPE else None
    refused = mint.realm.model.authenticate(client.client_id, client.secret)
    if named is None and signed is not None and refused is not None:
        if not _consistent(signed, mint):
            return signed.client_id, _UNKNOWN_CLIENT
        if mint.realm.signing(signed.client_id) is None:
            known = mint.realm.model.client(signed.client_id)
            other = mint.wire.strict or known is None or known.authenticator == "federated-jwt"
            return signed.client_id, _UNKNOWN_CLIENT if other else _of_assertion(_NO_CLIENT_ID)
        return signed.client_id, _by_assertion(signed, signed.client_id, mint)
    if mint.realm.signing(client.client_id) is None:
        return client.client_id, refused
    kind = form.get("client_assertion_type")
    if kind is None:
        return client.client_id, refused
    if kind != ASSERTION_TYPE:
        wrong = f"Parameter client_assertion_type has value '{kind}' but expected is '{ASSERTION_TYPE}'"
        return client.client_id, _of_assertion(wrong)
    if not text:
        return client.client_id, _of_assertion("client_assertion parameter missing")
    if signed is None:
        return client.client_id, _of_assertion(f"{_SIGNED}java.lang.IllegalArgumentException: Parsing error")
    return client.client_id, _by_assertion(signed, client.client_id, mint)


def _without_secret(
    client_id: str, form: Form, mint: Mint, certificate: ClientCertificate
) -> tuple[str, Denied | None] | None:
    """Return the client that proves itself by a certificate or by the token of an identity provider, or None if it uses neither."""
    found = mint.realm.model.client(client_id)
    by = found.authenticator if found is not None and found.enabled and not found.public else ""
    if by == "client-x509" and found is not None:
        refused = certificate.refusal(found.attributes, authorities=mint.wire.strict)
        return client_id, refused or mint.realm.model.unusable(client_id)
    kind, text = form.get("client_assertion_type") or "", form.get("client_assertion") or ""
    if not mint.realm.model.federates or (by != "federated-jwt" and (client_id or not _of_provider(kind, text))):
        return None
    rules = FederationRules(
        kind=kind,
        client_id=client_id,
        issuer=mint.issuer,
        now=mint.now,
        seen=mint.realm.assertions,
        keys=mint.realm.provider_keys,
    )
    client_id, refused = federated(text, mint.realm.model, rules)
    return client_id, refused or mint.realm.model.unusable(client_id)


def _of_provider(kind: str, text: str) -> bool:
    """Return whether an assertion may be the token of an identity provider, and is not the client's own."""
    assertion = Assertion.read(text) if kind in {ASSERTION_TYPE, SPIFFE_TYPE} else None
    return assertion is not None and assertion.claims.get("iss") != assertion.client_id


def _by_assertion(signed: Assertion, client_id: str, mint: Mint) -> Denied | None:
    if mint.wire.strict:
        if not _consistent(signed, mint):
            return _UNKNOWN_CLIENT
        if signed.client_id != client_id:
            return _of_assertion("client_id parameter does not match authenticated client")
    elif signed.claims.get("iss") != signed.client_id:
        return _of_assertion(f"{_SIGNED}Issuer mismatch. The issuer should match the subject")
    elif signed.client_id != client_id:
        return _of_assertion(f"{_SIGNED}client_id parameter not matching with client from JWT token")
    endpoint = f"{mint.issuer}/protocol/openid-connect"
    rules = AssertionRules(
        strict=mint.wire.strict,
        audiences=(mint.issuer, *(f"{endpoint}/{path}" for path in _ASSERTION_PATHS)),
        now=mint.now,
        seen=mint.realm.assertions,
    )
    return signed.refusal(mint.realm.signing(client_id) or {}, rules)


def _consistent(signed: Assertion, mint: Mint) -> bool:
    """Return whether an assertion names one client of the realm as issuer and subject."""
    client_id = signed.client_id
    return signed.claims.get("iss") == client_id and mint.realm.has(client_id)


def _of_assertion(description: str) -> Denied:
    return Denied(status=400, error="invalid_client", description=description)


def _credentials(form: Form, request: Request, *, strict: bool) -> Credentials:
    """Return the credentials of the request. The form wins over the header, field by field."""
    found = basic(request.header("authorization"), strict=strict) or Credentials("", "")
    client_id, secret = form.get("client_id"), form.get("client_secret")
    if client_id is not None:
        found = replace(found, client_id=client_id)
    return found if secret is None else replace(found, secret=secret)


def _of_user(form: Form, via: str, mint: Mint, jkt: str, x5t: str) -> Granted | Denied:
    login = form.get("username")
    if login is None:
        return _NO_USERNAME
    username = mint.realm.username(login)
    expected = mint.realm.password(username)
    password = form.get("password") or ""
    right = expected is not None and hmac.compare_digest(password.encode(), expected.encode())
    return mint.realm.model.password(username, via=via, scope=form.get("scope"), right_password=right, jkt=jkt, x5t=x5t)


def _exchange(form: Form, client_id: str, mint: Mint, jkt: str) -> _Outcome:
    refused = mint.realm.model.may_exchange(client_id, jkt=jkt)
    for name in _NOT_SUPPORTED:
        if form.get(name) is not None:
            refused = _bad(f"Parameter '{name}' is not supported for standard token exchange")
            break
    for name in _SUBJECT:
        if refused is None and form.get(name) is None:
            refused = _bad(f"Parameter '{name}' required for standard token exchange")
    if refused is None and form.get("subject_token_type") != ACCESS_TOKEN:
        refused = _bad("Parameter 'subject_token' supports access tokens only")
    if refused is not None:
        return _Outcome(client_id, "token_exchange", refused)
    subject = _subject(form.get("subject_token") or "", mint)
    requested = form.get("requested_token_type")
    answer = mint.model_for(subject).exchanged(
        client_id,
        subject.subject if subject is not None else None,
        scope=form.get("scope"),
        audiences=form.every("audience"),
        requested=ACCESS_TOKEN if requested is None else requested,
        peer=mint.client,
        jkt=jkt,
    )
    return _Outcome(client_id, "token_exchange", answer, subject)


def _subject(token: str, mint: Mint) -> IssuedToken | None:
    """Return a token of this realm that is valid now: it has not expired, and neither the user nor an administrator has revoked it."""
    found = mint.realm.issued.find(token, now=mint.now)
    if found is None:
        return None
    client = mint.realm.model.client(found.subject.client_id)
    revoked = max(mint.realm.not_before, client.not_before if client is not None else 0)
    return found if found.issued_at >= revoked else None


def _bad(description: str) -> Denied:
    return Denied(status=400, error="invalid_request", description=description)
