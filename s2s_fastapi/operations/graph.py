"""The relations as a picture: Mermaid, JSON, and one HTML page that needs nothing else."""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, Final

from s2s_fastapi.operations.relations import Relation, Status, Unanswered

__all__ = ["VERSION", "as_html", "as_json", "as_mermaid"]

VERSION: Final = 1
"""The version of the JSON. It grows with every change that an older reader would not understand."""
_HERE: Final = files("s2s_fastapi.operations")
_SWEEPS: Final = 4
_ARROWS: Final = {
    Status.WORKS: "-->",
    Status.DECLARED: "-->",
    Status.ALLOWED: "-.->",
    Status.NOT_DECLARED: "==>",
    Status.NOT_GRANTED: "-.->",
    Status.IN_PART: "-.->",
    Status.REFUSED: "-.->",
    Status.NOT_ALLOWED: "-.->",
}


def as_json(relations: Sequence[Relation], lost: Sequence[Unanswered] = ()) -> dict[str, Any]:
    """Return what `relations` and `unanswered` found, as JSON."""
    return {
        "version": VERSION,
        "relations": [
            {
                "caller": each.caller,
                "receiver": each.receiver,
                "status": str(each.status),
                "problem": each.status.problem,
                "audiences": list(each.audiences),
                "scopes": list(each.scopes),
                "on_behalf": each.on_behalf,
                "dpop": each.dpop,
                "routes": [
                    {"route": one.route, "accepted": one.accepted, "reason": one.reason, "cure": one.cure}
                    for one in each.routes
                ],
                "token": None if each.token is None else dict(each.token),
                "note": each.note,
                "cure": each.cure,
            }
            for each in relations
        ],
        "unanswered": [{"caller": each.caller, "audience": each.audience} for each in lost],
    }


def as_mermaid(relations: Sequence[Relation]) -> str:
    """Return a Mermaid flowchart. Names stand only in escaped labels; ids are made up, so no name is read as code."""
    names = sorted({name for each in relations for name in (each.caller, each.receiver)})
    ids = {name: f"s{number}" for number, name in enumerate(names)}
    lines = ["flowchart LR", *(f'  {ids[name]}["{_label(name)}"]' for name in names)]
    for each in relations:
        words = [each.status.replace("_", " ")] * (each.status is not Status.WORKS) + ["bound"] * each.dpop
        label = f'|"{", ".join(words)}"|' if words else ""
        lines.append(f"  {ids[each.caller]} {_ARROWS[each.status]}{label} {ids[each.receiver]}")
    wrong = [str(number) for number, each in enumerate(relations) if each.status.problem]
    if wrong:
        lines.append(f"  linkStyle {','.join(wrong)} stroke:#c62828,stroke-width:3px")
    return "\n".join(lines) + "\n"


def as_html(
    relations: Sequence[Relation],
    lost: Sequence[Unanswered] = (),
    *,
    title: str = "Who may call whom",
    plan: str = "",
) -> str:
    """Return one page that shows the relations: offline, with no other file. ``plan`` is the command that plans what the realm lacks.

    - Its data is inert: JSON in a script element that no browser runs, written to the page as text only.
    - Its policy allows the page's own script and style, by their hashes, and nothing else.
    """
    style, script = (_HERE.joinpath(name).read_text(encoding="utf-8") for name in ("graph.css", "graph.js"))
    callers, receivers = _in_order(relations)
    data = {
        **as_json(relations, lost),
        "title": title,
        "plan": plan,
        "services": len({*callers, *receivers}),
        "statuses": {str(status): {"label": status.label, "problem": status.problem} for status in Status},
        "callers": callers,
        "receivers": receivers,
    }
    policy = (
        f"default-src 'none'; base-uri 'none'; form-action 'none'; style-src {_hash(style)}; script-src {_hash(script)}"
    )
    filled = {
        "policy": policy,
        "style": style,
        "script": script,
        # Nothing in it can end the element, and no old browser takes it for a comment.
        "data": json.dumps(data, ensure_ascii=True).replace("<", "\\u003c").replace("&", "\\u0026"),
    }
    page = _HERE.joinpath("graph.html").read_text(encoding="utf-8")
    before, *parts = page.split("{{")
    return before + "".join(filled[name] + rest for name, rest in (part.split("}}", 1) for part in parts))


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _label(name: str) -> str:
    """Return a name as character references: Mermaid and the page around it read none of it as markup."""
    return "".join(char if char.isascii() and char.isalnum() else f"#{ord(char)};" for char in name)


def _in_order(relations: Iterable[Relation]) -> tuple[list[str], list[str]]:
    """Return callers and receivers: first those that need attention, then in an order with few crossings, each near the middle of its partners."""
    relations = list(relations)
    pairs = [(each.caller, each.receiver) for each in relations]
    callers, receivers = (sorted({pair[side] for pair in pairs}) for side in (0, 1))
    for _ in range(_SWEEPS):
        receivers = _by_middle(receivers, callers, [(receiver, caller) for caller, receiver in pairs])
        callers = _by_middle(callers, receivers, pairs)
    wrong = [each for each in relations if each.status.problem]
    first = [each.caller for each in wrong], [each.receiver for each in wrong]
    return sorted(callers, key=lambda name: name not in first[0]), sorted(
        receivers, key=lambda name: name not in first[1]
    )


def _by_middle(names: list[str], others: list[str], pairs: list[tuple[str, str]]) -> list[str]:
    places = {name: place for place, name in enumerate(others)}
    joined: dict[str, list[int]] = {name: [] for name in names}
    for name, other in pairs:
        joined[name].append(places[other])
    return sorted(names, key=lambda name: (sum(joined[name]) / len(joined[name]), name))
