"""What stands between this service and bound tokens (DPoP, RFC 9449): the server, its own client, the other side, and the clocks."""

from collections.abc import Iterator
from typing import Final

from s2s_fastapi.caller.servers import MOST_OFFSET
from s2s_fastapi.decision import Reason
from s2s_fastapi.declared.access_file import AppAccess
from s2s_fastapi.downstream import Downstream
from s2s_fastapi.keycloak.cures import CLOCKS
from s2s_fastapi.keycloak.dpop import (
    CONSOLE,
    KEYCLOAK_AHEAD,
    KEYCLOAK_OLDEST,
    ORDER,
    SUPPORTED,
    no_bound_tokens,
)
from s2s_fastapi.operations.checks.server import BY_DATE, clock_offset
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.findings import Finding, Result, Seen, Skipped
from s2s_fastapi.operations.inspection import Inspection
from s2s_fastapi.operations.relations import binding_problem, bound_first, routes_for_bound_tokens
from s2s_fastapi.operations.snapshot import binds, binds_to_certificate
from s2s_fastapi.principal import Binding
from s2s_fastapi.proof.checked import AHEAD, OLDEST
from s2s_fastapi.text import listed, named

__all__ = ["check_bound"]

_NOT_SENT: Final = "Calls with bound tokens are not sent."
_EXACT: Final = 1.0
"""Date has whole seconds: a smaller difference cannot be told from none."""


def check_bound(facts: Facts) -> Iterator[Result]:
    """Look whether bound tokens work here: those that this service sends, and those that it accepts."""
    calls = any(each.dpop for each in facts.downstreams) or (
        facts.settings.dpop and (facts.gets_token or not facts.declares_no_call)
    )
    results = [*_of_caller(facts)] if calls else []
    results += _of_other_side(facts)
    if calls or facts.binding_mode:
        results += _of_clocks(facts, calls=calls)
    yield from results or [Skipped("This service sends no bound tokens and accepts none (dpop).")]


def _of_caller(facts: Facts) -> Iterator[Result]:
    """Look whether Keycloak binds the tokens of this service, and gives it no other ones."""
    found, who = facts.inspection, named(facts.settings.client_id)
    able = found.snapshot.model.binds if isinstance(found, Inspection) else SUPPORTED in facts.discovery.content
    if not able:
        yield Finding(
            seen="This Keycloak binds no tokens.", why=_NOT_SENT, cure=no_bound_tokens(facts.settings.client_id)
        )
        return
    yield Seen("This Keycloak binds tokens to the key of a proof (DPoP).")
    if not isinstance(found, Inspection) or found.client is None:
        yield Seen(f"Whether it gives {who} bearer tokens too, only an administrator sees.")
    elif binds(found.client):
        yield Seen(f"Keycloak gives {who} bound tokens only.")
    elif steps := found.binding():
        yield Finding(
            level="warning",
            seen=f"Keycloak also gives {who} bearer tokens.",
            why=f"Every call of {who} is made with a bound token, but whoever has its secret can get bearer tokens too.",
            cure=f"If every process of {who} runs with dpop=True or KEYCLOAK_DPOP=true, switch “Require DPoP bound tokens” on.",
            console=f"Clients, {who}, {CONSOLE}",
            changes=found.requests(steps),
            plan=facts.plan(),
        )
    else:
        yield Seen(f"Keycloak also gives {who} bearer tokens. That is right as long as a call of it is made with one.")


def _of_other_side(facts: Facts) -> Iterator[Result]:
    """Name the receivers that would refuse the tokens of this service, because they are bound or because they are not."""
    unknown: set[str] = set()
    for each in facts.downstreams:
        for audience in sorted(each.audiences):
            apps = facts.receivers(audience)
            if not apps and each.dpop:
                unknown.add(audience)
            for app in apps:
                yield from _of_receiver(facts, each, app)
    if unknown:
        yield Seen(
            f"Whether {listed(unknown)} accepts bound tokens was not looked at: its access file was not given (--access)."
        )


