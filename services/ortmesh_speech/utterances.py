"""Utterances: a stream cut where somebody falls silent, into what a recognizer hears at once. Stage: task.

The same probabilities and thresholds make the windows of recordings (windows.py). A stream is cut at every silence
of the length that was asked for, since somebody waits for the text, and what is not said yet can't be waited for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.intervals import Run, bridged, hysteresis, runs_of
from ortmesh_speech.levels import quietest
from ortmesh_speech.windows import (
    MARGIN_SECONDS,
    MIN_PAUSE_SECONDS,
    MIN_SPEECH_SECONDS,
    SEARCH_SECONDS,
    THRESHOLD,
    Window,
)

MAX_SECONDS = 25.0
"""Whoever speaks for longer is cut: Whisper hears 30 s, and what was said is known that much earlier."""
BEFORE_SECONDS = 1.0
"""Held of the silence before somebody speaks."""


@dataclass(frozen=True, slots=True)
class Begun:
    """Somebody begins to speak."""

    start: float
    """Seconds from the start of the audio."""


@dataclass(frozen=True, slots=True)
class Open:
    """An utterance that may go on, as far as it was heard."""

    window: Window
    """What would be recognized if nothing followed."""
    heard: float
    """Seconds from the start of the audio."""

    @property
    def silence(self) -> float:
        """Seconds since somebody spoke last."""
        return self.heard - self.window.end


Event: TypeAlias = Begun | Window
"""A window is an utterance that has ended; each has had its beginning told, unless it goes on behind a cut."""


class Utterances:
    """Takes samples with their probabilities of speech and gives what is certain; it holds some 30 s at most."""

    def __init__(self, frame: int, end_silence: float, longest: float = MAX_SECONDS) -> None:
        """`frame` samples have one probability; `end_silence` seconds without speech end an utterance."""
        self._frame = frame
        self._end_silence = self._frames(end_silence)
        self._longest = self._frames(longest)
        self._search = self._frames(min(SEARCH_SECONDS, longest / 2))
        self._margin = self._frames(MARGIN_SECONDS)
        self._samples = np.empty(0, np.float32)
        self._speech = np.empty(0, np.float32)
        self._end_seconds = math.inf
        self._offset = 0
        """Frames of the stream before the first that is held."""
        self._told = False
        """True when the beginning of what is being said was told."""
        self._chain: Sequence[Run] = ()
        """The stretches of the utterance that is being said."""

    def push(self, samples: Samples, speech: Samples) -> list[Event]:
        """What is known once these samples [n x frame] with their probabilities [n] have followed."""
        self._samples = np.concatenate([self._samples, samples])
        self._speech = np.concatenate([self._speech, speech])
        return list(self._cut(ended=False))

    def rest(self, seconds: float) -> list[Event]:
        """The last utterance, when nothing follows; the audio has ended after `seconds`, maybe within a frame."""
        self._end_seconds = seconds
        return list(self._cut(ended=True))

    @property
    def open(self) -> Open | None:
        """The utterance that is being said; None while nobody speaks."""
        if not self._chain:
            return None
        return Open(self._window(self._chain, len(self._speech)), self._seconds(len(self._speech)))

    def latest(self, length: int) -> Samples:
        """The last `length` samples that are held, float32 [length], silence before them where there are fewer."""
        held = self._samples[-length:]
        return np.pad(held, (length - len(held), 0))

    def _cut(self, *, ended: bool) -> Iterator[Event]:
        while runs := self._runs(ended):
            self._chain, closed = self._first(runs, ended)
            if not self._told:
                self._told = True
                yield Begun(self._seconds(self._chain[0][0]))
            if self._is_long:
                end = self._pause(self._chain[0][0] + self._longest)
            elif closed:
                end, self._told = min(self._chain[-1][1] + self._margin, len(self._speech)), False
            else:
                self._forget_silence()
                return
            yield self._window(self._chain, end)
            self._forget(end)
        self._chain = ()
        self._told = False
        self._forget(len(self._speech) - self._frames(BEFORE_SECONDS))

    def _runs(self, ended: bool) -> list[Run]:
        """The stretches of speech in what is held, in frames. The last one may yet grow to be one."""
        found = list(bridged(runs_of(hysteresis(self._speech, THRESHOLD)), self._frames(MIN_PAUSE_SECONDS)))
        least = self._frames(MIN_SPEECH_SECONDS)
        long = [(first, last) for first, last in found if last - first >= least]
        growing = not ended and found and found[-1][1] == len(self._speech) and found[-1][1] - found[-1][0] < least
        return [*long, found[-1]] if growing and long else long

    def _first(self, runs: Sequence[Run], ended: bool) -> tuple[Sequence[Run], bool]:
        """(the first stretches, as far as no silence is between them that ends an utterance, whether it has ended)."""
        for place in range(1, len(runs)):
            if runs[place][0] - runs[place - 1][1] >= self._end_silence:
                return runs[:place], True
        return runs, ended or len(self._speech) - runs[-1][1] >= self._end_silence

    @property
    def _is_long(self) -> bool:
        return self._chain[-1][1] - self._chain[0][0] > self._longest

    def _pause(self, latest: int) -> int:
        """The middle of the longest pause of the seconds before a frame; where nobody draws breath, of the quietest."""
        earliest = latest - self._search
        pauses = [(end, begin) for (_, end), (begin, _) in zip(self._chain, self._chain[1:], strict=False)]
        within = [(min(begin, latest) - max(end, earliest), end, begin) for end, begin in pauses]
        length, end, begin = max(within, default=(0, 0, 0))
        if length > 0:
            return (max(end, earliest) + min(begin, latest)) // 2
        return earliest + quietest(self._samples[earliest * self._frame : latest * self._frame]) // self._frame

    def _window(self, chain: Sequence[Run], end: int) -> Window:
        begin = max(chain[0][0] - self._margin, 0)
        inside = [(first, min(last, end)) for first, last in chain if first < end]
        end = min(end, inside[-1][1] + self._margin)
        return Window(
            samples=self._samples[begin * self._frame : end * self._frame].copy(),  # a view would keep all of it
            offset=self._seconds(begin),
            speech=tuple((self._seconds(first), self._seconds(last)) for first, last in inside),
            judged=True,
        )

    def _forget_silence(self) -> None:
        """Lets go of the silence before the utterance that is being said, where it came in one block with it."""
        silent = self._chain[0][0] - self._frames(BEFORE_SECONDS)
        if silent > 0:
            self._forget(silent)
            self._chain = [(first - silent, last - silent) for first, last in self._chain]

    def _forget(self, frames: int) -> None:
        if frames > 0:
            self._samples = self._samples[frames * self._frame :].copy()  # a view would keep all of it
            self._speech = self._speech[frames:].copy()
            self._offset += frames

    def _frames(self, seconds: float) -> int:
        return max(round(seconds * SAMPLE_RATE / self._frame), 1)

    def _seconds(self, frame: int) -> float:
        return min((self._offset + frame) * self._frame / SAMPLE_RATE, self._end_seconds)
