"""What `plan` and `apply` share: their options, the realm that they read, and how a plan is shown."""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from s2s_fastapi.cli.printing import as_text, console
from s2s_fastapi.declared.access_file import AccessFile, AppAccess
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.text import listed, named, printable

if TYPE_CHECKING:
    from s2s_fastapi.operations.admin import AdminApi, AdminTarget
    from s2s_fastapi.operations.plan import Plan, Predicted
    from s2s_fastapi.operations.realm_file import RealmFile
    from s2s_fastapi.operations.snapshot import Snapshot
    from s2s_fastapi.operations.wanted import RealmFinding

__all__ = ["PlanSource", "read_access_files", "show_plan"]

_LARGEST: Final = 8 * 1024 * 1024
_MOST_FILES: Final = 9
_SOURCE: Final = "made_from"
_UNSAFE: Final = frozenset('/\\:*?"<>|\0')


def read_access_files(files: Iterable[Path]) -> list[AppAccess]:
    """Return the apps of access files.

    Raises:
        ConfigurationError: One cannot be read, or is no access file.
    """
    apps, problems = _read(files)
    if problems:
        raise ConfigurationError(problems[0])
    return apps


def _read(files: Iterable[Path]) -> tuple[list[AppAccess], list[str]]:
    """Return the apps of access files, and one sentence for each file that is none.

    Raises:
        ConfigurationError: No file has an app.
    """
    apps: list[AppAccess] = []
    problems: list[str] = []
    for file in files:
        try:
            apps += _apps_of(file)
        except ConfigurationError as error:
            problems.append(str(error))
    if not apps:
        nothing = "Name the access files of the apps: s2s-fastapi plan crm.json chat.json."
        raise ConfigurationError(problems[0] if problems else nothing)
    return apps, problems


