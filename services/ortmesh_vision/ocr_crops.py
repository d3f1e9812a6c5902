"""Lines cut out of a page, as the inputs of the models that turn and read them. Stage: task."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ortmesh_vision.ocr_boxes import Corners
from ortmesh_vision.ocr_page import Page, resize
from ortmesh_vision.pictures import Pixels
from ortmesh_vision.settings import Orienter, Recognizer

Tensors = dict[str, npt.NDArray[np.float32]]

SEEN_ASPECT = 8
"""The orienter looks at this many line heights from a line's start. Given whole lines of 30 heights, squeezed to its 4,
it missed 66 of 150 on their heads; given 8 it missed one, given 4 it turned 19 upright ones."""


def cut(page: Page, line: Corners) -> Pixels:
    """The line's pixels, level, at the page's scale: [height, width, 3]."""
    width = max(1, round(float(np.linalg.norm(line[1] - line[0]))))
    height = max(1, round(float(np.linalg.norm(line[3] - line[0]))))
    level = np.array([[0, 0], [width, 0], [0, height]], np.float32)
    to_level = cv2.getAffineTransform(np.ascontiguousarray(line[[0, 1, 3]]), level)
    crop = cv2.warpAffine(page.rgb, to_level, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(crop, np.uint8)


def cut_all(page: Page, lines: Sequence[Corners]) -> list[Pixels]:
    """All lines' pixels."""
    return [cut(page, line) for line in lines]


def turn(crop: Pixels) -> Pixels:
    """The crop turned by half a turn."""
    return np.ascontiguousarray(crop[::-1, ::-1])


def turned_corners(line: Corners) -> Corners:
    """The corners of a line that stands on its head, again from the top left of its text."""
    return np.roll(line, 2, axis=0)


def orienter_inputs(crops: Sequence[Pixels], orienter: Orienter) -> list[Tensors]:
    """`image` [1, 3, height, width] of each line's start."""
    return [{"image": _orienter_input(crop, orienter)} for crop in crops]


def _orienter_input(crop: Pixels, orienter: Orienter) -> npt.NDArray[np.float32]:
    seen = crop[:, : SEEN_ASPECT * crop.shape[0]]
    width = min(_width_at(seen, orienter.height), orienter.width)
    planes = np.full((1, 3, orienter.height, orienter.width), orienter.pad_value, np.float32)
    orienter.write(resize(seen, width, orienter.height), planes[0, :, :, :width])
    return planes


def recognizer_inputs(crops: Sequence[Pixels], recognizer: Recognizer) -> list[Tensors]:
    """`image` [1, 3, height, width] of each line, padded to its class of widths."""
    return [{"image": _recognizer_input(crop, recognizer)} for crop in crops]


def _recognizer_input(crop: Pixels, recognizer: Recognizer) -> npt.NDArray[np.float32]:
    width = min(_width_at(crop, recognizer.height), recognizer.max_width)
    padded = math.ceil(max(width, recognizer.min_width) / recognizer.width_multiple) * recognizer.width_multiple
    planes = np.full((1, 3, recognizer.height, padded), recognizer.pad_value, np.float32)
    recognizer.write(resize(crop, width, recognizer.height), planes[0, :, :, :width])
    return planes


def _width_at(crop: Pixels, height: int) -> int:
    """The width that keeps the crop's proportions at another height."""
    across, along = int(crop.shape[0]), int(crop.shape[1])
    return max(1, math.ceil(along * height / across))
