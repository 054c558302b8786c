"""The lines of the stories on the embedded issuer: the same ones that tests/real plays on real servers. Story 4 is in tests/mcp."""

import io
import re
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console

from example_app import __main__ as demo
from example_app.realm import REALMS, Realm, fresh_secrets
from example_app.stage import Answer
from example_app.stories import LINES, STORIES, Line
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
    assert len(lines) == (LINES[story] if new or story != "vault" else 5)


def play(monkeypatch: pytest.MonkeyPatch, story: Callable[[Realm], Iterator[Line]], lines: int) -> int:
    """Run the demo with one story in place of the five, and return its exit code."""
    for name, value in {
        "REALMS": {"corp": REALMS["corp"]},
        "STORIES": {"corp": story},
        "LINES": {"corp": lines},
    }.items():
        monkeypatch.setattr(demo, name, value)
    return demo.main()


def right(realm: Realm) -> Iterator[Line]:
    yield Line("a good call", "alice, aud [bob]", 200, "allowed", Answer(200, "", "", "allowed"))


def deviating(realm: Realm) -> Iterator[Line]:
    yield Line("an attack", "alice, aud [bob]", 401, "no_credentials", Answer(200, "", "", "allowed"))
    yield Line("a call", "alice, aud [bob]", 200, "allowed", Answer(401, "", "", "expired"))


def test_the_last_line_of_the_demo_is_an_attack_that_was_accepted_in_red(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")

    assert play(monkeypatch, deviating, 2) == 1
    *before, last = capsys.readouterr().out.splitlines()
    assert "status 200, expected 401" in " ".join(before)
    assert last.startswith("\x1b[1;31mACCEPTED, and must be refused: 1: an attack. 2 of 2 lines")


def test_the_exit_code_is_0_only_if_every_line_was_played_and_went_as_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = {}
    for name, story, lines in (("right", right, 1), ("missing", right, 2), ("refused", refused, 1)):
        code = play(monkeypatch, story, lines)
        ends[name] = (code, re.sub(r"\d+ s\.$", "1 s.", capsys.readouterr().out.splitlines()[-1]))

    assert ends == {
        "right": (0, "All as told: 1 of 1 lines, 1 s."),
        "missing": (1, "Not as told: lines are missing. 1 of 2 lines, 1 s."),
        "refused": (1, "Not as told: 1: a call. 1 of 1 lines, 1 s."),
    }


def refused(realm: Realm) -> Iterator[Line]:
    yield Line("a call", "none", 200, "allowed", Answer(401, "", "", "expired"))


def test_a_line_is_shown_before_the_next_one_is_played(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []

    def story(realm: Realm) -> Iterator[Line]:
        yield from right(realm)
        shown.append(capsys.readouterr().out)
        yield from right(realm)

    assert play(monkeypatch, story, 2) == 0
    assert [text.count("a good call") for text in shown] == [1]


def test_in_a_pipe_a_line_is_a_row_of_160_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    play(monkeypatch, lambda _: iter([LONG]), 1)

    rows = [row for row in capsys.readouterr().out.splitlines() if "what the operator reads" in row]
    assert [len(row) for row in rows] == [160]


def test_the_four_steps_in_keycloak_are_spelled_out_once() -> None:
    cure = "token of x has aud [account], expected y. Keycloak needs, of the steps A to D in the README: (B) a client y"
    seen = Answer(401, "", "", "wrong_audience", f"refused 401: wrong_audience cure='{cure}'")
    text, _ = shown_at(300, *[Line("a call", "x", 401, "wrong_audience", seen)] * 3)

    assert text.count("(B) a client y") == 1
    assert text.count("expected y. ...") == 2


def test_without_an_accepted_attack_the_last_line_names_what_is_not_as_told() -> None:
    line = Line("a call", "none", 200, "allowed", Answer(401, "", "", "expired"))
    text, shown = shown_at(80, line)

    assert "\n         status 401, expected 200:\n" in text
    assert str(shown.verdict(3)) == "Not as told: 1: a call. 1 of 1 lines, 3 s."


@pytest.mark.parametrize(
    ("expected", "seen", "accepted"),
    [
        ((401, "expired"), (200, "allowed"), True),
        ((403, "caller_not_allowed"), (201, ""), True),
        ((200, "role_missing"), (200, ""), True),  # a tool: its refusal is in the log only
        ((1, ""), (0, "allowed"), True),
        ((401, ""), (200, ""), True),
        ((401, "expired"), (403, "caller_not_allowed"), False),
        ((200, "allowed"), (200, "allowed"), False),
        ((200, "allowed"), (401, "expired"), False),
        ((404, "allowed"), (404, "allowed"), False),
        ((200, ""), (200, ""), False),
        ((3, ""), (3, ""), False),
    ],
)
def test_an_attack_is_accepted_if_what_must_be_refused_went_through(
    expected: tuple[int, str], seen: tuple[int, str], *, accepted: bool
) -> None:
    line = Line("a line", "none", *expected, Answer(seen[0], "", "", seen[1]))

    assert line.accepted_attack == accepted


LONG = Line(
    "what is not assigned, and so is refused, with a sentence that takes more than one line of a narrow terminal",
    "a-client-with-a-long-name, aud [account, crm-api-gateway, notification-service], scope [some-audience another]",
    1,
    "",
    Answer(1, "", "", "", "what the operator reads"),
    log=("operator",),
)


def shown_at(width: int, *lines: Line) -> tuple[str, demo.Shown]:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    shown = demo.Shown(console, len(lines))
    with console.capture() as captured:
        for line in lines:
            shown.add(line)
    return captured.get(), shown


@pytest.mark.parametrize("width", [60, 80, 109, 110, 200])
def test_the_audience_is_never_cut_at_any_width_and_no_reason_is_a_dash(width: int) -> None:
    text, _ = shown_at(width, LONG)

    columns = [row[-width:] for row in text.splitlines()]
    assert all(len(row) <= width for row in columns)
    assert "…" not in text
    assert "1 of 1 ✓" in " ".join(text.split())
    assert re.search(r"nothing\s+to\s+decide", text)
    if width < 110:
        assert "aud [account, crm-api-gateway, notification-service]" in " ".join(text.split())
    else:
        assert all(name in text for name in ("aud [account,", "crm-api-gateway,", "notification-service],"))


def test_below_110_columns_a_case_is_two_lines_and_the_scope_gives_way_to_the_audience() -> None:
    token = "chat-app-service, aud [account, crm-api-gateway]"
    line = Line("a call", f"{token}, scope [{'s' * 30}]", 201, "allowed", Answer(201, "", "", "allowed"))

    assert shown_at(80, line)[0] == f"1 of 1 ✓ 201 allowed: a call\n         {token}\n"
    assert "sss" in shown_at(109, line)[0]
    assert len(shown_at(109, line)[0].splitlines()) == 2


def test_the_audience_is_bold_and_only_the_scope_is_dim() -> None:
    text = demo.token_in_pieces(["alice", "aud [bob]", "scope [x]"], 80)

    assert {text.plain[span.start : span.end]: span.style for span in text.spans} == {
        "aud [bob]": "bold",
        "scope [x]": "dim",
    }
