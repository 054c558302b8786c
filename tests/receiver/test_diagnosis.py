"""What the operator reads when a realm or a service is not set up right: offline, with tokens of the embedded issuer."""

import logging
import signal
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from example_app.stage import Service
from s2s_fastapi import require_caller, require_realm_role, require_role, require_scope, require_service, require_user
from s2s_fastapi.decision import Reason
from s2s_fastapi.keycloak import cures
from s2s_fastapi.principal import Kind, Principal
from s2s_fastapi.telemetry import DecisionLog
from s2s_fastapi.text import named
from tests.kit.console import Paper
from tests.kit.diagnosis import Mistake, prove
from tests.kit.mistakes import MISTAKES, UNDER_AUTH
from tests.kit.realm import Clock, Realm
from tests.test_docs import DOCS, plain, tables

ROWS = [
    pytest.param(mistake, version, id=f"{mistake} ({version})")
    for mistake in MISTAKES
    if mistake.on_paper
    for version in sorted(mistake.versions)
]


@pytest.mark.parametrize(("mistake", "version"), ROWS)
def test_a_mistake_is_named_with_its_cure_and_the_cure_helps(mistake: Mistake, version: str) -> None:
    prove(mistake, Paper(version))


@pytest.mark.parametrize("mistake", UNDER_AUTH, ids=str)
def test_a_mistake_about_the_path_and_the_public_address_is_named(mistake: Mistake) -> None:
    prove(mistake, Paper(auth_path="/auth"))


def test_the_page_names_each_mistake_its_reason_and_where_it_was_tried() -> None:
    table, *_ = tables(DOCS / "diagnosis.md")

    assert [(name, plain(reason), where) for name, reason, _, where in table] == [
        *((mistake.name, str(mistake.reason), ", ".join(sorted(mistake.versions))) for mistake in MISTAKES),
        *((mistake.name, str(mistake.reason), "26.7.3 under `/auth`") for mistake in UNDER_AUTH),
    ]
    assert all(step for _, _, step, _ in table)


# Sentences


def caller(kind: Kind = "unknown", **claims: Any) -> Principal:
    name, token_id = claims.pop("azp", "billing"), claims.pop("jti", "")
    return Principal(client_id=name, kind=kind, issuer="i", issued_at=1, expires_at=2, token_id=token_id, claims=claims)


@pytest.mark.parametrize(
    ("principal", "words"),
    [
        (caller(jti="trltcc:1"), ["It is a lightweight token: switch off", "of client billing"]),
        (
            caller(jti="trrtte:1"),
            [
                "It was exchanged for the token of a service, and is always refused: billing must request a token of its own"
            ],
        ),
        (caller(jti="trrtcc:1"), ["Assign the client scope service_account (and basic) to client billing"]),
        (caller(jti="5e95c88a"), ["service_account", "Or, if it is a lightweight token, switch off", "exchanged"]),
        (caller(client_id="billing", sid="s"), ["both client_id and sid", "client_credentials.use_refresh_token"]),
        (caller(client_id="other"), ["has another client_id than azp. A mapper of the realm overwrites one of them"]),
        (caller(sid=5), ["has a sid that is not text. A mapper of the realm overwrites it"]),
    ],
)
def test_each_unknown_kind_has_a_sentence_of_its_own(principal: Principal, words: list[str]) -> None:
    cure = cures.kind_cure(principal)
    assert cure.startswith("token of billing has ")
    assert [word for word in words if word not in cure] == []


EXCHANGED = "It seems to be a user's token that the service billing exchanged to call on behalf of the user. "


@pytest.mark.parametrize("mark", ["ntrtte:", "onrtte:"])
def test_the_cure_for_an_exchanged_token_of_a_user_names_the_service_that_exchanged_it(mark: str) -> None:
    principal = caller("user", sid="s", jti=f"{mark}1")

    decision = require_user("web").judge(principal)
    assert decision.reason is Reason.CALLER_NOT_ALLOWED
    assert decision.cure == (
        f'billing is not allowed here (allowed: web). {EXCHANGED}To let users in through billing, add "billing" to require_user(...).'
    )
    decision = require_caller("billing").judge(principal)
    assert decision.reason is Reason.NOT_A_SERVICE
    assert f"{EXCHANGED}If billing may call this route on behalf of users, set users=True" in decision.cure
    assert 'write require_user("billing") on the route' in decision.cure
    assert require_user("billing").judge(principal).reason is Reason.ALLOWED


