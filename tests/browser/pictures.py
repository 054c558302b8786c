"""``make pictures``: the pictures of docs/, taken anew of what runs: the demo, a trace, Swagger UI, the graph's page."""

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

import fastapi_offline
from rich.console import Console
from rich.text import Text

from example_app.crm_gateway import app as gateway
from example_app.realm import REALMS, Realm, fresh_secrets
from example_app.stage import Stage, free_port
from s2s_fastapi.testing import EmbeddedIssuer, client_of
from tests.browser.chromium import launched, obstacle, opened
from tests.browser.landscapes import Landscape, generated, planted_example
from tests.kit.otlp import Collector, Span, kept, rendered

if TYPE_CHECKING:
    from playwright.sync_api import Route

_DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
_FIRST_STORY: Final = "from example_app.__main__ import STORIES, main; [STORIES.pop(name) for name in [*STORIES][1:]]; raise SystemExit(main())"
_WIDTH: Final = 132
# What is long and the same for every route.
_FOLDED: Final = (
    ".opblock-section, .model-example, .response-control-media-type, .headers-wrapper, .response__extension, .response-col_links, "
    ".opblock-get, .models { display: none !important }"
)
# That of rich without the web font, which a page from the file system must not load.
_SVG: Final = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px;
line-height: {line_height}px; font-variant-east-asian: full-width; white-space: pre; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main(*names: str) -> None:
    """Take the pictures of these names, or every one."""
    if reason := obstacle():
        raise SystemExit(reason)
    for name in names or _PICTURES:
        _PICTURES[name]()


def _demo() -> None:
    """The demo with its first story alone, as a terminal shows it."""
    shown = _in_a_terminal(sys.executable, "-c", _FIRST_STORY).rstrip().splitlines()
    _drawn("demo", "make demo", *map(Text.from_ansi, shown))


def _trace() -> None:
    """The first checkout of story 2 with the embedded issuer: who asked whom, and how long it took."""
    spans = _checkout()
    spans = kept(spans, lambda span: span.kind in {"SERVER", "CLIENT"} or span.library == "s2s_fastapi")
    began, ended = min(span.began for span in spans), max(span.ended for span in spans)
    by_begin = iter(_in_order(spans))
    text = []
    for line in rendered(spans, timed=False).splitlines():
        span = next(by_begin)
        start, length = ((at - began) / (ended - began) * 48 for at in (span.began, began + span.ended - span.began))
        colour = "green" if span.service == "shop-api" else "cyan"
        bar = " " * int(start) + "█" * max(1, round(length))
        text.append(Text.assemble(f"{line:<66}", f"{span.milliseconds:>8.1f} ms  ", (f"{bar:<49}", colour)))
    _drawn("trace", "POST /checkout", *text)


def _in_order(spans: tuple[Span, ...], parent: str | None = None) -> list[Span]:
    """Return the spans as `rendered` draws them: each, and then what is below it."""
    known = {span.span_id for span in spans}
    found = []
    for span in sorted(spans, key=lambda span: span.began):
        above = span.parent_id if span.parent_id in known else None
        if above == parent:
            found += [span, *_in_order(spans, span.span_id)]
    return found


def _checkout() -> tuple[Span, ...]:
    issuer, otlp = EmbeddedIssuer.read(REALMS["techstore"], values=fresh_secrets()), Collector()
    with issuer.serving(), otlp.listening(), Stage() as stage:
        realm = Realm("techstore", issuer.url, issuer.public_url, issuer.auth_path, issuer.values)
        port = free_port()
        for name, app, own in (
            ("notification-service", "traced_notifications", port),
            ("shop-api", "traced_shop", None),
        ):
            telemetry = {
                "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
                "OTEL_EXPORTER_OTLP_ENDPOINT": otlp.url,
                "OTEL_BSP_SCHEDULE_DELAY": "200",
                "OTEL_SERVICE_NAME": name,
                "NOTIFICATIONS_URL": f"http://127.0.0.1:{port}",
            }
            stage.add(name, realm.environment(name) | telemetry, app=f"tests.real.{app}:app", port=own)
        stage.wait()
        stage.ask("shop-api", "POST", "/checkout")

        def sold() -> str:
            return next(
                (span.trace_id for span in otlp.spans if span.name == "POST /checkout" and span.kind == "SERVER"), ""
            )

        otlp.wait_for(lambda: bool(sold()))
        return otlp.trace(sold())


def _docs() -> None:
    """What Swagger UI shows of a route: who may call it, and what the answer is to anybody else."""
    with client_of(gateway) as client, launched() as browser:

        def answered(route: "Route") -> None:
            url = route.request.url
            if url.startswith("http://localhost:8001/"):
                answer = client.get(url.removeprefix("http://localhost:8001"))
                route.fulfill(status=answer.status_code, headers=dict(answer.headers), body=answer.content)
            else:  # what FastAPI loads from elsewhere
                name = url.rpartition("/")[2]
                route.fulfill(path=str(files(fastapi_offline) / "static" / name))

        page = browser.new_context(viewport={"width": 1000, "height": 1200}).new_page()
        page.route("**/*", answered)
        page.goto("http://localhost:8001/docs")
        page.locator(".opblock-post .opblock-summary").click()
        page.locator(".opblock-post .responses-wrapper").wait_for()
        page.add_style_tag(content=_FOLDED)
        page.wait_for_timeout(500)  # the block opens slowly
        page.locator(".swagger-ui .wrapper:has(.opblock-post)").screenshot(path=_DOCS / "swagger-ui.png", scale="css")


def _graph(name: str, landscape: Callable[[], Landscape], height: int) -> None:
    page_file = _DOCS / f"graph-{name}.html"
    page_file.write_text(landscape().html, encoding="utf-8")
    try:
        with launched() as browser:
            page = opened(browser.new_context(viewport={"width": 1180, "height": height}), page_file)
            if name == "example":
                page.locator(".problem").first.hover()
            page.evaluate("Promise.all(document.getAnimations().map((each) => each.finished))")
            page.screenshot(path=_DOCS / f"graph-{name}.png", scale="css")
    finally:
        page_file.unlink()


_PICTURES: Final[dict[str, Callable[[], None]]] = {
    "demo": _demo,
    "trace": _trace,
    "docs": _docs,
    "graph-example": lambda: _graph("example", planted_example, 560),
    "graph-300": lambda: _graph("300", generated, 580),
}


def _in_a_terminal(*command: str) -> str:
    """Return what a command writes to a terminal of our width, with its colours."""
    ours, its = pty.openpty()
    environment = os.environ | {
        "COLUMNS": str(_WIDTH),
        "LINES": "400",
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
    }
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment) as running:
        os.close(its)
        written = bytearray()
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # how Linux says that the other side is closed
                break
            if not part:
                break
            written += part
        os.close(ours)
    if running.returncode:
        raise SystemExit(f"{command} ended with {running.returncode}:\n{written.decode()}")
    shown: list[str] = []
    for line in written.decode().split("\r\n"):
        # A status is written, and then taken back: the cursor goes up, and the line is erased.
        if ups := line.count("\x1b[1A"):
            del shown[-ups:]
        shown.append(line.rpartition("\x1b[2K")[2].rpartition("\r")[2])
    return "\n".join(shown)


def _drawn(name: str, title: str, *lines: Text) -> None:
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
    for line in lines:
        console.print(line, no_wrap=True, overflow="crop", highlight=False)
    svg = console.export_svg(title=title, code_format=_SVG, unique_id=name)
    (_DOCS / f"{name}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
