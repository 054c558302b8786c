"""The sentences that say to an operator what to change in Keycloak or in the code. Receiver and caller use the same words.

A sentence says what was found, what was expected, and what to change where. It repeats a token's values only after the signature was
verified.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from s2s_fastapi.backchannel.strict_json import AmbiguousJsonError, DuplicateMembersError, doubled
from s2s_fastapi.decision import Reason
from s2s_fastapi.errors import S2SError
from s2s_fastapi.principal import Principal
from s2s_fastapi.text import listed, named, printable

__all__ = [
    "ADDRESS_REWRITTEN",
    "ASKED_ANYWAY",
    "CHANGED_PATH",
    "CLOCKS",
    "DPOP_REFUSED",
    "NEVER_PUBLIC",
    "NOT_A_TOKEN",
    "NO_CERTIFICATE",
    "NO_PROOF",
    "NO_TLS_EXTENSION",
    "NO_TOKEN",
    "OTHER_CREDENTIALS",
    "OTHER_PATH",
    "PROOF_USED",
    "SHARED_ANSWER",
    "SMALLER",
    "STORE_UNCLEAR",
    "TOKEN_IN_URL",
    "TWO_HEADERS",
    "UNPROVABLE",
    "UNVERIFIED_CERTIFICATE",
    "WITHOUT_REQUEST",
    "also_for",
    "audience_cure",
    "audience_steps",
    "bearer_cure",
    "binding_cure",
    "caller_cure",
    "certificate_header_cure",
    "claim_cure",
    "condition_cure",
    "condition_fault",
    "condition_unknown",
    "confirmation_cure",
    "credentials_cure",
    "issuer_cure",
    "issuer_steps",
    "kind_cure",
    "not_bound_cure",
    "not_granted_cure",
    "other_certificate_cure",
    "proxy_secret_cure",
    "realm_cure",
    "role_cure",
    "scope_cure",
    "shown",
    "size_cure",
    "store_cure",
    "token_of",
    "type_cure",
    "unbound_cure",
    "unreadable",
    "unsigned_cure",
    "wrong_audience",
    "wrong_kind_cure",
]

_LONGEST: Final = 200
_MOST: Final = 20
# How Keycloak marks a jti since 26.2: session, kind of token, grant (``trrtcc:``). Older ones do not; and it is a hint, never a rule.
_MARK: Final = re.compile(r"[a-z]{2}(?P<kind>rt|lt)(?P<grant>[a-z]{2}):")


def audience_cure(principal: Principal, expected: Iterable[str], setting: str = "") -> str:
    """Return what to change if a token reached a service that it is not for.

    - If a service called, name the steps that it still needs. If somebody else may have sent the token on, the refusal is right, and
      the sentence must not advise to give the token this audience.
    - ``setting`` is this service's own variable that names ``expected``: it may be the mistake.
    """
    cure = _audience_cure(principal, expected)
    if not setting:
        return cure
    return f"{cure} Or {setting} is wrong here: it says that this service is {listed(expected, ' or ')}."


def _audience_cure(principal: Principal, expected: Iterable[str]) -> str:
    client, wanted = principal.client_id, sorted(expected)
    who, said = named(client), wrong_audience(client, principal.audiences, wanted)
    if principal.kind == "user":
        return (
            f"{said}. It is a user's token. A service that calls on behalf of a user must exchange it (on_behalf), or request a token of its "
            f"own (grant client_credentials). Only a front end that calls {_or(wanted)} itself needs an Audience mapper for {_or(wanted)}."
        )
    if _mark(principal, "kind") == "lt":
        return f"{said}. It is a lightweight token: {_not_lightweight(who)}."
    steps = audience_steps(
        client,
        wanted,
        is_service=principal.kind == "service",
        existing=[name for name in wanted if principal.client_roles.get(name)],
    )
    steps = f"{steps}. {_by_role(principal, who, wanted)}"
    if _bare(principal):
        return f"{said}, and neither client_id nor roles. If it is a lightweight token, {_not_lightweight(who)}. If not, {steps}"
    others = sorted(principal.audiences - {"account"})[:_MOST]
    if not others:
        return f"{said}. {steps}"
    return f"{said}. If {_or(others)} sent the token on, the refusal is right. If {who} itself called, {steps}"


def wrong_audience(client_id: str, granted: Iterable[str], expected: Iterable[str], joined: str = " or ") -> str:
    """Say whom a client's token is for, and whom it should be for: one of ``expected``, or with `` and `` between them all."""
    names = sorted(granted)[:_MOST]
    aud = f"aud [{listed(names)}]" if names else "no aud"
    return f"token of {named(client_id)} has {aud}, expected {listed(expected, joined)}"


