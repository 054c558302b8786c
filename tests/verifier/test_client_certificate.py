"""The certificate in a request: each form of each proxy, what is malformed in it, and when it does not count."""

import asyncio
import os
import pickle
from base64 import b64encode
from collections import deque
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from s2s_fastapi import CertificateHeader, ConfigurationError, Reason
from s2s_fastapi.decision import Decision
from s2s_fastapi.verifier.client_certificate import ClientCertificates, MatchedCertificate
from tests.kit.certificates import Authority, tiny

CA = Authority()
GOOD, OTHER = CA.client("chat-app-service"), CA.client("billing")
TINY = tiny("chat")
SECRET = "s" * 16 + "0123456789abcdef"
Form = Literal["rfc9440", "envoy", "nginx", "traefik"]
FORMS: tuple[Form, ...] = ("rfc9440", "envoy", "nginx", "traefik")


def header(form: Form, file: Path, name: str = "Client-Cert") -> CertificateHeader:
    return CertificateHeader(name, form, secret_header="X-Proxy-Secret", secret_file=file)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "proxy-secret"
    file.write_text(f"{SECRET}\n")
    return file


def scope(*headers: tuple[str, str], secret: str | None = SECRET, client: Any = ("10.0.0.5", 4321)) -> dict[str, Any]:
    pairs = [*headers, *([("x-proxy-secret", secret)] if secret is not None else [])]
    return {
        "type": "http",
        "client": client,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in pairs],
    }


def cure(found: MatchedCertificate | Decision) -> str:
    assert isinstance(found, Decision)
    assert found.reason is Reason.CERTIFICATE_MISSING
    return found.cure


@pytest.mark.parametrize("form", FORMS)
def test_each_form_names_the_certificate_and_no_other(form: Form, secret: Path) -> None:
    certificates = ClientCertificates(header(form, secret))
    good = certificates.matched(scope(("client-cert", GOOD.form(form))), GOOD.thumbprint)
    assert good == MatchedCertificate(GOOD.thumbprint)
    other = certificates.matched(scope(("client-cert", OTHER.form(form))), GOOD.thumbprint)
    assert isinstance(other, Decision)
    assert other.reason is Reason.WRONG_CERTIFICATE
    assert OTHER.thumbprint in other.cure


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("other", FORMS)
def test_a_form_is_not_taken_for_another_one(form: Form, other: Form, secret: Path) -> None:
    found = ClientCertificates(header(form, secret)).matched(scope(("client-cert", GOOD.form(other))), GOOD.thumbprint)
    assert isinstance(found, MatchedCertificate) == (form == other)


@pytest.mark.parametrize("form", FORMS)
def test_a_certificate_of_less_than_256_bytes_counts(form: Form, secret: Path) -> None:
    """Its length in DER takes one byte: Ed25519 and a short name."""
    assert TINY.der[:2] == b"\x30\x81"
    found = ClientCertificates(header(form, secret)).matched(scope(("client-cert", TINY.form(form))), TINY.thumbprint)
    assert isinstance(found, MatchedCertificate)


