"""CausalGraph: runs of a language model's graph over some slots, on a host or on a device. Stage: executor.

The graph is one as onnxruntime-genai's builder makes it: `input_ids` and `attention_mask` int64 [rows, tokens],
`past_key_values.N.key` and `.value` of floats of 32 or 16 bits [rows, heads, length, head size], and `present.N.key`
and `.value` that may be the same buffers (com.microsoft.GroupQueryAttention), `logits` of such floats, too [rows,
tokens or 1, vocabulary].
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ortmesh.serving.executor.engine.cache import Cache, CacheShape, HostCache
from ortmesh.serving.executor.engine.slots import LEAST_READ, LEAST_ROWS, Slots, Values
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.types import Array

PAST, PRESENT = "past_key_values.{}.{}", "present.{}.{}"
KEY = re.compile(r"past_key_values\.(\d+)\.key")
SIDES = ("key", "value")
IDS, MASK, LOGITS = "input_ids", "attention_mask", "logits"
DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}
"""Of keys and values, and of logits."""
COLUMNS = 64
"""The mask of a step has a multiple of so many."""
CHUNK, CHUNK_ALONE = 64, 256
"""Tokens of a prompt that a CPU reads at once: 64 of SmolLM2's take 0.1 s on two cores, and 1,000 in such chunks a
tenth longer than in one piece."""

BLOCK = 16
"""On a CPU attention goes through a chunk in blocks of rows: twice as many as a head has numbers, where the caches of
the processor do not allow less. As a run of one row, a last block of one row takes another kernel, which rounds
differently: so no chunk has one token more than a multiple of this."""


class CausalGraph(ABC):
    """Belongs to the engine's thread."""

    on_device = False
    """True when a device may fail it."""
    least_read = LEAST_READ
    """Tokens of a prompt that are read in a chunk, at least."""
    sample_tokens = 8
    """Of the prompts that are tried before it serves."""
    least_rows = LEAST_ROWS
    """So many rows a step has at least, idle ones beside those of texts: fewer may give other numbers."""

    def __init__(self, session: InterruptibleSession, head_size: int | None = None) -> None:
        """`head_size` is needed where the graph leaves it open. ValueError for a graph of another kind, with what it
        lacks."""
        self._session = session
        self.provider = session.get_providers()[0]
        inputs = {info.name: info for info in session.get_inputs()}
        outputs = {info.name: info for info in session.get_outputs()}
        self.layers = len([name for name in inputs if KEY.fullmatch(name)])
        self._names = [
            (PAST.format(layer, side), PRESENT.format(layer, side)) for layer in range(self.layers) for side in SIDES
        ]
        wanted = {IDS, MASK, *(past for past, _ in self._names)}
        missing = [*sorted(wanted - set(inputs)), *sorted({LOGITS, *(now for _, now in self._names)} - set(outputs))]
        if missing or not self.layers or set(inputs) - wanted:
            more = sorted(set(inputs) - wanted)
            raise ValueError(
                "the graph is none of a causal language model with a shared buffer of keys and values: "
                f"it lacks {', '.join(missing) or 'past_key_values.0.key'}"
                + (f", and takes {', '.join(more)} beside" if more else "")
            )
        key = inputs[self._names[0][0]]
        _, heads, _, size = key.shape
        self.heads = _fixed(heads, "the number of heads")
        self.head_size = head_size or _fixed(size, "the size of heads (or runtime.engine.head_size in the card)")
        self.dtype = _dtype(key, "keys and values")
        logits = outputs[LOGITS]
        self.vocabulary = _fixed(logits.shape[-1], "the size of the vocabulary")
        self.logits_dtype = _dtype(logits, "logits")
        self.tells_all = logits.shape[1] != 1
        """True when it has logits after each token of a run, and not only after the last one."""

    def slots(self, *, slots: int, length: int) -> Slots:
        """Memory for so many texts of so many tokens."""
        slots = max(slots, LEAST_ROWS)
        return Slots(
            self._cache(CacheShape(self.layers, self.heads, self.head_size, self.dtype, slots, length)), self.least_read
        )

    @abstractmethod
    def chunk(self, slots: Slots, there: int, left: int, *, alone: bool) -> int:
        """How many of the tokens that are left of a prompt, of which so many are there, are to be read at once, while
        others' texts grow or while none does."""

    @abstractmethod
    def read(self, slots: Slots, slot: int, tokens: Sequence[int]) -> None:
        """Computes the keys and values of several tokens of a slot, behind those that it holds."""

    def read_on(self, slots: Slots, slot: int, tokens: Sequence[int]) -> None:
        """Reads tokens chunk by chunk, behind those that the slot holds, and has it hold them too."""
        held, read = slots.held[slot], 0
        while read < len(tokens):
            count = self.chunk(slots, len(held.tokens), len(tokens) - read, alone=True)
            part = tokens[read : read + count]
            self.read(slots, slot, part)
            held.tokens.extend(part)
            read += count

    @abstractmethod
    def step(self, slots: Slots, tokens: Sequence[int], least_rows: int | None = None) -> Values:
        """Computes one token more of each of the first slots. What may come next: logits [rows, vocabulary], which the
        next step may overwrite.

        A step may have idle rows, which write behind what their slots hold: that may be a prompt that is being read.
        `least_rows` are those that it has at least, where their number is not fixed; None: the graph's own.
        """

    @abstractmethod
    def reach(self, slots: Slots, tokens: int) -> None:
        """Computes the last token of a text of so many, over keys and values of whatever is there, while no slot holds
        anything. Raises what the graph does where it has no such place."""

    @property
    def note(self) -> str:
        """What an operator should know."""
        return ""

    @abstractmethod
    def rest(self, slots: Slots) -> None:
        """Nothing runs, and has not for long: gives back what memory it can."""

    @abstractmethod
    def _cache(self, shape: CacheShape) -> Cache:
        """Memory for keys and values."""

    def _bind_cache(self, binding: Any, cache: Cache, first: int, rows: int, place: tuple[str, int]) -> None:
        """Binds so many slots as past and present."""
        for (past, present), (shape, address) in zip(self._names, cache.places(first, first + rows), strict=True):
            there: tuple[Any, ...] = (*place, self.dtype.type, shape, address)
            binding.bind_input(past, *there)
            binding.bind_output(present, *there)


