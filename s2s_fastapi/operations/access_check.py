"""Access files against a realm file, without a server: which declared call would be refused, and which grant nobody declares."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.declared.access_file import AppAccess, CallAccess
from s2s_fastapi.keycloak.dpop import ANY_THUMBPRINT, ORDER, TOO_OLD, bind_or_switch_off
from s2s_fastapi.operations.declarations import one_for_each_client
from s2s_fastapi.operations.relations import (
    RouteAnswer,
    best_of,
    binding_problem,
    bound_first,
    caller_of,
    certificate_notes,
    granted_for,
    in_part,
    judged,
    seen_by,
    with_accepted_binding,
)
from s2s_fastapi.operations.wanted import RealmFinding, Severity, accepted_audiences
from s2s_fastapi.principal import Principal
from s2s_fastapi.realm.model import Denied, RealmModel
from s2s_fastapi.text import listed, named, names_in

__all__ = ["check_access"]


def check_access(apps: Iterable[AppAccess], model: RealmModel) -> tuple[RealmFinding, ...]:
    """Return what differs between what the apps declare and what the realm grants.

    Raises:
        ConfigurationError: Two apps have one client id.
    """
    checking = _Checking({app.client_id: app for app in one_for_each_client(apps)}, model)
    return tuple(sorted({*checking.calls(), *checking.undeclared()}))


@dataclass(frozen=True, slots=True)
class _Checking:
    apps: Mapping[str, AppAccess]
    model: RealmModel

    def calls(self) -> Iterator[RealmFinding]:
        """Yield a finding for each declared call that would be refused, or that nobody answers."""
        for caller, app in sorted(self.apps.items()):
            answers: dict[str, list[tuple[RouteAnswer, ...]]] = {}
            for call in app.calls:
                request = " ".join(call.scopes) or None
                said = f"{named(caller)} calls {listed(call.audiences) or 'a service'}"
                said += " on behalf of users" if call.on_behalf else ""
                said += f" with the scope {named(request)}" if request else ""
                said += " with a bound token (DPoP)" if call.dpop else ""
                granted = granted_for(call, caller, self.model)
                if isinstance(granted, Denied):
                    what = "the exchange" if call.on_behalf else "the token request"
                    yield RealmFinding(
                        Severity.OPEN,
                        f"{said}, and Keycloak refuses {what}: {granted.error} {granted.description}".rstrip()
                        + f".{self._unbound(caller, dpop=call.dpop)}",
                    )
                    continue
                if call.dpop and not self.model.binds:
                    yield RealmFinding(Severity.OPEN, f"{said}, and this Keycloak binds no tokens. {TOO_OLD}")
                    continue
                for unknown in granted.unknown:
                    yield RealmFinding(Severity.NOTE, f"{said}, and the prediction may be wrong: {unknown}.")
                if not call.on_behalf:
                    for note in certificate_notes(self.model, caller):
                        yield RealmFinding(Severity.NOTE, note)
                principal = caller_of(call, granted)
                if isinstance(principal, Decision):
                    yield RealmFinding(Severity.OPEN, f"{said}, and no receiver can read its token: {principal.cure}.")
                    continue
                if lacking := sorted({*call.audiences} - principal.audiences):
                    yield RealmFinding(Severity.OPEN, f"{said}, and its token is not for {listed(lacking)}.")
                yield from self._answered(said, call.audiences, principal)
                yield from self._bound(said, call, principal)
                for receiver in self.apps.values():
                    if principal.audiences & {*call.audiences} & accepted_audiences(receiver):
                        answers.setdefault(receiver.client_id, []).append(
                            judged(with_accepted_binding(seen_by(receiver, principal), receiver), receiver)
                        )
            kinds = {call.on_behalf for call in app.calls}
            for name, every in sorted(answers.items()):
                best = best_of(every)
                accepted = any(each.accepted for each in best)
                # Routes for users and routes for services may name one caller: each takes the tokens of its own kind.
                refused = in_part(caller, self.apps[name], best, on_behalf=True in kinds) if len(kinds) == 1 else ""
                if refused and accepted:
                    yield RealmFinding(Severity.OPEN, f"{named(caller)} calls {named(name)}, and {refused}.")

    def _answered(self, said: str, audiences: Iterable[str], principal: Principal) -> Iterator[RealmFinding]:
        for audience in audiences:
            receivers = [app for app in self.apps.values() if audience in accepted_audiences(app)]
            if not receivers:
                yield RealmFinding(
                    Severity.OPEN,
                    f"{said}, and none of the access files is of an app that answers to {named(audience)}.",
                )
            elif audience in principal.audiences and not any(
                answer.accepted
                for app in receivers
                for answer in judged(with_accepted_binding(seen_by(app, principal), app), app)
            ):
                yield RealmFinding(
                    Severity.OPEN,
                    f"{said}, and no route of {listed(app.client_id for app in receivers)} accepts its token.",
                )

    def _bound(self, said: str, call: CallAccess, principal: Principal) -> Iterator[RealmFinding]:
        """Yield a finding for each receiver that takes no bound tokens, or no others, and for routes that need bound ones."""
        for app in self.apps.values():
            if not principal.audiences & {*call.audiences} & accepted_audiences(app):
                continue
            who = named(app.client_id)
            if problem := binding_problem(principal.client_id, app, binding=principal.binding):
                what, order = "requires bound tokens", f" {ORDER}"
                if problem.reason is Reason.NO_CREDENTIALS:
                    what = "refuses bound tokens"
                elif problem.reason is Reason.SENDER_CONSTRAINED:
                    what, order = "refuses tokens that are bound to a client certificate", ""
                yield RealmFinding(Severity.OPEN, f"{said}, and {who} {what} ({problem.reason}). {problem.cure}{order}")
                continue
            caller = seen_by(app, principal)
            both = zip(judged(caller, app), judged(with_accepted_binding(caller, app), app), strict=True)
            if routes := [one.route for one, other in both if other.accepted and not one.accepted]:
                yield RealmFinding(
                    Severity.OPEN,
                    f"{said}, and {', '.join(routes)} of {who} requires a bound token ({Reason.NOT_BOUND})."
                    f" {bound_first([app], principal.client_id)}",
                )

    def _unbound(self, caller: str, *, dpop: bool) -> str:
        """Return what to change if Keycloak gives the caller bound tokens only, and it requests another one."""
        needs = not dpop and self.model.proof_missing(caller) is not None
        return f" {bind_or_switch_off(caller)}" if needs else ""

    def undeclared(self) -> Iterator[RealmFinding]:
        """Yield a finding for each audience of these apps that a service gets without declaring that it calls the app."""
        answered = {audience: app.client_id for app in self.apps.values() for audience in accepted_audiences(app)}
        for caller in self.model.service_client_ids:
            app = self.apps.get(caller)
            declared = {audience for call in (app.calls if app else ()) for audience in call.audiences}
            found: dict[str, str | None] = {}
            for request in (None, *self.model.optional_scopes(caller)):
                granted = self.model.service_token(caller, scope=request, jkt=ANY_THUMBPRINT, x5t=ANY_THUMBPRINT)
                if not isinstance(granted, Denied):
                    for audience in _names(granted.claims):
                        found.setdefault(audience, request)
            for audience, request in sorted(found.items()):
                if audience in answered and audience not in declared and answered[audience] != caller:
                    by = f"with the scope {named(request)}" if request else "in every token"
                    yield RealmFinding(
                        Severity.OPEN,
                        f"{named(caller)} gets the audience {named(audience)} {by}, and no access file declares that it calls it.",
                    )


def _names(claims: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(names_in(claims.get("aud")))
