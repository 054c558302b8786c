"""One small program for each public name, as it is meant: mypy and pyright must find no fault.

`make lint` checks this file beside the source, `make release` in an empty folder with the wheel installed. Nobody runs it. Each function is called after
the name that it uses; `tests/release/test_types.py` compares them with the names.
"""

import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, assert_type

import httpx
from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response as StarletteResponse

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


def use_docs() -> None:
    app.add_middleware(ServiceAuthMiddleware, public_paths=["/healthz", *DOCS])


def use_audience_not_granted(error: AudienceNotGranted) -> None:
    assert_type(error.wanted, frozenset[str])
    assert_type(error.granted, frozenset[str])
    assert_type(error.cure, str)


def use_authentication_error(error: AuthenticationError) -> None:
    assert_type(error.status, int)
    assert_type(error.challenge, str | None)


def use_authorization_error(error: AuthorizationError) -> None:
    assert_type(error.status, int)
    assert_type(error.detail, str)


def use_certificate_header() -> None:
    proxy = CertificateHeader("Client-Cert", form="rfc9440", secret_header="X-Proxy", secret_file="/run/secrets/proxy")
    app.add_middleware(ServiceAuthMiddleware, client_certificate=proxy)


def use_condition_failed(error: ConditionFailed) -> None:
    assert_type(error.status_code, int)


def use_configuration_error() -> None:
    raise ConfigurationError("KEYCLOAK_URL is not set.")


@app.get("/current")
async def use_current_principal(caller: CurrentPrincipal) -> str:
    assert_type(caller, Principal)
    return caller.client_id


def use_decision(decision: Decision) -> None:
    assert_type(decision.reason, Reason)
    assert_type(decision.accepted, bool)
    assert_type(decision.status, int)


def use_in_process_replay_store() -> None:
    store: ReplayStore = InProcessReplayStore(size=1000)
    app.add_middleware(ServiceAuthMiddleware, dpop="required", replay_store=store)


def use_keycloak_settings() -> None:
    settings = KeycloakSettings(url="http://keycloak:8080", realm="corp", client_id="crm")
    assert_type(settings.audiences, frozenset[str])
    assert_type(KeycloakSettings.from_environment(prefix="PARTNERS_"), KeycloakSettings)


def use_keys_unavailable(error: KeysUnavailable) -> None:
    assert_type(error.retry_after, int)


def use_no_user_to_act_for(error: NoUserToActFor) -> None:
    refused: AuthorizationError = error
    assert_type(refused.code, str)


class Counter:
    """An observer of one's own: it needs no base class."""

    def __init__(self) -> None:
        self.seen = 0

    def decided(self, decision: Decision) -> None:
        """Count."""
        self.seen += decision.accepted


def use_observer() -> None:
    observer: Observer = Counter()
    app.add_middleware(ServiceAuthMiddleware, observer=observer)


@app.get("/search")
async def use_optional_principal(caller: OptionalPrincipal) -> str:
    assert_type(caller, Principal | None)
    return caller.client_id if caller else "nobody"


def use_principal(caller: Principal) -> None:
    assert_type(caller.scopes, frozenset[str])
    assert_type(caller.client_roles, Mapping[str, frozenset[str]])
    assert_type(caller.email, str | None)
    assert_type(caller.as_dict(), dict[str, Any])


def use_reason(decision: Decision) -> bool:
    return decision.reason is Reason.EXPIRED and Reason.EXPIRED.observable


class Remembering:
    """A replay store of one's own: it needs no base class."""

    def __init__(self) -> None:
        self.keys: set[bytes] = set()

    async def first_use(self, key: bytes, seconds: float) -> bool:
        """Say whether the key is new."""
        new = key not in self.keys and seconds > 0
        self.keys.add(key)
        return new


def use_replay_store() -> None:
    store: ReplayStore = Remembering()
    TokenVerifier(dpop="accepted", public_url="https://crm.example.com", replay_store=store)


def use_replay_store_unavailable() -> None:
    raise ReplayStoreUnavailable("the database does not answer", retry_after=2)


def use_requirement(caller: Principal) -> None:
    requirement: Requirement = require_service() & (require_scope("a") | require_role("b"))
    assert_type(requirement.check(caller), Principal)
    assert_type(requirement.judge(caller), Decision)


def use_s2s_error() -> None:
    try:
        TokenVerifier().verify("a token")
    except S2SError as error:
        assert_type(error.code, str)


def use_service_auth_middleware() -> None:
    app.add_middleware(ServiceAuthMiddleware, users=True, audit=True, max_lifetime=600)
    assert_type(ServiceAuthMiddleware(app), ServiceAuthMiddleware)


