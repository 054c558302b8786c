"""What has settings of its own: the further realms whose tokens the app accepts, and calls as another client than the service's."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from s2s_fastapi.downstream import Downstream
from s2s_fastapi.operations.checks.server import check_issuer, check_keys, check_reachable, check_realm
from s2s_fastapi.operations.checks.tokens import one_downstream
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.findings import Finding, Result, Seen, Skipped
from s2s_fastapi.text import named

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["check_others"]

_WAY: Final[tuple[Callable[[Facts], Iterator[Result]], ...]] = (check_reachable, check_realm, check_issuer, check_keys)


def check_others(facts: Facts) -> Iterator[Result]:
    """Look at the way to each further realm, and request the token of each call that has settings of its own."""
    if not facts.app_name:
        for app in facts.own_apps:
            if issuers := app.further_realms:
                yield Skipped(f"Not looked at, because an access file has no settings of them: {', '.join(issuers)}.")
                return
        yield Skipped("No app was named: --app module:app reads what it declares and would say at its start.")
        return
    calls: dict[KeycloakSettings, list[Downstream]] = {}
    for each in facts.calls_of_others:
        if each.settings is not None:
            calls.setdefault(each.settings, []).append(each)
    further: tuple[KeycloakSettings, ...] = () if facts.documentation is None else facts.documentation.others
    open_ways = {facts.settings.issuer: bool(facts.certs.content)}
    every: list[KeycloakSettings] = [*further, *calls]
    for settings in dict.fromkeys(every):
        other, issuer = facts.beside(settings), settings.issuer
        if issuer not in open_ways:
            results = tuple(_way(other))
            open_ways[issuer] = not any(isinstance(each, Finding) and each.level == "problem" for each in results)
            yield from (_labelled(issuer, each) for each in results)
        for call in calls.get(settings, []) if open_ways[issuer] else []:
            who = f"{named(settings.client_id) if settings.client_id else 'no client'} of {issuer}"
            yield from (_labelled(who, each) for each in one_downstream(other, call))
    if not further and not calls:
        yield Skipped("The app has no further realm, and no call has settings of its own.")


def _way(facts: Facts) -> Iterator[Result]:
    """Make the checks of the way to a realm, up to the first that finds a problem."""
    for check in _WAY:
        results = tuple(check(facts))
        yield from results
        if any(isinstance(each, Finding) and each.level == "problem" for each in results):
            return


def _labelled(label: str, result: Result) -> Result:
    """Say of which realm, or of which client, a result is. No plan is named: no access file has such a call."""
    match result:
        case Finding():
            return replace(result, seen=f"{label}: {result.seen}", plan="")
        case Seen():
            return Seen(f"{label}: {result.text}")
        case Skipped():
            return Skipped(f"{label}: {result.why}")
