"""Windows: a recording of any length cut at pauses into what a recognizer hears at once. Stage: task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ortmesh_speech.audio import SAMPLE_RATE, Samples

MAX_SECONDS = 28
"""The longest window: Whisper hears 30 s and needs some silence behind the last word."""
SEARCH_SECONDS = 12
"""A window ends at the quietest place of its last seconds: long enough to hold a pause between sentences."""
TAIL_SECONDS = 3
"""The last window is no shorter when it can be helped: a single word is heard worse than a sentence."""
SILENCE_SECONDS = 2
"""Silence behind the speech: with only one, noisy recordings end in endless repeats (word errors .30 → .79)."""
BUCKETS_SECONDS = (10, 12, 14, 16, 20, 24, 30)
"""Lengths that windows are padded to: the encoder's time grows with them, and only equal ones search side by side."""

FRAME = SAMPLE_RATE // 50
PAUSE_FRAMES = 15
"""Quiet is what stays quiet for 300 ms: gaps within words (stops) are shorter."""
SILENT_DECIBELS = -70.0
"""Below full scale: no recording of speech is that quiet, and the noise of 16-bit samples is near -98."""
AUDIBLE_DECIBELS = 60.0
"""What is so much quieter than the window's loudest is not worth the encoder's time at the window's edges."""
SPEECH_SHARE = 0.35
"""Of the way from a window's background to its loud parts: where a segment begins and ends."""
MARGIN_FRAMES = 15
"""Kept around what was found, so that soft beginnings and ends of words stay."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of the recording, without the silence at its edges."""

    samples: Samples
    """What is to be recognized; empty when the stretch is silent."""
    start: float
    """Seconds from the recording's start to the first loud part of it."""
    end: float
    """Seconds from the recording's start to the end of its last loud part."""

    @property
    def silent(self) -> bool:
        """True when there is nothing to hear."""
        return len(self.samples) == 0

    @property
    def padded_seconds(self) -> int:
        """How long it is with the silence that a recognizer needs behind it."""
        needed = len(self.samples) / SAMPLE_RATE + SILENCE_SECONDS
        return next(seconds for seconds in BUCKETS_SECONDS if seconds >= needed)


def windows(blocks: Iterable[Samples]) -> Iterator[Window]:
    """Cuts blocks of samples at 16 kHz into windows that follow each other without gap or overlap."""
    start = 0
    for stretch in _stretches(blocks):
        yield _window(stretch, start)
        start += len(stretch)


def _stretches(blocks: Iterable[Samples]) -> Iterator[Samples]:
    """Stretches of at most 28 s. One is cut off only when 3 s more than that are known to follow, or the end is."""
    held = np.empty(0, np.float32)
    for block in _at_least((MAX_SECONDS + TAIL_SECONDS) * SAMPLE_RATE, blocks):
        held = np.concatenate([held, block])
        while len(held) >= (MAX_SECONDS + TAIL_SECONDS) * SAMPLE_RATE:
            at = _pause(held, MAX_SECONDS * SAMPLE_RATE)
            yield held[:at]
            held = held[at:]
    if len(held) > MAX_SECONDS * SAMPLE_RATE:
        at = _pause(held, len(held) - TAIL_SECONDS * SAMPLE_RATE)
        yield held[:at]
        held = held[at:]
    if len(held):
        yield held


def _at_least(length: int, blocks: Iterable[Samples]) -> Iterator[Samples]:
    """The same samples in blocks of at least `length`, but for the last: short ones would be copied many times."""
    parts: list[Samples] = []
    for block in blocks:
        parts.append(block)
        if sum(map(len, parts)) >= length:
            yield np.concatenate(parts)
            parts.clear()
    if parts:
        yield np.concatenate(parts)


def _pause(samples: Samples, last: int) -> int:
    """The middle of the quietest 300 ms of the 12 s before sample `last`."""
    first = last - SEARCH_SECONDS * SAMPLE_RATE
    levels = _levels(samples[first:last])
    around = np.convolve(levels, np.full(PAUSE_FRAMES, 1 / PAUSE_FRAMES), mode="valid")
    quietest = _middle_of_longest(around <= around.min() + 1e-3) + PAUSE_FRAMES // 2
    return int(first + quietest * FRAME + FRAME // 2)


def _middle_of_longest(mask: npt.NDArray[np.bool_]) -> int:
    """The middle of the longest run of True: in digital silence a cut keeps away from the words on both sides."""
    places = np.flatnonzero(mask)
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    longest = max(runs, key=len)
    return int(longest[len(longest) // 2])


def _window(stretch: Samples, start: int) -> Window:
    levels = _levels(stretch)
    loudest = float(levels.max())
    if loudest < SILENT_DECIBELS:
        return Window(samples=stretch[:0], start=start / SAMPLE_RATE, end=(start + len(stretch)) / SAMPLE_RATE)
    first, last = _edges(levels, max(SILENT_DECIBELS, loudest - AUDIBLE_DECIBELS), len(stretch))
    begin, end = _edges(levels, _speech_level(levels), len(stretch))
    return Window(samples=stretch[first:last], start=(start + begin) / SAMPLE_RATE, end=(start + end) / SAMPLE_RATE)


def _edges(levels: Samples, threshold: float, length: int) -> tuple[int, int]:
    """The samples between which frames reach the threshold, with a margin."""
    above = np.flatnonzero(levels >= threshold)
    first, last = int(above[0]) - MARGIN_FRAMES, int(above[-1]) + 1 + MARGIN_FRAMES
    return max(first * FRAME, 0), min(last * FRAME, length)


def _speech_level(levels: Samples) -> float:
    background, loud = np.percentile(np.maximum(levels, SILENT_DECIBELS), (10, 95))
    return float(background + SPEECH_SHARE * (loud - background))


def _levels(samples: Samples) -> Samples:
    """The level of each 20 ms in decibels below full scale; the last frame may be shorter."""
    whole = np.pad(samples, (0, -len(samples) % FRAME)).reshape(-1, FRAME)
    powers = np.einsum("ij,ij->i", whole, whole, dtype=np.float64) / FRAME
    levels: Samples = (10 * np.log10(np.maximum(powers, 1e-12))).astype(np.float32)
    return levels
