"""Distinguished names as people and tools write them: the embedded issuer and `doctor` compare them as Keycloak 26.7.3 does."""

import shutil
import subprocess
from pathlib import Path

import pytest

from s2s_fastapi.keycloak.client_authentication import dn_parts, dn_problem, same_dn
from s2s_fastapi.testing.client_certificates import ClientCertificate
from tests.realm.certified import Authority

EMAIL = "1.2.840.113549.1.9.1"
NAME = f"{EMAIL}=ops@acme.example,CN=chat,O=Müller \\+ Söhne"
SAME = [
    NAME,
    "emailAddress=ops@acme.example,CN=chat,O=M\\C3\\BCller \\+ S\\C3\\B6hne",
    'EMAILADDRESS=ops@acme.example, cn=chat, O="Müller + Söhne"',
    f"{EMAIL}=ops@acme.example;CN=chat;O=Müller \\2B Söhne",
]
AUTHORITY = Authority.new("CN=Acme Test CA,O=Acme")


@pytest.mark.parametrize("written", SAME, ids=range(len(SAME)))
def test_spellings_of_one_name_are_the_same(written: str) -> None:
    own = AUTHORITY.issue(NAME)
    assert dn_problem(written) == ""
    assert same_dn(written, own.certificate.subject.rfc4514_string())
    attributes = {"x509.subjectdn": written, "x509.allow.regex.pattern.comparison": "false"}
    assert ClientCertificate(own.der).refusal(attributes, authorities=True) is None


@pytest.mark.parametrize(
    "written",
    [
        NAME.replace("chat", "Chat"),
        NAME.replace("ü", "u"),
        NAME.replace("ü", "\\FC"),
        NAME.replace("ü", "Ã¼"),
        NAME.replace(EMAIL, "2.5.4.5"),
        NAME.replace(f"{EMAIL}=ops@acme.example,", ""),
        "",
        "nonsense",
    ],
    ids=range(8),
)
def test_another_name_is_another_one(written: str) -> None:
    own = AUTHORITY.issue(NAME)
    assert not same_dn(written, own.certificate.subject.rfc4514_string())
    attributes = {"x509.subjectdn": written, "x509.allow.regex.pattern.comparison": "false"}
    assert ClientCertificate(own.der).refusal(attributes, authorities=True) is not None


@pytest.mark.parametrize(
    ("name", "oid"),
    [
        ("SERIALNUMBER", "2.5.4.5"),
        ("businessCategory", "2.5.4.15"),
        ("jurisdictionCountryName", "1.3.6.1.4.1.311.60.2.1.3"),
        ("emailAddress", EMAIL),
    ],
)
def test_the_names_that_keycloak_adds_are_object_identifiers(name: str, oid: str) -> None:
    assert dn_parts(f"{name}=x") == dn_parts(f"{oid}=x") == ((oid, "x"),)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
@pytest.mark.parametrize("options", ["RFC2253", "RFC2253,-esc_msb,utf8"])
def test_what_openssl_prints_is_the_name(options: str, tmp_path: Path) -> None:
    own = AUTHORITY.issue(NAME)
    file = tmp_path / "chat.pem"
    file.write_bytes(own.pem)
    command = ["openssl", "x509", "-noout", "-subject", "-nameopt", options, "-in", str(file)]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert same_dn(printed.strip().removeprefix("subject="), own.certificate.subject.rfc4514_string())
