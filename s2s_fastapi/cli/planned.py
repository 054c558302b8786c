"""What `plan` and `apply` share: their options, the realm that they read, and how a plan is shown."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from s2s_fastapi.cli.printing import as_text, console
from s2s_fastapi.declared.access_file import AccessFile, AppAccess
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.text import listed, named, printable

if TYPE_CHECKING:
    from s2s_fastapi.operations.admin import AdminApi
    from s2s_fastapi.operations.plan import Plan, Predicted

__all__ = ["planned", "read_access_files", "show_plan"]

_LARGEST: Final = 8 * 1024 * 1024
_MOST_FILES: Final = 9
_UNSAFE: Final = frozenset('/\\:*?"<>|\0')


def read_access_files(files: Iterable[Path]) -> list[AppAccess]:
    """Return the apps of access files.

    Raises:
        ConfigurationError: One cannot be read, or is no access file.
    """
    apps: list[AppAccess] = []
    for file in files:
        if ":" in str(file) and not file.exists():
            raise ConfigurationError(
                f"{named(str(file))} is no access file. plan and apply import no code: first write the file with"
                f" s2s-fastapi access {printable(str(file), 100)} --out access.json."
            )
        try:
            large = file.stat().st_size > _LARGEST
        except OSError as error:
            raise ConfigurationError(f"The access file {file} cannot be read: {error.strerror}.") from None
        if large:
            raise ConfigurationError(f"The access file {file} is larger than {_LARGEST} bytes.")
        apps += AccessFile.read(file).apps
    if not apps:
        raise ConfigurationError("Name the access files of the apps: s2s-fastapi plan crm.json chat.json.")
    return apps


def planned(api: "AdminApi", files: Iterable[Path], grants: Iterable[str], secrets: Path) -> "Plan":
    """Read the realm and return the plan for these access files."""
    from s2s_fastapi.operations.plan import make_plan, question_of  # noqa: PLC0415 - slows --help down
    from s2s_fastapi.operations.snapshot import read_snapshot  # noqa: PLC0415 - as above
    from s2s_fastapi.operations.wanted import wanted  # noqa: PLC0415 - as above

    target = api.target
    needed, findings = wanted(read_access_files(files), grants, realm=target.realm)
    with console(stderr=True).status("Reading the realm ..."):  # shown on a terminal only
        snapshot = read_snapshot(api, question_of(needed))
    return make_plan(
        snapshot,
        needed,
        findings,
        server=target.server,
        issuer=target.issuer,
        secret_file=lambda client: str(_free_file(secrets, client)),
    )


def _free_file(folder: Path, client_id: str) -> Path:
    """Return a file that is not there yet. One that is there may be of an `apply` that was interrupted: it is never used again."""
    name = "".join("_" if char in _UNSAFE or not char.isprintable() else char for char in client_id)
    name = f"_{name}" if name.startswith(".") else name
    for suffix in ("", *(f".{number}" for number in range(2, _MOST_FILES))):
        file = folder.absolute() / f"{name}{suffix}.secret"
        if not file.exists():
            return file
    raise ConfigurationError(
        f"There are {_MOST_FILES - 1} secret files for {named(client_id)} in {folder}: remove those that nobody uses."
    )


def show_plan(plan: "Plan") -> None:
    """Print a plan for a person, in full."""
    out = console()

    def line(text: str, style: str = "") -> None:
        out.print(as_text(text, style), soft_wrap=True)

    line(f"Realm {named(plan.realm)} on {plan.server} (issuer {plan.issuer}, Keycloak {plan.keycloak})", "bold")
    line("")
    line(
        f"Steps: {len(plan.steps)}" if plan.steps else "Steps: none. The realm has all that the plan would make.",
        "bold",
    )
    for number, step in enumerate(plan.steps, start=1):
        line(f"{number:4}. {step}", "green")
    if plan.tokens:
        line("")
        line("Predicted tokens", "bold")
        for token in plan.tokens:
            for text, style in _token_lines(token):
                line(text, style)
    if plan.restarts:
        line("")
        line(f"Start with their new secret (KEYCLOAK_CLIENT_SECRET_FILE): {listed(plan.restarts)}", "bold")
    styles = {"forbidden": "bold red", "open": "yellow", "note": ""}
    for level, heading in (
        ("forbidden", "Forbidden: no plan does this"),
        ("open", "Not granted, or not as declared"),
        ("note", "Notes"),
    ):
        found = [finding.text for finding in plan.findings if finding.level == level]
        if found:
            line("")
            line(heading, styles[level] or "bold")
            for text in found:
                line(f"  - {text}", "bold" if text.startswith(("ANY SERVICE", "CHECK THIS")) else styles[level])


def _token_lines(token: "Predicted") -> Iterator[tuple[str, str]]:
    request = f" with scope={token.request}" if token.request else ""
    if token.before == token.after:
        yield f"  {named(token.caller)}{request}: unchanged, {_claims(token.after)}", ""
        return
    yield f"  {named(token.caller)}{request}:", ""
    yield f"    before: {_claims(token.before)}", "red"
    yield f"    after:  {_claims(token.after)}", "green"


def _claims(claims: Mapping[str, Any]) -> str:
    if not claims:
        return "no token"
    audience = claims.get("aud", [])
    parts = [
        f"aud [{listed([audience] if isinstance(audience, str) else audience)}]",
        f"scope [{claims.get('scope', '')}]",
    ]
    if roles := claims.get("realm_access"):
        parts.append(f"realm roles [{listed(roles['roles'])}]")
    parts += [
        f"roles of {named(client)} [{listed(access['roles'])}]"
        for client, access in sorted((claims.get("resource_access") or {}).items())
    ]
    return ", ".join(parts)
