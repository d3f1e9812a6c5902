"""RIFF: the header of a WAV file that is still being written, also of one whose length nobody knows. Stage: task.

Sources: Microsoft's RIFF and WAVEFORMATEX; EBU Tech 3306 for RF64, whose sizes stand in a chunk of their own.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from ortmesh.errors import BadInput
from ortmesh_speech.audio import check_shape
from ortmesh_speech.sample_formats import WAV, SampleFormat

MAGIC_BYTES = 12
MAX_HEADER_BYTES = 1 << 20
"""Before the samples: pictures and notes are passed over, but who sends them without end is no recording."""
OPEN_SIZES = (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000)
"""What programs write that never learn a length; 0 is judged by the whole file's size."""
EXTENSIBLE = 0xFFFE
FORMAT = struct.Struct("<HHIIHH")
"""Tag, channels, rate, bytes a second, bytes a frame, bits."""
SUBFORMAT_AT = 24


@dataclass(frozen=True, slots=True)
class Found:
    """What a header says."""

    rate: int
    channels: int
    format: SampleFormat
    data_bytes: float
    """Of the samples; infinite where the header leaves it open."""
    rest: bytes
    """What followed the header."""


def is_riff(begun: bytes) -> bool:
    """True for the first 12 bytes of a WAV file."""
    return begun[:4] in (b"RIFF", b"RF64", b"BW64") and begun[8:12] == b"WAVE"


class RiffHeader:
    """Reads chunks up to the samples. Their sizes are believed as far as the header's greatest length goes."""

    def __init__(self, field: str, max_channels: int) -> None:
        self.position = 0
        """Bytes read so far."""
        self._field = field
        self._max_channels = max_channels
        self._held = b""
        self._at = MAGIC_BYTES
        """Where the next chunk begins."""
        self._shape: tuple[int, int, SampleFormat] | None = None
        self._long_size: int | None = None
        """Bytes of the samples as RF64 says."""

    def read(self, chunk: bytes) -> Found | None:
        """What the header says, once it is whole. BadInput, with the byte, for one that can't be read."""
        self._held += chunk
        self.position += len(chunk)
        while len(self._held) >= self._at + 8:
            name, size = (
                self._held[self._at : self._at + 4],
                int.from_bytes(self._held[self._at + 4 : self._at + 8], "little"),
            )
            if name == b"data" and not (size == 0 and self._more_follows()):
                return self._found(size)
            end = self._at + 8 + size + size % 2
            if end > MAX_HEADER_BYTES:
                raise self._bad(f"{name!r} of {size} bytes stands before the samples")
            if len(self._held) < end:
                return None
            self._take(name, self._held[self._at + 8 : self._at + 8 + size])
            self._at = end
        return None

    def _take(self, name: bytes, content: bytes) -> None:
        if name == b"fmt ":
            self._shape = self._shape_of(content)
        elif name == b"ds64" and len(content) >= 16:
            self._long_size = int.from_bytes(content[8:16], "little")

    def _found(self, size: int) -> Found:
        if self._shape is None:
            raise self._bad("no format stands before the samples")
        rate, channels, format = self._shape
        left = self._held[self._at + 8 :]
        return Found(rate, channels, format, self._length(size), left)

    def _length(self, size: int) -> float:
        if self._long_size is not None and size in OPEN_SIZES:
            open_end = self._long_size == 0 or self._long_size >= 2**63 - 1
            return math.inf if open_end else self._long_size
        return math.inf if size == 0 or size in OPEN_SIZES else size

    def _more_follows(self) -> bool:
        """True when the file's size says that chunks follow these empty samples: then they are truly empty."""
        total = int.from_bytes(self._held[4:8], "little") + 8
        return self._at + 16 <= total < OPEN_SIZES[-1]

    def _shape_of(self, content: bytes) -> tuple[int, int, SampleFormat]:
        if len(content) < FORMAT.size:
            raise self._bad(f"its format has {len(content)} bytes")
        tag, channels, rate, _, frame_bytes, bits = FORMAT.unpack_from(content)
        if tag == EXTENSIBLE and len(content) >= SUBFORMAT_AT + 2:
            tag = int.from_bytes(content[SUBFORMAT_AT : SUBFORMAT_AT + 2], "little")
        check_shape(rate, channels, self._field, self._field, max_channels=self._max_channels)
        stored = 8 * frame_bytes // channels  # 20 bits are stored in 24
        format = WAV.get((tag, stored))
        if format is None or frame_bytes != channels * format.itemsize or bits > stored:
            coding = f"its samples are coded as {tag:#x} with {bits} bits"
            raise self._bad(f"{coding}: expected PCM of 8 to 32 bits, floats, A-law or mu-law")
        return rate, channels, format

    def _bad(self, reason: str) -> BadInput:
        return BadInput(self._field, f"has a header that can't be read at byte {self._at}: {reason}")
