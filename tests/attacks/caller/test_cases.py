"""The cases of docs/conformance/caller.json that are data, tried on our caller, each beside a good answer that is used."""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import httpx
import pytest

from s2s_fastapi import ServiceTokenAuth, TokenRequestError, TokenWithheld, service_client
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.faults import answering, with_members
from tests.attacks.caller.stack import WAYS, asked
from tests.caller.fakes import Clock, Receiver
from tests.test_docs import DOCS

pytestmark = pytest.mark.usefixtures("source")

CASES = json.loads((DOCS / "conformance/caller.json").read_text("utf-8"))["cases"]
VARIANTS = [
    pytest.param(case, value, id=f"{case['id']}.{variant}" if variant else case["id"])
    for case in CASES
    if "given" in case
    for variant, value in (case.get("each") or {"": None}).items()
]


def filled(value: Any, variables: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {name: filled(each, variables) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each, variables) for each in value]
    if not isinstance(value, str):
        return value
    if (whole := re.fullmatch(r"\$\{(\w+)\}", value)) and not isinstance(variables[whole[1]], str):
        return variables[whole[1]]
    return re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], value)


def with_claims(token: str, claims: dict[str, Any]) -> str:
    """Return a token with other claims. Its signature is wrong, which a caller does not check."""
    header, payload, signature = token.split(".")
    read = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    changed = urlsafe_b64encode(json.dumps({**read, **claims}).encode()).rstrip(b"=").decode()
    return f"{header}.{changed}.{signature}"


@pytest.mark.parametrize(("case", "value"), VARIANTS)
def test_a_case_of_the_data_costs_nobody_a_token(
    case: dict[str, Any], value: Any, *, issuer: EmbeddedIssuer, bob: Receiver, charles: Receiver, clock: Clock
) -> None:
    token = ServiceTokenAuth(audience="receiver").token()
    port = bob.url.rpartition(":")[2]
    variables = {
        "token": token,
        "port": port,
        "another_port": str(int(port) ^ 1),
        "another_origin": charles.url,
    }
    given = filled(case["given"], {**variables, "each": filled(value, variables)})
    clock.now += 400  # that token is over
    issuer.requests.clear()

    held: dict[str, Any] = {
        "use no token": uses_no_token,
        "send nothing": sends_nothing,
        "show no token to the other origin": shows_no_token,
        "send once": sends(1),
        "send twice": sends(2),
    }
    held[case["must"]](given, token=token, issuer=issuer, bob=bob, charles=charles, clock=clock)


def uses_no_token(
    given: Any, *, token: str, issuer: EmbeddedIssuer, bob: Receiver, charles: Receiver, clock: Clock
) -> None:
    if "token_answer" in given:
        answer = given["token_answer"]
        fault = answering(answer["status"], answer["body"], headers=answer.get("headers"))
    elif "token_members" in given:
        fault = with_members(**given["token_members"])
    else:
        fault = with_members(access_token=with_claims(token, given["token_claims"]))
    issuer.faults.add("token", fault)
    auth = ServiceTokenAuth(bob.url, audience="receiver")

    with pytest.raises(TokenRequestError):
        WAYS["httpx"](auth, "GET", bob.url)

    assert (bob.seen, charles.seen, len(asked(issuer))) == ([], [], 1)
    clock.now += 61
    assert WAYS["httpx"](auth, "GET", bob.url).status_code == 200, "the same caller uses a good answer"


def sends_nothing(
    given: Any, *, token: str, issuer: EmbeddedIssuer, bob: Receiver, charles: Receiver, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url, audience="receiver")

    with pytest.raises((TokenWithheld, httpx.InvalidURL)):
        WAYS["httpx"](auth, "GET", given["url"])

    assert (bob.seen, len(asked(issuer))) == ([], 0)
    assert WAYS["httpx"](auth, "GET", f"{bob.url}/").status_code == 200


def shows_no_token(
    given: Any, *, token: str, issuer: EmbeddedIssuer, bob: Receiver, charles: Receiver, clock: Clock
) -> None:
    bob.answers = [(given["answer"]["status"], given["answer"]["headers"], b"")]

    with service_client(bob.url, audience="receiver", follow_redirects=True) as client:
        assert client.get("/").status_code == 200

    assert (len(bob.tokens), charles.tokens) == (1, [None])
    assert bob.tokens != [None]


def sends(times: int) -> Any:
    def held(given: Any, *, token: str, issuer: EmbeddedIssuer, bob: Receiver, charles: Receiver, clock: Clock) -> None:
        auth = ServiceTokenAuth(bob.url, audience="receiver")
        auth.token()
        clock.now += 11
        answer = given["answer"]
        bob.always = (answer["status"], {name: text for name, text in answer["headers"].items() if text}, b"")

        assert WAYS["httpx"](auth, "GET", bob.url).status_code == answer["status"]

        assert (len(bob.seen), len(asked(issuer))) == (times, times)
        assert len(set(bob.tokens)) == times

    return held
