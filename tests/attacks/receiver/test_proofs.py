"""Proofs of a key (DPoP, RFC 9449) over real sockets: one property of a good one is broken at a time, on a warm and on a cold cache, with lying headers.

Each broken request stands between requests with good proofs and the same token, which are accepted. `tests/proof/broken.py` has the list
of the checks themselves; here are those and all that only a socket shows: several header lines, Host, `X-Forwarded-*`, spellings of a path.
"""

import hashlib
import http.client
import logging
import secrets
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import pytest
from fastapi import Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from s2s_fastapi import (
    InProcessReplayStore,
    Principal,
    ReplayStoreUnavailable,
    ServiceAuthMiddleware,
    require_service,
)
from tests.attacks.receiver.stack import Observed
from tests.kit.realm import Clock, Realm, b64, settings
from tests.proof.broken import BROKEN, Asked, Key, ec_key
from tests.receiver.surroundings.servers import UVICORN, served

PUBLIC: Final = "https://crm.example.com/api"
"""Where callers reach the app. The server listens on another port, without the prefix: as behind a proxy."""
URL: Final = f"{PUBLIC}/letters"
LYING: Final = (
    b"Host: evil.example",
    b"X-Forwarded-Host: evil.example",
    b"X-Forwarded-Proto: http",
    b"X-Forwarded-Port: 81",
    b"X-Forwarded-Prefix: /evil",
    b"X-Forwarded-For: 127.0.0.1",
    b"Forwarded: host=evil.example;proto=http",
    b"X-Original-URL: /evil",
    b"X-Rewrite-URL: /evil",
    b"X-HTTP-Method-Override: DELETE",
)
GOOD: Final = ec_key()
THIEF: Final = ec_key("ES256", 1)


def hashed(token: str) -> str:
    return b64(hashlib.sha256(token.encode()).digest())


@dataclass(frozen=True)
class Call:
    """A good call with a bound token."""

    token: str
    now: float
    key: Key = GOOD
    method: str = "POST"
    url: str = URL

    @property
    def asked(self) -> Asked:
        return Asked(self.method, self.url, self.token, self.now)

    @property
    def authorization(self) -> bytes:
        return f"Authorization: DPoP {self.token}".encode()

    @property
    def bearer(self) -> bytes:
        return f"Authorization: Bearer {self.token}".encode()

    def proof(self, **claims: Any) -> bytes:
        """Return a new proof, with these changes to its claims."""
        return self.key.proof(self.asked, claims=claims)

    @property
    def good(self) -> tuple[bytes, ...]:
        return self.lines(self.proof())

    def lines(self, *values: bytes) -> tuple[bytes, ...]:
        """Return the header lines of the call with these values of ``DPoP``, a line for each."""
        return (self.authorization, *(b"DPoP: " + value for value in values))


@dataclass(frozen=True)
class Answer:
    status: int
    challenges: tuple[str, ...]
    body: bytes


@dataclass
class Store:
    """Counts what is remembered: a proof that was refused must leave nothing behind."""

    inner: InProcessReplayStore = field(default_factory=InProcessReplayStore)
    asked: int = 0
    seconds: float = 0.0
    """For which the last one is remembered."""

    async def first_use(self, key: bytes, seconds: float) -> bool:
        self.asked += 1
        self.seconds = seconds
        return await self.inner.first_use(key, seconds)


