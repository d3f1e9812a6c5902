"""What a recognizer may be asked for, and how a wrong option is named."""

from __future__ import annotations

import math

import pytest

from ortmesh.errors import BadInput
from ortmesh.speech.v1.speech_pb2 import Diarization, RecognitionOptions
from ortmesh.speech.v1.speech_pb2 import Phrase as GivenPhrase
from ortmesh_speech.options import Options, Phrase, Speakers, check_alternatives, options_of


def test_nothing_is_asked_for_by_default() -> None:
    assert options_of(RecognitionOptions()) == Options()


def test_everything_that_is_asked_for_is_there() -> None:
    given = RecognitionOptions(
        language="de",
        word_times=True,
        max_alternatives=2,
        phrases=[GivenPhrase(text=" Kowalski "), GivenPhrase(text="ortmesh", boost=4)],
        initial_prompt="A talk.",
        diarization=Diarization(min_speakers=2, max_speakers=3),
    )
    phrases = (Phrase("Kowalski", 2.0), Phrase("ortmesh", 4.0))
    assert options_of(given) == Options("de", True, 2, phrases, "A talk.", Speakers(2, 3))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Diarization(), Speakers(1, 8)),
        (Diarization(min_speakers=12), Speakers(12, 12)),
        (Diarization(max_speakers=2), Speakers(1, 2)),
        (Diarization(max_speakers=20), Speakers(1, 20)),
    ],
)
def test_bounds_of_speakers_have_defaults(given: Diarization, expected: Speakers) -> None:
    assert options_of(RecognitionOptions(diarization=given)).speakers == expected


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (RecognitionOptions(max_alternatives=8), "max_alternatives"),
        (RecognitionOptions(max_alternatives=-1), "max_alternatives"),
        (RecognitionOptions(phrases=[GivenPhrase(text="a")] * 101), "phrases"),
        (RecognitionOptions(phrases=[*[GivenPhrase(text="a")] * 3, GivenPhrase()]), "phrases[3].text"),
        (RecognitionOptions(phrases=[GivenPhrase(text=" \t")]), "phrases[0].text"),
        (RecognitionOptions(phrases=[GivenPhrase(text="a" * 101)]), "phrases[0].text"),
        (RecognitionOptions(phrases=[GivenPhrase(text="a"), GivenPhrase(text="b", boost=-1)]), "phrases[1].boost"),
        (RecognitionOptions(phrases=[GivenPhrase(text="a", boost=10.1)]), "phrases[0].boost"),
        (RecognitionOptions(phrases=[GivenPhrase(text="a", boost=math.nan)]), "phrases[0].boost"),
        (RecognitionOptions(initial_prompt="a" * 2001), "initial_prompt"),
        (RecognitionOptions(diarization=Diarization(min_speakers=-1)), "diarization.min_speakers"),
        (RecognitionOptions(diarization=Diarization(max_speakers=21)), "diarization.max_speakers"),
        (RecognitionOptions(diarization=Diarization(min_speakers=3, max_speakers=2)), "diarization.min_speakers"),
    ],
)
def test_a_wrong_option_is_named(given: RecognitionOptions, field: str) -> None:
    with pytest.raises(BadInput) as caught:
        options_of(given, "config.options")
    assert caught.value.violations[0].field == f"config.options.{field}"


def test_alternatives_are_fewer_than_the_hypotheses() -> None:
    check_alternatives(4, 5)
    with pytest.raises(BadInput, match=r"options\.max_alternatives: 5: expected fewer than the 5 hypotheses"):
        check_alternatives(5, 5)
