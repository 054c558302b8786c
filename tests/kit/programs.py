"""Runs the programs of the pages, each after those before it on its page: ``python -m tests.kit.programs FOLDER`` prints what failed.

A process of its own, because some of them set up logging and tracing.
"""

import os
import runpy
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from fastapi import FastAPI

from tests.kit.certificates import Authority
from tests.test_docs import PYTHON, ROOT, Block

__all__ = ["failures"]

CONTINUES: Final = {"moving-to-us": "tests/moving/pyjwt_dependency/during.py"}
"""Pages whose fragments go on in a file that the page names."""
ELSEWHERE: Final = frozenset({"other-clients"})
"""Pages that a test of their own runs: tests/caller/clients/test_page.py."""
OTHERS: Final = {"moving-to-us": "jwt", "story-4-an-agent-and-its-tools": "mcp", "tool-servers": "fastmcp"}
"""Pages on a package of the extra mcp-test, which is not installed everywhere."""


def failures(folder: Path) -> list[str]:
    """Return the blocks that do not run, each with why."""
    authority = Authority()
    (folder / "ca.crt").write_text(authority.own.pem, encoding="utf-8")
    certificate, key = authority.client("crm-api-gateway").files(folder, "client")
    os.environ |= {
        "KEYCLOAK_URL": "http://keycloak.test",
        "KEYCLOAK_REALM": "corp",
        "KEYCLOAK_ISSUER": "http://keycloak.test/realms/corp",
        "KEYCLOAK_CLIENT_ID": "crm-api-gateway",
        "KEYCLOAK_CLIENT_SECRET": "s",
        "KEYCLOAK_CLIENT_CERT_FILE": str(certificate),
        "KEYCLOAK_CLIENT_CERT_KEY_FILE": str(key),
        "REPLAY_STORE_URL": "redis://127.0.0.1:6379",
    }
    for name, member, value in (
        ("your_cache", "cached", lambda function: function),
        ("orders", "create_app", lambda **_: _guarded()),
    ):
        module = sys.modules[name] = ModuleType(name)
        vars(module)[member] = value
    sys.path.insert(0, str(folder))
    found: list[str] = []
    spaces: dict[Path, dict[str, Any]] = {}
    left_out = ELSEWHERE | {page for page, package in OTHERS.items() if find_spec(package) is None}
    for block in (each for each in PYTHON if each.page.stem not in left_out):
        space = spaces.setdefault(block.page, {"__name__": block.page.stem})
        try:
            _run(block, space, folder)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the reader would see
            found.append(f"{block}: {type(error).__name__}: {error}")
    return found


def _guarded() -> FastAPI:
    app = FastAPI()
    app.get("/orders")(lambda: "")
    return app


def _run(block: Block, space: dict[str, Any], folder: Path) -> None:
    name = block.text.partition("\n")[0].removeprefix("# ")
    if name.endswith(".py"):
        (folder / name).write_text(block.text, encoding="utf-8")
    for source in block.sources if "complete" in block.words else ():
        (folder / source.name).write_text(block.text, encoding="utf-8")
    if "pytest" in block.words:  # run as tests are
        return
    if block.sources and "complete" not in block.words:  # an excerpt: what its file has is there for what follows
        space.update(runpy.run_path(str(block.sources[0]), run_name="excerpt"))
        return
    if block.page.stem in CONTINUES:
        space = runpy.run_path(str(ROOT / CONTINUES[block.page.stem]), run_name="excerpt")
    text = textwrap.dedent(block.text).replace("/certs/ca.crt", str(folder / "ca.crt"))
    exec(compile(text, str(block), "exec"), space)  # noqa: S102 - our own documentation


if __name__ == "__main__":
    sys.stdout.write("\n".join(failures(Path(sys.argv[1]))))
