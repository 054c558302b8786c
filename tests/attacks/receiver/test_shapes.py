"""Attacks with the wrong shape and size: lines 14 to 16 of the list."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from s2s_fastapi.decision import Reason
from tests.attacks.receiver.stack import MALFORMED, Break, claims, head, stack, token, under

# 14: shapes


@pytest.mark.parametrize(
    "document", ["[]", "[[]]", '"text"', '""', "1", "0", "1.5", "null", "true", "false", " ", "{} {}", "{}x", "{", "\x0b{}"]
)  # fmt: skip
@pytest.mark.parametrize("part", [0, 1], ids=["header", "payload"])
def test_header_and_payload_are_one_object_each(part: int, document: str) -> None:
    attacked = stack("RS256")
    texts = [json.dumps(head(attacked)), json.dumps(claims(attacked.realm))]
    texts[part] = document
    attacked.holds(token(attacked.realm), under(attacked, *texts), MALFORMED[part])


@pytest.mark.parametrize("wrap", [lambda text: f"[{text}]", lambda text: f'{{"claims": {text}}}', json.dumps])
def test_good_claims_in_another_shape_are_none(wrap: Callable[[str], str]) -> None:
    attacked = stack("RS256")
    broken = under(attacked, json.dumps(head(attacked)), wrap(json.dumps(claims(attacked.realm))))
    reason = Reason.WRONG_TYPE if wrap("{}").startswith("{") else Reason.MALFORMED_CLAIMS
    attacked.holds(token(attacked.realm), broken, reason)


@pytest.mark.parametrize(
    ("depth", "part", "reason"),
    [
        (33, 0, Reason.MALFORMED_TOKEN),
        (33, 1, Reason.MALFORMED_CLAIMS),
        (1200, 0, Reason.MALFORMED_TOKEN),
        (5000, 1, Reason.MALFORMED_CLAIMS),
        (100_000, 0, Reason.INVALID_REQUEST),
        (100_000, 1, Reason.INVALID_REQUEST),
    ],
)
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_depth_is_no_way_to_the_end_of_the_stack(depth: int, part: int, reason: Reason, brackets: str) -> None:
    attacked = stack("RS256")
    if brackets == "{}":
        depth = min(depth, 2000 if reason is Reason.MALFORMED_CLAIMS else depth)
        depth = 600 if depth == 1200 else depth
    inner = depth - 1
    value = "[" * inner + "]" * inner if brackets == "[]" else '{"":' * inner + "1" + "}" * inner
    texts = [json.dumps(head(attacked)), json.dumps(claims(attacked.realm))]
    texts[part] = f'{texts[part][:-1]}, "n": {value}}}'
    attacked.holds(token(attacked.realm), under(attacked, *texts), reason)


# 15: dates

DATES: list[Any] = [
    *("1800000300", "1800000300.0", "", "never", True, False, None, [], [1800000300], {}, {"$date": 1}, 0, -1, -1800000300),
    *(0.5, 1800000300.5, -0.0, 2**53, 2**63, 2**63 - 1, 2**64, 10**30, 1e300, -1e300),
]  # fmt: skip


@pytest.mark.parametrize("value", DATES, ids=lambda value: repr(value)[:24])
@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
def test_a_date_is_a_whole_number_of_seconds(name: str, value: Any) -> None:
    attacked = stack("RS256")
    good = token(attacked.realm)
    payload = {**claims(attacked.realm), name: value}
    if name == "nbf" and value in (0, -0.0) and not isinstance(value, bool):
        attacked.accepts(attacked.realm.sign(payload))  # as old servers of Keycloak write it
        return
    attacked.holds(good, attacked.realm.sign(payload), Reason.MALFORMED_CLAIMS)


@pytest.mark.parametrize("name", ["exp", "iat"])
def test_a_date_must_be_there(name: str) -> None:
    attacked = stack("RS256")
    attacked.holds(token(attacked.realm), token(attacked.realm, **{name: None}), Reason.MALFORMED_CLAIMS)


def test_a_date_may_be_a_float_without_a_fraction() -> None:
    attacked = stack("RS256")
    made = claims(attacked.realm)
    attacked.accepts(attacked.realm.sign({**made, "exp": float(made["exp"]), "iat": float(made["iat"])}))


# 16: separators and size


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        pytest.param(lambda h, p, s: "", Reason.INVALID_REQUEST, id="nothing"),
        pytest.param(lambda h, p, s: "a", Reason.MALFORMED_TOKEN, id="a letter"),
        pytest.param(lambda h, p, s: ".", Reason.MALFORMED_TOKEN, id="a dot"),
        pytest.param(lambda h, p, s: "..", Reason.MALFORMED_TOKEN, id="two dots"),
        pytest.param(lambda h, p, s: "...", Reason.MALFORMED_TOKEN, id="three dots"),
        pytest.param(lambda h, p, s: h, Reason.MALFORMED_TOKEN, id="no dot"),
        pytest.param(lambda h, p, s: f"{h}.{p}", Reason.MALFORMED_TOKEN, id="one dot"),
        pytest.param(lambda h, p, s: f"{h}.{p}.", Reason.MALFORMED_TOKEN, id="two dots and no signature"),
        pytest.param(lambda h, p, s: f"{h}..{s}", Reason.MALFORMED_TOKEN, id="no payload: a detached one"),
        pytest.param(lambda h, p, s: f".{p}.{s}", Reason.MALFORMED_TOKEN, id="no header"),
        pytest.param(lambda h, p, s: f"{h}.{p}.{s}.", Reason.MALFORMED_TOKEN, id="a dot behind"),
        pytest.param(lambda h, p, s: f".{h}.{p}.{s}", Reason.MALFORMED_TOKEN, id="a dot in front"),
        pytest.param(lambda h, p, s: f"{h}.{p}.{s}.{s}", Reason.MALFORMED_TOKEN, id="four parts"),
        pytest.param(lambda h, p, s: f"{h}.{p}.{s}.{s}.{s}", Reason.MALFORMED_TOKEN, id="five parts"),
        pytest.param(lambda h, p, s: f"{h}.{p}.{s}.{s}.{s}.{s}", Reason.MALFORMED_TOKEN, id="six parts"),
        pytest.param(lambda h, p, s: f"{h}.{p}.{s}~WyJzIl0~", Reason.MALFORMED_TOKEN, id="SD-JWT"),
        pytest.param(lambda h, p, s: f"{h}.{p}.{s}" * 2, Reason.MALFORMED_TOKEN, id="two tokens joined"),
        pytest.param(lambda h, p, s: f"v4.public.{p}{s}", Reason.MALFORMED_TOKEN, id="PASETO"),
        pytest.param(lambda h, p, s: "." * 16_384, Reason.MALFORMED_TOKEN, id="16 KB of dots"),
        pytest.param(lambda h, p, s: "." * 1_000_000, Reason.INVALID_REQUEST, id="a million dots"),
        pytest.param(lambda h, p, s: f"{h}.{p}.{s}" + "." * 1_000_000, Reason.INVALID_REQUEST, id="a million behind"),
        pytest.param(lambda h, p, s: f"{h}.{p}.{s}" + "A" * 10_000_000, Reason.INVALID_REQUEST, id="10 MB"),
        pytest.param(lambda h, p, s: f"{h}.{p}.{s}" + "=" * 10_000_000, Reason.INVALID_REQUEST, id="10 MB of padding"),
        pytest.param(lambda h, p, s: " " * 1_000_000 + f"{h}.{p}.{s}x.", Reason.MALFORMED_TOKEN, id="1 MB of spaces"),
    ],
)
def test_a_token_is_three_parts_of_at_most_16_kilobytes(shape: Break, reason: Reason) -> None:
    attacked = stack("RS256")
    good = token(attacked.realm)
    attacked.holds(good, shape(*good.split(".")), reason)


def test_16_kilobytes_are_read_and_one_byte_more_is_not() -> None:
    attacked = stack("RS256")
    made = claims(attacked.realm)
    sizes = {}
    for pad in range(11_600, 11_800):
        broken = attacked.realm.sign({**made, "x": "x" * pad})
        sizes[len(broken)] = broken
        if len(broken) > 16_384:
            break
    largest = max(size for size in sizes if size <= 16_384)
    attacked.holds(sizes[largest], sizes[max(sizes)], Reason.INVALID_REQUEST)


def test_a_header_of_4_kilobytes_is_read_and_a_longer_one_is_not() -> None:
    attacked = stack("RS256")
    made = {}
    for pad in range(2900, 3100):
        text = attacked.realm.sign(claims(attacked.realm), header={"x": "x" * pad})
        made[text.index(".")] = text
    largest = max(size for size in made if size <= 4096)
    attacked.holds(made[largest], made[min(size for size in made if size > 4096)], Reason.MALFORMED_TOKEN)


@pytest.mark.parametrize("sign", ["a", "-", ".", "=", "~", "a.", "a=", '"', "\\", "{", "[", " ", "\t", ",", "\xe9"])
def test_no_repeated_sign_makes_a_reader_go_back(sign: str) -> None:
    # Linear in its length by construction (see the comments beside the expressions): a megabyte ends at once or never.
    attacked = stack("RS256")
    response = attacked.bearer(sign * (1_000_000 // len(sign)) + "!")
    attacked.shows_nothing(response, Reason.INVALID_REQUEST)
