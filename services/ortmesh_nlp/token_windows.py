"""Windows: a long text's tokens in parts that overlap, and the parts' results as one. Stage: task."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ortmesh.serving.types import Array

Window = tuple[int, int]
"""From a token to a token, exclusive."""


def plan(count: int, size: int, overlap: int) -> list[Window]:
    """Windows of at most `size` over `count` tokens, each sharing `overlap` tokens with the one before."""
    starts = range(0, max(count - overlap, 1), size - overlap)
    return [(start, min(start + size, count)) for start in starts]


def joined(parts: Sequence[Array], windows: Sequence[Window], outside: int) -> Array:
    """The windows' probabilities f32 [tokens, labels] as those of the whole text.

    Each token is judged once, by the window in which it stands farther from an edge, so nothing is found twice; where
    one window ends and the next takes over is moved off what either takes for an entity, so nothing is cut.
    """
    bounds = [0]
    for (left, right), (one, other) in zip(pairwise(parts), pairwise(windows), strict=True):
        shared = one[1] - other[0]
        bounds.append(other[0] + seam(left[len(left) - shared :], right[:shared], outside))
    bounds.append(windows[-1][1])
    kept = zip(parts, windows, pairwise(bounds), strict=True)
    return np.concatenate([part[low - start : high - start] for part, (start, _), (low, high) in kept])


def seam(left: Array, right: Array, outside: int) -> int:
    """Where to go from one window to the next, in the tokens that both judged [tokens, labels].

    As near to the middle as both find nothing on either side; the middle when there is no such place.
    """
    free = (left.argmax(axis=1) == outside) & (right.argmax(axis=1) == outside)
    middle = len(left) // 2
    places = np.flatnonzero(free)
    return int(places[np.abs(places - middle).argmin()]) if len(places) else middle