def audience_steps(
    client_id: str,
    audiences: Iterable[str],
    joined: str = " or ",
    *,
    is_service: bool = False,
    existing: Collection[str] = (),
) -> str:
    """Say which of the steps A to D Keycloak still needs to put ``audiences`` into a client's token.

    - ``joined`` is `` or `` if one of the audiences is enough, `` and `` if all are needed.
    - ``is_service``: the token itself shows that step A is done.
    - ``existing``: clients that the token shows to exist. If it shows all of them, step B is done.
    """
    who, names = named(client_id), sorted(audiences)
    target = listed(names, joined)
    steps = [] if is_service else [f"(A) the client {who} with “Service account roles” on"]
    # A custom audience, a URL, needs no client of that name.
    clients = [name for name in names if "://" not in name]
    if clients and not set(clients) <= set(existing):
        steps.append(f"(B) a client {listed(clients, joined)}")
    steps += [
        f"(C) a client scope with an Audience mapper for {target}",
        f"(D) that scope assigned to {who}, as Default, or as Optional if {who} requests it (scope=...)",
    ]
    return f"Keycloak needs, of the steps A to D in the README: {', '.join(steps)}"


def not_granted_cure(
    client_id: str,
    missing: Iterable[str],
    *,
    requested: Iterable[str],
    granted: Iterable[str],
    token_id: str = "",
    holder: str = "",
) -> str:
    """Return what to change if Keycloak gave a client a token without the audiences that it requested.

    A token shows that step A is done. ``requested`` are the scopes of the request, ``granted`` those of the answer. ``holder`` has the
    roles: by default the service account of the client.
    """
    who, names, wanted = named(client_id), sorted(missing), frozenset(requested)
    if token_id[2:4] == "lt":  # Keycloak 26.7 marks lightweight tokens there
        return f"This is a lightweight token: {_not_lightweight(who)}."
    lost = wanted - frozenset(granted)
    if wanted and not lost:
        scopes = listed(wanted)
        cure = (
            f"The scope {scopes} was requested and granted, so it has no Audience mapper for {listed(names, ' and ')}: "
            f"add one (Client scopes, the scope, Mappers), or request another scope (scope=...)."
        )
    else:
        cure = f"{audience_steps(client_id, names, ' and ', is_service=True)}."
        if lost:
            cure += (
                f" The scope {listed(lost)} was requested and not granted: assign it to {who}. Keycloak also leaves out a scope with "
                f"role mappings if {holder or f'the service account of {who}'} has none of those roles."
            )
        else:
            cure += (
                " No scope was requested: for an Optional scope write its name as scope= in service_client(...), "
                "service_auth(...) or ServiceTokenAuth(...)."
            )
    return cure


def also_for(principal: Principal, others: Iterable[str]) -> str:
    """Return what to change if another service would accept the token too."""
    who, names = named(principal.client_id), sorted(others)
    said = f"token of {who} is also for {listed(names[:_MOST])}, who could send it on. Request a token for one audience at a time (scope=...)"
    if "account" not in names:
        return f"{said}."
    return f"{said}. account comes from the default roles: switch off “Full scope allowed” of the client {who} {_dedicated(who)}."


def issuer_cure(principal: Principal, expected: str) -> str:
    """Return what to change if a key of this realm has signed a token of another issuer."""
    found = principal.issuer
    said = f"token of {named(principal.client_id)} was issued by {named(found)}, expected {expected}"
    return f"{said}. {issuer_steps(found, expected)}"


