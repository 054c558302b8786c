"""What Keycloak's own classes accept in a realm file. ``python -m tests.real.representations`` writes the package's table anew."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from s2s_fastapi.realm import representations
from tests.real.distribution import libraries
from tests.real.server import NEWEST, VERSIONS

__all__ = ["TABLE", "measured"]

TABLE = Path(representations.__file__).with_suffix(".json")
_PROGRAM = Path(__file__).with_name("Representations.java")
_JARS = ("*jackson*.jar", "org.keycloak.keycloak-c*.jar", "*jboss-logging*.jar")


def _fields(version: str) -> dict[str, dict[str, str]]:
    jars = [str(jar) for pattern in _JARS for jar in libraries(version).rglob(pattern)]
    command = ["java", "-cp", os.pathsep.join(jars), str(_PROGRAM)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    return found


def measured() -> dict[str, Any]:
    """Return the table: all fields of the newest version, and which of them the oldest does not have."""
    new, old = _fields(NEWEST), _fields(min(VERSIONS))
    absent = {name: sorted(fields.keys() - old.get(name, fields).keys()) for name, fields in new.items()}
    return {"fields": new, "not in 26.0": {name: fields for name, fields in absent.items() if fields}}


if __name__ == "__main__":
    TABLE.write_text(f"{json.dumps(measured(), indent=1)}\n", encoding="utf-8")
