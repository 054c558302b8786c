"""What the code has to do with a refusal: whether both sides declare the call, and what to change if not."""

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from s2s_fastapi.decision import Reason
from s2s_fastapi.declared.access_file import AppAccess
from s2s_fastapi.declared.asked import leaves_of
from s2s_fastapi.operations.plan_hint import plan_command
from s2s_fastapi.operations.wanted import Wanted, accepted_audiences, wanted
from s2s_fastapi.requirement.requirement import Caller
from s2s_fastapi.text import named

__all__ = ["about_the_code"]

_AUDIENCE: Final = str(Reason.WRONG_AUDIENCE)
_SCOPE: Final = str(Reason.SCOPE_MISSING)
_ROLE: Final = str(Reason.ROLE_MISSING)
_NO_TOKEN: Final = str(Reason.NO_CREDENTIALS)


def about_the_code(
    client_id: str,
    reasons: Collection[str],
    app: AppAccess,
    apps: Iterable[AppAccess],
    *,
    realm: str,
    files: Iterable[str] = (),
    realm_file: str = "",
) -> Iterator[str]:
    """Say what to change if ``client_id`` is refused by ``app`` for these reasons.

    - A plan is named only if both sides declare the call and the realm does not grant it. ``files`` are the access files. With
      ``realm_file`` it is a plan for this file, and nothing is carried out on a server.
    - For a call that nobody declares there is the line for the code and never a command: whoever pastes it would grant what was refused.
    """
    every = tuple(apps)
    if app not in every or not reasons or not client_id:
        return
    needed, _ = wanted(every, realm=realm)
    who, called = named(client_id), named(app.client_id)
    callers = [each for each in every if each.client_id == client_id]
    if realm_file and _lacks(client_id, reasons, accepted_audiences(app), needed):
        yield (
            f"{who} and {called} both declare this call, and the realm file does not grant it. Write a realm file that does:"
            f" {plan_command(*files, realm_file=realm_file)}"
        )
    elif _lacks(client_id, reasons, accepted_audiences(app), needed):
        yield (
            f"{who} and {called} both declare this call, and the realm does not grant it. Save a plan of what the realm lacks, and look at it:"
            f" {plan_command(*files)} --out plan.json"
        )
        yield "Then carry out exactly this plan: s2s-fastapi apply --plan plan.json"
    elif not callers and client_id not in _callers_named_by(app):
        yield (
            f"None of the given access files declares that {who} calls {called}. If it may, its code must say {_calling(app)}, and the code"
            f" of {called} require_caller({_text(client_id)})."
        )
    elif callers and not any(accepted_audiences(app) & set(call.audiences) for each in callers for call in each.calls):
        yield f"The code of {who} declares no call to {called}. If it may call, write {_calling(app)} in its code."


def _lacks(client_id: str, reasons: Collection[str], audiences: Collection[str], needed: Wanted) -> bool:
    """Return whether something is refused that a plan would grant."""
    if not needed.reach.get(client_id, frozenset()) & set(audiences):
        return False
    scopes = any(each.caller == client_id for each in needed.scopes)
    roles = any(each.caller == client_id for each in needed.roles)
    return bool({_AUDIENCE, _NO_TOKEN} & set(reasons)) or (_SCOPE in reasons and scopes) or (_ROLE in reasons and roles)


def _callers_named_by(app: AppAccess) -> frozenset[str]:
    leaves = (leaf for route in app.routes for leaf in leaves_of(route.requires) if isinstance(leaf, Caller))
    return frozenset(name for leaf in leaves for name in leaf.client_ids)


def _calling(app: AppAccess) -> str:
    audience = next(iter(sorted(accepted_audiences(app))), app.client_id)
    return f"service_client(..., audience={_text(audience)})"


def _text(name: str) -> str:
    """Return a name as a text in Python."""
    shown = named(name)
    return shown if shown.startswith('"') else f'"{shown}"'
