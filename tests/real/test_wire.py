"""The embedded issuer answers as the server does: the same odd requests to both, nothing different."""

from example_app.realm import REALMS, Realm
from s2s_fastapi.testing import EmbeddedIssuer
from tests.real.server import Keycloak
from tests.testing.probes import different, probes


def test_the_embedded_issuer_answers_every_odd_request_as_the_server_does(every_keycloak: Keycloak) -> None:
    issuer = EmbeddedIssuer.read(
        *REALMS.values(),
        version=every_keycloak.version,
        auth_path=every_keycloak.auth_path,
        public_url=every_keycloak.public_url if every_keycloak.public_url != every_keycloak.url else None,
    )
    with issuer.serving():

        def embedded(name: str) -> Realm:
            return Realm(name, issuer.url, issuer.public_url, issuer.auth_path, issuer.values)

        assert different(every_keycloak.realm, embedded) == []
        assert len(list(probes(embedded))) > 100
