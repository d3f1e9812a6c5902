"""Voices that differ: the synthesizer's only one as if it came from smaller and larger throats."""

from __future__ import annotations

from functools import cache

import numpy as np
import soxr

from ortmesh_speech.audio import SAMPLE_RATE, Samples
from tests.speech.voices import say, silence

THROATS = {"own": 1.0, "smaller": 1.6, "larger": 0.75}
"""How much higher pitch and formants are."""


@cache
def speak(throat: str, *texts: str) -> Samples:
    """The texts at 16 kHz in one voice, 0.6 s apart. A smaller throat's speech is made slower by as much, and a larger
    one's quicker, before it is played at another speed: it is as quick as the others'."""
    factor = THROATS[throat]
    parts = []
    for text in texts:
        spoken = say(text, speed=1 / factor)
        parts += [soxr.resample(spoken, SAMPLE_RATE * factor, SAMPLE_RATE).astype(np.float32), silence(0.6)]
    return np.concatenate(parts)
