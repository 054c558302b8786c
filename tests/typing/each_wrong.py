"""One small program for each public name, with one mistake: each marked line must be an error of mypy, with the code of the mark, and of pyright.

Both report a mark without an error. `make lint` checks this file beside the source, `make release` in an empty folder with the wheel installed. Nobody
runs it. Each function is called after the name that it misuses; `tests/release/test_types.py` compares them with the names.
"""

from collections.abc import Callable
from typing import Annotated

import httpx
from fastapi import APIRouter, Depends, FastAPI
from starlette.requests import Request

from s2s_fastapi import (
    DOCS,
    AudienceNotGranted,
    AuthenticationError,
    AuthorizationError,
    CertificateHeader,
    ConditionFailed,
    ConfigurationError,
    CurrentPrincipal,
    Decision,
    InProcessReplayStore,
    KeycloakSettings,
    KeysUnavailable,
    NoUserToActFor,
    Observer,
    OptionalPrincipal,
    Principal,
    Reason,
    ReplayStore,
    ReplayStoreUnavailable,
    Requirement,
    S2SError,
    ServiceAuthMiddleware,
    ServiceRoute,
    ServiceTokenAuth,
    SessionEnded,
    TokenRequestError,
    TokenVerifier,
    TokenWithheld,
    auth_ready,
    client_tls,
    health,
    observed_refusals,
    openapi_schema,
    read_access,
    require_audience,
    require_bound,
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
    testing,
)
from s2s_fastapi.mcp import (
    SdkTokenVerifier,
    allowed,
    current_principal,
    current_request,
    fastmcp_token_verifier,
    tool_server,
)
from s2s_fastapi.readiness import Health, KeysHealth, TokenHealth
from s2s_fastapi.receiver.observe_mode import ObservedRefusal, ObservedRefusals
from s2s_fastapi.redis import RedisReplayStore
from s2s_fastapi.testing.attack import (
    Answer,
    Case,
    Outgoing,
    Report,
    Result,
    RouteReport,
    Target,
    TrustedIssuer,
    all_cases,
    attack,
)

app = FastAPI()


def misuse_docs() -> None:
    DOCS.append("/x")  # type: ignore[attr-defined]


def misuse_audience_not_granted(error: AudienceNotGranted) -> None:
    error.granted.add("crm")  # type: ignore[attr-defined]


def misuse_authentication_error() -> None:
    AuthenticationError("no")  # type: ignore[call-arg]


def misuse_authorization_error() -> None:
    AuthorizationError("no", code="x", detail=403)  # type: ignore[arg-type]


def misuse_certificate_header() -> None:
    CertificateHeader("Client-Cert", form="apache", secret_header="X-Proxy", secret_file="f")  # type: ignore[arg-type]


def misuse_condition_failed() -> None:
    ConditionFailed("no", retry_after=1)  # type: ignore[call-arg]


def misuse_configuration_error(error: ConfigurationError) -> None:
    _ = error.status_code  # type: ignore[attr-defined]


async def misuse_current_principal(caller: CurrentPrincipal) -> str:
    return caller.client_idd  # type: ignore[attr-defined, no-any-return]


def misuse_decision(decision: Decision) -> None:
    decision.reason = Reason.ALLOWED  # type: ignore[misc]


def misuse_in_process_replay_store() -> None:
    InProcessReplayStore(size="1000")  # type: ignore[arg-type]


def misuse_keycloak_settings() -> None:
    KeycloakSettings.from_environment(prefix=None)  # type: ignore[arg-type]


def misuse_keys_unavailable() -> None:
    KeysUnavailable("no", retry_after="5")  # type: ignore[arg-type]


def misuse_no_user_to_act_for() -> None:
    NoUserToActFor()  # type: ignore[call-arg]


class Silent:
    """No observer: the method has another name."""

    def decide(self, decision: Decision) -> None:
        """Do nothing."""


def misuse_observer() -> None:
    observer: Observer = Silent()  # type: ignore[assignment]
    app.add_middleware(ServiceAuthMiddleware, observer=observer)


async def misuse_optional_principal(caller: OptionalPrincipal) -> str:
    return caller.client_id  # type: ignore[union-attr]


def misuse_principal(caller: Principal) -> None:
    caller.kind = "service"  # type: ignore[misc]


def misuse_reason() -> Reason:
    return Reason.EXPIERD  # type: ignore[attr-defined, no-any-return]


