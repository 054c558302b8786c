"""The lines of story 4 on the embedded issuer: the same ones that tests/real plays on real servers."""

import pytest

from example_app.realm import REALMS, Realm
from example_app.stories import STORIES
from s2s_fastapi.testing import EmbeddedIssuer


@pytest.mark.parametrize(("version", "exchanges"), [("26.7.3", True), ("26.0.8", False)])
def test_the_story_of_an_agent_goes_as_told_without_a_keycloak(version: str, exchanges: bool) -> None:
    issuer = EmbeddedIssuer.read(*REALMS.values(), version=version)
    with issuer.serving():
        realm = Realm("workshop", issuer.url, issuer.public_url, issuer.auth_path, issuer.values, exchanges)
        lines = list(STORIES["workshop"](realm))

    deviations = [f"{line.what}: {deviation}" for line in lines for deviation in line.deviations]
    assert not deviations, "\n".join(deviations)
    assert len(lines) == 20
