"""What is counted and measured, through the OpenTelemetry API. Without a meter provider nothing is kept.

The number of values of each attribute is bounded, whatever requests come in.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, Protocol
from weakref import WeakSet

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Observation

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.telemetry.attributes import (
    AUDIENCE,
    CALLER,
    CAUSE,
    CLIENT_ID,
    ERROR_TYPE,
    ISSUER,
    OUTCOME,
    REASON,
    RESULT,
)
from s2s_fastapi.telemetry.spans import SCHEMA_URL
from s2s_fastapi.text import printable
from s2s_fastapi.version import __version__

__all__ = [
    "CATALOGUE",
    "DECISIONS",
    "HIT",
    "KEYS_FETCH",
    "LOOKUPS",
    "MISS",
    "OTHER",
    "RESENDS",
    "TOKEN_AGE",
    "TOKEN_EXCHANGE",
    "TOKEN_REQUEST",
    "VERIFICATION",
    "Metric",
    "accepted_labels",
    "audience_label",
    "decided",
    "watch_age",
]

OTHER: Final = "_OTHER"
"""The caller in the metrics if there is no valid signature, and for callers beyond the bounds."""
_MAX_CALLERS: Final = 200
_MAX_REFUSED: Final = 100
_MAX_AUDIENCES: Final = 200
_LONGEST: Final = 256
_SECONDS: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_AGES: Final = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 240.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0, 86400.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One instrument: its name, and what an operator needs to know to use it."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    unit: str
    description: str
    attributes: tuple[str, ...]


CATALOGUE: Final[list[Metric]] = []
"""All instruments, in the order of this file."""

_meter = metrics.get_meter("s2s_fastapi", __version__, schema_url=SCHEMA_URL)


def _counter(name: str, unit: str, description: str, *attributes: str) -> Counter:
    CATALOGUE.append(Metric(name, "counter", unit, description, attributes))
    return _meter.create_counter(name, unit, description)


def _histogram(name: str, description: str, *attributes: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
    CATALOGUE.append(Metric(name, "histogram", "s", description, attributes))
    return _meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=buckets)


DECISIONS: Final = _counter(
    "s2s_fastapi.decisions",
    "{decision}",
    "Decisions about requests; observed: let in, and refused from the day of insecure_observe_until on.",
    OUTCOME,
    REASON,
    CALLER,
    ISSUER,
)
LOOKUPS: Final = _counter(
    "s2s_fastapi.verified_tokens.lookups", "{lookup}", "Tokens that were known as verified (hit) or not (miss).", RESULT
)
HIT: Final = {RESULT: "hit"}
MISS: Final = {RESULT: "miss"}
VERIFICATION: Final = _histogram(
    "s2s_fastapi.verification.duration",
    "Time to verify a token that was not known, with the wait for keys where there was one.",
    OUTCOME,
)
KEYS_FETCH: Final = _histogram(
    "s2s_fastapi.keys.fetch.duration", "Time to load the realm's keys from Keycloak.", OUTCOME, CAUSE, ISSUER
)
TOKEN_REQUEST: Final = _histogram(
    "s2s_fastapi.token.request.duration",
    "Time to get a token from Keycloak; cause tells renewals ahead of time (ahead) from those that a 401 forced (forced).",
    OUTCOME,
    CAUSE,
    CLIENT_ID,
    AUDIENCE,
    ERROR_TYPE,
)
TOKEN_EXCHANGE: Final = _histogram(
    "s2s_fastapi.token.exchange.duration",
    "Time to exchange a user's token at Keycloak; cause tells exchanges that a 401 forced (forced).",
    OUTCOME,
    CAUSE,
    CLIENT_ID,
    AUDIENCE,
    ERROR_TYPE,
)
TOKEN_AGE: Final = _histogram(
    "s2s_fastapi.token.age",
    "Age of a token when it is attached to a request.",
    CLIENT_ID,
    AUDIENCE,
    buckets=_AGES,
)
RESENDS: Final = _counter(
    "s2s_fastapi.resends", "{request}", "Requests sent once more with another token after a 401.", CLIENT_ID, AUDIENCE
)


class Aged(Protocol):
    """Something that has an age to show."""

    def aged(self) -> tuple[str, float] | None:
        """Return the issuer that it belongs to and its age in seconds; None while there is no age."""


_aged: "WeakSet[Aged]" = WeakSet()


def watch_age(thing: Aged) -> None:
    """Show the age of a realm's keys as long as their holder exists."""
    _aged.add(thing)


def _ages(options: CallbackOptions) -> Iterable[Observation]:  # noqa: ARG001 - the seam's signature
    # Two holders of the keys of one realm are one series, which shows the older keys.
    ages: dict[str, float] = {}
    for thing in list(_aged):
        aged = thing.aged()
        if aged is not None:
            issuer, age = aged
            ages[issuer] = max(age, ages.get(issuer, 0.0))
    return [Observation(age, {ISSUER: issuer}) for issuer, age in ages.items()]


def _gauge(
    name: str, description: str, read: Callable[[CallbackOptions], Iterable[Observation]], *attributes: str
) -> None:
    CATALOGUE.append(Metric(name, "gauge", "s", description, attributes))
    _meter.create_observable_gauge(name, [read], "s", description)


_gauge("s2s_fastapi.keys.age", "Age of the realm's keys; they are trusted for at most an hour.", _ages, ISSUER)


def decided(decision: Decision) -> None:
    """Count one decision."""
    DECISIONS.add(1, _labels(decision.reason, decision.observed, decision.client_id, decision.issuer))


def accepted_labels(client_id: str, issuer: str) -> dict[str, str]:
    """Return the attributes with which `DECISIONS` counts a plain acceptance; they stay the same for the life of the process.

    Call it when the request is counted, not before: a caller that a requirement refuses must not take the place of one that may call.
    """
    return _labels(Reason.ALLOWED, False, client_id, issuer)


@lru_cache(maxsize=1024)
def _labels(reason: Reason, observed: bool, client_id: str, issuer: str) -> dict[str, str]:
    decision = Decision(reason=reason, observed=observed)
    caller = _callers_of(issuer).name(client_id, accepted=decision.accepted)
    return {OUTCOME: decision.outcome, REASON: str(reason), CALLER: caller, ISSUER: issuer or OTHER}


def audience_label(audience: str) -> str:
    """Return the label of a requested audience. An app may take audiences from its requests, so their number is bounded."""
    if audience not in _audiences and len(_audiences) >= _MAX_AUDIENCES:
        return OTHER
    _audiences.add(audience)
    return printable(audience, _LONGEST)


class _Callers:
    """The callers of one realm that are counted by name. Anybody who can register clients in the realm can invent names, so their number is bounded.

    Callers that were only refused have half as many places, of their own: they must not hide callers that may call.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._refused: set[str] = set()

    def name(self, client_id: str, *, accepted: bool) -> str:
        if not client_id:
            return OTHER
        places, most = (self._names, _MAX_CALLERS) if accepted else (self._refused, _MAX_REFUSED)
        if client_id not in self._names and client_id not in places:
            if len(places) >= most:
                return OTHER
            places.add(client_id)
            if accepted:
                _labels.cache_clear()  # it may have another label from earlier refusals
        return printable(client_id, _LONGEST)


_callers: Final[dict[str, _Callers]] = {}
"""By issuer: the callers of one realm never take the places of another's. Issuers come from settings, so there are few."""


def _callers_of(issuer: str) -> _Callers:
    return _callers.setdefault(issuer, _Callers())


_audiences: Final[set[str]] = set()
