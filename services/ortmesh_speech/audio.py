"""Recordings: from ortmesh.speech.v1.Audio to mono samples at 16 kHz, block by block. Stage: task.

A recording is never held decoded as a whole: an hour of silence in FLAC is 180 kB and would become 230 MB. The
header is judged before anything is decoded, and the samples are counted while they are read, so that neither a
tiny file that expands nor a header that lies costs more than a block.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile
import soxr

from ortmesh.errors import BadInput, OutOfRange
from ortmesh.speech.v1 import speech_pb2
from ortmesh_speech.sample_formats import RAW, RAW_NAMES, Samples

__all__ = ["SAMPLE_RATE", "Recording", "Resampler", "Samples", "check_shape", "mixed"]

SAMPLE_RATE = 16_000
MAX_SECONDS = 3600
MIN_RATE, MAX_RATE = 1_000, 384_000
MAX_CHANNELS = 16
BLOCK_FRAMES = 65_536
LOUDEST = np.float32(16)
"""Floats are in [-1, 1]. Up to 24 dB over full scale they are heard as well; those beyond are in the scale of integers,
and to guess which one while they come would be wrong at first: a soft beginning passes for loud floats."""
UNKNOWN_FRAMES = 2**62
"""libsndfile says 2^63 - 1 frames where a streaming encoder left the length open."""

CONTAINERS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF")
"""What is read of the many formats that libsndfile knows: those that the API names."""


class Recording:
    """Audio whose header was found good, to be read once, from front to back.

    Samples that are not numbers, or far beyond full scale, are the caller's error, as they would silence everything
    around them. What was cut off without a trace (WAV, MP3, Ogg) is read as far as it goes, and `seconds` tells; a
    decoder's own complaint (a damaged FLAC) is an error.
    """

    def __init__(self, audio: speech_pb2.Audio, field: str = "audio") -> None:
        """BadInput for what is not audio, OutOfRange for more than an hour, both naming the field."""
        kind = audio.WhichOneof("content")
        if kind is None:
            raise BadInput(field, "no content is set: encoded or raw is required")
        self._field = f"{field}.{kind}"
        self._source = _File(audio.encoded, self._field) if kind == "encoded" else _Raw(audio.raw, self._field)
        self._frames = 0

    @property
    def seconds(self) -> float:
        """How much was read so far."""
        return self._frames / self._source.rate

    def __iter__(self) -> Iterator[Samples]:
        """Blocks of mono samples at 16 kHz. BadInput when there are none or the file is damaged; OutOfRange."""
        resampler = Resampler(self._source.rate)
        for block in self._source.blocks():
            self._frames += len(block)
            _check_length(self._frames, self._source.rate, self._field)
            yield resampler.push(mixed(block, self._field))
        if not self._frames:
            raise BadInput(self._field, "has no samples")
        yield resampler.rest()


class _File:
    """An audio file in memory."""

    def __init__(self, content: bytes, field: str) -> None:
        self._field = field
        if not content:
            raise BadInput(field, "is empty")
        self._file = self._open(_with_open_length(content))
        self.rate: int = self._file.samplerate
        if self._file.format not in CONTAINERS:
            raise self._not_audio(f"it is {self._file.format_info}")
        check_shape(self.rate, self._file.channels, field, field)
        if self._file.frames < UNKNOWN_FRAMES:
            _check_length(self._file.frames, self.rate, field)

    def blocks(self) -> Iterator[Samples]:
        """Float32 [frames, channels]."""
        read = 0
        while True:
            try:
                block = self._file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                reason = f"is damaged or cut off after {read / self.rate:.2f} s: {error.error_string}"
                raise BadInput(self._field, reason) from None
            if not len(block):
                return
            read += len(block)
            yield block

    def _open(self, content: bytes) -> _Forward:
        try:
            return _Forward(_Memory(content))
        except soundfile.LibsndfileError as error:
            raise self._not_audio(error.error_string) from None

    def _not_audio(self, reason: str) -> BadInput:
        expected = "expected WAV, FLAC, Ogg (Vorbis or Opus), MP3, AIFF, AU or CAF"
        return BadInput(self._field, f"can't be read as audio, {expected}: {reason}")


class _Forward(soundfile.SoundFile):  # type: ignore[misc]  # the library has no types
    """A file that is only read forward: soundfile would seek after each read, which a cut FLAC refuses."""

    def seekable(self) -> bool:
        return False


class _Memory(io.BytesIO):
    """A file in memory that stays where it is when a damaged header leads to before its start.

    libsndfile sees that and complains; an exception would only be printed by its Python wrapper.
    """

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


class _Raw:
    """Samples without a file around them."""

    def __init__(self, raw: speech_pb2.RawAudio, field: str) -> None:
        if raw.format not in RAW:
            raise BadInput(f"{field}.format", f"must be one of {RAW_NAMES}")
        self._format = RAW[raw.format]
        self._channels = raw.channels or 1
        self.rate: int = raw.sample_rate_hertz
        check_shape(self.rate, self._channels, f"{field}.sample_rate_hertz", f"{field}.channels")
        self._samples = raw.samples
        self._frame_bytes = self._channels * self._format.itemsize
        if len(self._samples) % self._frame_bytes:
            reason = f"{len(self._samples)} bytes are no whole number of frames of {self._frame_bytes} bytes"
            raise BadInput(f"{field}.samples", reason)
        _check_length(len(self._samples) // self._frame_bytes, self.rate, field)

    def blocks(self) -> Iterator[Samples]:
        """Float32 [frames, channels]."""
        step = BLOCK_FRAMES * self._frame_bytes
        for start in range(0, len(self._samples), step):
            yield self._format.decode(self._samples[start : start + step]).reshape(-1, self._channels)


class Resampler:
    """Mono samples of any rate, block by block, to 16 kHz."""

    def __init__(self, rate: int) -> None:
        self._stream: Any = None
        if rate != SAMPLE_RATE:
            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, num_channels=1, dtype="float32", quality="HQ")

    def push(self, block: Samples) -> Samples:
        """What a block gives; the resampler keeps its last samples back."""
        return block if self._stream is None else self._stream.resample_chunk(block)

    def rest(self) -> Samples:
        """What was kept back."""
        nothing = np.empty(0, np.float32)
        return nothing if self._stream is None else self._stream.resample_chunk(nothing, last=True)


def mixed(block: Samples, field: str, where: str = "") -> Samples:
    """The mean of all channels of a block [frames, channels]. BadInput for samples that can't be sound."""
    mono: Samples = np.einsum("ij->i", block) / np.float32(block.shape[1])  # `mean` takes nine times as long
    if len(mono) and not (mono.max() <= LOUDEST and mono.min() >= -LOUDEST):  # neither is what is no number
        raise BadInput(
            field, f"contains samples beyond ±{LOUDEST:g} or that are not finite numbers{where}: expected [-1, 1]"
        )
    return mono


