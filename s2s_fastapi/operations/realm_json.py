"""A plan as realm JSON: the realm file that it was made from, with every step carried out in it."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.operations.plan import Plan
from s2s_fastapi.operations.realm_file import completed
from s2s_fastapi.operations.steps import Step, step_json
from s2s_fastapi.realm.model import RealmModel
from s2s_fastapi.realm.roles import default_role
from s2s_fastapi.text import listed

__all__ = ["carried_out", "realm_json"]

_EVALUATED: Final = ("${", "$(")
"""What an import replaces, whatever it stands in: Keycloak by its environment, keycloak-config-cli by that and by files."""
_EMPTY: Final = ("clients", "users", "roles", "scopeMappings", "clientScopeMappings")


def realm_json(given: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Return the realm file as `carried_out` has it, if an import takes each name for what it is.

    Raises:
        ConfigurationError: A name in a step is one that an import would replace by something else.
    """
    names = {name for step in plan.steps for name in _texts(step) if any(mark in name for mark in _EVALUATED)}
    if names:
        raise ConfigurationError(
            f"Realm JSON cannot hold {listed(names)}: an import replaces what begins with ${{ or $( by a value of its own environment."
            " Choose another name, or use `apply`."
        )
    return carried_out(given, plan)


def carried_out(given: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Return the realm file with the steps of the plan carried out. What no step changes stays as it is.

    It has no secret that the file does not have: the import makes one for each new client.
    """
    if not plan.steps:
        return dict(given)
    version = RealmModel.read(given, version=plan.keycloak).version
    clients = {step.client for step in plan.steps if hasattr(step, "client")}
    document = completed(given, version=version, clients=clients)
    document["defaultRole"] = given.get("defaultRole") or {"name": default_role(given).name}
    for step in plan.steps:
        step.on(document)
    if not given.get("defaultRole"):
        del document["defaultRole"]  # one that is named must be declared too
    return {name: value for name, value in document.items() if value or name in given or name not in _EMPTY}


def _texts(step: Step) -> Iterator[str]:
    for value in step_json(step).values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from value
