"""Swap attributes of an object for the time of a block, in whatever order blocks end."""

import threading
from collections.abc import Collection, Mapping
from typing import Any, Final

from s2s_fastapi.errors import ConfigurationError

__all__ = ["Swap", "original", "present", "swapping"]

_ABSENT: Final = object()
swapping: Final = threading.RLock()
_changed: "Final[dict[int, _Changed]]" = {}


class Swap:
    """The attributes that one block gives to one object: one swap for each object. `owner` tells blocks apart that must not meet."""

    def __init__(self, target: Any, attributes: Mapping[str, Any], owner: object) -> None:
        """Take note. Nothing is changed before `begin`."""
        self.target = target
        self.attributes = dict(attributes)
        self.owner = owner

    def begin(self) -> None:
        """Show the attributes of this block. Those that were there are kept, as they are now.

        Raises:
            ConfigurationError: A block with another owner is open.
        """
        with swapping:
            changed = _changed.get(id(self.target)) or _Changed(self.target)
            if any(block.owner is not self.owner for block in changed.blocks):
                raise ConfigurationError(
                    f"{type(self.target).__name__} trusts another test issuer at the moment: use one issuer for all blocks on an app."
                )
            _changed[id(self.target)] = changed
            changed.shown().attributes |= present(self.target, changed.names())
            changed.blocks.append(self)
            changed.original.attributes |= {
                name: value
                for name, value in present(self.target, self.attributes).items()
                if name not in changed.original.attributes
            }
            _write(self.target, self.attributes)

    def end(self) -> None:
        """Show what the newest of the other blocks has, or else what was there before all of them."""
        with swapping:
            changed = _changed[id(self.target)]
            newest = changed.shown() is self
            changed.blocks.remove(self)
            if newest:
                _write(self.target, {**changed.original.attributes, **changed.shown().attributes})
            if not changed.blocks:
                del _changed[id(self.target)]


class _Changed:
    def __init__(self, target: Any) -> None:
        self.target = target  # so that the id stays its own
        self.original = Swap(target, {}, None)
        self.blocks: list[Swap] = []

    def shown(self) -> Swap:
        return self.blocks[-1] if self.blocks else self.original

    def names(self) -> list[str]:
        return list(self.shown().attributes)


def original(target: Any) -> dict[str, Any]:
    """Return the attributes of `target` as they were before all open blocks."""
    with swapping:
        changed = _changed.get(id(target))
        kept = {} if changed is None else changed.original.attributes
        return {name: value for name, value in {**vars(target), **kept}.items() if value is not _ABSENT}


def present(target: Any, names: Collection[str]) -> dict[str, Any]:
    """Return attributes as they are now."""
    return {name: vars(target).get(name, _ABSENT) for name in names}


def _write(target: Any, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        if value is not _ABSENT:
            setattr(target, name, value)
        elif name in vars(target):
            delattr(target, name)
