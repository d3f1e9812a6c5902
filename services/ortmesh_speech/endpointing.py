"""Endpointing: the rule of intervals while the audio comes; it finds what it would find in the whole. Stage: task."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from ortmesh_speech.audio import Samples
from ortmesh_speech.intervals import EXIT_MARGIN, LOWEST_EXIT, PADDING_SECONDS, ROUNDING_SECONDS, Interval, Rule


@dataclass(frozen=True, slots=True)
class Started:
    """Somebody begins to speak; the interval follows when it has ended."""

    start: float
    """Seconds from the start of the audio, as the interval will say."""


Event: TypeAlias = Started | Interval


@dataclass(slots=True)
class _Stretch:
    """Speech in frames, pauses within it bridged."""

    first: int
    last: int = field(init=False)
    """The frame behind the last one in which somebody speaks."""
    start: float = math.nan
    """Seconds, padded; known once the stretch is long enough."""
    total: float = 0.0
    """The sum of its frames' probabilities."""
    pause: float = 0.0
    """The same of the frames behind it."""

    def __post_init__(self) -> None:
        self.last = self.first

    @property
    def accepted(self) -> bool:
        """True once it is long enough to count."""
        return not math.isnan(self.start)


class Endpointer:
    """Takes probabilities of speech in any number of frames at a time and tells what is certain.

    A start is told as soon as the stretch is long enough, an interval as soon as the silence behind it is: within
    `min_speech` and `min_silence`, but 60 ms of silence at least, half of which belong to the interval.
    """

    def __init__(self, rule: Rule, frame_seconds: float) -> None:
        self._rule = rule
        self._frame_seconds = frame_seconds
        # In the precision in which the whole's probabilities are compared
        self._enter = float(np.float32(rule.threshold))
        self._exit = float(np.float32(max(rule.threshold - EXIT_MARGIN, LOWEST_EXIT)))
        self._min_pause = rule.min_silence / frame_seconds - ROUNDING_SECONDS
        self._seconds = math.inf
        """Of the audio, once it has ended."""
        self._frames = 0
        self._speaking = False
        self._open: _Stretch | None = None
        """The stretch that may go on."""
        self._ended: _Stretch | None = None
        """The last one that counts, while it depends on what follows how far it is padded."""
        self._before: float | None = None
        """Where the last stretch that counts ends, in seconds."""

    def push(self, probabilities: Samples) -> list[Event]:
        """What is known once these frames, [frames], have followed."""
        return [event for probability in probabilities.tolist() for event in self._next(probability)]

    def rest(self, probabilities: Samples, seconds: float) -> list[Event]:
        """The last frames, of which the last one may reach beyond the end of the audio; nothing follows."""
        self._seconds = seconds
        events = self.push(probabilities)
        if self._open is not None:
            self._close(self._open)
        return [*events, *self._settle(math.inf)]

    def _next(self, probability: float) -> Iterator[Event]:
        self._speaking = probability >= self._enter or (self._speaking and probability >= self._exit)
        frame, self._frames = self._frames, self._frames + 1
        if self._speaking:
            yield from self._speech(frame, probability)
        else:
            yield from self._pause(probability)

    def _speech(self, frame: int, probability: float) -> Iterator[Event]:
        stretch = self._open = self._open or _Stretch(frame)
        stretch.total += stretch.pause + probability
        stretch.pause, stretch.last = 0.0, frame + 1
        length = (stretch.last - stretch.first) * self._frame_seconds
        if not stretch.accepted and length >= self._rule.min_speech - ROUNDING_SECONDS:
            begin = stretch.first * self._frame_seconds
            room = begin if self._before is None else (begin - self._before) / 2
            yield from self._settle(room)
            stretch.start = begin - min(PADDING_SECONDS, room)
            yield Started(stretch.start)

    def _pause(self, probability: float) -> Iterator[Event]:
        if self._open is not None:
            self._open.pause += probability
            if self._frames - self._open.last >= self._min_pause:
                self._close(self._open)
        if self._ended is not None and self._open is None:
            room = (self._frames - self._ended.last) * self._frame_seconds / 2
            if room >= PADDING_SECONDS:
                yield from self._settle(room)

    def _close(self, stretch: _Stretch) -> None:
        self._open = None
        if stretch.accepted:
            self._ended, self._before = stretch, self._end_of(stretch)

    def _settle(self, room: float) -> Iterator[Interval]:
        """The interval that waits for what follows it, which leaves so much room."""
        stretch, self._ended = self._ended, None
        if stretch is not None:
            end = self._end_of(stretch)
            padding = min(PADDING_SECONDS, room, self._seconds - end)
            confidence = stretch.total / (stretch.last - stretch.first)
            yield Interval(stretch.start, end + padding, min(confidence, 1.0))

    def _end_of(self, stretch: _Stretch) -> float:
        return min(stretch.last * self._frame_seconds, self._seconds)
