"""A landscape of services as a company has it after some years: made by a seed, so that each run makes the same one."""

import random
from dataclasses import dataclass, field
from typing import Any

from s2s_fastapi import require_caller, require_realm_role, require_role, require_scope, require_service
from s2s_fastapi.declared.access_file import AppAccess, CallAccess
from s2s_fastapi.requirement.requirement import Requirement
from tests.kit.declaring import caller, receiver

__all__ = ["STRANGER", "Landscape", "generated"]

STRANGER = "stranger"
"""Calls a service that does not accept it, so it gets nothing."""
_PARTNER = "partner"
_READ = ":read"
_MOST_CALLERS = 6
_EACH_THERE = 5
_EACH_WIDE = 3


@dataclass(frozen=True)
class Landscape:
    """What the services declare, what an operator grants, and what the realm has before the first plan."""

    apps: tuple[AppAccess, ...]
    grants: tuple[str, ...]
    realm: dict[str, Any] = field(repr=False)
    """Realm JSON of the clients that are there, with what grew around them."""
    scopes: tuple[dict[str, Any], ...]
    """The client scopes that are there: not in the JSON, because Keycloak then makes none of its own."""
    held: tuple[tuple[str, str, bool], ...]
    """Who holds which of them, and whether as Optional."""
    secrets: dict[str, str] = field(repr=False)
    """The secrets of these clients."""
    wide: tuple[str, ...]
    """Those with a mapper of their own that writes an audience which they do not call."""


@dataclass
class _Service:
    client_id: str
    audience: str
    """What a token for it says: its client id, or a URL."""
    requires: list[Requirement | None] = field(default_factory=list)
    calls: list[CallAccess] = field(default_factory=list)


def generated(number: int, *, seed: int = 26) -> Landscape:
    """Return a landscape of so many services. A third only receives; each fifth caller is a client of the realm already."""
    chance = random.Random(seed)
    services = [_service(index) for index in range(number)]
    callers = services[number // 3 :]
    grants = [
        grant
        for index, service in enumerate(services[: number * 2 // 3])
        for grant in _received(service, index, callers, chance)
    ]
    _join(callers[::4])
    apps = [
        receiver(one.client_id, *one.requires, audience=one.audience, calls=tuple(one.calls))
        if one.requires
        else AppAccess(one.client_id, None, calls=tuple(one.calls))
        for one in services
    ]
    apps.append(caller(STRANGER, services[0].audience))
    there = [one.client_id for one in callers[::_EACH_THERE]]
    secrets = {name: f"the-secret-of-{name}" for name in there}
    return Landscape(
        apps=tuple(apps),
        grants=tuple(grants),
        realm=_grown(secrets, services[0].client_id),
        scopes=tuple({**one, "protocol": "openid-connect"} for one in (_SILENT, _SHARED)),
        held=tuple((name, "for-service-01", True) for name in there[1::3])
        + tuple((name, "silent", False) for name in there[1::2]),
        secrets=secrets,
        wide=tuple(
            one.client_id
            for one in callers[:: _EACH_THERE * _EACH_WIDE]
            if not any(services[0].audience in call.audiences for call in one.calls)
        ),
    )


def _service(index: int) -> _Service:
    client_id = f"service-{index:02}"
    return _Service(client_id, f"https://{client_id}.example.com/api" if index % 7 == 3 else client_id)


def _received(service: _Service, index: int, callers: list[_Service], chance: random.Random) -> list[str]:
    """Let some services call this one, each in one of the ways there are. Return what an operator must grant for that."""
    others = [one for one in callers if one is not service]
    chosen = chance.sample(others, chance.randint(1, min(_MOST_CALLERS, len(others))))
    names = [one.client_id for one in chosen]
    gate, carrier = f"{service.client_id}{_READ}", f"for-{service.client_id}"
    service.requires = [require_caller(*names), *[None] * (index % 3 == 2)]  # without a requirement: for any service
    grants = []
    for one in chosen:
        scopes: tuple[str, ...] = ()
        match chance.randrange(7):
            case 0:  # a scope that it requests, and that brings the audience
                scopes = (carrier,)
            case 1:  # a scope with which each of its tokens comes, and that a route requires
                service.requires.append(require_caller(one.client_id) & require_scope(gate))
            case 2:  # the same, requested
                service.requires.append(require_caller(one.client_id) & require_scope(gate))
                scopes = (gate,)
            case 3:  # both
                service.requires.append(require_caller(one.client_id) & require_scope(gate))
                scopes = (carrier, gate)
            case 4:
                service.requires.append(require_caller(one.client_id) & require_role("write"))
            case 5:
                service.requires.append(require_service() & require_realm_role(_PARTNER))
                grants.append(f"{one.client_id}:realm-role={_PARTNER}")
            case _:
                pass
        one.calls.append(CallAccess((service.audience,), scopes))
    if index % 4 == 0:  # a role that no declaration names anybody for
        service.requires.append(require_service() & require_role("audit"))
        grants.append(f"{names[0]}:role={service.client_id}/audit")
    return grants


def _join(callers: list[_Service]) -> None:
    """Let these request one token for the first two services that they call, with a scope of their own if either takes one."""
    for one in callers:
        if len(one.calls) > 1:
            first, second, *rest = one.calls
            scopes = (*first.scopes, *second.scopes)
            gates = [name for name in scopes if name.endswith(_READ)]
            carrier = [f"for-{one.client_id}-to-call"] * (len(gates) < len(scopes))
            one.calls[:] = [CallAccess((*first.audiences, *second.audiences), (*carrier, *gates)), *rest]


def _grown(secrets: dict[str, str], audience: str) -> dict[str, Any]:
    """Return the clients that are there: some with full scope, all with a role, a few with a mapper of their own."""
    clients: list[dict[str, Any]] = []
    users: list[dict[str, Any]] = []
    for index, (client_id, secret) in enumerate(secrets.items()):
        account = {"username": f"service-account-{client_id}", "enabled": True, "serviceAccountClientId": client_id}
        roles = {"clientRoles": {client_id: ["of-old"]}, "realmRoles": ["staff"] * (index % 2)}
        users.append({**account, **roles})
        clients.append(
            {
                "clientId": client_id,
                "secret": secret,
                "serviceAccountsEnabled": True,
                "standardFlowEnabled": False,
                "fullScopeAllowed": index % 2 == 0,
                "protocolMappers": [_mapper(audience)] if index % _EACH_WIDE == 0 else [],
                "defaultClientScopes": ["basic", "roles"] if index % 2 else ["web-origins"],
                "optionalClientScopes": [],
            }
        )
    declared = {"realm": [{"name": "staff"}], "client": {name: [{"name": "of-old"}] for name in secrets}}
    return {"clients": clients, "users": users, "roles": declared}


def _mapper(audience: str) -> dict[str, Any]:
    return {
        "name": f"audience of {audience}",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "config": {"included.custom.audience": audience, "access.token.claim": "true"},
    }


_SILENT = {"name": "silent", "attributes": {"include.in.token.scope": "false"}}
_SHARED = {"name": "for-service-01", "protocolMappers": [_mapper("service-01")]}
