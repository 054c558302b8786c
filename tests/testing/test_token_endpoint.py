"""The token endpoint answers as Keycloak does; every expectation was measured on 26.7.3, and on 26.0.8 where it differs."""

import re
from base64 import b64encode
from dataclasses import replace
from urllib.parse import urlencode

import pytest

from example_app.realm import REALMS
from s2s_fastapi.testing import EmbeddedIssuer, Request
from tests.testing.asking import (
    GRANT,
    LOGIN,
    ODD_ID,
    ODD_SECRET,
    ORIGIN,
    PASSWORD,
    SECRET,
    TOKEN,
    basic,
    body,
    client,
    document,
    kids,
    part,
    post,
    refusal,
    token,
)

WRONG = "Invalid client or Invalid client credentials"
NO_CLIENT = (401, "invalid_client", WRONG)
NO_SECRET = (401, "unauthorized_client", WRONG)
UNREADABLE = (400, "unauthorized_client", "Unexpected error when authenticating client")
BROKEN = (500, "unknown_error", "For more on this error consult the server log.")
TWICE = (400, "invalid_request", "duplicated parameter")
NO_GRANT = (400, "invalid_request", "Missing form parameter: grant_type")
OTHER_GRANT = (400, "unsupported_grant_type", "Unsupported grant_type")
WRONG_USER = "Invalid user credentials"
BODY = f"grant_type=client_credentials&client_id=caller&client_secret={SECRET}"


def test_a_service_gets_its_token_with_the_members_and_headers_of_keycloak(issuer: EmbeddedIssuer) -> None:
    answer = post(issuer, GRANT)
    assert answer.status == 200
    assert answer.header("cache-control") == "no-store"
    assert answer.header("pragma") == "no-cache"
    assert answer.header("content-type") == "application/json"
    members = body(answer)
    assert list(members) == [
        "access_token",
        "expires_in",
        "refresh_expires_in",
        "token_type",
        "not-before-policy",
        "scope",
    ]
    assert (members["expires_in"], members["refresh_expires_in"], members["token_type"]) == (300, 0, "Bearer")


def test_the_claims_are_the_models_and_only_date_id_and_issuer_are_the_issuers() -> None:
    issuer = EmbeddedIssuer(document(), clock=lambda: 1_800_000_000.9)
    claims = part(token(issuer), 1)
    own = {name: claims.pop(name) for name in ("exp", "iat", "jti", "iss")}
    assert own["iat"] == 1_800_000_000
    assert own["exp"] == 1_800_000_300
    assert own["iss"] == issuer.issuer("corp") == "http://keycloak.test/realms/corp"
    assert (claims["azp"], claims["client_id"], claims["aud"], claims["typ"]) == (
        "caller",
        "caller",
        "receiver",
        "Bearer",
    )
    assert "sid" not in claims


def test_what_mappers_add_to_the_answer_and_the_clients_address_are_there() -> None:
    config = {"claim.name": "tenant", "claim.value": "t1", "access.tokenResponse.claim": "true"}
    own = {"claim.name": "expires_in", "claim.value": "no", "access.tokenResponse.claim": "true"}
    kind = {"protocol": "openid-connect", "protocolMapper": "oidc-hardcoded-claim-mapper"}
    mappers = [{"name": "tenant", **kind, "config": config}, {"name": "own", **kind, "config": own}]
    attributes = {"client_credentials.use_refresh_token": "true"}
    shown = client("shown", protocolMappers=mappers, attributes=attributes, fullScopeAllowed=True)
    issuer = EmbeddedIssuer(document(clients=[shown]))
    request = Request(
        "POST",
        TOKEN,
        (("content-type", "application/x-www-form-urlencoded"),),
        urlencode({**GRANT, "client_id": "shown"}).encode(),
    )
    answer = body(issuer.answer(replace(request, client="192.0.2.7")))
    assert (answer["tenant"], answer["expires_in"]) == ("t1", 300)
    assert answer["refresh_expires_in"] == 1800
    assert part(answer["access_token"], 1)["clientHost"] == "192.0.2.7"
    in_process = issuer.service_token("corp", "shown")
    assert part(in_process, 1)["clientAddress"] == "127.0.0.1"
    offline = body(post(issuer, {**GRANT, "client_id": "shown", "scope": "offline_access"}))
    assert offline["refresh_expires_in"] == 0


