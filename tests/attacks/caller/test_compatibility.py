"""Lines 53 and 54 of the list: whichever httpx is there, and wherever a call is made from."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import httpx2
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request
from fastapi.testclient import TestClient

from s2s_fastapi import ServiceTokenAuth, TokenRequestError, service_auth, service_client, service_lifespan
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.faults import disconnecting
from tests.attacks.caller.stack import TLS, asked, idle
from tests.caller.fakes import Clock, Receiver

pytestmark = pytest.mark.usefixtures("source")

PACKAGES = [httpx, httpx2]

TOO_LATE = """
try:
    httpx2.alias_httpx()
except RuntimeError as refused:
    assert "before" in str(refused)
else:
    raise AssertionError
packages = [httpx, httpx2]
"""
INSTALLED = {
    "httpx alone": "import sys; sys.modules['httpx2'] = None; import httpx; packages = [httpx]",
    "both": "import httpx, httpx2; packages = [httpx, httpx2]",
    "aliased before": "import httpx2; httpx2.alias_httpx(); import httpx; packages = [httpx, httpx2]; assert httpx is httpx2",
    # httpx2 refuses to take the name once httpx was imported, and we import it: whoever is too late keeps both.
    "aliased after the import": f"import httpx, httpx2, s2s_fastapi; {TOO_LATE}",
    "aliased after the first object": f"import httpx, httpx2, s2s_fastapi; s2s_fastapi.ServiceTokenAuth('http://x'); {TOO_LATE}",
}


@pytest.mark.parametrize("installed", INSTALLED)
def test_one_object_works_with_whichever_httpx_there_is(installed: str, bob: Receiver, issuer: EmbeddedIssuer) -> None:
    script = f"""
{INSTALLED[installed]}
import asyncio
from s2s_fastapi import ServiceTokenAuth
auth = ServiceTokenAuth({bob.url!r}, audience="receiver")
for package in packages:
    assert package.get({bob.url!r}, auth=auth).status_code == 200
    async def main():
        async with package.AsyncClient(auth=auth) as client:
            assert (await client.get({bob.url!r})).status_code == 200
    asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert len(set(bob.tokens)) == 1
    assert len(asked(issuer)) == 1


@pytest.mark.parametrize("package", PACKAGES)
def test_a_plain_client_in_the_lifespan_of_an_app(package: Any, bob: Receiver, issuer: EmbeddedIssuer) -> None:
    auth = ServiceTokenAuth(bob.url, audience="receiver")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with package.AsyncClient(auth=auth, base_url=bob.url, verify=TLS) as client:
            yield {"client": client}

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def call(request: Request) -> int:
        status: int = (await request.state.client.get("/")).status_code
        return status

    for _ in range(2):
        with TestClient(app) as outside:
            assert [outside.get("/").json() for _ in range(3)] == [200] * 3
    assert (len(bob.seen), len(asked(issuer))) == (6, 1)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_client_for_each_request_and_a_task_after_it(package: Any, bob: Receiver, issuer: EmbeddedIssuer) -> None:
    app = FastAPI()

    async def call(auth: ServiceTokenAuth) -> int:
        async with package.AsyncClient(auth=auth, verify=TLS) as client:
            status: int = (await client.get(bob.url)).status_code
            return status

    @app.post("/")
    async def later(
        background: BackgroundTasks,
        auth: Annotated[ServiceTokenAuth, Depends(service_auth(bob.url, audience="receiver"))],
    ) -> int:
        background.add_task(call, auth)
        return await call(auth)

    with TestClient(app) as outside:
        assert [outside.post("/").json() for _ in range(3)] == [200] * 3
    assert (len(bob.seen), len(asked(issuer))) == (6, 1)


def test_many_plain_functions_at_once_share_one_token(bob: Receiver, issuer: EmbeddedIssuer) -> None:
    client = service_client(bob.url, audience="receiver")
    app = FastAPI(lifespan=service_lifespan(client, warm_up=False))
    together = threading.Barrier(8)

    @app.get("/")
    def call(there: Annotated[httpx.Client, Depends(client.sync)]) -> int:
        together.wait(30)
        return there.get("/").status_code

    with TestClient(app) as outside:
        found: list[int] = []
        threads = [threading.Thread(target=lambda: found.append(outside.get("/").json())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert found == [200] * 8
    assert len(asked(issuer)) == 1


def test_an_app_in_the_same_process_may_be_the_receiver(issuer: EmbeddedIssuer) -> None:
    app = FastAPI()

    @app.get("/")
    async def who(request: Request) -> str:
        return request.headers["authorization"]

    auth = ServiceTokenAuth("http://bob:8000", audience="receiver")

    async def main() -> str:
        async with httpx.AsyncClient(auth=auth, transport=httpx.ASGITransport(app)) as client:
            return str((await client.get("http://bob:8000/")).json())

    assert asyncio.run(main()) == f"Bearer {auth.token()}"
    with TestClient(app, base_url="http://bob:8000") as outside:
        outside.auth = auth  # httpx or httpx2, whichever Starlette has
        assert outside.get("/").json() == f"Bearer {auth.token()}"
    assert len(asked(issuer)) == 1


def test_a_cell_of_a_notebook_may_block_the_loop_that_runs_it(bob: Receiver, issuer: EmbeddedIssuer) -> None:
    auth = ServiceTokenAuth(bob.url, audience="receiver")

    async def cell() -> int:
        with httpx.Client(auth=auth, verify=TLS) as client:
            return client.get(bob.url).status_code  # noqa: ASYNC212 - the loop is held up, and nothing else

    assert asyncio.run(cell()) == 200
    assert len(asked(issuer)) == 1


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_route_whose_token_is_not_to_be_had_answers_503_with_one_safe_sentence(
    kind: str, bob: Receiver, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    issuer.faults.add("token", disconnecting(), times=None)
    client = service_client(bob.url, audience="receiver")
    app = FastAPI(lifespan=service_lifespan(client))  # only warns: Keycloak may come

    if kind == "async":

        @app.get("/")
        async def call(there: Annotated[httpx.AsyncClient, Depends(client)]) -> int:
            return (await there.get("/")).status_code
    else:

        @app.get("/")
        def call_sync(there: Annotated[httpx.Client, Depends(client.sync)]) -> int:
            return there.get("/").status_code

    with TestClient(app) as outside:
        refused = outside.get("/")
        assert (refused.status_code, refused.json()) == (
            503,
            {"detail": TokenRequestError("x").detail},
        )
        issuer.faults.clear()
        clock.now += 6
        assert outside.get("/").json() == 200
    idle()
    assert len(bob.seen) == 1
