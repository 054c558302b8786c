"""The public paths that no route answers, each with the route that was probably meant."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from s2s_fastapi.declared.public_paths import DOCS, PublicPath
from s2s_fastapi.declared.routes import RouteAccess

__all__ = ["Unanswered", "unanswered"]


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A public path that no route answers."""

    entry: PublicPath
    nearest: RouteAccess | None = None

    def __str__(self) -> str:
        said = f"public_paths: no route answers {self.entry.text}. It opens nothing, unless a middleware answers it."
        route = self.nearest
        if route is None:
            return said
        if route.websocket:
            return f"{said} {route.name} is a WebSocket, and a WebSocket is never public."
        if route.documentation == self.entry.path:
            return f'{said} The app serves this page of its documentation at {route.path}: add "{route.path}".'
        if route.requirement is not None and not route.guarded_above:
            return f"{said} The nearest route is {route.name}, which carries a requirement."
        return f'{said} The nearest route is {route.name}: if you mean it, write "{self._meant(route)}".'

    def _meant(self, route: RouteAccess) -> str:
        if not route.methods or self.entry.methods & route.methods:
            return self.entry.with_path(_path_of(route))
        return f"{min(route.methods)} {_path_of(route)}"


def unanswered(
    entry: PublicPath, routes: Sequence[RouteAccess], opens: Callable[[str, str], bool]
) -> Unanswered | None:
    """Return the warning about a public path that no route answers, or None if there is nothing to warn of.

    - The route that was meant is public already. For example, `/health` beside `/health/` opens the redirect to it.
    - It is one of `DOCS`, and the app has no such page.
    - It is for OPTIONS. CORSMiddleware answers a preflight, not a route.
    """
    if entry.methods == {"OPTIONS"}:
        return None
    pages = [route for route in routes if route.documentation == entry.path]
    if entry.path in DOCS and not pages:
        return None
    for close in (pages, *([route for route in routes if like(_path_of(route), entry.path)] for like in _LIKENESS)):
        answering = [route for route in close if not route.websocket]
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


def _one_without_a_prefix(one: str, other: str) -> bool:
    """Return whether one path is the other without its first segments, such as the prefix of a router."""
    short, long = sorted((one.strip("/").split("/"), other.strip("/").split("/")), key=len)
    return short != [""] and long[-len(short) :] == short


def _one_letter_apart(one: str, other: str) -> bool:
    """Return whether the paths differ in one letter that was left out, added or replaced."""
    short, long = sorted((one, other), key=len)
    same = next((index for index, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    return long[same + 1 :] == short[same + len(short) - len(long) + 1 :]


_LIKENESS = (_same, _same_but_for_slash_and_case, _one_without_a_prefix, _one_letter_apart)
