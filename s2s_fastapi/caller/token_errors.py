"""The meaning of Keycloak's refusals, and the setting that ends each of them (RFC 6749 section 5.2, and Keycloak's own texts)."""

import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from s2s_fastapi.backchannel.channel import BackChannelError, Reply
from s2s_fastapi.backchannel.client_certificate import ClientCertificate
from s2s_fastapi.caller.credentials import Proof
from s2s_fastapi.caller.servers import seconds_of
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.errors import S2SError, TokenRequestError
from s2s_fastapi.keycloak import exchange as exchange_cures
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.keycloak.server_cures import answer_cure, unreachable_cure
from s2s_fastapi.text import listed, named, without_tokens

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = [
    "NO_SERVICE_ACCOUNT",
    "RETRY",
    "RETRY_CREDENTIALS",
    "RETRY_NEW_KEY",
    "certificate_refused",
    "error_type",
    "proof_error",
    "reach_cure",
    "refusal",
    "retry_after",
    "saying_when",
    "unreachable",
    "wrong_credentials",
]

RETRY: Final = 5.0
"""Seconds for which most failures are remembered."""
RETRY_CREDENTIALS: Final = 30.0
"""Seconds for which wrong credentials, and tokens for another audience or client, are remembered."""
RETRY_NEW_KEY: Final = 3.0
"""Seconds for which a 401 is remembered while the key of another issuer is so new that Keycloak may not have fetched it."""

_MAX_WAIT = 60.0
_MAX_TEXT = 200
_SECONDS: Final = re.compile(r"[0-9]{1,10}")
_BAD_REQUEST = 400
_UNAUTHORIZED = 401
_PROXY_WANTS_PASSWORD = 407
_SERVER_ERROR = 500
_TRY_LATER = (429, 503)
_ERRORS: Final = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "access_denied",
    }
)

_REUSED: Final = "token reuse detected"
_ASSERTION_NOT_ACTIVE: Final = "token is not active"
_ASSERTION_AHEAD: Final = "issued in the future"
_NOT_ACTIVE: Final = "dpop proof is not active"
_PROOF_REUSED: Final = "dpop proof has already been used"
_NOT_SEEN: Final = (
    "If that is right, Keycloak does not see the certificate: start it with --https-client-auth=request, or, if a proxy before it opens TLS, with"
    " --spi-x509cert-lookup--provider= for that proxy."
)
_CLOCKS: Final = "Compare the clocks of this machine and of Keycloak's: an assertion lives 60 s, and Keycloak takes none from more than 15 s ahead."

_CLOCK_OF_ISSUER: Final = (
    "Compare the clocks of Keycloak and of {assertion_issuer}, which issued the token: Keycloak takes none whose iat or nbf is ahead of its own"
    " clock, or whose exp has passed."
)


NO_SERVICE_ACCOUNT: Final = (
    'Switch "Client authentication" and "Service account roles" on for the client {client} in Keycloak, if its service calls others. A service'
    " that is only called needs no token: leave its client as it is."
)


@dataclass(frozen=True, slots=True)
class _Case:
    """One kind of refusal, recognised by its text: the status differs between versions of Keycloak."""

    error: str  # "" fits any
    words: str  # of error or description, lower case
    cure: str
    status: int = 0  # 0 fits any


