"""SpeechBuffer: audio of which it is known when somebody speaks, and where it is cut best. Stage: task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.intervals import Run, bridged, hysteresis, runs_of
from ortmesh_speech.levels import quietest
from ortmesh_speech.window import Window

SEARCH_SECONDS = 10.0
"""Speech that goes on for longer than a window may be is cut at the longest pause of its last seconds: so many that
they hold one between sentences."""
MARGIN_SECONDS = 0.4
"""Kept around what was found, so that soft beginnings and ends of words stay."""
THRESHOLD = 0.35
"""Of the probability of speech. Music, hum and noise stay below 0.3; of speech at -67 dB below full scale three
quarters of the frames are above it, and the margins keep the rest."""
MIN_SPEECH_SECONDS = 0.09
MIN_PAUSE_SECONDS = 0.09
"""Closures within words (of p, t, k) are no pauses."""


class SpeechBuffer:
    """The end of a recording or a stream, as far as it is not cut yet. Places in it are frames from its first."""

    def __init__(self, frame: int, longest: float, *, judged: bool = True) -> None:
        """`frame` samples have one probability; no window is longer than `longest` seconds."""
        self.frame = frame
        self.margin = self.frames(MARGIN_SECONDS)
        self.least = self.frames(MIN_SPEECH_SECONDS)
        """No shorter stretch counts as speech."""
        self._search = self.frames(min(SEARCH_SECONDS, longest / 2))
        self._judged = judged
        self._samples = np.empty(0, np.float32)
        self._speech = np.empty(0, np.float32)
        self._end_seconds = math.inf
        self._offset = 0
        """Frames before the first that is held."""

    def __len__(self) -> int:
        """How many frames are held."""
        return len(self._speech)

    def append(self, samples: Samples, speech: Samples) -> None:
        """These samples [n x frame] with their probabilities [n] have followed."""
        self._samples = np.concatenate([self._samples, samples])
        self._speech = np.concatenate([self._speech, speech])

    def end(self, seconds: float) -> None:
        """Nothing follows: the audio has ended after `seconds`, maybe within a frame."""
        self._end_seconds = seconds

    def runs(self) -> list[Run]:
        """The stretches of speech, however short."""
        return list(bridged(runs_of(hysteresis(self._speech, THRESHOLD)), self.frames(MIN_PAUSE_SECONDS)))

    def pause(self, chain: Sequence[Run], latest: int) -> int:
        """The middle of the longest pause between two stretches of the seconds before the latest frame that it may be;
        where nobody draws breath, of the quietest place."""
        earliest = latest - self._search
        pauses = [(end, begin) for (_, end), (begin, _) in pairwise(chain)]
        within = [(min(begin, latest) - max(end, earliest), end, begin) for end, begin in pauses]
        length, end, begin = max(within, default=(0, 0, 0))
        if length > 0:
            return (max(end, earliest) + min(begin, latest)) // 2
        return earliest + quietest(self._samples[earliest * self.frame : latest * self.frame]) // self.frame

    def window(self, chain: Sequence[Run], end: int) -> Window:
        """The first stretches as far as `end`, with a margin around them."""
        begin = max(chain[0][0] - self.margin, 0)
        inside = [(first, min(last, end)) for first, last in chain if first < end]
        end = min(end, inside[-1][1] + self.margin)
        return Window(
            samples=self._samples[begin * self.frame : end * self.frame].copy(),  # a view would keep all of it
            offset=self.seconds(begin),
            speech=tuple((self.seconds(first), self.seconds(last)) for first, last in inside),
            judged=self._judged,
        )

    def forget(self, frames: int) -> None:
        """The first ones are not needed any more."""
        if frames > 0:
            self._samples = self._samples[frames * self.frame :].copy()  # a view would keep all of it
            self._speech = self._speech[frames:].copy()
            self._offset += frames

    def latest(self, length: int) -> Samples:
        """The last `length` samples, float32 [length], silence before them where there are fewer."""
        held = self._samples[-length:]
        return np.pad(held, (length - len(held), 0))

    def frames(self, seconds: float) -> int:
        """So long in frames, at least one."""
        return max(round(seconds * SAMPLE_RATE / self.frame), 1)

    def seconds(self, frame: int) -> float:
        """When a frame begins, from the start of the audio."""
        return min((self._offset + frame) * self.frame / SAMPLE_RATE, self._end_seconds)
