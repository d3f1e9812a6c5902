"""Speakers: who says which word, by voices that are alike. Stage: task."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt

from ortmesh.front.call import Call
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.serving.types import Array
from ortmesh.serving.vectors import unit
from ortmesh_speech import embed_speaker
from ortmesh_speech.audio import SAMPLE_RATE, Samples
from ortmesh_speech.clusters import clusters
from ortmesh_speech.options import Speakers
from ortmesh_speech.transcript import Transcript
from ortmesh_speech.voice_mel import at_level, voice_mel
from ortmesh_speech.window import Window
from ortmesh_speech.words import TimedWord, confidence, utterances

FRAMES_A_SECOND = 100
STEP_FRAMES = 50
"""Between two looks at a voice: a change of speakers without a pause is found to half of it."""
SHORTEST_SECONDS = 0.5
"""Of an utterance whose voice is looked at: shorter ones ("yes") tell too little of it."""
ALIKE = 0.7
"""The mean cosine from which two groups of looks at 1.6 s are one voice. Of one synthesized voice it is 0.74 to 0.80,
of two 0.44 to 0.68, where they are of one make but for their formants up to 0.72."""
MAX_CLUSTERED = 2_000
"""Looks of which groups are made; of longer recordings neighbours count as one."""
STRAY = 3
"""A voice of fewer looks, and of less than a tenth of all, is none of its own: a laugh, two who speak at once."""


@dataclass(frozen=True, slots=True)
class Look:
    """A voice at one moment."""

    time: float
    """The middle of what was heard, in seconds from the recording's start."""
    utterance: tuple[float, float]
    """What it is part of: speech between two pauses."""
    vector: Array
    """Float32 [dimension], of length 1."""


class Voices:
    """The voices of one recording, looked at window by window."""

    def __init__(self, models: Models, call: Call) -> None:
        """Leases the model until the call ends. NotFound where the mesh has none; NotReady, ModelFailed."""
        self._call = call
        self._model: Model = models.choose("embed_speaker", "", call)
        self._settings = embed_speaker.NEEDS.of(self._model)
        self._looks: list[Look] = []

    async def listen(self, window: Window) -> None:
        """Looks at the voices in a window; windows may come in any order."""
        settings, call = self._settings, self._call
        found = await call.in_pool(lambda: list(prepare(window, settings.frames, settings.mels)))
        outputs = await self._model.many([{"mels": spans.mels} for spans in found], call)
        for spans, each in zip(found, outputs, strict=True):
            for time, vector in zip(spans.times, each["embedding"], strict=True):
                self._looks.append(Look(time, spans.utterance, vector))

    def tell_apart(self, heard: Sequence[Transcript], bounds: Speakers) -> list[Transcript]:
        """What was said, in the order of time, by its speakers: "1", "2" … in the order in which they speak first."""
        looks = sorted(self._looks, key=lambda look: look.time)
        timeline = Timeline(looks, voices_of(looks, bounds))
        names: dict[int, str] = {}
        parts = [
            part
            for transcript in heard
            for part in split(transcript, [timeline.voice(word) for word in transcript.words])
        ]
        return [
            replace(transcript, speaker=names.setdefault(voice, str(len(names) + 1))) for transcript, voice in parts
        ]


@dataclass(frozen=True, slots=True)
class Spans:
    """Looks at one utterance, as the model takes them."""

    mels: Samples
    """Float32 [looks, frames, mels]."""
    times: tuple[float, ...]
    """The middle of each, in seconds from the recording's start."""
    utterance: tuple[float, float]


def prepare(window: Window, frames: int, mels: int) -> Iterator[Spans]:
    """The looks at each utterance of a window: one each half second, and one at its end."""
    for start, end in utterances(window.speech):
        first, last = (round((time - window.offset) * SAMPLE_RATE) for time in (start, end))
        if end - start < SHORTEST_SECONDS:
            continue
        spectrum = voice_mel(at_level(window.samples[first:last]), mels)
        length = min(frames, len(spectrum))
        begins = sorted({*range(0, len(spectrum) - length + 1, STEP_FRAMES), len(spectrum) - length})
        yield Spans(
            mels=np.stack([spectrum[begin : begin + length] for begin in begins]),
            times=tuple(start + (begin + length / 2) / FRAMES_A_SECOND for begin in begins),
            utterance=(start, end),
        )


