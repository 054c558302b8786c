"""``access`` as a command: what apps declare, read without an administrator's credentials; and access files against a realm file."""

import json
import os
import select
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from s2s_fastapi import require_caller, require_scope, require_service
from s2s_fastapi.cli.commands import command_line
from s2s_fastapi.declared.access_file import AccessFile
from s2s_fastapi.operations.app_processes import NO_SERVER, AppTarget, read_apps
from s2s_fastapi.operations.declared_app import declared_by
from tests.cli.command import run
from tests.kit.declaring import caller, receiver
from tests.operations.schemas import valid

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = "example_app.crm_gateway:app=crm-api-gateway"
APP = """
import os
from pathlib import Path
from fastapi import Depends, FastAPI
from s2s_fastapi import ServiceAuthMiddleware, require_caller
Path("seen.txt").write_text("\\n".join(os.environ))
print("what the app prints")
def make():
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware)
    app.get("/[red]x", dependencies=[Depends(require_caller("[link=x]a"))])(lambda: None)
    return app
"""


def test_apps_are_read_and_shown_as_a_table(tmp_path: Path) -> None:
    out = tmp_path / "access.json"
    done = run("access", GATEWAY, "example_app.alice:app=alice", PYTHONPATH=str(ROOT), COLUMNS="40")
    written = run("access", GATEWAY, "example_app.alice:app=alice", "--out", out, PYTHONPATH=str(ROOT))

    assert done.returncode == written.returncode == 0, done.stderr
    (get,) = (line for line in done.stdout.splitlines() if "GET /tickets" in line)
    assert (
        'app: require_audience("crm-api-gateway") & require_service() / route: require_caller("billing", "chat-app-service")'
        in get
    )
    (post,) = (line for line in done.stdout.splitlines() if "POST /tickets" in line)
    assert post.count("require_audience") == 1  # the app and the route require it
    assert post.rstrip(" │|").endswith('/ route: require_caller("chat-app-service")')
    assert "charles, scope charles-audience at http://localhost:8006" in done.stdout
    apps = {app.client_id: app for app in AccessFile.read(out).apps}
    assert {call.audiences for call in apps["alice"].calls} == {("bob",), ("charles",)}
    assert apps["alice"].requires is None
    assert apps["crm-api-gateway"].requires is not None


