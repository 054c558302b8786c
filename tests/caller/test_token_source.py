"""One token for all who ask for the same: its life, its failures, its key."""

import asyncio
import json
import logging
import math
import pickle
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trio

from s2s_fastapi.backchannel.channel import BackChannelError, Reply
from s2s_fastapi.caller import token_source
from s2s_fastapi.caller.auth import ServiceTokenAuth
from s2s_fastapi.caller.shared_token import DEADLINE, SharedToken
from s2s_fastapi.caller.token_request import TokenKey
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.engine.steps import run
from s2s_fastapi.engine.workers import Workers
from s2s_fastapi.errors import AudienceNotGranted, ConfigurationError, S2SError, TokenRequestError
from s2s_fastapi.settings import KeycloakSettings
from tests.caller.fakes import (
    SECRET,
    Clock,
    Keycloak,
    Receiver,
    b64,
    jwt,
    refusal,
    reply,
    settings,
    wait_until_idle,
)
from tests.kit.forks import in_child, needs_fork

BOB = Wanted.of("bob", None)


@pytest.fixture
def source(keycloak: Keycloak, clock: Clock) -> TokenSource:
    return TokenSource(channel=keycloak, clock=clock)


@pytest.fixture
def shared(source: TokenSource) -> SharedToken:
    return source.token(settings(), BOB)


def failure(shared: SharedToken) -> S2SError:
    with pytest.raises(S2SError) as caught:
        shared.get()
    return caught.value


def test_the_request_is_the_one_of_the_client_credentials_grant(source: TokenSource, keycloak: Keycloak) -> None:
    source.token(settings(), Wanted.of("bob", ("z", "a"))).get()

    (request,) = keycloak.requests
    assert request.url == "http://keycloak:8080/realms/corp/protocol/openid-connect/token"
    assert request.form == {"grant_type": "client_credentials", "scope": "a z"}
    assert request.headers["Authorization"].startswith("Basic ")


def test_post_puts_the_client_into_the_form(source: TokenSource, keycloak: Keycloak) -> None:
    source.token(settings(client_auth="client_secret_post"), BOB).get()

    (request,) = keycloak.requests
    assert request.form == {
        "grant_type": "client_credentials",
        "client_id": "chat-app-service",
        "client_secret": SECRET,
    }
    assert "Authorization" not in request.headers


@pytest.mark.parametrize(
    ("life", "fresh", "dead"), [(300, 240, 290), (60, 42, 54), (20, 14, 18), (3, 2.1, 2.7), (3600, 3540, 3590)]
)
def test_a_token_is_renewed_ahead_of_its_end_and_never_used_after_it(  # noqa: PLR0917 - fixtures
    life: int, fresh: float, dead: float, shared: SharedToken, keycloak: Keycloak, clock: Clock
) -> None:
    keycloak.life = life
    first = shared.get()

    clock.now += 0.9 * fresh - 0.001  # the jitter takes at most a tenth
    assert shared.peek() is first

    clock.now = 1000 + dead - 0.001
    assert shared.peek() is None
    assert shared.get() is first  # stale: served, renewed in the background
    wait_until_idle()
    assert len(keycloak.requests) == 2
    assert shared.get() is not first

    clock.now += dead
    third = shared.get()
    assert (third.token_id, len(keycloak.requests)) == ("t3", 3)


@pytest.mark.parametrize("life", [1, 5, 20, 60, 300])
def test_a_short_life_makes_no_storm(life: int, shared: SharedToken, keycloak: Keycloak, clock: Clock) -> None:
    keycloak.life = life
    for _ in range(100):
        shared.get()
        wait_until_idle()
        clock.now += 0.1

    assert len(keycloak.requests) <= 10 / (life * 0.6) + 1


@pytest.mark.parametrize("life", [1, 2])
@pytest.mark.parametrize("step", [0.01, 0.1, 0.7])
def test_a_life_too_short_to_divide_is_used_whole_and_asked_for_once(
    life: int, step: float, shared: SharedToken, keycloak: Keycloak, clock: Clock
) -> None:
    keycloak.life = life
    for _ in range(1000):
        shared.get()
        wait_until_idle()
        assert len(keycloak.requests) <= math.ceil((clock.now - 1000) / life) + 1
        clock.now += step


def test_a_life_too_short_to_divide_ends_on_time(shared: SharedToken, keycloak: Keycloak, clock: Clock) -> None:
    keycloak.life = 1
    first = shared.get()
    clock.now = 1000.999
    assert shared.peek() is first
    clock.now = 1001.0
    assert shared.get() is not first


def test_an_outage_is_not_seen_while_the_token_is_usable(shared: SharedToken, keycloak: Keycloak, clock: Clock) -> None:
    first = shared.get()
    keycloak.always = BackChannelError("no complete answer within 10 s")
    clock.now += 241
    for _ in range(49):
        assert shared.get() is first
        wait_until_idle()
        clock.now += 1

    assert 2 <= len(keycloak.requests) <= 12  # one try in 5 s at most
    clock.now += 10
    assert "KEYCLOAK_URL" in str(failure(shared))
    keycloak.always = None
    clock.now += 6
    assert shared.get() is not first


