"""The recognizer's steps become text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ortmesh_vision.ocr_text import read_characters, read_steps

CHARACTERS = ("", "a", "b", " ")


def steps(*indices: int) -> tuple[str, float]:
    scores = np.linspace(0.5, 1, len(indices), dtype=np.float32)
    return read_steps(np.array(indices, np.int64), scores, CHARACTERS)


@pytest.mark.parametrize(
    ("indices", "text"),
    [
        ((1, 2), "ab"),
        ((1, 1, 1, 2, 2), "ab"),  # a run is one character
        ((1, 0, 1), "aa"),  # a blank between them makes it two
        ((0, 0, 1, 0, 2, 0), "ab"),
        ((3, 1, 3, 2, 3), "a b"),  # spaces at the ends say nothing
        ((0, 0, 0), ""),
        ((3, 0, 3), ""),
    ],
)
def test_runs_between_blanks_are_characters(indices: tuple[int, ...], text: str) -> None:
    assert steps(*indices)[0] == text


def test_the_score_is_the_mean_of_the_first_steps_of_runs() -> None:
    scores = np.array([0.9, 0.1, 0.2, 0.5], np.float32)
    assert read_steps(np.array([1, 1, 0, 2]), scores, CHARACTERS)[1] == pytest.approx(0.7)


def test_an_empty_line_has_no_score() -> None:
    assert steps(0, 0) == ("", 0)


def test_characters_are_split_at_line_feeds_only(tmp_path: Path) -> None:
    """Python takes the middle ones for ends of lines as well."""
    file = tmp_path / "characters.txt"
    alphabet = ["", "a", "\u2028", "\x85", "\r", "\u3000", " "]
    file.write_bytes(("\n".join(alphabet) + "\n").encode())
    assert read_characters(file) == tuple(alphabet)
