"""A claim and a condition of the app: they never let in what they cannot judge, and never stand for somebody else's requirement."""

import copy
import gc
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from typing import Any, cast
from unittest.mock import Mock

import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from s2s_fastapi import (
    AuthorizationError,
    ConditionFailed,
    ConfigurationError,
    Principal,
    Reason,
    Requirement,
    ServiceAuthMiddleware,
    require_caller,
    require_claim,
    require_realm_role,
    require_scope,
    require_service,
    require_that,
    require_user,
)
from s2s_fastapi.principal import frozen
from tests.kit.receiving import App, Client, Headers, Observed, Options

FUTURE = "2027-01-31"


def caller(claims: dict[str, Any] | None = None, **fields: Any) -> Principal:
    given: dict[str, Any] = {"client_id": "a", "kind": "service", "issuer": "i", "issued_at": 1, "expires_at": 2}
    return Principal(**{**given, **fields}, claims=frozen(claims or {}))


def yes(_: Principal) -> bool:
    return True


def no(_: Principal) -> bool:
    return False


def broken(principal: Principal) -> bool:
    raise KeyError(f"nothing for {principal.claims['secret']}")


def unreachable(_: Principal) -> bool:
    pytest.fail("nobody may ask this")  # no Exception, which would be taken for a condition that failed


class Tenant(StrEnum):
    ACME = "acme"


class Same:
    """A predicate that is equal to every other one, and cannot be hashed."""

    __hash__ = None  # type: ignore[assignment]  # what somebody may write

    def __init__(self, answer: bool) -> None:
        self.answer = answer

    def __eq__(self, other: object) -> bool:
        return True

    def __call__(self, _: Principal) -> bool:
        return self.answer


