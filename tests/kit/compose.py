"""docker-compose.yml as docker compose would read it, without docker."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from example_app.env import secret_files
from example_app.realm import fresh_secrets

__all__ = ["BUILT", "FILE", "PROFILE", "SECRETS", "SWITCHES", "VARIABLE", "mounted", "on_this_machine", "services"]

FILE = Path(__file__).parents[2] / "docker-compose.yml"
PROFILE = "observability"
SECRETS = {"KEYCLOAK_ADMIN_PASSWORD": "secret", **dict.fromkeys(fresh_secrets(), "secret")}
BUILT = "s2s-fastapi-example"
# What make trace sets, and what anybody may set.
SWITCHES = {
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "KC_TRACING_ENABLED",
    "KC_TRACING_ENDPOINT",
    "KC_TRACING_PROTOCOL",
    "KC_TRACING_JDBC_ENABLED",
    "STORY_2",
}
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)(?::([-?])([^}]*))?\}")


def services(environment: Mapping[str, str], *profiles: str) -> dict[str, dict[str, Any]]:
    """Return the services of these profiles, with their variables filled in from ``environment``.

    Raises:
        KeyError: A variable that must be there is missing.
    """

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return VARIABLE.sub(one, value)
        if isinstance(value, list):
            return [filled(member) for member in value]
        if isinstance(value, dict):
            return {name: filled(member) for name, member in value.items()}
        return value

    def one(found: re.Match[str]) -> str:
        default = found[3] if found[2] == "-" else None
        return environment.get(found[1]) or (environment[found[1]] if default is None else default)

    def handed_on(name: str, value: Any) -> Any:
        return environment.get(name) if value is None else value

    read: dict[str, dict[str, Any]] = filled(yaml.safe_load(FILE.read_text(encoding="utf-8"))["services"])
    for service in read.values():
        declared = {name: handed_on(name, value) for name, value in service.get("environment", {}).items()}
        service["environment"] = {name: value for name, value in declared.items() if value is not None}
    return {name: service for name, service in read.items() if {*service.get("profiles", profiles)} <= {*profiles}}


def mounted(folder: Path, values: Mapping[str, str]) -> dict[str, str]:
    """Write the secrets as ``make env`` does, and return where each is that a container finds below /run/secrets."""
    secret_files(folder, dict(values))
    declared = yaml.safe_load(FILE.read_text(encoding="utf-8"))["secrets"]
    return {f"/run/secrets/{name}": str(folder / Path(secret["file"]).name) for name, secret in declared.items()}


def on_this_machine(service: Mapping[str, Any], there: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a service that runs outside of its container, its addresses and files replaced by `there`."""
    return {name: there.get(value, value) for name, value in service["environment"].items()}
