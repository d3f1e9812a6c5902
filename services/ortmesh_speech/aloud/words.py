"""A normalized sentence as words and pauses, with the words' parts of speech. Stage: task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ortmesh_speech.aloud.tagger import Tagger

_TOKEN = re.compile(r"·?[^\W\d_]+(?:'[^\W\d_]+)*(?:(?<=s)'(?!\w))?|[.,!?;:—…\"()]|-")
_QUOTED = re.compile(r"(?<![\w'])'([^']{1,400})'(?!\w)")
_CONTRACTED = re.compile(r"(?i)(?<=\w)(?:n't|'(?:s|re|ve|ll|d|m))$|(?<=can)not$")
PAUSES = frozenset('.,!?;:—…"()“”')


@dataclass(frozen=True, slots=True)
class Token:
    """A word, or the sign of a pause."""

    text: str
    """Without the mark of what is spelled."""
    tag: str
    """Penn Treebank's part of speech."""
    spelled: bool
    """True when it is read letter by letter."""
    joined: bool
    """True when a hyphen joins it to the token before."""
    spaced: bool
    """True when a space follows it."""

    @property
    def is_pause(self) -> bool:
        """True for punctuation."""
        return self.text in PAUSES


def tokens(text: str, tagger: Tagger) -> list[Token]:
    """The tokens of a sentence that was normalized."""
    text = _QUOTED.sub(r'"\1"', text)
    found = list(_TOKEN.finditer(text))
    pieces = [_pieces(each[0].lstrip("·")) for each in found]
    tags = iter(tagger([piece for many in pieces for piece in many]))
    made: list[Token] = []
    hyphen = False
    for each, many in zip(found, pieces, strict=True):
        tag = _tag(many, [next(tags) for _ in many])
        if each[0] == "-":
            hyphen = bool(made) and not made[-1].is_pause
            continue
        word = _quote(text, each) if each[0] == '"' else each[0].lstrip("·")
        spaced = text[each.end() : each.end() + 1] == " "
        made.append(Token(word, tag, each[0].startswith("·"), hyphen and word not in PAUSES, spaced))
        hyphen = False
    return made


def _pieces(word: str) -> list[str]:
    """A word as the tagger knows it: "don't" is "do" and "n't"."""
    found = _CONTRACTED.search(word)
    return [word[: found.start()], found[0]] if found and found.start() else [word]


def _tag(pieces: Sequence[str], tags: Sequence[str]) -> str:
    """That of the longest piece, where capitals count twice."""
    lengths = [sum(1 if letter == letter.lower() else 2 for letter in piece) for piece in pieces]
    return tags[lengths.index(max(lengths))]


def _quote(text: str, found: re.Match[str]) -> str:
    before = text[found.start() - 1 : found.start()]
    return "“" if before in ("", " ", "(", "—") else "”"
