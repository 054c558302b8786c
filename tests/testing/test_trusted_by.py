"""What trusts the issuer inside a block, and that nothing is left of it."""

import asyncio
import contextvars
import functools
import logging
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Annotated, Any

import httpx
import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route
from starlette.testclient import TestClient

from example_app import alice, charles, chat_app, crm_gateway, shop_api
from example_app.realm import REALMS, claims_of
from s2s_fastapi import (
    AuthenticationError,
    AuthorizationError,
    ConfigurationError,
    KeycloakSettings,
    Principal,
    ServiceAuthMiddleware,
    ServiceTokenAuth,
    TokenRequestError,
    TokenVerifier,
    require_audience,
    require_caller,
    require_role,
    require_service,
    service_client,
)
from s2s_fastapi.caller.token_source import IN_USE
from s2s_fastapi.testing import EmbeddedIssuer, client_of, faults
from s2s_fastapi.testing.keys import once_in_a_process

TICKET = {"subject": "x"}


@pytest.fixture
def issuer() -> EmbeddedIssuer:
    return EmbeddedIssuer.for_tests()


@pytest.fixture(autouse=True)
def a_shell_with_another_realm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYCLOAK_URL", "nonsense")
    monkeypatch.setenv("KEYCLOAK_ISSUER", "https://sso.example.com/realms/corp")
    monkeypatch.setenv("KEYCLOAK_AUDIENCE", "somebody-else")
    monkeypatch.setenv("KEYCLOAK_CLIENT_SECRET_FILE", "/nowhere")


def make_app(audience: str = "tickets", *, add: Any = ServiceAuthMiddleware, **options: Any) -> FastAPI:
    app = FastAPI(title=audience)
    app.add_middleware(add, **options)

    @app.get("/who")
    async def who(caller: Annotated[Principal, Depends(require_audience(audience) & require_service())]) -> str:
        return caller.client_id

    return app


def production() -> EmbeddedIssuer:
    """Another issuer, with the keys of the test issuer: an unknown key would wait 5 s for the next fetch."""
    corp = {"realm": "corp", "enabled": True, "clients": [{"clientId": "c", "serviceAccountsEnabled": True}]}
    return EmbeddedIssuer(corp, url="http://sso.example.com", new_keys=lambda _: once_in_a_process("the realm test"))


def status(app: Any, issuer: EmbeddedIssuer, audience: str = "tickets", path: str = "/who") -> int:
    with TestClient(app) as client:
        return client.get(path, auth=issuer.as_service("caller", audience=audience)).status_code


def test_the_example_of_the_documentation_answers_as_it_says(issuer: EmbeddedIssuer) -> None:
    with client_of(crm_gateway.app, issuer=issuer) as client:
        assert client.post("/tickets", json=TICKET, auth=issuer.as_service("chat-app-service")).status_code == 201
        assert client.post("/tickets", json=TICKET, auth=issuer.as_service("billing")).status_code == 403
        user = issuer.as_user("ann", via="chat-app-service")
        assert client.post("/tickets", json=TICKET, auth=user).status_code == 403
        assert client.post("/tickets", json=TICKET).status_code == 401
        assert [str(each.reason) for each in client.trusted.decisions] == [
            "allowed",
            "caller_not_allowed",
            "not_a_service",
            "no_credentials",
        ]


class Stricter(ServiceAuthMiddleware):
    """A subclass, as somebody may have."""


def subclass() -> Any:
    return make_app(add=Stricter)


def partial() -> Any:
    return make_app(add=functools.partial(ServiceAuthMiddleware, cached_tokens=0))


def wrapped() -> Any:
    app = FastAPI()

    @app.get("/who", dependencies=[Depends(require_audience("tickets"))])
    async def who() -> str:
        return "somebody"

    return ServiceAuthMiddleware(app)


def wrapped_and_counted() -> Any:
    inner = wrapped()

    class Counting:
        def __init__(self) -> None:
            self.counted = inner

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.counted(scope, receive, send)

    return Counting()


def closure() -> Any:
    inner = make_app()

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    return outer


def bound_method() -> Any:
    return make_app().__call__


def plain_starlette() -> Any:
    async def who(request: Request) -> PlainTextResponse:
        return PlainTextResponse(require_audience("tickets").check(request.user).client_id)

    app = Starlette(routes=[Route("/who", who)])
    app.add_middleware(ServiceAuthMiddleware, audience="tickets")
    return app


def mounted() -> Any:
    app = FastAPI()
    app.mount("/below", make_app())
    return app


