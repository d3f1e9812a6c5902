"""Intervals: from a probability of speech for each frame to stretches of speech, by hysteresis. Stage: task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ortmesh_speech.audio import Samples

Run: TypeAlias = tuple[int, int]
"""Frames from the first one on, to the second, which is no more part of it."""

EXIT_MARGIN = 0.15
"""So far must the probability fall below the threshold before speech ends: at the edge of it, it flickers."""
LOWEST_EXIT = 0.01
"""Silence never falls to 0 (.009 at most), so that with a lower exit a stretch would never end."""
PADDING_SECONDS = 0.03
"""Added at both ends: the frame in which a soft sound begins or fades is often below the threshold. Never more than
half of the pause, so that stretches stay apart."""
ROUNDING_SECONDS = 1e-9


@dataclass(frozen=True, slots=True)
class Rule:
    """What counts as a stretch of speech."""

    threshold: float = 0.5
    """The probability from which a frame is speech."""
    min_speech: float = 0.25
    """Seconds; a stretch that is shorter (before it is padded) is left out."""
    min_silence: float = 0.1
    """Seconds; a pause that is shorter does not end a stretch."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of speech, in seconds from the recording's start."""

    start: float
    end: float
    confidence: float
    """The mean probability of its frames, the bridged pauses among them."""


def intervals(probabilities: Samples, rule: Rule, frame_seconds: float, seconds: float) -> list[Interval]:
    """The stretches of a recording of `seconds`, whose frames have these probabilities, in the order of time."""
    speaking = hysteresis(probabilities, rule.threshold)
    stretches = [
        (first, last)
        for first, last in bridged(runs_of(speaking), rule.min_silence / frame_seconds)
        if (last - first) * frame_seconds >= rule.min_speech - ROUNDING_SECONDS
    ]
    times = _padded([(first * frame_seconds, min(last * frame_seconds, seconds)) for first, last in stretches], seconds)
    return [
        Interval(start, end, min(float(probabilities[first:last].mean()), 1.0))
        for (start, end), (first, last) in zip(times, stretches, strict=True)
    ]


def hysteresis(probabilities: Samples, threshold: float) -> npt.NDArray[np.bool_]:
    """Which frames are speech: from one that reaches the threshold to one that falls below the exit."""
    enters = probabilities >= threshold
    leaves = probabilities < max(threshold - EXIT_MARGIN, LOWEST_EXIT)
    decided = np.where(enters | leaves, np.arange(1, len(probabilities) + 1), 0)
    latest = np.maximum.accumulate(decided)  # the frame, counted from 1, that decided each one; 0: none did
    return np.concatenate([[False], enters])[latest]


def runs_of(mask: npt.NDArray[np.bool_]) -> list[Run]:
    """The runs of True."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def bridged(runs: Sequence[Run], min_pause: float) -> Iterator[Run]:
    """The runs, those joined between which there is a pause of fewer frames than `min_pause`."""
    if not runs:
        return
    first, last = runs[0]
    for begin, end in runs[1:]:
        if begin - last >= min_pause - ROUNDING_SECONDS:
            yield first, last
            first = begin
        last = end
    yield first, last


def _padded(times: Sequence[tuple[float, float]], seconds: float) -> list[tuple[float, float]]:
    """The stretches, longer on both sides, as far as the recording and the pauses allow."""
    starts = [start for start, _ in times]
    ends = [end for _, end in times]
    before = [starts[0], *((start - end) / 2 for start, end in zip(starts[1:], ends, strict=False))] if times else []
    after = [*before[1:], seconds - ends[-1]] if times else []
    return [
        (start - min(PADDING_SECONDS, room_before), end + min(PADDING_SECONDS, room_after))
        for start, end, room_before, room_after in zip(starts, ends, before, after, strict=True)
    ]
