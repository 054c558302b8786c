"""Routes that an app adds after the start check: they are noticed at the next request, and checked before they answer."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

__all__ = ["FailingRoute", "RouteLists"]

_LAST: Final = itemgetter(-1)


class RouteLists:
    """The lists of routes that were read, to see in little time that a route was added or taken away since."""

    def __init__(self, lists: Iterable[list[Any]] = ()) -> None:
        self._lists = tuple(lists)
        self._filled = tuple(routes for routes in self._lists if routes)
        self._lengths = list(map(len, self._lists))
        self._last = list(map(_LAST, self._filled))

    def changed(self) -> bool:
        """Return whether a list has another length, or another last route, than at the time of reading."""
        # The lengths first: an emptied list has no last route.
        return self._lengths != list(map(len, self._lists)) or self._last != list(map(_LAST, self._filled))


@dataclass(frozen=True, slots=True)
class FailingRoute:
    """A late route that would have stopped the start: what it may take is answered 500."""

    name: str
    template: re.Pattern[str]
    methods: frozenset[str]
    """Empty if the route takes any, or is a WebSocket."""
    problem: str

    def takes(self, method: str, path: str) -> bool:
        """Return whether a request may be for this route."""
        return (not self.methods or method in self.methods) and self.template.fullmatch(path) is not None