HASH = GOOD.envoy.split("Hash=")[1][:64]
CERT = GOOD.envoy.split(";")[2]
MALFORMED: dict[Form, dict[str, str]] = {
    "rfc9440": {
        "no colons": GOOD.traefik,
        "one colon": GOOD.rfc9440[:-1],
        "a colon alone": ":",
        "nothing between the colons": "::",
        "no base64": ":!!!!:",
        "padding taken away": GOOD.rfc9440.rstrip(":=") + "x:",
        "base64url": GOOD.rfc9440.replace("+", "-").replace("/", "_") + ":",
        "two in a list": f"{GOOD.rfc9440}, {GOOD.rfc9440}",
        "two in one sequence": f":{b64encode(GOOD.der + GOOD.der).decode()}:",
        "a byte behind": f":{b64encode(GOOD.der + b'x').decode()}:",
        "a byte less": f":{b64encode(GOOD.der[:-1]).decode()}:",
        "a parameter": f"{GOOD.rfc9440};a=b",
        "text": '"certificate"',
        "quoted": f'"{GOOD.rfc9440}"',
        "too long": f":{'A' * 70_000}:",
    },
    "envoy": {
        "two elements": f"{GOOD.envoy},{OTHER.envoy}",
        "ours behind another one": f"{OTHER.envoy},{GOOD.envoy}",
        "an empty second element": f"{GOOD.envoy},",
        "an empty first element": f",{GOOD.envoy}",
        "two hashes": f"Hash={HASH};Hash={HASH}",
        "two hashes in two cases": f"Hash={HASH};hash={HASH}",
        "two certificates": f"{CERT};{CERT}",
        "a hash and another certificate": f"Hash={HASH};{OTHER.envoy.split(';')[2]}",
        "neither": 'By=spiffe://acme/crm;Subject="CN=chat"',
        "a short hash": f"Hash={HASH[:-2]}",
        "a hash that is none": f"Hash={'g' * 64}",
        "an unquoted comma": f"Hash={HASH};URI=spiffe://a,b",
        "a quote that does not end": f'Hash={HASH};Subject="CN=a',
        "a quote in the middle": f'Hash={HASH};Subject=a"b"',
        "a semicolon at the end": f"Hash={HASH};",
        "no pairs": HASH,
        "a space": f"Hash={HASH} ",
        "a chain in the certificate": 'Cert="' + GOOD.nginx + OTHER.nginx + '"',
    },
    "nginx": {
        "not escaped": GOOD.pem.replace("\n", " "),
        "a percent sign alone": GOOD.nginx + "%",
        "escaped twice": GOOD.nginx.replace("%", "%25"),
        "two certificates": GOOD.nginx + OTHER.nginx,
        "something before it": "x" + GOOD.nginx,
        "something behind it": GOOD.nginx + "x",
        "no end": GOOD.nginx.split("END")[0],
        "a key": GOOD.nginx.replace("CERTIFICATE", "PRIVATE%20KEY"),
        "no base64": GOOD.nginx.replace("MII", "MI"),
        "null": "(null)",
    },
    "traefik": {
        "two certificates": f"{GOOD.traefik},{OTHER.traefik}",
        "a comma behind": f"{GOOD.traefik},",
        "escaped": GOOD.traefik.replace("=", "%3D").replace("+", "%2B") + "%3D",
        "with its lines": GOOD.nginx,
        "no base64": "certificate",
        "a space behind": f"{GOOD.traefik} x",
        "not DER": b64encode(b"certificate").decode(),
        "a short sequence": b64encode(b"\x30\x03abc").decode(),
        "a byte behind a small one": b64encode(TINY.der + b"x").decode(),
    },
}


@pytest.mark.parametrize(("form", "row"), [(form, row) for form, rows in MALFORMED.items() for row in rows])
def test_what_is_not_exactly_one_certificate_is_none(form: Form, row: str, secret: Path) -> None:
    found = ClientCertificates(header(form, secret)).matched(
        scope(("client-cert", MALFORMED[form][row])), GOOD.thumbprint
    )
    assert "exactly one certificate" in cure(found)


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("envoy", f"Hash={HASH}"),
        ("envoy", f"hash={HASH.upper()};By="),
        ("envoy", CERT),
        ("envoy", f'Hash={HASH};DNS=a;DNS=b;Chain="x"'),
        ("nginx", GOOD.nginx.replace("%0A", "%0D%0A")),
        ("nginx", GOOD.nginx.removesuffix("%0A")),
        ("rfc9440", f" {GOOD.rfc9440}"),
    ],
    ids=range(7),  # the certificates are new in each process
)
def test_other_spellings_that_proxies_send_count(form: Form, value: str, secret: Path) -> None:
    found = ClientCertificates(header(form, secret)).matched(scope(("client-cert", value)), GOOD.thumbprint)
    assert isinstance(found, MatchedCertificate)


