"""A sentence to phonemes: words out of the lexicon, unknown ones as a model spells them, and pauses. Stage: task."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ortmesh_speech.aloud.lexicon import Following, Lexicon
from ortmesh_speech.aloud.normalize import spoken
from ortmesh_speech.aloud.stress import CONSONANTS, STRONG, VOWELS, unstressed, weakened, weight
from ortmesh_speech.aloud.tagger import Tagger
from ortmesh_speech.aloud.words import Token, tokens

_STOPS = frozenset(";:,.!?—…")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, slots=True)
class Reading:
    """A sentence that is read: what is known of it, and which words are not."""

    lexicon: Lexicon
    tokens: Sequence[Token]

    @property
    def unknown(self) -> list[str]:
        """The words whose phonemes the lexicon does not tell, each once."""
        missing: dict[str, None] = {}
        self._phonemes({}, missing)
        return list(missing)

    def phonemes(self, told: Mapping[str, str]) -> str:
        """The sentence's phonemes with `told` for the unknown words; empty when nothing is left to say."""
        found = self._phonemes(told, {})
        return found if any(map(str.isalpha, unstressed(found))) else ""

    def _phonemes(self, told: Mapping[str, str], missing: dict[str, None]) -> str:
        """From the end to the beginning: how "the" sounds depends on what follows."""
        following = Following()
        parts: list[str] = []
        for group in reversed(_groups(self.tokens)):
            last = group[-1]
            said = last.text if last.is_pause else self._say(group, following, told, missing)
            parts.append(f"{said} " if last.spaced and said else said)
            following = _following(said, following, group[0])
        text = "".join(reversed(parts)).replace("ɾ", "T").replace("ʔ", "t")
        return re.sub(" +", " ", text).strip()

    def _say(
        self, group: Sequence[Token], following: Following, told: Mapping[str, str], missing: dict[str, None]
    ) -> str:
        """Words that hyphens join, as one."""
        if len(group) > 1:
            whole = self.lexicon("-".join(token.text for token in group), group[-1].tag, following)
            if whole is not None:
                return whole
        parts: list[str] = []
        for token in reversed(group):
            said = self._word(token, following)
            if said is None:
                said = told.get(token.text, "")
                missing[token.text] = None
            parts.append(said)
            following = _following(said, following, token)
        return _balanced([token.text for token in group], parts[::-1])

    def _word(self, token: Token, following: Following) -> str | None:
        word = token.text
        if token.spelled:
            return self.lexicon.spelled(word)
        found = self.lexicon(word, token.tag, following)
        if found is None and not word.isascii():
            found = self.lexicon(_without_accents(word), token.tag, following)
        if found is None and len(parts := _CAMEL.split(word)) > 1:
            each = [self.lexicon(part, token.tag, following) for part in parts]
            found = _balanced(parts, [part or "" for part in each]) if all(each) else None
        return found


class Reader:
    """What reading needs: the lexicon and the tagger."""

    def __init__(self, lexicon: Lexicon, tagger: Tagger) -> None:
        self._lexicon = lexicon
        self._tagger = tagger

    def read(self, sentence: str) -> Reading:
        """A sentence as it is written; one in which nothing can be said has no tokens."""
        return Reading(self._lexicon, tokens(spoken(sentence), self._tagger))


def _groups(words: Sequence[Token]) -> list[list[Token]]:
    """Tokens that belong together: those that hyphens join."""
    groups: list[list[Token]] = []
    for token in words:
        if token.joined and groups:
            groups[-1].append(token)
        else:
            groups.append([token])
    return groups


def _following(said: str, before: Following, token: Token) -> Following:
    """What a word is followed by when this stands behind it."""
    vowel = before.vowel
    for phoneme in said:
        if phoneme in VOWELS or phoneme in CONSONANTS or phoneme in _STOPS:
            vowel = None if phoneme in _STOPS else phoneme in VOWELS
            break
    return Following(vowel, to=token.text.lower() == "to")


def _balanced(words: Sequence[str], parts: Sequence[str]) -> str:
    """Joined words have fewer strong stresses: half of them, the lightest, are weakened."""
    stressed = sorted((STRONG in said, weight(said), place) for place, said in enumerate(parts) if said)
    places = [place for _, _, place in stressed]
    weak: list[int] = []
    if len(places) == 2 and len(words[min(places)]) == 1:
        weak = [max(places)]
    elif len(places) > 1 and sum(strong for strong, _, _ in stressed) > (len(places) + 1) // 2:
        weak = places[: len(places) // 2]
    return "".join(weakened(said) if place in weak else said for place, said in enumerate(parts))


def _without_accents(word: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFD", word) if unicodedata.category(letter) != "Mn")
