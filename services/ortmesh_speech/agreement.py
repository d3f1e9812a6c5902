"""Agreement: which words of a text that grows with the audio will stay. Stage: task.

A growing window is heard again and again, and the words near its end change. LocalAgreement-2 (Liu et al. 2020,
arxiv.org/abs/2005.11185; Macháček et al. 2023, arxiv.org/abs/2307.14743): what two hypotheses in a row begin with is
stable. The next one is decoded from there on, so that it can't but begin with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ortmesh.serving.token_texts import read_token_texts

WORD_BEGINS = "▁".encode()
LOOP = 3
"""What is said so often on end is a circle; "no, no" is not."""


class Vocabulary:
    """What tokens are written as."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._texts = texts

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Of the file at `path`. ValueError."""
        return cls(read_token_texts(path))

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens; bytes that are no whole character yet are left out."""
        joined = b"".join(self._texts[token] for token in tokens)
        return joined.replace(WORD_BEGINS, b" ").decode(errors="ignore").strip()

    def begins_word(self, token: int) -> bool:
        """True for a token with which a word begins."""
        return self._texts[token].startswith(WORD_BEGINS)


class Agreement:
    """The hypotheses of one stretch of speech."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.stable: tuple[int, ...] = ()
        """Tokens with which the next hypothesis must begin."""
        self._vocabulary = vocabulary
        self._last: tuple[int, ...] = ()

    def push(self, tokens: Sequence[int]) -> tuple[str, str]:
        """(the text so far, its beginning that stays), after a hypothesis that begins with what is stable."""
        hypothesis = without_loop(tokens, len(self.stable))
        self.stable = hypothesis[: self._agreed(hypothesis)]
        self._last = hypothesis
        return self._vocabulary.text(hypothesis), self._vocabulary.text(self.stable)

    def _agreed(self, hypothesis: tuple[int, ...]) -> int:
        """How many tokens the last two begin with, up to a word that begins in both: the last word may be cut off."""
        agreed = len(self.stable)
        for place, (one, other) in enumerate(zip(self._last, hypothesis, strict=False)):
            if place > agreed and self._vocabulary.begins_word(one) and self._vocabulary.begins_word(other):
                agreed = place
            if one != other:
                break
        return agreed


def without_loop(tokens: Sequence[int], first: int) -> tuple[int, ...]:
    """The tokens up to the first ones, from place `first` on, that are said three times on end: half a word at the end
    of the audio sends the model in circles."""
    for end in range(first + LOOP, len(tokens) + 1):
        for length in range(1, (end - first) // LOOP + 1):
            tail = tokens[end - LOOP * length : end]
            if all(tail[place] == tail[place % length] for place in range(length, len(tail))):
                return tuple(tokens[: end - (LOOP - 1) * length])
    return tuple(tokens)
