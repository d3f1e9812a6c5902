"""Clusters: vectors that are alike put together, by average linkage. Pure. Stage: task."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ortmesh.serving.types import Array

ROUNDING = 1e-5
"""Cosines that differ by less are equal: else chains of equal vectors would run in a circle."""


class Merge(NamedTuple):
    """Two clusters that become one."""

    left: int
    """A vector of one cluster."""
    right: int
    """A vector of the other."""
    likeness: float
    """The mean cosine between their vectors."""


def clusters(vectors: Array, *, alike: float, least: int, most: int) -> npt.NDArray[np.int64]:
    """The cluster of each vector, [n] of 0, 1, 2 …, of vectors [n, dimension] of length 1.

    Clusters are put together while the mean cosine between them is `alike` or more; whatever that gives, there are
    `least` to `most` of them (never more than vectors).
    """
    roots = list(range(len(vectors)))

    def root(place: int) -> int:
        while roots[place] != place:
            roots[place] = roots[roots[place]]
            place = roots[place]
        return place

    remaining = len(vectors)
    for merge in sorted(merges(vectors), key=lambda merge: -merge.likeness):
        if remaining <= least or (remaining <= most and merge.likeness < alike):
            break
        roots[root(merge.left)] = root(merge.right)
        remaining -= 1
    return np.unique([root(place) for place in range(len(vectors))], return_inverse=True)[1].astype(np.int64)


def merges(vectors: Array) -> list[Merge]:
    """All n - 1 merges of average linkage over vectors of length 1, by chains of nearest neighbours (Murtagh 1983).

    The mean cosine of two clusters is the product of their sums over their sizes, so that no matrix of all pairs is
    needed: n^2 x dimension steps, 0.6 s for 2,000 vectors of 256.
    """
    sums = np.array(vectors, np.float32)
    sizes = np.ones(len(sums), np.float32)
    found: list[Merge] = []
    chain: list[int] = []
    while len(found) < len(sums) - 1:
        if not chain:
            chain.append(int(np.flatnonzero(sizes)[0]))
        tip = chain[-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            likeness = np.where(sizes > 0, sums @ sums[tip] / (sizes * sizes[tip]), -np.inf)
        likeness[tip] = -np.inf
        nearest = int(likeness.argmax())
        if len(chain) > 1 and likeness[chain[-2]] >= likeness[nearest] - ROUNDING:
            nearest = chain[-2]
            found.append(Merge(tip, nearest, float(likeness[nearest])))
            sums[nearest] += sums[tip]
            sizes[nearest] += sizes[tip]
            sizes[tip] = 0
            del chain[-2:]
        else:
            chain.append(nearest)
    return found
