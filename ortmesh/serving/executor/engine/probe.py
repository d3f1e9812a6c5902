"""Found: what a few tokens tell of a graph before it serves, whether texts depend on each other. Stage: executor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ortmesh.serving.executor.engine.graph import CausalGraph
from ortmesh.serving.executor.engine.slots import LEAST_ROWS, Held, Slots, Values

DEPENDENT = "texts depended on the rest of the batch, or on how a prompt was cut"


@dataclass(frozen=True, slots=True)
class Found:
    """What was found out."""

    least_rows: int
    """That a step must have."""
    dependent: str = ""
    """Why texts depend on each other: they differ by who is beside them, or by how their prompts were cut. Empty when
    they do not."""


def probe(graph: CausalGraph, slots: Slots) -> Found:
    """Computes them in slots that hold nothing. What fails here would fail for every text."""
    try:
        return _found(graph, slots)
    finally:
        slots.held[:] = [Held() for _ in slots.held]


def _found(graph: CausalGraph, slots: Slots) -> Found:
    length = min(graph.sample_tokens, slots.length - 1)
    prompts = np.arange(3 * length).reshape(3, length) % graph.vocabulary
    one, two, three = prompts.tolist()
    following = (np.arange(3) % graph.vocabulary).tolist()

    def read(slot: int, *parts: Sequence[int]) -> None:
        slots.held[slot] = Held()
        for part in parts:
            graph.read_on(slots, slot, part)

    def stepped(*tokens: int, least_rows: int) -> Values:
        """The first text's logits."""
        first: Values = graph.step(slots, tokens, least_rows)[0]
        return first.copy()

    for slot, prompt in enumerate((one, two, three)[: slots.count]):
        read(slot, prompt)
    wanted = stepped(*following[:2], least_rows=LEAST_ROWS)
    least = 1 if np.array_equal(stepped(following[0], least_rows=1), wanted) else LEAST_ROWS
    found = [stepped(*following[:rows], least_rows=least) for rows in (1, *range(3, min(slots.count, 3) + 1))]
    read(1, three)  # the first one's neighbour is another now
    found.append(stepped(following[0], following[2], least_rows=least))
    read(0, one[: length // 2], one[length // 2 :])
    found.append(stepped(following[0], least_rows=least))
    return Found(least, "" if all(np.array_equal(wanted, each) for each in found) else DEPENDENT)
