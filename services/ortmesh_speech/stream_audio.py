"""StreamAudio: chunks of bytes, cut anywhere, to mono samples at 16 kHz, as they come. Stage: task."""

from __future__ import annotations

from collections.abc import Iterator

from ortmesh.errors import BadInput, OutOfRange
from ortmesh.speech.v1.speech_pb2 import RawFormat, StreamFormat
from ortmesh_speech.audio import Resampler, check_shape, mixed
from ortmesh_speech.sample_formats import RAW, RAW_NAMES, Samples
from ortmesh_speech.stream_source import MAX_CHANNELS, ContainerSource, RawSource, Source

MAX_SECONDS = 12 * 3600


class StreamAudio:
    """A stream's audio, to be fed from one thread at a time.

    What was cut off at its end, inside a frame or a file, is left out, and `seconds` tells how far it was read. Whoever
    makes one closes it: files have a decoder's thread.
    """

    def __init__(self, format: StreamFormat, field: str = "config.format", audio_field: str = "audio") -> None:
        """BadInput for a format that is not set or can't be, naming its field."""
        self._field = audio_field
        self._source = source_of(format, field, audio_field)
        self._resampler: Resampler | None = None
        self._frames = 0
        self._bytes = 0

    @property
    def seconds(self) -> float:
        """How much was read so far."""
        return self._frames / self._source.rate if self._source.rate else 0.0

    def feed(self, chunk: bytes) -> Iterator[Samples]:
        """What a chunk gives, in blocks of some seconds at most; the resampler keeps the last samples back.

        BadInput, with the byte, for a file that is damaged, and for samples that are not numbers or far beyond full
        scale; OutOfRange beyond 12 hours.
        """
        begin = self._bytes
        self._bytes += len(chunk)
        return self._resampled(self._source.feed(chunk), begin)

    def rest(self) -> Iterator[Samples]:
        """What was kept back, when no chunk follows. BadInput for a file that ends within its header."""
        yield from self._resampled(self._source.rest(), self._bytes)
        if self._resampler is not None:
            yield self._resampler.rest()

    def close(self) -> None:
        """Lets go of the decoder, at any time, from any thread."""
        self._source.close()

    def _resampled(self, blocks: Iterator[Samples], begin: int) -> Iterator[Samples]:
        for block in blocks:
            if self._resampler is None:
                self._resampler = Resampler(self._source.rate)
            self._frames += len(block)
            if self._frames > MAX_SECONDS * self._source.rate:
                raise OutOfRange(self._field, f"is longer than {MAX_SECONDS // 3600} hours")
            yield self._resampler.push(mixed(block, self._field, f" after byte {begin}"))


def source_of(format: StreamFormat, field: str, audio_field: str) -> Source:
    """How a stream's bytes are to be read. BadInput."""
    kind = format.WhichOneof("format")
    if kind == "raw":
        return _raw(format.raw, f"{field}.raw")
    if kind == "container" and format.container:
        return ContainerSource(audio_field)
    raise BadInput(field, "is not set: container (true) or raw is required")


def _raw(raw: RawFormat, field: str) -> RawSource:
    if raw.format not in RAW:
        raise BadInput(f"{field}.format", f"must be one of {RAW_NAMES}")
    channels = raw.channels or 1
    names = f"{field}.sample_rate_hertz", f"{field}.channels"
    check_shape(raw.sample_rate_hertz, channels, *names, max_channels=MAX_CHANNELS)
    return RawSource(raw.sample_rate_hertz, channels, RAW[raw.format])
