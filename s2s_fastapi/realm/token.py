"""An access token while its mappers run. It is the only value of the model that changes, and only the mappers see it."""

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from s2s_fastapi.realm.entities import Account, Client, Mapper, Realm

__all__ = ["ADDRESSES", "TokenDraft", "path_of"]

# Rule 11: what no mapper can change. `clientHost` and `clientAddress` are the address of the client.
_FIXED: Final = frozenset({"exp", "iat", "jti", "iss", "typ", "scope", "nonce", "session_state"})
_TEXTS: Final = frozenset({"sub", "azp", "acr", "aud"})  # always text, never an object
_JOINED: Final = object()
_BITS: Final = {"int": 32, "long": 64}
ADDRESSES: Final = frozenset({"clientHost", "clientAddress"})


@dataclass(slots=True)
class TokenDraft:
    """A token while its mappers run."""

    realm: Realm
    client: Client
    account: Account
    service: str
    """The client to whose own token the session belongs; empty if a user logged in."""
    peer: str | None
    """The address of the client, if it is known."""
    lightweight: bool
    roles: dict[str, set[str]]
    """The roles to write, by client; those of the realm under the empty name."""
    audience: set[str] = field(default_factory=set)
    claims: dict[str, Any] = field(default_factory=dict)
    realm_access: set[str] = field(default_factory=set)
    resource_access: dict[str, set[str]] = field(default_factory=dict)
    origins: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    _written: dict[tuple[str, ...], object] = field(default_factory=dict)
    """The values of the first step, by path."""

    def wants(self, mapper: Mapper, *, unsaid: str = "false") -> bool:
        """Rule 10: a flag that is absent is off, for most kinds. Rule 13: a lightweight token has a flag of its own."""
        if self.lightweight:
            return mapper.config.get("lightweight.claim") == "true"
        return mapper.config.get("access.token.claim", unsaid) == "true"

    def write(self, mapper: Mapper, value: Any, claim: str | None = None, *, late: bool = False) -> None:
        """Write a value at the mapper's path, whose dots lead into objects. ``late`` means after the first step."""
        path = path_of(mapper.config.get("claim.name", "") if claim is None else claim)
        try:
            value = _typed(mapper, value)
        except _NoNumberError:
            if self.realm.old:
                self.unknown.append(f"mapper {mapper.name!r} has a value that is no number, and Keycloak answers 500")
            return  # newer versions leave it out
        except ValueError:
            self.unknown.append(f"mapper {mapper.name!r} has a value that is no JSON")
            return
        if not path or path[0] in _FIXED or (path[0] in _TEXTS and len(path) > 1):
            return
        joined = isinstance(value, list)
        if not late:
            self._claim(path, _JOINED if joined else value)
        if path == ("aud",):
            if mapper.config.get("jsonType.label") == "JSON" and not isinstance(value, str):
                value, joined = json.dumps(value, separators=(",", ":"), ensure_ascii=False), False
            self.audience = {str(one) for one in (value if joined else [value])}
            return
        target = self.claims
        for name in path[:-1]:
            target = target.setdefault(name, {})
            if not isinstance(target, dict):
                self.unknown.append(f"mapper {mapper.name!r} writes into the claim {name!r}, which is no object")
                return
        there = target.get(path[-1])
        if joined and there is not None:
            there = there if isinstance(there, list) else [there]
            value = there + [one for one in value if late or one not in there]
        target[path[-1]] = str(value) if path[0] in _TEXTS else value

    def _claim(self, path: tuple[str, ...], value: object) -> None:
        """Take a path, and note if it is taken already: the order of two writers in the first step is unknown."""
        for other, before in self._written.items():
            shared = min(len(path), len(other))
            if path[:shared] == other[:shared] and (path != other or value != before):
                self.contested(".".join(path))
        self._written[path] = value

    def contested(self, claim: str) -> None:
        """Note that a claim has more than one writer."""
        self.unknown.append(
            f"more than one mapper writes the claim {claim!r}, and the winner differs from import to import"
        )

    def writes(self, claim: str) -> bool:
        """Return whether a mapper of the first step has written the claim as a whole."""
        return (claim,) in self._written


def path_of(claim: str) -> tuple[str, ...]:
    r"""Split a claim's name on dots; ``\.`` is a dot in a name."""
    return tuple(re.sub(r"\\(.)", r"\1", part) for part in re.findall(r"(?:\\.|[^\\.])+", claim))


def _typed(mapper: Mapper, value: Any) -> Any:
    if isinstance(value, list):
        if mapper.config.get("multivalued") != "true":
            value = value[0]
        else:
            return [_typed(mapper, one) for one in value]
    kind = mapper.config.get("jsonType.label")
    if kind == "boolean":
        return str(value).lower() == "true"
    if kind in _BITS:
        return _whole_number(str(value), _BITS[kind])
    if kind == "JSON":
        return json.loads(value)
    return value


class _NoNumberError(ValueError):
    pass


def _whole_number(text: str, bits: int) -> int:
    """Rule 36: return the number that Java reads in a text: without spaces, and not longer than its type."""
    number = int(text) if re.fullmatch(r"[+-]?\d+", text) else None
    if number is None or not -(1 << (bits - 1)) <= number < 1 << (bits - 1):
        raise _NoNumberError
    return number