@pytest.mark.parametrize("variable", ["KEYCLOAK_ADMIN_CLIENT_SECRET", "KEYCLOAK_ADMIN", "KC_BOOTSTRAP_ADMIN_PASSWORD"])
def test_no_app_is_imported_while_an_administrators_variable_is_set(variable: str, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(APP.replace("seen.txt", str(tmp_path / "seen.txt")))
    done = run("access", "odd:make()=odd", PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}", **{variable: "s3cr3t"})

    assert done.returncode == 2
    assert done.stderr.startswith(f"Unset {variable}: ")
    assert "s3cr3t" not in done.stderr
    assert not (tmp_path / "seen.txt").exists()


def test_what_an_app_prints_and_its_names_are_text(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(APP)
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        done = run("access", "odd:make()=odd", PYTHONPATH=str(ROOT), KEPT="x")
    finally:
        os.chdir(here)

    assert done.returncode == 0, done.stderr
    seen = (tmp_path / "seen.txt").read_text().split()
    assert "KEPT" in seen
    assert "KEYCLOAK_CLIENT_ID" in seen
    assert "GET /[red]x" in done.stdout
    assert "[link=x]a" in done.stdout
    assert "what the app prints" not in done.stdout


def test_an_app_that_cannot_be_read_is_a_sentence_and_the_others_are_read(tmp_path: Path) -> None:
    done = run("access", "nowhere:app", GATEWAY, "example_app.bob:app", "--json", PYTHONPATH=str(ROOT))

    assert done.returncode == 2
    assert "The app nowhere:app cannot be imported: there is no module nowhere." in done.stderr
    assert "KEYCLOAK_CLIENT_ID" in done.stderr  # bob's own start check
    assert "Traceback" not in done.stderr
    assert [app["client_id"] for app in json.loads(done.stdout)["apps"]] == ["crm-api-gateway"]


def test_an_app_that_ends_its_process_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "ending.py").write_text("import os\nos._exit(3)\n")
    (read,) = read_apps([AppTarget("ending:app", "x")], {**os.environ, "PYTHONPATH": str(tmp_path)})

    assert read.access is None
    assert read.problem == "The process that imported the app ending:app ended with 3 and said nothing."


WRITTEN_BY_ANOTHER = """
import json, os, signal
os.write(1 if os.readlink("/dev/fd/1").endswith("(deleted)") else next(fd for fd in range(3, 64) if os.path.lexists(f"/dev/fd/{fd}") and os.readlink(f"/dev/fd/{fd}").endswith("(deleted)")), os.environ["SAID"].encode())
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_stands_in_the_answer_of_a_process_that_was_stopped_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "stopped.py").write_text(WRITTEN_BY_ANOTHER)
    said = json.dumps({"problem": "", "access": AccessFile((caller("mine", "bob"),)).text})
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "SAID": said}
    (read,) = read_apps([AppTarget("stopped:app", "mine")], environment)

    assert read.access is None
    assert read.problem.endswith("ended with -9, so what it said does not count.")


WAITING = """
import os
with open("/proc/self/stat") as file:
    parent = file.read().rsplit(")", 1)[1].split()[1]
with open(f"/proc/{parent}/task/{parent}/children") as file:
    beside = file.read().split()
def command(pid):  # other tests of this worker may have left children of other kinds
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read().split("\\0")[:3]
raise SystemExit if [pid for pid in beside if command(pid) == command(os.getpid())] == [str(os.getpid())] else RuntimeError
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux lists the children of a process")
def test_no_app_is_imported_beside_another_one(tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    first, second = read_apps([AppTarget("waiting:a", "a"), AppTarget("waiting:b", "b")], environment)

    assert "SystemExit" in first.problem
    assert "SystemExit" in second.problem


LYING = """
import json, os, sys
answer = next(fd for fd in range(3, 64) if os.path.exists(os.path.dirname(path := f"/dev/fd/{fd}")) and os.path.lexists(path) and os.readlink(path).endswith("(deleted)"))
os.write(answer, os.environ["SAID"].encode() * int(os.environ.get("TIMES", "1")))
os._exit(0)
"""


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (
            json.dumps({"problem": "", "access": AccessFile((caller("other", "bob"),)).text}),
            "another client declares: other",
        ),
        (json.dumps({"problem": "", "access": "{}"}), "said something else"),
        (json.dumps({"problem": ""}), "said something else"),
        ("[]", "said something else"),
        ("nonsense", "said something else"),
    ],
)
def test_an_app_that_answers_for_another_client_or_with_nonsense_is_a_sentence(
    said: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "lying.py").write_text(LYING)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "SAID": said}
    lying, other = read_apps([AppTarget("lying:app", "mine"), AppTarget.of(GATEWAY)], environment)

    assert lying.access is None
    assert problem in lying.problem
    assert other.access is not None


def test_an_answer_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "lying.py").write_text(LYING)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "SAID": " " * 1024, "TIMES": "16385"}
    (lying,) = read_apps([AppTarget("lying:app", "mine")], environment)

    assert lying.access is None
    assert lying.problem.endswith("said more than 16777216 bytes.")


def test_an_app_that_takes_too_long_is_a_sentence() -> None:
    (late,) = read_apps([AppTarget.of(GATEWAY)], seconds=0.05)

    assert late.problem.endswith("was not imported within 0.05 s.")


STARTING = """
import os, subprocess, sys
from fastapi import FastAPI
from s2s_fastapi import ServiceAuthMiddleware, require_service
app = FastAPI(dependencies=[])
app.add_middleware(ServiceAuthMiddleware)
started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
with open(os.environ["PID_FILE"], "w") as file:
    file.write(str(started.pid))
"""


def test_a_process_that_an_app_starts_is_not_waited_for_and_ends_with_it(tmp_path: Path) -> None:
    (tmp_path / "starting.py").write_text(STARTING)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
        "PID_FILE": str(tmp_path / "pid"),
    }
    (read,) = read_apps([AppTarget("starting:app", "mine")], environment)

    assert read.problem == ""
    try:
        ended = os.pidfd_open(int((tmp_path / "pid").read_text()))
    except ProcessLookupError:
        return
    assert select.select([ended], [], [], 10)[0], "it still runs"


def test_what_an_app_says_of_its_own_problem_does_not_change_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "lying.py").write_text(LYING)
    said = json.dumps({"problem": "a\x1b[31mb\nc", "access": ""})
    done = run("access", "lying:app", PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}", SAID=said)

    assert done.returncode == 2
    assert done.stderr == "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}c\n"


FACTORY = """
from fastapi import Depends, FastAPI
from s2s_fastapi import require_caller
def create_app():
    app = FastAPI(openapi_url=None)
    app.get("/tickets", dependencies=[Depends(require_caller("chat"))])(lambda: None)
    return app
async def plain(scope, receive, send):
    pass
"""


