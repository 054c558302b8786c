"""The operator's log: one record for each decision, told in fields, counted in floods, silent about what nobody signed."""

import asyncio
import logging
import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.telemetry import DecisionLog
from tests.kit.realm import Clock, Realm, token_verifier, unsigned_sentence

FIELDS = {"outcome", "reason", "status", "method", "route", "client_id", "token_id", "kid", "issuer", "cure"}
ANYBODY = [
    Reason.NO_CREDENTIALS,
    Reason.INVALID_REQUEST,
    Reason.MALFORMED_TOKEN,
    Reason.UNSUPPORTED_HEADER,
    Reason.ALGORITHM_NOT_ALLOWED,
    Reason.UNKNOWN_KEY,
    Reason.INVALID_SIGNATURE,
    Reason.KEYS_UNAVAILABLE,
    Reason.NOT_STARTED,
]
ACCEPTED = [reason for reason in Reason if Decision(reason=reason).accepted]
SIGNED = [reason for reason in Reason if reason not in (*ANYBODY, *ACCEPTED)]
FULL = {
    "method": "POST",
    "route": "/tickets/{id}",
    "client_id": "chat-app-service",
    "token_id": "trrtcc:1",
    "kid": "key-1",
    "binding": "dpop",
    "issuer": "https://sso.example.com/realms/corp",
    "cure": "give it a scope",
}


