"""HostStream: the host's memory in a GPU's place, so that the same code runs, and is tested, where there is none."""

from __future__ import annotations

import ctypes

from ortmesh.serving.executor.cuda import Box


class Block:
    """Bytes at a fixed address."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._raw = (ctypes.c_char * max(nbytes, 1))()
        self.address = ctypes.addressof(self._raw)


class HostStream:
    """As `ortmesh.serving.executor.cuda.Stream` wants it; counts what was asked of it."""

    kind = "cpu"
    device_id = 0
    name = "this machine"

    def __init__(self) -> None:
        self.allocations = self.copies = self.direct = self.waits = self.read_bytes = 0
        self.used_bytes = 0
        """What it says of its memory."""

    def pinned(self, nbytes: int) -> Block:
        """Memory of the host."""
        self.allocations += 1
        return Block(nbytes)

    def memory(self, nbytes: int) -> Block:
        """More memory of the host."""
        return self.pinned(nbytes)

    def to_device(self, target: int, source: int, nbytes: int) -> None:
        """Copies at once."""
        self.copies += 1
        ctypes.memmove(target, source, nbytes)

    def array_to_device(self, target: int, source: int, nbytes: int) -> None:
        """Copies at once."""
        self.direct += 1
        ctypes.memmove(target, source, nbytes)

    def to_host(self, target: int, source: int, nbytes: int) -> None:
        """Copies at once."""
        self.copies += 1
        self.read_bytes += nbytes
        ctypes.memmove(target, source, nbytes)

    def copy(self, target: int, source: int, box: Box) -> None:
        """Copies at once, row by row."""
        self.copies += 1
        for piece in range(box.slices):
            for row in range(box.rows):
                at = (piece * box.slice_rows + row) * box.pitch
                ctypes.memmove(target + at, source + at, box.width)

    def zero(self, target: int, nbytes: int) -> None:
        """At once."""
        ctypes.memset(target, 0, nbytes)

    def wait(self) -> None:
        """Nothing is under way."""
        self.waits += 1

    def used(self) -> int:
        """As it was set."""
        return self.used_bytes
