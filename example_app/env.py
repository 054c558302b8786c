"""``make env``: write .env and .env.d with a fresh value for every secret of the realm files, unless they are there.

It needs Python alone, so that docker compose can be used where nothing is installed.
"""

import os
import re
import secrets
import sys
from pathlib import Path

__all__ = ["FOR_SERVICES", "PLACEHOLDER", "REALMS", "placeholders", "secret_files"]

_FILES = Path(__file__).resolve().parent / "realms"
REALMS = {path.stem: path for path in sorted(_FILES.glob("*.json"))}
FOR_SERVICES = ("CHAT_APP_SERVICE_SECRET", "SHOP_API_SECRET")
"""The secrets that docker-compose.yml mounts as files."""

# Upper case only: "${client_id}" in a role mapper is Keycloak's own.
PLACEHOLDER = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")

# Everything else docker compose reads in its own way: it takes away quotes and blanks, replaces "$", and begins a comment at "#".
_PLAIN = re.compile(r"[A-Za-z0-9_.~+/=:@%,-]+")


def placeholders() -> list[str]:
    """Return the names that Keycloak replaces in the realm files, each once."""
    return sorted({name for path in REALMS.values() for name in PLACEHOLDER.findall(path.read_text(encoding="utf-8"))})


def secret_files(folder: Path, values: dict[str, str]) -> None:
    """Write each service's secret into a file of its own.

    - The folder is for this user only.
    - A file in it is for everybody: compose mounts it alone, with its owner and mode, and the user in the container is another one.
    """
    missing = [name for name in FOR_SERVICES if not values.get(name)]
    if missing:
        sys.exit(f"{' and '.join(missing)} missing: remove the file for fresh secrets")
    for name in FOR_SERVICES:
        if not _PLAIN.fullmatch(values[name]):
            sys.exit(
                f"{name} may have only letters, digits and _.~+/=:@%,- because docker compose changes other characters"
            )
    files = {folder / name: values[name] for name in FOR_SERVICES}
    for path in (folder, *files):
        if path.is_symlink():  # whoever made it would get the secrets
            sys.exit(f"{path} is a link: remove it")
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    for file, value in files.items():
        file.write_text(value, encoding="utf-8")
        file.chmod(0o644)


def main() -> None:
    """Write the files for this user's eyes only, and never over another .env."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else ".env")
    # CLUSTER_KEY too, so it is no key: no container plays the cluster, and nobody may sign for it.
    values = {name: secrets.token_urlsafe(24) for name in ("KEYCLOAK_ADMIN_PASSWORD", *placeholders())}
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        print(f"{path} is there already; remove it for fresh secrets")
        lines = path.read_text(encoding="utf-8").splitlines()
        values = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    else:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{name}={value}\n" for name, value in values.items())
        print(f"{path} written, {len(values)} secrets")
    secret_files(path.with_name(f"{path.name}.d"), values)


if __name__ == "__main__":
    main()
