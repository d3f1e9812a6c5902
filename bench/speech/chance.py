"""Chance: how far a difference between two contestants could be the recordings' that happened to be chosen."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from bench.speech.words import Errors

RESAMPLES = 10_000
SHARE = 0.95


class Difference(NamedTuple):
    """Of two rates of word errors, the second less the first."""

    rate: float
    least: float
    most: float
    """Between these lie 95 of 100 resamples (Bisani and Ney 2004: bootstrap over recordings, both on the same)."""


def difference(first: Sequence[Errors], second: Sequence[Errors], seed: int = 0) -> Difference:
    """Of the same recordings, in the same order; at least one has words."""
    drawn = random.Random(seed)
    pairs = [(other.wrong - one.wrong, one.words) for one, other in zip(first, second, strict=True)]

    def rate(chosen: Sequence[tuple[int, int]]) -> float:
        return sum(wrong for wrong, _ in chosen) / max(sum(words for _, words in chosen), 1)

    rates = sorted(rate(drawn.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    tail = round((1 - SHARE) / 2 * RESAMPLES)
    return Difference(rate(pairs), rates[tail], rates[-tail - 1])