class Blocking:
    """No replay store: it answers at once and not when it is awaited."""

    def first_use(self, key: bytes, seconds: float) -> bool:
        """Say that everything is new."""
        return bool(key) and seconds > 0


def misuse_replay_store() -> None:
    store: ReplayStore = Blocking()  # type: ignore[assignment]
    TokenVerifier(dpop="accepted", replay_store=store)


def misuse_replay_store_unavailable() -> None:
    ReplayStoreUnavailable(503)  # type: ignore[arg-type]


def misuse_requirement(requirement: Requirement) -> None:
    requirement | None  # type: ignore[operator]


def misuse_s2s_error(error: S2SError) -> None:
    _ = error.cure  # type: ignore[attr-defined]


def misuse_service_auth_middleware() -> None:
    app.add_middleware(ServiceAuthMiddleware, public_path=["/x"])  # type: ignore[call-arg]
    app.add_middleware(ServiceAuthMiddleware, dpop="requird")  # type: ignore[arg-type]


def misuse_service_route() -> None:
    APIRouter(route_class=ServiceRoute("/x", lambda: "x"))  # type: ignore[arg-type]


def misuse_service_token_auth() -> None:
    ServiceTokenAuth("http://crm:8000", audiences="crm")  # type: ignore[call-arg]


def misuse_session_ended() -> None:
    SessionEnded(401)  # type: ignore[arg-type]


def misuse_token_request_error(error: TokenRequestError) -> int:
    return error.error  # type: ignore[return-value]


async def misuse_token_verifier() -> Principal:
    return TokenVerifier().averify("a token")  # type: ignore[return-value]


def misuse_token_withheld(error: TokenWithheld) -> None:
    _ = error.token  # type: ignore[attr-defined]


async def misuse_auth_ready() -> None:
    await auth_ready(app)  # type: ignore[arg-type]


def misuse_client_tls() -> None:
    client_tls(ca_file=True)  # type: ignore[arg-type]


def misuse_health() -> bool:
    return health(app)  # type: ignore[return-value]


def misuse_health_values(state: Health, keys: KeysHealth, token: TokenHealth) -> float:
    state.ready = True  # type: ignore[misc]
    token.audiences.append("crm")  # type: ignore[attr-defined]
    return keys.age + 1  # type: ignore[operator]


def misuse_keys_health(keys: KeysHealth) -> None:
    keys.usable = True  # type: ignore[misc]


def misuse_token_health(token: TokenHealth) -> None:
    token.client_id = "crm"  # type: ignore[misc]


def misuse_observed_refusals(seen: ObservedRefusals) -> None:
    observed_refusals(app, seen)  # type: ignore[call-arg]


def misuse_observed_refusal(row: ObservedRefusal) -> int:
    return row.client_id  # type: ignore[return-value]


def misuse_openapi_schema() -> str:
    return openapi_schema(app)  # type: ignore[return-value]


def misuse_read_access() -> None:
    _ = read_access(app).routes[0].paths  # type: ignore[attr-defined]


def misuse_require_audience() -> None:
    require_audience(["crm"])  # type: ignore[arg-type]


def misuse_require_bound() -> None:
    require_bound("dpop")  # type: ignore[call-arg]


def misuse_require_caller() -> None:
    require_caller("a", client="b")  # type: ignore[call-arg]


def misuse_require_claim() -> None:
    require_claim("tenant", ["acme"])  # type: ignore[arg-type]


def misuse_require_realm_role() -> None:
    require_realm_role(["r"])  # type: ignore[arg-type]


def misuse_require_role() -> None:
    require_role("r", role="s")  # type: ignore[call-arg]


def misuse_require_scope() -> None:
    require_scope(None)  # type: ignore[arg-type]


def misuse_require_service(endpoint: Callable[[Request], str]) -> Callable[[Request], int]:
    return require_service().guard(endpoint)  # type: ignore[return-value]


def misuse_require_that() -> None:
    require_that("a partner", lambda caller: caller.scope == "partner")  # type: ignore[attr-defined]


def misuse_require_user() -> None:
    require_user(client="web")  # type: ignore[call-arg]


AUTH = service_auth("http://crm:8000", scope="crm:read")
CRM = service_client("http://crm:8000", audience="crm")


def misuse_service_auth() -> None:
    service_auth("http://crm:8000", scopes="crm:read")  # type: ignore[call-arg]


