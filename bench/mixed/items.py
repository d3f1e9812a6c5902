"""Items: texts of mixed lengths, with the tokens that the service will make of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from ortmesh.serving.types import Array

SHORTEST, LONGEST = 8, 128
"""Tokens of a text, each length as likely as another."""
MARKS = 2
"""Tokens that the tokenizer adds to a text's own."""
COMMON = 4000
"""The vocabulary is in order of frequency."""


@dataclass(frozen=True, slots=True)
class Item:
    """A text, and how its model reads it."""

    text: str
    ids: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its tokens."""
        return len(self.ids)


def items(count: int, tokenizer: Tokenizer, seed: int) -> list[Item]:
    """So many texts of 8 to 128 tokens. RuntimeError when the tokenizer makes other lengths of them."""
    draw, words = random.Random(seed), common_words(tokenizer)
    sizes = [draw.randint(SHORTEST, LONGEST) for _ in range(count)]
    texts = [" ".join(draw.choices(words, k=size - MARKS)) for size in sizes]
    made = [
        Item(text, tuple(encoding.ids)) for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True)
    ]
    if [item.size for item in made] != sizes:
        raise RuntimeError("a word that is one token alone is several in a text")
    return made


def common_words(tokenizer: Tokenizer) -> list[str]:
    """English words that are one token each, the most frequent of the vocabulary."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    words = [word for word, _ in vocabulary if word.isascii() and word.isalpha() and len(word) > 1]
    return words[:COMMON]


def stacked(group: Sequence[Item]) -> dict[str, Array]:
    """The items as one batch, padded to the longest: `input_ids` and `attention_mask`, int64 [items, longest]."""
    shape = len(group), max(item.size for item in group)
    ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, item in enumerate(group):
        ids[row, : item.size] = item.ids
        mask[row, : item.size] = 1
    return {"input_ids": ids, "attention_mask": mask}
