"""The settings in the environment, read when they are first needed. Only then is pydantic-settings loaded, which takes 20 ms.

Public signatures name ``environment.KeycloakSettings``, so that containers that read type hints find the class, and load it then.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.process import undisturbed
from s2s_fastapi.text import listed, named

if TYPE_CHECKING:
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["KeycloakSettings", "realms_of", "settings_or_environment"]


def settings_or_environment(given: "KeycloakSettings | None") -> "KeycloakSettings":
    """Return the settings that a developer passed, or those of the environment for None.

    Raises:
        ConfigurationError: as `KeycloakSettings`.
    """
    if given is not None:
        return given
    return undisturbed(_settings_class)()  # a child that is forked in the middle of an import keeps half a module


def realms_of(given: "KeycloakSettings | Sequence[KeycloakSettings] | None") -> "tuple[KeycloakSettings, ...]":
    """Return the settings of each realm whose tokens are accepted. Requirements that name no realm speak of the first one.

    Raises:
        ConfigurationError: as `KeycloakSettings`; or the list is empty, has something else in it, or names one realm twice.
    """
    if given is None or isinstance(given, undisturbed(_settings_class)):
        return (settings_or_environment(given),)
    several: Any = given  # whatever was passed
    if isinstance(several, str) or not isinstance(several, Sequence):
        raise ConfigurationError(
            f"settings= takes KeycloakSettings, or a list of them with one for each realm, not {type(several).__name__}."
        )
    for each in several:
        if not isinstance(each, _settings_class()):
            raise ConfigurationError(f"settings=[...] takes KeycloakSettings, not {type(each).__name__}.")
    realms: tuple[KeycloakSettings, ...] = tuple(several)
    if not realms:
        raise ConfigurationError("settings=[] names no realm: leave settings= out to read it from the environment.")
    issuers = [each.issuer for each in realms]
    if twice := {issuer for issuer in issuers if issuers.count(issuer) > 1}:
        raise ConfigurationError(
            f"settings=[...] lists the realm {listed(twice)} twice, and a token of it would have two meanings: remove one of the two."
        )
    names = [each.name for each in realms]
    if twice := {name for name in names if names.count(name) > 1}:
        at = ", ".join(each.issuer for each in realms if each.name in twice)
        raise ConfigurationError(
            f"settings=[...] has two realms with the name {named(min(twice))} ({at}): give one of them another name with KeycloakSettings(name=...), "
            f"or as NAME with the prefix of its variables."
        )
    return realms


def _settings_class() -> "type[KeycloakSettings]":
    from s2s_fastapi.settings import KeycloakSettings  # noqa: PLC0415 - the point of this module

    return KeycloakSettings


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "KeycloakSettings":
            return undisturbed(_settings_class)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
