"""What `plan` and `apply` share: their options, the realm that they read, and how a plan is shown."""

import hashlib
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
    from rich.console import Console

    from s2s_fastapi.operations.admin import AdminApi, AdminTarget
    from s2s_fastapi.operations.plan import Plan, Predicted
    from s2s_fastapi.operations.realm_file import RealmFile
    from s2s_fastapi.operations.snapshot import Snapshot
    from s2s_fastapi.operations.wanted import RealmFinding

__all__ = ["PlanSource", "names_of", "read_access_files", "read_realm", "show_plan", "show_restarts"]

_LONGEST_PATH: Final = 4096
_LARGEST: Final = 8 * 1024 * 1024
_MOST_FILES: Final = 9
_MARK: Final = "~"
_UNSAFE: Final = frozenset(f'/\\:*?"<>|\0{_MARK}')
_LONGEST_FILE: Final = 200  # bytes, of the 255 that file systems take
_DIGITS: Final = 8
_NARROWEST: Final = 20


def read_access_files(files: Iterable[Path]) -> list[AppAccess]:
    """Return the apps of access files.

    Raises:
        ConfigurationError: One cannot be read, or is no access file.
    """
    apps, problems = _read(files)
    if problems:
        raise ConfigurationError(problems[0])
    return apps


def read_realm(file: Path) -> dict[str, Any]:
    """Return the realm of a file. No variable of this machine gets into it: what it names is printed, and may be a secret.

    Raises:
        ConfigurationError: It has no realm, or several, or a name with a placeholder that has no default.
    """
    from s2s_fastapi.testing.documents import read_documents  # noqa: PLC0415 - slows --help down

    read = read_documents([file], {})
    if len(read.realms) != 1:
        raise ConfigurationError(f"{file} has {len(read.realms)} realms: give the file of one.")
    (realm,) = read.realms
    names = json.dumps(names_of(realm))
    if unknown := sorted(name for name in read.generated if json.dumps(read.values[name])[1:-1] in names):
        raise ConfigurationError(
            f"{file} has ${{{unknown[0]}}} in a name, and variables of this machine are not read: write the name itself, or a default:"
            f" ${{{unknown[0]}:corp}}."
        )
    return realm


def names_of(realm: Mapping[str, Any]) -> object:
    """Return the names of what a realm file has."""
    roles = realm.get("roles") or {}
    return (
        realm.get("realm"),
        [client.get("clientId") for client in realm.get("clients") or ()],
        [scope.get("name") for scope in realm.get("clientScopes") or ()],
        [user.get("serviceAccountClientId") for user in realm.get("users") or ()],
        [role.get("name") for role in roles.get("realm") or ()],
        {owner: [role.get("name") for role in own] for owner, own in (roles.get("client") or {}).items()},
    )


