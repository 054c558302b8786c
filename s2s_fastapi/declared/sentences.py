"""The sentence about a requirement that FastAPI does not ask: where it stands, why FastAPI does not ask it there, and the cure."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Self

from s2s_fastapi.requirement.requirement import Requirement

__all__ = ["Mistake", "Unevaluated", "Where", "Why", "Written"]

_BARE: Final = "FastAPI does not ask a requirement without Depends(...) around it"


class Why(Enum):
    """Why FastAPI does not ask what stands at a place, and what to write instead."""

    PARAMETER = (
        "FastAPI asks only the last Depends of a parameter: join the requirements with & in one Depends(... & ...), or give each its own "
        "parameter"
    )
    INSIDE = "FastAPI does not look inside of a union, a container or an alias: write Annotated[..., Depends(...)] around the whole type"
    ELSEWHERE = "FastAPI does not look there: write dependencies=[Depends(...)] on the route, or one Depends(...) on a parameter"
    SIGNATURE = (
        "FastAPI does not read this parameter, because it reads another signature: write dependencies=[Depends(...)] on the route, or the "
        "parameter on the function below the decorators"
    )
    STARLETTE = "FastAPI does not read a plain Starlette route: put the requirement's guard around the endpoint, as @requirement.guard"
    FIELD = "FastAPI asks no Depends on a field of a model: write it on a parameter of the route, or dependencies=[Depends(...)] on the route"
    ATTRIBUTE = (
        "FastAPI does not read the attributes of a class: write Depends(...) on a parameter of its `__init__` or of the route, or "
        "dependencies=[Depends(...)] on the route"
    )
    LATE = (
        "FastAPI does not ask it here, because the route was added or included earlier: write dependencies=[Depends(...)] in "
        "FastAPI(...), APIRouter(...) or include_router(...)"
    )
    ASSIGNED = (
        "FastAPI takes dependencies only from the arguments of FastAPI(...), APIRouter(...), include_router(...) and the decorator of a "
        "route: write dependencies=[Depends(...)] there"
    )
    NOT_COPIED = (
        "an included router makes a new route of the path and the endpoint only: put the guard around the endpoint"
    )
    MIDDLEWARE = "FastAPI reads no Depends of a middleware or an exception handler: write dependencies=[Depends(...)] on the routes"
    CODE = "FastAPI does not ask it there: if the code does not ask it by hand either, as with `await requirement(request)`, write Depends(...)"


@dataclass(frozen=True, slots=True)
class Where:
    """A place in the code of a route."""

    text: str
    """As a sentence begins: ``the parameter caller``."""
    why: Why
    whole: bool = False
    """True if a framework reads the value itself. Then a requirement without ``Depends`` cannot be meant for the code."""
    certain: bool = True
    """False if the code may ask by hand what stands here, or pass it on."""
    opens: bool = True
    """True if an object of an unknown class is read as well."""
    shared: tuple[int, str] | None = None
    """The identity of the class or object that holds the attribute. Several routes may share it."""
    everywhere: tuple[int, str] | None = None
    """The identity of the module's names that hold the global. It is reported once, however many routes use it."""

    def inside(self, text: str = "", why: Why | None = None, *, certain: bool = True) -> Self:
        """Return a place within this one. No framework reads it as a whole, and it is certain only if this one is."""
        # Not `replace`, which takes most of the time of reading a large app.
        return type(self)(
            text or self.text,
            why or self.why,
            certain=self.certain and certain,
            opens=self.opens,
            shared=self.shared,
            everywhere=self.everywhere,
        )


@dataclass(frozen=True, slots=True)
class Written:
    """A requirement that stands in the code of a route."""

    requirement: Requirement | None
    """None if it is not known which."""
    where: Where
    cure: str
    certain: bool = True
    """False if the code may ask it by hand."""
    what: str = ""
    """What stands there, if no requirement is known."""
    dependency: Any = field(default=None, compare=False, repr=False)
    """The dependency that asks it by hand, if there is one. Then it is enough that FastAPI runs that dependency with the same ``scopes``."""
    scopes: frozenset[str] = frozenset()

    @classmethod
    def depends(cls, requirement: Requirement, where: Where) -> Self:
        """Return the requirement of a ``Depends``. Code cannot ask a ``Depends`` by hand, so it is certain."""
        return cls(requirement, where, where.why.value, where.certain)

    @classmethod
    def bare(cls, requirement: Requirement, where: Where) -> Self:
        """Return a requirement without a ``Depends``. The code may ask it by hand, unless a framework reads the whole value."""
        certain = where.certain and where.whole
        return cls(requirement, where, _BARE if certain else Why.CODE.value, certain)

    @property
    def sentence(self) -> str:
        """What is wrong and what to write instead."""
        return f"{self.where.text} has {self.what or f'the requirement {self.requirement}'}: {self.cure}"


@dataclass(frozen=True, slots=True)
class Unevaluated:
    """A parameter whose annotation is still text, so that FastAPI saw no ``Depends`` in it."""

    parameter: str
    annotation: str
    read: bool = True
    """False if FastAPI reads a ``Depends`` that is the default, or does not read the parameter at all."""

    @property
    def names_depends(self) -> bool:
        """Whether the text itself says that a dependency is meant."""
        return any(word in self.annotation for word in ("Depends", "Security"))

    @property
    def sentence(self) -> str:
        """What is wrong and what to write instead."""
        unseen = "sees no Depends in it" if self.names_depends else "cannot see whether it has a Depends"
        return (
            f"the annotation of the parameter {self.parameter}, {self.annotation!r}, cannot be evaluated, so FastAPI {unseen}: import or "
            "define its names at the top of the module, not below `if TYPE_CHECKING` nor in a function"
        )


@dataclass(frozen=True, slots=True)
class Mistake:
    """A requirement written where FastAPI ignores it."""

    text: str
    """What is wrong and what to write instead."""
    at: str = ""
    """File and line of the endpoint or the dependency it stands in: ``app.py:12``."""
    certain: bool = True
    """False if the code may still ask it by hand. Then the start check only warns."""
    unless_public: bool = False
    """True if the start check only warns of it on a public route."""
    shared: tuple[int, str] | None = None
    """An attribute that several routes share. It is a mistake only if FastAPI asks it on none of them."""
    override: bool = False
    """True if ``dependency_overrides`` removes the requirement. Tests do that on purpose."""
    requirement: Requirement | None = None
    """The requirement that is not asked, if it is known. It is no mistake if the middleware asks it anyway."""
    everywhere: tuple[int, str] | None = None
    """What many routes share, such as a global that their code names. It is reported once."""

    @classmethod
    def of(cls, found: Written, at: str) -> Self:
        """Return what is wrong with a requirement that FastAPI does not ask."""
        where = found.where
        return cls(
            found.sentence,
            at,
            found.certain,
            shared=where.shared,
            requirement=found.requirement,
            everywhere=where.everywhere,
        )
