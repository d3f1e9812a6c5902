"""Streams of the tests: messages as a caller sends them, cut into chunks, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeVar

import numpy as np

from ortmesh.speech.v1.speech_pb2 import SAMPLE_FORMAT_S16LE, RawFormat, StreamFormat
from ortmesh_speech.audio import SAMPLE_RATE, Samples

R = TypeVar("R")

S16_16K = StreamFormat(raw=RawFormat(sample_rate_hertz=SAMPLE_RATE, format=SAMPLE_FORMAT_S16LE))
CHUNK_BYTES = 3200
"""100 ms of 16-bit samples."""


def s16(samples: Samples) -> bytes:
    """Samples as 16-bit numbers, the same as in a file of them: the nearest."""
    return np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def cut(content: bytes, size: int = CHUNK_BYTES) -> list[bytes]:
    """Chunks of a size; the last one may be shorter."""
    return [content[at : at + size] for at in range(0, len(content), size)]


async def sent(messages: Iterable[R]) -> AsyncIterator[R]:
    """Messages that are there as soon as they are asked for; then the caller half-closes."""
    for message in messages:
        yield message


async def until_left(messages: Iterable[R]) -> AsyncIterator[R]:
    """Messages of a caller who then says nothing any more, and does not half-close."""
    for message in messages:
        yield message
    await asyncio.Event().wait()


async def all_of(answers: AsyncIterator[Any]) -> list[Any]:
    """Everything that comes back."""
    return [answer async for answer in answers]
