"""SpeechService.DetectSpeech: when somebody speaks in a recording. Stage: task."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.serving.needs import Needs, Settings
from ortmesh.speech.v1.speech_pb2 import (
    DetectSpeechRequest,
    DetectSpeechResponse,
    SpeechInterval,
    StreamingDetectSpeechConfig,
)
from ortmesh_speech.audio import SAMPLE_RATE, Recording, Samples
from ortmesh_speech.durations import duration, seconds_of
from ortmesh_speech.intervals import Rule, intervals

BLOCK_FRAMES = 128
"""Of one model call, 4 s of audio: long enough that the way to the model does not count, short enough that an hour
never lies in memory and a short recording does not wait for long ones."""
MAX_SECONDS = 10.0
"""Of `min_speech` and `min_silence`."""
DEFAULT = Rule()


class Framing(Settings):
    """How a model takes audio, in samples of 16 kHz."""

    frame: int = Field(default=512, ge=1)
    """What one of its probabilities is about."""
    context: int = Field(default=64, ge=0)
    """What it hears again of the block before."""


NEEDS = Needs(
    Framing,
    inputs={"samples": "FP32", "state": "FP32"},
    outputs={"speech": 2, "next_state": 3},
)


class DetectSpeech:
    """Recordings to stretches of speech, read and judged block by block; each block begins in the state of the last."""

    def __init__(self, models: Models) -> None:
        self.models = models
        models.require("detect_speech", NEEDS.of)

    async def __call__(self, request: DetectSpeechRequest, call: Call) -> DetectSpeechResponse:
        """Stretches in the order of time. BadInput for what is not audio and for bounds out of range; OutOfRange."""
        rule = rule_of(request)
        model = self.models.choose("detect_speech", request.model, call)
        framing = NEEDS.of(model)
        recording = await call.in_pool(Recording, request.audio)
        speech = [each async for each in judged(recording, model, call)]
        return DetectSpeechResponse(
            model=ModelVersion(name=model.name, version=model.version),
            intervals=await call.in_pool(finish, speech, rule, framing.frame / SAMPLE_RATE, recording.seconds),
            duration=duration(recording.seconds),
        )


async def judged(recording: Iterable[Samples], model: Model, call: Call) -> AsyncIterator[Samples]:
    """The probabilities of speech of a recording's frames, float32 [frames], read and judged block by block.

    BadInput, OutOfRange of the recording; errors of the model.
    """
    framing = NEEDS.of(model)
    blocks = blocks_of(recording, framing.frame, framing.context)
    state = np.zeros([max(size, 1) for size in model.inputs["state"].shape], np.float32)
    while (samples := await call.in_pool(read_on, blocks)) is not None:
        outputs = await model({"samples": samples, "state": state}, call, outputs=NEEDS.outputs)
        yield outputs["speech"][0]
        state = outputs["next_state"]


def rule_of(request: DetectSpeechRequest | StreamingDetectSpeechConfig, prefix: str = "") -> Rule:
    """What the request asks for. BadInput names the bound that is out of range, with the prefix."""
    if not 0 <= request.threshold <= 1:
        expected = f"expected 0 to 1, where 0 means {DEFAULT.threshold}"
        raise BadInput(f"{prefix}threshold", f"{request.threshold:g}: {expected}")

    def bound(field: Literal["min_speech", "min_silence"], default: float) -> float:
        given = request.HasField(field)
        return seconds_of(getattr(request, field), f"{prefix}{field}", MAX_SECONDS) if given else default

    return Rule(
        threshold=request.threshold or DEFAULT.threshold,
        min_speech=bound("min_speech", DEFAULT.min_speech),
        min_silence=bound("min_silence", DEFAULT.min_silence),
    )


def blocks_of(recording: Iterable[Samples], frame: int, context: int) -> Iterator[Samples]:
    """A recording's samples as the model takes them: [1, context + n x frame], n at most 128.

    The context is the end of the block before, at first silence; the last frame is filled up with silence.
    """
    length = BLOCK_FRAMES * frame
    held = np.zeros(context, np.float32)
    for samples in recording:
        held = np.concatenate([held, samples])
        while len(held) >= context + length:
            yield held[None, : context + length]
            held = held[length:]
    left = len(held) - context
    if left:
        yield np.pad(held, (0, -left % frame))[None]


def read_on(blocks: Iterator[Samples]) -> Samples | None:
    """The recording's next block; None at its end. BadInput, OutOfRange."""
    return next(blocks, None)


def finish(speech: Sequence[Samples], rule: Rule, frame_seconds: float, seconds: float) -> list[SpeechInterval]:
    """The API's intervals of all blocks' probabilities, each [frames]."""
    probabilities = np.concatenate(speech) if speech else np.empty(0, np.float32)
    return [
        SpeechInterval(start=duration(each.start), end=duration(each.end), confidence=each.confidence)
        for each in intervals(probabilities, rule, frame_seconds, seconds)
    ]