class Service:
    """One app on a real server."""

    def __init__(self, dpop: str = "accepted", public_url: str | tuple[str, ...] = PUBLIC, **options: Any) -> None:
        self.realm, self.observed, self.clock, self.store = Realm(), Observed(), Clock(), Store()
        self.ran: list[str] = []
        self.port = 0
        self.options: dict[str, Any] = {
            "settings": settings(),
            "transport": self.realm.transport,
            "observer": self.observed,
            "clock": self.clock,
            "dpop": dpop,
            "public_url": public_url,
            "replay_store": self.store,
            **options,
        }

    def app(self) -> FastAPI:
        app = FastAPI(openapi_url=None)
        app.add_middleware(ServiceAuthMiddleware, **self.options)

        @app.api_route("/letters", methods=["GET", "HEAD", "POST"])
        @app.api_route("/a%2Fb", methods=["POST"])
        @app.api_route("/{rest:path}", methods=["POST"])
        async def letters(request: Request, caller: Annotated[Principal, Depends(require_service())]) -> dict[str, str]:
            self.ran.append(request.url.path)
            return {"from": caller.client_id, "binding": caller.binding}

        @app.websocket("/ws")
        async def ws(websocket: WebSocket, caller: Annotated[Principal, Depends(require_service())]) -> None:
            await websocket.accept()
            await websocket.send_text(caller.binding)
            await websocket.close()

        return app

    def token(self, key: Key = GOOD, **changes: Any) -> str:
        """Return a new token that is bound to a key: no two are alike, so that each begins on a cold cache."""
        now = int(self.clock())
        bound = {"typ": "DPoP", "cnf": {"jkt": key.thumbprint, "kc-jkt-type": "DPoP"}}
        return self.realm.token(**{"iat": now, "exp": now + 300, **bound, **changes})

    def call(self, key: Key = GOOD, method: str = "POST", url: str = URL, **changes: Any) -> Call:
        return Call(self.token(key, **changes), self.clock(), key, method, url)

    def send(self, *lines: bytes, target: bytes = b"/letters", method: bytes = b"POST", body: bytes = b"") -> Answer:
        """Send a request as it is written, and read its answer."""
        head = [b"%s %s HTTP/1.1" % (method, target), *lines, b"Connection: close", b"Content-Length: %d" % len(body)]
        if not any(line.lower().startswith(b"host:") for line in lines):
            head.insert(1, b"Host: crm.internal")
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as wire:
            wire.sendall(b"\r\n".join(head) + b"\r\n\r\n" + body)
            answer = http.client.HTTPResponse(wire, method=method.decode())
            answer.begin()
            challenges = tuple(value for name, value in answer.getheaders() if name.lower() == "www-authenticate")
            return Answer(answer.status, challenges, answer.read())

    def accepts(self, call: Call, *extra: bytes, **request: Any) -> None:
        ran = len(self.ran)
        answer = self.send(*call.good, *extra, **request)
        assert (answer.status, answer.body) == (200, b'{"from":"chat-app-service","binding":"dpop"}'), self.last
        assert len(self.ran) == ran + 1

    def refuses(self, *lines: bytes, reason: str, status: int = 401, **request: Any) -> Answer:
        """Prove that a request is refused for ``reason``: no endpoint ran, nothing was remembered, nothing of it is in the log."""
        ran, decided, written = len(self.ran), len(self.observed.decisions), len(self.observed.lines)
        asked, fetched = self.store.asked, len(self.realm.requests)
        answer = self.send(*lines, **request)
        decisions = self.observed.decisions[decided:]
        assert (answer.status, [str(decision.reason) for decision in decisions]) == (status, [reason]), self.last
        assert len(self.ran) == ran
        assert self.store.asked == asked + (reason == "proof_replayed")
        assert len(self.realm.requests) <= max(fetched, 2)  # the realm's own two pages, once
        for text in self.observed.lines[written:]:
            assert text.isprintable()
            for line in lines:
                credential = line.partition(b": ")[2].decode("latin-1")
                assert all(len(part) < 40 or part not in text for part in credential.replace(" ", ".").split("."))
        return answer

    @property
    def last(self) -> str:
        return self.observed.lines[-1] if self.observed.lines else "no decision"


def running(service: Service, app: Any, server: str, **options: Any) -> Iterator[Service]:
    with served(app, server, proxy_headers=True, forwarded_allow_ips="*", **options) as address:
        service.port = address.port
        yield service


@pytest.fixture(scope="module", params=UVICORN)
def service(request: Any) -> Iterator[Service]:
    """Give an app on each server, for what a server may read in its own way."""
    service = Service()
    yield from running(service, service.app(), request.param)


