"""The token in the file: what may leave this process, what may not, and which sentence says why."""

import os
import threading
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest

from s2s_fastapi.caller.assertion_file import Assertion
from s2s_fastapi.errors import ConfigurationError, S2SError, TokenRequestError
from tests.caller.federated import CLUSTER, ISSUER, NOW, SUBJECT, token

SAID = "KEYCLOAK_CLIENT_ASSERTION_FILE"
BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "token"


def read(file: Path, *, at: float = NOW + 1) -> Assertion:
    return Assertion.read(file, said=SAID, audience=ISSUER, now=lambda: at)


def refused(file: Path, *, at: float = NOW + 1) -> S2SError:
    with pytest.raises((ConfigurationError, TokenRequestError)) as caught:
        read(file, at=at)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert str(caught.value).startswith(f"{SAID}: ")
    assert str(file) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_token_for_the_realm_alone_is_read(file: Path, end: str) -> None:
    file.write_text(token() + end)

    found = read(file)

    assert (found.text, found.type, found.kid, found.issuer, found.subject) == (token(), BEARER, "k1", CLUSTER, SUBJECT)
    assert token() not in f"{found!r} {found}"


@pytest.mark.parametrize(
    ("claims", "at"),
    [
        ({"aud": ISSUER}, 1),  # a text instead of a list of one
        ({"drop": "iat"}, 3599),  # Keycloak checks no age then
        ({"drop": "nbf"}, 1),
        ({"kid": None}, 1),  # Keycloak tries all keys
        ({"kid": 5}, 1),
        ({"exp": NOW + 2}, 1.5),
        ({"exp": NOW + 31_536_000}, 3600),  # kubernetes: no upper limit
        ({"iat": NOW + 60, "nbf": NOW + 60}, 1),  # our clock may be behind
        ({"sub": "system:serviceaccount:" + "n" * 63 + ":" + "a" * 253}, 1),  # the longest that Kubernetes allows
        ({"iss": "https://issuer.example/" + "i" * 400}, 1),
        ({"iss": None, "sub": "spiffe://acme.test/ns/prod/sa/chat"}, 1),
    ],
)
def test_whatever_keycloak_may_accept_is_sent(file: Path, claims: dict[str, Any], at: float) -> None:
    file.write_text(token(**claims))

    assert read(file, at=NOW + at).text == file.read_text()


def test_a_spiffe_id_has_a_type_of_its_own(file: Path) -> None:
    file.write_text(token(sub="spiffe://acme.test/ns/prod/sa/chat", drop="iss"))

    assert read(file).type == SPIFFE


@pytest.mark.parametrize(
    ("claims", "at", "says", "retryable"),
    [
        (
            {"aud": ["https://kubernetes.default.svc"]},
            1,
            "is for https://kubernetes.default.svc (aud), and not for",
            False,
        ),
        ({"aud": [ISSUER, "crm"]}, 1, f"is for crm and {ISSUER} (aud), and not for {ISSUER} alone", False),
        ({"aud": [ISSUER, ISSUER]}, 1, "(aud), and not for", False),
        ({"aud": ["a", "b", "c", "d"]}, 1, "is for a and b and c and others (aud)", False),
        ({"aud": f"{ISSUER}/"}, 1, "(aud), and not for", False),
        ({"aud": f"{ISSUER}/protocol/openid-connect/token"}, 1, "(aud), and not for", False),
        ({"aud": []}, 1, "is for nobody (aud)", False),
        ({"aud": [[ISSUER]]}, 1, "is for nobody (aud)", False),
        ({"aud": {ISSUER: 1}}, 1, "is for nobody (aud)", False),
        ({"drop": "aud"}, 1, "is for nobody (aud)", False),
        ({"drop": "sub"}, 1, "has no subject (sub)", False),
        ({"sub": ""}, 1, "has no subject (sub)", False),
        ({"sub": ["a"]}, 1, "has no subject (sub)", False),
        ({"drop": "iss"}, 1, "has no issuer (iss)", False),
        ({"iss": 5}, 1, "has no issuer (iss)", False),
        ({"drop": "exp"}, 1, "has no time at which it expires (exp)", False),
        ({"exp": "1900000000"}, 1, "has no time at which it expires (exp)", False),
        ({"exp": True}, 1, "has no time at which it expires (exp)", False),
        ({"exp": NOW + 10}, 10, "expired 0 s ago (exp)", True),
        ({}, 3700, "expired 100 s ago (exp)", True),
        ({"exp": -(10**400)}, 1, "expired", True),
        ({"exp": NOW + 86_400}, 3601, "is 3601 s old (iat), and Keycloak accepts none that is older than 3600 s", True),
        ({"exp": NOW + 86_400, "iat": -(10**400)}, 1, "s old (iat)", True),
    ],
)
def test_a_token_that_keycloak_would_refuse_or_that_is_for_others_is_not_sent(
    file: Path, claims: dict[str, Any], at: float, says: str, retryable: bool
) -> None:
    file.write_text(token(**claims))

    error = refused(file, at=NOW + at)

    assert isinstance(error, TokenRequestError)
    assert says in str(error)
    assert "so it was not sent." in str(error)
    assert error.cure
    assert (error.retryable, error.http_status) == (retryable, 0)
    assert not any(part in f"{error} {error!r}" for part in file.read_text().split("."))


