"""The fixtures of the calling side, and two receivers that speak gRPC."""

from collections.abc import Iterator

import pytest

from s2s_fastapi.accepted import INBOUND, digest
from tests.caller.fakes import b64, jwt
from tests.kit.calling import bob, charles, clock, environment, keycloak, source
from tests.kit.other_clients import GrpcReceiver, grpc_receiver

__all__ = ["bob", "charles", "clock", "environment", "grpc_bob", "inbound", "keycloak", "source"]


@pytest.fixture
def grpc_bob() -> Iterator[GrpcReceiver]:
    with grpc_receiver() as there:
        yield there


@pytest.fixture
def inbound() -> Iterator[str]:
    """The token of the current request."""
    token = b64('{"alg":"RS256"}') + jwt(sub="ann", pad="x" * 80).removeprefix(b64("{}"))
    before = INBOUND.set(digest(token))
    yield token
    INBOUND.reset(before)