@pytest.fixture(scope="module")
def one() -> Iterator[Service]:
    """Give an app on one server, for what every server passes on as it is."""
    service = Service()
    yield from running(service, service.app(), UVICORN[0])


@pytest.fixture(scope="module")
def required() -> Iterator[Service]:
    service = Service("required")
    yield from running(service, service.app(), UVICORN[0])


ON_THE_WIRE: Final[dict[str, Callable[[Call], tuple[bytes, ...]]]] = {
    "the token in place of the proof": lambda call: call.lines(call.token.encode()),
    "a broken line before a good one": lambda call: call.lines(b"x", call.proof()),
    "a good line before and after the token": lambda call: (b"DPoP: " + call.proof(), *call.good),
    "quotes around it": lambda call: call.lines(b'"' + call.proof() + b'"'),
    "a blank inside": lambda call: call.lines(call.proof().replace(b".", b". ", 1)),
    "a byte beyond ASCII behind it": lambda call: call.lines(call.proof() + b"\xe9"),
    "htm of the header that overrides": lambda call: call.lines(call.proof(htm="DELETE")),
    "htu as Host says": lambda call: call.lines(call.proof(htu="http://evil.example/letters")),
    "htu as the forwarded headers say": lambda call: call.lines(call.proof(htu="http://evil.example:81/evil/letters")),
    "htu as the server sees it": lambda call: call.lines(call.proof(htu="http://crm.internal/letters")),
    "htu without the prefix": lambda call: call.lines(call.proof(htu="https://crm.example.com/letters")),
    "htu of the prefix alone": lambda call: call.lines(call.proof(htu=PUBLIC)),
    "htu with our host as the user name": lambda call: call.lines(
        call.proof(htu="https://crm.example.com@evil.example/api/letters")
    ),
}
"""What only a request on a socket has, beside the table of broken proofs."""


VARIANTS: Final[tuple[tuple[bool, tuple[bytes, ...]], ...]] = ((False, ()), (True, LYING), (False, LYING), (True, ()))
"""Whether the token was accepted before, and what lies about the URL. What is broken in the proof itself is tried in the first two."""


def broken_lines(name: str, call: Call) -> tuple[bytes, ...]:
    """Return the header lines of a call whose proof has one broken property."""
    if name in ON_THE_WIRE:
        return ON_THE_WIRE[name](call)
    return call.lines(*BROKEN[name].values(call.key, call.asked))


@pytest.mark.parametrize("name", [*BROKEN, *ON_THE_WIRE])
def test_a_proof_with_one_broken_property_is_refused_on_a_cold_and_a_warm_cache(one: Service, name: str) -> None:
    of_table = BROKEN.get(name)
    key, reason = (of_table.key(), str(of_table.reason)) if of_table else (GOOD, "invalid_proof")
    for warm, lying in VARIANTS if name in ON_THE_WIRE else VARIANTS[:2]:
        call = one.call(key)
        # A key that nobody may use has no good proof: then another caller shows that the app lets callers in.
        good = call if key == GOOD else one.call()
        if warm:
            one.accepts(good, *lying)
        lines = broken_lines(name, call)
        if any(byte < 0x20 for line in lines for byte in line.replace(b"\t", b"")):
            ran = len(one.ran)
            assert one.send(*lines, *lying).status in (400, 401)  # the server may refuse it before we do
            assert len(one.ran) == ran
        else:
            answer = one.refuses(*lines, *lying, reason=reason)
            assert 'error="invalid_dpop_proof"' in answer.challenges[-1]
        one.accepts(good, *lying)


def test_all_broken_proofs_get_one_answer(one: Service) -> None:
    answers = {
        one.refuses(*broken_lines(name, call), reason="invalid_proof")
        for name in ("two headers", "empty", "a kid", "another key", *ON_THE_WIRE)
        for call in (one.call(),)
    }

    (answer,) = answers
    assert [challenge.partition(" ")[0] for challenge in answer.challenges] == ["DPoP"]


