"""HTTP/2 as an attacker speaks it: frames made by hand, since a good library refuses to misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

from hpack import Decoder

from bench.attack.seen import NAMES, Seen

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4
"""A setting: how much of a stream is taken unasked."""
CANCEL: Final = struct.pack(">I", 8)
MAX_FRAME = 16_384
MAX_HEADERS = 1 << 24
"""What an answer's headers may unpack to: gRPC tells of every header that it refuses."""
DEFAULT_WINDOW = 65_535
GOAWAY_NAMES = {0: "NO_ERROR", 1: "PROTOCOL_ERROR", 9: "COMPRESSION_ERROR", 11: "ENHANCE_YOUR_CALM"}


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(values: Mapping[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", key, value) for key, value in values.items()))


def literal(name: bytes, value: bytes) -> bytes:
    """One header of a block, without compression: the block means the same on every connection."""
    return b"\x00" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),))
    rest, encoded = len(text) - 127, bytearray(b"\x7f")
    while rest > 127:
        encoded.append(rest % 128 + 128)
        rest //= 128
    return bytes(encoded) + bytes((rest,))


def request(path: str | bytes, **headers: str) -> bytes:
    """The header block of a gRPC call; underscores in the names of further headers become hyphens."""
    pairs = {":method": "POST", ":scheme": "http", ":authority": "localhost"}
    block = b"".join(literal(name.encode(), value.encode()) for name, value in pairs.items())
    block += literal(b":path", path.encode() if isinstance(path, str) else path)
    further = {"te": "trailers", "content_type": "application/grpc", **headers}
    return block + b"".join(literal(n.replace("_", "-").encode(), v.encode()) for n, v in further.items())


def message(payload: bytes, *, compressed: bool = False) -> bytes:
    """One gRPC message with its prefix."""
    return message_prefix(len(payload), compressed=compressed) + payload


def message_prefix(nbytes: int, *, compressed: bool = False) -> bytes:
    """What precedes a message of so many bytes."""
    return struct.pack(">BI", compressed, nbytes)


def head(stream: int, block: bytes, *, ends: bool = True) -> bytes:
    """A header block in as many frames as it takes; without an end, more of it may follow."""
    parts = [block[at : at + MAX_FRAME] for at in range(0, len(block), MAX_FRAME)]
    flags = [0] * (len(parts) - 1) + [END_HEADERS if ends else 0]
    kinds = [HEADERS] + [CONTINUATION] * (len(parts) - 1)
    return b"".join(frame(kind, flag, stream, part) for kind, flag, part in zip(kinds, flags, parts, strict=True))


def call(stream: int, block: bytes, body: bytes) -> bytes:
    """A whole unary call of one small message."""
    return head(stream, block) + frame(DATA, END_STREAM, stream, body)


