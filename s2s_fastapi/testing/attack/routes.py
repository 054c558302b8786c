"""The routes of an app, as an attacker sees them: each method with a request that passes validation."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from s2s_fastapi.declared.routes import RouteAccess, read_access
from s2s_fastapi.testing.attack.samples import Sample, sample_of, with_path_parameters

__all__ = ["FoundRoute", "routes_of"]

_ANY: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
"""For a route that takes any method."""


@dataclass(frozen=True, slots=True)
class FoundRoute:
    """One method of one declared route."""

    method: str
    path: str
    sample: Sample
    access: RouteAccess


def routes_of(app: Any, prefix: str = "") -> Iterator[FoundRoute]:
    """Yield the routes of an app below ``prefix``, without the pages of its documentation."""
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
            headers = (("host", with_path_parameters(route.host)), *sample.headers) if route.host else sample.headers
            path = f"{with_path_parameters(prefix)}{sample.path}"
            if route.opaque and not path.endswith("/"):
                path += "/"  # where a mounted app begins
            yield FoundRoute(
                method, f"{prefix}{route.path}" or "/", Sample(path or "/", sample.query, headers, sample.body), route
            )


class _Documents:
    """The OpenAPI documents of an app and of what is mounted on it."""

    def __init__(self) -> None:
        self._operations: dict[tuple[str, str], tuple[Mapping[str, Any], Mapping[str, Any]]] = {}

    def add(self, app: Any, prefix: str) -> None:
        """Read the document of one app. It is made anew, because an app may replace its own."""
        if not isinstance(app, FastAPI):
            return
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
