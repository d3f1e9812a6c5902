"""Answers: what the mesh said to each input, as plain values for the terminal and the page. Stage: answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from demo.inputs import Page, Picture, Recording, Talk, Voice


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
class Thing:
    """A thing that was found."""

    name: str
    score: float
    box: tuple[float, float, float, float]
    """Left, top, right, bottom, in pixels of the picture."""
    landmarks: tuple[tuple[float, float], ...]
    """Points of it, in the same pixels."""


@dataclass(frozen=True, slots=True)
class Detected:
    """A picture and what was found in it."""

    picture: Picture
    things: tuple[Thing, ...]
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
class Spoken:
    """A text that the mesh spoke, and what it heard of itself."""

    recording: Recording
    first_seconds: float
    """From the request to the first audio."""
    transcript: str
    """Empty where no model was there to recognize it."""
    came: Came


@dataclass(frozen=True, slots=True)
class Dictated:
    """A talk that was written down while it came."""

    talk: Talk
    lines: tuple[tuple[float, str, bool], ...]
    """(Seconds of the talk that were heard, what was said so far, whether that is a result), as they came."""
    came: Came


@dataclass(frozen=True, slots=True)
class SpeechFound:
    """Speech with pauses, and when somebody was found to speak."""

    talk: Talk
    intervals: tuple[tuple[float, float], ...]
    """Seconds, in the order of time."""
    came: Came


@dataclass(frozen=True, slots=True)
class VoicesCompared:
    """Voices by how alike they are."""

    voices: tuple[Voice, ...]
    similarities: tuple[tuple[float, ...], ...]
    """Cosines, a row a voice."""
    dimension: int
    came: Came


@dataclass(frozen=True, slots=True)
class Ranked:
    """Passages by how close they are to a question."""

    question: str
    passages: tuple[tuple[str, float], ...]
    """With their cosines, closest first."""
    dimension: int
    came: Came


@dataclass(frozen=True, slots=True)
class Told:
    """Texts and their languages."""

    languages: tuple[tuple[str, str, float], ...]
    """Of each text: the text, its language in English, the model's probability."""
    came: Came


@dataclass(frozen=True, slots=True)
class Found:
    """A piece of a text that was found."""

    type: str
    text: str
    start: int
    """In code points."""
    end: int
    by: str
    """`model` or `pattern`."""


@dataclass(frozen=True, slots=True)
class Searched:
    """A letter and the personal data in it."""

    letter: str
    entities: tuple[Found, ...]
    came: Came


@dataclass(frozen=True, slots=True)
class Written:
    """What was asked, and the text that was written piece by piece."""

    asked: str
    form: str
    """What it had to look like, in words; empty where it was free."""
    text: str
    tokens: int
    first_seconds: float
    """From the request to the first piece."""
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
    detected: tuple[Detected, ...] = ()
    read: tuple[ReadPage, ...] = ()
    recognized: tuple[Recognized, ...] = ()
    spoken: Spoken | None = None
    dictated: Dictated | None = None
    speech_found: SpeechFound | None = None
    voices: VoicesCompared | None = None
    ranked: Ranked | None = None
    told: Told | None = None
    searched: Searched | None = None
    written: tuple[Written, ...] = ()
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