TWICE = b'{"aud":"x","aud":"y"}'


def part(text: bytes) -> str:
    return urlsafe_b64encode(text).decode().rstrip("=")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty: look at what writes the token"),
        (b"\n\n", "is empty"),
        (b"   ", "is empty"),
        (b"s3cret", "holds no token"),
        (token().rpartition(".")[0].encode(), "holds no token"),  # not signed
        (token().rpartition(".")[0].encode() + b".", "holds no token"),
        (token().encode() + b".x", "holds no token"),
        (b" " + token().encode(), "holds no token"),
        (token().encode() + b"\n" + token().encode(), "holds no token"),
        (b"\xef\xbb\xbf" + token().encode(), "holds no token"),
        (token().encode() + b"\xff", "holds no token"),
        (f"{part(b'[]')}.{part(b'{}')}.eA".encode(), "holds no token"),
        (f"{part(b'{}')}.{part(b'5')}.eA".encode(), "holds no token"),
        (f"{part(b'{}')}.{part(b'{')}.eA".encode(), "holds no token"),
        (f"{part(b'{}')}.{part(TWICE)}.eA".encode(), "holds no token"),
        (f"{part(b'{}')}.A.eA".encode(), "holds no token"),
        (b"x" * 16_385, "is too large for a token"),
    ],
)
def test_a_file_without_a_token_names_itself_and_shows_nothing_of_its_content(
    file: Path, content: bytes, says: str
) -> None:
    file.write_bytes(content)

    error = refused(file)

    assert isinstance(error, ConfigurationError)
    assert says in str(error)
    assert "s3cret" not in str(error)


def test_a_file_that_is_not_there_and_a_folder_name_themselves(file: Path, tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory): look at the path" in str(refused(file))
    file.mkdir()
    assert "is a directory: give the file in it" in str(refused(file))


def test_a_pipe_is_refused_without_a_wait(file: Path) -> None:
    os.mkfifo(file)

    assert "is not a regular file: a pipe can be read only once" in str(refused(file))


def test_files_are_closed(file: Path, tmp_path: Path) -> None:
    file.write_text(token())
    folder = tmp_path / "folder"
    folder.mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        read(file)
        refused(folder)

    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_each_read_gets_a_whole_token_while_kubernetes_swaps_its_link(tmp_path: Path) -> None:
    # As the kubelet does it: token -> ..data/token, ..data -> a folder with a time in its name, replaced by a rename.
    link, current = tmp_path / "token", tmp_path / "..data"
    link.symlink_to("..data/token")
    done, seen = threading.Event(), set[str]()

    def swap() -> None:
        for number in range(300):
            folder = tmp_path / f"..{number}"
            folder.mkdir()
            (folder / "token").write_text(token(jti=f"t{number}"))
            fresh = tmp_path / "..data_tmp"
            fresh.symlink_to(folder.name)
            fresh.rename(current)
            if number == 0:
                begun.set()
        done.set()

    begun = threading.Event()
    thread = threading.Thread(target=swap)
    thread.start()
    begun.wait(10)
    while not done.is_set():
        seen.add(read(link).text)
    thread.join()
    seen.add(read(link).text)

    assert token(jti="t299") in seen
    assert seen <= {token(jti=f"t{number}") for number in range(300)}
