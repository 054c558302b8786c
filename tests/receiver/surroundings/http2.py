"""A client of HTTP/2 that keeps all it is told: hints before the answer, pushed resources, trailers."""

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events

from tests.receiver.surroundings.servers import Address


@dataclass
class Heard:
    """What came back for one request."""

    status: int = 0
    body: bytes = b""
    hints: list[bytes] = field(default_factory=list)
    trailers: dict[bytes, bytes] = field(default_factory=dict)
    pushed: dict[bytes, int] = field(default_factory=dict)
    """The status of each pushed path."""


def ask(address: Address, path: str, headers: Iterable[tuple[str, str]]) -> Heard:
    """Ask for one path over cleartext HTTP/2 and listen until every stream has ended."""
    configuration = h2.config.H2Configuration(client_side=True, header_encoding=None)
    connection = h2.connection.H2Connection(configuration)
    heard, paths, open_streams = Heard(), dict[int, bytes](), {1}
    with address.wire() as wire:
        connection.initiate_connection()
        connection.send_headers(
            1,
            [(":method", "GET"), (":scheme", "http"), (":authority", "service.test"), (":path", path), *headers],
            end_stream=True,
        )
        wire.sendall(connection.data_to_send())
        while open_streams:
            data = _some(wire)
            if not data:
                break
            for event in connection.receive_data(data):
                _take(heard, event, paths, open_streams)
                if isinstance(event, h2.events.DataReceived):
                    connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
            wire.sendall(connection.data_to_send())
    return heard


def _some(wire: socket.socket) -> bytes:
    return wire.recv(65_536)


def _take(heard: Heard, event: h2.events.Event, paths: dict[int, bytes], open_streams: set[int]) -> None:
    if isinstance(event, h2.events.PushedStreamReceived):
        paths[event.pushed_stream_id or 0] = dict(event.headers or ())[b":path"]
        open_streams.add(event.pushed_stream_id or 0)
    elif isinstance(event, h2.events.InformationalResponseReceived):
        heard.hints += [bytes(value) for name, value in event.headers if name == b"link"]
    elif isinstance(event, h2.events.ResponseReceived):
        status = int(dict(event.headers)[b":status"])
        if event.stream_id in paths:
            heard.pushed[paths[event.stream_id]] = status
        else:
            heard.status = status
    elif isinstance(event, h2.events.DataReceived) and event.stream_id == 1:
        heard.body += event.data
    elif isinstance(event, h2.events.TrailersReceived):
        heard.trailers = {bytes(name): bytes(value) for name, value in event.headers}
    elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
        open_streams.discard(event.stream_id)
