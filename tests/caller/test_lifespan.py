"""The start and the end of an app that calls others, also under a real uvicorn."""

import asyncio
import os
import subprocess
import sys
import textwrap
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import httpx2
import pytest
import trio
from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.testclient import TestClient

from s2s_fastapi.backchannel.channel import BackChannelError
from s2s_fastapi.caller.auth import ServiceTokenAuth
from s2s_fastapi.caller.lifespan import service_lifespan
from s2s_fastapi.caller.service_client import service_auth, service_client
from s2s_fastapi.caller.token_source import TokenSource
from s2s_fastapi.errors import AudienceNotGranted, ConfigurationError, TokenRequestError
from tests.caller.fakes import SECRET, Keycloak, Receiver, refusal, settings, wait_until_idle

pytestmark = pytest.mark.usefixtures("source")


def test_tokens_are_there_before_the_first_request(keycloak: Keycloak) -> None:
    keycloak.aud = ["bob", "charles"]
    lifespan = service_lifespan(
        service_client("http://bob", audience="bob"),
        service_client("http://bob", audience="bob").sync,
        service_auth("http://charles", audience="charles"),
        ServiceTokenAuth("http://other"),
    )
    with TestClient(FastAPI(lifespan=lifespan)):
        assert len(keycloak.requests) == 3

    assert [downstream.origins for downstream in lifespan.downstreams] == [
        ("http://bob:80",),
        ("http://charles:80",),
        ("http://other:80",),
    ]


def downstreams(number: int, url: str | None = None) -> list[ServiceTokenAuth]:
    given = None if url is None else settings(url=url)
    return [ServiceTokenAuth("http://other", scope=f"s{index}", settings=given) for index in range(number)]


def test_twelve_tokens_of_a_slow_keycloak_are_all_there_and_each_has_its_5_s_for_itself(
    source: TokenSource, keycloak: Keycloak
) -> None:
    waiting: list[int] = []

    def slow(_: Any) -> Any:
        time.sleep(0.02)
        waiting.append(sum(shared.state().loading for shared in source.tokens()))
        return keycloak.grant(len(waiting))

    keycloak.answers = [slow] * 12
    with TestClient(FastAPI(lifespan=service_lifespan(*downstreams(12)))):
        assert all(shared.peek() for shared in source.tokens())

    assert len(waiting) == len(source.tokens()) == 12
    assert max(waiting) == 4


def test_a_server_that_does_not_answer_is_not_waited_for_again_and_delays_no_other(
    source: TokenSource, keycloak: Keycloak, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(asked: Any) -> Any:
        if "silent" in asked.url:
            time.sleep(0.05)
            raise BackChannelError("no complete answer within 5 s")
        return keycloak.grant(1)

    keycloak.answers = [answer] * 100
    with TestClient(FastAPI(lifespan=service_lifespan(*downstreams(40, "http://silent"), *downstreams(12)))):
        waited = [record for record in caplog.records if "no complete answer" in record.getMessage()]
        assert len([record for record in waited if record.getMessage().startswith("starting without")]) == 4
        assert sum("did not answer a request for another one" in record.getMessage() for record in caplog.records) == 36
        assert sum(shared.peek() is not None for shared in source.tokens()) == 12
    wait_until_idle()


def test_warm_up_can_be_left_out(keycloak: Keycloak) -> None:
    with TestClient(FastAPI(lifespan=service_lifespan(service_client("http://bob"), warm_up=False))):
        assert keycloak.requests == []


def test_the_apps_own_lifespan_runs_inside_and_its_state_arrives(bob: Receiver) -> None:
    order: list[str] = []
    crm = service_client(bob.url)

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, int]]:
        client = await crm()
        await client.get("/up")
        order.append("up")
        yield {"answer": 42}
        await client.get("/down")
        order.append("down" if not client.is_closed else "too late")

    app = FastAPI(lifespan=service_lifespan(crm, lifespan=own))

    @app.get("/")
    async def route(request: Request) -> int:
        return int(request.state.answer)

    with TestClient(app) as browser:
        assert browser.get("/").json() == 42

    assert order == ["up", "down"]
    assert [seen.path for seen in bob.seen] == ["/up", "/down"]


