"""The schemas of what commands print as JSON."""

import json
from pathlib import Path
from typing import Any

import jsonschema

DOCS = Path(__file__).resolve().parents[2] / "docs"


def valid(text: str, name: str) -> dict[str, Any]:
    """Return the JSON that a command printed, after its schema took it."""
    printed: dict[str, Any] = json.loads(text)
    schema = json.loads((DOCS / "schemas" / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(printed, schema)
    return printed