def voices_of(looks: Sequence[Look], bounds: Speakers) -> npt.NDArray[np.int64]:
    """The voice that each look is at, [looks] of 0, 1, 2 …"""
    if not looks:
        return np.empty(0, np.int64)
    vectors = np.stack([look.vector for look in looks])
    neighbours = -(-len(vectors) // MAX_CLUSTERED)
    starts = range(0, len(vectors), neighbours)
    averaged = np.stack([unit(vectors[start : start + neighbours].sum(axis=0)) for start in starts])
    found = clusters(averaged, alike=ALIKE, least=bounds.least, most=bounds.most)
    sizes = np.bincount(found)
    enough = min(STRAY, len(averaged) / 10)
    kept = [voice for voice in np.argsort(-sizes) if sizes[voice] >= enough]
    kept = kept if len(kept) >= bounds.least else list(np.argsort(-sizes)[: bounds.least])
    centres = np.stack([unit(averaged[found == voice].sum(axis=0)) for voice in kept])
    nearest: npt.NDArray[np.int64] = (vectors @ centres.T).argmax(axis=1)
    return nearest


class Timeline:
    """Whose voice is heard when: the looks at a recording, found by their times."""

    def __init__(self, looks: Sequence[Look], voices: npt.NDArray[np.int64]) -> None:
        """Looks in the order of time, and the voice that each is at, [looks]."""
        self._times = [look.time for look in looks]
        self._voices: list[int] = voices.tolist()
        self._utterances: list[tuple[float, float]] = []
        """As far as they were looked at, in the order of time; they do not overlap."""
        self._firsts: list[int] = []
        """The first look at each utterance, and behind them how many looks there are."""
        for utterance, places in groupby(range(len(looks)), key=lambda place: looks[place].utterance):
            self._utterances.append(utterance)
            self._firsts.append(next(places))
        self._firsts.append(len(looks))

    def voice(self, word: TimedWord) -> int:
        """The voice that says a word: of the nearest look, if there is one of the same utterance, at that."""
        if not self._times:
            return 0
        middle = (word.start + word.end) / 2
        first, last = self._looks_at(middle)
        after = bisect_left(self._times, middle, first, last)
        near = range(max(after - 1, first), min(after + 1, last))
        return self._voices[min(near, key=lambda place: abs(self._times[place] - middle))]

    def _looks_at(self, time: float) -> tuple[int, int]:
        """(the first look, the one after the last) at the utterance of a moment; of all, where none was looked at."""
        place = bisect_right(self._utterances, (time, math.inf)) - 1
        if place >= 0 and time <= self._utterances[place][1]:
            return self._firsts[place], self._firsts[place + 1]
        return 0, len(self._times)


def split(transcript: Transcript, voices: Sequence[int]) -> list[tuple[Transcript, int]]:
    """(what one speaker says, whose voice it is), split between words where the voice changes.

    Other transcripts are of the whole, so that parts have none.
    """
    runs = [list(run) for _, run in groupby(range(len(voices)), key=voices.__getitem__)]
    if len(runs) <= 1:
        return [(transcript, voices[0] if voices else 0)]
    texts = _texts(transcript, [run[0] for run in runs])
    return [(_part(transcript, run, text), voices[run[0]]) for run, text in zip(runs, texts, strict=True)]


def _part(transcript: Transcript, run: Sequence[int], text: str) -> Transcript:
    words = transcript.words[run[0] : run[-1] + 1]
    logprobs = [logprob for word in words for logprob in word.logprobs]
    return replace(
        transcript,
        text=text,
        confidence=confidence(logprobs),
        start=transcript.start if run[0] == 0 else words[0].start,
        end=transcript.end if run[-1] == len(transcript.words) - 1 else words[-1].end,
        words=words,
        alternatives=(),
    )


def _texts(transcript: Transcript, firsts: Sequence[int]) -> list[str]:
    """The transcript cut before these words."""
    places: list[int] = []
    at = 0
    for word in transcript.words:
        at = max(transcript.text.find(word.text, at), at)
        places.append(at)
        at += len(word.text)
    cuts = [*(places[first] for first in firsts), len(transcript.text)]
    return [transcript.text[begin:end].strip() for begin, end in pairwise(cuts)]
