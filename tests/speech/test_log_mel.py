"""Log-mel spectrograms: numbers that a recognizer was trained on."""

from __future__ import annotations

import numpy as np
import pytest

from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.log_mel import log_mel
from tests.speech.voices import noise, silence


def tone(hertz: float, seconds: float = 2, height: float = 0.5) -> Samples:
    return (height * np.sin(2 * np.pi * hertz * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


def test_shape_and_silence() -> None:
    spectrogram = log_mel(silence(1), 10)
    assert spectrogram.shape == (1, 80, 1000)
    assert spectrogram.dtype == np.float32
    assert np.allclose(spectrogram, -1.5)
    assert log_mel(silence(1), 10, mels=128).shape == (1, 128, 1000)


@pytest.mark.parametrize(("hertz", "band"), [(200, 4), (1000, 26), (2000, 43), (4000, 62), (7000, 77)])
def test_a_tone_lies_in_its_band(hertz: float, band: int) -> None:
    """Centres by Slaney's scale: band + 1 is 81 × mel(hertz) / mel(8 kHz), with mel(1 kHz) = 15."""
    assert int(log_mel(tone(hertz), 2)[0, :, 100].argmax()) == pytest.approx(band, abs=1)


def test_eight_powers_of_ten_are_told_apart() -> None:
    spectrogram = log_mel(noise(2, level=0.1), 10)
    assert spectrogram.max() - spectrogram.min() == pytest.approx(2.0, abs=1e-5)


def test_ten_times_the_amplitude_is_two_powers_of_ten() -> None:
    loud, soft = (log_mel(tone(1000, height=height), 2) for height in (0.5, 0.05))
    assert loud.max() - soft.max() == pytest.approx(2 / 4, abs=1e-4)


def test_what_is_louder_is_brought_down_to_full_scale() -> None:
    assert np.allclose(log_mel(tone(1000, height=16), 2), log_mel(tone(1000, height=1.0), 2), atol=1e-3)


def test_what_is_longer_is_cut() -> None:
    samples = noise(4)
    assert np.allclose(log_mel(samples, 2)[:, :, :190], log_mel(samples[: 2 * SAMPLE_RATE], 2)[:, :, :190])
