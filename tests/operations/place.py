"""A realm that tests change as at the console, and the command line of a service in it."""

from copy import deepcopy
from typing import Any

from typer.testing import CliRunner, Result

from s2s_fastapi.cli.commands import command_line
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.testing import EmbeddedIssuer
from tests.kit.console import CALLER, Paper, document

__all__ = ["HOSTILE", "OTHER_REALM", "Place"]

OTHER_REALM = document("techstore")[0]

HOSTILE = ("$(id)", "[link=https://evil.example]x", "[/team]", "a|b", "=1+1", '"><script>', "${x}", "x\u200fy", ":key:")
"""Names that a shell, a terminal, rich, a table or a browser could act on."""


class Place(Paper):
    """A realm on paper that a running issuer reads again after each change."""

    def __init__(self, served: EmbeddedIssuer) -> None:
        super().__init__(auth_path=served.auth_path)
        self.served = served
        self.changes: dict[str, str | None] = {}
        """Variables of the service that differ from those that are right; None is not set."""

    @property
    def issuer(self) -> EmbeddedIssuer:
        if self._issuer is None:
            self.served.reload(deepcopy(self.realm), OTHER_REALM)
            self._issuer = self.served
        return self.served

    def environment(self, client: str = CALLER) -> dict[str, str]:
        right = self.issuer.environment("corp", client)
        if "KEYCLOAK_CLIENT_AUTH" not in right:  # it keeps its secret while a test switches flows off
            right["KEYCLOAK_CLIENT_SECRET"] = self.secrets[client]
        return {name: value for name, value in {**right, **self.changes}.items() if value is not None}

    def set(self, **settings: Any) -> None:
        """Change the environment of the service, by the names of the settings."""
        self.changes.update({f"KEYCLOAK_{name.upper()}": value for name, value in settings.items()})

    def settings(self, **changes: Any) -> KeycloakSettings:
        values = {name.removeprefix("KEYCLOAK_").lower(): value for name, value in self.environment().items()}
        return KeycloakSettings(**{**values, **changes})

    def run(self, *arguments: object, stdin: str = "") -> Result:
        """Run a command in this process, in the environment of the service."""
        return CliRunner().invoke(
            command_line(), list(map(str, arguments)), env=self.environment(), input=stdin, catch_exceptions=False
        )
