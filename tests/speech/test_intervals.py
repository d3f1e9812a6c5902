"""From probabilities to stretches: what begins, ends, is bridged, left out and padded."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortmesh_speech.intervals import PADDING_SECONDS, Interval, Rule, hysteresis, intervals

STEP = 0.1
"""Seconds a frame, so that frames can be counted."""
BARE = Rule(min_speech=0, min_silence=0)


def found(probabilities: list[float], rule: Rule = BARE, seconds: float | None = None) -> list[Interval]:
    """The intervals of frames of 100 ms."""
    return intervals(np.array(probabilities, np.float32), rule, STEP, seconds or STEP * len(probabilities))


def frames(found: list[Interval]) -> list[tuple[float, float]]:
    """(first, last) in frames, where the padding did not meet the recording's ends."""
    return [((each.start + PADDING_SECONDS) / STEP, (each.end - PADDING_SECONDS) / STEP) for each in found]


def test_speech_begins_at_the_threshold_and_ends_below_the_exit() -> None:
    assert frames(found([0, 0.49, 0.5, 0.36, 0.4, 0.34, 0.4, 0])) == [pytest.approx((2, 5))]


def test_what_never_reaches_the_threshold_is_no_speech() -> None:
    assert found([0.4] * 20) == []
    assert found([]) == []


def test_a_pause_that_is_too_short_is_bridged() -> None:
    probabilities = [0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 0]
    assert frames(found(probabilities, Rule(min_speech=0, min_silence=0.3))) == [
        pytest.approx((1, 6)),
        pytest.approx((9, 10)),
    ]


def test_short_stretches_are_left_out_after_short_pauses_were_bridged() -> None:
    probabilities = [0, 1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0]
    assert frames(found(probabilities, Rule(min_speech=0.3, min_silence=0.2))) == [pytest.approx((1, 5))]


def test_the_confidence_is_the_mean_of_the_frames() -> None:
    (one,) = found([0, 0.8, 0.2, 0.8, 0], Rule(min_speech=0, min_silence=0.2))
    assert one.confidence == pytest.approx(0.6)


def test_padding_stays_within_the_recording_and_half_a_pause() -> None:
    short = 0.04
    probabilities = np.array([1, 0, 1, 1], np.float32)
    one, other = intervals(probabilities, BARE, short, 4 * short)
    assert (one.start, other.end) == (0, pytest.approx(0.16))
    assert one.end == pytest.approx(other.start) == pytest.approx(0.06)


def test_a_last_frame_that_was_filled_up_ends_with_the_recording() -> None:
    (one,) = found([0, 1, 1], seconds=0.25)
    assert one.end == 0.25


def test_silence_ends_speech_even_with_the_lowest_threshold() -> None:
    """Silero says .009 to silence at most."""
    assert frames(found([0.009, 0.1, 0.009], Rule(threshold=0.1, min_speech=0, min_silence=0))) == [
        pytest.approx((1, 2))
    ]


@given(
    st.lists(st.floats(0, 1, width=32), max_size=60),
    st.floats(2**-6, 1, width=32),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_stretches_keep_order_and_rule(
    probabilities: list[float], threshold: float, min_speech: float, min_silence: float
) -> None:
    seconds = STEP * len(probabilities)
    made = found(probabilities, Rule(threshold, min_speech, min_silence))
    edges = [edge for each in made for edge in (each.start, each.end)]
    assert edges == sorted(edges)
    assert all(0 <= edge <= seconds for edge in edges)
    for each in made:
        assert each.end - each.start >= min_speech - 1e-6
        assert 0 <= each.confidence <= 1
    for one, other in pairwise(made):
        assert other.start - one.end >= max(min_silence - 2 * PADDING_SECONDS, 0) - 1e-6


@given(st.lists(st.floats(0, 1, width=32), max_size=60), st.floats(2**-6, 1, width=32))
def test_hysteresis_is_what_a_state_machine_does(probabilities: list[float], threshold: float) -> None:
    speaking, expected = False, []
    for probability in np.array(probabilities, np.float32):
        if probability >= threshold:
            speaking = True
        elif probability < np.float32(max(threshold - 0.15, 0.01)):
            speaking = False
        expected.append(speaking)
    assert hysteresis(np.array(probabilities, np.float32), threshold).tolist() == expected
