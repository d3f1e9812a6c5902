"""Connections of an attacker: they read what they are told to, keep to the target's windows if asked, send anything."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Iterable
from typing import Any

from hpack import Decoder

from bench.attack.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    GREETING,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    call,
    frame,
    head,
)
from bench.attack.seen import NAMES, Seen

MAX_HEADERS = 1 << 24
"""What an answer's headers may unpack to: gRPC tells of every header that it refuses."""
DEFAULT_WINDOW = 65_535
GOAWAY_NAMES = {
    0: "NO_ERROR",
    1: "PROTOCOL_ERROR",
    2: "INTERNAL_ERROR",
    4: "SETTINGS_TIMEOUT",
    9: "COMPRESSION_ERROR",
    11: "ENHANCE_YOUR_CALM",
}


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
