"""A dependency may return a requirement instead of asking it. That shows only when it runs, so its return value is checked.

- ``dependencies=[Depends(make_admin)]``: FastAPI drops the value, so a requirement there is an error at once.
- A parameter: the code gets the value and may ask it by hand. If nothing has asked it when the answer starts, that is an error.
- Neither is an error if the route asks the same requirement, or a stronger one, anyway.
"""

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from pathlib import PurePath
from types import MethodType
from typing import Any, Final, get_origin
from uuid import UUID

from fastapi.params import Depends
from fastapi.security.base import SecurityBase
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from s2s_fastapi.decision import Decision
from s2s_fastapi.declared.asked import asked, covers
from s2s_fastapi.declared.callables import line_of, name_of
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.fastapi_internals import gives, parameters_of, returned_by
from s2s_fastapi.principal import Principal
from s2s_fastapi.requirement.request_state import SCOPE_KEY, Anonymous, Authenticated, Unasked
from s2s_fastapi.requirement.requirement import Requirement

__all__ = ["look_at_returned"]

_CONNECTION: Final = "s2s_fastapi_connection"
"""The parameter in which FastAPI gives a watched dependency the request."""
_KNOWN: Final = (__name__.partition(".")[0], "fastapi")
"""Packages whose dependencies never return a requirement."""
_VALUES: Final = (
    str, bytes, bytearray, int, float, complex, date, time, timedelta, Decimal, UUID, Enum, PurePath, BaseModel,
)  # fmt: skip
"""Types whose values are never requirements. With any other annotation (a protocol, a base class, an alias) the value may be one."""
_MEMBERS: Final = 100


def look_at_returned(dependants: Iterable[Any]) -> None:
    """From now on check what the dependencies of these routes return, unless their annotation excludes a requirement."""
    for dependant in dependants:
        _watch(dependant, tuple(asked(dependant)))


def _watch(dependant: Any, asking: tuple[Requirement, ...]) -> None:
    for dependency in dependant.dependencies:
        if _may_return_requirement(dependency.call):
            dependency.call = watched = _KINDS[gives(dependency.call)](
                dependency.call, asking, discarded=dependency.name is None
            )
            if watched.adds_connection:
                dependency.http_connection_param_name = watched.connection
        _watch(dependency, asking)


def _may_return_requirement(call: Any) -> bool:
    if isinstance(call, _Watched):
        return False
    module = getattr(call, "__module__", None) or type(call).__module__
    if str(module).partition(".")[0] in _KNOWN:
        return False
    made = call if inspect.isclass(call) else returned_by(call)
    return not (inspect.isclass(made) and get_origin(made) is None and issubclass(made, _VALUES))


def _held(value: Any, *, shallow: bool = False) -> Iterator[Requirement]:
    """Yield the requirements that a value is, or that it holds where no code can ask them."""
    if issubclass(type(value), Requirement):  # not isinstance: a mock says that it is one
        yield value
    elif isinstance(value, Depends):
        yield from _held(value.dependency, shallow=True)
    elif isinstance(value, MethodType):
        yield from _held(value.__self__, shallow=True)
    elif isinstance(value, functools.partial):
        yield from _held(value.func, shallow=True)
    elif not shallow and type(value) in (list, tuple, set, frozenset, dict):
        members = value.values() if type(value) is dict else value
        for member in tuple(islice(members, _MEMBERS)):
            yield from _held(member, shallow=True)


