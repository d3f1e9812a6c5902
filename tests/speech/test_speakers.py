"""Who speaks: voices that are alike are one, and a segment has one speaker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortmesh.serving.types import Array
from ortmesh_speech.options import Speakers
from ortmesh_speech.speakers import MAX_CLUSTERED, Look, Timeline, prepare, split, voices_of
from ortmesh_speech.transcript import Transcript
from ortmesh_speech.window import Window
from ortmesh_speech.words import TimedWord
from tests.speech.test_clusters import around
from tests.speech.voices import noise

ANYBODY = Speakers(1, 8)


def looks(vectors: Array) -> list[Look]:
    """At one utterance, one each half second."""
    return [Look(0.5 * place, (0.0, 0.5 * len(vectors)), vector) for place, vector in enumerate(vectors)]


def said(text: str, *, spaces: bool = True) -> Transcript:
    """Each word takes half a second."""
    texts = text.split() if spaces else list(text)
    words = tuple(TimedWord(word, place / 2, place / 2 + 0.4, (-0.1 * place,)) for place, word in enumerate(texts))
    return Transcript(text, 0.9, 0.0, len(words) / 2, "en", words, (("other", 0.5),))


def parts(whole: Transcript, voices: Sequence[int]) -> list[tuple[str, int]]:
    return [(part.text, voice) for part, voice in split(whole, voices)]


def test_a_window_is_split_where_the_voice_changes() -> None:
    first, second, third = split(said("Are you there? Yes, I am. Good."), [1, 1, 1, 0, 0, 0, 1])
    assert (first[0].text, second[0].text, third[0].text) == ("Are you there?", "Yes, I am.", "Good.")
    assert [voice for _, voice in (first, second, third)] == [1, 0, 1]
    assert (first[0].start, first[0].end) == (0.0, 1.4)
    assert (second[0].start, second[0].end) == (1.5, 2.9)
    assert (third[0].start, third[0].end) == (3.0, 3.5)
    assert [word.text for word in second[0].words] == ["Yes,", "I", "am."]
    assert second[0].confidence == pytest.approx(np.exp(-0.4))
    assert not first[0].alternatives, "they are transcripts of the whole"


def test_of_one_voice_a_window_stays_whole() -> None:
    whole = said("Yes, I am.")
    assert split(whole, [2, 2, 2]) == [(whole, 2)]
    assert split(said(""), []) == [(said(""), 0)]


def test_text_without_spaces_is_split_without() -> None:
    assert parts(said("今日はい", spaces=False), [0, 0, 1, 1]) == [("今日", 0), ("はい", 1)]


def test_a_word_has_the_voice_of_the_nearest_look() -> None:
    seen = looks(around(0, 1, each=4))
    voices = voices_of(seen, ANYBODY)
    timeline = Timeline(seen, voices)
    assert timeline.voice(TimedWord("early", 0.0, 0.4, ())) == voices[0]
    assert timeline.voice(TimedWord("late", 2.1, 2.4, ())) == voices[-1] != voices[0]


def test_looks_of_the_same_utterance_count_first() -> None:
    one, other = around(0, 1, each=1)
    seen = [Look(1.0, (0.0, 2.0), one), Look(2.4, (2.3, 2.5), other)]
    assert Timeline(seen, np.array([0, 1])).voice(TimedWord("last", 1.8, 2.0, ())) == 0


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), max_size=4), st.integers(0, 100))
def test_the_nearest_look_is_the_one_that_a_walk_through_all_finds(utterances: list[list[int]], moment: int) -> None:
    """Times are multiples of a half, so that some are as near as others: then the earlier one counts."""
    seen: list[Look] = []
    begin = 1.0
    for steps in utterances:
        end = begin + sum(steps) / 2
        times = begin + np.cumsum(steps[:-1]) / 2 if len(steps) > 1 else [(begin + end) / 2]
        seen += [Look(float(time), (begin, end), np.zeros(1, np.float32)) for time in times]
        begin = end + 1

    def distance(place: int) -> tuple[bool, float]:
        start, end = seen[place].utterance
        return not start <= moment / 4 <= end, abs(seen[place].time - moment / 4)

    nearest = min(range(len(seen)), key=distance, default=0)
    assert Timeline(seen, np.arange(len(seen))).voice(TimedWord("word", moment / 4, moment / 4, ())) == nearest


def test_an_hour_of_words_is_not_compared_with_an_hour_of_looks() -> None:
    """Each look is read a few times, not once for each of the words."""
    reads = 0

    class Watched(Look):
        def __getattribute__(self, name: str) -> Any:
            nonlocal reads
            reads += name in ("time", "utterance")
            return super().__getattribute__(name)

    seen = [Watched(place / 2, (place // 10 * 5, place // 10 * 5 + 4.9), np.zeros(1)) for place in range(7200)]
    timeline = Timeline(seen, np.arange(len(seen)) // 10)
    spoken = [timeline.voice(TimedWord("word", place / 2, place / 2, ())) for place in range(len(seen))]
    assert spoken == [place // 10 for place in range(len(seen))]
    assert reads <= 4 * len(seen)


@pytest.mark.parametrize(("least", "most", "expected"), [(1, 8, 3), (1, 2, 2), (4, 8, 4)])
def test_as_many_voices_as_there_are_within_the_bounds(least: int, most: int, expected: int) -> None:
    assert len(set(voices_of(looks(around(0, 1, 2)), Speakers(least, most)).tolist())) == expected


def test_a_stray_sound_is_no_voice() -> None:
    vectors = np.concatenate([around(0, 1, each=20), around(2, each=1)])
    assert len(set(voices_of(looks(vectors), ANYBODY).tolist())) == 2


def test_hours_are_grouped_first() -> None:
    vectors = around(*([0, 1] * 12), each=100 * MAX_CLUSTERED // 800)
    assert len(vectors) > MAX_CLUSTERED
    voices = voices_of(looks(vectors), ANYBODY)
    expected = np.repeat([0, 1] * 12, len(vectors) // 24)
    assert np.mean((voices == voices[0]) == (expected == 0)) > 0.99


def test_without_a_look_everybody_is_one() -> None:
    assert Timeline([], voices_of([], ANYBODY)).voice(TimedWord("hm", 0, 0.2, ())) == 0


def test_looks_are_half_a_second_apart_and_within_their_utterance() -> None:
    samples = noise(12, level=0.1)
    window = Window(samples, offset=100.0, speech=((100.4, 104.4), (104.5, 106.4), (108.0, 109.0), (111.0, 111.3)))
    long, short = prepare(window, 160, 40)
    assert long.mels.shape == (len(long.times), 160, 40)
    assert long.times[0] == pytest.approx(101.2, abs=0.02)
    assert np.diff(long.times[:-1]) == pytest.approx(0.5)
    assert long.times[-1] == pytest.approx(105.6, abs=0.02)
    assert long.utterance == (100.4, 106.4)
    assert short.mels.shape == (1, 101, 40)
    assert short.times[0] == pytest.approx(108.5, abs=0.02)
