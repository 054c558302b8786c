"""The modules that users may import: those of the table in docs/policy.md. Whatever is about public names takes them from here."""

import re
from pathlib import Path
from typing import Final

__all__ = ["PUBLIC"]

_POLICY: Final = Path(__file__).resolve().parents[2] / "docs" / "policy.md"
PUBLIC: Final = tuple(re.findall(r"^\| `(s2s_fastapi[\w.]*)` \|", _POLICY.read_text("utf-8"), re.MULTILINE))
