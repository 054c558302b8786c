"""`service_client` and `service_auth`: in routes, in scripts, over loops, and across redirects."""

import asyncio
import copy
import functools
import gc
import itertools
import os
import pickle
import re
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

import anyio.from_thread
import httpx
import httpx2
import pytest
import trio
from fastapi import BackgroundTasks, Depends, FastAPI
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, StreamingResponse
from starlette.testclient import TestClient

from s2s_fastapi.caller.auth import ServiceTokenAuth
from s2s_fastapi.caller.lifespan import service_lifespan
from s2s_fastapi.caller.service_client import service_auth, service_client
from s2s_fastapi.errors import ConfigurationError, TokenWithheld
from tests.caller.fakes import SECRET, Clock, Keycloak, Receiver, settings
from tests.kit.forks import in_child, needs_fork

pytestmark = pytest.mark.usefixtures("source")

PACKAGES = [httpx, httpx2]


def run_on(loop: str, main: Callable[[], Any]) -> Any:
    return trio.run(main) if loop == "trio" else asyncio.run(main())


LOOPS = ["asyncio", "trio"]


@pytest.mark.parametrize("package", PACKAGES)
def test_an_async_route_gets_an_async_client_that_carries_the_token(package: Any, bob: Receiver) -> None:
    crm = service_client(bob.url, audience="bob", client_class=package.AsyncClient)
    # The lifespan closes the client: an open connection would be reported in whichever test the garbage collector runs.
    app = FastAPI(lifespan=service_lifespan(crm, warm_up=False))

    @app.get("/")
    async def route(client: Annotated[Any, Depends(crm)]) -> dict[str, Any]:
        response = await client.get("/tickets")
        return {"type": str(type(client)), "status": response.status_code}

    with TestClient(app) as browser:
        answer = browser.get("/").json()

    assert answer == {"type": str(package.AsyncClient), "status": 200}
    assert (bob.seen[0].path, bob.tokens[0]) == ("/tickets", f"Bearer {crm.auth.token()}")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_def_route_gets_the_sync_client(package: Any, bob: Receiver) -> None:
    crm = service_client(bob.url, audience="bob", client_class=package.AsyncClient)
    app = FastAPI(lifespan=service_lifespan(crm, warm_up=False))

    @app.get("/")
    def route(client: Annotated[Any, Depends(crm.sync)]) -> dict[str, Any]:
        return {"type": str(type(client)), "status": client.get("/x").status_code, "id": id(client)}

    with TestClient(app) as browser:
        first, second = browser.get("/").json(), browser.get("/").json()

    assert first == second
    assert (first["type"], first["status"]) == (str(package.Client), 200)
    with crm as client:
        assert client.get("/").status_code == 200


def test_the_dependency_stays_on_the_event_loop() -> None:
    crm = service_client("http://bob")
    seen: list[int] = []

    class Watching(httpx.AsyncClient):
        def __init__(self, **options: Any) -> None:
            seen.append(threading.get_ident())
            super().__init__(**options)

    watched = service_client("http://bob", client_class=Watching)
    app = FastAPI()

    @app.get("/")
    async def route(one: Annotated[Any, Depends(crm)], two: Annotated[Any, Depends(watched)]) -> int:
        return threading.get_ident()

    with TestClient(app) as browser:
        assert browser.get("/").json() == seen[0]


def test_a_background_task_and_an_incoming_webhook_can_call_out(bob: Receiver) -> None:
    crm = service_client(bob.url)
    app = FastAPI(lifespan=service_lifespan(crm, warm_up=False))

    async def later(client: httpx.AsyncClient) -> None:
        await client.post("/later")

    @app.post("/hooks/x")
    async def hook(client: Annotated[httpx.AsyncClient, Depends(crm)], tasks: BackgroundTasks) -> None:
        tasks.add_task(later, client)

    with TestClient(app) as browser:
        browser.post("/hooks/x")

    assert [seen.path for seen in bob.seen] == ["/later"]


