"""How far what came back is from what was sent."""

from __future__ import annotations

import pytest

from demo.answers import Came, Recognized, edits, words
from demo.inputs import Recording

CAME = Came("SpeechService.Recognize", "m@1", 0.1)


@pytest.mark.parametrize(
    ("got", "wanted", "count"),
    [("", "", 0), ("abc", "abc", 0), ("", "abc", 3), ("axc", "abc", 1), ("kitten", "sitting", 3)],
)
def test_edits_are_counted(got: str, wanted: str, count: int) -> None:
    assert edits(got, wanted) == count


def test_case_and_punctuation_are_no_errors() -> None:
    assert words("Hello, world! It's me.") == ["hello", "world", "it's", "me"]
    heard = Recognized(Recording("Hello, world.", b"", 1.0, ()), "hello world", 1.0, CAME)
    assert heard.error_rate == 0


def test_a_missing_word_is_one() -> None:
    heard = Recognized(Recording("one two three four", b"", 1.0, ()), "one two four", 1.0, CAME)
    assert heard.error_rate == 0.25
