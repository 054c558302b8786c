"""All apps and verifiers of a process that reach one realm in one way share its keys."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio
from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

from s2s_fastapi import AuthenticationError, KeycloakSettings, KeysUnavailable, ServiceAuthMiddleware, require_service
from s2s_fastapi.readiness import auth_ready, health
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.faults import answering, slow
from s2s_fastapi.verifier.keys import KeySource, SharedSources
from s2s_fastapi.verifier.token_verifier import TokenVerifier
from tests.kit.forks import in_child, needs_fork
from tests.kit.realm import Clock
from tests.testing.asking import document

RETRY = 6.0
"""Seconds: the longest rest after a failure."""


@pytest.fixture(scope="module")
def served() -> Iterator[EmbeddedIssuer]:
    issuer = EmbeddedIssuer(document(), document("other"))
    with issuer.serving():
        yield issuer


@pytest.fixture
def issuer(served: EmbeddedIssuer) -> EmbeddedIssuer:
    """Return the issuer as new."""
    served.faults.clear()
    served.requests.clear()
    served.set_not_before("corp", 0)
    return served


def given(issuer: EmbeddedIssuer, **changes: Any) -> KeycloakSettings:
    return KeycloakSettings(**{"url": issuer.url, "realm": "corp", "client_id": "receiver"} | changes)


def fetches(issuer: EmbeddedIssuer) -> int:
    return len(issuer.requests("certs"))


def guarded(settings: KeycloakSettings, **options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware, settings=settings, public_paths=["/ready"], **options)
    app.add_route("/ready", auth_ready)
    app.add_api_route("/", lambda: "let in", dependencies=[Depends(require_service())])
    return app


# One load


def test_a_hundred_verifiers_that_ask_at_once_make_one_load_and_none_fails(issuer: EmbeddedIssuer) -> None:
    issuer.faults.add("certs", slow(0.1), times=None)
    token = issuer.service_token("corp", "caller")
    verifiers = [TokenVerifier(given(issuer)) for _ in range(100)]

    async def all_at_once() -> list[str]:
        return [found.client_id for found in await asyncio.gather(*(one.averify(token) for one in verifiers))]

    assert asyncio.run(all_at_once()) == ["caller"] * 100
    assert fetches(issuer) == 1


def test_settings_with_another_prefix_have_keys_of_their_own_because_their_sentences_differ(
    issuer: EmbeddedIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"URL": issuer.url, "REALM": "corp"}.items():
        monkeypatch.setenv(f"PARTNERS_{name}", value)
    partners = KeycloakSettings.from_environment(prefix="PARTNERS_")
    source, theirs = KeySource.of(given(issuer)), KeySource.of(partners)
    assert theirs is not source
    assert (KeySource.of(given(issuer)), KeySource.of(partners)) == (source, theirs)


def test_threads_asyncio_trio_and_apps_share_one_load(issuer: EmbeddedIssuer) -> None:
    issuer.faults.add("certs", slow(0.05), times=None)
    token = issuer.service_token("corp", "caller")

    def in_trio() -> str:
        return trio.run(TokenVerifier(given(issuer)).averify, token).client_id

    def in_asyncio() -> str:
        return asyncio.run(TokenVerifier(given(issuer)).averify(token)).client_id

    def plain() -> str:
        return TokenVerifier(given(issuer)).verify(token).client_id

    def app() -> str:
        with TestClient(guarded(given(issuer))) as client:
            assert client.get("/", headers={"Authorization": f"Bearer {token}"}).json() == "let in"
        return "caller"

    ways: list[Callable[[], str]] = [in_trio, in_asyncio, plain, app] * 4
    with ThreadPoolExecutor(len(ways)) as pool:
        assert [future.result() for future in [pool.submit(way) for way in ways]] == ["caller"] * len(ways)
    assert fetches(issuer) == 1


def test_threads_that_ask_for_a_source_at_once_get_the_same(issuer: EmbeddedIssuer) -> None:
    with ThreadPoolExecutor(16) as pool:
        sources = list(pool.map(lambda _: KeySource.of(given(issuer)), range(200)))
    assert len(set(map(id, sources))) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "somebody-else"},
        {"audience": "another"},
        {"client_secret": "of-somebody-else"},
        {"leeway": 5},
        {"public_url": "{url}"},
    ],
    ids=str,
)
def test_what_does_not_change_the_keys_shares_them(issuer: EmbeddedIssuer, changes: dict[str, Any]) -> None:
    changed = {name: issuer.url if value == "{url}" else value for name, value in changes.items()}
    source = KeySource.of(given(issuer))
    assert KeySource.of(given(issuer, **changed)) is source


def test_a_url_that_is_written_in_another_way_shares_too(issuer: EmbeddedIssuer) -> None:
    source = KeySource.of(given(issuer))
    assert KeySource.of(given(issuer, url=f"{issuer.url}/")) is source


@pytest.mark.parametrize(
    "changes",
    [
        {"realm": "other"},
        {"auth_path": "/auth"},
        {"url": "http://127.0.0.1:1", "public_url": "http://127.0.0.1:1"},
        {"public_url": "http://127.0.0.1:1"},
        {"ca_file": "/nowhere/ca.pem"},
        {"proxy": "http://127.0.0.1:1"},
        {"proxy": "http://u:one@127.0.0.1:1"},
        {"proxy": "http://u:two@127.0.0.1:1"},
    ],
    ids=" ".join,
)
def test_another_realm_or_way_to_it_has_keys_of_its_own(issuer: EmbeddedIssuer, changes: dict[str, Any]) -> None:
    others = [given(issuer), given(issuer, proxy="http://u:three@127.0.0.1:1")]
    held = [KeySource.of(settings) for settings in others]
    assert KeySource.of(given(issuer, **changes)) not in held


def test_whoever_gives_a_transport_has_keys_of_its_own(issuer: EmbeddedIssuer) -> None:
    source = KeySource.of(given(issuer))
    mine, again = (KeySource.of(given(issuer), issuer.transport) for _ in range(2))
    assert len({id(source), id(mine), id(again)}) == 3
    assert mine.get().keys
    assert source.state().loads == 0


# Each app as before


def test_an_app_that_ends_leaves_the_keys_to_the_other(issuer: EmbeddedIssuer) -> None:
    token = {"Authorization": f"Bearer {issuer.service_token('corp', 'caller')}"}
    with TestClient(guarded(given(issuer))) as one:
        with TestClient(guarded(given(issuer))) as two:
            assert two.get("/", headers=token).status_code == 200
        assert one.get("/", headers=token).status_code == 200
    assert fetches(issuer) == 1


def test_health_and_readiness_of_each_app_tell_of_its_own_realm(issuer: EmbeddedIssuer) -> None:
    issuer.faults.add("certs", answering(503))  # for the first who asks
    down, up = guarded(given(issuer), warm_up=False), guarded(given(issuer, realm="other"), warm_up=False)
    beside = guarded(given(issuer), warm_up=False)
    late = guarded(given(issuer), warm_up=False)
    with TestClient(down) as one, TestClient(up) as two, TestClient(beside) as three:
        assert [client.get("/ready").status_code for client in (one, two, three)] == [503, 200, 503]
        assert [health(app).ready for app in (down, up, beside)] == [False, True, False]
        first, second = health(down).keys, health(beside).keys
        assert first is not None
        assert second is not None
        assert (first.url, first.last_error) == (second.url, second.last_error)
        assert "503" in (first.last_error or "")
        assert health(late).problem is not None  # that others have keys does not start it
        assert health(late).keys is None
    assert fetches(issuer) == 2


def test_an_app_without_warm_up_uses_the_keys_of_another_at_once(issuer: EmbeddedIssuer) -> None:
    source = KeySource.of(given(issuer))
    source.get()
    app = guarded(given(issuer), warm_up=False)
    with TestClient(app):
        known = health(app)
    assert known.ready
    assert known.keys is not None
    assert known.keys.fresh
    assert fetches(issuer) == 1


# Time, floods, revocation


def test_a_rotation_reaches_all_with_one_fetch(issuer: EmbeddedIssuer) -> None:
    clock = Clock(1000.0)
    shared = SharedSources(clock=clock)
    verifiers = [TokenVerifier(given(issuer)) for _ in range(5)]
    for verifier in verifiers:
        verifier.ready().keys = shared.source(given(issuer))
        verifier.verify(issuer.service_token("corp", "caller"))
    issuer.rotate_keys("corp")
    clock.advance(5)
    token = issuer.service_token("corp", "caller")
    assert {verifier.verify(token).client_id for verifier in verifiers} == {"caller"}
    assert fetches(issuer) == 2


def test_a_flood_of_invented_keys_at_one_costs_one_fetch_for_all(issuer: EmbeddedIssuer) -> None:
    clock = Clock(1000.0)
    shared = SharedSources(clock=clock)
    sources = [shared.source(given(issuer)) for _ in range(3)]
    sources[0].get()
    clock.advance(5)
    stranger = EmbeddedIssuer(document(), url=issuer.url).service_token("corp", "caller")
    for source in sources:
        verifier = TokenVerifier(given(issuer))
        verifier.ready().keys = source
        for _ in range(20):
            with pytest.raises(AuthenticationError):
                verifier.verify(stranger)
    assert fetches(issuer) == 2


def test_not_before_of_the_realm_reaches_all_and_no_other_realm(issuer: EmbeddedIssuer) -> None:
    clock = Clock(1000.0)
    shared = SharedSources(clock=clock)

    def verifier(realm: str) -> TokenVerifier:
        made = TokenVerifier(given(issuer, realm=realm))
        made.ready().keys = shared.source(given(issuer, realm=realm))
        made.verify(issuer.service_token(realm, "caller"))
        return made

    tokens = {realm: issuer.service_token(realm, "caller") for realm in ("corp", "other")}
    one, two, elsewhere = verifier("corp"), verifier("corp"), verifier("other")
    issuer.set_not_before("corp", 4_000_000_000)
    clock.advance(600)
    for revoked in (one, two):
        with pytest.raises(AuthenticationError):
            revoked.verify(tokens["corp"])
    assert elsewhere.verify(tokens["other"]).client_id == "caller"


def test_a_failure_holds_back_all_and_all_come_back_together(issuer: EmbeddedIssuer) -> None:
    clock = Clock(1000.0)
    shared = SharedSources(clock=clock)
    issuer.faults.add("certs", answering(503))
    sources = [shared.source(given(issuer)) for _ in range(10)]
    for source in sources:
        with pytest.raises(KeysUnavailable) as caught:
            source.get()
        assert 1 <= caught.value.retry_after <= RETRY
    assert fetches(issuer) == 1
    clock.advance(RETRY)
    assert all(source.get().keys for source in sources)
    assert fetches(issuer) == 2


# The process


def test_keys_are_gone_with_the_last_who_held_them() -> None:
    settings = KeycloakSettings(url="http://127.0.0.1:1", realm="corp", client_id="receiver")
    one, two = TokenVerifier(settings), TokenVerifier(settings)
    gone = weakref.ref(one.ready().keys)
    assert two.ready().keys is gone()
    del one
    gc.collect()
    assert two.ready().keys is gone()
    del two
    gc.collect()
    assert gone() is None


def test_many_realms_that_nobody_uses_any_more_leave_nothing() -> None:
    shared = SharedSources()
    for number in range(50):
        shared.source(KeycloakSettings(url="http://127.0.0.1:1", realm=f"realm-{number}", client_id="receiver"))
    gc.collect()
    assert len(shared._sources) == 0


@needs_fork
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12: fork beside threads
def test_a_child_has_the_keys_and_makes_sources_though_the_parent_held_the_lock(issuer: EmbeddedIssuer) -> None:
    source = KeySource.of(given(issuer))
    shared = SharedSources()
    held = shared.source(given(issuer))
    source.get()

    def child() -> None:
        assert KeySource.of(given(issuer)) is source
        assert source.peek() is not None
        assert shared.source(given(issuer)) is held

    with ThreadPoolExecutor(1) as pool:
        pool.submit(shared._lock.acquire).result()
        status = in_child(child)
        pool.submit(shared._lock.release).result()
    assert status == 0
    assert fetches(issuer) == 1
