"""The settings in the environment, read when they are first needed. Only then is pydantic-settings loaded, which takes 20 ms."""

from typing import TYPE_CHECKING

from s2s_fastapi.process import undisturbed

if TYPE_CHECKING:
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["settings_or_environment"]


def settings_or_environment(given: "KeycloakSettings | None") -> "KeycloakSettings":
    """Return the settings that a developer passed, or those of the environment for None.

    Raises:
        ConfigurationError: as `KeycloakSettings`.
    """
    if given is not None:
        return given
    return undisturbed(_settings_class)()  # a child that is forked in the middle of an import keeps half a module


def _settings_class() -> "type[KeycloakSettings]":
    from s2s_fastapi.settings import KeycloakSettings  # noqa: PLC0415 - the point of this module

    return KeycloakSettings