def test_an_override_takes_its_place_also_by_an_equal_object() -> None:
    app = FastAPI()

    @app.get("/")
    async def route(
        one: Annotated[Any, Depends(service_client("http://bob", audience="bob"))],
        two: Annotated[Any, Depends(service_client("http://bob", audience="bob").sync)],
        three: Annotated[Any, Depends(service_auth("http://bob", audience="bob"))],
    ) -> list[str]:
        return [one, two, three]

    app.dependency_overrides[service_client("http://bob", audience=["bob"])] = lambda: "one"
    app.dependency_overrides[service_client("http://bob", audience="bob").sync] = lambda: "two"
    app.dependency_overrides[service_auth("http://bob:80", audience="bob")] = lambda: "three"

    assert TestClient(app).get("/").json() == ["one", "two", "three"]


def test_clients_are_equal_by_all_that_was_written() -> None:
    one = service_client("http://bob", audience="bob", timeout=3)
    others = [
        service_client("http://bob:8000", audience="bob", timeout=3),
        service_client("http://bob", audience="charles", timeout=3),
        service_client("http://bob", audience="bob", timeout=4),
        service_client("http://bob", audience="bob", timeout=3, scope="x"),
        service_client("http://bob", audience="bob", timeout=3, settings=settings()),
        service_client("http://bob", audience="bob", timeout=3, client_class=httpx2.AsyncClient),
    ]

    assert one == service_client("http://bob", audience="bob", timeout=3)
    assert all(one != other for other in others)
    assert one.sync != one
    assert one.sync == service_client("http://bob", audience="bob", timeout=3).sync


def test_service_auth_gives_the_auth_object(bob: Receiver) -> None:
    app = FastAPI()
    bobs = service_auth(bob.url, audience="bob")

    @app.get("/")
    async def route(auth: Annotated[ServiceTokenAuth, Depends(bobs)]) -> int:
        async with httpx.AsyncClient(auth=auth) as client:
            return (await client.get(bob.url)).status_code

    with TestClient(app) as browser:
        assert browser.get("/").json() == 200
    assert bobs.downstream == bobs.auth.downstream


@pytest.mark.parametrize("factory", [service_client, service_auth, ServiceTokenAuth])
def test_a_factory_that_is_not_called_fails_at_the_decorator(factory: Any) -> None:
    app = FastAPI()

    with pytest.raises(TypeError, match="written in code"):

        @app.get("/")
        async def route(client: Annotated[Any, Depends(factory)]) -> None: ...


CRM: Any = service_client("http://crm", audience="crm-api")
MISPLACED: Any = service_client
AUTH: Any = service_auth("http://crm", audience="crm-api")


def route_of(dependency: Any) -> None:
    @FastAPI().get("/")
    async def route(client: Annotated[Any, Depends(dependency)]) -> None: ...


def with_(client: Any) -> None:
    with client:
        pass


def async_with(client: Any) -> None:
    async def main() -> None:
        async with client:
            pass

    asyncio.run(main())


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        (lambda: route_of(CRM()), "In a route write Depends(crm), without parentheses after crm."),
        (lambda: route_of(CRM.sync()), "In a def route write Depends(crm.sync), without parentheses after sync."),
        (lambda: route_of(AUTH()), "In a route write Depends(bob), without parentheses after bob."),
        (
            lambda: FastAPI(dependencies=[Depends(CRM())]).get("/")(print),
            "In a route write Depends(crm), without parentheses after crm.",
        ),
        (lambda: with_(CRM()), "`with crm as client`"),
        (lambda: async_with(CRM()), "`async with crm as client`"),
        (lambda: with_(CRM.sync()), "`with crm as client`"),
        (lambda: CRM().get("/"), "In a route write Depends(crm), without parentheses after crm."),
        (lambda: with_(CRM.sync), "write `with crm as client`"),
        (lambda: async_with(CRM.sync), "`async with crm as client`"),
        (lambda: CRM.get("/tickets"), "Write `client: Annotated[httpx.AsyncClient, Depends(crm)]` in a route"),
        (lambda: CRM.post("/tickets"), "then client.post."),
        (lambda: CRM.headers, "then client.headers."),
        (lambda: CRM.sync.get("/tickets"), "Write `client: Annotated[httpx.Client, Depends(crm.sync)]` in a route"),
        (lambda: CRM.sync.stream, "then client.stream."),
        (lambda: MISPLACED("http://crm", "crm-api"), "Write service_client('http://crm', audience='crm-api')."),
        (lambda: MISPLACED("http://crm", ["crm-api"]), "audience="),
        (lambda: MISPLACED("http://crm", "a", "b"), "audience='a'"),
        (lambda: ServiceTokenAuth("http://crm", "crm-api"), "write audience='crm-api'"),
        (lambda: service_auth("http://crm", "crm-api"), "write audience='crm-api'"),
    ],
)
def test_a_misuse_says_what_to_write(written: Callable[[], Any], instead: str) -> None:
    with pytest.raises((ConfigurationError, AttributeError)) as caught:
        written()
    assert instead in str(caught.value)


