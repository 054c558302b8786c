"""Mistakes that look like protection: each is an error when it is written or at start, never an open route."""

import functools
import threading
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.testclient import TestClient

from s2s_fastapi import (
    ConfigurationError,
    Principal,
    ServiceAuthMiddleware,
    TokenVerifier,
    require_caller,
    require_scope,
)
from tests.realm import Realm, SigningKey, settings

Admin = require_caller("admin-service")


def started(app: Any, **options: Any) -> TestClient:
    app.add_middleware(ServiceAuthMiddleware, settings(), transport=Realm().transport, **options)
    return TestClient(app)


def refused_at_start(app: Any, sentence: str, **options: Any) -> None:
    with pytest.raises(ConfigurationError, match=sentence), started(app, **options):
        pass


@pytest.mark.parametrize("path", ["/hooks/%0A", "/hooks/%0a", "/hooks/x%0A", "/hooks/%00"])
def test_a_public_template_opens_no_path_with_a_control_character(path: str) -> None:
    app, router = FastAPI(), APIRouter(prefix="/hooks")

    @router.post("/")
    async def register(request: Request) -> str:
        return "services only"

    @router.post("/{provider}")
    async def hook(provider: str) -> str:
        return "public"

    app.include_router(router)
    with started(app, public_paths=["POST /hooks/{provider}"]) as client:
        assert client.post("/hooks/stripe").json() == "public"
        assert client.post("/hooks/").status_code == 401
        assert client.post(path).status_code == 401


def test_and_or_between_requirements_is_an_error_where_it_is_written() -> None:
    with pytest.raises(ConfigurationError, match="Join requirements"):
        Depends(require_caller("a") and require_scope("s"))
    with pytest.raises(ConfigurationError, match="Join requirements"):
        Depends(require_caller("a") or require_scope("s"))


def make_admin() -> Any:
    return require_caller("admin-service")


def give_admin() -> Any:
    return Admin


@pytest.mark.parametrize(
    "dependency", [make_admin, give_admin, lambda: require_caller("a"), functools.partial(make_admin)]
)
def test_a_dependency_that_returns_a_requirement_unasked_stops_the_start(dependency: Any) -> None:
    app = FastAPI(dependencies=[Depends(dependency)])

    @app.get("/x")
    async def route() -> str:
        return "open"

    refused_at_start(app, "makes a requirement and does not ask it")


def test_a_dependency_that_checks_by_itself_is_none_of_these() -> None:
    def admin(request: Request) -> Principal:
        principal: Principal = request.user
        return Admin.check(principal)

    app = FastAPI()

    @app.get("/x")
    async def route(caller: Annotated[Principal, Depends(admin)]) -> str:
        return "closed"

    realm = Realm()
    with started(app) as client:
        assert client.get("/x", headers={"Authorization": f"Bearer {realm.token()}"}).status_code == 403


def test_a_requirement_inside_of_a_union_stops_the_start() -> None:
    app = FastAPI()

    @app.get("/x")
    async def route(caller: Annotated[Any, Depends(Admin)] | None = None) -> str:
        return "open"

    refused_at_start(app, "that FastAPI does not look at")


def test_an_app_below_a_mount_is_judged_by_its_own_routes_and_what_hides_them_is_opaque() -> None:
    class Hidden:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def __call__(self, *asgi: Any) -> None:
            await self.inner(*asgi)

    realm = Realm()
    secret = PlainTextResponse("for services")
    guard = Middleware(ServiceAuthMiddleware, settings(), transport=realm.transport, users=True)
    outer = Starlette(routes=[Mount("/m", app=Hidden(secret), middleware=[guard])])

    with TestClient(outer) as client:
        answer = client.get("/m/x", headers={"Authorization": f"Bearer {realm.user_token()}"})

    assert answer.status_code == 500
    assert "for services" not in answer.text


def test_a_forked_child_forgets_who_waited_for_keys_in_the_parent() -> None:
    realm = Realm()
    verifier = TokenVerifier(settings(), transport=realm.transport)
    verifier.verify(realm.token())
    junk = [
        threading.Thread(target=verifier.decide, args=(realm.token(header={"kid": f"junk-{number}"}),), daemon=True)
        for number in range(100)
    ]
    keys = verifier.ready().keys
    for thread in junk:
        thread.start()
    while keys._asking < 100:
        pass

    keys.after_fork()  # what the fork hook calls in the child; a fork beside a hundred threads would warn

    new = SigningKey("ES256")
    realm.published.append(new.jwk)
    assert keys._asking == 0
    assert verifier.verify(realm.token(key=new)).client_id == "chat-app-service"
    for thread in junk:
        thread.join()
