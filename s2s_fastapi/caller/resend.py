"""Whether a request can be sent again, and how the first answer is discarded."""

import re
from typing import Any, Final

from s2s_fastapi.engine.steps import Steps

__all__ = ["discarding", "replayable", "short"]

_SMALL_BODY = 4096
_DIGITS: Final = re.compile(r"[0-9]{1,4}")


def replayable(request: Any) -> bool:
    """Return whether the body of `request` can be sent a second time exactly.

    Only a ``ByteStream`` can. A file, an iterator or a multipart form would be empty or shorter the second time, without an error.
    """
    kind = type(request.stream)
    return kind.__name__ == "ByteStream" and kind.__module__.partition(".")[0] in ("httpx", "httpx2")


def discarding(response: Any) -> Steps[None]:
    """Discard the body of a sync or async response without reading it: httpx would read all of it, and it may never end."""
    if _worth_closing(response):

        def close() -> None:
            response.stream.close()

        async def aclose() -> None:
            await response.stream.aclose()

        yield close, aclose  # a stream has one of the two
        _empty(response)


def _worth_closing(response: Any) -> bool:
    if response.is_closed or response.is_stream_consumed:  # a hook has read it
        return False
    return not short(response.headers)


def short(headers: Any) -> bool:
    """Return whether the body of a response is worth reading: reading a short one keeps the connection for the second request."""
    if "Content-Encoding" in headers:  # a few bytes of it may become gigabytes
        return False
    length = headers.get("Content-Length", "")
    return _DIGITS.fullmatch(length) is not None and int(length) <= _SMALL_BODY


def _empty(response: Any) -> None:
    elapsed = getattr(response.stream, "elapsed", None)  # httpx2 keeps it on the stream, httpx on the response
    if elapsed is not None:
        response.elapsed = elapsed
    response.headers.pop("Content-Encoding", None)  # or a decoder would miss its end
    response.stream = type(response.request.stream)(b"")