def test_what_no_http_client_has_either_is_missing_as_ever() -> None:
    for thing in (CRM, CRM.sync):
        assert not hasattr(thing, "get")
        with pytest.raises(AttributeError, match="object has no attribute 'nonsense'"):
            _ = thing.nonsense


def served(route: Any, caplog: pytest.LogCaptureFixture, *, lifespan: Any = None) -> list[str]:
    """Return what is warned of while an app serves `route` twice."""
    app = FastAPI(lifespan=lifespan)
    app.get("/")(route)
    with TestClient(app) as browser:
        for _ in range(2):
            assert browser.get("/").status_code == 200
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_client_that_fits_is_said_nothing_of(caplog: pytest.LogCaptureFixture) -> None:
    crm = service_client("http://crm")

    class Mine(httpx.AsyncClient):
        pass

    mine = service_client("http://crm", client_class=Mine)

    def repository(client: Annotated[httpx.AsyncClient, Depends(crm)]) -> Any:  # hands it on to a route that awaits
        return client

    async def arepository(client: Annotated[httpx.Client, Depends(crm.sync)]) -> Any:
        return client

    async def annotated(one: Annotated[httpx.AsyncClient, Depends(crm)], two: Annotated[Any, Depends(crm)]) -> None: ...

    async def derived(
        one: Annotated[httpx.AsyncClient, Depends(mine)], two: Annotated[Mine, Depends(mine)]
    ) -> None: ...

    async def default(client: httpx.AsyncClient = Depends(crm)) -> None: ...

    async def union(client: Annotated[httpx.AsyncClient | httpx.Client, Depends(crm)]) -> None: ...

    async def below(client: Annotated[Any, Depends(repository)]) -> None: ...

    def below_sync(client: Annotated[Any, Depends(arepository)]) -> None: ...

    def plain(client: Annotated[httpx.Client, Depends(crm.sync)]) -> None: ...

    def later(client: Annotated[httpx.AsyncClient, Depends(crm)], tasks: BackgroundTasks) -> None: ...

    async def stream(client: Annotated[httpx.AsyncClient, Depends(crm)]) -> AsyncIterator[str]:
        yield "x"

    for route in (annotated, derived, default, union, below, below_sync, plain, later, stream):
        assert served(route, caplog) == []


