"""Code that uses the package wrongly: each marked line must be an error of mypy, with the code of the mark, and an error of pyright.

Both report a mark without an error, so `make lint` fails if a checker stops seeing one of these mistakes. Nobody runs this file.
"""

import httpx
from starlette.requests import Request

from s2s_fastapi import (
    Principal,
    ServiceTokenAuth,
    TokenVerifier,
    require_audience,
    require_caller,
    require_claim,
    require_role,
    require_scope,
    require_service,
    require_that,
    service_client,
)


async def later(caller: Principal) -> bool:
    return caller.kind == "user"


def names(caller: Principal) -> None:
    require_caller(1)  # type: ignore[arg-type]
    require_scope(["a", "b"])  # type: ignore[arg-type]
    require_role("r", None, client=None)  # type: ignore[arg-type]
    require_audience("crm", exactly=True)  # type: ignore[call-arg]
    require_claim("a", None)  # type: ignore[arg-type]
    require_claim(["a", "b"], "x")  # type: ignore[arg-type]
    require_that("c", later)  # type: ignore[arg-type]
    require_that("c", True)  # type: ignore[arg-type]
    require_service(caller="crm")  # type: ignore[call-arg]
    require_caller("a") & "b"  # type: ignore[operator]
    require_caller("a").check("a token")  # type: ignore[arg-type]
    caller.client_id = "another"  # type: ignore[misc]
    caller.scopes.add("another")  # type: ignore[attr-defined]
    caller.client_roles["crm"] = frozenset()  # type: ignore[index]


def clients(request: Request) -> None:
    service_client(80)  # type: ignore[call-overload]
    service_client("http://crm:8000", client_class=httpx.Client)  # type: ignore[arg-type]
    ServiceTokenAuth(80)  # type: ignore[arg-type]
    ServiceTokenAuth("http://crm:8000", origins=["http://crm:8000"])  # type: ignore[call-arg]
    TokenVerifier().verify(None)  # type: ignore[arg-type]
    TokenVerifier(audience=1)  # type: ignore[arg-type]
    require_service().guard()  # type: ignore[call-arg]
