"""``make env``: write .env with a fresh value for every secret of the realm files, unless there is one."""

import os
import secrets
import sys
from pathlib import Path

from example_app.realm import fresh_secrets


def main() -> None:
    """Write the file for this user's eyes only, and never over another."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else ".env")
    values = {"KEYCLOAK_ADMIN_PASSWORD": secrets.token_urlsafe(24), **fresh_secrets()}
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        print(f"{path} is there already; remove it for fresh secrets")
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in sorted(values.items()))
    print(f"{path} written, {len(values)} secrets")


if __name__ == "__main__":
    main()
