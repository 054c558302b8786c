"""Attacks on the parser: lines 11 to 13 of the list. What has two readings, or two spellings, has none here."""

import json
import string
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from s2s_fastapi.decision import Reason
from tests.attacks.receiver.stack import MALFORMED, Stack, claims, head, stack, token, under

ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"


# 11: one token, one spelling


def _uneven(attacked: Stack) -> str:
    """Return a good token whose header and payload have spare bits, and - and _ in the payload."""
    for header_pad, pad in product(range(3), range(6)):
        note = "y" * pad + ">" * 6 + "?" * 6
        made = attacked.realm.sign(claims(attacked.realm, note=note), header={"x": "x" * header_pad})
        parts = made.split(".")
        if all(len(part) % 4 for part in parts) and "-" in parts[1] and "_" in parts[1]:
            return made
    raise AssertionError


def _spare(text: str) -> str:
    return text[:-1] + ALPHABET[ALPHABET.index(text[-1]) + 1]


SPELLINGS: dict[str, tuple[Callable[[str], str], bool]] = {
    "a spare bit": (_spare, True),
    "another alphabet": (lambda text: text.replace("-", "+").replace("_", "/"), True),
    "a character too many": (lambda text: text + "A" * ((1 - len(text)) % 4), True),
    "six bits": (lambda text: "A", True),
    "a tilde": (lambda text: text + "~", True),
    "padding": (lambda text: text + "=" * (-len(text) % 4), False),
    "one equals sign": (lambda text: text + "=", False),
    "four equals signs": (lambda text: text + "====", False),
    "padding within": (lambda text: f"{text[:8]}={text[8:]}", False),
    "a line feed": (lambda text: f"{text[:8]}\n{text[8:]}", False),
    "CR LF": (lambda text: f"{text[:8]}\r\n{text[8:]}", False),
    "a space": (lambda text: f"{text[:8]} {text[8:]}", False),
    "a tab": (lambda text: f"{text[:8]}\t{text[8:]}", False),
    "NUL": (lambda text: f"{text[:8]}\0{text[8:]}", False),
    "a comma": (lambda text: f"{text[:8]},{text[8:]}", False),
    "a percent escape": (lambda text: f"%{ord(text[0]):02x}{text[1:]}", False),
    "an accent": (lambda text: f"{text[:8]}\u00e9{text[8:]}", False),
    "a non-breaking space": (lambda text: f"{text}\u00a0", False),
}


@pytest.mark.parametrize("part", [0, 1, 2], ids=["header", "payload", "signature"])
@pytest.mark.parametrize(("change", "token68"), SPELLINGS.values(), ids=SPELLINGS)
def test_another_spelling_of_a_good_token_is_refused(part: int, change: Callable[[str], str], *, token68: bool) -> None:
    attacked = stack("RS256")
    good = _uneven(attacked)
    parts = good.split(".")
    parts[part] = change(parts[part])
    broken = ".".join(parts)
    if broken == good:
        return  # this part has neither of the two signs
    # What is no token68 is no credential of any kind. Padding at the very end is: RFC 7235 section 2.1.
    if part == 2 and broken == good + "=" * (len(broken) - len(good)):
        token68 = True
    attacked.holds(good, broken, Reason.MALFORMED_TOKEN if token68 else Reason.INVALID_REQUEST)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_look_alike_letters_are_no_base64url(encoding: str) -> None:
    attacked = stack("RS256")
    good = token(attacked.realm)
    attacked.holds(good, ("\uff45" + good[1:]).encode(encoding), Reason.INVALID_REQUEST)


# 12: members that stand twice


def _doubled(document: dict[str, Any], name: str, value: Any, *, last: bool = False, spelt: str = "") -> str:
    text, member = json.dumps(document), f'"{spelt or name}": {json.dumps(value)}'
    return f"{text[:-1]}, {member}}}" if last else f"{{{member}, {text[1:]}"


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("alg", "none"), ("alg", "HS256"), ("alg", "RS256"), ("kid", "other"), ("typ", "JWT"), ("typ", "dpop+jwt")],
)
def test_a_header_member_that_stands_twice_is_refused(name: str, value: str, *, last: bool) -> None:
    attacked = stack("RS256")
    broken = under(attacked, _doubled(head(attacked), name, value, last=last), json.dumps(claims(attacked.realm)))
    attacked.holds(token(attacked.realm), broken, Reason.MALFORMED_TOKEN)


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("exp", 2**40),
        ("exp", 1),
        ("aud", "billing"),
        ("aud", "crm-api-gateway"),
        ("iss", "http://evil.example/realms/corp"),
        ("azp", "root"),
        ("client_id", "root"),
        ("typ", "ID"),
        ("sid", None),
        ("scope", "admin"),
        ("realm_access", {"roles": ["admin"]}),
        ("cnf", None),
        ("iat", 1),
        ("nbf", 0),
    ],
)  # fmt: skip
def test_a_claim_that_stands_twice_is_refused(name: str, value: Any, *, last: bool) -> None:
    attacked = stack("RS256")
    payload = {name: value, **claims(attacked.realm)}
    broken = under(attacked, json.dumps(head(attacked)), _doubled(payload, name, value, last=last))
    attacked.holds(token(attacked.realm), broken, Reason.MALFORMED_CLAIMS)


