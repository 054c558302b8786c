"""Test clients for an app as it is, which trusts an embedded issuer while the client is open."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

from starlette.exceptions import StarletteDeprecationWarning

from s2s_fastapi.testing.decisions import SENDING, Sending
from s2s_fastapi.testing.issuer import EmbeddedIssuer
from s2s_fastapi.testing.trust import Trusted

if TYPE_CHECKING:
    from starlette.testclient import TestClient

__all__ = ["client_of"]

EXTENSION = "s2s_fastapi.sending"
"""Where a response has the decisions about its request."""


@contextmanager
def client_of(
    app: Any,
    *also: Any,
    issuer: EmbeddedIssuer | None = None,
    client_id: str | None = None,
    realm: str = "",
    lifespan: bool = True,
    **options: Any,
) -> "Iterator[TestClient]":
    """Give FastAPI's TestClient for an app that trusts the issuer as long as the client is open.

    - ``also``, ``client_id``, ``realm``: see `EmbeddedIssuer.trusted_by`.
    - ``lifespan=False``: the app is not started.
    - ``options`` are those of TestClient. ``client.trusted`` is the block.

    Raises:
        ConfigurationError: See `EmbeddedIssuer.trusted_by`.
    """
    issuer = issuer or EmbeddedIssuer.for_tests()
    with issuer.trusted_by(app, *also, client_id=client_id, realm=realm) as trusted:
        client = _client_class()(app, trusted, **options)
        with client if lifespan else nullcontext():
            yield client


@cache
def _client_class() -> Any:
    """Return a TestClient that notes which app it asks. It is an httpx2 client if httpx2 is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", StarletteDeprecationWarning
        )  # without httpx2; a test run may turn it into an error
        from starlette.testclient import TestClient  # noqa: PLC0415 - see above

    class Client(TestClient):
        def __init__(self, app: Any, trusted: Trusted, **options: Any) -> None:
            super().__init__(app, **options)
            self.trusted = trusted

        def send(self, request: Any, **arguments: Any) -> Any:
            sending = Sending(self.trusted)
            token = SENDING.set(sending)
            try:
                response = super().send(request, **arguments)
            finally:
                SENDING.reset(token)
            response.extensions[EXTENSION] = sending
            return response

    Client.__name__ = Client.__qualname__ = "TestClient"
    return Client
