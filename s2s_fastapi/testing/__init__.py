"""An issuer for development and tests: it answers as Keycloak does, from the same realm files, with keys of its own.

Nothing here belongs in production: the issuer says so in every answer, and its socket is bound to loopback only.
"""

from s2s_fastapi.testing import faults
from s2s_fastapi.testing.access_run import AccessOutcome
from s2s_fastapi.testing.access_tests import access_tests, check_access
from s2s_fastapi.testing.attack.suite import attack_tests
from s2s_fastapi.testing.clients import async_client_of, client_of
from s2s_fastapi.testing.documents import read_documents
from s2s_fastapi.testing.downstream import Call, PlayedService
from s2s_fastapi.testing.faults import Fault
from s2s_fastapi.testing.issuer import EmbeddedIssuer
from s2s_fastapi.testing.record import Exchange
from s2s_fastapi.testing.refusals import assert_refused, refused
from s2s_fastapi.testing.trust import Trusted
from s2s_fastapi.testing.wire import Request, Response

__all__ = [
    "AccessOutcome",
    "Call",
    "EmbeddedIssuer",
    "Exchange",
    "Fault",
    "PlayedService",
    "Request",
    "Response",
    "Trusted",
    "access_tests",
    "assert_refused",
    "async_client_of",
    "attack_tests",
    "check_access",
    "client_of",
    "faults",
    "read_documents",
    "refused",
]
