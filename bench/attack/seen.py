"""Seen: what a target answered to an attack, counted, and whether any of it tells of our insides."""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter

import grpc

NAMES = {str(code.value[0]): code.name for code in grpc.StatusCode}
LEAK = re.compile(rb'Traceback|File "|\b[A-Z][A-Za-z]+(?:Error|Exception|Warning)\b|panicked at')
"""A stack's trace, or the name of an exception's class."""
EXCERPT_BYTES = 80


class Seen:
    """Everything that came back, from all connections of an attack."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        """How often each end of a call, or of a connection, was seen."""
        self.leaks: set[str] = set()
        """Pieces of answers that no caller may see."""

    def read(self, text: bytes) -> None:
        """Looks for a trace or an exception in what was received."""
        for found in LEAK.finditer(text):
            begin = max(0, found.start() - EXCERPT_BYTES // 2)
            self.leaks.add(text[begin : begin + EXCERPT_BYTES].decode("utf-8", "replace"))

    def read_header(self, name: str, value: str) -> None:
        """The same for a header or trailer; binary ones are base64 on the wire."""
        self.read(value.encode())
        if name.endswith("-bin"):
            try:
                self.read(base64.b64decode(value + "=" * (-len(value) % 4)))
            except binascii.Error as error:
                self.leaks.add(f"{name} is not base64: {error}")

    def __str__(self) -> str:
        return ", ".join(f"{count:,} × {what}" for what, count in self.answers.most_common())
