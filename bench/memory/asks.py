"""The requests of the run: twelve kinds in turn, of every method, in sizes that never repeat."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import skimage
import soundfile
import soxr
from hibari import Hibari
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from bench.memory.spread import ORDER, OTHER, size
from ortmesh.descriptors import oip
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.speech.v1 import speech_pb2
from ortmesh.vision.v1 import vision_pb2

SIDE = (24, 2600)
"""Pixels: up to 6.8 megapixels, and many that are long and thin."""
LETTERS = (1, 6000)
SECONDS = (0.05, 30.0)
TEXTS = 24
"""Most texts of one request."""
LINES = 14
"""Most lines on a page: each is a row for the model that reads."""
VISION, SPEECH, NLP = (
    f"/ortmesh.{package}.v1.{service}"
    for package, service in (("vision", "VisionService"), ("speech", "SpeechService"), ("nlp", "NlpService"))
)
INFER = "/inference.GRPCInferenceService/ModelInfer"
RATES = (16_000, 44_100, 8_000)
SPOKEN = """The museum is closed on Mondays, but the gardens are open every day. He paid for the coffee, folded his
newspaper, and left without a word. Our neighbors planted apple trees along the fence last spring. They built a small
bridge of wood across the stream behind the school. When the storm was over, the fishermen counted the damage to their
nets. The committee will decide about the new playground next week. Fresh bread and warm soup were waiting on the
kitchen table. The engineer explained how the machine sorts letters by their size."""
WORDS = (SPOKEN + " Maria Gonzalez of 12 Elm Street, Boston, write to maria@example.org or call 617-555-0142").split()


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a method."""

    path: str
    request: Any


def ask(number: int) -> Ask:
    """The request of this number: the kinds take turns, each with sizes of its own."""
    turn, kind = divmod(number, len(KINDS))
    return KINDS[kind](turn)


def _classify(turn: int) -> Ask:
    return Ask(f"{VISION}/Classify", vision_pb2.ClassifyRequest(image=_photo(turn)))


def _embed_pictures(turn: int) -> Ask:
    images = [_photo(5 * turn + place, most=900) for place in range(1 + turn % 5)]
    return Ask(f"{VISION}/Embed", vision_pb2.EmbedRequest(images=images))


def _detect(turn: int) -> Ask:
    return Ask(f"{VISION}/Detect", vision_pb2.DetectRequest(image=_photo(turn)))


def _read_text(turn: int) -> Ask:
    return Ask(f"{VISION}/ReadText", vision_pb2.ReadTextRequest(image=_page(turn)))


def _embed(turn: int) -> Ask:
    return Ask(f"{NLP}/Embed", nlp_pb2.EmbedRequest(texts=[_text(turn)]))


def _embed_many(turn: int) -> Ask:
    count = round(size(turn, 2, TEXTS, OTHER))
    return Ask(
        f"{NLP}/Embed", nlp_pb2.EmbedRequest(texts=[_text(turn * TEXTS + place, 1500) for place in range(count)])
    )


def _find_entities(turn: int) -> Ask:
    return Ask(f"{NLP}/FindEntities", nlp_pb2.FindEntitiesRequest(text=_text(turn)))


def _detect_language(turn: int) -> Ask:
    count = round(size(turn, 1, TEXTS, OTHER))
    texts = [_text(turn * TEXTS + place) for place in range(count)]
    return Ask(f"{NLP}/DetectLanguage", nlp_pb2.DetectLanguageRequest(texts=texts))


def _recognize(turn: int) -> Ask:
    return Ask(f"{SPEECH}/Recognize", speech_pb2.RecognizeRequest(audio=_sound(turn)))


def _detect_speech(turn: int) -> Ask:
    return Ask(f"{SPEECH}/DetectSpeech", speech_pb2.DetectSpeechRequest(audio=_sound(turn)))


