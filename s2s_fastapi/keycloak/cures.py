"""The sentences that tell an operator what to change in Keycloak. Both sides say the same thing with the same words.

Each says what was found, what was expected, and the step. What a token says stands in them only after its signature held.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from s2s_fastapi.backchannel.strict_json import AmbiguousJsonError, DuplicateMembersError, doubled
from s2s_fastapi.decision import Reason
from s2s_fastapi.principal import Principal
from s2s_fastapi.text import listed, named, printable

__all__ = [
    "CHANGED_PATH",
    "NEVER_PUBLIC",
    "OTHER_PATH",
    "also_for",
    "audience_cure",
    "audience_steps",
    "binding_cure",
    "credentials_cure",
    "issuer_cure",
    "kind_cure",
    "role_cure",
    "scope_cure",
    "shown",
    "size_cure",
    "token_of",
    "type_cure",
    "unreadable",
    "unsigned_cure",
    "wrong_audience",
]

_LONGEST: Final = 200
_MOST: Final = 20
# How Keycloak marks a jti since 26.2: session, kind of token, grant (``trrtcc:``). Older ones do not; and it is a hint, never a rule.
_MARK: Final = re.compile(r"[a-z]{2}(?P<kind>rt|lt)(?P<grant>[a-z]{2}):")


def audience_cure(principal: Principal, expected: Iterable[str]) -> str:
    """Say what to do about a token that reached a service it is not for.

    A service that called needs the four steps. Where somebody else may have sent the token on, refusing it is the point, and giving
    it the audience would open the door.
    """
    client, wanted = principal.client_id, sorted(expected)
    who, said = named(client), wrong_audience(client, principal.audiences, wanted)
    if principal.kind == "user":
        return (
            f"{said}: it is a user's token; a service that calls for a user must ask for a token of its own (client_credentials), "
            f"and only a front end that calls {_or(wanted)} itself needs an Audience mapper for it"
        )
    if _mark(principal, "kind") == "lt":
        return f"{said}: it is a lightweight token: {_not_lightweight(who)}"
    steps = f"{audience_steps(client, wanted)}; {_by_role(principal, who, wanted)}"
    if _bare(principal):
        said = f"{said}, and neither client_id nor roles"
        steps = f"if it is a lightweight token, {_not_lightweight(who)}; if not, {steps}"
    others = sorted(principal.audiences - {"account"})[:_MOST]
    if not others:
        return f"{said}: {steps}"
    return f"{said}: if {_or(others)} sent it on, it was refused rightly; if {who} itself called, {steps}"


def wrong_audience(client_id: str, granted: Iterable[str], expected: Iterable[str], joined: str = " or ") -> str:
    """Say whom a client's token is for, and whom it should be for: one of ``expected``, or with `` and `` between them all."""
    names = sorted(granted)[:_MOST]
    aud = f"aud [{listed(names)}]" if names else "no aud"
    return f"token of {named(client_id)} has {aud}, expected {listed(expected, joined)}"


def audience_steps(client_id: str, audiences: Iterable[str], joined: str = " or ") -> str:
    """Say the four steps after which Keycloak puts ``audiences`` into a client's token: one of them, or with `` and `` all."""
    who, names = named(client_id), sorted(audiences)
    target = listed(names, joined)
    # A custom audience, a URL, needs no client of that name.
    exists = "no client for a custom audience" if any("://" in name for name in names) else f"a client {target}"
    return (
        f"Keycloak needs (A) the client {who} with service accounts on, (B) {exists}, "
        f"(C) a client scope with an Audience mapper for {target}, "
        f"(D) that scope assigned to {who}, as default, or as optional and asked for"
    )


def also_for(principal: Principal, others: Iterable[str]) -> str:
    """Say what to do about a token that somebody else would accept as well."""
    who, names = named(principal.client_id), sorted(others)
    said = f"token of {who} is also for {listed(names[:_MOST])}, who could send it on: ask for one audience at a time"
    if "account" not in names:
        return said
    return f"{said}; account comes with the default roles: switch Full scope allowed off for the client {who}"


def issuer_cure(principal: Principal, expected: str) -> str:
    """Say what to do about a token of another issuer that a key of this realm has signed."""
    who, found = named(principal.client_id), principal.issuer
    said = f"token of {who} was issued by {named(found)}, expected {expected}"
    if found.rstrip("/") == expected.rstrip("/"):
        return f"{said}: the slash at the end counts, set KEYCLOAK_ISSUER to the issuer as it stands in tokens"
    here, there = _address(expected), _address(found)
    if here[0] == there[0] and here[2] == there[2]:
        path = f"KEYCLOAK_AUTH_PATH={named(there[1])}" if there[1] else "KEYCLOAK_AUTH_PATH to nothing"
        return f"{said}: set {path}, and keep the path out of KEYCLOAK_URL and KEYCLOAK_PUBLIC_URL (KEYCLOAK_ISSUER has it)"
    if here[:2] == there[:2] and unquote(here[2]) == unquote(there[2]):
        return f"{said}: the realm is the same and is written in another way, set KEYCLOAK_ISSUER to the issuer as it stands in tokens"
    if here[:2] == there[:2]:
        return f"{said}: set KEYCLOAK_REALM to the realm's name, letter by letter, and leave KEYCLOAK_ISSUER out"
    # Keycloak without a fixed hostname writes whatever Host header the token request had: the name found need not be its own.
    return (
        f"{said}: set KEYCLOAK_PUBLIC_URL (or KEYCLOAK_ISSUER) to the address Keycloak writes into tokens, or give Keycloak that "
        "fixed hostname (KC_HOSTNAME), so that every caller gets the same issuer"
    )


