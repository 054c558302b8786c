"""The lines of story 4 on the embedded issuer: the same ones that tests/real plays on real servers."""

import json

import pytest

from example_app.realm import REALMS, Realm
from example_app.stories import STORIES
from s2s_fastapi.realm.exchange import SubjectToken
from s2s_fastapi.realm.model import Granted, RealmModel
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


def test_what_the_calendar_gets_of_ann_is_not_good_at_the_tool_server() -> None:
    model = RealmModel.read(json.loads(REALMS["workshop"].read_text()), new_secret=str)
    ui = "assistant-ui"
    of_ann = SubjectToken(client_id=ui, audience=frozenset({"assistant"}), username="ann", clients=frozenset({ui}))

    granted = model.exchanged("assistant", of_ann, scope="calendar-audience")

    assert isinstance(granted, Granted)
    assert granted.claims["aud"] == "calendar-api"
