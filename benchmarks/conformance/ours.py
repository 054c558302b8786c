"""Our own column: an app for tokens of two realms, and one that accepts bound tokens beside bearer tokens."""

from typing import Annotated, Final

from fastapi import Depends, FastAPI

from benchmarks.conformance.results import Cell
from s2s_fastapi import KeycloakSettings, Principal, ServiceAuthMiddleware, require_caller
from s2s_fastapi.testing.attack import all_cases, attack

__all__ = ["APPS", "bearer", "bound", "run"]


def bearer() -> FastAPI:
    ours = KeycloakSettings(url="https://sso.example.com", realm="corp", client_id="orders-api")
    theirs = KeycloakSettings(url="https://sso.example.org", realm="partner", name="partner", client_id="orders-api")
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, [ours, theirs], public_paths=["/health"])

    @app.get("/health")
    async def health() -> str:
        return "ok"

    @app.get("/orders/{number}")
    async def order(number: str, caller: Annotated[Principal, Depends(require_caller("shop", realm="corp"))]) -> str:
        return number

    return app


def bound() -> FastAPI:
    settings = KeycloakSettings(url="https://sso.example.com", realm="corp", client_id="orders-api")
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, settings, dpop="accepted", public_url="https://orders.example.com")

    @app.get("/orders/{number}")
    async def order(number: str, caller: Annotated[Principal, Depends(require_caller("shop"))]) -> str:
        return number

    return app


APPS: Final = (bearer, bound)


def run() -> dict[str, Cell]:
    """Return the result of every case: those about proofs on the app that accepts bound tokens, all others on the other one."""
    proofs = [case.id for case in all_cases() if case.where == "proofs"]
    reports = (attack(bearer()), attack(bound(), only=proofs))
    return {
        result.case.id: Cell(result.outcome, result.detail)
        for report in reports
        for route in report.routes
        if route.full
        for result in route.results
    }