class _Watched:
    """A dependency of the developer whose return value is checked. It equals the original, so that ``dependency_overrides`` finds it."""

    __s2s_watched__ = True

    def __init__(self, call: Any, asking: tuple[Requirement, ...], *, discarded: bool) -> None:
        self.watched = call
        if isinstance(call, SecurityBase):
            self.__wrapped__ = (
                call  # FastAPI looks through this for the security scheme of the document, and for the kind of callable
            )
        self._asking = asking
        self._discarded = discarded
        parameters = list(parameters_of(call))
        self._own = next((each.name for each in parameters if _is_connection(each.annotation)), "")
        self.connection = _CONNECTION
        while any(each.name == self.connection for each in parameters):
            self.connection += "_"
        if self.adds_connection:
            last = len(parameters) - (bool(parameters) and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD)
            parameters.insert(
                last, inspect.Parameter(self.connection, inspect.Parameter.KEYWORD_ONLY, annotation=HTTPConnection)
            )
        self.__signature__ = inspect.Signature(parameters)

    @property
    def adds_connection(self) -> bool:
        """Whether the dependency itself does not take the request or the WebSocket."""
        return not self._own

    def __eq__(self, other: object) -> bool:
        return bool(self.watched == (other.watched if isinstance(other, _Watched) else other))

    def __hash__(self) -> int:
        return hash(self.watched)

    def _connection(self, values: dict[str, Any]) -> HTTPConnection | None:
        found = values.get(self._own) if self._own else values.pop(self.connection, None)
        return found if isinstance(found, HTTPConnection) else None

    def _look(self, value: Any, connection: HTTPConnection | None) -> Any:
        found = None if connection is None else connection.scope.get(SCOPE_KEY)
        state = found if connection is None or isinstance(found, Authenticated) else Anonymous.of(connection.scope)
        if state is None:
            return value  # a public path, or another app: asking the requirement there raises an error anyway
        found = next((each for each in _held(value) if not covers((*self._asking, *state.asked), each)), None)
        if found is None:
            return value
        name, at = name_of(self.watched), line_of(self.watched)
        unasked = Unasked(
            f"The dependency {name}{at and f' ({at})'} returns {found}, and nothing asked it: write Depends({found}) instead, or ask it in "
            "the code: await requirement(request).",
            lambda asked: covers(asked, found),
        )
        kept = connection is not None and any(
            each is value for each in dict(connection.scope.get("state") or {}).values()
        )
        if self._discarded and not kept:  # what it put into request.state the code may still ask
            raise ConfigurationError(unasked.text)
        if type(value) in (list, tuple, set, frozenset, dict):
            return value  # the code may choose one of them
        waiting = state.unasked = {} if state.unasked is None else state.unasked
        key = object()
        waiting[key] = unasked
        return _Returned(value, lambda: waiting.pop(key, None)) if value is found else value


class _WatchedFunction(_Watched):
    def __call__(self, **values: Any) -> Any:
        connection = self._connection(values)
        return self._look(self.watched(**values), connection)


class _WatchedCoroutine(_Watched):
    async def __call__(self, **values: Any) -> Any:
        connection = self._connection(values)
        return self._look(await self.watched(**values), connection)


class _WatchedGenerator(_Watched):
    def __call__(self, **values: Any) -> Iterator[Any]:
        connection = self._connection(values)
        with contextmanager(self.watched)(**values) as value:
            yield self._look(value, connection)


class _WatchedAsyncGenerator(_Watched):
    async def __call__(self, **values: Any) -> AsyncIterator[Any]:
        connection = self._connection(values)
        async with asynccontextmanager(self.watched)(**values) as value:
            yield self._look(value, connection)


_KINDS: Final[dict[str, type[_Watched]]] = {
    "function": _WatchedFunction,
    "coroutine": _WatchedCoroutine,
    "generator": _WatchedGenerator,
    "async generator": _WatchedAsyncGenerator,
}


@dataclass(frozen=True, eq=False, repr=False)
class _Returned(Requirement):
    """A requirement that a dependency returned. It is the same requirement, and remembers that it was asked."""

    requirement: Requirement
    judged: Callable[[], object]

    def __post_init__(self) -> None:
        for name in ("_key", "_hash", "asks_code", "needs_credentials"):  # equal to the requirement it stands for
            object.__setattr__(self, name, getattr(self.requirement, name))

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
