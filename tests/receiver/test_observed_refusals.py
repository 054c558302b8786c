"""Whom the end of observing will hit: said once when it is new, hourly, on the day and at the end; bounded, clean, and of nobody unsigned."""

import datetime as dt
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from s2s_fastapi import (
    ConfigurationError,
    Principal,
    ServiceAuthMiddleware,
    observed_refusals,
    require_audience,
    require_caller,
    require_scope,
    require_service,
)
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.receiver.observe_mode import ObservedRefusals, Observing
from s2s_fastapi.telemetry import DecisionLog
from tests.kit.realm import Clock, Realm
from tests.kit.receiving import Options
from tests.test_docs import DOCS, blocks

Log = pytest.LogCaptureFixture

DAY = "2027-01-31"
END = dt.datetime(2027, 1, 31, tzinfo=dt.UTC).timestamp()
NAME = "s2s_fastapi.observed"


class Quiet:
    """An observer that wants refusals only."""

    wants_allowed = False

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def decided(self, decision: Decision) -> None:
        self.decisions.append(decision)


@pytest.fixture(autouse=True)
def everything_is_written(caplog: Log) -> None:
    caplog.set_level(logging.INFO, NAME)


@pytest.fixture
def clock() -> Clock:
    return Clock(END - 86400)


@pytest.fixture
def quiet() -> Quiet:
    return Quiet()


@pytest.fixture
def observing(clock: Clock, quiet: Quiet) -> Observing:
    return Observing(END, quiet, clock)


def decision(**changes: Any) -> Decision:
    return Decision(
        **{
            "reason": Reason.CALLER_NOT_ALLOWED,
            "observed": True,
            "client_id": "billing",
            "method": "POST",
            "route": "/orders",
            "cure": "billing called, allowed are shop-api",
            **changes,
        }
    )


ALLOWED = Decision(reason=Reason.ALLOWED)


def records(log: Log, name: str = NAME) -> list[logging.LogRecord]:
    return [record for record in log.records if record.name == name]


def said(log: Log) -> list[str]:
    """Return what was written, and forget it."""
    messages = [record.getMessage() for record in records(log)]
    log.clear()
    return messages