def test_no_two_tokens_share_an_id(issuer: EmbeddedIssuer) -> None:
    assert part(token(issuer), 1)["jti"] != part(token(issuer), 1)["jti"]


@pytest.mark.parametrize(
    ("form", "version", "expected"),
    [
        (GRANT, "26.7.3", "trrtcc:"),
        (GRANT | {"client_id": "light"}, "26.7.3", "trltcc:"),
        (LOGIN, "26.7.3", "onrtro:"),
        (GRANT, "26.0.8", ""),
        (LOGIN, "26.0.8", ""),
    ],
)
def test_the_id_of_a_token_has_the_releases_prefix(
    issuer: EmbeddedIssuer, old_issuer: EmbeddedIssuer, form: dict[str, str], version: str, expected: str
) -> None:
    asked = issuer if version == "26.7.3" else old_issuer
    jti = part(body(post(asked, form))["access_token"], 1)["jti"]
    assert re.fullmatch(re.escape(expected) + r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", jti)


def test_a_users_token_has_a_session_of_the_releases_shape(issuer: EmbeddedIssuer, old_issuer: EmbeddedIssuer) -> None:
    for asked, length in ((issuer, 24), (old_issuer, 36)):
        members = body(post(asked, LOGIN))
        claims = part(members["access_token"], 1)
        assert len(claims["sid"]) == length
        assert members["session_state"] == claims["sid"]
        assert claims["azp"] == "ui"
        assert "client_id" not in claims


def test_a_mapper_of_the_session_shows_an_id_for_a_service_too_which_has_no_session() -> None:
    of_session = {"name": "s", "protocol": "openid-connect", "protocolMapper": "oidc-session-state-mapper"}
    realm = document()
    realm["clients"][0]["protocolMappers"] = [of_session | {"config": {"access.token.claim": "true"}}]
    claims = part(token(EmbeddedIssuer(realm)), 1)
    assert len(claims["session_state"]) == 24
    assert "sid" not in claims


def test_a_users_refresh_token_is_signed_with_a_key_that_nobody_can_check(issuer: EmbeddedIssuer) -> None:
    members = body(post(issuer, LOGIN))
    claims, header = part(members["refresh_token"], 1), part(members["refresh_token"], 0)
    assert (claims["typ"], claims["aud"], header["alg"]) == ("Refresh", issuer.issuer("corp"), "HS512")
    assert members["refresh_expires_in"] == 1800


def test_openid_brings_an_id_token_for_the_client_itself(issuer: EmbeddedIssuer) -> None:
    members = body(post(issuer, GRANT | {"scope": "openid"}))
    claims = part(members["id_token"], 1)
    assert (claims["typ"], claims["aud"], claims["azp"]) == ("ID", "caller", "caller")
    assert "openid" in members["scope"].split()
    assert "id_token" not in body(post(issuer, GRANT))


@pytest.mark.parametrize("algorithm", ["ES256", "PS256", "EdDSA"])
def test_a_client_may_have_another_algorithm_and_its_key_is_published_from_then_on(algorithm: str) -> None:
    issuer = EmbeddedIssuer(document())
    header = part(token(issuer, client_id=f"signs-{algorithm}"), 0)
    assert header["alg"] == algorithm
    assert header["kid"] == issuer.signing_kid("corp", algorithm)
    assert header["kid"] != issuer.signing_kid("corp")


def test_an_hs512_token_names_a_key_that_is_not_published(own: EmbeddedIssuer) -> None:
    header = part(token(own, client_id="signs-HS512"), 0)
    assert header["alg"] == "HS512"
    assert header["kid"] not in kids(own)


def test_the_header_type_is_the_clients(issuer: EmbeddedIssuer) -> None:
    assert part(token(issuer), 0)["typ"] == "JWT"
    assert part(token(issuer, client_id="rfc9068"), 0)["typ"] == "at+jwt"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("", NO_GRANT),
        ("client_id=caller&client_secret=wrong", NO_GRANT),
        ("grant_type=", OTHER_GRANT),
        ("grant_type=implicit&client_id=caller&client_secret=wrong", OTHER_GRANT),
        ("grant_type=client_credentials", NO_CLIENT),
        (f"grant_type=client_credentials&client_secret={SECRET}", NO_CLIENT),
        (f"grant_type=client_credentials&client_id=&client_secret={SECRET}", NO_CLIENT),
        (f"grant_type=client_credentials&client_id=nobody&client_secret={SECRET}", NO_CLIENT),
        (f"grant_type=client_credentials&client_id=Caller&client_secret={SECRET}", NO_CLIENT),
        (f"grant_type=client_credentials&client_id=off&client_secret={SECRET}", NO_CLIENT),
        ("grant_type=client_credentials&client_id=caller", NO_SECRET),
        ("grant_type=client_credentials&client_id=caller&client_secret=", NO_SECRET),
        ("grant_type=client_credentials&client_id=caller&client_secret=wrong", NO_SECRET),
        (f"{BODY}x&foo=1&foo=1", NO_SECRET),
        (f"{BODY}&scope=a&scope=a", TWICE),
        (f"{BODY}&foo=1&foo=2", TWICE),
        (f"{BODY}&client_id=caller", TWICE),
        (f"{BODY}&audience=a&audience=b", TWICE),
        (f"{BODY}&foo=%zz", BROKEN),
        ("grant_type=client_credentials&client_id=caller&client_secret=%f", BROKEN),
        (f"{BODY}&" + "&".join(f"f{number}=1" for number in range(1000)), BROKEN),
        (f"{BODY}&foo={'x' * 131_073}", (413, "HTTP 413 Request Entity Too Large", "")),
        (f"{BODY}&scope=nope", (400, "invalid_scope", "Invalid scopes: nope")),
        (f"{BODY}&scope=", (400, "invalid_scope", "Invalid scopes: ")),
        (
            f"grant_type=client_credentials&client_id=receiver&client_secret={SECRET}",
            (401, "unauthorized_client", "Client not enabled to retrieve service account"),
        ),
        (
            "grant_type=client_credentials&client_id=ui",
            (401, "unauthorized_client", "Public client not allowed to retrieve service account"),
        ),
    ],
)
def test_a_token_request_is_refused_in_keycloaks_words(
    issuer: EmbeddedIssuer, form: str, expected: tuple[int, str, str]
) -> None:
    answer = post(issuer, form)
    assert refusal(answer) == expected
    assert SECRET.encode() not in answer.body