# The first that fits counts.
_CASES: Final = (
    _Case(
        "invalid_client",
        "client_assertion_type is missing",
        'The client {client} is set to signed assertions in Keycloak: set KEYCLOAK_CLIENT_AUTH=private_key_jwt and KEYCLOAK_CLIENT_KEY_FILE, or its "Client Authenticator" to "Client Id and Secret".',
    ),
    _Case("invalid_client", "unable to load public key", "{keys}"),
    _Case("invalid_client", "signature on jwt token failed", "{keys}"),
    _Case("invalid_client", "loading public keys", "{keys}"),
    _Case(
        "invalid_client",
        "invalid signature algorithm",
        'Set the "Signature algorithm" of the client {client} in Keycloak (Credentials page) to {algorithm} or to any.',
    ),
    _Case("invalid_client", "audience", "{issuer}"),
    _Case("invalid_client", "token is not active", _CLOCKS),
    _Case("invalid_client", _ASSERTION_AHEAD, _CLOCKS),
    _Case("invalid_client", "too far in the past", _CLOCKS),
    _Case(
        "invalid_client",
        _REUSED,
        "Look for what sends a token request twice between this process and Keycloak, such as a proxy that repeats POST: each of our"
        " requests has an assertion of its own.",
    ),
    _Case("", "dpop proof is missing", "{no_proof}"),
    _Case("", _NOT_ACTIVE, "{clocks}"),
    _Case(
        "",
        _PROOF_REUSED,
        "Look for what sends a token request twice between this process and Keycloak, such as a proxy that repeats POST: each of our"
        " requests has a proof of its own.",
    ),
    _Case(
        "",
        "dpop http url mismatch",
        "Keycloak sees another URL than {token_url}: a proxy before it hides host or scheme. Let the proxy send X-Forwarded-Host, -Proto and"
        " -Port, and start Keycloak with --proxy-headers=xforwarded (KC_HOSTNAME does not matter here), or set KEYCLOAK_URL to the address"
        " of Keycloak itself.",
    ),
    _Case(
        "",
        "use_dpop_nonce",
        "Look for what takes the header DPoP-Nonce out of answers between Keycloak and this process, or sends requests to several servers"
        " whose nonces differ.",
    ),
    _Case(
        "",
        "dpop",
        "Look for what changes the header DPoP or the method between this process and Keycloak, such as a proxy that joins or repeats"
        " headers. If that is impossible, set KEYCLOAK_DPOP=false.",
    ),
    _Case(
        "",
        "mtls",
        "{no_certificate}",
    ),
    _Case(
        "unauthorized_client",
        "service account",
        NO_SERVICE_ACCOUNT,
    ),
    _Case("unauthorized_client", "", "{credentials}"),
    _Case(
        "invalid_client", "bearer", "The client {client} is bearer-only in Keycloak: give it service accounts instead."
    ),
    _Case(
        "invalid_client",
        "",
        "Set KEYCLOAK_CLIENT_ID: the realm {realm} has no enabled client {client!r} that may authenticate this way.{certificate}",
    ),
    _Case(
        "invalid_scope",
        "",
        "Assign {scopes} to the client {client} in Keycloak, as optional (or default) client scopes, or ask for others.",
    ),
    _Case(
        "invalid_request",
        "",
        "Enable the user of the service account of the client {client} in Keycloak.",
        status=_UNAUTHORIZED,
    ),
)


# The answers to an assertion of another issuer; the others are in _CASES.
_FEDERATED_CASES: Final = (
    _Case("", "does not match authenticated client", "{another}"),
    _Case("invalid_client", "audience", "{federated_audience}"),
    _Case("invalid_client", _REUSED, "{reuse}"),
    _Case("invalid_client", "jti claim is required", "{reuse}"),
    _Case(
        "invalid_client",
        "too far in the past",
        "Have {file} written anew more often: an identity provider of type kubernetes takes a token for 3600 s after its iat, one of another"
        " type for 300 s. For the tokens of a Kubernetes cluster use the type kubernetes.",
    ),
    _Case("invalid_client", _ASSERTION_NOT_ACTIVE, _CLOCK_OF_ISSUER),
    _Case("invalid_client", _ASSERTION_AHEAD, _CLOCK_OF_ISSUER),
    _Case("unauthorized_client", "credentials", "{federated}"),
    _Case("invalid_client", "", "{federated}", status=_UNAUTHORIZED),
)

# The answers to an exchange (RFC 8693) that other requests do not get; the others are in _CASES.
_EXCHANGE_CASES: Final = (
    _Case("invalid_request", "exchange is not enabled", "{enabled}"),
    _Case("access_denied", "within the token audience", "{audience}"),
    _Case("invalid_client", "public client", "{public}"),
    _Case("unsupported_grant_type", "", exchange_cures.TOO_OLD),
    _Case("invalid_scope", "consent", "{consent}"),
    _Case("invalid_request", "sender-constrained", exchange_cures.BOUND),
    _Case("invalid_request", "", "", status=_UNAUTHORIZED),
)


