"""Keys, metadata, the realm's own page, and every path that leads nowhere, as Keycloak answers them."""

import pytest

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.testing import EmbeddedIssuer
from tests.testing.asking import CERTS, DISCOVERY, GRANT, ORIGIN, REALM, TOKEN, body, document, get, post, refusal

NO_RESOURCE = (404, "Unable to find matching target resource method", "")
NOT_FOUND = (404, "HTTP 404 Not Found", "")
NO_REALM = (404, "Realm does not exist", "")
NO_METHOD = (405, "HTTP 405 Method Not Allowed", "")
NOT_NORMAL = (400, "missingNormalization", "Request path not normalized")
SEMICOLON = (400, "invalidCharacter", "Request path contains invalid character ';'")


def test_the_key_set_shows_a_key_that_signs_and_one_that_encrypts(issuer: EmbeddedIssuer) -> None:
    answer = get(issuer, CERTS)
    assert answer.header("cache-control") == "no-cache"
    keys = {key["use"]: key for key in body(answer)["keys"] if key["alg"] in ("RS256", "RSA-OAEP")}
    assert set(keys) == {"sig", "enc"}
    assert keys["sig"]["kid"] == issuer.signing_kid("corp")
    for key in keys.values():
        assert set(key) == {"kid", "kty", "use", "alg", "n", "e"}


def test_the_realm_page_has_not_before_and_the_public_key(issuer: EmbeddedIssuer) -> None:
    answer = get(issuer, REALM)
    assert answer.header("cache-control") == "no-cache"
    page = body(answer)
    assert list(page) == ["realm", "public_key", "token-service", "account-service", "tokens-not-before"]
    assert (page["realm"], page["tokens-not-before"]) == ("corp", 0)
    assert page["public_key"].startswith("MIIBI")
    assert page["token-service"] == f"{issuer.issuer('corp')}/protocol/openid-connect"


@pytest.mark.parametrize("path", [DISCOVERY, f"{DISCOVERY}/", "/realms/corp/.well-known/oauth-authorization-server"])
def test_the_metadata_names_the_issuer_and_what_is_answered_here(issuer: EmbeddedIssuer, path: str) -> None:
    answer = get(issuer, path)
    assert "no-store" in (answer.header("cache-control") or "")
    page = body(answer)
    assert page["issuer"] == issuer.issuer("corp")
    assert page["token_endpoint"] == f"{issuer.url}{TOKEN}"
    assert page["jwks_uri"] == f"{issuer.url}{CERTS}"


def test_if_the_public_address_differs_discovery_names_the_address_that_the_service_used() -> None:
    issuer = EmbeddedIssuer(document(), url="http://keycloak:8080", public_url="https://sso.example", auth_path="/auth")
    page = body(get(issuer, f"/auth{DISCOVERY}", Host="keycloak:8080"))
    assert page["issuer"] == issuer.issuer("corp") == "https://sso.example/auth/realms/corp"
    assert page["token_endpoint"] == f"http://keycloak:8080/auth{TOKEN}"
    assert body(get(issuer, f"/auth{REALM}", Host="keycloak:8080"))["token-service"].startswith("https://sso.example/")


def test_where_it_does_not_differ_the_host_header_changes_nothing(issuer: EmbeddedIssuer) -> None:
    assert body(get(issuer, DISCOVERY, Host="elsewhere"))["token_endpoint"] == f"{issuer.url}{TOKEN}"


@pytest.mark.parametrize("path", [CERTS, f"{CERTS}/", f"{CERTS}?x=//", f"http://anywhere{CERTS}", REALM, f"{REALM}/"])
def test_a_slash_at_the_end_a_query_and_a_whole_url_are_fine(issuer: EmbeddedIssuer, path: str) -> None:
    assert get(issuer, path).status == 200


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/realms/nope", NO_REALM),
        ("/realms/nope/nope", NO_REALM),
        ("/realms/Corp", NO_REALM),
        ("/realms/corp%2Fx", NO_REALM),
        ("/realms/%C3%A9", NO_REALM),
        (CERTS.replace("corp", "nope"), NO_REALM),
        (TOKEN.replace("corp", "nope"), NO_REALM),
        ("/realms/corp/nope", NOT_FOUND),
        ("/realms/corp/protocol/openid-connect", NOT_FOUND),
        ("/realms/corp/protocol/openid-connect/nope", NOT_FOUND),
        ("/realms/corp/.well-known/nope", NOT_FOUND),
        ("/realms/corp/protocol/nope/certs", (404, "Protocol not found", "")),
        ("/realms", NO_RESOURCE),
        ("/realms/", NO_RESOURCE),
        ("/nope", NO_RESOURCE),
        ("/auth/realms/corp", NO_RESOURCE),
        (f"/auth{TOKEN}", NO_RESOURCE),
        ("//realms/corp", NOT_NORMAL),
        ("/realms//corp", NOT_NORMAL),
        ("/realms/./corp", NOT_NORMAL),
        ("/realms/%2e/corp", NOT_NORMAL),
        ("/realms/x/../corp", NOT_NORMAL),
        ("/realms/c%6Frp", NOT_NORMAL),
        ("/realms/corp;x=1", SEMICOLON),
    ],
)
def test_a_path_that_leads_nowhere_is_answered_in_keycloaks_words(
    issuer: EmbeddedIssuer, path: str, expected: tuple[int, str, str]
) -> None:
    assert refusal(get(issuer, path)) == expected


