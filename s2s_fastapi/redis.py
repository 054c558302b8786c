"""Which proofs have been used, remembered in a Redis or Valkey for all workers and hosts. Needs the extra ``redis``.

The connections are our own and not those of redis-py's client: that one sends a command again by itself. A first ``SET NX`` whose answer got
lost would then find itself, and a fresh proof would count as replayed.
"""

import asyncio
import ipaddress
import math
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from contextvars import Context
from typing import Any, Final, NoReturn, Protocol
from urllib.parse import parse_qsl, urlsplit

from s2s_fastapi.errors import ConfigurationError, ReplayStoreUnavailable
from s2s_fastapi.process import watch_forks
from s2s_fastapi.text import base64url, printable

try:
    from redis import exceptions
    from redis.asyncio.connection import Connection, parse_url
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
except ImportError as missing:
    raise ConfigurationError('RedisReplayStore needs the extra "redis": pip install "s2s-fastapi[redis]"') from missing

__all__ = ["RedisReplayStore"]

_LONGEST: Final = 0.5  # seconds; less than the 0.6 s that `verifier.bound` waits for any store, so that this one says itself what is wrong
_SHORTEST: Final = 0.01
_CONNECTIONS: Final = 10  # for each event loop; at 1 ms for each answer, 10,000 proofs per second
_CONNECT_SECONDS: Final = 2.0  # a lost SYN is sent again after 1 s
_LEAST_MILLISECONDS: Final = 1000
_OPTIONS: Final = frozenset({"db"})
_TLS_OPTIONS: Final = _OPTIONS | {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{0,100}")  # no character of a pattern of keys: * ? [ ]
_DATABASE: Final = re.compile(r"/?[0-9]{0,5}")
_CODE: Final = re.compile(r"[A-Z]{2,20}(?= )")
_LONGEST_SHOWN: Final = 300
_LONGEST_SYSTEM_TEXT: Final = 100
_WRONG_URL: Final = (
    "url= is not the URL of a Redis. Write redis://host:6379/0, rediss://user:password@host:6379/0 or unix:///path/to/socket. "
    "Percent-encode the user name and the password: / ? # and @ end them otherwise."
)
_WRONG_OPTION: Final = (
    "url= has an option that is not supported. Allowed are db and, for rediss://, ssl_ca_certs, ssl_certfile and ssl_keyfile. "
    "Limits in time and retries are set by RedisReplayStore, and the certificate of the server is always verified."
)

_REPLICA: Final = "it is a replica and cannot be written. Write the address of the primary into the URL."
_CURES: Final[tuple[tuple[type[exceptions.RedisError], str], ...]] = (
    (exceptions.AuthenticationError, "it refuses the user name or the password. Write the right ones into the URL."),
    (
        exceptions.NoPermissionError,
        "the user may not do this. Allow `+set +get +info` and the keys `~s2s:dpop:*` in its ACL.",
    ),
    (exceptions.OutOfMemoryError, "its memory is full. Raise `maxmemory`."),
    (exceptions.ReadOnlyError, _REPLICA),
    (exceptions.BusyLoadingError, "it is still loading its data. It answers when this is done."),
    (
        exceptions.AskError,  # MOVED too
        "it is a node of a cluster, and this key belongs to another node. Use a Redis without cluster mode.",
    ),
    (exceptions.ClusterDownError, "it has no primary at the moment, or its cluster is down. See its log."),
)
"""What Redis answers, and what to change. The text of an answer is not shown: it repeats arguments, and one may be the password."""


class RedisReplayStore:
    """Remember in a Redis or Valkey which proofs have been used, so that no other worker accepts them (RFC 9449 section 11.1).

    - One command for each proof, ``SET key value PX ms NX``, with a key that begins with ``s2s:dpop:`` and the `prefix`.
    - A request waits for `timeout` seconds in all, whatever hangs: the name server, the connection, Redis. The command is sent a second time
      if its answer got lost; a proof is not refused because of that.
    - If Redis cannot be asked, is full, or does not accept writes: `ReplayStoreUnavailable`, so the request gets a 503.
    - Each event loop has its own connections, at most 10. After a fork, the child makes its own.
    - The password is in no ``repr``, log, error or pickle. The certificate of a ``rediss://`` server is always verified.
    - It needs asyncio.

    Args:
        url: ``redis://[user:password@]host[:port][/db]``, ``rediss://...`` (TLS) or ``unix:///path``. Of options, only ``db``,
            ``ssl_ca_certs``, ``ssl_certfile`` and ``ssl_keyfile``.
        prefix: A name for the service in the keys, for example for ACL rules. Workers of one service must have the same.
        timeout: Seconds, from 0.01 to 0.5.

    Raises:
        ConfigurationError: An argument is wrong, or the extra ``redis`` is not installed.
    """

    def __init__(self, url: str, *, prefix: str = "", timeout: float = _LONGEST) -> None:
        self._prefix = prefix
        self._options, self._shown, wrong = _read(url)
        del url  # error trackers record the locals of each frame that raises
        if wrong:
            raise ConfigurationError(wrong)
        if isinstance(timeout, bool) or not _SHORTEST <= timeout <= _LONGEST:
            raise ConfigurationError(
                f"timeout={timeout!r}: write a number of seconds from {_SHORTEST:g} to {_LONGEST:g}. A request waits for it."
            )
        if not _PREFIX.fullmatch(prefix):
            raise ConfigurationError(
                "prefix= takes at most 100 of these: ASCII letters, digits, dot, hyphen and underscore."
            )
        self._timeout = float(timeout)
        self._here: dict[asyncio.AbstractEventLoop, _Connections] = {}
        self._of_parent: list[object] = []
        watch_forks(self)

    async def first_use(self, key: bytes, seconds: float) -> bool:
        """Return whether `key` was never seen before; it is then remembered for `seconds`, at least 1.

        Raises:
            ReplayStoreUnavailable: Redis did not say so in time.
            ConfigurationError: There is no event loop of asyncio.
        """
        connections = self._connections()
        name = f"s2s:dpop:{self._prefix}{':' if self._prefix else ''}{base64url(key)}"
        milliseconds = max(_LEAST_MILLISECONDS, math.ceil(seconds * 1000))
        try:
            async with asyncio.timeout(self._timeout):
                return await _first_use(connections, name, milliseconds, self._timeout / 2)
        except TimeoutError:
            why = f"it did not answer within {self._timeout:g} s. See whether it is overloaded, or the network drops packets."
        except _Failed as failed:
            why = failed.why
        # Outside the except block: otherwise the error is chained to exceptions whose frames hold the password.
        raise self._unavailable(why)

    async def problems_at_start(self) -> str:
        """Return what is wrong with the server, as sentences for an operator; empty if nothing is. The middleware calls it when the app starts.

        Raises:
            ConfigurationError: There is no event loop of asyncio.
        """
        connections = self._connections()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                said = await connections.ask("INFO")
        except TimeoutError:
            return str(self._unavailable(f"it did not answer within {_CONNECT_SECONDS:g} s."))
        except _Failed as failed:
            return str(self._unavailable(failed.why))
        return " ".join(f"{self!r}: {sentence}" for sentence in _faults(_fields(said)))

    async def aclose(self) -> None:
        """Close the connections of the running event loop. The next use makes new ones."""
        connections = self._here.pop(asyncio.get_running_loop(), None)
        if connections is not None:
            await connections.close()

    def after_fork(self) -> None:
        """Leave the parent's connections alone: also closing them here would end them there."""
        self._of_parent.append(self._here)
        self._here = {}

    def _connections(self) -> "_Connections":
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is None:
            raise ConfigurationError(
                "RedisReplayStore needs asyncio, because redis-py does. Run the app on asyncio, or write a replay store for trio."
            )
        found = self._here.get(loop)
        if found is None:
            for other in [other for other in list(self._here) if other.is_closed()]:
                self._here.pop(other, None)
            found = self._here.setdefault(loop, _Connections(self._connection, _name_in(self._options)))
        return found

    def _connection(self) -> "_Connection":
        options = dict(self._options)
        connection: _Connection = options.pop("connection_class", Connection)(
            **options,
            protocol=2,  # version 3 adds commands to each new connection, and messages that nobody asked for
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,  # the limits are ours: see `first_use`
            socket_connect_timeout=_CONNECT_SECONDS,
        )
        return connection

    def _unavailable(self, why: str) -> ReplayStoreUnavailable:
        return ReplayStoreUnavailable(f"The replay store {self._shown} cannot be used: {why}")

    def __repr__(self) -> str:
        prefix = f", prefix={self._prefix!r}" if self._prefix else ""
        return f"RedisReplayStore({self._shown!r}{prefix})"

    def __copy__(self) -> "RedisReplayStore":
        return self

    def __deepcopy__(self, memo: object) -> "RedisReplayStore":
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("A RedisReplayStore is not pickled: it may hold a password. Make one in each process.")


async def _first_use(connections: "_Connections", name: str, milliseconds: int, first_try: float) -> bool:
    """Send the command, and once more if its answer does not come within `first_try` seconds."""
    value = secrets.token_hex(16).encode()
    command = "SET", name, value, "PX", milliseconds, "NX"
    try:
        async with asyncio.timeout(first_try):
            return _is_first(await connections.ask(*command))
    except TimeoutError:
        await connections.drop_idle()  # they may hang too
    except _Failed as failed:
        if not failed.lost:
            raise
    # What is there may be what our own first try put there. No other use of the proof has this random value.
    return _is_first(await connections.ask(*command)) or await connections.ask("GET", name) == value


def _is_first(answer: object) -> bool:
    if answer == b"OK":
        return True
    if answer is None:
        return False
    raise _Failed("it answered what no Redis answers. See what listens at this address.")


class _Failed(Exception):
    """Redis did not do what it was asked. `lost`: nobody knows whether it did."""

    def __init__(self, why: str, *, lost: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.lost = lost


class _Connection(Protocol):
    """What is used of redis-py's connections."""

    async def connect(self) -> None: ...

    async def send_command(self, *command: str | bytes | int) -> None: ...

    async def read_response(self) -> object: ...

    async def disconnect(self, nowait: bool = False) -> None: ...


class _Connections:
    """The connections of one event loop."""

    def __init__(self, make: Callable[[], _Connection], name: str) -> None:
        self._make = make
        self._name = name
        self._seats = asyncio.Semaphore(_CONNECTIONS)
        self._idle: list[_Connection] = []
        self._opening: asyncio.Task[_Failed | None] | None = None
        self._lookup: asyncio.Task[OSError | None] | None = None

    async def ask(self, *command: str | bytes | int) -> object:
        """Return the answer to one command. A connection that was not answered is not used again: an answer may still come."""
        async with self._seats:
            connection = await self._free()
            try:
                await connection.send_command(*command)
                answer = await connection.read_response()
            except BaseException as error:
                await connection.disconnect(nowait=True)
                if not isinstance(error, Exception):
                    raise
                failed = _failed(error)
            else:
                self._idle.append(connection)
                return answer
        await self.drop_idle()  # the server may be gone, or is no longer the primary
        raise failed

    async def _free(self) -> _Connection:
        """Return a connection that nobody uses. One is opened at a time, in a task of its own."""
        while not self._idle:
            if self._opening is None or self._opening.done():
                # In an empty context: the connection would keep that of this request alive.
                self._opening = asyncio.create_task(self._open(), context=Context())
            failed = await asyncio.shield(self._opening)
            if failed is not None:
                raise _Failed(failed.why, lost=failed.lost)  # each its own: it gets a traceback
        return self._idle.pop()

    async def _open(self) -> _Failed | None:
        connection = self._make()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                if self._name:
                    await self._look_up()
                await connection.connect()
        except Exception as error:  # noqa: BLE001 - returned, because asyncio logs what a task raises: its frames hold the password
            await connection.disconnect(nowait=True)
            return _failed(error)
        self._idle.append(connection)
        return None

    async def _look_up(self) -> None:
        """Look the name of the server up. A look-up that nobody waits for any more goes on, and the next attempt waits for the same one.

        It keeps a thread that others need. If the name server hangs, there is one such thread, not one for each attempt.
        """
        if self._lookup is None or self._lookup.done():
            self._lookup = asyncio.create_task(_look_up(self._name))
        failed = await asyncio.shield(self._lookup)
        if failed is not None:
            raise failed

    async def drop_idle(self) -> None:
        """Close what nobody uses, without a wait."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Close everything, and wait until the server knows."""
        if self._opening is not None:
            self._opening.cancel()
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect()


def _name_in(options: Mapping[str, Any]) -> str:
    """Return the name of the server that a name server is asked for; empty if the URL has an address or a path."""
    host: str = options.get("host", "")
    with suppress(ValueError):
        ipaddress.ip_address(host.partition("%")[0])
        return ""
    return host


async def _look_up(name: str) -> OSError | None:
    """Look a name up, and return why it has no address: asyncio would log an error that nobody waits for."""
    try:
        await asyncio.get_running_loop().getaddrinfo(name, None)
    except OSError as error:
        return error
    return None


def _failed(error: Exception) -> _Failed:
    """Return what an exception of redis-py means, without its text."""
    for kind, why in _CURES:
        if isinstance(error, kind):
            return _Failed(why)
    if isinstance(error, exceptions.ResponseError):
        word = _CODE.match(str(error))
        return _Failed(f"it answers an error{f' ({word[0]})' if word else ''}. See its log.")
    return _Failed(
        f"the connection failed{_said_by_the_system(error)}. See whether it runs, and whether the URL names it.",
        lost=True,
    )


def _said_by_the_system(error: BaseException | None) -> str:
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return f" ({printable(error.strerror, _LONGEST_SYSTEM_TEXT)})"
        error = error.__cause__ or error.__context__
    return ""


def _fields(said: object) -> Mapping[str, str]:
    """Return the fields of INFO: one ``name:value`` in each line."""
    lines = said.decode("utf-8", "replace").splitlines() if isinstance(said, bytes) else []
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _faults(info: Mapping[str, str]) -> Iterator[str]:
    policy, mode = info.get("maxmemory_policy", ""), info.get("redis_mode", "standalone")
    if not policy:
        yield "it does not say what it does when its memory is full. It must not forget keys: `maxmemory-policy noeviction`."
    elif policy != "noeviction":
        yield (
            f"it may forget proofs when its memory is full, and would accept them again (maxmemory-policy {printable(policy, 30)}). "
            "Set `maxmemory-policy noeviction`."
        )
    if info.get("role") == "slave":
        yield _REPLICA
    if mode == "sentinel":
        yield "it is a Sentinel and keeps no keys. Write the address of the primary into the URL."
    elif mode != "standalone":
        yield "it is a node of a cluster, which is not supported. Use a Redis without cluster mode."


def _read(url: str) -> tuple[dict[str, Any], str, str]:
    """Return the options for a connection, the URL without user and password, and what is wrong with it.

    Nothing of a wrong URL is shown: if a password has a ``/`` or ``?`` in it, then parts of it look like a host, a port or an option.
    """
    try:
        parts = urlsplit(url)
        port, query = parts.port, dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        options: dict[str, Any] = dict(parse_url(url))
    except (AttributeError, TypeError, ValueError):
        return {}, "", _WRONG_URL
    unix = parts.scheme == "unix"
    right = bool(parts.path) and not parts.hostname if unix else parts.hostname and _DATABASE.fullmatch(parts.path)
    if not right or parts.fragment or not _DATABASE.fullmatch(query.get("db", "")):
        return {}, "", _WRONG_URL
    if not query.keys() <= (_TLS_OPTIONS if parts.scheme == "rediss" else _OPTIONS):
        return {}, "", _WRONG_OPTION
    if parts.scheme == "rediss":
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    shown = f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}"
    return options, printable(shown, _LONGEST_SHOWN), ""
