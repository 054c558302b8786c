"""The small language of the case files: JSON in which some texts and objects stand for a value of the attacked realm.

- A text that is only ``${name}`` becomes the variable, whatever its type. Inside of a longer text it becomes text.
- An object with one member that begins with ``$`` is a function: see `_FUNCTIONS`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from s2s_fastapi.errors import ConfigurationError

__all__ = ["filled"]

_VARIABLE: Final = re.compile(r"\$\{([^}]*)\}")
_FUNCTION: Final = re.compile(r"\$[a-z]+")


def filled(value: Any, variables: Mapping[str, Any]) -> Any:
    """Return ``value`` with its variables and functions replaced.

    Raises:
        ConfigurationError: There is no such variable or function.
    """
    if isinstance(value, str):
        return _text(value, variables)
    if isinstance(value, list):
        return [filled(each, variables) for each in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and _FUNCTION.fullmatch(name := next(iter(value))):
        function = _FUNCTIONS.get(name)
        if function is None:
            raise ConfigurationError(f"A case uses {name}, but there are only {', '.join(sorted(_FUNCTIONS))}.")
        return function(filled(value[name], variables), variables)
    return {str(_text(name, variables)): filled(each, variables) for name, each in value.items()}


def _text(text: str, variables: Mapping[str, Any]) -> Any:
    whole = _VARIABLE.fullmatch(text)
    return _named(whole, variables) if whole else _VARIABLE.sub(lambda found: str(_named(found, variables)), text)


def _named(found: re.Match[str], variables: Mapping[str, Any]) -> Any:
    if found[1] not in variables:
        raise ConfigurationError(f"A case uses {found[0]}, but there are only {', '.join(sorted(variables))}.")
    return variables[found[1]]


_FUNCTIONS: Final[Mapping[str, Callable[[Any, Mapping[str, Any]], Any]]] = {
    "$now": lambda seconds, variables: int(variables["now"]) + seconds,
    "$past": lambda seconds, variables: int(variables["now"] - variables["leeway"] - seconds),
    "$future": lambda seconds, variables: int(variables["now"] + variables["leeway"] + seconds),
    "$string": lambda value, _: str(value),
    "$repeat": lambda values, _: values[0] * values[1],
    "$slice": lambda values, _: values[0][values[1] : values[2]],
    "$replace": lambda values, _: values[0].replace(values[1], values[2]),
    "$upper": lambda text, _: text.upper(),
    "$join": lambda values, _: "".join(values),
}
"""Examples of all of them are in docs/conformance/README.md."""