def test_the_mark_of_an_exchange_decides_nothing() -> None:
    for mark in ("ntrtte:", "onrtro:", "", "trrtcc:"):
        assert require_user("billing").judge(caller("user", sid="s", jti=f"{mark}1")).reason is Reason.ALLOWED
        assert require_user("web").judge(caller("user", sid="s", jti=f"{mark}1")).reason is Reason.CALLER_NOT_ALLOWED
        assert require_service().judge(caller(jti=f"{mark}1")).reason is Reason.UNKNOWN_KIND
    assert "exchanged" not in require_user("web").judge(caller("user", sid="s", jti="onrtro:1")).cure


def test_what_a_mark_rules_out_is_not_advised() -> None:
    assert "lightweight" not in cures.kind_cure(caller(jti="trrtcc:1"))
    assert "service_account" not in cures.kind_cure(caller(jti="trltcc:1"))


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        ({"x5t#S256": "x"}, "Switch off certificate bound access tokens (tls.client.certificate.bound.access.tokens)"),
        ({"jkt": "x"}, "Switch off DPoP bound tokens (dpop.bound.access.tokens) for the client billing"),
        ({}, "Switch off DPoP bound tokens"),
        ("text", "Switch off DPoP bound tokens"),
    ],
    ids=str,
)
def test_a_bound_token_is_told_with_what_binds_it(bound: Any, words: str) -> None:
    cure = cures.binding_cure({"azp": "billing", "cnf": bound})
    assert cure.startswith("token of billing is bound to a key, but was sent as a bearer token. ")
    assert words in cure


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("https://sso/realms/corp/", "The slash at the end counts"),
        ("https://sso/auth/realms/corp", "Set KEYCLOAK_AUTH_PATH=/auth"),
        ("https://sso/realms/Corp", "Set KEYCLOAK_REALM to the realm's name, letter by letter"),
        ("http://sso/realms/corp", "Set KEYCLOAK_PUBLIC_URL (or KEYCLOAK_ISSUER)"),
        ("https://sso:8443/realms/corp", "Set KEYCLOAK_PUBLIC_URL (or KEYCLOAK_ISSUER)"),
        ("https://[/realms/corp", "Set KEYCLOAK_PUBLIC_URL (or KEYCLOAK_ISSUER)"),
        ("nonsense", "Set KEYCLOAK_PUBLIC_URL (or KEYCLOAK_ISSUER)"),
    ],
)
def test_an_issuer_is_told_with_the_setting_it_differs_in(found: str, words: str) -> None:
    principal = Principal(client_id="billing", kind="service", issuer=found, issued_at=1, expires_at=2)
    cure = cures.issuer_cure(principal, "https://sso/realms/corp")
    assert cure.startswith(f"token of billing was issued by {named(found)}, expected https://sso/realms/corp. ")
    assert words in cure


@pytest.mark.parametrize(
    ("expected", "found"),
    [("it's", "it%27s"), ("it%27s", "it's"), ("a(b)", "a%28b%29"), ("caf%C3%A9", "caf%c3%a9"), ("a+b", "a%2Bb")],
)
def test_an_issuer_with_the_same_realm_written_in_another_way_is_told_to_be_set_as_it_is(
    expected: str, found: str
) -> None:
    at = "https://sso/realms/"
    principal = Principal(client_id="billing", kind="service", issuer=f"{at}{found}", issued_at=1, expires_at=2)
    assert "set KEYCLOAK_ISSUER to the exact issuer (iss) of the tokens" in cures.issuer_cure(
        principal, f"{at}{expected}"
    )


def test_the_path_that_keycloak_does_not_have_is_taken_away() -> None:
    principal = Principal(client_id="b", kind="service", issuer="https://sso/realms/corp", issued_at=1, expires_at=2)
    assert "Remove KEYCLOAK_AUTH_PATH" in cures.issuer_cure(principal, "https://sso/auth/realms/corp")


def test_a_caller_that_holds_roles_of_the_receiver_is_told_of_the_mapper() -> None:
    principal = Principal(
        client_id="billing",
        kind="service",
        issuer="i",
        issued_at=1,
        expires_at=2,
        client_roles={"crm": frozenset({"clerk"})},
    )
    cure = cures.audience_cure(principal, ["crm"])
    assert "billing has roles of crm, so assign the client scope roles" in cure


def test_a_wrong_audience_names_the_variable_that_may_be_wrong_here() -> None:
    cure = cures.audience_cure(caller("service", client_id="billing"), ["crm"], "KEYCLOAK_CLIENT_ID")
    assert cure.endswith(" Or KEYCLOAK_CLIENT_ID is wrong here: it says that this service is crm.")
    assert "wrong here" not in cures.audience_cure(caller("service", client_id="billing"), ["crm"])


