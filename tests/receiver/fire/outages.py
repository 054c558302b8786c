"""A Keycloak that does not answer, or not with keys: one row of the table each."""

import json
from pathlib import Path

from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.testing import Fault, Request, Response
from s2s_fastapi.testing.faults import answering, disconnecting, dripping, html, huge
from s2s_fastapi.testing.server import LoopbackServer
from tests.kit.authority import make_authority, server_context
from tests.kit.realm import SigningKey, settings
from tests.receiver.fire.row import RETRY, row, running, through
from tests.receiver.fire.scene import Scene
from tests.receiver.fire.service import ATTACKER, HOUR, TTL, Tally

LAST_GOOD = "the last good keys are used: none fails"


def broken(fault: Fault, *, moments: int = 30) -> Tally:
    """Answer with a fault from before the keys are renewed until long after they would be too old without it."""
    with running() as scene:
        scene.issuer.faults.add("certs", fault, times=None)
        scene.pass_time(RETRY)
        scene.forged(scene.invented())
        scene.valid()
        scene.pass_time(460)
        through(scene, 300, 300 / moments, each=600 // moments)
        scene.issuer.faults.clear()
        scene.pass_time(RETRY)
        scene.valid()
        scene.settle()
        assert scene.keys.state().fresh
        return scene.tally


@row("Keycloak is gone for 15 minutes", LAST_GOOD)
def outage(folder: Path) -> Tally:
    with running() as scene:
        scene.issuer.faults.add("realm", disconnecting(), times=None)
        scene.pass_time(470)
        scene.issuer.faults.add("certs", disconnecting(), times=None)
        through(scene, 900, 0.5)
        scene.issuer.faults.clear()
        through(scene, 60, 0.5)
        assert scene.keys.state().fresh
        return scene.tally


@row(
    "Keycloak is gone for more than an hour",
    "none fails for an hour after the last fetch; then 503, and Keycloak is asked again after `Retry-After`",
    unavailable=True,
)
def long_outage(folder: Path) -> Tally:
    with running() as scene:
        scene.issuer.faults.add("certs", disconnecting(), times=None)
        through(scene, HOUR - 5, 1)
        assert scene.tally.unavailable == 0
        scene.pass_time(RETRY)
        back_after_outage(scene)
        return scene.tally


def back_after_outage(scene: Scene) -> None:
    """Hold ``Retry-After`` to its word: Keycloak is asked then, and when it is back the request is served."""
    for _ in range(20):
        seconds = scene.valid().retry_after
        loads = scene.keys.state().loads
        scene.forged()
        scene.pass_time(seconds)
        scene.valid()
        assert scene.keys.state().loads == loads + 1
    seconds = scene.valid().retry_after
    scene.issuer.faults.clear()
    if not scene.serving:
        scene.keycloak_starts()
    scene.pass_time(seconds)
    unavailable = scene.tally.unavailable
    through(scene, 60, 1)
    assert scene.tally.unavailable == unavailable


@row(
    "The service starts before Keycloak",
    "503 until Keycloak is up; a caller that waits for `Retry-After` is then served",
    unavailable=True,
)
def started_first(folder: Path) -> Tally:
    with Scene(unseen=True) as scene:
        scene.keycloak_starts()
        scene.keycloak_stops()
        scene.service_starts()
        back_after_outage(scene)
        return scene.tally


@row("The name of Keycloak's host cannot be resolved any more", LAST_GOOD)
def no_dns(folder: Path) -> Tally:
    with running(unseen=True) as scene:
        scene.pass_time(470)
        scene.keys._endpoints = Endpoints.of(settings(url="http://keycloak.invalid"))
        through(scene, 900, 180, each=50)  # where no name server answers each lookup takes its time
        return scene.tally


# Answers that are none


@row("200 with a page of HTML", LAST_GOOD)
def page(folder: Path) -> Tally:
    return broken(html(200))


@row("200 with an empty set of keys", LAST_GOOD)
def empty_set(folder: Path) -> Tally:
    return broken(answering(200, '{"keys": []}'))


@row("500 with the keys of somebody else", LAST_GOOD)
def error_with_keys(folder: Path) -> Tally:
    return broken(answering(500, json.dumps({"keys": [ATTACKER.jwk]})))


@row("200 with 50 MB", LAST_GOOD)
def fifty_megabytes(folder: Path) -> Tally:
    return broken(huge(50_000_000), moments=4)


@row("An answer that comes slowly, one byte every 0.5 s", f"{LAST_GOOD} (one request waits for 3 s)")
def slow_drip(folder: Path) -> Tally:
    return broken(dripping(0.5), moments=2)


@row("A redirect to somebody else's keys", f"{LAST_GOOD}; no request goes there")
def redirect(folder: Path) -> Tally:
    asked: list[str] = []

    def elsewhere(request: Request) -> Response:
        asked.append(request.path)
        return Response(200, body=json.dumps({"keys": [ATTACKER.jwk]}).encode())

    with LoopbackServer(elsewhere) as attacker:
        tally = broken(answering(302, headers={"Location": f"{attacker.url}/certs"}))
    assert asked == []
    return tally


@row("A broken key among good ones", "the good ones work: none fails")
def broken_key(folder: Path) -> Tally:
    with Scene() as scene:
        scene.keycloak_starts()
        good = json.loads(scene.certs())["keys"]
        ec = SigningKey("ES256").jwk
        bad = [
            None,
            {},
            {**good[0], "n": "!"},
            {**ec, "y": ec["x"]},
            {**ec, "crv": "P-521"},
            {**ATTACKER.jwk, "d": "AQAB"},
        ]
        scene.issuer.faults.add("certs", answering(200, json.dumps({"keys": [*bad, *good, *bad]})), times=None)
        scene.service_starts()
        scene.pass_time(RETRY)
        scene.forged(scene.invented())
        through(scene, 2 * TTL, 5)
        return scene.tally


# TLS


@row("TLS fails: somebody else's server answers, with its own certificate and keys", LAST_GOOD)
def wrong_certificate(folder: Path) -> Tally:
    ours, theirs = make_authority(folder / "ours"), make_authority(folder / "theirs")
    with Scene(unseen=True, tls=server_context(ours)) as scene:
        scene.keycloak_starts()
        scene.service_starts(ca_file=ours)
        scene.keycloak_stops()
        scene.issuer.faults.add("certs", answering(200, json.dumps({"keys": [ATTACKER.jwk]})), times=None)
        scene.keycloak_starts(tls=server_context(theirs))
        scene.pass_time(RETRY)
        scene.forged(scene.invented())
        assert "certificate is not trusted" in scene.decisions[-1].cure
        scene.valid()
        scene.pass_time(460)
        through(scene, 300, 10, each=20)
        return scene.tally


@row("A certificate of the company's own certificate authority (`KEYCLOAK_CA_FILE`)", "none fails")
def private_authority(folder: Path) -> Tally:
    ours = make_authority(folder)
    with Scene(tls=server_context(ours)) as scene:
        scene.keycloak_starts()
        scene.service_starts(ca_file=ours)
        through(scene, 2 * TTL, 10)
        return scene.tally
