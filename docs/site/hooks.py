"""What the site needs besides its pages: titles of code blocks, and links to files outside docs/."""

# ruff: noqa: INP001 - mkdocs loads this file by its path
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


def _repository() -> str:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["urls"]["Source"])


def on_config(config: Any) -> Any:
    """Leave out the page for errors of a server, whose links only work there."""
    config.theme.static_templates.discard("404.html")
    return config


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """Return the page as Python-Markdown understands it."""
    folder = posixpath.dirname(page.file.src_uri)
    return _LINK.sub(lambda link: _outward(link, folder), _FENCE.sub(_fence, "\n".join(_listed(markdown.split("\n")))))


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
