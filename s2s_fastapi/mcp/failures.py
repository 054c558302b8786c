"""Errors of this package that a tool, a resource or a prompt raises: the log gets their text, the caller one fixed sentence."""

import re
from collections.abc import Iterator
from typing import Final

from fastapi.exceptions import HTTPException

from s2s_fastapi.decision import Reason
from s2s_fastapi.errors import S2SError

__all__ = ["ours", "sentence"]

_OF_THE_SDK: Final = re.compile(
    r"Error (?:(?:calling|executing|reading|rendering) (?:tool|resource|prompt)|creating resource from template) \S+"
)
"""What an SDK says of an exception whose text it keeps to itself."""


def ours(raised: BaseException) -> S2SError | None:
    """Return the error of this package that an SDK has wrapped in ``raised``.

    None if there is none, or if the app caught it and raised a sentence of its own: that one is for the caller.
    """
    text = str(raised)
    for error in _chain(raised):
        if isinstance(error, S2SError) and (str(error) in text or _OF_THE_SDK.fullmatch(text)):
            return error
    return None


def sentence(error: S2SError) -> str:
    """Return what the caller may read: in a route it would be the ``detail`` of the answer."""
    return str(error.detail) if isinstance(error, HTTPException) else Reason.NOT_STARTED.detail


def _chain(raised: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    current: BaseException | None = raised
    while current is not None and current not in seen:
        yield current
        seen.append(current)
        current = current.__cause__ or current.__context__
