"""What is here: the versions, the settings, the app, the files and the secret."""

import base64
import difflib
import os
import platform
import re
import shlex
import ssl
import stat
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from s2s_fastapi.caller.client_key import ClientKey
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.declared.start_check import bounded
from s2s_fastapi.keycloak.cures import shown
from s2s_fastapi.operations.admin import VARIABLES
from s2s_fastapi.operations.applications import without_middleware
from s2s_fastapi.operations.checks.authentication import check_assertion, check_certificate
from s2s_fastapi.operations.declarations import audiences_of
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.findings import Finding, Result, Seen, Skipped
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.text import listed, named

__all__ = ["check_app", "check_files", "check_secret", "check_settings", "check_versions"]

_USUAL_SECRETS: Final = frozenset({"secret", "changeme", "change-me", "password", "keycloak", "admin", "test", "xxx"})
_LINE: Final = re.compile(r"(?:export )?[A-Z][A-Z0-9_]{3,}=")
_PLACEHOLDER: Final = re.compile(r"<.*>|\[.*\]|x{4,}|\*{3,}", re.IGNORECASE)
_LEAST: Final = 16
"""Bytes of a text below which it is no secret: so short a text may be base64 by chance."""
_PACKAGES: Final = ("s2s-fastapi", "fastapi", "starlette", "httpx", "joserfc", "authlib", "pydantic")

_CANNOT_CALL: Final = "This service cannot call any other: it has no token."
_NO_TOKENS: Final = "This service can neither check tokens nor get one."