def on_a_host() -> Any:
    return Starlette(routes=[Host("testserver", app=make_app())])


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (make_app, "/who"),
        (subclass, "/who"),
        (partial, "/who"),
        (wrapped, "/who"),
        (wrapped_and_counted, "/who"),
        (closure, "/who"),
        (bound_method, "/who"),
        (plain_starlette, "/who"),
        (mounted, "/below/who"),
        (on_a_host, "/who"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_middleware_is_found_wherever_it_is(issuer: EmbeddedIssuer, make: Any, path: str) -> None:
    app = make()
    with issuer.trusted_by(app) as trusted, TestClient(app) as client:
        assert len(trusted.middlewares) == 1
        assert trusted.accepted_by(trusted.middlewares[0]) == {"tickets"}
        assert client.get(path, auth=issuer.as_service("caller")).status_code == 200
        assert client.get(path, auth=issuer.as_service("caller", audience="bob")).status_code == 401
        assert client.get(path).status_code == 401


@pytest.mark.parametrize(
    "empty", [FastAPI, Starlette, lambda: wrapped().app], ids=["FastAPI", "Starlette", "the inner app"]
)
def test_an_app_in_which_nothing_is_found_is_an_error_in_one_sentence(issuer: EmbeddedIssuer, empty: Any) -> None:
    app = empty()
    with pytest.raises(ConfigurationError, match=r"has no ServiceAuthMiddleware.* Add it: "):
        issuer.trusted_by(app).__enter__()
    assert getattr(app, "middleware_stack", None) is None


def test_after_the_block_the_app_is_as_it_was_before(issuer: EmbeddedIssuer) -> None:
    app = make_app()
    openapi, before = app.openapi, dict(vars(app))
    with issuer.trusted_by(app):
        assert status(app, issuer) == 200
        assert "http://keycloak.test" in str(app.openapi())
    assert vars(app) == before
    assert app.openapi == openapi
    assert "keycloak.test" not in str(app.openapi())
    assert type(IN_USE).__name__ == "_InUse"
    app.add_middleware(ServiceAuthMiddleware)  # refused by Starlette if the stack were still there


def test_after_the_block_nothing_trusts_the_issuer(issuer: EmbeddedIssuer) -> None:
    settings = KeycloakSettings(url="http://sso.example.com", realm="corp", client_id="tickets", leeway=7)
    app = make_app(settings=settings, transport=production().transport)
    with TestClient(app) as client:
        token = issuer.as_service("caller", audience="tickets").headers
        assert client.get("/who", headers=token).status_code == 401
        served = app.openapi()
        with issuer.trusted_by(app) as trusted:
            assert client.get("/who", headers=token).status_code == 200
            assert trusted.middlewares[0]._start.options.settings.leeway == 7  # type: ignore[union-attr]
            assert app.openapi() != served
        assert client.get("/who", headers=token).status_code == 401
        assert app.openapi() == served


@pytest.mark.parametrize("first", [0, 1], ids=["the first block ends first", "the last block ends first"])
def test_blocks_of_one_issuer_may_end_in_any_order(issuer: EmbeddedIssuer, first: int) -> None:
    app = make_app()
    stacks = [ExitStack(), ExitStack()]
    before = dict(vars(app))
    for stack in stacks:
        stack.enter_context(issuer.trusted_by(app))
        assert status(app, issuer) == 200
    stacks[first].close()
    assert status(app, issuer) == 200
    stacks[1 - first].close()
    assert vars(app) == before
    with pytest.raises(ConfigurationError), TestClient(app):
        pass


def test_two_issuers_on_one_app_are_refused_and_the_first_one_stays(issuer: EmbeddedIssuer) -> None:
    app = make_app()
    with issuer.trusted_by(app):
        with pytest.raises(ConfigurationError, match="trusts another test issuer"):
            EmbeddedIssuer.for_tests().trusted_by(app).__enter__()
        assert status(app, issuer) == 200


def test_two_tasks_with_blocks_on_one_app_leave_nothing_behind(issuer: EmbeddedIssuer) -> None:
    app = make_app()
    before = dict(vars(app))

    async def ask(turns: int) -> int:
        with issuer.trusted_by(app):
            for _ in range(turns):
                await asyncio.sleep(0)
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
                answer = await client.get("/who", auth=issuer.as_service("caller", audience="tickets"))
            return answer.status_code

    async def both() -> list[int]:
        return list(await asyncio.gather(ask(1), ask(5)))

    assert asyncio.run(both()) == [200, 200]
    assert vars(app) == before


def test_an_exception_in_the_block_leaves_nothing_behind(issuer: EmbeddedIssuer) -> None:
    app = make_app()
    before = dict(vars(app))
    with pytest.raises(RuntimeError), issuer.trusted_by(app):
        raise RuntimeError
    assert vars(app) == before


def test_settings_of_the_app_keep_their_audiences_and_their_leeway(issuer: EmbeddedIssuer) -> None:
    given = KeycloakSettings(
        url="http://x", realm="corp", client_id="me", audience=("tickets", "old-tickets"), leeway=3
    )
    app = make_app(settings=given)
    with issuer.trusted_by(app, client_id="another") as trusted, TestClient(app) as client:
        assert trusted.accepted_by(trusted.middlewares[0]) == {"tickets", "old-tickets"}
        assert client.get("/who", auth=issuer.as_service("caller", audience="tickets")).status_code == 200
        expired = issuer.as_service("caller", audience="tickets", expires_in=-5)
        assert client.get("/who", auth=expired).status_code == 401
        assert client.get("/who", auth=issuer.as_service("caller", audience="me")).status_code == 401
        assert trusted.middlewares[0]._start.options.settings.client_id == "me"  # type: ignore[union-attr]


@pytest.mark.parametrize("client_id", ["tools", None])
def test_the_url_of_a_resource_is_its_audience_and_never_its_client(
    issuer: EmbeddedIssuer, client_id: str | None
) -> None:
    url, app = "https://tools.example.com/mcp", FastAPI(openapi_url=None)
    given = KeycloakSettings(url="http://x", realm="corp", client_id=client_id) if client_id else None
    app.add_middleware(ServiceAuthMiddleware, settings=given, public_url=url, resource=True)
    app.get("/mcp", dependencies=[Depends(require_role("writer"))])(lambda: "in")
    with client_of(app, issuer=issuer) as client:
        assert client.trusted.audiences == {url}
        name = client_id or "service-under-test"
        assert client.get("/mcp", auth=issuer.as_service("agent", roles=["writer"])).text == '"in"'
        refused = client.get("/mcp", auth=issuer.as_service("agent", roles=["writer"], audience=name))
        assert refused.status_code == 401
        path = "/.well-known/oauth-protected-resource/mcp"
        assert refused.headers["WWW-Authenticate"] == (
            f'Bearer realm="{name}", resource_metadata="https://tools.example.com{path}", error="invalid_token"'
        )
        document = client.get(path).json()
        assert document["resource"] == url
        assert [issuer.realm_of(each) for each in document["authorization_servers"]] == ["test"]
    assert client.trusted.client_id == name


def test_settings_without_a_client_accept_what_the_routes_declare(issuer: EmbeddedIssuer) -> None:
    app = make_app(settings=KeycloakSettings(url="http://x", realm="corp"))
    app.get("/old", dependencies=[Depends(require_audience("old-tickets"))])(lambda: None)
    with client_of(app, issuer=issuer) as client:
        assert client.trusted.audiences == {"tickets", "old-tickets"}
        assert client.get("/who", auth=issuer.as_service("a", audience="tickets")).status_code == 200


def test_no_rule_of_the_start_check_is_relaxed(issuer: EmbeddedIssuer) -> None:
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware, users=True)

    @app.get("/open")
    async def nobody_is_named() -> None: ...

    with (
        issuer.trusted_by(app),
        pytest.raises(ConfigurationError, match="every route that is not public must say"),
        TestClient(app),
    ):
        pass