NO_PROOF: Final[dict[str, Callable[[Call], tuple[bytes, ...]]]] = {
    "nothing": lambda call: (call.authorization,),
    "another header": lambda call: (call.authorization, b"X-DPoP: " + call.proof()),
    "a header whose name has an underscore": lambda call: (call.authorization, b"DPo_P: " + call.proof()),
}


@pytest.mark.parametrize("name", NO_PROOF)
def test_a_bound_token_without_a_proof_is_refused_on_a_cold_and_a_warm_cache(service: Service, name: str) -> None:
    for warm in (False, True):
        call = service.call()
        if warm:
            service.accepts(call)
        answer = service.refuses(*NO_PROOF[name](call), reason="proof_missing")
        assert any('error="invalid_dpop_proof"' in challenge for challenge in answer.challenges)
        service.accepts(call)


def test_a_proof_in_the_url_or_in_the_body_is_none(service: Service) -> None:
    call = service.call()
    service.refuses(call.authorization, target=b"/letters?DPoP=a.b.c&dpop=a.b.c", reason="proof_missing")
    service.refuses(call.authorization, body=b"DPoP=" + call.proof(), reason="proof_missing")
    service.accepts(call)


def test_a_proof_is_accepted_once_however_the_second_request_is_written(service: Service) -> None:
    call = service.call()
    lines = call.good
    assert service.send(*lines).status == 200

    for headers, target in (
        (lines, b"/letters"),
        (lines[::-1], b"/letters"),
        ((*lines, *LYING), b"/letters"),
        (lines, b"/letters?again=1"),
        (lines, b"/%6Cetters"),
        ((lines[0].replace(b"DPoP ", b"dpop  "), lines[1].replace(b"DPoP: ", b"dpop:\t")), b"/letters"),
    ):
        answer = service.refuses(*headers, target=target, reason="proof_replayed")
        assert any('error="invalid_dpop_proof"' in challenge for challenge in answer.challenges)
    service.accepts(call)


def test_two_workers_with_one_store_accept_a_proof_once() -> None:
    """The store of the second worker is empty when it starts, and so is that of the first: they must not take it for none."""
    first, second = Service(), Service()
    second.options["replay_store"] = first.options["replay_store"] = InProcessReplayStore()
    second.realm = first.realm
    second.options["transport"] = first.realm.transport
    for _ in running(first, first.app(), UVICORN[0]):
        for _ in running(second, second.app(), UVICORN[0]):
            for here, there in ((first, second), (second, first)):
                call = here.call()
                lines = call.good
                assert here.send(*lines).status == 200
                assert there.send(*lines).status == 401
                assert str(there.observed.decisions[-1].reason) == "proof_replayed"
                assert there.send(*call.good).status == 200


def test_the_same_jti_of_another_key_or_for_another_path_is_another_proof(service: Service) -> None:
    jti = secrets.token_urlsafe(16)
    call, other = service.call(), service.call(THIEF)
    for each in (call, other):
        assert service.send(*each.lines(each.proof(jti=jti))).status == 200
    assert service.send(*call.lines(call.proof(jti=jti, htu=f"{PUBLIC}/other")), target=b"/other").status == 200
    service.refuses(*call.lines(call.proof(jti=jti)), reason="proof_replayed")


@pytest.mark.parametrize("seconds", [-30, 10])
def test_a_proof_is_accepted_at_the_last_second_of_its_window_and_refused_a_second_later(
    service: Service, seconds: int
) -> None:
    call = service.call()
    outside = seconds - 1 if seconds < 0 else seconds + 1
    assert service.send(*call.lines(call.proof(iat=int(call.now) + seconds))).status == 200
    assert service.store.seconds == seconds + 30 + 10 + 5  # no clock of a receiver accepts it for longer
    service.refuses(*call.lines(call.proof(iat=int(call.now) + outside)), reason="invalid_proof")