def test_a_token_that_comes_after_its_end_is_an_error_and_no_loop(
    shared: SharedToken, keycloak: Keycloak, clock: Clock
) -> None:
    def slow(_: Any) -> Any:
        clock.now += 40
        return keycloak.grant(1)

    keycloak.life = 30
    keycloak.answers = [slow, slow]

    # Nobody takes 40 s but a process that stood still, so Keycloak is asked once more.
    assert "took longer" in str(failure(shared))
    assert len(keycloak.requests) == 2


def test_life_counts_from_before_the_request(shared: SharedToken, keycloak: Keycloak, clock: Clock) -> None:
    def slow(_: Any) -> Any:
        clock.now += 100
        return keycloak.grant(1)

    keycloak.answers = [slow]
    first = shared.get()
    clock.now = 1000 + 289
    assert shared.get() is first
    wait_until_idle()
    clock.now = 1000 + 291
    assert shared.get() is not first


REFUSALS = [
    (401, "unauthorized_client", "Invalid client or Invalid client credentials", "KEYCLOAK_CLIENT_SECRET", False, 30),
    (400, "unauthorized_client", "Invalid client or Invalid client credentials", "KEYCLOAK_CLIENT_SECRET", False, 30),
    (401, "unauthorized_client", "Client not enabled to retrieve service account", "Service account roles", False, 30),
    (
        401,
        "unauthorized_client",
        "Public client not allowed to retrieve service account",
        "Client authentication",
        False,
        30,
    ),
    (401, "invalid_client", "Invalid client or Invalid client credentials", "KEYCLOAK_CLIENT_ID", False, 30),
    (400, "invalid_client", "Bearer-only not allowed", "bearer-only", False, 30),
    (400, "invalid_scope", "Invalid scopes: nope", "Assign", False, 5),
    (401, "invalid_request", "User disabled", "user of the service account", False, 5),
    (403, "invalid_request", "HTTPS required", "https in KEYCLOAK_URL", False, 5),
    (403, "access_denied", "Realm not enabled", "Enable the realm corp", False, 5),
    (400, "invalid_request", "DPoP proof is missing", "Require DPoP bound tokens", False, 5),
    (400, "invalid_request", "Client Certification missing for MTLS HoK Token Binding", "Mutual TLS", False, 5),
    (404, "Realm does not exist", "", "KEYCLOAK_REALM", False, 5),
    (404, "Unable to find matching target resource method", "", "KEYCLOAK_AUTH_PATH", False, 5),
    (400, "missingNormalization", "", "double slashes", False, 5),
    (400, "policy_says_no", "not on Mondays", "not on Mondays", False, 5),
    (500, "unknown_error", "", "answered 500", True, 5),
]


@pytest.mark.parametrize(("status", "error", "description", "cure", "retryable", "seconds"), REFUSALS)
def test_a_refusal_says_what_to_change_and_is_remembered(  # noqa: PLR0917 - fixtures
    status: int,
    error: str,
    description: str,
    cure: str,
    retryable: bool,
    seconds: float,
    shared: SharedToken,
    keycloak: Keycloak,
    clock: Clock,
) -> None:
    keycloak.always = refusal(status, error, description)
    raised = failure(shared)

    assert isinstance(raised, TokenRequestError)
    assert cure in str(raised)
    assert (raised.error, raised.error_description, raised.http_status) == (error, description, status)
    assert raised.retryable is retryable

    clock.now += seconds - 0.001
    assert str(failure(shared)) == str(raised)
    assert len(keycloak.requests) == 1
    clock.now += 0.1 * seconds + 0.002
    failure(shared)
    assert len(keycloak.requests) == 2


def test_a_stray_auth_path_is_named_by_its_value(source: TokenSource, keycloak: Keycloak) -> None:
    keycloak.always = refusal(404, "Unable to find matching target resource method")

    assert "does not run under /auth" in str(failure(source.token(settings(auth_path="/auth"), BOB)))


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>welcome</html>", "HTML"),
        (200, b"", "empty"),
        (200, b"[]", "not an object"),
        (200, b'"token"', "not an object"),
        (200, b'{"access_token": "a", "access_token": "b"}', "duplicate"),
        (200, b"\xef\xbb\xbf{}", "byte order mark"),
        (200, "{}".encode("utf-16"), "not JSON"),
        (200, b"access_token=a&token_type=Bearer", "not JSON"),
        (200, b'{"error": "invalid_scope"}', "Assign"),
        (204, b"", "answered 204"),
        (302, b"", "Set KEYCLOAK_URL to the address that it redirects to"),
        (404, b"<html>default backend</html>", "does not point at a Keycloak"),
        (401, b"", "does not point at a Keycloak"),
        (502, b"<html>bad gateway</html>", "answered 502"),
        (400, b'{"errorMessage": "odd"}', "odd"),
        (400, b'{"error": 7, "error_description": ["x"]}', "answered 400"),
    ],
)
def test_an_answer_that_is_none_is_reported_in_a_sentence(
    status: int, body: bytes, words: str, shared: SharedToken, keycloak: Keycloak
) -> None:
    keycloak.always = reply(status, body)

    assert words in str(failure(shared))


