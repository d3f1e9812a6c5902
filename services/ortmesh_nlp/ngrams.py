"""N-grams: a text as the rows of a fastText model's table: its words and its sequences of characters. Stage: task.

What facebookresearch/fastText's `dictionary.cc` does character by character is done for all of a text at once, by a
NumPy operation a byte of the longest n-gram: 10,000 characters take about 3 ms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ortmesh.serving.types import Array

TOKEN = re.compile(r"[^ \n\r\t\v\f\0]+")
"""fastText knows these separators only: a no-break space is a character of a word."""
END, LABEL = "</s>", "__label__"
FNV_OFFSET, FNV_PRIME = np.uint32(2166136261), np.uint32(16777619)
BYTES = 4  # of the longest character in UTF-8


@dataclass(frozen=True, slots=True)
class Dictionary:
    """Which row of the table a word or an n-gram has."""

    words: dict[str, int]
    buckets: Array
    """The hash buckets of the n-grams that the model kept, int64, ascending."""
    rows: Array
    """Their rows, int64."""
    bucket_count: int
    min_length: int
    """In characters; at least 2, a single one being another case in fastText."""
    max_length: int


def load_dictionary(path: Path) -> Dictionary:
    """Reads `ngrams.json`: words by row, then the buckets of n-grams by row."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    words, buckets = facts["words"], np.array(facts["ngrams"], np.int64)
    order = np.argsort(buckets)
    return Dictionary(
        words={word: row for row, word in enumerate(words)},
        buckets=buckets[order],
        rows=order + len(words),
        bucket_count=facts["buckets"],
        min_length=facts["min_length"],
        max_length=facts["max_length"],
    )


def rows_of(text: str, dictionary: Dictionary) -> npt.NDArray[np.int64]:
    """The rows int64 [n] of a text, read as one line: those of its words, of its end, and of its n-grams."""
    words = [token for token in TOKEN.findall(text) if token != END and not token.startswith(LABEL)]
    known = [row for word in (*words, END) if (row := dictionary.words.get(word)) is not None]
    return np.concatenate([np.array(known, np.int64), _kept(buckets(words, dictionary), dictionary)])


def buckets(words: Sequence[str], dictionary: Dictionary) -> Array:
    """The hash buckets int64 [n] of all n-grams of words, each word between < and >."""
    bytes_, sizes, ends = _characters([f"<{word}>" for word in words])
    states = np.full(len(ends), FNV_OFFSET)
    found: list[Array] = [np.zeros(0, np.int64)]
    for length in range(1, dictionary.max_length + 1):
        count = max(len(ends) - length + 1, 0)
        states = _hashed(states[:count], bytes_[:, length - 1 :], sizes[length - 1 :])
        if length >= dictionary.min_length:
            inside = np.arange(count) + length <= ends[:count]
            found.append(states[inside].astype(np.int64) % dictionary.bucket_count)
    return np.concatenate(found)


def _characters(words: Iterable[str]) -> tuple[Array, Array, Array]:
    """The characters of words: their bytes uint32 [4, n], how many those are, and where the character's word ends.

    fastText hashes signed chars: a byte over 127 is extended by ones.
    """
    encoded = [word.encode() for word in words]
    text = np.frombuffer(b"".join(encoded), np.uint8)
    starts = np.flatnonzero((text & 0xC0) != 0x80)
    sizes = np.diff(starts, append=len(text))
    signed = np.pad(text.view(np.int8).astype(np.int32).view(np.uint32), (0, BYTES))
    lengths = np.array([len(word) for word in words], np.int64)
    return signed[starts + np.arange(BYTES)[:, None]], sizes, np.repeat(np.cumsum(lengths), lengths)


def _hashed(states: Array, bytes_: Array, sizes: Array) -> Array:
    """FNV-1a's states after one more character each."""
    for place in range(BYTES):
        longer = sizes > place
        states = np.where(longer, (states ^ bytes_[place]) * FNV_PRIME, states)
    return states


def _kept(found: Array, dictionary: Dictionary) -> npt.NDArray[np.int64]:
    """The rows of those buckets that the model kept."""
    places = np.searchsorted(dictionary.buckets, found)
    places[places == len(dictionary.buckets)] = 0
    kept: npt.NDArray[np.int64] = dictionary.rows[places[dictionary.buckets[places] == found]]
    return kept
