"""``s2s-fastapi token``: the token that this service gets, as the called service will judge it."""

import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.cli.mistake import in_one_sentence
from s2s_fastapi.cli.printing import print_json, print_pairs, quiet
from s2s_fastapi.environment import settings_or_environment
from s2s_fastapi.errors import ConfigurationError, TokenRequestError
from s2s_fastapi.text import listed, named

if TYPE_CHECKING:
    from s2s_fastapi.operations.tokens import TokenReport

__all__ = ["token"]


class _Form(StrEnum):
    CLAIMS = "claims"
    RAW = "raw"
    HEADER = "header"
    JSON = "json"


@in_one_sentence
def token(
    to: Annotated[
        list[str] | None,
        typer.Option("--for", metavar="AUDIENCE", help="The service that will be called; may be given several times."),
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(metavar="SCOPE", help="A scope to request; may be given several times.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Print the token and nothing else.")] = False,
    header: Annotated[
        bool, typer.Option("--header", help="Print the header, for `curl -H @-`. It stays out of the process list.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the claims as JSON, without the token.")] = False,
) -> None:
    """Request a token as this service, and print its claims as the called service will judge them.

    The settings are the KEYCLOAK_... variables of the service. Exit code 1: Keycloak gives no such token, or the called service would
    refuse it. The cure is printed. With --raw and without --for, a token that every service refuses is printed as well.

    s2s-fastapi token --for crm-api-gateway --header | curl -H @- https://crm.example.com/tickets
    """
    form = _form(raw=raw, header=header, as_json=as_json)
    quiet()
    from s2s_fastapi.operations.tokens import refused_json, requested_and_judged  # noqa: PLC0415 - slows --help down

    wanted = Wanted.of(to or None, scope or None)
    try:
        report = requested_and_judged(settings_or_environment(None), wanted)
    except TokenRequestError as error:
        problem, refused = str(error), refused_json(wanted, error)
    else:
        _print(report, form)
        if not report.accepted:
            raise SystemExit(1)
        return
    # Outside of the except block: the frames below it held the secret.
    if form is _Form.JSON:
        print_json(refused)
    else:
        sys.stderr.write(f"{problem}\n")
    raise SystemExit(1)


def _form(**chosen: bool) -> _Form:
    names = [name for name, is_chosen in chosen.items() if is_chosen]
    if len(names) > 1:
        raise ConfigurationError("Choose one of --raw, --header and --json.")
    return _Form(names[0].removeprefix("as_")) if names else _Form.CLAIMS


def _print(report: "TokenReport", form: _Form) -> None:
    if form is _Form.JSON:
        print_json(report.as_json())
        return
    if form is _Form.CLAIMS:
        print_pairs(_rows(report))
        return
    # A token that the called service refuses is not printed: the reason is more help than its 401. If no service was named, somebody
    # wants to look at the token, with explain perhaps.
    if not report.accepted:
        sys.stderr.write(f"{report.decision.cure}\n")
    to_look_at = form is _Form.RAW and not report.wanted.audiences
    if report.granted is None or not (report.accepted or to_look_at):
        return
    token = report.granted.value
    sys.stdout.write(f"Authorization: Bearer {token}\n" if form is _Form.HEADER else f"{token}\n")


def _rows(report: "TokenReport") -> Iterator[tuple[str, str]]:
    from s2s_fastapi.operations.tokens import kind_because  # noqa: PLC0415 - as above

    principal = report.principal
    if principal is not None:
        yield "client", f"{named(principal.client_id)} (azp)"
        yield "kind", f"{principal.kind}. {kind_because(principal)}"
        yield "issuer", principal.issuer
        yield "audiences", listed(principal.audiences) or "none (no aud)"
        yield "scopes", listed(principal.scopes) or "none"
        roles = [f"of the realm: {listed(principal.realm_roles)}"] if principal.realm_roles else []
        roles += [f"of {named(owner)}: {listed(its)}" for owner, its in sorted(principal.client_roles.items()) if its]
        yield "roles", "; ".join(roles) or "none"
        yield "lifetime", f"{principal.expires_at - principal.issued_at} s"
    target = listed(report.wanted.audiences, " and ") or "any service"
    if report.accepted:
        yield "accepted", f"by {target}, unless a route requires more."
    else:
        yield "refused", f"by {target}: {report.decision.reason}. {report.decision.cure}"
    for sentence in report.remarks:
        yield "note", f"{sentence}."
