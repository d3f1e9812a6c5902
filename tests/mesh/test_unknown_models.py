"""Models and versions that are not there, asked for in every typed method: what is near is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import grpc
import pytest

from ortmesh import descriptors
from ortmesh.client import Client
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.speech.v1 import speech_pb2
from ortmesh.speech.v1.speech_pb2 import (
    Audio,
    DetectSpeechRequest,
    EmbedSpeakerRequest,
    RawAudio,
    RecognizeRequest,
    SynthesizeRequest,
)
from ortmesh.vision.v1 import vision_pb2
from ortmesh.vision.v1.vision_pb2 import Image, RawImage
from tests.mesh.bad import client, expect_refusal
from tests.mesh.conftest import Door

FAMILIES = ("vision", "speech", "nlp")
MISSING = grpc.StatusCode.NOT_FOUND
PIXEL = Image(raw=RawImage(width=1, height=1, format=vision_pb2.PIXEL_FORMAT_GRAY8, pixels=b"x"))
SILENCE = Audio(raw=RawAudio(sample_rate_hertz=16_000, format=speech_pb2.SAMPLE_FORMAT_S16LE, samples=bytes(3200)))
RAW = speech_pb2.StreamFormat(raw=speech_pb2.RawFormat(sample_rate_hertz=16_000, format=speech_pb2.SAMPLE_FORMAT_S16LE))
METHODS: Mapping[str, tuple[str, str, Callable[[Client, str], object]]] = {
    "vision.Classify": (
        "vision",
        "efficientnet-lite0",
        lambda to, model: to.vision.Classify(vision_pb2.ClassifyRequest(model=model, image=PIXEL)),
    ),
    "vision.Detect": (
        "vision",
        "centerface",
        lambda to, model: to.vision.Detect(vision_pb2.DetectRequest(model=model, image=PIXEL)),
    ),
    "vision.Embed": (
        "vision",
        "efficientnet-lite0",
        lambda to, model: to.vision.Embed(vision_pb2.EmbedRequest(model=model, images=[PIXEL])),
    ),
    "vision.ReadText": (
        "vision",
        "ppocr-v6-det",
        lambda to, model: to.vision.ReadText(vision_pb2.ReadTextRequest(model=model, image=PIXEL)),
    ),
    "speech.DetectSpeech": (
        "speech",
        "silero-vad",
        lambda to, model: to.speech.DetectSpeech(DetectSpeechRequest(model=model, audio=SILENCE)),
    ),
    "speech.EmbedSpeaker": (
        "speech",
        "resemblyzer",
        lambda to, model: to.speech.EmbedSpeaker(EmbedSpeakerRequest(model=model, audio=SILENCE)),
    ),
    "speech.IdentifyLanguage": (
        "speech",
        "whisper-tiny-en",
        lambda to, model: to.speech.IdentifyLanguage(speech_pb2.IdentifyLanguageRequest(model=model, audio=SILENCE)),
    ),
    "speech.Recognize": (
        "speech",
        "whisper-tiny-en",
        lambda to, model: to.speech.Recognize(RecognizeRequest(model=model, audio=SILENCE)),
    ),
    "speech.StreamingDetectSpeech": (
        "speech",
        "silero-vad",
        lambda to, model: list(
            to.speech.StreamingDetectSpeech(
                iter([speech_pb2.StreamingDetectSpeechRequest(config={"model": model, "format": RAW})])
            )
        ),
    ),
    "speech.StreamingRecognize": (
        "speech",
        "whisper-tiny-en",
        lambda to, model: list(
            to.speech.StreamingRecognize(
                iter([speech_pb2.StreamingRecognizeRequest(config={"model": model, "format": RAW})])
            )
        ),
    ),
    "speech.Synthesize": (
        "speech",
        "hibari",
        lambda to, model: list(to.speech.Synthesize(SynthesizeRequest(model=model, text="x"))),
    ),
    "nlp.CountTokens": (
        "nlp",
        "lid-176",
        lambda to, model: to.nlp.CountTokens(nlp_pb2.CountTokensRequest(model=model, text="x")),
    ),
    "nlp.Generate": (
        "nlp",
        "lid-176",
        lambda to, model: list(to.nlp.Generate(nlp_pb2.GenerateRequest(model=model, text="x"))),
    ),
    "nlp.DetectLanguage": (
        "nlp",
        "lid-176",
        lambda to, model: to.nlp.DetectLanguage(nlp_pb2.DetectLanguageRequest(model=model, texts=["x"])),
    ),
    "nlp.Embed": (
        "nlp",
        "all-minilm-l6-v2",
        lambda to, model: to.nlp.Embed(nlp_pb2.EmbedRequest(model=model, texts=["x"])),
    ),
    "nlp.FindEntities": (
        "nlp",
        "rampart",
        lambda to, model: to.nlp.FindEntities(nlp_pb2.FindEntitiesRequest(model=model, text="x")),
    ),
}
"""A model of each typed method, and how it is called by a name."""


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_model_is_not_found_and_near_ones_are_told(door: Door, method: str) -> None:
    family, model, send = METHODS[method]
    with client(door, family) as to:
        error = expect_refusal(lambda: send(to, model[:-1]), MISSING)
    assert model in (error.details() or "")


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_version_is_not_found_and_those_there_are_told(door: Door, method: str) -> None:
    family, model, send = METHODS[method]
    with client(door, family) as to:
        error = expect_refusal(lambda: send(to, f"{model}@9"), MISSING)
    assert "has no version '9'; it has 1" in (error.details() or "")


@pytest.mark.parametrize("model", ["@", "@1", "a@", "\0", "../x", "x" * 60_000, "\n" * 1000])
def test_no_name_of_a_model_is_too_odd(door: Door, model: str) -> None:
    with client(door, "nlp") as to:
        error = expect_refusal(lambda: METHODS["nlp.Embed"][2](to, model), MISSING)
    assert len(error.details() or "") < 1000


def test_every_typed_method_is_here() -> None:
    services = [descriptors.service(f"ortmesh.{family}.v1.{family.title()}Service") for family in FAMILIES]
    named = {
        f"{family}.{name}" for family, each in zip(FAMILIES, services, strict=True) for name in each.methods_by_name
    }
    assert named == METHODS.keys()
