import re
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, HTTPException, Request

from s2s_fastapi import Principal, Requirement, TokenVerifier, require_scope, require_service, require_user

# What the proxy and the catalogue may read differently: encoded slashes, dots, backslashes and percent signs, empty and dot segments.
UNSAFE: Final = re.compile(rb"//|/\.{1,2}(/|$)|[\\;]|[^!-~]|%(2f|2e|5c|3b|25|0.|1.|7f)|%(?![0-9a-f]{2})", re.IGNORECASE)

anybody = require_user() | require_service()
read = anybody.optional()
write = anybody & require_scope("stac:write")


@dataclass(frozen=True)
class Rule:
    """Who may send requests with these methods to paths of this form."""

    methods: str
    path: bytes
    who: Requirement

    def fits(self, method: str, path: bytes) -> bool:
        return method in self.methods.split() and re.fullmatch(self.path, path) is not None


RULES: Final = (
    Rule("GET HEAD", rb"/.*", read),
    Rule("POST", rb"/search", read),
    Rule("POST", rb"/collections(/[^/]+/(items|bulk_items))?", write),
    Rule("PUT PATCH DELETE", rb"/collections/[^/]+(/items/[^/]+)?", write),
)
verifier = TokenVerifier()


async def allowed(request: Request) -> Principal | None:
    """Return who is calling, or None for a reader without a token; what no rule allows is not there."""
    path: bytes = request.scope["raw_path"]
    rule = next((rule for rule in RULES if rule.fits(request.method, path)), None)
    if rule is None or UNSAFE.search(path):
        raise HTTPException(404)
    if rule.who.needs_credentials:
        return await verifier.authenticate(request, rule.who)
    return await verifier.authenticate_optional(request, rule.who)


Allowed = Annotated[Principal | None, Depends(allowed)]
