"""Log-mel spectrograms, as Whisper was trained on them: from samples to features. Stage: task.

Slaney's mel scale and normalisation, 80 bands (128 in the newest models) to 8 kHz, Hann windows of 25 ms every 10 ms
(Radford et al., arXiv:2212.04356; github.com/openai/whisper, `whisper/audio.py`). NumPy's FFT and matrix product
release the lock.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ortmesh_speech.audio import SAMPLE_RATE, Samples

HOP = 160
WINDOW = 400
QUIETEST = 1e-10
"""Power below which nothing is told apart."""
DYNAMIC_RANGE = 8.0
"""In powers of ten below the loudest cell; what is quieter is raised to it."""

LINEAR_HERTZ_PER_MEL = 200 / 3
LOGARITHMIC_FROM_HERTZ = 1000.0
LOGARITHMIC_STEP = np.log(6.4) / 27


def log_mel(samples: Samples, seconds: int, mels: int = 80) -> Samples:
    """float32 [1, mels, 100 × seconds] of samples at 16 kHz, padded with silence or cut to `seconds`.

    Samples louder than full scale are brought down to it.
    """
    powers = _powers(_fit(samples, seconds * SAMPLE_RATE))
    cells = np.log10(np.maximum(mel_filters(mels) @ powers.T, QUIETEST))
    cells = np.maximum(cells, cells.max() - DYNAMIC_RANGE)
    spectrogram: Samples = ((cells + 4.0) / 4.0).astype(np.float32)[None]
    return spectrogram


def _fit(samples: Samples, length: int) -> Samples:
    fitted = np.zeros(length, np.float32)
    fitted[: len(samples)] = samples[:length]
    peak = float(np.abs(fitted).max())
    return (fitted / peak).astype(np.float32) if peak > 1 else fitted


def _powers(samples: Samples) -> Samples:
    """Power spectra [frames, 201]; frames are centred on multiples of the hop, the edges are mirrored."""
    return power_spectra(np.pad(samples, WINDOW // 2, mode="reflect"))[:-1]


def power_spectra(samples: Samples) -> Samples:
    """Power spectra [frames, 201] of every whole window of 25 ms, one each 10 ms from the first sample on."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    spectra = np.fft.rfft(frames * _hann())
    powers: Samples = np.square(spectra.real) + np.square(spectra.imag)
    return powers


@cache
def _hann() -> Samples:
    return np.hanning(WINDOW + 1)[:-1].astype(np.float32)


@cache
def mel_filters(mels: int) -> Samples:
    """Triangles of equal area [mels, 201]: from the FFT's bins to mel bands."""
    bins = np.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1)
    edges = _hertz(np.linspace(0, _mel(SAMPLE_RATE / 2), mels + 2))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * 2 / (edges[2:] - edges[:-2])).astype(np.float32)


def _mel(hertz: float) -> float:
    if hertz < LOGARITHMIC_FROM_HERTZ:
        return hertz / LINEAR_HERTZ_PER_MEL
    steps = np.log(hertz / LOGARITHMIC_FROM_HERTZ) / LOGARITHMIC_STEP
    return float(LOGARITHMIC_FROM_HERTZ / LINEAR_HERTZ_PER_MEL + steps)


def _hertz(mels: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    knee = LOGARITHMIC_FROM_HERTZ / LINEAR_HERTZ_PER_MEL
    curved = LOGARITHMIC_FROM_HERTZ * np.exp(LOGARITHMIC_STEP * (mels - knee))
    return np.where(mels < knee, mels * LINEAR_HERTZ_PER_MEL, curved)
