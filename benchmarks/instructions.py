"""How many bytecode instructions one request runs, and in which functions. `python -m benchmarks.instructions` prints it.

CPU time depends on the machine and on what else it does. This number is the same at each run, so it shows at once whether a change made a
request dearer. It needs CPython 3.12 or newer (`sys.monitoring`). Work in C, such as RSA or a regex, does not count,
and neither does work of other threads.
"""

import asyncio
import logging
import sys
import threading
from collections import Counter
from pathlib import Path
from types import CodeType
from typing import Any

from benchmarks import apps, rows
from benchmarks.asgi import Call, bearer, request
from benchmarks.realm import CALLER, REALM, RECEIVER, ROOT, SECOND, issuer, settings, token, two_realms
from s2s_fastapi import DOCS, ServiceRoute, TokenVerifier, require_audience, require_caller, require_claim

_TOOL = 3
_WARM_UP = 20
_TWO_REALMS = {REALM: rows.TWO_REALMS.replace("second", "first"), SECOND: rows.TWO_REALMS}
Places = Counter[tuple[str, str]]


async def counted(call: Call) -> Places:
    """Return the instructions of one call, by file and function."""
    places: Places = Counter()

    own = threading.get_ident()

    def count(code: CodeType, _: int) -> None:
        if threading.get_ident() == own:  # the issuer answers in another thread
            places[_file(code), code.co_qualname] += 1

    for _ in range(_WARM_UP):
        await call()
    monitoring: Any = sys.monitoring
    monitoring.use_tool_id(_TOOL, "instructions")
    monitoring.register_callback(_TOOL, monitoring.events.INSTRUCTION, count)
    monitoring.set_events(_TOOL, monitoring.events.INSTRUCTION)
    try:
        await call()
    finally:
        monitoring.set_events(_TOOL, 0)
        monitoring.free_tool_id(_TOOL)
    return places


def _file(code: CodeType) -> str:
    path = Path(code.co_filename)
    if path.is_relative_to(ROOT):
        return str(path.relative_to(ROOT))
    return "/".join(path.parts[-2:])


def main() -> None:
    """Print what each row runs over the bare route, and where a repeated token spends more than the floor."""
    logging.getLogger("s2s_fastapi.decisions").propagate = False
    realm = issuer(beside=[SECOND])
    with realm.serving():
        same = bearer(token(realm).encode)
        todo = {row: request(app, same) for row, app in apps.repeated(settings(realm)).items()}
        todo[rows.QUERY_BARE] = request(apps.bare(), same, query=rows.QUERY_STRING)
        todo[rows.QUERY] = request(apps.guarded(settings(realm)), same, query=rows.QUERY_STRING)
        new = iter([token(realm).encode() for _ in range(_WARM_UP + 1)])
        todo[rows.NEW] = request(apps.guarded(settings(realm)), bearer(lambda: next(new)))
        for name, row in _TWO_REALMS.items():
            app = apps.of_two_realms(two_realms(realm))
            todo[row] = request(app, bearer(token(realm, name).encode))
        either = require_caller(CALLER) | require_caller("b")
        todo["ours, `a | b`, one realm"] = request(apps.guarded(settings(realm), either, public_paths=DOCS), same)
        audience, caller = require_audience(RECEIVER), require_caller(CALLER)
        for row, requirements in {rows.ONE: (caller,), rows.TWO: (audience, caller)}.items():
            app = apps.guarded(settings(realm), *requirements, route_class=ServiceRoute)
            todo[f"{row}, `ServiceRoute`"] = request(app, same)
        # What a claim costs beside `a & b`. docs/speed.md has no row for it.
        sub = str(TokenVerifier(settings(realm)).verify(token(realm)).subject)
        app = apps.guarded(settings(realm), require_caller(CALLER) & require_claim("sub", sub))
        todo["ours, `a & claim`"] = request(app, same)
        found = {row: asyncio.run(counted(call)) for row, call in todo.items()}
    bases = {row.name: row.base for row in rows.ROWS}
    for row, places in found.items():
        base = bases.get(row, rows.BARE)
        over = places.total() - found[base].total() if base else 0
        print(f"{places.total():6} {over:6}  {row}")
    print()
    for place, number in (found[rows.ONE] - found[rows.FLOOR]).most_common(24):
        print(f"{number:6}  {' '.join(place)}")


if __name__ == "__main__":
    main()
