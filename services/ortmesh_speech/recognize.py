"""SpeechService.Recognize: what is said in a recording, in the order of time. Stage: task."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from pydantic import Field
from tokenizers import Tokenizer

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.serving.executor.whisper_limits import (
    HIGHEST_COMPRESSION,
    LOWEST_MEAN_LOGPROB,
    MAX_BEAMS,
    SURE_OF_SILENCE,
    compression,
)
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.serving.needs import Needs, Settings, asset
from ortmesh.serving.tokenizing import load_tokenizer
from ortmesh.serving.types import Tensors
from ortmesh.speech.v1.speech_pb2 import RecognizeRequest, RecognizeResponse, Segment
from ortmesh_speech.audio import Recording
from ortmesh_speech.durations import duration
from ortmesh_speech.log_mel import log_mel
from ortmesh_speech.windows import Window, windows

TOGETHER = 4
"""Windows of one recording that are read and wait for the model at a time: an hour never floods pool or queue."""
LOWEST_MEAN_LOGPROB_OF_SILENCE = -0.6
"""What is heard into silence ("you", "Thank you.") is less probable than this; speech there would not be."""


class Hearing(Settings):
    """How a model hears."""

    tokenizer: str = "tokenizer.json"
    """The file of its tokenizer, as the library `tokenizers` writes it."""
    mels: int = Field(default=80, ge=1)
    """Bands of its spectrogram."""
    beams: int = Field(default=5, ge=1, le=MAX_BEAMS)
    """Where the request names none."""


NEEDS = Needs(
    Hearing,
    inputs={"mel": "FP32", "beam_width": "INT64"},
    outputs={"tokens": 2, "mean_logprob": 1, "no_speech": 1},
)


class Recognize:
    """Recordings to text, read and recognized window by window."""

    def __init__(self, models: Models) -> None:
        self.models = models
        models.require("recognize", tokenizer_of)

    async def __call__(self, request: RecognizeRequest, call: Call) -> RecognizeResponse:
        """Segments in the order of time. BadInput for what is not audio and for beams out of range; OutOfRange."""
        check_beams(request.beam_width)
        model = self.models.choose("recognize", request.model, call)
        hearing = NEEDS.of(model)
        tokenizer = await call.in_pool(tokenizer_of, model)
        recording = await call.in_pool(Recording, request.audio)
        cut, beams = windows(recording), request.beam_width or hearing.beams
        segments: list[Segment] = []
        while (heard := await call.in_pool(prepare, cut, beams, hearing.mels)) is not None:
            outputs = await model.many([piece.tensors for piece in heard], call) if heard else []
            texts = (finish(piece.window, each, tokenizer) for piece, each in zip(heard, outputs, strict=True))
            segments.extend(segment for segment in texts if segment is not None)
        return RecognizeResponse(
            model=ModelVersion(name=model.name, version=model.version),
            transcript=" ".join(segment.transcript for segment in segments),
            segments=segments,
            duration=duration(recording.seconds),
        )


@dataclass(frozen=True, slots=True)
class Heard:
    """A window as the model takes it."""

    window: Window
    tensors: Tensors
    """`mel` float32 [1, mels, frames] and `beam_width` int64 [1]."""


def tokenizer_of(model: Model) -> Tokenizer:
    """A model's tokenizer, read once. ModelFailed for a model that lacks it or anything else that the task needs."""
    return asset(model, load_tokenizer, NEEDS.of(model).tokenizer)


def check_beams(beams: int) -> None:
    """BadInput unless there are 1 to 8 beams, or 0 for the model's default."""
    if not 0 <= beams <= MAX_BEAMS:
        raise BadInput("beam_width", f"{beams}: expected 1 to {MAX_BEAMS}, or 0 for the model's default")


def prepare(cut: Iterator[Window], beams: int, mels: int) -> list[Heard] | None:
    """Reads on in the recording: those of its next windows that are not silent; None at its end.

    It gives the thread back after so many windows, silent ones too: an hour of silence can take minutes to decode.
    """
    following = list(islice(cut, TOGETHER))
    if not following:
        return None
    return [
        Heard(window, {"mel": log_mel(window.samples, window.padded_seconds, mels), "beam_width": np.array([beams])})
        for window in following
        if not window.silent
    ]


def finish(window: Window, outputs: Tensors, tokenizer: Tokenizer) -> Segment | None:
    """The segment of a window; None when nothing is said in it, as far as the model can tell."""
    logprob, no_speech = float(outputs["mean_logprob"][0]), float(outputs["no_speech"][0])
    text = tokenizer.decode(outputs["tokens"][0].tolist()).strip()
    if not is_speech(text, logprob, no_speech):
        return None
    confidence = min(math.exp(logprob), 1.0)
    return Segment(transcript=text, start=duration(window.start), end=duration(window.end), confidence=confidence)


def is_speech(text: str, mean_logprob: float, no_speech: float) -> bool:
    """False for what a model writes when nobody speaks."""
    if mean_logprob < LOWEST_MEAN_LOGPROB or not re.search(r"\w", text):
        return False
    if no_speech > SURE_OF_SILENCE and mean_logprob < LOWEST_MEAN_LOGPROB_OF_SILENCE:
        return False
    return compression(text) <= HIGHEST_COMPRESSION
