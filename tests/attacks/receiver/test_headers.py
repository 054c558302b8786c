"""Attacks in the token's header: lines 7 to 10 of the list. Nothing in it is fetched, believed or obeyed."""

import json
import zlib
from typing import Any

import pytest

from s2s_fastapi.decision import Reason
from tests.attacks.receiver.stack import FORGER, KEYS, Break, claims, signed, stack, token, under
from tests.kit.realm import b64

EVIL = FORGER["RS256"]
PRIVATE = {**EVIL.private.as_dict(private=True), "kid": EVIL.kid}
PLACES = [
    "https://evil.example/keys.json",
    "http://keycloak.test/realms/evil/protocol/openid-connect/certs",
    "http://keycloak.test@evil.example/certs",
    "http://169.254.169.254/latest/meta-data",
    "http://[::1]:1/",
    "file:///etc/passwd",
    "ldap://evil.example/x",
    "data:application/json,{}",
    "../../../../dev/null",
]


# 7: a key, or the place of one


@pytest.mark.parametrize("kid", ["its own", "ours"])
@pytest.mark.parametrize(
    "header",
    [
        pytest.param({"jwk": EVIL.jwk}, id="jwk"),
        pytest.param({"jwk": {name: EVIL.jwk[name] for name in ("kty", "n", "e")}}, id="jwk, the bare numbers"),
        pytest.param({"jwk": PRIVATE}, id="jwk, with its private part"),
        pytest.param({"jwk": {"kty": "oct", "k": "AA"}}, id="jwk, symmetric"),
        pytest.param({"jwk": ""}, id="jwk, empty"),
        *[pytest.param({"jku": place}, id=f"jku {place}") for place in PLACES],
        *[pytest.param({"x5u": place}, id=f"x5u {place}") for place in PLACES],
        pytest.param({"x5c": ["MIIBszCCARygAwIBAgIB"]}, id="x5c"),
        pytest.param({"x5c": []}, id="x5c, empty"),
    ],
)
def test_a_token_does_not_bring_its_own_key(header: dict[str, Any], kid: str) -> None:
    attacked = stack("RS256")
    named = {"kid": KEYS["RS256"].kid if kid == "ours" else EVIL.kid}
    forged = attacked.realm.sign(claims(attacked.realm), key=EVIL, header={**header, **named})
    attacked.holds(token(attacked.realm), forged, Reason.UNSUPPORTED_HEADER)


@pytest.mark.parametrize(
    "header",
    [{"jwk": KEYS["RS256"].jwk}, {"jku": "http://keycloak.test/realms/corp/protocol/openid-connect/certs"}],
    ids=["our own key", "our own address"],
)
def test_not_even_a_true_token_names_the_place_of_its_key(header: dict[str, Any]) -> None:
    attacked = stack("RS256")
    broken = attacked.realm.sign(claims(attacked.realm), header=header)
    attacked.holds(token(attacked.realm), broken, Reason.UNSUPPORTED_HEADER)


@pytest.mark.parametrize("name", ["x5t", "x5t#S256", "url", "iss", "aud", "nonce", "epk", "jwks", "jwks_uri", "key"])
def test_a_member_that_means_nothing_here_changes_nothing(name: str) -> None:
    attacked = stack("RS256")
    header = {name: PLACES[0], "kid": KEYS["RS256"].kid}
    good = attacked.realm.sign(claims(attacked.realm), header=header)
    forged = attacked.realm.sign(claims(attacked.realm), key=EVIL, header=header)
    attacked.holds(good, forged, Reason.INVALID_SIGNATURE)


OURS = KEYS["RS256"].kid


