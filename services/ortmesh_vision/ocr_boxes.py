"""Where the lines of a page are: from the finder's map of probabilities to corners in reading direction. Stage: task.

The map is the core of each line, as in differentiable binarization (Liao et al., arXiv:1911.08947): its pixels over a
threshold are grouped, each group gets the smallest rectangle around it, and the rectangle grows to the letters' size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ortmesh_vision.settings import LineFinder

Map = npt.NDArray[np.float32]
"""[height, width], probabilities of text."""
Points = npt.NDArray[np.float32]
"""[points, 2], x and y: the outline of a group of pixels."""
Corners = npt.NDArray[np.float32]
"""[4, 2], x and y: clockwise from the top left of the text as it is read."""

MIN_SIDE = 3
"""Groups of pixels that are thinner are specks."""
CLEAR_ASPECT = 3.0
"""A rectangle this many times longer than thick is a line along its length, whatever its page does; a shorter one
may be an upright `1` as well as a word on its side."""
LETTER_TILT = math.radians(20)
"""Short rectangles within this angle of the page's lines follow them: it is a `7` that leans, not the text."""
LEVEL_PRIOR = 3.0
"""How much a page leans to being level, as so many line heights of text: for pages of one short word."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A rectangle around a group of pixels, in the map's pixels."""

    x: float
    y: float
    """The centre."""
    width: float
    """Along the angle."""
    height: float
    """Across it."""
    angle: float
    """In radians, clockwise from level."""

    @property
    def aspect(self) -> float:
        """How many times wider than high."""
        return self.width / self.height

    def grown(self, ratio: float) -> Rectangle:
        """Grown on every side by `ratio` times area by perimeter: what offsetting its outline comes to."""
        growth = ratio * self.width * self.height / (self.width + self.height)
        return replace(self, width=self.width + growth, height=self.height + growth)

    def on_its_side(self) -> Rectangle:
        """The same rectangle, described along its other side."""
        return replace(self, width=self.height, height=self.width, angle=self.angle + math.pi / 2)


def find_lines(text: Map, page_size: npt.NDArray[np.float32], finder: LineFinder) -> list[Corners]:
    """The corners of every line, in pixels of a page of [width, height]; none for a page without text."""
    groups = find_groups(text, finder)
    rectangles = [smallest_around(group) for group in groups]
    axis = page_axis(rectangles)
    scale = page_size / np.array(text.shape[::-1], np.float32)
    return [
        (corners(along_text(group, rectangle, axis).grown(finder.unclip_ratio)) * scale).astype(np.float32)
        for group, rectangle in zip(groups, rectangles, strict=True)
    ]


def find_groups(text: Map, finder: LineFinder) -> list[Points]:
    """Groups of pixels that are lines, the largest first, at most `max_boxes`."""
    over = cv2.dilate((text > finder.pixel_threshold).astype(np.uint8), np.ones((finder.dilation,) * 2, np.uint8))
    outlines, _ = cv2.findContours(over, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    groups = [outline[:, 0].astype(np.float32) for outline in outlines if _is_line(outline, text, finder)]
    groups.sort(key=lambda group: -cv2.contourArea(group))
    return groups[: finder.max_boxes]


def _is_line(outline: Any, text: Map, finder: LineFinder) -> bool:
    """False for a speck, and where the map is not sure of the rectangle."""
    around = cv2.minAreaRect(outline)
    return min(around[1]) >= MIN_SIDE and _mean_within(text, cv2.boxPoints(around)) >= finder.box_threshold


def _mean_within(text: Map, points: npt.NDArray[Any]) -> float:
    """The map's mean within four points."""
    height, width = text.shape
    left, top = np.floor(points.min(axis=0)).astype(int).clip(0, (width - 1, height - 1))
    right, bottom = np.ceil(points.max(axis=0)).astype(int).clip(0, (width - 1, height - 1))
    part = text[top : bottom + 1, left : right + 1]
    mask = np.zeros(part.shape, np.uint8)
    cv2.fillPoly(mask, [(points - (left, top)).astype(np.int32)], 1)
    return float(cv2.mean(part, mask)[0])


def smallest_around(group: Points) -> Rectangle:
    """The smallest rectangle around a group, along its longer side."""
    (x, y), (width, height), degrees = cv2.minAreaRect(group)
    rectangle = Rectangle(x, y, width, height, math.radians(degrees))
    return rectangle if width >= height else rectangle.on_its_side()


def page_axis(rectangles: Sequence[Rectangle]) -> float:
    """The angle along which the page's lines run, in radians within a half turn; long lines count for more.

    Angles are doubled before they are averaged, so that a line and its opposite agree.
    """
    level, across = LEVEL_PRIOR, 0.0
    for rectangle in rectangles:
        level += (rectangle.aspect - 1) * math.cos(2 * rectangle.angle)
        across += (rectangle.aspect - 1) * math.sin(2 * rectangle.angle)
    return math.atan2(across, level) / 2


def along_text(group: Points, rectangle: Rectangle, axis: float) -> Rectangle:
    """The rectangle around a group along its text: its own length when that is clear, else as the page's lines run."""
    if rectangle.aspect >= CLEAR_ASPECT:
        return rectangle
    # From the page's lines to the nearest side of the rectangle, within an eighth of a turn.
    tilt = (rectangle.angle - axis + math.pi / 4) % (math.pi / 2) - math.pi / 4
    if abs(tilt) < LETTER_TILT:
        return _around(group, axis)
    return rectangle if abs(math.cos(rectangle.angle - axis)) > math.sqrt(0.5) else rectangle.on_its_side()


def _around(group: Points, angle: float) -> Rectangle:
    """The rectangle around a group at an angle."""
    axes = _axes(angle)
    low, high = (group @ axes.T).min(axis=0), (group @ axes.T).max(axis=0)
    x, y = ((low + high) / 2 @ axes).tolist()
    width, height = (high - low).tolist()
    return Rectangle(x, y, width, height, angle)


def corners(rectangle: Rectangle) -> Corners:
    """The rectangle's corners, for text that runs along its width: to the right, or downwards where it is steep.

    Whether the text runs the other way is the orienter's question.
    """
    along, down = _axes(rectangle.angle)
    if along[np.argmax(np.abs(along))] < 0:
        along, down = -along, -down
    right, below = along * rectangle.width / 2, down * rectangle.height / 2
    around = np.array([-right - below, right - below, right + below, below - right], np.float32)
    return around + np.array([rectangle.x, rectangle.y], np.float32)


def _axes(angle: float) -> npt.NDArray[np.float32]:
    """Unit vectors along an angle and down from it, [2, 2]."""
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], np.float32)