class Connection:
    """A connection that reads what it is told, keeps to the target's windows if asked to, and sends whatever it is
    given."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen) -> None:
        self.writer = writer
        self.open = True
        """False once the target, or we, closed it."""
        self.ended: dict[int, str] = {}
        """How calls ended, by their stream: the name of their code, or `reset`."""
        self._reader = reader
        self._seen = seen
        self._opened: set[int] = set()
        self._block = b""
        self._decoder = Decoder(max_header_list_size=MAX_HEADERS)
        self._initial = self._window = DEFAULT_WINDOW
        self._windows: dict[int, int] = {}
        self._changed = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None

    def listen(self) -> None:
        """From now on reads what the target says."""
        self._listener = asyncio.create_task(self._listen())

    def send(self, data: bytes) -> None:
        """Sends bytes, if the connection is still open."""
        if self.open and not self.writer.is_closing():
            self.writer.write(data)

    async def flush(self) -> bool:
        """Waits until the target takes what was sent; False when it closed the connection instead."""
        try:
            await self.writer.drain()
        except ConnectionError:
            self._lost()
        return self.open

    def begin(self, stream: int, block: bytes, *, ends: bool = True) -> None:
        """Begins a call whose end is counted."""
        self._opened.add(stream)
        self.send(head(stream, block, ends=ends))

    def begin_calls(self, streams: range, block: bytes, body: bytes) -> None:
        """Makes whole unary calls at once."""
        self._opened.update(streams)
        self.send(b"".join(call(stream, block, body) for stream in streams))

    async def upload(self, stream: int, body: bytes, *, end: bool = False) -> bool:
        """Sends a part of a call's body as the target's windows allow; False when the call ended before that."""
        at = 0
        while at < len(body):
            room = min(self._window, self._windows.get(stream, self._initial), MAX_FRAME)
            if not self.open or stream in self.ended:
                return False
            if room <= 0:
                await self._change()
                continue
            part = body[at : at + room]
            at += len(part)
            self._window -= len(part)
            self._windows[stream] = self._windows.get(stream, self._initial) - len(part)
            self.send(frame(DATA, END_STREAM if end and at == len(body) else 0, stream, part))
            await self.flush()
        return True

    async def until_ended(self, seconds: float) -> None:
        """Waits until every call has ended or the connection has, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.open and not self._opened <= self.ended.keys():
                    await self._change()

    async def close(self) -> None:
        """Closes the connection and counts how its calls, or itself, ended."""
        if not self.open:
            self._seen.answers["connection closed"] += 1
        for stream in self._opened:
            self._seen.answers[self.ended.get(stream, "no answer")] += 1
        self.open = False
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])
            if not self._listener.cancelled():
                self._listener.result()
        self.writer.transport.abort()  # what is still to be sent is not worth waiting for

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _lost(self) -> None:
        self.open = False
        self._changed.set()

    async def _listen(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                self._take(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
                self._changed.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            self._lost()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            self._settle(payload)
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            self._widen(stream, int.from_bytes(payload, "big"))
        elif kind in (HEADERS, CONTINUATION):
            self._block += payload
            if flags & END_HEADERS:
                self._head(stream, self._decoder.decode(self._block))
                self._block = b""
        elif kind == DATA:
            self._seen.read(payload)
        elif kind == RST_STREAM:
            self.ended.setdefault(stream, "reset")
        elif kind == GOAWAY:
            self._seen.read(payload[8:])
            code = int.from_bytes(payload[4:8], "big")
            self._seen.answers[f"GOAWAY {GOAWAY_NAMES.get(code, code)}"] += 1

    def _settle(self, payload: bytes) -> None:
        for key, value in struct.iter_unpack(">HI", payload):
            if key == INITIAL_WINDOW_SIZE:
                for stream in self._windows:
                    self._windows[stream] += value - self._initial
                self._initial = value
        self.send(frame(SETTINGS, ACK, 0))

    def _widen(self, stream: int, nbytes: int) -> None:
        if stream:
            self._windows[stream] = self._windows.get(stream, self._initial) + nbytes
        else:
            self._window += nbytes

    def _head(self, stream: int, headers: Iterable[tuple[Any, Any]]) -> None:
        for name, value in headers:
            self._seen.read_header(name, value)
            if name == "grpc-status":
                self.ended[stream] = NAMES.get(value, f"grpc-status {value}")
            elif name == ":status" and value != "200":
                self.ended.setdefault(stream, f"HTTP {value}")


async def connect(address: str, seen: Seen, *, greeting: bytes, listens: bool = True) -> Connection | None:
    """A connection to `host:port` or `unix:/path` that has sent `greeting`; None when the target refuses it."""
    try:
        if address.startswith("unix:"):
            reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
    except (ConnectionError, BlockingIOError):
        seen.answers["not connected"] += 1
        return None
    made = Connection(reader, writer, seen)
    made.send(greeting)
    if listens:
        made.listen()
    return made


GREETING: Final = PREFACE + settings({})


@contextlib.asynccontextmanager
async def crowd(
    address: str, seen: Seen, count: int, *, greeting: bytes = GREETING, listens: bool = True
) -> AsyncIterator[list[Connection]]:
    """So many connections, those that the target took."""
    made: list[Connection] = []
    try:
        for _ in range(count):
            connection = await connect(address, seen, greeting=greeting, listens=listens)
            if connection is not None:
                made.append(connection)
        yield made
    finally:
        for connection in made:
            await connection.close()
        await asyncio.sleep(0)  # the loop closes the sockets in its next turn
