"""The page of ``s2s-fastapi graph`` in a real browser: what a person sees, reads, presses and prints."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from s2s_fastapi.operations.graph import as_html
from s2s_fastapi.operations.relations import Relation, RouteAnswer, Status, Unanswered
from tests.browser.chromium import opened, watched
from tests.browser.landscapes import Landscape, example, generated, planted_example, status_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

Look = Callable[..., "Page"]

HOSTILE = (
    "$(id)",
    '"><script>window.pwned=1</script>',
    "<img src=x onerror=window.pwned=1>",
    "${x}",
    "a|b",
    "=1+1",
    "\u202egnp.exe",
    "</script>",
    "javascript:alert(1)",
    "x" * 300,
)

# Each text that is shown, with the contrast of its colour against the ground below it (WCAG 2, 1.4.3).
FAINT = """() => {
  const parsed = (colour) => { const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3]));
  const light = (rgb) => { const [r, g, b] = rgb.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => { const own = parsed(getComputedStyle(e).backgroundColor); return own[3] === 1 || !e.parentElement ? own : [...over(own, ground(e.parentElement)), 1]; };
  const seen = (e) => e ? getComputedStyle(e).opacity * seen(e.parentElement) : 1;
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !e.checkVisibility() || e.closest("script, noscript")) continue;
    const below = ground(e), colour = parsed(getComputedStyle(e).color);
    colour[3] *= seen(e);
    const [more, less] = [light(over(colour, below)), light(below.slice(0, 3))].sort((a, b) => b - a);
    const ratio = (more + 0.05) / (less + 0.05);
    if (ratio < 4.5) found.push(`${texts.currentNode.data.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return [...new Set(found)];
}"""
CUT = """() => [...document.querySelectorAll("td, .problem strong, .problem em, .problem small, h1")].filter((e) => !e.checkVisibility() || e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline" || e.scrollHeight > e.clientHeight + 1 && e.clientHeight).map((e) => e.textContent)"""
ENDS = """(path) => [0, path.getTotalLength()].map((at) => path.getPointAtLength(at).matrixTransform(path.getScreenCTM()).y)"""
MIDDLE = """(path) => { const p = path.getPointAtLength(path.getTotalLength() / 2).matrixTransform(path.getScreenCTM()); return [p.x, p.y]; }"""
SIDEWAYS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def small() -> Landscape:
    return planted_example()


@pytest.fixture(scope="module")
def big() -> Landscape:
    return generated()


def name_of(page: "Page", side: str, name: str) -> "Locator":
    return page.get_by_role("list", name=side).get_by_role("button", name=name, exact=True)


def focused(page: "Page") -> str:
    text: str = page.evaluate("document.activeElement.innerText || document.activeElement.id")
    return text


def relation(name: str, status: Status = Status.NOT_DECLARED) -> Relation:
    routes = (RouteAnswer(f"GET /{name}", False, "expired", name), RouteAnswer(name, True))
    return Relation(name, f"to {name}", status, (name,), (name,), routes, {"azp": name, "roles": [name]}, name, name)


# Seen at once


@pytest.mark.parametrize("size", ["small", "big"])
def test_what_is_missing_and_what_nobody_declared_is_seen_without_scrolling(
    size: str, look: Look, request: pytest.FixtureRequest
) -> None:
    landscape: Landscape = request.getfixturevalue(size)
    assert status_of(landscape, landscape.missing) is Status.NOT_GRANTED
    assert status_of(landscape, landscape.extra) is Status.NOT_DECLARED
    page = look(landscape.html)

    assert "Needs attention: 2." in page.locator("#summary").inner_text()
    cards = page.locator(".problem")
    assert [text.split("\n")[0] for text in cards.all_inner_texts()] == [
        " → ".join(pair)
        for pair in sorted((landscape.missing, landscape.extra), key=lambda pair: order(landscape, pair))
    ]
    for pair in (landscape.missing, landscape.extra):
        for shown in (
            cards.filter(has_text=" → ".join(pair)),
            name_of(page, "Callers", pair[0]),
            name_of(page, "Receivers", pair[1]),
        ):
            box = shown.bounding_box()
            assert box is not None
            assert box["y"] >= 0
            assert box["y"] + box["height"] <= 800
    usual = page.evaluate("getComputedStyle(document.querySelector('path.works')).strokeWidth")
    for kind in ("not_granted", "not_declared"):
        width, colour = page.evaluate(
            f"(() => {{ const s = getComputedStyle(document.querySelector('path.{kind}')); return [s.strokeWidth, s.stroke]; }})()"
        )
        assert float(width.removesuffix("px")) > float(usual.removesuffix("px"))
        assert colour != page.evaluate("getComputedStyle(document.querySelector('path.works')).stroke")


def order(landscape: Landscape, pair: tuple[str, str]) -> int:
    return [(each.caller, each.receiver) for each in landscape.relations].index(pair)


def test_each_line_ends_at_the_middle_of_its_names(small: Landscape, look: Look) -> None:
    page = look(small.html)
    for kind, pair in (("not_granted", small.missing), ("not_declared", small.extra)):
        ends: list[float] = page.locator(f"path.{kind}").evaluate(ENDS)
        names = [
            name_of(page, side, name).bounding_box() for side, name in zip(("Callers", "Receivers"), pair, strict=True)
        ]
        assert ends == pytest.approx([box["y"] + box["height"] / 2 for box in names if box is not None], abs=1)


def test_a_landscape_in_which_all_fits_says_so(look: Look) -> None:
    page = look(example().html)

    assert "Nothing needs attention" in page.locator("#summary").inner_text()
    assert page.locator(".problem").count() == 0


# Pointer and keyboard


def test_the_pointer_shows_the_token_of_a_name_a_card_and_a_line(small: Landscape, look: Look) -> None:
    page = look(small.html)
    detail = page.locator("#detail")
    name_of(page, "Callers", "alice").hover()
    assert '"azp": "alice"' in detail.inner_text()
    page.locator(".problem").filter(has_text="bob → charles").hover()
    assert '"azp": "bob"' in detail.inner_text()

    page.mouse.move(*page.locator("path.not_granted").evaluate(MIDDLE))
    assert "alice → charles" in detail.inner_text()
    lines = page.locator("#lines path.on").evaluate_all("(all) => all.map((path) => path.classList[0])")
    assert sorted(lines) == ["near", "not_granted"]


def test_who_has_only_a_keyboard_reaches_and_reads_all(big: Landscape, look: Look) -> None:
    page = look(big.html)
    press = page.keyboard.press
    press("Tab")
    assert focused(page) == "filter"
    kinds = page.locator("#kinds button").count()
    for _ in range(kinds + 1):
        press("Tab")
    assert focused(page).startswith(" → ".join(big.missing))
    press("Enter")
    assert "Keycloak does not grant it" in page.locator("#detail").inner_text()
    press("Tab")
    press("Tab")  # the column is one stop

    first, second = page.locator("#callers .service").all_inner_texts()[:2]
    assert focused(page) == first
    press("ArrowDown")
    assert focused(page) == second
    press("ArrowRight")
    assert focused(page) in {each.receiver for each in big.relations if each.caller == second}
    press("End")
    assert focused(page) == page.locator("#receivers .service").last.inner_text()
    partner = focused(page)
    press("Enter")
    assert set(page.locator("#rows td:nth-child(2)").all_inner_texts()) <= {
        each.receiver for each in big.relations if partner in (each.caller, each.receiver)
    }
    assert page.get_by_role("button", name=f"only {partner}: show all (Esc)").is_visible()
    press("Escape")
    assert page.locator("#rows tr").count() == len(big.relations)
    press("/")
    assert focused(page) == "filter"


def test_typing_filters_the_picture_the_cards_and_the_table(big: Landscape, look: Look) -> None:
    page = look(big.html)
    page.get_by_label("Show").press_sequentially("GEO-")

    fits = [each for each in big.relations if "geo-" in f"{each.caller} {each.receiver} {each.audiences}"]
    assert 0 < len(fits) < len(big.relations)
    assert page.locator("#rows tr").count() == len(fits)
    assert page.locator("#lines path.near").count() == len(fits)
    assert page.locator("#summary").inner_text().endswith(f"Shown: {len(fits)}.")
    assert set(page.locator("#callers .service").all_inner_texts()) == {each.caller for each in fits}
    page.get_by_label("Show").fill("no such service")
    assert page.get_by_text("Nothing fits.").is_visible()


def test_a_kind_can_be_switched_off_and_on(small: Landscape, look: Look) -> None:
    page = look(small.html)
    kind = page.get_by_role("button", name="not granted 1")
    kind.click()
    assert page.locator("#rows tr").count() == len(small.relations) - 1
    assert kind.get_attribute("aria-pressed") == "false"
    kind.click()
    assert page.locator("#rows tr").count() == len(small.relations)


def test_every_control_has_a_name_for_who_does_not_see_it(small: Landscape, look: Look) -> None:
    page = look(small.html)
    name_of(page, "Callers", "alice").click()
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    controls: list[tuple[str, str]] = [
        (node["role"]["value"], node["name"]["value"])
        for node in nodes
        if any(each["name"] == "focusable" and each["value"]["value"] for each in node.get("properties", []))
        and node["role"]["value"] != "RootWebArea"
    ]

    assert {role for role, _ in controls} == {"searchbox", "button"}
    assert [role for role, name in controls if not name.strip()] == []
    assert ("searchbox", "Show") in controls
    assert ("button", "alice") in controls


# Colours, sizes, paper


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_dark_enough_on_light_and_light_enough_on_dark(scheme: str, small: Landscape, look: Look) -> None:
    everything = [relation(str(status), status) for status in Status]
    grounds = set()
    for html in (small.html, as_html(everything, [Unanswered("shop", "ghost")])):
        page = look(html, color_scheme=scheme)
        assert page.evaluate(FAINT) == []
        page.locator("#kinds button").first.click()
        page.locator(".problem").last.click()
        page.mouse.move(0, 0)
        page.locator(":focus").blur()
        page.evaluate("Promise.all(document.getAnimations().map((each) => each.finished))")
        assert page.evaluate(FAINT) == []
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == {"rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 22, 28)"}


def test_on_paper_every_relation_is_readable_and_nothing_is_cut(big: Landscape, look: Look) -> None:
    long = as_html([relation("x" * 300), relation("notification-service")])
    for html, relations in ((big.html, len(big.relations)), (long, 2)):
        page = look(html, width=718, color_scheme="dark")
        page.emulate_media(media="print", color_scheme="dark")
        assert page.locator("#rows tr:visible").count() == relations
        assert page.evaluate(CUT) == []
        assert page.evaluate("getComputedStyle(document.querySelector('#problems')).overflow") == "visible"
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(28, 36, 48)"
        assert page.locator("#tools").is_hidden()
        assert not page.evaluate(SIDEWAYS)
        assert page.evaluate(FAINT) == []


@pytest.mark.parametrize(("width", "size"), [(390, "big"), (640, "small")], ids=["phone", "zoomed to 200 %"])
def test_a_narrow_page_is_never_scrolled_sideways(
    width: int, size: str, look: Look, request: pytest.FixtureRequest
) -> None:
    landscape: Landscape = request.getfixturevalue(size)
    for html in (landscape.html, as_html([relation("x" * 300)], [Unanswered("y" * 300, "z" * 300)], title="t" * 300)):
        page = look(html, width=width, height=640, device_scale_factor=2)
        assert not page.evaluate(SIDEWAYS)
        page.locator("#callers .service").first.click()
        assert page.locator("#detail").is_visible()
        assert not page.evaluate(SIDEWAYS)
        page.locator("#detail .close").click()
        assert page.locator("#all").is_hidden()


def test_nothing_moves_for_who_asks_for_that(small: Landscape, look: Look) -> None:
    def times(motion: str) -> set[str]:
        page = look(small.html, reduced_motion=motion)
        found: list[str] = page.evaluate(
            "[...document.querySelectorAll('*')].map((e) => getComputedStyle(e).transitionDuration)"
        )
        return set(found)

    assert times("reduce") == {"0s"}
    assert times("no-preference") != {"0s"}


# Names are text


def test_names_are_shown_as_they_are_and_do_nothing(look: Look) -> None:
    page, plain = (
        look(as_html([relation(name) for name in names], [Unanswered(name, name) for name in names], title=names[1]))
        for names in (HOSTILE, [f"shop-{number}" for number in range(len(HOSTILE))])
    )
    shown = [name.replace("\u202e", "\\u202e") for name in HOSTILE]  # what nobody sees is written as its code

    for each in (page, plain):
        each.locator(".problem").first.click()
    assert page.locator("*").count() == plain.locator("*").count()
    assert sorted(page.locator("#callers .service").all_text_contents()) == sorted(shown)
    assert sorted(page.locator("#receivers .service").all_text_contents()) == sorted(f"to {name}" for name in shown)
    rows = page.locator("#rows tr").evaluate_all("(all) => all.map((row) => [...row.cells].map((e) => e.textContent))")
    assert rows == [
        *([name, f"to {name}", f"{Status.NOT_DECLARED.label}: {name}", name, name, "1 of 2"] for name in shown),
        *([name, "", "no given app accepts this audience", name, "", ""] for name in shown),
    ]
    assert page.locator("#title").text_content() == page.title() == shown[1]
    for place, (name, given) in enumerate(zip(shown, HOSTILE, strict=True)):
        page.locator(".problem").nth(place).click()
        detail = page.locator("#detail").text_content() or ""
        assert f"GET /{name}: expired. {name}" in detail
        assert f'"azp": {json.dumps(given)}' in detail


def test_what_is_not_the_pages_own_is_stopped_by_its_policy(
    browser: "Browser", small: Landscape, tmp_path: Path
) -> None:
    foreign = (
        '<script>window.pwned = 1</script><img src="http://127.0.0.1:9/x"><p style="color: red" onclick="window.pwned = 1">'
        '<form action="http://127.0.0.1:9/"><button>send</button></form>'
    )
    path = tmp_path / "foreign.html"
    path.write_text(small.html.replace("<main>", f"<main>{foreign}"), encoding="utf-8")
    context = browser.new_context()
    seen = watched(context)
    page = opened(context, path)
    page.locator("main p").first.dispatch_event("click")
    stopped: list[Any] = seen.violations(page)
    context.close()

    kinds = {each.split(":")[0] for each in stopped}
    assert kinds >= {"script-src-elem", "img-src", "style-src-attr", "script-src-attr"}
    assert [seen.failed[url] for url in seen.requests if not url.startswith("file:")] == ["csp"]
