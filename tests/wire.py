"""A caller that speaks HTTP/2 by hand, for what no gRPC library would send."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import unquote

import h2.connection
import h2.errors
import h2.events

ANSWER_SECONDS = 50.0
"""How long the other end may be silent: less than the 60 s after which any call ends."""
Headers = Sequence[tuple[str, str]]
USUAL: Headers = (("content-type", "application/grpc"), ("te", "trailers"))


@dataclass
class Heard:
    """How a call ended: with a status, or with a reset."""

    headers: dict[str, str] = field(default_factory=dict)
    """Of the answer and its trailers together."""
    body: bytes = b""
    reset: int | None = None
    """The code of RST_STREAM or GOAWAY; -1 when the connection was closed without a word."""
    ended: bool = False
    """True when the answer is complete."""

    @property
    def code(self) -> int | None:
        """The gRPC status, None without one."""
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None

    @property
    def message(self) -> str:
        """What the status says to a person."""
        return unquote(self.headers.get("grpc-message", ""))


def framed(payload: bytes, *, length: int | None = None, flag: int = 0) -> bytes:
    """A gRPC message on the wire; `length` is what its prefix says, right or wrong."""
    return struct.pack(">BI", flag, len(payload) if length is None else length) + payload


def post(address: str, path: str | bytes, body: bytes, headers: Headers = ()) -> Heard:
    """Sends one request with exactly this body and waits for how it ends."""
    with connected(address) as caller:
        caller.begin(path, headers)
        caller.send(body, end=True)
        return caller.until_ended()


@contextmanager
def connected(address: str) -> Iterator[Caller]:
    """A caller on a connection of its own."""
    with open_socket(address) as connection:
        yield Caller(connection)


def open_socket(address: str) -> socket.socket:
    """A connection to `host:port` or `unix:/path`."""
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    return connection


class Caller:
    """One connection with one call on it. TimeoutError when the other end says nothing for too long."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._http = h2.connection.H2Connection()
        self._heard = Heard()
        self._http.initiate_connection()
        self._flush()

    def begin(self, path: str | bytes, headers: Headers = ()) -> None:
        """Sends the headers."""
        pseudo = ((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"))
        self._http.send_headers(1, [*pseudo, *USUAL, *headers])
        self._flush()

    def send(self, body: bytes, *, end: bool) -> None:
        """Sends a piece of the body as fast as it is taken; `end` says that it was the last one."""
        while body and not self._ended:
            room = min(self._http.local_flow_control_window(1), self._http.max_outbound_frame_size)
            if room:
                self._http.send_data(1, body[:room])
                body = body[room:]
                self._flush()
            else:
                self._listen()
        if end and not self._ended:
            self._http.end_stream(1)
            self._flush()

    def until_ended(self) -> Heard:
        """Waits until the call ends."""
        while not self._ended:
            self._listen()
        return self._heard

    @property
    def _ended(self) -> bool:
        return self._heard.ended or self._heard.reset is not None

    def _listen(self) -> None:
        try:
            data = self._connection.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self._heard.reset = -1
            return
        for event in self._http.receive_data(data):
            self._take(event)
        self._flush()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
            self._heard.headers |= {_text(name): _text(value) for name, value in event.headers}
        elif isinstance(event, h2.events.DataReceived):
            self._heard.body += event.data
            self._http.acknowledge_received_data(event.flow_controlled_length, 1)
        elif isinstance(event, h2.events.StreamEnded):
            self._heard.ended = True
        elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
            self._heard.reset = int(event.error_code or 0)

    def _flush(self) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # what the other end said before that is still read
            self._connection.sendall(self._http.data_to_send())


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
