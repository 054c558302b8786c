"""What stands between this service and a call on behalf of a user: the server, its own client, and the audience of users' tokens."""

from collections.abc import Iterator
from typing import Final

from s2s_fastapi.keycloak.exchange import GRANT_TYPE, SINCE, TOO_OLD, not_enabled, not_in_audience
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.findings import Finding, Result, Seen, Skipped
from s2s_fastapi.operations.inspection import Inspection
from s2s_fastapi.operations.predicted import Users, users_of
from s2s_fastapi.operations.snapshot import exchanges
from s2s_fastapi.text import listed, named

__all__ = ["check_exchange"]

_NOT_SENT: Final = "Calls on behalf of users are not sent."
_NO_TOKEN: Final = "Keycloak exchanges no token for it (503 in the route)."


def check_exchange(facts: Facts) -> Iterator[Result]:
    """Look whether this service can exchange the tokens of users for those that its calls on their behalf need."""
    audiences = sorted({name for each in facts.downstreams if each.on_behalf for name in each.audiences})
    if not any(each.on_behalf for each in facts.downstreams):
        yield Skipped("This service declares no call on behalf of users.")
        return
    found = facts.inspection
    if isinstance(found, Inspection):
        able = found.snapshot.model.version >= SINCE
    else:
        grants = facts.discovery.content.get("grant_types_supported")
        able = not isinstance(grants, list) or GRANT_TYPE in grants
    if not able:
        yield Finding(
            seen="This Keycloak exchanges no tokens.",
            why=_NOT_SENT,
            cure=TOO_OLD,
        )
        return
    if not isinstance(found, Inspection):
        yield Seen(
            f"This Keycloak exchanges tokens. Whether it does so for this service, only an administrator sees ({listed(audiences)})."
        )
        return
    if found.client is None:
        yield Skipped("The realm has no client of this service: see client.")
        return
    who = named(found.client_id)
    if exchanges(found.client):
        yield Seen(f"The client {who} may exchange tokens.")
    else:
        yield Finding(
            seen=f"The client {who} may not exchange tokens.",
            why=f"{_NOT_SENT} {_NO_TOKEN}",
            cure=not_enabled(found.client_id),
            console=f"Clients, {who}, Settings, Capability config, Standard Token Exchange",
            changes=found.requests(found.exchanging()),
            plan=facts.plan(),
        )
    yield from _users(facts, found)


def _users(facts: Facts, found: Inspection) -> Iterator[Result]:
    """Look whether the tokens of users are for this service: Keycloak exchanges no others."""
    who = named(found.client_id)
    through = facts.front_ends
    if not through:
        yield Seen(
            f"Keycloak exchanges tokens that have {who} in aud. No route of this service names in require_user(...) the clients that log users in,"
            " so theirs were not looked at."
        )
    for name in through:
        users = users_of(found.snapshot, name, found.client_id)
        front_end = named(name)
        if users is Users.ALWAYS:
            yield Seen(f"The tokens of users of {front_end} are for {who}.")
        elif users is Users.ON_REQUEST:
            yield Seen(
                f"The tokens of users of {front_end} are for {who} if it requests the Optional client scope that brings it."
            )
        elif users is Users.NO_CLIENT:
            yield Finding(
                level="warning",
                seen=f"A route lets in users through {front_end}, and the realm has no such client.",
                why=f"No user calls through it, so {who} has no token of theirs to exchange.",
                cure="Correct the name in require_user(...), or make the client.",
            )
        else:
            yield Finding(
                seen=f"The tokens of users of {front_end} are not for {who}: no client scope of {front_end} puts it into aud.",
                why="This service neither accepts nor exchanges them (Client is not within the token audience).",
                cure=not_in_audience(found.client_id, name),
                console=f"Clients, {front_end}, Client scopes, Add client scope",
            )
