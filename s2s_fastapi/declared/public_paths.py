"""The paths that need no token, always or if the request has none. An entry is exact, and is for GET and HEAD unless it names a method."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.routing import compile_path

from s2s_fastapi.declared.routes import RouteAccess
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.requirement.opened import WEBSOCKET

__all__ = ["DOCS", "OPTIONAL", "PublicPath", "PublicPaths", "Unanswered", "unanswered"]

DOCS: Final = ("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json")
"""FastAPI's documentation, for ``public_paths=[..., *DOCS]``."""

OPTIONAL: Final = "optional_paths"
"""The other option whose entries are written like this."""
_PUBLIC: Final = "public_paths"

_READING: Final = frozenset({"GET", "HEAD"})
_METHOD: Final = re.compile(r"[A-Z]+")
_ORIGIN: Final = re.compile(r"https?://[^/\s]*")
_PATH: Final = re.compile(r"/[\w{}:/.~-]*")
_ONE_BY_ONE: Final = 'Write the full path of each public file, as in "/static/logo.png".'


@dataclass(frozen=True, slots=True)
class PublicPath:
    """One entry of ``public_paths`` or ``optional_paths``: ``/healthz``, ``POST /hooks/x`` or ``POST /hooks/{provider}``."""

    path: str
    methods: frozenset[str]
    template: re.Pattern[str] | None
    option: str = _PUBLIC
    """The option it stands in."""

    @classmethod
    def read(cls, text: str, option: str = _PUBLIC) -> "PublicPath":
        """Read one entry.

        Raises:
            ConfigurationError: It is not a path as the router matches it, or would open more than a reader sees.
        """
        if not isinstance(text, str):
            raise ConfigurationError(_no_text(text, option))
        method, space, path = text.rpartition(" ")
        if (space and not _METHOD.fullmatch(method)) or not path.startswith("/") or not path.isprintable():
            raise ConfigurationError(
                f'{option}: {text!r} is not a path, nor a method and a path as in "POST /hooks/x"{_spelling(text)}.'
            )
        if found := set(path) & set("?#"):
            raise ConfigurationError(
                f"{option}: {text!r} has a {min(found)} in it, and a path has no query and no fragment{_spelling(text)}."
            )
        if "*" in path:
            raise ConfigurationError(f"{option}: {text!r} is a pattern. {_ONE_BY_ONE}")
        if method == WEBSOCKET and option == _PUBLIC:
            raise ConfigurationError(
                f'public_paths: {text!r}: a WebSocket is never public. To accept callers without credentials, write it in {OPTIONAL}=["{text}"].'
            )
        try:
            regex, _, convertors = compile_path(path)
        except (AssertionError, ValueError):  # Starlette's own words for a malformed template
            raise ConfigurationError(f"{option}: {text!r} is not a route template.") from None
        if any(re.fullmatch(convertor.regex, "a/b") for convertor in convertors.values()):
            raise ConfigurationError(f"{option}: {text!r} would open a whole tree. {_ONE_BY_ONE}")
        return cls(path, frozenset({method}) if space else _READING, regex if convertors else None, option)

    @property
    def text(self) -> str:
        """The entry as it is written in its option."""
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
    """All public paths of an app, or all that are optional."""

    def __init__(self, texts: Iterable[str] = (), option: str = _PUBLIC) -> None:
        if isinstance(texts, str):
            raise ConfigurationError(f"{option} takes a list: write [{texts!r}].")
        if not isinstance(texts, Iterable):
            raise ConfigurationError(
                f'{option} takes a list, not {texts!r}: write {option}=["/healthz"], or leave it out.'
            )
        self.entries = tuple(PublicPath.read(text, option) for text in texts)
        self._exact = frozenset(
            (method, entry.path) for entry in self.entries if entry.template is None for method in entry.methods
        )
        self._templates = tuple(entry for entry in self.entries if entry.template is not None)

    def open(self, method: str, path: str) -> bool:
        """Return whether a request for ``path``, as the router sees it, needs no token."""
        if (method, path) in self._exact:
            return True
        return bool(self._templates) and any(entry.opens(method, path) for entry in self._templates)

    def open_whole(self, method: str, path: str) -> bool:
        """Return whether every request for ``path``, as a route declares it, needs no token."""
        if "{" not in path:
            return self.open(method, path)
        return any(entry.path == path and method in entry.methods for entry in self.entries)

    def beside(self, path: str) -> str:
        """Return an entry that differs from ``path`` only in the method, in letter case or in a slash at the end; nothing if there is none."""
        key = path.strip("/").casefold()
        return next((entry.text for entry in self.entries if entry.path.strip("/").casefold() == key), "")


