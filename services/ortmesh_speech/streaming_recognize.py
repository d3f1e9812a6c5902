"""SpeechService.StreamingRecognize: what is said, while it is said. Stage: task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.speech.v1.speech_pb2 import (
    StreamingModels,
    StreamingRecognizeConfig,
    StreamingRecognizeRequest,
    StreamingRecognizeResponse,
)
from ortmesh_speech.dictation import Dictation
from ortmesh_speech.durations import seconds_of
from ortmesh_speech.hints import check_language
from ortmesh_speech.interim import Interim, vocabulary_of
from ortmesh_speech.options import Options, options_of
from ortmesh_speech.recognizer import Recognizer, check_beams
from ortmesh_speech.stream_requests import Incoming, config_message
from ortmesh_speech.voice_activity import VoiceActivity

Response = StreamingRecognizeResponse

END_SILENCE_SECONDS = 0.5
LEAST_SECONDS, MOST_SECONDS = 0.1, 5.0
"""Of `end_silence`."""


class StreamingRecognize:
    """Audio as it comes to text: interim results of a small model, results of the one that Recognize uses."""

    def __init__(self, models: Models) -> None:
        self.models = models
        models.require("streaming_recognize", vocabulary_of)

    async def __call__(
        self, requests: AsyncIterator[StreamingRecognizeRequest], call: Call
    ) -> AsyncIterator[StreamingRecognizeResponse]:
        """The models, what is said as it is said, the length of the audio.

        BadInput for the configuration and what is not audio, OutOfRange, Expired; errors of the models.
        """
        config = (await config_message(requests)).config
        end_silence, options = check(config)
        detector = self.models.choose("detect_speech", "", call)
        model = self.models.choose("recognize", config.model, call, field="config.model")
        recognizer = await call.in_pool(Recognizer, model, options, config.beam_width, "config.options")
        told, interim = StreamingModels(model=_version(model)), None
        if config.interim_results:
            small = self.models.choose("streaming_recognize", config.interim_model, call, field="config.interim_model")
            check_language(options.language, small, "config.interim_model")
            interim = await call.in_pool(Interim, small)
            told.interim_model.CopyFrom(_version(small))
        incoming, activity = Incoming(requests, config.format, call), VoiceActivity(detector, call)
        dictation = Dictation(activity, recognizer, interim, end_silence, call, with_words=options.words)
        yield Response(models=told)
        listening = asyncio.create_task(dictation.listen(incoming))
        try:
            async for message in dictation.outgoing:
                yield message
        finally:
            listening.cancel()
            await asyncio.wait((listening,))


def check(config: StreamingRecognizeConfig) -> tuple[float, Options]:
    """(the seconds of silence that end what was said, the options). BadInput names what is out of range."""
    check_beams(config.beam_width, "config.beam_width")
    options = options_of(config.options, "config.options")
    if options.speakers is not None:
        raise BadInput("config.options.diarization", "is for recordings: in a stream nobody is told apart")
    if not config.HasField("end_silence"):
        return END_SILENCE_SECONDS, options
    return seconds_of(config.end_silence, "config.end_silence", MOST_SECONDS, LEAST_SECONDS), options


def _version(model: Model) -> ModelVersion:
    return ModelVersion(name=model.name, version=model.version)