def _of_receiver(facts: Facts, call: Downstream, app: AppAccess) -> Iterator[Result]:
    who, called = facts.settings.client_id, named(app.client_id)
    binding: Binding = "dpop" if call.dpop else "certificate" if _by_certificate(facts, call) else ""
    if problem := binding_problem(who, app, binding=binding):
        if problem.reason is Reason.SENDER_CONSTRAINED:
            takes, made, order = "refuses tokens that are bound to a client certificate", "such", ""
        else:
            takes = "refuses bound tokens" if call.dpop else "requires bound tokens"
            made, order = "bound" if call.dpop else "bearer", f" {ORDER}"
        yield Finding(
            seen=f"{called} {takes}, and calls to it are made with {made} tokens.",
            why=f"{called} answers 401 ({problem.reason}).",
            cure=f"{problem.cure}{order}",
        )
    elif call.dpop:
        yield Seen(f'{called} accepts bound tokens (dpop="{app.dpop}").')
    elif binding:
        yield Seen(f"{called} accepts tokens that are bound to a client certificate.")
    elif routes := routes_for_bound_tokens(app):
        yield Finding(
            level="warning",
            seen=f"{', '.join(routes)} of {called} requires a bound token, and calls to it are made with bearer tokens.",
            why=f"{called} answers 401 there (not_bound).",
            cure=bound_first([app], who),
        )


def _by_certificate(facts: Facts, call: Downstream) -> bool:
    """Return whether Keycloak binds the token of a call to the certificate of this service. Only an administrator sees that."""
    found = facts.inspection
    return not call.on_behalf and isinstance(found, Inspection) and binds_to_certificate(found.client or {})


def _of_clocks(facts: Facts, *, calls: bool) -> Iterator[Result]:
    """Compare Keycloak's clock with this host's, and say how much of the windows for proofs remains."""
    offset, source = clock_offset(facts)
    if offset is None:
        said = "The clocks were not compared: Keycloak's answer has no Date, and there is no token to compare."
        first = f"The first token request needs a clock that is at most {KEYCLOAK_AHEAD:.0f} s ahead of Keycloak's or {KEYCLOAK_OLDEST:.0f} s behind it."
        yield Seen(f"{said} {first}" if calls else said)
        return
    size, ahead = abs(offset), offset > 0
    said = (
        "Keycloak's clock and this host's agree (to 1 s)."
        if size <= _EXACT
        else f"Keycloak's clock is {size:.0f} s {'ahead of' if ahead else 'behind'} this host's."
    )
    if calls:
        # To a clock that is ahead, a proof looks old.
        limit = KEYCLOAK_OLDEST if ahead else KEYCLOAK_AHEAD
        left = limit - size
        window = (
            f"Keycloak accepts a proof that is at most {KEYCLOAK_OLDEST:.0f} s old and {KEYCLOAK_AHEAD:.0f} s ahead."
        )
        if size > MOST_OFFSET:
            yield Finding(
                seen=f"{said} {window}",
                why=f"Proofs are corrected by Keycloak's time up to {MOST_OFFSET:.0f} s. Keycloak refuses them (DPoP proof is not active).",
                cure=CLOCKS,
            )
        elif left <= 0 and source != BY_DATE:
            yield Finding(
                seen=f"{said} {window}",
                why="Keycloak's answers have no Date, so the first token request with a proof is refused (DPoP proof is not active).",
                cure=CLOCKS,
            )
        elif left <= 0:
            yield Finding(
                level="warning",
                seen=f"{said} {window}",
                why="This service corrects its proofs by the Date of Keycloak's answers. Without that, each would be refused (DPoP proof is not active).",
                cure=CLOCKS,
            )
        else:
            yield Seen(f"{said} {window} {left:.0f} s of it remain.")
    if facts.binding_mode:
        # Callers make their proofs by Keycloak's clock.
        limit = AHEAD if ahead else OLDEST
        window = f"This service accepts a proof that is at most {OLDEST} s old and {AHEAD} s ahead by its own clock"
        if size > limit:
            yield Finding(
                seen=f"{said} {window}, and callers make theirs by Keycloak's.",
                why="Good proofs are refused (invalid_proof).",
                cure=CLOCKS,
            )
        else:
            yield Seen(f"{said} {window}: {limit - size:.0f} s of it remain for proofs that are made by Keycloak's.")