def issuer_steps(found: str, expected: str) -> str:
    """Say what to change if Keycloak writes ``found`` into ``iss``, and the settings expect another issuer."""
    as_in_tokens = "set KEYCLOAK_ISSUER to the exact issuer (iss) of the tokens."
    if found.rstrip("/") == expected.rstrip("/"):
        return f"The slash at the end counts: {as_in_tokens}"
    here, there = _address(expected), _address(found)
    if here[0] == there[0] and here[2] == there[2]:
        path = f"Set KEYCLOAK_AUTH_PATH={named(there[1])}" if there[1] else "Remove KEYCLOAK_AUTH_PATH"
        return f"{path}, and leave the path out of KEYCLOAK_URL and KEYCLOAK_PUBLIC_URL. (KEYCLOAK_ISSUER contains it.)"
    if here[:2] == there[:2] and unquote(here[2]) == unquote(there[2]):
        return f"The realm is the same, but its name is encoded in another way: {as_in_tokens}"
    if here[:2] == there[:2]:
        return "Set KEYCLOAK_REALM to the realm's name, letter by letter, and remove KEYCLOAK_ISSUER."
    # Keycloak without a fixed hostname writes whatever Host header the token request had: the name found need not be its own.
    return (
        "Set KEYCLOAK_PUBLIC_URL (or KEYCLOAK_ISSUER) to the address that Keycloak writes into tokens, or give Keycloak a "
        "fixed hostname (KC_HOSTNAME), so that every caller gets the same issuer."
    )


def type_cure(claims: Mapping[str, Any]) -> str:
    """Return what to change if a token is not an access token."""
    kind = claims.get("typ")
    instead = {"ID": ", not id_token", "Refresh": ", not refresh_token", "Offline": ", not refresh_token"}
    found = f"typ {_value(kind)}" if "typ" in claims else "no typ"
    said = f"{token_of(claims)} has {found}, expected Bearer. Send access_token of Keycloak's answer"
    return f"{said}{instead.get(kind, '') if isinstance(kind, str) else ''}."


def binding_cure(claims: Mapping[str, Any], *, dpop: str = "", certificate: bool = False) -> str:
    """Return what to change if a token is bound to a key and so is not a bearer token (RFC 7800 section 3.1).

    ``dpop`` is not empty if this service takes such tokens under the scheme DPoP, and ``certificate`` says whether it takes tokens that are
    bound to a client certificate.
    """
    who, bound = _client_of(claims), claims.get("cnf")
    said = f"{token_of(claims)} is bound to a key, but was sent as a bearer token."
    if isinstance(bound, dict) and "x5t#S256" in bound and not certificate:
        return f"{said} Switch off {_CERTIFICATE_BOUND} for {who}. {_TAKE_CERTIFICATES}"
    if isinstance(bound, dict) and "jkt" not in bound and certificate:
        return (
            f"{token_of(claims)} has a cnf that is not the thumbprint of one certificate alone (x5t#S256). Keycloak writes it by itself: remove the "
            "mapper that writes cnf."
        )
    if dpop:
        return f"{said} {_SEND_BOUND}"
    return (
        f"{said} Switch off DPoP bound tokens (dpop.bound.access.tokens) for {who}, and request its token without a DPoP proof. "
        'Or accept bound tokens here: ServiceAuthMiddleware(dpop="accepted").'
    )


def confirmation_cure(claims: Mapping[str, Any], *, certificate: bool = False) -> str:
    """Return what to change if a token under the scheme DPoP is bound in another way than by DPoP (RFC 9449 section 6.1)."""
    bound = claims.get("cnf")
    if isinstance(bound, dict) and "x5t#S256" in bound and not certificate:
        return (
            f"{token_of(claims)} is bound to a client certificate, which is not checked here. Switch off {_CERTIFICATE_BOUND} for "
            f"{_client_of(claims)}. {_TAKE_CERTIFICATES}"
        )
    if isinstance(bound, dict) and "x5t#S256" in bound and "jkt" not in bound:
        return (
            f"{token_of(claims)} is bound to a client certificate alone, but was sent under the scheme DPoP. Send it as `Authorization: Bearer "
            "<token>` over the connection with that certificate."
        )
    return (
        f"{token_of(claims)} has a cnf that is not the thumbprint of one DPoP key alone (jkt). Keycloak writes it by itself: remove the mapper "
        "that writes cnf."
    )


def not_bound_cure(claims: Mapping[str, Any]) -> str:
    """Return what to change if a token under the scheme DPoP is not bound to a key (RFC 9449 section 7.1)."""
    return f"{token_of(claims)} was sent under the scheme DPoP, but is not bound to a key (no cnf). {_REQUEST_BOUND}"


def unbound_cure(principal: Principal) -> str:
    """Return what to change if a route requires a bound token, and a bearer token came."""
    return (
        f"token of {named(principal.client_id)} is bound neither to a key nor to a certificate, and the route has require_bound(). If this service has "
        f"client_certificate=, switch on {_CERTIFICATE_BOUND} for {named(principal.client_id)}, and set KEYCLOAK_CLIENT_CERT_FILE in the caller. If it "
        "has dpop=, set KEYCLOAK_DPOP=true (or dpop=True) in the caller."
    )


