"""FixedRun: a run whose shape and memory never change: ids, mask and logits, on device and host. Stage: executor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ortmesh.serving.executor.cuda import Box, Stream, view
from ortmesh.serving.executor.engine.slots import Slots
from ortmesh.serving.executor.recording import Recording
from ortmesh.serving.executor.room import laid
from ortmesh.serving.types import Array


@dataclass(slots=True)
class FixedRun:
    """Over certain slots."""

    inputs: Inputs
    logits: Logits
    first: int
    """The first of the slots."""
    binding: Any = None
    recording: Recording | None = None


class Inputs:
    """Ids and mask of one shape, on the device and where the host writes them."""

    def __init__(self, stream: Stream, rows: int, tokens: int, length: int) -> None:
        (_, self._mask_start), nbytes = laid([8 * rows * tokens, 8 * rows * length])
        self._stream = stream
        self._pinned, self._device = stream.pinned(nbytes), stream.memory(nbytes)
        stream.zero(self._device.address, nbytes)
        int64 = np.dtype(np.int64)
        self.ids: Array = view(self._pinned, int64, (rows, tokens))
        self.mask: Array = view(self._pinned, int64, (rows, length), self._mask_start)
        self.mask[:] = 0
        self.ids_at, self.mask_at = self._device.address, self._device.address + self._mask_start
        self._columns = 0
        """Of the mask: others are zeros, here and there."""
        self._longest = 0

    def send(self, tokens: Sequence[int], lengths: Sequence[int]) -> None:
        """Writes tokens, and 0 where there are none, and masks of these lengths; begins to copy them."""
        flat = self.ids.reshape(-1)
        flat[: len(tokens)] = tokens
        flat[len(tokens) :] = 0
        longest, whole = max(lengths), self.mask.shape[1]
        columns, self._longest = max(longest, self._longest), whole  # all of it, if a copy fails
        self.mask[:, :columns] = np.arange(columns) < np.asarray(lengths)[:, None]
        self._stream.to_device(self.ids_at, self._pinned.address, self.ids.nbytes)
        rows = len(self.mask)
        box = Box(8 * columns, rows, 1, 8 * whole, rows)
        self._stream.copy(self.mask_at, self._pinned.address + self._mask_start, box)
        self._longest = longest


class Logits:
    """[rows, vocabulary] on the device and on the host."""

    def __init__(self, stream: Stream, rows: int, room: int, vocabulary: int, dtype: np.dtype[Any]) -> None:
        """On the device there is `room` for more of them: for those of a prompt, which nobody reads."""
        nbytes = vocabulary * dtype.itemsize
        self._stream = stream
        self._pinned, self._device = stream.pinned(rows * nbytes), stream.memory(room * nbytes)
        self.values: Array = view(self._pinned, dtype, (rows, vocabulary))
        self.address = self._device.address

    def bring(self, rows: int) -> None:
        """Begins to copy those of the first rows to the host."""
        if rows:
            self._stream.to_host(self._pinned.address, self.address, self.values[:rows].nbytes)


class Prepared:
    """What is prepared for some slots: a step of them, and a window in the scratch slot."""

    def __init__(self, stream: Stream, slots: Slots, window: int, logits: Logits) -> None:
        self.window = window
        self.logits = logits
        self.step = FixedRun(Inputs(stream, slots.count, 1, slots.length), self.logits, 0)
        self.chunk = FixedRun(Inputs(stream, 1, self.window, slots.length), self.logits, slots.count)