def test_the_name_of_an_app_is_the_given_one_or_the_one_audience_or_made_up(
    issuer: EmbeddedIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "s2s_fastapi.testing")
    with issuer.trusted_by(make_app()) as trusted:
        assert trusted.client_id == "tickets"
    with issuer.trusted_by(make_app(), client_id="given") as trusted:
        assert (trusted.client_id, trusted.audiences) == ("given", frozenset({"given"}))
    with issuer.trusted_by(make_app(), client_id="given", audience="tickets") as trusted:
        assert (trusted.client_id, trusted.audiences) == ("given", frozenset({"tickets"}))
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware)
    with issuer.trusted_by(app) as trusted:
        assert (trusted.client_id, trusted.audiences) == ("service-under-test", frozenset({"service-under-test"}))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 4
    assert (
        warnings[0]
        == "Test only: the app 'tickets' now trusts the embedded issuer (as client tickets) until the test ends."
    )
    assert "(as client service-under-test, a name made up for the test)" in warnings[3]


def test_roles_are_of_the_client_of_the_app(issuer: EmbeddedIssuer) -> None:
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware)

    @app.get("/x", dependencies=[Depends(require_audience("tickets") & require_role("writer"))])
    async def write() -> None: ...

    with client_of(app, issuer=issuer) as client:
        assert client.get("/x", auth=issuer.as_service("a")).status_code == 403
        assert client.get("/x", auth=issuer.as_service("a", roles="writer")).status_code == 200
        assert client.get("/x", auth=issuer.as_service("a", roles={"other": ["writer"]})).status_code == 403


def test_a_verifier_of_a_module_trusts_the_issuer_inside_the_block_only(issuer: EmbeddedIssuer) -> None:
    verifier = TokenVerifier(audience="queue")
    app = make_app()
    token = issuer.as_service("caller", audience="queue").token
    with issuer.trusted_by(app, verifier) as trusted:
        assert verifier.verify(token).client_id == "caller"
        with pytest.raises(AuthenticationError):
            verifier.verify(issuer.as_service("caller", audience="other").token)
        assert [str(each.reason) for each in trusted.decisions] == ["allowed", "wrong_audience"]
    with pytest.raises(ConfigurationError):
        verifier.verify(token)


def test_a_verifier_with_settings_keeps_its_audience(issuer: EmbeddedIssuer) -> None:
    verifier = TokenVerifier(KeycloakSettings(url="http://x", realm="corp", audience=("queue", "old-queue")))
    with issuer.trusted_by(verifier) as trusted:
        assert trusted.audiences == verifier.audiences == {"queue", "old-queue"}
        assert verifier.verify(issuer.as_service("caller", audience="old-queue").token).client_id == "caller"


