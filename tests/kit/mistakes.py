"""The commonest mistakes, each with what the operator reads and the step that mends it."""

import time
import uuid

from s2s_fastapi.decision import Reason
from tests.kit.console import CALLER, FRONT_END, REALM_ROLE, RECEIVER, ROLE, SCOPE, Console
from tests.kit.diagnosis import Mistake, Step, both, without_role
from tests.kit.realm import SigningKey, b64

LIGHTWEIGHT = "client.use.lightweight.access.token.enabled"


def _no_audience_scope(console: Console) -> None:
    console.unassign(CALLER, "crm-audience")


def _audience_scope(console: Console) -> None:
    console.assign(CALLER, "crm-audience")


def _optional(console: Console) -> None:
    console.unassign(CALLER, "crm-audience")
    console.assign(CALLER, "crm-audience", optional=True)


def _to_the_receiver(console: Console) -> None:
    console.unassign(CALLER, "crm-audience")
    console.assign(RECEIVER, "crm-audience")


def _dropped(console: Console) -> None:
    console.map_role("crm-audience")
    console.give_role(on=False)


def _by_role_without_roles_scope(console: Console) -> None:
    console.unassign(CALLER, "crm-audience")
    console.unassign(CALLER, "roles")


def _by_role_without_full_scope(console: Console) -> None:
    console.unassign(CALLER, "crm-audience")
    console.client(CALLER, fullScopeAllowed=False)


def _algorithm(name: str) -> Step:
    return lambda console: console.client(CALLER, attributes={"access.token.signed.response.alg": name})


def _lightweight(console: Console) -> None:
    console.client(CALLER, attributes={LIGHTWEIGHT: "true"})


def _not_lightweight(console: Console) -> None:
    console.client(CALLER, attributes={LIGHTWEIGHT: "false"})


def _use_refresh(value: str) -> Step:
    return lambda console: console.client(CALLER, attributes={"client_credentials.use_refresh_token": value})


def _with_dpop(console: Console) -> str:
    """Return a token that is bound to a key of the caller's (RFC 9449 section 5)."""
    key = SigningKey("ES256")
    url = f"{console.settings().issuer}/protocol/openid-connect/token"
    head = {"alg": "ES256", "typ": "dpop+jwt", "jwk": key.private.as_dict(private=False)}
    proof = {"jti": str(uuid.uuid4()), "htm": "POST", "htu": url, "iat": int(time.time())}
    signing_input = f"{b64(head)}.{b64(proof)}"
    return str(console.service(DPoP=f"{signing_input}.{key.sign(signing_input)}")["access_token"])