def type_cure(claims: Mapping[str, Any]) -> str:
    """Say what to do about a token that is no access token."""
    kind = claims.get("typ")
    instead = {"ID": ", not id_token", "Refresh": ", not refresh_token", "Offline": ", not refresh_token"}
    found = f"typ {_value(kind)}" if "typ" in claims else "no typ"
    said = f"{token_of(claims)} has {found}, expected Bearer: send access_token of Keycloak's answer"
    return said + (instead.get(kind, "") if isinstance(kind, str) else "")


def binding_cure(claims: Mapping[str, Any]) -> str:
    """Say what to do about a token that is bound to a key, and so no bearer token (RFC 7800 section 3.1)."""
    who, bound = _client_of(claims), claims.get("cnf")
    said = f"{token_of(claims)} is bound to a key and was sent as a bearer token: switch off"
    if isinstance(bound, dict) and "x5t#S256" in bound:
        return f"{said} certificate bound access tokens (tls.client.certificate.bound.access.tokens) for {who}"
    return f"{said} DPoP bound tokens (dpop.bound.access.tokens) for {who}, and ask for its token without a DPoP proof"


def kind_cure(principal: Principal) -> str:
    """Say why nobody can tell whether a service or a user is calling, and what to change."""
    who, claims = named(principal.client_id), principal.claims
    if "authorization" in claims:
        return (
            f"token of {who} is a UMA ticket of Authorization Services: {who} must ask for a token of its own (client_credentials) that "
            "an audience scope makes one for this service"
        )
    if "client_id" in claims and "sid" in claims:
        return (
            f"token of {who} has both client_id and sid: switch off “Use refresh tokens for client credentials grant” "
            f"(client_credentials.use_refresh_token) of client {who}; if it is off, remove the mapper that writes sid"
        )
    if "client_id" in claims:
        return f"token of {who} has another client_id than azp: a mapper of the realm overwrites one of them, remove it"
    if "sid" in claims:
        return f"token of {who} has a sid that is no text: a mapper of the realm overwrites it, remove it"
    said = f"token of {who} has neither client_id nor sid"
    if _mark(principal, "kind") == "lt":
        return f"{said}: it is a lightweight token: {_not_lightweight(who)}"
    if _mark(principal, "grant") == "te":
        return f"{said}: a token exchange made it; {who} must ask for a token of its own (client_credentials)"
    scope = (
        f"assign the client scope service_account (and basic) to client {who}; a realm imported with a users entry for the service "
        "account leaves it out"
    )
    if _mark(principal, "kind"):
        return f"{said}: {scope}"
    return f"{said}: {scope}; or, if it is a lightweight token, {_not_lightweight(who)}; an exchanged token looks the same and is refused"


def scope_cure(principal: Principal, missing: Iterable[str]) -> str:
    """Say what to do about a token that lacks scopes."""
    who, names = named(principal.client_id), listed(missing, " ")
    return (
        f"token of {who} lacks scope {names}: assign the client scope {names} to {who}, as default, or as optional and asked for, "
        "with “Include in token scope” on (a scope with role mappings is left out if the account has none of the roles)"
    )


def role_cure(principal: Principal, missing: Iterable[str], owner: str = "") -> str:
    """Say what to do about a token that lacks roles of the client ``owner``, or realm roles."""
    who, names = named(principal.client_id), listed(missing)
    whose = f"role of client {named(owner)}:" if owner else "realm role"
    holder = "the user" if principal.kind == "user" else f"the service account of {who}"
    return (
        f"token of {who} lacks {whose} {names}: give it to {holder}, and see that the client scope roles is assigned to {who} and, "
        f"where Full scope allowed is off for {who}, that the role is in its scope (Client scopes, {who}-dedicated, Scope)"
    )


CHANGED_PATH: Final = (
    "this path became another one between ServiceAuthMiddleware and the router, by a middleware or a root_path, and the router's path is "
    "not in public_paths: add that middleware after ServiceAuthMiddleware (what is added last is outermost), or add the router's path too"
)
NEVER_PUBLIC: Final = "but a WebSocket is never public"
OTHER_PATH: Final = (
    "which is not this method and path: both must be equal, letter by letter, with or without the slash at the end"
)


