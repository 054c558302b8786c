"""What the site needs besides its pages: titles of code blocks, links to files outside docs/, tables that fit on a phone."""

# ruff: noqa: INP001 - mkdocs loads this file by its path
import html
import itertools
import posixpath
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parents[2]
_FENCE: Final = re.compile(r"^([ ]*```)(\w+) (.*)$", re.MULTILINE)
_MARKER: Final = re.compile(r"(?:[-*]|\d+\.) +")
_FIRST_MARKER: Final = re.compile(r"(?:[-*]|1\.) +")
"""What begins a list below the line of a paragraph: no other number does."""
_LINK: Final = re.compile(r"(\]\(|^\[[^\]]+\]: )((?:\.\./)+)([^)\s#]*)", re.MULTILINE)
_ROW: Final = re.compile(r"^\|.*$", re.MULTILINE)
_CODE: Final = re.compile(r"`[^`]+`")
_TABLE: Final = re.compile(r"<table>.*?</table>", re.DOTALL)
_HEADING: Final = re.compile(r"<th\b[^>]*>(.*?)</th>", re.DOTALL)
_CELL: Final = re.compile(r"<td\b([^>]*)>(.*?)</td>", re.DOTALL)
_TAG: Final = re.compile(r"<[^>]+>")
_LONG_NAME: Final = re.compile(r"(?<=::)test_\w+")
_SENTENCE: Final = 40
"""A cell with more characters than this holds a sentence."""
_WANTED_FIRST: Final = ("it-does-not-work.md", "when-keycloak-fails.md", "diagnosis.md")
"""What the search shows first: who searches for an answer or a word of the log needs these pages."""


def _repository() -> str:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["urls"]["Source"])


def on_config(config: Any) -> Any:
    """Lead to the repository. Leave out the page for errors of a server, whose links only work there."""
    config.repo_url = _repository()
    config.repo_name = "Source code"
    config.theme.static_templates.discard("404.html")
    return config


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """Return the page as Python-Markdown understands it."""
    folder = posixpath.dirname(page.file.src_uri)
    if page.file.src_uri in _WANTED_FIRST:
        page.meta["search"] = {"boost": 2}
    elif folder == "conformance":
        page.meta["search"] = {"boost": 0.5}
        if not page.file.src_uri.endswith("/README.md"):
            page.meta["hide"] = ["navigation", "toc"]  # the tables need the width
    markdown = _ROW.sub(lambda row: _CODE.sub(lambda code: code[0].replace(r"\|", "|"), row[0]), markdown)
    return _LINK.sub(lambda link: _outward(link, folder), _FENCE.sub(_fence, "\n".join(_listed(markdown.split("\n")))))


def on_page_content(content: str, **_: object) -> str:
    """Give each cell of a table with sentences the heading of its column: on a phone, a row is shown as a list."""
    return _TABLE.sub(lambda table: _labelled(table[0]), content)


def on_post_page(output: str, **_: object) -> str:
    """Take out the mark at which the theme's script would ask the code host for stars and releases."""
    return output.replace(' data-md-component="source"', "")


def _labelled(table: str) -> str:
    names = [html.escape(html.unescape(_TAG.sub("", name))) for name in _HEADING.findall(table)]
    cells = [html.unescape(_TAG.sub("", text)) for _, text in _CELL.findall(table)]
    if not any(len(text) > _SENTENCE for at, text in enumerate(cells) if at % len(names)):
        return table  # figures: they are compared column by column
    labels = itertools.cycle(names)
    return _CELL.sub(
        lambda cell: f'<td{cell[1]} data-label="{next(labels)}">{_LONG_NAME.sub(_breakable, cell[2])}</td>', table
    )


def _breakable(name: re.Match[str]) -> str:
    """Let the name of a test end its line behind an underscore, not in a word."""
    return name[0].replace("_", "_<wbr>")


def _listed(lines: list[str]) -> Iterator[str]:
    """Give what belongs to an entry of a list four spaces, and a list an empty line before it: CommonMark needs less."""
    width, apart, fenced, before = 0, False, False, ""
    for line in lines:
        inside = bool(width) and line.startswith(" " * width)
        found = None if fenced else (_MARKER if width or not before else _FIRST_MARKER).match(line)
        if found:
            if before and (apart or not width):
                yield ""
            width, apart = len(found[0]), False
        elif inside and not fenced and _MARKER.match(line.lstrip()) and not apart:
            if before:
                yield ""
            apart = True
        elif not fenced and line and not before:
            apart = inside
            width = width if inside else 0
        if line.lstrip().startswith("```"):
            fenced = not fenced
        yield " " * (4 - width) + line if inside and apart and width < 4 else line  # noqa: PLR2004 - what Python-Markdown wants
        before = line


def _fence(fence: re.Match[str]) -> str:
    start, language, words = fence.groups()
    files = [word for word in words.split() if word.endswith(".py")]
    return f'{start}{language} title="{files[0]}"' if files else f"{start}{language}"


def _outward(link: re.Match[str], folder: str) -> str:
    before, up, path = link.groups()
    target = posixpath.normpath(posixpath.join("docs", folder, up, path))
    if target.startswith("docs/"):
        return link[0]
    kind = "tree" if (_ROOT / target).is_dir() else "blob"
    return f"{before}{_repository()}/{kind}/main/{target}"
