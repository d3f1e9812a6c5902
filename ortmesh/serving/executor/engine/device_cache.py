"""DeviceCache: a device's memory for the keys and values of slots. Stage: executor."""

from __future__ import annotations

from ortmesh.serving.executor.cuda import Box, Stream
from ortmesh.serving.executor.engine.cache import CacheShape, Place
from ortmesh.serving.executor.quiet import QUIET


class DeviceCache:
    """In one piece of a device's memory, all of it taken at once. Copies are begun in the order of the stream's runs,
    one for all buffers. Each buffer has a slot more, where windows are computed and through which two slots change
    places."""

    def __init__(self, shape: CacheShape, stream: Stream) -> None:
        self.shape = shape
        self._stream = stream
        self._buffer_bytes = (shape.slots + 1) * shape.slot_bytes
        nbytes = shape.buffers * self._buffer_bytes
        self._memory = stream.memory(nbytes)
        stream.zero(self._memory.address, nbytes)  # what was never written is loaded too, and then left out

    @property
    def scratch(self) -> int:
        """The slot that nobody has."""
        return self.shape.slots

    def places(self, first: int, last: int) -> list[Place]:
        """Of these slots in each buffer."""
        sizes = (last - first, self.shape.heads, self.shape.length, self.shape.head_size)
        return [
            Place(sizes, self._address(first) + buffer * self._buffer_bytes) for buffer in range(self.shape.buffers)
        ]

    def copy(self, source: int, target: int, first: int, last: int) -> None:
        """Begins to."""
        if first >= last:
            return
        shape = self.shape
        token, strip = shape.vector_bytes, shape.strip_bytes
        box = Box((last - first) * token, shape.heads, shape.buffers, strip, self._buffer_bytes // strip)
        with QUIET.using():
            self._stream.copy(self._address(target) + first * token, self._address(source) + first * token, box)

    def exchange(self, one: int, other: int, here: int, there: int) -> None:
        """Begins to."""
        self.copy(one, self.scratch, 0, here)
        self.copy(other, one, 0, there)
        self.copy(self.scratch, other, 0, here)

    def holds(self, slot: int, tokens: int, before: int) -> None:
        """Its memory stays."""

    def forget(self, slot: int) -> None:
        """Its memory stays."""

    def _address(self, slot: int) -> int:
        return self._memory.address + slot * self.shape.slot_bytes
