"""docs/kubernetes.yaml gives a pod what the settings of its service need, and its token the form that is sent."""

from typing import Any

import pytest
import yaml

from s2s_fastapi import KeycloakSettings
from s2s_fastapi.caller.assertion_file import MAX_AGE
from tests.test_docs import DOCS, blocks

MANIFEST = DOCS / "kubernetes.yaml"


@pytest.fixture(scope="module")
def documents() -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))}


def projected(pod: dict[str, Any]) -> dict[str, Any]:
    (volume,) = pod["volumes"]
    (source,) = volume["projected"]["sources"]
    token: dict[str, Any] = source["serviceAccountToken"]
    return token


def test_the_settings_of_the_pod_are_whole_and_name_the_token_that_is_projected(
    documents: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    (container,), (volume,) = pod["containers"], pod["volumes"]
    (mount,) = container["volumeMounts"]
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])

    settings = KeycloakSettings()

    token = projected(pod)
    assert settings.client_auth == "federated_jwt"
    assert str(settings.client_assertion_file) == f"{mount['mountPath']}/{token['path']}"
    assert token["audience"] == settings.issuer
    assert token["expirationSeconds"] <= MAX_AGE
    assert mount["name"] == volume["name"]
    assert "subPath" not in mount  # never written anew
    assert mount["readOnly"]


def test_the_pod_has_the_service_account_of_the_client_on_the_page(documents: dict[str, dict[str, Any]]) -> None:
    account, pod = documents["ServiceAccount"]["metadata"], documents["Deployment"]["spec"]["template"]["spec"]
    (client,) = (block for block in blocks(DOCS / "secretless.md", "json") if "system:serviceaccount" in block.text)

    assert pod["serviceAccountName"] == account["name"]
    assert f'"system:serviceaccount:{account["namespace"]}:{account["name"]}"' in client.text
    assert pod["automountServiceAccountToken"] is False


def test_the_volume_of_the_page_is_that_of_the_manifest(documents: dict[str, dict[str, Any]]) -> None:
    (shown,) = (block for block in blocks(DOCS / "secretless.md", "yaml") if "projected" in block.text)
    pod = documents["Deployment"]["spec"]["template"]["spec"]

    assert projected(yaml.safe_load(shown.text)) == projected(pod)
