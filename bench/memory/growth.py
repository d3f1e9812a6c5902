"""Whether a process holds more and more: at rest, where it is exact, and under load, where it rises and falls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from statistics import fmean, median, stdev

from bench.memory.processes import Held

ALLOWED = 0.02
"""How much more a process may hold at the end than when it was warm."""
CERTAIN = 2.0
"""Standard errors: what is less may be chance."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What all processes held at one time."""

    minute: float
    held: Mapping[str, Held]


@dataclass(frozen=True, slots=True)
class Watched:
    """A whole run."""

    samples: Sequence[Sample]
    """Under load."""
    rests: Sequence[Sample]
    """When nobody had asked anything for some seconds: at the warm minute, at some later ones and at the end."""
    warm: float
    """The minute from which on nothing may grow."""
    window: float
    """Minutes that are averaged: as long as some rounds of requests."""


@dataclass(frozen=True, slots=True)
class Growth:
    """One process over the run, in bytes of resident memory."""

    name: str
    rest: float
    """At rest, at the warm minute."""
    last_rest: float
    """At rest, at the end."""
    rest_trend: float
    """What the trend of all rests makes of the time from warm to the end."""
    average: float
    """Under load, from warm on, the first half."""
    last_average: float
    """The second half."""
    error: float
    """The standard error of the difference of the two."""
    most: float

    @property
    def rest_grown(self) -> float:
        """The last rest over the first, less 1."""
        return self.last_rest / self.rest - 1

    @property
    def rest_trended(self) -> float:
        """The trend in relation to the first rest."""
        return self.rest_trend / self.rest

    @property
    def grown(self) -> float:
        """The second half under load over the first, less 1."""
        return self.last_average / self.average - 1

    @property
    def uncertainty(self) -> float:
        """Of `grown`, one standard error."""
        return self.error / self.average

    @property
    def flat(self) -> bool:
        """At rest nothing is beyond what is allowed, and under load nothing that could not be chance."""
        rested = max(self.rest_grown, self.rest_trended) < ALLOWED
        return rested and self.grown < ALLOWED + CERTAIN * self.uncertainty


def growth(name: str, run: Watched) -> Growth:
    """Of one process."""
    rests = [(sample.minute, float(sample.held[name].resident)) for sample in run.rests]
    series = [(sample.minute, float(sample.held[name].resident)) for sample in run.samples]
    averages = _averages([point for point in series if point[0] >= run.warm], run.window)
    first, second = averages[: len(averages) // 2], averages[len(averages) // 2 :]
    return Growth(
        name,
        rest=rests[0][1],
        last_rest=rests[-1][1],
        rest_trend=_slope(rests) * (rests[-1][0] - rests[0][0]),
        average=fmean(first),
        last_average=fmean(second),
        error=sqrt(stdev(first) ** 2 / len(first) + stdev(second) ** 2 / len(second)),
        most=max(size for _, size in series),
    )


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes between any two points (Theil, Sen)."""
    return median((b - a) / (after - before) for (before, a), (after, b) in combinations(points, 2))


def _averages(series: Sequence[tuple[float, float]], window: float) -> list[float]:
    """Of each window after the other."""
    windows: dict[int, list[float]] = {}
    for minute, size in series:
        windows.setdefault(int(minute / window), []).append(size)
    return [fmean(each) for each in windows.values()]
