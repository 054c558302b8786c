"""Sends the requests of access tests to an app that trusts a test issuer, and judges what happened.

A refusal counts only beside a control: the right caller reached the endpoint of the same route with the same method and the same
(empty) body. And the refusal must be ours, for the reason that was expected.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.declared.access_file import RouteEntry
from s2s_fastapi.testing.access_cases import AccessCase, path_to
from s2s_fastapi.testing.attack.asgi import Answer, AsgiSender, Outgoing
from s2s_fastapi.testing.attack.samples import with_path_parameters
from s2s_fastapi.testing.caller_tokens import CallerToken
from s2s_fastapi.testing.identities import Caller
from s2s_fastapi.testing.issuer import EmbeddedIssuer
from s2s_fastapi.testing.marked_endpoints import Marker, Reached

__all__ = ["AccessOutcome", "AccessRun", "NotTriedError"]

_USER: Final = "ann"
_THIEF: Final = "somebody-who-has-the-token-but-not-its-key"
_LONG_AGO: Final = -600
"""Seconds: no service has so much leeway."""
_OK: Final = range(200, 300)
_WRONG: Final = {False: "did not reach the endpoint", True: "reached the endpoint, but was not accepted"}


@dataclass(frozen=True, slots=True)
class AccessOutcome:
    """How one case ended."""

    name: str
    result: Literal["held", "failed", "not tried"]
    text: str = ""
    """What happened, if it did not hold."""


class NotTriedError(Exception):
    """A case that proves nothing, and why."""


@dataclass(frozen=True, slots=True)
class _Shot:
    """What one request led to."""

    answer: Answer
    reached: tuple[Reached, ...]
    decisions: tuple[Decision, ...]

    @property
    def said(self) -> str:
        """What was decided and answered, for people."""
        decision = self.decisions[-1] if self.decisions else None
        status = "the WebSocket was opened" if self.answer.opened else f"the answer was {self.answer.status}"
        if decision is None:
            why = "the route is outside of it" if self.reached else "something else answered before"
            return f"{status}, and no ServiceAuthMiddleware decided: {why}"
        cure = f" ({decision.cure})" if decision.cure else ""
        return f"the decision was {decision.reason}{' (only observed)' if decision.observed else ''}{cure}; {status}"


@dataclass(slots=True)
class AccessRun:
    """One app that trusts an issuer, with markers in the place of its endpoints."""

    issuer: EmbeddedIssuer
    decisions: Sequence[Decision]
    sender: AsgiSender
    marker: Marker
    entries: Mapping[RouteEntry, Any]
    """What runs each route."""
    unmarked: frozenset[RouteEntry]
    """The routes without a marker."""
    headers: Mapping[str, str]
    controls: dict[tuple[RouteEntry, str, CallerToken], str] = field(default_factory=dict)
    """Why the right caller did not reach an endpoint; empty if it did."""

    def outcome(self, case: AccessCase) -> AccessOutcome:
        """Try one case with each method of the route. It holds if it holds for each method that can be tried."""
        in_front = "Code of the app stands in front of routes there, and would run."
        untried = [reason for reason in (case.not_tried, in_front if case.route in self.unmarked else "") if reason]
        problems: list[str] = []
        held = False
        for method in () if untried else case.methods:
            try:
                problem = self._problem(case, method)
            except NotTriedError as error:
                untried.append(str(error))
            else:
                problems += [problem] if problem else []
                held = held or not problem
        if problems:
            return AccessOutcome(case.name, "failed", "\n".join(problems))
        return AccessOutcome(case.name, "held" if held else "not tried", "\n".join(dict.fromkeys(untried)))

    def _problem(self, case: AccessCase, method: str) -> str:
        """Return what is wrong about one case and one method; nothing if it holds."""
        if case.beside is None:
            return self._open(case, method)
        right_caller = f"with a token of {case.beside}"
        if case.token == case.beside:
            problem = self._control(case.route, method, case.beside)
            return problem and f"{method} {right_caller} {problem}."
        shot = self._send(case.route, method, case.token)
        self._check_place(case.route, shot)
        who = f"{method} {f'with a token of {case.token}' if case.token else 'without a token'}"
        wanted = f"Expected was a refusal with {case.reason.status} {case.reason}, but {shot.said}."
        if shot.reached or shot.answer.opened:
            return f"{who} reached the endpoint. {wanted}"
        problem = self._control(case.route, method, case.beside)
        if problem:
            return (
                f"{method}: a refusal proves nothing here, because nobody gets in. A request {right_caller} {problem}."
            )
        if not shot.decisions or shot.decisions[-1].reason is not case.reason or shot.answer.status in _OK:
            return f"{who} was stopped in another way. {wanted}"
        return ""

    def _control(self, route: RouteEntry, method: str, token: CallerToken) -> str:
        """Return why the right caller did not get in; nothing if it did."""
        key = (route, method, token)
        if key not in self.controls:
            shot = self._send(route, method, token)
            self._check_place(route, shot)
            accepted = [each for each in shot.decisions if each.reason is Reason.ALLOWED]
            got_in = len(shot.reached) == 1 and len(accepted) == len(shot.decisions) > 0
            self.controls[key] = "" if got_in else f"{_WRONG[bool(shot.reached)]}: {shot.said}"
        return self.controls[key]

    def _open(self, case: AccessCase, method: str) -> str:
        shot = self._send(case.route, method, None)
        if shot.reached:
            self._check_place(case.route, shot)
            return ""
        if not shot.decisions and case.route not in self.entries:
            raise NotTriedError(f"No route that can be read answers it; without a token {shot.said}.")
        return f"{method} without a token did not reach the endpoint, which is public: {shot.said}."

    def _check_place(self, route: RouteEntry, shot: _Shot) -> None:
        """Raise `NotTriedError` if another route answered."""
        entry = self.entries.get(route)
        if entry is not None and shot.reached and all(each.entry is not entry for each in shot.reached):
            other = shot.reached[-1]
            raise NotTriedError(f"An earlier route answers its path: {other.method} {other.route}.")

    def _send(self, route: RouteEntry, method: str, token: CallerToken | None) -> _Shot:
        reached, decided = len(self.marker.reached), len(self.decisions)
        headers = {"host": with_path_parameters(route.host)} if route.host else {}
        headers |= {name.lower(): value for name, value in self.headers.items() if name.lower() not in headers}
        if token is not None:
            headers |= self._credentials(token, "GET" if method == "WEBSOCKET" else method, path_to(route) or "/")
        answer = self.sender.send(Outgoing(method=method, path=path_to(route) or "/", headers=tuple(headers.items())))
        return _Shot(answer, tuple(self.marker.reached[reached:]), tuple(self.decisions[decided:]))

    def _credentials(self, token: CallerToken, method: str, path: str) -> dict[str, str]:
        """Return the headers with a new token, and with a new proof if the token is bound."""
        caller = self._caller(token)
        if not token.bound:
            return {"authorization": f"Bearer {caller.token}"}
        if token.proof == "none":
            return {"authorization": f"DPoP {caller.token}"}
        prover = caller if token.proof == "right" else self.issuer.as_service(_THIEF, dpop=True)
        sent = prover.headers_for(method, path, token=caller.token)
        return {name.lower(): value for name, value in sent.items()}

    def _caller(self, token: CallerToken) -> Caller:
        options: dict[str, Any] = {"claims": token.claims, "realm": token.realm, "dpop": token.bound}
        if token.expired:
            options["expires_in"] = _LONG_AGO
        if token.kind == "user":
            return self.issuer.as_user(_USER, via=token.client_id, **options)
        return self.issuer.as_service(token.client_id, **options)