def test_a_function_that_makes_an_app_is_not_taken_for_the_app(tmp_path: Path) -> None:
    (tmp_path / "fac.py").write_text(FACTORY)
    out = tmp_path / "access.json"
    done = run("access", "fac:create_app=fac", "--out", out, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}")
    plain = run("access", "fac:plain=fac", PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}")

    assert done.returncode == 2
    assert "If it makes the app and does nothing else, write fac:create_app(): then it is run." in done.stderr
    assert not out.exists()
    assert plain.returncode == 0


def test_a_route_that_answers_500_because_there_is_no_middleware_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "fac.py").write_text(FACTORY)
    done = run("access", "fac:create_app()=fac", PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}")

    assert done.returncode == 0
    assert 'nobody: no ServiceAuthMiddleware, so it answers 500; the route: require_caller("chat")' in done.stdout
    assert (
        'fac: The app has no ServiceAuthMiddleware, so these routes, which require a caller, answer 500: "GET /tickets".'
        in done.stderr
    )


def test_what_is_no_app_is_refused_before_anything_is_imported() -> None:
    for name in ("crm_gateway", "=x", "a:b="):
        done = in_process("access", name)
        assert done.exit_code == 2
        assert "module:app" in done.stderr


def in_process(*arguments: object) -> Result:
    return CliRunner().invoke(command_line(), list(map(str, arguments)), catch_exceptions=False)


def realm_file(folder: Path, name: str = "realm", *, bob: str = "bob", more: tuple[str, ...] = ()) -> Path:
    scope = {
        "name": "bob-audience",
        "protocol": "openid-connect",
        "protocolMappers": [
            {
                "name": "m",
                "protocol": "openid-connect",
                "protocolMapper": "oidc-audience-mapper",
                "config": {"included.client.audience": bob, "access.token.claim": "true"},
            }
        ],
    }
    clients = [
        {
            "clientId": name,
            "serviceAccountsEnabled": True,
            "fullScopeAllowed": False,
            "defaultClientScopes": ["bob-audience"],
        }
        for name in ("alice", *more)
    ]
    file = folder / f"{name}.json"
    client_id = {"name": "c", "protocol": "openid-connect", "protocolMapper": "oidc-usersessionmodel-note-mapper"}
    service = {
        **scope,
        "name": "service_account",
        "protocolMappers": [
            {
                **client_id,
                "config": {"user.session.note": "client_id", "claim.name": "client_id", "access.token.claim": "true"},
            }
        ],
    }
    file.write_text(
        json.dumps(
            {
                "realm": "abc",
                "enabled": True,
                "clients": [*clients, {"clientId": "bob"}],
                "clientScopes": [scope, service],
            }
        )
    )
    return file


def test_access_files_that_fit_a_realm_file_end_with_0(tmp_path: Path) -> None:
    file = tmp_path / "access.json"
    file.write_text(AccessFile((receiver("bob", require_caller("alice")), caller("alice", "bob"))).text)
    done = in_process("access", "check", file, "--realm-file", realm_file(tmp_path))

    assert done.exit_code == 0, done.output
    assert "Every declared call is granted" in done.stdout


def test_a_realm_file_is_compared_with_what_callers_of_the_first_realm_need(tmp_path: Path) -> None:
    shops = "https://sso.partner.test/realms/shops"
    file = tmp_path / "access.json"
    bob = receiver("bob", require_caller("alice") | require_caller("carol", realm=shops))
    file.write_text(AccessFile((bob, caller("alice", "bob"))).text)
    done = in_process("access", "check", file, "--realm-file", realm_file(tmp_path))

    assert done.exit_code == 0, done.output
    assert f"bob also accepts callers of {shops}: they are not looked at here." in done.stderr


