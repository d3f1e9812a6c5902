"""A mix of requests of all families, many of them in flight at once, whose right answers are known from before."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import pytest
import skimage
import soundfile
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from ortmesh.client import channel_options
from ortmesh.descriptors import oip
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.speech.v1 import speech_pb2
from ortmesh.vision.v1 import vision_pb2
from tests.speech.voices import say

FAMILIES = ("vision", "speech", "nlp")
INFER = "/inference.GRPCInferenceService/ModelInfer"
DOUBLER = "doubler"
"""The added model of `tests.serving.graphs.double`, in the family nlp."""
CHANNELS = 4
"""Connections: a gateway takes 100 calls on one, and the rest would wait in the caller's library."""
CALL_SECONDS = 60.0
CLOSE = 1e-3
"""How far a number may be from its twin: neighbours in a batch move the last bits of a sum."""


@dataclass(frozen=True, eq=False)
class Ask:
    """One request of a method."""

    family: str
    path: str
    request: Message
    answer: type[Message]


def asks() -> list[Ask]:
    """200 requests of nine methods and of an added model's tensors, the families interleaved: 1 to 2 s of work."""
    kinds = [*_texts(), *_pictures(), *_speech()]
    turns = [kind[number % len(kind)] for kind, count in kinds for number in range(count)]
    made = [turns[index] for index in np.random.default_rng(0).permutation(len(turns))]
    assert len(made) == 200
    return made


def _texts() -> Iterator[tuple[list[Ask], int]]:
    service = "/ortmesh.nlp.v1.NlpService"
    texts = ["Where is the station?", "The train stops there, says Maria Gonzalez.", "I like soup; call 617-555-0142."]
    for method, count in (("Embed", 50), ("DetectLanguage", 35), ("FindEntities", 30)):
        request, answer = getattr(nlp_pb2, f"{method}Request"), getattr(nlp_pb2, f"{method}Response")
        several = method != "FindEntities"
        yield (
            [
                Ask("nlp", f"{service}/{method}", request(texts=[text]) if several else request(text=text), answer)
                for text in texts
            ],
            count,
        )
    tensors = [np.full((2, 4), number, np.float32) for number in range(5)]
    yield [Ask("nlp", INFER, infer_request(DOUBLER, x), oip("ModelInferResponse")) for x in tensors], 35


def infer_request(model: str, x: Any) -> Message:
    """Inference on one tensor `x` of 32-bit floats."""
    request: Any = oip("ModelInferRequest")(model_name=model)
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    request.raw_input_contents.append(x.tobytes())
    return request  # type: ignore[no-any-return]


def _pictures() -> Iterator[tuple[list[Ask], int]]:
    service, folder = "/ortmesh.vision.v1.VisionService", Path(skimage.__file__).parent / "data"
    photos = [
        vision_pb2.Image(encoded=(folder / name).read_bytes()) for name in ("coffee.png", "chelsea.png", "rocket.jpg")
    ]
    yield (
        [
            Ask("vision", f"{service}/Classify", vision_pb2.ClassifyRequest(image=each), vision_pb2.ClassifyResponse)
            for each in photos
        ],
        18,
    )
    yield (
        [
            Ask("vision", f"{service}/Embed", vision_pb2.EmbedRequest(images=[each]), vision_pb2.EmbedResponse)
            for each in photos
        ],
        8,
    )
    face = vision_pb2.Image(encoded=(folder / "astronaut.png").read_bytes())
    yield [Ask("vision", f"{service}/Detect", vision_pb2.DetectRequest(image=face), vision_pb2.DetectResponse)], 4
    page = vision_pb2.Image(encoded=_page())
    yield [Ask("vision", f"{service}/ReadText", vision_pb2.ReadTextRequest(image=page), vision_pb2.ReadTextResponse)], 4


def _page() -> bytes:
    page, file = Pillow.new("RGB", (320, 64), "white"), io.BytesIO()
    ImageDraw.Draw(page).text((10, 10), "Invoice No. 48213", fill="black", font=ImageFont.load_default(28))
    page.save(file, "PNG")
    return file.getvalue()


def _speech() -> Iterator[tuple[list[Ask], int]]:
    service, file = "/ortmesh.speech.v1.SpeechService", io.BytesIO()
    soundfile.write(file, say("The museum is closed on Mondays."), 16_000, format="WAV", subtype="PCM_16")
    audio = speech_pb2.Audio(encoded=file.getvalue())
    yield (
        [
            Ask(
                "speech",
                f"{service}/DetectSpeech",
                speech_pb2.DetectSpeechRequest(audio=audio),
                speech_pb2.DetectSpeechResponse,
            )
        ],
        12,
    )
    yield (
        [Ask("speech", f"{service}/Recognize", speech_pb2.RecognizeRequest(audio=audio), speech_pb2.RecognizeResponse)],
        4,
    )


class Flight:
    """All requests sent at once, over several connections. `with` it: then none is left when it ends.

    Of the families in `again` each answer is followed by its request once more, so that all are in flight at any
    moment, until the family lands.
    """

    def __init__(self, address: str, asked: Sequence[Ask], *, again: Iterable[str] = ()) -> None:
        self._again = set(again)
        self._answered: Counter[str] = Counter()
        self._changed = threading.Condition()
        options = [*channel_options(), ("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.insecure_channel(address, options) for _ in range(CHANNELS)]
        self._calls: list[tuple[Ask, Any]] = []
        for number, ask in enumerate(asked):
            self._send(number, ask)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels:
            channel.close()

    def _send(self, number: int, ask: Ask) -> None:
        method: Any = self._channels[number % CHANNELS].unary_unary(
            ask.path,
            request_serializer=type(ask.request).SerializeToString,
            response_deserializer=ask.answer.FromString,
        )
        call = method.future(ask.request, timeout=CALL_SECONDS)
        with self._changed:
            self._calls.append((ask, call))
        call.add_done_callback(lambda _: self._ended(number, ask, call))

    def _ended(self, number: int, ask: Ask, call: Any) -> None:
        with self._changed:
            self._answered[ask.family] += 1
            self._changed.notify_all()
            if ask.family in self._again and call.exception() is None:
                self._send(number, ask)

    def until_answered(self, family: str, count: int) -> None:
        """Waits for so many of a family's answers."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._answered[family] >= count, CALL_SECONDS)

    def land(self, family: str) -> None:
        """From now on no request of the family is sent again."""
        with self._changed:
            self._again.discard(family)

    def answers(self) -> list[tuple[Ask, Message]]:
        """All that was asked and answered, in the order of sending, once all have landed; fails, naming the methods,
        when a call failed."""
        assert not self._again
        failed: Counter[str] = Counter()
        for ask, call in self._calls:
            error: Any = call.exception()
            if error is not None:
                failed[f"{ask.path}: {error.code().name}: {error.details()}"] += 1
        assert not failed, f"lost {failed.total()} of {len(self._calls)}: {dict(failed)}"
        return [(ask, call.result()) for ask, call in self._calls]


def right_answers(address: str, asked: Sequence[Ask]) -> Mapping[Ask, Message]:
    """What an unharmed mesh answers to each different request."""
    different = list(dict.fromkeys(asked))
    with Flight(address, different) as flight:
        return dict(flight.answers())


def same(one: Any, other: Any) -> bool:
    """True for two answers, or parts of them, that differ in no more than the last bits of a number."""
    if isinstance(one, Message):
        return same(_plain(one), _plain(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == (pytest.approx(other, rel=CLOSE, abs=CLOSE) if isinstance(one, float) else other))


def _plain(message: Any) -> Any:
    return MessageToDict(message)
