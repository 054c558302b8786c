"""The routes of an app, as an attacker sees them: each method with a request that passes validation."""

import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from s2s_fastapi.declared.routes import RouteAccess, read_access
from s2s_fastapi.testing.attack.samples import Sample, sample_of, with_path_parameters

__all__ = ["FoundRoute", "is_named", "routes_of"]

_ANY: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
"""For a route that takes any method."""


@dataclass(frozen=True, slots=True)
class FoundRoute:
    """One method of one declared route."""

    method: str
    path: str
    sample: Sample
    access: RouteAccess
    host: str = ""
    """The host it answers to, as declared; empty for any."""


def routes_of(app: Any, prefix: str = "", host: str = "") -> Iterator[FoundRoute]:
    """Yield the routes of an app below ``prefix``, without the pages of its documentation. ``host`` is the one in front of the app."""
    documents = _Documents()
    access = read_access(app)
    for place in access.apps:
        documents.add(place.app, place.path)
    for route in access.routes:
        if route.documentation:
            continue
        methods = ("WEBSOCKET",) if route.websocket else sorted(route.methods) or _ANY
        for method in methods:
            sample = documents.sample(method, route.path)
            its_host = route.host or host
            headers = (("host", with_path_parameters(its_host)), *sample.headers) if its_host else sample.headers
            path = f"{with_path_parameters(prefix)}{sample.path}"
            if route.opaque and not path.endswith("/"):
                path += "/"  # where a mounted app begins
            yield FoundRoute(
                method,
                f"{prefix}{route.path}" or "/",
                Sample(path or "/", sample.query, headers, sample.body),
                route,
                its_host,
            )


def is_named(route: FoundRoute, names: Collection[str]) -> bool:
    """Return whether a route is among ``names``: with its method and, or without, its host; GET and HEAD also by the path alone."""
    paths = {route.path, f"{route.host and f'//{route.host}'}{route.path}"}
    with_method = {f"{route.method} {path}" for path in paths}
    return not (with_method | (paths if route.method in ("GET", "HEAD") else set())).isdisjoint(names)


class _Documents:
    """The OpenAPI documents of an app and of what is mounted on it."""

    def __init__(self) -> None:
        self._operations: dict[tuple[str, str], tuple[Mapping[str, Any], Mapping[str, Any]]] = {}

    def add(self, app: Any, prefix: str) -> None:
        """Read the document of one app. It is made anew, because an app may replace its own."""
        if not isinstance(app, FastAPI):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what FastAPI has against the document is for whoever shows it
            document = get_openapi(title="x", version="1", routes=app.routes)
        for path, methods in document.get("paths", {}).items():
            for method, operation in methods.items():
                self._operations.setdefault((method.upper(), f"{prefix}{path}"), (operation, document))

    def sample(self, method: str, path: str) -> Sample:
        """Return a valid request; only its path is known if the documents have no such operation."""
        shown = _without_converters(path)
        found = self._operations.get((method, shown)) or (
            self._operations.get(("GET", shown)) if method == "HEAD" else None
        )
        return sample_of(path, *found) if found else Sample(with_path_parameters(path))


def _without_converters(path: str) -> str:
    """Return a path as OpenAPI writes it: ``/files/{name:path}`` is ``/files/{name}``."""
    parts = path.split("{")
    return "{".join(
        [parts[0], *(f"{part.partition('}')[0].partition(':')[0]}}}{part.partition('}')[2]}" for part in parts[1:])]
    )
