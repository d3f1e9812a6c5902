"""VisionService.ReadText: the printed text of a page, line by line. Stage: task.

Three models: one finds the lines, one tells which stand on their heads, one reads them. Every line is an item of its
own, so the lines of all callers' pages share batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ortmesh.common.v1 import common_pb2
from ortmesh.errors import BadInput
from ortmesh.front.call import Call
from ortmesh.serving.model import Model
from ortmesh.serving.models import Models
from ortmesh.serving.types import Tensors
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.ocr_boxes import Corners, find_lines
from ortmesh_vision.ocr_crops import Image, Strip, cut, orienter_inputs, recognizer_inputs
from ortmesh_vision.ocr_order import reading_order, upside_down
from ortmesh_vision.ocr_page import Page, prepare
from ortmesh_vision.ocr_text import read_characters, read_steps
from ortmesh_vision.settings import LineFinder, Orienter, Recognizer, settings

DEFAULT_MIN_SCORE = 0.5
LINES_AT_ONCE = 64
"""Lines of a call that wait in a model's queue at a time: inputs of 600 KB each stay out of memory until then."""

S = TypeVar("S", Orienter, Recognizer)


@dataclass(frozen=True, slots=True)
class Line:
    """A line that was read."""

    corners: Corners
    """In pixels of the page."""
    text: str
    score: float


class ReadText:
    """The task."""

    def __init__(self, models: Models) -> None:
        self.models = models

    async def __call__(self, request: vision_pb2.ReadTextRequest, call: Call) -> vision_pb2.ReadTextResponse:
        """Find, turn, read."""
        min_score = min_score_of(request)
        model = self.models.choose("read_text", request.model, call)
        finder = settings(model.card, LineFinder)
        orienter = self.models.named(finder.orienter, "", call)
        recognizer = self.models.named(finder.recognizer, "", call)
        page, pixels = await call.in_pool(prepare, request.image, finder)
        outputs = await model({"image": pixels}, call)
        del pixels
        lines = await call.in_pool(find_lines, outputs["text"][0, 0], page.size, finder)
        strips = await call.in_pool(cut, page, lines)
        strips, others = await turned_upright(orienter, strips, call)
        read = await read_strips(recognizer, [*strips, *others.values()], call)
        best = better(read[: len(strips)], dict(zip(others, read[len(strips) :], strict=True)))
        return answer(model, page, [line for line in best if line.text and line.score >= min_score])


async def turned_upright(model: Model, strips: Sequence[Strip], call: Call) -> tuple[list[Strip], dict[int, Strip]]:
    """The strips as they are read, and the other way round by index, those that may be read either way."""
    orienter = settings(model.card, Orienter)
    outputs = await run_all(model, orienter_inputs, strips, orienter, call)
    turned = np.array([each["turned"][0, 1] for each in outputs], np.float32)
    turns, doubtful = upside_down([strip.corners for strip in strips], turned, orienter.turned_threshold)
    upright = [strip.turned() if turn else strip for strip, turn in zip(strips, turns, strict=True)]
    return upright, {index: upright[index].turned() for index in np.flatnonzero(doubtful).tolist()}


async def read_strips(model: Model, strips: Sequence[Strip], call: Call) -> list[Line]:
    """What the strips say, in their order; those of like width are sent together."""
    recognizer = settings(model.card, Recognizer)
    characters = model.asset(read_characters, recognizer.characters)
    by_width = sorted(range(len(strips)), key=lambda index: strips[index].aspect)
    outputs = await run_all(model, recognizer_inputs, [strips[index] for index in by_width], recognizer, call)
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
) -> list[Tensors]:
    """The model's outputs for all strips, in their order."""
    outputs: list[Tensors] = []
    for start in range(0, len(strips), LINES_AT_ONCE):
        tensors = await call.in_pool(inputs, strips[start : start + LINES_AT_ONCE], constants)
        outputs += await model.many(tensors, call)
    return outputs


def better(lines: Sequence[Line], others: Mapping[int, Line]) -> list[Line]:
    """The lines, those with another reading replaced by it where it has the better score."""
    return [max(line, others.get(index, line), key=lambda each: each.score) for index, line in enumerate(lines)]


def min_score_of(request: vision_pb2.ReadTextRequest) -> float:
    """The least score of a line. BadInput outside 0 to 1; 0 is the default."""
    if math.isnan(request.min_score) or not 0 <= request.min_score <= 1:
        raise BadInput("min_score", f"is {request.min_score:g}; 0 to 1 is allowed, 0 means {DEFAULT_MIN_SCORE}")
    return request.min_score or DEFAULT_MIN_SCORE


def answer(model: Model, page: Page, lines: Sequence[Line]) -> vision_pb2.ReadTextResponse:
    """The response: the lines in reading order, in pixels of the picture that was sent."""
    lines = [lines[index] for index in reading_order([line.corners for line in lines])]
    size = np.array([page.info.width, page.info.height], np.float32)
    return vision_pb2.ReadTextResponse(
        model=common_pb2.ModelVersion(name=model.name, version=model.version),
        text="\n".join(line.text for line in lines),
        lines=[text_line(line, page.size, size) for line in lines],
        image=page.info,
    )


def text_line(line: Line, page_size: npt.NDArray[np.float32], size: npt.NDArray[np.float32]) -> vision_pb2.TextLine:
    """One line, its corners scaled from the page to a picture of [width, height] and kept within it."""
    corners = np.clip(line.corners * (size / page_size), 0, size)
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    width, height = size.tolist()
    return vision_pb2.TextLine(
        text=line.text,
        score=line.score,
        corners=[common_pb2.Point(x=x, y=y) for x, y in corners.tolist()],
        box=common_pb2.Box(
            x_min=left,
            y_min=top,
            x_max=right,
            y_max=bottom,
            normalized_x_min=left / width,
            normalized_y_min=top / height,
            normalized_x_max=right / width,
            normalized_y_max=bottom / height,
        ),
    )
