"""Lines cut out of a page, as the inputs of the models that turn and read them. Stage: task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ortmesh_vision.ocr_boxes import Corners
from ortmesh_vision.ocr_page import Page, resize
from ortmesh_vision.pictures import Pixels
from ortmesh_vision.settings import Orienter, Recognizer

Image = dict[str, npt.NDArray[np.float32]]
"""The one input of both models, `image` [1, 3, height, width]."""

SEEN_ASPECT = 8
"""The orienter looks at this many line heights from a line's start. Given whole lines of 30 heights, squeezed to its 4,
it missed 66 of 150 on their heads; given 8 it missed one, given 4 it turned 19 upright ones."""


@dataclass(frozen=True, slots=True)
class Strip:
    """A line cut out of its page."""

    corners: Corners
    """In pixels of the picture that was sent."""
    pixels: Pixels
    """[height, width, 3], level."""

    @property
    def aspect(self) -> float:
        """How many times longer than high."""
        return float(self.pixels.shape[1] / self.pixels.shape[0])

    def turned(self) -> Strip:
        """The same by half a turn: the corners start at the top left of the text again."""
        return Strip(np.roll(self.corners, 2, axis=0), np.ascontiguousarray(self.pixels[::-1, ::-1]))


def cut(page: Page, lines: Sequence[Corners]) -> list[Strip]:
    """The lines at the page's scale."""
    return [_cut(page, line) for line in lines]


def _cut(page: Page, line: Corners) -> Strip:
    width = max(1, round(float(np.linalg.norm(line[1] - line[0]))))
    height = max(1, round(float(np.linalg.norm(line[3] - line[0]))))
    level = np.array([[0, 0], [width, 0], [0, height]], np.float32)
    to_level = cv2.getAffineTransform(np.ascontiguousarray(line[[0, 1, 3]]), level)
    pixels = cv2.warpAffine(page.rgb, to_level, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return Strip((line * page.scale).astype(np.float32), np.asarray(pixels, np.uint8))


def orienter_inputs(strips: Sequence[Strip], orienter: Orienter) -> list[Image]:
    """`image` [1, 3, height, width] of each line's start."""
    return [{"image": _orienter_input(strip.pixels, orienter)} for strip in strips]


def _orienter_input(pixels: Pixels, orienter: Orienter) -> npt.NDArray[np.float32]:
    seen = pixels[:, : SEEN_ASPECT * pixels.shape[0]]
    width = min(_width_at(seen, orienter.height), orienter.width)
    planes = np.full((1, 3, orienter.height, orienter.width), orienter.pad_value, np.float32)
    orienter.write(resize(seen, width, orienter.height), planes[0, :, :, :width])
    return planes


def recognizer_inputs(strips: Sequence[Strip], recognizer: Recognizer) -> list[Image]:
    """`image` [1, 3, height, width] of each line, padded to its class of widths."""
    return [{"image": _recognizer_input(strip.pixels, recognizer)} for strip in strips]


def _recognizer_input(pixels: Pixels, recognizer: Recognizer) -> npt.NDArray[np.float32]:
    width = _recognizer_width(pixels, recognizer)
    padded = math.ceil(max(width, recognizer.min_width) / recognizer.width_multiple) * recognizer.width_multiple
    planes = np.full((1, 3, recognizer.height, padded), recognizer.pad_value, np.float32)
    recognizer.write(resize(pixels, width, recognizer.height), planes[0, :, :, :width])
    return planes


def _recognizer_width(pixels: Pixels, recognizer: Recognizer) -> int:
    """How wide the line is for the recognizer, before it is padded."""
    natural = _width_at(pixels, recognizer.height)
    narrowed = max(min(natural, recognizer.min_width), round(natural * recognizer.width_share))
    return min(narrowed, recognizer.max_width)


def _width_at(pixels: Pixels, height: int) -> int:
    """The width that keeps the proportions at another height."""
    across, along = int(pixels.shape[0]), int(pixels.shape[1])
    return max(1, math.ceil(along * height / across))
