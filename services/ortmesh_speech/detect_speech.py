"""SpeechService.DetectSpeech: when somebody speaks in a recording. Stage: task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh.speech.v1.speech_pb2 import (
    DetectSpeechRequest,
    DetectSpeechResponse,
    SpeechInterval,
    StreamingDetectSpeechConfig,
)
from ortmesh_speech.audio import Recording, Samples
from ortmesh_speech.durations import duration, seconds_of
from ortmesh_speech.intervals import Rule, intervals
from ortmesh_speech.voice_activity import NEEDS, VoiceActivity

MAX_SECONDS = 10.0
"""Of `min_speech` and `min_silence`."""
DEFAULT = Rule()


class DetectSpeech:
    """Recordings to stretches of speech, read and judged block by block; each block begins in the state of the last."""

    def __init__(self, models: Models) -> None:
        self.models = models
        models.require("detect_speech", NEEDS.of)

    async def __call__(self, request: DetectSpeechRequest, call: Call) -> DetectSpeechResponse:
        """Stretches in the order of time. BadInput for what is not audio and for bounds out of range; OutOfRange."""
        rule = rule_of(request)
        model = self.models.choose("detect_speech", request.model, call)
        activity = VoiceActivity(model, call)
        recording = await call.in_pool(Recording, request.audio)
        speech = [block.speech async for block in activity.blocks(recording)]
        return DetectSpeechResponse(
            model=ModelVersion(name=model.name, version=model.version),
            intervals=await call.in_pool(finish, speech, rule, activity.frame_seconds, recording.seconds),
            duration=duration(recording.seconds),
        )


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


def finish(speech: Sequence[Samples], rule: Rule, frame_seconds: float, seconds: float) -> list[SpeechInterval]:
    """The API's intervals of all blocks' probabilities, each [frames]."""
    probabilities = np.concatenate(speech)
    return [
        SpeechInterval(start=duration(each.start), end=duration(each.end), confidence=each.confidence)
        for each in intervals(probabilities, rule, frame_seconds, seconds)
    ]
