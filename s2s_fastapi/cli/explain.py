"""``s2s-fastapi explain``: why a call is accepted or refused, for each route."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from s2s_fastapi.cli.mistake import in_one_sentence
from s2s_fastapi.cli.printing import as_text, columns, print_json, print_pairs, quiet, show
from s2s_fastapi.environment import settings_or_environment
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.text import listed, named

if TYPE_CHECKING:
    from s2s_fastapi.declared.access_file import AppAccess
    from s2s_fastapi.operations.explanation import Explanation, Question, Token
    from s2s_fastapi.realm.model import RealmModel
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["explain"]

_LONGEST_INPUT: Final = 65_536
_WAYS: Final = """\
There are three ways to ask, and stdin has nothing:
  about a client      s2s-fastapi explain --client ID --to ID --realm-file REALM.json
  about a token       s2s-fastapi token --raw | s2s-fastapi explain --to ID
  about a log record  s2s-fastapi explain < record.json   (the record of a refusal, as one JSON line)"""
_SETTINGS: Final = ("KEYCLOAK_URL", "KEYCLOAK_ISSUER")


@in_one_sentence
def explain(  # noqa: PLR0917 - the options of the command line
    client: Annotated[str, typer.Option(metavar="ID", help="The client that calls. Without it, stdin is read.")] = "",
    scope: Annotated[
        list[str] | None, typer.Option(metavar="SCOPE", help="A scope that it requests; may be given several times.")
    ] = None,
    to: Annotated[str, typer.Option(metavar="ID", help="The called service: its client id or its audience.")] = "",
    realm_file: Annotated[
        Path | None, typer.Option(metavar="REALM.json", help="A realm file or export, to predict the token from.")
    ] = None,
    keycloak: Annotated[str, typer.Option(metavar="VERSION", help="The version of the server.")] = "26.7.3",
    access: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="An access file: what apps declare. May be given several times."),
    ] = None,
    app: Annotated[str, typer.Option(metavar="MODULE:APP", help="An app to read what it declares.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the explanation as JSON.")] = False,
) -> None:
    """Say for each route whether a call is accepted, why not, and what to change.

    A question names a client: --client shop-api --to notification-service --realm-file realm.json. Or stdin has a token, or the log
    record of a refusal as one JSON line. A token is never an argument: the list of processes would show it.

    Exit code 0: at least one of the routes accepts the call. 1: none does.
    """
    quiet()
    from s2s_fastapi.operations.declarations import declared_by, read_realm_file  # noqa: PLC0415 - slows --help down
    from s2s_fastapi.operations.explanation import Question, explained, predicted  # noqa: PLC0415 - as above

    if app:
        from s2s_fastapi.operations.applications import checked_name  # noqa: PLC0415 - as above

        checked_name(app)
    apps = declared_by(access or (), app)
    model = None if realm_file is None else read_realm_file(realm_file, keycloak)
    question = Question(client_id=client, scopes=tuple(scope or ()), to=to)
    if client:
        if model is None:
            raise ConfigurationError("Add --realm-file REALM.json: the token is predicted from a realm file or export.")
        explanation = explained(question, predicted(model, question), apps)
    else:
        text = _stdin()
        if text.startswith("{"):
            explanation = _of_record(text, question, model, apps)
        else:
            question, token = _given(text, question, model)
            explanation = explained(question, token, apps)
    if as_json:
        print_json(explanation.as_json())
    else:
        _print(explanation)
    if not explanation.accepted:
        raise SystemExit(1)


def _stdin() -> str:
    text = "" if sys.stdin.isatty() else sys.stdin.read(_LONGEST_INPUT + 1).strip()
    if not text:
        raise ConfigurationError(_WAYS)
    if len(text) > _LONGEST_INPUT:
        raise ConfigurationError(f"stdin has more than {_LONGEST_INPUT} characters.")
    return text


def _of_record(
    line: str, question: "Question", model: "RealmModel | None", apps: "tuple[AppAccess, ...]"
) -> "Explanation":
    """Explain a refusal by the realm file, if there is one; otherwise say what the record says."""
    from s2s_fastapi.operations.explanation import explained, predicted  # noqa: PLC0415 - as above
    from s2s_fastapi.operations.records import read_record  # noqa: PLC0415 - as above

    record = read_record(line)
    asked = replace(record.question, scopes=question.scopes, to=question.to or record.question.to)
    if model is None or not asked.client_id:
        return record.explanation
    explanation = explained(asked, predicted(model, asked), apps)
    if not explanation.accepted:
        return explanation
    doubt = (
        f"The log says {record.reason}, and the predicted token would be accepted: the server's realm differs from this file, the caller"
        " requested other scopes (--scope), or somebody sent another token."
    )
    return replace(explanation, hints=(*explanation.hints, doubt, record.cure))


def _given(text: str, question: "Question", model: "RealmModel | None") -> "tuple[Question, Token]":
    """Return the token on stdin, and where its contents come from if the realm file has its client."""
    from s2s_fastapi.operations.explanation import given  # noqa: PLC0415 - as above

    words = text.removeprefix("Authorization:").split()
    token = given(words[-1] if words else "", _settings())
    principal = token.principal
    if principal is None:
        return question, token
    question = replace(question, client_id=principal.client_id)
    if model is None or principal.kind == "user":
        return question, token
    requested = [name for name in model.optional_scopes(principal.client_id) if name in principal.scopes]
    scopes = question.scopes or tuple(requested)
    provenance = model.provenance(principal.client_id, scope=" ".join(scopes) or None)
    return replace(question, scopes=scopes), replace(token, provenance=provenance)


def _settings() -> "KeycloakSettings | None":
    return settings_or_environment(None) if any(os.environ.get(name) for name in _SETTINGS) else None


def _print(explanation: "Explanation") -> None:
    token = explanation.token.decision
    print_pairs(_rows(explanation))
    if not explanation.routes:
        return
    table = columns(3)
    for route in explanation.routes:
        state = as_text("accepted", "green") if route.accepted else as_text("refused", "bold red")
        text = route.route if route.reason == "allowed" else f"{route.route}: {route.reason}"
        # A token that is no good in itself is refused by each route for the same reason: the row above has the cure.
        cure = "" if (route.reason, route.cure) == (token.reason, token.cure) else route.cure
        table.add_row(
            state, as_text(named(route.app) if route.app else "-"), as_text(f"{text}. {cure}" if cure else text)
        )
    show(table)


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
    if str(token.decision.reason) != "allowed":
        yield "refused", f"{token.decision.reason}. {token.decision.cure}"
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
