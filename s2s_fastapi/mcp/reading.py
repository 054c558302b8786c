"""Whether a tool server's components are being read, by nobody's order."""

from contextvars import ContextVar

__all__ = ["READING"]

READING: ContextVar[bool] = ContextVar("s2s_fastapi_reading", default=False)
"""While it is true, FastMCP shows every component, so that `tool_server` can see what stands on it."""
