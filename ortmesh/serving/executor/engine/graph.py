"""CausalGraph: runs of a language model's graph over some slots, on a host or on a device. Stage: executor.

The graph is one as onnxruntime-genai's builder makes it: `input_ids` and `attention_mask` int64 [rows, tokens],
`past_key_values.N.key` and `.value` of floats of 32 or 16 bits [rows, heads, length, head size], and `present.N.key`
and `.value` that may be the same buffers (com.microsoft.GroupQueryAttention), `logits` float32 [rows, tokens or 1,
vocabulary].
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ortmesh.serving.executor.engine.cache import Cache, HostCache, Shape
from ortmesh.serving.executor.engine.slots import LEAST_ROWS, Ids, Slots, Values
from ortmesh.serving.executor.interruptible import InterruptibleSession

PAST, PRESENT = "past_key_values.{}.{}", "present.{}.{}"
KEY = re.compile(r"past_key_values\.(\d+)\.key")
SIDES = ("key", "value")
NEEDED = ("input_ids", "attention_mask")
DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}
"""Of keys and values."""
CHUNK, CHUNK_ALONE = 64, 256
"""Tokens of a prompt that a CPU reads at once: 64 of SmolLM2's take 0.1 s on two cores, and 1,000 in such chunks a
tenth longer than in one piece."""


class CausalGraph(ABC):
    """Belongs to the engine's thread."""

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
        wanted = {*NEEDED, *(past for past, _ in self._names)}
        missing = [*sorted(wanted - set(inputs)), *sorted({"logits", *(now for _, now in self._names)} - set(outputs))]
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
        self.vocabulary = _fixed(outputs["logits"].shape[-1], "the size of the vocabulary")
        if key.type not in DTYPES:
            raise ValueError(f"keys and values must be floats of 32 or 16 bits, and are {key.type}")
        self.dtype = DTYPES[key.type]

    def slots(self, *, slots: int, length: int) -> Slots:
        """Memory for so many texts of so many tokens."""
        slots = max(slots, LEAST_ROWS)
        return Slots(self._cache(Shape(self.layers, self.heads, self.head_size, self.dtype, slots, length)))

    @abstractmethod
    def chunk(self, slots: Slots, there: int, *, alone: bool) -> int:
        """How many tokens of a prompt of which so many are there are to be read at once, while others' texts grow or
        while none does."""

    @abstractmethod
    def read(self, slots: Slots, slot: int, tokens: Sequence[int]) -> None:
        """Computes the keys and values of several tokens of a slot, behind those that it holds."""

    @abstractmethod
    def step(self, slots: Slots, tokens: Sequence[int]) -> Values:
        """Computes one token more of each of the first slots. What may come next: logits [rows, vocabulary], which the
        next step may overwrite.

        A step may have idle rows, which write behind what their slots hold: that may be a prompt that is being read.
        """

    @property
    def note(self) -> str:
        """What an operator should know."""
        return ""

    @abstractmethod
    def rest(self) -> None:
        """Gives back the memory that it keeps while nothing runs."""

    @abstractmethod
    def _cache(self, shape: Shape) -> Cache:
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
        self._bindings: WeakKeyDictionary[Slots, dict[tuple[int, int], Any]] = WeakKeyDictionary()
        """They point into the buffers of slots, and end with them."""

    def chunk(self, slots: Slots, there: int, *, alone: bool) -> int:
        """Fewer while others wait."""
        return CHUNK_ALONE if alone else CHUNK

    def read(self, slots: Slots, slot: int, tokens: Sequence[int]) -> None:
        """In one run."""
        self._run(slots, slot, np.array([tokens], np.int64), [len(slots.held[slot].tokens) + len(tokens)])

    def step(self, slots: Slots, tokens: Sequence[int]) -> Values:
        """With idle rows where there are too few."""
        rows = max(len(tokens), self.least_rows)
        ids = np.zeros((rows, 1), np.int64)
        ids[: len(tokens), 0] = tokens
        return self._run(slots, 0, ids, [len(slots.held[row].tokens) + 1 for row in range(rows)])

    def rest(self) -> None:
        """What the longest run took."""
        self._session.shrink()

    def _cache(self, shape: Shape) -> Cache:
        return HostCache(shape)

    def _run(self, slots: Slots, first: int, ids: Ids, lengths: Sequence[int]) -> Values:
        """Computes the next tokens `ids` [rows, tokens] of the slots from `first` on; `lengths` are their tokens
        afterwards. The logits of each row's last token: [rows, vocabulary]."""
        mask = (np.arange(max(lengths)) < np.asarray(lengths)[:, None]).astype(np.int64)
        binding = self._bound(slots, first, len(ids))
        binding.bind_cpu_input("input_ids", np.ascontiguousarray(ids))
        binding.bind_cpu_input("attention_mask", mask)
        binding.bind_output("logits", "cpu")
        self._session.run_with_iobinding(binding)
        logits: Values = binding.get_outputs()[0].numpy()  # outputs come in the order in which they were bound
        return logits[:, -1]

    def _bound(self, slots: Slots, first: int, rows: int) -> Any:
        """A binding of the buffers of so many slots, made once: 120 of them take 0.3 to 1 ms, a tenth of a step."""
        bindings = self._bindings.setdefault(slots, {})
        binding = bindings.get((first, rows))
        if binding is None:
            binding = bindings[first, rows] = self._session.io_binding()
            binding.bind_output("logits", "cpu")  # the first, since outputs come in the order of binding
            self._bind_cache(binding, slots.cache, first, rows, ("cpu", 0))
        return binding


def _fixed(size: object, what: str) -> int:
    if not isinstance(size, int):
        raise ValueError(f"{what} must be fixed in the graph")
    return size
