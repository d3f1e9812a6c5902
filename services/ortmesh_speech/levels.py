"""Levels: how loud a recording is from moment to moment, and where it is quietest. Stage: task."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ortmesh_speech.audio import SAMPLE_RATE, Samples

FRAME = SAMPLE_RATE // 50
PAUSE_FRAMES = 15
"""Quiet is what stays quiet for 300 ms: gaps within words (stops) are shorter."""
SILENT_DECIBELS = -70.0
"""Below full scale: hardly a recording of speech is that quiet, and the noise of 16-bit samples is near -98."""
QUIETEST_POWER = 1e-12


def levels(samples: Samples, frame: int = FRAME) -> Samples:
    """The level of each frame (20 ms by default) in decibels below full scale; the last one may be shorter."""
    whole = np.pad(samples, (0, -len(samples) % frame)).reshape(-1, frame)
    powers = np.einsum("ij,ij->i", whole, whole, dtype=np.float64) / frame
    found: Samples = (10 * np.log10(np.maximum(powers, QUIETEST_POWER))).astype(np.float32)
    return found


def audible(samples: Samples, frame: int) -> Samples:
    """1 for each frame that is not silent, else 0: what is known of speech where no model detects it."""
    return (levels(samples, frame) >= SILENT_DECIBELS).astype(np.float32)


def quietest(samples: Samples) -> int:
    """The sample in the middle of the quietest 300 ms of at least so many."""
    around = np.convolve(levels(samples), np.full(PAUSE_FRAMES, 1 / PAUSE_FRAMES), mode="valid")
    middle = _middle_of_longest(around <= around.min() + 1e-3) + PAUSE_FRAMES // 2
    return middle * FRAME + FRAME // 2


def _middle_of_longest(mask: npt.NDArray[np.bool_]) -> int:
    """The middle of the longest run of True: in digital silence a cut keeps away from the words on both sides."""
    places = np.flatnonzero(mask)
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    longest = max(runs, key=len)
    return int(longest[len(longest) // 2])
