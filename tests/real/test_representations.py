"""The fields of realm files that the package knows are those of the real classes. No server is started."""

import json

import pytest

from tests.real.distribution import obstacle
from tests.real.representations import TABLE, measured


@pytest.mark.skipif(obstacle() is not None, reason="a real Keycloak needs Java and Maven")
def test_the_table_of_fields_is_what_keycloaks_classes_accept() -> None:
    assert json.loads(TABLE.read_text(encoding="utf-8")) == measured()
