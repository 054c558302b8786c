"""The client certificate in TLS: what is shown to whom, what a renewal changes, and what is said of files that cannot be used."""

import copy
import os
import pickle
import shutil
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from s2s_fastapi.backchannel import client_certificate
from s2s_fastapi.backchannel.channel import BackChannel, BackChannelError
from s2s_fastapi.backchannel.client_certificate import ClientCertificate, ClientTls, LoadedCertificate, trusting
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.keycloak.server_cures import unreachable_cure
from s2s_fastapi.settings import ProxyUrl
from tests.kit.authority import issue, make_authority, thumbprint
from tests.kit.forks import in_child, needs_fork
from tests.kit.mtls import Answer, Came, TlsServer


def hello(came: Came) -> Answer:
    return 200, {}, {"thumbprint": came.thumbprint}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("foreign"))


@pytest.fixture
def file(authority: Path, tmp_path: Path) -> Path:
    return issue(authority, tmp_path)


@pytest.fixture
def server(authority: Path) -> Iterator[TlsServer]:
    with TlsServer(authority, hello) as there:
        yield there


def pair(file: Path) -> ClientCertificate:
    return ClientCertificate(file, file.with_suffix(".key"))


def channel(authority: Path, certificate: ClientCertificate | None) -> BackChannel:
    return BackChannel(ca_file=authority, certificate=certificate, timeout=20)


def put(new: Path, over: Path) -> None:
    """Replace a file as tools that renew certificates do: the new one takes its name in one step."""
    beside = over.with_name(f"{over.name}.new")
    shutil.copy(new, beside)
    beside.replace(over)


def refusal(job: Callable[[], object]) -> BackChannelError:
    with pytest.raises(BackChannelError) as caught:
        job()
    assert caught.value.__context__ is None
    return caught.value


def problem(certificate: ClientCertificate) -> str:
    with pytest.raises(ConfigurationError) as caught:
        ClientTls(certificate, lambda: trusting(None)).now()
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    return str(caught.value)


# What is shown, and to whom.


@pytest.mark.parametrize("together", [False, True])
def test_the_certificate_is_shown_and_the_reply_says_which(authority: Path, tmp_path: Path, together: bool) -> None:
    file = issue(authority, tmp_path, together=together)
    certificate = ClientCertificate(file) if together else pair(file)
    with TlsServer(authority, hello, mode=ssl.CERT_REQUIRED) as server:
        reply = channel(authority, certificate).post_form(server.url, {"a": "b"})

    assert reply.json_object() == {"thumbprint": thumbprint(file)}
    assert reply.certificate == thumbprint(file)


def test_without_one_nothing_is_shown(authority: Path, server: TlsServer) -> None:
    reply = channel(authority, None).post_form(server.url, {})
    assert (reply.json_object()["thumbprint"], reply.certificate) == ("", "")


def test_it_is_not_shown_to_a_server_that_is_not_trusted(foreign: Path, file: Path, server: TlsServer) -> None:
    told = refusal(lambda: channel(foreign, pair(file)).post_form(server.url, {}))
    assert "its certificate is not trusted" in str(told)
    assert not told.certificate
    assert server.came == []


def test_a_proxy_that_speaks_tls_does_not_see_it(authority: Path, file: Path) -> None:
    with TlsServer(authority, lambda came: (502, {}, {})) as proxy:
        through = BackChannel(ca_file=authority, certificate=pair(file), proxy=ProxyUrl(proxy.url), timeout=20)
        refusal(lambda: through.post_form("https://keycloak.invalid/token", {}))
    assert [came.thumbprint for came in proxy.came] == [""]


def test_equal_files_are_one_channel_and_others_another(file: Path) -> None:
    shared = BackChannel.shared(None, 5.0, None, pair(file))
    assert BackChannel.shared(None, 5.0, None, pair(file)) is shared
    assert BackChannel.shared(None, 5.0, None, ClientCertificate(file)) is not shared
    assert BackChannel.shared(None, 5.0) is not shared


def test_the_subject_is_written_as_keycloak_compares_it(file: Path) -> None:
    loaded = ClientTls(pair(file), lambda: trusting(None)).now()
    assert loaded.subject == "CN=chat-app-service,OU=svc,O=Acme"
    assert pair(file).names() == ("CN=chat-app-service,OU=svc,O=Acme", "CN=a company's own")


