"""Lines 30 to 34 of the list: the token goes to its origins, whatever a URL, a redirect or a setting says."""

from typing import Any

import httpx
import httpx2
import pytest

from s2s_fastapi import ConfigurationError, KeycloakSettings, ServiceTokenAuth, TokenWithheld, service_client
from s2s_fastapi.testing import EmbeddedIssuer
from tests.attacks.caller.stack import TLS, Send, asked, in_asyncio, within
from tests.caller.fakes import Receiver

pytestmark = pytest.mark.usefixtures("source")

PACKAGES = [httpx, httpx2]


def looks_alike(bob: Receiver) -> dict[str, str]:
    port = bob.url.rpartition(":")[2]
    return {
        "another port": f"http://127.0.0.1:{int(port) ^ 1}/",
        "another host": f"http://localhost:{port}/",
        "a longer host": f"http://127.0.0.1.evil.example:{port}/",
        "a user name": f"http://bob@127.0.0.1:{port}/",
        "a password": f"http://bob:x@127.0.0.1:{port}/",
        "an empty password": f"http://:x@127.0.0.1:{port}/",
        "our origin as a user name": f"http://127.0.0.1:{port}@127.0.0.1:{int(port) ^ 1}/",
        "a trailing dot": f"http://127.0.0.1.:{port}/",
        "IPv6": f"http://[::1]:{port}/",
        "IPv4 within IPv6": f"http://[::ffff:127.0.0.1]:{port}/",
        "one number": f"http://2130706433:{port}/",
        "short": f"http://127.1:{port}/",
        "full width": f"http://\uff11\uff12\uff17.0.0.1:{port}/",
        "https": f"https://127.0.0.1:{port}/",
        "ftp": f"ftp://127.0.0.1:{port}/",
        "a relative URL": "//evil.example/x",
    }


@pytest.mark.parametrize("spelling", looks_alike(Receiver(40000)))
def test_a_request_to_what_looks_alike_is_not_sent_at_all(
    spelling: str, send: Send, bob: Receiver, issuer: EmbeddedIssuer
) -> None:
    with pytest.raises((TokenWithheld, httpx.InvalidURL, httpx2.InvalidURL)):
        send(ServiceTokenAuth(bob.url, audience="receiver"), "GET", looks_alike(bob)[spelling])
    assert (bob.seen, asked(issuer)) == ([], ())


@pytest.mark.parametrize("package", PACKAGES)
def test_an_absolute_url_does_not_take_the_clients_token_along(package: Any, bob: Receiver, charles: Receiver) -> None:
    with service_client(bob.url, audience="receiver", client_class=package.AsyncClient) as client:
        assert client.get("/").status_code == 200
        with pytest.raises(TokenWithheld):
            client.get(f"{charles.url}/")
        client.get(f"//{charles.url.partition('//')[2]}/")  # httpx takes it for a path
        client.base_url = charles.url
        with pytest.raises(TokenWithheld):
            client.get("/")
    assert (len(bob.seen), charles.seen) == (2, [])


def test_a_request_hook_that_moves_the_request_takes_no_token_with_it(bob: Receiver, charles: Receiver) -> None:
    def move(request: httpx.Request) -> None:
        request.url = httpx.URL(charles.url)

    with service_client(bob.url, audience="receiver", event_hooks={"request": [move]}) as client:
        client.get("/")
    assert (bob.seen, charles.tokens) == ([], [None])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("package", PACKAGES)
def test_a_chain_of_redirects_out_and_back_shows_the_token_to_nobody_else(
    package: Any, status: int, bob: Receiver, charles: Receiver
) -> None:
    bob.answers = [(status, {"Location": f"{charles.url}/there"}, b"")]
    charles.answers = [
        (status, {"Location": f"{charles.url}/further"}, b""),
        (status, {"Location": f"{bob.url}/back"}, b""),
    ]
    client = service_client(bob.url, audience="receiver", client_class=package.AsyncClient, follow_redirects=True)
    with client as opened:
        assert opened.post("/", content=b"text").status_code == 200

    token = f"Bearer {client.auth.token()}"
    assert charles.tokens == [None, None]
    assert bob.tokens == [token, None], "back again it comes without, rather than with somebody else's word"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_redirect_to_a_user_name_at_our_own_origin_shows_nothing(package: Any, bob: Receiver) -> None:
    bob.answers = [(307, {"Location": bob.url.replace("//", "//eve@")}, b"")]
    client = service_client(bob.url, audience="receiver", client_class=package.AsyncClient, follow_redirects=True)
    with client as opened:
        opened.get("/")
    assert bob.tokens[0] == f"Bearer {client.auth.token()}"
    assert bob.tokens[1] != bob.tokens[0]


def test_plain_http_is_only_where_it_was_written(issuer: EmbeddedIssuer) -> None:
    auth = ServiceTokenAuth("https://bob.example", audience="receiver")
    for url in ("http://bob.example/", "http://bob.example:443/", "http://bob.example:80/"):
        with pytest.raises(TokenWithheld):
            next(auth.sync_auth_flow(httpx.Request("GET", url)))
    assert asked(issuer) == ()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_websocket_in_clear_is_only_where_http_was_written(package: Any) -> None:
    for written, url in (
        ("https://bob.example", "ws://bob.example/"),
        ("https://bob.example", "ws://bob.example:443/"),
        ("wss://bob.example", "http://bob.example/"),
        ("http://bob.example", "wss://bob.example/"),
        ("http://bob.example", "ws://bob.example.evil/"),
        ("http://bob.example", "ws://u:p@bob.example/"),
    ):
        with pytest.raises(TokenWithheld):
            next(ServiceTokenAuth(written).sync_auth_flow(package.Request("GET", url)))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_token_is_in_no_other_header_and_not_in_the_url(package: Any, bob: Receiver) -> None:
    auth = ServiceTokenAuth(bob.url, audience="receiver")
    response = within(package, in_asyncio)(auth, "GET", f"{bob.url}/x?y=1")

    token = auth.token()
    assert [name for name, value in response.request.headers.items() if token in value] == ["authorization"]
    assert token not in str(response.request.url)


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://keycloak", "keycloak:8080", "//keycloak", "http://u:p@keycloak", "http://keycloak?x", "http://keycloak#x", ""],
)  # fmt: skip
def test_a_token_url_is_http_or_https_and_nothing_but_an_address(url: str) -> None:
    with pytest.raises(ConfigurationError):
        KeycloakSettings(url=url, realm="corp", client_id="caller", client_secret="x")


def test_a_plain_client_may_follow_its_redirects_too(bob: Receiver, charles: Receiver) -> None:
    bob.answers = [(307, {"Location": charles.url}, b"")]
    with httpx.Client(auth=ServiceTokenAuth(bob.url, audience="receiver"), verify=TLS, follow_redirects=True) as client:
        client.get(bob.url)
    assert charles.tokens == [None]
