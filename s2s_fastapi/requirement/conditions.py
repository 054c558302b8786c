"""Requirements that do not say who calls: the value of a claim, and a condition that a function of the app decides."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.keycloak.cures import claim_cure, condition_cure, condition_fault, condition_unknown
from s2s_fastapi.principal import Principal
from s2s_fastapi.requirement.requirement import Requirement, of_another_realm

__all__ = [
    "CONDITION_UNKNOWN",
    "SCALARS",
    "Condition",
    "HasClaim",
    "Predicate",
    "Scalar",
    "ScalarType",
    "only_the_app",
    "with_claim",
]

Scalar = str | int | float | bool
ScalarType = type[str] | type[int] | type[float] | type[bool]
Predicate = Callable[[Principal], bool]

CONDITION_UNKNOWN: Final = "condition_unknown"
"""What a command says of a route that accepts a caller if a condition is met: only the app can tell."""
SCALARS: Final = frozenset({str, int, float, bool})
"""The types of the values that can be compared: JSON's text, numbers and booleans."""
_ALLOWED: Final = Decision(reason=Reason.ALLOWED)


@dataclass(frozen=True, eq=False, repr=False)
class HasClaim(Requirement):
    """A claim of the token has one of these values, or is a list that holds one of them.

    The JSON type counts: ``true``, ``1``, ``1.0`` and ``"1"`` are four values, which Python's ``==`` alone would not keep apart.
    """

    path: tuple[str, ...]
    """The names of the objects around the claim, and its own name."""
    typed: frozenset[tuple[ScalarType, Scalar]]
    """The values, each after its type."""

    @classmethod
    def of(cls, path: tuple[str, ...], values: Iterable[Scalar]) -> "HasClaim":
        """Return the requirement of one of ``values``."""
        return cls(path, frozenset((type(value), value) for value in values))

    @property
    def values(self) -> tuple[Scalar, ...]:
        """The values, always in the same order."""
        return tuple(value for _, value in sorted(self.typed, key=lambda each: (each[0].__name__, each[1])))

    def __repr__(self) -> str:
        path = _text(self.path[0]) if len(self.path) == 1 else f"({', '.join(map(_text, self.path))})"
        return f"require_claim({', '.join([path, *map(_text, self.values)])})"

    def judge(self, principal: Principal, client_id: str = "") -> Decision:  # noqa: ARG002 - the seam's signature
        """Decide by the claim."""
        if principal.other_realm:
            return of_another_realm(principal)
        value: Any = principal.claims
        for name in self.path:
            if not isinstance(value, Mapping) or name not in value:
                return self._refused(principal, None)
            value = value[name]
        if self._holds(value) or (isinstance(value, tuple | list) and any(map(self._holds, value))):
            return _ALLOWED
        return self._refused(principal, value)

    def _holds(self, value: Any) -> bool:
        kind = type(value)
        return kind in SCALARS and (kind, value) in self.typed

    def _refused(self, principal: Principal, found: Any) -> Decision:
        return Decision(reason=Reason.CLAIM_MISSING, cure=claim_cure(principal, self.path, self.values, found))


@dataclass(frozen=True, eq=False, repr=False)
class Condition(Requirement):
    """A function of the app says whether the principal may call. Two conditions are equal only if they have the same function."""

    asks_code = True

    name: str
    predicate: Predicate

    def __post_init__(self) -> None:
        # The identity, never the name or the function's own ==: FastAPI asks only one of two equal requirements.
        self._identify(self.name, id(self.predicate))

    def __reduce__(self) -> Any:
        return type(self), (self.name, self.predicate)

    def __repr__(self) -> str:
        return f"require_that({_text(self.name)})"

    def judge(self, principal: Principal, client_id: str = "") -> Decision:  # noqa: ARG002 - the seam's signature
        """Decide by what the function returns: exactly True or False. Anything else, and an exception, is a 500."""
        if principal.other_realm:
            return of_another_realm(principal)
        try:
            answer: object = self.predicate(principal)
        except Exception as error:  # noqa: BLE001 - the function is the app's own code, and may raise anything
            fault = condition_fault(self.name, error)  # without the text of the error, which may hold claims
        else:
            if answer is True:
                return _ALLOWED
            if answer is False:
                cure = condition_unknown if self.predicate is only_the_app else condition_cure
                return Decision(reason=Reason.CONDITION_NOT_MET, cure=cure(principal, self.name))
            if inspect.iscoroutine(answer):
                answer.close()  # or Python would warn that nobody awaited it
            fault = condition_fault(self.name, answer)
        return Decision(reason=Reason.CONDITION_FAILED, cure=fault)


def only_the_app(_: Principal) -> bool:
    """Stand for the function of a condition that is known by name only, from an access file. Nobody is let in with it.

    So ``condition_not_met`` means there: all else holds, and only the app can tell.
    """
    return False


def with_claim(claims: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Write a claim into the claims of a token, with the objects around it. What stands in its way stays as it is."""
    inner: Any = claims
    for name in path[:-1]:
        inner = inner.setdefault(name, {})
        if not isinstance(inner, dict):
            return
    inner.setdefault(path[-1], value)


def _text(value: Scalar) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
