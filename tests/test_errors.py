"""One tree of errors: what each is, tells, renders as, and never shares."""

import ast
import copy
import inspect
import pickle
import re
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import fastapi
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from s2s_fastapi import errors
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import (
    AudienceNotGranted,
    AuthenticationError,
    AuthorizationError,
    ConditionFailed,
    ConfigurationError,
    KeysUnavailable,
    NoUserToActFor,
    ReplayStoreUnavailable,
    S2SError,
    SessionEnded,
    TokenRequestError,
    TokenWithheld,
)

SECRET = "hunter2-in-a-frame"
CHALLENGE = 'Bearer error="invalid_token"'
SAFE = "The access token expired."

EXAMPLES: list[Any] = [
    S2SError("something"),
    ConfigurationError("Set KEYCLOAK_URL."),
    AuthenticationError(
        "expired: token of a expired 7 s ago", code="expired", detail=SAFE, status=401, challenge=CHALLENGE
    ),
    AuthenticationError(
        "invalid_request: twice", code="invalid_request", detail="Bad.", status=400, challenge="Bearer"
    ),
    AuthorizationError(
        "scope_missing: a", code="scope_missing", detail="The access token lacks a scope.", challenge="Bearer"
    ),
    AuthorizationError("caller_not_allowed: a", code="caller_not_allowed", detail="No."),
    KeysUnavailable("Keycloak's keys could not be loaded: refused.", retry_after=7),
    TokenRequestError(
        "Keycloak refused.",
        error="invalid_client",
        error_description="Bad secret",
        http_status=401,
        cure="Set it.",
        retryable=False,
    ),
    AudienceNotGranted(
        "Not for bob.",
        wanted=frozenset({"bob"}),
        granted=frozenset({"account"}),
        claims={"aud": "account"},
        cure="Assign the scope.",
    ),
    TokenWithheld("The request goes elsewhere."),
    SessionEnded("Keycloak exchanged no token: the session is over."),
    NoUserToActFor("The caller is a service."),
    ConditionFailed('condition_failed: the function of the condition "x" raised KeyError'),
    ReplayStoreUnavailable("The replay store is full.", retry_after=7),
]
IDS = [f"{type(error).__name__} {error.code}" for error in EXAMPLES]


def tree(kind: type[S2SError] = S2SError) -> Iterator[tuple[str, str]]:
    """Give each public class with the nearest public one above it."""
    for name, member in inspect.getmembers(errors, inspect.isclass):
        if issubclass(member, kind) and not name.startswith("_") and member is not kind:
            above = next(base for base in member.__mro__[1:] if not base.__name__.startswith("_"))
            yield name, above.__name__


def drawn() -> Iterator[tuple[str, str, str]]:
    """Give each line of the docstring's drawing: the class, the one it hangs on, and what is said of it."""
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.fullmatch(r"    ((?:│   |    )*)(?:[├└]── )?(\w+)(?:\s+(.*))?", line):
            depth = 0 if match[2] == "S2SError" else len(match[1]) // 4 + 1
            del path[depth:]
            if path:
                yield match[2], path[-1], match[3]
            path.append(match[2])


def test_the_drawing_is_the_tree() -> None:
    assert sorted((name, above) for name, above, _ in drawn()) == sorted(tree())
    assert set(errors.__all__) == {"S2SError", *(name for name, _ in tree())}


def test_the_drawing_says_each_status() -> None:
    for name, _, said in drawn():
        statuses = {
            str(error.status_code)
            for error in EXAMPLES
            if type(error).__name__ == name and isinstance(error, HTTPException)
        }
        if statuses:
            assert set(re.findall(r"\d{3}", said)) == statuses


def test_every_error_has_an_example_here() -> None:
    assert {type(error).__name__ for error in EXAMPLES} == set(errors.__all__)


def test_codes_are_stable_and_nobody_shares_one() -> None:
    codes = {name: vars(getattr(errors, name)).get("code") for name in errors.__all__}
    assert codes == {
        "S2SError": "s2s_error",
        "ConfigurationError": "configuration",
        "AuthenticationError": None,  # the reason of the decision
        "AuthorizationError": None,
        "ConditionFailed": "condition_failed",
        "KeysUnavailable": "keys_unavailable",
        "TokenRequestError": "token_request",
        "AudienceNotGranted": "audience_not_granted",
        "TokenWithheld": "token_withheld",
        "SessionEnded": "session_ended",
        "NoUserToActFor": "no_user_to_act_for",
        "ReplayStoreUnavailable": "replay_store_unavailable",
    }
    given = [code for code in codes.values() if code]
    assert len(set(given)) == len(given)
    assert set(given) & {str(reason) for reason in Reason} == {
        "keys_unavailable",
        "replay_store_unavailable",
        "condition_failed",
    }  # one thing, one name


def test_reasons_are_a_closed_list_of_stable_names() -> None:
    assert [str(reason) for reason in Reason] == [name.lower() for name in Reason.__members__]
    assert len(set(Reason)) == len(Reason.__members__)
    for reason in Reason:
        assert reason.detail or reason in (Reason.ALLOWED, Reason.ANONYMOUS)
        assert (reason.error == "insufficient_scope") is (reason.status == 403)
        proof = reason in (Reason.PROOF_MISSING, Reason.INVALID_PROOF, Reason.PROOF_REPLAYED)
        assert (reason.error == "invalid_dpop_proof") is proof
        assert (reason.error == "invalid_token") is (
            reason.status == 401 and not proof and reason is not Reason.NO_CREDENTIALS
        )
        assert reason.status in {200, 400, 401, 403, 500, 503}