def test_a_broken_answer_never_displaces_a_usable_token(shared: SharedToken, keycloak: Keycloak, clock: Clock) -> None:
    first = shared.get()
    keycloak.always = reply(200, {"access_token": ""})
    clock.now += 250
    shared.get()
    wait_until_idle()

    assert shared.get() is first


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("0", 1), ("99999999", 60), ("-5", 5), ("soon", 5), ("9" * 500, 5), ("Mon, 01 Jan 2001 00:00:00 GMT", 1), ("", 5),
     ("Fri, 01 Jan 2100 00:00:00 GMT", 60), ("Fri, 99 Zzz 9999 99:99:99", 5)],
)  # fmt: skip
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured_within_bounds(  # noqa: PLR0917 - fixtures
    text: str, seconds: float, status: int, shared: SharedToken, keycloak: Keycloak, clock: Clock
) -> None:
    keycloak.always = reply(status, b"", {"Retry-After": text})
    error = failure(shared)

    assert isinstance(error, TokenRequestError)
    assert error.retryable
    clock.now += seconds - 0.001
    failure(shared)
    assert len(keycloak.requests) == 1
    clock.now += 0.1 * seconds + 0.002
    failure(shared)
    assert len(keycloak.requests) == 2


def test_a_token_for_somebody_else_is_remembered_for_30_s(
    shared: SharedToken, keycloak: Keycloak, clock: Clock
) -> None:
    keycloak.aud = "account"
    for later in (0, 10, 19.9):
        clock.now += later
        assert isinstance(failure(shared), AudienceNotGranted)
    assert len(keycloak.requests) == 1

    keycloak.aud = "bob"
    clock.now += 4
    assert shared.get().token_id == "t2"


def test_connection_failures_name_the_setting(shared: SharedToken, keycloak: Keycloak) -> None:
    keycloak.always = BackChannelError("cannot connect to http://keycloak:8080: connection refused")
    error = failure(shared)

    assert "connection refused" in str(error)
    assert "KEYCLOAK_URL" in str(error)
    assert isinstance(error, TokenRequestError)
    assert error.retryable
    assert error.http_status == 0


@pytest.fixture
def in_use(keycloak: Keycloak, environment: object) -> Iterator[None]:
    with using(TokenSource(channel=keycloak)):
        yield


