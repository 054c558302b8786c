import os
from typing import Annotated, Final, Protocol

from fastapi import Depends, HTTPException

from s2s_fastapi import Principal, TokenVerifier, require_role, require_service, require_that, require_user

USERS: Final = frozenset(os.environ.get("PLATFORM_USERS", "").lower().split())


def on_the_list(caller: Principal) -> bool:
    """An address counts only if Keycloak has verified it. Without a list, every user counts."""
    return not USERS or (caller.email or "").lower() in USERS


listed = require_user() & require_that("a user on the list", on_the_list)
agent = require_service() & require_role("service_agent")
known = listed | agent
verifier = TokenVerifier(max_lifetime=3600)


class Terms(Protocol):
    """Where the platform keeps who has accepted its terms of use."""

    async def accepted_by(self, subject: str) -> bool: ...


async def terms_of_use() -> Terms:
    raise NotImplementedError("The platform's database.")


async def admitted(
    caller: Annotated[Principal, Depends(known)], terms: Annotated[Terms, Depends(terms_of_use)]
) -> Principal:
    if caller.kind == "user" and not await terms.accepted_by(caller.subject):
        raise HTTPException(403, "user_not_accept_gcu")
    return caller


Known = Annotated[Principal, Depends(known)]
Admitted = Annotated[Principal, Depends(admitted)]
