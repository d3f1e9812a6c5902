"""Sample formats: how one sample is stored, in raw audio and in WAV, and its way to float32 in [-1, 1]. Stage: task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ortmesh.speech.v1 import speech_pb2

Samples: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SampleFormat:
    """One way to store a sample."""

    itemsize: int
    """Bytes of one sample."""
    decode: Callable[[bytes], Samples]
    """A whole number of samples, float32 [samples]."""


def _scaled(dtype: str, scale: float, offset: float = 0.0) -> SampleFormat:
    """Numbers of a type, shifted and scaled."""

    def decode(content: bytes) -> Samples:
        samples = np.frombuffer(content, dtype).astype(np.float32)
        if offset:
            samples += np.float32(offset)
        return samples if scale == 1 else samples * np.float32(scale)

    return SampleFormat(np.dtype(dtype).itemsize, decode)


def _looked_up(table: Samples) -> SampleFormat:
    """Bytes that stand for the entries of a table."""
    return SampleFormat(1, lambda content: table[np.frombuffer(content, np.uint8)])


def _s24le(content: bytes) -> Samples:
    """Three bytes each: the upper ones of a 32-bit integer."""
    wide = np.zeros((len(content) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
    return wide.view("<i4")[:, 0].astype(np.float32) * np.float32(2**-31)


def _mulaw() -> Samples:
    """ITU-T G.711, table 2: inverted bits, a sign, a power of two and 4 bits between it and the next one."""
    code = ~np.arange(256, dtype=np.uint8)
    steps, power = (code & 15).astype(np.int32), (code >> 4 & 7).astype(np.int32)
    sizes = ((steps << 3) + 132 << power) - 132
    return np.where(code & 128, -sizes, sizes).astype(np.float32) / np.float32(32768)


def _alaw() -> Samples:
    """ITU-T G.711, table 1: every other bit inverted; the two lowest powers have steps of equal size."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    steps, power = (code & 15).astype(np.int32), (code >> 4 & 7).astype(np.int32)
    sizes = np.where(power > 0, (steps << 4) + 264 << np.maximum(power - 1, 0), (steps << 4) + 8)
    return np.where(code & 128, sizes, -sizes).astype(np.float32) / np.float32(32768)


S16LE = _scaled("<i2", 2**-15)
F32LE = _scaled("<f4", 1)
MULAW = _looked_up(_mulaw())
ALAW = _looked_up(_alaw())

RAW: Mapping[int, SampleFormat] = {
    speech_pb2.SAMPLE_FORMAT_S16LE: S16LE,
    speech_pb2.SAMPLE_FORMAT_F32LE: F32LE,
    speech_pb2.SAMPLE_FORMAT_MULAW: MULAW,
    speech_pb2.SAMPLE_FORMAT_ALAW: ALAW,
}
"""Of samples without a file around them, by the API's numbers."""
RAW_NAMES = ", ".join(speech_pb2.SampleFormat.Name(number) for number in RAW)  # type: ignore[arg-type]

PCM, FLOAT, WAV_ALAW, WAV_MULAW = 1, 3, 6, 7
WAV: Mapping[tuple[int, int], SampleFormat] = {
    (PCM, 8): _scaled("u1", 2**-7, offset=-128),
    (PCM, 16): S16LE,
    (PCM, 24): SampleFormat(3, _s24le),
    (PCM, 32): _scaled("<i4", 2**-31),
    (FLOAT, 32): F32LE,
    (FLOAT, 64): _scaled("<f8", 1),
    (WAV_ALAW, 8): ALAW,
    (WAV_MULAW, 8): MULAW,
}
"""Of WAV, by its format tag (RFC 2361) and the bits that a sample takes."""
