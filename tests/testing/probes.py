"""The same odd requests to two servers with the realms of the stories; what they answer differently.

    different(keycloak.realm, embedded.realm)

Statuses, error bodies and the headers that clients look at are compared; tokens, keys and what only one of the two knows are not.
"""

import json
import socket
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from example_app.realm import Realm

__all__ = ["Probe", "different", "probes"]

_COMPARED = ("content-type", "cache-control", "pragma", "access-control-allow-origin", "access-control-allow-methods")
_ORIGIN = ("Origin", "http://localhost:3000")


@dataclass(frozen=True)
class Probe:
    name: str
    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""


def _basic(pair: bytes) -> tuple[str, str]:
    return "Authorization", f"Basic {b64encode(pair).decode()}"


def probes(realm_of: Callable[[str], Realm]) -> Iterator[Probe]:
    """Yield every request for one server; the names and their order are the same for all."""
    corp, store = realm_of("corp"), realm_of("techstore")
    below = corp.auth_path
    token, shop_token = (f"{below}/realms/{name}/protocol/openid-connect/token" for name in ("corp", "techstore"))
    secret, shop_secret, password = corp.secret("billing"), store.secret("shop-api"), store.password("customer")
    form_type = ("Content-Type", "application/x-www-form-urlencoded")
    good = {"grant_type": "client_credentials", "client_id": "billing", "client_secret": secret}
    login = {"grant_type": "password", "client_id": "shop-ui", "username": "customer", "password": password}

    def post(name: str, body: dict[str, str] | str, *headers: tuple[str, str], path: str = token) -> Probe:
        text = body if isinstance(body, str) else urlencode(body)
        return Probe(name, "POST", path, (form_type, *headers), text)

    plain = urlencode(good)
    for name, body in {
        "a token": plain,
        "no grant_type": "client_id=billing",
        "no grant_type, wrong secret": "client_id=billing&client_secret=x",
        "empty grant_type": "grant_type=",
        "grant_type implicit": "grant_type=implicit",
        "wrong secret": f"{plain}x",
        "nothing but grant_type": "grant_type=client_credentials",
        "no client_id": f"grant_type=client_credentials&client_secret={secret}",
        "empty client_id": f"grant_type=client_credentials&client_id=&client_secret={secret}",
        "no secret": "grant_type=client_credentials&client_id=billing",
        "empty secret": "grant_type=client_credentials&client_id=billing&client_secret=",
        "unknown client": f"grant_type=client_credentials&client_id=nope&client_secret={secret}",
        "client in another case": f"grant_type=client_credentials&client_id=Billing&client_secret={secret}",
        "a field twice": f"{plain}&foo=1&foo=1",
        "audience twice": f"{plain}&audience=1&audience=2",
        "a field twice, wrong secret": f"{plain}x&foo=1&foo=1",
        "a broken escape": f"{plain}&foo=%zz",
        "an escape that is not UTF-8": f"{plain}&foo=%ff",
        "a field without a value": f"{plain}&foo",
        "unknown scope": f"{plain}&scope=nope",
        "empty scope": f"{plain}&scope=",
        "a leading space": f"{plain}&scope=%20basic",
        "a double space": f"{plain}&scope=basic++roles",
        "only spaces": f"{plain}&scope=++",
        "a scope of 4000": f"{plain}&scope={'x' * 4000}",
        "a scope of 4001": f"{plain}&scope={'x' * 4001}",
        "a field of 131072": f"{plain}&foo={'x' * 131_072}",
        "a field of 131073": f"{plain}&foo={'x' * 131_073}",
        "openid": f"{plain}&scope=openid",
    }.items():
        yield post(name, body)
    receiver = good | {"client_id": "crm-api-gateway", "client_secret": corp.secret("crm-api-gateway")}
    yield post("service accounts off", receiver)
    yield post("public client", {"grant_type": "client_credentials", "client_id": "shop-ui"}, path=shop_token)
    yield Probe("a form declared as JSON", "POST", token, (("Content-Type", "application/json"),), plain)
    yield Probe("a form in the query", "POST", f"{token}?{plain}", (form_type,))

    alone = "grant_type=client_credentials"
    raw = f"billing:{secret}".encode()
    for name, header in {
        "Basic": _basic(raw),
        "Basic, encoded": _basic(raw.replace(b"b", b"%62", 1)),
        "Basic, wrong": _basic(raw + b"x"),
        "Basic without a colon": _basic(b"billing"),
        "Basic, not base64": ("Authorization", "Basic !!!"),
        "Basic, not UTF-8": _basic(b"\xff:\xff"),
        "Basic, broken escape": _basic(b"billing:%zz"),
        "basic in lower case": ("Authorization", _basic(raw)[1].replace("Basic", "basic")),
        "Bearer": ("Authorization", "Bearer x"),
    }.items():
        yield post(name, alone, header)
        yield post(f"{name}, and a good form", good, header)
        yield post(f"{name}, and another id in the form", f"{alone}&client_id=chat-app-service", header)
        yield post(f"{name}, and a wrong secret in the form", f"{alone}&client_secret=x", header)

    for name, changes in {
        "a login": {},
        "a login in upper case": {"username": "CUSTOMER"},
        "a login by mail": {"username": "customer@techstore.example"},
        "a wrong password": {"password": "x"},
        "an empty password": {"password": ""},
        "an unknown user": {"username": "nope"},
        "an unknown user and scope": {"username": "nope", "scope": "nope"},
        "a login through a client without its secret": {"client_id": "shop-api"},
        "a login through a client with its secret": {"client_id": "shop-api", "client_secret": shop_secret},
        "a login where it is off": {
            "client_id": "inventory-service",
            "client_secret": store.secret("inventory-service"),
        },
    }.items():
        yield post(name, login | changes, path=shop_token)
    for missing in ("username", "password"):
        yield post(f"no {missing}", {key: value for key, value in login.items() if key != missing}, path=shop_token)
    yield post("a page of the client's origin", login, _ORIGIN, path=shop_token)
    yield post("a page of another origin", login, ("Origin", "http://other:3000"), path=shop_token)
    yield post("a page, wrong secret", f"{plain}x", _ORIGIN)
    yield Probe("a preflight", "OPTIONS", token, (_ORIGIN, ("Access-Control-Request-Method", "POST")))

    realm = f"{below}/realms/corp"
    pages = {
        "certs": f"{realm}/protocol/openid-connect/certs",
        "discovery": f"{realm}/.well-known/openid-configuration",
        "realm": realm,
        "token": token,
    }
    for name, path in pages.items():
        for method in ("GET", "HEAD", "OPTIONS") + (("POST",) if name != "token" else ("PUT", "DELETE", "PATCH")):
            yield Probe(f"{method} {name}", method, path)
        yield Probe(f"{name} with a slash", "GET", f"{path}/")
        yield Probe(f"{name} of no realm", "GET", path.replace("corp", "nope"))
    for path in (
        *("/realms", "/realms/", "/nope", "/realms/Corp", "/realms/corp/nope", "/realms/nope/nope"),
        *("/realms/corp/protocol/nope/certs", "/realms/corp/protocol/openid-connect/nope", "//realms/corp"),
        *("/realms//corp", "/realms/./corp", "/realms/%2e/corp", "/realms/x/../corp", "/realms/corp;x=1"),
        *("/realms/c%6Frp", "/realms/corp%2Fx", "/realms/corp?a=//"),
    ):
        yield Probe(path, "GET", below + path)
    stray = "" if below else "/auth"
    yield Probe("the other auth path", "GET", f"{stray}/realms/corp")


