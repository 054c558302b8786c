"""A real Keycloak that is restarted, rotated and revoked under load: no valid request fails, no other is let in."""

import pytest

from tests.real.server import Keycloak
from tests.receiver.fire.real import REAL_ROWS, RealRow


@pytest.mark.parametrize("row", REAL_ROWS, ids=lambda row: row.play.__name__)
def test_what_a_real_keycloak_goes_through_costs_no_valid_request(keycloak: Keycloak, row: RealRow) -> None:
    row.check(row.play(keycloak))
