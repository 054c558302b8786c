"""docs/keycloak-versions.md names the versions that the package itself names."""

import re
from pathlib import Path

import pytest

from s2s_fastapi.keycloak import client_authentication, dpop, exchange
from s2s_fastapi.testing.versions import NEWEST

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "keycloak-versions.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "since"),
    [
        ("on-behalf", exchange.SINCE),
        ("bound-tokens", dpop.SINCE),
        ("secretless", client_authentication.SINCE),
    ],
)
def test_a_feature_needs_the_version_from_which_the_code_uses_it(page: str, since: tuple[int, ...]) -> None:
    assert re.findall(rf"^\| [^|]*\]\({page}\.md\)[^|]*\| ([\d.]+)", PAGE, re.MULTILINE) == [".".join(map(str, since))]


def test_the_newest_version_is_the_one_that_the_realm_model_was_measured_on() -> None:
    assert f"**{NEWEST}**" in PAGE


def test_the_authority_of_a_certificate_is_compared_from_the_version_that_the_code_names() -> None:
    since = ".".join(map(str, client_authentication.COMPARES_AUTHORITY))
    assert f"| the authority of a client certificate (`x509.casubjectdn`) | {since} |" in PAGE