def _apps_of(file: Path) -> tuple[AppAccess, ...]:
    if ":" in str(file) and not file.exists():
        raise ConfigurationError(
            f"{named(str(file))} is no access file. plan and apply import no code: first write the file with"
            f" s2s-fastapi access {shlex.quote(printable(str(file), 100))} --out access.json."
        )
    try:
        large = file.stat().st_size > _LARGEST
    except OSError as error:
        raise ConfigurationError(f"The access file {file} cannot be read: {error.strerror}.") from None
    if large:
        raise ConfigurationError(f"The access file {file} is larger than {_LARGEST} bytes.")
    return AccessFile.read(file).apps


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSource:
    """What a plan is made from. It is saved with the plan, so that `apply` can make the plan again."""

    apps: tuple[AppAccess, ...]
    grants: tuple[str, ...] = ()
    secrets: Path
    """The folder for new secrets. It is not saved: whoever runs `apply` says it."""
    unread: tuple[str, ...] = ()
    """One sentence for each file that could not be read. What its app requires is not known: so nothing is applied."""

    @classmethod
    def of(cls, files: Iterable[Path], grants: Iterable[str], secrets: Path) -> "PlanSource":
        """Read the access files of a command.

        Raises:
            ConfigurationError: No file has an app.
        """
        apps, unread = _read(files)
        return cls(apps=tuple(apps), grants=tuple(grants), secrets=secrets, unread=tuple(unread))

    @classmethod
    def saved(cls, file: Path, secrets: Path) -> "PlanSource":
        """Read it from a saved plan.

        Raises:
            ConfigurationError: It is not there, or is damaged.
        """
        try:
            content = json.loads(file.read_text(encoding="utf-8"))[_SOURCE]
            each = [AccessFile.parse(json.dumps(one).encode(), source=str(file)) for one in content["access"]]
            grants = tuple(str(grant) for grant in content["grants"])
        except (OSError, LookupError, TypeError, ValueError):
            pass
        else:
            return cls(apps=tuple(app for one in each for app in one.apps), grants=grants, secrets=secrets)
        raise ConfigurationError(f"The plan {file} does not say what it was made from: make it again with --out.")

    def as_json(self) -> dict[str, Any]:
        """Return it as a member of the saved plan. Each app is a file of its own: two may have one client id, which is a finding."""
        access = [json.loads(AccessFile((app,)).text) for app in self.apps]
        return {_SOURCE: {"access": access, "grants": list(self.grants)}}

    def planned(self, api: "AdminApi") -> "Plan":
        """Read the realm and return the plan."""
        from s2s_fastapi.operations.plan import question_of  # noqa: PLC0415 - slows --help down
        from s2s_fastapi.operations.snapshot import read_snapshot  # noqa: PLC0415 - as above
        from s2s_fastapi.operations.wanted import wanted  # noqa: PLC0415 - as above

        needed, _ = wanted(self._apps_of(api.target.issuer), self.grants, realm=api.target.realm)
        with console(stderr=True).status(as_text("Reading the realm ...")) as status:  # shown on a terminal only
            snapshot = read_snapshot(
                api,
                question_of(needed),
                progress=lambda what: status.update(as_text(f"Reading the realm: {what}")),
            )
        return self.plan_for(snapshot, api.target)

    def planned_for_file(self, realm: "RealmFile") -> "Plan":
        """Return the plan for a realm that is kept in a file. It writes no secret."""
        from s2s_fastapi.operations.plan import make_plan, question_of  # noqa: PLC0415 - slows --help down
        from s2s_fastapi.operations.snapshot import read_snapshot  # noqa: PLC0415 - as above
        from s2s_fastapi.operations.wanted import wanted  # noqa: PLC0415 - as above

        needed, findings = wanted(self._apps_of(""), self.grants, realm=realm.realm)
        snapshot = read_snapshot(realm, question_of(needed))
        every = (*findings, *self._of_other_realms(""), *self._unread())
        return make_plan(snapshot, needed, every, server="", issuer="", secret_file=lambda _: "")

    def _apps_of(self, issuer: str) -> tuple[AppAccess, ...]:
        """Return what the apps declare for callers of the planned realm."""
        return tuple(app.within(issuer) for app in self.apps)

    def _of_other_realms(self, issuer: str) -> "Iterator[RealmFinding]":
        """Yield a note for each app that also accepts callers of realms that are not planned."""
        from s2s_fastapi.operations.wanted import RealmFinding, Severity  # noqa: PLC0415 - slows --help down

        for app in self.apps:
            further = [each for each in app.further_realms if each != issuer]
            first = ["its first realm"] if issuer in app.further_realms else []
            if further or first:
                yield RealmFinding(
                    Severity.NOTE,
                    f"{named(app.client_id)} also accepts callers of {', '.join([*first, *further])}: plan that realm by itself. Nothing here is "
                    "granted for them.",
                )

    def plan_for(self, snapshot: "Snapshot", target: "AdminTarget") -> "Plan":
        """Return the plan for a realm that was read."""
        from s2s_fastapi.operations.plan import make_plan  # noqa: PLC0415 - slows --help down
        from s2s_fastapi.operations.wanted import wanted  # noqa: PLC0415 - as above

        needed, findings = wanted(self._apps_of(target.issuer), self.grants, realm=target.realm)
        return make_plan(
            snapshot,
            needed,
            (*findings, *self._of_other_realms(target.issuer), *self._unread()),
            server=target.server,
            issuer=target.issuer,
            secret_file=lambda client: str(_free_file(self.secrets, client)),
        )

    def _unread(self) -> "Iterator[RealmFinding]":
        from s2s_fastapi.operations.wanted import RealmFinding, Severity  # noqa: PLC0415 - slows --help down

        for problem in self.unread:
            yield RealmFinding(
                Severity.FORBIDDEN, f"{problem} What its app requires is not known, so nothing is applied."
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

    place = f"on {plan.server} (issuer {plan.issuer}, Keycloak {plan.keycloak})"
    line(f"Realm {named(plan.realm)} {place if plan.server else f'of the file (Keycloak {plan.keycloak})'}", "bold")
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