def use_service_route() -> None:
    router = APIRouter(route_class=ServiceRoute)
    router.add_api_route("/x", lambda: "x", dependencies=[Depends(require_service())])


async def use_service_token_auth() -> None:
    auth = ServiceTokenAuth("http://crm:8000", audience="crm")
    assert_type(auth.token(), str)
    assert_type(await auth.aheaders_for("GET", "http://crm:8000/x"), dict[str, str])
    async with httpx.AsyncClient(auth=auth) as client:
        assert_type(await client.get("http://crm:8000/x"), httpx.Response)


def use_session_ended(error: SessionEnded) -> None:
    refused: AuthenticationError = error
    assert_type(refused.status, int)


def use_token_request_error(error: TokenRequestError) -> None:
    assert_type(error.error, str)
    assert_type(error.cure, str)
    assert_type(error.retryable, bool)
    assert_type(error.retry_after, int | None)


async def use_token_verifier(request: Request) -> None:
    verifier = TokenVerifier(audience="crm")
    assert_type(verifier.verify(b"a token"), Principal)
    assert_type(await verifier.authenticate(request, require_service()), Principal)
    assert_type(await verifier.authenticate_optional(request), Principal | None)


def use_token_withheld(error: TokenWithheld) -> None:
    assert_type(error.code, str)


def use_auth_ready() -> None:
    app.add_api_route("/ready", auth_ready)


def use_client_tls() -> None:
    assert_type(client_tls(), ssl.SSLContext)


def use_health() -> None:
    now = health(app)
    assert_type(now, Health)
    assert_type(now.keys, KeysHealth | None)
    assert_type(now.tokens, tuple[TokenHealth, ...])


def use_keys_health(keys: KeysHealth) -> None:
    assert_type(keys.age, float | None)


def use_token_health(token: TokenHealth) -> None:
    assert_type(token.audiences, tuple[str, ...])


def use_observed_refusals() -> None:
    seen = observed_refusals(app)
    assert_type(seen, ObservedRefusals)
    assert_type(seen.rows, tuple[ObservedRefusal, ...])


def use_openapi_schema() -> None:
    assert_type(openapi_schema(app), dict[str, Any])


def use_read_access() -> None:
    for route in read_access(app).routes:
        assert_type(route.path, str)


def use_require_audience() -> None:
    assert_type(require_audience("crm", "crm-v2", only=True), Requirement)


def use_require_bound() -> None:
    assert_type(require_bound(realm="partners"), Requirement)


@app.get("/caller")
async def use_require_caller(caller: Annotated[Principal, Depends(require_caller("a", "b"))]) -> str:
    return caller.client_id


def use_require_claim() -> None:
    assert_type(require_claim(("org", "level"), "a", 1, True), Requirement)


def use_require_realm_role() -> None:
    assert_type(require_realm_role("r"), Requirement)


def use_require_role() -> None:
    assert_type(require_role("r", client="crm"), Requirement)


def use_require_scope() -> None:
    assert_type(require_scope("a", "b"), Requirement)


def use_require_service(endpoint: Callable[[Request], Awaitable[StarletteResponse]]) -> None:
    assert_type(require_service().guard(endpoint), Callable[[Request], Awaitable[StarletteResponse]])


def use_require_that() -> None:
    assert_type(require_that("a partner", lambda caller: "partner" in caller.scopes), Requirement)


def use_require_user() -> None:
    assert_type(require_user("web"), Requirement)


AUTH = service_auth("http://crm:8000", scope="crm:read")
CRM = service_client("http://crm:8000", audience="crm", timeout=5.0)


@app.get("/auth")
async def use_service_auth(auth: Annotated[ServiceTokenAuth, Depends(AUTH)]) -> None:
    assert_type(await auth.atoken(), str)
    service_auth("http://crm:8000", "http://crm-2:8000", scope=["crm:read"], dpop=True)


@app.get("/client")
async def use_service_client(client: Annotated[httpx.AsyncClient, Depends(CRM)], request: Request) -> int:
    other = service_client(lambda: "http://other:8000", scope="x", follow_redirects=True)
    assert_type(await other.on_behalf(request), httpx.AsyncClient)
    return (await client.get("/x")).status_code


def use_service_lifespan() -> None:
    FastAPI(lifespan=service_lifespan(CRM, AUTH, warm_up=False))
    Starlette(lifespan=service_lifespan(CRM))


def use_redis_replay_store() -> None:
    store: ReplayStore = RedisReplayStore("redis://127.0.0.1:6379/0", prefix="crm:")
    app.add_middleware(ServiceAuthMiddleware, dpop="accepted", replay_store=store)


