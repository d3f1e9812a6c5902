"""Agreement: which words of a text that grows with the audio will stay. Stage: task.

A growing window is heard again and again, and the words near its end change. LocalAgreement-2 (Liu et al. 2020,
arxiv.org/abs/2005.11185; Macháček et al. 2023, arxiv.org/abs/2307.14743): what two hypotheses in a row begin with is
stable. The next one is decoded from there on, so that it can't but begin with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

WORD_BEGINS = "▁".encode()
CONTINUED = 0x80
"""From here on, a length takes a second byte."""


class Vocabulary:
    """What tokens are written as."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._texts = texts

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Of the file at `path`: for each token the length of its text in bytes, then they. ValueError."""
        content, texts, at = path.read_bytes(), [], 0
        while at < len(content):
            length, at = content[at], at + 1
            if length >= CONTINUED:
                length, at = content[at] * CONTINUED + length - CONTINUED, at + 1
            texts.append(content[at : at + length])
            at += length
        if at != len(content):
            raise ValueError(f"it ends within token {len(texts) - 1}")
        return cls(texts)

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
        hypothesis = tuple(tokens)
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
