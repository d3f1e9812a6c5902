"""Spectra to waveforms."""

from __future__ import annotations

import numpy as np
import pytest
from hibari import dsp

from ortmesh_speech import vocoder
from ortmesh_speech.audio import Samples
from ortmesh_speech.vocoder import BINS, HOP, PARTS, SAMPLE_RATE, waveform

FRAMES = 80
SILENT = 20
"""Frames at each end."""


@pytest.fixture
def parts() -> dict[str, Samples]:
    """As a voice gives them: harmonics above noise, a pitch with an unvoiced stretch, silence at both ends."""
    random = np.random.default_rng(3)
    made = {name: random.normal(0, 1, (1, BINS, FRAMES)).astype(np.float32) for name in PARTS}
    for name, level in (("harmonic", -3), ("noise", -5), ("residual", -6)):
        made[name] += np.float32(level)
        made[name][:, :, :SILENT] = made[name][:, :, -SILENT:] = -20
    made["pitch"] = np.linspace(120, 260, FRAMES, dtype=np.float32)[None]
    made["pitch"][0, 35:40] = 0
    return made


def test_it_is_what_the_voice_was_published_with(parts: dict[str, Samples], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocoder, "_without_silence", lambda samples: samples)
    ordered = [parts[name][0] for name in (*PARTS, "pitch")]
    expected = dsp.synth(*ordered, np.random.default_rng((1, 2)))
    assert np.abs(waveform(parts, (1, 2)) - np.clip(expected, -1, 1)).max() < 1e-4


def test_the_same_seed_gives_the_same_samples_and_another_gives_others(parts: dict[str, Samples]) -> None:
    first, again, other = waveform(parts, (1, 2)), waveform(parts, (1, 2)), waveform(parts, (1, 3))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other[: len(first)])


def test_silence_is_cut_off_both_ends(parts: dict[str, Samples]) -> None:
    assert len(waveform(parts, (1,))) < (FRAMES - SILENT) * HOP
    for name in ("harmonic", "noise", "residual"):
        parts[name][:] = -20
    assert len(waveform(parts, (1,))) == 0


def test_nothing_leaves_full_scale(parts: dict[str, Samples]) -> None:
    parts["harmonic"][:, :, 30:50] = 9
    loud = waveform(parts, (1,))
    assert np.abs(loud).max() == 1
    assert np.isfinite(loud).all()
    assert loud.dtype == np.float32


def test_a_pause_is_as_long_as_it_says() -> None:
    assert len(vocoder.silence(0.25)) == SAMPLE_RATE // 4