def test_a_proof_from_the_future_is_remembered_until_it_has_run_out(service: Service) -> None:
    call, before = service.call(), service.clock()
    proof = call.proof(iat=int(call.now) + 10)
    try:
        assert service.send(*call.lines(proof)).status == 200
        service.clock.advance(40)
        service.refuses(*call.lines(proof), reason="proof_replayed")
        service.clock.advance(1)
        service.refuses(*call.lines(proof), reason="invalid_proof")
    finally:
        service.clock.now = before


class TestTheToken:
    """The proof is good; something is wrong with what it is a proof for."""

    def test_a_bound_token_under_bearer_is_refused_whatever_comes_with_it(self, one: Service) -> None:
        for warm in (False, True):
            call = one.call()
            bearer = f"Authorization: Bearer {call.token}".encode()
            if warm:
                one.accepts(call)
            for proof in ((), call.lines(call.proof())[1:]):
                answer = one.refuses(bearer, *proof, reason="sender_constrained")
                assert any(c.startswith("Bearer ") and 'error="invalid_token"' in c for c in answer.challenges)
            one.accepts(call)

    def test_a_bearer_token_is_not_made_better_by_a_proof(self, one: Service) -> None:
        call = one.call(typ="Bearer", cnf=None)
        answer = one.refuses(*call.good, reason="not_bound")
        assert any(c.startswith("DPoP ") and 'error="invalid_token"' in c for c in answer.challenges)
        assert one.send(f"Authorization: Bearer {call.token}".encode()).status == 200

    def test_a_token_of_another_key_is_refused_with_our_proof(self, one: Service) -> None:
        ours, theirs = one.call(), one.call(THIEF)
        for call, other in ((ours, theirs), (theirs, ours)):
            mixed = Call(call.token, call.now, other.key)
            one.refuses(*mixed.good, reason="invalid_proof")
            one.accepts(call)

    def test_two_authorization_headers_are_a_bad_request(self, one: Service) -> None:
        call = one.call()
        bearer = f"Authorization: Bearer {one.token(typ='Bearer', cnf=None)}".encode()
        for lines in ((*call.good, call.authorization), (*call.good, bearer), (bearer, *call.good)):
            one.refuses(*lines, reason="invalid_request", status=400)
        one.accepts(call)

    @pytest.mark.parametrize(
        "cnf",
        [
            pytest.param({}, id="nothing in it"),
            pytest.param({"jkt": ""}, id="an empty thumbprint"),
            pytest.param({"jkt": None}, id="null"),
            pytest.param({"jkt": [GOOD.thumbprint]}, id="a list"),
            pytest.param({"jkt": GOOD.thumbprint + "="}, id="padding"),
            pytest.param({"jkt": GOOD.thumbprint[:-1]}, id="a character less"),
            pytest.param({"JKT": GOOD.thumbprint}, id="another case"),
            pytest.param({"x5t#S256": GOOD.thumbprint}, id="a certificate"),
            pytest.param({"jkt": GOOD.thumbprint, "x5t#S256": "x"}, id="a certificate too"),
            pytest.param({"jwk": dict(GOOD.jwk)}, id="a key"),
        ],
    )
    def test_a_confirmation_that_names_no_key_confirms_none(self, one: Service, cnf: dict[str, Any]) -> None:
        call = one.call(cnf=cnf)
        answer = one.send(*call.good)
        assert answer.status == 401
        assert str(one.observed.decisions[-1].reason) in ("sender_constrained", "malformed_claims")
        assert one.send(f"Authorization: Bearer {call.token}".encode()).status == 401

    @pytest.mark.parametrize("cnf", ["text", [], 1, True], ids=str)
    def test_a_confirmation_of_the_wrong_type_is_refused(self, one: Service, cnf: object) -> None:
        call = one.call(cnf=cnf)
        assert one.send(*call.good).status == 401

    def test_the_type_alone_binds_nothing(self, one: Service) -> None:
        call = one.call(cnf=None)
        assert one.send(*call.good).status == 401
        assert one.send(f"Authorization: Bearer {call.token}".encode()).status == 401

    def test_a_bound_token_of_type_bearer_is_bound(self, one: Service) -> None:
        call = one.call(typ="Bearer")
        one.refuses(f"Authorization: Bearer {call.token}".encode(), reason="sender_constrained")
        one.accepts(call)

    def test_a_token_that_is_over_is_refused_with_a_good_proof_although_it_is_remembered(self, one: Service) -> None:
        before = one.clock()
        call = one.call(exp=int(before) + 60)
        one.accepts(call)
        try:
            one.clock.advance(91)
            late = Call(call.token, int(one.clock()))
            one.refuses(*late.good, reason="expired")
        finally:
            one.clock.now = before

    def test_a_token_for_another_service_or_of_another_signature_is_refused_before_its_proof_is_read(
        self, one: Service
    ) -> None:
        other = one.call(aud="billing")
        one.refuses(*other.good, reason="wrong_audience")
        head, payload, _ = one.token().split(".")
        forged = Call(f"{head}.{payload}.{one.token().split('.')[2]}", int(one.clock()))
        one.refuses(*forged.good, reason="invalid_signature")
        one.refuses(forged.authorization, reason="invalid_signature")


