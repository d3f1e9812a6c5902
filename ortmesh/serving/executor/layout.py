"""Layout: how a service's threads are spread over a model's executors, and which one is chosen. Stage: executor.

On a CPU the executors of a model share one session, so that its weights are there once. Its operators are computed by
the executor that calls and by the session's own threads, which help whoever has work. So there are three kinds:
one executor and all threads; several executors and all threads, where one item alone is as quick and several share
what threads leave idle between operators; several executors that compute each for itself, where no operator waits for
the slowest of its parts, and one item alone takes longer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MARGIN = 0.10
"""So much more must be computed under load to be worth another layout. Less is within what two sessions of the
very same kind differ by (0 to 18 %, bench/results/layout.md), and nobody would notice it."""
A_DOUBLING = 0.20
"""So much more for each time that one item alone takes twice as long: somebody waits for it."""
MOST_EXECUTORS = 16
"""As many as a card may ask for."""
HELPED = (2, 4)
"""Executors that share all threads: more than a few only take memory for runs that wait for each other."""


@dataclass(frozen=True, slots=True)
class Layout:
    """So many executors on one session, of which one call computes with so many threads, the caller's included."""

    executors: int
    threads: int

    def to_json(self) -> list[int]:
        """As it is kept on disk."""
        return [self.executors, self.threads]

    @classmethod
    def from_json(cls, written: Any, threads: int) -> Layout | None:
        """Reads what `to_json` wrote for a service of so many threads; None for anything else."""
        return next((layout for layout in candidates(threads) if layout.to_json() == written), None)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one layout can do, measured beside the others."""

    layout: Layout
    alone: float
    """Seconds of one item while nothing else runs."""
    by_rows: Mapping[int, float]
    """Items a second while all executors compute batches of so many rows. 1 is among them."""

    @property
    def under_load(self) -> float:
        """Items a second: the mean, as a factor, of batches of one and of the best batch.

        Items of one size make the best batch; of mixed sizes most batches are of one to three, because padding costs
        more than a batch saves on a CPU.
        """
        return math.sqrt(self.by_rows[1] * max(self.by_rows.values()))


def one_executor(threads: int) -> Layout:
    """What a model gets where nothing was measured: one executor on all threads."""
    return Layout(1, threads)


def beside(executors: int, threads: int) -> Layout:
    """So many executors, at most as many as threads, with exactly so many threads in all.

    Those that are not the executors' own are the session's and help all of them: with `threads / executors` a call
    the half of sixteen threads would not exist.
    """
    executors = min(executors, threads)
    return Layout(executors, threads - executors + 1)


def candidates(threads: int) -> tuple[Layout, ...]:
    """Layouts worth measuring, at most four; first one executor, then those that let one item alone keep its time,
    last one that does not."""
    helped = [Layout(executors, threads) for executors in HELPED if executors <= threads]
    layouts = [one_executor(threads), *helped, beside(MOST_EXECUTORS, threads)]
    return tuple(dict.fromkeys(layouts))


def choose(measurements: Sequence[Measurement]) -> Layout:
    """The layout to serve with, of measurements in the order of `candidates`.

    One executor on all threads stays unless another computes clearly more under load: 10 % more than what was chosen
    so far, and 20 % more than each before it for each doubling of the time that one item alone takes. Ties and noise
    change nothing.
    """
    chosen = measurements[0]
    for place, other in enumerate(measurements):
        paid = all(
            other.under_load >= before.under_load * (1 + price(other.alone / before.alone))
            for before in measurements[:place]
        )
        if paid and other.under_load >= chosen.under_load * (1 + MARGIN):
            chosen = other
    return chosen.layout


def price(slower: float) -> float:
    """The share by which more must be computed under load when one item alone takes `slower` times as long."""
    return A_DOUBLING * math.log2(max(slower, 1.0))