def bearer_cure(principal: Principal) -> str:
    """Return what to change if a bearer token came to a service that takes only bound ones."""
    return (
        f'token of {named(principal.client_id)} is not bound to a key, and this service has dpop="required". {_REQUEST_BOUND} '
        'While callers change over, dpop="accepted" takes both.'
    )


def store_cure(error: Exception) -> str:
    """Return what to look at if the replay store gave no answer. A store may be code of the app, so its text may hold anything."""
    said = f": {printable(str(error), _LONGEST)}" if isinstance(error, S2SError) else ""
    return f"the replay store gave no answer ({type(error).__name__}{said}), and without it a copied proof looks like a new one."


def proxy_secret_cure(header: str, problem: str) -> str:
    """Return what to look at if a request does not show that it comes from the proxy. What the request says is not repeated."""
    return (
        f"the header with the client certificate counts only together with the secret of the proxy in {header}, and {problem}. Compare the proxy's "
        "configuration with secret_file, and let nobody reach this service past the proxy."
    )


def certificate_header_cure(header: str, form: str, problem: str) -> str:
    """Return what to look at if the header with the client certificate is not exactly one certificate."""
    return (
        f'{header} is not exactly one certificate in the form "{form}": {problem}. The proxy must overwrite the header in each request, and '
        "CertificateHeader(form=) must name its form."
    )


def other_certificate_cure(found: str, bound: str) -> str:
    """Return what to look at if the request has another client certificate than its token is bound to (RFC 8705 section 3)."""
    return (
        f"the token is bound to the certificate with x5t#S256 {bound}, and the request has {found}. If nobody stole the token, the caller changed "
        "its certificate: it must request a new token with it. If a proxy on the way ends TLS, it must pass on the caller's certificate, not its own."
    )


def kind_cure(principal: Principal) -> str:
    """Say why it is not known whether a service or a user is calling, and what to change."""
    who, claims = named(principal.client_id), principal.claims
    own = f"{who} must request a token of its own (grant client_credentials)"
    if "authorization" in claims:
        return f"token of {who} is a UMA ticket of Authorization Services. {own}, with a client scope that adds this service as audience."
    if "client_id" in claims and "sid" in claims:
        return (
            f"token of {who} has both client_id and sid. Switch off “Use refresh tokens for client credentials grant” "
            f"(client_credentials.use_refresh_token) of client {who}. If it is off, remove the mapper that writes sid."
        )
    if "client_id" in claims:
        return (
            f"token of {who} has another client_id than azp. A mapper of the realm overwrites one of them: remove it."
        )
    if "sid" in claims:
        return f"token of {who} has a sid that is not text. A mapper of the realm overwrites it: remove it."
    said = f"token of {who} has neither client_id nor sid"
    if _mark(principal, "kind") == "lt":
        return f"{said}. It is a lightweight token: {_not_lightweight(who)}."
    if _mark(principal, "grant") == "te":
        return f"{said}. It was exchanged for the token of a service, and is always refused: {own}."
    scope = (
        f"{said}. Assign the client scope service_account (and basic) to client {who}: a realm imported with a users entry for the "
        "service account does not have it."
    )
    if _mark(principal, "kind"):
        return scope
    return (
        f"{scope} Or, if it is a lightweight token, {_not_lightweight(who)}. "
        f"A token that was exchanged for that of a service looks the same and is always refused: {own}."
    )


def wrong_kind_cure(principal: Principal, expected: str) -> str:
    """Return what to change if a user called where a service is expected, or the other way round."""
    who = named(principal.client_id)
    said = f"token of {who} belongs to a {principal.kind}, expected a {expected}"
    if expected == "service" and _mark(principal, "grant") == "te":
        return (
            f"{said}. {_exchanged_by(who)}. If {who} may call this route on behalf of users, set users=True in ServiceAuthMiddleware(...)"
            f" and write require_user({_text(principal.client_id)}) on the route. If it calls as itself, it must request a token of its own"
            " (grant client_credentials)."
        )
    if expected == "service":
        return (
            f"{said}. The calling service must request a token of its own (grant client_credentials), not forward a user's. If users "
            "may call this route, set users=True in ServiceAuthMiddleware(...) and write require_user() on the route."
        )
    return f"{said}. If services may call this route as well, write require_service() | require_user() on it."