# Renewals.


@pytest.mark.parametrize("first", ["cert", "key"])
def test_while_one_of_two_files_is_new_the_pair_before_stays(
    authority: Path, file: Path, tmp_path: Path, server: TlsServer, first: str
) -> None:
    old, new = thumbprint(file), issue(authority, tmp_path / "new")
    kept = channel(authority, pair(file))
    files = [(new, file), (new.with_suffix(".key"), file.with_suffix(".key"))]
    shown = [kept.post_form(server.url, {}).certificate]
    for source, target in files if first == "cert" else reversed(files):
        put(source, target)
        shown.append(kept.post_form(server.url, {}).certificate)

    assert shown == [old, old, thumbprint(new)]


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN CERTIFICATE-----\nMIIB", None])
def test_while_a_file_is_half_written_or_gone_the_pair_before_stays(
    authority: Path, file: Path, server: TlsServer, damage: bytes | None
) -> None:
    kept, good = channel(authority, pair(file)), file.read_bytes()
    before = kept.post_form(server.url, {}).certificate
    file.unlink()
    if damage is not None:
        file.write_bytes(damage)
    assert kept.post_form(server.url, {}).certificate == before
    file.write_bytes(good)
    assert kept.post_form(server.url, {}).certificate == before


def test_a_link_that_is_swapped_replaces_both_files_at_once(authority: Path, tmp_path: Path, server: TlsServer) -> None:
    one, two = (issue(authority, tmp_path / name) for name in ("..1", "..2"))
    (tmp_path / "..data").symlink_to("..1")
    file = tmp_path / "..data" / one.name
    kept = channel(authority, pair(file))
    assert kept.post_form(server.url, {}).certificate == thumbprint(one)
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert kept.post_form(server.url, {}).certificate == thumbprint(two)


