"""SpeechService.IdentifyLanguage: which language is spoken in a recording. Stage: task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.serving.needs import Needs, Settings, classes_of, unfit
from ortmesh.serving.types import Array, Tensors
from ortmesh.speech.v1.speech_pb2 import IdentifyLanguageRequest, IdentifyLanguageResponse, SpokenLanguage
from ortmesh_speech.audio import Samples
from ortmesh_speech.durations import duration
from ortmesh_speech.log_mel import log_mel
from ortmesh_speech.speech_only import speech_of

DEFAULT_RESULTS = 5
MAX_RESULTS = 100
ISO_CODES = {"jw": "jv"}
"""Whisper's own code for Javanese was never ISO's."""


class Hearing(Settings):
    """How a model hears."""

    mels: int = Field(default=80, ge=1)
    """Bands of its spectrogram."""
    max_seconds: int = Field(default=30, ge=1, le=30)
    """Of speech that it hears at once; less is filled up with silence. In shorter windows Whisper is less sure of the
    right language (synthesized German .51 instead of .68, Spanish .61 instead of .77)."""


NEEDS = Needs(
    Hearing,
    inputs={"mel": "FP32", "beam_width": "INT64"},
    outputs={"language_logprobs": 2},
    may_take={"want_text": "INT64"},
)


class IdentifyLanguage:
    """Recordings to languages, by the first 30 s of speech in them."""

    def __init__(self, models: Models) -> None:
        self.models = models
        models.require("identify_language", languages_of)

    async def __call__(self, request: IdentifyLanguageRequest, call: Call) -> IdentifyLanguageResponse:
        """The most probable languages first; none where nobody speaks. BadInput; OutOfRange."""
        most = results_of(request.max_results)
        model = self.models.choose("identify_language", request.model, call)
        hearing, languages = NEEDS.of(model), languages_of(model)
        speech = await speech_of(request.audio, hearing.max_seconds, self.models, call)
        found: list[SpokenLanguage] = []
        if len(speech.samples):
            tensors = await call.in_pool(prepare, speech.samples, hearing, "want_text" in model.inputs)
            outputs = await model(tensors, call, outputs=NEEDS.outputs)
            found = finish(outputs["language_logprobs"][0], languages, most)
        return IdentifyLanguageResponse(
            model=ModelVersion(name=model.name, version=model.version),
            languages=found,
            duration=duration(speech.read),
        )


def results_of(asked: int) -> int:
    """How many languages are told at most. BadInput unless there are 1 to 100, or 0 for 5."""
    if not 0 <= asked <= MAX_RESULTS:
        raise BadInput("max_results", f"{asked}: expected 1 to {MAX_RESULTS}, or 0 for {DEFAULT_RESULTS}")
    return asked or DEFAULT_RESULTS


def languages_of(model: Model) -> Sequence[str]:
    """The codes that a model's numbers are about. ModelFailed for a model that lacks what the task needs."""
    NEEDS.of(model)
    languages, classes = model.card.languages, classes_of(model, "language_logprobs")
    if not languages or classes not in (-1, len(languages)):
        raise unfit(model.card, f"it has {len(languages)} languages for {classes} classes")
    return languages


def prepare(samples: Samples, hearing: Hearing, may_stop: bool) -> Tensors:
    """Speech as the model takes it; `may_stop` when it can be told that no text is wanted."""
    mel = log_mel(samples, hearing.max_seconds, hearing.mels)
    tensors: Tensors = {"mel": mel, "beam_width": np.ones(1, np.int64)}
    return {**tensors, "want_text": np.zeros(1, np.int64)} if may_stop else tensors


def finish(logprobs: Array, languages: Sequence[str], most: int) -> list[SpokenLanguage]:
    """The most probable of the languages, by their log-probabilities [languages]."""
    best = np.argsort(-logprobs, kind="stable")[:most]
    return [
        SpokenLanguage(code=iso(languages[place]), confidence=min(float(np.exp(logprobs[place])), 1.0))
        for place in best.tolist()
    ]


def iso(code: str) -> str:
    """A model's code for a language as ISO 639-1 has it, or 639-3 where that has none."""
    return ISO_CODES.get(code, code)
