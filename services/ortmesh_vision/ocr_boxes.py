"""Where the lines of a page are: from the finder's map of probabilities to corners in reading direction. Stage: task.

The map is the core of each line, as in differentiable binarization (Liao et al., arXiv:1911.08947): its pixels over a
threshold are grouped, each group gets the smallest rectangle around it, and the rectangle grows to the letters' size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ortmesh_vision.settings import LineFinder

Map = npt.NDArray[np.float32]
"""[height, width], probabilities of text."""
Corners = npt.NDArray[np.float32]
"""[4, 2], x and y: clockwise from the top left of the text as it is read."""

MIN_SIDE = 3
"""Groups of pixels that are thinner are specks."""
CLEAR = 3.0
"""A rectangle this many times longer than thick is a line along its length, whatever its page does; a shorter one
may be an upright `1` as well as a word on its side."""
LEVEL_PRIOR = 3.0
"""How much a page leans to being level, as so many line heights of text: for pages of one short word."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A rectangle around a group of pixels, in the map's pixels."""

    x: float
    y: float
    length: float
    """The longer side."""
    thickness: float
    angle: float
    """Of the longer side, in radians, clockwise from level; a line's and its opposite's are the same."""

    @property
    def aspect(self) -> float:
        """How many times longer than thick."""
        return self.length / self.thickness


def find_lines(text: Map, page_size: npt.NDArray[np.float32], finder: LineFinder) -> list[Corners]:
    """The corners of every line, in pixels of a page of [width, height]; none for a page without text."""
    rectangles = find_rectangles(text, finder)
    axis = page_axis(rectangles)
    scale = page_size / np.array(text.shape[::-1], np.float32)
    return [(corners(rectangle, axis) * scale).astype(np.float32) for rectangle in rectangles]


def find_rectangles(text: Map, finder: LineFinder) -> list[Rectangle]:
    """Rectangles of the size of the letters, the largest first, at most `max_boxes`."""
    over = cv2.dilate((text > finder.pixel_threshold).astype(np.uint8), np.ones((finder.dilation,) * 2, np.uint8))
    groups, _ = cv2.findContours(over, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    rectangles = [found for group in groups if (found := _rectangle(group, text, finder)) is not None]
    rectangles.sort(key=lambda rectangle: -rectangle.length * rectangle.thickness)
    return rectangles[: finder.max_boxes]


def _rectangle(group: Any, text: Map, finder: LineFinder) -> Rectangle | None:
    """The grown rectangle around one group; None when it is a speck or the map is not sure of it."""
    around = cv2.minAreaRect(group)
    (x, y), (width, height), degrees = around
    if min(width, height) < MIN_SIDE or _mean_within(text, cv2.boxPoints(around)) < finder.box_threshold:
        return None
    # What clipping the polygon's offset comes to for a rectangle: area / perimeter on every side.
    growth = 2 * finder.unclip_ratio * width * height / (2 * (width + height))
    width, height, angle = width + growth, height + growth, math.radians(degrees)
    if width >= height:
        return Rectangle(x, y, width, height, angle)
    return Rectangle(x, y, height, width, angle + math.pi / 2)


def _mean_within(text: Map, points: npt.NDArray[Any]) -> float:
    """The map's mean within four points."""
    height, width = text.shape
    left, top = np.floor(points.min(axis=0)).astype(int).clip(0, (width - 1, height - 1))
    right, bottom = np.ceil(points.max(axis=0)).astype(int).clip(0, (width - 1, height - 1))
    part = text[top : bottom + 1, left : right + 1]
    mask = np.zeros(part.shape, np.uint8)
    cv2.fillPoly(mask, [(points - (left, top)).astype(np.int32)], 1)
    return float(cv2.mean(part, mask)[0])


def page_axis(rectangles: Sequence[Rectangle]) -> float:
    """The angle along which the page's lines run, in radians within a half turn; long lines count for more.

    Angles are doubled before they are averaged, so that a line and its opposite agree.
    """
    level, across = LEVEL_PRIOR, 0.0
    for rectangle in rectangles:
        level += (rectangle.aspect - 1) * math.cos(2 * rectangle.angle)
        across += (rectangle.aspect - 1) * math.sin(2 * rectangle.angle)
    return math.atan2(across, level) / 2


def corners(rectangle: Rectangle, axis: float) -> Corners:
    """The rectangle's corners for text that runs along it, or along the page's axis when it is short.

    Text is taken to run to the right, or downwards where it is steep; whether it runs the other way is the
    orienter's question.
    """
    length, thickness, angle = rectangle.length, rectangle.thickness, rectangle.angle
    if rectangle.aspect < CLEAR and abs(math.sin(angle - axis)) > math.sqrt(0.5):
        length, thickness, angle = thickness, length, angle + math.pi / 2
    along = np.array([math.cos(angle), math.sin(angle)])
    if along[np.argmax(np.abs(along))] < 0:
        along = -along
    down = np.array([-along[1], along[0]])
    right, below = along * length / 2, down * thickness / 2
    around = np.array([-right - below, right - below, right + below, below - right], np.float32)
    return around + np.array([rectangle.x, rectangle.y], np.float32)
