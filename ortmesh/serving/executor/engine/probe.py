"""What a few tokens tell of a graph before it serves: whether its texts depend on each other. Stage: executor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ortmesh.serving.executor.engine.graph import CausalGraph
from ortmesh.serving.executor.engine.slots import LEAST_ROWS, Held, Slots, Values

DEPENDENT = "texts depended on the rest of the batch, or on how a prompt was cut"


def probe(graph: CausalGraph, slots: Slots) -> str:
    """Computes them in slots that hold nothing, and tells the graph how many rows a step must have. What fails here
    would fail for every text.

    Why texts depend on each other: they differ by who is beside them, or by how their prompts were cut. Empty when
    they do not.
    """
    try:
        return "" if _independent(graph, slots) else DEPENDENT
    finally:
        slots.held[:] = [Held() for _ in slots.held]


def _independent(graph: CausalGraph, slots: Slots) -> bool:
    length = min(graph.sample_tokens, slots.length - 1)
    prompts = np.arange(3 * length).reshape(3, length) % graph.vocabulary
    one, two, three = prompts.tolist()
    following = (np.arange(3) % graph.vocabulary).tolist()

    def read(slot: int, *parts: Sequence[int]) -> None:
        slots.held[slot] = Held()
        for part in parts:
            graph.read_on(slots, slot, part)

    def stepped(*tokens: int) -> Values:
        """The first text's logits."""
        first: Values = graph.step(slots, tokens)[0]
        return first.copy()

    for slot, prompt in enumerate((one, two, three)[: slots.count]):
        read(slot, prompt)
    graph.least_rows = 1
    alone = stepped(following[0])
    wanted = stepped(*following[:2])
    if not np.array_equal(alone, wanted):
        graph.least_rows = LEAST_ROWS
    found = [stepped(following[0]), *(stepped(*following[:rows]) for rows in range(3, min(slots.count, 3) + 1))]
    read(1, three)  # the first one's neighbour is another now
    found.append(stepped(following[0], following[2]))
    read(0, one[: length // 2], one[length // 2 :])
    found.append(stepped(following[0]))
    return all(np.array_equal(wanted, each) for each in found)
