"""Encoders: samples as they come to the bytes of a WAV file, of an Ogg/Opus file, or bare. Stage: task."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import numpy as np
import soundfile

from ortmesh.errors import BadInput
from ortmesh.speech.v1 import speech_pb2
from ortmesh_speech.audio import Samples

UNKNOWN_BYTES: Final = 0xFFFFFFFF
"""Where a WAV file's header says its length: players read on to the end, as with the files that ffmpeg streams."""
COMPRESSION: Final = 0.76
"""66 kbit/s: from 64 on Opus needs no model of the voice, and a second costs 10 ms of CPU where it costs 24 at its
usual 36 kbit/s."""


class Encoder(Protocol):
    """One stream of mono audio. It blocks: call it in the pool."""

    def encode(self, samples: Samples) -> bytes:
        """What is ready once these samples in [-1, 1] are added; the first bytes begin with the file's header."""

    def finish(self) -> bytes:
        """What was kept back, and the file's end."""


class Pcm:
    """Signed 16-bit little-endian samples."""

    def encode(self, samples: Samples) -> bytes:
        """All of them."""
        return np.asarray(np.rint(samples * 32767), "<i2").tobytes()

    def finish(self) -> bytes:
        """Nothing is kept back."""
        return b""


class Wav(Pcm):
    """The same in a WAV file of unknown length."""

    def __init__(self, rate: int) -> None:
        self._header = wav_header(rate)

    def encode(self, samples: Samples) -> bytes:
        """All of them, the first ones behind the header."""
        header, self._header = self._header, b""
        return header + super().encode(samples)


class OggOpus:
    """Opus in Ogg, by libsndfile: pages of about a second each, so that a stream leaves while it is spoken."""

    def __init__(self, rate: int) -> None:
        self._sink = _Sink()
        self._file = soundfile.SoundFile(
            self._sink, "w", rate, 1, format="OGG", subtype="OPUS", compression_level=COMPRESSION
        )

    def encode(self, samples: Samples) -> bytes:
        """The pages that are full; the first ones behind the header."""
        self._file.write(samples)
        return self._sink.take()

    def finish(self) -> bytes:
        """The last pages."""
        self._file.close()
        return self._sink.take()


class _Sink(io.RawIOBase):
    """A file that is only written at its end, and forgets what was taken."""

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()
        self._length = 0

    def write(self, data: bytes) -> int:  # type: ignore[override]  # libsndfile's wrapper gives bytes
        self._held += data
        self._length += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._length

    def tell(self) -> int:
        return self._length

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = bytes(self._held)
        self._held.clear()
        return taken


ENCODERS: Final[Mapping[int, Callable[[int], Encoder]]] = {
    speech_pb2.AUDIO_FORMAT_UNSPECIFIED: Wav,
    speech_pb2.AUDIO_FORMAT_WAV: Wav,
    speech_pb2.AUDIO_FORMAT_S16LE: lambda rate: Pcm(),
    speech_pb2.AUDIO_FORMAT_OGG_OPUS: OggOpus,
}


def encoder_of(form: int) -> Callable[[int], Encoder]:
    """What makes the encoder of an AudioFormat from samples a second. BadInput for one that there is not."""
    if (made := ENCODERS.get(form)) is None:
        names = ", ".join(speech_pb2.AudioFormat.keys()[1:])
        raise BadInput("format", f"{form} is none: expected {names}")
    return made


def wav_header(rate: int) -> bytes:
    """Of mono 16-bit samples whose number is not known; see http://soundfile.sapp.org/doc/WaveFormat/."""
    form = struct.pack("<HHIIHH", 1, 1, rate, rate * 2, 2, 16)
    return struct.pack("<4sI4s4sI16s4sI", b"RIFF", UNKNOWN_BYTES, b"WAVE", b"fmt ", 16, form, b"data", UNKNOWN_BYTES)
