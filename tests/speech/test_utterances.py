"""Utterances of a stream: where they begin and end, however the frames come, and how little of them is held."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.utterances import Begun, Event, Utterances
from ortmesh_speech.window import Window

FRAME = 512
SECONDS = FRAME / SAMPLE_RATE


def frames(*runs: tuple[float, float]) -> Samples:
    """Probabilities: (level, seconds) after each other."""
    return np.concatenate([np.full(round(seconds / SECONDS), level, np.float32) for level, seconds in runs])


def said(speech: Samples, places: list[int], end_silence: float = 0.5, longest: float = 25.0) -> list[Event]:
    """Events of a stream whose every sample tells where it stands."""
    utterances, events = Utterances(FRAME, end_silence, longest), []
    samples = np.arange(len(speech) * FRAME, dtype=np.float32)
    edges = [0, *sorted(place % (len(speech) + 1) for place in places), len(speech)]
    for begin, end in pairwise(edges):
        events += utterances.push(samples[begin * FRAME : end * FRAME], speech[begin:end])
        assert len(utterances._held) * FRAME <= (longest + 3) * SAMPLE_RATE + (end - begin) * FRAME
    return events + utterances.rest(len(samples) / SAMPLE_RATE)


def windows(events: list[Event]) -> list[Window]:
    return [event for event in events if isinstance(event, Window)]


runs = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]), st.sampled_from([0.032, 0.1, 0.3, 0.6, 1.0, 3.0])),
    max_size=40,
).map(lambda made: frames(*made) if made else np.empty(0, np.float32))


@settings(max_examples=150, deadline=None)
@given(runs, st.lists(st.integers(0, 10**6), max_size=20), st.sampled_from([0.1, 0.5, 2.0]))
def test_however_frames_come_the_utterances_are_the_same(speech: Samples, places: list[int], silence: float) -> None:
    whole = windows(said(speech, [], silence))
    pieces = windows(said(speech, places, silence))
    assert [(each.start, each.end) for each in pieces] == [(each.start, each.end) for each in whole]


def test_what_follows_an_utterance_closely_is_not_cut_off() -> None:
    """After a silence shorter than what is kept around speech."""
    speech = frames((0, 1), (1, 0.3), (0, 0.2), (1, 1))
    first, second = windows(said(speech, [], end_silence=0.1))
    assert (second.start - first.end) / SECONDS == pytest.approx(round(0.2 / SECONDS))
    assert second.offset >= first.offset + len(first.samples) / SAMPLE_RATE


@settings(max_examples=150, deadline=None)
@given(runs, st.lists(st.integers(0, 10**6), max_size=20), st.sampled_from([3.0, 25.0]))
def test_no_speech_is_lost_or_heard_twice(speech: Samples, places: list[int], longest: float) -> None:
    found = windows(said(speech, places, longest=longest))
    for one, other in pairwise(found):
        assert one.samples[-1] < other.samples[0]
    heard = {int(sample) // FRAME for each in found for sample in each.samples[::FRAME]}
    loud = np.flatnonzero(speech >= 0.5)
    long = [frame for frame in loud if all(near in loud for near in range(frame - 1, frame + 2))]
    assert heard >= {int(frame) for frame in long}
    assert all(len(each.samples) <= (longest + 1) * SAMPLE_RATE for each in found)
    assert all(each.samples[0] == round(each.offset * SAMPLE_RATE) for each in found)


def test_a_silence_of_the_asked_length_ends_an_utterance_at_once() -> None:
    utterances = Utterances(FRAME, 0.5)
    speech = frames((0, 1), (1, 2), (0, 0.48))
    (begun,) = utterances.push(np.zeros(len(speech) * FRAME, np.float32), speech)
    assert isinstance(begun, Begun)
    assert begun.start == pytest.approx(1, abs=SECONDS)
    assert utterances.open is not None
    assert utterances.open.silence == pytest.approx(0.48, abs=SECONDS)
    (window,) = utterances.push(np.zeros(FRAME, np.float32), frames((0, SECONDS)))
    assert isinstance(window, Window)
    assert window.start == begun.start
    assert window.end == pytest.approx(3, abs=SECONDS)
    assert utterances.open is None


def test_who_speaks_for_long_is_cut_in_the_longest_pause() -> None:
    events = said(frames((0, 1), (1, 10), (0, 0.2), (1, 6), (0, 0.4), (1, 4), (0, 0.3), (1, 30)), [50, 100, 500, 900])
    assert [type(event) for event in events][:3] == [Begun, Window, Window]
    assert sum(isinstance(event, Begun) for event in events) == 1, "it is one person who goes on"
    first = windows(events)[0]
    assert first.end == pytest.approx(17.2, abs=0.1)
    assert all(one.end - one.start <= 25.1 for one in windows(events))


def test_clicks_are_no_speech() -> None:
    assert said(frames((0, 1), (1, 0.032), (0, 1), (1, 0.064), (0, 1)), [40]) == []


def test_the_end_of_the_audio_ends_what_is_said() -> None:
    utterances = Utterances(FRAME, 0.5)
    utterances.push(np.zeros(40 * FRAME, np.float32), np.ones(40, np.float32))
    (window,) = utterances.rest(39.5 * SECONDS)
    assert isinstance(window, Window)
    assert window.end == 39.5 * SECONDS


def test_hours_of_silence_hold_a_second() -> None:
    utterances = Utterances(FRAME, 0.5)
    for _ in range(200):
        assert utterances.push(np.zeros(128 * FRAME, np.float32), np.zeros(128, np.float32)) == []
    assert len(utterances._held) * FRAME <= 1.1 * SAMPLE_RATE
    assert utterances.latest(2 * SAMPLE_RATE).shape == (2 * SAMPLE_RATE,)


def test_an_utterance_keeps_nothing_but_its_own_samples() -> None:
    utterances = Utterances(FRAME, 0.5)
    speech = frames((0, 1), (1, 2), (0, 1), (1, 1))
    events = windows(utterances.push(np.zeros(len(speech) * FRAME, np.float32), speech))
    assert utterances.open is not None
    assert [window.samples.base for window in (*events, utterances.open.window)] == [None, None]


def test_of_the_silence_before_somebody_speaks_a_second_is_held() -> None:
    """Also where both come in one block, and until the utterance has ended."""
    utterances = Utterances(FRAME, 0.5)
    speech = frames((0, 8), (1, 2))
    (begun,) = utterances.push(np.arange(len(speech) * FRAME, dtype=np.float32), speech)
    assert isinstance(begun, Begun)
    assert len(utterances._held) * FRAME <= 3.1 * SAMPLE_RATE
    assert utterances.open is not None
    assert (utterances.open.window.start, utterances.open.window.end) == (begun.start, len(speech) * SECONDS)
    assert utterances.open.window.samples[0] == utterances.open.window.offset * SAMPLE_RATE
