"""What SpeechService answers: one line binds a task to its method."""

from __future__ import annotations

from typing import Final

from ortmesh.front.methods import Method, bind, generated
from ortmesh.serving.models import Models
from ortmesh.speech.v1 import speech_pb2
from ortmesh_speech.detect_speech import DetectSpeech
from ortmesh_speech.recognize import Recognize

FAMILY: Final = "speech"
SERVICE = "ortmesh.speech.v1.SpeechService"


def methods(models: Models) -> list[Method]:
    """The service's rows of the table of methods."""
    return bind(
        SERVICE,
        {"DetectSpeech": DetectSpeech(models), "Recognize": Recognize(models)},
        messages=generated(speech_pb2),
    )