class HostGraph(CausalGraph):
    """On a CPU: as many rows as there are texts, and of a prompt as much as others can wait for."""

    def __init__(self, session: InterruptibleSession, head_size: int | None = None) -> None:
        """ValueError for a graph of another kind."""
        super().__init__(session, head_size)
        self._bound: WeakKeyDictionary[Slots, _Bound] = WeakKeyDictionary()
        """What points into the memory of slots, and ends with them."""

    @property
    def note(self) -> str:
        """That a model for GPUs has none."""
        return "on the CPU, where 16 bits take longer than 32" if self.dtype == np.float16 else ""

    def chunk(self, slots: Slots, there: int, left: int, *, alone: bool) -> int:
        """Fewer while others wait; as many as leave at least `least_read`, in the last block and for the next chunk, or
        none."""
        least, count = self.least_read, min(left, CHUNK_ALONE if alone else CHUNK)
        if 0 < left - count < least:
            count -= least - (left - count)
        return count - least if count > least and 0 < count % BLOCK < least else count

    def read(self, slots: Slots, slot: int, tokens: Sequence[int]) -> None:
        """In one run."""
        chunks = self._bound_of(slots).chunks
        if slot not in chunks:
            chunks[slot] = self._binding(slots, slot, 1)
        self._read(chunks[slot], tokens, len(slots.held[slot].tokens) + len(tokens))

    def step(self, slots: Slots, tokens: Sequence[int], least_rows: int | None = None) -> Values:
        """With idle rows where there are too few."""
        rows = max(len(tokens), self.least_rows if least_rows is None else least_rows)
        bound = self._bound_of(slots)
        if rows not in bound.steps:
            bound.steps[rows] = _Step(self._binding(slots, 0, rows), bound.logits[:rows], slots.length)
        step = bound.steps[rows]
        step.fill(tokens, [len(slots.held[row].tokens) + 1 for row in range(rows)])
        self._session.run_with_iobinding(step.binding)
        return bound.logits[: len(tokens), 0].astype(np.float32, copy=False)

    def reach(self, slots: Slots, tokens: int) -> None:
        """In the last slot, whose memory goes back."""
        last = slots.count - 1
        try:
            self._read(self._binding(slots, last, 1), [0], tokens)
        finally:
            slots.cache.forget(last)

    def rest(self, slots: Slots) -> None:
        """What ended texts left, and what the longest run took."""
        slots.forget_kept(0)
        self._session.shrink()

    def _read(self, binding: Any, tokens: Sequence[int], length: int) -> None:
        """The last tokens of a text of this length."""
        binding.bind_cpu_input(IDS, np.array([tokens], np.int64))
        binding.bind_cpu_input(MASK, np.ones((1, length), np.int64))
        binding.bind_output(LOGITS, "cpu")
        self._session.run_with_iobinding(binding)
        binding.bind_output(LOGITS, "cpu")  # lets go of what nobody reads: those of all tokens may be large

    def _cache(self, shape: CacheShape) -> Cache:
        return HostCache(shape)

    def _bound_of(self, slots: Slots) -> _Bound:
        bound = self._bound.get(slots)
        if bound is None:
            bound = self._bound[slots] = _Bound(np.empty((slots.count, 1, self.vocabulary), self.logits_dtype))
        return bound

    def _binding(self, slots: Slots, first: int, rows: int) -> Any:
        """Of the buffers of so many slots, made once: 120 of them take 0.3 to 1 ms, a tenth of a step."""
        binding = self._session.io_binding()
        self._bind_cache(binding, slots.cache, first, rows, ("cpu", 0))
        return binding


