"""One token has one reading, and whatever has none is refused before a library sees it."""

import hashlib
import hmac
import json
import string
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import RSAKey

from s2s_fastapi.backchannel.strict_json import _check_depth
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import AuthenticationError
from s2s_fastapi.jose.algorithms import ALGORITHMS
from s2s_fastapi.keycloak.cures import NOTHING_GIVEN
from s2s_fastapi.verifier.jws import Jws, parse
from s2s_fastapi.verifier.token_verifier import TokenVerifier
from tests.kit.realm import Clock, Realm, SigningKey, b64, judged, token_verifier, unsigned_sentence

URL_SAFE = string.ascii_letters + string.digits + "-_"
HEADER_LIMIT = 4096
TOKEN_LIMIT = 16_384

REALM = Realm()
VERIFIER = token_verifier(REALM)


def head(**changes: Any) -> dict[str, Any]:
    """Return the header of a good token; a change to None leaves the member out."""
    header = {"alg": "RS256", "typ": "JWT", "kid": REALM.key.kid, **changes}
    return {name: value for name, value in header.items() if value is not None}


def signed(header: bytes | str | dict[str, Any], payload: bytes | str | dict[str, Any]) -> str:
    """Return a token with these very bytes, truly signed by the realm: only its form can be wrong."""
    signing_input = f"{b64(header)}.{b64(payload)}"
    return f"{signing_input}.{REALM.key.sign(signing_input)}"


def octets(token: str) -> bytes:
    """Return a token as a server hands it over; what cannot come in a header as something that no token has."""
    return token.encode("ascii", "replace")


def payload_with(text: str) -> str:
    """Return a good payload with one more member, as text."""
    return f"{json.dumps(REALM.claims())[:-1]}, {text}}}"


def refused(token: str, *, verifier: TokenVerifier = VERIFIER) -> Reason:
    """Return why a token is refused, after seeing that nothing of it comes out and nothing goes out for it."""
    jws = parse(octets(token))
    refusal = jws if isinstance(jws, Decision) else jws.claims()
    assert isinstance(refusal, Decision)
    reason = refusal.reason
    held = reason is Reason.MALFORMED_CLAIMS  # the signature: only then is the payload read
    assert bool(refusal.cure) == (held or len(token) > TOKEN_LIMIT)
    before = REALM.fetches
    verdict = judged(verifier, token)
    assert (verdict.decision.reason, verdict.principal) == (reason, None)
    assert verdict.decision.client_id in ({"", "chat-app-service"} if held else {""})
    assert verdict.decision.kid == (REALM.key.kid if held else "")
    assert verdict.decision.unverified_kid in ({""} if held else {"", REALM.key.kid})
    assert REALM.fetches == before
    with pytest.raises(AuthenticationError) as answer:
        verifier.verify(token)
    error = answer.value
    assert (error.code, error.status_code) == (reason, 401)
    assert error.challenge == 'Bearer error="invalid_token"'
    assert error.detail == reason.detail
    assert reason.detail == "The access token was not accepted." or held
    cure = refusal.cure or unsigned_sentence(verifier, reason)
    assert str(error) == f"{reason}: {cure if token else NOTHING_GIVEN}"
    return reason


def test_a_good_token_is_accepted_so_that_each_row_below_has_one_fault() -> None:
    assert judged(VERIFIER, signed(head(), REALM.claims())).decision.reason is Reason.ALLOWED


# Algorithms


