"""What a few tokens tell of a graph before it serves: whether its texts depend on each other. Stage: executor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ortmesh.serving.executor.engine.graph import CausalGraph
from ortmesh.serving.executor.engine.slots import LEAST_ROWS, Slots

LENGTH = 8
"""Tokens of the prompts that are tried."""
DEPENDENT = "texts depended on the rest of the batch, or on how a prompt was cut"


@dataclass(frozen=True, slots=True)
class Found:
    """How a graph must be run."""

    least_rows: int
    """So many rows a run of one token must have: fewer would give other numbers."""
    independent: bool
    """False when texts differ by who is beside them, or by how their prompts were cut."""


def probe(graph: CausalGraph, slots: Slots) -> Found:
    """Computes them in slots that hold nothing. What fails here would fail for every text."""
    run = graph.run
    prompts = np.arange(3 * LENGTH, dtype=np.int64).reshape(3, LENGTH) % graph.vocabulary
    for row, prompt in enumerate(prompts[: slots.count]):
        run(slots, row, prompt[None], [LENGTH])
    following = np.arange(3, dtype=np.int64)[:, None] % graph.vocabulary
    alone = run(slots, 0, following[:1], [LENGTH + 1])[0]
    beside = [run(slots, 0, following[:rows], [LENGTH + 1] * rows)[0] for rows in range(2, min(slots.count, 3) + 1)]
    run(slots, 1, prompts[2:], [LENGTH])  # the second row's neighbour is another now
    other = run(slots, 0, following[[0, 2]], [LENGTH + 1] * 2)[0]
    whole = run(slots, 0, prompts[:1], [LENGTH])[0]
    run(slots, 0, prompts[:1, : LENGTH // 2], [LENGTH // 2])
    parts = run(slots, 0, prompts[:1, LENGTH // 2 :], [LENGTH])[0]
    equal = [np.array_equal(beside[0], each) for each in (*beside[1:], other)] + [np.array_equal(whole, parts)]
    return Found(1 if np.array_equal(alone, beside[0]) else LEAST_ROWS, all(equal))
