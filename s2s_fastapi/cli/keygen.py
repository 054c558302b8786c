"""``s2s-fastapi keygen``: a new private key, and the client that Keycloak imports for it."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from s2s_fastapi.caller.client_key import ClientKey, KeyType, new_private_key, registration
from s2s_fastapi.cli.mistake import problem_of
from s2s_fastapi.errors import ConfigurationError

__all__ = ["keygen"]


def keygen(
    client_id: Annotated[str, typer.Option(metavar="ID", help="The client in Keycloak that will sign with the key.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File for a new private key. An existing file is never overwritten."),
    ] = None,
    kty: Annotated[
        KeyType, typer.Option(help="The kind of the new key: EC is P-256, RSA has 3072 bits, OKP is Ed25519.")
    ] = KeyType.EC,
    key: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="An existing private key (PEM or JWK) that Keycloak shall accept as well."),
    ] = None,
) -> None:
    """Make a key for private_key_jwt, and print the client for Keycloak to import, as JSON with public keys only.

    With --key instead of --out no key is made, and the client is printed for the existing keys.
    """
    existing = key or []
    if not client_id.strip():
        raise ConfigurationError("--client-id is empty: write the client's id in Keycloak.")
    if out is None and not existing:
        raise ConfigurationError("Write --out FILE for a new key, or --key FILE for an existing key.")
    keys = [ClientKey.read(file) for file in existing]  # first: after a mistyped name no new key is made
    if out is not None:
        _write_new(out, new_private_key(kty))
        keys.insert(0, ClientKey.read(out))
    sys.stdout.write(f"{json.dumps(registration(client_id, keys), indent=2)}\n")
    sys.stdout.flush()
    file = shlex.quote(str((out or existing[0]).absolute()))
    sys.stderr.write(
        "Import this as a client of the realm, or replace the existing client with it. It holds public keys only."
        " Start the service with\n"
        f"export KEYCLOAK_CLIENT_ID={shlex.quote(client_id)}\n"
        "export KEYCLOAK_CLIENT_AUTH=private_key_jwt\n"
        f"export KEYCLOAK_CLIENT_KEY_FILE={file}\n"
    )


def _write_new(file: Path, content: bytes) -> None:
    """Write a new file that only its owner can read, from the first byte on."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(content)
        except OSError:  # a full disk: without this, the next try would find a key here
            file.unlink()
            raise
    except FileExistsError:
        problem = "exists, and a key is never overwritten: write another name, or print the client for the existing key with --key"
    except OSError as error:
        problem = f"cannot be written: {problem_of(error)}"
    else:
        return
    raise ConfigurationError(f"{file} {problem}.")