@pytest.mark.parametrize(
    "member",
    [
        pytest.param('"\\u0061zp": "root"', id="once with an escape"),
        pytest.param('"realm_access": {"roles": [], "roles": ["admin"]}', id="two levels down"),
        pytest.param('"resource_access": {"crm": {"roles": []}, "crm": {"roles": ["admin"]}}', id="two clients"),
        pytest.param('"list": [{"a": 1, "a": 1}]', id="in a list, and equal"),
        pytest.param('"": 1, "": 2', id="without a name"),
    ],
)
def test_no_escape_and_no_depth_hides_a_second_member(member: str) -> None:
    attacked = stack("RS256")
    broken = under(attacked, json.dumps(head(attacked)), json.dumps(claims(attacked.realm))[:-1] + f", {member}}}")
    attacked.holds(token(attacked.realm), broken, Reason.MALFORMED_CLAIMS)


@pytest.mark.parametrize("name", ["AZP", "azp ", "azp\u0000", "\u0430zp", "az\u200bp", "Azp"])
def test_a_name_that_only_looks_the_same_is_another_name_and_counts_for_nothing(name: str) -> None:
    attacked = stack("RS256")
    attacked.accepts(token(attacked.realm, **{name: "root"}))


# 13: other encodings


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-7", "cp037"]
)
@pytest.mark.parametrize("part", [0, 1], ids=["header", "payload"])
def test_json_is_utf_8_without_a_byte_order_mark(part: int, encoding: str) -> None:
    attacked = stack("RS256")
    if encoding == "utf-7" and part == 0:
        return  # ASCII letters are themselves in it
    texts = [json.dumps(head(attacked)).encode(), json.dumps(claims(attacked.realm, x="\u00e9"), ensure_ascii=False).encode()]  # fmt: skip
    texts[part] = texts[part].decode().encode(encoding)
    broken = under(attacked, *texts)
    if encoding == "utf-7":
        attacked.accepts(broken)  # it is JSON in ASCII, with a harmless text in it
        return
    attacked.holds(token(attacked.realm), broken, MALFORMED[part])


JUNK = {
    "no UTF-8": b'"n": "\xff"',
    "overlong UTF-8": b'"n": "\xc0\xaf"',
    "a surrogate in UTF-8": b'"n": "\xed\xa0\x80"',
    "Latin-1": b'"n": "\xe9"',
    "a lone surrogate": b'"n": "\\ud800"',
    "a lone surrogate for a name": b'"\\udfff": 1',
    "NUL": b'"n": "\x00"',
    "a line feed in a string": b'"n": "\n"',
    "NaN": b'"n": NaN',
    "Infinity": b'"n": Infinity',
    "-Infinity": b'"n": -Infinity',
    "1e400": b'"n": 1e400',
    "-1e400": b'"n": [-1e400]',
    "a number of 5 000 digits": b'"n": ' + b"9" * 5000,
    "a leading zero": b'"n": 01',
    "a plus sign": b'"n": +1',
    "hexadecimal": b'"n": 0x1',
    "a comment": b'"n": 1 /* */',
    "single quotes": b"'n': 1",
    "a trailing comma": b'"n": 1,',
    "arabic digits": '"n": \u0661'.encode(),
    "a string without end": b'"n": "',
}


@pytest.mark.parametrize("raw", JUNK.values(), ids=JUNK)
@pytest.mark.parametrize("part", [0, 1], ids=["header", "payload"])
def test_what_is_not_json_is_refused(part: int, raw: bytes) -> None:
    attacked = stack("RS256")
    texts = [json.dumps(head(attacked)).encode(), json.dumps(claims(attacked.realm)).encode()]
    texts[part] = texts[part][:-1] + b", " + raw + b"}"
    attacked.holds(token(attacked.realm), under(attacked, *texts), MALFORMED[part])


@pytest.mark.parametrize("name", ["sub", "jti", "azp", "iss", "client_id"])
@pytest.mark.parametrize(
    "value", ["a\u0000b", "a\nb", "a\r\nSet-Cookie: x=y", "a\x1b[31m", "a\u202eb", "a\u2028b", "a\u200bb", "\ufeffa"], ids=repr
)  # fmt: skip
def test_a_name_with_an_invisible_character_is_refused(name: str, value: str) -> None:
    attacked = stack("RS256")
    changes = {name: value} if name != "client_id" else {"client_id": value, "azp": value}
    attacked.holds(token(attacked.realm), token(attacked.realm, **changes), Reason.MALFORMED_CLAIMS)
