"""How releases of Keycloak differ on the wire, as measured on 26.0.8 and 26.7.3."""

import re
from dataclasses import dataclass
from typing import Final, Self

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.keycloak.exchange import SINCE

__all__ = ["NEWEST", "Wire"]

NEWEST: Final = "26.7.3"
_NUMBERS: Final = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.\d{1,4})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """How one release behaves over HTTP. The realm model computes what it puts into tokens."""

    strict: bool
    """Refuses paths that are not normal, ignores long parameters and broken Basic headers, checks ``Origin``, knows HEAD."""
    marked_ids: bool
    """Writes session, token type and grant in front of ``jti``."""
    short_sessions: bool
    """``sid`` is 24 characters of base64url, no UUID."""
    exchanges: bool
    """Knows standard token exchange."""

    @classmethod
    def of(cls, version: str) -> Self:
        """Return how `version` answers. Between the two versions that were measured, it knows only what the release notes say.

        Raises:
            ConfigurationError: It is no version.
        """
        found = _NUMBERS.fullmatch(version)
        if found is None:
            raise ConfigurationError(f"{version!r} is no version of Keycloak: write {NEWEST}.")
        release = int(found[1]), int(found[2])
        return cls(
            strict=release >= (26, 7),
            marked_ids=release >= (26, 2),
            short_sessions=release >= (26, 5),
            exchanges=release >= SINCE,
        )
