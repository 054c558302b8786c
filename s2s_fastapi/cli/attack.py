"""``s2s-fastapi attack``: the suite of attacks on an app, in this process or over a URL on this machine."""

import importlib
import logging
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from s2s_fastapi.cli.mistake import listen, problem_of
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.text import named

if TYPE_CHECKING:
    from s2s_fastapi.testing.attack import Report
    from s2s_fastapi.testing.attack.runner import Opening
    from s2s_fastapi.testing.issuer import EmbeddedIssuer

__all__ = ["attack"]

_HEADINGS: Final = {"accepted": "HOLES", "otherwise": "other", "not_tried": "untried", "not_applicable": "n/a"}


def attack(
    app: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app, as uvicorn takes it, or a Target.")],
    *,
    factory: Annotated[bool, typer.Option("--factory", help="APP is a function that returns the app.")] = False,
    client_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The client that the app is, unless its settings name one.")
    ] = None,
    public: Annotated[
        list[str] | None,
        typer.Option(metavar="ROUTE", help='A route that anybody may call on purpose: "/health" or "POST /hook".'),
    ] = None,
    base_url: Annotated[
        str, typer.Option(metavar="URL", help="The scheme and the host of every request: https://api.example.com.")
    ] = "",
    only: Annotated[list[str] | None, typer.Option(metavar="CASE", help="Try this case or this kind only.")] = None,
    without: Annotated[list[str] | None, typer.Option(metavar="CASE", help="Leave out this case or kind.")] = None,
    url: Annotated[
        str, typer.Option(metavar="URL", help="Attack the app where a server runs it: http://127.0.0.1:8000.")
    ] = "",
    issuer_port: Annotated[
        int, typer.Option(min=1, max=65535, help="With --url: the port on which the issuer of the suite answers.")
    ] = 8181,
    unsafe_methods: Annotated[
        bool, typer.Option("--unsafe-methods", help="With --url: try other methods than GET and HEAD too.")
    ] = False,
    other_guard: Annotated[
        bool,
        typer.Option(
            "--other-guard", help="With --url: another guard than ours runs there. APP only describes its routes."
        ),
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON.")] = None,
    junit_file: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write the report as JUnit XML.")
    ] = None,
) -> None:
    """Attack an app with what broke similar packages, and say what it let in.

    In this process the app trusts an issuer of the suite while it is attacked, and none of its endpoints runs. Over a URL its code runs.
    The exit code is 0 if nothing was found, 1 if there are findings, and 2 if a route could not be tried.
    """
    # Imported for this command only: it would slow down --help.
    from s2s_fastapi.testing.attack.asgi import BASE_URL  # noqa: PLC0415
    from s2s_fastapi.testing.attack.network import ServedApp, loopback  # noqa: PLC0415
    from s2s_fastapi.testing.attack.own import OwnApp  # noqa: PLC0415
    from s2s_fastapi.testing.attack.runner import run  # noqa: PLC0415
    from s2s_fastapi.testing.attack.target import Target  # noqa: PLC0415

    loaded = _loaded(app, factory=factory)
    with ExitStack() as stack:
        for name in (
            "s2s_fastapi",
            "s2s_fastapi.decisions",
            "s2s_fastapi.testing",
        ):  # each refusal is a line of the log
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        opening: Opening
        if isinstance(loaded, Target):
            if client_id is not None or public or base_url or url or unsafe_methods or other_guard:
                raise ConfigurationError(
                    "A Target says by itself how it is attacked: leave out --client-id, --public, --base-url, --url, --unsafe-methods and "
                    "--other-guard."
                )
            opening = loaded
        elif other_guard and not url:
            raise ConfigurationError("--other-guard needs --url. In this process, write a Target for another guard.")
        elif url and base_url:
            raise ConfigurationError("--url sends to a server as it is: leave out --base-url.")
        else:
            opening = own = OwnApp(app=loaded, client_id=client_id, public=public or (), base_url=base_url or BASE_URL)
            if url:
                loopback(url)  # before anything listens
                issuer = _served(stack, issuer_port)
                opening = ServedApp(
                    app=own, url=url, issuer=issuer, unsafe_methods=unsafe_methods, other_guard=other_guard
                )
        try:
            report = run(opening, strict=isinstance(opening, OwnApp), only=only or (), without=without or ())
        except ConfigurationError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - code of the app runs: its middleware, or what a Target makes
            traceback.print_exception(error)
            raise ConfigurationError(f"The app {named(app)} cannot be attacked: the error above says why.") from None
    _print(report)
    for file, text in ((json_file, report.as_json), (junit_file, report.as_junit)):
        if file is not None:
            _write(file, text())
    raise SystemExit(report.exit_code)


