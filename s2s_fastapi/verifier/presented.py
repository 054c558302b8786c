"""What somebody presents without our middleware: a request or a WebSocket of Starlette, or plain pairs of names and values."""

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, Self

from s2s_fastapi.answers import ProtectionSpace, error_of, error_within
from s2s_fastapi.decision import Decision
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.keycloak.cures import credentials_cure
from s2s_fastapi.telemetry.located import located
from s2s_fastapi.telemetry.spans import current_span, hide_query, trace_id
from s2s_fastapi.verifier.bearer import BEARER_OR_DPOP, ONLY_BEARER, brings_credentials, credentials_in

__all__ = ["Connection", "HasScope", "Pairs", "Presented"]

_NO_TEXT: Final = b"Bearer ?"
"""In the place of a value that is no text: credentials that are malformed, if they stand in the header for credentials."""
_METADATA: Final = "In metadata of gRPC or of a message the name is `authorization`."


class HasScope(Protocol):
    """A request or a WebSocket of Starlette or FastAPI."""

    @property
    def scope(self) -> MutableMapping[str, Any]:
        """The ASGI scope."""
        ...


Pairs = Iterable[tuple[str | bytes, str | bytes]] | Mapping[str, str]
Connection = HasScope | Pairs


@dataclass(frozen=True, slots=True)
class Presented:
    """The headers of one request, message or call."""

    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    query: bytes = field(default=b"", repr=False)
    scope: MutableMapping[str, Any] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, connection: Connection) -> Self:
        """Read a connection.

        Raises:
            ConfigurationError: It is neither a request nor pairs of names and values.
        """
        scope = getattr(connection, "scope", None)
        if isinstance(scope, MutableMapping) and "headers" in scope:
            return cls(tuple(scope["headers"]), scope.get("query_string", b""), scope)
        pairs: Any = connection.items() if isinstance(connection, Mapping) else connection
        if hasattr(connection, "headers") or (isinstance(connection, Mapping) and "headers" in connection):
            pairs = None  # an ASGI scope, or another framework's request: a mapping of something else than headers
        if isinstance(pairs, Iterable) and not isinstance(pairs, str | bytes):
            try:
                return cls(tuple(_pair(each) for each in pairs))
            except (TypeError, ValueError):
                pass
        raise ConfigurationError(
            "authenticate takes a request or a WebSocket of Starlette, or pairs of header names and values, not "
            f"{type(connection).__name__}. For an ASGI scope write HTTPConnection(scope); of another framework's request give its headers."
        )

    def credentials(self, dpop: str = "") -> bytes | Decision:
        """Return the bearer credentials, or the refusal if there are none. With ``dpop`` those under the scheme DPoP count, too."""
        found = credentials_in(self.headers, self.query, schemes=BEARER_OR_DPOP if dpop else ONLY_BEARER)
        if isinstance(found, Decision):
            if self.query and self.scope is not None:
                hide_query(current_span())  # it may hold the token, and servers' spans show it
            if not found.cure:
                return Decision(reason=found.reason, cure=credentials_cure(_METADATA, dpop))
        return found

    @property
    def anonymous(self) -> bool:
        """Whether there are no credentials at all: no Authorization, no DPoP, no token in the query."""
        return not brings_credentials(self.headers, self.query)

    def located(self, decision: Decision) -> Decision:
        """Return the decision with its route and its trace, as far as they are known."""
        if self.scope is not None and "path" in self.scope:
            return located(decision, self.scope, current_span())
        return replace(decision, trace_id=trace_id(current_span()))

    def error(self, decision: Decision, space: ProtectionSpace) -> Exception:
        """Return the exception for a refusal. Starlette answers it if there is a request."""
        return error_of(decision, space) if self.scope is None else error_within(self.scope, decision, space)


def _pair(pair: Any) -> tuple[bytes, bytes]:
    """Return a name and its value. A message may have any value under any name: what is no text is no token."""
    if isinstance(pair, str | bytes):
        raise TypeError  # a text of two characters is no pair
    name, value = pair
    return _octets(name).lower(), _octets(value) if isinstance(value, str | bytes) else _NO_TEXT


def _octets(text: object) -> bytes:
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise TypeError
    return text.encode("latin-1", "replace")  # what is replaced is no character of a token
