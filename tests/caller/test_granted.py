"""Wanted and granted."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s_fastapi.caller.granted import MAX_LIFE, granted
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.errors import AudienceNotGranted, ConfigurationError, TokenRequestError
from tests.caller.fakes import b64, jwt

NOTHING = Wanted()
BOB = Wanted.of("bob", None)


def answer(token: Any = None, **changes: Any) -> dict[str, Any]:
    whole = {
        "access_token": token or jwt(aud="bob", iat=0, exp=300),
        "token_type": "Bearer",
        "expires_in": 300,
    } | changes
    return {name: value for name, value in whole.items() if value is not ...}


def refused(given: dict[str, Any], asked: Wanted = NOTHING) -> TokenRequestError:
    with pytest.raises(TokenRequestError) as caught:
        granted(given, asked, client_id="alice")
    return caught.value


def test_names_are_a_set_in_whatever_order_and_however_often_they_are_written() -> None:
    assert Wanted.of(("b", "a", "b"), ["y", "x"]) == Wanted.of({"a", "b"}, ("x", "y"))
    assert Wanted.of("bob", "x") == Wanted.of(["bob"], ("x",))
    assert Wanted.of("bob", None) != Wanted.of("Bob", None)
    assert Wanted.of(None, ("y", "x")).form() == {"grant_type": "client_credentials", "scope": "x y"}
    assert Wanted.of("bob", None).form() == {"grant_type": "client_credentials"}


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        " ",
        " a",
        "a\tb",
        "a\n",
        (),
        [],
        ("a", ""),
        ["a", None],
        [["a"]],
        b"a",
        7,
        {"a": 1},
        "a\x00",
        "a" * 256,
        ("a ",),
    ],
)
@pytest.mark.parametrize("field", ["audience", "scope"])
def test_a_mistake_in_a_name_is_a_configuration_error_that_says_where(wrong: Any, field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{field}="):
        Wanted.of(**{"audience": None, "scope": None, field: wrong})


@pytest.mark.parametrize("aud", ["bob", ["bob"], ["account", "bob"]])
def test_a_token_for_the_asked_audience_is_taken(aud: Any) -> None:
    token = granted(answer(jwt(aud=aud, jti="t1", iss="i")), BOB, client_id="alice")

    assert (token.life, token.token_id, token.issuer, token.header) == (300, "t1", "i", f"Bearer {token.value}")


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"aud": "account"},
        {"aud": []},
        {"aud": ["bobby", "BOB", "bo"]},
        {"aud": ["account", "charles"]},
        {"aud": ""},
    ],
)
def test_a_token_for_somebody_else_is_refused_with_what_keycloak_needs(claims: dict[str, Any]) -> None:
    error = refused(answer(jwt(**claims)), BOB)

    assert isinstance(error, AudienceNotGranted)
    assert error.wanted == {"bob"}
    assert error.claims == claims
    assert not error.retryable
    for step in (
        "(B) a client bob",
        "(C) a client scope with an Audience mapper for bob",
        "(D) that scope",
    ):
        assert step in str(error)


def test_all_asked_audiences_have_to_be_granted() -> None:
    both = Wanted.of(("bob", "charles"), None)

    assert granted(answer(jwt(aud=["bob", "charles", "account"])), both, client_id="alice").value
    assert "Audience mapper for charles" in str(refused(answer(jwt(aud=["bob"])), both))


def test_the_sentence_says_what_the_token_has_and_what_was_asked() -> None:
    error = refused(answer(jwt(aud=["account"])), Wanted.of("crm-api-gateway", None))

    assert str(error).startswith("token of alice has aud [account], expected crm-api-gateway")


def test_a_lost_scope_gets_the_sentence_about_roles() -> None:
    asked = Wanted.of("bob", ("seen", "lost"))
    sentence = str(refused(answer(jwt(aud="x"), scope="seen profile"), asked))

    assert "The scope lost was requested and not granted: assign it to alice." in sentence
    assert "leaves out a scope with role mappings if the service account of alice has none of those roles" in sentence


@pytest.mark.parametrize(
    ("requested", "granted_scope", "words", "absent"),
    [
        (None, "profile", "No scope was requested: for an Optional scope write its name as scope=", "requested and"),
        ("bob-audience", "bob-audience", "The scope bob-audience was requested and granted, so it has no", "(D)"),
        (("a", "b"), "b a profile", "The scope a, b was requested and granted, so it has no Audience mapper", "(C)"),
        ("bob-audience", "profile", "The scope bob-audience was requested and not granted", "No scope was"),
        ("bob-audience", None, "The scope bob-audience was requested and not granted", "No scope was"),
        (("a", "b"), "a", "The scope b was requested and not granted", "No scope was"),
    ],
)
def test_the_cure_knows_whether_a_scope_was_requested(
    requested: Any, granted_scope: str | None, words: str, absent: str
) -> None:
    more = {} if granted_scope is None else {"scope": granted_scope}
    error = refused(answer(jwt(aud="x"), **more), Wanted.of("bob", requested))

    assert words in error.cure
    assert absent not in error.cure
    assert "(A)" not in error.cure  # there is a token, so there is a service account


def test_a_custom_audience_needs_no_client() -> None:
    sentence = str(refused(answer(jwt(aud="x")), Wanted.of("https://api.example.com", None)))
    assert (
        "Keycloak needs, of the steps A to D in the README: (C) a client scope with an Audience mapper for https://api.example.com"
        in sentence
    )
    assert "(B)" not in sentence


def test_a_lightweight_token_gets_the_switch_of_the_client_and_nothing_else() -> None:
    said = str(refused(answer(jwt(jti="trltcc:1")), BOB))
    assert "This is a lightweight token: switch off “Always use lightweight access token”" in said
    assert "mapper" not in said
    assert "lightweight" not in str(refused(answer(jwt(jti="trrtcc:1")), BOB))


@pytest.mark.parametrize("aud", [7, {"bob": 1}, ["bob", 1], [["bob"]], None, True])
def test_an_audience_of_another_type_is_refused(aud: Any) -> None:
    assert "aud" in str(refused(answer(jwt(aud=aud)), BOB))


@pytest.mark.parametrize(
    "token",
    [
        "opaque",
        "a.b",
        "a.b.c.d",
        "..",
        f"x.{b64('[]')}.c",
        f"x.{b64('null')}.c",
        f"x.{b64('{')}.c",
        f"x.{b64('[' * 10_000)}.c",
        "x." + b64('{"aud": "eve", "aud": "bob"}') + ".c",
        "x." + b64('{"aud": "bob", "x": NaN}') + ".c",
        "x." + b64('{"aud": "bob", "x": ' + "9" * 5000 + "}") + ".c",
    ],
)
def test_a_token_that_cannot_be_read_is_refused_where_an_audience_was_asked_and_taken_where_none_was(
    token: str,
) -> None:
    assert "not a JWT" in str(refused(answer(token), BOB))
    assert granted(answer(token), NOTHING, client_id="alice").life == 300


@pytest.mark.parametrize(
    "token",
    ["", None, 7, ["a"], {}, True, "a b", "a\r\nX: y", "a\x00", "é", "a" * 16_385, "a,b", '"a"', "=", "a\n"],
)
def test_what_no_header_can_carry_is_refused_before_there_is_a_header(token: Any) -> None:
    error = refused(answer(access_token=token))

    assert "access_token" in str(error)
    assert not isinstance(token, str) or len(token) < 2 or token not in str(error)


@pytest.mark.parametrize("kind", [..., None, "", "DPoP", "N_A", 7, ["Bearer"], "Bearer x", "mac"])
def test_only_bearer_tokens_are_taken(kind: Any) -> None:
    error = refused(answer(token_type=kind))
    assert "not Bearer" in str(error)
    assert ("DPoP" in error.cure) is (kind == "DPoP")


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "BEARER"])
def test_bearer_is_taken_in_any_case(kind: str) -> None:
    assert granted(answer(token_type=kind), NOTHING, client_id="alice").value


@pytest.mark.parametrize("azp", ["eve", "ALICE", "alice ", "", None, 7, ["alice"]])
@pytest.mark.parametrize("asked", [NOTHING, BOB])
def test_a_token_of_another_client_is_refused_with_the_mapper_that_makes_it(azp: Any, asked: Wanted) -> None:
    error = refused(answer(jwt(aud="bob", azp=azp, jti="t1")), asked)

    assert "its token belongs to" in str(error)
    assert "Take the mapper that writes azp out of the client scopes of alice" in error.cure
    assert error.claims == {"aud": "bob", "azp": azp, "jti": "t1"}
    assert not error.retryable


def test_a_token_of_the_client_itself_is_taken_and_so_is_one_that_names_none() -> None:
    assert granted(answer(jwt(azp="alice")), NOTHING, client_id="alice").value
    assert granted(answer(jwt()), NOTHING, client_id="alice").value


@pytest.mark.parametrize(
    ("changes", "claims"),
    [
        ({"token_type": "DPoP"}, {"aud": "bob", "iat": 0, "exp": 300}),
        ({"access_token": jwt(iat=9, exp=9)}, {"iat": 9, "exp": 9}),
        ({"access_token": jwt(aud=7)}, {"aud": 7}),
        ({"access_token": jwt(aud="x")}, {"aud": "x"}),
        ({"expires_in": "soon"}, {"aud": "bob", "iat": 0, "exp": 300}),
        ({"access_token": "opaque", "token_type": "mac"}, {}),
    ],
)
def test_the_error_carries_the_claims_of_the_token_and_never_the_token(
    changes: dict[str, Any], claims: dict[str, Any]
) -> None:
    given = answer(**changes)
    error = refused(given, BOB)

    assert error.claims == claims
    assert given["access_token"] not in f"{vars(error)!r} {error!r} {error}"


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [
        (300, 300),
        ("300", 300),
        (300.7, 300.7),
        (1, 1),
        (1e30, MAX_LIFE),
        (10**400, MAX_LIFE),
        (86_400, MAX_LIFE),
        (86_401, MAX_LIFE),
        (..., 60),
        (None, 60),
    ],
)
def test_the_life_of_an_opaque_token_is_bounded(expires_in: Any, life: float) -> None:
    assert granted(answer("opaque", expires_in=expires_in), NOTHING, client_id="alice").life == life


@pytest.mark.parametrize(
    "expires_in", [0, -1, "300.5", "-1", "", " 300", "3e2", True, False, [], {}, -(10**400), float("nan")]
)
def test_a_life_that_is_none_is_an_error(expires_in: Any) -> None:
    assert "expire" in str(refused(answer("opaque", expires_in=expires_in)))


@pytest.mark.parametrize(
    ("claims", "expires_in", "life"),
    [
        ({"iat": 1000, "exp": 1060}, 300, 60),
        ({"iat": 1000, "exp": 1600}, 300, 300),
        ({"iat": 1000, "exp": 1060}, ..., 60),
        ({"iat": 1000}, 300, 300),
        ({"exp": 1}, 300, 300),
        ({"iat": "1", "exp": "2"}, 300, 1),
        ({"iat": True, "exp": 2}, 300, 300),
        ({"iat": 0, "exp": 10**30}, ..., MAX_LIFE),
    ],
)
def test_the_shorter_of_expires_in_and_exp_counts_and_only_as_a_difference(
    claims: Any, expires_in: Any, life: float
) -> None:
    assert granted(answer(jwt(**claims), expires_in=expires_in), NOTHING, client_id="alice").life == life


def test_a_token_that_ends_before_it_begins_is_refused() -> None:
    assert "expired" in str(refused(answer(jwt(iat=1000, exp=1000))))


def test_granted_scopes_come_from_the_answer_or_else_from_the_token() -> None:
    def scopes(given: dict[str, Any]) -> frozenset[str] | None:
        return granted(given, NOTHING, client_id="alice").scopes

    assert scopes(answer(jwt(scope="a b"), scope="b c")) == frozenset({"b", "c"})
    assert scopes(answer(jwt(scope="a b"))) == frozenset({"a", "b"})
    assert scopes(answer(jwt())) is None
    assert scopes(answer(jwt(), scope=7)) is None


def test_a_token_shows_itself_nowhere() -> None:
    token = granted(answer(), NOTHING, client_id="alice")

    assert token.value not in f"{token!r} {token} {[token]}"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    expires_in=json_values,
    claims=st.fixed_dictionaries({}, optional=dict.fromkeys(("aud", "exp", "iat", "iss", "jti", "scope"), json_values)),
    kind=st.just("Bearer") | json_values,
)
def test_whatever_comes_is_a_bounded_token_or_one_of_our_errors(expires_in: Any, claims: Any, kind: Any) -> None:
    token = f"a.{b64(json.dumps(claims))}.c"
    try:
        found = granted({"access_token": token, "token_type": kind, "expires_in": expires_in}, BOB, client_id="alice")
    except TokenRequestError as error:
        assert token not in str(error)  # noqa: PT017 - either is right
    else:
        assert 0 < found.life <= MAX_LIFE
