"""Cutter: a recording of any length cut at its pauses into what a recognizer hears at once. Stage: task."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ortmesh_speech.audio import Samples
from ortmesh_speech.intervals import Run
from ortmesh_speech.speech_buffer import SpeechBuffer
from ortmesh_speech.window import Window

MAX_SECONDS = 20.0
"""The longest window, though Whisper hears 30 s. Of ten minutes of talks by three voices, word errors and CPU
milliseconds a second of audio: 28 s .062 and 33, 20 s .065 and 31, 14 s .067 and 29; the shorter they are, the sooner
is one heard again."""
TAIL_SECONDS = 3.0
"""The last window is no shorter when it can be helped: a single word is heard worse than a sentence."""
GAP_SECONDS = 3.0
"""A longer pause is left out: it ends a window. Shorter ones stay, as words are heard better beside others: cut at
pauses of 1 s, dialogues had .137 word errors instead of .126, and talks took 8 % more CPU."""


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a recording."""

    samples: Samples
    """At 16 kHz, [n x frame]."""
    speech: Samples
    """The probability of speech in each frame, [n]."""


class Cutter:
    """Takes a recording block by block and gives its windows as soon as they are known; it holds 30 s at most.

    Windows follow each other without overlap; between them is nothing but silence.
    """

    def __init__(self, frame: int, longest: float = MAX_SECONDS, *, judged: bool = True) -> None:
        """`frame` samples have one probability; no window is longer than `longest` seconds."""
        self._held = SpeechBuffer(frame, longest, judged=judged)
        self._longest, self._tail, self._gap = map(self._held.frames, (longest, TAIL_SECONDS, GAP_SECONDS))

    def push(self, block: Block) -> list[Window]:
        """The windows that are known once this block has followed."""
        self._held.append(block.samples, block.speech)
        return list(self._cut(ended=False))

    def rest(self, seconds: float = math.inf) -> list[Window]:
        """The last windows, when no block follows; the recording has ended after `seconds`, maybe within a frame."""
        self._held.end(seconds)
        return list(self._cut(ended=True))

    def _cut(self, *, ended: bool) -> Iterator[Window]:
        while runs := self._runs(ended):
            chain, closed = self._chain(runs, ended)
            end = self._end(chain, closed)
            if end is None:
                return
            yield self._held.window(chain, end)
            self._held.forget(end)
        self._held.forget(len(self._held) - 2 * self._held.margin)

    def _runs(self, ended: bool) -> list[Run]:
        """The stretches of speech in what is held. One that reaches its end may grow yet."""
        least, held = self._held.least, len(self._held)
        return [run for run in self._held.runs() if run[1] - run[0] >= least or (run[1] == held and not ended)]

    def _chain(self, runs: Sequence[Run], ended: bool) -> tuple[Sequence[Run], bool]:
        """(the first stretches, as far as no long pause is between them, whether it is known that no more follows)."""
        for place in range(1, len(runs)):
            if runs[place][0] - runs[place - 1][1] > self._gap:
                return runs[:place], True
        return runs, ended or len(self._held) - runs[-1][1] > self._gap

    def _end(self, chain: Sequence[Run], closed: bool) -> int | None:
        """The frame at which the window ends; None when more must be known."""
        limit = max(chain[0][0] - self._held.margin, 0) + self._longest
        last = min(chain[-1][1] + self._held.margin, len(self._held))
        if last <= limit and closed:
            return last
        if closed:
            return self._held.pause(chain, min(limit, last - self._tail))
        return self._held.pause(chain, limit) if last >= limit + self._tail else None