def credentials_cure(reason: Reason, public: str = "") -> str:
    """Say what to look at where a request brought no token that could be read; ``public`` is what `public_paths` has to do with it."""
    if reason is Reason.NO_CREDENTIALS:
        return (
            "no bearer token in the Authorization header (another scheme, or a token in the URL, is none): service_client sends one; "
            + (public or "a probe or a webhook belongs in public_paths")
        )
    return "send one Authorization header with one token, Bearer and a space in front, and none in the URL"


def size_cure(size: int, most: int) -> str:
    """Say what to do about a token that is too long to be read; nothing else of it was looked at."""
    return (
        f"the token has {size} bytes, and at most {most} are read: switch Full scope allowed off for the client that got it, or take "
        "roles and claims out of its client scopes"
    )


def unreadable(payload: bytes, error: Exception) -> tuple[str, str]:
    """Say what to do about a token whose signature holds and whose payload has not exactly one reading, and who got the token, if that can be told.

    ``error`` is what the reader of JSON says.
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
                f"its signature holds, but {said}the claim {named(path)} stands twice: a mapper of "
                f"{_client_of(claims)} or of its scopes writes into it; give it another claim name, or switch Multivalued on"
            ), shown(client) if isinstance(client, str) else ""
    found = f"has {error}" if isinstance(error, AmbiguousJsonError) else "is not one JSON object in UTF-8"
    return (
        f"its signature holds, but its payload {found}: look for a mapper of its client, or of the client's scopes, that writes JSON",
        "",
    )


def unsigned_cure(reason: Reason, *, issuer: str, jwks: str, published: str = "") -> str:
    """Say what an operator can look at where nothing in the token may be believed: made of the settings and the published keys.

    ``published`` says why the key of that name is published and was not used, if it was not.
    """
    if reason is Reason.UNKNOWN_KEY and published:
        return f"the key of that kid at {jwks} cannot verify the token: {published}"
    if reason is Reason.UNKNOWN_KEY:
        return (
            f"no key of that kid at {jwks}: is the token from another realm or another Keycloak than {issuer}, or are KEYCLOAK_REALM "
            "or KEYCLOAK_URL wrong here? If the realm's keys were replaced, callers need new tokens"
        )
    if reason is Reason.INVALID_SIGNATURE:
        return f"the key of that kid at {jwks} has not signed it: the token was changed on its way, or forged"
    if reason is Reason.ALGORITHM_NOT_ALLOWED:
        return (
            "not signed with an asymmetric algorithm: send the access token, not the refresh token; if it is the access token, choose RS256 "
            "as “Access token signature algorithm” (access.token.signed.response.alg) of the client that got it"
        )
    if reason is Reason.MALFORMED_TOKEN:
        return "not one well-formed JWS: send access_token of Keycloak's answer, unchanged"
    if reason is Reason.UNSUPPORTED_HEADER:
        return "its header is none of Keycloak's access tokens: send access_token of Keycloak's answer, unchanged"
    return ""


def shown(value: object) -> str:
    """Return a claim's value for a log: bounded, on one line, with nothing a terminal would act on."""
    text = value if isinstance(value, str) else repr(value)
    return printable(text, _LONGEST)


def token_of(claims: Mapping[str, Any]) -> str:
    """Return how a sentence about a token begins that need not say whose it is; its signature held."""
    client = claims.get("azp")
    if isinstance(client, str) and client:
        return f"token of {named(client)}"
    return "token with a malformed azp" if "azp" in claims else "token without azp"


def _client_of(claims: Mapping[str, Any]) -> str:
    client = claims.get("azp")
    return f"the client {named(client)}" if isinstance(client, str) and client else "the client that got it"


def _value(claim: object) -> str:
    return named(claim) if isinstance(claim, str) else shown(claim)


def _by_role(principal: Principal, who: str, wanted: list[str]) -> str:
    """Say what else can keep an audience out: a scope that drops out, and the three conditions of Audience Resolve."""
    dropped = f"a scope with role mappings is left out if the service account of {who} has none of the roles"
    if any(principal.client_roles.get(name) for name in wanted):
        held = _or(name for name in wanted if principal.client_roles.get(name))
        return f"{dropped}; or, since it has roles of {held}, a scope with an Audience Resolve mapper, as the client scope roles"
    clients = [name for name in wanted if "://" not in name]
    if not clients:
        return dropped
    return f"{dropped}; or, by Audience Resolve, a role of {_or(clients)} on that account, in the scope of {who}, and the client scope roles"


def _not_lightweight(who: str) -> str:
    return f"switch off “Always use lightweight access token” (client.use.lightweight.access.token.enabled) of client {who}"


def _bare(principal: Principal) -> bool:
    """Whether this looks like a lightweight token of a Keycloak that does not mark them: a service's, and nothing of a mapper in it."""
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