@pytest.mark.parametrize(
    "algorithm",
    [
        *("none", "None", "NONE", "nOnE", "", None, 0, True, [], ["RS256"], {"RS256": 1}),
        *("HS256", "HS384", "HS512", "hs256"),
        *("rs256", "RS256 ", " RS256", "RS256\n", "RS256\u0000", "RS25", "RS2567", "256", "RS1", "RSA1_5", "RSA-OAEP"),
        *("ES256K", "Ed25519", "Ed448", "dir", "RS256,ES256", "\uff32S256", "\u212aS256"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("signature", ["valid", "empty"])
def test_only_the_ten_asymmetric_algorithms_are_known_by_their_exact_names(algorithm: Any, signature: str) -> None:
    header = {**head(alg=None), **({} if algorithm is None else {"alg": algorithm})}
    token = signed(header, REALM.claims())
    if signature == "empty":
        token = token[: token.rindex(".") + 1]
    assert refused(token) is Reason.ALGORITHM_NOT_ALLOWED


def test_the_algorithm_must_be_said_and_null_is_none() -> None:
    assert refused(signed({**head(), "alg": None}, REALM.claims())) is Reason.ALGORITHM_NOT_ALLOWED


def test_the_list_of_algorithms_is_closed() -> None:
    assert {f"{family}{size}" for family in ("RS", "PS", "ES") for size in (256, 384, 512)} | {"EdDSA"} == ALGORITHMS


def _public() -> RSAPublicKey:
    assert isinstance(REALM.key.private, RSAKey)
    return REALM.key.private.public_key


def _encoded(encoding: Encoding, form: PublicFormat) -> bytes:
    return _public().public_bytes(encoding, form)


PEM = _encoded(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
PKCS1 = _encoded(Encoding.PEM, PublicFormat.PKCS1)
JWK = REALM.key.jwk


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(PEM, id="PEM"),
        pytest.param(PEM.rstrip(), id="PEM without its last line feed"),
        pytest.param(PEM.replace(b"\n", b"\r\n"), id="PEM with CR LF"),
        pytest.param(PEM.replace(b"\n", b"\r"), id="PEM with CR"),
        pytest.param(PEM.replace(b"\n", b""), id="PEM on one line"),
        pytest.param(b"\n".join(b"  " + line for line in PEM.splitlines()), id="PEM indented"),
        pytest.param(b"\xef\xbb\xbf" + PEM, id="PEM behind a byte order mark"),
        pytest.param(b"# the key of corp\n" + PEM, id="PEM behind a comment"),
        pytest.param(PKCS1, id="PKCS1 PEM"),
        pytest.param(_encoded(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), id="DER"),
        pytest.param(_encoded(Encoding.DER, PublicFormat.PKCS1), id="PKCS1 DER"),
        pytest.param(_encoded(Encoding.OpenSSH, PublicFormat.OpenSSH), id="OpenSSH"),
        pytest.param(json.dumps(JWK).encode(), id="JWK"),
        pytest.param(json.dumps({"keys": [JWK]}).encode(), id="JWKS"),
        pytest.param(json.dumps(JWK, separators=(",", ":"), sort_keys=True).encode(), id="JWK canonical"),
        pytest.param(JWK["n"].encode(), id="the modulus as text"),
        pytest.param(urlsafe_b64decode(JWK["n"] + "=="), id="the modulus"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"secret", id="a word"),
    ],
)
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_the_public_key_is_no_shared_secret_in_any_spelling(secret: bytes, algorithm: str) -> None:
    signing_input = f"{b64(head(alg=algorithm))}.{b64(REALM.claims())}"
    mac = hmac.new(secret, signing_input.encode(), getattr(hashlib, f"sha{algorithm[2:]}")).digest()
    assert refused(f"{signing_input}.{b64(mac)}") is Reason.ALGORITHM_NOT_ALLOWED
    # The same mac under the name of the key's own algorithm is just a wrong signature.
    disguised = f"{b64(head())}.{b64(REALM.claims())}.{b64(mac)}"
    assert judged(VERIFIER, disguised).decision.reason is Reason.INVALID_SIGNATURE


# Header tricks

THEIRS = SigningKey("ES256", kid=REALM.key.kid)


@pytest.mark.parametrize(
    "extra",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": ["b64"], "b64": False},
        {"crit": ["b64"], "b64": True},
        {"crit": []},
        {"crit": "exp"},
        {"crit": None},
        {"crit": ["http://example.com/unknown"], "http://example.com/unknown": 1},
        {"b64": False},
        {"b64": True},
        {"zip": "DEF"},
        {"zip": ""},
        {"enc": "A256GCM"},
        {"cty": "JWT"},
        pytest.param({"jwk": THEIRS.jwk}, id="jwk"),
        {"jwk": None},
        {"jku": "https://evil.example/jwks.json"},
        {"jku": "http://keycloak.test/realms/corp/protocol/openid-connect/certs"},
        {"x5u": "file:///etc/passwd"},
        {"x5c": ["MIIB"]},
    ],
    ids=json.dumps,
)
def test_a_header_that_brings_a_key_or_changes_the_rules_is_refused_with_a_signature_that_holds(
    extra: dict[str, Any],
) -> None:
    assert refused(signed({**head(), **extra}, REALM.claims())) is Reason.UNSUPPORTED_HEADER


def test_a_key_in_the_header_verifies_nothing() -> None:
    assert (
        refused(REALM.token(key=THEIRS, header={"jwk": THEIRS.jwk, "jku": "https://evil.example/"}))
        is Reason.UNSUPPORTED_HEADER
    )


@pytest.mark.parametrize(
    "typ",
    [
        *(None, 0, True, [], ["JWT"], {}, "", "JWS", "JOSE", "JWT ", "JWT\u0000", "JW", "JWTS", "x-JWT", "ID"),
        *("dpop+jwt", "logout+jwt", "secevent+jwt", "token-introspection+jwt", "entity-statement+jwt", "at+jwt; v=1"),
        *("application/", "application/application/jwt", "text/jwt", "application/dpop+jwt", "/jwt", "J\u1e84T"),
    ],
    ids=repr,
)
def test_only_a_jwt_or_an_access_token_is_one_by_its_header(typ: Any) -> None:
    header = {**head(typ=None), **({} if typ is None else {"typ": typ})}
    assert refused(signed(header, REALM.claims())) is Reason.UNSUPPORTED_HEADER


@pytest.mark.parametrize(
    "typ", ["JWT", "jwt", "Jwt", "at+jwt", "AT+JWT", "application/jwt", "application/at+jwt", "Application/AT+JWT"]
)
def test_a_jwt_may_say_so_in_any_case_and_with_its_media_type(typ: str) -> None:
    assert judged(VERIFIER, signed(head(typ=typ), REALM.claims())).decision.reason is Reason.ALLOWED


@pytest.mark.parametrize("kid", [None, "", 0, 1, True, 1.5, [], ["a"], {}, "k" * 513], ids=lambda kid: repr(kid)[:20])
def test_a_token_must_name_its_key_with_a_short_string(kid: Any) -> None:
    header = {**head(kid=None), **({} if kid is None else {"kid": kid})}
    assert refused(signed(header, REALM.claims())) is Reason.MALFORMED_TOKEN
    assert refused(signed({**head(), "kid": None}, REALM.claims())) is Reason.MALFORMED_TOKEN


@pytest.mark.parametrize(
    "kid",
    [
        *("https://evil.example/key.pem", "file:///dev/null", "../../../../dev/null", "/dev/null", "|ls", "$(id)"),
        *("' OR '1'='1", "key\u0000", "\u0000", "\n", "{}", REALM.key.kid.upper(), f" {REALM.key.kid}"),
        *(REALM.key.kid[:-1], f"{REALM.key.kid}0", REALM.key.kid.replace("-", "\u2010"), "k" * 512, "*", "%"),
    ],
)
def test_a_kid_is_a_name_to_look_up_and_nothing_else(kid: str) -> None:
    realm, clock = Realm(), Clock()
    urls: list[str] = []
    realm.answer = lambda request: urls.append(str(request.url))
    verifier = token_verifier(realm, monotonic=clock)
    verifier.ready().keys.get()
    clock.advance(5)
    verdict = judged(verifier, signed(head(kid=kid), realm.claims()))
    assert verdict.decision.reason is Reason.UNKNOWN_KEY
    assert verdict.principal is None
    assert verdict.decision.unverified_kid.isprintable()
    assert len(verdict.decision.unverified_kid) <= 64
    assert urls == [f"{realm.issuer}/protocol/openid-connect/certs", realm.issuer] * 2


# Base64url and dots


def tampered(token: str, part: int, change: Callable[[str], str]) -> str:
    parts = token.split(".")
    parts[part] = change(parts[part])
    return ".".join(parts)


def _spare(segment: str) -> str:
    """Return the same bytes in another spelling: with a spare bit set in the last character."""
    assert len(segment) % 4 != 0
    return segment[:-1] + URL_SAFE_ORDER[URL_SAFE_ORDER.index(segment[-1]) + 1]


URL_SAFE_ORDER = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"


def _uneven() -> str:
    """Return a good token, each part of which has spare bits, and - and _ in the payload."""
    for pad in range(1000):
        token = signed(head(x="x" * (pad % 3)), REALM.claims(note="\u00ff\u00fe~?" * 3 + "y" * pad))
        parts = token.split(".")
        if all(len(part) % 4 for part in parts) and all(sign in parts[1] + parts[2] for sign in "-_"):
            return token
    raise AssertionError


@pytest.mark.parametrize("part", [0, 1, 2], ids=["header", "payload", "signature"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text + "=" * (-len(text) % 4), id="padding"),
        pytest.param(lambda text: text + "=", id="one equals sign"),
        pytest.param(lambda text: text + "====", id="a whole group of padding"),
        pytest.param(_spare, id="a spare bit set"),
        pytest.param(lambda text: text + "\n", id="a line feed behind"),
        pytest.param(lambda text: "\n" + text, id="a line feed in front"),
        pytest.param(lambda text: f"{text[:8]}\r\n{text[8:]}", id="a line break within"),
        pytest.param(lambda text: f"{text[:8]} {text[8:]}", id="a space within"),
        pytest.param(lambda text: f"{text[:8]}!{text[8:]}", id="a foreign character within"),
        pytest.param(lambda text: f"{text[:8]}\u00e9{text[8:]}", id="an accent within"),
        pytest.param(lambda text: f"{text[:8]}\ud800{text[8:]}", id="a lone surrogate within"),
        pytest.param(lambda text: f"{text[:8]}\x00{text[8:]}", id="NUL within"),
        pytest.param(lambda text: f"{text[:8]}={text[8:]}", id="padding within"),
        pytest.param(lambda text: text + "A" * ((1 - len(text)) % 4), id="one character too many for a byte"),
        pytest.param(lambda text: text.translate({ord("A"): "\uff21"}) + "\uff21", id="full-width letters"),
        pytest.param(lambda _: "", id="nothing"),
        pytest.param(lambda _: "A", id="six bits"),
    ],
)
def test_one_token_has_one_spelling(part: int, change: Callable[[str], str]) -> None:
    token = tampered(_uneven(), part, change)
    assert refused(token) is Reason.MALFORMED_TOKEN


