"""Grouping: the batches in which a list of items costs least, by dynamic programming."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Seconds = Callable[[int, int], float]
"""Of one run, by its rows and the longest of them; a longer one never costs less."""


def best_groups(sizes: Sequence[int], seconds: Seconds, most: int) -> list[list[int]]:
    """Indices of the items of each batch, of at most `most` rows.

    Only neighbours in size need to share a batch: exchanging items between two batches, so that one has all the
    longer ones, leaves both counts and the greater length as they are, and the other length no greater.
    """
    order = sorted(range(len(sizes)), key=lambda index: sizes[index])
    best, rows = [0.0], [0]
    for end in range(1, len(order) + 1):
        longest = sizes[order[end - 1]]
        costs = [best[end - count] + seconds(count, longest) for count in range(1, min(end, most) + 1)]
        best.append(min(costs))
        rows.append(costs.index(best[-1]) + 1)
    groups, end = [], len(order)
    while end:
        groups.append(order[end - rows[end] : end])
        end -= rows[end]
    return groups[::-1]


def total(groups: Sequence[Sequence[int]], sizes: Sequence[int], seconds: Seconds) -> float:
    """What the batches cost together."""
    return sum(seconds(len(group), max(sizes[index] for index in group)) for group in groups)


def padded_share(groups: Sequence[Sequence[int]], sizes: Sequence[int]) -> float:
    """The share of the computed cells that is padding."""
    cells = sum(len(group) * max(sizes[index] for index in group) for group in groups)
    return 1 - sum(sizes[index] for group in groups for index in group) / cells
