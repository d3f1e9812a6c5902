"""The lexicon: English words to phonemes, by their part of speech and by what follows them. Stage: task.

Words and rules are those of misaki 0.9.4 (github.com/hexgrad/misaki, Apache-2.0), by which the voice was taught.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from ortmesh_speech.aloud.stress import STRONG, WEAK, marked, raised, weakened

Entry: TypeAlias = str | Mapping[str, str | None]
"""Phonemes, or phonemes by part of speech; one of these is None where it is the default's."""
Emphasis: TypeAlias = Callable[[str], str]

_BEFORE_FLAP: Final = frozenset("AIOWYiuæɑəɛɪɹʊʌ")
"""Behind these an American t becomes a flap: "waiting"."""


@dataclass(frozen=True, slots=True)
class Following:
    """What comes behind a word, as far as its own sound depends on it."""

    vowel: bool | None = None
    """Whether the next word begins with a vowel; None at a pause."""
    to: bool = False
    """True when it is "to"."""


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Two lists of words: what people have checked, and what a program has added."""

    gold: Mapping[str, Entry]
    silver: Mapping[str, Entry]

    def __call__(self, word: str, tag: str, following: Following) -> str | None:
        """The phonemes of a word of letters and apostrophes; None for one that it can't derive."""
        emphasis: Emphasis = str if word == word.lower() else raised if word == word.upper() else marked
        return self._function_word(word, tag, following, emphasis) or self._content_word(word, tag, following, emphasis)

    def spelled(self, letters: str) -> str:
        """Letters by their names: "HTTP"; those that have none are passed over."""
        names = [found for letter in letters if isinstance(found := self.gold.get(letter.upper()), str)]
        joined = "".join(names)
        head, mark, last = (weakened(joined) if STRONG in joined else marked(joined)).rpartition(WEAK)
        return f"{head}{STRONG}{last}" if mark else joined

    def knows(self, word: str) -> bool:
        """True for a word that stands in it."""
        return self._find(self.gold, word) is not None or self._find(self.silver, word) is not None

    def _function_word(self, word: str, tag: str, following: Following, emphasis: Emphasis) -> str | None:
        """The short words that depend on their neighbours."""
        lower, noun = word.lower(), tag.startswith("NN")
        if lower == "a":
            return "ɐ" if tag == "DT" else "ˈA"
        if lower == "am" and (following.vowel is None or word != "am") and not (noun and word != "am"):
            return self._look_up("am", tag, following, str)
        if lower == "am":
            return self.spelled(word) if noun else "ɐm"
        if lower == "an" and not (word == "AN" and noun):
            return "ɐn"
        if word == "I" and tag == "PRP":
            return "ˌI"
        if lower == "by" and tag in ("RB", "RBR", "RBS"):
            return "bˈI"
        if word in ("to", "To") or (word == "TO" and tag in ("TO", "IN")):
            return {None: self._look_up("to", tag, following, str), False: "tə", True: "tʊ"}[following.vowel]
        if word in ("in", "In") or (word == "IN" and tag != "NNP"):
            return "ˈɪn" if following.vowel is None or tag != "IN" else "ɪn"
        if word in ("the", "The") or (word == "THE" and tag == "DT"):
            return "ði" if following.vowel else "ðə"
        if lower == "used":
            return self._look_up("used", "VBD" if tag in ("VBD", "JJ") and following.to else "DEFAULT", following, str)
        return None

    def _content_word(self, word: str, tag: str, following: Following, emphasis: Emphasis) -> str | None:
        if self._is_shouted(word, tag, following):
            word = word.lower()
        if self._is_known(word):
            return self._look_up(word, tag, following, emphasis)
        for ending, instead in (("s'", "'s"), ("'", "")):
            if word.endswith(ending) and self._is_known(stem := word[: -len(ending)] + instead):
                return self._look_up(stem, tag, following, emphasis)
        return (
            self._with_s(word, tag, following, emphasis)
            or self._with_ed(word, tag, following, emphasis)
            or self._with_ing(word, tag, following, marked if emphasis is str else emphasis)
        )

    def _is_shouted(self, word: str, tag: str, following: Following) -> bool:
        """True for a word in capitals, or with one, that is only known without."""
        lower = word.lower()
        if len(word) < 2 or word == lower or self.knows(word) or not word.replace("'", "").isalpha():
            return False
        if (tag == "NNP" and len(word) <= 7) or (word != word.upper() and word[1:] != lower[1:]):
            return False
        ways = (self._with_s, self._with_ed, self._with_ing)
        return self.knows(lower) or any(way(lower, tag, following, str) for way in ways)

    def _is_known(self, word: str) -> bool:
        """True for what stands in it or is spelled: a letter, "PDF"."""
        if self.knows(word):
            return True
        if not (word.isascii() and word.isalpha()):
            return False
        return len(word) == 1 or word[1:] == word[1:].upper()

    def _look_up(self, word: str, tag: str, following: Following, emphasis: Emphasis) -> str | None:
        """A word that stands in it, else the names of its letters."""
        named = False
        if word == word.upper() and self._find(self.gold, word) is None:
            word, named = word.lower(), tag == "NNP"
        entry = self._find(self.gold, word)
        if entry is None and not named:
            entry = self._find(self.silver, word)
        phonemes = entry if entry is None or isinstance(entry, str) else _by_tag(entry, tag, following)
        if phonemes is None or (named and STRONG not in phonemes):
            return (self.spelled(word) or None) if word.isalpha() and word.isascii() else phonemes
        return emphasis(phonemes)

    @staticmethod
    def _find(words: Mapping[str, Entry], word: str) -> Entry | None:
        """A word with a small first letter stands for one with a capital, and the other way round."""
        found = words.get(word)
        if found is not None or len(word) < 2:
            return found
        lower = word.lower()
        if word == lower:
            return words.get(word.capitalize())
        return words.get(lower) if word == lower.capitalize() else None

    def _with_s(self, word: str, tag: str, following: Following, emphasis: Emphasis) -> str | None:
        """ "cups", "Anna's", "boxes", "ladies"."""
        if len(word) < 3 or not word.endswith("s"):
            return None
        stems = [word[:-1]] if not word.endswith("ss") else []
        if word.endswith("'s") or (len(word) > 4 and word.endswith("es") and not word.endswith("ies")):
            stems.append(word[:-2])
        elif len(word) > 4 and word.endswith("ies"):
            stems.append(f"{word[:-3]}y")
        stem = next(filter(self._is_known, stems), None)
        phonemes = self._look_up(stem, tag, following, emphasis) if stem else None
        if not phonemes:
            return None
        if phonemes[-1] in "ptkfθ":
            return f"{phonemes}s"
        return f"{phonemes}ᵻz" if phonemes[-1] in "szʃʒʧʤ" else f"{phonemes}z"

    def _with_ed(self, word: str, tag: str, following: Following, emphasis: Emphasis) -> str | None:
        """ "baked", "planted"."""
        if len(word) < 4 or not word.endswith("d"):
            return None
        stems = [word[:-1]] if not word.endswith("dd") else []
        if len(word) > 4 and word.endswith("ed") and not word.endswith("eed"):
            stems.append(word[:-2])
        stem = next(filter(self._is_known, stems), None)
        phonemes = self._look_up(stem, tag, following, emphasis) if stem else None
        if not phonemes:
            return None
        if phonemes[-1] in "pkfθʃsʧ":
            return f"{phonemes}t"
        if phonemes[-1] == "d":
            return f"{phonemes}ᵻd"
        if phonemes[-1] != "t":
            return f"{phonemes}d"
        return f"{phonemes[:-1]}ɾᵻd" if phonemes[-2:-1] in _BEFORE_FLAP else f"{phonemes}ᵻd"

    def _with_ing(self, word: str, tag: str, following: Following, emphasis: Emphasis) -> str | None:
        """ "reading", "baking", "running"."""
        if len(word) < 5 or not word.endswith("ing"):
            return None
        stems = [word[:-3]] if len(word) > 5 else []
        stems.append(f"{word[:-3]}e")
        if len(word) > 5 and re.search(r"([bcdgklmnprstvxz])\1ing$|cking$", word):
            stems.append(word[:-4])
        stem = next(filter(self._is_known, stems), None)
        phonemes = self._look_up(stem, tag, following, emphasis) if stem else None
        if not phonemes:
            return None
        if phonemes[-1] == "t" and phonemes[-2:-1] in _BEFORE_FLAP:
            return f"{phonemes[:-1]}ɾɪŋ"
        return f"{phonemes}ɪŋ"


def read_lexicon(path: Path) -> Lexicon:
    """The file that a recipe wrote. KeyError or ValueError when it is none."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return Lexicon(content["gold"], content["silver"])


def _by_tag(entry: Mapping[str, str | None], tag: str, following: Following) -> str | None:
    if following.vowel is None and "None" in entry:
        tag = "None"
    elif tag not in entry:
        tag = _parent(tag)
    return entry.get(tag, entry["DEFAULT"])


def _parent(tag: str) -> str:
    for beginning, parent in (("VB", "VERB"), ("NN", "NOUN"), ("RB", "ADV"), ("JJ", "ADJ")):
        if tag.startswith(beginning):
            return parent
    return tag
