"""CausalGraph: one run of a language model's graph over some slots. Stage: executor.

The graph is one as onnxruntime-genai's builder makes it: `input_ids` and `attention_mask` int64 [rows, tokens],
`past_key_values.N.key` and `.value` float32 [rows, heads, length, head size], and `present.N.key` and `.value` that may
be the same buffers (com.microsoft.GroupQueryAttention), `logits` float32 [rows, tokens or 1, vocabulary].
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ortmesh.serving.executor.engine.slots import Ids, Slots, Values
from ortmesh.serving.executor.interruptible import InterruptibleSession

PAST, PRESENT = "past_key_values.{}.{}", "present.{}.{}"
KEY = re.compile(r"past_key_values\.(\d+)\.key")
SIDES = ("key", "value")
NEEDED = ("input_ids", "attention_mask")


class CausalGraph:
    """Belongs to the engine's thread."""

    def __init__(self, session: InterruptibleSession, head_size: int | None = None) -> None:
        """`head_size` is needed where the graph leaves it open. ValueError for a graph of another kind, with what it
        lacks."""
        self._session = session
        self._bindings: WeakKeyDictionary[Slots, dict[tuple[int, int], Any]] = WeakKeyDictionary()
        """They point into the buffers of slots, and end with them."""
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
        _, heads, _, size = inputs[self._names[0][0]].shape
        self.heads = _fixed(heads, "the number of heads")
        self.head_size = head_size or _fixed(size, "the size of heads (or runtime.engine.head_size in the card)")
        self.vocabulary = _fixed(outputs["logits"].shape[-1], "the size of the vocabulary")

    def slots(self, *, slots: int, length: int) -> Slots:
        """Buffers for so many texts of so many tokens."""
        return Slots(self.layers, self.heads, self.head_size, slots=slots, length=length)

    def run(self, slots: Slots, first: int, ids: Ids, lengths: Sequence[int]) -> Values:
        """Computes the next tokens `ids` [rows, tokens] of the slots from `first` on; `lengths` are their tokens
        afterwards. The logits of each row's last token: [rows, vocabulary]."""
        rows = len(ids)
        mask = (np.arange(max(lengths)) < np.asarray(lengths)[:, None]).astype(np.int64)
        binding = self._bound(slots, first, rows)
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
            for (past, present), buffer in zip(self._names, slots.rows(first, first + rows), strict=True):
                place = ("cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)
                binding.bind_input(past, *place)
                binding.bind_output(present, *place)
        return binding


def _fixed(size: object, what: str) -> int:
    if not isinstance(size, int):
        raise ValueError(f"{what} must be fixed in the graph")
    return size