def caller_cure(principal: Principal, allowed: Iterable[str]) -> str:
    """Return what to change if a client called that the route does not name."""
    who = named(principal.client_id)
    said = f"{who} is not allowed here (allowed: {listed(allowed)})"
    if principal.kind == "user" and _mark(principal, "grant") == "te":
        return f"{said}. {_exchanged_by(who)}. To let users in through {who}, add {_text(principal.client_id)} to require_user(...)."
    require = "require_user" if principal.kind == "user" else "require_caller"
    return f"{said}. To allow it, add {_text(principal.client_id)} to {require}(...)."


def _exchanged_by(who: str) -> str:
    """Say whose token it is, by the mark in its id."""
    return f"It seems to be a user's token that the service {who} exchanged to call on behalf of the user"


def realm_cure(principal: Principal, realm: str = "") -> str:
    """Return what to change if a caller is of another realm than the requirement: of ``realm``, or of the first one."""
    who = f"{named(principal.client_id)} of the realm {named(principal.realm)} ({principal.issuer})"
    if not realm:
        return (
            f"{who} called, and a requirement that names no realm speaks of the first realm of this service. If this caller may call, join "
            f"a requirement of its own with |: require_caller({_text(principal.client_id)}, realm={_text(principal.realm)})."
        )
    return f"{who} called, and the requirement is for callers of the realm {named(realm)}. If this caller may call, name its realm."


def _text(name: str) -> str:
    shown = named(name)
    return shown if shown.startswith('"') else f'"{shown}"'


def scope_cure(principal: Principal, missing: Iterable[str]) -> str:
    """Return what to change if a token lacks scopes."""
    who, names = named(principal.client_id), listed(missing, " ")
    return (
        f"token of {who} lacks scope {names}. Assign the client scope {names} to {who}, as Default, or as Optional if {who} requests it "
        f"(scope=...), and switch on “Include in token scope”. Keycloak leaves out a scope with role mappings if the account has none of "
        "those roles."
    )


def role_cure(principal: Principal, missing: Iterable[str], owner: str = "") -> str:
    """Return what to change if a token lacks roles of the client ``owner``, or realm roles."""
    who, names = named(principal.client_id), listed(missing)
    whose = f"role of client {named(owner)}:" if owner else "realm role"
    holder = "the user" if principal.kind == "user" else f"the service account of {who}"
    return (
        f"token of {who} lacks {whose} {names}. Give it to {holder}, and check that the client scope roles is assigned to {who}. "
        f"If “Full scope allowed” is off for {who}, add the role to its scope as well {_dedicated(who)}."
    )


def claim_cure(principal: Principal, path: tuple[str, ...], values: Iterable[object], found: object) -> str:
    """Return which mapper would write a claim that is missing or has another value. The value found is not shown: it may be personal.

    ``found`` is None if the claim is missing.
    """
    who, claim = named(principal.client_id), " > ".join(map(named, path))
    wanted = list(values)
    expected = " or ".join(json.dumps(value, ensure_ascii=False) for value in wanted[:_MOST])
    kinds = dict.fromkeys(_MAPPER_TYPES[type(value)] for value in wanted)
    if found is not None:
        types = dict.fromkeys(_MAPPER_TYPES.get(type(each), "JSON") for each in _each(found))
        if types and types.keys().isdisjoint(kinds):
            said = f"token of {who} has the claim {claim} as {_or(types)}, expected {shown(expected)}"
            return f"{said}. Set “Claim JSON Type” of the mapper that writes it to {_or(kinds)}."
        return f"token of {who} has another value in the claim {claim}, expected {shown(expected)}. Correct the mapper or the attribute that it reads."
    said = f"token of {who} has no claim {claim}, expected {shown(expected)}"
    if len(path) == 1 and "." in path[0] and _nested(principal.claims, path[0].split(".")):
        names = ", ".join(f'"{name}"' for name in path[0].split("."))
        return f"{said}. The token has it as a path: write require_claim(({names}), ...)."
    written = ".".join(name.replace(".", "\\.") for name in path)
    kind = "User Attribute or User Session Note" if principal.kind == "user" else "Hardcoded claim"
    return (
        f"{said}. Add a mapper “{kind}” to a client scope of {who} or to its own (Clients, {who}, Client scopes, {who}-dedicated, Add mapper, "
        f"By configuration), with “Token Claim Name” {named(written)}, “Claim JSON Type” {_or(kinds)} and “Add to access token” on."
    )


