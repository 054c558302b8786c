"""The token endpoint: Keycloak's refusals in its order, from 26.0.8 and 26.7.3 (RFC 6749 sections 4.3, 4.4, 5.2; RFC 7523)."""

import hmac
from dataclasses import replace
from typing import Final

from s2s_fastapi.realm.model import Denied, Granted
from s2s_fastapi.testing import log
from s2s_fastapi.testing.answers import FAILED, INVALID_ORIGIN, NO_STORE, TOO_LARGE, json_response, with_origin
from s2s_fastapi.testing.assertions import ASSERTION_TYPE, Assertion, AssertionRules
from s2s_fastapi.testing.minting import Grant, Mint
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
_GRANTS: Final[dict[str, Grant]] = {"client_credentials": "client_credentials", "password": "password"}


def answer_token_request(request: Request, mint: Mint) -> Response:
    """Return the answer to a POST: a token, or the refusal that comes first."""
    try:
        form = request.form
    except Malformed:
        return FAILED
    if any(len(value) > _LONGEST_FIELD for _, value in form.fields):
        return TOO_LARGE
    if len(form.fields) > _MOST_FIELDS:
        return FAILED
    client_id, grant, outcome = _outcome(form, request, mint)
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
    return with_origin(json_response(200, mint.answer(outcome, grant), NO_STORE), origin, exposed=True)


def _outcome(form: Form, request: Request, mint: Mint) -> tuple[str, Grant, Granted | Denied]:
    """Return the client, the grant and the answer."""
    read = Form(tuple(pair for pair in form.fields if len(pair[1]) <= _LONGEST_READ)) if mint.wire.strict else form
    named = read.get("grant_type")
    if named is None:
        return "", "client_credentials", _NO_GRANT
    grant = _GRANTS.get(named)
    if grant is None:
        return "", "client_credentials", _UNKNOWN_GRANT
    try:
        client = _credentials(read, request, strict=mint.wire.strict)
    except Malformed:
        return "", grant, _BROKEN_BASIC
    client_id, denied = _authenticated(client, read, mint)
    if denied is None and form.repeats:
        denied = _REPEATED
    if denied is not None:
        return client_id, grant, denied
    if grant == "password":
        return client_id, grant, _of_user(read, client_id, mint)
    return client_id, grant, mint.realm.model.service_token(client_id, scope=read.get("scope"), peer=mint.client)


def _authenticated(client: Credentials, form: Form, mint: Mint) -> tuple[str, Denied | None]:
    """Return the client, and why it is not authenticated. It proves itself by secret, or by assertion if it is set to that."""
    named, text = form.get("client_id"), form.get("client_assertion") or ""
    signed = Assertion.read(text) if form.get("client_assertion_type") == ASSERTION_TYPE else None
    refused = mint.realm.model.authenticate(client.client_id, client.secret)
    if named is None and signed is not None and refused is not None:
        if not _consistent(signed, mint):
            return signed.client_id, _UNKNOWN_CLIENT
        if mint.realm.signing(signed.client_id) is None:
            return signed.client_id, _UNKNOWN_CLIENT if mint.wire.strict else _of_assertion(_NO_CLIENT_ID)
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


def _of_user(form: Form, via: str, mint: Mint) -> Granted | Denied:
    login = form.get("username")
    if login is None:
        return _NO_USERNAME
    username = mint.realm.username(login)
    expected = mint.realm.password(username)
    password = form.get("password") or ""
    right = expected is not None and hmac.compare_digest(password.encode(), expected.encode())
    return mint.realm.model.password(username, via=via, scope=form.get("scope"), right_password=right)
