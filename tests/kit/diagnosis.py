"""How a mistake in a realm or in a service's settings is proven to be told for what it is, on paper and on a server alike."""

import json
import logging
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

from example_app.realm import claims_of
from s2s_fastapi import (
    Principal,
    ServiceAuthMiddleware,
    require_audience,
    require_caller,
    require_realm_role,
    require_role,
    require_scope,
)
from s2s_fastapi.decision import Reason
from s2s_fastapi.telemetry import DecisionLog
from s2s_fastapi.verifier.keys import SharedSources, sharing
from tests.kit.console import CALLER, REALM_ROLE, RECEIVER, ROLE, SCOPE, Console

VERSIONS = frozenset({"26.7.3", "26.0.8"})
UNSIGNED = frozenset(
    {Reason.ALGORITHM_NOT_ALLOWED, Reason.UNKNOWN_KEY, Reason.INVALID_SIGNATURE, Reason.MALFORMED_TOKEN}
)


class Receiver(logging.Handler):
    """A guarded app and what its operator reads."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.time, **settings: Any) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        logger = logging.getLogger(f"tests.kit.diagnosis.{id(self)}")
        logger.propagate = False
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        app = FastAPI(openapi_url=None)
        app.add_middleware(
            ServiceAuthMiddleware,
            settings=console.settings(**settings),
            transport=console.transport(),
            observer=DecisionLog(logger),
            clock=clock,
        )
        add_routes(app)
        self._client = TestClient(app, raise_server_exceptions=False)
        self._keys = (
            SharedSources()
        )  # as in a process of its own: another receiver may have read the realm before it was changed

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def send(self, token: str, method: str = "GET", path: str = "/tickets") -> Any:
        self.records.clear()
        with sharing(self._keys):
            return self._client.request(method, path, headers={"Authorization": f"Bearer {token}"})

    def accepts(self, token: str, method: str = "GET", path: str = "/tickets") -> None:
        response = self.send(token, method, path)
        assert response.status_code == 200, [record.getMessage() for record in self.records]
        assert response.json() == CALLER
        assert self.records == []

    def refuses(self, token: str, reason: Reason, method: str = "GET", path: str = "/tickets") -> dict[str, Any]:
        """Return the fields of the one record, after seeing that the caller was told the fixed sentence and no more."""
        response = self.send(token, method, path)
        (record,) = self.records
        fields = vars(record)
        assert (fields["reason"], fields["method"], fields["route"]) == (str(reason), method, path), fields["cure"]
        assert (response.status_code, response.json()) == (reason.status, {"detail": reason.detail})
        error = f', error="{reason.error}"' if reason.error else ""
        scope = f', scope="{SCOPE}"' if reason is Reason.SCOPE_MISSING else ""
        description = f', error_description="{reason.detail}"' if reason is Reason.EXPIRED else ""
        challenge = f'Bearer realm="{RECEIVER}"{error}{description}{scope}' if reason.status < 500 else None
        assert response.headers.get("WWW-Authenticate") == challenge
        everything = f"{record.getMessage()} {fields}"
        assert not any(part in everything for part in token.split("."))
        assert record.getMessage().isprintable()
        kid = kid_of(token)
        assert fields["unverified_kid"] == (kid if reason in (Reason.UNKNOWN_KEY, Reason.INVALID_SIGNATURE) else "")
        verified = reason not in UNSIGNED and reason.status < 500
        claims = claims_of(token) if verified else {}
        assert (fields["client_id"], fields["token_id"]) == (claims.get("azp", ""), claims.get("jti", ""))
        assert fields["kid"] == (kid if verified else "")
        if not verified:
            unbelieved = claims_of(token)
            assert not any(
                str(unbelieved[name]) in everything for name in ("jti", "azp", "sub", "sid") if name in unbelieved
            )
        return fields


def kid_of(token: str) -> str:
    head = token.split(".", maxsplit=1)[0]
    kid: str = json.loads(urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"]
    return kid


def add_routes(app: FastAPI) -> None:
    @app.get("/tickets")
    async def read(caller: Annotated[Principal, Depends(require_caller(CALLER))]) -> str:
        return caller.client_id

    @app.post("/tickets")
    async def write(caller: Annotated[Principal, Depends(require_scope(SCOPE))]) -> str:
        return caller.client_id

    @app.delete("/tickets")
    async def clear(caller: Annotated[Principal, Depends(require_role(ROLE))]) -> str:
        return caller.client_id

    @app.get("/audit")
    async def audit(caller: Annotated[Principal, Depends(require_realm_role(REALM_ROLE))]) -> str:
        return caller.client_id

    @app.get("/only")
    async def only(caller: Annotated[Principal, Depends(require_audience(RECEIVER, only=True))]) -> str:
        return caller.client_id


def prove(mistake: "Mistake", console: Console, look: Callable[[str], None] = lambda token: None) -> None:
    """Prove that the mistake is told for what it is, and that what the sentence says to do mends it.

    ``look`` sees the realm while the mistake is in it, and gets the token that was refused.
    """
    Receiver(console).accepts(service_token(console), *mistake.to)

    mistake.wrong(console)
    token = mistake.send(console)
    mistake.afterwards(console)
    receiver = Receiver(console, clock=mistake.clock, **mistake.settings(console))
    fields = receiver.refuses(token, mistake.reason, *mistake.to)
    right = console.settings()
    known = {"issuer": right.issuer, "server": right.server, "realm": right.realm}
    missing = [said for said in (words.format(**known) for words in mistake.words) if said not in fields["cure"]]
    assert missing == [], fields["cure"]
    look(token)

    mistake.cure(console)
    Receiver(console).accepts(mistake.send_instead(console), *mistake.to)


def prove_harmless(mistake: "Mistake", console: Console) -> None:
    """Prove that on this version the mistake is none: its token is as good as any."""
    mistake.wrong(console)
    Receiver(console).accepts(mistake.send(console), *mistake.to)


Step = Callable[[Console], Any]


def nothing(console: Console) -> None:
    """Leave the realm as it is: what is wrong is what the caller does."""


def both(first: Step, second: Step) -> Step:
    """Do the one, then the other."""

    def do(console: Console) -> None:
        first(console)
        second(console)

    return do


def without_role(console: Console) -> None:
    console.give_role(on=False)


def service_token(console: Console) -> str:
    return str(console.service()["access_token"])


@dataclass(frozen=True)
class Mistake:
    """What somebody forgot or chose, the refusal it leads to, and the step the operator reads."""

    name: str
    reason: Reason
    words: tuple[str, ...]
    """The decisive words of the sentence."""
    wrong: Step = nothing
    cure: Step = nothing
    send: Callable[[Console], str] = service_token
    afterwards: Step = nothing
    """What happens to the realm once the token is there."""
    send_instead: Callable[[Console], str] = service_token
    to: tuple[str, str] = ("GET", "/tickets")
    settings: Callable[[Console], dict[str, Any]] = lambda console: {}
    """What is wrong in the receiver's environment; nothing afterwards."""
    clock: Callable[[], float] = time.time
    """The receiver's; a right one afterwards."""
    versions: frozenset[str] = VERSIONS
    """The Keycloaks it can be made on."""
    on_paper: bool = True

    def __str__(self) -> str:
        return self.name
