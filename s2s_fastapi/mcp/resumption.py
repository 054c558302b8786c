"""A client that resumes a stream gets the events of its own session, and no others."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

__all__ = ["separate_sessions"]


def separate_sessions(manager: Any) -> None:
    """Let each session of the official SDK keep its events apart in the event store.

    The SDK has one store for all sessions and names a stream after the id of a JSON-RPC request. Those are 1, 2, 3 in every session, so a caller
    that resumes its own stream 1 would get what all others got in theirs. FastMCP keeps them apart by itself, also as a property of its manager.
    """
    kind = type(manager)
    if isinstance(inspect.getattr_static(manager, "event_store"), property):
        return
    store = manager.event_store
    if store is not None:
        # The manager reads it once for each session. Only a property of its class can give each of them another one.
        apart = property(lambda _: _EventsOfSession(store))
        manager.__class__ = type(kind.__name__, (kind,), {"event_store": apart})


class _EventsOfSession:
    """The part of an event store that belongs to one session."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._prefix = f"{uuid4().hex}:"

    async def store_event(self, stream_id: str, message: Any) -> Any:
        """Keep an event."""
        return await self._store.store_event(self._prefix + stream_id, message)

    async def replay_events_after(
        self, last_event_id: str, send_callback: Callable[[Any], Awaitable[None]]
    ) -> str | None:
        """Send what came after an event of this session, and return the id of its stream; None if it is of another."""
        events: list[Any] = []

        async def keep(event: Any) -> None:
            events.append(event)

        found = await self._store.replay_events_after(last_event_id, keep)
        if found is None or not found.startswith(self._prefix):
            return None
        for event in events:
            await send_callback(event)
        return str(found.removeprefix(self._prefix))
