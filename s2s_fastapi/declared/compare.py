"""What is written on one route, compared with what FastAPI asks there. What is written and not asked is a `Mistake`."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from s2s_fastapi.declared.asked import asked, asked_by, below, covers, lost_scopes
from s2s_fastapi.declared.callables import Role, line_of, name_of
from s2s_fastapi.declared.sentences import Mistake, Unevaluated, Written
from s2s_fastapi.declared.written import Reader
from s2s_fastapi.downstream import ACTS_FOR_USER
from s2s_fastapi.fastapi_internals import attributes_of, chain, dependant_of, original_route, returned_by, unwatched
from s2s_fastapi.principal import Principal
from s2s_fastapi.requirement.guard import GUARD_MARK, GUARDED_MARK, Guarded
from s2s_fastapi.requirement.require import FACTORIES, current_principal, optional_principal
from s2s_fastapi.requirement.requirement import Requirement

__all__ = ["Compared", "guards_around"]


@dataclass(frozen=True, slots=True)
class Compared:
    """What one route requires of its caller, what is written on it without effect, and whom it calls."""

    requirements: tuple[Requirement, ...]
    """All of them must be met."""
    mistakes: tuple[Mistake, ...] = ()
    callers: tuple[Any, ...] = ()
    """Dependencies that call other services. Each has a ``downstream``, which is not read yet."""
    shared: frozenset[tuple[int, str]] = frozenset()
    """The attributes of classes with a requirement that FastAPI asks on this route."""
    current_principal: bool = False
    """Whether a dependency is `CurrentPrincipal`."""
    optional_principal: bool = False

    @property
    def acts_for_user(self) -> bool:
        """Whether a dependency calls another service on behalf of the user who sent the request."""
        return any(getattr(type(caller), ACTS_FOR_USER, False) for caller in self.callers)

    @classmethod
    def read_app(cls, reader: Reader, app: Any, around: tuple[Requirement, ...], above: Iterable[Written]) -> Self:
        """Read an ASGI app whose routes cannot be read."""
        found = (*above, *(() if app is None else reader.written(app, Role.STARLETTE)))
        lost = (each for each in found if each.requirement is None or not covers(around, each.requirement))
        return cls(around, tuple(Mistake.of(each, line_of(app)) for each in lost))

    @classmethod
    def read(
        cls, reader: Reader, route: Any, around: tuple[Requirement, ...] = (), above: Iterable[Written] = ()
    ) -> Self:
        """Read the endpoint of a route, and what FastAPI made of its dependencies.

        ``around`` is what guards around the route ask anyway. ``above`` is what stands on the apps and routers around it.
        """
        endpoint, dependant = getattr(route, "endpoint", None), getattr(route, "dependant", None)
        guards = tuple(guards_around(endpoint))
        dependencies = () if dependant is None else tuple(each for each in below(dependant) if each is not dependant)
        requirements = (*guards, *(() if dependant is None else asked(dependant)))
        asking = (*around, *requirements)
        mistakes = [] if dependant is None else list(_misplaced_guards(endpoint, guards, dependant, asking))
        shared: set[tuple[int, str]] = set()
        calls = [unwatched(each.call) for each in dependencies if asked_by(each.call) is None]
        role = Role.STARLETTE if dependant is None else Role.ENDPOINT
        found = [
            (each, endpoint)
            for each in (*above, *reader.on_route(original_route(route)), *reader.written(endpoint, role))
        ]
        found += [(each, call) for call in calls for each in reader.written(call)]
        for each, call in found:
            if each.requirement is not None and covers(asking, each.requirement):
                shared |= {each.where.shared} if each.where.shared else set()
            elif each.dependency is None or not any(
                each.dependency is unwatched(one.call) and each.scopes <= frozenset(one.own_oauth_scopes or ())
                for one in dependencies
            ):
                mistakes.append(Mistake.of(each, line_of(call, endpoint)))
        mistakes += [
            _unread(each, line_of(call, endpoint), protected=bool(asking))
            for call, its in ((endpoint, role), *((call, Role.DEPENDENCY) for call in calls))
            for each in reader.unevaluated(call, its)
            if each.read or each.names_depends or not asking
        ]
        for dependency in dependencies:
            mistakes += _unasked(dependency, asking)
        mistakes += _overridden(dependencies, getattr(route, "dependency_overrides_provider", None), (*around, *guards))
        return cls(
            requirements,
            tuple(dict.fromkeys(mistakes)),
            tuple(caller for dependency in dependencies for caller in _callers(unwatched(dependency.call))),
            frozenset(shared),
            current_principal=current_principal in calls,
            optional_principal=optional_principal in calls,
        )


def _unread(parameter: Unevaluated, at: str, *, protected: bool) -> Mistake:
    certain = parameter.read and (parameter.names_depends or not protected)
    return Mistake(parameter.sentence, at, certain, unless_public=True)


def guards_around(endpoint: Any) -> Iterator[Requirement]:
    """Yield the requirements of guards around an endpoint, through ``functools.wraps``, partials and wrapped apps."""
    for link in chain(endpoint):
        mark = attributes_of(link).get(GUARD_MARK)
        if isinstance(mark, Requirement):
            yield mark
        if type(link) is Guarded:
            yield from guards_around(link.app)


def _callers(call: Any) -> Iterator[Any]:
    # Looked for on the types: reading the attribute would run the developer's own code if the base URL is a function.
    for caller in (call, getattr(call, "__self__", None)):
        if hasattr(type(caller), "downstream"):
            yield caller
            return


def _misplaced_guards(
    endpoint: Any, guards: tuple[Requirement, ...], dependant: Any, asking: tuple[Requirement, ...]
) -> Iterator[Mistake]:
    takes_request = (
        dependant.request_param_name or dependant.websocket_param_name or dependant.http_connection_param_name
    )
    if guards and not takes_request:
        yield Mistake(
            "guard is for Starlette endpoints and finds no request here: on a FastAPI route use Depends(requirement)",
            line_of(endpoint),
        )
    unguarded = attributes_of(endpoint).get(GUARDED_MARK)
    if not guards and unguarded is not None and not covers(asking, unguarded):
        yield Mistake(
            "guard stands above the decorator of the route, which took the function without it: use Depends(requirement)",
            line_of(endpoint),
        )


def _unasked(dependency: Any, asking: tuple[Requirement, ...]) -> Iterator[Mistake]:
    """Yield what is wrong with a dependency that looks like a requirement but asks nothing."""
    call = unwatched(dependency.call)
    name = name_of(call)
    if _is_factory(call) or (dependency.name is None and _returns_requirement(call)):
        yield Mistake(
            f"Depends({name}) makes a requirement and does not ask it: write Depends({name}(...))", line_of(call)
        )
    wanted = lost_scopes(dependency)
    if wanted is not None and not covers(asking, wanted):
        yield Mistake(
            f"Security({name}, scopes=[...]) has the requirement {wanted}, but nothing below it reads the scopes: write Depends({wanted})",
            line_of(call),
            certain=False,  # the scopes may be meant for the document, or for a security scheme that is not ours
            requirement=wanted,
        )
    if issubclass(type(call), type) and issubclass(call, Principal):
        yield Mistake(
            f"Depends() on {name} itself makes one of the request's own data: write Depends(require_...(...)), or CurrentPrincipal",
            line_of(call),
        )


def _is_factory(call: Any) -> bool:
    return any(
        any(link is factory for factory in FACTORIES)
        or (issubclass(type(link), type) and issubclass(link, Requirement))
        for link in chain(call)
    )


def _returns_requirement(call: Any) -> bool:
    """Return whether a dependency is annotated to return a requirement, which FastAPI would ignore."""
    made = returned_by(call)
    return inspect.isclass(made) and issubclass(made, Requirement)


def _overridden(below: Iterable[Any], provider: Any, around: tuple[Requirement, ...]) -> Iterator[Mistake]:
    """Yield the requirements that ``dependency_overrides`` takes away."""
    overrides: Mapping[Any, Any] = getattr(provider, "dependency_overrides", None) or {}
    for dependency in below if overrides else ():
        override = overrides.get(dependency.call)
        if override is None:
            continue
        instead = (*around, *asked(dependant_of(override)))
        for requirement in asked(dependency, tuple(dependency.own_oauth_scopes or ())):
            if not covers(instead, requirement):
                yield Mistake(
                    f"dependency_overrides replaces the requirement {requirement}: outside of tests, take it out",
                    line_of(override),
                    certain=not any(isinstance(each, Requirement) for each in instead),
                    override=True,
                )
