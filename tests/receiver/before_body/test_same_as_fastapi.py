"""`ServiceRoute` answers as FastAPI does, except that a refusal comes before everything else."""

import asyncio
from typing import Any

import pytest
from fastapi.routing import APIRoute

from s2s_fastapi import ServiceRoute
from tests.kit.realm import Realm
from tests.receiver.before_body.compared import REQUESTS, Comparison
from tests.receiver.before_body.faults import FAULTS, planted

APPS = 35


def first_difference(comparison: Comparison, realm: Realm, route_class: type[APIRoute]) -> Any:
    async def first() -> Any:
        async for difference in comparison.differences(range(APPS), realm, route_class):
            return difference
        return None

    return asyncio.run(first())


def test_generated_apps_answer_record_and_document_as_with_fastapi_but_refuse_first(realm: Realm) -> None:
    comparison = Comparison()
    assert first_difference(comparison, realm, ServiceRoute) is None
    assert comparison.cases == APPS * REQUESTS >= 5000
    assert comparison.accepted > 1000
    assert comparison.refused_first > 300


@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_notices_a_fault(realm: Realm, fault: str) -> None:
    assert first_difference(Comparison(), realm, planted(fault)) is not None