def test_a_route_that_brings_its_client_to_the_right_kind_of_code_is_said_nothing_of(
    bob: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    crm = service_client(bob.url)
    Async = Annotated[httpx.AsyncClient, Depends(crm)]  # noqa: N806 - a type
    Sync = Annotated[httpx.Client, Depends(crm.sync)]  # noqa: N806 - a type

    def from_thread(client: Async) -> int:
        return int(anyio.from_thread.run(client.get, "/").status_code)

    def streams(client: Async) -> Any:
        async def lines() -> AsyncIterator[bytes]:
            yield (await client.get("/")).content

        return StreamingResponse(lines())

    def afterwards(client: Async) -> Any:
        return JSONResponse(1, background=BackgroundTask(client.get, "/"))

    async def in_threadpool(client: Sync) -> int:
        return int((await run_in_threadpool(client.get, "/")).status_code)

    async def in_executor(client: Sync) -> int:
        return int((await asyncio.get_running_loop().run_in_executor(None, client.get, "/")).status_code)

    for number, route in enumerate((from_thread, streams, afterwards, in_threadpool, in_executor), 1):
        assert served(route, caplog, lifespan=service_lifespan(crm)) == []
        assert len(bob.seen) == 2 * number


class Incomparable:
    def __eq__(self, other: object) -> bool:
        if other is self:
            return True
        raise LookupError

    def __hash__(self) -> int:
        return id(self)

    async def __call__(self) -> int:
        return 1


@dataclass
class Handler:
    calls: int = 0

    async def __call__(self, client: Annotated[Any, Depends(service_client("http://crm"))]) -> None:
        assert client

    async def method(self, client: Annotated[Any, Depends(service_client("http://crm"))]) -> None:
        assert client


@dataclass(slots=True)
class Slots(Handler):
    pass


@pytest.mark.parametrize("started", [True, False])
@pytest.mark.parametrize("kind", ["dataclass", "slots", "method", "partial", "class", "annotation", "dependency"])
def test_an_endpoint_of_any_kind_stops_nothing(kind: str, started: bool, caplog: pytest.LogCaptureFixture) -> None:
    crm = service_client("http://crm")

    async def route(client: Annotated[Any, Depends(crm)], more: int = 1) -> None:
        assert client

    class Route:
        def __init__(self, client: Annotated[Any, Depends(crm)]) -> None:
            assert client

    async def odd(client: Annotated[Any, Depends(crm)]) -> None: ...

    odd.__annotations__["more"] = "1 / 0"

    async def beside(client: Annotated[Any, Depends(crm)], other: Annotated[Any, Depends(Incomparable())]) -> None: ...

    endpoint: Any = {
        "dataclass": Handler(),
        "slots": Slots(),
        "method": Handler().method,
        "partial": functools.partial(route, more=2),
        "class": lambda made=Depends(Route): None,
        "annotation": odd,
        "dependency": beside,
    }[kind]
    # FastAPI itself reads no such endpoint; nor does Python's own inspect before 3.13 the dependency that cannot be compared.
    if kind == "annotation" or (kind == "dependency" and sys.version_info < (3, 13)):
        crm.look_at(endpoint)
        return
    assert served(endpoint, caplog, lifespan=service_lifespan(crm, warm_up=False) if started else None) == []


def test_a_client_keeps_no_endpoint() -> None:
    crm = service_client("http://crm")

    def app() -> Any:
        async def route(client: Annotated[Any, Depends(crm)]) -> None: ...

        crm.look_at(route)
        return weakref.ref(route)

    there = app()
    gc.collect()
    assert there() is None


def test_an_annotation_that_does_not_fit_is_a_sentence_without_a_lifespan_too() -> None:
    app, crm = FastAPI(), service_client("http://crm")

    @app.get("/")
    async def route(client: Annotated[httpx.Client, Depends(crm)]) -> None: ...

    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"annotated with httpx.Client and gets httpx.AsyncClient"):
            TestClient(app).get("/")


@pytest.mark.parametrize(
    "client",
    [
        service_client("http://crm"),
        service_client("http://crm/api", audience=["a", "b"], scope="s", timeout=3.0, headers={"X": "1"}),
        service_client(os.getcwd, client_class=httpx2.AsyncClient),
        service_client("http://crm", settings=settings(client_secret=None, client_secret_file="/run/secret")),
        service_client("http://crm").sync,
        service_auth("http://crm", audience="a"),
    ],
    ids=repr,
)
def test_what_was_written_is_pickled_and_copied(client: Any) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        twin = pickle.loads(pickle.dumps(client, protocol))  # noqa: S301 - our own
        assert (twin, hash(twin), repr(twin)) == (client, hash(client), repr(client))
    assert copy.copy(client) == client
    assert copy.deepcopy(client) == client


def test_a_client_that_is_open_is_pickled_as_it_was_written(bob: Receiver) -> None:
    crm = service_client(bob.url)
    with crm as client:
        client.get("/")
        twin = pickle.loads(pickle.dumps(crm))  # noqa: S301 - our own
    with twin as another:
        assert another.get("/").status_code == 200


def test_a_client_with_a_secret_in_its_settings_is_not_pickled() -> None:
    crm = service_client("http://crm", settings=settings())
    for thing in (crm, crm.sync, service_auth("http://crm", settings=settings())):
        with pytest.raises(TypeError, match="KEYCLOAK_CLIENT_SECRET_FILE") as caught:
            pickle.dumps(thing)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("package", PACKAGES)