@pytest.mark.usefixtures("in_use")
@pytest.mark.parametrize("proxy", [None, "http://user:hunter2@proxy:3128"])
def test_a_proxy_of_the_environment_that_is_not_used_is_named_in_the_cure(
    proxy: str | None, keycloak: Keycloak, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("HTTP_PROXY", "http://user:hunter2@proxy")
    environment.setenv("NO_PROXY", "")
    if proxy is not None:
        environment.setenv("KEYCLOAK_PROXY", proxy)
    keycloak.always = BackChannelError("cannot connect to http://keycloak:8080: no route to host")
    with pytest.raises(TokenRequestError) as caught:
        ServiceTokenAuth().token()
    hint = "HTTP_PROXY is set, but it is not used: if Keycloak is reached through a proxy, set KEYCLOAK_PROXY"
    assert (hint in caught.value.cure) is (proxy is None)
    assert "hunter2" not in str(caught.value)


@pytest.mark.usefixtures("in_use")
@pytest.mark.parametrize("proxy", ["http://proxy:3128", "http://other:3128", "http://u:p@proxy:3128"])
def test_another_proxy_is_another_way_to_keycloak_and_another_token(
    proxy: str, environment: pytest.MonkeyPatch
) -> None:
    before = ServiceTokenAuth()
    direct = before.token()
    environment.setenv("KEYCLOAK_PROXY", proxy)
    assert ServiceTokenAuth().token() != direct
    assert before.token() == direct  # its settings were read before


def test_a_token_request_goes_through_the_proxy(bob: Receiver, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("KEYCLOAK_URL", "http://keycloak.invalid")
    environment.setenv("KEYCLOAK_PROXY", bob.url.replace("://", "://user:password@"))
    bob.always = 200, {}, json.dumps({"access_token": jwt(azp="x"), "token_type": "Bearer", "expires_in": 60}).encode()
    environment.setenv("KEYCLOAK_CLIENT_ID", "x")
    with using(TokenSource()):
        assert ServiceTokenAuth().token() == jwt(azp="x")
    assert bob.seen[0].path == "http://keycloak.invalid/realms/corp/protocol/openid-connect/token"


@pytest.mark.usefixtures("in_use")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("CLIENT_SECRET", "Correct PARTNERS_CLIENT_SECRET."),
        ("CLIENT_SECRET_FILE", "(PARTNERS_CLIENT_SECRET_FILE)"),
    ],
)
def test_a_cure_names_the_variables_as_these_settings_read_them(
    name: str, sentence: str, keycloak: Keycloak, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    value = str(tmp_path / "secret") if name.endswith("FILE") else SECRET
    for variable, text in {"URL": "http://sso", "REALM": "partners", "CLIENT_ID": "crm", name: value}.items():
        environment.setenv(f"PARTNERS_{variable}", text)
    keycloak.always = refusal(401, "unauthorized_client", "Invalid client or Invalid client credentials")
    with pytest.raises(TokenRequestError) as caught:
        ServiceTokenAuth(settings=KeycloakSettings.from_environment(prefix="PARTNERS_")).token()
    assert sentence in caught.value.cure
    assert "KEYCLOAK_" not in str(caught.value)


def test_an_untrusted_certificate_names_the_ca_file(shared: SharedToken, keycloak: Keycloak) -> None:
    keycloak.always = BackChannelError("cannot connect to x: its certificate is not trusted: unknown")

    assert "KEYCLOAK_CA_FILE" in str(failure(shared))


def test_a_rotated_secret_is_read_again_within_the_same_load(
    tmp_path: Path, source: TokenSource, keycloak: Keycloak
) -> None:
    file = tmp_path / "secret"
    file.write_text("old")

    def rotate(_: Any) -> Any:
        file.write_text("new")
        return refusal(401, "unauthorized_client", "Invalid client or Invalid client credentials")

    keycloak.answers = [rotate]
    token = source.token(
        settings(client_secret=None, client_secret_file=file, client_auth="client_secret_post"), BOB
    ).get()

    assert [request.form["client_secret"] for request in keycloak.requests] == ["old", "new"]
    assert token.token_id == "t2"


def test_a_secret_that_is_written_again_and_again_does_not_set_the_pace(
    tmp_path: Path, source: TokenSource, keycloak: Keycloak, clock: Clock
) -> None:
    file = tmp_path / "secret"
    file.write_text("old")
    keycloak.always = refusal(401, "unauthorized_client")
    shared = source.token(settings(client_secret=None, client_secret_file=file), BOB)
    for number in range(50):
        file.write_text("old" + " " * number)
        failure(shared)
    assert len(keycloak.requests) == 2  # the first, and the one that the first new file was worth

    clock.now += 5
    file.write_text("newer")
    failure(shared)
    assert len(keycloak.requests) == 3


def test_a_secret_that_is_a_word_of_keycloaks_leaves_the_cure_as_it_is(source: TokenSource, keycloak: Keycloak) -> None:
    keycloak.always = refusal(401, "unauthorized_client", "Invalid client or Invalid client credentials")
    error = failure(source.token(settings(client_secret="client"), BOB))

    assert isinstance(error, TokenRequestError)
    assert error.error == "unauthorized_client"
    assert error.cure.startswith("Correct KEYCLOAK_CLIENT_SECRET.")
    assert error.error_description == "(left out: it repeats the secret)"
    failure(source.token(settings(client_secret="client"), BOB))
    assert len(keycloak.requests) == 1


def test_a_secret_that_did_not_change_is_not_sent_twice(
    tmp_path: Path, source: TokenSource, keycloak: Keycloak
) -> None:
    file = tmp_path / "secret"
    file.write_text("old")
    keycloak.always = refusal(401, "unauthorized_client")
    failure(source.token(settings(client_secret=None, client_secret_file=file), BOB))

    assert len(keycloak.requests) == 1


def test_two_wrong_secrets_end_the_load(tmp_path: Path, source: TokenSource, keycloak: Keycloak) -> None:
    file = tmp_path / "secret"
    file.write_text("0")

    def rotate(_: Any) -> Any:
        file.write_text(str(len(keycloak.requests)))
        return refusal(401, "unauthorized_client")

    keycloak.answers = [rotate] * 9
    failure(source.token(settings(client_secret=None, client_secret_file=file), BOB))

    assert len(keycloak.requests) == 2


def test_a_new_secret_ends_the_30_s_at_once(tmp_path: Path, source: TokenSource, keycloak: Keycloak) -> None:
    file = tmp_path / "secret"
    file.write_text("wrong")
    shared = source.token(settings(client_secret=None, client_secret_file=file), BOB)
    keycloak.answers = [refusal(401, "unauthorized_client")]
    failure(shared)
    failure(shared)
    assert len(keycloak.requests) == 1

    file.write_text("right one")
    assert shared.get().token_id == "t2"


def test_a_secret_file_that_is_empty_for_a_moment_is_tried_again(
    tmp_path: Path, source: TokenSource, keycloak: Keycloak, clock: Clock
) -> None:
    file = tmp_path / "secret"
    file.write_text("")
    shared = source.token(settings(client_secret=None, client_secret_file=file), BOB)
    error = failure(shared)
    assert isinstance(error, ConfigurationError)
    assert "is empty" in str(error)
    assert not keycloak.requests

    file.write_text("there")
    clock.now += 6
    assert shared.get().value


LAGS = refusal(401, "unauthorized_client", "Invalid client or Invalid client credentials")


@pytest.mark.parametrize("life", [1, 2, 5, 10, 20, 60, 300, 3600])
@pytest.mark.parametrize("step", [0.37, 0.9])
def test_one_refusal_of_a_node_that_lags_costs_no_call(
    life: int, step: float, shared: SharedToken, keycloak: Keycloak, clock: Clock
) -> None:
    keycloak.life = life
    shared.get()
    keycloak.answers = [LAGS]
    step *= max(1.0, life / 60)
    while clock.now < 1000 + 3 * life:
        shared.get()
        wait_until_idle()
        clock.now += step

    assert not keycloak.answers
    assert len(keycloak.requests) <= 3 / 0.6 + 3


def test_credentials_that_worked_before_are_asked_again_after_5_s_and_those_that_are_refused_again_after_30(
    shared: SharedToken, keycloak: Keycloak, clock: Clock
) -> None:
    shared.get()
    keycloak.always = LAGS
    clock.now = began = 1240.0
    asked = [(0, 2), (4.999, 2), (5.6, 3), (10.7, 3), (35.5, 3), (38.7, 4)]  # up to a tenth more than 5 and 30 s
    for seconds, requests in asked:
        clock.now = began + seconds
        shared.get()
        wait_until_idle()
        assert len(keycloak.requests) == requests, seconds


def test_without_a_token_credentials_that_worked_before_are_asked_once_more_at_once_then_after_5_s_then_after_30(
    shared: SharedToken, keycloak: Keycloak, clock: Clock
) -> None:
    shared.get()
    keycloak.always = LAGS
    clock.now = began = 2000.0
    for seconds, requests in [(0, 3), (0, 3), (4.999, 3), (5.6, 4), (35.5, 4), (38.7, 5)]:
        clock.now = began + seconds
        error = failure(shared)
        assert len(keycloak.requests) == requests, seconds
        assert getattr(error, "retryable", None) == (requests == 3), (
            seconds
        )  # as long as Keycloak is asked again in 5 s


def test_a_token_ends_the_count_of_refusals(shared: SharedToken, keycloak: Keycloak, clock: Clock) -> None:
    for _ in range(5):
        assert shared.get().value
        clock.now += 1000
        keycloak.answers = [LAGS]


def test_a_secret_that_was_replaced_by_a_wrong_one_waits_30_s(
    tmp_path: Path, source: TokenSource, keycloak: Keycloak, clock: Clock
) -> None:
    file = tmp_path / "secret"
    file.write_text("right")
    shared = source.token(settings(client_secret=None, client_secret_file=file), BOB)
    shared.get()
    file.write_text("wrong one")
    keycloak.always = LAGS
    clock.now = 2000.0
    failure(shared)
    clock.now += 29.9
    failure(shared)
    assert len(keycloak.requests) == 2


def test_two_servers_that_hang_do_not_delay_a_third(keycloak: Keycloak) -> None:
    gate = threading.Event()

    class Hangs(Keycloak):
        def post_form(self, url: str, form: dict[str, str], headers: dict[str, str] | None = None) -> Reply:
            if "hangs" in url:
                gate.wait(10)
            return super().post_form(url, form, headers)

    source = TokenSource(channel=Hangs())
    hung = [
        source.token(settings(url=f"http://hangs-{server}", realm=f"realm-{realm}"), BOB)
        for server in range(2)
        for realm in range(10)
    ]
    for shared in hung:
        shared.start()
    asking = [thread for thread in threading.enumerate() if thread.name == "s2s_fastapi-tokens"]
    assert len(asking) == 2 * 4
    for realm in range(5):
        assert source.token(settings(realm=f"realm-{realm}"), BOB)._value.get(timeout=1.0).value
    gate.set()
    wait_until_idle()
    assert all(shared.peek() for shared in hung)


def test_renewal_is_a_compare_and_set_and_at_most_one_in_10_s(
    shared: SharedToken, keycloak: Keycloak, clock: Clock
) -> None:
    first = shared.get()
    assert run(shared.renewing(first)) is first  # too soon after the first request
    clock.now += 10.001
    second = run(shared.renewing(first))
    assert second is not first
    assert run(shared.renewing(first)) is second  # whoever was refused with the old one just takes the new one
    assert run(shared.renewing(second)) is second
    assert len(keycloak.requests) == 2


def test_a_failed_renewal_leaves_the_token(shared: SharedToken, keycloak: Keycloak, clock: Clock) -> None:
    first = shared.get()
    clock.now += 20
    keycloak.always = BackChannelError("no")
    with pytest.raises(TokenRequestError):
        run(shared.renewing(first))

    assert shared.get() is first


def differing(tmp_path: Path) -> list[tuple[Any, Wanted]]:
    file = tmp_path / "f"
    return [
        (settings(), BOB),
        (settings(issuer="http://elsewhere/realms/corp"), BOB),
        (settings(realm="corp2"), BOB),
        (settings(url="http://keycloak:8081"), BOB),
        (settings(client_id="another"), BOB),
        (settings(client_auth="client_secret_post"), BOB),
        (settings(client_secret="another"), BOB),
        (settings(client_secret=None, client_secret_file=file), BOB),
        (settings(client_secret=None, client_secret_file=tmp_path / "g"), BOB),
        (settings(ca_file=file), BOB),
        (settings(), Wanted.of("BOB", None)),
        (settings(), Wanted.of(None, None)),
        (settings(), Wanted.of(("bob", "charles"), None)),
        (settings(), Wanted.of("bob", "x")),
        (settings(), Wanted.of("bob", "X")),
        (settings(), Wanted.of("bob", ("x", "y"))),
        (settings(), Wanted.of(("bob", "x"), "y")),
        # What a joined key would confuse.
        (settings(), Wanted.of("bob,charles", None)),
        (settings(), Wanted.of("bob|x", None)),
        (settings(), Wanted.of(None, "bob")),
        (settings(client_id="a:b", client_secret="c"), BOB),
        (settings(client_id="a", client_secret="b:c"), BOB),
    ]


def test_what_differs_in_one_thing_never_shares(tmp_path: Path, source: TokenSource) -> None:
    tokens = {source.token(given, asked) for given, asked in differing(tmp_path)}

    assert len(tokens) == len(differing(tmp_path))


def test_equal_keys_share_whoever_asks(tmp_path: Path, source: TokenSource) -> None:
    for given, asked in differing(tmp_path):
        assert source.token(given, asked) is source.token(given.model_copy(), Wanted(asked.audiences, asked.scopes))
    assert source.token(settings(leeway=1.0), BOB) is source.token(settings(audience="x"), BOB)


def test_the_number_of_keys_is_bounded_and_the_longest_unused_goes_first(keycloak: Keycloak) -> None:
    keycloak.aud = ["a", "b", "c"]
    source = TokenSource(channel=keycloak, capacity=2)
    first, second = (source.token(settings(), Wanted.of(name, None)) for name in ("a", "b"))
    source.token(settings(), Wanted.of("a", None))
    source.token(settings(), Wanted.of("c", None))

    assert source.token(settings(), Wanted.of("a", None)) is first
    assert source.token(settings(), Wanted.of("b", None)) is not second
    assert second.get().value  # who holds it keeps it


def test_nothing_is_opened_before_a_token_is_wanted(keycloak: Keycloak, source: TokenSource) -> None:
    assert keycloak.opened == []
    source.token(settings(), BOB)
    assert keycloak.requests == []


def test_a_cold_burst_of_threads_and_tasks_makes_one_request(keycloak: Keycloak) -> None:
    keycloak.delay = 0.3
    shared = TokenSource(channel=keycloak).token(settings(), BOB)
    ready = threading.Barrier(4)
    found: list[Any] = []

    async def tasks(number: int) -> None:
        ready.wait()
        found.extend(await asyncio.gather(*(shared.aget() for _ in range(number))))

    async def trio_tasks() -> None:
        async def one() -> None:
            found.append(await shared.aget())

        ready.wait()
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(one)

    def threads() -> None:
        ready.wait()
        with ThreadPoolExecutor(200) as pool:
            found.extend(pool.map(lambda _: shared.get(), range(400)))

    running = [
        threading.Thread(target=asyncio.run, args=(tasks(250),)),
        threading.Thread(target=asyncio.run, args=(tasks(250),)),
        threading.Thread(target=trio.run, args=(trio_tasks,)),
        threading.Thread(target=threads),
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(20)

    assert len(found) == 1000
    assert len(set(found)) == 1
    assert len(keycloak.requests) == 1


def test_a_burst_larger_than_any_thread_pool_leaves_nobody_without_a_token(keycloak: Keycloak) -> None:
    keycloak.delay = 0.3
    shared = TokenSource(channel=keycloak).token(settings(), BOB)

    async def burst() -> list[Any]:
        return await asyncio.gather(*(shared.aget() for _ in range(2500)), return_exceptions=True)

    found = asyncio.run(burst())
    assert set(found) == {shared.peek()}
    assert len(keycloak.requests) == 1


def test_waiting_ends_after_5_s_and_the_late_answer_is_kept(keycloak: Keycloak) -> None:
    shared = TokenSource(channel=keycloak).token(settings(), BOB)
    entered, late = threading.Event(), threading.Event()

    def answer(_: Any) -> Reply:
        entered.set()
        late.wait(60)
        return keycloak.grant(1)

    keycloak.answers = [answer]
    shared.start()
    assert entered.wait(60)
    with pytest.raises(TokenRequestError, match=r"no answer within 0\.05 s.*KEYCLOAK_URL"):
        shared._value.get(timeout=0.05)
    late.set()
    wait_until_idle()

    assert shared.peek() is not None


def test_what_tls_trusts_is_read_once_and_not_for_each_key(tmp_path: Path) -> None:
    channel = token_source._channel(settings())

    assert token_source._channel(settings(client_id="another")) is channel
    assert token_source._channel(settings(ca_file=tmp_path / "ca.pem")) is not channel


def test_an_exchange_that_hangs_keeps_a_thread_no_longer_than_its_first_waiter_waits() -> None:
    assert token_source._channel(settings())._timeout == DEADLINE == 5  # type: ignore[attr-defined]


def test_who_waits_behind_other_exchanges_is_reported_so_and_not_to_look_at_its_own_settings(
    keycloak: Keycloak,
) -> None:
    entered, gate = threading.Event(), threading.Event()

    def hang(_: Any) -> Reply:
        entered.set()
        gate.wait(60)
        return keycloak.grant(1)

    keycloak.answers = [hang]
    workers = Workers("test", threads=1)
    source = TokenSource(channel=keycloak, workers=lambda _: workers)
    hung, queued = (source.token(settings(realm=realm), BOB) for realm in ("one", "two"))
    hung.start()
    assert entered.wait(60)
    with pytest.raises(TokenRequestError, match=r"no answer within 0\.05 s.*KEYCLOAK_URL"):
        hung._value.get(timeout=0.05)
    with pytest.raises(TokenRequestError, match="busy with other exchanges") as caught:
        queued._value.get(timeout=0.05)
    gate.set()

    assert "KEYCLOAK_URL" not in str(caught.value)
    assert queued.get() is not hung.get()


@needs_fork
def test_a_forked_child_has_the_token_and_can_ask_for_another(
    keycloak: Keycloak, clock: Clock, source: TokenSource
) -> None:
    shared = source.token(settings(), BOB)
    first = shared.get()
    wait_until_idle()

    def child() -> None:
        clock.now += 1000
        assert shared.get() is not first
        assert source.token(settings(), Wanted.of("charles", None)) is not shared

    assert in_child(child) == 0


def everything_of(error: BaseException) -> str:
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(shown.format()) + repr(error) + str(vars(error)) + repr(pickle.dumps(error))


@pytest.mark.parametrize("client_auth", ["client_secret_basic", "client_secret_post"])
@pytest.mark.parametrize(
    "broken",
    [
        refusal(401, "unauthorized_client", f"no such secret: {SECRET}"),
        refusal(400, SECRET, SECRET),
        reply(500, f"<b>{SECRET}</b>".encode()),
        reply(200, {"access_token": f"{SECRET} x", "token_type": "Bearer"}),
        reply(200, {"access_token": jwt(aud="account"), "token_type": SECRET}),
        BackChannelError("no"),
    ],
)
def test_neither_secret_nor_token_is_in_any_error_or_log(
    broken: Any, client_auth: str, source: TokenSource, keycloak: Keycloak, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    keycloak.always = broken
    error = failure(source.token(settings(client_auth=client_auth), BOB))

    assert SECRET not in everything_of(error)
    assert SECRET not in caplog.text + repr([vars(record) for record in caplog.records])


def test_an_unexpected_exception_is_reported_by_its_type_alone(source: TokenSource, keycloak: Keycloak) -> None:
    def burst(_: Any) -> Any:
        raise KeyError(SECRET)

    keycloak.answers = [burst]
    error = failure(source.token(settings(), BOB))

    assert "KeyError" in str(error)
    assert SECRET not in everything_of(error)


def test_the_refused_token_itself_is_nowhere_in_the_error(shared: SharedToken, keycloak: Keycloak) -> None:
    keycloak.aud = "account"
    error = failure(shared)

    assert isinstance(error, AudienceNotGranted)
    assert error.claims["aud"] == "account"
    assert jwt(aud="account").split(".")[1][:20] not in everything_of(error)
    assert isinstance(pickle.loads(pickle.dumps(error)), AudienceNotGranted)  # noqa: S301 - our own


def test_each_waiter_raises_an_error_of_its_own(shared: SharedToken, keycloak: Keycloak) -> None:
    keycloak.always = BackChannelError("no")
    one, two = failure(shared), failure(shared)

    assert one is not two
    assert str(one) == str(two)
    assert one.__cause__ is one.__context__ is None


def test_keys_and_sources_show_no_secret(source: TokenSource) -> None:
    key = TokenKey.of(settings(), BOB)

    assert SECRET not in f"{key!r} {key} {source!r} {source.token(settings(), BOB)!r}"


def test_each_failed_load_is_logged_once_with_its_cure(
    shared: SharedToken, keycloak: Keycloak, caplog: pytest.LogCaptureFixture
) -> None:
    keycloak.always = refusal(404, "Realm does not exist")
    for _ in range(5):
        failure(shared)
    wait_until_idle()

    (record,) = [record for record in caplog.records if record.name == "s2s_fastapi.caller"]
    assert record.levelno == logging.WARNING
    assert "KEYCLOAK_REALM" in record.getMessage()


def test_a_scope_that_does_not_show_is_a_warning_once(
    source: TokenSource, keycloak: Keycloak, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    keycloak.scope = "profile seen"
    shared = source.token(settings(), Wanted.of("bob", ("seen", "hidden")))
    for _ in range(3):
        assert shared.get().value
        clock.now += 1000
    wait_until_idle()

    (record,) = caplog.records
    assert "hidden" in record.getMessage()
    assert "seen," not in record.getMessage()


def test_another_issuer_than_the_settings_say_is_a_warning(
    shared: SharedToken, keycloak: Keycloak, caplog: pytest.LogCaptureFixture
) -> None:
    keycloak.claims = {"iss": "http://localhost:8080/realms/corp"}
    shared.get()
    wait_until_idle()

    assert "KEYCLOAK_PUBLIC_URL" in caplog.text


class Frames(logging.Handler):
    """What an error tracker makes of a warning: the locals of all frames of this package it was written in."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        frame = sys._getframe()
        while frame.f_back is not None:
            frame = frame.f_back
            if "s2s_fastapi" in frame.f_globals["__name__"]:
                self.shown.append(f"{frame.f_code.co_name}: {frame.f_locals!r}")


@pytest.mark.parametrize("client_auth", ["client_secret_basic", "client_secret_post"])
@pytest.mark.parametrize(
    "answer", [None, refusal(401, "invalid_client"), reply(200, {"access_token": jwt(aud="account")})]
)
def test_no_frame_that_logs_has_token_or_secret_in_a_local(
    answer: Any, client_auth: str, source: TokenSource, keycloak: Keycloak
) -> None:
    keycloak.always, keycloak.claims = answer, {"iss": "another"}
    frames, log = Frames(), logging.getLogger("s2s_fastapi")
    log.addHandler(frames)
    try:
        source.token(settings(client_auth=client_auth), Wanted.of("bob", "unseen"))._value.start()
        wait_until_idle()
    finally:
        log.removeHandler(frames)

    assert any(shown.startswith("deliver: ") for shown in frames.shown)
    assert SECRET not in str(frames.shown)
    assert b64("signature") not in str(frames.shown)


def test_a_load_in_front_carries_the_span_and_nothing_else(shared: SharedToken, keycloak: Keycloak) -> None:
    from contextvars import ContextVar, copy_context

    from opentelemetry import baggage, context, trace

    theirs: ContextVar[str] = ContextVar("theirs", default="")
    theirs.set("alice")
    seen: dict[str, Any] = {}

    def look(_: Any) -> Any:
        seen.update(
            theirs=theirs.get(),
            baggage=baggage.get_baggage("user"),
            trace=trace.get_current_span().get_span_context().trace_id,
            names={variable.name for variable in copy_context()} - {"current_context"},  # OpenTelemetry's own
        )
        return keycloak.grant(1)

    keycloak.answers = [look]
    span = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
    attached = context.attach(baggage.set_baggage("user", "alice", trace.set_span_in_context(span)))
    try:
        shared.get()
    finally:
        context.detach(attached)

    ours = {"s2s_fastapi.cause", "s2s_fastapi.links", "s2s_fastapi.reports"}
    assert seen == {"theirs": "", "baggage": None, "trace": 1, "names": ours}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CA_FILE", "/nowhere/ca.pem"),
        ("CLIENT_KEY_FILE", "/nowhere/key.pem"),
        ("CLIENT_SECRET_FILE", "/nowhere/secret"),
        ("PROXY", "http://127.0.0.1:1"),
        ("URL", "http://127.0.0.1:1"),
    ],
)
def test_a_failure_names_the_variables_that_the_settings_were_read_from(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"URL": "https://127.0.0.1:1", "REALM": "partners", "CLIENT_ID": "crm", variable: value}
    if variable == "CLIENT_KEY_FILE":
        given["CLIENT_AUTH"] = "private_key_jwt"
    elif variable != "CLIENT_SECRET_FILE":
        given["CLIENT_SECRET"] = SECRET
    for name, text in given.items():
        monkeypatch.setenv(f"PARTNERS_{name}", text)
    partner = KeycloakSettings.from_environment(prefix="PARTNERS_")
    said = str(failure(TokenSource().token(partner.model_copy(update={"leeway": 5}), BOB)))
    assert f"PARTNERS_{variable}" in said
    assert "KEYCLOAK_" not in said
    wait_until_idle()
    assert "KEYCLOAK_" not in caplog.text
