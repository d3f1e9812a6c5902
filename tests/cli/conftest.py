"""The command run in this process, and a small mesh on a real port for it to call."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, status_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from typer.testing import CliRunner, Result

from ortmesh.cli.app import app
from ortmesh.common.v1 import common_pb2
from ortmesh.models.v1 import models_pb2, models_pb2_grpc
from ortmesh.nlp.v1 import nlp_pb2, nlp_pb2_grpc
from ortmesh.speech.v1 import speech_pb2, speech_pb2_grpc
from ortmesh.vision.v1 import vision_pb2, vision_pb2_grpc

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ORTMESH_") and name != "ORTMESH_MODELS"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def run() -> Run:
    """`run("models", "list")`: the command's exit code, output and errors."""

    def invoke(*arguments: object, stdin: bytes | None = None, **context: Any) -> Result:
        return CliRunner().invoke(app, [str(each) for each in arguments], input=stdin, **context)

    return invoke


class Mesh(
    nlp_pb2_grpc.NlpServiceServicer,
    speech_pb2_grpc.SpeechServiceServicer,
    models_pb2_grpc.ModelServiceServicer,
):
    """Answers with what a test prepared, by the method's name; keeps the last request."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.requests: list[Any] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        nlp_pb2_grpc.add_NlpServiceServicer_to_server(self, self._server)
        vision_pb2_grpc.add_VisionServiceServicer_to_server(_Vision(self), self._server)
        speech_pb2_grpc.add_SpeechServiceServicer_to_server(self, self._server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        self.health = HealthServicer()  # it is SERVING at once
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        stopped: threading.Event = self._server.stop(None)
        stopped.wait()

    def answer(self, name: str, request: Any, context: Any) -> Any:
        self.requests.append(request)
        prepared = self.answers[name]
        if isinstance(prepared, status_pb2.Status):
            details = (("grpc-status-details-bin", prepared.SerializeToString()),)
            context.set_trailing_metadata(details)
            context.abort(_CODES[prepared.code], prepared.message)
        return prepared.pop(0) if isinstance(prepared, list) else prepared

    def Embed(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self.answer("nlp.Embed", request, context)

    def DetectLanguage(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self.answer("DetectLanguage", request, context)

    def FindEntities(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self.answer("FindEntities", request, context)

    def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802
        return iter(self.answer("Generate", request, context))

    def CountTokens(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self.answer("CountTokens", request, context)

    def Recognize(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self.answer("Recognize", request, context)

    def DetectSpeech(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self.answer("DetectSpeech", request, context)

    def EmbedSpeaker(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self.answer("EmbedSpeaker", request, context)

    def IdentifyLanguage(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self.answer("IdentifyLanguage", request, context)

    def Synthesize(self, request: Any, context: Any) -> Any:  # noqa: N802
        return iter(self.answer("Synthesize", request, context))

    def StreamingDetectSpeech(self, requests: Any, context: Any) -> Any:  # noqa: N802
        return iter(self.answer("StreamingDetectSpeech", list(requests), context))

    def StreamingRecognize(self, requests: Any, context: Any) -> Any:  # noqa: N802
        return iter(self.answer("StreamingRecognize", list(requests), context))

    def ListModels(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self.answer("ListModels", request, context)

    def GetModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self.answer("GetModel", request, context)

    def WatchModels(self, request: Any, context: Any) -> Any:  # noqa: N802
        return iter([self.answer("WatchModels", request, context)])


class _Vision(vision_pb2_grpc.VisionServiceServicer):
    """Apart, because both families have a method Embed."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._mesh.answer("Classify", request, context)

    def Embed(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._mesh.answer("vision.Embed", request, context)

    def Detect(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._mesh.answer("Detect", request, context)

    def ReadText(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._mesh.answer("ReadText", request, context)


_CODES = {code.value[0]: code for code in grpc.StatusCode}


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mesh]:
    """A mesh, where ORTMESH_ADDRESS says."""
    made = Mesh()
    monkeypatch.setenv("ORTMESH_ADDRESS", made.address)
    yield made
    made.close()


def status(code: str, message: str, *details: Any) -> status_pb2.Status:
    """A status as the front sends it."""
    packed = [any_pb2.Any() for _ in details]
    for each, detail in zip(packed, details, strict=True):
        each.Pack(detail)
    return status_pb2.Status(code=code_pb2.Code.Value(code), message=message, details=packed)


def info(reason: str) -> ErrorInfo:
    return ErrorInfo(reason=reason, domain="ortmesh")


def retry(seconds: float) -> RetryInfo:
    made = RetryInfo()
    made.retry_delay.FromNanoseconds(int(seconds * 1e9))
    return made


def bad(field: str, description: str) -> BadRequest:
    return BadRequest(field_violations=[BadRequest.FieldViolation(field=field, description=description)])


def version(name: str) -> common_pb2.ModelVersion:
    return common_pb2.ModelVersion(name=name, version="1")


def texts(*vectors: list[float]) -> nlp_pb2.EmbedResponse:
    """An answer of NlpService.Embed."""
    results = [
        nlp_pb2.EmbedResult(embedding=common_pb2.Embedding(values=vector, dimension=len(vector), normalized=True))
        for vector in vectors
    ]
    return nlp_pb2.EmbedResponse(model=version("minilm"), results=results)


def pictures(*vectors: list[float]) -> vision_pb2.EmbedResponse:
    """An answer of VisionService.Embed."""
    results = [
        vision_pb2.EmbedResult(embedding=common_pb2.Embedding(values=vector, dimension=len(vector), normalized=True))
        for vector in vectors
    ]
    return vision_pb2.EmbedResponse(model=version("lite0"), results=results)


def segment(transcript: str, start: float, end: float) -> speech_pb2.Segment:
    made = speech_pb2.Segment(transcript=transcript, confidence=0.9)
    made.start.FromNanoseconds(int(start * 1e9))
    made.end.FromNanoseconds(int(end * 1e9))
    return made


def model(name: str, state: models_pb2.ModelState.ValueType = models_pb2.MODEL_STATE_READY) -> models_pb2.Model:
    return models_pb2.Model(name=name, version="1", family="nlp", tasks=["embed"], default_version=True, state=state)
