"""What SpeechService answers: one line binds a task to its method."""

from __future__ import annotations

from typing import Final

from ortmesh.front.methods import Method, bind, generated
from ortmesh.serving.models import Models
from ortmesh.speech.v1 import speech_pb2
from ortmesh_speech.detect_speech import DetectSpeech
from ortmesh_speech.embed_speaker import EmbedSpeaker
from ortmesh_speech.identify_language import IdentifyLanguage
from ortmesh_speech.recognize import Recognize
from ortmesh_speech.streaming_detect_speech import StreamingDetectSpeech
from ortmesh_speech.streaming_recognize import StreamingRecognize
from ortmesh_speech.synthesize import Synthesize

FAMILY: Final = "speech"
SERVICE = "ortmesh.speech.v1.SpeechService"


def methods(models: Models) -> list[Method]:
    """The service's rows of the table of methods."""
    return bind(
        SERVICE,
        {
            "DetectSpeech": DetectSpeech(models),
            "EmbedSpeaker": EmbedSpeaker(models),
            "IdentifyLanguage": IdentifyLanguage(models),
            "Recognize": Recognize(models),
            "StreamingDetectSpeech": StreamingDetectSpeech(models),
            "StreamingRecognize": StreamingRecognize(models),
            "Synthesize": Synthesize(models),
        },
        messages=generated(speech_pb2),
    )
