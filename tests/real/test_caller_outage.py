"""A real Keycloak is killed under load for a minute and comes back: what its callers see, and how often they ask."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from example_app.realm import Realm
from s2s_fastapi import TokenRequestError
from tests.real.conftest import Servers
from tests.real.outage import Door, Failure, Load, receiver
from tests.real.server import NEWEST, Keycloak
from tests.real.settings import settings_of

OUTAGE = 60.0
# Seconds that the tokens of each client live. Killed a few seconds after the first token, Keycloak is missed in four ways:
LIVES = {
    "short-1": 60,  # is to be renewed 42 s after the request, dead after 54 s: the calls fail until Keycloak is back
    "short-2": 60,  # the same beside it, on its own
    "middle": 100,  # is to be renewed after 70 s, dead after 90 s: it lasts, unless Keycloak takes long to start
    "long": 900,  # is to be renewed after 756 s: it notices nothing
    "late": 300,  # is asked for the first time while nobody is there
}
# The tokens that are needed, whoever asks for them: a first one for each, and another for those that are over before the end.
IDEAL = {"short-1": 2, "short-2": 2, "middle": 2, "long": 1, "late": 1}


@contextmanager
def realm_of_callers(keycloak: Keycloak) -> Iterator[Realm]:
    with keycloak.copy_of("corp") as realm:
        for client_id, life in LIVES.items():
            client = {
                "clientId": client_id,
                "secret": realm.secret("chat-app-service"),
                "serviceAccountsEnabled": True,
                "standardFlowEnabled": False,
                "attributes": {"access.token.lifespan": str(life)},
                "defaultClientScopes": ["basic", "service_account", "crm-audience"],
            }
            keycloak.admin.request("POST", f"/{realm.name}/clients", client)
        try:
            yield realm
        finally:
            if not keycloak.running:  # other tests, and the end of this one, need it
                keycloak.start()


def wait_for(condition: Callable[[], bool], *, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_nobody_with_a_valid_token_notices_that_keycloak_is_killed_for_a_minute(
    keycloaks: Servers, record_property: Callable[[str, object], None]
) -> None:
    keycloak = keycloaks(NEWEST)
    early = [client_id for client_id in LIVES if client_id != "late"]
    door = Door(keycloak.url)
    with realm_of_callers(keycloak) as realm, receiver(realm, *LIVES) as origin, door.open() as url:
        settings = {
            client_id: settings_of(
                realm,
                "chat-app-service",
                client_id=client_id,
                url=url,
                public_url=keycloak.public_url,
            )
            for client_id in LIVES
        }
        load = Load(origin, settings)
        with load.running():
            began = time.monotonic()
            load.start(*early)
            wait_for(lambda: all(load.successes[client_id] >= 20 for client_id in early), seconds=30)
            keycloak.kill()
            killed = time.monotonic()
            load.start("late")
            time.sleep(OUTAGE)
            keycloak.start()
            back = time.monotonic()
            wait_for(lambda: all(load.last_success(client_id) > back for client_id in LIVES), seconds=120)
            wait_for(lambda: all(len(door.granted(client_id)) >= IDEAL[client_id] for client_id in LIVES), seconds=120)
            time.sleep(2)
        ended = time.monotonic()

    noticed: list[Failure] = []
    without: list[Failure] = []
    for failure in load.failures:
        (noticed if door.holds_a_token(failure.client_id, failure.began) else without).append(failure)
    requests = {client_id: len(door.exchanges(client_id)) for client_id in LIVES}
    for name, figure in {
        "seconds from the kill until Keycloak answers": round(back - killed, 1),
        "seconds in all": round(ended - began, 1),
        "calls that succeeded": dict(load.successes),
        "failures of calls with a valid token": len(noticed),
        "failures of calls without one": len(without),
        "token requests": requests,
        "of these, in the ideal case": IDEAL,
        "of these, without an answer": {name: requests[name] - len(door.granted(name)) for name in LIVES},
    }.items():
        record_property(name, figure)
        print(f"{name}: {figure}")  # noqa: T201 - shown with -rA or -s: the figures of the documentation

    assert noticed == []
    assert {failure.client_id for failure in without} >= {"short-1", "short-2", "late"}
    for failure in without:
        assert isinstance(failure.what, TokenRequestError), failure
        assert failure.what.retryable
        assert failure.what.http_status in {0, 503}  # nobody answered, or a Keycloak that starts
    for client_id in LIVES:
        assert len(door.granted(client_id)) == IDEAL[client_id]
        # The call that finds no usable token asks at once, although a renewal in the background has just failed.
        at_once = 1 if client_id in {"short-1", "short-2", "middle"} else 0
        assert all(seconds > 4.5 for seconds in door.distances(client_id)[at_once:])
    assert requests["long"] == 1
