"""The lines of the stories on the embedded issuer: the same ones that tests/real plays on real servers. Story 4 is in tests/mcp."""

import pytest

from example_app import __main__ as demo
from example_app.realm import REALMS, Realm, fresh_secrets
from example_app.stories import STORIES
from s2s_fastapi.testing import EmbeddedIssuer


@pytest.mark.parametrize(
    ("version", "auth_path", "public_url"),
    [("26.7.3", "", None), ("26.0.8", "/auth", "http://auth.techstore.example:{port}")],
)
@pytest.mark.parametrize("story", ["corp", "techstore", "abc", "vault"])
def test_the_story_goes_as_told_without_a_keycloak(
    story: str, version: str, auth_path: str, public_url: str | None
) -> None:
    issuer = EmbeddedIssuer.read(
        *REALMS.values(), values=fresh_secrets(), version=version, auth_path=auth_path, public_url=public_url
    )
    with issuer.serving():
        new = version == "26.7.3"
        realm = Realm(story, issuer.url, issuer.public_url, issuer.auth_path, issuer.values, exchanges=new, binds=new)
        lines = list(STORIES[story](realm))

    deviations = [f"{line.what}: {deviation}" for line in lines for deviation in line.deviations]
    assert not deviations, "\n".join(deviations)
    assert len(lines) >= {"corp": 8, "techstore": 18, "abc": 30, "vault": 16 if new else 5}[story]


def test_the_demo_ends_with_an_error_where_a_line_deviates(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def deviating(realm: Realm) -> object:
        from example_app.stage import Answer
        from example_app.stories import Line

        yield Line("a line", "none", 401, "no_credentials", Answer(200, "", "", "allowed"))

    monkeypatch.setattr(demo, "STORIES", {"corp": deviating})

    assert demo.main() == 1
    printed = capsys.readouterr().out
    assert "status 200, expected 401" in printed
    assert "1 lines, 1 not as told" in printed
