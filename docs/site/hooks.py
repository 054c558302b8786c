"""What the site needs besides its pages: titles of code blocks, and links to files outside docs/."""

# ruff: noqa: INP001 - mkdocs loads this file by its path
import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parents[2]
_UNTOLD: Final = "https://github.com/s2s-fastapi/s2s-fastapi"
_FENCE: Final = re.compile(r"^([ ]*```)(\w+) (.*)$", re.MULTILINE)
_LINK: Final = re.compile(r"(\]\(|^\[[^\]]+\]: )((?:\.\./)+)([^)\s#]*)", re.MULTILINE)


def _repository() -> str:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    urls = {name.lower(): url for name, url in project.get("urls", {}).items()}
    return str(next((urls[name] for name in ("repository", "source") if name in urls), _UNTOLD)).rstrip("/")


def on_config(config: Any) -> Any:
    """Leave out the page for errors of a server, whose links only work there."""
    config.theme.static_templates.discard("404.html")
    return config


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """Return the page as Python-Markdown understands it."""
    return _LINK.sub(lambda link: _outward(link, posixpath.dirname(page.file.src_uri)), _FENCE.sub(_fence, markdown))


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