def _served(stack: ExitStack, port: int) -> "EmbeddedIssuer":
    """Return an issuer that answers on the port until the stack is closed.

    Raises:
        ConfigurationError: The port is taken.
    """
    from s2s_fastapi.testing.attack.realm import attacking_issuer  # noqa: PLC0415 - see above

    issuer = attacking_issuer()
    listen(stack, issuer.serving(port), port, option="--issuer-port")
    return issuer


def _loaded(name: str, *, factory: bool) -> Any:
    """Return the object that ``module:attribute`` names.

    Raises:
        ConfigurationError: There is no such module or attribute.
    """
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise ConfigurationError(f"Write the app as module:app, for example crm_gateway:app, not {name!r}.")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found() if factory else found
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            problem = f"There is no module {module} in {Path.cwd()} or on the path."
        else:
            problem = _own(error, name)
    except AttributeError as error:
        problem = _own(error, name) if _of_the_app(error) else f"The module {module} has no {attribute}."
    except TypeError as error:
        called = f"--factory calls {attribute} without arguments, and it cannot be called so. If it is the app, leave out --factory."
        problem = _own(error, name) if _of_the_app(error) else called
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the code of the app may raise anything
        problem = _own(error, name)
    raise ConfigurationError(problem)


def _of_the_app(error: Exception) -> bool:
    """Return whether other code raised it than the lines of `_loaded`."""
    return error.__traceback__ is not None and error.__traceback__.tb_next is not None


def _own(error: BaseException, name: str) -> str:
    """Write the traceback of an error of the app itself: it says more than a sentence."""
    traceback.print_exception(error)
    return f"The app {named(name)} cannot be imported: the error above is its own."


def _print(report: "Report") -> None:
    """Print a table of the routes, then what was found, then what was not tried."""
    from rich.console import Console  # noqa: PLC0415 - see above
    from rich.table import Table  # noqa: PLC0415

    from s2s_fastapi.keycloak.cures import shown  # noqa: PLC0415
    from s2s_fastapi.testing.attack.report import OUTCOMES  # noqa: PLC0415

    out = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    table = Table(title="Attacks")
    table.add_column("Route", overflow="fold")  # a long name takes no room from the counts
    for outcome in OUTCOMES:
        table.add_column(_HEADINGS.get(outcome, outcome), justify="right")
    for route in report.routes:
        cells = [str(sum(each.outcome == outcome for each in route.results) or "") for outcome in OUTCOMES]
        table.add_row(
            shown(route.route) + (" (public)" if route.public else " (full list)" if route.full else ""), *cells
        )
    out.print(table)
    for result in report.findings:
        out.print(f"{'HOLE' if result.outcome == 'accepted' else 'OTHERWISE'} {shown(str(result))}")
    for result in report.results:
        if result.outcome == "lenient":
            out.print(f"LENIENT {shown(str(result))}")
    for route in report.routes:
        if route.problem:
            out.print(f"NOT TRIED {shown(route.route)}: {shown(route.problem)}")
    for result in report.results:
        if result.outcome == "not_tried" and not any(
            route.problem for route in report.routes if route.route == result.route
        ):
            out.print(f"NOT TRIED {shown(str(result))}")
    if report.nobody_gets_in:
        out.print("NOBODY GETS IN: no route accepted a good token, so no refusal proves anything.")
    out.print(f"{len(report.holes)} holes, {len(report.results)} cases on {len(report.routes)} routes.")


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {problem_of(error)}.") from None
