"""The site of docs/: it builds without a warning, each link leads somewhere, and it works from the file system, on a phone, without a network."""

import os
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

from tests.browser.chromium import opened, watched
from tests.kit.public import PUBLIC

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COUNTED = ("ol", "ul", "li", "table", "tr", "pre", "img", "h1", "h2", "h3", "strong", "em")
SOURCE = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Source"]

# Tables that cannot be read at this width: one with sentences that is wider than its place, one of figures without its headings.
UNREAD = """
[...document.querySelectorAll('.md-content table:not([class])')].filter(table =>
    [...table.querySelectorAll('td:not(:first-child)')].some(cell => cell.textContent.length > 40)
        ? table.scrollWidth > table.clientWidth
        : getComputedStyle(table.tHead).display === 'none').map(table => table.textContent)
"""


@dataclass
class Read(HTMLParser):
    """What of a page matters here."""

    text: str
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    elements: Counter[str] = field(default_factory=Counter)
    titles: list[str] = field(default_factory=list)
    """Those of code blocks."""
    words: str = ""
    """All that is read on the page, without blanks."""
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = {name: value or "" for name, value in attrs}
        self.elements[tag] += 1
        if tag in ("a", "span"):
            self.open.append(has.get("class", ""))
        self.ids |= {has[name] for name in ("id", "name") if name in has}
        if tag == "a" and "href" in has:
            self.links.append(has["href"])
        elif tag in ("script", "link", "img", "iframe", "source"):
            self.loaded += [has[name] for name in ("src", "href") if name in has and has.get("rel") != "canonical"]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("a", "span"):
            self.open.pop()

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside == "filename":
            self.titles.append(data)
        elif inside != "headerlink":
            self.words += "".join(data.split())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("site")
    assert run("mkdocs", "build", "--quiet", "--strict", "-f", "docs/mkdocs.yml", "-d", str(built)) == (0, "")
    return built


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Read]:
    return {path: Read(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def run(*command: str) -> tuple[int, str]:
    """Run a module in the root of the repository; return its exit code, and all that it wrote but for the log."""
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout or (done.stderr if done.returncode else "")


def dangling(pages: dict[Path, Read]) -> Iterator[str]:
    for page, read in pages.items():
        for link in read.links:
            if link.startswith(("https://", "http://", "mailto:", "javascript:")):
                continue
            path, _, anchor = unquote(link).partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].ids):
                yield f"{page.name}: {link}"


def test_every_link_and_anchor_of_the_site_leads_to_a_file_or_a_place_in_it(pages: dict[Path, Read]) -> None:
    assert list(dangling(pages)) == []


def test_every_page_leads_to_the_repository_and_the_first_one_to_its_issues(
    site: Path, pages: dict[Path, Read]
) -> None:
    assert [page.name for page, read in pages.items() if SOURCE not in read.links] == []
    assert f"{SOURCE}/issues" in pages[site / "index.html"].links


def test_no_page_loads_anything_from_elsewhere(pages: dict[Path, Read]) -> None:
    loaded = {(page.parent / part).resolve() for page, read in pages.items() for part in read.loaded}

    assert {part for read in pages.values() for part in read.loaded if "//" in part} == set()
    assert [part for part in loaded if not part.exists()] == []


@pytest.mark.parametrize("module", PUBLIC)
def test_the_api_page_has_each_public_name(module: str, pages: dict[Path, Read]) -> None:
    api = next(read for page, read in pages.items() if page.name == "api.html")
    names = import_module(module).__all__

    assert [name for name in names if not {f"{module}.{name}", f"s2s_fastapi.{name}"} & api.ids] == []


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.relative_to(DOCS).as_posix())
def test_a_page_has_the_same_parts_on_the_site_as_on_a_code_host(page: Path, site: Path) -> None:
    if page.name == "api.md":  # a code host shows only its list
        return
    built = page.with_stem("index") if page.stem == "README" else page
    text = (site / built.relative_to(DOCS)).with_suffix(".html").read_text(encoding="utf-8")
    article = text.partition("<article")[2].partition("</article>")[0].partition('<aside class="md-source')[0]
    markdown = MarkdownIt("commonmark").enable("table")
    written = page.read_text(encoding="utf-8")
    files = [[word for word in token.info.split() if word.endswith(".py")] for token in markdown.parse(written)]
    here, there = Read(article.partition(">")[2]), Read(markdown.render(written).replace("[ ] <", "<"))  # boxes to tick

    # Python-Markdown needs four spaces before what belongs to an entry of a list, and an empty line before a list.
    assert {name: here.elements[name] for name in COUNTED} == {name: there.elements[name] for name in COUNTED}
    assert here.words == there.words
    assert here.titles == [words[0] for words in files if words]
    assert {link for link in here.links if link.startswith(SOURCE)} == {*outward(page, there.links)}


def outward(page: Path, links: list[str]) -> Iterator[str]:
    """Give where the links of a page lead that leave docs/."""
    for link in links:
        target = (page.parent / link).resolve()
        if link.startswith(SOURCE):
            yield link
        elif "://" not in link and not link.startswith("#") and not target.is_relative_to(DOCS):
            yield f"{SOURCE}/{'tree' if target.is_dir() else 'blob'}/main/{target.relative_to(ROOT).as_posix()}"


def test_the_search_works_from_the_file_system_and_leads_to_the_page_for_operators(
    browser: "Browser", site: Path
) -> None:
    context = browser.new_context()
    seen = watched(context)
    page = opened(context, site / "index.html")
    page.get_by_placeholder("Search").fill("503")
    found = page.locator(".md-search-result__item a").first
    found.wait_for()

    assert "when-keycloak-fails.html" in str(found.get_attribute("href"))
    assert [url for url in seen.requests if not url.startswith(("file:", "data:"))] == []
    assert seen.console == []
    context.close()


def test_no_page_is_wider_than_a_phone_and_its_tables_can_be_read(browser: "Browser", pages: dict[Path, Read]) -> None:
    page = browser.new_context(
        viewport={"width": 390, "height": 844}, java_script_enabled=False
    ).new_page()  # scripts take ten times as long
    wide = []
    for path in pages:
        page.goto(path.as_uri(), wait_until="load")
        if page.evaluate("document.querySelector('.md-content').scrollWidth > innerWidth"):
            wide.append(path.name)
        wide += page.evaluate(UNREAD)
    page.context.close()

    assert wide == []


def test_all_guards_of_the_conformance_tables_are_seen_at_once(browser: "Browser", site: Path) -> None:
    page = browser.new_context(viewport={"width": 1280, "height": 800}, java_script_enabled=False).new_page()
    wide = []
    for path in sorted((site / "conformance").glob("*.html")):
        page.goto(path.as_uri(), wait_until="load")
        if page.evaluate(UNREAD):
            wide.append(path.name)
    page.context.close()

    assert wide == []