class TestTheReport:
    def test_a_row_is_written_when_it_is_new_and_then_only_counted(
        self, observing: Observing, clock: Clock, caplog: Log
    ) -> None:
        for _ in range(3):
            observing.decided(decision())
            clock.advance(60)
        (record,) = records(caplog)
        assert record.levelno == logging.WARNING
        fields = vars(record)
        assert {name: fields[name] for name in ("outcome", "reason", "status", "method", "route", "client_id")} == {
            "outcome": "observed",
            "reason": "caller_not_allowed",
            "status": 403,
            "method": "POST",
            "route": "/orders",
            "client_id": "billing",
        }
        assert (fields["until"], fields["count"], fields["cure"]) == (DAY, 1, "billing called, allowed are shop-api")
        (row,) = observing.report().rows
        assert (row.count, row.first_seen, row.last_seen) == (
            3,
            dt.datetime(2027, 1, 30, 0, 0, tzinfo=dt.UTC),
            dt.datetime(2027, 1, 30, 0, 2, tzinfo=dt.UTC),
        )

    @pytest.mark.parametrize(
        "other", [{"route": "/x"}, {"method": "GET"}, {"client_id": "eve"}, {"reason": Reason.SCOPE_MISSING}], ids=str
    )
    def test_a_row_is_one_route_one_caller_and_one_reason(
        self, observing: Observing, caplog: Log, other: dict[str, Any]
    ) -> None:
        for each in (decision(), decision(**other), decision(**other)):
            observing.decided(each)
        assert [row.count for row in observing.report().rows] == [2, 1]
        assert len(records(caplog)) == 2

    def test_what_is_refused_or_allowed_is_passed_on_and_not_counted(
        self, observing: Observing, quiet: Quiet, caplog: Log
    ) -> None:
        refused = decision(observed=False)
        for each in (refused, ALLOWED, decision()):
            observing.decided(each)
        assert quiet.decisions == [refused, decision()]  # it wants no acceptances
        assert len(observing.report().rows) == len(records(caplog)) == 1

    def test_all_is_written_again_an_hour_after_something_was_added(
        self, observing: Observing, clock: Clock, caplog: Log
    ) -> None:
        for caller in ("a", "b", "b"):
            observing.decided(decision(client_id=caller, cure=f"let {caller} in"))
        said(caplog)
        clock.advance(3599)
        observing.decided(ALLOWED)
        assert said(caplog) == []
        clock.advance(1)
        wanted = [observing.wants_allowed]
        observing.decided(ALLOWED)
        assert [*wanted, observing.wants_allowed] == [True, False]
        head, first, second = said(caplog)
        assert "these will be refused from that day on: refusals=3 rows=2 others=0" in head
        assert "cure='let b in' count=2 first_seen=2027-01-30T00:00:00Z last_seen=2027-01-30T00:00:00Z" in first
        assert "cure='let a in' count=1 " in second
        clock.advance(7200)
        observing.decided(ALLOWED)
        assert said(caplog) == []  # nothing new
        observing.decided(decision(client_id="a"))
        assert said(caplog) == []  # an hour begins
        clock.advance(3600)
        observing.decided(ALLOWED)
        assert len(said(caplog)) == 3

    def test_a_clock_that_is_set_back_does_not_silence_it(
        self, observing: Observing, clock: Clock, caplog: Log
    ) -> None:
        observing.decided(decision())
        clock.advance(-86400)
        observing.decided(decision())
        assert len(said(caplog)) == 3
        assert observing.report().rows[0].count == 2

    @pytest.mark.parametrize("rows", [0, 2])
    def test_the_last_one_is_written_when_the_day_has_come_by_any_request(
        self, observing: Observing, clock: Clock, caplog: Log, rows: int
    ) -> None:
        for number in range(rows):
            observing.decided(decision(client_id=f"c{number}"))
        observing.log()
        said(caplog)
        clock.now = END - 1
        wanted = [observing.wants_allowed]
        clock.now = END
        wanted.append(observing.wants_allowed)
        observing.decided(ALLOWED)
        assert [*wanted, observing.wants_allowed] == [False, True, False]
        head = records(caplog)[0]
        assert head.levelno == (logging.WARNING if rows else logging.INFO)
        assert vars(head)["rows"] == rows
        assert head.getMessage().endswith(f"remove the option: refusals={rows} rows={rows} others=0")
        assert len(said(caplog)) == 1 + rows
        for each in (ALLOWED, decision(observed=False)):
            clock.advance(7200)
            observing.decided(each)
        observing.log(final=True)
        assert said(caplog) == []  # it was the last
        assert len(observing.report().rows) == rows

    def test_the_lines_in_the_docs_are_those_that_are_written(
        self, observing: Observing, clock: Clock, caplog: Log
    ) -> None:
        page = (DOCS / "observe-mode.md").read_text(encoding="utf-8")
        clock.now = dt.datetime(2027, 1, 4, 8, tzinfo=dt.UTC).timestamp()
        billing = Principal(client_id="billing", kind="service", issuer="i", issued_at=1, expires_at=2)
        observing.decided(decision(cure=require_caller("shop-api").judge(billing).cure))
        assert said(caplog)[0] in page.splitlines()
        for _ in range(127):
            observing.decided(decision(cure="..."))
        for second in (4364, 4367, 4371):
            clock.now = dt.datetime(2027, 1, 4, 8, tzinfo=dt.UTC).timestamp() + second
            observing.decided(decision(reason=Reason.WRONG_AUDIENCE, client_id="shop-api", cure="..."))
        clock.now = dt.datetime(2027, 1, 5, 7, 59, 31, tzinfo=dt.UTC).timestamp()
        observing._rows["POST", "/orders", "billing", Reason.CALLER_NOT_ALLOWED, ""].last = clock.now
        said(caplog)
        observing.log()
        assert [line for line in said(caplog) if line not in page.splitlines()] == []


class TestItsBounds:
    def test_a_caller_has_a_hundred_rows_and_all_have_a_thousand(self, observing: Observing, caplog: Log) -> None:
        for number in range(150):
            observing.decided(decision(client_id="eve", route=f"/{number}"))
        assert (len(observing.report().rows), observing.report().others) == (100, 50)
        for caller in range(1000):
            observing.decided(decision(client_id=f"c{caller}"))
        observing.decided(decision(client_id="eve", route="/7"))  # a row that is there grows on
        report = observing.report()
        assert (len(report.rows), report.others) == (1000, 150)
        assert (report.rows[0].client_id, report.rows[0].count) == ("eve", 2)
        assert len(records(caplog)) == 1000
        assert len(observing._rows_of) <= 1000

    def test_threads_lose_no_count(self, observing: Observing, caplog: Log) -> None:
        with ThreadPoolExecutor(8) as threads:
            for number in range(800):
                threads.submit(observing.decided, decision(client_id=f"c{number % 4}"))
        assert [row.count for row in observing.report().rows] == [200] * 4
        assert len(records(caplog)) == 4

    def test_what_is_told_is_printable_and_short(self, observing: Observing, caplog: Log) -> None:
        dirty = "a\r\nWARNING all is well\x1b[2J\u202e\x00" + "x" * 5000
        observing.decided(decision(client_id=dirty, route=dirty, method=dirty, cure=dirty))
        observing.log()
        (row,) = observing.report().rows
        for text in (row.client_id, row.route):
            assert text.isprintable()
            assert len(text) == 256
        assert row.method == "(other)"
        assert row.cure.isprintable()
        assert len(row.cure) == 4096
        assert all(message.isprintable() for message in said(caplog))

    def test_a_forked_child_begins_anew(self, observing: Observing) -> None:
        observing.decided(decision())
        observing.after_fork()  # what the fork hook calls in the child
        assert observing.report().rows == ()


