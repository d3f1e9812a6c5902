"""Vocoder: the parts of a spectrum that a voice gives to a waveform, without the silence around it. Stage: task.

The voice's harmonics are a train of pulses at its pitch, filtered; breath is shaped noise; a third part has a phase of
its own. After github.com/MMWilliams/hibari (Apache-2.0):

    S = e^harmonic · e^(iπ tanh harmonic_phase) · STFT(pulses) + e^noise · Z + e^residual · e^(i residual_phase)

In NumPy rather than in the graph: an FFT costs a tenth of the product of matrices that it would be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Samples: TypeAlias = npt.NDArray[np.float32]
Spectrum: TypeAlias = npt.NDArray[np.complex64]

SAMPLE_RATE: Final = 24_000
HOP: Final = 300
WINDOW: Final = 1200
BINS: Final = WINDOW // 2 + 1
PARTS: Final = ("harmonic", "harmonic_phase", "noise", "residual", "residual_phase")

_OVERLAP: Final = WINDOW // HOP
_HANN: Final = np.asarray(np.hanning(WINDOW + 1)[:-1], np.float32)
_UNIT_HANN: Final = _HANN / np.float32(WINDOW / 4)
"""With it the harmonics' own magnitude is 1."""
_LOUDEST: Final = np.float32(7)
"""Logarithms above would be e^7 times a pulse: the model's slips, not speech."""
_LOWEST_PITCH: Final = np.float32(40)
_HIGHEST_HARMONIC: Final = 11_000.0
_QUIET: Final = 0.001
"""Of full scale: what the model gives before and behind speech is below 0.0001, the softest consonants are above."""
_FRAME: Final = 120
_BEFORE, _BEHIND = SAMPLE_RATE * 30 // 1000, SAMPLE_RATE * 60 // 1000
"""Kept around what is louder: soft beginnings and ends of words."""


def waveform(parts: Mapping[str, Samples], seed: tuple[int, ...]) -> Samples:
    """Samples at 24 kHz of the parts [1, 601, frames] and `pitch` [1, frames], in [-1, 1], silence cut off both ends.

    The same parts and seed give the same samples.
    """
    harmonic, phase, noise, residual, residual_phase = (parts[name][0] for name in PARTS)
    frames = harmonic.shape[1]
    spectrum = _stft(_pulses(parts["pitch"][0]), frames)
    spectrum *= _polar(harmonic, np.tanh(phase) * np.float32(np.pi))
    random = np.random.default_rng(seed).standard_normal((BINS, 2 * frames), dtype=np.float32)
    spectrum += random.view(np.complex64) * _exp(noise)
    spectrum += _polar(residual, residual_phase)
    return np.clip(_without_silence(_inverse(spectrum)), -1, 1)


def silence(seconds: float) -> Samples:
    """A pause."""
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def _exp(logarithms: Samples) -> Samples:
    return np.exp(np.minimum(logarithms, _LOUDEST))


def _polar(logarithms: Samples, phases: Samples) -> Spectrum:
    rotated = np.empty(phases.shape, np.complex64)
    np.cos(phases, out=rotated.real)
    np.sin(phases, out=rotated.imag)
    rotated *= _exp(logarithms)
    return rotated


def _pulses(pitch: Samples) -> Samples:
    """All harmonics below 11 kHz of a pitch [frames] in Hz, each at amplitude 1; silence where nothing has a pitch.

    The sum of cos(h·t) over h = 1 … n is sin((n + ½)t) / 2 sin(t/2) - ½.
    """
    frequency = _interpolated(pitch)
    voiced = frequency > _LOWEST_PITCH
    np.maximum(frequency, _LOWEST_PITCH, out=frequency)
    turns = np.cumsum(frequency, dtype=np.float64) / SAMPLE_RATE
    phase = np.asarray(2 * np.pi * (turns % 1), np.float32)
    order = np.floor(np.float32(_HIGHEST_HARMONIC) / frequency) + np.float32(0.5)
    below = 2 * np.sin(phase / 2)
    at_peak = np.abs(below) <= 2e-3
    pulses = np.where(at_peak, order, np.sin(order * phase) / np.where(at_peak, 1, below)) - np.float32(0.5)
    return np.asarray(np.where(voiced, pulses, 0), np.float32)


def _interpolated(pitch: Samples) -> Samples:
    """A value a frame, in its middle, to one a sample; constant before the first and behind the last."""
    middles = (np.arange(len(pitch)) + 0.5) * HOP - 0.5
    return np.asarray(np.interp(np.arange(len(pitch) * HOP), middles, pitch), np.float32)


def _stft(samples: Samples, frames: int) -> Spectrum:
    """[601, frames], each around its sample, mirrored at the ends."""
    padded = np.pad(samples, WINDOW // 2, mode="reflect")
    cut = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:frames]
    return np.asarray(np.fft.rfft(cut * _UNIT_HANN, axis=1).T, np.complex64, order="C")


def _inverse(spectrum: Spectrum) -> Samples:
    """The waveform whose STFT is nearest: frames are added where they overlap, weighted by their windows."""
    frames = spectrum.shape[1]
    pieces = np.asarray(np.fft.irfft(spectrum.T, WINDOW, axis=1), np.float32)
    pieces *= _HANN
    blocks = pieces.reshape(frames, _OVERLAP, HOP)
    added = np.zeros((frames + _OVERLAP - 1, HOP), np.float32)
    for place in range(_OVERLAP):
        added[place : place + frames] += blocks[:, place]
    added /= _windows(frames)
    return added.reshape(-1)[WINDOW // 2 : WINDOW // 2 + frames * HOP]


@lru_cache(maxsize=8)
def _windows(frames: int) -> Samples:
    squares = (_HANN * _HANN).reshape(_OVERLAP, HOP)
    added = np.zeros((frames + _OVERLAP - 1, HOP), np.float32)
    for place in range(_OVERLAP):
        added[place : place + frames] += squares[place]
    return np.maximum(added, np.float32(1e-11))


def _without_silence(samples: Samples) -> Samples:
    """The model begins and ends every phrase with 0.3 to 0.5 s of nothing."""
    frames = np.abs(samples[: len(samples) // _FRAME * _FRAME]).reshape(-1, _FRAME).max(axis=1, initial=0)
    loud = np.flatnonzero(frames > _QUIET)
    if not len(loud):
        return samples[:0]
    return samples[max(int(loud[0]) * _FRAME - _BEFORE, 0) : (int(loud[-1]) + 1) * _FRAME + _BEHIND]
