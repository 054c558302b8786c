"""One browser for each module, and for each test a page that asks for nothing and complains about nothing."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.chromium import launched, obstacle, opened, watched

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    reason = obstacle()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; in CI these tests must run", pytrace=False)
        pytest.skip(reason)
    with launched() as running:
        yield running


@pytest.fixture
def look(browser: "Browser", tmp_path: Path) -> Iterator[Callable[..., "Page"]]:
    """Give a function that opens a page; at the end, no page may have sent a request, broken its policy or said anything."""
    with ExitStack() as stack:
        checks: list[Callable[[], None]] = []

        def look_at(html: str, *, width: int = 1280, height: int = 800, **options: Any) -> "Page":
            path = tmp_path / f"{len(checks)}.html"
            path.write_text(html, encoding="utf-8")
            context = browser.new_context(viewport={"width": width, "height": height}, **options)
            stack.callback(context.close)
            seen = watched(context)
            page = opened(context, path)

            def check() -> None:
                assert seen.requests == [path.as_uri()]
                assert (seen.console, seen.dialogs, seen.violations(page)) == ([], [], [])
                assert page.evaluate("window.pwned") is None

            checks.append(check)
            return page

        yield look_at
        for check in checks:
            check()
