"""What the recognizer's steps say: text from the best class of each step (CTC). Stage: task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

BLANK = 0
"""The class that stands for no character."""


def read_characters(path: Path) -> tuple[str, ...]:
    """The text of each class, one a line; the first is the blank.

    Split at line feeds only: the alphabet itself has other characters that Python takes for ends of lines.
    """
    lines = path.read_bytes().decode("utf-8").split("\n")
    return tuple(lines[:-1] if lines[-1] == "" else lines)


def read_steps(
    indices: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], characters: Sequence[str]
) -> tuple[str, float]:
    """The text of one line and the mean probability of its characters, from its best classes and scores [steps].

    A class counts once for each run of steps that it is the best of; an empty line has score 0.
    """
    kept = (indices != BLANK) & np.concatenate([[True], indices[1:] != indices[:-1]])
    text = "".join([characters[index] for index in indices[kept].tolist()])
    return text.strip(), float(scores[kept].mean()) if kept.any() else 0.0
