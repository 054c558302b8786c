"""The log record of a refusal, read back: a record of the logger ``s2s_fastapi.decisions``, as JSON or as text."""

import ast
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from s2s_fastapi.backchannel.strict_json import json_object
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.operations.explanation import Explanation, Question, RouteAnswer, Token
from s2s_fastapi.text import printable

__all__ = ["LogRecord", "is_record", "read_record"]

_DEEP: Final = 8
_LONGEST: Final = 4096
_MESSAGE: Final = re.compile(r"(?:refused|failed|observed) [1-5]\d\d: (?P<reason>[a-z_]+)")
"""How the message begins. The patterns below follow on it, so nothing inside of quotes is ever taken for a field."""
_FIELD: Final = re.compile(r" (?P<name>[a-z_]+)=(?P<value>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|-?\d+)")
_COMMAND: Final = re.compile(r" explain: (?P<command>s2s-fastapi explain [^\n]*)")
_SCHEMES: Final = ("bearer", "dpop")
_DOTS: Final = 2
"""Between the parts of a token."""
_REASONS: Final = {str(reason): reason for reason in Reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """What a record says about one decision."""

    question: Question
    """The caller and the route. The caller is empty if no signature held: then nobody knows who called."""
    reason: Reason
    cure: str
    user: str = ""
    """The user, if a user called: the caller is then the client through which it called."""
    among: int = 1
    """How many records the text has. This is the last one."""

    @property
    def explanation(self) -> Explanation:
        """Return what the record alone says."""
        signed = (
            "its token's signature held" if self.question.client_id else "no signature held, so the caller is not known"
        )
        token = Token(source=f"the log record; {signed}", decision=Decision(reason=self.reason, cure=self.cure))
        route = f"{self.question.method} {self.question.route}".strip() or "any route"
        answer = RouteAnswer(app=self.question.to, route=route, reason=str(self.reason), cure=self.cure)
        return Explanation(question=self.question, token=token, routes=(answer,))


def is_record(text: str) -> bool:
    """Return whether a text is no token: no token has these characters, or several words. A scheme may stand before a token."""
    *before, last = text.removeprefix("Authorization:").split() or [""]
    words = bool(before) and before[-1].lower() not in _SCHEMES and last.count(".") != _DOTS
    return text.startswith("{") or _MESSAGE.search(text) is not None or words


def read_record(text: str) -> LogRecord:
    """Return what a record says, whichever formatter wrote it.

    - As JSON, the fields may stand in an object inside of it. If only the message is there, that is read.
    - As text, something may stand before and after the message. What was cut off is missing.
    - Of several lines with a record each, the last one counts.

    Nobody's name can imitate another field: in the message each value is in quotes, with the quotes inside of it escaped.

    Raises:
        ConfigurationError: It is no record of a decision.
    """
    records = _records(text)
    if not records:
        raise ConfigurationError(
            "This is neither a token nor a log record of the logger s2s_fastapi.decisions: it has neither a member reason with one of its reasons, nor a text"
            " such as “refused 403: scope_missing ...”."
        )

    found = records[-1]

    def member(name: str) -> str:
        value = found.get(name)
        return printable(value, _LONGEST) if isinstance(value, str) else ""

    reason = _REASONS[member("reason")]
    question = Question(
        client_id=member("client_id"),
        to=_called(member("explain")),
        dpop=member("binding") == "dpop",
        method=member("method"),
        route=member("route"),
    )
    return LogRecord(
        question=question,
        reason=reason,
        cure=member("cure"),
        user=member("user"),
        among=len(records),
    )


def _records(text: str) -> list[Mapping[str, Any]]:
    """Return the fields of each record: one for a JSON object, and otherwise one for each line that has any.

    Nobody's name can make a record of its own: no record has a line break, and a second message in a line does not count.
    """
    whole = [text] if _as_object(text) is not None else text.splitlines()
    return [found for found in (next(_found(each, _DEEP), None) for each in whole) if found is not None]


def _found(content: object, deep: int) -> Iterator[Mapping[str, Any]]:
    """Yield the fields of records in a text or in JSON: members of an object first, then the text of a message."""
    if deep < 0:
        return
    if isinstance(content, dict):
        if str(content.get("reason")) in _REASONS:
            yield content
        for value in (*filter(_is_nested, content.values()), *filter(_is_text, content.values())):
            yield from _found(value, deep - 1)
    elif isinstance(content, list):
        for value in content:
            yield from _found(value, deep - 1)
    elif isinstance(content, str):
        inside = _as_object(content)
        if inside is not None:
            yield from _found(inside, deep - 1)
        else:
            yield from _in_text(content)


def _as_object(content: str) -> Mapping[str, Any] | None:
    try:
        return json_object(content.encode()) if content.lstrip().startswith("{") else None
    except (ValueError, RecursionError):  # cut off, perhaps: its message may still be whole
        return None


def _is_nested(value: object) -> bool:
    return isinstance(value, dict | list)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _in_text(text: str) -> Iterator[Mapping[str, Any]]:
    for message in _MESSAGE.finditer(text):
        if message["reason"] not in _REASONS:
            continue
        fields = {"reason": message["reason"]}
        at = message.end()
        while field := _FIELD.match(text, at):
            fields[field["name"]] = _unquoted(field["value"])
            at = field.end()
        if command := _COMMAND.match(text, at):
            fields["explain"] = command["command"]
        yield fields


def _unquoted(value: str) -> str:
    """Return the text that stands in quotes as Python writes it. Nothing is evaluated but a literal."""
    try:
        return str(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return ""


def _called(command: str) -> str:
    """Return the service that the record's command names. Nothing of the command is run."""
    try:
        # A formatter may put quotes or brackets behind the message.
        words = shlex.split(command) if "'" in command else command.split()
    except ValueError:
        return ""
    return words[words.index("--to") + 1].rstrip("\"'}]),;") if "--to" in words[:-1] else ""
