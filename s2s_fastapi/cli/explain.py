"""``s2s-fastapi explain``: why a call is accepted or refused, for each route."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from s2s_fastapi.cli.examples import Example, realm_of
from s2s_fastapi.cli.printing import as_text, columns, name_the_page, print_json, print_pairs, quiet, show
from s2s_fastapi.environment import settings_or_environment
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.text import listed, named

if TYPE_CHECKING:
    from rich.text import Text

    from s2s_fastapi.declared.access_file import AppAccess
    from s2s_fastapi.operations.explanation import Explanation, Question, RealmSource, RouteAnswer, Token
    from s2s_fastapi.operations.records import LogRecord
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["explain"]

_LONGEST_INPUT: Final = 65_536
_WAYS: Final = """\
There are three ways to ask, and stdin has nothing:
  about a client, with a realm file or the variables KEYCLOAK_ADMIN_...:
    s2s-fastapi explain --client ID --to ID --realm-file REALM.json
  about a token:
    s2s-fastapi token --raw | s2s-fastapi explain --to ID --access FILE
  about the log record of a refusal:
    s2s-fastapi explain --access FILE < record.json"""
_NO_REALM: Final = (
    "Add --realm-file REALM.json (or --example corp, the realm of the first steps), or set KEYCLOAK_ADMIN_CLIENT_ID and"
    " KEYCLOAK_ADMIN_CLIENT_SECRET_FILE to ask the server, or --access FILE to see what the routes require: the token is predicted from a realm."
)
_ON_BEHALF: Final = (
    "--on-behalf is a question about a client: add --client ID, and --realm-file REALM.json or KEYCLOAK_ADMIN_... to ask the server. A user's own"
    " token is explained without it."
)
_BOUND: Final = {
    "dpop": "to a key (cnf). Each request needs a proof by it, which is not looked at here.",
    "certificate": "to a client certificate (cnf). Each request needs a connection with it, which is not looked at here.",
}
_SETTINGS: Final = ("KEYCLOAK_URL", "KEYCLOAK_ISSUER")


def explain(  # noqa: PLR0917 - the options of the command line
    client: Annotated[str, typer.Option(metavar="ID", help="The client that calls. Without it, stdin is read.")] = "",
    scope: Annotated[
        list[str] | None, typer.Option(metavar="SCOPE", help="A scope that it requests; may be given several times.")
    ] = None,
    to: Annotated[str, typer.Option(metavar="ID", help="The called service: its client id or its audience.")] = "",
    on_behalf: Annotated[
        bool, typer.Option("--on-behalf", help="The client calls on behalf of a user, with an exchanged token.")
    ] = False,
    dpop: Annotated[
        bool, typer.Option("--dpop", help="The client sends a proof, and so gets a bound token (DPoP).")
    ] = False,
    realm_file: Annotated[
        Path | None, typer.Option(metavar="REALM.json", help="A realm file or export, to predict the token from.")
    ] = None,
    example: Annotated[
        Example | None,
        typer.Option(help="Take a realm file that comes with the package; corp is the realm of the first steps."),
    ] = None,
    keycloak: Annotated[str, typer.Option(metavar="VERSION", help="The version of the server.")] = "26.7.3",
    access: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="An access file: what apps declare. May be given several times."),
    ] = None,
    app: Annotated[str, typer.Option(metavar="MODULE:APP", help="An app to read what it declares.")] = "",
    url: Annotated[str, typer.Option(metavar="URL", help="Keycloak's address; KEYCLOAK_URL by default.")] = "",
    realm: Annotated[str, typer.Option(metavar="NAME", help="The realm; KEYCLOAK_REALM by default.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the explanation as JSON.")] = False,
) -> None:
    """Say for each route whether a call is accepted, why not, and what to change.

    A question names a client: --client shop-api --to notification-service --realm-file realm.json. Without a realm file a server is asked,
    with the log-in KEYCLOAK_ADMIN_CLIENT_ID and KEYCLOAK_ADMIN_CLIENT_SECRET_FILE (rights: view-clients, view-users, view-realm). Or stdin
    has a token, or the log record of a refusal. With --on-behalf the client calls on behalf of a user, with an exchanged token. A token is never an argument: the list of processes would show it.

    What the routes require is in the access file of the called service: --access. Exit code 0: at least one of the routes accepts the
    call. 1: none does, or the routes are not known.
    """
    quiet()
    from s2s_fastapi.operations.declarations import declared_by  # noqa: PLC0415 - slows --help down
    from s2s_fastapi.operations.explanation import (  # noqa: PLC0415 - as above
        Question,
        declared_only,
        declares_bound,
        exchanged,
    )

    if app:
        from s2s_fastapi.operations.applications import checked_name  # noqa: PLC0415 - as above

        checked_name(app)
    if example is not None:
        if realm_file is not None:
            raise ConfigurationError("--example takes the place of --realm-file: leave one of them out.")
        realm_file = realm_of(example)
    apps = declared_by(access or (), app)
    read = _Read(
        apps, (*map(str, access or ()), *(("",) if app else ())), "" if realm_file is None else str(realm_file)
    )
    question = Question(client_id=client, scopes=tuple(scope or ()), to=to, on_behalf=on_behalf)
    question = replace(question, dpop=dpop or declares_bound(apps, client, to))
    with _realm(realm_file, keycloak, _Server(url, realm), apps) as source:
        if client and source is not None:
            token = exchanged(source.model(question), question) if on_behalf else source.predicted(question)
            explanation = read.explained(question, token)
        elif on_behalf:
            raise ConfigurationError(_ON_BEHALF)
        elif client and apps:
            explanation = declared_only(question, apps)
        elif client:
            raise ConfigurationError(_NO_REALM)
        else:
            explanation = _of_stdin(_stdin(), question, source, read)
    if as_json:
        print_json(explanation.as_json())
    else:
        _print(explanation)
    if not explanation.accepted:
        if not as_json:
            name_the_page()
        raise SystemExit(1)


def _stdin() -> str:
    text = "" if sys.stdin.isatty() else sys.stdin.read(_LONGEST_INPUT + 1).strip()
    if not text:
        raise ConfigurationError(_WAYS)
    if len(text) > _LONGEST_INPUT:
        raise ConfigurationError(f"stdin has more than {_LONGEST_INPUT} characters.")
    return text


class _Server(NamedTuple):
    """Where the server is, if the variables do not say it."""

    url: str
    realm: str


class _Read(NamedTuple):
    """What was read, and from which files."""

    apps: "tuple[AppAccess, ...]"
    files: tuple[str, ...]
    realm_file: str

    def explained(self, question: "Question", token: "Token") -> "Explanation":
        from s2s_fastapi.operations.explanation import explained  # noqa: PLC0415 - as above

        return explained(question, token, self.apps, files=self.files, realm_file=self.realm_file)


@contextmanager
def _realm(
    file: Path | None, version: str, server: _Server, apps: "tuple[AppAccess, ...]"
) -> "Iterator[RealmSource | None]":
    """Give the realm that is asked: the file, or the server whose administrator is named; None without either."""
    from s2s_fastapi.operations.declarations import audiences_of, read_realm_file  # noqa: PLC0415 - as above
    from s2s_fastapi.operations.explanation import FileRealm  # noqa: PLC0415 - as above

    if file is not None:
        yield FileRealm(read_realm_file(file, version))
        return
    from s2s_fastapi.operations.admin import VARIABLES, AdminApi, AdminTarget  # noqa: PLC0415 - as above

    if not any(server) and not any(os.environ.get(name) for name in VARIABLES):
        yield None
        return
    from s2s_fastapi.operations.live_realm import LiveRealm  # noqa: PLC0415 - as above

    audiences = frozenset(name for each in apps if each.requires is not None for name in audiences_of(each))
    with AdminApi(AdminTarget.of(url=server.url, realm=server.realm)) as api:
        yield LiveRealm(api, audiences)


def _of_stdin(text: str, question: "Question", source: "RealmSource | None", read: _Read) -> "Explanation":
    """Explain a token or a log record."""
    from s2s_fastapi.operations.records import is_record, read_record  # noqa: PLC0415 - as above

    if not is_record(text):
        question, token = _given(text, question, source)
        return read.explained(question, token)
    record = read_record(text)
    explanation = _of_record(record, question, source, read)
    if record.among == 1:
        return explanation
    return replace(
        explanation, hints=(f"stdin has {record.among} records: the last one is explained.", *explanation.hints)
    )


def _of_record(record: "LogRecord", question: "Question", source: "RealmSource | None", read: _Read) -> "Explanation":
    """Explain a refusal by the realm, if it is known; otherwise say what the record says, and what the route requires."""
    from s2s_fastapi.keycloak.dpop import ABOUT_PROOFS  # noqa: PLC0415 - as above
    from s2s_fastapi.operations.explanation import ROUTES_UNKNOWN, required  # noqa: PLC0415 - as above

    asked = replace(record.question, scopes=question.scopes, to=question.to or record.question.to)
    asked = replace(asked, dpop=asked.dpop or question.dpop)
    proof = tuple(ABOUT_PROOFS[name] for name in (str(record.reason),) if name in ABOUT_PROOFS)
    if source is None or not asked.client_id or record.user:  # nobody can predict which roles a user has
        return replace(record.explanation, hints=(*proof, *required(asked, read.apps)))
    explanation = read.explained(asked, source.predicted(asked))
    if unknown := [route.cure for route in explanation.routes if route.reason == ROUTES_UNKNOWN]:
        return replace(explanation, routes=record.explanation.routes, hints=(*unknown, *explanation.hints))
    if proof:  # the token is not at fault, whatever the realm says of it
        return replace(explanation, routes=record.explanation.routes, hints=(*proof, *explanation.hints))
    if not explanation.accepted:
        return explanation
    doubt = (
        f"The log says {record.reason}, and the predicted token would be accepted: the realm is another one or was changed since, the caller"
        " requested other scopes (--scope), or somebody sent another token."
    )
    return replace(explanation, hints=(*explanation.hints, doubt, record.cure))


def _given(text: str, question: "Question", source: "RealmSource | None") -> "tuple[Question, Token]":
    """Return the token on stdin, and where its contents come from if the realm has its client."""
    from s2s_fastapi.operations.explanation import given  # noqa: PLC0415 - as above

    words = text.removeprefix("Authorization:").split()
    word = words[-1] if words else ""
    token = given(word, _settings())
    principal = token.principal
    if principal is None:
        return question, token
    question = replace(question, client_id=principal.client_id)
    if source is None:
        return question, token
    model = source.model(question)
    if model.not_before:
        token = given(word, _settings(), not_before=model.not_before)
    if principal.kind == "user":
        return question, token
    requested = [name for name in model.optional_scopes(principal.client_id) if name in principal.scopes]
    question = replace(question, scopes=question.scopes or tuple(requested))
    provenance = model.provenance(principal.client_id, scope=question.scope)
    return question, replace(token, provenance=provenance, model=model)


def _settings() -> "KeycloakSettings | None":
    return settings_or_environment(None) if any(os.environ.get(name) for name in _SETTINGS) else None


def _print(explanation: "Explanation") -> None:
    token = explanation.token.decision
    print_pairs(_rows(explanation))
    if not explanation.routes:
        return
    table = columns(3)
    # A token that is no good in itself is refused by each route for the same reason: the row above has the cure.
    said = {(str(each.reason), each.cure): "" for each in (token, *explanation.token.further)}

    def once(reason: str, cure: str) -> str:
        """Return the cure as the end of a row. Many routes have the same one: it is written once."""
        shown = said.get((reason, cure), cure)
        if cure:
            said.setdefault((reason, cure), "as above")
        return f". {shown}" if shown else ""

    # Routes that need no token come last: nobody asks about them.
    for route in sorted(explanation.routes, key=lambda each: each.public):
        text = route.route if route.reason == "allowed" else f"{route.route}: {route.reason}"
        name = as_text(named(route.app) if route.app else "-")
        table.add_row(_state(route), name, as_text(f"{text}{once(route.reason, route.cure)}"))
        for each in route.then:
            reason = str(each.reason)
            if said.get((reason, each.cure)) != "":
                table.add_row(as_text("then", "red"), as_text(""), as_text(f"{reason}{once(reason, each.cure)}"))
    show(table)


def _state(route: "RouteAnswer") -> "Text":
    from s2s_fastapi.operations.explanation import ROUTES_UNKNOWN  # noqa: PLC0415 - as above

    if route.reason == ROUTES_UNKNOWN:
        return as_text("unknown", "yellow")
    return as_text("accepted", "green") if route.accepted else as_text("refused", "bold red")


def _rows(explanation: "Explanation") -> Iterator[tuple[str, str]]:
    from s2s_fastapi.operations.tokens import kind_because  # noqa: PLC0415 - as above

    token = explanation.token
    yield "token", f"{token.source}."
    principal = token.principal
    if principal is not None:
        yield "client", f"{named(principal.client_id)} (azp)"
        yield "kind", f"{principal.kind}. {kind_because(principal)}"
        yield "audiences", listed(principal.audiences) or "none (no aud)"
        yield "scopes", listed(principal.scopes) or "none"
        if principal.binding:
            yield "bound", _BOUND[principal.binding]
    if str(token.decision.reason) != "allowed":
        yield "refused", f"{token.decision.reason}. {token.decision.cure}"
    for each in token.further:
        yield "then", f"{each.reason}. {each.cure}"
    for source in token.provenance.sources if token.provenance is not None else ():
        brings = [f"audience {listed(source.audiences)}"] if source.audiences else []
        brings += [
            f"role {named(role.name)} of {named(role.client) if role.client else 'the realm'}"
            for role in sorted(source.roles)
        ]
        yield "from", f"scope {named(source.scope)}, mapper {named(source.mapper)}: {', '.join(brings)}"
    for hint in explanation.hints:
        yield "hint", hint
    for note in token.notes:
        yield "note", note
