"""Apps made at random, each three times: with `ServiceRoute`, with FastAPI's own route class, and with its direct requirements alone."""

import contextlib
import functools
import inspect
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Depends,
    FastAPI,
    HTTPException,
    Request,
    Response,
    Security,
)
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute
from opentelemetry.sdk.trace import TracerProvider
from starlette.requests import HTTPConnection

from s2s_fastapi import (
    AuthorizationError,
    Principal,
    Requirement,
    ServiceAuthMiddleware,
    require_audience,
    require_caller,
    require_role,
    require_scope,
    require_service,
    require_that,
)
from tests.kit.realm import Realm, settings
from tests.kit.receiving import Observed

Kind = Literal["ours", "fastapi", "first"]
KINDS: tuple[Kind, ...] = ("ours", "fastapi", "first")
CLASSES = ("own", "own", "own", "headed", "catching", "bypassing", "beside", "custom request")
ENDPOINTS = (
    "async",
    "async",
    "sync",
    "request",
    "connection",
    "yields",
    "stream",
    "background",
    "view",
    "object",
    "decorated",
    "generator",
    "by hand",
)
NOW = int(time.time())
"""The time of all apps: what is recorded of an expired token names the seconds."""
_IN_90_DAYS = str(datetime.fromtimestamp(NOW + 90 * 86_400, UTC).date())
_TRACER = TracerProvider().get_tracer("tests")


def callers(realm: Realm) -> dict[str, list[tuple[bytes, bytes]]]:
    """Return the headers of every kind of caller."""

    def bearer(token: str) -> list[tuple[bytes, bytes]]:
        return [(b"authorization", f"Bearer {token}".encode())]

    def named(client: str, **claims: Any) -> list[tuple[bytes, bytes]]:
        return bearer(realm.token(**{"client_id": client, "azp": client, "iat": NOW, "exp": NOW + 300, **claims}))

    roles = {"resource_access": {"crm-api-gateway": {"roles": ["r"]}}}
    return {
        "a with everything": named("a", scope="x y", aud=["crm-api-gateway", "other"], **roles),
        "a with the scopes": named("a", scope="x y"),
        "a": named("a"),
        "b with everything": named("b", scope="x y", aud=["crm-api-gateway", "other"], **roles),
        "b": named("b"),
        "c": named("c", scope="x"),
        "a user": bearer(realm.user_token(scope="x", iat=NOW, exp=NOW + 300)),
        "wrong audience": named("a", aud="else"),
        "expired": named("a", exp=NOW - 300, iat=NOW - 600),
        "forged": bearer(realm.token(iat=NOW, exp=NOW + 300)[:-8] + "AAAAAAAA"),
        "nobody": [],
        "two headers": [*named("a"), *named("b")],
    }