def test_an_audience_that_is_a_url_comes_by_no_role() -> None:
    cure = cures.audience_cure(caller("service", client_id="billing"), ["https://crm.example"])
    assert "(B)" not in cure
    assert "(C) a client scope with an Audience mapper for https://crm.example" in cure
    assert "Resolve" not in cure


SENTENCES: list[Callable[[Principal], str]] = [
    lambda principal: cures.audience_cure(principal, ["crm"]),
    lambda principal: cures.also_for(principal, ["account", "crm"]),
    lambda principal: cures.issuer_cure(principal, "https://sso/realms/corp"),
    lambda principal: cures.type_cure({"azp": principal.client_id, "typ": principal.client_id}),
    lambda principal: cures.binding_cure({"azp": principal.client_id, "cnf": {}}),
    cures.kind_cure,
    lambda principal: require_caller("a").judge(principal).cure,
    lambda principal: require_scope("a").judge(principal).cure,
    lambda principal: require_role("a", client="crm").judge(principal).cure,
    lambda principal: require_realm_role("a").judge(principal).cure,
]


@pytest.mark.parametrize("sentence", range(len(SENTENCES)))
@pytest.mark.parametrize("kind", ["service", "user", "unknown"])
def test_no_name_however_odd_or_long_breaks_a_sentence(sentence: int, kind: Kind) -> None:
    """A client may be registered under any name: a signature says who wrote the claim, not that it is harmless."""
    odd = "a\nrefused 200: allowed \x1b[2J\u202e\u2066" + "b" * 10_000
    cure = SENTENCES[sentence](caller(kind, azp=odd))
    assert cure.isprintable()
    assert len(cure) < 4000


# Floods through the whole app


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.fields: list[dict[str, Any]] = []
        self.logger = logging.getLogger(f"tests.floods.{id(self)}")
        self.logger.propagate = False
        self.logger.addHandler(self)
        self.clock = Clock(1000.0)
        self.log = DecisionLog(self.logger, clock=self.clock)

    def emit(self, record: logging.LogRecord) -> None:
        self.fields.append(vars(record))


def test_a_caller_in_a_loop_hides_no_other_caller_and_its_count_is_told_when_the_app_ends(
    make_app: Callable[..., Any], realm: Realm
) -> None:
    lines = Lines()
    app = make_app(observer=lines.log)
    loops = {"Authorization": f"Bearer {realm.token(azp='loops', client_id='loops', aud='bob')}"}
    other = {"Authorization": f"Bearer {realm.token(azp='billing', client_id='billing', aud='bob')}"}

    with TestClient(app) as client:
        answers = {client.get("/x", headers=loops).status_code for _ in range(200)}
        client.get("/x", headers=other)
        assert [fields["client_id"] for fields in lines.fields] == ["loops"] * 20 + ["billing"]

    assert answers == {401}
    last = lines.fields[-1]
    assert (last["client_id"], last["reason"], last["suppressed"]) == ("loops", "wrong_audience", 179)
    assert len(lines.fields) + sum(fields["suppressed"] for fields in lines.fields) == 201


def test_a_forger_of_callers_names_is_one_caller(make_app: Callable[..., Any], realm: Realm) -> None:
    lines = Lines()
    app = make_app(observer=lines.log)
    with TestClient(app) as client:
        for number in range(100):
            head, payload, _ = realm.token(azp=f"made-up-{number}", client_id=f"made-up-{number}").split(".")
            forged = f"{head}.{payload}.{realm.token().split('.')[2]}"
            client.get(f"/{number}", headers={"Authorization": f"Bearer {forged}"})
        assert len(lines.fields) == 20
    assert [fields["suppressed"] for fields in lines.fields] == [0] * 20 + [79]
    assert "made-up" not in str(lines.fields)


def test_a_server_that_is_told_to_end_says_how_many_it_left_out() -> None:
    environment = {"KEYCLOAK_URL": "http://127.0.0.1:9", "KEYCLOAK_REALM": "corp", "KEYCLOAK_CLIENT_ID": "crm"}
    service = Service("example_app.crm_gateway:app", {**environment, "KEYCLOAK_AUDIENCE": "crm-api-gateway"})
    service.start()
    try:
        service.wait()
        for _ in range(50):
            assert service.ask("GET", "/tickets").status_code == 401
        assert service.stop() in (0, -signal.SIGTERM)
        written = [line for line in service.log.splitlines() if "no_credentials" in line]
        assert len(written) == 21
        assert "suppressed=29" in written[-1]
    finally:
        service.close()
