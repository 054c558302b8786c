"""Writes docs/conformance.md and the pages of docs/conformance from the cases and from the results: ``python -m benchmarks.conformance.page``."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.conformance.results import FILE, Guard, Results, read
from s2s_fastapi.testing.attack.cases import FILES, Case, all_cases

__all__ = ["GUARD", "MIDDLEWARE", "OURS", "PAGE", "PROPERTIES", "PYJWT", "Property", "counts", "pages", "word", "write"]

OURS: Final = "s2s-fastapi"
MIDDLEWARE: Final = "fastapi-keycloak-middleware"
GUARD: Final = "keycloak-guard"
PYJWT: Final = "PyJWT by hand"

FOLDER: Final = FILE.parent
PAGE: Final = FOLDER.parent / "conformance.md"
BEGIN: Final = "<!-- measured: `make conformance` writes from here -->"
END: Final = "<!-- measured: to here -->"
_CASES: Final = Path(__file__).parents[2] / "s2s_fastapi" / "testing" / "attack" / "cases"
_CASES_LINK: Final = "../../s2s_fastapi/testing/attack/cases"
_PUBLIC: Final = 200


@dataclass(frozen=True)
class Property:
    """A property that a resource server must have, with the kinds of cases that try it."""

    file: str
    title: str
    rule: str
    kinds: tuple[str, ...]


PROPERTIES: Final = (
    Property(
        "signature",
        "Algorithm and signature",
        "Accept a token only if a signature with an algorithm of your own list verifies over exactly the bytes that were sent.",
        ("algorithm", "signature", "confusion"),
    ),
    Property(
        "keys",
        "Keys",
        "Verify with a key of the configured realm only. Without keys, refuse; say 503, not 401.",
        ("key", "no-keys"),
    ),
    Property(
        "header-and-type",
        "Header and kind of token",
        "Refuse a token whose header changes the rules, and every JWT of the realm that is not an access token.",
        ("header", "type"),
    ),
    Property(
        "parsing",
        "Parsing",
        "Read each token in one way only: one spelling, one JSON object, claims of the right type.",
        ("parsing", "shape"),
    ),
    Property(
        "issuer-and-audience",
        "Issuer and audience",
        "Accept a token only of your realm and only for your service, compared as whole texts.",
        ("issuer", "audience"),
    ),
    Property(
        "time-and-memory",
        "Time and what is remembered",
        "Refuse a token outside its time, also if it was accepted before. Remember a token by all of it.",
        ("time", "cache"),
    ),
    Property(
        "callers",
        "Callers, users and roles",
        "Know whether a service or a user calls, and which one. A good token alone permits nothing.",
        ("caller", "user", "roles"),
    ),
    Property(
        "credentials",
        "Credentials in the request",
        "Take one token from one `Authorization` header, and from nowhere else.",
        ("credentials", "two-headers"),
    ),
    Property(
        "around-the-token",
        "Paths, methods and headers around the token",
        "No spelling of a path, no method and no header makes a protected route public.",
        ("path", "method", "spoofing"),
    ),
    Property(
        "bound-tokens",
        "Bound tokens and their proofs",
        "A token that is bound to a key is worth nothing without a fresh proof of this key for this request.",
        ("binding", "proof"),
    ),
)

WORDS: Final = {
    "refused": "refused with the expected status and challenge, between two good tokens that were accepted",
    "refused otherwise": "refused, with another status than expected or without the challenge; the page of the cases has the status",
    "lenient": "let in, with a good token of this caller; only this package promises to refuse the case, and it has a star on its page",
    "let in": (
        "let in, without a good token of this caller; or with one, although a specification forbids it: the sentence stands below the table"
    ),
    "error": "the app answered 500: nobody got in, and the log has a traceback",
    "no route": "the framework knows no route for this path and answered 404 or 307, so the guard was not asked: nobody got in",
    "not tried": "the case needs another time, and the clock of this app cannot be turned",
    "not claimed": "the guard has no feature for it, and does not say that it has",
}
"""The words of the table. Their meaning is the rule of the code: see `word`, and `only_here` and `forbidden_by` of a case."""
_GOOD: Final = """\
A good token is one that the realm signed for this caller and for this service, and that has not expired. A token that is bound to a key is good
only with a good proof of this key."""
_OF_OUTCOMES: Final = {"held": "refused", "otherwise": "refused otherwise", "lenient": "lenient", "accepted": "let in"}
_OF_ANSWERS: Final = {"500": "error", "404": "no route", "307": "no route", "503": "refused otherwise"}


def word(guard: Guard, case: Case) -> str:
    """Return the result of a case, in the words of the page."""
    if case.id in guard.not_claimed:
        return "not claimed"
    cell = guard.cells[case.id]
    return _OF_OUTCOMES.get(cell.outcome) or _OF_ANSWERS.get(cell.detail.partition(" ")[0], "not tried")


def counts(guard: Guard, cases: Iterable[Case]) -> Counter[str]:
    """Return how often each word occurs."""
    return Counter(word(guard, case) for case in cases)


def write(results: Results) -> None:
    """Write all pages."""
    for path, text in pages(results).items():
        path.write_text(text, encoding="utf-8")


def pages(results: Results) -> dict[Path, str]:
    """Return the text of each page. Of docs/conformance.md only what stands between the marks is written."""
    before, found_begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not found_begin or not found_end:
        raise RuntimeError(f"{PAGE} needs the lines {BEGIN} and {END}")
    return {
        PAGE: f"{before}{BEGIN}\n\n{_summary(results)}\n\n{END}{after}",
        FOLDER / "guards.md": _guards(results),
        **{FOLDER / f"{each.file}.md": _property(each, results) for each in PROPERTIES},
        FOLDER / "caller.md": _caller(),
    }


def table(heading: list[str], rows: Iterable[list[str]]) -> str:
    """Return a table of Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(heading), *rows))


