"""What an encoder of voices hears: from samples to windows of mel powers, as Resemblyzer was trained. Stage: task.

40 bands to 8 kHz, Hann windows of 25 ms every 10 ms, powers and not their logarithms, so that the level counts
(Wan et al., arXiv:1710.10467; github.com/resemble-ai/Resemblyzer, `resemblyzer/audio.py`, `voice_encoder.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from ortmesh_speech.audio import Samples
from ortmesh_speech.log_mel import HOP, WINDOW, mel_filters, power_spectra

MELS = 40
FRAMES = 160
"""Of a window: 1.6 s."""
STEP_FRAMES = 77
"""From window to window: 1.3 a second."""
MIN_COVERAGE = 0.75
"""A last window that is filled with less speech is left out, unless it is the only one."""
LEVEL = 10 ** (-30 / 20)
"""The root mean square to which softer speech is raised: 30 dB below full scale."""
TOGETHER = 16
"""Windows whose spectra are computed at a time: 10 MB."""


def at_level(samples: Samples) -> Samples:
    """Speech as loud as the encoder wants it: soft speech is raised, what exceeds full scale is brought down to it.

    Its level is that of the speech alone. Resemblyzer takes the level of all, pauses included, so that a voice would
    depend on how much silence there is around it.
    """
    if not len(samples):
        return samples
    peak = float(np.abs(samples).max())
    scaled = samples / np.float32(max(peak, 1.0))
    level = float(np.sqrt(np.mean(np.square(scaled), dtype=np.float64)))
    return scaled * np.float32(max(LEVEL / level, 1.0)) if level else scaled


def voice_mel(samples: Samples, mels: int = MELS) -> Samples:
    """float32 [1 + n // 160, mels] of n samples at 16 kHz; frames are centred on multiples of 10 ms."""
    return _mel(np.pad(samples, WINDOW // 2), mels)


def partials(samples: Samples, frames: int = FRAMES, mels: int = MELS) -> Iterator[Samples]:
    """Windows float32 [n, frames, mels] of a voice's samples at 16 kHz, n at most 16, in their order.

    Their embeddings' mean, at length 1, is the voice's. There is at least one: what is shorter is filled with silence.
    """
    starts = iter(window_starts(len(samples), frames))
    while several := list(islice(starts, TOGETHER)):
        spectrum = _mel(_span(samples, several[0] * HOP, (several[-1] + frames - 1) * HOP), mels)
        yield np.stack([spectrum[start - several[0] :][:frames] for start in several])


def window_starts(length: int, frames: int = FRAMES) -> list[int]:
    """The first frame of each window over so many samples, as Resemblyzer's `compute_partial_slices` has them."""
    heard = (length + HOP) // HOP  # frames, the last one begun
    starts = list(range(0, max(1, heard - frames + STEP_FRAMES + 1), STEP_FRAMES))
    covered = (length - starts[-1] * HOP) / (frames * HOP)
    return starts[:-1] if covered < MIN_COVERAGE and len(starts) > 1 else starts


def _span(samples: Samples, first: int, last: int) -> Samples:
    """The samples that frames centred on `first` to `last` see; silence where there are none."""
    begin, end = first - WINDOW // 2, last + WINDOW // 2
    inside = samples[max(begin, 0) : end]
    return np.pad(inside, (max(-begin, 0), end - max(begin, 0) - len(inside)))


def _mel(padded: Samples, mels: int) -> Samples:
    spectrum: Samples = power_spectra(padded) @ mel_filters(mels).T
    return spectrum