class TestAClaim:
    @pytest.mark.parametrize(
        ("requirement", "claims", "allowed"),
        [
            (require_claim("tenant", "acme"), {"tenant": "acme"}, True),
            (require_claim("tenant", Tenant.ACME), {"tenant": "acme"}, True),
            (require_claim("tenant", "acme", "umbrella"), {"tenant": "umbrella"}, True),
            (require_claim("tenant", "acme"), {"tenant": "ACME"}, False),
            (require_claim("tenant", "acme"), {"tenant": "acme "}, False),
            (require_claim("tenant", "acme"), {"tenant": ["other", "acme"]}, True),
            (require_claim("tenant", "acme"), {"tenant": []}, False),
            (require_claim("tenant", "acme"), {"tenant": [["acme"]]}, False),
            (require_claim("tenant", "acme"), {"tenant": {"acme": True}}, False),
            (require_claim("tenant", "acme"), {"tenant": None}, False),
            (require_claim("tenant", "acme"), {}, False),
            (require_claim("mfa", False), {"mfa": False}, True),
            (require_claim("mfa", True), {"mfa": [True, False]}, True),
            (require_claim(("org", "level"), 2), {"org": {"level": 2}}, True),
            (require_claim(("org", "level"), 2), {"org.level": 2}, False),
            (require_claim("org.level", 2), {"org.level": 2}, True),
            (require_claim("org.level", 2), {"org": {"level": 2}}, False),
            (require_claim(("org", "level"), 2), {"org": [{"level": 2}]}, False),
            (require_claim(("org", "level"), 2), {"org": "level"}, False),
        ],
        ids=repr,
    )
    def test_has_one_of_the_values_or_is_a_list_that_holds_one(
        self, requirement: Requirement, claims: dict[str, Any], allowed: bool
    ) -> None:
        decision = requirement.judge(caller(claims))
        assert decision.reason is (Reason.ALLOWED if allowed else Reason.CLAIM_MISSING)

    @pytest.mark.parametrize("wanted", [True, 1, 1.0, "1"], ids=repr)
    @pytest.mark.parametrize("found", [True, 1, 1.0, "1", [True], [1], [1.0], ["1"]], ids=repr)
    def test_counts_by_its_json_type(self, wanted: Any, found: Any) -> None:
        value = found[0] if isinstance(found, list) else found
        allowed = require_claim("level", wanted).judge(caller({"level": found})).reason is Reason.ALLOWED
        assert allowed is (type(wanted) is type(value))

    def test_of_a_real_token_is_read_as_the_token_has_it(
        self, make_app: App, client: Client, service: Headers, observed: Observed
    ) -> None:
        app = make_app()
        app.get("/one", dependencies=[Depends(require_claim("level", 1))])(lambda: None)
        app.get("/true", dependencies=[Depends(require_claim("level", True))])(lambda: None)
        with client(app) as there:
            answers = {
                repr(level): [there.get(path, headers=service(level=level)).status_code for path in ("/one", "/true")]
                for level in (1, True, 1.0, "1", None)
            }
        assert answers == {
            "1": [200, 403],
            "True": [403, 200],
            "1.0": [403, 403],
            "'1'": [403, 403],
            "None": [403, 403],
        }
        assert set(observed.reasons) == {"allowed", "claim_missing"}

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("tenant",), "require_claim needs at least one value"),
            (((), "a"), "a tuple of names for a path"),
            ((["a", "b"], "x"), "a tuple of names for a path"),
            ((None, "x"), "a tuple of names for a path"),
            (("", "x"), "'' is not the name of a claim: it is empty"),
            ((("a", ""), "x"), "'' is not the name of a claim: it is empty"),
            ((("a", 1), "x"), "1 is not the name of a claim: it is not text"),
            (("a\n", "x"), "U+000A"),
            (("a", ""), "'' is not the value of a claim: it is empty"),
            (("a", None), "None is not the value of a claim: it is NoneType"),
            (("a", ["x"]), "it is list"),
            (("a", float("nan")), "JSON has no such number"),
            (("a", float("inf")), "JSON has no such number"),
            (("a", "\ud800"), "it has no UTF-8 form"),
            (("a", b"x"), "it is bytes"),
            (("aud", "x"), "write require_audience("),
            ((("aud",), "x"), "write require_audience("),
            (("scope", "x"), "write require_scope("),
            (("azp", "x"), "write require_caller("),
            (("client_id", "x"), "write require_caller("),
            (("clientId", "x"), "write require_caller("),
            (("sid", "x"), "write require_user("),
            ((("realm_access", "roles"), "x"), "write require_realm_role("),
            ((("resource_access", "crm", "roles"), "x"), "write require_role("),
            (("email", "a@b.example"), "email_verified"),
            (("iss", "x"), "the middleware checks it in each token"),
            (("exp", 1), "the middleware checks it in each token"),
            (("typ", "Bearer"), "the middleware checks it in each token"),
            (("cnf", "x"), "write require_bound()"),
        ],
        ids=repr,
    )
    def test_that_cannot_be_meant_is_refused_at_once(self, arguments: tuple[Any, ...], sentence: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            require_claim(*arguments)
        assert sentence in str(caught.value)

    @pytest.mark.parametrize("name", ["sub", "preferred_username", "email_verified", "acr", "groups", "scopes"])
    def test_without_a_requirement_of_its_own_may_be_compared(self, name: str) -> None:
        assert require_claim(name, "x").judge(caller({name: "x"})).reason is Reason.ALLOWED

    @pytest.mark.parametrize(
        ("requirement", "principal", "parts"),
        [
            (
                require_claim("tenant", "acme"),
                caller(),
                ["has no claim tenant", '"acme"', "Hardcoded claim", "a-dedicated"],
            ),
            (
                require_claim(("org.unit", "level"), 2, True),
                caller(),
                ["has no claim org.unit > level", "true or 2", "org\\\\.unit.level", "boolean or long"],
            ),
            (require_claim("tenant", "acme"), caller(kind="user"), ["User Attribute or User Session Note"]),
            (
                require_claim("level", 1),
                caller({"level": "private"}),
                ["as String, expected 1", "“Claim JSON Type” of the mapper that writes it to long"],
            ),
            (require_claim("level", "x"), caller({"level": "private"}), ["another value in the claim level"]),
            (require_claim("a.b", "x"), caller({"a": {"b": "x"}}), ['write require_claim(("a", "b"), ...)']),
        ],
        ids=["missing", "a path", "a user", "another type", "another value", "a dot"],
    )
    def test_that_is_missing_names_the_mapper_and_shows_no_value_of_the_token(
        self, requirement: Requirement, principal: Principal, parts: list[str]
    ) -> None:
        cure = requirement.judge(principal).cure
        assert [part for part in parts if part not in cure] == [], cure
        assert "private" not in cure


class TestACondition:
    def test_is_met_by_true_and_refuses_with_false(self) -> None:
        assert require_that("c", yes).judge(caller()).reason is Reason.ALLOWED
        refused = require_that("partner of level 2", no).judge(caller())
        assert refused.reason is Reason.CONDITION_NOT_MET
        assert 'a does not meet the condition "partner of level 2"' in refused.cure

    @pytest.mark.parametrize(
        "answer",
        [1, 0, "false", "", None, [], [1], object(), Mock(), (each for each in [1]), NotImplemented],
        ids=lambda value: type(value).__name__ + str(bool(value) if value is not NotImplemented else ""),
    )
    def test_that_answers_anything_else_lets_nobody_in(self, answer: Any) -> None:
        decision = require_that("c", lambda _: answer).judge(caller())
        assert (decision.reason, decision.status) == (Reason.CONDITION_FAILED, 500)
        assert 'the function of the condition "c" returned' in decision.cure

    def test_that_answers_a_coroutine_lets_nobody_in_and_leaves_no_warning(self) -> None:
        async def owns(_: Principal) -> bool:
            return True

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            decision = require_that("c", lambda principal: cast("bool", owns(principal))).judge(caller())
            gc.collect()
        assert decision.reason is Reason.CONDITION_FAILED
        assert "returned an object of the type coroutine" in decision.cure

    def test_that_raises_is_named_without_what_the_exception_says(
        self,
        make_app: App,
        client: Client,
        service: Headers,
        observed: Observed,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        app = make_app()
        app.get("/x", dependencies=[Depends(require_that("owner", broken))])(lambda: None)
        with client(app) as there, caplog.at_level(logging.DEBUG):
            answer = there.get("/x", headers=service(secret="s3cret"))
        assert (answer.status_code, answer.json()) == (500, {"detail": "Internal Server Error"})
        assert "WWW-Authenticate" not in answer.headers
        assert observed.reasons == ["condition_failed"]
        assert 'the function of the condition "owner" raised KeyError' in observed.decisions[0].cure
        assert "s3cret" not in caplog.text + str(observed.decisions)

    def test_that_fails_is_one_error_without_a_chain(self) -> None:
        with pytest.raises(ConditionFailed) as caught:
            require_that("owner", broken).check(caller({"secret": "s3cret"}))
        assert (caught.value.__cause__, caught.value.__context__, caught.value.status_code) == (None, None, 500)
        with pytest.raises(AuthorizationError):
            require_that("owner", no).check(caller())

    async def _async(self, _: Principal) -> bool:
        return True

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            ((yes, "c"), "it is not text"),
            (("", yes), "it is empty"),
            ((None, yes), "it is not text"),
            (("a\nb", yes), "U+000A"),
            (("c", None), "not NoneType"),
            (("c", True), "not bool"),
            (("c", require_service()), "join it with & or |"),
            (("c", lambda: True), "must take one argument"),
            (("c", lambda one, two: True), "must take one argument"),
            (("c", lambda *, principal: True), "must take one argument"),
        ],
        ids=[
            "swapped",
            "no name",
            "None as name",
            "two lines",
            "None",
            "a bool",
            "a requirement",
            "no argument",
            "two arguments",
            "a keyword",
        ],
    )
    def test_that_cannot_be_meant_is_refused_at_once(self, arguments: tuple[Any, ...], sentence: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            require_that(*arguments)
        assert sentence in str(caught.value)

    def test_that_is_async_or_a_generator_is_refused_at_once(self) -> None:
        async def later(_: Principal) -> bool:
            return True

        def each(_: Principal) -> Iterator[bool]:
            yield True

        class Later:
            async def __call__(self, _: Principal) -> bool:
                return True

        class Each:
            def __call__(self, _: Principal) -> Iterator[bool]:
                yield True

        for predicate in (later, each, Later(), Each(), partial(later), self._async):
            with pytest.raises(ConfigurationError, match="async or a generator"):
                require_that("c", cast("Any", predicate))


class TestConditionsBesideOthers:
    ANY, A, B = require_service(), require_caller("a"), require_caller("b")
    NEVER = require_that("never asked", unreachable)

    @pytest.mark.parametrize(
        ("requirement", "reason"),
        [
            (A | NEVER, "allowed"),
            (B | require_that("c", yes), "allowed"),
            (B | require_that("c", no), "condition_not_met"),
            (require_that("c", no) | A, "allowed"),
            (require_that("c", broken) | A, "allowed"),
            (require_that("c", broken) | B, "condition_failed"),
            (require_that("c", broken) | require_that("d", yes), "allowed"),
            (NEVER & B, "caller_not_allowed"),
            (NEVER & B & require_scope("s"), "caller_not_allowed"),
            (NEVER & require_scope("s") & B, "caller_not_allowed"),
            (NEVER & require_claim("tenant", "x"), "claim_missing"),
            ((NEVER | NEVER) & require_realm_role("r"), "role_missing"),
            (require_claim("tenant", "x") & B, "caller_not_allowed"),
            (require_claim("tenant", "x") & require_realm_role("r"), "role_missing"),
            (A & require_that("c", no) & NEVER, "condition_not_met"),
            (A & require_that("c", broken), "condition_failed"),
            (A & require_that("c", broken) & require_that("d", no), "condition_not_met"),
            (A & require_that("c", broken) & require_that("d", yes), "condition_failed"),
            (A & require_that("c", yes) & require_claim("tenant", "acme"), "allowed"),
            ((A & require_that("c", no)) | (A & require_claim("tenant", "acme")), "allowed"),
            ((B & NEVER) | require_that("c", no), "condition_not_met"),
        ],
        ids=str,
    )
    def test_an_alternative_stops_at_the_first_that_allows_and_all_of_ask_conditions_last(
        self, requirement: Requirement, reason: str
    ) -> None:
        assert str(requirement.judge(caller({"tenant": "acme"})).reason) == reason

    def test_a_stranger_never_reaches_the_code_of_the_app(
        self, make_app: App, client: Client, service: Headers, observed: Observed
    ) -> None:
        app = make_app()
        app.get("/x", dependencies=[Depends(self.NEVER & require_caller("billing"))])(lambda: None)
        with client(app) as there:
            assert there.get("/x", headers=service()).status_code == 403
        assert observed.reasons == ["caller_not_allowed"]

    PAIRS: tuple[tuple[Requirement, Requirement, dict[str, Any]], ...] = (
        (require_claim("level", 1), require_claim("level", True), {"level": 1}),
        (require_claim("level", 1), require_claim("level", 1.0), {"level": 1}),
        (require_claim("level", 1), require_claim("level", "1"), {"level": 1}),
        (require_claim("level", True), require_claim("level", 1.0), {"level": True}),
        (require_claim("level", 0), require_claim("level", False), {"level": 0}),
        (require_claim(("a", "b"), "x"), require_claim("a.b", "x"), {"a": {"b": "x"}}),
        (require_claim("a", "x"), require_claim("a", "y"), {"a": "x"}),
        (require_that("c", yes), require_that("c", no), {}),
        (require_that("c", Same(answer=True)), require_that("c", Same(answer=False)), {}),
        (require_that("c", lambda _: True), require_that("c", lambda _: False), {}),
    )

    @pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]} and {pair[1]}")
    def test_two_that_differ_are_two_on_one_route_on_two_routes_and_in_a_set(
        self, make_app: App, client: Client, service: Headers, pair: tuple[Requirement, Requirement, dict[str, Any]]
    ) -> None:
        one, other, claims = pair
        assert one != other
        assert len({one, other}) == 2
        assert (one & other) != (other & one) != (one & one)
        app = make_app()
        app.get("/both", dependencies=[Depends(one), Depends(other)])(lambda: None)
        app.get("/one", dependencies=[Depends(one)])(lambda: None)
        app.get("/other", dependencies=[Depends(other)])(lambda: None)
        app.get("/joined", dependencies=[Depends(one & other)])(lambda: None)
        with client(app) as there:
            answers = [
                there.get(f"/{path}", headers=service(**claims)).status_code
                for path in ("both", "one", "other", "joined")
            ]
        assert answers == [403, 200, 403, 403]

    @pytest.mark.parametrize(("one", "other"), [(one, other) for one, other, _ in PAIRS[:-2]], ids=str)
    def test_two_that_differ_are_two_after_pickle(self, one: Requirement, other: Requirement) -> None:
        first, second = pickle.loads(pickle.dumps([one, other]))  # noqa: S301 - our own bytes
        assert (first, second) == (one, other)
        assert (hash(first), str(first)) == (hash(one), str(one))
        assert first != second
        assert copy.deepcopy(one) == one

    def test_a_lambda_is_not_pickled(self) -> None:
        with pytest.raises((pickle.PicklingError, AttributeError)):
            pickle.dumps(require_that("c", lambda _: True))

    def test_equal_ones_are_one_value(self) -> None:
        assert require_claim("a", "x", "y") == require_claim(("a",), "y", "x", "x")
        assert require_that("c", yes) == require_that("c", yes)
        assert require_that("c", yes) != require_that("d", yes)
        assert str(require_claim("a", "x", 1, True)) == 'require_claim("a", True, 1, "x")'
        assert str(require_claim(("a", "b"), "x")) == 'require_claim(("a", "b"), "x")'
        assert str(require_that("two words", yes)) == 'require_that("two words")'


