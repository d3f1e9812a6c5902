"""The speech of a recording, without its pauses: by a model that detects speech, or by level. Stage: task.

The recording is read twice, to judge it and to cut it, so that it is never held as a whole: what is held is the
speech, as much as was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ortmesh.errors import NotFound
from ortmesh.front.call import Call
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.speech.v1.speech_pb2 import Audio
from ortmesh_speech.audio import SAMPLE_RATE, Recording, Samples
from ortmesh_speech.intervals import Rule, intervals
from ortmesh_speech.levels import FRAME, SILENT_DECIBELS, levels
from ortmesh_speech.voice_activity import VoiceActivity

Stretch: TypeAlias = tuple[float, float]
"""Seconds from the recording's start, to the second, which is no more part of it."""

RULE = Rule(min_silence=0.3)
"""Shorter pauses stay: they belong to how somebody speaks."""
STEADY_DECIBELS = 6.0
"""What rises no more above its background is noise or a hum: frames of noise differ by 1, speech by 20 and more."""
SPEECH_SHARE = 0.35
"""Of the way from the background to the loud parts: what is louder counts as speech."""


@dataclass(frozen=True, slots=True)
class Speech:
    """What is spoken in a recording."""

    samples: Samples
    """At 16 kHz, one stretch after another; empty where nobody speaks."""
    read: float
    """Seconds of the recording that were read."""

    @property
    def seconds(self) -> float:
        """How much speech there is."""
        return len(self.samples) / SAMPLE_RATE


async def speech_of(audio: Audio, limit: float, models: Models, call: Call) -> Speech:
    """The first `limit` seconds of speech; what comes behind them is not read.

    BadInput for what is not audio, OutOfRange for more than an hour; errors of the model that detects speech.
    """
    recording = await call.in_pool(Recording, audio)
    detector = detector_of(models, call)
    if detector is None:
        stretches = await _by_level(recording, call)
    else:
        stretches = await _by_model(recording, detector, limit, call)
    again = await call.in_pool(Recording, audio)
    parts = [part async for part in call.each(cuts(again, first_of(stretches, limit)))]
    return Speech(await call.in_pool(joined, parts), recording.seconds)


def detector_of(models: Models, call: Call) -> Model | None:
    """The mesh's model that detects speech; None where it has none. NotReady, ModelFailed."""
    try:
        return models.choose("detect_speech", "", call)
    except NotFound:
        return None


async def _by_model(recording: Recording, model: Model, limit: float, call: Call) -> list[Stretch]:
    """Stretches of speech, until there are `limit` seconds of them."""
    activity, found, speaking = VoiceActivity(model, call), list[Samples](), 0
    async with aclosing(activity.blocks(recording)) as blocks:
        async for block in blocks:
            found.append(block.speech)
            speaking += int(np.count_nonzero(block.speech >= RULE.threshold))
            if speaking * activity.frame_seconds >= limit:
                stretches = await call.in_pool(_stretches, found, activity.frame_seconds, recording.seconds)
                if sum(end - start for start, end in stretches) >= limit:
                    return stretches
    return await call.in_pool(_stretches, found, activity.frame_seconds, recording.seconds)


async def _by_level(recording: Recording, call: Call) -> list[Stretch]:
    """Stretches that are loud, in a recording that is not loud throughout."""
    found = [decibels async for decibels in call.each(frame_levels(recording))]
    loud = await call.in_pool(lambda: louder(joined(found)))
    return await call.in_pool(_stretches, [loud], FRAME / SAMPLE_RATE, recording.seconds)


def _stretches(found: Sequence[Samples], frame_seconds: float, seconds: float) -> list[Stretch]:
    return [(each.start, each.end) for each in intervals(joined(found), RULE, frame_seconds, seconds)]


def joined(parts: Sequence[Samples]) -> Samples:
    """The parts, one after another; there may be none."""
    return np.concatenate([np.empty(0, np.float32), *parts])


def frame_levels(blocks: Iterable[Samples]) -> Iterator[Samples]:
    """The levels of each 20 ms, in decibels below full scale, block by block; the last frame may be shorter."""
    held = np.empty(0, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        whole = len(held) // FRAME * FRAME
        if whole:
            yield levels(held[:whole])
        held = held[whole:]
    if len(held):
        yield levels(held)


def louder(decibels: Samples) -> Samples:
    """1 for each frame that is louder than the background, else 0."""
    background, loud = np.percentile(np.maximum(decibels, SILENT_DECIBELS), (10, 95))
    if loud - background < STEADY_DECIBELS:
        return np.zeros_like(decibels)
    speaking: Samples = (decibels >= background + SPEECH_SHARE * (loud - background)).astype(np.float32)
    return speaking


def first_of(stretches: Iterable[Stretch], limit: float) -> Iterator[Stretch]:
    """The stretches until `limit` seconds are full; the last one is cut off there."""
    for start, end in stretches:
        yield start, min(end, start + limit)
        limit -= end - start
        if limit <= 0:
            return


def cuts(blocks: Iterable[Samples], stretches: Iterable[Stretch]) -> Iterator[Samples]:
    """The samples within the stretches, which are in the order of time: of each block what it has of them."""
    ahead = [(round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)) for start, end in stretches]
    at = 0
    for block in blocks:
        if not ahead:
            return
        inside = [block[max(start - at, 0) : end - at] for start, end in ahead if start < at + len(block)]
        yield np.concatenate(inside) if inside else block[:0]
        at += len(block)
        ahead = [(start, end) for start, end in ahead if end > at]
