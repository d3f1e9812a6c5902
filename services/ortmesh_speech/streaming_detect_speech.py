"""SpeechService.StreamingDetectSpeech: when somebody speaks, while it is spoken. Stage: task."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator

from ortmesh.common.v1.common_pb2 import ModelVersion
from ortmesh.front.call import Call
from ortmesh.serving.models import Models
from ortmesh.speech.v1.speech_pb2 import SpeechInterval, StreamingDetectSpeechRequest, StreamingDetectSpeechResponse
from ortmesh_speech.detect_speech import rule_of
from ortmesh_speech.durations import duration
from ortmesh_speech.endpointing import Endpointer, Event, Started
from ortmesh_speech.stream_requests import Incoming, config_message
from ortmesh_speech.voice_activity import NEEDS, VoiceActivity

Response = StreamingDetectSpeechResponse


class StreamingDetectSpeech:
    """Audio as it comes to stretches of speech as they begin and end: those that DetectSpeech finds in the whole."""

    def __init__(self, models: Models) -> None:
        self.models = models
        models.require("detect_speech", NEEDS.of)

    async def __call__(
        self, requests: AsyncIterator[StreamingDetectSpeechRequest], call: Call
    ) -> AsyncIterator[StreamingDetectSpeechResponse]:
        """The model, then starts and intervals in the order of time, then the length of the audio.

        BadInput for the configuration and what is not audio, OutOfRange, Expired; errors of the model.
        """
        config = (await config_message(requests)).config
        rule = rule_of(config, "config.")
        model = self.models.choose("detect_speech", config.model, call, field="config.model")
        incoming, activity = Incoming(requests, config.format, call), VoiceActivity(model, call)
        endpointer = Endpointer(rule, activity.frame_seconds)
        yield Response(model=ModelVersion(name=model.name, version=model.version))
        async for samples in incoming:
            for message in messages(endpointer.push((await activity.hear(samples)).speech)):
                yield message
        for message in messages(endpointer.rest((await activity.rest()).speech, incoming.seconds)):
            yield message
        yield Response(duration=duration(incoming.seconds))


def messages(events: Iterable[Event]) -> Iterator[StreamingDetectSpeechResponse]:
    """What is told of events."""
    for event in events:
        if isinstance(event, Started):
            yield Response(started=duration(event.start))
        else:
            interval = SpeechInterval(start=duration(event.start), end=duration(event.end), confidence=event.confidence)
            yield Response(interval=interval)