class TestTheHeader:
    @pytest.fixture
    def certificates(self, secret: Path) -> ClientCertificates:
        return ClientCertificates(header("rfc9440", secret))

    def test_is_there_once(self, certificates: ClientCertificates) -> None:
        one = ("client-cert", GOOD.rfc9440)
        for second in (GOOD.rfc9440, OTHER.rfc9440, ""):
            for pair in (("client-cert", second), ("Client-Cert", second)):
                assert "2 fields" in cure(certificates.matched(scope(one, pair), GOOD.thumbprint))
                assert "2 fields" in cure(certificates.matched(scope(pair, one), GOOD.thumbprint))

    def test_is_read_up_to_64_kb(self, certificates: ClientCertificates) -> None:
        for size, said in ((64 * 1024, "it is not one byte sequence"), (64 * 1024 + 1, "longer than 64 KB")):
            assert said in cure(certificates.matched(scope(("client-cert", "A" * size)), GOOD.thumbprint))

    def test_that_is_missing_or_empty_is_no_certificate(self, certificates: ClientCertificates) -> None:
        for headers in ([], [("client-cert", "")]):
            assert "came without one" in cure(certificates.matched(scope(*headers), GOOD.thumbprint))

    def test_of_another_name_is_not_read(self, certificates: ClientCertificates) -> None:
        for name in ("client_cert", "x-client-cert", "client-cert-chain"):
            assert "came without one" in cure(certificates.matched(scope((name, GOOD.rfc9440)), GOOD.thumbprint))


