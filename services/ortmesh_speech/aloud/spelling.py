"""Unknown words as a model for spelling takes and tells them. Stage: task."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Spelling:
    """The letters and phonemes of a model whose answers are CTC's: number 0 is no phoneme."""

    letters: Mapping[str, int]
    phonemes: Sequence[str]
    """By number."""
    longest: int
    """Letters of a word; longer ones are taken in parts."""

    def parts(self, word: str) -> list[npt.NDArray[np.int64]]:
        """The numbers of a word's letters, each part [1, letters]; none for a word of unknown letters."""
        known = [self.letters[letter] for letter in word if letter in self.letters]
        cut = range(0, len(known), self.longest)
        return [np.array([known[at : at + self.longest]], np.int64) for at in cut]

    def read(self, numbers: npt.NDArray[np.int64]) -> str:
        """The phonemes of an answer [steps]: equal neighbours are one."""
        return "".join(self._distinct(numbers.tolist()))

    def _distinct(self, numbers: Sequence[int]) -> Iterator[str]:
        before = 0
        for number in numbers:
            if number not in (0, before):
                yield self.phonemes[number]
            before = number


def read_spelling(path: Path) -> Spelling:
    """The file that a recipe wrote. KeyError or ValueError when it is none."""
    content = json.loads(path.read_text(encoding="utf-8"))
    letters = {letter: number for number, letter in enumerate(content["letters"], 1)}
    return Spelling(letters, ["", *content["phonemes"]], int(content["longest"]))
