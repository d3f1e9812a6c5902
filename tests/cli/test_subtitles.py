"""Subtitles: cues that fit on a screen and can be read, at the times of their words."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from ortmesh.cli.subtitles import cues, srt, vtt
from ortmesh.speech.v1.speech_pb2 import Segment, Word

TEXT = (
    "In the morning the old sailor walked down to the harbor and looked at the boats. "
    "Most people forget that a good night of sleep improves memory and mood, he thought, and yawned."
)


def segment(
    text: str, start: float, end: float, *, speaker: str = "", words: bool = True, spaces: bool = True
) -> Segment:
    """A segment whose words are equally long and apart."""
    made = Segment(transcript=text, speaker=speaker)
    made.start.FromMilliseconds(round(start * 1000))
    made.end.FromMilliseconds(round(end * 1000))
    parts = (text.split() if spaces else list(text)) if words else []
    for place, part in enumerate(parts):
        word = Word(text=part, speaker=speaker)
        word.start.FromMilliseconds(round((start + place * (end - start) / len(parts)) * 1000))
        word.end.FromMilliseconds(round((start + (place + 0.8) * (end - start) / len(parts)) * 1000))
        made.words.append(word)
    return made


@pytest.mark.parametrize("words", [True, False])
def test_cues_fit_and_hold_all_words_in_order(words: bool) -> None:
    made = cues([segment(TEXT, 3.0, 15.0, words=words)])
    assert len(made) >= 3
    assert all(len(cue.lines) <= 2 and max(map(len, cue.lines)) <= 42 for cue in made)
    assert " ".join(line for cue in made for line in cue.lines) == TEXT
    assert all(0.5 <= cue.end - cue.start <= 7.1 for cue in made)
    assert all(one.end <= other.start for one, other in pairwise(made))
    assert made[0].start == 3.0
    assert made[-1].end == pytest.approx(15.0, abs=0.2)


def test_a_sentence_ends_a_cue() -> None:
    made = cues([segment(TEXT, 0, 12)])
    assert any(cue.lines[-1].endswith("boats.") for cue in made)


def test_a_long_pause_ends_a_cue() -> None:
    made = segment("one two three four", 0, 4)
    made.words[2].start.FromMilliseconds(20_000)
    made.words[2].end.FromMilliseconds(20_500)
    made.words[3].start.FromMilliseconds(20_500)
    made.words[3].end.FromMilliseconds(21_000)
    assert [cue.lines for cue in cues([made])] == [("one two",), ("three four",)]


def test_srt_is_as_players_read_it() -> None:
    written = srt([segment("Good morning.", 1, 2.5), segment("Is it 3 --> 4?", 3661.25, 3662.5)])
    assert written == (
        "1\n00:00:01,000 --> 00:00:02,350\nGood morning.\n\n2\n01:01:01,250 --> 01:01:02,450\nIs it 3 -> 4?\n"
    )


def test_vtt_is_escaped() -> None:
    written = vtt([segment("Tom & <b>Jerry</b> --> here", 0, 2)])
    assert written.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.")
    assert "Tom &amp; &lt;b&gt;Jerry&lt;/b&gt; --&gt; here" in written


def test_speakers_are_named_where_they_change() -> None:
    talk = [segment("Hello.", 0, 1, speaker="1"), segment("Hi.", 2, 3, speaker="2"), segment("So.", 4, 5, speaker="2")]
    assert re.findall("[A-Z].*", srt(talk)) == ["Speaker 1: Hello.", "Speaker 2: Hi.", "So."]
    assert vtt(talk).count("<v Speaker 2>") == 2


def test_a_word_alone_is_shown_for_a_second_unless_another_comes() -> None:
    alone, soon, later = cues([segment("Yes.", 0, 0.2), segment("No.", 0.6, 0.8), segment("Why?", 5, 5.2)])
    assert [alone.end, soon.end, later.end] == pytest.approx([0.6, 1.6, 6.0])


def test_every_cue_lasts() -> None:
    """Also where words have no length and begin at once."""
    made = cues([segment("Yes.", 1, 1), segment("No.", 1, 1)])
    assert all(cue.end > cue.start for cue in made)


def test_a_word_longer_than_a_line_is_broken() -> None:
    made = cues([segment("a" * 200, 0, 8)])
    assert "".join(line for cue in made for line in cue.lines) == "a" * 200
    assert all(len(cue.lines) <= 2 and max(map(len, cue.lines)) <= 42 for cue in made)


def test_scripts_without_spaces_are_joined_without() -> None:
    made = cues([segment("今日はいい天気です" * 8, 0, 12, spaces=False)])
    assert "".join(line for cue in made for line in cue.lines) == "今日はいい天気です" * 8


@pytest.mark.parametrize("segments", [[], [Segment()], [segment("  ", 0, 1)]])
def test_nothing_said_gives_no_cue(segments: list[Segment]) -> None:
    assert srt(segments) == ""
    assert vtt(segments) == "WEBVTT\n"