def test_a_verifier_asks_for_roles_of_its_own_client_and_names_it_in_the_challenge(issuer: EmbeddedIssuer) -> None:
    verifier = TokenVerifier()
    with issuer.trusted_by(verifier, client_id="queue"):
        writer = issuer.as_service("caller", audience="queue", roles={"queue": ["writer"]})
        other = issuer.as_service("caller", audience="queue")
        assert asyncio.run(verifier.authenticate(writer.headers, require_role("writer"))).client_id == "caller"
        with pytest.raises(AuthorizationError) as refused:
            asyncio.run(verifier.authenticate(other.headers, require_role("writer")))
    assert 'realm="queue"' in (refused.value.challenge or "")


def test_a_service_that_calls_gets_its_token_as_the_client_that_the_test_names(issuer: EmbeddedIssuer) -> None:
    crm = issuer.downstream(chat_app.crm).answer(201, json={"number": 1, "opened_by": "chat-app-service"})
    with client_of(chat_app.app, issuer=issuer, client_id="chat-app-service") as client:
        assert client.post("/escalate").json()["number"] == 1
    [call] = crm.calls
    assert (call.client_id, call.audiences, call.json()) == (
        "chat-app-service",
        frozenset({"crm-api-gateway"}),
        {"subject": "the chat bot did not help"},
    )


def test_clients_that_an_app_makes_itself_reach_the_services_that_the_test_plays(issuer: EmbeddedIssuer) -> None:
    bob = issuer.downstream(alice.bob).answer(json={"for": "bob"})
    charlie = issuer.downstream("http://localhost:8006").answer(json={"for": "charles"})
    with client_of(alice.app, issuer=issuer, client_id="alice") as client:
        assert client.post("/messages/bob").json() == {"for": "bob"}
        assert client.post("/messages/charles").json() == {"for": "charles"}
    assert (bob.calls[0].audiences, bob.calls[0].client_id) == (frozenset({"bob"}), "alice")
    assert (charlie.calls[0].audiences, charlie.calls[0].client_id) == (frozenset({"charles"}), "alice")


def test_after_the_last_block_httpx_is_as_before(issuer: EmbeddedIssuer) -> None:
    kinds = (httpx.HTTPTransport, httpx.AsyncHTTPTransport, httpx2.HTTPTransport, httpx2.AsyncHTTPTransport)
    before = [dict(vars(kind)) for kind in kinds]
    with issuer.trusted_by(make_app()), issuer.trusted_by(make_app()):
        assert [dict(vars(kind)) for kind in kinds] != before
    assert [dict(vars(kind)) for kind in kinds] == before


def test_a_client_with_its_own_idea_of_trust_keeps_it(issuer: EmbeddedIssuer) -> None:
    with issuer.trusted_by(make_app()):
        transports = [httpx.HTTPTransport(), httpx.HTTPTransport(), httpx.HTTPTransport(verify=False)]
    contexts: list[Any] = [transport._pool._ssl_context for transport in transports]
    assert contexts[0] is contexts[1]  # to make one takes longer than a test
    assert [context.verify_mode for context in contexts] == [ssl.CERT_REQUIRED, ssl.CERT_REQUIRED, ssl.CERT_NONE]


def test_one_app_may_be_named_twice_and_be_inside_of_another(issuer: EmbeddedIssuer) -> None:
    inner, outer = make_app(), FastAPI()
    outer.mount("/below", inner)
    before = dict(vars(inner)), dict(vars(outer))
    with issuer.trusted_by(outer, inner, inner) as trusted, TestClient(outer) as client:
        assert len(trusted.middlewares) == 1
        assert client.get("/below/who", auth=issuer.as_service("a")).status_code == 200
        inner.openapi()
    assert (vars(inner), vars(outer)) == before


def test_a_request_to_a_service_that_nobody_plays_says_who_is_played(issuer: EmbeddedIssuer) -> None:
    issuer.downstream("http://crm:8001")
    with issuer.trusted_by(make_app()), pytest.raises(httpx.ConnectError) as caught:
        httpx.get("http://127.0.0.1:1/", trust_env=False)
    assert "nobody plays http://127.0.0.1:1 in this test: issuer.downstream(...) plays http://crm:8001" in str(
        caught.value
    )


def test_def_routes_and_background_tasks_call_as_their_app(issuer: EmbeddedIssuer) -> None:
    notifications = issuer.downstream(shop_api.notifications)
    with client_of(shop_api.app, issuer=issuer, client_id="shop-api") as client:
        for path in ("/checkout", "/checkout/sync", "/checkout/later", "/hooks/payment"):
            assert client.post(path).status_code in {200, 202}
    assert [call.client_id for call in notifications.calls] == ["shop-api"] * 4


def test_the_clients_of_an_app_are_new_in_each_block_and_after_it(issuer: EmbeddedIssuer) -> None:
    client = service_client("http://crm:8001", audience="crm")
    app = FastAPI()

    @app.get("/one")
    def one(crm: Annotated[httpx.Client, Depends(client.sync)]) -> int:
        seen.append(crm)
        return 1

    seen: list[Any] = []
    for _ in range(2):
        with issuer.trusted_by(app), TestClient(app) as asking:
            asking.get("/one")
    seen.append(client.lend_sync())
    assert len(set(map(id, seen))) == 3


