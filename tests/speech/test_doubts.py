"""What can't be all that was said, or is too much."""

from __future__ import annotations

import pytest

from ortmesh_speech.doubts import missed, repeats_its_end, says_too_little
from ortmesh_speech.words import TimedWord

SENTENCE = "Most people forget that a good night of sleep improves memory and mood."


@pytest.mark.parametrize(
    ("characters", "rival", "seconds", "language", "expected"),
    [
        (200, 0, 14, "en", False),
        (50, 0, 14, "en", True),
        (100, 0, 14, "en", False),
        (100, 180, 14, "en", True),
        (100, 120, 14, "en", False),
        (180, 300, 14, "en", False),
        (10, 100, 4, "en", False),
        (50, 0, 14, "zh", False),
        (20, 0, 14, "zh", True),
    ],
    ids=["usual", "few", "slow", "slow, with a rival", "rival as long", "enough", "short", "Chinese", "few in Chinese"],
)
def test_too_little_is_told_by_the_time_it_took(
    characters: int, rival: int, seconds: float, language: str, expected: bool
) -> None:
    assert says_too_little("x" * characters, rival, seconds, language) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SENTENCE, False),
        (f"Well. {SENTENCE} {SENTENCE}", True),
        (f"{SENTENCE} {SENTENCE.lower().removesuffix('.')}!", True),
        (f"{SENTENCE} I mean: {SENTENCE}", False),
        ("I know, I know.", False),
        ("No, no, no, no.", False),
        ("", False),
    ],
)
def test_an_end_that_comes_twice(text: str, expected: bool) -> None:
    assert repeats_its_end(text) is expected


def test_an_utterance_without_words_was_missed() -> None:
    """The last word before it is stretched over it, as a decoder's attention does."""
    words = [TimedWord("Good", 0.0, 0.4, ()), TimedWord("morning.", 0.4, 5.0, ()), TimedWord("So,", 6.0, 6.4, ())]
    assert missed(words, [(0.0, 1.0), (2.0, 5.0), (6.0, 6.5)]) == [(2.0, 5.0)]


def test_breaths_and_slow_words_are_not_missed() -> None:
    words = [TimedWord("Extraordinary", 0.0, 1.3, ()), TimedWord("weather.", 1.3, 2.0, ())]
    assert missed(words, [(0.0, 2.0), (3.0, 4.0)]) == []
