"""The paths that need no token. They are exact, and open GET and HEAD only unless an entry names a method."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from starlette.routing import compile_path

from s2s_fastapi.errors import ConfigurationError

__all__ = ["DOCS", "PublicPath", "PublicPaths"]

DOCS: Final = ("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json")
"""FastAPI's documentation, for ``public_paths=[..., *DOCS]``."""

_READING: Final = frozenset({"GET", "HEAD"})
_METHOD: Final = re.compile(r"[A-Z]+")


@dataclass(frozen=True, slots=True)
class PublicPath:
    """One entry of ``public_paths``: ``/healthz``, ``POST /hooks/x`` or ``POST /hooks/{provider}``."""

    path: str
    methods: frozenset[str]
    template: re.Pattern[str] | None

    @classmethod
    def read(cls, text: str) -> "PublicPath":
        """Read one entry.

        Raises:
            ConfigurationError: It is not a path as the router matches it, or would open more than a reader sees.
        """
        if not isinstance(text, str):
            raise ConfigurationError(f'public_paths takes texts such as "/healthz", not {type(text).__name__}.')
        method, space, path = text.rpartition(" ")
        if space and not _METHOD.fullmatch(method):
            raise ConfigurationError(
                f'public_paths: write {text!r} as a path, or as a method and a path: "POST /hooks/x".'
            )
        if not path.startswith("/") or set(path) & set("?#*") or not path.isprintable():
            raise ConfigurationError(
                f"public_paths: {text!r} is not a path of a route; there are no patterns and no queries."
            )
        try:
            regex, _, convertors = compile_path(path)
        except (AssertionError, ValueError):  # Starlette's own words for a malformed template
            raise ConfigurationError(f"public_paths: {text!r} is not a route template.") from None
        if any(re.fullmatch(convertor.regex, "a/b") for convertor in convertors.values()):
            raise ConfigurationError(
                f"public_paths: {text!r} would open a whole tree; a :path converter is not allowed."
            )
        return cls(path, frozenset({method}) if space else _READING, regex if convertors else None)

    @property
    def text(self) -> str:
        """The entry as it is written in `public_paths`."""
        return self.with_path(self.path)

    def with_path(self, path: str) -> str:
        """Return the text of an entry for the same methods and another path."""
        return path if self.methods == _READING else f"{min(self.methods)} {path}"

    def opens(self, method: str, path: str) -> bool:
        """Return whether a request for ``path``, as the router sees it, needs no token."""
        if method not in self.methods:
            return False
        if self.template is None:
            return path == self.path
        # Printable: the router's `$` also matches before a line break at the end, so the router takes "/hooks/\n" for the route "/hooks/".
        match = self.template.fullmatch(path) if path.isprintable() else None
        # A converter of the app's own may take more than one segment.
        return match is not None and not any("/" in value for value in match.groupdict().values())


class PublicPaths:
    """All public paths of an app."""

    def __init__(self, texts: Iterable[str]) -> None:
        if isinstance(texts, str):
            raise ConfigurationError(f"public_paths takes a list: write [{texts!r}].")
        self.entries = tuple(PublicPath.read(text) for text in texts)
        self._exact = frozenset(
            (method, entry.path) for entry in self.entries if entry.template is None for method in entry.methods
        )
        self._templates = tuple(entry for entry in self.entries if entry.template is not None)

    def open(self, method: str, path: str) -> bool:
        """Return whether a request for ``path``, as the router sees it, needs no token."""
        if (method, path) in self._exact:
            return True
        return bool(self._templates) and any(entry.opens(method, path) for entry in self._templates)

    def beside(self, path: str) -> str:
        """Return an entry that differs from a request for ``path`` in the method, in letter case or in a slash at the end; or nothing."""
        key = path.strip("/").casefold()
        return next((entry.text for entry in self.entries if entry.path.strip("/").casefold() == key), "")
