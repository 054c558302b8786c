"""The settings in the environment, read when they are first needed. Only then is pydantic-settings loaded, which takes 20 ms.

Public signatures name ``environment.KeycloakSettings``, so that containers that read type hints find the class, and load it then.
"""

from typing import TYPE_CHECKING

from s2s_fastapi.process import undisturbed

if TYPE_CHECKING:
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["KeycloakSettings", "settings_or_environment"]


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


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "KeycloakSettings":
            return undisturbed(_settings_class)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