@pytest.mark.parametrize("sign", ["-+", "_/"])
def test_the_other_base64_alphabet_is_another_spelling(sign: str) -> None:
    token = _uneven()
    assert judged(VERIFIER, token).decision.reason is Reason.ALLOWED
    assert refused(token.replace(sign[0], sign[1])) is Reason.MALFORMED_TOKEN


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(lambda h, p, s: "", id="nothing"),
        pytest.param(lambda h, p, s: ".", id="a dot"),
        pytest.param(lambda h, p, s: "..", id="two dots"),
        pytest.param(lambda h, p, s: "." * TOKEN_LIMIT, id="dots alone"),
        pytest.param(lambda h, p, s: h, id="one part"),
        pytest.param(lambda h, p, s: f"{h}.{p}", id="two parts"),
        pytest.param(lambda h, p, s: f".{h}.{p}.{s}", id="a dot in front"),
        pytest.param(lambda h, p, s: f"{h}.{p}.{s}.", id="a dot behind"),
        pytest.param(lambda h, p, s: f"{h}..{p}.{s}", id="an empty part within"),
        pytest.param(lambda h, p, s: f"{h}.{p}.{s}.{s}", id="four parts"),
        pytest.param(lambda h, p, s: f"{h}.{p}.{p}.{p}.{s}", id="five parts, as in JWE"),
        pytest.param(lambda h, p, s: f"{h}..{p}.{p}.{s}", id="five parts, as in direct JWE"),
        pytest.param(lambda h, p, s: f"{h}.{p}.{s}" + "." * 9000, id="thousands of dots"),
        pytest.param(lambda h, p, s: f"{h}\uff0e{p}\uff0e{s}", id="full-width dots"),
        pytest.param(lambda h, p, s: f"{h}.{p}.{s}" + "A" * 10_000_000, id="ten megabytes"),
        pytest.param(lambda h, p, s: json.dumps({"protected": h, "payload": p, "signature": s}), id="JSON, flattened"),
        pytest.param(
            lambda h, p, s: json.dumps({"payload": p, "signatures": [{"protected": h, "signature": s}]}),
            id="JSON, general",
        ),
    ],
)
def test_a_token_has_three_parts(shape: Callable[[str, str, str], str]) -> None:
    assert refused(shape(*signed(head(), REALM.claims()).split("."))) is Reason.MALFORMED_TOKEN


