"""A selection of the realm files of ``make parity``, on the newest server: the issuer answers as the server, or says that it does not."""

import pytest

from tests.real.conftest import Servers
from tests.real.many_realms import compared
from tests.real.server import NEWEST
from tests.realm.many import FILES

# Each has much of what the others have one by one. The numbers are the questions that are asked at least: file, export.
SELECTED = {
    "front-end": (50, 15),
    "accounts-of-users": (55, 8),
    "every-mapper": (40, 35),
    "scopes-by-role": (35, 30),
    "levels": (45, 24),
    "management": (14, 12),
    "export-8.0.2.redhat-00001": (40, 28),
    "made-5": (25, 15),
}


@pytest.mark.parametrize("name", SELECTED)
def test_the_issuer_answers_as_a_real_server_from_a_file_and_from_its_export(keycloaks: Servers, name: str) -> None:
    keycloak = keycloaks(NEWEST)
    try:
        result = compared(keycloak, FILES[name])
    finally:
        keycloak.admin.delete_realm(FILES[name].document["realm"])
    assert not result.wrong
    assert not result.of_file.silent + result.of_export.silent
    asked = result.of_file.asked, result.of_export.asked
    assert (result.of_file.equal, result.of_export.equal) == asked
    assert all(some >= least for some, least in zip(asked, SELECTED[name], strict=True))


@pytest.mark.parametrize("name", [name for name, file in FILES.items() if file.refused])
def test_what_the_server_does_not_import_the_issuer_refuses(keycloaks: Servers, name: str) -> None:
    result = compared(keycloaks(NEWEST), FILES[name])
    assert not result.imported
    assert not result.wrong