def test_what_is_found_before_the_signature_holds_reads_the_same() -> None:
    before = {
        Reason.MALFORMED_TOKEN,
        Reason.UNSUPPORTED_HEADER,
        Reason.ALGORITHM_NOT_ALLOWED,
        Reason.UNKNOWN_KEY,
        Reason.INVALID_SIGNATURE,
    }
    assert len({(reason.detail, reason.status, reason.error) for reason in before}) == 1
    others = [reason.detail for reason in Reason if reason not in before and reason.status in {400, 401, 403}]
    assert len(set(others)) == len(others)


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (Reason.ALLOWED, "allowed"),
        (Reason.EXPIRED, "refused"),
        (Reason.ROLE_MISSING, "refused"),
        (Reason.INVALID_REQUEST, "refused"),
        (Reason.KEYS_UNAVAILABLE, "failed"),
        (Reason.NOT_STARTED, "failed"),
    ],
)
def test_the_fault_is_the_requests_or_ours(reason: Reason, outcome: str) -> None:
    assert Decision(reason=reason).outcome == outcome
    assert Decision(reason=reason).status == reason.status


@pytest.mark.parametrize("error", EXAMPLES, ids=IDS)
def test_an_error_again_is_equal_and_was_never_raised(error: Any) -> None:
    def fail() -> None:
        try:
            int(SECRET)
        except ValueError as cause:
            raise error.again() from cause

    with pytest.raises(type(error)) as caught:
        fail()
    twin = caught.value.again()
    assert twin is not caught.value
    assert type(twin) is type(error)
    assert (str(twin), repr(twin), twin.args, vars(twin)) == (str(error), repr(error), error.args, vars(error))
    assert (twin.__traceback__, twin.__cause__, twin.__context__) == (None, None, None)
    assert SECRET not in "".join(traceback.format_exception(twin))


@pytest.mark.parametrize("error", EXAMPLES, ids=IDS)
def test_what_one_waiter_does_to_its_error_no_other_sees(error: Any) -> None:
    template = error.again()
    template.add_note("first")
    one, other = template.again(), template.again()
    one.add_note("mine")
    assert (template.__notes__, other.__notes__) == (["first"], ["first"])
    if getattr(error, "headers", None) is not None:
        one.headers["X-Request"] = "1"  # as an exception handler may
        assert template.headers == other.headers == error.headers
        assert "X-Request" not in other.headers


@pytest.mark.parametrize("error", EXAMPLES, ids=IDS)
def test_an_error_goes_to_another_process_and_back(error: S2SError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301 - our own bytes
        assert type(twin) is type(error)
        assert (str(twin), repr(twin), vars(twin)) == (str(error), repr(error), vars(error))


RENDERED = [error for error in EXAMPLES if isinstance(error, HTTPException)]


@pytest.mark.parametrize("error", RENDERED, ids=lambda error: f"{type(error).__name__} {error.code}")
def test_an_error_that_a_route_does_not_catch_is_its_status_and_one_safe_sentence(error: Any) -> None:
    async def endpoint(request: Request) -> Response:
        raise error.again()

    response = TestClient(Starlette(routes=[Route("/", endpoint)])).get("/")
    assert (response.status_code, response.text) == (error.status_code, error.detail)
    assert str(error) not in response.text
    assert response.headers.get("WWW-Authenticate") == getattr(error, "challenge", None)
    assert response.headers.get("Retry-After") == (
        "7" if isinstance(error, KeysUnavailable | ReplayStoreUnavailable) else None
    )


def test_a_token_that_is_not_to_be_had_is_never_a_401() -> None:
    for error in RENDERED:
        if isinstance(error, TokenRequestError | KeysUnavailable | ReplayStoreUnavailable):
            assert error.status_code == 503


def test_the_text_says_more_than_the_answer() -> None:
    error = EXAMPLES[7]
    assert str(error) == "Keycloak refused. Set it."
    assert repr(error) == "TokenRequestError(Keycloak refused. Set it.)"
    assert (error.error, error.error_description, error.http_status, error.cure, error.retryable) == (
        "invalid_client",
        "Bad secret",
        401,
        "Set it.",
        False,
    )
    missing = EXAMPLES[8]
    assert (missing.wanted, missing.granted, missing.retryable, missing.http_status) == (
        {"bob"},
        {"account"},
        False,
        200,
    )
    assert KeysUnavailable("x").retry_after == 5
    assert TokenRequestError("x").retryable is True


@pytest.mark.parametrize("error", RENDERED, ids=repr)
def test_a_handler_for_fastapis_own_http_exception_sees_ours(error: HTTPException) -> None:
    app = fastapi.FastAPI()

    @app.exception_handler(fastapi.HTTPException)
    async def mine(request: Request, caught: fastapi.HTTPException) -> Response:
        return Response(f"mine {caught.status_code}", 418, dict(caught.headers or {}))

    @app.get("/")
    async def route() -> None:
        raise error

    @app.get("/caught")
    async def catching() -> str:
        try:
            raise error
        except fastapi.HTTPException as caught:
            return f"caught {caught.status_code}"

    client = TestClient(app)
    assert client.get("/").text == f"mine {error.status_code}"
    assert client.get("/caught").json() == f"caught {error.status_code}"


def test_errors_import_the_exceptions_of_fastapi_and_nothing_else_of_it() -> None:
    tree = ast.parse(inspect.getsource(errors))
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names} == {"fastapi.exceptions"}