_STEPS = (
    f"expected {RECEIVER}. Keycloak needs, of the steps A to D in the README: (B) a client {RECEIVER}, ",
    f"(C) a client scope with an Audience mapper for {RECEIVER}, (D) that scope assigned to {CALLER}, as Default",
)
MISTAKES = [
    Mistake(
        "the audience scope is not assigned",
        Reason.WRONG_AUDIENCE,
        (f"token of {CALLER} has no aud", *_STEPS),
        # The role would bring the audience by itself: in the plain case there is none.
        both(without_role, _no_audience_scope),
        _audience_scope,
    ),
    Mistake(
        "the audience scope is optional and was not asked for",
        Reason.WRONG_AUDIENCE,
        (f"token of {CALLER} has no aud", *_STEPS, f"or as Optional if {CALLER} requests it (scope=...)"),
        both(without_role, _optional),
        send_instead=lambda console: str(console.service("crm-audience")["access_token"]),
    ),
    Mistake(
        "the audience scope is assigned to the receiver",
        Reason.WRONG_AUDIENCE,
        (f"token of {CALLER} has no aud", *_STEPS),
        both(without_role, _to_the_receiver),
        _audience_scope,
    ),
    Mistake(
        "the audience scope dropped out: it has role mappings, and the account has none of the roles",
        Reason.WRONG_AUDIENCE,
        (
            f"token of {CALLER} has no aud, expected {RECEIVER}",
            f"Keycloak leaves out a scope with role mappings if the service account of {CALLER} has none of those roles",
        ),
        _dropped,
        lambda console: console.give_role(),
    ),
    Mistake(
        "the audience should come by role, and the client scope roles is not assigned",
        Reason.WRONG_AUDIENCE,
        (
            f"token of {CALLER} has no aud",
            "let a role bring the audience (Audience Resolve): give that service account a role of crm-api-gateway",
            f"and assign the client scope roles to {CALLER}",
        ),
        _by_role_without_roles_scope,
        lambda console: console.assign(CALLER, "roles"),
    ),
    Mistake(
        "the audience should come by role, and the role is not in the scope of the client",
        Reason.WRONG_AUDIENCE,
        (
            f"token of {CALLER} has no aud",
            "let a role bring the audience",
            f"add the role to the scope of {CALLER}",
        ),
        _by_role_without_full_scope,
        lambda console: console.client(CALLER, fullScopeAllowed=True),
    ),
    Mistake(
        "the service_account scope is missing after an import with users",
        Reason.UNKNOWN_KIND,
        (
            f"token of {CALLER} has neither client_id nor sid",
            f"Assign the client scope service_account (and basic) to client {CALLER}",
            "a realm imported with a users entry",
        ),
        lambda console: console.unassign(CALLER, "service_account"),
        lambda console: console.assign(CALLER, "service_account"),
        versions=frozenset({"26.7.3"}),
    ),
    Mistake(
        "the tokens are lightweight",
        Reason.WRONG_AUDIENCE,
        (
            f"token of {CALLER} has no aud",
            f"expected {RECEIVER}",
            "t is a lightweight token",
            f"switch off “Always use lightweight access token” ({LIGHTWEIGHT}) of client {CALLER}",
        ),
        _lightweight,
        _not_lightweight,
    ),
    Mistake(
        "the tokens are lightweight, with the audience in them",
        Reason.UNKNOWN_KIND,
        (
            f"token of {CALLER} has neither client_id nor sid",
            "t is a lightweight token",
            f"switch off “Always use lightweight access token” ({LIGHTWEIGHT}) of client {CALLER}",
        ),
        both(lambda console: console.audience_in_lightweight(), _lightweight),
        _not_lightweight,
    ),
    Mistake(
        "refresh tokens are on for client credentials",
        Reason.UNKNOWN_KIND,
        (
            f"token of {CALLER} has both client_id and sid",
            "Switch off “Use refresh tokens for client credentials grant” (client_credentials.use_refresh_token)",
        ),
        _use_refresh("true"),
        _use_refresh("false"),
    ),
    Mistake(
        "a mapper writes sid",
        Reason.UNKNOWN_KIND,
        (f"token of {CALLER} has both client_id and sid", "If it is off, remove the mapper that writes sid"),
        lambda console: console.hardcode("sid", "a-session"),
        lambda console: console.remove_mapper("sid"),
    ),
    Mistake(
        "a mapper writes a text where a date belongs",
        Reason.MALFORMED_CLAIMS,
        ("the claim nbf is missing or malformed. Remove the mapper that overwrites it",),
        lambda console: console.hardcode("nbf", "soon"),
        lambda console: console.remove_mapper("nbf"),
    ),
    Mistake(
        "the user's token is sent on",
        Reason.NOT_A_SERVICE,
        (
            f"token of {FRONT_END} belongs to a user, expected a service",
            "The calling service must request a token of its own (grant client_credentials), not forward a user's",
            "users=True in ServiceAuthMiddleware(...) and write require_user() on the route",
        ),
        send=lambda console: str(console.user()["access_token"]),
    ),
    Mistake(
        "a user's token without the audience is sent on",
        Reason.WRONG_AUDIENCE,
        (
            f"token of {FRONT_END} has no aud, expected {RECEIVER}. It is a user's token",
            "must exchange it (on_behalf), or request a token of its own (grant client_credentials)",
        ),
        lambda console: console.unassign(FRONT_END, "crm-audience"),
        send=lambda console: str(console.user()["access_token"]),
    ),
    Mistake(
        "the ID token is sent",
        Reason.WRONG_TYPE,
        (f"token of {CALLER} has typ ID, expected Bearer. Send access_token of Keycloak's answer, not id_token",),
        send=lambda console: str(console.service("openid")["id_token"]),
        send_instead=lambda console: str(console.service("openid")["access_token"]),
    ),
    Mistake(
        "the refresh token is sent",
        Reason.ALGORITHM_NOT_ALLOWED,
        ("not signed with an asymmetric algorithm. Send the access token, not the refresh token",),
        send=lambda console: str(console.user()["refresh_token"]),
    ),
    Mistake(
        "the client signs with HS512",
        Reason.ALGORITHM_NOT_ALLOWED,
        (
            "not signed with an asymmetric algorithm",
            "choose RS256 as “Access token signature algorithm” (access.token.signed.response.alg)",
        ),
        _algorithm("HS512"),
        _algorithm("RS256"),
    ),
    Mistake(
        "the tokens live longer than a day",
        Reason.LIFETIME_TOO_LONG,
        (
            f"token of {CALLER} lives 25.0 h, longer than 24 h",
            "Shorten “Access Token Lifespan” of the client (Advanced) or the realm (Realm settings, Tokens)",
        ),
        lambda console: console.lifespan(25 * 3600),
        lambda console: console.lifespan(300),
    ),
    Mistake(
        "the scope is not assigned",
        Reason.SCOPE_MISSING,
        (f"token of {CALLER} lacks scope {SCOPE}. Assign the client scope {SCOPE} to {CALLER}",),
        lambda console: console.unassign(CALLER, SCOPE),
        lambda console: console.assign(CALLER, SCOPE),
        to=("POST", "/tickets"),
    ),
    Mistake(
        "the scope is assigned and not included in the token",
        Reason.SCOPE_MISSING,
        (f"token of {CALLER} lacks scope {SCOPE}", "switch on “Include in token scope”"),
        lambda console: console.scope_attribute(SCOPE, "include.in.token.scope", "false"),
        lambda console: console.scope_attribute(SCOPE, "include.in.token.scope", "true"),
        to=("POST", "/tickets"),
    ),
    Mistake(
        "the scope dropped out: it has role mappings, and the account has none of the roles",
        Reason.SCOPE_MISSING,
        (
            f"token of {CALLER} lacks scope {SCOPE}",
            "leaves out a scope with role mappings if the account has none of those roles",
        ),
        both(lambda console: console.map_role(SCOPE), without_role),
        lambda console: console.give_role(),
        to=("POST", "/tickets"),
    ),
    Mistake(
        "the role is not on the service account",
        Reason.ROLE_MISSING,
        (
            f"token of {CALLER} lacks role of client {RECEIVER}: {ROLE}",
            f"Give it to the service account of {CALLER}",
        ),
        lambda console: console.give_role(on=False),
        lambda console: console.give_role(),
        to=("DELETE", "/tickets"),
    ),
    Mistake(
        "the role is on the account and the client scope roles is not assigned",
        Reason.ROLE_MISSING,
        (f"lacks role of client {RECEIVER}: {ROLE}", f"check that the client scope roles is assigned to {CALLER}"),
        lambda console: console.unassign(CALLER, "roles"),
        lambda console: console.assign(CALLER, "roles"),
        to=("DELETE", "/tickets"),
    ),
    Mistake(
        "the role is on the account and not in the scope of the client",
        Reason.ROLE_MISSING,
        (
            f"lacks role of client {RECEIVER}: {ROLE}",
            f"If “Full scope allowed” is off for {CALLER}, add the role to its scope",
        ),
        lambda console: console.client(CALLER, fullScopeAllowed=False),
        lambda console: console.client(CALLER, fullScopeAllowed=True),
        to=("DELETE", "/tickets"),
    ),
    Mistake(
        "the realm role is not on the service account",
        Reason.ROLE_MISSING,
        (f"token of {CALLER} lacks realm role {REALM_ROLE}. Give it to the service account of {CALLER}",),
        lambda console: console.give_realm_role(on=False),
        lambda console: console.give_realm_role(),
        to=("GET", "/audit"),
    ),
    Mistake(
        "the token is for account as well, by its default roles",
        Reason.AUDIENCE_NOT_ONLY,
        (f"token of {CALLER} is also for account", f"switch off “Full scope allowed” of the client {CALLER}"),
        lambda console: console.give_default_roles(),
        lambda console: console.client(CALLER, fullScopeAllowed=False),
        to=("GET", "/only"),
    ),
    Mistake(
        "the tokens were revoked",
        Reason.REVOKED,
        (
            f"token of {CALLER} was issued before the realm's not-before (Sessions, Revocation). Callers must request a new one",
        ),
        afterwards=lambda console: console.revoke(),
    ),
    Mistake(
        "the receiver's clock is behind",
        Reason.NOT_YET_VALID,
        (f"token of {CALLER} has iat ", " s in the future. Compare the clocks of this host and of Keycloak (NTP)"),
        clock=lambda: time.time() - 90,
    ),
    Mistake(
        "the caller keeps its token too long, or the receiver's clock is ahead",
        Reason.EXPIRED,
        (
            f"token of {CALLER} expired ",
            "Callers must request a new one before expires_in is over. If they do, compare the clocks",
        ),
        clock=lambda: time.time() + 400,
    ),
    Mistake(
        "the token is from another realm, or KEYCLOAK_REALM is wrong",
        Reason.UNKNOWN_KEY,
        (
            "no key of that kid at {server}/realms/techstore/protocol/openid-connect/certs. Is the token from another realm",
            "or are KEYCLOAK_REALM or KEYCLOAK_URL wrong here?",
        ),
        settings=lambda console: {"realm": "techstore"},
    ),
    Mistake(
        "KEYCLOAK_REALM names no realm",
        Reason.KEYS_UNAVAILABLE,
        (
            "{server}/realms/corpp/protocol/openid-connect/certs: Keycloak answers 404. Set KEYCLOAK_REALM to the realm's name",
            "there is no realm corpp on {server}",
        ),
        settings=lambda console: {"realm": "corpp"},
    ),
    Mistake(
        "KEYCLOAK_AUTH_PATH is set and the server runs at the root",
        Reason.KEYS_UNAVAILABLE,
        ("Keycloak answers 404. The server does not run under /auth: correct KEYCLOAK_AUTH_PATH",),
        settings=lambda console: {"auth_path": "/auth"},
    ),
    Mistake(
        "tokens name another address than the receiver expects",
        Reason.WRONG_ISSUER,
        (
            f"token of {CALLER} was issued by {{issuer}}, expected http://sso.corp.example/realms/{{realm}}",
            "Set KEYCLOAK_PUBLIC_URL (or KEYCLOAK_ISSUER) to the address that Keycloak writes into tokens",
            "or give Keycloak a fixed hostname (KC_HOSTNAME)",
        ),
        settings=lambda console: {"public_url": "http://sso.corp.example"},
    ),
    Mistake(
        "KEYCLOAK_ISSUER has a slash too many",
        Reason.WRONG_ISSUER,
        ("was issued by {issuer}, expected {issuer}/. The slash at the end counts: set KEYCLOAK_ISSUER",),
        settings=lambda console: {"issuer": f"{console.settings().issuer}/"},
    ),
    Mistake(
        "the token is bound by DPoP",
        Reason.SENDER_CONSTRAINED,
        (
            f"token of {CALLER} is bound to a key, but was sent as a bearer token",
            f"Switch off DPoP bound tokens (dpop.bound.access.tokens) for the client {CALLER}, and request its token without a DPoP proof",
        ),
        lambda console: console.client(CALLER, attributes={"dpop.bound.access.tokens": "true"}),
        lambda console: console.client(CALLER, attributes={"dpop.bound.access.tokens": "false"}),
        send=_with_dpop,
        versions=frozenset({"26.7.3"}),
        on_paper=False,
    ),
]
UNDER_AUTH = [
    Mistake(
        "KEYCLOAK_AUTH_PATH is missing",
        Reason.KEYS_UNAVAILABLE,
        ("Keycloak answers 404. Set KEYCLOAK_AUTH_PATH=/auth if the server runs under /auth",),
        settings=lambda console: {"auth_path": ""},
    ),
    Mistake(
        "the path is in KEYCLOAK_URL and not in KEYCLOAK_PUBLIC_URL",
        Reason.WRONG_ISSUER,
        (
            "was issued by {issuer}, expected ",
            "Set KEYCLOAK_AUTH_PATH=/auth, and leave the path out of KEYCLOAK_URL and KEYCLOAK_PUBLIC_URL",
        ),
        settings=lambda console: {
            "url": console.settings().server,
            "public_url": console.settings().issuer.partition("/auth/")[0],
            "auth_path": "",
        },
    ),
    Mistake(
        "KEYCLOAK_PUBLIC_URL is missing or wrong",
        Reason.WRONG_ISSUER,
        ("was issued by {issuer}, expected ", "Set KEYCLOAK_PUBLIC_URL (or KEYCLOAK_ISSUER)"),
        settings=lambda console: {"public_url": "http://localhost:1"},
    ),
]
