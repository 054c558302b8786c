"""A public path that no route answers is said at the start, with the route that was meant; the 401 does not advise it again."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocketDisconnect

from s2s_fastapi import DOCS, ServiceAuthMiddleware, require_service
from s2s_fastapi.declared.public_paths import PublicPath, unanswered
from s2s_fastapi.declared.routes import RouteAccess
from tests.kit.receiving import App, Client, Options


async def opaque(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("# HELP")(scope, receive, send)


@pytest.fixture
def warned(client: Client, options: Options, caplog: pytest.LogCaptureFixture) -> Callable[..., list[str]]:
    """The warnings about public paths at the start of an app."""

    def start(app: FastAPI, *public: str) -> list[str]:
        app.add_middleware(ServiceAuthMiddleware, **options(public_paths=public))
        caplog.clear()
        with caplog.at_level(logging.WARNING, "s2s_fastapi"), client(app):
            pass
        return [said for record in caplog.records if (said := record.getMessage()).startswith("public_paths")]

    return start


def an_app(**options: Any) -> FastAPI:
    app = FastAPI(**{"openapi_url": None, **options})
    health = APIRouter(prefix="/health")
    health.get("/")(lambda: "ok")
    app.include_router(health)
    app.post("/hooks/stripe")(lambda: "hook")
    app.get("/v1/items/{id}")(lambda: "item")
    app.get("/private/", dependencies=[Depends(require_service())])(lambda: "private")
    app.mount("/metrics", opaque)

    @app.websocket("/ws")
    async def socket(websocket: WebSocket) -> None: ...

    return app


@pytest.mark.parametrize(
    ("public", "said"),
    [
        ("/health", 'The nearest route is GET /health/: if you mean it, write "/health/".'),
        ("/HEALTH", 'The nearest route is GET /health/: if you mean it, write "/health/".'),
        ("/healt/", 'The nearest route is GET /health/: if you mean it, write "/health/".'),
        ("/api/health/", 'The nearest route is GET /health/: if you mean it, write "/health/".'),
        (
            "/metrics",
            'The nearest route is /metrics: if you mean it, write "/metrics/". That is one path, and nothing below it.',
        ),
        (
            "POST /metrics",
            'The nearest route is /metrics: if you mean it, write "POST /metrics/". That is one path, and nothing below it.',
        ),
        ("/hooks/stripe", 'The nearest route is POST /hooks/stripe: if you mean it, write "POST /hooks/stripe".'),
        ("POST /hooks/stripe/", 'The nearest route is POST /hooks/stripe: if you mean it, write "POST /hooks/stripe".'),
        ("/items/{id}", 'The nearest route is GET /v1/items/{id}: if you mean it, write "/v1/items/{id}".'),
        ("/private", "The nearest route is GET /private/, which carries a requirement."),
        ("/ws", "WEBSOCKET /ws is a WebSocket, and a WebSocket is never public."),
        ("/nothing-like-it", ""),
    ],
)
def test_a_public_path_that_no_route_answers_is_said_with_the_nearest_route(
    warned: Any, public: str, said: str
) -> None:
    first = f"public_paths: no route answers {public}. It opens nothing, unless a middleware answers it."
    assert warned(an_app(), public) == [f"{first} {said}".strip()]


@pytest.mark.parametrize(
    "public",
    [
        ["/health/"],
        ["/health", "/health/"],  # the first one opens the redirect to the second one
        ["/metrics", "/metrics/"],
        ["/v1/health/", "/health/"],  # a middleware strips the prefix
        ["/metrics/a/b"],
        ["POST /hooks/stripe", "/hooks/stripe"],
        ["/v1/items/{id}", "/v1/items/7"],
        ["OPTIONS /health/"],  # CORSMiddleware answers it
        [*DOCS],
        [],
    ],
    ids=repr,
)
def test_nothing_is_said_of_a_right_app(warned: Any, public: list[str]) -> None:
    assert warned(an_app(), *public) == []


class TestThePagesOfTheDocumentation:
    @pytest.mark.parametrize(
        ("documented", "page", "elsewhere"),
        [
            ({"openapi_url": "/api/v1/openapi.json"}, "/openapi.json", "/api/v1/openapi.json"),
            ({"docs_url": "/documentation"}, "/docs", "/documentation"),
            ({"redoc_url": "/reference"}, "/redoc", "/reference"),
            ({"swagger_ui_oauth2_redirect_url": "/docs/back"}, "/docs/oauth2-redirect", "/docs/back"),
        ],
    )
    def test_are_named_if_the_app_serves_them_elsewhere(
        self, warned: Any, documented: dict[str, Any], page: str, elsewhere: str
    ) -> None:
        first = f"public_paths: no route answers {page}. It opens nothing, unless a middleware answers it."
        page_at = f'The app serves this page of its documentation at {elsewhere}: add "{elsewhere}".'
        assert warned(FastAPI(**documented), *DOCS) == [f"{first} {page_at}"]
        assert warned(FastAPI(**documented), *DOCS, elsewhere) == []

    def test_of_a_mounted_app_are_elsewhere(self, warned: Any) -> None:
        app = FastAPI(openapi_url=None)
        app.mount("/v1", FastAPI(redoc_url=None))
        said = warned(app, *DOCS)
        assert [sentence.partition("at ")[2].partition(":")[0] for sentence in said] == [
            "/v1/docs", "/v1/docs/oauth2-redirect", "/v1/openapi.json",
        ]  # fmt: skip

    @pytest.mark.parametrize("documented", [{}, {"openapi_url": None}, {"docs_url": None}, {"redoc_url": None}])
    def test_are_not_named_if_there_are_none(self, warned: Any, documented: dict[str, Any]) -> None:
        assert warned(FastAPI(**documented), *DOCS) == []


def test_one_letter_is_a_slip_and_two_are_another_path() -> None:
    route = RouteAccess("/healthz", frozenset({"GET"}))
    for text, near in {
        "/health": True,
        "/healthzz": True,
        "/heelthz": True,
        "/heath": False,
        "/hhealth": False,
    }.items():
        found = unanswered(PublicPath.read(text), [route], lambda method, path: False)
        assert found is not None
        assert (found.nearest is route) is near, text


class TestTheCureOfA401:
    @pytest.mark.parametrize(
        ("public", "method", "path", "has"),
        [
            (["/health"], "GET", "/health/", "/health"),
            (["/metrics"], "GET", "/metrics/", "/metrics"),
            (["/hooks/stripe"], "POST", "/hooks/stripe", "/hooks/stripe"),
            (["POST /hooks/stripe"], "GET", "/hooks/stripe", "POST /hooks/stripe"),
            (["/health/"], "GET", "/HEALTH/", "/health/"),
            (["/items/{id}"], "GET", "/v1/items/7", ""),
            ([*DOCS], "GET", "/api/openapi.json", "/openapi.json"),
        ],
    )
    def test_does_not_advise_what_public_paths_has_already(  # noqa: PLR0917 - a table's row, and where it is tried
        self, options: Options, client: Client, observed: Any, public: list[str], method: str, path: str, has: str
    ) -> None:
        app = an_app(openapi_url="/api/openapi.json")
        app.add_middleware(ServiceAuthMiddleware, **options(public_paths=public))
        assert client(app).request(method, path).status_code == 401
        cure = observed.decisions[-1].cure
        assert (f"public_paths has {has}, which is not this method and path" in cure) is bool(has)
        assert ("is a probe or a webhook, add it to public_paths" in cure) is not bool(has)

    def test_says_that_a_websocket_is_never_public(self, options: Options, client: Client, observed: Any) -> None:
        app = an_app()
        app.add_middleware(ServiceAuthMiddleware, **options(public_paths=["/ws"]))
        with pytest.raises(WebSocketDisconnect), client(app).websocket_connect("/ws"):
            pass
        assert "public_paths has /ws, but a WebSocket is never public" in observed.decisions[-1].cure

    def test_advises_public_paths_for_every_other_path(self, make_app: App, client: Client, observed: Any) -> None:
        assert client(make_app(public_paths=["/health"])).get("/other").status_code == 401
        assert "If this route is a probe or a webhook, add it to public_paths." in observed.decisions[-1].cure
