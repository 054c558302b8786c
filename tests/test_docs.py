"""What the README and docs/ say is what the code does: tables, code, links, names."""

import ast
import builtins
import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Self, get_args

import httpx
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from starlette.applications import Starlette
from starlette.testclient import TestClient

import s2s_fastapi
from example_app import stories
from example_app.realm import Realm as ExampleRealm
from example_app.stage import Answer
from s2s_fastapi import (
    AudienceNotGranted,
    KeycloakSettings,
    Principal,
    ServiceAuthMiddleware,
    errors,
    require_caller,
)
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.keycloak.cures import PROOF_USED, audience_cure
from s2s_fastapi.operations.admin import VARIABLES
from s2s_fastapi.testing import EmbeddedIssuer
from tests.caller.fakes import Keycloak, jwt
from tests.kit.realm import Realm

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
FIRST_STEPS = DOCS / "first-steps.md"
GUIDES = [README, *sorted(DOCS.glob("*.md"))]
PAGES = [*GUIDES, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block; its language may be followed by ``complete`` (it runs) and by the file it is an excerpt of."""

    page: Path
    line: int
    words: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def sources(self) -> list[Path]:
        return [ROOT / word for word in self.words[1:] if word.endswith(".py")]

    def run(self) -> dict[str, Any]:
        namespace: dict[str, Any] = {"__name__": self.page.stem}
        exec(compile(self.text, str(self), "exec"), namespace)  # noqa: S102 - our own documentation
        return namespace


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def blocks(page: Path, language: str) -> Iterator[Block]:
    for token in tokens(page):
        words = tuple(token.info.split())
        if token.type == "fence" and words[:1] == (language,):
            yield Block(page, (token.map or [0])[0] + 1, words, token.content)


def tables(page: Path) -> list[list[list[str]]]:
    """Return each table as its rows, each row as its cells in Markdown, without the heading."""
    found: list[list[list[str]]] = []
    inside = False
    for token in tokens(page):
        if token.type == "tbody_open":
            found.append([])
        elif token.type == "tr_open" and found:
            found[-1].append([])
        elif token.type in ("td_open", "td_close"):
            inside = token.type == "td_open"
        elif token.type == "inline" and inside:
            found[-1][-1].append(token.content)
    return [[row for row in table if row] for table in found]


def inner(page: Path, kind: str) -> Iterator[Token]:
    for token in tokens(page):
        yield from (child for child in token.children or () if child.type == kind)


def anchors(page: Path) -> set[str]:
    titles = [
        after.content
        for token, after in zip(tokens(page), tokens(page)[1:], strict=False)
        if token.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def said(page: Path) -> str:
    """Return a page with its line breaks taken for the spaces they are."""
    return " ".join(page.read_text(encoding="utf-8").split())


def plain(cell: str) -> str:
    return (cell[1:].partition("](")[0] if cell.startswith("[") else cell).strip("`")


PYTHON = [block for page in GUIDES for block in blocks(page, "python")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in inner(page, "link_open"):
        path, _, anchor = str(link.attrs["href"]).partition("#")
        if path.startswith(("https://", "http://")):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {path}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to #{anchor} of {target.name}"


def test_the_index_leads_to_every_page() -> None:
    linked = {str(link.attrs["href"]).partition("#")[0] for link in inner(DOCS / "index.md", "link_open")}

    assert linked >= {page.name for page in DOCS.glob("*.md")} - {"index.md"}


def test_every_public_name_is_explained_somewhere() -> None:
    text = " ".join(page.read_text(encoding="utf-8") for page in GUIDES)

    assert [name for name in s2s_fastapi.__all__ if not re.search(rf"\b{name}\b", text)] == []


def test_only_variables_that_exist_are_named() -> None:
    known = {f"KEYCLOAK_{name.upper()}" for name in KeycloakSettings.model_fields} | {*VARIABLES, "KEYCLOAK_ADMIN_"}

    assert {name for page in GUIDES for name in re.findall(r"\bKEYCLOAK_\w+", said(page))} == known


def test_only_make_targets_that_exist_are_named() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    spans = [token.content.split() for page in PAGES for token in inner(page, "code_inline")]

    assert {words[1] for words in spans if words[:1] == ["make"]} <= targets


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_in_the_docs_is_python(block: Block) -> None:
    compile(textwrap.dedent(block.text), str(block), "exec")


def test_every_program_of_a_page_runs_after_those_before_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.kit.programs", str(tmp_path)]  # a process, because some set up logging
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.stdout, done.returncode) == ("", 0), done.stderr


@pytest.mark.parametrize("page", sorted({block.page for block in PYTHON if "pytest" in block.words}), ids=str)
def test_the_tests_of_a_page_pass(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "python"):
        if "pytest" in block.words:
            name = block.text.partition("\n")[0].removeprefix("# ")
            (tmp_path / name).write_text(block.text, encoding="utf-8")
    for realm in (ROOT / "example_app/realms").glob("*.json"):
        shutil.copy(realm, tmp_path)

    # An installation from before the plugin existed does not name it to pytest.
    named = any(point.value == "s2s_fastapi_pytest" for point in entry_points(group="pytest11"))
    plugin = () if named else ("-p", "s2s_fastapi_pytest")

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *plugin, "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


def test_the_first_steps_show_what_the_dev_command_prints() -> None:
    (shown,) = (block.text.splitlines() for block in blocks(FIRST_STEPS, "text") if "export " in block.text)
    issuer = EmbeddedIssuer.read(ROOT / "example_app/realms/corp.json", url="http://127.0.0.1:8180")
    printed = issuer.environment("corp", "chat-app-service") | {"KEYCLOAK_CLIENT_SECRET": shown[-1].partition("=")[2]}

    assert shown == ["# corp: chat-app-service", *(f"export {name}={value}" for name, value in printed.items())]


def test_the_first_steps_have_the_commands_of_the_compose_file() -> None:
    (commands,) = (block.text.splitlines() for block in blocks(FIRST_STEPS, "sh") if "docker compose" in block.text)
    head = (ROOT / "docker-compose.yml").read_text(encoding="utf-8").partition("\nname:")[0]

    assert [command for command in commands if command.partition("  ")[0] not in head] == []


@pytest.mark.parametrize("block", [block for block in PYTHON if block.sources], ids=str)
def test_an_excerpt_holds_only_lines_of_its_file_in_their_order(block: Block) -> None:
    for source in block.sources:
        rest = iter(source.read_text(encoding="utf-8").splitlines())
        missing = [line for line in block.text.splitlines() if line.strip() and line not in rest]
        assert missing == []


@pytest.mark.parametrize("block", [block for block in PYTHON if "complete" in block.words], ids=str)
def test_a_complete_program_starts_without_a_warning(
    block: Block, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client_id = "chat-app-service" if "service_client" in block.text else "crm-api-gateway"
    app = program(block, monkeypatch, client_id, Realm())

    audience = "notification-service" if "notification-service" in block.text else "crm-api-gateway"
    with using(TokenSource(channel=Keycloak(aud=audience))), TestClient(app):
        pass

    warned = [record.message for record in caplog.records if record.name == "s2s_fastapi"]
    assert bool(warned) == ("insecure_" in block.text), warned  # such options are logged at each start


@pytest.mark.parametrize(
    "block",
    [
        block
        for block in PYTHON
        if block.page.stem in ("README", "first-steps", "protect-a-service", "call-another-service")
    ],
    ids=str,
)
def test_an_example_can_be_pasted_after_those_before_it(block: Block) -> None:
    if block.text.startswith(" "):  # the middle of a file, which the page says
        return
    before = [each for each in PYTHON if each.page == block.page and each.sources and each.sources == block.sources]
    made = {name for each in before if each.line < block.line for name in names(each.text)[0]}
    own, used = names(block.text)

    assert used - own - made - {*dir(builtins), "__name__"} == set()


def names(text: str) -> tuple[set[str], set[str]]:
    """Return the names that a program makes, and those that it reads."""
    made, used = set[str](), set[str]()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name) | ast.arg(arg=name) | ast.FunctionDef(name=name):
                made.add(name)
            case ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) | ast.ExceptHandler(name=str(name)):
                made.add(name)
            case ast.alias(name=name, asname=asname):
                made.add((asname or name).partition(".")[0])
    return made, used


def test_the_first_steps_show_what_their_gateway_logs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (shown,) = (block.text.splitlines() for block in blocks(FIRST_STEPS, "text") if "refused" in block.text)
    realm = Realm()
    with TestClient(
        program(program_of(FIRST_STEPS, "crm_gateway.py"), monkeypatch, "crm-api-gateway", realm)
    ) as client:
        for headers in ({}, {"Authorization": "Bearer nonsense"}):
            client.post("/tickets", headers=headers)
    logged = [record.message for record in caplog.records if record.name == "s2s_fastapi.decisions"]

    assert [line.startswith(said.partition("...")[0]) for line, said in zip(logged, shown, strict=True)] == [True, True]


def program(block: Block, monkeypatch: pytest.MonkeyPatch, client_id: str, realm: Realm) -> Starlette:
    for name, value in {
        "URL": "http://keycloak.test",
        "REALM": "corp",
        "CLIENT_ID": client_id,
        "CLIENT_SECRET": "s",
    }.items():
        monkeypatch.setenv(f"KEYCLOAK_{name}", value)
    app = block.run()["app"]
    assert isinstance(app, Starlette)
    for layer in app.user_middleware:
        kind: Any = layer.cls
        if kind is ServiceAuthMiddleware:
            layer.kwargs["transport"] = realm.transport
    return app


def program_of(page: Path, name: str) -> Block:
    (block,) = (block for block in blocks(page, "python") if block.sources and block.sources[0].name == name)
    return block


def test_the_gateway_of_the_readme_answers_as_its_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    realm = Realm()
    token = realm.token()
    answers = []
    with TestClient(program(program_of(README, "crm_gateway.py"), monkeypatch, "crm-api-gateway", realm)) as client:

        def ask(bearer: str) -> Any:
            headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
            return client.post("/tickets", headers=headers, json={"subject": "help"})

        assert ask(token).status_code == 201
        answers.append({told(ask(""))})
        foreign = [
            realm.token(exp=1_700_000_300, iat=1_700_000_000),
            realm.token(aud="bob"),
            realm.token(iss="http://elsewhere/realms/corp"),
            f"{token.rpartition('.')[0]}.{realm.token().rpartition('.')[2]}",
        ]
        answers.append({told(ask(bearer)) for bearer in foreign})
        answers.append({told(ask(realm.user_token(azp="chat-app-service")))})
        answers.append({told(ask(realm.token(azp="billing", client_id="billing")))})
    realm = Realm()
    realm.answer = lambda request: httpx.Response(503)
    with TestClient(program(program_of(README, "crm_gateway.py"), monkeypatch, "crm-api-gateway", realm)) as client:
        answers.append({told(ask(token))})

    assert answers == [{row[1].replace("`", "")} for row in tables(README)[0]]


def test_the_gateway_of_the_first_steps_lets_billing_list_the_tickets_of_the_chat_app(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    realm = Realm()
    app = program(program_of(FIRST_STEPS, "crm_gateway.py"), monkeypatch, "crm-api-gateway", realm)
    with TestClient(app) as client:
        for method, caller, status in (("POST", "chat-app-service", 201), ("GET", "billing", 200)):
            bearer = {"Authorization": f"Bearer {realm.token(azp=caller, client_id=caller)}"}
            answer = client.request(method, "/tickets", headers=bearer, json={"subject": "help"})
            assert answer.status_code == status

    assert answer.json() == ["help"]


def told(response: Any) -> str:
    error = re.search(r'error="(\w+)"', response.headers.get("WWW-Authenticate", ""))
    return f"{response.status_code} {error[1] if error else ''}".strip()


def test_the_chat_app_of_the_readme_does_not_start_without_the_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    app = program(program_of(README, "chat_app.py"), monkeypatch, "chat-app-service", Realm())

    with using(TokenSource(channel=Keycloak(aud="account"))), pytest.raises(AudienceNotGranted), TestClient(app):
        pass


def test_the_realm_of_the_first_steps_is_a_part_of_story_1() -> None:
    (block,) = blocks(FIRST_STEPS, "json")

    assert within(
        json.loads(block.text), json.loads((ROOT / "example_app/realms/corp.json").read_text(encoding="utf-8"))
    )


def within(part: Any, whole: Any) -> bool:
    if isinstance(part, dict):
        return all(name in whole and within(value, whole[name]) for name, value in part.items())
    if isinstance(part, list):
        return all(any(within(member, other) for other in whole) for member in part)
    return bool(part == whole)


def test_every_setting_is_in_the_table_with_its_default() -> None:
    rows = next(table for table in tables(DOCS / "settings.md") if table[0][0] == "`KEYCLOAK_URL`")

    assert [plain(name) for name, _, _ in rows] == [
        f"KEYCLOAK_{name.upper()}" for name in KeycloakSettings.model_fields
    ]
    for (name, meaning, cell), field in zip(rows, KeycloakSettings.model_fields.values(), strict=True):
        default = field.default
        if default in ("", None, ()):  # nothing, or another variable's value
            assert not cell.startswith("`") or cell.startswith("`KEYCLOAK_"), name
        else:
            written = str(default).lower() if isinstance(default, bool) else default
            assert plain(cell) == (f"{default:g}" if isinstance(default, float) else written), name
        for choice in get_args(field.annotation):
            assert not isinstance(choice, str) or f"`{choice}`" in meaning, name


def test_what_the_settings_derive_is_what_the_table_says() -> None:
    alone = KeycloakSettings(url="https://sso", realm="corp", client_id="crm")
    issuer = KeycloakSettings(issuer="https://sso/auth/realms/corp", auth_path="/auth")
    other = KeycloakSettings(url="http://keycloak:8080", public_url="https://sso", realm="corp")

    assert (alone.issuer, alone.audiences) == ("https://sso/realms/corp", frozenset({"crm"}))
    assert (issuer.server, issuer.realm) == ("https://sso/auth", "corp")
    assert (other.server, other.issuer) == ("http://keycloak:8080", "https://sso/realms/corp")


def test_every_reason_is_in_the_table_with_its_answer() -> None:
    rows = tables(DOCS / "errors.md")[0]

    assert [(plain(row[0]), row[1], plain(row[2])) for row in rows] == [
        (str(reason), str(reason.status), reason.error) for reason in Reason
    ]
    assert all(meaning and cure for *_, meaning, cure in rows)


def test_every_error_class_is_in_the_table_with_its_code() -> None:
    rows = {plain(row[0]): row for row in tables(DOCS / "errors.md")[1]}
    kinds: dict[str, type[errors.S2SError]] = {name: getattr(errors, name) for name in errors.__all__}

    assert rows.keys() == kinds.keys()
    for name, kind in kinds.items():
        code, status = rows[name][1:3]
        refusal = name in ("AuthenticationError", "AuthorizationError")
        assert plain(code) == ("the reason" if refusal else kind.code)
        assert status.endswith(str(getattr(kind, "status", ""))), name


REPLAYED = Principal(
    client_id="alice", kind="service", issuer="i", issued_at=1, expires_at=2, audiences=frozenset({"bob"})
)
UNASSIGNED = Principal(
    client_id="chat-app-unassigned",
    kind="service",
    issuer="i",
    issued_at=1,
    expires_at=2,
    audiences=frozenset({"account"}),
)
USER = Principal(client_id="shop-api", kind="user", issuer="i", issued_at=1, expires_at=2)


def wrong_audience(principal: Principal, service: str) -> Decision:
    """Return the refusal of a service that knows its name from KEYCLOAK_CLIENT_ID."""
    return Decision(reason=Reason.WRONG_AUDIENCE, cure=audience_cure(principal, [service], "KEYCLOAK_CLIENT_ID"))


@pytest.mark.parametrize(
    ("story", "decision"),
    [
        ("1-chat-to-crm", wrong_audience(UNASSIGNED, "crm-api-gateway")),
        ("2-shop-to-notifications", require_caller("shop-api").judge(USER)),
        ("3-alice-bob-charles", wrong_audience(REPLAYED, "charles")),
        ("5-a-stolen-token", Decision(reason=Reason.PROOF_REPLAYED, cure=PROOF_USED)),
    ],
)
def test_a_story_shows_the_line_that_the_operator_reads(story: str, decision: Decision) -> None:
    page = said(DOCS / f"story-{story}.md")

    assert f"refused {decision.status}: {decision.reason} method='POST'" in page
    assert f"cure={decision.cure!r}" in page


@pytest.mark.parametrize(
    ("story", "page"),
    [
        ("corp", "story-1-chat-to-crm"),
        ("techstore", "story-2-shop-to-notifications"),
        ("abc", "story-3-alice-bob-charles"),
        ("workshop", "story-4-an-agent-and-its-tools"),
        ("vault", "story-5-a-stolen-token"),
    ],
)
def test_a_storys_table_has_the_lines_that_are_played(story: str, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stories, "Stage", EmptyStage)
    realm = ScriptedRealm(story, "http://keycloak.test", "http://keycloak.test", "", {})

    played = [
        (line.what, line.token.partition(", aud [")[0], line.status, line.reason or "none")
        for line in stories.STORIES[story](realm)
    ]

    assert len(played) == stories.LINES[story]
    assert [
        (what, token.partition(", for ")[0], int(status.removeprefix("exit ")), plain(reason))
        for what, token, status, reason in tables(DOCS / f"{page}.md")[0]
    ] == played


class ScriptedRealm(ExampleRealm):
    """Gives tokens that say who asked."""

    def ask(self, **form: str) -> httpx.Response:
        return httpx.Response(401)

    def environment(self, client_id: str) -> dict[str, str]:
        return {}

    def service_token(self, client_id: str, scope: str | None = None) -> str:
        return jwt(azp=client_id)

    def user_token(self, username: str, *, via: str, scope: str | None = None) -> str:
        return jwt(azp=via, sid="s")


class EmptyStage:
    """Plays nothing: a story is read for what it expects, not for what is seen."""

    log = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getitem__(self, name: str) -> "EmptyService":
        return EmptyService()

    def add(self, *_: object, **__: object) -> "EmptyService":
        return EmptyService()

    def wait(self) -> None:
        pass

    def run(self, *_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, "", "")

    def ask(self, *_: object, **__: object) -> Answer:
        return Answer(0, "", "")

    use_tool = use_session = ask

    def kept(self, *_: object) -> dict[str, str]:
        return {"authorization": f"DPoP {jwt(azp='alice', cnf={})}", "dpop": "proof"}


class EmptyService:
    log = ""

    def forget(self) -> None:
        pass

    def join(self) -> int:
        return 0

    def decision(self, *, seconds: float = 0.0) -> tuple[str, str]:
        return "", ""

    def ask(self, *_: object) -> httpx.Response:
        return httpx.Response(200, text="")