@pytest.mark.parametrize(
    "kid",
    [
        *PLACES,
        *("/dev/null", "|ls", "$(id)", "${jndi:ldap://evil.example/x}", "{{7*7}}", "%00", "*", ".*", "null", "0"),
        *("' OR '1'='1", "x'; DROP TABLE keys; --", "\u0000", f"{OURS}\u0000", f"{OURS}\n", f" {OURS}", f"{OURS} "),
        *(OURS.upper(), OURS[:-1], OURS.replace("-", "\u2010"), OURS.replace("a", "\u0430") + "\u0430", "\u202e" + OURS),
        *("\r\nSet-Cookie: a=b", "\x1b[2J\x1b[31mroot", "k" * 512, "\U0001f511", "__proto__", "constructor"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_kid_is_looked_up_among_our_keys_and_nowhere_else(kid: str) -> None:
    attacked = stack("RS256")
    forged = attacked.realm.sign(claims(attacked.realm), key=EVIL, header={"kid": kid})
    decision = attacked.holds(token(attacked.realm), forged, Reason.UNKNOWN_KEY, outbound=1)
    assert decision.unverified_kid.isprintable()


@pytest.mark.parametrize(
    "kid",
    [0, 7, -1, 1.5, True, False, [], [OURS], {}, {"kid": OURS}, "", "k" * 513, "k" * 3000],
    ids=lambda kid: repr(kid)[:20],
)
def test_a_kid_is_one_short_string(kid: Any) -> None:
    attacked = stack("RS256")
    broken = attacked.realm.sign(claims(attacked.realm), header={"kid": kid})
    attacked.holds(token(attacked.realm), broken, Reason.MALFORMED_TOKEN)


def test_a_kid_of_null_is_none() -> None:
    attacked = stack("RS256")
    raw = json.dumps({"alg": "RS256", "typ": "JWT", "kid": None})
    attacked.holds(
        token(attacked.realm), under(attacked, raw, json.dumps(claims(attacked.realm))), Reason.MALFORMED_TOKEN
    )


def test_a_kid_of_a_megabyte_is_not_even_read() -> None:
    attacked = stack("RS256")
    broken = attacked.realm.sign(claims(attacked.realm), header={"kid": "k" * 1_000_000})
    attacked.holds(token(attacked.realm), broken, Reason.INVALID_REQUEST)


# 8: members that change the rules

CRIT: list[Any] = [["exp"], ["b64"], ["x"], ["alg"], [], "exp", "", {}, 1, True, [1], [[]], ["x"] * 100]


@pytest.mark.parametrize(
    "header",
    [
        *[pytest.param({"crit": crit}, id=f"crit {crit!r}") for crit in CRIT],
        pytest.param({"crit": ["x"], "x": 1}, id="crit, with what it names"),
        pytest.param({"crit": ["http://example.com/UNDEFINED"]}, id="crit, a URL"),
        *[pytest.param({"b64": b64_}, id=f"b64 {b64_!r}") for b64_ in (False, True, "false", 0)],
        pytest.param({"b64": False, "crit": ["b64"]}, id="b64 false and crit"),
        pytest.param({"zip": "DEF"}, id="zip DEF"),
        pytest.param({"zip": "GZ"}, id="zip of the future"),
        pytest.param({"zip": ""}, id="zip, empty"),
        pytest.param({"enc": "A256GCM"}, id="enc"),
        pytest.param({"cty": "JWT"}, id="cty JWT"),
        pytest.param({"cty": "application/json"}, id="cty JSON"),
    ],
)
def test_a_header_that_changes_the_rules_is_refused_however_well_it_is_signed(header: dict[str, Any]) -> None:
    attacked = stack("RS256")
    broken = attacked.realm.sign(claims(attacked.realm), header=header)
    attacked.holds(token(attacked.realm), broken, Reason.UNSUPPORTED_HEADER)


@pytest.mark.parametrize("name", ["crit", "b64", "zip", "enc", "cty", "jwk", "jku", "x5u", "x5c"])
def test_null_is_no_way_to_say_that_a_forbidden_member_is_not_there(name: str) -> None:
    attacked = stack("RS256")
    raw = json.dumps({"alg": "RS256", "typ": "JWT", "kid": OURS, name: None})
    attacked.holds(
        token(attacked.realm), under(attacked, raw, json.dumps(claims(attacked.realm))), Reason.UNSUPPORTED_HEADER
    )


@pytest.mark.parametrize("crit", [None, ["b64"]], ids=["without crit", "with crit"])
def test_a_payload_that_was_signed_in_clear_is_refused(crit: list[str] | None) -> None:
    attacked = stack("RS256")
    head = {"alg": "RS256", "typ": "JWT", "kid": OURS, "b64": False, **({"crit": crit} if crit else {})}
    payload = json.dumps(claims(attacked.realm))
    signature = attacked.realm.key.sign(f"{b64(head)}.{payload}")  # RFC 7797
    attacked.holds(token(attacked.realm), f"{b64(head)}.{b64(payload)}.{signature}", Reason.UNSUPPORTED_HEADER)


def test_a_compressed_payload_is_refused_and_never_unpacked() -> None:
    attacked = stack("RS256")
    good = token(attacked.realm)
    packed = zlib.compress(json.dumps(claims(attacked.realm)).encode())[2:-4]
    attacked.holds(good, attacked.realm.sign(packed, header={"zip": "DEF"}), Reason.UNSUPPORTED_HEADER)
    attacked.holds(good, attacked.realm.sign(packed), Reason.MALFORMED_CLAIMS)


# 9: encrypted tokens, tokens in tokens, JSON

PBES2 = {"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2c": 2**31 - 1, "p2s": "AAAA", "typ": "JWT", "kid": OURS}
BOMB = b64(zlib.compress(b" " * 10_000_000)[2:-4])


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(PBES2, id="PBES2, 2147483647 rounds"),
        pytest.param({"alg": "dir", "enc": "A256GCM", "zip": "DEF", "kid": OURS}, id="dir, compressed"),
        pytest.param({"alg": "RSA-OAEP", "enc": "A256GCM", "kid": OURS}, id="RSA-OAEP for our own key"),
        pytest.param({"alg": "RSA1_5", "enc": "A128CBC-HS256", "kid": OURS, "cty": "JWT"}, id="RSA1_5, nested"),
        pytest.param({"alg": "ECDH-ES", "enc": "A256GCM", "epk": EVIL.jwk, "kid": OURS}, id="ECDH-ES"),
        pytest.param({"alg": "RS256", "typ": "JWT", "kid": OURS}, id="a JWS header"),
    ],
)
@pytest.mark.parametrize("key", ["", "AAAA", BOMB[:8000]], ids=["no key", "a key", "a bomb"])
def test_an_encrypted_token_is_refused_by_its_five_parts(head: dict[str, Any], key: str) -> None:
    attacked = stack("RS256")
    attacked.holds(token(attacked.realm), f"{b64(head)}.{key}.AAAA.AAAA.AAAA", Reason.MALFORMED_TOKEN)


def test_three_parts_under_the_header_of_an_encrypted_token_are_refused() -> None:
    attacked = stack("RS256")
    attacked.holds(
        token(attacked.realm), signed(PBES2, claims(attacked.realm), lambda text: b"x"), Reason.UNSUPPORTED_HEADER
    )
    without = {name: value for name, value in PBES2.items() if name != "enc"}
    attacked.holds(
        token(attacked.realm), signed(without, claims(attacked.realm), lambda text: b"x"), Reason.ALGORITHM_NOT_ALLOWED
    )


def test_a_token_within_a_token_is_refused() -> None:
    attacked = stack("RS256")
    good = token(attacked.realm)
    attacked.holds(good, attacked.realm.sign(good.encode(), header={"cty": "JWT"}), Reason.UNSUPPORTED_HEADER)
    attacked.holds(good, attacked.realm.sign(good.encode()), Reason.MALFORMED_CLAIMS)
    attacked.holds(good, attacked.realm.sign(json.dumps(good).encode()), Reason.MALFORMED_CLAIMS)


def _flattened(header: str, payload: str, signature: str) -> str:
    return json.dumps({"protected": header, "payload": payload, "signature": signature}, separators=(",", ":"))


def _general(header: str, payload: str, signature: str) -> str:
    signatures = [{"protected": header, "signature": signature}]
    return json.dumps({"payload": payload, "signatures": signatures}, separators=(",", ":"))


@pytest.mark.parametrize("shape", [_flattened, _general], ids=["flattened", "general"])
def test_the_json_serialisation_is_no_bearer_token(shape: Break) -> None:
    attacked = stack("RS256")
    good = token(attacked.realm)
    document = shape(*good.split("."))
    attacked.holds(good, document, Reason.INVALID_REQUEST)
    attacked.holds(good, b64(document), Reason.MALFORMED_TOKEN)


def test_a_json_document_and_a_compact_token_in_one_are_neither() -> None:
    # CVE-2022-39227: the verifier reads the one, the application the other.
    attacked = stack("RS256")
    good = token(attacked.realm)
    header, payload, signature = good.split(".")
    evil = b64(claims(attacked.realm, azp="root", client_id="root"))
    mixed = f'{{"  {header}.{evil}.":"","protected":"{header}","payload":"{payload}","signature":"{signature}"}}'
    attacked.holds(good, mixed, Reason.INVALID_REQUEST)


# 10: what kind of JWT it says it is


@pytest.mark.parametrize(
    "typ",
    [
        *(0, 1, True, [], ["JWT"], {}, "", "JWS", "JOSE", "JOSE+JSON", "JWE", "JWT ", " JWT", "JWT\u0000", "ID", "Bearer"),
        *("dpop+jwt", "logout+jwt", "secevent+jwt", "token-introspection+jwt", "oauth-authz-req+jwt", "entity-statement+jwt"),
        *("client-authentication+jwt", "dc+sd-jwt", "vc+jwt", "kb+jwt", "rt+jwt", "id+jwt", "at+jwt+x", "x+at+jwt", "at+jwt; v=1"),
        *("application/", "application/dpop+jwt", "application/application/jwt", "text/jwt", "/jwt", "\uff2aWT", "at\u2215jwt"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_jwt_of_another_kind_is_no_access_token(typ: Any) -> None:
    attacked = stack("RS256")
    broken = attacked.realm.sign(claims(attacked.realm), header={"typ": typ})
    attacked.holds(token(attacked.realm), broken, Reason.UNSUPPORTED_HEADER)


def test_a_jwt_that_does_not_say_what_it_is_is_no_access_token() -> None:
    attacked = stack("RS256")
    good = token(attacked.realm)
    attacked.holds(good, attacked.realm.sign(claims(attacked.realm), header={"typ": None}), Reason.UNSUPPORTED_HEADER)
    raw = json.dumps({"alg": "RS256", "typ": None, "kid": OURS})
    attacked.holds(good, under(attacked, raw, json.dumps(claims(attacked.realm))), Reason.UNSUPPORTED_HEADER)


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "APPLICATION/JWT"])
def test_an_access_token_may_say_so_in_any_case(typ: str) -> None:
    attacked = stack("RS256")
    attacked.accepts(attacked.realm.sign(claims(attacked.realm), header={"typ": typ}))
