"""Every line of the stories, on every server: each accepted and each refused call, with what the operator reads."""

import pytest

from example_app.stories import STORIES
from tests.real.server import Keycloak


@pytest.mark.parametrize("story", STORIES)
def test_the_story_goes_as_told_line_by_line(every_keycloak: Keycloak, story: str) -> None:
    lines = list(STORIES[story](every_keycloak.realm(story)))

    deviations = [f"{line.what}: {deviation}" for line in lines for deviation in line.deviations]
    assert not deviations, "\n".join(deviations)
    vault = 16 if every_keycloak.realm(story).binds else 5
    assert len(lines) >= {"corp": 8, "techstore": 18, "abc": 30, "workshop": 20, "vault": vault}[story]
