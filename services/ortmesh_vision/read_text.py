"""VisionService.ReadText: the printed text of a page, line by line. Stage: task.

Three models: one finds the lines, one tells which stand on their heads, one reads them. Every line is an item of its
own, so the lines of all callers' pages share batches.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

import numpy as np

from ortmesh.common.v1 import common_pb2
from ortmesh.front.call import Call
from ortmesh.serving.gate import Gate
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.serving.needs import Needs, asset, companion
from ortmesh.serving.types import Tensors
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.bounds import min_score_of
from ortmesh_vision.boxes import box_of
from ortmesh_vision.decoder import Decoder
from ortmesh_vision.ocr_boxes import Corners, find_lines
from ortmesh_vision.ocr_crops import Image, Strip, cut, orienter_inputs, recognizer_inputs
from ortmesh_vision.ocr_order import reading_order, upside_down
from ortmesh_vision.ocr_page import prepare
from ortmesh_vision.ocr_text import read_characters, read_steps
from ortmesh_vision.settings import LineFinder, Orienter, Recognizer

DEFAULT_MIN_SCORE = 0.5
PAGES_AT_ONCE = 4
"""Enough to keep three models busy; the finder's queue then holds 200 MB at most."""
LENGTH_AT_ONCE = 240
"""Line heights of text that a page has in the recognizer's queue at a time: 34 short lines, or 3 of a hundred
characters: on a CPU eight such lines together cost 40 % more each than two (their activations leave the caches)."""
SHORTEST = 7
"""Shorter lines cost as much: they are padded."""

FINDER = Needs(LineFinder, inputs={"image": "FP32"}, outputs={"text": 4})
ORIENTER = Needs(Orienter, inputs={"image": "FP32"}, outputs={"turned": 2})
RECOGNIZER = Needs(Recognizer, inputs={"image": "FP32"}, outputs={"indices": 2, "scores": 2})

S = TypeVar("S", Orienter, Recognizer)


@dataclass(frozen=True, slots=True)
class Line:
    """A line that was read."""

    corners: Corners
    """In pixels of the picture that was sent."""
    text: str
    score: float


class ReadText:
    """The task."""

    def __init__(self, models: Models, decoder: Decoder) -> None:
        self.models = models
        self.decoder = decoder
        models.require("read_text", FINDER.of)
        self.gate = Gate(PAGES_AT_ONCE)

    async def __call__(self, request: vision_pb2.ReadTextRequest, call: Call) -> vision_pb2.ReadTextResponse:
        """Find, turn, read."""
        min_score = min_score_of(request.min_score, DEFAULT_MIN_SCORE)
        model = self.models.choose("read_text", request.model, call)
        finder = FINDER.of(model)
        orienter = companion(self.models, model, "orienter", finder.orienter, call)
        recognizer = companion(self.models, model, "recognizer", finder.recognizer, call)
        async with self.gate.place(call):
            info, strips = await find_strips(model, request.image, finder, self.decoder, call)
            strips, others = await turned_upright(orienter, strips, call)
            read = await read_strips(recognizer, [*strips, *others.values()], call)
        best = better(read[: len(strips)], dict(zip(others, read[len(strips) :], strict=True)))
        good = [line for line in best if line.text and line.score >= min_score]
        version = common_pb2.ModelVersion(name=model.name, version=model.version)
        return await call.in_pool(answer, version, info, good)


async def find_strips(
    model: Model, image: vision_pb2.Image, finder: LineFinder, decoder: Decoder, call: Call
) -> tuple[vision_pb2.ImageInfo, list[Strip]]:
    """What was read of the picture, and its lines cut out of it."""
    page, pixels = await decoder.prepare(image, "image", partial(prepare, finder=finder), call)
    outputs = await model({"image": pixels}, call, outputs=FINDER.outputs)
    lines = await call.in_pool(find_lines, outputs["text"][0, 0], page.size, finder)
    return page.info, await call.in_pool(cut, page, lines)


async def turned_upright(model: Model, strips: Sequence[Strip], call: Call) -> tuple[list[Strip], dict[int, Strip]]:
    """The strips as they are read, and the other way round by index, those that may be read either way."""
    orienter = ORIENTER.of(model)
    outputs = await run_all(model, orienter_inputs, strips, orienter, call, ORIENTER.outputs)
    turned = np.array([each["turned"][0, 1] for each in outputs], np.float32)
    turns, doubtful = upside_down([strip.corners for strip in strips], turned, orienter.turned_threshold)
    upright = [strip.turned() if turn else strip for strip, turn in zip(strips, turns, strict=True)]
    return upright, {index: upright[index].turned() for index in np.flatnonzero(doubtful).tolist()}


async def read_strips(model: Model, strips: Sequence[Strip], call: Call) -> list[Line]:
    """What the strips say, in their order; those of like width are sent together."""
    recognizer = RECOGNIZER.of(model)
    characters = await call.in_pool(asset, model, read_characters, recognizer.characters)
    by_width = sorted(range(len(strips)), key=lambda index: strips[index].aspect)
    sorted_strips = [strips[index] for index in by_width]
    outputs = await run_all(model, recognizer_inputs, sorted_strips, recognizer, call, RECOGNIZER.outputs)
    read = {
        index: Line(strips[index].corners, *read_steps(each["indices"][0], each["scores"][0], characters))
        for index, each in zip(by_width, outputs, strict=True)
    }
    return [read[index] for index in range(len(strips))]


async def run_all(
    model: Model,
    inputs: Callable[[Sequence[Strip], S], list[Image]],
    strips: Sequence[Strip],
    constants: S,
    call: Call,
    needed: Collection[str],
) -> list[Tensors]:
    """The model's outputs that are needed, for all strips, in their order."""
    outputs: list[Tensors] = []
    for portion in portions(strips):
        tensors = await call.in_pool(inputs, portion, constants)
        outputs += await model.many(tensors, call, outputs=needed)
    return outputs


def portions(strips: Sequence[Strip]) -> list[Sequence[Strip]]:
    """The strips in portions of about LENGTH_AT_ONCE, in their order."""
    ends = np.cumsum([max(strip.aspect, SHORTEST) for strip in strips])
    numbers = (ends / LENGTH_AT_ONCE).astype(int).tolist()
    return [[strip for strip, _ in group] for _, group in groupby(zip(strips, numbers, strict=True), itemgetter(1))]


def better(lines: Sequence[Line], others: Mapping[int, Line]) -> list[Line]:
    """The lines, those with another reading replaced by it where it has the better score."""
    return [max(line, others.get(index, line), key=lambda each: each.score) for index, line in enumerate(lines)]


def answer(
    model: common_pb2.ModelVersion, info: vision_pb2.ImageInfo, lines: Sequence[Line]
) -> vision_pb2.ReadTextResponse:
    """The response: the lines in reading order, in pixels of the picture that was sent."""
    lines = [lines[index] for index in reading_order([line.corners for line in lines])]
    return vision_pb2.ReadTextResponse(
        model=model,
        text="\n".join(line.text for line in lines),
        lines=[text_line(line, info) for line in lines],
        image=info,
    )


def text_line(line: Line, info: vision_pb2.ImageInfo) -> vision_pb2.TextLine:
    """One line, its corners kept within the picture."""
    corners = np.clip(line.corners, 0, np.array([info.width, info.height], np.float32))
    return vision_pb2.TextLine(
        text=line.text,
        score=line.score,
        corners=[common_pb2.Point(x=x, y=y) for x, y in corners.tolist()],
        box=box_of([*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()], info),
    )
