"""What docker-compose.yml runs, without containers: the same commands, environment and realm files on a live server."""

from collections import defaultdict
from pathlib import Path

from example_app.stage import Stage, free_port
from tests.kit.compose import mounted, on_this_machine, services
from tests.real.server import NEWEST, Keycloak

SERVICES = services(defaultdict(str))


def test_the_composed_services_work_together_behind_an_issuer_they_do_not_reach_it_at(tmp_path: Path) -> None:
    declared = SERVICES["keycloak"]["environment"]
    assert SERVICES["keycloak"]["image"] == f"keycloak/keycloak:{NEWEST}"
    backchannel = {"KC_HOSTNAME_BACKCHANNEL_DYNAMIC": declared["KC_HOSTNAME_BACKCHANNEL_DYNAMIC"]}
    ports = {name: free_port() for name in SERVICES if name != "keycloak"}
    local = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    with Keycloak(NEWEST, public_url=declared["KC_HOSTNAME"], environment=backchannel) as keycloak, Stage() as stage:
        urls = {f"http://{name}:{SERVICES[name]['ports'][0].split(':')[1]}": url for name, url in local.items()}
        declared = services({**keycloak.values, "KEYCLOAK_ADMIN_PASSWORD": "not used here"})
        files = mounted(tmp_path, keycloak.values)
        for name, port in ports.items():
            environment = on_this_machine(declared[name], {**urls, **files, "http://keycloak:8080": keycloak.url})
            stage.add(name, environment, app=declared[name]["command"][1], port=port)
        stage.wait()

        escalated = stage.ask("chat-app", "POST", "/escalate", log_of="crm-gateway")
        sold = stage.ask("shop-api", "POST", "/checkout", log_of="notification-service")

        assert (escalated.status, escalated.reason) == (201, "allowed"), escalated.log
        assert (sold.status, sold.reason) == (200, "allowed"), sold.log
        assert "issuer='http://localhost:8080/realms/corp'" in escalated.log
        assert stage["crm-gateway"].ask("POST", "/tickets", json={"subject": "x"}).status_code == 401
