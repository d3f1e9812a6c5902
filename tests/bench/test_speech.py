"""The bench of speech: its words, its sounds, its corpus on a small part, and what it makes of answers."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bench.speech import sounds
from bench.speech.__main__ import write
from bench.speech.chance import difference
from bench.speech.contest import contest
from bench.speech.contestants import Heard
from bench.speech.corpus import CONDITIONS, Recording, dialogues, sentences, talk, utterances, wordless
from bench.speech.sounds import RATE, Samples
from bench.speech.stream import Answers, Final, Interim
from bench.speech.voices import HIBARI, say
from bench.speech.words import Errors, errors, total

TEXTS = ("One fish.", "Two birds.", "Three dogs.", "Four cats.", "Five cows.", "Six rats.", "Seven hens.")


def speak(text: str, voice: str) -> Samples:
    """Hibari in place of all voices: the others are Debian's."""
    return say(text, HIBARI)


@pytest.mark.parametrize(
    ("said", "heard", "wrong", "words"),
    [
        ("Mr. Holmes paid twenty-one pounds.", "mister holmes paid 21 pounds", 0, 4),
        ("What a colour!", "what a color", 0, 3),
        ("the cat sat on the mat", "the cat sat on mat today", 2, 6),
        ("good morning", "", 2, 2),
        ("", "thank you", 2, 0),
    ],
)
def test_words_are_compared_as_the_papers_on_whisper_do(said: str, heard: str, wrong: int, words: int) -> None:
    """Case, punctuation, the spelling of numbers and of British English are no errors; lost and added words are."""
    assert errors(said, heard) == Errors(wrong, words)


def test_word_errors_of_many_texts_are_those_of_all_their_words() -> None:
    """A long text counts for more than a short one."""
    assert total([Errors(1, 2), Errors(0, 8)]).rate == 0.1


def test_a_difference_in_every_recording_is_no_chance() -> None:
    theirs = [Errors(2, 10)] * 20
    assert difference(theirs, [Errors(1, 10)] * 20) == pytest.approx((-0.1, -0.1, -0.1))


def test_a_difference_in_one_recording_may_be_chance() -> None:
    theirs, ours = [Errors(1, 10)] * 20, [Errors(6, 10), *[Errors(1, 10)] * 19]
    found = difference(theirs, ours)
    assert found.rate == pytest.approx(0.025)
    assert found.least == 0 < found.rate < found.most


def test_noise_is_so_much_quieter_than_the_speech() -> None:
    """Ten decibels are a third of the amplitude."""
    speech = sounds.at_level(sounds.pink(2 * RATE, 1))
    heard = sounds.with_noise(speech, sounds.white(len(speech), 2), 10)
    assert sounds.level(heard - speech) / sounds.level(speech) == pytest.approx(10 ** (-10 / 20), rel=0.03)


