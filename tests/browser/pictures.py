"""``make pictures``: the pictures of the graph's page in docs/, taken anew."""

from pathlib import Path
from typing import Final

from tests.browser.chromium import launched, obstacle, opened
from tests.browser.landscapes import Landscape, generated, planted_example

_DOCS: Final = Path(__file__).resolve().parents[2] / "docs"


def main() -> None:
    """Take every picture."""
    if reason := obstacle():
        raise SystemExit(reason)
    for name, landscape, height in (("example", planted_example(), 560), ("300", generated(), 580)):
        _take(name, landscape, height)


def _take(name: str, landscape: Landscape, height: int) -> None:
    page_file = _DOCS / f"graph-{name}.html"
    page_file.write_text(landscape.html, encoding="utf-8")
    try:
        with launched() as browser:
            page = opened(browser.new_context(viewport={"width": 1180, "height": height}), page_file)
            if name == "example":
                page.locator(".problem").first.hover()
            page.evaluate("Promise.all(document.getAnimations().map((each) => each.finished))")
            page.screenshot(path=_DOCS / f"graph-{name}.png", scale="css")
    finally:
        page_file.unlink()


if __name__ == "__main__":
    main()