@dataclass
class Ran:
    """What ran in an app besides ours."""

    names: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """What came of one request."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    error: str
    decisions: tuple[Any, ...]
    span: dict[str, Any]
    read: int
    """How often the app asked for a part of the body."""
    ran: tuple[str, ...]
    conditions: tuple[str, ...]

    @property
    def seen(self) -> tuple[Any, ...]:
        """What the caller sees."""
        return self.status, self.headers, self.body, self.error

    @property
    def told(self) -> tuple[Any, ...]:
        """What the operator sees."""
        return self.decisions, self.span


class Generated:
    """One app, the same for the same seed, of one of three kinds."""

    def __init__(self, seed: int, kind: Kind, realm: Realm, service_route: type[APIRoute]) -> None:
        self.random = random.Random(seed)
        self.kind = kind
        self.service_route = service_route
        self.ran = Ran()
        self.observed = Observed()
        self.pool = self._pool()
        self.route_class_name = self._one(CLASSES)
        self.observe = self.random.random() < 0.15
        self.overrides = self._one((None, None, None, None, "asked", "another"))
        self.handlers = self._one((None, None, "authorization", "http", "status", "validation"))
        self.twice = self.random.random() < 0.1
        self.paths: list[str] = []
        self.late_paths: list[str] = []
        self.methods: dict[str, str] = {}
        """The method of each endpoint, by its name."""
        self.late_route: Callable[[], object] = lambda: None
        self.app = self._app(realm)

    def asks_first(self, path: str) -> bool:
        """Whether the requirements come first: not if FastAPI alone knows what to ask. Each app has overrides of its own."""
        overridden = self.app.dependency_overrides and not path.startswith(("/below", "/mounted"))
        return self.route_class_name != "bypassing" and not overridden

    def override(self) -> None:
        """Replace a dependency, as tests do."""
        if self.overrides == "asked":
            for requirement in self.pool:
                self.app.dependency_overrides[requirement] = lambda: None
        elif self.overrides == "another":
            self.app.dependency_overrides[print] = lambda: None

    async def answer(self, path: str, method: str, headers: list[tuple[bytes, bytes]], body: bytes) -> Answer:
        """Send one request as a server would."""
        del self.observed.decisions[:], self.ran.names[:], self.ran.conditions[:]
        sent: list[Any] = []
        read = 0

        async def receive() -> dict[str, Any]:
            nonlocal read
            read += 1
            if read > 1:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": method, "path": path,
            "raw_path": path.encode(), "root_path": "", "scheme": "http", "query_string": b"",
            "headers": [(b"host", b"crm"), (b"content-type", b"application/json"), *headers],
            "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 50000), "state": {},
        }  # fmt: skip
        error = ""
        with _TRACER.start_as_current_span("server") as span:
            try:
                await self.app(scope, receive, send)
            except Exception as caught:  # noqa: BLE001 - a 500 is raised on to the server
                error = f"{type(caught).__name__}: {caught}"
        started = [message for message in sent if message["type"] == "http.response.start"]
        return Answer(
            status=started[0]["status"] if started else 0,
            headers=list(started[0]["headers"]) if started else [],
            body=b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body"),
            error=error,
            decisions=tuple(replace(each, trace_id="") for each in self.observed.decisions),
            span=dict((span.attributes or {}).items()),  # type: ignore[attr-defined]
            read=read,
            ran=tuple(self.ran.names),
            conditions=tuple(self.ran.conditions),
        )

    def _one(self, among: Any) -> Any:
        return self.random.choice(among)

    def _pool(self) -> list[Requirement]:
        def condition(name: str, answer: Callable[[Principal], bool]) -> Requirement:
            def asked(principal: Principal) -> bool:
                self.ran.conditions.append(name)
                return answer(principal)

            return require_that(name, asked)

        def fails(_: Principal) -> bool:
            raise ValueError("the condition's own fault")

        a, ab, x = require_caller("a"), require_caller("a", "b"), require_scope("x")
        short = condition("short", lambda principal: len(principal.client_id or "") == 1)
        self.condition = short
        return [
            a, ab, ab, ab, x, x, a & x, a | require_caller("b"), require_service(), require_service(), require_role("r"),
            require_audience("crm-api-gateway"), require_audience("other"), short, short, ab & condition("not b", lambda principal: principal.client_id != "b"),
            short if self.random.random() < 0.7 else condition("fails", fails) & a,
        ]  # fmt: skip

    def _requirement(self) -> Requirement:
        return self._one(self.pool)  # type: ignore[no-any-return]

    def _direct(self) -> Any:
        requirement = self._requirement()
        how = self.random.random()
        if how < 0.15:
            return Security(requirement, scopes=["y"])
        if how < 0.3:
            return Depends(requirement, use_cache=False)
        return Depends(requirement)

    def _other(self, name: str) -> Any:
        """Return a dependency that is no requirement; some have one below them."""
        ran = self.ran  # not `self`: the start check looks for requirements in what a function refers to
        below, how = self._requirement(), self._one(("plain", "generator", "below", "below"))

        async def plain(request: Request) -> str:
            ran.names.append(name)
            if "x-teapot" in request.headers:
                raise HTTPException(418, name)
            return name

        async def generator(request: Request) -> AsyncIterator[str]:
            ran.names.append(name)
            yield name
            ran.names.append(f"{name} ended")

        async def with_below(request: Request, caller: Annotated[Any, Depends(below)]) -> str:
            return await plain(request)

        ways: dict[str, Any] = {"plain": plain, "generator": generator, "below": with_below}
        return Depends(ways[how])

    def _dependencies(self, name: str, most: int = 2) -> list[Any]:
        """Return what stands in a list of dependencies."""
        found: list[Any] = []
        for number in range(self.random.randint(0, most)):
            if self.random.random() < 0.25:
                other = self._other(f"{name}{number}")
                found += [] if self.kind == "first" else [other]
            else:
                found.append(self._direct())
        return found

    def _endpoint(self, name: str, kind: str) -> Any:
        """Return an endpoint with parameters that are drawn, and whether it takes a body."""
        parameters, with_body = self._parameters(name, kind)
        made = self._function(name, kind)
        made.__signature__ = inspect.Signature(parameters)
        if kind != "decorated":
            made.__name__ = name
        return made, with_body

    def _parameters(self, name: str, kind: str) -> tuple[list[inspect.Parameter], bool]:
        keyword, ran = inspect.Parameter.KEYWORD_ONLY, self.ran
        parameters: list[inspect.Parameter] = []

        def takes(parameter: str, annotation: Any) -> None:
            parameters.append(inspect.Parameter(parameter, keyword, annotation=annotation))

        for number in range(self._one((0, 1, 1, 1, 2))):
            takes(f"caller{number}", Annotated[Any, self._direct()])
        other, with_other, with_body = (
            self._other(f"{name} other"),
            self.random.random() < 0.2,
            self.random.random() < 0.6,
        )
        if with_other and self.kind != "first":
            takes("other", Annotated[str, other])
        if with_body and self.kind != "first":
            takes("size", Annotated[int, Body(embed=True)])
        if kind in ("request", "stream", "by hand"):
            takes("request", Request)
        elif kind == "connection":
            takes("connection", HTTPConnection)
        elif kind == "background":
            takes("tasks", BackgroundTasks)
        elif kind == "view":
            takes("self", Annotated[Any, Depends(_View)])
        elif kind == "generator" and self.kind != "first":

            async def opened() -> AsyncIterator[str]:
                ran.names.append(f"{name} opened")
                try:
                    yield "opened"
                finally:
                    ran.names.append(f"{name} closed")

            takes("opened", Annotated[str, Depends(opened)])
        return parameters, with_body

    def _function(self, name: str, kind: str) -> Any:
        ran, condition, asks = self.ran, self.condition, self.kind != "first"

        def said(values: dict[str, Any]) -> dict[str, Any]:
            ran.names.append(name)
            names = sorted(set(values) - {"request", "connection", "tasks", "self"})
            return {"endpoint": name, **{each: str(getattr(values[each], "client_id", values[each])) for each in names}}

        async def asynchronous(**values: Any) -> Any:
            return said(values)

        def synchronous(**values: Any) -> Any:
            return said(values)

        async def background(**values: Any) -> Any:
            values["tasks"].add_task(ran.names.append, f"{name} in the background")
            return said(values)

        async def by_hand(**values: Any) -> Any:
            if asks:
                await condition(values["request"])
            return said(values)

        async def stream(**values: Any) -> Any:
            text = json.dumps(said(values))
            return StreamingResponse(iter([text[:3], text[3:]]))

        async def yields(**values: Any) -> AsyncIterator[dict[str, Any]]:
            yield said(values)

        @functools.wraps(asynchronous)
        def decorated(**values: Any) -> Any:
            return asynchronous(**values)

        class Endpoint:
            async def __call__(self, **values: Any) -> Any:
                return said(values)

        made: dict[str, Any] = {
            "sync": synchronous, "background": background, "stream": stream, "yields": yields, "decorated": decorated,
            "by hand": by_hand, "object": Endpoint(),
        }  # fmt: skip
        return made.get(kind, asynchronous)

    def _route_class(self) -> type[APIRoute]:
        base: Any = self.service_route if self.kind == "ours" else APIRoute

        class Between(APIRoute):
            def get_route_handler(self) -> Any:
                original = super().get_route_handler()

                async def handler(request: Request) -> Response:
                    response = await original(request)
                    response.headers["x-between"] = "yes"
                    return response

                return handler

        class Headed(base):  # type: ignore[misc]
            def get_route_handler(self) -> Any:
                original = super().get_route_handler()

                async def handler(request: Request) -> Response:
                    response: Response = await original(request)
                    response.headers["x-headed"] = "yes"
                    return response

                return handler

        class Catching(base):  # type: ignore[misc]
            def get_route_handler(self) -> Any:
                original = super().get_route_handler()

                async def handler(request: Request) -> Response:
                    try:
                        return await original(request)  # type: ignore[no-any-return]
                    except AuthorizationError as error:
                        return JSONResponse({"caught": error.detail}, 403)

                return handler

        class Bypassing(base):  # type: ignore[misc]
            def get_route_handler(self) -> Any:
                return APIRoute.get_route_handler(self)

        class OwnRequest(Request):
            pass

        class CustomRequest(base):  # type: ignore[misc]
            def get_route_handler(self) -> Any:
                original = super().get_route_handler()

                async def handler(request: Request) -> Response:
                    return await original(OwnRequest(request.scope, request.receive))  # type: ignore[no-any-return]

                return handler

        if self.route_class_name == "beside":
            return type("Beside", (Between,) if base is APIRoute else (base, Between), {})
        found: dict[str, type[APIRoute]] = {
            "own": base, "headed": Headed, "catching": Catching, "bypassing": Bypassing, "custom request": CustomRequest,
        }  # fmt: skip
        return found[self.route_class_name]

    def _routes(self, router: APIRouter | FastAPI, prefix: str, number: int) -> list[str]:
        paths = []
        for index in range(number):
            kind = self._one(ENDPOINTS)
            name = f"{prefix.strip('/') or 'top'}{index}".replace("/", "_")
            endpoint, with_body = self._endpoint(name, kind)
            router.add_api_route(
                f"/{name}",
                endpoint,
                methods=["POST" if with_body else "GET"] + ["HEAD"] * self._one((0, 1)),
                dependencies=self._dependencies(name, 1),
                response_model=None,
            )
            self.methods[name] = "POST" if with_body else "GET"
            paths.append(f"/{name}")
        return paths

    def _app(self, realm: Realm) -> FastAPI:
        route_class = self._route_class()
        app = FastAPI(openapi_url=None, dependencies=self._dependencies("app", 1))
        app.router.route_class = route_class
        inner = APIRouter(route_class=route_class, dependencies=self._dependencies("inner"))
        inner_paths = self._routes(inner, "inner", 2)
        middle = APIRouter(route_class=route_class, prefix="/middle", dependencies=self._dependencies("middle", 1))
        middle_paths = [f"/middle{path}" for path in self._routes(middle, "middle", 1)]
        middle.include_router(inner, prefix="/i", dependencies=self._dependencies("include", 1))
        middle_paths += [f"/middle/i{path}" for path in inner_paths]
        app.include_router(middle, prefix="/one", dependencies=self._dependencies("one", 1))
        prefixes = ["one"]
        if self.random.random() < 0.5:
            app.include_router(middle, prefix="/two", dependencies=self._dependencies("two", 1))
            prefixes.append("two")
        self.paths = [*self._routes(app, "", 2), *(f"/{each}{path}" for each in prefixes for path in middle_paths)]
        if self.random.random() < 0.3:
            below = FastAPI(openapi_url=None, dependencies=self._dependencies("below", 1))
            below.router.route_class = route_class
            self.paths += [f"/below{path}" for path in self._routes(below, "below", 1)]
            app.mount("/below", below)
            self._handle(below)
        if self.random.random() < 0.3:
            router = APIRouter(route_class=route_class, dependencies=self._dependencies("mounted", 1))
            self.paths += [f"/mounted{path}" for path in self._routes(router, "mounted", 1)]
            app.mount("/mounted", router)
        if self.random.random() < 0.3:
            endpoint, _ = self._endpoint("late", self._one(ENDPOINTS))
            late_dependencies = self._dependencies("late", 1)
            self.late_route = lambda: inner.add_api_route(
                "/late", endpoint, methods=["GET", "POST"], dependencies=late_dependencies, response_model=None
            )
            self.late_paths = [f"/{each}/middle/i/late" for each in prefixes]
        tops = [route for route in app.routes if isinstance(route, APIRoute)]
        add, change = (self.random.random() < 0.6 for _ in range(2))
        added, changed = Depends(self._requirement()), self._requirement()
        donor = APIRoute("/", print, dependencies=[added])

        def late() -> None:
            self.late_route()
            if add:
                tops[0].dependant.dependencies.append(donor.dependant.dependencies[0])
            held = [each for each in tops[1].dependant.dependencies if each.name and isinstance(each.call, Requirement)]
            if change and held:
                held[0].call = changed

        self.late = late
        self._handle(app)
        if self.twice:
            app.add_middleware(_Twice)
        observing: Any = {"insecure_observe_until": _IN_90_DAYS} if self.observe else {}
        app.add_middleware(
            ServiceAuthMiddleware,
            settings(),
            transport=realm.transport,
            observer=self.observed,
            audience=["crm-api-gateway", "other"],
            clock=lambda: NOW,
            **observing,
        )
        return app

    def _handle(self, app: FastAPI) -> None:
        async def answered(request: Request, error: Exception) -> Response:
            return JSONResponse({"handled": type(error).__name__, "status": getattr(error, "status_code", 0)}, 403)

        keys: dict[str | None, Any] = {"authorization": AuthorizationError, "http": HTTPException, "status": 403}
        if self.handlers in keys and self.handlers is not None:
            app.add_exception_handler(keys[self.handlers], answered)


class _View:
    """A class-based view gets an object of its class as a dependency."""


class _Twice:
    """A middleware behind ours that sends each request through the app twice."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def body() -> Any:
            return {"type": "http.request", "body": b'{"size": 1}', "more_body": False}

        async def dropped(message: Any) -> None:
            pass

        if scope["type"] == "http":
            with contextlib.suppress(Exception):  # the second time decides
                await self.app(dict(scope), body, dropped)
        await self.app(scope, receive, send)
