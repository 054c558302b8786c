"""``make demo``: play the five stories on the embedded issuer, over real sockets, and show what came of each line.

The issuer reads the same realm files as a real Keycloak, and every service is a uvicorn of its own.
"""

import sys
import time

from rich.console import Console
from rich.table import Table
from rich.text import Text

from example_app.realm import REALMS, Realm, fresh_secrets
from example_app.stories import STORIES, Line
from s2s_fastapi.testing import EmbeddedIssuer

_STEPS = " Keycloak needs, of"

TITLES = {
    "corp": "1  Chat to CRM: the audience says which service a token is for",
    "techstore": "2  Shop to notifications: only this service, only as itself, from wherever it runs",
    "abc": "3  Alice, Bob and Charles do not trust each other",
    "workshop": "4  An agent, its tools and its users: each tool says who may use it, and the user comes along",
    "vault": "5  A stolen token: Bob keeps what Alice sent him, and can do nothing with it",
}


def main() -> int:
    """Play every line and return 0 if all went as told."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    began, played, deviations, explained = time.monotonic(), 0, 0, False
    issuer = EmbeddedIssuer.read(*REALMS.values(), values=fresh_secrets())
    with issuer.serving():
        for name, story in STORIES.items():
            table = _table(TITLES[name])
            realm = Realm(name, issuer.url, issuer.public_url, issuer.auth_path, issuer.values)
            with console.status("starting the services ...") as status:
                for line in story(realm):
                    status.update(line.what)
                    _add(table, line, brief=explained)
                    explained = explained or _STEPS in line.cure
                    played += 1
                    deviations += bool(line.deviations)
            console.print(table, "")
    seconds = time.monotonic() - began
    told = "all as told" if not deviations else f"{deviations} not as told"
    console.print(
        f"{played} lines, {told}, {seconds:.0f} s. The embedded issuer is for development only.\nThe same lines run on a real Keycloak in the tests. The services and realm files are in example_app/."
    )
    return 1 if deviations else 0


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", expand=True, show_lines=False, pad_edge=False)
    table.add_column("", width=1)
    table.add_column("what happens", ratio=5)
    table.add_column("with which token", ratio=5, style="dim")
    table.add_column("answer", justify="right", no_wrap=True)
    table.add_column("reason, and what the operator reads", ratio=8)
    return table


def _add(table: Table, line: Line, *, brief: bool) -> None:
    """Add a line as it was seen, and below it whatever differs from the story; the four steps are spelled out once."""
    good = not line.deviations
    refused = line.seen.status not in (200, 201, 202) or line.seen.reason not in ("", "allowed")
    reason = Text(line.seen.reason or "-", style="yellow" if refused else "green")
    if refused and line.log:
        cure = line.cure.partition(_STEPS)[0].removesuffix(":") + " ..." * (_STEPS in line.cure) if brief else line.cure
        reason.append(f"\n{cure}", style="dim")
    for deviation in line.deviations:
        reason.append(f"\n{deviation}", style="bold red")
    mark = Text("✓", style="green") if good else Text("✗", style="bold red")
    answer = Text(line.answer, style="yellow" if refused else "green")
    table.add_row(mark, Text(line.what), Text(line.token), answer, reason)


if __name__ == "__main__":
    sys.exit(main())
