"""What is known of Whisper's answers, for the program and for the task that reads its texts. Stage: executor."""

from __future__ import annotations

import zlib

MAX_BEAMS = 8
LOWEST_MEAN_LOGPROB = -1.0
"""A less probable text is guessed from noise (speech at 0 dB: -0.75 and better)."""
HIGHEST_COMPRESSION = 2.4
"""A text that zlib shrinks more than this repeats itself without end."""
SURE_OF_SILENCE = 0.6
"""Probability of no speech from which nothing is said; the most that 0 dB of white noise gave to speech was 0.18."""


def compression(text: str) -> float:
    """How many times zlib shrinks a text."""
    written = text.encode()
    return len(written) / len(zlib.compress(written))