def refusal(
    reply: Reply, settings: "KeycloakSettings", wanted: Wanted, proof: Proof, *, exchange: bool = False
) -> TokenRequestError:
    """Return the error for an answer without a token; with `exchange`, for the exchange of a user's token.

    Keycloak's text is cut to 200 printable characters. It is left out if it repeats the secret; any JWT in it is left out.
    """
    error, description = _error_in(reply, proof)
    status, token_url = reply.status, Endpoints.of(settings).token
    words = f"{error} {description}".lower()
    cases = (
        *(_EXCHANGE_CASES if exchange else ()),
        *(_FEDERATED_CASES if proof.assertion is not None else ()),
        *_CASES,
    )
    case = next(
        (case for case in cases if case.error in ("", error) and case.words in words and case.status in (0, status)),
        None,
    )
    known = case is not None and bool(error)
    if case is not None and known:
        cure = _fill(case.cure, settings, wanted, proof, reply)
    elif not error and status == _PROXY_WANTS_PASSWORD and settings.proxy is not None:
        cure = "Put the user name and password that the proxy wants into KEYCLOAK_PROXY."
    else:
        cure = answer_cure(token_url, status, words.strip())
    detail = ": ".join(text for text in (error, description) if text)
    return TokenRequestError(
        f"Keycloak gave {named(settings.client_id)} no token: {token_url} {reply.sentence}{f' ({detail})' if detail else ''}.",
        error=error,
        error_description=description,
        http_status=status,
        cure=settings.worded(cure),
        # What stands before Keycloak while it starts answers with its own pages; only Keycloak's own no is final. And the next
        # assertion is another one.
        retryable=not error
        or (_REUSED in words and proof.assertion is None)
        or (
            (_ASSERTION_NOT_ACTIVE in words or _ASSERTION_AHEAD in words) and proof.assertion is not None
        )  # the token was issued a moment ago
        or _PROOF_REUSED in words
        or _NOT_ACTIVE in words
        or status >= _SERVER_ERROR
        or status in _TRY_LATER,
    )


def unreachable(problem: str, settings: "KeycloakSettings") -> TokenRequestError:
    """Return the error for no answer, or for an answer that cannot be read."""
    return TokenRequestError(
        f"Keycloak gave {named(settings.client_id)} no token: {Endpoints.of(settings).token}: {settings.worded(problem)}.",
        cure=reach_cure(settings, problem),
    )


def certificate_refused(problem: str, settings: "KeycloakSettings") -> TokenRequestError:
    """Return the error for a TLS connection that Keycloak, or what stands before it, ended because of our certificate."""
    error = unreachable(problem, settings)
    error.retryable = False  # the next connection shows the same certificate
    return error


def reach_cure(settings: "KeycloakSettings", problem: str = "") -> str:
    """Return what to check if Keycloak does not answer; `problem` is what the back channel said."""
    return settings.worded(unreachable_cure(Endpoints.of(settings).token, problem, proxied=settings.proxy is not None))


def wrong_credentials(error: TokenRequestError) -> bool:
    """Return whether Keycloak refused client, secret, key or certificate, so that another one could help."""
    if not error.http_status and not error.retryable:  # `certificate_refused`
        return True
    repeated = (
        error.retryable and _REUSED in error.error_description.lower()
    )  # the next assertion of ours is another one
    return not repeated and error.error in ("unauthorized_client", "invalid_client")


def error_type(error: S2SError) -> str:
    """Return the name of a failure in metrics and spans: an error of RFC 6749, a status, or our own code."""
    if isinstance(error, TokenRequestError) and error.error in _ERRORS:
        return error.error
    if isinstance(error, TokenRequestError) and error.http_status > 200:  # noqa: PLR2004 - HTTP's own number
        return str(error.http_status)
    return error.code


def retry_after(reply: Reply) -> float:
    """Return for how many seconds Keycloak is not asked again: its ``Retry-After`` (RFC 9110 section 10.2.3), from 1 to 60."""
    text = reply.headers.get("Retry-After", "").strip()
    if reply.status not in _TRY_LATER or not text:
        return RETRY
    if _SECONDS.fullmatch(text):
        return min(max(1.0, float(text)), _MAX_WAIT)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return RETRY
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return min(max(1.0, (date - datetime.now(UTC)).total_seconds()), _MAX_WAIT)


@contextmanager
def saying_when(next_try_in: Callable[[], float | None]) -> Iterator[None]:
    """Add to a failure in how many seconds Keycloak is asked again: a caller that waits so long is not refused for the same reason.

    `next_try_in` returns that time, or None if no failure is remembered.
    """
    try:
        yield
    except TokenRequestError as error:  # this waiter's own
        if error.retryable:
            left = next_try_in()
            # Without a remembered failure the load still runs; if it fails, that is remembered for RETRY and up to a tenth more.
            error.retry_after = max(1, math.ceil(1.1 * RETRY if left is None else left))
            error.headers = {"Retry-After": str(error.retry_after)}  # RFC 9110 section 10.2.3
        raise