def test_an_encrypted_token_with_a_costly_key_is_refused_by_its_form() -> None:
    header = {"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2c": 2**31 - 1, "p2s": "AAAA", "typ": "JWT", "kid": "k"}
    assert refused(f"{b64(header)}.AAAA.AAAA.AAAA.AAAA") is Reason.MALFORMED_TOKEN
    assert refused(signed(header, REALM.claims())) is Reason.UNSUPPORTED_HEADER


def test_a_token_within_a_token_is_no_payload() -> None:
    assert refused(signed(head(), signed(head(), REALM.claims()))) is Reason.MALFORMED_CLAIMS


# JSON


def _doubled(document: dict[str, Any], name: str, value: Any, *, spelt: str = "") -> str:
    return f'{{"{spelt or name}": {json.dumps(value)}, {json.dumps(document)[1:]}'


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        *[
            pytest.param(_doubled(head(), name, value), json.dumps(REALM.claims()), id=f"header {name} = {value}")
            for name, value in [("alg", "none"), ("alg", "RS256"), ("kid", "other"), ("typ", "JWT")]
        ],
        *[
            pytest.param(json.dumps(head()), _doubled(REALM.claims(), name, value), id=f"payload {name}")
            for name, value in [
                ("exp", 2**40),
                ("aud", "crm-api-gateway"),
                ("iss", REALM.issuer),
                ("azp", "chat"),
                ("typ", "Bearer"),
            ]
        ],
        pytest.param(
            json.dumps(head()), _doubled(REALM.claims(), "exp", 1, spelt="\\u0065xp"), id="payload exp, escaped once"
        ),
        pytest.param(
            json.dumps(head()),
            payload_with('"realm_access": {"roles": [], "roles": ["admin"]}'),
            id="roles, two levels down",
        ),
        pytest.param(json.dumps(head()), payload_with('"list": [{"a": 1, "a": 1}]'), id="an equal member in an array"),
        pytest.param(json.dumps(head()), payload_with('"": 1, "": 1'), id="an empty name"),
    ],
)
def test_a_member_that_stands_twice_is_never_a_choice(header: str, payload: str) -> None:
    in_header = header != json.dumps(head())
    assert refused(signed(header, payload)) is (Reason.MALFORMED_TOKEN if in_header else Reason.MALFORMED_CLAIMS)


ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_is_utf_8_without_a_byte_order_mark(encoding: str) -> None:
    header, payload = json.dumps(head()), json.dumps(REALM.claims())
    assert refused(signed(header.encode(encoding), payload)) is Reason.MALFORMED_TOKEN
    assert refused(signed(header, payload.encode(encoding))) is Reason.MALFORMED_CLAIMS


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b'"n": "\xff"', id="no UTF-8"),
        pytest.param(b'"n": "\xc0\xaf"', id="overlong UTF-8"),
        pytest.param(b'"n": "\xed\xa0\x80"', id="a surrogate in UTF-8"),
        pytest.param(b'"n": "\xe9"', id="Latin-1"),
        pytest.param(b'"n": "\\ud800"', id="a lone surrogate, escaped"),
        pytest.param(b'"n": "\\udfff\\ud800"', id="a surrogate pair the wrong way round"),
        pytest.param(b'"\\udfff": 1', id="a lone surrogate in a name"),
        pytest.param(b'"n": [{"m": ["\\uD800x"]}]', id="a lone surrogate deep down"),
        pytest.param(b'"n": "\n"', id="a line feed in a string"),
        pytest.param(b'"n": "\x00"', id="NUL in a string"),
        pytest.param(b'"n": "\\x41"', id="an escape that JSON does not know"),
        pytest.param(b'"n": NaN', id="NaN"),
        pytest.param(b'"n": Infinity', id="Infinity"),
        pytest.param(b'"n": [-Infinity]', id="-Infinity"),
        pytest.param(b'"n": 1e400', id="1e400"),
        pytest.param(b'"n": -1e400', id="-1e400"),
        pytest.param(b'"n": ' + b"9" * 5000, id="an integer of 5000 digits"),
        pytest.param(b'"n": 01', id="a leading zero"),
        pytest.param(b'"n": .5', id="no digit before the point"),
        pytest.param(b'"n": +1', id="a plus sign"),
        pytest.param(b'"n": 0x10', id="hexadecimal"),
        pytest.param(b'"n": 1,', id="a comma too many"),
        pytest.param(b"'n': 1", id="single quotes"),
        pytest.param(b"n: 1", id="a bare name"),
        pytest.param(b'"n": 1 /* one */', id="a comment"),
        pytest.param(b'"n": True', id="True"),
        pytest.param(b'"n": undefined', id="undefined"),
        pytest.param(b'"n": "', id="a string without end"),
        pytest.param(b'"n": "\\', id="an escape without end"),
        pytest.param(b'"n": [1}', id="a bracket closed by a brace"),
    ],
)
def test_json_is_json_in_the_header_and_in_the_payload(raw: bytes) -> None:
    def grown(document: dict[str, Any]) -> bytes:
        return json.dumps(document).encode()[:-1] + b", " + raw + b"}"

    assert refused(signed(head(), grown(REALM.claims()))) is Reason.MALFORMED_CLAIMS
    if len(raw) < 3000:
        assert refused(signed(grown(head()), REALM.claims())) is Reason.MALFORMED_TOKEN


