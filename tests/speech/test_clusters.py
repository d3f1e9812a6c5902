"""Average linkage: against the plain way to do it, and at its bounds."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from ortmesh.serving.types import Array
from ortmesh_speech.clusters import clusters, merges


def around(*centres: int, each: int = 10, spread: float = 0.05, seed: int = 0) -> Array:
    """Vectors of length 1 near axes."""
    random = np.random.default_rng(seed)
    made = np.repeat(np.eye(16, dtype=np.float32)[list(centres)], each, axis=0)
    made += spread * random.standard_normal(made.shape).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def plainly(vectors: Array) -> list[float]:
    """The likenesses at which the two most alike clusters are put together, again and again."""
    groups = [[place] for place in range(len(vectors))]
    cosines, found = vectors @ vectors.T, []
    while len(groups) > 1:
        best, left, right = max(
            (float(cosines[np.ix_(groups[one], groups[other])].mean()), one, other)
            for one, other in combinations(range(len(groups)), 2)
        )
        groups[left] += groups.pop(right)
        found.append(best)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_merges_are_those_of_average_linkage(seed: int) -> None:
    vectors = around(0, 1, 2, each=8, spread=0.3, seed=seed)
    found = sorted((merge.likeness for merge in merges(vectors)), reverse=True)
    assert found == pytest.approx(sorted(plainly(vectors), reverse=True), abs=1e-4)


def test_what_is_alike_is_together() -> None:
    found = clusters(around(3, 5, 3, 9), alike=0.7, least=1, most=8)
    groups = found.reshape(4, 10)
    assert all(len(set(group)) == 1 for group in groups.tolist())
    assert groups[0, 0] == groups[2, 0]
    assert len(set(found.tolist())) == 3


@pytest.mark.parametrize(("least", "most", "expected"), [(1, 8, 3), (1, 2, 2), (1, 1, 1), (5, 8, 5), (40, 40, 30)])
def test_there_are_as_many_as_were_asked_for(least: int, most: int, expected: int) -> None:
    found = clusters(around(0, 1, 2), alike=0.7, least=least, most=most)
    assert sorted(set(found.tolist())) == list(range(expected))


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_equal_vectors_are_one(count: int) -> None:
    same = np.tile(around(4, each=1), (count, 1))
    assert len(merges(same)) == max(count - 1, 0)
    assert set(clusters(same, alike=0.7, least=1, most=8).tolist()) <= {0}
