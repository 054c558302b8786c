"""``s2s-fastapi token``: the token that this service gets, as the called service will judge it."""

import re
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.cli.printing import print_json, print_pairs, quiet, tell
from s2s_fastapi.environment import settings_or_environment
from s2s_fastapi.errors import ConfigurationError, TokenRequestError
from s2s_fastapi.names import url_problem
from s2s_fastapi.proof.checked import OLDEST
from s2s_fastapi.text import listed, named, printable

if TYPE_CHECKING:
    from s2s_fastapi.operations.tokens import TokenReport

__all__ = ["token"]


_METHOD: Final = re.compile(r"[A-Z]{1,32}")
_LONGEST_URL: Final = 512
_VERSION: Final = 1
"""The version of the JSON of ``--dpop``: docs/schemas/token-dpop.schema.json."""


class _Form(StrEnum):
    CLAIMS = "claims"
    RAW = "raw"
    HEADER = "header"
    JSON = "json"


def token(
    to: Annotated[
        list[str] | None,
        typer.Option("--for", metavar="AUDIENCE", help="The service that will be called; may be given several times."),
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(metavar="SCOPE", help="A scope to request; may be given several times.")
    ] = None,
    *,
    raw: Annotated[bool, typer.Option("--raw", help="Print the token and nothing else.")] = False,
    header: Annotated[
        bool, typer.Option("--header", help="Print the header, for `curl -H @-`. It stays out of the process list.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the claims as JSON, without the token.")] = False,
    dpop: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--dpop",
            metavar="METHOD URL",
            help="Request a bound token, and print both headers for one request to this URL, as arguments of curl. With --header as lines"
            " for `curl -H @-`, with --json as JSON.",
        ),
    ] = None,
) -> None:
    """Request a token as this service, and print its claims as the called service will judge them.

    The settings are the KEYCLOAK_... variables of the service. Exit code 1: Keycloak gives no such token, or the called service would
    refuse it. The cure is printed. With --raw and without --for, a token that every service refuses is printed as well.

    With --dpop the token is bound to a key that this command makes and forgets. The proof is for one request to the URL, within 30 s.
    """
    form = _form(raw=raw, header=header, as_json=as_json)
    quiet()
    if dpop is not None:
        _print_bound(Wanted.of(to or None, scope or None), *dpop, form)
        return
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


def _print_bound(wanted: Wanted, method: str, url: str, form: _Form) -> None:
    """Print a bound token with a proof for one request. Nothing is printed if Keycloak gives no such token."""
    if form is _Form.RAW:
        raise ConfigurationError(
            "--raw prints a token alone, and a bound token is of no use without its proof: leave --raw out."
        )
    headers, refused, problem = _headers_for(wanted, method, url)
    # Outside of any except block: the frames below it held the secret.
    if headers is None:
        if form is _Form.JSON:
            print_json(refused)
        else:
            sys.stderr.write(f"{problem}\n")
        raise SystemExit(1)
    tell(
        f"The proof is good for one {method} request to {printable(url, _LONGEST_URL)} within {OLDEST} s. Make another one for each"
        " further request."
    )
    if form is _Form.JSON:
        print_json({"version": _VERSION, "method": method, "url": url, "headers": headers, "seconds": OLDEST})
    elif form is _Form.HEADER:
        sys.stdout.write("".join(f"{name}: {value}\n" for name, value in headers.items()))
    else:
        sys.stdout.write(" ".join(f"-H '{name}: {value}'" for name, value in headers.items()) + "\n")


def _headers_for(wanted: Wanted, method: str, url: str) -> tuple[dict[str, str] | None, dict[str, Any], str]:
    """Return the headers; if Keycloak gives no such token, None, the report as JSON, and what is to change."""
    from s2s_fastapi.caller.auth import ServiceTokenAuth  # noqa: PLC0415 - slows --help down
    from s2s_fastapi.operations.tokens import refused_json  # noqa: PLC0415 - as above

    auth = ServiceTokenAuth(
        _origin(method, url), audience=wanted.audiences or None, scope=wanted.scopes or None, dpop=True
    )
    try:
        return auth.headers_for(method, url), {}, ""
    except TokenRequestError as error:
        return None, refused_json(wanted, error), str(error)


def _origin(method: str, url: str) -> str:
    if not _METHOD.fullmatch(method):
        raise ConfigurationError(
            f"{named(method)} is no method of HTTP: write --dpop GET https://crm.example.com/tickets."
        )
    if problem := url_problem(url.partition("?")[0]):
        raise ConfigurationError(
            f"{named(url)} is no URL to call: {problem}. Write --dpop {method} https://crm.example.com/tickets."
        )
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


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
        if principal.binding:
            to_key = "to a key of this command (cnf): see --dpop."
            yield "bound", to_key if principal.binding == "dpop" else "to the client certificate of this command (cnf)."
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
