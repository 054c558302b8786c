"""A guarded app as whoever attacks it sees it, and all that a refusal must and must not show."""

import asyncio
import json
import logging
from base64 import urlsafe_b64decode
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI

from s2s_fastapi import Principal, ServiceAuthMiddleware, require_service
from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.keycloak.cures import (
    NO_TOKEN,
    NOT_A_TOKEN,
    TOKEN_IN_URL,
    TWO_HEADERS,
    credentials_cure,
    size_cure,
    unsigned_cure,
)
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.telemetry import DecisionLog
from s2s_fastapi.verifier.jws import MAX_TOKEN_BYTES
from s2s_fastapi.verifier.keys import KeySource
from tests.kit.missing import MISSING
from tests.kit.realm import Clock, Realm, SigningKey, b64, settings

REALM = 'Bearer realm="crm-api-gateway"'
INVALID_TOKEN = f'{REALM}, error="invalid_token"'
INSUFFICIENT = f'{REALM}, error="insufficient_scope"'
UNTRUSTED = (401, INVALID_TOKEN, "The access token was not accepted.")

ANSWERS: dict[Reason, tuple[int, str | None, str]] = {
    Reason.NO_CREDENTIALS: (401, REALM, "This service needs a bearer access token."),
    Reason.INVALID_REQUEST: (
        400,
        f'{REALM}, error="invalid_request"',
        "The credentials of the request are malformed or given more than once.",
    ),
    Reason.MALFORMED_TOKEN: UNTRUSTED,
    Reason.UNSUPPORTED_HEADER: UNTRUSTED,
    Reason.ALGORITHM_NOT_ALLOWED: UNTRUSTED,
    Reason.UNKNOWN_KEY: UNTRUSTED,
    Reason.INVALID_SIGNATURE: UNTRUSTED,
    Reason.MALFORMED_CLAIMS: (401, INVALID_TOKEN, "A claim of the access token is missing or malformed."),
    Reason.WRONG_ISSUER: (401, INVALID_TOKEN, "The access token is from another issuer."),
    Reason.WRONG_TYPE: (401, INVALID_TOKEN, "The token is not an access token."),
    Reason.SENDER_CONSTRAINED: (
        401,
        INVALID_TOKEN,
        "The access token is bound to a key or a client certificate, and this service does not accept it as it was sent.",
    ),
    Reason.EXPIRED: (
        401,
        f'{INVALID_TOKEN}, error_description="The access token expired."',
        "The access token expired.",
    ),
    Reason.NOT_YET_VALID: (401, INVALID_TOKEN, "The access token is not valid yet."),
    Reason.LIFETIME_TOO_LONG: (401, INVALID_TOKEN, "The access token lives too long."),
    Reason.REVOKED: (401, INVALID_TOKEN, "The access token was revoked."),
    Reason.WRONG_AUDIENCE: (401, INVALID_TOKEN, "The access token is not for this service."),
    Reason.AUDIENCE_NOT_ONLY: (401, INVALID_TOKEN, "The access token is for other services too."),
    Reason.NOT_A_SERVICE: (403, INSUFFICIENT, "Only services may call this."),
    Reason.UNKNOWN_KIND: (
        403,
        INSUFFICIENT,
        "The access token does not say whether a service or a user is calling.",
    ),
    Reason.CALLER_NOT_ALLOWED: (403, INSUFFICIENT, "This caller may not call this."),
    Reason.ROLE_MISSING: (403, INSUFFICIENT, "The access token lacks a role."),
    Reason.KEYS_UNAVAILABLE: (503, None, "The service cannot check tokens at the moment."),
}

MALFORMED = (Reason.MALFORMED_TOKEN, Reason.MALFORMED_CLAIMS)
"""Why a header and why a payload is refused that is no JSON object: a payload is read only if the signature held."""
UNVERIFIED = frozenset(reason for reason, answer in ANSWERS.items() if answer == UNTRUSTED)
"""Found before the signature held, or without believing it: all of them look the same from outside."""


