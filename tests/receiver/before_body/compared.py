"""The comparison of `ServiceRoute` with FastAPI: what differs although it must not."""

import random
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fastapi.routing import APIRoute

from tests.kit.realm import Realm
from tests.receiver.before_body.generated import KINDS, Answer, Generated, callers

BODIES = {"good": b'{"size": 1}', "wrong": b'{"size": "x"}', "broken": b'{"size": '}
REQUESTS = 150
"""How many requests each app gets."""


@dataclass(frozen=True)
class Case:
    """One request to one generated app."""

    seed: int
    path: str
    method: str
    caller: str
    body: str
    teapot: bool


@dataclass
class Comparison:
    """All cases of some apps, and what went wrong in them."""

    cases: int = 0
    accepted: int = 0
    refused_first: int = 0
    """Cases that were refused before FastAPI would have refused them, or before it read the body."""

    async def differences(self, seeds: Iterable[int], realm: Realm, service_route: type[APIRoute]) -> Any:
        """Yield each difference."""
        headers = callers(realm)
        for seed in seeds:
            apps = {kind: Generated(seed, kind, realm, service_route) for kind in KINDS}
            ours, fastapi, first = apps.values()
            draw = random.Random(-seed)
            for number in range(REQUESTS):
                if number == 2 * REQUESTS // 3:
                    for app in apps.values():
                        app.override()
                if number == REQUESTS // 4:
                    for app in apps.values():
                        app.late()
                paths = ours.paths + (ours.late_paths if number >= REQUESTS // 4 else [])
                path = draw.choice(paths)
                own = ours.methods.get(path.rpartition("/")[2], "GET")
                case = Case(
                    seed, path, draw.choice((own, own, own, own, own, "HEAD", "POST")),
                    draw.choice((*headers, "a with everything", "a with everything", "a with everything", "a with everything")),
                    draw.choice(("good", "good", "good", "wrong", "broken")), draw.random() < 0.15,
                )  # fmt: skip
                extra = [(b"x-teapot", b"yes")] if case.teapot else []
                sent = (case.path, case.method, [*headers[case.caller], *extra])
                self.cases += 1
                got, theirs = [await app.answer(*sent, BODIES[case.body]) for app in (ours, fastapi)]
                self.accepted += got.status == 200 and got.ran != ()
                refused = theirs if theirs.status == 200 else await first.answer(*sent, BODIES["good"])
                if ours.asks_first(case.path) and (refused.status >= 400 or refused.error):
                    self.refused_first += refused.seen != theirs.seen or theirs.read > 0
                    problem = self._refused(got, refused, theirs)
                else:
                    problem = await self._same(got, theirs, fastapi, sent, case)
                if problem:
                    yield case, ours.route_class_name, problem, got, theirs, refused
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # two methods of a route are one operation for FastAPI
                documents = [app.app.openapi() for app in (ours, fastapi)]
            if documents[0] != documents[1]:
                yield seed, "OpenAPI", documents

    @staticmethod
    def _refused(got: Answer, refused: Answer, theirs: Answer) -> str:
        """Compare with the app that has the direct requirements and nothing else: that is who answers before everything else."""
        if got.seen != refused.seen:
            return "another refusal"
        if got.told != refused.told:
            return "another record of a refusal"
        if got.conditions != refused.conditions:
            return "other conditions for a refusal"
        if got.ran:
            return "something ran for a caller who may not"
        return "the body was read for a caller who may not" if got.read > refused.read else ""

    @staticmethod
    async def _same(got: Answer, theirs: Answer, fastapi: Generated, sent: Any, case: Case) -> str:
        if got.seen != theirs.seen:
            return "another answer"
        if sorted(got.ran) != sorted(theirs.ran) if fastapi.twice else got.ran != theirs.ran:
            return "something else ran"
        if got.read != theirs.read:
            return "another part of the body was read"
        if case.teapot or (case.body == "broken" and theirs.status == 422):
            return ""  # FastAPI has not asked everything then
        asked, once = Counter(got.conditions), Counter(theirs.conditions)
        # FastAPI asks no more once something below another dependency has refused.
        if not once <= asked if theirs.status >= 400 else asked != once:
            return "other conditions"
        return "another record" if _told(got) != _told(theirs) else ""


def _told(answer: Answer) -> Any:
    """Return what the operator sees. What is only observed may come in another order: from below another dependency it is asked later."""
    if not any(decision.observed for decision in answer.decisions):
        return answer.told
    return sorted((str(each.reason), each.observed, sorted(each.cure.split("; "))) for each in answer.decisions)
