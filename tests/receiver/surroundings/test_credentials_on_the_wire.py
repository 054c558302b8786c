"""Credentials as bytes on a socket: what each server makes of them, and what we then make of that (RFC 6750 sections 2 and 3.1)."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request

from s2s_fastapi import ServiceAuthMiddleware
from tests.kit.realm import Realm, settings
from tests.receiver.surroundings.servers import HYPERCORN, UVICORN, Address, Said, served

NOTHING = (401, 'Bearer realm="crm-api-gateway"')
MALFORMED = (400, 'Bearer realm="crm-api-gateway", error="invalid_request"')


class Service:
    """An app on a real server, and a token for it."""

    def __init__(self, address: Address, token: bytes, ran: list[bytes]) -> None:
        self.address = address
        self.token = token
        self.ran = ran

    def say(self, *headers: bytes, target: bytes = b"/x", method: bytes = b"GET", body: bytes = b"") -> Said:
        """Send a request in which ``@`` stands for the token."""
        self.ran.clear()
        filled = [header.replace(b"@", self.token) for header in headers]
        return self.address.say(
            target.replace(b"@", self.token), *filled, method=method, body=body.replace(b"@", self.token)
        )


@pytest.fixture(scope="module", params=[*UVICORN, HYPERCORN[0]])
def service(request: Any) -> Iterator[Service]:
    realm, app, ran = Realm(), FastAPI(openapi_url=None), list[bytes]()
    app.add_middleware(ServiceAuthMiddleware, settings(), transport=realm.transport)

    @app.api_route("/x", methods=["GET", "POST"])
    async def route(request: Request) -> str:
        ran.append(await request.body())
        return str(request.user.client_id)

    token = realm.token(exp=realm.claims()["iat"] + 3600).encode()
    with served(app, request.param) as address:
        yield Service(address, token, ran)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"Authorization: Bearer @", id="as everybody writes it"),
        pytest.param(b"Authorization: bearer @", id="lower case"),
        pytest.param(b"Authorization: BEARER @", id="upper case"),
        pytest.param(b"Authorization: Bearer  @", id="two spaces"),
        pytest.param(b"Authorization: Bearer @ ", id="a space behind"),
        pytest.param(b"Authorization: Bearer @\t", id="a tab behind"),
        pytest.param(b"Authorization:Bearer @", id="no space behind the colon"),
        pytest.param(b"Authorization: \t Bearer @", id="white space before the scheme"),
        pytest.param(b"aUTHORIZATION: Bearer @", id="the name in another case"),
    ],
)
def test_one_token_in_one_header_is_found(service: Service, header: bytes) -> None:
    said = service.say(header)
    assert (said.status, said.body) == (200, b'"chat-app-service"')


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="no header"),
        pytest.param([b"Authorization:"], id="an empty header"),
        pytest.param([b"Authorization:  \t"], id="a blank header"),
        pytest.param([b"Authorization: Basic dXNlcjpwYXNz"], id="Basic"),
        pytest.param([b"Authorization: Bearerx @"], id="a longer scheme"),
        pytest.param([b"Authorization: DPoP @"], id="another scheme with the same token"),
        pytest.param([b"Authorization: @"], id="the token alone"),
        pytest.param([b"Authorization: \xc2\xa0Bearer @"], id="a no-break space before the scheme"),
        pytest.param([b"Authorization: B\xd0\xb5arer @"], id="a Cyrillic letter in the scheme"),
        pytest.param([b"Proxy-Authorization: Bearer @"], id="the header for a proxy"),
        pytest.param([b"X-Forwarded-Authorization: Bearer @"], id="a header of some proxy"),
        pytest.param([b"Authorization_: Bearer @"], id="another name"),
        pytest.param([b"Cookie: Authorization=Bearer @; access_token=@"], id="a cookie"),
        pytest.param([b"Sec-WebSocket-Protocol: bearer, @"], id="a subprotocol"),
    ],
)
def test_what_is_no_bearer_token_in_the_header_is_no_credential(service: Service, headers: list[bytes]) -> None:
    said = service.say(*headers)
    assert (said.status, said.challenge) == NOTHING
    assert service.ran == []


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"Authorization: Bearer", id="no token"),
        pytest.param(b"Authorization: Bearer  ", id="spaces for a token"),
        pytest.param(b"Authorization: Bearer\t@", id="a tab between"),
        pytest.param(b"Authorization: Bearer \t@", id="a space and a tab between"),
        pytest.param(b"Authorization: Bearer @ @", id="two tokens"),
        pytest.param(b"Authorization: Bearer @, Bearer @", id="two credentials in one header"),
        pytest.param(b"Authorization: Bearer @,", id="a comma behind"),
        pytest.param(b'Authorization: Bearer "@"', id="quoted"),
        pytest.param(b"Authorization: Bearer @\xe9", id="an accent in Latin-1"),
        pytest.param(b"Authorization: Bearer @\xc3\xa9", id="an accent in UTF-8"),
        pytest.param(b"Authorization: Bearer @\xff\xfe", id="bytes of no encoding"),
        pytest.param(b"Authorization: Bearer @\xc2\xa0", id="a no-break space behind"),
        pytest.param(b"Authorization: Bearer @%0d%0aX-Admin: 1", id="an escaped line break"),
        pytest.param(b"Authorization: Bearer " + b"a" * (16 * 1024 + 1), id="over 16 KB"),
    ],
)
def test_bearer_credentials_that_are_not_one_token_are_a_bad_request(service: Service, header: bytes) -> None:
    said = service.say(header)
    assert (said.status, said.challenge) == MALFORMED
    assert said.body == b'{"detail":"The credentials of the request are malformed or given more than once."}'
    assert service.ran == []


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"Authorization: Bearer @\x00", id="NUL"),
        pytest.param(b"Authorization: Bearer @\rX-Admin: 1", id="CR alone"),
        pytest.param(b"Authorization: Bearer a\r\n @", id="folded between two words"),
        pytest.param(b"Authorization : Bearer @", id="a space before the colon"),
    ],
)
def test_what_no_header_may_contain_is_refused_by_the_server_or_by_us(service: Service, header: bytes) -> None:
    said = service.say(header)
    assert said.status in {400, 401, 0}
    assert service.ran == []


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([b"Authorization: Bearer @"] * 2, id="the same twice"),
        pytest.param([b"Authorization: Bearer @", b"authorization: Bearer x"], id="two, in different letters"),
        pytest.param([b"Authorization: Basic dXNlcjpwYXNz", b"Authorization: Bearer @"], id="Basic first"),
        pytest.param([b"Authorization: Bearer @", b"Authorization: Basic dXNlcjpwYXNz"], id="Basic second"),
        pytest.param([b"Authorization: Bearer @", b"Authorization:"], id="an empty one beside"),
    ],
)
def test_two_authorization_headers_are_never_a_choice(service: Service, headers: list[bytes]) -> None:
    said = service.say(*headers)
    assert (said.status, said.challenge) == MALFORMED
    assert service.ran == []


QUERIES = [
    b"access_token=@",
    b"access%5Ftoken=@",
    b"access%5ftoken=@",
    b"%61ccess_token=@",
    b"%61%63%63%65%73%73%5F%74%6F%6B%65%6E=@",
    b"page=1&access_token=@",
    b"page=1;access_token=@",
    b"access_token=",
    b"access_token=@&access_token=@",
]


@pytest.mark.parametrize("query", QUERIES)
def test_a_token_in_the_query_beside_the_header_is_a_bad_request(service: Service, query: bytes) -> None:
    said = service.say(b"Authorization: Bearer @", target=b"/x?" + query)
    assert (said.status, said.challenge) == MALFORMED
    assert service.ran == []


@pytest.mark.parametrize("query", QUERIES)
def test_a_token_in_the_query_alone_is_no_credential(service: Service, query: bytes) -> None:
    said = service.say(target=b"/x?" + query)
    assert (said.status, said.challenge) == NOTHING
    assert service.ran == []


@pytest.mark.tells_secrets(
    "any other name is the app's own, and FastAPI's span shows it", "span GET /x, attribute url.query"
)
@pytest.mark.parametrize("query", [b"my_access_token=@", b"access_tokens=@", b"x=access_token", b"x=a?access_token=1"])
def test_a_query_of_something_else_does_not_matter(service: Service, query: bytes) -> None:
    assert service.say(b"Authorization: Bearer @", target=b"/x?" + query).status == 200


class TestATokenInAForm:
    """RFC 6750 section 2.2: whoever read it there would take the body from the app."""

    def headers(self, service: Service, *more: bytes) -> list[bytes]:
        length = len(b"access_token=" + service.token)
        return [b"Content-Type: application/x-www-form-urlencoded", b"Content-Length: %d" % length, *more]

    def test_alone_is_no_credential(self, service: Service) -> None:
        said = service.say(*self.headers(service), method=b"POST", body=b"access_token=@")
        assert (said.status, said.challenge) == NOTHING
        assert service.ran == []

    def test_beside_the_header_is_the_apps_own_business_and_reaches_it_whole(self, service: Service) -> None:
        headers = self.headers(service, b"Authorization: Bearer @")
        assert service.say(*headers, method=b"POST", body=b"access_token=@").status == 200
        assert service.ran == [b"access_token=" + service.token]

    def test_beside_header_and_query_is_a_bad_request(self, service: Service) -> None:
        headers = self.headers(service, b"Authorization: Bearer @")
        said = service.say(*headers, target=b"/x?access_token=@", method=b"POST", body=b"access_token=@")
        assert (said.status, said.challenge) == MALFORMED
        assert service.ran == []


def test_headers_that_name_a_caller_name_nobody(service: Service) -> None:
    spoofed = [b"X-Caller: admin", b"X-Forwarded-User: admin", b"X-User: admin", b"s2s_fastapi.authenticated: admin"]
    assert service.say(*spoofed).status == 401
    assert service.say(*spoofed, b"Authorization: Bearer @").body == b'"chat-app-service"'
