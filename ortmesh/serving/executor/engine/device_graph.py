"""DeviceGraph: a language model's graph on a GPU, always in one of two shapes. Stage: executor.

A GPU chooses other kernels for other shapes, which round differently, and what becomes of a text must not depend on
who is beside it, nor on how much of its prompt was there before. So a step has a row for every slot, whether there is
a text or not. A prompt is read in windows of as many tokens, each from a place that its number gives: what is there
already is computed once more, what is too much is left behind in a scratch slot. That costs little where starting a
kernel takes as long as what it does; and as neither shape nor memory of the two runs ever changes, they can be recorded
and replayed (CUDA graphs).

A run: ids and mask are written to pinned memory, and go to the GPU in the order of the session's stream; the graph runs
there; of a step the logits of the rows that are texts come back to pinned memory; then the thread waits, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ortmesh.serving.executor.cuda import Stream
from ortmesh.serving.executor.engine.cache import Cache, CacheShape
from ortmesh.serving.executor.engine.device_cache import DeviceCache
from ortmesh.serving.executor.engine.device_runs import FixedRun, Inputs, Logits, Prepared
from ortmesh.serving.executor.engine.graph import IDS, LOGITS, MASK, CausalGraph
from ortmesh.serving.executor.engine.slots import Slots, Values
from ortmesh.serving.executor.interruptible import UNRECORDED, InterruptibleSession
from ortmesh.serving.executor.quiet import QUIET
from ortmesh.serving.executor.recording import Recorder

WINDOW = 256
"""Tokens of a prompt that are read at once."""
MOST_RECORDINGS = 16
"""Of two runs, which are recorded twice at the start, and again where memory was given back, or where a call of another
library spoilt one."""


class NotOnDevice(ValueError):
    """The graph's keys and values can't be on the device."""


class DeviceGraph(CausalGraph):
    """On the GPU of its session's stream."""

    on_device = True
    least_read = 1
    """A window has as many as any other, however many count."""
    sample_tokens = WINDOW + 8
    """They go into two windows."""

    def __init__(self, session: InterruptibleSession, stream: Stream, head_size: int | None = None) -> None:
        """ValueError for a graph of another kind; NotOnDevice where ONNX Runtime would compute attention on the CPU:
        each step would copy all keys and values."""
        super().__init__(session, head_size)
        self._stream = stream
        devices = dict(zip((info.name for info in session.get_inputs()), session.input_devices(), strict=True))
        if any(devices[past].lower() != stream.kind for past, _ in self._names):
            raise NotOnDevice(f"attention over {self.dtype} has no kernel for {stream.kind}")
        self._recorder = Recorder(MOST_RECORDINGS)
        self._records = session.records
        self._shrunk = session.shrunk
        self._prepared: WeakKeyDictionary[Slots, Prepared] = WeakKeyDictionary()

    @property
    def note(self) -> str:
        """What an operator should know."""
        return self._recorder.note

    def slots(self, *, slots: int, length: int) -> Slots:
        """Memory on the device for so many texts of so many tokens."""
        with QUIET.using():
            made = super().slots(slots=slots, length=length)
            self._prepared[made] = self._prepare(made)
        return made

    def chunk(self, slots: Slots, there: int, left: int, *, alone: bool) -> int:
        """What is left of the window."""
        return min(left, self._begin(slots, there) + self._prepared[slots].window - there)

    def read(self, slots: Slots, slot: int, tokens: Sequence[int]) -> None:
        """All within a window, which is computed in the scratch slot."""
        cache, there = slots.cache, slots.held[slot].tokens
        assert isinstance(cache, DeviceCache)
        prepared, begin, end = self._prepared[slots], self._begin(slots, len(there)), len(there) + len(tokens)
        cache.copy(slot, cache.scratch, 0, begin)
        self._run(prepared.chunk, cache, [*there[begin:], *tokens], [begin + prepared.window], 0)
        cache.copy(cache.scratch, slot, len(there), end)

    def step(self, slots: Slots, tokens: Sequence[int], least_rows: int | None = None) -> Values:
        """With a row for each slot, always."""
        prepared = self._prepared[slots]
        lengths = [len(each.tokens) + 1 for each in slots.held]
        self._run(prepared.step, slots.cache, tokens, lengths, len(tokens))
        return prepared.logits.values[: len(tokens)].astype(np.float32, copy=False)

    def reach(self, slots: Slots, tokens: int) -> None:
        """In the scratch slot."""
        with QUIET.using():
            run = FixedRun(Inputs(self._stream, 1, 1, tokens), self._prepared[slots].logits, slots.count)
            self._compute(run, slots.cache, [0], [tokens], 0, UNRECORDED)

    def rest(self, slots: Slots) -> None:
        """Nothing: memory for all slots is there anyway, its runs are always the same, and the next text needs both."""

    def _prepare(self, slots: Slots) -> Prepared:
        window = min(WINDOW, slots.length)
        room = window if self.tells_all else 1
        logits = Logits(self._stream, slots.count, max(room, slots.count), self.vocabulary, self.logits_dtype)
        return Prepared(self._stream, slots, window, logits)

    def _cache(self, shape: CacheShape) -> Cache:
        return DeviceCache(shape, self._stream)

    def _begin(self, slots: Slots, there: int) -> int:
        """Where the window begins in which a token is read before which there are so many; the last one ends with the
        slot."""
        window = self._prepared[slots].window
        return min(there // window * window, slots.length - window)

    def _run(self, run: FixedRun, cache: Cache, tokens: Sequence[int], lengths: Sequence[int], wanted: int) -> None:
        """One run, of which the logits of the first `wanted` rows are brought."""
        compute = partial(self._compute, run, cache, tokens, lengths, wanted)
        if self._shrunk != self._session.shrunk:  # what was recorded computes where no memory is any more
            self._shrunk = self._session.shrunk
            for prepared in self._prepared.values():
                prepared.step.recording = prepared.chunk.recording = None
        if self._records and run.recording is None:
            run.recording = self._recorder.new(self._session)
        if not self._records or run.recording is None:
            with QUIET.using():
                compute(UNRECORDED)
            return
        try:
            self._recorder.run(run.recording, compute)
        except Exception as error:
            run.recording = None
            with QUIET.using():
                compute(UNRECORDED)  # fails too when it is not the recording that is wrong
            self._records = self._recorder.goes_on(error)

    def _compute(
        self,
        run: FixedRun,
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

    def _bound(self, run: FixedRun, cache: Cache) -> Any:
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