def _read(files: Iterable[Path]) -> tuple[list[AppAccess], list[str]]:
    """Return the apps of access files, and one sentence for each file that is none.

    Raises:
        ConfigurationError: No file has an app.
    """
    apps: list[AppAccess] = []
    problems: list[str] = []
    given: set[Path] = set()
    for file in files:
        if file.resolve() in given:
            raise ConfigurationError(
                f"{printable(str(file), _LONGEST_PATH)} is given twice. Is the file of the other app missing? A call needs the files of both."
            )
        given.add(file.resolve())
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
    def saved(cls, content: Any, file: Path, secrets: Path) -> "PlanSource":
        """Return what a saved plan says that it was made from.

        Raises:
            ConfigurationError: It does not say it, or is damaged.
        """
        try:
            each = [AccessFile.parse(json.dumps(one).encode(), source=str(file)) for one in content["access"]]
            grants = tuple(str(grant) for grant in content["grants"])
        except (LookupError, TypeError, ValueError):
            pass
        else:
            return cls(apps=tuple(app for one in each for app in one.apps), grants=grants, secrets=secrets)
        raise ConfigurationError(f"The plan {file} does not say what it was made from: make it again with --out.")

    def as_json(self) -> dict[str, Any]:
        """Return the member `made_from` of a saved plan. Each app is a file of its own: two may have one client id, which is a finding."""
        access = [json.loads(AccessFile((app,)).text) for app in self.apps]
        return {"access": access, "grants": list(self.grants)}

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
            if others := app.beside(issuer):
                yield RealmFinding(
                    Severity.NOTE,
                    f"{named(app.client_id)} also accepts callers of {others}: plan that realm by itself. Nothing here is granted for them.",
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
    """Return a file that is not there yet. One that is there may be of an `apply` that was interrupted: it is never used again.

    No client id has a ``~`` left in its file name. So a name that was changed, and a second file, are never those of another client.
    """
    name = "".join("_" if char in _UNSAFE or not char.isprintable() else char for char in client_id)
    name = f"_{name}" if name.startswith(".") else name
    if name != client_id or len(name.encode()) > _LONGEST_FILE:
        short = name.encode()[:_LONGEST_FILE].decode(errors="ignore")
        name = f"{short}{_MARK}{hashlib.sha256(client_id.encode()).hexdigest()[:_DIGITS]}"
    for suffix in ("", *(f"{_MARK}{number}" for number in range(2, _MOST_FILES))):
        file = folder.absolute() / f"{name}{suffix}.secret"
        if not file.exists():
            return file
    raise ConfigurationError(
        f"There are {_MOST_FILES - 1} secret files for {named(client_id)} in {folder}: remove those that nobody uses."
    )


def show_plan(plan: "Plan", *, stderr: bool = False) -> None:
    """Print a plan for a person, in full: no text is cut."""
    line = _Lines(console(stderr=stderr))
    place = f"on {plan.server} (issuer {plan.issuer}, Keycloak {plan.keycloak})"
    line(f"Realm {named(plan.realm)} {place if plan.server else f'of the file (Keycloak {plan.keycloak})'}", "bold")
    line("")
    nothing = "Steps: none." if plan.open else "Steps: none. The realm has all that the plan would make."
    line(f"Steps: {len(plan.steps)}" if plan.steps else nothing, "bold")
    for number, step in enumerate(plan.steps, start=1):
        line(str(step), "green", lead=f"{number:4}. ")
    if plan.tokens:
        line("")
        line("Predicted tokens", "bold")
        for token in plan.tokens:
            for lead, text, style in _token_lines(token):
                line(text, style, lead=lead)
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
                loud = text.startswith(("ANY SERVICE", "CHECK THIS"))
                line(text, "bold" if loud else styles[level], lead="  - ")
    show_restarts(plan, stderr=stderr)


def show_restarts(plan: "Plan", *, stderr: bool = False) -> None:
    """Name the services that get a new secret, each with the file from which it reads it."""
    line = _Lines(console(stderr=stderr))
    if plan.restarts:
        line("")
        line("Start with their new secret:", "bold")
        for client, file in plan.restarts:
            line(f"{named(client)}: KEYCLOAK_CLIENT_SECRET_FILE={shlex.quote(file)}", "bold", lead="  ", copied=True)


class _Lines:
    """Prints lines of any length. On a terminal they are wrapped between words, below the beginning of their text.

    What somebody copies is not wrapped: a line break in a path would name another file.
    """

    def __init__(self, out: "Console") -> None:
        self._out = out

    def __call__(self, text: str, style: str = "", *, lead: str = "", copied: bool = False) -> None:
        shown, first = as_text(text, style, longest=len(text)), as_text(lead, style)
        width = max(_NARROWEST, self._out.width - len(lead))
        wrapped = self._out.is_terminal and text and not copied
        lines = shown.wrap(self._out, width, overflow="fold") if wrapped else [shown]
        for number, one in enumerate(lines):
            self._out.print((first if number == 0 else as_text(" " * len(lead))) + one, soft_wrap=True)


def _token_lines(token: "Predicted") -> Iterator[tuple[str, str, str]]:
    request = " on behalf of users" if token.exchanged_for else ""
    request += f" with scope={token.request}" if token.request else ""
    request += " with a proof (DPoP)" if token.dpop else ""
    if token.before == token.after:
        yield "  ", f"{named(token.caller)}{request}: unchanged, {_claims(token.after)}", ""
        return
    yield "  ", f"{named(token.caller)}{request}:", ""
    yield "    before: ", _claims(token.before), "red"
    yield "    after:  ", _claims(token.after), "green"


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
    if bound := claims.get("cnf"):
        parts.append(f"bound to {'a key' if 'jkt' in bound else 'a client certificate'} (cnf)")
    return ", ".join(parts)
