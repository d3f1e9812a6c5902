"""Reach: how long a text may become before the graph can't compute its next token. Stage: executor.

Its positions are looked up in tables of a fixed length (cosines and sines of rotary embeddings), which are no part of
what a session tells of a graph, and may themselves be computed: so it is tried.
"""

from __future__ import annotations

from ortmesh.serving.executor.engine.graph import CausalGraph
from ortmesh.serving.executor.engine.slots import Slots
from ortmesh.serving.executor.failures import lacks_memory, readable


class OutOfReach(ValueError):
    """A text may become longer, by the card, than the graph can compute."""


def must_reach(graph: CausalGraph, slots: Slots) -> None:
    """Computes the last token that a text may have. OutOfReach, with the longest context that there can be, where only
    earlier ones can be computed; the graph's own error where none can, or where there was no memory for it."""
    try:
        graph.reach(slots, slots.length)
    except Exception as error:
        if lacks_memory(error) or not (most := _most(graph, slots)):
            raise
        raise OutOfReach(
            f"runtime.engine.context: {slots.length} tokens: expected at most {most}, which is how long the graph can "
            f"have a text ({readable(error)})"
        ) from error


def _most(graph: CausalGraph, slots: Slots) -> int:
    """The most tokens that can be computed, when those of the longest text can't; 0 where none can."""
    most, more = 0, slots.length
    while more - most > 1:
        middle = (most + more) // 2
        if _reaches(graph, slots, middle):
            most = middle
        else:
            more = middle
    return most


def _reaches(graph: CausalGraph, slots: Slots, tokens: int) -> bool:
    try:
        graph.reach(slots, tokens)
    except Exception:  # as that of the longest, which is told
        return False
    return True