def condition_cure(principal: Principal, name: str) -> str:
    """Return what to look at if a condition of the app is not met."""
    return f"{named(principal.client_id)} does not meet the condition {_said(name)}. Only the code of this app knows what it asks: see require_that({_said(name)}, ...)."


def condition_unknown(principal: Principal, name: str) -> str:
    """Say that nobody outside of the app knows whether a condition is met."""
    return (
        f"Only the app can tell whether {named(principal.client_id)} meets the condition {_said(name)}; all else holds."
    )


def condition_fault(name: str, found: object) -> str:
    """Return what is wrong with the function of a condition: it raised an exception, or returned something else than True or False."""
    did = f"raised {type(found).__name__}" if isinstance(found, Exception) else f"returned {_kind_of(found)}"
    return f"the function of the condition {_said(name)} {did}, so nobody is let in. It must return exactly True or False for each principal."


CHANGED_PATH: Final = (
    "A middleware or a root_path changed the path between ServiceAuthMiddleware and the router, and the router's path is not in "
    "public_paths or optional_paths. Add that middleware after ServiceAuthMiddleware (the one added last is outermost), or add the router's path."
)
ASKED_ANYWAY: Final = (
    "The path is in optional_paths, and a requirement asked for a caller all the same. To let requests without credentials pass, write the "
    "requirement with .optional()."
)
OTHER_CREDENTIALS: Final = (
    "The path is in optional_paths, and the request has other credentials. One without credentials has no Authorization and no DPoP header, "
    "not even an empty one, and no access_token in its query."
)
SHARED_ANSWER: Final = (
    "An answer of a path in optional_paths to a request with credentials has a Cache-Control of the app with public, s-maxage or "
    "must-revalidate. So a cache may give it to other callers: write private or no-store for requests with credentials."
)
NEVER_PUBLIC: Final = "but a WebSocket is never public."
OTHER_PATH: Final = (
    "which is not this method and path: both must be equal, letter by letter, including a slash at the end."
)

TWO_HEADERS: Final = (
    "the request has two Authorization headers. Send one: look for a client or a proxy that adds another one."
)
TOKEN_IN_URL: Final = "the URL has the parameter access_token beside the Authorization header. Remove it from the URL, which is written to logs."
DPOP_REFUSED: Final = (
    'the request has a token under the scheme DPoP, and this service accepts none. Write dpop="accepted" and public_url=... here, or '
    "KEYCLOAK_DPOP=false (or dpop=False) in the caller. A token that is bound to a certificate is sent under Bearer."
)
NO_TOKEN: Final = "the Authorization header has no token after its scheme (Bearer or DPoP). The caller's token is empty: check how it gets its token."
NOTHING_GIVEN: Final = "no token was given: it is empty, or neither text nor bytes. Check where your code reads it from: the message may have none."
WHOLE_HEADER: Final = (
    "a whole header was given, with its scheme. Give only the token: what stands after `Bearer ` in the header."
)
NOT_A_TOKEN: Final = (
    "the Authorization header does not hold exactly one token after its scheme (Bearer or DPoP) and a space. Send the token as it is, without quotes, "
    "commas or spaces."
)