async def misuse_service_client(client: Annotated[httpx.Client, Depends(CRM)], request: Request) -> httpx.Client:
    service_client("http://crm:8000", audience=1)  # type: ignore[call-overload]
    client.get("/x")
    return await CRM.on_behalf(request)  # type: ignore[return-value]


def misuse_service_lifespan() -> None:
    service_lifespan("http://crm:8000")  # type: ignore[arg-type]


def misuse_redis_replay_store() -> None:
    RedisReplayStore(timeout=0.1)  # type: ignore[call-arg]


def misuse_sdk_token_verifier() -> None:
    SdkTokenVerifier(AUTH)  # type: ignore[arg-type]


def misuse_allowed() -> None:
    allowed("agent")  # type: ignore[arg-type]


def misuse_current_principal_of_a_tool() -> None:
    current_principal("agent")  # type: ignore[call-arg]


def misuse_current_request() -> str:
    return current_request().user_agent  # type: ignore[attr-defined, no-any-return]


def misuse_fastmcp_token_verifier() -> None:
    fastmcp_token_verifier(require_service())  # type: ignore[arg-type]


def misuse_tool_server() -> None:
    tool_server(app, "tools")  # type: ignore[arg-type]


def misuse_access_outcome(outcome: testing.AccessOutcome) -> None:
    outcome.result = "held"  # type: ignore[misc]


def misuse_call(call: testing.Call) -> None:
    call.headers["authorization"] = ""  # type: ignore[index]


def misuse_embedded_issuer() -> None:
    testing.EmbeddedIssuer("corp.json")  # type: ignore[arg-type]


def misuse_exchange(exchange: testing.Exchange) -> str:
    return exchange.status  # type: ignore[return-value]


def misuse_fault() -> None:
    testing.Fault(disconnect="after")  # type: ignore[arg-type]


def misuse_played_service() -> None:
    testing.PlayedService(["http://crm:8001"])  # type: ignore[arg-type]


def misuse_request() -> None:
    testing.Request("GET")  # type: ignore[call-arg]


def misuse_response() -> None:
    testing.Response("200")  # type: ignore[arg-type]


def misuse_trusted(trusted: testing.Trusted) -> int:
    return trusted.name  # type: ignore[return-value]


def misuse_access_tests() -> None:
    testing.access_tests(app, "access.json")  # type: ignore[call-arg]


def misuse_assert_refused(response: httpx.Response) -> None:
    testing.assert_refused(response, "403", "caller_not_allowed")  # type: ignore[arg-type]


async def misuse_async_client_of() -> None:
    with testing.async_client_of(app):  # type: ignore[attr-defined]
        pass


def misuse_attack_tests() -> None:
    testing.attack_tests(app, kinds=["replay"])  # type: ignore[call-arg]


def misuse_check_access() -> bool:
    return testing.check_access(app)  # type: ignore[return-value]


def misuse_client_of() -> None:
    testing.client_of(app).get("/x")  # type: ignore[attr-defined]


def misuse_faults() -> None:
    testing.faults.lost()  # type: ignore[attr-defined]


def misuse_read_documents() -> None:
    testing.read_documents(["corp.json"])  # type: ignore[call-arg]


def misuse_refused() -> None:
    testing.refused("caller_not_allowed", 403)  # type: ignore[arg-type]


def misuse_answer(answer: Answer) -> int:
    return answer.header("www-authenticate")  # type: ignore[return-value]


def misuse_case(case: Case) -> None:
    case.id = "mine"  # type: ignore[misc]


def misuse_outgoing(outgoing: Outgoing) -> None:
    outgoing.headers.get("authorization")  # type: ignore[attr-defined]


def misuse_report(report: Report) -> None:
    report.exit_code()  # type: ignore[operator]


def misuse_result(result: Result) -> str:
    return result.case  # type: ignore[return-value]


def misuse_route_report(report: RouteReport) -> str:
    return report.results[0]  # type: ignore[return-value]


def misuse_target() -> Target:
    return Target(make=lambda _: app, audience=7)  # type: ignore[arg-type]


def misuse_trusted_issuer(issuer: TrustedIssuer) -> str:
    return issuer.clock  # type: ignore[return-value]


def misuse_all_cases() -> list[Case]:
    return all_cases()  # type: ignore[return-value]


def misuse_attack() -> None:
    attack(app, kinds=["replay"])  # type: ignore[call-arg]
