"""What must be nowhere: everything that looks like a token, and every secret that a test run came to know."""

import json
import re
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import Any, Final
from urllib.parse import quote, quote_plus

__all__ = ["Search", "texts"]

_SHORTEST: Final = 8  # a shorter one is found in innocent words
_JWT: Final = "a part of a JWT"
_LOOKS: Final = {
    # Header and payload are JSON objects, so they begin with '{"', which is eyJ in base64url. 20: {"alg":"RS256"} alone.
    _JWT: re.compile(r"eyJ[A-Za-z0-9_-]{17,}(?:\.[A-Za-z0-9_-]*)*"),
    # A digit, or a prose word would do ("Basic authentication-something").
    "credentials": re.compile(r"(?i)\b(?:bearer|basic)(?:\s|%20|\+)+(?=[^\s\"',;]*\d)[A-Za-z0-9._~+/-]{16,}=*"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a private JWK": re.compile(r"""["']d["']: ?b?["'][A-Za-z0-9_-]{32,}["']"""),
}
_LIKELY: Final = re.compile(r"eyJ|(?i:bearer|basic)|PRIVATE|[\"']d[\"']")


class Search:
    """Knows secrets and finds them in text, at a cost that does not grow with how many it knows. Takes no lock: logs come from anywhere."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._starts: dict[str, tuple[str, ...]] = {}

    def learn(self, secret: str, what: str) -> None:
        """Look for a secret from now on, also as URLs, JSON and ``repr`` write it and in base64; too short a one is left out."""
        raw = secret.encode("utf-8", "surrogateescape")
        forms = {
            what: secret,
            f"{what}, percent-encoded": quote(raw, safe=""),
            f"{what}, as in a form": quote_plus(raw),
            f"{what}, in JSON": json.dumps(secret)[1:-1],
            f"{what}, escaped": repr(secret)[1:-1],
            f"{what}, as bytes": repr(raw)[2:-1],
            f"{what}, in base64": b64encode(raw).decode().rstrip("="),
            f"{what}, in base64url": urlsafe_b64encode(raw).decode().rstrip("="),
        }
        if len(secret) >= _SHORTEST:
            for name, form in forms.items():
                self._add(form, name)

    def learn_exactly(self, text: str, what: str) -> None:
        """Look for a text from now on as it was sent, which nobody writes in another way; padding counts for nothing."""
        text = text.rstrip("=")
        if len(text) >= _SHORTEST:
            self._add(text, what)

    def _add(self, form: str, what: str) -> None:
        if form not in self._known:
            self._known[form] = what
            start = form[:_SHORTEST]
            self._starts[start] = (*self._starts.get(start, ()), form)

    def find(self, text: str) -> Iterator[tuple[str, int, int]]:
        """Yield what is in a text, and from where to where."""
        if len(text) < _SHORTEST:
            return
        if _LIKELY.search(text):
            for what, look in _LOOKS.items():
                for match in look.finditer(text):
                    if what != _JWT or _begins_as_json(match[0]):
                        yield what, match.start(), match.end()
        pieces = [text[at : at + _SHORTEST] for at in range(len(text) - _SHORTEST + 1)]
        if self._starts.keys().isdisjoint(pieces):
            return
        for at, piece in enumerate(pieces):
            for form in self._starts.get(piece, ()):
                if text.startswith(form, at):
                    yield self._known[form], at, at + len(form)

    def hidden(self, text: str) -> str:
        """Return the text without what must not be in it."""
        covered = bytearray(len(text))
        for _, since, until in self.find(text):
            covered[since:until] = b"\1" * (until - since)
        return re.sub("\0+", "***", "".join("\0" if cover else char for char, cover in zip(text, covered, strict=True)))


def _begins_as_json(text: str) -> bool:
    """Return whether the first 15 bytes are printable: the random name of a key has eyJ in it once in ten thousand times."""
    return all(0x20 <= byte < 0x7F for byte in urlsafe_b64decode(text[:20]))


def texts(value: Any, depth: int = 6) -> Iterator[str]:
    """Yield every text in an attribute, a field of a record or an argument."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes | bytearray):
        yield bytes(value).decode("latin-1")
    elif value is None or isinstance(value, bool | int | float):
        return
    elif depth and isinstance(value, Mapping):
        yield from chain.from_iterable(texts(one, depth - 1) for pair in list(value.items()) for one in pair)
    elif depth and isinstance(value, list | tuple | AbstractSet):
        yield from chain.from_iterable(texts(one, depth - 1) for one in list(value))
    else:
        yield repr(value)
        if isinstance(value, BaseException):  # an exception's str may say more than its repr
            yield str(value)
