"""What a developer gives as an argument, and nobody else may."""

from typing import Annotated, Any, NoReturn

from s2s_fastapi.settings import KeycloakSettings

__all__ = ["GivenSettings"]


class _WrittenInCode:
    """Makes FastAPI refuse to fill a parameter from the request."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> NoReturn:
        # Depends(service_auth) without a call would let the sender of a request choose origins and audience.
        raise TypeError(
            "audience, scope and settings are written in code, not taken from requests:"
            " call it, Depends(service_auth(...)) or Depends(service_client(...))"
        )


GivenSettings = Annotated[KeycloakSettings | None, _WrittenInCode]
"""Settings as an argument; None for the environment, read at the first use."""
