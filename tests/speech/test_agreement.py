"""Agreement of hypotheses: what is stable stays, and ends with a word that both have whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortmesh_speech.agreement import Agreement, Vocabulary

TEXTS = ["▁the", "▁old", "▁sail", "or", "ing", "▁went", ".", "▁home"]
VOCABULARY = Vocabulary([text.encode() for text in TEXTS])


def tokens(*texts: str) -> list[int]:
    return [TEXTS.index(text) for text in texts]


def test_what_two_hypotheses_begin_with_is_stable_up_to_the_last_whole_word() -> None:
    agreement = Agreement(VOCABULARY)
    assert agreement.push(tokens("▁the", "▁old", "▁sail", "ing")) == ("the old sailing", "")
    assert agreement.push(tokens("▁the", "▁old", "▁sail", "or", "▁went")) == ("the old sailor went", "the old")
    assert agreement.push(tokens("▁the", "▁old", "▁sail", "or", "▁went", "▁home"))[1] == "the old sailor"
    assert agreement.stable == tuple(tokens("▁the", "▁old", "▁sail", "or"))


def test_a_word_at_the_end_may_be_cut_off_and_is_not_stable() -> None:
    agreement = Agreement(VOCABULARY)
    agreement.push(tokens("▁the", "▁sail"))
    assert agreement.push(tokens("▁the", "▁sail")) == ("the sail", "the")
    assert agreement.push(tokens("▁the", "▁sail", "or", "▁went"))[1] == "the"


def test_punctuation_that_comes_and_goes_is_not_stable() -> None:
    agreement = Agreement(VOCABULARY)
    agreement.push(tokens("▁the", "▁old", "."))
    assert agreement.push(tokens("▁the", "▁old", "▁went"))[1] == "the"


def test_circles_at_the_end_are_left_out() -> None:
    agreement = Agreement(VOCABULARY)
    assert agreement.push(tokens("▁the", "▁old", "▁old", "▁old", "▁old"))[0] == "the old"
    assert agreement.push(tokens("▁the", "▁went", ".", "▁went", ".", "▁went", "."))[0] == "the went."
    assert agreement.push(tokens("▁old", "▁old", "▁home"))[0] == "old old home"


@given(st.lists(st.lists(st.integers(0, len(TEXTS) - 1), max_size=8), max_size=8))
def test_what_is_stable_never_changes(hypotheses: list[list[int]]) -> None:
    """Hypotheses are decoded behind what is stable."""
    agreement, before = Agreement(VOCABULARY), ""
    for tail in hypotheses:
        text, stable = agreement.push([*agreement.stable, *tail])
        assert text.startswith(stable)
        assert stable.startswith(before)
        before = stable


def write(path: Path, texts: Sequence[bytes]) -> Path:
    def length(text: bytes) -> bytes:
        return bytes([len(text)]) if len(text) < 128 else bytes([len(text) % 128 + 128, len(text) // 128])

    path.write_bytes(b"".join(length(text) + text for text in texts))
    return path


def test_a_vocabulary_is_read_from_its_file(tmp_path: Path) -> None:
    vocabulary = Vocabulary.read(write(tmp_path / "v", [b"", "▁caf".encode(), b"\xc3", b"\xa9", b"x" * 300]))
    assert vocabulary.text([1, 2, 3]) == "café"
    assert vocabulary.text([1, 2]) == "caf", "half a character is none"
    assert vocabulary.text([4]) == "x" * 300
    assert [vocabulary.begins_word(token) for token in range(3)] == [False, True, False]


def test_a_vocabulary_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "v", [b"one", b"two"])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="token 1"):
        Vocabulary.read(path)
