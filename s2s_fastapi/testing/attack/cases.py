"""The cases: data files that say what an attacker sends and what the answer must be."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

from s2s_fastapi.errors import ConfigurationError

__all__ = ["FILES", "Case", "Expected", "Start", "Where", "all_cases", "read_cases"]

Start = Literal["caller", "stranger", "user"]

Where = Literal["", "bearer", "no proofs", "proofs"]

FILES: Final = ("algorithms", "headers", "parsing", "claims", "around-the-token", "caches-and-keys", "proofs")
"""The data files, in the order in which the cases are tried."""

_VERSION: Final = 1
_EACH: Final = "${each}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The answer to an attack: the status, the ``error`` of the challenge (RFC 6750 section 3.1), and our reason."""

    status: int
    reason: str
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One attack. ``id`` is stable: ``alg-none.lower`` is the variant ``lower`` of the entry ``alg-none``."""

    id: str
    line: int
    """The line in the list of attacks: docs/attacks.md."""
    kind: str
    title: str
    source: tuple[str, ...]
    """The CVE or the specification."""
    expected: Expected
    every_route: bool = False
    """Whether it is tried on every route. All others are tried on one route of each middleware."""
    only_here: bool = False
    """Whether only this package promises to refuse it: who sends it has a good token. A guard that accepts it is lenient, not open."""
    forbidden_by: str = ""
    """The sentence of the specification by which a guard must refuse it, although the realm signed the token for this caller."""
    start: Start = "caller"
    """Whose good token is changed."""
    before: Mapping[str, Any] = field(default_factory=dict)
    """What happens between an accepted request with the token and the attack with the same token, or before the app is asked at all."""
    token: Mapping[str, Any] = field(default_factory=dict)
    """The recipe: see `recipe`."""
    proof: Mapping[str, Any] = field(default_factory=dict)
    """The recipe of the DPoP proof."""
    where: Where = ""
    """On which routes it is tried: everywhere, where bearer tokens are accepted, where no bound tokens are, or where bound tokens are. In the last
    case the good token is bound to a key."""
    request: Mapping[str, Any] = field(default_factory=dict)
    """What else is changed: ``authorization``, ``proofs``, ``headers``, ``query``, ``path``."""

    @property
    def apart(self) -> bool:
        """Whether it changes the realm or the time, so that the app is opened for it alone."""
        return bool(self.before.keys() - {"sent"})

    @property
    def by_a_further_realm(self) -> bool:
        """Whether a further realm signs it, whose tokens the app accepts too."""
        return self.token.get("signed_by") == "further"

    @property
    def entry(self) -> str:
        """The id without the variant."""
        return self.id.partition(".")[0]


@cache
def all_cases() -> tuple[Case, ...]:
    """Return the cases of all files."""
    folder = files("s2s_fastapi.testing.attack").joinpath("cases")
    return tuple(case for name in FILES for case in read_cases(folder.joinpath(f"{name}.json").read_text("utf-8")))


def read_cases(text: str) -> Iterator[Case]:
    """Yield the cases of one file, each variant as a case.

    Raises:
        ConfigurationError: The file has another version.
    """
    document = json.loads(text)
    if document["version"] != _VERSION:
        raise ConfigurationError(f"The cases have the version {document['version']}, and this suite reads {_VERSION}.")
    for entry in document["cases"]:
        variants: Mapping[str, Any] = entry.get("each") or {"": None}
        for variant, value in variants.items():
            yield _case(entry, variant, value)


def _case(entry: Mapping[str, Any], variant: str, value: Any) -> Case:
    expect = entry["expect"]
    return Case(
        id=f"{entry['id']}.{variant}" if variant else entry["id"],
        line=entry["line"],
        kind=entry["kind"],
        title=entry["title"],
        source=tuple(entry["source"]),
        expected=Expected(status=expect["status"], reason=expect["reason"], error=expect.get("error", "")),
        every_route=_marked(entry, "every_route", variant),
        only_here=_marked(entry, "only_here", variant),
        forbidden_by=entry.get("forbidden_by", "") if not _marked(entry, "only_here", variant) else "",
        start=entry.get("from", "caller"),
        before=entry.get("before", {}),
        token=_with_variant(entry.get("token", {}), value),
        proof=_with_variant(entry.get("proof", {}), value),
        where=entry.get("where", ""),
        request=_with_variant(entry.get("request", {}), value),
    )


def _marked(entry: Mapping[str, Any], member: str, variant: str) -> bool:
    """Return whether the member marks the whole entry, or this variant."""
    marked = entry.get(member, False)
    return marked is True or (isinstance(marked, list) and variant in marked)


def _with_variant(value: Any, variant: Any) -> Any:
    """Return ``value`` with the variant in the place of ``${each}``."""
    if isinstance(value, dict):
        return {name: _with_variant(each, variant) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_variant(each, variant) for each in value]
    if not isinstance(value, str) or _EACH not in value:
        return value
    if value == _EACH:
        return variant
    if isinstance(variant, str):
        return value.replace(_EACH, variant)
    before, _, after = value.partition(_EACH)
    return {"$join": [before, variant, after]}
