"""Caches: memory for the keys and values of slots, a host's or a device's. Stage: executor.

One buffer a layer and side, [slots, heads, length, head size]: a graph with GroupQueryAttention takes a run of slots as
past and present at once, and writes what is new where it belongs.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from ortmesh.serving.executor.cuda import Box, Stream
from ortmesh.serving.executor.quiet import QUIET
from ortmesh.serving.types import Array

SPARE = 64
"""Tokens behind what a slot holds whose memory it may have kept: to give back less takes longer than it is worth."""


@dataclass(frozen=True, slots=True)
class Shape:
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
    def strip(self) -> int:
        """Bytes of a head's tokens in one slot of a buffer."""
        return self.length * self.head_size * self.dtype.itemsize

    @property
    def slot(self) -> int:
        """Bytes of one slot of a buffer."""
        return self.heads * self.strip


class Place(NamedTuple):
    """Where a run of slots of one buffer lies."""

    shape: tuple[int, ...]
    address: int


class Cache(Protocol):
    """The memory of some slots. Belongs to the engine's thread."""

    shape: Shape

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

    def __init__(self, shape: Shape) -> None:
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
        if written - tokens < SPARE:
            return
        self._written[slot] = tokens
        strip, token = self.shape.strip, self.shape.strip // self.shape.length
        for begin in range(slot * self.shape.slot, (slot + 1) * self.shape.slot, strip):
            self._give_back(begin + tokens * token, min(begin + written * token + mmap.PAGESIZE, begin + strip))

    def forget(self, slot: int) -> None:
        """All its pages go back."""
        self._give_back(slot * self.shape.slot, (slot + 1) * self.shape.slot)
        self._written[slot] = 0

    def _buffer(self) -> Array:
        shape = self.shape
        memory = mmap.mmap(-1, shape.slots * shape.slot, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._maps.append(memory)
        return np.frombuffer(memory, shape.dtype).reshape(shape.slots, shape.heads, shape.length, shape.head_size)

    def _give_back(self, first: int, last: int) -> None:
        """The whole pages between two places of each buffer go back to the system, where it can take them: they are
        zeros when they come again."""
        begin, end = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE, last // mmap.PAGESIZE * mmap.PAGESIZE
        if end > begin and hasattr(mmap, "MADV_DONTNEED"):
            for memory in self._maps:
                memory.madvise(mmap.MADV_DONTNEED, begin, end - begin)


class DeviceCache:
    """In one piece of a device's memory, all of it taken at once. Copies are begun in the order of the stream's runs,
    one for all buffers. Each buffer has a spare slot, through which two change places."""

    def __init__(self, shape: Shape, stream: Stream) -> None:
        self.shape = shape
        self._stream = stream
        self._buffer = (shape.slots + 1) * shape.slot
        nbytes = shape.buffers * self._buffer
        self._memory = stream.memory(nbytes)
        stream.zero(self._memory.address, nbytes)  # what was never written is loaded too, and then left out

    @property
    def spare(self) -> int:
        """The slot that nobody has."""
        return self.shape.slots

    def places(self, first: int, last: int) -> list[Place]:
        """Of these slots in each buffer."""
        sizes = (last - first, self.shape.heads, self.shape.length, self.shape.head_size)
        return [Place(sizes, self._address(first) + buffer * self._buffer) for buffer in range(self.shape.buffers)]

    def copy(self, source: int, target: int, first: int, last: int) -> None:
        """Begins to."""
        if first >= last:
            return
        shape = self.shape
        token = shape.strip // shape.length
        box = Box((last - first) * token, shape.heads, shape.buffers, shape.strip, self._buffer // shape.strip)
        with QUIET.using():
            self._stream.copy(self._address(target) + first * token, self._address(source) + first * token, box)

    def exchange(self, one: int, other: int, here: int, there: int) -> None:
        """Begins to."""
        self.copy(one, self.spare, 0, here)
        self.copy(other, one, 0, there)
        self.copy(self.spare, other, 0, here)

    def holds(self, slot: int, tokens: int, before: int) -> None:
        """Its memory stays."""

    def forget(self, slot: int) -> None:
        """Its memory stays."""

    def _address(self, slot: int) -> int:
        return self._memory.address + slot * self.shape.slot