def test_starlettes_older_form_of_a_lifespan_is_taken() -> None:
    seen: list[str] = []

    async def own(app: Starlette) -> AsyncIterator[None]:
        seen.append("up")
        yield
        seen.append("down")

    older: Any = own
    with TestClient(Starlette(lifespan=service_lifespan(lifespan=older))):
        pass

    assert seen == ["up", "down"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_clients_are_closed_with_the_app(backend: Any, bob: Receiver) -> None:
    crm = service_client(bob.url)
    app = FastAPI(lifespan=service_lifespan(crm))
    seen: list[Any] = []

    @app.get("/a")
    async def a(client: Annotated[httpx.AsyncClient, Depends(crm)]) -> int:
        seen.append(client)
        return (await client.get("/")).status_code

    @app.get("/b")
    def b(client: Annotated[httpx.Client, Depends(crm.sync)]) -> int:
        seen.append(client)
        return client.get("/").status_code

    for _ in range(2):  # a second start on a second loop
        with TestClient(app, backend=backend) as browser:
            assert browser.get("/a").json() == browser.get("/b").json() == 200
            assert not any(client.is_closed for client in seen[-2:])

    assert all(client.is_closed for client in seen)
    assert len(set(map(id, seen))) == 4


def test_two_apps_on_one_loop_share_the_client_until_the_last_one_ends() -> None:
    crm = service_client("http://bob")
    one, two = (FastAPI(lifespan=service_lifespan(crm)) for _ in range(2))

    async def main() -> None:
        async with one.router.lifespan_context(one):
            client = await crm()
            async with two.router.lifespan_context(two):
                assert await crm() is client
            assert not client.is_closed
        assert client.is_closed

    asyncio.run(main())
    trio.run(main)


FATAL = [
    (
        refusal(401, "unauthorized_client", "Invalid client or Invalid client credentials"),
        TokenRequestError,
        "KEYCLOAK_CLIENT_SECRET",
    ),
    (refusal(404, "Realm does not exist"), TokenRequestError, "KEYCLOAK_REALM"),
    (refusal(400, "invalid_scope", "Invalid scopes: x"), TokenRequestError, "Assign"),
    (None, AudienceNotGranted, "(C) a client scope with an Audience mapper for crm-api-gateway"),
]


@pytest.mark.parametrize(("answer", "kind", "cure"), FATAL)
def test_what_will_never_be_granted_stops_the_start_with_one_sentence(
    answer: Any, kind: Any, cure: str, keycloak: Keycloak
) -> None:
    keycloak.always = answer
    ran: list[int] = []

    @asynccontextmanager
    async def own(app: Any) -> AsyncIterator[None]:
        ran.append(1)
        yield

    crm = service_client("http://crm", audience="crm-api-gateway")
    with pytest.raises(kind) as caught, TestClient(FastAPI(lifespan=service_lifespan(crm, lifespan=own))):
        pass

    printed = "".join(traceback.format_exception(caught.value))
    assert cure in str(caught.value)
    assert printed.count("\n") == 1
    assert SECRET not in printed
    assert ran == []


MISFITS: list[tuple[Any, Any]] = [
    (httpx.Client, lambda crm: crm),
    (httpx2.AsyncClient, lambda crm: crm),
    (httpx.AsyncClient, lambda crm: crm.sync),
    (httpx2.Client, lambda crm: crm.sync),
]


@pytest.mark.parametrize(("annotation", "of"), MISFITS)
@pytest.mark.parametrize("place", ["app", "router", "mount", "dependency"])
def test_a_parameter_that_cannot_be_the_client_it_gets_stops_the_start(annotation: Any, of: Any, place: str) -> None:
    crm = service_client("http://crm")
    app, router, below = FastAPI(lifespan=service_lifespan(crm)), APIRouter(), FastAPI()

    async def repository(crm_client: Annotated[annotation, Depends(of(crm))]) -> None: ...

    async def route(found: Annotated[Any, Depends(repository)]) -> None: ...

    where: Any = {"app": app, "router": router, "mount": below, "dependency": app}[place]
    where.get("/")(route if place == "dependency" else repository)
    app.include_router(router, prefix="/a")
    app.mount("/below", below)

    with pytest.raises(ConfigurationError, match=r"The parameter crm_client of .* is annotated with") as caught:
        TestClient(app).__enter__()
    assert "".join(traceback.format_exception(caught.value)).count("\n") == 1


def test_missing_settings_stop_the_start(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("KEYCLOAK_CLIENT_SECRET")
    app = FastAPI(lifespan=service_lifespan(service_client("http://crm")))
    with pytest.raises(ConfigurationError, match="Set KEYCLOAK_CLIENT_SECRET"), TestClient(app):
        pass


def test_a_url_that_turns_out_wrong_stops_the_start() -> None:
    app = FastAPI(lifespan=service_lifespan(service_client(lambda: "crm:8000")))
    with pytest.raises(ConfigurationError, match="base_url"), TestClient(app):
        pass


@pytest.mark.parametrize(
    "answer", [BackChannelError("connection refused"), refusal(503, "starting"), refusal(500, "unknown_error")]
)
def test_a_keycloak_that_cannot_be_reached_is_only_warned_of(
    answer: Any, keycloak: Keycloak, caplog: pytest.LogCaptureFixture
) -> None:
    keycloak.always = answer
    with TestClient(FastAPI(lifespan=service_lifespan(service_client("http://bob", audience="bob")))):
        pass

    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert sum(sentence.startswith("starting without a token for bob: Keycloak gave ") for sentence in said) == 1
    assert sum("Is Keycloak up" in sentence for sentence in said) == ("refused" in str(answer))  # the cure, once


@pytest.mark.parametrize("wrong", [FastAPI(), "http://bob", service_client, None])
def test_something_else_than_a_client_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="service_lifespan takes"):
        service_lifespan(wrong)


def test_an_uncaught_failure_in_a_route_is_503_with_a_safe_sentence(keycloak: Keycloak) -> None:
    keycloak.aud = "account"
    crm = service_client("http://bob", audience="bob")
    app = FastAPI()

    @app.get("/")
    async def route(client: Annotated[httpx.AsyncClient, Depends(crm)]) -> None:
        await client.get("/")

    response = TestClient(app).get("/")
    assert (response.status_code, response.json()) == (
        503,
        {"detail": "A service this one depends on cannot be called at the moment."},
    )
    assert "www-authenticate" not in response.headers


APP = """
from fastapi import FastAPI
from s2s_fastapi.caller.service_client import service_client
from s2s_fastapi.caller.lifespan import service_lifespan
from s2s_fastapi.caller.token_source import TokenSource

crm = service_client("http://127.0.0.1:9", audience="crm-api-gateway")
app = FastAPI(lifespan=service_lifespan(crm))
"""


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_a_real_uvicorn_exits_with_3_and_prints_one_sentence(mode: str, tmp_path: Path, bob: Receiver) -> None:
    (tmp_path / "chat_app.py").write_text(textwrap.dedent(APP))
    bob.always = (
        401,
        {},
        b'{"error": "unauthorized_client", "error_description": "Invalid client or Invalid client credentials"}',
    )
    environment = os.environ | {"KEYCLOAK_URL": bob.url, "KEYCLOAK_CLIENT_SECRET": SECRET}
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "--lifespan",
        mode,
        "--port",
        "0",
        "--app-dir",
        str(tmp_path),
        "chat_app:app",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert (
        done.stderr.count("Correct KEYCLOAK_CLIENT_SECRET. It is on the Credentials page") == 2
    )  # the load's log, and the end
    assert "appears unsupported" not in done.stderr
    assert SECRET not in done.stderr + done.stdout
    assert bob.seen[0].path == "/realms/corp/protocol/openid-connect/token"
    assert bob.seen[0].body == b"grant_type=client_credentials"
