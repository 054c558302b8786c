"""From a realm as it is to one in which every declared call works: an ordered list of steps, and the tokens before and after.

Pure: the same realm and the same access files give the same plan. It can be saved, and is carried out only where it was made.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from s2s_fastapi.declared.access_file import AppAccess
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.keycloak.client_authentication import ByFederation
from s2s_fastapi.operations.planning import Planning
from s2s_fastapi.operations.predicted import Predicted
from s2s_fastapi.operations.scope_rules import scope_names
from s2s_fastapi.operations.secret_files import read_own
from s2s_fastapi.operations.snapshot import Question, Snapshot
from s2s_fastapi.operations.steps import MakeClient, Step, step_from_json, step_json
from s2s_fastapi.operations.wanted import RealmFinding, Severity, Wanted, wanted
from s2s_fastapi.realm.entities import Role
from s2s_fastapi.version import __version__

__all__ = ["MADE_FROM", "VERSION", "Plan", "Predicted", "make_plan", "question_of", "read_plan", "steps_of"]

VERSION: Final = 1
"""The version of a saved plan. It grows with every change that an older reader would not understand."""
MADE_FROM: Final = "made_from"
"""The member of a saved plan with the access files and the grants."""
_KIND: Final = "s2s-fastapi plan"
_LARGEST: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be changed, where, and in which state of the realm."""

    server: str
    """Empty if the realm is kept in a file. No such plan is applied."""
    realm: str
    realm_id: str
    issuer: str
    keycloak: str
    """The version of the server."""
    question: Question
    """What was read of the realm."""
    hash: str
    """The hash of what was read."""
    steps: tuple[Step, ...] = ()
    findings: tuple[RealmFinding, ...] = ()
    tokens: tuple[Predicted, ...] = ()
    made_by: str = field(default=__version__)

    @property
    def forbidden(self) -> bool:
        """Whether something was asked that no plan does."""
        return any(finding.level is Severity.FORBIDDEN for finding in self.findings)

    @property
    def open(self) -> bool:
        """Whether the realm differs from what is declared: there are steps, or findings."""
        return bool(self.steps) or any(finding.level is not Severity.NOTE for finding in self.findings)

    @property
    def restarts(self) -> tuple[tuple[str, str], ...]:
        """The services that must be started with a new secret, each with the file of it."""
        return tuple(
            (step.client, step.secret_file) for step in self.steps if isinstance(step, MakeClient) and step.secret_file
        )

    def as_json(self) -> dict[str, Any]:
        """Return the plan as it is saved. It holds no secret."""
        question = self.question
        return {
            "kind": _KIND,
            "version": VERSION,
            "made_by": self.made_by,
            "server": self.server,
            "realm": self.realm,
            "realm_id": self.realm_id,
            "issuer": self.issuer,
            "keycloak": self.keycloak,
            "read": {
                "clients": sorted(question.clients),
                "scopes": sorted(question.scopes),
                "audiences": sorted(question.audiences),
                "roles": [list(role) for role in sorted(question.roles)],
                "providers": sorted(question.providers),
            },
            "hash": self.hash,
            "steps": [step_json(step) for step in self.steps],
            "findings": [{"level": str(finding.level), "text": finding.text} for finding in self.findings],
            "tokens": [
                {
                    "caller": one.caller,
                    "scope": one.request,
                    "exchanged_for": list(one.exchanged_for),
                    "dpop": one.dpop,
                    "before": dict(one.before),
                    "after": dict(one.after),
                }
                for one in self.tokens
            ],
        }


def read_plan(file: Path) -> tuple[Plan, object]:
    """Read a saved plan, and what it says that it was made from.

    Raises:
        ConfigurationError: It cannot be read, others can write to it, or it is no plan of this version.
    """
    text = read_own(file, _LARGEST)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("kind") != _KIND or content.get("version") != VERSION:
        raise ConfigurationError(
            f"{file} is no plan that this s2s-fastapi reads (version {VERSION}): make it again with --out."
        )
    try:
        return _from_json(content), content.get(MADE_FROM)
    except (KeyError, TypeError, ValueError):
        pass
    raise ConfigurationError(f"The plan {file} is damaged: make it again with --out.")


def _from_json(content: Mapping[str, Any]) -> Plan:
    read = content["read"]
    texts = {name: content[name] for name in ("server", "realm", "realm_id", "issuer", "keycloak", "hash", "made_by")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError
    return Plan(
        **texts,
        question=Question(
            clients=frozenset(read["clients"]),
            scopes=frozenset(read["scopes"]),
            audiences=frozenset(read["audiences"]),
            roles=frozenset(Role(owner, name) for owner, name in read["roles"]),
            providers=frozenset(read["providers"]),
        ),
        steps=tuple(step_from_json(step) for step in content["steps"]),
        findings=tuple(RealmFinding(Severity(one["level"]), str(one["text"])) for one in content["findings"]),
        tokens=tuple(
            Predicted(
                caller=one["caller"],
                request=one["scope"],
                exchanged_for=tuple(one["exchanged_for"]),
                dpop=one["dpop"] is True,
                before=one["before"],
                after=one["after"],
            )
            for one in content["tokens"]
        ),
    )


def question_of(needed: Wanted) -> Question:
    """Return what must be read of a realm to plan for this."""
    audiences = frozenset(name for names in needed.reach.values() for name in names)
    # Whether the tokens of users are for the caller that exchanges them.
    through = frozenset(name for each in needed.exchanges.values() for name in each.through)
    return Question(
        clients=frozenset(needed.clients) | through,
        scopes=frozenset(
            (
                *(name for call in needed.calls for name in (*call.carriers, *call.scopes)),
                *(each.scope for each in needed.scopes),
                *(name for audience in audiences for name in scope_names(audience)),
            )
        ),
        audiences=audiences | frozenset(needed.exchanges),
        roles=frozenset(each.role for each in needed.roles),
        providers=frozenset(
            each.provider.alias for each in needed.authentication.values() if isinstance(each, ByFederation)
        ),
    )


def make_plan(
    snapshot: Snapshot,
    needed: Wanted,
    findings: Iterable[RealmFinding] = (),
    *,
    server: str,
    issuer: str,
    secret_file: Callable[[str], str] = lambda client: f"{client}.secret",
) -> Plan:
    """Return the plan. ``secret_file`` returns the file for the new secret of a client."""
    planning = Planning(snapshot, needed, findings)
    planning.run()
    steps = tuple(
        replace(step, secret_file=secret_file(step.client))
        if isinstance(step, MakeClient) and step.caller and not step.authentication
        else step
        for step in planning.ordered()
    )
    return Plan(
        server=server,
        realm=snapshot.realm,
        realm_id=snapshot.realm_id,
        issuer=issuer,
        keycloak=snapshot.version,
        question=question_of(needed),
        hash=snapshot.hash,
        steps=steps,
        findings=tuple(sorted(planning.findings)),
        tokens=planning.tokens(),
    )


def steps_of(apps: Iterable[AppAccess], snapshot: Snapshot, realm: str, grants: Iterable[str] = ()) -> tuple[Step, ...]:
    """Return the steps that a plan for these apps has: none of any other kind is a cure that a command may offer.

    ``snapshot`` has what `question_of` asks for these apps. A plan with something forbidden in it is never applied, so it has no step here.
    """
    needed, findings = wanted(apps, grants, realm=realm)
    made = make_plan(snapshot, needed, findings, server="", issuer="", secret_file=lambda _: "")
    return () if made.forbidden else made.steps