def use_sdk_token_verifier() -> None:
    assert_type(SdkTokenVerifier(TokenVerifier(), requirement=require_service()), SdkTokenVerifier)


def use_allowed() -> None:
    @allowed(require_caller("agent"))
    def add(left: int, right: int) -> int:
        return left + right

    assert_type(add(1, 2), int)


def use_current_principal_of_a_tool() -> str:
    return current_principal().client_id


def use_current_request() -> str:
    return current_request().url.path


def use_fastmcp_token_verifier() -> None:
    fastmcp_token_verifier(TokenVerifier(), resource="https://tools.example.com/mcp")


def use_tool_server(server: object) -> None:
    tools = tool_server(server)
    tools.add_middleware(ServiceAuthMiddleware)
    assert_type(tools, Starlette)


def use_access_outcome(outcome: testing.AccessOutcome) -> bool:
    assert_type(outcome.text, str)
    return outcome.result == "held"


def use_call(call: testing.Call) -> None:
    assert_type(call.token, str)


def use_embedded_issuer() -> None:
    issuer = testing.EmbeddedIssuer({"realm": "corp", "clients": []}, version="26.7.3")
    with issuer.trusted_by(app) as trusted:
        assert_type(trusted, testing.Trusted)


def use_exchange(exchange: testing.Exchange) -> None:
    assert_type(exchange.request, testing.Request)
    assert_type(exchange.response, testing.Response)
    assert_type(exchange.status, int)


def use_fault() -> None:
    assert_type(testing.Fault(status=503) & testing.Fault(delay=1.0), testing.Fault)


def use_played_service() -> None:
    crm = testing.PlayedService("http://crm:8001")
    assert_type(crm.calls, list[testing.Call])


def use_request(request: testing.Request) -> None:
    assert_type(request.method, str)


def use_response() -> None:
    assert_type(testing.Response(200, body=b"{}").header("Content-Type"), str | None)


def use_trusted(trusted: testing.Trusted) -> None:
    assert_type(trusted.name, str)


test_access = testing.access_tests(app, expect="access.json")


def use_access_tests() -> None:
    assert_type(testing.access_tests(app), Callable[..., None])


def use_assert_refused(response: httpx.Response) -> None:
    assert_type(testing.assert_refused(response, 403, "caller_not_allowed"), Decision)


async def use_async_client_of() -> None:
    async with testing.async_client_of(app) as client:
        assert_type(await client.get("/x"), httpx.Response)


def use_attack_tests() -> None:
    assert_type(testing.attack_tests(app, without=["replay"]), Callable[[str, str], None])


def use_check_access() -> None:
    assert_type(testing.check_access(app), tuple[testing.AccessOutcome, ...])


def use_client_of() -> None:
    with testing.client_of(app, client_id="crm") as client:
        assert_type(client.get("/x").status_code, int)


def use_faults() -> None:
    assert_type(testing.faults.html(502), testing.Fault)


def use_read_documents() -> None:
    documents = testing.read_documents(["corp.json"], {})
    testing.EmbeddedIssuer(*documents.realms, values=documents.values)


def use_refused() -> None:
    with testing.refused(403, "caller_not_allowed"):
        pass


def use_answer(answer: Answer) -> None:
    assert_type(answer.status, int)
    assert_type(answer.header("www-authenticate"), str)


def use_case(case: Case) -> None:
    assert_type(case.id, str)
    assert_type(case.source, tuple[str, ...])


def use_outgoing(outgoing: Outgoing) -> None:
    assert_type(outgoing.path, str)
    assert_type(outgoing.headers, tuple[tuple[str, str], ...])


def use_report(report: Report) -> None:
    assert_type(report.holes, tuple[Result, ...])
    assert_type(report.exit_code, int)


def use_result(result: Result) -> None:
    assert_type(result.case, Case)
    assert_type(result.detail, str)


def use_route_report(report: RouteReport) -> None:
    assert_type(report.route, str)
    assert_type(report.results, tuple[Result, ...])


def use_target() -> None:
    def make(issuer: TrustedIssuer) -> FastAPI:
        return FastAPI(title=issuer.issuer)

    attack(Target(make=make, audience="crm", callers={"GET /x": ["billing"]}, dpop="accepted"))


def use_trusted_issuer(issuer: TrustedIssuer) -> None:
    assert_type(issuer.jwks_url, str)
    assert_type(issuer.clock(), float)


def use_all_cases() -> None:
    assert_type(all_cases(), tuple[Case, ...])


def use_attack() -> None:
    assert_type(attack(app, client_id="crm", without=["replay"]), Report)