class TestOfAnApp:
    @pytest.fixture
    def app(self, options: Options, clock: Clock) -> Iterator[FastAPI]:
        log = DecisionLog()
        app = FastAPI(openapi_url=None)
        app.add_middleware(ServiceAuthMiddleware, **options(insecure_observe_until=DAY, clock=clock, observer=log))
        app.get("/orders/{number}", dependencies=[Depends(require_caller("shop-api"))])(lambda: "ok")

        @app.get("/internal/observed")
        def observed() -> ObservedRefusals:
            return observed_refusals(app)

        yield app
        log.flush()

    @pytest.fixture
    def headers(self, realm: Realm, clock: Clock) -> Callable[..., dict[str, str]]:
        def headers(**changes: Any) -> dict[str, str]:
            times = {"iat": int(clock()), "exp": int(clock()) + 300}
            return {"Authorization": f"Bearer {realm.token(**{**times, **changes})}"}

        return headers

    def test_it_is_json_at_a_route(self, app: FastAPI, headers: Any, caplog: Log) -> None:
        there = TestClient(app)
        for number in range(3):
            there.get(f"/orders/{number}", headers=headers())
        answer = there.get("/internal/observed", headers=headers()).json()
        cure = answer["rows"][0].pop("cure")
        assert "shop-api" in cure
        assert answer == {
            "until": "2027-01-31T00:00:00Z",
            "rows": [
                {
                    "method": "GET",
                    "route": "/orders/{number}",
                    "client_id": "chat-app-service",
                    "issuer": "http://keycloak.test/realms/corp",
                    "reason": "caller_not_allowed",
                    "status": 403,
                    "count": 3,
                    "first_seen": "2027-01-30T00:00:00Z",
                    "last_seen": "2027-01-30T00:00:00Z",
                }
            ],
            "others": 0,
        }

    @pytest.mark.parametrize(
        "sent",
        [
            {},
            {"Authorization": "Basic ZXZlOmV2ZQ=="},
            {"Authorization": "Bearer eve"},
            lambda realm: realm.token(azp="eve", aud="eve", header={"alg": "none"}),
            lambda realm: realm.token(azp="eve", aud="eve", header={"kid": "eve"}),
            lambda realm: realm.token(azp="eve", aud="eve", iss="eve"),
        ],
    )
    def test_nobody_without_a_good_token_of_the_realm_is_in_it(
        self, app: FastAPI, realm: Realm, sent: Any, caplog: Log
    ) -> None:
        given = {"Authorization": f"Bearer {sent(realm)}"} if callable(sent) else sent
        response = TestClient(app).get("/orders/eve", headers=given)
        assert response.status_code == 401
        assert observed_refusals(app).rows == ()
        assert records(caplog) == []

    def test_the_route_in_the_docs_shows_it_to_operators_only(
        self, options: Options, clock: Clock, headers: Any
    ) -> None:
        block = next(block for block in blocks(DOCS / "observe-mode.md", "python") if "complete" in block.words)
        app = block.run()["app"]
        app.user_middleware[0].kwargs.update(options(clock=clock))
        there = TestClient(app)
        assert there.post("/orders", headers=headers(aud="bob")).json() == "chat-app-service"
        operations = {"azp": "operations", "client_id": "operations"}
        assert there.get("/internal/observed", headers=headers(**operations)).json()["rows"][0]["route"] == "/orders"
        for changes, status in (
            ({}, 403),
            ({**operations, "aud": "bob"}, 401),
            ({"azp": "operations", "client_id": None, "sid": "s"}, 403),
        ):
            refused = there.get("/internal/observed", headers=headers(**changes))
            assert (refused.status_code, "rows" in refused.text) == (status, False)
            assert "WWW-Authenticate" in refused.headers

    def test_who_tries_paths_and_methods_fills_no_more_than_a_row_each(
        self, app: FastAPI, headers: Any, caplog: Log
    ) -> None:
        there = TestClient(app)
        given = headers(azp="eve", client_id="eve", aud="bob")
        for number in range(110):
            assert there.get(f"/nothing/{number}", headers=given).status_code == 404
            assert there.request(f"M{number}", "/internal/observed", headers=given).status_code == 405
        there.get("/orders/1", headers=headers())
        report = observed_refusals(app)
        assert report.others == 0
        eves = {(row.method, row.route): row.count for row in report.rows if row.client_id == "eve"}
        assert eves == {("GET", "(no route)"): 110, ("(other)", "/internal/observed"): 110}
        assert [row.route for row in report.rows if row.client_id != "eve"] == ["/orders/{number}"]

    def test_a_request_counts_once_for_each_reason_and_says_each_cure(
        self, options: Options, clock: Clock, headers: Any
    ) -> None:
        app = FastAPI(openapi_url=None, dependencies=[Depends(require_scope("a"))])
        app.add_middleware(ServiceAuthMiddleware, **options(insecure_observe_until=DAY, clock=clock))
        asked = require_scope("b") & require_service() & require_audience("crm-api-gateway")
        app.get("/x", dependencies=[Depends(asked), Depends(require_caller("shop-api"))])(lambda: "ok")
        TestClient(app).get("/x", headers=headers(aud="bob", client_id=None, sid="s"))
        rows = {row.reason: row for row in observed_refusals(app).rows}
        assert {reason: row.count for reason, row in rows.items()} == {
            "wrong_audience": 1,
            "not_a_service": 1,
            "scope_missing": 1,
        }
        assert "lacks scope a" in rows["scope_missing"].cure
        assert "lacks scope b" in rows["scope_missing"].cure
        assert rows["wrong_audience"].cure.count("expected crm-api-gateway") == 1

    def test_one_of_several_ways_in_is_told_by_what_it_lacks(
        self, options: Options, clock: Clock, headers: Any
    ) -> None:
        app = FastAPI(openapi_url=None)
        app.add_middleware(ServiceAuthMiddleware, **options(insecure_observe_until=DAY, clock=clock))
        asked = require_caller("shop-api") | (require_caller("chat-app-service") & require_scope("a", "b"))
        app.get("/x", dependencies=[Depends(asked)])(lambda: "ok")
        TestClient(app).get("/x", headers=headers())
        assert [row.reason for row in observed_refusals(app).rows] == ["scope_missing"]
        TestClient(app).get("/x", headers=headers(scope="a b"))
        assert [row.count for row in observed_refusals(app).rows] == [1]

    def test_routes_below_mounts_are_told_apart(self, options: Options, clock: Clock, headers: Any) -> None:
        def sub() -> FastAPI:
            app = FastAPI(openapi_url=None)
            app.get("/x/{id}", dependencies=[Depends(require_caller("shop-api"))])(lambda: "ok")
            return app

        async def plain(request: Request) -> PlainTextResponse:
            return PlainTextResponse("ok")

        guard = require_caller("shop-api").guard
        app = FastAPI(openapi_url=None)
        app.mount("/v1", sub())
        app.mount("/v2", Starlette(routes=[Mount("/deep", sub())]))
        app.mount("/files", guard(Starlette(routes=[Route("/y", plain)])))
        app.add_middleware(ServiceAuthMiddleware, **options(insecure_observe_until=DAY, clock=clock))
        # Old Starlettes do not say which route they took; then the route is the whole path.
        for root, path in (("", "/v1/x/1"), ("", "/v2/deep/x/2"), ("", "/files/y"), ("/api", "/v1/x/1")):
            there = TestClient(app, root_path=root)
            assert there.get(root + path, headers=headers()).status_code == 200
        assert {row.route for row in observed_refusals(app).rows} == {"/v1/x/{id}", "/v2/deep/x/{id}", "/files/y"}

    def test_it_is_written_at_the_end_of_the_lifespan(self, app: FastAPI, headers: Any, caplog: Log) -> None:
        with TestClient(app):
            pass
        (record,) = records(caplog)
        assert record.levelno == logging.INFO
        assert "no request so far will be refused" in record.getMessage()
        caplog.clear()
        with TestClient(app) as there:
            there.get("/orders/1", headers=headers())
            observed = len(said(caplog))
        assert observed == 1
        head, row = said(caplog)
        assert "these will be refused from that day on" in head
        assert "count=1 " in row

    def test_and_when_the_apps_own_end_fails(self, options: Options, clock: Clock, headers: Any, caplog: Log) -> None:
        @asynccontextmanager
        async def lifespan(app: Any) -> AsyncIterator[None]:
            yield
            raise LookupError("mine")

        app = FastAPI(openapi_url=None, lifespan=lifespan)
        app.add_middleware(ServiceAuthMiddleware, **options(insecure_observe_until=DAY, clock=clock))
        there = TestClient(app)
        there.get("/", headers=headers(aud="bob"))
        said(caplog)
        with pytest.raises(LookupError, match="mine"), there:
            pass
        assert len(said(caplog)) == 2

    def test_the_day_is_noticed_by_an_allowed_request_though_the_log_wants_none(
        self, app: FastAPI, headers: Any, clock: Clock, caplog: Log
    ) -> None:
        caplog.set_level(logging.WARNING, "s2s_fastapi.decisions")
        there = TestClient(app)
        there.get("/orders/1", headers=headers())
        said(caplog)
        clock.now = END
        assert there.get("/internal/observed", headers=headers()).status_code == 200
        head, row = said(caplog)
        assert "the day has come, and these are refused from now on; remove the option" in head
        assert "route='/orders/{number}'" in row

    def test_the_decisions_are_logged_as_observed_and_a_flood_of_them_hides_no_refusal(
        self, app: FastAPI, headers: Any, clock: Clock, caplog: Log
    ) -> None:
        there = TestClient(app)
        given = headers()
        for _ in range(50):
            there.get("/orders/1", headers=given)
        told = records(caplog, "s2s_fastapi.decisions")
        assert 20 <= len(told) < 50
        assert {record.levelno for record in told} == {logging.WARNING}
        assert {vars(record)["outcome"] for record in told} == {"observed"}
        assert told[0].getMessage().startswith("observed 403: caller_not_allowed method='GET'")
        assert observed_refusals(app).rows[0].count == 50
        caplog.clear()
        clock.now = END
        assert there.get("/orders/1", headers=headers()).status_code == 403
        assert "refused" in [vars(record)["outcome"] for record in records(caplog, "s2s_fastapi.decisions")]

    def test_there_is_none_before_the_start_without_the_option_and_after_the_day(
        self, app: FastAPI, options: Options, headers: Any, clock: Clock
    ) -> None:
        nothing = ObservedRefusals(until=None)
        assert observed_refusals(app) == nothing
        without = ServiceAuthMiddleware(FastAPI(openapi_url=None), **options(clock=clock))
        TestClient(without).get("/", headers=headers())
        assert observed_refusals(without) == nothing
        clock.now = END
        TestClient(app).get("/orders/1", headers=headers())
        assert observed_refusals(app) == nothing

    def test_there_is_none_of_an_app_that_nothing_protects(self) -> None:
        for app in (FastAPI(), Starlette(), object()):
            with pytest.raises(ConfigurationError, match="takes the app that ServiceAuthMiddleware was added to"):
                observed_refusals(app)  # type: ignore[arg-type]


