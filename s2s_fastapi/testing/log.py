"""The log of the embedded issuer: one line for each token that it grants or refuses, and never a token or a secret."""

import logging
from typing import Final

from s2s_fastapi.realm.model import Denied, Granted
from s2s_fastapi.text import listed, named, names_in, printable, without_tokens

__all__ = ["LOG", "granted", "refused", "refused_origin"]

LOG: Final = logging.getLogger("s2s_fastapi.testing")
# Silent unless `s2s-fastapi dev` or a test sets another level: the frames above a record hold what a client sent, secrets among them, and
# a handler in the same process may need a token before it can write the record.
LOG.setLevel(logging.WARNING)
_LONGEST: Final = 200


def granted(realm: str, client_id: str, token: Granted) -> None:
    """Log a token with what a receiver looks at first."""
    if not LOG.isEnabledFor(logging.INFO):
        return
    audiences = names_in(token.claims.get("aud"))
    user = token.account if token.session and not token.service else None
    LOG.info(
        "%s: token for %s%s%s: audience %s, scope %s, %d s",
        named(realm),
        named(client_id),
        f" and the user {named(user)}" if user else "",
        ", by exchange" if token.issued_type else "",
        listed(map(str, audiences)) or "none",
        printable(token.scope, _LONGEST) or "none",
        token.lifespan,
    )


def refused(realm: str, client_id: str, answer: Denied) -> None:
    """Log a refusal as it is answered."""
    if not LOG.isEnabledFor(logging.INFO):
        return
    LOG.info(
        "%s: no token for %s: %d %s: %s",
        named(realm),
        named(without_tokens(client_id)) if client_id else "a client without an id",
        answer.status,
        answer.error,
        printable(without_tokens(answer.description), _LONGEST),
    )


def refused_origin(realm: str, client_id: str, origin: str) -> None:
    """Log that a page in a browser may not read the token, and what to change."""
    LOG.info(
        "%s: the page %s may not read a token of %s: add this origin to the client's webOrigins if it may",
        named(realm),
        named(without_tokens(origin)),
        named(client_id),
    )
