"""A request and its answer as values, without frameworks and sockets."""

import re
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import unquote_plus

__all__ = ["Credentials", "Delivery", "Form", "Malformed", "Request", "Response", "basic"]

_FORM: Final = "application/x-www-form-urlencoded"
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HIDDEN: Final = "<redacted>"
# The fields that a log may show. Any other field could be a secret, so this is a list of what is shown, not of what is hidden.
_SHOWN: Final = frozenset(
    {
        *("grant_type", "client_id", "scope", "audience", "username", "client_assertion_type"),
        *("subject_token_type", "requested_token_type"),
    }
)


class Malformed(ValueError):
    """An invalid escape sequence, such as ``%zz``."""


def _decoded(text: str) -> str:
    """Decode as ``java.net.URLDecoder``: ``+`` is a space, bytes that are not UTF-8 become U+FFFD, a bad escape is an error."""
    if _BAD_ESCAPE.search(text):
        raise Malformed("a percent sign without two hexadecimal digits")
    return unquote_plus(text)


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form body, in order."""

    fields: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def read(cls, content_type: str, body: bytes) -> "Form":
        """Return the fields of `body`; none if it is not declared as a form.

        Raises:
            Malformed: An escape sequence is broken.
        """
        if content_type.partition(";")[0].strip().lower() != _FORM:
            return cls()
        pairs = (pair.partition("=") for pair in body.decode("utf-8", "replace").split("&") if pair)
        return cls(tuple((_decoded(name), _decoded(value)) for name, _, value in pairs))

    def get(self, name: str) -> str | None:
        """Return the first value of a field, or None."""
        return next((value for found, value in self.fields if found == name), None)

    def every(self, name: str) -> list[str]:
        """Return all values of a field."""
        return [value for found, value in self.fields if found == name]

    @property
    def repeated(self) -> frozenset[str]:
        """The fields that occur more than once."""
        return frozenset(name for name, times in Counter(name for name, _ in self.fields).items() if times > 1)

    @property
    def shown(self) -> dict[str, str]:
        """The fields, with everything hidden that could be a secret."""
        return {name: value if name in _SHOWN else _HIDDEN for name, value in self.fields}


@dataclass(frozen=True, slots=True)
class Credentials:
    """A client id and a secret."""

    client_id: str
    secret: str = field(repr=False)


def basic(authorization: str | None, *, strict: bool) -> Credentials | None:
    """Return id and secret of an ``Authorization: Basic`` header (RFC 6749 section 2.3.1), or None if there are none in it.

    Both are form-decoded after they were separated. `strict` releases take broken base64 for no credentials.

    Raises:
        Malformed: An escape sequence is broken (or, in releases that are not `strict`, the base64).
    """
    scheme, _, value = (authorization or "").strip().partition(" ")
    if scheme.lower() != "basic" or not value:
        return None
    try:
        pair = b64decode(value.strip(), validate=True).decode("utf-8", "replace")
    except ValueError:
        if strict:
            return None
        raise Malformed("not base64") from None
    client_id, colon, secret = pair.partition(":")
    return Credentials(_decoded(client_id), _decoded(secret)) if colon else None


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """One request as it came over the wire. Its ``repr`` shows no secret and no token."""

    method: str
    path: str
    """Still encoded, with its query."""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    client: str = "127.0.0.1"
    """The address it came from."""
    scheme: str = "http"
    """Of the URL, as the server sees it."""
    certificate: bytes = b""
    """The client certificate of the connection (DER), which the server has verified; empty if there is none."""

    def header(self, name: str) -> str | None:
        """Return the first header of that name, in whatever case, or None."""
        return next((value for found, value in self.headers if found.lower() == name.lower()), None)

    def every_header(self, name: str) -> list[str]:
        """Return all headers of that name, in whatever case."""
        return [value for found, value in self.headers if found.lower() == name.lower()]

    @property
    def form(self) -> Form:
        """The fields of its body.

        Raises:
            Malformed: An escape sequence is broken.
        """
        return Form.read(self.header("content-type") or "", self.body)

    def __repr__(self) -> str:
        try:
            shown_form = f", form={self.form.shown}"
        except Malformed:
            shown_form = ", form=<malformed>"
        names = ", ".join(sorted({name.lower() for name, _ in self.headers}))
        return f"Request({self.method} {self.path.partition('?')[0]}, headers=[{names}]{shown_form})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How an answer is sent: at once and whole, unless a fault changes that."""

    delay: float = 0.0
    """Seconds before its first byte."""
    drip: float = 0.0
    """Seconds between one byte of the body and the next."""
    disconnect: Literal["", "before", "within"] = ""
    """When the connection breaks: before the first byte, or after half of the body."""
    repeat: int = 1
    """How many times the body is sent in a row."""


@dataclass(frozen=True, slots=True)
class Response:
    """One answer. Its body may be a token, so no ``repr`` shows it."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)
    delivery: Delivery = field(default_factory=Delivery)

    def header(self, name: str) -> str | None:
        """Return the first header of that name, in whatever case, or None."""
        return next((value for found, value in self.headers if found.lower() == name.lower()), None)

    @property
    def length(self) -> int:
        """What ``Content-Length`` says."""
        return len(self.body) * self.delivery.repeat

    def pieces(self) -> Iterator[bytes]:
        """Yield what is sent of the body, in the pieces in which it is sent."""
        for _ in range(self.delivery.repeat):
            yield from self._pieces()

    def _pieces(self) -> Iterator[bytes]:
        sent = self.body[: len(self.body) // 2] if self.delivery.disconnect == "within" else self.body
        if not self.delivery.drip:
            yield sent
            return
        for at in range(len(sent)):
            yield sent[at : at + 1]