class TestTheSecret:
    @pytest.mark.parametrize(
        "sent", [None, "", SECRET[:-1], SECRET + "x", SECRET.upper(), f" {SECRET}", "\xe9" * 32, "*"]
    )
    def test_without_it_no_certificate_counts(self, sent: str | None, secret: Path) -> None:
        certificates = ClientCertificates(header("rfc9440", secret))
        found = certificates.matched(scope(("client-cert", GOOD.rfc9440), secret=sent), GOOD.thumbprint)
        said = cure(found)
        assert "secret of the proxy" in said
        assert SECRET not in said

    def test_is_there_once(self, secret: Path) -> None:
        certificates = ClientCertificates(header("rfc9440", secret))
        twice = scope(("client-cert", GOOD.rfc9440), ("x-proxy-secret", SECRET))
        assert "has 2" in cure(certificates.matched(twice, GOOD.thumbprint))

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\n",
            b"s" * 31,
            b"s" * 31 + b"\n",
            b"s" * 32 + b"\nshort\n",
            b"s" * 31 + b"\xe9",
            b"s" * 16 + b" " + b"s" * 16,
            b"s" * 4097,
        ],
        ids=lambda content: f"{content[:3]!r} {len(content)}",
    )
    def test_that_is_too_short_or_no_text_stops_the_start(self, content: bytes, secret: Path) -> None:
        secret.write_bytes(content)
        with pytest.raises(ConfigurationError, match="secret_file") as caught:
            ClientCertificates(header("rfc9440", secret))
        assert "sss" not in str(caught.value)

    def test_of_32_bytes_is_long_enough(self, secret: Path) -> None:
        secret.write_bytes(b"s" * 32)
        sent = scope(("client-cert", GOOD.rfc9440), secret="s" * 32)
        found = ClientCertificates(header("rfc9440", secret)).matched(sent, GOOD.thumbprint)
        assert isinstance(found, MatchedCertificate)

    def test_file_that_is_missing_or_a_folder_stops_the_start(self, tmp_path: Path) -> None:
        for path in (tmp_path / "absent", tmp_path):
            with pytest.raises(ConfigurationError, match="secret_file"):
                ClientCertificates(header("rfc9440", path))

    def test_is_read_again_when_the_file_changes(self, secret: Path) -> None:
        certificates = ClientCertificates(header("rfc9440", secret))
        old, new = (scope(("client-cert", GOOD.rfc9440), secret=each) for each in (SECRET, "n" * 40))
        assert isinstance(certificates.matched(old, GOOD.thumbprint), MatchedCertificate)
        secret.write_text(f"{'n' * 40}\n{SECRET}\n")  # while the proxies change over
        assert isinstance(certificates.matched(old, GOOD.thumbprint), MatchedCertificate)
        assert isinstance(certificates.matched(new, GOOD.thumbprint), MatchedCertificate)
        secret.with_name("next").write_text("n" * 40)
        secret.with_name("next").replace(secret)
        assert "another value" in cure(certificates.matched(old, GOOD.thumbprint))
        assert isinstance(certificates.matched(new, GOOD.thumbprint), MatchedCertificate)

    def test_is_read_again_if_only_its_bytes_changed(self, secret: Path) -> None:
        """A copy that keeps the times, of the same size, into the same file: the old secret is withdrawn all the same."""
        certificates = ClientCertificates(header("rfc9440", secret))
        old = scope(("client-cert", GOOD.rfc9440))
        assert isinstance(certificates.matched(old, GOOD.thumbprint), MatchedCertificate)
        before = secret.stat()
        while secret.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of a file system ticks every few ms
            secret.write_text(f"{'n' * len(SECRET)}\n")
            os.utime(secret, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = secret.stat()
        assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
        assert "another value" in cure(certificates.matched(old, GOOD.thumbprint))

    def test_that_cannot_be_read_any_more_lets_nobody_in(self, secret: Path) -> None:
        certificates = ClientCertificates(header("rfc9440", secret))
        request = scope(("client-cert", GOOD.rfc9440))
        secret.unlink()
        assert "cannot be read" in cure(certificates.matched(request, GOOD.thumbprint))
        secret.write_text("short")
        assert "at least 32" in cure(certificates.matched(request, GOOD.thumbprint))
        assert "at least 32" in cure(certificates.matched(request, GOOD.thumbprint))  # it is not read again
        secret.write_text(SECRET)
        assert isinstance(certificates.matched(request, GOOD.thumbprint), MatchedCertificate)

    def test_may_be_behind_a_link_that_is_swapped(self, secret: Path) -> None:
        link = secret.with_name("link")
        link.symlink_to(secret)
        certificates = ClientCertificates(header("rfc9440", link))
        secret.with_name("second").write_text("n" * 40)
        secret.with_name("swap").symlink_to(secret.with_name("second"))
        secret.with_name("swap").replace(link)
        new = scope(("client-cert", GOOD.rfc9440), secret="n" * 40)
        assert isinstance(certificates.matched(new, GOOD.thumbprint), MatchedCertificate)

    def test_stands_in_nothing_that_is_printed_or_pickled(self, secret: Path) -> None:
        source = header("rfc9440", secret)
        certificates = ClientCertificates(source)
        assert SECRET not in f"{source!r}{source}{certificates!r}{vars(certificates)!r}"
        assert SECRET.encode() not in pickle.dumps(source)
        assert pickle.loads(pickle.dumps(source)) == source  # noqa: S301 - our own bytes
        assert SECRET.encode() not in pickle.dumps(certificates)
        again = pickle.loads(pickle.dumps(certificates))  # noqa: S301 - our own bytes
        assert isinstance(again.matched(scope(("client-cert", GOOD.rfc9440)), GOOD.thumbprint), MatchedCertificate)


class TestTheAddress:
    """If the server believes proxy headers, the address of the connection is what anybody writes: even with the secret nothing counts."""

    @pytest.mark.parametrize(
        ("client", "name", "value"),
        [
            ("10.0.0.5", "x-forwarded-for", "10.0.0.5"),
            ("10.0.0.5", "x-forwarded-for", "10.0.0.5:44321"),
            ("10.0.0.5", "x-forwarded-for", "203.0.113.9, 10.0.0.5"),
            ("10.0.0.5", "X-Forwarded-For", "203.0.113.9,10.0.0.5 ,192.0.2.1"),
            ("10.0.0.5", "x-forwarded-for", '"10.0.0.5"'),
            ("10.0.0.5", "x-forwarded-for", "::ffff:10.0.0.5"),
            ("::ffff:10.0.0.5", "x-forwarded-for", "10.0.0.5"),
            ("2001:db8::1", "x-forwarded-for", "[2001:DB8:0::1]:443"),
            ("2001:db8::1", "x-forwarded-for", "2001:db8::1"),
            ("caller.example", "x-forwarded-for", "CALLER.example"),
            ("10.0.0.5", "forwarded", "for=10.0.0.5"),
            ("10.0.0.5", "forwarded", 'proto=https;For="10.0.0.5:443"'),
            ("10.0.0.5", "forwarded", "for=203.0.113.9, for=10.0.0.5;by=192.0.2.1"),
            ("2001:db8::1", "forwarded", 'for="[2001:db8::1]:443"'),
            ("caller.example", "x-forwarded-for", "203.0.113.9"),  # no connection has such an address
            ("10.0.0.5 ", "x-forwarded-for", "10.0.0.5 :80"),
            ('10.0.0.5"', "x-forwarded-for", '10.0.0.5":80'),
            ("10.0.0.5:5", "x-forwarded-for", "[10.0.0.5:5]:80"),
            ("[10.0.0.5", "x-forwarded-for", "[[10.0.0.5]:80"),
            (" 2001:db8::1 ", "x-forwarded-for", "[ 2001:db8::1 ]:80"),
        ],
    )
    def test_that_also_stands_in_a_header_was_taken_from_there(
        self, client: str, name: str, value: str, secret: Path
    ) -> None:
        certificates = ClientCertificates(header("rfc9440", secret))
        request = scope(("client-cert", GOOD.rfc9440), (name, value), client=(client, 0))
        assert "--no-proxy-headers" in cure(certificates.matched(request, GOOD.thumbprint))
        request = scope(("client-cert", GOOD.rfc9440), (name, "192.0.2.77"), (name, value), client=[client, 0])
        assert "--no-proxy-headers" in cure(certificates.matched(request, GOOD.thumbprint))

    @given(
        value=st.lists(
            st.sampled_from(
                [
                    "203.0.113.9",
                    "2001:db8::1",
                    "::ffff:203.0.113.9",
                    "127.0.0.1",
                    *'[]:,"% \t\xa0\x851',
                    ":80",
                    "::",
                    "%eth0",
                ]
            ),
            max_size=9,
        ).map("".join),
        trusted=st.sampled_from(["*", "127.0.0.1"]),
    )
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
    def test_that_uvicorn_takes_from_a_header_is_found_in_every_spelling(
        self, value: str, trusted: str, secret: Path
    ) -> None:
        request = scope(("client-cert", GOOD.rfc9440), ("x-forwarded-for", value), client=("127.0.0.1", 4321))
        seen: list[Any] = []

        async def app(given: Any, receive: object, send: object) -> None:
            seen.append(given["client"])

        asyncio.run(ProxyHeadersMiddleware(app, trusted)(cast("Any", request), cast("Any", None), cast("Any", None)))
        if seen == [("127.0.0.1", 4321)]:
            return  # it took nothing
        found = ClientCertificates(header("rfc9440", secret)).matched(request, GOOD.thumbprint)
        assert "--no-proxy-headers" in cure(found)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("x-forwarded-for", "203.0.113.9," * 101),
            ("x-forwarded-for", "," * 60_000),
            ("forwarded", "for=203.0.113.9," * 101),
        ],
        ids=["addresses", "commas", "forwarded"],
    )
    def test_is_not_looked_for_among_more_than_100(self, name: str, value: str, secret: Path) -> None:
        """Callers write them: to read 60 KB of them takes most of a second of the event loop."""
        certificates = ClientCertificates(header("rfc9440", secret))
        request = scope(("client-cert", GOOD.rfc9440), (name, value))
        assert "more than 100" in cure(certificates.matched(request, GOOD.thumbprint))

    @pytest.mark.parametrize(
        ("client", "name", "value"),
        [
            (("10.0.0.5", 1), "x-forwarded-for", ", ".join(["203.0.113.9"] * 100)),
            (("testclient", 1), "x-forwarded-host", "crm.example"),
            (("10.0.0.5", 1), "x-forwarded-for", "203.0.113.9"),
            (("10.0.0.5", 1), "x-forwarded-for", "10.0.0.50, 110.0.0.5"),
            (("10.0.0.5", 1), "forwarded", "for=203.0.113.9;by=10.0.0.5;host=10.0.0.5"),
            (("10.0.0.5", 1), "x-forwarded-host", "10.0.0.5"),
            (None, "x-forwarded-for", "203.0.113.9"),
            (("", 0), "x-forwarded-for", "203.0.113.9, "),
        ],
    )
    def test_of_the_proxy_itself_is_right(self, client: Any, name: str, value: str, secret: Path) -> None:
        certificates = ClientCertificates(header("rfc9440", secret))
        request = scope(("client-cert", GOOD.rfc9440), (name, value), client=client)
        assert isinstance(certificates.matched(request, GOOD.thumbprint), MatchedCertificate)


