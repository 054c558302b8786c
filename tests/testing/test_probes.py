"""The probes that compare the issuer with real servers notice a difference, and find none where there is none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from example_app.realm import REALMS, Realm
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.faults import answering
from tests.testing.probes import different, probes

RealmOf = Callable[[str], Realm]


@contextmanager
def served(version: str) -> Iterator[tuple[EmbeddedIssuer, RealmOf]]:
    issuer = EmbeddedIssuer.read(*REALMS.values(), version=version)
    with issuer.serving():
        yield issuer, lambda name: Realm(name, issuer.url, issuer.public_url, issuer.auth_path, issuer.values)


def test_two_issuers_of_one_release_answer_alike_and_a_fault_is_noticed() -> None:
    with served("26.7.3") as (_, one), served("26.7.3") as (issuer, other):
        names = [probe.name for probe in probes(one)]
        assert len(names) == len(set(names)) > 120
        assert different(one, other) == []
        issuer.faults.add("certs", answering(200, "{}"))
        issuer.faults.add("discovery", answering(503, "{}"))
        assert [line.partition(":")[0] for line in different(one, other)] == ["GET discovery"]


def test_the_releases_differ_as_they_were_seen_to_differ() -> None:
    with served("26.7.3") as (_, new), served("26.0.8") as (_, old):
        names = {line.partition(": ")[0] for line in different(new, old)}
    assert names == {
        "Basic, not base64",
        "Basic, not base64, and a good form",
        "Basic, not base64, and another id in the form",
        "Basic, not base64, and a wrong secret in the form",
        "a scope of 4001",
        "a wrong password",
        "an empty password",
        "an unknown user",
        "no password",
        "a page of another origin",
        "HEAD certs",
        "HEAD realm",
        "//realms/corp",
        "/realms//corp",
        "/realms/./corp",
        "/realms/%2e/corp",
        "/realms/x/../corp",
        "/realms/corp;x=1",
        "/realms/c%6Frp",
    }
