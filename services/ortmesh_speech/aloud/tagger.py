"""The parts of speech of a sentence's words: "read" is said in one way or another by them. Stage: task.

An averaged perceptron (Collins, 2002) over a word, its neighbours and the two tags before it, with Penn Treebank's tags
and the weights that come with the voice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_BEFORE, _BEHIND = ("-START2-", "-START-"), ("-END-", "-END2-")


@dataclass(frozen=True, slots=True)
class Tagger:
    """The weights, read once."""

    tags: Sequence[str]
    certain: Mapping[str, str]
    """Words that have only one tag."""
    frequent: frozenset[str]
    """Words whose features have weights; others count by their shape."""
    weights: Mapping[str, Mapping[str, float]]

    def __call__(self, words: Sequence[str]) -> list[str]:
        """A tag for each word of a sentence; words are never empty."""
        around = [*_BEFORE, *map(self._known, words), *_BEHIND]
        tags = [*_BEFORE]
        for place, word in enumerate(words):
            tag = self.certain.get(word)
            tags.append(tag or self._best(_features(place, word, around, tags[-1], tags[-2])))
        return tags[len(_BEFORE) :]

    def _best(self, features: Sequence[str]) -> str:
        scores = dict.fromkeys(self.tags, 0.0)
        for feature in features:
            for tag, weight in self.weights.get(feature, {}).items():
                scores[tag] += weight
        return max(scores, key=lambda tag: (scores[tag], tag))

    def _known(self, word: str) -> str:
        normal = _normal(word)
        return normal if normal in self.frequent else f"<{_shape(word)}>"


def read_tagger(path: Path) -> Tagger:
    """The file that a recipe wrote. KeyError or ValueError when it is none."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return Tagger(content["tags"], content["tagdict"], frozenset(content["vocab"]), content["weights"])


def _features(place: int, word: str, around: Sequence[str], last: str, before_last: str) -> tuple[str, ...]:
    at = place + len(_BEFORE)
    return (
        "b",
        f"s3={word[-3:]}",
        f"p1={word[0]}",
        f"w={around[at]}",
        f"sh={_shape(word)}",
        "i+" if place else "i0",
        f"t-1={last}",
        f"t-2={before_last}",
        f"t-12={last},{before_last}",
        f"w-1={around[at - 1]}",
        f"s3-1={around[at - 1][-3:]}",
        f"w-2={around[at - 2]}",
        f"w+1={around[at + 1]}",
        f"s3+1={around[at + 1][-3:]}",
        f"w+2={around[at + 2]}",
    )


def _normal(word: str) -> str:
    if "-" in word and word[0] != "-":
        return "!HYPHEN"
    return word.lower()


def _shape(word: str) -> str:
    if not word.isalpha():
        return "".join("x" if character.isalpha() else character for character in word[:4])
    if word.islower():
        return "x"
    if word.isupper():
        return "XX" if len(word) > 1 else "X1"
    return "Xx" if word[1:].islower() else "xX"