def test_two_apps_that_share_one_auth_object_call_each_as_itself(issuer: EmbeddedIssuer) -> None:
    shared = ServiceTokenAuth("http://crm:8001", audience="crm")

    def calling(title: str) -> FastAPI:
        app = FastAPI(title=title)

        @app.get("/call")
        async def call() -> int:
            async with httpx.AsyncClient(auth=shared) as client:
                return (await client.get("http://crm:8001/")).status_code

        return app

    one, two = calling("one"), calling("two")
    crm = issuer.downstream(shared)
    with (
        client_of(one, shared, issuer=issuer, client_id="one") as first,
        client_of(two, shared, issuer=issuer, client_id="two") as second,
    ):
        for client in (first, second, first, second):
            assert client.get("/call").json() == 200
        with pytest.raises(ConfigurationError, match="Nobody knows which app is calling here: one, two"):
            shared.token()
    assert [call.client_id for call in crm.calls] == ["one", "two", "one", "two"]


def test_a_request_from_one_app_to_another_and_back_is_made_by_each_as_itself(issuer: EmbeddedIssuer) -> None:
    to_b, to_a = ServiceTokenAuth("http://b", audience="b"), ServiceTokenAuth("http://a", audience="a")
    a, b = make_app("a"), make_app("b")

    @a.get("/start", dependencies=[Depends(require_audience("a"))])
    async def start() -> list[str]:
        transport = httpx.ASGITransport(b)
        async with httpx.AsyncClient(transport=transport, base_url="http://b", auth=to_b) as client:
            between: list[str] = (await client.get("/between")).json()
        async with httpx.AsyncClient(transport=transport, base_url="http://b", auth=to_b) as client:
            return [*between, (await client.get("/who")).json()]

    @b.get("/between", dependencies=[Depends(require_audience("b"))])
    async def between() -> list[str]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(a), base_url="http://a", auth=to_a) as client:
            return [(await client.get("/who")).json()]

    with client_of(a, to_b, issuer=issuer) as client, issuer.trusted_by(b, to_a):
        assert client.get("/start", auth=issuer.as_service("outside")).json() == ["b", "a"]


def test_the_token_of_a_caller_outside_of_a_request_is_for_the_only_app(issuer: EmbeddedIssuer) -> None:
    one, two = make_app("one"), make_app("two")
    caller = issuer.as_service("caller")
    with issuer.trusted_by(one), issuer.trusted_by(one), TestClient(one) as client:
        assert client.get("/who", headers=caller.headers).status_code == 200
        with issuer.trusted_by(two), pytest.raises(ConfigurationError, match="Several apps trust the test issuer"):
            caller.headers  # noqa: B018 - it is made when it is read
        with client_of(two, issuer=issuer) as other:
            assert other.get("/who", auth=caller).status_code == 200


def test_a_bare_thread_calls_as_the_only_app(issuer: EmbeddedIssuer) -> None:
    auth = ServiceTokenAuth("http://crm:8001", audience="crm")
    found: list[str] = []
    with issuer.trusted_by(auth, client_id="script"):
        thread = threading.Thread(target=lambda: found.append(auth.token()))
        thread.start()
        thread.join()
    assert len(found) == 1


def test_a_failure_is_not_remembered_in_the_next_block(issuer: EmbeddedIssuer) -> None:
    auth = ServiceTokenAuth("http://crm:8001", audience="crm")
    issuer.faults.add("token", faults.answering(503))
    with issuer.trusted_by(auth):
        for _ in range(2):
            with pytest.raises(TokenRequestError):
                auth.token()
    assert len(issuer.requests("token")) == 1
    with issuer.trusted_by(auth):
        assert auth.token() != ""


def test_a_middleware_of_an_included_router_is_found(issuer: EmbeddedIssuer) -> None:
    router, app = APIRouter(), FastAPI()

    async def who(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.user.client_id)

    router.routes.append(
        Mount("/in", app=ServiceAuthMiddleware(Starlette(routes=[Route("/who", who)]), audience="tickets"))
    )
    app.include_router(router)
    with issuer.trusted_by(app) as trusted, TestClient(app) as client:
        assert len(trusted.middlewares) == 1
        assert client.get("/in/who", auth=issuer.as_service("caller")).status_code == 200


