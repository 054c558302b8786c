"""Lines 50 to 52 of the list: where a secret, a token or an assertion could show itself, and does not."""

import asyncio
import contextlib
import copy
import dataclasses
import gc
import hashlib
import io
import json
import logging
import pickle
import sys
import threading
import traceback
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import httpx2
import pytest
import rich.console
import rich.pretty
import rich.traceback
from joserfc.jwk import ECKey

from s2s_fastapi import (
    KeycloakSettings,
    S2SError,
    ServiceTokenAuth,
    service_auth,
    service_client,
    service_lifespan,
)
from s2s_fastapi.accepted import INBOUND, digest
from s2s_fastapi.caller.token_source import IN_USE, TokenSource, using
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.faults import answering, refusing, with_members
from tests.attacks.caller.stack import TLS, asked, idle, in_asyncio, in_trio
from tests.caller.fakes import INVALID_TOKEN, Clock, Receiver
from tests.testing.asking import SECRET

METHODS = ["client_secret_basic", "client_secret_post", "client_secret_file", "private_key_jwt"]


class Shown:
    """Everything that was shown, by the place that showed it."""

    def __init__(self) -> None:
        self.places: dict[str, str] = {}

    def add(self, place: str, *things: Any) -> None:
        self.places[place] = self.places.get(place, "") + "\n".join(map(str, things))

    def tells(self, needles: dict[str, str]) -> list[tuple[str, str]]:
        return [
            (place, name) for place, text in self.places.items() for name, needle in needles.items() if needle in text
        ]


class Log(logging.Handler):
    """Every record, with the locals of the frames of this package in which it was written, as an error tracker keeps them."""

    def __init__(self, shown: Shown) -> None:
        super().__init__(logging.DEBUG)
        self.shown = shown
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.shown.add(f"log {record.name}", self.format(record), vars(record), record.args)
        frame: Any = sys._getframe()
        while frame.f_back is not None:
            frame = frame.f_back
            if frame.f_globals.get("__name__", "").startswith("s2s_fastapi"):
                self.shown.add(f"frame {frame.f_code.co_name} while {record.name} writes", frame.f_locals)


@pytest.fixture
def shown() -> Iterator[Shown]:
    shown, root = Shown(), logging.getLogger()
    handler, level = Log(shown), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)  # httpx, httpcore and asyncio too
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield shown
        shown.add("warnings", *caught)
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