class Observed:
    """Keeps every decision, and what the log would have written of it."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.lines: list[str] = []
        logger = logging.Logger("attacked")  # noqa: LOG001 - its own, which nobody else can find and silence
        logger.addHandler(_Lines(self.lines))
        self._log = DecisionLog(logger)

    def decided(self, decision: Decision) -> None:
        self.decisions.append(decision)
        self._log.decided(decision)


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


# The kids are fixed, because ids of tests are made of them, and parallel workers must collect the same ids.
KEYS = {
    name: SigningKey(name, kid=f"a-key-for-{name}") for name in ("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA")
}
"""Keys of the realm, made once."""

FORGER = {name: SigningKey(name) for name in ("RS256", "ES256")}
"""Keys of whoever attacks it."""


async def whoami(caller: Annotated[Principal, Depends(require_service())]) -> dict[str, str]:
    return {"client_id": caller.client_id}


class Stack:
    """A FastAPI app behind the middleware, over a realm whose every request is recorded.

    ``clock`` is the time of day, ``monotonic`` moves the keys: both stand still, so that nothing is fetched but for a reason.
    """

    def __init__(self, realm: Realm | None = None, *, app: FastAPI | None = None, **options: Any) -> None:
        self.realm = realm or Realm()
        self.observed = Observed()
        self.monotonic = Clock(1000.0)
        self.app = app or FastAPI(openapi_url=None)
        self.app.get("/x")(whoami)
        name = self.realm.issuer.rpartition("/")[2]
        options = {"settings": settings(realm=name), "clock": _now, **options}
        self.guarded = ServiceAuthMiddleware(
            self.app, transport=self.realm.transport, observer=self.observed, warm_up=False, **options
        )
        assert self.send().status_code == 401  # starts the app, and asks Keycloak nothing
        assert self.realm.requests == []
        channel = BackChannel(transport=self.realm.transport, timeout=3.0)
        self.checked.verifier.keys = KeySource(Endpoints.of(options["settings"]), channel, clock=self.monotonic)

    @property
    def checked(self) -> Any:
        return self.guarded._start.checked

    @property
    def _one_fetch(self) -> list[str]:
        page = f"/realms/{self.realm.issuer.rpartition('/')[2]}"
        return [f"{page}/protocol/openid-connect/certs", page]

    def send(
        self,
        *values: str | bytes,
        method: str = "GET",
        path: str = "/x",
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> httpx.Response:
        """Return the answer to a request with these Authorization headers; an exception of the app is raised here."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.guarded, raise_app_exceptions=True)
            async with httpx.AsyncClient(transport=transport, base_url="http://crm.test") as client:
                given = [(b"authorization", _raw(value)) for value in values]
                return await client.request(method, path, headers=[*given, *headers])

        return asyncio.run(ask())

    def bearer(self, token: str | bytes, **request: Any) -> httpx.Response:
        return self.send(b"Bearer " + _raw(token), **request)

    def accepts(self, token: str, client_id: str = "chat-app-service") -> None:
        response = self.bearer(token)
        assert (response.status_code, response.json()) == (200, {"client_id": client_id})

    def holds(
        self,
        good: str,
        broken: str | bytes,
        reason: Reason,
        *,
        outbound: int = 0,
        path: str = "/x",
    ) -> Decision:
        """Prove that ``broken`` is refused for ``reason`` between two requests in which ``good`` is let in."""
        self.accepts(good)
        if outbound:
            self.monotonic.advance(5)  # the one question about an unknown key may be asked at once
        decision = self.refuses(broken, reason, outbound=outbound, path=path)
        self.accepts(good)
        return decision

    def refuses(self, token: str | bytes, reason: Reason, *, outbound: int = 0, path: str = "/x") -> Decision:
        """Prove that a token is refused for ``reason``: the answer, the one decision, the log, and what was fetched."""
        asked, told, written = len(self.realm.requests), len(self.observed.decisions), len(self.observed.lines)

        response = self.bearer(token, path=path)

        decisions, lines = self.observed.decisions[told:], self.observed.lines[written:]
        assert [decision.reason for decision in decisions] == [reason]
        self.shows_nothing(response, reason)
        assert self.realm.requests[asked:] == self._one_fetch * outbound
        self._tells_nothing(decisions[0], lines, token)
        return decisions[0]

    def shows_nothing(self, response: httpx.Response, reason: Reason) -> None:
        """Prove that an answer is the one fixed answer for its reason, so that it repeats nothing of anybody."""
        status, challenge, detail = ANSWERS[reason]
        body = json.dumps({"detail": detail}, separators=(",", ":"))
        assert response.status_code == status
        assert response.headers.get("WWW-Authenticate") == challenge
        assert response.text == body
        assert set(response.headers) <= {"content-type", "content-length", "www-authenticate", "retry-after"}
        assert ("retry-after" in response.headers) == (status == 503)

    def _tells_nothing(self, decision: Decision, lines: list[str], token: str | bytes) -> None:
        raw = _raw(token).decode("latin-1")
        for line in lines:
            assert line.isprintable()
            assert all(len(part) < 20 or part not in line for part in raw.split("."))
        if decision.reason in UNVERIFIED | {Reason.INVALID_REQUEST, Reason.NO_CREDENTIALS}:
            assert (decision.client_id, decision.token_id, decision.issuer, decision.kid) == ("",) * 4
            verifier = self.checked.verifier
            published = verifier.keys.published(_kid_of(raw)) if decision.reason is Reason.UNKNOWN_KEY else ""
            of_settings = unsigned_cure(
                decision.reason, issuer=verifier.checks.issuer, jwks=verifier.keys.url, published=published
            )
            of_size = size_cure(len(raw), MAX_TOKEN_BYTES) if decision.cure.startswith("the token has ") else ""
            assert bool(of_size) <= (len(raw) > MAX_TOKEN_BYTES)
            # Whatever it says.
            if decision.reason is Reason.INVALID_REQUEST:
                assert decision.cure in {of_size, TWO_HEADERS, TOKEN_IN_URL, NO_TOKEN, NOT_A_TOKEN} - {""}
            else:
                of_none = credentials_cure() if decision.reason is Reason.NO_CREDENTIALS else ""
                assert decision.cure == (of_size or of_none or of_settings)
            assert len(decision.unverified_kid) <= 64


