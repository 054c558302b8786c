"""`ServiceRoute` answers as FastAPI does, except that a refusal comes before everything else."""

import asyncio

from s2s_fastapi.requirement.service_route import ServiceRoute
from tests.kit.realm import Realm
from tests.receiver.before_body.compared import REQUESTS, Comparison

APPS = 35


def test_generated_apps_answer_record_and_document_as_with_fastapi_but_refuse_first(realm: Realm) -> None:
    comparison = Comparison()

    async def first_difference() -> object:
        async for difference in comparison.differences(range(APPS), realm, ServiceRoute):
            return difference
        return None

    assert asyncio.run(first_difference()) is None
    assert comparison.cases == APPS * REQUESTS >= 5000
    assert comparison.refused_first > 500