@pytest.fixture
def method(
    request: pytest.FixtureRequest, issuer: EmbeddedIssuer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> str:
    """Set the environment for one way of client authentication."""
    name = str(request.param)
    if name == "client_secret_file":
        (tmp_path / "secret").write_text(SECRET)
        monkeypatch.delenv("KEYCLOAK_CLIENT_SECRET")
        monkeypatch.setenv("KEYCLOAK_CLIENT_SECRET_FILE", str(tmp_path / "secret"))
    elif name == "private_key_jwt":
        (tmp_path / "key.pem").write_bytes(KEY.as_pem(private=True))
        monkeypatch.delenv("KEYCLOAK_CLIENT_SECRET")
        monkeypatch.setenv("KEYCLOAK_CLIENT_KEY_FILE", str(tmp_path / "key.pem"))
        monkeypatch.setenv("KEYCLOAK_CLIENT_AUTH", name)
    else:
        monkeypatch.setenv("KEYCLOAK_CLIENT_AUTH", name)
    return name


KEY = ECKey.generate_key("P-256")


def needles(issuer: EmbeddedIssuer) -> dict[str, str]:
    """Return what must be nowhere, by name: what is known beforehand, and what went over the wire meanwhile."""
    pair = b64encode(f"caller:{SECRET}".encode()).decode()
    found = {
        "secret": SECRET,
        "secret in base64": b64encode(SECRET.encode()).decode().rstrip("="),
        "secret quoted": quote(SECRET, safe=""),
        "secret as a form writes it": quote_plus(SECRET),
        "id and secret": pair.rstrip("="),
        "private key": str(KEY.as_dict(private=True)["d"]),
        "private key in PEM": KEY.as_pem(private=True).decode().splitlines()[2],
        **{
            f"{name} of the secret": hashlib.new(name, SECRET.encode()).hexdigest()
            for name in ("md5", "sha1", "sha256")
        },
    }
    for number, exchange in enumerate(asked(issuer)):
        if "client_assertion" in exchange.form:
            found[f"assertion {number}"] = exchange.form["client_assertion"].rpartition(".")[2]
        with contextlib.suppress(ValueError):
            token = json.loads(exchange.response.body).get("access_token", "")
            if isinstance(token, str) and len(token) > 40:
                found[f"token {number}"] = token.rpartition(".")[2]
                found[f"digest of token {number}"] = hashlib.sha256(token.encode()).hexdigest()
    return found


def reachable(auth: ServiceTokenAuth) -> dict[str, Any]:
    """Return the objects of a caller that a debugger, a log line or an error tracker may come across."""
    shared: Any = auth._shared()
    client = service_client("http://bob:8000", audience="receiver")
    settings = KeycloakSettings()
    found = {
        "auth": auth,
        "auth for longer": auth.asking(min_validity=30),
        "shared": shared,
        "key": shared._key,
        "authentication": shared._key.authentication,
        "kept": shared._value,
        "held": shared._value._held,
        "loaded": shared._value._held and shared._value._held.loaded,
        "token": shared.peek(),
        "state": shared._value.state(),
        "source": IN_USE.source,
        "environment": auth._environment,
        "settings": settings,
        "client": client,
        "sync": client.sync,
        "dependency": service_auth("http://bob:8000", audience="receiver"),
        "lifespan": service_lifespan(client),
        "longer": auth.asking(min_validity=30)._shared(),
        "proof": shared._key.authentication.prove(),
    }
    return {name: one for name, one in found.items() if one is not None}


def dump(shown: Shown, name: str, one: Any) -> None:
    """Show one object in every way in which Python shows objects."""
    shown.add(f"repr of {name}", repr(one))
    shown.add(f"str of {name}", str(one))
    shown.add(f"f-string of {name}", f"{one} {one!r} {one!s} {one!a}", "%s %r" % (one, one))  # noqa: UP031 - a log's way
    shown.add(f"vars of {name}", getattr(one, "__dict__", None))
    shown.add(f"json of {name}", json.dumps({"value": one}, default=repr))
    shown.add(f"rich of {name}", rich.pretty.pretty_repr(one, max_depth=8))
    if hasattr(one, "model_dump"):
        shown.add(f"pydantic of {name}", one.model_dump(), one.model_dump_json(), one.model_dump(mode="json"))
    for way in (copy.copy, copy.deepcopy):
        with contextlib.suppress(Exception):
            shown.add(f"{way.__name__} of {name}", repr(way(one)))
    if name in ("auth", "auth for longer", "dependency"):  # what users may dump; it carries what they wrote
        shown.add(f"pickle of {name}", pickle.dumps(one))
        if dataclasses.is_dataclass(one) and not isinstance(one, type):
            shown.add(f"dataclass of {name}", dataclasses.asdict(one))


def error(shown: Shown, name: str, failed: BaseException) -> None:
    """Show one exception as a console, a log and an error tracker do, with all that hangs on it."""
    chain: list[BaseException] = []
    one: BaseException | None = failed
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or one.__context__
    for link in chain:
        shown.add(f"exception {name}", str(link), repr(link), vars(link), link.args, getattr(link, "__notes__", ()))
        if isinstance(link, S2SError):  # httpx writes the headers of its requests into the pickles of its errors
            shown.add(f"pickle of exception {name}", pickle.dumps(link))
        frames = traceback.walk_tb(link.__traceback__)
        shown.add(f"locals of {name}", *[_deep(frame.f_locals) for frame, _ in frames if _ours(frame)])
    if isinstance(failed, S2SError):
        assert chain == [failed], "our errors stand alone"
    shown.add(f"traceback {name}", *traceback.TracebackException.from_exception(failed, capture_locals=True).format())
    if "401" in name or "echo" in name:  # a quarter of a second each
        rich_traceback(shown, name, failed)


def rich_traceback(shown: Shown, name: str, failed: BaseException) -> None:
    console = rich.console.Console(file=io.StringIO(), width=400)
    console.print(
        rich.traceback.Traceback.from_exception(
            type(failed),
            failed,
            failed.__traceback__,
            show_locals=True,
            locals_max_string=10_000,
            locals_max_length=100,
        )
    )
    shown.add(f"rich traceback {name}", console.file.getvalue())  # type: ignore[attr-defined]


def _ours(frame: Any) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("s2s_fastapi")


def _deep(value: Any, depth: int = 5) -> Any:
    """Return what an error tracker makes of a local: containers are opened, all else is its repr."""
    if depth and isinstance(value, dict):
        return {str(key): _deep(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_deep(item, depth - 1) for item in value]
    return repr(value)


def failing(shown: Shown, name: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except Exception as failed:  # noqa: BLE001 - whatever it is, it is shown
        error(shown, name, failed)
    else:
        raise AssertionError(f"{name} did not fail")


def requests(shown: Shown, package: Any, auth: ServiceTokenAuth, bob: Receiver, clock: Clock) -> None:
    """Send what is accepted, refused, redirected and withheld, and show what is left of it."""
    with package.Client(auth=auth, verify=TLS, follow_redirects=True) as client:
        bob.refused.add(f"Bearer {auth.token()}")
        clock.now += 11
        bob.answers = [(307, {"Location": "/again"}, b"")]
        response = client.get(bob.url)
        assert response.status_code == 200
        for one in (*response.history, response):
            shown.add("response", repr(one), one.headers, one.extensions, one.text, one.url)
            shown.add("request", repr(one.request), one.request.extensions, one.request.headers, one.request.url)
            # Not its pickle: httpx itself writes the headers of a request into it, ours among them.
        shown.add("client", repr(client), vars(client))
        bob.always = (401, INVALID_TOKEN, b"")
        failing(shown, f"{package.__name__} 401", lambda: client.get(bob.url).raise_for_status())
        bob.always = (200, {}, b"{}")
        failing(shown, f"{package.__name__} elsewhere", lambda: client.get("http://127.0.0.1:9/"))
        failing(
            shown, f"{package.__name__} header", lambda: client.get(bob.url, headers={"Authorization": "Bearer theirs"})
        )
    closed = auth.asking(origins=["http://127.0.0.1:9"])
    with package.Client(auth=closed, verify=TLS) as client:
        failing(shown, f"{package.__name__} refused connection", lambda: client.get("http://127.0.0.1:9/"))


def unretrieved(shown: Shown, auth: ServiceTokenAuth) -> None:
    """Let tasks fail that nobody looks at: asyncio writes their exceptions when they are collected."""

    def keep(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        shown.add("asyncio", _deep(context))

    async def main() -> None:
        asyncio.get_running_loop().set_debug(True)
        asyncio.get_running_loop().set_exception_handler(keep)
        tasks = [asyncio.create_task(auth.atoken()) for _ in range(3)]
        await asyncio.wait(tasks)
        del tasks
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(main())


def in_a_thread(shown: Shown, auth: ServiceTokenAuth) -> None:
    """Let a thread die of it: its hook prints the traceback."""
    before = threading.excepthook
    threading.excepthook = lambda args: shown.add(
        "thread",
        *traceback.TracebackException(args.exc_type, args.exc_value, args.exc_traceback, capture_locals=True).format(),  # type: ignore[arg-type]
    )
    try:
        thread = threading.Thread(target=auth.token)
        thread.start()
        thread.join()
    finally:
        threading.excepthook = before


@pytest.mark.parametrize("method", METHODS, indirect=True)
def test_no_place_shows_a_secret_a_token_or_an_assertion(
    method: str, shown: Shown, bob: Receiver, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    def grant() -> None:
        """Let the next request have a token, whatever proof it came with."""
        issuer.faults.clear()
        if method == "private_key_jwt":
            for _ in range(6):
                token = issuer.service_token("corp", "caller")
                body = {"access_token": token, "token_type": "Bearer", "expires_in": 300}
                issuer.faults.add("token", answering(200, json.dumps(body)))

    with using(TokenSource(clock=clock)):
        auth = ServiceTokenAuth(bob.url, audience="receiver")
        grant()
        auth.token()
        for name, one in reachable(auth).items():
            dump(shown, name, one)
        dump(shown, "exchange", issuer.requests("token")[-1])
        for package in (httpx, httpx2):
            grant()
            requests(shown, package, auth, bob, clock)
            clock.now += 400

    echo = "".join(asked(issuer)[-1].form.values()) + (asked(issuer)[-1].request.header("authorization") or "")
    known = echo if method == "private_key_jwt" else SECRET
    token = issuer.service_token("corp", "caller")
    refusals = {
        "wrong credentials": refusing(401, "unauthorized_client", "Invalid client or Invalid client credentials"),
        "an echo": refusing(401, "unauthorized_client", f"no such secret: {echo} {known}"),
        "an echo as the error": refusing(400, known, known),
        "a page": answering(500, f"<b>{known}{echo}</b>"),
        "somebody else's token": with_members(token_type=known),
        "no bearer token": answering(200, json.dumps({"access_token": token, "token_type": "DPoP"})),
        "no header could carry it": answering(200, json.dumps({"access_token": f"{token} x", "token_type": "Bearer"})),
        "another's audience": answering(200, json.dumps({"access_token": token, "token_type": "Bearer"})),
    }
    for name, fault in refusals.items():
        with using(TokenSource(clock=clock)):
            issuer.faults.clear()
            issuer.faults.add("token", fault, times=None)
            other = ServiceTokenAuth(audience="somebody-else")
            failing(shown, name, other.token)
            failing(shown, f"{name}, in asyncio", partial(in_asyncio, other.atoken))
            if name == "an echo":
                failing(shown, f"{name}, in trio", partial(in_trio, other.atoken))
                unretrieved(shown, other)
                in_a_thread(shown, other)
            dump(shown, f"source after {name}", IN_USE.source)
    with using(TokenSource(channel=lambda _: _Leaking(), clock=clock)):
        failing(shown, "an exception nobody foresaw", ServiceTokenAuth(audience="receiver").token)
    idle()

    assert len(shown.places) > 200
    looked_for = needles(issuer)
    assert {"token 0", "secret", "id and secret", "private key"} <= set(looked_for)
    assert ("assertion 0" in looked_for) == (method == "private_key_jwt")
    assert shown.tells(looked_for) == []


class _Leaking:
    def post_form(self, url: str, form: dict[str, str], headers: dict[str, str] | None = None) -> Any:
        raise ValueError(f"{form} {headers} {SECRET}")


@pytest.mark.tells_secrets("so that there is something to find", "log a.leak")
def test_the_search_finds_what_is_shown(shown: Shown, issuer: EmbeddedIssuer) -> None:
    def leak() -> None:
        hidden = SECRET
        raise KeyError(len(hidden))

    failing(shown, "a leak, an echo", leak)
    logging.getLogger("a.leak").debug("%s", SECRET)

    found = {place for place, _ in shown.tells(needles(issuer))}
    assert found >= {"traceback a leak, an echo", "rich traceback a leak, an echo", "log a.leak"}


def test_a_withheld_request_does_not_show_the_token_that_it_held(
    bob: Receiver, issuer: EmbeddedIssuer, shown: Shown
) -> None:
    inbound = issuer.service_token("corp", "another")
    places = [
        {"headers": {"Authorization": f"Bearer {inbound}"}},
        {"headers": {"X-Token": inbound}},
        {"params": {"t": inbound}},
    ]
    before = INBOUND.set(digest(inbound))
    try:
        with using(TokenSource()):
            auth = ServiceTokenAuth(bob.url, audience="receiver")
            for number, place in enumerate(places):
                request = httpx.Request("GET", bob.url, **place)  # type: ignore[arg-type]
                failing(shown, f"withheld {number}", partial(next, auth.sync_auth_flow(request)))
    finally:
        INBOUND.reset(before)

    of_ours = {place: text for place, text in shown.places.items() if "exception" in place}
    assert len(of_ours) == 2 * len(places)
    assert [place for place, text in of_ours.items() if inbound.rpartition(".")[2] in text] == []
    assert asked(issuer) == ()
