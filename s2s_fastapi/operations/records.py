"""The log record of a refusal, read back: one JSON line of the logger ``s2s_fastapi.decisions``."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from s2s_fastapi.backchannel.strict_json import json_object
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.operations.explanation import Explanation, Question, RouteAnswer, Token

__all__ = ["LogRecord", "read_record"]

_DEEP: Final = 4
_REASONS: Final = {str(reason): reason for reason in Reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """What a record says about one decision."""

    question: Question
    """The caller and the route. The caller is empty if no signature held: then nobody knows who called."""
    reason: Reason
    cure: str

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


def read_record(line: str) -> LogRecord:
    """Return what a JSON line says, whichever formatter wrote it: the fields may stand in an object inside of it.

    Raises:
        ConfigurationError: It is no record of a decision.
    """
    try:
        content = json_object(line.encode())
    except (ValueError, RecursionError):
        content = {}
    found = next((each for each in _objects(content, _DEEP) if str(each.get("reason")) in _REASONS), None)
    if found is None:
        raise ConfigurationError(
            "This is no log record of the logger s2s_fastapi.decisions as one JSON line: it has no member reason with one of its reasons."
        )

    def text(name: str) -> str:
        value = found.get(name)
        return value if isinstance(value, str) else ""

    question = Question(
        client_id=text("client_id"), to=_called(text("explain")), method=text("method"), route=text("route")
    )
    return LogRecord(question=question, reason=_REASONS[text("reason")], cure=text("cure"))


def _objects(content: Mapping[str, Any], deep: int) -> Iterator[Mapping[str, Any]]:
    yield content
    for value in content.values():
        if isinstance(value, dict) and deep:
            yield from _objects(value, deep - 1)


def _called(command: str) -> str:
    """Return the service that the record's command names. Nothing of the command is run."""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    return words[words.index("--to") + 1] if "--to" in words[:-1] else ""
