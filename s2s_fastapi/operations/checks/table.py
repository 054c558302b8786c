"""The checks of `s2s-fastapi doctor`: an ordered table of functions. Each says what it saw, why it matters, and what to change.

A check looks at one thing. The cures are those that the service itself logs: one sentence for one fault everywhere.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Final

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.operations.checks import (
    authentication,
    bound,
    client,
    exchange,
    grants,
    others,
    server,
    service,
    tokens,
)
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.findings import Checked, Finding, Report, Result, Skipped

__all__ = ["CHECKS", "examined"]


def examined(facts: Facts) -> Report:
    """Make all checks in their order. A check is skipped if one that it needs found a problem, or skipped something."""
    done: dict[str, Checked] = {}
    for name, needs, check in CHECKS:
        in_the_way = next((each for each in needs if done[each].state == "problem" or _left_out(done[each])), "")
        if in_the_way:
            why = _skipped_because(done[in_the_way])
            done[name] = Checked(name, (Skipped(why),))
            continue
        try:
            results = tuple(check(facts))
        except ConfigurationError as error:
            results = (
                Finding(
                    seen="The settings are incomplete, or contradict each other."
                    if name == "settings"
                    else "What a setting names cannot be used.",
                    why="The service does not start, or cannot call others.",
                    cure=str(error),
                ),
            )
        done[name] = Checked(name, results)
    return Report(tuple(done.values()))


def _skipped_because(check: Checked) -> str:
    if check.state == "problem":
        return f"First solve the problem of {check.name}."
    return _left_out(check)


def _left_out(check: Checked) -> str:
    return next((result.why for result in check.results if isinstance(result, Skipped)), "")


CHECKS: Final[tuple[tuple[str, Collection[str], Callable[[Facts], Iterator[Result]]], ...]] = (
    ("versions", (), service.check_versions),
    ("settings", (), service.check_settings),
    ("app", ("settings",), service.check_app),
    ("files", ("settings",), service.check_files),
    ("secret", ("settings",), service.check_secret),
    ("tls", ("settings",), server.check_tls),
    ("proxy", ("settings",), server.check_proxy),
    ("reachable", ("settings",), server.check_reachable),
    ("realm", ("reachable",), server.check_realm),
    ("issuer", ("realm",), server.check_issuer),
    ("keys", ("realm",), server.check_keys),
    ("revocation", ("realm",), server.check_revocation),
    ("credentials", ("realm", "secret"), tokens.check_credentials),
    ("clock", ("realm",), server.check_clock),
    ("token", ("credentials", "issuer", "keys", "clock"), tokens.check_token),
    ("kind", ("credentials",), tokens.check_kind),
    ("lifetime", ("credentials",), tokens.check_lifetime),
    ("size", ("credentials",), tokens.check_size),
    ("varying", ("credentials",), tokens.check_varying),
    ("origins", ("credentials",), tokens.check_origins),
    ("downstreams", ("credentials",), tokens.check_downstreams),
    ("others", ("settings",), others.check_others),
    ("admin", ("realm",), client.check_admin),
    ("client", ("admin",), client.check_client),
    ("authentication", ("admin",), authentication.check_authentication),
    ("steps", ("admin",), grants.check_steps),
    ("exchange", ("realm",), exchange.check_exchange),
    ("bound", ("realm",), bound.check_bound),
    ("routes", ("admin",), grants.check_routes),
    ("granted", ("admin",), grants.check_granted),
    ("expiry", ("admin",), client.check_expiry),
)
"""All checks in their order: the name, the checks that it needs, the function."""
