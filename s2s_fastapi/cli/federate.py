"""``s2s-fastapi federate``: the identity provider and the client for a service that has no secret, as Keycloak imports them."""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from s2s_fastapi.cli.mistake import problem_of
from s2s_fastapi.cli.planned import read_realm
from s2s_fastapi.cli.printing import quiet, tell
from s2s_fastapi.declared.access_file import AccessFile
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.keycloak.client_authentication import ByFederation, TrustedProvider, same_subject
from s2s_fastapi.names import name_problem
from s2s_fastapi.text import named

if TYPE_CHECKING:
    from s2s_fastapi.operations.snapshot import Snapshot

__all__ = ["federate"]


def federate(
    *,
    client_id: Annotated[str, typer.Option(metavar="ID", help="The client in Keycloak that logs in without a secret.")],
    subject: Annotated[str, typer.Option(metavar="SUB", help="The sub of its tokens.")],
    issuer: Annotated[
        str,
        typer.Option(metavar="URL", help="The iss of its tokens; with --type spiffe the trust domain, spiffe://NAME."),
    ],
    kind: Annotated[
        Literal["kubernetes", "oidc", "spiffe"],
        typer.Option(
            "--type",
            help="kubernetes: tokens of service accounts, at most 3600 s old. oidc: at most 300 s old. spiffe: preview.",
        ),
    ] = "kubernetes",
    alias: Annotated[
        str, typer.Option(metavar="NAME", help="The identity provider in Keycloak; the type by default.")
    ] = "",
    keys: Annotated[
        str, typer.Option(metavar="URL", help="Where the keys of the issuer are: for oidc and spiffe.")
    ] = "",
    realm_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare with the realm in this file. Needs no log-in.")
    ] = None,
    keycloak: Annotated[
        str, typer.Option(metavar="VERSION", help="With --realm-file: the version of the server that imports it.")
    ] = "26.7.3",
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Compare with the realm of KEYCLOAK_URL, as the client of KEYCLOAK_ADMIN_CLIENT_ID."
        ),
    ] = False,
    access: Annotated[
        Path | None,
        typer.Option(metavar="ACCESS.json", help="Write client_authentication into this access file, for `plan`."),
    ] = None,
) -> None:
    """Print the identity provider and the client for a service that proves itself by the token of another issuer, as realm JSON.

    In Kubernetes, the subject is system:serviceaccount:NAMESPACE:NAME.

    With --realm-file or --live, a subject that already proves another client of the realm is refused, and so is an identity provider that
    is there with other settings. Nothing is changed in Keycloak: `plan` and `apply` do that. Exit code 2: refused.
    """
    quiet()
    if problem := name_problem(client_id):
        raise ConfigurationError(f"--client-id is no name of a client: {problem}.")
    how = ByFederation(
        provider=TrustedProvider(alias=alias or kind, kind=kind, issuer=issuer, keys=keys), subject=subject
    )
    if how.problem:
        raise ConfigurationError(f"{how.problem}.")
    if how.provider.caution:
        tell(f"{how.provider.caution}.")
    if realm_file is not None and live:
        raise ConfigurationError("--realm-file takes the place of a server: leave --live out.")
    if realm_file is not None:
        _refuse(_of_file(realm_file, keycloak, client_id, how), client_id, how)
    if live:
        _refuse(_of_server(client_id, how), client_id, how)
    if access is not None:
        _write(access, client_id, how)
    _print(client_id, how)


def _refuse(realm: "Snapshot", client_id: str, how: ByFederation) -> None:
    from s2s_fastapi.operations.federation import obstacle  # noqa: PLC0415 - slows --help down

    if (found := obstacle(realm, client_id, how, replaced={client_id})) is not None:
        raise ConfigurationError(found.text)


def _of_file(file: Path, version: str, client_id: str, how: ByFederation) -> "Snapshot":
    from s2s_fastapi.operations.federation import question_for  # noqa: PLC0415 - slows --help down
    from s2s_fastapi.operations.realm_file import RealmFile  # noqa: PLC0415 - as above
    from s2s_fastapi.operations.snapshot import read_snapshot  # noqa: PLC0415 - as above

    return read_snapshot(RealmFile(read_realm(file), version=version), question_for(client_id, how))


def _of_server(client_id: str, how: ByFederation) -> "Snapshot":
    from s2s_fastapi.operations.admin import AdminApi, AdminTarget  # noqa: PLC0415 - slows --help down
    from s2s_fastapi.operations.federation import question_for  # noqa: PLC0415 - as above
    from s2s_fastapi.operations.snapshot import read_snapshot  # noqa: PLC0415 - as above

    target = AdminTarget.of()
    if target.unprotected:
        tell(target.unprotected)
    with AdminApi(target) as api:
        return read_snapshot(api, question_for(client_id, how))


def _write(file: Path, client_id: str, how: ByFederation) -> None:
    content = AccessFile.read(file)
    app = content.app(client_id)
    if app is None:
        raise ConfigurationError(f"The access file {file} has no app with the client id {named(client_id)}.")
    others = [
        other.client_id
        for other in content.apps
        if other.client_id != client_id
        and isinstance(theirs := other.client_authentication, ByFederation)
        and (theirs.provider.alias, theirs.subject) == (how.provider.alias, how.subject)
    ]
    if others:
        raise ConfigurationError(f"{same_subject(how.provider.alias, how.subject, others)}.")
    try:
        file.write_text(content.with_app(replace(app, client_authentication=how)).text, encoding="utf-8")
    except OSError as error:
        problem = problem_of(error)
    else:
        tell(f"Wrote {file}.")
        return
    raise ConfigurationError(f"{file} cannot be written: {problem}.")


def _print(client_id: str, how: ByFederation) -> None:
    from s2s_fastapi.operations.federation import federated  # noqa: PLC0415 - slows --help down

    sys.stdout.write(f"{json.dumps(federated(client_id, how), indent=2)}\n")
    sys.stdout.flush()
    sys.stderr.write(
        "These are members of a realm file; neither has a secret. Have a token made for the service whose only audience (aud) is the issuer of the"
        " realm, and start it with\n"
        f"export KEYCLOAK_CLIENT_ID={shlex.quote(client_id)}\n"
        "export KEYCLOAK_CLIENT_AUTH=federated_jwt\n"
        "export KEYCLOAK_CLIENT_ASSERTION_FILE=/var/run/secrets/keycloak/token\n"
    )