def _error_in(reply: Reply, proof: Proof) -> tuple[str, str]:
    try:
        body: Mapping[str, object] = reply.json_object()
    except BackChannelError:
        return "", ""
    # Keycloak answers in four forms: error and error_description, an error as a sentence, errorMessage, nothing.
    error = body.get("error") or body.get("errorMessage")
    # The names of RFC 6749 are shown even if the secret is one of these words.
    named = error if isinstance(error, str) and error in _ERRORS else _clean(error, proof)
    return named, _clean(body.get("error_description"), proof)


def _clean(text: object, proof: Proof) -> str:
    if not isinstance(text, str):
        return ""
    if proof.echoed_in(text):
        return "(left out: it repeats the secret)"
    printable = "".join(
        # Whatever JWT it is: the assertion of another request, for instance.
        character if character.isprintable() else " "
        for character in without_tokens(text)[:_MAX_TEXT]
    )
    return " ".join(printable.split())


def proof_error(reply: Reply) -> str:
    """Return the error of RFC 9449 that says that another proof may be accepted: one with Keycloak's nonce (section 8) or time. Else ""."""
    if reply.status not in (_BAD_REQUEST, _UNAUTHORIZED):
        return ""
    try:
        body = reply.json_object()
    except BackChannelError:
        return ""
    if body.get("error") == "use_dpop_nonce":
        return "use_dpop_nonce"
    return "invalid_dpop_proof" if str(body.get("error_description", "")).lower() == _NOT_ACTIVE else ""


def _fill(cure: str, settings: "KeycloakSettings", wanted: Wanted, proof: Proof, reply: Reply) -> str:
    return cure.format(
        no_proof=_no_proof(settings),
        no_certificate=_no_certificate(settings),
        certificate=f" Or: {_certificate_cure(settings)}" if settings.client_auth == "tls_client_auth" else "",
        clocks=_two_clocks(reply),
        token_url=Endpoints.of(settings).token,
        client=named(settings.client_id),
        realm=settings.realm,
        scopes=listed(wanted.scopes, " and ") or "the scopes",
        credentials=_credentials(settings),
        enabled=exchange_cures.not_enabled(settings.client_id),
        audience=exchange_cures.not_in_audience(settings.client_id),
        public=exchange_cures.public_client(settings.client_id),
        consent=exchange_cures.no_consent(settings.client_id),
        algorithm=proof.algorithm,
        keys=f"Give the client {named(settings.client_id)} in Keycloak the public half of the key in {settings.client_key_file}"
        f" (KEYCLOAK_CLIENT_KEY_FILE), under the kid {proof.kid}: `s2s-fastapi keygen --client-id {shlex.quote(settings.client_id)}"
        f" --key {settings.client_key_file}` prints what the client needs.",
        issuer=f"Set KEYCLOAK_PUBLIC_URL or KEYCLOAK_ISSUER to the issuer that Keycloak names in its discovery document: the assertion is"
        f" for {settings.issuer}.",
        **_federated(settings, proof),
    )


def _federated(settings: "KeycloakSettings", proof: Proof) -> dict[str, str]:
    """Return what to say about an assertion of another issuer. Its issuer and its subject are shown: Keycloak finds the client by them."""
    assertion = proof.assertion
    if assertion is None:
        return {}
    client, issuer, subject = named(settings.client_id), named(assertion.issuer), named(assertion.subject)
    provider = f"the identity provider of {issuer}" if assertion.issuer else "the identity provider of type spiffe"
    return {
        "file": f"{settings.client_assertion_file} (KEYCLOAK_CLIENT_ASSERTION_FILE)",
        "assertion_issuer": issuer,
        "federated_audience": f"Set KEYCLOAK_PUBLIC_URL or KEYCLOAK_ISSUER to the issuer that Keycloak names in its discovery document, and have"
        f" the token in {settings.client_assertion_file} made for that issuer (aud): it is for {settings.issuer}.",
        "reuse": f'Set supportsClientAssertionReuse to "true" in {provider} in Keycloak: this service sends the token in its file until another'
        " one is written there. Or take the type kubernetes if it is the token of a Kubernetes cluster.",
        "another": f"Give {client} the token of its own subject in {settings.client_assertion_file}, or set KEYCLOAK_CLIENT_ID to the client that"
        f" this token proves. Its subject is {subject}, and another client has that as jwt.credential.sub.",
        "federated": f"Compare the client {client} in Keycloak with the token in {settings.client_assertion_file}: clientAuthenticatorType must be"
        f" federated-jwt, jwt.credential.sub must be {subject}, and jwt.credential.issuer must be the alias of {provider}. This provider must"
        ' be enabled, must have supportsClientAssertions "true" if it is of type oidc, and must know the key of the token (Keycloak fetches'
        " new keys at most every 10 s). Keycloak 26.0 has no such clients: use private_key_jwt there.",
    }