def test_a_queue_consumer_and_a_cron_job_open_and_close_it(package: Any, loop: str, bob: Receiver) -> None:
    crm = service_client(bob.url, client_class=package.AsyncClient)

    async def consumer() -> Any:
        async with crm as client:
            assert (await client.get("/a")).status_code == 200
            async with crm as again:
                assert again is client
            assert not client.is_closed
        return client

    assert run_on(loop, consumer).is_closed
    assert run_on(loop, consumer).is_closed  # a second loop
    with crm as client:
        assert client.get("/b").status_code == 200
    assert client.is_closed
    with crm as another:
        assert another.get("/c").status_code == 200
    assert len(set(bob.tokens)) == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_a_second_loop_gets_a_client_of_its_own_and_the_dead_one_is_dropped(loop: str) -> None:
    crm = service_client("http://bob")
    seen: list[Any] = []

    async def main() -> None:
        seen.append(await crm())
        assert await crm() is seen[-1]

    for _ in range(5):
        run_on(loop, main)

    assert len(set(map(id, seen))) == 5
    assert len(crm._open().asynchronous._places) == 1


def test_trio_and_asyncio_at_once_do_not_meet() -> None:
    crm = service_client("http://bob")
    seen: list[Any] = []
    ready = threading.Barrier(3)

    async def main() -> None:
        client = await crm()
        ready.wait(5)
        assert await crm() is client
        seen.append(client)
        ready.wait(5)

    running = [threading.Thread(target=run_on, args=(loop, main)) for loop in ("asyncio", "trio", "asyncio")]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(10)

    assert len(set(map(id, seen))) == 3


@pytest.mark.parametrize("loop", LOOPS)
def test_what_was_lent_to_a_request_is_not_closed_under_it(loop: str) -> None:
    crm = service_client("http://bob")

    async def main() -> None:
        async with crm as held:
            lent = await crm()
            assert lent is held
        assert not lent.is_closed
        assert await crm() is lent
        await lent.aclose()

    run_on(loop, main)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_somebody_closed_is_replaced(loop: str) -> None:
    crm = service_client("http://bob")

    async def main() -> None:
        async with await crm():
            pass
        another = await crm()
        assert not another.is_closed
        await another.aclose()

    run_on(loop, main)
    with crm as client:
        client.close()
        assert not crm.lend_sync().is_closed


@needs_fork
def test_a_forked_child_opens_its_own_and_leaves_the_parents_alone() -> None:
    crm = service_client("http://bob")
    parents = crm.lend_sync()

    def child() -> None:
        assert crm.lend_sync() is not parents
        assert not parents.is_closed

    assert in_child(child) == 0
    assert crm.lend_sync() is parents
    parents.close()


def test_a_function_is_asked_for_the_url_at_the_first_use_and_once(bob: Receiver) -> None:
    asked: list[int] = []

    def url() -> str:
        asked.append(1)
        return bob.url

    crm = service_client(url)
    assert asked == []
    with crm as client:
        client.get("/")
    with crm as client:
        client.get("/")

    assert asked == [1]
    assert crm.downstream.origins == (bob.url,)


def test_a_base_url_with_a_path_is_pinned_to_its_origin(bob: Receiver) -> None:
    with service_client(f"{bob.url}/api/v1") as client:
        client.get("/tickets")
        client.get(f"{bob.url}/elsewhere")

    assert [seen.path for seen in bob.seen] == ["/api/v1/tickets", "/elsewhere"]


WRONG = [
    "",
    "bob",
    "bob:8000",
    "//bob",
    "http://",
    "http://u:p@bob",
    "http://bob?x=1",
    "http://bob#x",
    "ftp://bob",
    "http://b b",
]


@pytest.mark.parametrize("url", WRONG)
def test_a_wrong_base_url_is_refused_where_it_is_written(url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        service_client(url)
    assert "u:p" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="base_url"), service_client(lambda: url):
        pass


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"auth": ("u", "p")}, "auth="),
        ({"auth": None}, "auth="),
        ({"headers": {"authorization": "Bearer x"}}, "Authorization"),
        ({"headers": [("Authorization", "x")]}, "Authorization"),
        ({"client_class": httpx.Client}, "client_class="),
        ({"client_class": dict}, "client_class="),
        ({"client_class": "httpx"}, "client_class="),
        ({"audience": ""}, "audience="),
        ({"scope": "a b"}, "scope="),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        service_client("http://bob", **options)


