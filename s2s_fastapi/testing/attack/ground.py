"""Where the attacks take place: an app that trusts a realm of the suite, its routes, and who may call them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from s2s_fastapi.decision import Decision
from s2s_fastapi.testing.attack.asgi import Answer, Outgoing
from s2s_fastapi.testing.attack.realm import AttackedRealm
from s2s_fastapi.testing.attack.samples import Sample, with_every_parameter
from s2s_fastapi.testing.marked_endpoints import Reached
from s2s_fastapi.testing.unread import CURE

__all__ = ["UNMARKED", "AttackedRoute", "Ground", "Permits", "Sender", "Shot", "unread_routes"]

UNMARKED: Final = "a request could run code of the app, so none was sent"
_OK: Final = range(200, 300)


class Sender(Protocol):
    """Sends one request to the app."""

    def send(self, request: Outgoing) -> Answer:
        """Return the app's answer."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Permits:
    """Who may call a route, as far as it was told or can be read."""

    claims: Mapping[str, Any]
    """The claims of a caller that may, besides the dates and the issuer."""
    refused: Callable[[Mapping[str, Any]], str] = field(repr=False)
    """Returns why a caller with these claims may not call, as one of our reasons; empty if it may."""
    user: bool = False
    """Whether only a user may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackedRoute:
    """One method of one route."""

    method: str
    path: str
    """As the app declares it."""
    host: str = ""
    """The host it answers to, as declared; empty for any."""
    sample: Sample
    permits: Permits
    guard: str = ""
    """The name of the middleware in front of it: the full list is tried on one route of each."""
    further: str = ""
    """A further realm whose tokens the app accepts; empty if there is none."""
    leeway: float = 30.0
    """Seconds by which clocks may differ: the app tolerates at most so much."""
    public: bool = False
    """Whether anybody may call it, on purpose."""
    anonymous: bool = False
    """Whether requests without any credentials are accepted, on purpose. Others are not."""
    left_out: str = ""
    """Why no request is sent: for example, because it would run code of the app."""
    unread: bool = False
    """Whether it stands for a whole app, to which no route leads that can be read."""
    dpop: Literal["", "accepted", "required"] = ""
    """Whether the app accepts tokens that are bound to a key by DPoP, beside bearer tokens or alone."""
    proof_url: Callable[[str], str] = field(default=str, compare=False, repr=False)
    """Returns the URL that a proof must name (``htu``), for a path that is requested."""
    entry: Any = field(default=None, compare=False, repr=False)
    """What runs the route: markers tell by it which route a request reached."""

    @property
    def name(self) -> str:
        """The route as one writes it."""
        return f"{self.method} {self.host and f'//{self.host}'}{self.path}"

    @property
    def bound(self) -> bool:
        """Whether a good token for it must be bound to a key."""
        return "cnf" in self.permits.claims

    def path_with(self, name: str) -> str:
        """Return its path with this text for each path parameter."""
        return self.sample.path if "{" not in self.path else with_every_parameter(self.path, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """What one request led to."""

    answer: Answer
    reached: bool
    """Whether it came to the place of the endpoint of this route."""
    elsewhere: str = ""
    """The other route that it came to; empty if it came to none."""
    trespassed: bool = False
    """Whether that other route is one that not everybody may call."""
    decisions: tuple[Decision, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether our middleware accepted the token, whatever the app answered then."""
        return any(decision.accepted for decision in self.decisions)

    @property
    def served(self) -> bool:
        """Whether the answer is one for somebody who may call, whoever gave it."""
        return self.reached or self.answer.opened or self.answer.status in _OK


@dataclass(slots=True, kw_only=True)
class Ground:
    """An app that is ready to be attacked."""

    routes: tuple[AttackedRoute, ...]
    realm: AttackedRealm
    sender: Sender
    public: str = "/health"
    """A public path of the app."""
    now: Callable[[], float]
    turn: Callable[[float], None] | None = None
    """Turns the clock of the app by so many seconds; None if nobody can."""
    reached: Callable[[], Sequence[Reached]] | None = None
    """Returns the requests that came to the place of an endpoint; None if that is not known, so that the status tells."""
    fresh: bool = True
    """Whether the app was started for this block, so that it has no keys and no tokens yet."""
    decisions: Sequence[Decision] | None = None
    """What our middleware decided, in order; None if nobody can see it."""
    own: bool
    """Whether our middleware guards the app: then it is held to every case, also to those that only this package promises to refuse."""

    def shoot(self, route: AttackedRoute, **changes: Any) -> Shot:
        """Send one request to a route."""
        sample = route.sample
        request = Outgoing(
            method=route.method,
            path=changes.get("path", sample.path),
            query="&".join(part for part in (sample.query, changes.get("query", "")) if part),
            headers=(*changes.get("headers", ()), *sample.headers),
            body=sample.body,
        )
        before = len(self.reached()) if self.reached else 0
        decided = len(self.decisions or ())
        answer = self.sender.send(request)
        decisions = tuple((self.decisions or ())[decided:])
        if self.reached is None:
            return Shot(answer=answer, reached=answer.status in _OK or answer.opened, decisions=decisions)
        reached = self.reached()[before:]
        # The route may be one of the same app, opened another time.
        own = [each.entry for each in self.routes if (each.name, each.sample) == (route.name, sample)]
        here = any(each.entry is entry for each in reached for entry in own)
        elsewhere = "" if here or not reached else f"{reached[-1].method} {reached[-1].route}"
        guarded = [(each.method, each.entry) for each in self.routes if not (each.public or each.unread)]
        trespassed = not here and any(
            each.method == method and each.entry is entry for each in reached for method, entry in guarded
        )
        return Shot(answer=answer, reached=here, elsewhere=elsewhere, trespassed=trespassed, decisions=decisions)


def unread_routes(apps: Iterable[str]) -> tuple[AttackedRoute, ...]:
    """Return what stands in the report for apps that cannot be attacked, because no route leads there that can be read."""
    nobody = Permits(claims={}, refused=lambda _: "")
    return tuple(
        AttackedRoute(method="APP", path=name, sample=Sample("/"), permits=nobody, left_out=CURE, unread=True)
        for name in apps
    )