def _no_text(entry: object, option: str) -> str:
    cure = ": write a star in front of it, as in [..., *DOCS]" if isinstance(entry, Iterable) else ""
    return f'{option} takes texts such as "/healthz", not {type(entry).__name__}{cure}.'


def _spelling(text: str) -> str:
    """Return how a public path was probably meant, as the end of a sentence; nothing if nobody can know."""
    text = _ORIGIN.sub("", text).partition("?")[0].partition("#")[0]
    before, slash, path = text.partition("/")
    if not slash:
        before, _, path = text.strip().rpartition(" ")
    methods, path = before.replace(",", " ").upper().split(), f"/{path.strip()}"
    if not path.strip("/") or not _PATH.fullmatch(path) or not all(map(_METHOD.fullmatch, methods)):
        return ""
    return ": write " + ", ".join([f'"{method} {path}"' for method in methods] or [f'"{path}"'])


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A public or optional path that no route answers."""

    entry: PublicPath
    nearest: RouteAccess | None = None

    def __str__(self) -> str:
        said = f"{self.entry.option}: no route answers {self.entry.text}. It opens nothing, unless a middleware answers it."
        route = self.nearest
        if route is None:
            return said
        optional = self.entry.option == OPTIONAL
        if route.websocket and self.entry.methods != {WEBSOCKET}:
            wrong = f'write "{route.name}"' if optional else "and a WebSocket is never public"
            return f"{said} {route.name} is a WebSocket{':' if optional else ','} {wrong}."
        if route.documentation == self.entry.path:
            return f'{said} The app serves this page of its documentation at {route.path}: add "{route.path}".'
        if route.requirement is not None and not route.guarded_above and not optional:
            return f"{said} The nearest route is {route.name}, which carries a requirement."
        if _below(route.path, self.entry.path):
            return f'{said} A public path is one path, and nothing below it: write each path out, as in "{self._meant(route)}".'
        one = " That is one path, and nothing below it." if route.opaque else ""
        return f'{said} The nearest route is {route.name}: if you mean it, write "{self._meant(route)}".{one}'

    def _meant(self, route: RouteAccess) -> str:
        if route.websocket or not route.methods or self.entry.methods & route.methods:
            return self.entry.with_path(_path_of(route))
        return f"{min(route.methods)} {_path_of(route)}"


def unanswered(
    entry: PublicPath, routes: Sequence[RouteAccess], opens: Callable[[str, str], bool]
) -> Unanswered | None:
    """Return the warning about a public or optional path that no route answers, or None if there is nothing to warn of.

    - ``opens`` says whether the same option has a path for a method.
    - The route that was meant is open already. For example, `/health` beside `/health/` opens the redirect to it.
    - It is one of `DOCS`, and the app has no such page.
    - It is for OPTIONS. CORSMiddleware answers a preflight, not a route.
    """
    if entry.methods == {"OPTIONS"}:
        return None
    pages = [route for route in routes if route.documentation == entry.path]
    if entry.path in DOCS and not pages:
        return None
    for close in (pages, *([route for route in routes if like(_path_of(route), entry.path)] for like in _LIKENESS)):
        answering = [route for route in close if route.websocket is (entry.methods == {WEBSOCKET})]
        if any(opens(method, _path_of(route)) for route in answering for method in route.methods or entry.methods):
            return None
        if close:
            return Unanswered(entry, (answering or close)[0])
    return Unanswered(entry)


def _path_of(route: RouteAccess) -> str:
    """Return the path that a route answers. A mount answers the path with a slash at the end, not its own path."""
    return f"{route.path.rstrip('/')}/" if route.opaque else route.path


def _same(one: str, other: str) -> bool:
    return one == other


def _same_but_for_slash_and_case(one: str, other: str) -> bool:
    return one.strip("/").casefold() == other.strip("/").casefold()


def _below(one: str, other: str) -> bool:
    """Return whether the first path begins with the second one, as what is mounted or included there does."""
    return other != "/" and one.startswith(f"{other.rstrip('/')}/") and one != f"{other}/"


def _one_without_a_prefix(one: str, other: str) -> bool:
    """Return whether one path is the other without its first segments, such as the prefix of a router."""
    short, long = sorted((one.strip("/").split("/"), other.strip("/").split("/")), key=len)
    return short != [""] and long[-len(short) :] == short


def _one_letter_apart(one: str, other: str) -> bool:
    """Return whether the paths differ in one letter that was left out, added or replaced."""
    short, long = sorted((one, other), key=len)
    same = next((index for index, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    return long[same + 1 :] == short[same + len(short) - len(long) + 1 :]


_LIKENESS = (_same, _same_but_for_slash_and_case, _below, _one_without_a_prefix, _one_letter_apart)
