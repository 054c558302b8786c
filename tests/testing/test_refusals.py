"""The assertion that a request was refused, and why."""

from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Response, WebSocket
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient, WebSocketDenialResponse

from s2s_fastapi import (
    AuthorizationError,
    ConfigurationError,
    Principal,
    ServiceAuthMiddleware,
    require_audience,
    require_caller,
)
from s2s_fastapi.testing import EmbeddedIssuer, assert_refused, client_of, refused


@pytest.fixture
def issuer() -> EmbeddedIssuer:
    return EmbeddedIssuer.for_tests()


def make_app() -> FastAPI:
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware)
    only_a = require_audience("x") & require_caller("a")

    @app.get("/x", dependencies=[Depends(only_a)])
    async def x() -> None: ...

    @app.get("/own", dependencies=[Depends(only_a)])
    async def own() -> None:
        raise HTTPException(403)

    @app.websocket("/ws")
    async def talk(socket: WebSocket, _: Annotated[Principal, Depends(only_a)]) -> None:
        await socket.accept()
        await socket.close()

    return app


def test_a_refusal_is_told_by_its_decision(issuer: EmbeddedIssuer) -> None:
    with client_of(make_app(), issuer=issuer) as client:
        assert assert_refused(client.get("/x", auth=issuer.as_service("b")), 403, "caller_not_allowed").client_id == "b"
        assert_refused(client.get("/x"), 401, "no_credentials")
        assert_refused(client.get("/x", auth=issuer.as_service("a", audience="y")), 401, "wrong_audience")


def test_another_reason_fails_and_says_what_to_change(issuer: EmbeddedIssuer) -> None:
    with (
        client_of(make_app(), issuer=issuer) as client,
        pytest.raises(
            AssertionError, match=r'GET /x was refused with 403 caller_not_allowed\.\n.*add "b" to require_caller'
        ),
    ):
        assert_refused(client.get("/x", auth=issuer.as_service("b")), 401, "wrong_audience")


def test_an_accepted_request_is_no_refusal(issuer: EmbeddedIssuer) -> None:
    with client_of(make_app(), issuer=issuer) as client:
        assert_refused(client.get("/x"), 401, "no_credentials")
        with pytest.raises(AssertionError, match="the answer is 200"):
            assert_refused(client.get("/x", auth=issuer.as_service("a")), 403, "caller_not_allowed")


def test_an_answer_of_the_app_itself_is_no_refusal(issuer: EmbeddedIssuer) -> None:
    with client_of(make_app(), issuer=issuer) as client, pytest.raises(AssertionError, match="not from ServiceAuth"):
        assert_refused(client.get("/own", auth=issuer.as_service("a")), 403, "caller_not_allowed")


def test_an_answer_that_hides_the_refusal_is_no_refusal(issuer: EmbeddedIssuer) -> None:
    app = make_app()
    app.add_exception_handler(AuthorizationError, lambda *_: PlainTextResponse("nothing here", 404))
    with (
        client_of(app, issuer=issuer) as client,
        pytest.raises(AssertionError, match=r"the answer is 404, .*\(the decision was 403 caller_not_allowed\)"),
    ):
        assert_refused(client.get("/x", auth=issuer.as_service("b")), 403, "caller_not_allowed")


def test_the_refusal_of_another_app_behind_this_one_does_not_count(issuer: EmbeddedIssuer) -> None:
    behind, front = make_app(), make_app()

    @front.get("/pass", dependencies=[Depends(require_audience("x"))])
    async def pass_on() -> Response:
        transport = httpx.ASGITransport(behind)
        async with httpx.AsyncClient(transport=transport, base_url="http://behind") as client:
            return Response(status_code=(await client.get("/x")).status_code)

    with issuer.trusted_by(behind), client_of(front, issuer=issuer) as client:
        answer = client.get("/pass", auth=issuer.as_service("a"))
        assert answer.status_code == 401
        with pytest.raises(AssertionError, match="not from ServiceAuthMiddleware"):
            assert_refused(answer, 401, "no_credentials")


def test_an_unknown_reason_is_an_error_that_lists_the_reasons(issuer: EmbeddedIssuer) -> None:
    with (
        client_of(make_app(), issuer=issuer) as client,
        pytest.raises(ConfigurationError, match="caller_not_allowed, "),
    ):
        assert_refused(client.get("/x"), 403, "forbidden")


def test_a_refused_websocket_is_a_refusal(issuer: EmbeddedIssuer) -> None:
    with client_of(make_app(), issuer=issuer) as client:
        headers = issuer.as_service("b").headers
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/ws", headers=headers):
            pass
        assert_refused(denied, 403, "caller_not_allowed")
        with refused(403, "caller_not_allowed"), client.websocket_connect("/ws", headers=headers):
            pass
        with (
            pytest.raises(AssertionError, match="the WebSocket was accepted"),
            refused(403, "caller_not_allowed"),
            client.websocket_connect("/ws", headers=issuer.as_service("a").headers),
        ):
            pass


def test_the_response_of_any_client_has_the_last_refusal(issuer: EmbeddedIssuer) -> None:
    app: Any = make_app()
    with issuer.trusted_by(app), TestClient(app) as client:
        assert_refused(client.get("/x"), 401, "no_credentials")
