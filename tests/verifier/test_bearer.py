"""From the header to one token: one word after one scheme, given once and in one place."""

import re
import string
from collections.abc import Collection
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.keycloak.cures import DPOP_REFUSED, NO_TOKEN, NOT_A_TOKEN, TOKEN_IN_URL, TWO_HEADERS
from s2s_fastapi.verifier.bearer import credentials_in, credentials_of, token_in

TOKEN = "eyJhbGciOiJSUzI1NiJ9.e30.c2ln"
KNOWN = {f"Bearer {TOKEN}".encode()}
LIMIT = 16_384
TOKEN68 = frozenset(string.ascii_letters + string.digits + "-._~+/")


Headers = list[tuple[bytes, bytes]]


def found(headers: Headers, query: bytes, known: Collection[bytes] = ()) -> bytes | Decision:
    """Return the token of a request, or its refusal."""
    credentials = credentials_in(headers, query, known)
    if isinstance(credentials, Decision):
        return credentials
    assert credentials == credentials_of(token_in(credentials))
    return token_in(credentials)


def read(*values: bytes | str, query: bytes = b"", name: bytes = b"authorization") -> str:
    headers = [(name, value.encode("utf-8") if isinstance(value, str) else value) for value in values]
    token = found(headers, query)
    assert isinstance(token, bytes)
    return token.decode("ascii")


def refusal(*values: bytes | str, query: bytes = b"", name: bytes = b"authorization") -> Decision:
    headers = [(name, value.encode("utf-8") if isinstance(value, str) else value) for value in values]
    refused = found(headers, query)
    assert isinstance(refused, Decision)
    return refused


def refused(*values: bytes | str, query: bytes = b"", name: bytes = b"authorization") -> Reason:
    decision = refusal(*values, query=query, name=name)
    # Nothing of the request but the size of a token that is too long stands in the sentence.
    cure = re.sub(r"^the token has [0-9]{5,} bytes, more than the 16384 that are read\. .*", "", decision.cure)
    assert cure in {"", DPOP_REFUSED, NO_TOKEN, NOT_A_TOKEN, TOKEN_IN_URL, TWO_HEADERS}
    assert bool(decision.cure) == (decision.reason is Reason.INVALID_REQUEST or decision.cure == DPOP_REFUSED)
    return decision.reason


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(f"Bearer {TOKEN}", id="as everybody writes it"),
        pytest.param(f"bearer {TOKEN}", id="lower case"),
        pytest.param(f"BEARER {TOKEN}", id="upper case"),
        pytest.param(f"bEaReR {TOKEN}", id="mixed case"),
        pytest.param(f"Bearer    {TOKEN}", id="several spaces"),
        pytest.param(f" \tBearer {TOKEN}\t ", id="white space around the value"),
    ],
)
def test_a_token_is_found_whatever_the_case_of_the_scheme(value: str) -> None:
    assert read(value) == TOKEN


