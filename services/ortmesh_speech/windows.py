"""Windows: a recording of any length cut at its pauses into what a recognizer hears at once. Stage: task."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.intervals import Run, bridged, hysteresis, runs_of
from ortmesh_speech.levels import quietest

MAX_SECONDS = 20.0
"""The longest window, though Whisper hears 30 s. Of ten minutes of talks by three voices, word errors and CPU
milliseconds a second of audio: 28 s .062 and 33, 20 s .065 and 31, 14 s .067 and 29; the shorter they are, the sooner
is one heard again."""
SEARCH_SECONDS = 10.0
"""Speech that goes on for longer is cut at the longest pause of a window's last seconds: long enough to hold one
between sentences."""
TAIL_SECONDS = 3.0
"""The last window is no shorter when it can be helped: a single word is heard worse than a sentence."""
GAP_SECONDS = 3.0
"""A longer pause is left out: it ends a window. Shorter ones stay, as words are heard better beside others: cut at
pauses of 1 s, dialogues had .137 word errors instead of .126, and talks took 8 % more CPU."""
MARGIN_SECONDS = 0.4
"""Kept around what was found, so that soft beginnings and ends of words stay."""
SILENCE_SECONDS = 2
"""Silence behind the speech: with only one, noisy recordings end in endless repeats (word errors .30 → .79)."""
BUCKETS_SECONDS = (10, 14, 18, 22, 30)
"""Lengths that windows are padded to: the encoder's time grows with them, and only equal ones search side by side."""

THRESHOLD = 0.35
"""Of the probability of speech. Music, hum and noise stay below 0.3; of speech at -67 dB below full scale three
quarters of the frames are above it, and the margins keep the rest."""
MIN_SPEECH_SECONDS = 0.09
MIN_PAUSE_SECONDS = 0.09
"""Closures within words (of p, t, k) are no pauses."""


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a recording."""

    samples: Samples
    """At 16 kHz, [n x frame]."""
    speech: Samples
    """The probability of speech in each frame, [n]."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of the recording in which somebody speaks, with a little around it."""

    samples: Samples
    """What is to be recognized."""
    offset: float
    """Seconds from the recording's start to the first sample."""
    speech: tuple[tuple[float, float], ...]
    """When somebody speaks in it, in seconds from the recording's start; at least one stretch."""
    judged: bool = True
    """True where a model said so, False where that which is not silent counts as speech."""

    @property
    def start(self) -> float:
        """Seconds from the recording's start to the first speech."""
        return self.speech[0][0]

    @property
    def end(self) -> float:
        """Seconds from the recording's start to the end of the last speech."""
        return self.speech[-1][1]

    @property
    def speech_seconds(self) -> float:
        """How long somebody speaks in it."""
        return sum(end - start for start, end in self.speech)

    @property
    def padded_seconds(self) -> int:
        """How long it is with the silence that a recognizer needs behind it."""
        needed = len(self.samples) / SAMPLE_RATE + SILENCE_SECONDS
        return next(seconds for seconds in BUCKETS_SECONDS if seconds >= needed)


class Cutter:
    """Takes a recording block by block and gives its windows as soon as they are known; it holds 30 s at most.

    Windows follow each other without overlap; between them is nothing but silence.
    """

    def __init__(self, frame: int, longest: float = MAX_SECONDS, *, judged: bool = True) -> None:
        """`frame` samples have one probability; no window is longer than `longest` seconds."""
        self._frame = frame
        self._judged = judged
        self._longest = self._frames(longest)
        self._tail = self._frames(TAIL_SECONDS)
        self._gap = self._frames(GAP_SECONDS)
        self._margin = self._frames(MARGIN_SECONDS)
        self._search = self._frames(min(SEARCH_SECONDS, longest / 2))
        self._end_seconds = math.inf
        self._samples = np.empty(0, np.float32)
        self._speech = np.empty(0, np.float32)
        self._offset = 0
        """Frames of the recording before the first that is held."""

    def push(self, block: Block) -> list[Window]:
        """The windows that are known once this block has followed."""
        self._samples = np.concatenate([self._samples, block.samples])
        self._speech = np.concatenate([self._speech, block.speech])
        return list(self._cut(ended=False))

    def rest(self, seconds: float = math.inf) -> list[Window]:
        """The last windows, when no block follows; the recording has ended after `seconds`, maybe within a frame."""
        self._end_seconds = seconds
        return list(self._cut(ended=True))

    def _cut(self, *, ended: bool) -> Iterator[Window]:
        while runs := self._runs(ended):
            chain, closed = self._chain(runs, ended)
            begin = max(chain[0][0] - self._margin, 0)
            end = self._end(begin, chain, closed)
            if end is None:
                return
            yield self._window(chain, begin, end)
            self._forget(end)
        self._forget(len(self._speech) - 2 * self._margin)

    def _runs(self, ended: bool) -> list[Run]:
        """The stretches of speech in what is held, in frames. One that reaches its end may grow yet."""
        found = bridged(runs_of(hysteresis(self._speech, THRESHOLD)), self._frames(MIN_PAUSE_SECONDS))
        least, held = self._frames(MIN_SPEECH_SECONDS), len(self._speech)
        return [(first, last) for first, last in found if last - first >= least or (last == held and not ended)]

    def _chain(self, runs: Sequence[Run], ended: bool) -> tuple[Sequence[Run], bool]:
        """(the first stretches, as far as no long pause is between them, whether it is known that no more follows)."""
        for place in range(1, len(runs)):
            if runs[place][0] - runs[place - 1][1] > self._gap:
                return runs[:place], True
        return runs, ended or len(self._speech) - runs[-1][1] > self._gap

    def _end(self, begin: int, chain: Sequence[Run], closed: bool) -> int | None:
        """The frame at which the window ends; None when more must be known."""
        limit, last = begin + self._longest, min(chain[-1][1] + self._margin, len(self._speech))
        if last <= limit and closed:
            return last
        if closed:
            return self._pause(chain, min(limit, last - self._tail))
        return self._pause(chain, limit) if last >= limit + self._tail else None

    def _pause(self, chain: Sequence[Run], latest: int) -> int:
        """The middle of the longest pause between two stretches of the seconds before the latest frame that it may be;
        where nobody draws breath, of the quietest place."""
        earliest = latest - self._search
        pauses = [(end, begin) for (_, end), (begin, _) in pairwise(chain)]
        within = [(min(begin, latest) - max(end, earliest), end, begin) for end, begin in pauses]
        length, end, begin = max(within, default=(0, 0, 0))
        if length > 0:
            return (max(end, earliest) + min(begin, latest)) // 2
        searched = self._samples[earliest * self._frame : latest * self._frame]
        return earliest + quietest(searched) // self._frame

    def _window(self, chain: Sequence[Run], begin: int, end: int) -> Window:
        inside = [(first, min(last, end)) for first, last in chain if first < end]
        end = min(end, inside[-1][1] + self._margin)
        return Window(
            samples=self._samples[begin * self._frame : end * self._frame].copy(),  # a view would keep all of it
            offset=self._seconds(begin),
            speech=tuple((self._seconds(first), self._seconds(last)) for first, last in inside),
            judged=self._judged,
        )

    def _forget(self, frames: int) -> None:
        if frames > 0:
            self._samples = self._samples[frames * self._frame :]
            self._speech = self._speech[frames:]
            self._offset += frames

    def _frames(self, seconds: float) -> int:
        return round(seconds * SAMPLE_RATE / self._frame)

    def _seconds(self, frame: int) -> float:
        return min((self._offset + frame) * self._frame / SAMPLE_RATE, self._end_seconds)
