"""N-grams are those of fastText, written here the slow way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortmesh_nlp.ngrams import Dictionary, buckets, load_dictionary, rows_of

SMALL = Dictionary(
    words={"</s>": 0, "ab": 1, "é": 2},
    buckets=np.arange(0, 1000, 2),
    rows=np.arange(500)[::-1] + 3,
    bucket_count=1000,
    min_length=2,
    max_length=4,
)


def slow_hash(text: str) -> int:
    """FNV-1a over signed bytes, as `Dictionary::hash` of fastText."""
    value = 2166136261
    for byte in text.encode():
        signed = byte if byte < 128 else byte | 0xFFFFFF00
        value = ((value ^ signed) * 16777619) % 2**32
    return value


def slow_buckets(words: list[str]) -> list[int]:
    found = []
    for word in (f"<{word}>" for word in words):
        for start in range(len(word)):
            lengths = range(2, min(4, len(word) - start) + 1)
            found += [slow_hash(word[start : start + length]) % 1000 for length in lengths]
    return sorted(found)


words = st.lists(st.text(st.characters(codec="utf-8", exclude_characters=" \n\r\t\v\f\0"), min_size=1), max_size=6)


@given(words)
def test_buckets_are_those_of_fasttext(words: list[str]) -> None:
    assert sorted(buckets(words, SMALL).tolist()) == slow_buckets(words)


def test_a_hash_is_that_of_the_published_algorithm() -> None:
    """FNV-1a of "foobar" in its authors' test vectors; fastText's differs for bytes over 127 only."""
    assert slow_hash("foobar") == 0xBF9CF968


@given(words)
def test_rows_are_those_of_known_words_of_the_end_and_of_kept_ngrams(words: list[str]) -> None:
    expected = [SMALL.words[word] for word in words if word in SMALL.words] + [0]
    kept = [502 - bucket // 2 for bucket in slow_buckets(words) if bucket % 2 == 0]
    assert sorted(rows_of("\n".join(words), SMALL).tolist()) == sorted(expected + kept)


@pytest.mark.parametrize("text", ["</s>", "__label__en", "\0\t\r\n\v\f ", ""])
def test_marks_of_training_data_and_separators_are_no_words(text: str) -> None:
    assert rows_of(text, SMALL).tolist() == [0]


def test_a_dictionary_is_read_with_rows_by_place(tmp_path: Path) -> None:
    facts = '{"words": ["</s>", "a"], "ngrams": [7, 3], "buckets": 10, "min_length": 2, "max_length": 4}'
    (tmp_path / "ngrams.json").write_text(facts)
    read = load_dictionary(tmp_path / "ngrams.json")
    assert (read.words, read.bucket_count) == ({"</s>": 0, "a": 1}, 10)
    assert (read.buckets.tolist(), read.rows.tolist()) == ([3, 7], [3, 2])