SMALLER: Final = (
    "Switch off “Full scope allowed” of the client that got it, or remove roles and claims from its client scopes."
)
_CERTIFICATE_BOUND: Final = "certificate bound access tokens (tls.client.certificate.bound.access.tokens)"
_TAKE_CERTIFICATES: Final = "Or accept it here, if this service sees the certificates of its callers: ServiceAuthMiddleware(client_certificate=...)."
_SEND_BOUND: Final = "Send it as `Authorization: DPoP <token>`, with a proof for this request in the header DPoP: a caller with this package does so."
_REQUEST_BOUND: Final = "The caller must request a bound token and send a proof with it: KEYCLOAK_DPOP=true, or dpop=True, in a caller with this package."
NO_PROOF: Final = (
    "the request has a bound token (scheme DPoP), but no header DPoP. Look for a proxy that removes the header. A caller without this package must send "
    "a proof of its own with each request."
)
UNPROVABLE: Final = (
    "the token is bound to a key, and authenticate got header pairs only. Pass the Starlette request, because a proof names the method and the "
    "URL. In messages and in gRPC, bearer tokens are accepted."
)
NO_CERTIFICATE: Final = (
    "the token is bound to a client certificate, and the request came without one. The caller must use the certificate with which it got the "
    "token: KEYCLOAK_CLIENT_CERT_FILE in a caller with this package. The server or the proxy that ends TLS must ask for it."
)
NO_TLS_EXTENSION: Final = (
    'the token is bound to a client certificate, and the server hands none on: its scope has no ASGI TLS extension, which client_certificate="tls" '
    "needs. uvicorn and hypercorn have none. Let a proxy end TLS, and name its header: client_certificate=CertificateHeader(...)."
)
UNVERIFIED_CERTIFICATE: Final = (
    "the token is bound to a client certificate, and the server did not accept that of the request."
)
WITHOUT_REQUEST: Final = (
    "the token is bound to a client certificate, and no request was given that has one. Give authenticate the request of Starlette. In messages and "
    "in gRPC, bearer tokens are accepted."
)
ADDRESS_REWRITTEN: Final = (
    'the header with the client certificate does not count: the address of the connection (scope["client"]) also stands in X-Forwarded-For or '
    "Forwarded, or cannot be compared with them (it is no address, or they have more than 100). So the server may have taken it from there. Start "
    "uvicorn with --no-proxy-headers, or let the proxy send neither header."
)
PROOF_USED: Final = (
    "the proof in the DPoP header was used before. Each request needs a new one. If nobody copied it, look for a client or a proxy that sends a "
    "request again as it was."
)
STORE_UNCLEAR: Final = (
    "first_use of the replay store returned neither True nor False, so nobody knows whether the proof is new. It is an async function "
    "that returns a bool."
)
CLOCKS: Final = "Compare the clocks of this host and of Keycloak (NTP)."


def credentials_cure(public: str = "", dpop: str = "") -> str:
    """Return what to change if a request has no bearer token. ``public`` says what `public_paths` has to do with it.

    ``dpop`` says whether bound tokens are accepted: beside bearer tokens, or alone (required).
    """
    header = {"accepted": "Bearer <token>` or `Authorization: DPoP <token>", "required": "DPoP <token>"}.get(dpop)
    return (
        f"no `Authorization: {header or 'Bearer <token>'}` header (other schemes and tokens in the URL do not count). "
        "A service sends one if it calls with service_client(...). "
        + (public or "If this route is a probe or a webhook, add it to public_paths.")
    )


def size_cure(size: int, most: int) -> str:
    """Return what to change if a token is too long. Nothing else of the token was read."""
    return f"the token has {size} bytes, more than the {most} that are read. {SMALLER}"


def unreadable(payload: bytes, error: Exception) -> tuple[str, str]:
    """Return what to change if the signature is valid but the payload cannot be read in exactly one way, and the client that got the token.

    The client is empty if the payload does not show it. ``error`` is what the reader of JSON says.
    """
    if isinstance(error, DuplicateMembersError):
        try:
            path, claims = doubled(payload)
        except ValueError:  # what follows the second member is not JSON
            path, claims = "", {}
        if path:
            client = claims.get("azp")
            said = f"in the {token_of(claims)} " if "azp" in claims else ""
            return (
                f"its signature holds, but {said}the claim {named(path)} stands twice. A mapper of {_client_of(claims)} or of its scopes "
                "writes into it: give the mapper another claim name, or switch “Multivalued” on."
            ), shown(client) if isinstance(client, str) else ""
    found = f"has {error}" if isinstance(error, AmbiguousJsonError) else "is not one JSON object in UTF-8"
    return (
        f"its signature holds, but its payload {found}. Look for a mapper of its client, or of the client's scopes, that writes JSON.",
        "",
    )


