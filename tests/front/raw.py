"""A bare HTTP/2 caller, for requests that no gRPC library would send."""

from __future__ import annotations

import socket
import struct

DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4


def post(address: str, path: str, message: bytes, headers: dict[str, str]) -> str:
    """Sends one gRPC message with extra headers and waits for how its stream ends: `ended` or `reset`."""
    with _connect(address) as connection:
        sent = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "localhost",
            "content-type": "application/grpc",
            "te": "trailers",
            **headers,
        }
        block = b"".join(b"\0" + _literal(name) + _literal(value) for name, value in sent.items())
        body = b"\0" + struct.pack(">I", len(message)) + message
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(SETTINGS, 0, 0, b"")
            + _frame(HEADERS, END_HEADERS, 1, block)
            + _frame(DATA, END_STREAM, 1, body)
        )
        return _end(connection)


def _connect(address: str) -> socket.socket:
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(5)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def _literal(text: str) -> bytes:
    """HPACK: a string of under 127 bytes without Huffman coding."""
    raw = text.encode()
    assert len(raw) < 127
    return bytes([len(raw)]) + raw


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _end(connection: socket.socket) -> str:
    stream = connection.makefile("rb")
    while head := stream.read(9):
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream.read(length)
        if kind in (RST_STREAM, GOAWAY):
            return "reset"
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            return "ended"
    return "reset"