class TestOnTheWire:
    """What only a socket shows."""

    def test_a_folded_header_is_refused_by_the_server_or_by_us(self, service: Service) -> None:
        call = service.call()
        head, _, rest = call.proof().partition(b".")
        folded = b"DPoP: " + head + b".\r\n " + rest
        ran = len(service.ran)
        assert service.send(call.authorization, folded).status in (400, 401)
        assert len(service.ran) == ran

    @pytest.mark.parametrize(
        "line", [b"dpop: @", b"DPOP: @", b"DPoP:@", b"DPoP: \t@", b"DPoP: @ ", b"DPoP: @\t"], ids=repr
    )
    def test_white_space_and_case_around_a_good_proof_are_no_fault(self, service: Service, line: bytes) -> None:
        call = service.call()
        assert service.send(call.authorization, line.replace(b"@", call.proof())).status == 200
        assert service.send(line.replace(b"@", call.proof()), call.authorization).status == 200

    @pytest.mark.parametrize(
        ("target", "htu"),
        [
            (b"/letters", "https://crm.example.com/api/letters"),
            (b"/letters", "HTTPS://CRM.example.com/api/letters"),
            (b"/letters", "https://crm.example.com:443/api/letters"),
            (b"/letters?a=1&b=%2F", "https://crm.example.com/api/letters"),
            (b"/letters?", "https://crm.example.com/api/letters"),
            (b"/api/letters", "https://crm.example.com/api/letters"),  # from a proxy that leaves the prefix in place
            (b"/letters?a=1", "https://crm.example.com/api/letters?a=1#b"),
            (b"/%6cetters", "https://crm.example.com/api/letters"),
            (b"/letters", "https://crm.example.com/api/%6Cetters"),
            (b"/a%2Fb", "https://crm.example.com/api/a%2Fb"),
            (b"/a%2fb", "https://crm.example.com/api/a%2Fb"),
            (b"/caf%C3%A9", "https://crm.example.com/api/caf%c3%a9"),
            (b"/~x", "https://crm.example.com/api/%7Ex"),
            (b"/", "https://crm.example.com/api/"),
        ],
        ids=str,
    )
    def test_equal_spellings_of_a_url_are_equal(self, service: Service, target: bytes, htu: str) -> None:
        call = service.call(url=htu)
        answer = service.send(*call.good, target=target)
        assert answer.status == 200, service.last

    @pytest.mark.parametrize(
        ("target", "htu"),
        [
            (b"/letters/", "https://crm.example.com/api/letters"),
            (b"//letters", "https://crm.example.com/api/letters"),
            (b"/Letters", "https://crm.example.com/api/letters"),
            (b"/a/b", "https://crm.example.com/api/a%2Fb"),
            (b"/a%2Fb", "https://crm.example.com/api/a/b"),
            (b"/a%252Fb", "https://crm.example.com/api/a%2Fb"),
            (b"/letters%3Fa=1", "https://crm.example.com/api/letters?a=1"),
            (b"/letters%23", "https://crm.example.com/api/letters"),
            (b"/letters;v=1", "https://crm.example.com/api/letters"),
            (b"/letters%00", "https://crm.example.com/api/letters"),
            (b"/letters%20", "https://crm.example.com/api/letters"),
            (b"/letters.", "https://crm.example.com/api/letters"),
        ],
        ids=str,
    )
    def test_another_path_needs_another_proof(self, service: Service, target: bytes, htu: str) -> None:
        call = service.call(url=htu)
        service.refuses(*call.good, target=target, reason="invalid_proof")

    def test_head_and_get_are_two_methods(self, service: Service) -> None:
        get, head = service.call(method="GET"), service.call(method="HEAD")
        assert service.send(*get.good, method=b"GET").status == 200
        assert service.send(*head.good, method=b"HEAD").status == 200
        service.refuses(*get.good, method=b"HEAD", reason="invalid_proof")
        service.refuses(*head.good, method=b"GET", reason="invalid_proof")

    def test_an_absolute_request_target_moves_nothing(self, service: Service) -> None:
        call = service.call(url="http://evil.example/letters")
        ran = len(service.ran)
        assert service.send(*call.good, target=b"http://evil.example/letters").status in (400, 401)
        assert len(service.ran) == ran

    def test_nothing_that_a_proxy_writes_moves_the_url(self, service: Service) -> None:
        for line in LYING:
            service.accepts(service.call(), line)
        name = LYING[0].partition(b" ")[2].decode()
        for scheme in ("http", "https"):
            for prefix in ("", "/api", "/evil"):
                call = service.call(url=f"{scheme}://{name}{prefix}/letters")
                service.refuses(*call.good, *LYING, reason="invalid_proof")


