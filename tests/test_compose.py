"""docker-compose.yml, as far as it can be checked without a container: the schema, and what the schema misses."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from example_app.env import FOR_SERVICES, secret_files
from example_app.realm import REALMS, fresh_secrets
from example_app.stage import Stage, free_port
from s2s_fastapi import KeycloakSettings
from s2s_fastapi.testing import EmbeddedIssuer
from tests.kit.compose import BUILT, FILE, PROFILE, SECRETS, SWITCHES, VARIABLE, mounted, on_this_machine, services
from tests.kit.otlp import Collector, Span, kept, rendered
from tests.test_docs import blocks
from tests.test_observability_page import PAGE, SPANS, listed

ROOT = FILE.parent
SERVICES = services(SECRETS)
WITH_GRAFANA = services(SECRETS, PROFILE)
PORTS = {"keycloak": 8080, "crm-gateway": 8001, "chat-app": 8002, "shop-api": 8003, "notification-service": 8004}
OURS = sorted(set(PORTS) - {"keycloak"})
(DRAWN,) = (block.text.splitlines() for block in blocks(PAGE, "text") if block.text.startswith("shop-api: "))
TREE = [line for line in DRAWN if not line.strip().startswith("keycloak: ")]
ROWS = {name: set(listed(row[3])) for row in SPANS for name in listed(row[0]) or [row[0]]}


def test_it_follows_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_the_services_and_their_ports_are_the_ones_that_are_promised_and_on_this_machine_only() -> None:
    published = {name: service["ports"] for name, service in WITH_GRAFANA.items()}
    promised = {**{name: [port] for name, port in PORTS.items()}, "grafana": [3000, 4318]}

    assert published == {name: [f"127.0.0.1:{port}:{port}" for port in ports] for name, ports in promised.items()}


def test_every_service_has_a_health_check_and_limits_and_is_started_again() -> None:
    for name, service in WITH_GRAFANA.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["healthcheck"]["retries"] > 1
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
        assert 100 < service["pids_limit"] <= 2048
        assert service["restart"] == "unless-stopped"
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_keycloak_has_four_minutes_to_start() -> None:
    assert SERVICES["keycloak"]["healthcheck"]["start_period"] == "240s"


def test_our_services_and_keycloak_have_no_capability_and_our_services_write_nowhere_but_to_tmp() -> None:
    assert all(SERVICES[name]["cap_drop"] == ["ALL"] and "cap_add" not in SERVICES[name] for name in PORTS)
    for name in OURS:
        assert SERVICES[name]["read_only"] is True
        assert [mount.partition(":")[0] for mount in SERVICES[name]["tmpfs"]] == ["/tmp"]  # noqa: S108 - the container's


def test_the_container_that_runs_as_root_has_no_capability_of_the_network_or_of_devices() -> None:
    grafana = WITH_GRAFANA["grafana"]

    assert grafana["cap_drop"] == ["ALL"]
    assert set(grafana["cap_add"]) == {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"}


def test_one_service_builds_the_image_and_nobody_fetches_one_of_that_name() -> None:
    built = {name: service["pull_policy"] for name, service in SERVICES.items() if service["image"] == BUILT}

    assert built == dict.fromkeys(OURS, "never") | {"crm-gateway": "build"}
    assert [name for name, service in SERVICES.items() if "build" in service] == ["crm-gateway"]


def test_whom_a_service_waits_for_exists_and_can_be_healthy() -> None:
    for service in WITH_GRAFANA.values():
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in WITH_GRAFANA[other]


def test_every_service_waits_for_keycloak_and_for_whom_it_calls() -> None:
    assert all("keycloak" in SERVICES[name]["depends_on"] for name in OURS)
    assert "crm-gateway" in SERVICES["chat-app"]["depends_on"]
    assert "notification-service" in SERVICES["shop-api"]["depends_on"]


def test_durations_are_durations() -> None:
    for service in WITH_GRAFANA.values():
        for name in ("interval", "timeout", "start_period"):
            assert re.fullmatch(r"\d+(ms|s|m)", service["healthcheck"].get(name, "1s"))


def test_what_is_mounted_and_built_from_is_there() -> None:
    for volume in SERVICES["keycloak"]["volumes"]:
        assert (ROOT / volume.split(":")[0]).is_dir()
    for volume in WITH_GRAFANA["grafana"]["volumes"]:
        assert (ROOT / volume.split(":")[0]).exists()
    build = SERVICES["crm-gateway"]["build"]
    assert (ROOT / build["context"] / build["dockerfile"]).is_file()


def test_the_image_copies_only_what_is_there() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "example_app" / "Dockerfile").read_text(), re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()

    for name in " ".join(copied).split():
        assert (ROOT / name.removeprefix("./")).exists()
        assert f"!{name.removeprefix('./')}" in ignored


def test_the_image_copies_all_that_its_wheel_is_built_from() -> None:
    before = (ROOT / "example_app" / "Dockerfile").read_text().partition("RUN pip")[0]
    copied = " ".join(re.findall(r"^COPY (.+) \S+$", before, re.MULTILINE)).split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    hatch = project["tool"]["hatch"]
    wheel = hatch["build"]["targets"]["wheel"]
    readme = {part["path"] for part in hatch["metadata"]["hooks"]["fancy-pypi-readme"]["fragments"]}

    needed = {*wheel["packages"], *wheel["force-include"], "pyproject.toml", "constraints.txt", *readme}
    assert needed | {*project["project"]["license-files"]} == set(copied)


def test_the_image_has_only_packages_in_the_versions_of_the_constraints() -> None:
    text = (ROOT / "example_app" / "Dockerfile").read_text().replace("\\\n", "")
    installs = re.findall(r"pip install ([^&\n]+)", text)

    assert len(installs) == text.count("pip install") > 0
    assert all("-c constraints.txt" in install for install in installs)
    assert "--no-build-isolation" in next(install for install in installs if "'." in install)


@pytest.mark.parametrize("name", OURS)
def test_a_services_environment_is_whole(name: str) -> None:
    environment = SERVICES[name]["environment"]
    settings = {
        variable.removeprefix("KEYCLOAK_").lower(): value
        for variable, value in environment.items()
        if variable.startswith("KEYCLOAK_")
    }

    there = KeycloakSettings(**settings)

    assert there.realm in REALMS
    assert f'"clientId": "{there.client_id}"' in REALMS[there.realm].read_text(encoding="utf-8")
    assert there.issuer == f"http://localhost:8080/realms/{there.realm}"
    assert there.server == "http://keycloak:8080"  # not what stands in iss
    command = SERVICES[name]["command"]
    assert command[0] == "uvicorn"
    assert (ROOT / command[1].partition(":")[0].replace(".", "/")).with_suffix(".py").is_file()
    assert command[command.index("--port") + 1] == str(PORTS[name])
    assert SERVICES[name]["healthcheck"]["test"][-1] == str(PORTS[name])
    for variable, value in environment.items():
        if variable.endswith("_URL") and not variable.startswith("KEYCLOAK_"):
            host, _, port = value.removeprefix("http://").partition(":")
            assert PORTS[host] == int(port)


def made(folder: Path) -> dict[str, str]:
    """Run `make env` in a folder with the files that it needs and a Python that has no packages, and return what .env says."""
    for name in ("Makefile", "example_app/__init__.py", "example_app/env.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "example_app" / "realms", folder / "example_app" / "realms", dirs_exist_ok=True)
    command = ["make", "env", f"PYTHON={sys.executable} -E -S"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())


def test_every_secret_that_is_used_is_made_by_make_env(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    values = made(tmp_path)
    again = made(tmp_path)  # the second time it leaves the file alone

    used = {found[1]: found[2] for found in VARIABLE.finditer(FILE.read_text(encoding="utf-8"))}
    assert {name for name, how in used.items() if how != "-"} <= set(values)
    assert {name for name, how in used.items() if how == "-"} <= SWITCHES
    assert again == values
    assert "${" not in json.dumps(services(values, PROFILE))
    assert set(fresh_secrets()) <= set(values)
    assert all(len(value) >= 20 for value in values.values())
    assert file.stat().st_mode & 0o077 == 0


def test_a_services_secret_is_a_file_that_only_its_container_and_its_owner_reach(tmp_path: Path) -> None:
    values = made(tmp_path)
    (tmp_path / ".env.d" / "SHOP_API_SECRET").unlink()  # as after `git pull`, from the time when .env was all
    made(tmp_path)
    declared = yaml.safe_load(FILE.read_text(encoding="utf-8"))["secrets"]

    assert {secret["file"] for secret in declared.values()} == {f".env.d/{name}" for name in FOR_SERVICES}
    assert (tmp_path / ".env.d").stat().st_mode & 0o077 == 0  # on the host nobody else comes to the files in it
    for secret in declared.values():
        file = tmp_path / secret["file"]
        assert file.read_text(encoding="utf-8") == values[file.name]
        assert file.stat().st_mode & 0o777 == 0o644  # the user of the container is another one
    for name, client in (("chat-app", "CHAT_APP_SERVICE_SECRET"), ("shop-api", "SHOP_API_SECRET")):
        (used,) = SERVICES[name]["secrets"]
        assert SERVICES[name]["environment"]["KEYCLOAK_CLIENT_SECRET_FILE"] == f"/run/secrets/{used}"
        assert declared[used]["file"] == f".env.d/{client}"
    assert not [name for name in OURS if "secret" in SERVICES[name]["environment"].values()]


def test_make_env_says_so_if_a_secret_is_missing_in_the_file_that_is_there(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KEYCLOAK_ADMIN_PASSWORD=secret\nSHOP_API_SECRET=secret\n", encoding="utf-8")
    command = [sys.executable, "-m", "example_app.env", str(tmp_path / ".env")]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (1, "CHAT_APP_SERVICE_SECRET missing: remove the file for fresh secrets\n")


@pytest.mark.parametrize("value", ["'ab'", '"ab"', "a b", "a#b", "a$b", "ab ", "a\\b"])
def test_make_env_refuses_a_secret_that_docker_compose_would_change(value: str, tmp_path: Path) -> None:
    values = dict.fromkeys(FOR_SERVICES, "aZ09_.~+/=:@%,-")
    secret_files(tmp_path / "right", values)

    with pytest.raises(SystemExit, match=f"{FOR_SERVICES[1]} may have only letters"):
        secret_files(tmp_path / "wrong", values | {FOR_SERVICES[1]: value})

    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("link", [".", FOR_SERVICES[0]])
def test_make_env_writes_no_secret_through_a_link(link: str, tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / ".env.d"
    elsewhere.mkdir()
    folder.joinpath(link).parent.mkdir(exist_ok=True)
    folder.joinpath(link).symlink_to(elsewhere if link == "." else elsewhere / "secret")

    with pytest.raises(SystemExit, match="is a link: remove it"):
        secret_files(folder, dict.fromkeys(FOR_SERVICES, "secret"))

    assert not list(elsewhere.iterdir())


def test_make_down_ends_the_profile_too() -> None:
    done = subprocess.run(["make", "-n", "down"], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == f"docker compose --profile {PROFILE} down --remove-orphans"


def test_the_file_with_the_secrets_is_never_committed() -> None:
    assert ".env*" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()

    if (ROOT / ".git").exists():  # not in a source archive
        tracked = subprocess.run(["git", "ls-files", ".env"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert tracked.stdout == ""


def test_without_a_profile_nothing_observes_and_nothing_exports() -> None:
    assert set(WITH_GRAFANA) - set(SERVICES) == {"grafana"}
    for name in OURS:
        assert SERVICES[name]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == ""
        assert SERVICES[name]["environment"]["OTEL_SERVICE_NAME"] == name
    # Keycloak 26.7.3 warns of each one that it does not use, and does not start with an empty one.
    assert [name for name in SERVICES["keycloak"]["environment"] if name.startswith("KC_TRACING_")] == []


def test_the_image_that_observes_is_pinned() -> None:
    assert re.fullmatch(r"grafana/otel-lgtm:\d+\.\d+\.\d+", WITH_GRAFANA["grafana"]["image"])
    assert "otel" in re.findall(r"\.\[(\w+)\]", (ROOT / "example_app" / "Dockerfile").read_text())[0]


def test_the_container_that_observes_has_the_alerts_and_the_dashboard() -> None:
    inside = {there: ROOT / here for here, there, _ in (v.split(":") for v in WITH_GRAFANA["grafana"]["volumes"])}
    prometheus, provider = (
        yaml.safe_load(file.read_text(encoding="utf-8")) for file in inside.values() if file.is_file()
    )

    named = [*prometheus["rule_files"], *(one["options"]["path"] for one in provider["providers"])]
    assert [inside[str(Path(name).parent)] / Path(name).name for name in named] == [
        ROOT / "docs/operate/alerts.yml",
        ROOT / "docs/operate/dashboard.json",
    ]
    assert "/otel-lgtm/prometheus.yaml" in inside  # where the image has its own


@contextmanager
def story_2(folder: Path, collector: Collector | None, **more: str) -> Iterator[tuple[Stage, EmbeddedIssuer]]:
    """Run shop-api and notification-service as the compose file says, at an issuer in the place of Keycloak."""
    issuer = EmbeddedIssuer.read(*REALMS.values(), public_url="http://localhost:8080")
    exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url} if collector else {}
    declared = services({**SECRETS, **issuer.values, **exporting, "STORY_2": "example_app.observability"})
    with issuer.serving(), Stage() as stage:
        ports = {name: free_port() for name in ("notification-service", "shop-api")}
        urls = {f"http://{name}:{PORTS[name]}": f"http://127.0.0.1:{port}" for name, port in ports.items()}
        urls |= {"http://keycloak:8080": issuer.url, **mounted(folder, issuer.values)}
        for name, port in ports.items():
            environment = {**on_this_machine(declared[name], urls), **more}
            stage.add(name, environment, app=declared[name]["command"][1], port=port)
        stage.wait()
        yield stage, issuer


def checkout(stage: Stage, traceparent: str) -> int:
    response = httpx.post(
        f"{stage['shop-api'].url}/checkout", headers={"traceparent": traceparent}, timeout=30, trust_env=False
    )
    return response.status_code


def test_with_an_endpoint_both_services_export_one_trace_of_a_checkout_the_one_that_the_page_shows(
    tmp_path: Path,
) -> None:
    trace_id, caller = "5" * 32, "6" * 16

    with Collector().listening() as collector, story_2(tmp_path, collector) as (stage, issuer):
        probe = [sys.executable, "-m", "example_app.probe", str(stage["shop-api"].port)]
        assert subprocess.run(probe, cwd=ROOT, check=False).returncode == 0
        assert checkout(stage, f"00-{trace_id}-{caller}-01") == 200

        collector.wait_for(lambda: len(served(collector.trace(trace_id))) == 2)
        # Of /healthz, only what this test itself asked for, which is in no trace of a caller.
        assert {s.parent_id for s in collector.spans if s.kind == "SERVER" and "healthz" in s.name} == {""}
        trace = collector.trace(trace_id)
        answered = served(trace)

        assert set(answered) == {"shop-api", "notification-service"}, rendered(trace)
        assert answered["shop-api"].parent_id == caller
        ours = rendered(kept(trace, lambda span: not span.name.startswith("fastapi.")), timed=False).splitlines()
        assert len(ours) == len(TREE), "\n".join(ours)
        for line, shown in zip(ours, TREE, strict=True):
            assert f"{shown} ".startswith(f"{line.removesuffix(' (its parent did not come)')} ")
        for span in trace:
            row = ROWS.get("the server's own" if span.kind == "SERVER" else span.name, set())
            told = {name for name in span.attributes if span.kind != "SERVER" or name.startswith("s2s_fastapi.")}
            assert span.name.startswith("fastapi.") or told <= row, (span.name, told - row)
        for endpoint in ("token", "certs"):  # what a Keycloak that traces would go on with
            (asked,) = issuer.requests(endpoint)
            assert trace_id in (asked.request.header("traceparent") or ""), endpoint


def served(spans: Iterable[Span]) -> dict[str, Span]:
    return {span.service: span for span in spans if span.kind == "SERVER"}


def test_without_an_endpoint_no_exporter_is_even_imported_and_nobody_is_warned(tmp_path: Path) -> None:
    with story_2(tmp_path, None, PYTHONPROFILEIMPORTTIME="1") as (stage, _):
        assert checkout(stage, f"00-{'5' * 32}-{'6' * 16}-01") == 200

        for name in ("shop-api", "notification-service"):
            log = stage[name].log
            assert re.search(r"\| +opentelemetry\.trace$", log, re.MULTILINE)  # so the others would be in there
            assert re.findall(r"\| +opentelemetry\.(?:sdk|exporter)", log) == []
            assert re.findall(r"^(?:WARNING|ERROR|CRITICAL) .*", log, re.MULTILINE) == []
