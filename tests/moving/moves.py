"""The requests that the program before a move and the program after it both get, and what each of them answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

from s2s_fastapi.testing import EmbeddedIssuer

__all__ = ["MOVES", "Ask", "Move", "headers_of"]


@dataclass(frozen=True)
class Ask:
    """One request: who asks for what, and the status that the program after the move answers."""

    request: str
    caller: str
    after: int
    before: int | None = None
    """The status before the move, if it is another one. The guide explains each of these."""

    def __str__(self) -> str:
        return f"{self.request} as {self.caller}"


@dataclass(frozen=True)
class Move:
    """A program in two forms, below the folder with its name."""

    client_id: str
    callers: Mapping[str, Callable[[EmbeddedIssuer, str], Any]]
    asks: tuple[Ask, ...]


def headers_of(move: Move, ask: Ask, issuer: EmbeddedIssuer) -> dict[str, str]:
    """Return the headers of a request."""
    if ask.caller == "nobody":
        return {}
    headers: dict[str, str] = move.callers[ask.caller](issuer, move.client_id).headers
    return headers


def _user(**options: Any) -> Callable[[EmbeddedIssuer, str], Any]:
    return lambda issuer, client: issuer.as_user("ann", via="shop-ui", **{"audience": client, **options})


def _header(value: str) -> Callable[[EmbeddedIssuer, str], Any]:
    return lambda *_: SimpleNamespace(headers={"Authorization": value})


def _service(name: str, **options: Any) -> Callable[[EmbeddedIssuer, str], Any]:
    return lambda issuer, client: issuer.as_service(name, **{"audience": client, **options})


_ALWAYS: Final[Mapping[str, Callable[[EmbeddedIssuer, str], Any]]] = {
    "user": _user(),
    "scheduler": _service("scheduler"),
    "another service": _service("billing"),
    "a user with a token for another service": _user(audience="another-service"),
    "a user with a forged token": _user(key="forged"),
    "a user with an expired token": _user(expires_in=-60),
    "a token of another realm's issuer": _user(issuer="https://another.example/realms/corp"),
}

MOVES: Final[Mapping[str, Move]] = {
    "keycloak_middleware": Move(
        "orders-api",
        {
            **_ALWAYS,
            "clerk": _user(realm_roles="clerk"),
            "manager": _user(realm_roles="manager"),
            "managing service": _service("scheduler", realm_roles="manager"),
            "a clerk with a token for another service": _user(realm_roles="clerk", audience="another-service"),
            "a clerk with a token of another issuer": _user(
                realm_roles="clerk", issuer="https://another.example/realms/x"
            ),
            "a clerk with a token that expired 90 s ago": _user(realm_roles="clerk", expires_in=-90),
            "a clerk with a token that expired 45 s ago": _user(realm_roles="clerk", expires_in=-45),
            "another managing service": _service("billing", realm_roles="manager"),
            "a clerk with an exchanged token": _user(realm_roles="clerk", claims={"sid": None}),
        },
        (
            Ask("GET /healthz", "nobody", 200),
            Ask("GET /docs", "nobody", 200),
            Ask("GET /me", "nobody", 401),
            Ask("GET /me", "clerk", 200),
            Ask("GET /me", "managing service", 403),
            Ask("GET /orders", "nobody", 401),
            Ask("GET /orders", "clerk", 200),
            Ask("GET /orders", "manager", 200),
            Ask("GET /orders", "managing service", 200),
            Ask("POST /orders", "clerk", 403),
            Ask("POST /orders", "manager", 200),
            Ask("POST /nightly", "manager", 403),
            Ask("POST /nightly", "managing service", 200),
            Ask("GET /me", "a user with a forged token", 401),
            Ask("GET /me", "a clerk with a token that expired 90 s ago", 401),
            Ask("GET /me", "a clerk with a token that expired 45 s ago", 401, before=200),
            Ask("GET /me", "user", 200, before=401),
            Ask("GET /orders", "user", 403, before=401),
            Ask("GET /me", "a clerk with a token for another service", 401, before=200),
            Ask("GET /me", "a clerk with a token of another issuer", 401, before=200),
            Ask("GET /orders", "a clerk with an exchanged token", 403, before=200),
            Ask("POST /nightly", "another managing service", 403, before=200),
        ),
    ),
    "keycloak_guard": Move(
        "orders-api",
        {
            **_ALWAYS,
            "admin": _user(roles="admin"),
            "admin of another client": _user(roles={"another-service": "admin"}),
            "operator": _service("scheduler", roles="operator"),
            "writer": _service("billing", scope="orders:write"),
            "a user called service-account-x": _user(claims={"preferred_username": "service-account-x"}),
        },
        (
            Ask("GET /healthz", "nobody", 200),
            Ask("GET /docs", "nobody", 200),
            Ask("GET /me", "nobody", 401),
            Ask("GET /me", "user", 200),
            Ask("GET /me", "scheduler", 200),
            Ask("GET /admin", "user", 403),
            Ask("GET /admin", "admin", 200),
            Ask("GET /admin", "operator", 200),
            Ask("POST /orders", "writer", 200),
            Ask("POST /orders", "scheduler", 403),
            Ask("POST /nightly", "scheduler", 200),
            Ask("POST /nightly", "user", 403),
            Ask("GET /me", "a user with a forged token", 401),
            Ask("GET /me", "a user with an expired token", 401),
            Ask("GET /me", "a user with a token for another service", 401),
            Ask("GET /me", "a token of another realm's issuer", 401),
            Ask("GET /admin", "admin of another client", 403, before=200),
            Ask("POST /nightly", "a user called service-account-x", 403, before=200),
            Ask("POST /nightly", "another service", 403, before=200),
        ),
    ),
    "pyjwt_dependency": Move(
        "shop-api",
        {
            **_ALWAYS,
            "of acme": _user(claims={"tenant": "acme"}),
            "service of acme": _service("billing", claims={"tenant": "acme"}),
            "of nobody": _user(claims={"tenant": "initech"}),
            "accountant of acme": _user(claims={"tenant": "acme"}, realm_roles="accountant"),
            "accountant of umbrella": _user(claims={"tenant": "umbrella"}, realm_roles="accountant"),
            "of acme, for another service": _user(claims={"tenant": "acme"}, audience="another-service"),
            "of acme, with an ID token": _user(claims={"tenant": "acme", "typ": "ID"}),
            "somebody with a password": _header("Basic YW5uOnNlY3JldA=="),
            "of acme, with an exchanged token": _user(claims={"tenant": "acme", "sid": None}),
        },
        (
            Ask("GET /healthz", "nobody", 200),
            Ask("GET /products", "nobody", 200),
            Ask("GET /products", "user", 200),
            Ask("GET /products", "a user with a forged token", 401),
            Ask("GET /products", "a user with an expired token", 401),
            Ask("GET /invoices", "nobody", 401),
            Ask("GET /invoices", "user", 403),
            Ask("GET /invoices", "of nobody", 403),
            Ask("GET /invoices", "of acme", 200),
            Ask("GET /invoices", "service of acme", 200),
            Ask("DELETE /invoices/acme", "of acme", 403),
            Ask("DELETE /invoices/acme", "accountant of acme", 200),
            Ask("DELETE /invoices/acme", "accountant of umbrella", 403),
            Ask("GET /invoices", "a token of another realm's issuer", 401),
            Ask("GET /invoices", "of acme, for another service", 401, before=200),
            Ask("GET /invoices", "of acme, with an ID token", 401, before=200),
            Ask("GET /products", "somebody with a password", 401, before=200),
            Ask("GET /products", "of acme, with an exchanged token", 403, before=200),
        ),
    ),
}