class TestTheyDoNotSayWho:
    @pytest.mark.parametrize("requirement", [require_claim("a", "x"), require_that("c", yes)], ids=str)
    def test_so_an_app_that_demands_a_caller_does_not_start_with_them_alone(
        self, make_app: App, requirement: Requirement
    ) -> None:
        app = make_app(users=True)
        app.get("/x", dependencies=[Depends(requirement)])(lambda: None)
        with pytest.raises(ConfigurationError, match="GET /x"), TestClient(app):
            pass
        app = make_app(insecure_skip_audience=True)
        app.get("/x", dependencies=[Depends(requirement)])(lambda: None)
        with pytest.raises(ConfigurationError, match="GET /x"), TestClient(app):
            pass
        app = make_app(users=True)
        app.get("/x", dependencies=[Depends(require_user() & requirement)])(lambda: None)
        with TestClient(app):
            pass


class TestObserveMode:
    """Observe mode opens audience, kind, caller, scope and role; a claim and a condition refuse all the same."""

    def test_opens_a_closed_list_of_reasons(self) -> None:
        assert {str(reason) for reason in Reason if reason.observable} == {
            "wrong_audience",
            "audience_not_only",
            "bearer_not_accepted",
            "not_a_service",
            "not_a_user",
            "unknown_kind",
            "caller_not_allowed",
            "scope_missing",
            "role_missing",
        }

    @pytest.mark.parametrize(
        "case",
        [
            (require_claim("tenant", "acme"), 403, ["claim_missing"]),
            (require_that("c", no), 403, ["condition_not_met"]),
            (require_that("c", broken), 500, ["condition_failed"]),
            (require_caller("b") & require_claim("tenant", "acme"), 403, ["claim_missing"]),
            (require_caller("b") & require_that("c", no), 403, ["condition_not_met"]),
            (require_that("c", broken) & require_that("d", no), 403, ["condition_not_met"]),
            (require_claim("tenant", "acme") & require_that("c", unreachable), 403, ["claim_missing"]),
            (require_caller("b") | require_claim("tenant", "acme"), 403, ["claim_missing"]),
            (require_claim("tenant", "acme") | require_caller("b"), 403, ["claim_missing"]),
            ((require_caller("b") & require_that("c", no)) | require_caller("c"), 403, ["condition_not_met"]),
            (require_caller("c") | (require_caller("b") & require_that("c", no)), 403, ["condition_not_met"]),
            (require_caller("b") & require_that("c", yes), 200, ["caller_not_allowed"]),
            (require_caller("b") | require_that("c", yes), 200, ["allowed"]),
        ],
        ids=lambda case: str(case[0]),
    )
    def test_lets_nobody_in_who_lacks_a_claim_or_does_not_meet_a_condition(
        self,
        make_app: App,
        client: Client,
        service: Headers,
        observed: Observed,
        case: tuple[Requirement, int, list[str]],
    ) -> None:
        requirement, status, reasons = case
        app = make_app(insecure_observe_until=FUTURE, clock=lambda: 1_790_000_000.0)
        app.get("/x", dependencies=[Depends(requirement)])(lambda: None)
        with client(app) as there:
            answer = there.get("/x", headers=service(iat=1_789_999_990, exp=1_790_000_300))
        assert (answer.status_code, observed.reasons) == (status, reasons)
        assert [decision.observed for decision in observed.decisions] == [status == 200 and reasons != ["allowed"]]