def _of(prop: Property) -> tuple[Case, ...]:
    return tuple(case for case in all_cases() if case.kind in prop.kinds)


def _summary(results: Results) -> str:
    heading = ["what must hold", "cases", *(guard.name for guard in results.guards)]
    rows = [
        [
            f"[{prop.title}](conformance/{prop.file}.md)",
            str(len(_of(prop))),
            *(_count(guard, _of(prop)) for guard in results.guards),
        ]
        for prop in PROPERTIES
    ]
    rows.append(["**all**", str(len(all_cases())), *(_count(guard, all_cases()) for guard in results.guards)])
    measured = ", ".join(f"{name} {value}" for name, value in results.measured.items() if name != "date")
    versions = "; ".join(
        f"{guard.name}: {', '.join(f'{name} {version}' for name, version in guard.versions.items())}"
        for guard in results.guards
    )
    return "\n\n".join(
        (
            table(heading, rows),
            *_let_in(results, all_cases()),
            table(["word", "meaning"], ([name, meaning] for name, meaning in WORDS.items())),
            _GOOD,
            f"Measured on {results.measured['date']} with {measured}. Versions: {versions}.",
        )
    )


def _count(guard: Guard, cases: Iterable[Case]) -> str:
    found = counts(guard, cases)
    return ", ".join(f"{_loud(name)} {found[name]}" for name in WORDS if found[name])


def _loud(name: str) -> str:
    return f"**{name}**" if name == "let in" else name


def _let_in(results: Results, cases: Iterable[Case]) -> list[str]:
    """Return why each result in bold is one: a reader must be able to check it."""
    found: dict[tuple[str, str], list[str]] = {}
    for guard in results.guards:
        for case in cases:
            if word(guard, case) == "let in":
                why = case.forbidden_by or "No good token of this caller was sent."
                found.setdefault((guard.name, why), []).append(f"`{case.id}`")
    lines = [f"- {guard}, {' '.join(names)}: {why}" for (guard, why), names in found.items()]
    return ["\n".join(["Let in, with the reason why it is not lenient:", "", *lines])] if lines else []