@pytest.mark.parametrize("token", ["a", "a==", "-._~+/", "A-b._c~9+/===", "a" * LIMIT])
def test_every_token68_is_a_token_and_no_more_is_known_of_it(token: str) -> None:
    assert read(f"Bearer {token}") == token


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="no header"),
        pytest.param([""], id="an empty header"),
        pytest.param([" \t "], id="white space"),
        pytest.param(["Basic dXNlcjpwYXNz"], id="Basic"),
        pytest.param([f"DPoP {TOKEN}"], id="DPoP"),
        pytest.param([f"Bearerx {TOKEN}"], id="a longer scheme"),
        pytest.param([f"Beare {TOKEN}"], id="a shorter scheme"),
        pytest.param([f"Bearer:{TOKEN}"], id="a colon"),
        pytest.param([f"Bearer={TOKEN}"], id="an equals sign"),
        pytest.param([f"Bearer\x0b{TOKEN}"], id="a vertical tab"),
        pytest.param([f"B\u0435arer {TOKEN}"], id="a Cyrillic e in the scheme"),
        pytest.param([f"\u00a0Bearer {TOKEN}"], id="a no-break space before the scheme"),
        pytest.param([f"\ufeffBearer {TOKEN}"], id="a byte order mark before the scheme"),
        pytest.param([f"\x00Bearer {TOKEN}"], id="NUL before the scheme"),
        pytest.param([TOKEN], id="the token alone"),
        pytest.param([f'"Bearer" {TOKEN}'], id="a quoted scheme"),
    ],
)
def test_no_credentials_or_those_of_another_scheme_are_told_apart_from_bad_ones(values: list[str]) -> None:
    assert refused(*values) is Reason.NO_CREDENTIALS


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("Bearer", id="no token"),
        pytest.param("Bearer   ", id="spaces for a token"),
        pytest.param("Bearer,", id="a comma for a token"),
        pytest.param(f"Bearer,{TOKEN}", id="a comma between"),
        pytest.param(f"Bearer\t{TOKEN}", id="a tab between"),
        pytest.param(f"Bearer \t{TOKEN}", id="a space and a tab between"),
        pytest.param(f"Bearer {TOKEN} {TOKEN}", id="two tokens"),
        pytest.param(f"Bearer {TOKEN}, Bearer {TOKEN}", id="two credentials folded into one header"),
        pytest.param(f"Bearer {TOKEN},", id="a comma behind"),
        pytest.param(f"Bearer {TOKEN};", id="a semicolon behind"),
        pytest.param(f"Bearer Bearer {TOKEN}", id="the scheme twice"),
        pytest.param(f'Bearer "{TOKEN}"', id="a quoted token"),
        pytest.param(f"Bearer token={TOKEN}", id="a parameter"),
        pytest.param("Bearer =", id="padding alone"),
        pytest.param("Bearer =abc", id="padding in front"),
        pytest.param("Bearer ab=c", id="padding in the middle"),
        pytest.param(f"Bearer {TOKEN}\r\nX-Admin: 1", id="another header behind CR LF"),
        pytest.param(f"Bearer {TOKEN}\n", id="a line feed behind, which $ would let pass"),
        pytest.param(f"Bearer \r\n {TOKEN}", id="folded over two lines"),
        pytest.param(f"Bearer {TOKEN}\x00", id="NUL"),
        pytest.param(f"Bearer {TOKEN}%00", id="a percent sign"),
        pytest.param(f"Bearer {TOKEN}\u00e9", id="an accent in UTF-8"),
        pytest.param(f"Bearer {TOKEN}".encode() + b"\xe9", id="an accent in Latin-1"),
        pytest.param(f"Bearer {TOKEN}".encode() + b"\xa0", id="a no-break space behind"),
        pytest.param(f"Bearer {TOKEN}".encode() + b"\xff\xfe", id="bytes of no encoding"),
        pytest.param("Bearer \u0661\u0662", id="digits of another script"),
    ],
)
def test_bearer_credentials_that_are_no_token68_are_a_bad_request(value: str | bytes) -> None:
    assert refused(value) is Reason.INVALID_REQUEST


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([f"Bearer {TOKEN}", f"Bearer {TOKEN}"], id="the same token twice"),
        pytest.param([f"Bearer {TOKEN}", "Bearer other"], id="two tokens"),
        pytest.param([f"Bearer {TOKEN}", "Basic dXNlcjpwYXNz"], id="Bearer and Basic"),
        pytest.param(["Basic dXNlcjpwYXNz", f"Bearer {TOKEN}"], id="Basic and Bearer"),
        pytest.param([f"Bearer {TOKEN}", ""], id="an empty second"),
        pytest.param(["", ""], id="two empty ones"),
        pytest.param(["Basic a", "Basic b"], id="two of another scheme"),
    ],
)
def test_two_authorization_headers_are_never_a_choice(values: list[str]) -> None:
    assert refused(*values) is Reason.INVALID_REQUEST


@pytest.mark.parametrize("name", [b"proxy-authorization", b"x-authorization", b"authorization ", b"authorizatio", b""])
def test_no_other_header_carries_credentials(name: bytes) -> None:
    assert refused(f"Bearer {TOKEN}", name=name) is Reason.NO_CREDENTIALS


@pytest.mark.parametrize(
    "query",
    [
        f"access_token={TOKEN}",
        f"a=b&access_token={TOKEN}",
        f"a=b;access_token={TOKEN}",
        "access_token=",
        "access_token=a&access_token=b",
        f"access%5Ftoken={TOKEN}",
        f"%61ccess_toke%6e={TOKEN}",
    ],
)
def test_a_token_in_the_query_is_no_credential_and_beside_a_header_a_bad_request(query: str) -> None:
    assert refused(query=query.encode()) is Reason.NO_CREDENTIALS
    assert refused(f"Bearer {TOKEN}", query=query.encode()) is Reason.INVALID_REQUEST


@pytest.mark.parametrize(
    "query", [b"", b"my_access_token=1", b"q=access_token%3D1", b"access_tokens=1", b"access_token", b"\xff"]
)
def test_a_query_of_something_else_does_not_matter(query: bytes) -> None:
    assert read(f"Bearer {TOKEN}", query=query) == TOKEN


SPELLED = st.tuples(*[st.sampled_from((c, f"%{ord(c):02x}", f"%{ord(c):02X}")) for c in "access_token"]).map("".join)
PIECES = st.one_of(SPELLED, st.sampled_from([*"&;=%+a_\n", "%25", "%3d", "%26", "%C3", "access_token", "ACCESS_TOKEN"]))


@settings(deadline=None)
@given(query=st.lists(PIECES, max_size=6).map("".join))
@example(query=f"{'%61=&' * 12_000}%61ccess_toke%6E=")
@example(query=f"{'&' * 60_000}access_token")
def test_the_name_is_found_however_it_is_spelled_and_nothing_else_is_taken_for_it(query: str) -> None:
    names = [name for name, equals, _ in (part.partition("=") for part in re.split("[&;]", query)) if equals]
    if b"access_token" in map(unquote_to_bytes, names):
        assert refused(f"Bearer {TOKEN}", query=query.encode()) is Reason.INVALID_REQUEST
    else:
        assert read(f"Bearer {TOKEN}", query=query.encode()) == TOKEN