class TestWhereverARequirementStands:
    """A condition that fails is answered with 500 over HTTP and with a close code over a WebSocket, also around plain ASGI apps."""

    @pytest.mark.parametrize(
        ("predicate", "status"), [(yes, 200), (no, 403), (broken, 500)], ids=["yes", "no", "broken"]
    )
    def test_around_a_plain_asgi_app(
        self, options: Options, service: Headers, predicate: Callable[[Principal], bool], status: int
    ) -> None:
        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse("in")(scope, receive, send)

        guarded = require_that("c", predicate).guard(inner)
        alone = ServiceAuthMiddleware(guarded, **options())
        mounted = Starlette(routes=[Mount("/x", guarded)], middleware=[Middleware(ServiceAuthMiddleware, **options())])
        for app in (alone, mounted):
            assert TestClient(app).get("/x/y", headers=service(secret="s3cret")).status_code == status

    @pytest.mark.parametrize(("predicate", "status"), [(no, 403), (broken, 500)], ids=["no", "broken"])
    def test_on_a_websocket(
        self, make_app: App, service: Headers, predicate: Callable[[Principal], bool], status: int
    ) -> None:
        app = make_app()

        @app.websocket("/ws", dependencies=[Depends(require_that("c", predicate))])
        async def ws(socket: WebSocket) -> None:
            await socket.accept()

        with (
            pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)) as caught,
            TestClient(app).websocket_connect("/ws", headers=service(secret="s")),
        ):
            pass
        assert getattr(caught.value, "status_code", status) == status

    def test_asked_by_hand(self, make_app: App, client: Client, service: Headers) -> None:
        app = make_app()

        @app.get("/x")
        async def x(request: Request) -> Response:
            await require_claim("tenant", "acme")(request)
            return Response()

        with client(app) as there:
            assert there.get("/x", headers=service()).status_code == 403
            assert there.get("/x", headers=service(tenant="acme")).status_code == 200


def test_a_flood_of_failing_conditions_is_counted(
    make_app: App, service: Headers, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(app=FastAPI(openapi_url=None), observer=None)
    app.get("/x", dependencies=[Depends(require_that("owner", broken))])(lambda: None)
    headers = service(secret="s3cret")
    with caplog.at_level(logging.WARNING), TestClient(app, raise_server_exceptions=False) as there:
        assert {there.get("/x", headers=headers).status_code for _ in range(50)} == {500}
        written = [record for record in caplog.records if record.name == "s2s_fastapi.decisions"]
        assert len(written) == 20
    assert {record.levelname for record in written} == {"ERROR"}
    assert "Traceback" not in caplog.text
