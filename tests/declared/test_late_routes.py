"""A route that is added after the start is checked before it answers; what would have stopped the start answers 500."""

import logging
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.testclient import TestClient
from starlette.types import ASGIApp
from starlette.websockets import WebSocketDisconnect

from s2s_fastapi import Principal, ServiceAuthMiddleware, require_caller, require_service, require_user
from s2s_fastapi.fastapi_internals import WatchedList
from s2s_fastapi.receiver.start import Start
from tests.kit.realm import Realm
from tests.kit.receiving import App, Client, Headers

CHAT = require_caller("chat-app-service")
EITHER = require_service() | require_user()


def nothing() -> None: ...


async def plain(request: Request) -> PlainTextResponse:
    return PlainTextResponse("plain")


async def opaque(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("opaque")(scope, receive, send)


def to_the_app(app: FastAPI) -> None:
    app.get("/late")(nothing)


def to_an_included_router(app: FastAPI) -> None:
    app.state.router.get("/late")(nothing)


def by_including_another(app: FastAPI) -> None:
    router = APIRouter(prefix="/late")
    router.get("")(nothing)
    app.include_router(router)


def a_plain_route(app: FastAPI) -> None:
    app.add_route("/late", plain)


def a_mount(app: FastAPI) -> None:
    app.mount("/late", opaque)


def below_a_mount(app: FastAPI) -> None:
    app.state.mounted.routes.append(Route("/late", plain))


def in_the_place_of_another(app: FastAPI) -> None:
    del app.router.routes[-1]
    app.get("/late")(nothing)


def in_a_list_of_its_own(app: FastAPI) -> None:
    app.router.routes = [*app.router.routes, Route("/late", plain)]


def in_the_place_of_the_first(app: FastAPI) -> None:
    app.router.routes[0] = Route("/late", plain)


def before_the_last(app: FastAPI) -> None:
    app.router.routes.insert(-1, Route("/late", plain))
    del app.router.routes[0]


def in_the_place_of_one_that_is_equal(app: FastAPI) -> None:
    last = app.router.routes[-1]
    assert isinstance(last, APIRoute)
    app.router.routes[-1] = same = APIRoute("/last", last.endpoint, methods=["GET"])
    assert same == last


def to_a_router_in_a_router(app: FastAPI) -> None:
    app.state.inner.get("/late")(nothing)


def with_a_router_that_an_included_router_includes(app: FastAPI) -> None:
    router = APIRouter()
    router.get("/late")(nothing)
    app.state.inner.include_router(router)


def to_a_list_of_an_included_router_that_is_changed_by_hand(app: FastAPI) -> None:
    app.state.router.routes.append(APIRoute("/late", nothing))
    app.state.inner.get("/other", dependencies=[Depends(EITHER)])(nothing)  # now FastAPI builds all of them again


def with_an_entry_of_another_router_that_is_moved_by_hand(app: FastAPI) -> None:
    late, other = APIRouter(), APIRouter()
    late.get("/late")(nothing)
    other.include_router(late)
    app.state.inner.routes.append(other.routes[-1])


def to_a_router_that_fastapi_builds_again_only_later(app: FastAPI) -> None:
    app.state.inner.routes.append(APIRoute("/late", nothing))
    client = TestClient(app, raise_server_exceptions=False)
    client.get("/known")  # everything is read again, before FastAPI knows of the route
    app.state.inner._mark_routes_changed()


def below_a_mount_of_an_included_router(app: FastAPI) -> None:
    app.state.deep.routes.append(Route("/late", plain))


def as_another_app_of_a_mount(app: FastAPI) -> None:
    app.state.mount.app = Router([Route("/late", plain)])


def as_an_opaque_app_of_a_mount(app: FastAPI) -> None:
    app.state.mount.app = opaque


def as_another_app_of_a_layer_below_a_mount(app: FastAPI) -> None:
    app.state.layer.app = Router([Route("/late", plain)])


def as_another_router_of_a_mounted_app(app: FastAPI) -> None:
    app.state.mounted.router = Router([Route("/late", plain)])


def as_the_default(app: FastAPI) -> None:
    app.router.default = Router([Route("/late", plain)])


def as_an_opaque_default(app: FastAPI) -> None:
    app.router.default = opaque


def as_a_default_that_is_a_method_of_the_router(app: FastAPI) -> None:
    async def answer(router: Any, scope: Any, receive: Any, send: Any) -> None:
        await opaque(scope, receive, send)

    app.router.default = MethodType(answer, app.router)


def as_the_default_of_a_mounted_router(app: FastAPI) -> None:
    app.state.mounted.router.default = opaque


def as_another_app_of_a_route(app: FastAPI) -> None:
    app.state.last.app = opaque


def for_a_host(app: FastAPI) -> None:
    app.router.routes.append(Host("testserver", Router([Route("/late", plain)])))


def as_files(app: FastAPI) -> None:
    app.frontend("/late", directory=Path(__file__).parent, check_dir=False)


def as_files_of_an_included_router(app: FastAPI) -> None:
    app.state.inner.frontend("/late", directory=Path(__file__).parent, check_dir=False)


class Layer:
    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@pytest.fixture
def app(make_app: App) -> FastAPI:
    """An app that lets users in, with a router and a mount, so that every route must say who may call."""
    app = make_app(users=True)
    state = app.state
    state.router, state.inner, state.mounted, state.deep = APIRouter(), APIRouter(), Starlette(), Starlette()
    state.mount, state.layer = Mount("/swapped", Router()), Layer(Router())
    app.get("/first", dependencies=[Depends(EITHER)])(lambda: "first")
    state.router.include_router(state.inner)
    state.router.routes.append(Mount("/deep", state.deep))
    app.include_router(state.router)
    app.router.routes += [Mount("/below", state.mounted), state.mount, Mount("/layer", state.layer)]
    app.get("/known", dependencies=[Depends(EITHER)])(lambda: "known")
    app.get("/last", dependencies=[Depends(EITHER)])(lambda: "last")
    state.last = app.routes[-1]
    return app


@pytest.mark.parametrize(
    ("add", "path"),
    [
        (to_the_app, "/late"),
        (to_an_included_router, "/late"),
        (by_including_another, "/late"),
        (a_plain_route, "/late"),
        (a_mount, "/late/x"),
        (below_a_mount, "/below/late"),
        (in_the_place_of_another, "/late"),
        (in_a_list_of_its_own, "/late"),
        (in_the_place_of_the_first, "/late"),
        (before_the_last, "/late"),
        (in_the_place_of_one_that_is_equal, "/last"),
        (to_a_router_in_a_router, "/late"),
        (with_a_router_that_an_included_router_includes, "/late"),
        (to_a_list_of_an_included_router_that_is_changed_by_hand, "/late"),
        (with_an_entry_of_another_router_that_is_moved_by_hand, "/late"),
        (to_a_router_that_fastapi_builds_again_only_later, "/late"),
        (below_a_mount_of_an_included_router, "/deep/late"),
        (as_another_app_of_a_mount, "/swapped/late"),
        (as_an_opaque_app_of_a_mount, "/swapped/late"),
        (as_another_app_of_a_layer_below_a_mount, "/layer/late"),
        (as_another_router_of_a_mounted_app, "/below/late"),
        (as_the_default, "/late"),
        (as_an_opaque_default, "/late"),
        (as_a_default_that_is_a_method_of_the_router, "/late"),
        (as_the_default_of_a_mounted_router, "/below/late"),
        (as_another_app_of_a_route, "/last"),
        (for_a_host, "/late"),
        (as_files, "/late/test_routes.py"),
        (as_files_of_an_included_router, "/late/test_routes.py"),
    ],
)
def test_a_late_route_that_says_nothing_answers_500_and_the_others_go_on(
    app: FastAPI,
    client: Client,
    user: Headers,
    caplog: pytest.LogCaptureFixture,
    *,
    add: Callable[[FastAPI], None],
    path: str,
) -> None:
    with client(app) as there:
        assert there.get("/known", headers=user()).status_code == 200
        add(app)
        for number in range(2):
            assert there.get(path, headers=user()).status_code == 500
            assert there.get("/known", headers=user()).status_code == 200
            app.get(f"/right/{number}", dependencies=[Depends(EITHER)])(nothing)  # so that all is read again
    errors = [
        record.message for record in caplog.records if record.levelno == logging.ERROR and record.name == "s2s_fastapi"
    ]
    assert len(errors) == 1
    assert "was added or changed after the start and answers 500: " in errors[0]


def test_what_a_late_route_does_is_not_done(app: FastAPI, client: Client, user: Headers) -> None:
    ran: list[str] = []
    with client(app) as there:
        there.get("/known", headers=user())
        app.post("/late")(lambda: ran.append("late"))
        there.post("/late", headers=user())
        assert ran == []


def test_a_late_route_that_says_it_answers(app: FastAPI, client: Client, user: Headers, service: Headers) -> None:
    with client(app) as there:
        app.get("/late", dependencies=[Depends(CHAT)])(nothing)
        assert there.get("/late", headers=service()).status_code == 200
        assert there.get("/late", headers=user()).status_code == 403
        assert there.get("/late").status_code == 401


def test_a_late_route_that_is_taken_away_again_takes_the_error_with_it(
    app: FastAPI, client: Client, user: Headers
) -> None:
    with client(app) as there:
        to_the_app(app)
        assert there.get("/late", headers=user()).status_code == 500
        del app.router.routes[-1]
        assert there.get("/late", headers=user()).status_code == 404


def test_a_late_requirement_that_fastapi_does_not_ask_answers_500(
    make_app: App, client: Client, service: Headers
) -> None:
    app = make_app()
    app.get("/known")(nothing)
    with client(app) as there:
        assert there.get("/known", headers=service()).status_code == 200

        @app.get("/late/{number}")
        async def late(number: int, caller: Annotated[Principal, Depends(CHAT), Depends(nothing)]) -> None: ...

        assert there.get("/late/7", headers=service(azp="eve", client_id="eve")).status_code == 500
        assert there.post("/late/7", headers=service()).status_code == 405
        assert there.get("/known", headers=service()).status_code == 200


def test_a_late_route_answers_500_although_the_same_route_answers_in_another_place(
    make_app: App, client: Client, service: Headers
) -> None:
    app, route, router = make_app(), APIRoute("/twice", nothing), APIRouter()
    route.app = CHAT.guard(route.app)
    app.router.routes.append(route)
    with client(app) as there:
        assert there.get("/twice", headers=service()).status_code == 200
        router.routes.append(route)
        app.include_router(router, prefix="/late")  # which makes another route of it, without the guard
        assert there.get("/late/twice", headers=service()).status_code == 500
        assert there.get("/twice", headers=service()).status_code == 200


def test_a_route_that_a_middleware_adds_while_a_request_is_on_its_way_answers_500(
    app: FastAPI, client: Client, user: Headers
) -> None:
    class Adding(Layer):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"] == "/below/late":
                below_a_mount(app)
            await super().__call__(scope, receive, send)

    app.user_middleware.append(Middleware(Adding))
    with client(app) as there:
        assert there.get("/known", headers=user()).status_code == 200
        assert there.get("/below/late", headers=user()).status_code == 500


def test_a_late_websocket_is_refused(app: FastAPI, client: Client, user: Headers) -> None:
    with client(app) as there:

        @app.websocket("/late")
        async def late(websocket: WebSocket) -> None:
            await websocket.accept()

        with pytest.raises(WebSocketDisconnect), there.websocket_connect("/late", headers=user()):
            pass


def test_a_late_route_of_an_app_for_services_answers_as_before(
    make_app: App, client: Client, service: Headers, realm: Realm
) -> None:
    app = make_app()
    with client(app) as there:
        app.get("/late")(lambda: "late")
        assert there.get("/late", headers=service()).json() == "late"
        assert there.get("/late").status_code == 401


def bad(app: FastAPI, path: str, **options: Any) -> None:
    @app.get(path, **options)
    async def late(caller: Annotated[Any, Depends(CHAT), Depends(nothing)]) -> str:
        return "in"


class TestOtherRoutesGoOn:
    def test_if_they_match_first(self, app: FastAPI, client: Client, user: Headers) -> None:
        with client(app) as there:
            bad(app, "/{name}")
            assert there.get("/known", headers=user()).json() == "known"
            assert there.get("/late", headers=user()).status_code == 500

    def test_if_a_websocket_has_the_same_path(self, app: FastAPI, client: Client, user: Headers) -> None:
        with client(app) as there:

            @app.websocket("/known")
            async def late(websocket: WebSocket) -> None:
                await websocket.accept()

            assert there.get("/known", headers=user()).json() == "known"
            with pytest.raises(WebSocketDisconnect), there.websocket_connect("/known", headers=user()):
                pass

    def test_if_another_host_has_the_same_path(self, app: FastAPI, client: Client, user: Headers) -> None:
        with client(app) as there:
            app.router.routes.insert(0, Host("other", Router([Route("/known", plain)])))
            assert there.get("/known", headers=user()).json() == "known"
            assert there.get("/known", headers={**user(), "Host": "other"}).status_code == 500

    def test_if_they_take_another_method(self, app: FastAPI, client: Client, user: Headers) -> None:
        with client(app) as there:
            bad(app, "/late")
            app.post("/late", dependencies=[Depends(EITHER)])(nothing)
            assert there.post("/late", headers=user()).status_code == 200
            assert there.get("/late", headers=user()).status_code == 500
            assert there.put("/late", headers=user()).status_code == 405

    def test_if_the_same_router_is_included_where_it_is_right(
        self, app: FastAPI, client: Client, user: Headers
    ) -> None:
        router = APIRouter()
        router.get("/x")(lambda: "x")
        router.routes.append(Mount("/m", Router([Route("/y", plain)])))
        with client(app) as there:
            app.include_router(router, prefix="/right", dependencies=[Depends(EITHER)])
            app.include_router(router, prefix="/late")
            assert there.get("/right/x", headers=user()).json() == "x"
            assert there.get("/late/x", headers=user()).status_code == 500

    def test_if_they_are_beside_it_below_the_same_mount(self, app: FastAPI, client: Client, user: Headers) -> None:
        with client(app) as there:
            app.state.mounted.router.routes += [Route("/right", EITHER.guard(plain)), Route("/late", plain)]
            assert there.get("/below/right", headers=user()).text == "plain"
            assert there.get("/below/late", headers=user()).status_code == 500


LATE = Route("/late", plain)


@pytest.mark.parametrize(
    "change",
    [
        lambda routes: routes.append(LATE),
        lambda routes: routes.extend([LATE]),
        lambda routes: routes.insert(0, LATE),
        lambda routes: routes.__iadd__([LATE]),
        lambda routes: routes.__setitem__(0, LATE),
        lambda routes: routes.__setitem__(slice(0, 1), [LATE, LATE]),
        lambda routes: (routes.reverse(), routes.append(LATE)),
        lambda routes: (routes.pop(0), routes.append(LATE)),
        lambda routes: (routes.remove(routes[0]), routes.append(LATE)),
        lambda routes: (routes.sort(key=id), routes.append(LATE)),
        lambda routes: (routes.clear(), routes.append(LATE)),
    ],
    ids=["append", "extend", "insert", "+=", "item", "slice", "reverse", "pop", "remove", "sort", "clear"],
)
@pytest.mark.parametrize("where", ["outermost", "below"])
def test_every_way_to_change_a_list_of_routes_is_noticed(
    app: FastAPI, client: Client, user: Headers, change: Callable[[Any], Any], where: str
) -> None:
    router, path = (app.router, "/late") if where == "outermost" else (app.state.mounted.router, "/below/late")
    app.state.mounted.router.routes.append(Route("/known", EITHER.guard(plain)))
    with client(app) as there:
        assert there.get("/below/known", headers=user()).status_code == 200
        change(router.routes)
        assert there.get(path, headers=user()).status_code == 500


class TestAWatchedList:
    @pytest.mark.parametrize(
        "change",
        [
            lambda held: held.append(3),
            lambda held: held.extend([3]),
            lambda held: held.insert(0, 3),
            lambda held: held.remove(1),
            lambda held: held.pop(),
            lambda held: held.clear(),
            lambda held: held.sort(),
            lambda held: held.reverse(),
            lambda held: held.__setitem__(0, 3),
            lambda held: held.__delitem__(0),
            lambda held: held.__iadd__([3]),
            lambda held: held.__imul__(2),
        ],
    )
    def test_notes_each_change(self, change: Callable[[Any], Any]) -> None:
        held, before = WatchedList([2, 1]), WatchedList.mark
        change(held)
        assert WatchedList.mark is not before

    def test_notes_a_change_that_failed_in_the_middle(self) -> None:
        def entries() -> Any:
            yield 1
            raise ValueError("no more")

        held, before = WatchedList([]), WatchedList.mark
        with pytest.raises(ValueError, match="no more"):
            held.extend(entries())
        assert held == [1]
        assert WatchedList.mark is not before

    def test_has_every_method_by_which_a_list_changes(self) -> None:
        harmless = {
            "__init_subclass__",
            "__subclasshook__",
            "__class_getitem__",
            "__getitem__",
            "index",
            "count",
            "copy",
        }
        inherited = {name for name in set(dir(list)) - set(dir(tuple)) - harmless if name not in vars(WatchedList)}
        assert inherited <= {"__reversed__"}

    def test_stays_one_list_for_two_owners(self) -> None:
        class Owner:
            def __init__(self, routes: list[Any]) -> None:
                self.routes = routes

        shared: list[Any] = [1]
        first, second = Owner(shared), Owner(shared)
        assert WatchedList.put(first, "routes")
        assert WatchedList.put(second, "routes")
        assert first.routes is second.routes

    def test_is_not_put_in_the_place_of_a_property_or_of_a_list_of_another_kind(self) -> None:
        class Mine(list[Any]):
            pass

        class Owner:
            other = Mine()

            @property
            def routes(self) -> list[Any]:
                return []

        owner = Owner()
        assert not WatchedList.put(owner, "routes")
        assert not WatchedList.put(owner, "other")


@pytest.mark.parametrize("kind", ["property", "list"])
def test_a_router_whose_routes_are_no_plain_list_is_compared_at_each_request(
    app: FastAPI, client: Client, user: Headers, kind: str
) -> None:
    held: list[Any] = [Route("/known", EITHER.guard(plain))]

    class Mine(list[Any]):
        pass

    class Own(Router):
        @property
        def routes(self) -> list[Any]:
            return list(held)

        @routes.setter
        def routes(self, routes: list[Any]) -> None:
            pass

    router = Router()
    if kind == "property":
        router = Own()
    else:
        router.routes = held = Mine(held)
    app.mount("/own", router)
    with client(app) as there:
        assert there.get("/own/known", headers=user()).status_code == 200
        held.append(LATE)
        assert there.get("/own/late", headers=user()).status_code == 500
        assert there.get("/own/known", headers=user()).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_no_method_that_a_late_route_takes_reaches_it(app: FastAPI, client: Client, user: Headers, method: str) -> None:
    ran: list[str] = []

    async def late(request: Request) -> PlainTextResponse:
        ran.append(request.method)
        return PlainTextResponse("in")

    with client(app) as there:
        app.add_route("/late", late, methods=["GET", "OPTIONS"])
        assert there.request(method, "/late", headers=user()).status_code == 500
    assert ran == []


def test_no_dependency_of_a_late_route_runs(app: FastAPI, client: Client, user: Headers) -> None:
    ran: list[str] = []
    with client(app) as there:
        bad(app, "/late", dependencies=[Depends(lambda: ran.append("ran"))])
        assert there.get("/late", headers=user()).status_code == 500
    assert ran == []


def test_a_late_dependency_of_the_app_that_fastapi_does_not_ask_is_noticed(
    make_app: App, client: Client, service: Headers
) -> None:
    app = make_app()
    app.get("/x")(nothing)
    with client(app) as there:
        assert there.get("/x", headers=service()).status_code == 200
        app.router.dependencies.append(Depends(CHAT))
        assert there.get("/x", headers=service()).status_code == 500


def test_a_refusal_of_a_late_route_is_one_decision_that_says_why(
    app: FastAPI, client: Client, user: Headers, observed: Any
) -> None:
    with client(app) as there:
        to_the_app(app)
        there.get("/late", headers=user())
    (decision,) = observed.decisions
    assert str(decision.reason) == "not_started"
    assert "GET /late" in decision.cure


def test_a_layer_that_is_put_around_the_app_of_a_route_later_runs(app: FastAPI, client: Client, user: Headers) -> None:
    with client(app) as there:
        app.state.last.app = Layer(app.state.last.app)
        assert there.get("/last", headers=user()).json() == "last"


def test_a_route_that_got_another_app_and_was_taken_away_harms_no_other(
    app: FastAPI, client: Client, user: Headers
) -> None:
    with client(app) as there:
        app.state.last.app = opaque
        app.router.routes.remove(app.state.last)
        assert there.get("/last", headers=user()).status_code == 404
        assert there.get("/known", headers=user()).json() == "known"


def test_a_route_that_takes_no_checkpoint_fails_the_whole_app(app: FastAPI, client: Client, user: Headers) -> None:
    class Sealed(Route):
        @property
        def handle(self) -> Any:
            return super().handle

    with client(app) as there:
        app.router.routes.append(Sealed("/late", plain))
        assert there.get("/late", headers=user()).status_code == 500
        assert there.get("/known", headers=user()).status_code == 500


def test_a_mount_that_stands_in_an_app_and_in_an_included_router_is_two_mounts(
    app: FastAPI, client: Client, user: Headers
) -> None:
    mount = Mount("/both", Router([Route("/x", EITHER.guard(plain))]))
    app.router.routes.append(mount)
    router = APIRouter(prefix="/v1")
    router.routes.append(mount)
    with client(app) as there:
        app.include_router(router, prefix="/v1")
        assert there.get("/v1/both/x", headers=user()).text == "plain"
        mount.app = opaque
        assert there.get("/both/x", headers=user()).status_code == 500
        assert there.get("/v1/both/x", headers=user()).text == "plain"


def test_a_late_public_route_answers_without_a_token(make_app: App, client: Client) -> None:
    app = make_app(users=True, public_paths=["/open"])
    with client(app) as there:
        assert there.get("/open").status_code == 404
        app.get("/open")(lambda: "open")
        assert there.get("/open").json() == "open"


def test_a_late_route_gets_its_warning_once(
    make_app: App, client: Client, service: Headers, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()
    with client(app) as there:

        @app.get("/late")
        async def late() -> str:
            return str(CHAT)

        for path in ("/late", "/other", "/late"):
            app.get(path + "/more")(nothing)
            there.get(path, headers=service())
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "GET /late" in warnings[0]


def test_an_app_without_our_middleware_that_has_the_same_routes_is_not_touched(
    make_app: App, client: Client, user: Headers
) -> None:
    ours, other = make_app(users=True), FastAPI(openapi_url=None)
    other.router.routes = ours.router.routes
    with client(ours) as there:
        bad(ours, "/late")
        assert there.get("/late", headers=user()).status_code == 500
    other.get("/x")(lambda: "x")
    assert client(other).get("/x").json() == "x"


def test_a_second_middleware_judges_the_same_route_by_its_own_settings(
    make_app: App, client: Client, user: Headers, service: Headers
) -> None:
    users, services = make_app(users=True), make_app()
    services.router.routes = users.router.routes
    with client(users) as there, client(services) as elsewhere:
        users.get("/late")(lambda: "in")
        assert there.get("/late", headers=user()).status_code == 500
        assert elsewhere.get("/late", headers=service()).json() == "in"
        assert there.get("/late", headers=user()).status_code == 500


def test_nothing_is_read_again_as_long_as_nothing_changes(
    options: Callable[..., dict[str, Any]], client: Client, service: Headers
) -> None:
    reads: list[Any] = []

    class CountingStart(Start):
        def _read(self, app: Any) -> Any:
            reads.append(app)
            return super()._read(app)

    class Counting(ServiceAuthMiddleware):
        def __init__(self, app: ASGIApp, /, **options: Any) -> None:
            super().__init__(app, **options)
            self._start = CountingStart(self, app, self._start.options)

    app, router = FastAPI(openapi_url=None), APIRouter()
    app.add_middleware(Counting, **options())
    router.get("/x")(nothing)
    router.routes.append(Mount("/deep", Starlette(routes=[Route("/x", plain)])))
    app.include_router(router)
    app.mount("/below", Router([Route("/x", plain)]))
    with client(app) as there:
        bad(app, "/late")
        for path in ("/x", "/deep/x", "/below/x", "/late", "/nowhere", "/x"):
            there.get(path, headers=service())
    assert len(reads) == 2
