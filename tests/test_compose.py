"""docker-compose.yml, as far as it can be checked without a container: the schema, and what the schema misses."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from example_app.realm import REALMS, fresh_secrets
from s2s_fastapi import KeycloakSettings

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PORTS = {"keycloak": 8080, "crm-gateway": 8001, "chat-app": 8002, "shop-api": 8003, "notification-service": 8004}
OURS = sorted(set(PORTS) - {"keycloak"})


def test_it_follows_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_the_services_and_their_ports_are_the_ones_that_are_promised_and_on_this_machine_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items()}

    assert published == {name: [f"127.0.0.1:{port}:{port}"] for name, port in PORTS.items()}


def test_every_service_has_a_health_check_and_a_memory_limit() -> None:
    for name, service in SERVICES.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["healthcheck"]["retries"] > 1
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"])


def test_whom_a_service_waits_for_exists_and_can_be_healthy() -> None:
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[other]


def test_every_service_waits_for_keycloak_and_for_whom_it_calls() -> None:
    assert all("keycloak" in SERVICES[name]["depends_on"] for name in OURS)
    assert "crm-gateway" in SERVICES["chat-app"]["depends_on"]
    assert "notification-service" in SERVICES["shop-api"]["depends_on"]


def test_durations_are_durations() -> None:
    for service in SERVICES.values():
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
    environment = {**SERVICES[name]["environment"]}
    settings = {
        variable.removeprefix("KEYCLOAK_").lower(): re.sub(r"\$\{.*\}", "secret", value)
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

    used = set(re.findall(r"\$\{([A-Z_]+)", FILE.read_text(encoding="utf-8")))
    assert used <= set(values)
    assert set(fresh_secrets()) <= set(values)
    assert all(len(value) >= 20 for value in values.values())
    assert file.stat().st_mode & 0o077 == 0


def test_the_file_with_the_secrets_is_never_committed() -> None:
    done = subprocess.run(["git", "check-ignore", "-q", ".env"], cwd=ROOT, check=False)
    tracked = subprocess.run(["git", "ls-files", ".env"], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.returncode == 0
    assert tracked.stdout == ""