@dataclass(slots=True)
class _Bound:
    """What is bound for some slots: chunks by their slot, steps by how many rows they have."""

    logits: Array
    """[slots, 1, vocabulary], of all steps: of each number of rows they would be as much again."""
    chunks: dict[int, Any] = field(default_factory=dict)
    steps: dict[int, _Step] = field(default_factory=dict)


class _Step:
    """A step of so many rows, whose ids, mask and logits have their places: to bind them anew, and to copy the logits,
    took a thirtieth of a step. The mask has a few columns more than the longest text, so that it is bound seldom."""

    def __init__(self, binding: Any, logits: Array, length: int) -> None:
        rows = len(logits)
        self.binding = binding
        self._length = length
        self._ids = np.zeros((rows, 1), np.int64)
        self._mask = np.zeros((rows, 0), np.int64)
        binding.bind_output(LOGITS, *_place(logits))
        binding.bind_input(IDS, *_place(self._ids))

    def fill(self, tokens: Sequence[int], lengths: Sequence[int]) -> None:
        """The next tokens, 0 in idle rows, and how many all rows have then."""
        self._ids[: len(tokens), 0] = tokens
        self._ids[len(tokens) :] = 0
        columns = min(-(-max(lengths) // COLUMNS) * COLUMNS, self._length)
        if columns != self._mask.shape[1]:
            self._mask = np.zeros((len(self._ids), columns), np.int64)
            self.binding.bind_input(MASK, *_place(self._mask))
        self._mask[:] = np.arange(columns) < np.asarray(lengths)[:, None]


def _place(array: Array) -> tuple[Any, ...]:
    """As a binding takes it."""
    return "cpu", 0, array.dtype.type, array.shape, array.ctypes.data


def _dtype(info: Any, what: str) -> np.dtype[Any]:
    if info.type not in DTYPES:
        raise ValueError(f"{what} must be floats of 32 or 16 bits, and are {info.type}")
    return DTYPES[info.type]


def _fixed(size: object, what: str) -> int:
    if not isinstance(size, int):
        raise ValueError(f"{what} must be fixed in the graph")
    return size