def test_a_token_of_16_kb_is_read_and_one_byte_more_is_a_bad_request() -> None:
    assert len(read("Bearer " + "a" * LIMIT)) == LIMIT
    assert refused("Bearer " + "a" * (LIMIT + 1)) is Reason.INVALID_REQUEST
    assert refused("Bearer " + "a" * LIMIT + "=") is Reason.INVALID_REQUEST


@pytest.mark.parametrize("scheme", ["Digest ", "bearer_", "Bearer=", "Bearer,", "NTLM   ", "Bearer\t", "\x00" * 7, ""])
def test_a_remembered_token_is_no_credential_behind_anything_else_than_the_scheme(scheme: str) -> None:
    headers = [(b"authorization", f"{scheme}{TOKEN}".encode())]
    anew = found(headers, b"")
    assert isinstance(anew, Decision)
    assert found(headers, b"", KNOWN) == anew


HEADERS = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=40).map(lambda rest: b"Bearer " + rest),
    st.text(alphabet=string.ascii_letters + "=-._~+/ ,\t\r\n\x00é", max_size=40).map(
        lambda rest: f"bearer {rest}".encode()
    ),
)


@settings(deadline=None)
@given(values=st.lists(HEADERS, max_size=2), query=st.binary(max_size=30))
@example(values=[b"Bearer a"], query=b"&access_token=")
def test_whatever_comes_is_one_token68_or_refused(values: list[bytes], query: bytes) -> None:
    read = found([(b"authorization", value) for value in values], query)
    if isinstance(read, Decision):
        assert read.reason in {Reason.NO_CREDENTIALS, Reason.INVALID_REQUEST}
        return
    token = read.decode("ascii")
    body = token.rstrip("=")
    assert body
    assert set(body) <= TOKEN68
    assert len(values) == 1
    assert values[0].strip(b" \t").lower().startswith(b"bearer ")
    assert values[0].strip(b" \t").endswith(b" " + token.encode())
    assert not any(part.startswith(b"access_token=") for part in query.split(b"&"))


@pytest.mark.parametrize(
    ("values", "query", "cure"),
    [
        ([f"Bearer {TOKEN}", f"Bearer {TOKEN}"], b"", TWO_HEADERS),
        ([f"Bearer {TOKEN}", "Basic YTpi"], b"", TWO_HEADERS),
        ([f"Bearer {TOKEN}"], f"access_token={TOKEN}".encode(), TOKEN_IN_URL),
        (["Bearer"], b"", NO_TOKEN),
        (["Bearer  "], b"", NO_TOKEN),
        (["Bearer"], b"access_token=a", NO_TOKEN),
        ([f'Bearer "{TOKEN}"'], b"", NOT_A_TOKEN),
        ([f"Bearer {TOKEN} {TOKEN}"], b"", NOT_A_TOKEN),
        ([f"Bearer,{TOKEN}"], b"", NOT_A_TOKEN),
        ([f"Bearer\t{TOKEN}"], b"", NOT_A_TOKEN),
    ],
)
def test_each_cause_of_a_bad_request_has_a_cure_of_its_own(values: list[str], query: bytes, cure: str) -> None:
    assert refusal(*values, query=query) == Decision(reason=Reason.INVALID_REQUEST, cure=cure)


@pytest.mark.parametrize(
    "query", [b"", b"page=2&size=50", b"q=access_token", b"my_access_token=x", b"%41ccess_token=x"]
)
def test_a_known_token_is_found_beside_a_query_without_one(query: bytes) -> None:
    assert found([(b"authorization", b"Bearer " + TOKEN.encode())], query, KNOWN) == TOKEN.encode()


@pytest.mark.parametrize("value", [f"bearer {TOKEN}", f"BEARER   {TOKEN}", f" Bearer {TOKEN}\t"])
def test_a_known_token_in_another_spelling_is_the_same_token(value: str) -> None:
    credentials = credentials_in([(b"authorization", value.encode())], b"", KNOWN)
    assert credentials == f"Bearer {TOKEN}".encode()


@pytest.mark.parametrize(
    "query",
    [
        b"access_token=x",
        b"access_token=",
        b"page=2&access_token=x",
        b"page=2;access_token=x",
        b"%61ccess_token=x",
        b"page=2&access%5Ftoken=x",
    ],
)
def test_a_known_token_is_refused_beside_another_in_the_query(query: bytes) -> None:
    refused = found([(b"authorization", b"Bearer " + TOKEN.encode())], query, KNOWN)
    assert refused == Decision(reason=Reason.INVALID_REQUEST, cure=TOKEN_IN_URL)


@pytest.mark.parametrize("token", ["", "=", "==", "=a", "a=b", "a\n", "a=\n", "a b", "a,b", "a\x00", "\u00e9"])
def test_what_is_no_token68_is_malformed(token: str) -> None:
    assert refused(f"Bearer {token}") is Reason.INVALID_REQUEST
