"""Words: how many of a text were heard wrongly, after Whisper's own normalization of English."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import jiwer
from whisper_normalizer.english import EnglishTextNormalizer


@dataclass(frozen=True, slots=True)
class Errors:
    """Of one text or of many."""

    wrong: int
    """Words that were changed, left out or added: Levenshtein's distance over words."""
    words: int
    """Words that were said."""

    @property
    def rate(self) -> float:
        """Wrong words a word said; nan when nothing was said."""
        return self.wrong / self.words if self.words else float("nan")

    def __add__(self, other: Errors) -> Errors:
        return Errors(self.wrong + other.wrong, self.words + other.words)


def errors(said: str, heard: str) -> Errors:
    """Of one text."""
    expected, got = normalized(said), normalized(heard)
    if not expected:
        return Errors(len(got.split()), 0)
    found = jiwer.process_words(expected, got)
    return Errors(found.substitutions + found.deletions + found.insertions, len(expected.split()))


def total(each: Iterable[Errors]) -> Errors:
    """Of all texts: long ones count for more."""
    return sum(each, Errors(0, 0))


def normalized(text: str) -> str:
    """Lower case, no punctuation, numbers in digits, one spelling: what the papers on Whisper compare."""
    return str(_normalizer()(text))


@cache
def _normalizer() -> EnglishTextNormalizer:
    return EnglishTextNormalizer()
