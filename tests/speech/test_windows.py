"""Windows: where a recording is cut, and that nothing of it is lost."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.windows import MAX_SECONDS, TAIL_SECONDS, windows
from tests.speech.voices import noise, silence


def blocks(samples: Samples, length: int) -> list[Samples]:
    return [samples[start : start + length] for start in range(0, len(samples), length)]


@settings(max_examples=12, deadline=None)
@given(seconds=st.floats(0.01, 100), block=st.floats(0.05, 70))
def test_every_sample_is_in_one_window_whatever_the_blocks(seconds: float, block: float) -> None:
    """Noise has nothing to trim: the windows are the recording, cut."""
    samples = noise(seconds)
    cut = list(windows(blocks(samples, max(int(block * SAMPLE_RATE), 1))))
    assert np.array_equal(np.concatenate([window.samples for window in cut]), samples)
    lengths = [len(window.samples) / SAMPLE_RATE for window in cut]
    assert max(lengths) <= MAX_SECONDS
    if len(cut) > 1:
        assert lengths[-1] >= TAIL_SECONDS - 0.02, "a single word is heard worse than a sentence"


@pytest.mark.parametrize("pause_at", [17.0, 20.5, 24.0, 27.0])
@pytest.mark.parametrize("background", [0.0, 0.01])
def test_a_window_ends_in_the_pause(pause_at: float, background: float) -> None:
    samples = noise(40, level=0.1)
    pause = slice(int(pause_at * SAMPLE_RATE), int((pause_at + 0.5) * SAMPLE_RATE))
    samples[pause] = noise(0.5, level=background)
    first, second = windows([samples])
    assert first.end <= pause_at + 0.35
    assert second.start >= pause_at + 0.15


def test_of_two_silent_pauses_the_longer_is_taken() -> None:
    samples = noise(40, level=0.1)
    for start, length in ((18.0, 0.4), (22.0, 0.9)):
        samples[int(start * SAMPLE_RATE) : int((start + length) * SAMPLE_RATE)] = 0
    _, second = windows([samples])
    assert 22.4 < second.start < 22.9


def test_silence_around_is_left_out_and_the_times_are_those_of_the_recording() -> None:
    samples = np.concatenate([silence(5), noise(3, level=0.1), silence(12)])
    (window,) = windows([samples])
    assert window.start == pytest.approx(5, abs=0.35)
    assert window.end == pytest.approx(8, abs=0.35)
    assert len(window.samples) < 4 * SAMPLE_RATE
    assert window.padded_seconds == 10


@pytest.mark.parametrize("samples", [silence(70), noise(70, level=2e-5)], ids=["digital", "the noise of 16 bits"])
def test_silence_gives_silent_windows(samples: Samples) -> None:
    cut = list(windows([samples]))
    assert len(cut) >= 3
    assert all(window.silent for window in cut)


def test_soft_words_beside_loud_ones_are_kept() -> None:
    """Forty decibels below the loudest, at the edge of a window."""
    samples = np.concatenate([silence(2), noise(1, level=0.002), silence(1), noise(3, level=0.2), silence(2)])
    (window,) = windows([samples])
    assert len(window.samples) >= 5 * SAMPLE_RATE


@pytest.mark.parametrize(("seconds", "padded"), [(0.2, 10), (8, 10), (8.1, 12), (17, 20), (22, 24), (28, 30)])
def test_two_seconds_of_silence_follow(seconds: float, padded: int) -> None:
    (window,) = windows([noise(seconds)])
    assert window.padded_seconds == padded


def test_windows_follow_each_other() -> None:
    cut = list(windows(blocks(noise(200), 30_000)))
    assert all(one.end <= other.start + 0.35 for one, other in pairwise(cut))
    assert cut[-1].end == pytest.approx(200, abs=0.35)


def test_nothing_gives_no_window() -> None:
    assert not list(windows([]))
    assert not list(windows([np.empty(0, np.float32)]))
