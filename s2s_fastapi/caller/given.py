"""What a developer gives as an argument, and nobody else may."""

from collections.abc import Callable, Collection
from typing import Annotated, Any, NoReturn, TypeAlias

from s2s_fastapi.settings import KeycloakSettings

__all__ = ["BaseUrl", "GivenSettings", "Names"]


class _WrittenInCode:
    """Makes FastAPI refuse to fill a parameter from the request."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> NoReturn:
        # Depends(service_auth) without a call would let the sender of a request choose origins and audience.
        raise TypeError(
            "audience, scope and settings are written in code, not taken from requests:"
            " call it, Depends(service_auth(...)) or Depends(service_client(...))"
        )


Names: TypeAlias = Annotated[str | Collection[str] | None, _WrittenInCode]
"""A name or several; None for nothing."""

BaseUrl: TypeAlias = Annotated[str | Callable[[], str], _WrittenInCode]
"""A URL, or a function that returns it."""

GivenSettings: TypeAlias = Annotated[KeycloakSettings | None, _WrittenInCode]
"""Settings as an argument; None for the environment, read at the first use."""
