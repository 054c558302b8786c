"""The realm that ``s2s-fastapi explain`` takes with ``--example``."""

from typer.testing import CliRunner, Result

from s2s_fastapi.cli.commands import command_line
from s2s_fastapi.cli.examples import Example, realm_of

ASKED = ("explain", "--client", "chat-app-service", "--to", "crm-api-gateway")
"""The end of a log line of the first steps."""


def asking(*arguments: str) -> Result:
    return CliRunner().invoke(command_line(), [*ASKED, *arguments])


def test_the_command_of_a_log_line_of_the_first_steps_needs_no_file() -> None:
    answered = asking("--example", "corp")

    assert "scope crm-audience, mapper" in answered.stdout
    assert answered.stdout == asking("--realm-file", str(realm_of(Example.CORP))).stdout
    assert "--example corp" in asking().stderr


def test_an_example_beside_a_realm_file_is_refused() -> None:
    done = asking("--example", "corp", "--realm-file", "corp.json")

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "--example takes the place of --realm-file: leave one of them out.\n"
