"""An app that a server serves to other machines never trusts a test issuer."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from s2s_fastapi import ConfigurationError, ServiceAuthMiddleware
from s2s_fastapi.testing import EmbeddedIssuer


def make_app() -> FastAPI:
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware, audience="x", warm_up=False)
    return app


# The server is in a list: on the stack of its thread are then only the frames that are there with any server.


def by_run(servers: list[uvicorn.Server]) -> None:
    servers[0].run()


def by_asyncio(servers: list[uvicorn.Server]) -> None:
    asyncio.run(servers[0].serve())


def in_a_task(servers: list[uvicorn.Server]) -> None:
    async def main() -> None:
        await asyncio.wait([asyncio.create_task(servers[0].serve())])

    asyncio.run(main())


@contextmanager
def serving(app: Any, run: Callable[[list[uvicorn.Server]], None] = by_run, **options: Any) -> Iterator[None]:
    servers = [uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="critical", **options))]
    thread = threading.Thread(target=run, args=(servers,))
    thread.start()
    try:
        while not servers[0].started and thread.is_alive():
            time.sleep(0.01)
        yield
    finally:
        servers[0].should_exit = True
        thread.join()


def wrapped(app: Any) -> Any:
    async def around(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return around


@pytest.mark.parametrize("run", [by_run, by_asyncio, in_a_task], ids=lambda run: run.__name__)
@pytest.mark.parametrize("around", [lambda app: app, wrapped], ids=["the app itself", "the app in a closure"])
def test_an_app_that_uvicorn_serves_on_anything_but_loopback_is_refused(run: Any, around: Any, tmp_path: Path) -> None:
    app, issuer = make_app(), EmbeddedIssuer.for_tests()
    with serving(around(app), run, uds=str(tmp_path / "s")):  # behind it is a proxy that other machines reach
        with pytest.raises(
            ConfigurationError, match=r"uvicorn serves this app on .*/s, so it must not trust a test issuer"
        ):
            issuer.trusted_by(app).__enter__()
        assert app.middleware_stack is None
        with issuer.trusted_by(make_app()):
            pass
    with issuer.trusted_by(app):
        pass


def test_an_app_that_uvicorn_serves_on_loopback_may_trust_it() -> None:
    app = make_app()
    with serving(app, host="127.0.0.1", port=0), EmbeddedIssuer.for_tests().trusted_by(app) as trusted:
        assert len(trusted.middlewares) == 1
