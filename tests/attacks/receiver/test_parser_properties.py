"""Properties of the two readers: what is accepted is canonical, what is not is refused, and nothing else ever happens."""

import json
import string
from functools import cache
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.jose.algorithms import ALGORITHMS
from s2s_fastapi.verifier.bearer import credentials_in, credentials_of, token_in
from s2s_fastapi.verifier.jws import Jws, parse
from tests.attacks.receiver.stack import KEYS, Stack, stack, token
from tests.kit.realm import Realm, b64

IN_ITS_OWN_TIME = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A slow machine proves nothing."""

LETTERS = string.ascii_letters + string.digits
TOKEN68 = set((LETTERS + "-._~+/").encode())
OURS = {"alg": "RS256", "typ": "JWT", "kid": "k"}

# The header Authorization

WORDS = st.sampled_from([b"Bearer", b"bearer", b"BEARER", b"Basic", b"DPoP", b"Bearerx", b"", b"\xc2earer", b"Bearer,"])
GAPS = st.sampled_from([b" ", b"  ", b"\t", b" \t", b"", b"\r\n ", b"\x0b", b"\xa0", b","])
TOKENS = st.one_of(
    st.binary(max_size=12),
    st.text(alphabet=LETTERS + "-._~+/=", max_size=12).map(str.encode),
    st.sampled_from([b"a.b.c", b"a.b.c=", b"=", b"a=b", b"a b", b"a,Bearer b", b"a" * 16_384, b"a" * 16_385]),
)
VALUES = st.one_of(st.binary(max_size=30), st.tuples(GAPS, WORDS, GAPS, TOKENS, GAPS).map(b"".join))
NAMES = st.sampled_from([b"authorization", b"authorization", b"proxy-authorization", b"cookie", b"authorization "])
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=4)
QUERIES = st.sampled_from(
    [
        b"",
        b"a=b",
        b"access_token",
        b"access_token=x",
        b"a=b&access_token=x",
        b"a=b;access_token=x",
        b"%61ccess_token=x",
        b"xaccess_token=x",
        b"ACCESS_TOKEN=x",
        b"a=access_token",
        b"a=access_token=x",
        b"%ff%00=%",
        b"\xff&=",
        b"&&;",
    ]
)


def bearer(headers: list[tuple[bytes, bytes]], query: bytes, known: set[bytes] | None = None) -> bytes | Reason:
    found = credentials_in(headers, query, {credentials_of(token) for token in known or ()})
    return found.reason if isinstance(found, Decision) else token_in(found)


def expected(headers: list[tuple[bytes, bytes]], query: bytes) -> bytes | None:
    """Return the token that RFC 6750 finds in a request, read sign by sign and without any expression."""
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) != 1:
        return None
    (value,) = values
    while value[:1] in (b" ", b"\t"):
        value = value[1:]
    while value[-1:] in (b" ", b"\t"):
        value = value[:-1]
    if value[:7].lower() != b"bearer ":
        return None
    value = value[7:]
    while value[:1] == b" ":
        value = value[1:]
    body = value
    while body.endswith(b"="):
        body = body[:-1]
    if not body or not set(body) <= TOKEN68 or len(value) > 16_384:
        return None
    given_names = [part.split(b"=")[0] for part in query.replace(b";", b"&").split(b"&") if b"=" in part]
    return None if {b"access_token", b"%61ccess_token"} & set(given_names) else value


@settings(IN_ITS_OWN_TIME, max_examples=400)
@given(headers=HEADERS, query=QUERIES)
@example(headers=[(b"authorization", b"Bearer a.b.c")], query=b"")
def test_of_whatever_headers_the_one_token68_is_taken_and_all_else_refused(
    headers: list[tuple[bytes, bytes]], query: bytes
) -> None:
    found = bearer(headers, query)
    wanted = expected(headers, query)
    if wanted is None:
        assert found in {Reason.NO_CREDENTIALS, Reason.INVALID_REQUEST}
    else:
        assert found == wanted


@settings(IN_ITS_OWN_TIME, max_examples=400)
@given(headers=HEADERS, query=QUERIES)
@example(headers=[(b"authorization", b"Bearer a.b.c")], query=b"access_token=x")
@example(headers=[(b"authorization", b"Bearer a.b.c")] * 2, query=b"")
def test_a_remembered_token_is_read_from_the_same_requests_as_an_unknown_one(
    headers: list[tuple[bytes, bytes]], query: bytes
) -> None:
    anew = bearer(headers, query)
    remembered = {b"a.b.c", *([anew] if isinstance(anew, bytes) else [])}
    assert bearer(headers, query, remembered) == anew


# The token


def read(text: bytes) -> Jws | Reason:
    found = parse(text)
    return found.reason if isinstance(found, Decision) else found


BEFORE = {Reason.MALFORMED_TOKEN, Reason.UNSUPPORTED_HEADER, Reason.ALGORITHM_NOT_ALLOWED}
GOOD = f"{b64(OURS)}.{b64({'a': 1})}.{b64(b'signature')}".encode()


@settings(IN_ITS_OWN_TIME, max_examples=400)
@given(
    st.one_of(
        st.binary(max_size=80),
        st.lists(st.binary(max_size=30).map(b64), max_size=6).map(lambda parts: ".".join(parts).encode()),
        st.tuples(st.integers(0, len(GOOD)), st.integers(0, 4), st.binary(max_size=4)).map(
            lambda cut: GOOD[: cut[0]] + cut[2] + GOOD[cut[0] + cut[1] :]
        ),
    )
)
@example(GOOD)
def test_whatever_bytes_come_they_are_refused_or_spelt_back_to_themselves(text: bytes) -> None:
    jws = read(text)
    if isinstance(jws, Reason):
        assert jws in BEFORE
        return
    header, payload, signature = text.split(b".")
    assert b64(jws.payload).encode() == payload
    assert b64(jws.signature).encode() == signature
    assert jws.signing_input == header + b"." + payload
    assert jws.algorithm in ALGORITHMS
    assert 0 < len(jws.kid) <= 512
    claims = jws.claims()
    if isinstance(claims, Decision):
        assert claims.reason is Reason.MALFORMED_CLAIMS
    else:
        assert json.loads(jws.payload) == claims


SPACES = st.text(alphabet=" \t\r\n", max_size=2)


@st.composite
def spelt(draw: st.DrawFn, text: str) -> str:
    """Return a JSON string in one of its many spellings."""
    signs = []
    for sign in text:
        if ord(sign) < 0x20 or sign in '"\\' or draw(st.booleans()):
            units = sign.encode("utf-16-be", "surrogatepass").hex()
            signs += [f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)]
        else:
            signs.append(sign)
    return f'"{"".join(signs)}"'


@st.composite
def documents(draw: st.DrawFn, depth: int = 0) -> tuple[str, Any, bool]:
    """Return a JSON text, what it means, and whether it means that to every reader."""
    kind = draw(
        st.sampled_from(
            ["object", "array", "text", "number", "name"] if 0 < depth < 4 else ["object", "text"][: 1 + (depth > 0)]
        )
    )
    space = draw(SPACES)
    if kind == "text":
        value = draw(st.text(max_size=4) | st.sampled_from(["\ud800", "\udc00", "exp", "\u0000"]))
        return space + draw(spelt(value)), value, not any("\ud800" <= sign <= "\udfff" for sign in value)
    if kind == "number":
        text, number, sound = draw(
            st.sampled_from(
                [
                    ("0", 0, True),
                    ("-1", -1, True),
                    ("1.5", 1.5, True),
                    ("1e400", None, False),
                    ("NaN", None, False),
                    ("01", None, False),
                    ("+1", None, False),
                    ("Infinity", None, False),
                    ("1e2", 100.0, True),
                ]
            )
        )
        return space + text, number, sound
    if kind == "name":
        text, constant, sound = draw(
            st.sampled_from([("true", True, True), ("null", None, True), ("True", None, False), ("nul", None, False)])
        )
        return space + text, constant, sound
    inner = [draw(documents(depth=depth + 1)) for _ in range(draw(st.integers(0, 3)))]
    sound = all(whole for _, _, whole in inner)
    if kind == "array":
        return f"{space}[{','.join(text for text, _, _ in inner)}{space}]", [value for _, value, _ in inner], sound
    names = [draw(st.sampled_from(["exp", "aud", "a", "", "\u00e9"])) for _ in inner]
    members = [
        f"{draw(SPACES)}{draw(spelt(name))}{space}:{text}" for name, (text, _, _) in zip(names, inner, strict=True)
    ]
    value_of = {name: value for name, (_, value, _) in zip(names, inner, strict=True)}
    return f"{space}{{{','.join(members)}{space}}}", value_of, sound and len(value_of) == len(names)


@settings(IN_ITS_OWN_TIME, max_examples=200)
@given(documents())
def test_a_payload_is_read_if_and_only_if_every_reader_reads_the_same(document: tuple[str, Any, bool]) -> None:
    text, value, sound = document
    jws = parse(f"{b64(OURS)}.{b64(text.encode('utf-8', 'surrogatepass'))}.AA".encode())
    assert isinstance(jws, Jws)
    claims = jws.claims()
    if isinstance(claims, Decision):
        assert claims.reason is Reason.MALFORMED_CLAIMS
        assert not sound
    else:
        assert sound
        assert claims == value


@settings(IN_ITS_OWN_TIME, max_examples=100)
@given(documents())
def test_a_header_is_read_by_the_same_rules(document: tuple[str, Any, bool]) -> None:
    text, _, sound = document
    inside = text.strip()[1:]
    comma = "" if inside.strip() == "}" else ","
    whole = f'{{"alg": "RS256", "typ": "JWT", "kid": "k"{comma}{inside}'
    outcome = read(f"{b64(whole.encode('utf-8', 'surrogatepass'))}.e30.AA".encode())
    assert isinstance(outcome, Jws) == sound
    assert sound or outcome is Reason.MALFORMED_TOKEN


# Both, and all that is behind them

THIS = token(Realm(key=KEYS["RS256"])).encode()


@cache
def attacked() -> Stack:
    """Return one app for all examples, which knows the token already."""
    made = stack("RS256")
    made.accepts(THIS.decode())
    return made


@settings(IN_ITS_OWN_TIME, max_examples=300)
@given(
    at=st.integers(0, len(THIS)),
    gone=st.integers(0, 3),
    put=st.binary(max_size=3) | st.text(alphabet=LETTERS + "-_.=", max_size=3).map(str.encode),
)
def test_no_change_of_a_good_token_leaves_it_good(at: int, gone: int, put: bytes) -> None:
    changed = THIS[:at] + put + THIS[at + gone :]
    app = attacked()
    app.monotonic.advance(10)  # a kid that nobody knows may be asked for at once
    told, asked = len(app.observed.decisions), app.realm.fetches
    response = app.bearer(changed)
    (decision,) = app.observed.decisions[told:]
    assert app.realm.fetches - asked <= 1
    if changed.rstrip(b" \t").lstrip(b" ") == THIS:  # what a header may have around its words
        assert response.status_code == 200
    else:
        app.shows_nothing(response, decision.reason)
        assert decision.reason in BEFORE | {Reason.INVALID_REQUEST, Reason.UNKNOWN_KEY, Reason.INVALID_SIGNATURE}