def test_a_websocket_is_a_get_of_the_https_url(service: Service) -> None:
    def opened(call: Call, *lines: bytes) -> str | int:
        headers = [(name, value) for name, _, value in (line.decode().partition(": ") for line in lines or call.good)]
        try:
            with connect(f"ws://127.0.0.1:{service.port}/ws?a=1", additional_headers=headers, proxy=None) as connected:
                return str(connected.recv(5))
        except InvalidStatus as refused:
            return refused.response.status_code

    url = f"{PUBLIC}/ws"
    call = service.call(method="GET", url=url)
    lines = call.good
    assert opened(call, *lines) == "dpop"
    assert opened(call, *lines) == 401  # the proof of the first handshake
    assert opened(call, call.authorization) == 401
    assert opened(call, f"Authorization: Bearer {call.token}".encode()) == 401
    assert opened(service.call(method="GET", url=url.replace("https", "wss"))) == "dpop"
    assert opened(service.call(method="GET", url=url.replace("https", "ws"))) == 401
    assert opened(service.call(method="POST", url=url)) == 401
    assert opened(service.call(method="GET", url=URL)) == 401
    assert opened(call) == "dpop"


@pytest.mark.parametrize("server", UVICORN)
@pytest.mark.parametrize("arrangement", ["a mount", "a root path"])
def test_the_url_is_the_public_one_also_below_a_mount_and_a_root_path(server: str, arrangement: str) -> None:
    service = Service()
    mounted = arrangement == "a mount"
    app: Any = Starlette(routes=[Mount("/inner", app=service.app())]) if mounted else service.app()
    target = b"/inner/letters" if mounted else b"/letters"
    for _ in running(service, app, server, root_path="" if mounted else "/inner"):
        for lying in ((), LYING):
            call = service.call()
            service.accepts(call, *lying, target=target)
            for url in (
                f"{PUBLIC}/inner/letters",
                "https://crm.example.com/inner/letters",
                "http://evil.example/letters",
            ):
                wrong = Call(call.token, call.now, url=url)
                service.refuses(*wrong.good, *lying, target=target, reason="invalid_proof")


