"""What goes wrong on purpose looks the same in process and on a socket."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import httpx
import pytest

from s2s_fastapi.backchannel.channel import BackChannel, BackChannelError, Reply
from s2s_fastapi.testing import EmbeddedIssuer, Fault, faults
from s2s_fastapi.testing.faults import (
    LEFT_OUT,
    answering,
    disconnecting,
    dripping,
    endless,
    html,
    huge,
    redirecting,
    refusing,
    rewritten,
    slow,
    typed,
    with_members,
    zipped,
)
from tests.testing.asking import CERTS, GRANT, TOKEN, body, get, post

Channels = Callable[[float], BackChannel]
"""Makes a channel with so many seconds of patience."""
Way = Callable[[EmbeddedIssuer], AbstractContextManager[Channels]]
_PATIENT = 20.0


@contextmanager
def in_process(issuer: EmbeddedIssuer) -> Iterator[Channels]:
    yield lambda seconds: BackChannel(transport=issuer.transport, timeout=seconds)


@contextmanager
def on_a_socket(issuer: EmbeddedIssuer) -> Iterator[Channels]:
    with issuer.serving():
        yield lambda seconds: BackChannel(timeout=seconds)


ways = pytest.mark.parametrize("way", [in_process, on_a_socket])


def ask(channel: BackChannel, issuer: EmbeddedIssuer) -> Reply:
    return channel.get(f"{issuer.url}{CERTS}")


@ways
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (slow(30), "no complete answer within"),
        (dripping(0.2), "no complete answer within"),
        (disconnecting(), "not HTTP, or the connection was closed too early"),
        (disconnecting(within=True), "not HTTP, or the connection was closed too early"),
        (disconnecting(within=True) & dripping(0.0001), "not HTTP, or the connection was closed too early"),
        (huge(), "larger than 262144 bytes"),
        (endless(), "larger than 262144 bytes"),
        (zipped(), "compressed"),
    ],
)
def test_our_back_channel_meets_a_fault_and_says_it(own: EmbeddedIssuer, way: Way, fault: Fault, sentence: str) -> None:
    get(own, CERTS)  # keys take their time to be made
    own.faults.add("certs", fault)
    with way(own) as channel:
        began = time.monotonic()
        with pytest.raises(BackChannelError, match=sentence):
            ask(channel(0.5 if "within" in sentence else _PATIENT), own)
        assert time.monotonic() - began < 10
        assert ask(channel(_PATIENT), own).status == 200


@ways
def test_statuses_pages_and_types_arrive_as_they_were_scripted(own: EmbeddedIssuer, way: Way) -> None:
    own.faults.add("certs", answering(503, "busy", headers={"Retry-After": "7"}))
    own.faults.add("certs", html(502))
    own.faults.add("certs", typed("text/plain"))
    own.faults.add("certs", answering(200, b"{not json"))
    with way(own) as channel:
        busy, page, plain, broken, true = (ask(channel(_PATIENT), own) for _ in range(5))
    assert (busy.status, busy.body, busy.headers["Retry-After"]) == (503, b"busy", "7")
    assert (page.status, page.headers["Content-Type"]) == (502, "text/html; charset=utf-8")
    with pytest.raises(BackChannelError, match="HTML"):
        page.json_object()
    assert (plain.status, plain.headers.get_list("Content-Type")) == (200, ["text/plain"])
    assert "keys" in plain.json_object()
    with pytest.raises(BackChannelError, match="not JSON"):
        broken.json_object()
    assert true.headers["Content-Type"] == "application/json"


def test_faults_are_taken_in_order_as_often_as_queued_and_only_at_their_endpoint(own: EmbeddedIssuer) -> None:
    own.faults.add("token", faults.NONE, times=2)
    own.faults.add("token", answering(503), times=3)
    own.faults.add("token", answering(500))
    assert get(own, CERTS).status == 200
    assert [post(own, GRANT).status for _ in range(7)] == [200, 200, 503, 503, 503, 500, 200]


def test_a_fault_may_stay_until_it_is_cleared(own: EmbeddedIssuer) -> None:
    own.faults.add("certs", answering(503), times=None)
    assert {get(own, CERTS).status for _ in range(20)} == {503}
    own.faults.clear()
    assert get(own, CERTS).status == 200


def test_joined_faults_do_both_and_the_later_one_wins(own: EmbeddedIssuer) -> None:
    own.faults.add("token", slow(2) & answering(503, "no") & slow(1))
    answer = post(own, GRANT)
    assert (answer.status, answer.body, answer.delivery.delay) == (503, b"no", 1)


def test_a_fault_that_says_nothing_about_the_answer_leaves_it_true(own: EmbeddedIssuer) -> None:
    own.faults.add("token", slow(1))
    assert body(post(own, GRANT))["token_type"] == "Bearer"


def test_threads_share_a_queue_without_losing_or_doubling_a_fault(own: EmbeddedIssuer) -> None:
    own.faults.add("token", answering(503), times=500)
    seen: list[int] = []

    def ask_much() -> None:
        seen.extend(post(own, {"grant_type": "none"}).status for _ in range(100))

    threads = [threading.Thread(target=ask_much) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [400] * 500 + [503] * 500


@pytest.mark.parametrize("times", [0, -1])
def test_a_fault_that_never_comes_is_refused(own: EmbeddedIssuer, times: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        own.faults.add("token", answering(503), times=times)


def test_a_fault_for_nowhere_is_refused(own: EmbeddedIssuer) -> None:
    with pytest.raises(ValueError, match="no endpoint 'jwks': take one of token, certs"):
        own.faults.add("jwks", answering(503))  # type: ignore[arg-type]


def test_a_delay_shorter_than_the_clients_patience_only_delays(own: EmbeddedIssuer) -> None:
    own.faults.add("token", slow(0.05))
    with httpx.Client(transport=own.transport(), timeout=5) as client:
        began = time.monotonic()
        assert client.post(f"{own.url}{TOKEN}", data=GRANT).status_code == 200
        assert time.monotonic() - began >= 0.05


def test_stopping_the_server_does_not_wait_for_a_delayed_answer(own: EmbeddedIssuer) -> None:
    own.faults.add("certs", slow(60))
    before = threading.active_count()
    failed: list[type[Exception]] = []

    def wait() -> None:
        try:
            httpx.get(f"{url}{CERTS}", timeout=60, trust_env=False)
        except httpx.TransportError as error:
            failed.append(type(error))

    with own.serving() as server:
        url = server.url
        thread = threading.Thread(target=wait)
        thread.start()
        while not own.requests("certs"):
            time.sleep(0.01)
    thread.join(5)
    assert len(failed) == 1
    deadline = time.monotonic() + 5
    while threading.active_count() > before:
        assert time.monotonic() < deadline, "a thread of the server still waits"
        time.sleep(0.01)


@ways
def test_members_of_the_true_answer_are_changed_left_out_or_null_and_the_others_stay(
    own: EmbeddedIssuer, way: Way
) -> None:
    own.faults.add("token", with_members(expires_in=None, token_type=LEFT_OUT, extra=[1]))
    with way(own) as channel:
        answer = channel(_PATIENT).post_form(f"{own.url}{TOKEN}", GRANT).json_object()
        true = channel(_PATIENT).post_form(f"{own.url}{TOKEN}", GRANT).json_object()

    assert (answer["expires_in"], answer["extra"], "token_type" in answer) == (None, [1], False)
    assert answer["access_token"].count(".") == 2
    assert set(true) - set(answer) == {"token_type"}


@ways
def test_refusals_redirects_and_bodies_that_are_written_anew_arrive(own: EmbeddedIssuer, way: Way) -> None:
    own.faults.add("token", refusing(401, "invalid_client", "no"))
    own.faults.add("token", redirecting("http://elsewhere.example/", 302))
    own.faults.add("token", rewritten(lambda body: body[:7]) & slow(0.01))
    with way(own) as channel:
        refused, moved, cut = (channel(_PATIENT).post_form(f"{own.url}{TOKEN}", GRANT) for _ in range(3))

    assert (refused.status, refused.json_object()) == (401, {"error": "invalid_client", "error_description": "no"})
    assert refused.headers["Content-Type"] == "application/json"
    assert (moved.status, moved.headers["Location"]) == (302, "http://elsewhere.example/")
    assert (cut.status, cut.body) == (200, b'{"acces')


def test_no_repr_of_a_fault_shows_what_it_sends() -> None:
    assert "s3cret" not in repr(with_members(access_token="s3cret"))
    assert "s3cret" not in repr(answering(200, "s3cret"))
    assert repr(LEFT_OUT) == "LEFT_OUT"
