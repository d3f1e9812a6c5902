"""What an encoder of voices hears: the numbers of Resemblyzer 0.1.4 with librosa 0.11."""

from __future__ import annotations

import numpy as np
import pytest

from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.voice_mel import FRAMES, MELS, at_level, partials, voice_mel, window_starts
from tests.speech.voices import noise, silence


def tone(hertz: float, seconds: float = 1, height: float = 0.1) -> Samples:
    return (height * np.sin(2 * np.pi * hertz * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


def test_powers_are_those_of_librosa() -> None:
    """`librosa.feature.melspectrogram(y=tone, sr=16000, n_fft=400, hop_length=160, n_mels=40)`."""
    spectrum = voice_mel(tone(1000))
    assert spectrum.shape == (101, MELS)
    assert spectrum.dtype == np.float32
    assert spectrum[50].argmax() == 13
    assert spectrum[50, 13:15] == pytest.approx([1.0451998, 0.031285379], rel=1e-5)
    assert spectrum[0].max() == pytest.approx(0.40138578, rel=1e-5)


@pytest.mark.parametrize(
    ("length", "starts"),
    [
        (1, [0]),
        (25_600, [0]),
        (30_000, [0]),
        (36_000, [0, 77]),
        (60_000, [0, 77, 154, 231]),
        (71_600, [0, 77, 154, 231, 308]),
        (160_000, list(range(0, 848, 77))),
    ],
)
def test_windows_begin_where_resemblyzers_do(length: int, starts: list[int]) -> None:
    """As its `compute_partial_slices(length, rate=1.3, min_coverage=0.75)` says."""
    assert window_starts(length) == starts


@pytest.mark.parametrize("seconds", [0.02, 0.5, 1.6, 3.1, 10, 40])
def test_windows_are_cut_from_the_whole_spectrum(seconds: float) -> None:
    """What reaches beyond the end is silence."""
    samples = noise(seconds, level=0.1)
    starts = window_starts(len(samples))
    windows = list(partials(samples))
    assert all(len(several) <= 16 for several in windows)
    whole = voice_mel(np.pad(samples, (0, 2 * FRAMES * 160)))
    expected = np.stack([whole[start : start + FRAMES] for start in starts])
    np.testing.assert_allclose(np.concatenate(windows), expected, rtol=1e-4, atol=1e-6)


def test_soft_speech_is_raised_and_loud_speech_is_not_lowered() -> None:
    soft, loud = noise(2, level=0.001), noise(2, level=0.1)
    assert np.sqrt(np.mean(at_level(soft) ** 2)) == pytest.approx(10 ** (-30 / 20), rel=1e-3)
    np.testing.assert_array_equal(at_level(loud), loud)


def test_what_is_louder_is_brought_down_to_full_scale() -> None:
    np.testing.assert_allclose(at_level(tone(300, height=16)), tone(300, height=1), atol=1e-3)


def test_silence_stays_silence() -> None:
    assert not at_level(silence(1)).any()
    assert len(at_level(silence(0))) == 0
