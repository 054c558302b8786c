"""What docker-compose.yml runs, without containers: the same commands, environment and realm files on a live server."""

from pathlib import Path
from typing import Any

import yaml

from example_app.stage import Stage, free_port
from tests.keycloak.server import NEWEST, Keycloak

FILE = Path(__file__).parents[2] / "docker-compose.yml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["services"]


def test_the_composed_services_work_together_behind_an_issuer_they_do_not_reach_it_at() -> None:
    declared = SERVICES["keycloak"]["environment"]
    assert SERVICES["keycloak"]["image"] == f"keycloak/keycloak:{NEWEST}"
    backchannel = {"KC_HOSTNAME_BACKCHANNEL_DYNAMIC": declared["KC_HOSTNAME_BACKCHANNEL_DYNAMIC"]}
    ports = {name: free_port() for name in SERVICES if name != "keycloak"}
    with Keycloak(NEWEST, public_url=declared["KC_HOSTNAME"], environment=backchannel) as keycloak, Stage() as stage:
        here = {"http://keycloak:8080": keycloak.url}

        def value(text: str) -> str:
            if text.startswith("${"):
                return keycloak.values[text[2:].partition(":")[0]]
            for name, port in ports.items():
                if text.startswith(f"http://{name}:"):
                    return f"http://127.0.0.1:{port}"
            return here.get(text, text)

        for name, port in ports.items():
            environment = {variable: value(text) for variable, text in SERVICES[name]["environment"].items()}
            stage.add(name, environment, app=SERVICES[name]["command"][1], port=port)
        stage.wait()

        escalated = stage.ask("chat-app", "POST", "/escalate", log_of="crm-gateway")
        sold = stage.ask("shop-api", "POST", "/checkout", log_of="notification-service")

        assert (escalated.status, escalated.reason) == (200, "allowed"), escalated.log
        assert (sold.status, sold.reason) == (200, "allowed"), sold.log
        assert "issuer='http://localhost:8080/realms/corp'" in escalated.log
        assert stage["crm-gateway"].ask("POST", "/tickets", json={"subject": "x"}).status_code == 401
