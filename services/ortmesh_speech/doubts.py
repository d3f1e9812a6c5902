"""Doubts: texts that a recognizer was content with, though they can't be all that is said, or more. Stage: task.

A search for the most probable text errs in two ways that its probabilities do not show: it ends after a sentence when
the next one is hard (a text of 2 of 4 sentences at a mean log-probability of -0.09 beats the whole one at -0.11), or
passes over what a second voice says; and it writes the last sentence twice into the silence behind it (-0.06).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ortmesh_speech.words import UNSPACED, Stretch, TimedWord, utterances

FEWEST_CHARACTERS = 6.0
"""A second of speech, pauses left out. Slow readers say 10, usual are 14 to 18."""
FEW_CHARACTERS = 12.0
"""So few are too few where another text that is nearly as probable has many more."""
UNSPACED_SHARE = 1 / 3
"""Of these, in scripts whose characters are syllables or words."""
MORE = 1.3
"""Times the characters: many more."""
SHORTEST_SECONDS = 5.0
"""Of speech: of less it can't be told."""
FEWEST_REPEATED = 4
"""Words: fewer are said twice by people too ("I know, I know")."""
UTTERANCE_SECONDS = 1.2
"""A shorter stretch between two pauses may be a breath or a laugh, and have no words."""
COVERED = 0.35
"""Of an utterance: less of it than that taken by words, and some are missing."""
SECONDS_A_WORD, SECONDS_A_CHARACTER = 0.3, 0.12
"""So long a word may take: a decoder's attention stretches one over what it passes over."""


def says_too_little(text: str, rival: int, speech_seconds: float, language: str) -> bool:
    """True when somebody speaks for so long that more must have been said.

    `rival` is the number of characters of the longest text that is nearly as probable, 0 where there is none.
    """
    if speech_seconds < SHORTEST_SECONDS:
        return False
    fewest = FEW_CHARACTERS if rival >= MORE * len(text) else FEWEST_CHARACTERS
    return len(text) < fewest * speech_seconds * (UNSPACED_SHARE if language in UNSPACED else 1)


def repeats_its_end(text: str) -> bool:
    """True when the last words are those before them once more."""
    words = re.findall(r"[\w']+", text.lower())
    return any(words[-count:] == words[-2 * count : -count] for count in range(FEWEST_REPEATED, len(words) // 2 + 1))


def missed(words: Sequence[TimedWord], speech: Sequence[Stretch]) -> list[Stretch]:
    """The utterances in which somebody speaks and hardly a word was heard; at least one stretch is speech."""
    return [
        (start, end)
        for start, end in utterances(speech)
        if end - start >= UTTERANCE_SECONDS and _covered(words, start, end) < COVERED * (end - start)
    ]


def _covered(words: Sequence[TimedWord], start: float, end: float) -> float:
    """Seconds of a stretch that are taken by words."""
    return sum(max(0.0, min(word.end, end, word.start + _longest(word)) - max(word.start, start)) for word in words)


def _longest(word: TimedWord) -> float:
    return SECONDS_A_WORD + SECONDS_A_CHARACTER * len(word.text)
