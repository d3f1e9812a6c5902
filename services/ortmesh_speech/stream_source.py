"""Sources: a stream's bytes, cut anywhere, to blocks of samples as they were recorded. Stage: task.

A source is fed bytes and gives what can be made of them. It keeps back what is cut: a part of a frame, of a header,
of a compressed packet. Blocks are short whatever comes, since a megabyte of compressed silence is hours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ortmesh.errors import BadInput
from ortmesh_speech.decoder import MAGICS, Decoder
from ortmesh_speech.riff import MAGIC_BYTES, RiffHeader, is_riff
from ortmesh_speech.sample_formats import SampleFormat, Samples

BLOCK_SECONDS = 2
MAX_CHANNELS = 8


class Source(Protocol):
    """What a stream's bytes are read as."""

    rate: int
    """Samples a second of each channel; known once there is a block."""

    def feed(self, chunk: bytes) -> Iterator[Samples]:
        """Blocks [frames, channels] of at most some seconds. BadInput for what can't be read."""

    def rest(self) -> Iterator[Samples]:
        """What was kept back, when nothing follows. BadInput for what ends within its header."""

    def close(self) -> None:
        """Lets go of whatever it holds, at any time, from any thread."""


class RawSource:
    """Samples without a file around them. A frame whose end never comes is left out."""

    def __init__(self, rate: int, channels: int, format: SampleFormat) -> None:
        self.rate = rate
        self._channels = channels
        self._format = format
        self._frame_bytes = channels * format.itemsize
        self._held = b""

    def feed(self, chunk: bytes) -> Iterator[Samples]:
        """Blocks [frames, channels]."""
        step = BLOCK_SECONDS * self.rate * self._frame_bytes
        content = self._held + chunk
        whole = len(content) - len(content) % self._frame_bytes
        self._held = content[whole:]
        for start in range(0, whole, step):
            yield self._format.decode(content[start : min(start + step, whole)]).reshape(-1, self._channels)

    def rest(self) -> Iterator[Samples]:
        """Nothing."""
        return iter(())

    def close(self) -> None:
        """Nothing to let go of."""


class ContainerSource:
    """An audio file as it is written, told by its first bytes."""

    def __init__(self, field: str) -> None:
        self.rate = 0
        self._field = field
        self._begun = b""
        self._source: Source | None = None
        self._closed = False

    def feed(self, chunk: bytes) -> Iterator[Samples]:
        """Blocks [frames, channels]. BadInput for what is none of the files that are read as streams."""
        if self._source is None:
            self._begun += chunk
            if len(self._begun) < MAGIC_BYTES:
                return
            self._source, chunk, self._begun = self._recognized(), self._begun, b""
            if self._closed:  # in the meantime: whoever closed it found nothing
                self._source.close()
                return
        for block in self._source.feed(chunk):
            self.rate = self._source.rate
            yield block

    def rest(self) -> Iterator[Samples]:
        """What was kept back. BadInput for what ends within its header; nothing at all is no error."""
        if self._source is None:
            if self._begun:
                raise BadInput(self._field, f"ends at byte {len(self._begun)}, within the header of a file")
            return
        for block in self._source.rest():
            self.rate = self._source.rate
            yield block

    def close(self) -> None:
        """Ends a decoder's thread, also that of a file which is being recognized."""
        self._closed = True
        if self._source is not None:
            self._source.close()

    def _recognized(self) -> Source:
        if is_riff(self._begun):
            return WavSource(self._field)
        if self._begun[:4] in MAGICS:
            return Decoder(self._field, MAX_CHANNELS)
        raise BadInput(self._field, "can't be read as a stream of audio: expected WAV, FLAC or Ogg (Vorbis or Opus)")


class WavSource:
    """A WAV file as it is written. It is read as far as it goes; what follows the samples is passed over."""

    def __init__(self, field: str) -> None:
        self.rate = 0
        self._field = field
        self._header = RiffHeader(field, MAX_CHANNELS)
        self._samples: RawSource | None = None
        self._left: float = 0
        """Bytes of samples that are still to come; infinite where the header leaves it open."""

    def feed(self, chunk: bytes) -> Iterator[Samples]:
        """Blocks [frames, channels]. BadInput for a header that is damaged, or names a coding that is not read."""
        if self._samples is None:
            found = self._header.read(chunk)
            if found is None:
                return
            self.rate, self._left, chunk = found.rate, found.data_bytes, found.rest
            self._samples = RawSource(found.rate, found.channels, found.format)
        taken = chunk if len(chunk) <= self._left else chunk[: int(self._left)]
        self._left -= len(taken)
        yield from self._samples.feed(taken)

    def rest(self) -> Iterator[Samples]:
        """Nothing. BadInput for what ends within its header."""
        if self._samples is None:
            raise BadInput(self._field, f"ends at byte {self._header.position}, before the samples begin")
        return iter(())

    def close(self) -> None:
        """Nothing to let go of."""
