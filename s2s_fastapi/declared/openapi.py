"""What an app's OpenAPI document says about its callers. The start adds it; `openapi_schema` returns it without a start."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.security.base import SecurityBase
from starlette.types import ASGIApp

from s2s_fastapi.answers import ProtectionSpace
from s2s_fastapi.declared.openapi_operation import (
    CERTIFICATE_SCHEME,
    CERTIFICATE_SCHEME_NAME,
    ERROR_SCHEMA,
    PROOF_SCHEME,
    PROOF_SCHEME_NAME,
    Way,
    refusals,
    scheme,
    security,
)
from s2s_fastapi.declared.routes import OWN_AUTHENTICATION, AppAt, RouteAccess, layers, read_access
from s2s_fastapi.declared.start_check import AccessCheck
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.fastapi_internals import added_middleware, route_contexts
from s2s_fastapi.keycloak.endpoints import PublicEndpoints
from s2s_fastapi.requirement.requirement import Requirement

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["Documentation", "openapi_schema"]

_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_CONVERTOR: Final = re.compile(r"{([^}:]+):[^}]+}")
_NOTE: Final = "x-service-auth"
_ANYBODY: Final = "anybody without credentials"

_UNNAMED: Final = ProtectionSpace()

_Document = dict[str, Any]


class _Authenticating(Protocol):
    """A middleware that knows what it enforces on the app below it."""

    def documentation(self, app: Any = None) -> "Documentation": ...


def openapi_schema(app: ASGIApp, mounted: FastAPI | None = None) -> dict[str, Any]:
    """Return the OpenAPI document of ``app`` as it is served after the start, without starting anything.

    There is no server, no network and no secret in it, and the app serves what it served before. With ``mounted`` it is the
    document of that FastAPI app below ``app``.

    Raises:
        ConfigurationError: No `ServiceAuthMiddleware` is on the app, a setting is missing (the document names the realm and the
            audience: ``KEYCLOAK_URL``, ``KEYCLOAK_REALM``, ``KEYCLOAK_CLIENT_ID``), or the app would not start.
    """
    documentation = _middleware(app).documentation()
    wanted = mounted or next((layer for layer in layers(app) if isinstance(layer, FastAPI)), None)
    place = next((place for place in documentation.places() if place.app is wanted), None)
    if place is None:
        raise ConfigurationError(
            "openapi_schema finds no such FastAPI app whose routes it can read; one with a ServiceAuthMiddleware of its own is "
            "given without the app around it."
        )
    openapi = place.app.openapi
    return documentation.of(openapi.source() if isinstance(openapi, _Documented) else openapi(), place)


def _middleware(app: Any) -> _Authenticating:
    for layer in layers(app):
        if getattr(type(layer), OWN_AUTHENTICATION, False):
            return cast("_Authenticating", layer)
        for entry in added_middleware(layer):
            if getattr(entry.cls, OWN_AUTHENTICATION, False):
                return cast("_Authenticating", entry.cls(layer, *entry.args, **entry.kwargs))
    raise ConfigurationError(
        "openapi_schema finds no ServiceAuthMiddleware: give it the app that has one (app.add_middleware(ServiceAuthMiddleware)), "
        "and an app mounted below that one as mounted=..."
    )


@dataclass(frozen=True, slots=True)
class Documentation:
    """What a middleware that was checked knows about the documents of the apps below it."""

    below: Any
    """What the routes are read from."""
    check: AccessCheck
    settings: "KeycloakSettings"
    root: Any = None
    """The app that the middleware was added to, if it is not found below the middleware."""
    others: "tuple[KeycloakSettings, ...]" = ()
    """The settings of further realms."""
    space: ProtectionSpace = _UNNAMED
    """What challenges say of the app."""

    def places(self) -> Iterator[AppAt]:
        """Yield each FastAPI app whose callers this middleware decides about, once, at its first mount."""
        seen: set[int] = set()
        for place in (AppAt(self.root), *self.check.access.apps):
            if isinstance(place.app, FastAPI) and id(place.app) not in seen:
                seen.add(id(place.app))
                yield place

    def install(self) -> None:
        """Let ``app.openapi()`` of all these apps return the whole document."""
        for place in self.places():
            before = place.app.openapi
            openapi = before.given_up() if isinstance(before, _Documented) else before
            place.app.openapi = _Documented(place, openapi, self)

    def of(self, document: _Document, place: AppAt) -> _Document:
        """Return a copy of ``document`` with the callers of each operation; what the user wrote in it stays as it is."""
        document = deepcopy(document)
        routes = _by_operation(read_access(self.below).routes)  # again: some may have been added since the start
        guarded = [
            (name, operation, self._ways(route), self.check.opens_without_credentials(name.method, route.path))
            for name, operation in _operations(document)
            if (route := routes.get((place.host, _template(place.path) + name.path, name.method))) is not None
            and not self.check.opens(name.method, route.path)
        ]
        if not guarded:
            return document
        self._add_schemes(document, [(name, way) for name, _, ways, _ in guarded for way in ways])
        body = _error_schema(document)
        schemes = _schemes_of_dependencies(place.app)
        for name, operation, ways, anonymous in guarded:
            own = schemes.get(name, frozenset())
            _add_security(document, operation, ways, own, anonymous=anonymous, check=self.check)
            operation.setdefault(_NOTE, [*map(str, ways), *([_ANYBODY] if anonymous else [])])
            _add_answers(operation, refusals(ways, self.space, body, anonymous=anonymous))
        return document

    def _ways(self, route: RouteAccess) -> list[Way]:
        check = self.check
        ways = (check.in_realm(way) for way in check.ways(route.requirement))
        first = check.realms[:1]
        return list(
            dict.fromkeys(
                Way.of(leaves, check.audiences, check.client_id)
                if realm is None or realm in first
                else Way.of(leaves, realm.audiences, realm.client_id, realm.issuer)
                for realm, leaves in ways
            )
        )

    def _add_schemes(self, document: _Document, taken: Iterable[tuple["_Name", Way]]) -> None:
        used: dict[str, dict[str, list[str]]] = {}
        issuers: dict[str, str] = {}
        for name, way in taken:
            issuers[way.scheme] = way.issuer
            scopes = used.setdefault(way.scheme, {})
            for scope in way.scopes:
                scopes.setdefault(scope, []).append(f"{name.method} {name.path}")
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        if schemes.get(Requirement.scheme_name) == _before_the_start():
            del schemes[Requirement.scheme_name]
        urls = {each.issuer: PublicEndpoints.of(each) for each in self.others} | {"": PublicEndpoints.of(self.settings)}
        for scheme_name, scopes in used.items():
            schemes.setdefault(scheme_name, scheme(scheme_name, urls[issuers[scheme_name]], scopes))
        if self.space.dpop:
            schemes.setdefault(PROOF_SCHEME_NAME, dict(PROOF_SCHEME))
        if self.check.certificate and self.check.dpop != "required":
            schemes.setdefault(CERTIFICATE_SCHEME_NAME, dict(CERTIFICATE_SCHEME))


class _Name(NamedTuple):
    """An operation as its document names it."""

    path: str
    method: str


class _Documented:
    """The ``openapi`` of one app: its own, or what the user made of it, and what the middleware adds."""

    def __init__(self, place: AppAt, openapi: Callable[[], _Document], documentation: Documentation) -> None:
        self._place = place
        self._openapi = openapi
        self._documentation = documentation
        self._source: _Document | None = None
        self._made: _Document | None = None
        self._kept: tuple[_Document, _Document] | None = None

    def __call__(self) -> _Document:
        """Return the whole document. It is kept where FastAPI keeps its own, in ``app.openapi_schema``, and renewed with it.

        If the user keeps the document elsewhere, it is made anew only after it has changed. Anybody may request it, and reading all
        routes each time would block the event loop for as long as hundreds of requests.
        """
        app = self._place.app
        source = self._openapi()
        if source is self._made:
            return source
        if app.openapi_schema is source:
            made = self._documentation.of(source, self._place)
            app.openapi_schema, self._source, self._made = made, source, made
            return made
        kept = self._kept
        if kept is None or kept[0] != source:
            kept = self._kept = deepcopy(source), self._documentation.of(source, self._place)
        return kept[1]

    def source(self) -> _Document:
        """Return the document without what was added."""
        source = self._openapi()
        return self._source if self._source is not None and source is self._made else source

    def given_up(self) -> Callable[[], _Document]:
        """Return the original ``openapi`` and remove this wrapper: another middleware takes the app over."""
        if self._made is not None and self._place.app.openapi_schema is self._made:
            self._place.app.openapi_schema = self._source
        return self._openapi


def _by_operation(routes: Iterable[RouteAccess]) -> dict[tuple[str, str, str], RouteAccess]:
    """Return the routes by host, path as FastAPI writes it, and method; the router takes the first of several."""
    found: dict[tuple[str, str, str], RouteAccess] = {}
    for route in routes:
        for method in route.methods:
            found.setdefault((route.host, _template(route.path), method), route)
    return found


def _template(path: str) -> str:
    """Return a path as it stands in documents: ``/files/{name}`` for ``/files/{name:path}``."""
    return _CONVERTOR.sub(r"{\1}", path)


def _operations(document: _Document) -> Iterator[tuple[_Name, dict[str, Any]]]:
    for path, item in (document.get("paths") or {}).items():
        for method, operation in item.items():
            if method in _METHODS:
                yield _Name(path, method.upper()), operation


def _add_security(
    document: _Document,
    operation: dict[str, Any],
    ways: list[Way],
    generated: frozenset[str],
    *,
    anonymous: bool,
    check: AccessCheck,
) -> None:
    """Add who may call, unless the user has described the operation's security already. ``anonymous``: also requests without credentials.

    Entries that FastAPI generated from other dependencies, such as an API key, are not the user's description. They stay beside ours.
    """
    entries = operation.get("security", document.get("security"))
    own = [entry for entry in entries or () if entry.keys() != {Requirement.scheme_name}]
    if entries is None or (entries and all(entry.keys() <= generated for entry in own)):
        operation["security"] = security(ways, own, anonymous=anonymous, dpop=check.dpop, certificate=check.certificate)
    elif "security" in operation:
        operation["security"] = own


def _add_answers(operation: dict[str, Any], answers: Mapping[str, Any]) -> None:
    """Add the answers, except if the user has one for the same status, its class or the default. FastAPI does the same with its 422."""
    responses = operation.setdefault("responses", {})
    own = frozenset(responses)
    for status, answer in answers.items():
        if own.isdisjoint({status, f"{status[0]}XX", "default"}):
            responses[status] = answer


def _error_schema(document: _Document) -> dict[str, str]:
    """Return a reference to the schema of the body, in the document under a name that is not taken."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    name = str(ERROR_SCHEMA["title"])
    while schemas.setdefault(name, dict(ERROR_SCHEMA)) != ERROR_SCHEMA:
        name += "_"
    return {"$ref": f"#/components/schemas/{name}"}


def _schemes_of_dependencies(app: FastAPI) -> dict[_Name, frozenset[str]]:
    """Return the security schemes that FastAPI itself writes down for each operation."""
    return {
        _Name(_template(str(context.path)), method): frozenset(_scheme_names(context.dependant))
        for entry in app.routes
        for context in route_contexts(entry)
        if getattr(context, "dependant", None) is not None
        for method in context.methods or ()
    }


def _scheme_names(dependant: Any) -> Iterator[str]:
    for dependency in dependant.dependencies:
        if isinstance(dependency.call, SecurityBase):
            yield dependency.call.scheme_name
        yield from _scheme_names(dependency)


def _before_the_start() -> Any:
    return jsonable_encoder(Requirement.model, by_alias=True, exclude_none=True)
