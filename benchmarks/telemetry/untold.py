"""The package a second time in one process, without its telemetry.

What telemetry costs is less than by what two processes differ, and less than what is lost when functions that are in use are
exchanged. So both copies are there, each with code of its own, and take turns.
"""

import operator
import sys
from contextlib import nullcontext
from importlib import import_module
from itertools import repeat
from types import ModuleType, SimpleNamespace
from typing import Any, Final

_COPIED: Final = ("s2s_fastapi", "benchmarks")
_TELEMETRY: Final = "s2s_fastapi.telemetry."
_INSTRUMENT: Final = SimpleNamespace(add=operator.is_, record=operator.is_)
_TAKEN_OUT: Final = {
    "s2s_fastapi.telemetry.metrics": {
        "decided": bool,
        "DECISIONS": _INSTRUMENT,
        "LOOKUPS": _INSTRUMENT,
        "VERIFICATION": _INSTRUMENT,
    },
    "s2s_fastapi.telemetry.spans": {"current_span": None, "describe": operator.is_, "span": None},
    "s2s_fastapi.caller.carried": {"propagate": bool},
}
"""By the module that has it, with the builtin that takes its place, which does next to nothing: a call of it takes 0.03 µs."""
_METHODS: Final = {"s2s_fastapi.caller.shared_token": ("SharedToken", "used", bool)}


def untold(*names: str) -> tuple[ModuleType, ...]:
    """Return modules of the benchmarks that use the other copy.

    Raises:
        AttributeError: What is to be taken out is not where it was.
        RuntimeError: Nobody uses it any more.
    """
    told = _pop()
    try:
        modules = tuple(import_module(name) for name in names)
        for module, nothings in _TAKEN_OUT.items():
            for name, nothing in nothings.items():
                _exchange(getattr(import_module(module), name), nothing or _no_span(name), name)
        for module, (holder, name, nothing) in _METHODS.items():
            found = getattr(import_module(module), holder)
            getattr(found, name)
            setattr(found, name, nothing)
    finally:
        _pop()
        sys.modules.update(told)
    return modules


def _no_span(name: str) -> Any:
    invalid = import_module("opentelemetry.trace").INVALID_SPAN
    if name == "current_span":
        return repeat(invalid).__next__
    nothing = nullcontext(invalid)
    return lambda *_, **__: nothing


def _exchange(thing: object, nothing: object, name: str) -> None:
    """Put a builtin into the place of `thing` wherever the copy has it under a global name, but for telemetry itself."""
    users = 0
    for module in list(sys.modules.values()):
        if not module.__name__.startswith("s2s_fastapi.") or module.__name__.startswith(_TELEMETRY):
            continue
        for known, value in list(vars(module).items()):
            if value is thing:
                setattr(module, known, nothing)
                users += 1
    if not users:
        raise RuntimeError(f"nobody uses {name} any more")


def _pop() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] in _COPIED]
    return {name: sys.modules.pop(name) for name in names}
