"""HostCache: the host's memory for the keys and values of slots, and Cache, what it has in common with a device's.
Stage: executor.

One buffer a layer and side, [slots, heads, length, head size]: a graph with GroupQueryAttention takes a run of slots as
past and present at once, and writes what is new where it belongs.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from ortmesh.serving.types import Array

KEPT_BEHIND = 64
"""Tokens behind what a slot holds whose memory it may have kept: to give back less takes longer than it is worth."""


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Of all buffers together."""

    layers: int
    heads: int
    head_size: int
    dtype: np.dtype[Any]
    slots: int
    length: int
    """The most tokens of a text."""

    @property
    def buffers(self) -> int:
        """Keys and values of each layer."""
        return 2 * self.layers

    @property
    def vector_bytes(self) -> int:
        """Of one head's key or value of a token."""
        return self.head_size * self.dtype.itemsize

    @property
    def strip_bytes(self) -> int:
        """Of one head's tokens in one slot of a buffer."""
        return self.length * self.vector_bytes

    @property
    def slot_bytes(self) -> int:
        """Of one slot of a buffer."""
        return self.heads * self.strip_bytes


class Place(NamedTuple):
    """Where a run of slots of one buffer lies."""

    shape: tuple[int, ...]
    address: int


class Cache(Protocol):
    """The memory of some slots. Belongs to the engine's thread."""

    shape: CacheShape

    def places(self, first: int, last: int) -> list[Place]:
        """Of slots `first` to `last` (exclusive) in each buffer: keys and values of each layer in turns."""

    def copy(self, source: int, target: int, first: int, last: int) -> None:
        """Keys and values of a slot's tokens `first` to `last` (exclusive) to another slot."""

    def exchange(self, one: int, other: int, here: int, there: int) -> None:
        """Two slots change places, which hold so many tokens."""

    def holds(self, slot: int, tokens: int, before: int) -> None:
        """A slot holds so many tokens, of which there were `before`: what lies behind them may go."""

    def forget(self, slot: int) -> None:
        """A slot holds nothing any more."""


class HostCache:
    """In memory of the host, which is taken where it is written, and goes back where it is not held any more."""

    def __init__(self, shape: CacheShape) -> None:
        self.shape = shape
        self._maps: list[mmap.mmap] = []
        self.buffers = [self._buffer() for _ in range(shape.buffers)]
        self._written = [0] * shape.slots
        """How many tokens of each slot may have memory, counted when it came to hold less."""

    def places(self, first: int, last: int) -> list[Place]:
        """Of these slots in each buffer."""
        parts = (buffer[first:last] for buffer in self.buffers)
        return [Place(part.shape, part.ctypes.data) for part in parts]

    def copy(self, source: int, target: int, first: int, last: int) -> None:
        """At once."""
        for buffer in self.buffers:
            buffer[target, :, first:last] = buffer[source, :, first:last]

    def exchange(self, one: int, other: int, here: int, there: int) -> None:
        """Only what they hold."""
        for buffer in self.buffers:
            kept = buffer[one, :, :here].copy()
            buffer[one, :, :there] = buffer[other, :, :there]
            buffer[other, :, :here] = kept
        self.holds(one, there, here)
        self.holds(other, here, there)

    def holds(self, slot: int, tokens: int, before: int) -> None:
        """The pages behind what it holds go back."""
        written = self._written[slot] = max(self._written[slot], before, tokens)
        if written - tokens < KEPT_BEHIND:
            return
        self._written[slot] = tokens
        strip, token, whole = self.shape.strip_bytes, self.shape.vector_bytes, self.shape.slot_bytes
        for begin in range(slot * whole, (slot + 1) * whole, strip):
            self._give_back(begin + tokens * token, min(begin + written * token + mmap.PAGESIZE, begin + strip))

    def forget(self, slot: int) -> None:
        """All its pages go back."""
        self._give_back(slot * self.shape.slot_bytes, (slot + 1) * self.shape.slot_bytes)
        self._written[slot] = 0

    def _buffer(self) -> Array:
        shape = self.shape
        memory = mmap.mmap(-1, shape.slots * shape.slot_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._maps.append(memory)
        return np.frombuffer(memory, shape.dtype).reshape(shape.slots, shape.heads, shape.length, shape.head_size)

    def _give_back(self, first: int, last: int) -> None:
        """The whole pages between two places of each buffer go back to the system, where it can take them: they are
        zeros when they come again."""
        begin, end = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE, last // mmap.PAGESIZE * mmap.PAGESIZE
        if end > begin and hasattr(mmap, "MADV_DONTNEED"):
            for memory in self._maps:
                memory.madvise(mmap.MADV_DONTNEED, begin, end - begin)