@pytest.mark.parametrize(
    "form",
    [
        f"{BODY}&foo=%ff",
        f"{BODY}&foo",
        f"{BODY}&foo=1&",
        f"{BODY}&audience=nobody",
        f"{BODY}&scope={'x' * 4001}",
        f"{BODY}&foo={'x' * 131_072}",
        BODY.replace("caller&", "c%61ller&"),
    ],
)
def test_what_keycloak_passes_over_is_no_refusal(issuer: EmbeddedIssuer, form: str) -> None:
    assert post(issuer, form).status == 200


def test_a_scope_of_4000_characters_is_still_read(issuer: EmbeddedIssuer) -> None:
    assert refusal(post(issuer, GRANT | {"scope": "x" * 4000}))[1] == "invalid_scope"


def test_an_old_release_reads_a_scope_of_any_length(old_issuer: EmbeddedIssuer) -> None:
    assert refusal(post(old_issuer, GRANT | {"scope": "x" * 4001}))[1] == "invalid_scope"


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
def test_a_body_that_is_not_declared_as_a_form_is_none(issuer: EmbeddedIssuer, content_type: str) -> None:
    assert refusal(post(issuer, BODY, content_type=content_type)) == NO_GRANT


def test_a_form_may_name_its_character_set(issuer: EmbeddedIssuer) -> None:
    answer = post(issuer, BODY, content_type="Application/x-www-form-urlencoded; charset=UTF-8")
    assert answer.status == 200


def test_the_query_is_not_read(issuer: EmbeddedIssuer) -> None:
    assert refusal(post(issuer, "", path=f"{TOKEN}?{BODY}")) == NO_GRANT
    assert post(issuer, GRANT, path=f"{TOKEN}?scope=nope&client_id=nobody").status == 200


ALONE = {"grant_type": "client_credentials"}


@pytest.mark.parametrize(
    "authorization",
    [
        basic("caller", SECRET),
        basic("caller", SECRET).replace("Basic", "bAsIc"),
        f"Basic {b64encode(f'c%61ller:{SECRET}'.encode()).decode()}",
    ],
)
def test_a_client_may_show_its_secret_in_the_header(issuer: EmbeddedIssuer, authorization: str) -> None:
    assert post(issuer, ALONE, authorization=authorization).status == 200


