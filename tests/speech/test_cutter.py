"""Windows: where a recording is cut, and that nothing of it is lost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.cutter import GAP_SECONDS, MAX_SECONDS, TAIL_SECONDS, Block, Cutter
from ortmesh_speech.pieces import around, halves
from ortmesh_speech.window import Window
from tests.speech.voices import noise, silence

FRAME = 512
FRAME_SECONDS = FRAME / SAMPLE_RATE


def cut(
    speech: Sequence[float], samples: Samples | None = None, block: int = 128, longest: float = MAX_SECONDS
) -> list[Window]:
    """The windows of a recording whose frames have these probabilities of speech, given in blocks of frames."""
    cutter, windows = Cutter(FRAME, longest), []
    probabilities = np.asarray(speech, np.float32)
    heard = samples if samples is not None else numbered(len(probabilities))
    for first in range(0, len(probabilities), block):
        last = first + block
        windows += cutter.push(Block(heard[first * FRAME : last * FRAME], probabilities[first:last]))
    return windows + cutter.rest()


def numbered(frames: int) -> Samples:
    """Samples that say which frame they are of."""
    return np.repeat(np.arange(frames, dtype=np.float32), FRAME)


def frames(seconds: float) -> int:
    return round(seconds / FRAME_SECONDS)


def talk(*seconds: float) -> list[float]:
    """Speech and silence by turns, silence first."""
    return [float(turn % 2) for turn, each in enumerate(seconds) for _ in range(frames(each))]


@settings(max_examples=60)
@given(
    turns=st.lists(st.floats(0.1, 40), min_size=1, max_size=12),
    block=st.integers(1, 300),
    longest=st.sampled_from([14.0, 20.0, 28.0]),
)
def test_all_speech_is_in_one_window_whatever_the_blocks(turns: list[float], block: int, longest: float) -> None:
    speech = talk(0.5, *turns)
    windows = cut(speech, block=block, longest=longest)
    heard = [number for window in windows for number in window.samples[::FRAME].astype(int).tolist()]
    assert heard == sorted(set(heard)), "no frame comes twice"
    spoken = {number for number, probability in enumerate(speech) if probability}
    assert spoken <= set(heard)
    assert all(len(window.samples) <= (longest + FRAME_SECONDS) * SAMPLE_RATE for window in windows)


@settings(max_examples=30)
@given(turns=st.lists(st.floats(0.1, 40), min_size=1, max_size=8), block=st.integers(1, 300))
def test_blocks_do_not_matter(turns: list[float], block: int) -> None:
    speech = talk(0.5, *turns)
    times = [[window.speech for window in cut(speech, block=each)] for each in (block, 100_000)]
    assert times[0] == times[1]


def test_the_last_window_is_not_a_single_word() -> None:
    windows = cut(talk(0, MAX_SECONDS + 1), noise(22))
    assert len(windows) == 2
    assert len(windows[-1].samples) >= (TAIL_SECONDS - 0.1) * SAMPLE_RATE


@pytest.mark.parametrize("pause_at", [10.5, 13.5, 16.0, 19.0])
def test_a_window_ends_in_the_pause(pause_at: float) -> None:
    first, second = cut(talk(0, pause_at, 0.5, 15))
    assert first.end == pytest.approx(pause_at, abs=0.05)
    assert second.start == pytest.approx(pause_at + 0.5, abs=0.05)
    assert second.offset == pytest.approx(pause_at + 0.25, abs=0.05)


def test_of_two_pauses_the_longer_is_taken() -> None:
    _, second = cut(talk(0, 12, 0.9, 3, 0.4, 15))
    assert second.start == pytest.approx(12.9, abs=0.05)


@pytest.mark.parametrize("background", [0.0, 0.01])
def test_where_nobody_draws_breath_the_quietest_place_is_taken(background: float) -> None:
    samples = noise(28, level=0.1)
    samples[14 * SAMPLE_RATE : 14 * SAMPLE_RATE + 8000] = noise(0.5, level=background)
    first, second = cut([1.0] * 875, samples)
    assert first.end == second.start == pytest.approx(14.25, abs=0.15)


def test_silence_is_left_out_and_the_times_are_those_of_the_recording() -> None:
    (window,) = cut(talk(65, 3, 72))
    assert [window.start, window.end] == pytest.approx([65, 68], abs=0.05)
    assert window.offset == pytest.approx(64.6, abs=0.05)
    assert len(window.samples) == pytest.approx(3.8 * SAMPLE_RATE, rel=0.02)
    assert window.padded_seconds == 10


@pytest.mark.parametrize(("pause", "windows"), [(GAP_SECONDS - 0.1, 1), (GAP_SECONDS + 0.1, 2)])
def test_a_long_pause_ends_a_window(pause: float, windows: int) -> None:
    assert len(cut(talk(1, 2, pause, 2, 1))) == windows


def test_a_window_says_when_somebody_speaks_in_it() -> None:
    (window,) = cut(talk(1, 2, 0.5, 1, 0.05, 1, 3))
    assert [round(time, 1) for stretch in window.speech for time in stretch] == [1.0, 3.0, 3.5, 5.5]


def test_a_window_is_known_before_the_recording_ends() -> None:
    cutter = Cutter(FRAME)
    speech = talk(1, 4, GAP_SECONDS + 1)
    assert len(cutter.push(Block(numbered(len(speech)), np.asarray(speech, np.float32)))) == 1
    assert not cutter.rest()


@pytest.mark.parametrize("probability", [0.0, 0.3], ids=["silence", "music"])
def test_where_nobody_speaks_there_is_no_window(probability: float) -> None:
    assert not cut([probability] * 3000)


def test_a_click_is_no_speech() -> None:
    assert not cut([0.0] * 50 + [0.9, 0.9] + [0.0] * 200)


def test_hours_are_held_for_seconds() -> None:
    cutter = Cutter(FRAME)
    for number in range(1000):
        speech = np.full(128, float(number % 3 > 0), np.float32)
        cutter.push(Block(silence(128 * FRAME_SECONDS), speech))
        assert len(cutter._held) * FRAME <= 30 * SAMPLE_RATE


@pytest.mark.parametrize(("seconds", "padded"), [(0.2, 10), (7, 10), (8.1, 14), (12, 14), (15, 18), (20, 22)])
def test_two_seconds_of_silence_follow(seconds: float, padded: int) -> None:
    (window,) = cut(talk(0, seconds))
    assert window.padded_seconds == padded


def test_times_end_with_the_recording() -> None:
    """Its last frame is filled up with silence."""
    cutter = Cutter(FRAME)
    cutter.push(Block(numbered(100), np.ones(100, np.float32)))
    (window,) = cutter.rest(3.19)
    assert window.end == 3.19


def test_halves_are_cut_at_the_longest_pause_of_the_middle() -> None:
    (window,) = cut(talk(1, 1, 0.9, 4, 0.2, 2, 0.5, 4))
    first, second = halves(window)
    assert np.array_equal(np.concatenate([first.samples, second.samples]), window.samples)
    assert first.speech + second.speech == window.speech
    assert first.end == pytest.approx(9.1, abs=0.1)
    assert second.offset == pytest.approx(9.35, abs=0.1)


def test_speech_without_a_pause_has_no_halves() -> None:
    (window,) = cut(talk(1, 8, 1))
    assert halves(window) == [window]


def test_a_window_is_cut_around_stretches_of_it() -> None:
    (window,) = cut(talk(1, 2, 0.5, 3, 0.6, 2, 0.7, 4, 2))
    parts = around(window, window.speech[1:3])
    assert [part.speech for part in parts] == [(stretch,) for stretch in window.speech]
    assert np.array_equal(np.concatenate([part.samples for part in parts]), window.samples)
    assert around(window, []) == [window]
    assert len(around(window, window.speech[3:])) == 2


def test_windows_follow_each_other() -> None:
    windows = cut([1.0] * 6000, noise(192))
    assert all(one.end == other.start for one, other in pairwise(windows))
    assert windows[-1].end == pytest.approx(192)


def test_nothing_gives_no_window() -> None:
    assert not cut([])


def test_a_window_keeps_nothing_but_its_own_samples() -> None:
    """Some wait for a model when the recording has gone on."""
    windows = cut(talk(1, 30, 5, 2, 5, 30))
    assert len(windows) >= 4
    assert all(window.samples.base is None for window in windows)