def test_a_fresh_start_of_the_lifespan_reads_the_environment_again(
    issuer: EmbeddedIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    with issuer.trusted_by(app):
        assert status(app, issuer) == 200
    with pytest.raises(ConfigurationError, match="KEYCLOAK_"), TestClient(app):
        pass
    with issuer.trusted_by(app):
        assert status(app, issuer) == 200


def test_a_reset_forgets_tokens_keys_and_failures(issuer: EmbeddedIssuer) -> None:
    app = make_app()
    with client_of(app, issuer=issuer) as client:
        assert client.get("/who", auth=issuer.as_service("caller")).status_code == 200
        issuer.time.forward(1000)
        issuer.reset()
        assert (client.trusted.decisions, issuer.requests()) == ([], ())
        assert client.get("/who", auth=issuer.as_service("caller")).status_code == 200
        assert len(issuer.requests("certs")) == 1


def test_a_reset_forgets_the_tokens_of_callers(issuer: EmbeddedIssuer) -> None:
    auth = ServiceTokenAuth("http://crm:8001", audience="crm")
    with issuer.trusted_by(auth):
        auth.token()
        issuer.reset()
        auth.token()
    assert len(issuer.requests("token")) == 1


def test_the_clocks_turn_together(issuer: EmbeddedIssuer) -> None:
    auth = ServiceTokenAuth("http://crm:8001", audience="crm")
    app = make_app()
    with client_of(app, auth, issuer=issuer) as client:
        before, headers = auth.token(), issuer.as_service("caller", audience="tickets").headers
        assert client.get("/who", headers=headers).status_code == 200
        fetched = len(issuer.requests("certs"))
        issuer.time.forward(700)
        assert client.get("/who", headers=headers).status_code == 401
        assert len(issuer.requests("certs")) > fetched  # keys are as old as the tokens
        assert client.trusted.decisions[-1].reason == "expired"
        assert client.get("/who", auth=issuer.as_service("caller")).status_code == 200
        assert auth.token() != before


def test_an_unknown_key_and_a_rotation_cost_no_waiting(issuer: EmbeddedIssuer) -> None:
    with client_of(make_app(), issuer=issuer) as client:
        assert client.get("/who", auth=issuer.as_service("caller")).status_code == 200
        foreign = issuer.as_service("caller", key="foreign")
        began = time.monotonic()
        for _ in range(3):
            assert client.get("/who", auth=foreign).status_code == 401
        assert time.monotonic() - began < 4  # in production each new one may wait 5 s for the next fetch
        issuer.rotate_keys("test", keep=False)
        assert client.get("/who", auth=issuer.as_service("caller")).status_code == 200
        issuer.reset()
        assert len({issuer.signing_kid("test"), EmbeddedIssuer.for_tests().signing_kid("test")}) == 2


def test_a_websocket_is_refused_and_accepted(issuer: EmbeddedIssuer) -> None:
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware)

    @app.websocket("/ws")
    async def talk(
        socket: WebSocket, caller: Annotated[Principal, Depends(require_audience("t") & require_caller("a"))]
    ) -> None:
        await socket.accept()
        await socket.send_text(caller.client_id)
        await socket.close()

    with client_of(app, issuer=issuer) as client:
        with client.websocket_connect("/ws", headers=issuer.as_service("a").headers) as socket:
            assert socket.receive_text() == "a"
        with client.websocket_connect("/ws", auth=issuer.as_service("a")) as socket:
            assert socket.receive_text() == "a"


def test_a_websocket_ends_by_the_clock_of_the_issuer(issuer: EmbeddedIssuer) -> None:
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware, audience="t")

    @app.websocket("/ws")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close()

    issuer.time.forward(-1000)  # by the real clock, the token has expired
    with (
        client_of(app, issuer=issuer) as client,
        client.websocket_connect("/ws", headers=issuer.as_service("a").headers) as socket,
    ):
        socket.send_text("still open")
        assert socket.receive_text() == "still open"


def test_a_block_inside_a_block_has_its_own_client_and_leaves_the_document_of_the_outer_one(
    issuer: EmbeddedIssuer,
) -> None:
    auth = ServiceTokenAuth("http://crm:8001", audience="crm")
    app = make_app()

    @app.get("/call", dependencies=[Depends(require_audience("tickets"))])
    async def call() -> str:
        return auth.token()

    with client_of(app, auth, issuer=issuer, client_id="outer", audience="tickets") as outer:
        document = app.openapi()
        with client_of(app, auth, issuer=issuer, client_id="inner", audience="tickets") as inner:
            token = inner.get("/call", auth=issuer.as_service("a")).json()
            assert claims_of(token)["azp"] == "inner"
            assert app.openapi() is not document
        assert app.openapi() is document
        assert claims_of(outer.get("/call", auth=issuer.as_service("a")).json())["azp"] == "outer"


def test_what_outlives_a_block_does_not_call_as_its_app(issuer: EmbeddedIssuer) -> None:
    auth = ServiceTokenAuth("http://crm:8001", audience="crm")
    app, left = FastAPI(), list[contextvars.Context]()

    @app.get("/leave")
    async def leave() -> None:
        left.append(contextvars.copy_context())

    with client_of(app, auth, issuer=issuer, client_id="first") as client:
        client.get("/leave")
    with issuer.trusted_by(auth, client_id="second"):
        assert claims_of(left[0].run(auth.token))["azp"] == "second"


def test_an_app_that_was_started_before_trusts_the_issuer_inside_the_block(issuer: EmbeddedIssuer) -> None:
    corp = production()
    settings = KeycloakSettings(url=corp.url, realm="corp", client_id="tickets")
    app = make_app(settings=settings, transport=corp.transport)
    ours = issuer.as_service("caller", audience="tickets")
    theirs = corp.as_service("c", claims={"aud": "tickets"})

    def both(client: TestClient) -> tuple[int, int]:
        return client.get("/who", headers=theirs.headers).status_code, client.get(
            "/who", headers=ours.headers
        ).status_code

    with TestClient(app) as client:
        assert both(client) == (200, 401)
        with issuer.trusted_by(app):
            assert both(client) == (401, 200)
        assert both(client) == (200, 401)


