"""Code that uses the package as it is meant: mypy and pyright must find no fault, and must know each of these types.

`make lint` checks this file; nobody runs it.
"""

from collections.abc import Callable
from typing import Annotated, assert_type

import aiohttp
import grpc
import grpc.aio
import httpx
import httpx2
import requests
from fastapi import Depends, FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from s2s_fastapi import (
    CurrentPrincipal,
    KeycloakSettings,
    Principal,
    Requirement,
    ServiceAuthMiddleware,
    ServiceTokenAuth,
    TokenVerifier,
    health,
    observed_refusals,
    require_audience,
    require_caller,
    require_claim,
    require_realm_role,
    require_role,
    require_scope,
    require_service,
    require_that,
    require_user,
    service_auth,
    service_client,
    service_lifespan,
)
from s2s_fastapi.readiness import Health
from s2s_fastapi.receiver.observe_mode import ObservedRefusals

BILLING = require_caller("billing")
CRM = service_client("http://crm:8000", audience="crm")
OTHER = service_client("http://other:8000", client_class=httpx2.AsyncClient)
ORDERS = service_client("http://orders:8000", audience="orders")
AUTH = service_auth("http://crm:8000", scope=["crm:read", "crm:write"])

app = FastAPI(
    lifespan=service_lifespan(CRM, AUTH, ORDERS.on_behalf, ORDERS.on_behalf.sync, AUTH.on_behalf),
    dependencies=[Depends(require_service())],
)
app.add_middleware(ServiceAuthMiddleware, audience=["crm", "crm-v2"], public_paths=["/health", "POST /hooks/x"])


@app.get("/x")
async def route(
    caller: Annotated[Principal, Depends(BILLING & require_scope("x"))],
    anybody: CurrentPrincipal,
    crm: Annotated[httpx.AsyncClient, Depends(CRM)],
    other: Annotated[httpx2.AsyncClient, Depends(OTHER)],
    auth: Annotated[ServiceTokenAuth, Depends(AUTH)],
) -> str:
    assert_type(anybody, Principal)
    async with httpx.AsyncClient(auth=auth) as theirs, httpx2.AsyncClient(auth=auth) as newer:
        assert_type(theirs, httpx.AsyncClient)
        assert_type(newer, httpx2.AsyncClient)
    assert_type(await auth.atoken(min_validity=60), str)
    assert_type(auth.token(), str)
    return caller.client_id


@app.get("/users")
async def on_behalf(
    request: Request,
    orders: Annotated[httpx.AsyncClient, Depends(ORDERS.on_behalf)],
    other: Annotated[httpx2.AsyncClient, Depends(OTHER.on_behalf)],
    auth: Annotated[ServiceTokenAuth, Depends(AUTH.on_behalf)],
) -> str:
    assert_type(await ORDERS.on_behalf(request), httpx.AsyncClient)
    assert_type(await OTHER.on_behalf(request), httpx2.AsyncClient)
    assert_type(await ORDERS.on_behalf.sync(request), httpx.Client)
    assert_type(await AUTH.on_behalf(request), ServiceTokenAuth)
    assert_type(ORDERS.auth.on_behalf_of(request), ServiceTokenAuth)
    answer = await orders.get("/", auth=ORDERS.auth.on_behalf_of("the text of a token"))
    assert_type(answer, httpx.Response)
    assert_type(ORDERS.on_behalf.downstream.on_behalf, bool)
    return await auth.asking(audience="crm").atoken()


@app.get("/users/sync")
def on_behalf_sync(orders: Annotated[httpx.Client, Depends(ORDERS.on_behalf.sync)]) -> int:
    return orders.get("/").status_code


async def other_clients(auth: ServiceTokenAuth) -> None:
    with auth.for_requests() as session:
        assert_type(session.get("http://bob:8000"), requests.Response)
    async with aiohttp.ClientSession(middlewares=[auth.for_aiohttp()]) as opened:
        assert_type(opened, aiohttp.ClientSession)
    assert_type(auth.for_grpc().channel("bob:8000"), grpc.Channel)
    assert_type(auth.for_grpc().aio_channel("bob:8000", grpc.ssl_channel_credentials()), grpc.aio.Channel)
    assert_type(auth.placeholder, str)
    auth.refused()


def requirements() -> None:
    for requirement in (
        require_caller("a", "b"),
        require_service(),
        require_user("ui"),
        require_scope("s"),
        require_role("r", client="crm"),
        require_realm_role("r"),
        require_audience("crm", only=True),
        require_claim(("org", "level"), "a", 1, 1.0, True),
        require_that("c", lambda caller: caller.kind == "user"),
        require_caller("a") | require_role("r"),
    ):
        assert_type(requirement, Requirement)


async def page(request: Request) -> PlainTextResponse:
    caller: Principal = request.user
    assert_type(caller.client_roles["crm"], frozenset[str])
    assert_type(caller.email, str | None)
    return PlainTextResponse("")


def a_guard_keeps_the_type_of_the_endpoint(endpoint: Callable[[Request], PlainTextResponse]) -> None:
    assert_type(require_service().guard(endpoint), Callable[[Request], PlainTextResponse])


async def outside_of_a_request(token: str) -> None:
    verifier = TokenVerifier(KeycloakSettings(url="http://keycloak:8080", realm="corp"), audience="crm")
    assert_type(verifier.verify(token), Principal)
    assert_type(await verifier.averify(token.encode()), Principal)
    assert_type(BILLING.check(verifier.verify(token)), Principal)


def looking() -> None:
    assert_type(health(app), Health)
    assert_type(observed_refusals(app), ObservedRefusals)
