"""Lent: pinned memory in which a batch's outputs arrive and stay, until nobody reads them any more. Stage: executor."""

from __future__ import annotations

import time
import weakref
from collections import deque

import numpy as np

from ortmesh.serving.executor.cuda import Memory, Stream, raw_of
from ortmesh.serving.types import Array

LEAST_BYTES = 1 << 16
"""Of a block. Outputs that are smaller are copied: 64 KB take 5 µs."""
MOST_LENT_BYTES = 1 << 28
"""Pinned memory can't be swapped out: what answers hold beyond so much, for callers that read slowly, is copied."""
MOST_FREE = 8
"""Blocks that are kept for the next batches."""
OLD_SECONDS = 10.0
"""A block that no batch needed for so long is given back."""


class Lender:
    """Blocks of one executor. Its thread takes and lends; what is lent comes back from any thread."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._free: list[tuple[float, Memory]] = []
        """With the time at which each came back, the oldest first."""
        self._loans: set[_Loan] = set()
        self._back: deque[_Loan] = deque()
        """A loan appends itself when it ends: no lock, for that may be at any moment, also of this thread."""
        self._lent_bytes = 0

    def take(self, nbytes: int) -> Memory:
        """A block of so many bytes or up to twice as many."""
        self._collect()
        for index in range(len(self._free) - 1, -1, -1):
            if nbytes <= self._free[index][1].nbytes <= 2 * max(nbytes, LEAST_BYTES):
                return self._free.pop(index)[1]
        return self._stream.pinned(rounded(nbytes))

    def give(self, memory: Memory) -> None:
        """Back, after nothing was lent of it."""
        self._free.append((time.monotonic(), memory))

    def lend(self, memory: Memory) -> Array | None:
        """The block's bytes; it comes back by itself once no array views them. None: too much is lent, copy it."""
        if self._lent_bytes + memory.nbytes > MOST_LENT_BYTES:
            return None
        root: Array = np.frombuffer(raw_of(memory), np.uint8)
        loan = _Loan(root, self._back.append)
        loan.memory = memory
        self._loans.add(loan)
        self._lent_bytes += memory.nbytes
        return root

    def shrink(self) -> None:
        """Frees what is not lent."""
        self._collect()
        self._free.clear()

    def _collect(self) -> None:
        now = time.monotonic()
        while self._back:
            loan = self._back.popleft()
            self._loans.discard(loan)
            self._lent_bytes -= loan.memory.nbytes
            self._free.append((now, loan.memory))
        if self._free and (len(self._free) > MOST_FREE or now - self._free[0][0] > OLD_SECONDS):
            del self._free[0]


class _Loan(weakref.ref[Array]):
    """On the array of which all others of a block are views. It dies with the lender: then the block is the arrays'."""

    __slots__ = ("memory",)
    memory: Memory

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def rounded(nbytes: int) -> int:
    """Up to an eighth more, so that blocks of nearly the same size serve each other's batches."""
    step = 1 << max(nbytes.bit_length() - 4, 12)
    return max(-(-nbytes // step) * step, LEAST_BYTES)