class Records(logging.Handler):
    """Keeps what a logger writes, as records and as text."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.logger = logging.getLogger(f"tests.decisions.{id(self)}")
        self.logger.setLevel(level)
        self.logger.propagate = False
        self.logger.addHandler(self)
        self.clock = Clock(1000.0)
        self.log = DecisionLog(self.logger, clock=self.clock)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def tell(self, reason: Reason, **fields: Any) -> None:
        self.log.decided(Decision(reason=reason, **fields))

    @property
    def suppressed(self) -> list[int]:
        return [vars(record)["suppressed"] for record in self.records]


@pytest.fixture
def written() -> Records:
    return Records(logging.DEBUG)


def test_the_log_has_a_fixed_name_and_standard_parts(caplog: pytest.LogCaptureFixture) -> None:
    DecisionLog().decided(Decision(reason=Reason.EXPIRED))
    assert [(record.name, record.levelno) for record in caplog.records] == [("s2s_fastapi.decisions", logging.WARNING)]


@pytest.mark.parametrize("name", ["method", "route", "unverified_kid"])
@pytest.mark.parametrize("value", ["/x' client_id='billing' cure='give it all", "/x\\' client_id='billing"])
def test_what_anybody_writes_stays_inside_its_own_quotes(name: str, value: str, written: Records) -> None:
    written.tell(Reason.NO_CREDENTIALS, **{name: value})
    (record,) = written.records
    assert vars(record)[name] == value
    # Every quote of the value is escaped, so what is left has the two around it.
    text = record.getMessage().replace("\\\\", "").replace("\\'", "")
    assert text.count("'") == 2
    assert "client_id='billing" not in text


@pytest.mark.parametrize("reason", list(Reason))
def test_each_decision_is_one_record_with_every_field(reason: Reason, written: Records) -> None:
    written.tell(reason, **FULL)
    (record,) = written.records
    fields = vars(record)
    assert set(fields) >= FIELDS
    assert {name: fields[name] for name in FULL} == FULL
    assert (fields["outcome"], fields["reason"], fields["status"]) == (
        Decision(reason=reason).outcome,
        str(reason),
        reason.status,
    )
    assert type(fields["reason"]) is str
    assert type(fields["status"]) is int
    assert fields["suppressed"] == 0
    assert record.exc_info is None


@pytest.mark.parametrize("reason", list(Reason))
def test_acceptances_are_debug_refusals_warnings_and_our_own_faults_errors(reason: Reason, written: Records) -> None:
    written.tell(reason)
    expected = logging.DEBUG if reason in ACCEPTED else logging.WARNING if reason.status < 500 else logging.ERROR
    assert [record.levelno for record in written.records] == [expected]


@pytest.mark.parametrize(
    ("level", "told"),
    [
        (logging.DEBUG, [Reason.ALLOWED, Reason.EXPIRED, Reason.NOT_STARTED]),
        (logging.INFO, [Reason.EXPIRED, Reason.NOT_STARTED]),
        (logging.WARNING, [Reason.EXPIRED, Reason.NOT_STARTED]),
        (logging.ERROR, [Reason.NOT_STARTED]),
        (logging.CRITICAL, []),
    ],
)
def test_the_loggers_level_decides_what_is_written_and_whether_acceptances_are_wanted(
    level: int, told: list[Reason]
) -> None:
    written = Records(level)
    for reason in (Reason.ALLOWED, Reason.EXPIRED, Reason.NOT_STARTED):
        written.tell(reason)
    assert [vars(record)["reason"] for record in written.records] == told
    assert written.log.wants_allowed is (Reason.ALLOWED in told)


def test_the_text_records_the_fields_that_are_there_and_no_empty_ones(written: Records) -> None:
    written.tell(Reason.WRONG_AUDIENCE, **FULL)
    text = written.records[0].getMessage()
    assert text.startswith("refused 401: wrong_audience ")
    for name, value in FULL.items():
        assert f" {name}={value!r}" in text
    assert "suppressed" not in text
    written.tell(Reason.NO_CREDENTIALS, method="GET", route="/")
    assert written.records[1].getMessage() == "refused 401: no_credentials method='GET' route='/'"


def test_no_value_can_begin_a_second_line_or_a_format(written: Records) -> None:
    written.tell(
        Reason.UNKNOWN_KEY, unverified_kid="a\nrefused 200: allowed", route="/%s/%(x)s/{0}", method="G\x1b[0mET"
    )
    text = written.records[0].getMessage()
    assert "\n" not in text
    assert "\x1b" not in text
    assert "/%s/%(x)s/{0}" in text


@pytest.mark.parametrize("field", [name for name in FULL if name != "cure"] + ["unverified_kid"])
@pytest.mark.parametrize(
    "hostile",
    [
        "a\nrefused 200: allowed",
        "a\r\n",
        "\x1b[2J\x1b]0;title\x07",
        "\x9b31m",
        "\u202egnp.exe",
        "\u2066x\u2069",
        "\u2028\u2029\x85",
        "\x00\x08\x7f",
        "\ud800",
        "\ufeff\u200b",
        "k" * 100_000,
    ],
    ids=ascii,
)
def test_no_field_holds_what_a_terminal_or_a_line_reader_would_act_on(
    field: str, hostile: str, written: Records
) -> None:
    written.tell(Reason.WRONG_AUDIENCE, **{**FULL, field: hostile})
    (record,) = written.records
    value = vars(record)[field]
    assert value.isprintable()
    assert len(value) <= 256
    assert record.getMessage().isprintable()


def test_a_sentence_is_printable_and_bounded_as_well(written: Records) -> None:
    written.tell(Reason.WRONG_AUDIENCE, cure="a\n\x1b[0m" + "x" * 100_000)
    assert vars(written.records[0])["cure"].isprintable()
    assert len(vars(written.records[0])["cure"]) == 4096


# Floods


@pytest.mark.parametrize("reason", ANYBODY)
def test_what_anybody_can_cause_is_written_twenty_times_in_ten_seconds_and_then_counted(
    reason: Reason, written: Records
) -> None:
    for _ in range(20):
        written.tell(reason)
    assert len(written.records) == 20
    for _ in range(500):
        written.tell(reason)
    written.clock.advance(9.999)
    written.tell(reason)
    assert len(written.records) == 20
    written.clock.advance(0.001)
    written.tell(reason)
    assert written.suppressed == [0] * 20 + [501]
    assert "suppressed=501" in written.records[-1].getMessage()
    for _ in range(19):
        written.tell(reason)
    assert written.suppressed[21:] == [0] * 19
    written.tell(reason)
    assert len(written.records) == 40


def test_after_a_quiet_window_nothing_was_left_out(written: Records) -> None:
    for _ in range(20):
        written.tell(Reason.MALFORMED_TOKEN)
    written.clock.advance(10)
    written.tell(Reason.MALFORMED_TOKEN)
    written.clock.advance(1000)
    written.tell(Reason.MALFORMED_TOKEN)
    assert written.suppressed == [0] * 22


def test_a_flood_of_one_reason_hides_no_other(written: Records) -> None:
    for _ in range(100):
        written.tell(Reason.NO_CREDENTIALS)
    written.tell(Reason.INVALID_SIGNATURE)
    assert vars(written.records[-1])["reason"] == "invalid_signature"
    assert len(written.records) == 21


@pytest.mark.parametrize("reason", SIGNED)
def test_a_callers_loop_is_written_twenty_times_in_ten_seconds_and_then_counted(
    reason: Reason, written: Records
) -> None:
    for _ in range(100):
        written.tell(reason, client_id="loops", route="/tickets")
    assert len(written.records) == 20
    written.clock.advance(10)
    written.tell(reason, client_id="loops", route="/tickets")
    assert written.suppressed == [0] * 20 + [80]


def test_acceptances_are_never_left_out(written: Records) -> None:
    for _ in range(100):
        written.tell(Reason.ALLOWED, client_id="loops", route="/tickets")
    assert written.suppressed == [0] * 100


@pytest.mark.parametrize("reason", SIGNED)
def test_a_callers_flood_hides_no_other_caller_no_other_reason_and_no_other_route(
    reason: Reason, written: Records
) -> None:
    for _ in range(1000):
        written.tell(reason, client_id="loops", route="/tickets")
    other = next(one for one in SIGNED if one is not reason)
    written.tell(reason, client_id="billing", route="/tickets")
    written.tell(other, client_id="loops", route="/tickets")
    written.tell(reason, client_id="loops", route="/invoices")
    told = [tuple(vars(record)[name] for name in ("reason", "client_id", "route")) for record in written.records[20:]]
    assert told == [
        (str(reason), "billing", "/tickets"),
        (str(other), "loops", "/tickets"),
        (str(reason), "loops", "/invoices"),
    ]


def test_a_caller_who_makes_up_paths_is_bounded_in_what_is_written(written: Records) -> None:
    for number in range(10_000):
        written.tell(Reason.EXPIRED, client_id="loops", route=f"/{number}")
    assert len(written.records) == 32
    written.clock.advance(10)
    written.tell(Reason.EXPIRED, client_id="loops", route="/")
    assert written.suppressed[-1] == 10_000 - 32


@pytest.mark.parametrize("reason", ANYBODY)
def test_who_has_shown_no_token_is_bounded_whatever_paths_are_made_up(reason: Reason, written: Records) -> None:
    for number in range(1000):
        written.tell(reason, route=f"/{number}")
    assert len(written.records) == 20


def test_the_last_of_a_flood_is_written_with_the_next_record_of_any_kind(written: Records) -> None:
    for number in range(50):
        written.tell(Reason.EXPIRED, client_id="loops", token_id=f"trrtcc:{number}", cure="renew it")
    written.clock.advance(30)
    written.tell(Reason.NO_CREDENTIALS)
    *_, last, new = written.records
    fields = vars(last)
    assert {name: fields[name] for name in ("outcome", "reason", "status", "client_id", "token_id", "cure")} == {
        "outcome": "refused",
        "reason": "expired",
        "status": 401,
        "client_id": "loops",
        "token_id": "trrtcc:49",
        "cure": "renew it",
    }
    assert (fields["suppressed"], fields["age"]) == (29, 30)
    assert " suppressed=29 age=30 " in last.getMessage()
    assert [vars(new)[name] for name in ("reason", "suppressed", "age")] == ["no_credentials", 0, 0]
    assert len(written.records) + sum(written.suppressed) == 51


def test_the_last_of_a_flood_is_written_as_soon_as_its_ten_seconds_are_over(written: Records) -> None:
    for _ in range(50):
        written.tell(Reason.EXPIRED, client_id="loops")
    written.clock.advance(9.999)
    written.tell(Reason.NO_CREDENTIALS)
    assert len(written.records) == 21
    written.clock.advance(0.001)
    written.tell(Reason.NO_CREDENTIALS)
    assert [vars(record)["reason"] for record in written.records[21:]] == ["expired", "no_credentials"]


def test_the_rest_of_a_flood_is_written_at_the_end_and_once(written: Records) -> None:
    for _ in range(50):
        written.tell(Reason.EXPIRED, client_id="loops")
        written.tell(Reason.UNKNOWN_KEY)
    for _ in range(3):
        written.tell(Reason.WRONG_AUDIENCE, client_id="billing")
    written.log.flush()
    written.log.flush()
    told = [(vars(record)["reason"], vars(record)["suppressed"]) for record in written.records[43:]]
    assert told == [("expired", 29), ("unknown_key", 29)]
    assert len(written.records) + sum(written.suppressed) == 103


def test_more_callers_than_are_kept_lose_no_count_and_hide_nobody(written: Records) -> None:
    for number in range(2000):
        for _ in range(25):
            written.tell(Reason.EXPIRED, client_id=f"caller-{number}", route="/")
    assert len(written.log._floods._windows) == 512
    assert len({vars(record)["client_id"] for record in written.records}) == 2000
    written.log.flush()
    assert len(written.log._floods._windows) == 0
    assert len(written.records) + sum(written.suppressed) == 2000 * 25


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([Reason.EXPIRED, Reason.NO_CREDENTIALS, Reason.ROLE_MISSING, Reason.ALLOWED]),
            st.sampled_from(["", "a", "b"]),
            st.sampled_from(["/", "/x", "/y"]),
            st.integers(1, 60),
            st.sampled_from([0.0, 0.5, 9.9, 10.0, 25.0]),
        ),
        max_size=30,
    )
)
def test_whatever_comes_the_records_and_what_they_leave_out_are_all_decisions(
    bursts: list[tuple[Reason, str, str, int, float]],
) -> None:
    written = Records(logging.DEBUG)
    seen: Counter[tuple[str, str]] = Counter()
    for reason, client_id, route, times, pause in bursts:
        for _ in range(times):
            written.tell(reason, client_id=client_id, route=route)
        seen[str(reason), client_id] += times
        written.clock.advance(pause)
    written.log.flush()
    told: Counter[tuple[str, str]] = Counter()
    for record in written.records:
        fields = vars(record)
        told[fields["reason"], fields["client_id"]] += 1 + fields["suppressed"]
    assert told == seen


def child(script: str) -> str:
    """Run a script whose log floods, and return what it wrote to its end."""
    start = """
        import logging, os, sys
        from s2s_fastapi.decision import Decision, Reason
        from s2s_fastapi.telemetry import DecisionLog
        logging.basicConfig(stream=sys.stdout, format="%(process)d %(message)s")
        log = DecisionLog()
        def flood(times):
            for _ in range(times):
                log.decided(Decision(reason=Reason.EXPIRED, client_id="loops"))
    """
    code = textwrap.dedent(start) + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout


def test_a_process_that_ends_records_what_was_left_out() -> None:
    lines = child("flood(50)").splitlines()
    assert len(lines) == 21
    assert "suppressed=29" in lines[-1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_records_its_own_floods_and_not_its_parents() -> None:
    lines = child("""
        flood(50)
        if os.fork() == 0:
            flood(30)
            sys.exit()
        os.wait()
        print(os.getpid())
    """).splitlines()
    (parent,) = [line for line in lines if line.isdigit()]
    told = [line for line in lines if "suppressed" in line]
    assert sorted((line.startswith(parent), "suppressed=29" in line, "suppressed=9" in line) for line in told) == [
        (False, False, True),
        (True, True, False),
    ]


def test_every_reason_before_the_signature_holds_is_one_that_is_counted() -> None:
    before = {reason for reason in Reason if reason.detail == Reason.MALFORMED_TOKEN.detail}
    assert before < set(ANYBODY)


def test_what_the_level_leaves_out_is_not_counted() -> None:
    written = Records(logging.ERROR)
    for _ in range(50):
        written.tell(Reason.NO_CREDENTIALS)
    written.logger.setLevel(logging.WARNING)
    written.tell(Reason.NO_CREDENTIALS)
    assert written.suppressed == [0]


def test_a_flood_from_many_threads_is_counted_to_the_last(written: Records) -> None:
    def flood() -> None:
        for _ in range(250):
            written.tell(Reason.UNKNOWN_KEY)

    threads = [threading.Thread(target=flood) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written.records) == 20
    written.clock.advance(10)
    written.tell(Reason.UNKNOWN_KEY)
    assert written.suppressed[-1] == 1980


# With real tokens


def told(token: str, realm: Realm) -> tuple[logging.LogRecord, str]:
    """Return the record and everything it could ever print about a token."""
    written = Records(logging.DEBUG)
    verifier = token_verifier(realm)
    written.log.decided(verifier.decide(token).decision)
    assert asyncio.run(verifier.adecide(token)).decision.reason == vars(written.records[0])["reason"]
    (record,) = written.records
    return record, f"{record.getMessage()} {vars(record)}"


@pytest.mark.parametrize("broken", ["signature", "header", "payload"])
def test_nothing_of_a_token_that_nobody_signed_is_recorded(broken: str) -> None:
    realm = Realm()
    token = realm.token(
        azp="alice-in-claims", client_id="alice-in-claims", jti="jti-in-claims", iss="https://issuer-in-claims"
    )
    header, payload, signature = token.split(".")
    if broken == "signature":
        token = f"{header}.{payload}.{signature[:-8]}AAAAAAAA"
    elif broken == "header":
        token = f"{header}x.{payload}.{signature}"
    else:
        token = f"{header}.{realm.token(azp='alice-in-claims', client_id='alice-in-claims').split('.')[1]}.{signature}"
    record, everything = told(token, realm)
    fields = vars(record)
    assert fields["status"] == 401
    assert [fields[name] for name in ("client_id", "token_id", "kid", "issuer")] == [""] * 4
    reason = next(reason for reason in Reason if reason == fields["reason"])
    assert fields["cure"] == unsigned_sentence(token_verifier(realm), reason)  # whatever the token says
    for secret in ("-in-claims", payload, signature, signature[:-8], header):
        assert secret not in everything
    assert fields["unverified_kid"] == (realm.key.kid if broken != "header" else "")


@pytest.mark.parametrize(
    ("token_id", "hint"),
    [
        ("ntrtte:1", "exchanged token"),
        ("onrtte:1", "exchanged token"),
        ("trrtte:1", "exchanged token"),
        ("onrtro:1", ""),
        ("trrtcc:1", ""),
        ("rtte:1", ""),
        ("", ""),
    ],
)
def test_the_log_hints_that_a_token_was_exchanged_and_says_user_and_service(
    token_id: str, hint: str, written: Records
) -> None:
    written.tell(Reason.CALLER_NOT_ALLOWED, client_id="shop-api", user="ann's id", token_id=token_id)

    (record,) = written.records
    fields = vars(record)
    assert (fields["client_id"], fields["user"], fields["hint"]) == ("shop-api", "ann's id", hint)
    assert ("hint='exchanged token'" in record.getMessage()) is bool(hint)


def test_the_log_names_the_user_of_a_users_token_and_none_for_a_service() -> None:
    realm = Realm()
    for token in (realm.user_token(sub="ann"), realm.user_token(sub="ann", aud="account")):
        record, _ = told(token, realm)
        assert vars(record)["user"] == "ann"
    record, _ = told(realm.token(aud="account"), realm)
    assert vars(record)["user"] == ""


def test_of_a_token_whose_signature_held_the_log_records_who_and_what_to_change_but_never_the_token() -> None:
    realm = Realm()
    token = realm.token(aud="account", jti="trrtcc:9", email="alice@example.com")
    record, everything = told(token, realm)
    fields = vars(record)
    assert (fields["reason"], fields["client_id"], fields["token_id"]) == (
        "wrong_audience",
        "chat-app-service",
        "trrtcc:9",
    )
    assert (fields["kid"], fields["issuer"], fields["unverified_kid"]) == (realm.key.kid, realm.issuer, "")
    assert "token of chat-app-service has aud [account], expected crm-api-gateway" in fields["cure"]
    for secret in (*token.split("."), "alice@example.com"):
        assert secret not in everything
