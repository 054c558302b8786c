"""The value that leaves a claim out of a token, while `None` writes `null`."""

from typing import Any, Final, final

__all__ = ["MISSING"]


@final
class _Missing:
    """The name alone is the repr: ids of tests are made of it, and parallel workers must collect the same ids."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final[Any] = _Missing()
