"""Sizes that fill a range evenly and never repeat.

A round has one size of each eighth of the range, in a fixed order, so that every round asks for as much as any other;
where in its eighth a size lies changes from round to round.
"""

from __future__ import annotations

GOLDEN = 0.618033988749895
"""Its multiples, modulo 1, lie further apart than those of any other number."""
ORDER = (7, 3, 5, 1, 6, 2, 4, 0)
"""Of the eighths in a round: the largest first."""
OTHER = (5, 7, 2, 4, 1, 6, 0, 3)
"""For the second of two sizes: pictures that are wide, high, large and small."""


def share(turn: int, order: tuple[int, ...] = ORDER) -> float:
    """Between 0 and 1, never the same twice."""
    number, place = divmod(turn, len(order))
    return (order[place] + number * GOLDEN % 1) / len(order)


def size(turn: int, least: float, most: float, order: tuple[int, ...] = ORDER) -> float:
    """As many sizes between 1 and 2 as between 10 and 20."""
    return float(least * (most / least) ** share(turn, order))