def test_an_echo_has_died_away_after_half_a_second() -> None:
    """60 dB within 0.5 s, and neither louder nor longer than the speech and its tail."""
    click = sounds.silence(1)
    click[0] = 0.5
    heard = sounds.with_echo(click, 3)
    early, late = (float((heard[start : start + RATE // 20] ** 2).mean()) for start in (RATE // 100, RATE * 44 // 100))
    assert 40 < 10 * np.log10(early / late) < 60
    assert np.abs(heard[RATE // 2 :]).max() < 1e-4


def test_utterances_are_said_in_every_condition_and_always_in_the_same_way(tmp_path: Path) -> None:
    """Files of 16 bits at 16 kHz; the same texts make the same bytes."""
    made = list(utterances(_folder(tmp_path, "a"), TEXTS, speak))
    again = list(utterances(_folder(tmp_path, "b"), TEXTS, speak))
    assert [each.condition for each in made] == [*CONDITIONS] * len(TEXTS)
    assert [Path(one.path).read_bytes() for one in made] == [Path(other.path).read_bytes() for other in again]
    assert soundfile.info(made[0].path).samplerate == RATE
    assert len({each.voice for each in made}) == 3


def test_a_talk_ends_with_the_sentence_that_reaches_its_length() -> None:
    """Its text is what was said, sentence by sentence, by one voice after another."""
    paragraphs = ["One fish. Two birds; three dogs.", "Mr. Five has cows. Six rats."]
    samples, text = talk(paragraphs, 3.0, ("a", "b"), speak)
    assert len(samples) >= 3 * RATE
    assert " ".join(paragraphs).startswith(text)


def test_sentences_end_at_points_but_not_after_mister() -> None:
    """A breath is taken at a semicolon too."""
    assert sentences("Mr. Bennet made no answer. Is he single? Oh, single; to be sure!") == [
        "Mr. Bennet made no answer.",
        "Is he single?",
        "Oh, single;",
        "to be sure!",
    ]


def test_a_dialogue_says_when_each_utterance_begins_and_ends(tmp_path: Path) -> None:
    """Between them nobody speaks; half of the dialogues are the same in noise."""
    texts = ["The small pup gnawed a hole in the old brown sock this morning."] * 4
    made = list(dialogues(tmp_path, texts, speak))
    assert [each.condition for each in made] == ["clean"] * 4 + ["pink noise at 10 dB"] * 4
    samples, _ = soundfile.read(made[0].path, dtype="float32")
    for begin, end in made[0].ends:
        assert sounds.level(samples[round(begin * RATE) : round(end * RATE)]) > 0.03
        assert np.abs(samples[round((end + 0.1) * RATE) : round((end + 0.8) * RATE)]).max() < 0.01


def test_what_has_no_words_is_as_long_as_it_says(tmp_path: Path) -> None:
    """Silence, noise, hum and music."""
    made = list(wordless(tmp_path))
    assert all(each.seconds == 30 and not each.text for each in made)


class Parrot:
    """A contestant that has heard it all before."""

    pid = os.getpid()

    def __init__(self, name: str, texts: dict[str, str]) -> None:
        self.name = name
        self._texts = texts

    def hear(self, paths: Sequence[str]) -> list[Heard]:
        """The texts that it was given."""
        return [Heard(self._texts[path], 0.5) for path in paths]


def test_contestants_take_turns_and_are_counted_by_condition(tmp_path: Path) -> None:
    """Each hears every file once; the record has what everyone heard."""
    said = "good morning"
    recordings = [Recording(name, said, 2.0, condition) for name, condition in (("a", "clean"), ("b", "echo"))]
    right, wrong = Parrot("right", {"a": said, "b": said}), Parrot("wrong", {"a": said, "b": "good"})
    results = contest([right, wrong], recordings, tmp_path / "record.jsonl", lambda line: None, size=1)
    assert [(each.name, each.rate("clean"), each.rate("echo"), each.rate()) for each in results] == [
        ("right", 0, 0, 0),
        ("wrong", 0, 0.5, 0.25),
    ]
    assert all(each.audio_seconds == 4 and each.percentile(50) == 0.5 for each in results)
    assert len((tmp_path / "record.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_a_stream_is_late_by_its_last_result_of_each_utterance() -> None:
    """Beyond the 0.5 s of silence that end it; one without a result is missed."""
    answers = Answers([Final("a", 1, 2, 3.0), Final("b", 2.2, 3, 4.0), Final("c", 5, 6, 6.9)])
    assert answers.delays(((1, 3), (5, 6), (8, 9))) == pytest.approx([0.5, 0.4, float("inf")])


def test_a_stable_beginning_that_is_taken_back_is_a_flap() -> None:
    """Within one stretch alone: the next one begins anew."""
    told = [("one", 0.0), ("one two", 0.0), ("one", 0.0), ("six", 4.0)]
    assert Answers(interims=[Interim(text, text, start, 0, 0) for text, start in told]).flaps() == 1


def test_a_part_is_replaced_and_the_others_stay_in_order(tmp_path: Path) -> None:
    """Each part may be measured on a day of its own."""
    page = tmp_path / "page.md"
    for part, text in (("talks", "first"), ("utterances", "old"), ("utterances", "new")):
        write(page, part, f"## {part.capitalize()}\n\n{text}")
    text = page.read_text(encoding="utf-8")
    places = [text.index(each) for each in ("# Speech through", "## Utterances", "new", "## Talks", "first")]
    assert all(one < other for one, other in itertools.pairwise(places))
    assert "old" not in text


def _folder(place: Path, name: str) -> Path:
    made = place / name
    made.mkdir()
    return made