def check_versions(_: Facts) -> Iterator[Result]:
    """Name the versions in use."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    yield Seen(f"{', '.join(found)}, Python {platform.python_version()}, {ssl.OPENSSL_VERSION}")


def check_app(facts: Facts) -> Iterator[Result]:
    """Read what the app declares."""
    if not facts.app_name:
        yield from _as_written(facts)
        return
    if facts.start_problem:
        yield Finding(
            seen=f"The app {named(facts.app_name)} would not start.",
            why="A server with this app ends, and what the app declares is not known.",
            cure=f"{_right_client(facts)}{facts.start_problem}",
        )
        return
    documentation = facts.documentation
    if documentation is None:
        routes = () if facts.access is None else facts.access.routes
        yield _unprotected([route.name for route in routes if route.requirement is not None])
    else:
        check = documentation.check
        names = check.audiences or check.declared
        yield Seen(f"The app accepts tokens for {listed(names, ' or ') if names else 'any service'}.")
        if optional := list(check.optional_routes()):
            yield Seen(f"Requests without credentials are accepted on {bounded(optional)}.")
        for sentence in check.warnings():
            yield Finding(
                level="warning",
                seen=sentence,
                why="The app logs this at each start.",
                cure="Change the code as the sentence says.",
            )
    yield _calls(facts)
    if others := {name for each in facts.calls_of_others for name in each.audiences}:
        yield Seen(f"With settings of another realm or client, it calls {listed(others)}: see others.")


def _right_client(facts: Facts) -> str:
    """Ask for the client id if it is the one audience of an app that requires another one: the variable is easier to mistake than the code."""
    settings, client_id = facts.settings, facts.settings.client_id
    if not client_id or f"this app accepts only {named(client_id)}." not in facts.start_problem:
        return ""
    return f"Is {settings.worded('KEYCLOAK_CLIENT_ID')}={named(client_id)} right for this app? If it is: "


def _calls(facts: Facts) -> Seen:
    targets = [each.target for each in facts.downstreams]
    return Seen(f"The app calls {', '.join(dict.fromkeys(targets)) or 'no service that it declares'}.")


def _as_written(facts: Facts) -> Iterator[Result]:
    """Look at what the access file says of the app."""
    if not facts.files:
        yield Skipped("No app was named: --app module:app reads what it declares and would say at its start.")
        return
    for app in facts.own_apps:
        if app.requires is None and not app.routes:
            yield Seen("The app has no route that anybody could call.")
        elif app.requires is None:
            yield _unprotected([route.name for route in app.routes if route.requires is not None])
        else:
            names = audiences_of(app)
            yield Seen(f"The app accepts tokens for {listed(names, ' or ') if names else 'any service'}.")
    if facts.own_apps:
        yield _calls(facts)
    else:
        yield Skipped("No access file has an app of this service: see downstreams.")


def _unprotected(requiring: Sequence[str]) -> Finding:
    return Finding(
        level="problem" if requiring else "warning",
        seen=without_middleware(requiring),
        why="No request to these routes succeeds, whoever calls." if requiring else "Everybody may call it.",
        cure=f"Add it: app.add_middleware(ServiceAuthMiddleware){'' if requiring else ', unless everybody may call this app'}.",
    )


def check_settings(facts: Facts) -> Iterator[Result]:
    """Look at the variables."""
    settings = facts.settings
    yield Seen(
        f"Realm {named(settings.realm)} at {settings.server}, expected issuer {settings.issuer}, client {named(settings.client_id) if settings.client_id else 'none'}."
    )
    prefix = settings.worded("KEYCLOAK_")
    known = {f"{prefix}{name.upper()}" for name in KeycloakSettings.model_fields}
    for variable in sorted(facts.environment):
        if (
            variable.startswith(prefix)
            and variable not in (*known, *VARIABLES)
            and (near := difflib.get_close_matches(variable, known, 1, 0.85))
        ):
            yield Finding(
                level="warning",
                seen=f"{named(variable)} is set, and no setting has this name.",
                why="Its value has no effect.",
                cure=f"If {near[0]} is meant, rename it.",
            )


def check_files(facts: Facts) -> Iterator[Result]:
    """Look whether the files of the settings can be read, and by whom."""
    settings = facts.settings
    files = {
        "CLIENT_SECRET_FILE": settings.client_secret_file,
        "CLIENT_KEY_FILE": settings.client_key_file,
        "CLIENT_ASSERTION_FILE": settings.client_assertion_file,
        "CLIENT_CERT_FILE": settings.client_cert_file,
        "CLIENT_CERT_KEY_FILE": settings.client_cert_key_file,
        "CA_FILE": settings.ca_file,
    }
    named_files = {settings.worded(f"KEYCLOAK_{name}"): file for name, file in files.items() if file is not None}
    if not named_files:
        yield Skipped("No setting names a file.")
        return
    for variable, file in named_files.items():
        # A certificate is public, unless its key is in the same file.
        alone = variable.endswith("CLIENT_CERT_FILE") and settings.client_cert_key_file is not None
        yield from _permissions(variable, file, secret=not (alone or variable.endswith("CA_FILE")))


def _permissions(variable: str, file: Path, *, secret: bool) -> Iterator[Result]:
    shown_file = shown(str(file))
    try:
        mode = file.stat().st_mode  # of what the link leads to, as Kubernetes mounts it
    except OSError as error:
        yield Finding(
            seen=f"{variable}: {shown_file} cannot be read ({error.strerror}).",
            why=_CANNOT_CALL if secret else _NO_TOKENS,
            cure=f"Correct {variable}, or let this process read the file.",
        )
        return
    if os.name == "nt":
        yield Skipped("Windows has no permissions of this kind.")
        return
    if stat.S_ISDIR(mode):
        yield Finding(
            seen=f"{variable}: {shown_file} is a directory.",
            why=_CANNOT_CALL if secret else _NO_TOKENS,
            cure="Name the file in it. If Docker or Kubernetes made the directory, the file that shall be mounted there does not exist.",
        )
        return
    if not stat.S_ISREG(mode):
        yield Seen(f"{variable}: {shown_file} is no regular file, so its mode says nothing.")
        return
    others = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP if secret else stat.S_IWOTH | stat.S_IWGRP
    if not mode & others:
        yield Seen(f"{variable}: {shown_file} has the mode {stat.S_IMODE(mode):04o}.")
        return
    yield Finding(
        level="warning",
        seen=f"{variable}: {shown_file} has the mode {stat.S_IMODE(mode):04o}.",
        why="Every user of this machine can read it, or somebody else can replace it."
        if secret
        else "Somebody else can add a certificate that this service then trusts.",
        cure=f"chmod {'600' if secret else '644'} {shlex.quote(str(file)) if str(file).isprintable() else shown_file} (in Kubernetes: defaultMode of the volume).",
    )


def check_secret(facts: Facts) -> Iterator[Result]:
    """Look at what proves this service: a secret, a private key, the token of another issuer, or a certificate."""
    settings = facts.settings
    if settings.client_cert_file is not None:
        yield from check_certificate(facts)
    if not facts.proves_itself:
        if facts.downstreams:
            calls = f"The app calls {listed(name for each in facts.downstreams for name in each.audiences) or 'others'}, and has nothing that proves who it is."
            error = facts.token(Wanted())
            yield Finding(seen=calls, why=_CANNOT_CALL, cure=str(error))
            return
        yield Skipped(
            "This client has nothing that proves who it is, and no call needs it: see others."
            if facts.calls_of_others
            else "This service has nothing that proves who it is, so it calls no other service."
        )
        return
    if settings.client_assertion_file is not None:
        yield from check_assertion(facts, settings.client_assertion_file)
        return
    if settings.client_auth == "tls_client_auth":
        return  # the certificate is all
    if settings.client_key_file is not None:
        key = ClientKey.read(settings.client_key_file, said=settings.worded("KEYCLOAK_CLIENT_KEY_FILE"))
        yield Seen(f"A private key for {key.algorithm}, kid {named(key.kid)}.")
        return
    yield from _quality(settings, _place_of_secret(facts))


def _place_of_secret(facts: Facts) -> str:
    """Return the variable with the secret, or say that code gives it."""
    settings = facts.settings
    given = settings.client_secret_file or (settings.client_secret and settings.client_secret.get_secret_value())
    name = "client_secret_file" if settings.client_secret_file else "client_secret"
    variable = settings.worded(f"KEYCLOAK_{name.upper()}")
    said = (value for key, value in facts.environment.items() if key.upper() == variable)
    return variable if any(value.strip() == str(given).strip() for value in said) else f"the code ({name})"


def _quality(settings: KeycloakSettings, where: str) -> Iterator[Result]:
    secret = settings.secret()
    blank, guessed = secret != secret.strip(), secret.strip().lower() in _USUAL_SECRETS | {settings.client_id.lower()}
    odd = not secret.isascii() or not secret.isprintable()
    line, encoded = _LINE.match(secret) is not None, _is_encoded(secret)
    placeholder = _PLACEHOLDER.fullmatch(secret.strip()) is not None
    del secret  # error trackers record the locals
    if blank:
        yield Finding(
            level="warning",
            seen=f"The secret in {where} begins or ends with a blank.",
            why="Keycloak makes no such secrets: the blank was probably copied along, and then each token request is refused.",
            cure=f"Remove the blank in {where}.",
        )
    if odd:
        yield Finding(
            level="warning",
            seen=f"The secret in {where} has a character that is not printable ASCII.",
            why="Keycloak makes no such secrets: the text was probably damaged on its way.",
            cure=f"Copy the secret again into {where}. It is on the Credentials page of the client {named(settings.client_id)} in Keycloak.",
        )
    if line or placeholder or encoded:
        what, cure = (
            ("a whole line VARIABLE=value", "Write only what stands after the equals sign")
            if line
            else ("a placeholder", "Write the secret itself")
            if placeholder
            else ("base64 of another text", "Decode it once, if that text is the secret")
        )
        yield Finding(
            level="warning",
            seen=f"The secret in {where} looks like {what}.",
            why="If Keycloak has another secret, each token request is refused.",
            cure=f"{cure} (in {where}).",
        )
    if guessed:
        yield Finding(
            level="warning",
            seen=f"The secret in {where} is a common word or the name of the client.",
            why="Whoever guesses it gets tokens of this service.",
            cure=f"Make a new secret in Keycloak: Clients, {named(settings.client_id)}, Credentials, Regenerate.",
        )
    if not (blank or guessed or odd or line or placeholder or encoded):
        yield Seen(f"A secret in {where}, without blanks, quotes or placeholders.")


def _is_encoded(secret: str) -> bool:
    """Return whether this is base64 of a text, as after encoding a secret twice. Of a secret of Keycloak's own the bytes are no text."""
    try:
        text = base64.b64decode(secret, validate=True)
    except ValueError:
        return False
    return len(text) >= _LEAST and text.isascii() and text.decode().strip().isprintable()
