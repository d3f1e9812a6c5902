"""Utterances: a stream cut where somebody falls silent, into what a recognizer hears at once. Stage: task.

The same probabilities and thresholds make the windows of recordings (cutter.py). A stream is cut at every silence
of the length that was asked for, since somebody waits for the text, and what is not said yet can't be waited for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ortmesh_speech.audio import Samples
from ortmesh_speech.intervals import Run
from ortmesh_speech.speech_buffer import SpeechBuffer
from ortmesh_speech.window import Window

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
        self._held = SpeechBuffer(frame, longest)
        self._longest, self._end_silence = map(self._held.frames, (longest, end_silence))
        self._told = False
        """True when the beginning of what is being said was told."""
        self._chain: Sequence[Run] = ()
        """The stretches of the utterance that is being said."""

    def push(self, samples: Samples, speech: Samples) -> list[Event]:
        """What is known once these samples [n x frame] with their probabilities [n] have followed."""
        self._held.append(samples, speech)
        return list(self._cut(ended=False))

    def rest(self, seconds: float) -> list[Event]:
        """The last utterance, when nothing follows; the audio has ended after `seconds`, maybe within a frame."""
        self._held.end(seconds)
        return list(self._cut(ended=True))

    @property
    def open(self) -> Open | None:
        """The utterance that is being said; None while nobody speaks."""
        if not self._chain:
            return None
        heard = len(self._held)
        return Open(self._held.window(self._chain, heard), self._held.seconds(heard))

    def latest(self, length: int) -> Samples:
        """The last `length` samples that are held, float32 [length], silence before them where there are fewer."""
        return self._held.latest(length)

    def _cut(self, *, ended: bool) -> Iterator[Event]:
        held = self._held
        while runs := self._runs(ended):
            self._chain, closed = self._first(runs, ended)
            if not self._told:
                self._told = True
                yield Begun(held.seconds(self._chain[0][0]))
            if self._is_long:
                end = held.pause(self._chain, self._chain[0][0] + self._longest)
            elif closed:
                following = runs[len(self._chain)][0] if len(runs) > len(self._chain) else len(held)
                end, self._told = min(self._chain[-1][1] + held.margin, following), False
            else:
                self._forget_silence()
                return
            yield held.window(self._chain, end)
            held.forget(end)
        self._chain = ()
        self._told = False
        held.forget(len(held) - held.frames(BEFORE_SECONDS))

    def _runs(self, ended: bool) -> list[Run]:
        """The stretches of speech in what is held. The last one may yet grow to be one."""
        found, least = self._held.runs(), self._held.least
        long = [(first, last) for first, last in found if last - first >= least]
        growing = not ended and found and found[-1][1] == len(self._held) and found[-1][1] - found[-1][0] < least
        return [*long, found[-1]] if growing and long else long

    def _first(self, runs: Sequence[Run], ended: bool) -> tuple[Sequence[Run], bool]:
        """(the first stretches, as far as no silence is between them that ends an utterance, whether it has ended)."""
        for place in range(1, len(runs)):
            if runs[place][0] - runs[place - 1][1] >= self._end_silence:
                return runs[:place], True
        return runs, ended or len(self._held) - runs[-1][1] >= self._end_silence

    @property
    def _is_long(self) -> bool:
        return self._chain[-1][1] - self._chain[0][0] > self._longest

    def _forget_silence(self) -> None:
        """Lets go of the silence before the utterance that is being said, where it came in one block with it."""
        silent = self._chain[0][0] - self._held.frames(BEFORE_SECONDS)
        if silent > 0:
            self._held.forget(silent)
            self._chain = [(first - silent, last - silent) for first, last in self._chain]
