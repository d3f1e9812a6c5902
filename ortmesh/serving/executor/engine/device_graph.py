"""DeviceGraph: a language model's graph on a GPU, always in one of two shapes. Stage: executor.

A GPU chooses other kernels for other shapes, which round differently, and what becomes of a text must not depend on
who is beside it, nor on how much of its prompt was there before. So a step has a row for every slot, whether there is
a text or not. A prompt is read in windows of as many tokens, each from a place that its number gives: what is there
already is computed once more, what is too much is left behind in a spare slot. That costs little where starting a
kernel takes as long as what it does; and as neither shape nor memory of the two runs ever changes, they can be recorded
and replayed (CUDA graphs).

A run: ids and mask are written to pinned memory, and go to the GPU in the order of the session's stream; the graph runs
there; of a step the logits of the rows that are texts come back to pinned memory; then the thread waits, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ortmesh.serving.executor.cuda import Box, Stream, view
from ortmesh.serving.executor.engine.cache import Cache, DeviceCache, Shape
from ortmesh.serving.executor.engine.graph import CausalGraph
from ortmesh.serving.executor.engine.slots import Slots, Values
from ortmesh.serving.executor.interruptible import UNRECORDED, InterruptibleSession
from ortmesh.serving.executor.quiet import QUIET
from ortmesh.serving.executor.recording import Recorder, Recording
from ortmesh.serving.types import Array

WINDOW = 256
"""Tokens of a prompt that are read at once."""
IDS, MASK, LOGITS = "input_ids", "attention_mask", "logits"


class NotOnDevice(ValueError):
    """The graph's keys and values can't be on the device."""


class DeviceGraph(CausalGraph):
    """On the GPU of its session's stream."""

    def __init__(self, session: InterruptibleSession, stream: Stream, head_size: int | None = None) -> None:
        """ValueError for a graph of another kind; NotOnDevice where ONNX Runtime would compute attention on the CPU:
        each step would copy all keys and values."""
        super().__init__(session, head_size)
        self._stream = stream
        devices = dict(zip((info.name for info in session.get_inputs()), session.input_devices(), strict=True))
        if any(devices[past].lower() != stream.kind for past, _ in self._names):
            raise NotOnDevice(f"attention over {self.dtype} has no kernel for {stream.kind}")
        self._recorder = Recorder()
        self._records = session.records
        self._shrunk = session.shrunk
        self._runs: WeakKeyDictionary[Slots, _Runs] = WeakKeyDictionary()

    @property
    def note(self) -> str:
        """What an operator should know."""
        return self._recorder.note

    def slots(self, *, slots: int, length: int) -> Slots:
        """Memory on the device for so many texts of so many tokens."""
        with QUIET.using():
            made = super().slots(slots=slots, length=length)
            made.least_read = 1  # a window has as many as any other
            self._runs[made] = self._prepared(made)
        return made

    def chunk(self, slots: Slots, there: int, *, alone: bool) -> int:
        """What is left of the window."""
        window = self._runs[slots].window
        return self._begin(slots, there) + window - there

    def read(self, slots: Slots, slot: int, tokens: Sequence[int]) -> None:
        """All within a window, which is computed in the spare slot."""
        cache, there = slots.cache, slots.held[slot].tokens
        assert isinstance(cache, DeviceCache)
        runs, begin, end = self._runs[slots], self._begin(slots, len(there)), len(there) + len(tokens)
        cache.copy(slot, cache.spare, 0, begin)
        self._run(runs.of_window, cache, [*there[begin:], *tokens], [begin + runs.window], 0)
        cache.copy(cache.spare, slot, len(there), end)

    def step(self, slots: Slots, tokens: Sequence[int]) -> Values:
        """With a row for each slot."""
        runs = self._runs[slots]
        lengths = [len(each.tokens) + 1 for each in slots.held]
        self._run(runs.of_step, slots.cache, tokens, lengths, len(tokens))
        return runs.logits.values[: len(tokens)].astype(np.float32, copy=False)

    def rest(self) -> None:
        """Nothing: its runs are always the same, and the next text needs what they take."""

    def _prepared(self, slots: Slots) -> _Runs:
        window = min(WINDOW, slots.length)
        room = window if self.tells_all else 1
        logits = _Logits(self._stream, slots.count, max(room, slots.count), self.vocabulary, self.logits_dtype)
        return _Runs(self._stream, slots, window, logits)

    def _cache(self, shape: Shape) -> Cache:
        return DeviceCache(shape, self._stream)

    def _begin(self, slots: Slots, there: int) -> int:
        """Where the window begins in which a token is read before which there are so many; the last one ends with the
        slot."""
        window = self._runs[slots].window
        return min(there // window * window, slots.length - window)

    def _run(self, run: _Run, cache: Cache, tokens: Sequence[int], lengths: Sequence[int], wanted: int) -> None:
        """One run, of which the logits of the first `wanted` rows are brought."""
        compute = partial(self._compute, run, cache, tokens, lengths, wanted)
        if self._shrunk != self._session.shrunk:  # what was recorded computes where no memory is any more
            self._shrunk = self._session.shrunk
            for runs in self._runs.values():
                runs.of_step.recording = runs.of_window.recording = None
        if not self._records:
            with QUIET.using():
                compute(UNRECORDED)
            return
        if run.recording is None:
            run.recording = Recording(self._session.new_recording())
        try:
            self._recorder.run(run.recording, compute)
        except Exception as error:
            run.recording = None
            with QUIET.using():
                compute(UNRECORDED)  # fails too when it is not the recording that is wrong
            self._records = self._recorder.goes_on(error)

    def _compute(
        self,
        run: _Run,
        cache: Cache,
        tokens: Sequence[int],
        lengths: Sequence[int],
        wanted: int,
        number: int,
    ) -> None:
        if run.binding is None:
            run.binding = self._bound(run, cache)
        try:
            run.inputs.send(tokens, lengths)
            self._session.begin_with_iobinding(run.binding, number)
            run.logits.bring(wanted)
        finally:
            self._stream.wait()  # also after a failure: what was begun uses the memory of the next run

    def _bound(self, run: _Run, cache: Cache) -> Any:
        """Bound once: ids, mask and logits beside so many slots."""
        binding = self._session.io_binding()
        place = (self._stream.kind, self._stream.device_id)
        rows, inputs = len(run.inputs.ids), run.inputs
        shape = [rows, inputs.ids.shape[1] if self.tells_all else 1, self.vocabulary]
        binding.bind_output(LOGITS, *place, self.logits_dtype.type, shape, run.logits.address)
        binding.bind_input(IDS, *place, np.int64, list(inputs.ids.shape), inputs.ids_at)
        binding.bind_input(MASK, *place, np.int64, list(inputs.mask.shape), inputs.mask_at)
        self._bind_cache(binding, cache, run.first, rows, place)
        return binding


class _Runs:
    """What is prepared for some slots: a step of them, and a window in the spare one."""

    def __init__(self, stream: Stream, slots: Slots, window: int, logits: _Logits) -> None:
        self.window = window
        self.logits = logits
        self.of_step = _Run(_Inputs(stream, slots.count, 1, slots.length), self.logits, 0)
        self.of_window = _Run(_Inputs(stream, 1, self.window, slots.length), self.logits, slots.count)


@dataclass(slots=True)
class _Run:
    """A run of one shape over certain slots."""

    inputs: _Inputs
    logits: _Logits
    first: int
    """The first of the slots."""
    binding: Any = None
    recording: Recording | None = None


class _Inputs:
    """Ids and mask of one shape, on the device and where the host writes them."""

    def __init__(self, stream: Stream, rows: int, tokens: int, length: int) -> None:
        ids, mask = 8 * rows * tokens, 8 * rows * length
        self._stream = stream
        self._pinned, self._device = stream.pinned(ids + mask), stream.memory(ids + mask)
        stream.zero(self._device.address, ids + mask)
        int64 = np.dtype(np.int64)
        self.ids: Array = view(self._pinned, int64, (rows, tokens))
        self.mask: Array = view(self._pinned, int64, (rows, length), ids)
        self.mask[:] = 0
        self.ids_at, self.mask_at = self._device.address, self._device.address + ids
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
        self._stream.copy(self.mask_at, self._pinned.address + self.ids.nbytes, box)
        self._longest = longest


class _Logits:
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