@pytest.mark.parametrize(
    "document",
    [
        "[]",
        "[{}]",
        '"text"',
        "1",
        "1.5",
        "null",
        "true",
        "false",
        " ",
        "{} {}",
        "{}x",
        "{}\x00",
        "\x0b{}",
        "{",
        "}",
        "()",
    ],
)
def test_header_and_payload_are_one_object_each(document: str) -> None:
    assert refused(signed(head(), document)) is Reason.MALFORMED_CLAIMS
    assert refused(signed(document, REALM.claims())) is Reason.MALFORMED_TOKEN
    if document == "[{}]":
        claims = json.dumps([REALM.claims()])
        assert refused(signed(head(), claims)) is Reason.MALFORMED_CLAIMS
        assert refused(signed(json.dumps([head()]), REALM.claims())) is Reason.MALFORMED_TOKEN


def nested(depth: int, kind: str) -> str:
    """Return a member whose value brings an object that holds it to `depth` levels."""
    inner = depth - 1
    if kind == "arrays":
        return '"n": ' + "[" * inner + "]" * inner
    if kind == "objects":
        return '"n": ' + '{"n":' * (inner - 1) + "{}" + "}" * (inner - 1)
    opening = ('[{"n":' * inner)[: 6 * (inner // 2)]
    return f'"n": {opening}{"[]" if inner % 2 else "1"}{"}]" * (inner // 2)}'


@pytest.mark.parametrize("kind", ["arrays", "objects", "both"])
def test_32_levels_are_read_and_33_are_not(kind: str) -> None:
    assert judged(VERIFIER, signed(head(), payload_with(nested(32, kind)))).decision.reason is Reason.ALLOWED
    assert refused(signed(head(), payload_with(nested(33, kind)))) is Reason.MALFORMED_CLAIMS
    header = json.dumps(head())[:-1]
    assert judged(VERIFIER, signed(f"{header}, {nested(32, kind)}}}", REALM.claims())).decision.reason is Reason.ALLOWED
    assert refused(signed(f"{header}, {nested(33, kind)}}}", REALM.claims())) is Reason.MALFORMED_TOKEN


@pytest.mark.parametrize("kind", ["arrays", "objects", "both"])
def test_32_levels_are_read_and_33_are_not_where_there_are_more_brackets_than_levels(kind: str) -> None:
    wide = '"wide": [' + ",".join(["[]", "{}"] * 40) + "], "
    assert judged(VERIFIER, signed(head(), payload_with(wide + nested(32, kind)))).decision.reason is Reason.ALLOWED
    assert refused(signed(head(), payload_with(wide + nested(33, kind)))) is Reason.MALFORMED_CLAIMS


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('"n": "' + "[{" * 500 + '"', id="in a string"),
        pytest.param('"n": "\\"' + "[{" * 500 + '"', id="behind an escaped quote"),
        pytest.param('"n": "\\\\\\"' + "[{" * 500 + '"', id="behind an escaped backslash and an escaped quote"),
        pytest.param('"' + "{" * 500 + '": 1', id="in a name"),
        pytest.param('"n": [' + ",".join(["[]"] * 500) + "]", id="side by side"),
    ],
)
def test_brackets_that_do_not_nest_are_not_counted(text: str) -> None:
    assert judged(VERIFIER, signed(head(), payload_with(text))).decision.reason is Reason.ALLOWED


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            '"n": "\\\\", "m": ' + "[" * 40 + "]" * 40, id="behind a string that ends in an escaped backslash"
        ),
        pytest.param('"n": "]]]]]]]]]]", "m": ' + "[" * 40 + "]" * 40, id="behind closing brackets in a string"),
        pytest.param('"n": ' + "[" * 5000, id="never closed"),
        pytest.param('"n": ' + '{"a":' * 2000, id="never closed objects"),
    ],
)
def test_no_string_hides_what_is_too_deep(text: str) -> None:
    assert refused(signed(head(), payload_with(text))) is Reason.MALFORMED_CLAIMS


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('"' + '\\"' * 30_000, id="escaped quotes without end"),
        pytest.param('\\"' * 30_000, id="quotes and backslashes"),
        pytest.param('"' * 60_001, id="quotes"),
        pytest.param('"' + "\\" * 60_001, id="backslashes"),
        pytest.param("[" + '"a\\' * 20_000, id="strings without end"),
        pytest.param("[]" * 30_000, id="brackets"),
    ],
)
def test_looking_for_the_depth_takes_as_long_as_the_text(text: str) -> None:
    began = time.process_time()
    _check_depth(text)
    assert (
        time.process_time() - began < 1.0
    )  # some milliseconds; a scan that starts again at each quote takes many seconds