def test_id_and_secret_in_the_header_are_form_decoded_after_they_were_parted(issuer: EmbeddedIssuer) -> None:
    assert post(issuer, ALONE, authorization=basic(ODD_ID, ODD_SECRET)).status == 200
    assert post(issuer, ALONE | {"client_id": ODD_ID, "client_secret": ODD_SECRET}).status == 200
    assert refusal(post(issuer, ALONE, authorization=basic(ODD_ID, ODD_SECRET, encoded=False)))[0] == 401


@pytest.mark.parametrize(
    ("authorization", "form", "expected"),
    [
        (basic("caller", "wrong"), ALONE, NO_SECRET),
        (basic("nobody", SECRET), ALONE, NO_CLIENT),
        (f"Basic {b64encode(b'caller').decode()}", ALONE, NO_CLIENT),
        ("Basic !!!", ALONE, NO_CLIENT),
        ("Basic", ALONE, NO_CLIENT),
        ("Bearer x", ALONE, NO_CLIENT),
        (f"Basic {b64encode(bytes([255, 58, 255])).decode()}", ALONE, NO_CLIENT),
        (f"Basic {b64encode(b'caller:%zz').decode()}", ALONE, UNREADABLE),
        (f"Basic {b64encode(b'%zz:x').decode()}", ALONE, UNREADABLE),
        ("Basic !!!", ALONE | {"client_id": "caller"}, NO_SECRET),
        (basic("caller", SECRET), ALONE | {"client_secret": "wrong"}, NO_SECRET),
        (basic("caller", SECRET), ALONE | {"client_id": ODD_ID}, NO_SECRET),
        (basic("caller", SECRET), ALONE | {"client_id": "nobody"}, NO_CLIENT),
    ],
)
def test_a_header_is_refused_in_keycloaks_words_and_the_form_wins_over_it(
    issuer: EmbeddedIssuer, authorization: str, form: dict[str, str], expected: tuple[int, str, str]
) -> None:
    assert refusal(post(issuer, form, authorization=authorization)) == expected


@pytest.mark.parametrize("authorization", ["Bearer x", "Basic !!!", basic("nobody", "wrong")])
def test_what_stands_in_the_form_makes_the_header_unimportant(issuer: EmbeddedIssuer, authorization: str) -> None:
    assert post(issuer, GRANT, authorization=authorization).status == 200


def test_an_old_release_stumbles_over_a_broken_header(old_issuer: EmbeddedIssuer) -> None:
    assert refusal(post(old_issuer, GRANT, authorization="Basic !!!")) == UNREADABLE


@pytest.mark.parametrize("login", ["dora", "DORA", "dora@corp.example"])
def test_a_user_logs_in_by_name_or_mail(issuer: EmbeddedIssuer, login: str) -> None:
    claims = part(body(post(issuer, LOGIN | {"username": login}))["access_token"], 1)
    assert claims["preferred_username"] == "dora"


@pytest.mark.parametrize("allowed", [False, "false"])
def test_a_user_does_not_log_in_by_mail_if_the_realm_does_not_allow_it(allowed: object) -> None:
    issuer = EmbeddedIssuer(document(loginWithEmailAllowed=allowed))
    assert refusal(post(issuer, LOGIN | {"username": "dora@corp.example"})) == (400, "invalid_grant", WRONG_USER)
    assert post(issuer, LOGIN).status == 200


