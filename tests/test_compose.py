"""docker-compose.yml, as far as it can be checked without a container: the schema, and what the schema misses."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from example_app.realm import REALMS, fresh_secrets
from example_app.stage import Stage, free_port
from s2s_fastapi import KeycloakSettings
from s2s_fastapi.testing import EmbeddedIssuer
from tests.kit.compose import FILE, PROFILE, SECRETS, SWITCHES, VARIABLE, on_this_machine, services
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


def test_every_service_has_a_health_check_and_a_memory_limit() -> None:
    for name, service in WITH_GRAFANA.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["healthcheck"]["retries"] > 1
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"])


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
    for name in OURS:
        build = SERVICES[name]["build"]
        assert (ROOT / build["context"] / build["dockerfile"]).is_file()


def test_the_image_copies_only_what_is_there() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "example_app" / "Dockerfile").read_text(), re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()

    for name in " ".join(copied).split():
        assert (ROOT / name.removeprefix("./")).exists()
        assert f"!{name.removeprefix('./')}" in ignored


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


def test_every_secret_that_is_used_is_made_by_make_env(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    for _ in range(2):  # the second time it leaves the file alone
        subprocess.run([sys.executable, "-m", "example_app.env", str(file)], cwd=ROOT, check=True, capture_output=True)
        values = dict(line.split("=", 1) for line in file.read_text().splitlines())

    used = {found[1]: found[2] for found in VARIABLE.finditer(FILE.read_text(encoding="utf-8"))}
    assert {name for name, how in used.items() if how != "-"} <= set(values)
    assert {name for name, how in used.items() if how == "-"} <= SWITCHES
    assert "${" not in json.dumps(services(values, PROFILE))
    assert set(fresh_secrets()) <= set(values)
    assert all(len(value) >= 20 for value in values.values())
    assert file.stat().st_mode & 0o077 == 0


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
    keycloak = SERVICES["keycloak"]["environment"]
    assert keycloak["KC_TRACING_ENABLED"] == "false"
    assert (
        "KC_TRACING_JDBC_ENABLED" not in keycloak
    )  # Keycloak 26.7.3 warns of it, and does not start with an empty one


def test_the_image_that_observes_is_pinned() -> None:
    assert re.fullmatch(r"grafana/otel-lgtm:\d+\.\d+\.\d+", WITH_GRAFANA["grafana"]["image"])
    assert "otel" in re.findall(r"\.\[(\w+)\]", (ROOT / "example_app" / "Dockerfile").read_text())[0]


@contextmanager
def story_2(collector: Collector | None, **more: str) -> Iterator[tuple[Stage, EmbeddedIssuer]]:
    """Run shop-api and notification-service as the compose file says, at an issuer in the place of Keycloak."""
    issuer = EmbeddedIssuer.read(*REALMS.values(), public_url="http://localhost:8080")
    exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url} if collector else {}
    declared = services({**SECRETS, **issuer.values, **exporting, "STORY_2": "example_app.observability"})
    with issuer.serving(), Stage() as stage:
        ports = {name: free_port() for name in ("notification-service", "shop-api")}
        urls = {f"http://{name}:{PORTS[name]}": f"http://127.0.0.1:{port}" for name, port in ports.items()}
        urls["http://keycloak:8080"] = issuer.url
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


def test_with_an_endpoint_both_services_export_one_trace_of_a_checkout_the_one_that_the_page_shows() -> None:
    trace_id, caller = "5" * 32, "6" * 16

    with Collector().listening() as collector, story_2(collector) as (stage, issuer):
        assert checkout(stage, f"00-{trace_id}-{caller}-01") == 200

        collector.wait_for(lambda: len(served(collector.trace(trace_id))) == 2)
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


def test_without_an_endpoint_no_exporter_is_even_imported_and_nobody_is_warned() -> None:
    with story_2(None, PYTHONPROFILEIMPORTTIME="1") as (stage, _):
        assert checkout(stage, f"00-{'5' * 32}-{'6' * 16}-01") == 200

        for name in ("shop-api", "notification-service"):
            log = stage[name].log
            assert re.search(r"\| +opentelemetry\.trace$", log, re.MULTILINE)  # so the others would be in there
            assert re.findall(r"\| +opentelemetry\.(?:sdk|exporter)", log) == []
            assert re.findall(r"^(?:WARNING|ERROR|CRITICAL) .*", log, re.MULTILINE) == []