def test_keys_that_arrive_after_the_block_reach_nothing_that_production_uses(issuer: EmbeddedIssuer) -> None:
    corp = production()
    settings = KeycloakSettings(url=corp.url, realm="corp", client_id="tickets")
    app = make_app(settings=settings, transport=corp.transport)
    released = threading.Event()
    issuer.faults.add("certs", faults.rewritten(lambda body: body if released.wait(5) else b""))
    with TestClient(app) as client:
        ours = issuer.as_service("caller", audience="tickets").headers
        assert client.get("/who", headers=ours).status_code == 401
        with issuer.trusted_by(app) as trusted:
            [middleware] = trusted.middlewares
            middleware._start.run(app)  # it begins to load the keys
            late = middleware.keys
        released.set()
        assert late is not None
        assert late.get().find(issuer.signing_kid("test"), "RS256") is not None
        assert middleware.keys is not late
        assert client.get("/who", headers=ours).status_code == 401


def test_mounted_apps_have_their_own_document_back(issuer: EmbeddedIssuer) -> None:
    inner, outer = make_app(), FastAPI()
    outer.mount("/below", inner)
    openapi = inner.openapi()
    before = dict(vars(inner))
    with issuer.trusted_by(outer), TestClient(outer) as client:
        assert client.get("/below/who", auth=issuer.as_service("a")).status_code == 200
        client.get("/below/openapi.json", auth=issuer.as_service("a"))
    assert vars(inner) == before
    assert inner.openapi() == openapi


def test_routes_that_a_lifespan_adds_are_read_as_in_production(issuer: EmbeddedIssuer) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> Any:
        app.add_api_route("/late", lambda: "late", dependencies=[Depends(require_audience("late"))])
        yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(ServiceAuthMiddleware, audience="late")
    with client_of(app, issuer=issuer) as client:
        assert client.get("/late", auth=issuer.as_service("a")).status_code == 200
        assert client.get("/late").status_code == 401


def test_the_example_receivers_are_right_without_a_word(issuer: EmbeddedIssuer) -> None:
    with client_of(charles.app, issuer=issuer) as client:
        assert client.post("/messages", auth=issuer.as_service("alice")).status_code == 200
        assert client.post("/secrets", auth=issuer.as_service("alice")).status_code == 200
        assert client.post("/secrets", auth=issuer.as_service("alice", audience=["charles", "bob"])).status_code == 401
        assert client.get("/healthz").status_code == 200


@pytest.fixture(autouse=True)
def nothing_is_open_afterwards() -> Iterator[None]:
    yield
    assert type(IN_USE).__name__ == "_InUse"


def answer_at(app: Any, server: Any, client: Any, token: str) -> int:
    """Return the status of a GET that came in over these two addresses."""
    status: list[int] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {token}".encode())],
        "server": server,
        "client": client,
        "scheme": "http",
        "http_version": "1.1",
    }
    asyncio.run(app(scope, receive, send))
    return status[0]


@pytest.mark.parametrize(
    ("server", "client", "status"),
    [
        (("127.0.0.1", 8000), ("127.0.0.1", 50000), 200),
        (("::1", 8000), ("::1", 50000), 200),
        (("testserver", 80), ("testclient", 50000), 200),
        (None, None, 200),
        (("192.0.2.7", 8000), ("127.0.0.1", 50000), 500),
        (("127.0.0.1", 8000), ("192.0.2.8", 50000), 500),
        (("2001:db8::1", 8000), ("2001:db8::2", 50000), 500),
        (("/run/app.sock", None), None, 500),
    ],
    ids=["loopback", "loopback of IPv6", "a test client", "no socket", "server", "client", "IPv6", "a unix socket"],
)
def test_inside_a_block_only_requests_from_this_machine_are_accepted(
    issuer: EmbeddedIssuer, server: Any, client: Any, status: int
) -> None:
    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse("in")

    middleware = ServiceAuthMiddleware(Starlette(routes=[Route("/", endpoint)]), audience="x")
    with issuer.trusted_by(middleware):
        token = issuer.as_service("a").token
        assert answer_at(middleware, server, client, token) == status


def test_a_reset_after_the_block_is_refused_and_changes_nothing(issuer: EmbeddedIssuer) -> None:
    verifier = TokenVerifier(KeycloakSettings(url="http://127.0.0.1:9", realm="corp", client_id="x"))
    with issuer.trusted_by(verifier) as trusted:
        token = issuer.as_service("a").token
        trusted.reset()
        assert verifier.verify(token).client_id == "a"
    with pytest.raises(ConfigurationError, match="has ended"):
        trusted.reset()
    with pytest.raises(Exception, match="could not be loaded"):
        verifier.verify(token)


