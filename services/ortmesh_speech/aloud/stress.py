"""Stress within strings of phonemes, where ˈ is the strong mark and ˌ the weak one. Stage: task.

The voice was taught by misaki's pronunciations (github.com/hexgrad/misaki 0.9.4, Apache-2.0): these are its rules.
"""

from __future__ import annotations

from typing import Final

STRONG, WEAK = "ˈ", "ˌ"
VOWELS: Final = frozenset("AIOQWYaiuæɑɒɔəɛɜɪʊʌᵻ")
CONSONANTS: Final = frozenset("bdfhjklmnpstvwzðŋɡɹɾʃʒʤʧθ")
_LONG: Final = frozenset("AIOQWYʤʧ")


def unstressed(phonemes: str) -> str:
    """Without any mark."""
    return phonemes.replace(STRONG, "").replace(WEAK, "")


def weakened(phonemes: str) -> str:
    """The strong mark becomes the weak one, and weak ones go."""
    return phonemes.replace(WEAK, "").replace(STRONG, WEAK) if STRONG in phonemes else phonemes


def raised(phonemes: str) -> str:
    """As a word in capitals: its weak mark becomes strong, one without any gets a strong one."""
    if STRONG in phonemes:
        return phonemes
    return phonemes.replace(WEAK, STRONG) if WEAK in phonemes else _marked(phonemes, STRONG)


def marked(phonemes: str) -> str:
    """As a word with a capital: one without any mark gets a weak one."""
    return phonemes if STRONG in phonemes or WEAK in phonemes else _marked(phonemes, WEAK)


def weight(phonemes: str) -> int:
    """How long it is: diphthongs and affricates count twice."""
    return sum(2 if phoneme in _LONG else 1 for phoneme in phonemes)


def _marked(phonemes: str, mark: str) -> str:
    """The mark stands before the first vowel."""
    at = next((place for place, phoneme in enumerate(phonemes) if phoneme in VOWELS), None)
    return phonemes if at is None else f"{phonemes[:at]}{mark}{phonemes[at:]}"
