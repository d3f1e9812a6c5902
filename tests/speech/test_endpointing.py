"""Endpointing while the audio comes: the stretches of the rule on the whole, told as soon as they are certain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortmesh_speech.audio import Samples
from ortmesh_speech.endpointing import Endpointer, Event, Started
from ortmesh_speech.intervals import Interval, Rule, intervals

FRAME = 0.032
bounds = st.sampled_from([0.0, 0.01, 0.032, 0.05, 0.064, 0.1, 0.25, 0.5, 2.0])
probabilities = st.lists(
    st.tuples(st.sampled_from([0.0, 0.005, 0.2, 0.34, 0.35, 0.4, 0.5, 0.6, 1.0]), st.integers(1, 12)), max_size=40
).map(lambda runs: np.array([level for level, frames in runs for _ in range(frames)], np.float32))


def events_of(speech: Samples, rule: Rule, places: list[int], seconds: float) -> list[Event]:
    endpointer = Endpointer(rule, FRAME)
    *pieces, last = np.split(speech, sorted(place % (len(speech) + 1) for place in places))
    events = [event for piece in pieces for event in endpointer.push(piece)]
    return events + endpointer.push(last[:-1]) + endpointer.rest(last[-1:], seconds)


@settings(max_examples=400, deadline=None)
@given(
    probabilities,
    st.builds(
        Rule, threshold=st.sampled_from([0.005, 0.1, 0.35, 0.5, 0.6, 1.0]), min_speech=bounds, min_silence=bounds
    ),
    st.lists(st.integers(0, 10**6), max_size=10),
    st.floats(0.001, 1),
)
def test_however_frames_come_the_stretches_are_those_of_the_whole(
    speech: Samples, rule: Rule, places: list[int], part: float
) -> None:
    seconds = max(len(speech) - 1 + part, 0) * FRAME if len(speech) else 0.0
    events = events_of(speech, rule, places, seconds)
    told = [event for event in events if isinstance(event, Interval)]
    expected = intervals(speech, rule, FRAME, seconds)
    assert [each.start for each in told] == pytest.approx([each.start for each in expected])
    assert [each.end for each in told] == pytest.approx([each.end for each in expected])
    assert [each.confidence for each in told] == pytest.approx([each.confidence for each in expected], abs=1e-5)
    assert [event.start for event in events if isinstance(event, Started)] == [each.start for each in told]
    kinds = [type(event) for event in events]
    assert kinds == [Started, Interval] * (len(kinds) // 2)


def test_a_start_is_told_once_it_has_lasted_long_enough() -> None:
    endpointer = Endpointer(Rule(min_speech=0.25), FRAME)
    assert endpointer.push(np.array([0] * 10 + [1] * 7, np.float32)) == []
    (event,) = endpointer.push(np.array([1], np.float32))
    assert isinstance(event, Started)
    assert event.start == pytest.approx(0.29)
    assert endpointer.push(np.ones(1000, np.float32)) == []


def test_an_end_is_told_once_the_silence_has_lasted_long_enough() -> None:
    endpointer = Endpointer(Rule(min_silence=0.5), FRAME)
    assert len(endpointer.push(np.ones(20, np.float32))) == 1
    assert endpointer.push(np.zeros(15, np.float32)) == []
    (event,) = endpointer.push(np.zeros(1, np.float32))
    assert isinstance(event, Interval)
    assert (event.start, event.end, event.confidence) == pytest.approx((0, 20 * FRAME + 0.03, 1))


def test_speech_that_the_audio_ends_in_ends_with_it() -> None:
    endpointer = Endpointer(Rule(), FRAME)
    endpointer.push(np.ones(20, np.float32))
    (event,) = endpointer.rest(np.ones(1, np.float32), 20.5 * FRAME)
    assert isinstance(event, Interval)
    assert (event.start, event.end, event.confidence) == pytest.approx((0, 20.5 * FRAME, 1))


def test_hours_of_speech_and_of_silence_are_held_in_a_few_numbers() -> None:
    endpointer = Endpointer(Rule(), FRAME)
    for level in (1.0, 0.0, 1.0):
        for _ in range(100):
            endpointer.push(np.full(128, level, np.float32))
    assert all(not hasattr(value, "__len__") for value in vars(endpointer).values())