def _ask(server: str, probe: Probe) -> tuple[int, dict[str, str], bytes]:
    """Send one request over a socket of its own: no client in between brings its path into order."""
    where = urlsplit(server)
    body = probe.body.encode()
    lines = [f"{probe.method} {probe.path} HTTP/1.1", f"Host: {where.netloc}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in probe.headers] + [f"Content-Length: {len(body)}", "", ""]
    with socket.create_connection((where.hostname or "", where.port or 80), timeout=30) as connection:
        connection.sendall("\r\n".join(lines).encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, content = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in rest)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return int(first.split()[1]), {name: headers[name] for name in _COMPARED if name in headers}, content


def _seen(answer: tuple[int, dict[str, str], bytes]) -> str:
    status, headers, content = answer
    try:
        members = json.loads(content)
    except ValueError:
        told = content[:60].decode("latin-1")
    else:
        told = json.dumps(members if "error" in members else sorted(members) if "access_token" in members else "...")
    typed = headers.get("content-type", "").replace(" ", "").lower().removesuffix(";charset=utf-8")
    kept = {name: value for name, value in headers.items() if name != "content-type"}
    return f"{status} {typed} {kept} {told}"


def different(one: Callable[[str], Realm], other: Callable[[str], Realm]) -> list[str]:
    """Return a line for each request that two servers answer differently; each is given as its realms by name."""
    lines = []
    for first, second in zip(probes(one), probes(other), strict=True):
        seen = _seen(_ask(one("corp").url, first)), _seen(_ask(other("corp").url, second))
        if seen[0] != seen[1]:
            lines.append(f"{first.name}: {seen[0]} | {seen[1]}")
    return lines
