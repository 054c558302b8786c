"""Debian's Chromium, driven by Playwright, and what a page does in it that no page of ours may do."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

__all__ = ["Seen", "launched", "obstacle", "opened", "watched"]

_PROGRAM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_OPTIONS: Final = (
    "--no-sandbox",  # CI runs as root
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no name leads anywhere
    "--disable-background-networking",
    "--disable-component-update",
)
_WATCH_POLICY: Final = (
    "window.violations = []; document.addEventListener('securitypolicyviolation', (event) => "
    "window.violations.push(`${event.violatedDirective}: ${event.blockedURI}`));"
)


def obstacle() -> str | None:
    """Say in one sentence why no browser can run here, or return None."""
    if _PROGRAM is None:
        return "the tests of pages need Chromium, and there is no chromium here (Debian: apt-get install chromium)"
    if find_spec("playwright") is None:
        return "the tests of pages need Playwright: pip install -c constraints.txt -e '.[browser-test]'"
    return None


@contextmanager
def launched() -> Iterator["Browser"]:
    """Give a browser that is closed at the end. Nothing is downloaded."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_PROGRAM, args=list(_OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Seen:
    """What a page asked for and complained about."""

    requests: list[str] = field(default_factory=list)
    failed: dict[str, str | None] = field(default_factory=dict)
    """Why nothing came of a request."""
    console: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def violations(self, page: "Page") -> list[str]:
        """Return what the page's policy has stopped."""
        found: list[str] = page.evaluate("window.violations")
        return found


def watched(context: "BrowserContext") -> Seen:
    """Return what all pages of this context will do."""
    seen = Seen()
    context.add_init_script(_WATCH_POLICY)
    context.on("request", lambda request: seen.requests.append(request.url))
    context.on("requestfailed", lambda request: seen.failed.update({request.url: request.failure}))
    context.on("console", lambda message: seen.console.append(message.text))
    context.on("weberror", lambda error: seen.console.append(str(error.error)))

    def dismissed(dialog: Any) -> None:
        seen.dialogs.append(dialog.message)
        dialog.dismiss()

    context.on("dialog", dismissed)
    return seen


def opened(context: "BrowserContext", path: Path) -> "Page":
    """Open a file as a person does who was sent it."""
    page = context.new_page()
    page.goto(path.as_uri())
    return page
