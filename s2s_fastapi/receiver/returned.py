"""A dependency that returns a requirement instead of asking it: nobody knows before it runs, so its answer is looked at.

FastAPI throws the value of ``dependencies=[Depends(make_admin)]`` away, and hands that of a parameter to the code, which may ask it by
hand or forget it. A value that is thrown away is an error at once. One that is handed over is an error when the answer starts, if
nothing asked it.
"""

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, get_origin

from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from s2s_fastapi.decision import Decision
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.principal import Principal
from s2s_fastapi.receiver.framework import parameters_of, returned_by
from s2s_fastapi.receiver.requirements import Requirement
from s2s_fastapi.receiver.state import SCOPE_KEY, Authenticated

__all__ = ["look_at_returned", "unwatched"]

_CONNECTION: Final = "s2s_fastapi_connection"
"""The parameter in which FastAPI hands a watched dependency the request."""
_OURS: Final = __name__.partition(".")[0]
_ANYTHING: Final = (Any, object)
_CONTAINERS: Final = (dict, list, tuple, set, frozenset)


def look_at_returned(dependants: Iterable[Any]) -> None:
    """Look from now on at what the dependencies of these routes return, unless their annotations say that it is something else."""
    for dependant in dependants:
        for dependency in dependant.dependencies:
            if _may_return_requirement(dependency.call):
                dependency.call = watched = _watched(dependency.call, discarded=dependency.name is None)
                if watched.adds_connection:
                    dependency.http_connection_param_name = _CONNECTION
        look_at_returned(dependant.dependencies)


def unwatched(call: Any) -> Any:
    """Return the developer's own dependency."""
    return call.__wrapped__ if isinstance(call, _Watched) else call


def _may_return_requirement(call: Any) -> bool:
    if isinstance(call, SecurityBase | _Watched) or inspect.isclass(call):
        return False
    if (getattr(call, "__module__", None) or type(call).__module__).partition(".")[0] == _OURS:
        return False
    returned = returned_by(call)
    if get_origin(returned) in _CONTAINERS:
        return False
    return not inspect.isclass(returned) or returned in _ANYTHING or issubclass(returned, Requirement)


def _watched(call: Callable[..., Any], *, discarded: bool) -> "_Watched":
    inner: Any = call
    while isinstance(inner, functools.partial):
        inner = inner.func
    ways = [each for one in (inner, inspect.unwrap(inner)) for each in (one, getattr(one, "__call__", None))]  # noqa: B004 - its own method
    for kind, says in (
        (_WatchedGenerator, inspect.isgeneratorfunction),
        (_WatchedAsyncGenerator, inspect.isasyncgenfunction),
        (_WatchedCoroutine, inspect.iscoroutinefunction),
    ):
        if any(says(way) for way in ways):
            return kind(call, discarded=discarded)
    return _WatchedFunction(call, discarded=discarded)


class _Watched:
    """A dependency of the developer's, whose value is looked at. It is equal to it, so that ``dependency_overrides`` finds it."""

    def __init__(self, call: Callable[..., Any], *, discarded: bool) -> None:
        self.__wrapped__ = call
        self._discarded = discarded
        parameters = list(parameters_of(call))
        self._own = next((each.name for each in parameters if _is_connection(each.annotation)), "")
        if self.adds_connection:
            last = len(parameters) - (bool(parameters) and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD)
            parameters.insert(
                last, inspect.Parameter(_CONNECTION, inspect.Parameter.KEYWORD_ONLY, annotation=HTTPConnection)
            )
        self.__signature__ = inspect.Signature(parameters)

    @property
    def adds_connection(self) -> bool:
        """Whether the dependency itself does not take the request or the WebSocket."""
        return not self._own

    def __eq__(self, other: object) -> bool:
        return bool(self.__wrapped__ == (other.__wrapped__ if isinstance(other, _Watched) else other))

    def __hash__(self) -> int:
        return hash(self.__wrapped__)

    def _connection(self, values: dict[str, Any]) -> HTTPConnection | None:
        found = values.get(self._own) if self._own else values.pop(_CONNECTION, None)
        return found if isinstance(found, HTTPConnection) else None

    def _look(self, value: Any, connection: HTTPConnection | None) -> Any:
        if not isinstance(value, Requirement):
            return value
        name = getattr(self.__wrapped__, "__name__", type(self.__wrapped__).__name__)
        unasked = (
            f"The dependency {name} returns {value}, and nothing asked it: write Depends({value}) instead, or ask it in the code: "
            "await requirement(request)."
        )
        if self._discarded or connection is None:
            raise ConfigurationError(unasked)
        state = connection.scope.get(SCOPE_KEY)
        if not isinstance(state, Authenticated):
            return value  # whoever asks it gets the error that nothing authenticated this request
        waiting = state.unasked = {} if state.unasked is None else state.unasked
        key = object()
        waiting[key] = unasked
        return _Returned(value, lambda: waiting.pop(key, None))


class _WatchedFunction(_Watched):
    def __call__(self, **values: Any) -> Any:
        connection = self._connection(values)
        return self._look(self.__wrapped__(**values), connection)


class _WatchedCoroutine(_Watched):
    async def __call__(self, **values: Any) -> Any:
        connection = self._connection(values)
        return self._look(await self.__wrapped__(**values), connection)


class _WatchedGenerator(_Watched):
    def __call__(self, **values: Any) -> Iterator[Any]:
        connection = self._connection(values)
        with contextmanager(self.__wrapped__)(**values) as value:
            yield self._look(value, connection)


class _WatchedAsyncGenerator(_Watched):
    async def __call__(self, **values: Any) -> AsyncIterator[Any]:
        connection = self._connection(values)
        async with asynccontextmanager(self.__wrapped__)(**values) as value:
            yield self._look(value, connection)


@dataclass(frozen=True, eq=False, repr=False)
class _Returned(Requirement):
    """A requirement that a dependency returned: the same requirement, which notes that it was asked."""

    requirement: Requirement
    judged: Callable[[], object]

    def __post_init__(self) -> None:
        for name in ("_key", "_hash"):  # equal to the requirement it stands for
            object.__setattr__(self, name, vars(self.requirement)[name])

    def __reduce__(self) -> Any:
        return self.requirement.__reduce__()

    def __repr__(self) -> str:
        return repr(self.requirement)

    def judge(self, principal: Principal, client_id: str = "") -> Decision:
        self.judged()
        return self.requirement.judge(principal, client_id)

    def refusals(self, principal: Principal, client_id: str = "") -> tuple[Decision, ...]:
        self.judged()
        return self.requirement.refusals(principal, client_id)


def _is_connection(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, HTTPConnection)