def test_something_else_than_a_url_is_refused() -> None:
    wrong: Any = 7
    with pytest.raises(ConfigurationError, match="base_url"):
        service_client(wrong)


def test_options_reach_the_client_and_the_users_hooks_stay(bob: Receiver) -> None:
    seen: list[str] = []
    options: dict[str, Any] = {
        "timeout": 3.5,
        "headers": {"X-Mine": "1"},
        "event_hooks": {"request": [lambda request: seen.append(request.headers["X-Mine"])], "response": []},
    }
    with service_client(bob.url, **options) as client:
        client.get("/")
        assert client.timeout == httpx.Timeout(3.5)
        assert client.follow_redirects is False

    assert seen == ["1"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_cookie_of_one_request_reaches_the_next_unless_cookies_are_asked_for(package: Any, bob: Receiver) -> None:
    sent: list[str | None] = []
    options: dict[str, Any] = {
        "client_class": package.AsyncClient,
        "event_hooks": {"request": [lambda request: sent.append(request.headers.get("Cookie"))]},
    }
    bob.always = 302, {"Set-Cookie": "sid=alice; Path=/", "Location": "/b"}, b""
    with service_client(bob.url, **options) as client:
        assert client.get("/").cookies["sid"] == "alice"  # who made the call may read it
        client.get("/")
        client.get("/", headers={"Cookie": "mine=1"})
        assert not client.cookies
    with service_client(bob.url, cookies={}, **options) as client:
        client.get("/")
        client.get("/")

    assert sent == [None, None, "mine=1", None, "sid=alice"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_proxy_of_the_environment_gets_the_token_unless_the_developer_says_so(
    package: Any, bob: Receiver, charles: Receiver, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("HTTP_PROXY", charles.url)
    environment.setenv("NO_PROXY", "")
    crm = service_client(bob.url, client_class=package.AsyncClient)

    async def main() -> None:
        async with crm as client:
            await client.get("/async")

    asyncio.run(main())
    with crm as client:
        client.get("/sync")
    assert charles.seen == []
    with service_client(bob.url, client_class=package.AsyncClient, trust_env=True) as trusting:
        trusting.get("/proxied")

    assert [seen.path for seen in bob.seen] == ["/async", "/sync"]
    assert len(charles.seen) == 1


@pytest.mark.parametrize("package", PACKAGES)
def test_no_async_client_keeps_a_cookie_either(package: Any, bob: Receiver) -> None:
    bob.always = 200, {"Set-Cookie": "sid=alice; Path=/"}, b""
    crm = service_client(bob.url, client_class=package.AsyncClient)

    async def main() -> None:
        async with crm as client:
            await client.get("/")
            assert "Cookie" not in client.build_request("GET", "/").headers
            assert not client.cookies

    asyncio.run(main())


def test_options_for_async_clients_only_are_refused_by_the_sync_one() -> None:
    async def hook(request: Any) -> None: ...

    for options in ({"transport": httpx.ASGITransport(FastAPI())}, {"event_hooks": {"request": [hook]}}):
        crm = service_client("http://bob", **options)
        with pytest.raises(ConfigurationError, match="need another service_client"):
            crm.lend_sync()


def test_a_request_elsewhere_is_withheld(bob: Receiver, charles: Receiver) -> None:
    cure = "A service_client calls one origin: write another one for another service, or for another address of this service."
    with service_client(bob.url) as client, pytest.raises(TokenWithheld, match=re.escape(cure)):
        client.get(charles.url)
    assert charles.seen == []


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_elsewhere_carries_nothing(package: Any, status: int, bob: Receiver, charles: Receiver) -> None:
    bob.always = (status, {"Location": charles.url}, b"")
    crm = service_client(bob.url, client_class=package.AsyncClient, follow_redirects=True)

    async def main() -> None:
        async with crm as client:
            assert (await client.get("/")).status_code == 200

    asyncio.run(main())
    with crm as client:
        assert client.get("/").status_code == 200
    assert charles.tokens == [None, None]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_hook_that_exchanges_the_token_for_another_sends_nothing(package: Any, bob: Receiver) -> None:
    def exchange(request: Any) -> None:
        request.headers["Authorization"] = "Bearer of-somebody-else"

    async def aexchange(request: Any) -> None:
        exchange(request)

    with (
        service_client(bob.url, client_class=package.AsyncClient, event_hooks={"request": [exchange]}) as client,
        pytest.raises(TokenWithheld, match="An event hook") as caught,
    ):
        client.get("/")

    async def main() -> None:
        async with service_client(
            bob.url, client_class=package.AsyncClient, event_hooks={"request": [aexchange]}
        ) as client:
            with pytest.raises(TokenWithheld):
                await client.get("/")
            assert (await client.get("/", auth=None)).status_code == 200  # nothing of ours is there to be exchanged

    asyncio.run(main())
    assert "of-somebody-else" not in str(caught.value)
    assert bob.tokens == ["Bearer of-somebody-else"]


def test_threads_that_ask_for_a_base_url_together_get_one_answer() -> None:
    meeting, answers = threading.Barrier(8), itertools.count(8000)

    def elsewhere() -> str:
        meeting.wait(5)
        return f"http://bob:{next(answers)}"

    bob = service_client(elsewhere, audience="bob", settings=settings())
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(lambda: bob.auth) for _ in range(8)]
        assert len({id(answer.result()) for answer in asked}) == 1
    assert bob.downstream == bob.auth.downstream


@pytest.mark.parametrize("package", PACKAGES)
def test_a_redirect_from_http_to_https_of_one_host_carries_nothing(
    package: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[str, str | None]] = []

    def answer(request: Any) -> Any:
        seen.append((str(request.url), request.headers.get("Authorization")))
        if request.url.scheme == "http":
            return package.Response(301, headers={"Location": "https://bob.example.com/"})
        return package.Response(200)

    options = {"follow_redirects": True, "transport": package.MockTransport(answer)}
    crm = service_client("http://bob.example.com", client_class=package.AsyncClient, **options)

    async def main() -> None:
        async with crm as client:
            await client.get("/")

    asyncio.run(main())
    with crm as client:
        client.get("/")

    assert [token is None for _, token in seen] == [False, True, False, True]
    told = "a redirect led from http://bob.example.com:80 to https://bob.example.com:443"
    assert caplog.text.count(told) == 1
    caplog.clear()
    with package.Client(
        auth=service_auth("http://bob.example.com").auth, **options
    ) as bare:  # what httpx does by itself
        bare.get("http://bob.example.com/")
    assert seen[-1][1] is not None
    assert told not in caplog.text  # nothing was left behind


def test_a_redirect_within_asked_origins_keeps_the_token(bob: Receiver, charles: Receiver) -> None:
    bob.always = (307, {"Location": f"{bob.url}/b"}, b"")
    bob.answers = [(307, {"Location": f"{bob.url}/b"}, b""), (200, {}, b"")]
    with service_client(bob.url, follow_redirects=True) as client:
        assert client.get("/a").status_code == 200
        assert client.get(charles.url, auth=service_auth(charles.url).auth).status_code == 200

    assert None not in bob.tokens + charles.tokens


def test_the_401_is_renewed_below_the_users_client(bob: Receiver, keycloak: Keycloak, clock: Clock) -> None:
    with service_client(bob.url) as client:
        client.get("/")
        clock.now += 11
        bob.refused = {str(bob.tokens[0])}
        assert client.post("/", json={}).status_code == 200

    assert len(keycloak.requests) == 2


def test_it_shows_no_secret() -> None:
    crm = service_client("http://bob", audience="bob", scope="s", settings=settings())

    assert repr(crm) == "service_client('http://bob', audience=['bob'], scope=['s'])"
    assert "s3cret" not in f"{crm.sync!r} {vars(crm)}"


def test_nothing_is_read_or_opened_when_it_is_written(environment: pytest.MonkeyPatch, keycloak: Keycloak) -> None:
    for name in ("URL", "REALM", "CLIENT_ID", "CLIENT_SECRET"):
        environment.delenv(f"KEYCLOAK_{name}")
    crm = service_client("http://bob", audience="bob")

    assert crm.downstream.audiences == {"bob"}
    with pytest.raises(ConfigurationError, match="KEYCLOAK_URL"):
        crm.auth.token()
    assert keycloak.opened == []