@pytest.mark.parametrize(
    ("member", "version", "right", "wrong"),
    [
        ({"requiredActions": ["UPDATE_PASSWORD"]}, "26.7.3", "Account is not fully set up", WRONG_USER),
        ({"enabled": False}, "26.7.3", "Account disabled", WRONG_USER),
        ({"enabled": False}, "26.0.8", "Account disabled", "Account disabled"),
    ],
)
def test_a_wrong_password_hides_what_is_left_to_do_and_in_newer_versions_that_the_user_is_disabled(
    member: dict[str, object], version: str, right: str, wrong: str
) -> None:
    issuer = EmbeddedIssuer(document(users=[{**document()["users"][0], **member}]), version=version)
    assert refusal(post(issuer, LOGIN))[2] == right
    assert refusal(post(issuer, LOGIN | {"password": "wrong"}))[2] == wrong


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"password": "wrong"}, (400, "invalid_grant", WRONG_USER)),
        ({"password": ""}, (400, "invalid_grant", WRONG_USER)),
        ({"username": "nobody"}, (400, "invalid_grant", WRONG_USER)),
        ({"username": ""}, (400, "invalid_grant", WRONG_USER)),
        ({"username": "service-account-caller"}, (400, "invalid_grant", WRONG_USER)),
        ({"username": "nobody", "scope": "nope"}, (400, "invalid_scope", "Invalid scopes: nope")),
        ({"client_id": "nobody"}, NO_CLIENT),
        ({"client_id": "direct"}, NO_SECRET),
        (
            {"client_id": "caller", "client_secret": SECRET},
            (400, "unauthorized_client", "Client not allowed for direct access grants"),
        ),
    ],
)
def test_a_login_is_refused_in_keycloaks_words(
    issuer: EmbeddedIssuer, changes: dict[str, str], expected: tuple[int, str, str]
) -> None:
    answer = post(issuer, LOGIN | changes)
    assert refusal(answer) == expected
    assert PASSWORD.encode() not in answer.body


def test_a_login_needs_a_name_and_a_password(issuer: EmbeddedIssuer) -> None:
    nameless = {name: value for name, value in LOGIN.items() if name != "username"}
    assert refusal(post(issuer, nameless)) == (401, "invalid_request", "Missing parameter: username")
    wordless = {name: value for name, value in LOGIN.items() if name != "password"}
    assert refusal(post(issuer, wordless)) == (400, "invalid_grant", WRONG_USER)


def test_an_old_release_answers_401_to_a_wrong_password(old_issuer: EmbeddedIssuer) -> None:
    assert refusal(post(old_issuer, LOGIN | {"password": "wrong"})) == (401, "invalid_grant", WRONG_USER)


def test_a_user_without_a_password_in_the_file_cannot_log_in() -> None:
    issuer = EmbeddedIssuer(document(users=[{"username": "dora", "enabled": True}]))
    assert refusal(post(issuer, LOGIN | {"password": "None"}))[1] == "invalid_grant"
    assert refusal(post(issuer, LOGIN | {"password": ""}))[1] == "invalid_grant"


@pytest.mark.parametrize("login", ["", "none", "None"])
def test_a_user_without_a_mail_address_does_not_answer_to_its_absence(login: str) -> None:
    users = [{**document()["users"][0], "email": None}]
    issuer = EmbeddedIssuer(document(users=users))
    assert refusal(post(issuer, LOGIN | {"username": login}))[1] == "invalid_grant"


def test_a_page_of_the_clients_own_origin_may_read_its_token(issuer: EmbeddedIssuer) -> None:
    answer = post(issuer, LOGIN, origin=ORIGIN)
    assert answer.status == 200
    assert answer.header("access-control-allow-origin") == ORIGIN
    assert answer.header("access-control-allow-credentials") == "true"
    assert answer.header("access-control-expose-headers") == "Access-Control-Allow-Methods"


@pytest.mark.parametrize("origin", ["http://localhost:8001", "http://127.0.0.1:8001"])
def test_a_documentation_page_of_the_example_may_get_a_token_of_its_caller(origin: str) -> None:
    issuer = EmbeddedIssuer.read(REALMS["corp"])
    form = {"grant_type": "client_credentials"}
    answer = post(issuer, form, authorization=basic("billing", issuer.secrets("corp")["billing"]), origin=origin)
    assert (answer.status, answer.header("access-control-allow-origin")) == (200, origin)


def test_a_page_of_another_origin_gets_no_token(issuer: EmbeddedIssuer, old_issuer: EmbeddedIssuer) -> None:
    for form in (LOGIN, GRANT):
        refused = post(issuer, form, origin="http://127.0.0.1:3000")
        assert refusal(refused) == (403, "Invalid origin", "")
        assert refused.header("access-control-allow-origin") is None
        assert post(old_issuer, form, origin="http://127.0.0.1:3000").header("access-control-allow-origin") is None


def test_a_page_may_read_why_it_was_refused(issuer: EmbeddedIssuer) -> None:
    answer = post(issuer, GRANT | {"client_secret": "wrong"}, origin="http://anywhere.example")
    assert answer.header("access-control-allow-origin") == "http://anywhere.example"
