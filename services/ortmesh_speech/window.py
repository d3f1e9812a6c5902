"""Window: what a recognizer hears at once. Stage: task."""

from __future__ import annotations

from dataclasses import dataclass

from ortmesh_speech.audio import SAMPLE_RATE, Samples

SILENCE_SECONDS = 2
"""Silence behind the speech: with only one, noisy recordings end in endless repeats (word errors .30 → .79)."""
BUCKETS_SECONDS = (10, 14, 18, 22, 30)
"""Lengths that windows are padded to: the encoder's time grows with them, and only equal ones search side by side."""


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
