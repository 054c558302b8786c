"""``make parity``: all realm files of ``tests/realm/many.py``, on both servers, and the page that says what came of it."""

import pickle
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.real.many_realms import Compared, Figure, compared
from tests.real.server import VERSIONS, Keycloak
from tests.realm.many import FILES, RealmFile

__all__ = ["page"]

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "realm-parity.md"

_KEPT: Final = PAGE.parents[1] / "build" / "parity"

_Results = dict[str, list[Compared]]
_Kept = tuple[datetime, list[Compared]]

_HEAD: Final = """# The realm model and real servers

The [embedded issuer](without-keycloak.md) reads a realm file and answers as Keycloak does after it imported the file. This page says how
well. `make parity` writes it, and `make parity VERSIONS=26.0.8` asks one version again. These are the results of {versions}.

Each file of `tests/realm/many.py` is imported into a real server with the Admin API, with ready-made keys if it has none. Then the
server and the issuer get the same requests: each client asks for its own token, with every optional scope, with all of them, and with
scopes that do not exist. Each user logs in through the clients that allow it. All claims, the header, the other members of the answer and
the words of each refusal must be equal. Only times, ids and signatures are left out. After that, the server exports the realm (partial
export), the issuer reads the export, and all clients ask again. *Not asked* means that the run was cut short.

A server with `--import-realm` imports as the Admin API does, with two differences: it replaces placeholders, and a field that it
does not know stops the start. `tests/real/test_realms.py` compares both ways.

Proofs of possession (DPoP) are compared by `tests/real/test_dpop_parity.py`: 208 token requests with good and bad proofs, on both servers and on the
issuer. All answers are equal: claims, members, statuses and words. The clients on this page that need a proof send none.

A difference is *announced* if `s2s-fastapi dev` prints a notice about it. It is *silent* if not.
"""


def page(kept: Mapping[str, _Kept], files: Iterable[RealmFile]) -> str:
    """Return the page about the results of each version, with the time at which it was compared."""
    results = {version: each for version, (_, each) in kept.items()}
    versions = " and ".join(f"Keycloak {version} on {on:%Y-%m-%d}" for version, (on, _) in kept.items())
    lines = [_HEAD.format(versions=versions), *_summary(results), "", "## Differences", ""]
    lines += _differences(results) or ["There is none."]
    lines += ["", "## Files", ""]
    columns = [f"{version}, {form}" for version in results for form in ("file", "export")]
    lines += [_row(["File", "What it has", *columns]), _row(["---"] * (2 + len(columns)))]
    by_name = [{one.file.name: one for one in each} for each in results.values()]
    for file in files:
        cells = (cell for each in by_name for cell in _cells(each.get(file.name)))
        lines.append(_row([f"`{file.name}`", file.what, *cells]))
    return "\n".join(lines) + "\n"


def _summary(results: _Results) -> Iterator[str]:
    yield _row(["", *results])
    yield _row(["---"] * (1 + len(results)))
    yield _row(["Files that both import", *(str(sum(one.imported for one in each)) for each in results.values())])
    refused = (sum(not one.imported and not one.wrong for one in each) for each in results.values())
    yield _row(["Files that both refuse", *map(str, refused)])
    wrong = (sum(bool(one.wrong) for one in each) for each in results.values())
    yield _row(["Files on which they do not agree", *map(str, wrong)])
    for form in ("file", "export"):
        sums = [_total([_of(one, form) for one in each]) for each in results.values()]
        yield _row(
            [f"Questions about the {form}, and equal answers", *(f"{asked}, {equal}" for asked, equal, *_ in sums)]
        )
        yield _row(
            [f"Other answers about the {form}: announced, silent", *(f"{said}, {silent}" for *_, said, silent in sums)]
        )


def _of(one: Compared, form: str) -> Figure:
    return one.of_file if form == "file" else one.of_export


def _total(figures: Sequence[Figure]) -> tuple[int, int, int, int]:
    return (
        sum(figure.asked for figure in figures),
        sum(figure.equal for figure in figures),
        sum(len(figure.announced) for figure in figures),
        sum(len(figure.silent) for figure in figures),
    )


def _cells(one: Compared | None) -> list[str]:
    if one is None:
        return ["not asked", "not asked"]
    if one.wrong:
        return ["**no**", "**no**"]
    return [str(one.of_file), str(one.of_export)] if one.imported else ["refused", "refused"]


def _differences(results: _Results) -> list[str]:
    """Return one line for each file, version, form and reason, with the first question to which the answers differ."""
    found = []
    for version, each in results.items():
        for one in each:
            if one.wrong:
                found.append(f"- **`{one.file.name}`**, {version}: {_plain(one.wrong)}")
            for form in ("file", "export"):
                reasons: dict[str, list[str]] = {}
                for line, said in _of(one, form).announced:
                    reasons.setdefault(f"announced: {said}", []).append(line)
                for line in _of(one, form).silent:
                    reasons.setdefault("**silent**", []).append(line)
                for reason, lines in reasons.items():
                    first = _plain(lines[0])
                    found.append(
                        f"- `{one.file.name}`, {version}, {form}, {len(lines)} answers, {_plain(reason)}. First: {first}"
                    )
    return found


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    shown = text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]} ..."


_LONGEST: Final = 400


def main(*arguments: str) -> None:
    """Compare all files, or those that are named, on one server after the other, and write the page.

    `arguments` are versions and names of files. The results are kept after each file, so a run that is cut short shows on the page, and
    a file can be asked again after a change.
    """
    names = [name for name in FILES if name in arguments]
    for version in [one for one in VERSIONS if one in arguments] or VERSIONS:
        print(f"Keycloak {version}", flush=True)
        before = _read(version)[1] if names and (_KEPT / version).exists() else []
        results = {one.file.name: one for one in before}
        with Keycloak(version) as keycloak:
            for name in names or FILES:
                results[name] = _shown(keycloak, name)
                _keep(version, list(results.values()))
    kept = {version: _read(version) for version in VERSIONS if (_KEPT / version).exists()}
    PAGE.write_text(page(kept, FILES.values()), encoding="utf-8")
    print(f"{PAGE} is written")
    sys.exit(not all(one.right for _, each in kept.values() for one in each))


def _keep(version: str, results: list[Compared]) -> None:
    _KEPT.mkdir(parents=True, exist_ok=True)
    (_KEPT / version).write_bytes(pickle.dumps((datetime.now(UTC), results)))


def _read(version: str) -> _Kept:
    kept: _Kept = pickle.loads((_KEPT / version).read_bytes())  # noqa: S301 - `main` wrote it
    return kept


def _shown(keycloak: Keycloak, name: str) -> Compared:
    began = time.monotonic()
    one = compared(keycloak, FILES[name])
    cells = ", ".join(_cells(one))
    print(f"  {name}: {cells}{'' if one.right else ', WRONG'} ({time.monotonic() - began:.1f} s)", flush=True)
    return one


if __name__ == "__main__":
    main(*sys.argv[1:])