def _property(prop: Property, results: Results) -> str:
    cases = _of(prop)
    silent = [guard.name for guard in results.guards if set(counts(guard, cases)) == {"not claimed"}]
    columns = [guard for guard in results.guards if guard.name not in silent]
    heading = ["case", "what is sent", "expected", "source", *(guard.name for guard in columns)]
    rows = [
        [*_described(entry, variants), *(_cell(guard, variants) for guard in columns)]
        for entry, variants in _entries(cases).items()
    ]
    kinds = ", ".join(f"`{kind}`" for kind in prop.kinds)
    files = ", ".join(f"[{name}]({_CASES_LINK}/{name})" for name in _files(cases))
    bound = sum(case.where == "proofs" for case in cases)
    about = [f"{len(cases)} cases of the kinds {kinds}. The data: {files}.", "", _ABOUT_PROPERTIES]
    about += (
        [
            f"- {bound} of the cases begin with a bound token and a good proof, the other {len(cases) - bound} with the scheme Bearer."
        ]
        if bound
        else []
    )
    about += [f"- No column, because none of these cases is claimed: {', '.join(silent)}."] if silent else []
    parts = [f"# {prop.title}", prop.rule, "\n".join(about), _WRITTEN, table(heading, rows)]
    return "\n\n".join((*parts, *_let_in(results, cases), *_variants_by_name(cases), ""))


_ABOUT_PROPERTIES: Final = """\
- [The conformance page](../conformance.md) explains the words. [Each guard's configuration](guards.md) stands on a page of its own.
- A number behind the name of a case is the number of its variants.
- A star: who sends it has a good token, and only this package promises to refuse it. A guard that accepts it is lenient."""
_WRITTEN: Final = "This page is written by a command: `make conformance`."


def _files(cases: Iterable[Case]) -> list[str]:
    """Return the names of the data files in which the cases stand."""
    entries = {case.entry for case in cases}
    documents = {f"{name}.json": json.loads((_CASES / f"{name}.json").read_text("utf-8")) for name in FILES}
    return [name for name, document in documents.items() if entries & {entry["id"] for entry in document["cases"]}]


def _entries(cases: Iterable[Case]) -> dict[str, list[Case]]:
    """Return the variants of each entry."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.entry, []).append(case)
    return found


def _described(entry: str, cases: list[Case]) -> list[str]:
    case = cases[0]
    expected = case.expected
    status = "200 of the public page" if expected.status == _PUBLIC else str(expected.status)
    return [
        f"`{entry}`{f' ({len(cases)})' if len(cases) > 1 else ''}{_star(cases)}",
        case.title,
        f"{status} `{expected.error}`" if expected.error else status,
        "; ".join(case.source),
    ]


def _star(cases: list[Case]) -> str:
    """Return the star, with the variants that have it if some have none."""
    starred = [case for case in cases if case.only_here]
    if len(starred) in (0, len(cases)):
        return " *" if starred else ""
    return f" * {' '.join(_variant(case) for case in starred)}"


def _variant(case: Case) -> str:
    return f"`{case.id.removeprefix(case.entry).lstrip('.')}`"


def _variants_by_name(cases: Iterable[Case]) -> list[str]:
    """Return the list of all names that stand in no row: they are what one cites."""
    several = {entry: variants for entry, variants in _entries(cases).items() if variants[0].id != entry}
    lines = [f"- {' '.join(f'`{case.id}`' for case in variants)}" for variants in several.values()]
    return ["## Variants", "\n".join(lines)] if lines else []


def _cell(guard: Guard, cases: list[Case]) -> str:
    """Return the results of the variants: the names of those that differ from most, and what was answered if there is no verdict."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(word(guard, case), []).append(case)
    if len(found) == 1:
        ((name, _),) = found.items()
        return _loud(name) + _why(guard, name, cases[:1])
    most = max(found.values(), key=len)
    return ", ".join(
        _several(guard, name, found[name], named=found[name] is not most) for name in WORDS if name in found
    )


def _several(guard: Guard, name: str, cases: list[Case], *, named: bool) -> str:
    variants = " ".join(map(_variant, cases))
    return f"{_loud(name)} {len(cases)}{_why(guard, name, cases)}{f': {variants}' if named else ''}"


def _why(guard: Guard, name: str, cases: list[Case]) -> str:
    if name != "refused otherwise":
        return ""
    answers = dict.fromkeys(guard.cells[case.id].detail.partition(",")[0] for case in cases)
    return f" ({', '.join(answers)})"