# Sizes


def padded(header_length: int, token_length: int) -> str:
    """Return a good token whose header or whole has exactly this many characters (0: any)."""
    for extra in range(3):  # base64url cannot have every length in each part
        header = head(x="")
        if header_length:
            header = head(x="x" * (header_length * 3 // 4 - len(json.dumps(header))))
        else:
            header = head(x="x" * extra)
        claims = REALM.claims(note="")
        if token_length:
            left = token_length - len(b64(header)) - len(REALM.token().rsplit(".", 1)[1]) - 2
            claims = REALM.claims(note="x" * (left * 3 // 4 - len(json.dumps(claims))))
        token = signed(header, claims)
        if (not token_length or len(token) == token_length) and (
            not header_length or len(token.split(".")[0]) == header_length
        ):
            return token
    raise AssertionError


def test_a_header_of_4_kb_is_read_and_a_longer_one_is_not() -> None:
    assert judged(VERIFIER, padded(HEADER_LIMIT, 0)).decision.reason is Reason.ALLOWED
    assert refused(padded(HEADER_LIMIT + 2, 0)) is Reason.MALFORMED_TOKEN  # no base64url text has 4097 characters


def test_a_token_of_16_kb_is_read_and_one_more_character_is_too_much() -> None:
    assert judged(VERIFIER, padded(0, TOKEN_LIMIT)).decision.reason is Reason.ALLOWED
    assert refused(padded(0, TOKEN_LIMIT + 1)) is Reason.MALFORMED_TOKEN


# Properties


def respelt(jws: Jws) -> str:
    return f"{jws.signing_input.decode()}.{b64(jws.signature)}"


def read_or_refused(token: str) -> Jws | None:
    jws = parse(octets(token))
    read = jws if isinstance(jws, Decision) else jws.claims()
    if isinstance(jws, Jws) and not isinstance(read, Decision):
        return jws
    assert isinstance(read, Decision)
    assert read.reason in {
        Reason.MALFORMED_TOKEN,
        Reason.UNSUPPORTED_HEADER,
        Reason.ALGORITHM_NOT_ALLOWED,
        Reason.MALFORMED_CLAIMS,
    }
    return None


@settings(deadline=None)
@given(
    st.one_of(
        st.text(), st.text(alphabet=URL_SAFE + ".=", max_size=60), st.from_regex(r"[A-Za-z0-9_.=-]*", fullmatch=True)
    )
)
def test_whatever_text_comes_is_refused_and_nothing_else_is_raised(text: str) -> None:
    assert read_or_refused(text) is None


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    header=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "x"]), JSON_VALUES),
    payload=JSON_VALUES,
    escape=st.booleans(),
)
def test_what_is_accepted_is_read_as_every_json_parser_would_and_spelt_back_to_itself(
    header: dict[str, Any], payload: Any, escape: bool
) -> None:
    raw = json.dumps(payload, ensure_ascii=escape).encode("utf-8", "surrogatepass")
    token = f"{b64({**head(), **header})}.{b64(raw)}.AQ"
    jws = read_or_refused(token)
    if jws is not None:
        assert respelt(jws) == token
        assert jws.claims() == payload
        assert jws.algorithm in ALGORITHMS
    elif not header:
        text = json.dumps(payload, ensure_ascii=False)
        assert not isinstance(payload, dict) or any("\ud800" <= sign <= "\udfff" for sign in text)


GOOD = signed(head(), REALM.claims())


@settings(deadline=None)
@given(
    at=st.integers(0, len(GOOD)), gone=st.integers(0, 3), put=st.text(alphabet=URL_SAFE + ".=+/ \n\u00e9", max_size=3)
)
def test_no_change_of_a_good_token_leaves_it_good(at: int, gone: int, put: str) -> None:
    token = GOOD[:at] + put + GOOD[at + gone :]
    jws = read_or_refused(token)
    if jws is None or token == GOOD:
        return
    assert respelt(jws) == token
    if jws.kid == REALM.key.kid:
        assert VERIFIER.decide(token).decision.reason is not Reason.ALLOWED


def test_a_parsed_token_shows_neither_its_claims_nor_its_signature() -> None:
    jws = parse(octets(GOOD))
    assert isinstance(jws, Jws)
    header, payload, signature = GOOD.split(".")
    for secret in (payload, signature, header, "chat-app-service", str(jws.signature)):
        assert secret not in repr(jws)
