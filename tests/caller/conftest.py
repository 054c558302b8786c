"""The fixtures of the calling side."""

from tests.kit.calling import bob, charles, clock, environment, keycloak, source

__all__ = ["bob", "charles", "clock", "environment", "keycloak", "source"]
