"""Tasks: one function a method of the API; each asks the mesh as any application would. Stage: tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grpc
import numpy as np
from google.rpc import error_details_pb2

from demo.answers import Answers, Came, Classified, Compared, Line, Ranked, ReadPage, Recognized, Refused
from demo.failure import DemoFailed
from demo.inputs import PASSAGES, QUESTION, Inputs, Page, Picture, Recording
from demo.models import Models
from demo.tensors import MODEL, infer
from ortmesh.client import Client, status_of, violations
from ortmesh.common.v1 import common_pb2
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.speech.v1 import speech_pb2
from ortmesh.vision.v1 import vision_pb2

R = TypeVar("R")

NOT_A_PICTURE = b"Dear mesh, this is a letter and not a picture.\n"


def ask_all(mesh: Client, address: str, inputs: Inputs, models: Models) -> Answers:
    """Every task for which the models are there. DemoFailed when the mesh refuses what it must not."""
    sees, reads = models.serve("vision", "classify"), models.serve("vision", "read_text")
    hears, embeds = models.serve("speech", "recognize"), models.serve("nlp", "embed")
    try:
        return Answers(
            classified=tuple(classify(mesh, picture) for picture in inputs.pictures[:3]) if sees else (),
            compared=compare(mesh, inputs.pictures) if models.serve("vision", "embed") else None,
            read=tuple(read_text(mesh, page) for page in inputs.pages) if reads else (),
            recognized=tuple(recognize(mesh, recording) for recording in inputs.recordings) if hears else (),
            ranked=rank(mesh, QUESTION, PASSAGES) if embeds else None,
            tensors=infer(address, inputs.pictures[0], models.labels(MODEL)) if sees else None,
            refused=refusals(mesh, inputs.pictures[0]) if sees else (),
        )
    except grpc.RpcError as error:
        raise DemoFailed(f"the mesh answered {error.code().name}: {error.details()}") from error


def classify(mesh: Client, picture: Picture) -> Classified:
    """VisionService.Classify: what a picture shows."""
    request = vision_pb2.ClassifyRequest(image=vision_pb2.Image(encoded=picture.encoded), max_results=3)
    answer, came = _timed("VisionService.Classify", mesh.vision.Classify, request)
    return Classified(picture, tuple((label.name, label.score) for label in answer.labels), came)


def compare(mesh: Client, pictures: Sequence[Picture]) -> Compared:
    """VisionService.Embed: pictures as vectors of length 1, whose dot product is their cosine."""
    request = vision_pb2.EmbedRequest(images=[vision_pb2.Image(encoded=picture.encoded) for picture in pictures])
    answer, came = _timed("VisionService.Embed", mesh.vision.Embed, request)
    vectors = np.array([result.embedding.values for result in answer.results])
    cosines = (vectors @ vectors.T).tolist()
    return Compared(tuple(pictures), tuple(map(tuple, cosines)), vectors.shape[1], came)


def read_text(mesh: Client, page: Page) -> ReadPage:
    """VisionService.ReadText: the lines of a page and where they are."""
    request = vision_pb2.ReadTextRequest(image=vision_pb2.Image(encoded=page.picture.encoded))
    answer, came = _timed("VisionService.ReadText", mesh.vision.ReadText, request)
    lines = (
        Line(line.text, line.score, tuple((corner.x, corner.y) for corner in line.corners)) for line in answer.lines
    )
    return ReadPage(page, tuple(lines), came)


def recognize(mesh: Client, recording: Recording) -> Recognized:
    """SpeechService.Recognize: what is said in a recording."""
    request = speech_pb2.RecognizeRequest(audio=speech_pb2.Audio(encoded=recording.encoded))
    answer, came = _timed("SpeechService.Recognize", mesh.speech.Recognize, request)
    confidence = min((segment.confidence for segment in answer.segments), default=0.0)
    return Recognized(recording, answer.transcript, confidence, came)


def rank(mesh: Client, question: str, passages: Sequence[str]) -> Ranked:
    """NlpService.Embed: passages by how close their meaning is to a question's."""
    answer, came = _timed("NlpService.Embed", mesh.nlp.Embed, nlp_pb2.EmbedRequest(texts=[question, *passages]))
    asked, *rest = np.array([result.embedding.values for result in answer.results])
    closest = sorted(zip(passages, (float(asked @ vector) for vector in rest), strict=True), key=lambda pair: -pair[1])
    return Ranked(question, tuple(closest), len(asked), came)


def refusals(mesh: Client, picture: Picture) -> tuple[Refused, ...]:
    """Two requests that are wrong: what is sent, and what is asked for."""
    letter = vision_pb2.ClassifyRequest(image=vision_pb2.Image(encoded=NOT_A_PICTURE))
    misspelt = vision_pb2.ClassifyRequest(model="eficientnet", image=vision_pb2.Image(encoded=picture.encoded))
    return (
        refusal("a text file in place of a picture", mesh.vision.Classify, letter),
        refusal('a misspelt model: "eficientnet"', mesh.vision.Classify, misspelt),
    )


def refusal(what: str, method: Callable[[Any], Any], request: Any) -> Refused:
    """How the mesh refuses a request. DemoFailed when it does not."""
    began = time.perf_counter()
    try:
        method(request)
    except grpc.RpcError as error:
        came = Came("VisionService.Classify", "", time.perf_counter() - began)
        fields = tuple(field for field, _ in violations(error))
        return Refused(what, error.code().name, _reason(error), error.details() or "", fields, came)
    raise DemoFailed(f"the mesh accepted {what}")


def _reason(error: grpc.RpcError) -> str:
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for detail in status_of(error).details if detail.Unpack(info)), "")


def _timed(name: str, method: Callable[[Any], R], request: Any) -> tuple[R, Came]:
    """Calls a method whose answer says which model gave it."""
    began = time.perf_counter()
    answer: Any = method(request)
    seconds = time.perf_counter() - began
    model: common_pb2.ModelVersion = answer.model
    return answer, Came(name, f"{model.name}@{model.version}", seconds)
