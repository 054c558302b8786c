"""The token endpoint: Keycloak's refusals in Keycloak's order, measured on 26.0.8 and 26.7.3 (RFC 6749 sections 4.3, 4.4 and 5.2)."""

import hmac
from dataclasses import replace
from typing import Any, Final

from s2s_fastapi.keycloak.model import Denied, Granted
from s2s_fastapi.testing.answers import FAILED, INVALID_ORIGIN, NO_STORE, TOO_LARGE, json_response, with_origin
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
    client_id, outcome = _outcome(form, request, mint)
    origin = request.header("origin")
    if isinstance(outcome, Denied):
        body = {"error": outcome.error}
        body |= {"error_description": outcome.description} if outcome.description else {}
        return with_origin(json_response(outcome.status, body, NO_STORE), origin, exposed=True)
    if origin and not mint.realm.permits_origin(client_id, origin):
        if mint.wire.strict:
            return INVALID_ORIGIN
        origin = None
    return with_origin(json_response(200, outcome, NO_STORE), origin, exposed=True)


def _outcome(form: Form, request: Request, mint: Mint) -> tuple[str, dict[str, Any] | Denied]:
    read = Form(tuple(pair for pair in form.fields if len(pair[1]) <= _LONGEST_READ)) if mint.wire.strict else form
    named = read.get("grant_type")
    if named is None:
        return "", _NO_GRANT
    grant = _GRANTS.get(named)
    if grant is None:
        return "", _UNKNOWN_GRANT
    try:
        client = _credentials(read, request, strict=mint.wire.strict)
    except Malformed:
        return "", _BROKEN_BASIC
    model = mint.realm.model
    denied = model.authenticate(client.client_id, client.secret)
    if denied is None and form.repeats:
        denied = _REPEATED
    if denied is not None:
        return client.client_id, denied
    if grant == "password":
        granted = _of_user(read, client.client_id, mint)
    else:
        granted = model.service_token(client.client_id, scope=read.get("scope"))
    return client.client_id, granted if isinstance(granted, Denied) else mint.answer(granted, grant)


def _credentials(form: Form, request: Request, *, strict: bool) -> Credentials:
    """Return who says to be asking: what the form says wins over the header, field by field."""
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
    outcome = mint.realm.model.password(username, via=via, scope=form.get("scope"))
    if isinstance(outcome, Denied):
        return outcome
    expected = mint.realm.password(username)
    given = form.get("password") or ""
    if expected is None or not hmac.compare_digest(given.encode(), expected.encode()):
        status = 400 if mint.wire.strict else 401
        return Denied(status=status, error="invalid_grant", description="Invalid user credentials")
    return outcome