def _kid_of(token: str) -> str:
    header = token.partition(".")[0]
    return str(json.loads(urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"])


def stack(*names: str, **options: Any) -> Stack:
    """Return a guarded app over a realm that signs with the first key and publishes all of them."""
    realm = Realm(key=KEYS[(names or ("RS256",))[0]])
    realm.published = [KEYS[name].jwk for name in names or ("RS256",)]
    return Stack(realm, **options)


def signed(head: dict[str, Any], payload: dict[str, Any] | bytes, sign: Callable[[bytes], bytes]) -> str:
    """Return a token of any header, payload and signature; a header member that is None is left out."""
    head = {name: value for name, value in {"typ": "JWT", **head}.items() if value is not None}
    signing_input = f"{b64(head)}.{b64(payload)}"
    return f"{signing_input}.{b64(sign(signing_input.encode()))}"


def under(attacked: Stack, header: str | bytes, payload: str | bytes) -> str:
    """Return a token of exactly this header and payload, truly signed."""
    signing_input = f"{b64(header)}.{b64(payload)}"
    return f"{signing_input}.{attacked.realm.key.sign(signing_input)}"


def head(attacked: Stack) -> dict[str, Any]:
    return {"alg": "RS256", "typ": "JWT", "kid": attacked.realm.key.kid}


def broken(attacked: Stack, **changes: Any) -> str:
    """Return a truly signed token with some claims changed; None stays null, MISSING leaves a claim out."""
    made = {**claims(attacked.realm), **changes}
    return attacked.realm.sign({name: value for name, value in made.items() if value is not MISSING})


def _now() -> float:
    return NOW()


NOW = Clock()
"""The time of day of every stack that is not given a clock of its own; nothing moves it."""


def claims(realm: Realm, **changes: Any) -> dict[str, Any]:
    """Return the claims of a service's token at the stack's time of day; a change to None leaves a claim out."""
    now = int(NOW())
    return realm.claims(**{"iat": now, "exp": now + 300, **changes})


def token(realm: Realm, **changes: Any) -> str:
    return realm.sign(claims(realm, **changes))


def _raw(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")


Break = Callable[[str, str, str], str]
"""From the three parts of a good token to a broken one."""