@pytest.mark.parametrize("says", [None, 1, "yes", RuntimeError("down"), ReplayStoreUnavailable("full")], ids=repr)
def test_a_store_that_does_not_say_that_a_proof_is_new_lets_nobody_in(says: object) -> None:
    class Unclear:
        async def first_use(self, key: bytes, seconds: float) -> Any:
            if isinstance(says, Exception):
                raise says
            return says

    service = Service(replay_store=Unclear())
    for _ in running(service, service.app(), UVICORN[0]):
        answer = service.refuses(*service.call().good, status=503, reason="replay_store_unavailable")
        assert answer.challenges == ()


def test_several_public_urls_are_each_accepted_and_no_other() -> None:
    both = Service(public_url=("https://crm.example.com/api", "https://crm.internal.example"))
    for _ in running(both, both.app(), UVICORN[0]):
        for url in (URL, "https://crm.internal.example/letters"):
            both.accepts(both.call(url=url))
        for url in ("https://crm.internal.example/api/letters", "https://crm.example.com/letters"):
            both.refuses(*both.call(url=url).good, reason="invalid_proof")


class TestRequired:
    def test_a_bearer_token_is_refused_and_told_of_dpop_alone(self, required: Service) -> None:
        call = required.call()
        bearer = f"Authorization: Bearer {required.token(typ='Bearer', cnf=None)}".encode()
        answer = required.refuses(bearer, reason="bearer_not_accepted")
        assert [challenge.partition(" ")[0] for challenge in answer.challenges] == ["DPoP"]
        required.accepts(call)

    def test_whoever_shows_nothing_is_told_of_dpop_alone(self, required: Service) -> None:
        answer = required.refuses(reason="no_credentials")
        assert [challenge.partition(" ")[0] for challenge in answer.challenges] == ["DPoP"]
        assert "algs=" in answer.challenges[0]
        assert "error=" not in answer.challenges[0]


def test_whoever_shows_nothing_is_told_of_both_schemes_in_a_header_field_each(service: Service) -> None:
    answer = service.refuses(reason="no_credentials")
    assert sorted(challenge.partition(" ")[0] for challenge in answer.challenges) == ["Bearer", "DPoP"]
    assert not any("error=" in challenge for challenge in answer.challenges)


def test_without_bound_tokens_a_proof_changes_nothing() -> None:
    plain = Service()
    for option in ("dpop", "public_url", "replay_store"):
        del plain.options[option]
    for _ in running(plain, plain.app(), UVICORN[0]):
        call = plain.call()
        assert plain.send(*call.good).status == 401
        plain.refuses(f"Authorization: Bearer {call.token}".encode(), call.good[1], reason="sender_constrained")
        bearer = f"Authorization: Bearer {plain.token(typ='Bearer', cnf=None)}".encode()
        assert plain.send(bearer).status == 200


RFC_PROOF: Final = (
    # RFC 9449 section 7.1: the proof beside the opaque token, as it is printed there.
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMi"
    "LCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRt"
    "IjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJa"
    "M0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)
RFC_THUMBPRINT: Final = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
RFC_TIME: Final = 1562262618.0


def test_the_proof_of_rfc_9449_holds_in_everything_but_the_token_which_is_no_jwt() -> None:
    service = Service(public_url="https://resource.example.org")
    service.clock.now = RFC_TIME
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, **service.options)
    app.router.routes.append(Route("/protectedresource", lambda request: PlainTextResponse("in")))
    for _ in running(service, app, UVICORN[0]):
        token = service.token(cnf={"jkt": RFC_THUMBPRINT})
        lines = (f"Authorization: DPoP {token}".encode(), f"DPoP: {RFC_PROOF}".encode())
        service.refuses(*lines, target=b"/protectedresource", method=b"GET", reason="invalid_proof")
        cure = service.observed.decisions[-1].cure
        assert "ath" in cure
        assert not any(name in cure for name in ("htu", "htm", "iat", "signature", "thumbprint"))


def test_nothing_of_a_refusal_is_logged_by_anybody_else(one: Service, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        call = one.call()
        for name in ON_THE_WIRE:
            one.send(*broken_lines(name, call))
    assert call.token.split(".")[1] not in caplog.text
