"""SpeechService.EmbedSpeaker: a voice as a vector, whose cosine with another tells how alike they are. Stage: task."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.errors import NoSpeech
from ortmesh.front.call import Call
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.serving.needs import Needs, Settings
from ortmesh.serving.types import Array
from ortmesh.serving.vectors import check_encoding, embedding, unit
from ortmesh.speech.v1.speech_pb2 import EmbedSpeakerRequest, EmbedSpeakerResponse
from ortmesh_speech.audio import Samples
from ortmesh_speech.durations import duration
from ortmesh_speech.speech_only import speech_of
from ortmesh_speech.voice_mel import FRAMES, MELS, at_level, partials

MAX_SECONDS = 120.0
"""Of speech that is heard: with more of it a voice's vector hardly moves, and an hour would take half a minute."""


class Voice(Settings):
    """How a model hears a voice."""

    mels: int = Field(default=MELS, ge=1)
    """Bands of its spectrogram."""
    frames: int = Field(default=FRAMES, ge=80)
    """Of a window, 10 ms each; windows are 0.77 s apart."""


NEEDS = Needs(Voice, inputs={"mels": "FP32"}, outputs={"embedding": 2})


class EmbedSpeaker:
    """Recordings to voices, by the first two minutes of speech in them."""

    def __init__(self, models: Models) -> None:
        self.models = models
        models.require("embed_speaker", NEEDS.of)

    async def __call__(self, request: EmbedSpeakerRequest, call: Call) -> EmbedSpeakerResponse:
        """One voice. BadInput for what is not audio and for an unknown encoding; OutOfRange; NoSpeech."""
        check_encoding(request.encoding)
        model = self.models.choose("embed_speaker", request.model, call)
        speech = await speech_of(request.audio, MAX_SECONDS, self.models, call)
        if not len(speech.samples):
            raise NoSpeech(f"nobody speaks in the {speech.read:.2f} s of audio")
        vector = await voice_of(speech.samples, model, call)
        return EmbedSpeakerResponse(
            model=ModelVersion(name=model.name, version=model.version),
            embedding=embedding(vector, request.encoding, normalized=True),
            speech=duration(speech.seconds),
            duration=duration(speech.read),
        )


async def voice_of(samples: Samples, model: Model, call: Call) -> Array:
    """The vector [dimension], of length 1, of whoever speaks in samples at 16 kHz without pauses, at least one."""
    voice = NEEDS.of(model)
    windows = await call.in_pool(prepare, samples, voice)
    parts = []
    async for several in call.each(windows):
        outputs = await model({"mels": several}, call, outputs=NEEDS.outputs)
        parts.append(outputs["embedding"])
    return unit(np.concatenate(parts).mean(axis=0, dtype=np.float64))


def prepare(samples: Samples, voice: Voice) -> Iterator[Samples]:
    """The windows of samples as the model takes them: float32 [n, frames, mels], a few at a time."""
    return partials(at_level(samples), voice.frames, voice.mels)