def test_no_request_fails_while_certificates_are_renewed_under_load(
    authority: Path, file: Path, tmp_path: Path
) -> None:
    failures, shown, stop = list[str](), set[str](), threading.Event()
    renewed = [issue(authority, tmp_path / str(number)) for number in range(6)]
    with TlsServer(authority, hello, mode=ssl.CERT_REQUIRED) as server:
        context = ClientTls(pair(file), lambda: trusting(authority)).context()
        kept = channel(authority, pair(file))

        def call(post: Callable[[], str]) -> None:
            while not stop.is_set():
                try:
                    shown.add(post())
                except Exception as error:  # noqa: BLE001 - any is a failed call
                    failures.append(repr(error))

        def through_httpx() -> str:
            with httpx.Client(verify=context, trust_env=False, timeout=20) as client:
                return str(client.post(server.url).json()["thumbprint"])

        jobs: list[Callable[[], str]] = [lambda: kept.post_form(server.url, {}).certificate, through_httpx]
        threads = [threading.Thread(target=call, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for new in renewed:
            seen = len(server.came)
            put(new, file)
            put(new.with_suffix(".key"), file.with_suffix(".key"))
            while len(server.came) < seen + 6 and not failures:
                stop.wait(0.005)
        stop.set()
        for thread in threads:
            thread.join(30)

    assert failures == []
    assert thumbprint(renewed[-1]) in shown
    assert len(shown) >= 6


def test_the_last_certificates_are_kept_for_tokens_that_are_bound_to_them(
    authority: Path, file: Path, tmp_path: Path
) -> None:
    tls, old = ClientTls(pair(file), lambda: trusting(authority)), thumbprint(file)
    first = tls.now()
    for number in range(3):
        new = issue(authority, tmp_path / str(number))
        put(new, file)
        put(new.with_suffix(".key"), file.with_suffix(".key"))
        assert tls.now().thumbprint == thumbprint(new)
    assert tls.showing(old) is first
    assert tls.showing("of-nobody") is tls.showing("") is tls.now()
    new = issue(authority, tmp_path / "fifth")
    put(new, file)
    put(new.with_suffix(".key"), file.with_suffix(".key"))
    assert (
        tls.showing(old) is tls.now()
    )  # forgotten: the receiver refuses the token, and the next one has the new certificate


def test_files_that_did_not_change_are_not_read_again(file: Path) -> None:
    made: list[int] = []

    def trust() -> ssl.SSLContext:
        made.append(1)
        return trusting(None)

    tls = ClientTls(pair(file), trust)
    assert tls.now() is tls.now()
    assert made == [1]


def renew(new: Path, file: Path) -> str:
    """Replace both files; return the thumbprint of the new certificate."""
    put(new, file)
    put(new.with_suffix(".key"), file.with_suffix(".key"))
    return thumbprint(file)


def test_a_certificate_that_one_context_had_is_missed_by_no_other(authority: Path, file: Path, tmp_path: Path) -> None:
    """A token is requested over the connection of one, and sent over those of another that was idle meanwhile."""
    keycloak, idle, other = (ClientTls(pair(file), lambda: trusting(authority)) for _ in range(3))
    foreign = ClientTls(pair(issue(authority, tmp_path / "foreign")), lambda: trusting(authority))
    shown = [keycloak.now().thumbprint]
    for number in range(3):
        renew(issue(authority, tmp_path / str(number)), file)
        shown.append(keycloak.now().thumbprint)

    for tls in (idle, other):
        assert [tls.showing(one).thumbprint for one in shown] == shown
        assert {id(one.context) for one in tls.kept}.isdisjoint(id(one.context) for one in keycloak.kept)
    assert foreign.kept == ()


def test_a_context_that_cannot_load_takes_nothing_from_the_others(authority: Path, file: Path, tmp_path: Path) -> None:
    def broken() -> ssl.SSLContext:
        raise ConfigurationError("KEYCLOAK_CA_FILE: cannot read")

    good, bad = ClientTls(pair(file), lambda: trusting(authority)), ClientTls(pair(file), broken)
    old = good.now()
    new = renew(issue(authority, tmp_path / "new"), file)
    with pytest.raises(ConfigurationError, match="KEYCLOAK_CA_FILE: cannot read"):
        bad.now()
    assert good.now().thumbprint == new
    assert good.showing(old.thumbprint) is old
    assert bad.kept == ()


class MeetingLock:
    """A lock at which threads wait for each other before one of them gets it."""

    def __init__(self, threads: int) -> None:
        self.meeting, self.lock = threading.Barrier(threads, timeout=20), threading.RLock()

    def __enter__(self) -> None:
        self.meeting.wait()
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def test_threads_that_find_a_renewed_certificate_at_once_load_it_once(
    authority: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def trust() -> ssl.SSLContext:
        made.append(1)
        return trusting(authority)

    keycloak, downstream = ClientTls(pair(file), trust), ClientTls(pair(file), trust)
    old = keycloak.now().thumbprint
    new = renew(issue(authority, tmp_path / "new"), file)
    found: dict[int, LoadedCertificate] = {}
    monkeypatch.setattr(
        client_certificate._loadings[pair(file)], "lock", MeetingLock(4)
    )  # all four have seen the new file there

    def look(number: int, tls: ClientTls) -> None:
        found[number] = tls.now()

    all_four = enumerate((keycloak, keycloak, downstream, downstream))
    threads = [threading.Thread(target=look, args=each) for each in all_four]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert {one.thumbprint for one in found.values()} == {new}
    assert found[0] is found[1] is keycloak.kept[-1]
    assert found[2] is found[3] is downstream.kept[-1]
    assert [[one.thumbprint for one in tls.kept] for tls in (keycloak, downstream)] == [[old, new]] * 2
    assert len(made) == 4  # two contexts for each certificate


def test_a_context_that_reads_everything_again_loses_no_certificate_and_loads_alone(
    authority: Path, file: Path, tmp_path: Path
) -> None:
    one, other = (ClientTls(pair(file), lambda: trusting(authority)) for _ in range(2))
    old = one.now()
    renew(issue(authority, tmp_path / "new"), file)
    before = one.now()
    kept = other.kept
    one.forget()
    assert one.now() is not before
    assert one.showing(old.thumbprint) is old
    assert len(one.kept) == 2
    assert other.kept is kept


@needs_fork
def test_a_child_that_is_forked_while_a_thread_loads_has_a_lock_of_its_own(authority: Path, file: Path) -> None:
    tls = ClientTls(pair(file), lambda: trusting(authority))
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with client_certificate._loadings[pair(file)].lock:  # as a thread that is about to load
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(20)
        assert in_child(tls.now) == 0
    finally:
        done.set()
        thread.join(30)


def test_a_certificate_whose_file_hangs_stops_no_other_one(authority: Path, file: Path, tmp_path: Path) -> None:
    hanging, other = (
        ClientTls(pair(each), lambda: trusting(authority)) for each in (file, issue(authority, tmp_path / "other"))
    )
    held, done = threading.Event(), threading.Event()

    def trust() -> ssl.SSLContext:  # a file system that does not answer
        held.set()
        done.wait(60)
        return trusting(authority)

    hanging.trust = trust
    threads = [threading.Thread(target=hanging.now), threading.Thread(target=other.now)]
    try:
        threads[0].start()
        assert held.wait(20)
        threads[1].start()
        threads[1].join(20)
        assert len(other.kept) == 1
    finally:
        done.set()
        for thread in threads:
            thread.join(30)


# What a server says of it.


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", ["foreign", "expired"])
def test_a_certificate_that_is_refused_is_named_with_its_cure(
    authority: Path, foreign: Path, tmp_path: Path, newest: ssl.TLSVersion, kind: str
) -> None:
    file = issue(foreign if kind == "foreign" else authority, tmp_path, hours=1 if kind == "foreign" else -1)
    with TlsServer(authority, hello, newest=newest) as server:
        told = refusal(lambda: channel(authority, pair(file)).post_form(server.url, {}))
        assert server.came == []

    assert told.certificate
    assert "the client certificate CN=chat-app-service,OU=svc,O=Acme" in str(told)
    assert f"in {file} (KEYCLOAK_CLIENT_CERT_FILE)" in str(told)
    assert (", which expired at 20" in str(told)) is (kind == "expired")
    cure = unreachable_cure(f"{server.url}/realms/corp", str(told))
    assert "--truststore-paths" in cure
    assert "KEYCLOAK_CLIENT_CERT_FILE" in cure
    assert "Renew the certificate of Keycloak" not in cure


def test_a_server_that_wants_one_is_told_from_a_server_that_is_down(authority: Path) -> None:
    with TlsServer(authority, hello, mode=ssl.CERT_REQUIRED) as server:
        told = refusal(lambda: channel(authority, None).post_form(server.url, {}))

    assert told.certificate
    assert "wants a client certificate, and this request showed none" in str(told)
    assert unreachable_cure(f"{server.url}/realms/corp", str(told)).startswith("Set KEYCLOAK_CLIENT_CERT_FILE")


def test_a_server_that_ends_the_connection_without_a_word_is_suspected(authority: Path, file: Path) -> None:
    def leave(came: Came) -> Answer:
        raise ConnectionResetError  # the handler ends, and the connection with it

    with TlsServer(authority, leave) as server:
        told = refusal(lambda: channel(authority, pair(file)).post_form(server.url, {}))
        without = refusal(lambda: channel(authority, None).post_form(server.url, {}))

    assert told.certificate
    assert "ended the connection without an answer" in str(told)
    assert not without.certificate
    assert "client certificate" not in str(without)


@pytest.mark.parametrize("resets", [False, True])
def test_a_server_that_is_down_or_breaks_off_its_answer_says_nothing_of_the_certificate(
    authority: Path, file: Path, resets: bool
) -> None:
    def cut_off(came: Came) -> Answer:
        return 200, {"Content-Length": "100000"}, {}

    down = refusal(lambda: channel(authority, pair(file)).post_form("https://127.0.0.1:1", {}))
    with TlsServer(authority, cut_off, resets=resets) as server:
        broken = refusal(lambda: channel(authority, pair(file)).post_form(server.url, {}))

    assert not down.certificate
    assert "connection refused" in str(down)
    assert not broken.certificate
    # Before Python 3.13 a reset may look like an early end.
    said = ("the connection broke", "closed too early") if resets else ("closed too early",)
    assert any(words in str(broken) for words in said)


def test_keys_are_fetched_without_a_certificate_that_cannot_be_used_or_has_expired(
    authority: Path, tmp_path: Path, server: TlsServer
) -> None:
    expired = issue(authority, tmp_path, hours=-1)
    for certificate in (pair(expired), ClientCertificate(tmp_path / "nothing.pem")):
        assert channel(authority, certificate).get(server.url).json_object() == {"thumbprint": ""}
    good = issue(authority, tmp_path / "good")
    assert channel(authority, pair(good)).get(server.url).certificate == thumbprint(good)


def test_a_token_is_not_requested_without_the_certificate(authority: Path, tmp_path: Path, server: TlsServer) -> None:
    with pytest.raises(ConfigurationError, match=r"KEYCLOAK_CLIENT_CERT_FILE: .*nothing\.pem cannot be read"):
        channel(authority, ClientCertificate(tmp_path / "nothing.pem")).post_form(server.url, {})
    assert server.came == []


# Files that cannot be used.


def test_a_key_of_another_certificate_is_named(authority: Path, file: Path, tmp_path: Path) -> None:
    other = issue(authority, tmp_path / "other").with_suffix(".key")
    assert problem(ClientCertificate(file, other)) == (
        f"KEYCLOAK_CLIENT_CERT_KEY_FILE: {other} holds a key that does not belong to the certificate in {file}: write both"
        " files of one renewal, and the service's own certificate before those of authorities."
    )


def test_a_key_of_another_kind_is_no_missing_key(file: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    file.with_suffix(".key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    assert "holds a key that does not belong to the certificate" in problem(pair(file))


def test_an_encrypted_key_is_named_and_nobody_is_asked_for_its_password(file: Path) -> None:
    key = serialization.load_pem_private_key(file.with_suffix(".key").read_bytes(), None)
    file.with_suffix(".key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    assert "holds a key that is encrypted" in problem(pair(file))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read (No such file or directory): look at the path"),
        (b"", "is empty"),
        (b"nothing", "holds no complete certificate in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB", "holds no complete certificate in PEM"),
        (
            b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            "holds a certificate that is damaged: write it again",
        ),
        (b"x" * 300_000, "is too large"),
    ],
)
def test_a_certificate_that_is_none_is_said_so(file: Path, content: bytes | None, sentence: str) -> None:
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    told = problem(pair(file))
    assert told.startswith(f"KEYCLOAK_CLIENT_CERT_FILE: {file} ")
    assert sentence in told


def test_many_beginnings_of_a_certificate_without_an_end_cost_no_time(file: Path) -> None:
    file.write_bytes(b"-----BEGIN CERTIFICATE-----\n" * 9_362)
    before = time.thread_time()  # of the processor: the machine may be busy
    assert "holds no complete certificate in PEM" in problem(pair(file))
    assert time.thread_time() - before < 5  # 35 s with a regular expression that starts again at each


def test_a_certificate_without_a_key_names_the_setting_for_the_key(file: Path) -> None:
    told = problem(ClientCertificate(file))
    assert told.startswith(f"KEYCLOAK_CLIENT_CERT_FILE: {file} holds no private key in PEM")
    assert "set KEYCLOAK_CLIENT_CERT_KEY_FILE to the file of the key" in told


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe" in problem(ClientCertificate(tmp_path / "pipe"))


def test_a_directory_is_said_to_be_one(tmp_path: Path) -> None:
    assert "is a directory" in problem(ClientCertificate(tmp_path))


def test_no_repr_and_no_pickle_shows_the_key(authority: Path, tmp_path: Path) -> None:
    file = issue(authority, tmp_path, together=True)
    tls = ClientTls(ClientCertificate(file), lambda: trusting(authority))
    lines = file.read_text().partition("PRIVATE KEY-----")[2].split()[:2]
    for shown in (repr(tls), repr(tls.now()), repr(tls.context()), repr(vars(tls))):
        assert not any(line in shown for line in lines)
    with pytest.raises(TypeError, match="is not pickled"):
        pickle.dumps(tls)
    for unpicklable in (tls.context(), tls.now()):
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(unpicklable)
    assert pickle.loads(pickle.dumps(tls.certificate)) == copy.copy(tls.certificate) == tls.certificate  # noqa: S301 - our own