class TestTheTlsExtension:
    def found(self, extensions: Any) -> MatchedCertificate | Decision:
        asked = {"type": "http", "headers": [], "client": ("10.0.0.5", 1), "extensions": extensions}
        return ClientCertificates("tls").matched(asked, GOOD.thumbprint)

    @pytest.mark.parametrize("chain", [[GOOD.pem], (GOOD.pem, CA.own.pem), [GOOD.pem, OTHER.pem]])
    def test_the_first_of_the_chain_is_the_client_s(self, chain: Any) -> None:
        assert isinstance(self.found({"tls": {"client_cert_chain": chain}}), MatchedCertificate)

    def test_another_one_is_not_the_token_s(self) -> None:
        found = self.found({"tls": {"client_cert_chain": [OTHER.pem, GOOD.pem]}})
        assert isinstance(found, Decision)
        assert found.reason is Reason.WRONG_CERTIFICATE

    def test_the_chain_may_be_any_iterable_and_is_there_for_the_next_reader(self) -> None:
        """A mounted app with a middleware of its own reads the same scope again."""
        extensions = {"tls": {"client_cert_chain": (each for each in (GOOD.pem, CA.own.pem))}}
        assert isinstance(self.found(extensions), MatchedCertificate)
        assert isinstance(self.found(extensions), MatchedCertificate)
        assert isinstance(self.found({"tls": {"client_cert_chain": deque([GOOD.pem])}}), MatchedCertificate)

    @pytest.mark.parametrize("extensions", [None, {}, {"tls": None}, {"tls": []}, "tls", {"http.response.push": {}}])
    def test_a_server_without_it_hands_no_certificate_on(self, extensions: Any) -> None:
        assert "uvicorn and hypercorn" in cure(self.found(extensions))

    @pytest.mark.parametrize("chain", [None, [], (), GOOD.pem, [GOOD.der], [None], {GOOD.pem: 1}], ids=range(7))
    def test_no_chain_is_no_certificate(self, chain: Any) -> None:
        assert "came without one" in cure(self.found({"tls": {"client_cert_chain": chain}}))

    @pytest.mark.parametrize("first", ["", "x", GOOD.pem + OTHER.pem, GOOD.nginx, "\xe9"], ids=range(5))
    def test_what_is_no_pem_is_no_certificate(self, first: str) -> None:
        assert "no PEM" in cure(self.found({"tls": {"client_cert_chain": [first]}}))

    def test_what_the_server_did_not_accept_does_not_count(self) -> None:
        tls = {"client_cert_chain": [GOOD.pem], "client_cert_error": "expired\n"}
        assert "did not accept" in cure(self.found({"tls": tls}))

    def test_a_header_is_not_looked_at(self) -> None:
        assert "uvicorn" in cure(
            ClientCertificates("tls").matched(scope(("client-cert", GOOD.rfc9440)), GOOD.thumbprint)
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "Client Cert"},
        {"name": "Client-Cert:"},
        {"name": b"Client-Cert"},
        {"name": "Authorization"},
        {"name": "x-forwarded-for"},
        {"name": "X-Forwarded-Proto"},
        {"name": "X-Real-IP"},
        {"name": "User-Agent"},
        {"secret_header": "Connection"},
        {"secret_header": "Content-Length"},
        {"secret_header": "Transfer-Encoding"},
        {"secret_header": "x secret"},
        {"secret_header": "client-CERT"},
        {"secret_header": "Cookie"},
        {"form": "apache"},
        {"form": ""},
        {"secret_file": ""},
        {"secret_file": None},
    ],
    ids=str,
)
def test_a_header_that_cannot_be_meant_is_refused(wrong: dict[str, Any], secret: Path) -> None:
    right: dict[str, Any] = {
        "name": "Client-Cert",
        "form": "rfc9440",
        "secret_header": "X-Proxy-Secret",
        "secret_file": secret,
    }
    CertificateHeader(**right)
    with pytest.raises(ConfigurationError, match="CertificateHeader"):
        CertificateHeader(**{**right, **wrong})


@pytest.mark.parametrize("source", ["TLS", "", "nginx", True, 1, {"name": "x"}, ["tls"]])
def test_a_source_that_is_none_is_refused(source: Any) -> None:
    with pytest.raises(ConfigurationError, match="client_certificate="):
        ClientCertificates.of(source)


@pytest.mark.parametrize(
    "name",
    ["Client-Cert", "X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert", "X-Client-Cert", "ssl-client-cert"],
)
def test_a_header_of_a_proxy_is_taken(name: str, secret: Path) -> None:
    assert ClientCertificates.of(header("rfc9440", secret, name)) is not None


def test_no_source_is_none() -> None:
    assert ClientCertificates.of(None) is None