def unsigned_cure(reason: Reason, *, issuer: str, jwks: str, published: str = "") -> str:
    """Return what to look at if nothing in the token can be trusted. The sentence uses only the settings and the published keys.

    ``published`` says why the key of that name is published but was not used.
    """
    if reason is Reason.UNKNOWN_KEY and published:
        return f"the key of that kid at {jwks} cannot verify the token: {published}"
    if reason is Reason.UNKNOWN_KEY:
        return (
            f"no key of that kid at {jwks}. Is the token from another realm or another Keycloak than {issuer}, or are KEYCLOAK_REALM "
            "or KEYCLOAK_URL wrong here? If the realm's keys were replaced, callers need new tokens."
        )
    if reason is Reason.INVALID_SIGNATURE:
        return f"the key of that kid at {jwks} did not sign the token. It was changed on its way, or forged."
    if reason is Reason.ALGORITHM_NOT_ALLOWED:
        return (
            "the token is not signed with an asymmetric algorithm. Send the access token, not the refresh token. If it is the access "
            "token, choose RS256 as “Access token signature algorithm” (access.token.signed.response.alg) of the client that got it."
        )
    if reason is Reason.MALFORMED_TOKEN:
        return "what was sent is not one well-formed JWS. Send access_token of Keycloak's answer, unchanged."
    if reason is Reason.UNSUPPORTED_HEADER:
        return "the token's header is not that of a Keycloak access token: `typ` is another, or it has a member such as crit, jku or jwk. Send access_token of Keycloak's answer, unchanged."
    return ""


def shown(value: object) -> str:
    """Return a claim's value for a log: bounded, on one line, with nothing a terminal would act on."""
    text = value if isinstance(value, str) else repr(value)
    return printable(text, _LONGEST)


def token_of(claims: Mapping[str, Any]) -> str:
    """Return the start of a sentence about a token with a valid signature, if the sentence need not name the client."""
    client = claims.get("azp")
    if isinstance(client, str) and client:
        return f"token of {named(client)}"
    return "token with a malformed azp" if "azp" in claims else "token without azp"


def _client_of(claims: Mapping[str, Any]) -> str:
    client = claims.get("azp")
    return f"the client {named(client)}" if isinstance(client, str) and client else "the client that got it"


_MAPPER_TYPES: Final[Mapping[type, str]] = {str: "String", int: "long", float: "JSON", bool: "boolean"}
"""What “Claim JSON Type” of a mapper is called for a value."""


def _each(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


def _nested(claims: Mapping[str, Any], path: Iterable[str]) -> bool:
    value: Any = claims
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return True


def _kind_of(value: object) -> str:
    return "None" if value is None else f"an object of the type {type(value).__name__}"


def _said(name: str) -> str:
    """Return the name of a condition, always in double quotes: it is a sentence, not a word."""
    return found if (found := named(name)).startswith('"') else f'"{found}"'


def _value(claim: object) -> str:
    return named(claim) if isinstance(claim, str) else shown(claim)


def _by_role(principal: Principal, who: str, wanted: list[str]) -> str:
    """Say what else can keep an audience out: a scope that Keycloak leaves out, and the three conditions of Audience Resolve."""
    dropped = f"Keycloak leaves out a scope with role mappings if the service account of {who} has none of those roles."
    held = [name for name in wanted if principal.client_roles.get(name)]
    if held:
        return (
            f"{dropped} Or let a role bring the audience: {who} has roles of {_or(held)}, so assign the client scope roles to {who}, or "
            "another scope with an Audience Resolve mapper."
        )
    clients = [name for name in wanted if "://" not in name]
    if not clients:
        return dropped
    return (
        f"{dropped} Or let a role bring the audience (Audience Resolve): give that service account a role of {_or(clients)}, add the role "
        f"to the scope of {who}, and assign the client scope roles to {who}."
    )


def _dedicated(who: str) -> str:
    return f"(Clients, {who}, Client scopes, {who}-dedicated, Scope)"


def _not_lightweight(who: str) -> str:
    return f"switch off “Always use lightweight access token” (client.use.lightweight.access.token.enabled) of client {who}"


def _bare(principal: Principal) -> bool:
    """Return whether this looks like a lightweight token of a Keycloak that does not mark them: a service's token without any mapper's claim."""
    mapped = {"client_id", "sid", "realm_access", "resource_access"}
    return not _mark(principal, "kind") and not principal.audiences and mapped.isdisjoint(principal.claims)


def _mark(principal: Principal, part: str) -> str:
    found = _MARK.match(principal.token_id)
    return found[part] if found else ""


def _address(issuer: str) -> tuple[str, str, str]:
    """Return the origin, the path of the server and the realm that an issuer names."""
    server, _, realm = issuer.rpartition("/realms/")
    try:
        parts = urlsplit(server)
    except ValueError:
        return issuer, "", ""
    return f"{parts.scheme}://{parts.netloc}", parts.path, realm


def _or(names: Iterable[str]) -> str:
    return listed(names, " or ")