def _no_proof(settings: "KeycloakSettings") -> str:
    if settings.dpop:
        return "Look for what takes the header DPoP out of token requests between this process and Keycloak."
    return (
        f'Set KEYCLOAK_DPOP=true: "Require DPoP bound tokens" is on for the client {named(settings.client_id)} in Keycloak, or a client'
        " policy demands it."
    )


def _no_certificate(settings: "KeycloakSettings") -> str:
    """Return what to change if Keycloak saw no certificate, and binds the tokens of this client to one (RFC 8705 section 3)."""
    if settings.client_cert_file is None:
        return (
            'Set KEYCLOAK_CLIENT_CERT_FILE and KEYCLOAK_CLIENT_CERT_KEY_FILE, or switch "OAuth 2.0 Mutual TLS Certificate Bound Access Tokens"'
            f" off for the client {named(settings.client_id)} in Keycloak."
        )
    if not Endpoints.of(settings).token.lower().startswith("https:"):
        return (
            "Write https:// in KEYCLOAK_URL, and use Keycloak's port for https: a certificate is shown only over TLS."
        )
    return _NOT_SEEN


def _certificate_cure(settings: "KeycloakSettings") -> str:
    """Return what to compare if Keycloak does not take the certificate for that of the client. It says only that the client is invalid."""
    certificate = ClientCertificate.of(settings)
    subject, issuer = ("", "") if certificate is None else certificate.names()
    names = f' Its "Subject DN" (x509.subjectdn) must be exactly `{subject}`.' if subject else ""
    names += f' And "CA Subject DN" (x509.casubjectdn), if it is set, `{issuer}`.' if issuer else ""
    return (
        f'Set the "Client Authenticator" of the client {named(settings.client_id)} in Keycloak to "X509 Certificate" (Credentials page), with'
        f' "Allow regex pattern comparison" off.{names} The most specific part comes first, not as openssl prints it. {_NOT_SEEN}'
    )


def _two_clocks(reply: Reply) -> str:
    """Return what the two clocks show. The proof had Keycloak's time if that differs by less than 10 minutes."""
    here = datetime.now(UTC)
    there = seconds_of(reply.headers.get("Date"))
    said = (
        "Keycloak's answer has no Date"
        if there is None
        else f"Keycloak's answer says {datetime.fromtimestamp(there, UTC):%Y-%m-%dT%H:%M:%SZ}, {abs(there - here.timestamp()):.0f} s"
        f" {'ahead' if there > here.timestamp() else 'behind'}"
    )
    return (
        f"Set the clocks: this machine's shows {here:%Y-%m-%dT%H:%M:%SZ}, {said}. Keycloak takes proofs that are at most 25 s old or 15 s"
        " ahead; a difference of up to 10 minutes is corrected if its answers have a Date (a proxy before it can add one), or after the first token. Look also for what holds requests back."
    )


def _credentials(settings: "KeycloakSettings") -> str:
    client = f"the client {named(settings.client_id)} in Keycloak"
    if settings.client_auth == "tls_client_auth":
        return _certificate_cure(settings)
    if settings.client_key_file:
        return (
            f'Set the "Client Authenticator" of {client} to "Signed Jwt" (Credentials page), and give it the public key; or set'
            " KEYCLOAK_CLIENT_AUTH to what the client is set to."
        )
    if settings.client_assertion_file:
        return (
            f'Set the "Client Authenticator" of {client} to the one that KEYCLOAK_CLIENT_AUTH names (Credentials page).'
        )
    file = settings.client_secret_file
    secret = (
        f"Correct the secret in {file} (KEYCLOAK_CLIENT_SECRET_FILE)." if file else "Correct KEYCLOAK_CLIENT_SECRET."
    )
    return f"{secret} It is on the Credentials page of {client}."
