"""docs/keycloak-versions.md names the versions that the package itself names."""

import re
from pathlib import Path

from s2s_fastapi.keycloak import client_authentication, dpop, exchange
from s2s_fastapi.operations.explanation import _MARKED
from s2s_fastapi.operations.realm_file import _SCOPE_OF_ACCOUNTS_SINCE
from s2s_fastapi.testing.versions import NEWEST, Wire
from tests.real.server import VERSIONS
from tests.test_docs import tables

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "keycloak-versions.md"
FEATURES, CHANGES = tables(PAGE)


def written(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


OLDEST = written(numbers(VERSIONS[1])[:2])
PREVIEWED = re.findall(
    r'_PREVIEW if self\.version\.startswith\("([\d.]+)\."\)', (ROOT / "tests/real/server.py").read_text()
)
"""The releases in which tracing is a preview, as the real servers of the tests are started."""

SINCE = {
    "[protect a service]": OLDEST,
    "[call a service]": OLDEST,
    "[users too]": OLDEST,
    "[signed assertions]": OLDEST,
    "[client certificates]": OLDEST,
    "[`plan`, `apply`, `access`]": OLDEST,
    "[one trace]": written((26, numbers(PREVIEWED[-1])[1] + 1)),
    "[calls on behalf of a user]": written(exchange.SINCE),
    "the hint `exchanged token`": written(_MARKED),
    "[bound tokens]": written(dpop.SINCE),
    "[a service without a secret]": written(client_authentication.SINCE),
    "the same with SPIFFE": f"{written(client_authentication.SINCE)}, as a preview: `--features=spiffe`",
    "the authority of a client certificate": written(client_authentication.COMPARES_AUTHORITY),
}


def test_a_feature_needs_the_version_from_which_the_code_uses_it() -> None:
    found = {next((begins for begins in SINCE if row[0].startswith(begins)), row[0]): row[1] for row in FEATURES}
    assert found == SINCE


def test_the_features_stand_in_the_order_of_their_versions() -> None:
    versions = [numbers(row[1])[:2] for row in FEATURES]
    assert versions == sorted(versions)


def test_the_two_ends_are_the_versions_that_are_tested() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"\*\*([\d.]+)\*\*", text) == [VERSIONS[1], VERSIONS[0]]
    assert VERSIONS[0] == NEWEST


def test_a_change_that_the_package_takes_into_account_has_its_version() -> None:
    (scope,) = (row for row in CHANGES if "`service_account`" in row[1])
    assert scope[0] == written(_SCOPE_OF_ACCOUNTS_SINCE)


def test_a_change_of_a_version_that_was_not_tried_says_so() -> None:
    for first, change, _ in CHANGES:
        assert ("not tried" in change) is (numbers(first)[:3] > numbers(NEWEST)), first


def test_a_token_is_marked_from_the_version_on_that_the_hint_needs() -> None:
    before = f"{_MARKED[0]}.{_MARKED[1] - 1}"
    assert (Wire.of(before).marked_ids, Wire.of(written(_MARKED)).marked_ids) == (False, True)