def check_shape(
    rate: int, channels: int, rate_field: str, channels_field: str, *, max_channels: int = MAX_CHANNELS
) -> None:
    """BadInput for a rate or a number of channels that is not read, naming the field."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise BadInput(rate_field, f"{rate} samples a second: expected {MIN_RATE:,} to {MAX_RATE:,}")
    if not 1 <= channels <= max_channels:
        raise BadInput(channels_field, f"{channels} channels: expected 1 to {max_channels}")


def _check_length(frames: int, rate: int, field: str) -> None:
    if frames > MAX_SECONDS * rate:
        raise OutOfRange(field, f"is longer than {MAX_SECONDS // 3600} hour")


def _with_open_length(content: bytes) -> bytes:
    """WAV as programs write it that never learn its length: a data chunk of size 0, which goes to the end.

    libsndfile reads the other placeholders (0xFFFFFFFF, 0x7FFFFFFF) that way, but believes the 0. A file that is
    truly empty has nothing or further whole chunks behind it.
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return content
    at = _find_chunk(content, b"data", 12)
    if at is None or content[at + 4 : at + 8] != bytes(4) or _chunks_end(content, at + 8) == len(content):
        return content
    return content[: at + 4] + b"\xff\xff\xff\xff" + content[at + 8 :]


def _find_chunk(content: bytes, name: bytes, at: int) -> int | None:
    """Where a RIFF chunk begins, from `at` on."""
    while at + 8 <= len(content):
        if content[at : at + 4] == name:
            return at
        at = _next_chunk(content, at)
    return None


def _chunks_end(content: bytes, at: int) -> int:
    """Where the chunks from `at` on end; the content's own end when they are whole."""
    while at + 8 <= len(content):
        at = _next_chunk(content, at)
    return at


def _next_chunk(content: bytes, at: int) -> int:
    size = struct.unpack_from("<I", content, at + 4)[0]
    return int(at + 8 + size + size % 2)