def test_a_start_that_ends_after_the_block_leaves_no_document(issuer: EmbeddedIssuer) -> None:
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware, audience="x")
    with issuer.trusted_by(app) as trusted:
        (middleware,) = trusted.middlewares
        late = middleware._start
        before = app.openapi
    late.run(app)

    assert app.openapi == before


def test_a_source_that_was_put_back_inside_a_block_does_not_outlive_it(issuer: EmbeddedIssuer) -> None:
    before = IN_USE.source
    with issuer.trusted_by(chat_app.app):
        IN_USE.source = IN_USE.source

    assert IN_USE.source is before


def test_a_client_id_with_a_slip_fails_as_in_production(issuer: EmbeddedIssuer) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"no token of this app can meet its requirement.*accepts only tikets"),
        client_of(make_app(), issuer=issuer, client_id="tikets"),
    ):
        pass


def test_an_audience_is_given_beside_the_client(issuer: EmbeddedIssuer) -> None:
    verifier = TokenVerifier()
    with client_of(make_app(), verifier, issuer=issuer, client_id="another", audience="tickets") as client:
        assert client.get("/who", auth=issuer.as_service("caller")).status_code == 200
        assert verifier.audiences == {"tickets"}
    own = KeycloakSettings(url="http://x", realm="corp", client_id="tickets")
    with issuer.trusted_by(make_app(settings=own), audience="other") as trusted:
        assert trusted.audiences == {"tickets"}


def test_an_app_is_a_client_of_the_realm_file(issuer: EmbeddedIssuer) -> None:
    issuer.load(REALMS["corp"])
    unknown = "The realm corp has no client crm-gatway, only .*billing, .*crm-api-gateway"
    settings = KeycloakSettings(url="http://x", realm="corp", client_id="crm-gatway")
    for app, client_id in ((crm_gateway.app, "crm-gatway"), (make_app(settings=settings), None)):
        with pytest.raises(ConfigurationError, match=unknown):
            issuer.trusted_by(app, client_id=client_id).__enter__()
    with client_of(crm_gateway.app, issuer=issuer, client_id="crm-api-gateway") as client:
        assert client.get("/tickets", auth=issuer.as_service("billing")).status_code == 200


def create_app(title: str = "made") -> FastAPI:
    return make_app(title)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (create_app, r"create_app is a function: write client_of\(create_app\(\)\)"),
        ("tickets:app", "'tickets:app' is no app. Import the app"),
        (None, "None is no app"),
        (FastAPI, "FastAPI is a class"),
    ],
    ids=["a function that makes an app", "the name of an app", "nothing", "a class"],
)
def test_what_is_no_app_is_an_error_that_says_what_to_pass(issuer: EmbeddedIssuer, target: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        issuer.trusted_by(target).__enter__()


def test_an_app_without_anything_of_ours_is_told_how_to_add_it(issuer: EmbeddedIssuer) -> None:
    with pytest.raises(ConfigurationError) as caught:
        issuer.trusted_by(FastAPI()).__enter__()
    assert str(caught.value).startswith(
        "The app 'FastAPI' has no ServiceAuthMiddleware and calls no service. Add it: app.add_middleware(ServiceAuthMiddleware)."
    )


def test_realm_files_are_loaded_before_an_app_trusts_the_issuer(issuer: EmbeddedIssuer) -> None:
    with (
        issuer.trusted_by(make_app()),
        pytest.raises(ConfigurationError, match="call load before client_of"),
    ):
        issuer.load(REALMS["corp"])
    assert issuer.realms == ("test",)
    issuer.load(REALMS["corp"])
    assert issuer.realms == ("corp",)


def test_a_call_to_a_service_that_nobody_plays_is_one_warning_for_each_origin(
    issuer: EmbeddedIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()

    @app.get("/async", dependencies=[Depends(require_audience("tickets"))])
    async def asynchronous() -> None:
        for _ in range(2):
            async with httpx2.AsyncClient(trust_env=False) as client:
                with pytest.raises(httpx2.ConnectError):
                    await client.get("http://127.0.0.1:1/")

    @app.get("/sync", dependencies=[Depends(require_audience("tickets"))])
    def synchronous() -> None:
        httpx.get("http://crm:8001/", trust_env=False)
        with pytest.raises(httpx.ConnectError):
            httpx.get("http://127.0.0.1:2/", trust_env=False)

    issuer.downstream("http://crm:8001")
    for _ in range(2):  # once for each test
        with client_of(app, issuer=issuer) as client:
            assert client.get("/async", auth=issuer.as_service("a")).status_code == 200
            assert client.get("/sync", auth=issuer.as_service("a")).status_code == 200
            with pytest.raises(httpx.ConnectError):
                httpx.get("http://127.0.0.1:3/", trust_env=False)  # the test itself
    warnings = [record.getMessage() for record in caplog.records if "over the network" in record.getMessage()]
    assert warnings == [
        f"The app 'tickets' calls http://127.0.0.1:{port} over the network, since nobody plays it. "
        f"To play it: issuer.downstream('http://127.0.0.1:{port}')."
        for port in (1, 2, 1, 2)
    ]