def test_each_way_in_which_they_do_not_fit_is_a_finding(tmp_path: Path) -> None:
    bob, alice = receiver("bob", require_caller("alice")), caller("alice", "bob")
    right = realm_file(tmp_path)
    exporting = receiver("bob", require_caller("alice"), require_caller("alice") & require_scope("bob:export"))
    cases = {
        "its token is not for bob": ((bob, alice), realm_file(tmp_path, "other", bob="other")),
        "none of the access files is of an app that answers to bob": ((alice,), right),
        "no route of bob accepts its token": ((receiver("bob", require_caller("carol")), alice), right),
        "Keycloak refuses the token request: invalid_scope": ((bob, caller("alice", "bob", scope="absent")), right),
        "mallory gets the audience bob in every token, and no access file declares that it calls it": (
            (bob, alice),
            realm_file(tmp_path, "more", more=("mallory",)),
        ),
        "1 of 2 routes that name this caller refuses it: POST /1 (scope_missing)": ((exporting, alice), right),
        "alice gets the audience bob in every token": ((receiver("bob", require_service()), caller("alice")), right),
    }
    file = tmp_path / "access.json"
    for said, (apps, realm) in cases.items():
        file.write_text(AccessFile(apps).text)
        done = in_process("access", "check", file, "--realm-file", realm, "--json")
        assert done.exit_code == 1, said
        assert said in "\n".join(each["text"] for each in valid(done.stdout, "access-check")["findings"])


def test_a_finding_is_not_called_open_beside_the_name_of_a_route(tmp_path: Path) -> None:
    file = tmp_path / "access.json"
    file.write_text(AccessFile((caller("alice", "bob"),)).text)

    assert in_process("access", "check", file, "--realm-file", realm_file(tmp_path)).stdout.startswith("problem: alice")


def test_two_files_of_one_client_are_refused(tmp_path: Path) -> None:
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for path, allowed in zip(files, ("alice", "mallory"), strict=True):
        path.write_text(AccessFile((receiver("bob", require_caller(allowed)),)).text)
    realm = realm_file(tmp_path)
    for command in (("access", "check", *files), ("graph", *files)):
        done = in_process(*command, "--realm-file", realm)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "Several apps have the client id bob" in done.stderr


def test_a_check_without_a_realm_file_is_refused(tmp_path: Path) -> None:
    assert (
        "access check ACCESS.json... --realm-file realm.json"
        in in_process("access", "check", tmp_path / "a.json").stderr
    )
    assert "--realm-file belongs to" in in_process("access", GATEWAY, "--realm-file", tmp_path / "a.json").stderr


PARTNERS = """
from fastapi import FastAPI
from s2s_fastapi import KeycloakSettings, service_client, service_lifespan
techstore = KeycloakSettings(url="https://sso.techstore.example", realm="techstore", client_id="shop-api", client_secret="{secret}")
notes = service_client("https://notes.example", audience="notification-service", settings=techstore)
app = FastAPI(lifespan=service_lifespan(notes))
"""
CRM = 'crm = service_client("https://crm.example", audience="crm-api-gateway")'
UNKNOWN = {"KEYCLOAK_URL": NO_SERVER, "KEYCLOAK_REALM": "unknown"}
CORP = {"KEYCLOAK_URL": "https://sso.corp.example", "KEYCLOAK_REALM": "corp"}


@pytest.mark.parametrize(
    ("code", "client_id", "known", "calls"),
    [
        (PARTNERS + CRM, "shop-api", CORP, [("crm-api-gateway",)]),  # a client of this name is in both realms
        (PARTNERS + CRM, "shop-api", UNKNOWN, [("crm-api-gateway",)]),
        (PARTNERS, "chat-app-service", UNKNOWN, []),
        (PARTNERS, "shop-api", CORP, []),
        (PARTNERS, "shop-api", UNKNOWN, [("notification-service",)]),  # it has no other realm
    ],
)
def test_an_access_file_has_the_calls_of_its_client_in_its_realm(
    folder: Path, code: str, client_id: str, known: dict[str, str], calls: list[tuple[str, ...]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in known.items():
            patch.setenv(name, value)
        read = declared_by(f"{partner_app(folder, code)}:app", client_id)
    assert [call.audiences for call in read.calls] == calls


def test_a_call_with_settings_of_another_realm_is_named_because_no_plan_grants_it(
    folder: Path,
) -> None:
    module = partner_app(folder, PARTNERS + CRM)
    path = f"{ROOT}{os.pathsep}{folder}"
    done = run("access", f"{module}:app=chat-app-service", "--json", PYTHONPATH=path, **CORP)

    assert done.returncode == 0, done.stderr
    assert "notification-service" not in done.stdout
    assert done.stderr == (
        "chat-app-service calls notification-service with settings of its own, as the client shop-api of"
        " https://sso.techstore.example/realms/techstore: this call is not in the access file, and no plan grants it.\n"
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which modules are imported."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def partner_app(folder: Path, code: str) -> str:
    """Write a module with an app that calls as a client of another realm, and return its name."""
    name = f"partner_app_{folder.name}"
    (folder / f"{name}.py").write_text(code.replace("{secret}", os.urandom(16).hex()))
    return name