@pytest.mark.parametrize(
    "path",
    ["//realms/corp", "/realms//corp", "/realms/./corp", "/realms/x/../corp", "/realms/c%6Frp", "/realms/corp;x=1"],
)
def test_an_old_release_brings_paths_into_order(old_issuer: EmbeddedIssuer, path: str) -> None:
    assert body(get(old_issuer, path))["realm"] == "corp"


@pytest.mark.parametrize("path", ["/realms/corp", "/", "/authentic/realms/corp", TOKEN])
def test_a_server_under_auth_answers_nowhere_else(path: str) -> None:
    answer = get(EmbeddedIssuer(document(), auth_path="/auth"), path)
    assert answer.status == 404
    assert answer.header("content-type") == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [
        *((TOKEN, method, NO_METHOD) for method in ("GET", "PUT", "DELETE", "PATCH")),
        (CERTS, "POST", NO_METHOD),
        (REALM, "POST", NO_METHOD),
        (DISCOVERY, "POST", NOT_FOUND),
    ],
)
def test_a_wrong_method_is_refused(
    issuer: EmbeddedIssuer, path: str, method: str, expected: tuple[int, str, str]
) -> None:
    assert refusal(get(issuer, path, method)) == expected


def test_head_is_a_get_without_a_body_in_new_releases_only(issuer: EmbeddedIssuer, old_issuer: EmbeddedIssuer) -> None:
    for path in (CERTS, REALM, DISCOVERY):
        answer = get(issuer, path, "HEAD")
        assert (answer.status, answer.body) == (200, b"")
    assert [get(old_issuer, path, "HEAD").status for path in (CERTS, REALM, DISCOVERY)] == [405, 405, 200]


def test_a_browser_may_try_from_anywhere(issuer: EmbeddedIssuer) -> None:
    answer = get(issuer, TOKEN, "OPTIONS", Origin=ORIGIN, Access_Control_Request_Method="POST")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.header("access-control-allow-origin") == ORIGIN
    assert answer.header("access-control-allow-methods") == "POST, OPTIONS"
    for needed in ("Authorization", "X-Requested-With"):
        assert needed in (answer.header("access-control-allow-headers") or "")
    assert get(issuer, CERTS, Origin=ORIGIN).header("access-control-allow-origin") == ORIGIN
    assert get(issuer, TOKEN, "OPTIONS").header("access-control-allow-origin") is None


def test_every_answer_says_that_this_is_no_keycloak(issuer: EmbeddedIssuer) -> None:
    for path in (CERTS, TOKEN, "/nope"):
        assert "development only" in (get(issuer, path).header("server") or "")
    assert b"no Keycloak" in get(issuer, "/").body


def test_one_issuer_has_several_realms_and_their_keys_and_clients_are_apart() -> None:
    issuer = EmbeddedIssuer(document(), document("corp & sons"))
    assert issuer.realms == ("corp", "corp & sons")
    other = "/realms/corp%20%26%20sons"
    assert body(get(issuer, other))["realm"] == "corp & sons"
    assert issuer.issuer("corp & sons") == "http://keycloak.test/realms/corp%20&%20sons"  # as Keycloak writes it
    assert issuer.signing_kid("corp") != issuer.signing_kid("corp & sons")
    assert post(issuer, GRANT, path=f"{other}/protocol/openid-connect/token").status == 200


@pytest.mark.parametrize(
    ("documents", "options", "sentence"),
    [
        ([], {}, "needs a realm document"),
        ([document(), document()], {}, "Two of the realm documents have the name corp."),
        ([{"clients": []}], {}, "realm"),
        ([{"realm": "corp", "clients": "none"}], {}, "corp"),
        ([{"realm": "corp", "clients": [{}]}], {}, "corp"),
        ([document()], {"version": "latest"}, "no version"),
        ([document()], {"auth_path": "auth"}, "start with a slash"),
    ],
)
def test_an_issuer_without_sense_is_not_made(
    documents: list[dict[str, object]], options: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        EmbeddedIssuer(*documents, **options)  # type: ignore[arg-type]


def test_what_is_not_there_is_named(issuer: EmbeddedIssuer) -> None:
    with pytest.raises(ConfigurationError, match=r"no realm nope, only corp"):
        issuer.rotate_keys("nope")
    with pytest.raises(ConfigurationError, match=r"no client nope"):
        issuer.environment("corp", "nope")
    with pytest.raises(ConfigurationError, match=r"no client ui"):
        issuer.environment("corp", "ui")