def child(code: str) -> list[str]:
    """Return what an interpreter writes that observes, and then just ends."""
    begin = """
        import logging, os, sys
        from s2s_fastapi.decision import Decision, Reason
        from s2s_fastapi.receiver.observe_mode import Observing
        class Nobody:
            def decided(self, decision): pass
        logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
        observing = Observing(1000.0, Nobody(), lambda: 10.0)
        def tell(*callers):
            for caller in callers:
                observing.decided(Decision(reason=Reason.CALLER_NOT_ALLOWED, observed=True, client_id=caller))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(begin) + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_process_without_a_lifespan_writes_it_when_it_ends() -> None:
    lines = child("tell('a', 'b', 'b')")
    assert len(lines) == 5
    assert "refusals=3 rows=2 others=0" in lines[2]


def test_a_process_that_wrote_it_before_its_end_does_not_write_it_again() -> None:
    assert len(child("tell('a'); observing.log(final=True)")) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_writes_its_own_and_not_its_parents() -> None:
    lines = child("""
        tell('parent')
        sys.stdout.flush()
        if os.fork() == 0:
            tell('child', 'child')
            sys.exit()
        os.wait()
    """)
    assert [name for line in lines for name in ("parent", "child") if f"client_id='{name}'" in line] == [
        "parent",
        "child",
        "child",
        "parent",
    ]
    assert "refusals=2 rows=1 others=0" in lines[2]
    assert "refusals=1 rows=1 others=0" in lines[4]
