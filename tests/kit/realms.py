"""A service that trusts two realms: its own, and that of a partner who may be hostile. No network."""

import time
from collections.abc import Callable
from typing import Any

import httpx

from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.verifier.accepted_tokens import AcceptedTokens
from s2s_fastapi.verifier.checks import Checks
from s2s_fastapi.verifier.keys import KeySource
from s2s_fastapi.verifier.realms import RealmsVerifier
from s2s_fastapi.verifier.verifier import Verifier
from tests.kit.realm import Realm, SigningKey, settings

PARTNERS_KEY = SigningKey("RS256", kid="the-partners-key")


def corp_and_partners() -> tuple[Realm, Realm]:
    """Return the two realms, each with its own key."""
    return Realm("corp"), Realm("partners", key=PARTNERS_KEY)


def settings_of(*realms: Realm, **changes: Any) -> list[KeycloakSettings]:
    return [settings(realm=name_of(realm), **changes) for realm in realms]


def name_of(realm: Realm) -> str:
    return realm.issuer.rpartition("/")[2]


def transport_to(*realms: Realm) -> Callable[[], httpx.BaseTransport]:
    """Return what reaches each realm under its own path."""
    by_name = {name_of(realm): realm for realm in realms}

    def respond(request: httpx.Request) -> httpx.Response:
        with httpx.Client(transport=by_name[request.url.path.split("/")[2]].transport()) as client:
            return client.send(httpx.Request(request.method, request.url))

    return lambda: httpx.MockTransport(respond)


def realms_verifier(
    *realms: Realm,
    monotonic: Callable[[], float] = time.monotonic,
    clock: Callable[[], float] = time.time,
    cached_tokens: int = 10,
    spacing: float = 0.0,
) -> RealmsVerifier:
    """Return a verifier for the realms, the first one first. An unknown key is looked for at once."""

    def one(realm: Realm, first: bool) -> Verifier:
        given = settings(realm=name_of(realm))
        return Verifier(
            Checks.of(given, given.audiences, first=first),
            KeySource(
                Endpoints.of(given),
                BackChannel(transport=realm.transport, timeout=3.0),
                clock=monotonic,
                spacing=spacing,
            ),
            AcceptedTokens(cached_tokens),
            clock=clock,
        )

    return RealmsVerifier(tuple(one(realm, number == 0) for number, realm in enumerate(realms)))


def loaded(verifier: RealmsVerifier) -> RealmsVerifier:
    """Return the verifier after each realm has loaded its keys: the first token would ask all of them at once."""
    for realm in verifier.realms:
        realm.keys.get()
    return verifier
