"""Answers: what the mesh said to each input, as plain values for the terminal and the page. Stage: answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from demo.inputs import Page, Picture, Recording


@dataclass(frozen=True, slots=True)
class Came:
    """Who answered, and how fast."""

    method: str
    """E.g. `VisionService.Classify`."""
    model: str
    """`name@version`; empty for a refusal."""
    seconds: float
    """From the request to the answer, as the caller saw it."""


@dataclass(frozen=True, slots=True)
class Classified:
    """A picture and its labels."""

    picture: Picture
    labels: tuple[tuple[str, float], ...]
    """Names and scores, best first."""
    came: Came


@dataclass(frozen=True, slots=True)
class Compared:
    """Pictures by how alike they are."""

    pictures: tuple[Picture, ...]
    similarities: tuple[tuple[float, ...], ...]
    """Cosines, a row a picture."""
    dimension: int
    came: Came


@dataclass(frozen=True, slots=True)
class Line:
    """A line that was read."""

    text: str
    score: float
    corners: tuple[tuple[float, float], ...]
    """In pixels of the picture, clockwise."""


@dataclass(frozen=True, slots=True)
class ReadPage:
    """A page and the lines that were read on it."""

    page: Page
    lines: tuple[Line, ...]
    came: Came

    @property
    def error_rate(self) -> float:
        """Wrong characters as a share of the page's own."""
        wanted = "".join(self.page.lines).replace(" ", "")
        return edits("".join(line.text for line in self.lines).replace(" ", ""), wanted) / len(wanted)


@dataclass(frozen=True, slots=True)
class Recognized:
    """Speech and what was heard."""

    recording: Recording
    transcript: str
    confidence: float
    came: Came

    @property
    def error_rate(self) -> float:
        """Wrong words as a share of those that were said; case and punctuation don't count."""
        wanted = words(self.recording.text)
        return edits(words(self.transcript), wanted) / len(wanted)


@dataclass(frozen=True, slots=True)
class Ranked:
    """Passages by how close they are to a question."""

    question: str
    passages: tuple[tuple[str, float], ...]
    """With their cosines, closest first."""
    dimension: int
    came: Came


@dataclass(frozen=True, slots=True)
class Tensors:
    """A model called by its tensors."""

    picture: Picture
    client: str
    """Which library asked."""
    sent: str
    """E.g. `image FP32 [1, 3, 224, 224]`."""
    got: tuple[str, ...]
    best: str
    """What the highest logit stands for."""
    came: Came


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that was wrong, and how the mesh said so."""

    what: str
    code: str
    """The canonical gRPC code's name."""
    reason: str
    """google.rpc.ErrorInfo.reason."""
    message: str
    fields: tuple[str, ...]
    """The fields that were wrong."""
    came: Came


@dataclass(frozen=True, slots=True)
class Answers:
    """All of them; what no model was there for is empty."""

    classified: tuple[Classified, ...] = ()
    compared: Compared | None = None
    read: tuple[ReadPage, ...] = ()
    recognized: tuple[Recognized, ...] = ()
    ranked: Ranked | None = None
    tensors: Tensors | None = None
    refused: tuple[Refused, ...] = ()


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"[\w']+", text.lower())


def edits(got: Sequence[str], wanted: Sequence[str]) -> int:
    """The least number of insertions, deletions and replacements that turn one sequence into the other."""
    row = list(range(len(wanted) + 1))
    for i, left in enumerate(got, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(wanted, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]