def _guards(results: Results) -> str:
    return "\n\n".join(
        ("# The configuration of each guard", _ABOUT_GUARDS, *(_guard(guard) for guard in results.guards), "")
    )


_ABOUT_GUARDS: Final = """\
- Each peer has every option of its own documentation that makes it stricter, and the means that it names to tell callers apart.
- A service named `shop` may call `GET /orders/{number}`. `GET /health` is public. `trusted` is the issuer of the suite.
- Below each guard stands what it does not claim. The results of those cases are in [results.json](results.json) all the same, if they were tried.

This page is written by a command: `make conformance`."""


def _guard(guard: Guard) -> str:
    reasons = Counter(guard.not_claimed.values())
    accepted = sum(
        case in guard.cells and guard.cells[case].outcome in ("accepted", "lenient") for case in guard.not_claimed
    )
    versions = ", ".join(f"{name} {version}" for name, version in guard.versions.items())
    lines = [f"## {guard.name}", f"{versions}. [Documentation]({guard.documentation})."]
    lines += [f"```python\n{guard.configuration.rstrip()}\n```"]
    lines += ["\n".join(f"- {remark}" for remark in guard.remarks)] if guard.remarks else []
    if reasons:
        lines += [f"Not claimed; {accepted} of these cases were tried and let in:"]
        lines += [
            "\n".join(
                f"- {number} {'case' if number == 1 else 'cases'}: {reason}" for reason, number in reasons.items()
            )
        ]
    return "\n\n".join(lines)


CALLER_CASES: Final = FOLDER / "caller.json"
CALLER_PROPERTIES: Final = {
    "answer": "What the token endpoint answers",
    "time": "How long a token is used",
    "destination": "Where a token may go",
    "refusal": "What a refusal costs",
    "identity": "Whose token it is",
    "bound": "Bound tokens",
    "load": "What Keycloak is asked",
    "secrets": "Secrets",
}
_ABOUT_CALLER: Final = """\
What a service that fetches tokens from Keycloak and sends them must not do, in any language. {cases} lines with {variants} cases. The data file is
[caller.json](caller.json).

- {tried} cases have what is `given` as data: what the token endpoint answers (`token_answer`; `token_members` and `token_claims` change a good answer),
  the `url` that the code asks for, or what the service answers (`answer`). A test tries all of them on this package, each with a good answer beside it:
  all are held. They are marked "data".
- The other lines need time, load, processes or a second user. A number leads to [the list of attacks on the caller](../attacks-caller.md), which
  names the tests that hold them here.
- The three other guards do not fetch tokens, so they have no column here.
- To try another caller, read the file, and play the token endpoint and the service: `tests/attacks/caller/test_cases.py` does so in 140 lines. [caller.schema.json](caller.schema.json) explains each member.

This page is written by a command: `make conformance`."""


def _caller() -> str:
    cases = json.loads(CALLER_CASES.read_text(encoding="utf-8"))["cases"]
    about = _ABOUT_CALLER.format(
        cases=len(cases),
        variants=sum(map(_variants, cases)),
        tried=sum(_variants(case) for case in cases if "given" in case),
    )
    heading = ["case", "what happens", "what a caller must do", "source", "given as", "line"]
    parts = [
        f"## {title}\n\n{table(heading, (_caller_row(case) for case in cases if case['property'] == name))}"
        for name, title in CALLER_PROPERTIES.items()
    ]
    named = [" ".join(f"`{case['id']}.{name}`" for name in case["each"]) for case in cases if "each" in case]
    return "\n\n".join(
        ("# What a caller must not do", about, *parts, "## Variants", "\n".join(f"- {names}" for names in named), "")
    )


def _variants(case: dict[str, Any]) -> int:
    return len(case.get("each") or [""])


def _caller_row(case: dict[str, Any]) -> list[str]:
    variants = f" ({_variants(case)})" if _variants(case) > 1 else ""
    line = f"[{case['line']}](../attacks-caller.md)"
    given = "data" if "given" in case else "words"
    return [f"`{case['id']}`{variants}", case["title"], case["expected"], "; ".join(case["source"]), given, line]


if __name__ == "__main__":
    write(read())