def _tokens(turn: int) -> Ask:
    """MiniLM by its tensors, of any rows and any length."""
    shape = round(size(turn, 1, 32)), round(size(turn, 2, 256, OTHER))
    ids = np.random.default_rng(turn).integers(1000, 30_000, shape)
    return _infer("all-minilm-l6-v2", {"input_ids": ids, "attention_mask": np.ones_like(ids)})


def _pixels(turn: int) -> Ask:
    """EfficientNet by its tensors: 0.6 MB a row."""
    rows = round(size(turn, 1, 16))
    return _infer("efficientnet-lite0", {"image": np.full((rows, 3, 224, 224), turn / 1e4, np.float32)})


KINDS: tuple[Callable[[int], Ask], ...] = (
    _classify,
    _embed,
    _recognize,
    _tokens,
    _detect,
    _embed_many,
    _detect_speech,
    _find_entities,
    _read_text,
    _pixels,
    _detect_language,
    _embed_pictures,
)


def _infer(model: str, tensors: dict[str, npt.NDArray[Any]]) -> Ask:
    request: Any = oip("ModelInferRequest")(model_name=model)
    for name, array in tensors.items():
        request.inputs.add(name=name, datatype={"i": "INT64", "f": "FP32"}[array.dtype.kind], shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return Ask(INFER, request)


def _text(turn: int, most: int = LETTERS[1]) -> str:
    """Words in an order of its own, cut to its length."""
    chooser = random.Random(turn)
    length = round(size(turn, LETTERS[0], most))
    return " ".join(chooser.choices(WORDS, k=length // 3 + 1))[:length]


def _photo(turn: int, most: int = SIDE[1]) -> vision_pb2.Image:
    """A face among other things, in a size of its own."""
    sides = _sides(turn, most)
    return _encoded(Pillow.fromarray(skimage.data.astronaut()).resize(sides, Pillow.Resampling.BILINEAR), turn)


def _page(turn: int) -> vision_pb2.Image:
    """Printed lines, in a size of its own."""
    page = Pillow.new("RGB", _sides(turn, SIDE[1]), "white")
    pen, chooser, letters = ImageDraw.Draw(page), random.Random(turn), size(turn, 12, 60, OTHER)
    for line in range(min(LINES, int(page.height / (1.6 * letters)))):
        words = " ".join(chooser.choices(WORDS, k=12))
        pen.text((8, line * 1.6 * letters), words, fill="black", font=ImageFont.load_default(letters))
    return _encoded(page, turn)


def _sides(turn: int, most: int) -> tuple[int, int]:
    return round(size(turn, SIDE[0], most)), round(size(turn, SIDE[0], most, OTHER))


def _encoded(picture: Pillow.Image, turn: int) -> vision_pb2.Image:
    file = io.BytesIO()
    if _changing(turn) % 3:
        picture.save(file, "JPEG", quality=85)
    else:
        picture.save(file, "PNG", compress_level=1)
    return vision_pb2.Image(encoded=file.getvalue())


def _changing(turn: int) -> int:
    """Counts so that each place in a round gets another number in the next round."""
    return turn + turn // len(ORDER)


def _sound(turn: int) -> speech_pb2.Audio:
    """A piece of somebody's speech, in a length of its own, from a place of its own."""
    rate = RATES[_changing(turn) % len(RATES)]
    speech = _speech(rate)
    length = round(size(turn, *SECONDS) * rate)
    start = random.Random(turn).randrange(max(len(speech) - length, 1))
    file = io.BytesIO()
    kind = ("WAV", "FLAC")[_changing(turn) % 2]
    soundfile.write(file, speech[start : start + length], rate, format=kind, subtype="PCM_16")
    return speech_pb2.Audio(encoded=file.getvalue())


@cache
def _speech(rate: int) -> npt.NDArray[np.float32]:
    """Some 35 s of speech."""
    spoken = Hibari(threads=1)(SPOKEN, seed=0)
    return np.asarray(soxr.resample(spoken, 24_000, rate), np.float32)
